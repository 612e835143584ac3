/* Queues and channels with many threads: nothing is lost, nothing comes twice, and the counts say
 * so exactly. */
#include "base/clock.h"
#include "base/test.h"
#include "pugmark/channel.h"
#include "sdk/channel.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define SOON 20000 /* ms: longer than any machine needs, shorter than the test's time limit */

static struct pug_channel *channel(const char *name, size_t bytes, size_t capacity)
{
    struct pug_channel_options o = {
        .size = sizeof o, .name = name, .element_bytes = bytes, .capacity = capacity};
    struct pug_channel *c = NULL;
    assert_int_equal(pug_channel_new(&o, &c), 0);
    return c;
}

static struct pug_channel_counts counts(const struct pug_channel *c)
{
    struct pug_channel_counts n = {.size = sizeof n};
    pug_channel_counts_read(c, &n);
    return n;
}

/* ---- where a message comes from ---- */

static void only_a_message_with_a_context_has_one(void **state)
{
    struct pug_options o = {.size = sizeof o,
                            .tracing = PUG_TRACING_ON,
                            .backend = PUG_BACKEND_DISCARD,
                            .config_file = ""};
    /* Without spans: the one around a send would be where the message comes from. */
    struct pug_channel_options bare = {.size = sizeof bare,
                                       .name = "origins",
                                       .element_bytes = sizeof(int),
                                       .capacity = 2,
                                       .spans_per_second = PUG_CHANNEL_NO_SPANS};
    struct pug_channel *c = NULL;
    struct pug_context sent, from;
    int got = -1;
    assert_int_equal(pug_channel_new(&bare, &c), 0);
    assert_int_equal(pug_start(&o), 0);
    /* Each cell is used with and without, lap by lap. */
    for (int i = 0; i < 12; i++) {
        bool with = i % 3 != 0;
        {
            struct pug_context remote;
            pug_context_from_hex(&remote, "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
            remote.tracestate_len = (uint16_t)(i % 2 ? 7 : 0);
            memcpy(remote.tracestate, "a=1,b=2", 7);
            PUG_ATTACH(with ? &remote : NULL);
            sent = pug_context_current();
            assert_int_equal(pug_context_valid(&sent), with);
            assert_int_equal(pug_channel_send(c, &i, 0), 0);
        }
        assert_int_equal(pug_channel_recv(c, &got, 0, &from), 0);
        assert_int_equal(got, i);
        assert_int_equal(pug_context_valid(&from), with);
        if (!with)
            continue;
        assert_memory_equal(from.trace_id, sent.trace_id, 16);
        assert_int_equal(from.tracestate_len, sent.tracestate_len);
        assert_memory_equal(from.tracestate, sent.tracestate, sent.tracestate_len);
    }
    assert_int_equal(pug_stop(), 0);
    pug_channel_free(c);
}

/* ---- one thread ---- */

static void a_queue_holds_exactly_its_capacity(void **state)
{
    (void)state;
    static const size_t capacities[] = {1, 2, 3, 4, 5, 7, 8, 9, 100};
    for (size_t i = 0; i < sizeof capacities / sizeof capacities[0]; i++) {
        struct pug_queue *q = NULL;
        uint32_t next_in = 0, next_out = 0, got;
        assert_int_equal(pug_queue_new(sizeof got, capacities[i], &q), 0);
        for (int lap = 0; lap < 5; lap++) {
            for (size_t k = 0; k < capacities[i]; k++, next_in++)
                assert_int_equal(pug_queue_try_send(q, &next_in), 0);
            assert_int_equal(pug_queue_try_send(q, &next_in), PUG_ERR_FULL);
            assert_int_equal(pug_queue_sent(q), next_in);
            /* One out, one in: it goes around. */
            for (size_t k = 0; k < capacities[i] / 2; k++) {
                assert_int_equal(pug_queue_try_recv(q, &got), 0);
                assert_int_equal(got, next_out++);
                assert_int_equal(pug_queue_received(q), next_out);
                assert_int_equal(pug_queue_try_send(q, &next_in), 0);
                next_in++;
            }
            while (next_out < next_in) {
                assert_int_equal(pug_queue_try_recv(q, &got), 0);
                assert_int_equal(got, next_out++);
            }
        }
        assert_int_equal(pug_queue_try_recv(q, &got), PUG_ERR_EMPTY);
        pug_queue_free(q);
    }
    pug_queue_free(NULL);
}

static void a_queue_works_without_any_channel(void **state)
{
    (void)state;
    struct pug_queue *q = NULL;
    int in = 7, out = 0;
    if (pug_queue_new(sizeof in, 2, &q) != 0 || !q) {
        fail();
        return;
    }
    assert_int_equal(pug_queue_send(q, &in, SOON), 0);
    pug_queue_close(q);
    assert_int_equal(pug_queue_send(q, &in, SOON), PUG_ERR_CLOSED);
    assert_int_equal(pug_queue_recv(q, &out, SOON), 0);
    assert_int_equal(out, 7);
    assert_int_equal(pug_queue_recv(q, &out, SOON), PUG_ERR_CLOSED);
    pug_queue_free(q);
}

static void what_makes_no_queue_is_refused(void **state)
{
    (void)state;
    struct pug_queue *q = NULL;
    struct pug_channel *c = NULL;
    struct pug_channel_options o = {.size = sizeof o, .element_bytes = 8, .capacity = 4};
    assert_int_equal(pug_queue_new(0, 4, &q), PUG_ERR_INVALID);
    assert_int_equal(pug_queue_new(8, 0, &q), PUG_ERR_INVALID);
    assert_int_equal(pug_queue_new(8, (size_t)PUG_QUEUE_CAPACITY_MAX + 1, &q), PUG_ERR_INVALID);
    assert_int_equal(pug_queue_new(SIZE_MAX, 1, &q), PUG_ERR_INVALID);
    assert_int_equal(pug_queue_new(SIZE_MAX / 4, 8, &q), PUG_ERR_INVALID);
    assert_null(q);
    assert_int_equal(pug_channel_new(NULL, &c), PUG_ERR_INVALID);
    o.size = 0;
    assert_int_equal(pug_channel_new(&o, &c), PUG_ERR_INVALID);
    o.size = sizeof o;
    o.element_bytes = 0;
    assert_int_equal(pug_channel_new(&o, &c), PUG_ERR_INVALID);
    o.element_bytes = SIZE_MAX;
    assert_int_equal(pug_channel_new(&o, &c), PUG_ERR_INVALID);
    o.element_bytes = 8;
    o.capacity = 0;
    assert_int_equal(pug_channel_new(&o, &c), PUG_ERR_INVALID);
    assert_null(c);
    pug_channel_free(NULL);
}

static void waiting_ends_in_time_and_keeps_errno(void **state)
{
    (void)state;
    struct pug_channel *c = channel("timeout", 4, 1);
    int v = 1, got;
    errno = 4711;
    assert_int_equal(pug_channel_recv(c, &got, 20, NULL), PUG_ERR_TIMEOUT);
    assert_int_equal(pug_channel_try_recv(c, &got, NULL), PUG_ERR_EMPTY);
    assert_int_equal(pug_channel_send(c, &v, 0), 0);
    assert_int_equal(pug_channel_send(c, &v, 20), PUG_ERR_TIMEOUT);
    assert_int_equal(pug_channel_send(c, &v, 0), PUG_ERR_TIMEOUT);
    assert_int_equal(pug_channel_try_send(c, &v), PUG_ERR_FULL);
    assert_int_equal(errno, 4711);
    struct pug_channel_counts n = counts(c);
    assert_int_equal(n.sent, 1);
    assert_int_equal(n.received, 0);
    assert_int_equal(n.dropped, 3);
    pug_channel_free(c);
}

static void what_was_sent_before_the_close_is_received(void **state)
{
    (void)state;
    struct pug_channel *c = channel("closed", 4, 3);
    struct pug_context from = {.flags = 1};
    int v = 7, got = 0;
    assert_int_equal(pug_channel_send(c, &v, PUG_FOREVER), 0);
    pug_channel_close(c);
    pug_channel_close(c);
    assert_int_equal(pug_channel_send(c, &v, PUG_FOREVER), PUG_ERR_CLOSED);
    assert_int_equal(pug_channel_try_send(c, &v), PUG_ERR_CLOSED);
    assert_int_equal(pug_channel_recv(c, &got, PUG_FOREVER, &from), 0);
    assert_int_equal(got, 7);
    assert_false(pug_context_valid(&from)); /* tracing is off */
    assert_int_equal(pug_channel_recv(c, &got, PUG_FOREVER, &from), PUG_ERR_CLOSED);
    assert_int_equal(pug_channel_try_recv(c, &got, NULL), PUG_ERR_CLOSED);
    assert_int_equal(counts(c).dropped, 0); /* closed is not full */
    pug_channel_free(c);
}

static void a_short_struct_of_an_older_program_is_filled_as_far_as_it_goes(void **state)
{
    (void)state;
    struct pug_channel *c = channel("short", 4, 3);
    struct pug_channel_counts n;
    int v = 1;
    memset(&n, 0xff, sizeof n);
    n.size = offsetof(struct pug_channel_counts, dropped);
    assert_int_equal(pug_channel_send(c, &v, 0), 0);
    pug_channel_counts_read(c, &n);
    assert_int_equal(n.sent, 1);
    assert_true(n.dropped == UINT64_MAX);
    pug_channel_free(c);
}

/* ---- many threads ---- */

enum { SENDERS = 3, RECEIVERS = 3, EACH = 20000 };

struct item {
    uint32_t sender, number;
};

struct crowd {
    struct pug_channel *channel;
    bool tries; /* instead of waiting */
    _Atomic uint64_t offered, sent, dropped;
    _Atomic uint64_t received;
    _Atomic uint32_t seen[SENDERS][EACH];
    _Atomic bool disorder;
};

struct member {
    pthread_t thread;
    struct crowd *crowd;
    uint32_t number;
};

static void *sends(void *arg)
{
    struct member *m = arg;
    struct crowd *c = m->crowd;
    for (uint32_t i = 0; i < EACH; i++) {
        struct item item = {m->number, i};
        int code = c->tries ? pug_channel_try_send(c->channel, &item)
                            : pug_channel_send(c->channel, &item, SOON);
        atomic_fetch_add(&c->offered, 1);
        if (code == 0)
            atomic_fetch_add(&c->sent, 1);
        else if (code == PUG_ERR_FULL)
            atomic_fetch_add(&c->dropped, 1);
    }
    return NULL;
}

static void *receives(void *arg)
{
    struct member *m = arg;
    struct crowd *c = m->crowd;
    uint32_t last[SENDERS] = {0};
    struct item item;
    while (pug_channel_recv(c->channel, &item, SOON, NULL) == 0) {
        if (item.sender >= SENDERS || item.number >= EACH)
            break;
        /* What one receiver gets of one sender is in its order. */
        if (item.number + 1 <= last[item.sender])
            atomic_store(&c->disorder, true);
        last[item.sender] = item.number + 1;
        atomic_fetch_add(&c->seen[item.sender][item.number], 1);
        atomic_fetch_add(&c->received, 1);
    }
    return NULL;
}

static void crowd_run(size_t capacity, bool tries)
{
    static struct crowd c;
    struct member senders[SENDERS], receivers[RECEIVERS];
    memset((void *)&c, 0, sizeof c);
    c.channel = channel("crowd", sizeof(struct item), capacity);
    c.tries = tries;
    for (uint32_t i = 0; i < RECEIVERS; i++) {
        receivers[i] = (struct member){.crowd = &c, .number = i};
        assert_int_equal(pthread_create(&receivers[i].thread, NULL, receives, &receivers[i]), 0);
    }
    for (uint32_t i = 0; i < SENDERS; i++) {
        senders[i] = (struct member){.crowd = &c, .number = i};
        assert_int_equal(pthread_create(&senders[i].thread, NULL, sends, &senders[i]), 0);
    }
    for (int i = 0; i < SENDERS; i++)
        pthread_join(senders[i].thread, NULL);
    pug_channel_close(c.channel);
    for (int i = 0; i < RECEIVERS; i++)
        pthread_join(receivers[i].thread, NULL);
    struct pug_channel_counts n = counts(c.channel);
    assert_int_equal(c.offered, SENDERS * EACH);
    assert_int_equal(c.sent + c.dropped, c.offered);
    assert_int_equal(n.sent, c.sent);
    assert_int_equal(n.received, c.received);
    assert_int_equal(n.received, n.sent);
    assert_int_equal(n.dropped, c.dropped);
    if (!tries)
        assert_int_equal(n.dropped, 0);
    uint64_t seen = 0;
    for (int s = 0; s < SENDERS; s++) {
        for (int i = 0; i < EACH; i++) {
            assert_true(c.seen[s][i] <= 1);
            seen += c.seen[s][i];
        }
    }
    assert_int_equal(seen, n.sent);
    assert_false(c.disorder);
    pug_channel_free(c.channel);
}

static void every_message_of_many_threads_arrives_once(void **state)
{
    (void)state;
    crowd_run(1, false);
    crowd_run(7, false);
    crowd_run(256, false);
}

static void what_is_dropped_under_overload_is_counted(void **state)
{
    (void)state;
    crowd_run(1, true);
    crowd_run(16, true);
}

static void *waits_to_receive(void *arg)
{
    int got;
    return (void *)(intptr_t)pug_channel_recv(arg, &got, SOON, NULL);
}

static void *waits_to_send(void *arg)
{
    int v = 1;
    return (void *)(intptr_t)pug_channel_send(arg, &v, SOON);
}

static void a_close_wakes_everybody(void **state)
{
    (void)state;
    pthread_t threads[3];
    void *code;
    int v = 1;
    struct pug_channel *empty = channel("close", sizeof v, 1),
                       *full = channel("close", sizeof v, 1);
    assert_int_equal(pug_channel_try_send(full, &v), 0);
    for (int i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, i ? waits_to_receive : waits_to_send, i ? empty : full);
    sched_yield();
    pug_channel_close(empty);
    pug_channel_close(full);
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], &code);
        assert_int_equal((intptr_t)code, PUG_ERR_CLOSED);
    }
    pug_channel_free(empty);
    pug_channel_free(full);
}

static void on_signal(int number)
{
    (void)number;
}

/* A signal interrupts the wait and does not end it. */
static void a_signal_does_not_end_a_wait(void **state)
{
    (void)state;
    struct sigaction a = {.sa_handler = on_signal};
    pthread_t thread;
    void *code;
    int v = 5;
    struct pug_channel *c = channel("signal", sizeof v, 1);
    sigaction(SIGUSR1, &a, NULL);
    pthread_create(&thread, NULL, waits_to_receive, c);
    for (int i = 0; i < 50; i++) {
        pthread_kill(thread, SIGUSR1);
        sched_yield();
    }
    assert_int_equal(pug_channel_send(c, &v, SOON), 0);
    pthread_join(thread, &code);
    assert_int_equal((intptr_t)code, 0);
    pug_channel_free(c);
}

/* ---- metrics ---- */

static const struct metric_point *point(const struct metric_list *l, const char *metric,
                                        const char *name)
{
    for (size_t i = 0; i < l->n; i++) {
        const struct metric *m = &l->metrics[i];
        for (size_t k = 0; str_eq(m->name, str_from(metric)) && k < m->n_points; k++)
            if (m->points[k].attrs.n == 1 &&
                str_eq(m->points[k].attrs.items[0].value.string, str_from(name)))
                return &m->points[k];
    }
    fail_msg("no %s of %s", metric, name);
    return NULL;
}

static void sums_do_not_go_down_when_a_channel_is_gone(void **state)
{
    (void)state;
    struct metric_list l = {.time_ns = 1};
    int v = 1, got;
    struct pug_channel *a = channel("twice", sizeof v, 2), *b = channel("twice", sizeof v, 40);
    for (int i = 0; i < 3; i++)
        (void)!pug_channel_try_send(a, &v);
    for (int i = 0; i < 20; i++)
        assert_int_equal(pug_channel_try_send(b, &v), 0);
    assert_int_equal(pug_channel_try_recv(a, &got, NULL), 0);
    channels_measure(&l);
    assert_int_equal(point(&l, "channel.sent", "twice")->integer, 22);
    assert_int_equal(point(&l, "channel.received", "twice")->integer, 1);
    assert_int_equal(point(&l, "channel.dropped", "twice")->integer, 1);
    assert_int_equal(point(&l, "channel.queue_depth", "twice")->integer, 1 + 20);
    assert_int_equal(point(&l, "channel.queue_depth_peak", "twice")->integer, 20);
    for (int i = 0; i < 20; i++)
        assert_int_equal(pug_channel_try_recv(b, &got, NULL), 0);
    for (int i = 0; i < 12; i++)
        assert_int_equal(pug_channel_try_send(b, &v), 0);
    assert_int_equal(pug_channel_try_send(b, &v), 0); /* the 33rd: one in 16 is looked at */
    for (int i = 0; i < 13; i++)
        assert_int_equal(pug_channel_try_recv(b, &got, NULL), 0);
    l.n = 0;
    channels_measure(&l);
    assert_int_equal(point(&l, "channel.queue_depth", "twice")->integer, 1);
    assert_int_equal(point(&l, "channel.queue_depth_peak", "twice")->integer, 13);
    const struct metric_point *waits = point(&l, "channel.backpressure_latency_us", "twice");
    assert_int_equal(waits->histogram.count, 35);
    assert_int_equal(waits->histogram.zero_count, 35);
    pug_channel_free(a);
    pug_channel_free(b);
    l.n = 0;
    channels_measure(&l);
    assert_int_equal(point(&l, "channel.sent", "twice")->integer, 22 + 13);
    assert_int_equal(point(&l, "channel.received", "twice")->integer, 1 + 33);
    assert_int_equal(point(&l, "channel.dropped", "twice")->integer, 1);
    assert_int_equal(point(&l, "channel.queue_depth", "twice")->integer, 0);
    arena_done(&l.arena);
}

static void a_send_that_waited_is_in_the_histogram(void **state)
{
    (void)state;
    struct metric_list l = {.time_ns = 1};
    uint64_t in_buckets = 0, deadline = clock_monotonic_ns() + SOON * NS_PER_MS;
    int v = 1, got, rounds = 0;
    struct pug_channel *c = channel("pressed", sizeof v, 1);
    /* Whether the sender waits before we receive cannot be seen from here: once it will. */
    while (in_buckets == 0 && clock_monotonic_ns() < deadline) {
        pthread_t thread;
        void *code;
        assert_int_equal(pug_channel_try_send(c, &v), 0);
        pthread_create(&thread, NULL, waits_to_send, c);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        for (int i = 0; i < 2; i++)
            assert_int_equal(pug_channel_recv(c, &got, SOON, NULL), 0);
        pthread_join(thread, &code);
        assert_int_equal((intptr_t)code, 0);
        rounds++;
        l.n = 0;
        channels_measure(&l);
        const struct metric_exp_histogram *h =
            &point(&l, "channel.backpressure_latency_us", "pressed")->histogram;
        for (size_t i = 0; i < h->positive.n; i++)
            in_buckets += h->positive.counts[i];
        assert_int_equal(h->count, 2 * rounds);
        assert_int_equal(h->zero_count + in_buckets, h->count);
    }
    const struct metric_exp_histogram *h =
        &point(&l, "channel.backpressure_latency_us", "pressed")->histogram;
    assert_int_equal(in_buckets, 1);
    assert_true(h->max >= 1 && h->sum == h->max);
    pug_channel_free(c);
    arena_done(&l.arena);
}

static void a_child_counts_from_the_fork_on(void **state)
{
    (void)state;
    int v = 1, status;
    struct pug_channel *c = channel("forked", sizeof v, 8);
    assert_int_equal(pug_channel_try_send(c, &v), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct metric_list l = {.time_ns = 1};
        int got, ok = pug_channel_try_send(c, &v) == 0 && pug_channel_try_recv(c, &got, NULL) == 0;
        channels_measure(&l);
        ok = ok && point(&l, "channel.sent", "forked")->integer == 1 &&
             point(&l, "channel.received", "forked")->integer == 1;
        _exit(ok ? 0 : 1);
    }
    waitpid(pid, &status, 0);
    assert_int_equal(status, 0);
    pug_channel_free(c);
}

static void names_are_bounded(void **state)
{
    (void)state;
    struct metric_list l = {.time_ns = 1};
    char name[16];
    int v = 1;
    for (int i = 0; i < PUG_CHANNEL_NAMES_MAX + 10; i++) {
        snprintf(name, sizeof name, "n%d", i);
        struct pug_channel *c = channel(name, sizeof v, 1);
        assert_int_equal(pug_channel_try_send(c, &v), 0);
        pug_channel_free(c);
    }
    char longest[PUG_CHANNEL_NAME_MAX + 10];
    memset(longest, 'l', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    pug_channel_free(channel(longest, sizeof v, 1)); /* is made all the same */
    channels_measure(&l);
    assert_int_equal(l.metrics[0].n_points, PUG_CHANNEL_NAMES_MAX);
    assert_int_equal(point(&l, "channel.sent", "n0")->integer, 1);
    assert_true(point(&l, "channel.sent", "(other)")->integer >= 11);
    arena_done(&l.arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_queue_holds_exactly_its_capacity),
        cmocka_unit_test(a_queue_works_without_any_channel),
        cmocka_unit_test(what_makes_no_queue_is_refused),
        cmocka_unit_test(waiting_ends_in_time_and_keeps_errno),
        cmocka_unit_test(what_was_sent_before_the_close_is_received),
        cmocka_unit_test(a_short_struct_of_an_older_program_is_filled_as_far_as_it_goes),
        cmocka_unit_test(every_message_of_many_threads_arrives_once),
        cmocka_unit_test(what_is_dropped_under_overload_is_counted),
        cmocka_unit_test(a_close_wakes_everybody),
        cmocka_unit_test(a_signal_does_not_end_a_wait),
        cmocka_unit_test(sums_do_not_go_down_when_a_channel_is_gone),
        cmocka_unit_test(a_send_that_waited_is_in_the_histogram),
        cmocka_unit_test(only_a_message_with_a_context_has_one),
        cmocka_unit_test(a_child_counts_from_the_fork_on),
        cmocka_unit_test(names_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
