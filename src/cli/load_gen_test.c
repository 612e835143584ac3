#include "base/test.h"

#include "base/clock.h"
#include "cli/load_gen.h"

#define START (UINT64_C(1700000000) * NS_PER_S)

static void the_same_seed_draws_the_same_spans(void **state)
{
    struct load_gen *a = load_gen_new(7, 10, START), *b = load_gen_new(7, 10, START);
    struct load_gen *other = load_gen_new(8, 10, START);
    struct arena arena = ARENA_INIT;
    struct span_batch x, y, z;
    assert_int_equal(load_gen_batch(a, 20, &arena, &x), 0);
    assert_int_equal(load_gen_batch(b, 20, &arena, &y), 0);
    assert_int_equal(load_gen_batch(other, 20, &arena, &z), 0);
    assert_int_equal(x.n, 200);
    for (size_t i = 0; i < x.n; i++) {
        assert_memory_equal(&x.spans[i].trace_id, &y.spans[i].trace_id, sizeof(struct trace_id));
        assert_memory_equal(&x.spans[i].span_id, &y.spans[i].span_id, sizeof(struct span_id));
        assert_int_equal(x.spans[i].start_ns, y.spans[i].start_ns);
        assert_str_eq(x.spans[i].attrs.items[10].value.string,
                      y.spans[i].attrs.items[10].value.string);
    }
    assert_memory_not_equal(&x.spans[0].trace_id, &z.spans[0].trace_id, sizeof(struct trace_id));
    arena_done(&arena);
    load_gen_free(a);
    load_gen_free(b);
    load_gen_free(other);
}

static void a_trace_too_large_for_a_request_comes_in_parts(void **state)
{
    enum { SPANS = LOAD_PART_SPANS_MAX + 7 };
    struct load_gen *gen = load_gen_new(3, SPANS, START);
    struct arena arena = ARENA_INIT;
    struct span_batch parts[4];
    for (int i = 0; i < 4; i++) {
        assert_int_equal(load_gen_batch(gen, 5, &arena, &parts[i]), 0);
        assert_int_equal(parts[i].n, i % 2 ? 7 : LOAD_PART_SPANS_MAX);
    }
    assert_int_equal(trace_id_cmp(&parts[0].spans[0].trace_id, &parts[1].spans[6].trace_id), 0);
    assert_int_not_equal(trace_id_cmp(&parts[1].spans[0].trace_id, &parts[2].spans[0].trace_id), 0);
    for (size_t i = 0; i < parts[1].n; i++)
        assert_false(span_id_is_zero(&parts[1].spans[i].parent_id));
    arena_done(&arena);
    load_gen_free(gen);
}

static const struct span *find(const struct span_batch *batch, const struct span *child)
{
    for (size_t i = 0; i < batch->n; i++)
        if (!trace_id_cmp(&batch->spans[i].trace_id, &child->trace_id) &&
            !memcmp(&batch->spans[i].span_id, &child->parent_id, sizeof child->parent_id))
            return &batch->spans[i];
    return NULL;
}

static void every_trace_is_one_tree_inside_its_root(void **state)
{
    struct load_gen *gen = load_gen_new(1, 10, START);
    struct arena arena = ARENA_INIT;
    struct span_batch batch;
    assert_int_equal(load_gen_batch(gen, 50, &arena, &batch), 0);
    size_t roots = 0;
    for (size_t i = 0; i < batch.n; i++) {
        const struct span *s = &batch.spans[i];
        assert_true(s->end_ns >= s->start_ns);
        if (span_id_is_zero(&s->parent_id)) {
            roots++;
            continue;
        }
        const struct span *parent = find(&batch, s);
        assert_non_null(parent);
        assert_true(parent->start_ns <= s->start_ns && s->end_ns <= parent->end_ns);
    }
    assert_int_equal(roots, 50);
    arena_done(&arena);
    load_gen_free(gen);
}

static void every_span_has_eleven_different_keys(void **state)
{
    struct load_gen *gen = load_gen_new(1, 10, START);
    struct arena arena = ARENA_INIT;
    struct span_batch batch;
    assert_int_equal(load_gen_batch(gen, 100, &arena, &batch), 0);
    for (size_t i = 0; i < batch.n; i++) {
        const struct attrs *attrs = &batch.spans[i].attrs;
        assert_int_equal(attrs->n, LOAD_ATTRS);
        for (uint32_t k = 1; k < attrs->n; k++)
            assert_false(str_eq(attrs->items[k].key, attrs->items[k - 1].key));
    }
    arena_done(&arena);
    load_gen_free(gen);
}

static void entropy_is_what_the_model_says(void **state)
{
    /* By hand, for traces of one span: ids 127 + 63, gap log2(e * 1e6) on average, duration
     * log2(5e8), service and operation log2(10) each, status H(1/50), key set log2(C(97, 11)),
     * values 11 * log2(1000). */
    double expected = 127 + 63 + 21.3743 + 28.8974 + 2 * 3.3219 + 0.1414 + 46.5 + 11 * 9.9658;
    struct load_gen *gen = load_gen_new(1, 1, START);
    struct arena arena = ARENA_INIT;
    struct span_batch batch;
    assert_int_equal(load_gen_batch(gen, 20000, &arena, &batch), 0);
    double bits = load_gen_bits(gen) / 20000;
    if (bits < expected - 1 || bits > expected + 1)
        fail_msg("%.3f bits a span, by hand %.3f", bits, expected);
    arena_done(&arena);
    load_gen_free(gen);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_seed_draws_the_same_spans),
        cmocka_unit_test(a_trace_too_large_for_a_request_comes_in_parts),
        cmocka_unit_test(every_trace_is_one_tree_inside_its_root),
        cmocka_unit_test(every_span_has_eleven_different_keys),
        cmocka_unit_test(entropy_is_what_the_model_says),
    };
    return cmocka_run_group_tests_name("load_gen", tests, NULL, NULL);
}
