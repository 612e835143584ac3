/* Our own API, as docs/api.md has it. */
#include "web/cursor.h"
#include "web/json_keys.h"
#include "web/web_internal.h"

#include "base/clock.h"
#include "base/hash.h"
#include "query/explain.h"
#include "query/search.h"

#include <stdio.h>

enum {
    SEARCH_LIMIT_DEFAULT = 20,
    SEARCH_LIMIT = 1000,
    SEARCH_SPANS_DEFAULT = 20, /* of each set, when a query is about them */
    SEARCH_SPANS_MAX = 1000,
};

/* ---- names ---- */

void api_services(struct web_request *q)
{
    struct store_view *view = web_view(q);
    struct str *names;
    size_t n;
    int err = view ? store_services(view, q->arena, &names, &n) : ERR_NOMEM;
    if (err) {
        web_fail_err(q, err, NULL);
        return;
    }
    struct buf out = web_answer();
    struct json_writer w = json_writer(&out);
    json_open(&w, '{');
    key_open(&w, "services", '[');
    for (size_t i = 0; i < n; i++)
        json_str(&w, names[i]);
    json_close(&w, ']');
    json_close(&w, '}');
    web_reply_json(q, 200, &out);
}

void api_operations(struct web_request *q)
{
    struct store_view *view = web_view(q);
    struct store_operation *operations;
    size_t n;
    int err = view ? store_operations(view, web_param(q, "service"), q->arena, &operations, &n)
                   : ERR_NOMEM;
    if (err) {
        web_fail_err(q, err, NULL);
        return;
    }
    struct buf out = web_answer();
    struct json_writer w = json_writer(&out);
    json_open(&w, '{');
    key_open(&w, "operations", '[');
    for (size_t i = 0; i < n; i++) {
        json_open(&w, '{');
        key_str(&w, "service", operations[i].service);
        key_str(&w, "name", operations[i].name);
        key_str(&w, "kind", str_from(span_kind_name(operations[i].kind)));
        key_u64_str(&w, "spanCount", operations[i].span_count);
        json_close(&w, '}');
    }
    json_close(&w, ']');
    json_close(&w, '}');
    web_reply_json(q, 200, &out);
}

/* ---- search ---- */

/* Without its end: more may follow. */
static void summary_open(struct json_writer *w, const struct search_trace *t)
{
    const struct trace_summary *s = &t->summary;
    json_open(w, '{');
    key_hex(w, "traceId", s->id.bytes, TRACE_ID_SIZE);
    key_str(w, "rootService", s->root_service);
    key_str(w, "rootName", s->root_name);
    json_key(w, STR("hasRoot"));
    json_bool(w, s->has_root);
    key_u64_str(w, "startUnixNano", s->start_ns);
    key_u64_str(w, "durationNano", s->end_ns > s->start_ns ? s->end_ns - s->start_ns : 0);
    key_u64(w, "spanCount", s->span_count);
    key_u64(w, "errorCount", s->error_count);
    key_u64(w, "orphanCount", s->orphan_count);
    key_open(w, "services", '[');
    for (uint32_t i = 0; i < s->n_services; i++) {
        json_open(w, '{');
        key_str(w, "name", s->services[i].name);
        key_u64(w, "spanCount", s->services[i].span_count);
        key_u64(w, "errorCount", s->services[i].error_count);
        json_close(w, '}');
    }
    json_close(w, ']');
    key_u64(w, "matched", t->matched);
}

/* Of all that a search asks besides its time: pages of it have the same. */
static uint64_t question_hash(struct web_request *q)
{
    static const char *const names[] = {"q",           "service",     "operation",
                                        "minDuration", "maxDuration", "tag"};
    uint64_t hash = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct str text;
        for (unsigned nth = 0; http_query_nth(q->http, names[i], nth, &text); nth++)
            hash = hash_bytes_seed(text.ptr, text.len, hash_mix64(hash + i + 1));
    }
    return hash;
}

/* What the handler of a search has besides the search itself. */
struct asked {
    struct cursor cursor;
    bool explain;
    uint64_t spans; /* to show of each set; 0: no sets */
};

bool api_conditions(struct web_request *q, struct conditions *c)
{
    uint64_t ns = 0;
    bool given;
    struct str text = web_param(q, "service");
    if (text.ptr)
        conditions_string(c, FIELD_SERVICE, text);
    text = web_param(q, "operation");
    if (text.ptr)
        conditions_string(c, FIELD_NAME, text);
    if (!web_param_duration(q, "minDuration", &ns, &given))
        return false;
    if (given)
        conditions_integer(c, FIELD_DURATION, PREDICATE_GE, (int64_t)ns);
    if (!web_param_duration(q, "maxDuration", &ns, &given))
        return false;
    if (given)
        conditions_integer(c, FIELD_DURATION, PREDICATE_LE, (int64_t)ns);
    for (unsigned i = 0; http_query_nth(q->http, "tag", i, &text); i++) {
        struct str value, key = str_split(text, '=', &value);
        if (!value.ptr || !key.len) {
            web_fail_at(q, 400, "tag", key.len, "expected key=value");
            return false;
        }
        conditions_tag(c, key, value);
    }
    if (c->failed)
        web_fail_err(q, ERR_NOMEM, NULL);
    return !c->failed;
}

/* Fills `search` but for the query; false: answered with an error. */
static bool search_params(struct web_request *q, struct search *search, struct conditions *c,
                          struct asked *asked)
{
    uint64_t now_ns = clock_realtime_ns(), limit, explain;
    uint64_t spans = search->query && api_asks_for_spans(search->query) ? SEARCH_SPANS_DEFAULT : 0;
    uint64_t hour_ago_ns = now_ns > 3600 * NS_PER_S ? now_ns - 3600 * NS_PER_S : 0;
    if (!web_param_u64(q, "start", 0, UINT64_MAX, hour_ago_ns, &search->start_min_ns) ||
        !web_param_u64(q, "end", 0, UINT64_MAX, 0, &search->start_max_ns) ||
        !web_param_u64(q, "limit", 1, SEARCH_LIMIT, SEARCH_LIMIT_DEFAULT, &limit) ||
        !web_param_u64(q, "spans", 0, SEARCH_SPANS_MAX, spans, &asked->spans) ||
        !web_param_u64(q, "explain", 0, 1, 0, &explain))
        return false;
    search->limit = (size_t)limit;
    asked->explain = explain;
    struct str cursor = web_param(q, "cursor");
    if (cursor.ptr) {
        if (!cursor_get(&asked->cursor, cursor, question_hash(q))) {
            web_fail_at(q, 400, "cursor", 0, "this is no cursor of an answer to this search");
            return false;
        }
        search->after = &asked->cursor.place;
        search->start_min_ns = asked->cursor.start_min_ns;
        search->start_max_ns = asked->cursor.start_max_ns;
    }
    if (search->start_max_ns && search->start_max_ns < search->start_min_ns) {
        web_fail_at(q, 400, "end", 0, "the end lies before the start");
        return false;
    }
    if (!api_conditions(q, c))
        return false;
    search->where = conditions_all(c);
    return true;
}

void api_scanned(struct json_writer *w, uint64_t start_ns, uint64_t end_ns,
                 const struct scan_cost *cost, uint64_t traces_read, uint64_t elapsed_ns)
{
    key_open(w, "scanned", '{');
    key_u64_str(w, "start", start_ns);
    key_u64_str(w, "end", end_ns);
    key_u64(w, "parts", cost->parts);
    key_u64(w, "partsPruned", cost->parts_pruned);
    key_u64(w, "groups", cost->groups);
    key_u64(w, "groupsPruned", cost->groups_pruned);
    key_u64_str(w, "rows", cost->rows_read);
    key_u64_str(w, "rowsMatched", cost->rows_matched);
    key_u64_str(w, "bytes", cost->bytes_read);
    key_u64_str(w, "tracesRead", traces_read);
    key_u64_str(w, "micros", elapsed_ns / NS_PER_US);
    json_close(w, '}');
}

static void plan_json(struct json_writer *w, const struct search *search,
                      const struct search_plan *plan)
{
    static const char *const ways[] = {
        [SEARCH_BY_ID] = "id",
        [SEARCH_BY_SPANS] = "spans",
        [SEARCH_BY_COLUMNS] = "columns",
        [SEARCH_BY_TRACES] = "traces",
    };
    key_open(w, "plan", '{');
    key_str(w, "way", str_from(ways[plan->way]));
    key_open(w, "columns", '[');
    for (size_t i = 0; i < plan->n_columns; i++) {
        struct buf text = BUF_INIT;
        explain_predicate(plan->columns[i], &text);
        json_str(w, buf_as_str(&text));
        buf_done(&text);
    }
    json_close(w, ']');
    key_open(w, "wholeTracesFor", '[');
    unsigned reasons = search->query ? explain_reasons(search->query->stages) : 0;
    for (unsigned i = 0; plan->way == SEARCH_BY_TRACES && i < EXPLAIN_REASONS_MAX; i++)
        if (reasons & 1u << i)
            json_str(w, str_from(explain_reason_text(1u << i)));
    if (plan->way == SEARCH_BY_TRACES && !reasons)
        json_str(w, str_from(explain_reason_text(0)));
    json_close(w, ']');
    key_u64_str(w, "tracesSettled", plan->traces_settled);
    json_close(w, '}');
}

static void cursor_json(struct web_request *q, struct json_writer *w, const struct search *search,
                        const struct search_trace *last)
{
    char text[CURSOR_TEXT_LEN];
    const struct cursor cursor = {
        .start_min_ns = search->start_min_ns,
        .start_max_ns = search->start_max_ns,
        .place = {.start_ns = last->summary.start_ns, .id = last->summary.id},
    };
    cursor_put(text, &cursor, question_hash(q));
    key_str(w, "cursor", (struct str){text, sizeof text});
}

static int traces_json(struct web_request *q, struct json_writer *w, const struct search *search,
                       const struct search_result *result, const struct asked *asked)
{
    struct arena scratch = ARENA_INIT; /* of one trace */
    int err = 0;
    key_open(w, "traces", '[');
    for (size_t i = 0; i < result->n && !err; i++) {
        const struct search_trace *t = &result->traces[i];
        arena_reset(&scratch);
        summary_open(w, t);
        if (asked->spans && clock_monotonic_ns() > q->arrived_ns + q->web->query_timeout_ns)
            err = ERR_TIMEOUT;
        else if (asked->spans)
            err = api_spansets(w, q->view, search, &t->summary, asked->spans, &scratch);
        json_close(w, '}');
    }
    json_close(w, ']');
    arena_done(&scratch);
    return err;
}

static void search_answer(struct web_request *q, const struct search *search,
                          const struct search_result *result, const struct asked *asked)
{
    struct buf out = web_answer();
    struct json_writer w = json_writer(&out);
    json_open(&w, '{');
    int err = traces_json(q, &w, search, result, asked);
    if (err) {
        buf_done(&out);
        web_fail_err(q, err, NULL);
        return;
    }
    key_u64(&w, "limit", search->limit);
    json_key(&w, STR("more"));
    json_bool(&w, result->more);
    if (result->more && result->n)
        cursor_json(q, &w, search, &result->traces[result->n - 1]);
    if (asked->explain)
        plan_json(&w, search, &result->plan);
    api_scanned(&w, search->start_min_ns,
                search->start_max_ns ? search->start_max_ns : clock_realtime_ns(), &result->cost,
                result->traces_read, result->elapsed_ns);
    json_close(&w, '}');
    web_reply_json(q, 200, &out);
}

void api_search(struct web_request *q)
{
    struct search search = {.timeout_ns = q->web->query_timeout_ns};
    struct conditions conditions = {.arena = q->arena};
    struct search_result result;
    struct traceql *query = NULL;
    struct error_detail detail;
    struct asked asked;
    struct str text = web_param(q, "q");
    if (text.ptr && traceql_parse(text, &query, &detail)) {
        web_fail_at(q, 400, "q", detail.position, detail.message);
        return;
    }
    search.query = query;
    if (search_params(q, &search, &conditions, &asked)) {
        struct store_view *view = web_view(q);
        int err = view ? search_run(view, &search, q->arena, &result, &detail)
                       : error_set(&detail, ERR_NOMEM, 0, "out of memory");
        if (err)
            web_fail_err(q, err, &detail);
        else
            search_answer(q, &search, &result, &asked);
    }
    traceql_free(query);
}

/* ---- a query, without asking it ---- */

void api_parse(struct web_request *q)
{
    struct traceql *query = NULL;
    struct error_detail detail;
    struct str text = web_param(q, "q");
    struct buf out = web_answer();
    struct json_writer w = json_writer(&out);
    json_open(&w, '{');
    if (traceql_parse(text.ptr ? text : STR(""), &query, &detail)) {
        /* That was the question: it is no failure of the request. */
        key_str(&w, "wrong", str_from(detail.message));
        key_u64(&w, "position", detail.position);
    } else {
        key_str(&w, "finds", query->metric ? STR("series") : STR("traces"));
        key_bool(&w, "needsTrace", query->needs_trace);
    }
    json_close(&w, '}');
    traceql_free(query);
    web_reply_json(q, 200, &out);
}

/* ---- status ---- */

void api_status(struct web_request *q)
{
    struct web *web = q->web;
    struct store_stats s = {0};
    store_stats(web->store, &s);
    struct web_ingest_stats ingest = {0};
    if (web->ingest_stats)
        web->ingest_stats(web->arg, &ingest);
    struct buf out = web_answer();
    struct json_writer w = json_writer(&out);
    json_open(&w, '{');
    key_str(&w, "version", STR(PUGMARK_VERSION));
    key_u64(&w, "uptimeSeconds", (clock_monotonic_ns() - web->started_ns) / NS_PER_S);
    key_open(&w, "store", '{');
    key_u64_str(&w, "spans", s.spans);
    key_u64(&w, "segments", s.segments);
    key_u64_str(&w, "segmentBytes", s.segment_bytes);
    key_u64_str(&w, "segmentSpans", s.segment_spans);
    key_u64_str(&w, "logBytes", s.log_bytes);
    key_u64_str(&w, "memtableBytes", s.memtable_bytes);
    key_u64_str(&w, "memtableSpans", s.memtable_spans);
    key_u64_str(&w, "startMin", s.start_min_ns);
    key_u64_str(&w, "startMax", s.start_max_ns);
    json_close(&w, '}');
    key_open(&w, "ingest", '{');
    key_u64_str(&w, "requests", ingest.requests);
    key_u64_str(&w, "spansReceived", ingest.spans_received);
    key_u64_str(&w, "spansStored", ingest.spans_stored);
    key_open(&w, "spansRefused", '[');
    for (size_t i = 0; i < ingest.n_refused; i++) {
        json_open(&w, '{');
        key_str(&w, "reason", str_from(ingest.refused[i].reason));
        key_u64_str(&w, "count", ingest.refused[i].count);
        json_close(&w, '}');
    }
    json_close(&w, ']');
    json_close(&w, '}');
    key_open(&w, "endpoints", '{');
    for (size_t i = 0; i < web->n_endpoints; i++)
        key_str(&w, web->endpoints[i].name, str_from(web->endpoints[i].url));
    json_close(&w, '}');
    json_close(&w, '}');
    web_reply_json(q, 200, &out);
}
