/* A recursive descent over the grammar, one function for each of its nouns. All of them return 0 or
 * an error code that fail() has made; `at` is then of no interest any more.
 *
 * Who may add to a table that is there already (the part of the specification that takes most
 * care):
 *     [a.b]  passes through any table but an inline one, and through the last of an [[array]];
 *            ends in a new table, or in one that only a longer header has named so far (IMPLICIT)
 *     [[a]]  ends in a new array, or in one made by [[a]]
 *     a.b=1  passes through tables made by dotted keys, and through those that no header has
 *            defined; ends in a new key */
#include "base/toml.h"

#define NUMBER_MAX 128 /* characters of a number */

struct parser {
    const char *start, *at, *end;
    struct arena *arena;
    struct error_detail *detail;
    struct toml_place *place;
    uint32_t line;
    const char *line_start;
    size_t n_keys;
    int depth;
};

/* ---- places and failures ---- */

static uint32_t column_of(const char *line_start, const char *at)
{
    uint32_t column = 1;
    for (const char *p = line_start; p < at; p++)
        column += ((unsigned char)*p & 0xc0) != 0x80;
    return column;
}

static struct toml_place here(const struct parser *p)
{
    return (struct toml_place){.line = p->line,
                               .column = column_of(p->line_start, p->at),
                               .start = (size_t)(p->at - p->start),
                               .end = (size_t)(p->at - p->start)};
}

static int fail_code(struct parser *p, int code, const char *message)
{
    if (p->place)
        *p->place = here(p);
    return error_set(p->detail, code, (size_t)(p->at - p->start), "%s", message);
}

static int fail(struct parser *p, const char *expected)
{
    return fail_code(p, ERR_INVALID, expected);
}

static int fail_defined(struct parser *p, const struct toml_place *at, struct str key,
                        const struct toml_entry *before)
{
    if (p->place)
        *p->place = *at;
    return error_set(p->detail, ERR_INVALID, at->start, "\"%.*s\" is defined already, in line %u",
                     key.len > 60 ? 60 : (int)key.len, key.ptr, before->at.line);
}

static int no_memory(struct parser *p)
{
    return fail_code(p, ERR_NOMEM, "out of memory");
}

const char *toml_type_name(enum toml_type type)
{
    static const char *const names[] = {"a string",         "an integer", "a float", "a boolean",
                                        "a date or a time", "an array",   "a table"};
    return names[type];
}

/* ---- characters ---- */

static int peek(const struct parser *p)
{
    return p->at < p->end ? (unsigned char)*p->at : -1;
}

static int peek_at(const struct parser *p, size_t n)
{
    return (size_t)(p->end - p->at) > n ? (unsigned char)p->at[n] : -1;
}

static bool looking_at(const struct parser *p, const char *word)
{
    return str_starts((struct str){p->at, (size_t)(p->end - p->at)}, str_from(word));
}

static void skip_blanks(struct parser *p)
{
    while (peek(p) == ' ' || peek(p) == '\t')
        p->at++;
}

/* At a line feed, or at a carriage return before one: over it. */
static bool newline(struct parser *p)
{
    if (peek(p) == '\r' && peek_at(p, 1) == '\n')
        p->at++;
    else if (peek(p) != '\n')
        return false;
    p->at++;
    p->line++;
    p->line_start = p->at;
    return true;
}

static bool is_control(int c)
{
    return (c >= 0 && c < 0x20 && c != '\t') || c == 0x7f;
}

static int comment(struct parser *p)
{
    if (peek(p) != '#')
        return 0;
    while (p->at < p->end && *p->at != '\n' && !(*p->at == '\r' && peek_at(p, 1) == '\n')) {
        if (is_control(peek(p)))
            return fail(p, "a control character in a comment");
        p->at++;
    }
    return 0;
}

/* What may stand behind a header or a value: blanks, a comment, the end of the line. */
static int line_end(struct parser *p, const char *expected)
{
    skip_blanks(p);
    int err = comment(p);
    if (err)
        return err;
    return p->at == p->end || newline(p) ? 0 : fail(p, expected);
}

/* Between the items of an array. */
static int skip_space(struct parser *p)
{
    int err = 0;
    do {
        skip_blanks(p);
        err = comment(p);
    } while (!err && newline(p));
    return err;
}

/* ---- strings ---- */

static char *put_utf8(char *out, uint32_t c)
{
    if (c < 0x80) {
        *out++ = (char)c;
    } else if (c < 0x800) {
        *out++ = (char)(0xc0 | c >> 6);
        *out++ = (char)(0x80 | (c & 0x3f));
    } else if (c < 0x10000) {
        *out++ = (char)(0xe0 | c >> 12);
        *out++ = (char)(0x80 | (c >> 6 & 0x3f));
        *out++ = (char)(0x80 | (c & 0x3f));
    } else {
        *out++ = (char)(0xf0 | c >> 18);
        *out++ = (char)(0x80 | (c >> 12 & 0x3f));
        *out++ = (char)(0x80 | (c >> 6 & 0x3f));
        *out++ = (char)(0x80 | (c & 0x3f));
    }
    return out;
}

static int hex_value(int c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static int unicode(struct parser *p, size_t digits, char **out)
{
    uint32_t c = 0;
    for (size_t i = 0; i < digits; i++) {
        int v = hex_value(peek_at(p, 2 + i));
        if (v < 0)
            return fail(p, digits == 4 ? "\\u needs four hexadecimal digits"
                                       : "\\U needs eight hexadecimal digits");
        c = c << 4 | (uint32_t)v;
    }
    if (c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
        return fail(p, "this is no Unicode character");
    *out = put_utf8(*out, c);
    p->at += 2 + digits;
    return 0;
}

static int escape(struct parser *p, char **out)
{
    static const char names[] = "btnfr\"\\", bytes[] = "\b\t\n\f\r\"\\";
    int c = peek_at(p, 1);
    if (c == 'u' || c == 'U')
        return unicode(p, c == 'u' ? 4 : 8, out);
    const char *name = c > 0 ? strchr(names, c) : NULL;
    if (!name)
        return fail(p, "this escape is not known: expected one of \\b \\t \\n \\f \\r \\\" \\\\ "
                       "\\uXXXX \\UXXXXXXXX (in '...' a backslash is itself)");
    *(*out)++ = bytes[name - names];
    p->at += 2;
    return 0;
}

/* A backslash at the end of a line of """: over all white space behind it. */
static bool line_continues(struct parser *p)
{
    const char *before = p->at++;
    skip_blanks(p);
    if (!newline(p)) {
        p->at = before;
        return false;
    }
    do
        skip_blanks(p);
    while (newline(p));
    return true;
}

/* At the quotes that may end a long string: copies those that belong to it. True: it has ended. */
static bool long_end(struct parser *p, char quote, char **out)
{
    size_t n = 0;
    while (n < 5 && peek_at(p, n) == quote)
        n++;
    size_t own = n < 3 ? n : n - 3;
    for (size_t i = 0; i < own; i++)
        *(*out)++ = quote;
    p->at += n;
    return n >= 3;
}

/* An escape is never shorter than what it stands for, so the text's own length is room enough. */
static size_t room_for(const struct parser *p, char quote, bool is_long)
{
    const char *q = p->at;
    for (; q < p->end; q++) {
        if (quote == '"' && *q == '\\')
            q++;
        else if (*q == '\n' && !is_long)
            break;
        else if (*q == quote && (!is_long || (p->end - q >= 3 && q[1] == quote && q[2] == quote)))
            break;
    }
    return (size_t)((q < p->end ? q : p->end) - p->at) + 8;
}

static int string(struct parser *p, struct str *ret, bool may_be_long)
{
    char quote = *p->at;
    bool is_long = peek_at(p, 1) == quote && peek_at(p, 2) == quote;
    if (is_long && !may_be_long)
        return fail(p, "a key cannot be a string of several lines");
    p->at += is_long ? 3 : 1;
    if (is_long)
        newline(p);
    char *text = arena_alloc(p->arena, room_for(p, quote, is_long)), *out = text;
    if (!text)
        return no_memory(p);
    for (;;) {
        int c = peek(p), err = 0;
        if (c < 0 || (!is_long && (c == '\n' || (c == '\r' && peek_at(p, 1) == '\n'))))
            return fail(p, is_long ? "the string does not end: expected three quotes"
                                   : "the string does not end in its line: expected a quote");
        if (c == quote && !is_long) {
            p->at++;
            break;
        }
        if (c == quote) {
            if (long_end(p, quote, &out))
                break;
        } else if (c == '\\' && quote == '"') {
            if (!is_long || !line_continues(p))
                err = escape(p, &out);
        } else if (c == '\n' || (c == '\r' && peek_at(p, 1) == '\n')) {
            if (c == '\r')
                *out++ = '\r';
            *out++ = '\n';
            newline(p);
        } else if (is_control(c)) {
            err = fail(p, "a control character in a string: write it as an escape");
        } else {
            *out++ = *p->at++;
        }
        if (err)
            return err;
    }
    *out = 0;
    *ret = (struct str){text, (size_t)(out - text)};
    return 0;
}

/* ---- numbers, dates ---- */

static bool is_digit(int c)
{
    return c >= '0' && c <= '9';
}

static bool two(const char *s, int max, int *ret)
{
    if (!is_digit(s[0]) || !is_digit(s[1]))
        return false;
    *ret = (s[0] - '0') * 10 + (s[1] - '0');
    return *ret <= max;
}

static bool is_date(const char *s, size_t n)
{
    static const int days[] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int century, year, month, day;
    if (n < 10 || !two(s, 99, &century) || !two(s + 2, 99, &year) || s[4] != '-' ||
        !two(s + 5, 12, &month) || s[7] != '-' || !two(s + 8, 31, &day))
        return false;
    year += century * 100;
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return month >= 1 && day >= 1 && day <= days[month - 1] && (month != 2 || day < 29 || leap);
}

/* "hh:mm:ss[.digits]": how long it is, 0 when it is none. A second of 60 is a leap second. */
static size_t time_length(const char *s, size_t n)
{
    int ignored;
    if (n < 8 || !two(s, 23, &ignored) || s[2] != ':' || !two(s + 3, 59, &ignored) || s[5] != ':' ||
        !two(s + 6, 60, &ignored))
        return 0;
    if (n == 8 || s[8] != '.')
        return 8;
    size_t end = 9;
    while (end < n && is_digit(s[end]))
        end++;
    return end > 9 ? end : 0;
}

static bool is_offset(const char *s, size_t n)
{
    int ignored;
    if (n == 1)
        return s[0] == 'Z' || s[0] == 'z';
    return n == 6 && (s[0] == '+' || s[0] == '-') && two(s + 1, 23, &ignored) && s[3] == ':' &&
           two(s + 4, 59, &ignored);
}

static bool is_datetime(struct str s)
{
    size_t n = s.len, clock;
    if (n > 2 && s.ptr[2] == ':')
        return time_length(s.ptr, n) == n;
    if (!is_date(s.ptr, n))
        return false;
    if (n == 10)
        return true;
    if (s.ptr[10] != 'T' && s.ptr[10] != 't' && s.ptr[10] != ' ')
        return false;
    clock = time_length(s.ptr + 11, n - 11);
    if (!clock)
        return false;
    return 11 + clock == n || is_offset(s.ptr + 11 + clock, n - 11 - clock);
}

/* Takes the underscores out; false unless each stands between two digits. */
static bool strip(struct str s, char *out, size_t size, bool hexadecimal)
{
    size_t n = 0;
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] != '_') {
            if (n + 1 == size)
                return false;
            out[n++] = s.ptr[i];
            continue;
        }
        if (i == 0 || i + 1 == s.len)
            return false;
        int before = (unsigned char)s.ptr[i - 1], after = (unsigned char)s.ptr[i + 1];
        if (hexadecimal ? hex_value(before) < 0 || hex_value(after) < 0
                        : !is_digit(before) || !is_digit(after))
            return false;
    }
    out[n] = 0;
    return true;
}

static bool prefixed(struct str s, struct toml_value *v)
{
    char digits[NUMBER_MAX];
    unsigned base = s.ptr[1] == 'x' ? 16 : s.ptr[1] == 'o' ? 8 : 2;
    uint64_t n = 0;
    if (!strip(str_skip(s, 2), digits, sizeof digits, base == 16) || !digits[0])
        return false;
    for (const char *d = digits; *d; d++) {
        int digit = hex_value((unsigned char)*d);
        if (digit < 0 || (unsigned)digit >= base || n > (uint64_t)INT64_MAX / base)
            return false;
        n = n * base + (unsigned)digit;
    }
    if (n > INT64_MAX)
        return false;
    v->type = TOML_INTEGER;
    v->integer = (int64_t)n;
    return true;
}

static bool decimal(struct str s, struct toml_value *v)
{
    char text[NUMBER_MAX];
    if (!strip(s, text, sizeof text, false))
        return false;
    const char *d = text + (text[0] == '+' || text[0] == '-'), *first = d;
    while (is_digit(*d))
        d++;
    if (d == first || (*first == '0' && d - first > 1))
        return false;
    if (!*d) {
        v->type = TOML_INTEGER;
        return str_to_i64(str_from(text[0] == '+' ? text + 1 : text), &v->integer);
    }
    if (*d == '.') {
        const char *fraction = ++d;
        while (is_digit(*d))
            d++;
        if (d == fraction)
            return false;
    }
    if (*d == 'e' || *d == 'E') {
        d++;
        d += *d == '+' || *d == '-';
        const char *exponent = d;
        while (is_digit(*d))
            d++;
        if (d == exponent)
            return false;
    }
    v->type = TOML_FLOAT;
    return !*d && str_to_double(str_from(text), &v->real);
}

static bool special_float(struct str s, struct toml_value *v)
{
    bool negative = s.len && s.ptr[0] == '-';
    if (s.len == 4 && (negative || s.ptr[0] == '+'))
        s = str_skip(s, 1);
    if (!str_eq(s, STR("inf")) && !str_eq(s, STR("nan")))
        return false;
    v->type = TOML_FLOAT;
    v->real = s.ptr[0] == 'i' ? __builtin_inf() : __builtin_nan("");
    if (negative)
        v->real = -v->real;
    return true;
}

/* A word that is not in quotes: a boolean, a number, a date. */
static int bare_value(struct parser *p, struct toml_value *v)
{
    const char *start = p->at, *q = p->at;
    while (q < p->end && !strchr(" \t\r\n,]}#=[{\"'", *q) && *q)
        q++;
    /* "1979-05-27 07:32:00": the one value with a blank inside. */
    if (q - start == 10 && p->end - q >= 3 && *q == ' ' && is_digit(q[1]) && is_digit(q[2]) &&
        is_date(start, 10)) {
        q++;
        while (q < p->end && !strchr(" \t\r\n,]}#", *q) && *q)
            q++;
    }
    struct str s = {start, (size_t)(q - start)};
    bool known = true;
    if (str_eq(s, STR("true")) || str_eq(s, STR("false"))) {
        v->type = TOML_BOOL;
        v->boolean = s.len == 4;
    } else if (s.len > 2 && s.ptr[0] == '0' && strchr("xob", s.ptr[1])) {
        known = prefixed(s, v);
    } else if (s.len > 4 && (s.ptr[2] == ':' || (s.ptr[4] == '-' && is_digit(s.ptr[0])))) {
        known = is_datetime(s);
        v->type = TOML_DATETIME;
        v->text = s;
    } else if (s.len && (is_digit(s.ptr[0]) || s.ptr[0] == '+' || s.ptr[0] == '-' ||
                         s.ptr[0] == 'i' || s.ptr[0] == 'n')) {
        known = special_float(s, v) || decimal(s, v);
    } else {
        known = false;
    }
    if (!known && s.len == 0)
        return fail(p, "expected a value");
    if (!known && (is_digit(s.ptr[0]) || s.ptr[0] == '+' || s.ptr[0] == '-'))
        return fail(p, "this is neither a number of 64 bits nor a date or a time");
    if (!known)
        return fail(p, "expected a value: a string in quotes, a number, true or false, a date, "
                       "[...] or {...}");
    p->at = q;
    return 0;
}

/* ---- tables ---- */

const struct toml_entry *toml_find(const struct toml_table *table, struct str key)
{
    for (const struct toml_entry *e = table->first; e; e = e->next)
        if (str_eq(e->key, key))
            return e;
    return NULL;
}

static struct toml_entry *find(struct toml_table *table, struct str key)
{
    for (struct toml_entry *e = table->first; e; e = e->next)
        if (str_eq(e->key, key))
            return e;
    return NULL;
}

static struct toml_table *table_new(struct parser *p, unsigned made_by)
{
    struct toml_table *t = arena_zalloc(p->arena, sizeof *t);
    if (t)
        t->made_by = made_by;
    return t;
}

struct part {
    struct str text;
    struct toml_place at;
};

static int entry_new(struct parser *p, struct toml_table *table, const struct part *part,
                     struct toml_entry **ret)
{
    struct toml_entry *e = arena_zalloc(p->arena, sizeof *e);
    if (!e)
        return no_memory(p);
    if (++p->n_keys > TOML_KEYS_MAX)
        return fail_code(p, ERR_TOO_LARGE, "more keys than a configuration can have");
    e->key = part->text;
    e->at = part->at;
    *(table->last ? &table->last->next : &table->first) = e;
    table->last = e;
    table->n++;
    *ret = e;
    return 0;
}

/* ---- keys ---- */

static bool is_bare(int c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || is_digit(c) || c == '_' || c == '-';
}

static int key_part(struct parser *p, struct part *ret)
{
    int err = 0, c = peek(p);
    ret->at = here(p);
    if (c == '"' || c == '\'') {
        err = string(p, &ret->text, false);
    } else {
        const char *start = p->at;
        while (is_bare(peek(p)))
            p->at++;
        if (p->at == start)
            return fail(p, "expected a key: letters, digits, _ and -, or a string in quotes");
        ret->text = (struct str){start, (size_t)(p->at - start)};
    }
    ret->at.end = (size_t)(p->at - p->start);
    return err;
}

/* Through one part of a key that has more behind it. */
static int step(struct parser *p, struct toml_table **table, const struct part *part, bool header)
{
    struct toml_entry *e = find(*table, part->text);
    if (!e) {
        int err = entry_new(p, *table, part, &e);
        if (err)
            return err;
        e->value = (struct toml_value){.type = TOML_TABLE, .at = part->at};
        e->value.table = table_new(p, header ? TOML_IMPLICIT : TOML_DOTTED);
        if (!e->value.table)
            return no_memory(p);
    }
    struct toml_value *v = &e->value;
    if (header && v->type == TOML_ARRAY && v->array.of_tables)
        v = &v->array.items[v->array.n - 1];
    if (v->type != TOML_TABLE || v->table->made_by == TOML_INLINE ||
        (!header && v->table->made_by == TOML_HEADER))
        return fail_defined(p, &part->at, part->text, e);
    if (!header)
        v->table->made_by = TOML_DOTTED;
    *table = v->table;
    return 0;
}

/* "a.b.c": goes from `table` to that of `a.b`, and returns `c`. */
static int key(struct parser *p, struct toml_table **table, bool header, struct part *ret_last)
{
    for (int n = 1;; n++) {
        int err = key_part(p, ret_last);
        if (err)
            return err;
        skip_blanks(p);
        if (peek(p) != '.')
            return 0;
        if (n == TOML_DEPTH_MAX)
            return fail_code(p, ERR_TOO_LARGE, "the key has too many parts");
        err = step(p, table, ret_last, header);
        if (err)
            return err;
        p->at++;
        skip_blanks(p);
    }
}

static int value(struct parser *p, struct toml_value *v);

static int key_value(struct parser *p, struct toml_table *table)
{
    struct part last;
    struct toml_entry *e;
    int err = key(p, &table, false, &last);
    if (err)
        return err;
    if (peek(p) != '=')
        return fail(p, "expected \"=\" after the key");
    p->at++;
    const struct toml_entry *before = find(table, last.text);
    if (before)
        return fail_defined(p, &last.at, last.text, before);
    skip_blanks(p);
    if (p->at == p->end || peek(p) == '\n' || peek(p) == '\r' || peek(p) == '#')
        return fail(p, "expected a value after \"=\"");
    err = entry_new(p, table, &last, &e);
    return err ? err : value(p, &e->value);
}

/* ---- arrays, inline tables ---- */

static bool array_push(struct parser *p, struct toml_value *array, const struct toml_value *item)
{
    size_t n = array->array.n;
    if (n == 0 || (n >= 4 && (n & (n - 1)) == 0)) {
        struct toml_value *more = arena_array(p->arena, n ? 2 * n : 4, sizeof *more);
        if (!more)
            return false;
        if (n)
            memcpy(more, array->array.items, n * sizeof *more);
        array->array.items = more;
    }
    array->array.items[array->array.n++] = *item;
    return true;
}

static int array(struct parser *p, struct toml_value *v)
{
    v->type = TOML_ARRAY;
    p->at++;
    for (;;) {
        struct toml_value item;
        int err = skip_space(p);
        if (err)
            return err;
        if (peek(p) == ']')
            break;
        err = value(p, &item);
        if (!err && !array_push(p, v, &item))
            err = no_memory(p);
        if (!err)
            err = skip_space(p);
        if (err)
            return err;
        if (peek(p) == ']')
            break;
        if (peek(p) != ',')
            return fail(p, "expected \",\" or \"]\" in the array");
        p->at++;
    }
    p->at++;
    return 0;
}

static int inline_table(struct parser *p, struct toml_value *v)
{
    v->type = TOML_TABLE;
    v->table = table_new(p, TOML_DOTTED);
    if (!v->table)
        return no_memory(p);
    p->at++;
    skip_blanks(p);
    if (peek(p) != '}') {
        for (;;) {
            skip_blanks(p);
            int err = key_value(p, v->table);
            if (err)
                return err;
            skip_blanks(p);
            if (peek(p) == '}')
                break;
            if (peek(p) != ',')
                return fail(p,
                            "expected \",\" or \"}\" in the inline table (it must be in one line)");
            p->at++;
        }
    }
    p->at++;
    v->table->made_by = TOML_INLINE;
    return 0;
}

static int value(struct parser *p, struct toml_value *v)
{
    int err, c = peek(p);
    *v = (struct toml_value){.at = here(p)};
    if (++p->depth > TOML_DEPTH_MAX)
        return fail_code(p, ERR_TOO_LARGE, "arrays and tables are too deep in each other");
    if (c == '"' || c == '\'') {
        v->type = TOML_STRING;
        err = string(p, &v->text, true);
    } else if (c == '[') {
        err = array(p, v);
    } else if (c == '{') {
        err = inline_table(p, v);
    } else {
        err = bare_value(p, v);
    }
    p->depth--;
    v->at.end = (size_t)(p->at - p->start);
    return err;
}

/* ---- headers ---- */

static int header_table(struct parser *p, struct toml_table *in, const struct part *part,
                        struct toml_table **ret)
{
    struct toml_entry *e = find(in, part->text);
    if (!e) {
        int err = entry_new(p, in, part, &e);
        if (err)
            return err;
        e->value = (struct toml_value){.type = TOML_TABLE, .at = part->at};
        e->value.table = table_new(p, TOML_IMPLICIT);
        if (!e->value.table)
            return no_memory(p);
    }
    if (e->value.type != TOML_TABLE || e->value.table->made_by != TOML_IMPLICIT)
        return fail_defined(p, &part->at, part->text, e);
    e->at = e->value.at = part->at;
    e->value.table->made_by = TOML_HEADER;
    *ret = e->value.table;
    return 0;
}

static int header_array(struct parser *p, struct toml_table *in, const struct part *part,
                        struct toml_table **ret)
{
    struct toml_entry *e = find(in, part->text);
    struct toml_value item = {.type = TOML_TABLE, .at = part->at};
    item.table = table_new(p, TOML_HEADER);
    if (!item.table)
        return no_memory(p);
    if (!e) {
        int err = entry_new(p, in, part, &e);
        if (err)
            return err;
        e->value = (struct toml_value){.type = TOML_ARRAY, .at = part->at};
        e->value.array.of_tables = true;
    }
    if (e->value.type != TOML_ARRAY || !e->value.array.of_tables)
        return fail_defined(p, &part->at, part->text, e);
    if (++p->n_keys > TOML_KEYS_MAX)
        return fail_code(p, ERR_TOO_LARGE, "more keys than a configuration can have");
    if (!array_push(p, &e->value, &item))
        return no_memory(p);
    *ret = item.table;
    return 0;
}

static int header(struct parser *p, struct toml_table *root, struct toml_table **ret)
{
    struct part last;
    bool is_array = peek_at(p, 1) == '[';
    p->at += is_array ? 2 : 1;
    skip_blanks(p);
    int err = key(p, &root, true, &last);
    if (err)
        return err;
    if (!looking_at(p, is_array ? "]]" : "]"))
        return fail(p, is_array ? "expected \"]]\"" : "expected \"]\"");
    p->at += is_array ? 2 : 1;
    return is_array ? header_array(p, root, &last, ret) : header_table(p, root, &last, ret);
}

/* ---- the document ---- */

/* Where it stops being UTF-8. */
static int not_utf8(struct parser *p)
{
    for (; p->at < p->end; p->at++) {
        const char *line_end = memchr(p->at, '\n', (size_t)(p->end - p->at));
        if (!line_end)
            line_end = p->end;
        if (!str_is_utf8((struct str){p->at, (size_t)(line_end - p->at)}))
            break;
        p->at = line_end;
        p->line++;
        p->line_start = p->at + 1;
    }
    p->line_start = p->at;
    return fail(p, "this line is not UTF-8");
}

static int document(struct parser *p, struct toml_table *root)
{
    struct toml_table *current = root;
    int err = 0;
    while (!err && p->at < p->end) {
        skip_blanks(p);
        int c = peek(p);
        if (c == '[')
            err = header(p, root, &current);
        else if (c != -1 && c != '#' && c != '\n' && c != '\r')
            err = key_value(p, current);
        if (!err)
            err = line_end(p, "expected the end of the line");
    }
    return err;
}

int toml_parse(struct str text, struct arena *arena, struct toml_table **ret,
               struct error_detail *ret_detail, struct toml_place *ret_place)
{
    if (!text.ptr)
        text = STR("");
    struct parser p = {.start = text.ptr,
                       .at = text.ptr,
                       .end = text.ptr + text.len,
                       .arena = arena,
                       .detail = ret_detail,
                       .place = ret_place,
                       .line = 1,
                       .line_start = text.ptr};
    if (text.len > TOML_BYTES_MAX)
        return fail_code(&p, ERR_TOO_LARGE, "larger than a configuration can be (1 MiB)");
    struct toml_table *root = table_new(&p, TOML_HEADER);
    if (!root)
        return no_memory(&p);
    if (text.len && !str_is_utf8(text))
        return not_utf8(&p);
    if (looking_at(&p, "\xef\xbb\xbf"))
        p.line_start = p.at += 3;
    int err = document(&p, root);
    if (!err)
        *ret = root;
    return err;
}
