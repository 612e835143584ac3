/* The shape of traces, among them those that are no trees. */
#include "query/outline.h"

#include "base/clock.h"
#include "store/fixture.h"

#include <stdio.h>

enum { EPOCH = 1000000 };

struct brief {
    unsigned id, parent; /* parent 0: none */
    unsigned start, duration;
    bool error;
    const char *service;
    uint8_t kind;
};

struct made {
    struct fixture f;
    struct store_view *view;
    struct outline *o;
};

static void made_init(struct made *m, const struct brief *briefs, size_t n)
{
    fixture_init(&m->f, 1, NULL);
    struct span *spans = arena_array(&m->f.arena, n, sizeof *spans);
    static struct attr attrs[1000];
    for (size_t i = 0; i < n; i++) {
        const struct brief *b = &briefs[i];
        struct resource *r = arena_zalloc(&m->f.arena, sizeof *r);
        struct scope *scope = arena_zalloc(&m->f.arena, sizeof *scope);
        struct attr *service = arena_zalloc(&m->f.arena, sizeof *service);
        *service = (struct attr){
            STR("service.name"),
            {.type = VALUE_STRING, .string = str_from(b->service ? b->service : "api")}};
        r->attrs = (struct attrs){service, 1, 0};
        resource_set_service_name(r);
        attrs[i % 1000] =
            (struct attr){STR("Key"),
                          {.type = VALUE_STRING,
                           .string = str_from(arena_printf(&m->f.arena, "Value-%u", b->id))}};
        spans[i] = (struct span){
            .trace_id = {{1}},
            .span_id = {{(uint8_t)b->id, (uint8_t)(b->id >> 8), (uint8_t)(b->id >> 16)}},
            .parent_id = {{(uint8_t)b->parent, (uint8_t)(b->parent >> 8),
                           (uint8_t)(b->parent >> 16)}},
            .start_ns = EPOCH + b->start,
            .end_ns = EPOCH + b->start + b->duration,
            .name = str_from(arena_printf(&m->f.arena, "name of %u", b->id)),
            .kind = b->kind,
            .status_code = b->error ? STATUS_ERROR : STATUS_UNSET,
            .attrs = {&attrs[i % 1000], 1, 0},
            .resource = r,
            .scope = scope,
        };
    }
    struct span_batch batch = {.spans = spans, .n = n};
    fixture_append(&m->f, &batch);
    m->view = store_view_new(m->f.store);
    assert_int_equal(outline_new(m->view, &spans[0].trace_id, &m->o), 0);
    assert_int_equal(m->o->n, n);
}

static void made_done(struct made *m)
{
    outline_free(m->o);
    store_view_free(m->view);
    fixture_done(&m->f);
}

static unsigned id_of(const struct outline_row *r)
{
    return r->id.bytes[0] + 256u * r->id.bytes[1] + 65536u * r->id.bytes[2];
}

/* "1 .2 ..3": ids with a dot for each level. */
static void assert_rows(const struct outline *o, const char *expected)
{
    char text[400] = "";
    for (uint32_t i = 0, at = 0; i < o->n; i++) {
        at += (uint32_t)snprintf(text + at, sizeof text - at, "%s%.*s%u", i ? " " : "",
                                 (int)o->rows[i].depth, "..........", id_of(&o->rows[i]));
        assert_int_equal(outline_find(o, &o->rows[i].id) <= i, true);
        if (o->rows[i].parent != OUTLINE_NONE)
            assert_int_equal(o->rows[o->rows[i].parent].depth + 1, o->rows[i].depth);
    }
    assert_string_equal(text, expected);
}

#define ROWS(expected, ...)                                                                        \
    do {                                                                                           \
        const struct brief briefs_[] = {__VA_ARGS__};                                              \
        struct made made_;                                                                         \
        made_init(&made_, briefs_, sizeof briefs_ / sizeof *briefs_);                              \
        assert_rows(made_.o, expected);                                                            \
        made_done(&made_);                                                                         \
    } while (0)

static void spans_come_in_tree_order_siblings_by_start(void **state)
{
    ROWS("1 .2 ..4 .3", {3, 1, 5, 10}, {4, 2, 3, 10}, {2, 1, 1, 10}, {1, 0, 0, 10});
}

static void a_span_without_its_parent_stands_on_its_own(void **state)
{
    const struct brief briefs[] = {{1, 0, 0, 9}, {2, 99, 1, 9}, {3, 2, 2, 9}, {4, 99, 3, 9}};
    struct made m;
    made_init(&m, briefs, 4);
    assert_rows(m.o, "1 2 .3 4");
    assert_int_equal(m.o->n_orphans, 2);
    assert_int_equal(m.o->n_missing_parents, 1);
    assert_int_equal(m.o->n_roots, 3);
    assert_true(m.o->rows[1].bits & OUTLINE_ORPHAN);
    made_done(&m);
}

static void circles_are_cut_at_the_earliest_span_and_no_span_is_lost(void **state)
{
    ROWS("1 .2 ..3", {1, 3, 0, 9}, {2, 1, 1, 9}, {3, 2, 2, 9});
    ROWS("1 .2", {1, 1, 0, 9}, {2, 1, 1, 9});
    ROWS("2 .1 ..9", {9, 1, 9, 9}, {1, 2, 2, 9}, {2, 1, 1, 9}); /* a tail that leads into one */
}

static void an_id_that_comes_twice_keeps_both_spans(void **state)
{
    ROWS("1 .2 1", {1, 0, 0, 9}, {1, 0, 5, 9}, {2, 1, 6, 9});
}

static void a_row_knows_what_is_below_it(void **state)
{
    const struct brief briefs[] = {
        {1, 0, 0, 100}, {2, 1, 1, 20}, {3, 2, 2, 90, true, "db"}, {4, 1, 30, 5}, {5, 0, 40, 5}};
    static const uint32_t sizes[] = {3, 1, 0, 0, 0}, children[] = {2, 1, 0, 0, 0};
    struct made m;
    made_init(&m, briefs, 5);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(m.o->rows[i].size, sizes[i]);
        assert_int_equal(m.o->rows[i].children, children[i]);
    }
    assert_int_equal(m.o->rows[0].bits, OUTLINE_ERROR_BELOW);
    assert_int_equal(m.o->rows[1].bits, OUTLINE_ERROR_BELOW | OUTLINE_TAIL);
    assert_int_equal(m.o->rows[2].bits, OUTLINE_ERROR);
    assert_int_equal(m.o->depth, 3);
    assert_int_equal(m.o->duration_ns, 100);
    assert_int_equal(m.o->start_ns, EPOCH);
    assert_int_equal(m.o->n_errors, 1);
    assert_int_equal(m.o->n_services, 2);
    assert_str_eq(m.o->services[1].name, STR("db"));
    assert_int_equal(m.o->services[1].error_count, 1);
    made_done(&m);
}

static void own_time_is_what_no_child_covers(void **state)
{
    const struct brief briefs[] = {{1, 0, 0, 100}, {2, 1, 10, 30}, {3, 1, 20, 30}, {4, 1, 90, 50}};
    struct made m;
    made_init(&m, briefs, 4);
    assert_int_equal(outline_self_ns(m.o, 0), 100 - 40 - 10);
    assert_int_equal(outline_self_ns(m.o, 3), 50);
    made_done(&m);
}

static void operations_share_out_the_time_that_spans_have_for_themselves(void **state)
{
    const struct brief briefs[] = {
        {1, 0, 0, 100}, {2, 1, 10, 30}, {3, 1, 50, 20, true}, {4, 3, 55, 10, false, "db"}};
    struct made m;
    struct outline_operation *list;
    uint32_t n;
    uint64_t self_ns = 0, spans = 0, errors = 0;
    made_init(&m, briefs, 4);
    assert_int_equal(outline_operations(m.o, &list, &n), 0);
    for (uint32_t i = 0; i < n; i++) {
        uint64_t expected = 0;
        for (uint32_t row = 0; row < m.o->n; row++)
            if (m.o->rows[row].service == list[i].service && m.o->rows[row].name == list[i].name)
                expected += outline_self_ns(m.o, row);
        assert_int_equal(list[i].self_ns, expected);
        assert_int_equal(m.o->rows[list[i].longest].duration_ns, list[i].longest_ns);
        self_ns += list[i].self_ns;
        spans += list[i].spans;
        errors += list[i].errors;
        if (i)
            assert_true(list[i - 1].self_ns >= list[i].self_ns);
    }
    assert_int_equal(self_ns, 100); /* no two at once: all of the trace, once */
    assert_int_equal(spans, 4);
    assert_int_equal(errors, 1);
    assert_in_range(n, 2, 4);
    free(list);
    made_done(&m);
}

static void the_critical_path_goes_back_from_the_last_end(void **state)
{
    /* 2 and 3 overlap: only 3, which ended last, was waited for; 5 ends before it begins. */
    const struct brief briefs[] = {{1, 0, 0, 100}, {2, 1, 40, 30}, {3, 1, 50, 45},
                                   {4, 3, 60, 10}, {5, 1, 5, 30},  {6, 1, 96, 50}};
    static const bool critical[] = {true, true, false, true, true, false};
    struct made m;
    made_init(&m, briefs, 6);
    assert_rows(m.o, "1 .5 .2 .3 ..4 .6");
    assert_int_equal(outline_critical(m.o), 0);
    for (int i = 0; i < 6; i++)
        assert_int_equal((m.o->rows[i].bits & OUTLINE_CRITICAL) != 0, critical[i]);
    made_done(&m);
}

static void a_chain_of_a_hundred_thousand_spans_is_built(void **state)
{
    enum { N = 100000 };
    struct brief *briefs = calloc(N, sizeof *briefs);
    for (unsigned i = 0; i < N; i++)
        briefs[i] = (struct brief){i + 1, i, i, N - i};
    struct made m;
    made_init(&m, briefs, N);
    assert_int_equal(m.o->depth, N);
    assert_int_equal(m.o->rows[0].size, N - 1);
    assert_int_equal(outline_critical(m.o), 0);
    free(briefs);
    made_done(&m);
}

/* ---- clocks ---- */

static void a_clock_that_calls_prove_wrong_is_put_right_within_its_bounds(void **state)
{
    enum { C = SPAN_KIND_CLIENT, S = SPAN_KIND_SERVER };
    /* "db" is some 500 ahead: two calls that it seems to answer after they ended. "cache", below it, agrees with it. */
    const struct brief briefs[] = {
        {1, 0, 0, 1000, false, "api", S},   {2, 1, 100, 100, false, "api", C},
        {3, 2, 620, 60, false, "db", S},    {4, 1, 300, 100, false, "api", C},
        {5, 4, 830, 50, false, "db", S},    {6, 3, 630, 40, false, "db", C},
        {7, 6, 640, 20, false, "cache", S}, {8, 1, 500, 100, false, "api", C},
        {9, 8, 520, 50, false, "mail", S},
    };
    struct made m;
    struct outline_clock *clocks;
    made_init(&m, briefs, sizeof briefs / sizeof *briefs);
    assert_int_equal(outline_clocks(m.o, &clocks), 0);
    for (uint32_t i = 0; i < m.o->n_services; i++) {
        const struct outline_clock *c = &clocks[i];
        struct str name = m.o->services[i].name;
        assert_true(c->is_known && !c->is_contradicted);
        if (str_eq(name, STR("db"))) {
            /* of 2 and 3: 480 to 520; of 4 and 5: 480 to 530 */
            assert_int_equal(c->low_ns, 480);
            assert_int_equal(c->high_ns, 520);
            assert_int_equal(c->ahead_ns, 500);
            assert_int_equal(c->calls, 2);
            assert_true(c->has_bounds);
        } else if (str_eq(name, STR("cache"))) {
            /* -10 to 10 of db's clock */
            assert_int_equal(c->low_ns, 490);
            assert_int_equal(c->high_ns, 510);
            assert_int_equal(c->ahead_ns, 500);
            assert_str_eq(m.o->services[c->relative_to].name, STR("db"));
        } else {
            assert_int_equal(c->ahead_ns, 0);
        }
    }
    free(clocks);
    made_done(&m);
}

static void calls_that_contradict_each_other_shift_nothing(void **state)
{
    enum { C = SPAN_KIND_CLIENT, S = SPAN_KIND_SERVER };
    const struct brief briefs[] = {
        {1, 0, 0, 1000, false, "api", S}, {2, 1, 100, 100, false, "api", C},
        {3, 2, 620, 60, false, "db", S},  {4, 1, 300, 100, false, "api", C},
        {5, 4, 320, 50, false, "db", S},
    };
    struct made m;
    struct outline_clock *clocks;
    made_init(&m, briefs, 5);
    assert_int_equal(outline_clocks(m.o, &clocks), 0);
    for (uint32_t i = 0; i < m.o->n_services; i++) {
        assert_int_equal(clocks[i].ahead_ns, 0);
        assert_int_equal(clocks[i].is_contradicted, str_eq(m.o->services[i].name, STR("db")));
    }
    free(clocks);
    made_done(&m);
}

static void a_message_bounds_a_clock_on_one_side_alone(void **state)
{
    const struct brief briefs[] = {
        {1, 0, 100, 50, false, "api", SPAN_KIND_PRODUCER},
        {2, 1, 30, 500, false, "worker", SPAN_KIND_CONSUMER},
    };
    struct made m;
    struct outline_clock *clocks;
    made_init(&m, briefs, 2);
    assert_int_equal(outline_clocks(m.o, &clocks), 0);
    for (uint32_t i = 0; i < m.o->n_services; i++)
        if (str_eq(m.o->services[i].name, STR("worker"))) {
            assert_int_equal(clocks[i].ahead_ns, -70); /* it began before it was sent */
            assert_false(clocks[i].has_bounds);
        }
    free(clocks);
    made_done(&m);
}

/* ---- lines ---- */

static void assert_lines(const struct outline *o, const struct outline_fold *fold,
                         const char *expected)
{
    struct outline_lines lines;
    char text[400] = "";
    assert_int_equal(outline_lines_init(o, fold, &lines), 0);
    for (uint32_t i = 0, at = 0; i < lines.n; i++) {
        uint32_t row = outline_line_row(&lines, i), end = outline_line_end(o, &lines, i);
        bool merged = outline_line_is_merged(&lines, i);
        at += (uint32_t)snprintf(text + at, sizeof text - at, "%s%u", i ? " " : "",
                                 id_of(&o->rows[row]));
        if (merged)
            at += (uint32_t)snprintf(text + at, sizeof text - at, "+%u", end - row);
        for (uint32_t r = row; r < end; r++)
            assert_int_equal(outline_line_of(&lines, r), i);
    }
    outline_lines_done(&lines);
    assert_string_equal(text, expected);
}

static void folding_hides_what_is_below_by_depth_and_by_single_span(void **state)
{
    const struct brief briefs[] = {{1, 0, 0, 9}, {2, 1, 1, 9}, {3, 2, 2, 9}, {4, 1, 3, 9}};
    struct made m;
    made_init(&m, briefs, 4);
    assert_lines(m.o, &(struct outline_fold){.depth = OUTLINE_NONE}, "1 2 3 4");
    assert_lines(m.o, &(struct outline_fold){OUTLINE_NONE, (uint32_t[]){1}, 1, 0}, "1 2 4");
    assert_lines(m.o, &(struct outline_fold){.depth = 0}, "1");
    assert_lines(m.o, &(struct outline_fold){.depth = 1}, "1 2 4");
    assert_lines(m.o, &(struct outline_fold){0, (uint32_t[]){0}, 1, 0}, "1 2 4");
    made_done(&m);
}

static void neighbours_too_short_to_see_are_one_line_but_never_errors(void **state)
{
    const struct brief briefs[] = {{1, 0, 0, 1000},      {2, 1, 1, 5},    {3, 2, 2, 3},
                                   {4, 1, 10, 5},        {5, 1, 20, 500}, {6, 1, 600, 5},
                                   {7, 1, 610, 5, true}, {8, 1, 620, 5},  {9, 8, 621, 300},
                                   {10, 1, 700, 5},      {11, 1, 701, 5}, {12, 1, 702, 5}};
    struct made m;
    made_init(&m, briefs, 12);
    assert_lines(m.o, &(struct outline_fold){OUTLINE_NONE, NULL, 0, 10}, "1 2+3 5 6 7 8 9 10+3");
    assert_lines(m.o, &(struct outline_fold){OUTLINE_NONE, NULL, 0, 1},
                 "1 2 3 4 5 6 7 8 9 10 11 12");
    made_done(&m);
}

static void the_overview_shows_every_lane_and_errors_last(void **state)
{
    const struct brief briefs[] = {
        {1, 0, 0, 100}, {2, 1, 50, 50, false, "db"}, {3, 1, 0, 5, true, "db"}};
    struct made m;
    made_init(&m, briefs, 3);
    struct outline_lines lines;
    uint32_t cells[3 * 10];
    assert_int_equal(outline_lines_init(m.o, &(struct outline_fold){.depth = OUTLINE_NONE}, &lines),
                     0);
    assert_int_equal(outline_overview(m.o, &lines, NULL, 10, 3, cells), 0);
    assert_rows(m.o, "1 .3 .2");
    for (int x = 0; x < 10; x++) {
        assert_int_equal(cells[x], 1);
        assert_int_equal(cells[10 + x], x == 0 ? 2 | OUTLINE_CELL_ERROR : 0);
        assert_int_equal(cells[20 + x], x >= 5 ? 2 : 0);
    }
    /* All in one lane: what comes later covers. */
    assert_int_equal(outline_overview(m.o, &lines, NULL, 10, 1, cells), 0);
    for (int x = 0; x < 10; x++)
        assert_int_equal(cells[x], x == 0 ? 2 | OUTLINE_CELL_ERROR : x < 5 ? 1 : 2);
    outline_lines_done(&lines);
    made_done(&m);
}

/* ---- finding ---- */

static void assert_found(const struct outline *o, struct outline_found *found, const char *expected)
{
    char text[200] = "";
    for (uint32_t i = 0, at = 0; i < o->n; i++)
        if (outline_found_has(found, i))
            at += (uint32_t)snprintf(text + at, sizeof text - at, "%s%u", at ? " " : "",
                                     id_of(&o->rows[i]));
    assert_string_equal(text, expected);
    outline_found_done(found);
}

static void text_is_found_in_names_values_and_pairs_in_any_case(void **state)
{
    const struct brief briefs[] = {{1, 0, 0, 9}, {2, 1, 1, 9, false, "Data"}, {11, 2, 2, 9}};
    static const char *const cases[][2] = {
        {"value-2", "2"}, {"KEY=value-1", "1 11"}, {"data", "2"},   {"name OF 11", "11"},
        {"  ", ""},       {"y=Value-11", "11"},    {"nothing", ""}, {"0100000000000000", "1"}};
    struct made m;
    made_init(&m, briefs, 3);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct outline_found found;
        assert_int_equal(outline_find_text(m.o, m.view, str_from(cases[i][0]), 0, &found), 0);
        assert_found(m.o, &found, cases[i][1]);
    }
    made_done(&m);
}

static void a_query_finds_what_it_finds_in_a_search(void **state)
{
    const struct brief briefs[] = {
        {1, 0, 0, 9}, {2, 1, 1, 9, true, "db"}, {3, 2, 2, 9}, {4, 1, 2, 9, true}};
    static const char *const cases[][2] = {
        {"{ status = error }", "2 4"},
        {"{ status = error } >> { }", "3"},
        {"{ resource.service.name = \"db\" && .Key = \"Value-2\" }", "2"},
        {"{ rootName = \"name of 1\" && name != \"name of 1\" }", "2 3 4"},
        {"{ status = error } | count() > 2", ""},
    };
    struct made m;
    made_init(&m, briefs, 4);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct traceql *q;
        struct error_detail detail;
        struct outline_found found;
        assert_int_equal(traceql_parse(str_from(cases[i][0]), &q, &detail), 0);
        assert_int_equal(outline_find_query(m.o, m.view, q, 0, 1 << 24, &found), 0);
        assert_found(m.o, &found, cases[i][1]);
        if (q->needs_trace)
            assert_int_equal(outline_find_query(m.o, m.view, q, 0, 100, &found), ERR_TOO_LARGE);
        traceql_free(q);
    }
    made_done(&m);
}

static void stepping_over_what_was_found_goes_around_the_end(void **state)
{
    enum { N = 200 };
    struct brief briefs[N];
    for (unsigned i = 0; i < N; i++)
        briefs[i] = (struct brief){i + 1, i ? 1 : 0, i, 9,
                                   i == 3 || i == 63 || i == 64 || i == 191};
    struct made m;
    struct outline_found found;
    made_init(&m, briefs, N);
    assert_int_equal(outline_find_bits(m.o, OUTLINE_ERROR, &found), 0);
    assert_int_equal(found.n, 4);
    static const uint32_t forward[][2] = {{OUTLINE_NONE, 3}, {3, 63}, {63, 64}, {64, 191},
                                          {191, 3},          {0, 3},  {199, 3}};
    static const uint32_t back[][2] = {{OUTLINE_NONE, 191}, {3, 191}, {63, 3}, {64, 63},
                                       {191, 64},           {0, 191}};
    for (size_t i = 0; i < sizeof forward / sizeof *forward; i++)
        assert_int_equal(outline_found_next(m.o, &found, forward[i][0], false), forward[i][1]);
    for (size_t i = 0; i < sizeof back / sizeof *back; i++)
        assert_int_equal(outline_found_next(m.o, &found, back[i][0], true), back[i][1]);
    assert_int_equal(outline_found_rank(&found, 64), 2);
    assert_int_equal(outline_found_rank(&found, 191), 3);
    outline_found_done(&found);
    made_done(&m);
}

/* ---- reading ---- */

struct walked {
    const struct outline *o;
    size_t n;
    uint64_t last_ns;
    uint8_t *seen;
};

static int walk_step(void *arg, const struct span_batch *batch)
{
    struct walked *w = arg;
    for (size_t i = 0; i < batch->n; i++) {
        uint32_t row = outline_find(w->o, &batch->spans[i].span_id);
        assert_true(row != OUTLINE_NONE && !w->seen[row]);
        w->seen[row] = 1;
        assert_true(batch->spans[i].start_ns >= w->last_ns);
        w->last_ns = batch->spans[i].start_ns;
    }
    w->n += batch->n;
    return 0;
}

static void a_walk_sees_every_span_once_in_start_order(void **state)
{
    enum { N = 3 * OUTLINE_STEP + 100 };
    struct brief *briefs = calloc(N, sizeof *briefs);
    for (unsigned i = 0; i < N; i++) /* a long stretch of equal starts, more than a step */
        briefs[i] = (struct brief){i + 1, i ? 1 : 0,
                                   i < 2 * OUTLINE_STEP ? i / 20000 : i * 7 % 1000 + 5, 9};
    struct made m;
    made_init(&m, briefs, N);
    struct walked w = {.o = m.o, .seen = calloc(N, 1)};
    assert_int_equal(outline_walk(m.o, m.view, walk_step, &w), 0);
    assert_int_equal(w.n, N);
    struct arena arena = ARENA_INIT;
    const struct span *s;
    uint32_t row = outline_find(m.o, &(struct span_id){{77}});
    assert_int_equal(outline_span(m.o, m.view, row, &arena, &s), 0);
    assert_str_eq(s->name, STR("name of 77"));
    arena_done(&arena);
    free(w.seen);
    free(briefs);
    made_done(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(spans_come_in_tree_order_siblings_by_start),
        cmocka_unit_test(a_span_without_its_parent_stands_on_its_own),
        cmocka_unit_test(circles_are_cut_at_the_earliest_span_and_no_span_is_lost),
        cmocka_unit_test(an_id_that_comes_twice_keeps_both_spans),
        cmocka_unit_test(a_row_knows_what_is_below_it),
        cmocka_unit_test(own_time_is_what_no_child_covers),
        cmocka_unit_test(operations_share_out_the_time_that_spans_have_for_themselves),
        cmocka_unit_test(the_critical_path_goes_back_from_the_last_end),
        cmocka_unit_test(a_chain_of_a_hundred_thousand_spans_is_built),
        cmocka_unit_test(a_clock_that_calls_prove_wrong_is_put_right_within_its_bounds),
        cmocka_unit_test(calls_that_contradict_each_other_shift_nothing),
        cmocka_unit_test(a_message_bounds_a_clock_on_one_side_alone),
        cmocka_unit_test(folding_hides_what_is_below_by_depth_and_by_single_span),
        cmocka_unit_test(neighbours_too_short_to_see_are_one_line_but_never_errors),
        cmocka_unit_test(the_overview_shows_every_lane_and_errors_last),
        cmocka_unit_test(text_is_found_in_names_values_and_pairs_in_any_case),
        cmocka_unit_test(a_query_finds_what_it_finds_in_a_search),
        cmocka_unit_test(stepping_over_what_was_found_goes_around_the_end),
        cmocka_unit_test(a_walk_sees_every_span_once_in_start_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
