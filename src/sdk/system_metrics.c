#include "sdk/system_metrics.h"

#include "base/clock.h"
#include "base/str.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A small file of /proc, terminated; its length, or 0. */
static size_t read_small(const char *path, char *out, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, out, size - 1);
    close(fd);
    if (n <= 0)
        return 0;
    out[n] = '\0';
    return (size_t)n;
}

/* The nth number, from 1, of those that spaces divide. */
static bool field(const char *text, int nth, uint64_t *ret)
{
    for (int i = 1; text && i < nth; i++) {
        text = strchr(text, ' ');
        text = text ? text + 1 : NULL;
    }
    char *end = NULL;
    uint64_t value = text ? strtoull(text, &end, 10) : 0;
    if (!text || end == text)
        return false;
    *ret = value;
    return true;
}

static void sample_memory(struct system_sample *s)
{
    char text[128];
    uint64_t pages;
    if (read_small("/proc/self/statm", text, sizeof text) && field(text, 2, &pages)) {
        s->rss_bytes = pages * (uint64_t)sysconf(_SC_PAGESIZE);
        s->has_rss = true;
    }
}

/* proc(5): the name in brackets may hold anything; behind its last bracket the third field is the
 * first. Gives how long the process has been there, or 0. */
static uint64_t sample_threads(struct system_sample *s)
{
    char text[1024];
    uint64_t started;
    const char *behind = read_small("/proc/self/stat", text, sizeof text) ? strrchr(text, ')')
                                                                          : NULL;
    if (!behind || behind[1] == '\0')
        return 0;
    s->has_threads = field(behind + 2, 20 - 2, &s->thread_count);
    if (!field(behind + 2, 22 - 2, &started))
        return 0;
    uint64_t hz = (uint64_t)sysconf(_SC_CLK_TCK);
    uint64_t begun = started / hz * NS_PER_S + started % hz * NS_PER_S / hz,
             now = clock_ns(CLOCK_BOOTTIME);
    return now > begun ? now - begun : 0;
}

static void sample_cpu(struct system_metrics *m, struct system_sample *s, uint64_t age_ns)
{
    uint64_t cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID), now = clock_monotonic_ns();
    uint64_t passed = m->time_ns ? now - m->time_ns : age_ns;
    if (passed && cpu >= m->cpu_ns) {
        s->cpu_percent = 100.0 * (double)(cpu - m->cpu_ns) / (double)passed;
        s->has_cpu = true;
    }
    m->cpu_ns = cpu;
    m->time_ns = now;
}

/* getdents64(2) into a buffer of ours: opendir would allocate. */
static bool count_entries(int fd, uint64_t *ret)
{
    char entries[8192] __attribute__((aligned(8)));
    uint64_t n = 0;
    while (n < SYSTEM_FDS_MAX) {
        long got = syscall(SYS_getdents64, fd, entries, sizeof entries);
        if (got < 0)
            return false;
        if (got == 0)
            break;
        for (long at = 0; at < got;) {
            const struct dirent64 *e = (const void *)(entries + at);
            n += e->d_name[0] != '.';
            at += e->d_reclen;
        }
    }
    *ret = n < SYSTEM_FDS_MAX ? n : SYSTEM_FDS_MAX;
    return true;
}

static void sample_fds(struct system_sample *s)
{
    struct stat st;
    if (stat("/proc/self/fd", &st) == 0 && st.st_size > 0) { /* Linux 6.2 and later */
        s->fd_count = (uint64_t)st.st_size;
        s->has_fds = true;
        return;
    }
    int fd = open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return;
    s->has_fds = count_entries(fd, &s->fd_count);
    close(fd);
    if (s->has_fds && s->fd_count) /* that of the directory */
        s->fd_count--;
}

void system_metrics_sample(struct system_metrics *m, struct system_sample *ret)
{
    *ret = (struct system_sample){.has_rss = false};
    sample_memory(ret);
    sample_cpu(m, ret, sample_threads(ret));
    sample_fds(ret);
}
