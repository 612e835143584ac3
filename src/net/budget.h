/* How many bytes may be in flight at once, over all connections that share the budget. What does
 * not fit is refused with the protocol's word for "later"; nothing waits. Thread-safe. */
#ifndef NET_BUDGET_H
#define NET_BUDGET_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

struct budget {
    _Atomic size_t used;
    size_t max; /* 0: no limit, only counted */
};

static inline bool budget_take(struct budget *b, size_t n)
{
    size_t before = atomic_fetch_add_explicit(&b->used, n, memory_order_relaxed);
    if (b->max && (n > b->max || before > b->max - n)) {
        atomic_fetch_sub_explicit(&b->used, n, memory_order_relaxed);
        return false;
    }
    return true;
}
static inline void budget_give(struct budget *b, size_t n)
{
    atomic_fetch_sub_explicit(&b->used, n, memory_order_relaxed);
}

#endif
