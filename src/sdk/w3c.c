#include "sdk/w3c.h"

static bool is_zero(const uint8_t *bytes, size_t n)
{
    uint8_t all = 0;
    for (size_t i = 0; i < n; i++)
        all |= bytes[i];
    return all == 0;
}

bool w3c_traceparent_parse(struct str text, struct pug_context *ret_context)
{
    uint8_t version, flags;
    struct pug_context c;
    text = str_trim(text);
    const char *p = text.ptr;
    if (text.len < W3C_TRACEPARENT_LEN || p[2] != '-' || p[35] != '-' || p[52] != '-')
        return false;
    /* Capital letters are not hexadecimal digits here (3.2.2). */
    if (!hex_get_lower(&version, p, 1) || !hex_get_lower(c.trace_id, p + 3, 16) ||
        !hex_get_lower(c.span_id, p + 36, 8) || !hex_get_lower(&flags, p + 53, 1))
        return false;
    if (is_zero(c.trace_id, sizeof c.trace_id) || is_zero(c.span_id, sizeof c.span_id))
        return false;
    /* 4.3: what later versions append comes after another dash; ff is no version. */
    if (version == 0xff)
        return false;
    if (version == 0 ? text.len != W3C_TRACEPARENT_LEN
                     : text.len > W3C_TRACEPARENT_LEN && p[55] != '-')
        return false;
    memcpy(ret_context->trace_id, c.trace_id, sizeof c.trace_id);
    memcpy(ret_context->span_id, c.span_id, sizeof c.span_id);
    /* Of a version we do not know only the sampled flag has a meaning. */
    ret_context->flags = flags &
                         (version == 0 ? PUG_FLAG_SAMPLED | PUG_FLAG_RANDOM : PUG_FLAG_SAMPLED);
    ret_context->remote = 1;
    ret_context->tracestate_len = 0;
    return true;
}

void w3c_traceparent_put(const struct pug_context *context, char out[W3C_TRACEPARENT_LEN + 1])
{
    memcpy(out, "00-", 3);
    hex_put(out + 3, context->trace_id, 16);
    out[35] = '-';
    hex_put(out + 36, context->span_id, 8);
    out[52] = '-';
    /* 3.2.2.5.3: "Vendors MUST set those to zero" */
    uint8_t flags = context->flags & (PUG_FLAG_SAMPLED | PUG_FLAG_RANDOM);
    hex_put(out + 53, &flags, 1);
    out[55] = '\0';
}

static bool is_lower_or_digit(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

/* 3.3.1.3.1, with the wider key of Level 2 (a digit may come first, '@' anywhere but there). */
static bool is_key(struct str key)
{
    if (key.len == 0 || key.len > 256 || !is_lower_or_digit(key.ptr[0]))
        return false;
    for (size_t i = 1; i < key.len; i++)
        if (!is_lower_or_digit(key.ptr[i]) && !memchr("_-*/@", key.ptr[i], 5))
            return false;
    return true;
}

static bool is_value(struct str value)
{
    if (value.len == 0 || value.len > 256 || value.ptr[value.len - 1] == ' ')
        return false;
    for (size_t i = 0; i < value.len; i++) {
        char c = value.ptr[i];
        if (c < 0x20 || c > 0x7e || c == ',' || c == '=')
            return false;
    }
    return true;
}

static struct str key_of(struct str member)
{
    struct str rest;
    return str_split(member, '=', &rest);
}

/* OWS is space and tab only. */
static struct str trim_ows(struct str s)
{
    while (s.len && (s.ptr[0] == ' ' || s.ptr[0] == '\t'))
        s = str_skip(s, 1);
    while (s.len && (s.ptr[s.len - 1] == ' ' || s.ptr[s.len - 1] == '\t'))
        s.len--;
    return s;
}

void w3c_tracestate_init(struct w3c_tracestate *s)
{
    s->n = 0; /* and not the members: 512 bytes that nobody reads */
    s->failed = false;
}

void w3c_tracestate_add(struct w3c_tracestate *s, struct str header)
{
    while (header.ptr && !s->failed) {
        struct str value, member = trim_ows(str_split(header, ',', &header));
        if (member.len == 0) /* "empty list-members are allowed" */
            continue;
        struct str key = str_split(member, '=', &value);
        if (!value.ptr || !is_key(key) || !is_value(value) || s->n == W3C_MEMBERS_MAX) {
            s->failed = true;
            return;
        }
        for (size_t i = 0; i < s->n; i++)
            if (str_eq(key_of(s->members[i]), key))
                s->failed = true;
        s->members[s->n++] = member;
    }
}

static size_t list_len(const struct str *members, size_t n)
{
    size_t len = n ? n - 1 : 0;
    for (size_t i = 0; i < n; i++)
        len += members[i].len;
    return len;
}

bool w3c_tracestate_put(const struct w3c_tracestate *s, struct pug_context *context)
{
    struct str kept[W3C_MEMBERS_MAX];
    size_t n = s->n, at = 0;
    context->tracestate_len = 0;
    if (s->failed || n == 0)
        return !s->failed;
    memcpy(kept, s->members, n * sizeof *kept);
    /* 3.3.1.5: long ones first, the last of them first, then from the end. */
    for (size_t i = n; i-- > 0 && list_len(kept, n) > PUG_TRACESTATE_MAX;) {
        if (kept[i].len > W3C_MEMBER_LONG) {
            memmove(kept + i, kept + i + 1, (n - i - 1) * sizeof *kept);
            n--;
        }
    }
    while (list_len(kept, n) > PUG_TRACESTATE_MAX)
        n--;
    for (size_t i = 0; i < n; i++) {
        if (i)
            context->tracestate[at++] = ',';
        memcpy(context->tracestate + at, kept[i].ptr, kept[i].len);
        at += kept[i].len;
    }
    context->tracestate_len = (uint16_t)at;
    return true;
}

/* ---- one member ---- */

static struct str state_of(const struct pug_context *context)
{
    size_t len = context->tracestate_len;
    return (struct str){context->tracestate, len <= PUG_TRACESTATE_MAX ? len : 0};
}

struct str w3c_tracestate_get(const struct pug_context *context, struct str key)
{
    struct str rest = state_of(context);
    while (rest.ptr && rest.len) {
        struct str value, member = trim_ows(str_split(rest, ',', &rest));
        if (str_eq(str_split(member, '=', &value), key))
            return value;
    }
    return STR_NONE;
}

bool w3c_tracestate_set(struct pug_context *context, struct str key, struct str value)
{
    char before[PUG_TRACESTATE_MAX], first[2 * 256 + 1];
    struct str rest = state_of(context);
    struct w3c_tracestate s;
    w3c_tracestate_init(&s);
    if (!is_key(key) || (value.len && !is_value(value)))
        return false;
    memcpy(before, rest.ptr, rest.len);
    rest.ptr = before;
    if (value.len) {
        memcpy(first, key.ptr, key.len);
        first[key.len] = '=';
        memcpy(first + key.len + 1, value.ptr, value.len);
        s.members[s.n++] = (struct str){first, key.len + 1 + value.len};
    }
    /* 3.5: modified keys go to the left, the others keep their order; the last one makes room. */
    while (rest.ptr && s.n < W3C_MEMBERS_MAX) {
        struct str member = trim_ows(str_split(rest, ',', &rest));
        if (member.len && !str_eq(key_of(member), key))
            s.members[s.n++] = member;
    }
    return w3c_tracestate_put(&s, context);
}
