#include "base/test.h"
#include "pugmark/pugmark.h"
#include "sdk/options.h"
#include "sdk/propagate.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define PARENT "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
#define OTHER "00-1af7651916cd43dd8448eb211c80319d-c7ad6b7169203332-00"

/* ---- headers ---- */

struct header {
    const char *name, *value;
};
struct headers {
    struct header items[8];
    size_t n;
    bool unterminated;
};

static void header_set(void *carrier, const char *name, const char *value)
{
    static char copies[64][600]; /* the texts are only there during the call */
    static unsigned next;
    struct headers *h = carrier;
    char *copy = copies[next++ % 64];
    snprintf(copy, sizeof copies[0], "%s", value);
    h->items[h->n++] = (struct header){name, copy};
}

static const char *header_get(void *carrier, const char *name, size_t nth, size_t *ret_len)
{
    struct headers *h = carrier;
    for (size_t i = 0; i < h->n; i++)
        if (strcasecmp(h->items[i].name, name) == 0 && nth-- == 0) {
            if (h->unterminated)
                *ret_len = strlen(h->items[i].value) - 1;
            return h->items[i].value;
        }
    return NULL;
}

static struct pug_context context_from(const char *parent, const char *state_text)
{
    struct pug_context c;
    struct headers h = {{{"traceparent", parent}, {"tracestate", state_text}}, 2, false};
    assert_int_equal(pug_extract(header_get, &h, &c), 1);
    return c;
}

static void headers_go_out_as_they_came_in(void **state)
{
    struct headers in = {
        {{"TraceParent", PARENT}, {"TRACESTATE", "a=1"}, {"tracestate", "b=2"}}, 3, false};
    struct headers out = {.n = 0};
    struct pug_context c;
    char hex[33];
    assert_int_equal(pug_extract(header_get, &in, &c), 1);
    assert_int_equal(c.remote, 1);
    pug_trace_id_hex(&c, hex);
    assert_string_equal(hex, "0af7651916cd43dd8448eb211c80319c");
    pug_span_id_hex(&c, hex);
    assert_string_equal(hex, "b7ad6b7169203331");
    pug_inject(&c, header_set, &out);
    assert_int_equal(out.n, 2);
    assert_string_equal(out.items[0].name, "traceparent");
    assert_string_equal(out.items[0].value, PARENT);
    assert_string_equal(out.items[1].name, "tracestate");
    assert_string_equal(out.items[1].value, "a=1,b=2");
}

static void a_value_may_come_with_its_length(void **state)
{
    struct headers h = {{{"traceparent", PARENT "x"}, {"tracestate", "a=1x"}}, 2, true};
    struct pug_context c;
    assert_int_equal(pug_extract(header_get, &h, &c), 1);
    assert_str_eq(((struct str){c.tracestate, c.tracestate_len}), STR("a=1"));
}

static void two_traceparents_are_none(void **state)
{
    struct headers h = {{{"traceparent", PARENT}, {"traceparent", OTHER}}, 2, false};
    struct pug_context c;
    assert_int_equal(pug_extract(header_get, &h, &c), 0);
    assert_false(pug_context_valid(&c));
}

static void a_tracestate_alone_is_nothing(void **state)
{
    struct headers h = {{{"tracestate", "a=1"}}, 1, false};
    struct pug_context c;
    assert_int_equal(pug_extract(header_get, &h, &c), 0);
    assert_false(pug_context_valid(&c));
}

static void a_damaged_tracestate_does_not_cost_the_parent(void **state)
{
    struct pug_context c = context_from(PARENT, "a=1,,broken");
    assert_true(pug_context_valid(&c));
    assert_int_equal(c.tracestate_len, 0);
}

static void nothing_is_injected_where_there_is_no_context(void **state)
{
    struct headers out = {.n = 0};
    struct pug_context none = {.flags = 1};
    pug_inject(NULL, header_set, &out);
    pug_inject(&none, header_set, &out);
    assert_int_equal(out.n, 0);
}

static void ids_from_a_database_make_a_context(void **state)
{
    struct pug_context c;
    char trace[33], span[17];
    assert_int_equal(
        pug_context_from_hex(&c, "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"), 0);
    pug_trace_id_hex(&c, trace);
    pug_span_id_hex(&c, span);
    assert_string_equal(trace, "0af7651916cd43dd8448eb211c80319c");
    assert_string_equal(span, "b7ad6b7169203331");
    assert_int_equal(pug_context_from_hex(&c, "", ""), PUG_ERR_INVALID);
    assert_int_equal(pug_context_from_hex(&c, NULL, "b7ad6b7169203331"), PUG_ERR_INVALID);
    assert_int_equal(
        pug_context_from_hex(&c, "00000000000000000000000000000000", "b7ad6b7169203331"),
        PUG_ERR_INVALID);
    assert_int_equal(
        pug_context_from_hex(&c, "0af7651916cd43dd8448eb211c80319", "b7ad6b7169203331"),
        PUG_ERR_INVALID);
}

/* ---- the other formats ---- */

#define TRACE_ID "0af7651916cd43dd8448eb211c80319c"
#define SPAN_ID "b7ad6b7169203331"
#define B3 TRACE_ID "-" SPAN_ID "-1"
#define ALL                                                                                        \
    (PROPAGATE_TRACECONTEXT | PROPAGATE_B3 | PROPAGATE_B3_MULTI | PROPAGATE_JAEGER | PROPAGATE_XRAY)

static const char *sent(struct headers *h, const char *name)
{
    return header_get(h, name, 0, &(size_t){0});
}

static void every_chosen_format_is_sent(void **state)
{
    struct pug_context c = context_from(PARENT, "a=1");
    struct headers out = {.n = 0};
    propagators_use(ALL & ~(unsigned)PROPAGATE_B3_MULTI);
    pug_inject(&c, header_set, &out);
    assert_int_equal(out.n, 5);
    assert_string_equal(sent(&out, "traceparent"), PARENT);
    assert_string_equal(sent(&out, "tracestate"), "a=1");
    assert_string_equal(sent(&out, "b3"), B3);
    assert_string_equal(sent(&out, "uber-trace-id"), TRACE_ID ":" SPAN_ID ":0:1");
    assert_string_equal(sent(&out, "X-Amzn-Trace-Id"),
                        "Root=1-0af76519-16cd43dd8448eb211c80319c;Parent=" SPAN_ID ";Sampled=1");
    out.n = 0;
    propagators_use(PROPAGATE_B3_MULTI);
    pug_inject(&c, header_set, &out);
    assert_int_equal(out.n, 3);
    assert_string_equal(sent(&out, "X-B3-TraceId"), TRACE_ID);
    assert_string_equal(sent(&out, "X-B3-SpanId"), SPAN_ID);
    assert_string_equal(sent(&out, "X-B3-Sampled"), "1");
    propagators_use(0);
    out.n = 0;
    pug_inject(&c, header_set, &out);
    assert_int_equal(out.n, 0);
    propagators_use(PROPAGATE_DEFAULT);
}

static void debug_is_sent_without_a_decision(void **state)
{
    struct headers in = {{{"b3", TRACE_ID "-" SPAN_ID "-d"}}, 1, false}, out = {.n = 0};
    struct pug_context c;
    propagators_use(PROPAGATE_B3 | PROPAGATE_B3_MULTI);
    assert_int_equal(pug_extract(header_get, &in, &c), 1);
    pug_inject(&c, header_set, &out);
    assert_string_equal(sent(&out, "b3"), TRACE_ID "-" SPAN_ID "-d");
    assert_string_equal(sent(&out, "X-B3-Flags"), "1");
    assert_null(sent(&out, "X-B3-Sampled"));
    propagators_use(PROPAGATE_DEFAULT);
}

/* Takes the header in front away, one after the other: the next one is read. */
static void the_first_in_order_is_read(void **state)
{
    static struct header all[] = {
        {"traceparent", "00-00000000000000000000000000000001-00000000000000a1-01"},
        {"b3", "0000000000000002-00000000000000a1-1"},
        {"x-b3-traceid", "0000000000000003"},
        {"x-b3-spanid", "00000000000000a1"},
        {"uber-trace-id", "4:a1:0:1"},
        {"x-amzn-trace-id", "Root=1-00000000-000000000000000000000005;Parent=00000000000000a1"},
    };
    static const int first[] = {1, 2, 3, 0, 4, 5};
    propagators_use(ALL);
    for (size_t i = 0; i < 6; i++) {
        struct headers h = {.n = 6 - i};
        struct pug_context c;
        if (!first[i])
            continue;
        memcpy(h.items, all + i, (6 - i) * sizeof all[0]);
        assert_int_equal(pug_extract(header_get, &h, &c), 1);
        assert_int_equal(c.trace_id[15], first[i]);
        /* and what is not chosen is not read */
        propagators_use(i == 5 ? ALL & ~(unsigned)PROPAGATE_XRAY : PROPAGATE_XRAY);
        assert_int_equal(pug_extract(header_get, &h, &c), i == 5 ? 0 : 1);
        propagators_use(ALL);
    }
    propagators_use(PROPAGATE_DEFAULT);
}

static void a_damaged_header_is_counted_and_the_next_one_read(void **state)
{
    struct headers h = {{{"traceparent", "00-x"}, {"b3", B3}}, 2, false};
    struct headers two = {{{"b3", B3}, {"b3", B3}}, 2, false};
    struct pug_counts before = {.size = sizeof before}, after = {.size = sizeof after};
    struct pug_context c;
    pug_counts_read(&before);
    propagators_use(ALL);
    assert_int_equal(pug_extract(header_get, &h, &c), 1);
    assert_int_equal(c.trace_id[15], 0x9c);
    assert_int_equal(pug_extract(header_get, &two, &c), 0);
    propagators_use(PROPAGATE_DEFAULT);
    pug_counts_read(&after);
    assert_int_equal(after.damaged_contexts, before.damaged_contexts + 2);
}

static void all_formats_go_round(void **state)
{
    static const unsigned formats[] = {PROPAGATE_TRACECONTEXT, PROPAGATE_B3, PROPAGATE_B3_MULTI,
                                       PROPAGATE_JAEGER, PROPAGATE_XRAY};
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        for (uint8_t flags = 0; flags < 2; flags++) {
            struct pug_context c = context_from(PARENT, ""), back;
            struct headers h = {.n = 0};
            c.flags = flags;
            propagators_use(formats[i]);
            pug_inject(&c, header_set, &h);
            assert_int_equal(pug_extract(header_get, &h, &back), 1);
            assert_memory_equal(c.trace_id, back.trace_id, 16);
            assert_memory_equal(c.span_id, back.span_id, 8);
            assert_int_equal(back.flags, flags);
            propagators_use(PROPAGATE_DEFAULT);
        }
    }
}

static void starting_chooses_the_formats_also_when_tracing_is_off(void **state)
{
    struct pug_options off = {.size = sizeof off, .tracing = PUG_TRACING_OFF};
    struct headers h = {{{"b3", B3}}, 1, false};
    struct pug_context c;
    assert_int_equal(pug_extract(header_get, &h, &c), 0);
    setenv("OTEL_PROPAGATORS", "b3,tracecontext", 1);
    assert_int_equal(pug_start(&off), 0);
    assert_int_equal(pug_extract(header_get, &h, &c), 1);
    setenv("OTEL_PROPAGATORS", "none", 1);
    assert_int_equal(pug_start(&off), 0);
    assert_int_equal(pug_extract(header_get, &h, &c), 0);
    unsetenv("OTEL_PROPAGATORS");
    assert_int_equal(pug_start(&off), 0);
    assert_int_equal(propagators(), PROPAGATE_DEFAULT);
}

/* ---- `_trace` ---- */

#define TRACE "\"_trace\":{\"traceparent\":\"" PARENT "\"}"

static void injects(const char *record, const char *expected)
{
    struct pug_context c = context_from(PARENT, "");
    char text[512];
    strcpy(text, record);
    size_t n = pug_json_inject(&c, text, strlen(record), sizeof text);
    assert_string_equal(text, expected);
    assert_int_equal(n, strlen(expected));
}

static void trace_becomes_the_last_member(void **state)
{
    injects("{\"a\":1}", "{\"a\":1," TRACE "}");
    injects("{}", "{" TRACE "}");
    injects(" { } \n", " { " TRACE "} \n");
    injects("{\"a\":{\"_trace\":1}}\n", "{\"a\":{\"_trace\":1}," TRACE "}\n");
    injects("{\"a\":\"}\"}", "{\"a\":\"}\"," TRACE "}");
}

static void a_trace_that_was_there_is_replaced(void **state)
{
    injects("{\"_trace\":{\"traceparent\":\"" OTHER "\"}}", "{" TRACE "}");
    injects("{\"_trace\":null,\"a\":1}", "{\"a\":1," TRACE "}");
    injects("{\"a\":1,\"_trace\":[1,{}]}", "{\"a\":1," TRACE "}");
    injects("{\"a\":1, \"_trace\":1 , \"_trace\":2 }", "{\"a\":1 ," TRACE "}");
}

static void what_is_no_object_stays(void **state)
{
    injects("[1]", "[1]");
    injects("{\"a\":1", "{\"a\":1");
    injects("{\"a\":1}}", "{\"a\":1}}");
    injects("", "");
    injects("{\"a\":01}", "{\"a\":01}");
    injects("{\"a\":\"\xff\"}", "{\"a\":\"\xff\"}");
}

static void too_small_a_buffer_is_left_alone_and_told_the_size(void **state)
{
    struct pug_context c = context_from(PARENT, "");
    char text[256] = "{\"a\":1}";
    size_t need = strlen("{\"a\":1," TRACE "}");
    assert_int_equal(pug_json_inject(&c, text, 7, need), need);
    assert_string_equal(text, "{\"a\":1}");
    assert_int_equal(pug_json_inject(&c, text, 7, need + 1), need);
    assert_string_equal(text, "{\"a\":1," TRACE "}");
}

static void a_tracestate_goes_along_and_comes_back(void **state)
{
    struct pug_context c = context_from(PARENT, "a=q\"uote\\s,b= 2"), back;
    char text[512] = "{\"a\":1}";
    size_t n = pug_json_inject(&c, text, 7, sizeof text);
    assert_non_null(strstr(text, "\"tracestate\":\"a=q\\\"uote\\\\s,b= 2\""));
    n = pug_json_extract(text, n, &back);
    assert_int_equal(n, 7);
    assert_string_equal(text, "{\"a\":1}");
    assert_memory_equal(&c, &back, offsetof(struct pug_context, tracestate) + c.tracestate_len);
}

static void extracts(const char *record, const char *expected, bool valid)
{
    struct pug_context c;
    char text[512];
    strcpy(text, record);
    size_t n = pug_json_extract(text, strlen(record), &c);
    if (strcmp(text, expected) != 0)
        fail_msg("'%s' became '%s', not '%s'", record, text, expected);
    assert_int_equal(n, strlen(expected));
    assert_int_equal(pug_context_valid(&c), valid);
}

static void extracting_takes_the_member_out_wherever_it_is(void **state)
{
    extracts("{" TRACE "}", "{}", true);
    extracts("{" TRACE ",\"a\":1}", "{\"a\":1}", true);
    extracts("{\"a\":1," TRACE "}", "{\"a\":1}", true);
    extracts("{\"a\":1," TRACE ",\"b\":2}\n", "{\"a\":1,\"b\":2}\n", true);
    extracts("{ \"a\" : 1 , " TRACE " }", "{ \"a\" : 1  }", true);
    extracts("{\"\\u005ftrace\":{\"traceparent\":\"" PARENT "\"}}", "{}", true);
    extracts("{" TRACE "," TRACE "}", "{}", true);
    extracts("{\"a\":1," TRACE "," TRACE "}", "{\"a\":1}", true);
}

static void extracting_leaves_other_things_alone(void **state)
{
    extracts("{\"a\":1}", "{\"a\":1}", false);
    extracts("{\"a\":{" TRACE "}}", "{\"a\":{" TRACE "}}", false);
    extracts("[{" TRACE "}]", "[{" TRACE "}]", false);
    extracts("{" TRACE, "{" TRACE, false);
    extracts("{" TRACE "}x", "{" TRACE "}x", false);
}

static void a_damaged_trace_goes_and_gives_nothing(void **state)
{
    extracts("{\"_trace\":7,\"a\":1}", "{\"a\":1}", false);
    extracts("{\"_trace\":{\"traceparent\":7}}", "{}", false);
    extracts("{\"_trace\":{\"traceparent\":[{}]}}", "{}", false);
    extracts("{\"_trace\":{\"traceparent\":\"00-x\"}}", "{}", false);
    extracts("{\"_trace\":{\"other\":{\"traceparent\":\"" PARENT "\"}}}", "{}", false);
}

static void there_and_back_keeps_every_record(void **state)
{
    static const char *const records[] = {
        "{}",
        "{\"a\":[1,2,{\"b\":null}],\"c\":\"\\u00e9\\\"\"}",
        "{ \"x\" : -1.5e3 }",
        "{\"_trac\":1,\"_tracee\":2}\n",
    };
    struct pug_context c = context_from(PARENT, "k=v"), back;
    for (size_t i = 0; i < sizeof records / sizeof records[0]; i++) {
        char text[512];
        strcpy(text, records[i]);
        size_t n = pug_json_inject(&c, text, strlen(text), sizeof text);
        assert_int_equal(n, strlen(text));
        pug_json_extract(text, n, &back);
        assert_string_equal(text, records[i]);
        assert_memory_equal(c.trace_id, back.trace_id, 16);
        assert_memory_equal(c.span_id, back.span_id, 8);
    }
}

static void errno_is_kept(void **state)
{
    struct pug_context c = context_from(PARENT, "");
    char text[256] = "{\"\\u0061\":1}";
    errno = 4711;
    pug_json_inject(&c, text, strlen(text), sizeof text);
    pug_json_extract(text, strlen(text), &c);
    assert_int_equal(errno, 4711);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(headers_go_out_as_they_came_in),
        cmocka_unit_test(a_value_may_come_with_its_length),
        cmocka_unit_test(two_traceparents_are_none),
        cmocka_unit_test(a_tracestate_alone_is_nothing),
        cmocka_unit_test(a_damaged_tracestate_does_not_cost_the_parent),
        cmocka_unit_test(nothing_is_injected_where_there_is_no_context),
        cmocka_unit_test(ids_from_a_database_make_a_context),
        cmocka_unit_test(every_chosen_format_is_sent),
        cmocka_unit_test(debug_is_sent_without_a_decision),
        cmocka_unit_test(the_first_in_order_is_read),
        cmocka_unit_test(a_damaged_header_is_counted_and_the_next_one_read),
        cmocka_unit_test(all_formats_go_round),
        cmocka_unit_test(starting_chooses_the_formats_also_when_tracing_is_off),
        cmocka_unit_test(trace_becomes_the_last_member),
        cmocka_unit_test(a_trace_that_was_there_is_replaced),
        cmocka_unit_test(what_is_no_object_stays),
        cmocka_unit_test(too_small_a_buffer_is_left_alone_and_told_the_size),
        cmocka_unit_test(a_tracestate_goes_along_and_comes_back),
        cmocka_unit_test(extracting_takes_the_member_out_wherever_it_is),
        cmocka_unit_test(extracting_leaves_other_things_alone),
        cmocka_unit_test(a_damaged_trace_goes_and_gives_nothing),
        cmocka_unit_test(there_and_back_keeps_every_record),
        cmocka_unit_test(errno_is_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
