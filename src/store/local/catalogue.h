/* The catalogue: which segments there are, which log records they cover, which traces are pinned, and
 * what became of spans. A SQLite database (docs/formats/catalogue.md), so that a change of the segments
 * and of the position in the log is one transaction. Used by one thread at a time. */
#ifndef STORE_LOCAL_CATALOGUE_H
#define STORE_LOCAL_CATALOGUE_H

#include "base/err.h"
#include "model/span.h"
#include "store/local/segment.h"

struct catalogue;

/* Sums since the store was made. Numbers are on disk. */
enum catalogue_counter {
    COUNTER_SEALED_BYTES,      /* of segments made of memtables */
    COUNTER_REWRITTEN_BYTES,   /* of segments made of segments */
    COUNTER_EXPIRED_AGE_SPANS, /* dropped by retention */
    COUNTER_EXPIRED_DISK_SPANS,
    COUNTER_DELETED_SPANS, /* by somebody's wish */
    COUNTER_REDACTED_SPANS,
    COUNTERS,
};

enum catalogue_mode {
    CATALOGUE_SYNC,  /* changes survive a power cut */
    CATALOGUE_WRITE, /* ... the end of the process */
    CATALOGUE_READ,  /* nothing is written; an older version is read as it is */
};

/* ERR_UNSUPPORTED: written by a newer version; ERR_CORRUPT; ERR_IO; ERR_NOT_FOUND: there is none (when
 * reading). A catalogue of an older version is brought to this one. */
MUST_USE int catalogue_open(const char *dir, enum catalogue_mode mode, struct catalogue **ret,
                            struct error_detail *ret_detail);
void catalogue_close(struct catalogue *c); /* NULL is allowed */

/* Rows whose checksum is wrong are told by `is_damaged`. */
struct catalogue_position {
    uint64_t sealed;
    bool is_damaged;
};
MUST_USE int catalogue_position(struct catalogue *c, struct catalogue_position *ret);
/* In the order of their records. A non-zero return of `fn` ends it. */
typedef int catalogue_segment_fn(void *arg, const struct segment_info *info, bool is_damaged);
MUST_USE int catalogue_segments(struct catalogue *c, catalogue_segment_fn *fn, void *arg);
/* Files that were taken out of the catalogue, and may still be there. */
typedef int catalogue_removed_fn(void *arg, const char *name);
MUST_USE int catalogue_removed(struct catalogue *c, catalogue_removed_fn *fn, void *arg);
/* All of these files are gone. */
MUST_USE int catalogue_forget_removed(struct catalogue *c);
MUST_USE int catalogue_counters(struct catalogue *c, uint64_t ret[COUNTERS]);

/* How many spans each rule of retention has taken. */
struct catalogue_rule {
    const char *text;
    uint64_t spans;
};
typedef int catalogue_rule_fn(void *arg, const char *text, uint64_t spans, bool is_damaged);
MUST_USE int catalogue_rules(struct catalogue *c, catalogue_rule_fn *fn, void *arg);

struct catalogue_change {
    const struct segment_info *add; /* NULL: none */
    const struct segment_info *const *remove;
    size_t n_remove;
    uint64_t sealed;                    /* 0: as it is */
    uint64_t counters[COUNTERS];        /* what is added to them */
    const struct catalogue_rule *rules; /* as they are from now on */
    size_t n_rules;
};
/* All of it or nothing, unless catalogue_is_lost afterwards. */
MUST_USE int catalogue_change(struct catalogue *c, const struct catalogue_change *change);
/* The disk failed so often that nobody knows whether the last change is in the catalogue: the files of either side must
 * stay, and nothing can be changed before it is opened again. Thread-safe. */
bool catalogue_is_lost(const struct catalogue *c);

MUST_USE int catalogue_pin(struct catalogue *c, const struct trace_id *id, uint64_t now_ns);
/* ERR_NOT_FOUND. */
MUST_USE int catalogue_unpin(struct catalogue *c, const struct trace_id *id);
/* By id. */
typedef int catalogue_pin_fn(void *arg, const struct trace_id *id, uint64_t made_ns,
                             bool is_damaged);
MUST_USE int catalogue_pins(struct catalogue *c, catalogue_pin_fn *fn, void *arg);

/* A deletion or redaction that somebody was promised and that is not done everywhere yet. */
struct catalogue_erasure {
    uint64_t id, made_ns;
    uint64_t last_sequence; /* of the log: what came later is not meant */
    struct str body;        /* erase.h */
};
MUST_USE int catalogue_erasure_add(struct catalogue *c, const struct catalogue_erasure *e);
MUST_USE int catalogue_erasure_remove(struct catalogue *c, uint64_t id);
/* In the order of their making; the body lives until `fn` returns. */
typedef int catalogue_erasure_fn(void *arg, const struct catalogue_erasure *e, bool is_damaged);
MUST_USE int catalogue_erasures(struct catalogue *c, catalogue_erasure_fn *fn, void *arg);

/* SQLite's own check of its structure; what it found first is in `ret_detail`. */
MUST_USE int catalogue_check(struct catalogue *c, struct error_detail *ret_detail);
/* The last SQLite error, for a person. */
const char *catalogue_error(const struct catalogue *c);

#endif
