#include "net/http_internal.h"

struct str http_method(const struct http_request *r)
{
    return r->method;
}

struct str http_path(const struct http_request *r)
{
    return r->path;
}

struct str http_query_string(const struct http_request *r)
{
    return r->query;
}

struct str http_header(const struct http_request *r, const char *name)
{
    struct str wanted = str_from(name);
    for (const struct header *h = r->headers; h; h = h->next)
        if (str_eq_nocase(h->name, wanted))
            return h->value;
    return STR_NONE;
}

struct str http_body(const struct http_request *r)
{
    return buf_as_str(&r->body.bytes);
}

size_t http_body_wire_bytes(const struct http_request *r)
{
    return r->body.wire_bytes;
}

struct arena *http_arena(struct http_request *r)
{
    return &r->arena;
}

struct str http_content_type(const struct http_request *r)
{
    return r->content_type;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* A '%' that two hexadecimal digits do not follow stays as it is. */
static struct str decode(struct arena *arena, struct str s, bool plus_is_space)
{
    char *out = arena_alloc(arena, s.len + 1);
    if (!out)
        return STR_NONE;
    size_t n = 0;
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        if (c == '%' && s.len - i > 2) {
            int high = hex_digit(s.ptr[i + 1]), low = hex_digit(s.ptr[i + 2]);
            if (high >= 0 && low >= 0) {
                c = (char)(high << 4 | low);
                i += 2;
            }
        } else if (c == '+' && plus_is_space) {
            c = ' ';
        }
        out[n++] = c;
    }
    out[n] = '\0';
    return (struct str){out, n};
}

static bool query_nth(const struct http_request *r, struct str wanted, unsigned nth,
                      bool plus_is_space, struct str *ret)
{
    /* Decoding allocates in the request's arena: reading is part of handling. */
    struct arena *arena = (struct arena *)(uintptr_t)&r->arena;
    struct str rest = r->query;
    while (rest.len) {
        struct str value, pair = str_split(rest, '&', &rest);
        struct str name = str_split(pair, '=', &value);
        if (!str_eq(name, wanted)) {
            if (!name.len || (!memchr(name.ptr, '%', name.len) && !memchr(name.ptr, '+', name.len)))
                continue;
            if (!str_eq(decode(arena, name, true), wanted))
                continue;
        }
        if (nth--)
            continue;
        struct str decoded = decode(arena, value, plus_is_space);
        if (!decoded.ptr)
            return false;
        *ret = decoded;
        return true;
    }
    return false;
}

struct str http_query(const struct http_request *r, const char *name, bool plus_is_space)
{
    struct str value;
    return query_nth(r, str_from(name), 0, plus_is_space, &value) ? value : STR_NONE;
}

bool http_query_nth(const struct http_request *r, const char *name, unsigned nth, struct str *ret)
{
    return query_nth(r, str_from(name), nth, true, ret);
}
