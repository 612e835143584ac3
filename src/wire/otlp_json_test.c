#include "wire/otlp_json.h"

#include "wire/golden.h"
#include "wire/otlp.h"

#include <math.h>
#include <stdlib.h>

struct fixture {
    struct arena arena;
    struct span_batch batch;
    struct error_detail detail;
};

static int setup(void **state)
{
    *state = calloc(1, sizeof(struct fixture));
    return *state ? 0 : -1;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    arena_done(&f->arena);
    free(f);
    return 0;
}

static int decode(struct fixture *f, struct str body)
{
    f->detail = (struct error_detail){0};
    int err = otlp_json_decode(body, &f->arena, &f->batch, &f->detail);
    if (err)
        assert_int_equal(f->detail.code, err);
    return err;
}

/* As protobuf, the form whose encoding is tested against others. */
static struct str as_protobuf(struct fixture *f, const struct span_batch *batch)
{
    struct buf out = BUF_INIT;
    otlp_encode(batch, &out);
    assert_true(buf_ok(&out));
    struct str bytes = arena_str(&f->arena, buf_as_str(&out));
    buf_done(&out);
    return bytes;
}

static struct str as_json(struct fixture *f, const struct span_batch *batch)
{
    struct buf out = BUF_INIT;
    struct json_writer w = json_writer(&out);
    otlp_json_encode(batch, &w);
    assert_true(buf_ok(&out));
    struct str text = arena_str(&f->arena, buf_as_str(&out));
    buf_done(&out);
    return text;
}

#define IDS "\"traceId\":\"5b8efff798038103d269b633813fc60c\",\"spanId\":\"eee19b7ec3c1b174\""

/* A body of one span with these members besides its ids. */
static struct str span_body(struct fixture *f, const char *members)
{
    return str_from(arena_printf(
        &f->arena, "{\"resourceSpans\":[{\"scopeSpans\":[{\"spans\":[{" IDS "%s%s}]}]}]}",
        *members ? "," : "", members));
}

static const struct span *decode_span(struct fixture *f, const char *members)
{
    int err = decode(f, span_body(f, members));
    if (err || f->batch.n != 1)
        fail_msg("%s: %s, %zu spans, %s", members, err_name(err), f->batch.n, f->detail.message);
    return f->batch.spans;
}

static const struct value *decode_value(struct fixture *f, const char *value)
{
    const struct span *s = decode_span(
        f, arena_printf(&f->arena, "\"attributes\":[{\"key\":\"k\",\"value\":%s}]", value));
    assert_int_equal(s->attrs.n, 1);
    return &s->attrs.items[0].value;
}

/* ---- what others encoded ---- */

static void the_node_sdk_says_the_same_in_both_encodings(void **state)
{
    struct fixture *f = *state;
    struct span_batch protobuf;
    assert_int_equal(
        otlp_decode(golden_read(&f->arena, "node_sdk.bin"), &f->arena, &protobuf, NULL), 0);
    assert_int_equal(decode(f, golden_read(&f->arena, "node_sdk.json")), 0);
    assert_int_equal(f->batch.n, 3);
    assert_str_eq(as_protobuf(f, &f->batch), as_protobuf(f, &protobuf));
}

static void everything_goes_through_json_and_back(void **state)
{
    struct fixture *f = *state;
    struct str golden = golden_read(&f->arena, "everything.bin");
    struct span_batch batch;
    assert_int_equal(otlp_decode(golden, &f->arena, &batch, NULL), 0);
    struct str json = as_json(f, &batch);
    assert_int_equal(decode(f, json), 0);
    struct str bytes = as_protobuf(f, &f->batch);
    assert_int_equal(bytes.len, golden.len);
    assert_memory_equal(bytes.ptr, golden.ptr, golden.len);
    assert_str_eq(as_json(f, &f->batch), json);
}

static void what_is_written_has_the_form_of_the_specification(void **state)
{
    struct fixture *f = *state;
    struct str body = STR(
        "{\"resourceSpans\":[{\"resource\":{\"attributes\":[{\"key\":\"service.name\",\"value\":{"
        "\"stringValue\":\"s\"}}],\"droppedAttributesCount\":1},\"scopeSpans\":[{\"scope\":{"
        "\"name\":\"n\",\"version\":\"v\"},\"spans\":[{\"traceId\":"
        "\"5b8efff798038103d269b633813fc60c\",\"spanId\":\"eee19b7ec3c1b174\",\"traceState\":\"a="
        "b\",\"parentSpanId\":\"eee19b7ec3c1b173\",\"flags\":257,\"name\":\"x\",\"kind\":2,"
        "\"startTimeUnixNano\":\"1544712660000000000\",\"endTimeUnixNano\":\"1544712661000000000\","
        "\"attributes\":[{\"key\":\"i\",\"value\":{\"intValue\":\"-5\"}},{\"key\":\"b\",\"value\":{"
        "\"bytesValue\":\"AP+A\"}},{\"key\":\"d\",\"value\":{\"doubleValue\":\"NaN\"}},{\"key\":"
        "\"m\",\"value\":{\"kvlistValue\":{\"values\":[{\"key\":\"a\",\"value\":{\"arrayValue\":{"
        "\"values\":[{\"boolValue\":true},{}]}}}]}}}],\"events\":[{\"timeUnixNano\":\"7\",\"name\":"
        "\"e\"}],\"droppedEventsCount\":2,\"links\":[{\"traceId\":"
        "\"5b8efff798038103d269b633813fc60c\",\"spanId\":\"eee19b7ec3c1b174\",\"flags\":769}],"
        "\"status\":{\"message\":\"no\",\"code\":2}}],\"schemaUrl\":\"u\"}],\"schemaUrl\":\"w\"}]"
        "}");
    assert_int_equal(decode(f, body), 0);
    assert_str_eq(as_json(f, &f->batch), body);
}

/* ---- the freedoms of proto3's JSON ---- */

static void numbers_may_be_strings_and_the_other_way_round(void **state)
{
    struct fixture *f = *state;
    const struct span *s = decode_span(f, "\"startTimeUnixNano\":1544712660000000001,"
                                          "\"endTimeUnixNano\":\"1544712660000000002\","
                                          "\"flags\":\"257\",\"droppedEventsCount\":\"3\"");
    assert_int_equal(s->start_ns, UINT64_C(1544712660000000001));
    assert_int_equal(s->end_ns, UINT64_C(1544712660000000002));
    assert_int_equal(s->flags, 257);
    assert_int_equal(s->dropped_events, 3);
    assert_int_equal(decode_value(f, "{\"intValue\":\"-9223372036854775808\"}")->integer,
                     INT64_MIN);
    assert_int_equal(decode_value(f, "{\"intValue\":9223372036854775807}")->integer, INT64_MAX);
    assert_true(decode_value(f, "{\"doubleValue\":\"1.5\"}")->real == 1.5);
    assert_true(decode_value(f, "{\"doubleValue\":2}")->real == 2);
    assert_true(decode_value(f, "{\"doubleValue\":\"-Infinity\"}")->real == -INFINITY);
    assert_true(isnan(decode_value(f, "{\"doubleValue\":\"NaN\"}")->real));
}

static void a_whole_number_beyond_64_bits_is_a_double(void **state)
{
    struct fixture *f = *state;
    const struct value *v = decode_value(f, "{\"intValue\":1.7976931348623157e+308}");
    assert_int_equal(v->type, VALUE_DOUBLE);
    assert_true(v->real == 1.7976931348623157e+308);
    v = decode_value(f, "{\"intValue\":-9223372036854775809}");
    assert_int_equal(v->type, VALUE_DOUBLE);
    assert_true(v->real == -0x1p63);
}

static void enums_may_be_names(void **state)
{
    struct fixture *f = *state;
    const struct span *s = decode_span(
        f, "\"kind\":\"SPAN_KIND_PRODUCER\",\"status\":{\"code\":\"STATUS_CODE_ERROR\"}");
    assert_int_equal(s->kind, SPAN_KIND_PRODUCER);
    assert_int_equal(s->status_code, STATUS_ERROR);
    s = decode_span(f, "\"kind\":3,\"status\":{\"code\":1}");
    assert_int_equal(s->kind, SPAN_KIND_CLIENT);
    assert_int_equal(s->status_code, STATUS_OK);
    s = decode_span(f, "\"kind\":\"4\",\"status\":{\"code\":\"2\"}");
    assert_int_equal(s->kind, SPAN_KIND_PRODUCER);
    assert_int_equal(s->status_code, STATUS_ERROR);
    s = decode_span(f, "\"kind\":\"SPAN_KIND_NEW\",\"status\":{\"code\":99}");
    assert_int_equal(s->kind, SPAN_KIND_UNSPECIFIED);
    assert_int_equal(s->status_code, STATUS_UNSET);
    s = decode_span(f, "\"kind\":-1,\"status\":{\"code\":-1}");
    assert_int_equal(s->kind, SPAN_KIND_UNSPECIFIED);
    assert_int_equal(s->status_code, STATUS_UNSET);
}

static void keys_may_be_in_snake_case(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(
        decode(f, STR("{\"resource_spans\":[{\"scope_spans\":[{\"spans\":[{"
                      "\"trace_id\":\"5B8EFFF798038103D269B633813FC60C\","
                      "\"span_id\":\"EEE19B7EC3C1B174\",\"parent_span_id\":\"0000000000000001\","
                      "\"start_time_unix_nano\":\"5\",\"dropped_attributes_count\":2,"
                      "\"attributes\":[{\"key\":\"k\",\"value\":{\"string_value\":\"v\"}}]}],"
                      "\"schema_url\":\"u\"}]}]}")),
        0);
    assert_int_equal(f->batch.n, 1);
    const struct span *s = f->batch.spans;
    assert_int_equal(s->trace_id.bytes[0], 0x5b);
    assert_int_equal(s->parent_id.bytes[7], 1);
    assert_int_equal(s->start_ns, 5);
    assert_int_equal(s->attrs.dropped, 2);
    assert_str_eq(s->attrs.items[0].value.string, STR("v"));
    assert_str_eq(s->scope->schema_url, STR("u"));
    /* Neither spelling. */
    s = decode_span(f, "\"start_Time_unix_nano\":1,\"starttimeunixnano\":2,\"_name\":\"a\","
                       "\"name_\":\"b\",\"Name\":\"c\",\"nam\":\"d\",\"names\":\"e\",\"\":1");
    assert_int_equal(s->start_ns, 0);
    assert_str_eq(s->name, STR(""));
}

static void unknown_keys_are_passed_over_and_null_is_nothing(void **state)
{
    struct fixture *f = *state;
    const struct span *s = decode_span(
        f, "\"x\":{\"y\":[1,{\"traceId\":5}]},\"name\":null,\"kind\":null,\"attributes\":null,"
           "\"events\":null,\"links\":null,\"status\":null,\"startTimeUnixNano\":null,"
           "\"parentSpanId\":null,\"flags\":null");
    assert_str_eq(s->name, STR(""));
    assert_int_equal(s->attrs.n + s->n_events + s->n_links, 0);
    assert_int_equal(decode_value(f, "null")->type, VALUE_NONE);
    assert_int_equal(decode_value(f, "{}")->type, VALUE_NONE);
    assert_int_equal(decode_value(f, "{\"futureValue\":{\"a\":[]}}")->type, VALUE_NONE);
    const struct value *v = decode_value(f, "{\"arrayValue\":{\"values\":[null,{\"x\":1}]}}");
    assert_int_equal(v->array.n, 2);
    assert_int_equal(v->array.items[0].type, VALUE_NONE);
    v = decode_value(f, "{\"arrayValue\":{}}");
    assert_int_equal(v->type, VALUE_ARRAY);
    assert_int_equal(v->array.n, 0);
    v = decode_value(f, "{\"kvlistValue\":null}");
    assert_int_equal(v->type, VALUE_MAP);
    assert_int_equal(v->map.n, 0);
    static const struct str nothing[] = {STR("{}"),
                                         STR("{\"resourceSpans\":null}"),
                                         STR("{\"resourceSpans\":[]}"),
                                         STR("{\"resourceSpans\":[{}]}"),
                                         STR("{\"resourceSpans\":[{\"scopeSpans\":[{}]}]}"),
                                         STR("{\"partial\":[{\"spans\":[1]}]}")};
    for (size_t i = 0; i < sizeof nothing / sizeof *nothing; i++) {
        assert_int_equal(decode(f, nothing[i]), 0);
        assert_int_equal(f->batch.n + f->batch.n_rejected, 0);
    }
}

static void of_a_key_that_comes_twice_the_last_one_counts(void **state)
{
    struct fixture *f = *state;
    const struct span *s = decode_span(
        f, "\"name\":\"a\",\"name\":\"b\",\"attributes\":[{\"key\":\"x\"},{\"key\":\"y\"}],"
           "\"attributes\":[{\"key\":\"z\",\"key\":\"w\",\"value\":{\"intValue\":1,"
           "\"stringValue\":\"s\"}}],\"status\":{\"code\":2,\"message\":\"m\"},\"status\":{}");
    assert_str_eq(s->name, STR("b"));
    assert_int_equal(s->attrs.n, 1);
    assert_str_eq(s->attrs.items[0].key, STR("w"));
    assert_str_eq(s->attrs.items[0].value.string, STR("s"));
    assert_int_equal(s->status_code, STATUS_UNSET);
    assert_int_equal(s->status_message.len, 0);
    /* Also of those that hold spans, and what was rejected in the first goes with it. */
    static const char one[] = "[{" IDS "}]", two[] = "[{" IDS "},{" IDS "},{}]";
    const char *forms[] = {"{\"resourceSpans\":[{\"scopeSpans\":[{\"spans\":%s,\"spans\":%s}]}]}",
                           "{\"resourceSpans\":[{\"scopeSpans\":[{\"spans\":%s}],"
                           "\"scopeSpans\":[{\"spans\":%s}]}]}",
                           "{\"resourceSpans\":[{\"scopeSpans\":[{\"spans\":%s}]}],"
                           "\"resourceSpans\":[{\"scopeSpans\":[{\"spans\":%s}]}]}"};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        char body[1024];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(body, sizeof body, forms[i], two, one);
#pragma GCC diagnostic pop
        assert_int_equal(decode(f, str_from(body)), 0);
        assert_int_equal(f->batch.n, 1);
        assert_int_equal(f->batch.n_rejected, 0);
        assert_null(f->batch.rejected_reason);
    }
}

static void a_resource_and_a_scope_may_come_behind_their_spans(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(
        decode(f, STR("{\"resourceSpans\":[{\"scopeSpans\":[{\"spans\":[{" IDS "},{" IDS "}],"
                      "\"scope\":{\"name\":\"lib\"}},{\"spans\":[{" IDS "}]}],"
                      "\"resource\":{\"attributes\":[{\"value\":{\"stringValue\":\"api\"},"
                      "\"key\":\"service.name\"}]}}]}")),
        0);
    assert_int_equal(f->batch.n, 3);
    const struct span *s = f->batch.spans;
    assert_str_eq(s[0].scope->name, STR("lib"));
    assert_ptr_equal(s[0].scope, s[1].scope);
    assert_ptr_not_equal(s[0].scope, s[2].scope);
    assert_ptr_equal(s[0].resource, s[2].resource);
    assert_str_eq(s[2].resource->service_name, STR("api"));
}

static void bytes_are_read_in_both_alphabets(void **state)
{
    struct fixture *f = *state;
    static const char *const forms[] = {"\"+/8=\"", "\"-_8=\"", "\"+/8\"", "\"-_8\"",
                                        "\"\\u002b\\/8=\""};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        const struct value *v =
            decode_value(f, arena_printf(&f->arena, "{\"bytesValue\":%s}", forms[i]));
        assert_int_equal(v->type, VALUE_BYTES);
        assert_str_eq(v->bytes, STR("\xfb\xff"));
    }
    assert_int_equal(decode_value(f, "{\"bytesValue\":\"\"}")->bytes.len, 0);
}

/* ---- what cannot be kept, and what cannot be read ---- */

static void spans_that_cannot_be_kept_are_left_out_and_counted(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *span, *reason;
    } cases[] = {
        {"{}", "a trace id of zeros"},
        {"{\"traceId\":\"5b8efff798038103d269b633813fc60c\"}", "a span id of zeros"},
        {"{\"spanId\":\"eee19b7ec3c1b174\"}", "a trace id of zeros"},
        {"{" IDS ",\"traceId\":\"00000000000000000000000000000000\"}", "a trace id of zeros"},
        {"{" IDS ",\"spanId\":\"0000000000000000\"}", "a span id of zeros"},
        {"{" IDS ",\"traceId\":\"5b8e\"}", "a trace id is not 32 hexadecimal digits"},
        {"{" IDS ",\"traceId\":\"W47/95gDgQPSabYzgT/GDA==\"}",
         "a trace id is not 32 hexadecimal digits"},
        {"{" IDS ",\"spanId\":\"eee19b7ec3c1b17g\"}", "a span id is not 16 hexadecimal digits"},
        {"{" IDS ",\"parentSpanId\":\"1\"}", "a span id is not 16 hexadecimal digits"},
        {"{" IDS ",\"links\":[{\"traceId\":\"1\"}]}", "a trace id is not 32 hexadecimal digits"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *body = arena_printf(&f->arena,
                                  "{\"resourceSpans\":[{\"scopeSpans\":[{\"spans\":"
                                  "[{" IDS "},%s,{" IDS "}]}]}]}",
                                  cases[i].span);
        assert_int_equal(decode(f, str_from(body)), 0);
        assert_int_equal(f->batch.n, 2);
        assert_int_equal(f->batch.n_rejected, 1);
        assert_string_equal(f->batch.rejected_reason, cases[i].reason);
    }
}

static void values_of_the_wrong_kind_are_refused_with_their_place(void **state)
{
    struct fixture *f = *state;
    static const char *const members[] = {
        "\"name\":5",
        "\"name\":[]",
        "\"traceId\":5",
        "\"startTimeUnixNano\":\"soon\"",
        "\"startTimeUnixNano\":-1",
        "\"startTimeUnixNano\":1.5",
        "\"flags\":4294967296",
        "\"kind\":[]",
        "\"kind\":1.5",
        "\"attributes\":{}",
        "\"attributes\":[1]",
        "\"attributes\":[null]",
        "\"attributes\":[{\"key\":1}]",
        "\"attributes\":[{\"value\":\"x\"}]",
        "\"attributes\":[{\"value\":{\"boolValue\":1}}]",
        "\"attributes\":[{\"value\":{\"intValue\":\"9223372036854775808\"}}]",
        "\"attributes\":[{\"value\":{\"intValue\":\"\"}}]",
        "\"attributes\":[{\"value\":{\"doubleValue\":\"\"}}]",
        "\"attributes\":[{\"value\":{\"bytesValue\":\"*\"}}]",
        "\"attributes\":[{\"value\":{\"arrayValue\":[]}}]",
        "\"attributes\":[{\"value\":{\"arrayValue\":{\"values\":[5]}}}]",
        "\"events\":[{\"timeUnixNano\":{}}]",
        "\"links\":7",
        "\"status\":\"OK\"",
    };
    for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
        int err = decode(f, span_body(f, members[i]));
        if (err != ERR_INVALID || f->detail.position < 100 || !*f->detail.message)
            fail_msg("%s: %s at %zu", members[i], err_name(err), f->detail.position);
    }
    static const struct str bodies[] = {STR("[]"),
                                        STR("5"),
                                        STR("null"),
                                        STR("\"x\""),
                                        STR("{}{}"),
                                        STR("{\"a\"}"),
                                        STR("{\"resourceSpans\":{}}"),
                                        STR("{\"resourceSpans\":[[]]}"),
                                        STR("\x0a\x00")};
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++)
        assert_int_equal(decode(f, bodies[i]), ERR_INVALID);
    assert_int_equal(decode(f, STR("")), ERR_TRUNCATED);
    assert_int_equal(otlp_json_decode(STR_NONE, &f->arena, &f->batch, NULL), ERR_TRUNCATED);
}

static void a_body_cut_off_anywhere_is_refused(void **state)
{
    struct fixture *f = *state;
    struct str whole = golden_read(&f->arena, "node_sdk.json");
    for (size_t n = 0; n < whole.len; n++) {
        struct arena arena = ARENA_INIT;
        struct span_batch batch;
        struct error_detail detail;
        char *exact = malloc(n ? n : 1);
        memcpy(exact, whole.ptr, n);
        assert_int_equal(otlp_json_decode((struct str){exact, n}, &arena, &batch, &detail),
                         ERR_TRUNCATED);
        free(exact);
        arena_done(&arena);
    }
}

static void values_nest_up_to_the_limit_and_no_deeper(void **state)
{
    struct fixture *f = *state;
    for (int maps = 0; maps < 2; maps++) {
        for (unsigned depth = VALUE_DEPTH_MAX; depth <= VALUE_DEPTH_MAX + 1; depth++) {
            struct buf b = BUF_INIT;
            /* In the deepest place there is: an event's attribute. */
            buf_cstr(&b, "\"events\":[{\"attributes\":[{\"value\":");
            for (unsigned i = 0; i < depth; i++)
                buf_cstr(&b, maps ? "{\"kvlistValue\":{\"values\":[{\"value\":"
                                  : "{\"arrayValue\":{\"values\":[");
            buf_cstr(&b, "{\"intValue\":42}");
            for (unsigned i = 0; i < depth; i++)
                buf_cstr(&b, maps ? "}]}}" : "]}}");
            buf_cstr(&b, "}]}]");
            buf_byte(&b, '\0');
            int err = decode(f, span_body(f, b.ptr));
            buf_done(&b);
            if (depth > VALUE_DEPTH_MAX) {
                assert_int_equal(err, ERR_TOO_LARGE);
                continue;
            }
            assert_int_equal(err, 0);
            struct str bytes = as_protobuf(f, &f->batch);
            assert_int_equal(decode(f, as_json(f, &f->batch)), 0);
            assert_str_eq(as_protobuf(f, &f->batch), bytes);
            const struct value *v = &f->batch.spans[0].events[0].attrs.items[0].value;
            for (unsigned i = 0; i < depth; i++)
                v = maps ? &v->map.items[0].value : &v->array.items[0];
            assert_int_equal(v->integer, 42);
        }
    }
}

static void every_refused_allocation_is_an_error_and_leaks_nothing(void **state)
{
    struct fixture *f = *state;
    struct str body = golden_read(&f->arena, "node_sdk.json");
    bool fitted = false;
    for (size_t limit = 1; limit < 64 << 10 && !fitted; limit += 61) {
        struct arena arena = {.bytes_max = limit};
        struct span_batch batch;
        struct error_detail detail;
        int err = otlp_json_decode(body, &arena, &batch, &detail);
        fitted = err == 0;
        if (!fitted)
            assert_int_equal(err, ERR_NOMEM);
        arena_done(&arena);
    }
    assert_true(fitted);
}

/* ---- answers and parts ---- */

static void answers_are_what_senders_read(void **state)
{
    struct buf out = BUF_INIT;
    struct json_writer w = json_writer(&out);
    json_open(&w, '[');
    otlp_json_encode_response(STR("rejectedSpans"), 0, STR(""), &w);
    otlp_json_encode_response(STR("rejectedSpans"), 3, STR("a \"reason\""), &w);
    otlp_json_encode_response(STR("rejectedSpans"), 0, STR("a warning"), &w);
    otlp_json_encode_status(3, STR("bad"), &w);
    json_close(&w, ']');
    assert_str_eq(buf_as_str(&out),
                  STR("[{},{\"partialSuccess\":{\"rejectedSpans\":\"3\",\"errorMessage\":\"a "
                      "\\\"reason\\\"\"}},{\"partialSuccess\":{\"errorMessage\":\"a warning\"}},"
                      "{\"code\":3,\"message\":\"bad\"}]"));
    buf_done(&out);
}

static void a_sender_reads_its_answer_in_either_spelling(void **state)
{
    static const struct {
        const char *body;
        int err;
        uint64_t rejected;
        const char *message;
    } cases[] = {
        {"{}", 0, 0, ""},
        {"null", 0, 0, ""},
        {"{\"partialSuccess\":{\"rejectedSpans\":\"3\",\"errorMessage\":\"a \\\"b\\\"\"}}", 0, 3,
         "a \"b\""},
        {"{\"partial_success\":{\"rejected_spans\":3,\"other\":[{}]},\"more\":{}}", 0, 3, ""},
        {"{\"partialSuccess\":{\"rejectedDataPoints\":\"7\"}}", 0, 7, ""},
        {"{\"partialSuccess\":null}", 0, 0, ""},
        {"", ERR_TRUNCATED, 9, "untouched"},
        {"[]", ERR_INVALID, 9, "untouched"},
        {"{} {}", ERR_INVALID, 9, "untouched"},
        {"{\"partialSuccess\":{\"rejectedSpans\":-1}}", ERR_INVALID, 9, "untouched"},
        {"<html>", ERR_INVALID, 9, "untouched"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct arena arena = ARENA_INIT;
        uint64_t rejected = 9;
        struct str message = STR("untouched");
        int err = otlp_json_decode_response(str_from(cases[i].body), &arena, &rejected, &message);
        if (err != cases[i].err || rejected != cases[i].rejected)
            fail_msg("%s: %d, %llu", cases[i].body, err, (unsigned long long)rejected);
        assert_str_eq(message, str_from(cases[i].message));
        arena_done(&arena);
    }
}

static void values_and_attributes_are_written_alone(void **state)
{
    struct buf out = BUF_INIT;
    struct json_writer w = json_writer(&out);
    struct attr attr = {STR("k"), {.type = VALUE_STRING, .string = STR("v")}};
    json_open(&w, '[');
    otlp_json_encode_value(&attr.value, &w);
    otlp_json_encode_attrs(&(struct attrs){&attr, 1, 0}, &w);
    otlp_json_encode_attrs(&(struct attrs){0}, &w);
    json_close(&w, ']');
    assert_str_eq(
        buf_as_str(&out),
        STR("[{\"stringValue\":\"v\"},[{\"key\":\"k\",\"value\":{\"stringValue\":\"v\"}}],"
            "[]]"));
    buf_done(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        TEST(the_node_sdk_says_the_same_in_both_encodings),
        TEST(everything_goes_through_json_and_back),
        TEST(what_is_written_has_the_form_of_the_specification),
        TEST(numbers_may_be_strings_and_the_other_way_round),
        TEST(a_whole_number_beyond_64_bits_is_a_double),
        TEST(enums_may_be_names),
        TEST(keys_may_be_in_snake_case),
        TEST(unknown_keys_are_passed_over_and_null_is_nothing),
        TEST(of_a_key_that_comes_twice_the_last_one_counts),
        TEST(a_resource_and_a_scope_may_come_behind_their_spans),
        TEST(bytes_are_read_in_both_alphabets),
        TEST(spans_that_cannot_be_kept_are_left_out_and_counted),
        TEST(values_of_the_wrong_kind_are_refused_with_their_place),
        TEST(a_body_cut_off_anywhere_is_refused),
        TEST(values_nest_up_to_the_limit_and_no_deeper),
        TEST(every_refused_allocation_is_an_error_and_leaks_nothing),
        TEST(answers_are_what_senders_read),
        TEST(a_sender_reads_its_answer_in_either_spelling),
        TEST(values_and_attributes_are_written_alone),
    };
    return cmocka_run_group_tests_name("otlp_json", tests, NULL, NULL);
}
