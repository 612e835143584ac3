/* The wire format of protobuf, field by field. Reading: a cursor over one message, in line because
 * the decoders spend their time here. Writing: onto a `buf`, whose failure is sticky.
 * Source: protobuf.dev/programming-guides/encoding. */
#ifndef WIRE_PROTOBUF_H
#define WIRE_PROTOBUF_H

#include "base/buf.h"

#include <endian.h>

enum pb_type {
    PB_VARINT = 0,
    PB_FIXED64 = 1,
    PB_BYTES = 2,
    PB_GROUP = 3,
    PB_GROUP_END = 4,
    PB_FIXED32 = 5,
};

/* What a field is told apart by: its number and its type. A field of a known number but of another
 * type is an unknown field. */
#define PB_TAG(number, type) ((uint32_t)(number) << 3 | (type))

/* Groups (long out of use, but allowed as unknown fields) are passed over up to this depth. */
#define PB_GROUP_DEPTH_MAX 32

/* ---- reading ---- */

struct pb {
    const uint8_t *at, *end;
};

struct pb_field {
    uint32_t tag;       /* PB_TAG; of a group only the start is reported, the rest passed over */
    uint64_t n;         /* varint and fixed; the length of bytes */
    const uint8_t *ptr; /* bytes */
};

static inline struct pb pb_from_str(struct str s)
{
    static const uint8_t nothing[1];
    const uint8_t *start = s.ptr ? (const uint8_t *)s.ptr : nothing;
    return (struct pb){start, start + s.len};
}
static inline struct pb pb_from_field(const struct pb_field *f)
{
    return (struct pb){f->ptr, f->ptr + f->n};
}
static inline struct str pb_as_str(const struct pb_field *f)
{
    return (struct str){(const char *)f->ptr, f->n};
}

/* 0, ERR_TRUNCATED, or ERR_INVALID beyond ten bytes. */
MUST_USE int pb_varint_slow(struct pb *r, uint64_t *ret);
static inline __attribute__((always_inline)) int pb_varint(struct pb *r, uint64_t *ret)
{
    if (__builtin_expect(r->at < r->end && *r->at < 0x80, 1)) {
        *ret = *r->at++;
        return 0;
    }
    if (r->end - r->at >= 2 && r->at[1] < 0x80) {
        *ret = (uint64_t)(r->at[0] & 0x7f) | (uint64_t)r->at[1] << 7;
        r->at += 2;
        return 0;
    }
    int err = pb_varint_slow(r, ret);
    if (err > 0)
        __builtin_unreachable(); /* what is not 0 is an error, for compilers and analyzers to know
                                  */
    return err;
}

/* At a group's start tag: moves past its end. */
MUST_USE int pb_skip_group(struct pb *r, uint32_t tag);

/* 1 with a field, 0 at the end of the message, or an error; then `r->at` is where. */
static inline __attribute__((always_inline)) int pb_next(struct pb *r, struct pb_field *ret)
{
    const uint8_t *before = r->at;
    uint64_t tag, n;
    if (before == r->end)
        return 0;
    int err = pb_varint(r, &tag);
    if (__builtin_expect(err, 0))
        return err;
    if (__builtin_expect(tag > UINT32_MAX || tag < 8, 0)) {
        r->at = before;
        return ERR_INVALID;
    }
    ret->tag = (uint32_t)tag;
    switch (tag & 7) {
    case PB_VARINT:
        err = pb_varint(r, &ret->n);
        return __builtin_expect(err, 0) ? err : 1;
    case PB_BYTES:
        err = pb_varint(r, &n);
        if (__builtin_expect(err, 0))
            return err;
        if (__builtin_expect(n > (uint64_t)(r->end - r->at), 0))
            return ERR_TRUNCATED;
        ret->n = n;
        ret->ptr = r->at;
        r->at += n;
        return 1;
    case PB_FIXED64:
        if (__builtin_expect(r->end - r->at < 8, 0))
            return ERR_TRUNCATED;
        memcpy(&n, r->at, 8);
        ret->n = le64toh(n);
        r->at += 8;
        return 1;
    case PB_FIXED32: {
        uint32_t half;
        if (__builtin_expect(r->end - r->at < 4, 0))
            return ERR_TRUNCATED;
        memcpy(&half, r->at, 4);
        ret->n = le32toh(half);
        r->at += 4;
        return 1;
    }
    case PB_GROUP:
        err = pb_skip_group(r, (uint32_t)tag);
        return __builtin_expect(err, 0) ? err : 1;
    default:
        r->at = before;
        return ERR_INVALID;
    }
}

/* ---- writing ---- */

static inline unsigned pb_varint_size(uint64_t n)
{
    /* Bits in use, seven a byte; zero takes one byte. */
    return (unsigned)(64 - __builtin_clzll(n | 1) + 6) / 7;
}
/* `out` has the room. Returns past what was written. */
static inline char *pb_varint_write(char *out, uint64_t n)
{
    while (n >= 0x80) {
        *out++ = (char)(n | 0x80);
        n >>= 7;
    }
    *out++ = (char)n;
    return out;
}
enum { PB_VARINT_BYTES_MAX = 10, PB_TAG_BYTES_MAX = 5 };

/* In line: with a constant tag and length most of each is gone. */
static inline void pb_put_varint(struct buf *b, uint32_t tag, uint64_t n)
{
    if (!buf_reserve(b, PB_TAG_BYTES_MAX + PB_VARINT_BYTES_MAX))
        return;
    char *out = pb_varint_write(b->ptr + b->len, tag);
    out = pb_varint_write(out, n);
    b->len = (size_t)(out - b->ptr);
}

static inline void pb_put_fixed64(struct buf *b, uint32_t tag, uint64_t n)
{
    if (!buf_reserve(b, PB_TAG_BYTES_MAX + sizeof n))
        return;
    char *out = pb_varint_write(b->ptr + b->len, tag);
    n = htole64(n);
    memcpy(out, &n, sizeof n);
    b->len = (size_t)(out - b->ptr) + sizeof n;
}

static inline void pb_put_fixed32(struct buf *b, uint32_t tag, uint32_t n)
{
    if (!buf_reserve(b, PB_TAG_BYTES_MAX + sizeof n))
        return;
    char *out = pb_varint_write(b->ptr + b->len, tag);
    n = htole32(n);
    memcpy(out, &n, sizeof n);
    b->len = (size_t)(out - b->ptr) + sizeof n;
}

static inline void pb_put_bytes(struct buf *b, uint32_t tag, const void *bytes, size_t n)
{
    if (n > SIZE_MAX - PB_TAG_BYTES_MAX - PB_VARINT_BYTES_MAX) {
        b->failed = true;
        return;
    }
    if (!buf_reserve(b, PB_TAG_BYTES_MAX + PB_VARINT_BYTES_MAX + n))
        return;
    char *out = pb_varint_write(b->ptr + b->len, tag);
    out = pb_varint_write(out, n);
    if (n)
        memcpy(out, bytes, n);
    b->len = (size_t)(out - b->ptr) + n;
}
static inline void pb_put_str(struct buf *b, uint32_t tag, struct str s)
{
    pb_put_bytes(b, tag, s.ptr, s.len);
}

/* A message whose length is not known yet: `guess` bytes are left for it, and when it needs another
 * number of bytes, `pb_close` moves what was written in between. The length is always minimal. */
struct pb_message {
    size_t body;
    unsigned guess;
};
static inline struct pb_message pb_open(struct buf *b, uint32_t tag, unsigned guess)
{
    if (!buf_reserve(b, PB_TAG_BYTES_MAX + guess))
        return (struct pb_message){0};
    char *out = pb_varint_write(b->ptr + b->len, tag) + guess;
    b->len = (size_t)(out - b->ptr);
    return (struct pb_message){b->len, guess};
}

void pb_close_slow(struct buf *b, struct pb_message m);
static inline void pb_close(struct buf *b, struct pb_message m)
{
    size_t n = b->len - m.body;
    if (m.guess == 1 && n < 0x80 && !b->failed) {
        b->ptr[m.body - 1] = (char)n;
    } else if (m.guess == 2 && n >= 0x80 && n < 0x4000 && !b->failed) {
        b->ptr[m.body - 2] = (char)(n | 0x80);
        b->ptr[m.body - 1] = (char)(n >> 7);
    } else {
        pb_close_slow(b, m);
    }
}

#endif
