/* Promise 2 at run time: a thread that may do nothing but exit (seccomp kills it for any other system
 * call) records spans of all kinds; allocations are counted meanwhile.
 * The call graph of the library is checked by tests/library. */
#include "base/test.h"
#include "pugmark/pugmark.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#endif

#ifndef SANITIZED
static __thread uint64_t allocations __attribute__((tls_model("initial-exec")));

extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t n);
void *malloc(size_t n)
{
    allocations++;
    return __libc_malloc(n);
}
void *calloc(size_t n, size_t size)
{
    allocations++;
    return __libc_calloc(n, size);
}
void *realloc(void *p, size_t n)
{
    allocations++;
    return __libc_realloc(p, n);
}

enum { SPANS = 20000 };

static _Atomic uint64_t allocated;
static bool points; /* also what pug_counts cannot foretell */
static _Atomic bool finished;

static void point(int i)
{
    PUG_FN(PUG_INT("i", i), PUG_STR("http.method", "GET"), PUG_STR("url.path", "/a/b"));
    PUG_SPAN_ONE_IN(3, "one in three", PUG_INT("i", i));
    PUG_SPAN("below");
}

static void record(int i)
{
    struct pug_span handle;
    PUG_SPAN("confined", PUG_INT("i", i), PUG_STR("text", "some text that is longer than 16"));
    struct pug_context here = pug_context_current();
    PUG_SPAN_FROM(&here, "below");
    pug_set_int(PUG_CURRENT, "n", 1);
    pug_event(PUG_CURRENT, "event", PUG_DOUBLE("d", 1.5));
    pug_link(PUG_CURRENT, &here);
    pug_error(PUG_CURRENT, "none");
    pug_span_start(&handle, "handle", PUG_BOOL("b", 1));
    pug_span_end(&handle);
}

/* Not strict mode: that takes the time stamp counter away as well. */
static bool confine(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_THREAD),
    };
    struct sock_fprog program = {sizeof code / sizeof code[0], code};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

static void *confined(void *arg)
{
    /* From here on this thread is as good as dead, were it to ask the kernel for anything. Its first
     * span is among what follows. */
    if (!confine())
        return arg;
    uint64_t before = allocations;
    for (int i = 0; i < SPANS; i++)
        record(i);
    for (int i = 0; points && i < SPANS; i++)
        point(i);
    atomic_store(&allocated, allocations - before);
    atomic_store(&finished, true);
    syscall(SYS_exit, 0); /* of the thread; nothing else is allowed */
    return NULL;
}

/* False: there is no seccomp on this machine. */
static bool a_confined_thread_records(const char *sampler)
{
    struct pug_options o = {.size = sizeof o,
                            .tracing = PUG_TRACING_ON,
                            .backend = PUG_BACKEND_DISCARD,
                            .sampler = sampler,
                            .config_file = ""};
    pthread_t thread;
    atomic_store(&finished, false);
    assert_int_equal(pug_start(&o), 0);
    assert_int_equal(pug_on(), 1);
    assert_int_equal(pthread_create(&thread, NULL, confined, (void *)1), 0);
    void *refused = NULL;
    pthread_join(thread, &refused);
    if (refused && !atomic_load(&finished)) {
        pug_stop();
        return false;
    }
    assert_true(atomic_load(&finished));
    assert_int_equal(atomic_load(&allocated), 0);
    assert_int_equal(pug_flush(5000), 0);
    return true;
}

static void a_span_makes_no_system_call_and_allocates_nothing(void **state)
{
    struct pug_counts c = {.size = sizeof c};
    if (!a_confined_thread_records("always_on")) {
        print_message("no seccomp on this machine\n");
        skip();
    }
    pug_counts_read(&c);
    assert_int_equal(c.recorded + c.lost_ring_full, 3 * SPANS);
    assert_true(c.recorded > 0);
    assert_int_equal(pug_stop(), 0);
}

static void nor_does_a_sampler_or_a_hook(void **state)
{
    static const char rules[] =
        "{\"version\": 2, \"rules\": [{\"http_method\": \"G*\", \"url_path\": \"/*\", "
        "\"fixed_target\": 3,"
        " \"rate\": 0.5}], \"default\": {\"fixed_target\": 10, \"rate\": 0.1}}";
    char path[64], by_rules[80];
    points = true;
    snprintf(path, sizeof path, "/tmp/pugmark-hot-%d.json", (int)getpid());
    snprintf(by_rules, sizeof by_rules, "rules:%s", path);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(rules, file);
    fclose(file);
    const char *const samplers[] = {"always_off", "ratio:0.3", "rate:500", by_rules, "always_on"};
    for (int watched = 0; watched < 2; watched++) {
        setenv("PUG_THREAD_CONTEXT", watched ? "true" : "false", 1);
        setenv("PUG_INCLUDE_ARGS", "true", 1);
        for (size_t i = 0; i < sizeof samplers / sizeof samplers[0]; i++) {
            if (!a_confined_thread_records(samplers[i])) {
                unlink(path);
                print_message("no seccomp on this machine\n");
                skip();
            }
            assert_int_equal(pug_stop(), 0);
        }
    }
    unsetenv("PUG_THREAD_CONTEXT");
    unsetenv("PUG_INCLUDE_ARGS");
    unlink(path);
}
#else
static void a_span_makes_no_system_call_and_allocates_nothing(void **state)
{
    print_message("# the sanitizer's own calls would be seen\n");
    skip();
}

static void nor_does_a_sampler_or_a_hook(void **state)
{
    print_message("# the sanitizer's own calls would be seen\n");
    skip();
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_span_makes_no_system_call_and_allocates_nothing),
        cmocka_unit_test(nor_does_a_sampler_or_a_hook),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
