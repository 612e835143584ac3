/* Invariants
 *  1. Connections, sessions and the list of a connection's calls belong to the loop thread alone.
 * An answering thread touches only its call's `reply` part and the server's `answered` list, under
 *     the lock; the loop thread reads `reply` after it took the call from that list. Streams: grpc_reply.c.
 *  2. A call has two owners: its stream (the loop thread) and its handler (until the loop has taken
 *     the answer). The last one frees it. `call->conn` is NULL once the stream is closed.
 *  3. A stream is answered at most once (`call->is_answered`): by its handler, or here.
 *  4. The server lives as long as its last call, so that an answer may come after grpc_server_free.
 *  5. Memory of a connection: nghttp2's state (its own floods limits), OUT_BYTES of output, and per
 *     stream one bounded message, or a bounded queue of answers. Output is made only when the socket took what was there. */
#include "net/grpc_internal.h"

#include "base/clock.h"
#include "net/listen.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    CONNECTIONS_MAX = 1000,
    STREAMS_MAX = 256,
    CALLS_MAX = 8192,
    IDLE_TIMEOUT_S = 300,
    MESSAGE_TIMEOUT_S = 60,
    HEADER_BYTES_MAX = 16 << 10,
    STREAM_WINDOW_BYTES = 4 << 20,
    CONNECTION_WINDOW_BYTES = 16 << 20,
    FRAME_BYTES_MAX = 256 << 10,
    IN_BYTES = 64 << 10,
    READS_MAX = 16,                       /* of one connection before the others have their turn */
    DRAIN_BYTES = 256 << 10,              /* of a message that was refused */
    FRAME_OUT_BYTES_MAX = (16 << 10) + 9, /* nghttp2 sends no larger ones */
    PREFACE_TIMEOUT_S = 15,
    THREAD_STACK_BYTES = 512 << 10,
    TICK_MS = 1000,
};
#define MESSAGE_BYTES_MAX ((size_t)64 << 20)
#define INFLATED_BYTES_MAX ((size_t)256 << 20)

/* ---- requests ---- */

struct str grpc_message(const struct grpc_call *call)
{
    return buf_as_str(&call->reader.message.bytes);
}

size_t grpc_message_wire_bytes(const struct grpc_call *call)
{
    return call->reader.message.wire_bytes;
}

struct arena *grpc_arena(struct grpc_call *call)
{
    return &call->arena;
}

/* 1 to 8 digits and a unit; false when it is something else. */
static bool parse_timeout(struct str text, uint64_t *ret_ns)
{
    static const struct {
        char unit;
        uint64_t ns;
    } units[] = {{'H', 3600 * NS_PER_S}, {'M', 60 * NS_PER_S}, {'S', NS_PER_S},
                 {'m', NS_PER_MS},       {'u', NS_PER_US},     {'n', 1}};
    if (text.len < 2 || text.len > 9)
        return false;
    uint64_t n;
    if (!str_to_u64((struct str){text.ptr, text.len - 1}, &n))
        return false;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (text.ptr[text.len - 1] == units[i].unit) {
            *ret_ns = n * units[i].ns; /* 99999999 hours do fit */
            return true;
        }
    return false;
}

static bool is_grpc(struct str content_type)
{
    struct str prefix = STR("application/grpc");
    if (content_type.len < prefix.len ||
        !str_eq_nocase((struct str){content_type.ptr, prefix.len}, prefix))
        return false;
    return content_type.len == prefix.len || content_type.ptr[prefix.len] == '+' ||
           content_type.ptr[prefix.len] == ';';
}

static void check_headers(struct grpc_call *call)
{
    struct grpc_server *s = call->server;
    call->has_headers = true;
    if (call->header_bytes > HEADER_BYTES_MAX) {
        grpc__refuse_http(call, "431");
        return;
    }
    if (!call->is_post) {
        grpc__refuse_http(call, "405");
        return;
    }
    if (!is_grpc(call->content_type)) {
        grpc__refuse_http(call, "415");
        return;
    }
    for (size_t i = 0; i < s->options.n_methods; i++)
        if (str_eq(call->path, str_from(s->options.methods[i].path)))
            call->method = &s->options.methods[i];
    enum coding coding = CODING_IDENTITY;
    uint64_t timeout_ns = 0;
    if (!call->method)
        grpc__refuse(call, GRPC_UNIMPLEMENTED, "there is no such method here");
    else if (!coding_parse(call->encoding, &coding))
        grpc__refuse(call, GRPC_UNIMPLEMENTED, "grpc-encoding can be gzip, deflate or zstd");
    else if (call->timeout.len && !parse_timeout(call->timeout, &timeout_ns))
        grpc__refuse(call, GRPC_INTERNAL, "grpc-timeout is malformed");
    else if (atomic_load(&s->stopping))
        grpc__refuse(call, GRPC_UNAVAILABLE, "the server is stopping");
    else if (atomic_load_explicit(&s->calls_alive, memory_order_relaxed) > s->options.calls_max)
        grpc__refuse(call, GRPC_UNAVAILABLE, "too many calls are under way; try again later");
    if (call->is_refused)
        return;
    grpc_reader_init(&call->reader, coding, &s->limits);
    call->deadline_ns = call->timeout.len ? call->started_ns + timeout_ns : 0;
    if (call->deadline_ns && call->deadline_ns < s->tick_ns)
        s->tick_ns = call->deadline_ns;
}

static void refuse_message(struct grpc_call *call, int err)
{
    switch (err) {
    case ERR_TOO_LARGE:
        grpc__refuse(call, GRPC_RESOURCE_EXHAUSTED, "the message is over this server's limit");
        break;
    case ERR_TRUNCATED:
        grpc__refuse(call, GRPC_INTERNAL, "the message is not complete");
        break;
    case ERR_INVALID:
        grpc__refuse(call, GRPC_INTERNAL, "not one gRPC message, or not what grpc-encoding says");
        break;
    case ERR_UNSUPPORTED:
        grpc__refuse(call, GRPC_INTERNAL, "a compressed message without grpc-encoding");
        break;
    default:
        grpc__refuse(call, GRPC_UNAVAILABLE, "too many bytes are in flight; try again later");
    }
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
    if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
        return 0;
    struct connection *conn = arg;
    struct grpc_call *call = calloc(1, sizeof *call);
    if (!call)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    call->server = conn->server;
    call->conn = conn;
    call->owners = 1;
    call->stream_id = frame->hd.stream_id;
    call->started_ns = clock_monotonic_ns();
    call->older = conn->calls;
    if (call->older)
        call->older->newer = call;
    conn->calls = call;
    conn->server->n_calls++;
    atomic_fetch_add_explicit(&conn->server->owners, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&conn->server->calls_alive, 1, memory_order_relaxed);
    nghttp2_session_set_stream_user_data(session, call->stream_id, call);
    return 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_n, const uint8_t *value, size_t value_n, uint8_t flags, void *arg)
{
    (void)flags;
    (void)arg;
    struct grpc_call *call = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (!call || call->has_headers)
        return 0;
    call->header_bytes += name_n + value_n + 32; /* as SETTINGS_MAX_HEADER_LIST_SIZE counts */
    if (call->header_bytes > HEADER_BYTES_MAX)
        return 0;
    struct str key = {(const char *)name, name_n}, text = {(const char *)value, value_n};
    struct str *place = str_eq(key, STR(":path"))           ? &call->path
                        : str_eq(key, STR("content-type"))  ? &call->content_type
                        : str_eq(key, STR("grpc-encoding")) ? &call->encoding
                        : str_eq(key, STR("grpc-timeout"))  ? &call->timeout
                                                            : NULL;
    if (place)
        *place = arena_str(&call->arena, text);
    else if (str_eq(key, STR(":method")))
        call->is_post = str_eq(text, STR("POST"));
    return 0;
}

/* It is told to stop once the answer is out (RFC 9113, 8.1): nghttp2 drops what was submitted
 * before a reset. */
static void stop_upload(struct grpc_call *call)
{
    call->wants_reset = true;
    grpc__answer_refused(call);
}

static int on_frame_sent(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
    (void)arg;
    if (frame->hd.type != NGHTTP2_HEADERS || !(frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
        return 0;
    struct grpc_call *call = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (call && call->wants_reset && !call->is_complete)
        return nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id,
                                         NGHTTP2_NO_ERROR);
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream_id, const uint8_t *bytes,
                   size_t n, void *arg)
{
    (void)flags;
    (void)arg;
    struct grpc_call *call = nghttp2_session_get_stream_user_data(session, stream_id);
    if (!call || call->is_complete)
        return 0;
    if (call->is_refused) {
        call->drained_bytes += n;
        if (call->drained_bytes > DRAIN_BYTES)
            stop_upload(call);
        return 0;
    }
    atomic_fetch_add_explicit(&call->server->message_bytes, n, memory_order_relaxed);
    int err = grpc_reader_feed(&call->reader, bytes, n);
    if (err)
        refuse_message(call, err);
    return 0;
}

static void run(struct grpc_call *call)
{
    call->is_complete = true;
    if (call->is_refused) {
        grpc__answer_refused(call);
        return;
    }
    int err = grpc_reader_finish(&call->reader);
    if (err) {
        refuse_message(call, err);
        return;
    }
    struct grpc_server *s = call->server;
    atomic_fetch_add_explicit(&s->calls, 1, memory_order_relaxed);
    call->has_handler = true;
    atomic_fetch_add_explicit(&call->owners, 1, memory_order_relaxed); /* the handler's */
    call->method->handler(s->options.arg, call);
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
    (void)arg;
    if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA)
        return 0;
    struct grpc_call *call = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (!call)
        return 0;
    if (!call->has_headers)
        check_headers(call);
    if (frame->hd.flags & NGHTTP2_FLAG_END_STREAM && !call->is_complete)
        run(call);
    return 0;
}

static void detach(struct grpc_call *call)
{
    struct connection *conn = call->conn;
    if (call->newer)
        call->newer->older = call->older;
    else
        conn->calls = call->older;
    if (call->older)
        call->older->newer = call->newer;
    call->conn = NULL;
    conn->server->n_calls--;
    grpc__call_gone(call);
    grpc__call_unref(call);
}

static int on_stream_close(nghttp2_session *session, int32_t stream_id, uint32_t why, void *arg)
{
    (void)why;
    (void)arg;
    struct grpc_call *call = nghttp2_session_get_stream_user_data(session, stream_id);
    if (!call)
        return 0;
    nghttp2_session_set_stream_user_data(session, stream_id, NULL);
    detach(call);
    return 0;
}

/* ---- connections ---- */

/* All but its descriptor. */
static void conn_forget(struct connection *conn)
{
    struct grpc_server *s = conn->server;
    conn->is_dead = true;
    if (conn->newer)
        conn->newer->older = conn->older;
    else
        s->connections = conn->older;
    if (conn->older)
        conn->older->newer = conn->newer;
    atomic_fetch_sub_explicit(&s->connections_now, 1, memory_order_relaxed);
    /* Events of this round may still name it. */
    conn->older = s->dead;
    s->dead = conn;
}

static void conn_close(struct connection *conn)
{
    if (conn->is_dead)
        return;
    while (conn->calls) {
        struct grpc_call *call = conn->calls;
        nghttp2_session_set_stream_user_data(conn->session, call->stream_id, NULL);
        detach(call);
    }
    nghttp2_session_del(conn->session);
    close(conn->fd);
    conn_forget(conn);
}

static void arm(struct connection *conn, bool wants_out)
{
    if (conn->wants_out == wants_out)
        return;
    conn->wants_out = wants_out;
    struct epoll_event event = {.events = EPOLLIN | (wants_out ? EPOLLOUT : 0), .data.ptr = conn};
    epoll_ctl(conn->server->epoll_fd, EPOLL_CTL_MOD, conn->fd, &event);
}

/* Many frames go out in one call. */
static void conn_flush(struct connection *conn)
{
    if (!conn->session)
        return;
    while (!conn->is_dead) {
        while (conn->heard && OUT_BYTES - conn->out_n >= FRAME_OUT_BYTES_MAX) {
            const uint8_t *bytes;
            ssize_t n = nghttp2_session_mem_send(conn->session, &bytes);
            if (n < 0) {
                conn_close(conn);
                return;
            }
            if (n == 0)
                break;
            if ((size_t)n > OUT_BYTES - conn->out_n) {
                conn_close(conn);
                return;
            }
            memcpy(conn->out + conn->out_n, bytes, (size_t)n);
            conn->out_n += (size_t)n;
        }
        if (conn->out_n == conn->out_sent)
            break;
        ssize_t n = send(conn->fd, conn->out + conn->out_sent, conn->out_n - conn->out_sent,
                         MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0) {
            if (errno == EINTR)
                continue;
            if (errno != EAGAIN && errno != EWOULDBLOCK)
                conn_close(conn);
            else
                arm(conn, true);
            return;
        }
        conn->out_sent += (size_t)n;
        conn->active_ns = clock_monotonic_ns();
        if (conn->out_sent == conn->out_n)
            conn->out_sent = conn->out_n = 0;
    }
    if (conn->is_dead)
        return;
    arm(conn, false);
    if (conn->is_closing ||
        (!nghttp2_session_want_read(conn->session) && !nghttp2_session_want_write(conn->session)))
        conn_close(conn);
}

/* Somebody speaks HTTP/1.1 or TLS to this port: the first is told so in its own words. */
static void say_wrong_protocol(struct connection *conn, const uint8_t *in, size_t n)
{
    static const char answer[] =
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n"
        "Content-Length: 86\r\n\r\n"
        "This port speaks gRPC (HTTP/2 without TLS). OTLP over HTTP has another port: see 4318.";
    conn->is_closing = true;
    if (n >= 3 && in[0] >= 'A' && in[0] <= 'Z' && in[1] >= 'A' && in[1] <= 'Z') {
        memcpy(conn->out, answer, sizeof answer - 1);
        conn->out_n = sizeof answer - 1;
        conn->out_sent = 0;
    }
}

static void conn_read(struct connection *conn)
{
    struct grpc_server *s = conn->server;
    for (int i = 0; i < READS_MAX && !conn->is_closing; i++) {
        ssize_t n = recv(conn->fd, s->in, IN_BYTES, MSG_DONTWAIT);
        if (n < 0) {
            if (errno == EINTR)
                continue;
            if (errno != EAGAIN && errno != EWOULDBLOCK) {
                conn_close(conn);
                return;
            }
            break;
        }
        if (n == 0) { /* HTTP/2 has no half-closed connections */
            conn_close(conn);
            return;
        }
        conn->active_ns = clock_monotonic_ns();
        ssize_t took = nghttp2_session_mem_recv(conn->session, s->in, (size_t)n);
        if (took == NGHTTP2_ERR_BAD_CLIENT_MAGIC) {
            if (!conn->heard)
                say_wrong_protocol(conn, s->in, (size_t)n);
            conn->is_closing = true;
            grpc__count_refused(s, GRPC_INTERNAL);
        } else if (took < 0) {
            grpc__count_refused(s, GRPC_INTERNAL);
            conn_close(conn);
            return;
        } else {
            conn->heard = true;
        }
        if (n < IN_BYTES)
            break;
    }
    conn_flush(conn);
}

/* False: it has to be closed. */
static bool conn_begin(struct connection *conn)
{
    struct grpc_server *s = conn->server;
    int on = 1;
    setsockopt(conn->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, s->options.streams_max},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, STREAM_WINDOW_BYTES},
        {NGHTTP2_SETTINGS_MAX_FRAME_SIZE, FRAME_BYTES_MAX},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, HEADER_BYTES_MAX},
    };
    return nghttp2_session_server_new2(&conn->session, s->callbacks, conn, s->http2_options) == 0 &&
           nghttp2_submit_settings(conn->session, NGHTTP2_FLAG_NONE, settings,
                                   sizeof settings / sizeof *settings) == 0 &&
           nghttp2_session_set_local_window_size(conn->session, NGHTTP2_FLAG_NONE, 0,
                                                 CONNECTION_WINDOW_BYTES) == 0;
}

static void conn_new(struct grpc_server *s, int fd)
{
    struct connection *conn = calloc(1, sizeof *conn);
    if (!conn) {
        close(fd);
        return;
    }
    conn->server = s;
    conn->fd = fd;
    conn->active_ns = clock_monotonic_ns();
    /* What is only looked at stays there, and must not wake us again. */
    struct epoll_event event = {.events = EPOLLIN | (s->options.other ? EPOLLET : 0),
                                .data.ptr = conn};
    if ((!s->options.other && !conn_begin(conn)) ||
        epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
        nghttp2_session_del(conn->session);
        free(conn);
        close(fd);
        return;
    }
    conn->older = s->connections;
    if (conn->older)
        conn->older->newer = conn;
    s->connections = conn;
    atomic_fetch_add_explicit(&s->connections_now, 1, memory_order_relaxed);
}

/* Looks who is there, by the first bytes. */
static void conn_meet(struct connection *conn)
{
    static const char preface[] = "PRI "; /* no method of HTTP/1.1 */
    struct grpc_server *s = conn->server;
    char first[sizeof preface - 1];
    ssize_t n = recv(conn->fd, first, sizeof first, MSG_PEEK | MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return;
    if (n <= 0) {
        conn_close(conn);
    } else if (memcmp(first, preface, (size_t)n) != 0) {
        /* It leaves the set before it can be closed by who gets it, and stays out of it: where there is no room, it is
         * offered again at the next tick. */
        epoll_ctl(s->epoll_fd, EPOLL_CTL_DEL, conn->fd, NULL);
        if (s->options.other(s->options.other_arg, conn->fd))
            conn_forget(conn);
    } else if ((size_t)n == sizeof first) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = conn};
        if (!conn_begin(conn) || epoll_ctl(s->epoll_fd, EPOLL_CTL_MOD, conn->fd, &event) != 0)
            conn_close(conn);
    }
}

/* ---- the loop ---- */

static void listen_arm(struct grpc_server *s, bool on)
{
    if (s->is_listening == on || s->listen_fd < 0)
        return;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &s->listen_fd};
    epoll_ctl(s->epoll_fd, on ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, s->listen_fd, &event);
    s->is_listening = on;
}

/* At the limit of connections or descriptors, newcomers wait in the kernel's queue till the next
 * tick finds room. */
static void accept_all(struct grpc_server *s)
{
    for (;;) {
        if (atomic_load(&s->connections_now) >= s->options.connections_max) {
            atomic_fetch_add_explicit(&s->connections_full, 1, memory_order_relaxed);
            listen_arm(s, false);
            return;
        }
        int fd = accept4(s->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            conn_new(s, fd);
            continue;
        }
        if (errno == EINTR || errno == ECONNABORTED)
            continue;
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
            listen_arm(s, false);
        return;
    }
}

/* The client leaves its window shut (it does not want the answer), or its time is over in the middle of a
 * stream of messages. */
static void look_at_answer(struct grpc_call *call, uint64_t now, uint64_t patience_ns)
{
    struct grpc_server *s = call->server;
    uint64_t since = grpc__stalled_since(call);
    uint64_t by = call->stream.is_submitted ? call->deadline_ns : 0;
    if (call->is_reset)
        return;
    if ((since && now > since && now - since > patience_ns) || (by && by <= now)) {
        call->is_reset = true;
        nghttp2_submit_rst_stream(call->conn->session, NGHTTP2_FLAG_NONE, call->stream_id,
                                  NGHTTP2_CANCEL);
    } else if (by && by < s->tick_ns) {
        s->tick_ns = by;
    }
}

static void look_at_deadlines(struct grpc_server *s, uint64_t now)
{
    s->tick_ns = now + TICK_MS * NS_PER_MS;
    uint64_t idle_ns = s->options.idle_timeout_s * NS_PER_S;
    uint64_t message_ns = s->options.message_timeout_s * NS_PER_S;
    for (struct connection *conn = s->connections, *older; conn; conn = older) {
        older = conn->older;
        if (!conn->heard && now - conn->active_ns > PREFACE_TIMEOUT_S * NS_PER_S) {
            conn_close(conn);
            continue;
        }
        if (!conn->session) { /* there may be room for it now */
            conn_meet(conn);
            continue;
        }
        for (struct grpc_call *call = conn->calls; call; call = call->older) {
            if (call->is_answered && call->is_complete) {
                look_at_answer(call, now, 2 * message_ns);
                continue;
            }
            uint64_t by = call->deadline_ns;
            if (!call->is_complete && (!by || call->started_ns + message_ns < by))
                by = call->started_ns + message_ns;
            if (!by)
                continue;
            if (by <= now) {
                grpc__refuse(call, GRPC_DEADLINE_EXCEEDED, "the deadline has passed");
                stop_upload(call);
            } else if (by < s->tick_ns) {
                s->tick_ns = by;
            }
        }
        if (now - conn->active_ns > idle_ns && (!conn->calls || conn->out_n)) {
            nghttp2_session_terminate_session(conn->session, NGHTTP2_NO_ERROR);
            conn->is_closing = true;
            if (conn->out_n) { /* it does not read either */
                conn_close(conn);
                continue;
            }
        }
        conn_flush(conn);
    }
    listen_arm(s, !atomic_load(&s->stopping) &&
                      atomic_load(&s->connections_now) < s->options.connections_max);
}

static void say_goaway(struct grpc_server *s)
{
    s->said_goaway = true;
    listen_arm(s, false);
    close(s->listen_fd);
    s->listen_fd = -1;
    for (struct connection *conn = s->connections, *older; conn; conn = older) {
        older = conn->older;
        if (!conn->session) {
            conn_close(conn);
            continue;
        }
        nghttp2_submit_goaway(conn->session, NGHTTP2_FLAG_NONE,
                              nghttp2_session_get_last_proc_stream_id(conn->session),
                              NGHTTP2_NO_ERROR, NULL, 0);
        conn_flush(conn);
    }
}

static bool is_drained(const struct grpc_server *s)
{
    for (const struct connection *conn = s->connections; conn; conn = conn->older)
        if (conn->calls || conn->out_n)
            return false;
    return true;
}

static void *loop(void *arg)
{
    struct grpc_server *s = arg;
    struct epoll_event events[64];
    s->loop_thread = pthread_self();
    for (;;) {
        uint64_t now = clock_monotonic_ns();
        uint64_t until = s->tick_ns;
        if (atomic_load(&s->stopping)) {
            if (!s->said_goaway)
                say_goaway(s);
            uint64_t by = atomic_load(&s->stop_by_ns);
            if (is_drained(s) || now >= by)
                break;
            until = until < by ? until : by;
        }
        int timeout_ms = until > now ? (int)((until - now + NS_PER_MS - 1) / NS_PER_MS) : 0;
        int n = epoll_wait(s->epoll_fd, events, 64, timeout_ms);
        for (int i = 0; i < n; i++) {
            void *what = events[i].data.ptr;
            if (what == &s->listen_fd) {
                if (s->listen_fd >= 0)
                    accept_all(s);
            } else if (what == &s->wake_fd) {
                uint64_t count;
                ssize_t got = read(s->wake_fd, &count, sizeof count);
                (void)got;
            } else {
                struct connection *conn = what;
                if (!conn->is_dead && !conn->session)
                    conn_meet(conn);
                if (!conn->is_dead && events[i].events & EPOLLOUT)
                    conn_flush(conn);
                if (!conn->is_dead && conn->session && events[i].events & ~(unsigned)EPOLLOUT)
                    conn_read(conn);
            }
        }
        grpc__take_answers(s, conn_flush);
        now = clock_monotonic_ns();
        if (now >= s->tick_ns) {
            look_at_deadlines(s, now);
            grpc__take_answers(s, conn_flush); /* of who was told that there is room, or nobody */
        }
        while (s->dead) {
            struct connection *conn = s->dead;
            s->dead = conn->older;
            free(conn);
        }
    }
    return NULL;
}

/* ---- lifecycle ---- */

static bool callbacks_new(struct grpc_server *s)
{
    if (nghttp2_session_callbacks_new(&s->callbacks) != 0 ||
        nghttp2_option_new(&s->http2_options) != 0)
        return false;
    nghttp2_session_callbacks *c = s->callbacks;
    nghttp2_session_callbacks_set_on_begin_headers_callback(c, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(c, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(c, on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(c, on_frame);
    nghttp2_session_callbacks_set_on_frame_send_callback(c, on_frame_sent);
    nghttp2_session_callbacks_set_on_stream_close_callback(c, on_stream_close);
    /* Closed streams need not be remembered for priorities that nobody uses. */
    nghttp2_option_set_no_closed_streams(s->http2_options, 1);
    return true;
}

static int start(struct grpc_server *s, struct error_detail *ret_detail)
{
    const struct grpc_server_options *o = &s->options;
    int err = listen_tcp(o->address, o->port, &s->listen_fd, &s->port, ret_detail);
    if (err)
        return err;
    s->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    s->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    s->in = malloc(IN_BYTES);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &s->wake_fd};
    if (s->epoll_fd < 0 || s->wake_fd < 0 || !s->in || !callbacks_new(s) ||
        epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, s->wake_fd, &event) != 0)
        return error_set(ret_detail, ERR_NOMEM, 0, "cannot serve gRPC on %s port %u", o->address,
                         s->port);
    listen_arm(s, true);
    s->tick_ns = clock_monotonic_ns() + TICK_MS * NS_PER_MS;
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, THREAD_STACK_BYTES);
    int failed = pthread_create(&s->thread, &attr, loop, s);
    pthread_attr_destroy(&attr);
    if (failed)
        return error_set(ret_detail, ERR_NOMEM, 0, "cannot start a thread for gRPC");
    s->has_thread = true;
    return 0;
}

int grpc_server_new(const struct grpc_server_options *options, struct grpc_server **ret,
                    struct error_detail *ret_detail)
{
    struct grpc_server *s = calloc(1, sizeof *s);
    if (!s)
        return error_set(ret_detail, ERR_NOMEM, 0, "out of memory");
    s->options = *options;
    s->owners = 1;
    s->listen_fd = s->epoll_fd = s->wake_fd = -1;
    pthread_mutex_init(&s->lock, NULL);
    struct grpc_server_options *o = &s->options;
    o->connections_max = o->connections_max ? o->connections_max : CONNECTIONS_MAX;
    o->streams_max = o->streams_max ? o->streams_max : STREAMS_MAX;
    o->calls_max = o->calls_max ? o->calls_max : CALLS_MAX;
    o->idle_timeout_s = o->idle_timeout_s ? o->idle_timeout_s : IDLE_TIMEOUT_S;
    o->message_timeout_s = o->message_timeout_s ? o->message_timeout_s : MESSAGE_TIMEOUT_S;
    s->limits = (struct body_limits){
        .wire_bytes_max = o->message_bytes_max ? o->message_bytes_max : MESSAGE_BYTES_MAX,
        .inflated_bytes_max = o->inflated_bytes_max ? o->inflated_bytes_max : INFLATED_BYTES_MAX,
        .budget = o->budget,
    };
    int err = start(s, ret_detail);
    if (err) {
        grpc_server_free(s);
        return err;
    }
    *ret = s;
    return 0;
}

void grpc_server_stop(struct grpc_server *s, unsigned deadline_ms)
{
    if (!s || !s->has_thread)
        return;
    atomic_store(&s->stop_by_ns, clock_monotonic_ns() + deadline_ms * NS_PER_MS);
    atomic_store(&s->stopping, true);
    grpc__wake(s);
    pthread_join(s->thread, NULL);
    s->has_thread = false;
    pthread_mutex_lock(&s->lock);
    s->ended = true;
    pthread_mutex_unlock(&s->lock);
    grpc__take_answers(s, conn_flush);
    while (s->connections)
        conn_close(s->connections);
    while (s->dead) {
        struct connection *conn = s->dead;
        s->dead = conn->older;
        free(conn);
    }
}

void grpc_server_free(struct grpc_server *s)
{
    if (!s)
        return;
    grpc_server_stop(s, 0);
    if (s->listen_fd >= 0)
        close(s->listen_fd);
    if (s->epoll_fd >= 0)
        close(s->epoll_fd);
    if (s->wake_fd >= 0)
        close(s->wake_fd);
    nghttp2_session_callbacks_del(s->callbacks);
    nghttp2_option_del(s->http2_options);
    free(s->in);
    grpc__server_unref(s);
}

uint16_t grpc_server_port(const struct grpc_server *s)
{
    return s->port;
}

void grpc_server_stats(const struct grpc_server *s, struct grpc_server_stats *ret)
{
    *ret = (struct grpc_server_stats){
        .connections_full = atomic_load_explicit(&s->connections_full, memory_order_relaxed),
        .calls = atomic_load_explicit(&s->calls, memory_order_relaxed),
        .connections_now = atomic_load_explicit(&s->connections_now, memory_order_relaxed),
        .message_bytes = atomic_load_explicit(&s->message_bytes, memory_order_relaxed),
        .refused_too_large = atomic_load_explicit(&s->refused_too_large, memory_order_relaxed),
        .refused_bad = atomic_load_explicit(&s->refused_bad, memory_order_relaxed),
        .refused_busy = atomic_load_explicit(&s->refused_busy, memory_order_relaxed),
    };
}
