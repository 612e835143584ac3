/* pugmark serve: the store, the receivers and the page in one process.
 *
 * Order of life: signals are blocked before the first thread starts and taken by the main thread
 * alone; the store opens (recovery); everything listens; the ready file says where. On SIGTERM or
 * SIGINT: not ready any more, the receivers answer what they have, the page ends its streams, the
 * store seals, exit 0. A second signal ends it at once: what was acknowledged is in the log. */
#include "cli/args.h"
#include "cli/cli.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "ingest/ingest.h"
#include "store/store.h"
#include "web/web.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pugmark/pugmark.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PORT_PAGE = 16686, PORT_TEMPO = 3200 };
enum {
    /* For the receivers, then for the page: together less than who stops us waits. */
    DRAIN_MS = 4000,
    HOUSEKEEPING_MS = 2000,
    /* malloc_trim gives back all of the first arena, but not the tops of the others. A request asks
     * malloc for little more than its body and its arena, so that threads hardly meet there. */
    MALLOC_ARENAS = 1,
    /* Every request takes and frees a body and an arena of up to a few MiB. Kept between requests
     * they cost no page faults; `housekeeping` gives them back when it is quiet. */
    MALLOC_MMAP_BYTES = 32 << 20,
    MALLOC_KEPT_BYTES = 64 << 20,
    FILES_WANTED = 16384,
    MEMTABLE_BYTES_LIMIT = 1 << 30,
};

struct options {
    const char *listen, *ready_file;
    char *data;
    bool auto_ports, durable_write, trace_self;
    uint64_t memtable_bytes;               /* 0: the store's default */
    uint64_t retention_ns, disk_bytes_max; /* 0: no limit */
};

enum { ENDPOINTS_MAX = RECEIVER_N + 8 };

struct endpoint {
    const char *name;
    char url[80];
};

struct serve {
    struct options options;
    struct store *store;
    struct ingest *ingest;
    struct web *web;
    _Atomic bool is_ready;
    struct endpoint endpoints[ENDPOINTS_MAX];
    size_t n_endpoints;
};

static const char help[] =
    "usage: pugmark serve [--data DIR] [--listen ADDRESS] [--ports default|auto]\n"
    "                     [--ready-file FILE] [--durability sync|write]\n"
    "                     [--memtable-bytes N] [--retention AGE] [--disk-max BYTES]\n"
    "                     [--trace-self] [-v]\n"
    "\n"
    "Receives spans (OTLP, Zipkin, Jaeger, X-Ray), keeps them, and serves the page and\n"
    "the APIs.\n"
    "\n"
    "  --data DIR          where the spans live; made when absent. Default:\n"
    "                      $XDG_STATE_HOME/pugmark, else ~/.local/state/pugmark,\n"
    "                      else ./pugmark-data\n"
    "  --listen ADDRESS    numeric IPv4 or IPv6 address; default 127.0.0.1.\n"
    "                      There is no authentication: another address opens it to all\n"
    "                      who can reach it.\n"
    "  --ports default     OTLP over gRPC 4317, OTLP over HTTP 4318, page 16686,\n"
    "                      Tempo's API 3200,\n"
    "                      Zipkin 9411, Jaeger 14268, 6831/udp and 6832/udp, X-Ray 2000/udp\n"
    "  --ports auto        free ports; the ready file says which\n"
    "  --ready-file FILE   written when everything listens: {\"pid\":..,\"endpoints\":{..}}\n"
    "  --durability sync   an answer means that the spans survive a power cut (default)\n"
    "  --durability write  an answer means that they survive the end of this process\n"
    "  --memtable-bytes N  spans are sealed into a segment when they take more memory\n"
    "                      than this; there may be two such lots. Default: 64 MiB\n"
    "  --retention AGE     spans that started longer ago are dropped, a segment at a\n"
    "                      time: 7d, 12h. Default: none are\n"
    "  --disk-max BYTES    the oldest segments are dropped while segments and log take\n"
    "                      more: 10G. Default: no limit\n"
    "  --trace-self        the server's own work appears as service \"pugmark\"; "
    "PUG_TRACING=true\n"
    "                      does the same\n"
    "  -v, --verbose       tell more on stderr\n"
    "\n"
    "SIGTERM answers what is under way, seals, and exits 0.\n";

static char *default_data_dir(void)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    char *dir = NULL;
    int n;
    if (state && state[0] == '/')
        n = asprintf(&dir, "%s/pugmark", state);
    else if (home && home[0] == '/')
        n = asprintf(&dir, "%s/.local/state/pugmark", home);
    else
        n = asprintf(&dir, "pugmark-data");
    return n < 0 ? NULL : dir;
}

/* -1: go on; else the exit status. */
static int parse(int argc, char **argv, struct options *o)
{
    static const char *const ports[] = {"default", "auto", NULL}, *const durabilities[] = {
                                                                      "sync", "write", NULL};
    const char *data = NULL, *port = ports[0], *durability = durabilities[0];
    bool verbose = false;
    int status;
    *o = (struct options){.listen = "127.0.0.1"};
    const struct args_option options[] = {
        {.name = "data", .text = &data},
        {.name = "listen", .text = &o->listen},
        {.name = "ports", .choice = &port, .choices = ports},
        {.name = "ready-file", .text = &o->ready_file},
        {.name = "durability", .choice = &durability, .choices = durabilities},
        {.name = "memtable-bytes",
         .bytes = &o->memtable_bytes,
         .min = 1,
         .max = MEMTABLE_BYTES_LIMIT},
        {.name = "retention", .duration_ns = &o->retention_ns},
        {.name = "disk-max", .bytes = &o->disk_bytes_max, .min = 1, .max = INT64_MAX},
        {.name = "trace-self", .flag = &o->trace_self},
        {.name = "verbose", .letter = 'v', .flag = &verbose},
    };
    int n = args_parse("serve", help, options, sizeof options / sizeof *options, argc, argv,
                       &status);
    if (n < 0)
        return status;
    if (n > 0)
        return args_wrong("serve", "what is \"%s\"", argv[1]);
    if (verbose)
        log_set_level(LOG_LEVEL_DEBUG);
    o->auto_ports = port == ports[1];
    o->durable_write = durability == durabilities[1];
    o->data = data ? strdup(data) : default_data_dir();
    if (!o->data) {
        fputs("pugmark serve: out of memory\n", stderr);
        return CLI_COULD_NOT;
    }
    return -1;
}

/* ---- where it listens ---- */

static void endpoint_add(struct serve *s, const char *name, const char *scheme, uint16_t port)
{
    const char *address = s->options.listen;
    /* What listens everywhere is reached here. */
    if (!strcmp(address, "0.0.0.0"))
        address = "127.0.0.1";
    else if (!strcmp(address, "::"))
        address = "::1";
    struct endpoint *e = &s->endpoints[s->n_endpoints++];
    e->name = name;
    bool is_v6 = strchr(address, ':') != NULL;
    snprintf(e->url, sizeof e->url, "%s://%s%s%s:%u", scheme, is_v6 ? "[" : "", address,
             is_v6 ? "]" : "", port);
}

static const char *endpoint_url(const struct serve *s, const char *name)
{
    for (size_t i = 0; i < s->n_endpoints; i++)
        if (!strcmp(s->endpoints[i].name, name))
            return s->endpoints[i].url;
    return "";
}

/* Whole or not at all: a reader never sees half of it. */
static int ready_file_write(const struct serve *s)
{
    struct buf text = BUF_INIT;
    struct json_writer w = json_writer(&text);
    json_open(&w, '{');
    json_key(&w, STR("pid"));
    json_u64(&w, (uint64_t)getpid());
    json_key(&w, STR("endpoints"));
    json_open(&w, '{');
    for (size_t i = 0; i < s->n_endpoints; i++) {
        json_key(&w, str_from(s->endpoints[i].name));
        json_str(&w, str_from(s->endpoints[i].url));
    }
    json_close(&w, '}');
    json_close(&w, '}');
    buf_byte(&text, '\n');
    char *part = NULL;
    int err = buf_ok(&text) && asprintf(&part, "%s.%d", s->options.ready_file, getpid()) > 0
                  ? 0
                  : ERR_NOMEM;
    if (!err) {
        int fd = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
        bool wrote = fd >= 0 && write(fd, text.ptr, text.len) == (ssize_t)text.len;
        if (fd >= 0 && close(fd) != 0)
            wrote = false;
        if (!wrote || rename(part, s->options.ready_file) != 0) {
            fprintf(stderr, "pugmark serve: %s: %s\n", s->options.ready_file, strerror(errno));
            unlink(part);
            err = ERR_IO;
        }
    }
    free(part);
    buf_done(&text);
    return err;
}

/* ---- life ---- */

static bool is_ready(void *arg)
{
    struct serve *s = arg;
    return atomic_load(&s->is_ready);
}

static void ingest_counters(void *arg, struct web_ingest_stats *ret)
{
    struct serve *s = arg;
    struct ingest_stats from;
    ingest_stats(s->ingest, &from);
    *ret = (struct web_ingest_stats){
        .requests = from.requests,
        .spans_received = from.spans_received,
        .spans_stored = from.spans_stored,
        .values_cut = from.values_cut,
        .bytes_in_flight = from.bytes_in_flight,
    };
    static_assert(REFUSED_N <= WEB_REFUSED_MAX, "a row for each reason");
    static_assert(RECEIVER_N <= WEB_RECEIVERS_MAX, "a row for each receiver");
    for (int i = 0; i < RECEIVER_N; i++)
        ret->receivers[ret->n_receivers++] = (struct web_receiver_stats){
            .name = receiver_name((enum receiver)i),
            .is_udp = i >= RECEIVER_UDP_FIRST,
            .requests = from.receivers[i].requests,
            .requests_refused = from.receivers[i].requests_refused,
            .spans_received = from.receivers[i].spans_received,
            .spans_stored = from.receivers[i].spans_stored,
            .datagrams_dropped = from.receivers[i].datagrams_dropped,
        };
    for (int reason = 0; reason < REFUSED_N; reason++) {
        ret->refused[ret->n_refused].reason = refused_text(reason);
        ret->refused[ret->n_refused++].count = from.spans_refused[reason];
    }
}

/* The page knows the other endpoints, so that it can say where to send a first span. */
static int web_listen(struct serve *s, struct error_detail *detail)
{
    struct web_endpoint endpoints[ENDPOINTS_MAX];
    for (size_t i = 0; i < s->n_endpoints; i++)
        endpoints[i] = (struct web_endpoint){s->endpoints[i].name, s->endpoints[i].url};
    struct web_options options = {
        .address = s->options.listen,
        .port = s->options.auto_ports ? 0 : PORT_PAGE,
        .tempo_port = s->options.auto_ports ? 0 : PORT_TEMPO,
        .store = s->store,
        .endpoints = endpoints,
        .n_endpoints = s->n_endpoints,
        .is_ready = is_ready,
        .ingest_stats = ingest_counters,
        .arg = s,
    };
    int err = web_start(&options, &s->web, detail);
    if (!err) {
        ingest_zipkin_other(s->ingest, web_zipkin, s->web);
        endpoint_add(s, "page", "http", web_port(s->web));
        endpoint_add(s, "tempo", "http", web_tempo_port(s->web));
    }
    return err;
}

static void on_tracing_trouble(void *user, const char *message)
{
    (void)user;
    log_warn("tracing itself: %s", message);
}

/* The server's own spans go where everybody's go, with a header that keeps their way from being
 * traced as well. PUG_BACKEND may name another place. */
static void trace_self(struct serve *s)
{
    const char *backend = getenv("PUG_BACKEND");
    struct pug_options options = {
        .size = sizeof options,
        .tracing = s->options.trace_self ? PUG_TRACING_ON : PUG_TRACING_ENVIRONMENT,
        .service_name = "pugmark",
        .service_version = PUGMARK_VERSION,
        .log = on_tracing_trouble,
    };
    char url[sizeof s->endpoints[0].url + 12];
    if (!backend || !*backend) {
        snprintf(url, sizeof url, "%s/v1/traces", endpoint_url(s, "otlp_http"));
        options.backend = PUG_BACKEND_OTLP;
        options.otlp_endpoint = url;
        options.otlp_headers = INGEST_OWN_HEADER "=1";
    }
    int err = pug_start(&options);
    if (err)
        log_warn("the server cannot trace itself: %s", pug_error_text(err));
}

static int start(struct serve *s)
{
    const struct options *o = &s->options;
    struct error_detail detail = {0};
    struct store_options store = {
        .dir = o->data,
        .durability = o->durable_write ? STORE_DURABILITY_WRITE : STORE_DURABILITY_SYNC,
        .memtable_bytes_max = o->memtable_bytes,
        .retention_ns = o->retention_ns,
        .disk_bytes_max = o->disk_bytes_max,
    };
    int err = store_open(&store, &s->store, &detail);
    if (err) {
        /* Most messages begin with the path. */
        bool named = !strncmp(detail.message, o->data, strlen(o->data));
        fprintf(stderr, "pugmark serve: %s%s%s%s\n", named ? "" : o->data, named ? "" : ": ",
                detail.message[0] ? detail.message : err_text(err),
                err == ERR_BUSY ? "; another server may run, --data names another directory" : "");
        return err;
    }
    struct ingest_options ingest = {
        .address = o->listen,
        .store = s->store,
    };
    for (int i = 0; i < RECEIVER_N && !o->auto_ports; i++)
        ingest.ports[i] = receiver_default_port((enum receiver)i);
    err = ingest_start(&ingest, &s->ingest, &detail);
    if (!err) {
        for (int i = 0; i < RECEIVER_N; i++)
            if (ingest_port(s->ingest, (enum receiver)i))
                endpoint_add(s, receiver_name((enum receiver)i),
                             i < RECEIVER_UDP_FIRST ? "http" : "udp",
                             ingest_port(s->ingest, (enum receiver)i));
        err = web_listen(s, &detail);
    }
    if (err)
        fprintf(stderr, "pugmark serve: %s%s\n", detail.message[0] ? detail.message : err_text(err),
                err == ERR_BUSY ? "; --ports auto takes free ones" : "");
    return err;
}

static void stop(struct serve *s)
{
    atomic_store(&s->is_ready, false);
    int err = pug_stop();
    if (err)
        log_warn("the server's own last spans: %s", pug_error_text(err));
    ingest_stop(s->ingest, DRAIN_MS);
    web_stop(s->web, DRAIN_MS);
    store_close(s->store);
    ingest_free(s->ingest);
}

static void say_where(const struct serve *s)
{
    fputs("pugmark serve:", stderr);
    for (size_t i = 0; i < s->n_endpoints; i++)
        fprintf(stderr, " %s %s", s->endpoints[i].name, s->endpoints[i].url);
    fprintf(stderr, " data %s\n", s->options.data);
}

/* After work comes quiet; what the work left free goes back then. */
static void housekeeping(struct serve *s, uint64_t *requests_before, bool *is_trimmed)
{
    struct ingest_stats stats;
    ingest_stats(s->ingest, &stats);
    bool is_quiet = stats.requests == *requests_before;
    *requests_before = stats.requests;
    if (is_quiet && !*is_trimmed) {
        malloc_trim(0);
        *is_trimmed = true;
    } else if (!is_quiet) {
        *is_trimmed = false;
    }
}

/* For --verbose: what came, and what became of it. */
static void say_what_changed(struct serve *s, struct ingest_stats *before, uint64_t *segments)
{
    struct ingest_stats now;
    struct store_stats store;
    uint64_t refused = 0, refused_before = 0;
    ingest_stats(s->ingest, &now);
    store_stats(s->store, &store);
    for (int i = 0; i < REFUSED_N; i++) {
        refused += now.spans_refused[i];
        refused_before += before->spans_refused[i];
    }
    if (now.requests != before->requests)
        log_debug("received requests=%llu spans=%llu stored=%llu refused=%llu bytes=%llu",
                  (unsigned long long)(now.requests - before->requests),
                  (unsigned long long)(now.spans_received - before->spans_received),
                  (unsigned long long)(now.spans_stored - before->spans_stored),
                  (unsigned long long)(refused - refused_before),
                  (unsigned long long)(now.body_bytes - before->body_bytes));
    if (store.segments != *segments)
        log_debug("sealed segments=%llu segment_spans=%llu segment_bytes=%llu",
                  (unsigned long long)store.segments, (unsigned long long)store.segment_spans,
                  (unsigned long long)store.segment_bytes);
    *before = now;
    *segments = store.segments;
}

static void wait_for_end(struct serve *s, const sigset_t *signals)
{
    uint64_t requests = 0, segments = 0;
    struct ingest_stats before = {.requests = 0};
    bool is_trimmed = false;
    for (;;) {
        const struct timespec pause = {HOUSEKEEPING_MS / 1000,
                                       HOUSEKEEPING_MS % 1000 * (long)NS_PER_MS};
        int signal_number = sigtimedwait(signals, NULL, &pause);
        if (signal_number == SIGTERM || signal_number == SIGINT)
            return;
        if (signal_number == SIGHUP) {
            log_info("SIGHUP: there is no configuration file to read again");
        } else if (signal_number < 0 && errno == EAGAIN) {
            housekeeping(s, &requests, &is_trimmed);
            say_what_changed(s, &before, &segments);
        }
    }
}

static void more_files(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur >= FILES_WANTED)
        return;
    files.rlim_cur = files.rlim_max < FILES_WANTED ? files.rlim_max : FILES_WANTED;
    setrlimit(RLIMIT_NOFILE, &files);
}

int cli_serve(int argc, char **argv)
{
    struct serve s = {0};
    int status = parse(argc, argv, &s.options);
    if (status >= 0)
        return status;
    mallopt(M_ARENA_MAX, MALLOC_ARENAS);
    mallopt(M_MMAP_THRESHOLD, MALLOC_MMAP_BYTES);
    mallopt(M_TRIM_THRESHOLD, MALLOC_KEPT_BYTES);
    more_files();
    signal(SIGPIPE, SIG_IGN);
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);

    int err = start(&s);
    if (!err) {
        trace_self(&s);
        atomic_store(&s.is_ready, true);
        say_where(&s);
        if (s.options.ready_file)
            err = ready_file_write(&s);
    }
    if (!err)
        wait_for_end(&s, &signals);
    /* Whoever is in a hurry may signal again. */
    signal(SIGTERM, SIG_DFL);
    signal(SIGINT, SIG_DFL);
    pthread_sigmask(SIG_UNBLOCK, &signals, NULL);
    stop(&s);
    if (!err && s.options.ready_file)
        unlink(s.options.ready_file);
    free(s.options.data);
    return err ? CLI_COULD_NOT : CLI_DONE;
}
