/* Jaeger's metrics of services and operations, for the Monitor tab of its UI: latencies, call rates and error rates.
 *
 * Each point looks back over `ratePer`, as Prometheus's rate() does: spans are counted for each step (metrics_run), and
 * the steps of a window summed. Latencies are counted in buckets of powers of two; a quantile is interpolated inside its
 * bucket, evenly on the logarithm.
 *
 * Source: jaeger, cmd/jaeger/internal/extension/jaegerquery (query_parser.go: parameters and defaults),
 * internal/storage/metricstore/prometheus (names, units, what a rate of errors is), model openmetrics.proto. */
#include "web/web_internal.h"

#include "base/clock.h"
#include "query/metrics.h"

#include <math.h>
#include <stdio.h>

enum { SERVICES_MAX = 100, GROUP_LABELS_MAX = 2 };
#define MS_MAX (INT64_MAX / NS_PER_MS)

struct question {
    uint64_t end_ns, lookback_ns, step_ns, window_ns;
    size_t window; /* steps */
    double quantile;
    bool by_operation;
    struct buf filter; /* TraceQL: what of a span is asked, without braces */
};

/* A service, or an operation of one. */
struct group {
    struct str names[GROUP_LABELS_MAX];
    double *points; /* by step; NAN: none */
};

struct groups {
    struct group *items;
    size_t n;
    uint64_t start_ns; /* of step 0 */
    size_t n_steps;
};

/* ---- parameters ---- */

static bool param_ms(struct web_request *q, const char *name, uint64_t fallback_ms,
                     uint64_t *ret_ns)
{
    uint64_t ms;
    if (!web_param_u64(q, name, 1, MS_MAX, fallback_ms, &ms))
        return false;
    *ret_ns = ms * NS_PER_MS;
    return true;
}

static bool param_services(struct web_request *q, struct buf *filter)
{
    struct str text;
    unsigned n = 0;
    buf_cstr(filter, "(");
    for (; http_query_nth(q->http, "service", n, &text); n++) {
        if (n == SERVICES_MAX) {
            web_fail(q, 400, "more than %d services at once", SERVICES_MAX);
            return false;
        }
        buf_cstr(filter, n ? " || resource.service.name = " : "resource.service.name = ");
        web_put_quoted(filter, text);
    }
    buf_cstr(filter, ")");
    if (!n)
        web_fail(q, 400, "parameter 'service' is required");
    return n > 0;
}

static bool param_kinds(struct web_request *q, struct buf *filter)
{
    static const char *const words[] = {"unspecified", "internal", "server",
                                        "client",      "producer", "consumer"};
    struct str text;
    bool any = false;
    buf_cstr(filter, " && (");
    for (unsigned i = 0; http_query_nth(q->http, "spanKind", i, &text); i++) {
        uint8_t kind;
        if (!span_kind_parse(text, &kind) || i >= sizeof words / sizeof *words) {
            web_fail_at(q, 400, "spanKind", 0, "expected server, client, internal, ...");
            return false;
        }
        buf_printf(filter, "%skind = %s", any ? " || " : "", words[kind]);
        any = true;
    }
    buf_cstr(filter, any ? ")" : "kind = server)");
    return true;
}

/* False: answered with an error. */
static bool question_of(struct web_request *q, bool with_quantile, struct question *ret)
{
    struct str text = web_param(q, "groupByOperation");
    ret->by_operation = str_eq(text, STR("true"));
    if (text.len && !ret->by_operation && !str_eq(text, STR("false"))) {
        web_fail_at(q, 400, "groupByOperation", 0, "expected true or false");
        return false;
    }
    if (!param_services(q, &ret->filter) || !param_kinds(q, &ret->filter) ||
        !param_ms(q, "endTs", clock_realtime_ns() / NS_PER_MS, &ret->end_ns) ||
        !param_ms(q, "lookback", UINT64_C(3600) * 1000, &ret->lookback_ns) ||
        !param_ms(q, "step", 5000, &ret->step_ns) ||
        !param_ms(q, "ratePer", 600 * 1000, &ret->window_ns))
        return false;
    text = web_param(q, "quantile");
    if (with_quantile) {
        char copy[32];
        double quantile = -1;
        snprintf(copy, sizeof copy, "%.*s", STR_ARG(text));
        char end;
        if (!text.len || sscanf(copy, "%lf%c", &quantile, &end) != 1 || !(quantile >= 0) ||
            quantile > 1) {
            web_fail_at(q, 400, "quantile", 0, "expected a number from 0 to 1; it is required");
            return false;
        }
        ret->quantile = quantile;
    }
    ret->window = (size_t)((ret->window_ns + ret->step_ns - 1) / ret->step_ns);
    return true;
}

/* ---- counting ---- */

static int count(struct web_request *q, struct store_view *view, const struct question *c,
                 const char *more, const char *function, struct metrics_result *ret,
                 struct error_detail *detail)
{
    struct buf text = BUF_INIT;
    uint64_t back_ns = c->lookback_ns + c->window_ns;
    struct traceql *query = NULL;
    struct metrics metrics = {
        .start_ns = c->end_ns > back_ns ? c->end_ns - back_ns : 0,
        .end_ns = c->end_ns,
        .step_ns = c->step_ns,
        .timeout_ns = q->web->query_timeout_ns,
    };
    buf_printf(&text, "{ %.*s%s } | %s by (resource.service.name%s)",
               STR_ARG(buf_as_str(&c->filter)), more, function, c->by_operation ? ", name" : "");
    int err = buf_ok(&text) && buf_ok(&c->filter)
                  ? traceql_parse(buf_as_str(&text), &query, detail)
                  : error_set(detail, ERR_NOMEM, 0, "out of memory");
    metrics.query = query;
    if (!err)
        err = metrics_run(view, &metrics, q->arena, ret, detail);
    traceql_free(query);
    buf_done(&text);
    return err;
}

static struct str label_text(const struct metrics_series *s, size_t i)
{
    return i < s->n_labels && s->labels[i].value.type == VALUE_STRING ? s->labels[i].value.string
                                                                      : STR_NONE;
}

static bool is_of(const struct group *g, const struct metrics_series *s, size_t n_names)
{
    for (size_t i = 0; i < n_names; i++)
        if (!str_eq(g->names[i], label_text(s, i)))
            return false;
    return true;
}

/* Sums of the last `window` steps at each step, in place. */
static void windows_sum(double *samples, size_t n, size_t window)
{
    double sum = 0;
    /* From the end, so that what is still needed is not overwritten. */
    for (size_t i = n < window ? 0 : n - window; i < n; i++)
        sum += isnan(samples[i]) ? 0 : samples[i];
    for (size_t i = n; i-- > 0;) {
        double last = isnan(samples[i]) ? 0 : samples[i];
        samples[i] = sum;
        sum -= last;
        if (i >= window)
            sum += isnan(samples[i - window]) ? 0 : samples[i - window];
    }
}

static struct group *group_add(struct web_request *q, struct groups *groups,
                               const struct metrics_series *s, size_t n_names)
{
    struct group *g = &groups->items[groups->n];
    for (size_t i = 0; i < n_names; i++)
        g->names[i] = label_text(s, i);
    g->points = arena_array(q->arena, groups->n_steps, sizeof *g->points);
    if (!g->points)
        return NULL;
    groups->n++;
    return g;
}

static int groups_init(struct web_request *q, const struct metrics_result *r, struct groups *ret)
{
    *ret = (struct groups){.start_ns = r->start_ns, .n_steps = r->n_steps};
    ret->items = arena_array(q->arena, r->n, sizeof *ret->items);
    return ret->items ? 0 : ERR_NOMEM;
}

/* Calls per second; or (errors given) which part of them has an error. */
static int rates(struct web_request *q, const struct question *c, const struct metrics_result *r,
                 const struct metrics_result *errors, struct groups *ret)
{
    size_t n_names = c->by_operation ? 2 : 1, k = 0;
    double seconds = (double)c->window * (double)c->step_ns / 1e9;
    int err = groups_init(q, r, ret);
    for (size_t i = 0; !err && i < r->n; i++) {
        double *samples = r->series[i].samples;
        struct group *g = group_add(q, ret, &r->series[i], n_names);
        if (!g)
            return ERR_NOMEM;
        windows_sum(samples, r->n_steps, c->window);
        /* Both are in the order of their labels. */
        while (errors && k < errors->n && !is_of(g, &errors->series[k], n_names))
            k++;
        const double *failed = NULL;
        if (errors && k < errors->n) {
            windows_sum(errors->series[k].samples, errors->n_steps, c->window);
            failed = errors->series[k].samples;
        } else {
            k = 0; /* this one has none */
        }
        for (size_t t = 0; t < r->n_steps; t++)
            g->points[t] = !errors      ? samples[t] / seconds
                           : samples[t] ? (failed ? failed[t] / samples[t] : 0)
                                        : NAN;
    }
    return err;
}

struct bucket {
    double up_to; /* seconds */
    const double *counts;
};

static double quantile_at(const struct bucket *buckets, size_t n, size_t t, double quantile)
{
    double all = 0, below = 0;
    for (size_t i = 0; i < n; i++)
        all += buckets[i].counts[t];
    if (!(all > 0))
        return NAN;
    double wanted = quantile * all;
    for (size_t i = 0; i < n; i++) {
        double here = buckets[i].counts[t];
        if (here > 0 && below + here >= wanted)
            return buckets[i].up_to > 0
                       ? buckets[i].up_to * exp2((wanted - below) / here - 1) * 1000
                       : 0;
        below += here;
    }
    return NAN;
}

/* Milliseconds. Series of one group follow each other, by their buckets. */
static int latencies(struct web_request *q, const struct question *c,
                     const struct metrics_result *r, struct groups *ret)
{
    size_t n_names = c->by_operation ? 2 : 1;
    int err = groups_init(q, r, ret);
    struct bucket *buckets = arena_array(q->arena, r->n, sizeof *buckets);
    if (!buckets)
        err = ERR_NOMEM;
    for (size_t i = 0, n; !err && i < r->n; i += n) {
        struct group *g = group_add(q, ret, &r->series[i], n_names);
        if (!g)
            return ERR_NOMEM;
        for (n = 0; i + n < r->n && is_of(g, &r->series[i + n], n_names); n++) {
            const struct metrics_series *s = &r->series[i + n];
            windows_sum(s->samples, r->n_steps, c->window);
            buckets[n] = (struct bucket){s->labels[n_names].value.real, s->samples};
        }
        for (size_t t = 0; t < r->n_steps; t++)
            g->points[t] = quantile_at(buckets, n, t, c->quantile);
    }
    return err;
}

/* ---- the answer ---- */

static void key_str(struct json_writer *w, const char *key, struct str value)
{
    json_key(w, str_from(key));
    json_str(w, value);
}

static void label_json(struct json_writer *w, const char *name, struct str value)
{
    json_open(w, '{');
    key_str(w, "name", str_from(name));
    key_str(w, "value", value);
    json_close(w, '}');
}

static void group_json(struct json_writer *w, const struct question *c, const struct groups *groups,
                       const struct group *g)
{
    json_open(w, '{');
    json_key(w, STR("labels"));
    json_open(w, '[');
    if (c->by_operation)
        label_json(w, "operation", g->names[1]);
    label_json(w, "service_name", g->names[0]);
    json_close(w, ']');
    json_key(w, STR("metricPoints"));
    json_open(w, '[');
    for (size_t t = 0; t < groups->n_steps; t++) {
        char time[CLOCK_RFC3339_SIZE];
        uint64_t at_ns = groups->start_ns + (t + 1) * c->step_ns; /* where the window ends */
        if (isnan(g->points[t]) || at_ns + c->lookback_ns < c->end_ns)
            continue;
        clock_rfc3339(time, at_ns);
        json_open(w, '{');
        json_key(w, STR("gaugeValue"));
        json_open(w, '{');
        json_key(w, STR("doubleValue"));
        json_double(w, g->points[t]);
        json_close(w, '}');
        key_str(w, "timestamp", str_from(time));
        json_close(w, '}');
    }
    json_close(w, ']');
    json_close(w, '}');
}

static void family_reply(struct web_request *q, const struct question *c, const char *what,
                         const char *help, const struct groups *groups)
{
    struct buf out = {.bytes_max = ANSWER_BYTES_MAX};
    struct json_writer w = json_writer(&out);
    char name[64], text[128];
    snprintf(name, sizeof name, "service_%s%s", c->by_operation ? "operation_" : "", what);
    snprintf(text, sizeof text, "%s, grouped by service%s", help,
             c->by_operation ? " & operation" : "");
    json_open(&w, '{');
    key_str(&w, "name", str_from(name));
    key_str(&w, "type", STR("GAUGE"));
    key_str(&w, "help", str_from(text));
    json_key(&w, STR("metrics"));
    json_open(&w, '[');
    for (size_t i = 0; i < groups->n; i++)
        group_json(&w, c, groups, &groups->items[i]);
    json_close(&w, ']');
    json_close(&w, '}');
    web_reply_json(q, 200, &out);
}

enum family { FAMILY_LATENCIES, FAMILY_CALLS, FAMILY_ERRORS };

static void metrics_reply(struct web_request *q, enum family family)
{
    static const char *const names[] = {"latencies", "call_rate", "error_rate"};
    struct question c = {.filter = BUF_INIT};
    struct error_detail detail = {0};
    struct metrics_result result, failed;
    struct groups groups;
    char help[96] = "calls/sec";
    if (!question_of(q, family == FAMILY_LATENCIES, &c)) {
        buf_done(&c.filter);
        return;
    }
    struct store_view *view = web_view(q);
    int err = view ? 0 : error_set(&detail, ERR_NOMEM, 0, "out of memory");
    if (!err)
        err = count(q, view, &c, "",
                    family == FAMILY_LATENCIES ? "histogram_over_time(duration)"
                                               : "count_over_time()",
                    &result, &detail);
    if (!err && family == FAMILY_ERRORS)
        err = count(q, view, &c, " && status = error", "count_over_time()", &failed, &detail);
    if (!err)
        err = family == FAMILY_LATENCIES
                  ? latencies(q, &c, &result, &groups)
                  : rates(q, &c, &result, family == FAMILY_ERRORS ? &failed : NULL, &groups);
    if (family == FAMILY_LATENCIES)
        snprintf(help, sizeof help, "%.2fth quantile latency", c.quantile);
    else if (family == FAMILY_ERRORS)
        snprintf(help, sizeof help,
                 "error rate, computed as a fraction of errors/sec over calls/sec");
    if (err == ERR_TOO_LARGE)
        web_fail(q, 400, "%s", detail.message);
    else if (err)
        web_fail_err(q, err, &detail);
    else
        family_reply(q, &c, names[family], help, &groups);
    buf_done(&c.filter);
}

void legacy_latencies(struct web_request *q)
{
    metrics_reply(q, FAMILY_LATENCIES);
}

void legacy_calls(struct web_request *q)
{
    metrics_reply(q, FAMILY_CALLS);
}

void legacy_errors(struct web_request *q)
{
    metrics_reply(q, FAMILY_ERRORS);
}

/* The least step there may be, in milliseconds. */
void legacy_min_step(struct web_request *q)
{
    struct buf out = BUF_INIT;
    struct json_writer w = legacy_open(&out);
    json_u64(&w, 1);
    legacy_close(q, &w, 0);
    web_reply_json(q, 200, &out);
}
