/* Aggregations of PromQL: series of one group come to one, or (topk and bottomk) the extreme ones stay. */
#include "query/promql_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

struct members {
    struct promql_set set;
    struct promql_groups groups; /* of: of each series */
    double *at_step;             /* values of one group at one step */
    uint32_t *first, *after;     /* by group: its series, in order; place + 1 */
};

static int members_init(struct promql_run *run, const struct promql_expr *e, struct members *m)
{
    size_t n = m->set.n;
    struct promql_labels labels;
    int err = promql_groups_init(run, n, &m->groups);
    m->at_step = arena_array(run->arena, n + 1, sizeof *m->at_step);
    m->first = arena_zalloc(run->arena, (n + 1) * sizeof *m->first);
    m->after = arena_zalloc(run->arena, (n + 1) * sizeof *m->after);
    if (!err && (!m->at_step || !m->first || !m->after))
        err = promql_nomem(run);
    for (size_t i = n; !err && i-- > 0;) {
        err = promql_labels_pick(run, &m->set.items[i].labels, e->labels, e->n_labels, !e->without,
                                 &labels);
        if (err)
            break;
        uint32_t group = (uint32_t)promql_group_of(&m->groups, &labels, true);
        m->groups.of[i] = group;
        m->after[i] = m->first[group];
        m->first[group] = (uint32_t)i + 1;
    }
    return err;
}

static size_t gather(struct members *m, size_t group, size_t step)
{
    size_t n = 0;
    for (uint32_t at = m->first[group]; at; at = m->after[at - 1]) {
        double v = m->set.items[at - 1].values[step];
        if (!promql_is_absent(v))
            m->at_step[n++] = v;
    }
    return n;
}

static double sum_of(const double *v, size_t n)
{
    double sum = 0, error = 0;
    for (size_t i = 0; i < n; i++) {
        double t = sum + v[i];
        error += fabs(sum) >= fabs(v[i]) ? (sum - t) + v[i] : (v[i] - t) + sum;
        sum = t;
    }
    return isfinite(error) ? sum + error : sum;
}

static double extreme_of(const double *v, size_t n, bool greatest)
{
    double best = v[0];
    for (size_t i = 1; i < n; i++)
        if (isnan(best) || (greatest ? v[i] > best : v[i] < best))
            best = v[i];
    return best;
}

static double variance_of(const double *v, size_t n)
{
    double mean = 0, squares = 0;
    for (size_t i = 0; i < n; i++) {
        double delta = v[i] - mean;
        mean += delta / (double)(i + 1);
        squares += delta * (v[i] - mean);
    }
    return squares / (double)n;
}

static double reduce(enum promql_aggregation op, double *v, size_t n, double parameter)
{
    switch (op) {
    case PROMQL_SUM:
        return sum_of(v, n);
    case PROMQL_AVG:
        return sum_of(v, n) / (double)n;
    case PROMQL_MIN:
        return extreme_of(v, n, false);
    case PROMQL_MAX:
        return extreme_of(v, n, true);
    case PROMQL_COUNT:
        return (double)n;
    case PROMQL_GROUP:
        return 1;
    case PROMQL_STDDEV:
        return sqrt(variance_of(v, n));
    case PROMQL_STDVAR:
        return variance_of(v, n);
    default:
        return promql_quantile(parameter, v, n);
    }
}

static int reduce_all(struct promql_run *run, const struct promql_expr *e,
                      const struct promql_steps *steps, struct members *m, const double *parameter,
                      struct promql_set *ret)
{
    int err = promql_set_make(run, m->groups.n, ret);
    for (size_t g = 0; !err && g < m->groups.n; g++) {
        double *values = promql_samples(run, steps->n);
        err = values ? promql_clock(run) : run->detail->code;
        for (size_t k = 0; !err && k < steps->n; k++) {
            size_t n = gather(m, g, k);
            values[k] = n ? reduce(e->op, m->at_step, n, parameter ? parameter[k] : 0)
                          : promql_absent();
        }
        ret->items[ret->n++] = (struct promql_series){.labels = m->groups.labels[g],
                                                      .values = values};
    }
    return err;
}

/* ---- topk, bottomk ---- */

struct ranked {
    double v;
    uint32_t place;
};

static int greatest_first(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (isnan(x->v) != isnan(y->v))
        return isnan(x->v) ? 1 : -1;
    if (x->v != y->v && !isnan(x->v))
        return x->v > y->v ? -1 : 1;
    return (x->place > y->place) - (x->place < y->place);
}

static int least_first(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (isnan(x->v) != isnan(y->v))
        return isnan(x->v) ? 1 : -1;
    if (x->v != y->v && !isnan(x->v))
        return x->v < y->v ? -1 : 1;
    return (x->place > y->place) - (x->place < y->place);
}

/* Who of a group stays at a step; the order is that of the last step, which is the only one of an instant. */
static void rank_step(struct members *m, size_t group, size_t step, bool greatest, double k,
                      struct ranked *ranked, double *const *values, struct promql_set *order)
{
    size_t n = 0;
    for (uint32_t at = m->first[group]; at; at = m->after[at - 1]) {
        double v = m->set.items[at - 1].values[step];
        if (!promql_is_absent(v))
            ranked[n++] = (struct ranked){v, at - 1};
    }
    if (n)
        qsort(ranked, n, sizeof *ranked, greatest ? greatest_first : least_first);
    for (size_t i = 0; i < n && (double)(i + 1) <= k; i++) {
        values[ranked[i].place][step] = ranked[i].v;
        if (order)
            order->items[order->n++] = (struct promql_series){
                .labels = m->set.items[ranked[i].place].labels, .values = values[ranked[i].place]};
    }
}

static int rank_all(struct promql_run *run, const struct promql_expr *e,
                    const struct promql_steps *steps, struct members *m, const double *parameter,
                    struct promql_set *ret)
{
    size_t n = m->set.n;
    struct ranked *ranked = arena_array(run->arena, n + 1, sizeof *ranked);
    double **values = arena_array(run->arena, n + 1, sizeof *values);
    if (!ranked || !values)
        return promql_nomem(run);
    for (size_t i = 0; i < n; i++) {
        values[i] = promql_samples(run, steps->n);
        if (!values[i])
            return run->detail->code;
        for (size_t k = 0; k < steps->n; k++)
            values[i][k] = promql_absent();
    }
    bool one = run->question->is_instant && steps->n == 1;
    int err = promql_set_make(run, n, ret);
    for (size_t k = 0; !err && k < steps->n; k++) {
        if (isnan(parameter[k]) || fabs(parameter[k]) >= 0x1p63)
            return error_set(run->detail, ERR_INVALID, 0, "scalar value %g overflows int64",
                             parameter[k]);
        err = promql_clock(run);
        for (size_t g = 0; !err && g < m->groups.n; g++)
            rank_step(m, g, k, e->op == PROMQL_TOPK, trunc(parameter[k]), ranked, values,
                      one ? ret : NULL);
    }
    ret->in_order = one;
    for (size_t i = 0; !err && !one && i < n; i++) {
        bool any = false;
        for (size_t k = 0; k < steps->n; k++)
            any |= !promql_is_absent(values[i][k]);
        if (any)
            ret->items[ret->n++] = (struct promql_series){.labels = m->set.items[i].labels,
                                                          .values = values[i]};
    }
    return err;
}

/* ---- count_values ---- */

static int count_one(struct promql_run *run, const struct promql_steps *steps, struct str label,
                     const struct promql_labels *group, double v, struct promql_groups *out,
                     struct promql_set *set, size_t step)
{
    struct promql_labels labels;
    char *text = arena_alloc(run->arena, PROMQL_NUMBER_SIZE);
    if (!text)
        return promql_nomem(run);
    size_t n = promql_number_text(v, text);
    int err = promql_labels_set(run, group, label, (struct str){text, n}, &labels);
    if (err)
        return err;
    size_t before = out->n, at = promql_group_of(out, &labels, true);
    if (at == before) {
        double *values = promql_samples(run, steps->n);
        if (!values)
            return run->detail->code;
        for (size_t k = 0; k < steps->n; k++)
            values[k] = promql_absent();
        set->items[set->n++] = (struct promql_series){.labels = labels, .values = values};
    }
    double *cell = (double *)set->items[at].values + step;
    *cell = promql_is_absent(*cell) ? 1 : *cell + 1;
    return 0;
}

static int count_values(struct promql_run *run, struct str label, const struct promql_steps *steps,
                        struct members *m, struct promql_set *ret)
{
    struct promql_groups out;
    if (!promql_label_is_valid(label))
        return error_set(run->detail, ERR_INVALID, 0, "invalid label name \"%.*s\"",
                         (int)(label.len > 60 ? 60 : label.len), label.ptr ? label.ptr : "");
    size_t most = m->set.n * steps->n;
    if (most > PROMQL_SERIES_MAX)
        most = PROMQL_SERIES_MAX;
    int err = promql_groups_init(run, most, &out);
    if (!err)
        err = promql_set_make(run, most, ret);
    for (size_t i = 0; !err && i < m->set.n; i++) {
        for (size_t k = 0; !err && k < steps->n; k++) {
            double v = m->set.items[i].values[k];
            if (promql_is_absent(v))
                continue;
            if (out.n == most)
                return error_set(run->detail, ERR_TOO_LARGE, 0, "more than %d series",
                                 PROMQL_SERIES_MAX);
            err = count_one(run, steps, label, &m->groups.labels[m->groups.of[i]], v, &out, ret, k);
        }
        if (!err)
            err = promql_clock(run);
    }
    return err;
}

int promql_aggregate(struct promql_run *run, const struct promql_expr *e,
                     const struct promql_steps *steps, struct promql_value *ret)
{
    struct promql_value of, parameter = {0};
    int err = promql_eval(run, e->left, steps, &of);
    if (!err && e->right)
        err = promql_eval(run, e->right, steps, &parameter);
    struct members m = {.set = of.set};
    if (!err)
        err = members_init(run, e, &m);
    if (err)
        return err;
    switch ((enum promql_aggregation)e->op) {
    case PROMQL_TOPK:
    case PROMQL_BOTTOMK:
        return rank_all(run, e, steps, &m, parameter.scalar, &ret->set);
    case PROMQL_COUNT_VALUES:
        return count_values(run, parameter.text, steps, &m, &ret->set);
    default:
        return reduce_all(run, e, steps, &m, parameter.scalar, &ret->set);
    }
}
