/* One owner of many things: allocations that are freed together. Not thread-safe. */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include "base/err.h"
#include "base/str.h"

struct arena_chunk;

struct arena {
    struct arena_chunk *head;
    char *next, *end; /* free room in head */
    size_t bytes;     /* handed to this arena by malloc */
    size_t bytes_max; /* 0: no limit */
    size_t first;     /* bytes of the first chunk, set by who makes it; 0: 4 KiB */
};

#define ARENA_INIT ((struct arena){0})

void arena_done(struct arena *a);
void arena_wipe(struct arena *a);  /* zeroes what is in it, and frees: for secrets */
void arena_reset(struct arena *a); /* keeps the newest chunk for reuse */

/* 8-byte aligned, not zeroed; NULL when memory or the limit is exhausted. n may be 0. */
void *arena_alloc_slow(struct arena *a, size_t n);
static inline void *arena_alloc(struct arena *a, size_t n)
{
    size_t room = (n + 7) & ~(size_t)7;
    if (room >= n && a->next && room <= (size_t)(a->end - a->next)) {
        void *p = a->next;
        a->next += room;
        return p;
    }
    return arena_alloc_slow(a, n);
}
void *arena_zalloc(struct arena *a, size_t n);
/* n*size with the overflow checked. */
void *arena_array(struct arena *a, size_t n, size_t size);
/* A copy in the arena, also NUL-terminated; ptr is NULL on failure. */
struct str arena_str(struct arena *a, struct str s);
char *arena_printf(struct arena *a, const char *format, ...) PRINTF_LIKE(2, 3);

#endif
