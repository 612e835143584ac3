/* The settings of a program: what there is, what each was set to, and by whom.
 *
 * One table is the truth: names, types, environment variables, defaults, words for people. That of
 * `[telemetry]` and `[telemetry.secrets]` is settings_table.c; the server has another of `[server]`.
 * `pugmark config` and a test of docs/configuration.md read both.
 *
 * Sources are put in from the weakest to the strongest: defaults, file, standard environment
 * (OTEL_*), ours (PUG_*), pug_options. A stronger one replaces what is there. A bad value is told
 * and leaves what is there in place; where that would be worse than not starting (`grave`), it is
 * an error. */
#ifndef SDK_SETTINGS_H
#define SDK_SETTINGS_H

#include "base/arena.h"

enum setting_id {
    SET_ENABLED,
    SET_BACKEND,
    SET_TRACE_DIR,
    SET_INCLUDE_ARGS,
    SET_SERVICE_NAME,
    SET_SERVICE_VERSION,
    SET_OTLP_ENDPOINT,
    SET_OTLP_PROTOCOL,
    SET_OTLP_COMPRESSION,
    SET_OTLP_TIMEOUT_MS,
    SET_OTLP_CERTIFICATE,
    SET_OTLP_CLIENT_CERTIFICATE,
    SET_OTLP_CLIENT_KEY,
    SET_OTLP_METRICS_ENDPOINT,
    SET_OTLP_HEADERS_VAULT_KEY,
    SET_OTLP_HEADERS_OPTIONAL,
    SET_ZIPKIN_ENDPOINT,
    SET_PYROSCOPE_ENDPOINT,
    SET_SAMPLER,
    SET_SAMPLE_RATE,
    SET_SAMPLE_PER_SECOND,
    SET_SAMPLING_RULES,
    SET_PROPAGATORS,
    SET_SYSTEM_METRICS_INTERVAL_SECS,
    SET_METRICS,
    SET_METRICS_INTERVAL_SECS,
    SET_THREAD_CONTEXT,
    SET_PROCESS_CONTEXT,
    SET_ALLOC_TRACKING,
    SET_REDACT_KEYS,
    SET_REDACT_PATTERNS,
    SET_RING_KIB,
    SET_QUEUE_BYTES_MAX,
    SET_DRAIN_INTERVAL_US,
    SET_FLUSH_INTERVAL_MS,
    SET_STOP_TIMEOUT_MS,
    SET_SECRETS_PROVIDER,
    SET_SECRETS_DIRECTORY,
    SET_SECRETS_COMMAND,
    SET_SECRETS_TIMEOUT_MS,
    SET_VAULT_ADDRESS,
    SET_VAULT_PATH,
    SET_VAULT_TOKEN_FILE,
    SET_VAULT_NAMESPACE,
    SET_VAULT_CERTIFICATE,
    SETTINGS,
};

enum setting_type {
    SETTING_BOOL,
    SETTING_CHOICE,
    SETTING_COUNT, /* whole, from `min` to `max` */
    SETTING_NUMBER,
    SETTING_TEXT,
    SETTING_URL,      /* http:// or https:// */
    SETTING_LIST,     /* of strings; separated by commas in the environment */
    SETTING_DURATION, /* "7d", "1h30m"; in nanoseconds from `min` to `max` */
    SETTING_BYTES,    /* a whole number, or "64M" */
};

enum {
    SETTING_TEXT_MAX = 4096,
    SETTING_ITEMS_MAX = 128,
    SETTING_ENVIRONMENT_MAX = 3,
    SETTING_CHOICES_MAX = 15,
};

struct setting_def {
    const char *section, *name;
    enum setting_type type;
    bool grave; /* a bad value is an error of pug_start() */
    const char *environment[SETTING_ENVIRONMENT_MAX + 1]; /* strongest first, ends with NULL */
    const char *otherwise;                                /* the default, as text; NULL: unset */
    const char *choices[SETTING_CHOICES_MAX + 1]; /* of a CHOICE or a LIST; ends with NULL */
    double min, max;
    const char *doc; /* a line */
};

extern const struct setting_def setting_defs[SETTINGS];

enum setting_origin {
    ORIGIN_DEFAULT,
    ORIGIN_FILE,
    ORIGIN_STANDARD,    /* OTEL_* and others' variables */
    ORIGIN_ENVIRONMENT, /* PUG_* */
    ORIGIN_OPTIONS,     /* pug_options */
};

struct setting {
    enum setting_origin origin;
    const char *variable; /* of the environment */
    unsigned line;        /* of the file */
    bool is_set;          /* false: no default either */
    /* by type */
    bool boolean;
    uint64_t count;
    double number;
    const char *text; /* of a CHOICE, TEXT, URL */
    const char *const *items;
    size_t n_items;
};

enum setting_trouble {
    TROUBLE_WARNING,
    TROUBLE_ERROR, /* the value is not used */
    TROUBLE_GRAVE, /* pug_start() fails */
};
/* `message` is a whole sentence with its place in front: "pugmark.toml:3: ...", "PUG_BACKEND: ...". */
typedef void settings_tell_fn(void *user, enum setting_trouble trouble, const char *message);

struct toml_entry;
struct settings;
/* Takes an entry of a section that is no value of the table; false: it does not know it either. */
typedef bool settings_entry_fn(struct settings *s, const char *section, const struct toml_entry *e);

struct settings {
    const struct setting_def *defs;
    int n_defs;
    struct setting *values;   /* as many */
    settings_entry_fn *entry; /* NULL: none */
    struct arena *arena;      /* owns all text */
    settings_tell_fn *tell;
    void *user;
    const char *file;            /* that was read; NULL: none */
    struct error_detail problem; /* the first grave one; code 0: none */
    unsigned n_errors, n_warnings;
};

/* Where a value comes from. */
struct setting_source {
    enum setting_origin origin;
    const char *variable;
    unsigned line, column;
};

/* Sets the defaults. `tell` may be NULL. ERR_NOMEM. */
MUST_USE int settings_init(struct settings *s, struct arena *arena, settings_tell_fn *tell,
                           void *user);
/* The same of another table; `id` is a place in it then. */
MUST_USE int settings_init_table(struct settings *s, const struct setting_def *defs, int n_defs,
                                 struct arena *arena, settings_tell_fn *tell, void *user);
/* Reads the variables of the environment: none at all in a program that runs with more rights than
 * its caller (setuid). */
void settings_environment(struct settings *s);
/* A variable of the environment that is set and not empty (as OpenTelemetry has it), else NULL. */
const char *settings_variable(const char *name);

/* What `text` says, in the words of the type. False when it is refused, which was told. */
bool settings_put(struct settings *s, int id, const struct setting_source *source, struct str text);
bool settings_put_list(struct settings *s, int id, const struct setting_source *source,
                       const struct str *items, size_t n);

/* Tells a problem, with the place of `source` in front. A grave one is kept in s->problem. */
void settings_problem(struct settings *s, const struct setting_source *source, int code, bool grave,
                      const char *format, ...) PRINTF_LIKE(5, 6);
void settings_warn(struct settings *s, const struct setting_source *source, const char *format, ...)
    PRINTF_LIKE(3, 4);
/* "true or false", "a number from 0 to 1", ... */
void setting_expected(const struct setting_def *def, char *out, size_t size);
/* A URL as it may be shown: without user, password and query. Others as they are. */
const char *setting_shown(struct arena *arena, const struct setting_def *def, const char *text);
/* The source of a value that was set. */
struct setting_source setting_source_of(const struct setting *value);

#endif
