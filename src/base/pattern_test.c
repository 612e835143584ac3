#include "base/pattern.h"
#include "base/regex_draw.h"
#include "base/test.h"

#include <pthread.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static struct pattern *made(const char *expression)
{
    struct error_detail detail = {0};
    struct pattern *p;
    if (pattern_new(str_from(expression), &p, &detail))
        fail_msg("%s: at %zu: %s", expression, detail.position, detail.message);
    return p;
}

struct case_ {
    const char *expression, *text;
    bool matches;
};

static void check(const struct case_ *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct pattern *p = made(cases[i].expression);
        for (int again = 0; again < 2; again++) /* the second time its states are there */
            if (pattern_match(p, str_from(cases[i].text)) != cases[i].matches)
                fail_msg("%s and \"%s\"", cases[i].expression, cases[i].text);
        pattern_free(p);
    }
}
#define CHECK(...)                                                                                 \
    static const struct case_ cases[] = {__VA_ARGS__};                                             \
    check(cases, sizeof cases / sizeof *cases)

static void the_whole_text_is_compared(void **state)
{
    CHECK({"", "", true}, {"", "x", false}, {"a|b", "b", true}, {"a|b", "ab", false},
          {"a.c", "abc", true}, {"a.c", "a\nc", false}, {"a{2,3}", "aaa", true},
          {"a{2,3}", "aaaa", false}, {"a{2,3}", "a", false}, {"a{2,}", "aaaaa", true},
          {"a{2}", "aa", true}, {"a{0}", "", true}, {"a{0}", "a", false}, {"a{0,2}", "aa", true},
          {"a{0,2}", "aaa", false}, {"a{0,}", "aaa", true}, {"(a|bc){2}", "bca", true},
          {"x*?y+?z??", "xyz", true}, {"(?:ab)+", "abab", true}, {"(?P<n>ab)?", "", true},
          {"(?<n>ab)", "ab", true}, {"(|a)+", "aaa", true}, {"(a*)*", "aaaa", true},
          {"(a*)*", "aaab", false}, {"((a*)*|b)*c", "aabac", true}, {"a]b}", "a]b}", true},
          {"a{x", "a{x", true}, {"a{,5}", "a{,5}", true}, {"|a|", "", true});
}

static void sets_and_escapes_are_those_of_re2(void **state)
{
    CHECK({"[a-c]+", "abcabc", true}, {"[^a-c]+", "xyz", true}, {"[^a-c]+", "xbz", false},
          {"[]]", "]", true}, {"[^]]", "]", false}, {"[]-]+", "-]-", true},
          {"[\\]\\-^]+", "]-^", true}, {"[\\^]", "^", true}, {"[\\^[]+", "[^[", true},
          {"[[.]+", "[.[", true}, {"[\\d.]+", "1.25", true}, {"[\\w-]+", "a-b_c", true},
          {"[^\\d]", "x", true}, {"[^\\D]", "7", true}, {"[\\D]", "7", false},
          {"[[:alpha:]]+", "abC", true}, {"[[:punct:]]+", "!-/", true}, {"[+--]+", "+,-", true},
          {"\\d+", "123", true}, {"\\D+", "123", false}, {"\\S+\\s\\S+", "ab cd", true},
          {"\\W", "\xc3\xa9", true}, {"\\.\\*\\[\\]\\{\\}\\(\\)\\\\\\/", ".*[]{}()\\/", true},
          {"\\x41\\101\\x{42}", "AAB", true}, {"a\\tb", "a\tb", true},
          {"\\Qa.b*\\E+", "a.b**", true}, {"\\Qa.b", "axb", false}, {"\\Q\\E", "", true},
          {"[^\\x00-\\x{10FFFF}]", "a", false});
}

static void it_is_characters_that_are_compared(void **state)
{
    CHECK({"\xc3\xa9+", "\xc3\xa9\xc3\xa9", true}, {"caf\xc3\xa9?", "caf", true},
          {".", "\xf0\x9f\x90\xbe", true}, {"..", "\xf0\x9f\x90\xbe", false},
          {".{3}", "\xe2\x82\xac\xc3\xa9z", true}, {"[^a]", "\xe2\x82\xac", true},
          {"[\xc3\xa0-\xc3\xbf]+", "\xc3\xa9\xc3\xbf", true}, {"[\xc3\xa0-\xc3\xbf]", "z", false},
          {"[^\xc3\xa9]", "\xc3\xa9", false}, {"[^\xc3\xa9]", "\xc3\xa8", true},
          {"[^\xc3\xa9]", "e", true}, {"\\x{1F43E}", "\xf0\x9f\x90\xbe", true},
          {"[\\x{800}-\\x{20000}]", "\xe2\x82\xac", true},
          {"[\\x{800}-\\x{20000}]", "\xdf\xbf", false},
          {"[\\x{7ff}-\\x{10000}]", "\xf0\x90\x80\x80", true},
          {"[\\x{7ff}-\\x{10000}]", "\xf0\x90\x80\x81", false}, {"\\xe9", "\xc3\xa9", true},
          /* no UTF-8: each such byte is U+FFFD */
          {"a.b",
           "a\xff"
           "b",
           true},
          {"a..b",
           "a\xe2\x82"
           "b",
           true},
          {"\\x{fffd}", "\x80", true}, {"[^x]", "\xff", true}, {"\xc3\xa9", "\xe9", false});
    struct pattern *p = made("a.b\\x00");
    assert_true(pattern_match(p, (struct str){"a\0b\0", 4}));
    pattern_free(p);
}

static void flags_hold_for_their_group(void **state)
{
    CHECK({"(?i)get|post", "POST", true}, {"(?i)[a-c]x", "BX", true}, {"(?i)[^a]", "A", false},
          {"(?i:ab)c", "ABc", true}, {"(?i:ab)c", "ABC", false}, {"a((?i)b)c", "aBc", true},
          {"a((?i)b)c", "aBC", false}, {"a(?i)b|c", "C", true}, {"(?i)a(?-i)b", "AB", false},
          {"(?s).", "\n", true}, {"(?s-i:.)", "\n", true}, {"(?U)a+", "aa", true});
}

static void assertions_look_at_both_sides(void **state)
{
    CHECK({"^ab$", "ab", true}, {"\\Aab\\z", "ab", true}, {"(^a|b)+", "ab", true},
          {"(^a|b)+", "ba", false}, {"a$b", "ab", false}, {"(a$|b)*", "bba", true},
          {"\\bcat\\b", "cat", true}, {".*\\bcat\\b.*", "the cat sat", true},
          {".*\\bcat\\b.*", "concatenate", false}, {".*\\Bcat\\B.*", "concatenate", true},
          {"a\\b", "a", true}, {"a\\B", "a", false}, {"\\b", "", false}, {"\\B", "", true},
          {"(\\b|x)+a", "xa", true}, {"-\\b-", "--", false}, {"^*a", "a", true});
}

static void what_cannot_be_said_is_refused_where_it_stands(void **state)
{
    static const struct {
        const char *expression;
        size_t position;
        const char *words;
    } cases[] = {
        {"(a)\\1", 3, "back references"},
        {"a(?=b)", 1, "of (?...) there are"},
        {"a(?<=b)", 1, "of (?...) there are"},
        {"(?P<n", 0, "the name of a group"},
        {"(?m)a", 0, "the flags i and s"},
        {"\\pL", 0, "Unicode's classes"},
        {"*a", 0, "nothing to repeat"},
        {"a|{2}", 2, "nothing to repeat"},
        {"a**", 2, "a repetition of a repetition"},
        {"a{2}{3}", 4, "a repetition of a repetition"},
        {"ab(c", 2, "\"(\" without its \")\""},
        {"ab)c", 2, "\")\" without its \"(\""},
        {"x[ab", 1, "\"[\" without its \"]\""},
        {"[b-a]", 1, "ends before it begins"},
        {"[a-\\d]", 1, "a range needs two characters"},
        {"[[:nope:]]", 1, "not known"},
        {"a{2,1}", 1, "ends before it begins"},
        {"a{2000}", 1, "beyond 1000"},
        {"a\\", 1, "a backslash at the end"},
        {"a\\q", 1, "not known"},
        {"\\xZZ", 1, "two hexadecimal digits"},
        {"\\x{110000}", 1, "two hexadecimal digits"},
        {"((a{1000}){1000}){1000}", 16, "more than 16384 steps"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct error_detail detail = {0};
        struct pattern *p;
        if (pattern_new(str_from(cases[i].expression), &p, &detail) == 0)
            fail_msg("%s was taken", cases[i].expression);
        if (!strstr(detail.message, cases[i].words) || detail.position != cases[i].position)
            fail_msg("%s: at %zu: %s", cases[i].expression, detail.position, detail.message);
    }
    char nested[200] = "";
    memset(nested, '(', 100);
    struct error_detail detail = {0};
    struct pattern *p;
    assert_int_equal(pattern_new(str_from(nested), &p, &detail), ERR_TOO_LARGE);
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Those that take others hours, to compile or to run. */
static void no_expression_takes_long(void **state)
{
    static const char *const slow[] = {
        "((x*|y*|z*|w*){8})*",    "((x*|y*|z*|w*){4}){4}",
        "(x?|y?|z?|w?){64}",      "(i(x||||||||||||||||||||||||||||||||||||||||||||||||){3}|y)*",
        "(((x*|)|(y|)){3}|z){4}", "(x+x+)+y",
        "(.*)(.*)(.*)(.*)[^x]",   "(x?){500}x{500}",
        "(x|xx|xxx)*(y|x)*z",     "(.*x.{10}){3}",
    };
    enum { LEN = 20000 };
    char *text = malloc(LEN);
    assert_non_null(text);
    double from = seconds();
    for (size_t i = 0; i < sizeof slow / sizeof *slow; i++) {
        struct pattern *p = made(slow[i]);
        memset(text, 'x', LEN);
        pattern_match(p, (struct str){text, LEN});
        for (int k = 0; k < LEN; k++)
            text[k] = "xyz"[(k * 7919 / 13) % 3];
        pattern_match(p, (struct str){text, LEN});
        pattern_free(p);
    }
    free(text);
    assert_true(seconds() - from < 20);
}

/* The tenth character from the end is an x: 2048 states, which the cache cannot hold. */
static void more_states_than_there_is_room_for_are_no_matter(void **state)
{
    struct pattern *p = made("[xy]*x[xy]{18}");
    char text[400];
    unsigned seed = 1;
    for (int round = 0; round < 300; round++) {
        for (size_t i = 0; i < sizeof text; i++)
            text[i] = "xy"[(seed = seed * 1103515245 + 12345) >> 16 & 1];
        bool want = text[sizeof text - 19] == 'x';
        assert_int_equal(pattern_match(p, (struct str){text, sizeof text}), want);
    }
    pattern_free(p);
}

/* ---- the C library as judge ---- */

static void it_agrees_with_the_c_library(void **state)
{
    unsigned seed = 4711, compared = 0, matched = 0;
    for (int round = 0; round < 3000; round++) {
        char expression[1024], anchored[1032], text[16];
        size_t n = 0;
        regex_t posix;
        draw_expression(&seed, expression, &n, 2);
        struct pattern *p = made(expression);
        snprintf(anchored, sizeof anchored, "^(%s)$", expression);
        assert_int_equal(regcomp(&posix, anchored, REG_EXTENDED | REG_NOSUB), 0);
        for (int i = 0; i < 8; i++) {
            unsigned len = draw(&seed, 8);
            for (unsigned k = 0; k < len; k++)
                text[k] = "abc"[draw(&seed, 3)];
            text[len] = 0;
            bool want = regexec(&posix, text, 0, NULL, 0) == 0;
            if (pattern_match(p, str_from(text)) != want)
                fail_msg("%s and \"%s\" is not %d", expression, text, want);
            compared++;
            matched += want;
        }
        regfree(&posix);
        pattern_free(p);
    }
    assert_true(compared == 24000 && matched > 2000);
}

static void *matcher(void *arg)
{
    struct pattern *p = arg;
    char text[32];
    for (unsigned i = 0; i < 3000; i++) {
        int n = snprintf(text, sizeof text, "/api/%u/items%s", i, i % 2 ? "" : "?");
        if (pattern_match(p, (struct str){text, (size_t)n}) != (i % 2 == 1))
            return p;
    }
    return NULL;
}

static void threads_share_a_pattern(void **state)
{
    struct pattern *p = made("/api/\\d+/(items|users)");
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, matcher, p), 0);
    for (int i = 0; i < 4; i++) {
        void *wrong;
        pthread_join(threads[i], &wrong);
        assert_null(wrong);
    }
    pattern_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_whole_text_is_compared),
        cmocka_unit_test(sets_and_escapes_are_those_of_re2),
        cmocka_unit_test(it_is_characters_that_are_compared),
        cmocka_unit_test(flags_hold_for_their_group),
        cmocka_unit_test(assertions_look_at_both_sides),
        cmocka_unit_test(what_cannot_be_said_is_refused_where_it_stands),
        cmocka_unit_test(no_expression_takes_long),
        cmocka_unit_test(more_states_than_there_is_room_for_are_no_matter),
        cmocka_unit_test(it_agrees_with_the_c_library),
        cmocka_unit_test(threads_share_a_pattern),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
