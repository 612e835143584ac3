/* An array that grows without moving: chunks of 64, 64, 128, 256, ... elements. One writer; a
 * reader may look at elements that it was told of (by an index published with release order). */
#ifndef STORE_LOCAL_STEPS_H
#define STORE_LOCAL_STEPS_H

#include <stdint.h>
#include <stdlib.h>

enum { STEPS_FIRST_BITS = 6, STEPS_CHUNKS = 26 };

struct steps {
    char *chunks[STEPS_CHUNKS];
};

/* The largest number of elements, 2^31 - 64. */
#define STEPS_MAX ((UINT32_C(1) << (STEPS_FIRST_BITS + STEPS_CHUNKS - 1)) - 64)

static inline void *steps_at(const struct steps *s, size_t size, uint32_t i)
{
    uint32_t at = i + (1u << STEPS_FIRST_BITS);
    unsigned bits = 31u - (unsigned)__builtin_clz(at);
    return s->chunks[bits - STEPS_FIRST_BITS] + (size_t)(at - (1u << bits)) * size;
}

/* Makes room for element i, zeroed; elements are made room for in order. NULL: no memory. */
static inline void *steps_room(struct steps *s, size_t size, uint32_t i)
{
    uint32_t at = i + (1u << STEPS_FIRST_BITS);
    unsigned bits = 31u - (unsigned)__builtin_clz(at);
    char **chunk = &s->chunks[bits - STEPS_FIRST_BITS];
    if (!*chunk && !(*chunk = calloc((size_t)1 << bits, size)))
        return NULL;
    return *chunk + (size_t)(at - (1u << bits)) * size;
}

static inline void steps_done(struct steps *s)
{
    for (int i = 0; i < STEPS_CHUNKS; i++)
        free(s->chunks[i]);
}

#endif
