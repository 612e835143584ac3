/* Breakdowns of a real store against counting every span by hand. */
#include "base/test.h"

#include "query/breakdown.h"
#include "query/search.h"
#include "store/fixture.h"

#include <math.h>
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

static bool value_of(const struct span *s, const struct breakdown_field *f, struct value *ret)
{
    static const char *const statuses[] = {"unset", "ok", "error"};
    static const char *const kinds[] = {"unspecified", "internal", "server",
                                        "client",      "producer", "consumer"};
    const struct attrs *attrs = f->field == FIELD_SPAN_ATTR ? &s->attrs : &s->resource->attrs;
    *ret = (struct value){.type = VALUE_STRING};
    switch (f->field) {
    case FIELD_NAME:
        ret->string = s->name;
        return true;
    case FIELD_KIND:
        ret->string = str_from(kinds[s->kind]);
        return true;
    case FIELD_STATUS:
        ret->string = str_from(statuses[s->status_code]);
        return true;
    default:
        for (uint32_t i = 0; i < attrs->n; i++)
            if (str_eq(attrs->items[i].key, f->key)) {
                *ret = attrs->items[i].value;
                return ret->type != VALUE_NONE;
            }
        return false;
    }
}

static bool is_told_apart(const struct value *v)
{
    return v->type <= VALUE_DOUBLE && v->type != VALUE_NONE &&
           !(v->type == VALUE_DOUBLE && isnan(v->real)) &&
           !(v->type == VALUE_STRING && v->string.len > BREAKDOWN_TEXT_MAX);
}

static bool same(struct value a, const struct value *b)
{
    if (a.type == VALUE_DOUBLE && a.real == 0)
        a.real = 0;
    return value_eq(&a, b);
}

/* Every count of the answer once more, from the list; `marks`: which spans are found. */
static void check(const struct fixture *f, const bool *marks, const struct breakdown_result *r)
{
    uint64_t found = 0;
    for (size_t i = 0; i < f->n; i++)
        found += marks[i];
    assert_int_equal(r->counted.found, found);
    assert_int_equal(r->counted.all, f->n);
    for (size_t k = 0; k < r->n; k++) {
        const struct breakdown_field *field = &r->fields[k];
        struct breakdown_counts has = {0, 0};
        for (size_t i = 0; i < f->n; i++) {
            struct value v;
            if (!value_of(&f->spans[i], field, &v))
                continue;
            has.all++;
            has.found += marks[i];
        }
        assert_int_equal(field->n.found, has.found);
        assert_int_equal(field->n.all, has.all);
        for (size_t j = 0; j < field->n_values; j++) {
            struct breakdown_counts n = {0, 0};
            for (size_t i = 0; i < f->n; i++) {
                struct value v;
                if (!value_of(&f->spans[i], field, &v) || !is_told_apart(&v) ||
                    !same(v, &field->values[j].value))
                    continue;
                n.all++;
                n.found += marks[i];
            }
            assert_int_equal(field->values[j].n.found, n.found);
            assert_int_equal(field->values[j].n.all, n.all);
            assert_in_range(n.all, 1, f->n);
            if (j)
                assert_true(fabs(field->values[j - 1].difference) >=
                            fabs(field->values[j].difference));
        }
        if (k && r->fields[k - 1].is_asked == field->is_asked)
            assert_true(r->fields[k - 1].difference >= field->difference);
    }
}

/* Which spans of the list the query finds, trace by trace. */
static bool *marks_of(struct fixture *f, const struct traceql *q)
{
    bool *marks = calloc(f->n + 1, sizeof *marks);
    struct store_view *view = store_view_new(f->store);
    for (size_t t = 0; t < f->n_traces; t++) {
        struct arena arena = ARENA_INIT;
        struct trace_summary summary;
        struct span_batch batch;
        struct traceql_tree tree;
        struct traceql_spans *sets;
        size_t n;
        if (store_trace_summary(view, &f->traces[t], &arena, &summary) ||
            store_trace(view, &f->traces[t], &arena, &batch)) {
            arena_done(&arena);
            continue;
        }
        assert_int_equal(traceql_tree_init(&tree, batch.spans, batch.n, &arena), 0);
        struct traceql_trace trace = {.root_name = summary.root_name,
                                      .root_service = summary.root_service,
                                      .duration_ns = summary.end_ns - summary.start_ns,
                                      .tree = &tree};
        assert_int_equal(traceql_run(q->stages, &trace, NULL, &arena, &sets, &n), 0);
        /* Spans of one id and start are alike enough: each takes a mark of its own. */
        for (size_t k = 0; k < n; k++)
            for (size_t i = 0; i < batch.n; i++)
                for (size_t j = 0; sets[k].marks[i] && j < f->n; j++)
                    if (!marks[j] && f->spans[j].start_ns == batch.spans[i].start_ns &&
                        !memcmp(&f->spans[j].span_id, &batch.spans[i].span_id,
                                sizeof batch.spans[i].span_id) &&
                        !trace_id_cmp(&f->spans[j].trace_id, &f->traces[t])) {
                        marks[j] = true;
                        break;
                    }
        arena_done(&arena);
    }
    store_view_free(view);
    return marks;
}

static struct breakdown_result run(struct fixture *f, const struct traceql *q, struct arena *arena)
{
    struct breakdown_result r;
    struct error_detail detail = {0};
    struct store_stats s;
    store_stats(f->store, &s);
    struct store_view *view = store_view_new(f->store);
    struct breakdown b = {.query = q,
                          .start_min_ns = s.start_min_ns,
                          .start_max_ns = s.start_max_ns,
                          .values_max = BREAKDOWN_VALUES_MAX};
    int err = breakdown_run(view, &b, arena, &r, &detail);
    if (err)
        fail_msg("%s", detail.message);
    store_view_free(view);
    return r;
}

static void counts_are_those_of_every_span(void **state)
{
    static const char *const queries[] = {
        "{ status = error }",
        "{ kind = server && duration > 1ms }",
        "{ } >> { status = error }", /* whole traces */
        "{ status = error } | count() > 1",
    };
    struct fixture f;
    fixture_init(&f, 11, NULL);
    for (int i = 0; i < 12; i++) {
        struct span_batch batch = fixture_batch(&f, 40);
        fixture_append(&f, &batch);
        if (i == 5)
            assert_int_equal(store_seal(f.store), 0);
    }
    for (size_t i = 0; i < sizeof queries / sizeof *queries; i++) {
        struct arena arena = ARENA_INIT;
        struct traceql *q = parse(queries[i]);
        bool *marks = marks_of(&f, q);
        struct breakdown_result r = run(&f, q, &arena);
        assert_int_equal(r.by_traces, i >= 2);
        assert_false(r.is_cut);
        assert_in_range(r.n, 3, 3 + BREAKDOWN_KEYS_MAX);
        check(&f, marks, &r);
        free(marks);
        traceql_free(q);
        arena_done(&arena);
    }
    fixture_done(&f);
}

static void append(struct fixture *f, size_t n, const char *region, unsigned status,
                   uint64_t start_ns, uint64_t step_ns)
{
    struct resource *resource = arena_zalloc(&f->arena, sizeof *resource);
    struct scope *scope = arena_zalloc(&f->arena, sizeof *scope);
    struct span *spans = arena_zalloc(&f->arena, n * sizeof *spans);
    struct attr *attrs = arena_zalloc(&f->arena, 2 * n * sizeof *attrs);
    resource->service_name = STR("shop");
    for (size_t i = 0; i < n; i++) {
        struct attr *a = attrs + 2 * i;
        a[0] = (struct attr){STR("region"), {.type = VALUE_STRING, .string = str_from(region)}};
        a[1] = (struct attr){STR("number"), {.type = VALUE_INT, .integer = (int64_t)i}};
        spans[i] = (struct span){.resource = resource,
                                 .scope = scope,
                                 .name = STR("work"),
                                 .kind = SPAN_KIND_SERVER,
                                 .status_code = (uint8_t)status,
                                 .start_ns = start_ns + i * step_ns,
                                 .end_ns = start_ns + i * step_ns + 1000,
                                 .attrs = {.items = a, .n = 2}};
        for (size_t k = 0; k < TRACE_ID_SIZE; k++)
            spans[i].trace_id.bytes[k] = (uint8_t)(fixture_random(f, 255) + 1);
        for (size_t k = 0; k < SPAN_ID_SIZE; k++)
            spans[i].span_id.bytes[k] = (uint8_t)(fixture_random(f, 255) + 1);
    }
    struct span_batch batch = {.spans = spans, .n = n};
    fixture_append(f, &batch);
}

static const uint64_t start_ns = UINT64_C(1700000000000000000);

static void what_differs_most_comes_first_and_what_was_asked_last(void **state)
{
    struct fixture f;
    struct arena arena = ARENA_INIT;
    fixture_init(&f, 3, NULL);
    append(&f, 900, "east", 0, start_ns, 1000);
    append(&f, 90, "west", 0, start_ns, 1000);
    append(&f, 10, "west", 2, start_ns, 1000);
    struct traceql *q = parse("{ status = error }");
    struct breakdown_result r = run(&f, q, &arena);
    assert_int_equal(r.counted.found, 10);
    assert_int_equal(r.counted.all, 1000);
    assert_int_equal(r.fields[0].field, FIELD_SPAN_ATTR);
    assert_true(str_eq(r.fields[0].key, STR("region")));
    assert_int_equal(r.fields[0].n_values, 2);
    /* All errors are west, and a tenth of all spans. */
    double west = r.fields[0].values[0].difference, east = r.fields[0].values[1].difference;
    assert_true(fabs(fabs(west) - 0.9) < 1e-9 && fabs(fabs(east) - 0.9) < 1e-9);
    assert_true(str_eq(r.fields[0].values[0].value.string, STR("west")));
    assert_int_equal(r.fields[r.n - 1].field, FIELD_STATUS);
    assert_true(r.fields[r.n - 1].is_asked);
    traceql_free(q);
    arena_done(&arena);
    fixture_done(&f);
}

static void a_large_store_is_looked_at_in_parts_that_keep_the_shares(void **state)
{
    struct fixture f;
    struct arena arena = ARENA_INIT;
    fixture_init(&f, 4, NULL);
    for (uint64_t i = 0; i < 30; i++) {
        append(&f, 7500, "east", 0, start_ns + i * 7500 * 1000, 1000);
        append(&f, 2500, "west", 0, start_ns + i * 7500 * 1000, 3000);
        append(&f, 10, "west", 2, start_ns + i * 7500 * 1000, 1000);
    }
    struct traceql *q = parse("{ status = error }");
    struct breakdown_result r = run(&f, q, &arena);
    assert_int_equal(r.spans.all, 300300);
    assert_int_equal(r.counted.found, 300); /* few: all of them */
    assert_in_range(r.counted.all, BREAKDOWN_SPANS_MAX * 8 / 10, BREAKDOWN_SPANS_MAX * 12 / 10);
    assert_true(str_eq(r.fields[0].key, STR("region")));
    assert_int_equal(r.fields[0].values[0].n.found, 300);
    double difference = r.fields[0].difference;
    assert_true(difference > 0.73 && difference < 0.77);
    /* More numbers than are told apart: said, and the others are right. */
    for (size_t i = 0; i < r.n; i++)
        if (str_eq(r.fields[i].key, STR("number"))) {
            assert_true(r.fields[i].has_more);
            assert_int_equal(r.fields[i].different, BREAKDOWN_VALUES_MAX);
            assert_int_equal(r.fields[i].n.all, r.counted.all);
        }
    traceql_free(q);
    arena_done(&arena);
    fixture_done(&f);
}

static void nothing_found_is_an_answer(void **state)
{
    struct fixture f;
    struct arena arena = ARENA_INIT;
    fixture_init(&f, 5, NULL);
    struct breakdown_result r = run(&f, NULL, &arena);
    assert_int_equal(r.n, 0);
    append(&f, 10, "east", 0, start_ns, 1000);
    struct traceql *q = parse("{ status = error }");
    r = run(&f, q, &arena);
    assert_int_equal(r.counted.found, 0);
    assert_int_equal(r.counted.all, 10);
    traceql_free(q);
    q = parse("{ } | rate()");
    struct store_view *view = store_view_new(f.store);
    struct breakdown b = {.query = q, .start_max_ns = UINT64_MAX, .values_max = 1};
    assert_int_equal(breakdown_run(view, &b, &arena, &r, NULL), ERR_INVALID);
    store_view_free(view);
    traceql_free(q);
    arena_done(&arena);
    fixture_done(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_are_those_of_every_span),
        cmocka_unit_test(what_differs_most_comes_first_and_what_was_asked_last),
        cmocka_unit_test(a_large_store_is_looked_at_in_parts_that_keep_the_shares),
        cmocka_unit_test(nothing_found_is_an_answer),
    };
    return cmocka_run_group_tests_name("breakdown", tests, NULL, NULL);
}
