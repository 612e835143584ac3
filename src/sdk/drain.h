/* The thread that reads the lanes.
 *
 * It sleeps, looks how full the rings are, and mostly sleeps again: a look costs little, a round much,
 * for it begins with cold caches. A round comes when a ring is a good part full, when a thread is new or
 * gone, or when it is time (ROUND_LOOKS). Nothing on the way of a span ever wakes the drain, so how soon
 * it looks again is how large a burst may be that comes out of nothing.
 *
 * Each round: note how far every ring has got, look at the clock, read the records up to there,
 * hand full or old batches to the exporter, recycle the lanes of threads that are gone, prepare
 * spare ones.
 *
 * Its threads are SCHED_BATCH: when one wakes up, whoever runs on that processor is not interrupted for
 * it. It has its share of a processor that is busy all the time, as any thread; a lower priority than that
 * would let it fall behind just when there is most to do.
 *
 * What was lost since the last report is reported in the data, at most once a second for each
 * cause, as a span `pugmark.lost` with the attributes `pugmark.lost.spans` and
 * `pugmark.lost.cause`. */
#ifndef SDK_DRAIN_H
#define SDK_DRAIN_H

#include "sdk/assemble.h"

struct drain;

/* Everything but the thread. `memory` and `config` outlive it. */
MUST_USE int drain_new(struct memory *memory, const struct config *config, struct drain **ret);
/* Takes over the exporter and starts the thread (all signals blocked in it). */
MUST_USE int drain_start(struct drain *d, struct exporter *exporter,
                         struct exporter_counts *counts);
/* Writes what is open as unfinished, gives the exporter the rest of the time, ends the thread. Then
 * drain_start may come again. False: not all was sent by the deadline (CLOCK_MONOTONIC). */
bool drain_stop(struct drain *d, uint64_t deadline_ns);
/* After drain_stop: a thread that was stuck in a write when its time was up may still be there. */
bool drain_is_running(struct drain *d);
/* False: time is up. */
bool drain_flush(struct drain *d, uint64_t deadline_ns);
void drain_counts(struct drain *d, struct pug_counts *ret);

#endif
