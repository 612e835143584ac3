/* Who calls whom, counted over whole parts: calls.c. */
#ifndef STORE_LOCAL_CALLS_H
#define STORE_LOCAL_CALLS_H

#include "base/arena.h"
#include "store/store.h"

struct memtable;
struct segment;

/* A span whose parent is not in the same part. */
struct foreign_call {
    struct trace_id trace_id;
    struct span_id parent_id;
    uint32_t callee; /* service */
    bool is_error;
};

/* More are not looked for. */
#define FOREIGN_CALLS_MAX ((size_t)1 << 16)
/* Calls between more services are not told apart: those of the others are left out. */
#define CALL_SERVICES_MAX 4096
#define CALL_PAIRS_MAX ((size_t)1 << 18)

struct call_set {
    uint64_t start_min_ns, start_max_ns;
    uint64_t until_ns;   /* monotonic; 0: no bound */
    struct arena *arena; /* names are copied here */
    struct arena own;
    struct str *services; /* by number */
    uint32_t *service_slots;
    size_t n_services;
    struct call_pair {
        uint32_t caller, callee; /* + 1; 0: free */
        uint64_t count, errors;
    } * pairs;
    size_t n_pairs, pair_slots;
    struct foreign_call *foreign;
    size_t n_foreign, cap_foreign;
    bool is_cut; /* something was left out */
};

/* The rows of a memtable by trace and span id: the first of those with the same. */
struct row_table {
    const struct memtable *mt;
    uint32_t *slots; /* row + 1; 0: free */
    uint32_t mask;
};
MUST_USE int row_table_init(struct row_table *t, const struct memtable *mt, uint32_t rows);
void row_table_done(struct row_table *t);
/* Row + 1; 0: there is none. */
uint32_t row_table_find(const struct row_table *t, uint32_t trace, const struct span_id *id);

MUST_USE int call_set_init(struct call_set *set, struct arena *arena);
void call_set_done(struct call_set *set);
/* ERR_TIMEOUT. */
MUST_USE int memtable_calls(const struct memtable *mt, uint32_t rows, struct call_set *set);
MUST_USE int segment_calls(struct segment *seg, bool is_inside, struct call_set *set);
/* Those whose parents are in another part, as far as time allows. */
MUST_USE int foreign_calls(struct store_view *view, struct call_set *set);
/* By caller, then callee, in the set's arena. */
MUST_USE int call_set_list(struct call_set *set, struct store_call **ret_calls, size_t *ret_n);

#endif
