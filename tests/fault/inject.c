/* Preloaded into the server: lets the n-th call of one kind fail.
 *
 * FAULT_KIND names the kind, FAULT_NTH says which call of it, from 1, and FAULT_REACHED is a file that is made when that
 * call came. Without a kind nothing fails. FAULT_COUNTS is a file that gets "KIND NUMBER" lines when the process exits:
 * how many calls of each there were. Calls about files count, not those about sockets; allocations count when the
 * program makes them itself, not a library. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* What is counted. */
enum what { OPEN, READ, WRITE, SYNC, RENAME, TRUNCATE, REMOVE, MAP, THREAD, MEMORY, WHATS };

/* How it fails. */
enum how { ERROR, SHORT, TORN, FULL, INTERRUPT };
static const struct {
    const char *name;
    enum what what;
    enum how how;
} kinds[] = {
    {"open", OPEN, ERROR},
    {"read", READ, ERROR},
    {"write", WRITE, ERROR},
    {"sync", SYNC, ERROR},
    {"rename", RENAME, ERROR},
    {"truncate", TRUNCATE, ERROR},
    {"remove", REMOVE, ERROR},
    {"map", MAP, ERROR},
    {"thread", THREAD, ERROR},
    {"memory", MEMORY, ERROR},
    {"short", WRITE, SHORT},
    {"torn", WRITE, TORN},
    {"full", WRITE, FULL},
    {"interrupted-write", WRITE, INTERRUPT},
    {"interrupted-read", READ, INTERRUPT},
    {"interrupted-open", OPEN, INTERRUPT},
};

enum { FULL_FOR = 25 }; /* writes, then there is room again */

static atomic_ulong counts[WHATS];
static enum what failing = WHATS;
static enum how how;
static unsigned long nth;
static const char *reached, *counts_file;
static uintptr_t program_start, program_end;
static pid_t own; /* a child that is forked and not yet another program counts no more */

static void note(const char *path)
{
    long fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd >= 0)
        syscall(SYS_close, fd);
}

/* Counts a call; true: it is to fail. */
static bool fails(enum what what)
{
    unsigned long n = atomic_fetch_add(&counts[what], 1) + 1;
    if (what != failing || n < nth || n >= nth + (how == FULL ? FULL_FOR : 1))
        return false;
    if (n == nth && reached)
        note(reached);
    return true;
}

static bool is_file(int fd)
{
    struct stat st;
    int before = errno;
    bool yes = fd > STDERR_FILENO && fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
    errno = before;
    return yes;
}

#define NEXT(name)                                                                                 \
    static __typeof__(name) *next;                                                                 \
    if (!next)                                                                                     \
    next = (__typeof__(name) *)(uintptr_t)dlsym(RTLD_NEXT, #name)

static int program_find(struct dl_phdr_info *info, size_t size, void *arg)
{
    (void)size, (void)arg;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        if (p->p_type == PT_LOAD && (p->p_flags & PF_X)) {
            program_start = info->dlpi_addr + p->p_vaddr;
            program_end = program_start + p->p_memsz;
        }
    }
    return 1; /* the program comes first */
}

__attribute__((constructor)) static void start(void)
{
    const char *kind = getenv("FAULT_KIND"), *n = getenv("FAULT_NTH");
    reached = getenv("FAULT_REACHED");
    counts_file = getenv("FAULT_COUNTS");
    nth = n ? strtoul(n, NULL, 10) : 0;
    own = getpid();
    dl_iterate_phdr(program_find, NULL);
    for (int i = 0; i < WHATS; i++)
        atomic_store(&counts[i], 0);
    for (size_t i = 0; kind && i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(kind, kinds[i].name) == 0) {
            how = kinds[i].how;
            failing = kinds[i].what;
        }
    }
}

__attribute__((destructor)) static void finish(void)
{
    if (!counts_file || getpid() != own)
        return;
    failing = WHATS;
    unsigned long n[WHATS];
    for (int i = 0; i < WHATS; i++)
        n[i] = atomic_load(&counts[i]);
    FILE *out = fopen(counts_file, "w");
    for (size_t i = 0; out && i < sizeof kinds / sizeof *kinds; i++)
        fprintf(out, "%s %lu\n", kinds[i].name, n[kinds[i].what]);
    if (out)
        fclose(out);
}

/* ---- opening ---- */

static int opened_wrong(void)
{
    errno = how == INTERRUPT ? EINTR : EMFILE;
    return -1;
}

#define OPEN_MODE(flags, last)                                                                     \
    va_list args;                                                                                  \
    va_start(args, last);                                                                          \
    mode_t mode = (flags) & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0;                      \
    va_end(args)

int open64(const char *path, int flags, ...)
{
    NEXT(open64);
    OPEN_MODE(flags, flags);
    return fails(OPEN) ? opened_wrong() : next(path, flags, mode);
}

int openat64(int dir, const char *path, int flags, ...)
{
    NEXT(openat64);
    OPEN_MODE(flags, flags);
    return fails(OPEN) ? opened_wrong() : next(dir, path, flags, mode);
}

/* ---- reading ---- */

static ssize_t read_wrong(void)
{
    errno = how == INTERRUPT ? EINTR : EIO;
    return -1;
}

ssize_t read(int fd, void *to, size_t n)
{
    NEXT(read);
    return is_file(fd) && fails(READ) ? read_wrong() : next(fd, to, n);
}

ssize_t pread64(int fd, void *to, size_t n, off64_t at)
{
    NEXT(pread64);
    return is_file(fd) && fails(READ) ? read_wrong() : next(fd, to, n, at);
}

/* ---- writing ---- */

/* Half of it is written when it comes to that; what the caller is told. */
static ssize_t write_wrong(int fd, const struct iovec *v, int n, off64_t at)
{
    size_t total = 0;
    for (int i = 0; i < n; i++)
        total += v[i].iov_len;
    size_t left = how == SHORT || how == TORN ? total / 2 : 0, wrote = 0;
    for (int i = 0; i < n && left; i++) {
        size_t part = v[i].iov_len < left ? v[i].iov_len : left;
        long got = at < 0 ? syscall(SYS_write, fd, v[i].iov_base, part)
                          : syscall(SYS_pwrite64, fd, v[i].iov_base, part, at + (off64_t)wrote);
        if (got < 0)
            return -1;
        wrote += (size_t)got;
        left -= part;
    }
    if (how == SHORT && wrote)
        return (ssize_t)wrote;
    errno = how == INTERRUPT ? EINTR : how == ERROR ? EIO : ENOSPC;
    return -1;
}

ssize_t write(int fd, const void *from, size_t n)
{
    NEXT(write);
    struct iovec v = {(void *)(uintptr_t)from, n};
    return is_file(fd) && fails(WRITE) ? write_wrong(fd, &v, 1, -1) : next(fd, from, n);
}

ssize_t pwrite64(int fd, const void *from, size_t n, off64_t at)
{
    NEXT(pwrite64);
    struct iovec v = {(void *)(uintptr_t)from, n};
    return is_file(fd) && fails(WRITE) ? write_wrong(fd, &v, 1, at) : next(fd, from, n, at);
}

ssize_t writev(int fd, const struct iovec *v, int n)
{
    NEXT(writev);
    return is_file(fd) && fails(WRITE) ? write_wrong(fd, v, n, -1) : next(fd, v, n);
}

/* ---- what has one way to fail ---- */

#define FAILS(what, error, name, params, args)                                                     \
    int name params                                                                                \
    {                                                                                              \
        NEXT(name);                                                                                \
        if (fails(what)) {                                                                         \
            errno = error;                                                                         \
            return -1;                                                                             \
        }                                                                                          \
        return next args;                                                                          \
    }

FAILS(SYNC, EIO, fsync, (int fd), (fd))
FAILS(SYNC, EIO, fdatasync, (int fd), (fd))
FAILS(RENAME, EIO, rename, (const char *a, const char *b), (a, b))
FAILS(RENAME, EIO, renameat, (int a, const char *b, int c, const char *d), (a, b, c, d))
FAILS(TRUNCATE, EIO, ftruncate64, (int fd, off64_t n), (fd, n))
FAILS(REMOVE, EIO, unlink, (const char *a), (a))
FAILS(REMOVE, EIO, unlinkat, (int a, const char *b, int c), (a, b, c))

void *mmap64(void *at, size_t n, int protection, int flags, int fd, off64_t offset)
{
    NEXT(mmap64);
    if (fails(MAP)) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    return next(at, n, protection, flags, fd, offset);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *), void *arg)
{
    NEXT(pthread_create);
    return fails(THREAD) ? EAGAIN : next(thread, attr, fn, arg);
}

/* ---- memory: glibc's own names, because dlsym allocates ---- */

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t m);
void *__libc_realloc(void *p, size_t n);

#define MEMORY_FAILS()                                                                             \
    ((uintptr_t)__builtin_return_address(0) >= program_start &&                                    \
     (uintptr_t)__builtin_return_address(0) < program_end && fails(MEMORY))

void *malloc(size_t n)
{
    if (MEMORY_FAILS()) {
        errno = ENOMEM;
        return NULL;
    }
    return __libc_malloc(n);
}

void *calloc(size_t n, size_t m)
{
    if (MEMORY_FAILS()) {
        errno = ENOMEM;
        return NULL;
    }
    return __libc_calloc(n, m);
}

void *realloc(void *p, size_t n)
{
    if (MEMORY_FAILS()) {
        errno = ENOMEM;
        return NULL;
    }
    return __libc_realloc(p, n);
}
