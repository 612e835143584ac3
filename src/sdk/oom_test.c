/* Fails the n-th call of one kind that the library makes, for every n that a whole session reaches, once or from
 * there on: pug_start answers with an error or works, nothing crashes, hangs or is left behind, what is lost is
 * counted, and the next pug_start works. The calls are replaced at link time (meson.build: --wrap), in this program
 * only. */
#include "base/clock.h"
#include "base/test.h"
#include "pugmark/channel.h"
#include "pugmark/pugmark.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum kind { MEMORY, MAPPING, DESCRIPTOR, THREAD, KINDS };
static const char *const kind_names[KINDS] = {"memory", "mapping", "descriptor", "thread"};

static enum kind failing;
static atomic_bool armed, for_good;
static atomic_int left; /* calls until the failure; 0 or less: reached */

static bool fails(enum kind kind)
{
    if (kind != failing || !atomic_load(&armed))
        return false;
    int n = atomic_fetch_sub(&left, 1);
    return n == 1 || (n < 1 && atomic_load(&for_good));
}

#define WRAP(kind, error, bad, type, name, params, args)                                           \
    type __real_##name params;                                                                     \
    type __wrap_##name params;                                                                     \
    type __wrap_##name params                                                                      \
    {                                                                                              \
        if (fails(kind)) {                                                                         \
            errno = error;                                                                         \
            return bad;                                                                            \
        }                                                                                          \
        return __real_##name args;                                                                 \
    }

WRAP(MEMORY, ENOMEM, NULL, void *, malloc, (size_t n), (n))
WRAP(MEMORY, ENOMEM, NULL, void *, calloc, (size_t n, size_t m), (n, m))
WRAP(MEMORY, ENOMEM, NULL, void *, realloc, (void *p, size_t n), (p, n))
WRAP(MEMORY, ENOMEM, NULL, void *, reallocarray, (void *p, size_t n, size_t m), (p, n, m))
WRAP(MEMORY, ENOMEM, NULL, void *, aligned_alloc, (size_t a, size_t n), (a, n))
WRAP(MAPPING, ENOMEM, MAP_FAILED, void *, mmap64,
     (void *p, size_t n, int prot, int flags, int fd, off_t at), (p, n, prot, flags, fd, at))
WRAP(MAPPING, ENOSPC, -1, int, ftruncate64, (int fd, off_t n), (fd, n))
WRAP(DESCRIPTOR, EMFILE, -1, int, memfd_create, (const char *name, unsigned flags), (name, flags))
WRAP(DESCRIPTOR, EMFILE, -1, int, pipe2, (int *fds, int flags), (fds, flags))
WRAP(THREAD, EAGAIN, EAGAIN, int, pthread_create,
     (pthread_t * t, const pthread_attr_t *a, void *(*fn)(void *), void *arg), (t, a, fn, arg))

int __real_open64(const char *name, int flags, unsigned mode);
int __wrap_open64(const char *name, int flags, unsigned mode);
int __wrap_open64(const char *name, int flags, unsigned mode)
{
    if (fails(DESCRIPTOR)) {
        errno = EMFILE;
        return -1;
    }
    return __real_open64(name, flags, mode);
}

/* What fails in the child fails the test: it says why on stderr. */
#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

enum { OK = 0, NOT_REACHED = 77 };

static char dir[64], config_file[128], sampler[128];
static enum pug_backend backend;

static struct pug_options options(void)
{
    return (struct pug_options){.size = sizeof(struct pug_options),
                                .tracing = PUG_TRACING_ON,
                                .backend = backend,
                                .config_file = config_file,
                                .sampler = backend == PUG_BACKEND_OTLP ? sampler : NULL,
                                .service_name = "oom",
                                .trace_dir = dir,
                                .otlp_endpoint = "http://127.0.0.1:9", /* nobody is there */
                                .drain_interval_us = 500,
                                .flush_interval_ms = 1,
                                .stop_timeout_ms = 10};
}

static atomic_uint begun;

static void *work(void *channel)
{
    for (int i = 0; i < 20; i++) {
        PUG_SPAN("work", PUG_INT("i", i), PUG_STR("password", "hunter2"));
        atomic_fetch_add(&begun, 1);
        pug_set_str(PUG_CURRENT, "mail", "somebody@example.org");
        pug_event(PUG_CURRENT, "step");
        if (channel)
            (void)pug_channel_try_send(channel, &i);
    }
    return NULL;
}

static void session(void)
{
    struct pug_channel_options o = {.size = sizeof o,
                                    .name = "oom",
                                    .element_bytes = sizeof(int),
                                    .capacity = 8,
                                    .spans_per_second = PUG_CHANNEL_NO_SPANS};
    struct pug_channel *channel = NULL;
    pthread_t thread;
    (void)pug_channel_new(&o, &channel);
    bool threaded = __real_pthread_create(&thread, NULL, work, channel) == 0;
    work(NULL);
    struct pug_span handle;
    pug_span_start(&handle, "handle");
    atomic_fetch_add(&begun, 1);
    pug_flush(5);
    pug_span_end(&handle);
    if (threaded)
        pthread_join(thread, NULL);
    work(NULL);
    pug_flush(5);
    pug_channel_free(channel);
}

static size_t descriptors(void)
{
    size_t n = 0;
    DIR *d = opendir("/proc/self/fd");
    while (d && readdir(d))
        n++;
    if (d)
        closedir(d);
    return n;
}

/* Not so with the rules, for want of memory others hold; and what is said of a span may be lost, which counts too. */
static void sums_add_up(void)
{
    struct pug_counts c = {.size = sizeof c};
    pug_counts_read(&c);
    uint64_t lost = c.lost_ring_full + c.lost_depth + c.lost_no_lane + c.lost_interrupt +
                    c.lost_memory;
    if (c.recorded + lost < atomic_load(&begun) ||
        (!c.lost_memory && c.recorded + lost > atomic_load(&begun))) {
        fprintf(stderr, "begun %u, recorded %llu, lost %llu (memory %llu, no lane %llu)\n",
                atomic_load(&begun), (unsigned long long)c.recorded, (unsigned long long)lost,
                (unsigned long long)c.lost_memory, (unsigned long long)c.lost_no_lane);
        _exit(1);
    }
}

static int child(enum kind kind, int nth)
{
    struct pug_options o = options();
    size_t before = descriptors();
    alarm(20);
    atomic_store(&left, nth);
    atomic_store(&armed, true);
    int err = pug_start(&o);
    if (!err) {
        CHECK(pug_on());
        session();
        err = pug_stop();
        CHECK(err == 0 || err == PUG_ERR_TIMEOUT);
    } else {
        CHECK(err < 0 && !pug_on());
        session();
        atomic_store(&begun, 0); /* nothing was to be recorded */
    }
    atomic_store(&armed, false);
    bool reached = atomic_load(&left) <= 0;
    /* Without the drain's thread the memory file is there for the next start. */
    if (err && err != PUG_ERR_TIMEOUT && descriptors() > before + (kind == THREAD)) {
        fprintf(stderr, "a start that failed has left descriptors: %zu before, %zu now\n", before,
                descriptors());
        _exit(1);
    }
    /* A drain that needs longer than it was given may still end. */
    for (int i = 0; i < 200 && (err = pug_start(&o)) == PUG_ERR_BUSY; i++)
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    CHECK(err == 0);
    session();
    err = pug_stop();
    CHECK(backend == PUG_BACKEND_OTLP || err == 0);
    if (backend != PUG_BACKEND_OTLP)
        sums_add_up();
    return reached ? OK : NOT_REACHED;
}

static int run(enum kind kind, int nth, bool all_after)
{
    int status;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        int null = open("/dev/null", O_WRONLY);
        if (backend == PUG_BACKEND_STDOUT)
            dup2(null, STDOUT_FILENO);
        close(null);
        failing = kind;
        atomic_store(&for_good, all_after);
        _exit(child(kind, nth));
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* Later calls are those of rounds like the ones before. */
#define NTH_MAX 120

static void all_of(enum kind kind)
{
    int status = OK, nth = 1;
    for (; nth <= NTH_MAX && status != NOT_REACHED; nth += nth < 40 ? 1 : 8) {
        for (int all_after = 0; all_after < 2; all_after++) {
            status = run(kind, nth, all_after);
            if (status != OK && status != NOT_REACHED)
                fail_msg("%s %d%s, backend %d: the process ends with %d", kind_names[kind], nth,
                         all_after ? " and all after it" : "", (int)backend, status);
        }
    }
    print_message("# %s, backend %d: to the %dth\n", kind_names[kind], (int)backend, nth);
}

static void into_a_file(void **state)
{
    backend = PUG_BACKEND_LOCAL;
    for (int kind = 0; kind < KINDS; kind++)
        all_of((enum kind)kind);
}

static void to_a_collector(void **state)
{
    backend = PUG_BACKEND_OTLP;
    for (int kind = 0; kind < KINDS; kind++)
        all_of((enum kind)kind);
}

static void to_standard_output(void **state)
{
    backend = PUG_BACKEND_STDOUT;
    all_of(MEMORY);
}

/* A program that puts itself into a sandbox may have no descriptors from then on: poll(2) then fails at once, for any
 * number of them. */
static void sandboxed(void)
{
    struct pug_options o = options();
    struct rlimit none = {0, 0};
    o.drain_interval_us = 10000;
    CHECK(pug_start(&o) == 0);
    session();
    CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
    uint64_t before = clock_ns(CLOCK_PROCESS_CPUTIME_ID),
             end = clock_monotonic_ns() + 400 * NS_PER_MS;
    while (clock_monotonic_ns() < end) {
        work(NULL);
        nanosleep(&(struct timespec){.tv_nsec = 20 * NS_PER_MS}, NULL);
    }
    uint64_t used_ms = (clock_ns(CLOCK_PROCESS_CPUTIME_ID) - before) / NS_PER_MS;
    if (used_ms > 60) {
        fprintf(stderr, "%llu of 400 ms of CPU time were used\n", (unsigned long long)used_ms);
        _exit(1);
    }
    (void)pug_stop();
    _exit(0);
}

static void no_descriptors_at_all_cost_no_time(void **state)
{
    int status;
    backend = PUG_BACKEND_OTLP;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        sandboxed();
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    assert_int_equal(status, 0);
}

static int begin(void **state)
{
    static const char rules[] =
        "{\"version\":2,\"rules\":[{\"url_path\":\"/x\",\"fixed_target\":1,\"rate\":1}],"
        "\"default\":{\"fixed_target\":1,\"rate\":1}}";
    strcpy(dir, "/tmp/pugmark-oom-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(sampler, sizeof sampler, "rules:%s/rules.json", dir);
    FILE *out = fopen(strchr(sampler, ':') + 1, "w");
    assert_non_null(out);
    fputs(rules, out);
    fclose(out);
    snprintf(config_file, sizeof config_file, "%s/pugmark.toml", dir);
    out = fopen(config_file, "w");
    assert_non_null(out);
    fputs(
        "[telemetry]\nmetrics = true\nmetrics_interval_secs = 1\n"
        "redact_keys = [\"default\", \"*.iban\"]\nredact_patterns = [\"email\", \"credit_card\"]\n"
        "thread_context = true\nprocess_context = true\notlp_compression = \"gzip\"\n",
        out);
    fclose(out);
    return 0;
}

static int end(void **state)
{
    char path[400];
    struct dirent *entry;
    DIR *d = opendir(dir);
    while (d && (entry = readdir(d))) {
        snprintf(path, sizeof path, "%s/%s", dir, entry->d_name);
        (void)unlink(path);
    }
    if (d)
        closedir(d);
    (void)rmdir(dir);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(into_a_file),
        cmocka_unit_test(to_a_collector),
        cmocka_unit_test(to_standard_output),
        cmocka_unit_test(no_descriptors_at_all_cost_no_time),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
