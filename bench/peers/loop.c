/* Turns of the same loop around each way to mark the begin and the end of a piece of work: the floor
 * (two clock reads and a 32-byte store), Pugmark, and the peer this was compiled with (PEER_LTTNG or
 * PEER_UFTRACE). Bursts take turns within one thread, so all see the same machine. Between bursts
 * everybody's consumer catches up.
 *
 *     loop CPU BURST ROUNDS
 *
 * prints `floor NS`, `pugmark NS`, `peer NS` (medians of a pair), `spans N` (pairs the peer was given)
 * and `lost N` (spans Pugmark lost). */
#define _GNU_SOURCE
#include <pugmark/pugmark.h>

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#ifdef PEER_LTTNG
#define LTTNG_UST_TRACEPOINT_DEFINE
#define LTTNG_UST_TRACEPOINT_CREATE_PROBES
#include "lttng.h"
#define PEER_BEGIN() lttng_ust_tracepoint(pugmark_peer, begin)
#define PEER_END() lttng_ust_tracepoint(pugmark_peer, end)
#endif

#define BARRIER() __asm__ volatile("" ::: "memory")
#define PLAIN __attribute__((noinline, no_instrument_function))

enum { RING = 256 << 10, ROUNDS_MAX = 1000 };

PLAIN static double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

PLAIN static unsigned long long ticks(void)
{
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#else
    return (unsigned long long)now_ns();
#endif
}

PLAIN static void burst_floor(char *ring, int n)
{
    static unsigned long long head;
    for (int i = 0; i < n; i++) {
        unsigned long long start = ticks();
        BARRIER();
        unsigned long long end = ticks(),
                           *r = (unsigned long long *)(void *)(ring + (head & (RING - 1)));
        r[0] = start;
        r[1] = end;
        r[2] = head;
        r[3] = (unsigned long long)i;
        __atomic_store_n(&head, head + 32, __ATOMIC_RELEASE);
    }
}

PLAIN static void burst_pugmark(int n)
{
    for (int i = 0; i < n; i++) {
        PUG_SPAN("bench.span");
        BARRIER();
    }
}

#ifdef PEER_UFTRACE
/* The only function that is compiled to be traced. */
__attribute__((noinline)) void traced(void);
__attribute__((noinline)) void traced(void)
{
    BARRIER();
}
#endif

PLAIN static void burst_peer(int n)
{
    for (int i = 0; i < n; i++) {
#ifdef PEER_LTTNG
        PEER_BEGIN();
        BARRIER();
        PEER_END();
#else
        traced();
#endif
    }
}

PLAIN static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

PLAIN static double median(double *values, int n)
{
    qsort(values, (size_t)n, sizeof *values, by_value);
    return values[n / 2];
}

PLAIN int main(int argc, char **argv)
{
    static double floor_ns[ROUNDS_MAX], pugmark_ns[ROUNDS_MAX], peer_ns[ROUNDS_MAX];
    int cpu = argc > 1 ? atoi(argv[1]) : 0, burst = argc > 2 ? atoi(argv[2]) : 10000;
    int rounds = argc > 3 && atoi(argv[3]) <= ROUNDS_MAX ? atoi(argv[3]) : 100;
    char *ring = aligned_alloc(4096, RING);
    cpu_set_t set;
    struct pug_options o = {
        .size = sizeof o, .tracing = PUG_TRACING_ON, .backend = PUG_BACKEND_DISCARD};
    CPU_ZERO(&set);
    CPU_SET(0, &set);
    sched_setaffinity(0, sizeof set, &set); /* for the threads to come */
    if (!ring || pug_start(&o) != 0 || !pug_on())
        return 1;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    sched_setaffinity(0, sizeof set, &set);
    for (int i = 0; i < 6; i++) { /* once around every ring */
        burst_floor(ring, burst);
        burst_pugmark(burst);
        burst_peer(burst);
        pug_flush(2000);
        usleep(100000);
    }
    for (int i = 0; i < rounds; i++) {
        double at[4];
        at[0] = now_ns();
        burst_floor(ring, burst);
        at[1] = now_ns();
        burst_pugmark(burst);
        at[2] = now_ns();
        burst_peer(burst);
        at[3] = now_ns();
        floor_ns[i] = (at[1] - at[0]) / burst;
        pugmark_ns[i] = (at[2] - at[1]) / burst;
        peer_ns[i] = (at[3] - at[2]) / burst;
        pug_flush(2000);
        usleep(20000);
    }
    struct pug_counts c = {.size = sizeof c};
    pug_counts_read(&c);
    printf("floor %.2f\npugmark %.2f\npeer %.2f\nspans %d\nlost %llu\n", median(floor_ns, rounds),
           median(pugmark_ns, rounds), median(peer_ns, rounds), burst * (rounds + 6),
           (unsigned long long)(c.lost_ring_full + c.lost_no_lane + c.lost_depth));
    pug_stop();
    return 0;
}
