/* Series while they are being made: labels to cells. Inside src/query only. */
#ifndef QUERY_METRICS_SERIES_H
#define QUERY_METRICS_SERIES_H

#include "query/metrics.h"

/* Values of one cell, for quantiles: counts by the first bits of the double, ascending. A bucket is
 * 1/64 of its power of two wide. */
struct metrics_values {
    int32_t *keys;
    uint64_t *counts;
    uint32_t n, cap;
};

struct metrics_cell {
    uint64_t n;
    double sum, error; /* Kahan's */
    double min, max;
    struct metrics_values *values; /* NULL: not asked for, or none yet */
};

struct metrics_row {
    struct metrics_label *labels;
    size_t n_labels;
    uint64_t hash;
    struct metrics_cell *cells;
    uint32_t n_values; /* compare: of a total, how many values there are */
};

struct metrics_table {
    struct arena *arena; /* of what lives as long as the table */
    size_t n_steps;
    struct metrics_row *rows;
    size_t n, cap;
    uint32_t *slots; /* row + 1 */
    size_t n_slots;
    struct error_detail *detail; /* of ERR_TOO_LARGE */
};

/* The row with these labels, until the next call; strings are copied when it is new. Without `create`
 * NULL when there is none. */
MUST_USE int metrics_table_row(struct metrics_table *t, const struct metrics_label *labels,
                               size_t n_labels, bool create, struct metrics_row **ret);
void metrics_table_done(struct metrics_table *t);

MUST_USE int metrics_cell_add(struct metrics_table *t, struct metrics_cell *cell, double v,
                              bool with_values);
/* NAN when there is none. */
double metrics_cell_quantile(const struct metrics_cell *cell, double q);

int metrics_labels_order(const struct metrics_label *a, size_t n_a, const struct metrics_label *b,
                         size_t n_b);
/* Operators between metrics, topk() and its like; `set` is changed. */
void metrics_join(enum traceql_op op, struct metrics_result *left,
                  const struct metrics_result *right);
void metrics_join_literal(enum traceql_op op, struct metrics_result *set, double literal,
                          bool literal_left);
MUST_USE int metrics_then(const struct traceql_series_stage *stages, struct metrics_result *set,
                          struct arena *arena);

#endif
