/* Watched lanes, on the running library: what each scope's begin and end see, and what it leaves in the trace. */
#include "sdk/alloc.h"
#include "sdk/lanes_fixture.h"
#include "sdk/probes.h"

static __thread struct watch_counters mine;

static const struct watch_counters *here(void)
{
    return &mine;
}

static void allocate(uint64_t bytes)
{
    mine.alloc_count++;
    mine.alloc_bytes += bytes + ALLOC_BLOCK_EXTRA;
}

static void release(uint64_t bytes)
{
    mine.dealloc_count++;
    mine.dealloc_bytes += bytes + ALLOC_BLOCK_EXTRA;
}

static void expect(const char *name, int64_t count, int64_t bytes, int64_t freed,
                   int64_t freed_bytes)
{
    static const char *const keys[5] = {"alloc.count", "alloc.bytes", "dealloc.count",
                                        "dealloc.bytes", "alloc.net_bytes"};
    const int64_t wanted[5] = {count, bytes, freed, freed_bytes, bytes - freed_bytes};
    const struct span *s = lanes_find(name);
    for (int i = 0; i < 5; i++) {
        const struct value *v = lanes_attr(s, keys[i]);
        if (!v || v->integer != wanted[i])
            fail_msg("%s: %s is %lld, not %lld", name, keys[i], v ? (long long)v->integer : -1LL,
                     (long long)wanted[i]);
    }
}

static void start(unsigned reasons)
{
    mine = (struct watch_counters){0};
    watch_allocations_in(here);
    lanes_start(NULL, reasons);
}

static void a_scope_has_what_was_allocated_inside_it(void **state)
{
    start(WATCH_ALLOCATIONS);
    allocate(1000);
    {
        PUG_SPAN("outer", PUG_INT("n", 1));
        allocate(10);
        {
            PUG_SPAN("inner");
            allocate(100);
            allocate(1);
            release(50);
        }
        {
            PUG_SPAN("quiet");
        }
        release(10);
    }
    allocate(1000);
    lanes_stop();
    assert_int_equal(lanes.n, 3);
    expect("inner", 2, 101, 1, 50);
    expect("quiet", 0, 0, 0, 0);
    expect("outer", 3, 111, 2, 60);
    assert_int_equal(lanes_find("outer")->attrs.n, 6);
    lanes_forget();
}

static void an_end_in_the_long_form_has_its_counts_once(void **state)
{
    start(WATCH_ALLOCATIONS);
    {
        PUG_SPAN("first"); /* after it the lane's counters are known */
    }
    {
        PUG_SPAN("root");
        lane_of(pug__lane_1)->fast.seq += UINT64_C(1)
                                          << 33; /* too far from its root for the short one */
        PUG_SPAN("far");
        allocate(7);
    }
    lanes_stop();
    assert_int_equal(lanes.n, 3);
    expect("far", 1, 7, 0, 0);
    assert_int_equal(lanes_find("far")->attrs.n, 5);
    expect("root", 1, 7, 0, 0);
    assert_int_equal(lanes_find("root")->attrs.n, 5);
    lanes_forget();
}

static void more_freed_than_allocated_is_negative(void **state)
{
    start(WATCH_ALLOCATIONS);
    {
        PUG_SPAN("consumer");
        release(4096);
    }
    lanes_stop();
    expect("consumer", 0, 0, 1, 4096);
    lanes_forget();
}

static void without_a_reason_nothing_is_added(void **state)
{
    start(0);
    {
        PUG_SPAN("plain");
        allocate(1);
        PUG_SPAN("inner", PUG_INT("n", 1));
    }
    lanes_stop();
    assert_int_equal(lanes_find("plain")->attrs.n, 0);
    assert_int_equal(lanes_find("inner")->attrs.n, 1);
    lanes_forget();
}

static void watching_that_begins_inside_a_scope_spares_it(void **state)
{
    start(0);
    {
        PUG_SPAN("before");
        allocate(5);
        watch_set(lanes.memory, WATCH_ALLOCATIONS);
        PUG_SPAN("below before");
    }
    {
        PUG_SPAN("after");
        allocate(7);
        watch_set(lanes.memory, 0);
    }
    lanes_stop();
    assert_int_equal(lanes_find("before")->attrs.n, 0);
    assert_int_equal(lanes_find("after")->attrs.n, 0);
    lanes_forget();
}

static void scopes_in_an_attached_context_are_watched(void **state)
{
    struct pug_context c;
    start(WATCH_ALLOCATIONS);
    assert_int_equal(
        pug_context_from_hex(&c, "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"), 0);
    {
        PUG_SPAN_FROM(&c, "server");
        allocate(3);
    }
    c.flags = 0;
    {
        PUG_SPAN_FROM(&c, "not sampled");
        PUG_SPAN("below");
    }
    lanes_stop();
    assert_int_equal(lanes.n, 1);
    expect("server", 1, 3, 0, 0);
    lanes_forget();
}

static void a_tracer_that_attaches_has_the_lanes_watched(void **state)
{
    start(0);
    watch_look(lanes.memory);
    assert_int_equal(watch_reasons(), 0);
    pug__probes_semaphore++; /* as the kernel does */
    watch_look(lanes.memory);
    assert_int_equal(watch_reasons(), WATCH_PROBES);
    {
        PUG_SPAN("probed", PUG_INT("n", 1));
        assert_true(pug__lane_1->top->state & PUG__STATE_WATCH);
        struct pug_context here = pug_context_current();
        PUG_SPAN_FROM(&here, "below");
    }
    pug__probes_semaphore--;
    watch_look(lanes.memory);
    assert_int_equal(watch_reasons(), 0);
    {
        PUG_SPAN("alone again");
        assert_false(pug__lane_1->top->state & PUG__STATE_WATCH);
    }
    lanes_stop();
    assert_int_equal(lanes.n, 3);
    lanes_forget();
}

static int evaluated;

static int64_t evaluate(int64_t value)
{
    evaluated++;
    return value;
}

static void with_an_argument(int n)
{
    PUG_FN(PUG_INT("n", evaluate(n)), PUG_STR("text", evaluate(1) ? "t" : ""),
           PUG_KIND(PUG_KIND_CLIENT));
}

static void without_one(void)
{
    PUG_FN();
    PUG_SPAN("always", PUG_INT("n", evaluate(1)));
}

static void the_arguments_of_a_function_are_evaluated_only_when_wanted(void **state)
{
    evaluated = 0;
    start(0);
    with_an_argument(1);
    assert_int_equal(evaluated, 0);
    without_one();
    assert_int_equal(evaluated, 1);
    pug__on_1 = PUG__ON_SPANS | PUG__ON_ARGS;
    with_an_argument(2);
    assert_int_equal(evaluated, 3);
    lanes_stop();
    assert_int_equal(lanes.n, 4);
    assert_str_eq(lanes.seen[0].name, STR("with_an_argument"));
    assert_int_equal(lanes.seen[0].attrs.n, 0);
    assert_int_equal(lanes_find("always")->attrs.n, 1);
    assert_int_equal(lanes.seen[3].attrs.n, 2);
    lanes_forget();
    /* The same where begin and end go through the library. */
    evaluated = 0;
    start(WATCH_ALLOCATIONS);
    with_an_argument(1);
    assert_int_equal(evaluated, 0);
    pug__on_1 = PUG__ON_SPANS | PUG__ON_ARGS;
    with_an_argument(1);
    assert_int_equal(evaluated, 2);
    lanes_stop();
    assert_int_equal(lanes.seen[0].attrs.n, 5);
    assert_int_equal(lanes.seen[1].attrs.n, 7);
    lanes_forget();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_scope_has_what_was_allocated_inside_it),
        cmocka_unit_test(an_end_in_the_long_form_has_its_counts_once),
        cmocka_unit_test(more_freed_than_allocated_is_negative),
        cmocka_unit_test(without_a_reason_nothing_is_added),
        cmocka_unit_test(watching_that_begins_inside_a_scope_spares_it),
        cmocka_unit_test(scopes_in_an_attached_context_are_watched),
        cmocka_unit_test(a_tracer_that_attaches_has_the_lanes_watched),
        cmocka_unit_test(the_arguments_of_a_function_are_evaluated_only_when_wanted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
