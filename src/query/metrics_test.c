/* Metrics of a real store against plain lists of values: what a function means is written down here
 * a second time. */
#include "base/test.h"

#include "base/clock.h"
#include "query/metrics.h"
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

/* ---- the list ---- */

enum { GROUPS_MAX = 4000, STEPS = 7 };

struct group {
    char labels[2048];
    double *values[STEPS];
    size_t n[STEPS];
};

struct list {
    struct group *groups;
    size_t n;
};

static void label_text(char *out, size_t size, struct str name, const struct value *v)
{
    size_t n = strlen(out);
    if (v->type == VALUE_STRING) {
        n += (size_t)snprintf(out + n, size - n, "%.*s=\"", STR_ARG(name));
        for (size_t i = 0; i < v->string.len && n < size; i++) {
            uint8_t c = (uint8_t)v->string.ptr[i];
            n += (size_t)snprintf(out + n, size - n, c < ' ' ? "\\x%02x" : "%c", c);
        }
        assert_in_range(n, 0, size - 3);
        snprintf(out + n, size - n, "\";");
    } else if (v->type == VALUE_BOOL)
        snprintf(out + n, size - n, "%.*s=%s;", STR_ARG(name), v->boolean ? "true" : "false");
    else if (v->type == VALUE_INT)
        snprintf(out + n, size - n, "%.*s=%lld;", STR_ARG(name), (long long)v->integer);
    else if (v->type == VALUE_DOUBLE)
        snprintf(out + n, size - n, "%.*s=%.17gf;", STR_ARG(name), v->real);
    else
        snprintf(out + n, size - n, "%.*s=nil;", STR_ARG(name));
}

static void list_add(struct list *list, const char *labels, size_t step, double v)
{
    size_t i = 0;
    while (i < list->n && strcmp(list->groups[i].labels, labels))
        i++;
    assert_in_range(i, 0, GROUPS_MAX - 1);
    struct group *g = &list->groups[i];
    if (i == list->n) {
        list->n++;
        snprintf(g->labels, sizeof g->labels, "%s", labels);
    }
    g->values[step] = realloc(g->values[step], (g->n[step] + 1) * sizeof v);
    g->values[step][g->n[step]++] = v;
}

static void list_done(struct list *list)
{
    for (size_t i = 0; i < list->n; i++)
        for (size_t k = 0; k < STEPS; k++)
            free(list->groups[i].values[k]);
    free(list->groups);
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double expected(const struct traceql_metric *m, double *v, size_t n, double step_s, double q)
{
    double sum = 0;
    if (n)
        qsort(v, n, sizeof *v, ascending);
    for (size_t i = 0; i < n; i++)
        sum += v[i];
    switch (m->node) {
    case TRACEQL_RATE:
        return (double)n / step_s;
    case TRACEQL_COUNT_OVER_TIME:
    case TRACEQL_HISTOGRAM_OVER_TIME:
        return (double)n;
    case TRACEQL_MIN_OVER_TIME:
        return n ? v[0] : NAN;
    case TRACEQL_MAX_OVER_TIME:
        return n ? v[n - 1] : NAN;
    case TRACEQL_SUM_OVER_TIME:
        return n ? sum : NAN;
    case TRACEQL_AVG_OVER_TIME:
        return n ? sum / (double)n : NAN;
    default: {
        size_t rank = (size_t)ceil(q * (double)n);
        return n ? v[rank ? rank - 1 : 0] : NAN;
    }
    }
}

/* What may be lost where large values cancel each other out. */
static double lost_in_sum(const double *v, size_t n)
{
    double all = 0;
    for (size_t i = 0; i < n; i++)
        all += fabs(v[i]);
    return 1e-14 * all;
}

static struct value plain(const struct traceql_expr *e, struct value v)
{
    static const char *const kinds[] = {"unspecified", "internal", "server",
                                        "client",      "producer", "consumer"};
    static const char *const statuses[] = {"unset", "ok", "error"};
    if (e->type == TRACEQL_KIND)
        return (struct value){.type = VALUE_STRING, .string = str_from(kinds[v.integer])};
    if (e->type == TRACEQL_STATUS)
        return (struct value){.type = VALUE_STRING, .string = str_from(statuses[v.integer])};
    if (v.type == VALUE_DOUBLE && v.real == 0)
        v.real = 0; /* -0 too */
    bool none = v.type > VALUE_DOUBLE || (v.type == VALUE_DOUBLE && isnan(v.real));
    return none ? (struct value){.type = VALUE_NONE} : v;
}

static void list_span(struct list *list, const struct traceql_metric *m, const struct span *s,
                      const struct traceql_trace *trace, size_t step)
{
    char labels[2048] = "";
    struct traceql_hex hex;
    struct value v;
    double number = 0;
    if (m->field) {
        traceql_value(m->field, s, trace, &hex, &v);
        if (v.type != VALUE_INT && v.type != VALUE_DOUBLE)
            return;
        number = v.type == VALUE_INT ? (double)v.integer : v.real;
        if (!isfinite(number))
            return;
    }
    double unit = m->field && m->field->type == TRACEQL_DURATION ? 1e9 : 1;
    for (size_t i = 0; i < m->n_by; i++) {
        struct buf name = BUF_INIT;
        traceql_print_field(m->by[i], &name);
        traceql_value(m->by[i], s, trace, &hex, &v);
        v = plain(m->by[i], v);
        label_text(labels, sizeof labels, buf_as_str(&name), &v);
        buf_done(&name);
    }
    if (m->node == TRACEQL_HISTOGRAM_OVER_TIME) {
        double bucket = 0x1p-1074;
        while (bucket < number)
            bucket *= 2;
        v = (struct value){.type = VALUE_DOUBLE, .real = number > 0 ? bucket / unit : 0};
        label_text(labels, sizeof labels, STR("__bucket"), &v);
    }
    list_add(list, labels, step, number / unit);
}

static int in_order(const void *a, const void *b)
{
    const struct span *x = a, *y = b;
    if (x->start_ns != y->start_ns)
        return x->start_ns < y->start_ns ? -1 : 1;
    return memcmp(x->span_id.bytes, y->span_id.bytes, SPAN_ID_SIZE);
}

static void list_fill(struct list *list, const struct fixture *f, struct store_view *view,
                      const struct traceql_metric *m, const struct metrics_result *result)
{
    uint64_t end_ns = result->start_ns + result->n_steps * result->step_ns;
    struct span *spans = calloc(f->n + 1, sizeof *spans);
    uint8_t *input = calloc(f->n + 1, 1), *seen = calloc(f->n + 1, 1);
    for (size_t first = 0; first < f->n; first++) {
        size_t n = 0, n_sets;
        if (seen[first])
            continue;
        for (size_t i = first; i < f->n; i++)
            if (!trace_id_cmp(&f->spans[i].trace_id, &f->spans[first].trace_id)) {
                spans[n++] = f->spans[i];
                seen[i] = 1;
            }
        qsort(spans, n, sizeof *spans, in_order);
        struct arena arena = ARENA_INIT;
        struct trace_summary summary;
        struct traceql_tree tree;
        struct traceql_spans *sets;
        for (size_t i = 0; i < n; i++)
            input[i] = spans[i].start_ns >= result->start_ns && spans[i].start_ns < end_ns;
        assert_int_equal(store_trace_summary(view, &spans[0].trace_id, &arena, &summary), 0);
        assert_int_equal(traceql_tree_init(&tree, spans, n, &arena), 0);
        struct traceql_trace trace = {
            summary.root_name, summary.root_service,
            summary.end_ns > summary.start_ns ? summary.end_ns - summary.start_ns : 0, &tree};
        assert_int_equal(traceql_run(m->stages, &trace, input, &arena, &sets, &n_sets), 0);
        for (size_t k = 0; k < n_sets; k++)
            for (size_t i = 0; i < n; i++)
                if (sets[k].marks[i])
                    list_span(list, m, &spans[i], &trace,
                              (spans[i].start_ns - result->start_ns) / result->step_ns);
        arena_done(&arena);
    }
    free(seen);
    free(input);
    free(spans);
}

/* ---- comparing ---- */

static bool is_near(double a, double b, double tolerance)
{
    if (isnan(a) || isnan(b))
        return isnan(a) && isnan(b);
    return fabs(a - b) <= tolerance * fmax(fabs(a), fabs(b)) + 1e-9 * fmax(fabs(a), 1);
}

static const char *const queries[] = {
    /* From rows: */
    "{ } | rate()",
    "{ } | count_over_time() by (name)",
    "{ status = error } | count_over_time() by (kind, status)",
    "{ } | rate() by (resource.service.name)",
    "{ } | rate()",
    "{ status = error } | count_over_time() by (resource.key.4, kind)",
    "{ .key.1 = \"value 3\" } | count_over_time() by (name, resource.service.name)",
    "{ kind = server } | count_over_time() by (span.key.2)",
    "{ } | count_over_time() by (.key.1, resource.key.4, span.key.3)",
    "{ } | count_over_time() by (span.key.5)",
    "{ } | avg_over_time(duration)",
    "{ } | min_over_time(.key.2) by (name)",
    "{ } | max_over_time(span.key.2)",
    "{ } | sum_over_time(.key.2) by (.key.3)",
    "{ } | quantile_over_time(duration, 0, .5, 0.9, 1)",
    "{ } | quantile_over_time(.key.2, .5) by (resource.service.name)",
    "{ } | histogram_over_time(duration)",
    "{ .key.2 != nil } | histogram_over_time(.key.2) by (kind)",
    "{ name = \"nowhere\" } | rate()",
    /* From whole traces: */
    "{ } > { } | rate() by (name)",
    "{ status = error } &>> { } | avg_over_time(duration)",
    "{ rootName =~ \".*\" } | count_over_time() by (rootServiceName)",
    "{ } | count_over_time() by (event:name)",
    "{ } | by(name) | count() > 1 | count_over_time() by (nestedSetParent)",
    "{ } | max_over_time(span:childCount)",
    "{ .key.2 + 1 > 3 } | quantile_over_time(duration, .75)",
};

static void check_series(const char *text, const struct traceql_metric *m, struct list *list,
                         const struct metrics_result *result)
{
    size_t per_group = m->n_quantiles ? m->n_quantiles : 1;
    if (result->n != list->n * per_group)
        fail_msg("%s: %zu series, not %zu of %zu", text, result->n, list->n, per_group);
    for (size_t i = 0; i < result->n; i++) {
        const struct metrics_series *s = &result->series[i];
        char labels[2048] = "";
        double q = 0;
        for (size_t k = 0; k < s->n_labels; k++) {
            if (str_eq(s->labels[k].name, STR("p")))
                q = s->labels[k].value.real;
            else if (!str_eq(s->labels[k].name, STR("__name__")))
                label_text(labels, sizeof labels, s->labels[k].name, &s->labels[k].value);
        }
        size_t g = 0;
        while (g < list->n && strcmp(list->groups[g].labels, labels))
            g++;
        if (g == list->n)
            fail_msg("%s: nobody expects %s", text, labels);
        for (size_t k = 0; k < STEPS; k++) {
            double wanted = expected(m, list->groups[g].values[k], list->groups[g].n[k],
                                     (double)result->step_ns / 1e9, q);
            bool quantile = m->node == TRACEQL_QUANTILE_OVER_TIME;
            bool sum = m->node == TRACEQL_SUM_OVER_TIME || m->node == TRACEQL_AVG_OVER_TIME;
            if (sum && fabs(s->samples[k] - wanted) <=
                           lost_in_sum(list->groups[g].values[k], list->groups[g].n[k]))
                continue;
            if (!is_near(s->samples[k], wanted, quantile ? 0.008 : 1e-12))
                fail_msg("%s: %s step %zu: %.17g, not %.17g", text, labels, k, s->samples[k],
                         wanted);
        }
    }
}

/* Both ways: counted where the columns are, and span by span. */
static void check_metric(struct fixture *f, struct store_view *view, const char *text,
                         uint64_t start, uint64_t step)
{
    struct traceql *q = parse(text);
    for (int way = 0; way < 2; way++) {
        struct arena arena = ARENA_INIT;
        struct error_detail detail = {0};
        struct metrics_result result;
        struct metrics metrics = {.query = q,
                                  .start_ns = start,
                                  .end_ns = start + (STEPS - 1) * step + 1,
                                  .step_ns = step,
                                  .by_rows = way != 0};
        int err = metrics_run(view, &metrics, &arena, &result, &detail);
        if (err)
            fail_msg("%s: %s", text, detail.message);
        assert_int_equal(result.n_steps, STEPS);
        assert_int_equal(result.start_ns, start);
        struct list list = {.groups = calloc(GROUPS_MAX, sizeof *list.groups)};
        list_fill(&list, f, view, q->metric, &result);
        check_series(text, q->metric, &list, &result);
        list_done(&list);
        arena_done(&arena);
    }
    traceql_free(q);
}

static void check_metrics(struct fixture *f)
{
    struct store_view *view = store_view_new(f->store);
    uint64_t low = UINT64_MAX, high = 0;
    for (size_t i = 0; i < f->n; i++) {
        low = f->spans[i].start_ns < low ? f->spans[i].start_ns : low;
        high = f->spans[i].start_ns > high ? f->spans[i].start_ns : high;
    }
    for (size_t i = 0; i < sizeof queries / sizeof *queries; i++) {
        /* Some spans lie before and behind; and then most of them in a step or two. */
        uint64_t step = (high - low) / (STEPS + 2) + 1;
        check_metric(f, view, queries[i], low - low % step + step, step);
        uint64_t some = f->spans[f->n / 2].start_ns / 2;
        step = 24 * 3600 * NS_PER_S;
        check_metric(f, view, queries[i], 2 * some - 2 * some % step, step);
    }
    store_view_free(view);
}

static void metrics_say_what_a_list_says(void **state)
{
    struct fixture f;
    const char *seed = getenv("METRICS_SEED");
    fixture_init(&f, seed ? strtoull(seed, NULL, 10) : clock_realtime_ns(), NULL);
    for (int i = 0; i < 30; i++) {
        struct span_batch batch = fixture_batch(&f, 10);
        fixture_append(&f, &batch);
        if (i == 10 || i == 20)
            assert_int_equal(store_seal(f.store), 0);
    }
    check_metrics(&f);
    assert_int_equal(store_seal(f.store), 0);
    check_metrics(&f);
    fixture_done(&f);
}

/* ---- series of known spans ---- */

/* Ten seconds; in second s are s + 1 spans of "a", ten of "b", and one error of each. */
static void append_known(struct store *store)
{
    static const struct resource resource = {.service_name = STR("s")};
    static const struct scope scope = {.name = STR("")};
    struct span spans[200];
    size_t n = 0;
    for (uint64_t s = 0; s < 10; s++)
        for (uint64_t k = 0; k < s + 1 + 10; k++) {
            bool a = k < s + 1;
            spans[n] = (struct span){
                .trace_id = {{1, (uint8_t)s}},
                .span_id = {{(uint8_t)(n + 1), 1}},
                .start_ns = (100 + s) * NS_PER_S + k,
                .end_ns = (100 + s) * NS_PER_S + k + 5,
                .name = a ? STR("a") : STR("b"),
                .status_code = k == 0 || k == s + 1 ? STATUS_ERROR : STATUS_OK,
                .resource = &resource,
                .scope = &scope,
            };
            n++;
        }
    struct span_batch batch = {.spans = spans, .n = n};
    assert_int_equal(store_append_wait(store, BODY_OTLP_JSON, STR("{}"), &batch), 0);
}

static void check_known_at(struct store_view *view, const char *text, struct metrics metrics,
                           const char *wanted)
{
    struct traceql *q = parse(text);
    struct arena arena = ARENA_INIT;
    struct error_detail detail = {0};
    struct metrics_result r;
    metrics.query = q;
    if (metrics_run(view, &metrics, &arena, &r, &detail))
        fail_msg("%s: %s", text, detail.message);
    struct buf out = BUF_INIT;
    for (size_t i = 0; i < r.n; i++) {
        char labels[2048] = "";
        for (size_t k = 0; k < r.series[i].n_labels; k++)
            label_text(labels, sizeof labels, r.series[i].labels[k].name,
                       &r.series[i].labels[k].value);
        buf_cstr(&out, labels);
        for (size_t k = 0; k < r.n_steps; k++) {
            if (isnan(r.series[i].samples[k]))
                buf_cstr(&out, " -");
            else
                buf_printf(&out, " %g", r.series[i].samples[k]);
        }
        buf_cstr(&out, "\n");
    }
    if (!str_eq(buf_as_str(&out), str_from(wanted)))
        fail_msg("%s:\n%.*snot\n%s", text, (int)out.len, out.ptr, wanted);
    buf_done(&out);
    arena_done(&arena);
    traceql_free(q);
}

static void check_known(struct store_view *view, const char *text, const char *wanted)
{
    check_known_at(view, text, (struct metrics){NULL, 100 * NS_PER_S, 110 * NS_PER_S, NS_PER_S, 0},
                   wanted);
}

static void steps_begin_where_they_are_told_to(void **state)
{
    struct fixture f;
    fixture_init(&f, 1, NULL);
    append_known(f.store);
    struct store_view *view = store_view_new(f.store);
    struct metrics m = {.start_ns = 100 * NS_PER_S + 1,
                        .end_ns = 110 * NS_PER_S + 1,
                        .step_ns = NS_PER_S,
                        .from_start = true};
    check_known_at(view, "{ } | rate()", m, "__name__=\"rate\"; 11 12 13 14 15 16 17 18 19 19\n");
    m.step_ns = m.end_ns - m.start_ns;
    check_known_at(view, "{ } | count_over_time()", m, "__name__=\"count_over_time\"; 154\n");
    m.end_ns--; /* the step goes a nanosecond further */
    check_known_at(view, "{ } | count_over_time()", m, "__name__=\"count_over_time\"; 154\n");
    store_view_free(view);
    fixture_done(&f);
}

/* The exemplars of a metric by name, of the traces of append_known. */
static void check_exemplars(struct store_view *view, const char *text, size_t most, size_t wanted,
                            bool of_samples)
{
    struct traceql *q = parse(text);
    struct arena arena = ARENA_INIT;
    struct error_detail detail = {0};
    struct metrics_result r;
    struct metrics m = {q, 100 * NS_PER_S, 110 * NS_PER_S, NS_PER_S, 0, .exemplars = most};
    bool seen[10] = {false};
    size_t n = 0;
    if (metrics_run(view, &m, &arena, &r, &detail))
        fail_msg("%s: %s", text, detail.message);
    for (size_t i = 0; i < r.n; i++) {
        const struct metrics_series *s = &r.series[i];
        for (size_t k = 0; k < s->n_exemplars; k++) {
            const struct metrics_exemplar *x = &s->exemplars[k];
            size_t second = x->trace_id.bytes[1];
            assert_in_range(second, 0, 9);
            assert_false(seen[second]);
            seen[second] = true;
            assert_int_equal(x->start_ns / NS_PER_S, 100 + second);
            if (str_eq(s->labels[0].name, STR("name")))
                assert_true(str_eq(x->name, s->labels[0].value.string));
            assert_true(x->service.len > 0);
            assert_true(k == 0 || s->exemplars[k - 1].start_ns <= x->start_ns);
            assert_float_equal(x->value, of_samples ? s->samples[second] : 5e-9, 1e-12);
            n++;
        }
        /* None has all of them while another has none. */
        if (wanted > 1)
            assert_true(s->n_exemplars > 0);
    }
    if (n != wanted)
        fail_msg("%s: %zu exemplars of %zu, not %zu", text, n, most, wanted);
    arena_done(&arena);
    traceql_free(q);
}

static void exemplars_are_spans_of_their_series(void **state)
{
    struct fixture f;
    fixture_init(&f, 1, NULL);
    append_known(f.store);
    for (int sealed = 0; sealed < 2; sealed++) {
        struct store_view *view = store_view_new(f.store);
        check_exemplars(view, "{ } | rate() by (name)", 100, 10, true);
        check_exemplars(view, "{ } | rate() by (name)", 4, 4, true);
        check_exemplars(view, "{ } | rate()", 1, 1, true);
        check_exemplars(view, "{ } | rate() by (name)", 0, 0, true);
        check_exemplars(view, "{ } | avg_over_time(duration) by (name)", 100, 10, false);
        check_exemplars(view, "{ } | histogram_over_time(duration)", 100, 10, true);
        check_exemplars(view, "{ } | quantile_over_time(duration, .5)", 100, 10, false);
        check_exemplars(view, "{ } | count() > 0 | rate() by (name)", 100, 10, true);
        check_exemplars(view, "{ } | count() > 0 | max_over_time(duration) by (name)", 100, 10,
                        false);
        /* What was calculated is shown with its samples; what has none shows nothing. */
        check_exemplars(view, "({ } | max_over_time(duration)) * 2", 100, 10, true);
        check_exemplars(view, "{ } | rate() < 13.5", 100, 3, true);
        check_exemplars(view, "{ name = \"a\" } | compare({ status = error })", 100, 0, true);
        store_view_free(view);
        assert_int_equal(store_seal(f.store), 0);
    }
    struct traceql *q = parse("{ } | rate() with (exemplars=7)");
    assert_int_equal(metrics_exemplars_asked(q, 3), 7);
    traceql_free(q);
    q = parse("{ } | rate() with (exemplars=false)");
    assert_int_equal(metrics_exemplars_asked(q, 3), 0);
    traceql_free(q);
    q = parse("{ } | rate() with (exemplars=true)");
    assert_int_equal(metrics_exemplars_asked(q, 3), 3);
    assert_int_equal(metrics_exemplars_asked(q, 0), METRICS_EXEMPLARS_MAX);
    traceql_free(q);
    q = parse("{ } | rate() with (exemplars=1000000)");
    assert_int_equal(metrics_exemplars_asked(q, 0), METRICS_EXEMPLARS_MAX);
    traceql_free(q);
    fixture_done(&f);
}

static void series_are_joined_ranked_and_filtered(void **state)
{
    struct fixture f;
    fixture_init(&f, 1, NULL);
    append_known(f.store);
    struct store_view *view = store_view_new(f.store);
    check_known(view, "{ } | rate() by (name)",
                "name=\"a\"; 1 2 3 4 5 6 7 8 9 10\n"
                "name=\"b\"; 10 10 10 10 10 10 10 10 10 10\n");
    check_known(view, "{ } | rate()", "__name__=\"rate\"; 11 12 13 14 15 16 17 18 19 20\n");
    check_known(view, "{ } | rate() by (name) > 7",
                "name=\"a\"; - - - - - - - 8 9 10\n"
                "name=\"b\"; 10 10 10 10 10 10 10 10 10 10\n");
    check_known(view, "{ } | rate() by (name) < 3 | topk(5)", "name=\"a\"; 1 2 - - - - - - - -\n");
    check_known(view, "{ } | rate() by (name) | topk(1)",
                "name=\"a\"; - - - - - - - - - 10\n"
                "name=\"b\"; 10 10 10 10 10 10 10 10 10 -\n");
    check_known(view, "{ } | rate() by (name) | bottomk(1)", "name=\"a\"; 1 2 3 4 5 6 7 8 9 10\n");
    check_known(view, "({ status = error } | rate()) / ({ } | count_over_time()) * 100 > 10",
                "__name__=\"rate\"; 18.1818 16.6667 15.3846 14.2857 13.3333 12.5 11.7647 11.1111 "
                "10.5263 -\n");
    check_known(view, "1 - ({ } | rate() by (name)) / 2",
                "name=\"a\"; 0.5 0 -0.5 -1 -1.5 -2 -2.5 -3 -3.5 -4\n"
                "name=\"b\"; -4 -4 -4 -4 -4 -4 -4 -4 -4 -4\n");
    check_known(view, "({ name = \"a\" } | rate() by (name)) + ({ } | rate() by (name))",
                "name=\"a\"; 2 4 6 8 10 12 14 16 18 20\n");
    check_known(view, "({ } | rate()) / 0", "");
    check_known(view, "{ } | sum_over_time(duration)",
                "__name__=\"sum_over_time\"; 5.5e-08 6e-08 6.5e-08 7e-08 7.5e-08 8e-08 8.5e-08 "
                "9e-08 9.5e-08 1e-07\n");
    check_known(view, "{ name = \"a\" } | compare({ status = error }, 1)",
                "__meta_type=\"baseline\";kind=\"unspecified\"; 0 1 2 3 4 5 6 7 8 9\n"
                "__meta_type=\"baseline\";name=\"a\"; 0 1 2 3 4 5 6 7 8 9\n"
                "__meta_type=\"baseline\";rootName=\"a\"; 0 1 2 3 4 5 6 7 8 9\n"
                "__meta_type=\"baseline\";rootServiceName=\"s\"; 0 1 2 3 4 5 6 7 8 9\n"
                "__meta_type=\"baseline\";status=\"ok\"; 0 1 2 3 4 5 6 7 8 9\n"
                "__meta_type=\"baseline_total\";kind=nil; 0 1 2 3 4 5 6 7 8 9\n"
                "__meta_type=\"baseline_total\";name=nil; 0 1 2 3 4 5 6 7 8 9\n"
                "__meta_type=\"baseline_total\";rootName=nil; 0 1 2 3 4 5 6 7 8 9\n"
                "__meta_type=\"baseline_total\";rootServiceName=nil; 0 1 2 3 4 5 6 7 8 9\n"
                "__meta_type=\"baseline_total\";status=nil; 0 1 2 3 4 5 6 7 8 9\n"
                "__meta_type=\"selection\";kind=\"unspecified\"; 1 1 1 1 1 1 1 1 1 1\n"
                "__meta_type=\"selection\";name=\"a\"; 1 1 1 1 1 1 1 1 1 1\n"
                "__meta_type=\"selection\";rootName=\"a\"; 1 1 1 1 1 1 1 1 1 1\n"
                "__meta_type=\"selection\";rootServiceName=\"s\"; 1 1 1 1 1 1 1 1 1 1\n"
                "__meta_type=\"selection\";status=\"error\"; 1 1 1 1 1 1 1 1 1 1\n"
                "__meta_type=\"selection_total\";kind=nil; 1 1 1 1 1 1 1 1 1 1\n"
                "__meta_type=\"selection_total\";name=nil; 1 1 1 1 1 1 1 1 1 1\n"
                "__meta_type=\"selection_total\";rootName=nil; 1 1 1 1 1 1 1 1 1 1\n"
                "__meta_type=\"selection_total\";rootServiceName=nil; 1 1 1 1 1 1 1 1 1 1\n"
                "__meta_type=\"selection_total\";status=nil; 1 1 1 1 1 1 1 1 1 1\n");
    store_view_free(view);
    fixture_done(&f);
}

static void times_and_limits_are_checked(void **state)
{
    struct fixture f;
    fixture_init(&f, 1, NULL);
    append_known(f.store);
    struct store_view *view = store_view_new(f.store);
    struct traceql *q = parse("{ } | rate()"), *traces = parse("{ }");
    struct arena arena = ARENA_INIT;
    struct error_detail detail = {0};
    struct metrics_result r;
    struct metrics cases[] = {
        {traces, 100, 200, 1, 0}, /* no metric */
        {q, 100, 200, 0, 0},      /* no step */
        {q, 200, 200, 1, 0},      /* no time */
        {q, 100, 100 + METRICS_STEPS_MAX + 1, 1, 0},
        {q, UINT64_MAX - 5, UINT64_MAX, 1000, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(metrics_run(view, &cases[i], &arena, &r, &detail),
                         i < 3 ? ERR_INVALID : ERR_TOO_LARGE);
    struct metrics late = {q, 0, 200 * NS_PER_S, NS_PER_S, 1};
    assert_int_equal(metrics_run(view, &late, &arena, &r, &detail), ERR_TIMEOUT);
    assert_non_null(strstr(detail.message, "longer than"));
    traceql_free(q);
    traceql_free(traces);
    arena_done(&arena);
    store_view_free(view);
    fixture_done(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(metrics_say_what_a_list_says),
        cmocka_unit_test(series_are_joined_ranked_and_filtered),
        cmocka_unit_test(steps_begin_where_they_are_told_to),
        cmocka_unit_test(exemplars_are_spans_of_their_series),
        cmocka_unit_test(times_and_limits_are_checked),
    };
    return cmocka_run_group_tests_name("metrics", tests, NULL, NULL);
}
