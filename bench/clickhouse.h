/* ClickHouse as a peer: a server of its own on loopback, below a directory of its own, and spans in a table
 * like the one that OpenTelemetry's exporter makes. Debian 12 has 18.16, which knows neither Map nor
 * DateTime64 nor codecs or filters of columns: keys and values are Nested there, times nanoseconds, and
 * the compression is the server's. */
#ifndef BENCH_CLICKHOUSE_H
#define BENCH_CLICKHOUSE_H

#include "base/buf.h"
#include "model/span.h"

#include <sys/types.h>

struct clickhouse;

struct clickhouse_options {
    const char *dir;         /* made; data, configuration and log go below it */
    const char *compression; /* "lz4" or "zstd" */
    int cpu;                 /* to stay on; -1: anywhere */
};

/* Whether the package is installed. */
bool clickhouse_is_installed(void);

/* Starts it and waits until it answers. ERR_NOT_FOUND when it is not installed, ERR_TIMEOUT, ERR_IO. */
MUST_USE int clickhouse_start(const struct clickhouse_options *options, struct clickhouse **ret);
/* Ends the process and leaves the directory. NULL is allowed. */
void clickhouse_end(struct clickhouse *ch);
pid_t clickhouse_pid(const struct clickhouse *ch);

/* One statement; its answer replaces what is in `ret_answer` (may be NULL), the time of the whole request
 * goes to `ret_ms` (may be NULL). What ClickHouse says against it goes to stderr: ERR_INVALID. */
MUST_USE int clickhouse_ask(struct clickhouse *ch, const char *sql, struct buf *ret_answer,
                            double *ret_ms);
/* The number that is the whole answer. */
MUST_USE int clickhouse_number(struct clickhouse *ch, const char *sql, double *ret);

/* The table `spans`, ordered as the exporter's (service, name, time), and `trace_times`, where a trace is
 * found by its id. */
MUST_USE int clickhouse_spans_create(struct clickhouse *ch);
MUST_USE int clickhouse_spans_insert(struct clickhouse *ch, const struct span_batch *batch);
/* Merges all parts into one. */
MUST_USE int clickhouse_spans_merge(struct clickhouse *ch);
/* Of the table, compressed, as it stands on disk. */
MUST_USE int clickhouse_spans_bytes(struct clickhouse *ch, double *ret_bytes);

#endif
