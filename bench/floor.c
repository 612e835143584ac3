#include "floor.h"

#include "base/buf.h"
#include "base/hash.h"
#include "served.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
    REQUEST_BYTES_MAX = 64 << 20,
    READ_BYTES = 256 << 10,
    WINDOW_BYTES = 16 << 20,
};

struct connection {
    int fd;
    struct buf body; /* of HTTP: with its head */
    size_t head, length;
    bool ready;
    nghttp2_session *session;
    int32_t stream;
};

/* ---- HTTP/1.1 ---- */

/* 1 when the request is whole, 0 when more has to come, -1 when the connection ended. */
static int http_read(struct connection *c)
{
    if (!buf_reserve(&c->body, READ_BYTES))
        return -1;
    ssize_t n = recv(c->fd, c->body.ptr + c->body.len, c->body.cap - c->body.len, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n <= 0)
        return -1;
    c->body.len += (size_t)n;
    if (!c->head) {
        const char *end = memmem(c->body.ptr, c->body.len, "\r\n\r\n", 4);
        const char *length =
            end ? memmem(c->body.ptr, (size_t)(end - c->body.ptr), "Content-Length: ", 16) : NULL;
        if (!length)
            return end ? -1 : 0;
        c->head = (size_t)(end - c->body.ptr) + 4;
        c->length = strtoull(length + 16, NULL, 10);
        if (c->length > REQUEST_BYTES_MAX || !buf_reserve(&c->body, c->length))
            return -1;
    }
    return c->body.len >= c->head + c->length;
}

static bool http_answer(struct connection *c)
{
    static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    return send(c->fd, answer, sizeof answer - 1, MSG_NOSIGNAL) == (ssize_t)sizeof answer - 1;
}

/* ---- gRPC ---- */

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream, const uint8_t *bytes,
                   size_t n, void *arg)
{
    (void)session, (void)flags;
    struct connection *c = arg;
    c->stream = stream;
    buf_put(&c->body, bytes, n);
    return 0;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
    (void)session;
    struct connection *c = arg;
    if (frame->hd.type == NGHTTP2_DATA && frame->hd.flags & NGHTTP2_FLAG_END_STREAM) {
        c->length = c->body.len;
        c->ready = true;
    }
    return 0;
}

static bool grpc_flush(struct connection *c)
{
    const uint8_t *bytes;
    ssize_t n;
    while ((n = nghttp2_session_mem_send(c->session, &bytes)) > 0)
        if (send(c->fd, bytes, (size_t)n, MSG_NOSIGNAL) != n)
            return false;
    return n == 0;
}

static bool grpc_begin(struct connection *c)
{
    static const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, WINDOW_BYTES}};
    nghttp2_session_callbacks *callbacks;
    int on = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (nghttp2_session_callbacks_new(&callbacks))
        return false;
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    bool ok = !nghttp2_session_server_new(&c->session, callbacks, c) &&
              !nghttp2_submit_settings(c->session, NGHTTP2_FLAG_NONE, settings, 1) &&
              !nghttp2_session_set_local_window_size(c->session, NGHTTP2_FLAG_NONE, 0,
                                                     WINDOW_BYTES) &&
              grpc_flush(c);
    nghttp2_session_callbacks_del(callbacks);
    return ok;
}

static int grpc_read(struct connection *c)
{
    static uint8_t in[READ_BYTES];
    ssize_t n = recv(c->fd, in, sizeof in, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n <= 0 || nghttp2_session_mem_recv(c->session, in, (size_t)n) < 0 || !grpc_flush(c))
        return -1;
    return c->ready;
}

/* Trailers alone: nothing was left out. */
static bool grpc_answer(struct connection *c)
{
    static const char *const texts[][2] = {
        {":status", "200"}, {"content-type", "application/grpc"}, {"grpc-status", "0"}};
    nghttp2_nv pairs[3];
    for (unsigned i = 0; i < 3; i++)
        pairs[i] = (nghttp2_nv){(uint8_t *)(uintptr_t)texts[i][0],
                                (uint8_t *)(uintptr_t)texts[i][1], strlen(texts[i][0]),
                                strlen(texts[i][1]), NGHTTP2_NV_FLAG_NONE};
    return !nghttp2_submit_response(c->session, c->stream, pairs, 3, NULL) && grpc_flush(c);
}

/* ---- the loop ---- */

/* Everything that is whole: one write, one sync, then the answers. */
static void commit(int file, struct connection *all, unsigned n)
{
    uint64_t heads[FLOOR_CONNECTIONS_MAX][2];
    struct iovec parts[2 * FLOOR_CONNECTIONS_MAX];
    int n_parts = 0;
    ssize_t bytes = 0;
    for (unsigned i = 0; i < n; i++) {
        struct connection *c = &all[i];
        if (!c->ready)
            continue;
        const char *body = c->body.ptr + c->head;
        heads[i][0] = c->length;
        heads[i][1] = hash_bytes(body, c->length);
        parts[n_parts++] = (struct iovec){heads[i], sizeof heads[i]};
        parts[n_parts++] = (struct iovec){(void *)(uintptr_t)body, c->length};
        bytes += (ssize_t)(sizeof heads[i] + c->length);
    }
    if (!n_parts)
        return;
    if (writev(file, parts, n_parts) != bytes || fdatasync(file))
        _exit(1);
    for (unsigned i = 0; i < n; i++) {
        struct connection *c = &all[i];
        if (!c->ready)
            continue;
        buf_clear(&c->body);
        c->head = c->length = 0;
        c->ready = false;
        if (!(c->session ? grpc_answer(c) : http_answer(c)))
            _exit(1);
    }
}

static void serve(int listener, bool is_grpc, const char *path)
{
    static struct connection all[FLOOR_CONNECTIONS_MAX];
    unsigned n = 0, gone = 0;
    int file = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_APPEND | O_CLOEXEC, 0600);
    int poll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = UINT32_MAX}, events[64];
    if (file < 0 || poll < 0 || epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event))
        _exit(1);
    while (n == 0 || gone < n) {
        int got = epoll_wait(poll, events, 64, -1);
        for (int i = 0; i < got; i++) {
            if (events[i].data.u32 == UINT32_MAX) {
                int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
                if (fd < 0 || n == FLOOR_CONNECTIONS_MAX)
                    _exit(1);
                all[n].fd = fd;
                if (is_grpc && !grpc_begin(&all[n]))
                    _exit(1);
                event = (struct epoll_event){.events = EPOLLIN, .data.u32 = n++};
                if (epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event))
                    _exit(1);
                continue;
            }
            struct connection *c = &all[events[i].data.u32];
            int state = is_grpc ? grpc_read(c) : http_read(c);
            c->ready = state > 0;
            if (state < 0) {
                close(c->fd);
                gone++;
            }
        }
        commit(file, all, n);
    }
    _exit(0);
}

pid_t floor_start(bool is_grpc, const char *path, uint16_t *ret_port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, size) || listen(listener, 64) ||
        getsockname(listener, (struct sockaddr *)&address, &size))
        bench_die("cannot listen");
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0)
        bench_die("cannot fork");
    if (pid == 0) {
        bench_stay_on(0);
        serve(listener, is_grpc, path);
    }
    close(listener);
    *ret_port = ntohs(address.sin_port);
    return pid;
}
