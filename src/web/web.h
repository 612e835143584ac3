/* Everything on the `page` address: the page, our own API (docs/api.md), Jaeger's two, live spans
 * as server-sent events, health and metrics; and Tempo's API on the `tempo` address.
 *
 * Requests that read the store run on a few threads of their own with a bounded queue before them,
 * so that a slow search holds up neither the page nor the live streams. */
#ifndef WEB_WEB_H
#define WEB_WEB_H

#include "base/err.h"
#include "store/store.h"

struct web;
struct records;
struct http_request;

struct web_endpoint {
    const char *name, *url; /* "otlp_http", "http://127.0.0.1:4318" */
};

#define WEB_REFUSED_MAX 16
#define WEB_SIGNALS_MAX 4
#define WEB_REDACTIONS_MAX 32
#define WEB_RECEIVERS_MAX 16

struct web_receiver_stats {
    const char *name;
    bool is_udp; /* requests are datagrams then */
    uint64_t requests, requests_refused, spans_received, spans_stored, datagrams_dropped;
};

/* What the receivers counted since they started. */
struct web_ingest_stats {
    uint64_t requests, spans_received, spans_stored;
    uint64_t values_cut, bytes_in_flight;
    struct {
        const char *reason;
        uint64_t count;
    } refused[WEB_REFUSED_MAX], turned[WEB_REFUSED_MAX]; /* spans; requests as a whole */
    size_t n_refused, n_turned;
    uint64_t connections_now, connections_full;
    struct web_receiver_stats receivers[WEB_RECEIVERS_MAX];
    size_t n_receivers;
    struct {
        const char *name; /* "logs", "points" */
        uint64_t received, stored, refused;
    } signals[WEB_SIGNALS_MAX];
    size_t n_signals;
    /* Rules of redaction, in their order. */
    struct {
        char rule[68];
        const char *action; /* "mask", "hash", "drop" */
        uint64_t values;
    } redactions[WEB_REDACTIONS_MAX];
    size_t n_redactions;
    /* Followed files. */
    bool has_follow;
    uint64_t follow_files, follow_bytes, follow_lost;
    uint64_t follow_lines[5]; /* spans, logs, passed over, invalid, repeated */
};

#define WEB_FATES_MAX 16
#define WEB_LEDGER_ENTRIES_MAX 100

/* What the receivers remember of one trace. */
struct web_ledger {
    struct {
        const char *fate, *reason; /* "refused", and why */
        uint64_t spans;
    } fates[WEB_FATES_MAX];
    struct {
        uint64_t time_ns, spans;
        size_t fate;                   /* which of the above */
    } entries[WEB_LEDGER_ENTRIES_MAX]; /* newest first */
    size_t n_fates, n_entries;
    bool more;                           /* entries than those */
    uint64_t since_ns;                   /* what came earlier is forgotten; 0: nothing is */
    uint64_t remembered, remembered_max; /* entries of all traces */
    uint64_t skipped;                    /* spans of which no entry was made */
};

struct web_options {
    const char *address;                                  /* as http_server_options */
    uint16_t port;                                        /* 0: a free one */
    uint16_t tempo_port, sampling_port, jaeger_grpc_port; /* the same */
    /* In Jaeger's format, read again when it changes; NULL: clients are told to keep everything. */
    const char *sampling_strategies;
    unsigned connections_max, query_threads, query_timeout_ms, live_clients_max; /* 0: defaults */
    struct store *store;                                                         /* outlives web */
    struct records *records; /* the same; NULL: there are none */
    /* Where spans are taken, for the page to say; copied. */
    const struct web_endpoint *endpoints;
    size_t n_endpoints;
    /* Each may be NULL; called from any thread, also while web_stop runs. */
    bool (*is_ready)(void *arg);
    void (*ingest_stats)(void *arg, struct web_ingest_stats *ret);
    void (*ledger)(void *arg, const struct trace_id *id, struct web_ledger *ret);
    void *arg;
};

/* Listens and serves. Takes the store's watcher (store_watch). `ret_detail` says what failed. */
MUST_USE int web_start(const struct web_options *options, struct web **ret,
                       struct error_detail *ret_detail);
uint16_t web_port(const struct web *web);
uint16_t web_tempo_port(const struct web *web);
/* 0: somebody else has it, and it is left out. */
uint16_t web_sampling_port(const struct web *web);
uint16_t web_jaeger_grpc_port(const struct web *web);
/* Zipkin's query API, for requests that came to another server (ingest_zipkin_other): an http_handler_fn. Not
 * any more once web_stop is called. */
void web_zipkin(void *web, struct http_request *request);
/* Ends live streams, waits for requests under way up to `deadline_ms`, frees. NULL is allowed. */
void web_stop(struct web *web, unsigned deadline_ms);

#endif
