#include "sdk/alloc.h"

#include "pugmark/alloc.h"
#include "sdk/watch.h"

#include <dlfcn.h>
#include <stddef.h>
#include <string.h>

/* In libpugmark-alloc. Weak, for it is seldom there. */
extern struct pug_alloc_counts *pug__alloc_here(void) __attribute__((weak));

_Static_assert(sizeof(struct watch_counters) == sizeof(struct pug_alloc_counts) &&
                   offsetof(struct watch_counters, alloc_bytes) ==
                       offsetof(struct pug_alloc_counts, alloc_bytes) &&
                   offsetof(struct watch_counters, dealloc_count) ==
                       offsetof(struct pug_alloc_counts, dealloc_count) &&
                   offsetof(struct watch_counters, dealloc_bytes) ==
                       offsetof(struct pug_alloc_counts, dealloc_bytes),
               "they are read by one function");

typedef struct pug_alloc_counts *here_fn(void);

static _Atomic(here_fn *) here;

static here_fn *find(void)
{
    here_fn *found = atomic_load(&here);
    if (found)
        return found;
    found = pug__alloc_here;
    if (!found) {
        /* A preloaded object is not seen by a weak name in a program that libpugmark.a is linked into. */
        void *at = dlsym(RTLD_DEFAULT, "pug__alloc_here");
        memcpy(&found, &at, sizeof found);
    }
    if (found)
        atomic_store(&here, found);
    return found;
}

bool alloc_find(void)
{
    here_fn *found = find();
    watch_allocations_fn *same;
    if (!found)
        return false;
    memcpy(&same, &found, sizeof same);
    watch_allocations_in(same);
    return true;
}

int pug_alloc_counts_read(struct pug_alloc_counts *ret)
{
    here_fn *found = find();
    if (!found) {
        memset(ret, 0, sizeof *ret);
        return PUG_ERR_UNSUPPORTED;
    }
    *ret = *found();
    ret->alloc_bytes -= ALLOC_BLOCK_EXTRA * ret->alloc_count;
    ret->dealloc_bytes -= ALLOC_BLOCK_EXTRA * ret->dealloc_count;
    return 0;
}

struct alloc_ours alloc_ours_begin(void)
{
    struct alloc_ours ours = {.known = false};
    here_fn *found = atomic_load(&here);
    if (found) {
        ours.before = *found();
        ours.known = true;
    }
    return ours;
}

void alloc_ours_end(struct alloc_ours *ours)
{
    if (ours->known)
        *atomic_load (&here)() = ours->before;
}
