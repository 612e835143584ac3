/* Promise 2 at run time: a thread that may do nothing but exit (seccomp kills it for any other system
 * call) records spans of all kinds; allocations are counted meanwhile.
 * The call graph of the library is checked by tests/library. */
#include "base/test.h"
#include "pugmark/pugmark.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stdatomic.h>
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
static _Atomic bool finished;

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
    atomic_store(&allocated, allocations - before);
    atomic_store(&finished, true);
    syscall(SYS_exit, 0); /* of the thread; nothing else is allowed */
    return NULL;
}

static void a_span_makes_no_system_call_and_allocates_nothing(void **state)
{
    struct pug_options o = {
        .size = sizeof o, .tracing = PUG_TRACING_ON, .backend = PUG_BACKEND_DISCARD};
    struct pug_counts c = {.size = sizeof c};
    pthread_t thread;
    assert_int_equal(pug_start(&o), 0);
    assert_int_equal(pthread_create(&thread, NULL, confined, (void *)1), 0);
    void *refused = NULL;
    pthread_join(thread, &refused);
    if (refused && !atomic_load(&finished)) {
        print_message("no seccomp on this machine\n");
        skip();
    }
    assert_true(atomic_load(&finished));
    assert_int_equal(atomic_load(&allocated), 0);
    assert_int_equal(pug_flush(5000), 0);
    pug_counts_read(&c);
    assert_int_equal(c.recorded + c.lost_ring_full, 3 * SPANS);
    assert_true(c.recorded > 0);
    assert_int_equal(pug_stop(), 0);
}
#else
static void a_span_makes_no_system_call_and_allocates_nothing(void **state)
{
    print_message("# the sanitizer's own calls would be seen\n");
    skip();
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_span_makes_no_system_call_and_allocates_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
