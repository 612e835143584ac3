/* Calls of PromQL's functions: those of samples and windows by the table (promql_functions.c), the others here. */
#include "query/promql_internal.h"

#include <math.h>
#include <stdlib.h>

/* ---- arguments ---- */

static int eval_scalars(struct promql_run *run, const struct promql_expr *e,
                        const struct promql_steps *steps, size_t from, double **ret)
{
    struct promql_value v;
    for (size_t i = from; i < e->n_args; i++) {
        int err = promql_eval(run, e->args[i], steps, &v);
        if (err)
            return err;
        ret[i - from] = v.scalar;
    }
    return 0;
}

static struct str text_of(const struct promql_expr *e)
{
    while (e->node == PROMQL_PAREN)
        e = e->left;
    return e->text;
}

/* ---- of samples ---- */

static int map_call(struct promql_run *run, const struct promql_expr *e,
                    const struct promql_steps *steps, struct promql_set *ret)
{
    struct promql_value of;
    double *args[PROMQL_ARGS_MAX] = {0}, at_step[PROMQL_ARGS_MAX];
    int err = promql_eval(run, e->args[0], steps, &of);
    if (!err)
        err = eval_scalars(run, e, steps, 1, args);
    if (!err)
        err = promql_set_make(run, of.set.n, ret);
    for (size_t i = 0; !err && i < of.set.n; i++) {
        const struct promql_series *s = &of.set.items[i];
        double *values = promql_samples(run, steps->n);
        bool any = false;
        if (!values)
            return run->detail->code;
        for (size_t k = 0; k < steps->n; k++) {
            for (size_t a = 0; a < PROMQL_ARGS_MAX; a++)
                at_step[a] = args[a] ? args[a][k] : NAN;
            values[k] = promql_is_absent(s->values[k]) ? s->values[k]
                                                       : e->function->map(s->values[k], at_step);
            any |= !promql_is_absent(values[k]);
        }
        if (!any)
            continue;
        ret->items[ret->n].values = values;
        err = promql_labels_unnamed(run, &s->labels, &ret->items[ret->n++].labels);
    }
    return err ? err : promql_set_unite(run, steps, ret);
}

/* A set of one series without labels. */
static int one_make(struct promql_run *run, const struct promql_steps *steps, double **ret_values,
                    struct promql_set *ret)
{
    int err = promql_set_make(run, 1, ret);
    if (err)
        return err;
    *ret_values = promql_samples(run, steps->n);
    if (!*ret_values)
        return run->detail->code;
    ret->items[0] = (struct promql_series){.values = *ret_values};
    ret->n = 1;
    return 0;
}

static int date_call(struct promql_run *run, const struct promql_expr *e,
                     const struct promql_steps *steps, struct promql_set *ret)
{
    double *values;
    if (e->n_args)
        return map_call(run, e, steps, ret);
    int err = one_make(run, steps, &values, ret);
    for (size_t k = 0; !err && k < steps->n; k++)
        values[k] = e->function->map((double)steps->times[k] / 1000, NULL);
    return err;
}

static int timestamp_call(struct promql_run *run, const struct promql_expr *e,
                          const struct promql_steps *steps, struct promql_set *ret)
{
    const struct promql_expr *of = e->args[0];
    struct promql_value v = {0};
    while (of->node == PROMQL_PAREN)
        of = of->left;
    bool is_selector = of->node == PROMQL_SELECTOR;
    int err = is_selector ? promql_selector(run, of, steps, true, &v.set)
                          : promql_eval(run, of, steps, &v);
    for (size_t i = 0; !err && i < v.set.n; i++) {
        struct promql_series *s = &v.set.items[i];
        double *values = is_selector ? NULL : promql_samples(run, steps->n);
        if (!is_selector && !values)
            return run->detail->code;
        for (size_t k = 0; values && k < steps->n; k++)
            values[k] = promql_is_absent(s->values[k]) ? s->values[k]
                                                       : (double)steps->times[k] / 1000;
        if (values)
            s->values = values;
        err = promql_labels_unnamed(run, &s->labels, &s->labels);
    }
    *ret = v.set;
    return err ? err : promql_set_unite(run, steps, ret);
}

/* ---- scalars and vectors ---- */

static int vector_call(struct promql_run *run, const struct promql_expr *e,
                       const struct promql_steps *steps, struct promql_set *ret)
{
    struct promql_value v;
    double *values;
    int err = promql_eval(run, e->args[0], steps, &v);
    if (!err)
        err = one_make(run, steps, &values, ret);
    if (!err)
        memcpy(values, v.scalar, steps->n * sizeof *values);
    return err;
}

static int scalar_call(struct promql_run *run, const struct promql_expr *e,
                       const struct promql_steps *steps, struct promql_value *ret)
{
    struct promql_value v = {0};
    int err = e->n_args ? promql_eval(run, e->args[0], steps, &v) : 0;
    ret->scalar = err ? NULL : promql_samples(run, steps->n);
    if (err || !ret->scalar)
        return err ? err : run->detail->code;
    for (size_t k = 0; k < steps->n; k++) {
        size_t n = 0;
        for (size_t i = 0; i < v.set.n; i++)
            if (!promql_is_absent(v.set.items[i].values[k])) {
                ret->scalar[k] = v.set.items[i].values[k];
                n++;
            }
        if (e->function->kind == FUNCTION_TIME)
            ret->scalar[k] = (double)steps->times[k] / 1000;
        else if (e->function->kind == FUNCTION_PI)
            ret->scalar[k] = M_PI;
        else if (n != 1)
            ret->scalar[k] = NAN;
    }
    return 0;
}

/* The labels that a selector gives by equality, each once. */
static int labels_of_selector(struct promql_run *run, const struct promql_expr *e,
                              struct promql_labels *ret)
{
    *ret = (struct promql_labels){NULL, 0};
    while (e->node == PROMQL_PAREN)
        e = e->left;
    int err = 0;
    for (size_t i = 0; !err && e->node == PROMQL_SELECTOR && i < e->n_matchers; i++) {
        const struct promql_matcher *m = &e->matchers[i];
        size_t times = 0;
        for (size_t k = 0; k < e->n_matchers; k++)
            times += str_eq(e->matchers[k].name, m->name);
        if (m->op == PROMQL_MATCH_EQ && times == 1 && !str_eq(m->name, STR("__name__")))
            err = promql_labels_set(run, ret, m->name, m->value, ret);
    }
    return err;
}

static int absent_call(struct promql_run *run, const struct promql_expr *e,
                       const struct promql_steps *steps, struct promql_set *ret)
{
    struct promql_value v = {0};
    double *values;
    int err = e->function->kind == FUNCTION_ABSENT
                  ? promql_eval(run, e->args[0], steps, &v)
                  : promql_windows(run, e->args[0], e->function, NULL, 0, steps, &v.set);
    if (!err)
        err = one_make(run, steps, &values, ret);
    if (!err)
        err = labels_of_selector(run, e->args[0], &ret->items[0].labels);
    for (size_t k = 0; !err && k < steps->n; k++) {
        bool any = false;
        for (size_t i = 0; i < v.set.n; i++)
            any |= !promql_is_absent(v.set.items[i].values[k]);
        values[k] = any ? promql_absent() : 1;
    }
    return err;
}

/* ---- windows ---- */

static int window_call(struct promql_run *run, const struct promql_expr *e,
                       const struct promql_steps *steps, struct promql_set *ret)
{
    double *args[PROMQL_ARGS_MAX] = {0};
    struct promql_value v;
    const struct promql_expr *matrix = NULL;
    size_t n = 0;
    for (size_t i = 0; i < e->n_args; i++) {
        if (e->args[i]->type == PROMQL_MATRIX) {
            matrix = e->args[i];
            continue;
        }
        int err = promql_eval(run, e->args[i], steps, &v);
        if (err)
            return err;
        args[n++] = v.scalar;
    }
    return promql_windows(run, matrix, e->function, args, n, steps, ret);
}

/* ---- order ---- */

static int less_first(const void *a, const void *b)
{
    double x = ((const struct promql_series *)a)->values[0],
           y = ((const struct promql_series *)b)->values[0];
    if (isnan(x) || isnan(y))
        return isnan(x) - isnan(y);
    return (x > y) - (x < y);
}

static int more_first(const void *a, const void *b)
{
    double x = ((const struct promql_series *)a)->values[0],
           y = ((const struct promql_series *)b)->values[0];
    if (isnan(x) || isnan(y))
        return isnan(x) - isnan(y);
    return (x < y) - (x > y);
}

static int sort_call(struct promql_run *run, const struct promql_expr *e,
                     const struct promql_steps *steps, struct promql_set *ret)
{
    struct promql_value v;
    int err = promql_eval(run, e->args[0], steps, &v);
    if (err)
        return err;
    *ret = v.set;
    /* Of a range there is no order but that of the labels. */
    if (run->question->is_instant && steps->n == 1 && ret->n) {
        qsort(ret->items, ret->n, sizeof *ret->items,
              e->function->kind == FUNCTION_SORT ? less_first : more_first);
        ret->in_order = true;
    }
    return 0;
}

/* ---- histogram_quantile ---- */

struct bucket {
    double up_to, count;
};

struct bucket_series {
    const struct promql_series *series;
    double up_to;
    uint32_t group;
};

static int by_group(const void *a, const void *b)
{
    const struct bucket_series *x = a, *y = b;
    if (x->group != y->group)
        return x->group < y->group ? -1 : 1;
    return (x->up_to > y->up_to) - (x->up_to < y->up_to);
}

/* Of ascending bounds; the counts are made to ascend, as rounding may have kept them from it. */
static double bucket_quantile(double q, struct bucket *b, size_t n)
{
    if (isnan(q))
        return NAN;
    if (q < 0 || q > 1)
        return q < 0 ? -INFINITY : INFINITY;
    if (!isinf(b[n - 1].up_to))
        return NAN;
    size_t unique = 0;
    for (size_t i = 0; i < n; i++) {
        if (unique && b[unique - 1].up_to == b[i].up_to)
            b[unique - 1].count += b[i].count;
        else
            b[unique++] = b[i];
    }
    n = unique;
    for (size_t i = 1; i < n; i++) {
        double before = b[i - 1].count, size = fabs(before) + fabs(b[i].count);
        if (b[i].count < before || fabs(b[i].count - before) < 1e-12 * size)
            b[i].count = before;
    }
    if (n < 2 || b[n - 1].count == 0)
        return NAN;
    double rank = q * b[n - 1].count;
    size_t at = 0;
    while (at < n - 1 && !(b[at].count >= rank))
        at++;
    if (at == n - 1)
        return b[n - 2].up_to;
    if (!at && b[0].up_to <= 0)
        return b[0].up_to;
    double from = at ? b[at - 1].up_to : 0, below = at ? b[at - 1].count : 0;
    return from + (b[at].up_to - from) * ((rank - below) / (b[at].count - below));
}

static bool bound_of(const struct promql_labels *labels, double *ret)
{
    struct str le = promql_label_get(labels, STR("le"));
    if (str_eq_nocase(le, STR("+Inf")) || str_eq_nocase(le, STR("Inf"))) {
        *ret = INFINITY;
        return true;
    }
    return str_to_double(le, ret);
}

static int bucket_groups(struct promql_run *run, const struct promql_set *set,
                         struct bucket_series *buckets, size_t *ret_n, struct promql_groups *groups)
{
    static const struct str names[] = {{"le", 2}};
    struct promql_labels labels;
    int err = promql_groups_init(run, set->n, groups);
    for (size_t i = 0; !err && i < set->n; i++) {
        struct bucket_series *b = &buckets[*ret_n];
        if (!bound_of(&set->items[i].labels, &b->up_to))
            continue;
        err = promql_labels_pick(run, &set->items[i].labels, names, 1, false, &labels);
        if (err)
            break;
        b->series = &set->items[i];
        b->group = (uint32_t)promql_group_of(groups, &labels, true);
        ++*ret_n;
    }
    return err;
}

static int histogram_quantile_call(struct promql_run *run, const struct promql_expr *e,
                                   const struct promql_steps *steps, struct promql_set *ret)
{
    struct promql_value q, v;
    struct promql_groups groups;
    size_t n = 0, past;
    int err = promql_eval(run, e->args[0], steps, &q);
    if (!err)
        err = promql_eval(run, e->args[1], steps, &v);
    if (err)
        return err;
    struct bucket_series *buckets = arena_array(run->arena, v.set.n + 1, sizeof *buckets);
    struct bucket *row = arena_array(run->arena, v.set.n + 1, sizeof *row);
    if (!buckets || !row)
        return promql_nomem(run);
    err = bucket_groups(run, &v.set, buckets, &n, &groups);
    if (!err)
        err = promql_set_make(run, groups.n, ret);
    if (n)
        qsort(buckets, n, sizeof *buckets, by_group);
    for (size_t i = 0; !err && i < n; i = past) {
        double *values = promql_samples(run, steps->n);
        for (past = i; past < n && buckets[past].group == buckets[i].group;)
            past++;
        err = values ? promql_clock(run) : run->detail->code;
        for (size_t k = 0; !err && k < steps->n; k++) {
            size_t here = 0;
            for (size_t b = i; b < past; b++)
                if (!promql_is_absent(buckets[b].series->values[k]))
                    row[here++] = (struct bucket){buckets[b].up_to, buckets[b].series->values[k]};
            values[k] = here ? bucket_quantile(q.scalar[k], row, here) : promql_absent();
        }
        ret->items[ret->n++] = (struct promql_series){.labels = groups.labels[buckets[i].group],
                                                      .values = values};
    }
    return err;
}

/* ---- labels ---- */

static int label_check(struct promql_run *run, const struct promql_expr *e, struct str name)
{
    if (promql_label_is_valid(name))
        return 0;
    return error_set(run->detail, ERR_INVALID, 0, "invalid label name in %s(): \"%.*s\"",
                     e->function->name, (int)(name.len > 60 ? 60 : name.len),
                     name.ptr ? name.ptr : "");
}

static int label_join_call(struct promql_run *run, const struct promql_expr *e,
                           const struct promql_steps *steps, struct promql_set *ret)
{
    struct promql_value v;
    struct str to = text_of(e->args[1]), separator = text_of(e->args[2]);
    int err = label_check(run, e, to);
    for (size_t i = 3; !err && i < e->n_args; i++)
        err = label_check(run, e, text_of(e->args[i]));
    if (!err)
        err = promql_eval(run, e->args[0], steps, &v);
    for (size_t i = 0; !err && i < v.set.n; i++) {
        struct promql_labels *labels = &v.set.items[i].labels;
        struct buf joined = {.bytes_max = PROMQL_LABEL_MAX};
        for (size_t a = 3; a < e->n_args; a++) {
            if (a > 3)
                buf_str(&joined, separator);
            buf_str(&joined, promql_label_get(labels, text_of(e->args[a])));
        }
        err = promql_labels_set_made(run, labels, to, &joined);
    }
    if (err)
        return err;
    *ret = v.set;
    return promql_set_unite(run, steps, ret);
}

int promql_call(struct promql_run *run, const struct promql_expr *e,
                const struct promql_steps *steps, struct promql_value *ret)
{
    switch (e->function->kind) {
    case FUNCTION_MAP:
        return map_call(run, e, steps, &ret->set);
    case FUNCTION_WINDOW:
        return window_call(run, e, steps, &ret->set);
    case FUNCTION_DATE:
        return date_call(run, e, steps, &ret->set);
    case FUNCTION_TIME:
    case FUNCTION_PI:
    case FUNCTION_SCALAR:
        return scalar_call(run, e, steps, ret);
    case FUNCTION_VECTOR:
        return vector_call(run, e, steps, &ret->set);
    case FUNCTION_ABSENT:
    case FUNCTION_ABSENT_OVER_TIME:
        return absent_call(run, e, steps, &ret->set);
    case FUNCTION_SORT:
    case FUNCTION_SORT_DESC:
        return sort_call(run, e, steps, &ret->set);
    case FUNCTION_TIMESTAMP:
        return timestamp_call(run, e, steps, &ret->set);
    case FUNCTION_HISTOGRAM_QUANTILE:
        return histogram_quantile_call(run, e, steps, &ret->set);
    case FUNCTION_LABEL_JOIN:
        return label_join_call(run, e, steps, &ret->set);
    case FUNCTION_LABEL_REPLACE:
        return promql_label_replace(run, e, steps, &ret->set);
    }
    return error_set(run->detail, ERR_UNSUPPORTED, 0, "not supported");
}
