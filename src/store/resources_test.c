/* store_resources against a plain count over the spans that were appended. */
#include "store/fixture.h"

#include <stdlib.h>

#include "base/clock.h"

static void check(struct fixture *f, const struct store_resources *which)
{
    struct arena arena = ARENA_INIT;
    struct store_view *view = store_view_new(f->store);
    struct store_resource *got, *want = calloc(f->n + 1, sizeof *want);
    size_t n, n_want = 0;
    bool is_cut = true;
    for (size_t i = 0; i < f->n; i++) {
        const struct span *s = &f->spans[i];
        uint64_t fingerprint = resource_fingerprint(s->resource);
        size_t k = 0;
        if (s->start_ns < which->start_min_ns ||
            (which->start_max_ns && s->start_ns > which->start_max_ns) ||
            (which->service.len && !str_eq(s->resource->service_name, which->service)))
            continue;
        while (k < n_want && want[k].fingerprint != fingerprint)
            k++;
        if (k == n_want)
            want[n_want++] = (struct store_resource){fingerprint, s->resource, 0, UINT64_MAX, 0};
        struct store_resource *r = &want[k];
        r->span_count++;
        r->start_first_ns = s->start_ns < r->start_first_ns ? s->start_ns : r->start_first_ns;
        r->start_last_ns = s->start_ns > r->start_last_ns ? s->start_ns : r->start_last_ns;
    }
    assert_int_equal(store_resources(view, which, &arena, &got, &n, &is_cut), 0);
    store_view_free(view); /* what was returned does not need it */
    assert_false(is_cut);
    assert_int_equal(n, n_want);
    for (size_t i = 0; i < n; i++) {
        size_t k = 0;
        while (k < n_want && want[k].fingerprint != got[i].fingerprint)
            k++;
        assert_int_not_equal(k, n_want);
        assert_int_equal(resource_fingerprint(got[i].resource), want[k].fingerprint);
        assert_str_eq(got[i].resource->service_name, want[k].resource->service_name);
        assert_int_equal(got[i].span_count, want[k].span_count);
        assert_int_equal(got[i].start_first_ns, want[k].start_first_ns);
        assert_int_equal(got[i].start_last_ns, want[k].start_last_ns);
        if (i)
            assert_true(got[i - 1].start_last_ns > got[i].start_last_ns ||
                        (got[i - 1].start_last_ns == got[i].start_last_ns &&
                         got[i - 1].fingerprint < got[i].fingerprint));
    }
    arena_done(&arena);
    free(want);
}

static void check_ranges(struct fixture *f)
{
    check(f, &(struct store_resources){.timeout_ns = 0});
    for (int i = 0; i < 8; i++) {
        const struct span *s = &f->spans[fixture_random(f, f->n)];
        uint64_t a = s->start_ns, b = f->spans[fixture_random(f, f->n)].start_ns;
        check(f, &(struct store_resources){
                     .start_min_ns = a < b ? a : b,
                     .start_max_ns = a < b ? b : a,
                     .service = i % 2 ? s->resource->service_name : STR(""),
                 });
    }
}

static void resources_are_counted_in_memory_and_when_sealed_and_across(void **state)
{
    struct fixture f;
    fixture_init(&f, clock_realtime_ns(), NULL);
    for (int part = 0; part < 3; part++) {
        for (int i = 0; i < 4; i++) {
            struct span_batch batch = fixture_batch(&f, 1 + fixture_random(&f, 60));
            fixture_append(&f, &batch);
        }
        check_ranges(&f);
        if (part < 2)
            assert_int_equal(store_seal(f.store), 0);
        check_ranges(&f);
    }
    assert_int_equal(store_keep(f.store, true), 0);
    fixture_reopen(&f);
    check_ranges(&f);
    fixture_done(&f);
}

/* Two orders of the same attributes, in memory and sealed. */
static void the_order_of_attributes_makes_no_difference(void **state)
{
    struct fixture f;
    struct attr attrs[] = {{STR("service.name"), {.type = VALUE_STRING, .string = STR("a")}},
                           {STR("host.name"), {.type = VALUE_STRING, .string = STR("h")}}};
    struct attr turned[] = {attrs[1], attrs[0]};
    const struct resource resources[] = {{.attrs = {attrs, 2, 0}, .service_name = STR("a")},
                                         {.attrs = {turned, 2, 0}, .service_name = STR("a")}};
    fixture_init(&f, 5, NULL);
    for (int i = 0; i < 2; i++) {
        struct span_batch batch = fixture_batch(&f, 3);
        for (size_t k = 0; k < 3; k++)
            batch.spans[k].resource = &resources[i];
        fixture_append(&f, &batch);
        if (!i)
            assert_int_equal(store_seal(f.store), 0);
    }
    struct arena arena = ARENA_INIT;
    struct store_view *view = store_view_new(f.store);
    struct store_resource *got;
    size_t n;
    bool is_cut;
    assert_int_equal(store_resources(view, &(struct store_resources){.timeout_ns = 0}, &arena, &got,
                                     &n, &is_cut),
                     0);
    assert_int_equal(n, 1);
    assert_int_equal(got[0].span_count, 6);
    store_view_free(view);
    arena_done(&arena);
    fixture_done(&f);
}

static void counting_resources_ends_when_its_time_is_over(void **state)
{
    struct fixture f;
    fixture_init(&f, 8, NULL);
    struct span_batch batch = fixture_batch(&f, 200);
    fixture_append(&f, &batch);
    for (int sealed = 0; sealed < 2; sealed++) {
        struct arena arena = ARENA_INIT;
        struct store_view *view = store_view_new(f.store);
        struct store_resource *got;
        size_t n;
        bool is_cut;
        assert_int_equal(store_resources(view, &(struct store_resources){.timeout_ns = 1}, &arena,
                                         &got, &n, &is_cut),
                         ERR_TIMEOUT);
        store_view_free(view);
        arena_done(&arena);
        assert_int_equal(store_seal(f.store), 0);
    }
    fixture_done(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(resources_are_counted_in_memory_and_when_sealed_and_across),
        cmocka_unit_test(the_order_of_attributes_makes_no_difference),
        cmocka_unit_test(counting_resources_ends_when_its_time_is_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
