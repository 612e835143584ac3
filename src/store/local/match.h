/* store_match, part by part. */
#ifndef STORE_LOCAL_MATCH_H
#define STORE_LOCAL_MATCH_H

#include "store/filter.h"
#include "store/local/memtable.h"
#include "store/local/segment.h"
#include "store/local/shared.h"

/* What every part is asked. */
struct matching {
    struct trace_match *match;
    const struct filter *filters; /* match->n_filters of them */
    unsigned leaves;              /* of all filters together */
    const struct shared_traces *shared;
    match_fn *fn;
    void *arg;
    struct scan_cost *cost;
    int answer; /* what the callback returned last */
};

/* A group that is damaged is passed over, and told. */
MUST_USE int segment_match(struct segment *seg, struct matching *m, bool *ret_damaged);
MUST_USE int memtable_match(const struct memtable *mt, uint32_t rows, struct matching *m);

/* The hashes of its traces from `low` to `high`, both included, in order. */
MUST_USE int segment_trace_hashes(struct segment *seg, uint32_t low, uint32_t high,
                                  struct hash_list *list);

/* Adds the ids of its traces that have this hash; n becomes more than IDS_OF_HASH_MAX when these do not fit. */
enum { IDS_OF_HASH_MAX = 16 };
struct ids_of_hash {
    struct trace_id items[IDS_OF_HASH_MAX];
    uint32_t n;
};
MUST_USE int segment_ids_of_hash(struct segment *seg, uint32_t hash, struct ids_of_hash *ids);

#endif
