/* Sealed segments: docs/formats/segment.md. */
#ifndef STORE_LOCAL_SEGMENT_H
#define STORE_LOCAL_SEGMENT_H

#include "base/err.h"
#include "store/filter.h"
#include "store/local/parts.h"

/* What the catalogue keeps of a segment. */
struct segment_info {
    uint64_t id; /* in the order of sealing */
    char name[32];
    uint64_t bytes, spans, traces;
    uint64_t start_min_ns, start_max_ns;
};

struct memtable;

/* Writes the visible rows of a memtable (at least one) as the file `name`, through a temporary
 * file, synced when `sync`, and fills all of `ret_info` but the id. */
MUST_USE int segment_write(const struct memtable *mt, int dir, const char *name, bool sync,
                           struct segment_info *ret_info);

/* A reader. It belongs to one view, so it needs no locks; what it has decoded lives as long as it.
 * Everything is checked when it is read: damage is ERR_CORRUPT, and named in the log and in the
 * detail. */
struct segment;

MUST_USE int segment_open(int dir, const char *name, struct segment **ret);
/* The descriptor is the reader's from now on, also when this fails. */
MUST_USE int segment_open_fd(int fd, const char *name, struct segment **ret);
void segment_close(struct segment *seg); /* NULL is allowed */
/* What was damaged, and where; the message is empty when nothing was found. */
const struct error_detail *segment_damage(const struct segment *seg);

/* Nothing is added when the trace is not there. */
MUST_USE int segment_trace(struct segment *seg, const struct trace_id *id, struct span_list *spans);
MUST_USE int segment_outline(struct segment *seg, const struct trace_id *id,
                             struct outline_list *outline);
/* Of the part of the trace that is here; ERR_NOT_FOUND. */
MUST_USE int segment_summary(struct segment *seg, const struct trace_id *id, struct arena *arena,
                             struct trace_summary *ret);
MUST_USE int segment_has(struct segment *seg, const struct trace_id *id, bool *ret_has);
MUST_USE int segment_scan(struct segment *seg, const struct filter *filter, unsigned leaves,
                          struct scan *scan, scan_fn *fn, void *arg, struct scan_cost *cost);
MUST_USE int segment_operations(struct segment *seg, struct operation_set *set);
/* Reads and decodes all of it. */
MUST_USE int segment_verify(struct segment *seg);

#endif
