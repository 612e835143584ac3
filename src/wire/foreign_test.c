/* Zipkin's, Jaeger's and X-Ray's formats where their own clients do not lead: tests/e2e/receivers
 * has the clients. */
#include "wire/jaeger.h"
#include "wire/otlp.h"
#include "wire/thrift.h"
#include "wire/xray.h"
#include "wire/zipkin.h"
#include "wire/zipkin_span.h"

#include "base/test.h"

typedef int decode_fn(struct str, struct arena *, struct span_batch *, struct error_detail *);

static struct span_batch decoded(decode_fn *decode, struct str body, struct arena *arena)
{
    struct span_batch batch, again;
    struct error_detail detail = {0};
    struct buf bytes = BUF_INIT;
    int err = decode(body, arena, &batch, &detail);
    if (err)
        fail_msg("%s at %zu: %s", err_name(err), detail.position, detail.message);
    /* What the log will hold is the same. */
    otlp_encode(&batch, &bytes);
    struct str copy = arena_str(arena, buf_as_str(&bytes));
    buf_done(&bytes);
    assert_int_equal(otlp_decode(copy, arena, &again, &detail), 0);
    assert_int_equal(again.n, batch.n);
    assert_int_equal(again.n_rejected, 0);
    batch.spans = again.spans;
    return batch;
}

static struct str text_of(const struct attrs *attrs, struct str key)
{
    const struct attr *a = attrs_find(attrs, key);
    return a && a->value.type == VALUE_STRING ? a->value.string : STR("(none)");
}

static void assert_id(struct span_id id, const char *hex)
{
    char digits[17] = {0};
    hex_put(digits, id.bytes, SPAN_ID_SIZE);
    assert_string_equal(digits, hex);
}

static void assert_refused(decode_fn *decode, struct str body, int expected, struct arena *arena)
{
    struct span_batch batch;
    struct error_detail detail = {0};
    int err = decode(body, arena, &batch, &detail);
    if (err != expected)
        fail_msg("%.*s gives %s", STR_ARG(body), err ? err_name(err) : "no error");
    assert_int_equal(detail.code, err);
    assert_true(detail.message[0] != '\0');
}

/* ---- Zipkin, version 2 ---- */

static void a_zipkin_span_without_a_kind_is_internal(void **state)
{
    (void)state;
    struct arena arena = ARENA_INIT;
    struct span_batch b = decoded(
        zipkin_json_decode,
        STR("[{\"traceId\":\"48485a3953bb61246b221d5bc9e6496c\",\"id\":\"1\",\"timestamp\":7}]"),
        &arena);
    assert_int_equal(b.n, 1);
    assert_int_equal(b.spans[0].kind, SPAN_KIND_INTERNAL);
    assert_int_equal(b.spans[0].start_ns, 7000);
    assert_int_equal(b.spans[0].end_ns, 7000);
    assert_int_equal(b.spans[0].trace_id.bytes[0], 0x48);
    assert_id(b.spans[0].span_id, "0000000000000001");
    assert_str_eq(b.spans[0].resource->service_name, STR("unknown_service"));
    arena_done(&arena);
}

static void zipkin_tags_of_opentelemetry_are_what_they_stand_for(void **state)
{
    (void)state;
    struct arena arena = ARENA_INIT;
    struct span_batch b =
        decoded(zipkin_json_decode,
                STR("[{\"traceId\":\"1\",\"id\":\"1\",\"timestamp\":7,\"tags\":{\"otel.status_"
                    "code\":\"OK\","
                    "\"otel.scope.name\":\"lib\",\"otel.scope.version\":\"2\","
                    "\"otel.dropped_attributes_count\":\"4\",\"otel.dropped_events_count\":\"5\","
                    "\"error\":\"false\",\"x\":\"y\"}}]"),
                &arena);
    const struct span *s = &b.spans[0];
    assert_int_equal(s->status_code, STATUS_OK);
    assert_str_eq(s->scope->name, STR("lib"));
    assert_str_eq(s->scope->version, STR("2"));
    assert_int_equal(s->attrs.dropped, 4);
    assert_int_equal(s->dropped_events, 5);
    assert_int_equal(s->attrs.n, 2);
    assert_str_eq(text_of(&s->attrs, STR("x")), STR("y"));
    assert_str_eq(text_of(&s->attrs, STR("error")), STR("false"));
    arena_done(&arena);
}

static void zipkin_spans_that_cannot_be_kept_leave_the_others(void **state)
{
    (void)state;
    struct arena arena = ARENA_INIT;
    struct span_batch b =
        decoded(zipkin_json_decode,
                STR("[{\"traceId\":\"xyz\",\"id\":\"1\",\"timestamp\":7},"
                    "{\"traceId\":\"1\",\"id\":\"0\",\"timestamp\":7},"
                    "{\"traceId\":\"1\",\"id\":\"3\"},"
                    "{\"traceId\":\"1\",\"id\":\"4\",\"timestamp\":18446744073709551615},"
                    "{\"traceId\":\"1\",\"id\":\"5\",\"annotations\":[{\"timestamp\":9,\"value\":"
                    "\"a\"}]}]"),
                &arena);
    assert_int_equal(b.n_rejected, 4);
    assert_string_equal(b.rejected_reason, "a trace id is not 1 to 32 hexadecimal digits");
    assert_int_equal(b.n, 1);
    assert_id(b.spans[0].span_id, "0000000000000005");
    assert_int_equal(b.spans[0].start_ns, 9000);
    arena_done(&arena);
}

static void the_server_half_of_a_shared_span_has_the_same_id_each_time(void **state)
{
    (void)state;
    struct arena arena = ARENA_INIT;
    static const struct str body = STR(
        "[{\"traceId\":\"7\",\"id\":\"5\",\"parentId\":\"2\",\"timestamp\":1,\"kind\":\"SERVER\","
        "\"shared\":true,\"localEndpoint\":{\"serviceName\":\"b\"}},"
        "{\"traceId\":\"7\",\"id\":\"6\",\"parentId\":\"5\",\"timestamp\":1,"
        "\"localEndpoint\":{\"serviceName\":\"b\"}},"
        "{\"traceId\":\"7\",\"id\":\"8\",\"parentId\":\"5\",\"timestamp\":1,"
        "\"localEndpoint\":{\"serviceName\":\"a\"}}]");
    struct span_batch one = decoded(zipkin_json_decode, body, &arena);
    struct span_batch two = decoded(zipkin_json_decode, body, &arena);
    assert_memory_equal(one.spans[0].span_id.bytes, two.spans[0].span_id.bytes, SPAN_ID_SIZE);
    assert_id(one.spans[0].parent_id, "0000000000000005");
    struct span_id server = zipkin_server_id(&one.spans[0].trace_id, &one.spans[0].parent_id);
    assert_memory_equal(one.spans[0].span_id.bytes, server.bytes, SPAN_ID_SIZE);
    assert_memory_equal(one.spans[1].parent_id.bytes, server.bytes, SPAN_ID_SIZE);
    assert_id(one.spans[2].parent_id, "0000000000000005"); /* another process */
    arena_done(&arena);
}

static void zipkin_protobuf_is_read(void **state)
{
    (void)state;
    struct arena arena = ARENA_INIT;
    struct span_batch b = decoded(zipkin_protobuf_decode,
                                  STR("\x0a\x43"
                                      "\x0a\x08\x01\x02\x03\x04\x05\x06\x07\x08" /* trace id */
                                      "\x1a\x08\x00\x00\x00\x00\x00\x00\x00\x09"
                                      "\x20\x01" /* CLIENT */
                                      "\x2a\x03get"
                                      "\x31\x05\x00\x00\x00\x00\x00\x00\x00"
                                      "\x38\x02"
                                      "\x42\x06\x0a\x04shop"
                                      "\x4a\x09\x12\x04\x0a\x00\x00\x01\x20\xb8\x17"
                                      "\x5a\x08\x0a\x01k\x12\x03v\xc3\xbc"),
                                  &arena);
    assert_int_equal(b.n, 1);
    const struct span *s = &b.spans[0];
    assert_int_equal(s->trace_id.bytes[7], 0);
    assert_int_equal(s->trace_id.bytes[8], 1);
    assert_id(s->span_id, "0000000000000009");
    assert_int_equal(s->kind, SPAN_KIND_CLIENT);
    assert_int_equal(s->start_ns, 5000);
    assert_int_equal(s->end_ns, 7000);
    assert_str_eq(s->resource->service_name, STR("shop"));
    assert_str_eq(text_of(&s->attrs, STR("network.peer.address")), STR("10.0.0.1"));
    assert_str_eq(text_of(&s->attrs, STR("k")), STR("v\xc3\xbc"));
    arena_done(&arena);
}

/* ---- Zipkin, version 1 ---- */

static void a_record_of_both_halves_is_two_spans(void **state)
{
    (void)state;
    struct arena arena = ARENA_INIT;
#define AT(service) "\"endpoint\":{\"serviceName\":\"" service "\",\"ipv4\":\"10.0.0.1\"}"
    struct span_batch b = decoded(
        zipkin_v1_json_decode,
        STR("[{\"traceId\":\"1\",\"id\":\"2\",\"name\":\"get\",\"timestamp\":10,\"duration\":90,"
            "\"annotations\":[{\"timestamp\":10,\"value\":\"cs\"," AT(
                "a") "},"
                     "{\"timestamp\":20,\"value\":\"sr\"," AT(
                         "b") "},"
                              "{\"timestamp\":30,\"value\":\"note\"," AT(
                                  "b") "},"
                                       "{\"timestamp\":80,\"value\":\"ss\"," AT(
                                           "b") "},"
                                                "{\"timestamp\":100,\"value\":\"cr\"," AT(
                                                    "a") "}],"
                                                         "\"binaryAnnotations\":[{\"key\":\"sa\","
                                                         "\"value\":true," AT(
                                                             "b") "},"
                                                                  "{\"key\":\"path\",\"value\":\"/"
                                                                  "x\"," AT(
                                                                      "b") "},"
                                                                           "{\"key\":\"size\","
                                                                           "\"value\":5," AT(
                                                                               "a") "}]}]"),
        &arena);
    assert_int_equal(b.n, 2);
    const struct span *client = &b.spans[0], *server = &b.spans[1];
    assert_int_equal(client->kind, SPAN_KIND_CLIENT);
    assert_int_equal(client->start_ns, 10000);
    assert_int_equal(client->end_ns, 100000);
    assert_str_eq(client->resource->service_name, STR("a"));
    assert_str_eq(text_of(&client->attrs, STR("peer.service")), STR("b"));
    assert_int_equal(attrs_find(&client->attrs, STR("size"))->value.integer, 5);
    assert_int_equal(client->n_events, 0);
    assert_int_equal(server->kind, SPAN_KIND_SERVER);
    assert_int_equal(server->start_ns, 20000);
    assert_int_equal(server->end_ns, 80000);
    assert_memory_equal(server->parent_id.bytes, client->span_id.bytes, SPAN_ID_SIZE);
    assert_str_eq(server->resource->service_name, STR("b"));
    assert_str_eq(text_of(&server->attrs, STR("path")), STR("/x"));
    assert_int_equal(server->n_events, 1);
    assert_str_eq(server->events[0].name, STR("note"));
    arena_done(&arena);
}

static void a_server_half_without_a_time_of_its_own_is_shared(void **state)
{
    (void)state;
    struct arena arena = ARENA_INIT;
    struct span_batch b = decoded(
        zipkin_v1_json_decode,
        STR("[{\"traceId\":\"1\",\"id\":\"2\",\"annotations\":["
            "{\"timestamp\":20,\"value\":\"sr\"," AT(
                "b") "},"
                     "{\"timestamp\":80,\"value\":\"ss\"," AT(
                         "b") "}]},"
                              "{\"traceId\":\"1\",\"id\":\"3\",\"timestamp\":20,\"duration\":7,"
                              "\"annotations\":["
                              "{\"timestamp\":20,\"value\":\"sr\"," AT(
                                  "b") "}]},"
                                       "{\"traceId\":\"1\",\"id\":\"4\",\"timestamp\":20,"
                                       "\"binaryAnnotations\":["
                                       "{\"key\":\"lc\",\"value\":\"cache\"," AT("c") "}]}]"),
        &arena);
    assert_int_equal(b.n, 3);
    assert_id(b.spans[0].parent_id, "0000000000000002");
    assert_int_equal(b.spans[0].end_ns - b.spans[0].start_ns, 60000);
    assert_id(b.spans[1].span_id, "0000000000000003");
    assert_true(span_id_is_zero(&b.spans[1].parent_id));
    assert_int_equal(b.spans[1].end_ns - b.spans[1].start_ns, 7000);
    assert_int_equal(b.spans[2].kind, SPAN_KIND_INTERNAL);
    assert_str_eq(b.spans[2].resource->service_name, STR("c"));
    assert_str_eq(text_of(&b.spans[2].attrs, STR("lc")), STR("cache"));
    arena_done(&arena);
}

/* ---- thrift ---- */

static void a_thrift_list_cannot_be_longer_than_its_bytes(void **state)
{
    (void)state;
    struct arena arena = ARENA_INIT;
    assert_refused(zipkin_v1_thrift_decode, STR("\x0c\x7f\xff\xff\xff"), ERR_TRUNCATED, &arena);
    assert_refused(zipkin_v1_thrift_decode, STR("\x0c\xff\xff\xff\xff\0\0"), ERR_TRUNCATED, &arena);
    assert_refused(zipkin_v1_thrift_decode, STR("\x0b\0\0\0\1\0\0\0\0"), ERR_INVALID, &arena);
    assert_refused(zipkin_v1_thrift_decode, STR(""), ERR_TRUNCATED, &arena);
    assert_refused(zipkin_v1_thrift_decode, STR("\x0c\0\0\0\0more"), ERR_INVALID, &arena);
    arena_done(&arena);
}

static void thrift_that_nests_too_deeply_is_refused(void **state)
{
    (void)state;
    struct arena arena = ARENA_INIT;
    char body[5 + 3 * 100] = "\x0c\0\0\0\1";
    for (size_t i = 0; i < 100; i++)
        memcpy(body + 5 + 3 * i, "\x0c\0\x63", 3); /* a struct as field 99 */
    assert_refused(zipkin_v1_thrift_decode, (struct str){body, sizeof body}, ERR_TOO_LARGE, &arena);
    arena_done(&arena);
}

static void both_thrift_protocols_give_the_same_values(void **state)
{
    (void)state;
    static const struct str bodies[] = {
        STR("\x0a\0\1\xff\xff\xff\xff\xff\xff\xff\xfe"  /* 1: i64 -2 */
            "\x02\0\2\1"                                /* 2: true */
            "\x04\0\3\x3f\xf8\0\0\0\0\0\0"              /* 3: 1.5 */
            "\x0d\0\4\x0b\x08\0\0\0\1\0\0\0\1k\0\0\0\5" /* 4: a map, passed over */
            "\x0b\0\5\0\0\0\2hi\0"),
        STR("\x16\3\x11\x17\0\0\0\0\0\0\xf8\x3f\x1b\1\x85\1k\x0a\x18\2hi\0"),
    };
    for (int i = 0; i < 2; i++) {
        struct thrift r;
        struct thrift_field f = {0};
        int64_t n = 0;
        bool b = false;
        double real = 0;
        struct str s = STR_NONE;
        thrift_init(&r, bodies[i], i ? THRIFT_COMPACT : THRIFT_BINARY);
        assert_true(thrift_next(&r, &f) && f.id == 1 && thrift_int(&r, &f, &n));
        assert_true(thrift_next(&r, &f) && f.id == 2 && thrift_bool(&r, &f, &b));
        assert_true(thrift_next(&r, &f) && f.id == 3 && thrift_double(&r, &f, &real));
        assert_true(thrift_next(&r, &f) && f.id == 4 && !thrift_int(&r, &f, &n));
        assert_true(thrift_next(&r, &f) && f.id == 5 && thrift_bytes(&r, &f, &s));
        assert_false(thrift_next(&r, &f));
        assert_int_equal(r.err, 0);
        assert_ptr_equal(r.at, r.end);
        assert_int_equal(n, -2);
        assert_true(b && real == 1.5);
        assert_str_eq(s, STR("hi"));
    }
}

/* ---- Jaeger ---- */

static void a_call_of_something_else_is_refused(void **state)
{
    (void)state;
    struct arena arena = ARENA_INIT;
    assert_refused(jaeger_binary_decode, STR("\x80\1\0\4\0\0\0\4ping\0\0\0\0\0"), ERR_INVALID,
                   &arena);
    assert_refused(jaeger_binary_decode, STR("\x80\2\0\4\0\0\0\4ping\0\0\0\0\0"), ERR_INVALID,
                   &arena);
    assert_refused(jaeger_compact_decode, STR("\x82\x81\1\4ping\0"), ERR_INVALID, &arena);
    assert_refused(jaeger_compact_decode, STR("\x80\1\0\4"), ERR_INVALID, &arena);
    arena_done(&arena);
}

static void text_that_is_not_utf8_costs_its_span_alone(void **state)
{
    (void)state;
    struct arena arena = ARENA_INIT;
#define SPAN(id, name) "\x16\2\x16\2\x16" id "\x16\0\x18\2" name "\x35\2\x16\2\x16\2\0"
    struct span_batch b = decoded(jaeger_compact_decode,
                                  STR("\x82\x81\1\x09"
                                      "emitBatch\x1c\x1c\x18\3svc\0\x19\x2c" SPAN("\2", "\xff\xfe")
                                          SPAN("\4", "ok") "\0\0"),
                                  &arena);
    assert_int_equal(b.n_rejected, 1);
    assert_string_equal(b.rejected_reason, "a text is not UTF-8");
    assert_int_equal(b.n, 1);
    assert_str_eq(b.spans[0].name, STR("ok"));
    assert_str_eq(b.spans[0].resource->service_name, STR("svc"));
    arena_done(&arena);
}

static void a_process_is_that_of_its_batch_wherever_it_stands(void **state)
{
    (void)state;
    struct arena arena = ARENA_INIT;
    struct span_batch b = decoded(
        jaeger_compact_decode,
        STR("\x82\x81\1\x09"
            "emitBatch\x1c\x1c\x18\3svc\0\x19\x1c" SPAN(
                "\2", "ok") "\0"
                            "\x0c\2\x1c\x18\2\xff\xfe\0\x19\x1c" SPAN(
                                "\4", "no") "\0"
                                            "\x0c\2\x29\x1c" SPAN(
                                                "\6", "no") "\x0c\2\x18\1\xff\0\0"
                                                            "\x0c\2\x29\x1c" SPAN(
                                                                "\6", "ok") "\x0c\2\x18\2hi\0\0\0"),
        &arena);
    assert_int_equal(b.n_rejected, 2);
    assert_string_equal(b.rejected_reason, "a text is not UTF-8");
    assert_int_equal(b.n, 2);
    assert_str_eq(b.spans[0].name, STR("ok"));
    assert_str_eq(b.spans[0].resource->service_name, STR("svc"));
    assert_str_eq(b.spans[1].name, STR("ok"));
    assert_str_eq(b.spans[1].resource->service_name, STR("hi"));
    arena_done(&arena);
}

/* ---- X-Ray ---- */

#define HEAD "{\"format\": \"json\", \"version\": 1}\n"
#define IDS "\"id\":\"70de5b6f19ff9a0a\",\"trace_id\":\"1-581cf771-a006649127e371903a2de979\""

static void subsegments_may_come_before_what_they_need(void **state)
{
    (void)state;
    struct arena arena = ARENA_INIT;
    struct span_batch b = decoded(
        xray_decode,
        STR(HEAD "{\"subsegments\":[{\"subsegments\":[{\"name\":\"in\",\"id\":\"0000000000000003\","
                 "\"start_time\":2}],\"name\":\"out\",\"id\":\"0000000000000002\","
                 "\"start_time\":1.000000001,\"end_time\":1.5E0}],"
                 "\"name\":\"svc\",\"start_time\":1478293361.271000001,\"in_progress\":true," IDS
                 "}"),
        &arena);
    assert_int_equal(b.n, 3);
    assert_str_eq(b.spans[0].name, STR("svc"));
    assert_int_equal(b.spans[0].start_ns, 1478293361271000001);
    assert_int_equal(b.spans[0].end_ns, b.spans[0].start_ns);
    assert_true(attrs_find(&b.spans[0].attrs, STR("aws.xray.in_progress")) != NULL);
    assert_str_eq(b.spans[1].name, STR("out"));
    assert_int_equal(b.spans[1].start_ns, 1000000001);
    assert_int_equal(b.spans[1].end_ns, 1500000000);
    assert_id(b.spans[1].parent_id, "70de5b6f19ff9a0a");
    assert_id(b.spans[2].parent_id, "0000000000000002");
    for (int i = 0; i < 3; i++) {
        assert_str_eq(b.spans[i].resource->service_name, STR("svc"));
        assert_int_equal(b.spans[i].trace_id.bytes[0], 0x58);
    }
    arena_done(&arena);
}

static void a_subsegment_that_comes_alone_has_its_parent(void **state)
{
    (void)state;
    struct arena arena = ARENA_INIT;
    struct span_batch b = decoded(
        xray_decode,
        STR(HEAD
            "{\"name\":\"db\",\"type\":\"subsegment\",\"namespace\":\"remote\",\"start_time\":1,"
            "\"parent_id\":\"00000000000000ff\",\"precursor_ids\":[\"00000000000000fe\"],"
            "\"sql\":{\"sanitized_query\":\"select ?\"},\"odd\":{\"a\":[1]}," IDS "}"),
        &arena);
    const struct span *s = &b.spans[0];
    assert_int_equal(s->kind, SPAN_KIND_CLIENT);
    assert_id(s->parent_id, "00000000000000ff");
    assert_int_equal(s->n_links, 1);
    assert_memory_equal(s->links[0].trace_id.bytes, s->trace_id.bytes, TRACE_ID_SIZE);
    assert_str_eq(text_of(&s->attrs, STR("db.query.text")), STR("select ?"));
    assert_str_eq(text_of(&s->attrs, STR("aws.xray.odd")), STR("{\"a\":[1]}"));
    assert_str_eq(s->resource->service_name, STR("unknown_service"));
    arena_done(&arena);
}

static void segments_that_are_none_are_refused(void **state)
{
    (void)state;
    struct arena arena = ARENA_INIT;
    assert_refused(xray_decode, STR("{\"name\":\"x\"}"), ERR_INVALID, &arena);
    assert_refused(xray_decode, STR("{\"format\":\"json\",\"version\":2}\n{}"), ERR_INVALID,
                   &arena);
    assert_refused(xray_decode, STR(HEAD "[]"), ERR_INVALID, &arena);
    assert_refused(xray_decode, STR(HEAD "{\"name\":"), ERR_TRUNCATED, &arena);
    struct buf deep = BUF_INIT;
    buf_cstr(&deep, HEAD "{");
    for (int i = 0; i < 40; i++)
        buf_cstr(&deep, "\"subsegments\":[{");
    for (int i = 0; i < 40; i++)
        buf_cstr(&deep, "}]");
    buf_cstr(&deep, "}");
    assert_refused(xray_decode, buf_as_str(&deep), ERR_TOO_LARGE, &arena);
    buf_done(&deep);
    struct span_batch b = decoded(
        xray_decode,
        STR(HEAD "{\"name\":\"x\",\"start_time\":1,\"id\":\"1\",\"trace_id\":\"1-2-3\"}"), &arena);
    assert_int_equal(b.n, 0);
    assert_int_equal(b.n_rejected, 1);
    arena_done(&arena);
}

int main(void)
{
#define T(test) cmocka_unit_test(test)
    const struct CMUnitTest tests[] = {
        T(a_zipkin_span_without_a_kind_is_internal),
        T(zipkin_tags_of_opentelemetry_are_what_they_stand_for),
        T(zipkin_spans_that_cannot_be_kept_leave_the_others),
        T(the_server_half_of_a_shared_span_has_the_same_id_each_time),
        T(zipkin_protobuf_is_read),
        T(a_record_of_both_halves_is_two_spans),
        T(a_server_half_without_a_time_of_its_own_is_shared),
        T(a_thrift_list_cannot_be_longer_than_its_bytes),
        T(thrift_that_nests_too_deeply_is_refused),
        T(both_thrift_protocols_give_the_same_values),
        T(a_call_of_something_else_is_refused),
        T(text_that_is_not_utf8_costs_its_span_alone),
        T(a_process_is_that_of_its_batch_wherever_it_stands),
        T(subsegments_may_come_before_what_they_need),
        T(a_subsegment_that_comes_alone_has_its_parent),
        T(segments_that_are_none_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
