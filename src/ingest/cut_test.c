#include "base/test.h"

#include "ingest/cut.h"

#define MAX 8
#define ATTRS_MAX 4

static struct value text(const char *s)
{
    return (struct value){.type = VALUE_STRING, .string = str_from(s)};
}

static const struct resource resource_short = {.service_name = {"unknown_service", 15}};
static const struct scope scope_short = {0};

static struct span_batch batch_of(struct span *span)
{
    span->resource = span->resource ? span->resource : &resource_short;
    span->scope = span->scope ? span->scope : &scope_short;
    return (struct span_batch){.spans = span, .n = 1};
}

static void assert_marked(const struct attrs *attrs, const char *first, const char *second)
{
    const struct attr *mark = attrs_find(attrs, STR(CUT_KEY));
    assert_non_null(mark);
    assert_int_equal(mark->value.type, VALUE_ARRAY);
    assert_int_equal(mark->value.array.n, second ? 2 : 1);
    assert_str_eq(mark->value.array.items[0].string, str_from(first));
    if (second)
        assert_str_eq(mark->value.array.items[1].string, str_from(second));
}

static void values_within_the_limit_stay_as_they_are(void **state)
{
    struct arena arena = ARENA_INIT;
    const struct attr attrs[] = {{STR("a"), text("12345678")}, {STR("b"), text("")}};
    struct span span = {.name = STR("12345678"), .attrs = {.items = attrs, .n = 2}};
    struct span_batch batch = batch_of(&span);
    struct cut_counts counts = {99, 99};
    assert_int_equal(cut_batch(&batch, MAX, ATTRS_MAX, &arena, &counts), 0);
    assert_int_equal(counts.values, 0);
    assert_null(counts.marks);
    assert_ptr_equal(span.attrs.items, attrs);
    assert_int_equal(span.attrs.n, 2);
    arena_done(&arena);
}

static void a_long_value_is_cut_and_the_span_says_which(void **state)
{
    struct arena arena = ARENA_INIT;
    const struct attr attrs[] = {{STR("short"), text("x")},
                                 {STR("long"), text("123456789")},
                                 {STR("bytes"), {.type = VALUE_BYTES, .bytes = STR("123456789a")}}};
    struct span span = {.attrs = {.items = attrs, .n = 3, .dropped = 7}};
    struct span_batch batch = batch_of(&span);
    struct cut_counts counts = {0};
    assert_int_equal(cut_batch(&batch, MAX, ATTRS_MAX, &arena, &counts), 0);
    assert_int_equal(counts.values, 2);
    assert_int_equal(span.attrs.n, 4);
    assert_int_equal(span.attrs.dropped, 7);
    assert_str_eq(span.attrs.items[0].value.string, STR("x"));
    assert_str_eq(span.attrs.items[1].value.string, STR("12345678"));
    assert_str_eq(span.attrs.items[2].value.bytes, STR("12345678"));
    assert_marked(&span.attrs, "long", "bytes");
    assert_str_eq(attrs[1].value.string, STR("123456789")); /* what was decoded is untouched */
    arena_done(&arena);
}

static void a_text_is_cut_before_a_character_not_inside(void **state)
{
    struct arena arena = ARENA_INIT;
    struct span span = {.name = STR("123456\xe2\x82\xac"),
                        .status_message = STR("1234567\xc3\xbc")};
    struct span_batch batch = batch_of(&span);
    struct cut_counts counts = {0};
    assert_int_equal(cut_batch(&batch, MAX, ATTRS_MAX, &arena, &counts), 0);
    assert_int_equal(counts.values, 2);
    assert_str_eq(span.name, STR("123456"));
    assert_str_eq(span.status_message, STR("1234567"));
    assert_marked(&span.attrs, "(name)", "(status message)");
    arena_done(&arena);
}

static void what_is_long_inside_arrays_and_maps_is_cut(void **state)
{
    struct arena arena = ARENA_INIT;
    const struct value items[] = {text("1"), text("123456789")};
    const struct attr inner[] = {
        {STR("k"), {.type = VALUE_ARRAY, .array = {items, 2}}},
        {STR("key that is long"), text("v")},
    };
    const struct attr attrs[] = {{STR("map"), {.type = VALUE_MAP, .map = {inner, 2}}}};
    struct span span = {.attrs = {.items = attrs, .n = 1}};
    struct span_batch batch = batch_of(&span);
    struct cut_counts counts = {0};
    assert_int_equal(cut_batch(&batch, MAX, ATTRS_MAX, &arena, &counts), 0);
    assert_int_equal(counts.values, 2);
    const struct attr *map = span.attrs.items[0].value.map.items;
    assert_str_eq(map[0].value.array.items[0].string, STR("1"));
    assert_str_eq(map[0].value.array.items[1].string, STR("12345678"));
    assert_str_eq(map[1].key, STR("key that"));
    assert_marked(&span.attrs, "map", NULL);
    arena_done(&arena);
}

static void events_links_resources_and_scopes_are_cut_too(void **state)
{
    struct arena arena = ARENA_INIT;
    const struct attr long_attr[] = {{STR("long"), text("123456789abcd")}};
    const struct attrs attrs = {.items = long_attr, .n = 1};
    const struct event events[] = {{.name = STR("an event's name"), .attrs = attrs}};
    const struct link links[] = {{.trace_state = STR("a=123456789abc"), .attrs = attrs}};
    const struct attr service[] = {{STR("service.name"), text("a service's name")}};
    const struct resource resource = {.attrs = {.items = service, .n = 1},
                                      .service_name = STR("a service's name")};
    const struct scope scope = {.name = STR("a scope's name"), .attrs = attrs};
    struct span spans[2];
    for (int i = 0; i < 2; i++)
        spans[i] = (struct span){.events = events,
                                 .n_events = 1,
                                 .links = links,
                                 .n_links = 1,
                                 .resource = &resource,
                                 .scope = &scope};
    struct span_batch batch = {.spans = spans, .n = 2};
    struct cut_counts counts = {0};
    assert_int_equal(cut_batch(&batch, 12, ATTRS_MAX, &arena, &counts), 0);
    assert_int_equal(counts.values, 2 * 4 + 1 + 2);
    assert_str_eq(spans[1].events[0].name, STR("an event's n"));
    assert_str_eq(spans[1].events[0].attrs.items[0].value.string, STR("123456789abc"));
    assert_str_eq(spans[1].links[0].trace_state, STR("a=123456789a"));
    assert_str_eq(spans[1].resource->service_name, STR("a service's "));
    assert_marked(&spans[1].resource->attrs, "service.name", NULL);
    assert_str_eq(spans[1].scope->name, STR("a scope's na"));
    assert_marked(&spans[1].scope->attrs, "(name)", "long");
    assert_ptr_equal(spans[0].resource, spans[1].resource); /* still shared */
    assert_ptr_equal(spans[0].scope, spans[1].scope);
    arena_done(&arena);
}

static void a_full_arena_is_an_error(void **state)
{
    struct arena arena = {.bytes_max = 64};
    const struct attr attrs[] = {{STR("long"), text("123456789")}};
    struct span span = {.attrs = {.items = attrs, .n = 1}};
    struct span_batch batch = batch_of(&span);
    struct cut_counts counts = {0};
    assert_int_equal(cut_batch(&batch, MAX, ATTRS_MAX, &arena, &counts), ERR_NOMEM);
    arena_done(&arena);
}

static void attributes_beyond_the_limit_are_left_out_and_counted(void **state)
{
    struct arena arena = ARENA_INIT;
    struct attr attrs[6];
    for (int i = 0; i < 6; i++)
        attrs[i] = (struct attr){str_from((const char *[]){"a", "b", "c", "d", "e", "f"}[i]),
                                 text("v")};
    const struct event event = {.name = STR("e"), .attrs = {attrs, 6, 0}};
    struct span span = {.attrs = {attrs, 6, 1}, .events = &event, .n_events = 1};
    struct span_batch batch = batch_of(&span);
    struct cut_counts counts = {0};
    assert_true(cut_has_many(&batch, ATTRS_MAX));
    assert_int_equal(cut_batch(&batch, MAX, ATTRS_MAX, &arena, &counts), 0);
    assert_int_equal(counts.lists, 2);
    assert_marked(&span.attrs, "(attributes)", NULL);
    assert_int_equal(span.attrs.n, ATTRS_MAX + 1); /* and the mark */
    assert_int_equal(span.attrs.dropped, 1 + 2);
    assert_str_eq(span.attrs.items[3].key, STR("d"));
    assert_int_equal(span.events[0].attrs.n, ATTRS_MAX);
    assert_int_equal(span.events[0].attrs.dropped, 2);
    span.attrs.n = ATTRS_MAX;
    assert_false(cut_has_many(&batch, ATTRS_MAX));
    arena_done(&arena);
}

static void marks_say_which_spans_were_cut_also_by_what_they_share(void **state)
{
    struct arena arena = ARENA_INIT;
    const struct attr long_one = {STR("long"), text("123456789")};
    const struct attr many[6] = {0};
    struct resource plain = {.schema_url = STR("")};
    struct resource cut = {.attrs = {.items = &long_one, .n = 1}};
    struct scope scope = {.name = STR("")}, wide = {.attrs = {.items = many, .n = 6}};
    struct span spans[] = {
        {.resource = &plain, .scope = &scope},
        {.resource = &plain, .scope = &scope, .name = STR("123456789")},
        {.resource = &cut, .scope = &scope},
        {.resource = &cut, .scope = &wide},
        {.resource = &plain, .scope = &wide},
        {.resource = &plain, .scope = &scope},
    };
    struct span_batch batch = {.spans = spans, .n = 6};
    struct cut_counts counts = {0};
    assert_int_equal(cut_batch(&batch, MAX, ATTRS_MAX, &arena, &counts), 0);
    const uint8_t expected[] = {0, CUT_VALUES, CUT_VALUES, CUT_VALUES | CUT_LISTS, CUT_LISTS, 0};
    assert_non_null(counts.marks);
    assert_memory_equal(counts.marks, expected, sizeof expected);
    arena_done(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_within_the_limit_stay_as_they_are),
        cmocka_unit_test(a_long_value_is_cut_and_the_span_says_which),
        cmocka_unit_test(a_text_is_cut_before_a_character_not_inside),
        cmocka_unit_test(what_is_long_inside_arrays_and_maps_is_cut),
        cmocka_unit_test(events_links_resources_and_scopes_are_cut_too),
        cmocka_unit_test(a_full_arena_is_an_error),
        cmocka_unit_test(attributes_beyond_the_limit_are_left_out_and_counted),
        cmocka_unit_test(marks_say_which_spans_were_cut_also_by_what_they_share),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
