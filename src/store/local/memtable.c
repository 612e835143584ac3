#include "store/local/memtable.h"

#include "store/local/codec.h"

/* ---- life ---- */

int memtable_new(struct memtable **ret)
{
    struct memtable *mt = calloc(1, sizeof *mt);
    if (!mt)
        return ERR_NOMEM;
    atomic_init(&mt->refs, 1);
    intern_init(&mt->keys, &mt->arena);
    intern_init(&mt->names, &mt->arena);
    intern_init(&mt->values, &mt->arena);
    intern_init(&mt->resources, &mt->arena);
    intern_init(&mt->scopes, &mt->arena);
    intern_init(&mt->traces, &mt->arena);
    atomic_init(&mt->start_min_ns, UINT64_MAX);
    *ret = mt;
    return 0;
}

struct memtable *memtable_ref(struct memtable *mt)
{
    atomic_fetch_add_explicit(&mt->refs, 1, memory_order_relaxed);
    return mt;
}

void memtable_unref(struct memtable *mt)
{
    if (!mt || atomic_fetch_sub_explicit(&mt->refs, 1, memory_order_acq_rel) != 1)
        return;
    intern_done(&mt->keys);
    intern_done(&mt->names);
    intern_done(&mt->values);
    intern_done(&mt->resources);
    intern_done(&mt->scopes);
    intern_done(&mt->traces);
    steps_done(&mt->rows);
    steps_done(&mt->wide);
    steps_done(&mt->last_row);
    steps_done(&mt->columns);
    steps_done(&mt->columns_of_key);
    steps_done(&mt->resource_services);
    buf_done(&mt->scratch);
    arena_done(&mt->arena);
    free(mt);
}

uint64_t memtable_bytes(const struct memtable *mt)
{
    return sizeof *mt + mt->arena.bytes + mt->n_rows * sizeof(struct mem_row) +
           mt->n_wide * sizeof(uint64_t) + intern_count(&mt->traces) * sizeof(uint32_t) +
           intern_bytes(&mt->keys) + intern_bytes(&mt->names) + intern_bytes(&mt->values) +
           intern_bytes(&mt->resources) + intern_bytes(&mt->scopes) + intern_bytes(&mt->traces) +
           mt->scratch.cap;
}

/* ---- writing: each returns false when there is no memory ---- */

static bool wide_add(struct memtable *mt, uint64_t bits, uint32_t *ret_payload)
{
    uint64_t *room = mt->n_wide < STEPS_MAX ? steps_room(&mt->wide, sizeof *room, mt->n_wide)
                                            : NULL;
    if (!room)
        return false;
    *room = bits;
    *ret_payload = CELL_WIDE | mt->n_wide++;
    return true;
}

static bool value_add(struct memtable *mt, struct str bytes, uint32_t *ret_payload)
{
    *ret_payload = intern_add(&mt->values, bytes);
    return *ret_payload != INTERN_NONE;
}

static bool column_add(struct memtable *mt, struct str key, uint8_t type, uint32_t *ret_column)
{
    uint32_t number = intern_add(&mt->keys, key);
    if (number == INTERN_NONE)
        return false;
    uint32_t *columns = steps_room(&mt->columns_of_key, 8 * sizeof *columns, number);
    if (!columns)
        return false;
    if (!columns[type]) {
        uint32_t n = atomic_load_explicit(&mt->n_columns, memory_order_relaxed);
        struct mem_column *column = n < STEPS_MAX ? steps_room(&mt->columns, sizeof *column, n)
                                                  : NULL;
        if (!column)
            return false;
        *column = (struct mem_column){number, type};
        atomic_store_explicit(&mt->n_columns, n + 1, memory_order_release);
        columns[type] = n + 1;
    }
    *ret_column = columns[type] - 1;
    return true;
}

static bool cell_add(struct memtable *mt, const struct attr *attr, struct mem_cell *cell)
{
    const struct value *v = &attr->value;
    uint8_t type = v->type <= VALUE_BYTES ? v->type : VALUE_NONE;
    cell->payload = 0;
    if (!column_add(mt, attr->key, type, &cell->column))
        return false;
    switch (type) {
    case VALUE_STRING:
    case VALUE_BYTES:
        return value_add(mt, v->string, &cell->payload);
    case VALUE_BOOL:
        cell->payload = v->boolean;
        return true;
    case VALUE_INT:
        if (v->integer >= 0 && v->integer < CELL_WIDE) {
            cell->payload = (uint32_t)v->integer;
            return true;
        }
        return wide_add(mt, (uint64_t)v->integer, &cell->payload);
    case VALUE_DOUBLE: {
        uint64_t bits;
        memcpy(&bits, &v->real, sizeof bits);
        return wide_add(mt, bits, &cell->payload);
    }
    case VALUE_ARRAY:
    case VALUE_MAP:
        buf_clear(&mt->scratch);
        codec_put_value(&mt->scratch, v);
        return buf_ok(&mt->scratch) && value_add(mt, buf_as_str(&mt->scratch), &cell->payload);
    default:
        return true;
    }
}

static bool resource_add(struct memtable *mt, const struct resource *resource, uint32_t *ret)
{
    buf_clear(&mt->scratch);
    codec_put_resource(&mt->scratch, resource);
    if (!buf_ok(&mt->scratch))
        return false;
    uint32_t number = intern_add(&mt->resources, buf_as_str(&mt->scratch));
    uint32_t service = number == INTERN_NONE ? INTERN_NONE
                                             : intern_add(&mt->names, resource->service_name);
    if (service == INTERN_NONE)
        return false;
    uint32_t *room = steps_room(&mt->resource_services, sizeof *room, number);
    if (!room)
        return false;
    /* Written once: readers may be looking at it from the second time on. */
    if (*room != service)
        *room = service;
    *ret = number;
    return true;
}

static bool scope_add(struct memtable *mt, const struct scope *scope, uint32_t *ret)
{
    buf_clear(&mt->scratch);
    codec_put_scope(&mt->scratch, scope);
    *ret = buf_ok(&mt->scratch) ? intern_add(&mt->scopes, buf_as_str(&mt->scratch)) : INTERN_NONE;
    return *ret != INTERN_NONE;
}

/* A copy of what the scratch buffer holds. */
static bool scratch_keep(struct memtable *mt, struct str *ret)
{
    struct str copy = buf_ok(&mt->scratch) ? arena_str(&mt->arena, buf_as_str(&mt->scratch))
                                           : STR_NONE;
    *ret = copy;
    return copy.ptr != NULL;
}

static bool extra_add(struct memtable *mt, const struct span *s, const struct mem_extra **ret)
{
    *ret = NULL;
    if (!(s->trace_state.len | s->status_message.len | s->n_events | s->n_links | s->attrs.dropped |
          s->dropped_events | s->dropped_links))
        return true;
    struct mem_extra *extra = arena_zalloc(&mt->arena, sizeof *extra);
    if (!extra)
        return false;
    extra->dropped_attrs = s->attrs.dropped;
    extra->dropped_events = s->dropped_events;
    extra->dropped_links = s->dropped_links;
    if (s->trace_state.len) {
        extra->trace_state = arena_str(&mt->arena, s->trace_state);
        if (!extra->trace_state.ptr)
            return false;
    }
    if (s->status_message.len) {
        extra->status_message = arena_str(&mt->arena, s->status_message);
        if (!extra->status_message.ptr)
            return false;
    }
    if (s->n_events) {
        buf_clear(&mt->scratch);
        codec_put_events(&mt->scratch, s->events, s->n_events, s->start_ns);
        if (!scratch_keep(mt, &extra->events))
            return false;
    }
    if (s->n_links) {
        buf_clear(&mt->scratch);
        codec_put_links(&mt->scratch, s->links, s->n_links);
        if (!scratch_keep(mt, &extra->links))
            return false;
    }
    *ret = extra;
    return true;
}

static bool row_add(struct memtable *mt, const struct span *s, uint32_t resource, uint32_t scope)
{
    /* The room comes first: who finds the number of a trace may look there. */
    if (!steps_room(&mt->last_row, sizeof(_Atomic uint32_t), intern_count(&mt->traces)))
        return false;
    uint32_t trace = intern_add(
        &mt->traces, (struct str){(const char *)s->trace_id.bytes, sizeof s->trace_id.bytes});
    struct mem_row *row = steps_room(&mt->rows, sizeof *row, mt->n_rows);
    uint32_t name = intern_add(&mt->names, s->name);
    struct mem_cell *cells = arena_array(&mt->arena, s->attrs.n, sizeof *cells);
    const struct mem_extra *extra;
    if (trace == INTERN_NONE || !row || name == INTERN_NONE || !cells || !extra_add(mt, s, &extra))
        return false;
    for (uint32_t i = 0; i < s->attrs.n; i++)
        if (!cell_add(mt, &s->attrs.items[i], &cells[i]))
            return false;
    *row = (struct mem_row){
        .span_id = s->span_id,
        .parent_id = s->parent_id,
        .start_ns = s->start_ns,
        .end_ns = s->end_ns,
        .cells = cells,
        .extra = extra,
        .n_cells = s->attrs.n,
        .trace = trace,
        .name = name,
        .resource = resource,
        .scope = scope,
        .flags = s->flags,
        .kind = s->kind,
        .status_code = s->status_code,
    };
    mt->n_rows++;
    return true;
}

int memtable_add(struct memtable *mt, const struct span_batch *batch)
{
    uint32_t before = mt->n_rows;
    if (batch->n > STEPS_MAX - before)
        return ERR_TOO_LARGE;
    const struct resource *resource = NULL;
    const struct scope *scope = NULL;
    uint32_t resource_number = 0, scope_number = 0;
    for (size_t i = 0; i < batch->n; i++) {
        const struct span *s = &batch->spans[i];
        bool ok = (s->resource == resource || resource_add(mt, s->resource, &resource_number)) &&
                  (s->scope == scope || scope_add(mt, s->scope, &scope_number)) &&
                  row_add(mt, s, resource_number, scope_number);
        if (!ok) {
            memtable_roll_back(mt, before);
            return ERR_NOMEM;
        }
        resource = s->resource;
        scope = s->scope;
    }
    return 0;
}

void memtable_roll_back(struct memtable *mt, uint32_t n_rows)
{
    mt->n_rows = n_rows;
}

void memtable_publish(struct memtable *mt, uint32_t rows_end, uint64_t sequence)
{
    uint64_t min = atomic_load_explicit(&mt->start_min_ns, memory_order_relaxed);
    uint64_t max = atomic_load_explicit(&mt->start_max_ns, memory_order_relaxed);
    for (uint32_t i = memtable_rows(mt); i < rows_end; i++) {
        struct mem_row *row = steps_at(&mt->rows, sizeof *row, i);
        min = row->start_ns < min ? row->start_ns : min;
        max = row->start_ns > max ? row->start_ns : max;
        _Atomic uint32_t *last = steps_at(&mt->last_row, sizeof *last, row->trace);
        row->older = atomic_load_explicit(last, memory_order_relaxed);
        atomic_store_explicit(last, i + 1, memory_order_release);
    }
    atomic_store_explicit(&mt->start_min_ns, min, memory_order_relaxed);
    atomic_store_explicit(&mt->start_max_ns, max, memory_order_relaxed);
    mt->last_sequence = sequence;
    atomic_store_explicit(&mt->rows_visible, rows_end, memory_order_release);
}
