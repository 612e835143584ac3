#include "store/local/codec.h"

#include <endian.h>

void codec_put_varint(struct buf *b, uint64_t n)
{
    while (n >= 0x80) {
        buf_byte(b, (char)(n | 0x80));
        n >>= 7;
    }
    buf_byte(b, (char)n);
}

void codec_put_zigzag(struct buf *b, int64_t n)
{
    codec_put_varint(b, ((uint64_t)n << 1) ^ (uint64_t)(n >> 63));
}

void codec_put_str(struct buf *b, struct str s)
{
    codec_put_varint(b, s.len);
    buf_str(b, s);
}

static void put_fixed64(struct buf *b, uint64_t n)
{
    n = htole64(n);
    buf_put(b, &n, sizeof n);
}

void codec_put_value(struct buf *b, const struct value *v)
{
    uint8_t type = v->type <= VALUE_BYTES ? v->type : VALUE_NONE;
    buf_byte(b, (char)type);
    switch (type) {
    case VALUE_STRING:
    case VALUE_BYTES:
        codec_put_str(b, v->string);
        break;
    case VALUE_BOOL:
        buf_byte(b, v->boolean);
        break;
    case VALUE_INT:
        codec_put_zigzag(b, v->integer);
        break;
    case VALUE_DOUBLE: {
        uint64_t bits;
        memcpy(&bits, &v->real, sizeof bits);
        put_fixed64(b, bits);
        break;
    }
    case VALUE_ARRAY:
        codec_put_varint(b, v->array.n);
        for (size_t i = 0; i < v->array.n; i++)
            codec_put_value(b, &v->array.items[i]);
        break;
    case VALUE_MAP:
        codec_put_varint(b, v->map.n);
        for (size_t i = 0; i < v->map.n; i++) {
            codec_put_str(b, v->map.items[i].key);
            codec_put_value(b, &v->map.items[i].value);
        }
        break;
    default:
        break;
    }
}

void codec_put_attrs(struct buf *b, const struct attrs *attrs)
{
    codec_put_varint(b, attrs->n);
    codec_put_varint(b, attrs->dropped);
    for (uint32_t i = 0; i < attrs->n; i++) {
        codec_put_str(b, attrs->items[i].key);
        codec_put_value(b, &attrs->items[i].value);
    }
}

void codec_put_resource(struct buf *b, const struct resource *r)
{
    codec_put_attrs(b, &r->attrs);
    codec_put_str(b, r->schema_url);
}

void codec_put_scope(struct buf *b, const struct scope *s)
{
    codec_put_str(b, s->name);
    codec_put_str(b, s->version);
    codec_put_attrs(b, &s->attrs);
    codec_put_str(b, s->schema_url);
}

void codec_put_events(struct buf *b, const struct event *events, uint32_t n, uint64_t start_ns)
{
    codec_put_varint(b, n);
    for (uint32_t i = 0; i < n; i++) {
        codec_put_zigzag(b, (int64_t)(events[i].time_ns - start_ns));
        codec_put_str(b, events[i].name);
        codec_put_attrs(b, &events[i].attrs);
    }
}

void codec_put_links(struct buf *b, const struct link *links, uint32_t n)
{
    codec_put_varint(b, n);
    for (uint32_t i = 0; i < n; i++) {
        buf_put(b, links[i].trace_id.bytes, TRACE_ID_SIZE);
        buf_put(b, links[i].span_id.bytes, SPAN_ID_SIZE);
        codec_put_varint(b, links[i].flags);
        codec_put_str(b, links[i].trace_state);
        codec_put_attrs(b, &links[i].attrs);
    }
}

static void reader_fail(struct codec_reader *r, int err)
{
    if (!r->err)
        r->err = err;
    r->at = r->end;
}

uint64_t codec_varint_slow(struct codec_reader *r)
{
    uint64_t n = 0;
    for (unsigned shift = 0; r->at < r->end; shift += 7) {
        uint8_t byte = *r->at++;
        if (shift == 63 && byte > 1)
            break;
        n |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80)
            return n;
        if (shift == 63)
            break;
    }
    reader_fail(r, ERR_CORRUPT);
    return 0;
}

int64_t codec_zigzag(struct codec_reader *r)
{
    uint64_t n = codec_varint(r);
    return (int64_t)((n >> 1) ^ -(n & 1));
}

uint32_t codec_u32(struct codec_reader *r)
{
    uint64_t n = codec_varint(r);
    if (n > UINT32_MAX) {
        reader_fail(r, ERR_CORRUPT);
        return 0;
    }
    return (uint32_t)n;
}

const uint8_t *codec_bytes(struct codec_reader *r, size_t n)
{
    if (r->err || n > (size_t)(r->end - r->at)) {
        reader_fail(r, ERR_CORRUPT);
        return NULL;
    }
    const uint8_t *p = r->at;
    r->at += n;
    return p;
}

struct str codec_str(struct codec_reader *r)
{
    uint64_t n = codec_varint(r);
    const uint8_t *p = codec_bytes(r, n);
    return p ? (struct str){(const char *)p, n} : STR_NONE;
}

uint64_t codec_fixed64(struct codec_reader *r)
{
    uint64_t n = 0;
    const uint8_t *p = codec_bytes(r, sizeof n);
    if (p)
        memcpy(&n, p, sizeof n);
    return le64toh(n);
}

/* An array of `n` items, each of which takes at least `bytes_min` of the input: so a damaged count
 * cannot ask for more memory than a multiple of the input. */
static void *items_new(struct codec_reader *r, uint64_t n, size_t bytes_min, size_t size)
{
    if (r->err || n > (size_t)(r->end - r->at) / bytes_min || n > UINT32_MAX) {
        reader_fail(r, ERR_CORRUPT);
        return NULL;
    }
    void *items = arena_array(r->arena, n, size);
    if (!items)
        reader_fail(r, ERR_NOMEM);
    return items;
}

static void value_at(struct codec_reader *r, struct value *ret, unsigned depth);

static void map_at(struct codec_reader *r, uint64_t n, struct attr **ret, unsigned depth)
{
    struct attr *items = items_new(r, n, 2, sizeof *items);
    for (uint64_t i = 0; items && i < n; i++) {
        items[i].key = codec_str(r);
        value_at(r, &items[i].value, depth);
        if (r->err)
            items = NULL;
    }
    *ret = items;
}

static void value_at(struct codec_reader *r, struct value *ret, unsigned depth)
{
    *ret = (struct value){.type = VALUE_NONE};
    const uint8_t *type = codec_bytes(r, 1);
    if (!type)
        return;
    switch (*type) {
    case VALUE_NONE:
        break;
    case VALUE_STRING:
    case VALUE_BYTES:
        ret->string = codec_str(r);
        break;
    case VALUE_BOOL: {
        const uint8_t *yes = codec_bytes(r, 1);
        ret->boolean = yes && *yes;
        break;
    }
    case VALUE_INT:
        ret->integer = codec_zigzag(r);
        break;
    case VALUE_DOUBLE: {
        uint64_t bits = codec_fixed64(r);
        memcpy(&ret->real, &bits, sizeof bits);
        break;
    }
    case VALUE_ARRAY: {
        uint64_t n = codec_varint(r);
        if (depth == 0) {
            reader_fail(r, ERR_CORRUPT);
            return;
        }
        struct value *items = items_new(r, n, 1, sizeof *items);
        for (uint64_t i = 0; items && i < n; i++) {
            value_at(r, &items[i], depth - 1);
            if (r->err)
                return;
        }
        ret->array.items = items;
        ret->array.n = items ? n : 0;
        break;
    }
    case VALUE_MAP: {
        uint64_t n = codec_varint(r);
        struct attr *items = NULL;
        if (depth == 0)
            reader_fail(r, ERR_CORRUPT);
        else
            map_at(r, n, &items, depth - 1);
        ret->map.items = items;
        ret->map.n = items ? n : 0;
        break;
    }
    default:
        reader_fail(r, ERR_CORRUPT);
    }
    if (!r->err)
        ret->type = *type;
}

void codec_value(struct codec_reader *r, struct value *ret)
{
    /* One more than the decoders allow, so that how they count does not matter here. */
    value_at(r, ret, VALUE_DEPTH_MAX + 1);
}

void codec_attrs(struct codec_reader *r, struct attrs *ret)
{
    struct attr *items;
    uint64_t n = codec_varint(r);
    uint32_t dropped = codec_u32(r);
    map_at(r, n, &items, VALUE_DEPTH_MAX + 1);
    *ret = items ? (struct attrs){items, (uint32_t)n, dropped} : (struct attrs){0};
}

void codec_resource(struct codec_reader *r, struct resource *ret)
{
    *ret = (struct resource){0};
    codec_attrs(r, &ret->attrs);
    ret->schema_url = codec_str(r);
    resource_set_service_name(ret);
}

void codec_scope(struct codec_reader *r, struct scope *ret)
{
    *ret = (struct scope){0};
    ret->name = codec_str(r);
    ret->version = codec_str(r);
    codec_attrs(r, &ret->attrs);
    ret->schema_url = codec_str(r);
}

void codec_events(struct codec_reader *r, uint64_t start_ns, const struct event **ret,
                  uint32_t *ret_n)
{
    uint64_t n = codec_varint(r);
    struct event *events = items_new(r, n, 4, sizeof *events);
    for (uint64_t i = 0; events && i < n; i++) {
        events[i].time_ns = start_ns + (uint64_t)codec_zigzag(r);
        events[i].name = codec_str(r);
        codec_attrs(r, &events[i].attrs);
        if (r->err)
            events = NULL;
    }
    *ret = events;
    *ret_n = events ? (uint32_t)n : 0;
}

void codec_links(struct codec_reader *r, const struct link **ret, uint32_t *ret_n)
{
    uint64_t n = codec_varint(r);
    struct link *links = items_new(r, n, TRACE_ID_SIZE + SPAN_ID_SIZE + 4, sizeof *links);
    for (uint64_t i = 0; links && i < n; i++) {
        const uint8_t *ids = codec_bytes(r, TRACE_ID_SIZE + SPAN_ID_SIZE);
        if (!ids) {
            links = NULL;
            break;
        }
        memcpy(links[i].trace_id.bytes, ids, TRACE_ID_SIZE);
        memcpy(links[i].span_id.bytes, ids + TRACE_ID_SIZE, SPAN_ID_SIZE);
        links[i].flags = codec_u32(r);
        links[i].trace_state = codec_str(r);
        codec_attrs(r, &links[i].attrs);
        if (r->err)
            links = NULL;
    }
    *ret = links;
    *ret_n = links ? (uint32_t)n : 0;
}

int codec_finish(struct codec_reader *r)
{
    if (!r->err && r->at != r->end)
        r->err = ERR_CORRUPT;
    return r->err;
}
