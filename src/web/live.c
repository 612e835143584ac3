/* Live spans as server-sent events.
 *
 * The store calls `on_batch` on its own thread after each batch became durable, so it must be
 * short: with nobody listening it is one look at a counter. Every client has a filter, a bounded
 * buffer in its stream, and a rate. What does not fit is counted, and the client is told the count
 * as soon as something fits again; after the first span of a batch that does not fit, the rest of
 * the batch is only counted.
 *
 * `lock` guards the list and everything in it. The thread here wakes up now and then to tell
 * counts, to send a comment so that proxies and browsers keep the connection, and to bury clients
 * that have gone. */
#include "web/web_internal.h"

#include "base/clock.h"
#include "query/traceql.h"

#include <stdlib.h>

enum {
    STREAM_BYTES_MAX = 256 << 10,
    RATE_PER_S = 2000, /* more than anybody reads; protects the ingest from a filter that is wide */
    TICK_MS = 250,
    COMMENT_MS = 2000, /* a client that has gone is noticed when something is written */
};

struct client {
    struct client *next;
    struct http_stream *stream;
    struct traceql *filter; /* NULL: every span */
    uint64_t dropped;       /* not yet told */
    uint64_t second;        /* the one that `in_second` counts */
    unsigned in_second;
    uint64_t comment_due_ns;
};

struct live {
    struct web *web;
    atomic_uint n_clients; /* written under the lock; read before it is taken */
    unsigned clients_max;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct client *clients;
    struct buf event; /* scratch */
    bool ending, has_thread;
    pthread_t thread;
};

/* ---- events ---- */

static void hex_field(struct json_writer *w, const char *key, const uint8_t *bytes, size_t n)
{
    json_key(w, str_from(key));
    json_hex(w, bytes, n);
}

static void span_event(const struct span *span, struct buf *out)
{
    static const char *const statuses[] = {"UNSET", "OK", "ERROR"};
    buf_clear(out);
    buf_cstr(out, "event: span\ndata: ");
    struct json_writer w = json_writer(out);
    json_open(&w, '{');
    hex_field(&w, "traceId", span->trace_id.bytes, TRACE_ID_SIZE);
    hex_field(&w, "spanId", span->span_id.bytes, SPAN_ID_SIZE);
    json_key(&w, STR("parentSpanId"));
    json_hex(&w, span->parent_id.bytes, span_id_is_zero(&span->parent_id) ? 0 : SPAN_ID_SIZE);
    json_key(&w, STR("service"));
    json_str(&w, span->resource->service_name);
    json_key(&w, STR("name"));
    json_str(&w, span->name);
    json_key(&w, STR("kind"));
    json_str(&w, str_from(span_kind_name(span->kind)));
    json_key(&w, STR("startUnixNano"));
    json_u64_str(&w, span->start_ns);
    json_key(&w, STR("durationNano"));
    json_u64_str(&w, span_duration_ns(span));
    json_key(&w, STR("status"));
    json_str(&w, str_from(statuses[span->status_code > STATUS_ERROR ? 0 : span->status_code]));
    json_close(&w, '}');
    buf_cstr(out, "\n\n");
}

/* Tells the count, if there is one and it fits. */
static bool tell_dropped(struct client *c)
{
    if (!c->dropped)
        return true;
    struct buf out = BUF_INIT;
    buf_printf(&out, "event: dropped\ndata: {\"count\":\"%llu\"}\n\n",
               (unsigned long long)c->dropped);
    bool told = buf_ok(&out) && http_stream_write(c->stream, buf_as_str(&out));
    buf_done(&out);
    if (told)
        c->dropped = 0;
    return told;
}

static void client_take(struct live *live, struct client *c, const struct span_batch *batch,
                        uint64_t second)
{
    if (c->second != second) {
        c->second = second;
        c->in_second = 0;
    }
    bool fits = tell_dropped(c);
    for (size_t i = 0; i < batch->n; i++) {
        const struct span *span = &batch->spans[i];
        if (c->filter && !traceql_match_span(c->filter, span))
            continue;
        if (fits && c->in_second < RATE_PER_S) {
            span_event(span, &live->event);
            fits = buf_ok(&live->event) && http_stream_write(c->stream, buf_as_str(&live->event));
            if (fits) {
                c->in_second++;
                continue;
            }
        }
        c->dropped++;
    }
}

static void on_batch(void *arg, const struct span_batch *batch)
{
    struct live *live = arg;
    if (!atomic_load_explicit(&live->n_clients, memory_order_relaxed))
        return;
    uint64_t second = clock_monotonic_ns() / NS_PER_S;
    pthread_mutex_lock(&live->lock);
    for (struct client *c = live->clients; c; c = c->next)
        client_take(live, c, batch, second);
    pthread_mutex_unlock(&live->lock);
}

/* ---- clients ---- */

static void client_free(struct client *c)
{
    http_stream_close(c->stream);
    traceql_free(c->filter);
    free(c);
}

static void *tick(void *arg)
{
    struct live *live = arg;
    pthread_mutex_lock(&live->lock);
    while (!live->ending) {
        if (!live->clients) {
            pthread_cond_wait(&live->wake, &live->lock);
            continue;
        }
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        uint64_t at_ns = (uint64_t)until.tv_nsec + TICK_MS * NS_PER_MS;
        until.tv_sec += (time_t)(at_ns / NS_PER_S);
        until.tv_nsec = (long)(at_ns % NS_PER_S);
        pthread_cond_timedwait(&live->wake, &live->lock, &until);
        uint64_t now_ns = clock_monotonic_ns();
        for (struct client **at = &live->clients; *at;) {
            struct client *c = *at;
            tell_dropped(c);
            if (now_ns >= c->comment_due_ns) {
                c->comment_due_ns = now_ns + COMMENT_MS * NS_PER_MS;
                /* One that does not fit is not needed: there is enough on the way. */
                (void)http_stream_write(c->stream, STR(": still here\n\n"));
            }
            if (!http_stream_is_gone(c->stream)) {
                at = &c->next;
                continue;
            }
            *at = c->next;
            atomic_fetch_sub_explicit(&live->n_clients, 1, memory_order_relaxed);
            client_free(c);
        }
    }
    pthread_mutex_unlock(&live->lock);
    return NULL;
}

void live_events(struct web_request *q)
{
    struct live *live = q->web->live;
    struct str text = web_param(q, "q");
    struct client *c = calloc(1, sizeof *c);
    if (!c) {
        web_fail(q, 503, "out of memory");
        return;
    }
    if (text.ptr) {
        struct error_detail detail;
        int err = traceql_parse(text, &c->filter, &detail);
        if (!err && (c->filter->needs_trace || c->filter->metric))
            err = error_set(&detail, ERR_UNSUPPORTED, 0,
                            "what is asked of the whole trace (rootName, structure, aggregates, "
                            "metrics) is not known while it is still being written");
        if (err) {
            traceql_free(c->filter);
            free(c);
            web_fail_at(q, 400, "q", detail.position, detail.message);
            return;
        }
    }
    pthread_mutex_lock(&live->lock);
    unsigned n = atomic_load_explicit(&live->n_clients, memory_order_relaxed);
    bool full = n >= live->clients_max, ending = live->ending;
    if (!full && !ending) {
        web_answered(q, 200);
        http_reply_header(q->http, "Cache-Control", "no-store");
        http_reply_header(q->http, "X-Accel-Buffering", "no"); /* nginx: do not hold it back */
        c->stream = http_reply_stream(q->http, "text/event-stream", STREAM_BYTES_MAX);
        if (c->stream) {
            /* Something at once, so that the client sees that it is connected. */
            (void)http_stream_write(c->stream, STR("retry: 2000\n: here\n\n"));
            c->comment_due_ns = clock_monotonic_ns() + COMMENT_MS * NS_PER_MS;
            c->next = live->clients;
            live->clients = c;
            atomic_store_explicit(&live->n_clients, n + 1, memory_order_relaxed);
            pthread_cond_signal(&live->wake);
            c = NULL;
        }
    }
    pthread_mutex_unlock(&live->lock);
    if (c) {
        traceql_free(c->filter);
        free(c);
    }
    if (full || ending) {
        http_reply_header(q->http, "Retry-After", "5");
        web_fail(q, 503, ending ? "the server is stopping" : "there are too many live streams");
    }
}

/* ---- life ---- */

int live_new(struct web *web, unsigned clients_max, struct live **ret)
{
    struct live *live = calloc(1, sizeof *live);
    if (!live)
        return ERR_NOMEM;
    live->web = web;
    live->clients_max = clients_max;
    pthread_mutex_init(&live->lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&live->wake, &attr);
    pthread_condattr_destroy(&attr);
    live->has_thread = !pthread_create(&live->thread, NULL, tick, live);
    if (!live->has_thread) {
        live_free(live);
        return ERR_NOMEM;
    }
    store_watch(web->store, on_batch, live);
    *ret = live;
    return 0;
}

unsigned live_clients(struct live *live)
{
    return atomic_load_explicit(&live->n_clients, memory_order_relaxed);
}

void live_stop(struct live *live)
{
    if (!live || !live->has_thread)
        return;
    store_watch(live->web->store, NULL, NULL);
    pthread_mutex_lock(&live->lock);
    live->ending = true;
    pthread_cond_signal(&live->wake);
    pthread_mutex_unlock(&live->lock);
    pthread_join(live->thread, NULL);
    live->has_thread = false;
    for (struct client *c = live->clients, *next; c; c = next) {
        next = c->next;
        tell_dropped(c);
        client_free(c);
    }
    live->clients = NULL;
    atomic_store_explicit(&live->n_clients, 0, memory_order_relaxed);
}

void live_free(struct live *live)
{
    if (!live)
        return;
    pthread_cond_destroy(&live->wake);
    pthread_mutex_destroy(&live->lock);
    buf_done(&live->event);
    free(live);
}
