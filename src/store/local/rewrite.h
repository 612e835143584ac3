/* A segment made of segments: some of their spans, changed or not. What keeping (keep.c), rules of retention
 * (retention.c) and erasures (erase.c) have in common. On the keeper's thread. */
#ifndef STORE_LOCAL_REWRITE_H
#define STORE_LOCAL_REWRITE_H

#include "store/local/engine.h"

/* The pinned traces of one moment. */
struct pins {
    struct trace_id *ids; /* in order */
    size_t n;
    uint64_t changes;
};
MUST_USE int pins_copy(struct store *st, struct pins *ret); /* whose `ids` are to be freed */
bool pins_have(const struct pins *pins, const struct trace_id *id);

struct rewrite {
    struct memtable *mt; /* the maker's */
    uint64_t bytes_max;
    bool (*drops)(void *arg, const struct span *s); /* NULL: nothing goes */
    const struct pins *pins;                        /* whose spans do not go; may be NULL */
    /* Changes spans for good, and counts those. What it puts there lives in `arena`. NULL: as they are. */
    int (*changes)(void *arg, struct span_batch *batch, struct arena *arena, uint64_t *ret_n);
    void *arg;
    uint64_t n_dropped, n_changed; /* spans */
};

/* Adds a segment's spans, all that are not dropped, or none. ERR_TOO_LARGE: more than bytes_max. */
MUST_USE int rewrite_take(struct rewrite *r, struct segment_file *file);
/* Puts what the memtable holds in the place of `files` (oldest first); nothing, where it holds none. ERR_BUSY:
 * pins came or went meanwhile. `rules`: as in a catalogue_change. */
MUST_USE int rewrite_end(struct store *st, struct rewrite *r, struct segment_file **files, size_t n,
                         struct catalogue_change *change);

struct segment_list *segment_list_now(struct store *st);
/* When its newest span started; a clock of the sender that is ahead keeps nothing longer than its sealing
 * says. */
uint64_t segment_newest_ns(const struct segment_info *info);

#endif
