#include "base/test.h"
#include "query/explain.h"

static struct traceql *parse(const char *text)
{
    struct traceql *q;
    struct error_detail detail = {0};
    if (traceql_parse(str_from(text), &q, &detail))
        fail_msg("%s: %s", text, detail.message);
    return q;
}

static void a_plan_is_said_in_the_words_of_the_query(void **state)
{
    static const struct {
        const char *query, *plan;
    } cases[] = {
        {"{ }", "true"},
        {"{ name = \"a\\\"b\" && status = error }", "(name = \"a\\\"b\" && status = error)"},
        {"{ kind = server || duration > 2ms }", "(kind = server || duration > 2000000ns)"},
        {"{ span.http.method = \"GET\" }", "span.http.method = \"GET\""},
        {"{ resource.service.name =~ \"a[bc]+\" }", "resource.service.name =~ \"a[bc]+\""},
        {"{ .cached = true } >> { .x > 1.5 }", ".x > 1.5"},
        {"{ rootName = \"a\" }", "true"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct traceql *q = parse(cases[i].query);
        struct arena arena = ARENA_INIT;
        struct buf out = BUF_INIT;
        bool exact = true;
        const struct predicate *p = traceql_predicate(q->stages, &arena, &exact);
        assert_non_null(p);
        explain_predicate(p, &out);
        buf_byte(&out, '\0');
        assert_string_equal(out.ptr, cases[i].plan);
        buf_done(&out);
        arena_done(&arena);
        traceql_free(q);
    }
}

static void what_needs_whole_traces_is_named(void **state)
{
    static const struct {
        const char *query;
        unsigned reasons;
    } cases[] = {
        {"{ name = \"a\" }", 0},
        {"{ name = \"a\" } | select(status)", 0},
        {"{ name = \"a\" } >> { }", EXPLAIN_STRUCTURE},
        {"{ name = \"a\" } && { rootName = \"b\" }", EXPLAIN_SPANSETS | EXPLAIN_TRACE},
        {"{ name = \"a\" } || { parent.name = \"b\" }", EXPLAIN_PLACE},
        {"{ event:name = \"b\" } | by(name)", EXPLAIN_PARTS | EXPLAIN_AGGREGATES},
        {"{ .a + 1 = 2 } | count() > 3", EXPLAIN_VALUES | EXPLAIN_AGGREGATES},
        {"({ name = \"a\" } | count() > 1) || { }", EXPLAIN_AGGREGATES},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct traceql *q = parse(cases[i].query);
        unsigned reasons = explain_reasons(q->stages);
        if (reasons != cases[i].reasons)
            fail_msg("%s: %#x, not %#x", cases[i].query, reasons, cases[i].reasons);
        traceql_free(q);
    }
    for (unsigned i = 0; i < EXPLAIN_REASONS_MAX; i++)
        for (unsigned j = 0; j < i; j++)
            assert_string_not_equal(explain_reason_text(1u << i), explain_reason_text(1u << j));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_plan_is_said_in_the_words_of_the_query),
        cmocka_unit_test(what_needs_whole_traces_is_named),
    };
    return cmocka_run_group_tests_name("explain", tests, NULL, NULL);
}
