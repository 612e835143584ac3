/* An expression becomes a program of steps with relative jumps, so that a piece can be moved and
 * copied as it stands:
 *
 *     e?      split e                 e|f     split e jump f
 *     e*      split e jump-back       e{2,3}  e e split e
 *     e+      e split-back
 *
 * The simulation keeps the set of steps that can be reached, each with the smallest place where a
 * match that is there now has begun. The sets are filled in the order of those places (a new start
 * comes last), so who comes first to a step has the smallest. */
#include "base/matcher.h"

#include <stdio.h>

enum op { OP_SET, OP_SPLIT, OP_JUMP, OP_START, OP_END, OP_BORDER, OP_MATCH };

struct step {
    uint8_t op;
    int16_t a, b; /* jumps, relative; of OP_SET: a is the set's number */
};

struct set {
    uint64_t bits[4];
};

struct live {
    uint16_t *steps;
    uint32_t *starts;
    size_t n;
};

struct matcher {
    struct step *steps;
    size_t n;
    struct set *sets;
    struct set first; /* what a match may begin with */
    struct live now, next;
    uint32_t *seen; /* generation in which a step was added */
    uint32_t generation;
    uint16_t *stack;
};

struct compiler {
    struct str in;
    size_t at;
    struct error_detail *detail;
    struct step steps[MATCHER_STEPS_MAX];
    size_t n;
    struct set *sets; /* MATCHER_TEXT_MAX of them: one at most for a character */
    size_t n_sets;
    bool any_case;
    int depth;
};

static int fail(struct compiler *c, size_t at, const char *what)
{
    return error_set(c->detail, ERR_INVALID, at,
                     "the expression cannot be read at character %zu: %s", at + 1, what);
}

/* ---- sets of bytes ---- */

static void set_add(struct set *s, unsigned from, unsigned to)
{
    for (unsigned b = from; b <= to; b++)
        s->bits[b >> 6] |= UINT64_C(1) << (b & 63);
}

static bool set_has(const struct set *s, unsigned char b)
{
    return s->bits[b >> 6] >> (b & 63) & 1;
}

static void set_invert(struct set *s)
{
    for (int i = 0; i < 4; i++)
        s->bits[i] = ~s->bits[i];
}

static void set_join(struct set *s, const struct set *other)
{
    for (int i = 0; i < 4; i++)
        s->bits[i] |= other->bits[i];
}

static void set_any_case(struct set *s)
{
    for (unsigned c = 'a'; c <= 'z'; c++) {
        if (set_has(s, (unsigned char)c))
            set_add(s, c - 32, c - 32);
        else if (set_has(s, (unsigned char)(c - 32)))
            set_add(s, c, c);
    }
}

/* \d \w \s and their opposites. */
static bool set_of_class(char c, struct set *ret)
{
    struct set s = {{0}};
    switch (c | 0x20) {
    case 'w':
        set_add(&s, 'a', 'z');
        set_add(&s, 'A', 'Z');
        set_add(&s, '_', '_');
        set_add(&s, '0', '9');
        break;
    case 'd':
        set_add(&s, '0', '9');
        break;
    case 's':
        set_add(&s, '\t', '\r');
        set_add(&s, ' ', ' ');
        break;
    default:
        return false;
    }
    if (!(c & 0x20))
        set_invert(&s);
    *ret = s;
    return true;
}

/* ---- emitting ---- */

static int room(struct compiler *c, size_t more)
{
    return c->n + more < MATCHER_STEPS_MAX
               ? 0
               : error_set(c->detail, ERR_TOO_LARGE, c->at,
                           "the expression comes to more than %d steps", MATCHER_STEPS_MAX);
}

static int emit(struct compiler *c, enum op op, int a, int b)
{
    int err = room(c, 1);
    if (!err)
        c->steps[c->n++] = (struct step){(uint8_t)op, (int16_t)a, (int16_t)b};
    return err;
}

static int emit_set(struct compiler *c, struct set *s)
{
    if (c->any_case)
        set_any_case(s);
    c->sets[c->n_sets] = *s;
    return emit(c, OP_SET, (int)c->n_sets++, 0);
}

static int insert(struct compiler *c, size_t at, enum op op, int a, int b)
{
    int err = room(c, 1);
    if (err)
        return err;
    memmove(&c->steps[at + 1], &c->steps[at], (c->n - at) * sizeof c->steps[0]);
    c->steps[at] = (struct step){(uint8_t)op, (int16_t)a, (int16_t)b};
    c->n++;
    return 0;
}

static int copy(struct compiler *c, const struct step *piece, size_t len)
{
    int err = room(c, len);
    if (err)
        return err;
    memcpy(&c->steps[c->n], piece, len * sizeof *piece);
    c->n += len;
    return 0;
}

/* ---- parsing ---- */

static int peek(const struct compiler *c)
{
    return c->at < c->in.len ? (unsigned char)c->in.ptr[c->at] : -1;
}

/* Behind the backslash: an escape for one byte. ERR_NOT_FOUND: none. */
static int escaped(struct compiler *c, unsigned *ret)
{
    static const char names[] = "nrtfva", bytes[] = "\n\r\t\f\v\a";
    int e = peek(c);
    uint8_t byte;
    const char *name = e > 0 ? strchr(names, e) : NULL;
    if (name) {
        *ret = (unsigned char)bytes[name - names];
        c->at++;
    } else if (e == 'x') {
        if (c->in.len - c->at < 3 || !hex_get(&byte, (struct str){c->in.ptr + c->at + 1, 2}, 1))
            return fail(c, c->at, "\\x needs two hexadecimal digits");
        *ret = byte;
        c->at += 3;
    } else if (e < 0 || (e >= '0' && e <= '9') || ((e | 0x20) >= 'a' && (e | 0x20) <= 'z')) {
        return ERR_NOT_FOUND;
    } else {
        *ret = (unsigned)e;
        c->at++;
    }
    return 0;
}

/* One end of a range, or a class. */
static int bracket_item(struct compiler *c, struct set *s, int *ret_byte)
{
    unsigned byte = (unsigned)peek(c);
    struct set of_class;
    *ret_byte = -1;
    if (byte >= 0x80)
        return fail(c, c->at, "only ASCII is supported in [ ]");
    c->at++;
    if (byte == '\\') {
        if (peek(c) > 0 && set_of_class((char)peek(c), &of_class)) {
            set_join(s, &of_class);
            c->at++;
            return 0;
        }
        int err = escaped(c, &byte);
        if (err)
            return err == ERR_NOT_FOUND ? fail(c, c->at, "this escape is not known") : err;
    }
    *ret_byte = (int)byte;
    return 0;
}

static int bracket(struct compiler *c)
{
    struct set s = {{0}};
    size_t start = c->at++;
    bool negated = peek(c) == '^';
    c->at += negated;
    for (bool first = true; first || peek(c) != ']'; first = false) {
        int from, to;
        if (peek(c) < 0)
            return fail(c, start, "\"[\" without its \"]\"");
        if (peek(c) == '[' && c->at + 1 < c->in.len && c->in.ptr[c->at + 1] == ':')
            return fail(c, c->at, "[:name:] is not supported; \\d, \\w and \\s are");
        int err = bracket_item(c, &s, &from);
        if (err)
            return err;
        if (from < 0)
            continue;
        to = from;
        if (peek(c) == '-' && c->at + 1 < c->in.len && c->in.ptr[c->at + 1] != ']') {
            c->at++;
            err = bracket_item(c, &s, &to);
            if (err)
                return err;
            if (to < from)
                return fail(c, start, "a range ends before it begins");
        }
        set_add(&s, (unsigned)from, (unsigned)to);
    }
    c->at++;
    if (c->any_case)
        set_any_case(&s);
    if (negated)
        set_invert(&s);
    return emit_set(c, &s);
}

static int literal(struct compiler *c, unsigned byte)
{
    struct set s = {{0}};
    set_add(&s, byte, byte);
    return emit_set(c, &s);
}

static int alternatives(struct compiler *c);

static int group(struct compiler *c)
{
    size_t start = c->at++;
    if (++c->depth > MATCHER_GROUPS_MAX)
        return error_set(c->detail, ERR_TOO_LARGE, start,
                         "the expression has too many groups in each other");
    if (peek(c) == '?') {
        if (c->at + 1 >= c->in.len || c->in.ptr[c->at + 1] != ':')
            return fail(c, start, "of (?...) there are only (?:...) and, in front of all, (?i)");
        c->at += 2;
    }
    int err = alternatives(c);
    if (err)
        return err;
    if (peek(c) != ')')
        return fail(c, start, "\"(\" without its \")\"");
    c->at++;
    c->depth--;
    return 0;
}

static int atom(struct compiler *c)
{
    struct set s = {{0}};
    unsigned byte = (unsigned)peek(c);
    size_t start = c->at;
    int err = 0;
    switch (byte) {
    case '(':
        return group(c);
    case '[':
        return bracket(c);
    case '*':
    case '+':
    case '?':
    case '{':
        return fail(c, start, "nothing to repeat (a backslash makes it a character)");
    case '^':
    case '$':
        c->at++;
        return emit(c, byte == '^' ? OP_START : OP_END, 0, 0);
    case '.':
        c->at++;
        set_add(&s, '\n', '\n');
        set_invert(&s);
        return emit_set(c, &s);
    case '\\':
        c->at++;
        if (peek(c) == 'b') {
            c->at++;
            return emit(c, OP_BORDER, 0, 0);
        }
        if (peek(c) > 0 && set_of_class((char)peek(c), &s)) {
            c->at++;
            return emit_set(c, &s);
        }
        err = escaped(c, &byte);
        if (err == ERR_NOT_FOUND)
            return fail(c, start,
                        peek(c) < 0                        ? "a backslash at the end"
                        : peek(c) >= '1' && peek(c) <= '9' ? "back references are not supported"
                                                           : "this escape is not known");
        return err ? err : literal(c, byte);
    default:
        /* A character of UTF-8 is one atom: a repetition is of all its bytes. */
        do {
            err = literal(c, (unsigned char)c->in.ptr[c->at++]);
        } while (!err && byte >= 0xc0 && peek(c) >= 0x80 && peek(c) < 0xc0);
        return err;
    }
}

/* "{2}", "{2,}", "{2,5}" */
static int count(struct compiler *c, unsigned *least, int *most)
{
    size_t start = c->at++, from = c->at;
    uint64_t n = 0;
    struct str rest = str_skip(c->in, from), upper = STR_NONE;
    struct str text = str_split(rest, '}', &rest);
    struct str lower = str_split(text, ',', &upper);
    if (!rest.ptr || !str_to_u64(lower, &n) || n > 1000)
        return fail(c, start, "expected a count: {2}, {2,} or {2,5}, at most 1000");
    *least = (unsigned)n;
    *most = upper.ptr ? -1 : (int)n;
    if (upper.len) {
        if (!str_to_u64(upper, &n) || n > 1000 || n < *least)
            return fail(c, start, "expected a count: {2}, {2,} or {2,5}, at most 1000");
        *most = (int)n;
    }
    c->at += text.len + 1;
    return 0;
}

/* e{least,most} from the e at the end of the program. Not inlined: its copy would then lie in every
 * frame of the recursion. */
__attribute__((noinline)) static int repeat(struct compiler *c, size_t start, unsigned least,
                                            int most)
{
    struct step piece[MATCHER_STEPS_MAX];
    size_t len = c->n - start;
    int err = 0;
    memcpy(piece, &c->steps[start], len * sizeof piece[0]);
    c->n = start;
    for (unsigned i = 0; i < least && !err; i++)
        err = copy(c, piece, len);
    if (most < 0 && least == 0) { /* e* */
        if (!err)
            err = emit(c, OP_SPLIT, 1, (int)len + 2);
        if (!err)
            err = copy(c, piece, len);
        return err ? err : emit(c, OP_JUMP, -(int)len - 1, 0);
    }
    if (most < 0) /* e{2,}: back into the last */
        return err ? err : emit(c, OP_SPLIT, -(int)len, 1);
    for (int i = (int)least; i < most && !err; i++) {
        err = emit(c, OP_SPLIT, 1, (int)len + 1);
        if (!err)
            err = copy(c, piece, len);
    }
    return err;
}

static int sequence(struct compiler *c)
{
    while (peek(c) >= 0 && peek(c) != '|' && peek(c) != ')') {
        size_t start = c->n;
        unsigned least = 0;
        int most = 0, err = atom(c), next = peek(c);
        if (err)
            return err;
        if (next != '*' && next != '+' && next != '?' && next != '{')
            continue;
        if (next == '{') {
            err = count(c, &least, &most);
            if (err)
                return err;
        } else {
            least = next == '+';
            most = next == '?' ? 1 : -1;
            c->at++;
        }
        if (peek(c) == '?' || peek(c) == '*' || peek(c) == '+' || peek(c) == '{')
            return fail(c, c->at, "a repetition of a repetition (the longest match is taken)");
        err = repeat(c, start, least, most);
        if (err)
            return err;
    }
    return 0;
}

static int alternatives(struct compiler *c)
{
    /* The jumps from the ends of the alternatives to the end of all: chained through `a` until it
     * is known. */
    size_t chain = SIZE_MAX;
    for (;;) {
        size_t start = c->n;
        int err = sequence(c);
        if (err)
            return err;
        if (peek(c) != '|')
            break;
        c->at++;
        err = insert(c, start, OP_SPLIT, 1, (int)(c->n - start) + 2);
        if (!err)
            err = emit(c, OP_JUMP, chain == SIZE_MAX ? 0 : (int)(c->n - chain), 0);
        if (err)
            return err;
        chain = c->n - 1;
    }
    while (chain != SIZE_MAX) {
        size_t back = (size_t)c->steps[chain].a;
        c->steps[chain].a = (int16_t)(c->n - chain);
        chain = back ? chain - back : SIZE_MAX;
    }
    return 0;
}

/* ---- running ---- */

static bool is_word(struct str text, size_t at)
{
    unsigned char c = at < text.len ? (unsigned char)text.ptr[at] : 0;
    return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || c == '_';
}

static bool holds(enum op op, struct str text, size_t at)
{
    switch (op) {
    case OP_START:
        return at == 0;
    case OP_END:
        return at == text.len;
    default:
        return (at > 0 && is_word(text, at - 1)) != is_word(text, at);
    }
}

/* Adds `pc` and what is reached from it without a byte. True: a match ends here. `believe`: all
 * assertions hold. */
static bool add(struct matcher *m, struct live *to, size_t first, uint32_t start, struct str text,
                size_t at, bool believe)
{
    bool matched = false;
    size_t n = 0;
    m->stack[n++] = (uint16_t)first;
    while (n) {
        size_t pc = m->stack[--n];
        const struct step *s = &m->steps[pc];
        if (m->seen[pc] == m->generation)
            continue;
        m->seen[pc] = m->generation;
        switch (s->op) {
        case OP_SET:
            to->steps[to->n] = (uint16_t)pc;
            to->starts[to->n++] = start;
            break;
        case OP_SPLIT:
            m->stack[n++] = (uint16_t)((int)pc + s->b);
            m->stack[n++] = (uint16_t)((int)pc + s->a);
            break;
        case OP_JUMP:
            m->stack[n++] = (uint16_t)((int)pc + s->a);
            break;
        case OP_MATCH:
            matched = true;
            break;
        default:
            if (believe || holds((enum op)s->op, text, at))
                m->stack[n++] = (uint16_t)(pc + 1);
            break;
        }
    }
    return matched;
}

static void new_generation(struct matcher *m)
{
    if (++m->generation == 0) {
        memset(m->seen, 0, m->n * sizeof m->seen[0]);
        m->generation = 1;
    }
}

static void widen(struct str text, size_t from, size_t *start, size_t *end)
{
    while (*start > from && ((unsigned char)text.ptr[*start] & 0xc0) == 0x80)
        --*start;
    while (*end < text.len && ((unsigned char)text.ptr[*end] & 0xc0) == 0x80)
        ++*end;
}

uint64_t matcher_budget(const struct matcher *m, size_t len)
{
    return 8 * (uint64_t)(len + 1) * m->n;
}

enum matcher_answer matcher_find(struct matcher *m, struct str text, size_t from, size_t *ret_start,
                                 size_t *ret_end, uint64_t *budget)
{
    bool found = false;
    size_t start = 0, end = 0;
    m->now.n = 0;
    for (size_t at = from; at < text.len; at++) {
        unsigned char byte = (unsigned char)text.ptr[at];
        if (!m->now.n && found)
            break;
        if (!m->now.n && !set_has(&m->first, byte)) /* a byte at which nothing begins: most are */
            continue;
        if (*budget < m->now.n + 1)
            return MATCHER_TIRED;
        *budget -= m->now.n + 1;
        if (!found && set_has(&m->first, byte)) {
            /* What is live already was added for this place: do not add its steps again. */
            new_generation(m);
            for (size_t i = 0; i < m->now.n; i++)
                m->seen[m->now.steps[i]] = m->generation;
            add(m, &m->now, 0, (uint32_t)at, text, at, false);
        }
        m->next.n = 0;
        new_generation(m);
        for (size_t i = 0; i < m->now.n; i++) {
            const struct step *s = &m->steps[m->now.steps[i]];
            uint32_t began = m->now.starts[i];
            if ((found && began > start) || !set_has(&m->sets[s->a], byte))
                continue;
            if (add(m, &m->next, (size_t)m->now.steps[i] + 1, began, text, at + 1, false) &&
                (!found || began <= start)) {
                found = true;
                start = began;
                end = at + 1;
            }
        }
        struct live swapped = m->now;
        m->now = m->next;
        m->next = swapped;
    }
    if (!found)
        return MATCHER_NO;
    widen(text, from, &start, &end);
    *ret_start = start;
    *ret_end = end;
    return MATCHER_YES;
}

/* ---- compiling ---- */

static bool live_init(struct live *l, struct arena *arena, size_t n)
{
    l->steps = arena_array(arena, n, sizeof *l->steps);
    l->starts = arena_array(arena, n, sizeof *l->starts);
    return l->steps && l->starts;
}

static int finish(struct compiler *c, struct arena *arena, struct matcher **ret)
{
    struct matcher *m = arena_zalloc(arena, sizeof *m);
    if (!m)
        return ERR_NOMEM;
    m->n = c->n;
    m->steps = arena_array(arena, c->n, sizeof *m->steps);
    m->sets = arena_array(arena, c->n_sets + 1, sizeof *m->sets);
    m->seen = arena_zalloc(arena, c->n * sizeof *m->seen);
    /* A step is put on the stack by each that leads to it: two at most a step. */
    m->stack = arena_array(arena, 2 * c->n + 2, sizeof *m->stack);
    if (!m->steps || !m->sets || !m->seen || !m->stack || !live_init(&m->now, arena, c->n) ||
        !live_init(&m->next, arena, c->n))
        return ERR_NOMEM;
    memcpy(m->steps, c->steps, c->n * sizeof *m->steps);
    memcpy(m->sets, c->sets, c->n_sets * sizeof *m->sets);
    new_generation(m);
    if (add(m, &m->now, 0, 0, STR_NONE, 0, true))
        return error_set(c->detail, ERR_INVALID, 0,
                         "the expression matches the empty text, and so everywhere");
    for (size_t i = 0; i < m->now.n; i++)
        set_join(&m->first, &m->sets[m->steps[m->now.steps[i]].a]);
    m->now.n = 0;
    *ret = m;
    return 0;
}

int matcher_new(struct str expression, struct arena *arena, struct matcher **ret,
                struct error_detail *ret_detail)
{
    struct compiler c;
    if (expression.len > MATCHER_TEXT_MAX)
        return error_set(ret_detail, ERR_TOO_LARGE, 0, "the expression is longer than %d bytes",
                         MATCHER_TEXT_MAX);
    c.in = expression;
    c.detail = ret_detail;
    c.at = c.n = c.n_sets = 0;
    c.depth = 0;
    c.any_case = str_starts(expression, STR("(?i)"));
    c.at = c.any_case ? 4 : 0;
    c.sets = arena_array(arena, expression.len + 1, sizeof *c.sets);
    if (!c.sets)
        return error_set(ret_detail, ERR_NOMEM, 0, "out of memory");
    int err = alternatives(&c);
    if (!err && c.at < c.in.len)
        err = fail(&c, c.at, "\")\" without its \"(\"");
    if (!err)
        err = emit(&c, OP_MATCH, 0, 0);
    return err ? err : finish(&c, arena, ret);
}
