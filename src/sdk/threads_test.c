/* Many threads at once, for ThreadSanitizer: scopes, handles that are handed on, threads that come and
 * go, and stop and start underneath them. The sums must add up. */
#include "base/clock.h"
#include "base/test.h"
#include "pugmark/pugmark.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { WORKERS = 4, ROUNDS = 60, SPANS = 50, HANDLES = 8 };

static struct pug_counts counts(void)
{
    struct pug_counts c = {.size = sizeof c};
    pug_counts_read(&c);
    return c;
}

static uint64_t lost(const struct pug_counts *c)
{
    return c->lost_ring_full + c->lost_depth + c->lost_no_lane + c->lost_interrupt + c->lost_memory;
}

static _Atomic uint64_t begun;

static void work(int n)
{
    PUG_SPAN("work", PUG_INT("n", n), PUG_STR("text", "hello"));
    atomic_fetch_add(&begun, 1);
    if (n > 0) {
        PUG_FN();
        atomic_fetch_add(&begun, 1);
        pug_event(PUG_CURRENT, "event", PUG_INT("n", n));
    }
}

/* ---- handles go round ---- */

struct baton {
    pthread_mutex_t lock;
    struct pug_span spans[HANDLES];
    bool open[HANDLES];
};

static void pass_on(struct baton *b, int i)
{
    pthread_mutex_lock(&b->lock);
    if (b->open[i]) {
        pug_set_int(&b->spans[i], "ended", i);
        pug_span_end(&b->spans[i]);
    } else {
        pug_span_start(&b->spans[i], "handle", PUG_INT("i", i));
        atomic_fetch_add(&begun, 1);
    }
    b->open[i] = !b->open[i];
    pthread_mutex_unlock(&b->lock);
}

static void *worker(void *arg)
{
    struct baton *b = arg;
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < SPANS; i++)
            work(i % 3);
        pass_on(b, round % HANDLES);
        struct pug_context c;
        {
            PUG_SPAN("giver");
            atomic_fetch_add(&begun, 1);
            c = pug_context_current();
        }
        PUG_SPAN_FROM(&c, "taker");
        atomic_fetch_add(&begun, 1);
    }
    return NULL;
}

static void *visitor(void *arg)
{
    (void)arg;
    work(1);
    return NULL;
}

static void the_sums_add_up_with_many_threads(void **state)
{
    struct pug_options o = {.size = sizeof o,
                            .tracing = PUG_TRACING_ON,
                            .backend = PUG_BACKEND_DISCARD,
                            .drain_interval_us = 500};
    struct baton *b = calloc(1, sizeof *b);
    pthread_t workers[WORKERS], guest;
    pthread_mutex_init(&b->lock, NULL);
    atomic_store(&begun, 0);
    assert_int_equal(pug_start(&o), 0);
    for (int i = 0; i < WORKERS; i++)
        pthread_create(&workers[i], NULL, worker, b);
    for (int i = 0; i < 50; i++) {
        pthread_create(&guest, NULL, visitor, NULL);
        pthread_join(guest, NULL);
        if (i % 8 == 0)
            assert_int_equal(pug_flush(20000), 0);
    }
    for (int i = 0; i < WORKERS; i++)
        pthread_join(workers[i], NULL);
    for (int i = 0; i < HANDLES; i++)
        if (b->open[i])
            pass_on(b, i);
    assert_int_equal(pug_flush(20000), 0);
    struct pug_counts c = counts();
    assert_int_equal(c.recorded + lost(&c), atomic_load(&begun));
    assert_int_equal(pug_stop(), 0);
    free(b);
}

/* ---- stop and start underneath ---- */

static _Atomic bool ending;

static void *tireless(void *arg)
{
    while (!atomic_load(&ending)) {
        struct pug_span h;
        PUG_SPAN("tireless", PUG_INT("n", 1));
        pug_span_start(&h, "handle");
        work(2);
        pug_span_end(&h);
    }
    return arg;
}

static void stop_and_start_underneath_threads_do_no_harm(void **state)
{
    struct pug_options o = {.size = sizeof o,
                            .tracing = PUG_TRACING_ON,
                            .backend = PUG_BACKEND_DISCARD,
                            .drain_interval_us = 500};
    pthread_t workers[2];
    atomic_store(&ending, false);
    for (int i = 0; i < 2; i++)
        pthread_create(&workers[i], NULL, tireless, NULL);
    for (int i = 0; i < 15; i++) {
        uint64_t before = counts().recorded;
        assert_int_equal(pug_start(&o), 0);
        /* Until something was recorded, or there is no time left: a busy machine lets the workers
         * wait while this thread goes round. */
        uint64_t end = clock_monotonic_ns() + 30 * NS_PER_S;
        while (counts().recorded == before && clock_monotonic_ns() < end)
            pug_flush(20);
        assert_true(counts().recorded > before);
        assert_int_equal(pug_stop(), 0);
    }
    atomic_store(&ending, true);
    for (int i = 0; i < 2; i++)
        pthread_join(workers[i], NULL);
}

static void *one_request(void *arg)
{
    PUG_SPAN("request");
    return arg;
}

/* As a server has it that gives each request a thread. */
static void threads_that_come_and_go_quickly_find_room_before_long(void **state)
{
    enum { BURSTS = 20, BURST = 40 };
    struct pug_options o = {.size = sizeof o,
                            .tracing = PUG_TRACING_ON,
                            .backend = PUG_BACKEND_DISCARD,
                            .drain_interval_us = 5000};
    assert_int_equal(pug_start(&o), 0);
    assert_int_equal(pug_flush(30000), 0); /* what the tests before it left */
    struct pug_counts before = counts();
    for (int i = 0; i < BURSTS; i++) {
        for (int j = 0; j < BURST; j++) {
            pthread_t thread;
            assert_int_equal(pthread_create(&thread, NULL, one_request, NULL), 0);
            pthread_join(thread, NULL);
        }
        /* Twice: what a thread left is read in one round and free in the next. */
        assert_int_equal(pug_flush(30000), 0);
        assert_int_equal(pug_flush(30000), 0);
    }
    /* When all were gone there are as many as ever from then on: only the first burst finds too few. */
    uint64_t lost_no_lane = counts().lost_no_lane - before.lost_no_lane;
    assert_in_range(lost_no_lane, 0, BURST);
    assert_int_equal(counts().recorded - before.recorded + lost_no_lane, BURSTS * BURST);
    assert_int_equal(pug_stop(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_sums_add_up_with_many_threads),
        cmocka_unit_test(stop_and_start_underneath_threads_do_no_harm),
        cmocka_unit_test(threads_that_come_and_go_quickly_find_room_before_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
