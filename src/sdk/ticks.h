/* From ticks to nanoseconds since the epoch.
 *
 * A tick is a count of the CPU's time stamp counter, or a nanosecond of CLOCK_MONOTONIC where that
 * counter is not to be trusted. The map is piecewise linear, and a piece once used is never
 * changed:
 *
 * 1. The same tick always gives the same nanosecond.
 * 2. A later tick gives no earlier nanosecond (but across a step of the wall clock backwards).
 *
 * Hence what lies inside something else in ticks lies inside it in nanoseconds, whenever the two
 * are converted. Each piece begins where the last one has got to and steers towards the clock, so
 * that the error stays at the reading error of about 30 ns and never accumulates. */
#ifndef SDK_TICKS_H
#define SDK_TICKS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TICKS_PIECES_MAX 4096

struct ticks_piece {
    uint64_t tick, ns; /* where it begins */
    uint64_t rate;     /* ns per tick, 32 bits after the point */
};

/* The newest piece, for other processes. `sequence` is odd while it changes. */
struct ticks_published {
    _Atomic uint64_t sequence;
    _Atomic uint64_t tick, ns, rate;
    uint32_t source; /* of pug__lane.clock */
};

struct ticks {
    uint32_t source;
    struct ticks_piece *pieces; /* sorted; the oldest fall out */
    size_t n, cap;
    uint64_t anchor_tick, anchor_ns; /* the last reading of both clocks */
    uint64_t epoch_offset;           /* CLOCK_REALTIME - CLOCK_MONOTONIC */
    uint64_t next_ns, interval_ns;   /* when to read them again */
};

/* 0 when the CPU's counter is invariant and the kernel trusts it, else 1. */
uint32_t ticks_source(void);
uint64_t ticks_now(uint32_t source);

/* Reads both clocks. No memory: false. */
bool ticks_init(struct ticks *t, uint32_t source);
void ticks_done(struct ticks *t);
/* To be called before each round of conversions, after the records were taken; begins a new piece
 * when it is time. The first call comes at least a millisecond after ticks_init. */
void ticks_update(struct ticks *t, struct ticks_published *published);
uint64_t ticks_to_ns_slow(const struct ticks *t, uint64_t tick);

static inline uint64_t ticks_piece_at(const struct ticks_piece *p, uint64_t tick)
{
    if (tick >= p->tick)
        return p->ns + (uint64_t)((unsigned __int128)(tick - p->tick) * p->rate >> 32);
    return p->ns - (uint64_t)((unsigned __int128)(p->tick - tick) * p->rate >> 32);
}

/* Nearly all are of the newest piece. */
static inline uint64_t ticks_to_ns(const struct ticks *t, uint64_t tick)
{
    const struct ticks_piece *last = &t->pieces[t->n - 1];
    return tick >= last->tick ? ticks_piece_at(last, tick) : ticks_to_ns_slow(t, tick);
}

#endif
