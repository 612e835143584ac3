/* The text is taken to pieces at the lines of the old sections and put together again:
 *
 *     [observability], the first of the old:  its header becomes [telemetry], unless there is one
 *     its keys                                get their new names, where they stand
 *     [debug.traces], or when [telemetry] is there already:  the lines from the header to the last
 *                                             key move to the end of [telemetry]
 *
 * A key that [telemetry] has already, or that is not known, becomes a comment. What stands between
 * the last key of a section and the next header stays where it is: it mostly belongs to the next. */
#include "cli/config_migrate.h"

#include "sdk/settings_file.h"

#include <stdio.h>

struct section {
    const char *name; /* "observability" */
    const struct toml_entry *entry;
    size_t header, body, end; /* [header, body): its line; [body, end): to the last key's line */
};

struct migration {
    struct str text;
    const struct toml_table *telemetry; /* NULL: none */
    config_migrate_tell *tell;
    void *user;
    bool taken[SETTINGS]; /* set in [telemetry], or by an old section before */
};

static size_t line_start(struct str text, size_t at)
{
    while (at > 0 && text.ptr[at - 1] != '\n')
        at--;
    return at;
}

static size_t line_end(struct str text, size_t at)
{
    const char *newline = at < text.len ? memchr(text.ptr + at, '\n', text.len - at) : NULL;
    return newline ? (size_t)(newline - text.ptr) + 1 : text.len;
}

/* Behind the line of the last key that stands in the table itself. */
static size_t keys_end(struct str text, const struct toml_table *t, size_t from)
{
    size_t end = from;
    for (const struct toml_entry *e = t->first; e; e = e->next) {
        bool own_header = e->value.type == TOML_TABLE && e->value.table->made_by == TOML_HEADER;
        size_t here = line_end(text, e->value.at.end);
        if (!own_header && e->value.at.end > from && here > end)
            end = here;
    }
    return end;
}

static void section_init(struct section *s, struct str text)
{
    s->header = line_start(text, s->entry->at.start);
    s->body = line_end(text, s->entry->at.end);
    s->end = keys_end(text, s->entry->value.table, s->body);
}

static bool is_rewritable(struct migration *m, const struct section *s)
{
    const struct toml_table *t = s->entry->value.table;
    char message[160];
    bool flat = t->made_by == TOML_HEADER;
    for (const struct toml_entry *e = t->first; e; e = e->next)
        flat &= e->value.type != TOML_TABLE;
    if (flat)
        return true;
    snprintf(message, sizeof message,
             "%s cannot be rewritten by itself: write it as [%s] with a line for each key", s->name,
             s->name);
    m->tell(m->user, s->entry->at.line, message);
    return false;
}

static enum setting_id id_of(const char *name)
{
    for (int id = 0; id < SETTINGS; id++)
        if (strcmp(setting_defs[id].section, "telemetry") == 0 &&
            strcmp(setting_defs[id].name, name) == 0)
            return (enum setting_id)id;
    return SETTINGS;
}

/* Each of the lines with a '#' in front. */
static void put_comment(struct buf *out, struct str lines)
{
    while (lines.len) {
        size_t n = line_end(lines, 0);
        buf_cstr(out, "# ");
        buf_put(out, lines.ptr, n);
        lines = str_skip(lines, n);
    }
}

/* The lines of a key, with its new name. */
static void put_key(struct migration *m, const struct section *s, const struct toml_entry *e,
                    size_t from, size_t to, struct buf *out)
{
    const struct settings_old *old = settings_old_find(s->name, e->key);
    char message[300];
    struct str text = m->text;
    if (!old || m->taken[old->id]) {
        snprintf(message, sizeof message,
                 old ? "[%s] %.*s: [telemetry] has %s already; it becomes a comment"
                     : "[%s] %.*s is not known; it becomes a comment",
                 s->name, e->key.len > 60 ? 60 : (int)e->key.len, e->key.ptr,
                 old ? setting_defs[old->id].name : "");
        m->tell(m->user, e->at.line, message);
        put_comment(out, (struct str){text.ptr + from, to - from});
        return;
    }
    m->taken[old->id] = true;
    buf_put(out, text.ptr + from, e->at.start - from);
    buf_cstr(out, setting_defs[old->id].name);
    const struct toml_place *v = &e->value.at;
    buf_put(out, text.ptr + e->at.end, v->start - e->at.end);
    struct str word = e->value.type == TOML_STRING ? settings_old_word(old->id, e->value.text)
                                                   : STR_NONE;
    if (word.ptr && !str_eq(word, e->value.text))
        buf_printf(out, "\"%.*s\"", STR_ARG(word));
    else
        buf_put(out, text.ptr + v->start, v->end - v->start);
    buf_put(out, text.ptr + v->end, to - v->end);
}

static void put_body(struct migration *m, const struct section *s, struct buf *out)
{
    size_t at = s->body;
    for (const struct toml_entry *e = s->entry->value.table->first; e; e = e->next) {
        size_t from = line_start(m->text, e->at.start), to = line_end(m->text, e->value.at.end);
        buf_put(out, m->text.ptr + at, from - at);
        put_key(m, s, e, from, to, out);
        at = to;
    }
    buf_put(out, m->text.ptr + at, s->end - at);
    if (s->end > s->body && m->text.ptr[s->end - 1] != '\n')
        buf_byte(out, '\n');
}

static const struct toml_entry *table_in(const struct toml_table *t, struct str name)
{
    const struct toml_entry *e = t ? toml_find(t, name) : NULL;
    return e && e->value.type == TOML_TABLE ? e : NULL;
}

static size_t sections_find(struct migration *m, const struct toml_table *root,
                            struct section sections[2])
{
    size_t n = 0;
    const struct toml_entry *old = table_in(root, STR("observability"));
    const struct toml_entry *debug = table_in(root, STR("debug"));
    const struct toml_entry *traces = debug ? table_in(debug->value.table, STR("traces")) : NULL;
    if (old)
        sections[n++] = (struct section){.name = "observability", .entry = old};
    if (traces)
        sections[n++] = (struct section){.name = "debug.traces", .entry = traces};
    for (size_t i = 0; i < n; i++)
        section_init(&sections[i], m->text);
    return n;
}

static void put_header(struct migration *m, const struct section *s, struct buf *out)
{
    /* With what stands behind it: a comment, mostly. */
    const char *close = memchr(m->text.ptr + s->entry->at.end, ']', s->body - s->entry->at.end);
    size_t after = close ? (size_t)(close - m->text.ptr) + 1 : s->body;
    buf_cstr(out, "[telemetry]");
    buf_put(out, m->text.ptr + after, s->body - after);
}

int config_migrate(struct str text, const struct toml_table *root, struct buf *out,
                   config_migrate_tell *tell, void *user)
{
    struct migration m = {.text = text, .tell = tell, .user = user};
    struct section sections[2];
    const struct toml_entry *telemetry = table_in(root, STR("telemetry"));
    bool has_header = telemetry && telemetry->value.table->made_by == TOML_HEADER;
    size_t n = sections_find(&m, root, sections), at = 0;
    for (size_t i = 0; i < n; i++)
        if (!is_rewritable(&m, &sections[i]))
            return ERR_UNSUPPORTED;
    if (n && telemetry && !has_header) {
        tell(user, telemetry->at.line, "telemetry is to be a section, [telemetry], to be added to");
        return ERR_UNSUPPORTED;
    }
    if (telemetry)
        for (const struct toml_entry *e = telemetry->value.table->first; e; e = e->next)
            for (int id = 0; id < SETTINGS; id++)
                m.taken[id] |= str_eq(e->key, str_from(setting_defs[id].name)) &&
                               id_of(setting_defs[id].name) == (enum setting_id)id;
    /* The last word counted before: [debug.traces] comes first where both have a key. */
    struct buf moved[2] = {BUF_INIT, BUF_INIT};
    for (size_t i = n; i-- > 0;)
        put_body(&m, &sections[i], &moved[i]);
    size_t target = has_header
                        ? keys_end(text, telemetry->value.table, line_end(text, telemetry->at.end))
                        : SIZE_MAX;
    /* In the order of the text. */
    for (size_t done = 0; done < n + has_header; done++) {
        size_t next = SIZE_MAX, which = n;
        for (size_t i = 0; i < n; i++)
            if (sections[i].header >= at && sections[i].header < next)
                next = sections[which = i].header;
        if (has_header && target >= at && target <= next && target != SIZE_MAX) {
            buf_put(out, text.ptr + at, target - at);
            if (out->len && out->ptr[out->len - 1] != '\n')
                buf_byte(out, '\n');
            for (size_t i = 0; i < n; i++)
                buf_str(out, buf_as_str(&moved[i]));
            at = target;
            target = SIZE_MAX;
            continue;
        }
        if (which == n)
            break;
        buf_put(out, text.ptr + at, sections[which].header - at);
        at = sections[which].end;
        if (!has_header && moved[0].cap + moved[1].cap && target == SIZE_MAX) {
            put_header(&m, &sections[which], out);
            buf_str(out, buf_as_str(&moved[which]));
            if (n == 2)
                buf_str(out, buf_as_str(&moved[1 - which]));
            target = 0; /* the rest only goes */
        } else if (!has_header && target == SIZE_MAX) {
            put_header(&m, &sections[which], out); /* sections without a key */
            target = 0;
        }
    }
    buf_put(out, text.ptr + at, text.len - at);
    bool ok = buf_ok(out) && buf_ok(&moved[0]) && buf_ok(&moved[1]);
    buf_done(&moved[0]);
    buf_done(&moved[1]);
    return ok ? 0 : ERR_NOMEM;
}
