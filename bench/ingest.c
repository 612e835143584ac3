/* Ingest: from the first byte of a request to the answer that says it is durable, and on until all is
 * sealed, in four protocols, each for a minute.
 *
 *   bodies   the data set of `pugmark load`, encoded before anything is measured; round after round
 *            with other ids and later times (bodies.h)
 *   sender   this process, on the last core: 8 connections, one request under way on each
 *   server   `pugmark serve` as a user starts it, on the first core, with all it does by itself:
 *            sealing, merging, its catalogue
 *   floor    on the first core as well, over the same protocol (floor.h), before and after
 *
 * Figures of speed: by the wall, while spans come; by the wall until the server has sealed
 * everything and ended, which is what counts; and by the server's processor time for all of it.
 *
 * Two cores. The sender takes its part of them: it sends bytes that are ready in memory, and what it
 * costs nevertheless is measured and printed. So the gain of a second core is
 *   2 x spans/s with two / (2 - the sender's cores) / (spans/s with one)
 * by the wall: what the server makes of a core that it may use, beside what it makes of one that is all
 * its own. Time in which the server waits, for the disk or for itself, counts against it; what is
 * printed as idle is that. Where the server comes to the floor, the disk is what limits, not a core;
 * --dir on a tmpfs shows the processors alone.
 *
 * Refusals and rejections are printed; a span that was acknowledged and is not in the server's own
 * count, or one that is there and was not acknowledged, fails the run. */
#include "bodies.h"
#include "floor.h"
#include "report.h"
#include "sender.h"
#include "served.h"

#include "base/clock.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

struct options {
    const char *server, *dir, *only;
    uint64_t traces, seed;
    unsigned batch, connections, cores; /* of the server; 0: one, then two */
    double seconds;
    bool keep;
};

/* One protocol. Texts are four times as long, so there are fewer of them. */
static const struct arm {
    enum body_form form;
    const char *name, *endpoint;
    double wanted_spans_per_s;
    unsigned traces_part; /* of those asked for */
} arms[] = {
    {BODY_OTLP_HTTP, "http", "otlp_http", 500000, 1},
    {BODY_OTLP_GRPC, "grpc", "otlp_grpc", 400000, 1},
    {BODY_OTLP_AS_JSON, "json", "otlp_http", 100000, 3},
    {BODY_ZIPKIN_AS_JSON, "zipkin", "zipkin", 100000, 3},
};
enum { ARMS = sizeof arms / sizeof *arms, CORES_MEASURED = 2 };

static struct {
    struct options o;
    char dir[256];
    int sender_cpu;
    struct arena texts; /* of the report */
} bench;

struct measured {
    double spans_per_s, cpu_us_per_span;
    /* of the server only */
    double sealed_spans_per_s, cpu_us_per_span_taking, busiest_part, disk_bytes, memory_mib,
        start_ms;
    uint64_t held, sealed_bytes, rewritten_bytes; /* as the server says; UINT64_MAX: it does not */
    struct sender_result sent;                    /* its latencies are this struct's */
};

static void send_all(const struct body_set *set, uint16_t port, unsigned connections,
                     double seconds, int sender_cpu, pid_t server, struct sender_result *ret)
{
    struct sender_options send = {.set = set,
                                  .port = port,
                                  .connections = connections,
                                  .seconds = seconds,
                                  .cpu = sender_cpu};
    errno = 0;
    if (sender_run(&send, ret)) {
        kill(server, SIGKILL);
        errno = 0;
        bench_die(ret->problem[0] ? ret->problem : "cannot send");
    }
}

static struct measured floor_measure(const struct body_set *set)
{
    char path[512];
    uint16_t port;
    snprintf(path, sizeof path, "%s/floor", bench.dir);
    pid_t pid = floor_start(set->form == BODY_OTLP_GRPC, path, &port);
    struct sender_result sent;
    send_all(set, port, bench.o.connections, 0, bench.sender_cpu, pid, &sent);
    struct rusage usage;
    process_end(pid, &usage);
    unlink(path);
    double seconds = (double)(sent.ended_ns - sent.started_ns) / 1e9;
    free(sent.latencies_ns);
    return (struct measured){.spans_per_s = (double)sent.spans_acked / seconds,
                             .cpu_us_per_span = cpu_seconds(&usage) * 1e6 /
                                                (double)sent.spans_acked};
}

/* On core 0, or (-1) on all of them. */
static int server_measure(const struct arm *arm, const struct body_set *set, int cpu,
                          double seconds, struct measured *ret)
{
    struct arena arena = ARENA_INIT;
    char data[300];
    struct served served;
    struct sender_result sent;
    snprintf(data, sizeof data, "%s/data", bench.dir);
    served_start(bench.o.server, bench.dir, cpu, &arena, &served);
    uint16_t port = served_port(&served, arm->endpoint);
    errno = 0;
    if (!port) {
        kill(served.pid, SIGKILL);
        bench_die("the ready file names no endpoint for this protocol");
    }
    double busiest_s, cpu_before = served_cpu_s(&served, NULL);
    /* More requests under way, or two cores would wait for them: a group is being staged while another is
     * being synced, and both cores receive. */
    enum { TIMES = 4 };
    send_all(set, port, cpu < 0 ? TIMES * bench.o.connections : bench.o.connections, seconds,
             cpu < 0 ? -1 : bench.sender_cpu, served.pid, &sent);
    double cpu_taking = served_cpu_s(&served, &busiest_s) - cpu_before;
    *ret = (struct measured){
        .memory_mib = served_memory_peak_mib(&served),
        .held = served_metric(&served, "pugmark_store_spans"),
        .sealed_bytes = served_metric(&served, "pugmark_store_sealed_bytes_total"),
        .rewritten_bytes = served_metric(&served, "pugmark_store_rewritten_bytes_total"),
        .start_ms = served.start_ms,
        .sent = sent};
    kill(served.pid, SIGTERM);
    struct rusage usage;
    process_end(served.pid, &usage);
    double whole_s = (double)(clock_monotonic_ns() - sent.started_ns) / 1e9;
    double taking_s = (double)(sent.ended_ns - sent.started_ns) / 1e9;
    double acked = (double)sent.spans_acked;
    ret->spans_per_s = acked / taking_s;
    ret->sealed_spans_per_s = acked / whole_s;
    ret->cpu_us_per_span = cpu_seconds(&usage) * 1e6 / acked;
    ret->cpu_us_per_span_taking = cpu_taking * 1e6 / acked;
    ret->busiest_part = cpu_taking > 0 ? busiest_s / cpu_taking : 0;
    ret->disk_bytes = (double)tree_bytes(data);
    if (!bench.o.keep)
        tree_remove(data);
    arena_done(&arena);
    if (ret->held == sent.spans_acked)
        return 0;
    fprintf(stderr, "bench ingest: %llu spans were acknowledged, the server holds %llu\n",
            (unsigned long long)sent.spans_acked, (unsigned long long)ret->held);
    return 1;
}

/* ---- what comes out ---- */

static const char *text(const char *form, const char *what)
{
    char line[200];
    snprintf(line, sizeof line, "%s: %s", form, what);
    return arena_str(&bench.texts, (struct str){line, strlen(line) + 1}).ptr;
}

static void report_latencies(struct report *r, const char *name, const struct sender_result *sent)
{
    static const struct {
        const char *what;
        double quantile;
    } rows[] = {{"request to durable answer, p50", 0.5},
                {"request to durable answer, p99", 0.99},
                {"request to durable answer, max", 1}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows && sent->n_latencies; i++) {
        size_t at = (size_t)(rows[i].quantile * (double)(sent->n_latencies - 1));
        report_row(r, text(name, rows[i].what), (double)sent->latencies_ns[at] / 1e6, "ms");
    }
}

static void report_server(struct report *r, const struct arm *arm, const struct body_set *set,
                          const struct measured *server, const struct measured floors[2])
{
    const char *name = body_form_name(arm->form);
    const struct sender_result *sent = &server->sent;
    double floor = (floors[0].spans_per_s + floors[1].spans_per_s) / 2;
    double floor_us = (floors[0].cpu_us_per_span + floors[1].cpu_us_per_span) / 2;
    double acked = (double)sent->spans_acked;
    report_row(r, text(name, "floor, before"), floors[0].spans_per_s, "spans/s");
    report_row(r, text(name, "floor, after"), floors[1].spans_per_s, "spans/s");
    report_row(r, text(name, "floor, processor time"), floor_us, "us/span");
    report_row(r, text(name, "to durable answer"), server->spans_per_s, "spans/s");
    report_ratio(r, "floor", floor);
    report_row(r, text(name, "the same, and all sealed"), server->sealed_spans_per_s, "spans/s");
    report_ratio(r, "wanted", arm->wanted_spans_per_s);
    report_ratio(r, "floor", floor);
    report_row(r, text(name, "processor time, all sealed"), server->cpu_us_per_span, "us/span");
    report_ratio(r, "floor", floor_us);
    report_row(r, text(name, "processor time until the last answer"),
               server->cpu_us_per_span_taking, "us/span");
    report_row(r, text(name, "sender's processor time"), sent->cpu_s * 1e6 / acked, "us/span");
    report_latencies(r, name, sent);
    report_row(r, text(name, "as sent"), (double)set->bytes / (double)set->spans, "B/span");
    report_row(r, text(name, "on disk, all sealed"), server->disk_bytes / acked, "B/span");
    report_row(r, text(name, "written again by merging"),
               server->sealed_bytes ? (double)server->rewritten_bytes / (double)server->sealed_bytes
                                    : 0,
               "of what was sealed");
    report_row(r, text(name, "memory, highest"), server->memory_mib, "MiB");
    report_row(r, text(name, "sent for"), (double)(sent->ended_ns - sent->started_ns) / 1e9, "s");
    report_row(r, text(name, "spans acknowledged"), acked, "spans");
    report_row(r, text(name, "spans the server holds"), (double)server->held, "spans");
    report_row(r, text(name, "spans rejected or refused"),
               (double)(sent->spans_rejected + sent->spans_refused), "spans");
    report_row(r, text(name, "answers \"later\""), (double)sent->busy_answers, "answers");
}

static void report_two_cores(struct report *r, const struct arm *arm, const struct measured *one,
                             const struct measured *two, const struct measured floors[2])
{
    const char *name = body_form_name(arm->form);
    double seconds = (double)(two->sent.ended_ns - two->sent.started_ns) / 1e9;
    double senders = two->sent.cpu_s / seconds; /* cores */
    double servers = two->spans_per_s * two->cpu_us_per_span_taking / 1e6;
    report_row(r, text(name, "two cores, processor time, all sealed"), two->cpu_us_per_span,
               "us/span");
    if (one)
        report_ratio(r, "one core", one->cpu_us_per_span);
    report_row(r, text(name, "two cores, part of the busiest thread"), two->busiest_part, "");
    report_row(r, text(name, "two cores shared with the sender, to answer"), two->spans_per_s,
               "spans/s");
    if (one)
        report_ratio(r, "one core", one->spans_per_s);
    report_ratio(r, "floor", (floors[0].spans_per_s + floors[1].spans_per_s) / 2);
    report_row(r, text(name, "cores in use by the server"), servers, "");
    report_row(r, text(name, "cores in use by the sender"), senders, "");
    report_row(r, text(name, "cores idle"), CORES_MEASURED - servers - senders, "");
    if (one)
        report_row(
            r, text(name, "gain of a second core"),
            two->spans_per_s / (CORES_MEASURED - senders) * CORES_MEASURED / one->spans_per_s, "x");
    report_row(r, text(name, "spans lost with two cores"),
               (double)(two->sent.spans_rejected + two->sent.spans_refused), "spans");
}

static int arm_measure(struct report *r, const struct arm *arm)
{
    struct body_set set;
    struct measured one = {0}, two = {0}, floors[2];
    uint64_t traces = bench.o.traces / arm->traces_part;
    fprintf(stderr, "bench ingest: %s\n", body_form_name(arm->form));
    body_set_make(arm->form, traces ? traces : 1, bench.o.batch, bench.o.seed, &set);
    /* Before and after, so that a machine that changes under way shows. */
    floors[0] = floor_measure(&set);
    int failed = 0;
    bool has_one = bench.o.cores != 2, has_two = bench.o.cores != 1 && bench.sender_cpu > 0;
    if (has_one)
        failed |= server_measure(arm, &set, 0, bench.o.seconds, &one);
    if (has_two)
        failed |= server_measure(arm, &set, -1, bench.o.seconds / (has_one ? 2 : 1), &two);
    floors[1] = floor_measure(&set);
    if (has_one)
        report_server(r, arm, &set, &one, floors);
    if (has_two)
        report_two_cores(r, arm, has_one ? &one : NULL, &two, floors);
    free(two.sent.latencies_ns);
    free(one.sent.latencies_ns);
    body_set_done(&set);
    return failed;
}

static const char help[] =
    "usage: ingest [OPTIONS]\n"
    "\n"
    "  --server FILE      the pugmark to measure (default build/pugmark)\n"
    "  --dir DIR          where its data goes: a disk (default build/bench)\n"
    "  --only NAME        http, grpc, json or zipkin (default all four)\n"
    "  --seconds N        to send in each protocol (default 60)\n"
    "  --traces N         traces of 10 spans that go round (default 60000; a third for texts)\n"
    "  --batch N          traces in a request (default 100)\n"
    "  --cores N          of the server: 1, 2, or 0, one after the other (default 0)\n"
    "  --connections N    requests under way at once (default 8; four times as many for two "
    "cores)\n"
    "  --seed N           (default 1)\n"
    "  --keep             leave the data there\n";

static unsigned bounded(uint64_t n, unsigned most)
{
    return n == 0 ? 1 : n > most ? most : (unsigned)n;
}

static void options_read(int argc, char **argv, struct options *o)
{
    static const struct option table[] = {{"server", required_argument, NULL, 's'},
                                          {"dir", required_argument, NULL, 'd'},
                                          {"only", required_argument, NULL, 'o'},
                                          {"seconds", required_argument, NULL, 'n'},
                                          {"traces", required_argument, NULL, 't'},
                                          {"batch", required_argument, NULL, 'b'},
                                          {"connections", required_argument, NULL, 'c'},
                                          {"cores", required_argument, NULL, 'm'},
                                          {"seed", required_argument, NULL, 'r'},
                                          {"keep", no_argument, NULL, 'k'},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    *o = (struct options){.server = "build/pugmark",
                          .dir = "build/bench",
                          .traces = 60000,
                          .seed = 1,
                          .batch = 100,
                          .seconds = 60,
                          .connections = 8};
    for (int option; (option = getopt_long(argc, argv, "", table, NULL)) != -1;) {
        uint64_t n = 0;
        if (strchr("ntbcrm", option) && !str_to_u64(str_from(optarg), &n))
            option = '?';
        switch (option) {
        case 's':
            o->server = optarg;
            break;
        case 'd':
            o->dir = optarg;
            break;
        case 'o':
            o->only = optarg;
            break;
        case 'n':
            o->seconds = bounded(n, 3600);
            break;
        case 't':
            o->traces = n ? n : 1;
            break;
        case 'b':
            o->batch = bounded(n, 10000);
            break;
        case 'c':
            o->connections = bounded(n, FLOOR_CONNECTIONS_MAX);
            break;
        case 'm':
            o->cores = n <= CORES_MEASURED ? (unsigned)n : 0;
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
    struct options *o = &bench.o;
    options_read(argc, argv, o);
    mkdir("build", 0777);
    mkdir(o->dir, 0777);
    snprintf(bench.dir, sizeof bench.dir, "%s/ingest-XXXXXX", o->dir);
    if (!mkdtemp(bench.dir))
        bench_die(bench.dir);
    struct report *r = report_new("ingest");
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    bench.sender_cpu = cores > 1 ? (int)cores - 1 : -1;
    report_machine(r, "data", "%llu spans (texts: a third), requests of %u, %.0f s each, seed %llu",
                   (unsigned long long)o->traces * 10, o->batch * 10, o->seconds,
                   (unsigned long long)o->seed);
    report_machine(r, "placement",
                   cores > 1 ? "server on core 0, sender on core %d"
                             : "server and sender on one core (%d)",
                   bench.sender_cpu);
    int failed = 0, measured = 0;
    for (unsigned i = 0; i < ARMS; i++)
        if (!o->only || !strcmp(o->only, arms[i].name)) {
            failed |= arm_measure(r, &arms[i]);
            measured++;
        }
    if (!measured) {
        fputs(help, stderr);
        failed = 2;
    }
    if (!o->keep)
        tree_remove(bench.dir);
    failed |= report_finish(r);
    arena_done(&bench.texts);
    return failed;
}
