/* Series: what a metrics query ({ } | rate() by (name)) says of the spans of a time. */
#ifndef QUERY_METRICS_H
#define QUERY_METRICS_H

#include "query/traceql.h"

#define METRICS_STEPS_MAX 11000
#define METRICS_SERIES_MAX 100000
#define METRICS_CELLS_MAX ((size_t)2 << 20) /* samples of all series */
#define METRICS_COMPARE_VALUES_MAX 1000 /* of an attribute; further ones count in its total only */
#define METRICS_TRACES_MAX ((size_t)4 << 20) /* looked at whole */
#define METRICS_EXEMPLARS_MAX 100            /* of all series */

struct metrics {
    const struct traceql *query; /* with a `metric` */
    /* Of the span's start: from `start_ns` up to but not including `end_ns`, both moved outwards to
     * whole steps. */
    uint64_t start_ns, end_ns, step_ns;
    uint64_t timeout_ns; /* 0: none */
    bool by_rows;        /* for tests: counts span by span. The result is the same */
    /* The first step begins at `start_ns` itself, and the last one covers the end: only that is moved. */
    bool from_start;
    /* So many spans are told beside the samples; more than METRICS_EXEMPLARS_MAX are not. */
    size_t exemplars;
};

struct metrics_label {
    struct str name;
    struct value value; /* a string, a truth value, a number, or VALUE_NONE: the spans have none */
};

/* One of the spans of a series, spread over the time, each of another trace. */
struct metrics_exemplar {
    struct trace_id trace_id;
    struct span_id span_id;
    uint64_t start_ns, duration_ns;
    struct str service, name;
    double value; /* what was measured of it; where nothing is, the sample of its time */
};

struct metrics_series {
    const struct metrics_label *labels;
    size_t n_labels;
    double *samples;                    /* one a step; NAN: there is none */
    struct metrics_exemplar *exemplars; /* by time; none in compare() */
    size_t n_exemplars;
};

struct metrics_result {
    struct metrics_series *series; /* by labels */
    size_t n;
    size_t n_steps;
    uint64_t start_ns,
        step_ns; /* sample i is of the spans from start + i * step on, for one step */
    struct scan_cost cost;
    uint64_t traces_read;
    uint64_t elapsed_ns;
};

/* Everything in the result lives in `arena`. Durations are in seconds. Counts, sums, averages, least
 * and greatest are exact; quantiles are within 0.8 % of a value that a span has. ERR_INVALID (no
 * metric, no time, a step of 0), ERR_TOO_LARGE (more than the limits above), ERR_TIMEOUT, ERR_NOMEM,
 * and what the store says. */
MUST_USE int metrics_run(struct store_view *view, const struct metrics *metrics,
                         struct arena *arena, struct metrics_result *ret_result,
                         struct error_detail *ret_detail);

/* How many exemplars a query wants: what with(exemplars=...) says, else `asked`. */
size_t metrics_exemplars_asked(const struct traceql *query, size_t asked);

#endif
