/* pugmark config check|show|migrate [FILE] */
#include "cli/args.h"
#include "cli/cli.h"
#include "cli/config_migrate.h"
#include "cli/server_config.h"

#include "base/json.h"
#include "sdk/options.h"
#include "sdk/settings_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

struct options {
    const char *what, *file;
    bool json, write;
};

static const char help[] =
    "usage: pugmark config check   [FILE]\n"
    "       pugmark config show    [FILE] [--json]\n"
    "       pugmark config migrate [FILE] [--write]\n"
    "\n"
    "check    all that is wrong with the file and the environment; exits with 1 then\n"
    "show     every setting of a traced program and of the server, and who set it\n"
    "migrate  [observability] and [debug.traces] into [telemetry], to standard output\n"
    "\n"
    "  --json   show: for programs\n"
    "  --write  migrate: into the file itself\n"
    "\n"
    "Without FILE: $PUG_CONFIG, ./pugmark.toml, $XDG_CONFIG_HOME/pugmark/pugmark.toml,\n"
    "/etc/pugmark/pugmark.toml, the first there is.\n";

/* -1: go on; else the exit status. */
static int parse(int argc, char **argv, struct options *o)
{
    int status;
    *o = (struct options){.json = false};
    const struct args_option options[] = {
        {.name = "json", .flag = &o->json},
        {.name = "write", .flag = &o->write},
    };
    int n = args_parse("config", help, options, sizeof options / sizeof *options, argc, argv,
                       &status);
    if (n < 0)
        return status;
    if (n == 0)
        return args_wrong("config", "check, show or migrate?");
    o->what = argv[1];
    o->file = n > 1 ? argv[2] : NULL;
    bool show = strcmp(o->what, "show") == 0, migrate = strcmp(o->what, "migrate") == 0;
    if (!show && !migrate && strcmp(o->what, "check") != 0)
        return args_wrong("config", "\"%s\": expected check, show or migrate", o->what);
    if (n > 2)
        return args_wrong("config", "one file at a time, not also \"%s\"", argv[3]);
    if (o->file && !*o->file)
        return args_wrong("config", "the file's name is empty");
    if (o->json && !show)
        return args_wrong("config", "--json is for show");
    if (o->write && !migrate)
        return args_wrong("config", "--write is for migrate");
    return -1;
}

static void tell(void *user, enum setting_trouble trouble, const char *message)
{
    fprintf(stderr, "%s: %s\n", trouble == TROUBLE_WARNING ? "warning" : "error", message);
}

static int out_of_memory(void)
{
    fputs("pugmark config: out of memory\n", stderr);
    return CLI_COULD_NOT;
}

/* ---- check and show ---- */

/* All sources together, as a program that starts now would see them. */
static int gather(const struct options *o, struct arena *arena, struct settings *s)
{
    struct pug_options none = {.size = sizeof none};
    struct config c = {.on = true};
    int err = settings_init(s, arena, tell, NULL);
    if (err)
        return err;
    err = settings_file(s, o->file);
    if (err)
        return err;
    settings_environment(s);
    err = config_convert(&c, s, &none);
    config_done(&c);
    return err;
}

/* What a server that starts now would see. When `said` is set, all that is wrong with the file as a whole
 * has been told, and is not told again. */
static int gather_server(const struct options *o, bool said, struct server_config *c)
{
    int err = server_config_init(c, said ? NULL : tell, NULL);
    return err ? err : server_config_read(c, o->file);
}

static int check(const struct options *o, struct arena *arena)
{
    struct settings s;
    struct server_config server;
    int err = gather(o, arena, &s);
    if (err == ERR_NOMEM)
        return out_of_memory();
    bool unread = s.file && err && !s.n_warnings && s.n_errors == 1;
    int err_server = gather_server(o, unread, &server);
    unsigned errors = s.n_errors + (unread ? 0 : server.settings.n_errors);
    unsigned warnings = s.n_warnings + server.settings.n_warnings;
    server_config_done(&server);
    if (err_server == ERR_NOMEM)
        return out_of_memory();
    if (err || err_server || errors) {
        fprintf(stderr, "pugmark config: %u error%s, %u warning%s\n", errors,
                errors == 1 ? "" : "s", warnings, warnings == 1 ? "" : "s");
        return CLI_COULD_NOT;
    }
    printf("%s: good%s\n", s.file ? s.file : "no configuration file, the environment",
           warnings ? ", with warnings" : "");
    return CLI_DONE;
}

static void put_origin(struct buf *out, const struct settings *s, const struct setting *v)
{
    if (v->origin == ORIGIN_FILE)
        buf_printf(out, "%s:%u", s->file, v->line);
    else if (v->variable)
        buf_cstr(out, v->variable);
    else
        buf_cstr(out, "default");
}

static void put_value(struct json_writer *w, const struct settings *s, struct arena *arena, int id)
{
    const struct setting_def *def = &s->defs[id];
    const struct setting *v = &s->values[id];
    bool is_command = s->defs == setting_defs && id == SET_SECRETS_COMMAND;
    char duration[DURATION_TEXT_SIZE];
    switch (def->type) {
    case SETTING_BOOL:
        json_bool(w, v->boolean);
        break;
    case SETTING_DURATION:
        json_str(w, str_from(duration_text(duration, v->count)));
        break;
    case SETTING_COUNT:
    case SETTING_BYTES:
        json_u64(w, v->count);
        break;
    case SETTING_NUMBER:
        json_double(w, v->number);
        break;
    case SETTING_LIST:
        json_open(w, '[');
        for (size_t i = 0; i < v->n_items; i++)
            /* Arguments of the command may be secret. */
            json_str(w, is_command && i ? STR("...") : str_from(v->items[i]));
        json_close(w, ']');
        break;
    default:
        json_str(w, str_from(setting_shown(arena, def, v->text)));
        break;
    }
}

/* As TOML: a value of JSON is one of TOML too, but for \/ and NUL, which are not written. */
static void put_toml(struct buf *out, const struct settings *s, struct arena *arena)
{
    const char *section = "";
    for (int id = 0; id < s->n_defs; id++) {
        const struct setting_def *def = &s->defs[id];
        const struct setting *v = &s->values[id];
        if (strcmp(section, def->section) != 0)
            buf_printf(out, "%s[%s]\n", section[0] ? "\n" : "", def->section);
        section = def->section;
        size_t start = out->len;
        struct json_writer w = json_writer(out);
        buf_printf(out, v->is_set ? "%s = " : "# %s is not set", def->name);
        if (v->is_set) {
            put_value(&w, s, arena, id);
            while (out->len - start < 44 && buf_ok(out))
                buf_byte(out, ' ');
            buf_cstr(out, " # ");
            put_origin(out, s, v);
        }
        buf_byte(out, '\n');
    }
}

static void put_rules_toml(struct buf *out, const struct server_config *c)
{
    char keep[DURATION_TEXT_SIZE];
    for (size_t i = 0; i < c->n_rules; i++) {
        const struct server_rule *rule = &c->rules[i];
        struct json_writer w = json_writer(out);
        buf_cstr(out, "\n[[server.retention_rules]]\n");
        buf_cstr(out, "match = ");
        json_str(&w, str_from(rule->match));
        buf_byte(out, '\n');
        buf_printf(out, "keep = \"%s\" # %s:%u\n",
                   rule->keep_ns ? duration_text(keep, rule->keep_ns) : "forever", c->settings.file,
                   rule->line);
    }
}

static void put_rules_json(struct json_writer *w, const struct server_config *c)
{
    char keep[DURATION_TEXT_SIZE];
    json_key(w, STR("retentionRules"));
    json_open(w, '[');
    for (size_t i = 0; i < c->n_rules; i++) {
        const struct server_rule *rule = &c->rules[i];
        json_open(w, '{');
        json_key(w, STR("match"));
        json_str(w, str_from(rule->match));
        json_key(w, STR("keep"));
        json_str(w, str_from(rule->keep_ns ? duration_text(keep, rule->keep_ns) : "forever"));
        json_close(w, '}');
    }
    json_close(w, ']');
}

static void put_redaction(struct json_writer *w, const struct redact_rule *rule, bool is_toml)
{
    const struct {
        const char *name;
        const char *const *items;
        size_t n;
    } lists[] = {{"keys", rule->keys, rule->n_keys},
                 {"patterns", rule->patterns, rule->n_patterns}};
    for (size_t i = 0; i < 2; i++) {
        if (is_toml) {
            buf_printf(w->out, "%s = ", lists[i].name);
            w->comma = false; /* a line of its own */
        } else {
            json_key(w, str_from(lists[i].name));
        }
        json_open(w, '[');
        for (size_t k = 0; k < lists[i].n; k++)
            json_str(w, str_from(lists[i].items[k]));
        json_close(w, ']');
        if (is_toml)
            buf_byte(w->out, '\n');
    }
}

static void put_redaction_toml(struct buf *out, const struct server_config *c)
{
    for (size_t i = 0; i < c->n_redaction; i++) {
        const struct redaction_rule *rule = &c->redaction[i].rule;
        struct json_writer w = json_writer(out);
        buf_cstr(out, "\n[[server.redaction_rules]]\nname = ");
        json_str(&w, str_from(rule->name));
        buf_printf(out, " # %s:%u\n", c->settings.file, c->redaction[i].line);
        put_redaction(&w, &rule->rule, true);
        buf_printf(out, "action = \"%s\"\n", redact_action_name(rule->rule.action));
    }
}

static void put_redaction_json(struct json_writer *w, const struct server_config *c)
{
    json_key(w, STR("redactionRules"));
    json_open(w, '[');
    for (size_t i = 0; i < c->n_redaction; i++) {
        const struct redaction_rule *rule = &c->redaction[i].rule;
        json_open(w, '{');
        json_key(w, STR("name"));
        json_str(w, str_from(rule->name));
        put_redaction(w, &rule->rule, false);
        json_key(w, STR("action"));
        json_str(w, str_from(redact_action_name(rule->rule.action)));
        json_close(w, '}');
    }
    json_close(w, ']');
}

static void put_settings_json(struct json_writer *w, const struct settings *s, struct arena *arena)
{
    struct buf origin = BUF_INIT;
    for (int id = 0; id < s->n_defs; id++) {
        const struct setting_def *def = &s->defs[id];
        const struct setting *v = &s->values[id];
        json_open(w, '{');
        json_key(w, STR("section"));
        json_str(w, str_from(def->section));
        json_key(w, STR("name"));
        json_str(w, str_from(def->name));
        json_key(w, STR("value"));
        if (v->is_set)
            put_value(w, s, arena, id);
        else
            json_null(w);
        buf_clear(&origin);
        put_origin(&origin, s, v);
        json_key(w, STR("origin"));
        json_str(w, buf_as_str(&origin));
        json_key(w, STR("environment"));
        json_open(w, '[');
        for (const char *const *name = def->environment; *name; name++)
            json_str(w, str_from(*name));
        json_close(w, ']');
        json_key(w, STR("doc"));
        json_str(w, str_from(def->doc));
        json_close(w, '}');
    }
    buf_done(&origin);
}

static void put_json(struct buf *out, const struct settings *s, const struct server_config *server,
                     struct arena *arena)
{
    struct json_writer w = json_writer(out);
    json_open(&w, '{');
    json_key(&w, STR("file"));
    if (s->file)
        json_str(&w, str_from(s->file));
    else
        json_null(&w);
    json_key(&w, STR("settings"));
    json_open(&w, '[');
    put_settings_json(&w, s, arena);
    put_settings_json(&w, &server->settings, arena);
    json_close(&w, ']');
    put_rules_json(&w, server);
    put_redaction_json(&w, server);
    json_close(&w, '}');
    buf_byte(out, '\n');
}

static int put_out(struct buf *out)
{
    if (!buf_ok(out))
        return out_of_memory();
    if (fwrite(out->ptr, 1, out->len, stdout) != out->len || fflush(stdout) != 0) {
        perror("pugmark config: stdout");
        return CLI_COULD_NOT;
    }
    return CLI_DONE;
}

static int show(const struct options *o, struct arena *arena)
{
    struct settings s;
    struct buf out = BUF_INIT;
    struct server_config server;
    int err = gather(o, arena, &s);
    if (err == ERR_NOMEM)
        return out_of_memory();
    int err_server = gather_server(o, err != 0, &server);
    if (o->json) {
        put_json(&out, &s, &server, arena);
    } else {
        put_toml(&out, &s, arena);
        buf_byte(&out, '\n');
        put_toml(&out, &server.settings, arena);
        put_rules_toml(&out, &server);
        put_redaction_toml(&out, &server);
    }
    int status = err_server == ERR_NOMEM ? out_of_memory() : put_out(&out);
    server_config_done(&server);
    buf_done(&out);
    return err || err_server ? CLI_COULD_NOT : status;
}

/* ---- migrate ---- */

static void tell_line(void *user, uint32_t line, const char *message)
{
    fprintf(stderr, "warning: %s:%u: %s\n", (const char *)user, line, message);
}

/* The whole new file beside it, then in its place: nobody ever reads half of one. */
static int replace(const char *path, struct str text)
{
    struct stat st;
    char *real = realpath(path, NULL), *temporary = NULL;
    int fd = -1, failed = 0;
    if (real && stat(real, &st) == 0 && asprintf(&temporary, "%s.XXXXXX", real) > 0)
        fd = mkostemp(temporary, O_CLOEXEC);
    failed = fd < 0 || fchmod(fd, st.st_mode & 07777) != 0;
    if (!failed && fchown(fd, st.st_uid, st.st_gid) != 0 && errno != EPERM)
        failed = 1;
    for (size_t n = 0; !failed && n < text.len;) {
        ssize_t wrote = write(fd, text.ptr + n, text.len - n);
        failed = wrote < 0 && errno != EINTR;
        n += wrote > 0 ? (size_t)wrote : 0;
    }
    failed = failed || fsync(fd) != 0 || rename(temporary, real) != 0;
    if (failed)
        fprintf(stderr, "pugmark config: %s cannot be written: %s\n", path, strerror(errno));
    if (failed && fd >= 0)
        unlink(temporary);
    if (fd >= 0)
        close(fd);
    free(temporary);
    free(real);
    return failed ? CLI_COULD_NOT : CLI_DONE;
}

static int migrate(const struct options *o, struct arena *arena)
{
    struct settings s;
    struct str text;
    struct toml_table *root;
    struct buf out = BUF_INIT;
    if (settings_init(&s, arena, tell, NULL))
        return out_of_memory();
    const char *path = settings_file_find(&s, o->file);
    if (!path) {
        fputs("pugmark config: there is no configuration file\n", stderr);
        return CLI_COULD_NOT;
    }
    if (settings_file_read(&s, path, &text) || settings_file_parse(&s, text, &root))
        return CLI_COULD_NOT;
    settings_file_apply(&s, root); /* tells what is deprecated, and what is wrong anyway */
    int err = config_migrate(text, root, &out, tell_line, (void *)(uintptr_t)path);
    int status = CLI_COULD_NOT;
    if (err == ERR_NOMEM)
        status = out_of_memory();
    else if (!err && !o->write)
        status = put_out(&out);
    else if (!err && str_eq(buf_as_str(&out), text))
        status = CLI_DONE;
    else if (!err)
        status = replace(path, buf_as_str(&out));
    buf_done(&out);
    return status;
}

int cli_config(int argc, char **argv)
{
    struct options o;
    struct arena arena = ARENA_INIT;
    int status = parse(argc, argv, &o);
    if (status >= 0)
        return status;
    status = strcmp(o.what, "check") == 0  ? check(&o, &arena)
             : strcmp(o.what, "show") == 0 ? show(&o, &arena)
                                           : migrate(&o, &arena);
    arena_done(&arena);
    return status;
}
