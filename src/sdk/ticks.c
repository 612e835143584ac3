#include "sdk/ticks.h"

#include "base/clock.h"
#include "pugmark/pugmark.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#define INTERVAL_FIRST_NS (10 * NS_PER_MS)
#define INTERVAL_MAX_NS (2 * NS_PER_S)
/* Above this the clock was stepped or the machine slept: jump instead of steering. */
#define STEP_NS NS_PER_MS

#if defined(__x86_64__)
/* What the kernel has found out about the counter; it watches it, we cannot. */
static bool kernel_uses_counter(void)
{
    char name[16];
    int fd = open("/sys/devices/system/clocksource/clocksource0/current_clocksource",
                  O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return true; /* no /sys in here: the CPU's word counts */
    ssize_t n = read(fd, name, sizeof name);
    close(fd);
    return n >= 4 &&
           (memcmp(name, "tsc\n", 4) == 0 || (n >= 9 && memcmp(name, "kvm-clock", 9) == 0));
}
#endif

uint32_t ticks_source(void)
{
#if defined(__x86_64__)
    unsigned a, b, c, d;
    if (__get_cpuid(0x80000007, &a, &b, &c, &d) && (d & 1u << 8) && kernel_uses_counter())
        return 0;
    return 1;
#elif defined(__aarch64__)
    return 0;
#else
    return 1;
#endif
}

uint64_t pug__clock_slow(void)
{
    return clock_monotonic_ns();
}

uint64_t ticks_now(uint32_t source)
{
    return pug__ticks(source);
}

struct reading {
    uint64_t tick, mono_ns, epoch_offset;
};

/* Both clocks at one moment: of a few tries the one with the least between its two ticks. */
static struct reading read_clocks(uint32_t source)
{
    struct reading best = {0};
    uint64_t best_width = UINT64_MAX;
    for (int i = 0; i < 5; i++) {
        uint64_t before = ticks_now(source);
        uint64_t mono = clock_monotonic_ns();
        uint64_t after = ticks_now(source);
        if (after - before < best_width) {
            best_width = after - before;
            best.tick = before + (after - before) / 2;
            best.mono_ns = mono;
        }
    }
    if (source) /* one clock: read it once */
        best.tick = best.mono_ns;
    best_width = UINT64_MAX;
    for (int i = 0; i < 3; i++) {
        uint64_t before = clock_monotonic_ns();
        uint64_t real = clock_realtime_ns();
        uint64_t after = clock_monotonic_ns();
        if (after - before < best_width) {
            best_width = after - before;
            best.epoch_offset = real - (before + (after - before) / 2);
        }
    }
    return best;
}

static uint64_t rate_of(uint64_t ns, uint64_t ticks)
{
    return ticks ? (uint64_t)(((unsigned __int128)ns << 32) / ticks) : (uint64_t)1 << 32;
}

static void add_piece(struct ticks *t, struct ticks_piece p)
{
    if (t->n == t->cap) {
        /* Half of the history goes; what began that long ago is placed by the oldest piece left. */
        size_t keep = t->cap / 2;
        memmove(t->pieces, t->pieces + (t->n - keep), keep * sizeof *t->pieces);
        t->n = keep;
    }
    t->pieces[t->n++] = p;
}

bool ticks_init(struct ticks *t, uint32_t source)
{
    struct reading r = read_clocks(source);
    *t = (struct ticks){.source = source,
                        .cap = TICKS_PIECES_MAX,
                        .anchor_tick = r.tick,
                        .anchor_ns = r.mono_ns,
                        .epoch_offset = r.epoch_offset,
                        .interval_ns = INTERVAL_FIRST_NS};
    t->pieces = malloc(t->cap * sizeof *t->pieces);
    return t->pieces != NULL;
}

void ticks_done(struct ticks *t)
{
    free(t->pieces);
    *t = (struct ticks){0};
}

static void publish(const struct ticks *t, struct ticks_published *p)
{
    const struct ticks_piece *last = &t->pieces[t->n - 1];
    if (!p)
        return;
    uint64_t s = atomic_load_explicit(&p->sequence, memory_order_relaxed);
    atomic_store_explicit(&p->sequence, s + 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    p->source = t->source;
    atomic_store_explicit(&p->tick, last->tick, memory_order_relaxed);
    atomic_store_explicit(&p->ns, last->ns, memory_order_relaxed);
    atomic_store_explicit(&p->rate, last->rate, memory_order_relaxed);
    atomic_store_explicit(&p->sequence, s + 2, memory_order_release);
}

void ticks_update(struct ticks *t, struct ticks_published *published)
{
    if (t->n && ticks_to_ns(t, ticks_now(t->source)) < t->next_ns)
        return;
    struct reading r = read_clocks(t->source);
    uint64_t rate = rate_of(r.mono_ns - t->anchor_ns, r.tick - t->anchor_tick);
    struct ticks_piece p;
    if (t->n == 0) {
        /* The first piece reaches back to the first reading: it is drawn between two known points.
         */
        p = (struct ticks_piece){t->anchor_tick, t->anchor_ns + t->epoch_offset, rate};
    } else {
        uint64_t truth = r.mono_ns + r.epoch_offset;
        p = (struct ticks_piece){r.tick, ticks_to_ns(t, r.tick), rate};
        int64_t error = (int64_t)(truth - p.ns);
        if (error > (int64_t)STEP_NS || error < -(int64_t)STEP_NS) {
            p.ns = truth;
        } else {
            /* Arrive where the clock will be when we look again. */
            uint64_t ticks_ahead =
                (uint64_t)(((unsigned __int128)t->interval_ns << 32) / (rate ? rate : 1));
            int64_t bend =
                (int64_t)((__int128)error * ((int64_t)1 << 32) / (__int128)(ticks_ahead | 1));
            if (bend > -(int64_t)(rate / 16) && bend < (int64_t)(rate / 16))
                p.rate = rate + (uint64_t)bend;
        }
        t->epoch_offset = r.epoch_offset;
    }
    add_piece(t, p);
    t->anchor_tick = r.tick;
    t->anchor_ns = r.mono_ns;
    t->next_ns = ticks_to_ns(t, r.tick) + t->interval_ns;
    if (t->interval_ns < INTERVAL_MAX_NS)
        t->interval_ns *= 2;
    publish(t, published);
}

uint64_t ticks_to_ns_slow(const struct ticks *t, uint64_t tick)
{
    size_t low = 0, high = t->n;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (t->pieces[middle].tick <= tick)
            low = middle;
        else
            high = middle;
    }
    return ticks_piece_at(&t->pieces[low], tick);
}
