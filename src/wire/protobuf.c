#include "wire/protobuf.h"

int pb_varint_slow(struct pb *r, uint64_t *ret)
{
    uint64_t n = 0;
    const uint8_t *p = r->at;
    for (unsigned shift = 0; shift < 70; shift += 7, p++) {
        if (p == r->end)
            return ERR_TRUNCATED;
        n |= (uint64_t)(*p & 0x7f) << shift; /* what a tenth byte has too much is dropped */
        if (*p < 0x80) {
            r->at = p + 1;
            *ret = n;
            return 0;
        }
    }
    return ERR_INVALID;
}

int pb_skip_group(struct pb *r, uint32_t tag)
{
    uint32_t open[PB_GROUP_DEPTH_MAX];
    unsigned depth = 0;
    open[depth++] = tag >> 3;
    while (depth > 0) {
        uint64_t n;
        int err = pb_varint(r, &n);
        if (err)
            return err;
        if (n > UINT32_MAX || n < 8)
            return ERR_INVALID;
        switch (n & 7) {
        case PB_VARINT: {
            uint64_t value;
            err = pb_varint(r, &value);
            if (err)
                return err;
            break;
        }
        case PB_FIXED64:
        case PB_FIXED32: {
            ptrdiff_t size = (n & 7) == PB_FIXED64 ? 8 : 4;
            if (r->end - r->at < size)
                return ERR_TRUNCATED;
            r->at += size;
            break;
        }
        case PB_BYTES: {
            uint64_t len;
            err = pb_varint(r, &len);
            if (err)
                return err;
            if (len > (uint64_t)(r->end - r->at))
                return ERR_TRUNCATED;
            r->at += len;
            break;
        }
        case PB_GROUP:
            if (depth == PB_GROUP_DEPTH_MAX)
                return ERR_TOO_LARGE;
            open[depth++] = (uint32_t)n >> 3;
            break;
        case PB_GROUP_END:
            if (open[--depth] != (uint32_t)n >> 3)
                return ERR_INVALID;
            break;
        default:
            return ERR_INVALID;
        }
    }
    return 0;
}

void pb_close_slow(struct buf *b, struct pb_message m)
{
    if (b->failed)
        return;
    size_t n = b->len - m.body;
    unsigned size = pb_varint_size(n);
    if (size != m.guess) {
        if (size > m.guess && !buf_reserve(b, size - m.guess))
            return;
        memmove(b->ptr + m.body - m.guess + size, b->ptr + m.body, n);
        b->len = b->len - m.guess + size;
    }
    pb_varint_write(b->ptr + m.body - m.guess, n);
}
