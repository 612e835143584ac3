#include "store/fixture.h"

#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"

static void what_was_appended_is_read_back_exactly(void **state)
{
    struct fixture f;
    fixture_init(&f, clock_realtime_ns(), NULL);
    for (int i = 0; i < 20; i++) {
        struct span_batch batch = fixture_batch(&f, 1 + fixture_random(&f, 60));
        fixture_append(&f, &batch);
    }
    fixture_check(&f);
    fixture_check_scans(&f, 150);
    fixture_reopen(&f);
    fixture_check(&f);
    fixture_check_scans(&f, 150);
    for (int i = 0; i < 5; i++) {
        struct span_batch batch = fixture_batch(&f, 1 + fixture_random(&f, 60));
        fixture_append(&f, &batch);
    }
    fixture_check(&f);
    fixture_check_scans(&f, 50);
    fixture_done(&f);
}

static void a_sealed_store_answers_the_same(void **state)
{
    struct fixture f;
    fixture_init(&f, clock_realtime_ns(), NULL);
    for (int part = 0; part < 4; part++) {
        for (int i = 0; i < 10; i++) {
            struct span_batch batch = fixture_batch(&f, 1 + fixture_random(&f, 60));
            fixture_append(&f, &batch);
        }
        if (part == 3)
            break; /* the last stays in the memtable */
        assert_int_equal(store_seal(f.store), 0);
        fixture_check(&f);
        fixture_check_scans(&f, 100);
    }
    fixture_check(&f);
    fixture_check_scans(&f, 100);
    struct store_stats stats;
    store_stats(f.store, &stats);
    assert_int_equal(stats.segments, 3);
    fixture_reopen(&f); /* seals the rest */
    store_stats(f.store, &stats);
    assert_int_equal(stats.segments, 4);
    assert_int_equal(stats.memtable_spans, 0);
    assert_int_equal(stats.log_bytes, 0);
    fixture_check(&f);
    fixture_check_scans(&f, 100);
    fixture_done(&f);
}

static void an_empty_store_answers(void **state)
{
    struct fixture f;
    fixture_init(&f, 1, NULL);
    fixture_check(&f);
    assert_int_equal(store_seal(f.store), 0);
    struct span_batch none = {0};
    fixture_append(&f, &none);
    fixture_check(&f);
    fixture_reopen(&f);
    fixture_check(&f);
    fixture_done(&f);
}

static void a_second_opener_is_refused(void **state)
{
    struct fixture f;
    fixture_init(&f, 2, NULL);
    struct store *second = NULL;
    struct error_detail detail;
    assert_int_equal(store_open(&f.options, &second, &detail), ERR_BUSY);
    assert_null(second);
    assert_non_null(strstr(detail.message, f.dir));
    fixture_done(&f);
}

static void a_view_does_not_change(void **state)
{
    struct fixture f;
    fixture_init(&f, 3, NULL);
    struct span_batch batch = fixture_batch(&f, 40);
    fixture_append(&f, &batch);
    struct store_view *view = store_view_new(f.store);
    struct arena arena = ARENA_INIT;
    struct span_batch before, after;
    assert_int_equal(store_trace(view, &batch.spans[0].trace_id, &arena, &before), 0);
    fixture_append(&f, &batch);
    assert_int_equal(store_trace(view, &batch.spans[0].trace_id, &arena, &after), 0);
    assert_int_equal(before.n, after.n);
    store_view_free(view);
    view = store_view_new(f.store);
    assert_int_equal(store_trace(view, &batch.spans[0].trace_id, &arena, &after), 0);
    assert_int_equal(2 * before.n, after.n);
    store_view_free(view);
    arena_done(&arena);
    fixture_done(&f);
}

static void count_watched(void *arg, const struct span_batch *batch)
{
    *(size_t *)arg += batch->n;
}

static void the_watcher_sees_each_batch_before_its_answer(void **state)
{
    struct fixture f;
    size_t watched = 0;
    fixture_init(&f, 4, NULL);
    store_watch(f.store, count_watched, &watched);
    struct span_batch batch = fixture_batch(&f, 7);
    fixture_append(&f, &batch);
    assert_int_equal(watched, 7);
    store_watch(f.store, NULL, NULL);
    fixture_append(&f, &batch);
    assert_int_equal(watched, 7);
    fixture_done(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_appended_is_read_back_exactly),
        cmocka_unit_test(a_sealed_store_answers_the_same),
        cmocka_unit_test(an_empty_store_answers),
        cmocka_unit_test(a_second_opener_is_refused),
        cmocka_unit_test(a_view_does_not_change),
        cmocka_unit_test(the_watcher_sees_each_batch_before_its_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
