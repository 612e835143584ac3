#include "grpc_client.h"

#include "base/buf.h"
#include "base/str.h"

#include <errno.h>
#include <nghttp2/nghttp2.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
    PARTS_MAX = 64, /* that go out with one call */
    IN_BYTES = 16 << 10,
    FRAME_HEAD_BYTES = 9,
    DATA_FRAME_BYTES = 16 << 10, /* as gRPC's own clients cut them */
};

struct grpc_client {
    int fd;
    nghttp2_session *session;
    /* of the call under way */
    const char *bytes;
    size_t n, sent;
    int status;
    bool ended;
    struct buf answer;
    /* What goes out next: small frames and heads in `small`, data from the body itself. */
    struct iovec parts[PARTS_MAX];
    unsigned n_parts;
    size_t n_small;
    char small[8 << 10];
    uint8_t in[IN_BYTES];
};

static bool flush(struct grpc_client *c)
{
    unsigned at = 0;
    while (at < c->n_parts) {
        struct msghdr message = {.msg_iov = c->parts + at, .msg_iovlen = c->n_parts - at};
        ssize_t n = sendmsg(c->fd, &message, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        size_t left = (size_t)n;
        while (at < c->n_parts && left >= c->parts[at].iov_len)
            left -= c->parts[at++].iov_len;
        if (at < c->n_parts) {
            c->parts[at].iov_base = (char *)c->parts[at].iov_base + left;
            c->parts[at].iov_len -= left;
        }
    }
    c->n_parts = 0;
    c->n_small = 0;
    return true;
}

static bool put_small(struct grpc_client *c, const void *bytes, size_t n)
{
    if ((c->n_parts == PARTS_MAX || c->n_small + n > sizeof c->small) && !flush(c))
        return false;
    if (n > sizeof c->small)
        return false;
    memcpy(c->small + c->n_small, bytes, n);
    c->parts[c->n_parts++] = (struct iovec){c->small + c->n_small, n};
    c->n_small += n;
    return true;
}

static ssize_t on_send(nghttp2_session *session, const uint8_t *bytes, size_t n, int flags,
                       void *arg)
{
    (void)session, (void)flags;
    return put_small(arg, bytes, n) ? (ssize_t)n : NGHTTP2_ERR_CALLBACK_FAILURE;
}

static int on_send_data(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *head,
                        size_t n, nghttp2_data_source *source, void *arg)
{
    (void)session, (void)frame, (void)source;
    struct grpc_client *c = arg;
    if (!put_small(c, head, FRAME_HEAD_BYTES) || (c->n_parts == PARTS_MAX && !flush(c)))
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    c->parts[c->n_parts++] = (struct iovec){(char *)(uintptr_t)c->bytes + c->sent, n};
    c->sent += n;
    return 0;
}

static ssize_t on_read(nghttp2_session *session, int32_t stream, uint8_t *buf, size_t room,
                       uint32_t *flags, nghttp2_data_source *source, void *arg)
{
    (void)session, (void)stream, (void)buf, (void)source;
    struct grpc_client *c = arg;
    size_t left = c->n - c->sent;
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (left > room)
        return (ssize_t)room;
    *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)left;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_n, const uint8_t *value, size_t value_n, uint8_t flags, void *arg)
{
    (void)session, (void)frame, (void)flags;
    struct grpc_client *c = arg;
    uint64_t n;
    struct str key = {(const char *)name, name_n};
    if (str_eq(key, STR("grpc-status")) &&
        str_to_u64((struct str){(const char *)value, value_n}, &n))
        c->status = (int)n;
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream, const uint8_t *bytes,
                   size_t n, void *arg)
{
    (void)session, (void)flags, (void)stream;
    buf_put(&((struct grpc_client *)arg)->answer, bytes, n);
    return 0;
}

static int on_close(nghttp2_session *session, int32_t stream, uint32_t why, void *arg)
{
    (void)session, (void)stream, (void)why;
    ((struct grpc_client *)arg)->ended = true;
    return 0;
}

static int session_new(struct grpc_client *c)
{
    nghttp2_session_callbacks *callbacks;
    if (nghttp2_session_callbacks_new(&callbacks))
        return ERR_NOMEM;
    nghttp2_session_callbacks_set_send_callback(callbacks, on_send);
    nghttp2_session_callbacks_set_send_data_callback(callbacks, on_send_data);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
    int failed = nghttp2_session_client_new(&c->session, callbacks, c);
    nghttp2_session_callbacks_del(callbacks);
    if (failed || nghttp2_submit_settings(c->session, NGHTTP2_FLAG_NONE, NULL, 0))
        return ERR_NOMEM;
    return 0;
}

struct grpc_client *grpc_client_new(int fd)
{
    struct grpc_client *c = calloc(1, sizeof *c);
    if (!c) {
        if (fd >= 0)
            close(fd);
        return NULL;
    }
    c->fd = fd;
    if (c->fd < 0 || session_new(c)) {
        grpc_client_free(c);
        return NULL;
    }
    return c;
}

void grpc_client_free(struct grpc_client *c)
{
    if (!c)
        return;
    nghttp2_session_del(c->session);
    if (c->fd >= 0)
        close(c->fd);
    buf_done(&c->answer);
    free(c);
}

static nghttp2_nv pair(const char *name, const char *value)
{
    return (nghttp2_nv){(uint8_t *)(uintptr_t)name, (uint8_t *)(uintptr_t)value, strlen(name),
                        strlen(value), NGHTTP2_NV_FLAG_NONE};
}

int grpc_client_call(struct grpc_client *c, const char *bytes, size_t n, struct grpc_answer *ret)
{
    const nghttp2_nv head[] = {
        pair(":method", "POST"),
        pair(":scheme", "http"),
        pair(":path", "/opentelemetry.proto.collector.trace.v1.TraceService/Export"),
        pair(":authority", "127.0.0.1"),
        pair("te", "trailers"),
        pair("content-type", "application/grpc"),
    };
    const nghttp2_data_provider provider = {.read_callback = on_read};
    c->bytes = bytes;
    c->n = n;
    c->sent = 0;
    c->status = -1;
    c->ended = false;
    buf_clear(&c->answer);
    if (nghttp2_submit_request(c->session, NULL, head, sizeof head / sizeof *head, &provider,
                               NULL) < 0)
        return ERR_IO;
    while (!c->ended) {
        if (nghttp2_session_send(c->session) || !flush(c))
            return ERR_IO;
        ssize_t got = recv(c->fd, c->in, sizeof c->in, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0 || nghttp2_session_mem_recv(c->session, c->in, (size_t)got) < 0)
            return ERR_IO;
    }
    bool framed = c->answer.len >= 5;
    *ret = (struct grpc_answer){c->status, framed ? c->answer.ptr + 5 : "",
                                framed ? c->answer.len - 5 : 0};
    return 0;
}
