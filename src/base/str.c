#include "base/str.h"

#include "base/clock.h"

#include <endian.h>
#include <locale.h>
#include <stdlib.h>

int str_cmp(struct str a, struct str b)
{
    size_t shorter = a.len < b.len ? a.len : b.len;
    int order = shorter ? memcmp(a.ptr, b.ptr, shorter) : 0;
    if (order)
        return order;
    return a.len < b.len ? -1 : a.len > b.len;
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
}

bool str_eq_nocase(struct str a, struct str b)
{
    if (a.len != b.len)
        return false;
    for (size_t i = 0; i < a.len; i++)
        if (lower(a.ptr[i]) != lower(b.ptr[i]))
            return false;
    return true;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

struct str str_trim(struct str s)
{
    while (s.len && is_space(s.ptr[0]))
        s = str_skip(s, 1);
    while (s.len && is_space(s.ptr[s.len - 1]))
        s.len--;
    return s;
}

struct str str_split(struct str s, char at, struct str *ret_rest)
{
    const char *found = s.len ? memchr(s.ptr, at, s.len) : NULL;
    if (!found) {
        *ret_rest = STR_NONE;
        return s;
    }
    size_t before = (size_t)(found - s.ptr);
    *ret_rest = (struct str){found + 1, s.len - before - 1};
    return (struct str){s.ptr, before};
}

bool str_is_utf8(struct str s)
{
    if (!s.len) /* ptr may be NULL */
        return true;
    const uint8_t *p = (const uint8_t *)s.ptr;
    const uint8_t *end = p + s.len;
    while (p < end) {
        /* Eight ASCII bytes at a time: that is nearly all there is. */
        if (end - p >= 8) {
            uint64_t w;
            memcpy(&w, p, sizeof w);
            if (!(w & UINT64_C(0x8080808080808080))) {
                p += 8;
                continue;
            }
        }
        uint8_t c = *p++;
        if (c < 0x80)
            continue;
        int more;
        uint32_t least, point;
        if ((c & 0xe0) == 0xc0) {
            more = 1, least = 0x80, point = c & 0x1f;
        } else if ((c & 0xf0) == 0xe0) {
            more = 2, least = 0x800, point = c & 0x0f;
        } else if ((c & 0xf8) == 0xf0) {
            more = 3, least = 0x10000, point = c & 0x07;
        } else {
            return false;
        }
        if (end - p < more)
            return false;
        for (; more > 0; more--, p++) {
            if ((*p & 0xc0) != 0x80)
                return false;
            point = point << 6 | (*p & 0x3f);
        }
        if (point < least || point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff))
            return false;
    }
    return true;
}

bool str_to_u64(struct str s, uint64_t *ret)
{
    if (s.len == 0 || s.len > 20)
        return false;
    uint64_t n = 0;
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] < '0' || s.ptr[i] > '9')
            return false;
        if (__builtin_mul_overflow(n, 10, &n) ||
            __builtin_add_overflow(n, (uint64_t)(s.ptr[i] - '0'), &n))
            return false;
    }
    *ret = n;
    return true;
}

bool str_to_i64(struct str s, int64_t *ret)
{
    bool negative = s.len && s.ptr[0] == '-';
    uint64_t n;
    if (!str_to_u64(negative ? str_skip(s, 1) : s, &n))
        return false;
    if (n > (uint64_t)INT64_MAX + negative)
        return false;
    *ret = negative ? (int64_t)-n : (int64_t)n;
    return true;
}

static const struct {
    struct str name;
    double ns;
} duration_units[] = {
    {{"ns", 2}, 1},   {{"us", 2}, 1e3}, {{"\xc2\xb5s", 3}, 1e3}, {{"\xce\xbcs", 3}, 1e3},
    {{"ms", 2}, 1e6}, {{"s", 1}, 1e9},  {{"m", 1}, 60e9},        {{"h", 1}, 3600e9},
};

/* Reads "1.5" and leaves the unit; the fraction is kept as a double, the whole part exact. */
static bool duration_number(struct str *s, uint64_t *ret_whole, double *ret_fraction)
{
    size_t digits = 0, at = 0;
    uint64_t whole = 0;
    double fraction = 0, scale = 0.1;
    for (; at < s->len && s->ptr[at] >= '0' && s->ptr[at] <= '9'; at++, digits++)
        if (__builtin_mul_overflow(whole, 10, &whole) ||
            __builtin_add_overflow(whole, (uint64_t)(s->ptr[at] - '0'), &whole))
            return false;
    if (at < s->len && s->ptr[at] == '.') {
        for (at++; at < s->len && s->ptr[at] >= '0' && s->ptr[at] <= '9'; at++, digits++) {
            fraction += (s->ptr[at] - '0') * scale;
            scale /= 10;
        }
    }
    if (!digits)
        return false;
    *s = str_skip(*s, at);
    *ret_whole = whole;
    *ret_fraction = fraction;
    return true;
}

bool str_to_duration_ns(struct str s, uint64_t *ret)
{
    uint64_t total = 0;
    if (str_eq(s, STR("0"))) {
        *ret = 0;
        return true;
    }
    if (s.len == 0)
        return false;
    while (s.len) {
        uint64_t whole;
        double fraction;
        if (!duration_number(&s, &whole, &fraction))
            return false;
        size_t unit = 0, n_units = sizeof duration_units / sizeof *duration_units;
        while (unit < n_units && !str_starts(s, duration_units[unit].name))
            unit++;
        /* "m" is a prefix of "ms", but "ms" stands earlier in the table. */
        if (unit == n_units)
            return false;
        uint64_t part;
        if (__builtin_mul_overflow(whole, (uint64_t)duration_units[unit].ns, &part) ||
            __builtin_add_overflow(part, (uint64_t)(fraction * duration_units[unit].ns + 0.5),
                                   &part) ||
            __builtin_add_overflow(total, part, &total))
            return false;
        s = str_skip(s, duration_units[unit].name.len);
    }
    *ret = total;
    return true;
}

enum { DAYS_MAX = 36500 };

bool str_to_age_ns(struct str s, uint64_t *ret)
{
    uint64_t days;
    if (!s.len || s.ptr[s.len - 1] != 'd')
        return str_to_duration_ns(s, ret);
    if (!str_to_u64((struct str){s.ptr, s.len - 1}, &days) || days > DAYS_MAX)
        return false;
    *ret = days * NS_PER_DAY;
    return true;
}

bool str_to_bytes(struct str s, uint64_t *ret)
{
    static const char units[] = "KMGT";
    const char *unit = s.len ? memchr(units, s.ptr[s.len - 1] & ~0x20, 4) : NULL;
    unsigned shift = unit ? 10 * (unsigned)(unit - units + 1) : 0;
    uint64_t n;
    s.len -= unit != NULL;
    if (!str_to_u64(s, &n) || n > UINT64_MAX >> shift)
        return false;
    *ret = n << shift;
    return true;
}

void hex_put(char *out, const uint8_t *bytes, size_t n)
{
    /* Eight digits at a time: the halves of four bytes are spread over eight, and what is above 9
     * goes up to the letters. */
    for (; n >= 4; n -= 4, bytes += 4, out += 8) {
        uint32_t four;
        memcpy(&four, bytes, 4);
        uint64_t w = be32toh(four);
        w = (w << 16 | w) & UINT64_C(0x0000ffff0000ffff);
        w = (w << 8 | w) & UINT64_C(0x00ff00ff00ff00ff);
        w = (w << 4 | w) & UINT64_C(0x0f0f0f0f0f0f0f0f);
        uint64_t letters = (w + UINT64_C(0x0606060606060606)) >> 4 & UINT64_C(0x0101010101010101);
        w = htobe64(w + UINT64_C(0x3030303030303030) + letters * ('a' - '9' - 1));
        memcpy(out, &w, 8);
    }
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < n; i++) {
        out[2 * i] = digits[bytes[i] >> 4];
        out[2 * i + 1] = digits[bytes[i] & 15];
    }
}

/* The low half is the value. What is no digit has nothing set. */
enum { HEX_DIGIT = 0x10, HEX_CAPITAL = 0x40 };

static const uint8_t hex_values[256] = {
    ['0'] = 0x10, ['1'] = 0x11, ['2'] = 0x12, ['3'] = 0x13, ['4'] = 0x14, ['5'] = 0x15,
    ['6'] = 0x16, ['7'] = 0x17, ['8'] = 0x18, ['9'] = 0x19, ['a'] = 0x1a, ['b'] = 0x1b,
    ['c'] = 0x1c, ['d'] = 0x1d, ['e'] = 0x1e, ['f'] = 0x1f, ['A'] = 0x5a, ['B'] = 0x5b,
    ['C'] = 0x5c, ['D'] = 0x5d, ['E'] = 0x5e, ['F'] = 0x5f,
};

/* The digits' marks, or-ed, when all of them are digits; else 0. */
static unsigned hex_read(uint8_t *out, const char *digits, size_t n)
{
    unsigned all = HEX_DIGIT, any = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned high = hex_values[(unsigned char)digits[2 * i]],
                 low = hex_values[(unsigned char)digits[2 * i + 1]];
        all &= high & low;
        any |= high | low;
        out[i] = (uint8_t)(high << 4 | (low & 15));
    }
    return all ? any | all : 0;
}

bool hex_get(uint8_t *out, struct str hex, size_t n)
{
    return hex.len == 2 * n && hex_read(out, hex.ptr, n);
}

bool hex_get_lower(uint8_t *out, const char *digits, size_t n)
{
    return (hex_read(out, digits, n) & (HEX_DIGIT | HEX_CAPITAL)) == HEX_DIGIT;
}

static bool is_decimal(struct str s)
{
    size_t at = 0, digits = 0;
    if (at < s.len && (s.ptr[at] == '-' || s.ptr[at] == '+'))
        at++;
    for (; at < s.len && s.ptr[at] >= '0' && s.ptr[at] <= '9'; at++)
        digits++;
    if (at < s.len && s.ptr[at] == '.')
        for (at++; at < s.len && s.ptr[at] >= '0' && s.ptr[at] <= '9'; at++)
            digits++;
    if (digits && at < s.len && (s.ptr[at] == 'e' || s.ptr[at] == 'E')) {
        at++;
        if (at < s.len && (s.ptr[at] == '-' || s.ptr[at] == '+'))
            at++;
        for (digits = 0; at < s.len && s.ptr[at] >= '0' && s.ptr[at] <= '9'; at++)
            digits++;
    }
    return digits && at == s.len;
}

bool str_to_double(struct str s, double *ret)
{
    char text[128];
    /* The C locale is built into libc: this allocates nothing and needs no freeing. */
    locale_t c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (!c_locale || s.len >= sizeof text || !is_decimal(s))
        return false;
    memcpy(text, s.ptr, s.len);
    text[s.len] = '\0';
    double d = strtod_l(text, NULL, c_locale);
    if (__builtin_isinf(d))
        return false;
    *ret = d;
    return true;
}
