/* Tempo's StreamingQuerier: what Grafana asks when streaming is on, of the same host and port as HTTP.
 *
 * A call becomes a request of the HTTP API: its message gives the parameters (`param_of`), the same handlers check and
 * run it, and where they would write JSON they send messages (tempo_stream.c). Messages go out as they come, until the
 * client reads more slowly than they do; then they wait here, at most ANSWER_BYTES_MAX of them, which is what an
 * answer over HTTP may be. The query is never waiting for a client.
 * Source: grafana/tempo, pkg/tempopb/tempo.proto; pkg/api. */
#include "web/tempo_grpc.h"

#include "base/clock.h"
#include "web/tempo.h"
#include "wire/tempo_query.h"

#include <assert.h>
#include <pugmark/pugmark.h>
#include <stddef.h>
#include <stdlib.h>

enum {
    CALLS_MAX = 64,
    CONNECTIONS_MAX = 256,
    MESSAGE_BYTES_MAX = 1 << 20,
    STALL_TIMEOUT_S = 10, /* a client that does not read for twice as long loses its call */
};

static const struct method_kind {
    const char *path;
    enum tempo_request_type request;
    web_handler_fn *handler;
} kinds[];

struct waiting {
    struct waiting *next;
    struct buf message;
};

/* One call; it lives in the call's arena. The request comes first: handlers know that alone. */
struct rpc {
    struct web_request q;
    struct grpc_call *call;
    const struct method_kind *kind;
    struct tempo_request request;

    struct waiting *first, *last; /* messages that the client has no room for */
    size_t waiting_bytes;
    bool is_slow; /* there is no room */
    int err;      /* nothing more is sent, because of that */
};

static struct rpc *rpc_of(struct web_request *q)
{
    static_assert(offsetof(struct rpc, q) == 0, "the request comes first");
    return (struct rpc *)(void *)q;
}

/* ---- the message as parameters ---- */

static struct str number(struct rpc *r, uint64_t n, const char *unit)
{
    if (!n)
        return STR_NONE;
    const char *text = arena_printf(r->q.arena, "%llu%s", (unsigned long long)n, unit);
    return text ? str_from(text) : STR_NONE;
}

/* key="value", as the HTTP API has tags. */
static struct str tags_text(struct rpc *r)
{
    struct buf text = BUF_INIT;
    for (size_t i = 0; i < r->request.n_tags; i++) {
        buf_printf(&text, "%s%.*s=", i ? " " : "", STR_ARG(r->request.tags[i].key));
        web_put_quoted(&text, r->request.tags[i].value);
    }
    struct str copy = text.len ? arena_str(r->q.arena, buf_as_str(&text)) : STR_NONE;
    buf_done(&text);
    return copy;
}

/* What the HTTP API would be given. 0 and an empty text are the same as nothing, but for exemplars, of which nothing means
 * as many as there may be. */
static struct str param_of(struct web_request *q, const char *name)
{
    struct rpc *r = rpc_of(q);
    const struct tempo_request *m = &r->request;
    bool is_metric = r->kind->request >= TEMPO_QUERY_RANGE;
    const struct {
        const char *name;
        struct str value;
    } texts[] = {{"q", m->query}, {"scope", m->scope}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (!strcmp(name, texts[i].name))
            return texts[i].value.len ? texts[i].value : STR_NONE;
    if (!strcmp(name, "tags"))
        return tags_text(r);
    const struct {
        const char *name;
        uint64_t value;
        const char *unit;
    } numbers[] = {
        /* eleven digits make nanoseconds of a number */
        {"start", m->start, ""},
        {"end", m->end, ""},
        {"step", m->step_ns, "ns"},
        {"minDuration", m->duration_min_ms, "ms"},
        {"maxDuration", m->duration_max_ms, "ms"},
        {"limit", m->limit, ""},
        {"spss", m->spans_per_set, ""},
        {"exemplars", m->exemplars, ""},
        {"maxSeries", m->series_max, ""},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        if (strcmp(name, numbers[i].name) != 0)
            continue;
        if (is_metric && i < 2 && numbers[i].value) {
            const char *padded = arena_printf(q->arena, "%011llu",
                                              (unsigned long long)numbers[i].value);
            return padded ? str_from(padded) : STR_NONE;
        }
        return number(r, numbers[i].value, numbers[i].unit);
    }
    return STR_NONE;
}

/* ---- ends ---- */

static enum grpc_code code_of(int status)
{
    return status == 400   ? GRPC_INVALID_ARGUMENT
           : status == 404 ? GRPC_NOT_FOUND
           : status == 503 ? GRPC_UNAVAILABLE
           : status == 504 ? GRPC_DEADLINE_EXCEEDED
                           : GRPC_INTERNAL;
}

static void waiting_free(struct rpc *r)
{
    for (struct waiting *w = r->first, *next; w; w = next) {
        next = w->next;
        buf_done(&w->message);
        free(w);
    }
    r->first = r->last = NULL;
}

static void rpc_end(struct rpc *r, enum grpc_code code, struct str message)
{
    struct web_request *q = &r->q;
    waiting_free(r);
    store_view_free(web_view_take(q));
    atomic_fetch_add_explicit(&q->stats->requests, 1, memory_order_relaxed);
    if (code == GRPC_INTERNAL || code == GRPC_UNAVAILABLE || code == GRPC_DEADLINE_EXCEEDED)
        atomic_fetch_add_explicit(&q->stats->failures, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&q->stats->busy_ns, clock_monotonic_ns() - q->arrived_ns,
                              memory_order_relaxed);
    grpc_stream_end(r->call, code, message, STR_NONE);
}

/* What was sent before it stays sent. */
static void rpc_fail(struct web_request *q, int status, struct str message)
{
    rpc_end(rpc_of(q), code_of(status), message);
}

static const struct web_rpc rpc_words = {.param = param_of, .fail = rpc_fail};

/* ---- messages ---- */

static bool keep_waiting(struct rpc *r, struct buf *message)
{
    struct waiting *w = message->len <= ANSWER_BYTES_MAX - r->waiting_bytes ? malloc(sizeof *w)
                                                                            : NULL;
    if (!w) {
        buf_done(message);
        *message = BUF_INIT;
        r->err = ERR_NOMEM;
        return false;
    }
    *w = (struct waiting){.message = *message};
    r->waiting_bytes += message->len;
    *message = BUF_INIT;
    if (r->last)
        r->last->next = w;
    else
        r->first = w;
    r->last = w;
    return true;
}

bool tempo_send(struct web_request *q, struct buf *message)
{
    struct rpc *r = rpc_of(q);
    if (r->err || !buf_ok(message)) {
        r->err = r->err ? r->err : ERR_NOMEM;
        buf_done(message);
        *message = BUF_INIT;
        return false;
    }
    if (r->is_slow)
        return keep_waiting(r, message);
    int err = grpc_stream_write(r->call, message);
    r->is_slow = err == ERR_BUSY;
    r->err = r->is_slow ? 0 : err;
    return !r->err;
}

static void drain(struct rpc *r);

/* On the server's thread, or before grpc_stream_wait returns; writing does not block. */
static void there_is_room(void *arg, struct grpc_call *call)
{
    (void)call;
    struct rpc *r = arg;
    r->is_slow = false;
    drain(r);
}

/* Sends what waits, and ends when there is nothing more. */
static void drain(struct rpc *r)
{
    while (r->first && !r->is_slow && !r->err) {
        struct waiting *w = r->first;
        r->first = w->next;
        r->last = w->next ? r->last : NULL;
        r->waiting_bytes -= w->message.len;
        int err = grpc_stream_write(r->call, &w->message);
        free(w);
        r->is_slow = err == ERR_BUSY;
        r->err = r->is_slow ? 0 : err;
    }
    if (r->err)
        rpc_end(r, r->err == ERR_CLOSED ? GRPC_CANCELLED : GRPC_INTERNAL,
                str_from(err_text(r->err)));
    else if (r->first)
        grpc_stream_wait(r->call, there_is_room, r);
    else
        rpc_end(r, GRPC_OK, STR_NONE);
}

void tempo_sent(struct web_request *q)
{
    /* What it was read from is not needed any more. */
    store_view_free(web_view_take(q));
    drain(rpc_of(q));
}

/* ---- calls ---- */

static void run_rpc(void *arg, bool is_ending)
{
    struct rpc *r = arg;
    struct web_request *q = &r->q;
    struct error_detail detail = {0};
    if (is_ending) {
        web_fail(q, 503, "the server is stopping");
        return;
    }
    PUG_SPAN("web.grpc", PUG_KIND(PUG_KIND_SERVER), PUG_STR("rpc.method", r->kind->path));
    int err = tempo_request_decode(r->kind->request, grpc_message(r->call), q->arena, &r->request,
                                   &detail);
    if (err) {
        web_fail(q, err == ERR_NOMEM ? 503 : 400, "%s", detail.message);
        return;
    }
    if (r->kind->request == TEMPO_TAG_VALUES)
        q->params[0] = r->request.tag_name.ptr ? r->request.tag_name : STR("");
    r->kind->handler(q); /* which is gone then, or waits for its client */
}

static void take(struct web *web, struct grpc_call *call, const struct method_kind *kind)
{
    struct rpc *r = arena_zalloc(grpc_arena(call), sizeof *r);
    if (!r) {
        grpc_reply_error(call, GRPC_UNAVAILABLE, STR("out of memory"), STR_NONE);
        return;
    }
    *r = (struct rpc){
        .q = {.web = web,
              .rpc = &rpc_words,
              .arena = grpc_arena(call),
              .dialect = DIALECT_PLAIN,
              .stats = web_tempo_grpc_stats(web),
              .arrived_ns = clock_monotonic_ns()},
        .call = call,
        .kind = kind,
    };
    /* acquire pairs with the release in web_start */
    if (!atomic_load_explicit(&web->started, memory_order_acquire))
        web_fail(&r->q, 503, "the server is starting");
    else if (!pool_put(web->pool, run_rpc, r))
        web_fail(&r->q, 503, "too many requests are waiting");
}

#define SERVICE "/tempopb.StreamingQuerier/"

static const struct method_kind kinds[] = {
    {SERVICE "Search", TEMPO_SEARCH, tempo_search},
    {SERVICE "SearchTags", TEMPO_TAGS, tempo_tags},
    {SERVICE "SearchTagsV2", TEMPO_TAGS, tempo_tags_v2},
    {SERVICE "SearchTagValues", TEMPO_TAG_VALUES, tempo_values},
    {SERVICE "SearchTagValuesV2", TEMPO_TAG_VALUES, tempo_values_v2},
    {SERVICE "MetricsQueryRange", TEMPO_QUERY_RANGE, tempo_query_range},
    {SERVICE "MetricsQueryInstant", TEMPO_QUERY_INSTANT, tempo_query_instant},
};

#define METHOD(i, name)                                                                            \
    static void name(void *arg, struct grpc_call *call)                                            \
    {                                                                                              \
        take(arg, call, &kinds[i]);                                                                \
    }
METHOD(0, take_search)
METHOD(1, take_tags)
METHOD(2, take_tags_v2)
METHOD(3, take_values)
METHOD(4, take_values_v2)
METHOD(5, take_range)
METHOD(6, take_instant)

static bool take_http(void *arg, int fd)
{
    return http_server_take(arg, fd);
}

int tempo_grpc_new(struct web *web, const char *address, uint16_t port, struct http_server *http,
                   struct grpc_server **ret, struct error_detail *ret_detail)
{
    static grpc_handler_fn *const handlers[] = {take_search, take_tags,      take_tags_v2,
                                                take_values, take_values_v2, take_range,
                                                take_instant};
    enum { METHODS = sizeof kinds / sizeof *kinds };
    static_assert(METHODS == sizeof handlers / sizeof *handlers, "a handler for each method");
    struct grpc_method *methods = arena_array(&web->arena, METHODS, sizeof *methods);
    if (!methods)
        return error_set(ret_detail, ERR_NOMEM, 0, "out of memory");
    for (int i = 0; i < METHODS; i++)
        methods[i] = (struct grpc_method){kinds[i].path, handlers[i]};
    struct grpc_server_options options = {
        .address = address ? address : "127.0.0.1",
        .port = port,
        .methods = methods,
        .n_methods = METHODS,
        .arg = web,
        .other = take_http,
        .other_arg = http,
        .connections_max = CONNECTIONS_MAX,
        .calls_max = CALLS_MAX,
        .message_bytes_max = MESSAGE_BYTES_MAX,
        .inflated_bytes_max = MESSAGE_BYTES_MAX,
        .message_timeout_s = STALL_TIMEOUT_S,
        .budget = &web->bodies,
    };
    return grpc_server_new(&options, ret, ret_detail);
}
