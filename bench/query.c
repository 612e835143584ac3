/* Queries at size: ten million spans of `pugmark load`, sent to a real server and sealed, then asked over HTTP.
 *
 *   server   `pugmark serve` as a user starts it, on the first core; asked from the last
 *   asked    25 different questions of each class: 5 to warm up, 20 that count
 *   right    each answer, trace by trace, is compared with what was drawn; a wrong one fails the run
 *   cold     a new process, and the store's files out of the page cache; the first question of three processes
 *   memory   the highest, while 50,000 spans a second come in and all classes are asked in turns
 *   beside   ClickHouse of Debian's package with the same rows (clickhouse.h), on one core, five questions
 *            of each class. SQL cannot say "below": there it is asked for both spans in one trace, which is less
 *            work. Without the package these rows are left out, and it is said. */
#include "clickhouse.h"
#include "query_asks.h"
#include "report.h"
#include "sender.h"
#include "served.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <getopt.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WARM_UP = 5, COLD = 3, PEER_ASKS = 5, RATE = 50000, RATE_S = 10, DATA_START_S = 1700000000 };

struct options {
    const char *server, *dir;
    uint64_t spans, seed;
    bool keep, no_peer;
};

struct bench {
    struct options options;
    struct report *report;
    struct asks asks;
    char dir[256];
    int cpu; /* of who asks */
    struct arena arena;
    struct served served;
    uint16_t page;
    unsigned wrong;
};

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(double *v, size_t n, double q)
{
    qsort(v, n, sizeof *v, by_size);
    return v[(size_t)ceil(q * (double)n) - 1];
}

/* ---- the server ---- */

static void start(struct bench *b)
{
    arena_reset(&b->arena);
    served_start(b->options.server, b->dir, b->cpu >= 0 ? 0 : -1, &b->arena, &b->served);
    b->page = served_port(&b->served, "page");
    if (!b->page)
        bench_die("the ready file names no page");
}

static void end(struct bench *b)
{
    struct rusage usage;
    kill(b->served.pid, SIGTERM);
    process_end(b->served.pid, &usage);
}

/* `pugmark load` on the asking core. */
static pid_t load_start(struct bench *b, uint64_t traces, uint64_t seed, uint64_t start_ns,
                        unsigned rate)
{
    char url[64], n[32], s[32], at[32], r[32];
    snprintf(url, sizeof url, "http://127.0.0.1:%u", served_port(&b->served, "otlp_http"));
    snprintf(n, sizeof n, "%llu", (unsigned long long)traces);
    snprintf(s, sizeof s, "%llu", (unsigned long long)seed);
    snprintf(at, sizeof at, "%llu", (unsigned long long)start_ns);
    snprintf(r, sizeof r, "%u", rate);
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0)
        bench_die("cannot fork");
    if (pid == 0) {
        bench_stay_on(b->cpu);
        int null = open("/dev/null", O_WRONLY);
        if (null < 0 || dup2(null, 1) < 0 || dup2(null, 2) < 0)
            _exit(1);
        const char *args[] = {b->options.server,
                              "load",
                              "--otlp",
                              url,
                              "--traces",
                              n,
                              "--seed",
                              s,
                              "--start",
                              at,
                              rate ? "--rate" : NULL,
                              r,
                              NULL};
        execv(b->options.server, (char *const *)args);
        _exit(1);
    }
    return pid;
}

static void load_wait(pid_t pid)
{
    int status = 0;
    while (waitpid(pid, &status, 0) != pid)
        ;
    errno = 0;
    if (!WIFEXITED(status) || WEXITSTATUS(status))
        bench_die("pugmark load did not send everything");
}

static void fill(struct bench *b)
{
    uint64_t traces = b->options.spans / ASK_SPANS_PER_TRACE;
    start(b);
    if (served_metric(&b->served, "pugmark_store_spans") != b->options.spans)
        load_wait(load_start(b, traces, b->options.seed, DATA_START_S * NS_PER_S, 0));
    end(b); /* which seals */
}

/* ---- asking ---- */

static double ask_once(struct bench *b, enum ask_class c, const struct ask *a)
{
    struct buf path = BUF_INIT;
    char *body, problem[200] = "";
    size_t n;
    ask_path(&b->asks, c, a, &path);
    uint64_t begun_ns = clock_monotonic_ns();
    errno = 0;
    if (!buf_ok(&path) || sender_get(b->page, path.ptr, &body, &n))
        bench_die("the server does not answer");
    double ms = (double)(clock_monotonic_ns() - begun_ns) / 1e6;
    if (!ask_check(&b->asks, c, a, (struct str){body, n}, problem, sizeof problem)) {
        fprintf(stderr, "bench query: wrong: %s\n  of %s\n  %.300s\n", problem, path.ptr, body);
        b->wrong++;
    }
    free(body);
    buf_done(&path);
    return ms;
}

static double ask_warm(struct bench *b, enum ask_class c)
{
    double ms[ASKS - WARM_UP];
    char what[128];
    for (int i = 0; i < WARM_UP; i++)
        ask_once(b, c, &b->asks.of[c][i]);
    for (int i = WARM_UP; i < ASKS; i++)
        ms[i - WARM_UP] = ask_once(b, c, &b->asks.of[c][i]);
    double p50 = quantile(ms, ASKS - WARM_UP, 0.5);
    report_row(b->report, ask_class_name(c), p50, "ms");
    snprintf(what, sizeof what, "  the same, p95 of %d", ASKS - WARM_UP);
    report_row(b->report, what, quantile(ms, ASKS - WARM_UP, 0.95), "ms");
    return p50;
}

static int file_forget(const char *path, const struct stat *s, int type, struct FTW *at)
{
    (void)s, (void)at;
    int fd = type == FTW_F ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        fdatasync(fd);
        posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
        close(fd);
    }
    return 0;
}

static void ask_cold(struct bench *b, enum ask_class c)
{
    char data[300], what[128];
    double ms[COLD];
    snprintf(data, sizeof data, "%s/data", b->dir);
    for (int i = 0; i < COLD; i++) {
        nftw(data, file_forget, 8, FTW_PHYS);
        start(b);
        ms[i] = ask_once(b, c, &b->asks.of[c][i]);
        end(b);
    }
    snprintf(what, sizeof what, "cold: %s", ask_class_name(c));
    report_row(b->report, what, quantile(ms, COLD, 0.5), "ms");
}

/* What comes in is later than all that is asked for, steps of a minute included. */
static void ask_under_load(struct bench *b)
{
    unsigned answers = 0, wrong_before = b->wrong;
    uint64_t traces = (uint64_t)RATE * RATE_S / ASK_SPANS_PER_TRACE;
    double slowest_ms = 0;
    start(b);
    uint64_t until = clock_monotonic_ns() + RATE_S * NS_PER_S;
    pid_t pid = load_start(b, traces, b->options.seed + 1, b->asks.end_ns + 120 * NS_PER_S, RATE);
    for (int i = 0; clock_monotonic_ns() < until; i = (i + 1) % ASKS)
        for (int c = 0; c < ASK_CLASSES && clock_monotonic_ns() < until; c++, answers++) {
            double ms = ask_once(b, (enum ask_class)c, &b->asks.of[c][i]);
            slowest_ms = ms > slowest_ms ? ms : slowest_ms;
        }
    load_wait(pid);
    uint64_t held = served_metric(&b->served, "pugmark_store_spans");
    report_row(b->report, "memory, highest, 50,000 spans/s coming in and all classes asked",
               served_memory_peak_mib(&b->served), "MiB");
    report_row(b->report, "  spans that came meanwhile", (double)(held - b->options.spans),
               "spans");
    report_row(b->report, "  answers meanwhile", answers, "answers");
    report_row(b->report, "  the slowest of them", slowest_ms, "ms");
    if (held != b->options.spans + traces * ASK_SPANS_PER_TRACE) {
        fprintf(stderr, "bench query: the server holds %llu spans\n", (unsigned long long)held);
        b->wrong++;
    }
    report_row(b->report, "  wrong answers", b->wrong - wrong_before, "answers");
    end(b);
}

/* ---- the peer ---- */

static int peer_fill(struct bench *b, struct clickhouse *ch)
{
    struct load_gen *gen = load_gen_new(b->options.seed, ASK_SPANS_PER_TRACE,
                                        DATA_START_S * NS_PER_S);
    struct arena arena = ARENA_INIT;
    uint64_t left = b->options.spans / ASK_SPANS_PER_TRACE;
    int err = gen ? clickhouse_spans_create(ch) : ERR_NOMEM;
    while (!err && left) {
        unsigned traces = left < 2000 ? (unsigned)left : 2000;
        struct span_batch batch;
        arena_reset(&arena);
        err = load_gen_batch(gen, traces, &arena, &batch);
        if (!err)
            err = clickhouse_spans_insert(ch, &batch);
        left -= traces;
    }
    arena_done(&arena);
    load_gen_free(gen);
    return err ? err : clickhouse_spans_merge(ch);
}

static int peer_ask(struct bench *b, struct clickhouse *ch, const double *ours)
{
    double rows = 0;
    int err = clickhouse_number(ch, "SELECT count() FROM spans", &rows);
    report_row(b->report, "ClickHouse: rows", rows, "spans");
    for (int c = 0; !err && c < ASK_CLASSES; c++) {
        double ms[PEER_ASKS];
        char what[128];
        struct buf sql = BUF_INIT;
        ask_sql(&b->asks, (enum ask_class)c, &b->asks.of[c][0], &sql);
        err = clickhouse_ask(ch, sql.ptr, NULL, &ms[0]); /* warms up */
        for (int i = 0; !err && i < PEER_ASKS; i++) {
            ask_sql(&b->asks, (enum ask_class)c, &b->asks.of[c][WARM_UP + i], &sql);
            err = clickhouse_ask(ch, sql.ptr, NULL, &ms[i]);
        }
        buf_done(&sql);
        if (err)
            break;
        snprintf(what, sizeof what, "ClickHouse: %s", ask_class_name((enum ask_class)c));
        report_row(b->report, what, quantile(ms, PEER_ASKS, 0.5), "ms");
        report_ratio(b->report, "ours", ours[c]);
    }
    return err;
}

static void peer(struct bench *b, const double *ours)
{
    char dir[300];
    struct clickhouse *ch;
    if (b->options.no_peer || !clickhouse_is_installed()) {
        report_machine(b->report, "ClickHouse", "skipped: %s",
                       b->options.no_peer ? "not asked for" : "clickhouse-server is not installed");
        return;
    }
    snprintf(dir, sizeof dir, "%s/clickhouse", b->dir);
    struct clickhouse_options options = {dir, "lz4", b->cpu >= 0 ? 0 : -1};
    errno = 0;
    if (clickhouse_start(&options, &ch))
        bench_die("ClickHouse does not start");
    int err = peer_fill(b, ch);
    if (!err)
        err = peer_ask(b, ch, ours);
    clickhouse_end(ch);
    if (err)
        bench_die("ClickHouse does not answer");
    tree_remove(dir);
}

/* ---- the whole ---- */

static const char help[] =
    "usage: query [OPTIONS]\n"
    "\n"
    "  --server FILE      the pugmark to measure (default build/pugmark)\n"
    "  --dir DIR          where its data goes: no tmpfs (default build/bench/query-data)\n"
    "  --spans N          how many (default 10000000)\n"
    "  --seed N           (default 1)\n"
    "  --no-peer          without ClickHouse\n"
    "  --keep             leave the data there, and take what was left\n";

static void options_read(int argc, char **argv, struct options *o)
{
    static const struct option table[] = {
        {"server", required_argument, NULL, 's'}, {"dir", required_argument, NULL, 'd'},
        {"spans", required_argument, NULL, 'n'},  {"seed", required_argument, NULL, 'r'},
        {"no-peer", no_argument, NULL, 'p'},      {"keep", no_argument, NULL, 'k'},
        {"help", no_argument, NULL, 'h'},         {NULL, 0, NULL, 0}};
    *o = (struct options){
        .server = "build/pugmark", .dir = "build/bench/query-data", .spans = 10000000, .seed = 1};
    for (int option; (option = getopt_long(argc, argv, "", table, NULL)) != -1;) {
        uint64_t n = 0;
        if ((option == 'n' || option == 'r') && !str_to_u64(str_from(optarg), &n))
            option = '?';
        switch (option) {
        case 's':
            o->server = optarg;
            break;
        case 'd':
            o->dir = optarg;
            break;
        case 'n': /* whole traces, and enough of them to ask for */
            o->spans = n < 10000 ? 10000 : n - n % ASK_SPANS_PER_TRACE;
            break;
        case 'r':
            o->seed = n;
            break;
        case 'p':
            o->no_peer = true;
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
    static struct bench b;
    double ours[ASK_CLASSES];
    options_read(argc, argv, &b.options);
    mkdir("build", 0777);
    mkdir("build/bench", 0777);
    snprintf(b.dir, sizeof b.dir, "%s", b.options.dir);
    if (!b.options.keep)
        tree_remove(b.dir);
    mkdir(b.dir, 0777);
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    b.cpu = cores > 1 ? (int)cores - 1 : -1;
    b.report = report_new("query");
    report_machine(b.report, "data", "%llu spans, seed %llu", (unsigned long long)b.options.spans,
                   (unsigned long long)b.options.seed);
    report_machine(b.report, "placement", cores > 1 ? "server on core 0, asked from core %d" : "%d",
                   b.cpu);
    errno = 0;
    if (asks_make(&b.asks, b.options.seed, DATA_START_S * NS_PER_S,
                  b.options.spans / ASK_SPANS_PER_TRACE))
        bench_die("out of memory");
    fill(&b);
    bench_stay_on(b.cpu);
    start(&b);
    served_settle(&b.served);
    report_row(b.report, "spans stored", (double)served_metric(&b.served, "pugmark_store_spans"),
               "spans");
    for (int c = 0; c < ASK_CLASSES; c++)
        ours[c] = ask_warm(&b, (enum ask_class)c);
    end(&b);
    for (int c = 0; c < ASK_CLASSES; c++)
        ask_cold(&b, (enum ask_class)c);
    peer(&b, ours);
    if (!b.options.keep)
        ask_under_load(&b);
    report_row(b.report, "wrong answers", b.wrong, "answers");
    if (!b.options.keep)
        tree_remove(b.dir);
    asks_done(&b.asks);
    arena_done(&b.arena);
    return report_finish(b.report) || b.wrong;
}
