#include "sdk/settings_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <unistd.h>

#define SYSTEM_FILE "/etc/pugmark/pugmark.toml"

/* ---- which one ---- */

static bool is_there(const char *path)
{
    struct stat st;
    return path && stat(path, &st) == 0;
}

static bool may_be_believed(struct settings *s, const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return false;
    if ((st.st_uid == geteuid() || st.st_uid == 0) && !(st.st_mode & S_IWOTH))
        return true;
    settings_warn(s, NULL,
                  "%s of the working directory is passed over: it belongs to another user, or "
                  "everybody may write it (PUG_CONFIG=%s takes it nevertheless)",
                  path, path);
    return false;
}

const char *settings_file_find(struct settings *s, const char *named)
{
    if (named)
        return named[0] ? named : NULL;
    if (!getauxval(AT_SECURE)) {
        const char *variable = settings_variable("PUG_CONFIG");
        const char *config = settings_variable("XDG_CONFIG_HOME"),
                   *home = settings_variable("HOME");
        if (variable)
            return variable;
        if (is_there("pugmark.toml") && may_be_believed(s, "pugmark.toml"))
            return "pugmark.toml";
        const char *path = config ? arena_printf(s->arena, "%s/pugmark/pugmark.toml", config)
                           : home ? arena_printf(s->arena, "%s/.config/pugmark/pugmark.toml", home)
                                  : NULL;
        if (is_there(path))
            return path;
    }
    return is_there(SYSTEM_FILE) ? SYSTEM_FILE : NULL;
}

/* ---- reading ---- */

static int read_all(struct settings *s, int fd, struct str *ret)
{
    /* One byte more shows that it is too large, also when it grows meanwhile. */
    size_t n = 0, room = 4096;
    char *text = NULL;
    for (;;) {
        if (!text || n == room) {
            size_t more = text ? 4 * room : room;
            char *larger = n <= TOML_BYTES_MAX ? arena_alloc(s->arena, more) : NULL;
            if (n > TOML_BYTES_MAX)
                return ERR_TOO_LARGE;
            if (!larger)
                return ERR_NOMEM;
            if (n)
                memcpy(larger, text, n);
            text = larger;
            room = more;
        }
        ssize_t got = read(fd, text + n, room - n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_from_errno(errno);
        if (got == 0)
            break;
        n += (size_t)got;
    }
    *ret = (struct str){text, n};
    return n > TOML_BYTES_MAX ? ERR_TOO_LARGE : 0;
}

int settings_file_read(struct settings *s, const char *path, struct str *ret_text)
{
    struct setting_source source = {.origin = ORIGIN_FILE};
    struct stat st;
    int err = 0;
    s->file = arena_str(s->arena, str_from(path)).ptr;
    /* A FIFO must not make us wait for its writer. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 || fstat(fd, &st) != 0) {
        err = err_from_errno(errno);
        settings_problem(s, &source, err, true, "cannot be opened: %s", strerror(errno));
    } else if (!S_ISREG(st.st_mode)) {
        err = ERR_INVALID;
        settings_problem(s, &source, err, true, "is not a regular file");
    } else if ((err = read_all(s, fd, ret_text)) == ERR_TOO_LARGE) {
        settings_problem(s, &source, err = ERR_INVALID, true,
                         "is larger than a configuration can be (1 MiB)");
    } else if (err) {
        settings_problem(s, &source, err, true, "cannot be read: %s", err_text(err));
    }
    if (fd >= 0)
        close(fd);
    return err;
}

int settings_file_parse(struct settings *s, struct str text, struct toml_table **ret)
{
    struct error_detail detail = {0};
    struct toml_place place = {0};
    int err = toml_parse(text, s->arena, ret, &detail, &place);
    if (err) {
        struct setting_source source = {
            .origin = ORIGIN_FILE, .line = place.line, .column = place.column};
        err = err == ERR_NOMEM ? ERR_NOMEM : ERR_INVALID;
        settings_problem(s, &source, err, true, "%s", detail.message);
    }
    return err;
}

/* ---- the old sections ---- */

static const struct settings_old old_keys[] = {
    {"observability", "enabled", SET_ENABLED},
    {"observability", "tracing", SET_ENABLED},
    {"observability", "exporter", SET_BACKEND},
    {"observability", "backend", SET_BACKEND},
    {"observability", "endpoint", SET_OTLP_ENDPOINT},
    {"observability", "otlp_endpoint", SET_OTLP_ENDPOINT},
    {"observability", "protocol", SET_OTLP_PROTOCOL},
    {"observability", "headers_vault_key", SET_OTLP_HEADERS_VAULT_KEY},
    {"observability", "otlp_headers_vault_key", SET_OTLP_HEADERS_VAULT_KEY},
    {"observability", "service_name", SET_SERVICE_NAME},
    {"observability", "service_version", SET_SERVICE_VERSION},
    {"observability", "sample_rate", SET_SAMPLE_RATE},
    {"observability", "sampling_rate", SET_SAMPLE_RATE},
    {"observability", "pyroscope_endpoint", SET_PYROSCOPE_ENDPOINT},
    {"debug.traces", "enabled", SET_ENABLED},
    {"debug.traces", "dir", SET_TRACE_DIR},
    {"debug.traces", "directory", SET_TRACE_DIR},
    {"debug.traces", "path", SET_TRACE_DIR},
    {"debug.traces", "output_dir", SET_TRACE_DIR},
    {"debug.traces", "trace_dir", SET_TRACE_DIR},
    {"debug.traces", "include_args", SET_INCLUDE_ARGS},
    {"debug.traces", "exporter", SET_BACKEND},
    {"debug.traces", "service_name", SET_SERVICE_NAME},
    {"debug.traces", "sample_rate", SET_SAMPLE_RATE},
};

const struct settings_old *settings_old_find(const char *section, struct str name)
{
    for (size_t i = 0; i < sizeof old_keys / sizeof old_keys[0]; i++)
        if (strcmp(old_keys[i].section, section) == 0 && str_eq(str_from(old_keys[i].name), name))
            return &old_keys[i];
    return NULL;
}

struct str settings_old_word(enum setting_id id, struct str word)
{
    static const char *const words[][2] = {
        {"chrome", "local"}, {"file", "local"}, {"console", "stdout"}, {"none", "discard"}};
    for (size_t i = 0; id == SET_BACKEND && i < sizeof words / sizeof words[0]; i++)
        if (str_eq(word, str_from(words[i][0])))
            return str_from(words[i][1]);
    return word;
}

/* ---- did you mean ---- */

enum { WORD_MAX = 40 };

/* Of Damerau and Levenshtein: insertions, deletions, changes, neighbours swapped. */
static unsigned distance(struct str a, struct str b)
{
    unsigned rows[3][WORD_MAX + 1];
    if (a.len > WORD_MAX || b.len > WORD_MAX)
        return WORD_MAX;
    unsigned *before = rows[0], *above = rows[1], *row = rows[2];
    for (unsigned j = 0; j <= b.len; j++)
        above[j] = j;
    for (unsigned i = 1; i <= a.len; i++) {
        row[0] = i;
        for (unsigned j = 1; j <= b.len; j++) {
            unsigned best = above[j - 1] + (a.ptr[i - 1] != b.ptr[j - 1]);
            if (above[j] + 1 < best)
                best = above[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            if (i > 1 && j > 1 && a.ptr[i - 1] == b.ptr[j - 2] && a.ptr[i - 2] == b.ptr[j - 1] &&
                before[j - 2] + 1 < best)
                best = before[j - 2] + 1;
            row[j] = best;
        }
        unsigned *oldest = before;
        before = above;
        above = row;
        row = oldest;
    }
    return above[b.len];
}

static void consider(struct str word, const char *candidate, unsigned *best, const char **ret)
{
    unsigned d = distance(word, str_from(candidate));
    if (d < *best) {
        *best = d;
        *ret = candidate;
    }
}

static const char *meant_key(const struct settings *s, const char *section, struct str name)
{
    const char *meant = NULL;
    unsigned best = name.len < 6 ? 2 : 4;
    for (int id = 0; id < s->n_defs; id++)
        if (strcmp(s->defs[id].section, section) == 0)
            consider(name, s->defs[id].name, &best, &meant);
    return meant;
}

static void unknown(struct settings *s, const struct toml_place *at, const char *section,
                    struct str name, const char *meant)
{
    struct setting_source source = {.origin = ORIGIN_FILE, .line = at->line, .column = at->column};
    if (name.len > 60)
        name.len = 60;
    settings_problem(s, &source, ERR_INVALID, false, "\"%.*s\" is not known %s%s%s%s%s%s",
                     STR_ARG(name), section ? "in [" : "here", section ? section : "",
                     section ? "]" : "", meant ? "; did you mean \"" : "", meant ? meant : "",
                     meant ? "\"?" : "");
}

/* ---- values ---- */

static bool type_fits(const struct setting_def *def, const struct toml_value *v)
{
    switch (def->type) {
    case SETTING_BOOL:
        return v->type == TOML_BOOL;
    case SETTING_COUNT:
        return v->type == TOML_INTEGER;
    case SETTING_NUMBER:
        return v->type == TOML_INTEGER || v->type == TOML_FLOAT;
    case SETTING_BYTES:
        return v->type == TOML_INTEGER || v->type == TOML_STRING;
    case SETTING_LIST:
        if (v->type != TOML_ARRAY)
            return false;
        for (size_t i = 0; i < v->array.n; i++)
            if (v->array.items[i].type != TOML_STRING)
                return false;
        return true;
    default:
        return v->type == TOML_STRING;
    }
}

static struct str number_text(struct settings *s, const struct toml_value *v)
{
    char text[64];
    if (v->type == TOML_INTEGER)
        snprintf(text, sizeof text, "%lld", (long long)v->integer);
    else
        snprintf(text, sizeof text, "%.17g", v->real);
    /* A program may have set a locale with a decimal comma. */
    for (char *c = text; *c; c++)
        if (*c == ',')
            *c = '.';
    return arena_str(s->arena, str_from(text));
}

static void put(struct settings *s, int id, const struct toml_entry *e)
{
    const struct setting_def *def = &s->defs[id];
    const struct toml_value *v = &e->value;
    struct setting_source source = {
        .origin = ORIGIN_FILE, .line = v->at.line, .column = v->at.column};
    if (!type_fits(def, v)) {
        char expected[200];
        setting_expected(def, expected, sizeof expected);
        settings_problem(s, &source, ERR_INVALID, def->grave, "%.*s: expected %s, not %s%s",
                         STR_ARG(e->key), expected, toml_type_name(v->type),
                         v->type == TOML_ARRAY && def->type == SETTING_LIST ? " of other things"
                                                                            : "");
        return;
    }
    if (v->type == TOML_ARRAY) {
        struct str items[SETTING_ITEMS_MAX + 1];
        size_t n = v->array.n < SETTING_ITEMS_MAX ? v->array.n : SETTING_ITEMS_MAX + 1;
        for (size_t i = 0; i < n; i++)
            items[i] = v->array.items[i].text;
        settings_put_list(s, id, &source, items, n);
    } else {
        settings_put(s, id, &source,
                     v->type == TOML_BOOL     ? v->boolean ? STR("true") : STR("false")
                         : v->type == TOML_STRING ? v->text
                                              : number_text(s, v));
    }
}

/* ---- sections ---- */

/* Keys that would hold a secret: it must not stand in a file that people copy and commit. */
static bool is_secret(struct settings *s, const struct toml_entry *e)
{
    static const char *const names[] = {"otlp_headers", "headers",      "vault_token",
                                        "token",        "otlp_api_key", "api_key"};
    struct setting_source source = {
        .origin = ORIGIN_FILE, .line = e->at.line, .column = e->at.column};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (!str_eq(e->key, str_from(names[i])))
            continue;
        settings_problem(s, &source, ERR_INVALID, false,
                         "%s: a secret does not stand in the file: it comes from the provider of "
                         "[telemetry.secrets], under the name that otlp_headers_vault_key says%s",
                         names[i],
                         strstr(names[i], "token") ? "; the token from vault_token_file or "
                                                     "VAULT_TOKEN"
                                                   : "");
        return true;
    }
    return false;
}

/* The section `section.key` of the table; NULL: there is none. */
static const char *section_below(const struct settings *s, const char *section, struct str key)
{
    size_t n = strlen(section);
    for (int id = 0; id < s->n_defs; id++) {
        const char *full = s->defs[id].section;
        if (strncmp(full, section, n) == 0 && full[n] == '.' && str_eq(str_from(full + n + 1), key))
            return full;
    }
    return NULL;
}

void settings_file_section(struct settings *s, const char *section, const struct toml_table *t)
{
    for (const struct toml_entry *e = t->first; e; e = e->next) {
        const char *below = e->value.type == TOML_TABLE ? section_below(s, section, e->key) : NULL;
        if (below) {
            settings_file_section(s, below, e->value.table);
            continue;
        }
        int id = 0;
        while (id < s->n_defs && (strcmp(s->defs[id].section, section) != 0 ||
                                  !str_eq(str_from(s->defs[id].name), e->key)))
            id++;
        if (s->entry && s->entry(s, section, e))
            continue;
        if (id < s->n_defs)
            put(s, id, e);
        else if (!is_secret(s, e))
            unknown(s, &e->at, section, e->key, meant_key(s, section, e->key));
    }
}

static void apply_old(struct settings *s, const char *section, const struct toml_entry *table)
{
    struct setting_source source = {
        .origin = ORIGIN_FILE, .line = table->at.line, .column = table->at.column};
    settings_warn(s, &source,
                  "[%s] is deprecated and will not be read by the next release: its settings are "
                  "now in [telemetry]; `pugmark config migrate` rewrites the file",
                  section);
    for (const struct toml_entry *e = table->value.table->first; e; e = e->next) {
        const struct settings_old *old = settings_old_find(section, e->key);
        struct toml_entry renamed = *e;
        if (!old) {
            if (!is_secret(s, e))
                unknown(s, &e->at, section, e->key, NULL);
            continue;
        }
        if (renamed.value.type == TOML_STRING)
            renamed.value.text = settings_old_word(old->id, renamed.value.text);
        put(s, old->id, &renamed);
    }
}

static const struct toml_entry *table_in(const struct toml_table *t, struct str name)
{
    const struct toml_entry *e = t ? toml_find(t, name) : NULL;
    return e && e->value.type == TOML_TABLE ? e : NULL;
}

static void check_debug(struct settings *s, const struct toml_table *debug)
{
    for (const struct toml_entry *e = debug->first; e; e = e->next)
        if (!str_eq(e->key, STR("traces")) || e->value.type != TOML_TABLE)
            unknown(s, &e->at, "debug", e->key, NULL);
}

void settings_file_apply(struct settings *s, const struct toml_table *root)
{
    static const char *const known[] = {"telemetry", "server", "profile", "observability", "debug"};
    for (const struct toml_entry *e = root->first; e; e = e->next) {
        size_t i = 0;
        while (i < 5 && !str_eq(e->key, str_from(known[i])))
            i++;
        if (i < 5 && e->value.type == TOML_TABLE)
            continue;
        const char *meant = NULL;
        unsigned best = 4;
        for (size_t k = 0; k < 3; k++)
            consider(e->key, known[k], &best, &meant);
        if (!meant && e->value.type != TOML_TABLE && meant_key(s, "telemetry", e->key))
            meant = "[telemetry] above it";
        unknown(s, &e->at, NULL, e->key, meant);
    }
    /* The new section stands over the old ones. */
    const struct toml_entry *old = table_in(root, STR("observability"));
    const struct toml_entry *debug = table_in(root, STR("debug"));
    const struct toml_entry *traces = debug ? table_in(debug->value.table, STR("traces")) : NULL;
    const struct toml_entry *telemetry = table_in(root, STR("telemetry"));
    if (old)
        apply_old(s, "observability", old);
    if (debug)
        check_debug(s, debug->value.table);
    if (traces)
        apply_old(s, "debug.traces", traces);
    if (telemetry)
        settings_file_section(s, "telemetry", telemetry->value.table);
}

int settings_file(struct settings *s, const char *named)
{
    const char *path = settings_file_find(s, named);
    struct str text;
    struct toml_table *root;
    if (!path)
        return 0;
    int err = settings_file_read(s, path, &text);
    if (!err)
        err = settings_file_parse(s, text, &root);
    if (!err)
        settings_file_apply(s, root);
    return err;
}
