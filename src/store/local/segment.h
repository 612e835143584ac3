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

/* Writes the first `rows` rows of a memtable as the file `name` (through a temporary file, synced
 * when `sync`), and fills all of `ret_info` but the id. */
MUST_USE int segment_write(const struct memtable *mt, int dir, const char *name, bool sync,
                           struct segment_info *ret_info);

#endif
