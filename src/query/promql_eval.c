/* Evaluation of PromQL: every part of a query at all steps at once, so that a selector asks its source one time.
 *
 * A set is series with a value for each step; where there is none stands a NaN that no computation makes
 * (promql_is_absent). What Prometheus says step by step (two series of a side that match, the greatest k) is said
 * step by step here too.
 *
 * Of counters a rate needs the first and the last sample of each window only (`takes_edges`): the source is then
 * asked for these instants, two a step, however many samples lie between. Memory is bounded by PROMQL_MEMORY_MAX,
 * samples by PROMQL_SAMPLES_MAX; times that offsets lead to, by TIME_FAR_MS. */
#include "query/promql_internal.h"

#include "base/clock.h"
#include "base/hash.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { INSTANTS_MAX = 1 << 18, SUBQUERY_STEP_MS = 60000 };
/* Shifts of nested subqueries add up; from here on there is nothing, and no sum of a time and a duration overflows. */
#define TIME_FAR_MS (INT64_C(1) << 60)

/* ---- room and time ---- */

int promql_nomem(struct promql_run *run)
{
    return error_set(run->detail, ERR_NOMEM, 0, "out of memory");
}

static int too_many(struct promql_run *run)
{
    return error_set(run->detail, ERR_TOO_LARGE, 0,
                     "query processing would load too many samples into memory in query execution");
}

double *promql_samples(struct promql_run *run, size_t n)
{
    int err = n > run->samples_left ? too_many(run) : 0;
    double *v = err ? NULL : arena_array(run->arena, n + 1, sizeof *v);
    if (!err && !v)
        err = promql_nomem(run);
    run->samples_left -= err ? 0 : n;
    return err ? NULL : v;
}

int promql_clock(struct promql_run *run)
{
    uint64_t deadline_ns = run->question->deadline_ns;
    if (deadline_ns && clock_monotonic_ns() > deadline_ns)
        return error_set(run->detail, ERR_TIMEOUT, 0, "query timed out in expression evaluation");
    return 0;
}

int promql_set_make(struct promql_run *run, size_t n, struct promql_set *ret)
{
    struct promql_series *items = arena_array(run->arena, n + 1, sizeof *items);
    if (!items)
        return promql_nomem(run);
    *ret = (struct promql_set){.items = items};
    return 0;
}

/* ---- labels ---- */

struct str promql_label_get(const struct promql_labels *labels, struct str name)
{
    for (size_t i = 0; i < labels->n; i++)
        if (str_eq(labels->items[i].name, name))
            return labels->items[i].value;
    return STR("");
}

int promql_labels_order(const struct promql_labels *a, const struct promql_labels *b)
{
    for (size_t i = 0; i < a->n && i < b->n; i++) {
        int order = str_cmp(a->items[i].name, b->items[i].name);
        if (!order)
            order = str_cmp(a->items[i].value, b->items[i].value);
        if (order)
            return order;
    }
    return (a->n > b->n) - (a->n < b->n);
}

static bool is_among(struct str name, const struct str *names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (str_eq(name, names[i]))
            return true;
    return false;
}

int promql_labels_pick(struct promql_run *run, const struct promql_labels *from,
                       const struct str *names, size_t n, bool keep, struct promql_labels *ret)
{
    struct promql_label *items = arena_array(run->arena, from->n + 1, sizeof *items);
    size_t k = 0;
    if (!items)
        return promql_nomem(run);
    for (size_t i = 0; i < from->n; i++) {
        struct str name = from->items[i].name;
        if (is_among(name, names, n) == keep && (keep || !str_eq(name, STR("__name__"))))
            items[k++] = from->items[i];
    }
    *ret = (struct promql_labels){items, k};
    return 0;
}

int promql_labels_unnamed(struct promql_run *run, const struct promql_labels *from,
                          struct promql_labels *ret)
{
    return promql_labels_pick(run, from, NULL, 0, false, ret);
}

int promql_labels_set(struct promql_run *run, const struct promql_labels *from, struct str name,
                      struct str value, struct promql_labels *ret)
{
    struct promql_label *items = arena_array(run->arena, from->n + 1, sizeof *items);
    size_t k = 0, i = 0;
    if (!items)
        return promql_nomem(run);
    for (; i < from->n && str_cmp(from->items[i].name, name) < 0; i++)
        items[k++] = from->items[i];
    if (value.len)
        items[k++] = (struct promql_label){name, value};
    i += i < from->n && str_eq(from->items[i].name, name);
    for (; i < from->n; i++)
        items[k++] = from->items[i];
    *ret = (struct promql_labels){items, k};
    return 0;
}

int promql_labels_set_made(struct promql_run *run, struct promql_labels *labels, struct str name,
                           struct buf *value)
{
    struct str made = buf_ok(value) ? arena_str(run->arena, buf_as_str(value)) : STR_NONE;
    int err = promql_clock(run);
    if (!err && !buf_ok(value))
        err = error_set(run->detail, ERR_TOO_LARGE, 0, "a label's value would be above %zu bytes",
                        PROMQL_LABEL_MAX);
    else if (!err)
        err = made.ptr ? promql_labels_set(run, labels, name, made, labels) : promql_nomem(run);
    buf_done(value);
    return err;
}

bool promql_label_is_valid(struct str s)
{
    bool valid = s.len && !(s.ptr[0] >= '0' && s.ptr[0] <= '9');
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        valid &= (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                 c == '_';
    }
    return valid;
}

static uint64_t labels_hash(const struct promql_labels *labels)
{
    uint64_t h = hash_secret();
    for (size_t i = 0; i < labels->n; i++) {
        h = hash_bytes_seed(labels->items[i].name.ptr, labels->items[i].name.len, h);
        h = hash_bytes_seed(labels->items[i].value.ptr, labels->items[i].value.len, h);
    }
    return h;
}

int promql_groups_init(struct promql_run *run, size_t most, struct promql_groups *ret)
{
    size_t mask = 15;
    while (mask < 2 * most)
        mask = 2 * mask + 1;
    *ret = (struct promql_groups){
        .labels = arena_array(run->arena, most + 1, sizeof *ret->labels),
        .of = arena_array(run->arena, most + 1, sizeof *ret->of),
        .slots = arena_zalloc(run->arena, (mask + 1) * sizeof *ret->slots),
        .mask = mask,
    };
    return ret->labels && ret->of && ret->slots ? 0 : promql_nomem(run);
}

size_t promql_group_of(struct promql_groups *g, const struct promql_labels *labels, bool create)
{
    size_t at = labels_hash(labels) & g->mask;
    while (g->slots[at] && promql_labels_order(&g->labels[g->slots[at] - 1], labels))
        at = (at + 1) & g->mask;
    if (g->slots[at])
        return g->slots[at] - 1;
    if (create) {
        g->labels[g->n++] = *labels;
        g->slots[at] = (uint32_t)g->n;
        return g->n - 1;
    }
    return g->n;
}

int promql_set_unite(struct promql_run *run, const struct promql_steps *steps,
                     struct promql_set *set)
{
    struct promql_groups groups;
    int err = promql_groups_init(run, set->n, &groups);
    for (size_t i = 0; !err && i < set->n; i++) {
        size_t before = groups.n, g = promql_group_of(&groups, &set->items[i].labels, true);
        if (g == before) {
            set->items[g] = set->items[i];
            continue;
        }
        double *united = promql_samples(run, steps->n);
        if (!united)
            return run->detail->code;
        for (size_t k = 0; k < steps->n; k++) {
            double a = set->items[g].values[k], b = set->items[i].values[k];
            if (!promql_is_absent(a) && !promql_is_absent(b))
                return error_set(run->detail, ERR_INVALID, 0,
                                 "vector cannot contain metrics with the same labelset");
            united[k] = promql_is_absent(a) ? b : a;
        }
        set->items[g].values = united;
    }
    if (!err)
        set->n = groups.n;
    return err;
}

/* ---- numbers ---- */

/* The fewest digits that read back, and the place of the point behind the first of them. */
static int digits_of(double v, char digits[24])
{
    char text[40];
    for (int precision = 14; precision <= 16; precision++) {
        snprintf(text, sizeof text, "%.*e", precision, v);
        if (strtod(text, NULL) == v)
            break;
    }
    size_t n = 0;
    for (const char *c = text; *c != 'e'; c++)
        if (*c >= '0' && *c <= '9')
            digits[n++] = *c;
    while (n > 1 && digits[n - 1] == '0')
        n--;
    digits[n] = '\0';
    return atoi(strchr(text, 'e') + 1);
}

size_t promql_number_text(double v, char out[PROMQL_NUMBER_SIZE])
{
    char digits[24];
    const char *sign = signbit(v) ? "-" : "";
    if (isnan(v))
        return (size_t)snprintf(out, PROMQL_NUMBER_SIZE, "NaN");
    if (isinf(v))
        return (size_t)snprintf(out, PROMQL_NUMBER_SIZE, v > 0 ? "+Inf" : "-Inf");
    if (v == 0)
        return (size_t)snprintf(out, PROMQL_NUMBER_SIZE, "%s0", sign);
    int exponent = digits_of(fabs(v), digits), n = (int)strlen(digits);
    if (exponent < -6 || exponent >= 21)
        return (size_t)snprintf(out, PROMQL_NUMBER_SIZE,
                                exponent < 0 ? "%s%c%s%se-%d" : "%s%c%s%se+%02d", sign, digits[0],
                                n > 1 ? "." : "", digits + 1, abs(exponent));
    if (exponent < 0)
        return (size_t)snprintf(out, PROMQL_NUMBER_SIZE, "%s0.%.*s%s", sign, -exponent - 1,
                                "000000", digits);
    if (n <= exponent + 1)
        return (size_t)snprintf(out, PROMQL_NUMBER_SIZE, "%s%s%.*s", sign, digits, exponent + 1 - n,
                                "00000000000000000000");
    return (size_t)snprintf(out, PROMQL_NUMBER_SIZE, "%s%.*s.%s", sign, exponent + 1, digits,
                            digits + exponent + 1);
}

/* ---- samples of selectors and subqueries ---- */

/* Of each step: which of the times its window has. */
struct windows {
    struct promql_set set; /* values: one a time */
    int64_t *times;
    size_t n;
    struct extent {
        int64_t start_ms, end_ms; /* the start does not belong to it */
        uint32_t first, last;     /* last < first: none */
    } * extents;
    bool edges;
    int64_t interval_ms;
};

static int64_t floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

/* Where a step looks: with offset and @. */
static int64_t shifted(const struct promql_run *run, const struct promql_expr *e, int64_t t)
{
    switch ((enum promql_at)e->at) {
    case PROMQL_AT_TIME:
        t = e->at_ms;
        break;
    case PROMQL_AT_START:
        t = run->question->start_ms;
        break;
    case PROMQL_AT_END:
        t = run->question->end_ms;
        break;
    default:
        break;
    }
    t -= e->offset_ms;
    return t < -TIME_FAR_MS ? -TIME_FAR_MS : t > TIME_FAR_MS ? TIME_FAR_MS : t;
}

static int windows_init(struct promql_run *run, const struct promql_expr *e,
                        const struct promql_steps *steps, int64_t range_ms, struct windows *w)
{
    *w = (struct windows){.extents = arena_array(run->arena, steps->n + 1, sizeof *w->extents)};
    if (!w->extents)
        return promql_nomem(run);
    for (size_t k = 0; k < steps->n; k++) {
        int64_t end_ms = shifted(run, e, steps->times[k]);
        w->extents[k] = (struct extent){end_ms - range_ms, end_ms, 1, 0};
    }
    return 0;
}

static int ascending(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* The instants of a step; false: it has none. */
static bool instants_of(const struct promql_source *source, const struct extent *x, int64_t *first,
                        int64_t *last)
{
    int64_t s = source->interval_ms;
    *first = (floor_div(x->start_ms, s) + 1) * s;
    *last = floor_div(x->end_ms < source->last_ms ? x->end_ms : source->last_ms, s) * s;
    return *first <= *last;
}

/* Which instants are asked for: all of the windows, or the first and last of each. */
static int instants_make(struct promql_run *run, const struct promql_steps *steps,
                         struct windows *w)
{
    int64_t first, last, done = INT64_MIN, s = run->source->interval_ms;
    size_t n = 0;
    for (size_t k = 0; k < steps->n; k++) {
        if (!instants_of(run->source, &w->extents[k], &first, &last))
            continue;
        if (w->edges)
            n += 2;
        else if (last > done)
            n += (size_t)((last - (first > done ? first : done)) / s + 1);
        done = last > done ? last : done;
        if (n > INSTANTS_MAX)
            return too_many(run);
    }
    w->times = arena_array(run->arena, n + 1, sizeof *w->times);
    if (!w->times)
        return promql_nomem(run);
    done = INT64_MIN;
    for (size_t k = 0; k < steps->n; k++) {
        if (!instants_of(run->source, &w->extents[k], &first, &last))
            continue;
        if (w->edges) {
            w->times[w->n++] = first;
            w->times[w->n++] = last;
        }
        for (int64_t t = first > done ? first : done + s; !w->edges && t <= last; t += s)
            w->times[w->n++] = t;
        done = last > done ? last : done;
    }
    if (w->n)
        qsort(w->times, w->n, sizeof *w->times, ascending);
    size_t unique = 0;
    for (size_t i = 0; i < w->n; i++)
        if (!i || w->times[i] != w->times[i - 1])
            w->times[unique++] = w->times[i];
    w->n = unique;
    return 0;
}

/* The first place whose time is not below. */
static size_t place_of(const struct windows *w, int64_t t)
{
    size_t low = 0, high = w->n;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (w->times[middle] < t)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void extents_place(const struct promql_steps *steps, struct windows *w)
{
    for (size_t k = 0; k < steps->n; k++) {
        struct extent *x = &w->extents[k];
        size_t first = place_of(w, x->start_ms + 1), past = place_of(w, x->end_ms + 1);
        if (first < past) {
            x->first = (uint32_t)first;
            x->last = (uint32_t)past - 1;
        }
    }
}

/* A selector without a range looks back; of counters only the newest sample counts, and each is there. */
static void newest_only(const struct promql_source *source, const struct promql_steps *steps,
                        struct windows *w)
{
    for (size_t k = 0; k < steps->n; k++) {
        struct extent *x = &w->extents[k];
        bool is_old = x->end_ms - source->last_ms >= PROMQL_LOOKBACK_MS;
        if (x->end_ms > source->last_ms)
            x->end_ms = source->last_ms;
        x->start_ms = is_old ? x->end_ms : x->end_ms - source->interval_ms;
    }
}

/* With a range of 0: what a selector alone looks at. */
static int selector_windows(struct promql_run *run, const struct promql_expr *e,
                            const struct promql_steps *steps, int64_t range_ms, bool edges,
                            struct windows *w)
{
    int err = windows_init(run, e, steps, range_ms ? range_ms : PROMQL_LOOKBACK_MS, w);
    if (err)
        return err;
    w->edges = edges && run->source->counters;
    if (!range_ms && run->source->counters)
        newest_only(run->source, steps, w);
    w->interval_ms = run->source->interval_ms;
    err = instants_make(run, steps, w);
    if (err || !w->n)
        return err;
    struct promql_select select = {
        .matchers = e->matchers,
        .n_matchers = e->n_matchers,
        .instants = w->times,
        .n_instants = w->n,
    };
    err = run->source->select(run->source->arg, &select, run->arena, &w->set.items, &w->set.n,
                              run->detail);
    if (!err && w->set.n > run->samples_left / w->n)
        return too_many(run);
    if (!err)
        run->samples_left -= w->set.n * w->n;
    extents_place(steps, w);
    return err;
}

static int subquery_windows(struct promql_run *run, const struct promql_expr *e,
                            const struct promql_steps *steps, struct windows *w)
{
    int64_t step_ms = e->step_ms ? e->step_ms : SUBQUERY_STEP_MS;
    int err = windows_init(run, e, steps, e->range_ms, w);
    if (err || !steps->n)
        return err;
    int64_t first = (floor_div(w->extents[0].start_ms, step_ms) + 1) * step_ms;
    int64_t last = floor_div(w->extents[steps->n - 1].end_ms, step_ms) * step_ms;
    if (last < first)
        return 0;
    if ((last - first) / step_ms >= INSTANTS_MAX)
        return too_many(run);
    w->n = (size_t)((last - first) / step_ms) + 1;
    w->times = arena_array(run->arena, w->n, sizeof *w->times);
    if (!w->times)
        return promql_nomem(run);
    for (size_t i = 0; i < w->n; i++)
        w->times[i] = first + (int64_t)i * step_ms;
    struct promql_value inner;
    err = promql_eval(run, e->left, &(struct promql_steps){w->times, w->n}, &inner);
    if (!err)
        w->set = inner.set;
    extents_place(steps, w);
    return err;
}

static int windows_of(struct promql_run *run, const struct promql_expr *matrix,
                      const struct promql_steps *steps, bool edges, struct windows *w)
{
    while (matrix->node == PROMQL_PAREN)
        matrix = matrix->left;
    return matrix->node == PROMQL_SUBQUERY
               ? subquery_windows(run, matrix, steps, w)
               : selector_windows(run, matrix, steps, matrix->range_ms, edges, w);
}

/* Of counters with edges only: what the first and the last sample of a window are. */
static void window_edges(const struct windows *w, const struct promql_series *s,
                         const struct extent *x, int64_t *times, double *values,
                         struct promql_window *ret)
{
    bool born_inside = promql_is_absent(s->values[x->first]);
    times[0] = born_inside ? s->birth_ms : w->times[x->first];
    values[0] = born_inside ? 0 : s->values[x->first];
    times[1] = w->times[x->last];
    values[1] = s->values[x->last];
    ret->n = promql_is_absent(values[1]) ? 0 : 2;
    ret->n_samples = (size_t)((times[1] - times[0]) / w->interval_ms) + 1;
}

/* Room for all samples of the largest window. */
static int window_room(struct promql_run *run, const struct windows *w,
                       const struct promql_steps *steps, int64_t **ret_times, double **ret_values)
{
    size_t most = 2;
    for (size_t k = 0; k < steps->n; k++) {
        const struct extent *x = &w->extents[k];
        if (x->first <= x->last && x->last - x->first + 1u > most)
            most = x->last - x->first + 1u;
    }
    *ret_times = arena_array(run->arena, most, sizeof **ret_times);
    *ret_values = arena_array(run->arena, most, sizeof **ret_values);
    return *ret_times && *ret_values ? 0 : promql_nomem(run);
}

static void window_of(const struct windows *w, const struct promql_series *s,
                      const struct extent *x, int64_t *times, double *values,
                      struct promql_window *ret)
{
    ret->times = times;
    ret->values = values;
    ret->start_ms = x->start_ms;
    ret->end_ms = x->end_ms;
    ret->n = ret->n_samples = 0;
    if (x->first > x->last)
        return;
    if (w->edges) {
        window_edges(w, s, x, times, values, ret);
        return;
    }
    for (size_t i = x->first; i <= x->last; i++)
        if (!promql_is_absent(s->values[i])) {
            times[ret->n] = w->times[i];
            values[ret->n++] = s->values[i];
        }
    ret->n_samples = ret->n;
}

int promql_windows(struct promql_run *run, const struct promql_expr *matrix,
                   const struct promql_function *function, double *const *args, size_t n_args,
                   const struct promql_steps *steps, struct promql_set *ret)
{
    struct windows w;
    int64_t *times;
    double *values, at_step[PROMQL_ARGS_MAX] = {0};
    int err = windows_of(run, matrix, steps, function->takes_edges, &w);
    if (!err)
        err = window_room(run, &w, steps, &times, &values);
    if (!err)
        err = promql_set_make(run, w.set.n, ret);
    for (size_t i = 0; !err && i < w.set.n; i++) {
        const struct promql_series *s = &w.set.items[i];
        struct promql_series *out = &ret->items[ret->n];
        double *samples = promql_samples(run, steps->n);
        bool any = false;
        err = samples ? promql_clock(run) : run->detail->code;
        for (size_t k = 0; !err && k < steps->n; k++) {
            struct promql_window window = {.args = at_step, .now_ms = steps->times[k]};
            window_of(&w, s, &w.extents[k], times, values, &window);
            for (size_t a = 0; a < n_args; a++)
                at_step[a] = args[a][k];
            samples[k] = window.n ? function->window(&window) : promql_absent();
            any |= !promql_is_absent(samples[k]);
        }
        if (err || !any)
            continue;
        out->values = samples;
        out->labels = s->labels;
        if (!function->keeps_name)
            err = promql_labels_unnamed(run, &s->labels, &out->labels);
        ret->n++;
    }
    return err ? err : promql_set_unite(run, steps, ret);
}

int promql_matrix(struct promql_run *run, const struct promql_expr *matrix,
                  const struct promql_steps *steps, struct promql_answer *ret)
{
    struct windows w;
    int err = windows_of(run, matrix, steps, false, &w);
    if (err)
        return err;
    const struct extent *x = &w.extents[0];
    size_t n = x->first <= x->last ? x->last - x->first + 1u : 0;
    *ret = (struct promql_answer){.type = PROMQL_MATRIX, .n_times = n, .times = w.times};
    if (!n)
        return 0;
    ret->times = w.times + x->first;
    ret->series = w.set.items;
    for (size_t i = 0; i < w.set.n; i++) {
        bool any = false;
        for (size_t k = x->first; k <= x->last; k++)
            any |= !promql_is_absent(w.set.items[i].values[k]);
        if (!any)
            continue;
        ret->series[ret->n] = w.set.items[i];
        ret->series[ret->n++].values += x->first;
    }
    return 0;
}

/* ---- nodes ---- */

int promql_selector(struct promql_run *run, const struct promql_expr *e,
                    const struct promql_steps *steps, bool times, struct promql_set *ret)
{
    struct windows w;
    int err = selector_windows(run, e, steps, 0, false, &w);
    if (!err)
        err = promql_set_make(run, w.set.n, ret);
    for (size_t i = 0; !err && i < w.set.n; i++) {
        const struct promql_series *s = &w.set.items[i];
        double *samples = promql_samples(run, steps->n);
        bool any = false;
        if (!samples)
            return run->detail->code;
        for (size_t k = 0; k < steps->n; k++) {
            const struct extent *x = &w.extents[k];
            samples[k] = promql_absent();
            for (size_t at = x->last + 1u; at-- > x->first && promql_is_absent(samples[k]);)
                if (!promql_is_absent(s->values[at]))
                    samples[k] = times ? (double)w.times[at] / 1000 : s->values[at];
            any |= !promql_is_absent(samples[k]);
        }
        if (any)
            ret->items[ret->n++] = (struct promql_series){.labels = s->labels, .values = samples};
    }
    return err;
}

static int number_eval(struct promql_run *run, double v, const struct promql_steps *steps,
                       struct promql_value *ret)
{
    ret->scalar = promql_samples(run, steps->n);
    if (!ret->scalar)
        return run->detail->code;
    for (size_t k = 0; k < steps->n; k++)
        ret->scalar[k] = v;
    return 0;
}

static int negate_eval(struct promql_run *run, const struct promql_expr *e,
                       const struct promql_steps *steps, struct promql_value *ret)
{
    int err = promql_eval(run, e->left, steps, ret);
    for (size_t k = 0; !err && ret->type == PROMQL_SCALAR && k < steps->n; k++)
        ret->scalar[k] = -ret->scalar[k];
    for (size_t i = 0; !err && ret->type == PROMQL_VECTOR && i < ret->set.n; i++) {
        struct promql_series *s = &ret->set.items[i];
        double *values = promql_samples(run, steps->n);
        if (!values)
            return run->detail->code;
        for (size_t k = 0; k < steps->n; k++)
            values[k] = promql_is_absent(s->values[k]) ? s->values[k] : -s->values[k];
        s->values = values;
        err = promql_labels_unnamed(run, &s->labels, &s->labels);
    }
    return err || ret->type == PROMQL_SCALAR ? err : promql_set_unite(run, steps, &ret->set);
}

int promql_eval(struct promql_run *run, const struct promql_expr *e,
                const struct promql_steps *steps, struct promql_value *ret)
{
    *ret = (struct promql_value){.type = e->type};
    int err = promql_clock(run);
    if (err)
        return err;
    switch ((enum promql_node)e->node) {
    case PROMQL_NUMBER:
        return number_eval(run, e->number, steps, ret);
    case PROMQL_TEXT:
        ret->text = e->text;
        return 0;
    case PROMQL_SELECTOR:
        return promql_selector(run, e, steps, false, &ret->set);
    case PROMQL_CALL:
        return promql_call(run, e, steps, ret);
    case PROMQL_AGGREGATE:
        return promql_aggregate(run, e, steps, ret);
    case PROMQL_BINARY:
        return promql_binary(run, e, steps, ret);
    case PROMQL_NEGATE:
        return negate_eval(run, e, steps, ret);
    case PROMQL_PAREN:
        return promql_eval(run, e->left, steps, ret);
    case PROMQL_SUBQUERY:
        break; /* inside of calls, and alone: promql_run */
    }
    return error_set(run->detail, ERR_INVALID, 0, "a range vector stands alone, or in a call");
}

/* ---- the whole ---- */

static int by_labels(const void *a, const void *b)
{
    const struct promql_series *x = a, *y = b;
    return promql_labels_order(&x->labels, &y->labels);
}

static int steps_make(struct promql_run *run, struct promql_steps *ret)
{
    const struct promql_question *q = run->question;
    uint64_t span_ms = (uint64_t)q->end_ms - (uint64_t)q->start_ms;
    if (q->end_ms < q->start_ms || q->step_ms <= 0)
        return error_set(run->detail, ERR_INVALID, 0, "the end lies before the start");
    uint64_t n = span_ms / (uint64_t)q->step_ms + 1;
    if (n > PROMQL_STEPS_MAX + 1)
        return too_many(run);
    int64_t *times = arena_array(run->arena, n, sizeof *times);
    if (!times)
        return promql_nomem(run);
    for (size_t k = 0; k < n; k++)
        times[k] = q->start_ms + (int64_t)k * q->step_ms;
    *ret = (struct promql_steps){times, (size_t)n};
    return 0;
}

static int answer_make(struct promql_run *run, struct promql_answer *ret)
{
    const struct promql_question *question = run->question;
    struct promql_steps steps;
    struct promql_value value;
    struct promql_answer answer = {.type = question->expr->type};
    int err = steps_make(run, &steps);
    if (err)
        return err;
    if (question->expr->type == PROMQL_MATRIX) {
        err = question->is_instant ? promql_matrix(run, question->expr, &steps, &answer)
                                   : error_set(run->detail, ERR_INVALID, 0,
                                               "a range query is of a scalar or an instant vector");
    } else {
        err = promql_eval(run, question->expr, &steps, &value);
        if (!err) {
            answer.scalar = value.scalar;
            answer.text = value.text;
            answer.series = value.set.items;
            answer.n = value.set.n;
        }
        answer.times = steps.times;
        answer.n_times = steps.n;
    }
    bool in_order = question->expr->type == PROMQL_VECTOR && question->is_instant && !err &&
                    value.set.in_order;
    if (!err && answer.n && !in_order)
        qsort(answer.series, answer.n, sizeof *answer.series, by_labels);
    if (!err)
        *ret = answer;
    return err;
}

int promql_run(const struct promql_question *question, const struct promql_source *source,
               struct arena *arena, struct promql_answer *ret, struct error_detail *ret_detail)
{
    struct error_detail unasked;
    struct promql_run run = {
        .question = question,
        .source = source,
        .arena = arena,
        .detail = ret_detail ? ret_detail : &unasked,
        .samples_left = PROMQL_SAMPLES_MAX,
    };
    size_t before = arena->bytes_max, most = arena->bytes + PROMQL_MEMORY_MAX;
    arena->bytes_max = before && before < most ? before : most;
    int err = answer_make(&run, ret);
    /* The limit, and not the machine: no single part of a query takes half of it. */
    if (err == ERR_NOMEM && arena->bytes > arena->bytes_max / 2)
        err = error_set(run.detail, ERR_TOO_LARGE, 0,
                        "query processing would take more than %zu MiB of memory",
                        PROMQL_MEMORY_MAX >> 20);
    arena->bytes_max = before;
    return err;
}
