/* Numbers beside spans: OpenTelemetry's metric data model, as far as Pugmark makes and keeps it.
 *
 * As with spans, everything here borrows; a batch is good until the call it was handed over with
 * returns.
 *
 * Source: opentelemetry-proto 1.x, metrics/v1/metrics.proto; the data model's "Exponential
 * Histogram". */
#ifndef MODEL_METRIC_H
#define MODEL_METRIC_H

#include "model/span.h"

/* The numbers are on disk (docs/formats/records.md). */
enum metric_type { METRIC_GAUGE, METRIC_SUM, METRIC_EXP_HISTOGRAM, METRIC_HISTOGRAM };
#define METRIC_TYPES 4

/* The numbers are those of OTLP's AggregationTemporality. */
enum metric_temporality { METRIC_DELTA = 1, METRIC_CUMULATIVE = 2 };

/* Bucket i of `counts` holds values in (base^(offset+i), base^(offset+i+1)], base = 2^(2^-scale). */
struct metric_buckets {
    int32_t offset;
    const uint64_t *counts;
    size_t n;
};

struct metric_exp_histogram {
    uint64_t count, zero_count;
    double sum, min, max; /* min and max only when count is not 0 */
    int32_t scale;
    struct metric_buckets positive;
    /* What others send: what Pugmark measures is never negative, and lacks nothing. */
    struct metric_buckets negative; /* of the values' magnitudes */
    double zero_threshold;
    bool lacks_sum, lacks_min, lacks_max;
};

/* Bucket i holds values in (bounds[i-1], bounds[i]]; the last has no upper bound. */
struct metric_histogram {
    uint64_t count;
    double sum, min, max;
    bool lacks_sum, lacks_min, lacks_max;
    const double *bounds; /* rising */
    const uint64_t *counts;
    size_t n_bounds, n_counts; /* n_bounds + 1, or both 0 */
};

struct metric_point {
    struct attrs attrs;
    uint64_t start_ns, time_ns; /* since the epoch; start 0: not known (gauges) */
    bool is_real;               /* of gauges and sums: `real`, else `integer` */
    union {
        int64_t integer;
        double real;
        struct metric_exp_histogram histogram;
        struct metric_histogram explicit_histogram;
    };
};

struct metric {
    struct str name, description;
    struct str unit;     /* UCUM: "By", "ns", "1", "{message}" */
    uint8_t type;        /* enum metric_type */
    uint8_t temporality; /* of sums and histograms */
    bool monotonic;      /* of sums */
    const struct metric_point *points;
    size_t n_points;
};

struct metric_batch {
    const struct metric *metrics;
    size_t n;
    const struct resource *resource; /* never NULL */
    const struct scope *scope;       /* never NULL */
};

#endif
