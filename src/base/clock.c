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
