/* Promise 3: inner manual time <= span duration <= outer manual time, for every sample.
 *
 *     a = now; begin; b = now; WORK; c = now; end; d = now        a <= start <= b, c <= end <= d
 *
 * for work of 1 us to 100 ms; on a machine that is idle, with all processors busy, while the thread
 * is moved from processor to processor, with spans nested ten deep, and for handles that end on
 * another thread; in memory, through the Chrome file's microseconds and through OTLP. `--long` takes
 * twenty times the samples. Printed is d_min: the shortest work for which outer and inner time lie
 * within 5 % of each other in the median, so that the span is known that well. */
#include "sdk/lanes_fixture.h"

#include "base/clock.h"
#include "wire/chrome.h"
#include "wire/otlp.h"

#include <sched.h>
#include <unistd.h>

#define DEPTH 10
#define SAMPLES_MAX 40000

struct sample {
    uint64_t a, b, c, d; /* ticks */
    uint64_t wall_ns;    /* CLOCK_MONOTONIC around b and c */
    bool seen;
};

static struct sample *samples;
static int n_samples, factor = 1;
static double d_min_us = -1;

/* In order with what stands around it, which the counter alone is not. */
static uint64_t stamp(void)
{
#if defined(__x86_64__)
    __asm__ volatile("lfence" ::: "memory");
#endif
    uint64_t t = ticks_now(lanes.memory->clock);
#if defined(__x86_64__)
    __asm__ volatile("lfence" ::: "memory");
#endif
    return t;
}

static void work(uint64_t ns)
{
    uint64_t end = clock_monotonic_ns() + ns;
    while (clock_monotonic_ns() < end)
        ;
}

static void scope_sample(uint64_t ns)
{
    int i = n_samples++;
    struct sample *s = &samples[i];
    uint64_t begin = clock_monotonic_ns();
    s->a = stamp();
    {
        PUG_SPAN("work", PUG_INT("i", i));
        s->b = stamp();
        work(ns);
        s->c = stamp();
    }
    s->d = stamp();
    s->wall_ns = clock_monotonic_ns() - begin;
}

static void nested_sample(uint64_t ns, int depth)
{
    int i = n_samples++;
    struct sample *s = &samples[i];
    s->a = stamp();
    {
        PUG_SPAN("nested", PUG_INT("i", i), PUG_INT("depth", depth));
        s->b = stamp();
        if (depth + 1 < DEPTH)
            nested_sample(ns, depth + 1);
        else
            work(ns);
        s->c = stamp();
    }
    s->d = stamp();
}

/* ---- what the machine does meanwhile ---- */

static _Atomic bool over;
static pthread_t others[64];
static int n_others;

static void *spin(void *arg)
{
    while (!atomic_load_explicit(&over, memory_order_relaxed))
        ;
    return NULL;
}

static void *move(void *arg)
{
    pthread_t who = *(pthread_t *)arg;
    int n = (int)sysconf(_SC_NPROCESSORS_ONLN);
    for (int cpu = 0; !atomic_load_explicit(&over, memory_order_relaxed); cpu = (cpu + 1) % n) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(cpu, &set);
        pthread_setaffinity_np(who, sizeof set, &set);
        nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
    }
    return NULL;
}

static void meanwhile(void *(*run)(void *), void *arg, int n)
{
    atomic_store(&over, false);
    for (n_others = 0; n_others < n && n_others < 64; n_others++)
        assert_int_equal(pthread_create(&others[n_others], NULL, run, arg), 0);
}

static void no_more(void)
{
    atomic_store(&over, true);
    while (n_others > 0)
        pthread_join(others[--n_others], NULL);
}

/* ---- checks ---- */

/* "123.456" as nanoseconds. */
static uint64_t micro(const char *text, const char *key)
{
    const char *at = strstr(text, key);
    unsigned long long us = 0, ns = 0;
    assert_non_null(at);
    if (sscanf(at + strlen(key), "%llu.%3llu", &us, &ns) < 1)
        fail_msg("no number behind %s in %s", key, text);
    return us * 1000 + ns;
}

static void check_chrome(const struct span *s)
{
    struct chrome_process p = {.pid = 1, .base_ns = lanes.seen[0].start_ns - NS_PER_S};
    struct buf out = {0};
    chrome_span(&p, s, 1, false, &out);
    assert_true(buf_reserve(&out, 1));
    out.ptr[out.len] = '\0';
    assert_int_equal(micro(out.ptr, "\"ts\":"), s->start_ns - p.base_ns);
    assert_int_equal(micro(out.ptr, "\"dur\":"), s->end_ns - s->start_ns);
    buf_done(&out);
}

static void check_otlp(void)
{
    struct buf out = {0};
    struct arena arena = ARENA_INIT;
    struct span_batch sent = {.spans = lanes.seen, .n = lanes.n}, got;
    otlp_encode(&sent, &out);
    assert_false(out.failed);
    assert_int_equal(otlp_decode((struct str){out.ptr, out.len}, &arena, &got, NULL), 0);
    assert_int_equal(got.n, sent.n);
    for (size_t i = 0; i < got.n; i++) {
        assert_int_equal(got.spans[i].start_ns, sent.spans[i].start_ns);
        assert_int_equal(got.spans[i].end_ns, sent.spans[i].end_ns);
    }
    arena_done(&arena);
    buf_done(&out);
}

static int by_value(const void *x, const void *y)
{
    double a = *(const double *)x, b = *(const double *)y;
    return (a > b) - (a < b);
}

static void check_sample(const struct span *s, struct sample *m)
{
    uint64_t a = ticks_to_ns(&lanes.ticks, m->a), b = ticks_to_ns(&lanes.ticks, m->b);
    uint64_t c = ticks_to_ns(&lanes.ticks, m->c), d = ticks_to_ns(&lanes.ticks, m->d);
    assert_false(m->seen);
    m->seen = true;
    if (a > s->start_ns || s->start_ns > b || c > s->end_ns || s->end_ns > d ||
        c - b > s->end_ns - s->start_ns || s->end_ns - s->start_ns > d - a)
        fail_msg("manual %llu %llu .. %llu %llu, span %llu .. %llu", (unsigned long long)a,
                 (unsigned long long)b, (unsigned long long)c, (unsigned long long)d,
                 (unsigned long long)s->start_ns, (unsigned long long)s->end_ns);
    /* By another clock: the two may drift apart by a microsecond a second, and the calibration of a session that is milliseconds
     * old knows the rate to some 1e-3. */
    if (m->wall_ns && c - b > m->wall_ns + m->wall_ns / 500 + 1000)
        fail_msg("%llu ns by the counter, %llu by the clock", (unsigned long long)(c - b),
                 (unsigned long long)m->wall_ns);
}

/* All samples have their span; children of one parent do not take longer than it. Returns the median of
 * (outer - inner) / inner. */
static double check(void)
{
    assert_int_equal(lanes.n, n_samples);
    double *off = calloc((size_t)n_samples, sizeof *off);
    for (size_t i = 0; i < lanes.n; i++) {
        const struct span *s = &lanes.seen[i];
        int64_t k = lanes_attr(s, "i")->integer;
        const struct sample *m = &samples[k];
        check_sample(s, &samples[k]);
        check_chrome(s);
        off[i] = (double)((m->d - m->a) - (m->c - m->b)) / (double)(m->c - m->b + 1);
        if (!lanes_attr(s, "depth") || i + 1 == lanes.n || span_id_is_zero(&s->parent_id))
            continue;
        const struct span *parent = &lanes.seen[i + 1]; /* ends next */
        assert_memory_equal(parent->span_id.bytes, s->parent_id.bytes, 8);
        assert_true(parent->start_ns <= s->start_ns && s->end_ns <= parent->end_ns);
    }
    check_otlp();
    qsort(off, (size_t)n_samples, sizeof *off, by_value);
    double median = off[n_samples / 2];
    free(off);
    return median;
}

static const struct {
    uint64_t ns;
    int n;
} works[] = {{1000, 1000}, {10000, 500}, {100000, 150}, {1000000, 40}, {100000000, 2}};

static void matrix(void (*one)(uint64_t ns), int divide, bool print)
{
    for (size_t w = 0; w < sizeof works / sizeof works[0]; w++) {
        int n = works[w].n * (works[w].n > 10 ? factor : 1) / divide;
        n_samples = 0;
        memset(samples, 0, SAMPLES_MAX * sizeof *samples);
        lanes_start(NULL, 0);
        for (int i = 0; i < (n ? n : 1); i++) {
            one(works[w].ns);
            if (i % 200 == 199)
                lanes_drain(); /* the ring holds so many */
        }
        lanes_stop();
        double median = check();
        if (print && median <= 0.05 && d_min_us < 0)
            d_min_us = (double)works[w].ns / 1000;
        lanes_forget();
    }
}

static void on_an_idle_machine(void **state)
{
    matrix(scope_sample, 1, true);
    print_message("# d_min: %g us\n", d_min_us);
    assert_true(d_min_us > 0);
}

static void with_all_processors_busy(void **state)
{
    meanwhile(spin, NULL, (int)sysconf(_SC_NPROCESSORS_ONLN));
    matrix(scope_sample, 2, false);
    no_more();
}

static void while_the_thread_is_moved_about(void **state)
{
    pthread_t self = pthread_self();
    cpu_set_t before;
    assert_int_equal(pthread_getaffinity_np(self, sizeof before, &before), 0);
    meanwhile(move, &self, 1);
    matrix(scope_sample, 1, false);
    no_more();
    pthread_setaffinity_np(self, sizeof before, &before);
}

static void nested(uint64_t ns)
{
    nested_sample(ns, 0);
}

static void nested_ten_deep(void **state)
{
    matrix(nested, 10, false);
}

/* ---- handles ---- */

static struct {
    _Atomic int turn; /* 0: nobody's, 1: the other thread's to end */
    struct pug_span span;
    struct sample *sample;
    uint64_t ns;
} relay;

static void *end_them(void *arg)
{
    while (!atomic_load(&over)) {
        if (atomic_load_explicit(&relay.turn, memory_order_acquire) != 1) {
            sched_yield();
            continue;
        }
        work(relay.ns);
        relay.sample->c = stamp();
        pug_span_end(&relay.span);
        relay.sample->d = stamp();
        atomic_store_explicit(&relay.turn, 0, memory_order_release);
    }
    return NULL;
}

static void handed_over(uint64_t ns)
{
    int i = n_samples++;
    relay.sample = &samples[i];
    relay.ns = ns;
    relay.sample->a = stamp();
    pug_span_start(&relay.span, "handle", PUG_INT("i", i));
    relay.sample->b = stamp();
    atomic_store_explicit(&relay.turn, 1, memory_order_release);
    uint64_t deadline = clock_monotonic_ns() + 30 * NS_PER_S;
    while (atomic_load_explicit(&relay.turn, memory_order_acquire) == 1) {
        sched_yield();
        assert_true(clock_monotonic_ns() < deadline);
    }
}

static void ended_on_another_thread(void **state)
{
    /* One thread a matrix row: its lane goes with the memory. */
    for (size_t w = 0; w < sizeof works / sizeof works[0]; w++) {
        int n = works[w].n > 10 ? works[w].n * factor / 2 : 1;
        n_samples = 0;
        memset(samples, 0, SAMPLES_MAX * sizeof *samples);
        lanes_start(NULL, 0);
        meanwhile(end_them, NULL, 1);
        for (int i = 0; i < n; i++) {
            handed_over(works[w].ns);
            if (i % 200 == 199)
                lanes_drain();
        }
        no_more();
        lanes_stop();
        check();
        lanes_forget();
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(on_an_idle_machine),
        cmocka_unit_test(with_all_processors_busy),
        cmocka_unit_test(while_the_thread_is_moved_about),
        cmocka_unit_test(nested_ten_deep),
        cmocka_unit_test(ended_on_another_thread),
    };
    if (argc > 1 && strcmp(argv[1], "--long") == 0)
        factor = 20;
    samples = calloc(SAMPLES_MAX, sizeof *samples);
    return samples ? cmocka_run_group_tests(tests, NULL, NULL) : 1;
}
