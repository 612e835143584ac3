#include "base/hash.h"

#include "base/clock.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/random.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

uint64_t hash_bytes(const void *bytes, size_t n)
{
    return XXH3_64bits(bytes, n);
}

uint64_t hash_bytes_seed(const void *bytes, size_t n, uint64_t seed)
{
    return XXH3_64bits_withSeed(bytes, n, seed);
}

uint64_t hash_secret(void)
{
    static _Atomic uint64_t secret; /* 0: not drawn yet */
    uint64_t mine, known = atomic_load_explicit(&secret, memory_order_relaxed);
    if (known)
        return known;
    int errno_before = errno;
    if (getrandom(&mine, sizeof mine, GRND_NONBLOCK) != sizeof mine)
        mine = hash_mix64(clock_monotonic_ns() ^ (uintptr_t)&mine); /* early in the boot */
    errno = errno_before;
    mine |= 1;
    /* Of threads that draw at once the first one wins. */
    return atomic_compare_exchange_strong(&secret, &known, mine) ? mine : known;
}
