#include "sdk/watch.h"

#include "sdk/probes.h"
#include "sdk/sdk.h"
#include "sdk/span.h"
#include "sdk/thread_context.h"

static _Atomic unsigned reasons_now;
static _Atomic(watch_allocations_fn *) read_allocations;

static const struct pug__key alloc_keys[] = {
    {"alloc.count", PUG__TYPE_INT},     {"alloc.bytes", PUG__TYPE_INT},
    {"dealloc.count", PUG__TYPE_INT},   {"dealloc.bytes", PUG__TYPE_INT},
    {"alloc.net_bytes", PUG__TYPE_INT}, {0, 0},
};
static struct pug__site alloc_site = {
    .n_keys = 5, .name = "alloc", .file = "", .function = "", .keys = alloc_keys};

void watch_allocations_from(watch_allocations_fn *read)
{
    atomic_store(&read_allocations, read);
}

bool watch_has_allocations(void)
{
    return atomic_load(&read_allocations) != NULL;
}

void watch_set(struct memory *m, unsigned reasons)
{
    atomic_store(&reasons_now, reasons);
    memory_base_state(m, PUG__STATE_WATCH, reasons ? PUG__STATE_WATCH : 0);
}

unsigned watch_reasons(void)
{
    return atomic_load_explicit(&reasons_now, memory_order_relaxed);
}

/* ---- allocations ---- */

/* The one indirect call on the way of a span (tests/library knows it by this name). */
static __attribute__((noinline)) bool watch_counters_read(struct watch_counters *ret)
{
    watch_allocations_fn *read = atomic_load_explicit(&read_allocations, memory_order_relaxed);
    if (!read)
        return false;
    read(ret);
    return true;
}

static void allocations_begin(struct lane *lane, const struct pug__slot *slot)
{
    size_t depth = (size_t)(slot - lane->slots);
    lane->counters_seq[depth] = watch_counters_read(&lane->counters[depth]) ? slot->seq : 0;
}

static void allocations_end(struct lane *lane, const struct pug__slot *slot)
{
    size_t depth = (size_t)(slot - lane->slots);
    struct watch_counters now;
    /* It may have begun before the counters were there. */
    if (lane->counters_seq[depth] != slot->seq || !lane_slot_is_recorded(slot))
        return;
    if (!lane_has_room(lane)) {
        lane_count(&lane->lost_details);
        return;
    }
    if (!watch_counters_read(&now))
        return;
    const struct watch_counters *then = &lane->counters[depth];
    uint64_t allocated = now.alloc_bytes - then->alloc_bytes;
    uint64_t freed = now.dealloc_bytes - then->dealloc_bytes;
    struct record_writer w =
        record_begin(lane, RECORD_ATTRS, lane_site_id(atomic_load(&sdk.memory)->head, &alloc_site));
    record_u64(&w, slot->seq);
    record_u64(&w, now.alloc_count - then->alloc_count);
    record_u64(&w, allocated);
    record_u64(&w, now.dealloc_count - then->dealloc_count);
    record_u64(&w, freed);
    record_u64(&w, allocated - freed);
    record_commit(&w);
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
