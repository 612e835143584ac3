/* What is kept beside spans: lines of logs and points of metrics, found by trace, by name and by
 * time; and where the readers of followed files stand, together with what they read.
 *
 * A batch is durable, as a whole, when its callback says so. Everything else is as in store.h: many
 * batches share one sync, what was refused is nowhere, old files go as a whole. A records object has
 * a directory of its own (inside the store's) and one thread. */
#ifndef STORE_RECORDS_H
#define STORE_RECORDS_H

#include "model/log_record.h"
#include "model/metric.h"
#include "store/store.h"

struct records;

/* Where they are inside the store's directory. */
#define RECORDS_DIR "records"

struct records_options {
    const char *dir; /* made when it does not exist; its parent must */
    enum store_durability durability;
    uint64_t memory_bytes_max; /* written to a file beyond this; 0: the default, 16 MiB */
    uint64_t age_ms_max;       /* or after this long; 0: the default, 15 minutes */
    uint64_t queue_bytes_max;  /* waiting for the log; beyond: ERR_BUSY; 0: the default */
    uint64_t series_max;       /* new ones between two files; 0: the default, 100,000 */
    /* Files whose records are all older go; 0: they stay. */
    uint64_t retention_ns;
    /* The oldest files go while files and log take more; 0: no limit. */
    uint64_t disk_bytes_max;
    store_clock_fn *clock; /* NULL: the real one */
    void *clock_arg;
};

/* Errors as store_open's. A damaged file is told and passed over. */
MUST_USE int records_open(const struct records_options *options, struct records **ret,
                          struct error_detail *ret_detail);
/* Writes what is in memory to a file. NULL is allowed. */
void records_close(struct records *records);

/* In force at the next round of keeping, and for what is shown at once. */
void records_retention_set(struct records *records, uint64_t retention_ns, uint64_t disk_bytes_max);

/* ---- writing ---- */

/* Where somebody stands who reads a source that can be read again. An empty value removes it. */
struct records_position {
    struct str name, value;
};
#define RECORDS_POSITIONS_MAX 10000
#define RECORDS_POSITION_BYTES_MAX 4096 /* of name and value together */

struct records_batch {
    const struct log_record *logs;
    size_t n_logs;
    const struct metric_batch *metrics;
    size_t n_metrics;
    const struct records_position *positions;
    size_t n_positions;
};

/* A record that takes more than this, encoded, is refused. */
#define RECORDS_ROW_BYTES_MAX ((size_t)4 << 20)

/* What of a batch is not kept although the rest is. */
struct records_refused {
    uint64_t too_large;       /* records or points */
    uint64_t too_many_series; /* points */
};

/* `err` as in store_durable_fn. On the records' own thread: hand over and return. */
typedef void records_durable_fn(void *arg, int err, const struct records_refused *refused);

/* Thread-safe. The batch is copied before this returns. `done` is called exactly once if and only if this returns 0. ERR_BUSY, ERR_CLOSED,
 * ERR_NOMEM. */
MUST_USE int records_append(struct records *records, const struct records_batch *batch,
                            records_durable_fn *done, void *arg);
/* The same and waits. */
MUST_USE int records_append_wait(struct records *records, const struct records_batch *batch,
                                 struct records_refused *ret_refused);
/* Writes what is in memory to a file now; one round of retention and merging. Waits. */
MUST_USE int records_keep(struct records *records);

/* ---- reading: what is returned lives in `arena`; thread-safe ---- */

/* files_damaged: of those that may have something of what was asked for. As `ret_is_partial` below: something may be
 * missing. */
struct records_cost {
    uint64_t files, files_pruned, files_damaged, blocks_read, rows_read;
};

/* A line of a log and its place in the order of arrival. */
struct records_log {
    struct log_record record;
    uint64_t ordinal;
};

struct records_logs {
    bool has_trace; /* only those of `trace_id`, by time, oldest first */
    struct trace_id trace_id;
    uint64_t time_min_ns, time_max_ns; /* both included; max 0: no bound */
    struct str service;                /* empty: of all */
    uint8_t severity_min;              /* 0: all */
    size_t limit;                      /* 0: RECORDS_LOGS_MAX */
    /* Only what comes behind this one, in the order of the answer; time 0: from the start. Without
     * a trace the newest come first: by time, then by ordinal, both descending. */
    uint64_t after_time_ns, after_ordinal;
};
#define RECORDS_LOGS_MAX 10000

/* `ret_more`: there are more than the limit. */
MUST_USE int records_logs(struct records *records, const struct records_logs *query,
                          struct arena *arena, struct records_log **ret, size_t *ret_n,
                          bool *ret_more, struct records_cost *ret_cost /* may be NULL */);

struct records_metric {
    struct str name, description, unit;
    uint8_t type, temporality;
    bool monotonic;
    uint64_t series; /* an upper bound: a series in two files counts twice */
};
/* The metrics of the parts of the store that have points in the range, by name, then type; each
 * once. */
MUST_USE int records_metrics(struct records *records, uint64_t time_min_ns, uint64_t time_max_ns,
                             struct arena *arena, struct records_metric **ret, size_t *ret_n,
                             bool *ret_is_partial /* may be NULL */);

/* One series: what tells it apart, and its points by time. Of points with the same time the one that
 * came last is there. `metric.points[i].attrs` is empty: `attrs` holds for all. */
struct records_series {
    struct metric metric;
    struct attrs attrs;
    const struct resource *resource;
    const struct scope *scope;
};

struct records_series_query {
    struct str name;                   /* of the metric */
    struct str service;                /* empty: of all */
    uint64_t time_min_ns, time_max_ns; /* both included; max 0: no bound */
    size_t series_max, points_max;     /* of all together; 0: the limits below */
};
#define RECORDS_SERIES_MAX 10000
#define RECORDS_POINTS_MAX 1000000

/* In an order that does not change between calls. `ret_more`: a limit was reached; which series or
 * points are missing then is not defined. */
MUST_USE int records_series(struct records *records, const struct records_series_query *query,
                            struct arena *arena, struct records_series **ret, size_t *ret_n,
                            bool *ret_more, bool *ret_is_partial /* may be NULL */);

/* As it is durable. The value is empty when there is none. */
MUST_USE int records_position(struct records *records, struct str name, struct arena *arena,
                              struct str *ret_value);
MUST_USE int records_positions(struct records *records, struct arena *arena,
                               struct records_position **ret, size_t *ret_n);

struct records_stats {
    uint64_t logs, points; /* stored now */
    uint64_t files, file_bytes, log_bytes, memory_bytes;
    uint64_t series;                    /* that came since the last file */
    uint64_t time_min_ns, time_max_ns;  /* 0 when empty */
    uint64_t expired_age, expired_disk; /* records, since the start */
    uint64_t damaged_files, damaged_log_places;
};
void records_stats(struct records *records, struct records_stats *ret);

/* Reads every byte of a directory that nobody has open and changes none; store_verify's words. */
MUST_USE int records_verify(const char *dir, store_finding_fn *fn, void *arg,
                            struct store_verified *ret_verified, struct error_detail *ret_detail);

#endif
