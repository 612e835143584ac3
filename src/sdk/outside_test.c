/* What readers outside see: the process context through /proc/PID/maps, the thread context by the symbol in thread-local
 * storage. The reader is another process, which knows this one's number and nothing else. */
#include "base/test.h"
#include "pugmark/pugmark.h"
#include "sdk/process_context.h"
#include "sdk/sdk.h"
#include "sdk/thread_context.h"
#include "wire/protobuf.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- the reader ---- */

static bool read_from(pid_t pid, uint64_t at, void *to, size_t n)
{
    struct iovec local = {to, n}, remote = {(void *)(uintptr_t)at, n};
    return process_vm_readv(pid, &local, 1, &remote, 1, 0) == (ssize_t)n;
}

static uint64_t context_address(pid_t pid)
{
    char path[64], line[512];
    unsigned long from = 0;
    snprintf(path, sizeof path, "/proc/%d/maps", (int)pid);
    FILE *maps = fopen(path, "r");
    while (maps && fgets(line, sizeof line, maps)) {
        if (strstr(line, "/memfd:OTEL_CTX") || strstr(line, "[anon:OTEL_CTX]") ||
            strstr(line, "[anon_shmem:OTEL_CTX]")) {
            sscanf(line, "%lx-", &from);
            break;
        }
    }
    if (maps)
        fclose(maps);
    return from;
}

struct found {
    bool there, refused, has_service, has_schema;
};

static bool has(const char *bytes, size_t n, const char *text)
{
    return memmem(bytes, n, text, strlen(text)) != NULL;
}

static struct found read_process_context(pid_t pid)
{
    struct found f = {.there = false};
    struct process_context_header h, again;
    char payload[4096];
    uint64_t at = context_address(pid);
    if (!at)
        return f;
    if (!read_from(pid, at, &h, sizeof h)) {
        f.refused = errno == EPERM;
        return f;
    }
    if (memcmp(h.signature, "OTEL_CTX", 8) != 0 || h.version != 2 || !h.published_ns ||
        h.payload_bytes > sizeof payload || !read_from(pid, h.payload, payload, h.payload_bytes) ||
        !read_from(pid, at, &again, sizeof again) || again.published_ns != h.published_ns)
        return f;
    /* Fields 1 and 2 of the message and no others, each to its end. */
    struct pb r = pb_from_str((struct str){payload, h.payload_bytes});
    struct pb_field field;
    int more;
    while ((more = pb_next(&r, &field)) == 1) {
        if (field.tag == PB_TAG(1, PB_BYTES))
            f.has_service = has((const char *)field.ptr, field.n, "service.name") &&
                            has((const char *)field.ptr, field.n, "outside-shop");
        else if (field.tag == PB_TAG(2, PB_BYTES))
            f.has_schema = has((const char *)field.ptr, field.n, "threadlocal.schema_version");
        else
            return f;
    }
    f.there = more == 0;
    return f;
}

/* Runs `read` in another process on `pid`. */
static struct found from_outside(pid_t pid)
{
    struct found f = {.there = false};
    int out[2];
    assert_int_equal(pipe(out), 0);
    pid_t reader = fork();
    if (reader == 0) {
        f = read_process_context(pid);
        _exit(write(out[1], &f, sizeof f) == (ssize_t)sizeof f ? 0 : 1);
    }
    prctl(PR_SET_PTRACER, reader, 0, 0, 0); /* where Yama asks for it */
    close(out[1]);
    assert_int_equal(read(out[0], &f, sizeof f), sizeof f);
    close(out[0]);
    waitpid(reader, NULL, 0);
    return f;
}

static struct pug_options options(void)
{
    return (struct pug_options){.size = sizeof(struct pug_options),
                                .tracing = PUG_TRACING_ON,
                                .backend = PUG_BACKEND_DISCARD,
                                .service_name = "outside-shop",
                                .config_file = ""};
}

static void the_process_says_who_it_is_while_it_traces(void **state)
{
    struct pug_options o = options();
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
    assert_int_equal(context_address(getpid()), 0);
    assert_int_equal(pug_start(&o), 0);
    struct found f = from_outside(getpid());
    if (f.refused) {
        assert_int_equal(pug_stop(), 0);
        print_message("# no process may be read on this machine\n");
        skip();
    }
    assert_true(f.there && f.has_service);
    assert_false(f.has_schema); /* threads do not say */
    assert_int_equal(pug_stop(), 0);
    assert_int_equal(context_address(getpid()), 0);
}

static void a_child_says_so_for_itself(void **state)
{
    struct pug_options o = options();
    assert_int_equal(setenv("PUG_THREAD_CONTEXT", "true", 1), 0);
    assert_int_equal(pug_start(&o), 0);
    pid_t child = fork();
    if (child == 0) {
        int status = context_address(getpid()) ? 1 : 0;
        {
            PUG_SPAN("first of the child");
        }
        struct found f = read_process_context(getpid());
        status |= f.there && f.has_service && f.has_schema ? 0 : 2;
        pug_stop();
        status |= context_address(getpid()) ? 4 : 0;
        _exit(status);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_true(context_address(getpid()) != 0); /* the parent's is still there */
    assert_int_equal(pug_stop(), 0);
    unsetenv("PUG_THREAD_CONTEXT");
}

/* ---- threads ---- */

static void expect_current(void)
{
    struct pug_context c = pug_context_current();
    const struct thread_context *t = otel_thread_ctx_v1;
    assert_non_null(t);
    assert_int_equal(t->valid, 1);
    assert_int_equal(t->attrs_bytes, 0);
    assert_int_equal(t->flags, c.flags);
    assert_memory_equal(t->trace_id, c.trace_id, 16);
    assert_memory_equal(t->span_id, c.span_id, 8);
}

static void scopes(void)
{
    struct pug_context remote;
    assert_int_equal(
        pug_context_from_hex(&remote, "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"), 0);
    assert_null(otel_thread_ctx_v1);
    {
        PUG_SPAN("outer", PUG_INT("n", 1));
        expect_current();
        {
            PUG_SPAN("inner");
            expect_current();
        }
        expect_current();
        {
            PUG_ATTACH(&remote);
            expect_current();
            PUG_SPAN("server");
            expect_current();
        }
        expect_current();
        remote.flags = 0;
        pug_attachment at = pug_context_attach(&remote);
        expect_current();
        {
            PUG_SPAN("not kept");
            expect_current();
            PUG_SPAN("below");
            expect_current();
        }
        pug_context_detach(at);
        expect_current();
    }
    assert_null(otel_thread_ctx_v1);
}

static void *thread_scopes(void *arg)
{
    scopes();
    return NULL;
}

static void the_current_span_of_a_thread_is_there_to_be_read(void **state)
{
    struct pug_options o = options();
    pthread_t thread;
    setenv("PUG_THREAD_CONTEXT", "true", 1);
    assert_int_equal(pug_start(&o), 0);
    scopes();
    assert_int_equal(pthread_create(&thread, NULL, thread_scopes, NULL), 0);
    pthread_join(thread, NULL);
    assert_int_equal(pug_stop(), 0);
    unsetenv("PUG_THREAD_CONTEXT");
    assert_int_equal(pug_start(&o), 0);
    {
        PUG_SPAN("nobody asked");
        assert_null(otel_thread_ctx_v1);
    }
    assert_int_equal(pug_stop(), 0);
}

#if defined(__x86_64__)
/* Of a stopped thread: its thread pointer, and from there as far as this program's own symbol is. */
static bool read_thread_context(pid_t pid, int64_t offset, struct thread_context *ret)
{
    struct user_regs_struct regs;
    uint64_t at = 0;
    bool ok = false;
    if (ptrace(PTRACE_ATTACH, pid, 0, 0) != 0)
        return false;
    waitpid(pid, NULL, 0);
    if (ptrace(PTRACE_GETREGS, pid, 0, &regs) == 0 &&
        read_from(pid, regs.fs_base + (uint64_t)offset, &at, sizeof at) && at)
        ok = read_from(pid, at, ret, sizeof *ret);
    ptrace(PTRACE_DETACH, pid, 0, 0);
    return ok;
}

static void another_process_reads_the_current_span(void **state)
{
    struct pug_options o = options();
    struct thread_context seen = {.valid = 0};
    struct pug_context c;
    int ready[2], go[2], out[2];
    int64_t offset =
        (int64_t)((uintptr_t)&otel_thread_ctx_v1 - (uintptr_t)__builtin_thread_pointer());
    assert_int_equal(pipe(ready) | pipe(go) | pipe(out), 0);
    pid_t traced = fork();
    if (traced == 0) { /* the program */
        char byte = 0;
        prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
        setenv("PUG_THREAD_CONTEXT", "true", 1);
        if (pug_start(&o) != 0)
            _exit(1);
        PUG_SPAN("long");
        c = pug_context_current();
        if (write(ready[1], &c, sizeof c) != (ssize_t)sizeof c)
            _exit(1);
        close(go[1]);
        (void)!read(go[0], &byte, 1); /* until the reader has read */
        _exit(0);
    }
    assert_int_equal(read(ready[0], &c, sizeof c), sizeof c);
    bool attached = read_thread_context(traced, offset, &seen);
    close(go[0]);
    close(go[1]);
    waitpid(traced, NULL, 0);
    if (!attached) {
        print_message("# no process may be traced on this machine\n");
        skip();
    }
    assert_int_equal(seen.valid, 1);
    assert_memory_equal(seen.trace_id, c.trace_id, 16);
    assert_memory_equal(seen.span_id, c.span_id, 8);
    assert_int_equal(seen.flags, c.flags);
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_process_says_who_it_is_while_it_traces),
        cmocka_unit_test(a_child_says_so_for_itself),
        cmocka_unit_test(the_current_span_of_a_thread_is_there_to_be_read),
#if defined(__x86_64__)
        cmocka_unit_test(another_process_reads_the_current_span),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
