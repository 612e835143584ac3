/* Threads of the library's own. All signals are blocked in them: the host's handlers are for its threads. They are
 * SCHED_BATCH: one that wakes up interrupts nobody. */
#ifndef SDK_OWN_THREAD_H
#define SDK_OWN_THREAD_H

#include <pthread.h>

#include "base/err.h"

/* `name`: at most 15 characters. ERR_NOMEM when there can be no more threads. */
MUST_USE int own_thread_start(pthread_t *ret, const char *name, void *(*run)(void *arg), void *arg);

#endif
