#include "base/test.h"

#include "base/clock.h"
#include "ingest/drain.h"

#define MIB (UINT64_C(1) << 20)

static void the_wait_is_what_waits_divided_by_what_goes(void **state)
{
    struct drain d;
    drain_init(&d);
    uint64_t now = 50 * NS_PER_S;
    for (int i = 0; i < 40; i++, now += NS_PER_S / 10)
        drain_count(&d, MIB, now); /* 10 MiB a second */
    assert_int_equal(drain_wait_s(&d, 5 * MIB, now), 1);
    assert_int_equal(drain_wait_s(&d, 75 * MIB, now), 8);
    assert_int_equal(drain_wait_s(&d, 5000 * MIB, now), DRAIN_WAIT_S_MAX);
    drain_done(&d);
}

static void nothing_that_goes_means_the_longest_wait(void **state)
{
    struct drain d;
    drain_init(&d);
    assert_int_equal(drain_wait_s(&d, MIB, NS_PER_S), 1); /* nothing is known */
    drain_count(&d, 100 * MIB, NS_PER_S);
    assert_int_equal(drain_wait_s(&d, MIB, 2 * NS_PER_S), 1);
    /* The disk hangs. */
    assert_int_equal(drain_wait_s(&d, MIB, 60 * NS_PER_S), DRAIN_WAIT_S_MAX);
    drain_done(&d);
}

static void a_pause_is_not_slowness(void **state)
{
    struct drain d;
    drain_init(&d);
    drain_count(&d, MIB, 1 * NS_PER_S);
    /* An hour later load comes, and goes quickly. */
    uint64_t now = 3600 * NS_PER_S;
    for (int i = 0; i < 5; i++, now += NS_PER_S / 10)
        drain_count(&d, 10 * MIB, now);
    assert_int_equal(drain_wait_s(&d, 100 * MIB, now), 2);
    drain_done(&d);
}

static void a_speed_that_falls_is_noticed_within_the_window(void **state)
{
    struct drain d;
    drain_init(&d);
    uint64_t now = NS_PER_S;
    for (int i = 0; i < 30; i++, now += NS_PER_S / 10)
        drain_count(&d, 10 * MIB, now);
    assert_int_equal(drain_wait_s(&d, 50 * MIB, now), 1);
    drain_count(&d, MIB, now);
    assert_in_range(drain_wait_s(&d, 50 * MIB, now + 4 * NS_PER_S), 2, DRAIN_WAIT_S_MAX);
    drain_done(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_wait_is_what_waits_divided_by_what_goes),
        cmocka_unit_test(nothing_that_goes_means_the_longest_wait),
        cmocka_unit_test(a_pause_is_not_slowness),
        cmocka_unit_test(a_speed_that_falls_is_noticed_within_the_window),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
