#include "base/clock.h"

#include <stdio.h>

void clock_rfc3339(char out[CLOCK_RFC3339_SIZE], uint64_t epoch_ns)
{
    time_t seconds = (time_t)(epoch_ns / NS_PER_S);
    struct tm parts;
    gmtime_r(&seconds, &parts);
    /* UINT64_MAX nanoseconds are in the year 2554: four digits are enough. */
    char text[96];
    snprintf(text, sizeof text, "%04d-%02d-%02dT%02d:%02d:%02d.%09uZ", parts.tm_year + 1900,
             parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec,
             (unsigned)(epoch_ns % NS_PER_S));
    snprintf(out, CLOCK_RFC3339_SIZE, "%.30s", text);
}

/* Exactly n digits. */
static bool take_digits(struct str *at, unsigned n, int *ret)
{
    if (at->len < n)
        return false;
    int value = 0;
    for (unsigned i = 0; i < n; i++) {
        char c = at->ptr[i];
        if (c < '0' || c > '9')
            return false;
        value = value * 10 + (c - '0');
    }
    *at = str_skip(*at, n);
    *ret = value;
    return true;
}

static bool take_char(struct str *at, const char *one_of)
{
    if (!at->len || !at->ptr[0] || !strchr(one_of, at->ptr[0]))
        return false;
    *at = str_skip(*at, 1);
    return true;
}

bool clock_parse_rfc3339(struct str text, uint64_t *ret_epoch_ns)
{
    struct tm parts = {0};
    int offset_h = 0, offset_m = 0;
    if (!take_digits(&text, 4, &parts.tm_year) || !take_char(&text, "-") ||
        !take_digits(&text, 2, &parts.tm_mon) || !take_char(&text, "-") ||
        !take_digits(&text, 2, &parts.tm_mday) || !take_char(&text, "Tt ") ||
        !take_digits(&text, 2, &parts.tm_hour) || !take_char(&text, ":") ||
        !take_digits(&text, 2, &parts.tm_min) || !take_char(&text, ":") ||
        !take_digits(&text, 2, &parts.tm_sec))
        return false;
    static const int days[] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int y = parts.tm_year;
    bool leap = (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
    if (parts.tm_mon < 1 || parts.tm_mon > 12 || parts.tm_mday < 1 ||
        parts.tm_mday > days[parts.tm_mon - 1] - (parts.tm_mon == 2 && !leap) ||
        parts.tm_hour > 23 || parts.tm_min > 59 || parts.tm_sec > 60)
        return false;
    uint64_t fraction_ns = 0;
    if (take_char(&text, ".")) {
        uint64_t unit = NS_PER_S;
        int digit;
        while (unit > 1 && take_digits(&text, 1, &digit))
            fraction_ns += (unit /= 10) * (uint64_t)digit;
        if (unit == NS_PER_S)
            return false;
    }
    int sign = 0;
    if (!take_char(&text, "Zz")) {
        sign = text.len && text.ptr[0] == '-' ? -1 : 1;
        if (!take_char(&text, "+- ") || !take_digits(&text, 2, &offset_h) ||
            !take_char(&text, ":") || !take_digits(&text, 2, &offset_m) || offset_h > 23 ||
            offset_m > 59)
            return false;
    }
    if (text.len)
        return false;
    parts.tm_year -= 1900;
    parts.tm_mon -= 1;
    int64_t seconds = (int64_t)timegm(&parts) - sign * (offset_h * 3600 + offset_m * 60);
    if (seconds < 0 || (uint64_t)seconds > (UINT64_MAX - NS_PER_S) / NS_PER_S)
        return false;
    *ret_epoch_ns = (uint64_t)seconds * NS_PER_S + fraction_ns;
    return true;
}
