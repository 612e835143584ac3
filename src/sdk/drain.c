#include "sdk/drain.h"

#include "base/clock.h"
#include "model/redact.h"
#include "sdk/bridge.h"
#include "sdk/meter.h"
#include "sdk/own_thread.h"
#include "sdk/sdk.h"
#include "sdk/watch.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#define LOST_REPORT_NS NS_PER_S
#define FLUSH_SLICE_NS (5 * NS_PER_MS)

enum lost_cause {
    LOST_RING_FULL,
    LOST_DEPTH,
    LOST_NO_LANE,
    LOST_INTERRUPT,
    LOST_QUEUE_FULL,
    LOST_EXPORT,
    LOST_MEMORY,
    LOST_CAUSES,
};

static const char *const lost_names[LOST_CAUSES] = {"ring_full",  "depth",  "no_lane", "interrupt",
                                                    "queue_full", "export", "memory"};

struct drain {
    struct memory *memory;
    const struct config *config;
    struct assembler *assembler;
    struct meter *meter;
    struct ticks ticks;

    /* the thread's */
    struct exporter *exporter;
    struct exporter_counts *counts;
    uint64_t
        batch_since_ns; /* the oldest span that is here; 0: there is none, as far as is known */
    bool unsettled;     /* the exporter has some of which it was not said that they are to go */
    uint64_t lost_reported[LOST_CAUSES], lost_reported_ns;
    uint64_t wait_ns;  /* until the next look */
    uint64_t round_ns; /* when the last round was */
    uint64_t fullest;  /* bytes in the fullest ring, at the last look; 0 after a round */
    uint32_t spare;    /* lanes nobody owns, at the last look */
    uint32_t spare_wanted;
    bool gives_back; /* give_back() works on this processor */

    /* published after each round */
    _Atomic uint64_t recorded, lost_memory, lost_details;

    pthread_t thread;
    pthread_mutex_t lock;
    /* `ended` apart from `done`: the same thread may wait for both, the second time in a signal
     * handler, and a condition variable waits for those it has woken. */
    pthread_cond_t wake, done, ended;
    /* under lock */
    bool running, stopping, finished, clean;
    uint64_t flush_wanted, flush_done, flush_deadline_ns, stop_deadline_ns;
};

/* ---- what was lost ---- */

static uint64_t relaxed(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

void drain_counts(struct drain *d, struct pug_counts *ret)
{
    struct pug_counts c = {.size = sizeof c};
    uint32_t n = atomic_load(&d->memory->n_lanes);
    c.lost_details = relaxed(&d->lost_details);
    for (uint32_t i = 0; i < n; i++) {
        struct lane *lane = atomic_load(&d->memory->lanes[i]);
        c.lost_ring_full += relaxed(&lane->lost_ring_full);
        c.lost_depth += relaxed(&lane->lost_depth);
        c.lost_interrupt += relaxed(&lane->lost_interrupt);
        c.lost_details += relaxed(&lane->lost_details);
    }
    c.recorded = relaxed(&d->recorded);
    c.lost_memory = relaxed(&d->lost_memory);
    c.lost_no_lane = relaxed(&d->memory->lost_no_lane);
    c.exported = d->config->backend == PUG_BACKEND_DISCARD ? c.recorded
                                                           : relaxed(&d->counts->exported);
    c.lost_queue_full = relaxed(&d->counts->lost_queue_full);
    c.lost_export = relaxed(&d->counts->lost_export);
    c.metrics_exported = relaxed(&d->counts->metrics_exported);
    c.metrics_lost = relaxed(&d->counts->metrics_lost);
    *ret = c;
}

static void publish(struct drain *d)
{
    const struct assembler *a = d->assembler;
    atomic_store_explicit(&d->recorded, a->recorded, memory_order_relaxed);
    atomic_store_explicit(&d->lost_memory, a->lost_memory, memory_order_relaxed);
    atomic_store_explicit(&d->lost_details, a->lost_details, memory_order_relaxed);
}

static void report_lost(struct drain *d, uint64_t now_ns, bool last)
{
    struct pug_counts c;
    struct assembler *a = d->assembler;
    if (!last && now_ns - d->lost_reported_ns < LOST_REPORT_NS)
        return;
    drain_counts(d, &c);
    const uint64_t lost[LOST_CAUSES] = {c.lost_ring_full, c.lost_depth,      c.lost_no_lane,
                                        c.lost_interrupt, c.lost_queue_full, c.lost_export,
                                        c.lost_memory};
    for (int i = 0; i < LOST_CAUSES; i++) {
        struct attr *attrs;
        if (lost[i] == d->lost_reported[i] || !(attrs = arena_array(&a->strings, 2, sizeof *attrs)))
            continue;
        attrs[0] =
            (struct attr){STR("pugmark.lost.spans"),
                          {.type = VALUE_INT, .integer = (int64_t)(lost[i] - d->lost_reported[i])}};
        attrs[1] = (struct attr){STR("pugmark.lost.cause"),
                                 {.type = VALUE_STRING, .string = str_from(lost_names[i])}};
        /* Lanes number their spans from 1: the zeros are the library's own. */
        static uint64_t own;
        assembler_own_span(a, STR("pugmark.lost"), d->lost_reported_ns, now_ns,
                           id_number(LANES_MAX, ++own), (struct attrs){attrs, 2, 0});
        d->lost_reported[i] = lost[i];
    }
    d->lost_reported_ns = now_ns;
}

/* ---- to the exporter ---- */

__attribute__((noinline)) static void settle(struct drain *d)
{
    struct pug_counts totals;
    if (!d->unsettled)
        return;
    publish(d);
    drain_counts(d, &totals);
    d->exporter->settle(d->exporter, d->counts, &totals);
    d->unsettled = false;
    d->batch_since_ns = 0;
}

static void has_taken(struct drain *d)
{
    if (!d->exporter->settle) {
        d->batch_since_ns = 0;
        return;
    }
    d->unsettled = true;
    if (d->exporter->open_bytes >= d->exporter->open_bytes_max)
        settle(d);
}

static void deliver(void *user, const struct taken_batch *batch)
{
    struct drain *d = user;
    redact_spans(d->config->redact, batch->spans.spans, batch->spans.n, &d->assembler->strings);
    if (d->config->metrics_interval_ns)
        bridge_take(&batch->spans);
    d->exporter->take(d->exporter, batch, d->counts);
    has_taken(d);
}

/* Where text is looked through for patterns, all spans come as such. */
static void *plain_prepare(void *user, const struct plain_place *place)
{
    struct drain *d = user;
    if (redact_has_patterns(d->config->redact))
        return NULL;
    for (uint32_t i = 0; i < place->n_keys; i++)
        if (redact_is_secret(d->config->redact, place->keys[i].name))
            return NULL;
    return d->exporter->prepare(d->exporter, place);
}

__attribute__((noinline)) static void plain_measure(const struct reader_site *site,
                                                    const struct plain_span *span)
{
    struct span s = {.name = site->view.name,
                     .kind = site->view.kind ? site->view.kind : SPAN_KIND_INTERNAL,
                     .start_ns = span->start_ns,
                     .end_ns = span->end_ns,
                     .trace_state = span->trace_state};
    bridge_take(&(struct span_batch){.spans = &s, .n = 1});
}

static bool plain_take(void *user, const struct reader_site *site, const struct plain_span *span)
{
    struct drain *d = user;
    if (!d->exporter->take_plain(d->exporter, site->place, span))
        return false;
    if (d->config->metrics_interval_ns)
        plain_measure(site, span);
    has_taken(d);
    return true;
}

/* ---- whose lane is it? ----
 *
 * Owners do not ask the kernel for their thread id, for that would be a system call. But each
 * thread has told the kernel where its robust list begins, which is inside its descriptor, which is
 * what pthread_self() points to. Where that does not hold, the lane's number serves. */

#define DESCRIPTOR_BYTES 4096

/* Whose robust list begins at `head`: one of those that want to know? */
static void owner_found(struct lane_reader *const *wanted, uint32_t n, uint64_t head, uint32_t tid)
{
    for (uint32_t i = 0; i < n; i++) {
        uint64_t descriptor = wanted[i]->lane->thread;
        if (head >= descriptor && head - descriptor < DESCRIPTOR_BYTES)
            wanted[i]->thread = tid;
    }
}

/* One look at all threads, for all lanes that are new. */
static void owners_find(struct lane_reader *const *wanted, uint32_t n)
{
    DIR *dir = n ? opendir("/proc/self/task") : NULL;
    struct dirent *entry;
    while (dir && (entry = readdir(dir))) {
        uint64_t tid;
        void *head = NULL;
        size_t len = 0;
        if (str_to_u64(str_from(entry->d_name), &tid) &&
            syscall(SYS_get_robust_list, (pid_t)tid, &head, &len) == 0)
            owner_found(wanted, n, (uint64_t)(uintptr_t)head, (uint32_t)tid);
    }
    if (dir)
        closedir(dir);
}

/* ---- a round ---- */

static void lane_owners(struct assembler *a, const uint8_t *states, uint32_t n)
{
    struct lane_reader *wanted[LANES_MAX];
    uint32_t n_wanted = 0;
    for (uint32_t i = 0; i < n; i++) {
        struct lane_reader *r = a->readers[i];
        if (states[i] == LANE_FREE || !r || r->owned || r->head == relaxed(&r->lane->tail))
            continue;
        r->owned = true;
        r->thread = i + 1;
        if (states[i] != LANE_OWNED)
            continue; /* and needs no more of its ring than it has touched */
        wanted[n_wanted++] = r;
        if (!r->populated)
            lane_populate(r->lane);
        r->populated = true;
    }
    owners_find(wanted, n_wanted);
}

/* The owner is gone and the ring is empty: the next thread may have it. */
static void lane_recycle(struct assembler *a, struct lane_reader *r, bool left)
{
    struct lane *lane = r->lane;
    if (!left || r->head != __atomic_load_n(&lane->fast.head, __ATOMIC_ACQUIRE))
        return;
    r->owned = false;
    assembler_forget(a, r);
    lane->n_contexts = lane->n_attached = 0;
    atomic_store_explicit(&lane->state, LANE_FREE, memory_order_release);
}

static void nap(uint64_t ns)
{
    nanosleep(&(struct timespec){.tv_nsec = (long)ns}, NULL);
}

#if defined(__x86_64__)
static bool can_give_back(void)
{
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_CLFLUSHOPT);
}

/* Puts the lines of [from, to) out of the caches once they are read. Left in this core's cache they would have to be
 * taken back from it when the lane's owner writes there again, which costs it some 100 ns a line on some processors: five
 * times the whole span. A line that is in nobody's cache is fetched ahead of the writer by the hardware. Worth it
 * only where the owner soon comes round to it again. */
static void give_back(const struct lane *lane, uint64_t from, uint64_t to)
{
    enum { LINE = 64 };
    for (uint64_t at = from & ~(uint64_t)(LINE - 1); at + LINE <= to; at += LINE)
        __asm__ volatile("clflushopt %0"
                         : "+m"(*(volatile char *)(lane->fast.ring + (at & lane->fast.mask))));
}
#else
static bool can_give_back(void)
{
    return false;
}

static void give_back(const struct lane *lane, uint64_t from, uint64_t to)
{
}
#endif

/* How long to sleep before the next look: as long as the fullest ring stays under a sixteenth at
 * the rate it had, up to WAIT_MAX intervals. */
#define WAIT_MAX 4
/* A round comes after so many intervals in any case, */
#define ROUND_INTERVALS 20
/* or when the fullest ring has got so far. */
#define ROUND_PART 8

static void pace(struct drain *d, uint64_t grown)
{
    uint64_t interval = d->config->drain_interval_ns, part = d->config->ring_bytes / 16;
    if (grown > part)
        d->wait_ns = interval / 16;
    else if (grown > part / 2 || d->spare < d->spare_wanted / 2 || d->wait_ns < interval)
        d->wait_ns = interval;
    else if (d->wait_ns < WAIT_MAX * interval)
        d->wait_ns *= 2;
}

/* True: it is time for a round. */
static bool look(struct drain *d)
{
    const struct config *c = d->config;
    uint32_t n = atomic_load_explicit(&d->memory->n_lanes, memory_order_acquire);
    uint64_t fullest = 0, most = ROUND_INTERVALS * c->drain_interval_ns;
    bool changed = false;
    d->spare = 0;
    for (uint32_t i = 0; i < n; i++) {
        const struct lane *lane = atomic_load_explicit(&d->memory->lanes[i], memory_order_acquire);
        const struct lane_reader *r = d->assembler->readers[i];
        uint32_t state = atomic_load_explicit(&lane->state, memory_order_acquire);
        if (state == LANE_FREE) {
            d->spare++;
            continue;
        }
        /* A thread has a name and a number only while it is there. */
        uint64_t fill = __atomic_load_n(&lane->fast.head, __ATOMIC_ACQUIRE) - relaxed(&lane->tail);
        changed |= state == LANE_LEFT || (fill && (!r || !r->owned));
        fullest = fill > fullest ? fill : fullest;
    }
    pace(d, fullest > d->fullest ? fullest - d->fullest : 0);
    d->fullest = fullest;
    if (most > c->flush_interval_ns)
        most = c->flush_interval_ns;
    return changed || fullest > c->ring_bytes / ROUND_PART || d->spare < d->spare_wanted / 2 ||
           clock_monotonic_ns() - d->round_ns >= most;
}

/* A lane that nobody owns is one load; it is empty, and what its next owner writes during this
 * round is read in the next one. */
static void read_lanes(struct drain *d)
{
    if (d->ticks.n == 0) /* the two clocks need a distance to be compared over */
        nap(2 * NS_PER_MS);
    struct assembler *a = d->assembler;
    uint32_t n = atomic_load_explicit(&d->memory->n_lanes, memory_order_acquire);
    uint8_t states[LANES_MAX];
    d->spare = 0;
    for (uint32_t i = 0; i < n; i++) {
        struct lane *lane = atomic_load_explicit(&d->memory->lanes[i], memory_order_acquire);
        states[i] = (uint8_t)atomic_load_explicit(&lane->state, memory_order_acquire);
        d->spare += states[i] == LANE_FREE;
        struct lane_reader *r = states[i] == LANE_FREE ? NULL : assembler_reader(a, i);
        if (r)
            r->head = __atomic_load_n(&lane->fast.head, __ATOMIC_ACQUIRE);
    }
    d->fullest = 0;
    d->round_ns = clock_monotonic_ns();
    ticks_update(&d->ticks, &d->memory->head->clock);
    lane_owners(a, states, n);
    for (uint32_t i = 0; i < n; i++) {
        struct lane_reader *r = a->readers[i];
        if (states[i] == LANE_FREE || !r)
            continue;
        if (r->head != relaxed(&r->lane->tail)) {
            uint64_t from = relaxed(&r->lane->tail);
            assembler_lane(a, r);
            if (d->gives_back && r->head - from > d->config->ring_bytes / ROUND_PART)
                give_back(r->lane, from, r->head);
        }
        lane_recycle(a, r, states[i] == LANE_LEFT);
    }
    assembler_round(a);
}

/* New threads take what is kept ready. Where half of it went between two looks - a thread for each
 * request - twice as much is kept from then on; where all of it went, as much as ever. Failure shows as
 * lost_no_lane. */
static void keep_spare(struct drain *d)
{
    if (d->spare == 0)
        d->spare_wanted = LANES_SPARE_MAX;
    else if (d->spare < d->spare_wanted / 2 && d->spare_wanted < LANES_SPARE_MAX)
        d->spare_wanted *= 2;
    if (d->spare < d->spare_wanted)
        (void)!memory_prepare(d->memory, d->spare_wanted);
}

static void round_(struct drain *d, bool deliver_all)
{
    struct assembler *a = d->assembler;
    read_lanes(d);
    uint64_t now = clock_monotonic_ns();
    uint64_t epoch_ns = ticks_to_ns(&d->ticks, ticks_now(d->ticks.source));
    report_lost(d, epoch_ns, deliver_all);
    if (d->batch_since_ns == 0 && (a->n || d->unsettled))
        d->batch_since_ns = now;
    bool due = deliver_all ||
               (d->batch_since_ns && now - d->batch_since_ns >= d->config->flush_interval_ns);
    if (a->n && (due || d->exporter->gathers))
        assembler_flush(a);
    if (due)
        settle(d);
    publish(d);
    /* After the spans: they are in the numbers. */
    meter_round(d->meter, d->exporter, epoch_ns, deliver_all);
    sampler_look(&sdk.sampler, d->config, d->memory);
    watch_look(d->memory);
    keep_spare(d);
}

static void last_round(struct drain *d)
{
    struct assembler *a = d->assembler;
    uint32_t n = atomic_load(&d->memory->n_lanes);
    round_(d, false);
    read_lanes(d);
    uint64_t now = ticks_now(d->ticks.source);
    for (uint32_t i = 0; i < n; i++)
        if (a->readers[i])
            assembler_unfinished_lane(a, a->readers[i], now);
    assembler_unfinished_handles(a, now);
    report_lost(d, ticks_to_ns(&d->ticks, now), true);
    assembler_flush(a);
    settle(d);
    publish(d);
    meter_round(d->meter, d->exporter, ticks_to_ns(&d->ticks, now), true);
}

/* ---- the thread ---- */

static void until(uint64_t deadline_ns, struct timespec *ret)
{
    *ret = (struct timespec){(time_t)(deadline_ns / NS_PER_S), (long)(deadline_ns % NS_PER_S)};
}

/* With d->lock held. */
static void serve_flush(struct drain *d)
{
    uint64_t wanted = d->flush_wanted, deadline = d->flush_deadline_ns;
    pthread_mutex_unlock(&d->lock);
    /* Handles are held back for a round. */
    round_(d, false);
    round_(d, true);
    /* The lanes are read on while the backend is waited for, and a stop is heard. */
    bool clean = false, stopping = false;
    for (bool again = false; !stopping; again = true) {
        uint64_t now = clock_monotonic_ns(), slice = now + FLUSH_SLICE_NS;
        clean = d->exporter->flush(d->exporter, slice < deadline ? slice : deadline, again);
        if (clean || now >= deadline)
            break;
        round_(d, false);
        pthread_mutex_lock(&d->lock);
        stopping = d->stopping;
        pthread_mutex_unlock(&d->lock);
    }
    pthread_mutex_lock(&d->lock);
    d->clean = clean;
    if (stopping) /* which answers, when all is out */
        return;
    d->flush_done = wanted;
    pthread_cond_broadcast(&d->done);
}

static void *drain_main(void *arg)
{
    struct drain *d = arg;
    struct timespec when;
    pthread_mutex_lock(&d->lock);
    while (!d->stopping) {
        until(clock_monotonic_ns() + d->wait_ns, &when);
        if (d->flush_wanted == d->flush_done)
            pthread_cond_timedwait(&d->wake, &d->lock, &when);
        if (d->stopping)
            break;
        if (d->flush_wanted != d->flush_done) {
            serve_flush(d);
            continue;
        }
        pthread_mutex_unlock(&d->lock);
        if (look(d))
            round_(d, false);
        else
            keep_spare(d);
        pthread_mutex_lock(&d->lock);
    }
    uint64_t deadline = d->stop_deadline_ns;
    pthread_mutex_unlock(&d->lock);
    last_round(d);
    bool clean = d->exporter->flush(d->exporter, deadline, false);
    d->exporter->close(d->exporter, deadline);
    pthread_mutex_lock(&d->lock);
    d->clean = clean;
    d->flush_done = d->flush_wanted;
    d->finished = true;
    pthread_cond_broadcast(&d->ended);
    pthread_cond_broadcast(&d->done);
    pthread_mutex_unlock(&d->lock);
    return NULL;
}

int drain_new(struct memory *memory, const struct config *config, struct drain **ret)
{
    struct drain *d = calloc(1, sizeof *d);
    if (!d)
        return ERR_NOMEM;
    d->memory = memory;
    d->config = config;
    d->gives_back = can_give_back();
    d->wait_ns = config->drain_interval_ns;
    d->spare_wanted = LANES_SPARE;
    if (!ticks_init(&d->ticks, memory->clock) ||
        assembler_new(memory, config, &d->ticks, deliver, d, &d->assembler) != 0 ||
        meter_new(config, d, &d->meter) != 0) {
        assembler_free(d->assembler);
        ticks_done(&d->ticks);
        free(d);
        return ERR_NOMEM;
    }
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&d->lock, NULL);
    pthread_cond_init(&d->wake, &attr);
    pthread_cond_init(&d->done, &attr);
    pthread_cond_init(&d->ended, &attr);
    pthread_condattr_destroy(&attr);
    *ret = d;
    return 0;
}

int drain_start(struct drain *d, struct exporter *exporter, struct exporter_counts *counts)
{
    d->exporter = exporter;
    d->counts = counts;
    d->batch_since_ns = 0;
    d->unsettled = false;
    assembler_plain(d->assembler,
                    exporter->prepare
                        ? &(struct plain_taker){.prepare = plain_prepare, .take = plain_take}
                        : NULL);
    d->stopping = d->finished = false;
    d->lost_reported_ns = clock_realtime_ns();
    meter_start(d->meter, d->lost_reported_ns);
    int err = own_thread_start(&d->thread, "pugmark", drain_main, d);
    if (err)
        return err;
    d->running = true;
    return 0;
}

static bool wait_done(struct drain *d, const bool *flag, const uint64_t *done, uint64_t wanted,
                      uint64_t deadline_ns)
{
    struct timespec when;
    until(deadline_ns, &when);
    while (flag ? !*flag : *done < wanted)
        if (pthread_cond_timedwait(flag ? &d->ended : &d->done, &d->lock, &when) == ETIMEDOUT)
            return flag ? *flag : *done >= wanted;
    return true;
}

bool drain_flush(struct drain *d, uint64_t deadline_ns)
{
    pthread_mutex_lock(&d->lock);
    bool ok = d->clean;
    if (!d->finished) {
        uint64_t wanted = ++d->flush_wanted;
        d->flush_deadline_ns = deadline_ns;
        pthread_cond_signal(&d->wake);
        ok = wait_done(d, NULL, &d->flush_done, wanted, deadline_ns) && d->clean;
    }
    pthread_mutex_unlock(&d->lock);
    return ok;
}

/* What the thread may need beyond the deadline to notice it. */
#define STOP_GRACE_NS (500 * NS_PER_MS)

bool drain_stop(struct drain *d, uint64_t deadline_ns)
{
    if (!d->running)
        return true;
    pthread_mutex_lock(&d->lock);
    d->stopping = true;
    d->stop_deadline_ns = deadline_ns;
    pthread_cond_signal(&d->wake);
    bool finished = wait_done(d, &d->finished, NULL, 0, deadline_ns + STOP_GRACE_NS);
    bool clean = finished && d->clean;
    pthread_mutex_unlock(&d->lock);
    if (finished) {
        pthread_join(d->thread, NULL);
        d->running = false;
    }
    return clean;
}

bool drain_is_running(struct drain *d)
{
    pthread_mutex_lock(&d->lock);
    bool finished = d->finished;
    pthread_mutex_unlock(&d->lock);
    if (d->running && finished) {
        pthread_join(d->thread, NULL);
        d->running = false;
    }
    return d->running;
}
