/* The numbers of this very process, changed by known amounts. */
#include "sdk/system_metrics.h"

#include "base/clock.h"
#include "base/test.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static struct system_sample sample(void)
{
    struct system_metrics m = {.time_ns = 0};
    struct system_sample s;
    system_metrics_sample(&m, &s);
    assert_true(s.has_rss && s.has_cpu && s.has_threads && s.has_fds);
    return s;
}

static void descriptors_are_counted_exactly(void **state)
{
    (void)state;
    int fds[300];
    uint64_t before = sample().fd_count;
    for (int i = 0; i < 300; i++)
        assert_true((fds[i] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0);
    assert_int_equal(sample().fd_count, before + 300);
    for (int i = 0; i < 300; i++)
        close(fds[i]);
    assert_int_equal(sample().fd_count, before);
}

static void *waits(void *barrier)
{
    pthread_barrier_wait(barrier);
    pthread_barrier_wait(barrier);
    return NULL;
}

static void threads_are_counted_exactly(void **state)
{
    (void)state;
    pthread_barrier_t barrier;
    pthread_t threads[5];
    uint64_t before = sample().thread_count;
    pthread_barrier_init(&barrier, NULL, 6);
    for (int i = 0; i < 5; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, waits, &barrier), 0);
    pthread_barrier_wait(&barrier);
    assert_int_equal(sample().thread_count, before + 5);
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < 5; i++)
        pthread_join(threads[i], NULL);
}

static void memory_that_is_touched_is_seen(void **state)
{
    (void)state;
    const size_t bytes = 64u << 20;
    uint64_t before = sample().rss_bytes;
    char *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(p != MAP_FAILED);
    for (size_t i = 0; i < bytes; i += 4096)
        p[i] = 1;
    uint64_t after = sample().rss_bytes;
    munmap(p, bytes);
    assert_true(before > 0 && after > before + bytes / 2 && after < before + 2 * bytes);
}

/* The same clocks, read just outside. */
static void cpu_is_a_part_of_what_passed_since_the_last_sample(void **state)
{
    (void)state;
    struct system_metrics m = {.time_ns = 0};
    struct system_sample s;
    system_metrics_sample(&m, &s);
    uint64_t cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID), wall = clock_monotonic_ns();
    while (clock_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu < 30 * NS_PER_MS)
        ;
    uint64_t cpu_in = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    uint64_t before_sample = clock_monotonic_ns() - wall;
    uint64_t last_cpu = m.cpu_ns, last_time = m.time_ns;
    system_metrics_sample(&m, &s);
    assert_true(before_sample > 0);
    assert_true(m.cpu_ns - last_cpu >= cpu_in);
    double want = 100.0 * (double)(m.cpu_ns - last_cpu) / (double)(m.time_ns - last_time);
    assert_true(s.has_cpu && s.cpu_percent > want - 0.001 && s.cpu_percent < want + 0.001);
    assert_true(s.cpu_percent > 0 && s.cpu_percent <= 150); /* one thread, and the readings */
}

static void what_cannot_be_had_is_left_out(void **state)
{
    (void)state;
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        struct system_metrics m = {.time_ns = 0};
        struct system_sample s;
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_NOFILE, &none); /* no file can be opened any more */
        system_metrics_sample(&m, &s);
        /* The processor's time is no file; how long we have been here was in one. */
        bool ok = !s.has_rss && !s.has_threads && !s.has_cpu;
        system_metrics_sample(&m, &s);
        ok = ok && s.has_cpu && !s.has_rss && !s.has_threads;
        _exit(ok ? 0 : 1);
    }
    waitpid(pid, &status, 0);
    assert_int_equal(status, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(descriptors_are_counted_exactly),
        cmocka_unit_test(threads_are_counted_exactly),
        cmocka_unit_test(memory_that_is_touched_is_seen),
        cmocka_unit_test(cpu_is_a_part_of_what_passed_since_the_last_sample),
        cmocka_unit_test(what_cannot_be_had_is_left_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
