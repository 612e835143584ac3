#include "base/histogram.h"
#include "base/test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* SplitMix64, so that every run sees the same values. */
static uint64_t random_state;

static uint64_t random_u64(void)
{
    uint64_t z = random_state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static double random_unit(void)
{
    return ((double)(random_u64() >> 11) + 0.5) / 9007199254740992.0;
}

static double random_normal(void)
{
    return sqrt(-2 * log(random_unit())) * cos(6.283185307179586 * random_unit());
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void add(struct histogram *h, uint64_t value)
{
    assert_int_equal(histogram_add(h, value, 1), 0);
}

/* ceil(log2(v) * 32) - 1 in long double, which has 64 bits of mantissa. */
static void index_is_the_ceiling_of_the_logarithm(void **state)
{
    (void)state;
    random_state = 1;
    for (int i = 0; i < 200000; i++) {
        uint64_t v = random_u64() >> (random_u64() & 63);
        if (v == 0)
            continue;
        long double exact = log2l((long double)v) * HISTOGRAM_OCTAVE;
        long double nearest = roundl(exact);
        int want = (int)ceill(exact) - 1;
        /* On a border the logarithm is rounded; there only powers of two lie. */
        if (fabsl(exact - nearest) < 1e-12L && (v & (v - 1)) == 0)
            want = (int)nearest - 1;
        assert_int_equal(histogram_index(v), want);
    }
    assert_int_equal(histogram_index(1), -1);
    assert_int_equal(histogram_index(2), 31);
    assert_int_equal(histogram_index(UINT64_MAX), 2047);
}

static void borders_lie_in_the_bucket_below(void **state)
{
    (void)state;
    for (int e = 1; e < 64; e++) {
        assert_int_equal(histogram_index(UINT64_C(1) << e), e * 32 - 1);
        assert_true(histogram_index((UINT64_C(1) << e) + 1) >= e * 32);
    }
}

enum { VALUES = 100000 };

static void check_quantiles(const char *what, uint64_t (*draw)(void))
{
    static uint64_t values[VALUES];
    static const double qs[] = {0.01, 0.25, 0.5, 0.9, 0.99, 0.999};
    struct histogram h = {.count = 0};
    uint64_t sum = 0;
    random_state = 7;
    for (int i = 0; i < VALUES; i++) {
        values[i] = draw();
        sum += values[i];
        add(&h, values[i]);
    }
    qsort(values, VALUES, sizeof *values, by_value);
    assert_int_equal(h.count, VALUES);
    assert_int_equal(h.sum, sum);
    assert_int_equal(h.min, values[0]);
    assert_int_equal(h.max, values[VALUES - 1]);
    for (size_t i = 0; i < sizeof qs / sizeof qs[0]; i++) {
        double exact = (double)values[(size_t)ceil(qs[i] * VALUES) - 1];
        double got = histogram_quantile(&h, qs[i]);
        if (fabs(got - exact) > 0.011 * exact)
            fail_msg("%s: quantile %g is %g, exact %g", what, qs[i], got, exact);
    }
    assert_true(histogram_quantile(&h, 0) == (double)values[0]);
    assert_true(histogram_quantile(&h, 1) == (double)values[VALUES - 1]);
    histogram_done(&h);
}

static uint64_t lognormal(void)
{
    return (uint64_t)exp(12 + 1.5 * random_normal());
}

static uint64_t pareto(void)
{
    return (uint64_t)(1000 / pow(random_unit(), 1 / 1.2));
}

static uint64_t bimodal(void)
{
    double centre = random_u64() & 1 ? 2e3 : 5e8;
    return (uint64_t)(centre * (1 + 0.05 * random_normal()));
}

static uint64_t constant(void)
{
    return 123456789;
}

static void quantiles_are_within_1_1_percent(void **state)
{
    (void)state;
    check_quantiles("lognormal", lognormal);
    check_quantiles("Pareto", pareto);
    check_quantiles("bimodal", bimodal);
    check_quantiles("constant", constant);
}

static void assert_same(const struct histogram *a, const struct histogram *b)
{
    static const uint64_t none[HISTOGRAM_OCTAVE];
    assert_int_equal(a->count, b->count);
    assert_int_equal(a->zero_count, b->zero_count);
    assert_int_equal(a->sum, b->sum);
    assert_int_equal(a->min, b->min);
    assert_int_equal(a->max, b->max);
    for (int p = 0; p < HISTOGRAM_PAGES; p++)
        assert_memory_equal(a->pages[p] ? a->pages[p] : none, b->pages[p] ? b->pages[p] : none,
                            sizeof none);
}

static void merging_in_any_order_gives_the_same_bits(void **state)
{
    (void)state;
    struct histogram parts[3] = {{.count = 0}}, whole = {.count = 0};
    struct histogram left = {.count = 0}, right = {.count = 0}, tail = {.count = 0};
    random_state = 3;
    for (int i = 0; i < 30000; i++) {
        uint64_t v = random_u64() >> (random_u64() % 64);
        v = v >> 40 ? v >> 24 : v; /* the sum must not reach its end */
        add(&parts[i % 3], v);
        add(&whole, v);
    }
    for (int i = 0; i < 3; i++)
        assert_int_equal(histogram_merge(&left, &parts[i]), 0);
    assert_int_equal(histogram_merge(&tail, &parts[2]), 0);
    assert_int_equal(histogram_merge(&tail, &parts[1]), 0);
    assert_int_equal(histogram_merge(&right, &tail), 0);
    assert_int_equal(histogram_merge(&right, &parts[0]), 0);
    assert_same(&left, &whole);
    assert_same(&right, &whole);
    for (int i = 0; i < 3; i++)
        histogram_done(&parts[i]);
    histogram_done(&whole);
    histogram_done(&left);
    histogram_done(&right);
    histogram_done(&tail);
}

static void coarser_buckets_hold_the_same_values(void **state)
{
    (void)state;
    struct histogram h = {.count = 0};
    uint64_t counts[4096];
    random_state = 5;
    add(&h, 0);
    for (int i = 0; i < 10000; i++)
        add(&h, (random_u64() >> (random_u64() % 64)) | 1);
    static const size_t maxima[] = {4096, 160, 20, 2};
    for (size_t m = 0; m < 4; m++) {
        struct histogram_row row = histogram_buckets(&h, counts, maxima[m]);
        uint64_t total = 0;
        assert_true(row.n <= maxima[m] && row.scale <= HISTOGRAM_SCALE);
        for (size_t i = 0; i < row.n; i++)
            total += counts[i];
        assert_int_equal(total, 10000);
        /* Downscaling is halving the index: count again from the finest row. */
        int shift = HISTOGRAM_SCALE - row.scale;
        for (int p = 0; p < HISTOGRAM_PAGES; p++)
            for (int i = 0; h.pages[p] && i < HISTOGRAM_OCTAVE; i++)
                counts[((p * HISTOGRAM_OCTAVE + i - 1) >> shift) - row.offset] -= h.pages[p][i];
        for (size_t i = 0; i < row.n; i++)
            assert_int_equal(counts[i], 0);
    }
    histogram_done(&h);
}

static void a_row_begins_and_ends_with_a_value(void **state)
{
    (void)state;
    struct histogram h = {.count = 0};
    uint64_t counts[160];
    struct histogram_row row = histogram_buckets(&h, counts, 160);
    assert_int_equal(row.n, 0);
    add(&h, 1000);
    add(&h, 4000);
    row = histogram_buckets(&h, counts, 160);
    assert_int_equal(row.scale, 5);
    assert_int_equal(row.offset, histogram_index(1000));
    assert_int_equal(row.n, 65);
    assert_int_equal(counts[0], 1);
    assert_int_equal(counts[64], 1);
    histogram_done(&h);
}

static void extremes_have_a_place(void **state)
{
    (void)state;
    struct histogram h = {.count = 0};
    uint64_t counts[160];
    add(&h, 0);
    add(&h, 1);
    add(&h, UINT64_MAX);
    assert_int_equal(histogram_add(&h, UINT64_MAX, 5), 0);
    assert_int_equal(h.sum, UINT64_MAX);
    assert_int_equal(h.count, 8);
    assert_int_equal(h.zero_count, 1);
    struct histogram_row row = histogram_buckets(&h, counts, 160);
    assert_int_equal(counts[0], 1);
    assert_int_equal(counts[row.n - 1], 6);
    assert_true(histogram_quantile(&h, 0.1) == 0);
    assert_true(fabs(histogram_quantile(&h, 0.2) - 1) <= 0.011);
    assert_true(histogram_quantile(&h, 0.9) >= 1.8e19);
    histogram_done(&h);
    assert_true(histogram_quantile(&h, 0.5) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(index_is_the_ceiling_of_the_logarithm),
        cmocka_unit_test(borders_lie_in_the_bucket_below),
        cmocka_unit_test(quantiles_are_within_1_1_percent),
        cmocka_unit_test(merging_in_any_order_gives_the_same_bits),
        cmocka_unit_test(coarser_buckets_hold_the_same_values),
        cmocka_unit_test(a_row_begins_and_ends_with_a_value),
        cmocka_unit_test(extremes_have_a_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
