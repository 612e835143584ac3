#include "probe/sql.h"

#include <ctype.h>
#include <stdio.h>
#include <strings.h>

struct scanner {
    struct str in;
    size_t at;
    char *out;
    size_t size, n;
    bool full, space; /* a space is due before the next character */
};

static char peek(const struct scanner *s, size_t ahead)
{
    return s->at + ahead < s->in.len ? s->in.ptr[s->at + ahead] : '\0';
}

/* Whole or not at all, so that nothing is cut within a character. */
static void put(struct scanner *s, const char *bytes, size_t n)
{
    size_t space = s->space && s->n > 0;
    if (s->full || s->n + space + n > s->size) {
        s->full = true;
        return;
    }
    if (space)
        s->out[s->n++] = ' ';
    s->space = false;
    if (n)
        memcpy(s->out + s->n, bytes, n);
    s->n += n;
}

static bool is_word_char(char c)
{
    return isalnum((unsigned char)c) || c == '_' || c == '$' || (unsigned char)c >= 0x80;
}

static bool is_word_start(char c)
{
    return is_word_char(c) && !isdigit((unsigned char)c) && c != '$';
}

/* To behind the closing `quote`, which doubled stands for itself; with `escapes` also after a backslash. */
static void skip_quoted(struct scanner *s, char quote, bool escapes)
{
    s->at++;
    while (s->at < s->in.len) {
        char c = s->in.ptr[s->at++];
        if (escapes && c == '\\' && s->at < s->in.len)
            s->at++;
        else if (c == quote && peek(s, 0) == quote)
            s->at++;
        else if (c == quote)
            return;
    }
}

/* PostgreSQL nests them. */
static void skip_block_comment(struct scanner *s)
{
    unsigned depth = 0;
    while (s->at < s->in.len) {
        if (peek(s, 0) == '/' && peek(s, 1) == '*') {
            depth++;
            s->at += 2;
        } else if (peek(s, 0) == '*' && peek(s, 1) == '/') {
            s->at += 2;
            if (--depth == 0)
                return;
        } else {
            s->at++;
        }
    }
}

/* $tag$ ... $tag$. False: it is no such string. */
static bool skip_dollar_quoted(struct scanner *s)
{
    size_t n = 1;
    while (is_word_char(peek(s, n)) && peek(s, n) != '$')
        n++;
    if (peek(s, n) != '$' || isdigit((unsigned char)peek(s, 1)))
        return false;
    struct str tag = {s->in.ptr + s->at, n + 1};
    s->at += tag.len;
    const char *end = memmem(s->in.ptr + s->at, s->in.len - s->at, tag.ptr, tag.len);
    s->at = end ? (size_t)(end - s->in.ptr) + tag.len : s->in.len;
    return true;
}

static void skip_number(struct scanner *s)
{
    for (; s->at < s->in.len; s->at++) {
        char c = peek(s, 0), before = s->in.ptr[s->at - (s->at > 0)];
        bool sign = (c == '+' || c == '-') && (before == 'e' || before == 'E');
        if (!isalnum((unsigned char)c) && c != '.' && c != '_' && !sign)
            return;
    }
}

/* ---- the summary ---- */

struct summary_state {
    struct sql_summary *ret;
    bool expects_table;
    unsigned n_tables;
};

static bool is_one_of(struct str word, const char *const *words)
{
    for (; *words; words++)
        if (strlen(*words) == word.len && strncasecmp(*words, word.ptr, word.len) == 0)
            return true;
    return false;
}

static void copy_word(char to[SQL_WORD_MAX], struct str word, bool upper)
{
    size_t n = word.len < SQL_WORD_MAX - 1 ? word.len : SQL_WORD_MAX - 1;
    while (n > 0 && n < word.len && ((unsigned char)word.ptr[n] & 0xc0) == 0x80)
        n--;
    for (size_t i = 0; i < n; i++)
        to[i] = upper ? (char)toupper((unsigned char)word.ptr[i]) : word.ptr[i];
    to[n] = '\0';
}

static void note_table(struct summary_state *st, struct str name)
{
    if (st->n_tables++ == 0)
        copy_word(st->ret->collection, name, false);
    st->expects_table = false;
}

static void note_word(struct summary_state *st, struct str word)
{
    static const char *const before_table[] = {"FROM", "INTO", "UPDATE", "TABLE", "JOIN", NULL};
    static const char *const between[] = {"IF", "NOT", "EXISTS", "ONLY", "OR", "LATERAL", NULL};
    static const char *const no_table[] = {"SELECT",  "SET",  "VALUES", "ROLLBACK", "ABORT",
                                           "REPLACE", "FAIL", "IGNORE", NULL};
    if (!st->ret)
        return;
    if (!st->ret->operation[0])
        copy_word(st->ret->operation, word, true);
    if (is_one_of(word, before_table))
        st->expects_table = true;
    else if (st->expects_table && is_one_of(word, no_table))
        st->expects_table = false;
    else if (st->expects_table && !is_one_of(word, between))
        note_table(st, word);
}

/* ---- tokens ---- */

static void literal(struct scanner *s)
{
    put(s, "?", 1);
}

/* A word, with what is joined to it by dots; also "quoted"."ones". */
static void word(struct scanner *s, struct summary_state *st)
{
    size_t from = s->at;
    while (s->at < s->in.len) {
        char c = peek(s, 0);
        if (c == '"' || c == '`')
            skip_quoted(s, c, false);
        else
            while (is_word_char(peek(s, 0)))
                s->at++;
        char after = peek(s, 1);
        if (peek(s, 0) != '.' || !(is_word_start(after) || after == '"' || after == '`'))
            break;
        s->at++;
    }
    if (s->at - from == 1 && (s->in.ptr[from] == 'U' || s->in.ptr[from] == 'u') &&
        peek(s, 0) == '&' && peek(s, 1) == '\'')
        s->at++;
    struct str w = {s->in.ptr + from, s->at - from};
    bool quoted_next = peek(s, 0) == '\'';
    if (quoted_next && w.len <= 2 && strchr("eEnNxXbBuU", w.ptr[0]) &&
        (w.len == 1 || w.ptr[1] == '&')) {
        skip_quoted(s, '\'', w.ptr[0] == 'e' || w.ptr[0] == 'E');
        literal(s);
        return;
    }
    put(s, w.ptr, w.len);
    note_word(st, w);
}

static void token(struct scanner *s, struct summary_state *st)
{
    char c = peek(s, 0);
    if (isspace((unsigned char)c) || c == '\0') {
        s->at++;
        s->space = true;
    } else if ((c == '-' && peek(s, 1) == '-') || (c == '/' && peek(s, 1) == '*')) {
        if (st->ret)
            st->ret->has_comment = true;
        if (c == '/')
            skip_block_comment(s);
        else
            while (s->at < s->in.len && s->in.ptr[s->at] != '\n')
                s->at++;
        s->space = true;
    } else if (c == '\'') {
        skip_quoted(s, c, false);
        literal(s);
    } else if (c == '$' && skip_dollar_quoted(s)) {
        literal(s);
    } else if (isdigit((unsigned char)c) || (c == '.' && isdigit((unsigned char)peek(s, 1)))) {
        skip_number(s);
        literal(s);
    } else if (is_word_start(c) || c == '"' || c == '`') {
        word(s, st);
    } else if (strchr("$?:@", c)) { /* a parameter: with its number or name */
        size_t from = s->at++;
        while (is_word_char(peek(s, 0)))
            s->at++;
        put(s, s->in.ptr + from, s->at - from);
    } else {
        if (c == '(' || c == ';')
            st->expects_table = false;
        put(s, s->in.ptr + s->at++, 1);
    }
}

size_t sql_sanitize(struct str sql, char *out, size_t size, struct sql_summary *ret)
{
    struct scanner s = {.in = sql, .out = out, .size = size};
    struct summary_state st = {.ret = ret};
    if (ret)
        *ret = (struct sql_summary){.has_comment = false};
    while (s.at < sql.len && (!s.full || ret))
        token(&s, &st);
    if (ret)
        ret->one_collection = st.n_tables == 1;
    return s.n;
}

size_t sql_sanitize_message(struct str message, char *out, size_t size)
{
    struct scanner s = {.in = message, .out = out, .size = size};
    while (s.at < message.len && !s.full) {
        char c = peek(&s, 0);
        bool apostrophe = c == '\'' && s.at > 0 && is_word_char(message.ptr[s.at - 1]);
        if (c == '"' || (c == '\'' && !apostrophe)) {
            skip_quoted(&s, c, false);
            literal(&s);
        } else {
            size_t n = 1; /* a whole character */
            while (((unsigned char)peek(&s, n) & 0xc0) == 0x80)
                n++;
            put(&s, message.ptr + s.at, n);
            s.at += n;
        }
    }
    return s.n;
}
