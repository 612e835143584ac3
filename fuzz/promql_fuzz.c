/* Any text as a PromQL query: what is understood prints to a form that is understood the same, and both come to the
 * same over a few series, at an instant and over a range; what is not has a message and a place. */
#include "query/promql.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { INTERVAL_MS = 15000, NOW_MS = 3600000 };

static void fail(const char *what, struct str text)
{
    fprintf(stderr, "%s: %.*s\n", what, STR_ARG(text));
    abort();
}

static int select_series(void *arg, const struct promql_select *s, struct arena *arena,
                         struct promql_series **ret, size_t *ret_n, struct error_detail *detail)
{
    static const struct promql_label labels[][3] = {
        {{{"__name__", sizeof "__name__" - 1}, {"a", sizeof "a" - 1}},
         {{"b", sizeof "b" - 1}, {"1", sizeof "1" - 1}},
         {{"le", sizeof "le" - 1}, {"0.5", sizeof "0.5" - 1}}},
        {{{"__name__", sizeof "__name__" - 1}, {"a", sizeof "a" - 1}},
         {{"b", sizeof "b" - 1}, {"1", sizeof "1" - 1}},
         {{"le", sizeof "le" - 1}, {"+Inf", sizeof "+Inf" - 1}}},
        {{{"__name__", sizeof "__name__" - 1}, {"a", sizeof "a" - 1}},
         {{"b", sizeof "b" - 1}, {"2", sizeof "2" - 1}},
         {{"le", sizeof "le" - 1}, {"+Inf", sizeof "+Inf" - 1}}},
        {{{"__name__", sizeof "__name__" - 1}, {"c", sizeof "c" - 1}},
         {{"b", sizeof "b" - 1}, {"1", sizeof "1" - 1}},
         {{"d", sizeof "d" - 1}, {"x-y", sizeof "x-y" - 1}}},
    };
    enum { SERIES = sizeof labels / sizeof *labels };
    *ret = arena_array(arena, SERIES, sizeof **ret);
    *ret_n = 0;
    for (size_t i = 0; i < SERIES; i++) {
        bool wanted = true;
        const struct promql_labels of = {labels[i], 3};
        double *values = arena_array(arena, s->n_instants + 1, sizeof *values);
        for (size_t m = 0; m < s->n_matchers; m++)
            wanted &= promql_matches(&s->matchers[m], promql_label_get(&of, s->matchers[m].name));
        if (!wanted || !values || !*ret)
            continue;
        for (size_t k = 0; k < s->n_instants; k++) {
            int64_t n = s->instants[k] / INTERVAL_MS;
            values[k] = n < 0 || (n + (int64_t)i) % 7 == 0 ? promql_absent()
                                                           : (double)((n * (int64_t)(i + 1)) % 50);
        }
        (*ret)[(*ret_n)++] = (struct promql_series){.labels = of, .values = values};
    }
    return 0;
}

static const struct promql_source source = {
    .interval_ms = INTERVAL_MS, .last_ms = NOW_MS, .select = select_series};

/* What a query comes to, as text. */
static void evaluate(const struct promql *q, int64_t start_ms, bool is_instant, struct buf *out)
{
    struct arena arena = {.bytes_max = (size_t)64 << 20};
    struct error_detail detail = {0};
    struct promql_answer a;
    const struct promql_question question = {
        .expr = q->root,
        .start_ms = start_ms,
        .end_ms = NOW_MS,
        .step_ms = is_instant ? 1 : 61000,
        .is_instant = is_instant,
    };
    buf_clear(out);
    int err = promql_run(&question, &source, &arena, &a, &detail);
    if (err) {
        if (err != detail.code || !detail.message[0])
            abort();
        buf_printf(out, "%d %s", err, detail.message);
    }
    for (size_t i = 0; !err && i < a.n; i++) {
        for (size_t l = 0; l < a.series[i].labels.n; l++) {
            buf_str(out, a.series[i].labels.items[l].name);
            buf_str(out, a.series[i].labels.items[l].value);
        }
        for (size_t k = 0; k < a.n_times; k++)
            if (!promql_is_absent(a.series[i].values[k]))
                buf_printf(out, " %.17g", a.series[i].values[k]);
    }
    for (size_t k = 0; !err && a.scalar && k < a.n_times; k++)
        buf_printf(out, " %.17g", a.scalar[k]);
    arena_done(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str text = {(const char *)data, size};
    struct promql *q, *again;
    struct error_detail detail = {0};
    int err = promql_parse(text, &q, &detail);
    if (err) {
        if (err != detail.code || !detail.message[0] || detail.position > size)
            fail("an error without its detail", text);
        return 0;
    }
    struct buf form = BUF_INIT, form_again = BUF_INIT, a = BUF_INIT, b = BUF_INIT;
    promql_print(q->root, &form);
    /* The form may be longer than a query may be. */
    err = promql_parse(buf_as_str(&form), &again, &detail);
    if (err && err != ERR_TOO_LARGE)
        fail(detail.message, buf_as_str(&form));
    evaluate(q, NOW_MS, true, &a);
    if (!err) {
        promql_print(again->root, &form_again);
        if (!str_eq(buf_as_str(&form), buf_as_str(&form_again)))
            fail("prints to another form", buf_as_str(&form));
        evaluate(again, NOW_MS, true, &b);
        if (!str_eq(buf_as_str(&a), buf_as_str(&b)))
            fail("the form comes to something else", buf_as_str(&form));
        promql_free(again);
    }
    evaluate(q, 600000, false, &a);
    buf_done(&form);
    buf_done(&form_again);
    buf_done(&a);
    buf_done(&b);
    promql_free(q);
    return 0;
}
