/* Secrets from each provider; Vault is a server of this test that speaks its API. */
#include "base/clock.h"
#include "base/test.h"
#include "sdk/options.h"
#include "sdk/secret.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[64], told[4096];

static void tell(void *user, const char *message)
{
    size_t n = strlen(told);
    snprintf(told + n, sizeof told - n, "%s\n", message);
}

static int fresh(void **state)
{
    test_environment_clear();
    told[0] = 0;
    return 0;
}

static void write_file(const char *name, const char *text)
{
    FILE *f = fopen(name, "w");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

/* What [telemetry.secrets] says, and what comes of it. */
static int headers_of(const char *secrets, const char *telemetry, struct config *ret,
                      struct error_detail *ret_problem)
{
    struct pug_options o = {.size = sizeof o,
                            .tracing = PUG_TRACING_ON,
                            .backend = PUG_BACKEND_OTLP,
                            .log = tell,
                            .config_file = "test.toml"};
    char text[2048];
    snprintf(text, sizeof text, "[telemetry]\n%s\n[telemetry.secrets]\n%s\n", telemetry, secrets);
    write_file("test.toml", text);
    return config_init(ret, &o, ret_problem);
}

static void check_headers(const char *secrets, const char *expected)
{
    struct config c;
    struct error_detail problem = {0};
    if (headers_of(secrets, "", &c, &problem) != 0)
        fail_msg("%s", problem.message);
    if (!c.otlp_headers)
        fail_msg("no headers; told: %s", told);
    assert_string_equal(c.otlp_headers, expected);
    assert_string_equal(told, "");
    config_done(&c);
}

/* Without it tracing goes on, or not, as is asked for; either way with these words, and without what
 * is secret. */
static void check_missing(const char *secrets, const char *words)
{
    struct config c;
    struct error_detail problem = {0};
    told[0] = 0;
    assert_int_equal(headers_of(secrets, "otlp_headers_vault_key = \"HEADERS\"", &c, &problem), 0);
    assert_true(c.on);
    assert_null(c.otlp_headers);
    if (!strstr(told, words) || !strstr(told, "spans are sent without authentication"))
        fail_msg("\"%s\" does not say \"%s\"", told, words);
    assert_null(strstr(told, "hunter2"));
    config_done(&c);
    assert_int_equal(
        headers_of(secrets, "otlp_headers_vault_key = \"HEADERS\"\notlp_headers_optional = false",
                   &c, &problem),
        ERR_NOT_FOUND);
    if (!strstr(problem.message, "test.toml:2: no OTLP headers from the provider"))
        fail_msg("\"%s\"", problem.message);
    assert_null(strstr(problem.message, "hunter2"));
}

static void a_json_object_of_strings_becomes_headers(void **state)
{
    struct buf out = BUF_INIT;
    struct error_detail detail;
    assert_int_equal(
        secret_to_headers(STR("{\"authorization\": \"Basic aGk6 eA==\", \"x-a\":\"1,2\"}"), &out,
                          &detail),
        0);
    assert_str_eq(buf_as_str(&out), STR("authorization=Basic%20aGk6%20eA%3D%3D,x-a=1%2C2"));
    static const char *const bad[] = {"",
                                      "[]",
                                      "{\"a\":1}",
                                      "{\"a\":\"hunter2",
                                      "{\"a b\":\"c\"}",
                                      "{\"a\":\"hunter2\\r\\nx: y\"}",
                                      "hunter2",
                                      "{} {}"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        buf_clear(&out);
        assert_int_equal(secret_to_headers(str_from(bad[i]), &out, &detail), ERR_INVALID);
        assert_null(strstr(detail.message, "hunter2"));
    }
    secret_free(&out);
}

static void the_environment_has_it(void **state)
{
    setenv("PUG_OTEL_HEADERS", "{\"a\":\"hunter2\"}", 1);
    check_headers("", "a=hunter2");
    setenv("OTEL_EXPORTER_OTLP_HEADERS", "b=c", 1);
    unsetenv("PUG_OTEL_HEADERS");
    check_headers("", "b=c");
}

static void nobody_is_told_of_what_nobody_asked_for(void **state)
{
    struct config c;
    assert_int_equal(headers_of("", "", &c, NULL), 0);
    assert_null(c.otlp_headers);
    assert_string_equal(told, "");
    config_done(&c);
}

static void a_missing_key_is_told_or_stops_the_start(void **state)
{
    check_missing("provider = \"environment\"", "the variable HEADERS is not set");
    setenv("HEADERS", "Bearer hunter2", 1);
    check_missing("provider = \"environment\"", "expected a JSON object of strings");
}

static void a_file_has_it(void **state)
{
    write_file("PUG_OTEL_HEADERS", "{\"a\":\"b\"}\n");
    check_headers("provider = \"file\"\ndirectory = \".\"", "a=b");
    setenv("CREDENTIALS_DIRECTORY", dir, 1);
    check_headers("provider = \"file\"", "a=b");
    check_missing("provider = \"file\"", "HEADERS: No such file");
    check_missing("provider = \"file\"\ndirectory = \"/dev\"", "No such file");
    unsetenv("CREDENTIALS_DIRECTORY");
    check_missing("provider = \"file\"", "needs `directory`");
    assert_int_equal(mkdir("HEADERS", 0755), 0);
    check_missing("provider = \"file\"\ndirectory = \".\"", "is not a regular file");
    assert_int_equal(rmdir("HEADERS"), 0);
}

static void a_command_prints_it(void **state)
{
    char toml[400];
    write_file("print.sh", "#!/bin/sh\nread nothing && exit 9\necho complaint >&2\n"
                           "echo \"{\\\"$1\\\": \\\"$2\\\"}\"\n");
    assert_int_equal(chmod("print.sh", 0755), 0);
    snprintf(toml, sizeof toml,
             "provider = \"command\"\ncommand = [\"%s/print.sh\", \"a; exit 7\"]", dir);
    struct config c;
    assert_int_equal(headers_of(toml, "", &c, NULL),
                     0); /* "a; exit 7" is no header, and no command */
    assert_non_null(strstr(told, "a key is not the name of a header"));
    config_done(&c);
    told[0] = 0;
    snprintf(toml, sizeof toml, "provider = \"command\"\ncommand = [\"%s/print.sh\", \"k\"]", dir);
    check_headers(toml, "k=PUG_OTEL_HEADERS");
    void (*before)(int) = signal(SIGCHLD, SIG_IGN); /* as some hosts have it */
    check_headers(toml, "k=PUG_OTEL_HEADERS");
    signal(SIGCHLD, before);
}

static void a_command_that_fails_is_told(void **state)
{
    check_missing("provider = \"command\"\ncommand = [\"/bin/false\"]", "the command exits with 1");
    check_missing("provider = \"command\"\ncommand = [\"/nowhere/at/all\"]", "No such file");
    check_missing("provider = \"command\"\ncommand = [\"false\"]", "absolute path");
    check_missing("provider = \"command\"", "needs `command`");
    check_missing("provider = \"command\"\ncommand = [\"/bin/sh\", \"-c\", \"yes hunter2\"]",
                  "printed more than 64 KiB");
    uint64_t start = clock_monotonic_ns();
    check_missing("provider = \"command\"\ntimeout_ms = 100\n"
                  "command = [\"/bin/sh\", \"-c\", \"sleep 100 & echo hunter2; sleep 100\"]",
                  "took too long");
    assert_true(clock_monotonic_ns() - start < 50 * NS_PER_S);
}

/* Put between the library and poll() in this program. */
static _Atomic bool poll_fails;
int __real_poll(struct pollfd *fds, nfds_t n, int timeout_ms);
int __wrap_poll(struct pollfd *fds, nfds_t n, int timeout_ms);
int __wrap_poll(struct pollfd *fds, nfds_t n, int timeout_ms)
{
    if (!atomic_load(&poll_fails))
        return __real_poll(fds, n, timeout_ms);
    errno = ENOMEM;
    return -1;
}

static void a_command_leaves_no_process_when_it_cannot_be_read(void **state)
{
    atomic_store(&poll_fails, true);
    check_missing("provider = \"command\"\ncommand = [\"/bin/sh\", \"-c\", \"sleep 100\"]",
                  "poll: ");
    atomic_store(&poll_fails, false);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
}

/* ---- a small Vault ---- */

struct vault {
    int fd;
    unsigned port;
    pthread_t thread;
    _Atomic bool silent;
};

static struct vault vault;

static void answer(int fd, const char *request)
{
    static const char good[] =
        "{\"request_id\":\"1\",\"auth\":null,\"data\":{\"metadata\":{\"version\":3,\"data\":{}},"
        "\"data\":{\"other\":[1,{\"HEADERS\":0}],\"PUG_OTEL_HEADERS\":\"{\\\"a\\\":\\\"hunter2\\\"}"
        "\","
        "\"OBJECT\":{\"x-b\":\"c\"}}}}";
    const char *body = good, *status = "200 OK";
    char head[200];
    if (!strstr(request, "X-Vault-Token: s.hunter2\r\n")) {
        status = "403 Forbidden";
        body = "{\"errors\":[\"permission denied\"]}";
    } else if (strstr(request, "GET /v1/secret/data/sealed ")) {
        status = "503 Service Unavailable";
        body = "{\"errors\":[\"Vault is sealed\"]}";
    } else if (strstr(request, "GET /v1/secret/data/broken ")) {
        status = "500 Internal Server Error";
        body = "{\"errors\":[\"hunter2\"]}";
    } else if (strstr(request, "GET /v1/secret/data/moved ")) {
        status = "307 Temporary Redirect\r\nLocation: /v1/secret/data/app";
        body = "";
    } else if (strstr(request, "GET /v1/kv1/app ")) {
        body = "{\"data\":{\"PUG_OTEL_HEADERS\":\"{}\"}}";
    } else if (!strstr(request, "GET /v1/secret/data/app ") ||
               !strstr(request, "X-Vault-Namespace: team\r\n")) {
        status = "404 Not Found";
        body = "{\"errors\":[]}";
    }
    int n = snprintf(head, sizeof head,
                     "HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n"
                     "Connection: close\r\n\r\n",
                     status, strlen(body));
    if (write(fd, head, (size_t)n) < 0 || write(fd, body, strlen(body)) < 0)
        return;
}

static void *serve(void *arg)
{
    for (;;) {
        char request[4096] = "";
        size_t n = 0;
        int fd = accept(vault.fd, NULL, NULL);
        if (fd < 0)
            return NULL;
        while (n < sizeof request - 1 && !strstr(request, "\r\n\r\n")) {
            ssize_t got = read(fd, request + n, sizeof request - 1 - n);
            if (got <= 0)
                break;
            n += (size_t)got;
            request[n] = 0;
        }
        if (!atomic_load(&vault.silent))
            answer(fd, request);
        else if (read(fd, request, sizeof request) < 0) /* until the other side gives up */
            n = 0;
        close(fd);
    }
}

static int begin(void **state)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof a;
    snprintf(dir, sizeof dir, "/tmp/pugmark-secret-XXXXXX");
    signal(SIGPIPE, SIG_IGN);
    vault.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (!mkdtemp(dir) || chdir(dir) != 0 || bind(vault.fd, (struct sockaddr *)&a, sizeof a) != 0 ||
        listen(vault.fd, 8) != 0 || getsockname(vault.fd, (struct sockaddr *)&a, &size) != 0)
        return 1;
    vault.port = ntohs(a.sin_port);
    return pthread_create(&vault.thread, NULL, serve, NULL);
}

static int end(void **state)
{
    char command[100];
    shutdown(vault.fd, SHUT_RDWR);
    pthread_join(vault.thread, NULL);
    close(vault.fd);
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return chdir("/") || system(command);
}

static const char *vault_toml(const char *path, const char *more)
{
    static char text[600];
    snprintf(text, sizeof text,
             "provider = \"vault\"\nvault_address = \"http://127.0.0.1:%u/\"\nvault_path = \"%s\"\n"
             "vault_namespace = \"team\"\n%s",
             vault.port, path, more);
    return text;
}

static void vault_has_it(void **state)
{
    setenv("VAULT_TOKEN", "s.hunter2", 1);
    check_headers(vault_toml("secret/data/app", ""), "a=hunter2");
    write_file("token", "s.hunter2\n");
    unsetenv("VAULT_TOKEN");
    check_headers(vault_toml("secret/data/app", "vault_token_file = \"token\""), "a=hunter2");
    setenv("PUG_OTLP_HEADERS_VAULT_KEY", "OBJECT", 1);
    check_headers(vault_toml("secret/data/app", "vault_token_file = \"token\""), "x-b=c");
}

static void what_vault_refuses_is_told(void **state)
{
    check_missing(vault_toml("secret/data/app", ""), "needs a token");
    setenv("VAULT_TOKEN", "s.wrong", 1);
    check_missing(vault_toml("secret/data/app", ""), "HTTP 403");
    setenv("VAULT_TOKEN", "s.hunter2", 1);
    check_missing(vault_toml("secret/data/app", ""), "Vault has no such key at the path");
    check_missing(vault_toml("secret/data/other", ""), "Vault has nothing at secret/data/other");
    check_missing(vault_toml("secret/data/sealed", ""), "sealed");
    check_missing(vault_toml("secret/data/broken", ""), "Vault answers with HTTP 500");
    check_missing(vault_toml("secret/data/moved", ""), "Vault answers with HTTP 307");
    check_missing(vault_toml("kv1/app", ""), "not that of a key/value engine of version 2");
    check_missing("provider = \"vault\"\nvault_address = \"http://127.0.0.1:1\"",
                  "Vault cannot be reached");
}

static void a_vault_that_is_silent_costs_no_more_than_the_deadline(void **state)
{
    uint64_t start = clock_monotonic_ns();
    setenv("VAULT_TOKEN", "s.hunter2", 1);
    atomic_store(&vault.silent, true);
    check_missing(vault_toml("secret/data/app", "timeout_ms = 100"), "does not answer in time");
    atomic_store(&vault.silent, false);
    assert_true(clock_monotonic_ns() - start < 30 * NS_PER_S);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup(name, fresh)
    const struct CMUnitTest tests[] = {
        TEST(a_json_object_of_strings_becomes_headers),
        TEST(the_environment_has_it),
        TEST(nobody_is_told_of_what_nobody_asked_for),
        TEST(a_missing_key_is_told_or_stops_the_start),
        TEST(a_file_has_it),
        TEST(a_command_prints_it),
        TEST(a_command_that_fails_is_told),
        TEST(a_command_leaves_no_process_when_it_cannot_be_read),
        TEST(vault_has_it),
        TEST(what_vault_refuses_is_told),
        TEST(a_vault_that_is_silent_costs_no_more_than_the_deadline),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
