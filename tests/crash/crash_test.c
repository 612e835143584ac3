/* Kills the real server under load, again and again, and counts.
 *
 * Each round starts `pugmark serve` on the same data directory, sends bodies from several
 * connections, and kills the server with SIGKILL at a random moment. A body is one trace of SPANS
 * spans; some are sent twice. For each the program knows how often it was sent and how often that
 * was acknowledged. Then, on a copy of the directory, every span must be there at least once for
 * each acknowledgement and at most once for each sending (what was under way when the server died
 * may have become durable), and a body is there as a whole or not at all. The memtable is small, so
 * that kills also fall into sealing.
 *
 * Usage: crash_test PUGMARK [ROUNDS [SEED]]. Output is TAP. */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "store/store.h"
#include "wire/otlp.h"

enum {
    SPANS = 4,
    SENDERS = 3,
    BODIES_MAX = 6000000,
    KILL_AFTER_MS_MAX = 150,
    READY_MS = 20000,
    CHECK_EVERY = 10,
};

static atomic_uint next_body;
static atomic_uchar sent[BODIES_MAX], acknowledged[BODIES_MAX];
static uint8_t found[BODIES_MAX * SPANS];
static char scratch[64];

__attribute__((noreturn)) static void give_up(const char *format, ...) PRINTF_LIKE(1, 2);
static void give_up(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    printf("Bail out! ");
    vprintf(format, args);
    printf(" (files in %s)\n", scratch);
    va_end(args);
    exit(1);
}

/* ---- directories ---- */

static bool file_copy(int from, int to, const char *name)
{
    int in = openat(from, name, O_RDONLY | O_CLOEXEC);
    int out = openat(to, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    char bytes[65536];
    ssize_t n = -1;
    while (in >= 0 && out >= 0 && (n = read(in, bytes, sizeof bytes)) > 0) {
        if (write(out, bytes, (size_t)n) != n) {
            n = -1;
            break;
        }
    }
    if (in >= 0)
        close(in);
    if (out >= 0)
        close(out);
    return n == 0;
}

static DIR *dir_open(const char *path)
{
    DIR *dir = opendir(path);
    if (!dir)
        give_up("%s: %s", path, strerror(errno));
    return dir;
}

static bool is_own(const char *name)
{
    return strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

static void dir_copy(const char *from_path, const char *to_path);

static void entry_copy(const char *from_path, const char *to_path, DIR *from, DIR *to,
                       const struct dirent *e)
{
    char from_sub[200], to_sub[200];
    if (e->d_type == DT_DIR) {
        snprintf(from_sub, sizeof from_sub, "%s/%.60s", from_path, e->d_name);
        snprintf(to_sub, sizeof to_sub, "%s/%.60s", to_path, e->d_name);
        dir_copy(from_sub, to_sub);
    } else if (!file_copy(dirfd(from), dirfd(to), e->d_name)) {
        give_up("%s/%s cannot be copied", from_path, e->d_name);
    }
}

static void dir_copy(const char *from_path, const char *to_path)
{
    if (mkdir(to_path, 0700))
        give_up("%s: %s", to_path, strerror(errno));
    DIR *from = dir_open(from_path), *to = dir_open(to_path);
    for (struct dirent *e; (e = readdir(from));)
        if (is_own(e->d_name))
            entry_copy(from_path, to_path, from, to, e);
    closedir(from);
    closedir(to);
}

static void dir_remove(const char *path)
{
    DIR *dir = dir_open(path);
    char sub[200];
    for (struct dirent *e; (e = readdir(dir));) {
        if (!is_own(e->d_name))
            continue;
        snprintf(sub, sizeof sub, "%s/%.60s", path, e->d_name);
        if (e->d_type == DT_DIR)
            dir_remove(sub);
        else
            unlink(sub);
    }
    closedir(dir);
    if (rmdir(path))
        give_up("%s: %s", path, strerror(errno));
}

/* ---- the server ---- */

struct server {
    pid_t pid;
    int port;
};

static char *ready_read(const char *path)
{
    static char text[2048];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0)
        return NULL;
    text[n] = '\0';
    return text;
}

static struct server server_start(const char *pugmark, const char *data, bool sync)
{
    char ready[100], errors[100];
    snprintf(ready, sizeof ready, "%s/ready", scratch);
    snprintf(errors, sizeof errors, "%s/stderr", scratch);
    unlink(ready);
    struct server s = {.pid = fork()};
    if (s.pid < 0)
        give_up("fork: %s", strerror(errno));
    if (s.pid == 0) {
        int fd = open(errors, O_WRONLY | O_CREAT | O_APPEND, 0600);
        dup2(fd, STDERR_FILENO);
        dup2(fd, STDOUT_FILENO);
        execl(pugmark, pugmark, "serve", "--ports", "auto", "--ready-file", ready, "--data", data,
              "--durability", sync ? "sync" : "write", "--memtable-bytes", "2000000", NULL);
        _exit(127);
    }
    uint64_t end = clock_monotonic_ns() + READY_MS * NS_PER_MS;
    char *text;
    while (!(text = ready_read(ready))) {
        int status;
        if (waitpid(s.pid, &status, WNOHANG) == s.pid)
            give_up("the server ended with status %d; its words are in %s", status, errors);
        if (clock_monotonic_ns() > end)
            give_up("the server is not ready after %d ms", READY_MS);
        usleep(1000);
    }
    static const char name[] = "\"otlp_http\":\"http://127.0.0.1:";
    char *at = strstr(text, name);
    if (!at)
        give_up("no otlp_http in the ready file: %s", text);
    s.port = atoi(at + sizeof name - 1);
    return s;
}

/* ---- sending ---- */

static void number_put(uint8_t *to, uint64_t n)
{
    for (int i = 0; i < 8; i++)
        to[i] = (uint8_t)(n >> (56 - 8 * i));
}

static uint64_t number_get(const uint8_t *from)
{
    uint64_t n = 0;
    for (int i = 0; i < 8; i++)
        n = n << 8 | from[i];
    return n;
}

/* Trace and span ids hold the number of the body, so that a scan can count. */
static void body_make(uint32_t number, struct buf *out)
{
    struct attr service = {STR("service.name"), {.type = VALUE_STRING, .string = STR("crash")}};
    struct resource resource = {.attrs = {&service, 1, 0}, .service_name = STR("crash")};
    struct scope scope = {.name = STR("crash_test")};
    struct attr attrs[SPANS];
    struct span spans[SPANS] = {0};
    for (int i = 0; i < SPANS; i++) {
        attrs[i] = (struct attr){STR("body"), {.type = VALUE_INT, .integer = number}};
        number_put(spans[i].trace_id.bytes, UINT64_C(0xc0ffee));
        number_put(spans[i].trace_id.bytes + 8, number);
        number_put(spans[i].span_id.bytes, (uint64_t)number * SPANS + (uint64_t)i + 1);
        if (i)
            spans[i].parent_id = spans[0].span_id;
        spans[i].name = STR("work");
        spans[i].start_ns = clock_realtime_ns();
        spans[i].end_ns = spans[i].start_ns + 1000;
        spans[i].attrs = (struct attrs){&attrs[i], 1, 0};
        spans[i].resource = &resource;
        spans[i].scope = &scope;
    }
    struct span_batch batch = {.spans = spans, .n = SPANS};
    struct buf body = BUF_INIT;
    otlp_encode(&batch, &body);
    buf_clear(out);
    buf_printf(out,
               "POST /v1/traces HTTP/1.1\r\nHost: 127.0.0.1\r\n"
               "Content-Type: application/x-protobuf\r\nContent-Length: %zu\r\n\r\n",
               body.len);
    buf_str(out, buf_as_str(&body));
    if (!buf_ok(out) || !buf_ok(&body))
        give_up("out of memory");
    buf_done(&body);
}

static bool send_all(int fd, const char *bytes, size_t n)
{
    while (n > 0) {
        ssize_t wrote = send(fd, bytes, n, MSG_NOSIGNAL);
        if (wrote <= 0)
            return false;
        bytes += wrote;
        n -= (size_t)wrote;
    }
    return true;
}

/* The status of the answer, read to its end; 0 when the connection ends before. */
static int answer_read(int fd)
{
    char text[4096];
    size_t n = 0, total = 0;
    while (!total || n < total) {
        ssize_t got = recv(fd, text + n, sizeof text - 1 - n, 0);
        if (got <= 0)
            return 0;
        n += (size_t)got;
        text[n] = '\0';
        char *end = strstr(text, "\r\n\r\n");
        if (!end || total)
            continue;
        char *length = strcasestr(text, "\r\nContent-Length:");
        total = (size_t)(end + 4 - text) +
                (length && length < end ? strtoul(length + 17, NULL, 10) : 0);
        if (total >= sizeof text)
            give_up("an answer of %zu bytes", total);
    }
    return strncmp(text, "HTTP/1.1 ", 9) ? 0 : atoi(text + 9);
}

static int connect_to(int port)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)port),
                             .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), yes = 1;
    if (fd >= 0)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof to)) {
        close(fd);
        return -1;
    }
    return fd;
}

/* Sends until the server is gone. */
static void *sender(void *arg)
{
    const struct server *s = arg;
    struct buf request = BUF_INIT;
    int fd = connect_to(s->port), status = fd < 0 ? 0 : 200;
    while (status) {
        uint32_t number = atomic_fetch_add(&next_body, 1);
        if (number >= BODIES_MAX)
            break;
        body_make(number, &request);
        int copies = number % 5 ? 1 : 2;
        while (copies > 0) {
            atomic_fetch_add(&sent[number], 1);
            status = send_all(fd, request.ptr, request.len) ? answer_read(fd) : 0;
            if (status == 200) {
                atomic_fetch_add(&acknowledged[number], 1);
                copies--;
            } else if (status == 429 || status == 503) {
                /* Refused, so it must not be there. */
                atomic_fetch_sub(&sent[number], 1);
                usleep(2000);
            } else if (status == 0) {
                break;
            } else {
                give_up("status %d", status);
            }
        }
    }
    if (fd >= 0)
        close(fd);
    buf_done(&request);
    return NULL;
}

static uint64_t acknowledgements(void)
{
    uint64_t n = 0;
    uint32_t end = atomic_load(&next_body);
    for (uint32_t i = 0; i < end && i < BODIES_MAX; i++)
        n += atomic_load(&acknowledged[i]);
    return n;
}

static void round_run(const char *pugmark, const char *data, int number, uint64_t random)
{
    struct server s = server_start(pugmark, data, number % 2 == 0);
    pthread_t threads[SENDERS];
    uint64_t before = acknowledgements();
    for (int i = 0; i < SENDERS; i++)
        if (pthread_create(&threads[i], NULL, sender, &s))
            give_up("pthread_create");
    usleep((useconds_t)(random % (KILL_AFTER_MS_MAX * 1000)));
    /* A kill before the first answer would test little. */
    uint64_t end = clock_monotonic_ns() + READY_MS * NS_PER_MS;
    while (acknowledgements() == before) {
        if (clock_monotonic_ns() > end)
            give_up("nothing was acknowledged in round %d", number);
        usleep(500);
    }
    kill(s.pid, SIGKILL);
    waitpid(s.pid, NULL, 0);
    for (int i = 0; i < SENDERS; i++)
        pthread_join(threads[i], NULL);
}

/* ---- counting ---- */

static int count(void *arg, struct scan *scan, const struct scan_row *row)
{
    uint64_t *strangers = arg;
    (void)scan;
    uint64_t number = number_get(row->trace_id.bytes + 8);
    uint64_t at = number_get(row->span_id.bytes) - 1;
    if (number >= BODIES_MAX || at / SPANS != number || found[at] == UINT8_MAX)
        ++*strangers;
    else
        found[at]++;
    return 0;
}

/* Whole spans of some traces, through the trace table and the columns. */
static void sample(struct store_view *view, uint64_t random, uint64_t *wrong)
{
    struct arena arena = ARENA_INIT;
    uint32_t end = atomic_load(&next_body);
    for (int k = 0; k < 200; k++, random = hash_mix64(random + 1)) {
        uint32_t number = (uint32_t)(random % end);
        struct trace_id id;
        struct span_batch batch;
        number_put(id.bytes, UINT64_C(0xc0ffee));
        number_put(id.bytes + 8, number);
        int err = store_trace(view, &id, &arena, &batch);
        size_t n = err ? 0 : batch.n;
        *wrong += n != (size_t)found[(size_t)number * SPANS] * SPANS;
        *wrong += err && err != ERR_NOT_FOUND;
        for (size_t i = 0; i < n; i++)
            *wrong += batch.spans[i].attrs.n != 1 ||
                      batch.spans[i].attrs.items[0].value.integer != number;
        arena_reset(&arena);
    }
    arena_done(&arena);
}

static bool check(const char *data, int round, uint64_t random)
{
    char copy[100];
    struct store *store;
    struct error_detail detail;
    struct scan scan = {0};
    uint64_t strangers = 0, lost = 0, extra = 0, torn = 0, wrong = 0;
    snprintf(copy, sizeof copy, "%s/copy", scratch);
    dir_copy(data, copy);
    struct store_options options = {.dir = copy, .durability = STORE_DURABILITY_WRITE};
    if (store_open(&options, &store, &detail))
        give_up("the store does not open after round %d: %s", round, detail.message);
    struct store_view *view = store_view_new(store);
    memset(found, 0, sizeof found);
    if (!view || store_scan(view, &scan, count, &strangers, NULL))
        give_up("the store cannot be read after round %d", round);
    uint32_t end = atomic_load(&next_body);
    end = end < BODIES_MAX ? end : BODIES_MAX;
    for (uint32_t i = 0; i < end; i++) {
        const uint8_t *own = found + (size_t)i * SPANS;
        lost += own[0] < atomic_load(&acknowledged[i]);
        extra += own[0] > atomic_load(&sent[i]);
        for (int k = 1; k < SPANS; k++)
            torn += own[k] != own[0];
    }
    sample(view, random, &wrong);
    struct store_stats stats;
    store_stats(store, &stats);
    store_view_free(view);
    store_close(store);
    dir_remove(copy);
    bool ok = !(strangers | lost | extra | torn | wrong);
    printf("%sok %d - after %d kills: %llu acknowledgements of %u bodies, %llu segments; lost "
           "%llu, too "
           "often %llu, torn %llu, strange %llu, wrong %llu\n",
           ok ? "" : "not ", round / CHECK_EVERY, round, (unsigned long long)acknowledgements(),
           end, (unsigned long long)stats.segments, (unsigned long long)lost,
           (unsigned long long)extra, (unsigned long long)torn, (unsigned long long)strangers,
           (unsigned long long)wrong);
    fflush(stdout);
    return ok;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: %s PUGMARK [ROUNDS [SEED]]\n", argv[0]);
        return 2;
    }
    int rounds = argc > 2 ? atoi(argv[2]) : 100;
    uint64_t seed = argc > 3 ? strtoull(argv[3], NULL, 10) : clock_realtime_ns();
    char data[80];
    log_set_level(LOG_LEVEL_OFF);
    snprintf(scratch, sizeof scratch, "%s/pugmark-crash-XXXXXX", P_tmpdir);
    if (rounds < CHECK_EVERY || !mkdtemp(scratch)) {
        fprintf(stderr, "%s: at least %d rounds, and a writable %s\n", argv[0], CHECK_EVERY,
                P_tmpdir);
        return 2;
    }
    snprintf(data, sizeof data, "%s/data", scratch);
    rounds -= rounds % CHECK_EVERY;
    printf("1..%d\n# seed %llu\n", rounds / CHECK_EVERY, (unsigned long long)seed);
    bool ok = true;
    for (int i = 1; i <= rounds; i++) {
        uint64_t random = hash_mix64(seed + (uint64_t)i);
        round_run(argv[1], data, i, random);
        if (i % CHECK_EVERY == 0)
            ok &= check(data, i, random);
    }
    if (!ok) {
        printf("# files are left in %s\n", scratch);
        return 1;
    }
    dir_remove(data);
    dir_remove(scratch);
    return 0;
}
