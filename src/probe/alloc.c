/* libpugmark-alloc: the malloc family, counted.
 *
 * A layer over the allocator that the program would have without us, whichever that is: the next one
 * in the order of libraries. Each thread has four sums that only grow; a span takes their difference
 * (sdk/watch.c), so nothing here knows of spans, and there is no stack of frames that could run
 * under or over.
 *
 * 1. Bytes are counted as malloc_usable_size() has them, when they come and when they go: what is
 *    freed everywhere adds up to what was allocated everywhere.
 * 2. realloc that moves is a free and an allocation; in place it is an allocation of what was added
 *    or a free of what was taken away; when nothing changes it is neither.
 * 3. Looking for the next allocator may itself allocate: that memory comes from `early`, is never
 *    given back, and is not counted.
 * 4. A function of the allocator that calls another one of the family by its name comes through here
 *    twice; what the inner call counted is undone (`counts = before`).
 * 5. libpugmark's own work in the program's threads is undone in the same way (pug__alloc_here).
 * 6. Asking glibc for a size costs as much as half of a malloc, and all it does is to read the word in
 *    front of the block. So that word is read here, if at the start it says for blocks of many sizes
 *    what malloc_usable_size() says; any other allocator is asked.
 *
 * Nothing here locks, and nothing is done at fork: a child's thread goes on with its sums. */
#include "sdk/alloc.h"

#include "pugmark/alloc.h"

#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define PUBLIC __attribute__((visibility("default")))
#define EARLY_BYTES 16384
#define WORD_OF_PAGES ((size_t)2)
#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)
/* A function that is called all the time begins a line of the instruction cache, which holds it. */
#define OFTEN __attribute__((aligned(64)))
#define SELDOM __attribute__((noinline, cold))

/* The sums of bytes with ALLOC_BLOCK_EXTRA for each block. */
static __thread struct pug_alloc_counts counts
    __attribute__((tls_model("initial-exec"), aligned(sizeof(struct pug_alloc_counts))));

/* ---- the allocator below ---- */

static void *malloc_first(size_t n);
static void *calloc_first(size_t n, size_t size);

/* What every call looks at, on one line. */
static struct {
    /* A block up to this address is looked at closer (`_aside`): where words are read (6.) it is 0, so that
     * only NULL is, else the highest there is. */
    uintptr_t aside;
    uintptr_t counts_at; /* HERE */
    void *(*malloc)(size_t);
    void (*free)(void *);
    void *(*calloc)(size_t, size_t);
    void *(*realloc)(void *, size_t);
    void *(*memalign)(size_t, size_t);
    void *(*aligned_alloc)(size_t, size_t);
    int (*posix_memalign)(void **, size_t, size_t);
    void *(*valloc)(size_t);
    void *(*pvalloc)(size_t);
    size_t (*usable)(void *);
} next __attribute__((aligned(64))) = {
    .aside = UINTPTR_MAX, .malloc = malloc_first, .calloc = calloc_first};

static enum { UNKNOWN, ASKING, KNOWN } state;

static char early[EARLY_BYTES] __attribute__((aligned(16)));
static size_t early_used;

static bool is_early(const void *p)
{
    return (uintptr_t)p - (uintptr_t)early < EARLY_BYTES;
}

/* Zeros, for it is used once. In front of it stand its size and a word that free() takes for that of a block with pages of
 * its own, which it looks at closer. */
static void *early_alloc(size_t n)
{
    size_t room = (n + 31) & ~(size_t)15;
    if (room < n || room > EARLY_BYTES - early_used) {
        errno = ENOMEM;
        return NULL;
    }
    char *p = early + early_used;
    early_used += room;
    memcpy(p, &n, sizeof n);
    n = WORD_OF_PAGES;
    memcpy(p + 8, &n, sizeof n);
    return p + 16;
}

static size_t early_size(const void *p)
{
    size_t n;
    memcpy(&n, (const char *)p - 16, sizeof n);
    return n;
}

static void find(void *slot, const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);
    memcpy(slot, &found, sizeof found);
}

/* The first allocation of a process comes before its second thread. False: we are being asked from
 * within. */
static bool ask(void)
{
    if (state == ASKING)
        return false;
    int errno_before = errno;
    state = ASKING;
#if defined(__x86_64__)
    uintptr_t thread_pointer;
    __asm__("mov %%fs:0, %0" : "=r"(thread_pointer));
    next.counts_at = (uintptr_t)&counts - thread_pointer;
#endif
    find(&next.malloc, "malloc");
    find(&next.calloc, "calloc");
    find(&next.realloc, "realloc");
    find(&next.free, "free");
    find(&next.memalign, "memalign");
    find(&next.aligned_alloc, "aligned_alloc");
    find(&next.posix_memalign, "posix_memalign");
    find(&next.valloc, "valloc");
    find(&next.pvalloc, "pvalloc");
    find(&next.usable, "malloc_usable_size");
    errno = errno_before;
    if (!next.malloc || !next.calloc || !next.realloc || !next.free || !next.usable) {
        next.malloc = malloc_first;
        next.calloc = calloc_first;
        state = UNKNOWN; /* there is no allocator: every allocation fails */
        return false;
    }
    state = KNOWN;
    return true;
}

static inline bool known(void)
{
    return LIKELY(state == KNOWN) || ask();
}

static inline size_t word_of(const void *p)
{
    size_t word;
    __builtin_memcpy(&word, (const char *)p - sizeof word, sizeof word);
    return word;
}

/* Of a block without pages of its own: its bytes and ALLOC_BLOCK_EXTRA. */
static inline size_t word_more(size_t word)
{
    return word & ~(size_t)7;
}

#if defined(__x86_64__) && defined(__GLIBC__)
/* The lowest bits are flags; the second one says that the block has pages of its own, and then the
 * word behind it is not lent to it. */
static inline size_t word_size(const void *p)
{
    size_t word = word_of(p);
    if (LIKELY(!(word & WORD_OF_PAGES)))
        return word_more(word) - ALLOC_BLOCK_EXTRA;
    return word_more(word) - 2 * sizeof word;
}

static bool words_are_right(void)
{
    static const size_t sizes[] = {0, 1, 24, 25, 100, 1000, 1032, 5000, 70000, 200000, 3000000};
    bool right = true;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        void *p = next.malloc(sizes[i]);
        right = right && p && (uintptr_t)p % 16 == 0 && word_size(p) == next.usable(p);
        next.free(p);
    }
    return right;
}

/* Is the allocator below the C library's? Otherwise the word may not even be there to be read. */
static bool is_glibc(void)
{
    Dl_info ours, theirs;
    void *allocator, *of_libc = dlsym(RTLD_NEXT, "gnu_get_libc_version");
    memcpy(&allocator, &next.malloc, sizeof allocator);
    return of_libc && dladdr(allocator, &ours) && dladdr(of_libc, &theirs) &&
           ours.dli_fbase == theirs.dli_fbase;
}
#else
static inline size_t word_size(const void *p)
{
    (void)p;
    return 0;
}

static bool words_are_right(void)
{
    return false;
}

static bool is_glibc(void)
{
    return false;
}
#endif

static inline size_t size_of(void *p)
{
    return next.aside == 0 ? word_size(p) : next.usable(p);
}

__attribute__((constructor)) static void begin(void)
{
    int errno_before = errno;
    if (known() && is_glibc() && words_are_right())
        next.aside = 0;
    errno = errno_before;
}

/* ---- counting ---- */

/* This thread's sums. Where the language can say so, by their distance from the thread pointer, which stands on the line
 * that every call reads; the compiler's own way reads it from a line, and a page, of its own. */
#if defined(__SEG_FS) && defined(__x86_64__)
typedef struct pug_alloc_counts __seg_fs counts_here;
#define HERE ((counts_here *)next.counts_at)
#else
#define HERE (&counts)
#endif

/* `more`: the bytes and ALLOC_BLOCK_EXTRA. */
static inline void count_alloc_more(uint64_t more)
{
    HERE->alloc_count++;
    HERE->alloc_bytes += more;
}

static inline void count_free_more(uint64_t more)
{
    HERE->dealloc_count++;
    HERE->dealloc_bytes += more;
}

static inline void count_alloc(uint64_t bytes)
{
    count_alloc_more(bytes + ALLOC_BLOCK_EXTRA);
}

static inline void count_free(uint64_t bytes)
{
    count_free_more(bytes + ALLOC_BLOCK_EXTRA);
}

/* Of a block, or of none. */
static SELDOM void *counted_aside(void *p)
{
    if (p && !is_early(p))
        count_alloc(size_of(p));
    return p;
}

/* What the allocator gave: the fast half of counted_aside. */
static inline void *counted(void *p)
{
    if (UNLIKELY((uintptr_t)p <= next.aside))
        return counted_aside(p);
    size_t word = word_of(p);
    if (UNLIKELY(word & WORD_OF_PAGES))
        return counted_aside(p);
    count_alloc_more(word_more(word));
    return p;
}

PUBLIC struct pug_alloc_counts *pug__alloc_here(void);

struct pug_alloc_counts *pug__alloc_here(void)
{
    return &counts;
}

/* ---- the family ---- */

static SELDOM void *malloc_first(size_t n)
{
    return known() ? next.malloc(n) : early_alloc(n);
}

static SELDOM void *calloc_first(size_t n, size_t size)
{
    size_t bytes;
    if (known())
        return next.calloc(n, size);
    if (!__builtin_mul_overflow(n, size, &bytes))
        return early_alloc(bytes);
    errno = ENOMEM;
    return NULL;
}

OFTEN PUBLIC void *malloc(size_t n)
{
    return counted(next.malloc(n));
}

static SELDOM void free_aside(void *p)
{
    if (!p || is_early(p) || !known())
        return;
    count_free(size_of(p));
    next.free(p);
}

OFTEN PUBLIC void free(void *p)
{
    size_t word;
    if (UNLIKELY((uintptr_t)p <= next.aside)) {
        free_aside(p);
        return;
    }
    word = word_of(p);
    if (UNLIKELY(word & WORD_OF_PAGES)) {
        free_aside(p);
        return;
    }
    count_free_more(word_more(word));
    next.free(p);
}

OFTEN PUBLIC void *calloc(size_t n, size_t size)
{
    return counted(next.calloc(n, size));
}

static void *from_early(void *p, size_t n)
{
    size_t had = early_size(p);
    void *moved = malloc(n);
    if (moved)
        memcpy(moved, p, had < n ? had : n);
    return moved;
}

/* A block of `had` bytes became one of `has`. */
static inline void count_change(bool moved, size_t had, size_t has)
{
    if (moved) {
        count_free(had);
        count_alloc(has);
    } else if (has > had) {
        count_alloc(has - had);
    } else if (has < had) {
        count_free(had - has);
    }
}

static SELDOM void *realloc_aside(void *p, size_t n)
{
    if (!p)
        return malloc(n);
    if (is_early(p))
        return from_early(p, n);
    if (!known()) {
        errno = ENOMEM;
        return NULL;
    }
    size_t had = size_of(p);
    struct pug_alloc_counts before = counts;
    uintptr_t was = (uintptr_t)p;
    void *got = next.realloc(p, n);
    counts = before;
    if (got)
        count_change((uintptr_t)got != was, had, size_of(got));
    else if (n == 0) /* freed, as glibc has it */
        count_free(had);
    return got;
}

/* The C library's calls no other function of the family by its name: there is nothing to undo. */
OFTEN PUBLIC void *realloc(void *p, size_t n)
{
    size_t had, has;
    uintptr_t was = (uintptr_t)p;
    if (UNLIKELY(was <= next.aside) || UNLIKELY((had = word_of(p)) & WORD_OF_PAGES))
        return realloc_aside(p, n);
    void *got = next.realloc(p, n);
    if (UNLIKELY(!got)) {
        if (n == 0)
            count_free_more(word_more(had));
        return NULL;
    }
    has = word_of(got);
    has = UNLIKELY(has & WORD_OF_PAGES) ? word_size(got) : word_more(has) - ALLOC_BLOCK_EXTRA;
    count_change((uintptr_t)got != was, word_more(had) - ALLOC_BLOCK_EXTRA, has);
    return got;
}

PUBLIC void *reallocarray(void *p, size_t n, size_t size)
{
    size_t bytes;
    if (!__builtin_mul_overflow(n, size, &bytes))
        return realloc(p, bytes);
    errno = ENOMEM;
    return NULL;
}

/* What one of the rarer functions gave. */
static void *counted_once(void *p, struct pug_alloc_counts before)
{
    counts = before;
    return counted(p);
}

static void *missing(void)
{
    errno = ENOMEM;
    return NULL;
}

PUBLIC void *memalign(size_t alignment, size_t n)
{
    struct pug_alloc_counts before = counts;
    return known() && next.memalign ? counted_once(next.memalign(alignment, n), before) : missing();
}

PUBLIC void *aligned_alloc(size_t alignment, size_t n)
{
    struct pug_alloc_counts before = counts;
    return known() && next.aligned_alloc ? counted_once(next.aligned_alloc(alignment, n), before)
                                         : missing();
}

PUBLIC int posix_memalign(void **ret, size_t alignment, size_t n)
{
    struct pug_alloc_counts before = counts;
    if (!known() || !next.posix_memalign)
        return ENOMEM;
    int e = next.posix_memalign(ret, alignment, n);
    counts = before;
    if (e == 0)
        counted(*ret);
    return e;
}

PUBLIC void *valloc(size_t n)
{
    struct pug_alloc_counts before = counts;
    return known() && next.valloc ? counted_once(next.valloc(n), before) : missing();
}

PUBLIC void *pvalloc(size_t n)
{
    struct pug_alloc_counts before = counts;
    return known() && next.pvalloc ? counted_once(next.pvalloc(n), before) : missing();
}

PUBLIC size_t malloc_usable_size(void *p)
{
    if (!p)
        return 0;
    if (is_early(p))
        return early_size(p);
    return known() ? next.usable(p) : 0;
}
