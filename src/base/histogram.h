/* How values are distributed: a base-2 exponential histogram of fixed scale 5.
 *
 * Bucket i holds the values in (2^(i/32), 2^((i+1)/32)], so that a bucket is 2.2 % wide and what is
 * read from it is at most 1.09 % off, whatever the range. Zero has a count of its own. Values are
 * whole numbers (nanoseconds, microseconds); the index is computed without logarithms. Histograms
 * are merged by adding, which is exact, and brought to a coarser scale by halving the index, which
 * is exact too.
 *
 * A page of 32 counts is allocated for each octave that is used: a histogram of durations between
 * a microsecond and a second has 20 of them, 5 KiB. Not thread-safe.
 *
 * Source: OpenTelemetry's metrics data model, "ExponentialHistogram". */
#ifndef BASE_HISTOGRAM_H
#define BASE_HISTOGRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum {
    HISTOGRAM_SCALE = 5,
    HISTOGRAM_OCTAVE = 1 << HISTOGRAM_SCALE, /* buckets from one power of two to the next */
    HISTOGRAM_PAGES = 65,                    /* indices -1 to 2047, moved up by one */
};

/* All zeros is an empty one. */
struct histogram {
    uint64_t count, zero_count;
    uint64_t sum;      /* stops at UINT64_MAX */
    uint64_t min, max; /* when count is not 0 */
    uint64_t *pages[HISTOGRAM_PAGES];
};

void histogram_done(struct histogram *h);
/* Bucket of a value that is not 0: -1 (for 1) to 2047. */
int histogram_index(uint64_t value);
/* `n` times the same value. ERR_NOMEM: the histogram is as it was. */
MUST_USE int histogram_add(struct histogram *h, uint64_t value, uint64_t n);
/* Adds `from`. ERR_NOMEM: `into` is as it was. */
MUST_USE int histogram_merge(struct histogram *into, const struct histogram *from);
/* The value at or below which the part `q` (0 to 1) of all lies: within 1.09 % of the exact one. 0
 * when there is nothing. */
double histogram_quantile(const struct histogram *h, double q);

/* The buckets in a row, at the finest scale (5 or less) at which there are at most `max` of them.
 * `max` is at least 2. */
struct histogram_row {
    int scale;
    int32_t offset; /* index of counts[0] */
    size_t n;
};
struct histogram_row histogram_buckets(const struct histogram *h, uint64_t *ret_counts, size_t max);

#endif
