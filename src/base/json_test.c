#include "base/base64.h"
#include "base/json.h"
#include "base/test.h"

#include <float.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- what tests say a lot ---- */

/* Reads all of it and writes it again with the writer: what comes out is the reader's view. An
 * error becomes "ERR_NAME@position". */
static const char *echo(struct str input)
{
    static char text[1 << 16];
    struct arena arena = ARENA_INIT;
    struct error_detail detail;
    struct json_reader r;
    struct buf out = BUF_INIT;
    struct json_writer w = json_writer(&out);
    /* A copy of its exact size, so that a byte too far is seen by the address sanitizer. */
    char *exact = malloc(input.len ? input.len : 1);
    memcpy(exact, input.ptr, input.len);
    json_reader_init(&r, (struct str){exact, input.len}, &arena, &detail);
    bool more = true;
    while (more) {
        switch (json_next(&r)) {
        case JSON_ERROR:
            buf_clear(&out);
            buf_printf(&out, "%s@%zu", err_name(r.err), detail.position);
            assert_int_equal(detail.code, r.err);
            assert_int_equal(json_next(&r), JSON_ERROR);
            more = false;
            break;
        case JSON_END:
            assert_int_equal(json_next(&r), JSON_END);
            more = false;
            break;
        case JSON_OBJECT:
            json_open(&w, '{');
            break;
        case JSON_OBJECT_END:
            json_close(&w, '}');
            break;
        case JSON_ARRAY:
            json_open(&w, '[');
            break;
        case JSON_ARRAY_END:
            json_close(&w, ']');
            break;
        case JSON_KEY:
            json_key(&w, r.text);
            break;
        case JSON_STRING:
            json_str(&w, r.text);
            break;
        case JSON_NUMBER:
            json_raw(&w, r.text);
            break;
        case JSON_TRUE:
        case JSON_FALSE:
            json_bool(&w, r.type == JSON_TRUE);
            break;
        case JSON_NULL:
            json_null(&w);
            break;
        }
    }
    assert_true(buf_ok(&out));
    snprintf(text, sizeof text, "%.*s", STR_ARG(buf_as_str(&out)));
    free(exact);
    buf_done(&out);
    arena_done(&arena);
    return text;
}

#define ECHO(literal) echo(STR(literal))

static struct json_reader read_one(struct str input, struct arena *arena)
{
    struct json_reader r;
    json_reader_init(&r, input, arena, NULL);
    json_next(&r);
    return r;
}

/* ---- reader ---- */

static void values_of_every_kind_come_back_as_they_were(void **state)
{
    static const char *const same[] = {
        "null",
        "true",
        "false",
        "0",
        "-0",
        "-12.50e+3",
        "1E-2",
        "\"\"",
        "\"a b\"",
        "[]",
        "{}",
        "[[],{},[{}]]",
        "{\"a\":1,\"b\":[true,false,null],\"c\":{\"d\":\"e\"}}",
        "[\"a longer string, of more than eight bytes\",\"\xc3\xa4\xe2\x82\xac\xf0\x9f\x90\xbe\"]",
        "{\"\":{\"\":[]}}",
        "{\"a\":1,\"a\":2}",
    };
    for (size_t i = 0; i < sizeof same / sizeof *same; i++)
        assert_string_equal(echo(str_from(same[i])), same[i]);
}

static void white_space_is_allowed_between_tokens_and_nowhere_else(void **state)
{
    assert_string_equal(ECHO(" \t\r\n{ \"a\" : [ 1 , 2 ] , \"b\" : { } } \n"),
                        "{\"a\":[1,2],\"b\":{}}");
    assert_string_equal(ECHO("1 2"), "ERR_INVALID@2");
    assert_string_equal(ECHO("tr ue"), "ERR_INVALID@0");
    assert_string_equal(ECHO("[\f]"), "ERR_INVALID@1");
    assert_string_equal(ECHO("\xef\xbb\xbf[]"), "ERR_INVALID@0");
}

static void structure_that_is_wrong_is_refused_where_it_is_wrong(void **state)
{
    assert_string_equal(ECHO("[1,]"), "ERR_INVALID@3");
    assert_string_equal(ECHO("[,1]"), "ERR_INVALID@1");
    assert_string_equal(ECHO("[1 2]"), "ERR_INVALID@3");
    assert_string_equal(ECHO("[1}"), "ERR_INVALID@2");
    assert_string_equal(ECHO("{\"a\":1]"), "ERR_INVALID@6");
    assert_string_equal(ECHO("{\"a\":1,}"), "ERR_INVALID@7");
    assert_string_equal(ECHO("{,}"), "ERR_INVALID@1");
    assert_string_equal(ECHO("{\"a\"}"), "ERR_INVALID@4");
    assert_string_equal(ECHO("{\"a\" 1}"), "ERR_INVALID@5");
    assert_string_equal(ECHO("{\"a\":}"), "ERR_INVALID@5");
    assert_string_equal(ECHO("{a:1}"), "ERR_INVALID@1");
    assert_string_equal(ECHO("{1:1}"), "ERR_INVALID@1");
    assert_string_equal(ECHO("]"), "ERR_INVALID@0");
    assert_string_equal(ECHO("'a'"), "ERR_INVALID@0");
    assert_string_equal(ECHO("nul"), "ERR_TRUNCATED@3");
    assert_string_equal(ECHO("nulL"), "ERR_INVALID@0");
    assert_string_equal(ECHO("NaN"), "ERR_INVALID@0");
    assert_string_equal(ECHO("[1]]"), "ERR_INVALID@3");
    assert_string_equal(ECHO("{}x"), "ERR_INVALID@2");
    assert_string_equal(ECHO("// c\n1"), "ERR_INVALID@0");
}

static void every_prefix_of_a_document_is_truncated(void **state)
{
    struct str whole = STR("{\"a\":[1.5e3,true,null],\"b\\u00e4\":\"\\ud83d\\udc3e\\n\"}");
    for (size_t n = 0; n < whole.len; n++) {
        char want[64];
        const char *got = echo((struct str){whole.ptr, n});
        snprintf(want, sizeof want, "ERR_TRUNCATED@%zu", n);
        assert_string_equal(got, want);
    }
    assert_string_equal(echo(whole),
                        "{\"a\":[1.5e3,true,null],\"b\xc3\xa4\":\"\xf0\x9f\x90\xbe\\n\"}");
}

static void numbers_follow_the_grammar(void **state)
{
    static const char *const wrong[] = {"01", "-",   "-01", "+1", "1.",    ".5",   "1.e1",
                                        "1e", "1e+", "0x1", "1a", "--1",   "1..2", "1e1.5",
                                        "-a", "1_0", "1f",  "00", "1e5e5", "-.5",  "2."};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char document[32];
        snprintf(document, sizeof document, "[%s]", wrong[i]);
        if (strncmp(echo(str_from(document)), "ERR_INVALID@", 12) != 0)
            fail_msg("%s became %s", document, echo(str_from(document)));
    }
    assert_string_equal(ECHO("-"), "ERR_TRUNCATED@1");
    assert_string_equal(ECHO("1e"), "ERR_TRUNCATED@2");
}

static void escapes_become_what_they_stand_for(void **state)
{
    struct arena arena = ARENA_INIT;
    struct json_reader r =
        read_one(STR("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0041\\u00df\\u20AC\\uD834\\uDD1E\""), &arena);
    assert_int_equal(r.type, JSON_STRING);
    assert_str_eq(r.text, STR("\"\\/\b\f\n\r\tA\xc3\x9f\xe2\x82\xac\xf0\x9d\x84\x9e"));
    r = read_one(STR("\"a\\u0000b\""), &arena);
    assert_int_equal(r.text.len, 3);
    assert_memory_equal(r.text.ptr, "a\0b", 3);
    arena_done(&arena);

    static const char *const wrong[] = {"\"\\x41\"",      "\"\\u12\"", "\"\\u12g4\"", "\"\\U0041\"",
                                        "\"\\\xc3\xa4\"", "\"\\\n\"",  "\"\\u-123\"", "\"\\0\""};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_string_equal(echo(str_from(wrong[i])), "ERR_INVALID@1");
}

static void half_a_surrogate_pair_is_replaced(void **state)
{
    assert_string_equal(ECHO("\"\\ud83d\""), "\"\xef\xbf\xbd\"");
    assert_string_equal(ECHO("\"\\udc3e\""), "\"\xef\xbf\xbd\"");
    assert_string_equal(ECHO("\"\\ud83dx\""), "\"\xef\xbf\xbdx\"");
    assert_string_equal(ECHO("\"\\ud83d\\u0041\""), "\"\xef\xbf\xbd\x41\"");
    assert_string_equal(ECHO("\"\\ud83d\\ud83d\\udc3e\""), "\"\xef\xbf\xbd\xf0\x9f\x90\xbe\"");
    assert_string_equal(ECHO("\"\\ud83d\\uzzzz\""), "ERR_INVALID@7");
}

static void strings_must_be_utf8_without_control_characters(void **state)
{
    assert_string_equal(ECHO("\"ok \x7f\""), "\"ok \x7f\"");
    assert_string_equal(ECHO("\"a\tb\""), "ERR_INVALID@2");
    assert_string_equal(echo((struct str){"\"a\0b\"", 5}), "ERR_INVALID@2");
    static const char *const wrong[] = {"\"\xff\"",         "\"\xc3\"",     "\"\xc0\xaf\"",
                                        "\"\xed\xa0\x80\"", "\"\xe2\x82\"", "\"\xf4\x90\x80\x80\"",
                                        "\"12345678\x80\""};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_string_equal(echo(str_from(wrong[i])), "ERR_INVALID@0");
}

static void nesting_has_a_limit_and_reaches_it(void **state)
{
    char deep[2 * (JSON_DEPTH_MAX + 1)];
    memset(deep, '[', JSON_DEPTH_MAX + 1);
    memset(deep + JSON_DEPTH_MAX + 1, ']', JSON_DEPTH_MAX + 1);
    struct str at_limit = {deep + 1, 2 * JSON_DEPTH_MAX};
    assert_int_equal(strlen(echo(at_limit)), 2 * JSON_DEPTH_MAX);
    assert_string_equal(echo((struct str){deep, sizeof deep}), "ERR_TOO_LARGE@256");
    /* Objects and arrays mixed across the words of the bit set. */
    struct buf mixed = BUF_INIT;
    for (int i = 0; i <= 100; i++)
        buf_cstr(&mixed, i % 3 ? "[" : "{\"k\":");
    for (int i = 100; i >= 0; i--)
        buf_cstr(&mixed, i % 3 ? "]" : "}");
    assert_str_eq(str_from(echo(buf_as_str(&mixed))), buf_as_str(&mixed));
    buf_done(&mixed);
}

static void skip_passes_over_whole_values(void **state)
{
    struct arena arena = ARENA_INIT;
    struct json_reader r;
    json_reader_init(&r, STR("{\"a\":{\"b\":[1,{\"c\":[]}]},\"d\":[[1],2],\"e\":\"x\",\"f\":7}"),
                     &arena, NULL);
    assert_int_equal(json_next(&r), JSON_OBJECT);
    assert_int_equal(json_next(&r), JSON_KEY);
    assert_int_equal(json_skip(&r), JSON_OBJECT_END);
    assert_int_equal(json_next(&r), JSON_KEY);
    assert_str_eq(r.text, STR("d"));
    assert_int_equal(json_next(&r), JSON_ARRAY);
    assert_int_equal(json_skip(&r), JSON_ARRAY_END);
    assert_int_equal(json_next(&r), JSON_KEY);
    assert_str_eq(r.text, STR("e"));
    assert_int_equal(json_skip(&r), JSON_STRING);
    assert_int_equal(json_next(&r), JSON_KEY);
    assert_str_eq(r.text, STR("f"));
    assert_int_equal(json_next(&r), JSON_NUMBER);
    assert_int_equal(json_next(&r), JSON_OBJECT_END);
    assert_int_equal(json_next(&r), JSON_END);

    json_reader_init(&r, STR("[[1,[}]]"), &arena, NULL);
    assert_int_equal(json_next(&r), JSON_ARRAY);
    assert_int_equal(json_skip(&r), JSON_ERROR);
    assert_int_equal(r.err, ERR_INVALID);
    arena_done(&arena);
}

static void the_caller_can_fail_the_reader_at_a_token(void **state)
{
    struct arena arena = ARENA_INIT;
    struct error_detail detail;
    struct json_reader r;
    json_reader_init(&r, STR("[1,  true]"), &arena, &detail);
    json_next(&r);
    json_next(&r);
    assert_int_equal(json_next(&r), JSON_TRUE);
    assert_int_equal(json_fail(&r, "a number"), JSON_ERROR);
    assert_int_equal(detail.position, 5);
    assert_string_equal(detail.message, "expected a number");
    assert_int_equal(json_next(&r), JSON_ERROR);
    /* The first failure is the one that counts. */
    assert_int_equal(json_fail_with(&r, ERR_TOO_LARGE, "x"), JSON_ERROR);
    assert_int_equal(r.err, ERR_INVALID);
    arena_done(&arena);
}

static void memory_that_is_refused_is_an_error(void **state)
{
    struct arena arena = {.bytes_max = 1};
    struct json_reader r = read_one(STR("\"a\\nb\""), &arena);
    assert_int_equal(r.type, JSON_ERROR);
    assert_int_equal(r.err, ERR_NOMEM);
    arena_done(&arena);
}

static void whole_numbers_are_read_from_numbers_and_strings(void **state)
{
    struct arena arena = ARENA_INIT;
    static const struct {
        struct str json;
        bool ok;
        int64_t value;
    } cases[] = {
        {STR("0"), true, 0},
        {STR("\"0\""), true, 0},
        {STR("-9223372036854775808"), true, INT64_MIN},
        {STR("\"9223372036854775807\""), true, INT64_MAX},
        {STR("9223372036854775808"), false, 0},
        {STR("1.0"), true, 1},
        {STR("-12e2"), true, -1200},
        {STR("1.5"), false, 0},
        {STR("1.7e18"), true, 1700000000000000000},
        {STR("-9.223372036854775808e18"), true, INT64_MIN},
        {STR("9.223372036854775808e18"), false, 0},
        {STR("-9223372036854775809"), false, 0},
        {STR("1e300"), false, 0},
        {STR("\"\""), false, 0},
        {STR("\"12x\""), false, 0},
        {STR("\" 1\""), false, 0},
        {STR("true"), false, 0},
        {STR("null"), false, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct json_reader r = read_one(cases[i].json, &arena);
        int64_t n = 0;
        bool ok = json_to_i64(&r, &n);
        if (ok != cases[i].ok || n != cases[i].value)
            fail_msg("%.*s became %d, %lld", STR_ARG(cases[i].json), ok, (long long)n);
    }
    uint64_t u = 7;
    struct json_reader r = read_one(STR("18446744073709551615"), &arena);
    assert_true(json_to_u64(&r, &u));
    assert_true(u == UINT64_MAX);
    r = read_one(STR("1.8e19"), &arena);
    assert_true(json_to_u64(&r, &u));
    assert_true(u == UINT64_C(18000000000000000000));
    r = read_one(STR("1.9e19"), &arena);
    assert_false(json_to_u64(&r, &u));
    r = read_one(STR("18446744073709551615"), &arena);
    assert_true(json_to_u64(&r, &u));
    r = read_one(STR("-1"), &arena);
    assert_false(json_to_u64(&r, &u));
    r = read_one(STR("-1.0"), &arena);
    assert_false(json_to_u64(&r, &u));
    assert_true(u == UINT64_MAX);
    arena_done(&arena);
}

static void doubles_are_read_exactly(void **state)
{
    struct arena arena = ARENA_INIT;
    static const struct {
        struct str json;
        double value;
    } cases[] = {
        {STR("0"), 0},
        {STR("1.5"), 1.5},
        {STR("-0.1"), -0.1},
        {STR("\"2.25\""), 2.25},
        {STR("123456789012345678901234567890"), 123456789012345678901234567890.0},
        {STR("0.1000000000000000055511151231257827021181583404541015625"), 0.1},
        {STR("1e22"), 1e22},
        {STR("1.7976931348623157e308"), DBL_MAX},
        {STR("5e-324"), 5e-324},
        {STR("1e-400"), 0},
        {STR("9007199254740993"), 9007199254740992.0},
        {STR("\"Infinity\""), INFINITY},
        {STR("\"-Infinity\""), -INFINITY},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct json_reader r = read_one(cases[i].json, &arena);
        double d = -1;
        if (!json_to_double(&r, &d) || d != cases[i].value)
            fail_msg("%.*s became %.17g", STR_ARG(cases[i].json), d);
    }
    /* Longer than any number that means something. */
    char digits[400];
    memset(digits, '0', sizeof digits);
    memcpy(digits, "0.5", 3);
    double d = 1;
    struct json_reader r = read_one((struct str){digits, sizeof digits}, &arena);
    assert_true(json_to_double(&r, &d));
    assert_true(d == 0.5);
    r = read_one(STR("\"NaN\""), &arena);
    assert_true(json_to_double(&r, &d));
    assert_true(isnan(d));
    r = read_one(STR("-0"), &arena);
    assert_true(json_to_double(&r, &d));
    assert_true(d == 0 && signbit(d));
    static const struct str wrong[] = {
        STR("1e999"),  STR("\"nan\""), STR("\"inf\""), STR("\"0x10\""), STR("\"\""), STR("\"1 \""),
        STR("\".5\""), STR("\"1e\""),  STR("\"-\""),   STR("true"),     STR("[]")};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        r = read_one(wrong[i], &arena);
        if (json_to_double(&r, &d))
            fail_msg("%.*s was read as %g", STR_ARG(wrong[i]), d);
    }
    arena_done(&arena);
}

/* ---- writer ---- */

static const char *double_text(double d)
{
    static char text[64];
    struct buf out = BUF_INIT;
    struct json_writer w = json_writer(&out);
    json_double(&w, d);
    snprintf(text, sizeof text, "%.*s", STR_ARG(buf_as_str(&out)));
    buf_done(&out);
    return text;
}

static void doubles_are_written_as_short_as_they_read_back(void **state)
{
    assert_string_equal(double_text(0), "0");
    assert_string_equal(double_text(-0.0), "-0");
    assert_string_equal(double_text(1), "1");
    assert_string_equal(double_text(-250), "-250");
    assert_string_equal(double_text(0.1), "0.1");
    assert_string_equal(double_text(1.0 / 3), "0.3333333333333333");
    assert_string_equal(double_text(0.1 + 0.2), "0.30000000000000004");
    assert_string_equal(double_text(1e21), "1e+21");
    assert_string_equal(double_text(NAN), "\"NaN\"");
    assert_string_equal(double_text(INFINITY), "\"Infinity\"");
    assert_string_equal(double_text(-INFINITY), "\"-Infinity\"");
    /* Many bit patterns, the same ones each time. */
    struct arena arena = ARENA_INIT;
    uint64_t seed = 1;
    for (int i = 0; i < 20000; i++) {
        seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        double d, back = 0;
        memcpy(&d, &seed, sizeof d);
        if (!isfinite(d))
            continue;
        struct json_reader r = read_one(str_from(double_text(d)), &arena);
        if (!json_to_double(&r, &back) || memcmp(&d, &back, sizeof d) != 0)
            fail_msg("%.17g was written as %s", d, double_text(d));
    }
    arena_done(&arena);
}

static void numbers_do_not_change_with_the_locale(void **state)
{
    /* Whatever of these the machine has; in C.UTF-8 alone this shows little. */
    static const char *const names[] = {"de_DE.UTF-8", "fr_FR.UTF-8", "C.UTF-8"};
    struct arena arena = ARENA_INIT;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (!setlocale(LC_NUMERIC, names[i]))
            continue;
        double d = 0;
        struct json_reader r = read_one(STR("1.25e-3"), &arena);
        assert_true(json_to_double(&r, &d));
        assert_true(d == 1.25e-3);
        assert_string_equal(double_text(0.5), "0.5");
    }
    setlocale(LC_NUMERIC, "C");
    arena_done(&arena);
}

static void commas_and_quotes_are_the_writers_business(void **state)
{
    struct buf out = BUF_INIT;
    struct json_writer w = json_writer(&out);
    json_open(&w, '{');
    json_key(&w, STR("u"));
    json_u64(&w, UINT64_MAX);
    json_key(&w, STR("i"));
    json_i64(&w, INT64_MIN);
    json_key(&w, STR("text"));
    json_open(&w, '[');
    json_u64_str(&w, 12);
    json_i64_str(&w, -12);
    json_hex(&w, (const uint8_t *)"\x00\xab\xff", 3);
    json_base64(&w, (const uint8_t *)"\xfb\xff", 2);
    json_base64(&w, NULL, 0);
    json_null(&w);
    json_bool(&w, false);
    json_open(&w, '{');
    json_close(&w, '}');
    json_raw(&w, STR("[1]"));
    json_close(&w, ']');
    json_key(&w, STR("\"k\\"));
    json_str(&w, STR(""));
    json_close(&w, '}');
    assert_str_eq(buf_as_str(&out),
                  STR("{\"u\":18446744073709551615,\"i\":-9223372036854775808,\"text\":[\"12\","
                      "\"-12\",\"00abff\",\"+/8=\",\"\",null,false,{},[1]],\"\\\"k\\\\\":\"\"}"));
    buf_done(&out);
}

static void written_strings_are_always_valid(void **state)
{
    struct buf out = BUF_INIT;
    struct json_writer w = json_writer(&out);
    static const char bytes[] =
        "a\0b\x1f\n\r\t\"\\/ \xc3\xa4 \xff\xc3 \xed\xa0\x80 12345678\xe2\x82";
    json_str(&w, (struct str){bytes, sizeof bytes - 1});
    assert_str_eq(buf_as_str(&out),
                  STR("\"a\\u0000b\\u001f\\n\\r\\t\\\"\\\\/ \xc3\xa4 \xef\xbf\xbd\xef\xbf\xbd "
                      "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd 12345678\xef\xbf\xbd\xef\xbf\xbd\""));
    buf_done(&out);
}

/* ---- base64 ---- */

static void base64_goes_both_ways_for_every_length(void **state)
{
    uint8_t bytes[64], back[BASE64_BYTES_MAX(BASE64_SIZE(64))];
    char text[BASE64_SIZE(64)];
    for (size_t n = 0; n <= sizeof bytes; n++) {
        for (size_t i = 0; i < n; i++)
            bytes[i] = (uint8_t)(i * 37 + n * 11);
        base64_put(text, bytes, n);
        size_t got = 99;
        assert_true(base64_get(back, (struct str){text, BASE64_SIZE(n)}, &got));
        assert_int_equal(got, n);
        assert_memory_equal(back, bytes, n);
    }
}

static void base64_is_read_in_both_alphabets_padded_or_not(void **state)
{
    static const struct str forms[] = {STR("+/8="), STR("-_8="), STR("+/8"), STR("-_8")};
    uint8_t out[8];
    size_t n;
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        n = 0;
        assert_true(base64_get(out, forms[i], &n));
        assert_int_equal(n, 2);
        assert_memory_equal(out, "\xfb\xff", 2);
    }
    static const struct str wrong[] = {STR("A"),    STR("A==="),      STR("AA="),  STR("AAAAA"),
                                       STR("A A="), STR("===="),      STR("=AAA"), STR("AB=="),
                                       STR("AA.A"), STR("AA\xc3\xa4")};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        if (base64_get(out, wrong[i], &n))
            fail_msg("%.*s was read", STR_ARG(wrong[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_of_every_kind_come_back_as_they_were),
        cmocka_unit_test(white_space_is_allowed_between_tokens_and_nowhere_else),
        cmocka_unit_test(structure_that_is_wrong_is_refused_where_it_is_wrong),
        cmocka_unit_test(every_prefix_of_a_document_is_truncated),
        cmocka_unit_test(numbers_follow_the_grammar),
        cmocka_unit_test(escapes_become_what_they_stand_for),
        cmocka_unit_test(half_a_surrogate_pair_is_replaced),
        cmocka_unit_test(strings_must_be_utf8_without_control_characters),
        cmocka_unit_test(nesting_has_a_limit_and_reaches_it),
        cmocka_unit_test(skip_passes_over_whole_values),
        cmocka_unit_test(the_caller_can_fail_the_reader_at_a_token),
        cmocka_unit_test(memory_that_is_refused_is_an_error),
        cmocka_unit_test(whole_numbers_are_read_from_numbers_and_strings),
        cmocka_unit_test(doubles_are_read_exactly),
        cmocka_unit_test(doubles_are_written_as_short_as_they_read_back),
        cmocka_unit_test(numbers_do_not_change_with_the_locale),
        cmocka_unit_test(commas_and_quotes_are_the_writers_business),
        cmocka_unit_test(written_strings_are_always_valid),
        cmocka_unit_test(base64_goes_both_ways_for_every_length),
        cmocka_unit_test(base64_is_read_in_both_alphabets_padded_or_not),
    };
    return cmocka_run_group_tests_name("json", tests, NULL, NULL);
}
