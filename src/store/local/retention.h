/* Rules of retention: which spans go by themselves, and when. */
#ifndef STORE_LOCAL_RETENTION_H
#define STORE_LOCAL_RETENTION_H

#include "store/local/rewrite.h"

struct retention_rule {
    struct str text;
    uint64_t keep_ns;              /* 0: for ever */
    const struct predicate *where; /* NULL: all spans */
    struct filter *filter;         /* of it */
    uint64_t spans;                /* that it took; under the store's lock */
};

struct retention {
    struct arena arena;
    uint64_t id;                                      /* another for each that comes into force */
    struct retention_rule rules[STORE_RULES_MAX + 1]; /* the last is about all that are left */
    size_t n;
    uint64_t disk_bytes_max;
};

MUST_USE int retention_new(const struct store_retention *options, struct retention **ret);
void retention_free(struct retention *r); /* NULL is allowed */
/* What the catalogue has counted for these rules. */
MUST_USE int retention_counts_read(struct store *st, struct retention *r);

/* Puts in `rules` what the counters will be when rule i has taken `taken[i]` spans more; the number of
 * them. */
size_t retention_counted(const struct retention *r, const uint64_t *taken,
                         struct catalogue_rule rules[STORE_RULES_MAX + 1]);
/* That is so now. */
void retention_count(struct store *st, struct retention *r, const uint64_t *taken);

/* Applies the rules to all segments. ERR_BUSY: pins came or went meanwhile. */
MUST_USE int retention_apply(struct store *st, struct retention *r, const struct pins *pins,
                             uint64_t now_ns);

/* keep.c: drops a segment but for its pinned traces. `ret_bytes` is what became free; 0: nothing, because
 * all of it is pinned, or damaged and a pinned trace may be in it. */
MUST_USE int segment_expire(struct store *st, struct segment_file *file, const struct pins *pins,
                            struct catalogue_change *change, enum catalogue_counter reason,
                            uint64_t *ret_bytes);

#endif
