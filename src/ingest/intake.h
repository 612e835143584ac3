/* One request's spans on their way from a request to the store and back: what every receiver
 * shares. The receiver makes one in its request's arena and gets exactly one answer. */
#ifndef INGEST_INTAKE_H
#define INGEST_INTAKE_H

#include "base/arena.h"
#include "base/buf.h"
#include "ingest/ingest.h"
#include "net/budget.h"

#include <pugmark/pugmark.h>

#include <stdatomic.h>

struct grpc_server;
struct http_server;

struct ingest {
    struct store *store;
    struct budget budget; /* bodies and what was decoded from them */
    size_t body_bytes_max, value_bytes_max, spans_max;
    struct http_server *http;
    struct grpc_server *grpc;
    _Atomic uint64_t requests, requests_refused, spans_received, spans_stored, values_cut;
    _Atomic uint64_t spans_refused[REFUSED_N];
};

enum outcome {
    OUTCOME_TAKEN,       /* durable, apart from `n_rejected`; a message is a warning */
    OUTCOME_INVALID,     /* will never be taken */
    OUTCOME_TOO_LARGE,   /* not in this size */
    OUTCOME_BUSY,        /* later */
    OUTCOME_UNAVAILABLE, /* later, perhaps: something is wrong here */
};

struct intake {
    struct ingest *ingest;
    struct arena *arena; /* the request's */
    /* From any thread, once. It lies in the request's arena: this ends it. */
    void (*answer)(struct intake *e, enum outcome outcome, uint64_t n_rejected, struct str message);
    void *request;

    struct span_batch batch;
    struct buf rewritten; /* the body again, when values were cut */
    size_t charged;
    size_t n_cut;

    /* The server's own trace of it, when that is on. What the server itself sends is not traced, or
     * it would trace itself for ever. */
    bool is_own;
    struct pug_span span, append_span;
};

typedef int decode_fn(struct str body, struct arena *arena, struct span_batch *ret_batch,
                      struct error_detail *ret_detail);

/* Decodes `body`, appends, and has the answer sent: before this returns or later. `body` lives
 * until the answer. */
void intake_run(struct intake *e, enum body_format format, decode_fn *decode, struct str body);

/* otlp_http.c and otlp_grpc.c */
MUST_USE int otlp_http_start(struct ingest *ingest, const struct ingest_options *options,
                             struct error_detail *ret_detail);
MUST_USE int otlp_grpc_start(struct ingest *ingest, const struct ingest_options *options,
                             struct error_detail *ret_detail);

#endif
