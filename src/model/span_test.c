#include "base/test.h"

#include "model/span.h"

#include <stdio.h>

static void trace_ids_are_read_in_every_form_that_clients_send(void **state)
{
    struct trace_id id;
    static const uint8_t expected[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0xab, 1, 2, 3, 4, 5, 6};
    assert_true(trace_id_parse(STR("000000000000000000ab010203040506"), &id));
    assert_memory_equal(id.bytes, expected, 16);
    assert_true(trace_id_parse(STR("ab010203040506"), &id)); /* zeros stripped */
    assert_memory_equal(id.bytes, expected, 16);
    assert_true(trace_id_parse(STR("00AB0102-03040506"), &id)); /* dashes, capitals */
    assert_memory_equal(id.bytes, expected, 16);
}

static void trace_ids_that_are_none_are_refused_and_change_nothing(void **state)
{
    static const char *const bad[] = {"", "-", "xyz", "000000000000000000000000000000001", "1 2"};
    struct trace_id id = {{7}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_false(trace_id_parse(str_from(bad[i]), &id));
        assert_int_equal(id.bytes[0], 7);
    }
    struct span_id span_id;
    assert_false(span_id_parse(STR("00000000000000001"), &span_id));
    assert_true(span_id_parse(STR("f"), &span_id));
    assert_int_equal(span_id.bytes[7], 15);
}

static void ids_of_zeros_are_seen(void **state)
{
    struct trace_id trace_id = {{0}};
    struct span_id span_id = {{0}};
    assert_true(trace_id_is_zero(&trace_id));
    assert_true(span_id_is_zero(&span_id));
    trace_id.bytes[15] = 1;
    span_id.bytes[7] = 1;
    assert_false(trace_id_is_zero(&trace_id));
    assert_false(span_id_is_zero(&span_id));
}

static void kinds_have_names_in_both_languages(void **state)
{
    uint8_t kind;
    assert_true(span_kind_parse(STR("SPAN_KIND_SERVER"), &kind));
    assert_int_equal(kind, SPAN_KIND_SERVER);
    assert_true(span_kind_parse(STR("client"), &kind));
    assert_int_equal(kind, SPAN_KIND_CLIENT);
    assert_false(span_kind_parse(STR("servant"), &kind));
    assert_string_equal(span_kind_name(SPAN_KIND_CONSUMER), "CONSUMER");
    assert_string_equal(span_kind_name(99), "UNSPECIFIED");
    assert_string_equal(span_kind_tag(SPAN_KIND_UNSPECIFIED), "");
}

static void a_span_that_ends_before_it_starts_lasted_no_time(void **state)
{
    struct span s = {.start_ns = 10, .end_ns = 7};
    assert_int_equal(span_duration_ns(&s), 0);
    s.end_ns = 12;
    assert_int_equal(span_duration_ns(&s), 2);
}

static void values_are_equal_by_type_and_content(void **state)
{
    struct value one = {.type = VALUE_INT, .integer = 1};
    struct value one_real = {.type = VALUE_DOUBLE, .real = 1};
    struct value nan = {.type = VALUE_DOUBLE, .real = __builtin_nan("")};
    assert_true(value_eq(&one, &one));
    assert_false(value_eq(&one, &one_real));
    assert_true(value_eq(&nan, &nan));

    struct value ab[2] = {{.type = VALUE_STRING, .string = STR("a")}, one};
    struct value array = {.type = VALUE_ARRAY, .array = {ab, 2}};
    struct value shorter = {.type = VALUE_ARRAY, .array = {ab, 1}};
    assert_true(value_eq(&array, &array));
    assert_false(value_eq(&array, &shorter));

    struct attr entry = {STR("k"), one}, other = {STR("l"), one};
    struct value map = {.type = VALUE_MAP, .map = {&entry, 1}};
    struct value other_map = {.type = VALUE_MAP, .map = {&other, 1}};
    assert_true(value_eq(&map, &map));
    assert_false(value_eq(&map, &other_map));
}

static void a_resource_without_a_service_name_says_so(void **state)
{
    struct attr attr = {STR("service.name"), {.type = VALUE_STRING, .string = STR("api")}};
    struct resource r = {.attrs = {&attr, 1, 0}};
    resource_set_service_name(&r);
    assert_str_eq(r.service_name, STR("api"));
    attr.value.string = STR("");
    resource_set_service_name(&r);
    assert_str_eq(r.service_name, STR("unknown_service"));
    r.attrs.n = 0;
    resource_set_service_name(&r);
    assert_str_eq(r.service_name, STR("unknown_service"));
}

static uint64_t fingerprint(const struct attr *items, size_t n)
{
    return resource_fingerprint(&(struct resource){.attrs = {items, (uint32_t)n, 0}});
}

/* The first number is that of docs/formats/fingerprint.md: it never changes. */
static void a_fingerprint_is_of_the_attributes_and_their_types_in_any_order(void **state)
{
    struct value items[] = {{.type = VALUE_INT, .integer = 1}, {.type = VALUE_INT, .integer = 2}};
    struct value turned[] = {items[1], items[0]};
    struct attr service = {STR("service.name"), {.type = VALUE_STRING, .string = STR("shop")}},
                n = {STR("n"), {.type = VALUE_INT, .integer = 1}},
                yes = {STR("n"), {.type = VALUE_BOOL, .boolean = true}},
                one = {STR("n"), {.type = VALUE_DOUBLE, .real = 1}},
                text = {STR("n"), {.type = VALUE_STRING, .string = STR("1")}},
                bytes = {STR("n"), {.type = VALUE_BYTES, .string = STR("1")}},
                none = {STR("n"), {.type = VALUE_NONE}},
                list = {STR("n"), {.type = VALUE_ARRAY, .array = {items, 2}}},
                list_turned = {STR("n"), {.type = VALUE_ARRAY, .array = {turned, 2}}};
    struct attr pair[] = {service, n}, pair_turned[] = {n, service};
    struct attr map = {STR("n"), {.type = VALUE_MAP, .map = {pair, 2}}},
                map_turned = {STR("n"), {.type = VALUE_MAP, .map = {pair_turned, 2}}};
    assert_int_equal(fingerprint(&service, 1), UINT64_C(0xcdb401f9c9936ac0));
    assert_int_equal(fingerprint(pair, 2), fingerprint(pair_turned, 2));
    assert_int_equal(fingerprint(&map, 1), fingerprint(&map_turned, 1));
    const struct attr all[] = {n, yes, one, text, bytes, none, list, list_turned, map, service};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        for (size_t k = 0; k < i; k++)
            assert_int_not_equal(fingerprint(&all[i], 1), fingerprint(&all[k], 1));
    assert_int_not_equal(fingerprint(NULL, 0), fingerprint(&none, 1));
    assert_int_not_equal(fingerprint(&n, 1), fingerprint((struct attr[]){n, n}, 2));
}

static void the_fingerprint_is_found_like_an_attribute(void **state)
{
    struct attr service = {STR("service.name"), {.type = VALUE_STRING, .string = STR("shop")}};
    struct resource r = {.attrs = {&service, 1, 0}};
    struct resource_derived derived;
    char text[FINGERPRINT_DIGITS + 1];
    snprintf(text, sizeof text, "%016llx", (unsigned long long)resource_fingerprint(&r));
    assert_str_eq(resource_attr_find(&r, STR(RESOURCE_FINGERPRINT), &derived)->value.string,
                  str_from(text));
    assert_ptr_equal(resource_attr_find(&r, STR("service.name"), &derived), &service);
    assert_null(resource_attr_find(&r, STR("other"), &derived));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(trace_ids_are_read_in_every_form_that_clients_send),
        cmocka_unit_test(trace_ids_that_are_none_are_refused_and_change_nothing),
        cmocka_unit_test(ids_of_zeros_are_seen),
        cmocka_unit_test(kinds_have_names_in_both_languages),
        cmocka_unit_test(a_span_that_ends_before_it_starts_lasted_no_time),
        cmocka_unit_test(values_are_equal_by_type_and_content),
        cmocka_unit_test(a_fingerprint_is_of_the_attributes_and_their_types_in_any_order),
        cmocka_unit_test(the_fingerprint_is_found_like_an_attribute),
        cmocka_unit_test(a_resource_without_a_service_name_says_so),
    };
    return cmocka_run_group_tests_name("span", tests, NULL, NULL);
}
