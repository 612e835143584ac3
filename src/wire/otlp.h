/* OTLP protobuf <-> model.
 * Source: opentelemetry-proto, collector/trace/v1/trace_service.proto and what it imports. */
#ifndef WIRE_OTLP_H
#define WIRE_OTLP_H

#include "base/arena.h"
#include "base/buf.h"
#include "model/span.h"

/* ExportTraceServiceRequest (TracesData has the same bytes) to spans that borrow from `body` and
 * live in `arena`. Unknown fields are passed over; a repeated scalar field takes the last value.
 * Spans that cannot be kept (ids of zeros or of a wrong length, text that is not UTF-8) are left
 * out and counted in `ret_batch->n_rejected`; bytes that are not protobuf fail the whole body:
 * ERR_TRUNCATED, ERR_INVALID, ERR_TOO_LARGE (nesting beyond VALUE_DEPTH_MAX), ERR_NOMEM. */
MUST_USE int otlp_decode(struct str body, struct arena *arena, struct span_batch *ret_batch,
                         struct error_detail *ret_detail);

/* Appends an ExportTraceServiceRequest. Neighbours with the same resource and scope pointers share
 * their ResourceSpans and ScopeSpans. Failure is in `out`. */
void otlp_encode(const struct span_batch *batch, struct buf *out);

/* The same span by span, for who has them one after the other: all have the resource and the scope that
 * the request was opened with. A request that is not closed is of no use. */
struct otlp_request {
    size_t resource_spans, scope_spans; /* where the content of these messages begins */
};
struct otlp_request otlp_encode_open(const struct resource *resource, const struct scope *scope,
                                     struct buf *out);
void otlp_encode_span(const struct span *span, struct buf *out);
void otlp_encode_close(struct otlp_request request, const struct resource *resource,
                       const struct scope *scope, struct buf *out);

/* The pieces that metrics and logs share with spans; `tag` is that of the field they stand in. */
void otlp_encode_attrs(const struct attrs *attrs, uint32_t tag, struct buf *out);
void otlp_encode_resource(const struct resource *r, uint32_t tag, struct buf *out);
void otlp_encode_scope(const struct scope *s, uint32_t tag, struct buf *out);

/* ExportTraceServiceResponse: empty bytes when `n_rejected` is 0 and `message` is empty, else with
 * a partial_success. */
void otlp_encode_response(uint64_t n_rejected, struct str message, struct buf *out);
/* What a sender wants to know of an answer (ExportMetricsServiceResponse has the same fields). */
MUST_USE int otlp_decode_response(struct str body, uint64_t *ret_rejected, struct str *ret_message);

/* google.rpc.Status, the body of an error over HTTP. */
void otlp_encode_status(int32_t code, struct str message, struct buf *out);

#endif
