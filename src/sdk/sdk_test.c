/* The library as a program uses it: pug_start to pug_stop, with files that are read back. Each test
 * runs in a child process, for the library lives as long as its process. */
#include "base/arena.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/test.h"
#include "pugmark/pugmark.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char dir[64];
static _Atomic int told;
static char told_text[256];

static void tell(void *user, const char *message)
{
    atomic_fetch_add(&told, 1);
    snprintf(told_text, sizeof told_text, "%s", message);
}

static struct pug_options local_options(void)
{
    return (struct pug_options){.size = sizeof(struct pug_options),
                                .tracing = PUG_TRACING_ON,
                                .backend = PUG_BACKEND_LOCAL,
                                .service_name = "test",
                                .trace_dir = dir,
                                .log = tell};
}

static struct pug_counts counts(void)
{
    struct pug_counts c = {.size = sizeof c};
    pug_counts_read(&c);
    return c;
}

/* What fails in the child fails the test: it says why on stderr and exits with 1. */
#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

static int status_of(pid_t pid)
{
    int status;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* `body` ends the process itself, or returns, which is exit(0). */
static int in_child(void (*body)(void))
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        body();
        exit(0);
    }
    return status_of(pid);
}

/* ---- files ---- */

struct names {
    char name[64][64];
    size_t n; /* complete and async begin events */
    size_t n_unfinished;
    uint64_t total_exported;
};

static void read_event(struct json_reader *r, struct names *into)
{
    char name[64] = "", ph[8] = "";
    int depth = r->depth;
    bool unfinished = false;
    while (json_next(r) != JSON_ERROR && r->depth >= depth) {
        if (r->type != JSON_KEY)
            continue;
        bool is_name = r->depth == depth && str_eq(r->text, STR("name")),
             is_ph = r->depth == depth && str_eq(r->text, STR("ph"));
        if (str_eq(r->text, STR("pugmark.unfinished")))
            unfinished = true;
        json_next(r);
        if (is_name)
            snprintf(name, sizeof name, "%.*s", STR_ARG(r->text));
        if (is_ph)
            snprintf(ph, sizeof ph, "%.*s", STR_ARG(r->text));
    }
    if ((ph[0] == 'X' || ph[0] == 'b') && into->n < 64) {
        strcpy(into->name[into->n++], name);
        into->n_unfinished += unfinished;
    }
}

/* Reads a trace file as the JSON it must be at every moment. */
static bool read_file(const char *path, struct names *into)
{
    struct arena arena = ARENA_INIT;
    struct json_reader r;
    FILE *in = fopen(path, "r");
    static char text[1 << 22];
    size_t n = in ? fread(text, 1, sizeof text, in) : 0;
    if (in)
        fclose(in);
    json_reader_init(&r, (struct str){text, n}, &arena, NULL);
    bool in_events = false;
    while (json_next(&r) != JSON_END && r.type != JSON_ERROR) {
        if (r.type == JSON_KEY && r.depth == 1)
            in_events = str_eq(r.text, STR("traceEvents"));
        else if (r.type == JSON_KEY && str_eq(r.text, STR("exported"))) {
            json_next(&r);
            json_to_u64(&r, &into->total_exported);
        } else if (r.type == JSON_OBJECT && in_events)
            read_event(&r, into);
    }
    arena_done(&arena);
    return r.type == JSON_END;
}

/* All files in `dir`; the number of them. */
static int read_files(struct names *ret)
{
    char path[400];
    int n = 0;
    DIR *d = opendir(dir);
    memset(ret, 0, sizeof *ret);
    for (struct dirent *e; d && (e = readdir(d));) {
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        if (e->d_name[0] == '.')
            continue;
        n++;
        if (!read_file(path, ret))
            fail_msg("%s is not valid JSON", path);
    }
    if (d)
        closedir(d);
    return n;
}

static int count_name(const struct names *names, const char *name)
{
    int n = 0;
    for (size_t i = 0; i < names->n; i++)
        n += strcmp(names->name[i], name) == 0;
    return n;
}

static int setup(void **state)
{
    strcpy(dir, "/tmp/pugmark_sdk_test_XXXXXX");
    atomic_store(&told, 0);
    return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
    char path[400];
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));) {
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        if (e->d_name[0] != '.')
            unlink(path);
    }
    if (d)
        closedir(d);
    return rmdir(dir);
}

/* ---- on and off ---- */

static void off_body(void)
{
    struct pug_span h;
    unsetenv("PUG_TRACING");
    CHECK(pug_start(NULL) == 0);
    CHECK(!pug_on());
    int evaluated = 0;
    {
        PUG_SPAN("nothing", PUG_INT("n", ++evaluated));
        pug_event(PUG_CURRENT, "nothing", PUG_INT("n", ++evaluated));
        pug_span_start(&h, "nothing", PUG_INT("n", ++evaluated));
        CHECK(!pug_context_valid(&h.context));
        pug_span_end(&h);
    }
    CHECK(evaluated == 0);
    CHECK(counts().recorded == 0);
    CHECK(pug_flush(10) == 0 && pug_stop() == 0);
}

static bool is(const struct pug_context *a, const struct pug_context *b)
{
    return memcmp(a, b, offsetof(struct pug_context, tracestate)) == 0 &&
           memcmp(a->tracestate, b->tracestate, b->tracestate_len) == 0;
}

static struct pug_context sender(int number)
{
    struct pug_context c;
    char text[17];
    snprintf(text, sizeof text, "%016x", number + 1);
    CHECK(pug_context_from_hex(&c, "0af7651916cd43dd8448eb211c80319c", text) == 0);
    c.remote = 1;
    c.flags = (uint8_t)(number & 1);
    c.tracestate_len = 3;
    memcpy(c.tracestate, "a=1", 3);
    return c;
}

static void pass(int number)
{
    struct pug_context outer = sender(number), inner = sender(number + 1), now;
    struct pug_span handle;
    PUG_SPAN_FROM(&outer, "off");
    now = pug_context_current();
    CHECK(is(&now, &outer));
    for (int i = 0; i < 2; i++) {
        PUG_SPAN("below");
        PUG_ATTACH(&inner);
        now = pug_context_current();
        CHECK(is(&now, &inner));
        PUG_ATTACH(NULL);
        now = pug_context_current();
        CHECK(is(&now, &inner));
    }
    now = pug_context_current();
    CHECK(is(&now, &outer));
    pug_span_start(&handle, "handle");
    CHECK(is(&handle.context, &outer));
    pug_span_end(&handle);
    pug_span_start_from(&handle, &inner, "handle");
    CHECK(is(&handle.context, &inner));
    pug_span_start_from(&handle, &handle.context, "again");
    CHECK(is(&handle.context, &outer));
    /* One that was left open inside ends with the one around it. */
    pug_attachment around = pug_context_attach(&inner), left = pug_context_attach(&outer);
    CHECK(around && left);
    pug_context_detach(around);
    pug_context_detach(left);
    now = pug_context_current();
    CHECK(is(&now, &outer));
}

static void *passes(void *arg)
{
    for (int i = 0; i < 2000; i++)
        pass((int)(intptr_t)arg * 10000 + i);
    return NULL;
}

static void passing_body(void)
{
    enum { MANY = 1100 };
    static pug_attachment all[MANY];
    pthread_t threads[4];
    unsetenv("PUG_TRACING");
    CHECK(pug_start(NULL) == 0 && !pug_on());
    for (intptr_t i = 0; i < 4; i++)
        CHECK(pthread_create(&threads[i], NULL, passes, (void *)i) == 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    struct pug_context now = pug_context_current(), c = sender(1);
    CHECK(!pug_context_valid(&now));
    /* There is room for so many, and for as many again. */
    for (int round = 0; round < 2; round++) {
        int n = 0;
        for (int i = 0; i < MANY; i++)
            n += (all[i] = pug_context_attach(&c)) != NULL;
        CHECK(n == 1024);
        for (int i = MANY; i-- > 0;)
            pug_context_detach(all[i]);
    }
    /* Attached while it is off, left when it is on. */
    struct pug_options o = local_options();
    o.backend = PUG_BACKEND_DISCARD;
    {
        PUG_ATTACH(&c);
        CHECK(pug_start(&o) == 0 && pug_on());
        PUG_SPAN("on");
        now = pug_context_current();
        CHECK(memcmp(now.trace_id, c.trace_id, 16) != 0);
    }
    now = pug_context_current();
    CHECK(!pug_context_valid(&now));
    pug_stop();
    now = pug_context_current();
    CHECK(!pug_context_valid(&now));
}

static void a_trace_passes_through_a_program_whose_tracing_is_off(void **state)
{
    assert_int_equal(in_child(passing_body), 0);
}

static void it_is_off_until_it_is_turned_on(void **state)
{
    assert_int_equal(in_child(off_body), 0);
}

static void environment_body(void)
{
    setenv("PUG_TRACING", "true", 1);
    setenv("PUG_TRACE_DIR", dir, 1);
    setenv("OTEL_SERVICE_NAME", "from the environment", 1);
    CHECK(pug_start(NULL) == 0);
    CHECK(pug_on());
    CHECK(pug_start(NULL) == PUG_ERR_BUSY);
    CHECK(strcmp(pug_error_text(PUG_ERR_BUSY), "started already") == 0);
    {
        PUG_SPAN("recorded");
    }
    CHECK(pug_flush(2000) == 0);
    CHECK(counts().recorded == 1 && counts().exported == 1);
    CHECK(pug_stop() == 0);
    CHECK(!pug_on());
}

static void every_code_has_a_text(void **state)
{
    (void)state;
    static const int codes[] = {
        PUG_ERR_NOMEM,     PUG_ERR_INVALID,     PUG_ERR_IO,     PUG_ERR_FULL,    PUG_ERR_BUSY,
        PUG_ERR_NOT_FOUND, PUG_ERR_UNSUPPORTED, PUG_ERR_CLOSED, PUG_ERR_TIMEOUT, PUG_ERR_EMPTY};
    const char *unknown = pug_error_text(-12345);
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        assert_string_not_equal(pug_error_text(codes[i]), unknown);
        for (size_t k = 0; k < i; k++)
            assert_string_not_equal(pug_error_text(codes[i]), pug_error_text(codes[k]));
    }
}

static void the_environment_turns_it_on(void **state)
{
    struct names names;
    assert_int_equal(in_child(environment_body), 0);
    assert_int_equal(read_files(&names), 1);
    assert_int_equal(count_name(&names, "recorded"), 1);
    assert_int_equal(names.total_exported, 1);
}

static void refusals_body(void)
{
    struct pug_options o = local_options();
    o.backend = (enum pug_backend)99;
    CHECK(pug_start(&o) == PUG_ERR_UNSUPPORTED && told == 1);
    o = local_options();
    o.ring_bytes = 1000;
    CHECK(pug_start(&o) == PUG_ERR_INVALID && told == 2);
    o = local_options();
    o.size = 0;
    CHECK(pug_start(&o) == PUG_ERR_INVALID);
    o = local_options();
    o.backend = PUG_BACKEND_OTLP;
    o.otlp_endpoint = "localhost:4318";
    CHECK(pug_start(&o) == PUG_ERR_INVALID && strstr(told_text, "http://"));
    o.backend = PUG_BACKEND_DEFAULT;
    setenv("PUG_BACKEND", "jaeger", 1);
    CHECK(pug_start(&o) == PUG_ERR_UNSUPPORTED && strstr(told_text, "zipkin"));
    unsetenv("PUG_BACKEND");
    o = local_options();
    o.trace_dir = "/proc/no/such/place";
    CHECK(pug_start(&o) == PUG_ERR_NOT_FOUND && strstr(told_text, "/proc/no"));
    CHECK(!pug_on());
    o = local_options();
    CHECK(pug_start(&o) == 0 && pug_on());
}

static void what_makes_no_sense_is_refused_and_said(void **state)
{
    assert_int_equal(in_child(refusals_body), 0);
}

static void profiles_body(void)
{
    struct pug_options o = local_options();
    setenv("PUG_PYROSCOPE_ENDPOINT", "http://127.0.0.1:9", 1); /* nobody is there */
    CHECK(pug_start(&o) == 0 && pug_on());
    CHECK(strstr(told_text, "no profiles"));
    for (int i = 0; i < 100; i++) {
        PUG_SPAN("as ever");
    }
    CHECK(pug_flush(5000) == 0);
    CHECK(counts().recorded == 100 && counts().exported == 100);
    CHECK(pug_stop() == 0);
}

static void a_place_for_profiles_that_is_down_costs_no_span(void **state)
{
    assert_int_equal(in_child(profiles_body), 0);
}

static void again_body(void)
{
    struct pug_options o = local_options();
    for (int i = 0; i < 3; i++) {
        CHECK(pug_start(&o) == 0);
        PUG_SPAN("open over the stop");
        {
            PUG_SPAN("each time");
        }
        CHECK(pug_stop() == 0);
        PUG_SPAN("while it is off");
    }
    CHECK(counts().recorded == 6 && counts().exported == 6);
}

static void it_can_be_started_again(void **state)
{
    struct names names;
    assert_int_equal(in_child(again_body), 0);
    assert_int_equal(read_files(&names), 3);
    assert_int_equal(count_name(&names, "each time"), 3);
    /* Written once, when it was stopped; not again when its scope ended. */
    assert_int_equal(count_name(&names, "open over the stop"), 3);
    assert_int_equal(names.n_unfinished, 3);
    assert_int_equal(count_name(&names, "while it is off"), 0);
}

/* ---- ends of all kinds ---- */

static void exit_body(void)
{
    struct pug_options o = local_options();
    static struct pug_span handle;
    CHECK(pug_start(&o) == 0);
    PUG_SPAN("open");
    pug_span_start(&handle, "open handle");
    {
        PUG_SPAN("done");
    }
    exit(7);
}

static void exit_in_the_middle_of_a_span_loses_nothing(void **state)
{
    struct names names;
    assert_int_equal(in_child(exit_body), 7);
    assert_int_equal(read_files(&names), 1);
    assert_int_equal(count_name(&names, "open"), 1);
    assert_int_equal(count_name(&names, "open handle"), 1);
    assert_int_equal(count_name(&names, "done"), 1);
    assert_int_equal(names.n_unfinished, 2);
}

static void killed_body(void)
{
    struct pug_options o = local_options();
    CHECK(pug_start(&o) == 0);
    {
        PUG_SPAN("before");
    }
    CHECK(pug_flush(2000) == 0);
    kill(getpid(), SIGKILL);
}

static void after_kill_9_the_file_is_valid(void **state)
{
    struct names names;
    assert_int_equal(in_child(killed_body), 128 + SIGKILL);
    assert_int_equal(read_files(&names), 1);
    assert_int_equal(count_name(&names, "before"), 1);
}

static void fork_body(void)
{
    struct pug_options o = local_options();
    CHECK(pug_start(&o) == 0);
    PUG_SPAN("parent");
    struct pug_context here = pug_context_current();
    /* The drain is idle then: AddressSanitizer's allocator does not survive a fork while another
     * thread is in it. tests/library/lifecycle_test.py forks under load. */
    CHECK(pug_flush(2000) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct pug_context mine;
        {
            PUG_SPAN("child");
            mine = pug_context_current();
        }
        CHECK(memcmp(mine.trace_id, here.trace_id, 16) == 0);
        CHECK(memcmp(mine.span_id, here.span_id, 8) != 0);
        CHECK(pug_flush(2000) == 0);
        CHECK(counts().recorded == 1 && counts().exported == 1);
        exit(0);
    }
    CHECK(status_of(pid) == 0);
    pid = fork();
    if (pid == 0)
        exit(pug_stop() == 0 ? 0 : 1); /* one that records nothing */
    CHECK(status_of(pid) == 0);
    {
        PUG_SPAN("parent goes on");
    }
    CHECK(pug_flush(2000) == 0);
    CHECK(counts().recorded == 1);
}

enum { DRAWN = 64 };

struct drawn {
    uint8_t trace_ids[DRAWN][16];
    bool kept[DRAWN];
};

static void draw(struct drawn *ret)
{
    memset(ret, 0, sizeof *ret);
    for (int i = 0; i < DRAWN; i++) {
        PUG_SPAN("root");
        struct pug_context c = pug_context_current();
        memcpy(ret->trace_ids[i], c.trace_id, 16);
        ret->kept[i] = c.flags & PUG_FLAG_SAMPLED;
    }
}

static void fork_draws_body(void)
{
    struct pug_options o = local_options();
    struct drawn mine, childs;
    int out[2];
    o.backend = PUG_BACKEND_DISCARD;
    o.sampler = "ratio:0.5";
    CHECK(pug_start(&o) == 0);
    draw(&mine);
    pug_flush(5000);
    CHECK(pipe(out) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        draw(&mine);
        _exit(write(out[1], &mine, sizeof mine) == (ssize_t)sizeof mine ? 0 : 1);
    }
    draw(&mine);
    CHECK(read(out[0], &childs, sizeof childs) == (ssize_t)sizeof childs);
    CHECK(status_of(pid) == 0);
    CHECK(memcmp(mine.kept, childs.kept, sizeof mine.kept) != 0);
    for (int i = 0; i < DRAWN; i++)
        for (int k = 0; k < DRAWN; k++)
            CHECK(memcmp(mine.trace_ids[i], childs.trace_ids[k], 16) != 0);
    pug_stop();
}

static void a_forked_child_draws_its_own_roots(void **state)
{
    assert_int_equal(in_child(fork_draws_body), 0);
}

static void a_forked_child_has_its_own_trace_file(void **state)
{
    struct names names;
    assert_int_equal(in_child(fork_body), 0);
    assert_int_equal(read_files(&names), 2);
    assert_int_equal(count_name(&names, "child"), 1);
    assert_int_equal(count_name(&names, "parent goes on"), 1);
    /* The scope that was open at the fork is the parent's alone. */
    assert_int_equal(count_name(&names, "parent"), 1);
}

/* ---- when it does not go well ---- */

static void disk_body(void)
{
    struct pug_options o = local_options();
    struct rlimit limit = {3000, 3000};
    signal(SIGXFSZ, SIG_IGN);
    CHECK(pug_start(&o) == 0);
    CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    for (int round = 0; round < 4; round++) {
        for (int i = 0; i < 5; i++) {
            PUG_SPAN("written or not");
        }
        pug_flush(2000);
    }
    struct pug_counts c = counts();
    CHECK(c.recorded == 20);
    CHECK(c.lost_export > 0 && c.exported > 0);
    CHECK(c.exported + c.lost_export >= 20);
    CHECK(told == 1);
    _exit(0); /* no last write: the file must be valid as it is */
}

static void a_full_disk_is_told_once_and_the_file_stays_valid(void **state)
{
    struct names names;
    assert_int_equal(in_child(disk_body), 0);
    assert_int_equal(read_files(&names), 1);
    assert_true(count_name(&names, "written or not") > 0);
}

static void dead_collector_body(void)
{
    struct pug_options o = local_options();
    o.backend = PUG_BACKEND_OTLP;
    o.otlp_endpoint = "http://127.0.0.1:1";
    o.stop_timeout_ms = 300;
    CHECK(pug_start(&o) == 0);
    {
        PUG_SPAN("to nobody");
    }
    CHECK(pug_flush(50) == PUG_ERR_TIMEOUT);
    uint64_t start = clock_monotonic_ns();
    CHECK(pug_stop() == PUG_ERR_TIMEOUT);
    CHECK(clock_monotonic_ns() - start < 2 * NS_PER_S);
    CHECK(counts().recorded == 1 && counts().lost_export == 1 && counts().exported == 0);
    CHECK(told >= 1);
}

static void a_dead_collector_holds_nobody_up(void **state)
{
    assert_int_equal(in_child(dead_collector_body), 0);
}

/* Accepts and never answers. */
static int silent_listener(uint16_t *ret_port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(bind(fd, (struct sockaddr *)&a, sizeof a) == 0 && listen(fd, 8) == 0);
    getsockname(fd, (struct sockaddr *)&a, &len);
    *ret_port = ntohs(a.sin_port);
    return fd;
}

static void silent_collector_body(void)
{
    struct pug_options o = local_options();
    char url[64];
    uint16_t port;
    int fd = silent_listener(&port);
    snprintf(url, sizeof url, "http://127.0.0.1:%u", port);
    o.backend = PUG_BACKEND_OTLP;
    o.otlp_endpoint = url;
    o.stop_timeout_ms = 300;
    o.flush_interval_ms = 1;
    o.queue_bytes_max = 100000; /* a batch is about half of it */
    CHECK(pug_start(&o) == 0);
    for (int i = 0; i < 2000; i++) {
        PUG_SPAN("into the queue", PUG_STR("text", "some bytes to fill it with"));
    }
    uint64_t start = clock_monotonic_ns();
    CHECK(pug_stop() == PUG_ERR_TIMEOUT);
    CHECK(clock_monotonic_ns() - start < 2 * NS_PER_S);
    struct pug_counts c = counts();
    CHECK(c.recorded == 2000 && c.lost_queue_full > 0);
    /* One more: the span that says what was lost. */
    CHECK(c.lost_queue_full + c.lost_export >= 2000);
    close(fd);
}

static void a_silent_collector_fills_a_bounded_queue_and_is_left(void **state)
{
    assert_int_equal(in_child(silent_collector_body), 0);
}

static void errno_body(void)
{
    struct pug_options o = local_options();
    struct pug_span h;
    struct pug_context c;
    errno = 4711;
    CHECK(pug_start(&o) == 0 && errno == 4711);
    {
        PUG_SPAN("a", PUG_STR("s", "t"));
        pug_span_start(&h, "h");
        pug_event(PUG_CURRENT, "e");
        pug_set_int(&h, "k", 1);
        c = pug_context_current();
        PUG_ATTACH(&c);
        pug_span_end(&h);
    }
    CHECK(errno == 4711);
    CHECK(pug_flush(2000) == 0 && errno == 4711);
    o.tracing = (enum pug_tracing)0;
    CHECK(pug_start(&o) == PUG_ERR_BUSY && errno == 4711);
    CHECK(pug_stop() == 0 && errno == 4711);
}

static void errno_is_never_changed(void **state)
{
    assert_int_equal(in_child(errno_body), 0);
}

/* ---- threads come and go ---- */

static void *short_life(void *arg)
{
    PUG_SPAN("thread", PUG_INT("n", (intptr_t)arg));
    return NULL;
}

static int maps_of_memfd(void)
{
    char line[512];
    int n = 0;
    FILE *in = fopen("/proc/self/maps", "r");
    while (in && fgets(line, sizeof line, in))
        n += strstr(line, "memfd:pugmark") != NULL;
    if (in)
        fclose(in);
    return n;
}

static void many_threads_body(void)
{
    struct pug_options o = local_options();
    o.backend = PUG_BACKEND_DISCARD;
    CHECK(pug_start(&o) == 0);
    for (int i = 0; i < 300; i++) {
        pthread_t t;
        CHECK(pthread_create(&t, NULL, short_life, (void *)(intptr_t)i) == 0);
        pthread_join(t, NULL);
        if (i % 8 == 7) /* the drain hands lanes of finished threads on */
            CHECK(pug_flush(2000) == 0);
    }
    CHECK(pug_flush(2000) == 0);
    CHECK(counts().recorded == 300 && counts().lost_no_lane == 0);
    CHECK(maps_of_memfd() < 150); /* two for each lane: far fewer lanes than threads */
}

static void lanes_of_finished_threads_are_used_again(void **state)
{
    assert_int_equal(in_child(many_threads_body), 0);
}

/* ---- the drops are in the data ---- */

static void lost_body(void)
{
    struct pug_options o = local_options();
    o.ring_bytes = 128 << 10;
    o.drain_interval_us = 200000;
    CHECK(pug_start(&o) == 0);
    uint64_t n = 0;
    for (; n < 20000; n++) {
        PUG_SPAN("too many");
    }
    CHECK(pug_flush(5000) == 0);
    struct pug_counts c = counts();
    CHECK(c.lost_ring_full > 0);
    CHECK(c.recorded + c.lost_ring_full == n);
}

static void what_was_lost_is_in_the_data(void **state)
{
    char path[400], line[4096];
    bool found = false;
    assert_int_equal(in_child(lost_body), 0);
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));) {
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        FILE *in = e->d_name[0] == '.' ? NULL : fopen(path, "r");
        while (in && fgets(line, sizeof line, in))
            found |= strstr(line, "pugmark.lost.spans") && strstr(line, "\"ring_full\"");
        if (in)
            fclose(in);
    }
    if (d)
        closedir(d);
    assert_true(found);
}

/* ---- our own threads ---- */

/* How many threads whose name begins with "pugmark" have this policy. */
static int own_threads(int policy)
{
    DIR *tasks = opendir("/proc/self/task");
    int n = 0;
    for (struct dirent *e; tasks && (e = readdir(tasks));) {
        char path[300], name[32] = "";
        snprintf(path, sizeof path, "/proc/self/task/%s/comm", e->d_name);
        FILE *in = fopen(path, "r");
        if (in && !fgets(name, sizeof name, in))
            name[0] = '\0';
        if (in)
            fclose(in);
        n += strncmp(name, "pugmark", 7) == 0 && sched_getscheduler(atoi(e->d_name)) == policy;
    }
    if (tasks)
        closedir(tasks);
    return n;
}

static void threads_body(void)
{
    struct pug_options o = local_options();
    CHECK(pug_start(&o) == 0);
    CHECK(own_threads(SCHED_BATCH) == 1);
    CHECK(own_threads(SCHED_OTHER) == 0);
    CHECK(pug_stop() == 0);
}

static void our_threads_interrupt_nobody(void **state)
{
    assert_int_equal(in_child(threads_body), 0);
}

/* ---- the log callback calls us ---- */

static void call_back(void *user, const char *message)
{
    int *said = user;
    tell(NULL, message);
    said[0] = pug_flush(1000);
    said[1] = pug_start(NULL);
    said[2] = pug_stop();
}

static void callback_body(void)
{
    int said[3] = {1, 1, 1};
    struct pug_options o = local_options();
    alarm(20); /* instead of for ever */
    o.log = call_back;
    o.log_user = said;
    o.trace_dir = "/proc/there/is/none";
    CHECK(pug_start(&o) != 0 && told == 1);
    CHECK(said[0] == 0 && said[1] == PUG_ERR_BUSY && said[2] == PUG_ERR_BUSY);
    o.trace_dir = dir;
    CHECK(pug_start(&o) == 0 && pug_flush(5000) == 0 && pug_stop() == 0);
}

static void a_log_callback_may_call_the_library_inside_a_start(void **state)
{
    assert_int_equal(in_child(callback_body), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(it_is_off_until_it_is_turned_on),
        TEST(every_code_has_a_text),
        TEST(the_environment_turns_it_on),
        TEST(what_makes_no_sense_is_refused_and_said),
        TEST(a_place_for_profiles_that_is_down_costs_no_span),
        TEST(it_can_be_started_again),
        TEST(exit_in_the_middle_of_a_span_loses_nothing),
        TEST(after_kill_9_the_file_is_valid),
        TEST(a_forked_child_has_its_own_trace_file),
        TEST(a_trace_passes_through_a_program_whose_tracing_is_off),
        TEST(a_forked_child_draws_its_own_roots),
        TEST(a_full_disk_is_told_once_and_the_file_stays_valid),
        TEST(a_dead_collector_holds_nobody_up),
        TEST(a_silent_collector_fills_a_bounded_queue_and_is_left),
        TEST(errno_is_never_changed),
        TEST(lanes_of_finished_threads_are_used_again),
        TEST(what_was_lost_is_in_the_data),
        TEST(our_threads_interrupt_nobody),
        TEST(a_log_callback_may_call_the_library_inside_a_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
