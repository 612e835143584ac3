#include "wire/zipkin.h"

#include "base/test.h"

#include <math.h>
#include <stdio.h>

static const struct scope no_scope;
static const struct resource shop = {.service_name = {"shop", 4}};

static struct span span_of(const struct attr *items, uint32_t n)
{
    return (struct span){.trace_id = {{0x0a, 0xf7}},
                         .span_id = {{0xb7, 0xad}},
                         .start_ns = 1700000000123456789,
                         .end_ns = 1700000000123456789 + 1999,
                         .name = STR("get"),
                         .attrs = {items, n, 0},
                         .resource = &shop,
                         .scope = &no_scope};
}

/* The text of one span, without the brackets of the list. */
static struct str text_of(struct span *s, struct buf *out)
{
    struct json_writer w = json_writer(out);
    buf_clear(out);
    zipkin_json_encode(&(struct span_batch){.spans = s, .n = 1}, &w);
    assert_true(buf_ok(out) && out->len > 2);
    return (struct str){out->ptr + 1, out->len - 2};
}

static bool has(struct str text, const char *part)
{
    return memmem(text.ptr, text.len, part, strlen(part)) != NULL;
}

static void assert_has(struct str text, const char *part)
{
    if (!has(text, part))
        fail_msg("%s is not in %.*s", part, STR_ARG(text));
}

#define ATTR_STR(k, v)                                                                             \
    {                                                                                              \
        {k, sizeof(k) - 1},                                                                        \
        {                                                                                          \
            .type = VALUE_STRING, .string = { v, sizeof(v) - 1 }                                   \
        }                                                                                          \
    }
#define ATTR_INT(k, v)                                                                             \
    {                                                                                              \
        {k, sizeof(k) - 1},                                                                        \
        {                                                                                          \
            .type = VALUE_INT, .integer = (v)                                                      \
        }                                                                                          \
    }

static void a_span_without_anything_has_what_is_required(void **state)
{
    struct buf out = BUF_INIT;
    struct span s = span_of(NULL, 0);
    assert_str_eq(text_of(&s, &out),
                  STR("{\"traceId\":\"0af70000000000000000000000000000\",\"id\":"
                      "\"b7ad000000000000\",\"name\":\"get\",\"timestamp\":1700000000123456,"
                      "\"duration\":1,\"localEndpoint\":{\"serviceName\":\"shop\"},\"tags\":{}}"));
    buf_done(&out);
}

static void a_duration_is_never_0(void **state)
{
    struct buf out = BUF_INIT;
    struct span s = span_of(NULL, 0);
    s.end_ns = s.start_ns;
    assert_has(text_of(&s, &out), "\"duration\":1,");
    s.end_ns = s.start_ns - 5000; /* clocks may be set back */
    assert_has(text_of(&s, &out), "\"duration\":1,");
    s.end_ns = s.start_ns + 2000;
    assert_has(text_of(&s, &out), "\"duration\":2,");
    buf_done(&out);
}

static void internal_and_unknown_kinds_are_left_out(void **state)
{
    static const char *const wanted[] = {NULL, NULL, "SERVER", "CLIENT", "PRODUCER", "CONSUMER"};
    struct buf out = BUF_INIT;
    struct span s = span_of(NULL, 0);
    for (unsigned kind = 0; kind < 6; kind++) {
        char part[40];
        s.kind = (uint8_t)kind;
        struct str text = text_of(&s, &out);
        snprintf(part, sizeof part, "\"kind\":\"%s\"", wanted[kind] ? wanted[kind] : "");
        assert_int_equal(has(text, part), wanted[kind] != NULL);
        assert_int_equal(has(text, "\"kind\""), wanted[kind] != NULL);
    }
    buf_done(&out);
}

static void tags_are_strings_whatever_they_were(void **state)
{
    const struct value list[] = {{.type = VALUE_INT, .integer = 1},
                                 {.type = VALUE_STRING, .string = STR("a\"b")}};
    const struct attr attrs[] = {
        ATTR_INT("int", INT64_MIN),
        {STR("real"), {.type = VALUE_DOUBLE, .real = 0.1}},
        {STR("nan"), {.type = VALUE_DOUBLE, .real = NAN}},
        {STR("yes"), {.type = VALUE_BOOL, .boolean = true}},
        {STR("bytes"), {.type = VALUE_BYTES, .bytes = STR("\x01\x02\x03")}},
        {STR("list"), {.type = VALUE_ARRAY, .array = {list, 2}}},
        ATTR_STR("text", "line\nfeed"),
        ATTR_STR("text", "a second of the same name"),
    };
    struct buf out = BUF_INIT;
    struct span s = span_of(attrs, sizeof attrs / sizeof attrs[0]);
    assert_has(text_of(&s, &out),
               "\"tags\":{\"int\":\"-9223372036854775808\",\"real\":\"0.1\",\"nan\":\"NaN\","
               "\"yes\":\"true\",\"bytes\":\"AQID\",\"list\":\"[1,\\\"a\\\\\\\"b\\\"]\","
               "\"text\":\"line\\nfeed\"}");
    buf_done(&out);
}

static void the_error_tag_is_there_for_errors_and_for_nothing_else(void **state)
{
    const struct attr attrs[] = {
        {STR("error"), {.type = VALUE_BOOL, .boolean = false}},
        ATTR_STR("otel.status_code", "mine"),
    };
    struct buf out = BUF_INIT;
    struct span s = span_of(attrs, 2);
    assert_has(text_of(&s, &out), "\"tags\":{\"otel.status_code\":\"mine\"}");
    s.status_code = STATUS_OK;
    s.status_message = STR("ignored");
    assert_has(text_of(&s, &out), "\"tags\":{\"otel.status_code\":\"OK\"}");
    s.status_code = STATUS_ERROR;
    assert_has(text_of(&s, &out),
               "\"tags\":{\"otel.status_code\":\"ERROR\",\"error\":\"ignored\"}");
    s.status_message = STR("");
    assert_has(text_of(&s, &out), "\"error\":\"\"}");
    buf_done(&out);
}

static void resource_scope_and_drops_become_tags(void **state)
{
    const struct attr of_resource[] = {ATTR_STR("service.name", "shop"), ATTR_STR("host.name", "a"),
                                       ATTR_STR("both", "resource")};
    const struct attr of_span[] = {ATTR_STR("both", "span")};
    const struct resource resource = {.service_name = STR("shop"), .attrs = {of_resource, 3, 0}};
    const struct scope scope = {.name = STR("lib"), .version = STR("2")};
    struct buf out = BUF_INIT;
    struct span s = span_of(of_span, 1);
    s.resource = &resource;
    s.scope = &scope;
    s.attrs.dropped = 3;
    s.dropped_events = 4;
    s.dropped_links = 5;
    assert_has(text_of(&s, &out),
               "\"tags\":{\"otel.scope.name\":\"lib\",\"otel.library.name\":\"lib\","
               "\"otel.scope.version\":\"2\",\"otel.library.version\":\"2\","
               "\"otel.dropped_attributes_count\":\"3\",\"otel.dropped_events_count\":\"4\","
               "\"otel.dropped_links_count\":\"5\",\"both\":\"span\",\"host.name\":\"a\"}");
    buf_done(&out);
}

static void the_other_side_is_taken_in_the_order_of_the_specification(void **state)
{
    static const struct {
        struct attr attrs[3];
        const char *wanted;
    } cases[] = {
        {{ATTR_STR("db.name", "d"), ATTR_STR("server.address", "s"), ATTR_STR("peer.service", "p")},
         "\"remoteEndpoint\":{\"serviceName\":\"p\"}"},
        {{ATTR_STR("db.name", "d"), ATTR_STR("server.address", "s")},
         "\"remoteEndpoint\":{\"serviceName\":\"s\"}"},
        {{ATTR_STR("network.peer.address", "10.0.0.1"), ATTR_INT("network.peer.port", 5432)},
         "\"remoteEndpoint\":{\"ipv4\":\"10.0.0.1\",\"port\":5432}"},
        {{ATTR_STR("net.sock.peer.addr", "2001:db8::1"), ATTR_INT("net.sock.peer.port", 70000)},
         "\"remoteEndpoint\":{\"ipv6\":\"2001:db8::1\"}"},
        {{ATTR_STR("network.peer.address", "/run/db.sock")},
         "\"remoteEndpoint\":{\"serviceName\":\"/run/db.sock\"}"},
        {{ATTR_STR("db.name", "d")}, "\"remoteEndpoint\":{\"serviceName\":\"d\"}"},
    };
    struct buf out = BUF_INIT;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint32_t n = 0;
        while (n < 3 && cases[i].attrs[n].key.len)
            n++;
        struct span s = span_of(cases[i].attrs, n);
        s.kind = SPAN_KIND_CLIENT;
        assert_has(text_of(&s, &out), cases[i].wanted);
        s.kind = SPAN_KIND_SERVER;
        assert_false(has(text_of(&s, &out), "remoteEndpoint"));
    }
    buf_done(&out);
}

static void events_are_annotations_with_their_attributes_in_the_text(void **state)
{
    const struct attr attrs[] = {ATTR_STR("key", "v\"x"), ATTR_INT("n", 2)};
    const struct event events[] = {
        {.time_ns = 1700000000000001999, .name = STR("plain")},
        {.time_ns = 1700000000000002000, .name = STR("with \"quotes\""), .attrs = {attrs, 2, 0}}};
    struct buf out = BUF_INIT;
    struct span s = span_of(NULL, 0);
    s.events = events;
    s.n_events = 2;
    assert_has(text_of(&s, &out),
               "\"annotations\":[{\"timestamp\":1700000000000001,\"value\":\"plain\"},"
               "{\"timestamp\":1700000000000002,\"value\":\"\\\"with \\\\\\\"quotes\\\\\\\"\\\": "
               "{\\\"key\\\":\\\"v\\\\\\\"x\\\",\\\"n\\\":2}\"}]");
    buf_done(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_span_without_anything_has_what_is_required),
        cmocka_unit_test(a_duration_is_never_0),
        cmocka_unit_test(internal_and_unknown_kinds_are_left_out),
        cmocka_unit_test(tags_are_strings_whatever_they_were),
        cmocka_unit_test(the_error_tag_is_there_for_errors_and_for_nothing_else),
        cmocka_unit_test(resource_scope_and_drops_become_tags),
        cmocka_unit_test(the_other_side_is_taken_in_the_order_of_the_specification),
        cmocka_unit_test(events_are_annotations_with_their_attributes_in_the_text),
    };
    return cmocka_run_group_tests_name("zipkin", tests, NULL, NULL);
}
