/* The thread that reads the lanes.
 *
 * Each round: note how far every ring has got, look at the clock, read the records up to there,
 * hand full or old batches to the exporter, recycle the lanes of threads that are gone, prepare
 * spare ones. Then it sleeps until the next round; nothing on the way of a span ever wakes it. When
 * a ring was a good part full, the next round comes sooner; when little was in any, later.
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
