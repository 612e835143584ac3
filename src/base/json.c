/* The reader is a state machine over one cursor. Between two calls `state` says what may come next;
 * nesting is a bit per level, so depth costs no stack and no memory.
 *
 *   WANT_VALUE        a value: at the start, after ':' and after ',' in an array
 *   WANT_VALUE_OR_END after '['
 *   WANT_KEY_OR_END   after '{'
 *   WANT_KEY          after ',' in an object
 *   WANT_COMMA_OR_END after a value inside an array or object
 *   WANT_NOTHING      after the outermost value: only white space
 *   FAILED            for good
 *
 * The ':' is read together with its key. */
#include "base/json.h"

#include "base/base64.h"

#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- writer ---- */

static void value_begins(struct json_writer *w)
{
    if (w->comma)
        buf_byte(w->out, ',');
    w->comma = true;
}

void json_open(struct json_writer *w, char bracket)
{
    value_begins(w);
    buf_byte(w->out, bracket);
    w->comma = false;
}

void json_close(struct json_writer *w, char bracket)
{
    buf_byte(w->out, bracket);
    w->comma = true;
}

/* The first character that a string cannot just go on with: a quote, a backslash, a control
 * character, or the start of one beyond ASCII. Eight at a time; in the word, what lies above the
 * first hit may be wrong, so only the lowest bit counts. */
static const char *plain_end(const char *p, const char *end)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    const uint64_t ones = UINT64_C(0x0101010101010101), highs = ones << 7;
    for (; end - p >= 8; p += 8) {
        uint64_t w;
        memcpy(&w, p, sizeof w);
        uint64_t quote = w ^ ones * '"', backslash = w ^ ones * '\\';
        uint64_t found = ((quote - ones) & ~quote) | ((backslash - ones) & ~backslash) |
                         (w - ones * 0x20) | w;
        found &= highs;
        if (found)
            return p + __builtin_ctzll(found) / 8;
    }
#endif
    while (p < end && (unsigned char)*p >= 0x20 && (unsigned char)*p < 0x80 && *p != '"' &&
           *p != '\\')
        p++;
    return p;
}

/* Bytes of the UTF-8 sequence at p, 0 when it is none. */
static size_t utf8_sequence(const char *p, size_t room)
{
    for (size_t n = 1; n <= 4 && n <= room; n++)
        if (str_is_utf8((struct str){p, n}))
            return n;
    return 0;
}

static void escape(struct buf *out, unsigned char c)
{
    switch (c) {
    case '"':
    case '\\':
        buf_byte(out, '\\');
        buf_byte(out, (char)c);
        break;
    case '\n':
        buf_put(out, "\\n", 2);
        break;
    case '\r':
        buf_put(out, "\\r", 2);
        break;
    case '\t':
        buf_put(out, "\\t", 2);
        break;
    default:
        buf_printf(out, "\\u%04x", c);
    }
}

static void quoted(struct buf *out, struct str s)
{
    if (!s.len)
        s = STR("");
    buf_byte(out, '"');
    size_t plain = 0; /* from here to i nothing needs a change */
    const char *end = s.ptr + s.len;
    for (size_t i = 0; i < s.len;) {
        i = (size_t)(plain_end(s.ptr + i, end) - s.ptr);
        if (i == s.len)
            break;
        unsigned char c = (unsigned char)s.ptr[i];
        size_t n = c >= 0x80 ? utf8_sequence(s.ptr + i, s.len - i) : 0;
        if (n) {
            i += n;
            continue;
        }
        buf_put(out, s.ptr + plain, i - plain);
        if (c >= 0x80)
            buf_put(out, "\xef\xbf\xbd", 3);
        else
            escape(out, c);
        plain = ++i;
    }
    buf_put(out, s.ptr + plain, s.len - plain);
    buf_byte(out, '"');
}

void json_key(struct json_writer *w, struct str key)
{
    value_begins(w);
    quoted(w->out, key);
    buf_byte(w->out, ':');
    w->comma = false;
}

void json_str(struct json_writer *w, struct str s)
{
    value_begins(w);
    quoted(w->out, s);
}

/* Two digits at a time. */
static char *digits_write(char *end, uint64_t n)
{
    static const char pairs[] = "000102030405060708091011121314151617181920212223242526272829303132"
                                "3334353637383940414243444546"
                                "474849505152535455565758596061626364656667686970717273747576777879"
                                "8081828384858687888990919293"
                                "949596979899";
    while (n >= 100) {
        end -= 2;
        memcpy(end, pairs + n % 100 * 2, 2);
        n /= 100;
    }
    if (n >= 10) {
        end -= 2;
        memcpy(end, pairs + n * 2, 2);
    } else {
        *--end = (char)('0' + n);
    }
    return end;
}

static unsigned digits_count(uint64_t n)
{
    static const uint64_t powers[] = {1,
                                      10,
                                      100,
                                      1000,
                                      10000,
                                      100000,
                                      1000000,
                                      10000000,
                                      100000000,
                                      1000000000,
                                      10000000000,
                                      100000000000,
                                      1000000000000,
                                      10000000000000,
                                      100000000000000,
                                      1000000000000000,
                                      10000000000000000,
                                      100000000000000000,
                                      1000000000000000000,
                                      10000000000000000000u};
    /* 1233 / 4096 is the logarithm of two to base ten, a little above: one digit too few at most. */
    unsigned bits = 64 - (unsigned)__builtin_clzll(n | 1), low = bits * 1233 >> 12;
    return low + (n >= powers[low] || n == 0);
}

char *json_write_u64(char *out, uint64_t n)
{
    out += digits_count(n);
    (void)digits_write(out, n);
    return out;
}

static void digits(struct buf *out, uint64_t n, bool negative)
{
    char text[21], *end = text + sizeof text, *at = digits_write(end, n);
    if (negative)
        *--at = '-';
    buf_put(out, at, (size_t)(end - at));
}

void json_text_u64(struct buf *out, uint64_t n)
{
    digits(out, n, false);
}

void json_text_str(struct buf *out, struct str s)
{
    quoted(out, s);
}

static uint64_t magnitude(int64_t n)
{
    return n < 0 ? -(uint64_t)n : (uint64_t)n;
}

void json_u64(struct json_writer *w, uint64_t n)
{
    value_begins(w);
    digits(w->out, n, false);
}

void json_i64(struct json_writer *w, int64_t n)
{
    value_begins(w);
    digits(w->out, magnitude(n), n < 0);
}

void json_u64_str(struct json_writer *w, uint64_t n)
{
    value_begins(w);
    buf_byte(w->out, '"');
    digits(w->out, n, false);
    buf_byte(w->out, '"');
}

void json_i64_str(struct json_writer *w, int64_t n)
{
    value_begins(w);
    buf_byte(w->out, '"');
    digits(w->out, magnitude(n), n < 0);
    buf_byte(w->out, '"');
}

void json_double(struct json_writer *w, double d)
{
    value_begins(w);
    if (isnan(d)) {
        buf_cstr(w->out, "\"NaN\"");
        return;
    }
    if (isinf(d)) {
        buf_cstr(w->out, d < 0 ? "\"-Infinity\"" : "\"Infinity\"");
        return;
    }
    /* Whole numbers that a double holds exactly, but not -0. */
    if (fabs(d) < 1e15 && d == (double)(int64_t)d && !(d == 0 && signbit(d))) {
        digits(w->out, magnitude((int64_t)d), d < 0);
        return;
    }
    char text[64];
    for (int precision = 15; precision <= 17; precision++) {
        snprintf(text, sizeof text, "%.*g", precision, d);
        if (strtod(text, NULL) == d)
            break;
    }
    /* Both calls above use the locale of the program that we are a guest in; JSON has a point. */
    bool point = false;
    for (const char *c = text; *c; c++) {
        if ((*c >= '0' && *c <= '9') || *c == '-' || *c == '+' || *c == 'e') {
            buf_byte(w->out, *c);
        } else if (!point) {
            buf_byte(w->out, '.');
            point = true;
        }
    }
}

void json_bool(struct json_writer *w, bool b)
{
    value_begins(w);
    buf_cstr(w->out, b ? "true" : "false");
}

void json_null(struct json_writer *w)
{
    value_begins(w);
    buf_put(w->out, "null", 4);
}

void json_hex(struct json_writer *w, const uint8_t *bytes, size_t n)
{
    value_begins(w);
    buf_byte(w->out, '"');
    if (n <= SIZE_MAX / 2 && buf_reserve(w->out, 2 * n)) {
        hex_put(w->out->ptr + w->out->len, bytes, n);
        w->out->len += 2 * n;
    }
    buf_byte(w->out, '"');
}

void json_base64(struct json_writer *w, const uint8_t *bytes, size_t n)
{
    value_begins(w);
    buf_byte(w->out, '"');
    if (n && n <= SIZE_MAX / 2 && buf_reserve(w->out, BASE64_SIZE(n))) {
        base64_put(w->out->ptr + w->out->len, bytes, n);
        w->out->len += BASE64_SIZE(n);
    }
    buf_byte(w->out, '"');
}

void json_raw(struct json_writer *w, struct str json)
{
    value_begins(w);
    buf_str(w->out, json);
}

/* ---- reader ---- */

enum state {
    WANT_VALUE,
    WANT_VALUE_OR_END,
    WANT_KEY_OR_END,
    WANT_KEY,
    WANT_COMMA_OR_END,
    WANT_NOTHING,
    FAILED,
};

void json_reader_init(struct json_reader *r, struct str input, struct arena *arena,
                      struct error_detail *ret_detail)
{
    if (!input.ptr)
        input = STR("");
    *r = (struct json_reader){.start = input.ptr,
                              .at = input.ptr,
                              .end = input.ptr + input.len,
                              .token = input.ptr,
                              .arena = arena,
                              .detail = ret_detail,
                              .state = WANT_VALUE};
}

static enum json_type fail_at(struct json_reader *r, const char *where, int err,
                              const char *message)
{
    r->err = error_set(r->detail, err, (size_t)(where - r->start), "%s", message);
    r->state = FAILED;
    return r->type = JSON_ERROR;
}

enum json_type json_fail_with(struct json_reader *r, int err, const char *message)
{
    if (r->state == FAILED)
        return JSON_ERROR;
    return fail_at(r, r->token, err, message);
}

enum json_type json_fail(struct json_reader *r, const char *expected)
{
    if (r->state == FAILED)
        return JSON_ERROR;
    r->err = error_set(r->detail, ERR_INVALID, (size_t)(r->token - r->start), "expected %s",
                       expected);
    r->state = FAILED;
    return r->type = JSON_ERROR;
}

static enum json_type unexpected(struct json_reader *r, const char *where, const char *expected)
{
    if (where == r->end)
        return fail_at(r, where, ERR_TRUNCATED, "the input ends inside a value");
    r->token = where;
    return json_fail(r, expected);
}

static void skip_space(struct json_reader *r)
{
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\n' || *r->at == '\r' || *r->at == '\t'))
        r->at++;
}

static enum json_type value_ended(struct json_reader *r, enum json_type type)
{
    r->state = r->depth ? WANT_COMMA_OR_END : WANT_NOTHING;
    return r->type = type;
}

static bool in_object(const struct json_reader *r)
{
    int level = r->depth - 1;
    return r->is_object[level / 64] >> (level % 64) & 1;
}

static enum json_type open_level(struct json_reader *r, bool object)
{
    if (r->depth == JSON_DEPTH_MAX)
        return fail_at(r, r->at, ERR_TOO_LARGE, "nested too deeply");
    uint64_t bit = UINT64_C(1) << (r->depth % 64);
    if (object)
        r->is_object[r->depth / 64] |= bit;
    else
        r->is_object[r->depth / 64] &= ~bit;
    r->depth++;
    r->at++;
    r->state = object ? WANT_KEY_OR_END : WANT_VALUE_OR_END;
    return r->type = object ? JSON_OBJECT : JSON_ARRAY;
}

static enum json_type close_level(struct json_reader *r)
{
    bool object = in_object(r);
    r->depth--;
    r->at++;
    return value_ended(r, object ? JSON_OBJECT_END : JSON_ARRAY_END);
}

static bool hex4(const char *p, uint32_t *ret)
{
    uint8_t bytes[2];
    if (!hex_get(bytes, (struct str){p, 4}, 2))
        return false;
    *ret = (uint32_t)bytes[0] << 8 | bytes[1];
    return true;
}

static char *utf8_put(char *out, uint32_t point)
{
    if (point < 0x80) {
        *out++ = (char)point;
    } else if (point < 0x800) {
        *out++ = (char)(0xc0 | point >> 6);
        *out++ = (char)(0x80 | (point & 63));
    } else if (point < 0x10000) {
        *out++ = (char)(0xe0 | point >> 12);
        *out++ = (char)(0x80 | (point >> 6 & 63));
        *out++ = (char)(0x80 | (point & 63));
    } else {
        *out++ = (char)(0xf0 | point >> 18);
        *out++ = (char)(0x80 | (point >> 12 & 63));
        *out++ = (char)(0x80 | (point >> 6 & 63));
        *out++ = (char)(0x80 | (point & 63));
    }
    return out;
}

/* \uXXXX, with its other half when it is one of a pair: moves *at past it. */
static bool unicode_escape(const char **at, const char *end, uint32_t *ret_point)
{
    uint32_t point, low;
    const char *p = *at;
    if (end - p < 4 || !hex4(p, &point))
        return false;
    p += 4;
    if (point >= 0xd800 && point <= 0xdbff && end - p >= 6 && p[0] == '\\' && p[1] == 'u' &&
        hex4(p + 2, &low) && low >= 0xdc00 && low <= 0xdfff) {
        point = 0x10000 + ((point - 0xd800) << 10) + (low - 0xdc00);
        p += 6;
    } else if (point >= 0xd800 && point <= 0xdfff) {
        point = 0xfffd;
    }
    *at = p;
    *ret_point = point;
    return true;
}

/* Only the escapes: that the string has an end and no bare control characters is known. */
static bool unescape(struct json_reader *r, struct str raw)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    /* No escape is shorter than what it stands for. */
    char *out = arena_alloc(r->arena, raw.len), *text = out;
    if (!out) {
        fail_at(r, raw.ptr, ERR_NOMEM, "out of memory");
        return false;
    }
    const char *p = raw.ptr, *end = raw.ptr + raw.len;
    while (p < end) {
        const char *backslash = memchr(p, '\\', (size_t)(end - p));
        size_t plain = (size_t)((backslash ? backslash : end) - p);
        memcpy(out, p, plain);
        out += plain;
        p += plain;
        if (p == end)
            break;
        const char *escape_at = p++;
        const char *simple = p < end && *p ? strchr(from, *p) : NULL;
        uint32_t point;
        if (simple) {
            *out++ = to[simple - from];
            p++;
        } else if (p < end && *p == 'u' && (p++, unicode_escape(&p, end, &point))) {
            out = utf8_put(out, point);
        } else {
            fail_at(r, escape_at, ERR_INVALID, "an escape that JSON does not have");
            return false;
        }
    }
    r->text = (struct str){text, (size_t)(out - text)};
    return true;
}

/* At the opening quote; afterwards past the closing one. */
static bool string(struct json_reader *r)
{
    const char *p = r->at + 1;
    bool escapes = false, ascii = true;
    for (;;) {
        p = plain_end(p, r->end);
        if (p == r->end) {
            fail_at(r, p, ERR_TRUNCATED, "the input ends inside a string");
            return false;
        }
        unsigned char c = (unsigned char)*p;
        if (c == '"')
            break;
        if (c < 0x20) {
            fail_at(r, p, ERR_INVALID, "a control character inside a string");
            return false;
        }
        if (c >= 0x80) {
            ascii = false;
            while (p < r->end && (unsigned char)*p >= 0x80)
                p++;
            continue;
        }
        escapes = true;
        if (++p == r->end)
            continue;
        if ((unsigned char)*p < 0x20 || (unsigned char)*p >= 0x80) {
            fail_at(r, p - 1, ERR_INVALID, "an escape that JSON does not have");
            return false;
        }
        p++;
    }
    struct str raw = {r->at + 1, (size_t)(p - r->at - 1)};
    if (!ascii && !str_is_utf8(raw)) {
        fail_at(r, r->at, ERR_INVALID, "a string that is not UTF-8");
        return false;
    }
    r->at = p + 1;
    r->text = raw;
    return !escapes || unescape(r, raw);
}

static enum json_type number(struct json_reader *r)
{
    const char *p = r->at, *end = r->end;
#define DIGIT (p < end && *p >= '0' && *p <= '9')
    if (*p == '-')
        p++;
    if (!DIGIT)
        return unexpected(r, p, "a digit");
    if (*p == '0')
        p++;
    else
        while (DIGIT)
            p++;
    if (DIGIT)
        return unexpected(r, p, "no digit after a leading zero");
    if (p < end && *p == '.') {
        p++;
        if (!DIGIT)
            return unexpected(r, p, "a digit after the point");
        while (DIGIT)
            p++;
    }
    if (p < end && (*p == 'e' || *p == 'E')) {
        p++;
        if (p < end && (*p == '+' || *p == '-'))
            p++;
        if (!DIGIT)
            return unexpected(r, p, "a digit in the exponent");
        while (DIGIT)
            p++;
    }
#undef DIGIT
    r->text = (struct str){r->at, (size_t)(p - r->at)};
    r->at = p;
    return value_ended(r, JSON_NUMBER);
}

static enum json_type word(struct json_reader *r, struct str name, enum json_type type)
{
    size_t i = 0;
    while (i < name.len && r->at + i < r->end && r->at[i] == name.ptr[i])
        i++;
    if (i < name.len && r->at + i == r->end)
        return fail_at(r, r->end, ERR_TRUNCATED, "the input ends inside a value");
    if (i < name.len)
        return json_fail(r, "a value");
    r->at += name.len;
    return value_ended(r, type);
}

static enum json_type value(struct json_reader *r)
{
    switch (*r->at) {
    case '{':
        return open_level(r, true);
    case '[':
        return open_level(r, false);
    case '"':
        return string(r) ? value_ended(r, JSON_STRING) : JSON_ERROR;
    case 't':
        return word(r, STR("true"), JSON_TRUE);
    case 'f':
        return word(r, STR("false"), JSON_FALSE);
    case 'n':
        return word(r, STR("null"), JSON_NULL);
    case '-':
    case '0' ... '9':
        return number(r);
    default:
        return json_fail(r, "a value");
    }
}

static enum json_type key(struct json_reader *r)
{
    if (*r->at != '"')
        return json_fail(r, "a key in quotes");
    if (!string(r))
        return JSON_ERROR;
    skip_space(r);
    if (r->at == r->end || *r->at != ':')
        return unexpected(r, r->at, "a colon");
    r->at++;
    r->state = WANT_VALUE;
    return r->type = JSON_KEY;
}

enum json_type json_next(struct json_reader *r)
{
    if (r->state == FAILED)
        return JSON_ERROR;
    skip_space(r);
    r->text = STR_NONE;
    r->token = r->at;
    if (r->state == WANT_NOTHING) {
        if (r->at < r->end)
            return json_fail(r, "nothing after the value");
        return r->type = JSON_END;
    }
    if (r->at == r->end)
        return fail_at(r, r->at, ERR_TRUNCATED,
                       r->at == r->start ? "the input is empty" : "the input ends inside a value");

    char c = *r->at;
    if (r->state == WANT_COMMA_OR_END) {
        bool object = in_object(r);
        if (c == (object ? '}' : ']'))
            return close_level(r);
        if (c != ',')
            return json_fail(r, object ? "a comma or '}'" : "a comma or ']'");
        r->at++;
        skip_space(r);
        r->token = r->at;
        if (r->at == r->end)
            return fail_at(r, r->at, ERR_TRUNCATED, "the input ends inside a value");
        r->state = object ? WANT_KEY : WANT_VALUE;
    } else if ((r->state == WANT_KEY_OR_END && c == '}') ||
               (r->state == WANT_VALUE_OR_END && c == ']')) {
        return close_level(r);
    }
    return r->state == WANT_KEY || r->state == WANT_KEY_OR_END ? key(r) : value(r);
}

enum json_type json_skip(struct json_reader *r)
{
    if (r->type == JSON_KEY && json_next(r) == JSON_ERROR)
        return JSON_ERROR;
    if (r->type != JSON_OBJECT && r->type != JSON_ARRAY)
        return r->type;
    int outside = r->depth - 1;
    while (r->depth > outside)
        if (json_next(r) == JSON_ERROR)
            return JSON_ERROR;
    return r->type;
}

struct str json_skip_text(struct json_reader *r)
{
    if (r->type == JSON_KEY && json_next(r) == JSON_ERROR)
        return STR_NONE;
    const char *from = r->token;
    if (json_skip(r) == JSON_ERROR)
        return STR_NONE;
    return (struct str){from, (size_t)(r->at - from)};
}

/* ---- numbers ---- */

static bool is_numeric(const struct json_reader *r)
{
    return r->type == JSON_NUMBER || r->type == JSON_STRING;
}

static bool to_double(struct str s, double *ret)
{
    /* Clinger's fast path: digits and power of ten are both exact doubles. */
    static const double powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                    1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                    1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    size_t at = 0, digits_read = 0, after_point = 0;
    uint64_t n = 0;
    bool negative = s.len && s.ptr[0] == '-';
    for (at = negative; at < s.len && s.ptr[at] >= '0' && s.ptr[at] <= '9'; at++, digits_read++)
        if (digits_read < 19)
            n = n * 10 + (uint64_t)(s.ptr[at] - '0');
    if (at == negative)
        return false;
    if (at < s.len && s.ptr[at] == '.') {
        for (at++; at < s.len && s.ptr[at] >= '0' && s.ptr[at] <= '9'; at++, after_point++)
            if (digits_read++ < 19)
                n = n * 10 + (uint64_t)(s.ptr[at] - '0');
        if (!after_point)
            return false;
    }
    if (at == s.len && digits_read < 19 && n <= UINT64_C(1) << 53 && after_point <= 22) {
        double d = (double)n / powers[after_point];
        *ret = negative ? -d : d;
        return true;
    }
    if (at < s.len && (s.ptr[at] == 'e' || s.ptr[at] == 'E')) {
        at++;
        if (at < s.len && (s.ptr[at] == '-' || s.ptr[at] == '+'))
            at++;
        if (at == s.len)
            return false;
        while (at < s.len && s.ptr[at] >= '0' && s.ptr[at] <= '9')
            at++;
    }
    if (at != s.len)
        return false;
    /* The C locale is built into libc: this allocates nothing and needs no freeing. */
    locale_t c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    char small[128], *text = s.len < sizeof small ? small : malloc(s.len + 1);
    if (!text || !c_locale)
        return false;
    memcpy(text, s.ptr, s.len);
    text[s.len] = '\0';
    double d = strtod_l(text, NULL, c_locale);
    if (text != small)
        free(text);
    if (isinf(d)) /* beyond what a double holds */
        return false;
    *ret = d;
    return true;
}

/* "1.0", "1.7e18": spelled as a double, and whole. Digits alone are not: they are exact, and were
 * tried before. */
static bool to_whole(struct str s, double *ret)
{
    double d;
    bool spelled = false;
    for (size_t i = 0; i < s.len; i++)
        spelled |= s.ptr[i] == '.' || s.ptr[i] == 'e' || s.ptr[i] == 'E';
    if (!spelled || !to_double(s, &d) || d != trunc(d))
        return false;
    *ret = d;
    return true;
}

bool json_to_i64(const struct json_reader *r, int64_t *ret)
{
    double d;
    if (!is_numeric(r))
        return false;
    if (str_to_i64(r->text, ret))
        return true;
    if (!to_whole(r->text, &d) || d < -0x1p63 || d >= 0x1p63)
        return false;
    *ret = (int64_t)d;
    return true;
}

bool json_to_u64(const struct json_reader *r, uint64_t *ret)
{
    double d;
    if (!is_numeric(r))
        return false;
    if (str_to_u64(r->text, ret))
        return true;
    if (!to_whole(r->text, &d) || d < 0 || d >= 0x1p64)
        return false;
    *ret = (uint64_t)d;
    return true;
}

bool json_to_double(const struct json_reader *r, double *ret)
{
    if (!is_numeric(r))
        return false;
    if (r->type == JSON_STRING) {
        if (str_eq(r->text, STR("NaN"))) {
            *ret = NAN;
            return true;
        }
        if (str_eq(r->text, STR("Infinity"))) {
            *ret = INFINITY;
            return true;
        }
        if (str_eq(r->text, STR("-Infinity"))) {
            *ret = -INFINITY;
            return true;
        }
    }
    return to_double(r->text, ret);
}
