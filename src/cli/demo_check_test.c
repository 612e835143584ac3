#include "base/test.h"

#include "cli/demo_check.h"

#include <stdio.h>

/* One intrusion, as the server gives it back. A span's id is its place here plus 1. */
static const struct made {
    const char *service, *name;
    int parent; /* place plus 1; 0: the root */
    int link;   /* place plus 1; 0: none */
} whole[] = {
    {"driver", "driver.scenario", 0, 0},
    {"driver", "driver.attack_http", 1, 0},
    {"decoy", "decoy.http_request", 2, 0},
    {"driver", "driver.attack_ssh", 1, 0},
    {"decoy", "decoy.ssh_session", 4, 0},
    {"collector", "collector.event", 3, 0},
    {"collector", "collector.event", 5, 0},
    {"ingester", "ingester.process_record", 6, 0},
    {"ingester", "ingester.extract_bounty", 8, 0},
    {"ingester", "db.add_bounty", 9, 0},
    {"ingester", "db.add_log", 8, 0},
    {"profiler", "profiler.process_ip", 8, 0},
    {"profiler", "profiler.build_behavior_record", 12, 0},
    {"profiler", "profiler.timing_stats", 13, 0},
    {"profiler", "profiler.classify_behavior", 13, 0},
    {"profiler", "profiler.detect_tools_from_headers", 13, 0},
    {"profiler", "profiler.phase_sequence", 13, 0},
    {"profiler", "profiler.sniffer_rollup", 13, 0},
    {"profiler", "profiler.behavior_summary", 12, 0},
    {"profiler", "db.upsert_attacker", 12, 0},
    {"correlation", "correlation.traversals", 8, 0},
    {"correlation", "correlation.report_json", 21, 0},
    {"correlation", "correlation.traversal_syslog_lines", 21, 0},
    {"correlation", "db.upsert_traversal", 21, 0},
    {"driver", "driver.api_request", 1, 0},
    {"api", "api.login", 25, 0},
    {"driver", "driver.watch_stream", 1, 0},
    {"api", "api.stream_events", 27, 0},
    {"api", "sse.emit_logs", 28, 8},
    {"api", "api.get_attackers", 25, 0},
    {"api", "api.get_attacker_detail", 25, 0},
    {"api", "db.get_attacker_detail", 31, 0},
};
enum { N = sizeof whole / sizeof *whole };

#define TRACE_ID "0123456789abcdef0123456789abcdef"

/* The answer without span `without` (N: with all); `link_trace` is the trace that links name. */
static void answer(struct buf *out, size_t without, const char *link_trace)
{
    static const char *const services[] = {"api",    "collector", "correlation", "decoy",
                                           "driver", "ingester",  "profiler"};
    buf_clear(out);
    buf_printf(out, "{\"traceId\":\"" TRACE_ID "\",\"resources\":[");
    for (size_t i = 0; i < 7; i++)
        buf_printf(out, "%s{\"service\":\"%s\",\"attributes\":[]}", i ? "," : "", services[i]);
    buf_cstr(out, "],\"scopes\":[{\"name\":\"\"}],\"spans\":[");
    bool comma = false;
    for (size_t i = 0; i < N; i++) {
        size_t resource = 0;
        while (strcmp(services[resource], whole[i].service) != 0)
            resource++;
        if (i == without)
            continue;
        buf_printf(out, "%s{\"spanId\":\"%016zx\",\"parentSpanId\":\"", comma ? "," : "", i + 1);
        comma = true;
        if (whole[i].parent)
            buf_printf(out, "%016x", (unsigned)whole[i].parent);
        buf_printf(out,
                   "\",\"name\":\"%s\",\"resource\":%zu,\"events\":[{\"name\":\"x\"}],\"links\":[",
                   whole[i].name, resource);
        if (whole[i].link)
            buf_printf(out, "{\"traceId\":\"%s\",\"spanId\":\"%016x\"}", link_trace,
                       (unsigned)whole[i].link);
        buf_cstr(out, "]}");
    }
    buf_cstr(out, "]}");
    assert_true(buf_ok(out));
}

static void a_whole_trace_misses_nothing(void **state)
{
    struct buf json = BUF_INIT, missing = BUF_INIT;
    answer(&json, N, TRACE_ID);
    assert_int_equal(demo_check(buf_as_str(&json), &missing, NULL), 0);
    assert_str_eq(buf_as_str(&missing), STR(""));
    buf_done(&json);
    buf_done(&missing);
}

static void every_single_span_is_missed(void **state)
{
    struct buf json = BUF_INIT, missing = BUF_INIT;
    for (size_t i = 0; i < N; i++) {
        buf_clear(&missing);
        answer(&json, i, TRACE_ID);
        assert_int_equal(demo_check(buf_as_str(&json), &missing, NULL), 0);
        if (missing.len == 0)
            fail_msg("%s was not missed", whole[i].name);
    }
    buf_done(&json);
    buf_done(&missing);
}

static void a_link_into_another_trace_does_not_lead_back(void **state)
{
    struct buf json = BUF_INIT, missing = BUF_INIT;
    answer(&json, N, "ffffffffffffffffffffffffffffffff");
    assert_int_equal(demo_check(buf_as_str(&json), &missing, NULL), 0);
    assert_str_eq(buf_as_str(&missing),
                  STR("no link from sse.emit_logs to ingester.process_record\n"));
    buf_done(&json);
    buf_done(&missing);
}

static void an_answer_cut_off_anywhere_is_an_error(void **state)
{
    struct buf json = BUF_INIT, missing = BUF_INIT;
    answer(&json, N, TRACE_ID);
    for (size_t len = 0; len < json.len; len++)
        if (demo_check((struct str){json.ptr, len}, &missing, NULL) == 0)
            fail_msg("taken as a trace at %zu of %zu bytes", len, json.len);
    buf_done(&json);
    buf_done(&missing);
}

static void an_answer_of_another_shape_is_an_error(void **state)
{
    static const char *const answers[] = {
        "null",
        "[]",
        "{\"spans\":7}",
        "{\"spans\":[7]}",
        "{\"spans\":[{\"spanId\":7}]}",
        "{\"spans\":[{\"resource\":\"x\"}]}",
        "{\"spans\":[{\"links\":{}}]}",
        "{\"spans\":[{\"links\":[null]}]}",
        "{\"resources\":[{\"service\":null}]}",
        "{} {}",
    };
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        struct buf missing = BUF_INIT;
        struct error_detail detail = {0};
        if (demo_check(str_from(answers[i]), &missing, &detail) == 0)
            fail_msg("taken as a trace: %s", answers[i]);
        assert_int_not_equal(detail.code, 0);
        buf_done(&missing);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_trace_misses_nothing),
        cmocka_unit_test(every_single_span_is_missed),
        cmocka_unit_test(a_link_into_another_trace_does_not_lead_back),
        cmocka_unit_test(an_answer_cut_off_anywhere_is_an_error),
        cmocka_unit_test(an_answer_of_another_shape_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
