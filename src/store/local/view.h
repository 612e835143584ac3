/* A snapshot, for view.c and match.c. */
#ifndef STORE_LOCAL_VIEW_H
#define STORE_LOCAL_VIEW_H

#include "store/local/engine.h"

struct store_view {
    struct memtable *memtables[2]; /* newest first; NULL: none */
    uint32_t rows[2];              /* the snapshot */
    struct segment_list *segments;
    struct segment **readers; /* of the segments; NULL: not opened yet */
    bool is_damaged;          /* something of what was asked for could not be read */
};

MUST_USE int view_reader(struct store_view *v, uint32_t i, struct segment **ret);
/* What a segment cannot give keeps nobody from what the others can: 0 for damage, which is noted, and the
 * error for all else. segment_fail has said where it is. */
MUST_USE int view_pass_damage(struct store_view *v, uint32_t i, int err);

static inline bool range_misses(uint64_t min, uint64_t max, uint64_t start_min, uint64_t start_max)
{
    return start_max < min || (max && start_min > max);
}

#endif
