/* Bytes a span takes on disk, sealed and merged as far as the store merges, beside the same rows in
 * ClickHouse (clickhouse.h: MergeTree, LZ4 and ZSTD, each merged to the end) in the same run.
 *
 *   generator   the data set of `pugmark load`: random ids, 11 of 97 attributes each of 1000 values. What
 *               was drawn has an entropy below which nothing can go.
 *   sample      the sample system (examples/decoys) under load: what instrumentation by libpugmark
 *               looks like. `pugmark demo` runs it against a server until there are enough spans.
 *
 * Every row is counted on both sides; a difference fails the run. */
#include "clickhouse.h"
#include "report.h"
#include "sender.h"
#include "served.h"

#include "base/clock.h"
#include "cli/load_gen.h"
#include "store/local/segment.h"
#include "store/store.h"
#include "wire/otlp.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    SPANS_PER_TRACE = 10,
    BATCH_TRACES = 200,
    DATA_START_S = 1700000000,
    SAMPLE_S_MAX = 600,
    DEMO_DRIVERS = 6,
};

struct options {
    const char *server, *dir;
    uint64_t traces, sample_spans, seed;
    bool keep;
};

static char work[256];

static void must(int err, const char *what)
{
    if (!err)
        return;
    fprintf(stderr, "bench disk: %s: %s\n", what, err_text(err));
    exit(1);
}

/* ---- the data ---- */

/* ret: bytes a span of what was drawn */
static double generator_fill(const struct options *o, const char *data)
{
    struct load_gen *gen = load_gen_new(o->seed, SPANS_PER_TRACE, DATA_START_S * NS_PER_S);
    struct arena arena = ARENA_INIT;
    struct buf body = BUF_INIT;
    struct store_options options = {.dir = data, .durability = STORE_DURABILITY_WRITE};
    struct error_detail detail = {0};
    struct store *store;
    must(gen ? store_open(&options, &store, &detail) : ERR_NOMEM, "the store");
    for (uint64_t at = 0; at < o->traces; at += BATCH_TRACES) {
        uint64_t left = o->traces - at;
        struct span_batch batch;
        arena_reset(&arena);
        buf_clear(&body);
        must(load_gen_batch(gen, left < BATCH_TRACES ? (unsigned)left : BATCH_TRACES, &arena,
                            &batch),
             "the generator");
        otlp_encode(&batch, &body);
        must(buf_ok(&body) ? store_append_wait(store, BODY_OTLP_PROTOBUF, buf_as_str(&body), &batch)
                           : ERR_NOMEM,
             "appending");
    }
    store_close(store);
    double entropy = load_gen_bits(gen) / 8 / (double)(o->traces * SPANS_PER_TRACE);
    buf_done(&body);
    arena_done(&arena);
    load_gen_free(gen);
    return entropy;
}

/* The first "http://127.0.0.1:PORT" that a program prints. */
static uint16_t page_port(FILE *in)
{
    char line[512];
    while (fgets(line, sizeof line, in)) {
        const char *url = strstr(line, "http://127.0.0.1:");
        uint16_t port;
        if (url && !sender_port(url, strcspn(url, " \n"), &port))
            return port;
    }
    return 0;
}

/* The sample system until the server has so many spans, or time is over. */
static void sample_fill(const struct options *o, const char *data)
{
    char drivers[16];
    int out[2];
    snprintf(drivers, sizeof drivers, "%d", DEMO_DRIVERS);
    fflush(NULL);
    if (pipe(out))
        bench_die("cannot make a pipe");
    pid_t pid = fork();
    if (pid < 0)
        bench_die("cannot fork");
    if (pid == 0) {
        if (dup2(out[1], 1) < 0)
            _exit(1);
        close(out[0]);
        close(out[1]);
        execl(o->server, o->server, "demo", "--data", data, "--drivers", drivers, (char *)NULL);
        bench_die(o->server);
    }
    close(out[1]);
    FILE *in = fdopen(out[0], "r");
    struct served demo = {.pid = pid, .page = in ? page_port(in) : 0};
    errno = 0;
    if (!demo.page) {
        kill(pid, SIGINT);
        bench_die("the sample system did not start");
    }
    uint64_t until = clock_monotonic_ns() + SAMPLE_S_MAX * NS_PER_S, told = 0;
    while (clock_monotonic_ns() < until) {
        uint64_t spans = served_metric(&demo, "pugmark_store_spans");
        if (spans != UINT64_MAX && spans >= o->sample_spans)
            break;
        if (spans != UINT64_MAX && spans >= told + 50000)
            fprintf(stderr, "bench disk: %llu spans of the sample system\n",
                    (unsigned long long)(told = spans));
        nanosleep(&(struct timespec){.tv_nsec = 500000000}, NULL);
    }
    struct rusage usage;
    kill(pid, SIGINT);
    process_end(pid, &usage);
    fclose(in);
}

/* ---- reading it back, into ClickHouse ---- */

struct copy {
    struct clickhouse *ch; /* NULL: only counted */
    uint64_t spans;
};

static int copy_add(void *arg, const struct span_batch *batch)
{
    struct copy *c = arg;
    c->spans += batch->n;
    return c->ch ? clickhouse_spans_insert(c->ch, batch) : 0;
}

/* All spans of all segments of a store that nobody has open. */
static uint64_t segments_copy(const char *data, struct clickhouse *ch)
{
    struct copy copy = {.ch = ch};
    DIR *dir = opendir(data);
    if (!dir)
        bench_die(data);
    for (struct dirent *e; (e = readdir(dir));) {
        struct segment *seg;
        if (!strstr(e->d_name, ".seg"))
            continue;
        must(segment_open(dirfd(dir), e->d_name, &seg), e->d_name);
        must(segment_spans(seg, copy_add, &copy), e->d_name);
        segment_close(seg);
    }
    closedir(dir);
    return copy.spans;
}

/* Bytes of the table a span; 0: there is none. */
static double clickhouse_measure(const char *data, const char *compression, uint64_t spans)
{
    char dir[300];
    struct clickhouse *ch;
    double bytes, rows;
    snprintf(dir, sizeof dir, "%s/clickhouse", work);
    const struct clickhouse_options options = {.dir = dir, .compression = compression, .cpu = -1};
    if (clickhouse_start(&options, &ch))
        return 0;
    must(clickhouse_spans_create(ch), "ClickHouse's table");
    segments_copy(data, ch);
    must(clickhouse_spans_merge(ch), "ClickHouse's merging");
    must(clickhouse_number(ch, "SELECT count() FROM spans", &rows), "ClickHouse's rows");
    must(clickhouse_spans_bytes(ch, &bytes), "ClickHouse's bytes");
    clickhouse_end(ch);
    tree_remove(dir);
    if ((uint64_t)rows != spans) {
        fprintf(stderr, "bench disk: ClickHouse has %.0f rows of %llu\n", rows,
                (unsigned long long)spans);
        exit(1);
    }
    return bytes / (double)spans;
}

/* Merges what can be merged, and counts all files of the store. */
static double store_bytes(const char *data, uint64_t *ret_spans)
{
    struct store_options options = {.dir = data};
    struct error_detail detail = {0};
    struct store *store;
    struct store_stats stats;
    must(store_open(&options, &store, &detail), detail.message);
    must(store_seal(store), "sealing");
    must(store_keep(store, true), "merging");
    store_stats(store, &stats);
    store_close(store);
    *ret_spans = stats.spans;
    return (double)tree_bytes(data);
}

static void compare(struct report *r, const char *names[4], const char *data, double most,
                    const char *most_name)
{
    uint64_t spans;
    double ours = store_bytes(data, &spans) / (double)spans;
    if (segments_copy(data, NULL) != spans)
        must(ERR_CORRUPT, "the segments have another number of spans");
    double lz4 = clickhouse_measure(data, "lz4", spans);
    double zstd = lz4 ? clickhouse_measure(data, "zstd", spans) : 0;
    double least = zstd < lz4 ? zstd : lz4;
    report_row(r, names[0], ours, "B/span");
    report_ratio(r, most_name, most);
    if (least)
        report_ratio(r, "ClickHouse's smaller", least);
    if (lz4)
        report_row(r, names[1], lz4, "B/span");
    if (zstd)
        report_row(r, names[2], zstd, "B/span");
    report_row(r, names[3], (double)spans, "spans");
}

static const char help[] =
    "usage: disk [OPTIONS]\n"
    "\n"
    "  --server FILE      the pugmark whose demo is run (default build/pugmark)\n"
    "  --dir DIR          where the data goes (default build/bench)\n"
    "  --traces N         of the generator, 10 spans each (default 100000)\n"
    "  --sample-spans N   of the sample system; 0: leave it out (default 200000)\n"
    "  --seed N           (default 1)\n"
    "  --keep             leave the data there\n";

static void options_read(int argc, char **argv, struct options *o)
{
    static const struct option table[] = {
        {"server", required_argument, NULL, 's'}, {"dir", required_argument, NULL, 'd'},
        {"traces", required_argument, NULL, 't'}, {"sample-spans", required_argument, NULL, 'p'},
        {"seed", required_argument, NULL, 'r'},   {"keep", no_argument, NULL, 'k'},
        {"help", no_argument, NULL, 'h'},         {NULL, 0, NULL, 0}};
    *o = (struct options){.server = "build/pugmark",
                          .dir = "build/bench",
                          .traces = 100000,
                          .sample_spans = 200000,
                          .seed = 1};
    for (int option; (option = getopt_long(argc, argv, "", table, NULL)) != -1;) {
        uint64_t n = 0;
        if (strchr("tpr", option) && !str_to_u64(str_from(optarg), &n))
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
        case 'p':
            o->sample_spans = n;
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
    char data[300];
    options_read(argc, argv, &o);
    mkdir("build", 0777);
    mkdir(o.dir, 0777);
    snprintf(work, sizeof work, "%s/disk-XXXXXX", o.dir);
    if (!mkdtemp(work))
        bench_die(work);
    struct report *r = report_new("disk");
    if (!clickhouse_is_installed())
        report_machine(r, "ClickHouse", "is not installed, and left out");

    snprintf(data, sizeof data, "%s/generator", work);
    double entropy = generator_fill(&o, data);
    report_row(r, "generator: entropy of what was drawn", entropy, "B/span");
    compare(r,
            (const char *[]){"generator: on disk", "generator: ClickHouse, LZ4",
                             "generator: ClickHouse, ZSTD", "generator: spans"},
            data, entropy, "entropy");
    if (!o.keep)
        tree_remove(data);
    if (o.sample_spans) {
        snprintf(data, sizeof data, "%s/sample", work);
        sample_fill(&o, data);
        compare(r,
                (const char *[]){"sample system: on disk", "sample system: ClickHouse, LZ4",
                                 "sample system: ClickHouse, ZSTD", "sample system: spans"},
                data, 20, "the 20 wanted");
    }
    if (!o.keep)
        tree_remove(work);
    return report_finish(r);
}
