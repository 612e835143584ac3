/* 48 bytes in hexadecimal, numbers with the highest byte first:
 *
 *   0  the first start, 8  the last start of the time range, 16  the start of the place, 24  its trace id,
 *   40  a checksum of the bytes before it, seeded with the question.
 *
 * The checksum keeps apart cursors of different searches and finds those that were cut or changed; it is no secret:
 * whoever forges one only gets an answer that they could have asked for. */
#include "web/cursor.h"

#include "base/hash.h"

enum { SIZE = CURSOR_TEXT_LEN / 2, CHECKED = SIZE - 8 };

static void put_u64(uint8_t *to, uint64_t n)
{
    for (int i = 8; i-- > 0; n >>= 8)
        to[i] = (uint8_t)n;
}

static uint64_t get_u64(const uint8_t *from)
{
    uint64_t n = 0;
    for (int i = 0; i < 8; i++)
        n = n << 8 | from[i];
    return n;
}

void cursor_put(char text[CURSOR_TEXT_LEN], const struct cursor *cursor, uint64_t question)
{
    uint8_t bytes[SIZE];
    put_u64(bytes, cursor->start_min_ns);
    put_u64(bytes + 8, cursor->start_max_ns);
    put_u64(bytes + 16, cursor->place.start_ns);
    memcpy(bytes + 24, cursor->place.id.bytes, TRACE_ID_SIZE);
    put_u64(bytes + CHECKED, hash_bytes_seed(bytes, CHECKED, question));
    hex_put(text, bytes, SIZE);
}

bool cursor_get(struct cursor *ret, struct str text, uint64_t question)
{
    uint8_t bytes[SIZE];
    if (!hex_get(bytes, text, SIZE) ||
        get_u64(bytes + CHECKED) != hash_bytes_seed(bytes, CHECKED, question))
        return false;
    *ret = (struct cursor){
        .start_min_ns = get_u64(bytes),
        .start_max_ns = get_u64(bytes + 8),
        .place.start_ns = get_u64(bytes + 16),
    };
    memcpy(ret->place.id.bytes, bytes + 24, TRACE_ID_SIZE);
    return true;
}
