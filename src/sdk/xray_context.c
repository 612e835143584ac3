#include "sdk/xray_context.h"

#include "sdk/span.h"
#include "sdk/w3c.h"

#define KEPT_KEY STR("xray")
#define KEPT_MAX 256 /* what a member of a tracestate may hold */

/* The three that are the context's own. */
static bool is_own(struct str key)
{
    return str_eq_nocase(key, STR("Root")) || str_eq_nocase(key, STR("Parent")) ||
           str_eq_nocase(key, STR("Sampled"));
}

static bool root_parse(struct str s, uint8_t out[16])
{
    struct str time, unique;
    struct str version = str_split(s, '-', &time);
    time = str_split(time, '-', &unique);
    return str_eq(version, STR("1")) && time.len == 8 && unique.len == 24 &&
           hex_get(out, time, 4) && hex_get(out + 4, unique, 12) && !id_is_zero(out, 16);
}

struct kept {
    char text[KEPT_MAX];
    size_t len;
};

/* "Key=value" becomes "Key:value" in a list of its own; what the tracestate cannot hold is left out.
 */
static void keep(struct kept *k, struct str key, struct str value)
{
    size_t need = (k->len ? 1 : 0) + key.len + 1 + value.len;
    if (key.len == 0 || value.len == 0 || need > KEPT_MAX - k->len)
        return;
    for (size_t i = 0; i < key.len; i++)
        if (key.ptr[i] <= ' ' || key.ptr[i] > '~' || key.ptr[i] == ':' || key.ptr[i] == ',')
            return;
    for (size_t i = 0; i < value.len; i++)
        if (value.ptr[i] <= ' ' || value.ptr[i] > '~' || value.ptr[i] == '=' || value.ptr[i] == ',')
            return;
    if (k->len)
        k->text[k->len++] = ';';
    memcpy(k->text + k->len, key.ptr, key.len);
    k->len += key.len;
    k->text[k->len++] = ':';
    memcpy(k->text + k->len, value.ptr, value.len);
    k->len += value.len;
}

enum found xray_context_parse(struct str text, struct pug_context *ret_context)
{
    struct pug_context c;
    struct kept kept = {.len = 0};
    struct str rest = str_trim(text);
    bool root = false, parent = false, damaged = false;
    span_context_clear(&c);
    c.flags = PUG_FLAG_SAMPLED;
    c.remote = 1;
    while (rest.ptr && rest.len) {
        struct str value, key = str_trim(str_split(str_split(rest, ';', &rest), '=', &value));
        value = str_trim(value);
        if (str_eq_nocase(key, STR("Root"))) {
            damaged |= root || !root_parse(value, c.trace_id);
            root = true;
        } else if (str_eq_nocase(key, STR("Parent"))) {
            damaged |= parent || !hex_get(c.span_id, value, 8) || id_is_zero(c.span_id, 8);
            parent = true;
        } else if (str_eq_nocase(key, STR("Sampled"))) {
            if (str_eq(value, STR("0")))
                c.flags = 0;
            else if (!str_eq(value, STR("1")) && !str_eq(value, STR("?")))
                damaged = true;
        } else {
            keep(&kept, key, value);
        }
    }
    if (damaged || !root)
        return FOUND_DAMAGED;
    if (!parent)
        return FOUND_NONE;
    if (kept.len)
        w3c_tracestate_set(&c, KEPT_KEY, (struct str){kept.text, kept.len});
    memcpy(ret_context, &c, offsetof(struct pug_context, tracestate) + c.tracestate_len);
    return FOUND_CONTEXT;
}

size_t xray_context_put(const struct pug_context *context, char out[XRAY_CONTEXT_MAX + 1])
{
    size_t n = 0;
    struct str rest = w3c_tracestate_get(context, KEPT_KEY);
    char *at = out;
    memcpy(at, "Root=1-", 7);
    hex_put(at + 7, context->trace_id, 4);
    at[15] = '-';
    hex_put(at + 16, context->trace_id + 4, 12);
    memcpy(at + 40, ";Parent=", 8);
    hex_put(at + 48, context->span_id, 8);
    memcpy(at + 64, ";Sampled=", 9);
    at[73] = context->flags & PUG_FLAG_SAMPLED ? '1' : '0';
    n = 74;
    while (rest.ptr && rest.len) {
        struct str value, key = str_split(str_split(rest, ';', &rest), ':', &value);
        /* A tracestate may come from anybody. */
        if (!key.len || !value.len || is_own(key) || n + key.len + value.len + 2 > XRAY_CONTEXT_MAX)
            continue;
        out[n++] = ';';
        memcpy(out + n, key.ptr, key.len);
        n += key.len;
        out[n++] = '=';
        memcpy(out + n, value.ptr, value.len);
        n += value.len;
    }
    out[n] = '\0';
    return n;
}
