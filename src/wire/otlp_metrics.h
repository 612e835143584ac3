/* Metrics as OTLP: struct metric_batch to ExportMetricsServiceRequest, in protobuf and in JSON.
 * Source: opentelemetry-proto 1.x, collector/metrics/v1/metrics_service.proto and
 * metrics/v1/metrics.proto. */
#ifndef WIRE_OTLP_METRICS_H
#define WIRE_OTLP_METRICS_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/json.h"
#include "model/metric.h"

/* What one request held: a batch for each scope. */
struct metric_batches {
    const struct metric_batch *items;
    size_t n;
    uint64_t n_points, n_rejected; /* points */
    const char *rejected_reason;   /* of the first; NULL when there is none */
};

/* ExportMetricsServiceRequest to points that borrow from `body` and live in `arena`. Points that
 * cannot be kept (summaries, those without a value, histograms whose buckets do not fit their
 * bounds, text that is not UTF-8) are left out and counted; errors as otlp_decode's. Exemplars and
 * metadata are passed over. */
MUST_USE int otlp_metrics_decode(struct str body, struct arena *arena, struct metric_batches *ret,
                                 struct error_detail *ret_detail);
/* The same of OTLP JSON. */
MUST_USE int otlp_metrics_json_decode(struct str body, struct arena *arena,
                                      struct metric_batches *ret, struct error_detail *ret_detail);

/* Appends an ExportMetricsServiceRequest. Failure is in `out`. */
void otlp_metrics_encode(const struct metric_batch *batch, struct buf *out);
/* One value: {"resourceMetrics":[...]}. */
void otlp_metrics_json_encode(const struct metric_batch *batch, struct json_writer *w);
/* One value: a data point of a metric of that type. */
void otlp_metrics_json_encode_point(const struct metric_point *point, uint8_t type,
                                    struct json_writer *w);

#endif
