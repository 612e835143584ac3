/* When to come again: how long what waits now takes to be gone at the speed at which it goes. Bytes
 * of requests are counted as they are done with, by windows of a second; the answer is between 1 and
 * DRAIN_WAIT_S_MAX seconds. Thread-safe. */
#ifndef INGEST_DRAIN_H
#define INGEST_DRAIN_H

#include <pthread.h>
#include <stdint.h>

enum { DRAIN_WAIT_S_MAX = 30 };

struct drain {
    pthread_mutex_t lock;
    uint64_t window_ns; /* when the window began; 0: nothing was done with yet */
    uint64_t bytes;     /* in it */
    double bytes_per_s; /* of the window before */
};

void drain_init(struct drain *d);
void drain_done(struct drain *d); /* frees */
/* So many bytes are done with; `now_ns` is monotonic. */
void drain_count(struct drain *d, uint64_t bytes, uint64_t now_ns);
unsigned drain_wait_s(struct drain *d, uint64_t waiting_bytes, uint64_t now_ns);

#endif
