/* Some of the spans behind the samples of a metric, while they are chosen. Inside src/query only. */
#ifndef QUERY_METRICS_EXEMPLARS_H
#define QUERY_METRICS_EXEMPLARS_H

#include "query/metrics.h"

/* The time is cut into slots, each of which gives PER_SLOT spans of different traces: those that are looked
 * at first, but of the series that have the fewest. */
struct metrics_exemplars {
    struct chosen_exemplar *chosen; /* at most `most` */
    size_t n, most;                 /* 0: none are wanted */
    size_t n_slots;
    uint64_t start_ns, end_ns, slot_ns; /* the end not included */
    uint16_t *offered;                  /* by slot: how many were looked at */
};

struct chosen_exemplar {
    struct metrics_exemplar exemplar;
    size_t row, slot; /* of its series in the table */
};

/* `most` is at most METRICS_EXEMPLARS_MAX; memory comes from `arena`. */
MUST_USE int metrics_exemplars_init(struct metrics_exemplars *x, size_t most, uint64_t start_ns,
                                    uint64_t end_ns, struct arena *arena);
/* False: no span that starts then is worth looking at any more. */
bool metrics_exemplars_want(const struct metrics_exemplars *x, uint64_t start_ns);
/* A span of the series `row`, which may be chosen; its strings are copied to `out` then. */
MUST_USE int metrics_exemplars_offer(struct metrics_exemplars *x,
                                     const struct metrics_exemplar *span, size_t row,
                                     struct arena *out);
/* Those of a row, by time, in `out`. */
MUST_USE int metrics_exemplars_of(const struct metrics_exemplars *x, size_t row, struct arena *out,
                                  struct metrics_exemplar **ret, size_t *ret_n);

/* At the end: what has no value of its own gets that of the sample of its time, and goes where there is none. With
 * `all` the values of the spans say nothing any more, since the samples were calculated from. */
void metrics_exemplars_settle(struct metrics_result *set, bool all);

#endif
