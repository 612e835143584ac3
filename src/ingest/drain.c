#include "ingest/drain.h"

#include "base/clock.h"

#include <stdbool.h>

enum {
    WINDOW_S = 1,
    STALE_S = 5, /* without anything done for so long the speed is none */
};

void drain_init(struct drain *d)
{
    *d = (struct drain){.lock = PTHREAD_MUTEX_INITIALIZER};
}

void drain_done(struct drain *d)
{
    pthread_mutex_destroy(&d->lock);
}

void drain_count(struct drain *d, uint64_t bytes, uint64_t now_ns)
{
    pthread_mutex_lock(&d->lock);
    uint64_t elapsed = d->window_ns ? now_ns - d->window_ns : 0;
    if (!d->window_ns || elapsed > STALE_S * NS_PER_S) {
        /* After a pause: how fast it was before says nothing, nor does the pause. */
        d->window_ns = now_ns;
        d->bytes = 0;
        d->bytes_per_s = 0;
    } else if (elapsed >= WINDOW_S * NS_PER_S) {
        d->bytes_per_s = (double)d->bytes * 1e9 / (double)elapsed;
        d->window_ns = now_ns;
        d->bytes = 0;
    }
    d->bytes += bytes;
    pthread_mutex_unlock(&d->lock);
}

unsigned drain_wait_s(struct drain *d, uint64_t waiting_bytes, uint64_t now_ns)
{
    pthread_mutex_lock(&d->lock);
    uint64_t elapsed = d->window_ns ? now_ns - d->window_ns : 0;
    double speed = d->bytes_per_s;
    bool known = elapsed != 0;
    /* What this window has shown already, also when it shows that nothing goes any more. */
    if (elapsed >= WINDOW_S * NS_PER_S || (speed == 0 && elapsed))
        speed = (double)d->bytes * 1e9 / (double)elapsed;
    if (elapsed > STALE_S * NS_PER_S)
        speed = 0;
    pthread_mutex_unlock(&d->lock);
    if (!known)
        return 1;
    double seconds = speed > 0 ? (double)waiting_bytes / speed : DRAIN_WAIT_S_MAX;
    return seconds >= DRAIN_WAIT_S_MAX ? DRAIN_WAIT_S_MAX : (unsigned)seconds + 1;
}
