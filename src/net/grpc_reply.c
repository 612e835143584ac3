/* Answers: what the server refuses by itself, one message, a stream of messages.
 *
 * Invariants
 *  1. A handler answers with one of grpc_reply, grpc_reply_error, grpc_stream_end; each gives the handler's ownership up
 *     by putting the call on the server's list a last time. While it is on the list it has it still.
 *  2. A stream: its parts are a queue under the server's lock. Who writes appends; the loop thread takes from the front
 *     when nghttp2 asks, which it does only while the client's windows are open. So at most GRPC_STREAM_BYTES_MAX and one
 *     message wait for a client that does not read; the writer is told, and called when half of it is gone.
 *  3. nghttp2 is asleep for a stream (`is_deferred`) when it asked and there was nothing; a part that comes wakes it.
 *  4. Once `is_gone`, nothing is queued any more, and nobody waits for room. */
#include "net/grpc_internal.h"

#include "base/base64.h"
#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* ---- owners ---- */

void grpc__server_unref(struct grpc_server *s)
{
    if (atomic_fetch_sub_explicit(&s->owners, 1, memory_order_acq_rel) != 1)
        return;
    pthread_mutex_destroy(&s->lock);
    free(s);
}

void grpc__call_unref(struct grpc_call *call)
{
    if (atomic_fetch_sub_explicit(&call->owners, 1, memory_order_acq_rel) != 1)
        return;
    struct grpc_server *server = call->server;
    grpc_reader_done(&call->reader);
    buf_done(&call->reply.message);
    buf_done(&call->stream.text);
    buf_done(&call->stream.details);
    arena_done(&call->arena);
    free(call);
    atomic_fetch_sub_explicit(&server->calls_alive, 1, memory_order_relaxed);
    grpc__server_unref(server);
}

void grpc__count_refused(struct grpc_server *s, enum grpc_code code)
{
    atomic_fetch_add_explicit(code == GRPC_RESOURCE_EXHAUSTED ? &s->refused_too_large
                              : code == GRPC_UNAVAILABLE      ? &s->refused_busy
                                                              : &s->refused_bad,
                              1, memory_order_relaxed);
}

/* ---- answers ---- */

static nghttp2_nv pair(const char *name, const char *value, size_t n)
{
    return (nghttp2_nv){(uint8_t *)(uintptr_t)name, (uint8_t *)(uintptr_t)value, strlen(name), n,
                        NGHTTP2_NV_FLAG_NONE};
}

/* Percent-encoding of grpc-message: what is not printable ASCII, and '%'. */
static void put_escaped(struct buf *out, struct str text)
{
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.ptr[i];
        if (c >= 0x20 && c <= 0x7e && c != '%')
            buf_byte(out, (char)c);
        else
            buf_printf(out, "%%%02X", c);
    }
}

/* -bin headers are base64 without padding. */
static void put_base64(struct buf *out, struct str bytes)
{
    if (!buf_reserve(out, BASE64_SIZE(bytes.len)))
        return;
    base64_put(out->ptr + out->len, (const uint8_t *)bytes.ptr, bytes.len);
    out->len += BASE64_SIZE(bytes.len);
    while (out->len && out->ptr[out->len - 1] == '=')
        out->len--;
}

enum { TRAILERS_MAX = 4 };

struct trailers {
    nghttp2_nv pairs[TRAILERS_MAX];
    size_t n;
    char code[12];
    struct buf text, details;
};

static void trailers_init(struct trailers *t, const struct grpc_call *call, enum grpc_code code,
                          struct str text, struct str details)
{
    *t = (struct trailers){0};
    int digits = snprintf(t->code, sizeof t->code, "%d", (int)code);
    t->pairs[t->n++] = pair("grpc-status", t->code, (size_t)digits);
    if (call->reply.trailer_name)
        t->pairs[t->n++] = pair(call->reply.trailer_name, call->reply.trailer_value,
                                strlen(call->reply.trailer_value));
    if (text.len) {
        put_escaped(&t->text, text);
        if (buf_ok(&t->text))
            t->pairs[t->n++] = pair("grpc-message", t->text.ptr, t->text.len);
    }
    if (details.len) {
        put_base64(&t->details, details);
        if (buf_ok(&t->details))
            t->pairs[t->n++] = pair("grpc-status-details-bin", t->details.ptr, t->details.len);
    }
}

static void trailers_done(struct trailers *t)
{
    buf_done(&t->text);
    buf_done(&t->details);
}

void grpc_trailer(struct grpc_call *call, const char *name, const char *value)
{
    call->reply.trailer_name = name;
    call->reply.trailer_value = value;
}

static void mark_answered(struct grpc_call *call)
{
    call->is_answered = true;
    call->answered_ns = clock_monotonic_ns();
}

/* Headers that are trailers, too: an answer without a message. */
static void answer_trailers_only(struct grpc_call *call, enum grpc_code code, struct str text,
                                 struct str details)
{
    struct trailers t;
    trailers_init(&t, call, code, text, details);
    nghttp2_nv pairs[3 + TRAILERS_MAX] = {
        pair(":status", "200", 3),
        pair("content-type", "application/grpc", 16),
        pair("grpc-accept-encoding", "identity,gzip,deflate,zstd", 26),
    };
    memcpy(pairs + 3, t.pairs, t.n * sizeof *t.pairs);
    if (nghttp2_submit_response(call->conn->session, call->stream_id, pairs, 3 + t.n, NULL) != 0)
        call->conn->is_closing = true;
    trailers_done(&t);
    mark_answered(call);
}

void grpc__answer_refused(struct grpc_call *call)
{
    if (call->is_answered || !call->conn)
        return;
    if (!call->refused_http) {
        const struct grpc_server_options *o = &call->server->options;
        struct str why = str_from(call->refused_why);
        struct buf details = BUF_INIT;
        if (call->refused_code == GRPC_UNAVAILABLE && o->busy_details)
            o->busy_details(o->arg, call->refused_code, why, &details);
        answer_trailers_only(call, call->refused_code, why,
                             buf_ok(&details) ? buf_as_str(&details) : STR_NONE);
        buf_done(&details);
        return;
    }
    nghttp2_nv pairs[] = {pair(":status", call->refused_http, 3)};
    if (nghttp2_submit_response(call->conn->session, call->stream_id, pairs, 1, NULL) != 0)
        call->conn->is_closing = true;
    mark_answered(call);
}

/* Some clients take an answer that comes while they still send for a broken stream, so it waits
 * until they are through, or have sent DRAIN_BYTES more, or take too long. */
static void refuse(struct grpc_call *call, const char *http, enum grpc_code code, const char *why)
{
    if (call->is_answered || call->is_refused)
        return;
    call->is_refused = true;
    call->refused_http = http;
    call->refused_code = code;
    call->refused_why = why;
    grpc__count_refused(call->server, code);
    if (!call->has_handler) {
        grpc_reader_done(&call->reader);
        call->reader = (struct grpc_reader){0};
    }
    if (call->is_complete)
        grpc__answer_refused(call);
}

void grpc__refuse(struct grpc_call *call, enum grpc_code code, const char *why)
{
    refuse(call, NULL, code, why);
}

void grpc__refuse_http(struct grpc_call *call, const char *status)
{
    refuse(call, status, GRPC_INTERNAL, NULL);
}

static ssize_t read_reply(nghttp2_session *session, int32_t stream_id, uint8_t *out, size_t room,
                          uint32_t *flags, nghttp2_data_source *source, void *arg)
{
    (void)arg;
    struct grpc_call *call = source->ptr;
    size_t n = 0;
    while (n < room && call->reply_sent < sizeof call->reply.head)
        out[n++] = call->reply.head[call->reply_sent++];
    size_t at = call->reply_sent - sizeof call->reply.head;
    if (call->reply_sent >= sizeof call->reply.head && at < call->reply.message.len) {
        size_t part = call->reply.message.len - at;
        part = part < room - n ? part : room - n;
        memcpy(out + n, call->reply.message.ptr + at, part);
        n += part;
        call->reply_sent += part;
    }
    if (call->reply_sent == sizeof call->reply.head + call->reply.message.len) {
        *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
        struct trailers t; /* which borrow nothing but constants here */
        trailers_init(&t, call, GRPC_OK, STR_NONE, STR_NONE);
        if (nghttp2_submit_trailer(session, stream_id, t.pairs, t.n) != 0)
            return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    }
    return (ssize_t)n;
}

/* Headers, and messages that nghttp2 asks `read` for. */
static void submit(struct grpc_call *call, nghttp2_data_source_read_callback read)
{
    nghttp2_nv pairs[] = {
        pair(":status", "200", 3),
        pair("content-type", "application/grpc", 16),
        pair("grpc-accept-encoding", "identity,gzip,deflate,zstd", 26),
    };
    nghttp2_data_provider provider = {.source.ptr = call, .read_callback = read};
    if (nghttp2_submit_response(call->conn->session, call->stream_id, pairs, 3, &provider) != 0)
        call->conn->is_closing = true;
    mark_answered(call);
}

/* The handler's answer reached the loop. */
static void send_answer(struct grpc_call *call)
{
    if (!call->conn || call->is_answered)
        return;
    if (call->reply.code != GRPC_OK) {
        answer_trailers_only(call, call->reply.code, call->reply.text, call->reply.details);
        return;
    }
    submit(call, read_reply);
}

void grpc__wake(struct grpc_server *s)
{
    uint64_t one = 1;
    ssize_t n = write(s->wake_fd, &one, sizeof one);
    (void)n; /* full means that it is awake */
}

/* With the lock. */
static void list(struct grpc_call *call)
{
    struct grpc_server *s = call->server;
    if (call->is_listed)
        return;
    call->is_listed = true;
    call->next_answered = s->answered;
    if (!s->answered && !pthread_equal(pthread_self(), s->loop_thread))
        grpc__wake(s); /* under the lock, so that the descriptor is still open */
    s->answered = call;
}

/* The handler's ownership goes to the list; the loop gives it up. */
static void hand_over(struct grpc_call *call)
{
    struct grpc_server *s = call->server;
    pthread_mutex_lock(&s->lock);
    bool ended = s->ended;
    if (!ended) {
        call->is_last = true;
        list(call);
    }
    pthread_mutex_unlock(&s->lock);
    if (ended)
        grpc__call_unref(call);
}

void grpc_reply(struct grpc_call *call, struct buf *message)
{
    if (!buf_ok(message) || message->len > UINT32_MAX) {
        buf_done(message);
        *message = BUF_INIT;
        grpc_reply_error(call, GRPC_UNAVAILABLE, STR("out of memory"), STR_NONE);
        return;
    }
    call->reply.message = *message;
    *message = BUF_INIT;
    grpc_frame_head(call->reply.head, (uint32_t)call->reply.message.len);
    call->reply.code = GRPC_OK;
    hand_over(call);
}

void grpc_reply_error(struct grpc_call *call, enum grpc_code code, struct str message,
                      struct str details)
{
    call->reply.code = code;
    call->reply.text = arena_str(&call->arena, message);
    call->reply.details = arena_str(&call->arena, details);
    if (!call->reply.text.ptr)
        call->reply.text = STR_NONE;
    if (!call->reply.details.ptr)
        call->reply.details = STR_NONE;
    hand_over(call);
}

/* ---- a stream of messages ---- */

struct grpc_part {
    struct grpc_part *next;
    struct buf message;
    uint8_t head[GRPC_FRAME_HEAD_BYTES];
};

static void parts_free(struct grpc_part *part)
{
    while (part) {
        struct grpc_part *next = part->next;
        buf_done(&part->message);
        free(part);
        part = next;
    }
}

/* Who waits for room, when there is some or never will be; with the lock. */
static bool take_waiter(struct grpc_call *call, grpc_ready_fn **ret, void **ret_arg)
{
    if (!call->stream.ready ||
        (!call->stream.is_gone && call->stream.waiting_bytes > GRPC_STREAM_BYTES_MAX / 2))
        return false;
    *ret = call->stream.ready;
    *ret_arg = call->stream.ready_arg;
    call->stream.ready = NULL;
    return true;
}

int grpc_stream_write(struct grpc_call *call, struct buf *message)
{
    struct grpc_server *s = call->server;
    struct grpc_part *part = buf_ok(message) && message->len <= UINT32_MAX ? calloc(1, sizeof *part)
                                                                           : NULL;
    if (!part) {
        buf_done(message);
        *message = BUF_INIT;
        return ERR_NOMEM;
    }
    grpc_frame_head(part->head, (uint32_t)message->len);
    part->message = *message;
    *message = BUF_INIT;
    int err = ERR_CLOSED;
    pthread_mutex_lock(&s->lock);
    if (!s->ended && !call->stream.is_gone) {
        if (call->stream.last)
            call->stream.last->next = part;
        else
            call->stream.first = part;
        call->stream.last = part;
        call->stream.is_used = true;
        call->stream.waiting_bytes += sizeof part->head + part->message.len;
        err = call->stream.waiting_bytes > GRPC_STREAM_BYTES_MAX ? ERR_BUSY : 0;
        part = NULL;
        list(call);
    }
    pthread_mutex_unlock(&s->lock);
    parts_free(part);
    return err;
}

void grpc_stream_wait(struct grpc_call *call, grpc_ready_fn *fn, void *arg)
{
    struct grpc_server *s = call->server;
    pthread_mutex_lock(&s->lock);
    call->stream.is_gone |= s->ended;
    call->stream.ready = fn;
    call->stream.ready_arg = arg;
    bool is_now = take_waiter(call, &fn, &arg);
    pthread_mutex_unlock(&s->lock);
    if (is_now)
        fn(arg, call);
}

void grpc_stream_end(struct grpc_call *call, enum grpc_code code, struct str message,
                     struct str details)
{
    struct grpc_server *s = call->server;
    call->stream.code = code;
    buf_str(&call->stream.text, message);
    buf_str(&call->stream.details, details);
    pthread_mutex_lock(&s->lock);
    call->stream.is_used = call->stream.is_ended = true;
    pthread_mutex_unlock(&s->lock);
    hand_over(call);
}

/* Some of the first part; frees it when it is through. With the lock. */
static size_t part_read(struct grpc_call *call, uint8_t *out, size_t room)
{
    struct grpc_part *part = call->stream.first;
    size_t n = 0, at;
    while (n < room && call->stream.sent < sizeof part->head)
        out[n++] = part->head[call->stream.sent++];
    at = call->stream.sent - sizeof part->head;
    if (n < room && at < part->message.len) {
        size_t m = part->message.len - at < room - n ? part->message.len - at : room - n;
        memcpy(out + n, part->message.ptr + at, m);
        n += m;
        call->stream.sent += m;
    }
    if (call->stream.sent == sizeof part->head + part->message.len) {
        call->stream.waiting_bytes -= call->stream.sent;
        call->stream.sent = 0;
        call->stream.first = part->next;
        if (!part->next)
            call->stream.last = NULL;
        part->next = NULL;
        parts_free(part);
    }
    return n;
}

static ssize_t read_stream(nghttp2_session *session, int32_t stream_id, uint8_t *out, size_t room,
                           uint32_t *flags, nghttp2_data_source *source, void *arg)
{
    (void)arg;
    struct grpc_call *call = source->ptr;
    struct grpc_server *s = call->server;
    grpc_ready_fn *ready;
    void *ready_arg;
    size_t n = 0;
    pthread_mutex_lock(&s->lock);
    while (n < room && call->stream.first)
        n += part_read(call, out + n, room - n);
    bool is_over = !call->stream.first && call->stream.is_ended;
    bool has_waiter = take_waiter(call, &ready, &ready_arg);
    pthread_mutex_unlock(&s->lock);
    if (has_waiter)
        ready(ready_arg, call);
    call->stream.progress_ns = clock_monotonic_ns();
    if (is_over) {
        struct trailers t;
        trailers_init(&t, call, call->stream.code, buf_as_str(&call->stream.text),
                      buf_as_str(&call->stream.details));
        *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
        int err = nghttp2_submit_trailer(session, stream_id, t.pairs, t.n);
        trailers_done(&t);
        if (err)
            return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    } else if (!n) {
        call->stream.is_deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    return (ssize_t)n;
}

void grpc__call_gone(struct grpc_call *call)
{
    struct grpc_server *s = call->server;
    grpc_ready_fn *ready;
    void *ready_arg;
    pthread_mutex_lock(&s->lock);
    call->stream.is_gone = true;
    struct grpc_part *parts = call->stream.first;
    call->stream.first = call->stream.last = NULL;
    call->stream.waiting_bytes = 0;
    bool has_waiter = take_waiter(call, &ready, &ready_arg);
    pthread_mutex_unlock(&s->lock);
    parts_free(parts);
    if (has_waiter)
        ready(ready_arg, call);
}

uint64_t grpc__stalled_since(const struct grpc_call *call)
{
    if (!call->stream.is_submitted)
        return call->answered_ns;
    return call->stream.is_deferred ? 0 : call->stream.progress_ns;
}

/* Something was written, or the end said. */
static void send_stream(struct grpc_call *call, bool is_empty)
{
    if (!call->conn || (call->is_answered && !call->stream.is_submitted)) {
        grpc__call_gone(call);
        return;
    }
    if (call->stream.is_submitted) {
        if (!call->stream.is_deferred)
            return;
        call->stream.is_deferred = false;
        call->stream.progress_ns = clock_monotonic_ns();
        if (nghttp2_session_resume_data(call->conn->session, call->stream_id) != 0)
            call->conn->is_closing = true;
        return;
    }
    if (is_empty && call->stream.code != GRPC_OK) {
        answer_trailers_only(call, call->stream.code, buf_as_str(&call->stream.text),
                             buf_as_str(&call->stream.details));
        return;
    }
    submit(call, read_stream);
    call->stream.is_submitted = true;
    call->stream.progress_ns = call->answered_ns;
}

/* ---- the loop's side ---- */

/* The handler is through and its answer submitted (nghttp2 copied the texts of it): what came with
 * the request goes now, since the client decides when the stream ends. */
static void release_request(struct grpc_call *call)
{
    grpc_reader_done(&call->reader);
    call->reader = (struct grpc_reader){0};
    call->path = call->content_type = call->encoding = call->timeout = STR_NONE;
    call->reply.text = call->reply.details = STR_NONE;
    arena_done(&call->arena);
}

void grpc__take_answers(struct grpc_server *s, void (*flush)(struct connection *conn))
{
    for (;;) {
        pthread_mutex_lock(&s->lock);
        struct grpc_call *call = s->answered;
        bool is_stream = false, is_last = false, is_empty = false;
        if (call) {
            s->answered = call->next_answered;
            call->is_listed = false;
            is_last = call->is_last;
            is_stream = call->stream.is_used;
            is_empty = !call->stream.first;
        }
        pthread_mutex_unlock(&s->lock);
        if (!call)
            return;
        struct connection *conn = call->conn;
        if (is_stream)
            send_stream(call, is_empty);
        else
            send_answer(call);
        if (is_last) {
            release_request(call);
            grpc__call_unref(call);
        }
        if (conn)
            flush(conn);
    }
}
