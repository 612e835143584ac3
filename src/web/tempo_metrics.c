/* Tempo's TraceQL metrics: series over a range, and of a whole range one value each.
 *
 * A sample is stamped with the end of its step, and is of the spans that start after the step's begin, up to and with
 * its end. Steps end at multiples of the step; the first sample stands at the start, so that the step before it is
 * counted too, the last at the end or behind it. An instant query is one step, as long as the range.
 * Source: Tempo's documentation, "TraceQL metrics" and api_docs; its pkg/api and pkg/traceql. */
#include "web/tempo.h"

#include "base/clock.h"
#include "wire/otlp_json.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

enum {
    INTERVALS_MAX = 10000, /* as Tempo */
    RANGE_DEFAULT_S = 3600,
};
static_assert(INTERVALS_MAX + 3 <= METRICS_STEPS_MAX, "with those that are put before and behind");

/* ---- durations, as Go has them ---- */

void tempo_put_duration(struct buf *out, uint64_t ns)
{
    static const struct {
        uint64_t ns;
        const char *unit;
    } small[] = {{NS_PER_MS, "ms"}, {NS_PER_US, "\u00b5s"}, {1, "ns"}};
    if (ns >= NS_PER_S) {
        uint64_t minutes = ns / (60 * NS_PER_S);
        if (minutes >= 60)
            buf_printf(out, "%lluh", (unsigned long long)(minutes / 60));
        if (minutes)
            buf_printf(out, "%llum", (unsigned long long)(minutes % 60));
        buf_printf(out, "%.11gs", (double)(ns % (60 * NS_PER_S)) / 1e9);
        return;
    }
    for (size_t i = 0; i < sizeof small / sizeof *small; i++)
        if (ns >= small[i].ns || small[i].ns == 1) {
            buf_printf(out, "%.10g%s", (double)ns / (double)small[i].ns, ns ? small[i].unit : "s");
            return;
        }
}

/* A round step for about 240 of them. */
static uint64_t step_default(uint64_t range_ns)
{
    static const uint64_t round_s[] = {3600, 300, 60, 15, 5, 1};
    uint64_t step_ns = range_ns / 240, short_ns = 50 * NS_PER_MS;
    if (range_ns < 60 * NS_PER_S)
        return step_ns > short_ns ? step_ns - step_ns % short_ns : short_ns;
    for (size_t i = 0; i < sizeof round_s / sizeof *round_s; i++)
        if (step_ns > round_s[i] * NS_PER_S)
            return step_ns - step_ns % (round_s[i] * NS_PER_S);
    return NS_PER_S;
}

/* ---- asking ---- */

static int check_range(const struct tempo_metrics *m, struct error_detail *ret_detail)
{
    if (m->end_ns <= m->start_ns)
        return error_set(ret_detail, ERR_INVALID, 0, "end must be greater than start");
    if (m->end_ns > INT64_MAX)
        return error_set(ret_detail, ERR_INVALID, 0, "end is too late");
    uint64_t range_ns = m->end_ns - m->start_ns;
    if (m->is_instant || (m->step_ns && range_ns / m->step_ns <= INTERVALS_MAX))
        return 0;
    struct buf step = BUF_INIT, least = BUF_INIT;
    tempo_put_duration(&step, m->step_ns);
    tempo_put_duration(&least, range_ns / INTERVALS_MAX);
    int err = error_set(ret_detail, ERR_INVALID, 0,
                        "step of %.*s is too small, minimum step for given range is %.*s",
                        STR_ARG(buf_as_str(&step)), STR_ARG(buf_as_str(&least)));
    buf_done(&step);
    buf_done(&least);
    return err;
}

/* What is counted: of whole steps, and one before. */
static int metrics_of(const struct tempo_metrics *m, struct metrics *ret,
                      struct error_detail *ret_detail)
{
    uint64_t start_ns = m->start_ns, end_ns = m->end_ns,
             step_ns = m->is_instant ? m->end_ns - m->start_ns : m->step_ns;
    if (!m->is_instant) {
        start_ns -= start_ns % step_ns;
        start_ns -= start_ns > step_ns ? step_ns : 0;
        end_ns += end_ns % step_ns ? step_ns - end_ns % step_ns : 0;
    }
    if (end_ns > INT64_MAX)
        return error_set(ret_detail, ERR_INVALID, 0, "the step is too long");
    ret->start_ns = start_ns + 1;
    ret->end_ns = end_ns + 1;
    ret->step_ns = step_ns;
    ret->from_start = true;
    ret->exemplars = m->is_instant ? 0 : metrics_exemplars_asked(ret->query, m->exemplars);
    return 0;
}

int tempo_metrics_run(struct store_view *view, struct tempo_metrics *m, uint64_t timeout_ns,
                      struct arena *arena, struct tempo_series *ret,
                      struct error_detail *ret_detail)
{
    struct traceql *query = NULL;
    struct metrics metrics = {.timeout_ns = timeout_ns};
    *ret = (struct tempo_series){.is_instant = m->is_instant, .series_max = m->series_max};
    if (!m->is_instant && !m->step_ns && m->end_ns > m->start_ns)
        m->step_ns = step_default(m->end_ns - m->start_ns);
    int err = check_range(m, ret_detail);
    if (!err)
        err = tempo_query_parse(m->query, &query, ret_detail);
    if (!err && !query->metric)
        err = error_set(ret_detail, ERR_INVALID, 0,
                        "invalid TraceQL query: not a metrics query; expected a metric at its end, "
                        "such as | rate()");
    metrics.query = query;
    if (!err)
        err = metrics_of(m, &metrics, ret_detail);
    if (!err)
        err = metrics_run(view, &metrics, arena, &ret->result, ret_detail);
    traceql_free(query);
    /* Too much was asked for, which is the client's to change. */
    return err == ERR_TOO_LARGE ? ERR_INVALID : err;
}

/* ---- what is answered ---- */

struct str tempo_series_message(const struct tempo_series *s, struct arena *arena)
{
    if (!tempo_series_is_cut(s))
        return STR_NONE;
    return str_from(
        arena_printf(arena,
                     "the answer has more than %zu series: the others are left out, in the "
                     "order of their labels",
                     s->series_max));
}

bool tempo_series_is_cut(const struct tempo_series *s)
{
    return s->series_max && s->result.n > s->series_max;
}

size_t tempo_series_n(const struct tempo_series *s)
{
    return tempo_series_is_cut(s) ? s->series_max : s->result.n;
}

/* A label of nothing is left out where another tells the series; in compare() it says that all values are meant. */
size_t tempo_series_labels(const struct metrics_series *s, struct metrics_label *ret)
{
    size_t n = 0;
    bool all = s->n_labels && str_eq(s->labels[0].name, STR("__meta_type"));
    for (size_t i = 0; i < s->n_labels; i++) {
        struct metrics_label l = s->labels[i];
        bool last_chance = !n && i + 1 == s->n_labels;
        if (l.value.type == VALUE_NONE && !all && !last_chance)
            continue;
        if (last_chance && l.value.type == VALUE_NONE)
            l.name = s->labels[0].name;
        if (l.value.type == VALUE_NONE)
            l.value = (struct value){.type = VALUE_STRING, .string = STR("nil")};
        ret[n++] = l;
    }
    return n;
}

uint64_t tempo_stamp_ms(const struct metrics_result *r, size_t step)
{
    return (r->start_ns - 1 + (step + 1) * r->step_ns) / NS_PER_MS;
}

/* ---- as JSON ---- */

static int by_name(const void *a, const void *b)
{
    const struct metrics_label *x = a, *y = b;
    return str_cmp(x->name, y->name);
}

/* The labels as Prometheus prints them, for Grafana up to version 11. Changes the order of `labels`. */
static void prom_labels_json(struct json_writer *w, struct metrics_label *labels, size_t n)
{
    struct buf text = BUF_INIT, value = BUF_INIT;
    qsort(labels, n, sizeof *labels, by_name);
    buf_byte(&text, '{');
    for (size_t i = 0; i < n; i++) {
        const struct value *v = &labels[i].value;
        struct json_writer number = json_writer(&value);
        buf_clear(&value);
        if (v->type == VALUE_INT)
            buf_printf(&value, "int(%lld)", (long long)v->integer);
        else if (v->type == VALUE_DOUBLE)
            json_double(&number, v->real);
        else if (v->type == VALUE_BOOL)
            buf_cstr(&value, v->boolean ? "true" : "false");
        else if (str_eq(v->string, STR("nil")))
            buf_cstr(&value, "<nil>");
        else
            buf_str(&value, v->string.len ? v->string : STR("<empty>"));
        buf_printf(&text, "%s%.*s=", i ? ", " : "", STR_ARG(labels[i].name));
        web_put_quoted(&text, buf_as_str(&value));
    }
    buf_byte(&text, '}');
    json_str(w, buf_as_str(&text));
    buf_done(&text);
    buf_done(&value);
}

static void exemplar_json(struct json_writer *w, const struct metrics_exemplar *x)
{
    struct tempo_exemplar_labels labels;
    size_t n = tempo_exemplar_labels(x, &labels);
    json_open(w, '{');
    json_key(w, STR("labels"));
    json_open(w, '[');
    for (size_t i = 0; i < n; i++)
        otlp_json_encode_attr(labels.items[i].name, &labels.items[i].value, w);
    json_close(w, ']');
    json_key(w, STR("value"));
    json_double(w, x->value);
    json_key(w, STR("timestampMs"));
    json_u64_str(w, x->start_ns / NS_PER_MS);
    json_close(w, '}');
}

size_t tempo_exemplar_labels(const struct metrics_exemplar *x, struct tempo_exemplar_labels *ret)
{
    hex_put(ret->trace_id, x->trace_id.bytes, TRACE_ID_SIZE);
    hex_put(ret->span_id, x->span_id.bytes, SPAN_ID_SIZE);
    const struct metrics_label all[] = {
        {STR("trace:id"), {.type = VALUE_STRING, .string = {ret->trace_id, sizeof ret->trace_id}}},
        {STR("span:id"), {.type = VALUE_STRING, .string = {ret->span_id, sizeof ret->span_id}}},
        {STR("name"), {.type = VALUE_STRING, .string = x->name}},
        {STR("resource.service.name"), {.type = VALUE_STRING, .string = x->service}},
    };
    static_assert(sizeof all == sizeof ret->items, "all of them");
    memcpy(ret->items, all, sizeof all);
    return sizeof all / sizeof *all;
}

static void samples_json(struct json_writer *w, const struct metrics_result *r,
                         const struct metrics_series *s)
{
    json_key(w, STR("samples"));
    json_open(w, '[');
    for (size_t k = 0; k < r->n_steps; k++) {
        if (isnan(s->samples[k]))
            continue;
        json_open(w, '{');
        json_key(w, STR("timestampMs"));
        json_u64_str(w, tempo_stamp_ms(r, k));
        json_key(w, STR("value"));
        json_double(w, s->samples[k]);
        json_close(w, '}');
    }
    json_close(w, ']');
}

static void series_json(struct json_writer *w, const struct tempo_series *all,
                        const struct metrics_series *s)
{
    struct metrics_label labels[TEMPO_LABELS_MAX];
    size_t n = tempo_series_labels(s, labels);
    json_open(w, '{');
    json_key(w, STR("labels"));
    json_open(w, '[');
    for (size_t i = 0; i < n; i++)
        otlp_json_encode_attr(labels[i].name, &labels[i].value, w);
    json_close(w, ']');
    if (all->is_instant) {
        json_key(w, STR("value"));
        json_double(w, s->samples[0]);
    } else {
        samples_json(w, &all->result, s);
        json_key(w, STR("promLabels"));
        prom_labels_json(w, labels, n);
        json_key(w, STR("exemplars"));
        json_open(w, '[');
        for (size_t i = 0; i < s->n_exemplars; i++)
            exemplar_json(w, &s->exemplars[i]);
        json_close(w, ']');
    }
    json_close(w, '}');
}

static void series_reply(struct web_request *q, const struct tempo_series *s)
{
    struct buf out = web_answer();
    struct json_writer w = json_writer(&out);
    json_open(&w, '{');
    json_key(&w, STR("series"));
    json_open(&w, '[');
    for (size_t i = 0, n = tempo_series_n(s); i < n; i++)
        series_json(&w, s, &s->result.series[i]);
    json_close(&w, ']');
    tempo_cost_json(&w, &s->result.cost, s->result.traces_read);
    struct str message = web_is_partial(q) ? STR(WEB_PARTIAL_MESSAGE)
                                           : tempo_series_message(s, q->arena);
    if (message.len) {
        json_key(&w, STR("status"));
        json_str(&w, STR("PARTIAL"));
        json_key(&w, STR("message"));
        json_str(&w, message);
    }
    json_close(&w, '}');
    web_reply_json(q, 200, &out);
}

/* ---- over HTTP ---- */

/* Seconds, also with a fraction, or nanoseconds in more than ten digits, or RFC 3339. */
static bool param_time(struct web_request *q, const char *name, uint64_t fallback_ns,
                       uint64_t *ret_ns)
{
    struct str text = web_param(q, name);
    uint64_t n;
    double seconds;
    *ret_ns = fallback_ns;
    if (!text.ptr)
        return true;
    if (str_to_u64(text, &n) && (text.len > 10 || n <= INT64_MAX / NS_PER_S)) {
        *ret_ns = text.len > 10 ? n : n * NS_PER_S;
        return true;
    }
    if (memchr(text.ptr, '.', text.len) && str_to_double(text, &seconds) && seconds >= 0 &&
        seconds < (double)(INT64_MAX / (int64_t)NS_PER_S)) {
        /* To the millisecond: a double has no more. */
        *ret_ns = (uint64_t)llround(seconds * 1000) * NS_PER_MS;
        return true;
    }
    if (clock_parse_rfc3339(text, ret_ns))
        return true;
    web_fail_at(q, 400, name, 0,
                "expected seconds or nanoseconds since the epoch, or 2026-01-02T03:04:05Z");
    return false;
}

static bool param_step(struct web_request *q, uint64_t *ret_ns)
{
    struct str text = web_param(q, "step");
    double seconds;
    *ret_ns = 0;
    if (!text.ptr)
        return true;
    bool good = str_to_double(text, &seconds);
    if (good)
        *ret_ns = seconds > 0 && seconds < 1e9 ? (uint64_t)llround(seconds * 1e9) : 0;
    else
        good = str_to_duration_ns(text, ret_ns);
    if (good && *ret_ns && *ret_ns <= INT64_MAX)
        return true;
    web_fail_at(q, 400, "step", 0, "expected a duration above 0, such as 15s, or seconds");
    return false;
}

static bool params_read(struct web_request *q, struct tempo_metrics *m)
{
    uint64_t now_ns = clock_realtime_ns(), since_ns = RANGE_DEFAULT_S * NS_PER_S, exemplars;
    struct str since = web_param(q, "since");
    if (since.ptr && (!str_to_age_ns(since, &since_ns) || !since_ns)) {
        web_fail_at(q, 400, "since", 0, "expected a duration above 0, such as 30m, 1h, 7d");
        return false;
    }
    if (!param_time(q, "end", now_ns, &m->end_ns))
        return false;
    uint64_t until_ns = m->end_ns < now_ns ? m->end_ns : now_ns, series;
    if (!param_time(q, "start", until_ns > since_ns ? until_ns - since_ns : 0, &m->start_ns) ||
        !web_param_u64(q, "exemplars", 0, UINT32_MAX, METRICS_EXEMPLARS_MAX, &exemplars) ||
        !web_param_u64(q, "maxSeries", 0, UINT32_MAX, 0, &series) ||
        (!m->is_instant && !param_step(q, &m->step_ns)))
        return false;
    m->exemplars = (size_t)exemplars;
    m->series_max = (size_t)series;
    m->query = web_param(q, "q");
    if (!m->query.ptr)
        m->query = web_param(q, "query"); /* as Prometheus has it */
    if (m->query.ptr)
        return true;
    web_fail_at(q, 400, "q", 0, "expected a metrics query, such as { } | rate()");
    return false;
}

static void metrics_reply(struct web_request *q, bool is_instant)
{
    struct tempo_metrics m = {.is_instant = is_instant};
    struct tempo_series series;
    struct error_detail detail = {0};
    if (!params_read(q, &m))
        return;
    struct store_view *view = web_view(q);
    int err = view ? tempo_metrics_run(view, &m, q->web->query_timeout_ns, q->arena, &series,
                                       &detail)
                   : ERR_NOMEM;
    if (err)
        web_fail_err(q, err, &detail);
    else if (q->rpc)
        tempo_series_stream(q, &series);
    else
        series_reply(q, &series);
}

void tempo_query_range(struct web_request *q)
{
    metrics_reply(q, false);
}

void tempo_query_instant(struct web_request *q)
{
    metrics_reply(q, true);
}
