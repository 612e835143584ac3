/* A slice of bytes: not terminated, not owned. Who keeps it copies it. */
#ifndef BASE_STR_H
#define BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct str {
    const char *ptr;
    size_t len;
};

#define STR(literal) ((struct str){"" literal, sizeof(literal) - 1})
#define STR_NONE ((struct str){NULL, 0})
/* printf("%.*s", STR_ARG(s)) */
#define STR_ARG(s) (int)(s).len, (s).ptr ? (s).ptr : ""

static inline struct str str_from(const char *terminated)
{
    return (struct str){terminated, terminated ? strlen(terminated) : 0};
}

static inline bool str_eq(struct str a, struct str b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

static inline bool str_starts(struct str s, struct str prefix)
{
    return s.len >= prefix.len && (prefix.len == 0 || memcmp(s.ptr, prefix.ptr, prefix.len) == 0);
}

static inline struct str str_skip(struct str s, size_t n)
{
    return n >= s.len ? (struct str){s.ptr + s.len, 0} : (struct str){s.ptr + n, s.len - n};
}

/* Byte order, shorter first on a tie: <0, 0, >0. */
int str_cmp(struct str a, struct str b);
/* ASCII letters without case, as in HTTP header names. */
bool str_eq_nocase(struct str a, struct str b);
struct str str_trim(struct str s);
/* Splits at the first `at`: returns what stands before it and leaves the rest in `rest`. Without
 * `at` all of it is returned and `rest` becomes STR_NONE. */
struct str str_split(struct str s, char at, struct str *ret_rest);
bool str_is_utf8(struct str s);

/* Whole-string numbers: no sign prefix '+', no spaces, no overflow. */
bool str_to_u64(struct str s, uint64_t *ret);
bool str_to_i64(struct str s, int64_t *ret);

/* A decimal number of at most 127 characters, whatever the locale: digits, one '.', an exponent, a
 * '-' or '+' in front. Not "inf" or "nan", nor what is beyond a double. */
bool str_to_double(struct str s, double *ret);
/* "2h45m", "1.5s", "200ms", "10us", "7ns", "0": Go's durations, in nanoseconds, not negative. */
bool str_to_duration_ns(struct str s, uint64_t *ret);
/* The same, or days: "7d". */
bool str_to_age_ns(struct str s, uint64_t *ret);
/* A whole number, with K, M, G or T (in either case) for powers of 1024. */
bool str_to_bytes(struct str s, uint64_t *ret);

/* Lower-case hexadecimal. `hex_put` writes 2*n characters, no terminator. `hex_get` takes exactly
 * 2*n characters in either case. */
void hex_put(char *out, const uint8_t *bytes, size_t n);
bool hex_get(uint8_t *out, struct str hex, size_t n);
/* The same without capital letters, from a place where 2*n characters stand. On failure `out` may
 * have been written. */
bool hex_get_lower(uint8_t *out, const char *digits, size_t n);

#endif
