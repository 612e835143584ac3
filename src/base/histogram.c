#include "base/histogram.h"

#include <stdlib.h>
#include <string.h>

/* ceil(2^(63 + i/32)): where bucket i of an octave begins, in a mantissa of 64 bits. */
static const uint64_t bound[HISTOGRAM_OCTAVE] = {
    UINT64_C(0x8000000000000000), UINT64_C(0x82cd8698ac2ba1d8), UINT64_C(0x85aac367cc487b15),
    UINT64_C(0x88980e8092da8528), UINT64_C(0x8b95c1e3ea8bd6e7), UINT64_C(0x8ea4398b45cd53c1),
    UINT64_C(0x91c3d373ab11c337), UINT64_C(0x94f4efa8fef70962), UINT64_C(0x9837f0518db8a970),
    UINT64_C(0x9b8d39b9d54e5539), UINT64_C(0x9ef5326091a111ae), UINT64_C(0xa27043030c496819),
    UINT64_C(0xa5fed6a9b15138eb), UINT64_C(0xa9a15ab4ea7c0ef9), UINT64_C(0xad583eea42a14ac7),
    UINT64_C(0xb123f581d2ac2590), UINT64_C(0xb504f333f9de6485), UINT64_C(0xb8fbaf4762fb9eea),
    UINT64_C(0xbd08a39f580c36bf), UINT64_C(0xc12c4cca66709457), UINT64_C(0xc5672a115506dade),
    UINT64_C(0xc9b9bd866e2f27a3), UINT64_C(0xce248c151f8480e4), UINT64_C(0xd2a81d91f12ae45b),
    UINT64_C(0xd744fccad69d6af5), UINT64_C(0xdbfbb797daf23756), UINT64_C(0xe0ccdeec2a94e112),
    UINT64_C(0xe5b906e77c8348a9), UINT64_C(0xeac0c6e7dd24392f), UINT64_C(0xefe4b99bdcdaf5cc),
    UINT64_C(0xf5257d152486cc2d), UINT64_C(0xfa83b2db722a033b),
};

/* The last bucket that begins at or below each 64th of an octave. No 64th has two beginnings, so
 * one comparison decides. */
static const uint8_t bucket_of_64th[64] = {
    0,  0,  1,  2,  2,  3,  4,  4,  5,  6,  6,  7,  7,  8,  9,  9,  10, 10, 11, 12, 12, 13,
    13, 14, 14, 15, 15, 16, 16, 17, 17, 18, 18, 19, 19, 20, 20, 21, 21, 21, 22, 22, 23, 23,
    24, 24, 25, 25, 25, 26, 26, 27, 27, 27, 28, 28, 29, 29, 29, 30, 30, 30, 31, 31};

int histogram_index(uint64_t value)
{
    int octave = 63 - __builtin_clzll(value);
    uint64_t mantissa = value << (63 - octave);
    unsigned i = bucket_of_64th[mantissa >> 57 & 63];
    i += i + 1 < HISTOGRAM_OCTAVE && mantissa >= bound[i + 1];
    /* Powers of two are the only values that lie on a border, and belong to the bucket below. */
    return octave * HISTOGRAM_OCTAVE + (int)i - (mantissa == UINT64_C(1) << 63);
}

static uint64_t *page_of(struct histogram *h, unsigned at)
{
    uint64_t **page = &h->pages[at / HISTOGRAM_OCTAVE];
    if (!*page)
        *page = calloc(HISTOGRAM_OCTAVE, sizeof **page);
    return *page;
}

static uint64_t sum_of(uint64_t sum, uint64_t value, uint64_t n)
{
    uint64_t product;
    if (__builtin_mul_overflow(value, n, &product) || __builtin_add_overflow(sum, product, &sum))
        return UINT64_MAX;
    return sum;
}

static void widen(struct histogram *h, uint64_t min, uint64_t max)
{
    if (h->count == 0 || min < h->min)
        h->min = min;
    if (h->count == 0 || max > h->max)
        h->max = max;
}

int histogram_add(struct histogram *h, uint64_t value, uint64_t n)
{
    if (n == 0)
        return 0;
    if (value == 0) {
        h->zero_count += n;
    } else {
        unsigned at = (unsigned)(histogram_index(value) + 1);
        uint64_t *page = page_of(h, at);
        if (!page)
            return ERR_NOMEM;
        page[at % HISTOGRAM_OCTAVE] += n;
    }
    widen(h, value, value);
    h->count += n;
    h->sum = sum_of(h->sum, value, n);
    return 0;
}

int histogram_merge(struct histogram *into, const struct histogram *from)
{
    if (from->count == 0)
        return 0;
    for (unsigned p = 0; p < HISTOGRAM_PAGES; p++)
        if (from->pages[p] && !page_of(into, p * HISTOGRAM_OCTAVE))
            return ERR_NOMEM;
    for (unsigned p = 0; p < HISTOGRAM_PAGES; p++)
        for (unsigned i = 0; from->pages[p] && i < HISTOGRAM_OCTAVE; i++)
            into->pages[p][i] += from->pages[p][i];
    widen(into, from->min, from->max);
    into->count += from->count;
    into->zero_count += from->zero_count;
    into->sum = sum_of(into->sum, from->sum, 1);
    return 0;
}

/* 2^(index/32) as a double, without libm. */
static double border(int index)
{
    int octave = (index + HISTOGRAM_OCTAVE) / HISTOGRAM_OCTAVE - 1; /* down, also for -1 */
    double mantissa = (double)bound[index - octave * HISTOGRAM_OCTAVE], power;
    uint64_t bits = (uint64_t)(1023 + octave - 63) << 52;
    memcpy(&power, &bits, sizeof power);
    return mantissa * power;
}

double histogram_quantile(const struct histogram *h, double q)
{
    double wanted = q * (double)h->count;
    uint64_t below = h->zero_count;
    if (h->count == 0)
        return 0;
    if (!(q > 0))
        return (double)h->min;
    if (q >= 1)
        return (double)h->max;
    if ((double)below >= wanted)
        return 0;
    for (unsigned p = 0; p < HISTOGRAM_PAGES; p++) {
        for (unsigned i = 0; h->pages[p] && i < HISTOGRAM_OCTAVE; i++) {
            below += h->pages[p][i];
            if (h->pages[p][i] == 0 || (double)below < wanted)
                continue;
            int index = (int)(p * HISTOGRAM_OCTAVE + i) - 1;
            double low = border(index), high = border(index + 1);
            /* The value whose relative distance to both borders is the same. */
            double value = 2 * low * high / (low + high);
            if (value < (double)h->min)
                value = (double)h->min;
            return value > (double)h->max ? (double)h->max : value;
        }
    }
    return (double)h->max;
}

/* Of the smallest value that is not 0; there is one. */
static int lowest_index(const struct histogram *h)
{
    int at = 0;
    if (h->min)
        return histogram_index(h->min);
    while (!h->pages[at / HISTOGRAM_OCTAVE] ||
           !h->pages[at / HISTOGRAM_OCTAVE][at % HISTOGRAM_OCTAVE])
        at++;
    return at - 1;
}

struct histogram_row histogram_buckets(const struct histogram *h, uint64_t *ret_counts, size_t max)
{
    struct histogram_row row = {.scale = HISTOGRAM_SCALE};
    if (h->count == h->zero_count)
        return row;
    int lowest = lowest_index(h), highest = histogram_index(h->max);
    int shift = 0;
    while ((size_t)((highest >> shift) - (lowest >> shift)) >= max)
        shift++;
    row.scale -= shift;
    row.offset = lowest >> shift;
    row.n = (size_t)((highest >> shift) - (lowest >> shift)) + 1;
    memset(ret_counts, 0, row.n * sizeof *ret_counts);
    for (unsigned p = 0; p < HISTOGRAM_PAGES; p++) {
        for (unsigned i = 0; h->pages[p] && i < HISTOGRAM_OCTAVE; i++) {
            int index = (int)(p * HISTOGRAM_OCTAVE + i) - 1;
            if (h->pages[p][i])
                ret_counts[(index >> shift) - row.offset] += h->pages[p][i];
        }
    }
    return row;
}

void histogram_done(struct histogram *h)
{
    for (unsigned p = 0; p < HISTOGRAM_PAGES; p++)
        free(h->pages[p]);
    memset(h, 0, sizeof *h);
}
