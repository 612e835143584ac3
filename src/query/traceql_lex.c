#include "query/traceql_lex.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

const char *traceql_op_text(enum traceql_op op)
{
    static const char *const texts[] = {
        [TRACEQL_AND] = "&&",   [TRACEQL_OR] = "||",        [TRACEQL_NOT] = "!",
        [TRACEQL_EQ] = "=",     [TRACEQL_NE] = "!=",        [TRACEQL_LT] = "<",
        [TRACEQL_LE] = "<=",    [TRACEQL_GT] = ">",         [TRACEQL_GE] = ">=",
        [TRACEQL_REGEX] = "=~", [TRACEQL_NOT_REGEX] = "!~", [TRACEQL_ADD] = "+",
        [TRACEQL_SUB] = "-",    [TRACEQL_MUL] = "*",        [TRACEQL_DIV] = "/",
        [TRACEQL_MOD] = "%",    [TRACEQL_POW] = "^",
    };
    return texts[op];
}

const char *token_describe(const struct token *token, char out[64])
{
    if (token->type == TOKEN_END)
        return "the end";
    size_t n = token->text.len > 40 ? 40 : token->text.len;
    /* Not in the middle of a character. */
    while (n < token->text.len && n && ((uint8_t)token->text.ptr[n] & 0xc0) == 0x80)
        n--;
    snprintf(out, 64, "\"%.*s%s\"", (int)n, token->text.ptr, n < token->text.len ? "..." : "");
    return out;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_word(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* What an attribute name may consist of without quotes. */
static bool is_attribute(char c)
{
    return c && !is_space(c) && !strchr("{}()=~!<>&|^,\"", c);
}

static char peek(const struct lexer *l, size_t ahead)
{
    return l->text.len - l->at > ahead ? l->text.ptr[l->at + ahead] : '\0';
}

static void lex_fail(struct lexer *l, struct token *t, int code, size_t position, const char *what)
{
    l->err = error_set(l->detail, code, position, "%s", what);
    t->type = TOKEN_ERROR;
}

/* Passes over blanks and over comments, which are Go's. */
static bool skip_blank(struct lexer *l, struct token *t)
{
    for (;;) {
        while (l->at < l->text.len && is_space(l->text.ptr[l->at]))
            l->at++;
        if (peek(l, 0) != '/' || (peek(l, 1) != '/' && peek(l, 1) != '*'))
            return true;
        size_t start = l->at;
        if (peek(l, 1) == '/') {
            while (l->at < l->text.len && l->text.ptr[l->at] != '\n')
                l->at++;
            continue;
        }
        l->at += 2;
        while (l->at < l->text.len && !(peek(l, 0) == '*' && peek(l, 1) == '/'))
            l->at++;
        if (l->at == l->text.len) {
            lex_fail(l, t, ERR_INVALID, start, "a comment without its end");
            return false;
        }
        l->at += 2;
    }
}

static size_t put_utf8(char *out, uint32_t c)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3f));
        out[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3f));
    out[2] = (char)(0x80 | (c >> 6 & 0x3f));
    out[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

/* The n hexadecimal digits at the place; false when they are not. */
static bool take_hex(struct lexer *l, unsigned n, uint32_t *ret)
{
    uint32_t value = 0;
    for (unsigned i = 0; i < n; i++) {
        char c = peek(l, i);
        uint32_t digit;
        if (is_digit(c))
            digit = (uint32_t)(c - '0');
        else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
            digit = (uint32_t)((c | 0x20) - 'a' + 10);
        else
            return false;
        value = value << 4 | digit;
    }
    l->at += n;
    *ret = value;
    return true;
}

static bool take_escape(struct lexer *l, char *out, size_t *n)
{
    static const char names[] = "abfnrtv\\\"'", bytes[] = "\a\b\f\n\r\t\v\\\"'";
    char c = peek(l, 0);
    const char *name = c ? strchr(names, c) : NULL;
    uint32_t code;
    if (name) {
        l->at++;
        out[(*n)++] = bytes[name - names];
        return true;
    }
    l->at += c != '\0';
    if (c == 'u' || c == 'U') {
        if (!take_hex(l, c == 'u' ? 4 : 8, &code) || code > 0x10ffff ||
            (code >= 0xd800 && code < 0xe000))
            return false;
        *n += put_utf8(out + *n, code);
        return true;
    }
    if (c == 'x') {
        if (!take_hex(l, 2, &code))
            return false;
        out[(*n)++] = (char)code;
        return true;
    }
    if (c >= '0' && c <= '7') { /* three octal digits */
        if (peek(l, 0) < '0' || peek(l, 0) > '7' || peek(l, 1) < '0' || peek(l, 1) > '7')
            return false;
        code = (uint32_t)((c - '0') << 6 | (peek(l, 0) - '0') << 3 | (peek(l, 1) - '0'));
        if (code > 0xff)
            return false;
        l->at += 2;
        out[(*n)++] = (char)code;
        return true;
    }
    return false;
}

static void lex_string(struct lexer *l, struct token *t)
{
    size_t start = l->at++;
    /* An escape never grows: \uXXXX is six bytes for three at most. */
    char *out = arena_alloc(l->arena, l->text.len - l->at + 1);
    if (!out) {
        lex_fail(l, t, ERR_NOMEM, start, "out of memory");
        return;
    }
    size_t n = 0;
    for (;;) {
        if (l->at == l->text.len || peek(l, 0) == '\n') {
            lex_fail(l, t, ERR_INVALID, start, "a string without its closing quote");
            return;
        }
        char c = l->text.ptr[l->at++];
        if (c == '"')
            break;
        if (c != '\\') {
            out[n++] = c;
            continue;
        }
        size_t escape_at = l->at - 1;
        if (!take_escape(l, out, &n)) {
            lex_fail(l, t, ERR_INVALID, escape_at,
                     "an unknown escape; a backslash itself is \\\\, or use `...`");
            return;
        }
    }
    t->type = TOKEN_LITERAL;
    t->literal_type = TRACEQL_STRING;
    t->value = (struct value){.type = VALUE_STRING, .string = {out, n}};
}

static void lex_raw_string(struct lexer *l, struct token *t)
{
    size_t start = l->at++;
    const char *close = memchr(l->text.ptr + l->at, '`', l->text.len - l->at);
    if (!close) {
        lex_fail(l, t, ERR_INVALID, start, "a string without its closing quote");
        return;
    }
    struct str s = {l->text.ptr + l->at, (size_t)(close - l->text.ptr) - l->at};
    l->at += s.len + 1;
    t->type = TOKEN_LITERAL;
    t->literal_type = TRACEQL_STRING;
    t->value = (struct value){.type = VALUE_STRING, .string = s};
}

/* Sums of a number and a unit; `text` consists of digits, dots and letters. Days, weeks and years
 * are Prometheus's. False: it is not a duration. */
static bool duration_parse(struct str text, int64_t *ret)
{
    static const struct {
        const char *unit;
        double ns;
    } units[] = {{"ns", 1},      {"us", 1e3},     {"\xc2\xb5s", 1e3}, {"\xce\xbcs", 1e3},
                 {"ms", 1e6},    {"s", 1e9},      {"m", 60e9},        {"h", 3600e9},
                 {"d", 86400e9}, {"w", 604800e9}, {"y", 31536000e9}};
    size_t n_units = sizeof units / sizeof *units;
    size_t at = 0;
    /* Whole parts are summed exactly, fractions as doubles. */
    unsigned __int128 sum = 0;
    double fractions = 0;
    while (at < text.len) {
        uint64_t whole = 0;
        double fraction = 0, scale = 1;
        size_t digits = 0;
        for (; at < text.len && is_digit(text.ptr[at]); at++, digits++) {
            if (whole > (UINT64_MAX - 9) / 10)
                return false;
            whole = whole * 10 + (uint64_t)(text.ptr[at] - '0');
        }
        if (at < text.len && text.ptr[at] == '.')
            for (at++; at < text.len && is_digit(text.ptr[at]); at++, digits++)
                fraction += (scale /= 10) * (text.ptr[at] - '0');
        if (!digits)
            return false;
        size_t i = 0, unit_len = 0;
        /* The longest unit first where one begins another: ms before m. */
        for (size_t u = 0; u < n_units; u++) {
            struct str unit = str_from(units[u].unit);
            if (unit.len > unit_len && str_starts(str_skip(text, at), unit)) {
                i = u;
                unit_len = unit.len;
            }
        }
        if (!unit_len)
            return false;
        at += unit_len;
        sum += (unsigned __int128)whole * (uint64_t)units[i].ns;
        fractions += fraction * units[i].ns;
    }
    if (sum > INT64_MAX || fractions > 9e18 ||
        (uint64_t)sum > (uint64_t)INT64_MAX - (uint64_t)(fractions + 0.5))
        return false;
    *ret = (int64_t)sum + (int64_t)(fractions + 0.5);
    return true;
}

static void lex_number(struct lexer *l, struct token *t)
{
    size_t start = l->at;
    bool real = false;
    while (is_digit(peek(l, 0)))
        l->at++;
    if (peek(l, 0) == '.') {
        real = true;
        l->at++;
        while (is_digit(peek(l, 0)))
            l->at++;
    }
    size_t exponent = 0;
    if ((peek(l, 0) | 0x20) == 'e') {
        size_t sign = peek(l, 1) == '+' || peek(l, 1) == '-';
        if (is_digit(peek(l, 1 + sign)))
            exponent = 1 + sign;
    }
    t->type = TOKEN_LITERAL;
    if (!exponent) {
        size_t n = 0;
        while (is_word(peek(l, n)) || peek(l, n) == '.' || ((uint8_t)peek(l, n) & 0x80))
            n++;
        if (n) {
            int64_t ns;
            if (!duration_parse((struct str){l->text.ptr + start, l->at + n - start}, &ns)) {
                lex_fail(l, t, ERR_INVALID, start,
                         "expected a number or a duration such as 1.5s, 200ms, 1h30m");
                return;
            }
            l->at += n;
            t->literal_type = TRACEQL_DURATION;
            t->value = (struct value){.type = VALUE_INT, .integer = ns};
            return;
        }
    } else {
        real = true;
        l->at += exponent;
        while (is_digit(peek(l, 0)))
            l->at++;
        if (is_word(peek(l, 0))) {
            lex_fail(l, t, ERR_INVALID, start, "expected a number");
            return;
        }
    }
    struct str text = {l->text.ptr + start, l->at - start};
    if (!real) {
        int64_t n;
        if (!str_to_i64(text, &n)) {
            lex_fail(l, t, ERR_INVALID, start, "this number does not fit 64 bits");
            return;
        }
        t->literal_type = TRACEQL_INT;
        t->value = (struct value){.type = VALUE_INT, .integer = n};
        return;
    }
    struct str copy = arena_str(l->arena, text);
    if (!copy.ptr) {
        lex_fail(l, t, ERR_NOMEM, start, "out of memory");
        return;
    }
    t->literal_type = TRACEQL_FLOAT;
    t->value = (struct value){.type = VALUE_DOUBLE, .real = strtod(copy.ptr, NULL)};
}

/* After the dot: parts with and without quotes run together. */
static void lex_attribute(struct lexer *l, struct token *t, enum traceql_field field)
{
    size_t start = l->at;
    char *out = arena_alloc(l->arena, l->text.len - l->at + 1);
    if (!out) {
        lex_fail(l, t, ERR_NOMEM, start, "out of memory");
        return;
    }
    size_t n = 0;
    while (l->at < l->text.len) {
        char c = peek(l, 0);
        if (is_attribute(c)) {
            out[n++] = c;
            l->at++;
            continue;
        }
        if (c != '"')
            break;
        size_t quote = l->at++;
        while (l->at < l->text.len && (c = peek(l, 0)) != '"') {
            l->at++;
            if (c == '\\') {
                c = peek(l, 0);
                if (c != '"' && c != '\\') {
                    lex_fail(l, t, ERR_INVALID, l->at - 1,
                             "in a quoted attribute name only \\\" and \\\\ are escapes");
                    return;
                }
                l->at++;
            }
            out[n++] = c;
        }
        if (l->at == l->text.len) {
            lex_fail(l, t, ERR_INVALID, quote, "an attribute name without its closing quote");
            return;
        }
        l->at++;
    }
    if (l->at == start) {
        lex_fail(l, t, ERR_INVALID, start, "expected an attribute name after the dot");
        return;
    }
    t->type = TOKEN_ATTRIBUTE;
    t->field = field;
    t->key = (struct str){out, n};
}

static const struct {
    const char *word;
    uint8_t literal_type;
    int64_t integer;
} literal_words[] = {
    {"true", TRACEQL_BOOL, 1},
    {"false", TRACEQL_BOOL, 0},
    {"nil", TRACEQL_NIL, 0},
    {"unset", TRACEQL_STATUS, STATUS_UNSET},
    {"ok", TRACEQL_STATUS, STATUS_OK},
    {"error", TRACEQL_STATUS, STATUS_ERROR},
    {"unspecified", TRACEQL_KIND, SPAN_KIND_UNSPECIFIED},
    {"internal", TRACEQL_KIND, SPAN_KIND_INTERNAL},
    {"server", TRACEQL_KIND, SPAN_KIND_SERVER},
    {"client", TRACEQL_KIND, SPAN_KIND_CLIENT},
    {"producer", TRACEQL_KIND, SPAN_KIND_PRODUCER},
    {"consumer", TRACEQL_KIND, SPAN_KIND_CONSUMER},
};

static const struct {
    const char *word;
    uint8_t field;
} scopes[] = {
    {"span", TRACEQL_SPAN_ATTR},   {"resource", TRACEQL_RESOURCE_ATTR},
    {"event", TRACEQL_EVENT_ATTR}, {"link", TRACEQL_LINK_ATTR},
    {"parent", TRACEQL_ANY_ATTR},  {"instrumentation", TRACEQL_SCOPE_ATTR},
};

static void lex_word(struct lexer *l, struct token *t)
{
    size_t start = l->at;
    while (is_word(peek(l, 0)))
        l->at++;
    struct str word = {l->text.ptr + start, l->at - start};
    if (peek(l, 0) == '.') {
        for (size_t i = 0; i < sizeof scopes / sizeof *scopes; i++) {
            if (!str_eq(word, str_from(scopes[i].word)))
                continue;
            uint8_t field = scopes[i].field;
            l->at++;
            t->of_parent = str_eq(word, STR("parent"));
            if (t->of_parent && str_starts(str_skip(l->text, l->at), STR("span."))) {
                l->at += 5;
                field = TRACEQL_SPAN_ATTR;
            } else if (t->of_parent && str_starts(str_skip(l->text, l->at), STR("resource."))) {
                l->at += 9;
                field = TRACEQL_RESOURCE_ATTR;
            }
            lex_attribute(l, t, field);
            return;
        }
        lex_fail(l, t, ERR_INVALID, start,
                 "expected a scope before the dot: span, resource, parent, event, link or "
                 "instrumentation");
        return;
    }
    if (peek(l, 0) == ':' && is_word(peek(l, 1))) {
        l->at++;
        while (is_word(peek(l, 0)))
            l->at++;
        t->type = TOKEN_INTRINSIC;
        return;
    }
    for (size_t i = 0; i < sizeof literal_words / sizeof *literal_words; i++) {
        if (!str_eq(word, str_from(literal_words[i].word)))
            continue;
        t->type = TOKEN_LITERAL;
        t->literal_type = literal_words[i].literal_type;
        t->value = t->literal_type == TRACEQL_NIL ? (struct value){0}
                   : t->literal_type == TRACEQL_BOOL
                       ? (struct value){.type = VALUE_BOOL, .boolean = literal_words[i].integer}
                       : (struct value){.type = VALUE_INT, .integer = literal_words[i].integer};
        return;
    }
    t->type = TOKEN_WORD;
}

static const struct {
    const char *text;
    uint8_t type, op;
} operators[] = {
    /* The longest first where one begins another. `>`, `<` and `!~` have two meanings. */
    {"&>>", TOKEN_STRUCTURAL, TRACEQL_UNION_DESCENDANT},
    {"&<<", TOKEN_STRUCTURAL, TRACEQL_UNION_ANCESTOR},
    {"!>>", TOKEN_STRUCTURAL, TRACEQL_NOT_DESCENDANT},
    {"!<<", TOKEN_STRUCTURAL, TRACEQL_NOT_ANCESTOR},
    {"&&", TOKEN_OP, TRACEQL_AND},
    {"||", TOKEN_OP, TRACEQL_OR},
    {"!=", TOKEN_OP, TRACEQL_NE},
    {"!~", TOKEN_OP, TRACEQL_NOT_REGEX},
    {"=~", TOKEN_OP, TRACEQL_REGEX},
    {">=", TOKEN_OP, TRACEQL_GE},
    {"<=", TOKEN_OP, TRACEQL_LE},
    {">>", TOKEN_STRUCTURAL, TRACEQL_DESCENDANT},
    {"<<", TOKEN_STRUCTURAL, TRACEQL_ANCESTOR},
    {"&>", TOKEN_STRUCTURAL, TRACEQL_UNION_CHILD},
    {"&<", TOKEN_STRUCTURAL, TRACEQL_UNION_PARENT},
    {"&~", TOKEN_STRUCTURAL, TRACEQL_UNION_SIBLING},
    {"!>", TOKEN_STRUCTURAL, TRACEQL_NOT_CHILD},
    {"!<", TOKEN_STRUCTURAL, TRACEQL_NOT_PARENT},
    {"=", TOKEN_OP, TRACEQL_EQ},
    {">", TOKEN_OP, TRACEQL_GT},
    {"<", TOKEN_OP, TRACEQL_LT},
    {"!", TOKEN_OP, TRACEQL_NOT},
    {"+", TOKEN_OP, TRACEQL_ADD},
    {"-", TOKEN_OP, TRACEQL_SUB},
    {"*", TOKEN_OP, TRACEQL_MUL},
    {"/", TOKEN_OP, TRACEQL_DIV},
    {"%", TOKEN_OP, TRACEQL_MOD},
    {"^", TOKEN_OP, TRACEQL_POW},
    {"~", TOKEN_STRUCTURAL, TRACEQL_SIBLING},
    {"|", TOKEN_PIPE, 0},
    {"{", TOKEN_BRACE_OPEN, 0},
    {"}", TOKEN_BRACE_CLOSE, 0},
    {"(", TOKEN_PAREN_OPEN, 0},
    {")", TOKEN_PAREN_CLOSE, 0},
    {",", TOKEN_COMMA, 0},
};

static void lex_operator(struct lexer *l, struct token *t)
{
    struct str rest = str_skip(l->text, l->at);
    for (size_t i = 0; i < sizeof operators / sizeof *operators; i++) {
        struct str text = str_from(operators[i].text);
        if (!str_starts(rest, text))
            continue;
        l->at += text.len;
        t->type = operators[i].type;
        t->op = operators[i].op;
        return;
    }
    char c = peek(l, 0);
    if (c == '\'')
        lex_fail(l, t, ERR_INVALID, l->at, "strings stand in double quotes or in backticks");
    else if (c == '&')
        lex_fail(l, t, ERR_INVALID, l->at,
                 "expected \"&&\", \"&>\", \"&>>\", \"&<\", \"&<<\" or \"&~\"");
    else
        lex_fail(l, t, ERR_INVALID, l->at, "this character means nothing here");
}

void lexer_next(struct lexer *l, struct token *ret)
{
    struct token t = {0};
    if (skip_blank(l, &t)) {
        t.position = (uint32_t)l->at;
        char c = peek(l, 0);
        if (l->at == l->text.len) {
            t.type = TOKEN_END;
        } else if (c == '"') {
            lex_string(l, &t);
        } else if (c == '`') {
            lex_raw_string(l, &t);
        } else if (is_digit(c) || (c == '.' && is_digit(peek(l, 1)))) {
            lex_number(l, &t);
        } else if (c == '.') {
            l->at++;
            lex_attribute(l, &t, TRACEQL_ANY_ATTR);
        } else if (is_word(c)) {
            lex_word(l, &t);
        } else {
            lex_operator(l, &t);
        }
        t.end = (uint32_t)l->at;
        t.text = (struct str){l->text.ptr + t.position, t.end - t.position};
    }
    *ret = t;
}
