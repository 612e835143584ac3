/* store_match: which traces lie in several parts, and then part by part. */
#include "store/local/match.h"

#include <string.h>

#include "store/local/segment_format.h"
#include "store/local/view.h"

/* Hashes that are sorted at once: 4 MiB and as much room. */
enum { SORTED_MAX = 1 << 20 };

/* Those that are there more than once, of a range of hashes. */
static int shared_range(struct store_view *v, uint32_t low, uint32_t high, struct hash_list *list,
                        struct hash_list *room, struct shared_traces *s)
{
    int err = 0;
    list->n = 0;
    for (uint32_t i = 0; !err && i < v->segments->n; i++) {
        struct segment *seg;
        err = view_reader(v, i, &seg);
        if (!err)
            err = segment_trace_hashes(seg, low, high, list);
        err = view_pass_damage(v, i, err);
    }
    if (!err && list->n)
        err = hash_list_sort(list, room);
    for (size_t i = 1; !err && i < list->n; i++)
        if (list->items[i] == list->items[i - 1])
            err = shared_add(s, list->items[i]);
    return err;
}

/* So many hashes that several traces have are looked at. With ten million traces of distinct ids there are a dozen
 * thousand; where most are of traces that came in parts, looking would change little. */
enum { LOOKED_AT_MAX = 1024 };

/* Whether two segments have a trace with the same id, of those with this hash; also when that cannot be told. */
static int hash_is_shared(struct store_view *v, uint32_t hash, bool *ret)
{
    struct ids_of_hash ids = {.n = 0};
    *ret = false;
    for (uint32_t i = 0; i < v->segments->n; i++) {
        struct segment *seg;
        int err = view_reader(v, i, &seg);
        if (!err)
            err = segment_ids_of_hash(seg, hash, &ids);
        *ret |= err == ERR_CORRUPT;
        err = view_pass_damage(v, i, err);
        if (err)
            return err;
    }
    *ret |= ids.n > IDS_OF_HASH_MAX;
    for (uint32_t i = 0; !*ret && i < ids.n; i++)
        for (uint32_t k = 0; k < i; k++)
            *ret |= !memcmp(ids.items[i].bytes, ids.items[k].bytes, TRACE_ID_SIZE);
    return 0;
}

/* Leaves out the hashes that different traces have by chance: each of these would be put together from all parts, for
 * every query that finds anything in it. */
static int shared_look(struct store_view *v, struct shared_traces *s)
{
    size_t n = 0;
    if (s->n > LOOKED_AT_MAX)
        return 0;
    for (size_t i = 0; i < s->n; i++) {
        bool is_shared;
        int err = hash_is_shared(v, s->hashes[i], &is_shared);
        if (err)
            return err;
        if (is_shared)
            s->hashes[n++] = s->hashes[i];
    }
    s->n = n;
    return shared_finish(s);
}

static int shared_of_segments(struct store_view *v, struct shared_traces **ret)
{
    struct hash_list list = {0}, room = {0};
    struct shared_traces *s = calloc(1, sizeof *s);
    uint64_t traces = 0;
    int err = s ? 0 : ERR_NOMEM;
    for (uint32_t i = 0; i < v->segments->n; i++)
        traces += v->segments->items[i]->info.traces;
    uint64_t ranges = traces / SORTED_MAX + 1, width = (UINT64_C(1) << 32) / ranges + 1;
    for (uint64_t low = 0; !err && v->segments->n > 1 && low <= UINT32_MAX; low += width) {
        uint64_t high = low + width - 1;
        err = shared_range(v, (uint32_t)low, high > UINT32_MAX ? UINT32_MAX : (uint32_t)high, &list,
                           &room, s);
    }
    if (!err)
        err = shared_finish(s);
    if (!err)
        err = shared_look(v, s);
    free(list.items);
    free(room.items);
    if (err)
        shared_free(s);
    else
        *ret = s;
    return err;
}

/* Of the list of segments once, as long as it lives; not kept when something could not be read. */
static int shared_known(struct store_view *v, const struct shared_traces **ret,
                        struct shared_traces **ret_own)
{
    struct segment_list *list = v->segments;
    struct shared_traces *s = atomic_load_explicit(&list->shared, memory_order_acquire);
    *ret_own = NULL;
    if (!s) {
        bool was_damaged = v->is_damaged;
        v->is_damaged = false;
        int err = shared_of_segments(v, &s);
        bool is_damaged = v->is_damaged;
        v->is_damaged |= was_damaged;
        if (err)
            return err;
        struct shared_traces *none = NULL;
        if (is_damaged) {
            *ret_own = s;
        } else if (!atomic_compare_exchange_strong_explicit(
                       &list->shared, &none, s, memory_order_acq_rel, memory_order_acquire)) {
            shared_free(s);
            s = none;
        }
    }
    *ret = s;
    return 0;
}

/* What two ascending lists have both. */
static int both_add(const struct hash_list *a, const struct hash_list *b, struct shared_traces *s)
{
    size_t i = 0, k = 0;
    int err = 0;
    while (!err && i < a->n && k < b->n) {
        uint32_t x = a->items[i], y = b->items[k];
        if (x == y)
            err = shared_add(s, x);
        i += x <= y;
        k += y <= x;
    }
    return err;
}

static int memtable_hashes(const struct memtable *mt, struct hash_list *list,
                           struct hash_list *room)
{
    uint32_t n = intern_count(&mt->traces);
    int err = 0;
    for (uint32_t i = 0; !err && i < n; i++)
        err = hash_list_add(list,
                            segment_trace_hash((const uint8_t *)intern_get(&mt->traces, i).ptr));
    return !err && n ? hash_list_sort(list, room) : err;
}

/* What the memtables share with each other and with segments, and what segments share. */
static int shared_make(struct store_view *v, struct shared_traces **ret)
{
    const struct shared_traces *known;
    struct shared_traces *own, *s = calloc(1, sizeof *s);
    struct hash_list of[2] = {{0}}, room = {0}, list = {0};
    int err = s ? shared_known(v, &known, &own) : ERR_NOMEM;
    if (err) {
        shared_free(s);
        return err;
    }
    for (size_t i = 0; !err && i < known->n; i++)
        err = shared_add(s, known->hashes[i]);
    for (int m = 0; !err && m < 2; m++)
        if (v->memtables[m] && v->rows[m])
            err = memtable_hashes(v->memtables[m], &of[m], &room);
    if (!err)
        err = both_add(&of[0], &of[1], s);
    for (uint32_t i = 0; !err && (of[0].n || of[1].n) && i < v->segments->n; i++) {
        struct segment *seg;
        list.n = 0;
        err = view_reader(v, i, &seg);
        if (!err)
            err = segment_trace_hashes(seg, 0, UINT32_MAX, &list);
        err = view_pass_damage(v, i, err);
        for (int m = 0; !err && m < 2; m++)
            err = both_add(&of[m], &list, s);
    }
    if (!err)
        err = shared_finish(s);
    free(of[0].items);
    free(of[1].items);
    free(room.items);
    free(list.items);
    shared_free(own);
    if (err)
        shared_free(s);
    else
        *ret = s;
    return err;
}

static int memtables_match(struct store_view *v, struct matching *m)
{
    int err = 0;
    for (int i = 0; i < 2 && !err; i++) {
        const struct memtable *mt = v->memtables[i];
        if (!mt || !v->rows[i])
            continue;
        if (range_misses(m->match->start_min_ns, m->match->start_max_ns,
                         atomic_load(&mt->start_min_ns), atomic_load(&mt->start_max_ns))) {
            m->cost->parts++;
            m->cost->parts_pruned++;
            continue;
        }
        err = memtable_match(mt, v->rows[i], m);
    }
    return err;
}

static int segments_match(struct store_view *v, struct matching *m)
{
    int err = 0;
    for (uint32_t i = 0; i < v->segments->n && !err; i++) {
        const struct segment_info *info = &v->segments->items[i]->info;
        struct segment *seg;
        bool damaged = false;
        if (range_misses(m->match->start_min_ns, m->match->start_max_ns, info->start_min_ns,
                         info->start_max_ns)) {
            m->cost->parts++;
            m->cost->parts_pruned++;
            continue;
        }
        err = view_reader(v, i, &seg);
        if (err == ERR_CORRUPT)
            damaged = true;
        else if (!err)
            err = segment_match(seg, m, &damaged);
        if (damaged) {
            m->cost->parts_damaged++;
            err = err == ERR_CORRUPT ? 0 : err;
            (void)!view_pass_damage(v, i, ERR_CORRUPT);
        }
    }
    return err;
}

int store_match(struct store_view *view, struct trace_match *match, match_fn *fn, void *arg,
                struct scan_cost *ret_cost)
{
    struct scan_cost cost = {0};
    struct predicate each[MATCH_FILTERS_MAX];
    struct filter *filter = NULL;
    struct shared_traces *shared = NULL;
    unsigned leaves;
    if (match->n_filters > MATCH_FILTERS_MAX)
        return ERR_INVALID;
    for (size_t k = 0; k < match->n_filters; k++)
        each[k] = *match->filters[k];
    /* One tree of them all, so that each leaf has a number of its own. */
    struct predicate all = {.op = PREDICATE_OR, .children = each, .n_children = match->n_filters};
    int err = filter_new(&all, &filter, &leaves);
    if (!err)
        err = shared_make(view, &shared);
    struct matching m = {match, filter ? filter->children : NULL, leaves, shared, fn, arg, &cost,
                         0};
    if (!err)
        err = memtables_match(view, &m);
    if (!err)
        err = segments_match(view, &m);
    filter_free(filter);
    shared_free(shared);
    if (ret_cost)
        *ret_cost = cost;
    return err;
}
