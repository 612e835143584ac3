/* What the process uses of the machine. From /proc and the process's clock; a few system calls. */
#ifndef SDK_SYSTEM_METRICS_H
#define SDK_SYSTEM_METRICS_H

#include <stdbool.h>
#include <stdint.h>

/* Descriptors are counted up to here where the kernel does not count them itself (before 6.2), so
 * that a server with a million connections is not held up. */
#define SYSTEM_FDS_MAX 16384

/* All zeros: no sample taken yet. */
struct system_metrics {
    uint64_t cpu_ns, time_ns; /* at the last sample */
};

struct system_sample {
    bool has_rss, has_cpu, has_threads, has_fds;
    uint64_t rss_bytes;
    double cpu_percent; /* of one processor, since the last sample; at first since the start */
    uint64_t thread_count;
    uint64_t fd_count; /* at most SYSTEM_FDS_MAX where they had to be counted one by one */
};

/* What cannot be had (no /proc, no descriptor left) is left out. */
void system_metrics_sample(struct system_metrics *m, struct system_sample *ret);

#endif
