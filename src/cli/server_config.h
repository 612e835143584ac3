/* `[server]` of pugmark.toml: what `pugmark serve` is told by file, environment and command line.
 *
 * The table, the parser and the checks are those of `[telemetry]` (sdk/settings.h), with a table of its own;
 * rules of retention, which are tables themselves, are read here. `pugmark config` shows and checks it. */
#ifndef CLI_SERVER_CONFIG_H
#define CLI_SERVER_CONFIG_H

#include "base/toml.h"
#include "ingest/ingest.h"
#include "ingest/redaction.h"
#include "query/traceql.h"
#include "sdk/settings.h"

enum server_setting {
    SERVER_DATA,
    SERVER_LISTEN,
    SERVER_PORTS,
    SERVER_RECEIVERS,
    SERVER_DURABILITY,
    SERVER_RETENTION,
    SERVER_DISK_MAX,
    SERVER_MEMTABLE_BYTES,
    SERVER_MEMTABLE_AGE,
    SERVER_QUEUE_BYTES_MAX,
    SERVER_BODY_BYTES_MAX,
    SERVER_IN_FLIGHT_BYTES_MAX,
    SERVER_VALUE_BYTES_MAX,
    SERVER_SPANS_MAX,
    SERVER_ATTRS_MAX,
    SERVER_CONNECTIONS_MAX,
    SERVER_HTTP_THREADS,
    SERVER_QUERY_THREADS,
    SERVER_QUERY_TIMEOUT,
    SERVER_PAGE_CONNECTIONS_MAX,
    SERVER_LIVE_CLIENTS_MAX,
    SERVER_SAMPLING_STRATEGIES,
    SERVER_FOLLOW,
    SERVER_REDACT_KEYS,
    SERVER_REDACT_PATTERNS,
    SERVER_REDACT_ACTION,
    SERVER_REDACT_KEY_FILE,
    SERVER_TRACE_SELF,
    SERVER_PORT_FIRST, /* [server.port]: one for each receiver */
    SERVER_PORT_PAGE = SERVER_PORT_FIRST + RECEIVER_N,
    SERVER_PORT_TEMPO,
    SERVER_PORT_SAMPLING,
    SERVER_PORT_JAEGER_GRPC,
    SERVER_SETTINGS,
};

extern const struct setting_def server_setting_defs[SERVER_SETTINGS];
/* Whether a running server takes a new value of it (SIGHUP). */
bool server_setting_is_live(int id);

/* [[server.retention_rules]] */
struct server_rule {
    const char *match; /* TraceQL */
    uint64_t keep_ns;  /* 0: for ever */
    unsigned line;
    const struct predicate *where;
};

/* [[server.redaction_rules]] */
struct server_redaction_rule {
    struct redaction_rule rule;
    unsigned line;
};

enum {
    SERVER_RULES_MAX = STORE_RULES_MAX,
    SERVER_REDACTION_MAX = REDACT_RULES_MAX - 1, /* one is left for that of the settings */
};

struct server_config {
    struct arena arena;
    struct settings settings; /* of server_setting_defs */
    struct server_rule rules[SERVER_RULES_MAX];
    size_t n_rules;
    struct server_redaction_rule redaction[SERVER_REDACTION_MAX];
    size_t n_redaction;
};

/* Defaults alone. To be ended with server_config_done in any case. ERR_NOMEM. */
MUST_USE int server_config_init(struct server_config *c, settings_tell_fn *tell, void *user);
/* The file (`named`: as settings_file_find) and the environment. What is wrong is told and counted in
 * c->settings; ERR_NOMEM, or what the file could not be read for. */
MUST_USE int server_config_read(struct server_config *c, const char *named);
/* An error at this place of the file, which is told and counted. */
void server_config_wrong(struct server_config *c, const struct toml_place *at, const char *format,
                         ...) PRINTF_LIKE(3, 4);
/* One from the command line, `option` as it is called there. False: it is told why. */
bool server_config_put(struct server_config *c, enum server_setting id, const char *option,
                       const char *text);
void server_config_done(struct server_config *c);

static inline const struct setting *server_value(const struct server_config *c, int id)
{
    return &c->settings.values[id];
}
/* As `config show` has it, for comparing; in the arena. */
const char *server_value_text(struct server_config *c, int id);
/* Puts what `from` has in the place of what `c` has. */
void server_value_keep(struct server_config *c, const struct server_config *from, int id);
/* As TOML of a duration: "7d", "1h30m". */
#define DURATION_TEXT_SIZE 32
const char *duration_text(char out[DURATION_TEXT_SIZE], uint64_t ns);

#endif
