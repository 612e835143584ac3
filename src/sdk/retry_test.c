#include "sdk/retry.h"

#include "base/base64.h"
#include "base/clock.h"
#include "base/test.h"

/* 1994-11-06T08:49:37Z, the date of RFC 9110's examples. */
#define EXAMPLE_S UINT64_C(784111777)

static uint64_t after(const char *value, uint64_t now_s)
{
    uint64_t ns = 4711;
    return retry_after_parse(str_from(value), now_s * NS_PER_S, &ns) ? ns : UINT64_MAX;
}

static void seconds_are_read_and_bounded(void **state)
{
    assert_int_equal(after("0", 0), 0);
    assert_int_equal(after("3", 0), 3 * NS_PER_S);
    assert_int_equal(after(" 7 ", 0), 7 * NS_PER_S);
    assert_int_equal(after("61", 0), RETRY_AFTER_MAX_NS);
    assert_int_equal(after("18446744073709551615", 0), RETRY_AFTER_MAX_NS);
}

static void dates_are_read_in_all_three_forms(void **state)
{
    static const char *const forms[] = {"Sun, 06 Nov 1994 08:49:37 GMT",
                                        "Sunday, 06-Nov-94 08:49:37 GMT",
                                        "Sun Nov  6 08:49:37 1994"};
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        assert_int_equal(after(forms[i], EXAMPLE_S - 12), 12 * NS_PER_S);
        assert_int_equal(after(forms[i], EXAMPLE_S), 0);
        assert_int_equal(after(forms[i], EXAMPLE_S + 100), 0);
        assert_int_equal(after(forms[i], 0), RETRY_AFTER_MAX_NS);
    }
}

static void leap_days_and_the_ends_of_years_count(void **state)
{
    assert_int_equal(after("Tue, 29 Feb 2000 00:00:00 GMT", 951782400 - 1), NS_PER_S);
    assert_int_equal(after("Wed, 01 Mar 2000 00:00:00 GMT", 951868800 - 1), NS_PER_S);
    assert_int_equal(after("Thu, 31 Dec 2026 23:59:59 GMT", 1798761599 - 2), 2 * NS_PER_S);
    assert_int_equal(after("Sun, 01 Mar 2026 00:00:00 GMT", 1772323200 - 3), 3 * NS_PER_S);
    assert_int_equal(after("Thu, 01 Jan 1970 00:00:05 GMT", 0), 5 * NS_PER_S);
}

static void what_is_neither_is_refused(void **state)
{
    static const char *const bad[] = {"",
                                      "-1",
                                      "1.5",
                                      "soon",
                                      "Sun, 06 Nov 1994 08:49:37",
                                      "Sun, 06 Nov 1994 08:49:37 CET",
                                      "Sun, 6 Nov 1994 08:49:37 GMT",
                                      "Sun, 06 Noe 1994 08:49:37 GMT",
                                      "Sun, 06 Nov 1994 24:49:37 GMT",
                                      "Sun, 06 Nov 1994 08:60:37 GMT",
                                      "Sun, 00 Nov 1994 08:49:37 GMT",
                                      "Sun, 32 Nov 1994 08:49:37 GMT",
                                      "Sun, 06 Nov 1969 08:49:37 GMT",
                                      "Sun, 06 Nov 1994 08:49:37 GMT.",
                                      "Sun Nov  6 08:49:37 94",
                                      "Su, 06 Nov 1994 08:49:37 GMT"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (after(bad[i], 0) != UINT64_MAX)
            fail_msg("\"%s\" was read", bad[i]);
}

/* google.rpc.Status{code 8, message "full", details [ErrorInfo, RetryInfo{retry_delay}]}. */
static size_t status_bytes(uint8_t *out, const char *delay, size_t n)
{
    static const char head[] = "\x08\x08\x12\x04"
                               "full"
                               "\x1a\x2a\x0a\x28type.googleapis.com/google.rpc.ErrorInfo";
    static const char type[] = "\x0a\x28type.googleapis.com/google.rpc.RetryInfo";
    size_t at = sizeof head - 1, value = 2 + n;
    memcpy(out, head, at);
    out[at++] = 0x1a;
    out[at++] = (uint8_t)(sizeof type - 1 + 2 + value);
    memcpy(out + at, type, sizeof type - 1);
    at += sizeof type - 1;
    out[at++] = 0x12;
    out[at++] = (uint8_t)value;
    out[at++] = 0x0a;
    out[at++] = (uint8_t)n;
    memcpy(out + at, delay, n);
    return at + n;
}

static uint64_t info(const char *delay, size_t n, bool padded)
{
    uint8_t bytes[256];
    char text[400];
    uint64_t ns = 4711;
    size_t len = status_bytes(bytes, delay, n);
    base64_put(text, bytes, len);
    size_t text_len = BASE64_SIZE(len);
    while (!padded && text[text_len - 1] == '=')
        text_len--;
    return retry_info_parse((struct str){text, text_len}, &ns) ? ns : UINT64_MAX;
}

static void retry_info_is_found_among_the_details(void **state)
{
    for (int padded = 0; padded < 2; padded++) {
        assert_int_equal(info("\x08\x02", 2, padded), 2 * NS_PER_S);
        /* 1 s and 500,000,000 ns */
        assert_int_equal(info("\x08\x01\x10\x80\xca\xb5\xee\x01", 8, padded), 1500 * NS_PER_MS);
        assert_int_equal(info("", 0, padded), 0);
        assert_int_equal(info("\x08\x90\x1c", 3, padded), RETRY_AFTER_MAX_NS); /* an hour */
    }
}

static void what_is_no_retry_info_is_refused(void **state)
{
    uint64_t ns = 4711;
    /* Minus a second; a billion nanoseconds. */
    assert_int_equal(info("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11, true), UINT64_MAX);
    assert_int_equal(info("\x10\x80\x94\xeb\xdc\x03", 6, true), UINT64_MAX);
    assert_false(retry_info_parse(STR(""), &ns));
    assert_false(retry_info_parse(STR("!!!!"), &ns));
    assert_false(retry_info_parse(STR("CAgSBGZ1bGw="), &ns)); /* code and message alone */
    assert_int_equal(ns, 4711);
}

static void only_what_the_specification_calls_retryable_is_sent_again(void **state)
{
    for (long status = 100; status < 600; status++)
        assert_int_equal(retry_http(status),
                         status == 429 || status == 502 || status == 503 || status == 504);
    static const bool again[17] = {
        [1] = true, [4] = true, [10] = true, [11] = true, [14] = true, [15] = true};
    for (long status = 0; status < 17; status++) {
        assert_int_equal(retry_grpc(status, false), again[status]);
        assert_int_equal(retry_grpc(status, true), again[status] || status == 8);
    }
    assert_false(retry_grpc(-1, true));
}

static void pauses_double_up_to_a_limit_and_vary_by_half(void **state)
{
    uint64_t most = 100 * NS_PER_MS;
    for (unsigned attempt = 1; attempt < 40; attempt++) {
        assert_int_equal(retry_pause_ns(attempt, 0), most);
        assert_int_equal(retry_pause_ns(attempt, UINT32_MAX), most - most / 2);
        assert_in_range(retry_pause_ns(attempt, 1u << 31), most / 2, most);
        most = most * 2 < 5 * NS_PER_S ? most * 2 : 5 * NS_PER_S;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(seconds_are_read_and_bounded),
        cmocka_unit_test(dates_are_read_in_all_three_forms),
        cmocka_unit_test(leap_days_and_the_ends_of_years_count),
        cmocka_unit_test(what_is_neither_is_refused),
        cmocka_unit_test(retry_info_is_found_among_the_details),
        cmocka_unit_test(what_is_no_retry_info_is_refused),
        cmocka_unit_test(only_what_the_specification_calls_retryable_is_sent_again),
        cmocka_unit_test(pauses_double_up_to_a_limit_and_vary_by_half),
    };
    return cmocka_run_group_tests_name("retry", tests, NULL, NULL);
}
