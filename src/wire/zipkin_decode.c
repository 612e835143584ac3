/* Zipkin's second model: JSON and protobuf. (zipkin_v1.c has the first.)
 * Source: openzipkin/zipkin-api, zipkin2-api.yaml and zipkin.proto. */
#include "wire/zipkin.h"

#include "base/json.h"
#include "wire/protobuf.h"
#include "wire/zipkin_json.h"
#include "wire/zipkin_span.h"

/* ---- JSON: what both versions share ---- */

static bool is(const struct json_reader *r, struct str key)
{
    return str_eq(r->text, key);
}

struct str zipkin_json_str(struct json_reader *r)
{
    enum json_type type = json_next(r);
    if (type == JSON_STRING)
        return r->text;
    if (type != JSON_NULL)
        json_fail(r, "a string");
    return STR_NONE;
}

uint64_t zipkin_json_us(struct json_reader *r)
{
    uint64_t n = 0;
    double real;
    enum json_type type = json_next(r);
    if (type == JSON_NULL || json_to_u64(r, &n))
        return n;
    /* Some clients write fractions of a microsecond. */
    if (type == JSON_NUMBER && json_to_double(r, &real) && real >= 0 && real < 1.8e19)
        return (uint64_t)real;
    json_fail(r, "microseconds");
    return 0;
}

bool zipkin_json_bool(struct json_reader *r)
{
    enum json_type type = json_next(r);
    if (type != JSON_TRUE && type != JSON_FALSE && type != JSON_NULL)
        json_fail(r, "true or false");
    return type == JSON_TRUE;
}

void zipkin_json_trace_id(struct zipkin_decoder *d, struct json_reader *r, struct trace_id *ret)
{
    struct str hex = zipkin_json_str(r);
    if (!trace_id_parse(hex, ret))
        collect_reject(&d->c, "a trace id is not 1 to 32 hexadecimal digits");
}

void zipkin_json_span_id(struct zipkin_decoder *d, struct json_reader *r, struct span_id *ret)
{
    struct str hex = zipkin_json_str(r);
    if (hex.len && !span_id_parse(hex, ret))
        collect_reject(&d->c, "a span id is not 1 to 16 hexadecimal digits");
}

bool zipkin_json_object(struct json_reader *r)
{
    enum json_type type = json_next(r);
    if (type != JSON_OBJECT && type != JSON_NULL)
        json_fail(r, "an object");
    return type == JSON_OBJECT;
}

bool zipkin_json_array(struct json_reader *r)
{
    enum json_type type = json_next(r);
    if (type != JSON_ARRAY && type != JSON_NULL)
        json_fail(r, "a list");
    return type == JSON_ARRAY;
}

bool zipkin_json_item(struct json_reader *r)
{
    enum json_type type = json_next(r);
    if (type != JSON_OBJECT && type != JSON_ARRAY_END)
        json_fail(r, "an object");
    return type == JSON_OBJECT;
}

void zipkin_json_endpoint(struct json_reader *r, struct zipkin_endpoint *ret)
{
    struct zipkin_endpoint e = {.port = 0};
    if (zipkin_json_object(r)) {
        struct str v4 = STR_NONE;
        while (json_next(r) == JSON_KEY) {
            if (is(r, STR("serviceName"))) {
                e.service = zipkin_json_str(r);
            } else if (is(r, STR("ipv4"))) {
                v4 = zipkin_json_str(r);
            } else if (is(r, STR("ipv6"))) {
                e.address = zipkin_json_str(r);
            } else if (is(r, STR("port"))) {
                if (json_next(r) != JSON_NULL && !json_to_i64(r, &e.port))
                    json_fail(r, "a port");
            } else {
                json_skip(r);
            }
        }
        if (v4.len)
            e.address = v4;
    }
    *ret = e;
}

/* ---- version 2, JSON ---- */

static uint8_t kind_of(struct str name)
{
    uint8_t kind = SPAN_KIND_UNSPECIFIED;
    return span_kind_parse(name, &kind) ? kind : SPAN_KIND_UNSPECIFIED;
}

static void annotations_json(struct zipkin_decoder *d, struct json_reader *r, struct zipkin_span *z)
{
    if (!zipkin_json_array(r))
        return;
    while (zipkin_json_item(r)) {
        uint64_t us = 0;
        struct str value = STR_NONE;
        while (json_next(r) == JSON_KEY) {
            if (is(r, STR("timestamp")))
                us = zipkin_json_us(r);
            else if (is(r, STR("value")))
                value = zipkin_json_str(r);
            else
                json_skip(r);
        }
        zipkin_annotation(d, z, us, value);
    }
}

static void tags_json(struct zipkin_decoder *d, struct json_reader *r, struct span *s)
{
    if (!zipkin_json_object(r))
        return;
    while (json_next(r) == JSON_KEY) {
        struct str key = r->text;
        switch (json_next(r)) {
        case JSON_STRING:
        case JSON_NUMBER: /* tags are texts; not every client knows */
            zipkin_tag(d, s, key, r->text);
            break;
        case JSON_TRUE:
        case JSON_FALSE:
            zipkin_tag(d, s, key, r->type == JSON_TRUE ? STR("true") : STR("false"));
            break;
        case JSON_NULL:
            break;
        default:
            json_fail(r, "a string");
        }
    }
}

static void span_field_json(struct zipkin_decoder *d, struct json_reader *r, struct zipkin_span *z,
                            struct span *s)
{
    if (is(r, STR("traceId")))
        zipkin_json_trace_id(d, r, &z->trace_id);
    else if (is(r, STR("id")))
        zipkin_json_span_id(d, r, &z->id);
    else if (is(r, STR("parentId")))
        zipkin_json_span_id(d, r, &z->parent_id);
    else if (is(r, STR("name")))
        z->name = zipkin_json_str(r);
    else if (is(r, STR("kind")))
        z->kind = kind_of(zipkin_json_str(r));
    else if (is(r, STR("timestamp")))
        z->timestamp_us = zipkin_json_us(r);
    else if (is(r, STR("duration")))
        z->duration_us = zipkin_json_us(r);
    else if (is(r, STR("localEndpoint")))
        zipkin_json_endpoint(r, &z->local);
    else if (is(r, STR("remoteEndpoint")))
        zipkin_json_endpoint(r, &z->remote);
    else if (is(r, STR("annotations")))
        annotations_json(d, r, z);
    else if (is(r, STR("tags")))
        tags_json(d, r, s);
    else if (is(r, STR("debug")))
        z->debug = zipkin_json_bool(r);
    else if (is(r, STR("shared")))
        z->shared = zipkin_json_bool(r);
    else
        json_skip(r);
}

int zipkin_json_decode(struct str body, struct arena *arena, struct span_batch *ret_batch,
                       struct error_detail *ret_detail)
{
    struct zipkin_decoder d;
    struct json_reader r;
    zipkin_begin(&d, arena);
    json_reader_init(&r, body, arena, ret_detail);
    if (json_next(&r) != JSON_ARRAY)
        json_fail(&r, "a list of spans");
    while (!d.c.err && zipkin_json_item(&r)) {
        struct zipkin_span z = {.name = STR("")};
        struct span s = {.name = STR("")};
        while (json_next(&r) == JSON_KEY)
            span_field_json(&d, &r, &z, &s);
        if (!r.err)
            zipkin_end_span(&d, &z, &s);
    }
    if (!d.c.err && !r.err)
        json_next(&r); /* the end, or what should not be there */
    return zipkin_finish(&d, r.err, ret_batch);
}

/* ---- version 2, protobuf ---- */

enum {
    LIST_SPANS = PB_TAG(1, PB_BYTES),
    /* Span */
    SPAN_TRACE_ID = PB_TAG(1, PB_BYTES),
    SPAN_PARENT_ID = PB_TAG(2, PB_BYTES),
    SPAN_ID = PB_TAG(3, PB_BYTES),
    SPAN_KIND = PB_TAG(4, PB_VARINT),
    SPAN_NAME = PB_TAG(5, PB_BYTES),
    SPAN_TIMESTAMP = PB_TAG(6, PB_FIXED64),
    SPAN_DURATION = PB_TAG(7, PB_VARINT),
    SPAN_LOCAL_ENDPOINT = PB_TAG(8, PB_BYTES),
    SPAN_REMOTE_ENDPOINT = PB_TAG(9, PB_BYTES),
    SPAN_ANNOTATIONS = PB_TAG(10, PB_BYTES),
    SPAN_TAGS = PB_TAG(11, PB_BYTES),
    SPAN_DEBUG = PB_TAG(12, PB_VARINT),
    SPAN_SHARED = PB_TAG(13, PB_VARINT),
    /* Endpoint */
    ENDPOINT_SERVICE = PB_TAG(1, PB_BYTES),
    ENDPOINT_IPV4 = PB_TAG(2, PB_BYTES),
    ENDPOINT_IPV6 = PB_TAG(3, PB_BYTES),
    ENDPOINT_PORT = PB_TAG(4, PB_VARINT),
    /* Annotation */
    ANNOTATION_TIMESTAMP = PB_TAG(1, PB_FIXED64),
    ANNOTATION_VALUE = PB_TAG(2, PB_BYTES),
    /* an entry of a map */
    ENTRY_KEY = PB_TAG(1, PB_BYTES),
    ENTRY_VALUE = PB_TAG(2, PB_BYTES),
};

/* The right-most bytes; what is longer is no id. */
static void id_pb(struct zipkin_decoder *d, const struct pb_field *f, uint8_t *id, size_t size)
{
    memset(id, 0, size);
    if (f->n > size)
        collect_reject(&d->c, "an id is longer than 16 or 8 bytes");
    else if (f->n)
        memcpy(id + size - f->n, f->ptr, f->n);
}

static int endpoint_pb(struct zipkin_decoder *d, struct pb r, struct zipkin_endpoint *ret)
{
    struct zipkin_endpoint e = {.port = 0};
    struct pb_field f;
    int got;
    while ((got = pb_next(&r, &f)) > 0) {
        if (f.tag == ENDPOINT_SERVICE)
            e.service = collect_text(&d->c, pb_as_str(&f));
        else if (f.tag == ENDPOINT_IPV4 || (f.tag == ENDPOINT_IPV6 && !e.address.len))
            e.address = zipkin_address(&d->c, pb_as_str(&f));
        else if (f.tag == ENDPOINT_PORT)
            e.port = (int64_t)f.n;
    }
    *ret = e;
    return got;
}

static int annotation_pb(struct zipkin_decoder *d, struct pb r, struct zipkin_span *z)
{
    uint64_t us = 0;
    struct str value = STR("");
    struct pb_field f;
    int got;
    while ((got = pb_next(&r, &f)) > 0) {
        if (f.tag == ANNOTATION_TIMESTAMP)
            us = f.n;
        else if (f.tag == ANNOTATION_VALUE)
            value = collect_text(&d->c, pb_as_str(&f));
    }
    if (!got)
        zipkin_annotation(d, z, us, value);
    return got;
}

static int tag_pb(struct zipkin_decoder *d, struct pb r, struct span *s)
{
    struct str key = STR(""), value = STR("");
    struct pb_field f;
    int got;
    while ((got = pb_next(&r, &f)) > 0) {
        if (f.tag == ENTRY_KEY)
            key = collect_text(&d->c, pb_as_str(&f));
        else if (f.tag == ENTRY_VALUE)
            value = collect_text(&d->c, pb_as_str(&f));
    }
    if (!got)
        zipkin_tag(d, s, key, value);
    return got;
}

static uint8_t kind_pb(uint64_t kind)
{
    static const uint8_t kinds[] = {SPAN_KIND_UNSPECIFIED, SPAN_KIND_CLIENT, SPAN_KIND_SERVER,
                                    SPAN_KIND_PRODUCER, SPAN_KIND_CONSUMER};
    return kind < sizeof kinds ? kinds[kind] : SPAN_KIND_UNSPECIFIED;
}

static int span_field_pb(struct zipkin_decoder *d, const struct pb_field *f, struct zipkin_span *z,
                         struct span *s)
{
    switch (f->tag) {
    case SPAN_TRACE_ID:
        id_pb(d, f, z->trace_id.bytes, TRACE_ID_SIZE);
        return 0;
    case SPAN_PARENT_ID:
        id_pb(d, f, z->parent_id.bytes, SPAN_ID_SIZE);
        return 0;
    case SPAN_ID:
        id_pb(d, f, z->id.bytes, SPAN_ID_SIZE);
        return 0;
    case SPAN_KIND:
        z->kind = kind_pb(f->n);
        return 0;
    case SPAN_NAME:
        z->name = collect_text(&d->c, pb_as_str(f));
        return 0;
    case SPAN_TIMESTAMP:
        z->timestamp_us = f->n;
        return 0;
    case SPAN_DURATION:
        z->duration_us = f->n;
        return 0;
    case SPAN_LOCAL_ENDPOINT:
        return endpoint_pb(d, pb_from_field(f), &z->local);
    case SPAN_REMOTE_ENDPOINT:
        return endpoint_pb(d, pb_from_field(f), &z->remote);
    case SPAN_ANNOTATIONS:
        return annotation_pb(d, pb_from_field(f), z);
    case SPAN_TAGS:
        return tag_pb(d, pb_from_field(f), s);
    case SPAN_DEBUG:
        z->debug = f->n != 0;
        return 0;
    case SPAN_SHARED:
        z->shared = f->n != 0;
        return 0;
    default:
        return 0;
    }
}

int zipkin_protobuf_decode(struct str body, struct arena *arena, struct span_batch *ret_batch,
                           struct error_detail *ret_detail)
{
    struct zipkin_decoder d;
    struct pb list = pb_from_str(body);
    const uint8_t *start = list.at, *where = list.at;
    struct pb_field f;
    int got;
    zipkin_begin(&d, arena);
    while ((got = pb_next(&list, &f)) > 0 && !d.c.err) {
        if (f.tag != LIST_SPANS)
            continue;
        struct zipkin_span z = {.name = STR("")};
        struct span s = {.name = STR("")};
        struct pb r = pb_from_field(&f);
        while ((got = pb_next(&r, &f)) > 0) {
            where = r.at;
            got = span_field_pb(&d, &f, &z, &s);
            if (got)
                break;
        }
        if (got)
            break;
        zipkin_end_span(&d, &z, &s);
    }
    int err = d.c.err ? d.c.err : got < 0 ? got : 0;
    if (err)
        error_set(ret_detail, err, (size_t)(where - start), "%s",
                  err == ERR_NOMEM ? "out of memory" : "not a list of spans in protobuf");
    return zipkin_finish(&d, err, ret_batch);
}
