/* Series of spans: one pass over what is stored, up to the last instant that was asked for.
 *
 * Each span finds its entity (service, name, kind, status) and adds to one cell, that of the first instant behind its
 * start; sums over the cells make the counter. Where only counts are asked for, the store counts the spans of an
 * operation and an interval together, once for each status. Buckets are kept apart while counting and summed up at
 * the end; those in which nothing fell are those below them, in memory too.
 *
 * Conditions on labels go to the store, those on `le` and the name choose what is counted. */
#include "query/span_series_internal.h"

#include "base/clock.h"
#include "base/hash.h"

#include <math.h>
#include <stdlib.h>

#define INTERVAL_NS (SPAN_SERIES_INTERVAL_MS * NS_PER_MS)
enum { ROWS_BETWEEN_LOOKS = 1024, MEMO = 1024 };

/* ---- names ---- */

enum measure { MEASURE_COUNT, MEASURE_SUM, MEASURE_BUCKET };

struct family {
    const char *labels[ENTITY_TEXTS_MAX];
    size_t n_labels;
    const uint64_t *bounds_ns;
    size_t n_bounds;
    double unit_ns; /* of sums and bounds in the text of series */
    bool is_graph;
};

static const uint64_t tempo_bounds_ns[] = {
    2000000,   4000000,   8000000,    16000000,   32000000,   64000000,   128000000,
    256000000, 512000000, 1024000000, 2048000000, 4096000000, 8192000000, 16384000000};
static const uint64_t connector_bounds_ns[] = {
    2000000,   4000000,   6000000,    8000000,    10000000,   50000000,   100000000,   200000000,
    400000000, 800000000, 1000000000, 1400000000, 2000000000, 5000000000, 10000000000, 15000000000};
static const uint64_t graph_bounds_ns[] = {100000000,  200000000,  400000000,  800000000,
                                           1600000000, 3200000000, 6400000000, 12800000000};

#define BOUNDS(array) array, sizeof array / sizeof *array
enum { FAMILY_TEMPO, FAMILY_CONNECTOR, FAMILY_GRAPH, FAMILIES };
static const struct family families[FAMILIES] = {
    [FAMILY_TEMPO] = {{"service", "span_name", "span_kind", "status_code"},
                      4,
                      BOUNDS(tempo_bounds_ns),
                      1e9,
                      false},
    [FAMILY_CONNECTOR] = {{"service_name", "span_name", "span_kind", "status_code"},
                          4,
                          BOUNDS(connector_bounds_ns),
                          1e6,
                          false},
    [FAMILY_GRAPH] =
        {{"client", "server", "connection_type"}, 3, BOUNDS(graph_bounds_ns), 1e9, true},
};
enum { LABEL_SERVICE, LABEL_NAME, LABEL_KIND, LABEL_STATUS };

struct metric {
    struct str name;
    uint8_t family, tally, measure;
    bool is_histogram;
};

#define HISTOGRAM(name, family, tally)                                                             \
    {STR_INIT(name "_bucket"), family, tally, MEASURE_BUCKET, true},                               \
        {STR_INIT(name "_count"), family, tally, MEASURE_COUNT, true},                             \
    {                                                                                              \
        STR_INIT(name "_sum"), family, tally, MEASURE_SUM, true                                    \
    }
#define STR_INIT(literal)                                                                          \
    {                                                                                              \
        literal, sizeof(literal) - 1                                                               \
    }

static const struct metric metrics[] = {
    {STR_INIT("traces_service_graph_request_failed_total"), FAMILY_GRAPH, TALLY_FAILED,
     MEASURE_COUNT, false},
    {STR_INIT("traces_service_graph_request_total"), FAMILY_GRAPH, TALLY_MAIN, MEASURE_COUNT,
     false},
    HISTOGRAM("traces_service_graph_request_client_seconds", FAMILY_GRAPH, TALLY_MAIN),
    HISTOGRAM("traces_service_graph_request_server_seconds", FAMILY_GRAPH, TALLY_SERVER),
    {STR_INIT("traces_span_metrics_calls_total"), FAMILY_CONNECTOR, TALLY_MAIN, MEASURE_COUNT,
     false},
    HISTOGRAM("traces_span_metrics_duration_milliseconds", FAMILY_CONNECTOR, TALLY_MAIN),
    {STR_INIT("traces_spanmetrics_calls_total"), FAMILY_TEMPO, TALLY_MAIN, MEASURE_COUNT, false},
    HISTOGRAM("traces_spanmetrics_latency", FAMILY_TEMPO, TALLY_MAIN),
};
enum { METRICS = sizeof metrics / sizeof *metrics };

static const struct span_metric_info infos[] = {
    {STR_INIT("traces_service_graph_request_failed_total"), STR_INIT("counter"),
     STR_INIT("Calls between services in which one of the two spans has an error.")},
    {STR_INIT("traces_service_graph_request_total"), STR_INIT("counter"),
     STR_INIT("Calls from one service to another.")},
    {STR_INIT("traces_service_graph_request_client_seconds"), STR_INIT("histogram"),
     STR_INIT("How long calls took for who called.")},
    {STR_INIT("traces_service_graph_request_server_seconds"), STR_INIT("histogram"),
     STR_INIT("How long calls took for who was called.")},
    {STR_INIT("traces_span_metrics_calls_total"), STR_INIT("counter"), STR_INIT("Spans.")},
    {STR_INIT("traces_span_metrics_duration_milliseconds"), STR_INIT("histogram"),
     STR_INIT("How long spans took.")},
    {STR_INIT("traces_spanmetrics_calls_total"), STR_INIT("counter"), STR_INIT("Spans.")},
    {STR_INIT("traces_spanmetrics_latency"), STR_INIT("histogram"),
     STR_INIT("How long spans took, in seconds.")},
};

const struct span_metric_info *span_series_info(size_t i)
{
    return i < sizeof infos / sizeof *infos ? &infos[i] : NULL;
}

struct str span_series_name(size_t i)
{
    return i < METRICS ? metrics[i].name : STR_NONE;
}

static const struct str kinds[] = {
    STR_INIT("SPAN_KIND_UNSPECIFIED"), STR_INIT("SPAN_KIND_INTERNAL"),
    STR_INIT("SPAN_KIND_SERVER"),      STR_INIT("SPAN_KIND_CLIENT"),
    STR_INIT("SPAN_KIND_PRODUCER"),    STR_INIT("SPAN_KIND_CONSUMER")};
static const struct str statuses[] = {STR_INIT("STATUS_CODE_UNSET"), STR_INIT("STATUS_CODE_OK"),
                                      STR_INIT("STATUS_CODE_ERROR")};
enum { KINDS = 6, STATUSES = 3 };

/* ---- conditions ---- */

static bool label_matches(const struct promql_select *s, struct str name, struct str value)
{
    for (size_t i = 0; i < s->n_matchers; i++)
        if (str_eq(s->matchers[i].name, name) && !promql_matches(&s->matchers[i], value))
            return false;
    return true;
}

/* Labels that the family does not have are empty. */
static bool others_match(const struct promql_select *s, const struct family *f)
{
    for (size_t i = 0; i < s->n_matchers; i++) {
        struct str name = s->matchers[i].name;
        bool known = str_eq(name, STR("__name__")) || str_eq(name, STR("le"));
        for (size_t k = 0; k < f->n_labels; k++)
            known |= str_eq(name, str_from(f->labels[k]));
        if (!known && !promql_matches(&s->matchers[i], STR("")))
            return false;
    }
    return true;
}

static bool entity_matches(const struct promql_select *s, const struct family *f,
                           const struct entity *e)
{
    for (size_t i = 0; i < f->n_labels; i++)
        if (!label_matches(s, str_from(f->labels[i]), e->texts[i]))
            return false;
    return true;
}

struct conditions {
    struct arena *arena;
    struct predicate *items;
    size_t n;
    struct predicate all;
};

static int text_condition(struct conditions *c, enum predicate_field field,
                          const struct promql_matcher *m)
{
    bool regex = m->op == PROMQL_MATCH_RE || m->op == PROMQL_MATCH_NRE;
    struct predicate leaf = {
        .op = regex ? PREDICATE_REGEX : PREDICATE_EQ,
        .field = field,
        .value = {.type = VALUE_STRING, .string = regex ? m->expression : m->value},
    };
    if (m->op == PROMQL_MATCH_EQ || m->op == PROMQL_MATCH_RE) {
        c->items[c->n++] = leaf;
        return 0;
    }
    struct predicate *child = arena_alloc(c->arena, sizeof *child);
    if (!child)
        return ERR_NOMEM;
    *child = leaf;
    c->items[c->n++] = (struct predicate){.op = PREDICATE_NOT, .children = child, .n_children = 1};
    return 0;
}

/* One of the numbers whose text is wanted; nothing when all are. */
static int number_condition(struct conditions *c, enum predicate_field field, const bool *wanted,
                            size_t n)
{
    struct predicate *children = arena_array(c->arena, n, sizeof *children);
    size_t k = 0;
    if (!children)
        return ERR_NOMEM;
    for (size_t i = 0; i < n; i++)
        if (wanted[i])
            children[k++] = (struct predicate){
                .op = PREDICATE_EQ,
                .field = field,
                .value = {.type = VALUE_INT, .integer = (int64_t)i},
            };
    if (k < n)
        c->items[c->n++] =
            (struct predicate){.op = PREDICATE_OR, .children = children, .n_children = k};
    return 0;
}

static int conditions_of(const struct gatherer *g, const bool statuses_wanted[STATUSES],
                         struct conditions *c)
{
    const struct promql_select *s = g->select;
    bool kinds_wanted[KINDS];
    int err = 0;
    *c = (struct conditions){.arena = g->arena};
    c->items = arena_array(g->arena, s->n_matchers + 2, sizeof *c->items);
    if (!c->items)
        return ERR_NOMEM;
    for (size_t i = 0; !err && i < s->n_matchers; i++) {
        if (str_eq(s->matchers[i].name, str_from(g->family->labels[LABEL_SERVICE])))
            err = text_condition(c, FIELD_SERVICE, &s->matchers[i]);
        else if (str_eq(s->matchers[i].name, str_from(g->family->labels[LABEL_NAME])))
            err = text_condition(c, FIELD_NAME, &s->matchers[i]);
    }
    for (size_t i = 0; i < KINDS; i++)
        kinds_wanted[i] = label_matches(s, str_from(g->family->labels[LABEL_KIND]), kinds[i]);
    if (!err)
        err = number_condition(c, FIELD_KIND, kinds_wanted, KINDS);
    if (!err)
        err = number_condition(c, FIELD_STATUS, statuses_wanted, STATUSES);
    c->all = (struct predicate){.op = PREDICATE_AND, .children = c->items, .n_children = c->n};
    return err;
}

/* ---- cells ---- */

int gatherer_clock(struct gatherer *g)
{
    if (g->until_clock-- > 0)
        return 0;
    g->until_clock = ROWS_BETWEEN_LOOKS;
    uint64_t deadline_ns = g->source->deadline_ns;
    if (deadline_ns && clock_monotonic_ns() > deadline_ns)
        return error_set(g->detail, ERR_TIMEOUT, 0, "query timed out in expression evaluation");
    return 0;
}

/* The place of the first instant behind a start. */
static size_t place_of(struct gatherer *g, uint64_t start_ns)
{
    if (start_ns >= g->place_from_ns && start_ns < g->place_to_ns)
        return g->place;
    int64_t ms = (int64_t)(start_ns / NS_PER_MS);
    const int64_t *t = g->select->instants;
    size_t low = 0, high = g->select->n_instants;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (t[middle] <= ms)
            low = middle + 1;
        else
            high = middle;
    }
    g->place = low;
    g->place_from_ns = low ? (uint64_t)t[low - 1] * NS_PER_MS : 0;
    g->place_to_ns = low < g->select->n_instants ? (uint64_t)t[low] * NS_PER_MS : UINT64_MAX;
    return low;
}

uint64_t gatherer_end_ns(const struct gatherer *g)
{
    return (uint64_t)g->select->instants[g->select->n_instants - 1] * NS_PER_MS + INTERVAL_NS - 1;
}

static int cells_make(struct gatherer *g, double **ret)
{
    size_t n = g->select->n_instants;
    if (n > g->cells_left)
        return error_set(
            g->detail, ERR_TOO_LARGE, 0,
            "query processing would load too many samples into memory in query execution");
    g->cells_left -= n;
    *ret = arena_zalloc(g->arena, n * sizeof **ret);
    return *ret ? 0 : error_set(g->detail, ERR_NOMEM, 0, "out of memory");
}

int gatherer_add(struct gatherer *g, struct tally *t, uint64_t start_ns, double count,
                 bool measured, uint64_t duration_ns)
{
    const struct family *f = g->family;
    size_t place = place_of(g, start_ns), i = 0;
    int err = 0;
    /* Behind the last instant: only that the series is born, which may be at that instant. */
    bool counts = place < g->select->n_instants;
    if (start_ns < t->first_ns)
        t->first_ns = start_ns;
    if (!t->count)
        err = cells_make(g, &t->count);
    if (err)
        return err;
    if (counts)
        t->count[place] += count;
    if (!measured || !g->with_histograms)
        return 0;
    while (i < f->n_bounds && duration_ns > f->bounds_ns[i])
        i++;
    if (!t->sum)
        err = cells_make(g, &t->sum);
    if (!err && counts && i < f->n_bounds && !t->buckets[i])
        err = cells_make(g, &t->buckets[i]);
    if (err || !counts)
        return err;
    t->sum[place] += count * ((double)duration_ns / f->unit_ns);
    if (i < f->n_bounds)
        t->buckets[i][place] += count;
    return 0;
}

static int entities_grow(struct gatherer *g)
{
    size_t cap = g->cap ? 2 * g->cap : 256, mask = 2 * cap - 1;
    if (cap > 2 * PROMQL_SERIES_MAX)
        return error_set(g->detail, ERR_TOO_LARGE, 0, "more than %d series", PROMQL_SERIES_MAX);
    struct entity *entities = realloc(g->entities, cap * sizeof *entities);
    if (entities)
        g->entities = entities;
    uint32_t *slots = entities ? calloc(mask + 1, sizeof *slots) : NULL;
    if (!slots)
        return error_set(g->detail, ERR_NOMEM, 0, "out of memory");
    for (size_t i = 0; i < g->n; i++) {
        size_t at = entities[i].hash & mask;
        while (slots[at])
            at = (at + 1) & mask;
        slots[at] = (uint32_t)i + 1;
    }
    free(g->slots);
    g->slots = slots;
    g->mask = mask;
    g->cap = cap;
    return 0;
}

int gatherer_entity(struct gatherer *g, const struct str *texts, struct entity **ret)
{
    uint64_t hash = hash_secret();
    if (g->n == g->cap) {
        int err = entities_grow(g);
        if (err)
            return err;
    }
    for (size_t i = 0; i < g->family->n_labels; i++)
        hash = hash_bytes_seed(texts[i].ptr, texts[i].len, hash);
    size_t at = hash & g->mask;
    for (; g->slots[at]; at = (at + 1) & g->mask) {
        struct entity *e = &g->entities[g->slots[at] - 1];
        size_t same = 0;
        while (e->hash == hash && same < g->family->n_labels && str_eq(e->texts[same], texts[same]))
            same++;
        if (same == g->family->n_labels) {
            *ret = e;
            return 0;
        }
    }
    struct entity *e = &g->entities[g->n++];
    *e = (struct entity){.hash = hash};
    memcpy(e->texts, texts, g->family->n_labels * sizeof *texts);
    for (size_t i = 0; i < TALLIES; i++)
        e->tallies[i].first_ns = UINT64_MAX;
    g->slots[at] = (uint32_t)g->n;
    *ret = e;
    return 0;
}

/* ---- spans ---- */

/* Which entity a row of these was; the store gives texts of one segment at the same place each time. */
struct memo {
    const char *service, *name;
    size_t service_len, name_len;
    uint32_t entity; /* + 1 */
    uint8_t kind, status;
};

struct span_pass {
    struct gatherer *g;
    struct memo memo[MEMO];
    uint8_t status; /* of all rows, where the store counts them together */
    bool counted;
};

static int row_entity(struct span_pass *p, const struct scan_row *row, uint8_t status,
                      struct entity **ret)
{
    uint8_t kind = row->kind < KINDS ? row->kind : 0;
    struct memo *m =
        &p->memo[hash_mix64((uintptr_t)row->service.ptr ^
                            hash_mix64((uintptr_t)row->name.ptr + kind * 4u + status)) %
                 MEMO];
    if (m->entity && m->service == row->service.ptr && m->name == row->name.ptr &&
        m->service_len == row->service.len && m->name_len == row->name.len && m->kind == kind &&
        m->status == status) {
        *ret = &p->g->entities[m->entity - 1];
        return 0;
    }
    const struct str texts[] = {row->service, row->name, kinds[kind],
                                statuses[status < STATUSES ? status : 0]};
    int err = gatherer_entity(p->g, texts, ret);
    if (!err)
        *m = (struct memo){row->service.ptr,
                           row->name.ptr,
                           row->service.len,
                           row->name.len,
                           (uint32_t)(*ret - p->g->entities) + 1,
                           kind,
                           status};
    return err;
}

static int take_row(void *arg, struct scan *scan, const struct scan_row *row)
{
    struct span_pass *p = arg;
    struct entity *e;
    int err = gatherer_clock(p->g);
    if (!err)
        err = row_entity(p, row, p->counted ? p->status : row->status_code, &e);
    return err ? err
               : gatherer_add(p->g, &e->tallies[TALLY_MAIN], row->start_ns, (double)row->count,
                              !p->counted, row->duration_ns);
}

static int scan_once(struct span_pass *p, const bool statuses_wanted[STATUSES])
{
    struct gatherer *g = p->g;
    struct conditions c;
    struct scan_cost cost = {0};
    struct scan scan = {
        .start_max_ns = gatherer_end_ns(g),
        .step_ns = p->counted ? INTERVAL_NS : 0,
    };
    int err = conditions_of(g, statuses_wanted, &c);
    if (err)
        return error_set(g->detail, err, 0, "out of memory");
    scan.where = &c.all;
    g->detail->code = 0;
    err = store_scan(g->source->view, &scan, take_row, p, &cost);
    if (err && g->detail->code != err)
        error_set(g->detail, err, 0, "the query failed: %s", err_text(err));
    g->source->cost.rows_read += cost.rows_read;
    g->source->cost.bytes_read += cost.bytes_read;
    return err;
}

static int spans_gather(struct gatherer *g)
{
    bool wanted[STATUSES];
    struct span_pass *p = arena_zalloc(g->arena, sizeof *p);
    if (!p)
        return error_set(g->detail, ERR_NOMEM, 0, "out of memory");
    p->g = g;
    p->counted = !g->with_histograms;
    for (size_t i = 0; i < STATUSES; i++)
        wanted[i] = label_matches(g->select, str_from(g->family->labels[LABEL_STATUS]),
                                  statuses[i]);
    if (!p->counted)
        return scan_once(p, wanted);
    int err = 0;
    for (uint8_t i = 0; !err && i < STATUSES; i++) {
        bool one[STATUSES] = {i == 0, i == 1, i == 2};
        p->status = i;
        if (wanted[i])
            err = scan_once(p, one);
    }
    return err;
}

/* ---- series ---- */

struct emitter {
    struct gatherer *g;
    struct promql_series *items;
    size_t n, cap;
};

static int64_t birth_of(const struct tally *t)
{
    return (int64_t)(t->first_ns / INTERVAL_NS) * SPAN_SERIES_INTERVAL_MS;
}

/* Cells to counters; before the birth there is nothing. */
static void accumulate(const struct gatherer *g, const struct tally *t, double *cells)
{
    double sum = 0;
    for (size_t i = 0; i < g->select->n_instants; i++) {
        sum += cells[i];
        cells[i] = g->select->instants[i] < birth_of(t) ? promql_absent() : sum;
    }
}

/* Buckets count what is in those below them too. One in which nothing fell is the one below it. */
static int buckets_finish(struct gatherer *g, struct tally *t)
{
    for (size_t b = 0; b < g->family->n_bounds; b++) {
        if (b && !t->buckets[b]) {
            t->buckets[b] = t->buckets[b - 1];
            continue;
        }
        int err = t->buckets[b] ? 0 : cells_make(g, &t->buckets[b]);
        if (err)
            return err;
        accumulate(g, t, t->buckets[b]);
        for (size_t i = 0; b && i < g->select->n_instants; i++)
            if (!promql_is_absent(t->buckets[b][i]))
                t->buckets[b][i] += t->buckets[b - 1][i];
    }
    return 0;
}

static int tally_finish(struct gatherer *g, struct tally *t)
{
    if (!t->count)
        return 0;
    accumulate(g, t, t->count);
    if (!t->sum)
        return 0;
    accumulate(g, t, t->sum);
    return buckets_finish(g, t);
}

/* The labels of a series, by name; empty ones are left out. */
static int labels_make(struct gatherer *g, const struct metric *m, const struct entity *e,
                       struct str le, struct promql_labels *ret)
{
    const struct family *f = g->family;
    struct promql_label *items = arena_array(g->arena, f->n_labels + 2, sizeof *items);
    size_t n = 0;
    if (!items)
        return error_set(g->detail, ERR_NOMEM, 0, "out of memory");
    items[n++] = (struct promql_label){STR("__name__"), m->name};
    for (size_t i = 0; i <= f->n_labels; i++) {
        struct promql_label l = i < f->n_labels
                                    ? (struct promql_label){str_from(f->labels[i]), e->texts[i]}
                                    : (struct promql_label){STR("le"), le};
        size_t at = n;
        if (!l.value.len)
            continue;
        for (; at > 0 && str_cmp(items[at - 1].name, l.name) > 0; at--)
            items[at] = items[at - 1];
        items[at] = l;
        n++;
    }
    *ret = (struct promql_labels){items, n};
    return 0;
}

static int emit(struct emitter *out, const struct metric *m, const struct entity *e,
                const struct tally *t, const double *values, struct str le)
{
    struct gatherer *g = out->g;
    if (!label_matches(g->select, STR("le"), le))
        return 0;
    if (out->n == out->cap) {
        size_t cap = out->cap ? 2 * out->cap : 256;
        struct promql_series *items = arena_array(g->arena, cap, sizeof *items);
        if (!items || out->n >= PROMQL_SERIES_MAX)
            return error_set(g->detail, items ? ERR_TOO_LARGE : ERR_NOMEM, 0,
                             items ? "more than %d series" : "out of memory", PROMQL_SERIES_MAX);
        if (out->n)
            memcpy(items, out->items, out->n * sizeof *items);
        out->items = items;
        out->cap = cap;
    }
    struct promql_series *s = &out->items[out->n++];
    *s = (struct promql_series){.values = values, .birth_ms = birth_of(t)};
    return labels_make(g, m, e, le, &s->labels);
}

/* The texts of `le`, made once. */
static int bounds_text(struct gatherer *g, struct str texts[BUCKETS_MAX])
{
    for (size_t b = 0; b < g->family->n_bounds; b++) {
        char *text = arena_alloc(g->arena, PROMQL_NUMBER_SIZE);
        if (!text)
            return error_set(g->detail, ERR_NOMEM, 0, "out of memory");
        texts[b] = (struct str){
            text, promql_number_text((double)g->family->bounds_ns[b] / g->family->unit_ns, text)};
    }
    return 0;
}

static int emit_metric(struct emitter *out, const struct metric *m, const struct str *bounds)
{
    struct gatherer *g = out->g;
    int err = 0;
    for (size_t i = 0; !err && i < g->n; i++) {
        const struct entity *e = &g->entities[i];
        const struct tally *t = &e->tallies[m->tally];
        if (!t->count || !entity_matches(g->select, g->family, e))
            continue;
        if (m->measure != MEASURE_BUCKET) {
            err = emit(out, m, e, t, m->measure == MEASURE_SUM && t->sum ? t->sum : t->count,
                       STR(""));
            continue;
        }
        for (size_t b = 0; !err && b < g->family->n_bounds; b++)
            err = emit(out, m, e, t, t->sum ? t->buckets[b] : t->count, bounds[b]);
        if (!err)
            err = emit(out, m, e, t, t->count, STR("+Inf"));
    }
    return err;
}

static int family_select(struct gatherer *g, const bool *wanted, struct emitter *out)
{
    struct str bounds[BUCKETS_MAX];
    int err = g->family->is_graph ? span_graph_gather(g) : spans_gather(g);
    for (size_t i = 0; !err && i < g->n; i++)
        for (size_t k = 0; !err && k < TALLIES; k++)
            err = tally_finish(g, &g->entities[i].tallies[k]);
    if (!err)
        err = bounds_text(g, bounds);
    for (size_t i = 0; !err && i < METRICS; i++)
        if (wanted[i] && &families[metrics[i].family] == g->family)
            err = emit_metric(out, &metrics[i], bounds);
    return err;
}

static int by_labels(const void *a, const void *b)
{
    const struct promql_series *x = a, *y = b;
    return promql_labels_order(&x->labels, &y->labels);
}

static int select_series(void *arg, const struct promql_select *select, struct arena *arena,
                         struct promql_series **ret, size_t *ret_n, struct error_detail *detail)
{
    struct span_series *source = arg;
    struct emitter out = {0};
    bool wanted[METRICS];
    size_t cells_left = PROMQL_SAMPLES_MAX;
    int err = 0;
    for (size_t i = 0; i < METRICS; i++)
        wanted[i] = label_matches(select, STR("__name__"), metrics[i].name);
    /* What starts before the epoch is asked for never. */
    bool any_time = select->n_instants && select->instants[select->n_instants - 1] >= 0;
    for (size_t f = 0; any_time && !err && f < FAMILIES; f++) {
        struct gatherer g = {.source = source,
                             .family = &families[f],
                             .select = select,
                             .arena = arena,
                             .detail = detail,
                             .cells_left = cells_left};
        for (size_t i = 0; i < METRICS; i++) {
            g.with_counts |= wanted[i] && metrics[i].family == f;
            g.with_histograms |= wanted[i] && metrics[i].family == f && metrics[i].is_histogram;
        }
        g.with_histograms &= !source->labels_only;
        if (!g.with_counts || !others_match(select, g.family))
            continue;
        out.g = &g;
        err = family_select(&g, wanted, &out);
        cells_left = g.cells_left;
        free(g.entities);
        free(g.slots);
    }
    if (!err && out.n)
        qsort(out.items, out.n, sizeof *out.items, by_labels);
    if (!err) {
        *ret = out.items;
        *ret_n = out.n;
    }
    return err;
}

struct promql_source span_series_source(struct span_series *s, uint64_t now_ns)
{
    uint64_t now_ms = now_ns / NS_PER_MS;
    return (struct promql_source){
        .interval_ms = SPAN_SERIES_INTERVAL_MS,
        .last_ms = (int64_t)(now_ms - now_ms % SPAN_SERIES_INTERVAL_MS),
        .counters = true,
        .select = select_series,
        .arg = s,
    };
}

/* ---- exemplars ---- */

/* Of one entity: by bucket, then by slot of time, the longest span. */
struct examples {
    struct span_exemplar *of_bucket[BUCKETS_MAX + 1];
};

struct example_pass {
    struct gatherer *g;
    struct span_pass *names;
    struct examples *of; /* by entity */
    size_t cap, left;
    uint64_t start_ns, slot_ns;
};

static int examples_grow(struct example_pass *p)
{
    if (p->g->n <= p->cap)
        return 0;
    struct examples *of = realloc(p->of, p->g->cap * sizeof *of);
    if (!of)
        return error_set(p->g->detail, ERR_NOMEM, 0, "out of memory");
    memset(of + p->cap, 0, (p->g->cap - p->cap) * sizeof *of);
    p->of = of;
    p->cap = p->g->cap;
    return 0;
}

static int take_example(void *arg, struct scan *scan, const struct scan_row *row)
{
    struct example_pass *p = arg;
    const struct family *f = p->g->family;
    struct entity *e;
    size_t b = 0, slot = (size_t)((row->start_ns - p->start_ns) / p->slot_ns);
    int err = gatherer_clock(p->g);
    if (!err)
        err = row_entity(p->names, row, row->status_code, &e);
    if (!err)
        err = examples_grow(p);
    if (err)
        return err;
    while (b < f->n_bounds && row->duration_ns > f->bounds_ns[b])
        b++;
    struct span_exemplar **at = &p->of[e - p->g->entities].of_bucket[b];
    if (!*at && p->left >= SPAN_EXEMPLARS_EACH_MAX) {
        p->left -= SPAN_EXEMPLARS_EACH_MAX;
        *at = arena_zalloc(p->g->arena, SPAN_EXEMPLARS_EACH_MAX * sizeof **at);
        if (!*at)
            return error_set(p->g->detail, ERR_NOMEM, 0, "out of memory");
    }
    double value = (double)row->duration_ns / f->unit_ns;
    if (*at && (!(*at)[slot].time_ns || value > (*at)[slot].value))
        (*at)[slot] = (struct span_exemplar){.trace_id = row->trace_id,
                                             .span_id = row->span_id,
                                             .value = value,
                                             .time_ns = row->start_ns};
    return 0;
}

static int examples_emit(const struct example_pass *p, const struct metric *m,
                         struct span_exemplar *out, size_t *n)
{
    struct gatherer *g = p->g;
    struct str bounds[BUCKETS_MAX];
    int err = bounds_text(g, bounds);
    for (size_t i = 0; !err && i < g->n && i < p->cap; i++) {
        if (!entity_matches(g->select, g->family, &g->entities[i]))
            continue;
        for (size_t b = 0; !err && b <= g->family->n_bounds; b++) {
            const struct span_exemplar *from = p->of[i].of_bucket[b];
            struct str le = b < g->family->n_bounds ? bounds[b] : STR("+Inf");
            struct promql_labels labels;
            if (!from || !label_matches(g->select, STR("le"), le))
                continue;
            err = labels_make(g, m, &g->entities[i], le, &labels);
            for (size_t k = 0; !err && k < SPAN_EXEMPLARS_EACH_MAX && *n < SPAN_EXEMPLARS_MAX; k++)
                if (from[k].time_ns) {
                    out[*n] = from[k];
                    out[(*n)++].labels = labels;
                }
        }
    }
    return err;
}

static int examples_of(struct gatherer *g, const struct metric *m, uint64_t start_ns,
                       uint64_t end_ns, struct span_exemplar *out, size_t *n)
{
    static const bool all[STATUSES] = {true, true, true};
    struct conditions c;
    struct example_pass p = {
        .g = g,
        .names = arena_zalloc(g->arena, sizeof *p.names),
        .left = 16 * SPAN_EXEMPLARS_MAX,
        .start_ns = start_ns,
        .slot_ns = (end_ns - start_ns) / SPAN_EXEMPLARS_EACH_MAX + 1,
    };
    int err = p.names ? conditions_of(g, all, &c) : ERR_NOMEM;
    if (err)
        return error_set(g->detail, err, 0, "out of memory");
    struct scan scan = {.where = &c.all, .start_min_ns = start_ns, .start_max_ns = end_ns};
    p.names->g = g;
    g->detail->code = 0;
    err = store_scan(g->source->view, &scan, take_example, &p, NULL);
    if (err && g->detail->code != err)
        error_set(g->detail, err, 0, "the query failed: %s", err_text(err));
    if (!err)
        err = examples_emit(&p, m, out, n);
    free(p.of);
    return err;
}

static int exemplar_order(const void *a, const void *b)
{
    const struct span_exemplar *x = a, *y = b;
    int order = promql_labels_order(&x->labels, &y->labels);
    return order ? order : (x->time_ns > y->time_ns) - (x->time_ns < y->time_ns);
}

int span_series_exemplars(struct span_series *s, const struct promql_matcher *matchers,
                          size_t n_matchers, uint64_t start_ns, uint64_t end_ns,
                          struct arena *arena, struct span_exemplar **ret, size_t *ret_n,
                          struct error_detail *detail)
{
    const struct promql_select select = {.matchers = matchers, .n_matchers = n_matchers};
    struct span_exemplar *out = arena_array(arena, SPAN_EXEMPLARS_MAX, sizeof *out);
    uint64_t now_ns = clock_realtime_ns();
    size_t n = 0;
    int err = 0;
    if (!out)
        return error_set(detail, ERR_NOMEM, 0, "out of memory");
    if (end_ns > now_ns)
        end_ns = now_ns;
    for (size_t i = 0; !err && end_ns >= start_ns && i < METRICS; i++) {
        struct gatherer g = {.source = s,
                             .family = &families[metrics[i].family],
                             .select = &select,
                             .arena = arena,
                             .detail = detail};
        if (metrics[i].measure != MEASURE_BUCKET || g.family->is_graph ||
            !label_matches(&select, STR("__name__"), metrics[i].name) ||
            !others_match(&select, g.family))
            continue;
        err = examples_of(&g, &metrics[i], start_ns, end_ns, out, &n);
        free(g.entities);
        free(g.slots);
    }
    if (!err && n)
        qsort(out, n, sizeof *out, exemplar_order);
    if (!err) {
        *ret = out;
        *ret_n = n;
    }
    return err;
}
