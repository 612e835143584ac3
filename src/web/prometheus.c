/* Prometheus's HTTP API over the series that are counted from spans (query/span_series.h), for Grafana's Prometheus
 * data source and for PromQL by hand. On Tempo's address, so that one URL is both data sources, and on the page's.
 *
 * Parameters come in the query or as a form, times as seconds or RFC 3339, durations as seconds or "5m". A query that
 * cannot be understood is answered with 400 and its place, one that fails with 422, one that takes too long with 503.
 *
 * Source: prometheus, docs/querying/api.md; its web/api/v1 for words and codes, util/jsonutil for numbers. */
#include "web/web_internal.h"

#include "base/clock.h"
#include "query/span_series.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { SELECTORS_MAX = 32, LIST_MAX = 100000 };
#define TIME_MS_MAX (INT64_C(1) << 53)

/* ---- parameters ---- */

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* As in a form; what is no escape stays as it is. ptr NULL: no memory. */
static struct str form_decode(struct arena *arena, struct str s)
{
    char *out = arena_alloc(arena, s.len + 1);
    size_t n = 0;
    for (size_t i = 0; out && i < s.len; i++) {
        char c = s.ptr[i] == '+' ? ' ' : s.ptr[i];
        if (c == '%' && s.len - i > 2 && hex_digit(s.ptr[i + 1]) >= 0 &&
            hex_digit(s.ptr[i + 2]) >= 0) {
            c = (char)(hex_digit(s.ptr[i + 1]) * 16 + hex_digit(s.ptr[i + 2]));
            i += 2;
        }
        out[n++] = c;
    }
    return (struct str){out, out ? n : 0};
}

/* The n-th value of a name: those of the form first, then those of the query. */
static bool param_nth(struct web_request *q, const char *name, unsigned nth, struct str *ret)
{
    unsigned n = 0;
    struct str left = http_body(q->http);
    if (!str_eq(http_content_type(q->http), STR("application/x-www-form-urlencoded")))
        left = STR_NONE;
    while (left.len) {
        struct str value, key = str_split(str_split(left, '&', &left), '=', &value);
        key = form_decode(q->arena, key);
        if (str_eq(key, str_from(name)) && n++ == nth) {
            *ret = form_decode(q->arena, value);
            return true;
        }
    }
    return http_query_nth(q->http, name, nth - n, ret);
}

static struct str param(struct web_request *q, const char *name)
{
    struct str value;
    return param_nth(q, name, 0, &value) && value.len ? value : STR_NONE;
}

static bool fail_param(struct web_request *q, const char *name, const char *message)
{
    web_fail(q, 400, "invalid parameter \"%s\": %s", name, message);
    return false;
}

/* False: answered with an error. */
static bool param_time(struct web_request *q, const char *name, int64_t fallback_ms, bool required,
                       int64_t *ret_ms)
{
    struct str text = param(q, name);
    double seconds;
    uint64_t ns;
    char message[128];
    if (!text.ptr && !required) {
        *ret_ms = fallback_ms;
        return true;
    }
    if (text.ptr && str_to_double(text, &seconds) && fabs(seconds * 1000) < (double)TIME_MS_MAX) {
        *ret_ms = (int64_t)floor(seconds * 1000 + 0.5);
        return true;
    }
    if (text.ptr && clock_parse_rfc3339(text, &ns)) {
        *ret_ms = (int64_t)(ns / NS_PER_MS);
        return true;
    }
    snprintf(message, sizeof message, "cannot parse \"%.*s\" to a valid timestamp",
             (int)(text.len > 60 ? 60 : text.len), text.ptr ? text.ptr : "");
    return fail_param(q, name, message);
}

static bool param_duration(struct web_request *q, const char *name, bool required, int64_t *ret_ms)
{
    struct str text = param(q, name);
    double seconds;
    char message[128];
    if (!text.ptr && !required)
        return true;
    if (text.ptr && str_to_double(text, &seconds) && fabs(seconds * 1000) < (double)TIME_MS_MAX) {
        *ret_ms = (int64_t)(seconds * 1000);
        return true;
    }
    if (text.ptr && promql_duration_ms(text, ret_ms))
        return true;
    snprintf(message, sizeof message, "cannot parse \"%.*s\" to a valid duration",
             (int)(text.len > 60 ? 60 : text.len), text.ptr ? text.ptr : "");
    return fail_param(q, name, message);
}

static bool param_limit(struct web_request *q, uint64_t *ret)
{
    struct str text = param(q, "limit");
    *ret = LIST_MAX;
    if (text.ptr && !str_to_u64(text, ret))
        return fail_param(q, "limit", "expected a whole number");
    if (!*ret || *ret > LIST_MAX)
        *ret = LIST_MAX;
    return true;
}

/* The place of an error as line and column. */
static bool fail_query(struct web_request *q, const char *name, struct str text,
                       const struct error_detail *detail)
{
    char message[320];
    size_t line = 1, column = 1;
    for (size_t i = 0; i < text.len && i < detail->position; i++) {
        column = text.ptr[i] == '\n' ? 1 : column + 1;
        line += text.ptr[i] == '\n';
    }
    snprintf(message, sizeof message, "%zu:%zu: parse error: %s", line, column, detail->message);
    return fail_param(q, name, message);
}

static bool param_expr(struct web_request *q, struct promql **ret)
{
    struct error_detail detail = {0};
    struct str text = param(q, "query");
    int err = promql_parse(text.ptr ? text : STR(""), ret, &detail);
    if (err == ERR_NOMEM)
        web_fail_err(q, err, &detail);
    else if (err)
        fail_query(q, "query", text, &detail);
    return !err;
}

/* ---- asking ---- */

/* What one request asks with. */
struct asking {
    struct span_series series;
    struct promql_source source;
    int64_t now_ms;
};

static bool asking_init(struct web_request *q, struct asking *a)
{
    uint64_t now_ns = clock_realtime_ns(), timeout_ns = q->web->query_timeout_ns;
    int64_t timeout_ms = 0;
    *a = (struct asking){.now_ms = (int64_t)(now_ns / NS_PER_MS)};
    if (!param_duration(q, "timeout", false, &timeout_ms))
        return false;
    if (timeout_ms > 0 && (uint64_t)timeout_ms < timeout_ns / NS_PER_MS)
        timeout_ns = (uint64_t)timeout_ms * NS_PER_MS;
    a->series.deadline_ns = clock_monotonic_ns() + timeout_ns;
    a->series.view = web_view(q);
    if (!a->series.view) {
        web_fail_err(q, ERR_NOMEM, NULL);
        return false;
    }
    a->source = span_series_source(&a->series, now_ns);
    return true;
}

static void fail_run(struct web_request *q, int err, const struct error_detail *detail)
{
    if (err == ERR_INVALID || err == ERR_TOO_LARGE || err == ERR_UNSUPPORTED)
        web_fail(q, 422, "%s", detail->message);
    else if (err == ERR_TIMEOUT)
        web_fail(q, 503, "%s", detail->message);
    else
        web_fail_err(q, err, detail);
}

/* ---- answers ---- */

static void key_str(struct json_writer *w, const char *key, struct str value)
{
    json_key(w, str_from(key));
    json_str(w, value);
}

static struct json_writer envelope_open(struct buf *out)
{
    struct json_writer w = json_writer(out);
    json_open(&w, '{');
    key_str(&w, "status", STR("success"));
    json_key(&w, STR("data"));
    return w;
}

static void envelope_close(struct web_request *q, struct json_writer *w, const char *warning)
{
    if (warning || web_is_partial(q)) {
        json_key(w, STR("warnings"));
        json_open(w, '[');
        if (warning)
            json_str(w, str_from(warning));
        if (web_is_partial(q))
            json_str(w, STR(WEB_PARTIAL_MESSAGE));
        json_close(w, ']');
    }
    json_close(w, '}');
    web_reply_json(q, 200, w->out);
}

static void time_json(struct json_writer *w, int64_t ms)
{
    char text[40];
    long long n = llabs((long long)ms);
    int len = ms % 1000 ? snprintf(text, sizeof text, "%s%lld.%03lld", ms < 0 ? "-" : "", n / 1000,
                                   n % 1000)
                        : snprintf(text, sizeof text, "%s%lld", ms < 0 ? "-" : "", n / 1000);
    json_raw(w, (struct str){text, (size_t)len});
}

static void sample_json(struct json_writer *w, int64_t ms, double v)
{
    char text[PROMQL_NUMBER_SIZE];
    size_t n = promql_number_text(v, text);
    json_open(w, '[');
    time_json(w, ms);
    json_str(w, (struct str){text, n});
    json_close(w, ']');
}

static void labels_json(struct json_writer *w, const struct promql_labels *labels)
{
    json_open(w, '{');
    for (size_t i = 0; i < labels->n; i++) {
        json_key(w, labels->items[i].name);
        json_str(w, labels->items[i].value);
    }
    json_close(w, '}');
}

static void samples_json(struct json_writer *w, const struct promql_answer *a, const double *values)
{
    json_key(w, STR("values"));
    json_open(w, '[');
    for (size_t k = 0; k < a->n_times; k++)
        if (!promql_is_absent(values[k]))
            sample_json(w, a->times[k], values[k]);
    json_close(w, ']');
}

static bool has_samples(const struct promql_answer *a, const double *values)
{
    for (size_t k = 0; k < a->n_times; k++)
        if (!promql_is_absent(values[k]))
            return true;
    return false;
}

static void series_json(struct json_writer *w, const struct promql_answer *a, bool one)
{
    json_open(w, '[');
    for (size_t i = 0; i < a->n; i++) {
        const struct promql_series *s = &a->series[i];
        if (!has_samples(a, s->values))
            continue;
        json_open(w, '{');
        json_key(w, STR("metric"));
        labels_json(w, &s->labels);
        if (one) {
            json_key(w, STR("value"));
            sample_json(w, a->times[0], s->values[0]);
        } else {
            samples_json(w, a, s->values);
        }
        json_close(w, '}');
    }
    json_close(w, ']');
}

static void scalar_json(struct json_writer *w, const struct promql_answer *a, bool one)
{
    if (one) {
        sample_json(w, a->times[0], a->scalar[0]);
        return;
    }
    json_open(w, '[');
    json_open(w, '{');
    json_key(w, STR("metric"));
    json_open(w, '{');
    json_close(w, '}');
    samples_json(w, a, a->scalar);
    json_close(w, '}');
    json_close(w, ']');
}

static void answer_reply(struct web_request *q, const struct promql_answer *a, bool is_instant)
{
    static const char *const types[] = {"", "scalar", "string", "vector", "matrix"};
    struct buf out = web_answer();
    struct json_writer w = envelope_open(&out);
    json_open(&w, '{');
    key_str(&w, "resultType", str_from(is_instant ? types[a->type] : "matrix"));
    json_key(&w, STR("result"));
    if (a->type == PROMQL_STRING) {
        json_open(&w, '[');
        time_json(&w, a->times[0]);
        json_str(&w, a->text);
        json_close(&w, ']');
    } else if (a->type == PROMQL_SCALAR) {
        scalar_json(&w, a, is_instant);
    } else {
        series_json(&w, a, is_instant && a->type == PROMQL_VECTOR);
    }
    json_close(&w, '}');
    envelope_close(q, &w, NULL);
}

/* ---- query, query_range ---- */

static void run(struct web_request *q, struct promql_question *question)
{
    struct asking a;
    struct promql_answer answer;
    struct error_detail detail = {0};
    if (!asking_init(q, &a))
        return;
    question->deadline_ns = a.series.deadline_ns;
    int err = promql_run(question, &a.source, q->arena, &answer, &detail);
    if (err)
        fail_run(q, err, &detail);
    else
        answer_reply(q, &answer, question->is_instant);
}

void prometheus_query(struct web_request *q)
{
    struct promql *expr;
    struct promql_question question = {.step_ms = 1, .is_instant = true};
    if (!param_time(q, "time", (int64_t)(clock_realtime_ns() / NS_PER_MS), false,
                    &question.start_ms) ||
        !param_expr(q, &expr))
        return;
    question.end_ms = question.start_ms;
    question.expr = expr->root;
    run(q, &question);
    promql_free(expr);
}

static bool range_check(struct web_request *q, const struct promql_question *question)
{
    if (question->end_ms < question->start_ms)
        return fail_param(q, "end", "end timestamp must not be before start time");
    if (question->step_ms <= 0)
        return fail_param(q, "step",
                          "zero or negative query resolution step widths are not accepted. Try a "
                          "positive integer");
    if ((question->end_ms - question->start_ms) / question->step_ms > PROMQL_STEPS_MAX) {
        web_fail(q, 400,
                 "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the "
                 "query resolution (?step=XX)");
        return false;
    }
    return true;
}

void prometheus_query_range(struct web_request *q)
{
    struct promql *expr;
    struct promql_question question = {0};
    if (!param_time(q, "start", 0, true, &question.start_ms) ||
        !param_time(q, "end", 0, true, &question.end_ms) ||
        !param_duration(q, "step", true, &question.step_ms) || !range_check(q, &question) ||
        !param_expr(q, &expr))
        return;
    question.expr = expr->root;
    if (expr->root->type == PROMQL_STRING || expr->root->type == PROMQL_MATRIX)
        web_fail(q, 400,
                 "invalid parameter \"query\": invalid expression type \"%s\" for range query, "
                 "must be Scalar or instant Vector",
                 promql_type_name(expr->root->type));
    else
        run(q, &question);
    promql_free(expr);
}

/* ---- which series there are ---- */

struct series_list {
    struct promql_series *items;
    size_t n;
};

static int list_add(struct web_request *q, struct asking *a, const struct promql_expr *selector,
                    int64_t end_ms, struct series_list *list, struct error_detail *detail)
{
    int64_t s = SPAN_SERIES_INTERVAL_MS, now_ms = a->now_ms;
    int64_t instant = (end_ms < now_ms ? end_ms : now_ms) / s * s;
    struct promql_select select = {
        .matchers = selector->matchers,
        .n_matchers = selector->n_matchers,
        .instants = &instant,
        .n_instants = 1,
    };
    struct promql_series *found;
    size_t n;
    int err = a->source.select(a->source.arg, &select, q->arena, &found, &n, detail);
    if (err || !n)
        return err;
    struct promql_series *both = arena_array(q->arena, list->n + n, sizeof *both);
    if (!both)
        return error_set(detail, ERR_NOMEM, 0, "out of memory");
    if (list->n)
        memcpy(both, list->items, list->n * sizeof *both);
    memcpy(both + list->n, found, n * sizeof *both);
    *list = (struct series_list){both, list->n + n};
    return 0;
}

static int by_labels(const void *a, const void *b)
{
    const struct promql_series *x = a, *y = b;
    return promql_labels_order(&x->labels, &y->labels);
}

static void list_unique(struct series_list *list)
{
    size_t n = 0;
    if (list->n)
        qsort(list->items, list->n, sizeof *list->items, by_labels);
    for (size_t i = 0; i < list->n; i++)
        if (!i || promql_labels_order(&list->items[i].labels, &list->items[i - 1].labels))
            list->items[n++] = list->items[i];
    list->n = n;
}

/* Each once, by labels: of all match[], or all there are when there is none. False: answered with an error. */
static bool list_make(struct web_request *q, bool required, struct series_list *list)
{
    struct asking a;
    struct str text;
    struct error_detail detail = {0};
    int64_t start_ms, end_ms;
    unsigned n = 0;
    int err = 0;
    *list = (struct series_list){0};
    if (!param_time(q, "start", 0, false, &start_ms) ||
        !param_time(q, "end", TIME_MS_MAX, false, &end_ms) || !asking_init(q, &a))
        return false;
    if (end_ms < start_ms)
        return fail_param(q, "end", "end timestamp must not be before start time");
    a.series.labels_only = true;
    for (; !err && n < SELECTORS_MAX && param_nth(q, "match[]", n, &text); n++) {
        struct promql *selector = NULL;
        err = promql_parse_selector(text, &selector, &detail);
        if (err && err != ERR_NOMEM)
            return fail_query(q, "match[]", text, &detail);
        if (!err)
            err = list_add(q, &a, selector->root, end_ms, list, &detail);
        promql_free(selector);
    }
    if (!err && n == SELECTORS_MAX && param_nth(q, "match[]", n, &text)) {
        web_fail(q, 400, "more than %d match[] parameters", SELECTORS_MAX);
        return false;
    }
    if (!n && required) {
        web_fail(q, 400, "no match[] parameter provided");
        return false;
    }
    if (!n) {
        static const struct promql_matcher any = {
            .op = PROMQL_MATCH_NE, .name = {"__name__", 8}, .value = {"", 0}};
        struct promql_expr all = {.matchers = (struct promql_matcher *)&any, .n_matchers = 1};
        err = list_add(q, &a, &all, end_ms, list, &detail);
    }
    if (err) {
        fail_run(q, err, &detail);
        return false;
    }
    list_unique(list);
    return true;
}

void prometheus_series(struct web_request *q)
{
    struct series_list list;
    uint64_t limit;
    if (!param_limit(q, &limit) || !list_make(q, true, &list))
        return;
    struct buf out = web_answer();
    struct json_writer w = envelope_open(&out);
    json_open(&w, '[');
    for (size_t i = 0; i < list.n && i < limit; i++)
        labels_json(&w, &list.items[i].labels);
    json_close(&w, ']');
    envelope_close(q, &w, list.n > limit ? "results truncated due to limit" : NULL);
}

static int by_text(const void *a, const void *b)
{
    return str_cmp(*(const struct str *)a, *(const struct str *)b);
}

/* Each text once, in order. */
static void texts_reply(struct web_request *q, struct str *texts, size_t n, uint64_t limit)
{
    struct buf out = web_answer();
    struct json_writer w = envelope_open(&out);
    size_t told = 0;
    bool more = false;
    json_open(&w, '[');
    if (n)
        qsort(texts, n, sizeof *texts, by_text);
    for (size_t i = 0; i < n; i++) {
        if (i && str_eq(texts[i], texts[i - 1]))
            continue;
        more = told == limit;
        if (more)
            break;
        json_str(&w, texts[i]);
        told++;
    }
    json_close(&w, ']');
    envelope_close(q, &w, more ? "results truncated due to limit" : NULL);
}

/* The names of the labels, or (`name` given) the values of that one. */
static void labels_reply(struct web_request *q, struct str name)
{
    struct series_list list;
    uint64_t limit;
    size_t n = 0, most = 0;
    if (!param_limit(q, &limit) || !list_make(q, false, &list))
        return;
    for (size_t i = 0; i < list.n; i++)
        most += name.ptr ? 1 : list.items[i].labels.n;
    struct str *texts = arena_array(q->arena, most + 1, sizeof *texts);
    if (!texts) {
        web_fail_err(q, ERR_NOMEM, NULL);
        return;
    }
    for (size_t i = 0; i < list.n; i++) {
        const struct promql_labels *labels = &list.items[i].labels;
        struct str value = name.ptr ? promql_label_get(labels, name) : STR("");
        if (value.len)
            texts[n++] = value;
        for (size_t k = 0; !name.ptr && k < labels->n; k++)
            texts[n++] = labels->items[k].name;
    }
    texts_reply(q, texts, n, limit);
}

void prometheus_labels(struct web_request *q)
{
    labels_reply(q, STR_NONE);
}

void prometheus_label_values(struct web_request *q)
{
    if (!promql_label_is_valid(q->params[0])) {
        web_fail(q, 400, "invalid label name: \"%.*s\"",
                 (int)(q->params[0].len > 60 ? 60 : q->params[0].len), q->params[0].ptr);
        return;
    }
    labels_reply(q, q->params[0]);
}

void prometheus_metadata(struct web_request *q)
{
    struct str metric = param(q, "metric");
    uint64_t limit, told = 0;
    if (!param_limit(q, &limit))
        return;
    struct buf out = web_answer();
    struct json_writer w = envelope_open(&out);
    json_open(&w, '{');
    for (size_t i = 0; span_series_info(i) && told < limit; i++) {
        const struct span_metric_info *info = span_series_info(i);
        if (metric.len && !str_eq(metric, info->name))
            continue;
        json_key(&w, info->name);
        json_open(&w, '[');
        json_open(&w, '{');
        key_str(&w, "type", info->type);
        key_str(&w, "help", info->help);
        key_str(&w, "unit", STR(""));
        json_close(&w, '}');
        json_close(&w, ']');
        told++;
    }
    json_close(&w, '}');
    envelope_close(q, &w, NULL);
}

/* ---- exemplars ---- */

struct exemplars {
    struct web_request *q;
    struct asking *asking;
    struct error_detail *detail;
    uint64_t start_ns, end_ns;
    struct json_writer *w;
};

static int exemplars_add(void *arg, const struct promql_expr *selector)
{
    struct exemplars *x = arg;
    struct span_exemplar *items;
    size_t n;
    char number[PROMQL_NUMBER_SIZE];
    int err = span_series_exemplars(&x->asking->series, selector->matchers, selector->n_matchers,
                                    x->start_ns, x->end_ns, x->q->arena, &items, &n, x->detail);
    for (size_t i = 0; !err && i < n; i++) {
        if (!i || promql_labels_order(&items[i].labels, &items[i - 1].labels)) {
            json_open(x->w, '{');
            json_key(x->w, STR("seriesLabels"));
            labels_json(x->w, &items[i].labels);
            json_key(x->w, STR("exemplars"));
            json_open(x->w, '[');
        }
        json_open(x->w, '{');
        json_key(x->w, STR("labels"));
        json_open(x->w, '{');
        json_key(x->w, STR("traceID"));
        json_hex(x->w, items[i].trace_id.bytes, TRACE_ID_SIZE);
        json_key(x->w, STR("spanID"));
        json_hex(x->w, items[i].span_id.bytes, SPAN_ID_SIZE);
        json_close(x->w, '}');
        json_key(x->w, STR("value"));
        size_t len = promql_number_text(items[i].value, number);
        json_str(x->w, (struct str){number, len});
        json_key(x->w, STR("timestamp"));
        time_json(x->w, (int64_t)(items[i].time_ns / NS_PER_MS));
        json_close(x->w, '}');
        if (i + 1 == n || promql_labels_order(&items[i].labels, &items[i + 1].labels)) {
            json_close(x->w, ']');
            json_close(x->w, '}');
        }
    }
    return err;
}

void prometheus_exemplars(struct web_request *q)
{
    struct promql *expr;
    struct asking a;
    struct error_detail detail = {0};
    int64_t start_ms, end_ms;
    if (!param_time(q, "start", 0, false, &start_ms) ||
        !param_time(q, "end", TIME_MS_MAX, false, &end_ms))
        return;
    if (end_ms < start_ms) {
        fail_param(q, "end", "end timestamp must not be before start time");
        return;
    }
    if (!param_expr(q, &expr))
        return;
    if (!asking_init(q, &a)) {
        promql_free(expr);
        return;
    }
    struct buf out = web_answer();
    struct json_writer w = envelope_open(&out);
    uint64_t most = UINT64_MAX / NS_PER_MS;
    struct exemplars x = {
        .q = q,
        .asking = &a,
        .detail = &detail,
        .start_ns = start_ms > 0 ? (uint64_t)start_ms * NS_PER_MS : 0,
        .end_ns = end_ms < 0                 ? 0
                  : (uint64_t)end_ms >= most ? UINT64_MAX
                                             : (uint64_t)end_ms * NS_PER_MS + NS_PER_MS - 1,
        .w = &w,
    };
    json_open(&w, '[');
    int err = promql_selectors(expr->root, exemplars_add, &x);
    json_close(&w, ']');
    promql_free(expr);
    if (err) {
        buf_done(&out);
        fail_run(q, err, &detail);
    } else {
        envelope_close(q, &w, NULL);
    }
}

/* ---- whether it is there, and what it is ---- */

void prometheus_buildinfo(struct web_request *q)
{
    static const char *const unknown[] = {"branch", "buildUser", "buildDate", "goVersion"};
    struct buf out = web_answer();
    struct json_writer w = envelope_open(&out);
    json_open(&w, '{');
    /* Whose API this is: clients decide by it what they may ask. */
    key_str(&w, "version", STR("3.0.0"));
    key_str(&w, "revision", STR("pugmark-" PUGMARK_VERSION));
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++)
        key_str(&w, unknown[i], STR(""));
    json_close(&w, '}');
    envelope_close(q, &w, NULL);
}

/* There are none. */
void prometheus_rules(struct web_request *q)
{
    struct buf out = web_answer();
    struct json_writer w = envelope_open(&out);
    json_open(&w, '{');
    json_key(&w, STR("groups"));
    json_open(&w, '[');
    json_close(&w, ']');
    json_close(&w, '}');
    envelope_close(q, &w, NULL);
}
