/* What records.c (writing) and records_read.c (reading) share. */
#ifndef STORE_LOCAL_RECORDS_ENGINE_H
#define STORE_LOCAL_RECORDS_ENGINE_H

#include <pthread.h>

#include "store/local/log.h"
#include "store/local/records_file.h"

/* A batch on its way to the log. */
struct records_pending {
    struct records_pending *next;
    struct buf body;
    size_t n;
    struct records_refused refused;
    records_durable_fn *done;
    void *arg;
    int err;
};

/* The series since the last file, by the first half of their keys; 0 is an empty slot. */
struct series_set {
    uint64_t *slots;
    size_t n, n_slots;
};

struct records {
    char *path;
    int dir, lock_fd;
    uint64_t memory_bytes_max, age_ns_max, queue_bytes_max;
    _Atomic uint64_t retention_ns, disk_bytes_max; /* may be set at any time */
    size_t series_max;
    bool sync;
    store_clock_fn *clock;
    void *clock_arg;
    pthread_t thread;

    /* the thread's */
    struct log log;
    uint64_t sealed;       /* sequence that files cover */
    uint64_t next_ordinal; /* of the next row */
    uint64_t kept_ns;      /* monotonic: when the last round of keeping was */
    _Atomic int seal_err;  /* read by who asked for a file */
    uint64_t seal_tried_ns;

    /* The lock's; the thread alone changes rows, positions and files, and reads them without it. */
    pthread_mutex_t lock;
    pthread_cond_t wake, changed;
    bool closing;
    struct records_pending *queue, **queue_end;
    uint64_t queue_bytes;
    uint64_t keep_wanted, keep_done; /* rounds that were asked for, and done */
    struct rows rows;                /* not yet in a file */
    uint64_t first_row_ns;           /* monotonic; 0: there is none */
    struct rows_position *positions;
    size_t n_positions;
    bool positions_changed;      /* since the last file */
    struct records_file **files; /* by sequence, oldest first */
    size_t n_files, files_room;
    struct series_set series;
    uint64_t log_bytes, expired_age, expired_disk, damaged_log_places;
};

/* Nothing older is shown. */
uint64_t records_cutoff_ns(const struct records *records);

/* In the log; no enum body_format, which are bodies of spans. */
#define RECORDS_BODY ((enum body_format)16)

/* A file by its name. */
struct records_found {
    uint64_t first, last;
    char name[RECORDS_NAME_SIZE];
};

struct records_survey {
    struct records_found *items;
    size_t n, room;
};

/* The files of records in order; what was not finished goes with `tidy`. `ret->items` is the caller's
 * to free, also after an error. */
MUST_USE int records_survey(int dir, bool tidy, struct records_survey *ret);

#endif
