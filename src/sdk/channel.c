/* Channels: the queue of pugmark/queue.h, with what is known about it.
 *
 * Counting costs nothing by itself: what was sent and received is read off the queue's
 * two positions when somebody asks. Only what waits or fails is counted one by one.
 *
 * 1. A cell holds the element and nothing else, as it would without us: what goes from one core to
 *    another is most of what a message costs. Only a message that was sent where a context is
 *    current has one, in an array beside the cells (`origins`); two bits of the cell's stamp, its
 *    note, say so.
 * 2. What is known by name is a `struct kind`, shared by all channels of that name and never freed:
 *    the sites of its spans have numbers in every trace, and sums must not go down when a channel
 *    is gone.
 * 3. Spans are paid from a budget of the kind that the drain fills. When it is empty, a message
 *    goes without spans, and its note says so.
 *
 * Locks: `registry.lock` for the list of channels and of kinds; taken by new, free, the drain, and
 * around fork. Sending and receiving take none. */
#include "sdk/channel.h"

#include "base/clock.h"
#include "pugmark/channel.h"
#include "sdk/alloc.h"
#include "sdk/sdk.h"
#include "sdk/span.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    WAIT_OCTAVES = 40, /* of microseconds: a fortnight */
    WAIT_BUCKETS = WAIT_OCTAVES * HISTOGRAM_OCTAVE,
    DEPTH_EVERY = 16,
    SPAN_NAME_MAX = 95,
};

/* Where a message comes from. */
struct origin {
    uint8_t trace_id[16], span_id[8];
    uint8_t flags; /* PUG_FLAG_ */
    uint16_t tracestate_len;
    char tracestate[PUG_TRACESTATE_MAX];
};

/* Of a message. */
enum { NOTE_ORIGIN = 1, NOTE_SPAN = 2 };

#define STOPWATCH_LEARNS_NS (20 * NS_PER_MS)

struct totals {
    uint64_t sent, received, dropped;
};

struct kind {
    char name[PUG_CHANNEL_NAME_MAX + 1];
    char send_span[SPAN_NAME_MAX + 1], recv_span[SPAN_NAME_MAX + 1];
    struct pug__site send_site, recv_site;
    int64_t spans_per_second; /* INT64_MAX: all */

    /* under registry.lock */
    struct totals gone;   /* of channels that were freed */
    struct totals before; /* of the process that forked us */
    int64_t owed_ns;      /* of the budget: parts of a span */

    _Alignas(64) _Atomic int64_t send_budget;
    /* who waited for room, in microseconds */
    _Alignas(64) _Atomic uint64_t waited_sum, waited_max;
    _Atomic uint64_t waits[WAIT_BUCKETS]; /* by histogram_index() + 1 */
};

struct pug_channel {
    struct pug_queue *queue;
    struct kind *kind;
    struct origin *origins; /* of each cell; its page is touched when there is one */
    size_t element_bytes;
    struct pug_channel *next, **link; /* under registry.lock */

    _Alignas(64) _Atomic uint64_t dropped;
    _Atomic uint64_t depth_peak; /* of those that were looked at, since the drain asked */
};

static struct {
    pthread_mutex_t lock;
    struct kind *kinds[PUG_CHANNEL_NAMES_MAX];
    size_t n_kinds;
    struct pug_channel *channels;
    uint64_t since_ns; /* of the epoch: when the first was made */
    bool has_atfork;
} registry = {.lock = PTHREAD_MUTEX_INITIALIZER};

struct reading {
    uint64_t tick, ns;
};

static struct {
    struct reading begun;  /* when the first channel was made */
    uint32_t source;       /* of ticks_now() */
    _Atomic uint64_t rate; /* ns per tick, 32 bits after the point; 0: not known yet */
} stopwatch;

/* Both clocks at one moment: of a few tries the one that took the shortest. */
static struct reading clocks_read(void)
{
    struct reading best = {0, 0};
    uint64_t narrowest = UINT64_MAX;
    for (int i = 0; i < 4; i++) {
        uint64_t before = ticks_now(stopwatch.source), ns = clock_monotonic_ns();
        uint64_t width = ticks_now(stopwatch.source) - before;
        if (width >= narrowest)
            continue;
        narrowest = width;
        best = (struct reading){before + width / 2, ns};
    }
    return best;
}

static uint64_t relaxed(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

static void count(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

/* ---- the registry ---- */

static struct totals totals_of(const struct pug_channel *c)
{
    /* Received first, so that it is never more than sent. */
    uint64_t received = pug_queue_received(c->queue);
    return (struct totals){
        .sent = pug_queue_sent(c->queue), .received = received, .dropped = relaxed(&c->dropped)};
}

static void totals_add(struct totals *into, struct totals t)
{
    into->sent += t.sent;
    into->received += t.received;
    into->dropped += t.dropped;
}

static void before_fork(void)
{
    pthread_mutex_lock(&registry.lock);
}

static void after_fork(void)
{
    pthread_mutex_unlock(&registry.lock);
}

/* The child has copies of the channels, and counts from here. */
static void in_child(void)
{
    for (size_t i = 0; i < registry.n_kinds; i++) {
        struct kind *k = registry.kinds[i];
        k->before = k->gone;
        for (struct pug_channel *c = registry.channels; c; c = c->next)
            if (c->kind == k)
                totals_add(&k->before, totals_of(c));
        atomic_store(&k->waited_sum, 0);
        atomic_store(&k->waited_max, 0);
        memset((void *)k->waits, 0, sizeof k->waits);
    }
    registry.since_ns = clock_realtime_ns();
    pthread_mutex_init(&registry.lock, NULL);
}

static void site_init(struct pug__site *site, uint8_t kind, const char *name)
{
    *site = (struct pug__site){.kind = kind, .name = name, .file = "", .function = ""};
}

static struct kind *kind_new(const struct pug_channel_options *o, const char *name)
{
    struct kind *k = aligned_alloc(_Alignof(struct kind), sizeof *k);
    if (!k)
        return NULL;
    memset((void *)k, 0, sizeof *k);
    snprintf(k->name, sizeof k->name, "%s", name);
    if (o->send_span)
        snprintf(k->send_span, sizeof k->send_span, "%s", o->send_span);
    else
        snprintf(k->send_span, sizeof k->send_span, "channel.%s_send", k->name);
    if (o->recv_span)
        snprintf(k->recv_span, sizeof k->recv_span, "%s", o->recv_span);
    else
        snprintf(k->recv_span, sizeof k->recv_span, "channel.%s_recv", k->name);
    site_init(&k->send_site, PUG_KIND_PRODUCER, k->send_span);
    site_init(&k->recv_site, PUG_KIND_CONSUMER, k->recv_span);
    unsigned rate = o->spans_per_second;
    k->spans_per_second = rate == 0                       ? PUG_CHANNEL_SPANS_DEFAULT
                          : rate == PUG_CHANNEL_NO_SPANS  ? 0
                          : rate == PUG_CHANNEL_ALL_SPANS ? INT64_MAX
                                                          : (int64_t)rate;
    atomic_init(&k->send_budget, k->spans_per_second);
    return k;
}

/* With the lock held. */
static struct kind *kind_of(const struct pug_channel_options *o)
{
    char name[PUG_CHANNEL_NAME_MAX + 1];
    struct pug_channel_options none = {.size = sizeof none};
    snprintf(name, sizeof name, "%s", o->name ? o->name : "channel");
    for (size_t i = 0; i < registry.n_kinds; i++)
        if (strcmp(registry.kinds[i]->name, name) == 0)
            return registry.kinds[i];
    if (registry.n_kinds == PUG_CHANNEL_NAMES_MAX)
        return registry.kinds[PUG_CHANNEL_NAMES_MAX - 1];
    struct kind *k = registry.n_kinds == PUG_CHANNEL_NAMES_MAX - 1 ? kind_new(&none, "(other)")
                                                                   : kind_new(o, name);
    if (k)
        registry.kinds[registry.n_kinds++] = k;
    return k;
}

/* With the lock held. */
static int enter(struct pug_channel *c, const struct pug_channel_options *o)
{
    if (!registry.has_atfork) {
        if (pthread_atfork(before_fork, after_fork, in_child) != 0)
            return PUG_ERR_NOMEM;
        registry.has_atfork = true;
        stopwatch.source = ticks_source();
        stopwatch.begun = clocks_read();
        registry.since_ns = clock_realtime_ns();
    }
    c->kind = kind_of(o);
    if (!c->kind)
        return PUG_ERR_NOMEM;
    c->next = registry.channels;
    c->link = &registry.channels;
    if (c->next)
        c->next->link = &c->next;
    registry.channels = c;
    return 0;
}

static void channel_dispose(struct pug_channel *c)
{
    pug_queue_free(c->queue);
    free(c->origins);
    free(c);
}

int pug_channel_new(const struct pug_channel_options *options, struct pug_channel **ret)
{
    struct pug_channel_options o = {.size = 0};
    int errno_before = errno;
    ALLOC_OURS;
    if (!options || options->size < offsetof(struct pug_channel_options, send_span) ||
        options->size > 4096)
        return PUG_ERR_INVALID;
    memcpy(&o, options, options->size < sizeof o ? options->size : sizeof o);
    if (o.element_bytes == 0 || o.element_bytes > SIZE_MAX / 2)
        return PUG_ERR_INVALID;
    struct pug_channel *c = aligned_alloc(_Alignof(struct pug_channel), sizeof *c);
    int err = c ? 0 : PUG_ERR_NOMEM;
    if (!err) {
        memset((void *)c, 0, sizeof *c);
        c->element_bytes = o.element_bytes;
        err = pug_queue_new(o.element_bytes, o.capacity, &c->queue);
    }
    if (!err && !(c->origins = calloc(o.capacity, sizeof *c->origins)))
        err = PUG_ERR_NOMEM;
    if (!err) {
        pthread_mutex_lock(&registry.lock);
        err = enter(c, &o);
        pthread_mutex_unlock(&registry.lock);
    }
    if (!err)
        *ret = c;
    else if (c)
        channel_dispose(c);
    errno = errno_before;
    return err;
}

void pug_channel_free(struct pug_channel *c)
{
    ALLOC_OURS;
    if (!c)
        return;
    pthread_mutex_lock(&registry.lock);
    totals_add(&c->kind->gone, totals_of(c));
    *c->link = c->next;
    if (c->next)
        c->next->link = c->link;
    pthread_mutex_unlock(&registry.lock);
    channel_dispose(c);
}

/* ---- spans ---- */

static bool budget_take(struct kind *k)
{
    if (k->spans_per_second == INT64_MAX)
        return true;
    if (atomic_load_explicit(&k->send_budget, memory_order_relaxed) <= 0)
        return false;
    return atomic_fetch_sub_explicit(&k->send_budget, 1, memory_order_relaxed) > 0;
}

/* ---- send ---- */

/* The note of a message that is sent here. */
static unsigned origin_write(const struct pug_channel *c, const struct pug__ticket *t)
{
    struct pug_context from;
    if (!span_has_context())
        return 0;
    span_current_context(&from);
    if (!pug_context_valid(&from))
        return 0;
    struct origin *o = &c->origins[t->index];
    memcpy(o->trace_id, from.trace_id, 16);
    memcpy(o->span_id, from.span_id, 8);
    o->flags = from.flags;
    o->tracestate_len = from.tracestate_len;
    memcpy(o->tracestate, from.tracestate, from.tracestate_len);
    return NOTE_ORIGIN;
}

static void waited(struct kind *k, uint64_t us)
{
    unsigned at = us ? (unsigned)(histogram_index(us) + 1) : WAIT_BUCKETS;
    if (at >= WAIT_BUCKETS) /* not even a microsecond, or longer than anybody waits */
        return;
    count(&k->waits[at], 1);
    count(&k->waited_sum, us);
    uint64_t max = relaxed(&k->waited_max);
    while (us > max && !atomic_compare_exchange_weak(&k->waited_max, &max, us))
        ;
}

/* Waits are taken by the CPU's counter, at half the price of the clock. How fast it goes is found out here, for tracing may
 * never have been started; not exactly, but a ten-thousandth is nothing to a histogram. */
static uint64_t stopwatch_rate(void)
{
    uint64_t rate = relaxed(&stopwatch.rate);
    if (rate)
        return rate;
    struct reading now = clocks_read();
    uint64_t ns = now.ns - stopwatch.begun.ns, ticks = now.tick - stopwatch.begun.tick;
    if (ns < STOPWATCH_LEARNS_NS || !ticks)
        return 0;
    rate = (uint64_t)((double)ns * 0x1p32 / (double)ticks);
    atomic_store_explicit(&stopwatch.rate, rate, memory_order_relaxed);
    return rate;
}

static int claim_waiting(struct pug_channel *c, unsigned timeout_ms, struct pug__ticket *t)
{
    uint64_t rate = stopwatch_rate();
    uint64_t begun = rate ? ticks_now(stopwatch.source) : clock_monotonic_ns();
    int code = pug__queue_wait(c->queue, 1, timeout_ms, t);
    if (code == 0) {
        uint64_t now = rate ? ticks_now(stopwatch.source) : clock_monotonic_ns();
        uint64_t took = now > begun ? now - begun : 0;
        uint64_t ns = rate ? (uint64_t)((unsigned __int128)took * rate >> 32) : took;
        waited(c->kind, ns / NS_PER_US);
    }
    return code;
}

static void depth_look(struct pug_channel *c, uint64_t position)
{
    if (pug__queue_count(c->queue, position) % DEPTH_EVERY)
        return;
    uint64_t received = pug_queue_received(c->queue), sent = pug_queue_sent(c->queue);
    uint64_t depth = sent > received ? sent - received : 0, peak = relaxed(&c->depth_peak);
    while (depth > peak && !atomic_compare_exchange_weak(&c->depth_peak, &peak, depth))
        ;
}

static int send_(struct pug_channel *c, const void *element, bool waits, unsigned timeout_ms)
{
    struct pug__ticket t;
    struct pug__lane *lane = PUG__ON && budget_take(c->kind) ? pug__lane_get() : NULL;
    struct pug__slot *scope = lane ? pug__begin_bare(lane, &c->kind->send_site) : NULL;
    int code = pug__queue_claim(c->queue, &t);
    if (code == PUG_ERR_FULL && waits)
        code = claim_waiting(c, timeout_ms, &t);
    if (code == 0) {
        uint64_t position = t.stamp - 1;
        unsigned note = origin_write(c, &t) | (scope ? NOTE_SPAN : 0);
        memcpy(t.cell + sizeof(uint64_t), element, c->element_bytes);
        t.stamp |= (uint64_t)note << PUG__QUEUE_NOTE_SHIFT;
        pug__queue_put(&t, &c->queue->items);
        depth_look(c, position);
    } else if (code != PUG_ERR_CLOSED) {
        count(&c->dropped, 1);
    }
    if (scope) {
        if (code != 0)
            pug_error(PUG_CURRENT, code == PUG_ERR_CLOSED ? "closed" : "full");
        pug__end(&scope);
    }
    return code;
}

int pug_channel_send(struct pug_channel *c, const void *element, unsigned timeout_ms)
{
    return send_(c, element, true, timeout_ms);
}

int pug_channel_try_send(struct pug_channel *c, const void *element)
{
    return send_(c, element, false, 0);
}

/* ---- receive ---- */

/* The receive is over, and began at `begun`. */
static void span_of_receive(struct lane *lane, struct kind *k, const struct pug_context *from,
                            uint64_t begun)
{
    struct pug__slot *attached = NULL, *scope;
    bool alone = lane->fast.top == lane->slots;
    if (alone)
        attached = lane_attach(lane, from, false);
    scope = pug__begin_bare(&lane->fast, &k->recv_site);
    if (scope) {
        if (!alone) {
            /* Nothing of this thread lies between: it was in here. */
            __atomic_store_n(&scope->start, begun, __ATOMIC_RELEASE);
            pug_link(PUG_CURRENT, from);
        }
        pug__end(&scope);
    }
    if (attached)
        pug__detach(attached);
}

static void origin_read(const struct pug_channel *c, const struct pug__ticket *t,
                        struct pug_context *ret)
{
    const struct origin *o = &c->origins[t->index];
    span_context_clear(ret);
    if (!(t->note & NOTE_ORIGIN))
        return;
    memcpy(ret->trace_id, o->trace_id, 16);
    memcpy(ret->span_id, o->span_id, 8);
    ret->flags = o->flags;
    ret->tracestate_len = o->tracestate_len;
    memcpy(ret->tracestate, o->tracestate, o->tracestate_len);
}

static int recv_(struct pug_channel *c, void *ret_element, bool waits, unsigned timeout_ms,
                 struct pug_context *ret_from)
{
    struct pug__ticket t;
    struct pug_context own, *from = ret_from ? ret_from : &own;
    struct pug__lane *lane = PUG__ON ? pug__lane_get() : NULL;
    uint64_t begun = 0;
    int code = pug__queue_take(c->queue, &t);
    if (code == PUG_ERR_EMPTY && waits) {
        begun = lane ? pug__ticks(lane->clock) : 0;
        code = pug__queue_wait(c->queue, 0, timeout_ms, &t);
    }
    if (code != 0) {
        if (ret_from)
            span_context_clear(ret_from);
        return code;
    }
    memcpy(ret_element, t.cell + sizeof(uint64_t), c->element_bytes);
    bool span = lane && (t.note & NOTE_SPAN);
    if (ret_from || span)
        origin_read(c, &t, from);
    pug__queue_put(&t, &c->queue->space);
    if (span)
        span_of_receive(lane_of(lane), c->kind, from, begun ? begun : pug__ticks(lane->clock));
    return 0;
}

int pug_channel_recv(struct pug_channel *c, void *ret_element, unsigned timeout_ms,
                     struct pug_context *ret_from)
{
    return recv_(c, ret_element, true, timeout_ms, ret_from);
}

int pug_channel_try_recv(struct pug_channel *c, void *ret_element, struct pug_context *ret_from)
{
    return recv_(c, ret_element, false, 0, ret_from);
}

void pug_channel_close(struct pug_channel *c)
{
    pug_queue_close(c->queue);
}

void pug_channel_counts_read(const struct pug_channel *c, struct pug_channel_counts *ret_counts)
{
    struct totals t = totals_of(c);
    struct pug_channel_counts all = {.sent = t.sent, .received = t.received, .dropped = t.dropped};
    size_t size = ret_counts->size;
    if (size < sizeof all.size || size > 4096)
        size = sizeof all.size;
    memset(ret_counts, 0, size);
    memcpy(ret_counts, &all, size < sizeof all ? size : sizeof all);
    ret_counts->size = size;
}

/* ---- the drain's ---- */

void channels_refill(uint64_t since_ns)
{
    pthread_mutex_lock(&registry.lock);
    for (size_t i = 0; i < registry.n_kinds; i++) {
        struct kind *k = registry.kinds[i];
        int64_t rate = k->spans_per_second, now = atomic_load(&k->send_budget);
        if (rate == 0 || rate == INT64_MAX || now >= rate)
            continue;
        if (since_ns > NS_PER_S)
            since_ns = NS_PER_S;
        k->owed_ns += (int64_t)since_ns * rate;
        int64_t more = k->owed_ns / (int64_t)NS_PER_S;
        k->owed_ns %= (int64_t)NS_PER_S;
        atomic_fetch_add(&k->send_budget, now + more < rate ? more : rate - now);
    }
    pthread_mutex_unlock(&registry.lock);
}

struct seen {
    struct totals totals;
    uint64_t depth, peak; /* of all channels of the name; of the deepest */
};

static void look(const struct kind *k, struct seen *ret)
{
    *ret = (struct seen){.totals = k->gone};
    for (struct pug_channel *c = registry.channels; c; c = c->next) {
        if (c->kind != k)
            continue;
        struct totals t = totals_of(c);
        totals_add(&ret->totals, t);
        uint64_t depth = t.sent - t.received, peak = atomic_exchange(&c->depth_peak, 0);
        ret->depth += depth;
        peak = peak > depth ? peak : depth;
        ret->peak = peak > ret->peak ? peak : ret->peak;
    }
    ret->totals.sent -= k->before.sent;
    ret->totals.received -= k->before.received;
    ret->totals.dropped -= k->before.dropped;
}

static void wait_point(struct metric_list *l, struct metric_point *p, const struct kind *k,
                       uint64_t sent)
{
    static uint64_t copy[WAIT_BUCKETS]; /* the drain's alone, as the lock is held */
    struct histogram h = {.min = 0, .max = relaxed(&k->waited_max)};
    uint64_t n = 0;
    for (unsigned i = 0; i < WAIT_BUCKETS; i++)
        n += copy[i] = relaxed(&k->waits[i]);
    for (unsigned i = 0; i < WAIT_OCTAVES; i++)
        h.pages[i] = copy + i * HISTOGRAM_OCTAVE;
    h.sum = relaxed(&k->waited_sum);
    h.zero_count = sent > n ? sent - n : 0;
    h.count = h.zero_count + n;
    for (unsigned i = 0; h.zero_count == 0 && i < WAIT_BUCKETS; i++) {
        if (copy[i]) { /* the border below it is near enough for a minimum */
            h.min = i ? UINT64_C(1) << (i - 1) / HISTOGRAM_OCTAVE : 1;
            break;
        }
    }
    metric_list_histogram(l, p, &h);
}

static struct seen seen[PUG_CHANNEL_NAMES_MAX]; /* under the lock */

static void add_gauge(struct metric_list *l, const struct attrs *names, size_t n, const char *name,
                      const char *text, size_t at)
{
    struct metric what = {.name = str_from(name),
                          .description = str_from(text),
                          .unit = STR("{message}"),
                          .type = METRIC_GAUGE};
    struct metric_point *p = metric_list_add(l, what, n);
    for (size_t i = 0; p && i < n; i++) {
        p[i].attrs = names[i];
        memcpy(&p[i].integer, (const char *)&seen[i] + at, sizeof p[i].integer);
    }
}

void channels_measure(struct metric_list *l)
{
    static const struct {
        const char *name, *text;
        size_t at;
    } sums[] = {
        {"channel.sent", "Messages that were sent", offsetof(struct totals, sent)},
        {"channel.received", "Messages that were received", offsetof(struct totals, received)},
        {"channel.dropped", "Messages that were not sent because the channel was full",
         offsetof(struct totals, dropped)},
    };
    struct metric_point *p;
    pthread_mutex_lock(&registry.lock);
    size_t n = registry.n_kinds;
    struct attrs *names = arena_array(&l->arena, n, sizeof *names);
    if (!names)
        n = 0;
    for (size_t i = 0; i < n; i++) {
        look(registry.kinds[i], &seen[i]);
        names[i] = metric_list_attr(l, STR("channel"), str_from(registry.kinds[i]->name));
    }
    for (size_t s = 0; s < sizeof sums / sizeof sums[0]; s++) {
        struct metric what = {.name = str_from(sums[s].name),
                              .description = str_from(sums[s].text),
                              .unit = STR("{message}"),
                              .type = METRIC_SUM,
                              .temporality = METRIC_CUMULATIVE,
                              .monotonic = true};
        if (!(p = metric_list_add(l, what, n)))
            break;
        for (size_t i = 0; i < n; i++) {
            p[i].attrs = names[i];
            p[i].start_ns = registry.since_ns;
            memcpy(&p[i].integer, (const char *)&seen[i].totals + sums[s].at, sizeof(uint64_t));
        }
    }
    add_gauge(l, names, n, "channel.queue_depth", "Messages that are waiting",
              offsetof(struct seen, depth));
    add_gauge(l, names, n, "channel.queue_depth_peak",
              "The most that waited since the last time, of every 16th send",
              offsetof(struct seen, peak));
    p = metric_list_add(l,
                        (struct metric){.name = STR("channel.backpressure_latency_us"),
                                        .description = STR("How long sends waited for room"),
                                        .unit = STR("us"),
                                        .type = METRIC_EXP_HISTOGRAM,
                                        .temporality = METRIC_CUMULATIVE},
                        n);
    for (size_t i = 0; p && i < n; i++) {
        p[i].attrs = names[i];
        p[i].start_ns = registry.since_ns;
        wait_point(l, &p[i], registry.kinds[i], seen[i].totals.sent);
    }
    pthread_mutex_unlock(&registry.lock);
}
