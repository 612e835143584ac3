#include "store/local/codec.h"
#include "store/local/match.h"
#include "store/local/memtable.h"
#include "store/local/segment_format.h"

/* The newest row of a trace within the snapshot, as row + 1; 0: none. */
static uint32_t trace_newest(const struct memtable *mt, uint32_t rows, const struct trace_id *id)
{
    uint32_t trace = intern_find(&mt->traces, (struct str){(const char *)id->bytes, TRACE_ID_SIZE});
    if (trace == INTERN_NONE)
        return 0;
    const _Atomic uint32_t *last = steps_at(&mt->last_row, sizeof *last, trace);
    uint32_t row = atomic_load_explicit(last, memory_order_acquire);
    while (row > rows)
        row = memtable_row(mt, row - 1)->older;
    return row;
}

static struct str arena_copy(struct arena *a, struct str s, bool *failed)
{
    struct str copy = arena_str(a, s);
    *failed |= !copy.ptr;
    return copy;
}

static bool cell_value(const struct memtable *mt, struct mem_cell cell, struct arena *arena,
                       bool copy, struct value *ret)
{
    bool failed = false;
    *ret = (struct value){.type = memtable_column(mt, cell.column)->type};
    switch (ret->type) {
    case VALUE_STRING:
    case VALUE_BYTES:
        ret->string = intern_get(&mt->values, cell.payload);
        if (copy)
            ret->string = arena_copy(arena, ret->string, &failed);
        return !failed;
    case VALUE_BOOL:
        ret->boolean = cell.payload;
        return true;
    case VALUE_INT:
        ret->integer = memtable_integer(mt, cell.payload);
        return true;
    case VALUE_DOUBLE: {
        uint64_t bits = memtable_wide(mt, cell.payload & ~CELL_WIDE);
        memcpy(&ret->real, &bits, sizeof bits);
        return true;
    }
    case VALUE_ARRAY:
    case VALUE_MAP: {
        struct str bytes = intern_get(&mt->values, cell.payload);
        if (copy)
            bytes = arena_copy(arena, bytes, &failed);
        struct codec_reader r = codec_reader(bytes, arena);
        codec_value(&r, ret);
        return !failed && !codec_finish(&r);
    }
    default:
        return true;
    }
}

/* Resources and scopes that were decoded already, by number: neighbours share the pointer. */
struct shared {
    uint32_t number;
    const void *item;
};

static const struct resource *resource_decode(const struct memtable *mt, uint32_t number,
                                              struct arena *arena)
{
    struct resource *r = arena_alloc(arena, sizeof *r);
    struct str bytes = arena_str(arena, intern_get(&mt->resources, number));
    if (!r || !bytes.ptr)
        return NULL;
    struct codec_reader reader = codec_reader(bytes, arena);
    codec_resource(&reader, r);
    return codec_finish(&reader) ? NULL : r;
}

static const struct scope *scope_decode(const struct memtable *mt, uint32_t number,
                                        struct arena *arena)
{
    struct scope *s = arena_alloc(arena, sizeof *s);
    struct str bytes = arena_str(arena, intern_get(&mt->scopes, number));
    if (!s || !bytes.ptr)
        return NULL;
    struct codec_reader reader = codec_reader(bytes, arena);
    codec_scope(&reader, s);
    return codec_finish(&reader) ? NULL : s;
}

static bool extra_decode(const struct mem_extra *e, struct arena *arena, struct span *s)
{
    bool failed = false;
    s->trace_state = arena_copy(arena, e->trace_state, &failed);
    s->status_message = arena_copy(arena, e->status_message, &failed);
    s->attrs.dropped = e->dropped_attrs;
    s->dropped_events = e->dropped_events;
    s->dropped_links = e->dropped_links;
    if (e->events.len) {
        struct codec_reader r = codec_reader(arena_copy(arena, e->events, &failed), arena);
        codec_events(&r, s->start_ns, &s->events, &s->n_events);
        failed |= codec_finish(&r) != 0;
    }
    if (e->links.len) {
        struct codec_reader r = codec_reader(arena_copy(arena, e->links, &failed), arena);
        codec_links(&r, &s->links, &s->n_links);
        failed |= codec_finish(&r) != 0;
    }
    return !failed;
}

static bool row_decode(const struct memtable *mt, const struct mem_row *row,
                       const struct trace_id *id, struct arena *arena, struct span *s)
{
    bool failed = false;
    s->trace_id = *id;
    s->span_id = row->span_id;
    s->parent_id = row->parent_id;
    s->start_ns = row->start_ns;
    s->end_ns = row->end_ns;
    s->name = arena_copy(arena, intern_get(&mt->names, row->name), &failed);
    s->flags = row->flags;
    s->kind = row->kind;
    s->status_code = row->status_code;
    struct attr *attrs = arena_array(arena, row->n_cells, sizeof *attrs);
    if (!attrs)
        return false;
    for (uint32_t i = 0; i < row->n_cells; i++) {
        uint32_t key = memtable_column(mt, row->cells[i].column)->key;
        attrs[i].key = arena_copy(arena, intern_get(&mt->keys, key), &failed);
        failed |= !cell_value(mt, row->cells[i], arena, true, &attrs[i].value);
    }
    s->attrs.items = attrs;
    s->attrs.n = row->n_cells;
    return !failed && (!row->extra || extra_decode(row->extra, arena, s));
}

int memtable_trace(const struct memtable *mt, uint32_t rows, const struct trace_id *id,
                   uint64_t start_min_ns, uint64_t start_max_ns, struct arena *arena,
                   struct span_list *spans, bool *ret_has)
{
    enum { SHARED = 8 };
    struct shared resources[SHARED] = {0}, scopes[SHARED] = {0};
    for (uint32_t at = trace_newest(mt, rows, id); at;) {
        const struct mem_row *row = memtable_row(mt, at - 1);
        *ret_has = true;
        at = row->older;
        if (row->start_ns < start_min_ns || row->start_ns > start_max_ns)
            continue;
        struct shared *resource = &resources[row->resource % SHARED];
        struct shared *scope = &scopes[row->scope % SHARED];
        if (!resource->item || resource->number != row->resource)
            *resource = (struct shared){row->resource, resource_decode(mt, row->resource, arena)};
        if (!scope->item || scope->number != row->scope)
            *scope = (struct shared){row->scope, scope_decode(mt, row->scope, arena)};
        struct span *s = span_list_add(spans);
        if (!s || !resource->item || !scope->item || !row_decode(mt, row, id, arena, s))
            return ERR_NOMEM;
        s->resource = resource->item;
        s->scope = scope->item;
    }
    return 0;
}

int memtable_outline(const struct memtable *mt, uint32_t rows, const struct trace_id *id,
                     struct outline_list *outline)
{
    for (uint32_t at = trace_newest(mt, rows, id); at;) {
        const struct mem_row *row = memtable_row(mt, at - 1);
        struct store_outline *o = outline_list_add(outline);
        if (!o)
            return ERR_NOMEM;
        *o = (struct store_outline){
            .span_id = row->span_id,
            .parent_id = row->parent_id,
            .start_ns = row->start_ns,
            .end_ns = row->end_ns,
            .service = intern_get(&mt->names, memtable_service(mt, row->resource)),
            .name = intern_get(&mt->names, row->name),
            .kind = row->kind,
            .status_code = row->status_code,
        };
        at = row->older;
    }
    return 0;
}

/* ---- scan ---- */

enum { UNKNOWN, NO, YES, ABSENT };

/* What a leaf answered about a number in one of the tables; filled when first asked. */
struct leaf {
    uint32_t key;   /* of an attribute, in `keys`; INTERN_NONE: no span has it */
    uint8_t *names; /* also services */
    uint8_t *values;
    uint8_t *resources; /* of a resource attribute; may be ABSENT */
};

/* An attribute that the rows bring along. */
struct wanted {
    uint32_t key;         /* as of a leaf */
    struct value *values; /* by resource */
    uint8_t *known;       /* by resource: NO (not there), YES; UNKNOWN: not asked yet */
};

struct scanner {
    const struct memtable *mt;
    struct leaf *leaves;
    struct wanted wanted[SCAN_ATTRS_MAX];
    struct value values[SCAN_ATTRS_MAX]; /* of the row */
    struct arena resources;              /* what `wanted` points into */
    struct arena arena;                  /* scratch: resources and composite values */
    bool failed;
};

static uint8_t *memo(struct scanner *sc, uint8_t **table, const struct intern *in)
{
    if (!*table) {
        *table = calloc((size_t)intern_count(in) + 1, 1);
        sc->failed |= !*table;
    }
    return *table;
}

static bool string_matches(struct scanner *sc, const struct filter *f, uint8_t **table,
                           const struct intern *in, uint32_t number)
{
    uint8_t *answers = memo(sc, table, in);
    if (!answers)
        return false;
    if (answers[number] == UNKNOWN)
        answers[number] = filter_string(f, intern_get(in, number)) ? YES : NO;
    return answers[number] == YES;
}

static bool resource_matches(struct scanner *sc, const struct filter *f, uint32_t number)
{
    uint8_t *answers = memo(sc, &sc->leaves[f->leaf].resources, &sc->mt->resources);
    if (!answers)
        return false;
    if (answers[number] == UNKNOWN) {
        struct resource r;
        struct codec_reader reader = codec_reader(intern_get(&sc->mt->resources, number),
                                                  &sc->arena);
        codec_resource(&reader, &r);
        sc->failed |= reader.err != 0;
        struct resource_derived derived;
        const struct attr *a = resource_attr_find(&r, f->key, &derived);
        answers[number] = a && filter_value(f, &a->value) ? YES : NO;
        arena_reset(&sc->arena);
    }
    return answers[number] == YES;
}

/* Whether the span's own attribute matches; ABSENT when it has none. */
static int attr_matches(struct scanner *sc, const struct filter *f, const struct mem_row *row)
{
    struct leaf *leaf = &sc->leaves[f->leaf];
    if (leaf->key == INTERN_NONE)
        return ABSENT;
    for (uint32_t i = 0; i < row->n_cells; i++) {
        struct mem_cell cell = row->cells[i];
        const struct mem_column *column = memtable_column(sc->mt, cell.column);
        if (column->key != leaf->key)
            continue;
        if (column->type == VALUE_STRING)
            return string_matches(sc, f, &leaf->values, &sc->mt->values, cell.payload) ? YES : NO;
        struct value v;
        bool ok = cell_value(sc->mt, cell, &sc->arena, false, &v);
        sc->failed |= !ok;
        bool yes = ok && filter_value(f, &v);
        if (column->type == VALUE_ARRAY || column->type == VALUE_MAP)
            arena_reset(&sc->arena);
        return yes ? YES : NO;
    }
    return ABSENT;
}

static bool row_matches(struct scanner *sc, const struct filter *f, const struct mem_row *row)
{
    const struct memtable *mt = sc->mt;
    switch (f->op) {
    case PREDICATE_TRUE:
        return true;
    case PREDICATE_AND:
        for (size_t i = 0; i < f->n_children; i++)
            if (!row_matches(sc, &f->children[i], row))
                return false;
        return true;
    case PREDICATE_OR:
        for (size_t i = 0; i < f->n_children; i++)
            if (row_matches(sc, &f->children[i], row))
                return true;
        return false;
    case PREDICATE_NOT:
        return f->n_children == 0 || !row_matches(sc, &f->children[0], row);
    default:
        break;
    }
    struct leaf *leaf = &sc->leaves[f->leaf];
    switch (f->field) {
    case FIELD_NAME:
        return string_matches(sc, f, &leaf->names, &mt->names, row->name);
    case FIELD_SERVICE:
        return string_matches(sc, f, &leaf->names, &mt->names, memtable_service(mt, row->resource));
    case FIELD_SPAN_ATTR:
        return attr_matches(sc, f, row) == YES;
    case FIELD_RESOURCE_ATTR:
        return resource_matches(sc, f, row->resource);
    case FIELD_ANY_ATTR: {
        int own = attr_matches(sc, f, row);
        return own == ABSENT ? resource_matches(sc, f, row->resource) : own == YES;
    }
    default: {
        struct span s = {.parent_id = row->parent_id,
                         .start_ns = row->start_ns,
                         .end_ns = row->end_ns,
                         .kind = row->kind,
                         .status_code = row->status_code};
        if (row->extra)
            s.status_message = row->extra->status_message;
        return filter_span(f, &s);
    }
    }
}

static void leaves_init(struct scanner *sc, const struct filter *f)
{
    for (size_t i = 0; i < f->n_children; i++)
        leaves_init(sc, &f->children[i]);
    if (f->op > PREDICATE_NOT && (f->field == FIELD_SPAN_ATTR || f->field == FIELD_ANY_ATTR))
        sc->leaves[f->leaf].key = intern_find(&sc->mt->keys, f->key);
}

static void value_flatten(struct value *v)
{
    if (v->type == VALUE_ARRAY || v->type == VALUE_MAP)
        *v = (struct value){.type = v->type};
}

static bool wanted_of_span(struct scanner *sc, const struct wanted *w, const struct mem_row *row,
                           struct value *ret)
{
    for (uint32_t i = 0; w->key != INTERN_NONE && i < row->n_cells; i++) {
        struct mem_cell cell = row->cells[i];
        const struct mem_column *column = memtable_column(sc->mt, cell.column);
        if (column->key != w->key)
            continue;
        if (column->type == VALUE_ARRAY || column->type == VALUE_MAP)
            *ret = (struct value){.type = column->type};
        else
            sc->failed |= !cell_value(sc->mt, cell, &sc->arena, false, ret);
        return true;
    }
    return false;
}

static void wanted_of_resource(struct scanner *sc, const struct scan_attr *attr, struct wanted *w,
                               uint32_t number, struct value *ret)
{
    const struct memtable *mt = sc->mt;
    size_t n = (size_t)intern_count(&mt->resources) + 1;
    if (!w->values) {
        w->values = arena_zalloc(&sc->resources, n * sizeof *w->values);
        w->known = arena_zalloc(&sc->resources, n);
        sc->failed |= !w->values || !w->known;
    }
    if (sc->failed)
        return;
    if (w->known[number] == UNKNOWN) {
        struct resource r;
        struct codec_reader reader = codec_reader(intern_get(&mt->resources, number),
                                                  &sc->resources);
        codec_resource(&reader, &r);
        sc->failed |= reader.err != 0;
        struct resource_derived derived;
        const struct attr *a = sc->failed ? NULL : resource_attr_find(&r, attr->key, &derived);
        w->known[number] = a ? YES : NO;
        if (a) {
            w->values[number] = a->value;
            if (a == &derived.attr) {
                w->values[number].string = arena_str(&sc->resources, a->value.string);
                sc->failed |= !w->values[number].string.ptr;
            }
            value_flatten(&w->values[number]);
        }
    }
    *ret = w->values[number];
}

static void values_gather(struct scanner *sc, const struct scan *scan, const struct mem_row *row)
{
    for (size_t i = 0; i < scan->n_attrs; i++) {
        const struct scan_attr *attr = &scan->attrs[i];
        struct value *v = &sc->values[i];
        *v = (struct value){.type = VALUE_NONE};
        if (attr->field != FIELD_RESOURCE_ATTR && wanted_of_span(sc, &sc->wanted[i], row, v))
            continue;
        if (attr->field != FIELD_SPAN_ATTR)
            wanted_of_resource(sc, attr, &sc->wanted[i], row->resource, v);
    }
}

/* The earliest start of a trace within the snapshot, kept in `starts` plus one (0: not asked). */
static uint64_t trace_start(const struct memtable *mt, uint32_t rows, uint32_t trace,
                            uint64_t *starts)
{
    if (!starts[trace]) {
        uint64_t start = UINT64_MAX;
        const _Atomic uint32_t *last = steps_at(&mt->last_row, sizeof *last, trace);
        for (uint32_t at = atomic_load_explicit(last, memory_order_acquire); at;) {
            const struct mem_row *row = memtable_row(mt, at - 1);
            if (at <= rows && row->start_ns < start)
                start = row->start_ns;
            at = row->older;
        }
        starts[trace] = start < UINT64_MAX ? start + 1 : start;
    }
    return starts[trace] - 1;
}

static int rows_scan(struct scanner *sc, uint32_t rows, const struct filter *filter,
                     struct scan *scan, scan_fn *fn, void *arg, struct scan_cost *cost)
{
    const struct memtable *mt = sc->mt;
    uint64_t *starts = NULL;
    int err = 0;
    for (uint32_t i = rows; i-- > 0 && !err;) {
        const struct mem_row *row = memtable_row(mt, i);
        cost->rows_read++;
        if (row->start_ns < scan->start_min_ns ||
            (scan->start_max_ns && row->start_ns > scan->start_max_ns))
            continue;
        bool yes = row_matches(sc, filter, row);
        if (!starts)
            starts = calloc(intern_count(&mt->traces), sizeof *starts);
        if (sc->failed || !starts) {
            err = ERR_NOMEM;
            break;
        }
        if (!yes)
            continue;
        cost->rows_matched++;
        struct scan_row out = {
            .span_id = row->span_id,
            .start_ns = row->start_ns,
            .duration_ns = row->end_ns > row->start_ns ? row->end_ns - row->start_ns : 0,
            .trace_start_ns = trace_start(mt, rows, row->trace, starts),
            .count = 1,
            .service = intern_get(&mt->names, memtable_service(mt, row->resource)),
            .name = intern_get(&mt->names, row->name),
            .kind = row->kind,
            .status_code = row->status_code,
            .attrs = sc->values,
        };
        values_gather(sc, scan, row);
        if (sc->failed) {
            err = ERR_NOMEM;
            break;
        }
        memcpy(out.trace_id.bytes, intern_get(&mt->traces, row->trace).ptr, TRACE_ID_SIZE);
        err = fn(arg, scan, &out);
    }
    free(starts);
    return err;
}

static int scanner_init(struct scanner *sc, const struct memtable *mt, unsigned leaves)
{
    *sc = (struct scanner){.mt = mt, .leaves = calloc(leaves + 1, sizeof *sc->leaves)};
    return sc->leaves ? 0 : ERR_NOMEM;
}

static void scanner_done(struct scanner *sc, unsigned leaves)
{
    for (unsigned i = 0; i < leaves; i++) {
        free(sc->leaves[i].names);
        free(sc->leaves[i].values);
        free(sc->leaves[i].resources);
    }
    free(sc->leaves);
    arena_done(&sc->resources);
    arena_done(&sc->arena);
}

int memtable_scan(const struct memtable *mt, uint32_t rows, const struct filter *filter,
                  unsigned leaves, struct scan *scan, scan_fn *fn, void *arg,
                  struct scan_cost *cost)
{
    cost->parts++;
    cost->groups++;
    cost->bytes_read += (uint64_t)rows * sizeof(struct mem_row);
    struct scanner sc;
    int err = scanner_init(&sc, mt, leaves);
    if (err)
        return err;
    leaves_init(&sc, filter);
    for (size_t i = 0; i < scan->n_attrs; i++)
        sc.wanted[i].key = intern_find(&mt->keys, scan->attrs[i].key);
    err = rows_scan(&sc, rows, filter, scan, fn, arg, cost);
    scanner_done(&sc, leaves);
    return err;
}

/* ---- traces that have spans of several kinds ---- */

/* By trace: which filters its spans fulfil. */
static int masks_make(struct scanner *sc, uint32_t rows, const struct matching *m, uint8_t *masks)
{
    const struct trace_match *match = m->match;
    for (uint32_t i = 0; i < rows; i++) {
        const struct mem_row *row = memtable_row(sc->mt, i);
        if (row->start_ns < match->start_min_ns ||
            (match->start_max_ns && row->start_ns > match->start_max_ns))
            continue;
        for (size_t k = 0; k < match->n_filters; k++)
            if (!(masks[row->trace] >> k & 1) && row_matches(sc, &m->filters[k], row))
                masks[row->trace] |= (uint8_t)(1u << k);
        if (sc->failed)
            return ERR_NOMEM;
    }
    m->cost->rows_read += rows;
    return 0;
}

/* Spans of a trace lie apart here: none is told as a whole. */
int memtable_match(const struct memtable *mt, uint32_t rows, struct matching *m)
{
    struct scanner sc;
    uint32_t n = intern_count(&mt->traces);
    m->cost->parts++;
    m->cost->groups++;
    m->cost->bytes_read += (uint64_t)rows * sizeof(struct mem_row);
    int err = scanner_init(&sc, mt, m->leaves);
    if (err)
        return err;
    for (size_t k = 0; k < m->match->n_filters; k++)
        leaves_init(&sc, &m->filters[k]);
    uint8_t *masks = calloc((size_t)n + 1, 1);
    uint64_t *starts = calloc((size_t)n + 1, sizeof *starts);
    err = masks && starts ? masks_make(&sc, rows, m, masks) : ERR_NOMEM;
    for (uint32_t k = n; !err && k-- > 0;) {
        struct match_trace trace = {.n = 0};
        if (!masks[k])
            continue;
        memcpy(trace.id.bytes, intern_get(&mt->traces, k).ptr, TRACE_ID_SIZE);
        if (!m->match->wanted[masks[k]] &&
            !shared_has(m->shared, segment_trace_hash(trace.id.bytes)))
            continue;
        trace.start_ns = trace_start(mt, rows, k, starts);
        m->cost->rows_matched++;
        err = m->answer = m->fn(m->arg, m->match, &trace);
    }
    free(starts);
    free(masks);
    scanner_done(&sc, m->leaves);
    return err;
}

/* ---- names ---- */

int memtable_operations(const struct memtable *mt, uint32_t rows, struct operation_set *set)
{
    /* Runs of the same operation are counted before they are looked up; a small cache by name
     * catches most of the rest. */
    enum { CACHE = 256 };
    struct {
        uint32_t service, name, kind, count;
    } cache[CACHE] = {0};
    int err = 0;
    for (uint32_t i = 0; i <= rows && !err; i++) {
        const struct mem_row *row = i < rows ? memtable_row(mt, i) : NULL;
        uint32_t service = row ? memtable_service(mt, row->resource) : 0;
        unsigned at = row ? (row->name * 31 + service * 7 + row->kind) % CACHE : 0;
        for (unsigned k = row ? at : 0; k < (row ? at + 1 : (unsigned)CACHE) && !err; k++) {
            bool same = row && cache[k].service == service && cache[k].name == row->name &&
                        cache[k].kind == row->kind;
            if (!same && cache[k].count) {
                err = operation_set_add(set, intern_get(&mt->names, cache[k].service),
                                        intern_get(&mt->names, cache[k].name),
                                        (uint8_t)cache[k].kind, cache[k].count);
                cache[k].count = 0;
            }
        }
        if (row) {
            cache[at].service = service;
            cache[at].name = row->name;
            cache[at].kind = row->kind;
            cache[at].count++;
        }
    }
    return err;
}
