/* Reads a document, writes the tree again as inline tables, reads that: both must be the same tree.
 * Every place must lie in the text. */
#include "base/buf.h"
#include "base/toml.h"

#include <stdio.h>
#include <stdlib.h>

#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

static void put_text(struct buf *out, struct str s)
{
    buf_byte(out, '"');
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        if (c == '"' || c == '\\')
            buf_printf(out, "\\%c", c);
        else if (c < 0x20 || c == 0x7f)
            buf_printf(out, "\\u%04x", c);
        else
            buf_byte(out, (char)c);
    }
    buf_byte(out, '"');
}

static void put_table(struct buf *out, const struct toml_table *t, size_t len, int depth);
static int deepest;

static void put_value(struct buf *out, const struct toml_value *v, size_t len, int depth)
{
    MUST(v->at.start <= v->at.end && v->at.end <= len && v->at.line && v->at.column);
    if (depth > deepest)
        deepest = depth;
    switch (v->type) {
    case TOML_STRING:
        MUST(!v->text.len || str_is_utf8(v->text));
        put_text(out, v->text);
        break;
    case TOML_INTEGER:
        buf_printf(out, "%lld", (long long)v->integer);
        break;
    case TOML_FLOAT:
        if (v->real != v->real || v->real - v->real != 0)
            buf_cstr(out, v->real > 0 ? "inf" : v->real < 0 ? "-inf" : "nan");
        else
            buf_printf(out, "%.17e", v->real);
        break;
    case TOML_BOOL:
        buf_cstr(out, v->boolean ? "true" : "false");
        break;
    case TOML_DATETIME:
        buf_str(out, v->text);
        break;
    case TOML_ARRAY:
        buf_byte(out, '[');
        for (size_t i = 0; i < v->array.n; i++) {
            buf_cstr(out, i ? "," : "");
            put_value(out, &v->array.items[i], len, depth + 1);
        }
        buf_byte(out, ']');
        break;
    case TOML_TABLE:
        buf_byte(out, '{');
        put_table(out, v->table, len, depth);
        buf_byte(out, '}');
        break;
    }
}

static void put_table(struct buf *out, const struct toml_table *t, size_t len, int depth)
{
    size_t n = 0;
    for (const struct toml_entry *e = t->first; e; e = e->next, n++) {
        MUST(e->at.start <= e->at.end && e->at.end <= len);
        MUST(toml_find(t, e->key) == e);
        buf_cstr(out, n && depth ? "," : "");
        put_text(out, e->key);
        buf_cstr(out, "=");
        put_value(out, &e->value, len, depth + 1);
        buf_cstr(out, depth ? "" : "\n");
    }
    MUST(n == t->n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena arena = ARENA_INIT;
    struct buf once = BUF_INIT, twice = BUF_INIT;
    struct error_detail detail = {0};
    struct toml_place place = {0};
    struct toml_table *t;
    int err = toml_parse((struct str){(const char *)data, size}, &arena, &t, &detail, &place);
    if (err) {
        MUST(detail.code == err && detail.position <= size && detail.message[0]);
        MUST(place.line && place.column && place.start <= size);
    } else {
        deepest = 0;
        put_table(&once, t, size, 0);
        MUST(buf_ok(&once));
        /* Written as one value each, headers count as depth too. */
        if (deepest <= TOML_DEPTH_MAX && once.len <= TOML_BYTES_MAX) {
            MUST(toml_parse(buf_as_str(&once), &arena, &t, &detail, &place) == 0);
            put_table(&twice, t, once.len, 0);
            MUST(str_eq(buf_as_str(&once), buf_as_str(&twice)));
        }
    }
    buf_done(&once);
    buf_done(&twice);
    arena_done(&arena);
    return 0;
}
