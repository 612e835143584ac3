/* pugmark.toml: found, read, told about. */
#include "base/clock.h"
#include "base/test.h"
#include "sdk/options.h"
#include "sdk/settings_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char told[8192], dir[64], path[128];
static unsigned n_told;

static void tell(void *user, const char *message)
{
    size_t n = strlen(told);
    snprintf(told + n, sizeof told - n, "%s\n", message);
    n_told++;
}

static int fresh(void **state)
{
    test_environment_clear();
    told[0] = 0;
    n_told = 0;
    return 0;
}

static int begin(void **state)
{
    snprintf(dir, sizeof dir, "/tmp/pugmark-settings-XXXXXX");
    if (!mkdtemp(dir) || chdir(dir) != 0)
        return 1;
    snprintf(path, sizeof path, "%s/test.toml", dir);
    return 0;
}

static int end(void **state)
{
    char command[100];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return chdir("/") || system(command);
}

static void write_file(const char *name, const char *text)
{
    FILE *f = fopen(name, "w");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(chmod(name, 0644), 0);
}

static int start(const char *file, struct config *ret, struct error_detail *ret_problem)
{
    struct pug_options o = {
        .size = sizeof o, .tracing = PUG_TRACING_ON, .log = tell, .config_file = file};
    return config_init(ret, &o, ret_problem);
}

static struct config config_of(const char *text)
{
    struct config c;
    struct error_detail problem = {0};
    write_file(path, text);
    if (start(path, &c, &problem) != 0)
        fail_msg("%s", problem.message);
    return c;
}

#define assert_told(words)                                                                         \
    do {                                                                                           \
        if (!strstr(told, words))                                                                  \
            fail_msg("\"%s\" does not say \"%s\"", told, words);                                   \
    } while (0)

static void assert_refused(const char *text, int code, const char *words)
{
    struct config c;
    struct error_detail problem = {0};
    write_file(path, text);
    assert_int_equal(start(path, &c, &problem), code);
    if (!strstr(problem.message, words))
        fail_msg("\"%s\" does not say \"%s\"", problem.message, words);
}

static void the_file_says_what_the_environment_does_not(void **state)
{
    setenv("PUG_SERVICE_NAME", "environment", 1);
    setenv("OTEL_BSP_SCHEDULE_DELAY", "77", 1);
    struct config c = config_of("[telemetry]\n"
                                "backend = \"otlp\"\n"
                                "service_name = \"file\"\n"
                                "service_version = \"1.2\"\n"
                                "otlp_endpoint = \"http://collector:4318\"\n"
                                "otlp_protocol = \"http/json\"\n"
                                "include_args = true\n"
                                "sample_rate = 0.5\n"
                                "system_metrics_interval_secs = 10\n"
                                "flush_interval_ms = 33\n"
                                "stop_timeout_ms = 44\n"
                                "propagators = [\"b3\", \"xray\"]\n"
                                "[server]\nanything = 1\n[profile]\nx = []\n");
    assert_int_equal(n_told, 0);
    assert_int_equal(c.backend, PUG_BACKEND_OTLP);
    assert_string_equal(c.service_name, "environment");
    assert_string_equal(c.otlp_url, "http://collector:4318/v1/traces");
    assert_int_equal(c.otlp_protocol, OTLP_HTTP_JSON);
    assert_true(c.include_args);
    assert_int_equal(c.sampler.kind, SAMPLER_RATIO);
    assert_true(c.sampler.rate == 0.5);
    assert_int_equal(c.system_metrics_interval_ns, 10 * NS_PER_S);
    assert_int_equal(c.flush_interval_ns, 77 * NS_PER_MS);
    assert_int_equal(c.stop_timeout_ns, 44 * NS_PER_MS);
    assert_int_equal(c.propagators, PROPAGATE_B3 | PROPAGATE_XRAY);
    config_done(&c);
}

static void the_file_turns_tracing_on_and_the_environment_off(void **state)
{
    struct pug_options o = {.size = sizeof o, .log = tell, .config_file = path};
    struct config c;
    write_file(path, "[telemetry]\nenabled = true\n");
    assert_int_equal(config_init(&c, &o, NULL), 0);
    assert_true(c.on);
    config_done(&c);
    setenv("PUG_TRACING", "false", 1);
    assert_int_equal(config_init(&c, &o, NULL), 0);
    assert_false(c.on);
    config_done(&c);
    unsetenv("PUG_TRACING");
    write_file(path, "[telemetry]\nenabled = false\nbackend = \"unknown\"\n");
    assert_int_equal(config_init(&c, &o, NULL), 0);
    assert_false(c.on);
    config_done(&c);
}

static void when_tracing_is_off_the_file_is_not_even_read(void **state)
{
    struct pug_options o = {.size = sizeof o, .log = tell, .config_file = "/nowhere/at/all.toml"};
    struct config c;
    setenv("PUG_TRACING", "off", 1);
    setenv("OTEL_PROPAGATORS", "nonsense", 1);
    assert_int_equal(config_init(&c, &o, NULL), 0);
    assert_false(c.on);
    assert_int_equal(n_told, 0);
    config_done(&c);
    setenv("PUG_TRACING", "true", 1);
    setenv("OTEL_SDK_DISABLED", "true", 1);
    assert_int_equal(config_init(&c, &o, NULL), 0);
    assert_false(c.on);
    assert_int_equal(n_told, 0);
    config_done(&c);
    unsetenv("OTEL_SDK_DISABLED");
    assert_int_equal(config_init(&c, &o, NULL), ERR_NOT_FOUND);
}

static void unknown_keys_and_bad_values_are_told_with_their_place(void **state)
{
    struct config c = config_of("[telemetry]\n"
                                "sampel_rate = 0.5\n"
                                "include_args = \"yes\"\n"
                                "  stop_timeout_ms = 0\n"
                                "sample_rate = 2\n"
                                "trace_dir = 7\n"
                                "propagators = [\"b3\", 1]\n"
                                "[telemetry.secrets]\nprovidr = \"file\"\n"
                                "[telemtry]\n[debug]\nlevel = 3\n");
    char line[400];
    static const char *const expected[] = {
        "2:1: \"sampel_rate\" is not known in [telemetry]; did you mean \"sample_rate\"?",
        "3:16: include_args: expected true or false, not a string",
        "4:21: stop_timeout_ms = \"0\" is not known here: expected a whole number from 1 to "
        "3600000",
        "5:15: sample_rate = \"2\" is not known here: expected a number from 0 to 1",
        "6:13: trace_dir: expected a string of 1 to 4096 bytes, not an integer",
        "7:15: propagators: expected a list of tracecontext, baggage, b3, b3multi, jaeger, xray, "
        "requestid, none, not an array of other things",
        "9:1: \"providr\" is not known in [telemetry.secrets]; did you mean \"provider\"?",
        "10:2: \"telemtry\" is not known here; did you mean \"telemetry\"?",
        "12:1: \"level\" is not known in [debug]"};
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        snprintf(line, sizeof line, "%s:%s\n", path, expected[i]);
        assert_told(line);
    }
    assert_int_equal(n_told, sizeof expected / sizeof expected[0]);
    assert_int_equal(c.stop_timeout_ns, 2 * NS_PER_S);
    assert_non_null(strstr(c.trace_dir, "/.local/traces"));
    assert_int_equal(c.sampler.kind, SAMPLER_ALWAYS_ON);
    config_done(&c);
}

static void what_would_send_spans_elsewhere_is_an_error(void **state)
{
    assert_refused("[telemetry]\nbackend = \"jaeger\"\n", ERR_UNSUPPORTED,
                   "test.toml:2:11: backend = \"jaeger\" is not known here: expected one of local");
    assert_refused("[telemetry]\nbackend = 3\n", ERR_INVALID, "test.toml:2:11: backend: expected");
    assert_refused("[telemetry]\notlp_endpoint = \"collector:4317\"\n", ERR_INVALID,
                   "expected a URL that begins with http:// or https://");
    assert_refused("[telemetry]\nsampler = \"sometimes\"\n", ERR_INVALID,
                   "test.toml:2: the sampler \"sometimes\" is not known here");
}

static void passwords_in_urls_are_not_told(void **state)
{
    struct config c =
        config_of("[telemetry]\nzipkin_endpoint = \"ftp://me:hunter2@host/?key=hunter2\"\n");
    assert_int_equal(n_told, 1);
    assert_null(strstr(told, "hunter2"));
    assert_told("ftp://...@host/?...");
    config_done(&c);
    c = config_of("[telemetry]\nzipkin_endpoint = \"me:hunter2@host\"\n");
    assert_null(strstr(told, "hunter2"));
    config_done(&c);
}

static void a_file_that_cannot_be_read_is_an_error(void **state)
{
    struct config c;
    struct error_detail problem = {0};
    assert_refused("[telemetry\n", ERR_INVALID, "test.toml:1:11: expected \"]\"");
    assert_int_equal(start("/nowhere/at/all.toml", &c, &problem), ERR_NOT_FOUND);
    assert_int_equal(start(dir, &c, &problem), ERR_INVALID);
    assert_non_null(strstr(problem.message, "is not a regular file"));
    assert_int_equal(mkfifo("fifo.toml", 0600), 0);
    problem.code = 0;
    assert_int_equal(start("fifo.toml", &c, &problem), ERR_INVALID);
    FILE *f = fopen("large.toml", "w");
    for (int i = 0; i < 17000; i++)
        fputs("#.............................................................\n", f);
    fclose(f);
    problem.code = 0;
    assert_int_equal(start("large.toml", &c, &problem), ERR_INVALID);
    assert_non_null(strstr(problem.message, "larger than a configuration can be"));
}

static void the_first_file_there_is_counts(void **state)
{
    struct config c;
    assert_int_equal(mkdir("xdg", 0755) | mkdir("xdg/pugmark", 0755) | mkdir("home", 0755) |
                         mkdir("home/.config", 0755) | mkdir("home/.config/pugmark", 0755),
                     0);
    write_file("home/.config/pugmark/pugmark.toml", "[telemetry]\nservice_name = \"home\"\n");
    write_file("xdg/pugmark/pugmark.toml", "[telemetry]\nservice_name = \"xdg\"\n");
    setenv("HOME", "home", 1);
    assert_int_equal(start(NULL, &c, NULL), 0);
    assert_string_equal(c.service_name, "home");
    config_done(&c);
    setenv("XDG_CONFIG_HOME", "xdg", 1);
    assert_int_equal(start(NULL, &c, NULL), 0);
    assert_string_equal(c.service_name, "xdg");
    config_done(&c);
    write_file("pugmark.toml", "[telemetry]\nservice_name = \"here\"\n");
    assert_int_equal(start(NULL, &c, NULL), 0);
    assert_string_equal(c.service_name, "here");
    config_done(&c);
    write_file("other.toml", "[telemetry]\nservice_name = \"variable\"\n");
    setenv("PUG_CONFIG", "other.toml", 1);
    assert_int_equal(start(NULL, &c, NULL), 0);
    assert_string_equal(c.service_name, "variable");
    config_done(&c);
    assert_int_equal(start("xdg/pugmark/pugmark.toml", &c, NULL), 0);
    assert_string_equal(c.service_name, "xdg");
    config_done(&c);
    assert_int_equal(start("", &c, NULL), 0);
    assert_string_not_equal(c.service_name, "variable");
    config_done(&c);
    assert_int_equal(unlink("pugmark.toml"), 0);
}

static void a_file_that_anybody_could_have_put_here_is_passed_over(void **state)
{
    struct config c;
    write_file("pugmark.toml", "[telemetry]\nservice_name = \"stranger\"\n");
    assert_int_equal(chmod("pugmark.toml", 0666), 0);
    assert_int_equal(start(NULL, &c, NULL), 0);
    assert_string_not_equal(c.service_name, "stranger");
    assert_told("pugmark.toml of the working directory is passed over");
    config_done(&c);
    setenv("PUG_CONFIG", "./pugmark.toml", 1);
    assert_int_equal(start(NULL, &c, NULL), 0);
    assert_string_equal(c.service_name, "stranger");
    config_done(&c);
    assert_int_equal(unlink("pugmark.toml"), 0);
}

static void old_sections_are_read_with_a_warning(void **state)
{
    struct config c = config_of("[observability]\n"
                                "exporter = \"console\"\n"
                                "service_name = \"old\"\n"
                                "sampling_rate = 0.25\n"
                                "colour = \"red\"\n"
                                "[debug.traces]\n"
                                "dir = \"old/traces\"\n"
                                "include_args = true\n"
                                "[telemetry]\n"
                                "service_name = \"new\"\n");
    assert_int_equal(n_told, 3);
    assert_told("test.toml:1:2: [observability] is deprecated");
    assert_told("test.toml:6:8: [debug.traces] is deprecated");
    assert_told("test.toml:5:1: \"colour\" is not known in [observability]");
    assert_int_equal(c.backend, PUG_BACKEND_STDOUT);
    assert_string_equal(c.service_name, "new");
    assert_true(c.sampler.rate == 0.25);
    assert_non_null(strstr(c.trace_dir, "/old/traces"));
    assert_true(c.include_args);
    config_done(&c);
}

static void secrets_do_not_stand_in_the_file(void **state)
{
    struct config c = config_of("[telemetry]\notlp_headers = \"authorization=hunter2\"\n"
                                "[telemetry.secrets]\nvault_token = \"hunter2\"\n");
    assert_int_equal(n_told, 2);
    assert_told("test.toml:2:1: otlp_headers: a secret does not stand in the file");
    assert_told("test.toml:4:1: vault_token: a secret does not stand in the file");
    assert_null(strstr(told, "hunter2"));
    assert_null(c.otlp_headers);
    config_done(&c);
}

static void every_setting_has_what_people_need(void **state)
{
    for (int id = 0; id < SETTINGS; id++) {
        const struct setting_def *def = &setting_defs[id];
        assert_non_null(def->name);
        assert_non_null(def->doc);
        char expected[200];
        setting_expected(def, expected, sizeof expected);
        assert_true(strlen(expected) > 3);
        for (int other = 0; other < id; other++)
            if (strcmp(setting_defs[other].name, def->name) == 0)
                assert_string_not_equal(setting_defs[other].section, def->section);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup(name, fresh)
    const struct CMUnitTest tests[] = {
        TEST(the_file_says_what_the_environment_does_not),
        TEST(the_file_turns_tracing_on_and_the_environment_off),
        TEST(when_tracing_is_off_the_file_is_not_even_read),
        TEST(unknown_keys_and_bad_values_are_told_with_their_place),
        TEST(what_would_send_spans_elsewhere_is_an_error),
        TEST(passwords_in_urls_are_not_told),
        TEST(a_file_that_cannot_be_read_is_an_error),
        TEST(the_first_file_there_is_counts),
        TEST(a_file_that_anybody_could_have_put_here_is_passed_over),
        TEST(old_sections_are_read_with_a_warning),
        TEST(secrets_do_not_stand_in_the_file),
        TEST(every_setting_has_what_people_need),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
