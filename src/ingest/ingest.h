/* The receivers, into a store: OTLP over HTTP (protobuf and JSON) and over gRPC; Zipkin over HTTP;
 * Jaeger's thrift over UDP and HTTP; the datagrams of the X-Ray daemon.
 *
 * A request is answered when its spans are durable, in the protocol's own words: what was taken,
 * what was left out and why, or when to try again. Everything is bounded; the sums add up:
 *
 *   spans_received = spans_stored + the refused of every reason + those still on their way */
#ifndef INGEST_INGEST_H
#define INGEST_INGEST_H

#include "base/err.h"
#include "store/store.h"

struct http_request;
struct redaction;
struct ingest;
struct records;

/* A request with this HTTP header makes no span when the server traces itself: the header of the
 * server's own exports. */
#define INGEST_OWN_HEADER "pugmark-own-trace"

/* By its name in the ready file; those of UDP come last. */
#define RECEIVER_MAP(X)                                                                            \
    X(RECEIVER_OTLP_GRPC, "otlp_grpc", 4317)                                                       \
    X(RECEIVER_OTLP_HTTP, "otlp_http", 4318)                                                       \
    X(RECEIVER_ZIPKIN, "zipkin", 9411)                                                             \
    X(RECEIVER_JAEGER_HTTP, "jaeger_http", 14268)                                                  \
    X(RECEIVER_JAEGER_COMPACT, "jaeger_compact", 6831)                                             \
    X(RECEIVER_JAEGER_BINARY, "jaeger_binary", 6832)                                               \
    X(RECEIVER_XRAY, "xray", 2000)

enum receiver {
#define X(name, text, port) name,
    RECEIVER_MAP(X)
#undef X
        RECEIVER_N
};
#define RECEIVER_UDP_FIRST RECEIVER_JAEGER_COMPACT
/* From here on a port that somebody else holds is a warning, and that receiver is left out. */
#define RECEIVER_OPTIONAL_FIRST RECEIVER_ZIPKIN

const char *receiver_name(enum receiver receiver);
uint16_t receiver_default_port(enum receiver receiver);

struct ingest_options {
    const char *address;
    uint16_t ports[RECEIVER_N];  /* by enum receiver; 0: a free one */
    bool is_off[RECEIVER_N];     /* does not listen */
    struct store *store;         /* outlives ingest */
    struct records *records;     /* of logs and metrics; the same; NULL: those are refused */
    struct redaction *redaction; /* the same; NULL: there are no rules */
    unsigned http_threads;       /* 0: the default */
    size_t body_bytes_max;       /* as sent and inflated; 0: the default, 64 MiB */
    size_t in_flight_bytes_max;  /* of all requests; 0: the default, 256 MiB */
    size_t value_bytes_max;   /* a longer text or bytes value is cut, and the span says so; 0: the
                               default, 1 MiB */
    size_t spans_max;         /* of one request; 0: the default */
    size_t attrs_max;         /* of a span, event, link, resource or scope: those behind it are left
                               out and counted as dropped; 0: the default, 1024 */
    unsigned connections_max; /* of each port, newcomers wait; 0: the default, 1000 */
};

MUST_USE int ingest_start(const struct ingest_options *options, struct ingest **ret,
                          struct error_detail *ret_detail);
/* No new requests; waits up to `deadline_ms` for those under way. NULL is allowed. */
void ingest_stop(struct ingest *ingest, unsigned deadline_ms);
/* After the store has answered every append (store_close). NULL is allowed. */
void ingest_free(struct ingest *ingest);

/* 0: this one is left out. */
uint16_t ingest_port(const struct ingest *ingest, enum receiver receiver);

/* Who answers what comes to the Zipkin port and is no spans: its query API. Without one that is 404.
 * `handler` is called as an http_handler_fn is, from then on until ingest_stop returns. Once. */
void ingest_zipkin_other(struct ingest *ingest, void (*handler)(void *, struct http_request *),
                         void *arg);

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

/* ---- the ledger: what became of the spans of one trace ---- */

/* Those before FATE_REFUSED were stored, not as they came; FATE_REFUSED + an enum refused: not stored. */
enum fate {
    FATE_CUT,
    FATE_ATTRS,
    FATE_REDACTED,
    FATE_REFUSED,
    FATE_N = FATE_REFUSED + (int)REFUSED_N
};

const char *fate_text(enum fate fate);

#define LEDGER_ENTRIES 65536 /* that are remembered, of all traces */
#define LEDGER_FOUND_MAX 100 /* that are told one by one */

struct ledger_entry {
    struct trace_id trace_id;
    uint64_t time_ns; /* since the epoch */
    uint32_t spans;
    uint8_t fate; /* enum fate */
};

struct ingest_ledger {
    uint64_t spans[FATE_N]; /* of this trace, in all entries that are remembered */
    struct ledger_entry found[LEDGER_FOUND_MAX]; /* newest first */
    size_t n;
    bool more;         /* than LEDGER_FOUND_MAX */
    uint64_t since_ns; /* what came earlier is forgotten; 0: nothing is yet */
    uint64_t entries;  /* that are remembered */
    uint64_t skipped;  /* spans whose fate was never remembered: one request had too many traces */
};

/* Why a request was refused as a whole: one row each in the metrics. */
#define TURNED_MAP(X)                                                                              \
    X(TURNED_BAD, "cannot be read")                                                                \
    X(TURNED_TOO_LARGE, "larger than a limit")                                                     \
    X(TURNED_BUSY, "no room for now")                                                              \
    X(TURNED_STORE, "the store could not write")

enum turned {
#define X(name, text) name,
    TURNED_MAP(X)
#undef X
        TURNED_N
};

const char *turned_text(enum turned reason);

struct receiver_stats {
    uint64_t requests; /* or datagrams */
    uint64_t requests_refused;
    uint64_t spans_received, spans_stored;
    uint64_t datagrams_dropped; /* by the kernel, because we were too slow */
};

/* What else comes by OTLP: received = stored + refused + those still on their way. */
enum ingest_signal { SIGNAL_LOGS, SIGNAL_METRICS, SIGNAL_N };

struct signal_stats {
    uint64_t received, stored, refused; /* log records; points of metrics */
};

struct ingest_stats {
    struct signal_stats signals[SIGNAL_N];
    struct receiver_stats receivers[RECEIVER_N];
    uint64_t requests, requests_refused; /* the second: of them, with an error as their answer */
    uint64_t spans_received, spans_stored, spans_refused[REFUSED_N];
    uint64_t requests_turned[TURNED_N]; /* sum: requests_refused */
    uint64_t values_cut, body_bytes, bytes_in_flight, connections_now;
    uint64_t
        connections_full; /* how often a port had as many as it may, so that newcomers waited */
};
/* Thread-safe, also after ingest_stop. */
void ingest_stats(const struct ingest *ingest, struct ingest_stats *ret);
/* The same. Of spans that a decoder left out the first SPAN_REJECTED_MAX of a request are in it whose trace could be
 * read; those of requests that could not be read are in no entry. */
void ingest_ledger(struct ingest *ingest, const struct trace_id *id, struct ingest_ledger *ret);

#endif
