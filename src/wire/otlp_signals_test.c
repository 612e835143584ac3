/* OTLP logs and metrics: bytes of the OpenTelemetry Node SDK, both encodings, and what bad bytes do. */
#include "base/test.h"

#include "wire/golden.h"
#include "wire/otlp_logs.h"
#include "wire/otlp_metrics.h"

static void assert_attr(const struct attrs *attrs, const char *key, const struct value *want)
{
    const struct attr *a = attrs_find(attrs, str_from(key));
    if (!a || !value_eq(&a->value, want))
        fail_msg("%s is absent or another", key);
}

static struct value text(const char *s)
{
    return (struct value){.type = VALUE_STRING, .string = str_from(s)};
}

static void check_logs(const struct log_batch *b)
{
    assert_int_equal(b->n, 4);
    assert_int_equal(b->n_rejected, 0);
    const struct log_record *r = b->records;
    struct value want = text("order taken \xc3\xa9");
    assert_true(value_eq(&r[0].body, &want));
    assert_int_equal(r[0].severity, 9);
    assert_str_eq(r[0].severity_text, STR("INFO"));
    assert_true(r[0].time_ns > UINT64_C(1700000000000000000));
    assert_true(r[0].observed_time_ns >= r[0].time_ns);
    assert_int_equal(r[0].attrs.n, 4);
    want = (struct value){.type = VALUE_INT, .integer = 17};
    assert_attr(&r[0].attrs, "order.id", &want);
    want = (struct value){.type = VALUE_BOOL, .boolean = true};
    assert_attr(&r[0].attrs, "express", &want);
    want = (struct value){.type = VALUE_DOUBLE, .real = 1.5};
    assert_attr(&r[0].attrs, "weight", &want);
    assert_false(trace_id_is_zero(&r[0].trace_id));
    assert_memory_equal(&r[0].trace_id, &r[2].trace_id, TRACE_ID_SIZE);
    assert_memory_equal(&r[0].span_id, &r[1].span_id, SPAN_ID_SIZE);
    assert_memory_not_equal(&r[0].span_id, &r[2].span_id, SPAN_ID_SIZE);
    assert_int_equal(r[1].body.type, VALUE_MAP);
    assert_int_equal(r[1].body.map.n, 2);
    assert_int_equal(r[1].body.map.items[0].value.integer, 42);
    assert_str_eq(r[2].event_name, STR("bank.slow"));
    assert_true(trace_id_is_zero(&r[3].trace_id) && span_id_is_zero(&r[3].span_id));
    assert_str_eq(r[3].resource->service_name, STR("shop"));
    assert_str_eq(r[3].scope->name, STR("shop.log"));
    assert_str_eq(r[3].scope->version, STR("2.0.0"));
}

static void logs_of_the_node_sdk_are_read_in_both_encodings(void **state)
{
    struct arena arena = ARENA_INIT;
    struct buf again = BUF_INIT;
    struct error_detail detail;
    struct log_batch b;
    assert_int_equal(
        otlp_logs_decode(golden_read(&arena, "node_sdk_logs.bin"), &arena, &b, &detail), 0);
    check_logs(&b);
    otlp_logs_encode(&b, &again);
    assert_int_equal(otlp_logs_decode(buf_as_str(&again), &arena, &b, &detail), 0);
    check_logs(&b);
    assert_int_equal(
        otlp_logs_json_decode(golden_read(&arena, "node_sdk_logs.json"), &arena, &b, &detail), 0);
    check_logs(&b);
    buf_done(&again);
    arena_done(&arena);
}

static void check_metrics(const struct metric_batches *b)
{
    assert_int_equal(b->n, 1);
    assert_int_equal(b->n_points, 4);
    assert_int_equal(b->n_rejected, 0);
    const struct metric *m = b->items[0].metrics;
    assert_int_equal(b->items[0].n, 3);
    assert_str_eq(b->items[0].resource->service_name, STR("shop"));
    assert_str_eq(b->items[0].scope->name, STR("shop.meter"));
    assert_str_eq(m[0].name, STR("shop.orders"));
    assert_str_eq(m[0].unit, STR("{order}"));
    assert_str_eq(m[0].description, STR("Orders taken."));
    assert_int_equal(m[0].type, METRIC_SUM);
    assert_int_equal(m[0].temporality, METRIC_CUMULATIVE);
    assert_true(m[0].monotonic);
    assert_int_equal(m[0].n_points, 2);
    struct value own = text("own");
    assert_attr(&m[0].points[0].attrs, "kind", &own);
    assert_true(m[0].points[0].is_real && m[0].points[0].real == 6);
    assert_true(m[0].points[0].start_ns > 0);
    assert_true(m[0].points[0].time_ns > m[0].points[0].start_ns);
    assert_false(m[1].monotonic);
    assert_true(m[1].points[0].real == -3);
    const struct metric_histogram *h = &m[2].points[0].explicit_histogram;
    assert_int_equal(m[2].type, METRIC_HISTOGRAM);
    assert_int_equal(h->count, 4);
    assert_int_equal(h->n_bounds, 15);
    assert_int_equal(h->n_counts, 16);
    assert_int_equal(h->counts[1], 2);
    assert_true(h->bounds[14] == 10000 && h->sum == 9007.021 && h->min == 0.001 && h->max == 9000);
    assert_false(h->lacks_sum || h->lacks_min || h->lacks_max);
}

static void metrics_of_the_node_sdk_are_read_in_both_encodings(void **state)
{
    struct arena arena = ARENA_INIT;
    struct buf again = BUF_INIT;
    struct error_detail detail;
    struct metric_batches b;
    assert_int_equal(
        otlp_metrics_decode(golden_read(&arena, "node_sdk_metrics.bin"), &arena, &b, &detail), 0);
    check_metrics(&b);
    otlp_metrics_encode(&b.items[0], &again);
    assert_int_equal(otlp_metrics_decode(buf_as_str(&again), &arena, &b, &detail), 0);
    check_metrics(&b);
    assert_int_equal(
        otlp_metrics_json_decode(golden_read(&arena, "node_sdk_metrics.json"), &arena, &b, &detail),
        0);
    check_metrics(&b);
    buf_done(&again);
    arena_done(&arena);
}

#define METRIC(data)                                                                               \
    STR("{\"resource_metrics\":[{\"scope_metrics\":[{\"metrics\":[{\"name\":\"m\"," data "}]}]}]"  \
        "}")

static void points_that_cannot_be_kept_are_counted(void **state)
{
    static const struct {
        struct str body;
        uint64_t kept, rejected;
        const char *reason;
    } cases[] = {
        {METRIC("\"gauge\":{\"dataPoints\":[{},{\"asInt\":\"1\"},{\"asInt\":2,\"flags\":1}]}"), 1,
         2, "without a value"},
        {METRIC("\"summary\":{\"dataPoints\":[{},{},{}]}"), 0, 3, "summaries"},
        {METRIC("\"histogram\":{\"dataPoints\":[{\"bucketCounts\":[1],\"explicitBounds\":[1]},"
                "{\"bucketCounts\":[1,2],\"explicitBounds\":[1]},{\"count\":3}]}"),
         2, 1, "fit its bounds"},
        {METRIC("\"histogram\":{\"dataPoints\":[{\"bucketCounts\":[1,\"2\",3],"
                "\"explicitBounds\":[2,1]}]}"),
         0, 1, "do not rise"},
        {STR("{\"resourceMetrics\":[{\"scopeMetrics\":[{\"metrics\":[{\"sum\":{\"dataPoints\":"
             "[{\"asInt\":1}]}}]}]}]}"),
         0, 1, "without a name"},
        {METRIC("\"description\":\"nothing measured\""), 0, 0, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct arena arena = ARENA_INIT;
        struct error_detail detail = {0};
        struct metric_batches b;
        int err = otlp_metrics_json_decode(cases[i].body, &arena, &b, &detail);
        if (err)
            fail_msg("case %zu: %s", i, detail.message);
        assert_int_equal(b.n_points, cases[i].kept);
        assert_int_equal(b.n_rejected, cases[i].rejected);
        assert_int_equal(b.rejected_reason != NULL, cases[i].reason != NULL);
        if (cases[i].reason && !strstr(b.rejected_reason, cases[i].reason))
            fail_msg("case %zu: %s", i, b.rejected_reason);
        arena_done(&arena);
    }
}

static void exponential_histograms_are_read_whole(void **state)
{
    struct arena arena = ARENA_INIT;
    struct error_detail detail = {0};
    struct metric_batches b;
    assert_int_equal(
        otlp_metrics_json_decode(
            METRIC(
                "\"exponentialHistogram\":{\"aggregationTemporality\":"
                "\"AGGREGATION_TEMPORALITY_DELTA\",\"dataPoints\":[{\"count\":\"9\",\"scale\":-3,"
                "\"zeroCount\":\"2\",\"zeroThreshold\":0.5,\"positive\":{\"offset\":-7,"
                "\"bucketCounts\":[1,\"2\"]},\"negative\":{\"bucketCounts\":[\"4\"]},"
                "\"max\":\"Infinity\"}]}"),
            &arena, &b, &detail),
        0);
    const struct metric *m = &b.items[0].metrics[0];
    const struct metric_exp_histogram *h = &m->points[0].histogram;
    assert_int_equal(m->temporality, METRIC_DELTA);
    assert_int_equal(h->count, 9);
    assert_int_equal(h->scale, -3);
    assert_int_equal(h->positive.offset, -7);
    assert_int_equal(h->positive.n, 2);
    assert_int_equal(h->positive.counts[1], 2);
    assert_int_equal(h->negative.counts[0], 4);
    assert_true(h->zero_threshold == 0.5 && h->lacks_sum && h->lacks_min && !h->lacks_max);
    arena_done(&arena);
}

static void logs_keep_what_is_right_of_what_is_half_wrong(void **state)
{
    struct arena arena = ARENA_INIT;
    struct error_detail detail = {0};
    struct log_batch b;
    /* A body that is not UTF-8, and one that is; protobuf. */
    assert_int_equal(otlp_logs_decode(STR("\x0a\x12\x12\x10\x12\x05\x2a\x03\x0a\x01\xff"
                                          "\x12\x07\x2a\x05\x0a\x03"
                                          "abc"),
                                      &arena, &b, &detail),
                     0);
    assert_int_equal(b.n, 1);
    assert_int_equal(b.n_rejected, 1);
    assert_str_eq(b.records[0].body.string, STR("abc"));
    /* Ids of a wrong length are none; a severity by its name; a number out of range is none. */
    assert_int_equal(
        otlp_logs_json_decode(
            STR("{\"resourceLogs\":[{\"scopeLogs\":[{\"logRecords\":[{\"traceId\":\"abc\","
                "\"spanId\":"
                "\"00\",\"severityNumber\":\"SEVERITY_NUMBER_WARN2\"},{\"severityNumber\":99,"
                "\"body\":{\"intValue\":1e300},\"unknown\":[{}]},null]}]}]}"),
            &arena, &b, &detail),
        0);
    assert_int_equal(b.n, 3);
    assert_true(trace_id_is_zero(&b.records[0].trace_id));
    assert_int_equal(b.records[0].severity, 14);
    assert_int_equal(b.records[1].severity, 0);
    assert_int_equal(b.records[1].body.type, VALUE_DOUBLE);
    arena_done(&arena);
}

static void bytes_that_are_not_otlp_are_refused_with_a_place(void **state)
{
    static const struct str bad[] = {STR(""),
                                     STR("[]"),
                                     STR("{\"resourceLogs\":3}"),
                                     STR("{} x"),
                                     STR("{\"resourceLogs\":[{\"scopeLogs\":{}}]}"),
                                     STR("{\"resourceLogs\":[{\"resource\":\"x\"}]}")};
    struct arena arena = ARENA_INIT;
    struct log_batch b;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct error_detail detail = {0};
        assert_true(otlp_logs_json_decode(bad[i], &arena, &b, &detail) < 0);
        assert_true(detail.message[0] && detail.position <= bad[i].len);
    }
    struct error_detail detail = {0};
    assert_int_equal(otlp_logs_decode(STR("\x0a\x7f"), &arena, &b, &detail), ERR_TRUNCATED);
    struct metric_batches m;
    assert_int_equal(otlp_metrics_decode(STR("\x0a\x7f"), &arena, &m, &detail), ERR_TRUNCATED);
    arena_done(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logs_of_the_node_sdk_are_read_in_both_encodings),
        cmocka_unit_test(metrics_of_the_node_sdk_are_read_in_both_encodings),
        cmocka_unit_test(points_that_cannot_be_kept_are_counted),
        cmocka_unit_test(exponential_histograms_are_read_whole),
        cmocka_unit_test(logs_keep_what_is_right_of_what_is_half_wrong),
        cmocka_unit_test(bytes_that_are_not_otlp_are_refused_with_a_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
