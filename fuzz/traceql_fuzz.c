/* Any text as a query: what is understood prints to a form that is understood the same, and means
 * the same of a span whether it is evaluated or planned; what is not has a message and a place. */
#include "query/traceql.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fail(const char *what, struct str text)
{
    fprintf(stderr, "%s: %.*s\n", what, STR_ARG(text));
    abort();
}

static void print(const struct traceql *q, struct buf *out)
{
    buf_clear(out);
    traceql_print(q, out);
    if (!buf_ok(out))
        abort();
}

/* The plan hides no span that is meant, and when it is exact it adds none. (Intrinsics of the trace
 * are nil for traceql_match_span, for which some conditions hold.) On a trace of one span the whole
 * pipeline finds no span that the plan hides. */
static void check_stages(const struct traceql *q, const struct span *span, bool holds,
                         struct str text)
{
    struct arena arena = ARENA_INIT;
    bool exact;
    const struct predicate *plan = traceql_predicate(q->stages, &arena, &exact);
    if (!plan)
        abort();
    bool planned = predicate_match(plan, span);
    if (!q->needs_trace && planned != holds && (exact || holds))
        fail("the plan means something else", text);
    struct traceql_tree tree;
    struct traceql_trace trace = {span->name, span->resource->service_name, 5, &tree};
    struct traceql_spans *sets;
    size_t n;
    if (traceql_tree_init(&tree, span, 1, &arena) ||
        traceql_run(q->stages, &trace, NULL, &arena, &sets, &n))
        abort();
    if (n && !planned)
        fail("the plan hides what the pipeline finds", text);
    if (n && traceql_excludes(q->stages, &trace, &arena))
        fail("the trace was excluded", text);
    for (size_t i = 0; i < n; i++)
        if (sets[i].n != 1 || sets[i].marks[0] != 1)
            fail("a spanset without its span", text);
    arena_done(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct resource resource = {.service_name = STR("s")};
    static const struct scope scope = {.name = STR("lib")};
    static const struct attr attrs[] = {
        {STR("a"), {.type = VALUE_STRING, .string = STR("text")}},
        {STR("b"), {.type = VALUE_INT, .integer = INT64_MIN}},
        {STR("c"), {.type = VALUE_DOUBLE, .real = -0.5}},
        {STR("d"), {.type = VALUE_BOOL, .boolean = true}},
    };
    static const struct event event = {.time_ns = 5, .name = STR("e"), .attrs = {attrs, 4, 0}};
    static const struct span span = {.trace_id = {{1}},
                                     .span_id = {{2}},
                                     .start_ns = 1,
                                     .end_ns = UINT64_MAX,
                                     .name = STR("GET /"),
                                     .attrs = {attrs, 4, 0},
                                     .events = &event,
                                     .n_events = 1,
                                     .resource = &resource,
                                     .scope = &scope};
    struct str text = {(const char *)data, size};
    struct traceql *q, *again;
    struct error_detail detail = {0};
    int err = traceql_parse(text, &q, &detail);
    if (err) {
        if (err != detail.code || !detail.message[0] || detail.position > size)
            fail("an error without its detail", text);
        return 0;
    }
    struct buf form = BUF_INIT, form_again = BUF_INIT;
    print(q, &form);
    /* The form may be longer than a query may be, and has more levels. */
    err = traceql_parse(buf_as_str(&form), &again, &detail);
    if (err && err != ERR_TOO_LARGE)
        fail(detail.message, buf_as_str(&form));
    bool holds = !q->metric && traceql_match_span(q, &span);
    if (!err) {
        print(again, &form_again);
        if (!str_eq(buf_as_str(&form), buf_as_str(&form_again)))
            fail("prints to another form", buf_as_str(&form));
        if (!q->metric && traceql_match_span(again, &span) != holds)
            fail("the form means something else", buf_as_str(&form));
        traceql_free(again);
    }
    if (q->stages)
        check_stages(q, &span, holds, text);
    buf_done(&form);
    buf_done(&form_again);
    traceql_free(q);
    return 0;
}
