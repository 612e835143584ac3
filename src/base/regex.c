/* An expression becomes a program, piece by piece from the left:
 *
 *     e?      split e                 e|f     split e jump f
 *     e*      split e jump-back       e{2,3}  e e split e
 *     e+      e split-back
 *
 * In whole texts a character beyond ASCII is two to four bytes: `.` and [ ] become alternatives of
 * sequences of sets. As the text is UTF-8, "any of them" needs to look at the first byte only. */
#include "base/regex.h"

#include <stdio.h>
#include <stdlib.h>

#define CHARACTER_MAX 0x10FFFF

/* Characters beyond ASCII, from and to. */
struct range {
    uint32_t from, to;
};

enum { RANGES_MAX = 256 };

/* What one [ ] means. */
struct class {
    struct regex_set ascii; /* in a search: bytes */
    struct range ranges[RANGES_MAX];
    size_t n;
};

struct flags {
    bool any_case, dot_all;
};

struct compiler {
    struct str in;
    size_t at;
    enum regex_kind kind;
    struct error_detail *detail;
    struct regex_step *steps;
    struct regex_set *sets;
    size_t n, steps_max, steps_room, n_sets, sets_room;
    struct flags flags;
    int depth;
    bool quoted; /* between \Q and \E */
};

static int fail(struct compiler *c, size_t at, const char *what)
{
    return error_set(c->detail, ERR_INVALID, at,
                     "the expression cannot be read at character %zu: %s", at + 1, what);
}

static int no_memory(struct compiler *c)
{
    return error_set(c->detail, ERR_NOMEM, 0, "out of memory");
}

/* ---- sets of bytes ---- */

static void set_add(struct regex_set *s, unsigned from, unsigned to)
{
    for (unsigned b = from; b <= to; b++)
        s->bits[b >> 6] |= UINT64_C(1) << (b & 63);
}

static void set_join(struct regex_set *s, const struct regex_set *other)
{
    for (int i = 0; i < 4; i++)
        s->bits[i] |= other->bits[i];
}

static void set_any_case(struct regex_set *s)
{
    for (unsigned c = 'a'; c <= 'z'; c++) {
        if (regex_set_has(s, (unsigned char)c))
            set_add(s, c - 32, c - 32);
        else if (regex_set_has(s, (unsigned char)(c - 32)))
            set_add(s, c, c);
    }
}

/* Pairs of first and last byte. */
static void set_add_pairs(struct regex_set *s, const char *pairs)
{
    for (; *pairs; pairs += 2)
        set_add(s, (unsigned char)pairs[0], (unsigned char)pairs[1]);
}

/* ---- emitting ---- */

static int room(struct compiler *c, size_t more)
{
    if (c->n + more > c->steps_max)
        return error_set(c->detail, ERR_TOO_LARGE, c->at < c->in.len ? c->at : c->in.len,
                         "the expression comes to more than %zu steps", c->steps_max);
    if (c->n + more <= c->steps_room)
        return 0;
    size_t n = 2 * (c->n + more);
    struct regex_step *steps = realloc(c->steps, n * sizeof *steps);
    if (!steps)
        return no_memory(c);
    c->steps = steps;
    c->steps_room = n;
    return 0;
}

static int emit(struct compiler *c, enum regex_op op, size_t a, size_t b)
{
    int err = room(c, 1);
    if (!err)
        c->steps[c->n++] = (struct regex_step){(uint8_t)op, (int32_t)a, (int32_t)b};
    return err;
}

static int emit_set(struct compiler *c, const struct regex_set *s)
{
    size_t i = c->n_sets;
    while (i > 0 && memcmp(&c->sets[i - 1], s, sizeof *s) != 0)
        i--;
    if (i > 0)
        return emit(c, REGEX_SET, i - 1, 0);
    if (c->n_sets == c->sets_room) {
        size_t n = 2 * c->sets_room + 8;
        struct regex_set *sets = realloc(c->sets, n * sizeof *sets);
        if (!sets)
            return no_memory(c);
        c->sets = sets;
        c->sets_room = n;
    }
    c->sets[c->n_sets] = *s;
    return emit(c, REGEX_SET, c->n_sets++, 0);
}

static int emit_range(struct compiler *c, unsigned from, unsigned to)
{
    struct regex_set s = {{0}};
    set_add(&s, from, to);
    return emit_set(c, &s);
}

static int insert(struct compiler *c, size_t at, enum regex_op op, size_t a, size_t b)
{
    int err = room(c, 1);
    if (err)
        return err;
    memmove(&c->steps[at + 1], &c->steps[at], (c->n - at) * sizeof c->steps[0]);
    c->steps[at] = (struct regex_step){(uint8_t)op, (int32_t)a, (int32_t)b};
    c->n++;
    return 0;
}

/* The `len` steps from `at`, once more at the end. */
static int copy(struct compiler *c, size_t at, size_t len)
{
    int err = room(c, len);
    if (err || !len) /* of () before anything else there are no steps at all */
        return err;
    memcpy(&c->steps[c->n], &c->steps[at], len * sizeof c->steps[0]);
    c->n += len;
    return 0;
}

/* An alternative ends: what comes next is the other one. `start` is where this one began; `chain`
 * collects the jumps to the end of all, each with the way back to the one before. */
static int alternative_end(struct compiler *c, size_t start, size_t *chain)
{
    int err = insert(c, start, REGEX_SPLIT, 1, c->n - start + 2);
    if (!err)
        err = emit(c, REGEX_JUMP, *chain == SIZE_MAX ? 0 : c->n - *chain, 0);
    if (!err)
        *chain = c->n - 1;
    return err;
}

static void alternatives_end(struct compiler *c, size_t chain)
{
    while (chain != SIZE_MAX) {
        size_t back = (size_t)c->steps[chain].a;
        c->steps[chain].a = (int32_t)(c->n - chain);
        chain = back ? chain - back : SIZE_MAX;
    }
}

/* ---- characters beyond ASCII ---- */

static size_t utf8_put(uint32_t character, unsigned char out[4])
{
    if (character < 0x80) {
        out[0] = (unsigned char)character;
        return 1;
    }
    size_t n = character < 0x800 ? 2 : character < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--, character >>= 6)
        out[i] = (unsigned char)(0x80 | (character & 0x3f));
    out[0] = (unsigned char)((0xf00u >> n & 0xff) | character);
    return n;
}

struct alternatives {
    size_t start, chain;
    bool any;
};

static int next_alternative(struct compiler *c, struct alternatives *a)
{
    int err = a->any ? alternative_end(c, a->start, &a->chain) : 0;
    a->any = true;
    a->start = c->n;
    return err;
}

/* All characters of a range whose encodings have one length and, but for the last bytes, are cut
 * where those are complete: then each place of the sequence is a range of bytes. */
static int emit_range_of_characters(struct compiler *c, struct alternatives *a, struct range r)
{
    static const uint32_t lengths[] = {0x7ff, 0xffff, CHARACTER_MAX};
    unsigned char from[4], to[4];
    for (size_t i = 0; i < 3; i++) {
        if (r.from <= lengths[i] && r.to > lengths[i]) {
            int err = emit_range_of_characters(c, a, (struct range){r.from, lengths[i]});
            return err ? err : emit_range_of_characters(c, a, (struct range){lengths[i] + 1, r.to});
        }
    }
    size_t n = utf8_put(r.from, from);
    for (size_t i = 1; i < n; i++) {
        uint32_t low = (UINT32_C(1) << 6 * i) - 1;
        if ((r.from & ~low) == (r.to & ~low))
            continue;
        if (r.from & low) {
            int err = emit_range_of_characters(c, a, (struct range){r.from, r.from | low});
            return err ? err
                       : emit_range_of_characters(c, a, (struct range){(r.from | low) + 1, r.to});
        }
        if ((r.to & low) != low) {
            uint32_t cut = r.to & ~low;
            int err = emit_range_of_characters(c, a, (struct range){r.from, cut - 1});
            return err ? err : emit_range_of_characters(c, a, (struct range){cut, r.to});
        }
    }
    utf8_put(r.to, to);
    int err = next_alternative(c, a);
    for (size_t i = 0; i < n && !err; i++)
        err = emit_range(c, from[i], to[i]);
    return err;
}

/* Any character of more than a byte: what follows the first byte needs no look. */
static int emit_all_characters(struct compiler *c, struct alternatives *a)
{
    static const unsigned char first[][2] = {{0xc2, 0xdf}, {0xe0, 0xef}, {0xf0, 0xf4}};
    int err = 0;
    for (size_t i = 0; i < 3 && !err; i++) {
        err = next_alternative(c, a);
        if (!err)
            err = emit_range(c, first[i][0], first[i][1]);
        for (size_t k = 0; k <= i && !err; k++)
            err = emit_range(c, 0x80, 0xbf);
    }
    return err;
}

static int range_order(const void *a, const void *b)
{
    const struct range *x = a, *y = b;
    return x->from < y->from ? -1 : x->from > y->from;
}

/* Sorted, apart, and without what touches. */
static void ranges_tidy(struct class *class)
{
    size_t n = 0;
    qsort(class->ranges, class->n, sizeof class->ranges[0], range_order);
    for (size_t i = 0; i < class->n; i++) {
        struct range r = class->ranges[i];
        if (n && r.from <= class->ranges[n - 1].to + 1) {
            if (r.to > class->ranges[n - 1].to)
                class->ranges[n - 1].to = r.to;
        } else {
            class->ranges[n++] = r;
        }
    }
    class->n = n;
}

/* One alternative for the bytes and one for each sequence. */
static int emit_class(struct compiler *c, const struct class *class, bool negated)
{
    struct alternatives a = {.chain = SIZE_MAX};
    struct regex_set bytes = class->ascii;
    unsigned top = c->kind == REGEX_WHOLE ? 0x80 : 0x100;
    int err = 0;
    if (c->flags.any_case)
        set_any_case(&bytes);
    for (int i = 0; i < 4; i++)
        bytes.bits[i] = (negated ? ~bytes.bits[i] : bytes.bits[i]) &
                        (i < (int)top / 64 ? ~UINT64_C(0) : 0);
    bool any_byte = bytes.bits[0] | bytes.bits[1] | bytes.bits[2] | bytes.bits[3];
    /* A set without a byte matches nothing, which is what a class without a character does. */
    if (any_byte || (!class->n && (!negated || c->kind == REGEX_SEARCH))) {
        err = next_alternative(c, &a);
        if (!err)
            err = emit_set(c, &bytes);
    }
    if (negated && c->kind == REGEX_WHOLE && !class->n) {
        if (!err)
            err = emit_all_characters(c, &a);
    } else if (negated && c->kind == REGEX_WHOLE) {
        uint32_t from = 0x80;
        for (size_t i = 0; i < class->n && !err; i++) {
            if (class->ranges[i].from > from)
                err = emit_range_of_characters(c, &a,
                                               (struct range){from, class->ranges[i].from - 1});
            from = class->ranges[i].to + 1;
        }
        if (!err && from <= CHARACTER_MAX)
            err = emit_range_of_characters(c, &a, (struct range){from, CHARACTER_MAX});
    } else {
        for (size_t i = 0; i < class->n && !err; i++)
            err = emit_range_of_characters(c, &a, class->ranges[i]);
    }
    if (!err && !a.any) /* [^...] of all there is */
        err = emit_set(c, &(struct regex_set){{0}});
    if (!err)
        alternatives_end(c, a.chain);
    return err;
}

/* `as_byte`: written as one, "\\xff", which in a search it is. */
static int literal(struct compiler *c, uint32_t character, bool as_byte)
{
    unsigned char bytes[4];
    size_t n = utf8_put(character, bytes);
    int err = 0;
    if (c->kind == REGEX_SEARCH && as_byte && character < 0x100) {
        bytes[0] = (unsigned char)character;
        n = 1;
    }
    for (size_t i = 0; i < n && !err; i++) {
        struct regex_set s = {{0}};
        set_add(&s, bytes[i], bytes[i]);
        if (c->flags.any_case)
            set_any_case(&s);
        err = emit_set(c, &s);
    }
    return err;
}

/* ---- parsing ---- */

static int peek(const struct compiler *c)
{
    return c->at < c->in.len ? (unsigned char)c->in.ptr[c->at] : -1;
}

static bool ahead(const struct compiler *c, const char *text)
{
    return str_starts(str_skip(c->in, c->at), str_from(text));
}

/* The character at `at`, which is not at the end; a byte that is none stands for itself. */
static uint32_t character(struct compiler *c)
{
    const unsigned char *p = (const unsigned char *)c->in.ptr + c->at;
    size_t left = c->in.len - c->at, n = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : p[0] >= 0xc2 ? 2 : 1;
    if (n == 1 || n > left || !str_is_utf8((struct str){(const char *)p, n})) {
        c->at++;
        return p[0];
    }
    uint32_t value = p[0] & (0x7fu >> n);
    for (size_t i = 1; i < n; i++)
        value = value << 6 | (p[i] & 0x3f);
    c->at += n;
    return value;
}

/* \d \w \s and their opposites, which in [ ] bring all characters beyond ASCII. */
static bool class_of_letter(int letter, struct class *class)
{
    struct regex_set s = {{0}};
    switch (letter | 0x20) {
    case 'w':
        set_add_pairs(&s, "azAZ__09");
        break;
    case 'd':
        set_add_pairs(&s, "09");
        break;
    case 's':
        set_add_pairs(&s, "\t\n\f\r  ");
        break;
    default:
        return false;
    }
    if (!(letter & 0x20)) {
        for (int i = 0; i < 4; i++)
            s.bits[i] = ~s.bits[i];
        if (class->n < RANGES_MAX)
            class->ranges[class->n++] = (struct range){0x80, CHARACTER_MAX};
    }
    set_join(&class->ascii, &s);
    return true;
}

static const struct {
    const char *name, *pairs;
} named_classes[] = {
    {"[:alnum:]", "09AZaz"},   {"[:alpha:]", "AZaz"},
    {"[:ascii:]", "\x01\x7f"}, /* and NUL, see below */
    {"[:blank:]", "\t\t  "},   {"[:cntrl:]", "\x01\x1f\x7f\x7f"},
    {"[:digit:]", "09"},       {"[:graph:]", "!~"},
    {"[:lower:]", "az"},       {"[:print:]", " ~"},
    {"[:punct:]", "!/:@[`{~"}, {"[:space:]", "\t\r  "},
    {"[:upper:]", "AZ"},       {"[:word:]", "09AZaz__"},
    {"[:xdigit:]", "09AFaf"},
};

/* \x41 \x{1F43E} */
static int hexadecimal(struct compiler *c, uint32_t *ret)
{
    size_t start = c->at++;
    bool braces = peek(c) == '{';
    uint32_t value = 0;
    int digits = 0;
    c->at += braces;
    for (; digits < (braces ? 8 : 2); digits++, c->at++) {
        int d = peek(c), lower = d | 0x20;
        if (d >= '0' && d <= '9')
            value = value << 4 | (uint32_t)(d - '0');
        else if (lower >= 'a' && lower <= 'f')
            value = value << 4 | (uint32_t)(lower - 'a' + 10);
        else
            break;
    }
    if (braces ? !digits || peek(c) != '}' || value > CHARACTER_MAX : digits != 2)
        return fail(c, start, "\\x needs two hexadecimal digits, or a character's number in { }");
    c->at += braces;
    *ret = value;
    return 0;
}

/* Behind the backslash: an escape for one character. ERR_NOT_FOUND: none. */
static int escaped(struct compiler *c, uint32_t *ret)
{
    static const char names[] = "nrtfva", bytes[] = "\n\r\t\f\v\a";
    int e = peek(c);
    const char *name = e > 0 ? strchr(names, e) : NULL;
    if (name) {
        *ret = (unsigned char)bytes[name - names];
        c->at++;
    } else if (e == 'x') {
        return hexadecimal(c, ret);
    } else if (e >= '0' && e <= '7') {
        /* \101; \1 would be a back reference, \0 is NUL */
        uint32_t value = 0;
        size_t n = 0;
        for (; n < 3 && c->at + n < c->in.len && c->in.ptr[c->at + n] >= '0' &&
               c->in.ptr[c->at + n] <= '7';
             n++)
            value = 8 * value + (uint32_t)(c->in.ptr[c->at + n] - '0');
        if (n < 2 && e != '0')
            return ERR_NOT_FOUND;
        c->at += n;
        *ret = value;
    } else if (e < 0 || (e >= '8' && e <= '9') || ((e | 0x20) >= 'a' && (e | 0x20) <= 'z')) {
        return ERR_NOT_FOUND;
    } else {
        *ret = character(c);
    }
    return 0;
}

/* One end of a range, or a class (then `ret_character` is UINT32_MAX). */
static int bracket_item(struct compiler *c, struct class *class, uint32_t *ret_character)
{
    size_t start = c->at;
    *ret_character = UINT32_MAX;
    for (size_t i = 0; ahead(c, "[:") && i < sizeof named_classes / sizeof *named_classes; i++) {
        if (ahead(c, named_classes[i].name)) {
            c->at += strlen(named_classes[i].name);
            set_add_pairs(&class->ascii, named_classes[i].pairs);
            if (named_classes[i].pairs[0] == '\x01')
                set_add(&class->ascii, 0, 0);
            return 0;
        }
    }
    if (ahead(c, "[:"))
        return fail(c, start, "this character class is not known");
    if (peek(c) != '\\') {
        *ret_character = character(c);
        return 0;
    }
    c->at++;
    if (class_of_letter(peek(c), class)) {
        c->at++;
        return 0;
    }
    int err = escaped(c, ret_character);
    return err != ERR_NOT_FOUND ? err
           : peek(c) < 0        ? fail(c, start, "a backslash at the end")
                                : fail(c, start, "this escape is not known");
}

static int class_add(struct compiler *c, struct class *class, size_t at, uint32_t from, uint32_t to)
{
    uint32_t bytes = c->kind == REGEX_SEARCH ? 0xff : 0x7f;
    if (to < from)
        return fail(c, at, "a range ends before it begins");
    if (from <= bytes)
        set_add(&class->ascii, from, to < bytes ? to : bytes);
    if (to <= bytes)
        return 0;
    if (class->n + 1 >= RANGES_MAX) /* one is for \D */
        ranges_tidy(class);
    if (class->n + 1 >= RANGES_MAX)
        return error_set(c->detail, ERR_TOO_LARGE, at, "more than %d ranges in [ ]",
                         RANGES_MAX - 2);
    class->ranges[class->n++] = (struct range){from > bytes ? from : bytes + 1, to};
    return 0;
}

/* Not inlined: the class would then lie in every frame of the recursion. */
__attribute__((noinline)) static int bracket(struct compiler *c)
{
    struct class class = {.n = 0};
    size_t start = c->at++;
    bool negated = peek(c) == '^';
    c->at += negated;
    for (bool first = true; first || peek(c) != ']'; first = false) {
        uint32_t from, to;
        size_t at = c->at;
        if (peek(c) < 0)
            return fail(c, start, "\"[\" without its \"]\"");
        if (c->kind == REGEX_SEARCH && peek(c) >= 0x80)
            return fail(c, at, "only ASCII is supported in [ ]");
        int err = bracket_item(c, &class, &from);
        if (err)
            return err;
        if (class.n + 1 >= RANGES_MAX)
            ranges_tidy(&class);
        if (from == UINT32_MAX)
            continue;
        to = from;
        if (peek(c) == '-' && c->at + 1 < c->in.len && c->in.ptr[c->at + 1] != ']') {
            c->at++;
            err = bracket_item(c, &class, &to);
            if (!err && to == UINT32_MAX)
                err = fail(c, at, "a range needs two characters");
        }
        if (!err && c->kind == REGEX_SEARCH && (from > 0xff || to > 0xff))
            err = fail(c, at, "only ASCII is supported in [ ]");
        if (!err)
            err = class_add(c, &class, at, from, to);
        if (err)
            return err;
    }
    c->at++;
    ranges_tidy(&class);
    if (c->kind == REGEX_SEARCH)
        class.n = 0; /* of \D: the bytes say it all */
    return emit_class(c, &class, negated);
}

__attribute__((noinline)) static int letter_class(struct compiler *c)
{
    struct class class = {.n = 0};
    class_of_letter(peek(c), &class);
    c->at++;
    /* \D as [^0-9] */
    bool negated = class.n > 0;
    if (negated)
        for (int i = 0; i < 4; i++)
            class.ascii.bits[i] = ~class.ascii.bits[i];
    class.n = 0;
    return emit_class(c, &class, negated);
}

__attribute__((noinline)) static int dot(struct compiler *c)
{
    struct class class = {.n = 0};
    c->at++;
    if (!c->flags.dot_all)
        set_add(&class.ascii, '\n', '\n');
    return emit_class(c, &class, true);
}

static int alternatives(struct compiler *c);

/* Behind "(?": flags up to ":" (a group) or ")" (for the rest of the one around). */
static int group_flags(struct compiler *c, size_t start, bool *ret_is_group)
{
    bool on = true;
    for (;; c->at++) {
        switch (peek(c)) {
        case 'i':
            c->flags.any_case = on;
            break;
        case 's':
            c->flags.dot_all = on;
            break;
        case 'U': /* which repetitions are greedy: the same texts match */
            if (c->kind == REGEX_SEARCH)
                return fail(c, c->at, "(?U) is not supported: the longest match is taken");
            break;
        case '-':
            if (!on)
                return fail(c, start, "flags with two \"-\"");
            on = false;
            break;
        case ':':
        case ')':
            *ret_is_group = peek(c) == ':';
            c->at++;
            return 0;
        default:
            return fail(c, start,
                        "of (?...) there are (?:...), (?P<name>...) and the flags i and s");
        }
    }
}

static int group(struct compiler *c)
{
    size_t start = c->at++;
    struct flags outside = c->flags;
    bool is_group = true;
    if (c->depth + 1 > REGEX_GROUPS_MAX)
        return error_set(c->detail, ERR_TOO_LARGE, start,
                         "the expression has too many groups in each other");
    if (ahead(c, "?P<") || (ahead(c, "?<") && !ahead(c, "?<=") && !ahead(c, "?<!"))) {
        struct str name = str_skip(c->in, c->at);
        const char *close = memchr(name.ptr, '>', name.len);
        if (!close)
            return fail(c, start, "the name of a group has no \">\"");
        c->at += (size_t)(close - name.ptr) + 1;
    } else if (peek(c) == '?') {
        c->at++;
        int err = group_flags(c, start, &is_group);
        if (err)
            return err;
    }
    if (!is_group)
        return 0;
    c->depth++;
    int err = alternatives(c);
    if (err)
        return err;
    if (peek(c) != ')')
        return fail(c, start, "\"(\" without its \")\"");
    c->at++;
    c->depth--;
    c->flags = outside;
    return 0;
}

static int backslash(struct compiler *c)
{
    size_t start = c->at++;
    uint32_t value;
    switch (peek(c)) {
    case 'A':
    case 'z':
    case 'b':
    case 'B': {
        int letter = peek(c);
        c->at++;
        return emit(c,
                    letter == 'A'   ? REGEX_START
                    : letter == 'z' ? REGEX_END
                    : letter == 'b' ? REGEX_BORDER
                                    : REGEX_INSIDE,
                    0, 0);
    }
    case 'd':
    case 'D':
    case 'w':
    case 'W':
    case 's':
    case 'S':
        return letter_class(c);
    default:;
    }
    int err = escaped(c, &value);
    if (err == ERR_NOT_FOUND)
        return fail(c, start,
                    peek(c) < 0                        ? "a backslash at the end"
                    : peek(c) >= '1' && peek(c) <= '9' ? "back references are not supported"
                    : peek(c) == 'p' || peek(c) == 'P' ? "Unicode's classes, \\p, are not supported"
                                                       : "this escape is not known");
    return err ? err : literal(c, value, true);
}

/* The character at hand, which means itself. */
static int plain(struct compiler *c)
{
    size_t start = c->at;
    uint32_t value = character(c);
    return literal(c, value, c->at - start == 1);
}

static int atom(struct compiler *c)
{
    int byte = peek(c);
    switch (byte) {
    case '(':
        return group(c);
    case '[':
        return bracket(c);
    case '*':
    case '+':
    case '?':
        return fail(c, c->at, "nothing to repeat (a backslash makes it a character)");
    case '^':
    case '$':
        c->at++;
        return emit(c, byte == '^' ? REGEX_START : REGEX_END, 0, 0);
    case '.':
        return dot(c);
    case '\\':
        return backslash(c);
    default:
        return plain(c);
    }
}

/* "{2}", "{2,}", "{2,5}". ERR_NOT_FOUND: it is no count, and so a character. */
static int count(struct compiler *c, unsigned *least, int *most)
{
    size_t start = c->at;
    uint64_t n = 0, m = 0;
    struct str rest, upper = STR_NONE, text = str_split(str_skip(c->in, start + 1), '}', &rest);
    struct str lower = str_split(text, ',', &upper);
    if (!rest.ptr || !str_to_u64(lower, &n) || (upper.len && !str_to_u64(upper, &m)))
        return ERR_NOT_FOUND;
    if (n > REGEX_COUNT_MAX || m > REGEX_COUNT_MAX)
        return error_set(c->detail, ERR_TOO_LARGE, start, "a count beyond %d", REGEX_COUNT_MAX);
    if (upper.len && m < n)
        return fail(c, start, "the count ends before it begins");
    *least = (unsigned)n;
    *most = !upper.ptr ? (int)n : upper.len ? (int)m : -1;
    c->at = start + text.len + 2;
    return 0;
}

/* e{least,most} of the e that begins at `start` and ends the program; most < 0: no end. */
static int repeat(struct compiler *c, size_t start, unsigned least, int most)
{
    size_t len = c->n - start, piece = start;
    int err = 0;
    if (!least && !most) {
        c->n = start;
        return 0;
    }
    if (!least) { /* e*, e?: the first is optional already */
        err = insert(c, start, REGEX_SPLIT, 1, most < 0 ? len + 2 : len + 1);
        piece++;
        if (!err && most < 0)
            return emit(c, REGEX_JUMP, 0 - (len + 1), 0);
    }
    for (unsigned i = 1; i < least && !err; i++)
        err = copy(c, piece, len);
    if (most < 0) /* e{2,}: back into the last */
        return err ? err : emit(c, REGEX_SPLIT, 0 - len, 1);
    for (int i = least ? (int)least : 1; i < most && !err; i++) {
        err = emit(c, REGEX_SPLIT, 1, len + 1);
        if (!err)
            err = copy(c, piece, len);
    }
    return err;
}

static bool repetition_ahead(struct compiler *c)
{
    unsigned least;
    int most;
    size_t at = c->at;
    int next = peek(c);
    bool yes = next == '*' || next == '+' || next == '?' ||
               (next == '{' && count(c, &least, &most) != ERR_NOT_FOUND);
    c->at = at;
    return yes;
}

/* What stands behind an atom that began at `start`. */
static int repetition(struct compiler *c, size_t start)
{
    unsigned least = 0;
    int most = 0, next = peek(c), err;
    if (next == '{') {
        err = count(c, &least, &most);
        if (err)
            return err == ERR_NOT_FOUND ? 0 : err;
    } else if (next == '*' || next == '+' || next == '?') {
        least = next == '+';
        most = next == '?' ? 1 : -1;
        c->at++;
    } else {
        return 0;
    }
    if (peek(c) == '?') {
        if (c->kind == REGEX_SEARCH)
            return fail(c, c->at, "lazy repetition is not supported: the longest match is taken");
        c->at++;
    }
    if (repetition_ahead(c))
        return fail(c, c->at, "a repetition of a repetition");
    return repeat(c, start, least, most);
}

static int quotation(struct compiler *c)
{
    int err = 0;
    c->at += 2;
    while (!err && c->at < c->in.len && !ahead(c, "\\E")) {
        size_t start = c->n;
        err = plain(c);
        /* The last character of it is what a repetition behind it repeats. */
        if (!err && ahead(c, "\\E")) {
            c->at += 2;
            return repetition(c, start);
        }
    }
    if (!err && c->at < c->in.len)
        c->at += 2;
    return err;
}

static int sequence(struct compiler *c)
{
    int err = 0;
    while (!err && peek(c) >= 0 && peek(c) != '|' && peek(c) != ')') {
        size_t start = c->n;
        if (ahead(c, "\\Q")) {
            err = quotation(c);
            continue;
        }
        if (ahead(c, "\\E")) {
            c->at += 2;
            continue;
        }
        if (peek(c) == '{' && repetition_ahead(c))
            return fail(c, c->at, "nothing to repeat (a backslash makes it a character)");
        err = atom(c);
        if (!err)
            err = repetition(c, start);
    }
    return err;
}

static int alternatives(struct compiler *c)
{
    size_t chain = SIZE_MAX;
    for (;;) {
        size_t start = c->n;
        int err = sequence(c);
        if (err)
            return err;
        if (peek(c) != '|')
            break;
        c->at++;
        err = alternative_end(c, start, &chain);
        if (err)
            return err;
    }
    alternatives_end(c, chain);
    return 0;
}

static int finish(struct compiler *c, struct arena *arena, struct regex *ret)
{
    struct regex r = {.n = c->n, .n_sets = c->n_sets};
    r.steps = arena_array(arena, r.n, sizeof *r.steps);
    r.sets = arena_array(arena, r.n_sets + 1, sizeof *r.sets);
    if (!r.steps || !r.sets)
        return no_memory(c);
    memcpy(r.steps, c->steps, r.n * sizeof *r.steps);
    if (r.n_sets)
        memcpy(r.sets, c->sets, r.n_sets * sizeof *r.sets);
    *ret = r;
    return 0;
}

int regex_compile(struct str text, enum regex_kind kind, size_t steps_max, struct arena *arena,
                  struct regex *ret, struct error_detail *ret_detail)
{
    struct compiler c = {.in = text, .kind = kind, .steps_max = steps_max, .detail = ret_detail};
    int err = kind == REGEX_WHOLE && !str_is_utf8(text) ? fail(&c, 0, "it is not UTF-8")
                                                        : alternatives(&c);
    if (!err && c.at < text.len)
        err = fail(&c, c.at, "\")\" without its \"(\"");
    if (!err)
        err = emit(&c, REGEX_MATCH, 0, 0);
    if (!err)
        err = finish(&c, arena, ret);
    free(c.steps);
    free(c.sets);
    return err;
}
