/* Answering: a handler makes a response on whatever thread it likes and hands it to the
 * connection's thread (http_internal.h has the states). A stream is a response without an end that
 * sleeps while it has nothing to say. */
#include "net/http_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <zlib.h>

/* Below this a compressed body saves no packet. */
enum { DEFLATE_BYTES_MIN = 1400, DEFLATE_LEVEL = 1 };
enum { STREAM_BLOCK_BYTES = 16 << 10 };
/* Below this an answer is in no budget: the limit of connections bounds them. */
enum { COUNTED_BYTES_MIN = 4 << 10 };

void http_reply_header(struct http_request *r, const char *name, const char *value)
{
    struct header *h = http__header_copy(&r->arena, str_from(name), str_from(value));
    if (!h)
        return;
    h->next = r->reply_headers;
    r->reply_headers = h;
}

void http__answer(struct http_request *r, int status, struct MHD_Response *response)
{
    if (response)
        for (const struct header *h = r->reply_headers; h; h = h->next)
            MHD_add_response_header(response, h->name.ptr, h->value.ptr);
    r->status = status;
    r->response = response;
    struct MHD_Connection *connection = r->connection;
    enum request_state state = RUNNING;
    /* release pairs with the acquire in http_server.c before it reads `response` */
    if (!atomic_compare_exchange_strong_explicit(&r->state, &state, ANSWERED, memory_order_acq_rel,
                                                 memory_order_acquire)) {
        bool answered = false;
        if (state == WAITING) {
            /* One step for http_server_stop: it must not find the request answered and its
             * connection still asleep, nor end libmicrohttpd before this call is out of it. */
            struct http_server *server = r->server;
            pthread_mutex_lock(&server->lock);
            answered = atomic_compare_exchange_strong_explicit(
                &r->state, &state, ANSWERED, memory_order_acq_rel, memory_order_acquire);
            if (answered)
                MHD_resume_connection(connection);
            pthread_mutex_unlock(&server->lock);
        }
        if (!answered && response)
            MHD_destroy_response(response); /* abandoned */
    }
    http__request_unref(r);
}

/* Whether an Accept-Encoding of this value takes gzip (RFC 9110, 12.5.3; q=0 refuses). */
static bool accepts_gzip(const struct http_request *r)
{
    struct str rest = http_header(r, "accept-encoding");
    while (rest.len) {
        struct str parameters, item = str_split(rest, ',', &rest);
        struct str name = str_trim(str_split(item, ';', &parameters));
        if (!str_eq_nocase(name, STR("gzip")) && !str_eq(name, STR("*")))
            continue;
        parameters = str_trim(parameters);
        if (str_starts(parameters, STR("q=0")) || str_starts(parameters, STR("Q=0"))) {
            bool zero = true;
            for (size_t i = 3; i < parameters.len; i++)
                zero = zero && (parameters.ptr[i] == '.' || parameters.ptr[i] == '0');
            if (zero)
                return false;
        }
        return true;
    }
    return false;
}

static bool is_worth_deflating(const char *content_type)
{
    struct str type = str_from(content_type);
    return str_starts(type, STR("text/")) || str_starts(type, STR("application/json")) ||
           str_starts(type, STR("application/javascript")) || str_starts(type, STR("image/svg"));
}

/* NULL when it does not pay. */
static char *gzip(struct str in, size_t *ret_n)
{
    if (in.len > UINT32_MAX)
        return NULL;
    z_stream z = {0};
    if (deflateInit2(&z, DEFLATE_LEVEL, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        return NULL;
    size_t room = in.len - in.len / 8;
    char *out = malloc(room);
    if (out) {
        z.next_in = (Bytef *)(uintptr_t)in.ptr;
        z.avail_in = (uInt)in.len;
        z.next_out = (Bytef *)out;
        z.avail_out = (uInt)room;
        if (deflate(&z, Z_FINISH) == Z_STREAM_END) {
            *ret_n = room - z.avail_out;
            char *less = realloc(out, *ret_n);
            out = less ? less : out;
        } else {
            free(out);
            out = NULL;
        }
    }
    deflateEnd(&z);
    return out;
}

static struct MHD_Response *response_of(char *bytes, size_t n, enum MHD_ResponseMemoryMode mode,
                                        const char *content_type)
{
    struct MHD_Response *response = MHD_create_response_from_buffer(
        n, bytes ? bytes : (char *)(uintptr_t) "", bytes ? mode : MHD_RESPMEM_PERSISTENT);
    if (!response) {
        if (mode == MHD_RESPMEM_MUST_FREE)
            free(bytes);
        return NULL;
    }
    if (content_type)
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, content_type);
    return response;
}

/* The bytes of a large answer until the client has read them. */
struct unread {
    struct budget *budget;
    char *bytes;
    size_t n;
};

static void unread_free(void *arg)
{
    struct unread *u = arg;
    budget_give(u->budget, u->n);
    free(u->bytes);
    free(u);
}

/* Takes `bytes`, and n of the budget. */
static struct MHD_Response *response_unread(struct budget *budget, char *bytes, size_t n,
                                            const char *content_type)
{
    struct unread *u = malloc(sizeof *u);
    struct MHD_Response *response = NULL;
    if (u) {
        *u = (struct unread){budget, bytes, n};
        response = MHD_create_response_from_buffer_with_free_callback_cls(n, bytes, unread_free, u);
    }
    if (!response) {
        budget_give(budget, n);
        free(bytes);
        free(u);
    } else if (content_type) {
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, content_type);
    }
    return response;
}

/* Clients that ask and do not read hold what may be held. */
static void reply_later(struct http_request *r)
{
    const struct str why = STR("too many answers wait to be read; try again later");
    const struct http_server_options *o = &r->server->options;
    struct buf body = BUF_INIT;
    const char *type = "text/plain; charset=utf-8";
    char seconds[12];
    if (o->error_body) {
        type = o->error_body(o->arg, r, 503, why, &body);
    } else {
        buf_str(&body, why);
        buf_byte(&body, '\n');
    }
    snprintf(seconds, sizeof seconds, "%u", o->retry_after_s ? o->retry_after_s(o->arg) : 1);
    http_reply_header(r, MHD_HTTP_HEADER_RETRY_AFTER, seconds);
    atomic_fetch_add_explicit(&r->server->refused_busy, 1, memory_order_relaxed);
    http_reply(r, 503, type, &body);
}

void http_reply(struct http_request *r, int status, const char *content_type, struct buf *body)
{
    if (!buf_ok(body)) {
        buf_done(body);
        *body = BUF_INIT;
        http_reply_text(r, 500, "text/plain; charset=utf-8",
                        STR("the answer did not fit into memory\n"));
        return;
    }
    size_t n, packed_n = 0;
    char *bytes = buf_detach(body, &n), *packed = NULL;
    bool may_pack = content_type && n >= DEFLATE_BYTES_MIN && is_worth_deflating(content_type);
    if (may_pack && accepts_gzip(r) && (packed = gzip((struct str){bytes, n}, &packed_n))) {
        free(bytes);
        bytes = packed;
        n = packed_n;
    }
    bool is_counted = n >= COUNTED_BYTES_MIN;
    if (is_counted && !budget_take(&r->server->unread, n)) {
        free(bytes);
        reply_later(r);
        return;
    }
    struct MHD_Response *response =
        is_counted ? response_unread(&r->server->unread, bytes, n, content_type)
                   : response_of(bytes, n, MHD_RESPMEM_MUST_FREE, content_type);
    if (response && packed)
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_ENCODING, "gzip");
    if (response && may_pack)
        MHD_add_response_header(response, MHD_HTTP_HEADER_VARY, "Accept-Encoding");
    http__answer(r, status, response);
}

void http_reply_text(struct http_request *r, int status, const char *content_type, struct str body)
{
    struct buf copy = BUF_INIT;
    buf_str(&copy, body);
    http_reply(r, status, content_type, &copy);
}

void http_reply_static(struct http_request *r, int status, const char *content_type,
                       struct str body, bool is_gzip)
{
    if (is_gzip && !accepts_gzip(r)) {
        struct body plain;
        struct body_limits limits = {.inflated_bytes_max = (size_t)64 << 20};
        int err = body_init(&plain, CODING_GZIP, &limits);
        if (!err)
            err = body_feed(&plain, body.ptr, body.len);
        if (!err)
            err = body_finish(&plain);
        if (err) {
            body_done(&plain);
            http_reply_text(r, 500, "text/plain; charset=utf-8", str_from(err_text(err)));
            return;
        }
        http_reply(r, status, content_type, &plain.bytes);
        body_done(&plain);
        return;
    }
    struct MHD_Response *response = response_of((char *)(uintptr_t)body.ptr, body.len,
                                                MHD_RESPMEM_PERSISTENT, content_type);
    if (response && is_gzip) {
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_ENCODING, "gzip");
        MHD_add_response_header(response, MHD_HTTP_HEADER_VARY, "Accept-Encoding");
    }
    http__answer(r, status, response);
}

/* ---- streams ---- */

static void stream_unref_locked(struct http_stream *s)
{
    bool last = --s->owners == 0;
    pthread_mutex_unlock(&s->lock);
    if (!last)
        return;
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->room);
    buf_done(&s->waiting);
    free(s);
}

/* libmicrohttpd has room for up to `room` bytes. */
static ssize_t stream_read(void *arg, uint64_t position, char *out, size_t room)
{
    (void)position;
    struct http_stream *s = arg;
    pthread_mutex_lock(&s->lock);
    size_t n = s->waiting.len - s->taken;
    ssize_t result;
    if (n) {
        n = n < room ? n : room;
        memcpy(out, s->waiting.ptr + s->taken, n);
        s->taken += n;
        if (s->taken == s->waiting.len) {
            buf_clear(&s->waiting);
            s->taken = 0;
        }
        result = (ssize_t)n;
        pthread_cond_signal(&s->room);
    } else if (s->closed) {
        result = s->failed ? MHD_CONTENT_READER_END_WITH_ERROR : MHD_CONTENT_READER_END_OF_STREAM;
    } else {
        MHD_suspend_connection(s->connection);
        s->asleep = true;
        result = 0;
    }
    pthread_mutex_unlock(&s->lock);
    return result;
}

/* The response is destroyed: the client left, or all was said. */
static void stream_forget(void *arg)
{
    struct http_stream *s = arg;
    struct http_server *server = s->server;
    pthread_mutex_lock(&server->lock);
    if (s->newer)
        s->newer->older = s->older;
    else
        server->streams = s->older;
    if (s->older)
        s->older->newer = s->newer;
    pthread_mutex_unlock(&server->lock);
    pthread_mutex_lock(&s->lock);
    s->gone = true;
    s->asleep = false;
    pthread_cond_signal(&s->room);
    stream_unref_locked(s);
}

struct http_stream *http_reply_stream(struct http_request *r, const char *content_type,
                                      size_t bytes_max)
{
    struct http_server *server = r->server;
    struct http_stream *s = calloc(1, sizeof *s);
    struct MHD_Response *response =
        s ? MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK_BYTES, stream_read, s,
                                              stream_forget)
          : NULL;
    if (!response) {
        free(s);
        http_reply_text(r, 503, "text/plain; charset=utf-8", STR("out of memory\n"));
        return NULL;
    }
    *s = (struct http_stream){
        .server = server, .connection = r->connection, .owners = 2, .waiting.bytes_max = bytes_max};
    pthread_mutex_init(&s->lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&s->room, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_lock(&server->lock);
    s->older = server->streams;
    if (s->older)
        s->older->newer = s;
    server->streams = s;
    s->closed = atomic_load(&server->stopping);
    pthread_mutex_unlock(&server->lock);
    r->is_stream = true;
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, content_type);
    MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    http__answer(r, 200, response);
    return s;
}

static void wake_locked(struct http_stream *s)
{
    if (s->asleep) {
        s->asleep = false;
        MHD_resume_connection(s->connection);
    }
}

static bool write_locked(struct http_stream *s, struct str bytes)
{
    bool fits = !s->gone && !s->closed;
    if (fits && s->taken) { /* what was read makes room */
        s->waiting.len -= s->taken;
        memmove(s->waiting.ptr, s->waiting.ptr + s->taken, s->waiting.len);
        s->taken = 0;
    }
    if (fits) {
        fits = buf_reserve(&s->waiting, bytes.len);
        s->waiting.failed = false;
    }
    if (fits) {
        buf_str(&s->waiting, bytes);
        wake_locked(s);
    }
    return fits;
}

bool http_stream_write(struct http_stream *s, struct str bytes)
{
    pthread_mutex_lock(&s->lock);
    bool fits = write_locked(s, bytes);
    pthread_mutex_unlock(&s->lock);
    return fits;
}

bool http_stream_put(struct http_stream *s, struct str bytes, unsigned stall_ms)
{
    pthread_mutex_lock(&s->lock);
    bool fits;
    while (!(fits = write_locked(s, bytes)) && !s->gone && !s->closed) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += stall_ms / 1000;
        until.tv_nsec += (long)(stall_ms % 1000) * 1000000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        if (pthread_cond_timedwait(&s->room, &s->lock, &until))
            break;
    }
    pthread_mutex_unlock(&s->lock);
    return fits;
}

void http_stream_fail(struct http_stream *s)
{
    pthread_mutex_lock(&s->lock);
    s->failed = true;
    pthread_mutex_unlock(&s->lock);
}

bool http_stream_is_gone(struct http_stream *s)
{
    pthread_mutex_lock(&s->lock);
    bool gone = s->gone || s->closed;
    pthread_mutex_unlock(&s->lock);
    return gone;
}

void http__stream_end(struct http_stream *s)
{
    pthread_mutex_lock(&s->lock);
    s->closed = true;
    wake_locked(s);
    pthread_cond_signal(&s->room);
    pthread_mutex_unlock(&s->lock);
}

void http_stream_close(struct http_stream *s)
{
    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    s->closed = true;
    wake_locked(s);
    stream_unref_locked(s);
}
