#include "probe/next.h"

#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <pthread.h>
#include <stddef.h>

enum { UNKNOWN, FOUND, MISSING };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of the writers */

struct module {
    const struct link_map *map;
    uintptr_t from, to;
};

static bool module_of(const void *address, struct module *ret)
{
    struct dl_find_object found;
    if (_dl_find_object((void *)(uintptr_t)address, &found) != 0)
        return false;
    *ret = (struct module){found.dlfo_link_map, (uintptr_t)found.dlfo_map_start,
                           (uintptr_t)found.dlfo_map_end};
    return true;
}

static bool is_ours(const void *function)
{
    struct module theirs, ours;
    static const char here;
    return module_of(function, &theirs) && module_of(&here, &ours) && theirs.map == ours.map;
}

/* Keeps the module where it is: a plugin that is closed and opened again may come to another place, and
 * what we remember of the first must not be called then. */
static void pin(const struct module *m)
{
    if (m->map->l_name[0] && !dlopen(m->map->l_name, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE))
        dlerror();
}

static bool fill(struct next_found *f, void *function)
{
    struct module m;
    if (!function || is_ours(function))
        return false;
    f->function = function;
    if (module_of(function, &m)) {
        f->from = m.from;
        f->to = m.to;
        pin(&m);
    }
    return true;
}

static void *result(const struct next_found *f, const void *caller, bool *ret_inside)
{
    *ret_inside = (uintptr_t)caller - f->from < f->to - f->from;
    return f->function;
}

static void *find_local(struct next *n, const void *caller, bool *ret_inside)
{
    struct module m;
    if (!module_of(caller, &m))
        return NULL;
    unsigned known = atomic_load_explicit(&n->n_local, memory_order_acquire);
    for (unsigned i = 0; i < known; i++)
        if (n->local[i].caller_module == m.map)
            return result(&n->local[i], caller, ret_inside);
    /* Kept open: it must not make place for another module at the same address. */
    void *module = dlopen(m.map->l_name, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
    void *function = module ? dlsym(module, n->name) : NULL;
    if (!function) /* a library that came into the global scope since */
        function = dlsym(RTLD_NEXT, n->name);
    struct next_found f = {.caller_module = m.map};
    if (!fill(&f, function)) {
        dlerror();
        return NULL;
    }
    pthread_mutex_lock(&lock);
    unsigned at = atomic_load_explicit(&n->n_local, memory_order_relaxed);
    if (at < NEXT_LOCAL_MAX) {
        n->local[at] = f;
        atomic_store_explicit(&n->n_local, at + 1, memory_order_release);
    }
    pthread_mutex_unlock(&lock);
    return result(&f, caller, ret_inside);
}

static void *find_first(struct next *n, const void *caller, bool *ret_inside)
{
    struct next_found f = {.function = NULL};
    bool found = fill(&f, dlsym(RTLD_NEXT, n->name));
    if (!found)
        dlerror(); /* it is no business of the program's */
    pthread_mutex_lock(&lock);
    if (atomic_load_explicit(&n->state, memory_order_relaxed) == UNKNOWN) {
        n->global = f;
        atomic_store_explicit(&n->state, found ? FOUND : MISSING, memory_order_release);
    }
    pthread_mutex_unlock(&lock);
    return found ? result(&f, caller, ret_inside) : find_local(n, caller, ret_inside);
}

void *next_find(struct next *n, const void *caller, bool *ret_inside)
{
    *ret_inside = false;
    int state = atomic_load_explicit(&n->state, memory_order_acquire);
    if (state == FOUND)
        return result(&n->global, caller, ret_inside);
    int errno_before = errno;
    void *function = state == UNKNOWN ? find_first(n, caller, ret_inside)
                                      : find_local(n, caller, ret_inside);
    errno = errno_before;
    return function;
}
