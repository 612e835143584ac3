/* What the files of src/web share. */
#ifndef WEB_WEB_INTERNAL_H
#define WEB_WEB_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/json.h"
#include "net/http_server.h"
#include "query/search.h"
#include "web/web.h"

#define PATH_PARAMS_MAX 2
/* A trace of which the answer would be larger is refused. */
#define ANSWER_BYTES_MAX ((size_t)256 << 20)
static inline struct buf web_answer(void)
{
    return (struct buf){.bytes_max = ANSWER_BYTES_MAX};
}

struct grpc_server;
struct live;
struct pool;
struct sampling;
struct traces;

struct live;
struct pool;

/* Counters of one route, in nanoseconds where they are times. */
struct route_stats {
    atomic_uint_fast64_t requests, failures, busy_ns;
};

enum address { ADDRESS_PAGE, ADDRESS_TEMPO, ADDRESS_ZIPKIN, ADDRESS_SAMPLING, ADDRESS_N };

/* An address that is answered. */
struct listener {
    struct web *web;
    enum address address;
    struct http_server *http; /* NULL: Zipkin's, which is ingest's; or its port was taken */
};

struct web {
    struct store *store;
    struct records *records; /* may be NULL */
    struct listener listeners[ADDRESS_N];
    struct grpc_server *jaeger_grpc; /* NULL: its port was taken */
    struct grpc_server
        *tempo_grpc;      /* has the address of Tempo's HTTP, and gives that its connections */
    struct budget bodies; /* of requests in memory */
    struct pool *pool;
    struct live *live;
    struct traces *traces;
    struct sampling *sampling;
    uint64_t started_ns; /* monotonic */
    uint64_t query_timeout_ns;
    bool loopback_only; /* only names of this machine are taken as Host */
    struct arena arena; /* of the endpoints; not touched after the start */
    struct web_endpoint *endpoints;
    size_t n_endpoints;
    bool (*is_ready)(void *arg);
    void (*ingest_stats)(void *arg, struct web_ingest_stats *ret);
    void (*ledger)(void *arg, const struct trace_id *id, struct web_ledger *ret);
    void *arg;
    struct route_stats *stats; /* one a route */
    atomic_bool started;       /* all of the above is there */
};

/* In whose words an error is said. */
enum dialect {
    DIALECT_PLAIN,      /* a sentence */
    DIALECT_OWN,        /* docs/api.md */
    DIALECT_V3,         /* Jaeger's gateway: {"error":{"httpCode":404,"message":".."}} */
    DIALECT_LEGACY,     /* Jaeger's envelope */
    DIALECT_PROMETHEUS, /* {"status":"error","errorType":"bad_data","error":".."} */
};

/* Who asks the same by other means than HTTP (tempo_grpc.c). */
struct web_request;
struct web_rpc {
    struct str (*param)(struct web_request *q, const char *name); /* as web_param */
    void (*fail)(struct web_request *q, int status, struct str message);
};

struct web_request {
    struct web *web;
    struct http_request *http; /* NULL: there is a `rpc` */
    const struct web_rpc *rpc;
    struct arena *arena; /* the request's */
    void (*handler)(struct web_request *q);
    struct str
        params[PATH_PARAMS_MAX]; /* what the stars of the route's pattern stand for, decoded */
    enum dialect dialect;
    struct route_stats *stats;
    uint64_t arrived_ns;
    /* Of the trace an error is about: Jaeger's envelope names it. */
    struct str trace_id;
    struct store_view *view; /* what the answer is read from: web_view */
    bool is_partial;         /* of what was read before, something was damaged */
};

typedef void web_handler_fn(struct web_request *q);

/* ---- answers (reply.c): each answers the request, exactly once ---- */

void web_reply(struct web_request *q, int status, const char *content_type, struct buf *body);
void web_reply_json(struct web_request *q, int status, struct buf *body);
void web_reply_text(struct web_request *q, int status, const char *text);
/* In the words of the route's dialect. `parameter` may be NULL; `position` only counts with it. */
void web_fail_at(struct web_request *q, int status, const char *parameter, size_t position,
                 const char *message);
void web_fail(struct web_request *q, int status, const char *format, ...) PRINTF_LIKE(3, 4);
/* A failure of the store or of a search: chooses the status. */
void web_fail_err(struct web_request *q, int err, const struct error_detail *detail);
void web_error_body(enum dialect dialect, int status, const char *parameter, size_t position,
                    struct str trace_id, struct str message, struct buf *out);
/* Counts the answer, and puts the headers that every answer has. Whoever answers through
 * http_server.h itself calls it before. */
void web_answered(struct web_request *q, int status);

/* What the answer is read from, the same for all of it; NULL: no memory. It is the request's, and goes
 * when that is answered. Where something of what was read through it is damaged, the answer says so: each
 * in a header, X-Pugmark-Partial, our own and Jaeger's envelope also in the body. */
struct store_view *web_view(struct web_request *q);
/* From now on the caller's: of an answer that is still written when the request is gone. */
struct store_view *web_view_take(struct web_request *q);
bool web_is_partial(const struct web_request *q);
#define WEB_PARTIAL_MESSAGE                                                                        \
    "a damaged part of the store could not be read, so something may be missing; "                 \
    "`pugmark store verify` names the damage"

/* ---- parameters (params.c): false: the request has been answered with an error ---- */

/* ptr NULL when absent or empty. */
struct str web_param(struct web_request *q, const char *name);
bool web_param_u64(struct web_request *q, const char *name, uint64_t least, uint64_t most,
                   uint64_t fallback, uint64_t *ret);
bool web_param_duration(struct web_request *q, const char *name, uint64_t *ret_ns, bool *ret_given);
bool web_param_trace_id(struct web_request *q, struct str text, const char *name,
                        struct trace_id *ret);

/* A text as TraceQL has it, with its quotes. */
void web_put_quoted(struct buf *out, struct str text);

/* Conditions that are joined by and; grows in the request's arena. */
struct conditions {
    struct arena *arena;
    struct predicate *items;
    size_t n, capacity;
    bool failed; /* no memory */
    struct predicate all;
};
void conditions_string(struct conditions *c, enum predicate_field field, struct str value);
void conditions_integer(struct conditions *c, enum predicate_field field, enum predicate_op op,
                        int64_t value);
/* A tag as people write it, who do not know its type, nor what is an attribute: besides those, it
 * finds `error=true`, `span.kind=server`, `otel.status_code=ERROR` and the like. */
void conditions_tag(struct conditions *c, struct str key, struct str value);
/* Those that a search of our own API says beside its query: service, operation, minDuration, maxDuration, tag.
 * False: the request has been answered with an error. */
bool api_conditions(struct web_request *q, struct conditions *c);
/* NULL when there are none. */
const struct predicate *conditions_all(struct conditions *c);

/* ---- a few threads for what takes long (pool.c) ---- */

MUST_USE int pool_new(unsigned threads, unsigned queue_max, struct pool **ret);
/* With `is_ending` nobody waits for what it does any more: it only refuses. */
typedef void pool_fn(void *arg, bool is_ending);
/* False: the queue is full. `fn` runs later on another thread. */
bool pool_put(struct pool *pool, pool_fn *fn, void *arg);
/* Finishes what runs, tells what waits, then ends. NULL is allowed. */
void pool_free(struct pool *pool);

/* ---- handlers ---- */

web_handler_fn api_segments, api_pins;
web_handler_fn api_retention, api_delete, api_redact, api_export, api_ledger;
web_handler_fn api_services, api_operations, api_search, api_trace, api_status, api_metrics;
web_handler_fn api_parse, api_breakdown, api_resources;
web_handler_fn trace_outline, trace_window, trace_overview, trace_span, trace_find, trace_events,
    trace_operations;
web_handler_fn api_trace_logs, api_logs, api_metric_names, api_series; /* api_records.c */

/* "spanSets":[...] of a trace that a search found, with at most `spans_max` spans in each (api_spansets.c). What
 * search_spans says. */
MUST_USE int api_spansets(struct json_writer *w, struct store_view *view,
                          const struct search *search, const struct trace_summary *summary,
                          uint64_t spans_max, struct arena *scratch);
/* It has a select() or a by(), which are about them. */
bool api_asks_for_spans(const struct traceql *query);
/* "scanned":{...}: what was read for an answer. */
void api_scanned(struct json_writer *w, uint64_t start_ns, uint64_t end_ns,
                 const struct scan_cost *cost, uint64_t traces_read, uint64_t elapsed_ns);
web_handler_fn v3_services, v3_operations, v3_summaries, v3_traces, v3_trace, v3_dependencies;
web_handler_fn legacy_services, legacy_service_operations, legacy_operations, legacy_search,
    legacy_trace, legacy_dependencies, legacy_archive, legacy_transform, legacy_deep_dependencies,
    legacy_quality_metrics, legacy_latencies, legacy_calls, legacy_errors, legacy_min_step;

/* A time in RFC 3339, under either spelling of the parameter. */
bool v3_param_time(struct web_request *q, const char *camel, bool required, uint64_t *ret_ns);
/* The envelope {"data":...,"total":n,"limit":0,"offset":0,"errors":null}; the data is written between the two. */
struct json_writer legacy_open(struct buf *out);
void legacy_close(struct web_request *q, struct json_writer *w, size_t total);
/* At least one span, all of one trace. False: no memory. */
bool legacy_trace_json(struct json_writer *w, const struct span_batch *trace, struct arena *arena);

web_handler_fn tempo_echo, tempo_ready, tempo_buildinfo;
web_handler_fn tempo_trace, tempo_trace_v2, tempo_search;
web_handler_fn tempo_query_range, tempo_query_instant;
web_handler_fn tempo_tags, tempo_tags_v2, tempo_values, tempo_values_v2;
web_handler_fn prometheus_query, prometheus_query_range, prometheus_series, prometheus_labels,
    prometheus_label_values, prometheus_metadata, prometheus_exemplars, prometheus_buildinfo,
    prometheus_rules;
web_handler_fn zipkin_services, zipkin_span_names, zipkin_remote_services, zipkin_traces,
    zipkin_trace, zipkin_trace_many, zipkin_dependencies, zipkin_autocomplete_keys,
    zipkin_autocomplete_values, zipkin_health, zipkin_info, zipkin_config;
web_handler_fn api_openapi;
web_handler_fn sampling_strategy, sampling_baggage;
web_handler_fn live_events;
web_handler_fn page_document, page_asset;
web_handler_fn health_healthz, health_readyz, health_metrics;

/* ---- live spans (live.c) ---- */

MUST_USE int live_new(struct web *web, unsigned clients_max, struct live **ret);
void live_stop(struct live *live); /* ends the streams and takes no more */
void live_free(struct live *live);
unsigned live_clients(struct live *live);

/* Where Tempo's calls over gRPC are counted. */
struct route_stats *web_tempo_grpc_stats(struct web *web);
/* For the metrics: the names of the routes, in the order of web->stats; NULL past the last. */
const char *web_route_name(size_t i);

#endif
