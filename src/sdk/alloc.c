#include "sdk/alloc.h"

#include "pugmark/alloc.h"
#include "sdk/watch.h"

#include <dlfcn.h>
#include <stddef.h>
#include <string.h>

/* In libpugmark-alloc. Weak, for it is seldom there. */
extern void pug__alloc_read(struct pug_alloc_counts *ret) __attribute__((weak));
extern void pug__alloc_pause(int by) __attribute__((weak));

_Static_assert(sizeof(struct watch_counters) == sizeof(struct pug_alloc_counts) &&
                   offsetof(struct watch_counters, alloc_bytes) ==
                       offsetof(struct pug_alloc_counts, alloc_bytes) &&
                   offsetof(struct watch_counters, dealloc_count) ==
                       offsetof(struct pug_alloc_counts, dealloc_count) &&
                   offsetof(struct watch_counters, dealloc_bytes) ==
                       offsetof(struct pug_alloc_counts, dealloc_bytes),
               "they are read by one function");

typedef void read_fn(struct pug_alloc_counts *ret);
typedef void pause_fn(int by);

static _Atomic(read_fn *) reads;
static _Atomic(pause_fn *) pauses;

/* A preloaded object is not seen by a weak name in a program that libpugmark.a is linked into. */
static void *look(const char *name)
{
    return dlsym(RTLD_DEFAULT, name);
}

static read_fn *find(void)
{
    read_fn *found = atomic_load(&reads);
    if (found)
        return found;
    pause_fn *pause = pug__alloc_pause;
    found = pug__alloc_read;
    if (!found) {
        void *at[2] = {look("pug__alloc_read"), look("pug__alloc_pause")};
        memcpy(&found, &at[0], sizeof found);
        memcpy(&pause, &at[1], sizeof pause);
    }
    if (!found || !pause)
        return NULL;
    atomic_store(&pauses, pause);
    atomic_store(&reads, found);
    return found;
}

bool alloc_find(void)
{
    read_fn *found = find();
    watch_allocations_fn *same;
    if (!found)
        return false;
    memcpy(&same, &found, sizeof same);
    watch_allocations_from(same);
    return true;
}

int pug_alloc_counts_read(struct pug_alloc_counts *ret)
{
    read_fn *found = find();
    if (!found) {
        memset(ret, 0, sizeof *ret);
        return PUG_ERR_UNSUPPORTED;
    }
    found(ret);
    return 0;
}

int alloc_ours_begin(void)
{
    pause_fn *pause = atomic_load(&pauses);
    if (pause)
        pause(1);
    return pause != NULL;
}

void alloc_ours_end(int *ours)
{
    if (*ours)
        atomic_load (&pauses)(-1);
}
