#include "base/test.h"
#include "web/cursor.h"

static const struct cursor some = {
    .start_min_ns = 1,
    .start_max_ns = UINT64_MAX,
    .place = {UINT64_C(1767323045000000001), {{1, 2, 3, 255}}},
};

static void a_cursor_comes_back_as_it_was(void **state)
{
    char text[CURSOR_TEXT_LEN];
    struct cursor back;
    cursor_put(text, &some, 7);
    assert_true(cursor_get(&back, (struct str){text, sizeof text}, 7));
    assert_int_equal(back.start_min_ns, some.start_min_ns);
    assert_int_equal(back.start_max_ns, some.start_max_ns);
    assert_int_equal(back.place.start_ns, some.place.start_ns);
    assert_memory_equal(&back.place.id, &some.place.id, sizeof back.place.id);
}

static void what_is_no_cursor_of_the_question_is_refused(void **state)
{
    char text[CURSOR_TEXT_LEN];
    struct cursor back;
    cursor_put(text, &some, 7);
    assert_false(cursor_get(&back, (struct str){text, sizeof text}, 8));
    for (size_t n = 0; n < sizeof text; n++)
        assert_false(cursor_get(&back, (struct str){text, n}, 7));
    for (size_t i = 0; i < sizeof text; i++) {
        char was = text[i];
        text[i] = was == '0' ? '1' : '0';
        assert_false(cursor_get(&back, (struct str){text, sizeof text}, 7));
        text[i] = 'x';
        assert_false(cursor_get(&back, (struct str){text, sizeof text}, 7));
        text[i] = was;
    }
    assert_true(cursor_get(&back, (struct str){text, sizeof text}, 7));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_cursor_comes_back_as_it_was),
        cmocka_unit_test(what_is_no_cursor_of_the_question_is_refused),
    };
    return cmocka_run_group_tests_name("cursor", tests, NULL, NULL);
}
