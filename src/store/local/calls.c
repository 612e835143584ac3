/* Who calls whom: for each span whose parent belongs to another service, a call from that service to its own.
 *
 * A segment knows the parent of a row by its place in the trace, and the service of a row by its operation. So the
 * services of all rows are put into one array (4 bytes a row, for as long as the segment is counted), and each row looks
 * its parent up there: no ids, no attributes, no traces put together. In a memtable an open table of the rows by
 * trace and span id does the same.
 *
 * A parent may lie in another part, when spans came late. Such spans are noted (at most FOREIGN_CALLS_MAX), and
 * their parents looked for in the outlines of their traces at the end. */
#include "store/local/calls.h"

#include "base/clock.h"
#include "base/hash.h"
#include "store/local/memtable.h"
#include "store/local/segment_read.h"

#include <stdlib.h>
#include <string.h>

enum { ROWS_BETWEEN_LOOKS = 1 << 16 }; /* at the clock */

static bool is_over(const struct call_set *set)
{
    return set->until_ns && clock_monotonic_ns() > set->until_ns;
}

static bool is_in_range(const struct call_set *set, uint64_t start_ns)
{
    return start_ns >= set->start_min_ns && start_ns <= set->start_max_ns;
}

/* ---- the set ---- */

int call_set_init(struct call_set *set, struct arena *arena)
{
    enum { SLOTS = 1024 };
    set->arena = arena;
    set->own = (struct arena)ARENA_INIT;
    set->services = arena_array(arena, CALL_SERVICES_MAX, sizeof *set->services);
    set->service_slots = arena_zalloc(&set->own, 2 * CALL_SERVICES_MAX * sizeof(uint32_t));
    set->pairs = calloc(SLOTS, sizeof *set->pairs);
    set->pair_slots = SLOTS;
    return set->services && set->service_slots && set->pairs ? 0 : ERR_NOMEM;
}

void call_set_done(struct call_set *set)
{
    free(set->pairs);
    free(set->foreign);
    arena_done(&set->own);
}

/* CALL_SERVICES_MAX: there are too many. */
static int service_number(struct call_set *set, struct str name, uint32_t *ret)
{
    size_t mask = 2 * CALL_SERVICES_MAX - 1;
    size_t i = hash_bytes_seed(name.ptr, name.len, hash_secret()) & mask;
    for (; set->service_slots[i]; i = (i + 1) & mask)
        if (str_eq(set->services[set->service_slots[i] - 1], name)) {
            *ret = set->service_slots[i] - 1;
            return 0;
        }
    *ret = CALL_SERVICES_MAX;
    if (set->n_services == CALL_SERVICES_MAX) {
        set->is_cut = true;
        return 0;
    }
    struct str copy = arena_str(set->arena, name);
    if (!copy.ptr)
        return ERR_NOMEM;
    set->services[set->n_services] = copy;
    *ret = (uint32_t)set->n_services++;
    set->service_slots[i] = *ret + 1;
    return 0;
}

static struct call_pair *pair_slot(const struct call_set *set, uint32_t caller, uint32_t callee)
{
    size_t mask = set->pair_slots - 1;
    size_t i = hash_mix64((uint64_t)caller << 32 | callee) & mask;
    while (set->pairs[i].caller &&
           (set->pairs[i].caller != caller + 1 || set->pairs[i].callee != callee + 1))
        i = (i + 1) & mask;
    return &set->pairs[i];
}

static int pairs_grow(struct call_set *set)
{
    struct call_pair *old = set->pairs;
    size_t n = set->pair_slots;
    set->pairs = calloc(2 * n, sizeof *old);
    if (!set->pairs) {
        set->pairs = old;
        return ERR_NOMEM;
    }
    set->pair_slots = 2 * n;
    for (size_t i = 0; i < n; i++)
        if (old[i].caller)
            *pair_slot(set, old[i].caller - 1, old[i].callee - 1) = old[i];
    free(old);
    return 0;
}

static int pair_add(struct call_set *set, uint32_t caller, uint32_t callee, bool is_error)
{
    if (caller == callee || caller == CALL_SERVICES_MAX || callee == CALL_SERVICES_MAX)
        return 0;
    struct call_pair *p = pair_slot(set, caller, callee);
    if (!p->caller) {
        if (set->n_pairs == CALL_PAIRS_MAX) {
            set->is_cut = true;
            return 0;
        }
        if (2 * (set->n_pairs + 1) > set->pair_slots) {
            int err = pairs_grow(set);
            if (err)
                return err;
            p = pair_slot(set, caller, callee);
        }
        p->caller = caller + 1;
        p->callee = callee + 1;
        set->n_pairs++;
    }
    p->count++;
    p->errors += is_error;
    return 0;
}

static int foreign_add(struct call_set *set, const void *trace_id, const void *parent_id,
                       uint32_t callee, bool is_error)
{
    if (set->n_foreign == FOREIGN_CALLS_MAX) {
        set->is_cut = true;
        return 0;
    }
    if (set->n_foreign == set->cap_foreign) {
        size_t cap = set->cap_foreign ? 2 * set->cap_foreign : 256;
        struct foreign_call *items = realloc(set->foreign, cap * sizeof *items);
        if (!items)
            return ERR_NOMEM;
        set->foreign = items;
        set->cap_foreign = cap;
    }
    struct foreign_call *f = &set->foreign[set->n_foreign++];
    *f = (struct foreign_call){.callee = callee, .is_error = is_error};
    memcpy(f->trace_id.bytes, trace_id, TRACE_ID_SIZE);
    memcpy(f->parent_id.bytes, parent_id, SPAN_ID_SIZE);
    return 0;
}

static int by_names(const void *a, const void *b)
{
    const struct store_call *x = a, *y = b;
    int order = str_cmp(x->caller, y->caller);
    return order ? order : str_cmp(x->callee, y->callee);
}

int call_set_list(struct call_set *set, struct store_call **ret_calls, size_t *ret_n)
{
    struct store_call *calls = arena_array(set->arena, set->n_pairs, sizeof *calls);
    size_t n = 0;
    if (!calls)
        return ERR_NOMEM;
    for (size_t i = 0; i < set->pair_slots; i++) {
        const struct call_pair *p = &set->pairs[i];
        if (p->caller)
            calls[n++] = (struct store_call){
                .caller = set->services[p->caller - 1],
                .callee = set->services[p->callee - 1],
                .count = p->count,
                .errors = p->errors,
            };
    }
    if (n)
        qsort(calls, n, sizeof *calls, by_names);
    *ret_calls = calls;
    *ret_n = n;
    return 0;
}

/* ---- a memtable ---- */

static uint32_t *row_slot(const struct row_table *t, uint32_t trace, const struct span_id *id)
{
    uint64_t bits;
    memcpy(&bits, id->bytes, sizeof bits);
    uint32_t i = (uint32_t)hash_mix64(bits ^ hash_mix64(trace ^ hash_secret())) & t->mask;
    for (; t->slots[i]; i = (i + 1) & t->mask) {
        const struct mem_row *row = memtable_row(t->mt, t->slots[i] - 1);
        if (row->trace == trace && !memcmp(row->span_id.bytes, id->bytes, SPAN_ID_SIZE))
            break;
    }
    return &t->slots[i];
}

int row_table_init(struct row_table *t, const struct memtable *mt, uint32_t rows)
{
    *t = (struct row_table){.mt = mt, .mask = 15};
    while (t->mask < 2 * (uint64_t)rows)
        t->mask = 2 * t->mask + 1;
    t->slots = calloc((size_t)t->mask + 1, sizeof *t->slots);
    if (!t->slots)
        return ERR_NOMEM;
    for (uint32_t i = 0; i < rows; i++) {
        const struct mem_row *row = memtable_row(mt, i);
        uint32_t *slot = row_slot(t, row->trace, &row->span_id);
        if (!*slot)
            *slot = i + 1;
    }
    return 0;
}

void row_table_done(struct row_table *t)
{
    free(t->slots);
}

uint32_t row_table_find(const struct row_table *t, uint32_t trace, const struct span_id *id)
{
    return *row_slot(t, trace, id);
}

/* The numbers of the services in the set, by number of their name; asked for once each. */
static int mem_service(const struct memtable *mt, struct call_set *set, uint32_t *numbers,
                       const struct mem_row *row, uint32_t *ret)
{
    uint32_t name = memtable_service(mt, row->resource);
    int err = 0;
    if (!numbers[name]) {
        err = service_number(set, intern_get(&mt->names, name), ret);
        if (!err)
            numbers[name] = *ret + 1;
    }
    *ret = numbers[name] - 1;
    return err;
}

static int mem_row_call(const struct row_table *t, uint32_t i, struct call_set *set,
                        uint32_t *numbers)
{
    const struct mem_row *row = memtable_row(t->mt, i);
    uint32_t callee, caller;
    if (span_id_is_zero(&row->parent_id) || !is_in_range(set, row->start_ns))
        return 0;
    bool is_error = row->status_code == STATUS_ERROR;
    int err = mem_service(t->mt, set, numbers, row, &callee);
    if (err)
        return err;
    uint32_t parent = row_table_find(t, row->trace, &row->parent_id);
    if (!parent)
        return foreign_add(set, intern_get(&t->mt->traces, row->trace).ptr, row->parent_id.bytes,
                           callee, is_error);
    err = mem_service(t->mt, set, numbers, memtable_row(t->mt, parent - 1), &caller);
    return err ? err : pair_add(set, caller, callee, is_error);
}

int memtable_calls(const struct memtable *mt, uint32_t rows, struct call_set *set)
{
    struct row_table t;
    uint32_t *numbers = calloc((size_t)intern_count(&mt->names) + 1, sizeof *numbers);
    int err = row_table_init(&t, mt, rows);
    if (!err && !numbers)
        err = ERR_NOMEM;
    for (uint32_t i = 0; i < rows && !err; i++) {
        err = mem_row_call(&t, i, set, numbers);
        if (!err && i % ROWS_BETWEEN_LOOKS == 0 && is_over(set))
            err = ERR_TIMEOUT;
    }
    row_table_done(&t);
    free(numbers);
    return err;
}

/* ---- a segment ---- */

struct seg_calls {
    struct call_set *set;
    struct arena held;
    uint32_t *service_of_operation; /* number in the set */
    uint32_t *services;             /* by row */
    struct segment_traces_all traces;
    bool is_inside; /* all of it is in the range */
    uint32_t trace; /* of the row that is looked at */
};

static int seg_services(struct segment *seg, struct seg_calls *c)
{
    int err = segment_operations_read(seg);
    if (err)
        return err;
    c->service_of_operation = arena_array(&c->held, seg->n_operations, sizeof(uint32_t));
    c->services = arena_array(&c->held, seg->n_rows, sizeof(uint32_t));
    if (!c->service_of_operation || !c->services)
        return ERR_NOMEM;
    for (uint32_t i = 0; i < seg->n_operations && !err; i++) {
        const struct resource *resource;
        err = segment_resource(seg, seg->operations[i].resource, &resource);
        if (!err)
            err = service_number(c->set, resource->service_name, &c->service_of_operation[i]);
    }
    return err;
}

static int group_services(struct segment *seg, struct seg_calls *c, const struct segment_group *sg)
{
    struct group_read g;
    uint64_t *operations;
    arena_reset(&seg->scratch);
    int err = segment_group_read(seg, sg, &seg->scratch, &g);
    if (!err)
        err = segment_numbers(seg, g.fixed[FIXED_OPERATION], sg->n, &seg->scratch, &operations);
    for (uint32_t i = 0; !err && i < sg->n; i++) {
        if (operations[i] >= seg->n_operations)
            return segment_fail(seg, ERR_CORRUPT, g.fixed[FIXED_OPERATION].offset,
                                "the operations of a group");
        c->services[sg->first_row + i] = c->service_of_operation[operations[i]];
    }
    return err;
}

struct group_links {
    uint64_t *parents, *status, *starts; /* the last: NULL when nobody asks */
    struct codec_reader foreign;
};

static int group_links_read(struct segment *seg, struct seg_calls *c,
                            const struct segment_group *sg, struct group_links *ret,
                            uint64_t *ret_offset)
{
    struct group_read g;
    arena_reset(&seg->scratch);
    ret->starts = NULL;
    int err = segment_group_read(seg, sg, &seg->scratch, &g);
    if (err)
        return err;
    *ret_offset = g.fixed[FIXED_PARENT].offset;
    err = segment_block(seg, g.fixed[FIXED_FOREIGN_PARENTS], &seg->scratch, &ret->foreign);
    if (!err)
        err = segment_numbers(seg, g.fixed[FIXED_PARENT], sg->n, &seg->scratch, &ret->parents);
    if (!err)
        err = segment_numbers(seg, g.fixed[FIXED_STATUS], sg->n, &seg->scratch, &ret->status);
    if (!err && !c->is_inside)
        err = segment_numbers(seg, g.fixed[FIXED_START], sg->n, &seg->scratch, &ret->starts);
    return err;
}

static int group_calls(struct segment *seg, struct seg_calls *c, const struct segment_group *sg)
{
    struct group_links links;
    uint64_t offset = 0, start = 0;
    int err = group_links_read(seg, c, sg, &links, &offset);
    if (err)
        return err;
    while (c->traces.first_rows[c->trace + 1] <= sg->first_row)
        c->trace++;
    start = c->traces.starts[c->trace];
    for (uint32_t i = 0; i < sg->n && !err; i++) {
        uint32_t row = sg->first_row + i;
        while (row == c->traces.first_rows[c->trace + 1])
            start = c->traces.starts[++c->trace];
        uint64_t place = links.parents[i];
        uint32_t first = c->traces.first_rows[c->trace],
                 n = c->traces.first_rows[c->trace + 1] - first;
        const uint8_t *parent = NULL;
        if (place == SEGMENT_FOREIGN_PARENT)
            parent = codec_bytes(&links.foreign, SPAN_ID_SIZE);
        if (place == SEGMENT_FOREIGN_PARENT ? !parent : place > n)
            return segment_fail(seg, ERR_CORRUPT, offset, "a parent");
        if (links.starts && !is_in_range(c->set, start += links.starts[i]))
            continue;
        bool is_error = links.status[i] == STATUS_ERROR;
        if (parent)
            err = foreign_add(c->set, c->traces.ids[c->trace].bytes, parent, c->services[row],
                              is_error);
        else if (place)
            err = pair_add(c->set, c->services[first + place - 1], c->services[row], is_error);
    }
    return err;
}

int segment_calls(struct segment *seg, bool is_inside, struct call_set *set)
{
    struct seg_calls c = {.set = set, .held = ARENA_INIT, .is_inside = is_inside};
    int err = seg_services(seg, &c);
    if (!err)
        err = segment_traces_all(seg, &c.held, &c.traces);
    for (uint32_t i = 0; i < seg->n_groups && !err; i++)
        err = is_over(set) ? ERR_TIMEOUT : group_services(seg, &c, &seg->groups[i]);
    for (uint32_t i = 0; i < seg->n_groups && !err; i++) {
        const struct segment_group *sg = &seg->groups[i];
        if (sg->start_max < set->start_min_ns || sg->start_min > set->start_max_ns)
            continue;
        err = is_over(set) ? ERR_TIMEOUT : group_calls(seg, &c, sg);
    }
    arena_done(&c.held);
    return err;
}

/* ---- parents in other parts ---- */

static int by_trace(const void *a, const void *b)
{
    const struct foreign_call *x = a, *y = b;
    return trace_id_cmp(&x->trace_id, &y->trace_id);
}

static int by_span_id(const void *a, const void *b)
{
    const struct store_outline *x = a, *y = b;
    return memcmp(x->span_id.bytes, y->span_id.bytes, SPAN_ID_SIZE);
}

static int foreign_trace(struct store_view *view, struct call_set *set,
                         const struct foreign_call *calls, size_t n)
{
    struct store_outline *spans;
    size_t n_spans;
    int err = store_trace_outline(view, &calls->trace_id, &spans, &n_spans);
    if (err)
        return err == ERR_NOT_FOUND || err == ERR_CORRUPT ? 0 : err;
    if (n_spans)
        qsort(spans, n_spans, sizeof *spans, by_span_id);
    for (size_t i = 0; i < n && !err && n_spans; i++) {
        const struct store_outline key = {.span_id = calls[i].parent_id};
        const struct store_outline *parent = bsearch(&key, spans, n_spans, sizeof key, by_span_id);
        uint32_t caller;
        if (!parent)
            continue;
        err = service_number(set, parent->service, &caller);
        if (!err)
            err = pair_add(set, caller, calls[i].callee, calls[i].is_error);
    }
    free(spans);
    return err;
}

int foreign_calls(struct store_view *view, struct call_set *set)
{
    int err = 0;
    if (set->n_foreign)
        qsort(set->foreign, set->n_foreign, sizeof *set->foreign, by_trace);
    for (size_t i = 0, n; i < set->n_foreign && !err; i += n) {
        for (n = 1; i + n < set->n_foreign && !by_trace(&set->foreign[i], &set->foreign[i + n]);)
            n++;
        if (is_over(set)) {
            set->is_cut = true;
            return 0;
        }
        err = foreign_trace(view, set, &set->foreign[i], n);
    }
    return err;
}
