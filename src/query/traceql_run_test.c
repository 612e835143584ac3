/* What each operator means, written down a second time: pair by pair, as slowly and plainly as
 * possible, on random traces. */
#include "base/test.h"

#include "query/traceql.h"

#include <stdio.h>
#include <stdlib.h>

enum { SPANS_MAX = 40, TRACES = 300 };

struct spec {
    struct span spans[SPANS_MAX];
    struct attr attrs[SPANS_MAX][4];
    struct resource resource;
    struct scope scope;
    size_t n;
    int64_t value[SPANS_MAX];
    int group[SPANS_MAX]; /* -1: has none */
    bool a[SPANS_MAX], b[SPANS_MAX];
};

static uint64_t seed;

static uint64_t draw(uint64_t below)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (seed >> 11) % below;
}

static void put_number(struct spec *t, size_t i, const char *key, int64_t n)
{
    t->attrs[i][t->spans[i].attrs.n++] = (struct attr){str_from(key),
                                                       {.type = VALUE_INT, .integer = n}};
}

/* Trees, chains and bushes; some spans name a parent that is not there, themselves, or one of their
 * descendants; some ids come twice. */
static void spec_draw(struct spec *t)
{
    memset(t, 0, sizeof *t);
    t->resource.service_name = STR("s");
    t->n = 1 + draw(SPANS_MAX);
    uint64_t shape = draw(4);
    for (size_t i = 0; i < t->n; i++) {
        struct span *s = &t->spans[i];
        s->trace_id.bytes[0] = 1;
        s->span_id.bytes[7] = (uint8_t)(i + 1);
        if (i && draw(20) == 0)
            s->span_id = t->spans[draw(i)].span_id;
        uint64_t parent = shape == 0   ? i /* a chain */
                          : shape == 1 ? draw(3) + 1
                          : shape == 2 ? draw(i + 1)
                                       : draw(t->n + 2); /* also later ones, and none */
        if (draw(15) == 0)
            parent = 0;
        s->parent_id.bytes[7] = (uint8_t)parent;
        s->start_ns = 1000 + i;
        s->end_ns = s->start_ns + draw(5);
        s->name = STR("n");
        s->resource = &t->resource;
        s->scope = &t->scope;
        s->attrs.items = t->attrs[i];
        t->a[i] = draw(3) == 0;
        t->b[i] = draw(3) == 0;
        t->value[i] = (int64_t)draw(10) - 3;
        t->group[i] = (int)draw(4) - 1;
        put_number(t, i, "a", t->a[i]);
        put_number(t, i, "b", t->b[i]);
        put_number(t, i, "v", t->value[i]);
        if (t->group[i] >= 0)
            put_number(t, i, "g", t->group[i]);
    }
}

/* ---- structure, by definition ---- */

static int named_parent(const struct spec *t, size_t i)
{
    if (!t->spans[i].parent_id.bytes[7])
        return -1;
    for (size_t k = 0; k < t->n; k++)
        if (t->spans[k].span_id.bytes[7] == t->spans[i].parent_id.bytes[7])
            return k == i ? -1 : (int)k;
    return -1;
}

/* Of a circle of parents the first has none. */
static int parent_of(const struct spec *t, size_t i)
{
    int at = named_parent(t, i);
    bool first = true;
    for (size_t steps = 0; at >= 0 && steps <= t->n; steps++) {
        if ((size_t)at == i)
            return first ? -1 : named_parent(t, i);
        first &= (size_t)at > i;
        at = named_parent(t, (size_t)at);
    }
    return named_parent(t, i);
}

static bool is_child(const struct spec *t, size_t parent, size_t child)
{
    return parent_of(t, child) == (int)parent;
}

static bool is_descendant(const struct spec *t, size_t above, size_t below)
{
    for (int at = parent_of(t, below); at >= 0; at = parent_of(t, (size_t)at))
        if (at == (int)above)
            return true;
    return false;
}

/* `l op r`, of one pair. */
static bool related(const struct spec *t, char op, size_t l, size_t r)
{
    switch (op) {
    case '>':
        return is_child(t, l, r);
    case '<':
        return is_child(t, r, l);
    case 'D':
        return is_descendant(t, l, r);
    case 'A':
        return is_descendant(t, r, l);
    default:
        return l != r && parent_of(t, l) >= 0 && parent_of(t, l) == parent_of(t, r);
    }
}

static const struct {
    const char *text;
    char op, form; /* form: '!', '&' or ' ' */
} structures[] = {
    {">", '>', ' '},  {"<", '<', ' '},  {">>", 'D', ' '},  {"<<", 'A', ' '},  {"~", '~', ' '},
    {"!>", '>', '!'}, {"!<", '<', '!'}, {"!>>", 'D', '!'}, {"!<<", 'A', '!'}, {"!~", '~', '!'},
    {"&>", '>', '&'}, {"&<", '<', '&'}, {"&>>", 'D', '&'}, {"&<<", 'A', '&'}, {"&~", '~', '&'},
};

/* ---- running ---- */

struct ran {
    struct arena arena;
    struct traceql *q;
    struct traceql_spans *sets;
    size_t n;
    struct traceql_tree tree;
};

static struct ran run(const struct spec *t, const char *text)
{
    struct ran r = {0};
    struct error_detail detail = {0};
    if (traceql_parse(str_from(text), &r.q, &detail))
        fail_msg("%s: at %zu: %s", text, detail.position, detail.message);
    assert_int_equal(traceql_tree_init(&r.tree, t->spans, t->n, &r.arena), 0);
    struct traceql_trace trace = {STR("n"), STR("s"), 7, &r.tree};
    assert_int_equal(traceql_run(r.q->stages, &trace, NULL, &r.arena, &r.sets, &r.n), 0);
    return r;
}

static void ran_done(struct ran *r)
{
    traceql_free(r->q);
    arena_done(&r->arena);
}

/* One spanset of exactly the spans that are wanted, or none when there are none. */
static void expect(const struct spec *t, const char *text, const bool *wanted)
{
    struct ran r = run(t, text);
    size_t n = 0;
    for (size_t i = 0; i < t->n; i++)
        n += wanted[i];
    if (r.n != (n > 0))
        fail_msg("%s: %zu spansets for %zu spans", text, r.n, n);
    for (size_t i = 0; r.n && i < t->n; i++)
        if (r.sets[0].marks[i] != wanted[i])
            fail_msg("%s: of span %zu of %zu: %d", text, i, t->n, r.sets[0].marks[i]);
    if (r.n)
        assert_int_equal(r.sets[0].n, n);
    ran_done(&r);
}

static void each_trace(void (*check)(const struct spec *t))
{
    const char *given = getenv("TRACEQL_SEED");
    seed = given ? strtoull(given, NULL, 0) : 20261120;
    print_message("TRACEQL_SEED=%llu\n", (unsigned long long)seed);
    struct spec *t = malloc(sizeof *t);
    for (int i = 0; i < TRACES; i++) {
        spec_draw(t);
        check(t);
    }
    free(t);
}

static void check_structure(const struct spec *t)
{
    for (size_t k = 0; k < sizeof structures / sizeof *structures; k++) {
        bool wanted[SPANS_MAX] = {0};
        for (size_t r = 0; r < t->n; r++) {
            bool any = false;
            for (size_t l = 0; l < t->n; l++) {
                bool holds = t->a[l] && t->b[r] && related(t, structures[k].op, l, r);
                any |= holds;
                if (holds && structures[k].form == '&')
                    wanted[l] = true;
            }
            if (t->b[r] && any != (structures[k].form == '!'))
                wanted[r] = true;
        }
        char text[64];
        snprintf(text, sizeof text, "{ .a = 1 } %s { .b = 1 }", structures[k].text);
        expect(t, text, wanted);
    }
}

static void structural_operators_mean_what_pairs_of_spans_say(void **state)
{
    each_trace(check_structure);
}

static void check_logic(const struct spec *t)
{
    bool both[SPANS_MAX], either[SPANS_MAX], narrowed[SPANS_MAX];
    bool any_a = false, any_b = false;
    for (size_t i = 0; i < t->n; i++) {
        any_a |= t->a[i];
        any_b |= t->b[i];
    }
    for (size_t i = 0; i < t->n; i++) {
        either[i] = t->a[i] || t->b[i];
        both[i] = any_a && any_b && either[i];
        narrowed[i] = t->a[i] && t->b[i];
    }
    expect(t, "{ .a = 1 } && { .b = 1 }", both);
    expect(t, "{ .a = 1 } || { .b = 1 }", either);
    expect(t, "{ .a = 1 } | { .b = 1 }", narrowed);
    expect(t, "{ .a = 1 } | ({ .b = 1 } | select(.v) | coalesce())", narrowed);
    /* After a stage, structure is still that of the whole trace, but only what is left takes part. */
    bool below[SPANS_MAX] = {0};
    for (size_t r = 0; r < t->n; r++)
        for (size_t l = 0; l < t->n; l++)
            below[r] |= t->a[r] && t->a[l] && t->b[l] && is_descendant(t, l, r);
    expect(t, "{ .a = 1 } | { .b = 1 } >> { }", below);
}

static void logic_and_stages_mean_what_sets_say(void **state)
{
    each_trace(check_logic);
}

static void check_places(const struct spec *t)
{
    bool leaf[SPANS_MAX], below_a[SPANS_MAX], orphan[SPANS_MAX], root[SPANS_MAX];
    for (size_t i = 0; i < t->n; i++) {
        int parent = parent_of(t, i);
        leaf[i] = true;
        for (size_t k = 0; k < t->n; k++)
            leaf[i] &= !is_child(t, i, k);
        below_a[i] = parent >= 0 && t->a[parent];
        root[i] = !t->spans[i].parent_id.bytes[7];
        orphan[i] = !root[i] && parent < 0;
    }
    expect(t, "{ span:childCount = 0 }", leaf);
    expect(t, "{ nestedSetRight = nestedSetLeft + 1 }", leaf);
    expect(t, "{ parent.a = 1 }", below_a);
    expect(t, "{ parent.span.a = 1 }", below_a);
    expect(t, "{ nestedSetParent = 0 }", orphan);
    expect(t, "{ nestedSetParent < 0 }", root);
    struct ran r = run(t, "{ }");
    for (size_t x = 0; x < t->n; x++)
        for (size_t y = 0; y < t->n; y++)
            assert_int_equal(r.tree.left[x] < r.tree.left[y] && r.tree.right[y] < r.tree.right[x],
                             is_descendant(t, x, y));
    ran_done(&r);
}

static void places_are_those_of_the_tree(void **state)
{
    each_trace(check_places);
}

/* ---- aggregates ---- */

struct sums {
    int64_t n, sum, min, max;
};

static struct sums sums_of(const struct spec *t, bool all, int group)
{
    struct sums s = {0};
    for (size_t i = 0; i < t->n; i++) {
        if (!t->a[i] || (!all && t->group[i] != group))
            continue;
        s.sum += t->value[i];
        s.min = !s.n || t->value[i] < s.min ? t->value[i] : s.min;
        s.max = !s.n || t->value[i] > s.max ? t->value[i] : s.max;
        s.n++;
    }
    return s;
}

static void check_aggregates(const struct spec *t)
{
    struct sums s = sums_of(t, true, 0);
    bool none[SPANS_MAX] = {0};
    struct {
        const char *text;
        bool holds;
    } cases[] = {
        {"{ .a = 1 } | count() > 3", s.n > 3},
        {"{ .a = 1 } | count() = 2", s.n == 2},
        {"{ .a = 1 } | 4 >= count()", s.n && 4 >= s.n},
        {"{ .a = 1 } | sum(.v) > 5", s.n && s.sum > 5},
        {"{ .a = 1 } | sum(.v * 2) - 1 != 5", s.n && s.sum * 2 - 1 != 5},
        {"{ .a = 1 } | min(.v) < 0", s.n && s.min < 0},
        {"{ .a = 1 } | max(.v) = 6", s.n && s.max == 6},
        {"{ .a = 1 } | avg(.v) >= 1.5", s.n && (double)s.sum / (double)s.n >= 1.5},
        {"{ .a = 1 } | max(.v) - min(.v) > 2 * count()", s.n && s.max - s.min > 2 * s.n},
        {"{ .a = 1 } | -count() < -3", s.n && -s.n < -3},
        {"{ .a = 1 } | sum(.absent) > -100", false},
        {"{ .a = 1 } | count() / 0 > 1", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect(t, cases[i].text, cases[i].holds ? t->a : none);
    int64_t n_b = 0;
    bool used[SPANS_MAX];
    for (size_t i = 0; i < t->n; i++) {
        n_b += t->b[i];
        used[i] = t->a[i] || t->b[i];
    }
    expect(t, "({ .a = 1 } | count()) > ({ .b = 1 } | count())", s.n > n_b ? used : none);
}

static void aggregates_calculate_over_the_spanset(void **state)
{
    each_trace(check_aggregates);
}

static void check_groups(const struct spec *t)
{
    struct ran r = run(t, "{ .a = 1 } | by(.g) | count() > 1");
    size_t n = 0;
    bool left[SPANS_MAX] = {0};
    for (int g = -1; g < 3; g++) {
        struct sums s = sums_of(t, false, g);
        if (s.n <= 1)
            continue;
        n++;
        bool found = false;
        for (size_t k = 0; k < r.n; k++) {
            const struct traceql_label *labels = r.sets[k].labels;
            assert_int_equal(r.sets[k].n_labels, 2);
            bool this_one = g < 0
                                ? labels[0].value.type == VALUE_NONE
                                : labels[0].value.type == VALUE_INT && labels[0].value.integer == g;
            if (!this_one)
                continue;
            found = true;
            assert_int_equal(labels[1].value.integer, s.n);
            assert_int_equal(r.sets[k].n, s.n);
            for (size_t i = 0; i < t->n; i++)
                assert_int_equal(r.sets[k].marks[i], t->a[i] && t->group[i] == g);
        }
        assert_true(found);
        for (size_t i = 0; i < t->n; i++)
            left[i] |= t->a[i] && t->group[i] == g;
    }
    assert_int_equal(r.n, n);
    ran_done(&r);
    expect(t, "{ .a = 1 } | by(.g) | count() > 1 | coalesce()", left);
    expect(t, "{ .a = 1 } | by(.g) | by(.v > 0) | coalesce()", t->a);
}

static void by_splits_and_coalesce_joins(void **state)
{
    each_trace(check_groups);
}

static void a_long_chain_is_no_deep_recursion(void **state)
{
    enum { LONG = 200000 };
    static const struct resource resource = {.service_name = STR("s")};
    static const struct scope scope = {.name = STR("")};
    struct span *spans = calloc(LONG, sizeof *spans);
    for (uint32_t i = 0; i < LONG; i++) {
        uint32_t id = i + 1;
        memcpy(spans[i].span_id.bytes, &id, sizeof id);
        memcpy(spans[i].parent_id.bytes, &i, sizeof i);
        spans[i].name = i == 0 ? STR("first") : i == LONG - 1 ? STR("last") : STR("between");
        spans[i].resource = &resource;
        spans[i].scope = &scope;
    }
    struct arena arena = ARENA_INIT;
    struct traceql_tree tree;
    assert_int_equal(traceql_tree_init(&tree, spans, LONG, &arena), 0);
    struct traceql_trace trace = {STR("first"), STR("s"), 1, &tree};
    struct traceql *q;
    assert_int_equal(traceql_parse(STR("{ name = \"first\" } >> { name = \"last\" }"), &q, NULL),
                     0);
    struct traceql_spans *sets;
    size_t n;
    assert_int_equal(traceql_run(q->stages, &trace, NULL, &arena, &sets, &n), 0);
    assert_int_equal(n, 1);
    assert_int_equal(sets[0].n, 1);
    assert_int_equal(sets[0].marks[LONG - 1], 1);
    traceql_free(q);
    arena_done(&arena);
    free(spans);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(structural_operators_mean_what_pairs_of_spans_say),
        cmocka_unit_test(logic_and_stages_mean_what_sets_say),
        cmocka_unit_test(places_are_those_of_the_tree),
        cmocka_unit_test(aggregates_calculate_over_the_spanset),
        cmocka_unit_test(by_splits_and_coalesce_joins),
        cmocka_unit_test(a_long_chain_is_no_deep_recursion),
    };
    return cmocka_run_group_tests_name("traceql_run", tests, NULL, NULL);
}
