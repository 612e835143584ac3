/* Some of the spans behind the samples of a metric, while they are chosen. Inside src/query only. */
#ifndef QUERY_METRICS_EXEMPLARS_H
#define QUERY_METRICS_EXEMPLARS_H

#include "query/metrics.h"

struct offered_exemplar {
    struct metrics_exemplar exemplar;
    size_t row, slot; /* of its series in the table; of the time */
};

/* The time is cut into slots. Of each some spans are looked at, and in the end a few are chosen: of traces that are not
 * there yet, of the series that have the fewest, and then in the order of their ids, so that the same spans
 * give the same choice. */
struct metrics_exemplars {
    struct arena *arena;                /* of all below */
    size_t most;                        /* 0: none are wanted */
    uint64_t start_ns, end_ns, slot_ns; /* the end not included */
    size_t n_slots;
    uint16_t *in_slot; /* how many were offered */
    struct offered_exemplar *offered;
    size_t n, cap;
    struct offered_exemplar *chosen; /* at most `most` */
    size_t n_chosen;
};

/* `most` is at most METRICS_EXEMPLARS_MAX; memory comes from `arena`. */
MUST_USE int metrics_exemplars_init(struct metrics_exemplars *x, size_t most, uint64_t start_ns,
                                    uint64_t end_ns, struct arena *arena);
/* False: no span that starts then is worth looking at any more. */
bool metrics_exemplars_want(const struct metrics_exemplars *x, uint64_t start_ns);
/* A span of the series `row`; its strings are copied to `out`. */
MUST_USE int metrics_exemplars_offer(struct metrics_exemplars *x,
                                     const struct metrics_exemplar *span, size_t row,
                                     struct arena *out);
/* Among what was offered, of `n_rows` series. */
MUST_USE int metrics_exemplars_choose(struct metrics_exemplars *x, size_t n_rows);
/* Those that were chosen of a row, by time, in `out`. */
MUST_USE int metrics_exemplars_of(const struct metrics_exemplars *x, size_t row, struct arena *out,
                                  struct metrics_exemplar **ret, size_t *ret_n);

/* At the end: what has no value of its own gets that of the sample of its time, and goes where there is none. With
 * `all` the values of the spans say nothing any more, since the samples were calculated from. */
void metrics_exemplars_settle(struct metrics_result *set, bool all);

#endif
