/* A breakdown, in a few passes over columns.
 *
 * 1. Two scans count the spans of the time: those that were found, and all.
 * 2. Where either are more than BREAKDOWN_SPANS_MAX, SLICES stretches of the time stand for all of it: of each
 *    of so many equal parts the beginning, as long as the spans allowed are a part of all. Both sides have stretches
 *    of their own, so that a few errors among millions of spans are all counted.
 * 3. The attributes are read SCAN_ATTRS_MAX at a time, once for each side. The found ones come first: values
 *    beyond the limits are then those that only others have.
 *
 * What a predicate cannot say (structure, aggregates, events) is found by a search of the newest traces, whose
 * spans are then looked at whole; all others are compared with them as above, over the time that these traces cover. */
#include "query/breakdown.h"

#include "base/clock.h"
#include "base/hash.h"
#include "query/search.h"

#include <math.h>
#include <stdlib.h>

enum { CLOCK_EVERY = 1024, SLICES = 8, INTRINSICS = 3, COUNT_STEPS = 256 };

enum side { SIDE_FOUND, SIDE_ALL };

struct cell {
    uint32_t field;
    uint64_t hash;
    struct value value;
    uint64_t n[2];
};

struct field {
    enum predicate_field field;
    struct str key;
    uint64_t n[2];
    uint32_t cells;
    bool has_more;
    uint64_t seen_in; /* of whole traces: the last span that had it, counted from 1 */
};

struct counter {
    struct store_view *view;
    const struct breakdown *breakdown;
    struct arena *out;
    struct arena arena; /* as long as the counting */
    const struct predicate *where[2];
    uint64_t start_min_ns, start_max_ns;
    struct field
        *fields; /* INTRINSICS, then attributes of resources and spans, each in byte order */
    size_t n_fields;
    struct cell *cells;
    size_t n_cells;
    uint32_t *slots; /* cell + 1 */
    uint64_t spans[2], counted[2];
    uint64_t deadline_ns;
    unsigned until_clock;
    struct scan_cost cost;
    /* Of the scan under way. */
    enum side side;
    size_t first_attr; /* a field; fields before INTRINSICS come along with the first of them */
    size_t n_attrs;
};

static int check_clock(struct counter *c)
{
    if (c->until_clock-- > 0)
        return 0;
    c->until_clock = CLOCK_EVERY;
    return c->deadline_ns && clock_monotonic_ns() > c->deadline_ns ? ERR_TIMEOUT : 0;
}

/* ---- values ---- */

static uint64_t value_hash(uint32_t field, const struct value *v)
{
    uint64_t h = hash_mix64(hash_secret() ^ field << 4 ^ v->type);
    switch (v->type) {
    case VALUE_STRING:
        return hash_bytes_seed(v->string.ptr, v->string.len, h);
    case VALUE_BOOL:
        return hash_mix64(h ^ (v->boolean ? 2 : 1));
    case VALUE_INT:
        return hash_mix64(h ^ (uint64_t)v->integer);
    default:
        return hash_bytes_seed(&v->real, sizeof v->real, h);
    }
}

static int cell_add(struct counter *c, uint32_t at, struct value v)
{
    struct field *f = &c->fields[at];
    size_t mask = 2 * BREAKDOWN_CELLS_MAX - 1;
    if (v.type == VALUE_DOUBLE && v.real == 0)
        v.real = 0; /* -0 is the same */
    if (v.type > VALUE_DOUBLE || (v.type == VALUE_DOUBLE && isnan(v.real)) ||
        (v.type == VALUE_STRING && v.string.len > BREAKDOWN_TEXT_MAX)) {
        f->has_more = true;
        return 0;
    }
    uint64_t hash = value_hash(at, &v);
    size_t slot = hash & mask;
    for (; c->slots[slot]; slot = (slot + 1) & mask) {
        struct cell *cell = &c->cells[c->slots[slot] - 1];
        if (cell->hash == hash && cell->field == at && value_eq(&cell->value, &v)) {
            cell->n[c->side]++;
            return 0;
        }
    }
    if (f->cells == BREAKDOWN_VALUES_MAX || c->n_cells == BREAKDOWN_CELLS_MAX) {
        f->has_more = true;
        return 0;
    }
    if (v.type == VALUE_STRING) {
        v.string = arena_str(c->out, v.string);
        if (!v.string.ptr)
            return ERR_NOMEM;
    }
    struct cell *cell = &c->cells[c->n_cells++];
    *cell = (struct cell){.field = at, .hash = hash, .value = v};
    cell->n[c->side] = 1;
    f->cells++;
    c->slots[slot] = (uint32_t)c->n_cells;
    return 0;
}

static int field_add(struct counter *c, size_t at, struct value v)
{
    if (v.type == VALUE_NONE)
        return 0;
    c->fields[at].n[c->side]++;
    return cell_add(c, (uint32_t)at, v);
}

static int intrinsics_add(struct counter *c, struct str name, unsigned kind, unsigned status)
{
    static const char *const statuses[] = {"unset", "ok", "error"};
    const struct str texts[INTRINSICS] = {
        name,
        kind == SPAN_KIND_UNSPECIFIED ? STR("unspecified") : str_from(span_kind_tag(kind)),
        str_from(statuses[status > 2 ? 0 : status]),
    };
    int err = 0;
    for (size_t i = 0; !err && i < INTRINSICS; i++)
        err = field_add(c, i, (struct value){.type = VALUE_STRING, .string = texts[i]});
    return err;
}

/* ---- scans ---- */

static int row_count(void *arg, struct scan *scan, const struct scan_row *row)
{
    struct counter *c = arg;
    c->spans[c->side] += row->count;
    return check_clock(c);
}

static int row_add(void *arg, struct scan *scan, const struct scan_row *row)
{
    struct counter *c = arg;
    int err = check_clock(c);
    if (!err && c->first_attr == INTRINSICS) {
        c->counted[c->side]++;
        err = intrinsics_add(c, row->name, row->kind, row->status_code);
    }
    for (size_t i = 0; !err && i < c->n_attrs; i++)
        err = field_add(c, c->first_attr + i, row->attrs[i]);
    return err;
}

static int side_count(struct counter *c, enum side side)
{
    uint64_t time_ns = c->start_max_ns - c->start_min_ns;
    struct scan scan = {.where = c->where[side],
                        .start_min_ns = c->start_min_ns,
                        .start_max_ns = c->start_max_ns,
                        .step_ns = time_ns / COUNT_STEPS + 1};
    c->side = side;
    return store_scan(c->view, &scan, row_count, c, &c->cost);
}

/* The fields from `first_attr` on, of one side. */
static int fields_add(struct counter *c, const struct predicate *where)
{
    struct scan_attr attrs[SCAN_ATTRS_MAX];
    struct scan scan = {.where = where,
                        .start_min_ns = c->start_min_ns,
                        .start_max_ns = c->start_max_ns,
                        .attrs = attrs,
                        .n_attrs = c->n_attrs};
    for (size_t i = 0; i < c->n_attrs; i++)
        attrs[i] = (struct scan_attr){c->fields[c->first_attr + i].field,
                                      c->fields[c->first_attr + i].key};
    return store_scan(c->view, &scan, row_add, c, &c->cost);
}

static struct predicate start_is(enum predicate_op op, uint64_t ns)
{
    return (struct predicate){
        .op = op, .field = FIELD_START, .value = {.type = VALUE_INT, .integer = (int64_t)ns}};
}

/* And: it starts at the beginning of some slice. NULL: no memory. */
static const struct predicate *in_slices(struct counter *c, const struct predicate *where,
                                         double part)
{
    uint64_t slice_ns = (c->start_max_ns - c->start_min_ns) / SLICES + 1;
    uint64_t length_ns = (uint64_t)((double)slice_ns * part);
    struct predicate *p = arena_zalloc(&c->arena, (3 + 3 * SLICES) * sizeof *p);
    if (!p)
        return NULL;
    struct predicate *slices = p + 3, *bounds = slices + SLICES;
    for (uint64_t i = 0; i < SLICES; i++) {
        uint64_t from_ns = c->start_min_ns + i * slice_ns;
        bounds[2 * i] = start_is(PREDICATE_GE, from_ns);
        bounds[2 * i + 1] = start_is(PREDICATE_LT, from_ns + length_ns);
        slices[i] =
            (struct predicate){.op = PREDICATE_AND, .children = bounds + 2 * i, .n_children = 2};
    }
    p[1] = (struct predicate){.op = PREDICATE_OR, .children = slices, .n_children = SLICES};
    if (where)
        p[2] = *where;
    p[0] = (struct predicate){.op = PREDICATE_AND, .children = p + 1, .n_children = where ? 2 : 1};
    return p;
}

static int side_add(struct counter *c, enum side side)
{
    const struct predicate *where = c->where[side];
    c->side = side;
    if (c->spans[side] > BREAKDOWN_SPANS_MAX) {
        where = in_slices(c, where, (double)BREAKDOWN_SPANS_MAX / (double)c->spans[side]);
        if (!where)
            return ERR_NOMEM;
    }
    int err = 0;
    for (size_t first = INTRINSICS; !err; first += SCAN_ATTRS_MAX) {
        c->first_attr = first;
        c->n_attrs = c->n_fields > first ? c->n_fields - first : 0;
        if (c->n_attrs > SCAN_ATTRS_MAX)
            c->n_attrs = SCAN_ATTRS_MAX;
        err = fields_add(c, where);
        if (first + SCAN_ATTRS_MAX >= c->n_fields)
            break;
    }
    return err;
}

/* ---- whole traces ---- */

static int field_order(const struct field *f, enum predicate_field field, struct str key)
{
    if (f->field != field)
        return f->field == FIELD_RESOURCE_ATTR ? -1 : 1;
    return str_cmp(f->key, key);
}

static int attrs_add(struct counter *c, enum predicate_field field, const struct attrs *attrs)
{
    int err = 0;
    for (uint32_t i = 0; !err && i < attrs->n; i++) {
        size_t low = INTRINSICS, high = c->n_fields;
        while (low < high) {
            size_t middle = low + (high - low) / 2;
            if (field_order(&c->fields[middle], field, attrs->items[i].key) < 0)
                low = middle + 1;
            else
                high = middle;
        }
        /* Of a key that is there twice the first counts, as in columns. */
        if (low == c->n_fields || field_order(&c->fields[low], field, attrs->items[i].key) ||
            c->fields[low].seen_in == c->counted[SIDE_FOUND])
            continue;
        c->fields[low].seen_in = c->counted[SIDE_FOUND];
        err = field_add(c, low, attrs->items[i].value);
    }
    return err;
}

static int trace_add(struct counter *c, const struct search *search,
                     const struct trace_summary *summary, struct arena *scratch)
{
    struct search_spans spans;
    arena_reset(scratch);
    int err = search_spans(c->view, search, summary, scratch, &spans);
    for (size_t i = 0; !err && i < spans.batch.n; i++) {
        const struct span *s = &spans.batch.spans[i];
        bool is_found = false;
        for (size_t k = 0; k < spans.n_sets; k++)
            is_found |= spans.sets[k].marks[i];
        if (!is_found)
            continue;
        err = check_clock(c);
        c->counted[SIDE_FOUND]++;
        if (!err)
            err = intrinsics_add(c, s->name, s->kind, s->status_code);
        if (!err)
            err = attrs_add(c, FIELD_RESOURCE_ATTR, &s->resource->attrs);
        if (!err)
            err = attrs_add(c, FIELD_SPAN_ATTR, &s->attrs);
    }
    return err;
}

/* The found ones of the newest traces; what they are compared with is of the same time. */
static int traces_add(struct counter *c, bool *ret_cut, struct error_detail *detail)
{
    struct search search = {.query = c->breakdown->query,
                            .where = c->breakdown->where,
                            .start_min_ns = c->start_min_ns,
                            .start_max_ns = c->start_max_ns,
                            .limit = BREAKDOWN_TRACES_MAX,
                            .timeout_ns = c->breakdown->timeout_ns};
    struct search_result result;
    struct arena scratch = ARENA_INIT;
    int err = search_run(c->view, &search, &c->arena, &result, detail);
    c->side = SIDE_FOUND;
    size_t i = 0;
    for (; !err && i < result.n && c->counted[SIDE_FOUND] < BREAKDOWN_SPANS_MAX; i++)
        err = trace_add(c, &search, &result.traces[i].summary, &scratch);
    arena_done(&scratch);
    if (err)
        return err;
    *ret_cut = result.more || i < result.n;
    if (*ret_cut && i) {
        uint64_t oldest_ns = result.traces[i - 1].summary.start_ns;
        c->start_min_ns = oldest_ns > c->start_min_ns ? oldest_ns : c->start_min_ns;
    }
    c->spans[SIDE_FOUND] = c->counted[SIDE_FOUND];
    return 0;
}

/* ---- what comes out ---- */

static bool predicate_asks(const struct predicate *p, enum predicate_field field, struct str key)
{
    bool asks = false;
    for (size_t i = 0; !asks && i < p->n_children; i++)
        asks = predicate_asks(&p->children[i], field, key);
    if (asks || p->op <= PREDICATE_NOT)
        return asks;
    if (p->field == FIELD_SERVICE)
        return field == FIELD_RESOURCE_ATTR && str_eq(key, STR("service.name"));
    bool is_attr = field == FIELD_SPAN_ATTR || field == FIELD_RESOURCE_ATTR;
    return (p->field == field || (is_attr && p->field == FIELD_ANY_ATTR)) &&
           (!is_attr || str_eq(p->key, key));
}

static int more_different_first(const void *a, const void *b)
{
    const struct breakdown_value *x = a, *y = b;
    double dx = fabs(x->difference), dy = fabs(y->difference);
    if (dx != dy)
        return dx > dy ? -1 : 1;
    if (x->n.found != y->n.found)
        return x->n.found > y->n.found ? -1 : 1;
    if (x->n.all != y->n.all)
        return x->n.all > y->n.all ? -1 : 1;
    if (x->value.type != y->value.type)
        return x->value.type < y->value.type ? -1 : 1;
    switch (x->value.type) {
    case VALUE_STRING:
        return str_cmp(x->value.string, y->value.string);
    case VALUE_BOOL:
        return (int)x->value.boolean - (int)y->value.boolean;
    case VALUE_INT:
        return (x->value.integer > y->value.integer) - (x->value.integer < y->value.integer);
    default:
        return (x->value.real > y->value.real) - (x->value.real < y->value.real);
    }
}

static int more_telling_first(const void *a, const void *b)
{
    const struct breakdown_field *x = a, *y = b;
    if (x->is_asked != y->is_asked)
        return x->is_asked ? 1 : -1;
    if (x->difference != y->difference)
        return x->difference > y->difference ? -1 : 1;
    if (x->n.found != y->n.found)
        return x->n.found > y->n.found ? -1 : 1;
    if (x->field != y->field)
        return x->field < y->field ? -1 : 1;
    return str_cmp(x->key, y->key);
}

static double share(uint64_t n, uint64_t of)
{
    return of ? (double)n / (double)of : 0;
}

/* A field's cells as values, in `values`. */
static void field_finish(struct counter *c, const struct field *f, struct breakdown_value *values,
                         size_t n, struct breakdown_field *ret)
{
    const struct predicate *plan = c->where[SIDE_FOUND];
    if (n)
        qsort(values, n, sizeof *values, more_different_first);
    *ret = (struct breakdown_field){
        .field = f->field,
        .key = f->key,
        .is_asked = plan && predicate_asks(plan, f->field, f->key),
        .n = {f->n[SIDE_FOUND], f->n[SIDE_ALL]},
        .different = n,
        .has_more = f->has_more,
        .values = values,
        .n_values = n < c->breakdown->values_max ? n : c->breakdown->values_max,
        .difference = n ? fabs(values[0].difference) : 0,
    };
}

static int finish(struct counter *c, struct breakdown_result *ret)
{
    size_t *ends = arena_zalloc(&c->arena, (c->n_fields + 1) * sizeof *ends);
    struct breakdown_value *values = arena_array(c->out, c->n_cells + 1, sizeof *values);
    ret->fields = arena_array(c->out, c->n_fields + 1, sizeof *ret->fields);
    if (!ends || !values || !ret->fields)
        return ERR_NOMEM;
    /* Each field's cells together: ends[i] is first where field i begins, then where it ends. */
    for (size_t i = 0; i + 1 < c->n_fields; i++)
        ends[i + 1] = ends[i] + c->fields[i].cells;
    for (size_t i = 0; i < c->n_cells; i++) {
        const struct cell *cell = &c->cells[i];
        values[ends[cell->field]++] = (struct breakdown_value){
            .value = cell->value,
            .n = {cell->n[SIDE_FOUND], cell->n[SIDE_ALL]},
            .difference = share(cell->n[SIDE_FOUND], c->counted[SIDE_FOUND]) -
                          share(cell->n[SIDE_ALL], c->counted[SIDE_ALL]),
        };
    }
    for (size_t i = 0; i < c->n_fields; i++) {
        const struct field *f = &c->fields[i];
        if (f->n[SIDE_FOUND] + f->n[SIDE_ALL])
            field_finish(c, f, values + ends[i] - f->cells, f->cells, &ret->fields[ret->n++]);
    }
    if (ret->n)
        qsort(ret->fields, ret->n, sizeof *ret->fields, more_telling_first);
    ret->spans = (struct breakdown_counts){c->spans[SIDE_FOUND], c->spans[SIDE_ALL]};
    ret->counted = (struct breakdown_counts){c->counted[SIDE_FOUND], c->counted[SIDE_ALL]};
    return 0;
}

/* ---- all of it ---- */

static int fields_init(struct counter *c, bool *ret_cut)
{
    static const enum predicate_field intrinsics[INTRINSICS] = {FIELD_NAME, FIELD_KIND,
                                                                FIELD_STATUS};
    struct store_key *keys;
    size_t n;
    int err = store_keys(c->view, c->start_min_ns, c->start_max_ns, BREAKDOWN_KEYS_MAX + 1, c->out,
                         &keys, &n);
    if (err)
        return err;
    *ret_cut |= n > BREAKDOWN_KEYS_MAX;
    n = n > BREAKDOWN_KEYS_MAX ? BREAKDOWN_KEYS_MAX : n;
    c->fields = arena_zalloc(&c->arena, (INTRINSICS + n) * sizeof *c->fields);
    c->cells = arena_array(&c->arena, BREAKDOWN_CELLS_MAX, sizeof *c->cells);
    c->slots = arena_zalloc(&c->arena, 2 * BREAKDOWN_CELLS_MAX * sizeof *c->slots);
    if (!c->fields || !c->cells || !c->slots)
        return ERR_NOMEM;
    for (size_t i = 0; i < INTRINSICS; i++)
        c->fields[i].field = intrinsics[i];
    for (size_t i = 0; i < n; i++)
        c->fields[INTRINSICS + i] = (struct field){.field = keys[i].field, .key = keys[i].name};
    c->n_fields = INTRINSICS + n;
    return 0;
}

/* What the columns can say of the found ones. */
static int where_init(struct counter *c, bool *ret_exact)
{
    const struct breakdown *b = c->breakdown;
    *ret_exact = true;
    c->where[SIDE_FOUND] = b->where;
    if (!b->query)
        return 0;
    const struct predicate *plan = traceql_predicate(b->query->stages, &c->arena, ret_exact);
    if (!plan)
        return ERR_NOMEM;
    *ret_exact &= !b->query->needs_trace;
    c->where[SIDE_FOUND] = plan;
    if (!b->where)
        return 0;
    struct predicate *both = arena_array(&c->arena, 3, sizeof *both);
    if (!both)
        return ERR_NOMEM;
    both[1] = *plan;
    both[2] = *b->where;
    both[0] = (struct predicate){.op = PREDICATE_AND, .children = both + 1, .n_children = 2};
    c->where[SIDE_FOUND] = both;
    return 0;
}

static int count(struct counter *c, struct breakdown_result *ret, struct error_detail *detail)
{
    bool exact;
    int err = where_init(c, &exact);
    if (!err)
        err = fields_init(c, &ret->is_cut);
    if (!err && exact)
        err = side_count(c, SIDE_FOUND);
    if (!err)
        err = exact ? side_add(c, SIDE_FOUND) : traces_add(c, &ret->is_cut, detail);
    if (!err)
        err = side_count(c, SIDE_ALL);
    if (!err)
        err = side_add(c, SIDE_ALL);
    ret->by_traces = !exact;
    return err ? err : finish(c, ret);
}

int breakdown_run(struct store_view *view, const struct breakdown *breakdown, struct arena *arena,
                  struct breakdown_result *ret, struct error_detail *ret_detail)
{
    struct error_detail unasked;
    struct error_detail *detail = ret_detail ? ret_detail : &unasked;
    struct breakdown_result result = {0};
    uint64_t begun_ns = clock_monotonic_ns();
    if (breakdown->query && !breakdown->query->stages)
        return error_set(detail, ERR_INVALID, 0,
                         "this query gives series; expected one that finds spans");
    if (breakdown->start_max_ns < breakdown->start_min_ns)
        return error_set(detail, ERR_INVALID, 0, "the end lies before the start");
    struct counter c = {
        .view = view,
        .breakdown = breakdown,
        .out = arena,
        .start_min_ns = breakdown->start_min_ns,
        .start_max_ns = breakdown->start_max_ns,
        .deadline_ns = breakdown->timeout_ns ? begun_ns + breakdown->timeout_ns : 0,
    };
    detail->code = 0;
    int err = count(&c, &result, detail);
    arena_done(&c.arena);
    if (err == ERR_TIMEOUT)
        return error_set(detail, err, 0,
                         "the breakdown took longer than %llu ms; ask for a shorter time range",
                         (unsigned long long)(breakdown->timeout_ns / NS_PER_MS));
    if (err && detail->code != err)
        return error_set(detail, err, 0, "the breakdown failed: %s", err_text(err));
    if (err)
        return err;
    result.start_min_ns = c.start_min_ns;
    result.start_max_ns = c.start_max_ns;
    result.cost = c.cost;
    result.elapsed_ns = clock_monotonic_ns() - begun_ns;
    *ret = result;
    return 0;
}
