#include "sdk/settings.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

const char *settings_variable(const char *name)
{
    const char *value = secure_getenv(name);
    return value && value[0] ? value : NULL;
}

struct setting_source setting_source_of(const struct setting *value)
{
    return (struct setting_source){
        .origin = value->origin, .variable = value->variable, .line = value->line};
}

/* ---- what is told ---- */

static void place_of(const struct settings *s, const struct setting_source *source, char *out,
                     size_t size)
{
    out[0] = 0;
    if (!source)
        return;
    if (source->origin == ORIGIN_FILE && source->column)
        snprintf(out, size, "%s:%u:%u: ", s->file ? s->file : "(file)", source->line,
                 source->column);
    else if (source->origin == ORIGIN_FILE && source->line)
        snprintf(out, size, "%s:%u: ", s->file ? s->file : "(file)", source->line);
    else if (source->origin == ORIGIN_FILE)
        snprintf(out, size, "%s: ", s->file ? s->file : "(file)");
    else if (source->variable)
        snprintf(out, size, "%s: ", source->variable);
    else if (source->origin == ORIGIN_OPTIONS)
        snprintf(out, size, "pug_options: ");
}

PRINTF_LIKE(5, 0)
static void told(struct settings *s, const struct setting_source *source,
                 enum setting_trouble trouble, int code, const char *format, va_list args)
{
    char text[600];
    place_of(s, source, text, sizeof text / 2);
    size_t n = strlen(text);
    vsnprintf(text + n, sizeof text - n, format, args);
    if (trouble == TROUBLE_WARNING)
        s->n_warnings++;
    else
        s->n_errors++;
    if (trouble == TROUBLE_GRAVE && !s->problem.code)
        error_set(&s->problem, code, source ? source->line : 0, "%.190s", text);
    if (s->tell)
        s->tell(s->user, trouble, text);
}

void settings_problem(struct settings *s, const struct setting_source *source, int code, bool grave,
                      const char *format, ...)
{
    va_list args;
    va_start(args, format);
    told(s, source, grave ? TROUBLE_GRAVE : TROUBLE_ERROR, code, format, args);
    va_end(args);
}

void settings_warn(struct settings *s, const struct setting_source *source, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    told(s, source, TROUBLE_WARNING, 0, format, args);
    va_end(args);
}

static size_t put_choices(const struct setting_def *def, char *out, size_t size)
{
    size_t n = 0;
    for (int i = 0; i <= SETTING_CHOICES_MAX && def->choices[i] && n < size; i++)
        n += (size_t)snprintf(out + n, size - n, "%s%s", i == 0 ? "" : ", ", def->choices[i]);
    return n;
}

void setting_expected(const struct setting_def *def, char *out, size_t size)
{
    size_t n;
    switch (def->type) {
    case SETTING_BOOL:
        snprintf(out, size, "true or false");
        break;
    case SETTING_CHOICE:
        n = (size_t)snprintf(out, size, "one of ");
        put_choices(def, out + n, size - n);
        break;
    case SETTING_COUNT:
        snprintf(out, size, "a whole number from %.0f to %.0f", def->min, def->max);
        break;
    case SETTING_NUMBER:
        snprintf(out, size, "a number from %g to %g", def->min, def->max);
        break;
    case SETTING_TEXT:
        snprintf(out, size, "a string of 1 to %d bytes", SETTING_TEXT_MAX);
        break;
    case SETTING_URL:
        snprintf(out, size, "a URL that begins with http:// or https://");
        break;
    case SETTING_LIST:
        n = (size_t)snprintf(out, size, "a list of %s",
                             def->choices[0] ? "" : "strings, none of them empty");
        if (def->choices[0])
            put_choices(def, out + n, size - n);
        break;
    case SETTING_DURATION:
        snprintf(out, size, "a duration such as \"15m\", \"12h\" or \"7d\"");
        break;
    case SETTING_BYTES:
        n = (size_t)snprintf(out, size, "bytes, from %.0f, such as 65536, \"64M\" or \"10G\"",
                             def->min);
        break;
    }
}

const char *setting_shown(struct arena *arena, const struct setting_def *def, const char *text)
{
    if (def->type != SETTING_URL || !text)
        return text;
    const char *host = strstr(text, "://");
    host = host ? host + 3 : text;
    size_t scheme = (size_t)(host - text), authority = strcspn(host, "/?#");
    const char *at = memrchr(host, '@', authority);
    const char *from = at ? at + 1 : host;
    size_t rest = strcspn(from, "?#");
    const char *shown = arena_printf(arena, "%.*s%s%.*s%s", (int)scheme, text, at ? "...@" : "",
                                     (int)rest, from, from[rest] ? "?..." : "");
    return shown ? shown : "(a URL)";
}

/* ---- text to value ---- */

static bool bool_of(struct str text, bool standard, bool *ret)
{
    static const char *const yes[] = {"true", "1", "yes", "on"};
    static const char *const no[] = {"false", "0", "no", "off"};
    for (size_t i = 0; i < (standard ? 1 : 4); i++) {
        if (str_eq_nocase(text, str_from(yes[i])) || str_eq_nocase(text, str_from(no[i]))) {
            *ret = str_eq_nocase(text, str_from(yes[i]));
            return true;
        }
    }
    return false;
}

static bool in_choices(const struct setting_def *def, struct str text, const char **ret)
{
    for (int i = 0; i <= SETTING_CHOICES_MAX && def->choices[i]; i++) {
        if (str_eq(text, str_from(def->choices[i]))) {
            *ret = def->choices[i];
            return true;
        }
    }
    return false;
}

static bool text_is_fit(struct str text)
{
    return text.len && text.len <= SETTING_TEXT_MAX && !memchr(text.ptr, 0, text.len) &&
           str_is_utf8(text);
}

static bool parse(struct settings *s, const struct setting_def *def, bool standard, struct str text,
                  struct setting *v)
{
    switch (def->type) {
    case SETTING_BOOL:
        return bool_of(text, standard, &v->boolean);
    case SETTING_CHOICE:
        return in_choices(def, text, &v->text);
    case SETTING_COUNT:
        return str_to_u64(text, &v->count) && (double)v->count >= def->min &&
               (double)v->count <= def->max;
    case SETTING_NUMBER:
        return str_to_double(text, &v->number) && v->number >= def->min && v->number <= def->max;
    case SETTING_URL:
        if (!str_starts(text, STR("http://")) && !str_starts(text, STR("https://")))
            return false;
        __attribute__((fallthrough));
    case SETTING_TEXT:
        v->text = text_is_fit(text) ? arena_str(s->arena, text).ptr : NULL;
        return v->text != NULL;
    case SETTING_DURATION:
        return str_to_age_ns(text, &v->count) && (double)v->count >= def->min &&
               (double)v->count <= def->max;
    case SETTING_BYTES:
        return str_to_bytes(text, &v->count) && (double)v->count >= def->min &&
               (double)v->count <= def->max;
    case SETTING_LIST:
        break;
    }
    return false;
}

static void refused(struct settings *s, const struct setting_def *def,
                    const struct setting_source *source, struct str text)
{
    char expected[200];
    const char *shown;
    bool standard = source->origin == ORIGIN_STANDARD;
    /* Where the variable does not say it, the key does. */
    const char *named = source->variable ? "" : def->name;
    setting_expected(def, expected, sizeof expected);
    shown = arena_printf(s->arena, "%.*s", STR_ARG(text));
    shown = shown ? setting_shown(s->arena, def, shown) : "";
    /* The specification wants bad values of its variables ignored with a warning. */
    if (standard)
        settings_warn(s, source, "\"%.60s\" is ignored: expected %s", shown, expected);
    else
        settings_problem(s, source, def->type == SETTING_CHOICE ? ERR_UNSUPPORTED : ERR_INVALID,
                         def->grave, "%s%s\"%.60s\" is not known here: expected %s", named,
                         named[0] ? " = " : "", shown, expected);
}

static void keep(struct settings *s, int id, const struct setting_source *source, struct setting v)
{
    v.origin = source->origin;
    v.variable = source->variable;
    v.line = source->line;
    v.is_set = true;
    s->values[id] = v;
}

static bool put_separated(struct settings *s, int id, const struct setting_source *source,
                          struct str text)
{
    struct str items[SETTING_ITEMS_MAX + 1];
    size_t n = 0;
    for (struct str rest = text; rest.ptr && rest.len && n <= SETTING_ITEMS_MAX;) {
        struct str item = str_trim(str_split(rest, ',', &rest));
        if (item.len)
            items[n++] = item;
    }
    return settings_put_list(s, id, source, items, n);
}

bool settings_put(struct settings *s, int id, const struct setting_source *source, struct str text)
{
    const struct setting_def *def = &s->defs[id];
    struct setting v = {.is_set = true};
    if (def->type == SETTING_LIST)
        return put_separated(s, id, source, text);
    if (!parse(s, def, source->origin == ORIGIN_STANDARD, text, &v)) {
        refused(s, def, source, text);
        return false;
    }
    keep(s, id, source, v);
    return true;
}

/* Grave: without its list of keys, spans would go out with what it was to keep back. */
static bool no_memory(struct settings *s, const struct setting_source *source)
{
    settings_problem(s, source, ERR_NOMEM, true, "%s", err_text(ERR_NOMEM));
    return false;
}

bool settings_put_list(struct settings *s, int id, const struct setting_source *source,
                       const struct str *items, size_t n)
{
    const struct setting_def *def = &s->defs[id];
    if (n > SETTING_ITEMS_MAX) {
        settings_problem(s, source, ERR_TOO_LARGE, def->grave, "%s: more than %d items", def->name,
                         SETTING_ITEMS_MAX);
        return false;
    }
    const char **kept = arena_array(s->arena, n + 1, sizeof *kept);
    struct setting v = {.is_set = true, .items = kept};
    if (!kept)
        return no_memory(s, source);
    for (size_t i = 0; i < n; i++) {
        const char *word = NULL;
        if (def->choices[0] && !in_choices(def, items[i], &word))
            refused(s, def, source, items[i]); /* the others stand */
        else if (!text_is_fit(items[i])) {
            refused(s, def, source, items[i]);
            return false;
        } else if (!(kept[v.n_items++] = word ? word : arena_str(s->arena, items[i]).ptr))
            return no_memory(s, source);
    }
    if (n && !v.n_items)
        return false;
    keep(s, id, source, v);
    return true;
}

/* ---- the sources that are known here ---- */

int settings_init(struct settings *s, struct arena *arena, settings_tell_fn *tell, void *user)
{
    return settings_init_table(s, setting_defs, SETTINGS, arena, tell, user);
}

int settings_init_table(struct settings *s, const struct setting_def *defs, int n_defs,
                        struct arena *arena, settings_tell_fn *tell, void *user)
{
    struct setting_source source = {.origin = ORIGIN_DEFAULT};
    *s = (struct settings){
        .defs = defs, .n_defs = n_defs, .arena = arena, .tell = tell, .user = user};
    s->values = arena_zalloc(arena, (size_t)n_defs * sizeof *s->values);
    if (!s->values)
        return ERR_NOMEM;
    for (int id = 0; id < n_defs; id++)
        if (defs[id].otherwise && !settings_put(s, id, &source, str_from(defs[id].otherwise)))
            return ERR_NOMEM;
    return 0;
}

/* OTEL_TRACES_SAMPLER with its argument, in our words; NULL when it is ignored. */
static const char *standard_sampler(struct settings *s, const struct setting_source *source,
                                    const char *text)
{
    static const char parent[] = "parentbased_";
    const char *name = text;
    bool based = strncmp(text, parent, sizeof parent - 1) == 0;
    if (based)
        name += sizeof parent - 1;
    if (strcmp(name, "always_on") == 0 || strcmp(name, "always_off") == 0)
        return text;
    if (strcmp(name, "traceidratio") != 0) {
        settings_warn(s, source,
                      "\"%.60s\" is ignored: expected one of always_on, always_off, traceidratio, "
                      "or these with parentbased_ in front",
                      text);
        return NULL;
    }
    const char *argument = settings_variable("OTEL_TRACES_SAMPLER_ARG");
    double rate;
    if (argument && (!str_to_double(str_from(argument), &rate) || rate < 0 || rate > 1)) {
        struct setting_source where = {.origin = ORIGIN_STANDARD,
                                       .variable = "OTEL_TRACES_SAMPLER_ARG"};
        settings_warn(s, &where, "\"%.60s\" is ignored: expected a number from 0 to 1", argument);
        argument = NULL;
    }
    return arena_printf(s->arena, "%sratio:%s", based ? parent : "", argument ? argument : "1");
}

/* What the specification's values are called here. */
static bool put_standard(struct settings *s, enum setting_id id,
                         const struct setting_source *source, const char *text)
{
    uint64_t ms;
    switch (id) {
    case SET_BACKEND:
        if (strcmp(text, "console") == 0)
            text = "stdout";
        else if (strcmp(text, "none") == 0)
            text = "discard";
        else if (strcmp(text, "otlp") != 0 && strcmp(text, "zipkin") != 0) {
            settings_warn(s, source,
                          "\"%.60s\" is ignored: expected one of otlp, zipkin, console, none",
                          text);
            return false;
        }
        break;
    case SET_METRICS_INTERVAL_SECS:
        if (!str_to_u64(str_from(text), &ms)) {
            settings_warn(s, source, "\"%.60s\" is ignored: expected milliseconds", text);
            return false;
        }
        text = arena_printf(s->arena, "%llu.%03u", (unsigned long long)(ms / 1000),
                            (unsigned)(ms % 1000));
        break;
    case SET_SAMPLER:
        text = standard_sampler(s, source, text);
        break;
    default:
        break;
    }
    return text && settings_put(s, id, source, str_from(text));
}

void settings_environment(struct settings *s)
{
    for (int id = 0; id < s->n_defs; id++) {
        const char *const *names = s->defs[id].environment;
        for (bool done = false; *names && !done; names++) {
            const char *text = settings_variable(*names);
            if (!text)
                continue;
            bool ours = strncmp(*names, "PUG_", 4) == 0;
            struct setting_source source = {.origin = ours ? ORIGIN_ENVIRONMENT : ORIGIN_STANDARD,
                                            .variable = *names};
            done = ours ? settings_put(s, id, &source, str_from(text))
                        : put_standard(s, (enum setting_id)id, &source, text);
        }
    }
}
