#include "base/test.h"
#include "sdk/w3c.h"

#include <stdio.h>
#include <string.h>

#define GOOD "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

static bool parse(const char *text, struct pug_context *ret)
{
    return w3c_traceparent_parse(str_from(text), ret);
}

static bool accepts(const char *text)
{
    struct pug_context c;
    return parse(text, &c);
}

static void a_traceparent_is_read(void **state)
{
    struct pug_context c;
    assert_true(parse(GOOD, &c));
    assert_int_equal(c.trace_id[0], 0x0a);
    assert_int_equal(c.trace_id[15], 0x9c);
    assert_int_equal(c.span_id[0], 0xb7);
    assert_int_equal(c.span_id[7], 0x31);
    assert_int_equal(c.flags, PUG_FLAG_SAMPLED);
    assert_int_equal(c.remote, 1);
    assert_int_equal(c.tracestate_len, 0);
}

static void what_is_read_is_written_again(void **state)
{
    struct pug_context c;
    char out[W3C_TRACEPARENT_LEN + 1];
    assert_true(parse(GOOD, &c));
    w3c_traceparent_put(&c, out);
    assert_string_equal(out, GOOD);
}

static void white_space_around_it_is_no_part_of_it(void **state)
{
    assert_true(accepts(" " GOOD "\t"));
}

static void ids_of_zeros_are_refused(void **state)
{
    assert_false(accepts("00-00000000000000000000000000000000-b7ad6b7169203331-01"));
    assert_false(accepts("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01"));
}

static void capital_letters_are_refused(void **state)
{
    assert_false(accepts("00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01"));
    assert_false(accepts("00-0af7651916cd43dd8448eb211c80319c-B7AD6B7169203331-01"));
    assert_false(accepts("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0A"));
}

static void version_ff_is_refused(void **state)
{
    assert_false(accepts("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
}

static void version_00_has_exactly_55_characters(void **state)
{
    assert_false(accepts(GOOD "-"));
    assert_false(accepts(GOOD "-00"));
    assert_false(accepts(GOOD "0"));
    char text[sizeof GOOD];
    for (size_t n = 0; n < sizeof GOOD - 1; n++) {
        memcpy(text, GOOD, n);
        text[n] = '\0';
        assert_false(accepts(text));
    }
}

static void a_later_version_may_append_after_a_dash(void **state)
{
    assert_true(accepts("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
    assert_true(accepts("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what"));
    assert_false(accepts("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01what"));
}

static void of_a_later_version_only_the_sampled_flag_is_kept(void **state)
{
    struct pug_context c;
    assert_true(parse("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-ff", &c));
    assert_int_equal(c.flags, PUG_FLAG_SAMPLED);
    assert_true(parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-ff", &c));
    assert_int_equal(c.flags, PUG_FLAG_SAMPLED | PUG_FLAG_RANDOM);
    assert_true(parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-fc", &c));
    assert_int_equal(c.flags, 0);
}

static void a_wrong_separator_or_digit_anywhere_is_refused(void **state)
{
    char text[sizeof GOOD];
    for (size_t i = 0; i < sizeof GOOD - 1; i++) {
        memcpy(text, GOOD, sizeof text);
        text[i] = GOOD[i] == '-' ? '0' : 'g';
        assert_false(accepts(text));
        text[i] = '\0'; /* a NUL inside, with the full length */
        assert_false(w3c_traceparent_parse((struct str){text, sizeof text - 1},
                                           &(struct pug_context){.flags = 0}));
    }
}

static void what_is_refused_changes_nothing(void **state)
{
    struct pug_context c, before;
    memset(&c, 0x5a, sizeof c);
    before = c;
    assert_false(parse("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", &c));
    assert_memory_equal(&c, &before, sizeof c);
}

/* ---- tracestate ---- */

static bool list(struct pug_context *c, const char *one, const char *two)
{
    struct w3c_tracestate s = {.n = 0};
    w3c_tracestate_add(&s, str_from(one));
    if (two)
        w3c_tracestate_add(&s, str_from(two));
    return w3c_tracestate_put(&s, c);
}

static struct str state_of(const struct pug_context *c)
{
    return (struct str){c->tracestate, c->tracestate_len};
}

static void several_headers_are_one_list_in_order(void **state)
{
    struct pug_context c;
    assert_true(list(&c, "foo=1,bar=2", "rojo=1,congo=2"));
    assert_str_eq(state_of(&c), STR("foo=1,bar=2,rojo=1,congo=2"));
}

static void empty_members_and_space_around_members_go(void **state)
{
    struct pug_context c;
    assert_true(list(&c, " foo=1 ,\t, bar=2\t,", ""));
    assert_str_eq(state_of(&c), STR("foo=1,bar=2"));
    assert_true(list(&c, "", NULL));
    assert_int_equal(c.tracestate_len, 0);
}

static void a_value_may_begin_with_a_space_and_hold_all_but_comma_and_equals(void **state)
{
    struct pug_context c;
    assert_true(list(&c, "a= x!\"#$%&'()*+-./:;<>?@[\\]^_`{|}~", NULL));
    assert_str_eq(state_of(&c), STR("a= x!\"#$%&'()*+-./:;<>?@[\\]^_`{|}~"));
}

static void damaged_lists_are_left_out_whole(void **state)
{
    static const char *const bad[] = {
        "foo",      "foo=",     "=1",           "foo=1=2", "FOO=1",  "foo =1",     "fo o=1",
        "foo=\x01", "foo=\x7f", "foo=\xc3\xa9", "@foo=1",  "foo.=1", "good=1,foo", "-a=1",
    };
    struct pug_context c;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (list(&c, bad[i], NULL))
            fail_msg("\"%s\" was accepted", bad[i]);
        assert_int_equal(c.tracestate_len, 0);
    }
}

static void keys_of_tenants_and_of_level_2_are_accepted(void **state)
{
    struct pug_context c;
    assert_true(list(&c, "fw529a3039@dt=x,0a_-*/=1", NULL));
}

static void a_key_twice_is_damage(void **state)
{
    struct pug_context c;
    assert_false(list(&c, "foo=1,bar=2,foo=1", NULL));
    assert_false(list(&c, "foo=1", "foo=2"));
}

static void keys_and_values_have_256_characters_at_most(void **state)
{
    struct pug_context c;
    char text[600];
    snprintf(text, sizeof text, "%0256d=1", 7);
    assert_true(list(&c, text, NULL));
    snprintf(text, sizeof text, "%0257d=1", 7);
    assert_false(list(&c, text, NULL));
    snprintf(text, sizeof text, "a=%0256d", 7);
    assert_true(list(&c, text, NULL));
    snprintf(text, sizeof text, "a=%0257d", 7);
    assert_false(list(&c, text, NULL));
}

static void there_are_32_members_at_most(void **state)
{
    struct pug_context c;
    char text[600] = "";
    for (int i = 0; i < 32; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "k%d=v,", i);
    assert_true(list(&c, text, NULL));
    strcat(text, "more=1");
    assert_false(list(&c, text, NULL));
}

static void of_too_long_a_list_long_members_go_first_and_then_the_last(void **state)
{
    struct pug_context c;
    char text[2000], expected[600];
    /* 100 + 200 + 100 + 200 + 100 characters: without the last long one it still does not fit. */
    snprintf(text, sizeof text, "a=%098d,b=%0198d,c=%098d,d=%0198d,e=%098d", 1, 2, 3, 4, 5);
    snprintf(expected, sizeof expected, "a=%098d,b=%0198d,c=%098d,e=%098d", 1, 2, 3, 5);
    assert_true(list(&c, text, NULL));
    assert_str_eq(state_of(&c), str_from(expected));
    snprintf(text, sizeof text, "a=%098d,b=%098d,c=%098d,d=%098d,e=%098d,f=%098d", 1, 2, 3, 4, 5,
             6);
    snprintf(expected, sizeof expected, "a=%098d,b=%098d,c=%098d,d=%098d,e=%098d", 1, 2, 3, 4, 5);
    assert_true(list(&c, text, NULL));
    assert_str_eq(state_of(&c), str_from(expected));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_traceparent_is_read),
        cmocka_unit_test(what_is_read_is_written_again),
        cmocka_unit_test(white_space_around_it_is_no_part_of_it),
        cmocka_unit_test(ids_of_zeros_are_refused),
        cmocka_unit_test(capital_letters_are_refused),
        cmocka_unit_test(version_ff_is_refused),
        cmocka_unit_test(version_00_has_exactly_55_characters),
        cmocka_unit_test(a_later_version_may_append_after_a_dash),
        cmocka_unit_test(of_a_later_version_only_the_sampled_flag_is_kept),
        cmocka_unit_test(a_wrong_separator_or_digit_anywhere_is_refused),
        cmocka_unit_test(what_is_refused_changes_nothing),
        cmocka_unit_test(several_headers_are_one_list_in_order),
        cmocka_unit_test(empty_members_and_space_around_members_go),
        cmocka_unit_test(a_value_may_begin_with_a_space_and_hold_all_but_comma_and_equals),
        cmocka_unit_test(damaged_lists_are_left_out_whole),
        cmocka_unit_test(keys_of_tenants_and_of_level_2_are_accepted),
        cmocka_unit_test(a_key_twice_is_damage),
        cmocka_unit_test(keys_and_values_have_256_characters_at_most),
        cmocka_unit_test(there_are_32_members_at_most),
        cmocka_unit_test(of_too_long_a_list_long_members_go_first_and_then_the_last),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
