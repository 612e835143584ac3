/* Readers of segments that nobody uses at the moment, with what they decoded. A view takes a reader for each
 * segment it looks into, and gives it back: what one query read of a segment (its names, operations,
 * indexes) the next need not read again.
 *
 * An idle reader belongs to its segment_file, and goes with it; those that were idle longest go when all of
 * them together hold more than the limits below. One that met damage is not kept: the next one looks
 * again. */
#ifndef STORE_LOCAL_READERS_H
#define STORE_LOCAL_READERS_H

#include <pthread.h>

#include "store/local/segment.h"

#define READERS_BYTES_MAX ((size_t)96 << 20)
#define READERS_MAX 512 /* a descriptor each */

struct reader {
    struct segment *seg;
    size_t bytes;
    struct readers_of *of;
    struct reader *older, *newer; /* of all */
    struct reader *next;          /* of the same segment */
};

/* Thread-safe; in the store. */
struct readers {
    pthread_mutex_t lock;
    struct reader *oldest, *newest;
    size_t n, bytes;
};

/* Of one segment; in its segment_file, under the lock of `all`. */
struct readers_of {
    struct readers *all;
    struct reader *first;
};

void readers_init(struct readers *readers);
void readers_done(struct readers *readers); /* none is left */

/* An idle reader, or a new one. */
MUST_USE int readers_take(struct readers_of *of, int dir, const char *name, struct segment **ret);
/* Takes the reader; NULL is allowed. */
void readers_give(struct readers_of *of, struct segment *seg);
/* Closes those of one segment. */
void readers_drop(struct readers_of *of);

#endif
