#include "base/test.h"

#include "base/clock.h"
#include "ingest/trace_line.h"

#include <stdio.h>

#define TRACE                                                                                      \
    "\"_trace\":{\"traceparent\":\"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\","     \
    "\"tracestate\":\"a=1\"}"
#define SECOND UINT64_C(1700000000)

static struct arena arena;

static int teardown(void **state)
{
    arena_done(&arena);
    arena = ARENA_INIT;
    return 0;
}

static struct line decode(struct str text, enum line_fate fate)
{
    const struct line_context context = {
        .now_ns = 77, .service = STR("file"), .span_id = {{9, 9, 9, 9, 9, 9, 9, 9}}};
    struct error_detail detail = {0};
    struct line line;
    int got = trace_line_decode(text, &context, &arena, &line, &detail);
    if (got != (int)fate)
        fail_msg("%.*s: fate %d, %s", STR_ARG(text), got, detail.message);
    return line;
}

static void a_record_with_a_point_in_time_is_a_span_without_length_below_its_context(void **state)
{
    struct line l =
        decode(STR("{\"msg\":\"hello\",\"time\":\"2023-11-14T22:13:20.5Z\",\"n\":7," TRACE
                   ",\"deep\":{\"a\":[1,2.5,null,\"x\"]}}"),
               LINE_SPAN);
    const struct span *s = &l.span;
    assert_int_equal(s->trace_id.bytes[0], 0x0a);
    assert_int_equal(s->parent_id.bytes[0], 0xb7);
    assert_int_equal(s->span_id.bytes[0], 9);
    assert_int_equal(s->start_ns, SECOND * NS_PER_S + NS_PER_S / 2);
    assert_int_equal(s->end_ns, s->start_ns);
    assert_str_eq(s->name, STR("log line"));
    assert_str_eq(s->trace_state, STR("a=1"));
    assert_str_eq(l.service, STR("file"));
    assert_int_equal(s->attrs.n, 3);
    assert_str_eq(s->attrs.items[0].key, STR("msg"));
    assert_int_equal(s->attrs.items[1].value.integer, 7);
    assert_int_equal(s->attrs.items[2].value.map.items[0].value.array.n, 4);
    assert_true(s->attrs.items[2].value.map.items[0].value.array.items[1].real == 2.5);
}

static void times_are_put_together(void **state)
{
    static const struct {
        struct str members;
        uint64_t start_ns, end_ns;
    } cases[] = {
        {STR("\"start_unix_nano\":\"1700000000000000001\",\"duration_ns\":5"),
         SECOND * NS_PER_S + 1, SECOND * NS_PER_S + 6},
        {STR("\"start\":1700000000,\"end\":1700000002.5"), SECOND * NS_PER_S,
         SECOND * NS_PER_S + 5 * NS_PER_S / 2},
        {STR("\"timestamp\":1700000000123,\"duration_ms\":23"), SECOND * NS_PER_S + 100 * NS_PER_MS,
         SECOND * NS_PER_S + 123 * NS_PER_MS},
        {STR("\"end\":1700000000,\"duration\":\"1m30s\""), (SECOND - 90) * NS_PER_S,
         SECOND * NS_PER_S},
        {STR("\"ts\":1700000000,\"duration\":0.25"), SECOND * NS_PER_S - NS_PER_S / 4,
         SECOND * NS_PER_S},
        {STR("\"start\":1700000002,\"end\":1700000000"), (SECOND + 2) * NS_PER_S,
         (SECOND + 2) * NS_PER_S},
        {STR("\"time\":\"soon\""), 77, 77},
        {STR("\"x\":1"), 77, 77},
        {STR("\"time\":1,\"duration\":9000000000"), 0, NS_PER_S},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[400];
        int n = snprintf(text, sizeof text, "{%.*s," TRACE "}", STR_ARG(cases[i].members));
        struct line l = decode((struct str){text, (size_t)n}, LINE_SPAN);
        if (l.span.start_ns != cases[i].start_ns || l.span.end_ns != cases[i].end_ns)
            fail_msg("%s: %llu to %llu", text, (unsigned long long)l.span.start_ns,
                     (unsigned long long)l.span.end_ns);
    }
}

static void a_line_with_an_id_of_its_own_is_that_span(void **state)
{
    struct line l = decode(
        STR("{\"span_id\":\"00f067aa0ba902b7\",\"name\":\"GET /\",\"kind\":\"SERVER\",\"service\":"
            "\"front\",\"error\":\"it broke\"," TRACE "}"),
        LINE_SPAN);
    assert_int_equal(l.span.span_id.bytes[1], 0xf0);
    assert_int_equal(l.span.parent_id.bytes[0], 0xb7); /* written inside another */
    assert_str_eq(l.span.name, STR("GET /"));
    assert_str_eq(l.service, STR("front"));
    assert_int_equal(l.span.kind, SPAN_KIND_SERVER);
    assert_int_equal(l.span.status_code, STATUS_ERROR);
    assert_str_eq(l.span.status_message, STR("it broke"));
    assert_int_equal(l.span.attrs.n, 1); /* error */
    l = decode(STR("{\"span_id\":\"b7ad6b7169203331\",\"status\":\"ok\"," TRACE "}"), LINE_SPAN);
    assert_true(span_id_is_zero(&l.span.parent_id)); /* the context is its own */
    assert_int_equal(l.span.status_code, STATUS_OK);
    l = decode(
        STR("{\"span_id\":\"b7ad6b7169203331\",\"parent_id\":\"0000000000000005\"," TRACE "}"),
        LINE_SPAN);
    assert_int_equal(l.span.parent_id.bytes[7], 5);
}

static void a_line_that_names_its_trace_is_a_log(void **state)
{
    struct line l = decode(STR("{\"time\":\"2023-11-14T22:13:20Z\",\"level\":\"WARN\",\"message\":"
                               "\"slow\",\"n\":1,\"otel_trace_id\":"
                               "\"0af7651916cd43dd8448eb211c80319c\",\"otel_span_id\":"
                               "\"b7ad6b7169203331\"}"),
                           LINE_LOG);
    assert_int_equal(l.log.time_ns, SECOND * NS_PER_S);
    assert_int_equal(l.log.trace_id.bytes[0], 0x0a);
    assert_int_equal(l.log.span_id.bytes[0], 0xb7);
    assert_int_equal(l.log.severity, 13);
    assert_str_eq(l.log.body.string, STR("slow"));
    assert_int_equal(l.log.attrs.n, 1);
}

static void other_lines_are_passed_over_or_invalid(void **state)
{
    static const struct str passed[] = {STR(""), STR("  "), STR("{}"), STR("{\"a\":1}"),
                                        STR("{\"otel_trace_id\":\"0\",\"otel_span_id\":\"0\"}")};
    static const struct str invalid[] = {STR("[1]"),
                                         STR("hello"),
                                         STR("{\"a\":1"),
                                         STR("{} {}"),
                                         STR("{\"_trace\":1}"),
                                         STR("{\"_trace\":{\"traceparent\":\"00-0-0-0\"}}"),
                                         STR("{\"a\":\"\xff\"}")};
    for (size_t i = 0; i < sizeof passed / sizeof *passed; i++)
        decode(passed[i], LINE_PASSED);
    for (size_t i = 0; i < sizeof invalid / sizeof *invalid; i++)
        decode(invalid[i], LINE_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_teardown(name, teardown)
        T(a_record_with_a_point_in_time_is_a_span_without_length_below_its_context),
        T(times_are_put_together),
        T(a_line_with_an_id_of_its_own_is_that_span),
        T(a_line_that_names_its_trace_is_a_log),
        T(other_lines_are_passed_over_or_invalid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
