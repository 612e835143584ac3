/* Operators of PromQL. Series of the two sides meet by their signature: the labels that on() names, or all but those
 * of ignoring() and the name. Who meets whom is decided once; whether two of one side meet the same one, which is an
 * error, at each step. */
#include "query/promql_internal.h"

#include <math.h>

static bool is_comparison(uint8_t op)
{
    return op >= PROMQL_EQ && op <= PROMQL_GT;
}

static double compute(enum promql_op op, double a, double b)
{
    switch (op) {
    case PROMQL_EQ:
        return a == b;
    case PROMQL_NE:
        return a != b;
    case PROMQL_LE:
        return a <= b;
    case PROMQL_LT:
        return a < b;
    case PROMQL_GE:
        return a >= b;
    case PROMQL_GT:
        return a > b;
    case PROMQL_ADD:
        return a + b;
    case PROMQL_SUB:
        return a - b;
    case PROMQL_MUL:
        return a * b;
    case PROMQL_DIV:
        return a / b;
    case PROMQL_MOD:
        return fmod(a, b);
    case PROMQL_ATAN2:
        return atan2(a, b);
    default:
        return pow(a, b);
    }
}

/* What a pair comes to: a comparison without bool keeps `kept` or nothing. */
static double pair_value(const struct promql_expr *e, double a, double b, double kept)
{
    double v = compute(e->op, a, b);
    if (is_comparison(e->op) && !e->returns_bool)
        return v != 0 ? kept : promql_absent();
    return v;
}

static bool drops_name(const struct promql_expr *e)
{
    return !is_comparison(e->op) || e->returns_bool;
}

/* ---- with a scalar ---- */

static int with_scalar(struct promql_run *run, const struct promql_expr *e,
                       const struct promql_steps *steps, const struct promql_set *set,
                       const double *scalar, bool scalar_left, struct promql_set *ret)
{
    int err = promql_set_make(run, set->n, ret);
    for (size_t i = 0; !err && i < set->n; i++) {
        const struct promql_series *s = &set->items[i];
        double *values = promql_samples(run, steps->n);
        bool any = false;
        if (!values)
            return run->detail->code;
        for (size_t k = 0; k < steps->n; k++) {
            double v = s->values[k];
            values[k] = promql_is_absent(v) ? v
                        : scalar_left       ? pair_value(e, scalar[k], v, v)
                                            : pair_value(e, v, scalar[k], v);
            any |= !promql_is_absent(values[k]);
        }
        if (!any)
            continue;
        ret->items[ret->n] = (struct promql_series){.labels = s->labels, .values = values};
        if (drops_name(e))
            err = promql_labels_unnamed(run, &s->labels, &ret->items[ret->n].labels);
        ret->n++;
    }
    return err ? err : promql_set_unite(run, steps, ret);
}

static int scalars(struct promql_run *run, const struct promql_expr *e,
                   const struct promql_steps *steps, const double *a, const double *b,
                   struct promql_value *ret)
{
    ret->scalar = promql_samples(run, steps->n);
    if (!ret->scalar)
        return run->detail->code;
    for (size_t k = 0; k < steps->n; k++)
        ret->scalar[k] = compute(e->op, a[k], b[k]);
    return 0;
}

/* ---- signatures ---- */

struct sides {
    struct promql_set left, right;
    struct promql_groups groups; /* of: of the left ones, then of the right ones */
    /* By group: its right ones, a list through `after`. */
    uint32_t *first, *after; /* place + 1 */
};

static int signature(struct promql_run *run, const struct promql_expr *e,
                     const struct promql_labels *labels, struct promql_labels *ret)
{
    return promql_labels_pick(run, labels, e->labels, e->n_labels, e->on, ret);
}

static int sides_init(struct promql_run *run, const struct promql_expr *e, struct sides *s)
{
    size_t n = s->left.n + s->right.n;
    struct promql_labels labels;
    int err = promql_groups_init(run, n, &s->groups);
    s->first = arena_zalloc(run->arena, (n + 1) * sizeof *s->first);
    s->after = arena_zalloc(run->arena, (n + 1) * sizeof *s->after);
    if (!err && (!s->first || !s->after))
        err = promql_nomem(run);
    for (size_t i = 0; !err && i < n; i++) {
        const struct promql_series *series = i < s->left.n ? &s->left.items[i]
                                                           : &s->right.items[i - s->left.n];
        err = signature(run, e, &series->labels, &labels);
        if (!err)
            s->groups.of[i] = (uint32_t)promql_group_of(&s->groups, &labels, true);
    }
    for (size_t i = s->right.n; !err && i-- > 0;) {
        uint32_t group = s->groups.of[s->left.n + i];
        s->after[i] = s->first[group];
        s->first[group] = (uint32_t)i + 1;
    }
    return err;
}

static bool right_has(const struct sides *s, uint32_t group, size_t step)
{
    for (uint32_t at = s->first[group]; at; at = s->after[at - 1])
        if (!promql_is_absent(s->right.items[at - 1].values[step]))
            return true;
    return false;
}

/* ---- and, or, unless ---- */

/* Those of `set` at the steps at which `other` has (`wanted`), or lacks, one of their signature. */
static int filter_set(struct promql_run *run, const struct promql_steps *steps,
                      const struct sides *s, bool wanted, struct promql_set *ret)
{
    int err = promql_set_make(run, s->left.n, ret);
    for (size_t i = 0; !err && i < s->left.n; i++) {
        double *values = promql_samples(run, steps->n);
        bool any = false;
        if (!values)
            return run->detail->code;
        for (size_t k = 0; k < steps->n; k++) {
            double v = s->left.items[i].values[k];
            bool stays = !promql_is_absent(v) && right_has(s, s->groups.of[i], k) == wanted;
            values[k] = stays ? v : promql_absent();
            any |= stays;
        }
        if (any)
            ret->items[ret->n++] = (struct promql_series){.labels = s->left.items[i].labels,
                                                          .values = values};
    }
    return err;
}

static int set_operator(struct promql_run *run, const struct promql_expr *e,
                        const struct promql_steps *steps, struct promql_set *left,
                        struct promql_set *right, struct promql_set *ret)
{
    struct promql_set more;
    bool either = e->op == PROMQL_OR;
    struct sides s = {.left = either ? *right : *left, .right = either ? *left : *right};
    int err = sides_init(run, e, &s);
    if (!err)
        err = filter_set(run, steps, &s, e->op == PROMQL_AND, either ? &more : ret);
    if (err || !either)
        return err;
    err = promql_set_make(run, left->n + more.n, ret);
    for (size_t i = 0; !err && i < left->n; i++)
        ret->items[ret->n++] = left->items[i];
    for (size_t i = 0; !err && i < more.n; i++)
        ret->items[ret->n++] = more.items[i];
    return err ? err : promql_set_unite(run, steps, ret);
}

/* ---- arithmetic and comparison ---- */

/* Labels of what a pair comes to; `many` is the side that may have several. */
static int pair_labels(struct promql_run *run, const struct promql_expr *e,
                       const struct promql_series *many, const struct promql_series *one,
                       struct promql_labels *ret)
{
    int err = 0;
    *ret = many->labels;
    if (drops_name(e))
        err = promql_labels_unnamed(run, &many->labels, ret);
    if (e->group) {
        for (size_t i = 0; !err && i < e->n_include; i++)
            err = promql_labels_set(run, ret, e->include[i],
                                    promql_label_get(&one->labels, e->include[i]), ret);
        return err;
    }
    if (!err && e->on)
        return promql_labels_pick(run, ret, e->labels, e->n_labels, true, ret);
    for (size_t i = 0; !err && i < e->n_labels; i++)
        err = promql_labels_set(run, ret, e->labels[i], STR(""), ret);
    return err;
}

static int duplicate(struct promql_run *run, const struct promql_labels *group, const char *side)
{
    struct buf text = BUF_INIT;
    for (size_t i = 0; i < group->n && text.len < 80; i++)
        buf_printf(&text, "%s%.*s=\"%.*s\"", i ? ", " : "", STR_ARG(group->items[i].name),
                   STR_ARG(group->items[i].value));
    int err = error_set(
        run->detail, ERR_INVALID, 0,
        "found duplicate series for the match group {%.*s} on the %s hand-side of the operation",
        (int)(text.len > 100 ? 100 : text.len), text.ptr ? text.ptr : "", side);
    buf_done(&text);
    return err;
}

/* The pairs of one of the many (the left side of `s`) with the ones of its group. */
static int one_pairs(struct promql_run *run, const struct promql_expr *e,
                     const struct promql_steps *steps, const struct sides *s, size_t i,
                     bool many_is_right, struct promql_set *ret)
{
    const struct promql_series *many = &s->left.items[i];
    uint32_t group = s->groups.of[i];
    for (uint32_t at = s->first[group]; at; at = s->after[at - 1]) {
        const struct promql_series *one = &s->right.items[at - 1];
        double *values = promql_samples(run, steps->n);
        bool any = false;
        if (!values)
            return run->detail->code;
        for (size_t k = 0; k < steps->n; k++) {
            double a = many->values[k], b = one->values[k];
            values[k] = promql_absent();
            if (promql_is_absent(a) || promql_is_absent(b))
                continue;
            for (uint32_t other = s->after[at - 1]; other; other = s->after[other - 1])
                if (!promql_is_absent(s->right.items[other - 1].values[k]))
                    return duplicate(run, &s->groups.labels[group],
                                     many_is_right ? "left" : "right");
            values[k] = many_is_right ? pair_value(e, b, a, b) : pair_value(e, a, b, a);
            any |= !promql_is_absent(values[k]);
        }
        if (!any)
            continue;
        struct promql_series *out = &ret->items[ret->n++];
        *out = (struct promql_series){.values = values};
        int err = pair_labels(run, e, many, one, &out->labels);
        if (err)
            return err;
    }
    return 0;
}

/* Without a group each side has one of each signature. */
static int many_check(struct promql_run *run, const struct promql_steps *steps,
                      const struct sides *s)
{
    double *seen = arena_array(run->arena, s->groups.n * steps->n + 1, sizeof *seen);
    if (!seen)
        return promql_nomem(run);
    memset(seen, 0, s->groups.n * steps->n * sizeof *seen);
    for (size_t i = 0; i < s->left.n; i++) {
        uint32_t group = s->groups.of[i];
        for (size_t k = 0; k < steps->n; k++) {
            double *at = &seen[group * steps->n + k];
            if (promql_is_absent(s->left.items[i].values[k]) || !right_has(s, group, k))
                continue;
            if (*at > 0)
                return error_set(run->detail, ERR_INVALID, 0,
                                 "multiple matches for labels: many-to-one matching must be "
                                 "explicit (group_left/group_right)");
            *at = 1;
        }
    }
    return 0;
}

static int pair_operator(struct promql_run *run, const struct promql_expr *e,
                         const struct promql_steps *steps, const struct promql_set *left,
                         const struct promql_set *right, struct promql_set *ret)
{
    bool many_is_right = e->group == PROMQL_GROUP_RIGHT;
    struct sides s = {.left = many_is_right ? *right : *left,
                      .right = many_is_right ? *left : *right};
    size_t n = 0;
    int err = sides_init(run, e, &s);
    for (size_t i = 0; !err && i < s.left.n; i++)
        for (uint32_t at = s.first[s.groups.of[i]]; at; at = s.after[at - 1])
            n++;
    if (!err && !e->group)
        err = many_check(run, steps, &s);
    if (!err)
        err = promql_set_make(run, n, ret);
    for (size_t i = 0; !err && i < s.left.n; i++) {
        err = promql_clock(run);
        if (!err)
            err = one_pairs(run, e, steps, &s, i, many_is_right, ret);
    }
    return err ? err : promql_set_unite(run, steps, ret);
}

int promql_binary(struct promql_run *run, const struct promql_expr *e,
                  const struct promql_steps *steps, struct promql_value *ret)
{
    struct promql_value a, b;
    int err = promql_eval(run, e->left, steps, &a);
    if (!err)
        err = promql_eval(run, e->right, steps, &b);
    if (err)
        return err;
    if (a.type == PROMQL_SCALAR && b.type == PROMQL_SCALAR)
        return scalars(run, e, steps, a.scalar, b.scalar, ret);
    if (a.type == PROMQL_SCALAR)
        return with_scalar(run, e, steps, &b.set, a.scalar, true, &ret->set);
    if (b.type == PROMQL_SCALAR)
        return with_scalar(run, e, steps, &a.set, b.scalar, false, &ret->set);
    if (e->op <= PROMQL_UNLESS)
        return set_operator(run, e, steps, &a.set, &b.set, &ret->set);
    return pair_operator(run, e, steps, &a.set, &b.set, &ret->set);
}
