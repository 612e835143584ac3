#include "base/test.h"

#include "base/arena.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/hash.h"

#include <stdio.h>
#include <string.h>

static void arena_allocations_are_aligned_and_apart(void **state)
{
    struct arena a = ARENA_INIT;
    char *before = NULL;
    for (size_t n = 1; n < 5000; n += 7) {
        char *p = arena_alloc(&a, n);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 8, 0);
        memset(p, 0xab, n);
        assert_ptr_not_equal(p, before);
        before = p;
    }
    arena_done(&a);
}

static void arena_refuses_beyond_its_limit(void **state)
{
    struct arena a = {.bytes_max = 64 << 10};
    assert_null(arena_alloc(&a, 65 << 10));
    assert_null(arena_alloc(&a, SIZE_MAX));
    assert_null(arena_array(&a, SIZE_MAX / 2, 8));
    assert_non_null(arena_alloc(&a, 100));
    size_t n = 0;
    while (arena_alloc(&a, 1000))
        n++;
    assert_in_range(n, 20, 64);
    arena_reset(&a);
    assert_non_null(arena_alloc(&a, 1000));
    arena_done(&a);
}

static void arena_str_is_a_terminated_copy(void **state)
{
    struct arena a = ARENA_INIT;
    char text[] = "abc";
    struct str s = arena_str(&a, str_from(text));
    text[0] = 'x';
    assert_string_equal(s.ptr, "abc");
    assert_string_equal(arena_printf(&a, "%d-%s", 7, "y"), "7-y");
    arena_done(&a);
}

static void buf_grows_and_fails_for_good_at_its_limit(void **state)
{
    struct buf b = {.bytes_max = 1000};
    for (int i = 0; i < 100; i++)
        buf_printf(&b, "%09d\n", i);
    assert_true(buf_ok(&b));
    assert_int_equal(b.len, 1000);
    buf_byte(&b, 'x');
    assert_false(buf_ok(&b));
    assert_int_equal(b.len, 1000);
    buf_clear(&b);
    buf_cstr(&b, "again");
    assert_str_eq(buf_as_str(&b), STR("again"));
    buf_done(&b);
}

static void utf8_is_told_from_other_bytes(void **state)
{
    assert_true(str_is_utf8(STR("")));
    assert_true(str_is_utf8(STR("plain ascii, long enough for words")));
    assert_true(str_is_utf8(STR("gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x90\xbe")));
    static const struct str bad[] = {
        {"\x80", 1},         {"\xc3", 1},         {"\xc0\x80", 2},         {"\xe0\x80\x80", 3},
        {"\xed\xa0\x80", 3}, {"\xf8\x88\x80", 3}, {"\xf4\x90\x80\x80", 4}, {"12345678\xff", 9},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(str_is_utf8(bad[i]));
}

static void numbers_do_not_overflow(void **state)
{
    uint64_t u;
    int64_t i;
    assert_true(str_to_u64(STR("18446744073709551615"), &u));
    assert_int_equal(u, UINT64_MAX);
    assert_false(str_to_u64(STR("18446744073709551616"), &u));
    assert_false(str_to_u64(STR(""), &u));
    assert_false(str_to_u64(STR("+1"), &u));
    assert_true(str_to_i64(STR("-9223372036854775808"), &i));
    assert_int_equal(i, INT64_MIN);
    assert_false(str_to_i64(STR("9223372036854775808"), &i));
    assert_false(str_to_i64(STR("-"), &i));
}

static void durations_are_go_s(void **state)
{
    static const struct {
        const char *text;
        uint64_t ns;
    } good[] = {
        {"0", 0},
        {"1ns", 1},
        {"200ms", 200000000},
        {"1.5s", 1500000000},
        {"2h45m", UINT64_C(9900000000000)},
        {"10us", 10000},
        {"1m30s", UINT64_C(90000000000)},
        {".5ms", 500000},
    };
    uint64_t ns;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_true(str_to_duration_ns(str_from(good[i].text), &ns));
        assert_int_equal(ns, good[i].ns);
    }
    static const char *const bad[] = {"", "1", "s", "1x", "-1s", "1s ", ".s", "99999999999999h"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(str_to_duration_ns(str_from(bad[i]), &ns));
}

static void hex_goes_both_ways(void **state)
{
    uint8_t bytes[3];
    char text[6];
    assert_true(hex_get(bytes, STR("00aBff"), 3));
    hex_put(text, bytes, 3);
    assert_memory_equal(text, "00abff", 6);
    assert_false(hex_get(bytes, STR("00abf"), 3));
    assert_false(hex_get(bytes, STR("00abfg"), 3));
}

static void hex_of_every_byte_and_length_reads_back(void **state)
{
    uint8_t bytes[37], back[37];
    char text[80], one[8];
    for (size_t n = 0; n <= sizeof bytes; n++) {
        for (unsigned round = 0; round < 256; round++) {
            for (size_t i = 0; i < n; i++)
                bytes[i] = (uint8_t)(round + 7 * i);
            hex_put(text, bytes, n);
            for (size_t i = 0; i < n; i++) {
                snprintf(one, sizeof one, "%02x", bytes[i]);
                assert_memory_equal(text + 2 * i, one, 2);
            }
            assert_true(hex_get(back, (struct str){text, 2 * n}, n));
            assert_memory_equal(back, bytes, n);
            assert_true(hex_get_lower(back, text, n));
        }
    }
}

static void only_sixteen_or_22_characters_are_hex_digits(void **state)
{
    uint8_t byte;
    char text[2] = "00";
    for (int c = 0; c < 256; c++) {
        text[1] = (char)c;
        bool digit = c && strchr("0123456789abcdef", c), capital = c && strchr("ABCDEF", c);
        assert_int_equal(hex_get(&byte, (struct str){text, 2}, 1), digit || capital);
        assert_int_equal(hex_get_lower(&byte, text, 1), digit);
    }
}

static void slices_split_and_trim(void **state)
{
    struct str rest;
    assert_str_eq(str_split(STR("a=b=c"), '=', &rest), STR("a"));
    assert_str_eq(rest, STR("b=c"));
    assert_str_eq(str_split(STR("abc"), '=', &rest), STR("abc"));
    assert_null(rest.ptr);
    assert_str_eq(str_trim(STR(" \tx y\r\n")), STR("x y"));
    assert_true(str_cmp(STR("a"), STR("ab")) < 0);
    assert_true(str_cmp(STR("b"), STR("ab")) > 0);
    assert_true(str_eq_nocase(STR("Content-Type"), STR("content-type")));
}

static void times_are_written_to_the_nanosecond(void **state)
{
    char text[CLOCK_RFC3339_SIZE];
    clock_rfc3339(text, UINT64_C(1767323045000000006));
    assert_string_equal(text, "2026-01-02T03:04:05.000000006Z");
    clock_rfc3339(text, UINT64_MAX);
    assert_string_equal(text, "2554-07-21T23:34:33.709551615Z");
}

static void mix_keeps_numbers_apart(void **state)
{
    assert_int_not_equal(hash_mix64(1), hash_mix64(2));
    assert_int_equal(hash_mix64(0), 0);
    for (uint64_t i = 0, n = 1; i < 1000; i++, n = n * 3 + i)
        assert_int_equal(hash_unmix64(hash_mix64(n)), n);
    assert_int_equal(hash_str(STR("x")), hash_bytes("x", 1));
}

static void times_of_rfc3339_are_read_with_any_offset(void **state)
{
    static const struct {
        const char *text;
        uint64_t ns;
    } good[] = {
        {"1970-01-01T00:00:00Z", 0},
        {"2026-01-02T03:04:05.000000006Z", UINT64_C(1767323045000000006)},
        {"2026-01-02T03:04:05.5+01:00", UINT64_C(1767319445500000000)},
        {"2026-01-02T03:04:05.5 01:00", UINT64_C(1767319445500000000)},
        {"2026-01-02t03:04:05-00:30", UINT64_C(1767324845000000000)},
        {"2024-02-29T23:59:60Z", UINT64_C(1709251200000000000)},
        {"2262-04-11T23:47:16.854775807Z", UINT64_C(9223372036854775807)},
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        uint64_t ns = 7;
        if (!clock_parse_rfc3339(str_from(good[i].text), &ns) || ns != good[i].ns)
            fail_msg("%s: %llu", good[i].text, (unsigned long long)ns);
    }
    static const char *const bad[] = {
        "",
        "2026",
        "2026-01-02",
        "2026-01-02T03:04:05",
        "2026-13-02T03:04:05Z",
        "2025-02-29T03:04:05Z",
        "2026-01-02T24:04:05Z",
        "2026-01-02T03:04:05.Z",
        "2026-01-02T03:04:05.0000000001Z",
        "2026-01-02T03:04:05+1:00",
        "2026-01-02T03:04:05Zx",
        "1969-12-31T23:59:59Z",
        "9999-01-01T00:00:00Z",
        "1767323045",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        uint64_t ns = 7;
        if (clock_parse_rfc3339(str_from(bad[i]), &ns) || ns != 7)
            fail_msg("%s was taken", bad[i]);
    }
}

static void the_hash_secret_is_drawn_once(void **state)
{
    uint64_t secret = hash_secret();
    assert_true(secret != 0);
    assert_true(hash_secret() == secret);
    /* Two keys that share their low bits without it do not with it, but by chance. */
    unsigned shared = 0;
    for (uint64_t i = 0; i < 1000; i++)
        shared += (hash_bytes(&i, sizeof i) & 0xff) ==
                  (hash_bytes_seed(&i, sizeof i, secret) & 0xff);
    assert_in_range(shared, 0, 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_hash_secret_is_drawn_once),
        cmocka_unit_test(arena_allocations_are_aligned_and_apart),
        cmocka_unit_test(arena_refuses_beyond_its_limit),
        cmocka_unit_test(arena_str_is_a_terminated_copy),
        cmocka_unit_test(buf_grows_and_fails_for_good_at_its_limit),
        cmocka_unit_test(utf8_is_told_from_other_bytes),
        cmocka_unit_test(numbers_do_not_overflow),
        cmocka_unit_test(durations_are_go_s),
        cmocka_unit_test(hex_goes_both_ways),
        cmocka_unit_test(hex_of_every_byte_and_length_reads_back),
        cmocka_unit_test(only_sixteen_or_22_characters_are_hex_digits),
        cmocka_unit_test(slices_split_and_trim),
        cmocka_unit_test(times_are_written_to_the_nanosecond),
        cmocka_unit_test(mix_keeps_numbers_apart),
        cmocka_unit_test(times_of_rfc3339_are_read_with_any_offset),
    };
    return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
