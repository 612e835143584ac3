/* Which traces lie in more than one part of the store. Known are the hashes that the segments' indexes have, so
 * that now and then a trace is called shared that is not (match.c looks at the ids where that is cheap); never the
 * other way round. */
#ifndef STORE_LOCAL_SHARED_H
#define STORE_LOCAL_SHARED_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

struct shared_traces {
    uint32_t *hashes; /* ascending, each once; malloc'ed */
    size_t n, cap;
    uint64_t first[1024]; /* a bit for what their low 16 bits are: most traces are not there */
};

static inline bool shared_has(const struct shared_traces *s, uint32_t hash)
{
    if (!(s->first[hash >> 6 & 1023] >> (hash & 63) & 1))
        return false;
    size_t low = 0, high = s->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (s->hashes[middle] < hash)
            low = middle + 1;
        else
            high = middle;
    }
    return low < s->n && s->hashes[low] == hash;
}

/* A list of hashes that grows. */
struct hash_list {
    uint32_t *items; /* malloc'ed */
    size_t n, cap;
};
MUST_USE int hash_list_add(struct hash_list *list, uint32_t hash);
/* Ascending; `room` becomes as large as the list. */
MUST_USE int hash_list_sort(struct hash_list *list, struct hash_list *room);

MUST_USE int shared_add(struct shared_traces *s, uint32_t hash);
/* After the last was added. */
MUST_USE int shared_finish(struct shared_traces *s);
void shared_free(struct shared_traces *s); /* NULL is allowed */

#endif
