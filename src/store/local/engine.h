/* The local engine: what store.c (writing) and view.c (reading) share. */
#ifndef STORE_LOCAL_ENGINE_H
#define STORE_LOCAL_ENGINE_H

#include <pthread.h>

#include "base/clock.h"
#include "store/local/catalogue.h"
#include "store/local/log.h"
#include "store/local/memtable.h"
#include "store/local/readers.h"
#include "store/local/segment.h"
#include "store/local/shared.h"

/* A segment in the catalogue, or one that is gone from it and still read. Nothing but the flags and the
 * readers changes. */
struct segment_file {
    _Atomic unsigned refs;
    int dir;                 /* lent by the store */
    _Atomic bool is_gone;    /* the file goes with the last reference */
    _Atomic bool is_damaged; /* a reader met damage in it */
    bool is_alone;           /* the keeper's: too large to be merged */
    /* The keeper's: when the rules of retention were last applied to it, which, and with which pins. */
    uint64_t ruled_ns, ruled_by, ruled_pins;
    struct segment_info info;
    struct readers_of readers; /* idle ones */
};

/* The segments of one moment, by log records, newest first. Shared by the store and the views; never
 * changed but for what is found out of it. */
struct segment_list {
    _Atomic unsigned refs;
    _Atomic(struct shared_traces *)
        shared; /* traces in more than one of them; NULL: nobody asked yet */
    uint32_t n;
    struct segment_file *items[]; /* a reference to each */
};

/* `readers` outlives it. */
struct segment_file *segment_file_new(int dir, struct readers *readers,
                                      const struct segment_info *info);
struct segment_file *segment_file_ref(struct segment_file *file);
void segment_file_unref(struct segment_file *file); /* NULL is allowed */

/* The list with `add` (NULL: nothing) and without those of `remove`; one reference. NULL: no memory. */
struct segment_list *segment_list_change(const struct segment_list *old, struct segment_file *add,
                                         struct segment_file *const *remove, size_t n_remove);
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
    bool staged; /* it has rows, which the log is to have */
};

enum {
    PENDING_BYTES = 256, /* what a body in the queue costs beside itself */
    SEAL_RETRY_MS = 1000,
};

/* Bodies that go together (group.c). */
struct group {
    struct pending *first, **end; /* end: when there is a first */
    size_t bytes;                 /* of the bodies */
    unsigned n;
    /* Behind the last of it, in the memtable and in the log. */
    uint32_t rows_end;
    struct log_mark log_end;
};

struct store {
    /* Set at open. */
    char *path;
    int dir, lock_fd;
    uint64_t memtable_bytes_max, memtable_age_ns_max, queue_bytes_max;
    store_clock_fn *clock, *steady_clock;
    void *clock_arg;
    bool clock_is_trusted;
    uint64_t damaged_at_open; /* places in the log */
    uint64_t lost_segments, lost_spans;
    pthread_t stage_thread, log_thread, seal_thread, keep_thread;
    struct readers readers;

    /* The stage thread's (group.c). */
    struct log log;
    struct pending *unwritten; /* a batch whose write failed; or NULL */

    /* The keeper's: what it believes the time to be (keep.c). */
    uint64_t believed_ns, believed_at_ns; /* and when, on the steady clock */
    uint64_t doubted_since_ns;            /* on the steady clock; 0: the clock is believed */
    bool doubt_was_told;

    /* Held by whoever changes the catalogue or `segments`: the seal thread and the keeper. */
    pthread_mutex_t change_lock;
    struct catalogue *catalogue;
    uint64_t next_id;
    struct trace_id *pins; /* by id */
    size_t n_pins, cap_pins;
    uint64_t pin_changes;
    uint64_t n_erasures, next_erasure; /* that are noted; a number */
    struct segment_info seal_again;    /* what a failed sealing began; id 0: nothing */

    /* Under `lock`. The condition `wake` is for the stage thread, `log_wake` for the log thread, `seal_wake`
     * for the seal thread, `changed` for who waits for them. The pointer `active` is changed by the stage
     * thread only, while the log thread is free: both may read it without the lock. */
    pthread_mutex_t lock;
    pthread_cond_t wake, log_wake, seal_wake, keep_wake, changed;
    struct pending *queue, **queue_end;
    uint64_t queue_bytes;
    bool closing, stage_thread_ended, log_thread_ended, seal_requested;
    struct group staged;     /* written, for the log thread to sync */
    bool log_is_busy;        /* the log thread has a group */
    bool stage_thread_waits; /* it can add nothing to what is staged */
    /* A group whose sync failed, for the stage thread to answer; or NULL. */
    struct pending *refused;
    struct memtable *active, *frozen;
    uint64_t
        active_since_ns; /* monotonic, when the first rows of `active` were published; 0: none were */
    struct segment_list *segments;
    _Atomic uint64_t disk_other_bytes;
    struct retention *retention; /* what the keeper has at hand stays until its round is over */
    bool retention_in_use;
    /* An erasure that somebody waits for, and what came of it. */
    bool is_erasing;
    uint64_t erasure_awaited;
    struct store_erased erased;
    int erase_err;
    uint64_t published, sealed; /* sequences */
    /* Files of the log whose spans are all in segments, up to a sequence, to be removed by the seal thread;
     * it has done so up to `trimmed`. */
    struct log_file *detached;
    uint64_t detached_upto, trimmed;
    int seal_err; /* of the last attempt */
    uint64_t seal_failures;
    uint64_t log_bytes, memtable_bytes, appended_batches, appended_spans;
    uint64_t counters[COUNTERS]; /* as the catalogue has them */
    /* The keeper's rounds: asked for, done; and what the last gave. */
    uint64_t keep_wanted, keep_done;
    bool keep_all;          /* merge whatever can be merged */
    double memory_per_span; /* of the memtable that was full last; 0: none was yet */
    int keep_err;

    /* Held while the watcher is called. Taken without `lock`. */
    pthread_mutex_t watch_lock;
    store_watch_fn *watch;
    void *watch_arg;
};

/* ---- segments.c ---- */

static inline uint64_t store_now(const struct store *st)
{
    return st->clock(st->clock_arg);
}

/* Reads the catalogue, compares it with the directory, removes what was left unfinished, and takes in
 * segments that an older catalogue does not have. */
MUST_USE int segments_open(struct store *st, enum catalogue_mode mode, struct error_detail *detail);
/* Changes catalogue and list together; with change_lock held. `add` is one that segment_write made; of
 * `change` the position, the counters and the rules count. */
MUST_USE int segments_change(struct store *st, const struct segment_info *add,
                             struct segment_file *const *remove, size_t n_remove,
                             struct catalogue_change *change);
/* A number for a new file, and its name; with change_lock held. */
void segment_name_next(struct store *st, struct segment_info *info);

/* With the lock held, which is let go meanwhile. */
static inline void store_wait_ns(struct store *st, pthread_cond_t *cond, uint64_t ns)
{
    uint64_t until = clock_monotonic_ns() + ns;
    struct timespec t = {(time_t)(until / NS_PER_S), (long)(until % NS_PER_S)};
    pthread_cond_timedwait(cond, &st->lock, &t);
}

/* ---- keep.c ---- */

void *keep_thread(void *store);
/* At open, when the segments are known. */
void keep_time_init(struct store *st);

#endif
