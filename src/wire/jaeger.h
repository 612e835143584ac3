/* Jaeger's thrift: what its clients send to the agent and to the collector.
 *
 * The process is the resource, with its tags as they are and serviceName as service.name. The reverse
 * of OpenTelemetry's exporter: tags span.kind, error, otel.status_code, otel.status_description,
 * otel.scope.name and otel.scope.version, w3c.tracestate become what they stand for; a log's
 * field `event` is the name of the event. The parent is parentSpanId, without one the first CHILD_OF
 * of the same trace; every other reference is a link with opentracing.ref_type.
 *
 * Source: jaegertracing/jaeger-idl, thrift/jaeger.thrift and thrift/agent.thrift; OpenTelemetry
 * specification, "OpenTelemetry to Jaeger Transformation". */
#ifndef WIRE_JAEGER_H
#define WIRE_JAEGER_H

#include "base/arena.h"
#include "model/span.h"

/* As otlp_decode. A Batch in the binary protocol: POST /api/traces. */
MUST_USE int jaeger_thrift_decode(struct str body, struct arena *arena,
                                  struct span_batch *ret_batch, struct error_detail *ret_detail);
/* A call of emitBatch: a datagram to the agent. */
MUST_USE int jaeger_compact_decode(struct str body, struct arena *arena,
                                   struct span_batch *ret_batch, struct error_detail *ret_detail);
MUST_USE int jaeger_binary_decode(struct str body, struct arena *arena,
                                  struct span_batch *ret_batch, struct error_detail *ret_detail);
/* What its query API answers and its UI downloads: {"data":[{"spans":[..],"processes":{..}}]}. */
MUST_USE int jaeger_json_decode(struct str body, struct arena *arena, struct span_batch *ret_batch,
                                struct error_detail *ret_detail);

#endif
