#include "web/strategies.h"

#include "base/test.h"

static const char *const example =
    "{\"default_strategy\": {\"type\": \"probabilistic\", \"param\": 0.5, "
    "\"operation_strategies\": ["
    "   {\"operation\": \"/healthz\", \"type\": \"probabilistic\", \"param\": 0},"
    "   {\"operation\": \"/pay\", \"type\": \"probabilistic\", \"param\": 0.25}]},"
    " \"comment\": [1, {\"x\": null}],"
    " \"service_strategies\": ["
    "   {\"service\": \"few\", \"type\": \"ratelimiting\", \"param\": 7.9},"
    "   {\"service\": \"api\", \"type\": \"probabilistic\", \"param\": 0.125, "
    "\"operation_strategies\": ["
    "      {\"operation\": \"/pay\", \"type\": \"probabilistic\", \"param\": 1}]}]}";

static struct strategies *parse(const char *json)
{
    struct strategies *s;
    struct error_detail detail = {0};
    if (strategies_parse(str_from(json), &s, &detail))
        fail_msg("%s: %s", json, detail.message);
    return s;
}

static void assert_json(const struct strategies *s, const char *service, const char *expected)
{
    struct buf out = BUF_INIT;
    struct json_writer w = json_writer(&out);
    strategy_json(strategies_of(s, str_from(service)), &w);
    buf_byte(&out, '\0');
    assert_string_equal(out.ptr, expected);
    buf_done(&out);
}

static void services_have_their_own_and_what_the_default_lends(void **state)
{
    (void)state;
    struct strategies *s = parse(example);
    assert_json(
        s, "api",
        "{\"strategyType\":\"PROBABILISTIC\",\"probabilisticSampling\":{\"samplingRate\":0.125},"
        "\"operationSampling\":{\"defaultSamplingProbability\":0.125,"
        "\"defaultLowerBoundTracesPerSecond\":0,\"defaultUpperBoundTracesPerSecond\":0,"
        "\"perOperationStrategies\":["
        "{\"operation\":\"/pay\",\"probabilisticSampling\":{\"samplingRate\":1}},"
        "{\"operation\":\"/healthz\",\"probabilisticSampling\":{\"samplingRate\":0}}]}}");
    assert_json(
        s, "few",
        "{\"strategyType\":\"RATE_LIMITING\",\"rateLimitingSampling\":{\"maxTracesPerSecond\":7},"
        "\"operationSampling\":{\"defaultSamplingProbability\":0.5,"
        "\"defaultLowerBoundTracesPerSecond\":0,\"defaultUpperBoundTracesPerSecond\":0,"
        "\"perOperationStrategies\":["
        "{\"operation\":\"/healthz\",\"probabilisticSampling\":{\"samplingRate\":0}},"
        "{\"operation\":\"/pay\",\"probabilisticSampling\":{\"samplingRate\":0.25}}]}}");
    const struct strategy *other = strategies_of(s, STR("anybody"));
    assert_false(other->is_rate_limiting);
    assert_true(other->param == 0.5);
    assert_int_equal(other->n_operations, 2);
    strategies_free(s);
}

static void without_a_default_everything_is_kept(void **state)
{
    (void)state;
    static const char *const texts[] = {"{}", "{\"default_strategy\":null}",
                                        "{\"service_strategies\":[]}"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct strategies *s = parse(texts[i]);
        assert_json(
            s, "api",
            "{\"strategyType\":\"PROBABILISTIC\",\"probabilisticSampling\":{\"samplingRate\":1}}");
        strategies_free(s);
    }
    struct strategies *s;
    assert_int_equal(strategies_default(&s), 0);
    assert_true(strategies_of(s, STR("api"))->param == 1.0);
    strategies_free(s);
}

static void the_protobuf_says_the_same(void **state)
{
    (void)state;
    struct strategies *s = parse(
        "{\"default_strategy\":{\"type\":\"ratelimiting\",\"param\":300},"
        "\"service_strategies\":[{\"service\":\"a\",\"type\":\"probabilistic\","
        "\"param\":0.5,\"operation_strategies\":[{\"operation\":\"x\","
        "\"type\":\"probabilistic\",\"param\":0}]}]}");
    struct buf out = BUF_INIT;
    strategy_protobuf(strategies_of(s, STR("b")), &out);
    assert_int_equal(out.len, 7);
    assert_memory_equal(out.ptr, "\x08\x01\x1a\x03\x08\xac\x02", 7);
    buf_clear(&out);
    strategy_protobuf(strategies_of(s, STR("a")), &out);
    static const char half[] = "\x09\0\0\0\0\0\0\xe0\x3f"; /* field 1, 0.5 */
    char expected[] = "\x12\x09_________\x22\x10_________\x1a\x05\x0a\x01x\x12\0";
    memcpy(expected + 2, half, 9);
    memcpy(expected + 13, half, 9);
    assert_int_equal(out.len, sizeof expected - 1);
    assert_memory_equal(out.ptr, expected, out.len);
    buf_done(&out);
    strategies_free(s);
}

static void what_is_wrong_is_told_with_its_place(void **state)
{
    (void)state;
    static const struct {
        const char *json, *text;
        size_t position;
    } wrong[] = {
        {"", "", 0},
        {"[]", "default_strategy", 0},
        {"{\"default_strategy\":1}", "a strategy", 20},
        {"{\"default_strategy\":{}}", "a type and a param", 21},
        {"{\"default_strategy\":{\"type\":\"sometimes\",\"param\":1}}", "ratelimiting", 28},
        {"{\"default_strategy\":{\"type\":\"probabilistic\",\"param\":\"1\"}}", "a number", 52},
        {"{\"default_strategy\":{\"type\":\"probabilistic\",\"param\":1.5}}", "from 0 to 1", 55},
        {"{\"default_strategy\":{\"type\":\"ratelimiting\",\"param\":-1}}", "per second", 53},
        {"{\"service_strategies\":{}}", "a list", 22},
        {"{\"service_strategies\":[1]}", "a strategy", 23},
        {"{\"service_strategies\":[{\"type\":\"probabilistic\",\"param\":1}]}", "a service", 56},
        {"{\"service_strategies\":[{\"service\":\"a\",\"operation_strategies\":[{\"type\":"
         "\"probabilistic\","
         "\"param\":1}]}]}",
         "an operation", 95},
        {"{\"service_strategies\":[{\"service\":\"a\",\"operation_strategies\":[{\"operation\":"
         "\"x\","
         "\"type\":\"ratelimiting\",\"param\":1}]}]}",
         "no other is possible", 110},
        {"{\"service_strategies\":[{\"service\":\"a\",\"type\":\"probabilistic\",\"param\":1},"
         "{\"service\":\"a\",\"type\":\"probabilistic\",\"param\":0}]}",
         "\"a\" is there twice", 0},
        {"{} {}", "", 3},
        {"{\"default_strategy\":{\"type\":\"probabilistic\"", "", 43},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct strategies *s = NULL;
        struct error_detail detail = {0};
        int err = strategies_parse(str_from(wrong[i].json), &s, &detail);
        assert_true(err == ERR_INVALID || err == ERR_TRUNCATED);
        assert_null(s);
        if (!strstr(detail.message, wrong[i].text))
            fail_msg("\"%s\" is not in \"%s\"", wrong[i].text, detail.message);
        if (wrong[i].position && detail.position != wrong[i].position)
            fail_msg("%s: position %zu, expected %zu", wrong[i].json, detail.position,
                     wrong[i].position);
    }
}

static void what_is_too_much_is_refused(void **state)
{
    (void)state;
    struct buf text = BUF_INIT;
    struct strategies *s = NULL;
    struct error_detail detail = {0};
    buf_cstr(&text, "{\"service_strategies\":[");
    for (int i = 0; i <= STRATEGIES_MAX; i++)
        buf_printf(&text, "%s{\"service\":\"%d\",\"type\":\"probabilistic\",\"param\":1}",
                   i ? "," : "", i);
    buf_cstr(&text, "]}");
    assert_int_equal(strategies_parse(buf_as_str(&text), &s, &detail), ERR_TOO_LARGE);
    assert_non_null(strstr(detail.message, "too many services"));
    buf_clear(&text);
    /* What the default lends counts for each who borrows it. */
    buf_cstr(&text, "{\"default_strategy\":{\"operation_strategies\":[");
    for (int i = 0; i < 200; i++)
        buf_printf(&text, "%s{\"operation\":\"%d\",\"type\":\"probabilistic\",\"param\":1}",
                   i ? "," : "", i);
    buf_cstr(&text, "]},\"service_strategies\":[");
    for (int i = 0; i < 1000; i++)
        buf_printf(&text, "%s{\"service\":\"%d\",\"type\":\"probabilistic\",\"param\":1}",
                   i ? "," : "", i);
    buf_cstr(&text, "]}");
    assert_int_equal(strategies_parse(buf_as_str(&text), &s, &detail), ERR_TOO_LARGE);
    buf_done(&text);
    assert_null(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(services_have_their_own_and_what_the_default_lends),
        cmocka_unit_test(without_a_default_everything_is_kept),
        cmocka_unit_test(the_protobuf_says_the_same),
        cmocka_unit_test(what_is_wrong_is_told_with_its_place),
        cmocka_unit_test(what_is_too_much_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
