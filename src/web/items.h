/* A set of texts, each under a kind (of a value, or of a scope): what names and values are gathered in. */
#ifndef WEB_ITEMS_H
#define WEB_ITEMS_H

#include "base/arena.h"

/* A longer text completes nothing. */
#define ITEM_BYTES_MAX 4096

struct item {
    const char *kind;
    struct str text;
};

struct items {
    struct arena *arena;
    struct item *list;
    uint32_t *slots; /* by hash: index + 1; 0: free. Twice as many as the list has room for */
    size_t n, capacity, most;
    bool failed; /* no memory */
};

void items_init(struct items *items, struct arena *arena, size_t most);
/* Copies. Does nothing when it is there, or there are `most`, or it is empty or too long. */
void items_add(struct items *items, const char *kind, struct str text);
/* By kind, then text; and leaves the first `most`. */
void items_sort(struct items *items, uint64_t most);

#endif
