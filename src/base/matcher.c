/* The simulation keeps the set of steps that can be reached, each with the smallest place where a
 * match that is there now has begun. The sets are filled in the order of those places (a new start
 * comes last), so who comes first to a step has the smallest. */
#include "base/matcher.h"

#include "base/regex.h"

struct live {
    uint16_t *steps;
    uint32_t *starts;
    size_t n;
};

struct matcher {
    struct regex program;
    struct regex_set first; /* what a match may begin with */
    struct live now, next;
    uint32_t *seen; /* generation in which a step was added */
    uint32_t generation;
    uint16_t *stack;
};

static int byte_at(struct str text, size_t at)
{
    return at < text.len ? (unsigned char)text.ptr[at] : -1;
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
        const struct regex_step *s = &m->program.steps[pc];
        if (m->seen[pc] == m->generation)
            continue;
        m->seen[pc] = m->generation;
        switch (s->op) {
        case REGEX_SET:
            to->steps[to->n] = (uint16_t)pc;
            to->starts[to->n++] = start;
            break;
        case REGEX_SPLIT:
            m->stack[n++] = (uint16_t)((int)pc + s->b);
            m->stack[n++] = (uint16_t)((int)pc + s->a);
            break;
        case REGEX_JUMP:
            m->stack[n++] = (uint16_t)((int)pc + s->a);
            break;
        case REGEX_MATCH:
            matched = true;
            break;
        default:
            if (believe || regex_holds((enum regex_op)s->op, at ? byte_at(text, at - 1) : -1,
                                       byte_at(text, at)))
                m->stack[n++] = (uint16_t)(pc + 1);
            break;
        }
    }
    return matched;
}

static void new_generation(struct matcher *m)
{
    if (++m->generation == 0) {
        memset(m->seen, 0, m->program.n * sizeof m->seen[0]);
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
    return 8 * (uint64_t)(len + 1) * m->program.n;
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
        if (!m->now.n &&
            !regex_set_has(&m->first, byte)) /* a byte at which nothing begins: most are */
            continue;
        if (*budget < m->now.n + 1)
            return MATCHER_TIRED;
        *budget -= m->now.n + 1;
        if (!found && regex_set_has(&m->first, byte)) {
            /* What is live already was added for this place: do not add its steps again. */
            new_generation(m);
            for (size_t i = 0; i < m->now.n; i++)
                m->seen[m->now.steps[i]] = m->generation;
            add(m, &m->now, 0, (uint32_t)at, text, at, false);
        }
        m->next.n = 0;
        new_generation(m);
        for (size_t i = 0; i < m->now.n; i++) {
            const struct regex_step *s = &m->program.steps[m->now.steps[i]];
            uint32_t began = m->now.starts[i];
            if ((found && began > start) || !regex_set_has(&m->program.sets[s->a], byte))
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

/* ---- making one ---- */

static bool live_init(struct live *l, struct arena *arena, size_t n)
{
    l->steps = arena_array(arena, n, sizeof *l->steps);
    l->starts = arena_array(arena, n, sizeof *l->starts);
    return l->steps && l->starts;
}

int matcher_new(struct str expression, struct arena *arena, struct matcher **ret,
                struct error_detail *ret_detail)
{
    if (expression.len > MATCHER_TEXT_MAX)
        return error_set(ret_detail, ERR_TOO_LARGE, 0, "the expression is longer than %d bytes",
                         MATCHER_TEXT_MAX);
    struct matcher *m = arena_zalloc(arena, sizeof *m);
    if (!m)
        return error_set(ret_detail, ERR_NOMEM, 0, "out of memory");
    int err = regex_compile(expression, REGEX_SEARCH, MATCHER_STEPS_MAX, arena, &m->program,
                            ret_detail);
    if (err)
        return err;
    size_t n = m->program.n;
    m->seen = arena_zalloc(arena, n * sizeof *m->seen);
    /* A step is put on the stack by each that leads to it: two at most a step. */
    m->stack = arena_array(arena, 2 * n + 2, sizeof *m->stack);
    if (!m->seen || !m->stack || !live_init(&m->now, arena, n) || !live_init(&m->next, arena, n))
        return error_set(ret_detail, ERR_NOMEM, 0, "out of memory");
    new_generation(m);
    if (add(m, &m->now, 0, 0, STR_NONE, 0, true))
        return error_set(ret_detail, ERR_INVALID, 0,
                         "the expression matches the empty text, and so everywhere");
    for (size_t i = 0; i < m->now.n; i++) {
        const struct regex_set *s = &m->program.sets[m->program.steps[m->now.steps[i]].a];
        for (int k = 0; k < 4; k++)
            m->first.bits[k] |= s->bits[k];
    }
    m->now.n = 0;
    *ret = m;
    return 0;
}
