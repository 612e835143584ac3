/* The shape of one trace, small enough to keep: its spans in tree order, 56 bytes each, without what
 * they carry. Whoever shows a trace of a million spans asks this for the rows in sight, and the store
 * (store_trace_between) for the few spans that are looked at.
 *
 * Rows are in preorder: the descendants of a row are the `size` rows after it; siblings are in start
 * order. What programs send is not always a tree: a span whose parent is not there stands on its own
 * (an orphan), a circle of parents is cut at its earliest span, and of spans with one id the first is
 * the parent that is meant. */
#ifndef QUERY_OUTLINE_H
#define QUERY_OUTLINE_H

#include "query/traceql.h"

#define OUTLINE_NONE UINT32_MAX
#define OUTLINE_SERVICES_MAX 65535 /* in one trace; the others are all the last one */

enum outline_bits {
    OUTLINE_ERROR = 1,
    OUTLINE_ERROR_BELOW = 2, /* some descendant has an error */
    OUTLINE_ORPHAN = 4,      /* names a parent that is not here */
    OUTLINE_CIRCULAR = 8,    /* names a parent that is its descendant */
    OUTLINE_TAIL = 16,       /* some descendant ends after it */
    OUTLINE_CRITICAL = 32,   /* the trace would be shorter if this span were (outline_critical) */
};

struct outline_row {
    uint64_t start_ns, duration_ns; /* start: after the trace's */
    struct span_id id;
    uint32_t parent; /* row; OUTLINE_NONE */
    uint32_t size;   /* descendants */
    uint32_t children, depth;
    uint32_t name;
    uint16_t service;
    uint8_t kind, bits;
};

struct outline_service {
    struct str name;
    uint32_t span_count, error_count;
};

struct outline {
    struct trace_id id;
    uint64_t start_ns, duration_ns; /* of the whole trace */
    struct outline_row *rows;
    uint32_t n;
    uint32_t *slots; /* by hash of the span id: row + 1, 0: empty */
    uint32_t slots_mask;
    struct str *names;
    struct outline_service *services; /* in the order of their first rows */
    uint32_t n_names, n_services;
    uint32_t n_roots, depth, n_errors, n_orphans, n_missing_parents;
    uint64_t *
        marks; /* starts of the trace's spans since the epoch, each OUTLINE_STEP-th in their order */
    uint32_t n_marks;
    struct arena arena; /* texts */
    size_t bytes;       /* all of it */
};
#define OUTLINE_STEP 8192

/* ERR_NOT_FOUND, ERR_NOMEM, and what the store says. */
MUST_USE int outline_new(struct store_view *view, const struct trace_id *id, struct outline **ret);
void outline_free(struct outline *o); /* NULL is allowed */

uint32_t outline_find(const struct outline *o,
                      const struct span_id *id); /* the row, or OUTLINE_NONE */
/* The earliest span that has no parent; without one, the earliest span. */
const struct outline_row *outline_root(const struct outline *o);
/* What of a span's time no child covers. */
uint64_t outline_self_ns(const struct outline *o, uint32_t row);

/* Spans of one service and name. */
struct outline_operation {
    uint64_t self_ns, duration_ns, longest_ns; /* sums, and the longest of them */
    uint32_t name, spans, errors;
    uint32_t longest; /* row */
    uint16_t service;
};
/* Those with the most time of their own first; malloc'ed. ERR_NOMEM. */
MUST_USE int outline_operations(const struct outline *o, struct outline_operation **ret,
                                uint32_t *ret_n);

/* All its spans in start order, in batches that live until `fn` returns; what is not 0 ends it. */
typedef int outline_walk_fn(void *arg, const struct span_batch *batch);
MUST_USE int outline_walk(const struct outline *o, struct store_view *view, outline_walk_fn *fn,
                          void *arg);
/* One span, in `arena`. ERR_NOT_FOUND when it has gone from the store since. */
MUST_USE int outline_span(const struct outline *o, struct store_view *view, uint32_t row,
                          struct arena *arena, const struct span **ret);

/* ---- what is shown ---- */

struct outline_fold {
    uint32_t depth;          /* spans as deep or deeper are folded; OUTLINE_NONE: none */
    const uint32_t *flipped; /* rows for which it is the other way round, ascending */
    size_t n_flipped;
    /* Neighbours under one parent become one line when each with all below it is shorter than this and has
     * no error; 0: none do. */
    uint64_t merge_ns;
};

/* Lines to show, in order. */
struct outline_lines {
    uint32_t
        *rows; /* the row of a line; OUTLINE_MERGED is set in that of several; NULL: line = row */
    uint32_t n;
};
#define OUTLINE_MERGED (UINT32_C(1) << 31)
#define OUTLINE_ROWS_MAX OUTLINE_MERGED

MUST_USE int outline_lines_init(const struct outline *o, const struct outline_fold *fold,
                                struct outline_lines *ret);
void outline_lines_done(struct outline_lines *lines);
bool outline_is_folded(const struct outline_row *r, uint32_t row, const struct outline_fold *fold);
static inline uint32_t outline_line_row(const struct outline_lines *lines, uint32_t line)
{
    return lines->rows ? lines->rows[line] & ~OUTLINE_MERGED : line;
}
static inline bool outline_line_is_merged(const struct outline_lines *lines, uint32_t line)
{
    return lines->rows && lines->rows[line] & OUTLINE_MERGED;
}
/* The first row after those that the line stands for. */
uint32_t outline_line_end(const struct outline *o, const struct outline_lines *lines,
                          uint32_t line);
/* The line that shows the row, or hides it. */
uint32_t outline_line_of(const struct outline_lines *lines, uint32_t row);

/* A picture of all lines: `lanes` by `width` cells of service + 1 (0: nothing there), OUTLINE_CELL_ERROR set
 * where a span failed. What comes later in a cell covers what came before. `shift` moves the starts of each
 * service's spans (NULL: none), `from_ns` and `to_ns` are the edges. */
#define OUTLINE_CELL_ERROR (UINT32_C(1) << 31)
struct outline_shift {
    const int64_t *by_service; /* added to starts; NULL: nothing */
};
MUST_USE int outline_overview(const struct outline *o, const struct outline_lines *lines,
                              const struct outline_shift *shift, uint32_t width, uint32_t lanes,
                              uint32_t *cells);

/* Marks the rows that the trace's duration depends on: from the end of a root backwards, always the child
 * that ended last before. Done once. */
MUST_USE int outline_critical(struct outline *o);

/* ---- clocks ---- */

/* Of one service, against that of the root's service. */
struct outline_clock {
    int64_t ahead_ns; /* what to take from its times; 0: nothing proves it wrong */
    int64_t low_ns,
        high_ns;          /* the truth lies between, if all clocks nearer to the root are right */
    uint16_t relative_to; /* the service whose calls say so */
    uint32_t calls;
    bool is_known;   /* some chain of calls leads here from the root's service */
    bool has_bounds; /* low and high: calls that somebody waited for; else only one of the two is */
    bool is_contradicted; /* calls that cannot all be true */
};
#define OUTLINE_CLOCK_PAIRS_MAX 4096 /* of services that call each other; a power of two */

/* One for each service, malloc'ed. ERR_NOMEM. */
MUST_USE int outline_clocks(const struct outline *o, struct outline_clock **ret);

/* ---- finding ---- */

struct outline_found {
    uint64_t *bits; /* a bit a row */
    uint32_t n;     /* rows found */
};
void outline_found_done(struct outline_found *found);
static inline bool outline_found_has(const struct outline_found *found, uint32_t row)
{
    return found->bits[row / 64] >> row % 64 & 1;
}
/* The next after `row` (OUTLINE_NONE: from the beginning), or the one before it; around the end. OUTLINE_NONE
 * when nothing was found. */
uint32_t outline_found_next(const struct outline *o, const struct outline_found *found,
                            uint32_t row, bool back);
uint32_t outline_found_rank(const struct outline_found *found,
                            uint32_t row); /* how many before it */

/* Rows with these bits. ERR_NOMEM. */
MUST_USE int outline_find_bits(const struct outline *o, uint8_t bits, struct outline_found *ret);
/* Spans whose name, service, id, status message, or attributes and events (keys, values, key=value) contain the
 * text, whatever the case of its ASCII letters. `deadline_ns` (monotonic, 0: none): ERR_TIMEOUT. */
MUST_USE int outline_find_text(const struct outline *o, struct store_view *view, struct str text,
                               uint64_t deadline_ns, struct outline_found *ret);
/* Spans that a query for traces finds. Structure and aggregates need the whole trace in memory: up to
 * `bytes_max` of it, ERR_TOO_LARGE beyond. */
MUST_USE int outline_find_query(const struct outline *o, struct store_view *view,
                                const struct traceql *q, uint64_t deadline_ns, size_t bytes_max,
                                struct outline_found *ret);

#endif
