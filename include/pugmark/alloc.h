/* Pugmark: what the calling thread has allocated.
 *
 * Counting is a choice made where the program is linked or started, and costs a program that does
 * not make it nothing:
 *
 *     LD_PRELOAD=libpugmark-alloc.so ./program     any program, without a change
 *     cc ... -lpugmark -lpugmark-alloc             before any library that has an allocator
 *
 * With it, and with PUG_ALLOC_TRACKING=true (`alloc_tracking` in pugmark.toml), every span of a
 * scope has the attributes alloc.count, alloc.bytes, dealloc.count, dealloc.bytes and
 * alloc.net_bytes; docs/measurements.md says what they mean. Each thread counts for itself; a signal
 * handler that allocates (it should not) is counted with the thread it interrupted. */
#ifndef PUGMARK_ALLOC_H
#define PUGMARK_ALLOC_H

#include <pugmark/pugmark.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Sums of this thread since it began; they only grow. Bytes are those that the allocator gave
 * (malloc_usable_size), the same when they come as when they go. */
struct pug_alloc_counts {
    uint64_t alloc_count, alloc_bytes;
    uint64_t dealloc_count, dealloc_bytes;
};

#ifndef PUG_DISABLE
/* PUG_ERR_UNSUPPORTED, and all zeros, where allocations are not counted. Thread-safe, signal-safe
 * after its first call. */
int pug_alloc_counts_read(struct pug_alloc_counts *ret);
#else
PUG__INLINE int pug_alloc_counts_read(struct pug_alloc_counts *ret)
{
    __builtin_memset(ret, 0, sizeof *ret);
    return PUG_ERR_UNSUPPORTED;
}
#endif

#ifdef __cplusplus
}
#endif
#endif
