/* Scans of a segment. For each group, newest first, the predicate becomes a byte for each row: 1 or
 * 0. Only the columns that the predicate names are decoded, and the others only for groups with a
 * match.
 *
 * Leaves on name, service, kind and resource are answered once for each operation of the segment.
 * Leaves on a column with a dictionary are answered once for each of its texts. Numbers are
 * compared with the bounds of the group first, plain texts with its filter. */
#include <stdlib.h>

#include "store/local/segment_read.h"

enum { UNKNOWN, NO, YES };

/* The columns that a key may have are at most one for each type. */
enum { COLUMNS_MAX = 8 };

struct leaf {
    /* By operation; NULL: not asked yet. `operations_any`: one of them is YES. */
    uint8_t *operations;
    bool operations_any;
    /* Columns with the key. */
    uint32_t *columns, n_columns;
    uint8_t *column_index;  /* by column: index in `columns` + 1 */
    uint8_t **dictionaries; /* by index: answers by place, or NULL */
    bool *dictionary_any;
    uint8_t *messages; /* by code of a status message + 1 */
    bool ready;
};

/* An attribute that the rows bring along. */
struct wanted {
    uint8_t *column_index; /* by column: index in `columns` + 1 */
    uint32_t columns[COLUMNS_MAX], n_columns;
    struct value *of_operation; /* what the resources say; NULL: not asked yet */
    /* Of the group. */
    uint64_t *numbers[COLUMNS_MAX];
    struct str *texts[COLUMNS_MAX];
    uint8_t *index; /* by row: index in `columns` + 1; 0: the span has none */
    uint32_t *place;
};

struct scanner {
    struct segment *seg;
    struct leaf *leaves;
    struct wanted *wanted;
    struct value values[SCAN_ATTRS_MAX]; /* of the row */
    struct arena arena;                  /* what lives as long as the scan */
    struct arena scratch; /* of the group; not the segment's, which callbacks may use */
    /* Of the group. */
    struct group_kept *kept; /* pinned */
    uint64_t *operation, *status, *duration, *parent, *message;
    int answer;         /* what the callback returned last */
    uint64_t *start;    /* of the epoch */
    uint32_t *trace_of; /* by row: place in the two below */
    struct trace_id *trace_ids;
    uint64_t *trace_starts;
};

/* ---- fixed columns, read when first needed ---- */

static int fixed_need(struct scanner *sc, enum fixed_column column, uint64_t **at)
{
    return *at ? 0 : group_fixed(sc->seg, sc->kept, column, at);
}

/* The traces of the rows of a group, and the starts of these. */
static int starts_need(struct scanner *sc)
{
    struct segment *seg = sc->seg;
    struct arena *a = &sc->scratch;
    const struct segment_group *g = sc->kept->g.group;
    uint64_t *steps = NULL;
    if (sc->start)
        return 0;
    int err = fixed_need(sc, FIXED_START, &steps);
    if (err)
        return err;
    uint64_t *start = arena_array(a, g->n, sizeof *start);
    sc->trace_of = arena_array(a, g->n, sizeof *sc->trace_of);
    sc->trace_ids = arena_array(a, g->n, sizeof *sc->trace_ids);
    sc->trace_starts = arena_array(a, g->n, sizeof *sc->trace_starts);
    if (!start || !sc->trace_of || !sc->trace_ids || !sc->trace_starts)
        return ERR_NOMEM;
    const struct segment_trace_block *b = segment_trace_block_of(seg, g->first_trace);
    const struct segment_trace_block *end_b = seg->trace_blocks + seg->n_trace_blocks;
    uint32_t i = 0, n_traces = 0;
    for (; i < g->n && b < end_b; b++) {
        struct traces_read *t;
        err = segment_traces(seg, b, &t);
        if (err)
            return err;
        uint32_t k = b->first_trace < g->first_trace ? g->first_trace - b->first_trace : 0;
        for (; k < b->n && i < g->n; k++) {
            if (t->first_row[k + 1] <= g->first_row + i)
                continue;
            if (t->first_row[k] > g->first_row + i)
                return segment_fail(seg, ERR_CORRUPT, b->ref.offset, "a block of traces");
            memcpy(sc->trace_ids[n_traces].bytes, t->ids + (size_t)k * TRACE_ID_SIZE,
                   TRACE_ID_SIZE);
            sc->trace_starts[n_traces] = t->start[k];
            uint64_t at = t->start[k];
            for (; i < g->n && g->first_row + i < t->first_row[k + 1]; i++) {
                start[i] = at += steps[i];
                sc->trace_of[i] = n_traces;
            }
            n_traces++;
        }
    }
    if (i < g->n)
        return segment_fail(seg, ERR_CORRUPT, g->directory.offset, "the rows of a group");
    sc->start = start;
    return 0;
}

static int operation_need(struct scanner *sc)
{
    return fixed_need(sc, FIXED_OPERATION, &sc->operation);
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
            const struct attr *a = attrs_find(&resource->attrs, f->key);
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
        err = operation_need(sc);
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

static int fixed_eval(struct scanner *sc, const struct filter *f, uint8_t *out)
{
    const struct segment_group *g = sc->kept->g.group;
    int err = 0;
    switch (f->field) {
    case FIELD_STATUS:
        err = fixed_need(sc, FIXED_STATUS, &sc->status);
        for (uint32_t i = 0; !err && i < g->n; i++)
            out[i] = filter_integer(f, (int64_t)sc->status[i]);
        return err;
    case FIELD_DURATION:
        if (range_excludes(f, integer_from(g->duration_min), integer_from(g->duration_max))) {
            memset(out, 0, g->n);
            return 0;
        }
        err = starts_need(sc);
        if (!err)
            err = fixed_need(sc, FIXED_DURATION, &sc->duration);
        for (uint32_t i = 0; !err && i < g->n; i++) {
            uint64_t end = sc->start[i] + sc->duration[i];
            out[i] = filter_integer(f, integer_from(end > sc->start[i] ? end - sc->start[i] : 0));
        }
        return err;
    case FIELD_START:
        if (range_excludes(f, integer_from(g->start_min), integer_from(g->start_max))) {
            memset(out, 0, g->n);
            return 0;
        }
        err = starts_need(sc);
        for (uint32_t i = 0; !err && i < g->n; i++)
            out[i] = filter_integer(f, integer_from(sc->start[i]));
        return err;
    default: /* FIELD_IS_ROOT */
        err = fixed_need(sc, FIXED_PARENT, &sc->parent);
        for (uint32_t i = 0; !err && i < g->n; i++)
            out[i] =
                filter_value(f, &(struct value){.type = VALUE_BOOL, .boolean = sc->parent[i] == 0});
        return err;
    }
}

static int message_eval(struct scanner *sc, const struct filter *f, uint8_t *out)
{
    struct leaf *leaf = &sc->leaves[f->leaf];
    struct segment *seg = sc->seg;
    int err = fixed_need(sc, FIXED_STATUS_MESSAGE, &sc->message);
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
    for (uint64_t i = 0; i < gc->n; i++) {
        if (c->how == HOW_DICTIONARY) {
            answers[i] = of_place[numbers[i]];
        } else {
            struct value v;
            err = segment_value(seg, c, numbers, texts, i, &sc->scratch, &v);
            if (err)
                return err;
            answers[i] = filter_value(f, &v);
        }
        any |= answers[i];
    }
    *ret = any ? answers : NULL;
    return 0;
}

static int shapes_need(struct scanner *sc)
{
    return group_shapes(sc->seg, sc->kept);
}

/* Spreads the answers for values over the rows that have them. The first attribute of a row with
 * the key counts. `present` (may be NULL) becomes 1 where there is one. */
static int values_spread(struct scanner *sc, const struct leaf *leaf, uint8_t *const *answers,
                         const uint64_t *counts, uint8_t *out, uint8_t *present)
{
    struct segment *seg = sc->seg;
    int err = shapes_need(sc);
    if (err)
        return err;
    const struct group_shapes *sh = &sc->kept->shapes;
    /* For each shape: index + 1 of the first column, and whether there is more than one. */
    uint8_t *first = arena_zalloc(&sc->scratch, sc->kept->g.n_shapes);
    uint8_t *several = arena_zalloc(&sc->scratch, sc->kept->g.n_shapes);
    if (!first || !several)
        return ERR_NOMEM;
    for (uint64_t s = 0; s < sc->kept->g.n_shapes; s++) {
        const uint64_t *columns = sh->columns + sh->first[s];
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
        if (at[index - 1] >= counts[index - 1])
            return segment_fail(seg, ERR_CORRUPT, sc->kept->g.fixed[FIXED_SHAPES].offset,
                                "the shapes of a group");
        if (answers[index - 1])
            out[i] = answers[index - 1][at[index - 1]];
        if (!several[s]) {
            at[index - 1]++;
            continue;
        }
        const uint64_t *columns = sh->columns + sh->first[s];
        for (uint64_t k = 0; k < sh->lengths[s]; k++)
            if (leaf->column_index[columns[k]])
                at[leaf->column_index[columns[k]] - 1]++;
    }
    return 0;
}

static int attr_eval(struct scanner *sc, const struct filter *f, uint8_t *out, uint8_t *present)
{
    struct leaf *leaf = &sc->leaves[f->leaf];
    uint8_t *answers[COLUMNS_MAX] = {NULL};
    uint64_t counts[COLUMNS_MAX] = {0};
    bool any = false;
    int err = columns_ask(sc, f);
    for (uint32_t i = 0; !err && i < sc->kept->g.n_columns && leaf->n_columns; i++) {
        const struct group_column_read *gc = &sc->kept->g.columns[i];
        uint8_t index = leaf->column_index[gc->column];
        if (!index)
            continue;
        counts[index - 1] = gc->n;
        err = values_ask(sc, f, index - 1u, gc, &answers[index - 1]);
        any |= present || answers[index - 1];
    }
    if (err)
        return err;
    if (!any) {
        memset(out, 0, sc->kept->g.group->n);
        if (present)
            memset(present, 0, sc->kept->g.group->n);
        return 0;
    }
    return values_spread(sc, leaf, answers, counts, out, present);
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

static int leaf_eval(struct scanner *sc, const struct filter *f, uint8_t *out)
{
    switch (f->field) {
    case FIELD_NAME:
    case FIELD_SERVICE:
    case FIELD_KIND:
    case FIELD_RESOURCE_ATTR:
        return operations_eval(sc, f, out);
    case FIELD_STATUS_MESSAGE:
        return message_eval(sc, f, out);
    case FIELD_SPAN_ATTR:
        return attr_eval(sc, f, out, NULL);
    case FIELD_ANY_ATTR:
        return any_attr_eval(sc, f, out);
    default:
        return fixed_eval(sc, f, out);
    }
}

static bool any_of(const uint8_t *rows, uint32_t n)
{
    return memchr(rows, 1, n) != NULL;
}

static int eval(struct scanner *sc, const struct filter *f, uint8_t *out)
{
    uint32_t n = sc->kept->g.group->n;
    uint8_t *own;
    int err = 0;
    switch (f->op) {
    case PREDICATE_TRUE:
        memset(out, 1, n);
        return 0;
    case PREDICATE_NOT:
        memset(out, 0, n);
        if (f->n_children)
            err = eval(sc, &f->children[0], out);
        for (uint32_t i = 0; i < n; i++)
            out[i] = !out[i];
        return err;
    case PREDICATE_AND:
    case PREDICATE_OR:
        memset(out, f->op == PREDICATE_AND, n);
        own = arena_alloc(&sc->scratch, n);
        if (!own)
            return ERR_NOMEM;
        for (size_t k = 0; !err && k < f->n_children; k++) {
            if (f->op == PREDICATE_AND && !any_of(out, n))
                break;
            err = eval(sc, &f->children[k], own);
            for (uint32_t i = 0; i < n; i++)
                out[i] = f->op == PREDICATE_AND ? out[i] & own[i] : out[i] | own[i];
        }
        return err;
    default:
        return leaf_eval(sc, f, out);
    }
}

/* Whether no span of the segment can match, as far as operations and the list of columns tell. */
static int nothing_matches(struct scanner *sc, const struct filter *f, bool *ret)
{
    int err = 0;
    *ret = false;
    switch (f->op) {
    case PREDICATE_TRUE:
    case PREDICATE_NOT:
        return 0;
    case PREDICATE_AND:
        for (size_t k = 0; !err && !*ret && k < f->n_children; k++)
            err = nothing_matches(sc, &f->children[k], ret);
        return err;
    case PREDICATE_OR:
        *ret = true;
        for (size_t k = 0; !err && *ret && k < f->n_children; k++)
            err = nothing_matches(sc, &f->children[k], ret);
        return err;
    default:
        break;
    }
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

/* ---- attributes that rows bring along ---- */

static int wanted_columns(struct scanner *sc, const struct scan_attr *attr, struct wanted *w)
{
    struct segment *seg = sc->seg;
    uint32_t key;
    int err = segment_columns(seg);
    if (!err)
        err = segment_string_find(seg, attr->key, &key);
    if (err)
        return err;
    w->column_index = arena_zalloc(&sc->arena, (size_t)seg->n_columns + 1);
    if (!w->column_index)
        return ERR_NOMEM;
    for (uint32_t i = 0; key < seg->n_strings && i < seg->n_columns; i++) {
        if (seg->columns[i].key != key)
            continue;
        if (w->n_columns == COLUMNS_MAX)
            return segment_fail(seg, ERR_CORRUPT, seg->columns_ref.offset, "the list of columns");
        w->columns[w->n_columns++] = i;
        w->column_index[i] = (uint8_t)w->n_columns;
    }
    return 0;
}

static int wanted_resources(struct scanner *sc, const struct scan_attr *attr, struct wanted *w)
{
    struct segment *seg = sc->seg;
    int err = segment_operations_read(seg);
    if (!err)
        w->of_operation = arena_zalloc(&sc->arena,
                                       (seg->n_operations + 1) * sizeof *w->of_operation);
    if (!err && !w->of_operation)
        err = ERR_NOMEM;
    for (uint32_t i = 0; !err && i < seg->n_operations; i++) {
        const struct resource *resource;
        err = segment_resource(seg, seg->operations[i].resource, &resource);
        const struct attr *a = err ? NULL : attrs_find(&resource->attrs, attr->key);
        if (!a)
            continue;
        w->of_operation[i] = a->value;
        if (a->value.type == VALUE_ARRAY || a->value.type == VALUE_MAP)
            w->of_operation[i] = (struct value){.type = a->value.type};
    }
    return err;
}

static int wanted_init(struct scanner *sc, const struct scan *scan)
{
    int err = 0;
    if (!scan->n_attrs)
        return 0;
    sc->wanted = arena_zalloc(&sc->arena, scan->n_attrs * sizeof *sc->wanted);
    if (!sc->wanted)
        return ERR_NOMEM;
    for (size_t i = 0; !err && i < scan->n_attrs; i++) {
        if (scan->attrs[i].field != FIELD_RESOURCE_ATTR)
            err = wanted_columns(sc, &scan->attrs[i], &sc->wanted[i]);
        if (!err && scan->attrs[i].field != FIELD_SPAN_ATTR)
            err = wanted_resources(sc, &scan->attrs[i], &sc->wanted[i]);
    }
    return err;
}

/* Which value each row of the group has. */
static int wanted_group(struct scanner *sc, struct wanted *w)
{
    struct segment *seg = sc->seg;
    uint32_t n = sc->kept->g.group->n;
    uint64_t counts[COLUMNS_MAX] = {0}, at[COLUMNS_MAX] = {0};
    bool any = false;
    int err = 0;
    w->index = NULL;
    for (uint32_t k = 0; !err && k < sc->kept->g.n_columns; k++) {
        unsigned index = w->column_index ? w->column_index[sc->kept->g.columns[k].column] : 0;
        if (!index)
            continue;
        any = true;
        counts[index - 1] = sc->kept->g.columns[k].n;
        err = group_values(seg, sc->kept, k);
        w->numbers[index - 1] = sc->kept->values[k].numbers;
        w->texts[index - 1] = sc->kept->values[k].texts;
    }
    if (err || !any)
        return err;
    err = shapes_need(sc);
    w->index = arena_zalloc(&sc->scratch, n);
    w->place = arena_array(&sc->scratch, n, sizeof *w->place);
    if (!err && (!w->index || !w->place))
        err = ERR_NOMEM;
    const struct group_shapes *sh = &sc->kept->shapes;
    for (uint32_t i = 0; !err && i < n; i++) {
        const uint64_t *columns = sh->columns + sh->first[sh->of_row[i]];
        for (uint64_t k = 0; k < sh->lengths[sh->of_row[i]]; k++) {
            unsigned index = w->column_index[columns[k]];
            if (!index)
                continue;
            if (at[index - 1] >= counts[index - 1])
                return segment_fail(seg, ERR_CORRUPT, sc->kept->g.fixed[FIXED_SHAPES].offset,
                                    "the shapes of a group");
            if (!w->index[i]) { /* the first counts */
                w->index[i] = (uint8_t)index;
                w->place[i] = (uint32_t)at[index - 1];
            }
            at[index - 1]++;
        }
    }
    return err;
}

static int wanted_row(struct scanner *sc, const struct scan *scan, uint32_t i)
{
    for (size_t k = 0; k < scan->n_attrs; k++) {
        const struct wanted *w = &sc->wanted[k];
        struct value *v = &sc->values[k];
        if (w->index && w->index[i]) {
            unsigned index = w->index[i] - 1;
            const struct segment_column *c = &sc->seg->columns[w->columns[index]];
            *v = (struct value){.type = c->type};
            if (c->type == VALUE_ARRAY || c->type == VALUE_MAP)
                continue;
            int err = segment_value(sc->seg, c, w->numbers[index], w->texts[index], w->place[i],
                                    &sc->scratch, v);
            if (err)
                return err;
        } else if (w->of_operation) {
            *v = w->of_operation[sc->operation[i]];
        } else {
            *v = (struct value){.type = VALUE_NONE};
        }
    }
    return 0;
}

/* ---- rows ---- */

static bool out_of_range(const struct scan *scan, uint64_t start)
{
    return start < scan->start_min_ns || (scan->start_max_ns && start > scan->start_max_ns);
}

static int row_give(struct scanner *sc, uint32_t i, const uint8_t *ids, struct scan *scan,
                    scan_fn *fn, void *arg)
{
    struct segment *seg = sc->seg;
    const struct segment_operation *op = &seg->operations[sc->operation[i]];
    const struct resource *resource;
    uint64_t end = sc->start[i] + sc->duration[i];
    struct scan_row row = {
        .trace_id = sc->trace_ids[sc->trace_of[i]],
        .start_ns = sc->start[i],
        .duration_ns = end > sc->start[i] ? end - sc->start[i] : 0,
        .trace_start_ns = sc->trace_starts[sc->trace_of[i]],
        .kind = op->kind,
        .status_code = (uint8_t)sc->status[i],
        .attrs = sc->values,
    };
    memcpy(row.span_id.bytes, ids + (size_t)i * SPAN_ID_SIZE, SPAN_ID_SIZE);
    int err = segment_string(seg, op->name, &row.name);
    if (!err)
        err = segment_resource(seg, op->resource, &resource);
    if (err)
        return err;
    row.service = resource->service_name;
    err = wanted_row(sc, scan, i);
    if (err)
        return err;
    sc->answer = fn(arg, scan, &row);
    return sc->answer;
}

static int group_rows(struct scanner *sc, const struct filter *f, struct scan *scan, scan_fn *fn,
                      void *arg, struct scan_cost *cost)
{
    struct segment *seg = sc->seg;
    uint32_t n = sc->kept->g.group->n;
    uint8_t *rows = arena_alloc(&sc->scratch, n);
    int err = rows ? eval(sc, f, rows) : ERR_NOMEM;
    if (err || !any_of(rows, n))
        return err;
    err = starts_need(sc);
    if (!err)
        err = operation_need(sc);
    if (!err)
        err = fixed_need(sc, FIXED_STATUS, &sc->status);
    if (!err)
        err = fixed_need(sc, FIXED_DURATION, &sc->duration);
    if (!err)
        err = group_ids(seg, sc->kept);
    for (size_t k = 0; !err && k < scan->n_attrs; k++)
        err = wanted_group(sc, &sc->wanted[k]);
    for (uint32_t i = n; !err && i-- > 0;) {
        if (!rows[i] || out_of_range(scan, sc->start[i]))
            continue;
        cost->rows_matched++;
        err = row_give(sc, i, sc->kept->ids, scan, fn, arg);
    }
    return err;
}

static int group_scan(struct scanner *sc, const struct segment_group *g, const struct filter *f,
                      struct scan *scan, scan_fn *fn, void *arg, struct scan_cost *cost)
{
    arena_reset(&sc->scratch);
    sc->operation = sc->status = sc->duration = sc->parent = sc->message = sc->start = NULL;
    cost->rows_read += g->n;
    int err = segment_group_keep(sc->seg, g, &sc->kept);
    if (err)
        return err;
    sc->kept->pins++;
    err = group_rows(sc, f, scan, fn, arg, cost);
    sc->kept->pins--;
    return err;
}

int segment_scan(struct segment *seg, const struct filter *filter, unsigned leaves,
                 struct scan *scan, scan_fn *fn, void *arg, struct scan_cost *cost,
                 bool *ret_damaged)
{
    struct scanner sc = {.seg = seg, .leaves = calloc(leaves + 1, sizeof *sc.leaves)};
    uint64_t read_before = seg->bytes_read;
    bool nothing = false;
    if (!sc.leaves)
        return ERR_NOMEM;
    cost->parts++;
    cost->groups += seg->n_groups;
    int err = nothing_matches(&sc, filter, &nothing);
    if (!err && !nothing)
        err = wanted_init(&sc, scan);
    if (!err && nothing) {
        cost->parts_pruned++;
        cost->groups_pruned += seg->n_groups;
    }
    for (uint32_t i = seg->n_groups; !err && !nothing && i-- > 0;) {
        const struct segment_group *g = &seg->groups[i];
        if (g->start_max < scan->start_min_ns ||
            (scan->start_max_ns && g->start_min > scan->start_max_ns)) {
            cost->groups_pruned++;
            continue;
        }
        err = group_scan(&sc, g, filter, scan, fn, arg, cost);
        if (err == ERR_CORRUPT && !sc.answer) {
            *ret_damaged = true;
            err = 0; /* the other groups can be read */
        }
    }
    if (err == ERR_CORRUPT && !sc.answer) {
        *ret_damaged = true;
        err = 0;
    }
    cost->bytes_read += seg->bytes_read - read_before;
    free(sc.leaves);
    arena_done(&sc.arena);
    arena_done(&sc.scratch);
    return err;
}
