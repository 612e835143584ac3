/* GET /api/pugmark/metrics: series of a TraceQL metrics query. */
#include "web/web_internal.h"

#include "base/clock.h"
#include "query/metrics.h"
#include "wire/otlp_json.h"

#include <math.h>

enum { STEPS_DEFAULT = 60 };

/* A round step, so that a time is cut into at most STEPS_DEFAULT or so. */
static uint64_t step_default(uint64_t time_ns)
{
    static const uint64_t round_s[] = {1,   2,    5,    10,   15,    30,    60,    120,   300,
                                       600, 1800, 3600, 7200, 21600, 43200, 86400, 604800};
    for (size_t i = 0; i < sizeof round_s / sizeof *round_s; i++)
        if (time_ns / STEPS_DEFAULT <= round_s[i] * NS_PER_S)
            return round_s[i] * NS_PER_S;
    return time_ns / STEPS_DEFAULT;
}

static void number_str(struct json_writer *w, const char *key, uint64_t n)
{
    json_key(w, str_from(key));
    json_u64_str(w, n);
}

static void exemplar_json(struct json_writer *w, const struct metrics_exemplar *x)
{
    json_open(w, '{');
    json_key(w, STR("traceId"));
    json_hex(w, x->trace_id.bytes, TRACE_ID_SIZE);
    json_key(w, STR("spanId"));
    json_hex(w, x->span_id.bytes, SPAN_ID_SIZE);
    json_key(w, STR("service"));
    json_str(w, x->service);
    json_key(w, STR("name"));
    json_str(w, x->name);
    number_str(w, "startUnixNano", x->start_ns);
    number_str(w, "durationNano", x->duration_ns);
    json_key(w, STR("value"));
    json_double(w, x->value);
    json_close(w, '}');
}

static void series_json(struct json_writer *w, const struct metrics_series *s, size_t n_steps)
{
    json_open(w, '{');
    json_key(w, STR("labels"));
    json_open(w, '[');
    for (size_t i = 0; i < s->n_labels; i++)
        otlp_json_encode_attr(s->labels[i].name, &s->labels[i].value, w);
    json_close(w, ']');
    json_key(w, STR("samples"));
    json_open(w, '[');
    for (size_t i = 0; i < n_steps; i++) {
        if (isnan(s->samples[i]))
            json_null(w);
        else
            json_double(w, s->samples[i]);
    }
    json_close(w, ']');
    if (s->n_exemplars) {
        json_key(w, STR("exemplars"));
        json_open(w, '[');
        for (size_t i = 0; i < s->n_exemplars; i++)
            exemplar_json(w, &s->exemplars[i]);
        json_close(w, ']');
    }
    json_close(w, '}');
}

static void metrics_answer(struct web_request *q, const struct metrics_result *r)
{
    struct buf out = {.bytes_max = ANSWER_BYTES_MAX};
    struct json_writer w = json_writer(&out);
    json_open(&w, '{');
    json_key(&w, STR("series"));
    json_open(&w, '[');
    for (size_t i = 0; i < r->n; i++)
        series_json(&w, &r->series[i], r->n_steps);
    json_close(&w, ']');
    number_str(&w, "startUnixNano", r->start_ns);
    number_str(&w, "stepNano", r->step_ns);
    json_key(&w, STR("steps"));
    json_u64(&w, r->n_steps);
    api_scanned(&w, r->start_ns, r->start_ns + r->n_steps * r->step_ns - 1, &r->cost,
                r->traces_read, r->elapsed_ns);
    json_close(&w, '}');
    web_reply_json(q, 200, &out);
}

void api_metrics(struct web_request *q)
{
    uint64_t now_ns = clock_realtime_ns();
    uint64_t hour_ago_ns = now_ns > 3600 * NS_PER_S ? now_ns - 3600 * NS_PER_S : 0;
    struct metrics metrics = {.timeout_ns = q->web->query_timeout_ns};
    struct error_detail detail = {0};
    struct metrics_result result;
    struct traceql *query = NULL;
    uint64_t exemplars;
    bool given;
    if (!web_param_u64(q, "exemplars", 0, METRICS_EXEMPLARS_MAX, 0, &exemplars) ||
        !web_param_u64(q, "start", 0, UINT64_MAX, hour_ago_ns, &metrics.start_ns) ||
        !web_param_u64(q, "end", 0, UINT64_MAX, now_ns, &metrics.end_ns) ||
        !web_param_duration(q, "step", &metrics.step_ns, &given))
        return;
    if (metrics.end_ns <= metrics.start_ns) {
        web_fail_at(q, 400, "end", 0, "the end lies before the start");
        return;
    }
    if (!given)
        metrics.step_ns = step_default(metrics.end_ns - metrics.start_ns);
    if (!metrics.step_ns) {
        web_fail_at(q, 400, "step", 0, "expected a step above 0");
        return;
    }
    struct str text = web_param(q, "q");
    if (!text.ptr) {
        web_fail_at(q, 400, "q", 0, "expected a metrics query, such as { } | rate()");
        return;
    }
    if (traceql_parse(text, &query, &detail)) {
        web_fail_at(q, 400, "q", detail.position, detail.message);
        return;
    }
    if (!query->metric) {
        traceql_free(query);
        web_fail_at(q, 400, "q", text.len, "expected a metric at the end, such as | rate()");
        return;
    }
    metrics.query = query;
    metrics.exemplars = metrics_exemplars_asked(query, (size_t)exemplars);
    struct store_view *view = web_view(q);
    int err = view ? metrics_run(view, &metrics, q->arena, &result, &detail)
                   : error_set(&detail, ERR_NOMEM, 0, "out of memory");
    if (err == ERR_TOO_LARGE)
        web_fail(q, 400, "%s", detail.message);
    else if (err)
        web_fail_err(q, err, &detail);
    else
        metrics_answer(q, &result);
    traceql_free(query);
}
