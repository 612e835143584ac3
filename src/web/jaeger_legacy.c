/* Jaeger's older JSON: /api/services, /api/traces and so on, which its UI still uses in part and
 * Grafana, Kiali and many scripts use whole. Times are microseconds; nanoseconds are cut, so that
 * spans stay inside their parents.
 * Source: jaeger, internal/uimodel (the shapes), internal/storage/v1 (what becomes a tag). */
#include "web/web_internal.h"

#include "base/clock.h"
#include "base/hash.h"
#include "query/search.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    SEARCH_LIMIT_DEFAULT = 100,
    SEARCH_LIMIT = 1500,
    TRACE_IDS_MAX = 100,
};

static struct buf answer(void)
{
    return (struct buf){.bytes_max = ANSWER_BYTES_MAX};
}

/* ---- the envelope: {"data":...,"total":0,"limit":0,"offset":0,"errors":null} ---- */

struct json_writer legacy_open(struct buf *out)
{
    struct json_writer w = json_writer(out);
    json_open(&w, '{');
    json_key(&w, STR("data"));
    return w;
}

void legacy_close(struct web_request *q, struct json_writer *w, size_t total)
{
    json_key(w, STR("total"));
    json_u64(w, total);
    json_key(w, STR("limit"));
    json_u64(w, 0);
    json_key(w, STR("offset"));
    json_u64(w, 0);
    json_key(w, STR("errors"));
    if (web_is_partial(q)) {
        json_open(w, '[');
        json_open(w, '{');
        json_key(w, STR("code"));
        json_u64(w, 206);
        json_key(w, STR("msg"));
        json_str(w, STR(WEB_PARTIAL_MESSAGE));
        json_close(w, '}');
        json_close(w, ']');
    } else {
        json_null(w);
    }
    json_close(w, '}');
}

/* ---- names ---- */

void legacy_services(struct web_request *q)
{
    struct store_view *view = web_view(q);
    struct str *names;
    size_t n;
    int err = view ? store_services(view, q->arena, &names, &n) : ERR_NOMEM;
    struct buf out = answer();
    if (!err) {
        struct json_writer w = legacy_open(&out);
        json_open(&w, '[');
        for (size_t i = 0; i < n; i++)
            json_str(&w, names[i]);
        json_close(&w, ']');
        legacy_close(q, &w, n);
    }
    if (err)
        web_fail_err(q, err, NULL);
    else
        web_reply_json(q, 200, &out);
}

/* Of one kind, or of all when there is none. With `kinds` objects, else names, each once. */
static void operations_reply(struct web_request *q, struct str service, struct str kind_text,
                             bool kinds)
{
    uint8_t kind = 0;
    if (kind_text.len && !span_kind_parse(kind_text, &kind)) {
        web_fail_at(q, 400, "spanKind", 0, "expected server, client, internal, ...");
        return;
    }
    struct store_view *view = web_view(q);
    struct store_operation *operations;
    size_t n, total = 0;
    int err = view ? store_operations(view, service, q->arena, &operations, &n) : ERR_NOMEM;
    struct buf out = answer();
    if (!err) {
        struct json_writer w = legacy_open(&out);
        json_open(&w, '[');
        for (size_t i = 0; i < n; i++) {
            if (kind_text.len && operations[i].kind != kind)
                continue;
            if (!kinds) {
                if (i && str_eq(operations[i].name, operations[i - 1].name))
                    continue;
                json_str(&w, operations[i].name);
            } else {
                json_open(&w, '{');
                json_key(&w, STR("name"));
                json_str(&w, operations[i].name);
                json_key(&w, STR("spanKind"));
                json_str(&w, str_from(span_kind_tag(operations[i].kind)));
                json_close(&w, '}');
            }
            total++;
        }
        json_close(&w, ']');
        legacy_close(q, &w, total);
    }
    if (err)
        web_fail_err(q, err, NULL);
    else
        web_reply_json(q, 200, &out);
}

void legacy_service_operations(struct web_request *q)
{
    operations_reply(q, q->params[0], STR_NONE, false);
}

void legacy_operations(struct web_request *q)
{
    struct str service = web_param(q, "service");
    if (service.len)
        operations_reply(q, service, web_param(q, "spanKind"), true);
    else
        web_fail(q, 400, "parameter 'service' is required");
}

/* ---- one trace ---- */

static void tag_open(struct json_writer *w, struct str key, const char *type)
{
    json_open(w, '{');
    json_key(w, STR("key"));
    json_str(w, key);
    json_key(w, STR("type"));
    json_str(w, str_from(type));
    json_key(w, STR("value"));
}

static void tag_str(struct json_writer *w, const char *key, struct str value)
{
    tag_open(w, str_from(key), "string");
    json_str(w, value);
    json_close(w, '}');
}

/* A value as JSON has it, without OTLP's types: what stands for arrays and maps in a tag's text. */
static void plain_json(struct json_writer *w, const struct value *v)
{
    switch (v->type) {
    case VALUE_STRING:
        json_str(w, v->string);
        break;
    case VALUE_BOOL:
        json_bool(w, v->boolean);
        break;
    case VALUE_INT:
        json_i64(w, v->integer);
        break;
    case VALUE_DOUBLE:
        json_double(w, v->real);
        break;
    case VALUE_BYTES:
        json_base64(w, (const uint8_t *)v->bytes.ptr, v->bytes.len);
        break;
    case VALUE_ARRAY:
        json_open(w, '[');
        for (size_t i = 0; i < v->array.n; i++)
            plain_json(w, &v->array.items[i]);
        json_close(w, ']');
        break;
    case VALUE_MAP:
        json_open(w, '{');
        for (size_t i = 0; i < v->map.n; i++) {
            json_key(w, v->map.items[i].key);
            plain_json(w, &v->map.items[i].value);
        }
        json_close(w, '}');
        break;
    default:
        json_null(w);
    }
}

static void tag_attr(struct json_writer *w, const struct attr *a)
{
    const struct value *v = &a->value;
    switch (v->type) {
    case VALUE_STRING:
        tag_open(w, a->key, "string");
        json_str(w, v->string);
        break;
    case VALUE_BOOL:
        tag_open(w, a->key, "bool");
        json_bool(w, v->boolean);
        break;
    case VALUE_INT:
        tag_open(w, a->key, "int64");
        json_i64(w, v->integer);
        break;
    case VALUE_DOUBLE:
        /* JSON has no number for these. */
        tag_open(w, a->key, isfinite(v->real) ? "float64" : "string");
        json_double(w, v->real);
        break;
    case VALUE_BYTES:
        tag_open(w, a->key, "binary");
        json_base64(w, (const uint8_t *)v->bytes.ptr, v->bytes.len);
        break;
    case VALUE_ARRAY:
    case VALUE_MAP: {
        struct buf text = BUF_INIT;
        struct json_writer inner = json_writer(&text);
        plain_json(&inner, v);
        tag_open(w, a->key, "string");
        json_str(w, buf_as_str(&text));
        buf_done(&text);
        break;
    }
    default:
        tag_open(w, a->key, "string");
        json_str(w, STR(""));
    }
    json_close(w, '}');
}

static void tags_attrs(struct json_writer *w, const struct attrs *attrs, struct str except)
{
    for (uint32_t i = 0; i < attrs->n; i++)
        if (!except.len || !str_eq(attrs->items[i].key, except))
            tag_attr(w, &attrs->items[i]);
}

static void span_tags(struct json_writer *w, const struct span *s)
{
    json_open(w, '[');
    tags_attrs(w, &s->attrs, STR_NONE);
    if (*span_kind_tag(s->kind))
        tag_str(w, "span.kind", str_from(span_kind_tag(s->kind)));
    if (s->status_code == STATUS_ERROR) {
        tag_str(w, "otel.status_code", STR("ERROR"));
        if (!attrs_find(&s->attrs, STR("error"))) {
            tag_open(w, STR("error"), "bool");
            json_bool(w, true);
            json_close(w, '}');
        }
    } else if (s->status_code == STATUS_OK) {
        tag_str(w, "otel.status_code", STR("OK"));
    }
    if (s->status_message.len)
        tag_str(w, "otel.status_description", s->status_message);
    if (s->scope->name.len)
        tag_str(w, "otel.scope.name", s->scope->name);
    if (s->scope->version.len)
        tag_str(w, "otel.scope.version", s->scope->version);
    if (s->trace_state.len)
        tag_str(w, "w3c.tracestate", s->trace_state);
    json_close(w, ']');
}

static void reference(struct json_writer *w, const char *type, const struct trace_id *trace_id,
                      const struct span_id *span_id)
{
    json_open(w, '{');
    json_key(w, STR("refType"));
    json_str(w, str_from(type));
    json_key(w, STR("traceID"));
    json_hex(w, trace_id->bytes, TRACE_ID_SIZE);
    json_key(w, STR("spanID"));
    json_hex(w, span_id->bytes, SPAN_ID_SIZE);
    json_close(w, '}');
}

static void span_references(struct json_writer *w, const struct span *s)
{
    json_open(w, '[');
    if (!span_id_is_zero(&s->parent_id))
        reference(w, "CHILD_OF", &s->trace_id, &s->parent_id);
    for (uint32_t i = 0; i < s->n_links; i++)
        reference(w, "FOLLOWS_FROM", &s->links[i].trace_id, &s->links[i].span_id);
    json_close(w, ']');
}

static void span_logs(struct json_writer *w, const struct span *s)
{
    json_open(w, '[');
    for (uint32_t i = 0; i < s->n_events; i++) {
        const struct event *e = &s->events[i];
        json_open(w, '{');
        json_key(w, STR("timestamp"));
        json_u64(w, e->time_ns / NS_PER_US);
        json_key(w, STR("fields"));
        json_open(w, '[');
        if (e->name.len)
            tag_str(w, "event", e->name);
        tags_attrs(w, &e->attrs, STR_NONE);
        json_close(w, ']');
        json_close(w, '}');
    }
    json_close(w, ']');
}

static void span_json(struct json_writer *w, const struct span *s, uint32_t process)
{
    char process_id[16];
    snprintf(process_id, sizeof process_id, "p%u", process + 1);
    json_open(w, '{');
    json_key(w, STR("traceID"));
    json_hex(w, s->trace_id.bytes, TRACE_ID_SIZE);
    json_key(w, STR("spanID"));
    json_hex(w, s->span_id.bytes, SPAN_ID_SIZE);
    if (!span_id_is_zero(&s->parent_id)) {
        json_key(w, STR("parentSpanID"));
        json_hex(w, s->parent_id.bytes, SPAN_ID_SIZE);
    }
    json_key(w, STR("flags"));
    json_u64(w, s->flags & 0xff);
    json_key(w, STR("operationName"));
    json_str(w, s->name);
    json_key(w, STR("references"));
    span_references(w, s);
    json_key(w, STR("startTime"));
    json_u64(w, s->start_ns / NS_PER_US);
    json_key(w, STR("duration"));
    json_u64(w, span_duration_ns(s) / NS_PER_US);
    json_key(w, STR("tags"));
    span_tags(w, s);
    json_key(w, STR("logs"));
    span_logs(w, s);
    json_key(w, STR("processID"));
    json_str(w, str_from(process_id));
    json_key(w, STR("warnings"));
    if (s->end_ns < s->start_ns) {
        json_open(w, '[');
        json_str(w, STR("the span ends before it starts; its duration is shown as 0"));
        json_close(w, ']');
    } else {
        json_null(w);
    }
    json_close(w, '}');
}

/* A process is a resource; equal ones are one. */
struct processes {
    const struct resource **items;
    uint32_t *slots; /* by hash of the contents: index + 1 */
    size_t n_slots;
    uint32_t n;
    const struct resource *last; /* neighbours share it */
    uint32_t last_index;
};

static bool resource_eq(const struct resource *a, const struct resource *b)
{
    if (a == b)
        return true;
    struct value x = {.type = VALUE_MAP, .map = {a->attrs.items, a->attrs.n}};
    struct value y = {.type = VALUE_MAP, .map = {b->attrs.items, b->attrs.n}};
    return value_eq(&x, &y);
}

static uint32_t process_of(struct processes *p, const struct resource *r)
{
    if (r == p->last)
        return p->last_index;
    uint64_t hash = hash_str(r->service_name);
    for (uint32_t i = 0; i < r->attrs.n; i++) {
        const struct attr *a = &r->attrs.items[i];
        hash = hash_mix64(hash ^ hash_str(a->key));
        if (a->value.type == VALUE_STRING)
            hash = hash_mix64(hash ^ hash_str(a->value.string));
    }
    size_t slot = hash & (p->n_slots - 1);
    while (p->slots[slot] && !resource_eq(p->items[p->slots[slot] - 1], r))
        slot = (slot + 1) & (p->n_slots - 1);
    if (!p->slots[slot]) {
        p->items[p->n++] = r;
        p->slots[slot] = p->n;
    }
    p->last = r;
    return p->last_index = p->slots[slot] - 1;
}

bool legacy_trace_json(struct json_writer *w, const struct span_batch *batch, struct arena *arena)
{
    struct processes processes = {.n_slots = 16};
    while (processes.n_slots < 2 * batch->n)
        processes.n_slots *= 2;
    processes.items = arena_array(arena, batch->n, sizeof(void *));
    processes.slots = arena_zalloc(arena, processes.n_slots * sizeof(uint32_t));
    if (!processes.items || !processes.slots)
        return false;
    json_open(w, '{');
    json_key(w, STR("traceID"));
    json_hex(w, batch->spans[0].trace_id.bytes, TRACE_ID_SIZE);
    json_key(w, STR("spans"));
    json_open(w, '[');
    for (size_t i = 0; i < batch->n && buf_ok(w->out); i++)
        span_json(w, &batch->spans[i], process_of(&processes, batch->spans[i].resource));
    json_close(w, ']');
    json_key(w, STR("processes"));
    json_open(w, '{');
    for (uint32_t i = 0; i < processes.n; i++) {
        char id[16];
        snprintf(id, sizeof id, "p%u", i + 1);
        json_key(w, str_from(id));
        json_open(w, '{');
        json_key(w, STR("serviceName"));
        json_str(w, processes.items[i]->service_name);
        json_key(w, STR("tags"));
        json_open(w, '[');
        tags_attrs(w, &processes.items[i]->attrs, STR("service.name"));
        json_close(w, ']');
        json_close(w, '}');
    }
    json_close(w, '}');
    json_key(w, STR("warnings"));
    json_null(w);
    json_close(w, '}');
    return true;
}

/* The traces in this order; those that are not there are left out, but when none is it is 404. */
static void traces_reply(struct web_request *q, struct store_view *view, const struct trace_id *ids,
                         size_t n, bool none_is_404)
{
    struct buf out = answer();
    struct json_writer w = legacy_open(&out);
    struct arena scratch = ARENA_INIT;
    size_t found = 0;
    int err = 0;
    json_open(&w, '[');
    for (size_t i = 0; i < n && !err && buf_ok(&out); i++) {
        struct span_batch batch;
        arena_reset(&scratch);
        err = store_trace(view, &ids[i], &scratch, &batch);
        if (err == ERR_NOT_FOUND) {
            err = 0;
            continue;
        }
        if (!err && !legacy_trace_json(&w, &batch, &scratch))
            err = ERR_NOMEM;
        found += !err;
    }
    json_close(&w, ']');
    legacy_close(q, &w, found);
    arena_done(&scratch);
    if (err)
        web_fail_err(q, err, NULL);
    else if (!found && none_is_404)
        web_fail(q, 404, "trace not found");
    else
        web_reply_json(q, 200, &out);
    buf_done(&out);
}

void legacy_trace(struct web_request *q)
{
    struct trace_id id;
    if (!web_param_trace_id(q, q->params[0], "traceID", &id))
        return;
    struct store_view *view = web_view(q);
    if (view)
        traces_reply(q, view, &id, 1, true);
    else
        web_fail_err(q, ERR_NOMEM, NULL);
}

/* ---- search ---- */

/* Microseconds, for a time in nanoseconds. */
static bool param_us(struct web_request *q, const char *name, uint64_t fallback_ns,
                     uint64_t *ret_ns)
{
    struct str text = web_param(q, name);
    uint64_t us;
    *ret_ns = fallback_ns;
    if (!text.len)
        return true;
    if (!str_to_u64(text, &us) || us > UINT64_MAX / NS_PER_US) {
        web_fail_at(q, 400, name, 0, "expected microseconds since 1970");
        return false;
    }
    *ret_ns = us * NS_PER_US;
    return true;
}

static bool param_tags(struct web_request *q, struct conditions *c)
{
    struct str text;
    for (unsigned i = 0; http_query_nth(q->http, "tag", i, &text); i++) {
        struct str value, key = str_split(text, ':', &value);
        if (!value.ptr || !key.len) {
            web_fail_at(q, 400, "tag", 0, "malformed 'tag' parameter, expecting key:value");
            return false;
        }
        conditions_tag(c, key, value);
    }
    for (unsigned i = 0; http_query_nth(q->http, "tags", i, &text); i++) {
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
        if (!good || r.type != JSON_OBJECT_END || json_next(&r) != JSON_END) {
            web_fail(q, 400, "malformed 'tags' parameter, expecting a JSON object of strings");
            return false;
        }
    }
    return true;
}

static bool search_params(struct web_request *q, struct search *search, struct conditions *c)
{
    uint64_t now_ns = clock_realtime_ns(), limit, ns = 0, back_ns = 2 * 24 * 3600 * NS_PER_S;
    bool given;
    struct str text = web_param(q, "service");
    if (!text.len) {
        web_fail(q, 400, "parameter 'service' is required");
        return false;
    }
    conditions_string(c, FIELD_SERVICE, text);
    text = web_param(q, "operation");
    if (text.len)
        conditions_string(c, FIELD_NAME, text);
    text = web_param(q, "lookback");
    if (text.len && !str_eq(text, STR("custom"))) {
        /* "2d" is a look-back of the UI, but no duration of Go's. */
        uint64_t days;
        if (text.ptr[text.len - 1] == 'd' &&
            str_to_u64((struct str){text.ptr, text.len - 1}, &days) && days < 36500) {
            back_ns = days * 24 * 3600 * NS_PER_S;
        } else if (!str_to_duration_ns(text, &back_ns)) {
            web_fail_at(q, 400, "lookback", 0, "expected a duration such as 1h, or custom");
            return false;
        }
    }
    if (!param_us(q, "end", 0, &search->start_max_ns))
        return false;
    uint64_t until_ns = search->start_max_ns ? search->start_max_ns : now_ns;
    if (!param_us(q, "start", until_ns > back_ns ? until_ns - back_ns : 0, &search->start_min_ns) ||
        !web_param_u64(q, "limit", 1, SEARCH_LIMIT, SEARCH_LIMIT_DEFAULT, &limit))
        return false;
    if (search->start_max_ns)
        search->start_max_ns += NS_PER_US - 1; /* the whole microsecond */
    search->limit = (size_t)limit;
    if (!web_param_duration(q, "minDuration", &ns, &given))
        return false;
    if (given)
        conditions_integer(c, FIELD_DURATION, PREDICATE_GE, (int64_t)ns);
    if (!web_param_duration(q, "maxDuration", &ns, &given))
        return false;
    if (given && ns)
        conditions_integer(c, FIELD_DURATION, PREDICATE_LE, (int64_t)ns);
    if (!param_tags(q, c))
        return false;
    search->where = conditions_all(c);
    if (c->failed) {
        web_fail_err(q, ERR_NOMEM, NULL);
        return false;
    }
    return true;
}

static void traces_by_id(struct web_request *q)
{
    struct trace_id ids[TRACE_IDS_MAX];
    unsigned n = 0;
    struct str text;
    for (unsigned i = 0; http_query_nth(q->http, "traceID", i, &text); i++) {
        if (n == TRACE_IDS_MAX) {
            web_fail(q, 400, "more than %d traces at once", TRACE_IDS_MAX);
            return;
        }
        if (!web_param_trace_id(q, text, "traceID", &ids[n++]))
            return;
    }
    struct store_view *view = web_view(q);
    if (view)
        traces_reply(q, view, ids, n, false);
    else
        web_fail_err(q, ERR_NOMEM, NULL);
}

void legacy_search(struct web_request *q)
{
    if (web_param(q, "traceID").len) {
        traces_by_id(q);
        return;
    }
    struct search search = {.timeout_ns = q->web->query_timeout_ns};
    struct conditions conditions = {.arena = q->arena};
    struct search_result result;
    struct error_detail detail;
    if (!search_params(q, &search, &conditions))
        return;
    struct store_view *view = web_view(q);
    int err = view ? search_run(view, &search, q->arena, &result, &detail)
                   : error_set(&detail, ERR_NOMEM, 0, "out of memory");
    struct trace_id *ids = err ? NULL : arena_array(q->arena, result.n, sizeof *ids);
    if (!err && !ids)
        err = error_set(&detail, ERR_NOMEM, 0, "out of memory");
    if (err) {
        web_fail_err(q, err, &detail);
    } else {
        for (size_t i = 0; i < result.n; i++)
            ids[i] = result.traces[i].summary.id;
        traces_reply(q, view, ids, result.n, false);
    }
}
