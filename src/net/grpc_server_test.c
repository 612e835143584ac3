#include "base/test.h"

#include "base/buf.h"
#include "base/clock.h"
#include "net/grpc_frame.h"
#include "net/grpc_server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zlib.h>

enum { PATIENCE_S = 10 };

/* ---- a server with an echo that answers at once, later, never, or with an error ---- */

struct fixture {
    struct grpc_server *server;
    struct budget budget;
    pthread_t later[64];
    _Atomic int n_later, calls;
    sem_t held;
    struct grpc_call *held_call;
    /* of the last stream */
    _Atomic int stream_err, stream_waits;
    _Atomic size_t stream_bytes;
    sem_t stream_ended;
    /* what was handed over */
    sem_t has_other;
    int other_fd;
    _Atomic int n_no_room; /* so often there is none */
};

/* A failure instead of a hang when it never happens. */
static void wait_until(sem_t *happened)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 30;
    assert_int_equal(sem_timedwait(happened, &until), 0);
}

static void echo(void *arg, struct grpc_call *call)
{
    struct fixture *f = arg;
    f->calls++;
    struct buf out = BUF_INIT;
    buf_str(&out, grpc_message(call));
    grpc_reply(call, &out);
}

static void *reply_later(void *arg)
{
    struct grpc_call *call = arg;
    struct buf out = BUF_INIT;
    buf_str(&out, grpc_message(call));
    grpc_reply(call, &out);
    return NULL;
}

static void echo_later(void *arg, struct grpc_call *call)
{
    struct fixture *f = arg;
    f->calls++;
    int at = f->n_later++;
    assert_true(at < 64);
    assert_int_equal(pthread_create(&f->later[at], NULL, reply_later, call), 0);
}

static void hold(void *arg, struct grpc_call *call)
{
    struct fixture *f = arg;
    f->held_call = call;
    sem_post(&f->held);
}

static void refuse(void *arg, struct grpc_call *call)
{
    (void)arg;
    grpc_reply_error(call, GRPC_RESOURCE_EXHAUSTED, STR("50% \xc3\xbc full\n"),
                     STR("\x08\x08\x12\x01x"));
}

/* ---- streams: the request says how many messages of how many bytes, and what code comes last ---- */

struct writer {
    struct fixture *f;
    struct grpc_call *call;
    unsigned n, bytes, code, at;
    bool on_thread;
    sem_t room;
};

/* False: it waits. */
static bool write_on(struct writer *w, grpc_ready_fn *ready)
{
    while (w->at < w->n) {
        struct buf message = BUF_INIT;
        buf_reserve(&message, w->bytes);
        if (w->bytes) /* an empty message has no place */
            memset(message.ptr, (int)(w->at % 251), w->bytes);
        message.len = w->bytes;
        int err = grpc_stream_write(w->call, &message);
        assert_null(message.ptr);
        w->f->stream_err = err;
        if (err && err != ERR_BUSY)
            break;
        w->at++;
        w->f->stream_bytes += w->bytes;
        if (err == ERR_BUSY) {
            w->f->stream_waits++;
            grpc_stream_wait(w->call, ready, w);
            return false;
        }
    }
    return true;
}

static void end(struct writer *w)
{
    struct fixture *f = w->f;
    grpc_stream_end(w->call, (enum grpc_code)w->code, w->code ? STR("that was all") : STR_NONE,
                    STR_NONE);
    sem_destroy(&w->room);
    free(w);
    sem_post(&f->stream_ended);
}

static void there_is_room(void *arg, struct grpc_call *call)
{
    struct writer *w = arg;
    assert_ptr_equal(w->call, call);
    if (w->on_thread)
        sem_post(&w->room);
    else if (write_on(w, there_is_room))
        end(w);
}

static void *write_thread(void *arg)
{
    struct writer *w = arg;
    while (!write_on(w, there_is_room))
        wait_until(&w->room);
    end(w);
    return NULL;
}

static struct writer *writer_new(struct fixture *f, struct grpc_call *call)
{
    struct writer *w = calloc(1, sizeof *w);
    char text[40];
    snprintf(text, sizeof text, "%.*s", STR_ARG(grpc_message(call)));
    w->f = f;
    w->call = call;
    assert_int_equal(sscanf(text, "%u %u %u", &w->n, &w->bytes, &w->code), 3);
    sem_init(&w->room, 0, 0);
    return w;
}

static void stream_here(void *arg, struct grpc_call *call)
{
    struct writer *w = writer_new(arg, call);
    if (write_on(w, there_is_room))
        end(w);
}

static void stream_there(void *arg, struct grpc_call *call)
{
    struct fixture *f = arg;
    struct writer *w = writer_new(f, call);
    w->on_thread = true;
    int at = f->n_later++;
    assert_true(at < 64);
    assert_int_equal(pthread_create(&f->later[at], NULL, write_thread, w), 0);
}

static const struct grpc_method methods[] = {
    {"/t.T/Echo", echo},   {"/t.T/Later", echo_later},   {"/t.T/Hold", hold},
    {"/t.T/Fail", refuse}, {"/t.T/Stream", stream_here}, {"/t.T/Streamed", stream_there}};

static bool take_other(void *arg, int fd)
{
    struct fixture *f = arg;
    if (atomic_fetch_sub(&f->n_no_room, 1) > 0)
        return false;
    f->other_fd = fd;
    sem_post(&f->has_other);
    return true;
}

static int setup_with(void **state, bool has_other)
{
    struct fixture *f = calloc(1, sizeof *f);
    sem_init(&f->held, 0, 0);
    sem_init(&f->stream_ended, 0, 0);
    sem_init(&f->has_other, 0, 0);
    f->budget.max = 8 << 20;
    struct grpc_server_options options = {
        .address = "127.0.0.1",
        .methods = methods,
        .n_methods = sizeof methods / sizeof *methods,
        .arg = f,
        .other = has_other ? take_other : NULL,
        .other_arg = f,
        .streams_max = 16,
        .message_timeout_s = 1,
        .message_bytes_max = 2 << 20,
        .inflated_bytes_max = 3 << 20,
        .budget = &f->budget,
    };
    struct error_detail detail;
    assert_int_equal(grpc_server_new(&options, &f->server, &detail), 0);
    *state = f;
    return 0;
}

static int setup(void **state)
{
    return setup_with(state, false);
}

static int setup_shared(void **state)
{
    return setup_with(state, true);
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    grpc_server_free(f->server);
    for (int i = 0; i < f->n_later; i++)
        pthread_join(f->later[i], NULL);
    assert_int_equal(f->budget.used, 0);
    sem_destroy(&f->held);
    sem_destroy(&f->stream_ended);
    sem_destroy(&f->has_other);
    free(f);
    return 0;
}

/* ---- a client ---- */

struct answer {
    char http[8], code[8], text[200], details[200];
    struct buf body;
    bool is_closed;
    uint32_t close_code;
};

struct client {
    int fd;
    nghttp2_session *session;
    bool said_goaway;
};

struct upload {
    struct str bytes;
    size_t at;
    bool never_ends;
};

static int got_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                      size_t name_n, const uint8_t *value, size_t value_n, uint8_t flags, void *arg)
{
    struct answer *a = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    (void)flags;
    (void)arg;
    if (!a)
        return 0;
    struct str key = {(const char *)name, name_n};
#define KEEP(header, field)                                                                        \
    if (str_eq(key, STR(header)))                                                                  \
    snprintf(a->field, sizeof a->field, "%.*s", (int)value_n, (const char *)value)
    KEEP(":status", http);
    KEEP("grpc-status", code);
    KEEP("grpc-message", text);
    KEEP("grpc-status-details-bin", details);
    return 0;
}

static int got_data(nghttp2_session *session, uint8_t flags, int32_t stream, const uint8_t *bytes,
                    size_t n, void *arg)
{
    (void)flags;
    (void)arg;
    struct answer *a = nghttp2_session_get_stream_user_data(session, stream);
    if (a)
        buf_put(&a->body, bytes, n);
    return 0;
}

static int got_close(nghttp2_session *session, int32_t stream, uint32_t code, void *arg)
{
    (void)arg;
    struct answer *a = nghttp2_session_get_stream_user_data(session, stream);
    if (a) {
        a->is_closed = true;
        a->close_code = code;
    }
    return 0;
}

static int got_frame(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
    (void)session;
    struct client *c = arg;
    if (frame->hd.type == NGHTTP2_GOAWAY)
        c->said_goaway = true;
    return 0;
}

static ssize_t read_upload(nghttp2_session *session, int32_t stream, uint8_t *out, size_t room,
                           uint32_t *flags, nghttp2_data_source *source, void *arg)
{
    (void)session;
    (void)stream;
    (void)arg;
    struct upload *u = source->ptr;
    size_t n = u->bytes.len - u->at;
    if (n == 0 && u->never_ends)
        return NGHTTP2_ERR_DEFERRED;
    n = n < room ? n : room;
    if (n)
        memcpy(out, u->bytes.ptr + u->at, n);
    u->at += n;
    if (u->at == u->bytes.len && !u->never_ends)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)n;
}

static int dial_raw(struct fixture *f)
{
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_port = htons(grpc_server_port(f->server)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
    struct timeval patience = {PATIENCE_S, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    int on = 1; /* window updates are small */
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
}

static void dial(struct client *c, struct fixture *f)
{
    *c = (struct client){.fd = dial_raw(f)};
    nghttp2_session_callbacks *callbacks;
    nghttp2_session_callbacks_new(&callbacks);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, got_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, got_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, got_close);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, got_frame);
    assert_int_equal(nghttp2_session_client_new(&c->session, callbacks, c), 0);
    nghttp2_session_callbacks_del(callbacks);
    nghttp2_submit_settings(c->session, NGHTTP2_FLAG_NONE, NULL, 0);
}

static void hang_up(struct client *c)
{
    nghttp2_session_del(c->session);
    close(c->fd);
}

struct request {
    const char *path, *method, *content_type, *encoding, *timeout;
    size_t padding; /* of an extra header */
};

static int32_t submit(struct client *c, const struct request *r, struct upload *u, struct answer *a)
{
    nghttp2_nv pairs[9];
    size_t n = 0;
    char *padding = NULL;
    const char *texts[][2] = {
        {":method", r->method ? r->method : "POST"},
        {":scheme", "http"},
        {":authority", "x"},
        {":path", r->path},
        {"te", "trailers"},
        {"content-type", r->content_type ? r->content_type : "application/grpc+proto"},
        {"grpc-encoding", r->encoding},
        {"grpc-timeout", r->timeout},
        {"padding", NULL},
    };
    if (r->padding) {
        padding = malloc(r->padding + 1);
        memset(padding, 'x', r->padding);
        padding[r->padding] = '\0';
        texts[8][1] = padding;
    }
    for (size_t i = 0; i < 9; i++)
        if (texts[i][1])
            pairs[n++] = (nghttp2_nv){(uint8_t *)(uintptr_t)texts[i][0],
                                      (uint8_t *)(uintptr_t)texts[i][1], strlen(texts[i][0]),
                                      strlen(texts[i][1]), 0};
    nghttp2_data_provider provider = {.source.ptr = u, .read_callback = read_upload};
    int32_t stream = nghttp2_submit_request(c->session, NULL, pairs, n, &provider, a);
    assert_true(stream > 0);
    free(padding);
    return stream;
}

/* Writes what there is and reads once; false when the server closed. */
static bool turn(struct client *c)
{
    for (;;) {
        const uint8_t *bytes;
        ssize_t n = nghttp2_session_mem_send(c->session, &bytes);
        if (n <= 0)
            break;
        while (n) {
            ssize_t sent = send(c->fd, bytes, (size_t)n, MSG_NOSIGNAL);
            if (sent <= 0)
                break;
            bytes += sent;
            n -= sent;
        }
    }
    uint8_t in[16384];
    ssize_t n = recv(c->fd, in, sizeof in, 0);
    if (n <= 0)
        return false;
    assert_int_equal(nghttp2_session_mem_recv(c->session, in, (size_t)n), n);
    return true;
}

static void wait_for(struct client *c, struct answer *a)
{
    while (!a->is_closed)
        if (!turn(c))
            fail_msg("the server closed the connection or does not answer");
}

static void put_frame(struct buf *out, uint8_t flag, const void *bytes, size_t n)
{
    uint8_t head[GRPC_FRAME_HEAD_BYTES];
    grpc_frame_head(head, (uint32_t)n);
    head[0] = flag;
    buf_put(out, head, sizeof head);
    buf_put(out, bytes, n);
}

/* One call on a connection of its own; the body is freed here. */
static struct answer call_raw(struct fixture *f, const struct request *r, struct buf *body)
{
    struct client c;
    struct answer a = {0};
    struct upload u = {.bytes = buf_as_str(body)};
    dial(&c, f);
    submit(&c, r, &u, &a);
    wait_for(&c, &a);
    hang_up(&c);
    buf_done(body);
    return a;
}

static struct answer call(struct fixture *f, const struct request *r, struct str message)
{
    struct buf body = BUF_INIT;
    put_frame(&body, 0, message.ptr, message.len);
    return call_raw(f, r, &body);
}

static void assert_echo(struct answer a, struct str message)
{
    assert_string_equal(a.http, "200");
    assert_string_equal(a.code, "0");
    assert_int_equal(a.body.len, message.len + GRPC_FRAME_HEAD_BYTES);
    assert_memory_equal(a.body.ptr + GRPC_FRAME_HEAD_BYTES, message.ptr, message.len);
    buf_done(&a.body);
}

static void assert_refused(struct answer a, const char *code, const char *text)
{
    assert_string_equal(a.http, "200");
    assert_string_equal(a.code, code);
    if (!strstr(a.text, text))
        fail_msg("\"%s\" is not in \"%s\"", text, a.text);
    assert_int_equal(a.body.len, 0);
    buf_done(&a.body);
}

/* ---- the tests ---- */

static void a_call_is_answered(void **state)
{
    assert_echo(call(*state, &(struct request){.path = "/t.T/Echo"}, STR("hello")), STR("hello"));
    assert_echo(call(*state,
                     &(struct request){.path = "/t.T/Echo", .content_type = "application/grpc"},
                     STR_NONE),
                STR(""));
}

static void calls_on_one_connection_are_answered_from_other_threads(void **state)
{
    struct client c;
    dial(&c, *state);
    enum { N = 16 };
    struct answer answers[N] = {0};
    struct upload uploads[N];
    struct buf bodies[N] = {0};
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < N; i++) {
            char text[20];
            int n = snprintf(text, sizeof text, "call %d", i);
            put_frame(&bodies[i], 0, text, (size_t)n);
            uploads[i] = (struct upload){.bytes = buf_as_str(&bodies[i])};
            submit(&c, &(struct request){.path = "/t.T/Later"}, &uploads[i], &answers[i]);
        }
        for (int i = 0; i < N; i++) {
            wait_for(&c, &answers[i]);
            struct str message = str_skip(uploads[i].bytes, GRPC_FRAME_HEAD_BYTES);
            assert_echo(answers[i], message);
            answers[i] = (struct answer){0};
            buf_done(&bodies[i]);
        }
    }
    hang_up(&c);
}

static void a_large_message_passes_in_both_directions(void **state)
{
    size_t n = (2 << 20) - 10;
    char *bytes = malloc(n);
    for (size_t i = 0; i < n; i++)
        bytes[i] = (char)(i * 7);
    assert_echo(call(*state, &(struct request){.path = "/t.T/Echo"}, (struct str){bytes, n}),
                (struct str){bytes, n});
    free(bytes);
}

static struct buf gzip_of(const void *bytes, size_t n)
{
    z_stream z = {0};
    assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY), Z_OK);
    struct buf out = BUF_INIT;
    buf_reserve(&out, deflateBound(&z, n));
    z.next_in = (Bytef *)(uintptr_t)bytes;
    z.avail_in = (uInt)n;
    z.next_out = (Bytef *)out.ptr;
    z.avail_out = (uInt)out.cap;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    out.len = z.total_out;
    deflateEnd(&z);
    return out;
}

static void compressed_messages_are_inflated_and_bombs_bounded(void **state)
{
    struct fixture *f = *state;
    struct request gzip = {.path = "/t.T/Echo", .encoding = "gzip"};
    struct buf packed = gzip_of("hello hello", 11), body = BUF_INIT;
    put_frame(&body, 1, packed.ptr, packed.len);
    assert_echo(call_raw(f, &gzip, &body), STR("hello hello"));
    put_frame(&body, 1, packed.ptr, packed.len - 3);
    assert_refused(call_raw(f, &gzip, &body), "13", "not complete");
    put_frame(&body, 1, packed.ptr, packed.len);
    assert_refused(call_raw(f, &(struct request){.path = "/t.T/Echo"}, &body), "13",
                   "without grpc-encoding");
    buf_done(&packed);
    char *zeros = calloc(1, 16 << 20);
    packed = gzip_of(zeros, 16 << 20);
    free(zeros);
    put_frame(&body, 1, packed.ptr, packed.len);
    assert_refused(call_raw(f, &gzip, &body), "8", "over this server's limit");
    buf_done(&packed);
    assert_refused(call(f, &(struct request){.path = "/t.T/Echo", .encoding = "br"}, STR("x")),
                   "12", "grpc-encoding");
    assert_int_equal(f->calls, 1);
}

static void an_oversized_message_is_refused_before_it_has_arrived(void **state)
{
    struct fixture *f = *state;
    struct buf body = BUF_INIT;
    uint8_t head[] = {0, 0x7f, 0xff, 0xff, 0xff};
    buf_put(&body, head, sizeof head);
    struct client c;
    struct answer a = {0};
    struct upload u = {.bytes = buf_as_str(&body), .never_ends = true};
    dial(&c, f);
    submit(&c, &(struct request){.path = "/t.T/Echo"}, &u, &a);
    wait_for(&c, &a);
    assert_refused(a, "8", "over this server's limit");
    assert_int_equal(a.close_code, NGHTTP2_NO_ERROR);
    hang_up(&c);
    buf_done(&body);
}

static void an_upload_that_goes_on_after_its_refusal_is_stopped(void **state)
{
    struct fixture *f = *state;
    size_t n = 16 << 20;
    struct buf body = BUF_INIT;
    assert_true(buf_reserve(&body, n));
    memset(body.ptr, 0x7f, n);
    body.ptr[0] = 0;
    body.len = n;
    struct client c;
    struct answer a = {0};
    struct upload u = {.bytes = buf_as_str(&body)};
    dial(&c, f);
    submit(&c, &(struct request){.path = "/t.T/Echo"}, &u, &a);
    wait_for(&c, &a);
    assert_refused(a, "8", "over this server's limit");
    assert_true(u.at < n);
    hang_up(&c);
    buf_done(&body);
}

static void what_is_not_one_message_is_refused(void **state)
{
    struct request echo_request = {.path = "/t.T/Echo"};
    struct buf body = BUF_INIT;
    assert_refused(call_raw(*state, &echo_request, &body), "13", "not complete");
    buf_put(&body, "\0\0\0", 3);
    assert_refused(call_raw(*state, &echo_request, &body), "13", "not complete");
    put_frame(&body, 0, "a", 1);
    put_frame(&body, 0, "b", 1);
    assert_refused(call_raw(*state, &echo_request, &body), "13", "not one gRPC message");
    put_frame(&body, 9, "a", 1);
    assert_refused(call_raw(*state, &echo_request, &body), "13", "not one gRPC message");
    put_frame(&body, 0, "abc", 3);
    body.len--;
    assert_refused(call_raw(*state, &echo_request, &body), "13", "not complete");
}

static void wrong_methods_paths_and_types_have_their_own_answers(void **state)
{
    struct fixture *f = *state;
    assert_refused(call(f, &(struct request){.path = "/t.T/Nothing"}, STR("x")), "12",
                   "no such method");
    struct answer a = call(f, &(struct request){.path = "/t.T/Echo", .method = "PUT"}, STR("x"));
    assert_string_equal(a.http, "405");
    a = call(f, &(struct request){.path = "/t.T/Echo", .content_type = "application/json"},
             STR("x"));
    assert_string_equal(a.http, "415");
    a = call(f, &(struct request){.path = "/t.T/Echo", .content_type = "application/grpcx"},
             STR("x"));
    assert_string_equal(a.http, "415");
    a = call(f, &(struct request){.path = "/t.T/Echo", .padding = 20000}, STR("x"));
    assert_string_equal(a.http, "431");
    assert_refused(call(f, &(struct request){.path = "/t.T/Echo", .timeout = "5"}, STR("x")), "13",
                   "grpc-timeout");
    assert_int_equal(f->calls, 0);
}

static void an_error_carries_escaped_text_and_details(void **state)
{
    struct answer a = call(*state, &(struct request){.path = "/t.T/Fail"}, STR("x"));
    assert_string_equal(a.code, "8");
    assert_string_equal(a.text, "50%25 %C3%BC full%0A");
    assert_string_equal(a.details, "CAgSAXg");
}

static void a_deadline_is_kept_and_the_late_answer_goes_nowhere(void **state)
{
    struct fixture *f = *state;
    uint64_t before = clock_monotonic_ns();
    /* Long enough for the message to reach the handler on a busy machine. */
    assert_refused(call(f, &(struct request){.path = "/t.T/Hold", .timeout = "1S"}, STR("x")), "4",
                   "deadline");
    assert_true(clock_monotonic_ns() - before >= NS_PER_S);
    wait_until(&f->held);
    assert_str_eq(grpc_message(f->held_call), STR("x")); /* still the handler's */
    reply_later(f->held_call);
    assert_echo(call(f, &(struct request){.path = "/t.T/Echo", .timeout = "10S"}, STR("y")),
                STR("y"));
}

static void a_message_that_never_ends_is_refused(void **state)
{
    struct fixture *f = *state;
    struct client c;
    struct answer a = {0};
    struct upload u = {.bytes = STR("\0\0\0\0\5ab"), .never_ends = true};
    dial(&c, f);
    submit(&c, &(struct request){.path = "/t.T/Echo"}, &u, &a);
    wait_for(&c, &a);
    assert_refused(a, "4", "deadline");
    hang_up(&c);
}

static void messages_beyond_the_budget_are_refused_until_there_is_room(void **state)
{
    struct fixture *f = *state;
    assert_true(budget_take(&f->budget, 8 << 20));
    assert_refused(call(f, &(struct request){.path = "/t.T/Echo"}, STR("x")), "14", "in flight");
    budget_give(&f->budget, 8 << 20);
    assert_echo(call(f, &(struct request){.path = "/t.T/Echo"}, STR("x")), STR("x"));
}

static void a_client_that_leaves_does_not_disturb_its_handler(void **state)
{
    struct fixture *f = *state;
    struct client c;
    struct answer a = {0};
    struct upload u = {.bytes = STR("\0\0\0\0\2ab")};
    dial(&c, f);
    submit(&c, &(struct request){.path = "/t.T/Hold"}, &u, &a);
    turn(&c);
    wait_until(&f->held);
    hang_up(&c);
    assert_echo(call(f, &(struct request){.path = "/t.T/Echo"}, STR("x")), STR("x"));
    assert_str_eq(grpc_message(f->held_call), STR("ab"));
    reply_later(f->held_call);
}

static void garbage_is_closed_and_the_next_call_works(void **state)
{
    static const char *const garbage[] = {
        "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "\x16\x03\x01\x02",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "PRI * HTTP/2.0\r\n\r\nS",
        "\r\n",
    };
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof garbage / sizeof *garbage; i++) {
        int fd = dial_raw(f);
        assert_true(send(fd, garbage[i], strlen(garbage[i]), MSG_NOSIGNAL) > 0);
        shutdown(fd, SHUT_WR);
        char in[2000];
        size_t n = 0;
        for (ssize_t got; n < sizeof in - 1 && (got = recv(fd, in + n, sizeof in - 1 - n, 0)) > 0;)
            n += (size_t)got;
        in[n] = '\0';
        if (i == 0)
            assert_non_null(strstr(in, "400 Bad Request"));
        close(fd);
        assert_echo(call(f, &(struct request){.path = "/t.T/Echo"}, STR("x")), STR("x"));
    }
}

static void say_slowly(int fd, const char *text)
{
    for (; *text; text++)
        assert_int_equal(send(fd, text, 1, MSG_NOSIGNAL), 1);
}

static void what_is_no_http2_is_handed_over_unread(void **state)
{
    struct fixture *f = *state;
    static const char text[] = "POST / HTTP/1.1\r\n"; /* begins as the other does */
    for (int full = 0; full < 2; full++) {
        f->n_no_room = full;
        int fd = dial_raw(f);
        say_slowly(fd, text);
        wait_until(&f->has_other);
        char in[sizeof text] = "";
        for (size_t n = 0; n < sizeof text - 1;) {
            ssize_t got = recv(f->other_fd, in + n, sizeof text - 1 - n, MSG_DONTWAIT);
            if (got > 0)
                n += (size_t)got;
            else
                assert_true(got < 0 && errno == EAGAIN);
        }
        assert_string_equal(in, text);
        /* It is whoever's it was given to, and goes both ways. */
        assert_int_equal(send(f->other_fd, "yes", 3, MSG_NOSIGNAL), 3);
        assert_int_equal(recv(fd, in, 3, MSG_WAITALL), 3);
        assert_memory_equal(in, "yes", 3);
        close(f->other_fd);
        close(fd);
        assert_echo(call(f, &(struct request){.path = "/t.T/Echo"}, STR("x")), STR("x"));
    }
    struct grpc_server_stats stats;
    int silent = dial_raw(f), gone = dial_raw(f), slow = dial_raw(f);
    close(gone);
    say_slowly(slow, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    char first;
    assert_int_equal(recv(slow, &first, 1, 0), 1); /* of its settings */
    grpc_server_stats(f->server, &stats);
    assert_int_equal(stats.refused_bad, 0);
    grpc_server_stop(f->server, 0); /* ends the one that has said nothing */
    assert_int_equal(recv(silent, &first, 1, 0), 0);
    close(silent);
    close(slow);
}

static void stopping_waits_for_answers_under_way(void **state)
{
    struct fixture *f = *state;
    struct client c;
    struct answer a = {0};
    struct upload u = {.bytes = STR("\0\0\0\0\2ab")};
    dial(&c, f);
    submit(&c, &(struct request){.path = "/t.T/Hold"}, &u, &a);
    turn(&c);
    wait_until(&f->held);
    pthread_t answering;
    pthread_create(&answering, NULL, reply_later, f->held_call);
    grpc_server_stop(f->server, PATIENCE_S * 1000);
    wait_for(&c, &a);
    assert_echo(a, STR("ab"));
    pthread_join(answering, NULL);
    hang_up(&c);
}

static void an_answer_after_the_server_is_freed_goes_nowhere(void **state)
{
    struct fixture *f = *state;
    struct client c;
    struct answer a = {0};
    struct upload u = {.bytes = STR("\0\0\0\0\2ab")};
    dial(&c, f);
    submit(&c, &(struct request){.path = "/t.T/Hold"}, &u, &a);
    turn(&c);
    wait_until(&f->held);
    grpc_server_free(f->server);
    f->server = NULL;
    while (turn(&c))
        ;
    assert_true(c.said_goaway);
    assert_str_eq(grpc_message(f->held_call), STR("ab"));
    reply_later(f->held_call);
    hang_up(&c);
}

static void an_answer_nobody_reads_holds_no_bytes_and_its_stream_is_reset(void **state)
{
    struct fixture *f = *state;
    static const char *const paths[] = {"/t.T/Echo", "/t.T/Later"};
    struct client c;
    struct answer answers[2] = {0};
    struct upload uploads[2];
    struct buf body = BUF_INIT;
    char *bytes = calloc(1, 1 << 20);
    put_frame(&body, 0, bytes, 1 << 20);
    free(bytes);
    dial(&c, f);
    nghttp2_settings_entry shut = {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 0};
    nghttp2_submit_settings(c.session, NGHTTP2_FLAG_NONE, &shut, 1);
    for (int i = 0; i < 2; i++) {
        uploads[i] = (struct upload){.bytes = buf_as_str(&body)};
        submit(&c, &(struct request){.path = paths[i]}, &uploads[i], &answers[i]);
    }
    while (!answers[0].http[0] || !answers[1].http[0])
        assert_true(turn(&c));
    assert_int_equal(f->budget.used, 0);
    assert_false(answers[0].is_closed || answers[1].is_closed);
    for (int i = 0; i < 2; i++) {
        assert_string_equal(answers[i].http, "200");
        wait_for(&c, &answers[i]);
        assert_int_equal(answers[i].close_code, NGHTTP2_CANCEL);
        assert_int_equal(answers[i].body.len, 0);
    }
    hang_up(&c);
    buf_done(&body);
}

/* ---- streams ---- */

static void assert_stream(struct answer a, unsigned n, unsigned bytes, const char *code)
{
    assert_string_equal(a.http, "200");
    assert_string_equal(a.code, code);
    size_t whole = GRPC_FRAME_HEAD_BYTES + (size_t)bytes;
    assert_int_equal(a.body.len, n * whole);
    for (unsigned i = 0; i < n; i++) {
        const uint8_t *part = (const uint8_t *)a.body.ptr + i * whole;
        uint8_t head[GRPC_FRAME_HEAD_BYTES];
        grpc_frame_head(head, bytes);
        assert_memory_equal(part, head, sizeof head);
        for (unsigned k = 0; k < bytes; k += bytes / 3 + 1)
            assert_int_equal(part[sizeof head + k], i % 251);
        assert_true(!bytes || part[whole - 1] == i % 251);
    }
    buf_done(&a.body);
}

static void a_stream_carries_its_messages_in_order_from_any_thread(void **state)
{
    struct fixture *f = *state;
    static const char *const paths[] = {"/t.T/Stream", "/t.T/Streamed"};
    for (int i = 0; i < 2; i++) {
        struct request r = {.path = paths[i]};
        f->stream_waits = 0;
        assert_stream(call(f, &r, STR("1000 5001 0")), 1000, 5001, "0");
        assert_true(f->stream_waits > 0); /* more than the queue holds */
        assert_stream(call(f, &r, STR("300 0 0")), 300, 0, "0");
        assert_stream(call(f, &r, STR("2 2000000 0")), 2, 2000000, "0");
    }
}

static void streams_on_one_connection_share_it(void **state)
{
    enum { N = 8 };
    struct client c;
    struct answer answers[N] = {0};
    struct upload uploads[N];
    struct buf bodies[N] = {0};
    dial(&c, *state);
    for (int i = 0; i < N; i++) {
        put_frame(&bodies[i], 0, "200 10000 0", 11);
        uploads[i] = (struct upload){.bytes = buf_as_str(&bodies[i])};
        submit(&c, &(struct request){.path = i % 2 ? "/t.T/Stream" : "/t.T/Streamed"}, &uploads[i],
               &answers[i]);
    }
    for (int i = 0; i < N; i++) {
        wait_for(&c, &answers[i]);
        assert_stream(answers[i], 200, 10000, "0");
        buf_done(&bodies[i]);
    }
    hang_up(&c);
}

static void a_stream_ends_with_what_went_wrong(void **state)
{
    struct answer a = call(*state, &(struct request){.path = "/t.T/Streamed"}, STR("3 10 14"));
    assert_string_equal(a.text, "that was all");
    assert_stream(a, 3, 10, "14");
    assert_refused(call(*state, &(struct request){.path = "/t.T/Stream"}, STR("0 0 5")), "5",
                   "that was all");
    assert_stream(call(*state, &(struct request){.path = "/t.T/Stream"}, STR("0 0 0")), 0, 0, "0");
}

/* Starts a stream that is never read; the writer has been told to wait when this returns. */
static void start_unread(struct fixture *f, struct client *c, struct answer *a, struct buf *body,
                         struct upload *u, const char *timeout)
{
    dial(c, f);
    put_frame(body, 0, "1000 100000 0", 13);
    *u = (struct upload){.bytes = buf_as_str(body)};
    submit(c, &(struct request){.path = "/t.T/Streamed", .timeout = timeout}, u, a);
    while (!f->stream_waits)
        if (!turn(c))
            fail_msg("the server closed the connection or does not answer");
}

static void a_client_that_does_not_read_costs_a_bounded_queue_and_loses_its_call(void **state)
{
    struct fixture *f = *state;
    struct client c;
    struct answer a = {0};
    struct buf body = BUF_INIT;
    struct upload u;
    start_unread(f, &c, &a, &body, &u, NULL);
    size_t read = a.body.len;
    wait_until(&f->stream_ended); /* after twice the fixture's message_timeout_s */
    assert_int_equal(f->stream_err, ERR_CLOSED);
    assert_in_range(f->stream_bytes, GRPC_STREAM_BYTES_MAX - 100000,
                    GRPC_STREAM_BYTES_MAX + read + 400000);
    assert_echo(call(f, &(struct request){.path = "/t.T/Echo"}, STR("still here")),
                STR("still here"));
    hang_up(&c);
    buf_done(&a.body);
    buf_done(&body);
}

static void a_stream_whose_client_leaves_or_whose_time_is_over_is_told(void **state)
{
    struct fixture *f = *state;
    for (int leaves = 0; leaves < 2; leaves++) {
        struct client c;
        struct answer a = {0};
        struct buf body = BUF_INIT;
        struct upload u;
        f->stream_waits = 0;
        start_unread(f, &c, &a, &body, &u, leaves ? NULL : "500m");
        if (leaves)
            hang_up(&c);
        wait_until(&f->stream_ended);
        assert_int_equal(f->stream_err, ERR_CLOSED);
        if (!leaves)
            hang_up(&c);
        buf_done(&a.body);
        buf_done(&body);
    }
}

static void a_stream_is_told_when_the_server_ends(void **state)
{
    struct fixture *f = *state;
    struct client c;
    struct answer a = {0};
    struct buf body = BUF_INIT;
    struct upload u;
    start_unread(f, &c, &a, &body, &u, NULL);
    grpc_server_stop(f->server, 0);
    wait_until(&f->stream_ended);
    assert_int_equal(f->stream_err, ERR_CLOSED);
    hang_up(&c);
    buf_done(&a.body);
    buf_done(&body);
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(a_call_is_answered),
        T(calls_on_one_connection_are_answered_from_other_threads),
        T(a_large_message_passes_in_both_directions),
        T(compressed_messages_are_inflated_and_bombs_bounded),
        T(an_oversized_message_is_refused_before_it_has_arrived),
        T(an_upload_that_goes_on_after_its_refusal_is_stopped),
        T(what_is_not_one_message_is_refused),
        T(wrong_methods_paths_and_types_have_their_own_answers),
        T(an_error_carries_escaped_text_and_details),
        T(a_deadline_is_kept_and_the_late_answer_goes_nowhere),
        T(a_message_that_never_ends_is_refused),
        T(messages_beyond_the_budget_are_refused_until_there_is_room),
        T(an_answer_nobody_reads_holds_no_bytes_and_its_stream_is_reset),
        T(a_client_that_leaves_does_not_disturb_its_handler),
        T(garbage_is_closed_and_the_next_call_works),
        cmocka_unit_test_setup_teardown(what_is_no_http2_is_handed_over_unread, setup_shared,
                                        teardown),
        T(stopping_waits_for_answers_under_way),
        T(an_answer_after_the_server_is_freed_goes_nowhere),
        T(a_stream_carries_its_messages_in_order_from_any_thread),
        T(streams_on_one_connection_share_it),
        T(a_stream_ends_with_what_went_wrong),
        T(a_client_that_does_not_read_costs_a_bounded_queue_and_loses_its_call),
        T(a_stream_whose_client_leaves_or_whose_time_is_over_is_told),
        T(a_stream_is_told_when_the_server_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
