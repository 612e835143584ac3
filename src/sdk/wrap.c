/* pug_wrap_table: a pool of entries (wrap_entry.S), each standing for one function under one name.
 *
 * 1. pug__wrap_methods[0..n_methods) are in use and never change again: an entry may be running on any
 *    thread, and may be kept in any table, for ever. Unwrapping a table only forgets where it is used.
 * 2. `lock` is held while methods are looked for and added; nothing on the way of a call takes it. A
 *    method is complete before the pointer to its entry is stored in a table (release). */
#include "sdk/wrap.h"

#include "base/err.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unwind.h>

#if (defined(__x86_64__) || defined(__aarch64__)) && defined(__LP64__)

_Static_assert(sizeof(struct wrap_method) == 1 << WRAP_METHOD_SHIFT, "wrap_entry.S counts on it");
_Static_assert(WRAP_ENTRIES == PUG_WRAP_METHODS_MAX, "an entry for each");
_Static_assert(offsetof(struct wrap_method, stack_bytes) == 8, "wrap_entry.S reads it");

struct wrap_method pug__wrap_methods[WRAP_ENTRIES] __attribute__((aligned(64)));
uint32_t pug__wrap_vectors;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static size_t n_methods;

/* ---- what the entries call ---- */

struct pug__slot *pug__wrap_begin(struct wrap_method *m)
{
    struct pug__lane *lane = pug__lane_get();
    return lane ? pug__begin_bare(lane, &m->site) : NULL;
}

void pug__wrap_end(struct pug__slot *slot)
{
    pug__end(&slot);
}

/* Of libgcc: whoever throws has it. Without it spans end with the scope around them. */
extern __attribute__((weak)) _Unwind_Word _Unwind_GetGR(struct _Unwind_Context *context, int index);

#if defined(__x86_64__)
#define FRAME_POINTER 6 /* DWARF's number */
#define SLOT_BELOW 16
#else
#define FRAME_POINTER 29
#define SLOT_BELOW 16
#endif

_Unwind_Reason_Code
pug__wrap_personality(int version, _Unwind_Action actions, _Unwind_Exception_Class class,
                      struct _Unwind_Exception *exception, struct _Unwind_Context *context)
    __attribute__((visibility("hidden")));

/* An exception, pthread_exit or pthread_cancel goes through an entry's frame. */
_Unwind_Reason_Code pug__wrap_personality(int version, _Unwind_Action actions,
                                          _Unwind_Exception_Class class,
                                          struct _Unwind_Exception *exception,
                                          struct _Unwind_Context *context)
{
    (void)class, (void)exception;
    if (version == 1 && (actions & _UA_CLEANUP_PHASE) && _Unwind_GetGR) {
        struct pug__slot *slot;
        memcpy(&slot, (const char *)_Unwind_GetGR(context, FRAME_POINTER) - SLOT_BELOW,
               sizeof slot);
        pug__wrap_end(slot);
    }
    return _URC_CONTINUE_UNWIND;
}

/* ---- which vectors ---- */

#if defined(__x86_64__)
#include <cpuid.h>

/* XCR0 says what the kernel saves of the registers, XGETBV with 1 (if there is that) what is in use. */
static uint32_t vectors_of_cpu(void)
{
    unsigned a, b, c, d, low, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE) || !(c & bit_AVX))
        return WRAP_VECTORS_XMM;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    if (!(low & 4))
        return WRAP_VECTORS_XMM;
    return __get_cpuid_count(0xd, 1, &a, &b, &c, &d) && (a & 4) ? WRAP_VECTORS_ASK
                                                                : WRAP_VECTORS_YMM;
}
#else
static uint32_t vectors_of_cpu(void)
{
    return WRAP_VECTORS_XMM;
}
#endif

/* ---- methods ---- */

static void *entry_of(size_t index)
{
    return (void *)(uintptr_t)(pug__wrap_entries + index * WRAP_ENTRY_BYTES);
}

/* The method whose entry `function` is; NULL when it is somebody else's function. */
static struct wrap_method *method_of_entry(const void *function)
{
    uintptr_t at = (uintptr_t)function - (uintptr_t)pug__wrap_entries;
    return at < (uintptr_t)WRAP_ENTRIES * WRAP_ENTRY_BYTES && at % WRAP_ENTRY_BYTES == 0
               ? &pug__wrap_methods[at / WRAP_ENTRY_BYTES]
               : NULL;
}

static size_t stack_bytes_of(const struct pug_method *m)
{
    size_t n = m->stack_bytes ? m->stack_bytes : PUG_WRAP_STACK_DEFAULT;
    return (n + 15) & ~(size_t)15;
}

static bool is_named(const char *name, const char *prefix, const char *method)
{
    size_t n = strlen(prefix);
    return strncmp(name, prefix, n) == 0 && strcmp(name + n, method) == 0;
}

/* Index of the method for `original` under that name, else `n_methods`. Under the lock. */
static size_t method_find(const void *original, const char *prefix, const struct pug_method *m)
{
    for (size_t i = 0; i < n_methods; i++) {
        const struct wrap_method *known = &pug__wrap_methods[i];
        if (known->original == original && known->stack_bytes >= stack_bytes_of(m) &&
            is_named(known->site.name, prefix, m->name))
            return i;
    }
    return n_methods;
}

static int method_add(void *original, const char *prefix, const struct pug_method *m)
{
    size_t n = strlen(prefix), all = n + strlen(m->name) + 1;
    if (n_methods == WRAP_ENTRIES)
        return ERR_FULL;
    char *name = malloc(all); /* kept as long as the entry: for ever */
    if (!name)
        return ERR_NOMEM;
    memcpy(name, prefix, n);
    memcpy(name + n, m->name, all - n);
    static const struct pug__key no_keys[1];
    pug__wrap_methods[n_methods++] = (struct wrap_method){
        .original = original,
        .stack_bytes = stack_bytes_of(m),
        .site = {.name = name, .file = "", .function = name + n, .keys = no_keys},
    };
    return 0;
}

/* ---- tables ---- */

static bool is_sound(const void *table, size_t bytes, const struct pug_method *m, size_t prefix_len)
{
    return m->name && prefix_len + strlen(m->name) <= PUG_WRAP_NAME_MAX &&
           bytes >= sizeof(void *) && m->offset <= bytes - sizeof(void *) &&
           ((uintptr_t)table + m->offset) % sizeof(void *) == 0 &&
           m->stack_bytes <= PUG_WRAP_STACK_MAX;
}

static bool all_sound(const void *table, size_t bytes, size_t prefix_len,
                      const struct pug_method *methods, size_t n)
{
    if (!table || (n && !methods))
        return false;
    for (size_t i = 0; i < n; i++)
        if (!is_sound(table, bytes, &methods[i], prefix_len))
            return false;
    return true;
}

static void **member(void *table, const struct pug_method *m)
{
    return (void **)(void *)((char *)table + m->offset);
}

/* A function of the program's that is to be wrapped; NULL when there is nothing to do. */
static void *to_wrap(void *table, const struct pug_method *m)
{
    void *function = __atomic_load_n(member(table, m), __ATOMIC_ACQUIRE);
    return function && !method_of_entry(function) ? function : NULL;
}

static int wrap_locked(void *table, const char *prefix, const struct pug_method *methods, size_t n)
{
    size_t before = n_methods;
    pug__wrap_vectors = vectors_of_cpu();
    for (size_t i = 0; i < n; i++) {
        void *function = to_wrap(table, &methods[i]);
        int err = function && method_find(function, prefix, &methods[i]) == n_methods
                      ? method_add(function, prefix, &methods[i])
                      : 0;
        if (err) { /* nobody has seen the new ones yet */
            while (n_methods > before)
                free((void *)(uintptr_t)pug__wrap_methods[--n_methods].site.name);
            return err;
        }
    }
    for (size_t i = 0; i < n; i++) {
        void *function = to_wrap(table, &methods[i]);
        size_t index = function ? method_find(function, prefix, &methods[i]) : n_methods;
        /* Somebody else may have changed the member meanwhile; then it stays his. */
        if (index < n_methods)
            __atomic_compare_exchange_n(member(table, &methods[i]), &function, entry_of(index),
                                        false, __ATOMIC_RELEASE, __ATOMIC_RELAXED);
    }
    return 0;
}

int pug_wrap_table(void *table, size_t bytes, const char *prefix, const struct pug_method *methods,
                   size_t n)
{
    int errno_before = errno;
    prefix = prefix ? prefix : "";
    if (!all_sound(table, bytes, strlen(prefix), methods, n))
        return PUG_ERR_INVALID;
    pthread_mutex_lock(&lock);
    int err = wrap_locked(table, prefix, methods, n);
    pthread_mutex_unlock(&lock);
    errno = errno_before;
    return err;
}

int pug_unwrap_table(void *table, size_t bytes, const struct pug_method *methods, size_t n)
{
    if (!all_sound(table, bytes, 0, methods, n))
        return PUG_ERR_INVALID;
    for (size_t i = 0; i < n; i++) {
        void *function = __atomic_load_n(member(table, &methods[i]), __ATOMIC_ACQUIRE);
        struct wrap_method *m = method_of_entry(function);
        if (m)
            __atomic_compare_exchange_n(member(table, &methods[i]), &function, m->original, false,
                                        __ATOMIC_RELEASE, __ATOMIC_RELAXED);
    }
    return 0;
}

#else

int pug_wrap_table(void *table, size_t bytes, const char *prefix, const struct pug_method *methods,
                   size_t n)
{
    (void)table, (void)bytes, (void)prefix, (void)methods, (void)n;
    return PUG_ERR_UNSUPPORTED;
}

int pug_unwrap_table(void *table, size_t bytes, const struct pug_method *methods, size_t n)
{
    (void)table, (void)bytes, (void)methods, (void)n;
    return PUG_ERR_UNSUPPORTED;
}

#endif
