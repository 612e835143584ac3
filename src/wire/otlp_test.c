#include "wire/otlp.h"

#include "wire/golden.h"
#include "wire/protobuf.h"

#include <math.h>
#include <stdlib.h>

struct fixture {
    struct arena arena;
    struct buf body;
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
    buf_done(&f->body);
    free(f);
    return 0;
}

/* Decodes from memory of the exact size, so that the address sanitizer sees one byte too far. */
static int decode(struct fixture *f, struct str body)
{
    char *exact = malloc(body.len ? body.len : 1);
    assert_non_null(exact);
    if (body.len)
        memcpy(exact, body.ptr, body.len);
    f->detail = (struct error_detail){0};
    int err = otlp_decode((struct str){exact, body.len}, &f->arena, &f->batch, &f->detail);
    if (err)
        assert_int_equal(f->detail.code, err);
    /* What was decoded borrows: keep the bytes as long as the fixture. */
    char *kept = arena_alloc(&f->arena, body.len);
    free(exact);
    if (!err) {
        if (body.len)
            memcpy(kept, body.ptr, body.len);
        err = otlp_decode((struct str){kept, body.len}, &f->arena, &f->batch, &f->detail);
    }
    return err;
}

static struct str encoded(struct fixture *f)
{
    struct buf out = BUF_INIT;
    otlp_encode(&f->batch, &out);
    assert_true(buf_ok(&out));
    struct str bytes = arena_str(&f->arena, buf_as_str(&out));
    buf_done(&out);
    return bytes;
}

static const struct value *value_of(const struct attrs *attrs, const char *key)
{
    const struct attr *attr = attrs_find(attrs, str_from(key));
    if (!attr)
        fail_msg("there is no attribute %s", key);
    return &attr->value;
}

static void assert_id(const uint8_t *id, size_t n, const char *hex)
{
    char text[33] = "";
    hex_put(text, id, n);
    assert_string_equal(text, hex);
}

/* ---- a body put together by hand: span fields are written between begin and end ---- */

struct open_messages {
    struct pb_message resource_spans, scope_spans, span;
};

static struct open_messages begin(struct buf *b)
{
    struct open_messages m;
    m.resource_spans = pb_open(b, PB_TAG(1, PB_BYTES), 1);
    m.scope_spans = pb_open(b, PB_TAG(2, PB_BYTES), 1);
    m.span = pb_open(b, PB_TAG(2, PB_BYTES), 1);
    return m;
}

static void end(struct buf *b, struct open_messages m)
{
    pb_close(b, m.span);
    pb_close(b, m.scope_spans);
    pb_close(b, m.resource_spans);
}

static void put_ids(struct buf *b)
{
    pb_put_bytes(b, PB_TAG(1, PB_BYTES), "0123456789abcdef", 16);
    pb_put_bytes(b, PB_TAG(2, PB_BYTES), "01234567", 8);
}

/* ---- what others encoded ---- */

static void every_field_is_read(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(decode(f, golden_read(&f->arena, "everything.bin")), 0);
    assert_int_equal(f->batch.n, 4);
    assert_int_equal(f->batch.n_rejected, 0);
    assert_null(f->batch.rejected_reason);

    const struct span *s = &f->batch.spans[0];
    assert_id(s->trace_id.bytes, 16, "0af7651916cd43dd8448eb211c80319c");
    assert_id(s->span_id.bytes, 8, "b7ad6b7169203331");
    assert_id(s->parent_id.bytes, 8, "00f067aa0ba902b7");
    assert_str_eq(s->trace_state, STR("congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"));
    assert_str_eq(s->name, STR("GET /cart/{id}"));
    assert_int_equal(s->kind, SPAN_KIND_SERVER);
    assert_int_equal(s->start_ns, UINT64_C(1700000000123456789));
    assert_int_equal(s->end_ns, UINT64_C(1700000000987654321));
    assert_int_equal(s->flags, 257);
    assert_int_equal(s->status_code, STATUS_ERROR);
    assert_str_eq(s->status_message, STR("deadline exceeded"));
    assert_int_equal(s->attrs.dropped, UINT32_MAX);
    assert_int_equal(s->dropped_events, 300);
    assert_int_equal(s->dropped_links, 1);

    assert_str_eq(s->resource->service_name, STR("checkout"));
    assert_int_equal(s->resource->attrs.n, 2);
    assert_int_equal(s->resource->attrs.dropped, 3);
    assert_str_eq(s->resource->schema_url, STR("https://opentelemetry.io/schemas/1.29.0"));
    assert_str_eq(s->scope->name, STR("io.example.http"));
    assert_str_eq(s->scope->version, STR("1.2.3"));
    assert_str_eq(s->scope->schema_url, STR("https://opentelemetry.io/schemas/1.30.0"));
    assert_int_equal(s->scope->attrs.dropped, 1);
    assert_true(value_of(&s->scope->attrs, "scope.key")->boolean);

    assert_int_equal(s->n_events, 2);
    assert_str_eq(s->events[0].name, STR("exception"));
    assert_int_equal(s->events[0].time_ns, UINT64_C(1700000000200000000));
    assert_int_equal(s->events[0].attrs.n, 2);
    assert_int_equal(s->events[0].attrs.dropped, 7);
    assert_str_eq(value_of(&s->events[0].attrs, "exception.type")->string, STR("TimeoutError"));
    assert_int_equal(s->events[1].time_ns, 0);

    assert_int_equal(s->n_links, 2);
    assert_id(s->links[0].trace_id.bytes, 16, "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_id(s->links[0].span_id.bytes, 8, "00f067aa0ba902b7");
    assert_str_eq(s->links[0].trace_state, STR("a=b"));
    assert_int_equal(s->links[0].flags, 769);
    assert_int_equal(s->links[0].attrs.dropped, 2);
    assert_int_equal(value_of(&s->links[0].attrs, "link.key")->integer, 128);
    assert_true(trace_id_is_zero(&s->links[1].trace_id));

    /* The second shares resource and scope, the third the resource, the fourth neither. */
    const struct span *more = f->batch.spans;
    assert_ptr_equal(more[1].scope, s->scope);
    assert_true(span_id_is_zero(&more[1].parent_id));
    assert_int_equal(more[1].status_code, STATUS_OK);
    assert_ptr_equal(more[2].resource, s->resource);
    assert_ptr_not_equal(more[2].scope, s->scope);
    assert_str_eq(more[2].scope->name, STR("second"));
    assert_int_equal(more[2].attrs.n, 0);
    assert_str_eq(more[3].resource->service_name, STR("unknown_service"));
    assert_true(more[3].end_ns == UINT64_MAX);
    assert_int_equal(value_of(&more[3].attrs, "long")->string.len, 17000);
}

static void every_kind_of_value_is_read(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(decode(f, golden_read(&f->arena, "everything.bin")), 0);
    const struct attrs *a = &f->batch.spans[0].attrs;
    assert_int_equal(a->n, 19);
    assert_str_eq(value_of(a, "string")->string, STR("\xc3\xa4\xe2\x82\xac\xf0\x9f\x90\xbe"));
    assert_int_equal(value_of(a, "empty")->type, VALUE_STRING);
    assert_int_equal(value_of(a, "empty")->string.len, 0);
    assert_true(value_of(a, "true")->boolean);
    assert_int_equal(value_of(a, "false")->type, VALUE_BOOL);
    assert_false(value_of(a, "false")->boolean);
    assert_int_equal(value_of(a, "zero")->type, VALUE_INT);
    assert_true(value_of(a, "least")->integer == INT64_MIN);
    assert_true(value_of(a, "most")->integer == INT64_MAX);
    assert_true(value_of(a, "double")->real == -0.1);
    assert_true(isnan(value_of(a, "nan")->real));
    assert_true(value_of(a, "infinity")->real == -INFINITY);
    assert_int_equal(value_of(a, "bytes")->bytes.len, 3);
    assert_memory_equal(value_of(a, "bytes")->bytes.ptr, "\0\xff\x80", 3);
    assert_int_equal(value_of(a, "no bytes")->type, VALUE_BYTES);
    assert_int_equal(value_of(a, "nothing")->type, VALUE_NONE);
    assert_int_equal(value_of(a, "no items")->type, VALUE_ARRAY);
    assert_int_equal(value_of(a, "no items")->array.n, 0);
    const struct value *items = value_of(a, "items");
    assert_int_equal(items->array.n, 4);
    assert_str_eq(items->array.items[0].string, STR("a"));
    assert_int_equal(items->array.items[1].integer, 1);
    assert_int_equal(items->array.items[2].type, VALUE_NONE);
    assert_true(items->array.items[3].array.items[0].real == 1.5);
    const struct value *map = value_of(a, "map");
    assert_int_equal(map->map.n, 2);
    assert_str_eq(map->map.items[1].key, STR("inner"));
    assert_true(map->map.items[1].value.map.items[0].value.boolean);
    /* A key that comes twice stays twice, in its place. */
    assert_str_eq(a->items[17].key, STR("twice"));
    assert_int_equal(a->items[17].value.integer, 2);
    assert_str_eq(a->items[18].key, STR(""));
}

static void what_is_written_is_what_the_reference_writes(void **state)
{
    struct fixture *f = *state;
    struct str golden = golden_read(&f->arena, "everything.bin");
    assert_int_equal(decode(f, golden), 0);
    struct str bytes = encoded(f);
    assert_int_equal(bytes.len, golden.len);
    assert_memory_equal(bytes.ptr, golden.ptr, golden.len);
}

static void what_the_node_sdk_sends_is_read(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(decode(f, golden_read(&f->arena, "node_sdk.bin")), 0);
    assert_int_equal(f->batch.n, 3);
    const struct span *s = f->batch.spans;
    assert_str_eq(s[0].resource->service_name, STR("node-service"));
    assert_str_eq(s[0].scope->name, STR("@opentelemetry/instrumentation-http"));
    assert_str_eq(s[0].name, STR("GET /hello"));
    assert_int_equal(s[0].kind, SPAN_KIND_SERVER);
    assert_str_eq(s[0].trace_state, STR("vendor=value"));
    assert_int_equal(s[0].start_ns, UINT64_C(1700000000000000001));
    assert_int_equal(s[0].end_ns, UINT64_C(1700000000999999999));
    assert_int_equal(s[0].attrs.n, 10);
    assert_int_equal(value_of(&s[0].attrs, "negative")->integer, -3);
    assert_int_equal(value_of(&s[0].attrs, "tags")->array.n, 2);
    const struct span *query = NULL;
    for (size_t i = 0; i < f->batch.n; i++)
        if (str_eq(s[i].name, STR("db.query")))
            query = &s[i];
    assert_non_null(query);
    assert_int_equal(query->status_code, STATUS_ERROR);
    assert_int_equal(query->n_links, 1);
    assert_int_equal(query->links[0].attrs.dropped, 1);
    assert_int_equal(query->dropped_events, 4);
    /* Its encoding is not the canonical one, but ours of it must say the same. */
    struct str once = encoded(f);
    assert_int_equal(decode(f, once), 0);
    assert_str_eq(encoded(f), once);
}

/* ---- the freedoms of protobuf ---- */

static void fields_may_come_in_any_order_and_scalars_twice(void **state)
{
    struct fixture *f = *state;
    struct buf *b = &f->body;
    struct pb_message rs = pb_open(b, PB_TAG(1, PB_BYTES), 1);
    pb_put_str(b, PB_TAG(3, PB_BYTES), STR("first"));
    struct pb_message ss = pb_open(b, PB_TAG(2, PB_BYTES), 1);
    struct pb_message span = pb_open(b, PB_TAG(2, PB_BYTES), 1);
    pb_put_varint(b, PB_TAG(6, PB_VARINT), 5);
    pb_put_str(b, PB_TAG(5, PB_BYTES), STR("old"));
    /* attributes apart from each other, the value before the key */
    static const uint8_t attr_a[] = {0x12, 0x02, 0x18, 0x01, 0x0a, 0x01, 'a'};
    static const uint8_t attr_b[] = {0x0a, 0x01, 'x',  0x0a, 0x01, 'b',  0x12,
                                     0x02, 0x18, 0x07, 0x12, 0x02, 0x18, 0x02};
    pb_put_bytes(b, PB_TAG(9, PB_BYTES), attr_a, sizeof attr_a);
    pb_put_bytes(b, PB_TAG(2, PB_BYTES), "01234567", 8);
    pb_put_bytes(b, PB_TAG(9, PB_BYTES), attr_b, sizeof attr_b);
    pb_put_str(b, PB_TAG(5, PB_BYTES), STR("new"));
    pb_put_bytes(b, PB_TAG(1, PB_BYTES), "0123456789abcdef", 16);
    pb_close(b, span);
    static const uint8_t scope_a[] = {0x0a, 0x01, 's'}, scope_b[] = {0x12, 0x01, 'v'};
    pb_put_bytes(b, PB_TAG(1, PB_BYTES), scope_a, sizeof scope_a);
    pb_put_bytes(b, PB_TAG(1, PB_BYTES), scope_b, sizeof scope_b);
    pb_close(b, ss);
    /* the resource behind its spans, in two parts */
    static const uint8_t resource_a[] = {0x0a, 0x07, 0x0a, 0x01, 'k', 0x12, 0x02, 0x10, 0x01};
    pb_put_bytes(b, PB_TAG(1, PB_BYTES), resource_a, sizeof resource_a);
    static const char resource_b[] = "\x0a\x13\x0a\x0cservice.name\x12\x03\x0a\x01z";
    pb_put_bytes(b, PB_TAG(1, PB_BYTES), resource_b, sizeof resource_b - 1);
    pb_put_str(b, PB_TAG(3, PB_BYTES), STR("last"));
    pb_close(b, rs);

    assert_int_equal(decode(f, buf_as_str(b)), 0);
    assert_int_equal(f->batch.n, 1);
    const struct span *s = f->batch.spans;
    assert_str_eq(s->name, STR("new"));
    assert_int_equal(s->kind, SPAN_KIND_CONSUMER);
    assert_int_equal(s->attrs.n, 2);
    assert_int_equal(value_of(&s->attrs, "a")->integer, 1);
    assert_int_equal(value_of(&s->attrs, "b")->integer, 2);
    assert_str_eq(s->scope->name, STR("s"));
    assert_str_eq(s->scope->version, STR("v"));
    assert_int_equal(s->resource->attrs.n, 2);
    assert_str_eq(s->resource->service_name, STR("z"));
    assert_str_eq(s->resource->schema_url, STR("last"));
}

static void unknown_fields_are_passed_over(void **state)
{
    struct fixture *f = *state;
    struct buf *b = &f->body;
    struct open_messages m = begin(b);
    put_ids(b);
    pb_put_varint(b, PB_TAG(100, PB_VARINT), UINT64_MAX);
    pb_put_fixed64(b, PB_TAG(101, PB_FIXED64), 1);
    pb_put_fixed32(b, PB_TAG(102, PB_FIXED32), 1);
    pb_put_str(b, PB_TAG(536870911, PB_BYTES), STR("x"));
    /* a group with a group and one of each kind inside */
    static const uint8_t group[] = {0xa3, 0x06, 0x08, 0x01, 0x11, 1, 2, 3, 4,    5,    6,    7,   8,
                                    0x1a, 0x01, 'x',  0x25, 1,    2, 3, 4, 0x2b, 0x2c, 0xa4, 0x06};
    buf_put(b, group, sizeof group);
    /* known numbers with types that they do not have */
    pb_put_varint(b, PB_TAG(1, PB_VARINT), 5);
    pb_put_str(b, PB_TAG(7, PB_BYTES), STR("now"));
    pb_put_fixed32(b, PB_TAG(9, PB_FIXED32), 5);
    pb_put_str(b, PB_TAG(5, PB_BYTES), STR("kept"));
    end(b, m);
    assert_int_equal(decode(f, buf_as_str(b)), 0);
    assert_int_equal(f->batch.n, 1);
    assert_str_eq(f->batch.spans[0].name, STR("kept"));
    assert_int_equal(f->batch.spans[0].start_ns, 0);
    assert_int_equal(f->batch.spans[0].attrs.n, 0);
}

static void enums_out_of_range_are_unspecified(void **state)
{
    struct fixture *f = *state;
    struct buf *b = &f->body;
    struct open_messages m = begin(b);
    put_ids(b);
    pb_put_varint(b, PB_TAG(6, PB_VARINT), 6);
    struct pb_message status = pb_open(b, PB_TAG(15, PB_BYTES), 1);
    pb_put_varint(b, PB_TAG(3, PB_VARINT), UINT64_MAX);
    pb_close(b, status);
    end(b, m);
    assert_int_equal(decode(f, buf_as_str(b)), 0);
    assert_int_equal(f->batch.spans[0].kind, SPAN_KIND_UNSPECIFIED);
    assert_int_equal(f->batch.spans[0].status_code, STATUS_UNSET);
}

static void a_body_of_nothing_is_a_batch_of_nothing(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(decode(f, STR("")), 0);
    assert_int_equal(f->batch.n, 0);
    assert_int_equal(otlp_decode(STR_NONE, &f->arena, &f->batch, NULL), 0);
    assert_int_equal(decode(f, STR("\x0a\x00")), 0);
    assert_int_equal(f->batch.n, 0);
    assert_int_equal(encoded(f).len, 0);
}

/* ---- what cannot be kept ---- */

/* A body of spans: a good one, the one in question, a good one. */
static void around(struct fixture *f, struct str odd)
{
    struct buf *b = &f->body;
    buf_clear(b);
    struct pb_message rs = pb_open(b, PB_TAG(1, PB_BYTES), 3);
    struct pb_message ss = pb_open(b, PB_TAG(2, PB_BYTES), 3);
    for (int i = 0; i < 3; i++) {
        struct pb_message span = pb_open(b, PB_TAG(2, PB_BYTES), 2);
        if (i == 1)
            buf_str(b, odd);
        else
            put_ids(b);
        pb_close(b, span);
    }
    pb_close(b, ss);
    pb_close(b, rs);
}

static void assert_only_it_is_left_out(struct fixture *f, struct str odd, const char *reason)
{
    around(f, odd);
    assert_int_equal(decode(f, buf_as_str(&f->body)), 0);
    assert_int_equal(f->batch.n, 2);
    assert_int_equal(f->batch.n_rejected, 1);
    assert_string_equal(f->batch.rejected_reason, reason);
}

#define IDS                                                                                        \
    "\x0a\x10"                                                                                     \
    "0123456789abcdef"                                                                             \
    "\x12\x08"                                                                                     \
    "01234567"

static void spans_that_cannot_be_kept_are_left_out_and_counted(void **state)
{
    struct fixture *f = *state;
    around(f, STR(IDS));
    assert_int_equal(decode(f, buf_as_str(&f->body)), 0);
    assert_int_equal(f->batch.n, 3);

    assert_only_it_is_left_out(f, STR(""), "a span without ids");
    assert_only_it_is_left_out(f,
                               STR("\x0a\x10\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x12\x08"
                                   "01234567"),
                               "a trace id of zeros");
    assert_only_it_is_left_out(f,
                               STR("\x0a\x10"
                                   "0123456789abcdef"
                                   "\x12\x08\0\0\0\0\0\0\0\0"),
                               "a span id of zeros");
    assert_only_it_is_left_out(f,
                               STR("\x0a\x0f"
                                   "123456789abcdef"
                                   "\x12\x08"
                                   "01234567"
                                   "\x2a\x01n"),
                               "an id has a wrong length");
    assert_only_it_is_left_out(f,
                               STR("\x0a\x10"
                                   "0123456789abcdef"
                                   "\x12\x09"
                                   "012345678"),
                               "an id has a wrong length");
    assert_only_it_is_left_out(f,
                               STR(IDS "\x22\x04"
                                       "abcd"),
                               "an id has a wrong length");
    assert_only_it_is_left_out(f,
                               STR("\x0a\x10"
                                   "0123456789abcdef"
                                   "\x2a\x08"
                                   "no other"),
                               "a span id of zeros");
    assert_only_it_is_left_out(f, STR(IDS "\x2a\x02\xc3\x28"), "a text is not UTF-8");
    assert_only_it_is_left_out(f, STR(IDS "\x1a\x01\xff"), "a text is not UTF-8");
    assert_only_it_is_left_out(f, STR(IDS "\x4a\x03\x0a\x01\xff"), "a text is not UTF-8");
    assert_only_it_is_left_out(f, STR(IDS "\x4a\x05\x12\x03\x0a\x01\xff"), "a text is not UTF-8");
    assert_only_it_is_left_out(f, STR(IDS "\x5a\x03\x12\x01\xff"), "a text is not UTF-8");
    assert_only_it_is_left_out(f, STR(IDS "\x6a\x03\x0a\x01x"),
                               "a link's trace id is not 16 bytes long");
    assert_only_it_is_left_out(f, STR(IDS "\x6a\x03\x12\x01x"),
                               "a link's span id is not 8 bytes long");
    assert_only_it_is_left_out(f, STR(IDS "\x7a\x03\x12\x01\xff"), "a text is not UTF-8");
    /* Bytes are not text. */
    around(f, STR(IDS "\x4a\x05\x12\x03\x3a\x01\xff"));
    assert_int_equal(decode(f, buf_as_str(&f->body)), 0);
    assert_int_equal(f->batch.n, 3);
}

static void a_resource_or_scope_that_is_no_text_takes_its_spans_along(void **state)
{
    struct fixture *f = *state;
    struct buf *b = &f->body;
    for (int scope = 0; scope < 2; scope++) {
        buf_clear(b);
        for (int good = 0; good < 2; good++) {
            struct pb_message rs = pb_open(b, PB_TAG(1, PB_BYTES), 1);
            if (!scope && !good)
                pb_put_bytes(b, PB_TAG(1, PB_BYTES), "\x0a\x03\x0a\x01\xff", 5);
            struct pb_message ss = pb_open(b, PB_TAG(2, PB_BYTES), 1);
            for (int i = 0; i < 2; i++) {
                struct pb_message span = pb_open(b, PB_TAG(2, PB_BYTES), 1);
                put_ids(b);
                pb_close(b, span);
            }
            if (scope && !good)
                pb_put_bytes(b, PB_TAG(1, PB_BYTES), "\x0a\x01\xff", 3);
            pb_close(b, ss);
            pb_close(b, rs);
        }
        assert_int_equal(decode(f, buf_as_str(b)), 0);
        assert_int_equal(f->batch.n, 2);
        assert_int_equal(f->batch.n_rejected, 2);
        assert_string_equal(f->batch.rejected_reason, "a text is not UTF-8");
    }
}

/* ---- what is no protobuf ---- */

static void a_body_cut_off_anywhere_is_refused(void **state)
{
    struct fixture *f = *state;
    struct str whole = golden_read(&f->arena, "node_sdk.bin");
    for (size_t n = 1; n < whole.len; n++) {
        struct arena arena = ARENA_INIT;
        struct error_detail detail;
        struct span_batch batch;
        char *exact = malloc(n);
        memcpy(exact, whole.ptr, n);
        int err = otlp_decode((struct str){exact, n}, &arena, &batch, &detail);
        if (err != ERR_TRUNCATED)
            fail_msg("%zu bytes: %s", n, err_name(err));
        assert_in_range(detail.position, 0, n);
        free(exact);
        arena_done(&arena);
    }
}

static void bytes_that_are_no_protobuf_are_refused_whole(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(decode(f, STR("\x00")), ERR_INVALID);     /* field number 0 */
    assert_int_equal(decode(f, STR("\x07\x01")), ERR_INVALID); /* type 7 */
    assert_int_equal(decode(f, STR("\x0e\x01")), ERR_INVALID); /* type 6 */
    assert_int_equal(decode(f, STR("\x0c")), ERR_INVALID);     /* a group's end alone */
    assert_int_equal(decode(f, STR("\x0b\x14")), ERR_INVALID); /* the end of another */
    assert_int_equal(decode(f, STR("\x0b")), ERR_TRUNCATED);   /* a group without end */
    assert_int_equal(decode(f, STR("\x0a\x05\x0a")), ERR_TRUNCATED);
    assert_int_equal(decode(f, STR("{\"resourceSpans\":[]}")), ERR_TRUNCATED);
    assert_int_equal(decode(f, STR("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")),
                     ERR_INVALID);
    assert_int_equal(decode(f, STR("\xff\xff\xff\xff\xff\x01\x01")),
                     ERR_INVALID); /* tag of 36 bits */
    /* deep inside a span that is else good: position says where */
    around(f, STR(IDS "\x4a\x04\x12\x09\x0a\x01"));
    assert_int_equal(decode(f, buf_as_str(&f->body)), ERR_TRUNCATED);
    assert_in_range(f->detail.position, 40, 90);
    struct buf groups = BUF_INIT;
    for (int i = 0; i <= PB_GROUP_DEPTH_MAX; i++)
        buf_byte(&groups, 0x0b);
    assert_int_equal(decode(f, buf_as_str(&groups)), ERR_TOO_LARGE);
    buf_done(&groups);
}

static void a_message_that_ends_inside_a_field_is_refused_at_every_level(void **state)
{
    struct fixture *f = *state;
    static const struct str in_span[] = {
        STR(IDS "\x4a\x01\x0a"),                 /* attribute */
        STR(IDS "\x4a\x03\x12\x01\x0a"),         /* its value */
        STR(IDS "\x4a\x05\x12\x03\x2a\x01\x0a"), /* an array in it */
        STR(IDS "\x4a\x05\x12\x03\x32\x01\x0a"), /* a map in it */
        STR(IDS "\x5a\x01\x09"),                 /* event */
        STR(IDS "\x6a\x02\x35\x00"),             /* link */
        STR(IDS "\x7a\x01\x18"),                 /* status */
        STR(IDS "\x85\x01\x00"),                 /* flags */
    };
    for (size_t i = 0; i < sizeof in_span / sizeof *in_span; i++) {
        around(f, in_span[i]);
        assert_int_equal(decode(f, buf_as_str(&f->body)), ERR_TRUNCATED);
    }
    static const struct str bodies[] = {
        STR("\x0a\x01\x0a"),                 /* ResourceSpans */
        STR("\x0a\x03\x0a\x01\x0a"),         /* Resource */
        STR("\x0a\x03\x12\x01\x0a"),         /* ScopeSpans */
        STR("\x0a\x05\x12\x03\x0a\x01\x0a"), /* InstrumentationScope */
        STR("\x0b\x08"),                     /* a group, and in it a varint, */
        STR("\x0b\x09\x01"),                 /* a fixed64 */
        STR("\x0b\x12\x05x"),                /* and bytes */
    };
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++)
        assert_int_equal(decode(f, bodies[i]), ERR_TRUNCATED);
    uint64_t rejected;
    struct str message;
    assert_int_equal(otlp_decode_response(STR("\x0a\x01\x08"), &rejected, &message), ERR_TRUNCATED);
    assert_int_equal(otlp_decode((struct str){"", (size_t)1 << 33}, &f->arena, &f->batch, NULL),
                     ERR_TOO_LARGE);
}

/* An attribute whose value is so many arrays (or maps) around a number. */
static void put_nested(struct buf *b, unsigned depth, bool maps)
{
    struct pb_message open[4 * (VALUE_DEPTH_MAX + 2)];
    unsigned n = 0;
    open[n++] = pb_open(b, PB_TAG(9, PB_BYTES), 1);
    open[n++] = pb_open(b, PB_TAG(2, PB_BYTES), 1);
    for (unsigned i = 0; i < depth; i++) {
        open[n++] = pb_open(b, PB_TAG(maps ? 6 : 5, PB_BYTES), 1);
        open[n++] = pb_open(b, PB_TAG(1, PB_BYTES), 1);
        if (maps)
            open[n++] = pb_open(b, PB_TAG(2, PB_BYTES), 1);
    }
    pb_put_varint(b, PB_TAG(3, PB_VARINT), 42);
    while (n > 0)
        pb_close(b, open[--n]);
}

static void values_nest_up_to_the_limit_and_no_deeper(void **state)
{
    struct fixture *f = *state;
    for (int maps = 0; maps < 2; maps++) {
        for (unsigned depth = VALUE_DEPTH_MAX; depth <= VALUE_DEPTH_MAX + 1; depth++) {
            buf_clear(&f->body);
            struct open_messages m = begin(&f->body);
            put_ids(&f->body);
            put_nested(&f->body, depth, maps);
            end(&f->body, m);
            int err = decode(f, buf_as_str(&f->body));
            if (depth > VALUE_DEPTH_MAX) {
                assert_int_equal(err, ERR_TOO_LARGE);
                continue;
            }
            assert_int_equal(err, 0);
            assert_int_equal(decode(f, encoded(f)), 0); /* and nothing was lost on the way */
            const struct value *v = &f->batch.spans[0].attrs.items[0].value;
            for (unsigned i = 0; i < depth; i++)
                v = maps ? &v->map.items[0].value : &v->array.items[0];
            assert_int_equal(v->integer, 42);
        }
    }
}

static void memory_beyond_the_arenas_limit_is_refused(void **state)
{
    struct fixture *f = *state;
    /* 64 KiB of empty attributes want 1.3 MB. */
    struct open_messages m = begin(&f->body);
    put_ids(&f->body);
    for (int i = 0; i < 32 << 10; i++)
        pb_put_str(&f->body, PB_TAG(9, PB_BYTES), STR(""));
    end(&f->body, m);
    struct arena small = {.bytes_max = 1 << 20};
    assert_int_equal(otlp_decode(buf_as_str(&f->body), &small, &f->batch, &f->detail), ERR_NOMEM);
    arena_done(&small);
    small.bytes_max = 2 << 20;
    assert_int_equal(otlp_decode(buf_as_str(&f->body), &small, &f->batch, &f->detail), 0);
    assert_int_equal(f->batch.spans[0].attrs.n, 32 << 10);
    arena_done(&small);
    /* Spans too short to be any take no room at all. */
    buf_clear(&f->body);
    struct pb_message rs = pb_open(&f->body, PB_TAG(1, PB_BYTES), 3);
    struct pb_message ss = pb_open(&f->body, PB_TAG(2, PB_BYTES), 3);
    for (int i = 0; i < 100000; i++)
        pb_put_str(&f->body, PB_TAG(2, PB_BYTES), STR(""));
    pb_close(&f->body, ss);
    pb_close(&f->body, rs);
    small.bytes_max = 16 << 10;
    assert_int_equal(otlp_decode(buf_as_str(&f->body), &small, &f->batch, &f->detail), 0);
    assert_int_equal(f->batch.n_rejected, 100000);
    arena_done(&small);
}

static void small_spans_before_large_ones_do_not_foretell_too_much(void **state)
{
    struct fixture *f = *state;
    struct buf *b = &f->body;
    struct pb_message rs = pb_open(b, PB_TAG(1, PB_BYTES), 3);
    struct pb_message ss = pb_open(b, PB_TAG(2, PB_BYTES), 3);
    char *text = arena_alloc(&f->arena, 64 << 10);
    memset(text, 'x', 64 << 10);
    for (int i = 0; i < 200; i++) {
        struct pb_message span = pb_open(b, PB_TAG(2, PB_BYTES), 1);
        put_ids(b);
        if (i >= 100)
            pb_put_bytes(b, PB_TAG(5, PB_BYTES), text, 64 << 10);
        pb_close(b, span);
    }
    pb_close(b, ss);
    pb_close(b, rs);
    /* 200 spans are 46 KiB; at 30 bytes each, 6.4 MB of body would be 200,000. */
    struct arena small = {.bytes_max = 512 << 10};
    assert_int_equal(otlp_decode(buf_as_str(b), &small, &f->batch, &f->detail), 0);
    assert_int_equal(f->batch.n, 200);
    assert_int_equal(f->batch.spans[0].name.len, 0);
    assert_int_equal(f->batch.spans[199].name.len, 64 << 10);
    arena_done(&small);
}

static void every_refused_allocation_is_an_error_and_leaks_nothing(void **state)
{
    struct fixture *f = *state;
    struct str body = golden_read(&f->arena, "everything.bin");
    bool fitted = false;
    for (size_t limit = 1; limit < 64 << 10 && !fitted; limit += 61) {
        struct arena arena = {.bytes_max = limit};
        struct span_batch batch;
        int err = otlp_decode(body, &arena, &batch, NULL);
        fitted = err == 0;
        if (!fitted)
            assert_int_equal(err, ERR_NOMEM);
        arena_done(&arena);
    }
    assert_true(fitted);
    for (size_t limit = 0; limit < body.len; limit += 7) {
        struct buf out = {.bytes_max = limit + 1};
        assert_int_equal(otlp_decode(body, &f->arena, &f->batch, NULL), 0);
        otlp_encode(&f->batch, &out);
        assert_false(buf_ok(&out));
        buf_done(&out);
    }
}

/* ---- answers ---- */

static void answers_go_both_ways(void **state)
{
    struct fixture *f = *state;
    uint64_t rejected = 9;
    struct str message = STR("x");
    otlp_encode_response(0, STR(""), &f->body);
    assert_int_equal(f->body.len, 0);
    assert_int_equal(otlp_decode_response(STR(""), &rejected, &message), 0);
    assert_int_equal(rejected, 0);
    assert_int_equal(message.len, 0);
    otlp_encode_response(300, STR("no ids"), &f->body);
    assert_str_eq(buf_as_str(&f->body), STR("\x0a\x0b\x08\xac\x02\x12\x06no ids"));
    assert_int_equal(otlp_decode_response(buf_as_str(&f->body), &rejected, &message), 0);
    assert_int_equal(rejected, 300);
    assert_str_eq(message, STR("no ids"));
    assert_int_equal(otlp_decode_response(STR("\x0a\x0b\x08"), &rejected, &message), ERR_TRUNCATED);
    assert_int_equal(otlp_decode_response(STR("<html>"), &rejected, &message), ERR_INVALID);
    assert_int_equal(rejected, 300);
    buf_clear(&f->body);
    otlp_encode_status(3, STR("bad"), &f->body);
    assert_str_eq(buf_as_str(&f->body), STR("\x08\x03\x12\x03"
                                            "bad"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        TEST(every_field_is_read),
        TEST(every_kind_of_value_is_read),
        TEST(what_is_written_is_what_the_reference_writes),
        TEST(what_the_node_sdk_sends_is_read),
        TEST(fields_may_come_in_any_order_and_scalars_twice),
        TEST(unknown_fields_are_passed_over),
        TEST(enums_out_of_range_are_unspecified),
        TEST(a_body_of_nothing_is_a_batch_of_nothing),
        TEST(spans_that_cannot_be_kept_are_left_out_and_counted),
        TEST(a_resource_or_scope_that_is_no_text_takes_its_spans_along),
        TEST(a_body_cut_off_anywhere_is_refused),
        TEST(bytes_that_are_no_protobuf_are_refused_whole),
        TEST(a_message_that_ends_inside_a_field_is_refused_at_every_level),
        TEST(values_nest_up_to_the_limit_and_no_deeper),
        TEST(memory_beyond_the_arenas_limit_is_refused),
        TEST(small_spans_before_large_ones_do_not_foretell_too_much),
        TEST(every_refused_allocation_is_an_error_and_leaks_nothing),
        TEST(answers_go_both_ways),
    };
    return cmocka_run_group_tests_name("otlp", tests, NULL, NULL);
}
