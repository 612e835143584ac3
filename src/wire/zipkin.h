/* Zipkin's v2 JSON.
 * Source: the "v2" API of openzipkin/zipkin-api (zipkin2-api.yaml); OpenTelemetry specification,
 * "OpenTelemetry to Zipkin Transformation" and "Transformation to non-OTLP Formats". */
#ifndef WIRE_ZIPKIN_H
#define WIRE_ZIPKIN_H

#include "base/json.h"
#include "model/span.h"

/* One value: a list of spans. What Zipkin has no place for (links, trace state) is left out. */
void zipkin_json_encode(const struct span_batch *batch, struct json_writer *w);

#endif
