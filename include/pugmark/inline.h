/* The machinery behind pugmark.h: what a span costs stands here. Not for direct use.
 *
 * A thread owns a lane (`struct pug__lane`): a stack of open slots and a ring of records, both in
 * shared memory. Only the owner writes them; the drain, a thread of the library, reads.
 *
 * 1. `top` is the innermost open slot. slots[0] is the base and never a span. A slot's parent is
 *    the slot before it.
 * 2. A record is a multiple of 8 bytes at ring[head & mask]; the ring is mapped twice in a row, so
 *    that records never wrap. `head` is stored with release after the record and pairs with the
 *    acquire in the drain.
 * 3. A span may begin only when head <= limit. That leaves PUG__SLACK bytes, enough for the end of
 *    every slot and the largest record, so that a span which has begun can always be ended: begin
 *    and end are dropped as a pair.
 * 4. `limit` is 0 while the owner is inside. A signal handler that begins a span then finds no room
 *    and looks closer (pug__open_slow).
 * 5. Slots are complete before `top` moves (release), so that another process can read the open
 *    spans at any moment, also when this one is dead.
 * 6. Where each root is kept with the same probability, the library draws ahead which is the next one
 *    (sampler_gap): none with a seq below `drop_below` is, as long as the base slot's state is
 *    `drop_state`. Such a root is a slot and nothing else (pug__drop).
 * 7. It is not marked as unlikely: what is so marked stands beyond the end of the function, and on the
 *    way there and back a root that is not kept went through six taken branches, whose price was 2.6 ns or
 *    3.3 ns by where the function stood. In line it is 2.6 ns everywhere, and what is kept jumps over it. */
#ifndef PUGMARK_INLINE_H
#define PUGMARK_INLINE_H

struct pug__key {
    const char *name;
    uint8_t type; /* PUG__TYPE_ */
};

/* One place in the program. `id` is 0 until it was reached first, then its number in the table of
 * sites in shared memory, which holds copies of the strings. */
struct pug__site {
    uint32_t id;
    uint32_t line;
    uint8_t kind;
    uint8_t n_keys;
    const char *name, *file, *function;
    const struct pug__key *keys;
};

enum {
    PUG__TYPE_NONE,
    PUG__TYPE_STR,
    PUG__TYPE_BOOL,
    PUG__TYPE_INT,
    PUG__TYPE_DOUBLE,
    PUG__TYPE_KIND, /* not a value: of the site */
};

/* Low bits of slot.state: what keeps a span off the fast path. The upper half is the number of the
 * context it descends from, 0 for none. Children inherit both, but not the bits of PUG__STATE_OWN.
 */
enum {
    PUG__STATE_LOST = 1,      /* no room */
    PUG__STATE_UNSAMPLED = 2, /* its trace is not kept: what would begin inside is not even begun */
    PUG__STATE_CONTEXT = 4,   /* no span but an attached context */
    PUG__STATE_ORPHAN = 8,    /* of a context that found no room */
    PUG__STATE_ASK = 16,      /* of the base and of contexts: the sampler is asked about children */
    PUG__STATE_WATCH = 32,    /* begin and end are seen by src/sdk/watch.c */
    PUG__STATE_ROOT = 64,     /* the sampler kept it: it has a context of its own */
    PUG__STATE_ALONE = 128,   /* kept though its trace is not; children are UNSAMPLED */
    PUG__STATE_SKIP = 256,    /* stands for its parent, whose numbers it has */
    PUG__STATE_ROUND = 0xfe00, /* of the base: counts the samplers there have been */
    PUG__STATE_ROUND_ONE = 0x200,
    PUG__STATE_OWN = PUG__STATE_LOST | PUG__STATE_CONTEXT | PUG__STATE_ASK | PUG__STATE_ROOT |
                     PUG__STATE_ALONE | PUG__STATE_SKIP | PUG__STATE_ROUND,
    /* Of a parent: its children begin in the library. */
    PUG__STATE_ASIDE = PUG__STATE_ASK | PUG__STATE_WATCH | PUG__STATE_ALONE,
    /* Of a span: it ends in the library. */
    PUG__STATE_MASK = 0xffff,
};

struct pug__slot {
    uint64_t start; /* ticks */
    uint64_t seq;   /* from 1, one count for the lane */
    uint64_t trace; /* seq of the root or of the context that names the trace */
    uint32_t site;
    uint32_t state;
};

/* Of a slot that may be the lowest one, whose state another thread sets: at a start, and when spans
 * become watched. Either value will do, and an aligned word is read whole; what says so to
 * ThreadSanitizer would keep gcc from testing the bits where they are. */
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define PUG__STATE_OF(slot_) __atomic_load_n(&(slot_)->state, __ATOMIC_RELAXED)
#endif
#elif defined(__SANITIZE_THREAD__)
#define PUG__STATE_OF(slot_) __atomic_load_n(&(slot_)->state, __ATOMIC_RELAXED)
#endif
#ifndef PUG__STATE_OF
#define PUG__STATE_OF(slot_) ((slot_)->state)
#endif

/* A span that ended, the most frequent record. Where a difference does not fit, a longer form is
 * written (PUG__RECORD_END_LONG). All records begin with 8 bits of kind, see src/sdk/record.h. */
struct pug__end_record {
    uint32_t kind_site; /* kind in the low 8 bits */
    uint32_t duration;  /* ticks */
    uint64_t start;
    uint64_t seq;
    uint32_t parent; /* seq - seq of the parent */
    uint32_t trace;  /* seq - trace; 0: a root */
};

enum { PUG__RECORD_END = 1, PUG__RECORD_ATTRS = 3 };

#define PUG__SLACK ((PUG_DEPTH_MAX + 8) * 48 + PUG_ATTRS_MAX * (PUG_STR_MAX + 8) + 8192)

struct pug__lane {
    /* the owner's line */
    struct pug__slot *top;
    uint64_t head;
    uint64_t limit; /* 0 while the owner is inside, else room */
    uint64_t room;
    uint64_t seq;
    char *ring;
    struct pug__slot *last; /* the highest slot */
    uint32_t mask;          /* bytes in the ring, less 1 */
    uint32_t clock;         /* 0: the CPU's counter; else clock_gettime */
    /* the owner's second line: roots that are not kept (6.) */
    uint64_t drop_below;
    uint32_t drop_state; /* 0: nothing is known ahead */
    /* further fields are the library's: src/sdk/lane.h */
};

extern int pug__on_1; /* PUG__ON_; the number is that of the layout above */
extern __thread struct pug__lane *pug__lane_1 __attribute__((tls_model("initial-exec")));

union pug__value {
    int64_t i;
    double d;
    struct {
        const char *ptr;
        size_t len;
    } s;
};

struct pug__lane *pug__lane_claim(void);
struct pug__slot *pug__open_slow(struct pug__lane *lane, struct pug__site *site);
/* All of a begin; `values` of the site's keys, NULL for none. */
struct pug__slot *pug__begin_slow(struct pug__lane *lane, struct pug__site *site,
                                  const union pug__value *values);
struct pug__slot *pug__begin_alone(struct pug__lane *lane, struct pug__site *site,
                                   const union pug__value *values, uint64_t one_in);
int pug__one_in(struct pug__lane *lane, uint64_t n);
struct pug__slot *pug__begin_skip(struct pug__lane *lane);
void pug__end_slow(struct pug__slot *slot, uint64_t now);
uint64_t pug__clock_slow(void);
void pug__copy(char *to, const char *from, size_t n);

/* What is not on the fast path: events, handles, contexts. */
void pug__span_none(struct pug_span *span);
void pug__span_pass(struct pug_span *span, const struct pug_context *from);
void pug__event(struct pug_span *span, struct pug__site *site, const union pug__value *values);
void pug__link(struct pug_span *span, const struct pug_context *to, struct pug__site *site,
               const union pug__value *values);
void pug__span_start(struct pug_span *span, const struct pug_context *from, struct pug__site *site,
                     const union pug__value *values);
struct pug__slot *pug__attach(const struct pug_context *context);
void pug__detach(struct pug__slot *slot);

enum { PUG__ON_SPANS = 1, PUG__ON_ARGS = 2 };
#define PUG__ON __atomic_load_n(&pug__on_1, __ATOMIC_RELAXED)
#define PUG__UNLIKELY(x) __builtin_expect(!!(x), 0)
#define PUG__LIKELY(x) __builtin_expect(!!(x), 1)
#define PUG__INLINE static inline __attribute__((always_inline, unused))

PUG__INLINE uint64_t pug__ticks(uint32_t clock)
{
#if defined(__x86_64__)
    if (!PUG__UNLIKELY(clock))
        return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
    if (!PUG__UNLIKELY(clock)) {
        uint64_t ticks;
        __asm__ __volatile__("mrs %0, cntvct_el0" : "=r"(ticks));
        return ticks;
    }
#endif
    return pug__clock_slow();
}

PUG__INLINE struct pug__lane *pug__lane_get(void)
{
    struct pug__lane *lane = pug__lane_1;
    return PUG__UNLIKELY(!lane) ? pug__lane_claim() : lane;
}

/* The seq goes first: who reads a slot while its owner may be writing it (another process, or the
 * drain at the end) looks at the seq before and after. */
PUG__INLINE void pug__slot_put(struct pug__slot *slot, uint64_t seq, uint64_t trace, uint32_t site,
                               uint32_t state)
{
    __atomic_store_n(&slot->seq, seq, __ATOMIC_RELAXED);
    __atomic_store_n(&slot->trace, trace ? trace : seq, __ATOMIC_RELEASE);
    __atomic_store_n(&slot->site, site, __ATOMIC_RELEASE);
    __atomic_store_n(&slot->state, state, __ATOMIC_RELEASE);
}

/* The next slot, filled but for its start and not yet `top`; the lane is closed until pug__begin.
 * NULL: not recorded at all, and the lane is as it was. */
PUG__INLINE struct pug__slot *pug__open(struct pug__lane *lane, struct pug__site *site)
{
    struct pug__slot *parent = lane->top, *slot = parent + 1;
    uint32_t id = __atomic_load_n(&site->id, __ATOMIC_RELAXED);
    if (PUG__UNLIKELY(lane->head > lane->limit || parent >= lane->last || !id))
        return pug__open_slow(lane, site);
    uint64_t trace = parent->trace;
    lane->limit = 0;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    uint64_t seq = ++lane->seq;
    pug__slot_put(slot, seq, trace, id, PUG__STATE_OF(parent) & ~(uint32_t)PUG__STATE_OWN);
    return slot;
}

/* Where the attributes of the slot go; the caller has checked that it leaves a record. */
PUG__INLINE char *pug__attrs(struct pug__lane *lane)
{
    return lane->ring + (lane->head & lane->mask) + 16;
}

PUG__INLINE void pug__attrs_done(struct pug__lane *lane, struct pug__slot *slot, char *at)
{
    uint64_t head = lane->head;
    char *record = lane->ring + (head & lane->mask);
    uint64_t bytes = (uint64_t)(at - record);
    uint64_t first = PUG__RECORD_ATTRS | bytes << 5 | (uint64_t)slot->site << 32;
    __builtin_memcpy(record, &first, 8);
    __builtin_memcpy(record + 8, &slot->seq, 8);
    __atomic_store_n(&lane->head, head + bytes, __ATOMIC_RELEASE);
}

PUG__INLINE char *pug__put_int(char *at, int64_t value)
{
    __builtin_memcpy(at, &value, 8);
    return at + 8;
}

PUG__INLINE char *pug__put_double(char *at, double value)
{
    __builtin_memcpy(at, &value, 8);
    return at + 8;
}

/* Length, then the bytes padded to 8. Short ones without a call. */
PUG__INLINE char *pug__put_str(char *at, const char *value, size_t n)
{
    if (PUG__UNLIKELY(n > PUG_STR_MAX))
        n = PUG_STR_MAX;
    uint64_t len = n;
    __builtin_memcpy(at, &len, 8);
    at += 8;
    if (n > 16) {
        pug__copy(at, value, n);
    } else if (n >= 8) {
        __builtin_memcpy(at, value, 8);
        __builtin_memcpy(at + n - 8, value + n - 8, 8);
    } else if (n >= 4) {
        __builtin_memcpy(at, value, 4);
        __builtin_memcpy(at + n - 4, value + n - 4, 4);
    } else if (n) {
        at[0] = value[0];
        at[n / 2] = value[n / 2];
        at[n - 1] = value[n - 1];
    }
    return at + ((n + 7) & ~(size_t)7);
}

PUG__INLINE const char *pug__text(const char *value)
{
    return value;
}

PUG__INLINE size_t pug__len(const char *value)
{
    return value ? __builtin_strlen(value) : 0;
}

PUG__INLINE struct pug__slot *pug__begin(struct pug__lane *lane, struct pug__slot *slot)
{
    __atomic_store_n(&slot->start, pug__ticks(lane->clock), __ATOMIC_RELEASE);
    __atomic_store_n(&lane->top, slot, __ATOMIC_RELEASE);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    lane->limit = lane->room;
    return slot;
}

/* A root that is known not to be kept: nobody will ask for its name or its times. `state`: of what
 * would be its parent. NULL: it is not known. */
PUG__INLINE struct pug__slot *pug__drop(struct pug__lane *lane, uint32_t state)
{
    if (PUG__UNLIKELY(state != lane->drop_state || !lane->limit))
        return 0;
    struct pug__slot *slot = lane->top + 1; /* the first above the base */
    lane->limit = 0;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    uint64_t seq = lane->seq + 1;
    if (PUG__UNLIKELY(seq >= lane->drop_below)) {
        lane->limit = lane->room;
        return 0;
    }
    lane->seq = seq;
    pug__slot_put(slot, seq, seq, 0, PUG__STATE_UNSAMPLED);
    __atomic_store_n(&lane->top, slot, __ATOMIC_RELEASE);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    lane->limit = lane->room;
    return slot;
}

/* A span without attributes. */
PUG__INLINE struct pug__slot *pug__begin_bare(struct pug__lane *lane, struct pug__site *site)
{
    uint32_t state = PUG__STATE_OF(lane->top);
    struct pug__slot *slot;
    if (PUG__UNLIKELY(state & PUG__STATE_UNSAMPLED))
        return 0;
    if (state & PUG__STATE_ASIDE) { /* as likely as not, see 7. */
        slot = pug__drop(lane, state);
        return PUG__LIKELY(slot) ? slot : pug__begin_slow(lane, site, 0);
    }
    slot = pug__open(lane, site);
    return slot ? pug__begin(lane, slot) : 0;
}

/* The end of the top slot. 0: it does not fit into its record. */
PUG__INLINE int pug__end_put(struct pug__lane *lane, struct pug__slot *slot, uint64_t now)
{
    /* Atomic so that they stay two loads: one wide load over two fresh narrow stores would stall.
     */
    uint64_t start = __atomic_load_n(&slot->start, __ATOMIC_RELAXED);
    uint64_t seq = __atomic_load_n(&slot->seq, __ATOMIC_RELAXED);
    uint64_t duration = now - start, trace = seq - slot->trace;
    if (PUG__UNLIKELY((duration | trace) >> 32))
        return 0;
    lane->limit = 0;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    uint64_t head = lane->head;
    struct pug__end_record *r =
        (struct pug__end_record *)(void *)(lane->ring + (head & lane->mask));
    r->kind_site = PUG__RECORD_END | slot->site << 8;
    r->duration = (uint32_t)duration;
    r->start = start;
    r->seq = seq;
    r->parent = (uint32_t)(seq - slot[-1].seq);
    r->trace = (uint32_t)trace;
    __atomic_store_n(&lane->head, head + sizeof *r, __ATOMIC_RELEASE);
    __atomic_store_n(&lane->top, slot - 1, __ATOMIC_RELEASE);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    lane->limit = lane->room;
    return 1;
}

PUG__INLINE void pug__end(struct pug__slot **scope)
{
    struct pug__slot *slot = *scope;
    if (!slot)
        return;
    struct pug__lane *lane = pug__lane_1;
    if (PUG__UNLIKELY(!lane)) {
        pug__end_slow(slot, 0);
        return;
    }
    uint32_t state = slot->state & PUG__STATE_MASK;
    if (PUG__UNLIKELY(lane->top != slot)) {
        pug__end_slow(slot, 0);
        return;
    }
    if (state) {
        if (PUG__LIKELY(state == PUG__STATE_UNSAMPLED && lane->limit))
            __atomic_store_n(&lane->top, slot - 1, __ATOMIC_RELEASE);
        else
            pug__end_slow(slot, 0);
        return;
    }
    uint64_t now = pug__ticks(lane->clock);
    if (PUG__UNLIKELY(!pug__end_put(lane, slot, now)))
        pug__end_slow(slot, now);
}

PUG__INLINE void pug__detach_scope(struct pug__slot **scope)
{
    if (*scope)
        pug__detach(*scope);
}

PUG__INLINE union pug__value pug__value_int(int64_t i)
{
    union pug__value v;
    v.i = i;
    return v;
}

PUG__INLINE union pug__value pug__value_double(double d)
{
    union pug__value v;
    v.d = d;
    return v;
}

PUG__INLINE union pug__value pug__value_str(const char *s, size_t n)
{
    union pug__value v;
    v.s.ptr = s;
    v.s.len = n;
    return v;
}

/* ---- macros ----
 *
 * An attribute is a tuple (tag, key, value, length). The list of them is gone through several
 * times: for the keys of the static site, for the values (evaluated first, because evaluating one
 * may itself record spans, and not at all for a root that is known not to be kept), and for the bytes
 * in the ring. */

#define PUG_INT(key, value) (pug__int, key, value, 0)
#define PUG_BOOL(key, value) (pug__bool, key, value, 0)
#define PUG_DOUBLE(key, value) (pug__double, key, value, 0)
#define PUG_STR(key, value) (pug__str, key, value, 0)
#define PUG_STRN(key, value, len) (pug__strn, key, value, len)
#define PUG_KIND(kind) (pug__kind, kind, 0, 0)

#define PUG__CAT(a, b) PUG__CAT_(a, b)
#define PUG__CAT_(a, b) a##b
#define PUG__FIRST(...) PUG__FIRST_(__VA_ARGS__, 0)
#define PUG__FIRST_(a, ...) a
#define PUG__THIRD(...) PUG__THIRD_(__VA_ARGS__)
#define PUG__THIRD_(a, b, c, ...) c

/* 1 to 13; up to six more are an error that says why. */
#define PUG__COUNT(...)                                                                            \
    PUG__COUNT_(__VA_ARGS__, MORE_THAN_PUG_ATTRS_MAX, MORE_THAN_PUG_ATTRS_MAX,                     \
                MORE_THAN_PUG_ATTRS_MAX, MORE_THAN_PUG_ATTRS_MAX, MORE_THAN_PUG_ATTRS_MAX,         \
                MORE_THAN_PUG_ATTRS_MAX, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0)
#define PUG__COUNT_(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t, ...) t

/* PUG__EACH(M, name, a1, a2): M(1, a1) M(2, a2) */
#define PUG__EACH(M, ...) PUG__CAT(PUG__EACH_, PUG__COUNT(__VA_ARGS__))(M, __VA_ARGS__)
#define PUG__EACH_MORE_THAN_PUG_ATTRS_MAX(M, ...) MORE_THAN_PUG_ATTRS_MAX
#define PUG__EACH_1(M, z)
#define PUG__EACH_2(M, z, a) M(1, a)
#define PUG__EACH_3(M, z, a, b) M(1, a) M(2, b)
#define PUG__EACH_4(M, z, a, b, c) M(1, a) M(2, b) M(3, c)
#define PUG__EACH_5(M, z, a, b, c, d) PUG__EACH_4(M, z, a, b, c) M(4, d)
#define PUG__EACH_6(M, z, a, b, c, d, e) PUG__EACH_5(M, z, a, b, c, d) M(5, e)
#define PUG__EACH_7(M, z, a, b, c, d, e, f) PUG__EACH_6(M, z, a, b, c, d, e) M(6, f)
#define PUG__EACH_8(M, z, a, b, c, d, e, f, g) PUG__EACH_7(M, z, a, b, c, d, e, f) M(7, g)
#define PUG__EACH_9(M, z, a, b, c, d, e, f, g, h) PUG__EACH_8(M, z, a, b, c, d, e, f, g) M(8, h)
#define PUG__EACH_10(M, z, a, b, c, d, e, f, g, h, i)                                              \
    PUG__EACH_9(M, z, a, b, c, d, e, f, g, h) M(9, i)
#define PUG__EACH_11(M, z, a, b, c, d, e, f, g, h, i, j)                                           \
    PUG__EACH_10(M, z, a, b, c, d, e, f, g, h, i) M(10, j)
#define PUG__EACH_12(M, z, a, b, c, d, e, f, g, h, i, j, k)                                        \
    PUG__EACH_11(M, z, a, b, c, d, e, f, g, h, i, j) M(11, k)
#define PUG__EACH_13(M, z, a, b, c, d, e, f, g, h, i, j, k, l)                                     \
    PUG__EACH_12(M, z, a, b, c, d, e, f, g, h, i, j, k) M(12, l)

/* The same without a name in front, and with nothing for an empty list (PUG_FN()). */
#define PUG__EACH_FN(M, ...)                                                                       \
    PUG__CAT(PUG__EACH_FN_, PUG__IS_TUPLE(PUG__FIRST(__VA_ARGS__)))(M, __VA_ARGS__)
#define PUG__EACH_FN_0(M, z)
#define PUG__EACH_FN_1(M, ...) PUG__EACH(M, 0, __VA_ARGS__)
#define PUG__IS_TUPLE(t) PUG__THIRD(PUG__DETECT t, 1, 0, 0)
#define PUG__DETECT(...) 0, 0

#define PUG__KEY(i, t) PUG__KEY_1 t
#define PUG__KEY_1(tag, key, value, len) PUG__KEY_##tag(key)
#define PUG__KEY_pug__int(key) {"" key, PUG__TYPE_INT},
#define PUG__KEY_pug__bool(key) {"" key, PUG__TYPE_BOOL},
#define PUG__KEY_pug__double(key) {"" key, PUG__TYPE_DOUBLE},
#define PUG__KEY_pug__str(key) {"" key, PUG__TYPE_STR},
#define PUG__KEY_pug__strn(key) {"" key, PUG__TYPE_STR},
#define PUG__KEY_pug__kind(key)

#define PUG__KIND(i, t) PUG__KIND_1 t
#define PUG__KIND_1(tag, key, value, len) PUG__KIND_##tag(key)
#define PUG__KIND_pug__int(key)
#define PUG__KIND_pug__bool(key)
#define PUG__KIND_pug__double(key)
#define PUG__KIND_pug__str(key)
#define PUG__KIND_pug__strn(key)
#define PUG__KIND_pug__kind(kind) +(kind)

/* Values into variables; not evaluated when they are not wanted. */
#define PUG__LET(i, t) PUG__LET_0(i, PUG__OPEN_TUPLE t)
#define PUG__OPEN_TUPLE(tag, key, value, len) tag, value, len
#define PUG__LET_0(...) PUG__LET_1(__VA_ARGS__)
#define PUG__LET_1(i, tag, value, len) PUG__LET_##tag(i, value, len)
#define PUG__LET_pug__int(i, value, len) int64_t pug__v##i = pug__wanted ? (int64_t)(value) : 0;
#define PUG__LET_pug__bool(i, value, len) int64_t pug__v##i = pug__wanted && (value) ? 1 : 0;
#define PUG__LET_pug__double(i, value, len) double pug__v##i = pug__wanted ? (double)(value) : 0;
#define PUG__LET_pug__str(i, value, len)                                                           \
    const char *pug__v##i = pug__wanted ? pug__text(value) : 0;                                    \
    size_t pug__n##i = pug__len(pug__v##i);
#define PUG__LET_pug__strn(i, value, len)                                                          \
    const char *pug__v##i = pug__wanted ? pug__text(value) : 0;                                    \
    size_t pug__n##i = pug__v##i ? (size_t)(len) : 0;
#define PUG__LET_pug__kind(i, value, len)

/* Variables into the ring. */
#define PUG__PUT(i, t) PUG__PUT_0(i, PUG__OPEN_TUPLE t)
#define PUG__PUT_0(...) PUG__PUT_1(__VA_ARGS__)
#define PUG__PUT_1(i, tag, value, len) PUG__PUT_##tag(i)
#define PUG__PUT_pug__int(i) pug__at = pug__put_int(pug__at, pug__v##i);
#define PUG__PUT_pug__bool(i) pug__at = pug__put_int(pug__at, pug__v##i);
#define PUG__PUT_pug__double(i) pug__at = pug__put_double(pug__at, pug__v##i);
#define PUG__PUT_pug__str(i) pug__at = pug__put_str(pug__at, pug__v##i, pug__n##i);
#define PUG__PUT_pug__strn(i) pug__at = pug__put_str(pug__at, pug__v##i, pug__n##i);
#define PUG__PUT_pug__kind(i)

/* Variables into an array. */
#define PUG__PACK(i, t) PUG__PACK_0(i, PUG__OPEN_TUPLE t)
#define PUG__PACK_0(...) PUG__PACK_1(__VA_ARGS__)
#define PUG__PACK_1(i, tag, value, len) PUG__PACK_##tag(i)
#define PUG__PACK_pug__int(i) pug__value_int(pug__v##i),
#define PUG__PACK_pug__bool(i) pug__value_int(pug__v##i),
#define PUG__PACK_pug__double(i) pug__value_double(pug__v##i),
#define PUG__PACK_pug__str(i) pug__value_str(pug__v##i, pug__n##i),
#define PUG__PACK_pug__strn(i) pug__value_str(pug__v##i, pug__n##i),
#define PUG__PACK_pug__kind(i)

/* Values into an array. */
#define PUG__VALUE(i, t) PUG__VALUE_1 t
#define PUG__VALUE_1(tag, key, value, len) PUG__VALUE_##tag(value, len)
#define PUG__VALUE_pug__int(value, len) pug__value_int((int64_t)(value)),
#define PUG__VALUE_pug__bool(value, len) pug__value_int((value) ? 1 : 0),
#define PUG__VALUE_pug__double(value, len) pug__value_double((double)(value)),
#define PUG__VALUE_pug__str(value, len) pug__value_str(value, (size_t)-1),
#define PUG__VALUE_pug__strn(value, len) pug__value_str(value, (size_t)(len)),
#define PUG__VALUE_pug__kind(value, len)

#define PUG__SITE(EACH, name_, ...)                                                                \
    static const struct pug__key pug__keys[] = {EACH(PUG__KEY, __VA_ARGS__){0, 0}};                \
    static struct pug__site pug__here = {0,                                                        \
                                         __LINE__,                                                 \
                                         (uint8_t)(0 EACH(PUG__KIND, __VA_ARGS__)),                \
                                         (uint8_t)(sizeof pug__keys / sizeof pug__keys[0] - 1),    \
                                         name_,                                                    \
                                         __FILE__,                                                 \
                                         __func__,                                                 \
                                         pug__keys}

/* The attribute stands behind the name: in front gcc takes `if (c) PUG_SPAN("a")` for a statement.
 * The lane is looked up again after the values, for evaluating them may have forked. */
#define PUG__SCOPE(EACH, wanted_, name_, ...)                                                      \
    struct pug__slot *PUG__CAT(                                                                    \
        pug__scope_, __COUNTER__) __attribute__((cleanup(pug__end), unused)) = __extension__({     \
        struct pug__slot *pug__s = 0;                                                              \
        const int pug__on = PUG__ON;                                                               \
        if (pug__on) {                                                                             \
            PUG__SITE(EACH, name_, __VA_ARGS__);                                                   \
            struct pug__lane *pug__l = pug__lane_get();                                            \
            uint32_t pug__state;                                                                   \
            const int pug__wanted = sizeof pug__keys > sizeof pug__keys[0] && (wanted_);           \
            if (pug__l && sizeof pug__keys == sizeof pug__keys[0]) {                               \
                pug__s = pug__begin_bare(pug__l, &pug__here);                                      \
            } else if (pug__l &&                                                                   \
                       !((pug__state = PUG__STATE_OF(pug__l->top)) & PUG__STATE_UNSAMPLED) &&      \
                       (!(pug__state & PUG__STATE_ASIDE) ||                                        \
                        !(pug__s = pug__drop(pug__l, pug__state)))) {                              \
                EACH(PUG__LET, __VA_ARGS__)                                                        \
                pug__l = pug__lane_1;                                                              \
                if (PUG__UNLIKELY(!pug__l || (PUG__STATE_OF(pug__l->top) & PUG__STATE_ASIDE))) {   \
                    union pug__value pug__values[] = {EACH(PUG__PACK, __VA_ARGS__)                 \
                                                          pug__value_int(0)};                      \
                    pug__s = pug__begin_slow(pug__l, &pug__here, pug__wanted ? pug__values : 0);   \
                } else if ((pug__s = pug__open(pug__l, &pug__here)) != 0) {                        \
                    if (pug__wanted && !(pug__s->state & PUG__STATE_MASK)) {                       \
                        char *pug__at = pug__attrs(pug__l);                                        \
                        EACH(PUG__PUT, __VA_ARGS__)                                                \
                        pug__attrs_done(pug__l, pug__s, pug__at);                                  \
                    }                                                                              \
                    pug__begin(pug__l, pug__s);                                                    \
                }                                                                                  \
            }                                                                                      \
        }                                                                                          \
        pug__s;                                                                                    \
    })

#define PUG_SPAN(...) PUG__SCOPE(PUG__EACH, 1, "" PUG__FIRST(__VA_ARGS__), __VA_ARGS__)
#define PUG_FN(...) PUG__SCOPE(PUG__EACH_FN, pug__on &PUG__ON_ARGS, __func__, __VA_ARGS__)
#define PUG_SPAN_ONE_IN(n_, ...)                                                                   \
    struct pug__slot *PUG__CAT(pug__scope_, __COUNTER__)                                           \
        __attribute__((cleanup(pug__end), unused)) = __extension__({                               \
            struct pug__slot *pug__s = 0;                                                          \
            struct pug__lane *pug__l = PUG__ON ? pug__lane_get() : 0;                              \
            if (pug__l) {                                                                          \
                const uint64_t pug__n = (uint64_t)(n_);                                            \
                if (pug__one_in(pug__l, pug__n)) {                                                 \
                    PUG__SITE(PUG__EACH, "" PUG__FIRST(__VA_ARGS__), __VA_ARGS__);                 \
                    union pug__value pug__values[] = {PUG__EACH(PUG__VALUE, __VA_ARGS__)           \
                                                          pug__value_int(0)};                      \
                    pug__s = pug__begin_alone(pug__lane_1, &pug__here, pug__values, pug__n);       \
                } else {                                                                           \
                    pug__s = pug__begin_skip(pug__l);                                              \
                }                                                                                  \
            }                                                                                      \
            pug__s;                                                                                \
        })

#define PUG_ATTACH(...)                                                                            \
    struct pug__slot *PUG__CAT(pug__scope_, __COUNTER__)                                           \
        __attribute__((cleanup(pug__detach_scope), unused)) = pug__attach(__VA_ARGS__)
#define PUG_SPAN_FROM(context_, ...)                                                               \
    PUG_ATTACH(context_);                                                                          \
    PUG_SPAN(__VA_ARGS__)

#define PUG__CALL(statement_, ...)                                                                 \
    do {                                                                                           \
        PUG__SITE(PUG__EACH, "" PUG__FIRST(__VA_ARGS__), __VA_ARGS__);                             \
        union pug__value pug__values[] = {PUG__EACH(PUG__VALUE, __VA_ARGS__) pug__value_int(0)};   \
        statement_;                                                                                \
    } while (0)

#define pug_event(span_, ...)                                                                      \
    do {                                                                                           \
        if (PUG__ON)                                                                               \
            PUG__CALL(pug__event(span_, &pug__here, pug__values), __VA_ARGS__);                    \
    } while (0)
#define pug_link_with(span_, to_, ...)                                                             \
    do {                                                                                           \
        if (PUG__ON)                                                                               \
            PUG__CALL(pug__link(span_, to_, &pug__here, pug__values), "link", __VA_ARGS__);        \
    } while (0)
#define pug_span_start(span_, ...)                                                                 \
    pug_span_start_from(span_, (const struct pug_context *)0, __VA_ARGS__)
#define pug_span_start_from(span_, context_, ...)                                                  \
    do {                                                                                           \
        if (PUG__ON)                                                                               \
            PUG__CALL(pug__span_start(span_, context_, &pug__here, pug__values), __VA_ARGS__);     \
        else                                                                                       \
            pug__span_pass(span_, context_);                                                       \
    } while (0)

#define PUG__WRAP_DEFINE(T, ret, name, params, args)                                               \
    PUG__WRAP_DEFINE_0(PUG__WRAP_FN T, PUG__WRAP_PREFIX T, ret, name, params, args)
#define PUG__WRAP_FN(fn, prefix) fn
#define PUG__WRAP_PREFIX(fn, prefix) prefix
#define PUG__WRAP_DEFINE_0(...) PUG__WRAP_DEFINE_1(__VA_ARGS__)
#define PUG__WRAP_DEFINE_1(fn, prefix, ret, name, params, args)                                    \
    static ret fn##__##name params                                                                 \
    {                                                                                              \
        PUG_SPAN(prefix #name);                                                                    \
        return fn##__inner.name args;                                                              \
    }
#define PUG__WRAP_SET(T, ret, name, params, args)                                                  \
    PUG__WRAP_SET_0(PUG__WRAP_FN T, PUG__WRAP_PREFIX T, name)
#define PUG__WRAP_SET_0(...) PUG__WRAP_SET_1(__VA_ARGS__)
#define PUG__WRAP_SET_1(fn, prefix, name)                                                          \
    if (table->name && table->name != fn##__##name) {                                              \
        fn##__inner.name = table->name;                                                            \
        table->name = fn##__##name;                                                                \
    }
#define PUG_WRAP_TABLE(fn, type, prefix, METHODS)                                                  \
    static type fn##__inner;                                                                       \
    METHODS(PUG__WRAP_DEFINE, (fn, prefix))                                                        \
    __attribute__((unused)) static void fn(type *table)                                            \
    {                                                                                              \
        METHODS(PUG__WRAP_SET, (fn, prefix))                                                       \
    }

#endif
