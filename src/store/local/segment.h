/* Sealed segments: docs/formats/segment.md. */
#ifndef STORE_LOCAL_SEGMENT_H
#define STORE_LOCAL_SEGMENT_H

#include "base/err.h"
#include "store/filter.h"
#include "store/local/parts.h"

/* What the catalogue keeps of a segment. */
struct segment_info {
    uint64_t id; /* in the order of making */
    char name[32];
    uint64_t bytes, spans, traces;
    uint64_t start_min_ns, start_max_ns;
    /* The log records it covers, both included: each record is covered by one segment, or was by one
     * that is gone. */
    uint64_t first_sequence, last_sequence;
    uint64_t made_ns; /* when its newest records were sealed, since the epoch; 0: not known */
};

struct memtable;

/* Writes the visible rows of a memtable (at least one) as the file info->name, through a temporary
 * file, synced when `sync`. The sequences and the name are the caller's; the sizes and times of start
 * are filled in. */
MUST_USE int segment_write(const struct memtable *mt, int dir, bool sync,
                           struct segment_info *info);
/* What the file itself says: all but the id and the time. ERR_CORRUPT, ERR_UNSUPPORTED; the sequences
 * are 0 where an older version did not write them. */
MUST_USE int segment_info_read(int dir, const char *name, struct segment_info *ret_info);

/* A reader. It belongs to one view, so it needs no locks; what it has decoded lives as long as it.
 * Everything is checked when it is read: damage is ERR_CORRUPT, and named in the log and in the
 * detail. */
struct segment;

MUST_USE int segment_open(int dir, const char *name, struct segment **ret);
/* The descriptor is the reader's from now on, also when this fails. */
MUST_USE int segment_open_fd(int fd, const char *name, struct segment **ret);
void segment_close(struct segment *seg); /* NULL is allowed */
/* What the reader holds now. */
size_t segment_memory(const struct segment *seg);
/* What was damaged, and where; the message is empty when nothing was found. */
const struct error_detail *segment_damage(const struct segment *seg);

/* Nothing is added when the trace is not there. */
MUST_USE int segment_trace(struct segment *seg, const struct trace_id *id, struct span_list *spans);
/* The same of those spans that start in the time given, both included. `*ret_has` is set when the trace is
 * here at all, and left alone else. */
MUST_USE int segment_trace_between(struct segment *seg, const struct trace_id *id,
                                   uint64_t start_min_ns, uint64_t start_max_ns,
                                   struct span_list *spans, bool *ret_has);
MUST_USE int segment_outline(struct segment *seg, const struct trace_id *id,
                             struct outline_list *outline);
/* Of the part of the trace that is here; ERR_NOT_FOUND. */
MUST_USE int segment_summary(struct segment *seg, const struct trace_id *id, struct arena *arena,
                             struct trace_summary *ret);
MUST_USE int segment_has(struct segment *seg, const struct trace_id *id, bool *ret_has);
/* A group that is damaged is passed over, and told; what `fn` returns is returned. */
MUST_USE int segment_scan(struct segment *seg, const struct filter *filter, unsigned leaves,
                          struct scan *scan, scan_fn *fn, void *arg, struct scan_cost *cost,
                          bool *ret_damaged);
MUST_USE int segment_operations(struct segment *seg, struct operation_set *set);
/* All its spans, trace by trace in the order of the file; the batch lives until `fn` returns, and is a
 * part of a large trace. A non-zero return of `fn` ends it. */
typedef int segment_spans_fn(void *arg, const struct span_batch *batch);
MUST_USE int segment_spans(struct segment *seg, segment_spans_fn *fn, void *arg);
/* What takes the room: each part of the file once, with its bytes; attribute columns by key and type. The
 * name lives as long as the reader. */
struct segment_part {
    struct str name;
    int type; /* enum value_type of an attribute column; -1: a fixed column; -2: an index */
    uint64_t values, bytes;
};
typedef int segment_part_fn(void *arg, const struct segment_part *part);
MUST_USE int segment_parts(struct segment *seg, segment_part_fn *fn, void *arg);
/* Reads and decodes all of it. */
MUST_USE int segment_verify(struct segment *seg);

#endif
