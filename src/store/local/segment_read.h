/* Inside the reader of segments: what segment_read.c (blocks, columns), segment_group.c, segment_trace.c,
 * segment_spans.c and segment_scan.c share.
 *
 * A reader keeps what it decoded last, because what is asked next is mostly beside it: some blocks of
 * traces, and some groups of rows as far as they were needed. A kept thing stays until others took all the
 * places; a group that is pinned stays. */
#ifndef STORE_LOCAL_SEGMENT_READ_H
#define STORE_LOCAL_SEGMENT_READ_H

#include "store/local/segment.h"
#include "store/local/segment_format.h"
#include "store/local/stream.h"

struct segment_column {
    uint32_t key; /* code */
    uint8_t type, how;
    uint64_t n;
    uint32_t n_codes; /* of a dictionary */
    struct block_ref dictionary;
    uint64_t *codes; /* NULL: not read yet */
};

struct segment_operation {
    uint32_t resource, scope, name; /* name: code */
    uint8_t kind;
    uint64_t n_spans;
};

struct segment_group {
    struct block_ref directory;
    uint32_t first_row, n, first_trace;
    uint64_t offset;
    uint64_t start_min, start_max, duration_min, duration_max;
};

struct segment_trace_block {
    struct block_ref ref;
    uint32_t first_trace, n;
    uint32_t first_row, n_rows;
};

struct segment_string_block {
    struct block_ref ref;
    struct str first;
    struct str *strings; /* NULL: not read yet */
};

struct segment_hash_block {
    struct block_ref ref;
    uint32_t n, first_hash;
    uint32_t *hashes, *ordinals; /* NULL: not read yet */
};

struct group_column_read {
    uint32_t column;
    uint64_t n;
    struct block_ref values, filter;
    int64_t low, high; /* of an int column */
};

/* The directory of a group. */
struct group_read {
    const struct segment_group *group;
    struct block_ref fixed[FIXED_COLUMNS];
    uint64_t n_shapes, n_shape_cells;
    bool
        by_column; /* each column says which rows have it, ascending in each list; else there are shapes */
    struct group_column_read *columns;
    uint32_t n_columns;
};

struct group_shapes {
    uint64_t *of_row;
    uint64_t *lengths;
    uint32_t *first;   /* of each shape, in `columns`; and one more */
    uint32_t *columns; /* of all shapes, one after the other */
    bool are_own;      /* row i has shape i: `columns` goes by rows */
};

/* The columns of a group that only whole spans need. */
struct group_rest {
    uint64_t *dropped_attrs, *dropped_events, *dropped_links;
    struct str *events, *links;
};

/* The values of an attribute column: one of the two, none for `nothing`. */
struct group_values {
    bool is_open, is_read; /* the block is there; its values are decoded */
    struct codec_reader rest;
    uint64_t *numbers;
    struct str *texts;
    struct stream_view *view; /* the numbers as they are packed; NULL: not needed yet */
    uint32_t *rows; /* of a group by column: row of each value, ascending; NULL: not read yet */
};

/* A group as far as it was decoded; all in its arena. */
struct group_kept {
    struct arena arena;
    uint64_t used;       /* the reader's clock then */
    unsigned pins;       /* it must stay */
    struct group_read g; /* g.group is NULL: nothing */
    struct stream_view
        *views[FIXED_COLUMNS];      /* those that are one number stream; NULL: not read yet */
    uint64_t *fixed[FIXED_COLUMNS]; /* the same as numbers; NULL: not needed yet */
    const uint8_t *ids, *foreign;
    uint64_t n_foreign;
    bool has_shapes, has_rest;
    struct group_shapes shapes;
    struct group_rest rest;
    uint32_t *place_of; /* by column of the segment: place in g.columns + 1; 0: not in the group */
    struct group_values *values; /* by place in g.columns */
    /* How many values of each column come before row k * rank_rows. */
    uint32_t *ranks, rank_rows;
};

/* A block of traces. What is behind `first_row` is read for summaries only. */
struct traces_read {
    const struct segment_trace_block *block;
    const uint8_t *ids;
    uint64_t *n, *start;
    uint32_t *first_row; /* of the segment */
    struct codec_reader rest;
    bool has_summaries;
    uint64_t *length, *root, *operation, *errors, *orphans, *services;
    uint64_t *first_service, *names, *spans, *wrong;
};

struct traces_kept {
    struct arena arena;
    uint64_t used;
    struct traces_read traces; /* block is NULL: nothing */
};

enum { SEGMENT_KEPT_GROUPS = 2, SEGMENT_KEPT_TRACES = 3 };

struct segment {
    char name[32];
    int fd;
    uint64_t bytes; /* of the file */
    uint64_t first_sequence, last_sequence;
    uint64_t bytes_read; /* by this reader */
    struct arena arena;  /* what lives as long as the reader */
    struct arena scratch;
    struct error_detail damage;

    uint64_t n_rows, n_traces, start_min, start_max;
    struct block_ref string_index, columns_ref, resources_ref, scopes_ref, operations_ref,
        hashes_ref;
    bool derived_ids, lists_by_column; /* the features */
    uint32_t n_groups, n_trace_blocks;
    struct segment_group *groups;
    struct segment_trace_block *trace_blocks;

    /* Read when first needed; NULL before. */
    struct segment_string_block *string_blocks;
    uint32_t n_strings, n_string_blocks;
    struct segment_column *columns;
    uint32_t n_columns;
    struct str *resource_bytes, *scope_bytes;
    const struct resource **resources; /* decoded, in `arena`; NULL: not yet */
    uint32_t n_resources, n_scopes;
    struct segment_operation *operations;
    uint32_t n_operations;
    struct segment_hash_block *hash_blocks;
    uint32_t n_hash_blocks;

    uint64_t clock; /* of what is kept: which was used last */
    struct traces_kept kept_traces[SEGMENT_KEPT_TRACES];
    struct group_kept kept_groups[SEGMENT_KEPT_GROUPS];
};

/* Where the trace is: its block (a kept one) and its place in it. */
struct trace_found {
    struct traces_read *traces;
    uint32_t place, first_row;
    bool found;
};

/* Ids, parents and times of the rows of one trace; which operation and status. */
struct trace_rows {
    uint32_t n;
    const uint8_t **ids; /* 8 bytes each */
    struct span_id *parents;
    uint64_t *start, *end, *operation, *status;
};

/* Notes damage at an offset of the file and logs it, once; returns `err`. Only ERR_CORRUPT and
 * ERR_TRUNCATED are damage. */
int segment_fail(struct segment *seg, int err, uint64_t at, const char *what);

/* The bytes of a block, checked, in `arena`, and a reader of them. */
MUST_USE int segment_block(struct segment *seg, struct block_ref ref, struct arena *arena,
                           struct codec_reader *ret);
/* The same of a column of n ids: 8 bytes each, as they were. */
MUST_USE int segment_ids(struct segment *seg, struct block_ref ref, size_t n, struct arena *arena,
                         struct codec_reader *ret);
/* One number stream that is a block of its own. */
MUST_USE int segment_numbers(struct segment *seg, struct block_ref ref, size_t n,
                             struct arena *arena, uint64_t **ret);
/* Little pieces of what is read. */
uint32_t segment_get_u32(struct codec_reader *r);
struct block_ref segment_get_ref(struct codec_reader *r);
/* Room, zeroed and as long as the reader, for `n` things that are listed in the rest of the input, each with at
 * least one byte. */
void *segment_list_room(struct segment *seg, struct codec_reader *r, uint64_t n, size_t size);
/* Codes must have been checked to be below n_strings here or before. */
MUST_USE int segment_string(struct segment *seg, uint64_t code, struct str *ret);
/* The code of a text; INTERN-like: n_strings when it is not there. */
MUST_USE int segment_string_find(struct segment *seg, struct str s, uint32_t *ret_code);
MUST_USE int segment_columns(struct segment *seg); /* reads the list */
MUST_USE int segment_dictionary(struct segment *seg, struct segment_column *c);
MUST_USE int segment_resource(struct segment *seg, uint32_t number, const struct resource **ret);
MUST_USE int segment_operations_read(struct segment *seg);
MUST_USE int segment_group_read(struct segment *seg, const struct segment_group *g,
                                struct arena *arena, struct group_read *ret);
/* The group with its directory, kept; what else of it is needed is read by the next ones. */
MUST_USE int segment_group_keep(struct segment *seg, const struct segment_group *g,
                                struct group_kept **ret);
/* A fixed column that is one number stream, as it is packed, and its numbers. */
MUST_USE int group_view(struct segment *seg, struct group_kept *k, enum fixed_column column,
                        const struct stream_view **ret);
MUST_USE int group_fixed(struct segment *seg, struct group_kept *k, enum fixed_column column,
                         uint64_t **ret);
/* Its numbers for whoever needs n rows of them. */
MUST_USE int group_some(struct segment *seg, struct group_kept *k, enum fixed_column column,
                        uint32_t n, struct stream_view *ret);
MUST_USE int group_ids(struct segment *seg, struct group_kept *k);
MUST_USE int group_shapes(struct segment *seg, struct group_kept *k);
/* The lists of columns of the rows [first, first + n) alone, where that is less; `of_row` and, by column, all
 * others begin with row `first`. In scratch, or as the group is kept. */
MUST_USE int group_shapes_between(struct segment *seg, struct group_kept *k, uint32_t first,
                                  uint32_t n, struct group_shapes *ret);
/* Of a group by column: which rows have it. */
MUST_USE int group_rows(struct segment *seg, struct group_kept *k, uint32_t place, uint32_t **ret);
MUST_USE int group_rest(struct segment *seg, struct group_kept *k);
MUST_USE int group_values(struct segment *seg, struct group_kept *k, uint32_t place);
/* Value i of a column that has numbers, without the others. */
MUST_USE int group_number(struct segment *seg, struct group_kept *k, uint32_t place, uint64_t i,
                          uint64_t *ret);
/* Where the values of row `row` begin in each column of the group: `at` has room for n_columns. */
MUST_USE int group_rank(struct segment *seg, struct group_kept *k, uint32_t row, uint32_t *at);
/* A block of traces, kept. */
MUST_USE int segment_traces(struct segment *seg, const struct segment_trace_block *b,
                            struct traces_read **ret);

/* All traces of a segment, by ordinal. */
struct segment_traces_all {
    struct trace_id *ids;
    uint64_t *starts;
    uint32_t *first_rows; /* one more than there are traces; the last is the number of rows */
};
/* Lives in `arena`. ERR_CORRUPT when the traces do not have as many rows as the segment. */
MUST_USE int segment_traces_all(struct segment *seg, struct arena *arena,
                                struct segment_traces_all *ret);
/* The block that has the trace with this ordinal. */
const struct segment_trace_block *segment_trace_block_of(const struct segment *seg,
                                                         uint64_t ordinal);
/* A value of a column of a group, given what was decoded: numbers or texts. Strings are borrowed.
 */
MUST_USE int segment_value(struct segment *seg, const struct segment_column *c,
                           const uint64_t *numbers, const struct str *texts, uint64_t i,
                           struct arena *arena, struct value *ret);
static inline bool text_copy(struct arena *arena, struct str s, struct str *ret)
{
    *ret = arena_str(arena, s);
    return ret->ptr != NULL;
}

/* All strings of a block. */
MUST_USE int segment_string_index(struct segment *seg);
MUST_USE int segment_string_block(struct segment *seg, uint32_t block);

/* Finding a trace, and its rows: all in scratch. */
MUST_USE int segment_trace_find(struct segment *seg, const struct trace_id *id,
                                struct trace_found *ret);
MUST_USE int segment_trace_rows(struct segment *seg, const struct trace_found *found,
                                struct trace_rows *ret);
/* The rows [first, first + n) of the group, which begin at row `to` of the trace. `places` says of each where
 * its parent is: place in the trace from 1, SEGMENT_FOREIGN_PARENT (then `rows` has it), 0: it has none. */
MUST_USE int segment_group_rows(struct segment *seg, struct group_kept *k, uint32_t first,
                                uint32_t n, uint64_t trace_start, uint32_t to, uint64_t *places,
                                struct trace_rows *rows);
/* The group that has the row. */
uint32_t segment_group_of(const struct segment *seg, uint32_t row);
/* Calls for each group that holds rows of the trace: those rows, and where they begin in the trace.
 */
typedef int rows_fn(void *arg, struct segment *seg, struct group_kept *k, uint32_t first,
                    uint32_t n, uint32_t to);
MUST_USE int segment_trace_groups(struct segment *seg, uint32_t first_row, uint64_t n_rows,
                                  rows_fn *fn, void *arg);

#endif
