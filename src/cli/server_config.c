/* docs/configuration.md shows this table too; tests/e2e/config.test.mjs compares the two. */
#include "cli/server_config.h"

#include "base/clock.h"
#include "cli/server_redaction.h"
#include "sdk/settings_file.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#define MAIN .section = "server"
#define MANY ((double)(UINT64_C(1) << 50))
#define ENV(name) .environment = {"PUG_SERVER_" name}
#define PORT(key, what)                                                                            \
    {                                                                                              \
        .section = "server.port", .name = key, .type = SETTING_COUNT, .max = 65535,                \
        .doc = "port of " what "; 0: a free one"                                                   \
    }

const struct setting_def server_setting_defs[SERVER_SETTINGS] = {
    [SERVER_DATA] = {MAIN, .name = "data", .type = SETTING_TEXT, ENV("DATA"),
                     .doc = "directory of the spans; unset: $XDG_STATE_HOME/pugmark, else "
                            "~/.local/state/pugmark, else ./pugmark-data"},
    [SERVER_LISTEN] = {MAIN, .name = "listen", .type = SETTING_TEXT, ENV("LISTEN"),
                       .otherwise = "127.0.0.1",
                       .doc = "numeric address; there is no authentication: another one opens the "
                              "server to all who can reach it"},
    [SERVER_PORTS] = {MAIN, .name = "ports", .type = SETTING_CHOICE, ENV("PORTS"),
                      .otherwise = "default", .choices = {"default", "auto"},
                      .doc = "default: those of the protocols; auto: free ones; a table "
                             "[server.port] says some of them"},
    [SERVER_RECEIVERS] = {MAIN, .name = "receivers", .type = SETTING_LIST, ENV("RECEIVERS"),
#define X(id, text, port) text ","
                          .otherwise = RECEIVER_MAP(X),
#undef X
#define X(id, text, port) text,
                          .choices = {RECEIVER_MAP(X)},
#undef X
                          .doc = "what spans are taken by; the others do not listen"},
    [SERVER_DURABILITY] = {MAIN, .name = "durability", .type = SETTING_CHOICE, ENV("DURABILITY"),
                           .otherwise = "sync", .choices = {"sync", "write"},
                           .doc = "an answer means that spans survive a power cut (sync), or the "
                                  "end of the process (write)"},
    [SERVER_RETENTION] = {MAIN, .name = "retention", .type = SETTING_DURATION, ENV("RETENTION"),
                          .min = 1, .max = (double)INT64_MAX,
                          .doc = "spans that started longer ago are dropped; unset: never; "
                                 "[[server.retention_rules]] stand over it"},
    [SERVER_DISK_MAX] = {MAIN, .name = "disk_max", .type = SETTING_BYTES, ENV("DISK_MAX"), .min = 1,
                         .max = (double)INT64_MAX,
                         .doc = "the oldest segments are dropped while segments and log take more; "
                                "unset: no limit"},
    [SERVER_MEMTABLE_BYTES] = {MAIN, .name = "memtable_bytes", .type = SETTING_BYTES,
                               ENV("MEMTABLE_BYTES"), .otherwise = "64M", .min = 1, .max = 1 << 30,
                               .doc = "spans are sealed into a segment beyond so much memory"},
    [SERVER_MEMTABLE_AGE] = {MAIN, .name = "memtable_age", .type = SETTING_DURATION,
                             ENV("MEMTABLE_AGE"), .otherwise = "15m", .min = 1e6, .max = 1e15,
                             .doc = "or when the oldest of them waited so long"},
    [SERVER_QUEUE_BYTES_MAX] = {MAIN, .name = "queue_bytes_max", .type = SETTING_BYTES,
                                ENV("QUEUE_BYTES_MAX"), .otherwise = "64M", .min = 1024,
                                .max = MANY,
                                .doc = "bodies that wait for the log; what is over is asked to "
                                       "come again"},
    [SERVER_BODY_BYTES_MAX] = {MAIN, .name = "body_bytes_max", .type = SETTING_BYTES,
                               ENV("BODY_BYTES_MAX"), .otherwise = "64M", .min = 1024, .max = 2e9,
                               .doc = "of one request, as sent and inflated"},
    [SERVER_IN_FLIGHT_BYTES_MAX] = {MAIN, .name = "in_flight_bytes_max", .type = SETTING_BYTES,
                                    ENV("IN_FLIGHT_BYTES_MAX"), .otherwise = "256M", .min = 1 << 20,
                                    .max = MANY,
                                    .doc = "of all requests under way, with what was decoded"},
    [SERVER_VALUE_BYTES_MAX] = {MAIN, .name = "value_bytes_max", .type = SETTING_BYTES,
                                ENV("VALUE_BYTES_MAX"), .otherwise = "1M", .min = 16, .max = 2e9,
                                .doc = "a longer text is cut, and its span says so"},
    [SERVER_SPANS_MAX] = {MAIN, .name = "spans_max", .type = SETTING_COUNT, ENV("SPANS_MAX"),
                          .otherwise = "131072", .min = 1, .max = 1 << 30, .doc = "of one request"},
    [SERVER_ATTRS_MAX] = {MAIN, .name = "attrs_max", .type = SETTING_COUNT, ENV("ATTRS_MAX"),
                          .otherwise = "1024", .min = 1, .max = 1 << 20,
                          .doc = "of a span, event, link, resource or scope; the rest is left out "
                                 "and counted as dropped"},
    [SERVER_CONNECTIONS_MAX] = {MAIN, .name = "connections_max", .type = SETTING_COUNT,
                                ENV("CONNECTIONS_MAX"), .otherwise = "6000", .min = 1,
                                .max = 100000, .doc = "of each receiver's port; newcomers wait"},
    [SERVER_HTTP_THREADS] = {MAIN, .name = "http_threads", .type = SETTING_COUNT,
                             ENV("HTTP_THREADS"), .min = 1, .max = 16,
                             .doc = "of each HTTP receiver; unset: as many as there are "
                                    "processors, four at most"},
    [SERVER_QUERY_THREADS] = {MAIN, .name = "query_threads", .type = SETTING_COUNT,
                              ENV("QUERY_THREADS"), .otherwise = "2", .min = 1, .max = 64,
                              .doc = "that look into the store for the page and the APIs"},
    [SERVER_QUERY_TIMEOUT] = {MAIN, .name = "query_timeout", .type = SETTING_DURATION,
                              ENV("QUERY_TIMEOUT"), .otherwise = "30s", .min = 1e6, .max = 3.6e12,
                              .doc = "a search that takes longer ends with an error"},
    [SERVER_PAGE_CONNECTIONS_MAX] = {MAIN, .name = "page_connections_max", .type = SETTING_COUNT,
                                     ENV("PAGE_CONNECTIONS_MAX"), .otherwise = "1000", .min = 1,
                                     .max = 10000, .doc = "of the page's port; newcomers wait"},
    [SERVER_LIVE_CLIENTS_MAX] = {MAIN, .name = "live_clients_max", .type = SETTING_COUNT,
                                 ENV("LIVE_CLIENTS_MAX"), .otherwise = "32", .min = 1, .max = 1000,
                                 .doc = "who follow live spans; more are refused"},
    [SERVER_SAMPLING_STRATEGIES] = {MAIN, .name = "sampling_strategies", .type = SETTING_TEXT,
                                    ENV("SAMPLING_STRATEGIES"),
                                    .doc = "file that says how much Jaeger's clients keep, read "
                                           "again when it changes; unset: everything"},
    [SERVER_FOLLOW] = {MAIN, .name = "follow", .type = SETTING_LIST, ENV("FOLLOW"),
                       .doc = "files, or patterns of them, whose lines of JSON with _trace become "
                              "spans as they are written"},
    [SERVER_REDACT_KEYS] = {MAIN, .name = "redact_keys", .type = SETTING_LIST, ENV("REDACT_KEYS"),
                            .doc = "attributes whose values do not reach the disk, as globs; "
                                   "\"default\" stands for a built-in list; "
                                   "[[server.redaction_rules]] stand over it"},
    [SERVER_REDACT_PATTERNS] = {MAIN, .name = "redact_patterns", .type = SETTING_LIST,
                                ENV("REDACT_PATTERNS"),
                                .doc = "what is kept out of all text: email, credit_card, "
                                       "bearer_token, jwt, aws_key, ipv4, private_key, or an "
                                       "expression"},
    [SERVER_REDACT_ACTION] = {MAIN, .name = "redact_action", .type = SETTING_CHOICE,
                              ENV("REDACT_ACTION"), .otherwise = "mask",
                              .choices = {"mask", "hash", "drop"},
                              .doc = "what the two do: [redacted] in its place, a keyed hash in "
                                     "its place, or the attribute goes"},
    [SERVER_REDACT_KEY_FILE] = {MAIN, .name = "redact_key_file", .type = SETTING_TEXT,
                                ENV("REDACT_KEY_FILE"),
                                .doc = "key of those hashes; unset: redaction.key in the directory "
                                       "of the spans, made when it is needed first"},
    [SERVER_TRACE_SELF] = {MAIN, .name = "trace_self", .type = SETTING_BOOL, ENV("TRACE_SELF"),
                           .otherwise = "false",
                           .doc = "the server's own work appears as service \"pugmark\""},
#define X(id, text, port) [SERVER_PORT_FIRST + id] = PORT(text, "the receiver " text),
    RECEIVER_MAP(X)
#undef X
        [SERVER_PORT_PAGE] = PORT("page", "the page and the APIs"),
    [SERVER_PORT_TEMPO] = PORT("tempo", "Tempo's API"),
    [SERVER_PORT_SAMPLING] = PORT("sampling", "the strategies of sampling"),
    [SERVER_PORT_JAEGER_GRPC] = PORT("jaeger_grpc", "Jaeger's gRPC queries"),
};

bool server_setting_is_live(int id)
{
    return id == SERVER_RETENTION || id == SERVER_DISK_MAX ||
           (id >= SERVER_REDACT_KEYS && id <= SERVER_REDACT_KEY_FILE);
}

/* ---- rules of retention ---- */

PRINTF_LIKE(3, 4)
static void wrong(struct settings *s, const struct toml_place *at, const char *format, ...)
{
    struct setting_source source = {.origin = ORIGIN_FILE, .line = at->line, .column = at->column};
    char text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    settings_problem(s, &source, ERR_INVALID, true, "%s", text);
}

void server_config_wrong(struct server_config *c, const struct toml_place *at, const char *format,
                         ...)
{
    char text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    wrong(&c->settings, at, "%s", text);
}

/* The condition must be one that says of each span alone whether it goes. */
static bool rule_compile(struct server_config *c, const struct toml_value *v,
                         struct server_rule *rule)
{
    struct settings *s = &c->settings;
    struct traceql *query;
    struct error_detail detail = {0};
    bool exact = false;
    rule->match = arena_str(&c->arena, v->text).ptr;
    if (traceql_parse(v->text, &query, &detail)) {
        wrong(s, &v->at, "match: at %zu: %s", detail.position, detail.message);
        return false;
    }
    if (query->metric)
        wrong(s, &v->at,
              "match: this asks for numbers, expected a filter such as "
              "{ resource.service.name = \"shop\" }");
    else if (!(rule->where = traceql_predicate(query->stages, &c->arena, &exact)))
        wrong(s, &v->at, "out of memory");
    else if (!exact)
        wrong(s, &v->at,
              "match: this needs whole traces, expected a filter of single spans such as "
              "{ resource.service.name = \"shop\" && status = error }");
    if (rule->where && exact) /* its strings are the query's */
        rule->where = predicate_copy(rule->where, &c->arena);
    traceql_free(query);
    return exact && rule->where && rule->match;
}

static bool rule_keep(struct settings *s, const struct toml_value *v, struct server_rule *rule)
{
    if (str_eq(v->text, STR("forever"))) {
        rule->keep_ns = 0;
        return true;
    }
    if (str_to_age_ns(v->text, &rule->keep_ns) && rule->keep_ns)
        return true;
    wrong(s, &v->at,
          "keep = \"%.*s\": expected a duration such as \"12h\" or \"30d\", or "
          "\"forever\"",
          v->text.len < 40 ? (int)v->text.len : 40, v->text.ptr);
    return false;
}

static void rule_take(struct server_config *c, const struct toml_value *table)
{
    struct settings *s = &c->settings;
    struct server_rule rule = {.line = table->at.line};
    bool ok = true;
    for (const struct toml_entry *e = table->table->first; e; e = e->next) {
        bool is_match = str_eq(e->key, STR("match")), is_keep = str_eq(e->key, STR("keep"));
        if (!is_match && !is_keep)
            wrong(s, &e->at,
                  "\"%.*s\" is not known in [[server.retention_rules]]: expected match, keep",
                  e->key.len < 40 ? (int)e->key.len : 40, e->key.ptr);
        else if (e->value.type != TOML_STRING)
            wrong(s, &e->value.at, "%s: expected a string, not %s", is_match ? "match" : "keep",
                  toml_type_name(e->value.type));
        else if (is_match ? rule_compile(c, &e->value, &rule) : rule_keep(s, &e->value, &rule))
            continue;
        ok = false;
    }
    if (ok && (!rule.match || !toml_find(table->table, STR("keep"))))
        wrong(s, &table->at,
              "[[server.retention_rules]]: expected match = \"{ ... }\" and keep = \"30d\"");
    else if (ok && c->n_rules == SERVER_RULES_MAX)
        wrong(s, &table->at, "more than %d rules", SERVER_RULES_MAX);
    else if (ok)
        c->rules[c->n_rules++] = rule;
}

static bool entry_take(struct settings *s, const char *section, const struct toml_entry *e)
{
    struct server_config *c = (void *)((char *)s - offsetof(struct server_config, settings));
    bool is_redaction = str_eq(e->key, STR("redaction_rules"));
    if (strcmp(section, "server") != 0 ||
        (!is_redaction && !str_eq(e->key, STR("retention_rules"))) || e->value.type != TOML_ARRAY ||
        !e->value.array.n)
        return false;
    for (size_t i = 0; i < e->value.array.n; i++) {
        const struct toml_value *v = &e->value.array.items[i];
        if (v->type != TOML_TABLE)
            wrong(s, &v->at, "%.*s: expected tables [[server.%.*s]], not %s", STR_ARG(e->key),
                  STR_ARG(e->key), toml_type_name(v->type));
        else if (is_redaction)
            server_redaction_take(c, v);
        else
            rule_take(c, v);
    }
    return true;
}

/* ---- reading ---- */

int server_config_init(struct server_config *c, settings_tell_fn *tell, void *user)
{
    *c = (struct server_config){.arena = ARENA_INIT};
    int err = settings_init_table(&c->settings, server_setting_defs, SERVER_SETTINGS, &c->arena,
                                  tell, user);
    c->settings.entry = entry_take;
    return err;
}

int server_config_read(struct server_config *c, const char *named)
{
    struct settings *s = &c->settings;
    struct str text;
    struct toml_table *root;
    const char *path = settings_file_find(s, named);
    int err = path ? settings_file_read(s, path, &text) : 0;
    if (!err && path)
        err = settings_file_parse(s, text, &root);
    if (!err && path) {
        const struct toml_entry *server = toml_find(root, STR("server"));
        if (server && server->value.type == TOML_TABLE)
            settings_file_section(s, "server", server->value.table);
        else if (server) /* to be passed over as if nothing had been said would be worse */
            wrong(s, &server->value.at, "server: expected a table [server], not %s",
                  toml_type_name(server->value.type));
    }
    if (!err) {
        settings_environment(s);
        server_redaction_check(c);
    }
    return err;
}

bool server_config_put(struct server_config *c, enum server_setting id, const char *option,
                       const char *text)
{
    const struct setting_source source = {.origin = ORIGIN_OPTIONS, .variable = option};
    return settings_put(&c->settings, id, &source, str_from(text));
}

void server_config_done(struct server_config *c)
{
    arena_done(&c->arena);
}

const char *duration_text(char out[DURATION_TEXT_SIZE], uint64_t ns)
{
    static const struct {
        uint64_t ns;
        const char *name;
    } units[] = {{3600 * NS_PER_S, "h"}, {60 * NS_PER_S, "m"}, {NS_PER_S, "s"},
                 {NS_PER_MS, "ms"},      {NS_PER_US, "us"},    {1, "ns"}};
    size_t n = 0;
    if (ns && ns % NS_PER_DAY == 0) {
        snprintf(out, DURATION_TEXT_SIZE, "%llud", (unsigned long long)(ns / NS_PER_DAY));
        return out;
    }
    snprintf(out, DURATION_TEXT_SIZE, "0s");
    for (size_t i = 0; i < sizeof units / sizeof *units && n < DURATION_TEXT_SIZE; i++) {
        if (ns >= units[i].ns)
            n += (size_t)snprintf(out + n, DURATION_TEXT_SIZE - n, "%llu%s",
                                  (unsigned long long)(ns / units[i].ns), units[i].name);
        ns %= units[i].ns;
    }
    return out;
}

const char *server_value_text(struct server_config *c, int id)
{
    const struct setting *v = server_value(c, id);
    char duration[DURATION_TEXT_SIZE];
    const char *text = "";
    if (!v->is_set)
        return "unset";
    switch (server_setting_defs[id].type) {
    case SETTING_BOOL:
        return v->boolean ? "true" : "false";
    case SETTING_COUNT:
    case SETTING_BYTES:
        text = arena_printf(&c->arena, "%llu", (unsigned long long)v->count);
        break;
    case SETTING_DURATION:
        text = arena_printf(&c->arena, "%s", duration_text(duration, v->count));
        break;
    case SETTING_LIST:
        for (size_t i = 0; i < v->n_items && text; i++)
            text = arena_printf(&c->arena, "%s%s%s", text, i ? "," : "", v->items[i]);
        break;
    default:
        text = v->text;
        break;
    }
    return text ? text : "?";
}

void server_value_keep(struct server_config *c, const struct server_config *from, int id)
{
    const struct setting *v = server_value(from, id);
    struct setting copy = *v;
    bool ok = true;
    if (v->text)
        ok = (copy.text = arena_str(&c->arena, str_from(v->text)).ptr) != NULL;
    if (v->n_items) {
        const char **items = arena_array(&c->arena, v->n_items, sizeof *items);
        for (size_t i = 0; items && i < v->n_items; i++)
            ok &= (items[i] = arena_str(&c->arena, str_from(v->items[i])).ptr) != NULL;
        ok &= items != NULL;
        copy.items = items;
    }
    if (ok)
        c->settings.values[id] = copy;
}
