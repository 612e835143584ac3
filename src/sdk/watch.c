#include "sdk/watch.h"

#include "sdk/alloc.h"
#include "sdk/probes.h"
#include "sdk/sdk.h"
#include "sdk/span.h"
#include "sdk/thread_context.h"

_Atomic unsigned watch_reasons_now;
static _Atomic(watch_allocations_fn *) allocations_here;

static const struct pug__key alloc_keys[] = {
    {"alloc.count", PUG__TYPE_INT},     {"alloc.bytes", PUG__TYPE_INT},
    {"dealloc.count", PUG__TYPE_INT},   {"dealloc.bytes", PUG__TYPE_INT},
    {"alloc.net_bytes", PUG__TYPE_INT}, {0, 0},
};
static struct pug__site alloc_site = {
    .n_keys = 5, .name = "alloc", .file = "", .function = "", .keys = alloc_keys};

void watch_allocations_in(watch_allocations_fn *here)
{
    atomic_store(&allocations_here, here);
}

bool watch_has_allocations(void)
{
    return atomic_load(&allocations_here) != NULL;
}

void watch_set(struct memory *m, unsigned reasons)
{
    atomic_store(&watch_reasons_now, reasons);
    memory_base_state(m, PUG__STATE_WATCH, reasons ? PUG__STATE_WATCH : 0);
}

unsigned watch_reasons(void)
{
    return atomic_load_explicit(&watch_reasons_now, memory_order_relaxed);
}

/* ---- allocations ---- */

enum { ALLOC_WORDS = 7 };

/* The one indirect call on the way of a span, at a thread's first one (tests/library knows it by this name). */
static __attribute__((noinline)) void watch_counters_find(struct lane *lane)
{
    watch_allocations_fn *here = atomic_load_explicit(&allocations_here, memory_order_relaxed);
    uint32_t site = lane_site_id(atomic_load_explicit(&sdk.memory, memory_order_acquire)->head,
                                 &alloc_site);
    lane->allocated_head = RECORD_ATTRS | ALLOC_WORDS << 8 | (uint64_t)site << 32;
    lane->allocated = here ? here() : NULL;
}

static void allocations_begin(struct lane *lane, const struct pug__slot *slot)
{
    if (!lane->allocated)
        watch_counters_find(lane);
    if (lane->allocated)
        watch_begin_counted(lane, slot);
    else
        lane->marks[slot - lane->slots].seq = 0;
}

/* It may have begun before the counters were there. */
static bool allocations_are_known(const struct lane *lane, const struct pug__slot *slot)
{
    return lane->marks[slot - lane->slots].seq == slot->seq && lane->allocated;
}

static void word_put(uint64_t *to, uint64_t word)
{
    __atomic_store_n(to, word, __ATOMIC_RELAXED); /* by itself, as in watch_begin_counted */
}

static inline void allocations_record(struct lane *lane, const struct pug__slot *slot)
{
    struct watch_mark *mark = &lane->marks[slot - lane->slots];
    const struct watch_counters *then = &mark->then, *now = lane->allocated;
    struct pug__lane *fast = &lane->fast;
    uint64_t *to = (uint64_t *)(void *)(fast->ring + (fast->head & fast->mask));
    uint64_t allocs = now->alloc_count - then->alloc_count;
    uint64_t frees = now->dealloc_count - then->dealloc_count;
    uint64_t allocated = now->alloc_bytes - then->alloc_bytes - ALLOC_BLOCK_EXTRA * allocs;
    uint64_t freed = now->dealloc_bytes - then->dealloc_bytes - ALLOC_BLOCK_EXTRA * frees;
    word_put(&to[0], lane->allocated_head);
    word_put(&to[1], slot->seq);
    word_put(&to[2], allocs);
    word_put(&to[3], allocated);
    word_put(&to[4], frees);
    word_put(&to[5], freed);
    word_put(&to[6], allocated - freed);
    __atomic_store_n(&fast->head, fast->head + ALLOC_WORDS * sizeof *to, __ATOMIC_RELEASE);
    mark->seq = 0; /* once is enough */
}

static void allocations_end(struct lane *lane, const struct pug__slot *slot)
{
    if (!allocations_are_known(lane, slot) || !lane_slot_is_recorded(slot))
        return;
    if (lane_has_room(lane))
        allocations_record(lane, slot);
    else
        lane_count(&lane->lost_details);
}

bool watch_end_counted(struct lane *lane, const struct pug__slot *slot)
{
    if (!watch_is_counting(lane) || !allocations_are_known(lane, slot) ||
        lane->fast.head > lane->fast.room)
        return false;
    lane->fast.limit = 0;
    atomic_signal_fence(memory_order_seq_cst);
    allocations_record(lane, slot);
    atomic_signal_fence(memory_order_seq_cst);
    lane->fast.limit = lane->fast.room;
    return true;
}

/* ---- probes ---- */

volatile unsigned short pug__probes_semaphore __attribute__((section(".probes"), used));

struct probe_ids {
    uint64_t high, low, span;
};

static void probe_ids(const struct lane *lane, const struct pug__slot *slot, struct probe_ids *ret)
{
    struct pug_context c;
    uint64_t words[3];
    span_slot_context(lane, slot, &c);
    memcpy(words, c.trace_id, 16);
    memcpy(words + 2, c.span_id, 8);
    *ret = (struct probe_ids){__builtin_bswap64(words[0]), __builtin_bswap64(words[1]),
                              __builtin_bswap64(words[2])};
}

static __attribute__((noinline)) void
probe_begin(const struct lane *lane, const struct pug__slot *slot, const struct pug__site *site)
{
    struct probe_ids ids;
    probe_ids(lane, slot, &ids);
    PROBE_SPAN_BEGIN(site->name, ids.high, ids.low, ids.span);
}

static __attribute__((noinline)) void probe_end(const struct lane *lane,
                                                const struct pug__slot *slot)
{
    struct probe_ids ids;
    probe_ids(lane, slot, &ids);
    PROBE_SPAN_END(ids.high, ids.low, ids.span);
}

void watch_look(struct memory *m)
{
    unsigned reasons = watch_reasons();
    unsigned wanted = (reasons & ~(unsigned)WATCH_PROBES) |
                      (pug__probes_semaphore ? WATCH_PROBES : 0);
    if (wanted != reasons)
        watch_set(m, wanted);
}

/* ---- the hooks ---- */

void watch_begin(struct lane *lane, struct pug__slot *slot, const struct pug__site *site)
{
    if (watch_reasons() & WATCH_ALLOCATIONS)
        allocations_begin(lane, slot);
    if (watch_reasons() & WATCH_THREAD_CONTEXT)
        thread_context_set(lane, slot);
    if (watch_reasons() & WATCH_PROBES)
        probe_begin(lane, slot, site);
}

void watch_end(struct lane *lane, struct pug__slot *slot)
{
    if (watch_reasons() & WATCH_ALLOCATIONS)
        allocations_end(lane, slot);
    if (watch_reasons() & WATCH_PROBES && !(slot->state & PUG__STATE_CONTEXT))
        probe_end(lane, slot);
}

void watch_moved(struct lane *lane)
{
    if (watch_reasons() & WATCH_THREAD_CONTEXT || otel_thread_ctx_v1)
        thread_context_set(lane, lane->fast.top);
}
