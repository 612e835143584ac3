#include "base/test.h"

#include "base/buf.h"
#include "base/clock.h"
#include "net/grpc_server.h"
#include "net/http_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

enum { PATIENCE_MS = 10000, HUGE_ANSWER = 20000000 };

/* ---- a server whose handler does what the path says ---- */

struct fixture {
    uint16_t port;
    struct http_server *server;
    struct budget budget;
    _Atomic int calls;
    pthread_t later[64];
    _Atomic int n_later;
    struct http_stream *stream;
    sem_t have_stream, held, release;
    struct http_request *held_request;
    pthread_mutex_t lock; /* of the threads seen, and how often */
    pthread_t threads[16];
    unsigned n_threads, n_of[16];
};

/* A failure instead of a hang when it never happens. */
static void wait_until(sem_t *happened)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 30;
    assert_int_equal(sem_timedwait(happened, &until), 0);
}

static void echo(struct http_request *r)
{
    struct buf out = BUF_INIT;
    buf_str(&out, http_method(r));
    buf_byte(&out, ' ');
    buf_str(&out, http_path(r));
    buf_byte(&out, ' ');
    buf_str(&out, http_content_type(r));
    buf_printf(&out, " %zu ", http_body(r).len);
    if (http_body(r).len < 200)
        buf_str(&out, http_body(r));
    http_reply(r, 200, "text/plain", &out);
}

static void *echo_later(void *arg)
{
    echo(arg);
    return NULL;
}

static void thread_note(struct fixture *f)
{
    unsigned i = 0;
    pthread_mutex_lock(&f->lock);
    while (i < f->n_threads && !pthread_equal(f->threads[i], pthread_self()))
        i++;
    assert_true(i < 16);
    f->threads[i] = pthread_self();
    f->n_threads = i == f->n_threads ? i + 1 : f->n_threads;
    f->n_of[i]++;
    pthread_mutex_unlock(&f->lock);
}

static void handle(void *arg, struct http_request *r)
{
    struct fixture *f = arg;
    f->calls++;
    thread_note(f);
    if (str_eq(http_path(r), STR("/later"))) {
        int at = f->n_later++;
        assert_true(at < 64);
        assert_int_equal(pthread_create(&f->later[at], NULL, echo_later, r), 0);
    } else if (str_eq(http_path(r), STR("/hold"))) {
        f->held_request = r;
        sem_post(&f->held);
    } else if (str_eq(http_path(r), STR("/stream"))) {
        f->stream = http_reply_stream(r, "text/event-stream", 64 << 10);
        sem_post(&f->have_stream);
    } else if (str_eq(http_path(r), STR("/query"))) {
        struct buf out = BUF_INIT;
        struct str nth;
        buf_str(&out, http_query(r, "q", false));
        buf_byte(&out, '|');
        buf_str(&out, http_query(r, "q", true));
        for (unsigned i = 0; http_query_nth(r, "tag", i, &nth); i++) {
            buf_byte(&out, '|');
            buf_str(&out, nth);
        }
        buf_cstr(&out, http_query(r, "absent", false).ptr ? "|there" : "|not there");
        http_reply(r, 200, "text/plain", &out);
    } else if (str_eq(http_path(r), STR("/big"))) {
        struct buf out = BUF_INIT;
        for (int i = 0; i < 20000; i++)
            buf_cstr(&out, "0123456789");
        http_reply(r, 200, "application/json", &out);
    } else if (str_eq(http_path(r), STR("/huge"))) { /* more than the kernel keeps of it */
        struct buf out = BUF_INIT;
        for (int i = 0; i < HUGE_ANSWER / 10; i++)
            buf_cstr(&out, "0123456789");
        http_reply(r, 200, "application/octet-stream", &out);
    } else {
        echo(r);
    }
}

static const char *error_body(void *arg, const struct http_request *r, int status,
                              struct str message, struct buf *out)
{
    buf_printf(out, "<%d %.*s>", status, STR_ARG(message));
    return "application/x-error";
}

static unsigned retry_after_s(void *arg)
{
    struct fixture *f = arg;
    return f->budget.used ? 7 : 1;
}

static int setup_options(void **state, unsigned threads, unsigned idle_timeout_s,
                         unsigned connections_max, bool is_given_connections)
{
    struct fixture *f = calloc(1, sizeof *f);
    pthread_mutex_init(&f->lock, NULL);
    sem_init(&f->have_stream, 0, 0);
    sem_init(&f->held, 0, 0);
    f->budget.max = 3 << 20;
    struct http_server_options options = {
        .is_given_connections = is_given_connections,
        .address = "127.0.0.1",
        .threads = threads,
        .connections_max = connections_max,
        .idle_timeout_s = idle_timeout_s,
        .handler = handle,
        .error_body = error_body,
        .retry_after_s = retry_after_s,
        .body_bytes_max = 1 << 20,
        .unread_bytes_max = HUGE_ANSWER * 3 / 2,
        .inflated_bytes_max = 2 << 20,
        .budget = &f->budget,
        .arg = f,
    };
    struct error_detail detail;
    assert_int_equal(http_server_new(&options, &f->server, &detail), 0);
    f->port = http_server_port(f->server);
    *state = f;
    return 0;
}

static int setup_with(void **state, unsigned threads, unsigned idle_timeout_s,
                      unsigned connections_max)
{
    return setup_options(state, threads, idle_timeout_s, connections_max, false);
}

static int setup(void **state)
{
    return setup_with(state, 1, 0, 0);
}

static int setup_pool(void **state)
{
    return setup_with(state, 3, 0, 0);
}

/* libmicrohttpd's epoll loop may miss a half-close that came with the last bytes; the idle timeout
 * is what ends such a connection. */
static int setup_impatient(void **state)
{
    return setup_with(state, 2, 1, 0);
}

/* Its connections are accepted elsewhere. */
static int setup_given(void **state)
{
    return setup_options(state, 1, 0, 2, true);
}

static int setup_narrow(void **state)
{
    return setup_with(state, 2, 0, 2);
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    http_server_free(f->server);
    for (int i = 0; i < f->n_later; i++)
        pthread_join(f->later[i], NULL);
    assert_int_equal(f->budget.used, 0);
    sem_destroy(&f->have_stream);
    sem_destroy(&f->held);
    free(f);
    return 0;
}

/* ---- a client that sends bytes ---- */

static int dial(struct fixture *f)
{
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_port = htons(f->port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
    struct timeval patience = {PATIENCE_MS / 1000, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    return fd;
}

static bool say(int fd, const void *bytes, size_t n)
{
    const char *at = bytes;
    while (n) {
        ssize_t sent = send(fd, at, n, MSG_NOSIGNAL);
        if (sent <= 0)
            return false;
        at += sent;
        n -= (size_t)sent;
    }
    return true;
}

static void say_text(int fd, const char *text)
{
    assert_true(say(fd, text, strlen(text)));
}

/* Until the server closes, or `until` was seen. NUL-terminated; the caller frees. */
static char *hear(int fd, const char *until)
{
    struct buf in = BUF_INIT;
    char piece[8192];
    for (;;) {
        buf_byte(&in, '\0');
        in.len--;
        if (until && in.ptr && strstr(in.ptr, until))
            break;
        ssize_t n = recv(fd, piece, sizeof piece, 0);
        if (n <= 0)
            break;
        buf_put(&in, piece, (size_t)n);
    }
    size_t n;
    return buf_detach(&in, &n);
}

static char *exchange(struct fixture *f, const char *head, const void *body, size_t n)
{
    int fd = dial(f);
    say_text(fd, head);
    say(fd, body, n);
    char *answer = hear(fd, NULL);
    close(fd);
    return answer;
}

static char *post(struct fixture *f, const char *path, const char *headers, const void *body,
                  size_t n)
{
    char head[500];
    snprintf(head, sizeof head,
             "POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%sContent-Length: %zu\r\n\r\n",
             path, headers, n);
    return exchange(f, head, body, n);
}

static void assert_has(char *answer, const char *part)
{
    if (!answer || !strstr(answer, part))
        fail_msg("\"%s\" is not in \"%.600s\"", part, answer ? answer : "");
}

static void assert_answer(char *answer, const char *first, const char *second)
{
    assert_has(answer, first);
    assert_has(answer, second);
    free(answer);
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

/* ---- the tests ---- */

static void a_request_is_answered_by_its_handler(void **state)
{
    assert_answer(
        post(*state, "/x%2Fy?z=1", "Content-Type: Text/Plain; charset=utf-8\r\n", "hello", 5),
        "HTTP/1.1 200 OK", "POST /x%2Fy text/plain 5 hello");
}

static void an_answer_may_come_later_from_another_thread(void **state)
{
    for (int i = 0; i < 20; i++)
        assert_answer(post(*state, "/later", "", "abc", 3), "200 OK", "POST /later  3 abc");
}

static void requests_on_one_connection_are_answered_in_order(void **state)
{
    struct fixture *f = *state;
    int fd = dial(f);
    say_text(fd, "GET /1 HTTP/1.1\r\nHost: x\r\n\r\n"
                 "POST /later HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab"
                 "GET /3 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    char *answer = hear(fd, NULL);
    char *one = strstr(answer, "GET /1"), *two = strstr(answer, "POST /later  2 ab"),
         *three = strstr(answer, "GET /3");
    assert_non_null(one);
    assert_non_null(two);
    assert_non_null(three);
    assert_true(one < two && two < three);
    free(answer);
    close(fd);
}

static void a_chunked_body_is_put_together(void **state)
{
    const char *head = "POST /c HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: "
                       "chunked\r\n\r\n";
    const char *body = "3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\n\r\n";
    assert_answer(exchange(*state, head, body, strlen(body)), "200 OK", "7 abcdefg");
}

static void compressed_bodies_are_inflated(void **state)
{
    struct buf packed = gzip_of("hello hello hello", 17);
    assert_answer(post(*state, "/", "Content-Encoding: gzip\r\n", packed.ptr, packed.len), "200 OK",
                  "17 hello hello hello");
    buf_put(&packed, packed.ptr, 0);
    struct buf twice = BUF_INIT; /* two members */
    buf_put(&twice, packed.ptr, packed.len);
    buf_put(&twice, packed.ptr, packed.len);
    assert_answer(post(*state, "/", "Content-Encoding: GZIP\r\n", twice.ptr, twice.len), "200 OK",
                  "34 hello hello hellohello");
    buf_done(&twice);
    buf_done(&packed);
    char out[100];
    uLongf n = sizeof out;
    compress((Bytef *)out, &n, (const Bytef *)"deflated", 8);
    assert_answer(post(*state, "/", "Content-Encoding: deflate\r\n", out, n), "200 OK",
                  "8 deflated");
    size_t z = ZSTD_compress(out, sizeof out, "zstandard", 9, 1);
    assert_answer(post(*state, "/", "Content-Encoding: zstd\r\n", out, z), "200 OK", "9 zstandard");
}

static void a_truncated_or_wrong_compressed_body_is_refused(void **state)
{
    struct buf packed = gzip_of("hello hello hello", 17);
    assert_answer(post(*state, "/", "Content-Encoding: gzip\r\n", packed.ptr, packed.len - 5),
                  " 400 ", "<400 the compressed body ends too early>");
    assert_answer(post(*state, "/", "Content-Encoding: zstd\r\n", packed.ptr, packed.len), " 400 ",
                  "<400 the body is not what");
    assert_answer(post(*state, "/", "Content-Encoding: gzip\r\n", "", 0), " 400 ",
                  "ends too early");
    buf_done(&packed);
    struct fixture *f = *state;
    assert_int_equal(f->calls, 0);
}

static void an_unknown_coding_is_refused_with_those_that_are_known(void **state)
{
    assert_answer(post(*state, "/", "Content-Encoding: br\r\n", "abc", 3), " 415 ",
                  "Accept-Encoding: gzip, deflate, zstd");
}

static void a_decompression_bomb_costs_no_more_than_the_bound(void **state)
{
    struct fixture *f = *state;
    size_t n = 64 << 20;
    char *zeros = calloc(1, n);
    struct buf packed = gzip_of(zeros, n);
    assert_true(packed.len < 1 << 20);
    assert_answer(post(f, "/", "Content-Encoding: gzip\r\n", packed.ptr, packed.len), " 413 ",
                  "<413 the body is over");
    buf_done(&packed);
    struct buf z = BUF_INIT;
    buf_reserve(&z, ZSTD_compressBound(n));
    z.len = ZSTD_compress(z.ptr, z.cap, zeros, n, 3);
    assert_answer(post(f, "/", "Content-Encoding: zstd\r\n", z.ptr, z.len), " 413 ", "<413 ");
    buf_done(&z);
    free(zeros);
    assert_int_equal(f->calls, 0);
    struct http_server_stats stats;
    http_server_stats(f->server, &stats);
    assert_int_equal(stats.refused_too_large, 2);
}

static void a_body_of_exactly_the_bound_passes_and_one_byte_more_does_not(void **state)
{
    size_t n = 1 << 20;
    char *bytes = calloc(1, 2 * n + 1);
    assert_answer(post(*state, "/", "", bytes, n), "200 OK", " 1048576 ");
    assert_answer(post(*state, "/", "", bytes, n + 1), " 413 ", "<413 ");
    struct buf packed = gzip_of(bytes, 2 * n);
    assert_answer(post(*state, "/", "Content-Encoding: gzip\r\n", packed.ptr, packed.len), "200 OK",
                  " 2097152 ");
    buf_done(&packed);
    packed = gzip_of(bytes, 2 * n + 1);
    assert_answer(post(*state, "/", "Content-Encoding: gzip\r\n", packed.ptr, packed.len), " 413 ",
                  "<413 ");
    buf_done(&packed);
    free(bytes);
}

static void a_chunked_body_over_the_bound_is_answered_after_it_was_read(void **state)
{
    struct fixture *f = *state;
    int fd = dial(f);
    say_text(
        fd,
        "POST /c HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n");
    char *chunk = malloc(65536 + 9);
    memcpy(chunk, "10000\r\n", 7);
    memset(chunk + 7, 'x', 65536);
    memcpy(chunk + 7 + 65536, "\r\n", 2);
    for (int i = 0; i < 48; i++)
        assert_true(say(fd, chunk, 65536 + 9));
    say_text(fd, "0\r\n\r\n");
    assert_answer(hear(fd, NULL), " 413 ", "<413 ");
    free(chunk);
    close(fd);
    assert_int_equal(f->calls, 0);
}

static void a_client_that_asks_before_it_sends_too_much_is_told_at_once(void **state)
{
    const char *head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\nExpect: "
                       "100-continue\r\n\r\n";
    assert_answer(exchange(*state, head, "", 0), " 413 ", "<413 ");
}

static void bodies_beyond_the_shared_budget_are_refused_until_there_is_room(void **state)
{
    struct fixture *f = *state;
    assert_true(budget_take(&f->budget, 3 << 20));
    assert_answer(post(f, "/", "", "abc", 3), " 503 ", "Retry-After: 7");
    budget_give(&f->budget, 3 << 20);
    assert_answer(post(f, "/", "", "abc", 3), "200 OK", "3 abc");
}

static const char kept_alive[] = "GET /x HTTP/1.1\r\nHost: x\r\n\r\n";

static void threads_have_equal_parts_of_the_connections(void **state)
{
    enum { THREADS = 3, EACH = 4 };
    struct fixture *f = *state;
    int fds[THREADS * EACH];
    for (int i = 0; i < THREADS * EACH; i++)
        fds[i] = dial(f);
    for (int i = 0; i < THREADS * EACH; i++) {
        say_text(fds[i], kept_alive);
        assert_answer(hear(fds[i], "GET /x"), "200 OK", "GET /x");
    }
    for (int i = 0; i < THREADS * EACH; i++)
        close(fds[i]);
    assert_int_equal(f->n_threads, THREADS);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(f->n_of[i], EACH);
}

static void connections_beyond_the_limit_wait_until_one_ends(void **state)
{
    struct fixture *f = *state;
    int first = dial(f), second = dial(f), third;
    say_text(first, kept_alive);
    assert_answer(hear(first, "GET /x"), "200 OK", "GET /x");
    say_text(second, kept_alive);
    assert_answer(hear(second, "GET /x"), "200 OK", "GET /x");
    third = dial(f); /* into the kernel's queue */
    say_text(third, kept_alive);
    struct pollfd answer = {.fd = third, .events = POLLIN};
    assert_int_equal(poll(&answer, 1, 100), 0);
    struct http_server_stats stats;
    http_server_stats(f->server, &stats);
    assert_int_equal(stats.connections_now, 2);
    assert_int_equal(stats.connections_full, 1);
    close(first);
    assert_answer(hear(third, "GET /x"), "200 OK", "GET /x");
    close(second);
    close(third);
}

static bool take(void *arg, int fd)
{
    return http_server_take(arg, fd);
}

/* The other side of a port is HTTP/2's: who speaks HTTP/1.1 to it is handed over. */
static void connections_that_were_accepted_elsewhere_are_served_up_to_the_limit(void **state)
{
    struct fixture *f = *state;
    struct grpc_server *front;
    struct error_detail detail;
    const struct grpc_server_options options = {
        .address = "127.0.0.1", .other = take, .other_arg = f->server};
    assert_int_equal(http_server_port(f->server), 0);
    assert_int_equal(grpc_server_new(&options, &front, &detail), 0);
    f->port = grpc_server_port(front);
    assert_answer(post(f, "/echo", "", "hello", 5), "200 OK", "5 hello");
    /* Two fit; the third waits until one of them leaves. */
    int first = dial(f), second = dial(f);
    say_text(first, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n");
    say_text(second, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n");
    char byte;
    assert_int_equal(recv(first, &byte, 1, 0), 1);
    assert_int_equal(recv(second, &byte, 1, 0), 1);
    int third = dial(f);
    say_text(third, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n");
    struct http_server_stats stats = {0};
    for (int i = 0; i < 1000 && !stats.connections_full; i++) {
        http_server_stats(f->server, &stats);
        usleep(10000);
    }
    assert_true(stats.connections_full > 0);
    assert_int_equal(recv(third, &byte, 1, MSG_DONTWAIT), -1);
    close(first);
    assert_int_equal(recv(third, &byte, 1, 0), 1);
    /* One that comes while the server stops is closed. */
    http_server_stop(f->server, 1000);
    int late = dial(f);
    say_text(late, "GET /echo HTTP/1.1\r\n");
    assert_true(recv(late, &byte, 1, 0) <= 0);
    close(second);
    close(third);
    close(late);
    grpc_server_free(front);
}

static void garbage_is_answered_or_closed_and_the_next_request_works(void **state)
{
    static const char *const garbage[] = {
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1x\r\n\r\nab",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nab",
        "\r\n\r\n\r\n\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc",
    };
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof garbage / sizeof *garbage; i++) {
        int fd = dial(f);
        say_text(fd, garbage[i]);
        shutdown(fd, SHUT_WR);
        free(hear(fd, NULL));
        close(fd);
        assert_answer(post(f, "/good", "", "", 0), "200 OK", "POST /good");
    }
}

static void more_parameters_than_a_connection_has_memory_for_leave_nothing_behind(void **state)
{
    struct fixture *f = *state;
    struct buf head = BUF_INIT;
    buf_cstr(&head, "GET /query?q=1");
    for (int i = 0; i < 3000; i++)
        buf_cstr(&head, "&t=1");
    buf_cstr(&head, " HTTP/1.1\r\nHost: x\r\n\r\n");
    buf_byte(&head, '\0');
    int fd = dial(f);
    say_text(fd, head.ptr);
    free(hear(fd, NULL));
    close(fd);
    buf_done(&head);
    assert_answer(post(f, "/good", "", "", 0), "200 OK", "POST /good");
    /* A request that is thought to be under way would be waited for. */
    uint64_t from_ns = clock_monotonic_ns();
    http_server_stop(f->server, 30 * 1000);
    assert_true(clock_monotonic_ns() - from_ns < 20 * NS_PER_S);
}

static void query_parameters_are_decoded_and_repeat(void **state)
{
    const char *head = "GET /query?q=a%2Bb+c%zz&tag=1&t%61g=x+y%26&tag HTTP/1.1\r\nHost: x\r\n"
                       "Connection: close\r\n\r\n";
    assert_answer(exchange(*state, head, "", 0), "200 OK", "a+b+c%zz|a+b c%zz|1|x y&||not there");
}

static void a_large_answer_is_compressed_for_those_who_take_it(void **state)
{
    char *plain = post(*state, "/big", "", "", 0);
    assert_has(plain, "Content-Length: 200000");
    free(plain);
    char *refused = post(*state, "/big", "Accept-Encoding: gzip;q=0.00\r\n", "", 0);
    assert_has(refused, "Content-Length: 200000");
    free(refused);
    char *packed = post(*state, "/big", "Accept-Encoding: br, gzip;q=0.5\r\n", "", 0);
    assert_has(packed, "Content-Encoding: gzip");
    assert_null(strstr(packed, "Content-Length: 200000"));
    free(packed);
}

static void clients_that_do_not_read_hold_no_more_than_the_bound(void **state)
{
    struct fixture *f = *state;
    int deaf = dial(f);
    say_text(deaf, "GET /huge HTTP/1.1\r\nHost: x\r\n\r\n");
    struct pollfd answer = {.fd = deaf, .events = POLLIN};
    assert_int_equal(poll(&answer, 1, PATIENCE_MS), 1);
    char *refused = post(f, "/huge", "", "", 0);
    assert_has(refused, "HTTP/1.1 503");
    assert_has(refused, "<503 too many answers wait to be read");
    assert_answer(refused, "HTTP/1.1 503", "Retry-After: 1\r\n");
    assert_answer(post(f, "/x", "", "", 0), "200 OK", "POST /x"); /* small ones pass */
    struct http_server_stats stats;
    http_server_stats(f->server, &stats);
    assert_int_equal(stats.refused_busy, 1);
    close(deaf);
    char *served;
    int tries = 0;
    while (!strstr(served = post(f, "/huge", "", "", 0), "HTTP/1.1 200") && tries++ < 1000) {
        free(served);
        usleep(10000);
    }
    assert_answer(served, "HTTP/1.1 200", "0123456789");
}

static void a_stream_carries_what_is_written_and_ends_when_closed(void **state)
{
    struct fixture *f = *state;
    int fd = dial(f);
    say_text(fd, "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
    wait_until(&f->have_stream);
    for (int i = 0; i < 100; i++)
        assert_true(http_stream_write(f->stream, STR("data: tick\n\n")));
    free(hear(fd, "data: tick"));
    assert_true(http_stream_write(f->stream, STR("data: last\n\n")));
    free(hear(fd, "data: last"));
    http_stream_close(f->stream);
    char *end = hear(fd, "0\r\n\r\n");
    assert_has(end, "0\r\n\r\n");
    free(end);
    close(fd);
}

static void a_stream_to_a_slow_client_takes_no_more_than_its_bound(void **state)
{
    struct fixture *f = *state;
    int fd = dial(f);
    say_text(fd, "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
    wait_until(&f->have_stream);
    char *block = malloc(16 << 10);
    memset(block, 'x', 16 << 10);
    size_t taken = 0;
    while (taken < (size_t)64 << 20 && http_stream_write(f->stream, (struct str){block, 16 << 10}))
        taken += 16 << 10;
    assert_true(taken >= 64 << 10);
    assert_true(taken < (size_t)64 << 20); /* kernel buffers and the bound, not everything */
    free(block);
    http_stream_close(f->stream);
    close(fd);
}

/* The server's end of a connection of this process. */
static int other_end(int fd)
{
    struct sockaddr_in here, peer;
    socklen_t n = sizeof here;
    assert_int_equal(getsockname(fd, (struct sockaddr *)&here, &n), 0);
    for (int other = 3; other < 1024; other++) {
        n = sizeof peer;
        if (!getpeername(other, (struct sockaddr *)&peer, &n) && peer.sin_family == AF_INET &&
            peer.sin_port == here.sin_port)
            return other;
    }
    return -1;
}

static void a_streams_peer_may_be_silent_for_seconds_only(void **state)
{
    struct fixture *f = *state;
    int fd = dial(f);
    say_text(fd, "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
    wait_until(&f->have_stream);
    assert_true(http_stream_write(f->stream, STR("data: 1\n\n")));
    free(hear(fd, "data: 1"));
    unsigned timeout_ms = 0;
    socklen_t n = sizeof timeout_ms;
    assert_int_equal(getsockopt(other_end(fd), IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, &n), 0);
    assert_int_equal(timeout_ms, 20000);
    http_stream_close(f->stream);
    close(fd);
}

static void a_stream_whose_client_left_says_so(void **state)
{
    struct fixture *f = *state;
    int fd = dial(f);
    say_text(fd, "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
    wait_until(&f->have_stream);
    assert_true(http_stream_write(f->stream, STR("data: 1\n\n")));
    free(hear(fd, "data: 1"));
    close(fd);
    uint64_t until = clock_monotonic_ns() + PATIENCE_MS * NS_PER_MS;
    while (!http_stream_is_gone(f->stream) && clock_monotonic_ns() < until) {
        http_stream_write(f->stream, STR(":\n\n"));
        poll(NULL, 0, 1);
    }
    assert_true(http_stream_is_gone(f->stream));
    http_stream_close(f->stream);
}

static void stopping_ends_streams_and_waits_for_answers_under_way(void **state)
{
    struct fixture *f = *state;
    int stream = dial(f), held = dial(f);
    say_text(stream, "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
    say_text(held, "POST /hold HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    wait_until(&f->have_stream);
    wait_until(&f->held);
    pthread_t answering;
    pthread_create(&answering, NULL, echo_later, f->held_request);
    http_server_stop(f->server, PATIENCE_MS);
    char *answer = hear(held, NULL);
    assert_has(answer, "200 OK");
    assert_has(answer, "POST /hold");
    free(answer);
    free(hear(stream, NULL));
    assert_true(http_stream_is_gone(f->stream));
    http_stream_close(f->stream);
    pthread_join(answering, NULL);
    close(stream);
    close(held);
}

static void an_answer_after_the_server_has_stopped_goes_nowhere(void **state)
{
    struct fixture *f = *state;
    int fd = dial(f);
    say_text(fd, "POST /hold HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc");
    wait_until(&f->held);
    http_server_stop(f->server, 20);
    free(hear(fd, NULL));
    close(fd);
    assert_str_eq(http_path(f->held_request), STR("/hold"));
    assert_str_eq(http_body(f->held_request), STR("abc"));
    echo(f->held_request);
}

static void an_address_in_use_is_named(void **state)
{
    struct fixture *f = *state;
    struct http_server_options options = {
        .address = "127.0.0.1", .port = http_server_port(f->server), .handler = handle};
    struct http_server *other = NULL;
    struct error_detail detail;
    assert_int_equal(http_server_new(&options, &other, &detail), ERR_BUSY);
    assert_non_null(strstr(detail.message, "in use"));
    options.address = "localhost";
    assert_int_equal(http_server_new(&options, &other, &detail), ERR_INVALID);
    assert_null(other);
}

static char *ask_with_parameters(struct fixture *f, unsigned n)
{
    struct buf head = BUF_INIT;
    buf_cstr(&head, "GET /echo?a0=0");
    for (unsigned i = 1; i < n; i++)
        buf_printf(&head, "&%x", i % 16);
    buf_cstr(&head, " HTTP/1.1\r\nHost: x\r\n\r\n"); /* the server closes, or keeps it */
    buf_byte(&head, 0);
    int fd = dial(f);
    say_text(fd, head.ptr);
    if (n <= 1000)
        say_text(fd, "GET /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    char *answer = hear(fd, NULL);
    close(fd);
    buf_done(&head);
    return answer;
}

static void a_query_of_too_many_parameters_is_refused_in_words(void **state)
{
    assert_answer(ask_with_parameters(*state, 1000), " 200 ", " 200 ");
    static const unsigned many[] = {1001, 2500, 10000};
    for (size_t i = 0; i < sizeof many / sizeof *many; i++)
        assert_answer(ask_with_parameters(*state, many[i]), " 414 ", "more than 1000 parameters");
    struct http_server_stats stats;
    http_server_stats(((struct fixture *)*state)->server, &stats);
    assert_int_equal(stats.refused_bad, 3);
    assert_answer(ask_with_parameters(*state, 3), " 200 ", " 200 ");
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
#define POOL(test) cmocka_unit_test_setup_teardown(test, setup_pool, teardown)
    const struct CMUnitTest tests[] = {
        T(a_request_is_answered_by_its_handler),
        T(an_answer_may_come_later_from_another_thread),
        POOL(an_answer_may_come_later_from_another_thread),
        T(requests_on_one_connection_are_answered_in_order),
        T(a_chunked_body_is_put_together),
        T(compressed_bodies_are_inflated),
        T(a_truncated_or_wrong_compressed_body_is_refused),
        T(an_unknown_coding_is_refused_with_those_that_are_known),
        T(a_decompression_bomb_costs_no_more_than_the_bound),
        T(a_body_of_exactly_the_bound_passes_and_one_byte_more_does_not),
        T(a_chunked_body_over_the_bound_is_answered_after_it_was_read),
        T(a_client_that_asks_before_it_sends_too_much_is_told_at_once),
        T(bodies_beyond_the_shared_budget_are_refused_until_there_is_room),
        T(a_query_of_too_many_parameters_is_refused_in_words),
        cmocka_unit_test_setup_teardown(garbage_is_answered_or_closed_and_the_next_request_works,
                                        setup_impatient, teardown),
        POOL(threads_have_equal_parts_of_the_connections),
        cmocka_unit_test_setup_teardown(connections_beyond_the_limit_wait_until_one_ends,
                                        setup_narrow, teardown),
        cmocka_unit_test_setup_teardown(
            connections_that_were_accepted_elsewhere_are_served_up_to_the_limit, setup_given,
            teardown),
        T(more_parameters_than_a_connection_has_memory_for_leave_nothing_behind),
        T(query_parameters_are_decoded_and_repeat),
        T(a_large_answer_is_compressed_for_those_who_take_it),
        T(clients_that_do_not_read_hold_no_more_than_the_bound),
        T(a_stream_carries_what_is_written_and_ends_when_closed),
        POOL(a_stream_carries_what_is_written_and_ends_when_closed),
        T(a_stream_to_a_slow_client_takes_no_more_than_its_bound),
        T(a_streams_peer_may_be_silent_for_seconds_only),
        T(a_stream_whose_client_left_says_so),
        POOL(stopping_ends_streams_and_waits_for_answers_under_way),
        T(stopping_ends_streams_and_waits_for_answers_under_way),
        T(an_answer_after_the_server_has_stopped_goes_nowhere),
        POOL(an_answer_after_the_server_has_stopped_goes_nowhere),
        T(an_address_in_use_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
