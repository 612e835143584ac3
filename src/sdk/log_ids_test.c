#define PUG_LOG_SYSLOG
#include "base/test.h"
#include "pugmark/log.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define TRACE "0af7651916cd43dd8448eb211c80319c"
#define SPAN "b7ad6b7169203331"
#define SUFFIX " otel_trace_id=" TRACE " otel_span_id=" SPAN

static struct pug_context context(void)
{
    struct pug_context c;
    assert_int_equal(pug_context_from_hex(&c, TRACE, SPAN), 0);
    return c;
}

/* ---- printf ---- */

static void a_printf_format_gets_both_ids(void **state)
{
    char out[200];
    struct pug_context c = context();
    PUG_ATTACH(&c);
    snprintf(out, sizeof out, "disk %d " PUG_LOG_FMT " full", 7, PUG_LOG_ARGS);
    assert_string_equal(out, "disk 7 otel_trace_id=" TRACE " otel_span_id=" SPAN " full");
    PUG_SPAN("inner");
    struct pug_context now = pug_context_current();
    char span[17];
    pug_span_id_hex(&now, span);
    assert_string_equal(pug_log_trace_id(), TRACE);
    assert_string_equal(pug_log_span_id(), span);
    assert_string_not_equal(span, SPAN);
}

static void without_a_span_the_ids_are_0(void **state)
{
    char out[200];
    snprintf(out, sizeof out, PUG_LOG_FMT, PUG_LOG_ARGS);
    assert_string_equal(out, "otel_trace_id=0 otel_span_id=0");
}

/* ---- syslog ---- */

/* Runs in a child with a /dev/log of its own, or with standard error for it. */
static void child_logs(void (*log)(void))
{
    struct pug_context c = context();
    struct pug_options o = {
        .size = sizeof o, .tracing = PUG_TRACING_ON, .backend = PUG_BACKEND_DISCARD};
    if (pug_start(&o) != 0)
        _exit(3);
    log();
    {
        PUG_ATTACH(&c);
        log();
    }
    pug_stop();
    log();
    closelog();
    _exit(0);
}

static void log_errno(void)
{
    errno = ENOSPC;
    syslog(LOG_USER | LOG_WARNING, "%s %d%%: %m", "disk", 7);
    if (errno != ENOSPC)
        _exit(4);
}

static void log_line_feed(void)
{
    syslog(LOG_NOTICE, "ends\n");
}

/* What the child writes to standard error. The tracing of this process is off while it forks. */
static void run_with_stderr(void (*log)(void), char *out, size_t size)
{
    int fds[2], status;
    size_t n = 0;
    ssize_t got;
    assert_int_equal(pipe(fds), 0);
    assert_int_equal(pug_stop(), 0);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(fds[1], 2);
        openlog("test", LOG_PERROR | LOG_ODELAY, LOG_USER);
        child_logs(log);
    }
    close(fds[1]);
    while (n + 1 < size && (got = read(fds[0], out + n, size - 1 - n)) > 0)
        n += (size_t)got;
    out[n] = '\0';
    close(fds[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void syslog_carries_the_ids_only_where_there_is_a_trace(void **state)
{
    char out[1000];
    run_with_stderr(log_errno, out, sizeof out);
    assert_string_equal(out, "test: disk 7%: No space left on device\n"
                             "test: disk 7%: No space left on device" SUFFIX "\n"
                             "test: disk 7%: No space left on device\n");
}

static void a_line_feed_at_the_end_stays_there(void **state)
{
    char out[1000];
    run_with_stderr(log_line_feed, out, sizeof out);
    assert_string_equal(out, "test: ends\ntest: ends" SUFFIX "\ntest: ends\n");
}

static char long_format[PUG_LOG_FORMAT_MAX + 2];

#pragma GCC diagnostic ignored "-Wformat-nonliteral"
#pragma GCC diagnostic ignored "-Wformat-security"
static void log_long(void)
{
    memset(long_format, 'x', sizeof long_format);
    long_format[PUG_LOG_FORMAT_MAX + 1] = '\0';
    pug_syslog(LOG_NOTICE, long_format);
    long_format[PUG_LOG_FORMAT_MAX] = '\0';
    pug_syslog(LOG_NOTICE, long_format);
}

static void too_long_a_format_goes_out_without_the_ids(void **state)
{
    static char out[40000];
    run_with_stderr(log_long, out, sizeof out);
    const char *first = strstr(out, SUFFIX);
    assert_non_null(first);
    assert_null(strstr(first + 1, SUFFIX));
    const char *line = strchr(strchr(out, '\n') + 1, '\n') + 1; /* the third */
    assert_int_equal(strcspn(line, "\n"), strlen("test: ") + PUG_LOG_FORMAT_MAX + 1);
}

static void with_list(int priority, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsyslog(priority, format, args);
    va_end(args);
}

static void log_list(void)
{
    with_list(LOG_ERR, "%s", "listed");
}

static void vsyslog_is_replaced_too(void **state)
{
    char out[1000];
    run_with_stderr(log_list, out, sizeof out);
    assert_string_equal(out, "test: listed\ntest: listed" SUFFIX "\ntest: listed\n");
}

/* A socket at /dev/log that nobody else sees; -1: may not. */
static int dev_log(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "/dev/log"};
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("none", "/dev", "tmpfs", 0, NULL) != 0)
        return -1;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) != 0)
        return -1;
    return fd;
}

/* Writes what arrived to `out`; exits 77 where there can be no such socket. */
static void receive_all(int out)
{
    int fd = dev_log(), status;
    char datagram[1000];
    if (fd < 0)
        _exit(77);
    pid_t pid = fork();
    if (pid == 0) {
        openlog("test", LOG_ODELAY, LOG_USER);
        child_logs(log_errno);
    }
    if (waitpid(pid, &status, 0) != pid || status != 0)
        _exit(5);
    for (int i = 0; i < 3; i++) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        ssize_t n = poll(&p, 1, 10000) == 1 ? recv(fd, datagram, sizeof datagram - 1, 0) : -1;
        if (n < 0 || write(out, datagram, (size_t)n) != n || write(out, "\n", 1) != 1)
            _exit(6);
    }
    _exit(0);
}

static void the_system_log_gets_priority_and_ids(void **state)
{
    char out[3000];
    int fds[2], status;
    size_t n = 0;
    ssize_t got;
    assert_int_equal(pug_stop(), 0);
    assert_int_equal(pipe(fds), 0);
    pid_t pid = fork();
    if (pid == 0)
        receive_all(fds[1]);
    close(fds[1]);
    while (n + 1 < sizeof out && (got = read(fds[0], out + n, sizeof out - 1 - n)) > 0)
        n += (size_t)got;
    out[n] = '\0';
    close(fds[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
        print_message("no mount namespace of our own can be had here\n");
        skip();
    }
    assert_int_equal(status, 0);
    char *line = out;
    for (int i = 0; i < 3; i++) {
        char *end = strchr(line, '\n');
        assert_non_null(end);
        *end = '\0';
        assert_int_equal(strncmp(line, "<12>", 4), 0); /* LOG_USER | LOG_WARNING */
        const char *message = strstr(line, "test: ");
        assert_non_null(message);
        assert_string_equal(message, i == 1 ? "test: disk 7%: No space left on device" SUFFIX
                                            : "test: disk 7%: No space left on device");
        line = end + 1;
    }
}

/* ---- JSON ---- */

#define MEMBERS "\"otel_trace_id\":\"" TRACE "\",\"otel_span_id\":\"" SPAN "\""
#define NO_MEMBERS "\"otel_trace_id\":\"0\",\"otel_span_id\":\"0\""

static void assert_json(const char *record, const char *expected)
{
    char text[400];
    strcpy(text, record);
    size_t n = pug_log_json(text, strlen(text), sizeof text);
    assert_string_equal(text, expected);
    assert_int_equal(n, strlen(expected));
}

static void a_json_record_gets_both_members_in_place_of_others(void **state)
{
    struct pug_context c = context();
    assert_json("{\"msg\":\"hi\"}\n", "{\"msg\":\"hi\"," NO_MEMBERS "}\n");
    PUG_ATTACH(&c);
    assert_json("{\"msg\":\"hi\"}\n", "{\"msg\":\"hi\"," MEMBERS "}\n");
    assert_json("{}", "{" MEMBERS "}");
    assert_json("{" NO_MEMBERS "}", "{" MEMBERS "}");
    assert_json("{\"otel_span_id\":[1],\"a\":{\"otel_span_id\":1},\"otel_trace_id\":null}",
                "{\"a\":{\"otel_span_id\":1}," MEMBERS "}");
}

static void a_record_that_is_no_object_or_finds_no_room_stays(void **state)
{
    struct pug_context c = context();
    char text[400] = "{\"a\":1}";
    PUG_ATTACH(&c);
    assert_json("[1]", "[1]");
    assert_json("hello", "hello");
    assert_json("{\"a\":1", "{\"a\":1");
    assert_json("", "");
    assert_int_equal(pug_log_json(NULL, 0, 0), 0);
    size_t need = strlen("{\"a\":1," MEMBERS "}");
    assert_int_equal(pug_log_json(text, 7, need), need);
    assert_string_equal(text, "{\"a\":1}");
    assert_int_equal(pug_log_json(text, 7, need + 1), need);
    assert_string_equal(text, "{\"a\":1," MEMBERS "}");
}

/* ---- formats of the program's own ---- */

static void assert_format(const char *text, const char *expected)
{
    char out[300];
    assert_int_equal(pug_log_format(out, sizeof out, text), strlen(expected));
    assert_string_equal(out, expected);
}

static void names_in_a_format_are_replaced_and_nothing_else(void **state)
{
    struct pug_context c = context();
    assert_format("%(otel_trace_id)s/%(otel_span_id)s/%(otel_trace_sampled)s/%(request_id)s!",
                  "0/0/false/0!");
    PUG_ATTACH(&c);
    PUG_REQUEST_ID("r-7");
    assert_format("[%(otel_trace_id) %(otel_span_id)] %(otel_trace_sampled) %(request_id)s",
                  "[" TRACE " " SPAN "] true r-7");
    assert_format("%(asctime)s %s %d %% %%(otel_span_id) %( %(otel_span_id %",
                  "%(asctime)s %s %d %% %%(otel_span_id) %( %(otel_span_id %");
    assert_format("%(%(otel_span_id))", "%(" SPAN ")");
    assert_format("", "");
    c.flags = 0;
    PUG_ATTACH(&c);
    assert_format("%(otel_trace_sampled)", "false");
}

static void too_small_a_buffer_cuts_and_tells_the_length(void **state)
{
    char out[8];
    struct pug_context c = context();
    PUG_ATTACH(&c);
    assert_int_equal(pug_log_format(out, sizeof out, "ab%(otel_span_id)"), 18);
    assert_string_equal(out, "abb7ad6");
    assert_int_equal(pug_log_format(NULL, 0, "ab%(otel_span_id)"), 18);
    assert_int_equal(pug_log_format(out, 1, "ab"), 2);
    assert_string_equal(out, "");
}

static void with_tracing_off_all_of_it_works(void **state)
{
    char out[100];
    assert_int_equal(pug_stop(), 0);
    assert_string_equal(pug_log_trace_id(), "0");
    assert_string_equal(pug_log_span_id(), "0");
    assert_json("{\"a\":1}", "{\"a\":1," NO_MEMBERS "}");
    assert_int_equal(pug_log_format(out, sizeof out, "%(otel_trace_id)s"), 1);
    assert_string_equal(out, "0");
    /* A trace that passes through is passed on, and logs belong to it. */
    struct pug_context c = context();
    char trace[33], span[17];
    pug_trace_id_hex(&c, trace);
    pug_span_id_hex(&c, span);
    PUG_ATTACH(&c);
    PUG_SPAN("not recorded");
    assert_string_equal(pug_log_trace_id(), trace);
    assert_string_equal(pug_log_span_id(), span);
    assert_int_equal(pug_log_format(out, sizeof out, "%(otel_trace_id)s"), 32);
    assert_string_equal(out, trace);
}

static void errno_is_kept(void **state)
{
    char text[200] = "{\"\\u0061\":1}";
    errno = 4711;
    (void)pug_log_trace_id();
    (void)pug_log_span_id();
    pug_log_json(text, strlen(text), sizeof text);
    pug_log_format(text, sizeof text, "%(otel_trace_id)");
    assert_int_equal(errno, 4711);
}

static int start(void **state)
{
    struct pug_options o = {
        .size = sizeof o, .tracing = PUG_TRACING_ON, .backend = PUG_BACKEND_DISCARD};
    return pug_start(&o);
}

static int stop(void **state)
{
    return pug_stop();
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, start, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_printf_format_gets_both_ids),
        TEST(without_a_span_the_ids_are_0),
        TEST(syslog_carries_the_ids_only_where_there_is_a_trace),
        TEST(a_line_feed_at_the_end_stays_there),
        TEST(too_long_a_format_goes_out_without_the_ids),
        TEST(vsyslog_is_replaced_too),
        TEST(the_system_log_gets_priority_and_ids),
        TEST(a_json_record_gets_both_members_in_place_of_others),
        TEST(a_record_that_is_no_object_or_finds_no_room_stays),
        TEST(names_in_a_format_are_replaced_and_nothing_else),
        TEST(too_small_a_buffer_cuts_and_tells_the_length),
        TEST(with_tracing_off_all_of_it_works),
        TEST(errno_is_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
