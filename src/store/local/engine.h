/* The local engine: what store.c (writing) and view.c (reading) share. */
#ifndef STORE_LOCAL_ENGINE_H
#define STORE_LOCAL_ENGINE_H

#include <pthread.h>

#include "store/local/catalogue.h"
#include "store/local/log.h"
#include "store/local/memtable.h"
#include "store/local/segment.h"

/* The segments of one moment, newest first. Shared by the store and the views; never changed. */
struct segment_list {
    _Atomic unsigned refs;
    uint32_t n;
    struct segment_info items[];
};

struct segment_list *segment_list_new(uint32_t n); /* one reference; NULL: no memory */
struct segment_list *segment_list_ref(struct segment_list *list);
void segment_list_unref(struct segment_list *list); /* NULL is allowed */

struct pending {
    struct pending *next;
    enum body_format format;
    struct str body;
    const struct span_batch *batch;
    store_durable_fn *done;
    void *arg;
    int err;
    bool staged;
};

struct store {
    /* Set at open. */
    char *path;
    int dir, lock_fd;
    uint64_t memtable_bytes_max, memtable_age_ns_max, queue_bytes_max;
    pthread_t log_thread, seal_thread;

    /* The log thread's. */
    struct log log;
    uint64_t trimmed;

    /* The seal thread's. */
    struct catalogue *catalogue;

    /* Under `lock`. The condition `wake` is for the log thread, `seal_wake` for the seal thread,
     * `changed` for who waits for them. The pointer `active` is changed by the log thread only,
     * which may therefore read it without the lock. */
    pthread_mutex_t lock;
    pthread_cond_t wake, seal_wake, changed;
    struct pending *queue, **queue_end;
    uint64_t queue_bytes;
    bool closing, log_thread_ended, seal_requested;
    struct memtable *active, *frozen;
    struct segment_list *segments;
    uint64_t published, sealed; /* sequences */
    int seal_err;               /* of the last attempt */
    uint64_t seal_failures;
    uint64_t log_bytes, memtable_bytes, appended_batches, appended_spans;

    /* Held while the watcher is called. Taken without `lock`. */
    pthread_mutex_t watch_lock;
    store_watch_fn *watch;
    void *watch_arg;
};

#endif
