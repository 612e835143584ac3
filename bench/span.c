/* What a span costs, against the floor: two bare reads of the clock and a 32-byte store into a
 * ring, with no library around them.
 *
 * Floor, 0 attributes and 2 attributes take turns, burst by burst, in the same thread, while the
 * library's own drain reads what was recorded (backend `discard`: it reads and counts every record
 * and encodes nothing). A burst fits into the ring; between bursts the drain catches up. Values
 * are medians over the bursts; the ratio is that of the medians. One span that was dropped makes
 * the figure worthless, so drops are printed and the program fails when there are any in the
 * bursts. `sustained` is back to back for a second, where the drain has to keep up.
 *
 * What a few instructions cost depends on where the compiler has put them (lines of the cache, taken
 * branches): 2.6 or 3.3 ns for the same ones. So each loop is there PLACES times, 4 bytes further on each
 * time, and the bursts go through them in turns: the median is over all of them, and where it is a matter
 * of such few nanoseconds, that of the dearest place is beside it.
 *
 * "Off" is measured before pug_start. What is not kept is measured after all else, with a sampler
 * that keeps nothing, with one that keeps hardly anything, and with one that keeps one trace in a
 * hundred, which are then part of the figure. */
#include "pugmark/pugmark.h"
#include "report.h"

#include "base/clock.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    BURST = 8000,
    ROUNDS = 240,
    PLACES = 16, /* EACH_PLACE */
    FLOOR_RING = 256 << 10,
    THREADS_MAX = 2,
};

#define BARRIER() __asm__ volatile("" ::: "memory")

struct floor_record {
    uint64_t start, end, a, b;
};

static uint64_t clock_ticks(void)
{
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#else
    return clock_monotonic_ns();
#endif
}

static __attribute__((noinline)) void burst_floor(char *ring, uint64_t *head, int n)
{
    for (int i = 0; i < n; i++) {
        uint64_t start = clock_ticks();
        BARRIER();
        uint64_t end = clock_ticks(), at = *head;
        struct floor_record *r = (struct floor_record *)(void *)(ring + (at & (FLOOR_RING - 1)));
        *r = (struct floor_record){start, end, at, (uint64_t)i};
        __atomic_store_n(head, at + sizeof *r, __ATOMIC_RELEASE);
    }
}

/* The nops are gone through once a burst. */
#define AT_PLACE(k) __asm__ volatile(".p2align 6\n\t.rept 4 * " #k "\n\tnop\n\t.endr")

#define EACH_PLACE(M)                                                                              \
    M(0) M(1) M(2) M(3) M(4) M(5) M(6) M(7) M(8) M(9) M(10) M(11) M(12) M(13) M(14) M(15)

#define BURSTS(k)                                                                                  \
    static __attribute__((noinline)) void burst_span_at_##k(int n, const char *text)               \
    {                                                                                              \
        (void)text;                                                                                \
        AT_PLACE(k);                                                                               \
        for (int i = 0; i < n; i++) {                                                              \
            PUG_SPAN("bench.span");                                                                \
            BARRIER();                                                                             \
        }                                                                                          \
    }                                                                                              \
    static __attribute__((noinline)) void burst_span_2_at_##k(int n, const char *text)             \
    {                                                                                              \
        AT_PLACE(k);                                                                               \
        for (int i = 0; i < n; i++) {                                                              \
            PUG_SPAN("bench.span2", PUG_INT("number", i), PUG_STR("text", text));                  \
            BARRIER();                                                                             \
        }                                                                                          \
    }
EACH_PLACE(BURSTS)

typedef void burst_fn(int n, const char *text);
#define ADDRESS(k) burst_span_at_##k,
#define ADDRESS_2(k) burst_span_2_at_##k,
static burst_fn *const spans_at[PLACES] = {EACH_PLACE(ADDRESS)};
static burst_fn *const spans_2_at[PLACES] = {EACH_PLACE(ADDRESS_2)};

static void burst_span(int round, int n)
{
    spans_at[round % PLACES](n, NULL);
}

static void burst_span_2(int round, int n, const char *text)
{
    spans_2_at[round % PLACES](n, text);
}

static __attribute__((noinline)) void burst_empty(int n)
{
    for (int i = 0; i < n; i++)
        BARRIER();
}

/* ---- medians ---- */

struct series {
    double *values;
    int n;
};

static struct series series_new(int n)
{
    struct series s = {calloc((size_t)n, sizeof(double)), 0};
    if (!s.values)
        exit(1);
    return s;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(struct series *s)
{
    qsort(s->values, (size_t)s->n, sizeof(double), by_value);
    return s->values[s->n / 2];
}

/* ---- a thread's share ---- */

struct figures {
    struct series floor, zero, two, off, empty;
};

struct worker {
    pthread_t thread;
    int cpu;
    bool on;
    pthread_barrier_t *together;
    struct figures f;
};

/* Until the drain has read everything: the machine may be busy with other things. */
static void pause_for_drain(void)
{
    if (pug_flush(5000) != 0)
        exit(1);
}

static void add(struct series *s, uint64_t start_ns, int n)
{
    s->values[s->n++] = (double)(clock_monotonic_ns() - start_ns) / n;
}

static void *work(void *arg)
{
    struct worker *w = arg;
    static const char *const texts[] = {"short", "value"};
    char *ring = aligned_alloc(4096, FLOOR_RING);
    uint64_t head = 0, start;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(w->cpu, &set);
    pthread_setaffinity_np(pthread_self(), sizeof set, &set);
    if (!ring)
        exit(1);
    burst_floor(ring, &head, BURST);
    if (w->on) {
        /* Once around the ring: the first touch of its pages is not what is measured. */
        for (int i = 0; i < 8; i++) {
            burst_span(2 * i, BURST);
            pause_for_drain();
        }
        burst_span_2(0, BURST, texts[0]);
        pause_for_drain();
    }
    for (int round = 0; round < ROUNDS; round++) {
        pthread_barrier_wait(w->together);
        start = clock_monotonic_ns();
        burst_floor(ring, &head, BURST);
        add(&w->f.floor, start, BURST);
        if (!w->on) {
            start = clock_monotonic_ns();
            burst_empty(BURST);
            add(&w->f.empty, start, BURST);
            start = clock_monotonic_ns();
            burst_span(round, BURST);
            add(&w->f.off, start, BURST);
            continue;
        }
        start = clock_monotonic_ns();
        burst_span(round, BURST);
        add(&w->f.zero, start, BURST);
        pause_for_drain();
        pthread_barrier_wait(w->together);
        start = clock_monotonic_ns();
        burst_span_2(round, BURST, texts[round & 1]);
        add(&w->f.two, start, BURST);
        pause_for_drain();
    }
    free(ring);
    return NULL;
}

/* Medians of all threads' bursts. */
static struct figures run(int threads, bool on)
{
    struct worker workers[THREADS_MAX];
    pthread_barrier_t together;
    struct figures all;
    struct series *into[5] = {&all.floor, &all.zero, &all.two, &all.off, &all.empty};
    pthread_barrier_init(&together, NULL, (unsigned)threads);
    for (int i = 0; i < 5; i++)
        *into[i] = series_new(ROUNDS * THREADS_MAX);
    for (int t = 0; t < threads; t++) {
        /* The drain stays on the first processor when there is one thread. */
        int cpu = threads == 1 ? (int)sysconf(_SC_NPROCESSORS_ONLN) - 1 : t;
        workers[t] = (struct worker){.cpu = cpu, .on = on, .together = &together};
        struct series *own[5] = {&workers[t].f.floor, &workers[t].f.zero, &workers[t].f.two,
                                 &workers[t].f.off, &workers[t].f.empty};
        for (int i = 0; i < 5; i++)
            *own[i] = series_new(ROUNDS);
        pthread_create(&workers[t].thread, NULL, work, &workers[t]);
    }
    for (int t = 0; t < threads; t++) {
        pthread_join(workers[t].thread, NULL);
        struct series *own[5] = {&workers[t].f.floor, &workers[t].f.zero, &workers[t].f.two,
                                 &workers[t].f.off, &workers[t].f.empty};
        for (int i = 0; i < 5; i++) {
            for (int k = 0; k < own[i]->n; k++)
                into[i]->values[into[i]->n++] = own[i]->values[k];
            free(own[i]->values);
        }
    }
    pthread_barrier_destroy(&together);
    return all;
}

static uint64_t lost(void)
{
    struct pug_counts c = {.size = sizeof c};
    pug_counts_read(&c);
    return c.lost_ring_full + c.lost_depth + c.lost_no_lane + c.lost_interrupt + c.lost_memory;
}

static struct pug_options options(size_t ring_bytes)
{
    return (struct pug_options){.size = sizeof(struct pug_options),
                                .tracing = PUG_TRACING_ON,
                                .backend = PUG_BACKEND_DISCARD,
                                .ring_bytes = ring_bytes,
                                .drain_interval_us = 1000};
}

/* The drain is put on the first processor, where it stays: left to the scheduler it is now on the
 * processor of the spans and now on another one, and only the latter is what programs see. */
static void start(size_t ring_bytes)
{
    struct pug_options o = options(ring_bytes);
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(0, &set);
    pthread_setaffinity_np(pthread_self(), sizeof set, &set);
    if (pug_start(&o) != 0 || !pug_on()) {
        fprintf(stderr, "bench: tracing did not start\n");
        exit(1);
    }
}

struct sustained {
    double ns, dropped; /* per span; percent */
    uint64_t spans;
    bool whole; /* what is not recorded was counted as lost */
};

static void stay_on_last(void)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((int)sysconf(_SC_NPROCESSORS_ONLN) - 1, &set);
    pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}

static void *sustain(void *arg)
{
    struct sustained *s = arg;
    stay_on_last();
    uint64_t begin, now;
    /* Once around the ring first; it counts for the sums, not for the time. */
    burst_span(0, 300000);
    s->spans = 300000;
    pug_flush(5000);
    begin = clock_monotonic_ns();
    uint64_t timed = 0, before = lost();
    do {
        burst_span((int)(timed / BURST), BURST);
        timed += BURST;
        now = clock_monotonic_ns();
    } while (now - begin < NS_PER_S);
    s->ns = (double)(now - begin) / (double)timed;
    s->dropped = 100.0 * (double)(lost() - before) / (double)timed;
    s->spans += timed;
    return NULL;
}

static struct sustained sustained(void)
{
    struct sustained s = {.spans = 0};
    int result[2];
    if (pipe(result) != 0)
        exit(1);
    pid_t pid = fork();
    if (pid == 0) {
        struct pug_counts c = {.size = sizeof c};
        pthread_t thread;
        start(8u << 20);
        pthread_create(&thread, NULL, sustain, &s);
        pthread_join(thread, NULL);
        pug_flush(5000);
        pug_counts_read(&c);
        s.whole = c.recorded + lost() == s.spans;
        pug_stop();
        _exit(write(result[1], &s, sizeof s) == (ssize_t)sizeof s ? 0 : 1);
    }
    close(result[1]);
    if (read(result[0], &s, sizeof s) != (ssize_t)sizeof s)
        exit(1);
    close(result[0]);
    waitpid(pid, NULL, 0);
    return s;
}

/* ---- traces that are not kept ---- */

enum { UNSAMPLED_ROUNDS = 160, UNSAMPLED_KINDS = 7 };

enum unsampled_kind {
    BELOW,
    BELOW_2,
    ROOT_OFF,
    ROOT_OFF_2,
    ROOT_RARE,
    ROOT_RARE_2,
    ROOT_PERCENT,
};

static const char *const unsampled_names[UNSAMPLED_KINDS] = {
    "span below an unsampled root, 0 attributes",
    "span below an unsampled root, 2 attributes",
    "unsampled root, always_off, 0 attributes",
    "unsampled root, always_off, 2 attributes",
    "unsampled root, ratio 1 in a million, 0 attributes",
    "unsampled root, ratio 1 in a million, 2 attributes",
    "root, ratio 1 %, the kept ones among them"};

/* A burst of each place in turns; those of one place stand together. */
enum { PLACE_ROUNDS = UNSAMPLED_ROUNDS / PLACES };
struct placed {
    double ns[UNSAMPLED_ROUNDS];
};

static void restart(const char *sampler)
{
    struct pug_options o = options(0);
    o.sampler = sampler;
    pug_stop();
    if (pug_start(&o) != 0 || !pug_on()) {
        fprintf(stderr, "bench: tracing did not start\n");
        exit(1);
    }
}

static void placed_burst(struct placed *p, int round, burst_fn *const bursts[PLACES])
{
    uint64_t start_ns = clock_monotonic_ns();
    bursts[round % PLACES](BURST, "value");
    p->ns[round % PLACES * PLACE_ROUNDS + round / PLACES] =
        (double)(clock_monotonic_ns() - start_ns) / BURST;
}

/* A thread of its own, as the others have: its lane must not have open spans of before. */
static void *unsampled_bursts(void *arg)
{
    struct placed *all = arg;
    stay_on_last();
    for (int round = 0; round < UNSAMPLED_ROUNDS; round++) {
        {
            PUG_SPAN("bench.root");
            placed_burst(&all[BELOW], round, spans_at);
            placed_burst(&all[BELOW_2], round, spans_2_at);
        }
        placed_burst(&all[ROOT_OFF], round, spans_at);
        placed_burst(&all[ROOT_OFF_2], round, spans_2_at);
    }
    return NULL;
}

static void *rare_bursts(void *arg)
{
    struct placed *all = arg;
    stay_on_last();
    for (int round = 0; round < UNSAMPLED_ROUNDS; round++) {
        placed_burst(&all[ROOT_RARE], round, spans_at);
        placed_burst(&all[ROOT_RARE_2], round, spans_2_at);
    }
    return NULL;
}

static void *percent_bursts(void *arg)
{
    struct placed *all = arg;
    stay_on_last();
    for (int round = 0; round < UNSAMPLED_ROUNDS; round++)
        placed_burst(&all[ROOT_PERCENT], round, spans_at);
    return NULL;
}

/* Of all bursts, and of the place where it is highest. */
static void placed_medians(struct placed *p, double *ret_all, double *ret_dearest)
{
    *ret_dearest = 0;
    for (int place = 0; place < PLACES; place++) {
        double here = median(&(struct series){&p->ns[place * PLACE_ROUNDS], PLACE_ROUNDS});
        *ret_dearest = here > *ret_dearest ? here : *ret_dearest;
    }
    *ret_all = median(&(struct series){p->ns, UNSAMPLED_ROUNDS});
}

static void unsampled(struct report *report, double floor_ns)
{
    static struct placed all[UNSAMPLED_KINDS];
    static const struct {
        const char *sampler;
        void *(*bursts)(void *);
    } parts[] = {{"always_off", unsampled_bursts},
                 {"ratio:0.000001", rare_bursts},
                 {"ratio:0.01", percent_bursts}};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        pthread_t thread;
        restart(parts[i].sampler);
        pthread_create(&thread, NULL, parts[i].bursts, all);
        pthread_join(thread, NULL);
    }
    for (int i = 0; i < UNSAMPLED_KINDS; i++) {
        double ns, dearest;
        char *at_dearest;
        placed_medians(&all[i], &ns, &dearest);
        report_row(report, unsampled_names[i], ns, "ns");
        report_ratio(report, "floor", floor_ns);
        if (asprintf(&at_dearest, "%s, dearest of %d places", unsampled_names[i], PLACES) < 0)
            exit(1);
        report_row(report, at_dearest, dearest, "ns");
    }
}

int main(void)
{
    struct report *report = report_new("span");
    struct sustained s = sustained();
    struct figures off = run(1, false);
    report_row(report, "empty loop", median(&off.empty), "ns");
    report_row(report, "span, tracing off", median(&off.off), "ns");
    report_ratio(report, "floor", median(&off.floor));

    start(0);
    uint64_t dropped = 0;
    for (int threads = 1; threads <= THREADS_MAX; threads++) {
        char *what[4];
        uint64_t before = lost();
        struct figures f = run(threads, true);
        double floor_ns = median(&f.floor);
        const char *plural = threads == 1 ? "" : "s";
        if (asprintf(&what[0], "floor, %d thread%s", threads, plural) < 0 ||
            asprintf(&what[1], "span, 0 attributes, %d thread%s", threads, plural) < 0 ||
            asprintf(&what[2], "span, 2 attributes, %d thread%s", threads, plural) < 0 ||
            asprintf(&what[3], "dropped in bursts, %d thread%s", threads, plural) < 0)
            return 1;
        report_row(report, what[0], floor_ns, "ns");
        report_row(report, what[1], median(&f.zero), "ns");
        report_ratio(report, "floor", floor_ns);
        report_row(report, what[2], median(&f.two), "ns");
        report_ratio(report, "floor", floor_ns);
        report_row(report, what[3], (double)(lost() - before), "spans");
        dropped += lost() - before;
    }
    unsampled(report, median(&off.floor));
    report_row(report, "span, 0 attributes, sustained", s.ns, "ns");
    report_row(report, "dropped, sustained", s.dropped, "%");
    if (!s.whole) {
        fprintf(stderr, "bench: spans are missing that nobody counted\n");
        return 1;
    }
    pug_stop();
    int status = report_finish(report);
    if (dropped) {
        fprintf(stderr, "bench: spans were dropped in the bursts: the figures do not count\n");
        return 1;
    }
    return status;
}
