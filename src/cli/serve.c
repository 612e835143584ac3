/* pugmark serve: the store, the receivers and the page in one process.
 *
 * Order of life: signals are blocked before the first thread starts and taken by the main thread
 * alone; the store opens (recovery); everything listens; the ready file says where. On SIGTERM or
 * SIGINT: not ready any more, the receivers answer what they have, the page ends its streams, the
 * store seals, exit 0. A second signal ends it at once: what was acknowledged is in the log. */
#include "cli/args.h"
#include "cli/cli.h"
#include "cli/server_config.h"
#include "cli/server_redaction.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "ingest/follow.h"
#include "ingest/ingest.h"
#include "ingest/redaction.h"
#include "store/records.h"
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

enum { PORT_PAGE = 16686, PORT_TEMPO = 3200, PORT_SAMPLING = 5778, PORT_JAEGER_GRPC = 16685 };
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
    FILES_WANTED = 65536,
    MEMTABLE_BYTES_LIMIT = 1 << 30,
    FOLLOW_MAX = 64,
    RECORDS_DISK_PART = 4, /* so much of the disk budget may be logs and metrics */
};

/* The command line; what is not there, other sources say. */
struct options {
    const char *config_file, *ready_file, *sampling_strategies;
    const char *data, *listen, *ports, *durability, *retention;
    const char *redact_keys, *redact_patterns, *redact_action;
    uint64_t retention_ns, memtable_bytes, disk_bytes_max;
    const char *follow[FOLLOW_MAX];
    size_t n_follow;
    bool trace_self, verbose;
};

enum { ENDPOINTS_MAX = RECEIVER_N + 8 };

struct endpoint {
    const char *name;
    char url[80];
};

struct serve {
    struct options options;
    struct server_config config; /* in force */
    char *data;
    struct store *store;
    struct records *records;
    struct redaction *redaction;
    struct ingest *ingest;
    struct follow *follow;
    struct web *web;
    _Atomic bool is_ready;
    struct endpoint endpoints[ENDPOINTS_MAX];
    size_t n_endpoints;
};

static const char help[] =
    "usage: pugmark serve [--config FILE] [--data DIR] [--listen ADDRESS] [--ports default|auto]\n"
    "                     [--ready-file FILE] [--durability sync|write]\n"
    "                     [--memtable-bytes N] [--retention AGE] [--disk-max BYTES]\n"
    "                     [--redact-keys GLOB,...] [--redact-patterns P,...]\n"
    "                     [--redact-action mask|hash|drop]\n"
    "                     [--sampling-strategies FILE] [--follow FILE]... [--trace-self]\n"
    "                     [-v]\n"
    "\n"
    "Receives spans (OTLP, Zipkin, Jaeger, X-Ray), keeps them, and serves the page and\n"
    "the APIs.\n"
    "\n"
    "  --config FILE       instead of pugmark.toml, which is looked for here and in\n"
    "                      ~/.config/pugmark and /etc/pugmark: its [server] says all of the\n"
    "                      following and more; the command line stands over it\n"
    "  --data DIR          where the spans live; made when absent. Default:\n"
    "                      $XDG_STATE_HOME/pugmark, else ~/.local/state/pugmark,\n"
    "                      else ./pugmark-data\n"
    "  --listen ADDRESS    numeric IPv4 or IPv6 address; default 127.0.0.1.\n"
    "                      There is no authentication: another address opens it to all\n"
    "                      who can reach it.\n"
    "  --ports default     OTLP over gRPC 4317, OTLP over HTTP 4318, page 16686,\n"
    "                      Tempo's API 3200,\n"
    "                      Zipkin 9411, Jaeger 14268, 6831/udp and 6832/udp, X-Ray 2000/udp,\n"
    "                      Jaeger's gRPC queries 16685, sampling strategies 5778\n"
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
    "  --redact-keys GLOB,...\n"
    "                      values of these attributes do not reach the disk, whatever brings\n"
    "                      them; \"default\" stands for a list of names of secrets\n"
    "  --redact-patterns P,...\n"
    "                      nor what looks like this in any text: email, credit_card,\n"
    "                      bearer_token, jwt, aws_key, ipv4, private_key, or an expression\n"
    "  --redact-action A   mask (default): [redacted] stands in its place; hash: a keyed\n"
    "                      hash, so that equal values stay equal; drop: the attribute goes\n"
    "  --sampling-strategies FILE\n"
    "                      how much Jaeger's clients keep, in Jaeger's format; read again\n"
    "                      when it changes. Default: everything\n"
    "  --follow FILE       lines of JSON with _trace become spans as they are written, over\n"
    "                      rotation and truncation; may be a pattern, and come again\n"
    "  --trace-self        the server's own work appears as service \"pugmark\"; "
    "PUG_TRACING=true\n"
    "                      does the same\n"
    "  -v, --verbose       tell more on stderr\n"
    "\n"
    "SIGTERM answers what is under way, seals, and exits 0. SIGHUP reads the\n"
    "configuration again.\n";

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
    static const char *const ports[] = {"default", "auto", NULL};
    static const char *const actions[] = {"mask", "hash", "drop", NULL};
    static const char *const durabilities[] = {"sync", "write", NULL};
    int status;
    *o = (struct options){.trace_self = false};
    const struct args_option options[] = {
        {.name = "config", .text = &o->config_file},
        {.name = "data", .text = &o->data},
        {.name = "listen", .text = &o->listen},
        {.name = "ports", .choice = &o->ports, .choices = ports},
        {.name = "ready-file", .text = &o->ready_file},
        {.name = "durability", .choice = &o->durability, .choices = durabilities},
        {.name = "memtable-bytes",
         .bytes = &o->memtable_bytes,
         .min = 1,
         .max = MEMTABLE_BYTES_LIMIT},
        {.name = "retention", .text = &o->retention, .duration_ns = &o->retention_ns},
        {.name = "disk-max", .bytes = &o->disk_bytes_max, .min = 1, .max = INT64_MAX},
        {.name = "redact-keys", .text = &o->redact_keys},
        {.name = "redact-patterns", .text = &o->redact_patterns},
        {.name = "redact-action", .choice = &o->redact_action, .choices = actions},
        {.name = "sampling-strategies", .text = &o->sampling_strategies},
        {.name = "follow", .list = o->follow, .n_list = &o->n_follow, .max = FOLLOW_MAX},
        {.name = "trace-self", .flag = &o->trace_self},
        {.name = "verbose", .letter = 'v', .flag = &o->verbose},
    };
    int n = args_parse("serve", help, options, sizeof options / sizeof *options, argc, argv,
                       &status);
    if (n < 0)
        return status;
    if (n > 0)
        return args_wrong("serve", "what is \"%s\"", argv[1]);
    if (o->verbose)
        log_set_level(LOG_LEVEL_DEBUG);
    return -1;
}

/* ---- the configuration ---- */

static void tell(void *user, enum setting_trouble trouble, const char *message)
{
    if (trouble == TROUBLE_WARNING)
        log_warn("%s", message);
    else
        log_error("%s", message);
}

static bool put_bytes(struct server_config *c, enum server_setting id, const char *option,
                      uint64_t bytes)
{
    char text[24];
    snprintf(text, sizeof text, "%llu", (unsigned long long)bytes);
    return !bytes || server_config_put(c, id, option, text);
}

static bool put_text(struct server_config *c, enum server_setting id, const char *option,
                     const char *text)
{
    return !text || server_config_put(c, id, option, text);
}

/* All sources together. What is wrong has been told, and the configuration is empty then. */
static int config_read(struct serve *s, struct server_config *c)
{
    const struct options *o = &s->options;
    int err = server_config_init(c, tell, NULL);
    if (!err)
        err = server_config_read(c, o->config_file);
    bool put = !err && put_text(c, SERVER_DATA, "--data", o->data) &&
               put_text(c, SERVER_LISTEN, "--listen", o->listen) &&
               put_text(c, SERVER_PORTS, "--ports", o->ports) &&
               put_text(c, SERVER_DURABILITY, "--durability", o->durability) &&
               put_text(c, SERVER_RETENTION, "--retention", o->retention) &&
               put_bytes(c, SERVER_MEMTABLE_BYTES, "--memtable-bytes", o->memtable_bytes) &&
               put_bytes(c, SERVER_DISK_MAX, "--disk-max", o->disk_bytes_max) &&
               put_text(c, SERVER_REDACT_KEYS, "--redact-keys", o->redact_keys) &&
               put_text(c, SERVER_REDACT_PATTERNS, "--redact-patterns", o->redact_patterns) &&
               put_text(c, SERVER_REDACT_ACTION, "--redact-action", o->redact_action) &&
               put_text(c, SERVER_SAMPLING_STRATEGIES, "--sampling-strategies",
                        o->sampling_strategies) &&
               put_text(c, SERVER_TRACE_SELF, "--trace-self", o->trace_self ? "true" : NULL);
    if (err == ERR_NOMEM)
        log_error("the configuration: out of memory");
    if (!err && (!put || c->settings.n_errors))
        err = ERR_INVALID;
    if (err) {
        server_config_done(c);
        *c = (struct server_config){.n_rules = 0};
    }
    return err;
}

static const char *value_text(const struct serve *s, int id)
{
    return server_value(&s->config, id)->text;
}

static uint64_t value_count(const struct serve *s, int id)
{
    return server_value(&s->config, id)->count;
}

static bool receiver_is_on(const struct serve *s, enum receiver receiver)
{
    const struct setting *v = server_value(&s->config, SERVER_RECEIVERS);
    for (size_t i = 0; i < v->n_items; i++)
        if (!strcmp(v->items[i], receiver_name(receiver)))
            return true;
    return false;
}

/* 0: a free one. */
static uint16_t port_of(const struct serve *s, int id, uint16_t by_default)
{
    const struct setting *v = server_value(&s->config, id);
    bool automatic = !strcmp(value_text(s, SERVER_PORTS), "auto");
    return v->is_set ? (uint16_t)v->count : automatic ? 0 : by_default;
}

/* The rules lie in `rules`, what they point to in the configuration. */
static struct store_retention retention_of(const struct server_config *c,
                                           struct store_rule rules[SERVER_RULES_MAX])
{
    struct store_retention r = {.rules = rules};
    const struct setting *keep = server_value(c, SERVER_RETENTION),
                         *disk = server_value(c, SERVER_DISK_MAX);
    for (size_t i = 0; i < c->n_rules; i++) {
        const struct server_rule *rule = &c->rules[i];
        rules[r.n_rules++] = (struct store_rule){
            .text = str_from(rule->match), .match = rule->where, .keep_ns = rule->keep_ns};
    }
    r.keep_ns = keep->is_set ? keep->count : 0;
    r.disk_bytes_max = disk->is_set ? disk->count : 0;
    return r;
}

static bool rules_differ(const struct server_config *a, const struct server_config *b)
{
    for (size_t i = 0; i < a->n_rules && a->n_rules == b->n_rules; i++)
        if (a->rules[i].keep_ns != b->rules[i].keep_ns ||
            !str_eq(str_from(a->rules[i].match), str_from(b->rules[i].match)))
            return true;
    return a->n_rules != b->n_rules;
}

/* Those of `c` in force; the first time they are made. Of the rest of the server nobody may know yet. */
static int redaction_apply(struct serve *s, const struct server_config *c,
                           struct error_detail *detail)
{
    struct redaction_rule rules[REDACT_RULES_MAX];
    struct redaction_options options;
    int err = server_redaction_options(c, s->data, rules, &options, detail);
    if (!err)
        err = s->redaction ? redaction_set(s->redaction, &options, detail)
                           : redaction_new(&options, &s->redaction, detail);
    explicit_bzero(options.key, sizeof options.key);
    return err;
}

/* SIGHUP: takes what can change while the server runs, and says what cannot. */
static void config_reload(struct serve *s)
{
    struct server_config fresh;
    struct store_rule rules[SERVER_RULES_MAX];
    if (config_read(s, &fresh)) {
        log_error("SIGHUP: the configuration is not taken, the old one stays");
        return;
    }
    struct error_detail detail = {0};
    if (redaction_apply(s, &fresh, &detail)) { /* first: nothing else changes then */
        log_error("SIGHUP: %s; the old configuration stays", detail.message);
        server_config_done(&fresh);
        return;
    }
    struct store_retention retention = retention_of(&fresh, rules);
    int err = store_retention_set(s->store, &retention);
    records_retention_set(s->records, retention.keep_ns,
                          retention.disk_bytes_max / RECORDS_DISK_PART);
    if (err) {
        log_error("SIGHUP: the rules of retention are not taken: %s", err_text(err));
        server_config_done(&fresh);
        return;
    }
    unsigned changed = (unsigned)rules_differ(&s->config, &fresh) +
                       (unsigned)server_redaction_differs(&s->config, &fresh);
    unsigned waits = 0;
    for (int id = 0; id < SERVER_SETTINGS; id++) {
        const char *was = server_value_text(&s->config, id), *is = server_value_text(&fresh, id);
        if (!strcmp(was, is))
            continue;
        if (server_setting_is_live(id)) {
            changed++;
            log_info("SIGHUP: %s is %s now, was %s", server_setting_defs[id].name, is, was);
        } else {
            waits++;
            log_warn("SIGHUP: %s = %s takes a restart; it stays %s", server_setting_defs[id].name,
                     is, was);
        }
    }
    log_info("SIGHUP: configuration read from %s: %u changed, %u wait for a restart",
             fresh.settings.file ? fresh.settings.file : "the environment", changed, waits);
    /* What waits stays known as it is, for the next comparison. */
    for (int id = 0; id < SERVER_SETTINGS && waits; id++)
        if (!server_setting_is_live(id))
            server_value_keep(&fresh, &s->config, id);
    server_config_done(&s->config);
    s->config = fresh;
}

/* ---- where it listens ---- */

static void endpoint_add(struct serve *s, const char *name, const char *scheme, uint16_t port)
{
    const char *address = value_text(s, SERVER_LISTEN);
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

static void follow_counters(const struct follow *from, struct web_ingest_stats *ret)
{
    struct follow_stats follow;
    if (!from)
        return;
    follow_stats(from, &follow);
    ret->has_follow = true;
    ret->follow_files = follow.files;
    ret->follow_bytes = follow.bytes;
    ret->follow_lost = follow.lost;
    const uint64_t lines[] = {follow.spans, follow.logs, follow.passed, follow.invalid,
                              follow.repeated};
    memcpy(ret->follow_lines, lines, sizeof lines);
}

static void redaction_counters(struct redaction *r, struct web_ingest_stats *ret)
{
    struct redaction_count counts[REDACT_RULES_MAX];
    static_assert(REDACT_RULES_MAX <= WEB_REDACTIONS_MAX, "a row for each rule");
    static_assert(REDACTION_NAME_MAX < sizeof ret->redactions[0].rule, "room for its name");
    ret->n_redactions = redaction_counts(r, counts);
    for (size_t i = 0; i < ret->n_redactions; i++) {
        memcpy(ret->redactions[i].rule, counts[i].name, sizeof counts[i].name);
        ret->redactions[i].action = redact_action_name(counts[i].action);
        ret->redactions[i].values = counts[i].values;
    }
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
        .connections_now = from.connections_now,
        .connections_full = from.connections_full,
    };
    static_assert(REFUSED_N <= WEB_REFUSED_MAX && TURNED_N <= WEB_REFUSED_MAX,
                  "a row for each reason");
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
    redaction_counters(s->redaction, ret);
    if (atomic_load(&s->is_ready)) /* it is there from then on, and goes after that */
        follow_counters(s->follow, ret);
    static const char *const signals[SIGNAL_N] = {
        [SIGNAL_LOGS] = "logs", [SIGNAL_METRICS] = "points"};
    static_assert(SIGNAL_N <= WEB_SIGNALS_MAX, "a row for each signal");
    for (int i = 0; i < SIGNAL_N; i++) {
        ret->signals[ret->n_signals].name = signals[i];
        ret->signals[ret->n_signals].received = from.signals[i].received;
        ret->signals[ret->n_signals].stored = from.signals[i].stored;
        ret->signals[ret->n_signals++].refused = from.signals[i].refused;
    }
    for (int reason = 0; reason < REFUSED_N; reason++) {
        ret->refused[ret->n_refused].reason = refused_text(reason);
        ret->refused[ret->n_refused++].count = from.spans_refused[reason];
    }
    for (int reason = 0; reason < TURNED_N; reason++) {
        ret->turned[ret->n_turned].reason = turned_text(reason);
        ret->turned[ret->n_turned++].count = from.requests_turned[reason];
    }
}

static void ledger_of(void *arg, const struct trace_id *id, struct web_ledger *ret)
{
    struct serve *s = arg;
    struct ingest_ledger from;
    ingest_ledger(s->ingest, id, &from);
    *ret = (struct web_ledger){
        .n_fates = FATE_N,
        .more = from.more,
        .since_ns = from.since_ns,
        .remembered = from.entries,
        .remembered_max = LEDGER_ENTRIES,
        .skipped = from.skipped,
    };
    static_assert((int)FATE_N <= WEB_FATES_MAX && LEDGER_FOUND_MAX <= WEB_LEDGER_ENTRIES_MAX,
                  "a row for each");
    for (int fate = 0; fate < (int)FATE_N; fate++) {
        ret->fates[fate].fate = fate == FATE_CUT        ? "cut"
                                : fate == FATE_ATTRS    ? "left-out"
                                : fate == FATE_REDACTED ? "redacted"
                                                        : "refused";
        ret->fates[fate].reason = fate_text((enum fate)fate);
        ret->fates[fate].spans = from.spans[fate];
    }
    for (size_t i = 0; i < from.n; i++) {
        ret->entries[i].time_ns = from.found[i].time_ns;
        ret->entries[i].spans = from.found[i].spans;
        ret->entries[ret->n_entries++].fate = from.found[i].fate;
    }
}

/* The page knows the other endpoints, so that it can say where to send a first span. */
static int web_listen(struct serve *s, struct error_detail *detail)
{
    struct web_endpoint endpoints[ENDPOINTS_MAX];
    for (size_t i = 0; i < s->n_endpoints; i++)
        endpoints[i] = (struct web_endpoint){s->endpoints[i].name, s->endpoints[i].url};
    struct web_options options = {
        .address = value_text(s, SERVER_LISTEN),
        .port = port_of(s, SERVER_PORT_PAGE, PORT_PAGE),
        .tempo_port = port_of(s, SERVER_PORT_TEMPO, PORT_TEMPO),
        .sampling_port = port_of(s, SERVER_PORT_SAMPLING, PORT_SAMPLING),
        .jaeger_grpc_port = port_of(s, SERVER_PORT_JAEGER_GRPC, PORT_JAEGER_GRPC),
        .sampling_strategies = value_text(s, SERVER_SAMPLING_STRATEGIES),
        .connections_max = (unsigned)value_count(s, SERVER_PAGE_CONNECTIONS_MAX),
        .query_threads = (unsigned)value_count(s, SERVER_QUERY_THREADS),
        .query_timeout_ms = (unsigned)(value_count(s, SERVER_QUERY_TIMEOUT) / NS_PER_MS),
        .live_clients_max = (unsigned)value_count(s, SERVER_LIVE_CLIENTS_MAX),
        .store = s->store,
        .records = s->records,
        .endpoints = endpoints,
        .n_endpoints = s->n_endpoints,
        .is_ready = is_ready,
        .ingest_stats = ingest_counters,
        .ledger = ledger_of,
        .arg = s,
    };
    int err = web_start(&options, &s->web, detail);
    if (!err) {
        ingest_zipkin_other(s->ingest, web_zipkin, s->web);
        endpoint_add(s, "page", "http", web_port(s->web));
        endpoint_add(s, "tempo", "http", web_tempo_port(s->web));
        if (web_sampling_port(s->web))
            endpoint_add(s, "sampling", "http", web_sampling_port(s->web));
        if (web_jaeger_grpc_port(s->web))
            endpoint_add(s, "jaeger_grpc", "http", web_jaeger_grpc_port(s->web));
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
        .tracing = server_value(&s->config, SERVER_TRACE_SELF)->boolean ? PUG_TRACING_ON
                                                                        : PUG_TRACING_ENVIRONMENT,
        .service_name = "pugmark",
        .service_version = PUGMARK_VERSION,
        .log = on_tracing_trouble,
    };
    char url[sizeof s->endpoints[0].url + 12];
    bool elsewhere = backend && *backend;
    if (options.tracing == PUG_TRACING_ON && !elsewhere && !receiver_is_on(s, RECEIVER_OTLP_HTTP)) {
        log_warn("the server cannot trace itself: the receiver otlp_http is off");
        return;
    }
    if (!elsewhere) {
        snprintf(url, sizeof url, "%s/v1/traces", endpoint_url(s, "otlp_http"));
        options.backend = PUG_BACKEND_OTLP;
        options.otlp_endpoint = url;
        options.otlp_headers = INGEST_OWN_HEADER "=1";
    }
    int err = pug_start(&options);
    if (err)
        log_warn("the server cannot trace itself: %s", pug_error_text(err));
}

static int data_open(struct serve *s)
{
    struct error_detail detail = {0};
    struct store_rule rules[SERVER_RULES_MAX];
    const struct setting *data = server_value(&s->config, SERVER_DATA);
    s->data = data->is_set ? strdup(data->text) : default_data_dir();
    if (!s->data) {
        fputs("pugmark serve: out of memory\n", stderr);
        return ERR_NOMEM;
    }
    struct store_options store = {
        .dir = s->data,
        .durability = strcmp(value_text(s, SERVER_DURABILITY), "write") ? STORE_DURABILITY_SYNC
                                                                        : STORE_DURABILITY_WRITE,
        .memtable_bytes_max = value_count(s, SERVER_MEMTABLE_BYTES),
        .memtable_age_ms_max = value_count(s, SERVER_MEMTABLE_AGE) / NS_PER_MS,
        .queue_bytes_max = value_count(s, SERVER_QUEUE_BYTES_MAX),
        .retention = retention_of(&s->config, rules),
    };
    int err = store_open(&store, &s->store, &detail);
    if (err) {
        /* Most messages begin with the path. */
        bool named = !strncmp(detail.message, s->data, strlen(s->data));
        fprintf(stderr, "pugmark serve: %s%s%s%s\n", named ? "" : s->data, named ? "" : ": ",
                detail.message[0] ? detail.message : err_text(err),
                err == ERR_BUSY ? "; another server may run, --data names another directory" : "");
    }
    return err;
}

/* In a directory of their own inside the store's. */
static int records_start(struct serve *s)
{
    struct error_detail detail = {0};
    struct store_rule rules[SERVER_RULES_MAX];
    struct store_retention retention = retention_of(&s->config, rules);
    char *dir = NULL;
    if (asprintf(&dir, "%s/" RECORDS_DIR, s->data) < 0)
        return ERR_NOMEM;
    struct records_options records = {
        .dir = dir,
        .durability = strcmp(value_text(s, SERVER_DURABILITY), "write") ? STORE_DURABILITY_SYNC
                                                                        : STORE_DURABILITY_WRITE,
        .retention_ns = retention.keep_ns,
        .disk_bytes_max = retention.disk_bytes_max / RECORDS_DISK_PART,
    };
    int err = records_open(&records, &s->records, &detail);
    if (err)
        fprintf(stderr, "pugmark serve: %s\n", detail.message[0] ? detail.message : err_text(err));
    free(dir);
    return err;
}

/* Logs and metrics are in the disk budget of the spans, and keep to a part of it by themselves. */
static void disk_share(struct serve *s)
{
    struct records_stats stats;
    records_stats(s->records, &stats);
    store_disk_other(s->store, stats.file_bytes + stats.log_bytes);
}

static int start(struct serve *s)
{
    struct error_detail detail = {0};
    int err = data_open(s);
    if (!err)
        err = records_start(s);
    if (!err)
        disk_share(s);
    if (!err && (err = redaction_apply(s, &s->config, &detail)))
        fprintf(stderr, "pugmark serve: %s\n", detail.message);
    if (err)
        return err;
    struct ingest_options ingest = {
        .address = value_text(s, SERVER_LISTEN),
        .store = s->store,
        .http_threads = (unsigned)value_count(s, SERVER_HTTP_THREADS),
        .body_bytes_max = value_count(s, SERVER_BODY_BYTES_MAX),
        .in_flight_bytes_max = value_count(s, SERVER_IN_FLIGHT_BYTES_MAX),
        .value_bytes_max = value_count(s, SERVER_VALUE_BYTES_MAX),
        .spans_max = value_count(s, SERVER_SPANS_MAX),
        .attrs_max = value_count(s, SERVER_ATTRS_MAX),
        .connections_max = (unsigned)value_count(s, SERVER_CONNECTIONS_MAX),
        .records = s->records,
        .redaction = s->redaction,
    };
    for (int i = 0; i < RECEIVER_N; i++) {
        ingest.is_off[i] = !receiver_is_on(s, (enum receiver)i);
        ingest.ports[i] = port_of(s, SERVER_PORT_FIRST + i,
                                  receiver_default_port((enum receiver)i));
    }
    err = ingest_start(&ingest, &s->ingest, &detail);
    if (!err) {
        for (int i = 0; i < RECEIVER_N; i++)
            if (ingest_port(s->ingest, (enum receiver)i))
                endpoint_add(s, receiver_name((enum receiver)i),
                             i < RECEIVER_UDP_FIRST ? "http" : "udp",
                             ingest_port(s->ingest, (enum receiver)i));
        err = web_listen(s, &detail);
    }
    const struct setting *follow_set = server_value(&s->config, SERVER_FOLLOW);
    bool by_options = s->options.n_follow > 0;
    if (!err && (by_options || follow_set->n_items)) {
        struct follow_options follow = {
            .store = s->store,
            .records = s->records,
            .redaction = s->redaction,
            .patterns = by_options ? s->options.follow : follow_set->items,
            .n_patterns = by_options ? s->options.n_follow : follow_set->n_items,
        };
        err = follow_start(&follow, &s->follow, &detail);
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
    follow_stop(s->follow); /* the page asked it for its counts */
    store_close(s->store);
    records_close(s->records);
    ingest_free(s->ingest);
    redaction_free(s->redaction);
}

static void say_where(const struct serve *s)
{
    fputs("pugmark serve:", stderr);
    for (size_t i = 0; i < s->n_endpoints; i++)
        fprintf(stderr, " %s %s", s->endpoints[i].name, s->endpoints[i].url);
    fprintf(stderr, " data %s\n", s->data);
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
            config_reload(s);
        } else if (signal_number < 0 && errno == EAGAIN) {
            housekeeping(s, &requests, &is_trimmed);
            disk_share(s);
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
    if (config_read(&s, &s.config))
        return CLI_COULD_NOT;
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
    free(s.data);
    server_config_done(&s.config);
    return err ? CLI_COULD_NOT : CLI_DONE;
}
