/* Zipkin's formats: v2 in JSON (both ways) and protobuf, v1 in JSON and thrift (read only).
 * Source: openzipkin/zipkin-api (zipkin2-api.yaml, zipkin.proto, zipkin-api.yaml,
 * zipkinCore.thrift); OpenTelemetry specification, "OpenTelemetry to Zipkin Transformation" and
 * "Transformation to non-OTLP Formats".
 *
 * Reading is the reverse of that transformation: localEndpoint.serviceName is service.name,
 * its address and port network.local.address and network.local.port; remoteEndpoint is peer.service,
 * network.peer.address and network.peer.port; a tag `error` is the status, annotations are
 * events. A span without a kind is a local one, INTERNAL. What becomes of shared spans:
 * zipkin_span.h. Spans without usable ids, or without any time, are left out and counted. */
#ifndef WIRE_ZIPKIN_H
#define WIRE_ZIPKIN_H

#include "base/arena.h"
#include "base/json.h"
#include "model/span.h"

/* One value: a list of spans. What Zipkin has no place for (links, trace state) is left out. */
void zipkin_json_encode(const struct span_batch *batch, struct json_writer *w);

/* The same of all the spans of one trace, as those who ask Zipkin know them: both halves of a shared span have one
 * id again, endpoints are endpoints and no tags, and an id that was sent with 64 bits has them. ERR_NOMEM. */
MUST_USE int zipkin_json_encode_trace(const struct span_batch *trace, struct arena *scratch,
                                      struct json_writer *w);

/* As otlp_decode. */
MUST_USE int zipkin_json_decode(struct str body, struct arena *arena, struct span_batch *ret_batch,
                                struct error_detail *ret_detail);
MUST_USE int zipkin_protobuf_decode(struct str body, struct arena *arena,
                                    struct span_batch *ret_batch, struct error_detail *ret_detail);
MUST_USE int zipkin_v1_json_decode(struct str body, struct arena *arena,
                                   struct span_batch *ret_batch, struct error_detail *ret_detail);
MUST_USE int zipkin_v1_thrift_decode(struct str body, struct arena *arena,
                                     struct span_batch *ret_batch, struct error_detail *ret_detail);

#endif
