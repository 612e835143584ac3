#include "base/test.h"

#include "probe/sql.h"

#include <stdlib.h>

static void becomes(const char *sql, const char *expected)
{
    char out[512];
    size_t n = sql_sanitize(str_from(sql), out, sizeof out, NULL);
    assert_str_eq(((struct str){out, n}), str_from(expected));
}

static void literals_become_question_marks(void **state)
{
    becomes("SELECT * FROM t WHERE a = 'x' AND b=12 AND c > -1.5e-3",
            "SELECT * FROM t WHERE a = ? AND b=? AND c > -?");
    becomes("select 'it''s', '', 0x1F, .5, 1_000, 7.", "select ?, ?, ?, ?, ?, ?");
    becomes("SELECT E'a\\'b', N'x', x'00ff', U&'d\\0061'", "SELECT ?, ?, ?, ?");
    becomes("SELECT $$it's$$, $tag$a $$ 'b' $tag$, 1", "SELECT ?, ?, ?");
    becomes("INSERT INTO t VALUES(1,'a'),(2,'b')", "INSERT INTO t VALUES(?,?),(?,?)");
    becomes("SELECT a[1], '\xc3\xa4', b::text", "SELECT a[?], ?, b::text");
}

static void names_and_parameters_stay(void **state)
{
    becomes("SELECT \"a'b\", `c 1`, t1.c2, h\xc3\xb6he FROM s3.t4",
            "SELECT \"a'b\", `c 1`, t1.c2, h\xc3\xb6he FROM s3.t4");
    becomes("SELECT $1, ?2, :name, @v, ?, $n", "SELECT $1, ?2, :name, @v, ?, $n");
    becomes("SELECT TRUE, NULL", "SELECT TRUE, NULL");
}

static void comments_and_spaces_go(void **state)
{
    becomes("  SELECT\n\t1 -- secret 'x'\n , /* a /* nested */ b */ c ", "SELECT ? , c");
    becomes("SELECT 1--", "SELECT ?");
    becomes("a - b / c", "a - b / c");
}

static void what_does_not_end_is_a_literal_to_the_end(void **state)
{
    becomes("SELECT 'abc", "SELECT ?");
    becomes("SELECT 'abc''", "SELECT ?");
    becomes("SELECT E'abc\\", "SELECT ?");
    becomes("SELECT $a$ x", "SELECT ?");
    becomes("SELECT /* x", "SELECT");
    becomes("SELECT \"x", "SELECT \"x");
    becomes("", "");
    becomes("$", "$");
}

static void it_is_cut_between_two_tokens(void **state)
{
    char out[12];
    for (size_t size = 0; size <= sizeof out; size++) {
        size_t n = sql_sanitize(STR("SELECT \xc3\xa4\xc3\xb6 FROM t"), out, size, NULL);
        assert_true(n <= size);
        assert_true(str_is_utf8((struct str){out, n}));
    }
    assert_int_equal(sql_sanitize(STR("SELECT abcdefgh"), out, sizeof out, NULL), 6);
}

static void summary(const char *sql, const char *operation, const char *collection, bool one)
{
    struct sql_summary s;
    sql_sanitize(str_from(sql), NULL, 0, &s);
    assert_string_equal(s.operation, operation);
    assert_string_equal(s.collection, collection);
    assert_int_equal(s.one_collection, one);
}

static void the_summary_names_operation_and_table(void **state)
{
    summary("select * from Users where id=1", "SELECT", "Users", true);
    summary("INSERT OR REPLACE INTO log(a) VALUES(1)", "INSERT", "log", true);
    summary("UPDATE ONLY public.t SET a=1", "UPDATE", "public.t", true);
    summary("UPDATE OR IGNORE t SET a=1", "UPDATE", "", false);
    summary("DELETE FROM \"My Table\" WHERE x", "DELETE", "\"My Table\"", true);
    summary("CREATE TABLE IF NOT EXISTS t(a)", "CREATE", "t", true);
    summary("SELECT a FROM t JOIN u USING(id)", "SELECT", "t", false);
    summary("SELECT a FROM (SELECT b FROM t)", "SELECT", "t", true);
    summary("/* c */ BEGIN", "BEGIN", "", false);
    summary("SELECT 1", "SELECT", "", false);
    summary("SELECT x FROM t FOR UPDATE", "SELECT", "t", true);
    summary("  ", "", "", false);
    summary("SELECT * FROM averyveryveryveryveryveryveryveryveryveryveryverylongnameofatable",
            "SELECT", "averyveryveryveryveryveryveryveryveryveryveryverylongnameofatab", true);
}

static void a_comment_is_noticed_but_not_in_a_string(void **state)
{
    struct sql_summary s;
    sql_sanitize(STR("SELECT '--', '/*'"), NULL, 0, &s);
    assert_false(s.has_comment);
    sql_sanitize(STR("SELECT 1 /* x */"), NULL, 0, &s);
    assert_true(s.has_comment);
}

static void messages_lose_what_is_quoted(void **state)
{
    char out[128];
    size_t n = sql_sanitize_message(STR("invalid input for \"int\": \"secret\" isn't 'x'"), out,
                                    sizeof out);
    assert_str_eq(((struct str){out, n}), STR("invalid input for ?: ? isn't ?"));
    n = sql_sanitize_message(STR("UNIQUE constraint failed: t.a"), out, sizeof out);
    assert_str_eq(((struct str){out, n}), STR("UNIQUE constraint failed: t.a"));
    n = sql_sanitize_message(STR("abc\xc3\xa4"), out, 4);
    assert_str_eq(((struct str){out, n}), STR("abc"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(literals_become_question_marks),
        cmocka_unit_test(names_and_parameters_stay),
        cmocka_unit_test(comments_and_spaces_go),
        cmocka_unit_test(what_does_not_end_is_a_literal_to_the_end),
        cmocka_unit_test(it_is_cut_between_two_tokens),
        cmocka_unit_test(the_summary_names_operation_and_table),
        cmocka_unit_test(a_comment_is_noticed_but_not_in_a_string),
        cmocka_unit_test(messages_lose_what_is_quoted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
