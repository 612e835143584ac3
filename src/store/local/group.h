/* The two threads that make durable what is appended (group.c has the design). */
#ifndef STORE_LOCAL_GROUP_H
#define STORE_LOCAL_GROUP_H

#include "store/local/engine.h"

/* Takes bodies from the queue into the memtable, and freezes it. Ends when the store closes. */
void *stage_thread(void *store);
/* Writes and syncs, publishes and answers; trims the log. Ends after the stage thread. */
void *log_thread(void *store);

#endif
