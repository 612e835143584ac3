/* What the numbers of the process cost: the processor's time of one sample, of the interval between
 * two; in a process as it is, and in one with many threads and open files. */
#include "pugmark/pugmark.h"
#include "report.h"

#include "base/clock.h"
#include "sdk/system_metrics.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

enum { SAMPLES = 2000, THREADS = 64, FILES = 10000 };

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Microseconds of the processor. */
static double sample_us(void)
{
    static double us[SAMPLES];
    struct system_metrics m = {.time_ns = 0};
    struct system_sample s;
    for (int i = 0; i < SAMPLES; i++) {
        uint64_t begun = clock_ns(CLOCK_THREAD_CPUTIME_ID);
        system_metrics_sample(&m, &s);
        us[i] = (double)(clock_ns(CLOCK_THREAD_CPUTIME_ID) - begun) / 1000;
        if (!s.has_rss || !s.has_cpu || !s.has_threads || !s.has_fds) {
            fprintf(stderr, "bench: a number is missing\n");
            exit(1);
        }
    }
    qsort(us, SAMPLES, sizeof us[0], by_value);
    return us[SAMPLES / 2];
}

static void rows(struct report *report, const char *where)
{
    char what[120];
    double us = sample_us();
    snprintf(what, sizeof what, "sample, %s", where);
    report_row(report, what, us, "us");
    snprintf(what, sizeof what, "every 5 s, %s", where);
    report_row(report, what, us / 5e6 * 100, "%");
    snprintf(what, sizeof what, "every second, %s", where);
    report_row(report, what, us / 1e6 * 100, "%");
}

static pthread_barrier_t barrier;

static void *waits(void *arg)
{
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    return arg;
}

int main(void)
{
    struct report *report = report_new("system_metrics");
    pthread_t threads[THREADS];
    struct rlimit files;
    int opened = 0;
    rows(report, "a small process");
    pthread_barrier_init(&barrier, NULL, THREADS + 1);
    for (int i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, waits, NULL) != 0)
            return 1;
    pthread_barrier_wait(&barrier);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    while (opened < FILES && open("/dev/null", O_RDONLY | O_CLOEXEC) >= 0)
        opened++;
    char where[64];
    snprintf(where, sizeof where, "%d threads, %d files", THREADS + 1, opened);
    rows(report, where);
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    return report_finish(report);
}
