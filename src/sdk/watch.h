/* Watched lanes: the begin and the end of every scope of a thread seen by the library.
 *
 * Ordinarily a span begins and ends in the program's own code (pugmark/inline.h) and the library
 * never hears of it. When something must be done at each, the base slot of every lane carries
 * PUG__STATE_WATCH; children inherit the bit, a parent that has it sends its children through
 * pug__begin_slow, and a span that has it ends in pug__end_slow. Nothing is paid when it is off.
 *
 * The hooks run on the recording thread with the lane entered, so the rules of the hot path hold:
 * no lock, no allocation, no system call, no errno; and records may be written.
 *
 *     watch_begin   the slot is filled but for its start, and is not yet the top
 *     watch_end     the slot is the top, before its end record is written (so attributes that are
 *                   written here belong to the span)
 *     watch_moved   the top is another one now: attach, detach, end
 *
 * Allocations. Who counts them (a preload object, or the program's own malloc) gives the function
 * that says where the calling thread's counters are to watch_allocations_in(), before pug_start. It
 * is asked once for a thread; they stay where they are while the thread lives, and only ever grow. Each recorded scope then gets what was added between its begin and its
 * end, children included, as alloc.count, alloc.bytes, dealloc.count, dealloc.bytes and
 * alloc.net_bytes. */
#ifndef SDK_WATCH_H
#define SDK_WATCH_H

#include "sdk/lane.h"
#include "sdk/thread_context.h"

enum watch_reason {
    WATCH_ALLOCATIONS = 1,
    WATCH_THREAD_CONTEXT = 2,
    WATCH_PROBES = 4,
};

/* Must be callable on the hot path. */
typedef const struct watch_counters *watch_allocations_fn(void);
void watch_allocations_in(watch_allocations_fn *here);
/* Is there one? */
bool watch_has_allocations(void);

/* Sets the reasons (or-ed) for the lanes of `m` that are there and those to come. By pug_start and
 * the drain; a thread notices at its next span. */
void watch_set(struct memory *m, unsigned reasons);
unsigned watch_reasons(void);
/* By the drain: has a tracer come to the probes, or gone? */
void watch_look(struct memory *m);

/* `site` of a scope; NULL where a context is attached. */
void watch_begin(struct lane *lane, struct pug__slot *slot, const struct pug__site *site);
void watch_end(struct lane *lane, struct pug__slot *slot);
void watch_moved(struct lane *lane);

/* A lane that is watched for allocations and nothing else, which is short work for a span without attributes.
 * watch_is_counting: watch_begin_counted, with the lane entered, is all that is to be done at a begin.
 * watch_end_counted: all that is to be done at an end, with the lane not entered; false: it must end as others do.
 * A program that allocates much has thrown most of the library out of its caches from one span to the next, so what counts
 * here is how many lines of code and of data are touched. */
extern _Atomic unsigned watch_reasons_now;
static inline bool watch_is_counting(const struct lane *lane)
{
    return atomic_load_explicit(&watch_reasons_now, memory_order_relaxed) == WATCH_ALLOCATIONS &&
           lane->allocated && !otel_thread_ctx_v1;
}

static inline void watch_begin_counted(struct lane *lane, const struct pug__slot *slot)
{
    struct watch_mark *mark = &lane->marks[slot - lane->slots];
    const struct watch_counters *now = lane->allocated;
    /* Word by word: a wide load of what has just been stored in narrow ones would wait for them. */
    __atomic_store_n(&mark->seq, slot->seq, __ATOMIC_RELAXED);
    __atomic_store_n(&mark->then.alloc_count, now->alloc_count, __ATOMIC_RELAXED);
    __atomic_store_n(&mark->then.alloc_bytes, now->alloc_bytes, __ATOMIC_RELAXED);
    __atomic_store_n(&mark->then.dealloc_count, now->dealloc_count, __ATOMIC_RELAXED);
    __atomic_store_n(&mark->then.dealloc_bytes, now->dealloc_bytes, __ATOMIC_RELAXED);
}

bool watch_end_counted(struct lane *lane, const struct pug__slot *slot);

#endif
