#include "base/matcher.h"
#include "base/regex_draw.h"
#include "base/test.h"

#include <regex.h>
#include <stdio.h>
#include <stdlib.h>

static void check(const char *expression, const char *text, const char *expected)
{
    struct arena arena = ARENA_INIT;
    struct error_detail detail = {0};
    struct matcher *m;
    size_t start = 0, end = 0;
    if (matcher_new(str_from(expression), &arena, &m, &detail) != 0)
        fail_msg("%s: %s", expression, detail.message);
    uint64_t budget = matcher_budget(m, strlen(text));
    enum matcher_answer answer = matcher_find(m, str_from(text), 0, &start, &end, &budget);
    if ((answer == MATCHER_YES) != (expected != NULL))
        fail_msg("%s in \"%s\": %d", expression, text, answer);
    if (expected) {
        struct str found = {text + start, end - start};
        if (!str_eq(found, str_from(expected)))
            fail_msg("%s in \"%s\": \"%.*s\" is not \"%s\"", expression, text, STR_ARG(found),
                     expected);
    }
    arena_done(&arena);
}

static void refused(const char *expression, const char *words)
{
    struct arena arena = ARENA_INIT;
    struct error_detail detail = {0};
    struct matcher *m;
    if (matcher_new(str_from(expression), &arena, &m, &detail) == 0)
        fail_msg("%s was taken", expression);
    if (!strstr(detail.message, words))
        fail_msg("%s: \"%s\" does not say \"%s\"", expression, detail.message, words);
    arena_done(&arena);
}

static void the_leftmost_and_of_those_the_longest_match_is_found(void **state)
{
    check("abc", "xxabcabc", "abc");
    check("abc", "xxabxabd", NULL);
    check("a|ab|abcd", "xabcd", "abcd");
    check("b|abcd", "abc", "b");
    check("ab*", "xabbbc", "abbb");
    check("(ab)+", "xababab-ab", "ababab");
    check("x(a|b)?c", "xbc", "xbc");
    check("a{2}", "a-aaa", "aa");
    check("a{2,}", "a-aaaa", "aaaa");
    check("a{1,2}b", "aaab", "aab");
    check("(?:a{2}){2}", "aaaaa", "aaaa");
    check("a{0}b", "ab", "b");
    check("a(|b)c", "abc", "abc");
    check("a.c", "a\nc abc", "abc");
    check("(a*)*b", "aaab", "aaab");
    check("(a|b|c|d)+e", "abcde", "abcde");
}

static void sets_and_escapes_are_as_everywhere(void **state)
{
    check("[a-c]+", "xxabcd", "abc");
    check("[^a-c]+", "abxyza", "xyz");
    check("[]x]+", "a]x]", "]x]");
    check("[a-]+", "b-a-", "-a-");
    check("\\d{3}-\\d{2}", "tel 12-34 123-45", "123-45");
    check("[\\w.]+@", "me.you@x", "me.you@");
    check("\\S+", "  a b", "a");
    check("\\x41\\.\\*", "A.*", "A.*");
    check("a\\tb", "a\tb", "a\tb");
    check("(?i)bearer [a-z]+", "BeaRer XyZ", "BeaRer XyZ");
    check("(?i)[^a]", "aAb", "b");
    check("[\\s\\S]+", "a\nb", "a\nb");
    check("[[:alpha:]]+", "12ab3", "ab");
    check("a(?i:b)", "abaB", "ab");
    check("x{y}", "x{y}", "x{y}");
    check("\\xff.",
          "a\xff"
          "b",
          "\xff"
          "b");
}

static void assertions_look_and_take_nothing(void **state)
{
    check("^ab", "ab", "ab");
    check("^ab", "cab", NULL);
    check("ab$", "abab", "ab");
    check("\\bcat\\b", "concat cat", "cat");
    check("\\bcat\\b", "cats", NULL);
    check("(^|,)x", "a,x", ",x");
}

static void a_match_is_made_of_whole_characters(void **state)
{
    check("\xc3\xa9+", "x\xc3\xa9\xc3\xa9y", "\xc3\xa9\xc3\xa9");
    check("a.", "xa\xe2\x82\xac", "a\xe2\x82\xac");
    check("[^x]", "\xe2\x82\xac", "\xe2\x82\xac");
}

static void what_is_not_supported_is_refused(void **state)
{
    refused("", "matches the empty text");
    refused("a*", "matches the empty text");
    refused("^", "matches the empty text");
    refused("\\b", "matches the empty text");
    refused("(a)\\1", "back references");
    refused("(?=a)b", "of (?...) there are");
    refused("a*?", "lazy repetition");
    refused("(?U)a", "(?U)");
    refused("a**", "a repetition of a repetition");
    refused("*a", "nothing to repeat");
    refused("(a", "\"(\" without its \")\"");
    refused("a)", "\")\" without its \"(\"");
    refused("[a", "\"[\" without its \"]\"");
    refused("[b-a]", "ends before it begins");
    refused("[\xc3\xa9]", "only ASCII");
    refused("a{2,1}", "the count ends before it begins");
    refused("a{2000}", "beyond 1000");
    refused("a\\", "a backslash at the end");
    refused("\\q", "this escape is not known");
    refused("((a{1000}){1000}){1000}", "more than 1024 steps");
    refused("[[:nope:]]", "not known");
}

static void the_work_is_bounded_whatever_the_text(void **state)
{
    struct arena arena = ARENA_INIT;
    struct matcher *m;
    char text[2048];
    memset(text, 'a', sizeof text);
    struct str s = {text, sizeof text};
    assert_int_equal(matcher_new(STR("(a|aa|a*a)*b"), &arena, &m, NULL), 0);
    size_t start, end;
    uint64_t budget = matcher_budget(m, s.len);
    assert_int_equal(matcher_find(m, s, 0, &start, &end, &budget), MATCHER_NO);
    /* Each match is found only after the whole rest was looked through. */
    assert_int_equal(matcher_new(STR("a(.*b)?"), &arena, &m, NULL), 0);
    budget = matcher_budget(m, s.len);
    enum matcher_answer answer = MATCHER_YES;
    size_t n = 0;
    for (size_t from = 0; answer == MATCHER_YES; from = end, n++)
        answer = matcher_find(m, s, from, &start, &end, &budget);
    assert_int_equal(answer, MATCHER_TIRED);
    assert_true(n > 5 && n < 100);
    arena_done(&arena);
}

/* ---- the C library as judge ---- */

static void it_agrees_with_the_c_library(void **state)
{
    unsigned seed = 4711, compared = 0;
    for (int round = 0; round < 3000; round++) {
        char expression[1024], text[16];
        size_t n = 0;
        struct arena arena = ARENA_INIT;
        struct matcher *m;
        regex_t posix;
        draw_expression(&seed, expression, &n, 2);
        if (matcher_new(str_from(expression), &arena, &m, NULL) != 0) {
            arena_done(&arena);
            continue;
        }
        assert_int_equal(regcomp(&posix, expression, REG_EXTENDED), 0);
        for (int i = 0; i < 8; i++) {
            unsigned len = draw(&seed, 10);
            for (unsigned k = 0; k < len; k++)
                text[k] = "abc"[draw(&seed, 3)];
            text[len] = 0;
            regmatch_t want;
            size_t start = 0, end = 0;
            uint64_t budget = matcher_budget(m, len);
            bool there = regexec(&posix, text, 1, &want, 0) == 0;
            enum matcher_answer got = matcher_find(m, str_from(text), 0, &start, &end, &budget);
            if ((got == MATCHER_YES) != there ||
                (there && ((size_t)want.rm_so != start || (size_t)want.rm_eo != end)))
                fail_msg("%s in \"%s\": %d [%zu,%zu) is not %d [%d,%d)", expression, text, got,
                         start, end, there, (int)want.rm_so, (int)want.rm_eo);
            compared++;
        }
        regfree(&posix);
        arena_done(&arena);
    }
    assert_true(compared > 5000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_leftmost_and_of_those_the_longest_match_is_found),
        cmocka_unit_test(sets_and_escapes_are_as_everywhere),
        cmocka_unit_test(assertions_look_and_take_nothing),
        cmocka_unit_test(a_match_is_made_of_whole_characters),
        cmocka_unit_test(what_is_not_supported_is_refused),
        cmocka_unit_test(the_work_is_bounded_whatever_the_text),
        cmocka_unit_test(it_agrees_with_the_c_library),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
