/* What the parts of a view (memtables and segments) hand to store/local/view.c, which puts the
 * pieces of a trace, and the names and counts, together. */
#ifndef STORE_LOCAL_PARTS_H
#define STORE_LOCAL_PARTS_H

#include "base/arena.h"
#include "store/store.h"

/* Whole spans, in the arena of the caller. */
struct span_list {
    struct arena *arena;
    struct span *spans;
    size_t n, cap;
};
struct span *span_list_add(struct span_list *list); /* zeroed; NULL: no memory */

struct outline_list {
    struct store_outline *items; /* malloc'ed */
    size_t n, cap;
};
struct store_outline *outline_list_add(struct outline_list *list); /* NULL: no memory */

/* (service, name, kind) -> count. */
struct operation_set {
    struct arena *arena; /* the strings are copied here */
    struct store_operation *items;
    uint32_t *slots; /* item + 1 */
    size_t n, cap, mask;
};
MUST_USE int operation_set_add(struct operation_set *set, struct str service, struct str name,
                               uint8_t kind, uint64_t count);
void operation_set_done(struct operation_set *set);

#endif
