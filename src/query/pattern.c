/* One pass over the pattern that copies what both languages share, rewrites what they spell
 * differently and refuses the rest:
 *
 *   \d \D \w \W \s \S        bracket expressions, also inside one (not the negated ones there)
 *   \n \t \r \f \v \a \xHH   the byte
 *   (?:  and (?P<name>       a plain group: nothing is captured anyway
 *   .                        anything but a newline
 *   *? +? ?? {m,n}?          greedy: the same text matches as a whole
 *   ^ at the start, $ at the end: dropped, both ends are anchored. Elsewhere they are refused.
 *   \b, \p, flags, look-around (not RE2's either), back references: refused.
 *
 * Sizes are added up on the way, so that nested counts cannot make the C library build a tree of
 * millions of nodes; and the ways in which what is repeated may be empty, for each of which it looks
 * at each other one. */
#include "query/pattern.h"

#include "base/buf.h"

#include <stdio.h>
#include <string.h>

#define GROUPS_MAX 64

/* What an open group, or the last atom, comes to. */
struct extent {
    bool may_be_empty, is_choice; /* the second: has several branches */
    uint32_t ways;                /* alternatives in it that may be empty, counts written out */
};

struct translator {
    struct str in;
    size_t at;
    struct buf out;
    struct error_detail *detail;
    int depth;
    uint32_t size[GROUPS_MAX]; /* expanded size of what stands in each open group */
    size_t group_at[GROUPS_MAX];
    uint32_t last; /* size of the last atom; 0: nothing to repeat */
    /* The C library follows each way through what may be empty, from each to each: a repetition of
     * such a thing takes time that grows with a high power of the ways. */
    struct extent group[GROUPS_MAX]; /* the branches before the current one */
    struct extent branch[GROUPS_MAX],
        before[GROUPS_MAX]; /* the current one; without the last atom */
    struct extent atom;
};

static const char *class_of(char c)
{
    switch (c) {
    case 'd':
        return "0-9";
    case 'w':
        return "0-9A-Za-z_";
    case 's':
        return " \t\n\f\r";
    default:
        return NULL;
    }
}

static bool is_special(char c)
{
    return c && strchr(".[]{}()*+?|^$\\", c);
}

/* One byte, as an atom outside brackets. */
static void put_literal(struct translator *t, char c)
{
    if (is_special(c))
        buf_byte(&t->out, '\\');
    buf_byte(&t->out, c);
}

static int fail(struct translator *t, size_t at, const char *what)
{
    return error_set(t->detail, ERR_INVALID, at, "in the regular expression: %s", what);
}

static void branch_add(struct translator *t, struct extent atom)
{
    struct extent before = t->before[t->depth];
    t->atom = atom;
    t->branch[t->depth] = (struct extent){.may_be_empty = before.may_be_empty && atom.may_be_empty,
                                          .ways = before.ways + atom.ways};
}

static void branch_begin(struct translator *t)
{
    t->branch[t->depth] = t->before[t->depth] = (struct extent){.may_be_empty = true};
}

static void group_begin(struct translator *t)
{
    t->group[t->depth] = (struct extent){0};
    branch_begin(t);
}

/* Whether another branch follows or not. */
static struct extent group_with_branch(const struct translator *t, bool is_choice)
{
    struct extent group = t->group[t->depth], branch = t->branch[t->depth];
    is_choice |= group.is_choice;
    return (struct extent){group.may_be_empty || branch.may_be_empty, is_choice,
                           group.ways + branch.ways + (is_choice && branch.may_be_empty)};
}

/* The last atom is written `times` times. */
static int repetition_done(struct translator *t, unsigned least, unsigned times, bool is_endless,
                           size_t at)
{
    struct extent atom = t->atom;
    bool repeats = atom.may_be_empty && (times > 1 || is_endless);
    atom.ways *= times ? times : 1;
    if (repeats && atom.ways > PATTERN_EMPTY_WAYS_MAX)
        return fail(t, at, "what is repeated has too many alternatives that may be empty");
    atom.may_be_empty |= least == 0;
    branch_add(t, atom);
    return 0;
}

static int size_add(struct translator *t, uint32_t size)
{
    t->size[t->depth] += size;
    t->last = size;
    if (t->size[t->depth] > PATTERN_EXPANDED_MAX)
        return error_set(t->detail, ERR_TOO_LARGE, t->at,
                         "the regular expression comes to more than %d characters",
                         PATTERN_EXPANDED_MAX);
    return 0;
}

static int extent_done(struct translator *t, uint32_t size, struct extent atom)
{
    t->before[t->depth] = t->branch[t->depth];
    branch_add(t, atom);
    return size_add(t, size);
}

static int atom_done(struct translator *t, uint32_t size)
{
    return extent_done(t, size, (struct extent){0});
}

/* After the backslash: an escape that stands for one byte. 0, or ERR_NOT_FOUND when it is not one.
 */
static int escaped_byte(struct translator *t, char *ret)
{
    char c = t->in.ptr[t->at];
    static const char names[] = "ntrfva", bytes[] = "\n\t\r\f\v\a";
    const char *name = c ? strchr(names, c) : NULL;
    if (name) {
        *ret = bytes[name - names];
        t->at++;
        return 0;
    }
    if (c == 'x') {
        uint8_t byte;
        if (t->in.len - t->at < 3 || !hex_get(&byte, (struct str){t->in.ptr + t->at + 1, 2}, 1) ||
            byte == 0 || byte > 0x7f)
            return fail(t, t->at - 1, "\\x needs two hexadecimal digits, 01 to 7f");
        *ret = (char)byte;
        t->at += 3;
        return 0;
    }
    if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
        return ERR_NOT_FOUND;
    *ret = c;
    t->at++;
    return 0;
}

static int translate_escape(struct translator *t)
{
    size_t start = t->at++;
    if (t->at == t->in.len)
        return fail(t, start, "a backslash at the end");
    char c = t->in.ptr[t->at];
    const char *set = class_of((char)(c | 0x20));
    if (set) {
        t->at++;
        buf_cstr(&t->out, c & 0x20 ? "[" : "[^");
        buf_cstr(&t->out, set);
        buf_byte(&t->out, ']');
        return atom_done(t, 1);
    }
    char byte = 0;
    int err = escaped_byte(t, &byte);
    if (err == ERR_NOT_FOUND) {
        char what[64];
        snprintf(what, sizeof what,
                 c >= '1' && c <= '9' ? "back references (\\%c) are not supported"
                                      : "\\%c is not supported",
                 c);
        return fail(t, start, what);
    }
    if (err)
        return err;
    put_literal(t, byte);
    return atom_done(t, 1);
}

/* A bracket expression is parsed into the set of its bytes and written again from that: the two
 * languages differ in what `]`, `-`, `^` and `\` mean where. */
static void put_set(struct buf *out, const bool set[256])
{
    /* In POSIX `]` must come first, `-` last and `^` not first; `[.` `[:` `[=` must not arise, so
     * `[` comes right before `-` at the end. Ranges join three neighbours or more. */
    bool rest[256];
    memcpy(rest, set, sizeof rest);
    rest[']'] = rest['-'] = rest['^'] = rest['['] = false;
    if (set[']'])
        buf_byte(out, ']');
    for (int c = 1; c < 256; c++) {
        if (!rest[c])
            continue;
        int last = c;
        while (last + 1 < 256 && rest[last + 1])
            last++;
        if (last - c >= 2) {
            buf_byte(out, (char)c);
            buf_byte(out, '-');
            buf_byte(out, (char)last);
        } else {
            for (int i = c; i <= last; i++)
                buf_byte(out, (char)i);
        }
        c = last;
    }
    if (set['^'])
        buf_byte(out, '^');
    if (set['['])
        buf_byte(out, '[');
    if (set['-'])
        buf_byte(out, '-');
}

static const struct {
    const char *name, *set;
} posix_classes[] = {
    {"alnum", "0-9A-Za-z"},    {"alpha", "A-Za-z"},     {"digit", "0-9"},
    {"lower", "a-z"},          {"upper", "A-Z"},        {"space", "\t-\r "},
    {"word", "0-9A-Za-z_"},    {"xdigit", "0-9A-Fa-f"}, {"blank", "\t "},
    {"punct", "!-/:-@[-`{-~"},
};

static void set_add(bool set[256], const char *ranges)
{
    for (const char *p = ranges; *p; p++) {
        if (p[1] == '-' && p[2]) {
            for (int c = (uint8_t)p[0]; c <= (uint8_t)p[2]; c++)
                set[c] = true;
            p += 2;
        } else {
            set[(uint8_t)*p] = true;
        }
    }
}

static int translate_bracket(struct translator *t)
{
    size_t start = t->at++;
    bool set[256] = {false};
    bool negated = t->at < t->in.len && t->in.ptr[t->at] == '^';
    t->at += negated;
    for (bool first = true;; first = false) {
        if (t->at >= t->in.len)
            return fail(t, start, "\"[\" without its \"]\"");
        char c = t->in.ptr[t->at];
        if (c == ']' && !first)
            break;
        struct str rest = str_skip(t->in, t->at);
        if (str_starts(rest, STR("[:"))) {
            size_t i;
            for (i = 0; i < sizeof posix_classes / sizeof *posix_classes; i++) {
                char whole[16];
                snprintf(whole, sizeof whole, "[:%s:]", posix_classes[i].name);
                if (str_starts(rest, str_from(whole))) {
                    set_add(set, posix_classes[i].set);
                    t->at += strlen(whole);
                    break;
                }
            }
            if (i == sizeof posix_classes / sizeof *posix_classes)
                return fail(t, t->at, "this character class is not known");
            continue;
        }
        if (c == '\\') {
            if (++t->at >= t->in.len)
                return fail(t, t->at - 1, "a backslash at the end");
            const char *ranges = class_of(t->in.ptr[t->at]);
            if (ranges) {
                set_add(set, ranges);
                t->at++;
                continue;
            }
            int err = escaped_byte(t, &c);
            if (err)
                return err == ERR_NOT_FOUND
                           ? fail(t, t->at - 1, "this escape is not supported in [ ]")
                           : err;
        } else {
            t->at++;
        }
        if ((uint8_t)c >= 0x80)
            return fail(t, t->at - 1, "only ASCII is supported in [ ]");
        int last = (uint8_t)c;
        if (t->at + 1 < t->in.len && t->in.ptr[t->at] == '-' && t->in.ptr[t->at + 1] != ']') {
            size_t range_at = t->at++;
            char to = t->in.ptr[t->at++];
            if (to == '\\') {
                if (t->at >= t->in.len)
                    return fail(t, t->at - 1, "a backslash at the end");
                int err = escaped_byte(t, &to);
                if (err)
                    return err == ERR_NOT_FOUND ? fail(t, range_at, "a range needs two characters")
                                                : err;
            }
            last = (uint8_t)to;
            if (last < (uint8_t)c || last >= 0x80)
                return fail(t, range_at, "this range is empty or not ASCII");
        }
        for (int i = (uint8_t)c; i <= last; i++)
            set[i] = true;
    }
    t->at++;
    if (negated)
        for (int i = 1; i < 256; i++)
            set[i] = !set[i];
    set[0] = false;
    bool any = false;
    for (int i = 1; i < 256; i++)
        any |= set[i];
    if (!any)
        return fail(t, start, "this bracket expression matches nothing");
    bool only_caret = set['^'];
    for (int i = 1; i < 256 && only_caret; i++)
        only_caret = set[i] == (i == '^');
    if (only_caret) {
        buf_cstr(&t->out, "\\^");
        return atom_done(t, 1);
    }
    /* A set of `^` and `[` or `-` would begin with `^`: these are put as alternatives. */
    bool begins_with_caret = set['^'] && !set[']'];
    for (int i = 1; i < 256 && begins_with_caret; i++)
        begins_with_caret = !set[i] || i == '^' || i == '[' || i == '-';
    if (begins_with_caret) {
        buf_cstr(&t->out, "(\\^");
        if (set['['])
            buf_cstr(&t->out, "|\\[");
        if (set['-'])
            buf_cstr(&t->out, "|-");
        buf_byte(&t->out, ')');
        return atom_done(t, 3);
    }
    buf_byte(&t->out, '[');
    put_set(&t->out, set);
    buf_byte(&t->out, ']');
    return atom_done(t, 1);
}

static int translate_repeat(struct translator *t)
{
    size_t start = t->at;
    char c = t->in.ptr[t->at++];
    unsigned least = c == '+', most = 1;
    bool is_endless = c == '*' || c == '+';
    if (c == '{') {
        int used = 0;
        char text[16] = "";
        size_t n = t->in.len - t->at < sizeof text - 1 ? t->in.len - t->at : sizeof text - 1;
        memcpy(text, t->in.ptr + t->at, n);
        bool digit = text[0] >= '0' && text[0] <= '9';
        if (digit && sscanf(text, "%4u}%n", &least, &used) == 1 && used) {
            most = least;
        } else if (digit && (used = 0, sscanf(text, "%4u,}%n", &least, &used) == 1) && used) {
            most = least + 1;
            is_endless = true;
        } else if (digit && (used = 0, sscanf(text, "%4u,%4u}%n", &least, &most, &used) == 2) &&
                   used) {
            if (most < least)
                return fail(t, start, "the count ends before it begins");
        } else {
            /* RE2 takes what is not a count as the character itself. */
            put_literal(t, '{');
            return atom_done(t, 1);
        }
        if (!t->last)
            return fail(t, start, "nothing to repeat");
        if (least > 1000 || most > 1001)
            return fail(t, start, "a count beyond 1000");
        buf_put(&t->out, t->in.ptr + start, 1 + (size_t)used);
        t->at += (size_t)used;
    } else {
        if (!t->last)
            return fail(t, start, "nothing to repeat");
        buf_byte(&t->out, c);
    }
    if (t->at < t->in.len && t->in.ptr[t->at] == '?')
        t->at++;
    if (t->at < t->in.len && strchr("*+", t->in.ptr[t->at]) && t->in.ptr[t->at])
        return fail(t, t->at, "a repetition of a repetition");
    uint32_t size = t->last;
    int err = repetition_done(t, least, most, is_endless, start);
    if (!err && most > 1)
        err = size_add(t, size * (most - 1));
    t->last = 0;
    return err;
}

static int translate(struct translator *t)
{
    struct extent inner;
    int err = 0;
    group_begin(t);
    while (!err && t->at < t->in.len) {
        char c = t->in.ptr[t->at];
        struct str rest = str_skip(t->in, t->at);
        switch (c) {
        case '\0':
            return fail(t, t->at, "a NUL character");
        case '\\':
            err = translate_escape(t);
            break;
        case '[':
            err = translate_bracket(t);
            break;
        case '*':
        case '+':
        case '?':
        case '{':
            err = translate_repeat(t);
            break;
        case '(':
            t->group_at[t->depth] = t->at;
            if (++t->depth == GROUPS_MAX)
                return error_set(t->detail, ERR_TOO_LARGE, t->at,
                                 "the regular expression has too many groups in each other");
            t->size[t->depth] = 1;
            t->last = 0;
            group_begin(t);
            if (str_starts(rest, STR("(?:"))) {
                t->at += 3;
            } else if (str_starts(rest, STR("(?P<")) || str_starts(rest, STR("(?<"))) {
                const char *close = memchr(rest.ptr, '>', rest.len);
                if (!close || rest.ptr[3] == '=' || rest.ptr[3] == '!')
                    return fail(t, t->at, "this kind of group is not supported");
                t->at += (size_t)(close - rest.ptr) + 1;
            } else if (str_starts(rest, STR("(?"))) {
                return fail(t, t->at, "flags and look-around, (?...), are not supported");
            } else {
                t->at++;
            }
            buf_byte(&t->out, '(');
            break;
        case ')':
            if (!t->depth)
                return fail(t, t->at, "\")\" without its \"(\"");
            t->at++;
            inner = group_with_branch(t, false);
            t->depth--;
            buf_byte(&t->out, ')');
            err = extent_done(t, t->size[t->depth + 1], inner);
            break;
        case '|':
            t->at++;
            t->last = 0;
            t->group[t->depth] = group_with_branch(t, true);
            branch_begin(t);
            buf_byte(&t->out, '|');
            break;
        case '^':
            if (t->at != 0)
                return fail(t, t->at, "\"^\" is supported at the start only (and is implied)");
            t->at++;
            break;
        case '$':
            if (t->at + 1 != t->in.len)
                return fail(t, t->at, "\"$\" is supported at the end only (and is implied)");
            t->at++;
            break;
        case '.':
            t->at++;
            buf_cstr(&t->out, "[^\n]");
            err = atom_done(t, 1);
            break;
        default:
            /* `]` and `}` alone are themselves; bytes of UTF-8 are copied, and a repetition after
             * them would repeat the last byte: the whole character becomes a group. */
            t->at++;
            if ((uint8_t)c >= 0xc0) {
                size_t n = 1;
                while (t->at < t->in.len && ((uint8_t)t->in.ptr[t->at] & 0xc0) == 0x80) {
                    t->at++;
                    n++;
                }
                buf_byte(&t->out, '(');
                buf_put(&t->out, t->in.ptr + t->at - n, n);
                buf_byte(&t->out, ')');
                err = atom_done(t, (uint32_t)n);
            } else {
                put_literal(t, c);
                err = atom_done(t, 1);
            }
        }
    }
    if (!err && t->depth)
        err = fail(t, t->group_at[t->depth - 1], "\"(\" without its \")\"");
    return err;
}

int pattern_to_posix(struct str pattern, struct arena *arena, struct str *ret_posix,
                     struct error_detail *ret_detail)
{
    if (pattern.len > PATTERN_BYTES_MAX)
        return error_set(ret_detail, ERR_TOO_LARGE, 0,
                         "the regular expression is longer than %d bytes", PATTERN_BYTES_MAX);
    struct translator t = {.in = pattern, .detail = ret_detail};
    int err = translate(&t);
    struct str posix = STR_NONE;
    if (!err) {
        posix = arena_str(arena, buf_as_str(&t.out));
        if (!buf_ok(&t.out) || !posix.ptr)
            err = error_set(ret_detail, ERR_NOMEM, 0, "out of memory");
    }
    buf_done(&t.out);
    if (err)
        return err;
    /* The C library has the last word: what it cannot compile is an error here and not later. */
    regex_t regex;
    err = pattern_compile(posix, &regex);
    if (err)
        return error_set(ret_detail, err, 0, "the regular expression cannot be compiled");
    regfree(&regex);
    *ret_posix = posix;
    return 0;
}

int pattern_compile(struct str posix, regex_t *ret)
{
    struct buf anchored = BUF_INIT;
    buf_cstr(&anchored, "^(");
    buf_str(&anchored, posix);
    buf_put(&anchored, ")$", 3); /* with its NUL */
    int err = ERR_NOMEM;
    if (buf_ok(&anchored)) {
        int failed = regcomp(ret, anchored.ptr, REG_EXTENDED | REG_NOSUB);
        err = failed == 0 ? 0 : failed == REG_ESPACE ? ERR_NOMEM : ERR_INVALID;
    }
    buf_done(&anchored);
    return err;
}

bool pattern_match(const regex_t *regex, struct str text)
{
    regmatch_t range = {.rm_so = 0, .rm_eo = (regoff_t)text.len};
    return regexec(regex, text.ptr ? text.ptr : "", 1, &range, REG_STARTEND) == 0;
}
