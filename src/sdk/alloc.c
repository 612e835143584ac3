#include "sdk/alloc.h"

#include "pugmark/alloc.h"
#include "sdk/watch.h"

#include <dlfcn.h>
#include <stddef.h>
#include <string.h>

/* In libpugmark-alloc. Weak, for it is seldom there. */
extern void pug__alloc_read(struct pug_alloc_counts *ret) __attribute__((weak));
extern void pug__alloc_write(const struct pug_alloc_counts *to) __attribute__((weak));

_Static_assert(sizeof(struct watch_counters) == sizeof(struct pug_alloc_counts) &&
                   offsetof(struct watch_counters, alloc_bytes) ==
                       offsetof(struct pug_alloc_counts, alloc_bytes) &&
                   offsetof(struct watch_counters, dealloc_count) ==
                       offsetof(struct pug_alloc_counts, dealloc_count) &&
                   offsetof(struct watch_counters, dealloc_bytes) ==
                       offsetof(struct pug_alloc_counts, dealloc_bytes),
               "they are read by one function");

typedef void read_fn(struct pug_alloc_counts *ret);
typedef void write_fn(const struct pug_alloc_counts *to);

static _Atomic(read_fn *) reads;
static _Atomic(write_fn *) writes;

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
    write_fn *writer = pug__alloc_write;
    found = pug__alloc_read;
    if (!found) {
        void *at[2] = {look("pug__alloc_read"), look("pug__alloc_write")};
        memcpy(&found, &at[0], sizeof found);
        memcpy(&writer, &at[1], sizeof writer);
    }
    if (!found || !writer)
        return NULL;
    atomic_store(&writes, writer);
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

struct alloc_ours alloc_ours_begin(void)
{
    struct alloc_ours ours = {.known = false};
    read_fn *found = atomic_load(&reads);
    if (found) {
        found(&ours.before);
        ours.known = true;
    }
    return ours;
}

void alloc_ours_end(struct alloc_ours *ours)
{
    if (ours->known)
        atomic_load (&writes)(&ours->before);
}
