/* What Zipkin's formats have in common: a span as its second model has it, before it is ours.
 *
 * Shared spans. In B3 a server may report its half of a call under the id of the client's span. Two
 * spans of one id cannot be told apart here, so the server's half gets an id of its own, made from
 * the trace's and the span's (zipkin_server_id), and the client's half becomes its parent. Spans of
 * the server's process that come in the same request and name the shared id as their parent
 * become children of the server's half; those of a later request stay below the client's. */
#ifndef WIRE_ZIPKIN_SPAN_H
#define WIRE_ZIPKIN_SPAN_H

#include "wire/collect.h"

struct zipkin_endpoint {
    struct str service;
    struct str address; /* as text */
    int64_t port;       /* 0: none */
};

struct zipkin_span {
    struct trace_id trace_id;
    struct span_id id, parent_id;
    struct str name;
    uint64_t timestamp_us, duration_us; /* 0: not known */
    uint64_t first_annotation_us;       /* 0: none; what a span without a timestamp starts with */
    struct zipkin_endpoint local, remote;
    uint8_t kind; /* enum span_kind; unspecified: a local span */
    bool shared, debug;
};

struct zipkin_decoder {
    struct collect c;
    struct buf shared; /* struct shared_span, in zipkin_span.c */
    struct buf origin; /* a byte each span: 1 when it is a shared half */
};

void zipkin_begin(struct zipkin_decoder *d, struct arena *arena);
/* A tag that is text; knows those that OpenTelemetry's exporters write. */
void zipkin_tag(struct zipkin_decoder *d, struct span *s, struct str key, struct str value);
void zipkin_annotation(struct zipkin_decoder *d, struct zipkin_span *z, uint64_t us,
                       struct str value);
/* `s` has what zipkin_tag found out; the rest is set here. */
void zipkin_end_span(struct zipkin_decoder *d, const struct zipkin_span *z, struct span *s);
MUST_USE int zipkin_finish(struct zipkin_decoder *d, int err, struct span_batch *ret_batch);

struct span_id zipkin_server_id(const struct trace_id *trace, const struct span_id *shared);

/* 4 or 16 bytes as text in the arena; nothing for any other number. */
struct str zipkin_address(struct collect *c, struct str bytes);

#endif
