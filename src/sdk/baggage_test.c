/* W3C Baggage, Recommendation: the rules by their section. */
#include "base/test.h"
#include "pugmark/baggage.h"
#include "sdk/options.h"
#include "sdk/propagate.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

struct header {
    const char *name;
    char *value;
};
struct headers {
    struct header items[80];
    size_t n;
};

static void header_set(void *carrier, const char *name, const char *value)
{
    struct headers *h = carrier;
    assert_true(h->n < 80);
    h->items[h->n++] = (struct header){strdup(name), strdup(value)};
}

static void headers_free(struct headers *h)
{
    for (size_t i = 0; i < h->n; i++) {
        free((char *)(uintptr_t)h->items[i].name);
        free(h->items[i].value);
    }
    h->n = 0;
}

static const char *header_get(void *carrier, const char *name, size_t nth, size_t *ret_len)
{
    struct headers *h = carrier;
    for (size_t i = 0; i < h->n; i++)
        if (strcasecmp(h->items[i].name, name) == 0 && nth-- == 0)
            return h->items[i].value;
    return NULL;
}

static struct pug_baggage bag;

static int extract(const char *one, const char *two)
{
    struct headers h = {.n = 0};
    header_set(&h, "Baggage", one);
    if (two)
        header_set(&h, "baggage", two);
    int n = pug_baggage_extract(header_get, &h, &bag);
    headers_free(&h);
    return n;
}

static void assert_value(const char *key, const char *expected)
{
    char out[256];
    int n = pug_baggage_get(&bag, key, out, sizeof out);
    assert_string_equal(out, expected);
    assert_int_equal(n, strlen(expected));
}

/* 3.3.1 Definition: the example with OWS everywhere */
static void members_values_and_properties_are_trimmed(void **state)
{
    assert_int_equal(
        extract("key1=value1;property1;property2, key2 \t= value2, key3=value3 ; propertyKey = v",
                NULL),
        3);
    assert_string_equal(bag.text,
                        "key1=value1;property1;property2,key2=value2,key3=value3;propertyKey=v");
    assert_value("key2", "value2");
}

/* 3.1: "Multiple baggage headers are allowed" */
static void several_headers_are_one_list_in_order(void **state)
{
    assert_int_equal(extract("userId=alice", "serverNode=DF%2028,isProduction=false"), 3);
    assert_string_equal(bag.text, "userId=alice,serverNode=DF%2028,isProduction=false");
    assert_value("serverNode", "DF 28");
}

/* 3.3.1.3: "value MAY contain any number of the equal sign" */
static void a_value_may_hold_equal_signs(void **state)
{
    assert_int_equal(extract("a=b=c==", NULL), 1);
    assert_value("a", "b=c==");
}

static void an_empty_value_is_a_value(void **state)
{
    assert_int_equal(extract("a=,b= ;p", NULL), 2);
    assert_string_equal(bag.text, "a=,b=;p");
    assert_value("a", "");
}

/* 3.3.1.1: "The order of duplicate entries SHOULD be preserved" */
static void keys_that_come_twice_stay_and_the_last_counts(void **state)
{
    assert_int_equal(extract("a=1,b=2,a=3", NULL), 3);
    assert_string_equal(bag.text, "a=1,b=2,a=3");
    assert_value("a", "3");
}

/* 3.3.1.2: a key is a token and has a case */
static void a_key_is_a_token(void **state)
{
    assert_int_equal(extract("!#$%&'*+-.^_`|~09azAZ=1", NULL), 1);
    assert_value("!#$%&'*+-.^_`|~09azAZ", "1");
    assert_int_equal(extract("A=1,a=2", NULL), 2);
    assert_value("A", "1");
}

/* 4: "MAY remove that entry": the others stay */
static void a_damaged_member_goes_alone(void **state)
{
    static const char *const bad[] = {"a",      "=1",      "a b=1",      "a=b c",  "a=\"b\"",
                                      "a=b\\c", "a=\x01",  "a=\xc3\xa9", "a(=1",   "a=1;",
                                      "a=1;=2", "a=1;p q", "a=1;p=\"",   "\xc3=1", "a=1;;p"};
    char text[100];
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        uint64_t before = propagate_damaged();
        snprintf(text, sizeof text, "good=1,%s,also=2", bad[i]);
        int n = extract(text, NULL);
        if (n != 2 || strcmp(bag.text, "good=1,also=2") != 0)
            fail_msg("\"%s\" left %d: \"%s\"", bad[i], n, bag.text);
        assert_int_equal(propagate_damaged(), before + 1);
    }
    assert_int_equal(extract(" , ,a=1,, ", NULL), 1);
    assert_string_equal(bag.text, "a=1");
}

/* 3.3.1.3: percent-encoding, UTF-8, U+FFFD for what is none */
static void values_are_decoded_as_utf8(void **state)
{
    assert_int_equal(extract("a=%E2%82%AC%20%41,b=%zz%4,c=x%FFy%C3,d=%e2%82", NULL), 4);
    assert_value("a", "\xe2\x82\xac A");
    assert_value("b", "%zz%4");
    assert_value("c", "x\xef\xbf\xbdy\xef\xbf\xbd");
    assert_value("d", "\xef\xbf\xbd\xef\xbf\xbd");
}

static void what_is_set_reads_back_whatever_it_is(void **state)
{
    static const char *const values[] = {
        "alice", "", "a b", "50% off, \"now\"; really\\", "\xe2\x82\xac", "\t\n\x01", "=;,"};
    pug_baggage_init(&bag);
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        char key[8];
        snprintf(key, sizeof key, "k%zu", i);
        assert_int_equal(pug_baggage_set(&bag, key, values[i], NULL), 0);
        assert_value(key, values[i]);
    }
    /* and is a header that reads back */
    char text[PUG_BAGGAGE_BYTES_MAX + 1];
    strcpy(text, bag.text);
    assert_int_equal(extract(text, NULL), 7);
    assert_string_equal(bag.text, text);
}

static void setting_replaces_all_members_of_that_key(void **state)
{
    extract("a=1,b=2;p,a=3,c=4", NULL);
    assert_int_equal(pug_baggage_set(&bag, "a", "5", "q=1;r"), 0);
    assert_string_equal(bag.text, "b=2;p,c=4,a=5;q=1;r");
    assert_int_equal(bag.n, 3);
    assert_int_equal(bag.len, strlen(bag.text));
    assert_int_equal(pug_baggage_set(&bag, "a", NULL, NULL), 0);
    assert_string_equal(bag.text, "b=2;p,c=4,a=");
}

static void what_breaks_the_format_is_not_set(void **state)
{
    extract("a=1", NULL);
    assert_int_equal(pug_baggage_set(&bag, "", "1", NULL), PUG_ERR_INVALID);
    assert_int_equal(pug_baggage_set(&bag, NULL, "1", NULL), PUG_ERR_INVALID);
    assert_int_equal(pug_baggage_set(&bag, "a b", "1", NULL), PUG_ERR_INVALID);
    assert_int_equal(pug_baggage_set(&bag, "a", "1", "p q"), PUG_ERR_INVALID);
    assert_int_equal(pug_baggage_set(&bag, "a", "1", "p,b=2"), PUG_ERR_INVALID);
    assert_string_equal(bag.text, "a=1");
    assert_int_equal(bag.n, 1);
}

static void removing_takes_all_members_of_that_key_wherever_they_are(void **state)
{
    extract("a=1,b=2,a=3,a=4,c=5,a=6", NULL);
    assert_int_equal(pug_baggage_remove(&bag, "a"), 0);
    assert_string_equal(bag.text, "b=2,c=5");
    assert_int_equal(bag.n, 2);
    assert_int_equal(pug_baggage_remove(&bag, "a"), PUG_ERR_NOT_FOUND);
    assert_int_equal(pug_baggage_remove(&bag, "b"), 0);
    assert_int_equal(pug_baggage_remove(&bag, "c"), 0);
    assert_string_equal(bag.text, "");
    assert_int_equal(bag.len, 0);
    assert_int_equal(pug_baggage_remove(&bag, NULL), PUG_ERR_NOT_FOUND);
}

static void members_come_one_after_the_other(void **state)
{
    struct pug_baggage_member m = {0};
    extract("a=1;p=2;q,b=", NULL);
    assert_int_equal(pug_baggage_next(&bag, &m), 1);
    assert_str_eq(((struct str){m.key, m.key_len}), STR("a"));
    assert_str_eq(((struct str){m.value, m.value_len}), STR("1"));
    assert_str_eq(((struct str){m.properties, m.properties_len}), STR("p=2;q"));
    assert_int_equal(pug_baggage_next(&bag, &m), 1);
    assert_str_eq(((struct str){m.key, m.key_len}), STR("b"));
    assert_int_equal(m.value_len, 0);
    assert_null(m.properties);
    assert_int_equal(pug_baggage_next(&bag, &m), 0);
    pug_baggage_init(&bag);
    m = (struct pug_baggage_member){0};
    assert_int_equal(pug_baggage_next(&bag, &m), 0);
}

static void too_small_a_buffer_gets_whole_characters(void **state)
{
    char out[8];
    extract("a=ab%E2%82%ACcd", NULL);
    assert_int_equal(pug_baggage_get(&bag, "a", out, 5), 7);
    assert_string_equal(out, "ab");
    assert_int_equal(pug_baggage_get(&bag, "a", out, 6), 7);
    assert_string_equal(out, "ab\xe2\x82\xac");
    assert_int_equal(pug_baggage_get(&bag, "a", NULL, 0), 7);
    assert_int_equal(pug_baggage_get(&bag, "none", out, sizeof out), PUG_ERR_NOT_FOUND);
    assert_string_equal(out, "");
}

/* 3.3.2 Limits: 64 members and 8192 bytes go through, and never a part of a member */
static void sixty_four_members_are_passed_on_and_no_more(void **state)
{
    char text[2000] = "";
    for (int i = 0; i < 70; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "k%d=v,", i);
    assert_int_equal(extract(text, NULL), 64);
    assert_value("k63", "v");
    assert_int_equal(pug_baggage_get(&bag, "k64", NULL, 0), PUG_ERR_NOT_FOUND);
    assert_int_equal(pug_baggage_set(&bag, "new", "v", NULL), PUG_ERR_FULL);
    assert_int_equal(pug_baggage_set(&bag, "k5", "other", NULL), 0);
}

static void eight_thousand_bytes_are_passed_on_and_no_part_of_a_member(void **state)
{
    static char text[10000];
    memset(text, 'x', sizeof text);
    memcpy(text, "a=", 2);
    text[8192] = '\0';
    assert_int_equal(extract(text, NULL), 1);
    assert_int_equal(bag.len, 8192);
    assert_int_equal(extract(text, "b=1"), 1);
    text[8192] = 'x';
    text[8193] = '\0';
    assert_int_equal(extract(text, "b=1"), 1);
    assert_string_equal(bag.text, "b=1");
    text[8192 - 4] = '\0';
    assert_int_equal(extract(text, "b=1"), 2);
    assert_int_equal(bag.len, 8192);
    assert_int_equal(pug_baggage_set(&bag, "b", "22", NULL), PUG_ERR_FULL);
    assert_value("b", "1");
}

/* ---- the current one ---- */

static const char *sent(struct headers *h, const char *name)
{
    headers_free(h);
    pug_inject(NULL, header_set, h);
    return header_get(h, name, 0, &(size_t){0});
}

static void the_current_baggage_is_sent_until_its_scope_ends(void **state)
{
    struct headers h = {.n = 0};
    struct pug_baggage inner, now;
    extract("a=1;p,b=2", NULL);
    assert_null(sent(&h, "baggage"));
    {
        PUG_BAGGAGE(&bag);
        assert_string_equal(sent(&h, "baggage"), "a=1;p,b=2");
        assert_int_equal(pug_baggage_current(&now), 2);
        assert_string_equal(now.text, "a=1;p,b=2");
        {
            pug_baggage_init(&inner);
            PUG_BAGGAGE(&inner);
            assert_null(sent(&h, "baggage")); /* empty: SHOULD NOT be sent */
            pug_baggage_set(&inner, "c", "3", NULL);
            assert_string_equal(sent(&h, "baggage"), "c=3");
            PUG_BAGGAGE(NULL);
            assert_null(sent(&h, "baggage"));
        }
        assert_string_equal(sent(&h, "baggage"), "a=1;p,b=2");
    }
    assert_null(sent(&h, "baggage"));
    assert_int_equal(pug_baggage_current(&now), 0);
    headers_free(&h);
}

static void jaeger_baggage_goes_both_ways(void **state)
{
    struct headers h = {.n = 0};
    propagators_use(PROPAGATE_JAEGER);
    pug_baggage_init(&bag);
    assert_int_equal(pug_baggage_header(&bag, "UberCtx-tenant", "blue%20green"), 1);
    assert_int_equal(pug_baggage_header(&bag, "uberctx-plain", "a b"), 1);
    assert_int_equal(pug_baggage_header(&bag, "uberctx-", "x"), 0);
    assert_int_equal(pug_baggage_header(&bag, "uberctx-a b", "x"), 1); /* ours, but damaged */
    assert_int_equal(pug_baggage_header(&bag, "baggage", "x=1"), 0);   /* not chosen */
    assert_int_equal(pug_baggage_header(&bag, "host", "x"), 0);
    assert_int_equal(pug_baggage_header(&bag, "jaeger-baggage", "k1=v1, k2=v2"), 1);
    assert_string_equal(bag.text, "tenant=blue%20green,plain=a%20b,k1=v1,k2=v2");
    {
        PUG_BAGGAGE(&bag);
        assert_string_equal(sent(&h, "uberctx-tenant"), "blue%20green");
        assert_string_equal(sent(&h, "uberctx-k2"), "v2");
        assert_null(sent(&h, "baggage"));
    }
    headers_free(&h);
    header_set(&h, "jaeger-baggage", "k1=v1");
    header_set(&h, "baggage", "k2=v2");
    assert_int_equal(pug_baggage_extract(header_get, &h, &bag), 1);
    headers_free(&h);
    propagators_use(PROPAGATE_DEFAULT);
    assert_int_equal(pug_baggage_header(&bag, "uberctx-tenant", "x"), 0);
    assert_int_equal(pug_baggage_header(&bag, "BAGGAGE", "x=1"), 1);
}

static void what_is_not_chosen_is_neither_read_nor_sent(void **state)
{
    struct headers h = {.n = 0};
    extract("a=1", NULL);
    propagators_use(PROPAGATE_TRACECONTEXT);
    {
        PUG_BAGGAGE(&bag);
        assert_null(sent(&h, "baggage"));
    }
    assert_int_equal(extract("a=1", NULL), 0);
    propagators_use(PROPAGATE_DEFAULT);
    headers_free(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(members_values_and_properties_are_trimmed),
        cmocka_unit_test(several_headers_are_one_list_in_order),
        cmocka_unit_test(a_value_may_hold_equal_signs),
        cmocka_unit_test(an_empty_value_is_a_value),
        cmocka_unit_test(keys_that_come_twice_stay_and_the_last_counts),
        cmocka_unit_test(a_key_is_a_token),
        cmocka_unit_test(a_damaged_member_goes_alone),
        cmocka_unit_test(values_are_decoded_as_utf8),
        cmocka_unit_test(what_is_set_reads_back_whatever_it_is),
        cmocka_unit_test(setting_replaces_all_members_of_that_key),
        cmocka_unit_test(what_breaks_the_format_is_not_set),
        cmocka_unit_test(removing_takes_all_members_of_that_key_wherever_they_are),
        cmocka_unit_test(members_come_one_after_the_other),
        cmocka_unit_test(too_small_a_buffer_gets_whole_characters),
        cmocka_unit_test(sixty_four_members_are_passed_on_and_no_more),
        cmocka_unit_test(eight_thousand_bytes_are_passed_on_and_no_part_of_a_member),
        cmocka_unit_test(the_current_baggage_is_sent_until_its_scope_ends),
        cmocka_unit_test(jaeger_baggage_goes_both_ways),
        cmocka_unit_test(what_is_not_chosen_is_neither_read_nor_sent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
