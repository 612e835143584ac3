/* The program of an expression is run as a deterministic automaton that is built on the way: a state
 * is a set of steps, made when a text first leads to it and kept for the next. Bytes that no set of
 * the program tells apart are one class, and each state has a table with a place for every class.
 *
 * Whether an assertion (^, \b) holds depends on the byte that comes, so that a state keeps the
 * assertions among its steps, with what came before, and they are decided when the next byte is known.
 *
 * The states lie one behind another in one block, and are named by where they begin in it. When it
 * is full all are forgotten, but for the one that is needed. Two places are never used as names: 0
 * is "not known yet".
 *
 * Source: "Regular Expression Matching in the Wild", swtch.com/~rsc/regexp/regexp3.html. */
#include "base/pattern.h"

#include "base/regex.h"

#include <pthread.h>
#include <stdlib.h>

enum {
    BUCKETS = 1024,
    NOTHING = -1, /* before the text, and behind it */
    /* What came before, where that matters: */
    AFTER_START = 1,
    AFTER_WORD = 2,
};

enum verdict { UNKNOWN, YES, NO };

struct state {
    uint32_t link; /* of the same bucket */
    uint32_t hash;
    uint16_t n; /* 0: nothing can match any more */
    uint8_t before;
    uint8_t verdict; /* when the text ends here */
    uint32_t next[]; /* for each class, then the steps */
};

struct pattern {
    pthread_mutex_t lock; /* of all below but the program and the classes */
    struct regex program;
    uint8_t class_of[256], byte_of[256]; /* a class and one of its bytes */
    unsigned n_classes;
    bool has_assertions;

    char *block;
    uint32_t used, start;
    uint32_t buckets[BUCKETS];

    /* sets that are being made */
    uint16_t *steps, *resolved, *stack;
    size_t n, n_resolved;
    uint32_t *seen, generation;
    struct arena arena;
};

static struct state *state_at(const struct pattern *p, uint32_t at)
{
    return (struct state *)(void *)(p->block + at);
}

static uint16_t *steps_of(const struct pattern *p, struct state *s)
{
    return (uint16_t *)(void *)&s->next[p->n_classes];
}

/* ---- sets of steps ---- */

static void new_generation(struct pattern *p)
{
    if (++p->generation == 0) {
        memset(p->seen, 0, p->program.n * sizeof p->seen[0]);
        p->generation = 1;
    }
}

static bool is_assertion(uint8_t op)
{
    return op != REGEX_SET && op != REGEX_SPLIT && op != REGEX_JUMP && op != REGEX_MATCH;
}

/* Adds `first` and what is reached from it without a byte. With `decide` assertions are passed that
 * hold between the two bytes; without, they are added. */
static void add(struct pattern *p, uint16_t *to, size_t *n, size_t first, bool decide, int before,
                int after)
{
    size_t open = 0;
    p->stack[open++] = (uint16_t)first;
    while (open) {
        size_t at = p->stack[--open];
        const struct regex_step *s = &p->program.steps[at];
        if (p->seen[at] == p->generation)
            continue;
        p->seen[at] = p->generation;
        if (s->op == REGEX_SPLIT) {
            p->stack[open++] = (uint16_t)((int)at + s->b);
            p->stack[open++] = (uint16_t)((int)at + s->a);
        } else if (s->op == REGEX_JUMP) {
            p->stack[open++] = (uint16_t)((int)at + s->a);
        } else if (!decide || !is_assertion(s->op)) {
            to[(*n)++] = (uint16_t)at;
        } else if (regex_holds((enum regex_op)s->op, before, after)) {
            p->stack[open++] = (uint16_t)(at + 1);
        }
    }
}

static int step_order(const void *a, const void *b)
{
    return (int)*(const uint16_t *)a - (int)*(const uint16_t *)b;
}

/* ---- states ---- */

static uint32_t hash_of(const uint16_t *steps, size_t n, uint8_t before)
{
    uint32_t h = 2166136261u ^ before;
    for (size_t i = 0; i < n; i++)
        h = (h ^ steps[i]) * 16777619u;
    return h;
}

static size_t state_bytes(const struct pattern *p, size_t n)
{
    size_t bytes = sizeof(struct state) + p->n_classes * sizeof(uint32_t) + n * sizeof(uint16_t);
    return (bytes + 7) & ~(size_t)7;
}

static void forget(struct pattern *p)
{
    memset(p->buckets, 0, sizeof p->buckets);
    p->used = 8;
    p->start = 0;
}

/* The state of p->steps. */
static uint32_t state_of(struct pattern *p, uint8_t before)
{
    bool asks = false;
    for (size_t i = 0; i < p->n && !asks; i++)
        asks = is_assertion(p->program.steps[p->steps[i]].op);
    if (!asks)
        before = 0;
    qsort(p->steps, p->n, sizeof p->steps[0], step_order);
    uint32_t hash = hash_of(p->steps, p->n, before);
    for (uint32_t at = p->buckets[hash % BUCKETS]; at; at = state_at(p, at)->link) {
        struct state *s = state_at(p, at);
        if (s->hash == hash && s->n == p->n && s->before == before &&
            memcmp(steps_of(p, s), p->steps, p->n * sizeof p->steps[0]) == 0)
            return at;
    }
    size_t bytes = state_bytes(p, p->n);
    if (p->used + bytes > PATTERN_CACHE_BYTES)
        forget(p);
    uint32_t at = p->used;
    struct state *s = state_at(p, at);
    p->used += (uint32_t)bytes;
    *s = (struct state){
        .link = p->buckets[hash % BUCKETS], .hash = hash, .n = (uint16_t)p->n, .before = before};
    memset(s->next, 0, p->n_classes * sizeof s->next[0]);
    memcpy(steps_of(p, s), p->steps, p->n * sizeof p->steps[0]);
    p->buckets[hash % BUCKETS] = at;
    return at;
}

static uint32_t start_of(struct pattern *p)
{
    if (!p->start) {
        p->n = 0;
        new_generation(p);
        add(p, p->steps, &p->n, 0, false, NOTHING, NOTHING);
        uint32_t at = state_of(p, AFTER_START);
        p->start = at;
    }
    return p->start;
}

/* The steps of a state with their assertions decided, in p->resolved. */
static void resolve(struct pattern *p, struct state *s, int after)
{
    /* any byte of that kind */
    int before = s->before & AFTER_START ? NOTHING : s->before & AFTER_WORD ? 'a' : ' ';
    uint16_t *steps = steps_of(p, s);
    p->n_resolved = 0;
    new_generation(p);
    for (size_t i = 0; i < s->n; i++)
        add(p, p->resolved, &p->n_resolved, steps[i], true, before, after);
}

/* Where a state goes on. The state is forgotten when there was no room for the next. */
static uint32_t advance(struct pattern *p, uint32_t from, unsigned class)
{
    struct state *s = state_at(p, from);
    uint8_t byte = p->byte_of[class];
    resolve(p, s, byte);
    p->n = 0;
    new_generation(p);
    for (size_t i = 0; i < p->n_resolved; i++) {
        const struct regex_step *step = &p->program.steps[p->resolved[i]];
        if (step->op == REGEX_SET && regex_set_has(&p->program.sets[step->a], byte))
            add(p, p->steps, &p->n, (size_t)p->resolved[i] + 1, false, NOTHING, NOTHING);
    }
    uint32_t used = p->used, next = state_of(p, regex_is_word(byte) ? AFTER_WORD : 0);
    if (p->used >= used)
        s->next[class] = next;
    return next;
}

static bool accepts(struct pattern *p, uint32_t at)
{
    struct state *s = state_at(p, at);
    if (s->verdict == UNKNOWN) {
        resolve(p, s, NOTHING);
        s->verdict = NO;
        for (size_t i = 0; i < p->n_resolved; i++)
            if (p->program.steps[p->resolved[i]].op == REGEX_MATCH)
                s->verdict = YES;
    }
    return s->verdict == YES;
}

static bool match(struct pattern *p, struct str text)
{
    uint32_t at = start_of(p);
    for (size_t i = 0; i < text.len; i++) {
        struct state *s = state_at(p, at);
        unsigned class = p->class_of[(unsigned char)text.ptr[i]];
        if (!s->n)
            return false;
        at = s->next[class] ? s->next[class] : advance(p, at, class);
    }
    return accepts(p, at);
}

/* Each byte that belongs to no character as U+FFFD. NULL: out of memory. */
static char *as_characters(struct str text, size_t *ret_len)
{
    char *copy = malloc(3 * text.len + 1);
    size_t n = 0;
    for (size_t i = 0; copy && i < text.len;) {
        unsigned char first = (unsigned char)text.ptr[i];
        size_t len = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : first >= 0xc0 ? 2 : 1;
        if (len <= text.len - i && str_is_utf8((struct str){text.ptr + i, len})) {
            memcpy(copy + n, text.ptr + i, len);
            n += len;
            i += len;
        } else {
            memcpy(copy + n, "\xef\xbf\xbd", 3);
            n += 3;
            i++;
        }
    }
    *ret_len = n;
    return copy;
}

bool pattern_match(struct pattern *p, struct str text)
{
    char *copy = NULL;
    if (!str_is_utf8(text)) {
        copy = as_characters(text, &text.len);
        if (!copy)
            return false;
        text.ptr = copy;
    }
    pthread_mutex_lock(&p->lock);
    bool yes = match(p, text);
    pthread_mutex_unlock(&p->lock);
    free(copy);
    return yes;
}

/* ---- making one ---- */

/* Two bytes are of one class until a set has only one of them. */
static void classes_init(struct pattern *p)
{
    static const struct regex_set word = {
        {UINT64_C(0x03ff000000000000), UINT64_C(0x07fffffe87fffffe), 0, 0}};
    for (size_t i = 0; i <= p->program.n_sets; i++) {
        const struct regex_set *s = i < p->program.n_sets ? &p->program.sets[i] : &word;
        int16_t renamed[2][256];
        unsigned n = 0;
        if (s == &word && !p->has_assertions)
            break;
        memset(renamed, 0xff, sizeof renamed);
        for (unsigned b = 0; b < 256; b++) {
            int16_t *name = &renamed[regex_set_has(s, (unsigned char)b)][p->class_of[b]];
            if (*name < 0)
                *name = (int16_t)n++;
            p->class_of[b] = (uint8_t)*name;
        }
    }
    for (unsigned b = 256; b-- > 0;) {
        p->byte_of[p->class_of[b]] = (uint8_t)b;
        if (p->class_of[b] >= p->n_classes)
            p->n_classes = p->class_of[b] + 1u;
    }
}

int pattern_new(struct str expression, struct pattern **ret, struct error_detail *ret_detail)
{
    if (expression.len > PATTERN_TEXT_MAX)
        return error_set(ret_detail, ERR_TOO_LARGE, 0,
                         "the regular expression is longer than %d bytes", PATTERN_TEXT_MAX);
    struct pattern *p = calloc(1, sizeof *p);
    if (!p)
        return error_set(ret_detail, ERR_NOMEM, 0, "out of memory");
    pthread_mutex_init(&p->lock, NULL);
    int err = regex_compile(expression, REGEX_WHOLE, REGEX_STEPS_MAX, &p->arena, &p->program,
                            ret_detail);
    if (err) {
        pattern_free(p);
        return err;
    }
    size_t n = p->program.n;
    for (size_t i = 0; i < n; i++)
        p->has_assertions |= is_assertion(p->program.steps[i].op);
    classes_init(p);
    p->steps = arena_array(&p->arena, n, sizeof *p->steps);
    p->resolved = arena_array(&p->arena, n, sizeof *p->resolved);
    p->stack = arena_array(&p->arena, 2 * n + 2, sizeof *p->stack);
    p->seen = arena_zalloc(&p->arena, n * sizeof *p->seen);
    p->block = malloc(PATTERN_CACHE_BYTES);
    if (!p->steps || !p->resolved || !p->stack || !p->seen || !p->block) {
        pattern_free(p);
        return error_set(ret_detail, ERR_NOMEM, 0, "out of memory");
    }
    forget(p);
    *ret = p;
    return 0;
}

void pattern_free(struct pattern *p)
{
    if (!p)
        return;
    pthread_mutex_destroy(&p->lock);
    free(p->block);
    arena_done(&p->arena);
    free(p);
}
