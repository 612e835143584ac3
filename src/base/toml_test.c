/* TOML 1.0, rule by rule. A document is shown as one line: {key=value ...}, strings in quotes. */
#include "base/buf.h"
#include "base/test.h"
#include "base/toml.h"

#include <stdio.h>

static void put_table(struct buf *out, const struct toml_table *t);

static void put_value(struct buf *out, const struct toml_value *v)
{
    switch (v->type) {
    case TOML_STRING:
        buf_printf(out, "\"%.*s\"", STR_ARG(v->text));
        break;
    case TOML_INTEGER:
        buf_printf(out, "%lld", (long long)v->integer);
        break;
    case TOML_FLOAT:
        buf_printf(out, "f%g", v->real);
        break;
    case TOML_BOOL:
        buf_cstr(out, v->boolean ? "true" : "false");
        break;
    case TOML_DATETIME:
        buf_printf(out, "<%.*s>", STR_ARG(v->text));
        break;
    case TOML_ARRAY:
        buf_byte(out, '[');
        for (size_t i = 0; i < v->array.n; i++) {
            buf_cstr(out, i ? " " : "");
            put_value(out, &v->array.items[i]);
        }
        buf_byte(out, ']');
        break;
    case TOML_TABLE:
        put_table(out, v->table);
        break;
    }
}

static void put_table(struct buf *out, const struct toml_table *t)
{
    buf_byte(out, '{');
    for (const struct toml_entry *e = t->first; e; e = e->next) {
        buf_printf(out, "%s%.*s=", e == t->first ? "" : " ", STR_ARG(e->key));
        put_value(out, &e->value);
    }
    buf_byte(out, '}');
}

static void check(const char *text, const char *expected)
{
    struct arena arena = ARENA_INIT;
    struct buf out = BUF_INIT;
    struct toml_table *t;
    struct error_detail detail = {0};
    if (toml_parse(str_from(text), &arena, &t, &detail, NULL) != 0)
        fail_msg("%s: %s", text, detail.message);
    put_table(&out, t);
    assert_str_eq(buf_as_str(&out), str_from(expected));
    buf_done(&out);
    arena_done(&arena);
}

static void refused(const char *text, uint32_t line, uint32_t column, const char *words)
{
    struct arena arena = ARENA_INIT;
    struct toml_table *t;
    struct error_detail detail = {0};
    struct toml_place place = {0};
    if (toml_parse(str_from(text), &arena, &t, &detail, &place) == 0)
        fail_msg("\"%s\" was taken", text);
    if (!strstr(detail.message, words))
        fail_msg("\"%s\": \"%s\" does not say \"%s\"", text, detail.message, words);
    if (place.line != line || place.column != column)
        fail_msg("\"%s\": %u:%u is not %u:%u", text, place.line, place.column, line, column);
    arena_done(&arena);
}

static void keys_are_bare_quoted_or_dotted(void **state)
{
    check("", "{}");
    check("# nothing\n\n \t\r\n", "{}");
    check("a = 1\nB-c_9 = 2\n1234 = 3", "{a=1 B-c_9=2 1234=3}");
    check("\"a b\" = 1\n'x\\y' = 2\n\"\" = 3", "{a b=1 x\\y=2 =3}");
    check("\"\\u00e9\" = 1", "{\xc3\xa9=1}");
    check("a.b.c = 1\na . b .d = 2\n\"a\".'b'.e = 3", "{a={b={c=1 d=2 e=3}}}");
    check("3.14 = 1", "{3={14=1}}");
    refused("= 1", 1, 1, "expected a key");
    refused("a b = 1", 1, 3, "expected \"=\"");
    refused("a..b = 1", 1, 3, "expected a key");
    refused("a =\nb = 1", 1, 4, "expected a value after \"=\"");
    refused("a = 1 b = 2", 1, 7, "expected the end of the line");
    refused("\"\"\"a\"\"\" = 1", 1, 1, "a key cannot be a string of several lines");
    refused("\xc3\xa9 = 1", 1, 1, "expected a key");
}

static void a_key_stands_once(void **state)
{
    refused("a = 1\nb = 2\na = 3", 3, 1, "\"a\" is defined already, in line 1");
    refused("a = 1\n\"a\" = 3", 2, 1, "defined already");
    refused("a = 1\na.b = 2", 2, 1, "\"a\" is defined already, in line 1");
    refused("a.b = 1\na = 2", 2, 1, "defined already");
    refused("[a]\n[b]\n[a]", 3, 2, "\"a\" is defined already, in line 1");
    refused("[a]\nb = 1\n[a.b]", 3, 4, "\"b\" is defined already, in line 2");
    refused("[a.b]\nx = 1\n[a]\nb.y = 2", 4, 1, "defined already");
    refused("[f]\napple.colour = 1\n[f.apple]", 3, 4, "defined already");
    refused("a = {}\na.b = 1", 2, 1, "defined already");
    refused("a = {b = {}}\n[a.c]", 2, 2, "defined already");
    refused("a = []\n[[a]]", 2, 3, "defined already");
    refused("[[a]]\n[a]", 2, 2, "defined already");
    refused("[a]\n[[a]]", 2, 3, "defined already");
    refused("a = [{b = 1}]\n[a.c]", 2, 2, "defined already");
}

static void tables_have_headers(void **state)
{
    check("[a]\nx = 1\n[b . 'c d']\ny = 2", "{a={x=1} b={c d={y=2}}}");
    check("[a.b.c]\nx = 1\n[a]\ny = 2", "{a={b={c={x=1}} y=2}}");
    check("[f]\napple.colour = 1\n[f.apple.texture]\nsmooth = true",
          "{f={apple={colour=1 texture={smooth=true}}}}");
    check("[a]", "{a={}}");
    check("[[p]]\nn = 1\n[[p]]\n[[p]]\nn = 3\n[p.q]\nr = 4", "{p=[{n=1} {} {n=3 q={r=4}}]}");
    check("[[a]]\n[[a.b]]\nx = 1\n[[a.b]]\nx = 2\n[[a]]\n[[a.b]]",
          "{a=[{b=[{x=1} {x=2}]} {b=[{}]}]}");
    refused("[]", 1, 2, "expected a key");
    refused("[a", 1, 3, "expected \"]\"");
    refused("[[a]", 1, 4, "expected \"]]\"");
    refused("[a] x = 1", 1, 5, "expected the end of the line");
    refused("[a.]", 1, 4, "expected a key");
}

static void strings_have_four_forms(void **state)
{
    check("a = \"x\\ty\\n\\\"\\\\ \\u00E9 \\U0001F600\"",
          "{a=\"x\ty\n\"\\ \xc3\xa9 \xf0\x9f\x98\x80\"}");
    check("a = 'C:\\new'", "{a=\"C:\\new\"}");
    check("a = \"\"\"\nRoses\nViolets\"\"\"", "{a=\"Roses\nViolets\"}");
    check("a = \"\"\"\nThe \\\n\n   fox \\\n jumps\\\n   \"\"\"", "{a=\"The fox jumps\"}");
    check("a = \"\"\"\"one\"\"\"\"", "{a=\"\"one\"\"}");
    check("a = \"\"\"x\"\"\"\"\"", "{a=\"x\"\"\"}");
    check("a = '''\n\\d '' '''", "{a=\"\\d '' \"}");
    check("a = ''", "{a=\"\"}");
    check("a = '''a\r\nb'''", "{a=\"a\r\nb\"}");
    refused("a = \"x", 1, 7, "does not end in its line");
    refused("a = 'x\n'", 1, 7, "does not end in its line");
    refused("a = \"\"\"x\n\n", 3, 1, "expected three quotes");
    refused("a = \"\\x41\"", 1, 6, "this escape is not known");
    refused("a = \"\\uD800\"", 1, 6, "no Unicode character");
    refused("a = \"\\u12\"", 1, 6, "four hexadecimal digits");
    refused("a = \"\\U00110000\"", 1, 6, "no Unicode character");
    refused("a = \"\x01\"", 1, 6, "a control character in a string");
    refused("a = \"\x7f\"", 1, 6, "a control character in a string");
    refused("a = \"\"\"\"\"\"\"\"\"", 1, 13, "expected the end of the line");
    refused("a = 1 # \x08", 1, 9, "a control character in a comment");
    refused("a = 1\nb = \xff\n", 2, 1, "not UTF-8");
}

static void numbers_are_as_in_the_specification(void **state)
{
    check("a = +99\nb = 0\nc = -0\nd = 1_000\ne = 5_349_221", "{a=99 b=0 c=0 d=1000 e=5349221}");
    check("a = 0xDEAD_beef\nb = 0o755\nc = 0b1101", "{a=3735928559 b=493 c=13}");
    check("a = 9223372036854775807\nb = -9223372036854775808",
          "{a=9223372036854775807 b=-9223372036854775808}");
    check("a = +1.0\nb = -0.01\nc = 5e+22\nd = 1e06\ne = -2E-2\nf = 6.626e-34\ng = 224_617.445_991",
          "{a=f1 b=f-0.01 c=f5e+22 d=f1e+06 e=f-0.02 f=f6.626e-34 g=f224617}");
    check("a = inf\nb = -inf\nc = +inf", "{a=finf b=f-inf c=finf}");
    static const char *const bad[] = {"01",
                                      "1__0",
                                      "_1",
                                      "1_",
                                      "+0x1",
                                      "0x",
                                      "0xg",
                                      "0o8",
                                      "0b2",
                                      "0X1",
                                      ".7",
                                      "7.",
                                      "3.e2",
                                      "1e",
                                      "1._0",
                                      "--1",
                                      "+",
                                      "-",
                                      "1e5_",
                                      "00.1",
                                      "9223372036854775808",
                                      "-9223372036854775809",
                                      "0x8000000000000000",
                                      "infinity",
                                      "1.2.3"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char text[64];
        snprintf(text, sizeof text, "a = %s", bad[i]);
        refused(text, 1, 5, "");
    }
    refused("a = yes", 1, 5, "expected a value: a string in quotes");
    refused("a = True", 1, 5, "expected a value");
    refused("a = 12abc", 1, 5, "neither a number of 64 bits nor a date");
}

static void dates_and_times_are_checked(void **state)
{
    check("a = 1979-05-27T07:32:00Z\nb = 1979-05-27 00:32:00.999-07:00\nc = 1979-05-27t07:32:00",
          "{a=<1979-05-27T07:32:00Z> b=<1979-05-27 00:32:00.999-07:00> c=<1979-05-27t07:32:00>}");
    check("a = 2000-02-29 # a leap day\nb = 07:32:00.5", "{a=<2000-02-29> b=<07:32:00.5>}");
    static const char *const bad[] = {"1979-13-01",
                                      "1979-02-30",
                                      "1900-02-29",
                                      "1979-00-10",
                                      "24:00:00",
                                      "07:60:00",
                                      "07:32",
                                      "07:32:00.",
                                      "1979-05-27T07:32",
                                      "1979-05-27T",
                                      "1979-05-27X07:32:00",
                                      "1979-05-27T07:32:00+25:00",
                                      "79-05-27",
                                      "1979-5-27"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char text[64];
        snprintf(text, sizeof text, "a = %s", bad[i]);
        refused(text, 1, 5, "neither a number of 64 bits nor a date");
    }
}

static void arrays_may_have_lines_and_comments(void **state)
{
    check("a = [1, 'x', [true], {b = 2}]", "{a=[1 \"x\" [true] {b=2}]}");
    check("a = [ # first\n  1, # one\n\n  2, ]\nb = []", "{a=[1 2] b=[]}");
    refused("a = [1 2]", 1, 8, "expected \",\" or \"]\"");
    refused("a = [,]", 1, 6, "expected a value");
    refused("a = [1", 1, 7, "expected \",\" or \"]\"");
}

static void inline_tables_are_one_line_and_closed(void **state)
{
    check("a = {x = 1, y.z = 'b'}\nb = {}", "{a={x=1 y={z=\"b\"}} b={}}");
    refused("a = {x = 1,}", 1, 12, "expected a key");
    refused("a = {x = 1\n}", 1, 11, "it must be in one line");
    refused("a = {x = 1, x = 2}", 1, 13, "defined already");
    refused("a = {b = {}, b.c = 1}", 1, 14, "defined already");
}

static void every_key_and_value_knows_its_place(void **state)
{
    static const char text[] = "x = 1\n\n[a.b]\n  \"k\xc3\xa9y\" = [ 'z', 22 ] # end\n";
    struct arena arena = ARENA_INIT;
    struct toml_table *t;
    assert_int_equal(toml_parse(str_from(text), &arena, &t, NULL, NULL), 0);
    const struct toml_entry *a = toml_find(t, STR("a"));
    const struct toml_entry *b = toml_find(a->value.table, STR("b"));
    assert_int_equal(b->at.line, 3);
    assert_int_equal(b->at.column, 4);
    const struct toml_entry *k = toml_find(b->value.table, STR("k\xc3\xa9y"));
    assert_int_equal(k->at.line, 4);
    assert_int_equal(k->at.column, 3);
    assert_str_eq(((struct str){text + k->at.start, k->at.end - k->at.start}),
                  STR("\"k\xc3\xa9y\""));
    assert_int_equal(k->value.at.column, 11);
    assert_str_eq(((struct str){text + k->value.at.start, k->value.at.end - k->value.at.start}),
                  STR("[ 'z', 22 ]"));
    assert_int_equal(k->value.array.items[1].at.column, 18);
    assert_null(toml_find(t, STR("nothing")));
    arena_done(&arena);
}

static void what_is_too_much_is_refused(void **state)
{
    struct arena arena = ARENA_INIT;
    struct toml_table *t;
    struct buf text = BUF_INIT;
    for (int i = 0; i <= TOML_DEPTH_MAX; i++)
        buf_cstr(&text, i ? "[" : "a = ");
    for (int i = 0; i < TOML_DEPTH_MAX; i++)
        buf_cstr(&text, "]");
    assert_int_equal(toml_parse(buf_as_str(&text), &arena, &t, NULL, NULL), 0);
    buf_clear(&text);
    for (int i = 0; i <= TOML_DEPTH_MAX + 1; i++)
        buf_cstr(&text, i ? "[" : "a = ");
    assert_int_equal(toml_parse(buf_as_str(&text), &arena, &t, NULL, NULL), ERR_TOO_LARGE);
    buf_clear(&text);
    for (int i = 0; i <= TOML_DEPTH_MAX; i++)
        buf_cstr(&text, i ? ".a" : "a");
    assert_int_equal(toml_parse(buf_as_str(&text), &arena, &t, NULL, NULL), ERR_TOO_LARGE);
    buf_clear(&text);
    for (int i = 0; i <= TOML_KEYS_MAX; i++)
        buf_printf(&text, "k%d = 1\n", i);
    assert_int_equal(toml_parse(buf_as_str(&text), &arena, &t, NULL, NULL), ERR_TOO_LARGE);
    buf_clear(&text);
    buf_byte(&text, '#');
    while (text.len <= TOML_BYTES_MAX)
        buf_cstr(&text, "                                                                ");
    assert_int_equal(toml_parse(buf_as_str(&text), &arena, &t, NULL, NULL), ERR_TOO_LARGE);
    arena.bytes_max = 1;
    assert_int_equal(toml_parse(STR("a = 1"), &(struct arena){.bytes_max = 1}, &t, NULL, NULL),
                     ERR_NOMEM);
    arena.bytes_max = 0;
    assert_int_equal(toml_parse(STR_NONE, &arena, &t, NULL, NULL), 0);
    assert_int_equal(t->n, 0);
    buf_done(&text);
    arena_done(&arena);
}

static void decimal_numbers_do_not_know_the_locale(void **state)
{
    double d;
    assert_true(str_to_double(STR("-0.5e1"), &d) && d == -5);
    assert_true(str_to_double(STR("+12"), &d) && d == 12);
    static const char *const bad[] = {"",    ".",   "-",   "1e", "0x10",
                                      "inf", "nan", "1,5", " 1", "1e999"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (str_to_double(str_from(bad[i]), &d))
            fail_msg("\"%s\"", bad[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_are_bare_quoted_or_dotted),
        cmocka_unit_test(a_key_stands_once),
        cmocka_unit_test(tables_have_headers),
        cmocka_unit_test(strings_have_four_forms),
        cmocka_unit_test(numbers_are_as_in_the_specification),
        cmocka_unit_test(dates_and_times_are_checked),
        cmocka_unit_test(arrays_may_have_lines_and_comments),
        cmocka_unit_test(inline_tables_are_one_line_and_closed),
        cmocka_unit_test(every_key_and_value_knows_its_place),
        cmocka_unit_test(what_is_too_much_is_refused),
        cmocka_unit_test(decimal_numbers_do_not_know_the_locale),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
