/* Our own API, as docs/api.md has it. */
#include "web/web_internal.h"

#include "base/clock.h"
#include "base/hash.h"
#include "query/search.h"
#include "wire/otlp_json.h"

#include <stdio.h>

enum { SEARCH_LIMIT_DEFAULT = 20, SEARCH_LIMIT = 1000 };

static void key_str(struct json_writer *w, const char *key, struct str value)
{
    json_key(w, str_from(key));
    json_str(w, value);
}

static void key_u64(struct json_writer *w, const char *key, uint64_t value)
{
    json_key(w, str_from(key));
    json_u64(w, value);
}

/* What JavaScript could not hold. */
static void key_u64_str(struct json_writer *w, const char *key, uint64_t value)
{
    json_key(w, str_from(key));
    json_u64_str(w, value);
}

static void key_hex(struct json_writer *w, const char *key, const uint8_t *bytes, size_t n)
{
    json_key(w, str_from(key));
    json_hex(w, bytes, n);
}

static void key_open(struct json_writer *w, const char *key, char bracket)
{
    json_key(w, str_from(key));
    json_open(w, bracket);
}

static void key_attrs(struct json_writer *w, const struct attrs *attrs)
{
    json_key(w, STR("attributes"));
    otlp_json_encode_attrs(attrs, w);
}

static struct buf answer(void)
{
    return (struct buf){.bytes_max = ANSWER_BYTES_MAX};
}

/* ---- names ---- */

void api_services(struct web_request *q)
{
    struct store_view *view = store_view_new(q->web->store);
    struct str *names;
    size_t n;
    int err = view ? store_services(view, q->arena, &names, &n) : ERR_NOMEM;
    if (err) {
        store_view_free(view);
        web_fail_err(q, err, NULL);
        return;
    }
    struct buf out = answer();
    struct json_writer w = json_writer(&out);
    json_open(&w, '{');
    key_open(&w, "services", '[');
    for (size_t i = 0; i < n; i++)
        json_str(&w, names[i]);
    json_close(&w, ']');
    json_close(&w, '}');
    store_view_free(view);
    web_reply_json(q, 200, &out);
}

void api_operations(struct web_request *q)
{
    struct store_view *view = store_view_new(q->web->store);
    struct store_operation *operations;
    size_t n;
    int err = view ? store_operations(view, web_param(q, "service"), q->arena, &operations, &n)
                   : ERR_NOMEM;
    if (err) {
        store_view_free(view);
        web_fail_err(q, err, NULL);
        return;
    }
    struct buf out = answer();
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
    store_view_free(view);
    web_reply_json(q, 200, &out);
}

/* ---- search ---- */

static void summary_json(struct json_writer *w, const struct search_trace *t)
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
    json_close(w, '}');
}

/* Fills `search` but for the query; false: answered with an error. */
static bool search_params(struct web_request *q, struct search *search, struct conditions *c)
{
    uint64_t now_ns = clock_realtime_ns(), limit, ns = 0;
    uint64_t hour_ago_ns = now_ns > 3600 * NS_PER_S ? now_ns - 3600 * NS_PER_S : 0;
    bool given;
    if (!web_param_u64(q, "start", 0, UINT64_MAX, hour_ago_ns, &search->start_min_ns) ||
        !web_param_u64(q, "end", 0, UINT64_MAX, 0, &search->start_max_ns) ||
        !web_param_u64(q, "limit", 1, SEARCH_LIMIT, SEARCH_LIMIT_DEFAULT, &limit))
        return false;
    search->limit = (size_t)limit;
    if (search->start_max_ns && search->start_max_ns < search->start_min_ns) {
        web_fail_at(q, 400, "end", 0, "the end lies before the start");
        return false;
    }
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
    search->where = conditions_all(c);
    if (c->failed) {
        web_fail_err(q, ERR_NOMEM, NULL);
        return false;
    }
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

static void search_answer(struct web_request *q, const struct search *search,
                          const struct search_result *result)
{
    struct buf out = answer();
    struct json_writer w = json_writer(&out);
    json_open(&w, '{');
    key_open(&w, "traces", '[');
    for (size_t i = 0; i < result->n; i++)
        summary_json(&w, &result->traces[i]);
    json_close(&w, ']');
    key_u64(&w, "limit", search->limit);
    json_key(&w, STR("more"));
    json_bool(&w, result->more);
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
    if (!search_params(q, &search, &conditions))
        return;
    struct str text = web_param(q, "q");
    if (text.ptr && traceql_parse(text, &query, &detail)) {
        web_fail_at(q, 400, "q", detail.position, detail.message);
        return;
    }
    search.query = query;
    struct store_view *view = store_view_new(q->web->store);
    int err = view ? search_run(view, &search, q->arena, &result, &detail)
                   : error_set(&detail, ERR_NOMEM, 0, "out of memory");
    if (err)
        web_fail_err(q, err, &detail);
    else
        search_answer(q, &search, &result);
    store_view_free(view);
    traceql_free(query);
}

/* ---- one trace ---- */

/* Numbers resources and scopes in the order of their first use. Spans share them by pointer mostly;
 * where a trace came in several requests equal ones are found by what they look like in JSON. */
struct numbering {
    struct arena *arena;
    const void **pointers; /* what was asked for, as an open table */
    uint32_t *numbers;
    size_t n_slots;
    struct str *texts;    /* by number */
    uint32_t *text_slots; /* by hash of the text: number + 1 */
    uint32_t n;
    bool failed;
};

static bool numbering_init(struct numbering *m, struct arena *arena, size_t things_max)
{
    *m = (struct numbering){.arena = arena, .n_slots = 16};
    while (m->n_slots < 2 * things_max)
        m->n_slots *= 2;
    m->pointers = arena_zalloc(arena, m->n_slots * sizeof *m->pointers);
    m->numbers = arena_array(arena, m->n_slots, sizeof *m->numbers);
    m->texts = arena_array(arena, things_max, sizeof *m->texts);
    m->text_slots = arena_zalloc(arena, m->n_slots * sizeof *m->text_slots);
    return m->pointers && m->numbers && m->texts && m->text_slots;
}

typedef void thing_json_fn(struct json_writer *w, const void *thing);

static uint32_t number_of(struct numbering *m, const void *thing, thing_json_fn *json)
{
    size_t i = hash_mix64((uintptr_t)thing) & (m->n_slots - 1);
    for (; m->pointers[i]; i = (i + 1) & (m->n_slots - 1))
        if (m->pointers[i] == thing)
            return m->numbers[i];
    struct buf text = BUF_INIT;
    struct json_writer w = json_writer(&text);
    json(&w, thing);
    size_t t = hash_bytes_seed(text.ptr, text.len, hash_secret()) & (m->n_slots - 1);
    while (m->text_slots[t] && !str_eq(m->texts[m->text_slots[t] - 1], buf_as_str(&text)))
        t = (t + 1) & (m->n_slots - 1);
    if (!m->text_slots[t]) {
        m->texts[m->n] = arena_str(m->arena, buf_as_str(&text));
        m->failed |= !buf_ok(&text) || !m->texts[m->n].ptr;
        m->text_slots[t] = ++m->n;
    }
    buf_done(&text);
    m->pointers[i] = thing;
    m->numbers[i] = m->text_slots[t] - 1;
    return m->numbers[i];
}

static void resource_json(struct json_writer *w, const void *thing)
{
    const struct resource *r = thing;
    json_open(w, '{');
    key_str(w, "service", r->service_name);
    key_attrs(w, &r->attrs);
    if (r->attrs.dropped)
        key_u64(w, "droppedAttributes", r->attrs.dropped);
    if (r->schema_url.len)
        key_str(w, "schemaUrl", r->schema_url);
    json_close(w, '}');
}

static void scope_json(struct json_writer *w, const void *thing)
{
    const struct scope *s = thing;
    json_open(w, '{');
    key_str(w, "name", s->name);
    key_str(w, "version", s->version);
    if (s->attrs.n)
        key_attrs(w, &s->attrs);
    if (s->attrs.dropped)
        key_u64(w, "droppedAttributes", s->attrs.dropped);
    if (s->schema_url.len)
        key_str(w, "schemaUrl", s->schema_url);
    json_close(w, '}');
}

static void event_json(struct json_writer *w, const struct event *e)
{
    json_open(w, '{');
    key_u64_str(w, "timeUnixNano", e->time_ns);
    key_str(w, "name", e->name);
    key_attrs(w, &e->attrs);
    if (e->attrs.dropped)
        key_u64(w, "droppedAttributes", e->attrs.dropped);
    json_close(w, '}');
}

static void link_json(struct json_writer *w, const struct link *l)
{
    json_open(w, '{');
    key_hex(w, "traceId", l->trace_id.bytes, TRACE_ID_SIZE);
    key_hex(w, "spanId", l->span_id.bytes, SPAN_ID_SIZE);
    key_str(w, "traceState", l->trace_state);
    key_u64(w, "flags", l->flags);
    key_attrs(w, &l->attrs);
    if (l->attrs.dropped)
        key_u64(w, "droppedAttributes", l->attrs.dropped);
    json_close(w, '}');
}

static void span_json(struct json_writer *w, const struct span *s, uint32_t resource,
                      uint32_t scope)
{
    static const char *const codes[] = {"UNSET", "OK", "ERROR"};
    json_open(w, '{');
    key_hex(w, "spanId", s->span_id.bytes, SPAN_ID_SIZE);
    key_hex(w, "parentSpanId", s->parent_id.bytes,
            span_id_is_zero(&s->parent_id) ? 0 : SPAN_ID_SIZE);
    key_str(w, "name", s->name);
    key_str(w, "kind", str_from(span_kind_name(s->kind)));
    key_u64_str(w, "startUnixNano", s->start_ns);
    key_u64_str(w, "durationNano", span_duration_ns(s));
    key_open(w, "status", '{');
    key_str(w, "code", str_from(codes[s->status_code > STATUS_ERROR ? 0 : s->status_code]));
    key_str(w, "message", s->status_message);
    json_close(w, '}');
    key_str(w, "traceState", s->trace_state);
    key_u64(w, "flags", s->flags);
    key_u64(w, "resource", resource);
    key_u64(w, "scope", scope);
    key_attrs(w, &s->attrs);
    key_u64(w, "droppedAttributes", s->attrs.dropped);
    key_open(w, "events", '[');
    for (uint32_t i = 0; i < s->n_events; i++)
        event_json(w, &s->events[i]);
    json_close(w, ']');
    key_u64(w, "droppedEvents", s->dropped_events);
    key_open(w, "links", '[');
    for (uint32_t i = 0; i < s->n_links; i++)
        link_json(w, &s->links[i]);
    json_close(w, ']');
    key_u64(w, "droppedLinks", s->dropped_links);
    json_close(w, '}');
}

static void numbered_json(struct json_writer *w, const char *key, const struct numbering *m)
{
    key_open(w, key, '[');
    for (uint32_t i = 0; i < m->n; i++)
        json_raw(w, m->texts[i]);
    json_close(w, ']');
}

static bool trace_json(struct web_request *q, const struct span_batch *batch,
                       const struct trace_summary *summary, struct buf *out)
{
    struct numbering resources, scopes;
    uint32_t *numbers = arena_array(q->arena, 2 * batch->n, sizeof *numbers);
    if (!numbers || !numbering_init(&resources, q->arena, batch->n) ||
        !numbering_init(&scopes, q->arena, batch->n))
        return false;
    for (size_t i = 0; i < batch->n; i++) {
        numbers[2 * i] = number_of(&resources, batch->spans[i].resource, resource_json);
        numbers[2 * i + 1] = number_of(&scopes, batch->spans[i].scope, scope_json);
    }
    struct json_writer w = json_writer(out);
    json_open(&w, '{');
    key_hex(&w, "traceId", summary->id.bytes, TRACE_ID_SIZE);
    key_u64_str(&w, "startUnixNano", summary->start_ns);
    key_u64_str(&w, "durationNano",
                summary->end_ns > summary->start_ns ? summary->end_ns - summary->start_ns : 0);
    key_str(&w, "rootService", summary->root_service);
    key_str(&w, "rootName", summary->root_name);
    key_u64(&w, "spanCount", summary->span_count);
    key_u64(&w, "errorCount", summary->error_count);
    key_u64(&w, "orphanCount", summary->orphan_count);
    numbered_json(&w, "resources", &resources);
    numbered_json(&w, "scopes", &scopes);
    key_open(&w, "spans", '[');
    for (size_t i = 0; i < batch->n && buf_ok(out); i++)
        span_json(&w, &batch->spans[i], numbers[2 * i], numbers[2 * i + 1]);
    json_close(&w, ']');
    json_close(&w, '}');
    return !resources.failed && !scopes.failed;
}

void api_trace(struct web_request *q)
{
    struct trace_id id;
    if (!web_param_trace_id(q, q->params[0], "id", &id))
        return;
    struct span_batch batch;
    struct trace_summary summary;
    struct store_view *view = store_view_new(q->web->store);
    int err = view ? store_trace(view, &id, q->arena, &batch) : ERR_NOMEM;
    if (!err)
        err = store_trace_summary(view, &id, q->arena, &summary);
    struct buf out = answer();
    if (!err && !trace_json(q, &batch, &summary, &out))
        err = ERR_NOMEM;
    if (err == ERR_NOT_FOUND)
        web_fail(q, 404, "there is no trace %.*s", STR_ARG(q->trace_id));
    else if (err)
        web_fail_err(q, err, NULL);
    else
        web_reply_json(q, 200, &out);
    buf_done(&out);
    store_view_free(view);
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
    struct buf out = answer();
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
