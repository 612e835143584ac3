/* Jaeger's HTTP API, version 3: OTLP's own JSON in an envelope, and summaries.
 * Source: jaeger, cmd/jaeger/internal/extension/jaegerquery (apiv3 http_gateway.go), and what the
 * Jaeger UI reads of it. */
#include "web/web_internal.h"

#include "base/clock.h"
#include "query/search.h"
#include "wire/otlp_json.h"

#include <ctype.h>
#include <stdio.h>

enum { SEARCH_DEPTH_DEFAULT = 100, SEARCH_DEPTH_MAX = 10000 };

static struct buf answer(void)
{
    return (struct buf){.bytes_max = ANSWER_BYTES_MAX};
}

/* ---- names ---- */

void v3_services(struct web_request *q)
{
    struct store_view *view = web_view(q);
    struct str *names;
    size_t n;
    int err = view ? store_services(view, q->arena, &names, &n) : ERR_NOMEM;
    struct buf out = answer();
    if (!err) {
        struct json_writer w = json_writer(&out);
        json_open(&w, '{');
        json_key(&w, STR("services"));
        json_open(&w, '[');
        for (size_t i = 0; i < n; i++)
            json_str(&w, names[i]);
        json_close(&w, ']');
        json_close(&w, '}');
    }
    if (err)
        web_fail_err(q, err, NULL);
    else
        web_reply_json(q, 200, &out);
}

/* Both spellings of a parameter; '+' stays '+', as Grafana sends times as they are. */
static struct str param(struct web_request *q, const char *camel, bool plus_is_space,
                        const char **ret_name)
{
    struct str value = http_query(q->http, camel, plus_is_space);
    *ret_name = camel;
    if (value.ptr)
        return value;
    char *snake = arena_alloc(q->arena, 2 * strlen(camel) + 1), *to = snake;
    if (!snake)
        return STR_NONE;
    for (const char *from = camel; *from; from++) {
        if (*from >= 'A' && *from <= 'Z')
            *to++ = '_';
        *to++ = (char)tolower((unsigned char)*from);
    }
    *to = '\0';
    value = http_query(q->http, snake, plus_is_space);
    if (value.ptr)
        *ret_name = snake;
    return value;
}

void v3_operations(struct web_request *q)
{
    const char *name;
    struct str service = param(q, "service", true, &name);
    struct str kind_text = param(q, "spanKind", true, &name);
    uint8_t kind = 0;
    if (!service.len) {
        web_fail(q, 400, "malformed parameter service: it is required");
        return;
    }
    if (kind_text.len && !span_kind_parse(kind_text, &kind)) {
        web_fail(q, 400, "malformed parameter %s: expected server, client, internal, ...", name);
        return;
    }
    struct store_view *view = web_view(q);
    struct store_operation *operations;
    size_t n;
    int err = view ? store_operations(view, service, q->arena, &operations, &n) : ERR_NOMEM;
    struct buf out = answer();
    if (!err) {
        struct json_writer w = json_writer(&out);
        json_open(&w, '{');
        json_key(&w, STR("operations"));
        json_open(&w, '[');
        for (size_t i = 0; i < n; i++) {
            if (kind_text.len && operations[i].kind != kind)
                continue;
            json_open(&w, '{');
            json_key(&w, STR("name"));
            json_str(&w, operations[i].name);
            json_key(&w, STR("spanKind"));
            json_str(&w, str_from(span_kind_tag(operations[i].kind)));
            json_close(&w, '}');
        }
        json_close(&w, ']');
        json_close(&w, '}');
    }
    if (err)
        web_fail_err(q, err, NULL);
    else
        web_reply_json(q, 200, &out);
}

/* ---- search ---- */

bool v3_param_time(struct web_request *q, const char *camel, bool required, uint64_t *ret_ns)
{
    const char *name;
    struct str text = param(q, camel, false, &name);
    if (!text.len && !required)
        return true;
    if (clock_parse_rfc3339(text, ret_ns))
        return true;
    web_fail(q, 400, "malformed parameter %s: expected a time such as 2026-01-02T03:04:05Z%s", name,
             text.len ? "" : "; it is required");
    return false;
}

static bool param_duration(struct web_request *q, const char *camel, enum predicate_op op,
                           struct conditions *c)
{
    const char *name;
    struct str text = param(q, camel, true, &name);
    uint64_t ns;
    if (!text.len)
        return true;
    if (!str_to_duration_ns(text, &ns) || ns > INT64_MAX) {
        web_fail(q, 400, "malformed parameter %s: expected a duration such as 1.5s, 200ms", name);
        return false;
    }
    if (ns || op == PREDICATE_GE) /* a longest of 0 means none */
        conditions_integer(c, FIELD_DURATION, op, (int64_t)ns);
    return true;
}

/* A JSON object of strings. */
static bool param_attributes(struct web_request *q, struct conditions *c)
{
    const char *name;
    struct str text = param(q, "query.attributes", true, &name);
    if (!text.len)
        return true;
    struct json_reader r;
    struct error_detail detail = {0};
    json_reader_init(&r, text, q->arena, &detail);
    bool good = json_next(&r) == JSON_OBJECT;
    while (good && json_next(&r) == JSON_KEY) {
        struct str key = r.text;
        good = json_next(&r) == JSON_STRING;
        if (good)
            conditions_tag(c, key, r.text);
    }
    if (good && r.type == JSON_OBJECT_END && json_next(&r) == JSON_END)
        return true;
    web_fail(q, 400, "malformed parameter %s: expected a JSON object of strings%s%s", name,
             detail.message[0] ? ", " : "", detail.message);
    return false;
}

static bool search_params(struct web_request *q, struct search *search, struct conditions *c)
{
    const char *name;
    if (!v3_param_time(q, "query.startTimeMin", true, &search->start_min_ns) ||
        !v3_param_time(q, "query.startTimeMax", true, &search->start_max_ns))
        return false;
    if (search->start_max_ns < search->start_min_ns) {
        web_fail(q, 400, "malformed parameter query.startTimeMax: it lies before the minimum");
        return false;
    }
    struct str text = param(q, "query.serviceName", true, &name);
    if (text.len)
        conditions_string(c, FIELD_SERVICE, text);
    text = param(q, "query.operationName", true, &name);
    if (text.len)
        conditions_string(c, FIELD_NAME, text);
    if (!param_duration(q, "query.durationMin", PREDICATE_GE, c) ||
        !param_duration(q, "query.durationMax", PREDICATE_LE, c) || !param_attributes(q, c))
        return false;
    text = param(q, "query.searchDepth", true, &name);
    if (!text.len)
        text = param(q, "query.numTraces", true, &name);
    uint64_t depth = SEARCH_DEPTH_DEFAULT;
    if (text.len && (!str_to_u64(text, &depth) || depth < 1 || depth > SEARCH_DEPTH_MAX)) {
        web_fail(q, 400, "malformed parameter %s: expected a number from 1 to %d", name,
                 SEARCH_DEPTH_MAX);
        return false;
    }
    if (param(q, "query.filter", true, &name).len) {
        web_fail(q, 400,
                 "malformed parameter %s: filters are not supported yet; "
                 "use query.attributes, or TraceQL at /api/pugmark/search",
                 name);
        return false;
    }
    search->limit = (size_t)depth;
    search->where = conditions_all(c);
    if (c->failed) {
        web_fail_err(q, ERR_NOMEM, NULL);
        return false;
    }
    return true;
}

/* Runs the search of the request; NULL: answered with an error. */
static struct store_view *run_search(struct web_request *q, struct search_result *ret_result)
{
    struct search search = {.timeout_ns = q->web->query_timeout_ns};
    struct conditions conditions = {.arena = q->arena};
    struct error_detail detail;
    if (!search_params(q, &search, &conditions))
        return NULL;
    struct store_view *view = web_view(q);
    int err = view ? search_run(view, &search, q->arena, ret_result, &detail)
                   : error_set(&detail, ERR_NOMEM, 0, "out of memory");
    if (!err)
        return view;
    web_fail_err(q, err, &detail);
    return NULL;
}

static void summary_json(struct json_writer *w, const struct trace_summary *s)
{
    json_open(w, '{');
    json_key(w, STR("traceId"));
    json_hex(w, s->id.bytes, TRACE_ID_SIZE);
    json_key(w, STR("rootServiceName"));
    json_str(w, s->root_service);
    json_key(w, STR("rootOperationName"));
    json_str(w, s->root_name);
    json_key(w, STR("minStartTimeUnixNano"));
    json_u64_str(w, s->start_ns);
    json_key(w, STR("maxEndTimeUnixNano"));
    json_u64_str(w, s->end_ns);
    json_key(w, STR("spanCount"));
    json_u64(w, s->span_count);
    json_key(w, STR("errorSpanCount"));
    json_u64(w, s->error_count);
    json_key(w, STR("orphanSpanCount"));
    json_u64(w, s->orphan_count);
    json_key(w, STR("services"));
    json_open(w, '[');
    for (uint32_t i = 0; i < s->n_services; i++) {
        json_open(w, '{');
        json_key(w, STR("name"));
        json_str(w, s->services[i].name);
        json_key(w, STR("spanCount"));
        json_u64(w, s->services[i].span_count);
        json_key(w, STR("errorSpanCount"));
        json_u64(w, s->services[i].error_count);
        json_close(w, '}');
    }
    json_close(w, ']');
    json_close(w, '}');
}

void v3_summaries(struct web_request *q)
{
    struct search_result result;
    struct store_view *view = run_search(q, &result);
    if (!view)
        return;
    struct buf out = answer();
    struct json_writer w = json_writer(&out);
    json_open(&w, '{');
    json_key(&w, STR("summaries"));
    json_open(&w, '[');
    for (size_t i = 0; i < result.n; i++)
        summary_json(&w, &result.traces[i].summary);
    json_close(&w, ']');
    json_close(&w, '}');
    web_reply_json(q, 200, &out);
}

/* ---- traces ---- */

/* All the spans of some traces as one OTLP document. */
static void traces_reply(struct web_request *q, struct store_view *view, const struct trace_id *ids,
                         size_t n)
{
    struct span_batch all = {0};
    size_t capacity = 0;
    for (size_t i = 0; i < n; i++) {
        struct span_batch batch;
        int err = store_trace(view, &ids[i], q->arena, &batch);
        if (err == ERR_NOT_FOUND)
            continue;
        if (!err && all.n + batch.n > capacity) {
            capacity = 2 * (all.n + batch.n);
            struct span *spans = arena_array(q->arena, capacity, sizeof *spans);
            if (spans && all.n)
                memcpy(spans, all.spans, all.n * sizeof *spans);
            all.spans = spans;
            err = spans ? 0 : ERR_NOMEM;
        }
        if (err) {
            web_fail_err(q, err, NULL);
            return;
        }
        if (batch.n)
            memcpy(all.spans + all.n, batch.spans, batch.n * sizeof *batch.spans);
        all.n += batch.n;
    }
    if (!all.n) {
        web_fail(q, 404, "No traces found");
        return;
    }
    struct buf out = answer();
    struct json_writer w = json_writer(&out);
    json_open(&w, '{');
    json_key(&w, STR("result"));
    otlp_json_encode(&all, &w);
    json_close(&w, '}');
    web_reply_json(q, 200, &out);
}

void v3_traces(struct web_request *q)
{
    struct search_result result;
    struct store_view *view = run_search(q, &result);
    if (!view)
        return;
    struct trace_id *ids = arena_array(q->arena, result.n, sizeof *ids);
    for (size_t i = 0; ids && i < result.n; i++)
        ids[i] = result.traces[i].summary.id;
    if (ids)
        traces_reply(q, view, ids, result.n);
    else
        web_fail_err(q, ERR_NOMEM, NULL);
}

void v3_trace(struct web_request *q)
{
    struct trace_id id;
    /* Hints for stores that need them; wrong ones are an error all the same. */
    uint64_t ns;
    if (!trace_id_parse(q->params[0], &id)) {
        web_fail(q, 400, "malformed parameter trace_id: expected 1 to 32 hexadecimal digits");
        return;
    }
    if (!v3_param_time(q, "startTime", false, &ns) || !v3_param_time(q, "endTime", false, &ns))
        return;
    struct store_view *view = web_view(q);
    if (view)
        traces_reply(q, view, &id, 1);
    else
        web_fail_err(q, ERR_NOMEM, NULL);
}
