/* The routes of the addresses, and what is common to all: who answers where, whom we talk to,
 * starting and stopping.
 *
 * Requests come on the HTTP server's threads. What only looks at memory is answered there; what
 * reads the store goes to the pool. Stopping goes from the outside in: live streams end, the server
 * takes no more and waits for answers, the pool runs dry (what it still answers finds its
 * connection gone, which http_server.h allows), then all is freed. */
#include "web/jaeger_grpc.h"
#include "web/sampling.h"
#include "web/tempo_grpc.h"
#include "web/traces.h"

#include "base/clock.h"
#include "base/log.h"
#include "net/grpc_server.h"

#include <arpa/inet.h>
#include <pugmark/pugmark.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    CONNECTIONS_MAX = 256,
    QUERY_THREADS = 2,
    QUERY_QUEUE_MAX = 64,
    QUERY_TIMEOUT_MS = 30000,
    LIVE_CLIENTS_MAX = 32,
    SERVER_THREADS = 1,
    BODY_BYTES_MAX = 32 << 20, /* of a trace that somebody uploads */
    BODIES_BYTES_MAX = 64 << 20,
};

/* ---- routes ---- */

enum method { METHOD_GET = 1, METHOD_POST = 2, METHOD_DELETE = 4 }; /* the first: and HEAD */

static const struct route {
    const char *pattern; /* `*` is one segment that is not empty */
    web_handler_fn *handler;
    enum dialect dialect;
    bool reads_store;
    uint8_t methods; /* 0: GET */
    enum address address;
    const char *name; /* NULL: the pattern */
} routes[] = {
#define TEMPO(path, handler, reads_store)                                                          \
    {                                                                                              \
        path, handler, DIALECT_PLAIN, reads_store, METHOD_GET, ADDRESS_TEMPO, "tempo " path        \
    }
#define ZIPKIN(path, handler, reads_store)                                                         \
    {                                                                                              \
        path, handler, DIALECT_PLAIN, reads_store, METHOD_GET, ADDRESS_ZIPKIN, "zipkin " path      \
    }
#define SAMPLING(path, handler)                                                                    \
    {                                                                                              \
        path, handler, DIALECT_PLAIN, false, METHOD_GET, ADDRESS_SAMPLING, "sampling " path        \
    }
/* On Tempo's address, so that one URL is both data sources, and on the page's. */
#define PROMETHEUS(path, handler, reads_store, methods)                                            \
    {path, handler, DIALECT_PROMETHEUS, reads_store, methods, ADDRESS_TEMPO, "tempo " path},       \
    {                                                                                              \
        path, handler, DIALECT_PROMETHEUS, reads_store, methods                                    \
    }
    {"/", page_document, DIALECT_PLAIN, false},
    {"/search", page_document, DIALECT_PLAIN, false},
    {"/live", page_document, DIALECT_PLAIN, false},
    {"/trace/*", page_document, DIALECT_PLAIN, false},
    {"/store", page_document, DIALECT_PLAIN, false},
    {"/ledger", page_document, DIALECT_PLAIN, false},
    {"/healthz", health_healthz, DIALECT_PLAIN, false},
    {"/readyz", health_readyz, DIALECT_PLAIN, false},
    {"/metrics", health_metrics, DIALECT_PLAIN, false},
    {"/api/pugmark/services", api_services, DIALECT_OWN, true},
    {"/api/pugmark/operations", api_operations, DIALECT_OWN, true},
    {"/api/pugmark/resources", api_resources, DIALECT_OWN, true},
    {"/api/pugmark/search", api_search, DIALECT_OWN, true},
    {"/api/pugmark/metrics", api_metrics, DIALECT_OWN, true},
    {"/api/pugmark/breakdown", api_breakdown, DIALECT_OWN, true},
    {"/api/pugmark/parse", api_parse, DIALECT_OWN, false},
    {"/api/pugmark/tags", tempo_tags_v2, DIALECT_OWN, true},
    {"/api/pugmark/tags/*/values", tempo_values_v2, DIALECT_OWN, true},
    {"/api/pugmark/traces/*", api_trace, DIALECT_OWN, true},
    {"/api/pugmark/traces/*/outline", trace_outline, DIALECT_OWN, true},
    {"/api/pugmark/traces/*/window", trace_window, DIALECT_OWN, true},
    {"/api/pugmark/traces/*/overview", trace_overview, DIALECT_OWN, true},
    {"/api/pugmark/traces/*/find", trace_find, DIALECT_OWN, true},
    {"/api/pugmark/traces/*/events", trace_events, DIALECT_OWN, true},
    {"/api/pugmark/traces/*/operations", trace_operations, DIALECT_OWN, true},
    {"/api/pugmark/traces/*/spans/*", trace_span, DIALECT_OWN, true},
    {"/api/pugmark/traces/*/logs", api_trace_logs, DIALECT_OWN, true},
    {"/api/pugmark/logs", api_logs, DIALECT_OWN, true},
    {"/api/pugmark/metrics/names", api_metric_names, DIALECT_OWN, true},
    {"/api/pugmark/series", api_series, DIALECT_OWN, true},
    {"/api/pugmark/live", live_events, DIALECT_OWN, false},
    {"/api/pugmark/spans", api_delete, DIALECT_OWN, true, METHOD_DELETE},
    {"/api/pugmark/export", api_export, DIALECT_OWN, true},
    {"/api/pugmark/spans/redact", api_redact, DIALECT_OWN, true, METHOD_POST},
    {"/api/pugmark/ledger", api_ledger, DIALECT_OWN, true},
    {"/api/pugmark/segments", api_segments, DIALECT_OWN, true},
    {"/api/pugmark/pins", api_pins, DIALECT_OWN, true},
    {"/api/pugmark/retention", api_retention, DIALECT_OWN, true},
    {"/api/pugmark/status", api_status, DIALECT_OWN, false},
    {"/api/pugmark/openapi.json", api_openapi, DIALECT_OWN, false},
    {"/api/v3/services", v3_services, DIALECT_V3, true},
    {"/api/v3/operations", v3_operations, DIALECT_V3, true},
    {"/api/v3/trace-summaries", v3_summaries, DIALECT_V3, true},
    {"/api/v3/traces", v3_traces, DIALECT_V3, true},
    {"/api/v3/traces/*", v3_trace, DIALECT_V3, true},
    {"/api/v3/dependencies", v3_dependencies, DIALECT_V3, true},
    {"/api/services", legacy_services, DIALECT_LEGACY, true},
    {"/api/services/*/operations", legacy_service_operations, DIALECT_LEGACY, true},
    {"/api/operations", legacy_operations, DIALECT_LEGACY, true},
    {"/api/traces", legacy_search, DIALECT_LEGACY, true},
    {"/api/traces/*", legacy_trace, DIALECT_LEGACY, true},
    {"/api/dependencies", legacy_dependencies, DIALECT_LEGACY, true},
    {"/api/archive/*", legacy_archive, DIALECT_LEGACY, true, METHOD_POST},
    {"/api/transform", legacy_transform, DIALECT_LEGACY, true, METHOD_POST},
    {"/api/metrics/latencies", legacy_latencies, DIALECT_LEGACY, true},
    {"/api/metrics/calls", legacy_calls, DIALECT_LEGACY, true},
    {"/api/metrics/errors", legacy_errors, DIALECT_LEGACY, true},
    {"/api/metrics/minstep", legacy_min_step, DIALECT_LEGACY, false},
    {"/api/quality-metrics", legacy_quality_metrics, DIALECT_LEGACY, true},
    {"/analytics/v1/dependencies", legacy_deep_dependencies, DIALECT_LEGACY, true},
    TEMPO("/ready", tempo_ready, false),
    TEMPO("/status/buildinfo", tempo_buildinfo, false),
    TEMPO("/api/echo", tempo_echo, false),
    TEMPO("/api/status/buildinfo", tempo_buildinfo, false),
    TEMPO("/api/traces/*", tempo_trace, true),
    TEMPO("/api/v2/traces/*", tempo_trace_v2, true),
    TEMPO("/api/search", tempo_search, true),
    TEMPO("/api/metrics/query_range", tempo_query_range, true),
    TEMPO("/api/metrics/query", tempo_query_instant, true),
    TEMPO("/api/search/tags", tempo_tags, true),
    TEMPO("/api/v2/search/tags", tempo_tags_v2, true),
    TEMPO("/api/search/tag/*/values", tempo_values, true),
    TEMPO("/api/v2/search/tag/*/values", tempo_values_v2, true),
    PROMETHEUS("/api/v1/query", prometheus_query, true, METHOD_GET | METHOD_POST),
    PROMETHEUS("/api/v1/query_range", prometheus_query_range, true, METHOD_GET | METHOD_POST),
    PROMETHEUS("/api/v1/query_exemplars", prometheus_exemplars, true, METHOD_GET | METHOD_POST),
    PROMETHEUS("/api/v1/series", prometheus_series, true, METHOD_GET | METHOD_POST),
    PROMETHEUS("/api/v1/labels", prometheus_labels, true, METHOD_GET | METHOD_POST),
    PROMETHEUS("/api/v1/label/*/values", prometheus_label_values, true, METHOD_GET),
    PROMETHEUS("/api/v1/metadata", prometheus_metadata, false, METHOD_GET),
    PROMETHEUS("/api/v1/rules", prometheus_rules, false, METHOD_GET),
    PROMETHEUS("/api/v1/status/buildinfo", prometheus_buildinfo, false, METHOD_GET),
    TEMPO("/-/healthy", tempo_ready, false),
    TEMPO("/-/ready", tempo_ready, false),
    ZIPKIN("/health", zipkin_health, false),
    ZIPKIN("/info", zipkin_info, false),
    ZIPKIN("/config.json", zipkin_config, false),
    ZIPKIN("/api/v2/services", zipkin_services, true),
    ZIPKIN("/api/v2/spans", zipkin_span_names, true),
    ZIPKIN("/api/v2/remoteServices", zipkin_remote_services, true),
    ZIPKIN("/api/v2/autocompleteKeys", zipkin_autocomplete_keys, true),
    ZIPKIN("/api/v2/autocompleteValues", zipkin_autocomplete_values, true),
    ZIPKIN("/api/v2/traces", zipkin_traces, true),
    ZIPKIN("/api/v2/trace/*", zipkin_trace, true),
    ZIPKIN("/api/v2/traceMany", zipkin_trace_many, true),
    ZIPKIN("/api/v2/dependencies", zipkin_dependencies, true),
    SAMPLING("/", sampling_strategy),
    SAMPLING("/sampling", sampling_strategy),
    SAMPLING("/api/sampling", sampling_strategy),
    SAMPLING("/baggageRestrictions", sampling_baggage),
#undef PROMETHEUS
#undef TEMPO
#undef ZIPKIN
#undef SAMPLING
};
enum { ROUTES = sizeof routes / sizeof *routes };

/* What is counted beside the routes: all else over HTTP, then Tempo's calls. */
enum { COUNTED_OTHER = ROUTES, COUNTED_TEMPO, COUNTED };

const char *web_route_name(size_t i)
{
    if (i < ROUTES)
        return routes[i].name ? routes[i].name : routes[i].pattern;
    return i == COUNTED_OTHER ? "other" : i == COUNTED_TEMPO ? "tempo grpc" : NULL;
}

struct route_stats *web_tempo_grpc_stats(struct web *web)
{
    return &web->stats[COUNTED_TEMPO];
}

static enum dialect dialect_of(const struct listener *listener, struct str path)
{
    if ((listener->address == ADDRESS_PAGE || listener->address == ADDRESS_TEMPO) &&
        str_starts(path, STR("/api/v1/")))
        return DIALECT_PROMETHEUS;
    if (listener->address != ADDRESS_PAGE)
        return DIALECT_PLAIN;
    if (str_starts(path, STR("/api/pugmark/")))
        return DIALECT_OWN;
    if (str_starts(path, STR("/api/v3/")))
        return DIALECT_V3;
    return str_starts(path, STR("/api/")) ? DIALECT_LEGACY : DIALECT_PLAIN;
}

/* Undoes %XX; ptr NULL without memory or when the escape is none. */
static struct str decode(struct arena *arena, struct str s)
{
    char *out = arena_alloc(arena, s.len + 1);
    size_t n = 0;
    for (size_t i = 0; out && i < s.len; i++) {
        uint8_t byte = (uint8_t)s.ptr[i];
        if (byte == '%') {
            if (s.len - i < 3 || !hex_get(&byte, (struct str){s.ptr + i + 1, 2}, 1))
                return STR_NONE;
            i += 2;
        }
        out[n++] = (char)byte;
    }
    return (struct str){out, out ? n : 0};
}

static bool route_matches(const char *pattern, struct str path, struct str params[PATH_PARAMS_MAX])
{
    unsigned n = 0;
    struct str left = str_from(pattern);
    while (left.ptr || path.ptr) {
        if (!left.ptr || !path.ptr)
            return false;
        struct str expected = str_split(left, '/', &left), segment = str_split(path, '/', &path);
        if (str_eq(expected, STR("*"))) {
            if (!segment.len || n == PATH_PARAMS_MAX)
                return false;
            params[n++] = segment;
        } else if (!str_eq(expected, segment)) {
            return false;
        }
    }
    return true;
}

/* ---- requests ---- */

/* A page elsewhere can make a browser call us by a name of its own that resolves to this machine,
 * and read the answer. While only this machine is served, only its own names are answered. */
static bool host_is_ours(const struct web *web, struct str host)
{
    if (!web->loopback_only || !host.len)
        return true;
    char name[64];
    if (host.ptr[0] == '[') {
        const char *close = memchr(host.ptr, ']', host.len);
        size_t n = close ? (size_t)(close - host.ptr) - 1 : 0;
        if (!n || n >= sizeof name)
            return false;
        memcpy(name, host.ptr + 1, n);
        name[n] = '\0';
        return inet_pton(AF_INET6, name, &(struct in6_addr){0}) == 1;
    }
    struct str port, bare = str_split(host, ':', &port);
    if (!bare.len || bare.len >= sizeof name)
        return false;
    static const struct str localhost = {"localhost", 9};
    if (bare.len >= localhost.len &&
        str_eq_nocase(str_skip(bare, bare.len - localhost.len), localhost) &&
        (bare.len == localhost.len || bare.ptr[bare.len - localhost.len - 1] == '.'))
        return true;
    memcpy(name, bare.ptr, bare.len);
    name[bare.len] = '\0';
    return inet_pton(AF_INET, name, &(struct in_addr){0}) == 1;
}

/* A form of a page elsewhere may post here without asking; the browser then says where it comes from. */
static bool origin_is_ours(struct http_request *http)
{
    struct str origin = http_header(http, "origin"), host = http_header(http, "host");
    if (!origin.len)
        return true;
    struct str scheme = STR("http://");
    return str_starts(origin, scheme) && str_eq(str_skip(origin, scheme.len), host);
}

static void run_query(void *arg, bool is_ending)
{
    struct web_request *q = arg;
    if (is_ending) {
        web_fail(q, 503, "the server is stopping");
        return;
    }
    struct str path = http_path(q->http), query = http_query_string(q->http);
    PUG_SPAN("web.query", PUG_KIND(PUG_KIND_SERVER), PUG_STRN("url.path", path.ptr, path.len),
             PUG_STRN("url.query", query.ptr, query.len));
    q->handler(q); /* which is gone then */
}

static void run_route(struct web_request *q, const struct route *route)
{
    q->dialect = route->dialect;
    q->handler = route->handler;
    q->stats = &q->web->stats[route - routes];
    for (unsigned p = 0; p < PATH_PARAMS_MAX && q->params[p].ptr; p++) {
        q->params[p] = decode(q->arena, q->params[p]);
        if (!q->params[p].ptr) {
            web_fail(q, 400, "the path is not well encoded");
            return;
        }
    }
    if (!route->reads_store) {
        route->handler(q);
    } else if (!pool_put(q->web->pool, run_query, q)) {
        http_reply_header(q->http, "Retry-After", "1");
        web_fail(q, 503, "too many requests are waiting");
    }
}

static void find_route(struct web_request *q, enum address address, struct str path)
{
    struct str name = http_method(q->http);
    unsigned method = str_eq(name, STR("GET")) || str_eq(name, STR("HEAD")) ? METHOD_GET
                      : str_eq(name, STR("POST"))                           ? METHOD_POST
                      : str_eq(name, STR("DELETE"))                         ? METHOD_DELETE
                                                                            : 0;
    unsigned known = 0;
    for (size_t i = 0; i < ROUTES; i++) {
        unsigned methods = routes[i].methods ? routes[i].methods : METHOD_GET;
        if (routes[i].address != address || !route_matches(routes[i].pattern, path, q->params))
            continue;
        if (methods & method) {
            run_route(q, &routes[i]);
            return;
        }
        known |= methods;
    }
    if (!known && method == METHOD_GET && q->dialect == DIALECT_PLAIN && address == ADDRESS_PAGE) {
        page_asset(q);
    } else if (!known && method) {
        web_fail(q, 404, "there is no such path");
    } else {
        static const char *const allowed[][2] = {
            [METHOD_GET] = {"GET, HEAD", "GET"},
            [METHOD_POST] = {"POST", "POST"},
            [METHOD_GET | METHOD_POST] = {"GET, HEAD, POST", "GET or POST"},
            [METHOD_DELETE] = {"DELETE", "DELETE"},
        };
        unsigned i = known == METHOD_DELETE || known == METHOD_POST ? known
                     : known & METHOD_POST                          ? METHOD_GET | METHOD_POST
                                                                    : METHOD_GET;
        http_reply_header(q->http, "Allow", allowed[i][0]);
        web_fail(q, 405, "only %s is answered here", allowed[i][1]);
    }
}

static void handle(void *arg, struct http_request *http)
{
    const struct listener *listener = arg;
    struct web *web = listener->web;
    struct web_request *q = arena_zalloc(http_arena(http), sizeof *q);
    if (!q) {
        http_reply_text(http, 503, "text/plain; charset=utf-8", STR("out of memory\n"));
        return;
    }
    struct str path = http_path(http);
    /* Zipkin's server answers below /zipkin as well. */
    if (listener->address == ADDRESS_ZIPKIN && str_starts(path, STR("/zipkin/")))
        path = str_skip(path, sizeof "/zipkin" - 1);
    *q = (struct web_request){
        .web = web,
        .http = http,
        .arena = http_arena(http),
        .dialect = dialect_of(listener, path),
        .stats = &web->stats[COUNTED_OTHER],
        .arrived_ns = clock_monotonic_ns(),
    };
    bool reads = str_eq(http_method(http), STR("GET")) || str_eq(http_method(http), STR("HEAD"));
    if (!atomic_load_explicit(&web->started, memory_order_acquire))
        web_fail(q, 503, "the server is starting");
    else if (!host_is_ours(web, http_header(http, "host")))
        web_fail(q, 421, "this server answers to \"localhost\" and to addresses only");
    else if (!reads && !origin_is_ours(http))
        web_fail(q, 403, "only the page of this server may ask for that");
    else
        find_route(q, listener->address, path);
}

void web_zipkin(void *web, struct http_request *request)
{
    handle(&((struct web *)web)->listeners[ADDRESS_ZIPKIN], request);
}

static const char *error_body(void *arg, const struct http_request *http, int status,
                              struct str message, struct buf *out)
{
    enum dialect dialect = dialect_of(arg, http_path(http));
    web_error_body(dialect, status, NULL, 0, STR_NONE, message, out);
    return dialect == DIALECT_PLAIN ? "text/plain; charset=utf-8" : "application/json";
}

/* ---- life ---- */

static bool is_loopback(const char *address)
{
    return !address || str_starts(str_from(address), STR("127.")) || !strcmp(address, "::1") ||
           !strcmp(address, "localhost");
}

static void endpoint_add(struct web *web, const struct web_options *options, const char *name,
                         uint16_t port)
{
    const char *address = options->address ? options->address : "127.0.0.1";
    /* What listens everywhere is reached here. */
    if (!strcmp(address, "0.0.0.0"))
        address = "127.0.0.1";
    else if (!strcmp(address, "::"))
        address = "::1";
    web->endpoints[web->n_endpoints++] = (struct web_endpoint){
        .name = name,
        .url = arena_printf(&web->arena, strchr(address, ':') ? "http://[%s]:%u" : "http://%s:%u",
                            address, port),
    };
}

/* 0: nothing listens. */
static uint16_t port_of(const struct web *web, enum address address)
{
    const struct http_server *http = web->listeners[address].http;
    if (address == ADDRESS_TEMPO)
        return web->tempo_grpc ? grpc_server_port(web->tempo_grpc) : 0;
    return http ? http_server_port(http) : 0;
}

static const char *const endpoint_names[ADDRESS_N] = {
    [ADDRESS_PAGE] = "page",
    [ADDRESS_TEMPO] = "tempo",
    [ADDRESS_SAMPLING] = "sampling",
};

static int copy_endpoints(struct web *web, const struct web_options *options)
{
    size_t n = options->n_endpoints + ADDRESS_N + 1;
    web->endpoints = arena_array(&web->arena, n, sizeof *web->endpoints);
    if (!web->endpoints)
        return ERR_NOMEM;
    for (size_t i = 0; i < options->n_endpoints; i++) {
        const struct web_endpoint *from = &options->endpoints[i];
        web->endpoints[web->n_endpoints++] = (struct web_endpoint){
            .name = arena_str(&web->arena, str_from(from->name)).ptr,
            .url = arena_str(&web->arena, str_from(from->url)).ptr,
        };
    }
    for (int i = 0; i < ADDRESS_N; i++)
        if (web->listeners[i].http)
            endpoint_add(web, options, endpoint_names[i], port_of(web, (enum address)i));
    if (web->jaeger_grpc)
        endpoint_add(web, options, "jaeger_grpc", grpc_server_port(web->jaeger_grpc));
    for (size_t i = 0; i < web->n_endpoints; i++)
        if (!web->endpoints[i].name || !web->endpoints[i].url)
            return ERR_NOMEM;
    return 0;
}

static int listen_all(struct web *web, const struct web_options *options,
                      struct error_detail *ret_detail)
{
    struct http_server_options http = {
        .address = options->address,
        .threads = SERVER_THREADS,
        .connections_max = options->connections_max ? options->connections_max : CONNECTIONS_MAX,
        .body_bytes_max = BODY_BYTES_MAX,
        .inflated_bytes_max = BODY_BYTES_MAX,
        .budget = &web->bodies,
        .handler = handle,
        .error_body = error_body,
    };
    const uint16_t ports[ADDRESS_N] = {
        [ADDRESS_PAGE] = options->port,
        [ADDRESS_TEMPO] = options->tempo_port,
        [ADDRESS_SAMPLING] = options->sampling_port,
    };
    int err = 0;
    for (int i = 0; i < ADDRESS_N && !err; i++) {
        struct error_detail detail = {0};
        if (!endpoint_names[i])
            continue;
        http.port = ports[i];
        http.arg = &web->listeners[i];
        http.is_given_connections = i == ADDRESS_TEMPO;
        err = http_server_new(&http, &web->listeners[i].http, &detail);
        if (!err && i == ADDRESS_TEMPO)
            err = tempo_grpc_new(web, options->address, options->tempo_port, web->listeners[i].http,
                                 &web->tempo_grpc, &detail);
        /* Where a Jaeger agent runs already, all else is served all the same. */
        if (err == ERR_BUSY && i == ADDRESS_SAMPLING) {
            log_warn("%s; going on without %s", detail.message, endpoint_names[i]);
            err = 0;
        }
        if (err && ret_detail)
            *ret_detail = detail;
    }
    if (!err) {
        struct error_detail detail = {0};
        err = jaeger_grpc_new(web, options->address, options->jaeger_grpc_port, &web->jaeger_grpc,
                              &detail);
        if (err == ERR_BUSY) {
            log_warn("%s; going on without jaeger_grpc", detail.message);
            err = 0;
        }
        if (err && ret_detail)
            *ret_detail = detail;
    }
    return err;
}

int web_start(const struct web_options *options, struct web **ret, struct error_detail *ret_detail)
{
    struct web *web = calloc(1, sizeof *web);
    if (!web)
        return error_set(ret_detail, ERR_NOMEM, 0, "out of memory");
    web->store = options->store;
    web->records = options->records;
    web->started_ns = clock_monotonic_ns();
    web->query_timeout_ns =
        (options->query_timeout_ms ? options->query_timeout_ms : QUERY_TIMEOUT_MS) * NS_PER_MS;
    web->loopback_only = is_loopback(options->address);
    web->is_ready = options->is_ready;
    web->ingest_stats = options->ingest_stats;
    web->ledger = options->ledger;
    web->arg = options->arg;
    web->bodies.max = BODIES_BYTES_MAX;
    for (int i = 0; i < ADDRESS_N; i++)
        web->listeners[i] = (struct listener){.web = web, .address = (enum address)i};
    web->stats = calloc(COUNTED, sizeof *web->stats);
    unsigned threads = options->query_threads ? options->query_threads : QUERY_THREADS;
    unsigned clients = options->live_clients_max ? options->live_clients_max : LIVE_CLIENTS_MAX;
    int err = web->stats ? pool_new(threads, QUERY_QUEUE_MAX, &web->pool) : ERR_NOMEM;
    if (!err)
        err = traces_new(&web->traces);
    if (!err)
        err = live_new(web, clients, &web->live);
    if (err) {
        web_stop(web, 0);
        return error_set(ret_detail, err, 0, "the web server cannot start: %s", err_text(err));
    }
    err = sampling_new(options->sampling_strategies, &web->sampling, ret_detail);
    if (!err)
        err = listen_all(web, options, ret_detail);
    if (!err && (err = copy_endpoints(web, options)))
        error_set(ret_detail, err, 0, "out of memory");
    if (err) {
        web_stop(web, 0);
        return err;
    }
    /* release pairs with the acquire in `handle`, which may run already */
    atomic_store_explicit(&web->started, true, memory_order_release);
    *ret = web;
    return 0;
}

uint16_t web_port(const struct web *web)
{
    return http_server_port(web->listeners[ADDRESS_PAGE].http);
}

uint16_t web_tempo_port(const struct web *web)
{
    return port_of(web, ADDRESS_TEMPO);
}

uint16_t web_sampling_port(const struct web *web)
{
    return port_of(web, ADDRESS_SAMPLING);
}

uint16_t web_jaeger_grpc_port(const struct web *web)
{
    return web->jaeger_grpc ? grpc_server_port(web->jaeger_grpc) : 0;
}

void web_stop(struct web *web, unsigned deadline_ms)
{
    if (!web)
        return;
    uint64_t stopped_ns = clock_monotonic_ns();
    live_stop(web->live);
    for (int i = 0; i < ADDRESS_N; i++) {
        uint64_t waited_ms = (clock_monotonic_ns() - stopped_ns) / NS_PER_MS;
        if (web->listeners[i].http)
            http_server_stop(web->listeners[i].http,
                             waited_ms < deadline_ms ? deadline_ms - (unsigned)waited_ms : 0);
    }
    /* Streams that still wait for their clients are told, and come to the pool once more. */
    uint64_t grpc_waited_ms = (clock_monotonic_ns() - stopped_ns) / NS_PER_MS;
    unsigned left_ms = grpc_waited_ms < deadline_ms ? deadline_ms - (unsigned)grpc_waited_ms : 0;
    grpc_server_stop(web->jaeger_grpc, left_ms);
    grpc_server_stop(web->tempo_grpc, left_ms);
    pool_free(web->pool);
    grpc_server_free(web->jaeger_grpc);
    grpc_server_free(web->tempo_grpc);
    traces_free(web->traces);
    live_free(web->live);
    for (int i = 0; i < ADDRESS_N; i++)
        http_server_free(web->listeners[i].http);
    sampling_free(web->sampling);
    free(web->stats);
    arena_done(&web->arena);
    free(web);
}
