/* One request's spans on their way from a request to the store and back: what every receiver
 * shares. The receiver makes one in its request's arena and gets exactly one answer. */
#ifndef INGEST_INTAKE_H
#define INGEST_INTAKE_H

#include "base/arena.h"
#include "base/buf.h"
#include "ingest/cut.h"
#include "ingest/drain.h"
#include "ingest/ingest.h"
#include "ingest/ledger.h"
#include "ingest/redaction.h"
#include "net/budget.h"

#include <pugmark/pugmark.h>

#include <stdatomic.h>

struct grpc_server;
struct http_request;
struct http_server;
struct udp_server;

struct receiver_counters {
    _Atomic uint64_t requests, requests_refused, spans_received, spans_stored;
};

struct signal_counters {
    _Atomic uint64_t received, stored, refused;
};

struct ingest {
    struct store *store;
    struct records *records;     /* NULL: none are kept */
    struct redaction *redaction; /* NULL: none */
    struct signal_counters signals[SIGNAL_N];
    struct budget budget; /* bodies and what was decoded from them */
    struct drain drain;   /* how fast they go */
    struct ledger ledger; /* of spans to which something happened */
    size_t body_bytes_max, value_bytes_max, spans_max, attrs_max;
    unsigned connections_max; /* of each port; 0: the default */
    unsigned http_threads;    /* of each server that speaks HTTP */
    struct grpc_server *grpc;
    struct http_server *http[RECEIVER_N]; /* of those that speak HTTP */
    struct udp_server *udp[RECEIVER_N];   /* of those that take datagrams */
    struct receiver_counters counters[RECEIVER_N];
    _Atomic uint64_t spans_refused[REFUSED_N], requests_turned[TURNED_N], values_cut;
    void *zipkin_other_arg; /* set before the handler, once */
    void (*_Atomic zipkin_other)(void *arg, struct http_request *request);
};

enum outcome {
    OUTCOME_TAKEN,       /* durable, apart from `n_rejected`; a message is a warning */
    OUTCOME_INVALID,     /* will never be taken */
    OUTCOME_TOO_LARGE,   /* not in this size */
    OUTCOME_BUSY,        /* later */
    OUTCOME_UNAVAILABLE, /* later, perhaps: something is wrong here */
};

typedef int decode_fn(struct str body, struct arena *arena, struct span_batch *ret_batch,
                      struct error_detail *ret_detail);

/* What a body can be. A format that the log does not know is appended as OTLP (encoded again), so
 * that recovery needs one decoder. */
struct intake_format {
    const char *name;
    decode_fn *decode;
    enum body_format log; /* 0: not known there */
};

struct intake {
    struct ingest *ingest;
    enum receiver receiver;
    struct arena *arena; /* the request's */
    /* From any thread, once. It lies in the request's arena: this ends it. */
    void (*answer)(struct intake *e, enum outcome outcome, uint64_t n_rejected, struct str message);
    void *request;

    struct span_batch batch;
    struct buf rewritten; /* the body again as OTLP, when that must be */
    size_t charged;
    size_t body_bytes; /* as it came */
    struct cut_counts cut;
    uint8_t *redacted; /* a byte for each span; NULL: nothing was */

    /* The server's own trace of it, when that is on. What the server itself sends is not traced, or
     * it would trace itself for ever. */
    bool is_own;
    struct pug_span span, append_span;
};

/* Counts a request that is refused as a whole. */
static inline void intake_count_turned(struct ingest *in, enum receiver receiver,
                                       enum turned reason)
{
    /* release pairs with the acquire in ingest_stats */
    atomic_fetch_add_explicit(&in->requests_turned[reason], 1, memory_order_release);
    atomic_fetch_add_explicit(&in->counters[receiver].requests_refused, 1, memory_order_release);
}
/* The reason for an answer that is not OUTCOME_TAKEN. */
static inline enum turned intake_turned(enum outcome outcome)
{
    switch (outcome) {
    case OUTCOME_TOO_LARGE:
        return TURNED_TOO_LARGE;
    case OUTCOME_BUSY:
        return TURNED_BUSY;
    case OUTCOME_UNAVAILABLE:
        return TURNED_STORE;
    default:
        return TURNED_BAD;
    }
}

/* In how many seconds a request that is refused now may find room. `ingest` is a struct ingest. */
unsigned intake_retry_after_s(void *ingest);

/* Decodes `body`, appends, and has the answer sent: before this returns or later. `body` lives
 * until the answer. */
void intake_run(struct intake *e, const struct intake_format *format, struct str body);

/* http_plain.c: what Zipkin's and Jaeger's receivers share. Answers are texts, and what is taken is
 * 202 without one. */
MUST_USE int http_plain_start(struct ingest *ingest, const struct ingest_options *options,
                              enum receiver receiver,
                              void (*handler)(void *arg, struct http_request *request),
                              struct error_detail *ret_detail);
void http_plain_error(struct http_request *r, int status, struct str message);
/* The header, before an answer that says "later". */
void http_retry_after(struct http_request *r, struct ingest *ingest);
void http_plain_take(struct ingest *ingest, enum receiver receiver, struct http_request *r,
                     const struct intake_format *format);

/* datagrams.c: the receivers of UDP */
MUST_USE int jaeger_compact_start(struct ingest *ingest, const struct ingest_options *options,
                                  struct error_detail *ret_detail);
MUST_USE int jaeger_binary_start(struct ingest *ingest, const struct ingest_options *options,
                                 struct error_detail *ret_detail);
MUST_USE int xray_start(struct ingest *ingest, const struct ingest_options *options,
                        struct error_detail *ret_detail);

/* zipkin_http.c, jaeger_http.c, otlp_http.c and otlp_grpc.c */
MUST_USE int zipkin_http_start(struct ingest *ingest, const struct ingest_options *options,
                               struct error_detail *ret_detail);
MUST_USE int jaeger_http_start(struct ingest *ingest, const struct ingest_options *options,
                               struct error_detail *ret_detail);
MUST_USE int otlp_http_start(struct ingest *ingest, const struct ingest_options *options,
                             struct error_detail *ret_detail);
MUST_USE int otlp_grpc_start(struct ingest *ingest, const struct ingest_options *options,
                             struct error_detail *ret_detail);

#endif
