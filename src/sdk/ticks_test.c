#include "base/clock.h"
#include "base/test.h"
#include "sdk/ticks.h"

#include <stdlib.h>
#include <time.h>

static void nap_ms(int ms)
{
    nanosleep(&(struct timespec){.tv_nsec = ms * 1000000L}, NULL);
}

static void check_source(uint32_t source)
{
    struct ticks t;
    struct ticks_published published = {0};
    uint64_t before_tick = ticks_now(source);
    assert_true(ticks_init(&t, source));
    nap_ms(5);
    ticks_update(&t, &published);
    uint64_t last = ticks_to_ns(&t, before_tick);
    /* Over several pieces: a tick never goes back, and stays near the wall clock. */
    for (int round = 0; round < 40; round++) {
        nap_ms(3);
        uint64_t first = clock_realtime_ns(), tick = ticks_now(source),
                 second = clock_realtime_ns();
        ticks_update(&t, &published);
        uint64_t ns = ticks_to_ns(&t, tick);
        assert_true(ns >= last);
        /* 20 us: a machine that does other things meanwhile; the map itself is far better. */
        assert_in_range(ns, first - 20000, second + 20000);
        last = ns;
    }
    assert_true(t.n >= 3);
    assert_int_equal(atomic_load(&published.sequence) & 1, 0);
    assert_int_equal(atomic_load(&published.tick), t.pieces[t.n - 1].tick);
    ticks_done(&t);
}

static void ticks_become_the_wall_clock(void **state)
{
    check_source(ticks_source());
    check_source(1);
}

static void pieces_join_without_a_gap(void **state)
{
    struct ticks t;
    assert_true(ticks_init(&t, ticks_source()));
    nap_ms(3);
    ticks_update(&t, NULL);
    for (int i = 0; i < 30; i++) {
        nap_ms(2);
        ticks_update(&t, NULL);
    }
    assert_true(t.n >= 2);
    for (size_t i = 1; i < t.n; i++) {
        uint64_t tick = t.pieces[i].tick;
        uint64_t before = ticks_to_ns(&t, tick - 1), at = ticks_to_ns(&t, tick),
                 after = ticks_to_ns(&t, tick + 1);
        assert_true(before <= at && at <= after);
        assert_true(after - before <= 4);
    }
    ticks_done(&t);
}

static void a_tick_that_was_converted_is_never_moved(void **state)
{
    struct ticks t;
    uint64_t ticks[20], ns[20];
    assert_true(ticks_init(&t, ticks_source()));
    nap_ms(3);
    for (int i = 0; i < 20; i++) {
        nap_ms(2);
        ticks[i] = ticks_now(t.source);
        ticks_update(&t, NULL);
        ns[i] = ticks_to_ns(&t, ticks[i]);
    }
    for (int i = 0; i < 20; i++)
        assert_int_equal(ticks_to_ns(&t, ticks[i]), ns[i]);
    ticks_done(&t);
}

static void the_history_is_bounded(void **state)
{
    struct ticks t;
    assert_true(ticks_init(&t, 1));
    nap_ms(2);
    for (int i = 0; i < 2 * TICKS_PIECES_MAX; i++) {
        t.next_ns = 0;
        ticks_update(&t, NULL);
    }
    assert_true(t.n <= TICKS_PIECES_MAX);
    uint64_t now = ticks_now(1);
    assert_true(ticks_to_ns(&t, now) >= ticks_to_ns(&t, now - NS_PER_S));
    ticks_done(&t);
}

/* Promise 3: inner manual time <= span <= outer manual time. Stamps of the same clock, converted as
 * a span's are, while the map goes on changing. */
static void what_lies_inside_in_ticks_lies_inside_in_nanoseconds(void **state)
{
    struct ticks t;
    uint32_t source = ticks_source();
    assert_true(ticks_init(&t, source));
    nap_ms(2);
    ticks_update(&t, NULL);
    uint64_t seed = 42;
    for (int round = 0; round < 2000; round++) {
        uint64_t a = ticks_now(source), b = ticks_now(source);
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        for (uint64_t i = seed >> 52; i; i--)
            __asm__ volatile("");
        uint64_t c = ticks_now(source), d = ticks_now(source);
        uint64_t a_ns = ticks_to_ns(&t, a), b_ns = ticks_to_ns(&t, b);
        ticks_update(&t, NULL);
        uint64_t c_ns = ticks_to_ns(&t, c), d_ns = ticks_to_ns(&t, d);
        assert_true(a_ns <= b_ns && b_ns <= c_ns && c_ns <= d_ns);
    }
    ticks_done(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ticks_become_the_wall_clock),
        cmocka_unit_test(pieces_join_without_a_gap),
        cmocka_unit_test(a_tick_that_was_converted_is_never_moved),
        cmocka_unit_test(the_history_is_bounded),
        cmocka_unit_test(what_lies_inside_in_ticks_lies_inside_in_nanoseconds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
