/* The receivers: OTLP over HTTP (protobuf and JSON) and over gRPC, into a store.
 *
 * A request is answered when its spans are durable, in the protocol's own words: what was taken,
 * what was left out and why, or when to try again. Everything is bounded; the sums add up:
 *
 *   spans_received = spans_stored + the refused of every reason + those still on their way */
#ifndef INGEST_INGEST_H
#define INGEST_INGEST_H

#include "base/err.h"
#include "store/store.h"

struct ingest;

/* A request with this HTTP header makes no span when the server traces itself: the header of the
 * server's own exports. */
#define INGEST_OWN_HEADER "pugmark-own-trace"

struct ingest_options {
    const char *address;
    uint16_t otlp_grpc_port, otlp_http_port; /* 0: a free one */
    struct store *store;                     /* outlives ingest */
    unsigned http_threads;                   /* 0: the default */
    size_t body_bytes_max;                   /* as sent and inflated; 0: the default, 64 MiB */
    size_t in_flight_bytes_max;              /* of all requests; 0: the default, 256 MiB */
    size_t value_bytes_max; /* a longer text or bytes value is cut, and the span says so; 0: the
                               default, 1 MiB */
    size_t spans_max;       /* of one request; 0: the default */
};

MUST_USE int ingest_start(const struct ingest_options *options, struct ingest **ret,
                          struct error_detail *ret_detail);
/* No new requests; waits up to `deadline_ms` for those under way. NULL is allowed. */
void ingest_stop(struct ingest *ingest, unsigned deadline_ms);
/* After the store has answered every append (store_close). NULL is allowed. */
void ingest_free(struct ingest *ingest);

uint16_t ingest_otlp_grpc_port(const struct ingest *ingest);
uint16_t ingest_otlp_http_port(const struct ingest *ingest);

/* Why spans were not stored: one row each in the status and the metrics. */
#define REFUSED_MAP(X)                                                                             \
    X(REFUSED_INVALID,                                                                             \
      "cannot be kept (ids of zeros or of a wrong length, text that is not UTF-8)")                \
    X(REFUSED_TOO_MANY, "more spans in one request than the limit")                                \
    X(REFUSED_MEMORY, "too many bytes in flight")                                                  \
    X(REFUSED_BUSY, "the store's queue is full")                                                   \
    X(REFUSED_STORE, "the store could not write")

enum refused {
#define X(name, text) name,
    REFUSED_MAP(X)
#undef X
        REFUSED_N
};

const char *refused_text(enum refused reason);

struct ingest_stats {
    uint64_t requests, requests_refused; /* the second: of them, with an error as their answer */
    uint64_t spans_received, spans_stored, spans_refused[REFUSED_N];
    uint64_t values_cut, body_bytes, bytes_in_flight, connections_now;
};
/* Thread-safe, also after ingest_stop. */
void ingest_stats(const struct ingest *ingest, struct ingest_stats *ret);

#endif
