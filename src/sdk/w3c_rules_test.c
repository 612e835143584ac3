/* The rules of W3C Trace Context, Level 1 (Recommendation, 2021-11-23) and Level 2 (Candidate
 * Recommendation, 2024-03-28), each by its section, on a service as a whole: a request comes in, a span
 * is made for it, a request goes out. The inputs are those of the working group's own test harness and
 * those that the text names. */
#include "base/test.h"
#include "pugmark/pugmark.h"
#include "sdk/propagate.h"
#include "sdk/w3c.h"

#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#define TRACE "12345678901234567890123456789012"
#define PARENT "1234567890123456"
#define GOOD "00-" TRACE "-" PARENT "-01"

struct header {
    const char *name, *value;
};

static const char *header_get(void *carrier, const char *name, size_t nth, size_t *ret_len)
{
    for (const struct header *h = carrier; h->name; h++)
        if (strcasecmp(h->name, name) == 0 && nth-- == 0)
            return h->value;
    return NULL;
}

struct outgoing {
    char parent[100], state[PUG_TRACESTATE_MAX + 1];
    int n_parent, n_state;
};

static void header_set(void *carrier, const char *name, const char *value)
{
    struct outgoing *out = carrier;
    if (strcmp(name, "traceparent") == 0) {
        out->n_parent++;
        snprintf(out->parent, sizeof out->parent, "%s", value);
    } else if (strcmp(name, "tracestate") == 0) {
        out->n_state++;
        snprintf(out->state, sizeof out->state, "%s", value);
    } else {
        fail_msg("header %s", name);
    }
}

/* The service. */
static struct outgoing serve(const struct header *request)
{
    struct outgoing out = {.n_parent = 0};
    struct pug_context from;
    struct header *carrier = (struct header *)(uintptr_t)request;
    pug_extract(header_get, carrier, &from);
    PUG_SPAN_FROM(&from, "http.request", PUG_KIND(PUG_KIND_SERVER));
    pug_inject(NULL, header_set, &out);
    return out;
}

static struct outgoing serve_2(const char *parent, const char *state)
{
    struct header request[3] = {{"traceparent", parent}};
    if (state)
        request[1] = (struct header){"tracestate", state};
    return serve(request);
}

static void assert_valid(const struct outgoing *out)
{
    struct pug_context c;
    assert_int_equal(out->n_parent, 1);
    assert_true(w3c_traceparent_parse(str_from(out->parent), &c));
}

/* Same trace, a parent id of our own. */
static void assert_continues(const char *parent)
{
    struct outgoing out = serve_2(parent, NULL);
    assert_valid(&out);
    if (strncmp(out.parent + 3, TRACE, 32) != 0)
        fail_msg("\"%s\" was not continued: %s", parent, out.parent);
    assert_int_not_equal(strncmp(out.parent + 36, PARENT, 16), 0);
}

/* A new trace, and nothing of the old tracestate. */
static void assert_restarts(const char *parent)
{
    uint64_t before = propagate_damaged();
    struct outgoing out = serve_2(parent, "foo=1");
    assert_valid(&out);
    if (strncmp(out.parent + 3, TRACE, 32) == 0)
        fail_msg("\"%s\" was continued", parent);
    assert_null(strstr(out.state, "foo"));
    assert_int_equal(propagate_damaged(), before + 1);
}

static void assert_state(const char *state, const char *expected)
{
    struct outgoing out = serve_2(GOOD, state);
    assert_valid(&out);
    assert_int_equal(strncmp(out.parent + 3, TRACE, 32), 0);
    if (strcmp(out.state, expected) != 0)
        fail_msg("\"%s\" became \"%s\", not \"%s\"", state, out.state, expected);
    /* 3.3.1: "Vendors MUST accept empty tracestate headers but SHOULD avoid sending them." */
    assert_int_equal(out.n_state, expected[0] != '\0');
}

/* ---- 2.3, 4.3: the processing model ---- */

static void a_request_without_headers_starts_a_trace(void **state)
{
    struct header none[1] = {{NULL, NULL}};
    struct outgoing out = serve(none);
    assert_valid(&out);
    assert_int_equal(out.n_state, 0);
}

static void a_valid_traceparent_is_continued_with_an_id_of_our_own(void **state)
{
    assert_continues(GOOD);
}

static void a_tracestate_without_traceparent_is_not_looked_at(void **state)
{
    struct header request[2] = {{"tracestate", "foo=1,bar=2"}};
    struct outgoing out = serve(request);
    assert_valid(&out);
    assert_int_equal(out.n_state, 0);
}

/* ---- 3.2: traceparent ---- */

static void names_of_headers_have_any_case_and_go_out_in_lower_case(void **state)
{
    static const char *const names[] = {"TraceParent", "TrAcEpArEnT", "TRACEPARENT"};
    for (int i = 0; i < 3; i++) {
        struct header request[3] = {{names[i], GOOD}, {"TrAcEsTaTe", "foo=1"}};
        struct outgoing out = serve(request);
        assert_int_equal(strncmp(out.parent + 3, TRACE, 32), 0);
        assert_string_equal(out.state, "foo=1");
    }
}

static void names_with_delimiters_are_other_names(void **state)
{
    static const char *const names[] = {"trace-parent", "trace.parent"};
    for (int i = 0; i < 2; i++) {
        struct header request[3] = {{names[i], GOOD}};
        struct outgoing out = serve(request);
        assert_int_not_equal(strncmp(out.parent + 3, TRACE, 32), 0);
    }
    struct header request[3] = {{"traceparent", GOOD}, {"trace-state", "foo=1"}};
    assert_int_equal(serve(request).n_state, 0);
}

static void two_traceparents_start_anew(void **state)
{
    struct header request[3] = {
        {"traceparent", "00-12345678901234567890123456789011-" PARENT "-01"},
        {"traceparent", GOOD}};
    struct outgoing out = serve(request);
    assert_int_not_equal(strncmp(out.parent + 3, "1234567890123456789012345678901", 31), 0);
}

static void section_3_2_2_1_version_is_two_lower_case_digits_and_not_ff(void **state)
{
    assert_restarts("ff-" TRACE "-" PARENT "-01");
    assert_restarts(".0-" TRACE "-" PARENT "-01");
    assert_restarts("0.-" TRACE "-" PARENT "-01");
    assert_restarts("0A-" TRACE "-" PARENT "-01");
    assert_restarts("000-" TRACE "-" PARENT "-01");
    assert_restarts("0000-" TRACE "-" PARENT "-01");
    assert_restarts("0-" TRACE "-" PARENT "-01");
}

static void section_3_2_2_2_version_00_has_nothing_behind_the_flags(void **state)
{
    assert_restarts(GOOD ".");
    assert_restarts(GOOD "-what-the-future-will-be-like");
    assert_restarts(GOOD "-");
}

static void section_3_2_2_3_trace_id_is_32_lower_case_digits_not_all_zero(void **state)
{
    assert_restarts("00-00000000000000000000000000000000-" PARENT "-01");
    assert_restarts("00-.2345678901234567890123456789012-" PARENT "-01");
    assert_restarts("00-1234567890123456789012345678901.-" PARENT "-01");
    assert_restarts("00-1234567890123456789012345678901A-" PARENT "-01");
    assert_restarts("00-" TRACE "3-" PARENT "-01");
    assert_restarts("00-1234567890123456789012345678901-" PARENT "-01");
}

static void section_3_2_2_4_parent_id_is_16_lower_case_digits_not_all_zero(void **state)
{
    assert_restarts("00-" TRACE "-0000000000000000-01");
    assert_restarts("00-" TRACE "-.234567890123456-01");
    assert_restarts("00-" TRACE "-123456789012345.-01");
    assert_restarts("00-" TRACE "-123456789012345F-01");
    assert_restarts("00-" TRACE "-" PARENT "7-01");
    assert_restarts("00-" TRACE "-123456789012345-01");
}

static void section_3_2_2_5_flags_are_two_lower_case_digits(void **state)
{
    assert_restarts("00-" TRACE "-" PARENT "-.0");
    assert_restarts("00-" TRACE "-" PARENT "-0.");
    assert_restarts("00-" TRACE "-" PARENT "-0B");
    assert_restarts("00-" TRACE "-" PARENT "-001");
    assert_restarts("00-" TRACE "-" PARENT "-1");
    assert_restarts("00-" TRACE "-" PARENT "-");
    assert_restarts("00-" TRACE "-" PARENT);
}

static void section_3_2_2_5_1_the_senders_decision_is_kept(void **state)
{
    struct outgoing out = serve_2("00-" TRACE "-" PARENT "-01", NULL);
    assert_string_equal(out.parent + 53, "01");
    out = serve_2("00-" TRACE "-" PARENT "-00", NULL);
    assert_string_equal(out.parent + 53, "00");
    assert_int_equal(strncmp(out.parent + 3, TRACE, 32), 0);
}

/* Level 2: "If the trace-id is not changed, the flag MUST be propagated unchanged" */
static void level_2_3_2_2_5_2_the_random_flag_is_kept_with_the_trace_id(void **state)
{
    assert_string_equal(serve_2("00-" TRACE "-" PARENT "-03", NULL).parent + 53, "03");
    assert_string_equal(serve_2("00-" TRACE "-" PARENT "-02", NULL).parent + 53, "02");
    assert_string_equal(serve_2("00-" TRACE "-" PARENT "-01", NULL).parent + 53, "01");
    /* and a trace of ours, whose id is random, says so */
    struct header none[1] = {{NULL, NULL}};
    assert_string_equal(serve(none).parent + 53, "03");
}

static void section_3_2_2_5_3_other_flags_go_out_as_zero(void **state)
{
    assert_string_equal(serve_2("00-" TRACE "-" PARENT "-ff", NULL).parent + 53, "03");
    assert_string_equal(serve_2("00-" TRACE "-" PARENT "-fc", NULL).parent + 53, "00");
    struct outgoing out = {.n_parent = 0};
    struct pug_context c;
    assert_int_equal(pug_context_from_hex(&c, TRACE, PARENT), 0);
    c.flags = 0xff;
    pug_inject(&c, header_set, &out);
    assert_string_equal(out.parent, "00-" TRACE "-" PARENT "-03");
}

static void section_3_2_4_a_higher_version_is_read_as_far_as_it_is_known(void **state)
{
    assert_continues("cc-" TRACE "-" PARENT "-01");
    assert_continues("cc-" TRACE "-" PARENT "-01-what-the-future-will-be-like");
    assert_continues("01-" TRACE "-" PARENT "-01-");
    assert_restarts("cc-" TRACE "-" PARENT "-01.what-the-future-will-be-like");
    assert_restarts("cc-" TRACE "-" PARENT "-0");
    assert_restarts("cc-" TRACE "." PARENT "-01");
    assert_restarts("cc-" TRACE "-" PARENT ".01");
    /* "MUST use these fields to construct the new traceparent according to the highest version known"
     */
    struct outgoing out = serve_2("cc-" TRACE "-" PARENT "-ff-more", NULL);
    assert_int_equal(strncmp(out.parent, "00-" TRACE, 35), 0);
    assert_string_equal(out.parent + 53, "01");
}

static void white_space_around_a_traceparent_is_not_part_of_it(void **state)
{
    assert_continues(" " GOOD);
    assert_continues("\t" GOOD);
    assert_continues(GOOD " ");
    assert_continues(GOOD "\t");
    assert_continues("\t " GOOD " \t");
}

/* ---- 3.3: tracestate ---- */

static void section_3_3_a_damaged_tracestate_does_not_cost_the_traceparent(void **state)
{
    assert_state("foo@bar", "");
    assert_state("foo=1,bar", "");
}

static void section_3_3_1_a_tracestate_is_passed_on_as_it_is(void **state)
{
    assert_state("foo=1,bar=2", "foo=1,bar=2");
    assert_state("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE",
                 "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE");
}

static void section_3_3_1_several_headers_are_combined_in_order(void **state)
{
    struct header request[5] = {{"traceparent", GOOD},
                                {"tracestate", "foo=1,bar=2"},
                                {"tracestate", "rojo=1,congo=2"},
                                {"tracestate", "baz=3"}};
    struct outgoing out = serve(request);
    assert_string_equal(out.state, "foo=1,bar=2,rojo=1,congo=2,baz=3");
    assert_int_equal(out.n_state, 1); /* "SHOULD be sent as a single field" */
}

static void section_3_3_1_empty_members_and_headers_are_accepted(void **state)
{
    assert_state("", "");
    assert_state("foo=1,", "foo=1");
    assert_state(",foo=1,, \t ,bar=2", "foo=1,bar=2");
    struct header request[4] = {{"traceparent", GOOD}, {"tracestate", ""}, {"tracestate", "foo=1"}};
    assert_string_equal(serve(request).state, "foo=1");
    struct header turned[4] = {{"traceparent", GOOD}, {"tracestate", "foo=1"}, {"tracestate", ""}};
    assert_string_equal(serve(turned).state, "foo=1");
}

static void section_3_3_1_white_space_around_members_is_ignored(void **state)
{
    assert_state("foo=1 \t , \t bar=2, \t baz=3", "foo=1,bar=2,baz=3");
    assert_state("foo=1\t \t,\t \tbar=2,\t \tbaz=3", "foo=1,bar=2,baz=3");
    assert_state("\t foo=1 \t", "foo=1");
}

static void section_3_3_1_3_1_keys_have_their_grammar(void **state)
{
    assert_state("abcdefghijklmnopqrstuvwxyz0123456789_-*/=1",
                 "abcdefghijklmnopqrstuvwxyz0123456789_-*/=1");
    assert_state("abc0_-*/@a-z0-9_-*/=1", "abc0_-*/@a-z0-9_-*/=1");
    assert_state("0abc=1", "0abc=1"); /* Level 2: a digit may come first */
    assert_state("foo =1", "");
    assert_state("FOO=1", "");
    assert_state("foo.bar=1", "");
    assert_state("@foo=1,bar=2", "");
    assert_state("=1", "");
    assert_state("_foo=1", "");
}

static void section_3_3_1_3_1_keys_have_256_characters(void **state)
{
    char text[600];
    snprintf(text, sizeof text, "t%0255d=1", 7);
    assert_state(text, text);
    snprintf(text, sizeof text, "t%0256d=1", 7);
    assert_state(text, "");
}

static void section_3_3_1_3_2_values_have_their_grammar(void **state)
{
    char text[300] = "foo=", *at = text + 4;
    for (char c = 0x20; c < 0x7f; c++)
        if (c != ',' && c != '=')
            *at++ = c;
    *at = '\0';
    assert_state(text, text);
    assert_state("foo=  bar", "foo=  bar"); /* "all leading spaces MUST be preserved" */
    assert_state("foo=", "");
    assert_state("foo=a\tb", "");
    assert_state("foo=a\x7f", "");
    assert_state("foo=\xc3\xa9", "");
    assert_state("foo=a=b", "");
    snprintf(text, sizeof text, "foo=%0256d", 7);
    assert_state(text, text);
    snprintf(text, sizeof text, "foo=%0257d", 7);
    assert_state(text, "");
}

static void section_3_3_1_4_a_key_comes_once(void **state)
{
    assert_state("foo=1,foo=1", "");
    assert_state("foo=1,foo=2", "");
    struct header request[4] = {
        {"traceparent", GOOD}, {"tracestate", "foo=1"}, {"tracestate", "foo=2"}};
    assert_int_equal(serve(request).n_state, 0);
}

static void section_3_3_1_1_there_are_32_members(void **state)
{
    char text[600] = "bar01=01";
    for (int i = 2; i <= 32; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), ",bar%02d=%02d", i, i);
    assert_state(text, text);
    strcat(text, ",bar33=33");
    assert_state(text, "");
}

static void section_3_3_1_5_512_characters_are_passed_on(void **state)
{
    char text[800];
    snprintf(text, sizeof text, "a=%0254d,b=%0253d", 1, 2); /* 256 + 1 + 255 */
    assert_int_equal(strlen(text), 512);
    assert_state(text, text);
}

static void section_3_3_1_5_whole_members_go_those_over_128_characters_first(void **state)
{
    char text[2000], expected[600];
    snprintf(text, sizeof text, "a=%0126d,b=%0127d,c=%0126d,d=%0126d,e=1", 1, 2, 3, 4);
    snprintf(expected, sizeof expected, "a=%0126d,c=%0126d,d=%0126d,e=1", 1, 3, 4);
    assert_state(text, expected);
    /* none is over 128: from the end */
    snprintf(text, sizeof text, "a=%0126d,b=%0126d,c=%0126d,d=%0126d,e=1", 1, 2, 3, 4);
    snprintf(expected, sizeof expected, "a=%0126d,b=%0126d,c=%0126d", 1, 2, 3);
    assert_state(text, expected);
}

/* ---- 3.4, 3.5: mutation ---- */

static void section_3_4_a_request_that_is_passed_through_is_unchanged(void **state)
{
    struct header request[3] = {{"traceparent", GOOD}, {"tracestate", "foo=1 , bar=2"}};
    struct outgoing out = {.n_parent = 0};
    struct pug_context c;
    assert_int_equal(pug_extract(header_get, request, &c), 1);
    pug_inject(&c, header_set, &out);
    assert_string_equal(out.parent, GOOD);
    assert_string_equal(out.state, "foo=1,bar=2");
}

static struct pug_context with_state(const char *text)
{
    struct pug_context c;
    assert_int_equal(pug_context_from_hex(&c, TRACE, PARENT), 0);
    c.tracestate_len = (uint16_t)strlen(text);
    memcpy(c.tracestate, text, strlen(text));
    return c;
}

static void assert_set(struct pug_context *c, const char *key, const char *value,
                       const char *expected)
{
    assert_true(w3c_tracestate_set(c, str_from(key), str_from(value)));
    assert_str_eq(((struct str){c->tracestate, c->tracestate_len}), str_from(expected));
}

static void section_3_5_a_changed_member_moves_to_the_front_and_the_others_stay(void **state)
{
    struct pug_context c = with_state("a=1,b=2,c=3");
    assert_set(&c, "c", "4", "c=4,a=1,b=2");
    assert_set(&c, "c", "5", "c=5,a=1,b=2");
    assert_set(&c, "d", "6", "d=6,c=5,a=1,b=2");
    assert_set(&c, "a", "", "d=6,c=5,b=2");
    assert_set(&c, "x", "", "d=6,c=5,b=2");
    assert_str_eq(w3c_tracestate_get(&c, STR("c")), STR("5"));
    assert_null(w3c_tracestate_get(&c, STR("a")).ptr);
    c = with_state("");
    assert_set(&c, "a", "1", "a=1");
    assert_set(&c, "a", "", "");
    assert_false(w3c_tracestate_set(&c, STR("A"), STR("1")));
    assert_false(w3c_tracestate_set(&c, STR("a"), STR("1,b=2")));
}

static void section_3_5_a_new_member_takes_the_place_of_the_last(void **state)
{
    char text[600] = "k01=1";
    for (int i = 2; i <= 32; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), ",k%02d=1", i);
    struct pug_context c = with_state(text);
    assert_true(w3c_tracestate_set(&c, STR("new"), STR("1")));
    assert_str_eq(w3c_tracestate_get(&c, STR("k31")), STR("1"));
    assert_null(w3c_tracestate_get(&c, STR("k32")).ptr);
    snprintf(text, sizeof text, "a=%0200d,b=%0100d,c=%0100d,d=%0100d", 1, 2, 3, 4);
    c = with_state(text);
    assert_true(w3c_tracestate_set(&c, STR("new"), STR("1")));
    assert_str_eq(w3c_tracestate_get(&c, STR("new")), STR("1"));
    assert_null(w3c_tracestate_get(&c, STR("a")).ptr); /* over 128 characters */
    assert_int_equal(w3c_tracestate_get(&c, STR("d")).len, 100);
}

static int start(void **state)
{
    struct pug_options o = {
        .size = sizeof o, .tracing = PUG_TRACING_ON, .backend = PUG_BACKEND_DISCARD};
    return pug_start(&o);
}

static int stop(void **state)
{
    return pug_stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_without_headers_starts_a_trace),
        cmocka_unit_test(a_valid_traceparent_is_continued_with_an_id_of_our_own),
        cmocka_unit_test(a_tracestate_without_traceparent_is_not_looked_at),
        cmocka_unit_test(names_of_headers_have_any_case_and_go_out_in_lower_case),
        cmocka_unit_test(names_with_delimiters_are_other_names),
        cmocka_unit_test(two_traceparents_start_anew),
        cmocka_unit_test(section_3_2_2_1_version_is_two_lower_case_digits_and_not_ff),
        cmocka_unit_test(section_3_2_2_2_version_00_has_nothing_behind_the_flags),
        cmocka_unit_test(section_3_2_2_3_trace_id_is_32_lower_case_digits_not_all_zero),
        cmocka_unit_test(section_3_2_2_4_parent_id_is_16_lower_case_digits_not_all_zero),
        cmocka_unit_test(section_3_2_2_5_flags_are_two_lower_case_digits),
        cmocka_unit_test(section_3_2_2_5_1_the_senders_decision_is_kept),
        cmocka_unit_test(level_2_3_2_2_5_2_the_random_flag_is_kept_with_the_trace_id),
        cmocka_unit_test(section_3_2_2_5_3_other_flags_go_out_as_zero),
        cmocka_unit_test(section_3_2_4_a_higher_version_is_read_as_far_as_it_is_known),
        cmocka_unit_test(white_space_around_a_traceparent_is_not_part_of_it),
        cmocka_unit_test(section_3_3_a_damaged_tracestate_does_not_cost_the_traceparent),
        cmocka_unit_test(section_3_3_1_a_tracestate_is_passed_on_as_it_is),
        cmocka_unit_test(section_3_3_1_several_headers_are_combined_in_order),
        cmocka_unit_test(section_3_3_1_empty_members_and_headers_are_accepted),
        cmocka_unit_test(section_3_3_1_white_space_around_members_is_ignored),
        cmocka_unit_test(section_3_3_1_3_1_keys_have_their_grammar),
        cmocka_unit_test(section_3_3_1_3_1_keys_have_256_characters),
        cmocka_unit_test(section_3_3_1_3_2_values_have_their_grammar),
        cmocka_unit_test(section_3_3_1_4_a_key_comes_once),
        cmocka_unit_test(section_3_3_1_1_there_are_32_members),
        cmocka_unit_test(section_3_3_1_5_512_characters_are_passed_on),
        cmocka_unit_test(section_3_3_1_5_whole_members_go_those_over_128_characters_first),
        cmocka_unit_test(section_3_4_a_request_that_is_passed_through_is_unchanged),
        cmocka_unit_test(section_3_5_a_changed_member_moves_to_the_front_and_the_others_stay),
        cmocka_unit_test(section_3_5_a_new_member_takes_the_place_of_the_last),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
