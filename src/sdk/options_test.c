/* pug_options and the environment, resolved. */
#include "base/clock.h"
#include "base/test.h"
#include "sdk/options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char told[4096];
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

static struct pug_options on(void)
{
    return (struct pug_options){.size = sizeof(struct pug_options),
                                .tracing = PUG_TRACING_ON,
                                .log = tell,
                                .config_file = ""};
}

static struct config config_of(const struct pug_options *o)
{
    struct config c;
    struct error_detail problem = {0};
    if (config_init(&c, o, &problem) != 0)
        fail_msg("%s", problem.message);
    return c;
}

static struct config config_now(void)
{
    struct pug_options o = on();
    return config_of(&o);
}

#define assert_told(words)                                                                         \
    do {                                                                                           \
        if (!strstr(told, words))                                                                  \
            fail_msg("\"%s\" does not say \"%s\"", told, words);                                   \
    } while (0)

static void assert_refused(int code, const char *words)
{
    struct pug_options o = on();
    struct config c;
    struct error_detail problem = {0};
    assert_int_equal(config_init(&c, &o, &problem), code);
    if (!strstr(problem.message, words))
        fail_msg("\"%s\" does not say \"%s\"", problem.message, words);
}

static void without_anything_the_defaults_stand(void **state)
{
    struct config c = config_now();
    assert_true(c.on);
    assert_int_equal(c.backend, PUG_BACKEND_LOCAL);
    assert_int_equal(c.trace_dir[0], '/'); /* it is meant where the program is now */
    assert_non_null(strstr(c.trace_dir, "/.local/traces"));
    assert_int_equal(c.ring_bytes, 1 << 20);
    assert_int_equal(c.queue_bytes_max, 16 << 20);
    assert_int_equal(c.drain_interval_ns, 5 * NS_PER_MS);
    assert_int_equal(c.flush_interval_ns, 200 * NS_PER_MS);
    assert_int_equal(c.stop_timeout_ns, 2 * NS_PER_S);
    assert_int_equal(c.otlp_timeout_ns, 10 * NS_PER_S);
    assert_int_equal(c.system_metrics_interval_ns, 5 * NS_PER_S);
    assert_int_equal(c.metrics_interval_ns, 0);
    assert_int_equal(c.sampler.kind, SAMPLER_ALWAYS_ON);
    assert_true(c.sampler.parent_based);
    assert_int_equal(c.propagators, PROPAGATE_DEFAULT);
    assert_true(c.process_context);
    assert_false(c.include_args || c.thread_context || c.alloc_tracking || c.otlp_gzip);
    assert_string_equal(c.zipkin_url, "http://localhost:9411/api/v2/spans");
    assert_int_equal(n_told, 0);
    config_done(&c);
}

static void tracing_is_off_until_somebody_turns_it_on(void **state)
{
    static const struct {
        const char *tracing, *disabled;
        bool on;
    } cases[] = {{NULL, NULL, false},     {"true", NULL, true},    {"1", NULL, true},
                 {"Yes", NULL, true},     {"off", NULL, false},    {"", NULL, false},
                 {"true", "true", false}, {"true", "TRUE", false}, {"true", "1", true},
                 {"true", "", true}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fresh(NULL);
        struct pug_options o = on();
        o.tracing = PUG_TRACING_ENVIRONMENT;
        if (cases[i].tracing)
            setenv("PUG_TRACING", cases[i].tracing, 1);
        if (cases[i].disabled)
            setenv("OTEL_SDK_DISABLED", cases[i].disabled, 1);
        struct config c = config_of(&o);
        if (c.on != cases[i].on)
            fail_msg("case %zu", i);
        config_done(&c);
    }
}

static void every_variable_reaches_its_field(void **state)
{
    setenv("PUG_BACKEND", "otlp", 1);
    setenv("PUG_TRACE_DIR", "/somewhere", 1);
    setenv("PUG_INCLUDE_ARGS", "yes", 1);
    setenv("PUG_OTLP_ENDPOINT", "https://collector:4318", 1);
    setenv("PUG_OTLP_PROTOCOL", "http/json", 1);
    setenv("PUG_OTLP_COMPRESSION", "gzip", 1);
    setenv("PUG_OTLP_TIMEOUT_MS", "1234", 1);
    setenv("PUG_OTLP_CERTIFICATE", "ca.pem", 1);
    setenv("PUG_OTLP_CLIENT_CERTIFICATE", "client.pem", 1);
    setenv("PUG_OTLP_CLIENT_KEY", "client.key", 1);
    setenv("PUG_ZIPKIN_ENDPOINT", "http://zipkin/spans", 1);
    setenv("PUG_PYROSCOPE_ENDPOINT", "http://pyroscope:4040", 1);
    setenv("PUG_PROPAGATORS", "b3, jaeger ,xray,requestid,b3multi", 1);
    setenv("PUG_SYSTEM_METRICS_INTERVAL_SECS", "2.5", 1);
    setenv("PUG_METRICS", "on", 1);
    setenv("PUG_METRICS_INTERVAL_SECS", "7", 1);
    setenv("PUG_THREAD_CONTEXT", "1", 1);
    setenv("PUG_PROCESS_CONTEXT", "0", 1);
    setenv("PUG_ALLOC_TRACKING", "true", 1);
    setenv("PUG_RING_KIB", "256", 1);
    setenv("PUG_QUEUE_BYTES_MAX", "1000", 1);
    setenv("PUG_DRAIN_INTERVAL_US", "10", 1);
    setenv("PUG_FLUSH_INTERVAL_MS", "11", 1);
    setenv("PUG_STOP_TIMEOUT_MS", "12", 1);
    struct config c = config_now();
    assert_int_equal(n_told, 1);
    assert_told("pushes no profiles");
    assert_int_equal(c.backend, PUG_BACKEND_OTLP);
    assert_string_equal(c.trace_dir, "/somewhere");
    assert_true(c.include_args);
    assert_string_equal(c.otlp_url, "https://collector:4318/v1/traces");
    assert_string_equal(c.otlp_metrics_url, "https://collector:4318/v1/metrics");
    assert_int_equal(c.otlp_protocol, OTLP_HTTP_JSON);
    assert_true(c.otlp_gzip);
    assert_int_equal(c.otlp_timeout_ns, 1234 * NS_PER_MS);
    assert_string_equal(c.otlp_certificate, "ca.pem");
    assert_string_equal(c.otlp_client_certificate, "client.pem");
    assert_string_equal(c.otlp_client_key, "client.key");
    assert_string_equal(c.zipkin_url, "http://zipkin/spans");
    assert_string_equal(c.pyroscope_url, "http://pyroscope:4040");
    assert_int_equal(c.propagators, PROPAGATE_B3 | PROPAGATE_B3_MULTI | PROPAGATE_JAEGER |
                                        PROPAGATE_XRAY | PROPAGATE_REQUEST_ID);
    assert_int_equal(c.system_metrics_interval_ns, 2500 * NS_PER_MS);
    assert_int_equal(c.metrics_interval_ns, 7 * NS_PER_S);
    assert_true(c.thread_context);
    assert_false(c.process_context);
    assert_true(c.alloc_tracking);
    assert_int_equal(c.ring_bytes, 256 << 10);
    assert_int_equal(c.queue_bytes_max, 1000);
    assert_int_equal(c.drain_interval_ns, 10 * NS_PER_US);
    assert_int_equal(c.flush_interval_ns, 11 * NS_PER_MS);
    assert_int_equal(c.stop_timeout_ns, 12 * NS_PER_MS);
    config_done(&c);
}

static void the_standard_variables_mean_what_the_specification_says(void **state)
{
    setenv("OTEL_TRACES_EXPORTER", "otlp", 1);
    setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://base:4318/prefix/", 1);
    setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf", 1);
    setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip", 1);
    setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "5000", 1);
    setenv("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "6000", 1);
    setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", "a.pem", 1);
    setenv("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "b.key", 1);
    setenv("OTEL_EXPORTER_OTLP_HEADERS", "a=b", 1);
    setenv("OTEL_PROPAGATORS", "tracecontext,ottrace,b3", 1);
    setenv("OTEL_BSP_SCHEDULE_DELAY", "50", 1);
    setenv("OTEL_METRIC_EXPORT_INTERVAL", "1500", 1);
    setenv("PUG_METRICS", "true", 1);
    setenv("OTEL_TRACES_SAMPLER", "traceidratio", 1);
    setenv("OTEL_TRACES_SAMPLER_ARG", "0.25", 1);
    struct config c = config_now();
    assert_int_equal(c.backend, PUG_BACKEND_OTLP);
    assert_string_equal(c.otlp_url, "http://base:4318/prefix/v1/traces");
    assert_string_equal(c.otlp_metrics_url, "http://base:4318/prefix/v1/metrics");
    assert_true(c.otlp_gzip);
    assert_int_equal(c.otlp_timeout_ns, 6 * NS_PER_S);
    assert_string_equal(c.otlp_certificate, "a.pem");
    assert_string_equal(c.otlp_client_key, "b.key");
    assert_string_equal(c.otlp_headers, "a=b");
    assert_int_equal(c.propagators, PROPAGATE_TRACECONTEXT | PROPAGATE_B3);
    assert_int_equal(c.flush_interval_ns, 50 * NS_PER_MS);
    assert_int_equal(c.metrics_interval_ns, 1500 * NS_PER_MS);
    assert_int_equal(c.sampler.kind, SAMPLER_RATIO);
    assert_false(c.sampler.parent_based);
    assert_true(c.sampler.rate == 0.25);
    assert_int_equal(n_told, 1);
    assert_told("OTEL_PROPAGATORS: \"ottrace\" is ignored");
    config_done(&c);
}

static void the_standard_exporters_have_their_backends(void **state)
{
    static const struct {
        const char *name;
        int backend;
    } cases[] = {{"otlp", PUG_BACKEND_OTLP},      {"zipkin", PUG_BACKEND_ZIPKIN},
                 {"console", PUG_BACKEND_STDOUT}, {"none", PUG_BACKEND_DISCARD},
                 {"local", PUG_BACKEND_LOCAL},    {"jaeger", PUG_BACKEND_LOCAL}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        setenv("OTEL_TRACES_EXPORTER", cases[i].name, 1);
        struct config c = config_now();
        assert_int_equal(c.backend, cases[i].backend);
        config_done(&c);
    }
    assert_told("OTEL_TRACES_EXPORTER: \"jaeger\" is ignored: expected one of otlp");
}

static void bad_standard_values_are_told_and_have_the_default(void **state)
{
    setenv("PUG_BACKEND", "otlp", 1);
    setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "carrier-pigeon", 1);
    setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317", 1);
    setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "-3", 1);
    setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio", 1);
    setenv("OTEL_TRACES_SAMPLER_ARG", "many", 1);
    setenv("OTEL_BSP_SCHEDULE_DELAY", "soon", 1);
    struct config c = config_now();
    assert_string_equal(
        c.otlp_url,
        "http://localhost:4317/opentelemetry.proto.collector.trace.v1.TraceService/Export");
    assert_string_equal(
        c.otlp_metrics_url,
        "http://localhost:4317/opentelemetry.proto.collector.metrics.v1.MetricsService/Export");
    assert_int_equal(c.otlp_timeout_ns, 10 * NS_PER_S);
    assert_int_equal(c.sampler.kind, SAMPLER_RATIO);
    assert_true(c.sampler.parent_based);
    assert_true(c.sampler.rate == 1);
    assert_int_equal(n_told, 5);
    assert_told("OTEL_EXPORTER_OTLP_PROTOCOL: \"carrier-pigeon\" is ignored: expected one of grpc, "
                "http/protobuf, http/json\n");
    assert_told("OTEL_TRACES_SAMPLER_ARG: \"many\" is ignored: expected a number from 0 to 1\n");
    config_done(&c);
}

static void bad_values_of_ours_are_told_and_have_the_default(void **state)
{
    setenv("PUG_INCLUDE_ARGS", "perhaps", 1);
    setenv("PUG_STOP_TIMEOUT_MS", "2s", 1);
    setenv("PUG_SAMPLE_RATE", "1.5", 1);
    struct config c = config_now();
    assert_false(c.include_args);
    assert_int_equal(c.stop_timeout_ns, 2 * NS_PER_S);
    assert_int_equal(c.sampler.kind, SAMPLER_ALWAYS_ON);
    assert_int_equal(n_told, 3);
    assert_told("PUG_INCLUDE_ARGS: \"perhaps\" is not known here: expected true or false\n");
    assert_told("PUG_STOP_TIMEOUT_MS: \"2s\" is not known here: expected a whole number from 1 to "
                "3600000\n");
    config_done(&c);
}

static void what_would_send_spans_elsewhere_is_an_error(void **state)
{
    setenv("PUG_BACKEND", "carrier-pigeon", 1);
    assert_refused(ERR_UNSUPPORTED, "PUG_BACKEND: \"carrier-pigeon\" is not known here: expected "
                                    "one of local, otlp, zipkin, stdout, discard");
    fresh(NULL);
    setenv("PUG_OTLP_ENDPOINT", "collector:4317", 1);
    assert_refused(ERR_INVALID, "PUG_OTLP_ENDPOINT");
    fresh(NULL);
    setenv("PUG_RING_KIB", "300", 1);
    assert_refused(ERR_INVALID, "PUG_RING_KIB: the ring of a thread is to be a power of two");
    fresh(NULL);
    setenv("PUG_SAMPLER", "sometimes", 1);
    assert_refused(ERR_INVALID, "PUG_SAMPLER: the sampler \"sometimes\" is not known here");
}

static void samplers_are_spelled_in_one_way(void **state)
{
    static const struct {
        const char *text;
        enum sampler_kind kind;
        bool parent_based;
        double rate, per_second;
        const char *file;
    } cases[] = {
        {"always_on", SAMPLER_ALWAYS_ON, false, 1, 0, NULL},
        {"parentbased_always_off", SAMPLER_ALWAYS_OFF, true, 1, 0, NULL},
        {"ratio:0.25", SAMPLER_RATIO, false, 0.25, 0, NULL},
        {"parentbased_traceidratio:1e-3", SAMPLER_RATIO, true, 0.001, 0, NULL},
        {"rate:100", SAMPLER_RATE, false, 1, 100, NULL},
        {"parentbased_rules:/etc/rules.json", SAMPLER_RULES, true, 1, 0, "/etc/rules.json"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        setenv("PUG_SAMPLER", cases[i].text, 1);
        struct config c = config_now();
        assert_int_equal(c.sampler.kind, cases[i].kind);
        assert_int_equal(c.sampler.parent_based, cases[i].parent_based);
        assert_true(c.sampler.rate - cases[i].rate < 1e-15 &&
                    cases[i].rate - c.sampler.rate < 1e-15);
        assert_true(c.sampler.per_second == cases[i].per_second);
        if (cases[i].file)
            assert_string_equal(c.sampler.rules_file, cases[i].file);
        config_done(&c);
    }
    static const char *const bad[] = {"always_on:1", "ratio:2", "ratio:", "rate", "rate:x",
                                      "rules:",      "rules",   "",       ":"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct pug_options o = on();
        struct config c;
        o.sampler = bad[i];
        if (!bad[i][0])
            continue;
        if (config_init(&c, &o, NULL) != ERR_INVALID)
            fail_msg("%s", bad[i]);
    }
}

static void a_rate_alone_samples_that_share(void **state)
{
    setenv("OTEL_TRACES_SAMPLER", "always_off", 1);
    setenv("PUG_SAMPLE_RATE", "0.5", 1); /* stronger */
    struct config c = config_now();
    assert_int_equal(c.sampler.kind, SAMPLER_RATIO);
    assert_true(c.sampler.parent_based);
    assert_true(c.sampler.rate == 0.5);
    config_done(&c);
    setenv("PUG_SAMPLE_PER_SECOND", "30", 1);
    c = config_now();
    assert_int_equal(c.sampler.kind, SAMPLER_RATE);
    assert_true(c.sampler.per_second == 30);
    config_done(&c);
    setenv("PUG_SAMPLER", "ratio", 1);
    c = config_now();
    assert_int_equal(c.sampler.kind, SAMPLER_RATIO);
    assert_true(c.sampler.rate == 0.5);
    assert_false(c.sampler.parent_based);
    config_done(&c);
}

static void system_metrics_are_not_taken_more_often_than_once_a_second(void **state)
{
    setenv("PUG_SYSTEM_METRICS_INTERVAL_SECS", "0.2", 1);
    struct config c = config_now();
    assert_int_equal(c.system_metrics_interval_ns, NS_PER_S);
    assert_int_equal(n_told, 1);
    assert_told("PUG_SYSTEM_METRICS_INTERVAL_SECS: system_metrics_interval_secs is below 1 second");
    config_done(&c);
    setenv("PUG_SYSTEM_METRICS_INTERVAL_SECS", "0", 1);
    c = config_now();
    assert_int_equal(c.system_metrics_interval_ns, 0);
    assert_int_equal(n_told, 1);
    config_done(&c);
}

static void options_stand_over_ours_and_ours_over_the_standard(void **state)
{
    struct pug_options o = on();
    setenv("OTEL_SERVICE_NAME", "standard", 1);
    struct config c = config_of(&o);
    assert_string_equal(c.service_name, "standard");
    config_done(&c);
    setenv("PUG_SERVICE_NAME", "ours", 1);
    c = config_of(&o);
    assert_string_equal(c.service_name, "ours");
    config_done(&c);
    o.service_name = "options";
    o.stop_timeout_ms = 7;
    setenv("PUG_STOP_TIMEOUT_MS", "9", 1);
    c = config_of(&o);
    assert_string_equal(c.service_name, "options");
    assert_int_equal(c.stop_timeout_ns, 7 * NS_PER_MS);
    config_done(&c);
}

static void endpoints_become_complete_urls(void **state)
{
    static const struct {
        const char *variable, *url, *protocol, *traces, *metrics;
    } cases[] = {
        {"PUG_OTLP_ENDPOINT", "http://h:4318", NULL, "http://h:4318/v1/traces",
         "http://h:4318/v1/metrics"},
        {"PUG_OTLP_ENDPOINT", "http://h:4318//", NULL, "http://h:4318/v1/traces",
         "http://h:4318/v1/metrics"},
        {"PUG_OTLP_ENDPOINT", "http://h/otlp/v1/traces", NULL, "http://h/otlp/v1/traces",
         "http://h/otlp/v1/metrics"},
        {"PUG_OTLP_ENDPOINT", "http://h/elsewhere", NULL, "http://h/elsewhere", NULL},
        {"PUG_OTLP_ENDPOINT", "http://h:4317", "http/protobuf", "http://h:4317/v1/traces",
         "http://h:4317/v1/metrics"},
        {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://h:4318/", "http/json", "http://h:4318/",
         NULL},
        {"OTEL_EXPORTER_OTLP_ENDPOINT", "http://h:4318/a", "http/json", "http://h:4318/a/v1/traces",
         "http://h:4318/a/v1/metrics"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fresh(NULL);
        setenv("PUG_BACKEND", "otlp", 1);
        setenv(cases[i].variable, cases[i].url, 1);
        if (cases[i].protocol)
            setenv("PUG_OTLP_PROTOCOL", cases[i].protocol, 1);
        struct config c = config_now();
        assert_string_equal(c.otlp_url, cases[i].traces);
        if (cases[i].metrics)
            assert_string_equal(c.otlp_metrics_url, cases[i].metrics);
        else
            assert_null(c.otlp_metrics_url);
        config_done(&c);
    }
    setenv("PUG_OTLP_METRICS_ENDPOINT", "http://other/metrics", 1);
    struct config c = config_now();
    assert_string_equal(c.otlp_metrics_url, "http://other/metrics");
    config_done(&c);
    setenv("OTEL_METRICS_EXPORTER", "none", 1);
    c = config_now();
    assert_null(c.otlp_metrics_url);
    config_done(&c);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup(name, fresh)
    const struct CMUnitTest tests[] = {
        TEST(without_anything_the_defaults_stand),
        TEST(tracing_is_off_until_somebody_turns_it_on),
        TEST(every_variable_reaches_its_field),
        TEST(the_standard_variables_mean_what_the_specification_says),
        TEST(the_standard_exporters_have_their_backends),
        TEST(bad_standard_values_are_told_and_have_the_default),
        TEST(bad_values_of_ours_are_told_and_have_the_default),
        TEST(what_would_send_spans_elsewhere_is_an_error),
        TEST(samplers_are_spelled_in_one_way),
        TEST(a_rate_alone_samples_that_share),
        TEST(system_metrics_are_not_taken_more_often_than_once_a_second),
        TEST(options_stand_over_ours_and_ours_over_the_standard),
        TEST(endpoints_become_complete_urls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
