/* Logs and metrics in our own API, as docs/api.md has it. */
#include "web/web_internal.h"

#include "base/clock.h"
#include "base/hash.h"
#include "store/records.h"
#include "wire/otlp_json.h"
#include "wire/otlp_metrics.h"

#include <stdio.h>

enum {
    LOGS_DEFAULT = 100,
    LOGS_MAX = 1000,
    TRACE_LOGS_DEFAULT = 1000,
    TRACE_LOGS_MAX = RECORDS_LOGS_MAX,
    SERIES_DEFAULT = 1000,
};

static void key_str(struct json_writer *w, const char *key, struct str value)
{
    json_key(w, str_from(key));
    json_str(w, value);
}

static void key_u64_str(struct json_writer *w, const char *key, uint64_t value)
{
    json_key(w, str_from(key));
    json_u64_str(w, value);
}

static void key_attrs(struct json_writer *w, const struct attrs *attrs)
{
    json_key(w, STR("attributes"));
    otlp_json_encode_attrs(attrs, w);
}

static bool has_records(struct web_request *q)
{
    if (!q->web->records)
        web_fail(q, 404, "this server keeps traces alone");
    return q->web->records != NULL;
}

/* `start` and `end` in nanoseconds, or `since` (a duration until now). False: answered. */
static bool range_get(struct web_request *q, uint64_t *ret_min_ns, uint64_t *ret_max_ns)
{
    uint64_t now = clock_realtime_ns(), since = 3600 * NS_PER_S;
    bool given;
    if (!web_param_duration(q, "since", &since, &given) ||
        !web_param_u64(q, "start", 0, UINT64_MAX, now > since ? now - since : 0, ret_min_ns) ||
        !web_param_u64(q, "end", 0, UINT64_MAX, 0, ret_max_ns))
        return false;
    if (*ret_max_ns && *ret_max_ns < *ret_min_ns) {
        web_fail_at(q, 400, "end", 0, "the end lies before the start");
        return false;
    }
    return true;
}

/* ---- logs ---- */

/* Resources and scopes by their order of appearance; records share them by pointer. */
struct numbers {
    const void **pointers; /* an open table */
    uint32_t *numbers;
    const void **items; /* by number */
    size_t n_slots;
    uint32_t n;
};

static bool numbers_init(struct numbers *m, struct arena *arena, size_t most)
{
    *m = (struct numbers){.n_slots = 16};
    while (m->n_slots < 2 * most)
        m->n_slots *= 2;
    m->pointers = arena_zalloc(arena, m->n_slots * sizeof *m->pointers);
    m->numbers = arena_array(arena, m->n_slots, sizeof *m->numbers);
    m->items = arena_array(arena, most + 1, sizeof *m->items);
    return m->pointers && m->numbers && m->items;
}

static uint32_t number_of(struct numbers *m, const void *thing)
{
    size_t at = hash_mix64((uintptr_t)thing) & (m->n_slots - 1);
    for (; m->pointers[at]; at = (at + 1) & (m->n_slots - 1))
        if (m->pointers[at] == thing)
            return m->numbers[at];
    m->pointers[at] = thing;
    m->items[m->n] = thing;
    return m->numbers[at] = m->n++;
}

static void log_json(struct json_writer *w, const struct log_record *r, uint32_t resource,
                     uint32_t scope)
{
    json_open(w, '{');
    key_u64_str(w, "timeUnixNano", log_record_time_ns(r));
    if (r->observed_time_ns)
        key_u64_str(w, "observedTimeUnixNano", r->observed_time_ns);
    json_key(w, STR("traceId"));
    json_hex(w, r->trace_id.bytes, trace_id_is_zero(&r->trace_id) ? 0 : TRACE_ID_SIZE);
    json_key(w, STR("spanId"));
    json_hex(w, r->span_id.bytes, span_id_is_zero(&r->span_id) ? 0 : SPAN_ID_SIZE);
    json_key(w, STR("severity"));
    json_u64(w, r->severity);
    key_str(w, "severityText", r->severity_text);
    if (r->event_name.len)
        key_str(w, "eventName", r->event_name);
    json_key(w, STR("body"));
    otlp_json_encode_value(&r->body, w);
    key_attrs(w, &r->attrs);
    if (r->attrs.dropped) {
        json_key(w, STR("droppedAttributes"));
        json_u64(w, r->attrs.dropped);
    }
    key_str(w, "service", r->resource->service_name);
    json_key(w, STR("resource"));
    json_u64(w, resource);
    json_key(w, STR("scope"));
    json_u64(w, scope);
    json_close(w, '}');
}

static void scope_json(struct json_writer *w, const struct scope *s)
{
    json_open(w, '{');
    key_str(w, "name", s->name);
    key_str(w, "version", s->version);
    if (s->attrs.n)
        key_attrs(w, &s->attrs);
    json_close(w, '}');
}

static void resource_json(struct json_writer *w, const struct resource *r)
{
    json_open(w, '{');
    key_str(w, "service", r->service_name);
    key_attrs(w, &r->attrs);
    json_close(w, '}');
}

static void logs_answer(struct web_request *q, const struct records_log *logs, size_t n, bool more)
{
    struct numbers resources, scopes;
    if (!numbers_init(&resources, q->arena, n) || !numbers_init(&scopes, q->arena, n)) {
        web_fail_err(q, ERR_NOMEM, NULL);
        return;
    }
    struct buf out = {.bytes_max = ANSWER_BYTES_MAX};
    struct json_writer w = json_writer(&out);
    json_open(&w, '{');
    json_key(&w, STR("logs"));
    json_open(&w, '[');
    for (size_t i = 0; i < n; i++)
        log_json(&w, &logs[i].record, number_of(&resources, logs[i].record.resource),
                 number_of(&scopes, logs[i].record.scope));
    json_close(&w, ']');
    json_key(&w, STR("resources"));
    json_open(&w, '[');
    for (uint32_t i = 0; i < resources.n; i++)
        resource_json(&w, resources.items[i]);
    json_close(&w, ']');
    json_key(&w, STR("scopes"));
    json_open(&w, '[');
    for (uint32_t i = 0; i < scopes.n; i++)
        scope_json(&w, scopes.items[i]);
    json_close(&w, ']');
    json_key(&w, STR("more"));
    json_bool(&w, more);
    if (more && n) {
        char cursor[48];
        snprintf(cursor, sizeof cursor, "%llu.%llu",
                 (unsigned long long)log_record_time_ns(&logs[n - 1].record),
                 (unsigned long long)logs[n - 1].ordinal);
        key_str(&w, "cursor", str_from(cursor));
    }
    json_close(&w, '}');
    web_reply_json(q, 200, &out);
}

static bool cursor_get(struct web_request *q, struct records_logs *ret)
{
    struct str ordinal, text = web_param(q, "cursor");
    if (!text.ptr)
        return true;
    struct str time = str_split(text, '.', &ordinal);
    if (ordinal.ptr && str_to_u64(time, &ret->after_time_ns) &&
        str_to_u64(ordinal, &ret->after_ordinal) && ret->after_time_ns)
        return true;
    web_fail_at(q, 400, "cursor", 0, "expected what an answer had as its cursor");
    return false;
}

static void logs_find(struct web_request *q, const struct records_logs *query)
{
    struct records_log *logs;
    size_t n;
    bool more;
    struct records_cost cost;
    int err = records_logs(q->web->records, query, q->arena, &logs, &n, &more, &cost);
    if (err) {
        web_fail_err(q, err, NULL);
        return;
    }
    q->is_partial |= cost.files_damaged != 0;
    logs_answer(q, logs, n, more);
}

void api_trace_logs(struct web_request *q)
{
    struct records_logs query = {.has_trace = true};
    uint64_t limit;
    if (!has_records(q) || !web_param_trace_id(q, q->params[0], NULL, &query.trace_id) ||
        !web_param_u64(q, "limit", 1, TRACE_LOGS_MAX, TRACE_LOGS_DEFAULT, &limit) ||
        !cursor_get(q, &query))
        return;
    query.limit = (size_t)limit;
    logs_find(q, &query);
}

void api_logs(struct web_request *q)
{
    struct records_logs query = {.service = web_param(q, "service")};
    uint64_t limit, severity;
    if (!has_records(q) || !range_get(q, &query.time_min_ns, &query.time_max_ns) ||
        !web_param_u64(q, "limit", 1, LOGS_MAX, LOGS_DEFAULT, &limit) ||
        !web_param_u64(q, "severity", 0, SEVERITY_MAX, 0, &severity) || !cursor_get(q, &query))
        return;
    query.limit = (size_t)limit;
    query.severity_min = (uint8_t)severity;
    logs_find(q, &query);
}

/* ---- metrics ---- */

static const char *type_name(uint8_t type)
{
    static const char *const names[METRIC_TYPES] = {
        [METRIC_GAUGE] = "gauge",
        [METRIC_SUM] = "sum",
        [METRIC_EXP_HISTOGRAM] = "exponential_histogram",
        [METRIC_HISTOGRAM] = "histogram"};
    return names[type];
}

static void metric_json(struct json_writer *w, struct str name, struct str description,
                        struct str unit, uint8_t type, uint8_t temporality, bool monotonic)
{
    key_str(w, "name", name);
    key_str(w, "description", description);
    key_str(w, "unit", unit);
    key_str(w, "type", str_from(type_name(type)));
    if (type != METRIC_GAUGE)
        key_str(w, "temporality",
                temporality == METRIC_DELTA        ? STR("delta")
                : temporality == METRIC_CUMULATIVE ? STR("cumulative")
                                                   : STR("unspecified"));
    if (type == METRIC_SUM) {
        json_key(w, STR("monotonic"));
        json_bool(w, monotonic);
    }
}

void api_metric_names(struct web_request *q)
{
    uint64_t min_ns, max_ns;
    struct records_metric *metrics;
    size_t n;
    if (!has_records(q) || !range_get(q, &min_ns, &max_ns))
        return;
    int err = records_metrics(q->web->records, min_ns, max_ns, q->arena, &metrics, &n,
                              &q->is_partial);
    if (err) {
        web_fail_err(q, err, NULL);
        return;
    }
    struct buf out = {.bytes_max = ANSWER_BYTES_MAX};
    struct json_writer w = json_writer(&out);
    json_open(&w, '{');
    json_key(&w, STR("metrics"));
    json_open(&w, '[');
    for (size_t i = 0; i < n; i++) {
        const struct records_metric *m = &metrics[i];
        json_open(&w, '{');
        metric_json(&w, m->name, m->description, m->unit, m->type, m->temporality, m->monotonic);
        key_u64_str(&w, "series", m->series);
        json_close(&w, '}');
    }
    json_close(&w, ']');
    json_close(&w, '}');
    web_reply_json(q, 200, &out);
}

static void series_json(struct json_writer *w, const struct records_series *s)
{
    const struct metric *m = &s->metric;
    json_open(w, '{');
    metric_json(w, m->name, m->description, m->unit, m->type, m->temporality, m->monotonic);
    key_attrs(w, &s->attrs);
    json_key(w, STR("resource"));
    resource_json(w, s->resource);
    json_key(w, STR("scope"));
    scope_json(w, s->scope);
    json_key(w, STR("points"));
    json_open(w, '[');
    for (size_t i = 0; i < m->n_points; i++)
        otlp_metrics_json_encode_point(&m->points[i], m->type, w);
    json_close(w, ']');
    json_close(w, '}');
}

void api_series(struct web_request *q)
{
    struct records_series_query query = {.name = web_param(q, "name"),
                                         .service = web_param(q, "service")};
    struct records_series *series;
    uint64_t limit;
    size_t n;
    bool more;
    if (!has_records(q) || !range_get(q, &query.time_min_ns, &query.time_max_ns) ||
        !web_param_u64(q, "limit", 1, RECORDS_SERIES_MAX, SERIES_DEFAULT, &limit))
        return;
    if (!query.name.ptr) {
        web_fail_at(q, 400, "name", 0, "expected the name of a metric");
        return;
    }
    query.series_max = (size_t)limit;
    int err = records_series(q->web->records, &query, q->arena, &series, &n, &more, &q->is_partial);
    if (err) {
        web_fail_err(q, err, NULL);
        return;
    }
    struct buf out = {.bytes_max = ANSWER_BYTES_MAX};
    struct json_writer w = json_writer(&out);
    json_open(&w, '{');
    json_key(&w, STR("series"));
    json_open(&w, '[');
    for (size_t i = 0; i < n; i++)
        series_json(&w, &series[i]);
    json_close(&w, ']');
    json_key(&w, STR("more"));
    json_bool(&w, more);
    json_close(&w, '}');
    web_reply_json(q, 200, &out);
}
