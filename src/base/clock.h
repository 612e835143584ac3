#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

#include "base/str.h"

#define NS_PER_US UINT64_C(1000)
#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_DAY (UINT64_C(86400) * NS_PER_S)
#define NS_PER_S UINT64_C(1000000000)

static inline uint64_t clock_ns(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}
static inline uint64_t clock_realtime_ns(void)
{
    return clock_ns(CLOCK_REALTIME);
}
static inline uint64_t clock_monotonic_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

/* RFC 3339 with nanoseconds and 'Z' ("2026-01-02T03:04:05.000000006Z"): 30 characters and a NUL. */
#define CLOCK_RFC3339_SIZE 31
void clock_rfc3339(char out[CLOCK_RFC3339_SIZE], uint64_t epoch_ns);

/* The reverse: any offset ("+01:00"), 0 to 9 digits of fraction, from 1970 on. A space before the
 * offset is taken for the '+' that a form decoder made of it. */
bool clock_parse_rfc3339(struct str text, uint64_t *ret_epoch_ns);

#endif
