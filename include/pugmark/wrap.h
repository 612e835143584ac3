/* Tables of functions, traced at run time: whatever their signatures, without touching their callers.
 *
 *     struct repo_methods {
 *         int (*add_log)(struct repo *r, const struct row *row);
 *         double (*mean)(const char *format, ...);
 *     };
 *     static const struct pug_method methods[] = {PUG_METHOD(struct repo_methods, add_log),
 *                                                 PUG_METHOD(struct repo_methods, mean)};
 *
 *     PUG_WRAP_METHODS(&repo->methods, "db.", methods);     // spans "db.add_log", "db.mean"
 *
 * Each named member is replaced by an entry that begins a span, calls the original with the very same
 * registers and a copy of the arguments on the stack, ends the span, and returns what came back:
 * integers, floating point, vectors, structs in registers or memory. No code is made at run time and
 * no return address is changed, so unwinders, debuggers, C++ exceptions and longjmp see ordinary
 * frames. An exception or the cancelling of a thread that passes through ends the span; what longjmp
 * leaves open ends with the scope around it. With tracing off the entry is one jump.
 *
 * x86-64 (System V) and AArch64; elsewhere the functions return PUG_ERR_UNSUPPORTED, and
 * PUG_WRAP_TABLE of pugmark.h, which needs the signatures, does the same everywhere. Not for
 * functions that return twice (setjmp), look at their caller's frame, or have a calling convention of
 * their own (ms_abi, SVE vectors in registers).
 *
 * Wrapping is thread-safe and not for signal handlers; a wrapped function may be called where the
 * original may, also from several threads and, as spans are, in a signal handler. */
#ifndef PUGMARK_WRAP_H
#define PUGMARK_WRAP_H

#include <pugmark/pugmark.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PUG_WRAP_METHODS_MAX 1024  /* different functions of a process that can be wrapped */
#define PUG_WRAP_NAME_MAX 255      /* characters of prefix and name together */
#define PUG_WRAP_STACK_DEFAULT 256 /* bytes of stack arguments that are copied */
#define PUG_WRAP_STACK_MAX 65536

/* One member of a table. */
struct pug_method {
    const char *name;
    size_t offset; /* of the pointer to a function in the table */
    /* How many bytes of arguments its callers put on the stack (what fits no register: the seventh
     * integer on x86-64, the ninth on AArch64, structs passed by value); more does no harm as long
     * as that much of the stack is there. 0: PUG_WRAP_STACK_DEFAULT. */
    size_t stack_bytes;
};

#define PUG_METHOD(type, member)                                                                   \
    {                                                                                              \
#member, offsetof(type, member), 0                                                         \
    }
/* For members that take large structs by value. */
#define PUG_METHOD_STACK(type, member, stack_bytes)                                                \
    {                                                                                              \
#member, offsetof(type, member), stack_bytes                                               \
    }

/* `methods`: an array of struct pug_method. */
#define PUG_WRAP_METHODS(table, prefix, methods)                                                   \
    pug_wrap_table(table, sizeof *(table), prefix, methods, sizeof(methods) / sizeof((methods)[0]))
#define PUG_UNWRAP_METHODS(table, methods)                                                         \
    pug_unwrap_table(table, sizeof *(table), methods, sizeof(methods) / sizeof((methods)[0]))

#ifdef PUG_DISABLE
/* The table stays as it is: 0. */
PUG__INLINE int pug__wrap_nothing(void)
{
    return 0;
}
/* 0. */
PUG__INLINE int pug_wrap_table(void *table, size_t bytes, const char *prefix,
                               const struct pug_method *methods, size_t n)
{
    (void)table, (void)bytes, (void)prefix, (void)methods, (void)n;
    return 0;
}
/* 0. */
PUG__INLINE int pug_unwrap_table(void *table, size_t bytes, const struct pug_method *methods,
                                 size_t n)
{
    (void)table, (void)bytes, (void)methods, (void)n;
    return 0;
}
#define pug_wrap_table(...) (0 ? (pug_wrap_table)(__VA_ARGS__) : pug__wrap_nothing())
#define pug_unwrap_table(...) (0 ? (pug_unwrap_table)(__VA_ARGS__) : pug__wrap_nothing())
#else
/* Replaces the `n` members that `methods` names in the table of `bytes` bytes. The spans are named
 * `prefix` (NULL: "") and the method's name; both are copied. A member that is NULL stays NULL, one
 * that is wrapped already stays as it is (also under another name). All or nothing; 0, or
 *     PUG_ERR_INVALID      a name missing or too long, an offset outside or not aligned, too much
 *                          stack
 *     PUG_ERR_FULL         more than PUG_WRAP_METHODS_MAX functions
 *     PUG_ERR_NOMEM
 *     PUG_ERR_UNSUPPORTED  not on this processor
 * The same function under the same name shares an entry, so a table of each object may be wrapped.
 * The table must be writable memory. Each member is replaced atomically: other threads may be calling
 * through the table, wrap it, or unwrap it. May be called before pug_start. Not signal-safe. */
int pug_wrap_table(void *table, size_t bytes, const char *prefix, const struct pug_method *methods,
                   size_t n);
/* Puts the originals back where they are wrapped; calls under way end their spans. 0,
 * PUG_ERR_INVALID as above, PUG_ERR_UNSUPPORTED. Not signal-safe. */
int pug_unwrap_table(void *table, size_t bytes, const struct pug_method *methods, size_t n);
#endif

#ifdef __cplusplus
}
#endif
#endif
