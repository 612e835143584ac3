/* Reading: a snapshot of the memtables and the segments, and the pieces put together. */
#include <stdlib.h>
#include <string.h>

#include "store/local/calls.h"
#include "store/local/erase.h"
#include "store/local/keys.h"
#include "store/local/resources.h"
#include "store/local/view.h"

struct store_view *store_view_new(struct store *store)
{
    struct store_view *v = calloc(1, sizeof *v);
    if (!v)
        return NULL;
    pthread_mutex_lock(&store->lock);
    v->memtables[0] = memtable_ref(store->active);
    v->memtables[1] = store->frozen ? memtable_ref(store->frozen) : NULL;
    v->segments = segment_list_ref(store->segments);
    pthread_mutex_unlock(&store->lock);
    v->readers = calloc(v->segments->n + 1, sizeof *v->readers);
    for (int i = 0; i < 2; i++)
        v->rows[i] = v->memtables[i] ? memtable_rows(v->memtables[i]) : 0;
    if (!v->readers) {
        store_view_free(v);
        return NULL;
    }
    return v;
}

void store_view_free(struct store_view *v)
{
    if (!v)
        return;
    for (int i = 0; i < 2; i++)
        memtable_unref(v->memtables[i]);
    for (uint32_t i = 0; v->readers && i < v->segments->n; i++)
        readers_give(&v->segments->items[i]->readers, v->readers[i]);
    free(v->readers);
    segment_list_unref(v->segments);
    free(v);
}

int view_reader(struct store_view *v, uint32_t i, struct segment **ret)
{
    struct segment_file *file = v->segments->items[i];
    int err = 0;
    if (!v->readers[i])
        err = readers_take(&file->readers, file->dir, file->info.name, &v->readers[i]);
    if (!err)
        *ret = v->readers[i];
    return err == ERR_NOT_FOUND || err == ERR_UNSUPPORTED ? ERR_CORRUPT : err;
}

int view_pass_damage(struct store_view *v, uint32_t i, int err)
{
    if (err != ERR_CORRUPT)
        return err;
    v->is_damaged = true;
    atomic_store_explicit(&v->segments->items[i]->is_damaged, true, memory_order_relaxed);
    return 0;
}

bool store_view_is_damaged(const struct store_view *view)
{
    return view->is_damaged;
}

/* ---- a trace ---- */

static int span_order(const void *a, const void *b)
{
    const struct span *x = a, *y = b;
    if (x->start_ns != y->start_ns)
        return x->start_ns < y->start_ns ? -1 : 1;
    return memcmp(x->span_id.bytes, y->span_id.bytes, SPAN_ID_SIZE);
}

int store_trace(struct store_view *view, const struct trace_id *id, struct arena *arena,
                struct span_batch *ret_batch)
{
    struct span_list list = {.arena = arena};
    bool has = false;
    int err = 0;
    for (int i = 0; i < 2 && !err; i++)
        if (view->memtables[i])
            err = memtable_trace(view->memtables[i], view->rows[i], id, 0, UINT64_MAX, arena, &list,
                                 &has);
    for (uint32_t i = 0; i < view->segments->n && !err; i++) {
        struct segment *seg;
        size_t before = list.n;
        err = view_reader(view, i, &seg);
        if (!err)
            err = segment_trace(seg, id, &list);
        if (err)
            list.n = before;
        err = view_pass_damage(view, i, err);
    }
    if (err)
        return err;
    if (!list.n)
        return view->is_damaged ? ERR_CORRUPT : ERR_NOT_FOUND;
    qsort(list.spans, list.n, sizeof *list.spans, span_order);
    *ret_batch = (struct span_batch){.spans = list.spans, .n = list.n};
    return 0;
}

int store_trace_between(struct store_view *view, const struct trace_id *id, uint64_t start_min_ns,
                        uint64_t start_max_ns, struct arena *arena, struct span_batch *ret_batch)
{
    struct span_list list = {.arena = arena};
    bool has = false;
    int err = 0;
    for (int i = 0; i < 2 && !err; i++)
        if (view->memtables[i])
            err = memtable_trace(view->memtables[i], view->rows[i], id, start_min_ns, start_max_ns,
                                 arena, &list, &has);
    for (uint32_t i = 0; i < view->segments->n && !err; i++) {
        const struct segment_info *info = &view->segments->items[i]->info;
        struct segment *seg;
        size_t before = list.n;
        if (has && (info->start_min_ns > start_max_ns || info->start_max_ns < start_min_ns))
            continue;
        err = view_reader(view, i, &seg);
        if (!err)
            err = segment_trace_between(seg, id, start_min_ns, start_max_ns, &list, &has);
        if (err)
            list.n = before;
        err = view_pass_damage(view, i, err);
    }
    if (err)
        return err;
    if (!has)
        return view->is_damaged ? ERR_CORRUPT : ERR_NOT_FOUND;
    if (list.n)
        qsort(list.spans, list.n, sizeof *list.spans, span_order);
    *ret_batch = (struct span_batch){.spans = list.spans, .n = list.n};
    return 0;
}

/* ---- a summary ---- */

static int outline_order(const void *a, const void *b)
{
    const struct store_outline *x = a, *y = b;
    if (x->start_ns != y->start_ns)
        return x->start_ns < y->start_ns ? -1 : 1;
    return memcmp(x->span_id.bytes, y->span_id.bytes, SPAN_ID_SIZE);
}

static int id_order(const void *a, const void *b)
{
    return memcmp(a, b, SPAN_ID_SIZE);
}

static int service_order(const void *a, const void *b)
{
    const struct trace_service *x = a, *y = b;
    return str_cmp(x->name, y->name);
}

static int summary_services(const struct outline_list *spans, struct arena *arena,
                            struct trace_summary *s)
{
    struct trace_service *services = NULL;
    uint32_t n = 0, cap = 0;
    for (size_t i = 0; i < spans->n; i++) {
        const struct store_outline *o = &spans->items[i];
        uint32_t k = 0;
        while (k < n && !str_eq(services[k].name, o->service))
            k++;
        if (k == cap) {
            cap = cap ? cap * 2 : 8;
            struct trace_service *more = arena_array(arena, cap, sizeof *more);
            if (!more)
                return ERR_NOMEM;
            if (n)
                memcpy(more, services, n * sizeof *more);
            services = more;
        }
        if (k == n) {
            services[n++] = (struct trace_service){.name = arena_str(arena, o->service)};
            if (!services[k].name.ptr)
                return ERR_NOMEM;
        }
        services[k].span_count++;
        services[k].error_count += o->status_code == STATUS_ERROR;
    }
    if (n)
        qsort(services, n, sizeof *services, service_order);
    s->services = services;
    s->n_services = n;
    return 0;
}

static int summary_orphans(const struct outline_list *spans, uint32_t *ret)
{
    struct span_id *ids = malloc(spans->n * sizeof *ids);
    uint32_t orphans = 0;
    if (!ids)
        return ERR_NOMEM;
    for (size_t i = 0; i < spans->n; i++)
        ids[i] = spans->items[i].span_id;
    qsort(ids, spans->n, sizeof *ids, id_order);
    for (size_t i = 0; i < spans->n; i++) {
        const struct span_id *parent = &spans->items[i].parent_id;
        orphans += !span_id_is_zero(parent) &&
                   !bsearch(parent, ids, spans->n, sizeof *ids, id_order);
    }
    free(ids);
    *ret = orphans;
    return 0;
}

static int summary_from(struct outline_list *spans, const struct trace_id *id, struct arena *arena,
                        struct trace_summary *ret)
{
    struct trace_summary s = {.id = *id, .span_count = (uint32_t)spans->n};
    qsort(spans->items, spans->n, sizeof *spans->items, outline_order);
    const struct store_outline *root = &spans->items[0];
    s.start_ns = root->start_ns;
    for (size_t i = 0; i < spans->n; i++) {
        const struct store_outline *o = &spans->items[i];
        uint64_t end = o->end_ns > o->start_ns ? o->end_ns : o->start_ns;
        s.end_ns = end > s.end_ns ? end : s.end_ns;
        s.error_count += o->status_code == STATUS_ERROR;
        if (!s.has_root && span_id_is_zero(&o->parent_id)) {
            s.has_root = true;
            root = o;
        }
    }
    s.root_service = arena_str(arena, root->service);
    s.root_name = arena_str(arena, root->name);
    if (!s.root_service.ptr || !s.root_name.ptr)
        return ERR_NOMEM;
    int err = summary_orphans(spans, &s.orphan_count);
    if (!err)
        err = summary_services(spans, arena, &s);
    if (!err)
        *ret = s;
    return err;
}

static int outline_add(struct store_view *view, uint32_t i, const struct trace_id *id,
                       struct outline_list *spans)
{
    size_t before = spans->n;
    int err = segment_outline(view->readers[i], id, spans);
    if (err)
        spans->n = before;
    return view_pass_damage(view, i, err);
}

int store_trace_outline(struct store_view *view, const struct trace_id *id,
                        struct store_outline **ret_spans, size_t *ret_n)
{
    struct outline_list spans = {0};
    int err = 0;
    for (int i = 0; i < 2 && !err; i++)
        if (view->memtables[i])
            err = memtable_outline(view->memtables[i], view->rows[i], id, &spans);
    for (uint32_t i = 0; i < view->segments->n && !err; i++) {
        struct segment *seg;
        err = view_reader(view, i, &seg);
        err = err ? view_pass_damage(view, i, err) : outline_add(view, i, id, &spans);
    }
    if (!err && !spans.n)
        err = view->is_damaged ? ERR_CORRUPT : ERR_NOT_FOUND;
    if (err) {
        free(spans.items);
        return err;
    }
    qsort(spans.items, spans.n, sizeof *spans.items, outline_order);
    *ret_spans = spans.items;
    *ret_n = spans.n;
    return 0;
}

int store_trace_summary(struct store_view *view, const struct trace_id *id, struct arena *arena,
                        struct trace_summary *ret_summary)
{
    struct outline_list spans = {0};
    struct segment *only = NULL, *seg;
    uint32_t parts = 0, only_at = 0;
    int err = 0;
    for (int i = 0; i < 2 && !err; i++)
        if (view->memtables[i])
            err = memtable_outline(view->memtables[i], view->rows[i], id, &spans);
    parts += spans.n > 0;
    for (uint32_t i = 0; i < view->segments->n && !err; i++) {
        bool has = false;
        err = view_reader(view, i, &seg);
        if (!err)
            err = segment_has(seg, id, &has);
        if (err)
            err = view_pass_damage(view, i, err);
        if (err || !has)
            continue;
        /* A second part: the first segment's spans are needed after all. */
        if (only && parts == 1)
            err = outline_add(view, only_at, id, &spans);
        if (!err && parts)
            err = outline_add(view, i, id, &spans);
        only = parts++ ? NULL : seg;
        only_at = i;
    }
    if (!err && only) {
        err = segment_summary(only, id, arena, ret_summary);
        if (err == ERR_CORRUPT)
            (void)!view_pass_damage(view, only_at, err);
    } else if (!err && spans.n) {
        err = summary_from(&spans, id, arena, ret_summary);
    } else if (!err) {
        err = view->is_damaged ? ERR_CORRUPT : ERR_NOT_FOUND;
    }
    free(spans.items);
    return err;
}

/* ---- scans ---- */

int store_scan(struct store_view *view, struct scan *scan, scan_fn *fn, void *arg,
               struct scan_cost *ret_cost)
{
    struct scan_cost cost = {0};
    struct filter *filter;
    unsigned leaves;
    int err = filter_new(scan->where, &filter, &leaves);
    if (err)
        return err;
    for (int i = 0; i < 2 && !err; i++) {
        const struct memtable *mt = view->memtables[i];
        if (!mt || !view->rows[i])
            continue;
        if (range_misses(scan->start_min_ns, scan->start_max_ns, atomic_load(&mt->start_min_ns),
                         atomic_load(&mt->start_max_ns))) {
            cost.parts++;
            cost.parts_pruned++;
            continue;
        }
        err = memtable_scan(mt, view->rows[i], filter, leaves, scan, fn, arg, &cost);
    }
    for (uint32_t i = 0; i < view->segments->n && !err; i++) {
        const struct segment_info *info = &view->segments->items[i]->info;
        struct segment *seg;
        if (range_misses(scan->start_min_ns, scan->start_max_ns, info->start_min_ns,
                         info->start_max_ns)) {
            cost.parts++;
            cost.parts_pruned++;
            continue;
        }
        bool damaged = false;
        err = view_reader(view, i, &seg);
        if (err == ERR_CORRUPT)
            damaged = true;
        else if (!err)
            err = segment_scan(seg, filter, leaves, scan, fn, arg, &cost, &damaged);
        if (damaged) {
            cost.parts_damaged++;
            err = err == ERR_CORRUPT ? 0 : err;
            (void)!view_pass_damage(view, i, ERR_CORRUPT);
        }
    }
    filter_free(filter);
    if (ret_cost)
        *ret_cost = cost;
    return err;
}

/* ---- names ---- */

static int operations_gather(struct store_view *view, struct operation_set *set)
{
    int err = 0;
    for (int i = 0; i < 2 && !err; i++)
        if (view->memtables[i])
            err = memtable_operations(view->memtables[i], view->rows[i], set);
    for (uint32_t i = 0; i < view->segments->n && !err; i++) {
        struct segment *seg;
        err = view_reader(view, i, &seg);
        if (!err)
            err = segment_operations(seg, set);
        err = view_pass_damage(view, i, err);
    }
    return err;
}

static int name_order(const void *a, const void *b)
{
    return str_cmp(*(const struct str *)a, *(const struct str *)b);
}

int store_services(struct store_view *view, struct arena *arena, struct str **ret_names,
                   size_t *ret_n)
{
    struct operation_set set = {.arena = arena};
    size_t n = 0;
    int err = operations_gather(view, &set);
    struct str *names = err ? NULL : arena_array(arena, set.n, sizeof *names);
    if (!err && !names)
        err = ERR_NOMEM;
    for (size_t i = 0; !err && i < set.n; i++)
        names[i] = set.items[i].service;
    if (!err) {
        qsort(names, set.n, sizeof *names, name_order);
        for (size_t i = 0; i < set.n; i++)
            if (!n || !str_eq(names[n - 1], names[i]))
                names[n++] = names[i];
        *ret_names = names;
        *ret_n = n;
    }
    operation_set_done(&set);
    return err;
}

static int operation_order(const void *a, const void *b)
{
    const struct store_operation *x = a, *y = b;
    int order = str_cmp(x->service, y->service);
    if (!order)
        order = str_cmp(x->name, y->name);
    return order ? order : (int)x->kind - (int)y->kind;
}

int store_operations(struct store_view *view, struct str service, struct arena *arena,
                     struct store_operation **ret_operations, size_t *ret_n)
{
    struct operation_set set = {.arena = arena};
    size_t n = 0;
    int err = operations_gather(view, &set);
    struct store_operation *out = err ? NULL : arena_array(arena, set.n, sizeof *out);
    if (!err && !out)
        err = ERR_NOMEM;
    for (size_t i = 0; !err && i < set.n; i++)
        if (!service.len || str_eq(set.items[i].service, service))
            out[n++] = set.items[i];
    if (!err) {
        qsort(out, n, sizeof *out, operation_order);
        *ret_operations = out;
        *ret_n = n;
    }
    operation_set_done(&set);
    return err;
}

static int calls_gather(struct store_view *view, struct call_set *set)
{
    int err = 0;
    for (int i = 0; i < 2 && !err; i++)
        if (view->memtables[i])
            err = memtable_calls(view->memtables[i], view->rows[i], set);
    for (uint32_t i = 0; i < view->segments->n && !err; i++) {
        const struct segment_info *info = &view->segments->items[i]->info;
        struct segment *seg;
        if (info->start_max_ns < set->start_min_ns || info->start_min_ns > set->start_max_ns)
            continue;
        bool is_inside = info->start_min_ns >= set->start_min_ns &&
                         info->start_max_ns <= set->start_max_ns;
        err = view_reader(view, i, &seg);
        if (!err)
            err = segment_calls(seg, is_inside, set);
        err = view_pass_damage(view, i, err);
    }
    return err ? err : foreign_calls(view, set);
}

int store_calls(struct store_view *view, uint64_t start_min_ns, uint64_t start_max_ns,
                uint64_t timeout_ns, struct arena *arena, struct store_call **ret_calls,
                size_t *ret_n, bool *ret_is_cut)
{
    struct call_set set = {
        .start_min_ns = start_min_ns,
        .start_max_ns = start_max_ns ? start_max_ns : UINT64_MAX,
        .until_ns = timeout_ns ? clock_monotonic_ns() + timeout_ns : 0,
    };
    int err = call_set_init(&set, arena);
    if (!err)
        err = calls_gather(view, &set);
    if (!err)
        err = call_set_list(&set, ret_calls, ret_n);
    if (!err && ret_is_cut)
        *ret_is_cut = set.is_cut;
    call_set_done(&set);
    return err;
}

static int resources_gather(struct store_view *view, struct resource_set *set)
{
    const struct store_resources *which = set->which;
    int err = 0;
    for (int i = 0; i < 2 && !err; i++)
        if (view->memtables[i])
            err = memtable_resources(view->memtables[i], view->rows[i], set);
    for (uint32_t i = 0; i < view->segments->n && !err; i++) {
        const struct segment_info *info = &view->segments->items[i]->info;
        struct segment *seg;
        if (range_misses(which->start_min_ns, which->start_max_ns, info->start_min_ns,
                         info->start_max_ns))
            continue;
        err = view_reader(view, i, &seg);
        if (!err)
            err = segment_resources(seg, set);
        err = view_pass_damage(view, i, err);
    }
    return err;
}

int store_resources(struct store_view *view, const struct store_resources *which,
                    struct arena *arena, struct store_resource **ret, size_t *ret_n,
                    bool *ret_is_cut)
{
    struct resource_set set;
    int err = resource_set_init(&set, which, arena);
    if (!err)
        err = resources_gather(view, &set);
    if (!err)
        err = resource_set_list(&set, ret, ret_n);
    if (!err)
        *ret_is_cut = set.is_cut;
    resource_set_done(&set);
    return err;
}

static int keys_gather(struct store_view *view, const struct scan *range, struct key_set *set)
{
    int err = 0;
    for (int i = 0; i < 2 && !err; i++) {
        const struct memtable *mt = view->memtables[i];
        if (mt && view->rows[i] &&
            !range_misses(range->start_min_ns, range->start_max_ns, atomic_load(&mt->start_min_ns),
                          atomic_load(&mt->start_max_ns)))
            err = memtable_keys(mt, view->rows[i], set);
    }
    for (uint32_t i = 0; i < view->segments->n && !err; i++) {
        const struct segment_info *info = &view->segments->items[i]->info;
        struct segment *seg;
        if (range_misses(range->start_min_ns, range->start_max_ns, info->start_min_ns,
                         info->start_max_ns))
            continue;
        err = view_reader(view, i, &seg);
        if (!err)
            err = segment_keys(seg, set);
        err = view_pass_damage(view, i, err);
    }
    return err;
}

static int key_order(const void *a, const void *b)
{
    const struct store_key *x = a, *y = b;
    return str_cmp(x->name, y->name);
}

int store_keys(struct store_view *view, uint64_t start_min_ns, uint64_t start_max_ns, size_t most,
               struct arena *arena, struct store_key **ret_keys, size_t *ret_n)
{
    const struct scan range = {.start_min_ns = start_min_ns, .start_max_ns = start_max_ns};
    struct key_set set;
    key_set_init(&set, most);
    int err = keys_gather(view, &range, &set);
    uint32_t n_resources = intern_count(&set.resources), n_spans = intern_count(&set.spans);
    size_t n = (size_t)n_resources + n_spans;
    struct store_key *keys = err ? NULL : arena_array(arena, n, sizeof *keys);
    if (!err && !keys)
        err = ERR_NOMEM;
    for (size_t i = 0; !err && i < n; i++) {
        bool of_resource = i < n_resources;
        struct str name = of_resource ? intern_get(&set.resources, (uint32_t)i)
                                      : intern_get(&set.spans, (uint32_t)i - n_resources);
        keys[i].field = of_resource ? FIELD_RESOURCE_ATTR : FIELD_SPAN_ATTR;
        keys[i].name = arena_str(arena, name);
        if (!keys[i].name.ptr)
            err = ERR_NOMEM;
    }
    if (!err) {
        qsort(keys, n_resources, sizeof *keys, key_order);
        qsort(keys + n_resources, n_spans, sizeof *keys, key_order);
        *ret_keys = keys;
        *ret_n = n;
    }
    key_set_done(&set);
    return err;
}

/* ---- all spans ---- */

struct spans_pass {
    const struct erase_choice *which;
    store_spans_fn *fn;
    void *arg;
    int err; /* of `fn` */
};

static int spans_pass(void *arg, const struct span_batch *batch)
{
    struct spans_pass *p = arg;
    struct span_batch some = {.spans = batch->spans};
    for (size_t i = 0; i < batch->n; i++)
        if (erase_choice_has(p->which, &batch->spans[i]))
            some.spans[some.n++] = batch->spans[i];
    p->err = some.n ? p->fn(p->arg, &some) : 0;
    return p->err;
}

static int memtable_spans(const struct memtable *mt, uint32_t rows, struct spans_pass *p)
{
    uint32_t n = intern_count(&mt->traces);
    int err = 0;
    for (uint32_t i = 0; i < n && !err; i++) {
        struct arena arena = ARENA_INIT;
        struct span_list list = {.arena = &arena};
        struct str bytes = intern_get(&mt->traces, i);
        struct trace_id id;
        memcpy(id.bytes, bytes.ptr, TRACE_ID_SIZE);
        bool has;
        err = memtable_trace(mt, rows, &id, 0, UINT64_MAX, &arena, &list, &has);
        if (!err && list.n)
            err = spans_pass(p, &(struct span_batch){.spans = list.spans, .n = list.n});
        arena_done(&arena);
    }
    return err;
}

int store_spans(struct store_view *view, const struct store_erase *which, store_spans_fn *fn,
                void *arg)
{
    struct erase_choice choice;
    struct spans_pass p = {.which = &choice, .fn = fn, .arg = arg};
    const struct scan range = {.start_min_ns = which->spans ? 0 : which->start_min_ns,
                               .start_max_ns = which->spans ? 0 : which->start_max_ns};
    int err = erase_choice_init(&choice, which);
    for (int i = 0; i < 2 && !err; i++)
        if (view->memtables[i] && view->rows[i])
            err = memtable_spans(view->memtables[i], view->rows[i], &p);
    for (uint32_t i = 0; i < view->segments->n && !err; i++) {
        const struct segment_info *info = &view->segments->items[i]->info;
        struct segment *seg;
        if (range_misses(range.start_min_ns, range.start_max_ns, info->start_min_ns,
                         info->start_max_ns))
            continue;
        err = view_reader(view, i, &seg);
        if (!err)
            err = segment_spans(seg, spans_pass, &p);
        if (!p.err)
            err = view_pass_damage(view, i, err);
    }
    erase_choice_done(&choice);
    return err;
}
