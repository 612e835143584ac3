/* The function that a caller would have got if we were not there.
 *
 * An interposed function is ours because we stand first in the global scope. What stands behind us is
 * what dlsym(RTLD_NEXT) finds; but a library that came with a dlopened module (Python's sqlite3, say) is
 * only in that module's own scope, and there we look as the dynamic linker would have: in the module
 * that calls. Such a module is pinned, so that what we remember of it stays true.
 *
 * A library's calls to itself reach us too, and its exporter's (ours is one). They are known by where
 * they come from and are passed straight on: nobody wants the inner working of PQexec as spans. */
#ifndef PROBE_NEXT_H
#define PROBE_NEXT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define NEXT_LOCAL_MAX 8 /* modules with a library of their own; more are looked up each time */

struct next_found {
    const void *caller_module;
    void *function;
    uintptr_t from, to; /* of the module that has it */
};

/* One for each interposed function. */
struct next {
    const char *name;
    _Atomic int state;
    struct next_found global, local[NEXT_LOCAL_MAX];
    _Atomic unsigned n_local;
};

/* NULL: there is no such function. `*ret_inside`: the caller is the library itself. */
void *next_find(struct next *n, const void *caller, bool *ret_inside);

/* Declares `real`, the function behind ours, and `inside`; when there is none returns `otherwise`. Keeps
 * errno. */
#define NEXT(function_, otherwise_)                                                                \
    static struct next next_##function_ = {.name = #function_};                                    \
    bool inside;                                                                                   \
    const void *caller = __builtin_return_address(0);                                              \
    __typeof__(&(function_)) real = (__typeof__(&(function_)))next_find(&next_##function_, caller, \
                                                                        &inside);                  \
    if (!real)                                                                                     \
    return otherwise_

/* Another function of the same library, for our own use; may be NULL. */
#define OTHER(function_, caller_)                                                                  \
    __extension__({                                                                                \
        static struct next next_other = {.name = #function_};                                      \
        bool inside_;                                                                              \
        (__typeof__(&(function_)))next_find(&next_other, caller_, &inside_);                       \
    })

#endif
