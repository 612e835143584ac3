/* Room for a whole span is reserved once, from an upper bound; everything is then written without a
 * look. Lengths are computed before what they are of, so that nothing is moved. */
#include "wire/otlp_place.h"

#include "wire/protobuf.h"

#include <stdlib.h>

/* Field numbers as in otlp.c: opentelemetry-proto, trace.proto and common.proto. */
enum {
    SPANS = PB_TAG(2, PB_BYTES), /* of ScopeSpans */
    TRACE_ID = PB_TAG(1, PB_BYTES),
    SPAN_ID = PB_TAG(2, PB_BYTES),
    TRACE_STATE = PB_TAG(3, PB_BYTES),
    PARENT_ID = PB_TAG(4, PB_BYTES),
    NAME = PB_TAG(5, PB_BYTES),
    KIND = PB_TAG(6, PB_VARINT),
    START = PB_TAG(7, PB_FIXED64),
    END = PB_TAG(8, PB_FIXED64),
    ATTRIBUTES = PB_TAG(9, PB_BYTES),
    FLAGS = PB_TAG(16, PB_FIXED32),
    KEY = PB_TAG(1, PB_BYTES),
    VALUE = PB_TAG(2, PB_BYTES),
    ANY_STRING = PB_TAG(1, PB_BYTES),
    ANY_BOOL = PB_TAG(2, PB_VARINT),
    ANY_INT = PB_TAG(3, PB_VARINT),
    ANY_DOUBLE = PB_TAG(4, PB_FIXED64),
};

/* The span's own tag and length; ids, times and flags with their tags. */
#define FIXED_BYTES_MAX                                                                            \
    (1 + PB_VARINT_BYTES_MAX + 2 + TRACE_ID_SIZE + 2 * (2 + SPAN_ID_SIZE) + 2 * 9 + 6)
/* Around a value: the tags and lengths of the attribute, of the value and of its content. */
#define VALUE_BYTES_MAX (3 * (1 + PB_VARINT_BYTES_MAX) + 8)

/* Bytes of a place: "name" and "kind"; or all that stands in front of a value whose content is shorter
 * than 128 bytes, with two lengths left open. */
struct fragment {
    uint32_t at, n; /* in `bytes` */
};

struct otlp_place {
    uint32_t n_keys;
    size_t bytes_max; /* of a span, without its trace state and its texts */
    unsigned guess; /* how many bytes the length of a span takes: as many as that of the last one */
    struct fragment head;
    struct {
        struct fragment whole;
        struct fragment key; /* in it: the key alone */
        uint8_t type;
    } keys[PLAIN_KEYS_MAX];
    char bytes[]; /* and PLAIN_STEP more */
};

static struct fragment text_add(struct otlp_place *p, size_t *n, uint32_t tag, struct str text)
{
    char *start = p->bytes + *n, *at = start;
    if (text.len) {
        at = pb_varint_write(at, tag);
        at = pb_varint_write(at, text.len);
        memcpy(at, text.ptr, text.len);
        at += text.len;
    }
    struct fragment f = {(uint32_t)*n, (uint32_t)(at - start)};
    *n += f.n;
    return f;
}

struct otlp_place *otlp_place_new(const struct plain_place *place)
{
    enum { AROUND = PB_TAG_BYTES_MAX + PB_VARINT_BYTES_MAX };
    size_t bytes = AROUND + place->name.len + AROUND, n = 0;
    for (uint32_t i = 0; i < place->n_keys; i++)
        bytes += 4 + AROUND + place->keys[i].name.len;
    struct otlp_place *p = bytes < UINT32_MAX / 2 ? calloc(1, sizeof *p + PLAIN_ROOM(bytes)) : NULL;
    if (!p)
        return NULL;
    p->n_keys = place->n_keys;
    p->guess = 1;
    p->head = text_add(p, &n, NAME, place->name);
    if (place->kind) {
        p->bytes[n++] = KIND;
        p->bytes[n++] = (char)place->kind;
        p->head.n += 2;
    }
    for (uint32_t i = 0; i < place->n_keys; i++) {
        struct fragment *whole = &p->keys[i].whole;
        whole->at = (uint32_t)n;
        p->bytes[n] = ATTRIBUTES;
        n += 2;
        p->keys[i].key = text_add(p, &n, KEY, place->keys[i].name);
        p->keys[i].type = place->keys[i].type;
        p->bytes[n] = VALUE;
        n += 2;
        whole->n = (uint32_t)n - whole->at;
    }
    p->bytes_max = PLAIN_ROOM(FIXED_BYTES_MAX + n + place->n_keys * (size_t)VALUE_BYTES_MAX);
    return p;
}

/* ---- writing ---- */

static inline char *bytes_write(char *out, uint8_t tag, const void *bytes, uint8_t n)
{
    *out++ = (char)tag;
    *out++ = (char)n;
    memcpy(out, bytes, n);
    return out + n;
}

static inline char *fixed64_write(char *out, uint8_t tag, uint64_t n)
{
    *out++ = (char)tag;
    n = htole64(n);
    memcpy(out, &n, sizeof n);
    return out + sizeof n;
}

/* What is in front of the content of a value: an attribute, its key, the value, so many bytes. */
static inline char *value_open(char *out, const struct otlp_place *p, uint32_t i, size_t content)
{
    struct fragment whole = p->keys[i].whole, key = p->keys[i].key;
    size_t any = 1 + pb_varint_size(content) + content;
    if (key.n + any < 0x80) {
        char *start = out;
        out = plain_copy(out, p->bytes + whole.at, whole.n);
        start[1] = (char)(key.n + any);
        out[-1] = (char)content;
        return out;
    }
    *out++ = ATTRIBUTES;
    out = pb_varint_write(out, key.n + any);
    out = plain_copy(out, p->bytes + key.at, key.n);
    *out++ = VALUE;
    return pb_varint_write(out, content);
}

/* NULL: it is not UTF-8. */
static inline char *text_write(char *out, const struct otlp_place *p, uint32_t i, struct str text)
{
    uint64_t all = 0;
    out = value_open(out, p, i, 1 + pb_varint_size(text.len) + text.len);
    *out++ = ANY_STRING;
    out = pb_varint_write(out, text.len);
    for (size_t k = 0; k < text.len; k += 8) {
        memcpy(out + k, text.ptr + k, 8);
        all |= plain_text_word(text, k);
    }
    return !(all & UINT64_C(0x8080808080808080)) || str_is_utf8(text) ? out + text.len : NULL;
}

static inline char *number_write(char *out, const struct otlp_place *p, uint32_t i, uint8_t tag,
                                 uint64_t n)
{
    out = value_open(out, p, i, 1 + pb_varint_size(n));
    *out++ = (char)tag;
    return pb_varint_write(out, n);
}

/* NULL: not plain ones. */
static char *values_write(char *out, const struct otlp_place *p, const char *at, const char *end)
{
    for (uint32_t i = 0; i < p->n_keys; i++) {
        struct str text;
        uint64_t word;
        if (p->keys[i].type == VALUE_STRING) {
            if (!plain_text(&at, end, &text) || !(out = text_write(out, p, i, text)))
                return NULL;
            continue;
        }
        if (!plain_word(&at, end, &word))
            return NULL;
        if (p->keys[i].type == VALUE_INT) {
            out = number_write(out, p, i, ANY_INT, word);
        } else if (p->keys[i].type == VALUE_BOOL) {
            out = number_write(out, p, i, ANY_BOOL, word != 0);
        } else {
            out = value_open(out, p, i, 9);
            out = fixed64_write(out, ANY_DOUBLE, word);
        }
    }
    return out;
}

bool otlp_place_encode(struct otlp_place *p, const struct plain_span *s, struct buf *b)
{
    if (!buf_reserve(b, p->bytes_max + s->n_values + s->trace_state.len))
        return true; /* the failure is in `b` */
    char *start = b->ptr + b->len, *body = start + 1 + p->guess, *out = body;
    *start = SPANS;
    out = bytes_write(out, TRACE_ID, s->trace_id.bytes, TRACE_ID_SIZE);
    out = bytes_write(out, SPAN_ID, s->span_id.bytes, SPAN_ID_SIZE);
    if (s->trace_state.len) {
        *out++ = TRACE_STATE;
        out = pb_varint_write(out, s->trace_state.len);
        memcpy(out, s->trace_state.ptr, s->trace_state.len);
        out += s->trace_state.len;
    }
    if (!span_id_is_zero(&s->parent_id))
        out = bytes_write(out, PARENT_ID, s->parent_id.bytes, SPAN_ID_SIZE);
    out = plain_copy(out, p->bytes + p->head.at, p->head.n);
    if (s->start_ns)
        out = fixed64_write(out, START, s->start_ns);
    if (s->end_ns)
        out = fixed64_write(out, END, s->end_ns);
    if (s->values && !(out = values_write(out, p, s->values, s->values + s->n_values)))
        return false;
    if (s->flags) {
        uint32_t flags = htole32(s->flags);
        *out++ = (char)(FLAGS | 0x80);
        *out++ = FLAGS >> 7;
        memcpy(out, &flags, sizeof flags);
        out += sizeof flags;
    }
    size_t n = (size_t)(out - body);
    unsigned length = pb_varint_size(n);
    if (length != p->guess) {
        memmove(start + 1 + length, body, n);
        p->guess = length;
    }
    pb_varint_write(start + 1, n);
    b->len += 1 + length + n;
    return true;
}
