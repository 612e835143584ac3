#include "sdk/retry.h"

#include "base/base64.h"
#include "base/clock.h"
#include "wire/protobuf.h"

#include <ctype.h>

#define PAUSE_FIRST_NS (100 * NS_PER_MS)
#define PAUSE_MAX_NS (5 * NS_PER_S)
#define DETAILS_TEXT_MAX 8192

/* ---- Retry-After ---- */

static bool number(struct str *s, size_t digits_min, size_t digits_max, unsigned *ret)
{
    unsigned n = 0;
    size_t i = 0;
    while (i < s->len && i < digits_max && s->ptr[i] >= '0' && s->ptr[i] <= '9')
        n = n * 10 + (unsigned)(s->ptr[i++] - '0');
    if (i < digits_min)
        return false;
    *s = str_skip(*s, i);
    *ret = n;
    return true;
}

static bool character(struct str *s, char c)
{
    if (s->len == 0 || s->ptr[0] != c)
        return false;
    *s = str_skip(*s, 1);
    return true;
}

static bool month(struct str *s, unsigned *ret)
{
    static const char names[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    for (unsigned i = 0; i < 12; i++)
        if (s->len >= 3 && memcmp(s->ptr, names + 3 * i, 3) == 0) {
            *s = str_skip(*s, 3);
            *ret = i + 1;
            return true;
        }
    return false;
}

static bool time_of_day(struct str *s, unsigned *ret_seconds)
{
    unsigned hour, minute, second;
    if (!number(s, 2, 2, &hour) || !character(s, ':') || !number(s, 2, 2, &minute) ||
        !character(s, ':') || !number(s, 2, 2, &second) || hour > 23 || minute > 59 || second > 60)
        return false;
    *ret_seconds = hour * 3600 + minute * 60 + second;
    return true;
}

/* Days since 1970-01-01 of a date of the Gregorian calendar from then on: those of the years
 * before, of the months before, and leap days. */
static uint64_t days(unsigned year, unsigned mon, unsigned day)
{
    static const uint16_t before[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
    unsigned y = year - 1;
    uint64_t leaps = y / 4 - y / 100 + y / 400 - (1969 / 4 - 1969 / 100 + 1969 / 400);
    bool leap_year = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return (uint64_t)(year - 1970) * 365 + leaps + before[mon - 1] + (mon > 2 && leap_year) + day -
           1;
}

static bool http_date(struct str s, uint64_t *ret_s)
{
    unsigned year, mon, day, seconds;
    size_t weekday = 0;
    while (weekday < s.len && isalpha((unsigned char)s.ptr[weekday]))
        weekday++;
    if (weekday < 3)
        return false;
    s = str_skip(s, weekday);
    if (character(&s, ',')) {
        if (!character(&s, ' ') || !number(&s, 2, 2, &day))
            return false;
        bool dashes = character(&s, '-');   /* Sunday, 06-Nov-94 08:49:37 GMT */
        if (!dashes && !character(&s, ' ')) /* Sun, 06 Nov 1994 08:49:37 GMT */
            return false;
        if (!month(&s, &mon) || !character(&s, dashes ? '-' : ' ') ||
            !number(&s, dashes ? 2 : 4, dashes ? 2 : 4, &year) || !character(&s, ' ') ||
            !time_of_day(&s, &seconds) || !str_eq(s, STR(" GMT")))
            return false;
        if (dashes) /* what looks to be far ahead is past; and we do not live before 1970 */
            year += year < 70 ? 2000 : 1900;
    } else { /* Sun Nov  6 08:49:37 1994 */
        if (!character(&s, ' ') || !month(&s, &mon) || !character(&s, ' '))
            return false;
        (void)character(&s, ' ');
        if (!number(&s, 1, 2, &day) || !character(&s, ' ') || !time_of_day(&s, &seconds) ||
            !character(&s, ' ') || !number(&s, 4, 4, &year) || s.len)
            return false;
    }
    if (year < 1970 || day < 1 || day > 31)
        return false;
    *ret_s = days(year, mon, day) * 86400 + seconds;
    return true;
}

bool retry_after_parse(struct str value, uint64_t now_ns, uint64_t *ret_ns)
{
    uint64_t n;
    value = str_trim(value);
    if (str_to_u64(value, &n)) {
        *ret_ns = n > RETRY_AFTER_MAX_NS / NS_PER_S ? RETRY_AFTER_MAX_NS : n * NS_PER_S;
        return true;
    }
    if (!http_date(value, &n))
        return false;
    uint64_t when = n > UINT64_MAX / NS_PER_S ? UINT64_MAX : n * NS_PER_S;
    uint64_t wait = when > now_ns ? when - now_ns : 0;
    *ret_ns = wait < RETRY_AFTER_MAX_NS ? wait : RETRY_AFTER_MAX_NS;
    return true;
}

/* ---- RetryInfo ---- */

enum {
    STATUS_DETAILS = PB_TAG(3, PB_BYTES),
    ANY_TYPE_URL = PB_TAG(1, PB_BYTES),
    ANY_VALUE = PB_TAG(2, PB_BYTES),
    RETRY_INFO_DELAY = PB_TAG(1, PB_BYTES),
    DURATION_SECONDS = PB_TAG(1, PB_VARINT),
    DURATION_NANOS = PB_TAG(2, PB_VARINT),
};

static bool duration_parse(struct pb r, uint64_t *ret_ns)
{
    struct pb_field f;
    int64_t seconds = 0, nanos = 0;
    int got;
    while ((got = pb_next(&r, &f)) > 0) {
        if (f.tag == DURATION_SECONDS)
            seconds = (int64_t)f.n;
        else if (f.tag == DURATION_NANOS)
            nanos = (int32_t)f.n;
    }
    if (got < 0 || seconds < 0 || nanos < 0 || nanos >= (int64_t)NS_PER_S)
        return false;
    *ret_ns = seconds >= (int64_t)(RETRY_AFTER_MAX_NS / NS_PER_S)
                  ? RETRY_AFTER_MAX_NS
                  : (uint64_t)seconds * NS_PER_S + (uint64_t)nanos;
    return true;
}

static bool detail_parse(struct pb r, uint64_t *ret_ns)
{
    struct pb_field f, delay;
    struct str type = STR_NONE, value = STR_NONE;
    static const struct str wanted = {"/google.rpc.RetryInfo", 21};
    int got;
    while ((got = pb_next(&r, &f)) > 0) {
        if (f.tag == ANY_TYPE_URL)
            type = pb_as_str(&f);
        else if (f.tag == ANY_VALUE)
            value = pb_as_str(&f);
    }
    if (got < 0 || type.len < wanted.len ||
        !str_eq(str_skip(type, type.len - wanted.len), wanted) || !value.ptr)
        return false;
    struct pb info = pb_from_str(value);
    uint64_t ns = 0; /* a delay of zero may be left out */
    while ((got = pb_next(&info, &delay)) > 0)
        if (delay.tag == RETRY_INFO_DELAY && !duration_parse(pb_from_field(&delay), &ns))
            return false;
    if (got < 0)
        return false;
    *ret_ns = ns;
    return true;
}

bool retry_info_parse(struct str header, uint64_t *ret_ns)
{
    uint8_t bytes[BASE64_BYTES_MAX(DETAILS_TEXT_MAX)];
    size_t n;
    header = str_trim(header);
    if (header.len > DETAILS_TEXT_MAX || !base64_get(bytes, header, &n))
        return false;
    struct pb r = pb_from_str((struct str){(const char *)bytes, n});
    struct pb_field f;
    while (pb_next(&r, &f) > 0)
        if (f.tag == STATUS_DETAILS && detail_parse(pb_from_field(&f), ret_ns))
            return true;
    return false;
}

/* ---- the rules ---- */

bool retry_http(long status)
{
    return status == 429 || status == 502 || status == 503 || status == 504;
}

bool retry_grpc(long status, bool has_info)
{
    /* CANCELLED, DEADLINE_EXCEEDED, ABORTED, OUT_OF_RANGE, UNAVAILABLE, DATA_LOSS; RESOURCE_EXHAUSTED */
    return status == 1 || status == 4 || status == 10 || status == 11 || status == 14 ||
           status == 15 || (status == 8 && has_info);
}

uint64_t retry_pause_ns(unsigned attempt, uint32_t random)
{
    unsigned doublings = attempt > 1 ? attempt - 1 : 0;
    uint64_t pause = doublings < 6 ? PAUSE_FIRST_NS << doublings : PAUSE_MAX_NS;
    if (pause > PAUSE_MAX_NS)
        pause = PAUSE_MAX_NS;
    return pause - pause / 2 * random / UINT32_MAX;
}
