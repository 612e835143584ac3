/* store_calls against a plain count over the spans that were appended. */
#include "store/fixture.h"

#include <stdlib.h>

#include "base/clock.h"

enum { TRACES = 12 };

/* Spans of a few traces, with ids of their own; the parent of most is a span of the trace, of this batch or an
 * earlier one. */
static void append_spans(struct fixture *f, size_t n)
{
    struct span_batch batch = fixture_batch(f, n);
    for (size_t i = 0; i < n; i++) {
        struct span *s = &batch.spans[i];
        uint64_t id = f->n + i + 1, parent = 0;
        s->trace_id = (struct trace_id){{0xaa, (uint8_t)fixture_random(f, TRACES)}};
        for (int tries = 0; tries < 20 && !parent && f->n + i; tries++) {
            uint64_t k = fixture_random(f, f->n + i);
            const struct span *p = k < f->n ? &f->spans[k] : &batch.spans[k - f->n];
            parent = trace_id_cmp(&p->trace_id, &s->trace_id) ? 0 : k + 1;
        }
        if (!fixture_random(f, 10))
            parent = UINT64_MAX; /* never came */
        memcpy(s->span_id.bytes, &id, SPAN_ID_SIZE);
        memcpy(s->parent_id.bytes, &parent, SPAN_ID_SIZE);
    }
    fixture_append(f, &batch);
}

struct count {
    struct str caller, callee;
    uint64_t count, errors;
};

static size_t count_plainly(const struct fixture *f, uint64_t start_min, uint64_t start_max,
                            struct count *counts)
{
    size_t n = 0;
    for (size_t i = 0; i < f->n; i++) {
        const struct span *s = &f->spans[i];
        uint64_t parent;
        memcpy(&parent, s->parent_id.bytes, sizeof parent);
        if (!parent || parent > f->n || s->start_ns < start_min || s->start_ns > start_max)
            continue;
        struct str caller = f->spans[parent - 1].resource->service_name;
        struct str callee = s->resource->service_name;
        size_t k = 0;
        if (str_eq(caller, callee))
            continue;
        while (k < n && !(str_eq(counts[k].caller, caller) && str_eq(counts[k].callee, callee)))
            k++;
        if (k == n)
            counts[n++] = (struct count){caller, callee, 0, 0};
        counts[k].count++;
        counts[k].errors += s->status_code == STATUS_ERROR;
    }
    return n;
}

static void check(struct fixture *f, uint64_t start_min, uint64_t start_max)
{
    struct count *counts = calloc(f->n + 1, sizeof *counts);
    size_t n_counts = count_plainly(f, start_min, start_max ? start_max : UINT64_MAX, counts);
    struct arena arena = ARENA_INIT;
    struct store_view *view = store_view_new(f->store);
    struct store_call *calls;
    size_t n;
    bool is_cut = true;
    assert_int_equal(store_calls(view, start_min, start_max, 0, &arena, &calls, &n, &is_cut), 0);
    assert_false(is_cut);
    assert_int_equal(n, n_counts);
    for (size_t i = 0; i < n; i++) {
        size_t k = 0;
        while (k < n_counts && !(str_eq(counts[k].caller, calls[i].caller) &&
                                 str_eq(counts[k].callee, calls[i].callee)))
            k++;
        if (k == n_counts)
            fail_msg("%.*s does not call %.*s", STR_ARG(calls[i].caller), STR_ARG(calls[i].callee));
        assert_int_equal(calls[i].count, counts[k].count);
        assert_int_equal(calls[i].errors, counts[k].errors);
        if (i) {
            int order = str_cmp(calls[i - 1].caller, calls[i].caller);
            assert_true(order < 0 || (!order && str_cmp(calls[i - 1].callee, calls[i].callee) < 0));
        }
    }
    store_view_free(view);
    arena_done(&arena);
    free(counts);
}

static void check_ranges(struct fixture *f)
{
    check(f, 0, 0);
    for (int i = 0; i < 10; i++) {
        uint64_t a = f->spans[fixture_random(f, f->n)].start_ns;
        uint64_t b = f->spans[fixture_random(f, f->n)].start_ns;
        check(f, a < b ? a : b, a < b ? b : a);
    }
}

static void calls_are_counted_in_memory_and_when_sealed_and_across(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f, clock_realtime_ns(), NULL);
    for (int part = 0; part < 4; part++) {
        for (int i = 0; i < 5; i++)
            append_spans(&f, 1 + fixture_random(&f, 80));
        check_ranges(&f);
        if (part < 3)
            assert_int_equal(store_seal(f.store), 0);
        check_ranges(&f);
    }
    assert_int_equal(store_keep(f.store, true), 0); /* one segment of all */
    check_ranges(&f);
    fixture_reopen(&f);
    check_ranges(&f);
    fixture_done(&f);
}

static void a_large_trace_has_its_parents_in_other_groups(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f, 7, NULL);
    for (int i = 0; i < 8; i++)
        append_spans(&f, 5000);
    check(&f, 0, 0);
    assert_int_equal(store_seal(f.store), 0);
    check(&f, 0, 0);
    check_ranges(&f);
    fixture_done(&f);
}

static void counting_ends_when_its_time_is_over(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f, 8, NULL);
    append_spans(&f, 2000);
    for (int sealed = 0; sealed < 2; sealed++) {
        struct arena arena = ARENA_INIT;
        struct store_view *view = store_view_new(f.store);
        struct store_call *calls;
        size_t n;
        assert_int_equal(store_calls(view, 0, 0, 1, &arena, &calls, &n, NULL), ERR_TIMEOUT);
        store_view_free(view);
        arena_done(&arena);
        assert_int_equal(store_seal(f.store), 0);
    }
    fixture_done(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_are_counted_in_memory_and_when_sealed_and_across),
        cmocka_unit_test(a_large_trace_has_its_parents_in_other_groups),
        cmocka_unit_test(counting_ends_when_its_time_is_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
