/* Spans that say nothing but what their place in the program lets them say: the values of its keys.
 * Nearly all are such. What all spans of a place share - name, kind, keys, and the bytes around them -
 * is encoded once (struct otlp_place, struct chrome_place); a span is then copies of that with its ids,
 * times and values in between, and gives byte for byte what the general encoder gives for it.
 *
 * Values stand in a row as they do in a lane's ring, in the order of the keys, numbers in the machine's
 * order: 8 bytes each (an integer; 0 or not for a boolean; a double), a text as its length and its bytes
 * padded to 8. */
#ifndef WIRE_PLAIN_H
#define WIRE_PLAIN_H

#include "model/span.h"

#include <endian.h>

#define PLAIN_KEYS_MAX 16
/* A text of so many bytes may have been cut in the middle of a character: it is no plain one. */
#define PLAIN_TEXT_MAX 2048

struct plain_place {
    struct str name;
    uint8_t kind; /* enum span_kind */
    uint32_t n_keys;
    struct {
        struct str name;
        uint8_t type; /* VALUE_STRING, VALUE_BOOL, VALUE_INT or VALUE_DOUBLE */
    } keys[PLAIN_KEYS_MAX];
};

struct plain_span {
    struct trace_id trace_id;
    struct span_id span_id, parent_id; /* zeros: a root */
    uint64_t start_ns, end_ns;         /* the end is not before the start */
    struct str trace_state;
    uint32_t flags;     /* as in struct span */
    uint32_t thread;    /* of formats that say it */
    const char *values; /* NULL: the span has no attributes, whatever the keys */
    size_t n_values;    /* bytes */
};

/* ---- for the encoders: reading values while writing them ---- */

/* Short runs of bytes are written in steps: where one begins there is room for a whole one, and what it
 * writes too much is written over by what follows. */
#define PLAIN_STEP 16
#define PLAIN_ROOM(n) ((n) + PLAIN_STEP)

static inline char *plain_copy(char *out, const char *from, size_t n)
{
    for (size_t i = 0; i < n; i += PLAIN_STEP)
        memcpy(out + i, from + i, PLAIN_STEP);
    return out + n;
}

/* A text among values, `*at` moved behind it. False: it is none. */
static inline bool plain_text(const char **at, const char *end, struct str *ret)
{
    uint64_t len, room;
    if (end - *at < 8)
        return false;
    memcpy(&len, *at, 8);
    room = (len + 7) & ~UINT64_C(7);
    if (len >= PLAIN_TEXT_MAX || room > (uint64_t)(end - *at - 8))
        return false;
    *ret = (struct str){*at + 8, len};
    *at += 8 + room;
    return true;
}

/* Eight bytes of such a text, which is padded, from `i` on, for a look at all of them: what is behind its
 * end is zeros. */
static inline uint64_t plain_text_word(struct str text, size_t i)
{
    uint64_t word;
    memcpy(&word, text.ptr + i, 8);
    size_t left = text.len - i;
    return left >= 8 ? word : le64toh(word) << (64 - 8 * left);
}

static inline bool plain_word(const char **at, const char *end, uint64_t *ret)
{
    if (end - *at < 8)
        return false;
    memcpy(ret, *at, 8);
    *at += 8;
    return true;
}

#endif
