/* The keys of attributes, each once, and no more than were asked for. */
#ifndef STORE_LOCAL_KEYS_H
#define STORE_LOCAL_KEYS_H

#include "store/local/memtable.h"
#include "store/local/segment.h"

struct key_set {
    struct arena arena;
    struct intern spans, resources; /* their bytes live in `arena` */
    size_t most;                    /* of both together */
};

void key_set_init(struct key_set *set, size_t most);
void key_set_done(struct key_set *set);

/* ERR_NOMEM, and what reading a segment gives. */
MUST_USE int memtable_keys(const struct memtable *mt, uint32_t rows, struct key_set *set);
MUST_USE int segment_keys(struct segment *seg, struct key_set *set);

#endif
