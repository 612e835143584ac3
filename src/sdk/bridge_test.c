/* Durations as metrics: from spans made by hand, and from a program that takes the time itself. */
#include "sdk/bridge.h"

#include "base/clock.h"
#include "base/test.h"
#include "pugmark/metrics.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

/* The bridge lives as long as its process: each test has one. */
static void in_child(void (*body)(void))
{
    int status;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        body();
        _exit(0);
    }
    waitpid(pid, &status, 0);
    assert_int_equal(status, 0);
}

static void take(const char *name, uint8_t kind, uint8_t status, uint64_t ns, const char *state)
{
    static const struct resource resource;
    struct span s = {.name = str_from(name),
                     .kind = kind,
                     .status_code = status,
                     .start_ns = 1000,
                     .end_ns = 1000 + ns,
                     .trace_state = str_from(state),
                     .resource = &resource};
    bridge_take(&(struct span_batch){.spans = &s, .n = 1});
}

static struct pug_metric metric(const char *name)
{
    struct pug_metric m = {.size = sizeof m};
    int code = pug_metrics_read(name, &m);
    if (code != 0)
        fprintf(stderr, "%s: %d\n", name, code);
    CHECK(code == 0);
    return m;
}

struct found {
    int n;
    struct pug_metric each[8];
};

static void keep(void *user, const struct pug_metric *m)
{
    struct found *f = user;
    if (f->n < 8)
        f->each[f->n] = *m;
    f->n++;
}

static void by_name(void)
{
    struct found f = {.n = 0};
    for (uint64_t i = 1; i <= 100; i++)
        take("a", SPAN_KIND_SERVER, STATUS_UNSET, i * 1000, NULL);
    take("a", SPAN_KIND_SERVER, STATUS_ERROR, 500000, NULL);
    take("a", SPAN_KIND_CLIENT, STATUS_UNSET, 7, NULL);
    take("b", SPAN_KIND_INTERNAL, STATUS_OK, 0, NULL);
    pug_metrics_each(keep, &f);
    CHECK(f.n == 4);
    CHECK(strcmp(f.each[0].name, "a") == 0 && f.each[0].kind == PUG_KIND_SERVER);
    CHECK(f.each[0].status == PUG_STATUS_UNSET && f.each[0].count == 100 && f.each[0].errors == 0);
    CHECK(f.each[0].sum_ns == 5050000 && f.each[0].min_ns == 1000 && f.each[0].max_ns == 100000);
    CHECK(fabs((double)f.each[0].p50_ns - 50000) <= 550);
    CHECK(f.each[1].status == PUG_STATUS_ERROR && f.each[1].errors == 1 && f.each[1].count == 1);
    CHECK(f.each[2].kind == PUG_KIND_CLIENT && f.each[2].p999_ns == 7);
    CHECK(strcmp(f.each[3].name, "b") == 0 && f.each[3].p50_ns == 0 && f.each[3].count == 1);
    struct pug_metric a = metric("a");
    CHECK(a.count == 102 && a.errors == 1 && a.sum_ns == 5550007);
    CHECK(a.min_ns == 7 && a.max_ns == 500000);
    CHECK(a.adjusted_count == 102);
    CHECK(a.kind == PUG_KIND_UNSPECIFIED && a.status == PUG_STATUS_UNSET);
}

static void spans_are_counted_by_name_kind_and_status(void **state)
{
    (void)state;
    in_child(by_name);
}

static void wrong_questions(void)
{
    struct pug_metric m = {.size = sizeof m};
    CHECK(pug_metrics_read("never", &m) == PUG_ERR_NOT_FOUND);
    CHECK(pug_metrics_read(NULL, &m) == PUG_ERR_INVALID);
    m.size = 0;
    CHECK(pug_metrics_read("never", &m) == PUG_ERR_INVALID);
    take("here", SPAN_KIND_INTERNAL, STATUS_UNSET, 5, NULL);
    /* A program that was built against an older and shorter struct. */
    memset(&m, 0xff, sizeof m);
    m.size = offsetof(struct pug_metric, errors);
    CHECK(pug_metrics_read("here", &m) == 0 && m.count == 1 && m.errors == UINT64_MAX);
    struct found none = {.n = 0};
    pug_metrics_each(keep, &none);
    CHECK(none.n == 1);
}

static void a_wrong_question_gets_a_code(void **state)
{
    (void)state;
    in_child(wrong_questions);
}

/* The thresholds are those of the specification's examples: 0 keeps all, 8 a half, c a quarter,
 * fd70a4 about one in a hundred. */
static void adjusted(void)
{
    take("all", SPAN_KIND_INTERNAL, STATUS_UNSET, 10, "ot=th:0");
    CHECK(metric("all").adjusted_count == 1);
    for (int i = 0; i < 10; i++)
        take("quarter", SPAN_KIND_INTERNAL, STATUS_UNSET, 10, "a=b, ot=rv:1234;th:c ,x=y");
    struct pug_metric m = metric("quarter");
    CHECK(m.count == 10 && m.adjusted_count == 40 && m.sum_ns == 100);
    for (int i = 0; i < 3; i++)
        take("hundredth", SPAN_KIND_INTERNAL, STATUS_UNSET, 10, "ot=th:fd70a4");
    CHECK(fabs(metric("hundredth").adjusted_count - 300) < 0.01);
    static const char *const damaged[] = {
        "ot=th:", "ot=th:xyz", "ot=th:123456789012345", "ot=", "ot", ",,,", "th:c", "ot=rv:ffffff"};
    for (size_t i = 0; i < sizeof damaged / sizeof damaged[0]; i++)
        take("damaged", SPAN_KIND_INTERNAL, STATUS_UNSET, 10, damaged[i]);
    CHECK(metric("damaged").adjusted_count == sizeof damaged / sizeof damaged[0]);
    /* A stranger's claim to stand for 2^56 spans neither runs over nor is believed. */
    for (int i = 0; i < 200; i++)
        take("claim", SPAN_KIND_INTERNAL, STATUS_UNSET, 10, "ot=th:ffffffffffffff");
    CHECK(metric("claim").adjusted_count <= 200 * 0x1p32);
    /* 1.5 spans each: the histogram gets whole ones, and none is lost to rounding. */
    for (int i = 0; i < 1000; i++)
        take("third", SPAN_KIND_INTERNAL, STATUS_UNSET, 10, "ot=th:55555555555555");
    struct metric_list l = {.time_ns = 1};
    bridge_measure(&l);
    const struct metric *duration = &l.metrics[1];
    const struct metric_exp_histogram *h = &duration->points[duration->n_points - 1].histogram;
    CHECK(h->count >= 1499 && h->count <= 1500);
    CHECK(l.metrics[0].points[duration->n_points - 1].integer == 1500);
}

static void sampled_spans_stand_for_others(void **state)
{
    (void)state;
    in_child(adjusted);
}

static void full(void)
{
    char name[32];
    for (int i = 0; i < PUG_METRICS_MAX + 50; i++) {
        snprintf(name, sizeof name, "s%d", i);
        take(name, SPAN_KIND_INTERNAL, STATUS_UNSET, (uint64_t)i, NULL);
    }
    take("s3", SPAN_KIND_INTERNAL, STATUS_UNSET, 3, NULL);
    CHECK(metric("s3").count == 2);
    CHECK(metric("(other)").count == 50);
    struct found f = {.n = 0};
    pug_metrics_each(keep, &f);
    CHECK(f.n == PUG_METRICS_MAX + 1);
    struct metric_list l = {.time_ns = 9};
    bridge_measure(&l);
    CHECK(l.n == 2 && l.metrics[0].n_points == PUG_METRICS_MAX + 1);
    const struct metric_point *last = &l.metrics[0].points[PUG_METRICS_MAX];
    CHECK(last->attrs.n == 1 && last->attrs.items[0].value.boolean && last->integer == 50);
    CHECK(str_eq(last->attrs.items[0].key, STR("otel.metric.overflow")));
    CHECK(last->time_ns == 9 && last->start_ns > 9);
    uint64_t total = 0;
    for (size_t i = 0; i < l.metrics[1].n_points; i++)
        total += l.metrics[1].points[i].histogram.count;
    CHECK(total == PUG_METRICS_MAX + 51);
}

static void names_are_bounded_and_nothing_is_lost(void **state)
{
    (void)state;
    in_child(full);
}

static void started(void)
{
    bridge_begin(7);
    take("early", SPAN_KIND_INTERNAL, STATUS_UNSET, 1, NULL);
    bridge_begin(100); /* tracing starts once more, and the sums go on */
    struct metric_list l = {.time_ns = 9};
    bridge_measure(&l);
    CHECK(l.n == 2 && l.metrics[0].points[0].start_ns == 7 && l.metrics[1].points[0].start_ns == 7);
}

static void counting_starts_before_the_first_span(void **state)
{
    (void)state;
    in_child(started);
}

static void long_names(void)
{
    char name[300];
    memset(name, 'x', sizeof name);
    memcpy(name + 126, "\xc3\xa4", 2); /* the border falls into a character */
    name[299] = '\0';
    take(name, SPAN_KIND_INTERNAL, STATUS_UNSET, 1, NULL);
    struct pug_metric m = metric(name);
    CHECK(strlen(m.name) == PUG_METRIC_NAME_MAX - 1 && m.count == 1);
}

static void a_long_name_is_cut_at_a_character(void **state)
{
    (void)state;
    in_child(long_names);
}

/* ---- the clock is the oracle ---- */

enum { ROUNDS = 2000 };

static uint64_t inner[ROUNDS], outer[ROUNDS];

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void work(uint64_t ns)
{
    uint64_t until = clock_monotonic_ns() + ns;
    while (clock_monotonic_ns() < until)
        ;
}

static void oracle(void)
{
    struct pug_options o = {.size = sizeof o,
                            .tracing = PUG_TRACING_ON,
                            .backend = PUG_BACKEND_LOCAL,
                            .trace_dir = "."};
    char dir[] = "/tmp/pugmark-bridge-XXXXXX";
    CHECK(mkdtemp(dir) && chdir(dir) == 0);
    setenv("PUG_METRICS", "true", 1);
    CHECK(pug_start(&o) == 0);
    uint64_t inner_sum = 0, outer_sum = 0;
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t a = clock_monotonic_ns(), b, c;
        {
            PUG_SPAN("oracle.work");
            b = clock_monotonic_ns();
            work(2000 + (uint64_t)(i % 100) * (uint64_t)(i % 100) * 20);
            c = clock_monotonic_ns();
        }
        uint64_t d = clock_monotonic_ns();
        inner_sum += inner[i] = c - b;
        outer_sum += outer[i] = d - a;
    }
    CHECK(pug_flush(20000) == 0);
    struct pug_metric m = metric("oracle.work");
    qsort(inner, ROUNDS, sizeof inner[0], by_value);
    qsort(outer, ROUNDS, sizeof outer[0], by_value);
    fprintf(stderr, "# sum: inner %llu, spans %llu, outer %llu; p50 %llu, %llu, %llu\n",
            (unsigned long long)inner_sum, (unsigned long long)m.sum_ns,
            (unsigned long long)outer_sum, (unsigned long long)inner[ROUNDS / 2 - 1],
            (unsigned long long)m.p50_ns, (unsigned long long)outer[ROUNDS / 2 - 1]);
    CHECK(m.count == ROUNDS);
    /* Span and clock_gettime tick differently by up to a nanosecond a reading. */
    CHECK(inner_sum <= m.sum_ns + ROUNDS && m.sum_ns <= outer_sum + ROUNDS);
    const struct {
        double q;
        uint64_t got;
    } quantiles[] = {{0.5, m.p50_ns}, {0.9, m.p90_ns}, {0.99, m.p99_ns}, {0.999, m.p999_ns}};
    for (size_t i = 0; i < 4; i++) {
        /* Each span lies between its inner and outer time, so each quantile does. */
        size_t at = (size_t)ceil(quantiles[i].q * ROUNDS) - 1;
        CHECK((double)quantiles[i].got >= 0.989 * ((double)inner[at] - 1));
        CHECK((double)quantiles[i].got <= 1.011 * ((double)outer[at] + 1));
    }
    CHECK(pug_stop() == 0);
    CHECK(metric("oracle.work").count == ROUNDS); /* it outlives the session */
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    CHECK(system(command) == 0);
}

static void durations_agree_with_the_clock(void **state)
{
    (void)state;
    in_child(oracle);
}

static void child(void)
{
    take("parent's", SPAN_KIND_INTERNAL, STATUS_UNSET, 1, NULL);
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        struct pug_metric m = {.size = sizeof m};
        CHECK(pug_metrics_read("parent's", &m) == PUG_ERR_NOT_FOUND);
        take("child's", SPAN_KIND_INTERNAL, STATUS_UNSET, 1, NULL);
        CHECK(metric("child's").count == 1);
        _exit(0);
    }
    waitpid(pid, &status, 0);
    CHECK(status == 0);
    CHECK(metric("parent's").count == 1);
}

static void a_child_begins_anew(void **state)
{
    (void)state;
    in_child(child);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(spans_are_counted_by_name_kind_and_status),
        cmocka_unit_test(a_wrong_question_gets_a_code),
        cmocka_unit_test(sampled_spans_stand_for_others),
        cmocka_unit_test(names_are_bounded_and_nothing_is_lost),
        cmocka_unit_test(counting_starts_before_the_first_span),
        cmocka_unit_test(a_long_name_is_cut_at_a_character),
        cmocka_unit_test(durations_agree_with_the_clock),
        cmocka_unit_test(a_child_begins_anew),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
