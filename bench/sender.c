#include "sender.h"

#include "base/buf.h"
#include "base/clock.h"
#include "grpc_client.h"
#include "wire/otlp.h"
#include "wire/otlp_json.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
    CONNECTIONS_MAX = 64,
    ANSWER_BYTES_MAX = 1 << 20,
    BUSY_WAIT_MS_MAX = 1000,
    BUSY_MS_MAX = 20000, /* of one body, until the server is given up */
    LATENCIES_MAX = 1 << 20,
};

struct sender {
    const struct sender_options *options;
    uint64_t until_ns; /* 0: one round */
    _Atomic size_t next;
    _Atomic bool failed;
    _Atomic uint64_t requests, spans_acked, spans_rejected, spans_refused, busy_answers;
    _Atomic size_t n_latencies;
    uint64_t *latencies_ns;
    pthread_mutex_t lock; /* of problem */
    char problem[160];
};

struct answer {
    int status;
    bool closes;
    uint64_t retry_after_ms;
    struct str body;
};

int sender_dial(uint16_t port)
{
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    struct timeval patience = {.tv_sec = 60};
    if (fd < 0)
        return -1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) == 0)
        return fd;
    close(fd);
    return -1;
}

static bool write_two(int fd, struct str head, struct str body)
{
    struct iovec parts[2] = {{(void *)(uintptr_t)head.ptr, head.len},
                             {(void *)(uintptr_t)body.ptr, body.len}};
    unsigned at = 0;
    while (at < 2) {
        struct msghdr message = {.msg_iov = parts + at, .msg_iovlen = 2 - at};
        ssize_t n = sendmsg(fd, &message, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        size_t left = (size_t)n;
        while (at < 2 && left >= parts[at].iov_len)
            left -= parts[at++].iov_len;
        if (at < 2) {
            parts[at].iov_base = (char *)parts[at].iov_base + left;
            parts[at].iov_len -= left;
        }
    }
    return true;
}

static bool read_more(int fd, struct buf *in)
{
    if (in->len > ANSWER_BYTES_MAX || !buf_reserve(in, 16 << 10))
        return false;
    ssize_t n;
    do
        n = recv(fd, in->ptr + in->len, in->cap - in->len, 0);
    while (n < 0 && errno == EINTR);
    if (n <= 0)
        return false;
    in->len += (size_t)n;
    return true;
}

/* One answer with a Content-Length; `in` is used up by it and must be clean before. */
static bool answer_read(int fd, struct buf *in, struct answer *ret)
{
    const char *end = NULL;
    while (!end) {
        if (!read_more(fd, in))
            return false;
        end = memmem(in->ptr, in->len, "\r\n\r\n", 4);
    }
    size_t head = (size_t)(end - in->ptr) + 4;
    uint64_t length = 0;
    struct str rest = {in->ptr, head - 4};
    *ret = (struct answer){.retry_after_ms = 100};
    for (bool first = true; rest.ptr; first = false) {
        struct str value, line = str_trim(str_split(rest, '\n', &rest));
        if (first) {
            uint64_t status = 0;
            if (line.len < 12 || !str_to_u64((struct str){line.ptr + 9, 3}, &status))
                return false;
            ret->status = (int)status;
            continue;
        }
        struct str name = str_split(line, ':', &value);
        value = str_trim(value);
        uint64_t seconds;
        if (str_eq_nocase(name, STR("content-length")) && !str_to_u64(value, &length))
            return false;
        if (str_eq_nocase(name, STR("retry-after")) && str_to_u64(value, &seconds))
            ret->retry_after_ms = seconds * 1000;
        if (str_eq_nocase(name, STR("connection")) && str_eq_nocase(value, STR("close")))
            ret->closes = true;
    }
    if (length > ANSWER_BYTES_MAX)
        return false;
    while (in->len < head + length)
        if (!read_more(fd, in))
            return false;
    ret->body = (struct str){in->ptr + head, length};
    return true;
}

static void fail(struct sender *s, const char *what)
{
    int errno_before = errno;
    pthread_mutex_lock(&s->lock);
    if (!s->problem[0])
        snprintf(s->problem, sizeof s->problem, "%s: %s", what, strerror(errno_before));
    pthread_mutex_unlock(&s->lock);
    atomic_store(&s->failed, true);
}

/* What an answer that is none of "later" says of the spans. */
static void count(struct sender *s, const struct body *body, bool taken, struct str answer)
{
    enum body_form form = s->options->set->form;
    struct arena arena = ARENA_INIT;
    uint64_t rejected = 0;
    struct str message;
    int err = 0;
    atomic_fetch_add(&s->requests, 1);
    if (!taken) {
        atomic_fetch_add(&s->spans_refused, body->spans);
        return;
    }
    if (form == BODY_OTLP_AS_JSON && answer.len)
        err = otlp_json_decode_response(answer, &arena, &rejected, &message);
    else if (form == BODY_OTLP_HTTP || form == BODY_OTLP_GRPC)
        err = otlp_decode_response(answer, &rejected, &message);
    arena_done(&arena);
    if (err || rejected > body->spans)
        rejected = body->spans;
    atomic_fetch_add(&s->spans_rejected, rejected);
    atomic_fetch_add(&s->spans_acked, body->spans - rejected);
}

/* Whether the server may be asked once more. */
static bool busy(struct sender *s, uint64_t until_ns, uint64_t ms)
{
    atomic_fetch_add(&s->busy_answers, 1);
    if (clock_monotonic_ns() > until_ns) {
        errno = EBUSY;
        return false;
    }
    ms = ms < BUSY_WAIT_MS_MAX ? ms : BUSY_WAIT_MS_MAX;
    nanosleep(&(struct timespec){(time_t)(ms / 1000), (long)(ms % 1000) * 1000000}, NULL);
    return true;
}

struct connection {
    int fd; /* HTTP/1.1 */
    struct grpc_client *grpc;
    struct buf in;
};

/* Until it is taken or refused for good; false when the connection broke. */
static bool body_post(struct sender *s, struct connection *conn, const struct body *body)
{
    enum body_form form = s->options->set->form;
    char head[256];
    int n = snprintf(head, sizeof head,
                     "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%u\r\n"
                     "Content-Type: %s\r\nContent-Length: %zu\r\n\r\n",
                     form == BODY_ZIPKIN_AS_JSON ? "/api/v2/spans" : "/v1/traces", s->options->port,
                     form == BODY_OTLP_HTTP ? "application/x-protobuf" : "application/json",
                     body->len);
    uint64_t until = clock_monotonic_ns() + BUSY_MS_MAX * NS_PER_MS;
    struct answer answer;
    do {
        buf_clear(&conn->in);
        if (!write_two(conn->fd, (struct str){head, (size_t)n},
                       (struct str){body->bytes, body->len}) ||
            !answer_read(conn->fd, &conn->in, &answer))
            return false;
        if (answer.closes) {
            close(conn->fd);
            conn->fd = sender_dial(s->options->port);
            if (conn->fd < 0)
                return false;
        }
        if (answer.status != 429 && answer.status != 503) {
            count(s, body, answer.status == 200 || answer.status == 202, answer.body);
            return true;
        }
    } while (busy(s, until, answer.retry_after_ms));
    return false;
}

static bool body_call(struct sender *s, struct connection *conn, const struct body *body)
{
    enum { OK = 0, RESOURCE_EXHAUSTED = 8, UNAVAILABLE = 14, LATER_MS = 100 };
    uint64_t until = clock_monotonic_ns() + BUSY_MS_MAX * NS_PER_MS;
    struct grpc_answer answer;
    do {
        if (grpc_client_call(conn->grpc, body->bytes, body->len, &answer))
            return false;
        if (answer.status != RESOURCE_EXHAUSTED && answer.status != UNAVAILABLE) {
            count(s, body, answer.status == OK, (struct str){answer.message, answer.n});
            return true;
        }
    } while (busy(s, until, LATER_MS));
    return false;
}

/* The next body, turned to its round; NULL at the end. */
static struct body *body_take(struct sender *s)
{
    const struct body_set *set = s->options->set;
    size_t nth = atomic_fetch_add(&s->next, 1);
    if (s->until_ns ? clock_monotonic_ns() >= s->until_ns : nth >= set->n)
        return NULL;
    struct body *body = &set->bodies[nth % set->n];
    while (atomic_flag_test_and_set_explicit(&body->taken, memory_order_acquire)) {
        if (atomic_load(&s->failed))
            return NULL; /* another connection has it, from the round before */
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    }
    if (s->until_ns)
        body_turn(set, body, nth / set->n);
    return body;
}

static void *connection_main(void *arg)
{
    struct sender *s = arg;
    bool is_grpc = s->options->set->form == BODY_OTLP_GRPC;
    struct connection conn = {.fd = -1};
    if (is_grpc)
        conn.grpc = grpc_client_new(sender_dial(s->options->port));
    else
        conn.fd = sender_dial(s->options->port);
    if (conn.fd < 0 && !conn.grpc)
        fail(s, "cannot connect");
    while (!atomic_load(&s->failed)) {
        struct body *body = body_take(s);
        if (!body)
            break;
        uint64_t before = clock_monotonic_ns();
        size_t at = LATENCIES_MAX;
        if ((is_grpc ? body_call : body_post)(s, &conn, body))
            at = atomic_fetch_add(&s->n_latencies, 1);
        else
            fail(s, "a request got no good answer");
        if (at < LATENCIES_MAX)
            s->latencies_ns[at] = clock_monotonic_ns() - before;
        atomic_flag_clear_explicit(&body->taken, memory_order_release);
    }
    grpc_client_free(conn.grpc);
    if (conn.fd >= 0)
        close(conn.fd);
    buf_done(&conn.in);
    return NULL;
}

static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static uint64_t cpu_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

int sender_run(const struct sender_options *options, struct sender_result *ret)
{
    struct sender s = {.options = options, .lock = PTHREAD_MUTEX_INITIALIZER};
    pthread_t threads[CONNECTIONS_MAX];
    unsigned n = 0;
    s.latencies_ns = calloc(LATENCIES_MAX, sizeof *s.latencies_ns);
    if (!s.latencies_ns)
        return ERR_NOMEM;
    cpu_set_t before, wanted;
    bool pinned = options->cpu >= 0 && sched_getaffinity(0, sizeof before, &before) == 0;
    if (pinned) { /* threads inherit it */
        CPU_ZERO(&wanted);
        CPU_SET(options->cpu, &wanted);
        pinned = sched_setaffinity(0, sizeof wanted, &wanted) == 0;
    }
    uint64_t cpu_before = cpu_ns();
    *ret = (struct sender_result){.started_ns = clock_monotonic_ns()};
    if (options->seconds > 0)
        s.until_ns = ret->started_ns + (uint64_t)(options->seconds * 1e9);
    for (; n < options->connections && n < CONNECTIONS_MAX; n++)
        if (pthread_create(&threads[n], NULL, connection_main, &s))
            break;
    for (unsigned i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    ret->ended_ns = clock_monotonic_ns();
    ret->cpu_s = (double)(cpu_ns() - cpu_before) / 1e9;
    if (pinned)
        sched_setaffinity(0, sizeof before, &before);
    ret->spans_acked = s.spans_acked;
    ret->spans_rejected = s.spans_rejected;
    ret->spans_refused = s.spans_refused;
    ret->busy_answers = s.busy_answers;
    ret->requests = s.requests;
    ret->latencies_ns = s.latencies_ns;
    ret->n_latencies = s.n_latencies < LATENCIES_MAX ? s.n_latencies : LATENCIES_MAX;
    qsort(ret->latencies_ns, ret->n_latencies, sizeof *ret->latencies_ns, by_size);
    snprintf(ret->problem, sizeof ret->problem, "%s", s.problem);
    return n == 0 || s.failed ? ERR_IO : 0;
}

int sender_port(const char *url, size_t url_len, uint16_t *ret_port)
{
    const struct str prefix = STR("http://127.0.0.1:");
    struct str s = {url, url_len};
    uint64_t port;
    if (!str_starts(s, prefix) || !str_to_u64(str_skip(s, prefix.len), &port) || port > UINT16_MAX)
        return ERR_INVALID;
    *ret_port = (uint16_t)port;
    return 0;
}

int sender_get(uint16_t port, const char *path, char **ret_body, size_t *ret_len)
{
    char head[512];
    struct buf in = BUF_INIT;
    struct answer answer;
    int fd = sender_dial(port);
    if (fd < 0)
        return ERR_IO;
    int n = snprintf(head, sizeof head, "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%u\r\n\r\n", path,
                     port);
    bool ok = write_two(fd, (struct str){head, (size_t)n}, STR("")) &&
              answer_read(fd, &in, &answer) && answer.status == 200;
    char *body = ok ? strndup(answer.body.ptr, answer.body.len) : NULL;
    close(fd);
    if (body) {
        *ret_body = body;
        *ret_len = answer.body.len;
    }
    buf_done(&in);
    return body ? 0 : ERR_IO;
}
