/* The memtable: spans that are durable in the log but not yet in a segment, readable at once.
 *
 * 1. One stager, which adds rows, and one publisher: the store's stage thread and its log thread, or the
 *    opener during recovery, who is both. The publisher is told of rows through a lock. Any number of readers
 *    without locks. Nothing that a reader can reach moves or is freed while the memtable lives.
 * 2. Rows are staged by memtable_add and become visible together by memtable_publish, which stores
 *    `rows_visible` with release order; a reader's snapshot is an acquire load of it. Rows behind those may
 *    be staged meanwhile. Staged rows can be taken back (memtable_roll_back), because the log may refuse them.
 * 3. Strings are kept once: names (of spans and services), attribute keys, values, whole resources
 *    and scopes each have a table of numbers. What rolled-back rows added to these stays; it does
 *    no harm.
 * 4. A column is an attribute key with the type of its values: the same columns that the segment
 *    will have. An attribute of a row is a cell (column, payload) of 8 bytes:
 *      string, bytes, array, map   number in `values` (arrays and maps encoded by codec.h)
 *      bool                        0 or 1
 *      int                         itself when below 2^31, else 2^31 + number in `wide`
 *      double                      number in `wide`
 *      none                        0
 * 5. The rows of a trace form a list through `older`, newest first. They are linked when they are
 *    published, so a reader meets only rows that never change again, and passes over those beyond
 *    its snapshot. `last_row` is stored with release order; its partner is trace_newest. */
#ifndef STORE_LOCAL_MEMTABLE_H
#define STORE_LOCAL_MEMTABLE_H

#include "base/buf.h"
#include "store/filter.h"
#include "store/local/intern.h"
#include "store/local/parts.h"

struct mem_cell {
    uint32_t column, payload;
};

#define CELL_WIDE UINT32_C(0x80000000)

/* What most spans do not have. */
struct mem_extra {
    struct str trace_state, status_message;
    struct str events, links; /* encoded by codec.h; empty: none */
    uint32_t dropped_attrs, dropped_events, dropped_links;
};

struct mem_row {
    struct span_id span_id, parent_id;
    uint64_t start_ns, end_ns;
    const struct mem_cell *cells;
    const struct mem_extra *extra; /* NULL: all of it empty */
    uint32_t n_cells;
    uint32_t trace;
    uint32_t older; /* of the same trace: row + 1, or 0 */
    uint32_t name, resource, scope;
    uint32_t flags;
    uint8_t kind, status_code;
};

struct mem_column {
    uint32_t key;
    uint8_t type; /* enum value_type */
};

struct memtable {
    _Atomic unsigned refs;
    _Atomic uint32_t rows_visible;

    /* The publisher's. */
    uint64_t last_sequence; /* of the log record that was published last */

    /* The stager's. */
    struct arena arena;
    uint32_t n_rows, n_wide;
    struct buf scratch;

    struct intern keys, names, values, resources, scopes, traces;
    struct steps rows;              /* struct mem_row */
    struct steps wide;              /* uint64_t */
    struct steps last_row;          /* by trace: _Atomic uint32_t, row + 1 */
    struct steps columns;           /* struct mem_column */
    struct steps columns_of_key;    /* by key: uint32_t[8], column + 1 by type; the stager's */
    struct steps resource_services; /* by resource: uint32_t, in names */
    _Atomic uint32_t n_columns;
    _Atomic uint64_t start_min_ns, start_max_ns; /* of what was published */
};

MUST_USE int memtable_new(struct memtable **ret);
struct memtable *memtable_ref(struct memtable *mt);
void memtable_unref(struct memtable *mt); /* NULL is allowed */

/* Stages the spans of a batch. On failure (ERR_NOMEM, ERR_TOO_LARGE) nothing of it is staged. */
MUST_USE int memtable_add(struct memtable *mt, const struct span_batch *batch);
/* Takes staged rows back until `n_rows` are left; none that were published, and not while some are. */
void memtable_roll_back(struct memtable *mt, uint32_t n_rows);
/* Makes the staged rows before `rows_end` visible. */
void memtable_publish(struct memtable *mt, uint32_t rows_end, uint64_t sequence);
uint64_t memtable_bytes(const struct memtable *mt); /* the stager's thread only */

static inline uint32_t memtable_rows(const struct memtable *mt)
{
    return atomic_load_explicit(&mt->rows_visible, memory_order_acquire);
}
static inline const struct mem_row *memtable_row(const struct memtable *mt, uint32_t row)
{
    return steps_at(&mt->rows, sizeof(struct mem_row), row);
}
static inline const struct mem_column *memtable_column(const struct memtable *mt, uint32_t column)
{
    return steps_at(&mt->columns, sizeof(struct mem_column), column);
}
static inline uint64_t memtable_wide(const struct memtable *mt, uint32_t i)
{
    return *(const uint64_t *)steps_at(&mt->wide, sizeof(uint64_t), i);
}
static inline int64_t memtable_integer(const struct memtable *mt, uint32_t payload)
{
    return payload & CELL_WIDE ? (int64_t)memtable_wide(mt, payload & ~CELL_WIDE)
                               : (int64_t)payload;
}
static inline uint32_t memtable_service(const struct memtable *mt, uint32_t resource)
{
    return *(const uint32_t *)steps_at(&mt->resource_services, sizeof(uint32_t), resource);
}

/* Reading, of the first `rows` rows. */
MUST_USE int memtable_trace(const struct memtable *mt, uint32_t rows, const struct trace_id *id,
                            uint64_t start_min_ns, uint64_t start_max_ns, struct arena *arena,
                            struct span_list *spans, bool *ret_has);
MUST_USE int memtable_outline(const struct memtable *mt, uint32_t rows, const struct trace_id *id,
                              struct outline_list *outline);
MUST_USE int memtable_scan(const struct memtable *mt, uint32_t rows, const struct filter *filter,
                           unsigned leaves, struct scan *scan, scan_fn *fn, void *arg,
                           struct scan_cost *cost);
MUST_USE int memtable_operations(const struct memtable *mt, uint32_t rows,
                                 struct operation_set *set);

#endif
