/* Metrics, in one pass over the spans.
 *
 * Where the plan is exact and what is measured and grouped by can come along with the rows of a scan
 * (names, service, kind, status, duration, attributes), no trace is put together: each row finds its
 * series and adds to one cell. Everything else (structure, aggregates, events, compare()) takes two
 * passes: the scan says which traces may matter, and each is then looked at whole, once.
 *
 * Memory is bounded by METRICS_CELLS_MAX cells and METRICS_TRACES_MAX ids, and what quantiles keep of a
 * cell, whatever the number of spans. */
#include "query/metrics_exemplars.h"
#include "query/metrics_series.h"

#include "base/clock.h"
#include "base/hash.h"
#include <pugmark/pugmark.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define CLOCK_EVERY 1024
#define EXEMPLARS_MS_MAX 100 /* for looking for them beside a scan that counts */
#define LABELS_MAX (TRACEQL_BY_MAX + 2)

/* Where a row of a scan has a field. */
enum source { SOURCE_NAME, SOURCE_KIND, SOURCE_STATUS, SOURCE_DURATION, SOURCE_ATTR, SOURCE_NONE };

struct column {
    const struct traceql_expr *field;
    struct str name; /* as a label */
    uint8_t source;
    size_t attr; /* of SOURCE_ATTR: which of the scan's */
};

struct evaluator {
    const struct metrics *metrics;
    const struct traceql_metric *metric;
    struct store_view *view;
    struct arena *out;    /* the caller's */
    struct arena arena;   /* as long as this metric is evaluated */
    struct arena scratch; /* of one trace */
    struct metrics_table table;
    uint64_t start_ns, end_ns, step_ns; /* aligned; the end not included */
    size_t n_steps;
    uint64_t deadline_ns;
    unsigned until_clock;
    struct error_detail *detail;
    struct scan_cost cost;
    uint64_t traces_read;
    size_t n_exemplars; /* wanted */
    struct metrics_exemplars exemplars;

    struct column by[TRACEQL_BY_MAX], value;
    struct scan_attr attrs[SCAN_ATTRS_MAX];
    size_t n_attrs;

    /* Which traces are to be looked at. */
    struct trace_id *ids;
    uint32_t *slots;
    size_t n_ids, cap_ids;
};

static int check_clock(struct evaluator *e, unsigned every)
{
    if (e->until_clock-- > 0)
        return 0;
    e->until_clock = every;
    return e->deadline_ns && clock_monotonic_ns() > e->deadline_ns ? ERR_TIMEOUT : 0;
}

/* ---- one observation ---- */

/* What labels can be. */
static struct value as_label(const struct traceql_expr *field, struct value v)
{
    static const char *const statuses[] = {"unset", "ok", "error"};
    if (field->type == TRACEQL_KIND && v.type == VALUE_INT)
        return (struct value){.type = VALUE_STRING,
                              .string = v.integer == SPAN_KIND_UNSPECIFIED
                                            ? STR("unspecified")
                                            : str_from(span_kind_tag((unsigned)v.integer))};
    if (field->type == TRACEQL_STATUS && v.type == VALUE_INT)
        return (struct value){.type = VALUE_STRING,
                              .string = str_from(statuses[v.integer > 2 ? 0 : v.integer])};
    if (v.type > VALUE_DOUBLE || (v.type == VALUE_DOUBLE && isnan(v.real)))
        return (struct value){.type = VALUE_NONE};
    if (v.type == VALUE_DOUBLE && v.real == 0)
        v.real = 0; /* -0 is the same */
    return v;
}

/* The least power of two that is not below; 0 for what is not above 0. */
static double bucket_of(double v)
{
    int exponent;
    if (!(v > 0))
        return 0;
    double part = frexp(v, &exponent);
    return ldexp(1, part == 0.5 ? exponent - 1 : exponent);
}

static struct str function_name(uint8_t node)
{
    switch (node) {
    case TRACEQL_RATE:
        return STR("rate");
    case TRACEQL_COUNT_OVER_TIME:
        return STR("count_over_time");
    case TRACEQL_MIN_OVER_TIME:
        return STR("min_over_time");
    case TRACEQL_MAX_OVER_TIME:
        return STR("max_over_time");
    case TRACEQL_AVG_OVER_TIME:
        return STR("avg_over_time");
    case TRACEQL_SUM_OVER_TIME:
        return STR("sum_over_time");
    case TRACEQL_QUANTILE_OVER_TIME:
        return STR("quantile_over_time");
    case TRACEQL_HISTOGRAM_OVER_TIME:
        return STR("histogram_over_time");
    default:
        return STR("compare");
    }
}

static bool counts_only(const struct traceql_metric *m)
{
    return m->node == TRACEQL_RATE || m->node == TRACEQL_COUNT_OVER_TIME;
}

/* What is measured of a span, and by which labels it is counted. */
struct observation {
    struct metrics_label labels[LABELS_MAX];
    size_t n_labels;
    double value; /* NAN: nothing is measured */
};

/* From the values of `by`, in order, and that of the field. False: the span does not count. */
static bool observation_of(const struct evaluator *e, const struct value *by,
                           const struct value *measured, struct observation *ret)
{
    const struct traceql_metric *m = e->metric;
    size_t n = 0;
    double v = NAN;
    if (m->field) {
        if (measured->type != VALUE_INT && measured->type != VALUE_DOUBLE)
            return false;
        v = measured->type == VALUE_INT ? (double)measured->integer : measured->real;
        if (!isfinite(v))
            return false;
    }
    for (size_t i = 0; i < m->n_by; i++)
        ret->labels[n++] = (struct metrics_label){e->by[i].name, as_label(m->by[i], by[i])};
    double unit = m->field && m->field->type == TRACEQL_DURATION ? 1e9 : 1;
    if (m->node == TRACEQL_HISTOGRAM_OVER_TIME)
        ret->labels[n++] = (struct metrics_label){
            STR("__bucket"), {.type = VALUE_DOUBLE, .real = bucket_of(v) / unit}};
    else if (!n)
        ret->labels[n++] = (struct metrics_label){
            STR("__name__"), {.type = VALUE_STRING, .string = function_name(m->node)}};
    ret->n_labels = n;
    ret->value = v / unit;
    return true;
}

/* A span of the metric, or with `count` so many, of which nothing is measured. */
static int observe(struct evaluator *e, uint64_t start_ns, uint64_t count, const struct value *by,
                   const struct value *measured)
{
    struct observation o;
    struct metrics_row *row;
    if (!observation_of(e, by, measured, &o))
        return 0;
    int err = metrics_table_row(&e->table, o.labels, o.n_labels, true, &row);
    if (err)
        return err;
    struct metrics_cell *cell = &row->cells[(start_ns - e->start_ns) / e->step_ns];
    if (counts_only(e->metric)) {
        cell->n += count;
        return 0;
    }
    return metrics_cell_add(&e->table, cell, o.value,
                            e->metric->node == TRACEQL_QUANTILE_OVER_TIME);
}

/* A span that was observed, as one of those that are told. */
static int offer(struct evaluator *e, const struct metrics_exemplar *span, const struct value *by,
                 const struct value *measured)
{
    struct observation o;
    struct metrics_row *row;
    if (!observation_of(e, by, measured, &o))
        return 0;
    int err = metrics_table_row(&e->table, o.labels, o.n_labels, false, &row);
    if (err || !row)
        return err;
    struct metrics_exemplar x = *span;
    x.value = e->metric->node == TRACEQL_HISTOGRAM_OVER_TIME ? NAN : o.value;
    return metrics_exemplars_offer(&e->exemplars, &x, (size_t)(row - e->table.rows), e->out);
}

/* ---- from the rows of a scan ---- */

static void column_init(struct evaluator *e, const struct traceql_expr *field, struct column *c)
{
    struct buf name = BUF_INIT;
    traceql_print_field(field, &name);
    *c = (struct column){.field = field, .source = SOURCE_NONE};
    c->name = arena_str(&e->arena, buf_as_str(&name));
    buf_done(&name);
    if (field->of_parent)
        return;
    switch ((enum traceql_field)field->field) {
    case TRACEQL_NAME:
        c->source = SOURCE_NAME;
        return;
    case TRACEQL_SPAN_KIND:
        c->source = SOURCE_KIND;
        return;
    case TRACEQL_SPAN_STATUS:
        c->source = SOURCE_STATUS;
        return;
    case TRACEQL_SPAN_DURATION:
        c->source = SOURCE_DURATION;
        return;
    case TRACEQL_SPAN_ATTR:
    case TRACEQL_RESOURCE_ATTR:
    case TRACEQL_ANY_ATTR:
        c->source = SOURCE_ATTR;
        c->attr = e->n_attrs;
        e->attrs[e->n_attrs++] =
            (struct scan_attr){field->field == TRACEQL_SPAN_ATTR       ? FIELD_SPAN_ATTR
                               : field->field == TRACEQL_RESOURCE_ATTR ? FIELD_RESOURCE_ATTR
                                                                       : FIELD_ANY_ATTR,
                               field->key};
        return;
    default:
        return;
    }
}

static struct value of_row(const struct column *c, const struct scan_row *row)
{
    switch ((enum source)c->source) {
    case SOURCE_NAME:
        return (struct value){.type = VALUE_STRING, .string = row->name};
    case SOURCE_KIND:
        return (struct value){.type = VALUE_INT, .integer = row->kind};
    case SOURCE_STATUS:
        return (struct value){.type = VALUE_INT, .integer = row->status_code};
    case SOURCE_DURATION:
        return (struct value){.type = VALUE_INT,
                              .integer = row->duration_ns > INT64_MAX ? INT64_MAX
                                                                      : (int64_t)row->duration_ns};
    default:
        return row->attrs[c->attr];
    }
}

static void values_of_row(const struct evaluator *e, const struct scan_row *row, struct value *by,
                          struct value *measured)
{
    for (size_t i = 0; i < e->metric->n_by; i++)
        by[i] = of_row(&e->by[i], row);
    *measured = e->metric->field ? of_row(&e->value, row) : (struct value){.type = VALUE_NONE};
}

static int take_row(void *arg, struct scan *scan, const struct scan_row *row)
{
    struct evaluator *e = arg;
    struct value by[TRACEQL_BY_MAX], measured;
    int err = check_clock(e, CLOCK_EVERY);
    if (err)
        return err;
    values_of_row(e, row, by, &measured);
    return observe(e, row->start_ns, row->count, by, &measured);
}

#define ENOUGH 1 /* ends a scan, and is no error */

static int offer_row(void *arg, struct scan *scan, const struct scan_row *row)
{
    struct evaluator *e = arg;
    struct value by[TRACEQL_BY_MAX], measured;
    int err = check_clock(e, CLOCK_EVERY);
    if (err)
        return err;
    if (!metrics_exemplars_want(&e->exemplars, row->start_ns))
        return ENOUGH;
    const struct metrics_exemplar span = {
        row->trace_id, row->span_id, row->start_ns, row->duration_ns, row->service, row->name, NAN};
    values_of_row(e, row, by, &measured);
    return offer(e, &span, by, &measured);
}

/* The spans that are told, slot by slot: a scan of each ends after a few rows. Those of which nothing is found soon
 * are bounded by time, since the answer is there without them; slots far from each other come first. */
static int offer_rows(struct evaluator *e, const struct scan *all)
{
    const struct metrics_exemplars *x = &e->exemplars;
    uint64_t until_ns = clock_monotonic_ns() + EXEMPLARS_MS_MAX * NS_PER_MS;
    enum { STRIDE = 7 };
    int err = 0;
    for (size_t first = 0; x->most && !err && first < STRIDE; first++)
        for (size_t i = first; !err && i < x->n_slots; i += STRIDE) {
            struct scan scan = *all;
            uint64_t from_ns = x->start_ns + i * x->slot_ns;
            if (from_ns >= x->end_ns || clock_monotonic_ns() > until_ns)
                continue;
            scan.start_min_ns = from_ns;
            scan.start_max_ns = x->end_ns - from_ns > x->slot_ns ? from_ns + x->slot_ns - 1
                                                                 : x->end_ns - 1;
            scan.step_ns = 0;
            err = store_scan(e->view, &scan, offer_row, e, NULL);
            err = err == ENOUGH ? 0 : err;
        }
    return err;
}

/* ---- from whole traces ---- */

static int ids_grow(struct evaluator *e)
{
    size_t cap = e->cap_ids ? 2 * e->cap_ids : 1024;
    if (cap > METRICS_TRACES_MAX)
        return error_set(e->detail, ERR_TOO_LARGE, 0,
                         "more than %zu traces to look at: ask for a shorter time",
                         METRICS_TRACES_MAX);
    struct trace_id *ids = realloc(e->ids, cap * sizeof *ids);
    if (!ids)
        return ERR_NOMEM;
    e->ids = ids;
    uint32_t *slots = calloc(2 * cap, sizeof *slots);
    if (!slots)
        return ERR_NOMEM;
    for (size_t i = 0; i < e->n_ids; i++) {
        size_t at = hash_bytes_seed(ids[i].bytes, TRACE_ID_SIZE, hash_secret()) & (2 * cap - 1);
        while (slots[at])
            at = (at + 1) & (2 * cap - 1);
        slots[at] = (uint32_t)i + 1;
    }
    free(e->slots);
    e->slots = slots;
    e->cap_ids = cap;
    return 0;
}

static int take_id(void *arg, struct scan *scan, const struct scan_row *row)
{
    struct evaluator *e = arg;
    int err = check_clock(e, CLOCK_EVERY);
    if (!err && e->n_ids == e->cap_ids)
        err = ids_grow(e);
    if (err)
        return err;
    size_t mask = 2 * e->cap_ids - 1;
    size_t at = hash_bytes_seed(row->trace_id.bytes, TRACE_ID_SIZE, hash_secret()) & mask;
    while (e->slots[at] && trace_id_cmp(&e->ids[e->slots[at] - 1], &row->trace_id))
        at = (at + 1) & mask;
    if (e->slots[at])
        return 0;
    e->ids[e->n_ids++] = row->trace_id;
    e->slots[at] = (uint32_t)e->n_ids;
    return 0;
}

/* One attribute of one span, and that the span has it. */
static int compare_value(struct evaluator *e, bool selected, const char *scope, struct str key,
                         struct value v, size_t step)
{
    if (v.type == VALUE_NONE || v.type > VALUE_DOUBLE || (v.type == VALUE_DOUBLE && isnan(v.real)))
        return 0;
    char room[256];
    int n = snprintf(room, sizeof room, "%s%.*s", scope, STR_ARG(key));
    struct str name = {room, n < (int)sizeof room ? (size_t)n : sizeof room - 1};
    /* What was cut ends with a whole character. */
    while (name.len < (size_t)n && name.len && ((uint8_t)name.ptr[name.len - 1] & 0xc0) == 0x80)
        name.len--;
    if (name.len < (size_t)n && name.len && (uint8_t)name.ptr[name.len - 1] >= 0xc0)
        name.len--;
    struct metrics_label labels[2] = {
        {STR("__meta_type"),
         {.type = VALUE_STRING,
          .string = selected ? STR("selection_total") : STR("baseline_total")}},
        {name, {.type = VALUE_NONE}},
    };
    struct metrics_row *row;
    int err = metrics_table_row(&e->table, labels, 2, true, &row);
    if (err)
        return err;
    row->cells[step].n++;
    size_t total = (size_t)(row - e->table.rows), before = e->table.n;
    bool create = row->n_values < METRICS_COMPARE_VALUES_MAX;
    labels[0].value.string = selected ? STR("selection") : STR("baseline");
    labels[1].value = v;
    err = metrics_table_row(&e->table, labels, 2, create, &row);
    if (row)
        row->cells[step].n++;
    e->table.rows[total].n_values += e->table.n > before;
    return err;
}

static int compare_span(struct evaluator *e, const struct span *span,
                        const struct traceql_trace *trace)
{
    const struct traceql_metric *m = e->metric;
    static const struct traceql_expr kind = {.type = TRACEQL_KIND},
                                     status = {.type = TRACEQL_STATUS};
    bool selected = (!m->start_ns || (span->start_ns >= (uint64_t)m->start_ns &&
                                      span->start_ns <= (uint64_t)m->end_ns)) &&
                    traceql_match(m->selection->condition, span, trace);
    size_t step = (span->start_ns - e->start_ns) / e->step_ns;
    struct {
        const char *name;
        struct value v;
    } intrinsics[] = {
        {"name", {.type = VALUE_STRING, .string = span->name}},
        {"kind", as_label(&kind, (struct value){.type = VALUE_INT, .integer = span->kind})},
        {"status",
         as_label(&status, (struct value){.type = VALUE_INT, .integer = span->status_code})},
        {"statusMessage", {.type = VALUE_STRING, .string = span->status_message}},
        {"rootName", {.type = VALUE_STRING, .string = trace->root_name}},
        {"rootServiceName", {.type = VALUE_STRING, .string = trace->root_service}},
    };
    int err = 0;
    for (size_t i = 0; !err && i < sizeof intrinsics / sizeof *intrinsics; i++)
        if (i != 3 || span->status_message.len)
            err = compare_value(e, selected, intrinsics[i].name, STR(""), intrinsics[i].v, step);
    for (uint32_t i = 0; !err && i < span->attrs.n; i++)
        err = compare_value(e, selected, "span.", span->attrs.items[i].key,
                            span->attrs.items[i].value, step);
    const struct attrs *of_resource = &span->resource->attrs;
    for (uint32_t i = 0; !err && i < of_resource->n; i++)
        err = compare_value(e, selected, "resource.", of_resource->items[i].key,
                            of_resource->items[i].value, step);
    return err;
}

static int take_span(struct evaluator *e, const struct span *span,
                     const struct traceql_trace *trace)
{
    const struct traceql_metric *m = e->metric;
    struct value by[TRACEQL_BY_MAX], measured = {.type = VALUE_NONE};
    struct traceql_hex hexes[TRACEQL_BY_MAX + 1];
    if (m->node == TRACEQL_COMPARE)
        return compare_span(e, span, trace);
    for (size_t i = 0; i < m->n_by; i++)
        traceql_value(m->by[i], span, trace, &hexes[i], &by[i]);
    if (m->field)
        traceql_value(m->field, span, trace, &hexes[TRACEQL_BY_MAX], &measured);
    int err = observe(e, span->start_ns, 1, by, &measured);
    if (err || !metrics_exemplars_want(&e->exemplars, span->start_ns))
        return err;
    const struct metrics_exemplar x = {span->trace_id,
                                       span->span_id,
                                       span->start_ns,
                                       span_duration_ns(span),
                                       span->resource->service_name,
                                       span->name,
                                       NAN};
    return offer(e, &x, by, &measured);
}

static int take_trace(struct evaluator *e, const struct trace_id *id)
{
    struct trace_summary summary;
    struct span_batch batch;
    struct traceql_tree tree;
    struct traceql_spans *sets;
    size_t n_sets;
    arena_reset(&e->scratch);
    int err = store_trace_summary(e->view, id, &e->scratch, &summary);
    if (!err)
        err = store_trace(e->view, id, &e->scratch, &batch);
    if (!err)
        err = traceql_tree_init(&tree, batch.spans, batch.n, &e->scratch);
    uint8_t *input = err ? NULL : arena_alloc(&e->scratch, batch.n + 1);
    if (!err && !input)
        err = ERR_NOMEM;
    if (err)
        return err;
    e->traces_read++;
    for (size_t i = 0; i < batch.n; i++)
        input[i] = batch.spans[i].start_ns >= e->start_ns && batch.spans[i].start_ns < e->end_ns;
    struct traceql_trace trace = {
        .root_name = summary.root_name,
        .root_service = summary.root_service,
        .duration_ns = summary.end_ns > summary.start_ns ? summary.end_ns - summary.start_ns : 0,
        .tree = &tree,
    };
    err = traceql_run(e->metric->stages, &trace, input, &e->scratch, &sets, &n_sets);
    for (size_t k = 0; !err && k < n_sets; k++)
        for (size_t i = 0; !err && i < batch.n; i++)
            if (sets[k].marks[i])
                err = take_span(e, &batch.spans[i], &trace);
    return err;
}

/* ---- one function ---- */

static bool rows_suffice(const struct evaluator *e, bool exact)
{
    const struct traceql_metric *m = e->metric;
    bool suffice = exact && !e->metrics->query->needs_trace && m->node != TRACEQL_COMPARE;
    for (size_t i = 0; i < m->n_by; i++)
        suffice &= e->by[i].source != SOURCE_NONE;
    return suffice && (!m->field || e->value.source != SOURCE_NONE);
}

/* Whether spans that share where they come from, and the step, need not be told apart. */
static bool counts_suffice(const struct evaluator *e)
{
    const struct traceql_metric *m = e->metric;
    bool suffice = counts_only(m) && !m->field && !e->metrics->by_rows;
    for (size_t i = 0; i < m->n_by; i++)
        suffice &= e->by[i].source == SOURCE_NAME || e->by[i].source == SOURCE_KIND ||
                   (e->by[i].source == SOURCE_ATTR &&
                    e->attrs[e->by[i].attr].field == FIELD_RESOURCE_ATTR);
    return suffice;
}

static int gather(struct evaluator *e)
{
    const struct traceql_metric *m = e->metric;
    bool exact;
    const struct predicate *plan = traceql_predicate(m->stages, &e->arena, &exact);
    int err = plan ? metrics_exemplars_init(&e->exemplars,
                                            m->node == TRACEQL_COMPARE ? 0 : e->n_exemplars,
                                            e->start_ns, e->end_ns, &e->arena)
                   : ERR_NOMEM;
    if (err)
        return err;
    for (size_t i = 0; i < m->n_by; i++)
        column_init(e, m->by[i], &e->by[i]);
    if (m->field)
        column_init(e, m->field, &e->value);
    struct scan scan = {.where = plan, .start_min_ns = e->start_ns, .start_max_ns = e->end_ns - 1};
    if (rows_suffice(e, exact)) {
        scan.attrs = e->attrs;
        scan.n_attrs = e->n_attrs;
        scan.step_ns = counts_suffice(e) ? e->step_ns : 0;
        err = store_scan(e->view, &scan, take_row, e, &e->cost);
        return err ? err : offer_rows(e, &scan);
    }
    err = store_scan(e->view, &scan, take_id, e, &e->cost);
    for (size_t i = 0; !err && i < e->n_ids; i++) {
        err = check_clock(e, 16);
        if (!err)
            err = take_trace(e, &e->ids[i]);
    }
    return err;
}

static double sample_of(const struct evaluator *e, const struct metrics_cell *cell, double q)
{
    switch (e->metric->node) {
    case TRACEQL_RATE:
        return (double)cell->n / ((double)e->step_ns / 1e9);
    case TRACEQL_COUNT_OVER_TIME:
    case TRACEQL_HISTOGRAM_OVER_TIME:
    case TRACEQL_COMPARE:
        return (double)cell->n;
    default:
        break;
    }
    if (!cell->n)
        return NAN;
    switch (e->metric->node) {
    case TRACEQL_MIN_OVER_TIME:
        return cell->min;
    case TRACEQL_MAX_OVER_TIME:
        return cell->max;
    case TRACEQL_AVG_OVER_TIME:
        return cell->sum / (double)cell->n;
    case TRACEQL_SUM_OVER_TIME:
        return cell->sum;
    default:
        return metrics_cell_quantile(cell, q);
    }
}

static int series_order(const void *a, const void *b)
{
    const struct metrics_series *x = a, *y = b;
    return metrics_labels_order(x->labels, x->n_labels, y->labels, y->n_labels);
}

/* Of the quantiles of the span's time the one that is nearest to it. */
static bool is_nearest(const struct evaluator *e, const struct metrics_row *row,
                       const double *quantile, const struct metrics_exemplar *x)
{
    const struct traceql_metric *m = e->metric;
    const struct metrics_cell *cell = &row->cells[(x->start_ns - e->start_ns) / e->step_ns];
    size_t best = 0;
    double least = INFINITY;
    for (size_t i = 0; i < m->n_quantiles; i++) {
        double off = fabs(metrics_cell_quantile(cell, m->quantiles[i]) - x->value);
        if (off < least) {
            least = off;
            best = i;
        }
    }
    return quantile == &m->quantiles[best];
}

static int series_exemplars(struct evaluator *e, const struct metrics_row *row,
                            const double *quantile, struct metrics_series *series)
{
    size_t n, kept = 0;
    int err = metrics_exemplars_of(&e->exemplars, (size_t)(row - e->table.rows), e->out,
                                   &series->exemplars, &n);
    for (size_t i = 0; !err && i < n; i++)
        if (!quantile || is_nearest(e, row, quantile, &series->exemplars[i]))
            series->exemplars[kept++] = series->exemplars[i];
    series->n_exemplars = kept;
    return err;
}

/* One series of a row; with `quantile` (not NULL) its own. */
static int series_make(struct evaluator *e, const struct metrics_row *row, const double *quantile,
                       struct metrics_series *ret)
{
    struct metrics_label *labels = arena_array(e->out, row->n_labels + 1, sizeof *labels);
    double *samples = arena_array(e->out, e->n_steps, sizeof *samples);
    size_t n = 0;
    if (!labels || !samples)
        return ERR_NOMEM;
    for (size_t i = 0; i < row->n_labels; i++) {
        struct metrics_label l = row->labels[i];
        /* The quantile takes the place of the name. */
        if (quantile && row->n_labels == 1 && str_eq(l.name, STR("__name__")))
            continue;
        l.name = arena_str(e->out, l.name);
        if (l.value.type == VALUE_STRING)
            l.value.string = arena_str(e->out, l.value.string);
        if (!l.name.ptr || (l.value.type == VALUE_STRING && !l.value.string.ptr))
            return ERR_NOMEM;
        labels[n++] = l;
    }
    if (quantile)
        labels[n++] = (struct metrics_label){STR("p"), {.type = VALUE_DOUBLE, .real = *quantile}};
    for (size_t k = 0; k < e->n_steps; k++)
        samples[k] = sample_of(e, &row->cells[k], quantile ? *quantile : 0);
    *ret = (struct metrics_series){.labels = labels, .n_labels = n, .samples = samples};
    return series_exemplars(e, row, quantile, ret);
}

/* ---- compare(): of each attribute the values that are most frequent ---- */

struct ranked {
    const struct metrics_row *row;
    uint64_t n;
};

static int frequent_first(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    int order = metrics_labels_order(x->row->labels, 1, y->row->labels, 1);
    if (!order)
        order = str_cmp(x->row->labels[1].name, y->row->labels[1].name);
    if (order)
        return order;
    if (x->n != y->n)
        return x->n > y->n ? -1 : 1;
    return metrics_labels_order(x->row->labels, 2, y->row->labels, 2);
}

static int compare_series(struct evaluator *e, struct metrics_result *set)
{
    size_t n = e->table.n;
    struct ranked *ranked = arena_array(&e->arena, n + 1, sizeof *ranked);
    if (!ranked)
        return ERR_NOMEM;
    for (size_t i = 0; i < n; i++) {
        ranked[i] = (struct ranked){.row = &e->table.rows[i]};
        for (size_t k = 0; k < e->n_steps; k++)
            ranked[i].n += e->table.rows[i].cells[k].n;
    }
    if (n)
        qsort(ranked, n, sizeof *ranked, frequent_first);
    int64_t place = 0;
    int err = 0;
    for (size_t i = 0; !err && i < n; i++) {
        const struct metrics_label *l = ranked[i].row->labels;
        bool same = i && !metrics_labels_order(l, 1, ranked[i - 1].row->labels, 1) &&
                    str_eq(l[1].name, ranked[i - 1].row->labels[1].name);
        place = same ? place + 1 : 0;
        if (place < e->metric->top_n)
            err = series_make(e, ranked[i].row, NULL, &set->series[set->n++]);
    }
    return err;
}

static int finish(struct evaluator *e, struct metrics_result *set)
{
    const struct traceql_metric *m = e->metric;
    size_t each = m->n_quantiles ? m->n_quantiles : 1;
    set->series = arena_array(e->out, e->table.n * each + 1, sizeof *set->series);
    if (!set->series)
        return ERR_NOMEM;
    int err = 0;
    if (m->node == TRACEQL_COMPARE) {
        err = compare_series(e, set);
    } else {
        for (size_t i = 0; !err && i < e->table.n; i++)
            for (size_t q = 0; !err && q < each; q++)
                err = series_make(e, &e->table.rows[i], m->n_quantiles ? &m->quantiles[q] : NULL,
                                  &set->series[set->n++]);
    }
    if (!err && set->n)
        qsort(set->series, set->n, sizeof *set->series, series_order);
    return err;
}

/* ---- the tree ---- */

struct shared {
    const struct metrics *metrics;
    struct store_view *view;
    struct arena *arena;
    struct error_detail *detail;
    uint64_t start_ns, end_ns, deadline_ns;
    size_t n_steps;
    struct metrics_result *result; /* the costs are added up here */
};

static void cost_add(struct scan_cost *to, const struct scan_cost *add)
{
    to->parts += add->parts;
    to->parts_pruned += add->parts_pruned;
    to->groups += add->groups;
    to->groups_pruned += add->groups_pruned;
    to->rows_read += add->rows_read;
    to->rows_matched += add->rows_matched;
    to->bytes_read += add->bytes_read;
}

/* With `exemplars`, so many; of two metrics that are joined, the left one's. */
static int evaluate(struct shared *s, const struct traceql_metric *m, size_t exemplars,
                    struct metrics_result *set)
{
    *set = (struct metrics_result){
        .n_steps = s->n_steps, .start_ns = s->start_ns, .step_ns = s->metrics->step_ns};
    int err = 0;
    if (m->node == TRACEQL_METRIC_BINARY) {
        bool literal_left = m->left->node == TRACEQL_METRIC_LITERAL;
        bool literal_right = m->right->node == TRACEQL_METRIC_LITERAL;
        struct metrics_result right;
        err = evaluate(s, literal_left ? m->right : m->left, exemplars, set);
        if (!err && (literal_left || literal_right)) {
            metrics_join_literal(m->op, set, literal_left ? m->left->literal : m->right->literal,
                                 literal_left);
        } else if (!err) {
            err = evaluate(s, m->right, 0, &right);
            if (!err)
                metrics_join(m->op, set, &right);
        }
    } else {
        struct evaluator e = {
            .metrics = s->metrics,
            .metric = m,
            .view = s->view,
            .out = s->arena,
            .start_ns = s->start_ns,
            .end_ns = s->end_ns,
            .step_ns = s->metrics->step_ns,
            .n_steps = s->n_steps,
            .deadline_ns = s->deadline_ns,
            .detail = s->detail,
            .n_exemplars = exemplars,
        };
        e.table =
            (struct metrics_table){.arena = &e.arena, .n_steps = s->n_steps, .detail = s->detail};
        err = gather(&e);
        if (!err)
            err = metrics_exemplars_choose(&e.exemplars, e.table.n);
        if (!err)
            err = finish(&e, set);
        cost_add(&s->result->cost, &e.cost);
        s->result->traces_read += e.traces_read;
        metrics_table_done(&e.table);
        free(e.ids);
        free(e.slots);
        arena_done(&e.scratch);
        arena_done(&e.arena);
    }
    return err ? err : metrics_then(m->then, set, s->arena);
}

static int times_check(const struct metrics *m, struct shared *s)
{
    if (!m->query || !m->query->metric)
        return error_set(s->detail, ERR_INVALID, 0,
                         "this query gives traces; expected a metric at its end, such as | rate()");
    if (!m->step_ns)
        return error_set(s->detail, ERR_INVALID, 0, "expected a step above 0");
    if (m->end_ns <= m->start_ns)
        return error_set(s->detail, ERR_INVALID, 0, "the end lies before the start");
    s->start_ns = m->from_start ? m->start_ns : m->start_ns - m->start_ns % m->step_ns;
    uint64_t steps = (m->end_ns - s->start_ns - 1) / m->step_ns + 1;
    if (steps > METRICS_STEPS_MAX || steps > (UINT64_MAX - s->start_ns) / m->step_ns)
        return error_set(s->detail, ERR_TOO_LARGE, 0,
                         "more than %d steps: take longer ones, or a shorter time",
                         METRICS_STEPS_MAX);
    s->n_steps = (size_t)steps;
    s->end_ns = s->start_ns + steps * m->step_ns;
    return 0;
}

int metrics_run(struct store_view *view, const struct metrics *metrics, struct arena *arena,
                struct metrics_result *ret_result, struct error_detail *ret_detail)
{
    struct error_detail unasked;
    struct metrics_result set, result = {0};
    uint64_t begun_ns = clock_monotonic_ns();
    struct shared s = {
        .metrics = metrics,
        .view = view,
        .arena = arena,
        .detail = ret_detail ? ret_detail : &unasked,
        .deadline_ns = metrics->timeout_ns ? begun_ns + metrics->timeout_ns : 0,
        .result = &result,
    };
    int err = times_check(metrics, &s);
    if (err)
        return err;
    struct pug_span span;
    pug_span_start(&span, "query.metrics", PUG_INT("steps", (int64_t)s.n_steps));
    s.detail->code = 0;
    size_t exemplars = metrics->exemplars < METRICS_EXEMPLARS_MAX ? metrics->exemplars
                                                                  : METRICS_EXEMPLARS_MAX;
    err = evaluate(&s, metrics->query->metric, exemplars, &set);
    if (!err)
        metrics_exemplars_settle(&set, metrics->query->metric->node == TRACEQL_METRIC_BINARY);
    pug_set_int(&span, "rows", (int64_t)result.cost.rows_read);
    pug_set_int(&span, "traces.read", (int64_t)result.traces_read);
    if (err)
        pug_error(&span, err_name(err));
    pug_span_end(&span);
    if (err == ERR_TIMEOUT)
        return error_set(s.detail, err, 0,
                         "the query took longer than %llu ms; ask for a shorter time range",
                         (unsigned long long)(metrics->timeout_ns / NS_PER_MS));
    if (err && s.detail->code != err)
        return error_set(s.detail, err, 0, "the query failed: %s", err_text(err));
    if (err)
        return err;
    result.series = set.series;
    result.n = set.n;
    result.n_steps = s.n_steps;
    result.start_ns = s.start_ns;
    result.step_ns = metrics->step_ns;
    result.elapsed_ns = clock_monotonic_ns() - begun_ns;
    *ret_result = result;
    return 0;
}

size_t metrics_exemplars_asked(const struct traceql *query, size_t asked)
{
    const struct traceql_hint *hint = traceql_hint(query, "exemplars");
    if (hint && hint->type == TRACEQL_BOOL)
        asked = !hint->value.boolean ? 0 : asked ? asked : METRICS_EXEMPLARS_MAX;
    else if (hint && hint->type == TRACEQL_INT)
        asked = hint->value.integer > 0 ? (size_t)hint->value.integer : 0;
    return asked < METRICS_EXEMPLARS_MAX ? asked : METRICS_EXEMPLARS_MAX;
}
