/* Predicates on the columns of a segment: segment_scan.h. */
#include "store/local/segment_scan.h"

#include <stdlib.h>

enum { UNKNOWN, NO, YES };

/* ---- the scanner ---- */

int scanner_init(struct scanner *sc, struct segment *seg, unsigned leaves)
{
    *sc = (struct scanner){.seg = seg, .leaves = calloc(leaves + 1, sizeof *sc->leaves)};
    return sc->leaves ? 0 : ERR_NOMEM;
}

void scanner_done(struct scanner *sc)
{
    scanner_leave(sc);
    free(sc->leaves);
    arena_done(&sc->arena);
    arena_done(&sc->scratch);
}

int scanner_enter(struct scanner *sc, const struct segment_group *g)
{
    scanner_leave(sc);
    arena_reset(&sc->scratch);
    sc->operation = sc->status = sc->duration = sc->parent = sc->message = sc->start = NULL;
    sc->trace_rows = NULL;
    sc->group++;
    int err = segment_group_keep(sc->seg, g, &sc->kept);
    if (err)
        sc->kept = NULL;
    else
        sc->kept->pins++;
    return err;
}

void scanner_leave(struct scanner *sc)
{
    if (sc->kept)
        sc->kept->pins--;
    sc->kept = NULL;
}

/* ---- fixed columns, read when first needed ---- */

int scanner_fixed(struct scanner *sc, enum fixed_column column, uint64_t **at)
{
    return *at ? 0 : group_fixed(sc->seg, sc->kept, column, at);
}

int scanner_traces(struct scanner *sc)
{
    struct segment *seg = sc->seg;
    struct arena *a = &sc->scratch;
    const struct segment_group *g = sc->kept->g.group;
    if (sc->trace_rows)
        return 0;
    uint32_t *rows = arena_array(a, (size_t)g->n + 1, sizeof *rows);
    sc->trace_ids = arena_array(a, g->n, sizeof *sc->trace_ids);
    sc->trace_starts = arena_array(a, g->n, sizeof *sc->trace_starts);
    if (!rows || !sc->trace_ids || !sc->trace_starts)
        return ERR_NOMEM;
    const struct segment_trace_block *b = segment_trace_block_of(seg, g->first_trace);
    const struct segment_trace_block *end_b = seg->trace_blocks + seg->n_trace_blocks;
    uint32_t at = g->first_row, end = g->first_row + g->n, n = 0;
    for (; at < end && b < end_b; b++) {
        struct traces_read *t;
        int err = segment_traces(seg, b, &t);
        if (err)
            return err;
        uint32_t k = b->first_trace < g->first_trace ? g->first_trace - b->first_trace : 0;
        for (; k < b->n && at < end; k++) {
            if (t->first_row[k + 1] <= at)
                continue;
            if (t->first_row[k] > at)
                return segment_fail(seg, ERR_CORRUPT, b->ref.offset, "a block of traces");
            memcpy(sc->trace_ids[n].bytes, t->ids + (size_t)k * TRACE_ID_SIZE, TRACE_ID_SIZE);
            sc->trace_starts[n] = t->start[k];
            if (n == 0)
                sc->first_is_cut = t->first_row[k] < at;
            rows[n++] = at - g->first_row;
            at = t->first_row[k + 1];
        }
    }
    if (at < end)
        return segment_fail(seg, ERR_CORRUPT, g->directory.offset, "the rows of a group");
    sc->last_is_cut = at > end;
    rows[n] = g->n;
    sc->n_traces = n;
    sc->trace_rows = rows;
    return 0;
}

int scanner_starts(struct scanner *sc)
{
    uint32_t n = sc->kept->g.group->n;
    uint64_t *steps = NULL;
    if (sc->start)
        return 0;
    int err = scanner_traces(sc);
    if (!err)
        err = scanner_fixed(sc, FIXED_START, &steps);
    if (err)
        return err;
    uint64_t *start = arena_array(&sc->scratch, n, sizeof *start);
    sc->trace_of = arena_array(&sc->scratch, n, sizeof *sc->trace_of);
    if (!start || !sc->trace_of)
        return ERR_NOMEM;
    for (uint32_t k = 0; k < sc->n_traces; k++) {
        uint64_t at = sc->trace_starts[k];
        for (uint32_t i = sc->trace_rows[k]; i < sc->trace_rows[k + 1]; i++) {
            start[i] = at += steps[i];
            sc->trace_of[i] = k;
        }
    }
    sc->start = start;
    return 0;
}

int scanner_operation(struct scanner *sc)
{
    return scanner_fixed(sc, FIXED_OPERATION, &sc->operation);
}

/* ---- leaves on operations ---- */

static int operation_matches(struct segment *seg, const struct filter *f,
                             const struct segment_operation *op, bool *ret)
{
    const struct resource *resource;
    struct str name;
    int err = 0;
    if (f->field == FIELD_NAME) {
        err = segment_string(seg, op->name, &name);
        if (!err)
            *ret = filter_string(f, name);
    } else if (f->field == FIELD_KIND) {
        *ret = filter_integer(f, op->kind);
    } else {
        err = segment_resource(seg, op->resource, &resource);
        if (err)
            return err;
        if (f->field == FIELD_SERVICE) {
            *ret = filter_string(f, resource->service_name);
        } else {
            struct resource_derived derived;
            const struct attr *a = resource_attr_find(resource, f->key, &derived);
            *ret = a && filter_value(f, &a->value);
        }
    }
    return err;
}

static int operations_ask(struct scanner *sc, const struct filter *f)
{
    struct leaf *leaf = &sc->leaves[f->leaf];
    if (leaf->operations)
        return 0;
    int err = segment_operations_read(sc->seg);
    uint8_t *answers = err ? NULL : arena_alloc(&sc->arena, sc->seg->n_operations);
    if (!err && !answers)
        err = ERR_NOMEM;
    for (uint32_t i = 0; !err && i < sc->seg->n_operations; i++) {
        bool yes = false;
        err = operation_matches(sc->seg, f, &sc->seg->operations[i], &yes);
        answers[i] = yes;
        leaf->operations_any |= yes;
    }
    if (!err)
        leaf->operations = answers;
    return err;
}

static int operations_eval(struct scanner *sc, const struct filter *f, uint8_t *out)
{
    int err = operations_ask(sc, f);
    const struct leaf *leaf = &sc->leaves[f->leaf];
    if (!err && !leaf->operations_any) {
        memset(out, 0, sc->kept->g.group->n);
        return 0;
    }
    if (!err)
        err = scanner_operation(sc);
    for (uint32_t i = 0; !err && i < sc->kept->g.group->n; i++)
        out[i] = leaf->operations[sc->operation[i]];
    return err;
}

/* ---- leaves on numbers ---- */

/* Whether no number between low and high can fulfil the comparison. */
static bool range_excludes(const struct filter *f, int64_t low, int64_t high)
{
    if (f->value.type != VALUE_INT && f->value.type != VALUE_DOUBLE)
        return false;
    switch (f->op) {
    case PREDICATE_EQ: {
        struct filter least = *f, most = *f;
        least.op = PREDICATE_GT;
        most.op = PREDICATE_LT;
        return filter_integer(&least, low) || filter_integer(&most, high);
    }
    case PREDICATE_LT:
    case PREDICATE_LE:
        return !filter_integer(f, low);
    case PREDICATE_GT:
    case PREDICATE_GE:
        return !filter_integer(f, high);
    default:
        return false;
    }
}

static int64_t integer_from(uint64_t n)
{
    return n > INT64_MAX ? INT64_MAX : (int64_t)n;
}

/* The comparison as bounds of a range, both included; false when it is none, or of something else. */
static bool bounds_of(const struct filter *f, int64_t *low, int64_t *high)
{
    int64_t v = f->value.integer;
    if (f->value.type != VALUE_INT)
        return false;
    *low = INT64_MIN;
    *high = INT64_MAX;
    switch (f->op) {
    case PREDICATE_EQ:
        *low = *high = v;
        return true;
    case PREDICATE_LE:
        *high = v;
        return true;
    case PREDICATE_GE:
        *low = v;
        return true;
    case PREDICATE_LT:
        *high = v - 1;
        return v > INT64_MIN;
    case PREDICATE_GT:
        *low = v + 1;
        return v < INT64_MAX;
    default:
        return false;
    }
}

static void numbers_eval(const struct filter *f, const uint64_t *numbers, uint32_t n, uint8_t *out)
{
    int64_t low, high;
    if (bounds_of(f, &low, &high)) {
        for (uint32_t i = 0; i < n; i++) {
            int64_t v = integer_from(numbers[i]);
            out[i] = (v >= low) & (v <= high);
        }
        return;
    }
    for (uint32_t i = 0; i < n; i++)
        out[i] = filter_integer(f, integer_from(numbers[i]));
}

/* An end before the start is a duration of 0. Only then, or beyond 2^63, do the starts matter. */
static int durations_eval(struct scanner *sc, const struct filter *f, uint8_t *out)
{
    const struct segment_group *g = sc->kept->g.group;
    int err = scanner_fixed(sc, FIXED_DURATION, &sc->duration);
    uint64_t all = g->start_max;
    for (uint32_t i = 0; !err && i < g->n; i++)
        all |= sc->duration[i];
    if (err)
        return err;
    if (all <= INT64_MAX) {
        numbers_eval(f, sc->duration, g->n, out);
        return 0;
    }
    err = scanner_starts(sc);
    for (uint32_t i = 0; !err && i < g->n; i++) {
        uint64_t end = sc->start[i] + sc->duration[i];
        out[i] = filter_integer(f, integer_from(end > sc->start[i] ? end - sc->start[i] : 0));
    }
    return err;
}

/* Whether the bounds that the footer has of the group tell. */
static bool bounds_exclude(const struct segment_group *g, const struct filter *f)
{
    if (f->field == FIELD_DURATION)
        return range_excludes(f, integer_from(g->duration_min), integer_from(g->duration_max));
    return f->field == FIELD_START &&
           range_excludes(f, integer_from(g->start_min), integer_from(g->start_max));
}

static int start_eval(struct scanner *sc, const struct filter *f, uint8_t *out)
{
    int err = scanner_starts(sc);
    if (!err)
        numbers_eval(f, sc->start, sc->kept->g.group->n, out);
    return err;
}

static int message_eval(struct scanner *sc, const struct filter *f, uint8_t *out)
{
    struct leaf *leaf = &sc->leaves[f->leaf];
    struct segment *seg = sc->seg;
    int err = scanner_fixed(sc, FIXED_STATUS_MESSAGE, &sc->message);
    if (!err && !leaf->messages) {
        leaf->messages = arena_zalloc(&sc->arena, (size_t)seg->n_strings + 1);
        err = leaf->messages ? 0 : ERR_NOMEM;
    }
    for (uint32_t i = 0; !err && i < sc->kept->g.group->n; i++) {
        uint64_t code = sc->message[i];
        struct str s = STR_NONE;
        if (code)
            err = segment_string(seg, code - 1, &s);
        if (err)
            break;
        uint8_t *answer = &leaf->messages[code];
        if (*answer == UNKNOWN)
            *answer = (f->op != PREDICATE_EXISTS || code) && filter_string(f, s) ? YES : NO;
        out[i] = *answer == YES;
    }
    return err;
}

/* ---- leaves on attributes ---- */

static int columns_ask(struct scanner *sc, const struct filter *f)
{
    struct leaf *leaf = &sc->leaves[f->leaf];
    struct segment *seg = sc->seg;
    uint32_t key;
    if (leaf->ready)
        return 0;
    int err = segment_columns(seg);
    if (!err)
        err = segment_string_find(seg, f->key, &key);
    if (err)
        return err;
    leaf->columns = arena_array(&sc->arena, COLUMNS_MAX, sizeof *leaf->columns);
    leaf->dictionaries = arena_zalloc(&sc->arena, COLUMNS_MAX * sizeof *leaf->dictionaries);
    leaf->dictionary_any = arena_zalloc(&sc->arena, COLUMNS_MAX * sizeof *leaf->dictionary_any);
    leaf->column_index = arena_zalloc(&sc->arena, seg->n_columns);
    if (!leaf->columns || !leaf->dictionaries || !leaf->dictionary_any || !leaf->column_index)
        return ERR_NOMEM;
    for (uint32_t i = 0; key < seg->n_strings && i < seg->n_columns; i++) {
        if (seg->columns[i].key != key)
            continue;
        if (leaf->n_columns == COLUMNS_MAX)
            return segment_fail(seg, ERR_CORRUPT, seg->columns_ref.offset, "the list of columns");
        leaf->columns[leaf->n_columns++] = i;
        leaf->column_index[i] = (uint8_t)leaf->n_columns;
    }
    leaf->ready = true;
    return 0;
}

static int dictionary_ask(struct scanner *sc, const struct filter *f, uint32_t index)
{
    struct leaf *leaf = &sc->leaves[f->leaf];
    struct segment *seg = sc->seg;
    struct segment_column *c = &seg->columns[leaf->columns[index]];
    if (leaf->dictionaries[index])
        return 0;
    int err = segment_dictionary(seg, c);
    uint8_t *answers = err ? NULL : arena_zalloc(&sc->arena, c->n_codes);
    if (!err && !answers)
        err = ERR_NOMEM;
    if (!err && (f->op == PREDICATE_EQ || f->op == PREDICATE_NE) && f->value.type == VALUE_STRING) {
        uint32_t code;
        err = segment_string_find(seg, f->value.string, &code);
        for (uint32_t i = 0; !err && i < c->n_codes; i++)
            answers[i] = (c->codes[i] == code) == (f->op == PREDICATE_EQ);
    } else {
        for (uint32_t i = 0; !err && i < c->n_codes; i++) {
            struct str s;
            err = segment_string(seg, c->codes[i], &s);
            if (!err)
                answers[i] = filter_string(f, s);
        }
    }
    for (uint32_t i = 0; !err && i < c->n_codes; i++)
        leaf->dictionary_any[index] |= answers[i];
    if (!err)
        leaf->dictionaries[index] = answers;
    return err;
}

/* False: the filter says that the text is nowhere in this column of the group. */
static int filter_admits(struct scanner *sc, const struct group_column_read *gc, struct str text,
                         bool *ret)
{
    struct codec_reader r;
    int err = segment_block(sc->seg, gc->filter, &sc->scratch, &r);
    if (err)
        return err;
    const uint8_t *probes = codec_bytes(&r, 1);
    uint64_t m = (uint64_t)(r.end - r.at);
    if (!probes || !m || *probes > 64)
        return segment_fail(sc->seg, ERR_CORRUPT, gc->filter.offset, "a filter");
    uint64_t hash = hash_str(text);
    *ret = true;
    for (unsigned i = 0; i < *probes; i++) {
        uint64_t bit = segment_probe(hash, i, m);
        *ret &= r.at[bit / 8] >> bit % 8 & 1;
    }
    return 0;
}

/* Answers for the values of one column of the group; NULL: all of them NO. */
static int values_ask(struct scanner *sc, const struct filter *f, uint32_t index,
                      const struct group_column_read *gc, uint8_t **ret)
{
    struct segment *seg = sc->seg;
    struct segment_column *c = &seg->columns[gc->column];
    uint64_t *numbers = NULL;
    struct str *texts = NULL;
    int err = 0;
    *ret = NULL;
    if (c->how == HOW_DICTIONARY) {
        err = dictionary_ask(sc, f, index);
        if (err || !sc->leaves[f->leaf].dictionary_any[index])
            return err;
    }
    if (c->type == VALUE_INT && range_excludes(f, gc->low, gc->high))
        return 0;
    if (c->how == HOW_PLAIN && c->type == VALUE_STRING && f->op == PREDICATE_EQ &&
        f->value.type == VALUE_STRING) {
        bool admits = true;
        err = filter_admits(sc, gc, f->value.string, &admits);
        if (err || !admits)
            return err;
    }
    err = group_values(seg, sc->kept, (uint32_t)(gc - sc->kept->g.columns));
    if (!err) {
        numbers = sc->kept->values[gc - sc->kept->g.columns].numbers;
        texts = sc->kept->values[gc - sc->kept->g.columns].texts;
    }
    uint8_t *answers = err ? NULL : arena_alloc(&sc->scratch, gc->n);
    if (!err && !answers)
        err = ERR_NOMEM;
    if (err)
        return err;
    bool any = false;
    const uint8_t *of_place = sc->leaves[f->leaf].dictionaries[index];
    int64_t low, high;
    if (c->how == HOW_DICTIONARY) {
        for (uint64_t i = 0; i < gc->n; i++)
            any |= answers[i] = of_place[numbers[i]];
    } else if (c->type == VALUE_INT && bounds_of(f, &low, &high)) {
        for (uint64_t i = 0; i < gc->n; i++) {
            int64_t v = segment_unzigzag(numbers[i]);
            any |= answers[i] = (v >= low) & (v <= high);
        }
    } else {
        for (uint64_t i = 0; i < gc->n; i++) {
            struct value v;
            err = segment_value(seg, c, numbers, texts, i, &sc->scratch, &v);
            if (err)
                return err;
            any |= answers[i] = filter_value(f, &v);
        }
    }
    *ret = any ? answers : NULL;
    return 0;
}

/* The answers of the leaf for all columns with the key that the group has. */
static int leaf_ask(struct scanner *sc, const struct filter *f)
{
    struct leaf *leaf = &sc->leaves[f->leaf];
    if (leaf->group == sc->group)
        return 0;
    int err = columns_ask(sc, f);
    memset(leaf->answers, 0, sizeof leaf->answers);
    leaf->any = false;
    for (uint32_t index = 0; !err && index < leaf->n_columns; index++) {
        uint32_t place = sc->kept->place_of[leaf->columns[index]];
        if (!place)
            continue;
        leaf->answers[index].n = sc->kept->g.columns[place - 1].n;
        err = values_ask(sc, f, index, &sc->kept->g.columns[place - 1],
                         &leaf->answers[index].of_value);
        leaf->any |= leaf->answers[index].of_value != NULL;
    }
    if (!err)
        leaf->group = sc->group;
    return err;
}

static int shapes_need(struct scanner *sc)
{
    return group_shapes(sc->seg, sc->kept);
}

/* A value of a column stands in cell `cell` of the list of columns. */
struct cell_walk {
    const struct group_shapes *sh;
    const struct leaf_answers *answers;
    uint8_t *out;
    uint64_t at;          /* the next value */
    uint32_t row, before; /* before: cell of the value before + 1 */
};

static bool cell_take(struct cell_walk *w, uint32_t cell)
{
    if (w->at >= w->answers->n)
        return false;
    if (w->answers->of_value[w->at++]) {
        while (w->sh->first[w->row + 1] <= cell)
            w->row++;
        if (w->before <= w->sh->first[w->row]) /* the first of a row counts */
            w->out[w->row] = 1;
    }
    w->before = cell + 1;
    return true;
}

/* Where every row has a shape of its own, the lists of columns are one list by rows, and the rows that have a
 * column are found by looking for it there: less than looking at each row. */
static int cells_spread(struct scanner *sc, uint32_t column, const struct leaf_answers *answers,
                        uint8_t *out)
{
    typedef uint32_t four __attribute__((vector_size(16))); /* what every x86-64 compares at once */
    const four wanted = {column, column, column, column};
    const struct group_shapes *sh = &sc->kept->shapes;
    struct cell_walk w = {sh, answers, out, 0, 0, 0};
    uint32_t n = sh->first[sc->kept->g.n_shapes];
    bool right = true;
    memset(out, 0, sc->kept->g.group->n);
    for (uint32_t i = 0; i < n && right; i += 8) {
        uint32_t most = n - i < 8 ? n - i : 8;
        if (most == 8) {
            four a, b;
            uint64_t any[2];
            memcpy(&a, sh->columns + i, sizeof a);
            memcpy(&b, sh->columns + i + 4, sizeof b);
            a = (four)(a == wanted) | (four)(b == wanted);
            memcpy(any, &a, sizeof any);
            if (!(any[0] | any[1]))
                continue;
        }
        for (uint32_t k = 0; k < most && right; k++)
            if (sh->columns[i + k] == column)
                right = cell_take(&w, i + k);
    }
    return right ? 0
                 : segment_fail(sc->seg, ERR_CORRUPT, sc->kept->g.fixed[FIXED_SHAPES].offset,
                                "the shapes of a group");
}

/* Where columns say which rows have them. The first column of a row with the key counts: it comes last here. */
static int rows_spread(struct scanner *sc, const struct leaf *leaf, uint8_t *out, uint8_t *present)
{
    uint32_t n = sc->kept->g.group->n;
    memset(out, 0, n);
    if (present)
        memset(present, 0, n);
    for (uint32_t index = leaf->n_columns; index-- > 0;) {
        const struct leaf_answers *answers = &leaf->answers[index];
        uint32_t *rows, place = sc->kept->place_of[leaf->columns[index]];
        if (!place || (!answers->of_value && leaf->n_columns == 1 && !present))
            continue;
        int err = group_rows(sc->seg, sc->kept, place - 1, &rows);
        if (err)
            return err;
        for (uint64_t i = 0; i < answers->n; i++) {
            out[rows[i]] = answers->of_value ? answers->of_value[i] : 0;
            if (present)
                present[rows[i]] = 1;
        }
    }
    return 0;
}

/* Spreads the answers for values over the rows that have them. The first attribute of a row with
 * the key counts. `present` (may be NULL) becomes 1 where there is one. */
static int values_spread(struct scanner *sc, const struct leaf *leaf, uint8_t *out,
                         uint8_t *present)
{
    struct segment *seg = sc->seg;
    if (sc->kept->g.by_column)
        return rows_spread(sc, leaf, out, present);
    int err = shapes_need(sc);
    if (err)
        return err;
    const struct group_shapes *sh = &sc->kept->shapes;
    uint32_t there = 0, index_there = 0;
    for (uint32_t i = 0; i < leaf->n_columns; i++)
        if (leaf->answers[i].n) {
            there++;
            index_there = i;
        }
    if (sh->are_own && there == 1 && !present)
        return cells_spread(sc, leaf->columns[index_there], &leaf->answers[index_there], out);
    /* For each shape: index + 1 of the first column, and whether there is more than one. */
    uint8_t *first = arena_zalloc(&sc->scratch, sc->kept->g.n_shapes);
    uint8_t *several = arena_zalloc(&sc->scratch, sc->kept->g.n_shapes);
    if (!first || !several)
        return ERR_NOMEM;
    for (uint64_t s = 0; s < sc->kept->g.n_shapes; s++) {
        const uint32_t *columns = sh->columns + sh->first[s];
        for (uint64_t k = 0; k < sh->lengths[s]; k++) {
            uint8_t index = leaf->column_index[columns[k]];
            several[s] |= index && first[s];
            first[s] = first[s] ? first[s] : index;
        }
    }
    uint64_t at[COLUMNS_MAX] = {0};
    for (uint32_t i = 0; i < sc->kept->g.group->n; i++) {
        uint64_t s = sh->of_row[i];
        unsigned index = first[s];
        if (present)
            present[i] = index != 0;
        out[i] = 0;
        if (!index)
            continue;
        if (at[index - 1] >= leaf->answers[index - 1].n)
            return segment_fail(seg, ERR_CORRUPT, sc->kept->g.fixed[FIXED_SHAPES].offset,
                                "the shapes of a group");
        if (leaf->answers[index - 1].of_value)
            out[i] = leaf->answers[index - 1].of_value[at[index - 1]];
        if (!several[s]) {
            at[index - 1]++;
            continue;
        }
        const uint32_t *columns = sh->columns + sh->first[s];
        for (uint64_t k = 0; k < sh->lengths[s]; k++)
            if (leaf->column_index[columns[k]])
                at[leaf->column_index[columns[k]] - 1]++;
    }
    return 0;
}

static int attr_eval(struct scanner *sc, const struct filter *f, uint8_t *out, uint8_t *present)
{
    struct leaf *leaf = &sc->leaves[f->leaf];
    uint32_t n = sc->kept->g.group->n;
    int err = leaf_ask(sc, f);
    bool there = false;
    for (uint32_t i = 0; !err && i < leaf->n_columns; i++)
        there |= leaf->answers[i].n != 0;
    if (err)
        return err;
    if (!leaf->any && !(present && there)) {
        memset(out, 0, n);
        if (present)
            memset(present, 0, n);
        return 0;
    }
    return values_spread(sc, leaf, out, present);
}

static int any_attr_eval(struct scanner *sc, const struct filter *f, uint8_t *out)
{
    uint32_t n = sc->kept->g.group->n;
    uint8_t *present = arena_alloc(&sc->scratch, n);
    uint8_t *of_resource = arena_alloc(&sc->scratch, n);
    if (!present || !of_resource)
        return ERR_NOMEM;
    int err = operations_ask(sc, f);
    /* Without a resource that matches it is a question to the spans alone. */
    bool resources = !err && sc->leaves[f->leaf].operations_any;
    if (!err)
        err = attr_eval(sc, f, out, resources ? present : NULL);
    if (!err && resources)
        err = operations_eval(sc, f, of_resource);
    for (uint32_t i = 0; !err && resources && i < n; i++)
        out[i] = present[i] ? out[i] : of_resource[i];
    return err;
}

/* ---- the tree ---- */

/* A byte for each row of what columns of few values do not tell. */
static int leaf_eval(struct scanner *sc, const struct filter *f, uint8_t *out)
{
    switch (f->field) {
    case FIELD_STATUS_MESSAGE:
        return message_eval(sc, f, out);
    case FIELD_DURATION:
        return durations_eval(sc, f, out);
    case FIELD_START:
        return start_eval(sc, f, out);
    case FIELD_SPAN_ATTR:
        return attr_eval(sc, f, out, NULL);
    default: /* FIELD_ANY_ATTR */
        return any_attr_eval(sc, f, out);
    }
}

/* ---- rows made fewer ---- */

/* The rows with a byte of 1, when they are few. */
static bool rows_list(const uint8_t *rows, uint32_t n, uint32_t *list, uint32_t most,
                      uint32_t *ret_n)
{
    uint32_t found = 0;
    for (uint32_t i = 0; i < n;) {
        uint64_t word = 1;
        if (n - i >= sizeof word)
            memcpy(&word, rows + i, sizeof word);
        if (!word) {
            i += sizeof word;
            continue;
        }
        for (uint32_t end = n - i < 8 ? n : i + 8; i < end; i++) {
            if (!rows[i])
                continue;
            if (found == most)
                return false;
            list[found++] = i;
        }
    }
    *ret_n = found;
    return true;
}

/* Keeps the rows whose byte `answers` has a 1 for. Where these are neighbours, as operations of a service often are,
 * comparing is what a vector does at once. */
static void bytes_narrow(const uint8_t *bytes, uint32_t n, const uint8_t answers[256],
                         uint8_t *rows)
{
    const uint8_t *first = memchr(answers, 1, 256);
    unsigned low = first ? (unsigned)(first - answers) : 0, high = low;
    bool together = true;
    for (unsigned i = low; i < 256; i++)
        high = answers[i] ? i : high;
    for (unsigned i = low; i < high; i++)
        together &= answers[i];
    if (!first) {
        memset(rows, 0, n);
    } else if (together) {
        uint8_t from = (uint8_t)low, span = (uint8_t)(high - low);
        for (uint32_t i = 0; i < n; i++)
            rows[i] &= (uint8_t)(bytes[i] - from) <= span;
    } else {
        for (uint32_t i = 0; i < n;) {
            uint64_t word = 1;
            uint32_t end = n - i < sizeof word ? n : i + (uint32_t)sizeof word;
            if (end - i == sizeof word)
                memcpy(&word, rows + i, sizeof word);
            for (i = word ? i : end; i < end; i++)
                rows[i] &= answers[bytes[i]];
        }
    }
}

/* Whether a value of a fixed column answers the leaf. */
static bool number_matches(const struct scanner *sc, const struct filter *f, uint64_t number)
{
    switch (f->field) {
    case FIELD_STATUS:
        return filter_integer(f, integer_from(number));
    case FIELD_IS_ROOT:
        return filter_value(f, &(struct value){.type = VALUE_BOOL, .boolean = number == 0});
    default: /* of operations */
        return number < sc->seg->n_operations && sc->leaves[f->leaf].operations[number];
    }
}

/* Leaves on columns of few values. */
static int few_narrow(struct scanner *sc, const struct filter *f, enum fixed_column column,
                      uint8_t *rows)
{
    const struct stream_view *v;
    uint32_t n = sc->kept->g.group->n;
    uint8_t answers[256] = {0};
    int err = group_view(sc->seg, sc->kept, column, &v);
    if (err)
        return err;
    if (v->how == VIEW_SAME) {
        if (!number_matches(sc, f, v->base))
            memset(rows, 0, n);
    } else if (v->how == VIEW_BYTES) {
        for (unsigned i = 0; i < v->n_values; i++)
            answers[i] = number_matches(sc, f, v->values[i]);
        bytes_narrow(v->bytes, n, answers, rows);
    } else {
        for (uint32_t i = 0; i < n; i++)
            rows[i] = rows[i] && number_matches(sc, f, stream_view_at(v, i));
    }
    return 0;
}

static int operations_narrow(struct scanner *sc, const struct filter *f, uint8_t *rows)
{
    int err = operations_ask(sc, f);
    if (err)
        return err;
    if (sc->leaves[f->leaf].operations_any)
        return few_narrow(sc, f, FIXED_OPERATION, rows);
    memset(rows, 0, sc->kept->g.group->n);
    return 0;
}

static int others_narrow(struct scanner *sc, const struct filter *f, uint8_t *rows)
{
    uint32_t n = sc->kept->g.group->n;
    uint8_t *own = arena_alloc(&sc->scratch, n);
    if ((f->field == FIELD_START || f->field == FIELD_DURATION) &&
        bounds_exclude(sc->kept->g.group, f)) {
        memset(rows, 0, n);
        return 0;
    }
    int err = own ? leaf_eval(sc, f, own) : ERR_NOMEM;
    for (uint32_t i = 0; !err && i < n; i++)
        rows[i] &= own[i];
    return err;
}

/* Of few rows the durations are not unpacked all. */
static int durations_narrow(struct scanner *sc, const struct filter *f, uint8_t *rows)
{
    enum { FEW = SEGMENT_GROUP_ROWS / 16 };
    const struct segment_group *g = sc->kept->g.group;
    const struct stream_view *v;
    uint32_t list[FEW], found;
    if (bounds_exclude(g, f) || g->start_max > INT64_MAX ||
        !rows_list(rows, g->n, list, FEW, &found))
        return others_narrow(sc, f, rows);
    int err = group_view(sc->seg, sc->kept, FIXED_DURATION, &v);
    for (uint32_t i = 0; !err && i < found; i++) {
        uint64_t duration = stream_view_at(v, list[i]);
        if (duration > INT64_MAX) /* it ends before it starts, or hardly ever */
            return others_narrow(sc, f, rows);
        rows[list[i]] = filter_integer(f, (int64_t)duration);
    }
    return err;
}

/* What costs least goes first: of what it leaves, the next need not look at all. */
unsigned scanner_cost(const struct filter *f)
{
    switch (f->op) {
    case PREDICATE_TRUE:
    case PREDICATE_NOT:
        return COST_OTHERS;
    case PREDICATE_AND:
    case PREDICATE_OR: {
        unsigned most = 0;
        for (size_t k = 0; k < f->n_children; k++)
            most = scanner_cost(&f->children[k]) > most ? scanner_cost(&f->children[k]) : most;
        return most;
    }
    default:
        break;
    }
    switch (f->field) {
    case FIELD_STATUS:
    case FIELD_IS_ROOT:
        return COST_STATUS;
    case FIELD_NAME:
    case FIELD_SERVICE:
    case FIELD_KIND:
    case FIELD_RESOURCE_ATTR:
        return COST_OPERATION;
    case FIELD_DURATION:
        return COST_DURATION;
    case FIELD_START:
        return COST_START;
    default:
        return COST_OTHERS;
    }
}

static int leaf_narrow(struct scanner *sc, const struct filter *f, uint8_t *rows)
{
    switch (f->field) {
    case FIELD_NAME:
    case FIELD_SERVICE:
    case FIELD_KIND:
    case FIELD_RESOURCE_ATTR:
        return operations_narrow(sc, f, rows);
    case FIELD_STATUS:
        return few_narrow(sc, f, FIXED_STATUS, rows);
    case FIELD_IS_ROOT:
        return few_narrow(sc, f, FIXED_PARENT, rows);
    case FIELD_DURATION:
        return durations_narrow(sc, f, rows);
    default:
        return others_narrow(sc, f, rows);
    }
}

static int all_narrow(struct scanner *sc, const struct filter *f, uint8_t *rows)
{
    uint32_t n = sc->kept->g.group->n;
    int err = 0;
    for (unsigned cost = 0; !err && cost < SCANNER_COSTS; cost++)
        for (size_t k = 0; !err && k < f->n_children; k++)
            if (scanner_cost(&f->children[k]) == cost && rows_any(rows, n))
                err = scanner_narrow(sc, &f->children[k], rows);
    return err;
}

/* What one child has let through the next does not look at. */
static int any_narrow(struct scanner *sc, const struct filter *f, uint8_t *rows)
{
    uint32_t n = sc->kept->g.group->n;
    uint8_t *left = arena_alloc(&sc->scratch, n), *own = arena_alloc(&sc->scratch, n);
    if (!left || !own)
        return ERR_NOMEM;
    memcpy(left, rows, n);
    int err = 0;
    for (size_t k = 0; !err && k < f->n_children; k++) {
        memcpy(own, left, n);
        err = scanner_narrow(sc, &f->children[k], own);
        for (uint32_t i = 0; i < n; i++)
            left[i] ^= own[i];
    }
    for (uint32_t i = 0; !err && i < n; i++)
        rows[i] ^= left[i];
    return err;
}

int scanner_narrow(struct scanner *sc, const struct filter *f, uint8_t *rows)
{
    uint32_t n = sc->kept->g.group->n;
    uint8_t *own;
    int err = 0;
    switch (f->op) {
    case PREDICATE_TRUE:
        return 0;
    case PREDICATE_NOT:
        own = arena_alloc(&sc->scratch, n);
        if (!own)
            return ERR_NOMEM;
        memcpy(own, rows, n);
        if (f->n_children)
            err = scanner_narrow(sc, &f->children[0], own);
        for (uint32_t i = 0; !err && f->n_children && i < n; i++)
            rows[i] ^= own[i];
        return err;
    case PREDICATE_AND:
        return all_narrow(sc, f, rows);
    case PREDICATE_OR:
        return any_narrow(sc, f, rows);
    default:
        return leaf_narrow(sc, f, rows);
    }
}

int scanner_eval(struct scanner *sc, const struct filter *f, uint8_t *out)
{
    memset(out, 1, sc->kept->g.group->n);
    return scanner_narrow(sc, f, out);
}

/* Whether nothing can fulfil the filter, given what its leaves exclude. */
typedef int leaf_excludes_fn(struct scanner *sc, const struct filter *leaf, bool *ret);

static int tree_excludes(struct scanner *sc, const struct filter *f, leaf_excludes_fn *leaf,
                         bool *ret)
{
    int err = 0;
    *ret = false;
    switch (f->op) {
    case PREDICATE_TRUE:
    case PREDICATE_NOT:
        return 0;
    case PREDICATE_AND:
        for (size_t k = 0; !err && !*ret && k < f->n_children; k++)
            err = tree_excludes(sc, &f->children[k], leaf, ret);
        return err;
    case PREDICATE_OR:
        *ret = true;
        for (size_t k = 0; !err && *ret && k < f->n_children; k++)
            err = tree_excludes(sc, &f->children[k], leaf, ret);
        return err;
    default:
        return leaf(sc, f, ret);
    }
}

static int leaf_excludes_segment(struct scanner *sc, const struct filter *f, bool *ret)
{
    int err;
    switch (f->field) {
    case FIELD_NAME:
    case FIELD_SERVICE:
    case FIELD_KIND:
    case FIELD_RESOURCE_ATTR:
        err = operations_ask(sc, f);
        *ret = !sc->leaves[f->leaf].operations_any;
        return err;
    case FIELD_ANY_ATTR:
        err = operations_ask(sc, f);
        if (err || sc->leaves[f->leaf].operations_any)
            return err;
        break;
    case FIELD_SPAN_ATTR:
        break;
    default:
        return 0;
    }
    err = columns_ask(sc, f);
    if (!err)
        *ret = sc->leaves[f->leaf].n_columns == 0;
    return err;
}

int scanner_segment_excludes(struct scanner *sc, const struct filter *f, bool *ret)
{
    return tree_excludes(sc, f, leaf_excludes_segment, ret);
}

/* ---- of a group ---- */

static int leaf_excludes_group(struct scanner *sc, const struct filter *f, bool *ret)
{
    const struct leaf *leaf = &sc->leaves[f->leaf];
    int err;
    switch (f->field) {
    case FIELD_NAME:
    case FIELD_SERVICE:
    case FIELD_KIND:
    case FIELD_RESOURCE_ATTR:
        err = operations_ask(sc, f);
        *ret = !leaf->operations_any;
        return err;
    case FIELD_ANY_ATTR:
        err = operations_ask(sc, f);
        if (err || leaf->operations_any)
            return err;
        break;
    case FIELD_SPAN_ATTR:
        break;
    default:
        *ret = bounds_exclude(sc->kept->g.group, f);
        return 0;
    }
    err = leaf_ask(sc, f);
    *ret = !leaf->any;
    return err;
}

int scanner_group_excludes(struct scanner *sc, const struct filter *f, bool *ret)
{
    return tree_excludes(sc, f, leaf_excludes_group, ret);
}
