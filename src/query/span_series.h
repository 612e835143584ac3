/* Spans as the counters that Tempo's metrics generator and OpenTelemetry's span-metrics connector make of them,
 * for PromQL (promql.h): computed from what is stored when somebody asks.
 *
 * A counter counts from the beginning of what is stored: its sample at T is about all spans that started before T.
 * Samples lie on whole multiples of SPAN_SERIES_INTERVAL_MS since the epoch. The first one of a series is a 0, one
 * interval before that which counts its first span (Tempo writes the same 0), and there is one at each interval up to
 * now: no series goes stale.
 *
 * Source: tempo, modules/generator/processor (spanmetrics, servicegraphs: names, labels, buckets, which spans make an
 * edge); opentelemetry-collector-contrib, connector/spanmetricsconnector (names, labels, buckets). */
#ifndef QUERY_SPAN_SERIES_H
#define QUERY_SPAN_SERIES_H

#include "query/promql.h"
#include "store/store.h"

#define SPAN_SERIES_INTERVAL_MS 15000

struct span_series {
    struct store_view *view;
    uint64_t deadline_ns; /* monotonic; 0: none */
    bool labels_only;     /* which series there are; their values mean nothing */
    struct scan_cost cost;
};

/* Borrows `s`, and its view, for as long as it and what it gives are used. */
struct promql_source span_series_source(struct span_series *s, uint64_t now_ns);

struct span_metric_info {
    struct str name, type, help; /* of the family: "x_latency", without _bucket, _sum, _count */
};
/* NULL past the last. */
const struct span_metric_info *span_series_info(size_t i);
/* The names of the series themselves; ptr NULL past the last. */
struct str span_series_name(size_t i);

struct span_exemplar {
    struct promql_labels labels; /* of the series */
    struct trace_id trace_id;
    struct span_id span_id;
    double value; /* seconds, or milliseconds where the series is in them */
    uint64_t time_ns;
};

#define SPAN_EXEMPLARS_EACH_MAX 10 /* of one series */
#define SPAN_EXEMPLARS_MAX 1000
/* Spans of the series that the conditions name, spread over the time (both ends included); by labels, then time. In
 * `arena`. Only the series of spans have some. */
MUST_USE int span_series_exemplars(struct span_series *s, const struct promql_matcher *matchers,
                                   size_t n_matchers, uint64_t start_ns, uint64_t end_ns,
                                   struct arena *arena, struct span_exemplar **ret, size_t *ret_n,
                                   struct error_detail *detail);

#endif
