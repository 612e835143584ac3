#include "probe/url.h"

#include <strings.h>

struct parts {
    struct str scheme, user, host, port, rest; /* rest: from the path on */
    bool has_user;
};

static size_t span_until(struct str s, const char *stops)
{
    size_t n = 0;
    while (n < s.len && (!s.ptr[n] || !strchr(stops, s.ptr[n])))
        n++;
    return n;
}

/* RFC 3986, 3.1. */
static bool is_scheme(struct str s)
{
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (!letter && (i == 0 || !((c >= '0' && c <= '9') || c == '+' || c == '-' || c == '.')))
            return false;
    }
    return s.len > 0;
}

static bool take_apart(struct str text, struct parts *ret)
{
    const char *mark = text.ptr ? memmem(text.ptr, text.len, "://", 3) : NULL;
    struct parts p = {.has_user = false};
    if (!mark)
        return false;
    p.scheme = (struct str){text.ptr, (size_t)(mark - text.ptr)};
    if (!is_scheme(p.scheme))
        return false;
    struct str rest = str_skip(text, p.scheme.len + 3);
    size_t n = span_until(rest, "/?#\\");
    struct str authority = {rest.ptr, n};
    p.rest = str_skip(rest, n);
    const char *at = memrchr(authority.ptr, '@', authority.len);
    if (at) {
        p.has_user = true;
        p.user = (struct str){authority.ptr, (size_t)(at - authority.ptr)};
        authority = str_skip(authority, p.user.len + 1);
    }
    if (authority.len && authority.ptr[0] == '[') {
        const char *end = memchr(authority.ptr, ']', authority.len);
        if (!end)
            return false;
        p.host = (struct str){authority.ptr, (size_t)(end - authority.ptr) + 1};
    } else {
        p.host = (struct str){authority.ptr, span_until(authority, ":")};
    }
    p.port = str_skip(authority, p.host.len);
    *ret = p;
    return p.host.len > 0;
}

static uint16_t port_of(const struct parts *p)
{
    uint64_t n;
    if (p->port.len > 1 && str_to_u64(str_skip(p->port, 1), &n) && n <= UINT16_MAX)
        return (uint16_t)n;
    return str_eq_nocase(p->scheme, STR("http"))    ? 80
           : str_eq_nocase(p->scheme, STR("https")) ? 443
           : str_eq_nocase(p->scheme, STR("ftp"))   ? 21
                                                    : 0;
}

bool url_parse(struct str text, struct url *ret)
{
    struct parts p;
    if (!take_apart(text, &p))
        return false;
    struct str host = p.host;
    if (host.len >= 2 && host.ptr[0] == '[')
        host = (struct str){host.ptr + 1, host.len - 2};
    *ret = (struct url){p.scheme, host, port_of(&p)};
    return true;
}

/* ---- without secrets ---- */

struct writer {
    char *out;
    size_t size, n;
};

static void put(struct writer *w, struct str s)
{
    size_t n = s.len < w->size - w->n ? s.len : w->size - w->n;
    if (n)
        memcpy(w->out + w->n, s.ptr, n);
    w->n += n;
}

static bool is_secret(struct str key)
{
    static const char *const keys[] = {
        "AWSAccessKeyId",       "Signature",        "sig",
        "X-Goog-Signature",     "X-Amz-Signature",  "X-Amz-Credential",
        "X-Amz-Security-Token", "X-Goog-Credential"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        if (str_eq_nocase(key, str_from(keys[i])))
            return true;
    return false;
}

static void put_query(struct writer *w, struct str query)
{
    while (query.len) {
        size_t n = span_until(query, "&;");
        struct str pair = {query.ptr, n};
        size_t key = span_until(pair, "=");
        if (key < n && is_secret((struct str){pair.ptr, key})) {
            put(w, (struct str){pair.ptr, key + 1});
            put(w, STR("REDACTED"));
        } else {
            put(w, pair);
        }
        put(w, (struct str){query.ptr + n, n < query.len});
        query = str_skip(query, n + 1);
    }
}

size_t url_without_secrets(struct str text, char *out, size_t size)
{
    struct writer w = {out, size, 0};
    struct parts p;
    if (!take_apart(text, &p)) {
        /* Whatever it is, a password may stand before an "@". */
        const char *at = text.len ? memrchr(text.ptr, '@', text.len) : NULL;
        if (at)
            put(&w, STR("REDACTED"));
        struct str rest = at ? str_skip(text, (size_t)(at - text.ptr)) : text;
        size_t n = span_until(rest, "?");
        put(&w, (struct str){rest.ptr, n});
        rest = str_skip(rest, n);
        put(&w, (struct str){rest.ptr, rest.len > 0}); /* the question mark */
        put_query(&w, str_skip(rest, 1));
        return w.n;
    }
    put(&w, p.scheme);
    put(&w, STR("://"));
    if (p.has_user)
        put(&w, memchr(p.user.ptr, ':', p.user.len) ? STR("REDACTED:REDACTED@") : STR("REDACTED@"));
    put(&w, p.host);
    put(&w, p.port);
    size_t path = span_until(p.rest, "?#");
    put(&w, (struct str){p.rest.ptr, path});
    struct str rest = str_skip(p.rest, path);
    if (rest.len && rest.ptr[0] == '?') {
        size_t query = span_until(rest, "#");
        put(&w, STR("?"));
        put_query(&w, (struct str){rest.ptr + 1, query - 1});
        rest = str_skip(rest, query);
    }
    put(&w, rest);
    return w.n;
}
