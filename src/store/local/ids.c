/* Writing. The numbers are sorted, and neighbours that are less than GAP_MAX apart belong to one sequence:
 * of numbers that were drawn, 8192 have a distance of 2^51. Each sequence has a base; a number is kept as
 * its sequence and its distance from the one before in it. Sorting costs more than writing eight bytes, so a
 * sample is looked at first: where hardly any of its numbers lies close to another, all were drawn. */
#include "store/local/ids.h"

#include "base/hash.h"

#include <endian.h>
#include <stdlib.h>

enum {
    SEQUENCE_MIN = 4, /* numbers, so that its base is worth it */
    SAMPLE = 256,     /* looked at first; one in NEIGHBOURS_IN of them must lie close to another */
    NEIGHBOURS_IN = 16,
};
#define GAP_MAX (UINT64_C(1) << 32)

/* Eight bytes of an id as the number that the permutation was applied to. */
static uint64_t undo(const uint8_t bytes[8])
{
    uint64_t id;
    memcpy(&id, bytes, sizeof id);
    return hash_unmix64(be64toh(id));
}

static void redo(uint64_t number, uint8_t ret[8])
{
    uint64_t id = htobe64(hash_mix64(number));
    memcpy(ret, &id, sizeof id);
}

static uint64_t zigzag(uint64_t n)
{
    return n << 1 ^ (0 - (n >> 63));
}

static uint64_t unzigzag(uint64_t n)
{
    return n >> 1 ^ (0 - (n & 1));
}

static int number_order(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static bool looks_drawn(const uint64_t *numbers, size_t n)
{
    uint64_t sample[SAMPLE];
    size_t n_sample = n < SAMPLE ? n : SAMPLE, near = 0;
    memcpy(sample, numbers + (n - n_sample) / 2, n_sample * sizeof *sample);
    qsort(sample, n_sample, sizeof *sample, number_order);
    for (size_t i = 1; i < n_sample; i++)
        near += sample[i] - sample[i - 1] < GAP_MAX;
    return near * NEIGHBOURS_IN < n_sample || near == 0;
}

struct item {
    uint64_t number;
    uint32_t at;
};

static int item_order(const void *a, const void *b)
{
    const struct item *x = a, *y = b;
    if (x->number != y->number)
        return x->number < y->number ? -1 : 1;
    return x->at < y->at ? -1 : x->at > y->at;
}

struct work {
    struct item items[IDS_MAX];
    uint64_t sequence[IDS_MAX]; /* of each row, from 1; 0: drawn */
    uint64_t bases[IDS_MAX / SEQUENCE_MIN], steps[IDS_MAX];
    size_t n_bases, n_steps;
};

static void sequences_find(struct work *k, const uint64_t *numbers, size_t n)
{
    for (size_t i = 0; i < n; i++)
        k->items[i] = (struct item){numbers[i], (uint32_t)i};
    qsort(k->items, n, sizeof *k->items, item_order);
    for (size_t i = 0, end; i < n; i = end) {
        for (end = i + 1; end < n && k->items[end].number - k->items[end - 1].number < GAP_MAX;)
            end++;
        bool is_sequence = end - i >= SEQUENCE_MIN;
        if (is_sequence)
            k->bases[k->n_bases++] = k->items[i].number;
        for (size_t j = i; j < end; j++)
            k->sequence[k->items[j].at] = is_sequence ? k->n_bases : 0;
    }
}

/* Number of numbers drawn. */
static size_t steps_make(struct work *k, const uint64_t *numbers, size_t n)
{
    uint64_t last[IDS_MAX / SEQUENCE_MIN];
    size_t n_drawn = 0;
    for (size_t i = 0; i < k->n_bases; i++)
        last[i] = k->bases[i] - 1;
    for (size_t i = 0; i < n; i++) {
        if (!k->sequence[i]) {
            n_drawn++;
            continue;
        }
        uint64_t *before = &last[k->sequence[i] - 1];
        k->steps[k->n_steps++] = zigzag(numbers[i] - *before - 1);
        *before = numbers[i];
    }
    return n_drawn;
}

static bool put_sequences(struct stream_writer *w, struct buf *out, struct work *k,
                          const uint64_t *numbers, size_t n)
{
    size_t before = out->len;
    k->n_bases = k->n_steps = 0;
    sequences_find(k, numbers, n);
    size_t n_drawn = steps_make(k, numbers, n);
    codec_put_varint(out, k->n_bases);
    for (size_t i = 0; i < k->n_bases; i++) {
        uint64_t base = htole64(k->bases[i]);
        buf_put(out, &base, sizeof base);
    }
    stream_put_sized(w, out, k->sequence, n);
    stream_put_sized(w, out, k->steps, k->n_steps);
    for (size_t i = 0; i < n && n_drawn; i++)
        if (!k->sequence[i]) {
            uint8_t bytes[8];
            redo(numbers[i], bytes);
            buf_put(out, bytes, sizeof bytes);
        }
    /* What takes eight bytes an id is read as ids. */
    bool smaller = buf_ok(out) && out->len - before < 8 * n;
    if (!smaller && buf_ok(out))
        out->len = before;
    return smaller;
}

void ids_put(struct stream_writer *w, struct buf *out, const uint8_t *ids, size_t n)
{
    uint64_t *numbers = n <= IDS_MAX ? malloc((n + 1) * sizeof *numbers) : NULL;
    struct work *k = NULL;
    for (size_t i = 0; i < n && numbers; i++)
        numbers[i] = undo(ids + 8 * i);
    if (numbers && !looks_drawn(numbers, n))
        k = malloc(sizeof *k);
    if (!k || !put_sequences(w, out, k, numbers, n))
        buf_put(out, ids, 8 * n);
    free(k);
    free(numbers);
}

static void put_sized(struct stream_writer *w, struct buf *out, const uint8_t *ids, size_t n)
{
    struct buf own = BUF_INIT;
    ids_put(w, &own, ids, n);
    codec_put_varint(out, own.len);
    buf_str(out, buf_as_str(&own));
    out->failed |= own.failed;
    buf_done(&own);
}

void ids_put_traces(struct stream_writer *w, struct buf *out, const uint8_t *ids, size_t n)
{
    uint8_t *halves = malloc(16 * n + 1);
    if (!halves) {
        out->failed = true;
        return;
    }
    uint8_t *ahead = halves + 8 * n;
    for (size_t i = 0; i < n; i++) {
        memcpy(halves + 8 * i, ids + 16 * i, 8);
        redo(undo(ids + 16 * i + 8) - undo(ids + 16 * i), ahead + 8 * i);
    }
    put_sized(w, out, halves, n);
    put_sized(w, out, ahead, n);
    free(halves);
}

/* ---- reading ---- */

static void sequences_get(struct codec_reader *r, size_t n, uint64_t *ret)
{
    uint64_t n_bases = codec_varint(r);
    const uint8_t *bytes = n_bases <= n ? codec_bytes(r, n_bases * 8) : NULL;
    const uint64_t *sequence = bytes ? stream_sized(r, n) : NULL;
    uint64_t *last = sequence && !r->err ? arena_array(r->arena, n_bases, sizeof *last) : NULL;
    if (!last) {
        r->err = r->err ? r->err : bytes ? ERR_NOMEM : ERR_CORRUPT;
        return;
    }
    size_t n_steps = 0, step = 0;
    for (size_t i = 0; i < n; i++) {
        if (sequence[i] > n_bases) {
            r->err = ERR_CORRUPT;
            return;
        }
        n_steps += sequence[i] != 0;
    }
    for (uint64_t i = 0; i < n_bases; i++) {
        memcpy(&last[i], bytes + i * 8, sizeof last[i]);
        last[i] = le64toh(last[i]) - 1;
    }
    const uint64_t *steps = stream_sized(r, n_steps);
    for (size_t i = 0; i < n && !r->err; i++) {
        if (sequence[i]) {
            uint64_t *before = &last[sequence[i] - 1];
            *before += unzigzag(steps[step++]) + 1;
            ret[i] = *before;
        } else {
            const uint8_t *drawn = codec_bytes(r, 8);
            ret[i] = drawn ? undo(drawn) : 0;
        }
    }
    if (!r->err && r->at != r->end)
        r->err = ERR_CORRUPT;
}

const uint8_t *ids_get(struct codec_reader *r, size_t n)
{
    if (r->err || (size_t)(r->end - r->at) == 8 * n)
        return codec_bytes(r, 8 * n);
    uint64_t *numbers = n <= IDS_MAX ? arena_array(r->arena, n, sizeof *numbers) : NULL;
    if (!numbers) {
        r->err = n <= IDS_MAX ? ERR_NOMEM : ERR_CORRUPT;
        return NULL;
    }
    sequences_get(r, n, numbers);
    uint8_t *bytes = (uint8_t *)numbers;
    for (size_t i = 0; i < n && !r->err; i++)
        redo(numbers[i], bytes + 8 * i);
    return r->err ? NULL : bytes;
}

static const uint8_t *get_sized(struct codec_reader *r, size_t n)
{
    uint64_t size = codec_varint(r);
    const uint8_t *part = codec_bytes(r, size);
    if (!part)
        return NULL;
    struct codec_reader own = codec_reader((struct str){(const char *)part, size}, r->arena);
    const uint8_t *ids = ids_get(&own, n);
    r->err = own.err;
    return ids;
}

const uint8_t *ids_get_traces(struct codec_reader *r, size_t n)
{
    const uint8_t *halves = get_sized(r, n), *ahead = halves ? get_sized(r, n) : NULL;
    uint8_t *ids = ahead ? arena_array(r->arena, n, 16) : NULL;
    if (ahead && !ids)
        r->err = ERR_NOMEM;
    for (size_t i = 0; ids && i < n; i++) {
        memcpy(ids + 16 * i, halves + 8 * i, 8);
        redo(undo(ahead + 8 * i) + undo(halves + 8 * i), ids + 16 * i + 8);
    }
    return ids;
}
