/* Tokens of PromQL. Keywords are identifiers here: which they are depends on where they stand. */
#include "query/promql_internal.h"

#include <math.h>

static void fail(struct promql_lexer *lx, size_t at, const char *message)
{
    lx->token = TOKEN_ERROR;
    error_set(lx->detail, ERR_INVALID, at, "%s", message);
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static char peek(const struct promql_lexer *lx, size_t ahead)
{
    return ahead < lx->input.len - lx->at ? lx->input.ptr[lx->at + ahead] : '\0';
}

/* ---- durations ---- */

/* "1h30m": units from the largest to the smallest, each once. How much of the text it takes; 0: it is none. */
static size_t duration_scan(struct str s, int64_t *ret)
{
    static const struct {
        const char *unit;
        int64_t ms;
    } units[] = {{"y", INT64_C(365) * 86400000},
                 {"w", INT64_C(7) * 86400000},
                 {"d", 86400000},
                 {"h", 3600000},
                 {"m", 60000},
                 {"s", 1000},
                 {"ms", 1}};
    enum { UNITS = sizeof units / sizeof *units };
    size_t at = 0, next = 0;
    int64_t sum = 0;
    while (at < s.len && is_digit(s.ptr[at])) {
        int64_t n = 0, add;
        size_t i = at, k = UNITS;
        for (; i < s.len && is_digit(s.ptr[i]); i++)
            if (__builtin_mul_overflow(n, 10, &n) || __builtin_add_overflow(n, s.ptr[i] - '0', &n))
                return 0;
        struct str rest = str_skip(s, i);
        for (size_t u = next; u < UNITS; u++)
            if (str_starts(rest, str_from(units[u].unit)) &&
                (k == UNITS || strlen(units[u].unit) > strlen(units[k].unit)))
                k = u;
        if (k == UNITS || __builtin_mul_overflow(n, units[k].ms, &add) ||
            __builtin_add_overflow(sum, add, &sum))
            return 0;
        next = k + 1;
        at = i + strlen(units[k].unit);
    }
    /* A later sum of a time and a few of these must not overflow. */
    if (sum > INT64_MAX / 16)
        return 0;
    *ret = sum;
    return at;
}

bool promql_duration_ms(struct str text, int64_t *ret)
{
    int64_t ms;
    if (str_eq(text, STR("0"))) {
        *ret = 0;
        return true;
    }
    if (!text.len || duration_scan(text, &ms) != text.len)
        return false;
    *ret = ms;
    return true;
}

/* ---- strings ---- */

static void put_utf8(char *out, size_t *n, uint32_t c)
{
    if (c < 0x80) {
        out[(*n)++] = (char)c;
    } else if (c < 0x800) {
        out[(*n)++] = (char)(0xc0 | c >> 6);
        out[(*n)++] = (char)(0x80 | (c & 0x3f));
    } else if (c < 0x10000) {
        out[(*n)++] = (char)(0xe0 | c >> 12);
        out[(*n)++] = (char)(0x80 | (c >> 6 & 0x3f));
        out[(*n)++] = (char)(0x80 | (c & 0x3f));
    } else {
        out[(*n)++] = (char)(0xf0 | c >> 18);
        out[(*n)++] = (char)(0x80 | (c >> 12 & 0x3f));
        out[(*n)++] = (char)(0x80 | (c >> 6 & 0x3f));
        out[(*n)++] = (char)(0x80 | (c & 0x3f));
    }
}

static bool number_of(struct str s, unsigned base, uint32_t *ret)
{
    uint32_t n = 0;
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        unsigned digit = is_digit(c)            ? (unsigned)(c - '0')
                         : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a' + 10)
                         : c >= 'A' && c <= 'F' ? (unsigned)(c - 'A' + 10)
                                                : 16;
        if (digit >= base)
            return false;
        n = n * base + digit;
    }
    *ret = n;
    return true;
}

/* What stands behind a backslash, as in Go. Returns how much of the input it takes; 0: nothing known. */
static size_t escape(struct str s, char quote, char *out, size_t *n)
{
    static const char letters[] = "abfnrtv\\", means[] = "\a\b\f\n\r\t\v\\";
    char c = s.len ? s.ptr[0] : '\0';
    const char *at = c ? strchr(letters, c) : NULL;
    uint32_t code = 0;
    if (at || (c && c == quote)) {
        out[(*n)++] = at ? means[at - letters] : quote;
        return 1;
    }
    size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : c >= '0' && c <= '7' ? 3 : 0;
    size_t skip = digits == 3 ? 0 : 1;
    if (!digits || s.len < skip + digits ||
        !number_of((struct str){s.ptr + skip, digits}, digits == 3 ? 8 : 16, &code))
        return 0;
    if (c == 'x' || digits == 3) {
        if (code > 0xff)
            return 0;
        out[(*n)++] = (char)code;
    } else {
        if (code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
            return 0;
        put_utf8(out, n, code);
    }
    return skip + digits;
}

static void lex_string(struct promql_lexer *lx, char quote)
{
    size_t at = lx->at + 1, n = 0;
    bool escaped = false;
    while (at < lx->input.len && lx->input.ptr[at] != quote) {
        if (lx->input.ptr[at] == '\n' && quote != '`') {
            fail(lx, lx->at, "the string is not closed on its line");
            return;
        }
        bool backslash = lx->input.ptr[at] == '\\' && quote != '`';
        escaped |= backslash;
        at += backslash ? 2 : 1;
    }
    if (at >= lx->input.len) {
        fail(lx, lx->at, "the string is not closed");
        return;
    }
    struct str raw = {lx->input.ptr + lx->at + 1, at - lx->at - 1};
    lx->token = TOKEN_STRING;
    lx->text = raw;
    lx->at = at + 1;
    if (!escaped)
        return;
    char *out = arena_alloc(lx->arena, raw.len + 1);
    for (size_t i = 0; out && i < raw.len; i++) {
        if (raw.ptr[i] != '\\') {
            out[n++] = raw.ptr[i];
            continue;
        }
        size_t took = escape(str_skip(raw, i + 1), quote, out, &n);
        if (!took) {
            fail(lx, lx->position + 1 + i, "there is no such escape in a string");
            return;
        }
        i += took;
    }
    if (!out) {
        lx->token = TOKEN_ERROR;
        error_set(lx->detail, ERR_NOMEM, lx->position, "out of memory");
    }
    lx->text = (struct str){out, n};
}

/* ---- numbers ---- */

static bool hexadecimal(struct str s, double *ret)
{
    double n = 0;
    uint32_t digit;
    for (size_t i = 2; i < s.len; i++) {
        if (!number_of((struct str){s.ptr + i, 1}, 16, &digit))
            return false;
        n = n * 16 + digit;
    }
    *ret = n;
    return s.len > 2;
}

static void lex_number(struct promql_lexer *lx)
{
    struct str rest = str_skip(lx->input, lx->at);
    int64_t ms;
    size_t n = duration_scan(rest, &ms);
    if (n && !(n < rest.len && (is_letter(rest.ptr[n]) || is_digit(rest.ptr[n])))) {
        lx->token = TOKEN_DURATION;
        lx->duration_ms = ms;
        lx->text = (struct str){rest.ptr, n};
        lx->at += n;
        return;
    }
    for (n = 0; n < rest.len; n++) {
        char c = rest.ptr[n];
        bool sign = (c == '+' || c == '-') && n && (rest.ptr[n - 1] | 0x20) == 'e' &&
                    !(rest.len > 1 && (rest.ptr[1] | 0x20) == 'x');
        if (!is_digit(c) && !is_letter(c) && c != '.' && !sign)
            break;
    }
    lx->token = TOKEN_NUMBER;
    lx->text = (struct str){rest.ptr, n};
    lx->at += n;
    bool hex = n > 1 && rest.ptr[0] == '0' && (rest.ptr[1] | 0x20) == 'x';
    if (!(hex ? hexadecimal(lx->text, &lx->number) : str_to_double(lx->text, &lx->number)))
        fail(lx, lx->position,
             "expected a number such as 1.5, 1e3, 0x1f, or a duration such as 5m");
}

/* ---- the rest ---- */

static void skip_blank(struct promql_lexer *lx)
{
    for (; lx->at < lx->input.len; lx->at++) {
        char c = lx->input.ptr[lx->at];
        if (c == '#') {
            while (lx->at < lx->input.len && lx->input.ptr[lx->at] != '\n')
                lx->at++;
            lx->at -= lx->at == lx->input.len;
        } else if (c != ' ' && c != '\t' && c != '\n' && c != '\r') {
            break;
        }
    }
}

static void lex_sign(struct promql_lexer *lx)
{
    static const struct {
        char text[3];
        enum promql_token token;
    } pairs[] = {{"==", TOKEN_EQL}, {"!=", TOKEN_NEQ}, {"<=", TOKEN_LTE},
                 {">=", TOKEN_GTE}, {"=~", TOKEN_RE},  {"!~", TOKEN_NRE}};
    char c = peek(lx, 0);
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        if (c == pairs[i].text[0] && peek(lx, 1) == pairs[i].text[1]) {
            lx->token = pairs[i].token;
            lx->at += 2;
            return;
        }
    lx->at++;
    lx->sign = c;
    lx->token = c == '<' ? TOKEN_LSS : c == '>' ? TOKEN_GTR : TOKEN_SIGN;
    if (!strchr("<>(){}[],:@+-*/%^=", c))
        fail(lx, lx->position, "there is no such sign in PromQL");
}

void promql_lex(struct promql_lexer *lx)
{
    skip_blank(lx);
    lx->position = lx->at;
    lx->sign = '\0';
    lx->text = STR_NONE;
    char c = peek(lx, 0);
    if (lx->at >= lx->input.len) {
        lx->token = TOKEN_END;
    } else if (is_letter(c)) {
        size_t n = 1;
        while (is_letter(peek(lx, n)) || is_digit(peek(lx, n)) || peek(lx, n) == ':')
            n++;
        lx->token = TOKEN_IDENTIFIER;
        lx->text = (struct str){lx->input.ptr + lx->at, n};
        lx->at += n;
    } else if (is_digit(c) || (c == '.' && is_digit(peek(lx, 1)))) {
        lex_number(lx);
    } else if (c == '"' || c == '\'' || c == '`') {
        lex_string(lx, c);
    } else if (c) {
        lex_sign(lx);
    } else {
        lx->at++;
        fail(lx, lx->position, "there is no such sign in PromQL");
    }
    lx->end = lx->at;
}
