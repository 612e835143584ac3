#include "store/local/stream.h"

#include <endian.h>
#include <math.h>
#include <stdlib.h>
#include <zstd.h>

enum { BYTES_RAW, BYTES_ZSTD, BYTES_SAME };
enum {
    NUMBERS_CONSTANT,
    NUMBERS_PACKED,
    NUMBERS_DICTIONARY,
    NUMBERS_PLANES,
    NUMBERS_QUOTIENTS,
    NUMBERS_DIFFERENCES = 128
};
enum { DICTIONARY_MAX = 256, LEVEL = 1, SHORT = 24 };

/* No stream has more items or bytes than this: a bound for what a damaged length can ask for. A fuzzer
 * would spend its time on filling long ones. */
#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
#define STREAM_MAX ((size_t)1 << 14)
#else
#define STREAM_MAX ((size_t)1 << 31)
#endif

int stream_writer_init(struct stream_writer *w)
{
    *w = (struct stream_writer){.zstd = ZSTD_createCCtx()};
    return w->zstd ? 0 : ERR_NOMEM;
}

void stream_writer_done(struct stream_writer *w)
{
    ZSTD_freeCCtx(w->zstd);
    buf_done(&w->room);
    free(w->numbers);
    free(w->bytes);
    *w = (struct stream_writer){0};
}

/* ---- writing ---- */

void stream_put_bytes(struct stream_writer *w, struct buf *out, const uint8_t *bytes, size_t n)
{
    if (n == 0)
        return;
    if (memcmp(bytes, bytes + 1, n - 1) == 0) {
        buf_byte(out, BYTES_SAME);
        buf_byte(out, (char)bytes[0]);
        return;
    }
    size_t m = 0;
    if (n >= SHORT) {
        buf_clear(&w->room);
        size_t bound = ZSTD_compressBound(n);
        if (!buf_reserve(&w->room, bound)) {
            out->failed = true;
            return;
        }
        m = ZSTD_compressCCtx(w->zstd, w->room.ptr, bound, bytes, n, LEVEL);
        if (ZSTD_isError(m) || m + m / 64 + 4 >= n)
            m = 0;
    }
    if (m) {
        buf_byte(out, BYTES_ZSTD);
        codec_put_varint(out, m);
        buf_put(out, w->room.ptr, m);
    } else {
        buf_byte(out, BYTES_RAW);
        buf_put(out, bytes, n);
    }
}

static bool writer_room(struct stream_writer *w, size_t n)
{
    if (n <= w->cap)
        return true;
    size_t cap = n < 8192 ? 8192 : n;
    uint64_t *numbers = realloc(w->numbers, cap * sizeof *numbers);
    if (numbers)
        w->numbers = numbers;
    uint8_t *bytes = realloc(w->bytes, cap);
    if (bytes)
        w->bytes = bytes;
    if (!numbers || !bytes)
        return false;
    w->cap = cap;
    return true;
}

static unsigned bits_of(uint64_t n)
{
    return n ? 64u - (unsigned)__builtin_clzll(n) : 0;
}

/* The lowest bits of v - base. */
static void put_bits(struct buf *out, const uint64_t *v, size_t n, uint64_t base, unsigned bits)
{
    if (bits == 0)
        return;
    if (!buf_reserve(out, (n * bits + 7) / 8 + 16))
        return;
    uint8_t *to = (uint8_t *)out->ptr + out->len;
    uint64_t mask = bits == 64 ? UINT64_MAX : (UINT64_C(1) << bits) - 1;
    unsigned __int128 held = 0;
    unsigned n_held = 0;
    for (size_t i = 0; i < n; i++) {
        held |= (unsigned __int128)((v[i] - base) & mask) << n_held;
        n_held += bits;
        if (n_held >= 64) {
            uint64_t word = htole64((uint64_t)held);
            memcpy(to, &word, 8);
            to += 8;
            held >>= 64;
            n_held -= 64;
        }
    }
    uint64_t word = htole64((uint64_t)held);
    memcpy(to, &word, 8);
    out->len += (n * bits + 7) / 8;
}

static void put_packed(struct buf *out, const uint64_t *v, size_t n, uint64_t base, unsigned bits)
{
    buf_byte(out, NUMBERS_PACKED);
    codec_put_varint(out, base);
    buf_byte(out, (char)bits);
    put_bits(out, v, n, base, bits);
}

/* Distinct values, up to DICTIONARY_MAX, with an index per item. */
struct dictionary {
    uint64_t values[DICTIONARY_MAX];
    uint32_t counts[DICTIONARY_MAX];
    unsigned n;
    uint16_t slots[1024]; /* value + 1 */
};

static bool dictionary_make(struct dictionary *d, const uint64_t *v, size_t n, uint8_t *indexes)
{
    d->n = 0;
    memset(d->slots, 0, sizeof d->slots);
    for (size_t i = 0; i < n; i++) {
        unsigned at = (unsigned)((v[i] * UINT64_C(0x9e3779b97f4a7c15)) >> 54);
        while (d->slots[at] && d->values[d->slots[at] - 1] != v[i])
            at = (at + 1) & 1023;
        if (!d->slots[at]) {
            if (d->n == DICTIONARY_MAX)
                return false;
            d->values[d->n] = v[i];
            d->counts[d->n] = 0;
            d->slots[at] = (uint16_t)++d->n;
        }
        unsigned k = d->slots[at] - 1u;
        d->counts[k]++;
        indexes[i] = (uint8_t)k;
    }
    return true;
}

/* What n symbols with these counts take at least, in bits. */
static double entropy_bits(const uint32_t *counts, unsigned k, size_t n)
{
    double bits = 0;
    for (unsigned i = 0; i < k; i++)
        if (counts[i])
            bits += counts[i] * log2((double)n / counts[i]);
    return bits;
}

static int value_order(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void put_dictionary(struct stream_writer *w, struct buf *out, struct dictionary *d, size_t n)
{
    uint64_t sorted[DICTIONARY_MAX];
    uint8_t place[DICTIONARY_MAX];
    memcpy(sorted, d->values, d->n * sizeof *sorted);
    qsort(sorted, d->n, sizeof *sorted, value_order);
    for (unsigned i = 0; i < d->n; i++) {
        uint64_t *found = bsearch(&d->values[i], sorted, d->n, sizeof *sorted, value_order);
        place[i] = (uint8_t)(found - sorted);
    }
    buf_byte(out, NUMBERS_DICTIONARY);
    codec_put_varint(out, d->n);
    for (unsigned i = 0; i < d->n; i++)
        codec_put_varint(out, i ? sorted[i] - sorted[i - 1] : sorted[0]);
    for (size_t i = 0; i < n; i++)
        w->bytes[i] = place[w->bytes[i]];
    stream_put_bytes(w, out, w->bytes, n);
}

static double planes_bits(const uint64_t *v, size_t n, uint64_t base, unsigned planes)
{
    double bits = 0;
    for (unsigned p = 0; p < planes; p++) {
        uint32_t counts[256] = {0};
        for (size_t i = 0; i < n; i++)
            counts[(v[i] - base) >> (8 * p) & 0xff]++;
        double own = entropy_bits(counts, 256, n);
        unsigned used = 0;
        for (unsigned i = 0; i < 256; i++)
            used += counts[i] != 0;
        own += used * 4 + 100; /* the table, the frame */
        bits += own < 8.0 * (double)n ? own : 8.0 * (double)n;
    }
    return bits;
}

static void put_planes(struct stream_writer *w, struct buf *out, const uint64_t *v, size_t n,
                       uint64_t base, unsigned planes)
{
    buf_byte(out, NUMBERS_PLANES);
    codec_put_varint(out, base);
    buf_byte(out, (char)planes);
    for (unsigned p = 0; p < planes; p++) {
        for (size_t i = 0; i < n; i++)
            w->bytes[i] = (uint8_t)((v[i] - base) >> (8 * p));
        stream_put_bytes(w, out, w->bytes, n);
    }
}

/* Of numbers between min and max, not all the same. */
static void put_plain(struct stream_writer *w, struct buf *out, const uint64_t *v, size_t n,
                      uint64_t min, uint64_t max)
{
    unsigned bits = bits_of(max - min);
    if (n < SHORT || bits <= 1) {
        put_packed(out, v, n, min, bits);
        return;
    }
    double packed = (double)n * bits;
    struct dictionary d;
    if (dictionary_make(&d, v, n, w->bytes)) {
        double own = entropy_bits(d.counts, d.n, n) + 100 + d.n * (4.0 + bits);
        if (own < 0.95 * packed) {
            put_dictionary(w, out, &d, n);
            return;
        }
    }
    /* Small ranges pack well, or had a dictionary. */
    unsigned planes = (bits + 7) / 8;
    if (bits > 4 && planes_bits(v, n, min, planes) < 0.97 * packed)
        put_planes(w, out, v, n, min, planes);
    else
        put_packed(out, v, n, min, bits);
}

void stream_put_numbers(struct stream_writer *w, struct buf *out, const uint64_t *v, size_t n)
{
    if (n == 0)
        return;
    if (!writer_room(w, n)) {
        out->failed = true;
        return;
    }
    uint64_t min = v[0], max = v[0];
    int64_t low = INT64_MAX, high = INT64_MIN;
    for (size_t i = 1; i < n; i++) {
        int64_t d = (int64_t)(v[i] - v[i - 1]);
        min = v[i] < min ? v[i] : min;
        max = v[i] > max ? v[i] : max;
        low = d < low ? d : low;
        high = d > high ? d : high;
    }
    if (min == max) {
        buf_byte(out, NUMBERS_CONSTANT);
        codec_put_varint(out, min);
        return;
    }
    uint64_t spread = (uint64_t)high - (uint64_t)low;
    if (n < 3 || bits_of(spread) + 1 >= bits_of(max - min)) {
        put_plain(w, out, v, n, min, max);
        return;
    }
    buf_byte(out, (char)NUMBERS_DIFFERENCES);
    size_t encoding_at = out->len - 1;
    codec_put_varint(out, v[0]);
    codec_put_zigzag(out, low);
    for (size_t i = 1; i < n; i++)
        w->numbers[i - 1] = v[i] - v[i - 1] - (uint64_t)low;
    size_t inner_at = out->len;
    if (spread == 0) {
        buf_byte(out, NUMBERS_CONSTANT);
        codec_put_varint(out, 0);
    } else {
        put_plain(w, out, w->numbers, n - 1, 0, spread);
    }
    if (!buf_ok(out))
        return;
    /* The inner encoding's number stands in the outer one's place. */
    out->ptr[encoding_at] = (char)(NUMBERS_DIFFERENCES + out->ptr[inner_at]);
    memmove(out->ptr + inner_at, out->ptr + inner_at + 1, out->len - inner_at - 1);
    out->len--;
}

/* The bits of quotients and remainders (Golomb 1966, Rice 1971): 1 + k and the quotient each. */
static uint64_t quotients_bits(const uint64_t *v, size_t n, unsigned k)
{
    uint64_t bits = (uint64_t)n * (k + 1);
    for (size_t i = 0; i < n; i++)
        bits += v[i] >> k;
    return bits;
}

static void put_quotients(struct buf *out, const uint64_t *v, size_t n, unsigned k, uint64_t bits)
{
    size_t m = (size_t)((bits - (uint64_t)n * k + 7) / 8), at = 0;
    buf_byte(out, NUMBERS_QUOTIENTS);
    buf_byte(out, (char)k);
    codec_put_varint(out, m);
    if (!buf_reserve(out, m))
        return;
    uint8_t *to = (uint8_t *)out->ptr + out->len;
    memset(to, 0, m);
    for (size_t i = 0; i < n; i++, at++) {
        at += v[i] >> k;
        to[at / 8] |= (uint8_t)(1 << at % 8);
    }
    out->len += m;
    put_bits(out, v, n, 0, k);
}

void stream_put_gaps(struct stream_writer *w, struct buf *out, const uint64_t *v, size_t n)
{
    uint64_t sum = 0, most = 0;
    for (size_t i = 0; i < n; i++) {
        sum += v[i];
        most |= v[i];
    }
    /* The best k is near the logarithm of the mean. */
    unsigned k = n && most < UINT32_MAX ? bits_of(sum / n) : 64;
    if (most == 0 || k > 32) {
        stream_put_numbers(w, out, v, n);
        return;
    }
    uint64_t bits = quotients_bits(v, n, k);
    for (uint64_t less; k && (less = quotients_bits(v, n, k - 1)) < bits; bits = less)
        k--;
    /* Never below a bit each: numbers that are nearly all the same do better as others are kept. */
    struct dictionary d;
    if (writer_room(w, n) && dictionary_make(&d, v, n, w->bytes) &&
        entropy_bits(d.counts, d.n, n) + 100 + 8.0 * d.n < 0.8 * (double)bits)
        put_dictionary(w, out, &d, n);
    else
        put_quotients(out, v, n, k, bits);
}

void stream_put_sized(struct stream_writer *w, struct buf *out, const uint64_t *v, size_t n)
{
    struct buf own = BUF_INIT;
    stream_put_numbers(w, &own, v, n);
    codec_put_varint(out, own.len);
    buf_str(out, buf_as_str(&own));
    out->failed |= own.failed;
    buf_done(&own);
}

void stream_put_list(struct stream_writer *w, struct buf *out, const struct str *items, size_t n)
{
    struct buf bytes = BUF_INIT;
    uint64_t *lengths = malloc((n + 1) * sizeof *lengths);
    size_t total = 0;
    if (!lengths) {
        out->failed = true;
        return;
    }
    for (size_t i = 0; i < n; i++) {
        lengths[i] = items[i].len;
        total += items[i].len;
    }
    if (buf_reserve(&bytes, total + 1))
        for (size_t i = 0; i < n; i++)
            buf_str(&bytes, items[i]);
    stream_put_sized(w, out, lengths, n);
    stream_put_bytes(w, out, (const uint8_t *)bytes.ptr, bytes.len);
    out->failed |= bytes.failed;
    buf_done(&bytes);
    free(lengths);
}

/* ---- reading ---- */

static void *reader_fail(struct codec_reader *r, int err)
{
    if (!r->err)
        r->err = err;
    r->at = r->end;
    return NULL;
}

/* Room for n items, also for none. */
static void *reader_room(struct codec_reader *r, size_t n, size_t size)
{
    if (r->err)
        return NULL;
    if (n > STREAM_MAX)
        return reader_fail(r, ERR_CORRUPT);
    void *room = arena_array(r->arena, n, size);
    return room ? room : reader_fail(r, ERR_NOMEM);
}

static const uint8_t *bytes_inflated(struct codec_reader *r, size_t n)
{
    uint64_t m = codec_varint(r);
    const uint8_t *from = codec_bytes(r, m);
    if (!from || ZSTD_getFrameContentSize(from, m) != n)
        return reader_fail(r, ERR_CORRUPT);
    uint8_t *to = reader_room(r, n, 1);
    if (to && ZSTD_decompress(to, n, from, m) != n)
        return reader_fail(r, ERR_CORRUPT);
    return to;
}

const uint8_t *stream_bytes(struct codec_reader *r, size_t n)
{
    if (n == 0)
        return reader_room(r, 0, 1);
    const uint8_t *how = codec_bytes(r, 1);
    if (!how)
        return NULL;
    if (*how == BYTES_RAW)
        return codec_bytes(r, n);
    if (*how == BYTES_ZSTD)
        return bytes_inflated(r, n);
    if (*how != BYTES_SAME)
        return reader_fail(r, ERR_CORRUPT);
    const uint8_t *byte = codec_bytes(r, 1);
    uint8_t *to = byte ? reader_room(r, n, 1) : NULL;
    if (to)
        memset(to, *byte, n);
    return to;
}

/* Value i of so many bits, from `size` bytes, which are enough. */
static uint64_t bits_at(const uint8_t *from, size_t size, unsigned bits, uint64_t base, size_t i)
{
    size_t at = i * bits, byte_at = at / 8;
    unsigned __int128 word = 0;
    memcpy(&word, from + byte_at, size - byte_at < 9 ? size - byte_at : 9);
    return base +
           ((uint64_t)(word >> (at % 8)) & (bits == 64 ? UINT64_MAX : (UINT64_C(1) << bits) - 1));
}

/* n values of so many bits from `size` bytes, which are enough. */
static void bits_read(const uint8_t *from, size_t size, unsigned bits, uint64_t base, uint64_t *v,
                      size_t n)
{
    uint64_t mask = bits == 64 ? UINT64_MAX : (UINT64_C(1) << bits) - 1;
    if (bits <= 56) {
        /* Whole words first; the last few would reach behind the end. */
        size_t whole = bits && size >= 8 ? (size - 8) * 8 / bits : 0, i = 0;
        for (whole = whole < n ? whole : n; i < whole; i++) {
            uint64_t word;
            memcpy(&word, from + i * bits / 8, sizeof word);
            v[i] = base + (le64toh(word) >> (i * bits % 8) & mask);
        }
        for (; i < n; i++)
            v[i] = bits_at(from, size, bits, base, i);
        return;
    }
    for (size_t i = 0; i < n; i++)
        v[i] = bits_at(from, size, bits, base, i);
}

static void numbers_packed(struct codec_reader *r, uint64_t *v, size_t n)
{
    uint64_t base = codec_varint(r);
    const uint8_t *byte = codec_bytes(r, 1);
    if (!byte)
        return;
    unsigned bits = *byte;
    if (bits > 64 || n > STREAM_MAX) {
        reader_fail(r, ERR_CORRUPT);
        return;
    }
    size_t size = (n * bits + 7) / 8;
    const uint8_t *from = codec_bytes(r, size);
    if (!from)
        return;
    bits_read(from, size, bits, base, v, n);
}

/* The values, zeros behind the last, and the indexes, which are below their number; NULL: failed. */
static const uint8_t *dictionary_read(struct codec_reader *r, uint64_t values[DICTIONARY_MAX],
                                      size_t n)
{
    uint64_t k = codec_varint(r);
    if (k == 0 || k > DICTIONARY_MAX)
        return reader_fail(r, ERR_CORRUPT);
    memset(values, 0, DICTIONARY_MAX * sizeof *values);
    for (uint64_t i = 0; i < k; i++)
        values[i] = (i ? values[i - 1] : 0) + codec_varint(r);
    const uint8_t *indexes = stream_bytes(r, n);
    uint8_t most = 0;
    for (size_t i = 0; indexes && i < n; i++)
        most = indexes[i] > most ? indexes[i] : most;
    return indexes && most >= k ? reader_fail(r, ERR_CORRUPT) : indexes;
}

static void numbers_dictionary(struct codec_reader *r, uint64_t *v, size_t n)
{
    uint64_t values[DICTIONARY_MAX];
    const uint8_t *indexes = dictionary_read(r, values, n);
    for (size_t i = 0; indexes && i < n; i++)
        v[i] = values[indexes[i]];
}

static void numbers_planes(struct codec_reader *r, uint64_t *v, size_t n)
{
    uint64_t base = codec_varint(r);
    const uint8_t *planes = codec_bytes(r, 1);
    if (!planes)
        return;
    if (*planes == 0 || *planes > 8) {
        reader_fail(r, ERR_CORRUPT);
        return;
    }
    for (size_t i = 0; i < n; i++)
        v[i] = base;
    for (unsigned p = 0; p < *planes; p++) {
        const uint8_t *bytes = stream_bytes(r, n);
        for (size_t i = 0; bytes && i < n; i++)
            v[i] += (uint64_t)bytes[i] << (8 * p);
    }
}

static void numbers_quotients(struct codec_reader *r, uint64_t *v, size_t n)
{
    const uint8_t *k = codec_bytes(r, 1);
    uint64_t m = k ? codec_varint(r) : 0;
    const uint8_t *high = codec_bytes(r, m);
    if (!high || *k > 32 || n > STREAM_MAX) {
        reader_fail(r, ERR_CORRUPT);
        return;
    }
    size_t size = (n * *k + 7) / 8, i = 0;
    const uint8_t *low = codec_bytes(r, size);
    if (!low)
        return;
    bits_read(low, size, *k, 0, v, n);
    uint64_t next = 0; /* bit behind the number before */
    for (uint64_t at = 0; at < m && i < n; at += sizeof(uint64_t)) {
        uint64_t word = 0;
        memcpy(&word, high + at, m - at < sizeof word ? m - at : sizeof word);
        for (word = le64toh(word); word && i < n; word &= word - 1) {
            uint64_t bit = 8 * at + (unsigned)__builtin_ctzll(word);
            v[i++] += (bit - next) << *k;
            next = bit + 1;
        }
    }
    if (i < n || (next + 7) / 8 != m)
        reader_fail(r, ERR_CORRUPT);
}

static void numbers_plain(struct codec_reader *r, uint64_t *v, size_t n, uint8_t encoding)
{
    switch (encoding) {
    case NUMBERS_CONSTANT: {
        uint64_t value = codec_varint(r);
        for (size_t i = 0; i < n; i++)
            v[i] = value;
        break;
    }
    case NUMBERS_PACKED:
        numbers_packed(r, v, n);
        break;
    case NUMBERS_DICTIONARY:
        numbers_dictionary(r, v, n);
        break;
    case NUMBERS_PLANES:
        numbers_planes(r, v, n);
        break;
    case NUMBERS_QUOTIENTS:
        numbers_quotients(r, v, n);
        break;
    default:
        reader_fail(r, ERR_CORRUPT);
    }
}

uint64_t *stream_numbers(struct codec_reader *r, size_t n)
{
    uint64_t *v = reader_room(r, n, sizeof *v);
    if (n == 0 || !v)
        return v;
    const uint8_t *encoding = codec_bytes(r, 1);
    if (!encoding)
        return NULL;
    if (*encoding < NUMBERS_DIFFERENCES) {
        numbers_plain(r, v, n, *encoding);
    } else {
        v[0] = codec_varint(r);
        uint64_t least = (uint64_t)codec_zigzag(r);
        numbers_plain(r, v + 1, n - 1, *encoding - NUMBERS_DIFFERENCES);
        for (size_t i = 1; i < n && !r->err; i++)
            v[i] += v[i - 1] + least;
    }
    return r->err ? NULL : v;
}

/* ---- as they are packed ---- */

static bool view_bits(struct codec_reader *r, size_t n, struct stream_view *v)
{
    v->base = codec_varint(r);
    const uint8_t *bits = codec_bytes(r, 1);
    if (!bits)
        return false;
    if (*bits > 64 || n > STREAM_MAX)
        return reader_fail(r, ERR_CORRUPT);
    v->how = *bits ? VIEW_BITS : VIEW_SAME;
    v->width = *bits;
    v->size = (n * *bits + 7) / 8;
    v->bytes = codec_bytes(r, v->size);
    if (!v->bytes || *bits == 0 || *bits > 8)
        return v->bytes != NULL;
    uint8_t *bytes = reader_room(r, n, 1);
    v->values = reader_room(r, DICTIONARY_MAX, sizeof *v->values);
    if (!bytes || !v->values)
        return false;
    v->n_values = 1u << *bits;
    for (unsigned i = 0; i < DICTIONARY_MAX; i++)
        v->values[i] = i < v->n_values ? v->base + i : 0;
    for (size_t i = 0; i < n; i++) {
        size_t at = i * *bits;
        unsigned two = v->bytes[at / 8] | (at / 8 + 1 < v->size ? v->bytes[at / 8 + 1] << 8 : 0);
        bytes[i] = (uint8_t)(two >> at % 8 & (v->n_values - 1));
    }
    v->how = VIEW_BYTES;
    v->bytes = bytes;
    return true;
}

static bool view_planes(struct codec_reader *r, size_t n, struct stream_view *v)
{
    v->base = codec_varint(r);
    const uint8_t *planes = codec_bytes(r, 1);
    if (!planes)
        return false;
    if (*planes == 0 || *planes > 8)
        return reader_fail(r, ERR_CORRUPT);
    v->how = VIEW_PLANES;
    v->width = *planes;
    for (unsigned p = 0; p < v->width; p++)
        if (!(v->planes[p] = stream_bytes(r, n)))
            return false;
    if (v->width > 1)
        return true;
    v->how = VIEW_BYTES;
    v->bytes = v->planes[0];
    v->values = reader_room(r, DICTIONARY_MAX, sizeof *v->values);
    v->n_values = DICTIONARY_MAX;
    for (unsigned i = 0; v->values && i < DICTIONARY_MAX; i++)
        v->values[i] = v->base + i;
    return v->values != NULL;
}

bool stream_view(struct codec_reader *r, size_t n, struct stream_view *ret)
{
    struct stream_view v = {.how = VIEW_SAME};
    uint8_t encoding = r->at < r->end && n ? *r->at : NUMBERS_QUOTIENTS;
    bool is_read = true;
    r->at += encoding < NUMBERS_QUOTIENTS;
    switch (encoding) {
    case NUMBERS_CONSTANT:
        v.base = codec_varint(r);
        is_read = n <= STREAM_MAX || reader_fail(r, ERR_CORRUPT);
        break;
    case NUMBERS_PACKED:
        is_read = view_bits(r, n, &v);
        break;
    case NUMBERS_DICTIONARY:
        v.how = VIEW_BYTES;
        v.n_values = DICTIONARY_MAX;
        v.values = reader_room(r, DICTIONARY_MAX, sizeof *v.values);
        is_read = v.values && (v.bytes = dictionary_read(r, v.values, n));
        while (is_read && v.n_values > 1 && !v.values[v.n_values - 1])
            v.n_values--;
        break;
    case NUMBERS_PLANES:
        is_read = view_planes(r, n, &v);
        break;
    default:
        v.how = VIEW_WIDE;
        is_read = (v.wide = stream_numbers(r, n)) != NULL;
    }
    if (!is_read || r->err)
        return false;
    *ret = v;
    return true;
}

uint64_t stream_view_at(const struct stream_view *v, size_t i)
{
    uint64_t n;
    switch (v->how) {
    case VIEW_SAME:
        return v->base;
    case VIEW_BYTES:
        return v->values[v->bytes[i]];
    case VIEW_BITS:
        return bits_at(v->bytes, v->size, v->width, v->base, i);
    case VIEW_PLANES:
        n = v->base;
        for (unsigned p = 0; p < v->width; p++)
            n += (uint64_t)v->planes[p][i] << (8 * p);
        return n;
    default:
        return v->wide[i];
    }
}

uint64_t *stream_view_all(const struct stream_view *v, size_t n, uint64_t *room)
{
    switch (v->how) {
    case VIEW_BITS:
        bits_read(v->bytes, v->size, v->width, v->base, room, n);
        break;
    case VIEW_BYTES:
        for (size_t i = 0; i < n; i++)
            room[i] = v->values[v->bytes[i]];
        break;
    case VIEW_WIDE:
        return v->wide;
    default:
        for (size_t i = 0; i < n; i++)
            room[i] = v->base;
        for (unsigned p = 0; v->how == VIEW_PLANES && p < v->width; p++)
            for (size_t i = 0; i < n; i++)
                room[i] += (uint64_t)v->planes[p][i] << (8 * p);
    }
    return room;
}

uint32_t *stream_numbers32(struct codec_reader *r, size_t n)
{
    uint32_t *v = reader_room(r, n, sizeof *v);
    if (n == 0 || !v)
        return v;
    uint64_t all = 0;
    if (r->at < r->end && *r->at == NUMBERS_DICTIONARY) {
        uint64_t values[DICTIONARY_MAX];
        r->at++;
        const uint8_t *indexes = dictionary_read(r, values, n);
        for (size_t i = 0; indexes && i < DICTIONARY_MAX; i++)
            all |= values[i];
        for (size_t i = 0; indexes && i < n; i++)
            v[i] = (uint32_t)values[indexes[i]];
    } else {
        const uint64_t *wide = stream_numbers(r, n);
        for (size_t i = 0; wide && i < n; i++) {
            all |= wide[i];
            v[i] = (uint32_t)wide[i];
        }
    }
    if (all > UINT32_MAX)
        return reader_fail(r, ERR_CORRUPT);
    return r->err ? NULL : v;
}

uint64_t *stream_sized(struct codec_reader *r, size_t n)
{
    uint64_t size = codec_varint(r);
    const uint8_t *part = codec_bytes(r, size);
    if (!part)
        return NULL;
    struct codec_reader own = codec_reader((struct str){(const char *)part, size}, r->arena);
    uint64_t *v = stream_numbers(&own, n);
    if (codec_finish(&own))
        return reader_fail(r, own.err);
    return v;
}

/* The same as numbers_quotients, added up at once. False: not that encoding. */
static bool places_of_quotients(struct codec_reader *r, uint32_t *places, size_t n, uint32_t end)
{
    if (r->at == r->end || *r->at != NUMBERS_QUOTIENTS)
        return false;
    codec_bytes(r, 1);
    const uint8_t *k = codec_bytes(r, 1);
    uint64_t m = k ? codec_varint(r) : 0;
    const uint8_t *high = codec_bytes(r, m);
    size_t size = k && *k <= 32 ? (n * *k + 7) / 8 : 0, i = 0;
    const uint8_t *low = codec_bytes(r, size);
    if (!high || !low || *k > 32) {
        reader_fail(r, ERR_CORRUPT);
        return true;
    }
    const unsigned bits = *k;
    const uint64_t mask = (UINT64_C(1) << bits) - 1;
    const size_t whole = bits && size >= 8 ? (size - 8) * 8 / bits : 0;
    uint64_t remainders = 0, bit = 0;
    for (size_t until = whole < n ? whole : n, from = 0; i < until; i++, from += bits) {
        uint64_t word;
        memcpy(&word, low + from / 8, sizeof word);
        remainders += le64toh(word) >> (from % 8) & mask;
        places[i] = (uint32_t)(remainders + i);
    }
    for (; i < n; i++) {
        remainders += bits_at(low, size, bits, 0, i);
        places[i] = (uint32_t)(remainders + i);
    }
    /* The quotients up to number i add up to the bit of its one, less i. */
    uint32_t *to = places, *behind = places + n;
    for (uint64_t at = 0; at < m; at += sizeof(uint64_t)) {
        uint64_t word = 0;
        memcpy(&word, high + at, m - at < sizeof word ? m - at : sizeof word);
        word = le64toh(word);
        if (__builtin_popcountll(word) > behind - to) {
            reader_fail(r, ERR_CORRUPT);
            return true;
        }
        for (uint64_t less = at * 8 - (uint64_t)(to - places); word; word &= word - 1, less--) {
            uint64_t quotients = less + (unsigned)__builtin_ctzll(word);
            *to++ += (uint32_t)(quotients << bits);
            bit = quotients;
        }
    }
    /* They ascend, so that the last tells of all. */
    if (to < behind || (n && ((bit + n - 1) / 8 + 1 != m || bit > end >> bits ||
                              (bit << bits) + remainders + n > end)))
        reader_fail(r, ERR_CORRUPT);
    return true;
}

uint32_t *stream_places(struct codec_reader *r, size_t n, uint32_t end)
{
    uint64_t size = codec_varint(r), next = 0;
    const uint8_t *part = codec_bytes(r, size);
    uint32_t *places = part ? reader_room(r, n, sizeof *places) : NULL;
    if (!places)
        return NULL;
    struct codec_reader own = codec_reader((struct str){(const char *)part, size}, r->arena);
    bool are_made = places_of_quotients(&own, places, n, end);
    const uint64_t *gaps = are_made ? NULL : stream_numbers(&own, n);
    if (codec_finish(&own))
        return reader_fail(r, own.err);
    for (size_t i = 0; gaps && i < n; i++) {
        if (gaps[i] >= end - next)
            return reader_fail(r, ERR_CORRUPT);
        next += gaps[i] + 1;
        places[i] = (uint32_t)next - 1;
    }
    return places;
}

struct str *stream_list(struct codec_reader *r, size_t n)
{
    uint64_t *lengths = stream_sized(r, n);
    struct str *items = lengths ? reader_room(r, n, sizeof *items) : NULL;
    if (!items)
        return NULL;
    size_t total = 0;
    for (size_t i = 0; i < n; i++) {
        if (lengths[i] > STREAM_MAX - total)
            return reader_fail(r, ERR_CORRUPT);
        total += lengths[i];
    }
    const char *bytes = (const char *)stream_bytes(r, total);
    if (!bytes)
        return NULL;
    for (size_t i = 0; i < n; i++) {
        items[i] = (struct str){bytes, lengths[i]};
        bytes += lengths[i];
    }
    return items;
}
