/* Ids from counters: the number of a span in the process goes through a permutation of the 64-bit
 * numbers, keyed per process. So ids cost no random numbers, are unique within the process by
 * construction, and are as evenly spread as those of a good generator (which is what W3C's random
 * flag promises of a trace id). */
#ifndef SDK_ID_H
#define SDK_ID_H

#include "base/hash.h"

#include <stdbool.h>

struct id_keys {
    uint64_t span, trace_high, trace_low;
};

/* Lanes count spans each for themselves, 2^48 of them. */
static inline uint64_t id_number(uint32_t lane, uint64_t seq)
{
    return (uint64_t)lane << 48 | (seq & ((UINT64_C(1) << 48) - 1));
}

/* An id of zeros is none: the one number that maps to it gets 1 instead. */
static inline uint64_t id_nonzero(uint64_t id)
{
    return id ? id : 1;
}

static inline uint64_t id_span(const struct id_keys *keys, uint64_t number)
{
    return id_nonzero(hash_mix64(keys->span + number));
}

static inline uint64_t id_trace_low(const struct id_keys *keys, uint64_t number)
{
    return id_nonzero(hash_mix64(keys->trace_low + number));
}

static inline void id_trace(const struct id_keys *keys, uint64_t number, uint64_t ret[2])
{
    ret[0] = hash_mix64(keys->trace_high + number);
    ret[1] = id_trace_low(keys, number);
}

/* The id of a trace of which it was decided beforehand whether it is kept: its randomness, the low 56 bits, is made to
 * say so, and is even below the threshold or from it on. Of all traces it is even again, when as many are kept as the
 * threshold says. */
static inline void id_trace_decided(const struct id_keys *keys, uint64_t number, uint64_t threshold,
                                    bool kept, uint64_t ret[2])
{
    const uint64_t range = UINT64_C(1) << 56;
    id_trace(keys, number, ret);
    uint64_t from = kept ? threshold : 0, room = kept ? range - threshold : threshold;
    uint64_t even = (uint64_t)((unsigned __int128)(ret[1] & (range - 1)) * room >> 56);
    ret[1] = id_nonzero((ret[1] & ~(range - 1)) | (from + even));
}

#endif
