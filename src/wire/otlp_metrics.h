/* Metrics as OTLP: struct metric_batch to ExportMetricsServiceRequest, in protobuf and in JSON.
 * Source: opentelemetry-proto 1.x, collector/metrics/v1/metrics_service.proto and
 * metrics/v1/metrics.proto. */
#ifndef WIRE_OTLP_METRICS_H
#define WIRE_OTLP_METRICS_H

#include "base/buf.h"
#include "base/json.h"
#include "model/metric.h"

/* Appends an ExportMetricsServiceRequest. Failure is in `out`. */
void otlp_metrics_encode(const struct metric_batch *batch, struct buf *out);
/* One value: {"resourceMetrics":[...]}. */
void otlp_metrics_json_encode(const struct metric_batch *batch, struct json_writer *w);

#endif
