#include "sdk/passing.h"

#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

struct passing {
    struct pug_context context;
    struct passing *outer;  /* the thread's one before */
    _Atomic uint32_t below; /* the next place that is free, counted from 1 */
};

static struct passing places[PASSING_MAX];
/* Above, how often it changed, so that a place which went and came back is not taken for one that stayed; below, the place on
 * top of those that were given back, counted from 1. */
static _Atomic uint64_t given_back;
static _Atomic uint32_t n_used; /* places that were ever taken */
static __thread struct passing *innermost __attribute__((tls_model("initial-exec")));

static struct passing *place_take(void)
{
    uint64_t top = atomic_load_explicit(&given_back, memory_order_acquire);
    while ((uint32_t)top) {
        struct passing *p = &places[(uint32_t)top - 1];
        uint64_t next = ((top >> 32) + 1) << 32 |
                        atomic_load_explicit(&p->below, memory_order_relaxed);
        if (atomic_compare_exchange_weak_explicit(&given_back, &top, next, memory_order_acquire,
                                                  memory_order_acquire))
            return p;
    }
    uint32_t n = atomic_load_explicit(&n_used, memory_order_relaxed);
    while (n < PASSING_MAX)
        if (atomic_compare_exchange_weak_explicit(&n_used, &n, n + 1, memory_order_relaxed,
                                                  memory_order_relaxed))
            return &places[n];
    return NULL;
}

static void place_give(struct passing *p)
{
    uint64_t top = atomic_load_explicit(&given_back, memory_order_relaxed), next;
    do {
        atomic_store_explicit(&p->below, (uint32_t)top, memory_order_relaxed);
        next = ((top >> 32) + 1) << 32 | (uint32_t)(p - places + 1);
    } while (!atomic_compare_exchange_weak_explicit(&given_back, &top, next, memory_order_release,
                                                    memory_order_relaxed));
}

struct pug__slot *passing_attach(const struct pug_context *context)
{
    struct passing *p;
    if (!pug_context_valid(context) || context->tracestate_len > PUG_TRACESTATE_MAX ||
        !(p = place_take()))
        return NULL;
    memcpy(&p->context, context,
           offsetof(struct pug_context, tracestate) + context->tracestate_len);
    p->outer = innermost;
    atomic_signal_fence(memory_order_seq_cst);
    innermost = p;
    return (struct pug__slot *)(void *)p;
}

bool passing_detach(const struct pug__slot *slot)
{
    const struct passing *p = (const struct passing *)(const void *)slot, *open = innermost;
    if ((uintptr_t)slot - (uintptr_t)places >= sizeof places)
        return false;
    while (open && open != p)
        open = open->outer;
    while (open) { /* else it is not this thread's, or over */
        struct passing *last = innermost;
        innermost = last->outer;
        atomic_signal_fence(memory_order_seq_cst);
        place_give(last);
        if (last == p)
            break;
    }
    return true;
}

const struct pug_context *passing_current(void)
{
    return innermost ? &innermost->context : NULL;
}
