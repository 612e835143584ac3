/* A part knows its resources by number, and each row its number: rows are counted by number, with the first and the last
 * start; then each number that has spans is one look-up by fingerprint. Two resources whose fingerprints collide
 * would be shown as one: among 100,000 the chance is 3 in 10^10. */
#include "store/local/resources.h"

#include <stdlib.h>

#include "base/clock.h"
#include "store/local/codec.h"
#include "store/local/memtable.h"
#include "store/local/segment_scan.h"

enum { SLOTS_FIRST = 256, ROWS_BETWEEN_LOOKS = 1 << 16 };

/* Of the spans of a number. */
struct seen {
    uint64_t n, first, last;
};

int resource_set_init(struct resource_set *set, const struct store_resources *which,
                      struct arena *arena)
{
    *set = (struct resource_set){.which = which, .arena = arena, .n_slots = SLOTS_FIRST};
    set->until_ns = which->timeout_ns ? clock_monotonic_ns() + which->timeout_ns : 0;
    set->slots = calloc(set->n_slots, sizeof *set->slots);
    return set->slots ? 0 : ERR_NOMEM;
}

void resource_set_done(struct resource_set *set)
{
    free(set->slots);
    free(set->items);
}

static bool is_over(const struct resource_set *set)
{
    return set->until_ns && clock_monotonic_ns() > set->until_ns;
}

static void see(const struct resource_set *set, struct seen *s, uint64_t start)
{
    if (start < set->which->start_min_ns ||
        (set->which->start_max_ns && start > set->which->start_max_ns))
        return;
    s->first = !s->n || start < s->first ? start : s->first;
    s->last = start > s->last ? start : s->last;
    s->n++;
}

/* ---- the set ---- */

static uint32_t *slot_of(const struct resource_set *set, uint64_t fingerprint)
{
    size_t at = hash_mix64(fingerprint ^ hash_secret()) & (set->n_slots - 1);
    while (set->slots[at] && set->items[set->slots[at] - 1].fingerprint != fingerprint)
        at = (at + 1) & (set->n_slots - 1);
    return &set->slots[at];
}

static bool grow(struct resource_set *set)
{
    if (set->n == set->cap) {
        size_t cap = set->cap ? 2 * set->cap : 64;
        struct store_resource *items = realloc(set->items, cap * sizeof *items);
        if (!items)
            return false;
        set->items = items;
        set->cap = cap;
    }
    if (2 * (set->n + 1) < set->n_slots)
        return true;
    uint32_t *slots = calloc(2 * set->n_slots, sizeof *slots);
    if (!slots)
        return false;
    free(set->slots);
    set->slots = slots;
    set->n_slots *= 2;
    for (size_t i = 0; i < set->n; i++)
        *slot_of(set, set->items[i].fingerprint) = (uint32_t)i + 1;
    return true;
}

/* A copy that needs neither part nor view. */
static const struct resource *resource_copy(struct resource_set *set, const struct resource *from)
{
    struct buf bytes = BUF_INIT;
    struct resource *to = arena_alloc(set->arena, sizeof *to);
    codec_put_resource(&bytes, from);
    struct str kept = buf_ok(&bytes) ? arena_str(set->arena, buf_as_str(&bytes)) : STR_NONE;
    buf_done(&bytes);
    if (!to || !kept.ptr)
        return NULL;
    struct codec_reader r = codec_reader(kept, set->arena);
    codec_resource(&r, to);
    return codec_finish(&r) ? NULL : to;
}

static int add(struct resource_set *set, const struct resource *resource, const struct seen *s)
{
    struct str service = set->which->service;
    if (!s->n || (service.len && !str_eq(service, resource->service_name)))
        return 0;
    uint64_t fingerprint = resource_fingerprint(resource);
    uint32_t *slot = slot_of(set, fingerprint);
    if (!*slot) {
        if (set->n == STORE_RESOURCES_MAX) {
            set->is_cut = true;
            return 0;
        }
        struct store_resource item = {.fingerprint = fingerprint,
                                      .resource = resource_copy(set, resource),
                                      .start_first_ns = s->first};
        if (!item.resource || !grow(set))
            return ERR_NOMEM;
        set->items[set->n] = item;
        *(slot = slot_of(set, fingerprint)) = (uint32_t)++set->n;
    }
    struct store_resource *r = &set->items[*slot - 1];
    r->span_count += s->n;
    r->start_first_ns = s->first < r->start_first_ns ? s->first : r->start_first_ns;
    r->start_last_ns = s->last > r->start_last_ns ? s->last : r->start_last_ns;
    return 0;
}

static int order(const void *a, const void *b)
{
    const struct store_resource *x = a, *y = b;
    if (x->start_last_ns != y->start_last_ns)
        return x->start_last_ns > y->start_last_ns ? -1 : 1;
    return x->fingerprint < y->fingerprint ? -1 : x->fingerprint > y->fingerprint;
}

int resource_set_list(struct resource_set *set, struct store_resource **ret, size_t *ret_n)
{
    struct store_resource *items = arena_array(set->arena, set->n, sizeof *items);
    if (!items)
        return ERR_NOMEM;
    if (set->n) {
        qsort(set->items, set->n, sizeof *set->items, order);
        memcpy(items, set->items, set->n * sizeof *items);
    }
    *ret = items;
    *ret_n = set->n;
    return 0;
}

/* ---- parts ---- */

int memtable_resources(const struct memtable *mt, uint32_t rows, struct resource_set *set)
{
    uint32_t n = intern_count(&mt->resources);
    struct seen *seen = calloc((size_t)n + 1, sizeof *seen);
    struct arena scratch = ARENA_INIT;
    int err = seen ? 0 : ERR_NOMEM;
    for (uint32_t i = 0; !err && i < rows; i++) {
        const struct mem_row *row = memtable_row(mt, i);
        see(set, &seen[row->resource], row->start_ns);
        if (i % ROWS_BETWEEN_LOOKS == 0 && is_over(set))
            err = ERR_TIMEOUT;
    }
    for (uint32_t i = 0; !err && i < n; i++) {
        struct resource resource;
        if (!seen[i].n)
            continue;
        arena_reset(&scratch);
        struct codec_reader r = codec_reader(intern_get(&mt->resources, i), &scratch);
        codec_resource(&r, &resource);
        err = codec_finish(&r);
        if (!err)
            err = add(set, &resource, &seen[i]);
    }
    arena_done(&scratch);
    free(seen);
    return err;
}

static int group_see(struct scanner *sc, struct resource_set *set, struct seen *seen)
{
    const struct segment *seg = sc->seg;
    int err = scanner_operation(sc);
    if (!err)
        err = scanner_starts(sc);
    for (uint32_t i = 0; !err && i < sc->kept->g.group->n; i++)
        see(set, &seen[seg->operations[sc->operation[i]].resource], sc->start[i]);
    return err;
}

int segment_resources(struct segment *seg, struct resource_set *set)
{
    struct scanner sc;
    int err = scanner_init(&sc, seg, 0);
    if (err)
        return err;
    struct seen *seen = NULL;
    bool is_damaged = false;
    err = segment_operations_read(seg);
    if (!err && !(seen = calloc((size_t)seg->n_resources + 1, sizeof *seen)))
        err = ERR_NOMEM;
    for (uint32_t i = 0; !err && i < seg->n_groups; i++) {
        if (group_misses(&seg->groups[i], set->which->start_min_ns, set->which->start_max_ns))
            continue;
        err = is_over(set) ? ERR_TIMEOUT : scanner_enter(&sc, &seg->groups[i]);
        if (!err)
            err = group_see(&sc, set, seen);
        is_damaged |= err == ERR_CORRUPT;
        if (err == ERR_CORRUPT)
            err = 0; /* the other groups can be read */
    }
    for (uint32_t i = 0; !err && i < seg->n_resources; i++) {
        const struct resource *resource;
        if (!seen[i].n)
            continue;
        err = segment_resource(seg, i, &resource);
        if (!err)
            err = add(set, resource, &seen[i]);
    }
    free(seen);
    scanner_done(&sc);
    return err ? err : is_damaged ? ERR_CORRUPT : 0;
}
