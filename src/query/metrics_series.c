#include "query/metrics_series.h"

#include "base/hash.h"

#include <math.h>
#include <stdlib.h>

/* ---- labels ---- */

static int value_order(const struct value *a, const struct value *b)
{
    if (a->type != b->type)
        return a->type < b->type ? -1 : 1;
    switch (a->type) {
    case VALUE_STRING:
        return str_cmp(a->string, b->string);
    case VALUE_BOOL:
        return (int)a->boolean - (int)b->boolean;
    case VALUE_INT:
        return (a->integer > b->integer) - (a->integer < b->integer);
    case VALUE_DOUBLE:
        return (a->real > b->real) - (a->real < b->real);
    default:
        return 0;
    }
}

int metrics_labels_order(const struct metrics_label *a, size_t n_a, const struct metrics_label *b,
                         size_t n_b)
{
    for (size_t i = 0; i < n_a && i < n_b; i++) {
        int order = str_cmp(a[i].name, b[i].name);
        if (!order)
            order = value_order(&a[i].value, &b[i].value);
        if (order)
            return order;
    }
    return (n_a > n_b) - (n_a < n_b);
}

static uint64_t labels_hash(const struct metrics_label *labels, size_t n)
{
    uint64_t h = n;
    for (size_t i = 0; i < n; i++) {
        const struct value *v = &labels[i].value;
        uint64_t part = v->type;
        if (v->type == VALUE_STRING)
            part ^= hash_str(v->string);
        else if (v->type == VALUE_BOOL)
            part ^= v->boolean + 11u;
        else if (v->type == VALUE_INT)
            part ^= hash_mix64((uint64_t)v->integer);
        else if (v->type == VALUE_DOUBLE)
            part ^= hash_bytes_seed(&v->real, sizeof v->real, 5);
        h = hash_mix64(h ^ part);
    }
    return h;
}

/* ---- the table ---- */

static int table_grow(struct metrics_table *t)
{
    size_t cap = t->cap ? 2 * t->cap : 64, n_slots = 4 * cap;
    struct metrics_row *rows = realloc(t->rows, cap * sizeof *rows);
    if (!rows)
        return ERR_NOMEM;
    t->rows = rows;
    uint32_t *slots = calloc(n_slots, sizeof *slots);
    if (!slots)
        return ERR_NOMEM;
    for (size_t i = 0; i < t->n; i++) {
        size_t at = rows[i].hash & (n_slots - 1);
        while (slots[at])
            at = (at + 1) & (n_slots - 1);
        slots[at] = (uint32_t)i + 1;
    }
    free(t->slots);
    t->slots = slots;
    t->n_slots = n_slots;
    t->cap = cap;
    return 0;
}

static int row_new(struct metrics_table *t, const struct metrics_label *labels, size_t n_labels,
                   uint64_t hash, struct metrics_row **ret)
{
    if (t->n == METRICS_SERIES_MAX || (t->n + 1) * t->n_steps > METRICS_CELLS_MAX)
        return error_set(t->detail, ERR_TOO_LARGE, 0,
                         "more than %zu series of %zu samples: group by less, or take longer steps",
                         t->n, t->n_steps);
    struct metrics_row row = {.n_labels = n_labels, .hash = hash};
    row.labels = arena_array(t->arena, n_labels + 1, sizeof *row.labels);
    row.cells = arena_zalloc(t->arena, t->n_steps * sizeof *row.cells);
    if (!row.labels || !row.cells)
        return ERR_NOMEM;
    for (size_t i = 0; i < n_labels; i++) {
        row.labels[i] = labels[i];
        row.labels[i].name = arena_str(t->arena, labels[i].name);
        if (!row.labels[i].name.ptr)
            return ERR_NOMEM;
        if (labels[i].value.type != VALUE_STRING)
            continue;
        row.labels[i].value.string = arena_str(t->arena, labels[i].value.string);
        if (!row.labels[i].value.string.ptr)
            return ERR_NOMEM;
    }
    t->rows[t->n] = row;
    *ret = &t->rows[t->n++];
    return 0;
}

int metrics_table_row(struct metrics_table *t, const struct metrics_label *labels, size_t n_labels,
                      bool create, struct metrics_row **ret)
{
    uint64_t hash = labels_hash(labels, n_labels);
    if (t->n == t->cap) {
        int err = table_grow(t);
        if (err)
            return err;
    }
    size_t at = hash & (t->n_slots - 1);
    for (; t->slots[at]; at = (at + 1) & (t->n_slots - 1)) {
        struct metrics_row *row = &t->rows[t->slots[at] - 1];
        if (row->hash == hash &&
            !metrics_labels_order(row->labels, row->n_labels, labels, n_labels)) {
            *ret = row;
            return 0;
        }
    }
    *ret = NULL;
    int err = create ? row_new(t, labels, n_labels, hash, ret) : 0;
    if (*ret)
        t->slots[at] = (uint32_t)t->n;
    return err;
}

void metrics_table_done(struct metrics_table *t)
{
    for (size_t i = 0; i < t->n; i++)
        for (size_t k = 0; k < t->n_steps; k++) {
            struct metrics_values *v = t->rows[i].cells[k].values;
            if (!v)
                continue;
            free(v->keys);
            free(v->counts);
        }
    free(t->rows);
    free(t->slots);
}

/* ---- cells ---- */

enum { KEY_SHIFT = 46 }; /* leaves sign, exponent and 6 bits */

/* Ascending with the value. */
static int32_t key_of(double v)
{
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    int32_t key = (int32_t)((bits & INT64_MAX) >> KEY_SHIFT);
    return bits >> 63 ? -1 - key : key;
}

/* The middle of a bucket. */
static double value_of(int32_t key)
{
    uint64_t bits = (uint64_t)(key < 0 ? -1 - key : key) << KEY_SHIFT;
    bits |= UINT64_C(1) << (KEY_SHIFT - 1);
    double v;
    memcpy(&v, &bits, sizeof v);
    return key < 0 ? -v : v;
}

static int values_add(struct metrics_table *t, struct metrics_cell *cell, double v)
{
    if (!cell->values)
        cell->values = arena_zalloc(t->arena, sizeof *cell->values);
    struct metrics_values *s = cell->values;
    if (!s)
        return ERR_NOMEM;
    int32_t key = key_of(v);
    uint32_t low = 0, high = s->n;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (s->keys[middle] < key)
            low = middle + 1;
        else
            high = middle;
    }
    if (low < s->n && s->keys[low] == key) {
        s->counts[low]++;
        return 0;
    }
    if (s->n == s->cap) {
        uint32_t cap = s->cap ? 2 * s->cap : 8;
        int32_t *keys = realloc(s->keys, cap * sizeof *keys);
        if (!keys)
            return ERR_NOMEM;
        s->keys = keys;
        uint64_t *counts = realloc(s->counts, cap * sizeof *counts);
        if (!counts)
            return ERR_NOMEM;
        s->counts = counts;
        s->cap = cap;
    }
    memmove(s->keys + low + 1, s->keys + low, (s->n - low) * sizeof *s->keys);
    memmove(s->counts + low + 1, s->counts + low, (s->n - low) * sizeof *s->counts);
    s->keys[low] = key;
    s->counts[low] = 1;
    s->n++;
    return 0;
}

int metrics_cell_add(struct metrics_table *t, struct metrics_cell *cell, double v, bool with_values)
{
    cell->min = !cell->n || v < cell->min ? v : cell->min;
    cell->max = !cell->n || v > cell->max ? v : cell->max;
    cell->n++;
    double add = v - cell->error, sum = cell->sum + add;
    cell->error = isfinite(sum) ? (sum - cell->sum) - add : 0;
    cell->sum = sum;
    return with_values ? values_add(t, cell, v) : 0;
}

double metrics_cell_quantile(const struct metrics_cell *cell, double q)
{
    const struct metrics_values *s = cell->values;
    if (!s || !cell->n)
        return NAN;
    /* The value at or below which the part q of all lies. */
    double wanted = ceil(q * (double)cell->n);
    uint64_t rank = wanted < 1 ? 1 : wanted > (double)cell->n ? cell->n : (uint64_t)wanted;
    if (rank == 1)
        return cell->min;
    if (rank == cell->n)
        return cell->max;
    uint64_t seen = 0;
    uint32_t i = 0;
    while (i < s->n && (seen += s->counts[i]) < rank)
        i++;
    double v = value_of(s->keys[i < s->n ? i : s->n - 1]);
    return v < cell->min ? cell->min : v > cell->max ? cell->max : v;
}

/* ---- series ---- */

static double calculate(enum traceql_op op, double a, double b)
{
    double v = op == TRACEQL_ADD   ? a + b
               : op == TRACEQL_SUB ? a - b
               : op == TRACEQL_MUL ? a * b
                                   : a / b;
    return isfinite(v) ? v : NAN;
}

/* The name of a metric without groups is no label that tells series apart. */
static bool is_nameless(const struct metrics_series *s)
{
    return s->n_labels == 1 && str_eq(s->labels[0].name, STR("__name__"));
}

static bool same_series(const struct metrics_series *a, const struct metrics_series *b)
{
    if (is_nameless(a) && is_nameless(b))
        return true;
    return !metrics_labels_order(a->labels, a->n_labels, b->labels, b->n_labels);
}

static void drop_empty(struct metrics_result *set)
{
    size_t kept = 0;
    for (size_t i = 0; i < set->n; i++) {
        bool any = false;
        for (size_t k = 0; k < set->n_steps; k++)
            any |= !isnan(set->series[i].samples[k]);
        if (any)
            set->series[kept++] = set->series[i];
    }
    set->n = kept;
}

void metrics_join(enum traceql_op op, struct metrics_result *left,
                  const struct metrics_result *right)
{
    /* Both are sorted by labels. */
    size_t r = 0, kept = 0;
    for (size_t l = 0; l < left->n; l++) {
        struct metrics_series *s = &left->series[l];
        while (r < right->n && !same_series(s, &right->series[r]) &&
               metrics_labels_order(right->series[r].labels, right->series[r].n_labels, s->labels,
                                    s->n_labels) < 0)
            r++;
        if (r == right->n || !same_series(s, &right->series[r]))
            continue;
        for (size_t k = 0; k < left->n_steps; k++)
            s->samples[k] = calculate(op, s->samples[k], right->series[r].samples[k]);
        left->series[kept++] = *s;
    }
    left->n = kept;
    drop_empty(left);
}

void metrics_join_literal(enum traceql_op op, struct metrics_result *set, double literal,
                          bool literal_left)
{
    for (size_t i = 0; i < set->n; i++)
        for (size_t k = 0; k < set->n_steps; k++) {
            double v = set->series[i].samples[k];
            set->series[i].samples[k] = literal_left ? calculate(op, literal, v)
                                                     : calculate(op, v, literal);
        }
    drop_empty(set);
}

struct place {
    double value;
    size_t series;
};

static int greatest_first(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    if (x->value != y->value)
        return x->value > y->value ? -1 : 1;
    return (x->series > y->series) - (x->series < y->series);
}

static int least_first(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    if (x->value != y->value)
        return x->value < y->value ? -1 : 1;
    return (x->series > y->series) - (x->series < y->series);
}

static int keep_some(const struct traceql_series_stage *s, struct metrics_result *set,
                     struct arena *arena)
{
    struct place *places = arena_array(arena, set->n + 1, sizeof *places);
    if (!places)
        return ERR_NOMEM;
    for (size_t k = 0; k < set->n_steps; k++) {
        size_t n = 0;
        for (size_t i = 0; i < set->n; i++)
            if (!isnan(set->series[i].samples[k]))
                places[n++] = (struct place){set->series[i].samples[k], i};
        if (n <= (size_t)s->n)
            continue;
        qsort(places, n, sizeof *places, s->type == TRACEQL_TOPK ? greatest_first : least_first);
        for (size_t i = (size_t)s->n; i < n; i++)
            set->series[places[i].series].samples[k] = NAN;
    }
    return 0;
}

static bool sample_passes(uint8_t op, double v, double than)
{
    switch (op) {
    case TRACEQL_EQ:
        return v == than;
    case TRACEQL_NE:
        return v != than;
    case TRACEQL_LT:
        return v < than;
    case TRACEQL_LE:
        return v <= than;
    case TRACEQL_GT:
        return v > than;
    default:
        return v >= than;
    }
}

int metrics_then(const struct traceql_series_stage *stages, struct metrics_result *set,
                 struct arena *arena)
{
    int err = 0;
    for (const struct traceql_series_stage *s = stages; s && !err; s = s->next) {
        if (s->type != TRACEQL_SERIES_FILTER)
            err = keep_some(s, set, arena);
        else
            for (size_t i = 0; i < set->n; i++)
                for (size_t k = 0; k < set->n_steps; k++)
                    if (!sample_passes(s->op, set->series[i].samples[k], s->value))
                        set->series[i].samples[k] = NAN;
        drop_empty(set);
    }
    return err;
}
