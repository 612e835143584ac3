/* The one instance of the library in a process, and who may touch what of it.
 *
 *     SDK_OFF      nothing runs; memory may be left from before (threads may still be inside)
 *     SDK_ON       memory and drain exist
 *     SDK_FORKED   we are the child: the drain thread is not here, and the memory is the parent's
 *     SDK_REVIVING one thread of the child sets up its own
 *
 *     OFF -> ON -> OFF        pug_start, pug_stop, under `lock`
 *     ON -> FORKED            in the child, by the only thread there is
 *     FORKED -> REVIVING -> ON (or OFF)   the thread that records first, by compare-and-swap */
#ifndef SDK_SDK_H
#define SDK_SDK_H

#include "sdk/drain.h"
#include "sdk/lane.h"
#include "sdk/options.h"
#include "sdk/sampler.h"

enum sdk_state { SDK_OFF, SDK_ON, SDK_FORKED, SDK_REVIVING };

struct sdk {
    _Atomic int state;
    _Atomic uint32_t epoch; /* of the handles: one more at each start */
    _Atomic(struct memory *) memory;
    pthread_key_t key; /* a thread's lane */
    struct sampler sampler;

    pthread_mutex_t lock; /* start, stop, flush; never taken on the way of a span */
    struct config config;
    struct drain *drain;
    struct memory *parents; /* after fork, until there is memory of our own */

    /* The forking thread's context becomes the base of its lane in the child. */
    struct pug_context inherited;
    pthread_t inherited_by;
};

extern struct sdk sdk;

/* In the child, at the first span: memory, lane and drain of its own. */
void sdk_revive(void);

#endif
