#include "base/log.h"

#include "base/clock.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

static _Atomic int least_level = LOG_LEVEL_INFO;

void log_set_level(enum log_level least)
{
    atomic_store_explicit(&least_level, (int)least, memory_order_relaxed);
}

void log_line(enum log_level level, const char *format, ...)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    if ((int)level < atomic_load_explicit(&least_level, memory_order_relaxed) ||
        level >= LOG_LEVEL_OFF)
        return;
    int errno_before = errno;
    char line[1024], when[CLOCK_RFC3339_SIZE];
    clock_rfc3339(when, clock_realtime_ns());
    int n = snprintf(line, sizeof line, "%.23sZ %-5s ", when, names[level]);
    va_list args;
    va_start(args, format);
    int more = vsnprintf(line + n, sizeof line - (size_t)n - 1, format, args);
    va_end(args);
    if (more > 0)
        n += more;
    if ((size_t)n > sizeof line - 2)
        n = sizeof line - 2;
    line[n++] = '\n';
    /* One write a line, so that lines of threads do not mix. */
    ssize_t written = write(STDERR_FILENO, line, (size_t)n);
    (void)written;
    errno = errno_before;
}
