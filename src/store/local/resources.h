/* Who sent spans, counted over whole parts: resources.c. */
#ifndef STORE_LOCAL_RESOURCES_H
#define STORE_LOCAL_RESOURCES_H

#include "base/arena.h"
#include "store/store.h"

struct memtable;
struct segment;

struct resource_set {
    const struct store_resources *which;
    uint64_t until_ns;   /* monotonic; 0: no bound */
    struct arena *arena; /* what is returned lives here */
    struct store_resource *items;
    size_t n, cap;
    uint32_t *slots; /* open: place in `items` + 1 */
    size_t n_slots;
    bool is_cut;
};

MUST_USE int resource_set_init(struct resource_set *set, const struct store_resources *which,
                               struct arena *arena);
void resource_set_done(struct resource_set *set);
/* ERR_TIMEOUT. */
MUST_USE int memtable_resources(const struct memtable *mt, uint32_t rows, struct resource_set *set);
MUST_USE int segment_resources(struct segment *seg, struct resource_set *set);
MUST_USE int resource_set_list(struct resource_set *set, struct store_resource **ret,
                               size_t *ret_n);

#endif
