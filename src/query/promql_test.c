/* PromQL without a store: its grammar, and its meaning over lists of samples. What functions mean is judged by
 * Prometheus itself (tests/e2e/prometheus_peer.test.mjs); here is what that cannot see. */
#include "base/test.h"

#include "query/promql.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static struct promql *parse(const char *text)
{
    struct promql *q;
    struct error_detail detail = {0};
    if (promql_parse(str_from(text), &q, &detail))
        fail_msg("%s: at %zu: %s", text, detail.position, detail.message);
    return q;
}

static void prints_as(const char *text, const char *form)
{
    struct buf out = BUF_INIT;
    struct promql *q = parse(text);
    promql_print(q->root, &out);
    assert_str_eq(buf_as_str(&out), str_from(form));
    promql_free(q);
    q = parse(form);
    buf_clear(&out);
    promql_print(q->root, &out);
    assert_str_eq(buf_as_str(&out), str_from(form));
    promql_free(q);
    buf_done(&out);
}

static void operators_bind_as_in_prometheus(void **state)
{
    prints_as("1 + 2 * 3 ^ 4 ^ 5", "(1 + (2 * (3 ^ (4 ^ 5))))");
    prints_as("1 - 2 - 3", "((1 - 2) - 3)");
    prints_as("-1 ^ 2 * 3", "((-(1 ^ 2)) * 3)");
    prints_as("2 ^ -1", "(2 ^ (-1))");
    prints_as("a or b and c unless d",
              "({__name__=\"a\"} or (({__name__=\"b\"} and {__name__=\"c\"}) unless "
              "{__name__=\"d\"}))");
    prints_as("a == b > c + 1",
              "(({__name__=\"a\"} == {__name__=\"b\"}) > ({__name__=\"c\"} + 1))");
    prints_as("a > BOOL 1 OR b", "(({__name__=\"a\"} > bool 1) or {__name__=\"b\"})");
    prints_as("a * ON (x, y) GROUP_LEFT (z) b",
              "({__name__=\"a\"} * on (x, y) group_left (z) {__name__=\"b\"})");
    prints_as("1 % 2 atan2 3 / 4", "(((1 % 2) atan2 3) / 4)");
}

static void keywords_name_metrics_and_labels(void **state)
{
    prints_as("sum", "{__name__=\"sum\"}");
    prints_as("sum(sum)", "sum({__name__=\"sum\"})");
    prints_as("offset{by=\"on\"} offset 5m", "{__name__=\"offset\", by=\"on\"} offset 300s");
    prints_as("sum by (by, without) (rate)", "sum by (by, without)({__name__=\"rate\"})");
    prints_as("a:b:c", "{__name__=\"a:b:c\"}");
    prints_as("{\"odd name\", \"odd label\"=\"x\"}",
              "{__name__=\"odd name\", \"odd label\"=\"x\"}");
    prints_as("start", "{__name__=\"start\"}");
}

static void durations_and_numbers_have_their_forms(void **state)
{
    prints_as("a[1h30m5s10ms]", "{__name__=\"a\"}[5405010ms]");
    prints_as("a[1y2w3d]", "{__name__=\"a\"}[33004800s]");
    prints_as("a[5m:30s] @ 1.5 offset -1m", "{__name__=\"a\"}[300s:30s] @ 1.500 offset -60s");
    prints_as("a[90]", "{__name__=\"a\"}[90s]");
    prints_as("a @ start()", "{__name__=\"a\"} @ start()");
    prints_as("0x1F + 1e3 + .5 + inf + nAn", "((((31 + 1000) + 0.5) + Inf) + NaN)");
    prints_as("a # words\n + 1", "({__name__=\"a\"} + 1)");
    prints_as("\"a\\\"\\x41\\u00e9\\101\"", "\"a\\\"A\\xc3\\xa9A\"");
    prints_as("`a\\n`", "\"a\\\\n\"");
}

static void errors_say_where(void **state)
{
    static const struct {
        const char *text;
        size_t position;
        const char *words;
    } refused[] = {
        {"sum(a", 5, "expected \",\" or \")\""},
        {"a + ", 4, "expected an expression"},
        {"a{b=\"c\" d}", 8, "expected \",\" or \"}\""},
        {"rate(a)", 5, "range vector"},
        {"1 + sum(1)", 8, "instant vector"},
        {"a[0s]", 2, "above 0"},
        {"a b", 2, "unexpected \"b\""},
        {"no(a)", 0, "no function \"no\""},
    };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        struct promql *q;
        struct error_detail detail = {0};
        assert_int_equal(promql_parse(str_from(refused[i].text), &q, &detail), ERR_INVALID);
        if (detail.position != refused[i].position || !strstr(detail.message, refused[i].words))
            fail_msg("%s: at %zu: %s", refused[i].text, detail.position, detail.message);
    }
}

static void depth_and_length_are_bounded(void **state)
{
    struct buf text = BUF_INIT;
    struct promql *q;
    struct error_detail detail = {0};
    for (int i = 0; i < 1000; i++)
        buf_byte(&text, '(');
    assert_int_equal(promql_parse(buf_as_str(&text), &q, &detail), ERR_TOO_LARGE);
    buf_clear(&text);
    for (int i = 0; i < 1000; i++)
        buf_cstr(&text, "1+");
    buf_byte(&text, '1');
    assert_int_equal(promql_parse(buf_as_str(&text), &q, &detail), ERR_TOO_LARGE);
    buf_clear(&text);
    for (size_t i = 0; i <= PROMQL_BYTES_MAX; i++)
        buf_byte(&text, ' ');
    assert_int_equal(promql_parse(buf_as_str(&text), &q, &detail), ERR_TOO_LARGE);
    buf_done(&text);
}

static void numbers_are_written_as_prometheus_does(void **state)
{
    static const struct {
        double v;
        const char *text;
    } numbers[] = {
        {0, "0"},
        {-0.0, "-0"},
        {1, "1"},
        {-1.5, "-1.5"},
        {0.1, "0.1"},
        {1e20, "100000000000000000000"},
        {1e21, "1e+21"},
        {1.25e22, "1.25e+22"},
        {1e-6, "0.000001"},
        {1e-7, "1e-7"},
        {1.5e-10, "1.5e-10"},
        {123456.789, "123456.789"},
        {1.0 / 3, "0.3333333333333333"},
        {INFINITY, "+Inf"},
        {-INFINITY, "-Inf"},
        {NAN, "NaN"},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        char text[PROMQL_NUMBER_SIZE];
        size_t n = promql_number_text(numbers[i].v, text);
        assert_str_eq(((struct str){text, n}), str_from(numbers[i].text));
    }
}

/* ---- meaning ---- */

enum { INTERVAL_MS = 15000, SAMPLES = 200 };

struct list {
    double values[SAMPLES]; /* of instants 0, 1, ...; absent: none */
    int64_t birth;          /* of a counter */
};

static int select_list(void *arg, const struct promql_select *s, struct arena *arena,
                       struct promql_series **ret, size_t *ret_n, struct error_detail *detail)
{
    static const struct promql_label labels[] = {{{"__name__", 8}, {"a", 1}}};
    const struct list *list = arg;
    double *values = arena_array(arena, s->n_instants + 1, sizeof *values);
    *ret = arena_alloc(arena, sizeof **ret);
    for (size_t i = 0; i < s->n_instants; i++) {
        int64_t at = s->instants[i] / INTERVAL_MS;
        assert_true(!i || s->instants[i] > s->instants[i - 1]);
        assert_int_equal(s->instants[i] % INTERVAL_MS, 0);
        values[i] = at >= 0 && at < SAMPLES ? list->values[at] : promql_absent();
    }
    **ret = (struct promql_series){
        .labels = {labels, 1}, .values = values, .birth_ms = list->birth * INTERVAL_MS};
    *ret_n = 1;
    return 0;
}

static double value_at(const struct list *list, const char *query, int64_t at_ms, bool counters)
{
    struct arena arena = ARENA_INIT;
    struct error_detail detail = {0};
    struct promql_answer answer;
    struct promql *q = parse(query);
    const struct promql_question question = {
        .expr = q->root, .start_ms = at_ms, .end_ms = at_ms, .step_ms = 1, .is_instant = true};
    const struct promql_source source = {
        .interval_ms = INTERVAL_MS,
        .last_ms = (int64_t)(SAMPLES - 1) * INTERVAL_MS,
        .counters = counters,
        .select = select_list,
        .arg = (void *)list,
    };
    if (promql_run(&question, &source, &arena, &answer, &detail))
        fail_msg("%s: %s", query, detail.message);
    assert_in_range(answer.n, 0, 1);
    double v = answer.n ? answer.series[0].values[0] : promql_absent();
    arena_done(&arena);
    promql_free(q);
    return v;
}

static void assert_near(double actual, double expected)
{
    if (promql_is_absent(actual) != promql_is_absent(expected) ||
        (!promql_is_absent(actual) && fabs(actual - expected) > 1e-9 * (1 + fabs(expected))))
        fail_msg("%.17g is not %.17g", actual, expected);
}

static void ranges_leave_their_left_end_out(void **state)
{
    struct list list;
    for (int i = 0; i < SAMPLES; i++)
        list.values[i] = i;
    assert_near(value_at(&list, "count_over_time(a[1m])", 150000, false), 4);
    assert_near(value_at(&list, "count_over_time(a[1m])", 150001, false), 4);
    assert_near(value_at(&list, "min_over_time(a[1m])", 150000, false), 7);
    assert_near(value_at(&list, "sum_over_time(a[1m:30s])", 150000, false), 8 + 10);
}

static void selectors_look_back_five_minutes(void **state)
{
    struct list list;
    for (int i = 0; i < SAMPLES; i++)
        list.values[i] = i < 10 ? i : promql_absent();
    assert_near(value_at(&list, "a", 9 * INTERVAL_MS + 299999, false), 9);
    assert_near(value_at(&list, "a", 9 * INTERVAL_MS + 300000, false), promql_absent());
    assert_near(value_at(&list, "timestamp(a)", 9 * INTERVAL_MS + 7000, false), 135);
    /* Of counters the last sample is looked back for as well. */
    for (int i = 0; i < SAMPLES; i++)
        list.values[i] = i;
    list.birth = 0;
    int64_t last_ms = (int64_t)(SAMPLES - 1) * INTERVAL_MS;
    assert_near(value_at(&list, "a", last_ms + 299999, true), SAMPLES - 1);
    assert_near(value_at(&list, "a", last_ms + 300000, true), promql_absent());
}

static void counters_that_start_again_are_corrected(void **state)
{
    struct list list;
    for (int i = 0; i < SAMPLES; i++)
        list.values[i] = 100 + i % 8;
    /* 7, a reset to 100 that counts as 100, 3. */
    assert_near(value_at(&list, "increase(a[2m30s])", 13 * INTERVAL_MS, false),
                (107 - 104 + 100 + 5) * (150.0 / 135));
    assert_near(value_at(&list, "resets(a[10m])", 40 * INTERVAL_MS, false), 5);
    assert_near(value_at(&list, "irate(a[1m])", 16 * INTERVAL_MS, false), 100.0 / 15);
}

/* Asked for the first and the last sample of a window only, the answer is that of all of them. */
static void edges_tell_what_all_samples_do(void **state)
{
    static const char *const functions[] = {"rate", "increase", "delta"};
    const char *given = getenv("PROMQL_SEED");
    unsigned seed = given ? (unsigned)strtoul(given, NULL, 10) : (unsigned)getpid();
    print_message("# PROMQL_SEED=%u\n", seed);
    srand(seed);
    for (int round = 0; round < 2000; round++) {
        struct list list;
        double sum = 0;
        list.birth = rand() % SAMPLES;
        for (int i = 0; i < SAMPLES; i++) {
            if (i > list.birth && rand() % 3 == 0)
                sum += rand() % 100;
            list.values[i] = i < list.birth ? promql_absent() : sum;
        }
        char query[64];
        snprintf(query, sizeof query, "%s(a[%dms] offset %ds)", functions[rand() % 3],
                 1 + rand() % 900000, rand() % 300);
        int64_t at_ms = rand() % ((SAMPLES + 10) * INTERVAL_MS);
        assert_near(value_at(&list, query, at_ms, true), value_at(&list, query, at_ms, false));
        assert_near(value_at(&list, "a", at_ms, true), value_at(&list, "a", at_ms, false));
    }
}

static void matrices_have_all_samples(void **state)
{
    struct list list = {.birth = 0};
    struct arena arena = ARENA_INIT;
    struct error_detail detail = {0};
    struct promql_answer answer;
    for (int i = 0; i < SAMPLES; i++)
        list.values[i] = i % 2 ? i : promql_absent();
    struct promql *q = parse("a[1m]");
    const struct promql_question question = {
        .expr = q->root, .start_ms = 150000, .end_ms = 150000, .step_ms = 1, .is_instant = true};
    const struct promql_source source = {
        .interval_ms = INTERVAL_MS, .last_ms = INT32_MAX, .select = select_list, .arg = &list};
    assert_int_equal(promql_run(&question, &source, &arena, &answer, &detail), 0);
    assert_int_equal(answer.type, PROMQL_MATRIX);
    assert_int_equal(answer.n_times, 4);
    assert_int_equal(answer.times[0], 105000);
    assert_int_equal(answer.n, 1);
    assert_true(answer.series[0].values[0] == 7);
    assert_true(promql_is_absent(answer.series[0].values[1]));
    arena_done(&arena);
    promql_free(q);
}

static int select_none(void *arg, const struct promql_select *s, struct arena *arena,
                       struct promql_series **ret, size_t *ret_n, struct error_detail *detail)
{
    *ret_n = 0;
    return 0;
}

static int refusal_of(const char *query)
{
    struct arena arena = ARENA_INIT;
    struct error_detail detail = {0};
    struct promql_answer answer;
    struct promql *q = parse(query);
    const struct promql_question question = {
        .expr = q->root, .start_ms = 150000, .end_ms = 150000, .step_ms = 1, .is_instant = true};
    const struct promql_source source = {
        .interval_ms = INTERVAL_MS, .last_ms = INT32_MAX, .select = select_none};
    int err = promql_run(&question, &source, &arena, &answer, &detail);
    assert_true(arena.bytes <= PROMQL_MEMORY_MAX);
    if (err == ERR_TOO_LARGE)
        print_message("# %s\n", detail.message);
    assert_int_equal(arena.bytes_max, 0);
    arena_done(&arena);
    promql_free(q);
    return err;
}

/* `n` times `open`, then `middle`, then as often `close`. */
static int refusal_of_nested(int n, const char *open, const char *middle, const char *close)
{
    struct buf text = BUF_INIT;
    for (int i = 0; i < n; i++)
        buf_cstr(&text, open);
    buf_cstr(&text, middle);
    for (int i = 0; i < n; i++)
        buf_cstr(&text, close);
    buf_byte(&text, '\0');
    int err = refusal_of(buf_as_str(&text).ptr);
    buf_done(&text);
    return err;
}

static void labels_do_not_grow_without_end(void **state)
{
    assert_int_equal(
        refusal_of_nested(40, "label_join(", "vector(1)", ", \"b\", \"xx\", \"b\", \"b\", \"b\")"),
        ERR_TOO_LARGE);
    assert_int_equal(refusal_of_nested(40, "label_replace(", "vector(1)",
                                       ", \"b\", \"x$1$1$1$1\", \"b\", \"(.*)\")"),
                     ERR_TOO_LARGE);
    assert_int_equal(refusal_of_nested(5, "label_replace(", "vector(1)",
                                       ", \"b\", \"x$1$1$1$1\", \"b\", \"(.*)\")"),
                     0);
}

static void memory_is_bounded_where_no_samples_are(void **state)
{
    struct buf text = BUF_INIT;
    const char *word = "count_over_time(a[20d:15s] offset 9y)";
    for (int i = 0; i < 256; i++)
        buf_printf(&text, "%s%s", i % 16 ? "+" : i ? ")+(" : "(", word);
    buf_cstr(&text, ")");
    buf_byte(&text, '\0');
    assert_int_equal(refusal_of(word), 0);
    assert_int_equal(refusal_of(buf_as_str(&text).ptr), ERR_TOO_LARGE);
    buf_done(&text);
}

static void shifts_add_up_without_overflow(void **state)
{
    assert_int_equal(refusal_of_nested(40, "max_over_time(", "a", "[5m:1m] offset 18000000y)"), 0);
    assert_int_equal(refusal_of_nested(40, "max_over_time(", "a", "[5m:1m] offset -18000000y)"), 0);
}

static void there_are_no_dates_beyond_times(void **state)
{
    struct list list = {.birth = 0};
    assert_true(isnan(value_at(&list, "month(vector(1e300))", 0, false)));
    assert_true(isnan(value_at(&list, "days_in_month(vector(-Inf))", 0, false)));
    assert_true(isnan(value_at(&list, "year(vector(NaN))", 0, false)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(operators_bind_as_in_prometheus),
        cmocka_unit_test(keywords_name_metrics_and_labels),
        cmocka_unit_test(durations_and_numbers_have_their_forms),
        cmocka_unit_test(errors_say_where),
        cmocka_unit_test(depth_and_length_are_bounded),
        cmocka_unit_test(numbers_are_written_as_prometheus_does),
        cmocka_unit_test(ranges_leave_their_left_end_out),
        cmocka_unit_test(selectors_look_back_five_minutes),
        cmocka_unit_test(counters_that_start_again_are_corrected),
        cmocka_unit_test(edges_tell_what_all_samples_do),
        cmocka_unit_test(matrices_have_all_samples),
        cmocka_unit_test(labels_do_not_grow_without_end),
        cmocka_unit_test(memory_is_bounded_where_no_samples_are),
        cmocka_unit_test(shifts_add_up_without_overflow),
        cmocka_unit_test(there_are_no_dates_beyond_times),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
