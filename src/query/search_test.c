/* Searches of a real store against a list: what a search means is written down here a second time,
 * as slowly and plainly as possible. */
#include "base/test.h"

#include "base/clock.h"
#include "query/search.h"
#include "store/fixture.h"

#include <stdio.h>
#include <stdlib.h>

static struct traceql *parse(const char *text)
{
    struct traceql *q;
    struct error_detail detail = {0};
    int err = traceql_parse(str_from(text), &q, &detail);
    if (err)
        fail_msg("%s: at %zu: %s", text, detail.position, detail.message);
    return q;
}

/* Of the fixture's spans: names, attributes and services as it draws them. */
static const char *const queries[] = {
    "{}",
    "{ false }",
    "{ .key.1 = \"value 3\" }",
    "{ .key.1 != \"value 3\" }",
    "{ .key.1 =~ \"value .*\" }",
    "{ .key.1 !~ \"value .*\" }",
    "{ span.key.2 = 3 }",
    "{ span.key.2 != 3 }",
    "{ .key.2 > 3 }",
    "{ .key.2 <= 3.5 }",
    "{ .key.3 = true }",
    "{ .key.3 != true }",
    "{ .key.4 = nil }",
    "{ .key.4 != nil }",
    "{ resource.key.4 != nil }",
    "{ !(.key.5 = 1 || .key.6 = \"\") }",
    "{ resource.service.name = \"service 1\" }",
    "{ resource.service.name != \"service 1\" && kind = server }",
    "{ status = error }",
    "{ status != error || kind = client }",
    "{ duration > 1ms }",
    "{ duration > 1000.5 && duration < 1e6 }",
    "{ name =~ \".*1\" }",
    "{ name !~ \".*1\" }",
    "{ name > \"operation 3\" }",
    "{ statusMessage != \"\" }",
    "{ parent = nil }",
    "{ parent != nil && status = error }",
    /* Not exact: */
    "{ rootServiceName = \"service 2\" }",
    "{ rootName =~ \".*[13]\" && status = error }",
    "{ traceDuration > 10ms }",
    "{ !(traceDuration > 10ms) && duration > 1us }",
    "{ event:name != \"\" }",
    "{ instrumentation:name = \"scope 1\" }",
    "{ link:traceID != \"\" }",
    "{ .key.2 + 1 > 4 }",
    "{ .key.1 = .key.2 }",
    "{ status = error } && { kind = server }",
    "{ status = error } || { rootName = \"\" }",
    "{ .key.1 = \"value 3\" } && { .key.2 > 3 } || { parent = nil }",
    "({ .key.1 = \"value 3\" } || { .key.2 > 3 }) && { false }",
    "{ .key.1 = \"value 3\" } | { .key.2 > 3 }",
    "{ status = error } >> { kind = server }",
    "{ } > { status = error }",
    "{ status = error } !~ { .key.2 != nil }",
    "{ status = error } &<< { .key.2 != nil } || { .key.3 = true }",
    "{ parent.key.2 > 3 }",
    "{ span:childCount > 1 && status = error }",
    "{ .key.2 != nil } | count() > 2",
    "{ .key.2 != nil } | by(name) | avg(.key.2) > 3 | coalesce()",
    "{ status = error } | by(kind) | count() > 1 | select(name)",
    "({ status = error } | count()) > ({ kind = server } | count())",
    "count() > 4 | { status = error }",
    "{ status = error } !>> { kind = server }",
    "{ status = error } &>> { .key.2 > 3 } | count() > 1",
    "{ .key.1 = \"value 3\" } >> ({ status = error } || { kind = server })",
    "({ status = error } && { kind = server } | { .key.2 != nil }) ~ { }",
    "{ status = error } << { .key.2 != nil } | { kind = server } | select(name)",
};
enum { QUERIES = sizeof queries / sizeof *queries };

static void plans_agree_with_the_meaning_on_every_span(void **state)
{
    struct fixture f;
    fixture_init(&f, clock_realtime_ns(), NULL);
    for (int i = 0; i < 20; i++) {
        struct span_batch batch = fixture_batch(&f, 20);
        fixture_append(&f, &batch);
    }
    unsigned n_exact = 0;
    for (size_t i = 0; i < QUERIES; i++) {
        struct traceql *q = parse(queries[i]);
        struct arena arena = ARENA_INIT;
        bool exact;
        const struct predicate *plan = traceql_predicate(q->stages, &arena, &exact);
        assert_non_null(plan);
        n_exact += exact;
        for (size_t s = 0; s < f.n; s++) {
            bool planned = predicate_match(plan, &f.spans[s]);
            if (exact && planned != traceql_match_span(q, &f.spans[s]))
                fail_msg("%s: the plan says %d of span %zu", queries[i], planned, s);
            /* The intrinsics of the trace are nil here, which some conditions hold for. */
            if (!q->needs_trace && !planned && traceql_match_span(q, &f.spans[s]))
                fail_msg("%s: the plan hides span %zu", queries[i], s);
        }
        arena_done(&arena);
        traceql_free(q);
    }
    assert_in_range(n_exact, 20, QUERIES - 10);
    fixture_done(&f);
}

/* ---- the list ---- */

struct expected {
    struct trace_id id;
    uint64_t start_ns, matched;
};

static int in_order(const void *a, const void *b)
{
    const struct span *x = a, *y = b;
    if (x->start_ns != y->start_ns)
        return x->start_ns < y->start_ns ? -1 : 1;
    return memcmp(x->span_id.bytes, y->span_id.bytes, SPAN_ID_SIZE);
}

/* How many spans of the trace, all of which are together in the list, the query finds. */
static size_t count_found(const struct fixture *f, const struct trace_id *id,
                          struct traceql_trace *trace, const struct search *search)
{
    struct arena arena = ARENA_INIT;
    struct span *spans = calloc(f->n + 1, sizeof *spans);
    uint8_t *input = calloc(f->n + 1, 1);
    size_t n = 0, n_sets, found = 0;
    for (size_t i = 0; i < f->n; i++)
        if (!trace_id_cmp(&f->spans[i].trace_id, id))
            spans[n++] = f->spans[i];
    qsort(spans, n, sizeof *spans, in_order);
    for (size_t i = 0; i < n; i++)
        input[i] = spans[i].start_ns >= search->start_min_ns &&
                   (!search->start_max_ns || spans[i].start_ns <= search->start_max_ns) &&
                   (!search->where || predicate_match(search->where, &spans[i]));
    struct traceql_tree tree;
    struct traceql_spans *sets;
    assert_int_equal(traceql_tree_init(&tree, spans, n, &arena), 0);
    trace->tree = &tree;
    assert_int_equal(traceql_run(search->query->stages, trace, input, &arena, &sets, &n_sets), 0);
    for (size_t k = 0; k < n_sets; k++)
        found += sets[k].n;
    arena_done(&arena);
    free(input);
    free(spans);
    return found;
}

static int newest_first(const void *a, const void *b)
{
    const struct expected *x = a, *y = b;
    if (x->start_ns != y->start_ns)
        return x->start_ns > y->start_ns ? -1 : 1;
    return trace_id_cmp(&x->id, &y->id);
}

static void compare_search(struct store_view *view, const char *text, const struct search *search,
                           const struct expected *list, size_t n)
{
    struct arena arena = ARENA_INIT;
    struct search_result result;
    struct error_detail detail = {0};
    int err = search_run(view, search, &arena, &result, &detail);
    if (err)
        fail_msg("%s: %s", text, detail.message);
    size_t least = n < search->limit ? n : search->limit;
    if (result.n != least || result.more != (n > search->limit))
        fail_msg("%s: %zu traces%s, not %zu of %zu", text, result.n, result.more ? " and more" : "",
                 least, n);
    for (size_t i = 0; i < result.n; i++) {
        const struct search_trace *t = &result.traces[i];
        if (trace_id_cmp(&t->summary.id, &list[i].id) || t->matched != list[i].matched ||
            t->summary.start_ns != list[i].start_ns)
            fail_msg("%s: trace %zu is another, or matched %llu and not %llu", text, i,
                     (unsigned long long)t->matched, (unsigned long long)list[i].matched);
    }
    arena_done(&arena);
}

/* Both ways: with what columns tell, and by looking at whole traces. */
static void check_search(struct fixture *f, struct store_view *view, const char *text,
                         const struct search *asked)
{
    struct search by_traces = *asked, by_columns = *asked;
    by_traces.by_traces = true;
    struct expected *list = calloc(f->n_traces + 1, sizeof *list);
    size_t n = 0;
    struct arena arena = ARENA_INIT;
    for (size_t t = 0; t < f->n_traces; t++) {
        struct trace_summary summary;
        int err = store_trace_summary(view, &f->traces[t], &arena, &summary);
        if (err == ERR_NOT_FOUND)
            continue;
        assert_int_equal(err, 0);
        struct traceql_trace trace = {
            summary.root_name, summary.root_service,
            summary.end_ns > summary.start_ns ? summary.end_ns - summary.start_ns : 0};
        struct expected e = {.id = f->traces[t], .start_ns = summary.start_ns};
        e.matched = count_found(f, &e.id, &trace, asked);
        bool known = false;
        for (size_t i = 0; i < n; i++)
            known |= !trace_id_cmp(&list[i].id, &e.id);
        if (e.matched && !known)
            list[n++] = e;
    }
    qsort(list, n, sizeof *list, newest_first);

    for (int way = 0; way < 2; way++)
        compare_search(view, text, way ? &by_traces : &by_columns, list, n);
    arena_done(&arena);
    free(list);
}

static void check_searches(struct fixture *f)
{
    struct store_view *view = store_view_new(f->store);
    assert_non_null(view);
    static const struct predicate is_error = {
        .op = PREDICATE_EQ,
        .field = FIELD_STATUS,
        .value = {.type = VALUE_INT, .integer = STATUS_ERROR},
    };
    for (size_t i = 0; i < QUERIES; i++) {
        struct traceql *q = parse(queries[i]);
        static const size_t limits[] = {1, 3, SEARCH_LIMIT_MAX};
        for (size_t l = 0; l < 3; l++) {
            struct search search = {.query = q, .limit = limits[l]};
            check_search(f, view, queries[i], &search);
            /* A time range between two spans, and another condition. */
            uint64_t a = f->spans[fixture_random(f, f->n)].start_ns;
            uint64_t b = f->spans[fixture_random(f, f->n)].start_ns;
            search.start_min_ns = a < b ? a : b;
            search.start_max_ns = a < b ? b : a;
            check_search(f, view, queries[i], &search);
            search.where = &is_error;
            check_search(f, view, queries[i], &search);
        }
        traceql_free(q);
    }
    store_view_free(view);
}

static void searches_find_what_a_list_finds(void **state)
{
    struct fixture f;
    fixture_init(&f, clock_realtime_ns(), NULL);
    for (int i = 0; i < 30; i++) {
        struct span_batch batch = fixture_batch(&f, 10);
        fixture_append(&f, &batch);
        /* Traces come to lie in two segments and in memory. */
        if (i == 10 || i == 20)
            assert_int_equal(store_seal(f.store), 0);
    }
    check_searches(&f);
    fixture_reopen(&f);
    assert_int_equal(store_seal(f.store), 0);
    check_searches(&f);
    fixture_done(&f);
}

/* ---- many traces, so that candidates are pruned on the way ---- */

enum { MANY = 20000 }; /* several row groups */

static struct str many_name(size_t i)
{
    return i % 3 ? STR("even") : STR("odd");
}

static void append_many(struct store *store, bool late)
{
    static const struct resource resource = {.service_name = STR("many")};
    static const struct scope scope = {.name = STR("")};
    for (size_t base = 0; base < MANY; base += 500) {
        struct span spans[500];
        for (size_t i = 0; i < 500; i++) {
            size_t n = base + i;
            /* Each trace has a span at its number; every seventh also one that is far older, which
             * comes later, in another batch. */
            spans[i] = (struct span){
                .trace_id = {{1, (uint8_t)(n >> 8), (uint8_t)n}},
                .span_id = {{(uint8_t)(late + 1), (uint8_t)(n >> 8), (uint8_t)n}},
                .start_ns = (late ? n : MANY + n) * NS_PER_MS,
                .end_ns = (MANY * 2 + n) * NS_PER_MS,
                .name = late ? STR("late") : many_name(n),
                .resource = &resource,
                .scope = &scope,
            };
        }
        size_t kept = 0;
        for (size_t i = 0; i < 500; i++)
            if (!late || (base + i) % 7 == 0)
                spans[kept++] = spans[i];
        struct span_batch batch = {.spans = spans, .n = kept};
        struct buf body = BUF_INIT;
        buf_cstr(&body, "{}");
        struct arena arena = ARENA_INIT;
        assert_int_equal(store_append_wait(store, BODY_OTLP_JSON, buf_as_str(&body), &batch), 0);
        arena_done(&arena);
        buf_done(&body);
    }
}

/* A trace that is newer than those, as old as the others of its kind. */
static void append_newer(struct store *store, uint8_t number)
{
    static const struct resource resource = {.service_name = STR("many")};
    static const struct scope scope = {.name = STR("")};
    struct span span = {
        .trace_id = {{2, number}},
        .span_id = {{3, number, 1}},
        .start_ns = (uint64_t)MANY * 3 * NS_PER_MS,
        .end_ns = (uint64_t)MANY * 3 * NS_PER_MS,
        .name = STR("odd"),
        .resource = &resource,
        .scope = &scope,
    };
    struct span_batch batch = {.spans = &span, .n = 1};
    assert_int_equal(store_append_wait(store, BODY_OTLP_JSON, STR("{}"), &batch), 0);
}

static size_t many_number(const struct trace_id *id)
{
    return (size_t)id->bytes[1] << 8 | id->bytes[2];
}

static void the_newest_are_by_the_start_of_the_whole_trace(void **state)
{
    struct fixture f;
    fixture_init(&f, 1, NULL);
    append_many(f.store, false);
    assert_int_equal(store_seal(f.store), 0);
    append_many(f.store, true);
    assert_int_equal(store_seal(f.store), 0);
    struct store_view *view = store_view_new(f.store);
    static const char *const texts[] = {"{ name = \"odd\" }",
                                        "{ name = \"odd\" && instrumentation:name = \"\" }"};
    for (size_t i = 0; i < 2; i++) {
        struct traceql *q = parse(texts[i]);
        struct search search = {.query = q, .limit = 20};
        struct search_result result;
        struct arena arena = ARENA_INIT;
        struct error_detail detail = {0};
        assert_int_equal(search_run(view, &search, &arena, &result, &detail), 0);
        assert_int_equal(result.n, 20);
        assert_true(result.more);
        size_t n = MANY;
        for (size_t t = 0; t < 20; t++) {
            do
                n--;
            while (n % 3 != 0 || n % 7 == 0);
            assert_int_equal(many_number(&result.traces[t].summary.id), n);
            assert_int_equal(result.traces[t].matched, 1);
        }
        /* Few of 2000 had to be looked at whole, none where the plan was exact. */
        assert_in_range(result.traces_read, i ? 20 : 0, i ? 200 : 0);
        arena_done(&arena);
        traceql_free(q);
    }
    store_view_free(view);
    fixture_done(&f);
}

/* Pages behind one another are the whole, also when newer traces come between them. */
static void pages_go_on_where_the_last_one_ended(void **state)
{
    struct fixture f;
    fixture_init(&f, 1, NULL);
    append_many(f.store, false);
    assert_int_equal(store_seal(f.store), 0);
    append_many(f.store, true);
    static const char *const texts[] = {"{ name = \"odd\" }",
                                        "{ name = \"odd\" && instrumentation:name = \"\" }",
                                        "{ name = \"odd\" } && { name != \"late\" }"};
    for (size_t i = 0; i < 3; i++) {
        struct traceql *q = parse(texts[i]);
        struct search_place place;
        struct search search = {.query = q};
        struct search_result whole, page;
        struct arena arena = ARENA_INIT;
        struct store_view *view = store_view_new(f.store);
        search.limit = 600;
        assert_int_equal(search_run(view, &search, &arena, &whole, NULL), 0);
        assert_int_equal(whole.n, 600);
        store_view_free(view);
        search.limit = 150;
        for (size_t n = 0; n < whole.n; n += page.n) {
            view = store_view_new(f.store);
            assert_int_equal(search_run(view, &search, &arena, &page, NULL), 0);
            store_view_free(view);
            assert_int_equal(page.n, 150);
            assert_true(page.more);
            for (size_t t = 0; t < page.n; t++) {
                assert_int_equal(
                    trace_id_cmp(&page.traces[t].summary.id, &whole.traces[n + t].summary.id), 0);
                assert_int_equal(page.traces[t].matched, whole.traces[n + t].matched);
            }
            place = (struct search_place){page.traces[149].summary.start_ns,
                                          page.traces[149].summary.id};
            search.after = &place;
            append_newer(f.store, (uint8_t)(i * 10 + n / 150));
        }
        arena_done(&arena);
        traceql_free(q);
    }
    fixture_done(&f);
}

static void pages_split_traces_that_start_at_once(void **state)
{
    struct fixture f;
    fixture_init(&f, 1, NULL);
    for (uint8_t i = 0; i < 9; i++)
        append_newer(f.store, (uint8_t)(i * 7 % 9));
    struct store_view *view = store_view_new(f.store);
    struct search_place place;
    struct search search = {.limit = 2};
    struct search_result page;
    struct arena arena = ARENA_INIT;
    for (uint8_t i = 0; i < 9; i += 2) {
        assert_int_equal(search_run(view, &search, &arena, &page, NULL), 0);
        assert_int_equal(page.n, i == 8 ? 1 : 2);
        assert_int_equal(page.more, i < 8);
        for (size_t t = 0; t < page.n; t++)
            assert_int_equal(page.traces[t].summary.id.bytes[1], i + t);
        place = (struct search_place){page.traces[page.n - 1].summary.start_ns,
                                      page.traces[page.n - 1].summary.id};
        search.after = &place;
    }
    assert_int_equal(search_run(view, &search, &arena, &page, NULL), 0);
    assert_int_equal(page.n, 0);
    assert_false(page.more);
    arena_done(&arena);
    store_view_free(view);
    fixture_done(&f);
}

static void a_query_that_names_its_trace_scans_nothing(void **state)
{
    struct fixture f;
    fixture_init(&f, 1, NULL);
    append_many(f.store, false);
    struct store_view *view = store_view_new(f.store);
    static const struct {
        const char *text;
        size_t n;
    } cases[] = {
        {"{ trace:id = \"01000700000000000000000000000000\" && name != \"x\" }", 1},
        {"{ trace:id = \"01000700000000000000000000000000\" && name = \"x\" }", 0},
        {"{ trace:id = \"ff000000000000000000000000000000\" }", 0},
        {"{ trace:id = \"\" }", 0},
    };
    for (size_t i = 0; i < 3; i++) {
        struct traceql *q = parse(cases[i].text);
        struct search search = {.query = q, .limit = 20};
        struct search_result result;
        struct arena arena = ARENA_INIT;
        assert_int_equal(search_run(view, &search, &arena, &result, NULL), 0);
        assert_int_equal(result.n, cases[i].n);
        assert_int_equal(result.cost.rows_read, 0);
        arena_done(&arena);
        traceql_free(q);
    }
    store_view_free(view);
    fixture_done(&f);
}

static void limits_and_time_are_kept(void **state)
{
    struct fixture f;
    fixture_init(&f, 1, NULL);
    append_many(f.store, false);
    struct store_view *view = store_view_new(f.store);
    struct arena arena = ARENA_INIT;
    struct search_result result = {.n = 77};
    struct error_detail detail;
    struct search search = {.limit = 0};
    assert_int_equal(search_run(view, &search, &arena, &result, &detail), ERR_INVALID);
    search.limit = SEARCH_LIMIT_MAX + 1;
    assert_int_equal(search_run(view, &search, &arena, &result, &detail), ERR_INVALID);
    search.limit = 10;
    search.timeout_ns = 1;
    assert_int_equal(search_run(view, &search, &arena, &result, &detail), ERR_TIMEOUT);
    assert_non_null(strstr(detail.message, "longer than"));
    assert_int_equal(result.n, 77);
    arena_done(&arena);
    store_view_free(view);
    fixture_done(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plans_agree_with_the_meaning_on_every_span),
        cmocka_unit_test(searches_find_what_a_list_finds),
        cmocka_unit_test(the_newest_are_by_the_start_of_the_whole_trace),
        cmocka_unit_test(pages_go_on_where_the_last_one_ended),
        cmocka_unit_test(pages_split_traces_that_start_at_once),
        cmocka_unit_test(a_query_that_names_its_trace_scans_nothing),
        cmocka_unit_test(limits_and_time_are_kept),
    };
    return cmocka_run_group_tests_name("search", tests, NULL, NULL);
}
