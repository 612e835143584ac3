/* Inside scans of segments: what segment_eval.c (predicates on columns), segment_scan.c (rows) and
 * segment_match.c (traces) share.
 *
 * A predicate becomes a byte for each row of a group: 1 or 0. Only the columns that it names are decoded.
 * Leaves on name, service, kind and resource are answered once for each operation of the segment, leaves on a
 * column with a dictionary once for each of its texts. Numbers are compared with the bounds of the group first,
 * plain texts with its filter. Leaves are asked in the order of what they cost, each only of the rows that those
 * before have left: columns of few values as bytes, and few values of a column where they lie. */
#ifndef STORE_LOCAL_SEGMENT_SCAN_H
#define STORE_LOCAL_SEGMENT_SCAN_H

#include "store/local/segment_read.h"

/* The columns that a key may have are at most one for each type. */
enum { COLUMNS_MAX = 8 };

/* Of a group: which of a column's values fulfil a leaf. */
struct leaf_answers {
    uint8_t *of_value; /* NULL: none does */
    uint64_t n;
};

struct leaf {
    /* By operation; NULL: not asked yet. `operations_any`: one of them is YES. */
    uint8_t *operations;
    bool operations_any;
    /* Columns with the key. */
    uint32_t *columns, n_columns;
    uint8_t *column_index;  /* by column: index in `columns` + 1 */
    uint8_t **dictionaries; /* by index: answers by place, or NULL */
    bool *dictionary_any;
    uint8_t *messages; /* by code of a status message + 1 */
    bool ready;
    /* Of the group with this number, from 1. */
    uint64_t group;
    bool any;
    struct leaf_answers answers[COLUMNS_MAX]; /* by index */
};

/* An attribute that the rows bring along. */
struct wanted {
    uint8_t *column_index; /* by column: index in `columns` + 1 */
    uint32_t columns[COLUMNS_MAX], n_columns;
    struct value *of_operation; /* what the resources say; NULL: not asked yet */
    /* Of the group. */
    uint64_t *numbers[COLUMNS_MAX];
    struct str *texts[COLUMNS_MAX];
    uint8_t *index; /* by row: index in `columns` + 1; 0: the span has none */
    uint32_t *place;
};

struct scanner {
    struct segment *seg;
    struct leaf *leaves;
    struct wanted *wanted;
    struct value values[SCAN_ATTRS_MAX]; /* of the row */
    struct arena arena;                  /* what lives as long as the scan */
    struct arena scratch; /* of the group; not the segment's, which callbacks may use */
    int answer;           /* what the callback returned last */
    /* Of the group. */
    uint64_t group;          /* its number in this scan, from 1 */
    struct group_kept *kept; /* pinned */
    uint64_t *operation, *status, *duration, *parent, *message;
    uint64_t *start; /* of the epoch */
    /* Its traces; rows by trace: `trace_of`. */
    uint32_t *trace_of;
    uint32_t n_traces, *trace_rows; /* first row in the group, and one more */
    struct trace_id *trace_ids;
    uint64_t *trace_starts;
    bool first_is_cut, last_is_cut; /* the first trace began, the last goes on, in another group */
};

MUST_USE int scanner_init(struct scanner *sc, struct segment *seg, unsigned leaves);
void scanner_done(struct scanner *sc);
/* Makes it the group that is scanned, until the next one or scanner_leave. */
MUST_USE int scanner_enter(struct scanner *sc, const struct segment_group *g);
void scanner_leave(struct scanner *sc);

/* Fixed columns, into the scanner, when first needed. */
MUST_USE int scanner_fixed(struct scanner *sc, enum fixed_column column, uint64_t **at);
MUST_USE int scanner_operation(struct scanner *sc);
/* Its traces, without the starts of the rows. */
MUST_USE int scanner_traces(struct scanner *sc);
MUST_USE int scanner_starts(struct scanner *sc);

/* Leaves those of the rows that have a byte of 1 which fulfil the filter: the others are not looked at. */
MUST_USE int scanner_narrow(struct scanner *sc, const struct filter *f, uint8_t *rows);
/* What a filter is likely to cost; below SCANNER_COSTS. */
enum { COST_STATUS, COST_OPERATION, COST_OTHERS, COST_DURATION, COST_START, SCANNER_COSTS };
unsigned scanner_cost(const struct filter *f);
/* A byte for each row of the group. */
MUST_USE int scanner_eval(struct scanner *sc, const struct filter *f, uint8_t *out);
/* Whether no span of the segment can match, as far as operations and the list of columns tell. */
MUST_USE int scanner_segment_excludes(struct scanner *sc, const struct filter *f, bool *ret);
/* Whether no row of the group can, as far as one can tell without finding out which rows do. */
MUST_USE int scanner_group_excludes(struct scanner *sc, const struct filter *f, bool *ret);

static inline bool rows_any(const uint8_t *rows, uint32_t n)
{
    return memchr(rows, 1, n) != NULL;
}

static inline bool group_misses(const struct segment_group *g, uint64_t start_min,
                                uint64_t start_max)
{
    return g->start_max < start_min || (start_max && g->start_min > start_max);
}

#endif
