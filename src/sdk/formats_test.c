/* B3, Jaeger's and X-Ray's headers. */
#include "base/test.h"
#include "sdk/b3.h"
#include "sdk/jaeger_context.h"
#include "sdk/w3c.h"
#include "sdk/xray_context.h"

#include <stdio.h>

#define TRACE "80f198ee56343ba864fe8b2a57d3eff7"
#define SPAN "e457b5a2e4d86bd1"
#define PARENT "05e3ac9a4f6e3b90"

static void assert_ids(const struct pug_context *c, const char *trace, const char *span)
{
    char hex[33];
    pug_trace_id_hex(c, hex);
    assert_string_equal(hex, trace);
    pug_span_id_hex(c, hex);
    assert_string_equal(hex, span);
    assert_int_equal(c->remote, 1);
}

/* ---- B3, one header ---- */

static enum found b3(const char *text, struct pug_context *c)
{
    memset(c, 0x5a, sizeof *c);
    return b3_parse(str_from(text), c);
}

static void b3_is_read_with_every_decision(void **state)
{
    struct pug_context c;
    assert_int_equal(b3(TRACE "-" SPAN "-1", &c), FOUND_CONTEXT);
    assert_ids(&c, TRACE, SPAN);
    assert_int_equal(c.flags, PUG_FLAG_SAMPLED);
    assert_false(context_is_debug(&c));
    assert_int_equal(b3(TRACE "-" SPAN "-0", &c), FOUND_CONTEXT);
    assert_int_equal(c.flags, 0);
    assert_int_equal(b3(TRACE "-" SPAN "-d", &c), FOUND_CONTEXT);
    assert_int_equal(c.flags, PUG_FLAG_SAMPLED);
    assert_true(context_is_debug(&c));
    /* no decision: it is left to us */
    assert_int_equal(b3(TRACE "-" SPAN, &c), FOUND_CONTEXT);
    assert_int_equal(c.flags, PUG_FLAG_SAMPLED);
    assert_int_equal(c.tracestate_len, 0);
}

static void b3_of_64_bits_gets_zeros_in_front(void **state)
{
    struct pug_context c;
    assert_int_equal(b3("64fe8b2a57d3eff7-" SPAN "-1", &c), FOUND_CONTEXT);
    assert_ids(&c, "000000000000000064fe8b2a57d3eff7", SPAN);
}

static void b3_parent_is_checked_and_passed_over(void **state)
{
    struct pug_context c;
    assert_int_equal(b3(TRACE "-" SPAN "-1-" PARENT, &c), FOUND_CONTEXT);
    assert_ids(&c, TRACE, SPAN);
    assert_int_equal(b3(TRACE "-" SPAN "-1-05e3", &c), FOUND_DAMAGED);
    assert_int_equal(b3(TRACE "-" SPAN "-1-" PARENT "-1", &c), FOUND_DAMAGED);
}

static void b3_no_alone_is_a_trace_that_is_not_recorded(void **state)
{
    struct pug_context c, again;
    assert_int_equal(b3("0", &c), FOUND_CONTEXT);
    assert_true(pug_context_valid(&c));
    assert_int_equal(c.flags, 0);
    assert_int_equal(b3("0", &again), FOUND_CONTEXT);
    assert_memory_not_equal(c.trace_id, again.trace_id, 16);
}

static void b3_yes_alone_names_no_parent(void **state)
{
    struct pug_context c;
    assert_int_equal(b3("1", &c), FOUND_NONE);
    assert_int_equal(b3("d", &c), FOUND_NONE);
    assert_int_equal(b3("2", &c), FOUND_DAMAGED);
    assert_int_equal(b3("", &c), FOUND_DAMAGED);
}

static void b3_that_breaks_the_format_is_damage(void **state)
{
    static const char *const bad[] = {
        "80f198ee56343ba8-" SPAN "x-1",
        "80f198ee-" SPAN "-1",
        TRACE "-e457-1",
        TRACE "0-" SPAN "-1",
        TRACE "-" SPAN "-2",
        TRACE "-" SPAN "-",
        "0000000000000000-" SPAN "-1",
        TRACE "--1",
        "-" SPAN "-1",
        TRACE "-0000000000000000-1",
        TRACE "-" SPAN "-11",
        "-",
        "80f198ee56343ba864fe8b2a57d3eff7g-" SPAN,
        TRACE "-" SPAN "-D",
        TRACE "-" SPAN "-true",
    };
    struct pug_context c;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (b3(bad[i], &c) != FOUND_DAMAGED)
            fail_msg("\"%s\" was accepted", bad[i]);
        if (bad[i][0] && strchr(bad[i], '-') && c.remote != 0x5a)
            assert_false(pug_context_valid(&c));
    }
}

static void b3_is_written_with_its_decision(void **state)
{
    static const char *const texts[] = {TRACE "-" SPAN "-1", TRACE "-" SPAN "-0",
                                        TRACE "-" SPAN "-d"};
    char out[B3_MAX + 1];
    struct pug_context c;
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(b3(texts[i], &c), FOUND_CONTEXT);
        assert_int_equal(b3_put(&c, out), strlen(texts[i]));
        assert_string_equal(out, texts[i]);
    }
}

/* ---- B3, several headers ---- */

static enum found multi(const char *trace, const char *span, const char *sampled, const char *flags,
                        struct pug_context *c)
{
    memset(c, 0x5a, sizeof *c);
    return b3_multi_parse(str_from(trace), str_from(span), str_from(sampled), str_from(flags), c);
}

static void b3_headers_are_read_with_every_decision(void **state)
{
    struct pug_context c;
    assert_int_equal(multi(TRACE, SPAN, "1", NULL, &c), FOUND_CONTEXT);
    assert_ids(&c, TRACE, SPAN);
    assert_int_equal(c.flags, PUG_FLAG_SAMPLED);
    assert_int_equal(multi(TRACE, SPAN, "0", NULL, &c), FOUND_CONTEXT);
    assert_int_equal(c.flags, 0);
    assert_int_equal(multi(TRACE, SPAN, "false", NULL, &c), FOUND_CONTEXT);
    assert_int_equal(c.flags, 0);
    assert_int_equal(multi(TRACE, SPAN, "True", NULL, &c), FOUND_CONTEXT);
    assert_int_equal(c.flags, PUG_FLAG_SAMPLED);
    assert_int_equal(multi(TRACE, SPAN, NULL, NULL, &c), FOUND_CONTEXT);
    assert_int_equal(c.flags, PUG_FLAG_SAMPLED);
    assert_int_equal(multi("64fe8b2a57d3eff7", SPAN, "1", NULL, &c), FOUND_CONTEXT);
    assert_ids(&c, "000000000000000064fe8b2a57d3eff7", SPAN);
}

static void b3_flags_1_is_debug_whatever_sampled_says(void **state)
{
    struct pug_context c;
    assert_int_equal(multi(TRACE, SPAN, NULL, "1", &c), FOUND_CONTEXT);
    assert_true(context_is_debug(&c));
    assert_int_equal(multi(TRACE, SPAN, "0", "1", &c), FOUND_CONTEXT);
    assert_true(context_is_debug(&c));
    assert_int_equal(multi(TRACE, SPAN, "1", "0", &c), FOUND_CONTEXT);
    assert_false(context_is_debug(&c));
}

static void b3_headers_without_ids_carry_only_a_no(void **state)
{
    struct pug_context c;
    assert_int_equal(multi(NULL, NULL, NULL, NULL, &c), FOUND_NONE);
    assert_int_equal(multi(NULL, NULL, "1", NULL, &c), FOUND_NONE);
    assert_int_equal(multi(NULL, NULL, NULL, "1", &c), FOUND_NONE);
    assert_int_equal(multi(NULL, NULL, "0", NULL, &c), FOUND_CONTEXT);
    assert_true(pug_context_valid(&c));
    assert_int_equal(c.flags, 0);
}

static void b3_headers_that_break_the_format_are_damage(void **state)
{
    struct pug_context c;
    assert_int_equal(multi(TRACE, NULL, "1", NULL, &c), FOUND_DAMAGED);
    assert_int_equal(multi(NULL, SPAN, "1", NULL, &c), FOUND_DAMAGED);
    assert_int_equal(multi(TRACE, SPAN, "2", NULL, &c), FOUND_DAMAGED);
    assert_int_equal(multi(TRACE, SPAN, "d", NULL, &c), FOUND_DAMAGED);
    assert_int_equal(multi("80f198ee", SPAN, "1", NULL, &c), FOUND_DAMAGED);
    assert_int_equal(multi(TRACE, "e457b5a2e4d86bdx", "1", NULL, &c), FOUND_DAMAGED);
}

/* ---- Jaeger ---- */

static enum found jaeger(const char *text, struct pug_context *c)
{
    memset(c, 0x5a, sizeof *c);
    return jaeger_context_parse(str_from(text), c);
}

static void uber_trace_id_is_read_with_every_flag(void **state)
{
    struct pug_context c;
    assert_int_equal(jaeger(TRACE ":" SPAN ":0:1", &c), FOUND_CONTEXT);
    assert_ids(&c, TRACE, SPAN);
    assert_int_equal(c.flags, PUG_FLAG_SAMPLED);
    assert_int_equal(jaeger(TRACE ":" SPAN ":" PARENT ":0", &c), FOUND_CONTEXT);
    assert_ids(&c, TRACE, SPAN);
    assert_int_equal(c.flags, 0);
    assert_int_equal(jaeger(TRACE ":" SPAN ":0:3", &c), FOUND_CONTEXT);
    assert_true(context_is_debug(&c));
    assert_int_equal(jaeger(TRACE ":" SPAN ":0:09", &c), FOUND_CONTEXT); /* 8: firehose */
    assert_int_equal(c.flags, PUG_FLAG_SAMPLED);
}

static void uber_trace_id_may_have_short_ids(void **state)
{
    struct pug_context c;
    assert_int_equal(jaeger("ff:1:0:1", &c), FOUND_CONTEXT);
    assert_ids(&c, "000000000000000000000000000000ff", "0000000000000001");
    assert_int_equal(jaeger("64fe8b2a57d3eff7:7b5a2e4d86bd1::1", &c), FOUND_CONTEXT);
    assert_ids(&c, "000000000000000064fe8b2a57d3eff7", "0007b5a2e4d86bd1");
}

static void uber_trace_id_may_be_percent_encoded(void **state)
{
    struct pug_context c;
    assert_int_equal(jaeger(TRACE "%3A" SPAN "%3a0%3A1", &c), FOUND_CONTEXT);
    assert_ids(&c, TRACE, SPAN);
}

static void uber_trace_id_that_breaks_the_format_is_damage(void **state)
{
    static const char *const bad[] = {
        "",
        TRACE,
        TRACE ":" SPAN,
        TRACE ":" SPAN ":0",
        "0:1:0:1",
        "1:0:0:1",
        TRACE "0:" SPAN ":0:1",
        TRACE ":" SPAN "0:0:1",
        "1:2:0:1:",
        TRACE ":x:0:1",
        TRACE ":" SPAN ":0:",
        TRACE ":" SPAN ":0:100",
        "1:2:g:1",
        "1:2:0:g",
        "%3A%3A%3A",
        ":::",
        "1%:2:0:1",
        "1:2:0:1%3A0",
    };
    struct pug_context c;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (jaeger(bad[i], &c) != FOUND_DAMAGED)
            fail_msg("\"%s\" was accepted", bad[i]);
}

static void uber_trace_id_is_written_in_full(void **state)
{
    static const char *const texts[] = {TRACE ":" SPAN ":0:0", TRACE ":" SPAN ":0:1",
                                        TRACE ":" SPAN ":0:3"};
    char out[JAEGER_CONTEXT_MAX + 1];
    struct pug_context c;
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(jaeger(texts[i], &c), FOUND_CONTEXT);
        assert_int_equal(jaeger_context_put(&c, out), strlen(texts[i]));
        assert_string_equal(out, texts[i]);
    }
}

static void debug_goes_from_one_format_to_the_other(void **state)
{
    char out[B3_MAX + 1];
    struct pug_context c;
    assert_int_equal(jaeger(TRACE ":" SPAN ":0:3", &c), FOUND_CONTEXT);
    b3_put(&c, out);
    assert_string_equal(out, TRACE "-" SPAN "-d");
}

/* ---- X-Ray ---- */

#define ROOT "1-5759e988-bd862e3fe1be46a994272793"
#define ROOT_HEX "5759e988bd862e3fe1be46a994272793"

static enum found xray(const char *text, struct pug_context *c)
{
    memset(c, 0x5a, sizeof *c);
    return xray_context_parse(str_from(text), c);
}

static void amzn_trace_id_is_read_with_every_decision(void **state)
{
    struct pug_context c;
    assert_int_equal(xray("Root=" ROOT ";Parent=" SPAN ";Sampled=1", &c), FOUND_CONTEXT);
    assert_ids(&c, ROOT_HEX, SPAN);
    assert_int_equal(c.flags, PUG_FLAG_SAMPLED);
    assert_int_equal(xray("Root=" ROOT ";Parent=" SPAN ";Sampled=0", &c), FOUND_CONTEXT);
    assert_int_equal(c.flags, 0);
    assert_int_equal(xray("Root=" ROOT ";Parent=" SPAN ";Sampled=?", &c), FOUND_CONTEXT);
    assert_int_equal(c.flags, PUG_FLAG_SAMPLED);
    assert_int_equal(xray("Root=" ROOT ";Parent=" SPAN, &c), FOUND_CONTEXT);
    assert_int_equal(c.flags, PUG_FLAG_SAMPLED);
}

static void amzn_trace_id_has_its_fields_in_any_order_with_spaces(void **state)
{
    struct pug_context c;
    assert_int_equal(xray("Sampled=0; Parent=" SPAN "; Root=" ROOT, &c), FOUND_CONTEXT);
    assert_ids(&c, ROOT_HEX, SPAN);
    assert_int_equal(c.flags, 0);
}

static void amzn_trace_id_of_a_load_balancer_names_no_parent(void **state)
{
    struct pug_context c;
    assert_int_equal(xray("Root=" ROOT, &c), FOUND_NONE);
    assert_int_equal(xray("Self=1-67891234-12456789abcdef012345678;Root=" ROOT, &c), FOUND_NONE);
}

static void amzn_trace_id_keeps_the_fields_of_others(void **state)
{
    struct pug_context c;
    char out[XRAY_CONTEXT_MAX + 1];
    assert_int_equal(xray("Self=1-67891234-abc;Root=" ROOT ";Parent=" SPAN
                          ";Sampled=1;Lineage=a87bd80c:1|68fd508a:5;Mine=x y;Odd=a=b",
                          &c),
                     FOUND_CONTEXT);
    size_t n = xray_context_put(&c, out);
    assert_string_equal(out, "Root=" ROOT ";Parent=" SPAN
                             ";Sampled=1;Self=1-67891234-abc;Lineage=a87bd80c:1|68fd508a:5");
    assert_int_equal(n, strlen(out));
}

static void amzn_trace_id_keeps_no_more_than_has_room(void **state)
{
    char text[1200], out[XRAY_CONTEXT_MAX + 1];
    struct pug_context c;
    snprintf(text, sizeof text, "Root=" ROOT ";Parent=" SPAN ";Sampled=0;A=%0254d;B=%0253d;C=1", 7,
             8);
    assert_int_equal(xray(text, &c), FOUND_CONTEXT);
    size_t n = xray_context_put(&c, out);
    assert_true(n <= XRAY_CONTEXT_MAX);
    assert_non_null(strstr(out, ";A=0"));
    assert_null(strstr(out, ";B="));
}

static void amzn_trace_id_lets_no_tracestate_write_its_own_fields(void **state)
{
    struct pug_context c;
    char out[XRAY_CONTEXT_MAX + 1];
    assert_int_equal(xray("Root=" ROOT ";Parent=" SPAN ";Sampled=0", &c), FOUND_CONTEXT);
    assert_true(
        w3c_tracestate_set(&c, STR("xray"), STR("Sampled:1;root:1-2-3;Lineage:x;;y;:z;w:")));
    xray_context_put(&c, out);
    assert_string_equal(out, "Root=" ROOT ";Parent=" SPAN ";Sampled=0;Lineage=x");
}

static void amzn_trace_id_that_breaks_the_format_is_damage(void **state)
{
    static const char *const bad[] = {
        "",
        "Parent=" SPAN ";Sampled=1",
        "Root=2-5759e988-bd862e3fe1be46a994272793;Parent=" SPAN,
        "Root=1-5759e98-bd862e3fe1be46a994272793;Parent=" SPAN,
        "Root=1-5759e988-bd862e3fe1be46a99427279;Parent=" SPAN,
        "Root=1-5759e988;Parent=" SPAN,
        "Root=1-00000000-000000000000000000000000;Parent=" SPAN,
        "Root=" ROOT ";Parent=e457",
        "Root=" ROOT ";Parent=0000000000000000",
        "Root=" ROOT ";Parent=" SPAN ";Sampled=2",
        "Root=" ROOT ";Root=" ROOT ";Parent=" SPAN,
        "Root=" ROOT ";Parent=" SPAN ";Parent=" SPAN,
        "Root;Parent",
    };
    struct pug_context c;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (xray(bad[i], &c) != FOUND_DAMAGED)
            fail_msg("\"%s\" was accepted", bad[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(b3_is_read_with_every_decision),
        cmocka_unit_test(b3_of_64_bits_gets_zeros_in_front),
        cmocka_unit_test(b3_parent_is_checked_and_passed_over),
        cmocka_unit_test(b3_no_alone_is_a_trace_that_is_not_recorded),
        cmocka_unit_test(b3_yes_alone_names_no_parent),
        cmocka_unit_test(b3_that_breaks_the_format_is_damage),
        cmocka_unit_test(b3_is_written_with_its_decision),
        cmocka_unit_test(b3_headers_are_read_with_every_decision),
        cmocka_unit_test(b3_flags_1_is_debug_whatever_sampled_says),
        cmocka_unit_test(b3_headers_without_ids_carry_only_a_no),
        cmocka_unit_test(b3_headers_that_break_the_format_are_damage),
        cmocka_unit_test(uber_trace_id_is_read_with_every_flag),
        cmocka_unit_test(uber_trace_id_may_have_short_ids),
        cmocka_unit_test(uber_trace_id_may_be_percent_encoded),
        cmocka_unit_test(uber_trace_id_that_breaks_the_format_is_damage),
        cmocka_unit_test(uber_trace_id_is_written_in_full),
        cmocka_unit_test(debug_goes_from_one_format_to_the_other),
        cmocka_unit_test(amzn_trace_id_is_read_with_every_decision),
        cmocka_unit_test(amzn_trace_id_has_its_fields_in_any_order_with_spaces),
        cmocka_unit_test(amzn_trace_id_of_a_load_balancer_names_no_parent),
        cmocka_unit_test(amzn_trace_id_keeps_the_fields_of_others),
        cmocka_unit_test(amzn_trace_id_keeps_no_more_than_has_room),
        cmocka_unit_test(amzn_trace_id_lets_no_tracestate_write_its_own_fields),
        cmocka_unit_test(amzn_trace_id_that_breaks_the_format_is_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
