/* Watched lanes, on the running library: what each scope's begin and end see, and what it leaves in the trace. */
#include "base/test.h"
#include "sdk/sdk.h"
#include "sdk/watch.h"

#include <pthread.h>
#include <stdio.h>
#include <time.h>

static __thread struct watch_counters mine;

static void read_mine(struct watch_counters *ret)
{
    *ret = mine;
}

static void allocate(uint64_t bytes)
{
    mine.alloc_count++;
    mine.alloc_bytes += bytes;
}

static void release(uint64_t bytes)
{
    mine.dealloc_count++;
    mine.dealloc_bytes += bytes;
}

/* What the exporter was given, by the name of the span. */
static struct seen {
    char name[32];
    int64_t counts[5];
    uint32_t n_attrs;
} seen[64];
static size_t n_seen;

static void take(struct exporter *e, const struct taken_batch *batch,
                 struct exporter_counts *counts, const struct pug_counts *totals)
{
    static const char *const keys[5] = {"alloc.count", "alloc.bytes", "dealloc.count",
                                        "dealloc.bytes", "alloc.net_bytes"};
    for (size_t i = 0; i < batch->spans.n && n_seen < 64; i++) {
        const struct span *s = &batch->spans.spans[i];
        struct seen *to = &seen[n_seen++];
        *to = (struct seen){.n_attrs = s->attrs.n};
        snprintf(to->name, sizeof to->name, "%.*s", STR_ARG(s->name));
        for (uint32_t k = 0; k < s->attrs.n; k++)
            for (int c = 0; c < 5; c++)
                if (str_eq(s->attrs.items[k].key, str_from(keys[c])))
                    to->counts[c] = s->attrs.items[k].value.integer;
    }
}

static const struct seen *find(const char *name)
{
    for (size_t i = 0; i < n_seen; i++)
        if (strcmp(seen[i].name, name) == 0)
            return &seen[i];
    fail_msg("no span %s among %zu", name, n_seen);
    return NULL;
}

static void expect(const char *name, int64_t count, int64_t bytes, int64_t freed,
                   int64_t freed_bytes)
{
    const struct seen *s = find(name);
    const int64_t wanted[5] = {count, bytes, freed, freed_bytes, bytes - freed_bytes};
    for (int i = 0; i < 5; i++)
        if (s->counts[i] != wanted[i])
            fail_msg("%s: number %d is %lld, not %lld", name, i, (long long)s->counts[i],
                     (long long)wanted[i]);
}

/* The library's own lanes, with the drain's steps made by hand. */
static struct fixture {
    struct memory *memory;
    struct config config;
    struct ticks ticks;
    struct assembler *assembler;
} f;

static void collect(void *user, const struct taken_batch *batch)
{
    take(NULL, batch, NULL, NULL);
}

static void left(void *lane)
{
    pug__lane_1 = NULL;
    lane_leave_thread(lane);
}

static void start(unsigned reasons)
{
    n_seen = 0;
    mine = (struct watch_counters){0};
    f.config.backend = PUG_BACKEND_LOCAL;
    assert_int_equal(memory_new(LANE_RING_BYTES_MIN, ticks_source(), sdk.parents, &f.memory), 0);
    assert_int_equal(memory_prepare(f.memory, 2), 0);
    assert_true(ticks_init(&f.ticks, f.memory->clock));
    assert_int_equal(assembler_new(f.memory, &f.config, &f.ticks, collect, NULL, &f.assembler), 0);
    nanosleep(&(struct timespec){.tv_nsec = 1500000}, NULL); /* the clocks need a distance */
    atomic_store(&sdk.memory, f.memory);
    atomic_store(&sdk.state, SDK_ON);
    watch_allocations_from(read_mine);
    watch_set(f.memory, reasons);
    pug__on_1 = PUG__ON_SPANS;
}

static void stop(void)
{
    pug__on_1 = 0;
    ticks_update(&f.ticks, &f.memory->head->clock);
    for (uint32_t i = 0; i < atomic_load(&f.memory->n_lanes); i++) {
        struct lane_reader *r = assembler_reader(f.assembler, i);
        r->head = __atomic_load_n(&r->lane->fast.head, __ATOMIC_ACQUIRE);
        assembler_lane(f.assembler, r);
    }
    assembler_flush(f.assembler);
    assembler_free(f.assembler);
    ticks_done(&f.ticks);
    watch_set(f.memory, 0);
    pug__lane_1 = NULL;
    pthread_setspecific(sdk.key, NULL);
    atomic_store(&sdk.state, SDK_OFF);
    atomic_store(&sdk.memory, NULL);
    /* The numbers of the sites stay in this program's statics. */
    if (sdk.parents)
        memory_free(sdk.parents);
    sdk.parents = f.memory;
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
    stop();
    assert_int_equal(n_seen, 3);
    expect("inner", 2, 101, 1, 50);
    expect("quiet", 0, 0, 0, 0);
    expect("outer", 3, 111, 2, 60);
    assert_int_equal(find("outer")->n_attrs, 6);
}

static void more_freed_than_allocated_is_negative(void **state)
{
    start(WATCH_ALLOCATIONS);
    {
        PUG_SPAN("consumer");
        release(4096);
    }
    stop();
    expect("consumer", 0, 0, 1, 4096);
}

static void without_a_reason_nothing_is_added(void **state)
{
    start(0);
    {
        PUG_SPAN("plain");
        allocate(1);
        PUG_SPAN("inner", PUG_INT("n", 1));
    }
    stop();
    assert_int_equal(find("plain")->n_attrs, 0);
    assert_int_equal(find("inner")->n_attrs, 1);
}

static void watching_that_begins_inside_a_scope_spares_it(void **state)
{
    start(0);
    {
        PUG_SPAN("before");
        allocate(5);
        watch_set(f.memory, WATCH_ALLOCATIONS);
        PUG_SPAN("below before");
    }
    {
        PUG_SPAN("after");
        allocate(7);
        watch_set(f.memory, 0);
    }
    stop();
    assert_int_equal(find("before")->n_attrs, 0);
    assert_int_equal(find("after")->n_attrs, 0);
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
    stop();
    assert_int_equal(n_seen, 1);
    expect("server", 1, 3, 0, 0);
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
    stop();
    assert_int_equal(n_seen, 4);
    assert_string_equal(seen[0].name, "with_an_argument");
    assert_int_equal(seen[0].n_attrs, 0);
    assert_int_equal(find("always")->n_attrs, 1);
    assert_int_equal(seen[3].n_attrs, 2);
    /* The same where begin and end go through the library. */
    evaluated = 0;
    start(WATCH_ALLOCATIONS);
    with_an_argument(1);
    assert_int_equal(evaluated, 0);
    pug__on_1 = PUG__ON_SPANS | PUG__ON_ARGS;
    with_an_argument(1);
    assert_int_equal(evaluated, 2);
    stop();
    assert_int_equal(seen[0].n_attrs, 5);
    assert_int_equal(seen[1].n_attrs, 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_scope_has_what_was_allocated_inside_it),
        cmocka_unit_test(more_freed_than_allocated_is_negative),
        cmocka_unit_test(without_a_reason_nothing_is_added),
        cmocka_unit_test(watching_that_begins_inside_a_scope_spares_it),
        cmocka_unit_test(scopes_in_an_attached_context_are_watched),
        cmocka_unit_test(the_arguments_of_a_function_are_evaluated_only_when_wanted),
    };
    if (pthread_key_create(&sdk.key, left) != 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
