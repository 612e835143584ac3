/* Ingest: from the first byte of an HTTP body to the answer that says it is durable.
 *
 *   bodies   the data set of `pugmark load` (10 services, traces of 10 spans, 11 attributes a span
 *            out of 97 keys and 1000 values), encoded before anything is measured
 *   sender   this process, on the last core: HTTP/1.1 keep-alive, 8 requests under way
 *   server   `pugmark serve` as a user starts it, on the first core
 *   floor    on the first core as well: a loop that receives the same requests, checksums, writes
 *            and fdatasyncs them in groups, and answers. What no server that keeps this promise can
 *            do without.
 *
 * Two figures of speed: by the wall, while spans come, and by the server's processor time for
 * everything up to its clean end, so also the sealing of what came last. After that the bytes on
 * disk are counted. Refusals and rejections are printed; a span that was acknowledged and is not in
 * the server's own count fails the run. */
#include "report.h"
#include "sender.h"

#include "base/arena.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/json.h"
#include "cli/load_gen.h"
#include "wire/otlp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <getopt.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    FLOOR_CONNECTIONS_MAX = 64,
    FLOOR_REQUEST_BYTES_MAX = 64 << 20,
    START_MS_MAX = 10000,
    END_MS_MAX = 120000,
    DATA_START_S = 1700000000,
};

struct options {
    const char *server, *dir;
    uint64_t traces, seed;
    unsigned batch, connections;
    bool keep;
};

struct data_set {
    struct body *bodies;
    size_t n;
    uint64_t spans, bytes;
    double entropy_bytes;
};

static void die(const char *what)
{
    fprintf(stderr, "bench ingest: %s%s%s\n", what, errno ? ": " : "",
            errno ? strerror(errno) : "");
    exit(1);
}

/* ---- bodies ---- */

static void data_set_make(const struct options *o, struct data_set *ret)
{
    struct load_gen *gen = load_gen_new(o->seed, 10, DATA_START_S * NS_PER_S);
    struct arena arena = ARENA_INIT;
    errno = 0;
    *ret = (struct data_set){.n = (size_t)((o->traces + o->batch - 1) / o->batch)};
    ret->bodies = calloc(ret->n, sizeof *ret->bodies);
    if (!gen || !ret->bodies)
        die("out of memory");
    for (size_t i = 0; i < ret->n; i++) {
        uint64_t left = o->traces - i * o->batch;
        struct span_batch batch;
        struct buf out = BUF_INIT;
        arena_reset(&arena);
        if (load_gen_batch(gen, left < o->batch ? (unsigned)left : o->batch, &arena, &batch))
            die("out of memory");
        otlp_encode(&batch, &out);
        if (!buf_ok(&out))
            die("out of memory: take fewer traces");
        ret->bodies[i].bytes = buf_detach(&out, &ret->bodies[i].len);
        ret->bodies[i].spans = (uint32_t)batch.n;
        ret->spans += batch.n;
        ret->bytes += ret->bodies[i].len;
    }
    ret->entropy_bytes = load_gen_bits(gen) / 8 / (double)ret->spans;
    arena_done(&arena);
    load_gen_free(gen);
}

static void data_set_done(struct data_set *set)
{
    for (size_t i = 0; i < set->n; i++)
        free(set->bodies[i].bytes);
    free(set->bodies);
}

/* ---- a process on a core of its own ---- */

static void stay_on(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    sched_setaffinity(0, sizeof set, &set);
}

static double cpu_seconds_now(pid_t pid)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *in = fopen(path, "r");
    size_t n = in ? fread(text, 1, sizeof text - 1, in) : 0;
    if (in)
        fclose(in);
    text[n] = '\0';
    /* Fields 14 and 15; the name, field 2, may hold anything but ends at the last ')'. */
    const char *at = strrchr(text, ')');
    unsigned long user = 0, system = 0;
    if (!at ||
        sscanf(at + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) != 2)
        return 0;
    return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

static double cpu_seconds(const struct rusage *usage)
{
    return (double)(usage->ru_utime.tv_sec + usage->ru_stime.tv_sec) +
           (double)(usage->ru_utime.tv_usec + usage->ru_stime.tv_usec) / 1e6;
}

/* Waits for the end, which must be a clean one; kills what does not end. */
static void process_end(pid_t pid, struct rusage *ret_usage)
{
    uint64_t until = clock_monotonic_ns() + END_MS_MAX * NS_PER_MS;
    int status = 0;
    for (;;) {
        pid_t got = wait4(pid, &status, WNOHANG, ret_usage);
        if (got == pid)
            break;
        if (clock_monotonic_ns() > until) {
            kill(pid, SIGKILL);
            until = UINT64_MAX;
        }
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    }
    errno = 0;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        die("the process that was measured did not end cleanly");
}

/* ---- the floor ---- */

struct floor_connection {
    int fd;
    struct buf in;
    size_t head, length; /* of the request that is read; 0: not known yet */
    bool ready;
};

/* 1 when the request is whole, 0 when more has to come, -1 when the connection ended. */
static int floor_read(struct floor_connection *c)
{
    if (!buf_reserve(&c->in, 256 << 10))
        return -1;
    ssize_t n = recv(c->fd, c->in.ptr + c->in.len, c->in.cap - c->in.len, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n <= 0)
        return -1;
    c->in.len += (size_t)n;
    if (!c->head) {
        const char *end = memmem(c->in.ptr, c->in.len, "\r\n\r\n", 4);
        const char *length =
            end ? memmem(c->in.ptr, (size_t)(end - c->in.ptr), "Content-Length: ", 16) : NULL;
        if (!length)
            return end ? -1 : 0;
        c->head = (size_t)(end - c->in.ptr) + 4;
        c->length = strtoull(length + 16, NULL, 10);
        if (c->length > FLOOR_REQUEST_BYTES_MAX || !buf_reserve(&c->in, c->length))
            return -1;
    }
    return c->in.len >= c->head + c->length;
}

/* Everything that is whole: one write, one sync, then the answers. */
static void floor_commit(int file, struct floor_connection *all, unsigned n)
{
    static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    uint64_t heads[FLOOR_CONNECTIONS_MAX][2];
    struct iovec parts[2 * FLOOR_CONNECTIONS_MAX];
    int n_parts = 0;
    ssize_t bytes = 0;
    for (unsigned i = 0; i < n; i++) {
        struct floor_connection *c = &all[i];
        if (!c->ready)
            continue;
        const char *body = c->in.ptr + c->head;
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
        struct floor_connection *c = &all[i];
        if (!c->ready)
            continue;
        buf_clear(&c->in);
        c->head = c->length = 0;
        c->ready = false;
        if (send(c->fd, answer, sizeof answer - 1, MSG_NOSIGNAL) != (ssize_t)sizeof answer - 1)
            _exit(1);
    }
}

/* Serves until all connections that ever came are gone again. */
static void floor_main(int listener, const char *path)
{
    static struct floor_connection all[FLOOR_CONNECTIONS_MAX];
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
                event = (struct epoll_event){.events = EPOLLIN, .data.u32 = n++};
                if (epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event))
                    _exit(1);
                continue;
            }
            struct floor_connection *c = &all[events[i].data.u32];
            int state = floor_read(c);
            c->ready = state > 0;
            if (state < 0) {
                close(c->fd);
                gone++;
            }
        }
        floor_commit(file, all, n);
    }
    _exit(0);
}

struct measured {
    double spans_per_s, cpu_us_per_span;
    /* of the server only */
    double sealed_spans_per_s, cpu_us_per_span_taking, disk_bytes, memory_mib, start_ms;
    uint64_t held;             /* spans by its own count; UINT64_MAX: it did not say */
    struct sender_result sent; /* its latencies are this struct's */
};

static struct measured floor_measure(const struct options *o, const struct data_set *set,
                                     const char *dir, int sender_cpu)
{
    char path[512];
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, size) || listen(listener, 64) ||
        getsockname(listener, (struct sockaddr *)&address, &size))
        die("cannot listen");
    snprintf(path, sizeof path, "%s/floor", dir);
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0)
        die("cannot fork");
    if (pid == 0) {
        stay_on(0);
        floor_main(listener, path);
    }
    close(listener);
    struct sender_result result;
    struct sender_options send = {.bodies = set->bodies,
                                  .n_bodies = set->n,
                                  .port = ntohs(address.sin_port),
                                  .connections = o->connections,
                                  .cpu = sender_cpu};
    errno = 0;
    if (sender_run(&send, &result)) {
        kill(pid, SIGKILL);
        die(result.problem[0] ? result.problem : "cannot send");
    }
    struct rusage usage;
    process_end(pid, &usage);
    unlink(path);
    double seconds = (double)(result.ended_ns - result.started_ns) / 1e9;
    free(result.latencies_ns);
    return (struct measured){.spans_per_s = (double)result.spans_acked / seconds,
                             .cpu_us_per_span = cpu_seconds(&usage) * 1e6 /
                                                (double)result.spans_acked};
}

/* ---- the server ---- */

/* The value of a key in an object at any depth, the first one found: enough for our own answers. */
static struct str json_find(struct str json, const char *key, struct arena *arena)
{
    struct json_reader r;
    json_reader_init(&r, json, arena, NULL);
    for (enum json_type type; (type = json_next(&r)) != JSON_ERROR && type != JSON_END;)
        if (type == JSON_KEY && str_eq(r.text, str_from(key))) {
            type = json_next(&r);
            if (type == JSON_STRING || type == JSON_NUMBER)
                return r.text;
        }
    return STR_NONE;
}

static struct str file_read(const char *path, struct arena *arena)
{
    char text[8192];
    FILE *in = fopen(path, "r");
    size_t n = in ? fread(text, 1, sizeof text, in) : 0;
    if (in)
        fclose(in);
    return arena_str(arena, (struct str){text, n});
}

static pid_t server_start(const struct options *o, const char *data, const char *ready)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0)
        die("cannot fork");
    if (pid == 0) {
        stay_on(0);
        execl(o->server, o->server, "serve", "--data", data, "--ports", "auto", "--ready-file",
              ready, (char *)NULL);
        die(o->server);
    }
    uint64_t until = clock_monotonic_ns() + START_MS_MAX * NS_PER_MS;
    while (access(ready, R_OK) != 0) {
        errno = 0;
        if (waitpid(pid, NULL, WNOHANG) == pid)
            die("the server ended before it was ready");
        if (clock_monotonic_ns() > until) {
            kill(pid, SIGKILL);
            die("the server was not ready in time");
        }
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    return pid;
}

/* What the server itself says it holds; UINT64_MAX when it has no such page. */
static uint64_t server_spans(uint16_t page, struct arena *arena)
{
    char *body;
    size_t n;
    uint64_t spans;
    if (!page || sender_get(page, "/api/pugmark/status", &body, &n))
        return UINT64_MAX;
    struct str value = json_find((struct str){body, n}, "spans", arena);
    bool ok = value.ptr && str_to_u64(value, &spans);
    free(body);
    return ok ? spans : UINT64_MAX;
}

static double memory_peak_mib(pid_t pid)
{
    char path[64], line[256];
    double kib = 0;
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *in = fopen(path, "r");
    while (in && fgets(line, sizeof line, in))
        if (sscanf(line, "VmHWM: %lf", &kib) == 1)
            break;
    if (in)
        fclose(in);
    return kib / 1024;
}

static uint64_t tree_bytes;
static int tree_add(const char *path, const struct stat *s, int type, struct FTW *at)
{
    (void)path, (void)at;
    if (type == FTW_F)
        tree_bytes += (uint64_t)s->st_size;
    return 0;
}
static int tree_remove(const char *path, const struct stat *s, int type, struct FTW *at)
{
    (void)s, (void)type, (void)at;
    return remove(path);
}

static int server_measure(const struct options *o, const struct data_set *set, const char *dir,
                          int sender_cpu, struct measured *ret)
{
    char data[512], ready[512];
    struct arena arena = ARENA_INIT;
    uint16_t port = 0, page = 0;
    snprintf(data, sizeof data, "%s/data", dir);
    snprintf(ready, sizeof ready, "%s/ready", dir);
    unlink(ready);
    uint64_t before = clock_monotonic_ns();
    pid_t pid = server_start(o, data, ready);
    double start_ms = (double)(clock_monotonic_ns() - before) / 1e6;
    struct str endpoints = file_read(ready, &arena);
    struct str url = json_find(endpoints, "otlp_http", &arena);
    struct str page_url = json_find(endpoints, "page", &arena);
    if (!url.ptr || sender_port(url.ptr, url.len, &port) ||
        (page_url.ptr && sender_port(page_url.ptr, page_url.len, &page))) {
        kill(pid, SIGKILL);
        errno = 0;
        die("the ready file names no otlp_http");
    }

    double cpu_before = cpu_seconds_now(pid);
    struct sender_result sent;
    struct sender_options send = {.bodies = set->bodies,
                                  .n_bodies = set->n,
                                  .port = port,
                                  .connections = o->connections,
                                  .cpu = sender_cpu};
    int err = sender_run(&send, &sent);
    double cpu_taking = cpu_seconds_now(pid) - cpu_before;
    double peak_mib = memory_peak_mib(pid);
    uint64_t held = server_spans(page, &arena);
    kill(pid, SIGTERM);
    struct rusage usage;
    process_end(pid, &usage);
    double whole_s = (double)(clock_monotonic_ns() - sent.started_ns) / 1e9;
    errno = 0;
    if (err)
        die(sent.problem[0] ? sent.problem : "cannot send");
    tree_bytes = 0;
    nftw(data, tree_add, 8, FTW_PHYS);

    double acked = (double)sent.spans_acked;
    double taking_s = (double)(sent.ended_ns - sent.started_ns) / 1e9;
    *ret = (struct measured){.spans_per_s = acked / taking_s,
                             .sealed_spans_per_s = acked / whole_s,
                             .cpu_us_per_span = cpu_seconds(&usage) * 1e6 / acked,
                             .cpu_us_per_span_taking = cpu_taking * 1e6 / acked,
                             .disk_bytes = (double)tree_bytes,
                             .memory_mib = peak_mib,
                             .start_ms = start_ms,
                             .held = held,
                             .sent = sent};
    arena_done(&arena);
    if (held != UINT64_MAX && held != sent.spans_acked) {
        fprintf(stderr, "bench ingest: %llu spans were acknowledged, the server holds %llu\n",
                (unsigned long long)sent.spans_acked, (unsigned long long)held);
        return 1;
    }
    return 0;
}

/* ---- what comes out ---- */

static void report_latencies(struct report *r, const struct sender_result *result)
{
    static const struct {
        const char *what;
        double quantile;
    } rows[] = {{"request to durable answer, p50", 0.5},
                {"request to durable answer, p99", 0.99},
                {"request to durable answer, max", 1}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        size_t at = (size_t)(rows[i].quantile * (double)(result->requests - 1));
        report_row(r, rows[i].what, (double)result->latencies_ns[at] / 1e6, "ms");
    }
}

static void report_all(struct report *r, const struct data_set *set, struct measured *server,
                       const struct measured *before, const struct measured *after)
{
    struct sender_result *sent = &server->sent;
    double floor = (before->spans_per_s + after->spans_per_s) / 2;
    double floor_us = (before->cpu_us_per_span + after->cpu_us_per_span) / 2;
    double spans = (double)set->spans, acked = (double)sent->spans_acked;
    report_machine(r, "floor, before and after", "%.0f and %.0f spans/s", before->spans_per_s,
                   after->spans_per_s);
    report_row(r, "floor: receive, checksum, write, fdatasync", floor, "spans/s");
    report_row(r, "floor, processor time", floor_us, "us/span");
    report_row(r, "ingest to durable answer", server->spans_per_s, "spans/s");
    report_ratio(r, "floor", floor);
    report_row(r, "the same, and all sealed", server->sealed_spans_per_s, "spans/s");
    report_row(r, "one core, by processor time, all sealed", 1e6 / server->cpu_us_per_span,
               "spans/s");
    report_ratio(r, "floor", 1e6 / floor_us);
    report_row(r, "processor time until the last answer", server->cpu_us_per_span_taking,
               "us/span");
    report_row(r, "processor time, all sealed", server->cpu_us_per_span, "us/span");
    report_ratio(r, "floor", floor_us);
    report_latencies(r, sent);
    report_row(r, "as OTLP", (double)set->bytes / spans, "B/span");
    report_row(r, "entropy of the data set", set->entropy_bytes, "B/span");
    report_row(r, "on disk, all sealed", server->disk_bytes / acked, "B/span");
    report_ratio(r, "entropy", set->entropy_bytes);
    report_ratio(r, "OTLP", (double)set->bytes / spans);
    report_row(r, "memory, highest", server->memory_mib, "MiB");
    report_row(r, "start until ready", server->start_ms, "ms");
    report_row(r, "spans acknowledged", acked, "spans");
    if (server->held != UINT64_MAX)
        report_row(r, "spans the server says it holds", (double)server->held, "spans");
    report_row(r, "spans rejected", (double)sent->spans_rejected, "spans");
    report_row(r, "spans refused", (double)sent->spans_refused, "spans");
    report_row(r, "answers \"later\" (429, 503)", (double)sent->busy_answers, "answers");
    free(sent->latencies_ns);
}

static const char help[] =
    "usage: ingest [OPTIONS]\n"
    "\n"
    "  --server FILE      the pugmark to measure (default build/pugmark)\n"
    "  --dir DIR          where its data goes: a disk, not a tmpfs (default build/bench)\n"
    "  --traces N         traces of 10 spans; the published data set has 1000000 (default 60000)\n"
    "  --batch N          traces in a request (default 100)\n"
    "  --connections N    requests under way at once (default 8)\n"
    "  --seed N           (default 1)\n"
    "  --keep             leave the data there\n";

static void options_read(int argc, char **argv, struct options *o)
{
    static const struct option table[] = {{"server", required_argument, NULL, 's'},
                                          {"dir", required_argument, NULL, 'd'},
                                          {"traces", required_argument, NULL, 't'},
                                          {"batch", required_argument, NULL, 'b'},
                                          {"connections", required_argument, NULL, 'c'},
                                          {"seed", required_argument, NULL, 'r'},
                                          {"keep", no_argument, NULL, 'k'},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    *o = (struct options){.server = "build/pugmark",
                          .dir = "build/bench",
                          .traces = 60000,
                          .seed = 1,
                          .batch = 100,
                          .connections = 8};
    for (int option; (option = getopt_long(argc, argv, "", table, NULL)) != -1;) {
        uint64_t n = 0;
        bool number = option == 't' || option == 'b' || option == 'c' || option == 'r';
        if (number && !str_to_u64(str_from(optarg), &n))
            option = '?';
        switch (option) {
        case 's':
            o->server = optarg;
            break;
        case 'd':
            o->dir = optarg;
            break;
        case 't':
            o->traces = n ? n : 1;
            break;
        case 'b':
            o->batch = n == 0 ? 1 : n > 10000 ? 10000 : (unsigned)n;
            break;
        case 'c':
            o->connections = n == 0                      ? 1
                             : n > FLOOR_CONNECTIONS_MAX ? FLOOR_CONNECTIONS_MAX
                                                         : (unsigned)n;
            break;
        case 'r':
            o->seed = n;
            break;
        case 'k':
            o->keep = true;
            break;
        case 'h':
            fputs(help, stdout);
            exit(0);
        default:
            fputs(help, stderr);
            exit(2);
        }
    }
}

int main(int argc, char **argv)
{
    struct options o;
    struct data_set set;
    char dir[256];
    options_read(argc, argv, &o);
    mkdir("build", 0777);
    mkdir(o.dir, 0777);
    snprintf(dir, sizeof dir, "%s/ingest-XXXXXX", o.dir);
    if (!mkdtemp(dir))
        die(dir);
    struct report *r = report_new("ingest");
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    int sender_cpu = cores > 1 ? (int)cores - 1 : -1;
    data_set_make(&o, &set);
    report_machine(r, "data", "%llu spans, %zu requests, seed %llu", (unsigned long long)set.spans,
                   set.n, (unsigned long long)o.seed);
    report_machine(r, "placement",
                   cores > 1 ? "server on core 0, sender on core %d"
                             : "server and sender on one core (%d)",
                   sender_cpu);

    /* Before and after, so that a machine that changes under way shows. */
    struct measured before = floor_measure(&o, &set, dir, sender_cpu), server, after;
    int failed = server_measure(&o, &set, dir, sender_cpu, &server);
    after = floor_measure(&o, &set, dir, sender_cpu);
    report_all(r, &set, &server, &before, &after);
    if (!o.keep)
        nftw(dir, tree_remove, 8, FTW_DEPTH | FTW_PHYS);
    data_set_done(&set);
    return report_finish(r) || failed;
}
