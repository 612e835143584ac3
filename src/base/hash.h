/* XXH3 for tables, filters and checksums; a bijective 64-bit mix for ids. */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include "base/str.h"

uint64_t hash_bytes(const void *bytes, size_t n);
uint64_t hash_bytes_seed(const void *bytes, size_t n, uint64_t seed);

static inline uint64_t hash_str(struct str s)
{
    return hash_bytes(s.ptr, s.len);
}

/* The seed of every table whose keys come from outside: who does not know it cannot send keys that
 * all fall into one slot. Drawn once; another one in each process, so it must not reach a file. */
uint64_t hash_secret(void);

/* A permutation of the 64-bit numbers (the finaliser of SplitMix64, Steele et al. 2014). */
static inline uint64_t hash_mix64(uint64_t x)
{
    x ^= x >> 30;
    x *= UINT64_C(0xbf58476d1ce4e5b9);
    x ^= x >> 27;
    x *= UINT64_C(0x94d049bb133111eb);
    x ^= x >> 31;
    return x;
}

/* hash_unmix64(hash_mix64(x)) == x: the same steps backwards, with the inverse factors modulo 2^64. */
static inline uint64_t hash_unmix64(uint64_t x)
{
    x ^= x >> 31 ^ x >> 62;
    x *= UINT64_C(0x319642b2d24d8ec3);
    x ^= x >> 27 ^ x >> 54;
    x *= UINT64_C(0x96de1b173f119089);
    x ^= x >> 30 ^ x >> 60;
    return x;
}

#endif
