#include "sender.h"

#include "base/buf.h"
#include "base/clock.h"
#include "wire/otlp.h"

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
    BUSY_MS_MAX = 20000 /* of one body, until the server is given up */
};

struct sender {
    const struct sender_options *options;
    _Atomic size_t next;
    _Atomic bool failed;
    _Atomic uint64_t spans_acked, spans_rejected, spans_refused, busy_answers;
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

static int dial(uint16_t port)
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

static void count(struct sender *s, const struct body *body, const struct answer *answer)
{
    uint64_t rejected = 0;
    struct str message;
    if (answer->status != 200) {
        atomic_fetch_add(&s->spans_refused, body->spans);
        return;
    }
    if (otlp_decode_response(answer->body, &rejected, &message) || rejected > body->spans)
        rejected = body->spans;
    atomic_fetch_add(&s->spans_rejected, rejected);
    atomic_fetch_add(&s->spans_acked, body->spans - rejected);
}

/* Until it is taken or refused for good; false when the connection broke. */
static bool body_send(struct sender *s, int *fd, const struct body *body, struct buf *in)
{
    char head[256];
    int n = snprintf(head, sizeof head,
                     "POST /v1/traces HTTP/1.1\r\nHost: 127.0.0.1:%u\r\n"
                     "Content-Type: application/x-protobuf\r\nContent-Length: %zu\r\n\r\n",
                     s->options->port, body->len);
    uint64_t until = clock_monotonic_ns() + BUSY_MS_MAX * NS_PER_MS;
    for (;;) {
        struct answer answer;
        buf_clear(in);
        if (!write_two(*fd, (struct str){head, (size_t)n}, (struct str){body->bytes, body->len}) ||
            !answer_read(*fd, in, &answer))
            return false;
        if (answer.closes) {
            close(*fd);
            *fd = dial(s->options->port);
            if (*fd < 0)
                return false;
        }
        if (answer.status != 429 && answer.status != 503) {
            count(s, body, &answer);
            return true;
        }
        atomic_fetch_add(&s->busy_answers, 1);
        if (clock_monotonic_ns() > until) {
            errno = EBUSY;
            return false;
        }
        uint64_t ms = answer.retry_after_ms;
        if (ms > BUSY_WAIT_MS_MAX)
            ms = BUSY_WAIT_MS_MAX;
        struct timespec wait = {(time_t)(ms / 1000), (long)(ms % 1000) * 1000000};
        nanosleep(&wait, NULL);
    }
}

static void *connection_main(void *arg)
{
    struct sender *s = arg;
    struct buf in = BUF_INIT;
    int fd = dial(s->options->port);
    if (fd < 0)
        fail(s, "cannot connect");
    while (fd >= 0 && !atomic_load(&s->failed)) {
        size_t i = atomic_fetch_add(&s->next, 1);
        if (i >= s->options->n_bodies)
            break;
        uint64_t before = clock_monotonic_ns();
        if (!body_send(s, &fd, &s->options->bodies[i], &in)) {
            fail(s, "a request got no good answer");
            break;
        }
        s->latencies_ns[i] = clock_monotonic_ns() - before;
    }
    if (fd >= 0)
        close(fd);
    buf_done(&in);
    return NULL;
}

static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

int sender_run(const struct sender_options *options, struct sender_result *ret)
{
    struct sender s = {.options = options, .lock = PTHREAD_MUTEX_INITIALIZER};
    pthread_t threads[CONNECTIONS_MAX];
    unsigned n = 0;
    s.latencies_ns = calloc(options->n_bodies + 1, sizeof *s.latencies_ns);
    if (!s.latencies_ns)
        return ERR_NOMEM;
    cpu_set_t before, wanted;
    bool pinned = options->cpu >= 0 && sched_getaffinity(0, sizeof before, &before) == 0;
    if (pinned) { /* threads inherit it */
        CPU_ZERO(&wanted);
        CPU_SET(options->cpu, &wanted);
        pinned = sched_setaffinity(0, sizeof wanted, &wanted) == 0;
    }
    *ret = (struct sender_result){.started_ns = clock_monotonic_ns()};
    for (; n < options->connections && n < CONNECTIONS_MAX; n++)
        if (pthread_create(&threads[n], NULL, connection_main, &s))
            break;
    for (unsigned i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    ret->ended_ns = clock_monotonic_ns();
    if (pinned)
        sched_setaffinity(0, sizeof before, &before);
    ret->spans_acked = s.spans_acked;
    ret->spans_rejected = s.spans_rejected;
    ret->spans_refused = s.spans_refused;
    ret->busy_answers = s.busy_answers;
    ret->requests = options->n_bodies;
    ret->latencies_ns = s.latencies_ns;
    qsort(ret->latencies_ns, options->n_bodies, sizeof *ret->latencies_ns, by_size);
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
    int fd = dial(port);
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
