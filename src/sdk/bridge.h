/* Durations of spans as metrics: the bridge from traces to numbers.
 *
 * The drain shows every batch of spans to bridge_take() on its way to the exporter. Of each name,
 * kind and status the bridge keeps exact counts and a histogram of the durations in nanoseconds.
 * Series are bounded (PUG_METRICS_MAX); what finds no place is counted in one that has the attribute
 * otel.metric.overflow=true.
 *
 * Names of the metrics and attributes are those of the OpenTelemetry Collector's span metrics
 * connector: traces.span.metrics.calls, traces.span.metrics.duration (in ns, for a conversion would
 * not be exact); span.name, span.kind, status.code. */
#ifndef SDK_BRIDGE_H
#define SDK_BRIDGE_H

#include "sdk/meter.h"

/* From `now_ns` (of the epoch) on, unless it counts already: what a point says of its start must not be after
 * what it says of its time, and the first span comes in the middle of a round. */
void bridge_begin(uint64_t now_ns);
void bridge_take(const struct span_batch *batch);
void bridge_measure(struct metric_list *l);

#endif
