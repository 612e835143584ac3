/* Zipkin's query API (version 2), for its UI and everything that reads from Zipkin.
 *
 * A question for traces becomes one in TraceQL: Zipkin asks that for each condition there is a span of the service that
 * fulfils it, so each is a spanset of its own, and all are joined by `&&`.
 *
 * Source: openzipkin/zipkin-api, zipkin2-api.yaml; openzipkin/zipkin, zipkin-server (ZipkinQueryApiV2, the defaults) and
 * zipkin2.storage.QueryRequest (what a trace has to fulfil); zipkin-lens (config.json). */
#include "web/items.h"
#include "web/web_internal.h"

#include "base/clock.h"
#include "query/search.h"
#include "wire/zipkin.h"

enum {
    LIMIT_DEFAULT = 10,
    LIMIT_MAX = 1500,
    TRACE_IDS_MAX = 100,
    NAMES_MAX = 10000,   /* of an answer */
    CONDITIONS_MAX = 64, /* in one question */
};
#define LOOKBACK_MS_DEFAULT (UINT64_C(24) * 3600 * 1000)
#define MS_MAX (UINT64_MAX / NS_PER_MS)

static struct buf answer(void)
{
    return (struct buf){.bytes_max = ANSWER_BYTES_MAX};
}

/* ---- names ---- */

static void items_reply(struct web_request *q, struct items *items, int err)
{
    struct buf out = answer();
    if (err || items->failed) {
        web_fail_err(q, err ? err : ERR_NOMEM, NULL);
        return;
    }
    items_sort(items, NAMES_MAX);
    struct json_writer w = json_writer(&out);
    json_open(&w, '[');
    for (size_t i = 0; i < items->n; i++)
        json_str(&w, items->list[i].text);
    json_close(&w, ']');
    web_reply_json(q, 200, &out);
}

void zipkin_services(struct web_request *q)
{
    struct items items;
    struct str *names;
    size_t n;
    items_init(&items, q->arena, NAMES_MAX);
    struct store_view *view = web_view(q);
    int err = view ? store_services(view, q->arena, &names, &n) : ERR_NOMEM;
    for (size_t i = 0; !err && i < n; i++)
        items_add(&items, "", names[i]);
    items_reply(q, &items, err);
}

/* The service that a list of names is of. False: answered with an error. */
static bool param_service(struct web_request *q, struct str *ret)
{
    *ret = web_param(q, "serviceName");
    if (!ret->len)
        web_fail(q, 400, "serviceName is required");
    return ret->len > 0;
}

void zipkin_span_names(struct web_request *q)
{
    struct str service;
    struct items items;
    struct store_operation *operations;
    size_t n;
    if (!param_service(q, &service))
        return;
    items_init(&items, q->arena, NAMES_MAX);
    struct store_view *view = web_view(q);
    int err = view ? store_operations(view, service, q->arena, &operations, &n) : ERR_NOMEM;
    for (size_t i = 0; !err && i < n; i++)
        items_add(&items, "", operations[i].name);
    items_reply(q, &items, err);
}

/* ---- values of attributes ---- */

/* Attributes that name the other side of a call; who comes first has it. As the encoder ranks them (wire/zipkin.c), but
 * for those that hold addresses. */
static const struct str remote_keys[] = {
    {"peer.service", 12},  {"server.address", 14},       {"net.peer.name", 13},
    {"peer.hostname", 13}, {"server.socket.domain", 20}, {"db.name", 7},
};
enum { REMOTE_KEYS = sizeof remote_keys / sizeof *remote_keys };

struct gathering {
    struct items items;
    uint64_t until_ns;
    uint64_t rows;
};

static int gather(void *arg, struct scan *scan, const struct scan_row *row)
{
    struct gathering *g = arg;
    for (size_t i = 0; i < scan->n_attrs; i++) {
        const struct value *v = &row->attrs[i];
        struct buf text = BUF_INIT;
        struct json_writer w = json_writer(&text);
        if (v->type == VALUE_NONE || v->type == VALUE_ARRAY || v->type == VALUE_MAP ||
            v->type == VALUE_BYTES)
            continue;
        if (v->type == VALUE_BOOL)
            json_bool(&w, v->boolean);
        else if (v->type == VALUE_INT)
            json_i64(&w, v->integer);
        else if (v->type == VALUE_DOUBLE)
            json_double(&w, v->real);
        items_add(&g->items, "", v->type == VALUE_STRING ? v->string : buf_as_str(&text));
        buf_done(&text);
        break;
    }
    bool is_full = g->items.failed || g->items.n == g->items.most;
    return is_full || (++g->rows % 4096 == 0 && clock_monotonic_ns() > g->until_ns);
}

/* Values of the first of the attributes that a span has, of all spans or those of a service. */
static void values_reply(struct web_request *q, struct str service, const struct str *keys,
                         size_t n_keys)
{
    struct scan_attr attrs[REMOTE_KEYS];
    struct predicate any[REMOTE_KEYS], all[2];
    struct gathering g = {.until_ns = q->arrived_ns + q->web->query_timeout_ns};
    for (size_t i = 0; i < n_keys; i++) {
        attrs[i] = (struct scan_attr){FIELD_ANY_ATTR, keys[i]};
        any[i] =
            (struct predicate){.op = PREDICATE_EXISTS, .field = FIELD_ANY_ATTR, .key = keys[i]};
    }
    all[0] = (struct predicate){.op = PREDICATE_OR, .children = any, .n_children = n_keys};
    all[1] = (struct predicate){.op = PREDICATE_EQ,
                                .field = FIELD_SERVICE,
                                .value = {.type = VALUE_STRING, .string = service}};
    struct predicate where = {
        .op = PREDICATE_AND, .children = all, .n_children = service.len ? 2 : 1};
    struct scan scan = {.where = &where, .attrs = attrs, .n_attrs = n_keys};
    items_init(&g.items, q->arena, NAMES_MAX);
    struct store_view *view = web_view(q);
    int err = view ? store_scan(view, &scan, gather, &g, NULL) : ERR_NOMEM;
    items_reply(q, &g.items, err < 0 ? err : 0);
}

void zipkin_remote_services(struct web_request *q)
{
    struct str service;
    if (param_service(q, &service))
        values_reply(q, service, remote_keys, REMOTE_KEYS);
}

void zipkin_autocomplete_keys(struct web_request *q)
{
    struct items items;
    struct store_key *keys;
    size_t n;
    items_init(&items, q->arena, NAMES_MAX);
    struct store_view *view = web_view(q);
    int err = view ? store_keys(view, 0, 0, NAMES_MAX, q->arena, &keys, &n) : ERR_NOMEM;
    for (size_t i = 0; !err && i < n; i++)
        if (!str_eq(keys[i].name, STR("service.name")))
            items_add(&items, "", keys[i].name);
    items_reply(q, &items, err);
}

void zipkin_autocomplete_values(struct web_request *q)
{
    struct str key = web_param(q, "key");
    if (key.len)
        values_reply(q, STR_NONE, &key, 1);
    else
        web_fail(q, 400, "key is required");
}

/* ---- a question for traces, in TraceQL ---- */

struct question {
    struct buf text;
    struct str service;
    unsigned n;
};

/* A condition on some span of the service is open. */
static void condition_open(struct question *c)
{
    buf_cstr(&c->text, c->n++ ? " && { " : "{ ");
    if (c->service.len) {
        buf_cstr(&c->text, "resource.service.name = ");
        web_put_quoted(&c->text, c->service);
        buf_cstr(&c->text, " && ");
    }
    buf_cstr(&c->text, "(");
}

static void condition_close(struct question *c)
{
    buf_cstr(&c->text, ") }");
}

static void put_comparison(struct buf *out, struct str key, struct str value)
{
    int64_t n;
    buf_byte(out, '.');
    web_put_quoted(out, key);
    buf_cstr(out, " = ");
    web_put_quoted(out, value);
    /* Here tags have types, there they are text. */
    bool is_bool = str_eq(value, STR("true")) || str_eq(value, STR("false"));
    if (is_bool || str_to_i64(value, &n)) {
        buf_cstr(out, " || .");
        web_put_quoted(out, key);
        buf_printf(out, " = %.*s", STR_ARG(value));
    }
}

/* `key=value`: a tag. `word`: a tag of that name, or an annotation. */
static void condition_term(struct question *c, struct str term)
{
    struct str value, key = str_split(term, '=', &value);
    bool is_error = str_eq(key, STR("error"));
    condition_open(c);
    if (!value.ptr) {
        if (is_error)
            buf_cstr(&c->text, "status = error || ");
        buf_byte(&c->text, '.');
        web_put_quoted(&c->text, key);
        buf_cstr(&c->text, " != nil || event:name = ");
        web_put_quoted(&c->text, key);
    } else {
        put_comparison(&c->text, key, value);
        if (is_error && str_eq(value, STR("true"))) {
            buf_cstr(&c->text, " || status = error");
        } else if (is_error) {
            buf_cstr(&c->text, " || statusMessage = ");
            web_put_quoted(&c->text, value);
        }
    }
    condition_close(c);
}

static struct str trim(struct str s)
{
    while (s.len && s.ptr[0] == ' ')
        s = str_skip(s, 1);
    while (s.len && s.ptr[s.len - 1] == ' ')
        s.len--;
    return s;
}

/* Terms joined by " and ". */
static bool conditions_terms(struct question *c, struct str text)
{
    const struct str joint = STR(" and ");
    while (text.len) {
        const char *at = memmem(text.ptr, text.len, joint.ptr, joint.len);
        size_t n = at ? (size_t)(at - text.ptr) : text.len;
        struct str term = trim((struct str){text.ptr, n});
        if (term.len && term.ptr[0] != '=') {
            if (c->n == CONDITIONS_MAX)
                return false;
            condition_term(c, term);
        }
        text = str_skip(text, at ? n + joint.len : n);
    }
    return true;
}

static bool conditions_duration(struct web_request *q, struct question *c)
{
    uint64_t least, most;
    if (!web_param_u64(q, "minDuration", 0, INT64_MAX / 1000, 0, &least) ||
        !web_param_u64(q, "maxDuration", 0, INT64_MAX / 1000, 0, &most))
        return false;
    if (!least && !most)
        return true;
    if (most && most < least) {
        web_fail(q, 400, "maxDuration is less than minDuration");
        return false;
    }
    condition_open(c);
    buf_printf(&c->text, "duration >= %lluus", (unsigned long long)least);
    if (most) /* the whole of the last microsecond */
        buf_printf(&c->text, " && duration < %lluus", (unsigned long long)most + 1);
    condition_close(c);
    return true;
}

static bool question_of(struct web_request *q, struct question *c)
{
    struct str name = web_param(q, "spanName"), remote = web_param(q, "remoteServiceName");
    c->service = web_param(q, "serviceName");
    if (remote.len && !c->service.len) {
        web_fail(q, 400, "remoteServiceName needs a serviceName");
        return false;
    }
    if (name.len && !str_eq(name, STR("all"))) {
        condition_open(c);
        buf_cstr(&c->text, "name = ");
        web_put_quoted(&c->text, name);
        condition_close(c);
    }
    if (remote.len) {
        condition_open(c);
        for (size_t i = 0; i < REMOTE_KEYS; i++) {
            buf_cstr(&c->text, i ? " || ." : ".");
            web_put_quoted(&c->text, remote_keys[i]);
            buf_cstr(&c->text, " = ");
            web_put_quoted(&c->text, remote);
        }
        condition_close(c);
    }
    if (!conditions_duration(q, c))
        return false;
    if (!conditions_terms(c, web_param(q, "annotationQuery"))) {
        web_fail(q, 400, "annotationQuery has more than %d terms", CONDITIONS_MAX);
        return false;
    }
    return true;
}

/* ---- traces ---- */

/* Those that are there; `is_list`: each as a list of its own. */
static void traces_reply(struct web_request *q, struct store_view *view, const struct trace_id *ids,
                         size_t n, bool is_list)
{
    struct buf out = answer();
    struct json_writer w = json_writer(&out);
    struct arena scratch = ARENA_INIT;
    size_t found = 0;
    int err = 0;
    if (is_list)
        json_open(&w, '[');
    for (size_t i = 0; i < n && !err && buf_ok(&out); i++) {
        struct span_batch batch;
        arena_reset(&scratch);
        err = store_trace(view, &ids[i], &scratch, &batch);
        if (!err)
            err = zipkin_json_encode_trace(&batch, &scratch, &w);
        found += !err;
        if (err == ERR_NOT_FOUND)
            err = 0;
    }
    if (is_list)
        json_close(&w, ']');
    arena_done(&scratch);
    if (err)
        web_fail_err(q, err, NULL);
    else if (!found && !is_list)
        web_fail(q, 404, "there is no such trace");
    else
        web_reply_json(q, 200, &out);
    buf_done(&out);
}

void zipkin_trace(struct web_request *q)
{
    struct trace_id id;
    if (!web_param_trace_id(q, q->params[0], "traceId", &id))
        return;
    struct store_view *view = web_view(q);
    if (view)
        traces_reply(q, view, &id, 1, false);
    else
        web_fail_err(q, ERR_NOMEM, NULL);
}

void zipkin_trace_many(struct web_request *q)
{
    struct trace_id ids[TRACE_IDS_MAX];
    size_t n = 0;
    for (struct str text = web_param(q, "traceIds"); text.ptr;) {
        struct str one = str_split(text, ',', &text);
        if (n == TRACE_IDS_MAX) {
            web_fail(q, 400, "traceIds: more than %d traces at once", TRACE_IDS_MAX);
            return;
        }
        if (!web_param_trace_id(q, one, "traceIds", &ids[n++]))
            return;
        for (size_t i = 0; i + 1 < n; i++)
            if (!trace_id_cmp(&ids[i], &ids[n - 1])) {
                web_fail(q, 400, "traceIds: %.*s is there twice", STR_ARG(one));
                return;
            }
    }
    if (n < 2) {
        web_fail(q, 400, "traceIds: expected two ids or more, with commas between them");
        return;
    }
    struct store_view *view = web_view(q);
    if (view)
        traces_reply(q, view, ids, n, true);
    else
        web_fail_err(q, ERR_NOMEM, NULL);
}

/* `endTs` and `lookback`, in milliseconds. */
static bool param_range(struct web_request *q, uint64_t *ret_start_ns, uint64_t *ret_end_ns)
{
    uint64_t now_ms = clock_realtime_ns() / NS_PER_MS, end_ms, back_ms;
    if (!web_param_u64(q, "endTs", 1, MS_MAX, now_ms, &end_ms) ||
        !web_param_u64(q, "lookback", 1, MS_MAX, LOOKBACK_MS_DEFAULT, &back_ms))
        return false;
    *ret_start_ns = end_ms > back_ms ? (end_ms - back_ms) * NS_PER_MS : 0;
    *ret_end_ns = end_ms < MS_MAX ? end_ms * NS_PER_MS + NS_PER_MS - 1 : UINT64_MAX;
    return true;
}

/* A service alone needs no TraceQL. */
static int search_of(struct question *c, struct conditions *conditions, struct search *search,
                     struct traceql **ret_query, struct error_detail *detail)
{
    if (!buf_ok(&c->text))
        return error_set(detail, ERR_NOMEM, 0, "out of memory");
    if (c->n) {
        int err = traceql_parse(buf_as_str(&c->text), ret_query, detail);
        search->query = *ret_query;
        return err == ERR_TOO_LARGE ? ERR_INVALID : err; /* what was asked is at fault */
    }
    if (c->service.len)
        conditions_string(conditions, FIELD_SERVICE, c->service);
    search->where = conditions_all(conditions);
    return conditions->failed ? error_set(detail, ERR_NOMEM, 0, "out of memory") : 0;
}

static void search_reply(struct web_request *q, const struct search *search)
{
    struct search_result result;
    struct error_detail detail = {0};
    struct store_view *view = web_view(q);
    int err = view ? search_run(view, search, q->arena, &result, &detail)
                   : error_set(&detail, ERR_NOMEM, 0, "out of memory");
    struct trace_id *ids = err ? NULL : arena_array(q->arena, result.n, sizeof *ids);
    if (!err && !ids)
        err = error_set(&detail, ERR_NOMEM, 0, "out of memory");
    for (size_t i = 0; !err && i < result.n; i++)
        ids[i] = result.traces[i].summary.id;
    if (err)
        web_fail_err(q, err, &detail);
    else
        traces_reply(q, view, ids, result.n, true);
}

void zipkin_traces(struct web_request *q)
{
    struct search search = {.timeout_ns = q->web->query_timeout_ns};
    struct conditions conditions = {.arena = q->arena};
    struct question c = {.text = BUF_INIT};
    struct traceql *query = NULL;
    struct error_detail detail = {0};
    uint64_t limit;
    if (!web_param_u64(q, "limit", 1, LIMIT_MAX, LIMIT_DEFAULT, &limit) ||
        !param_range(q, &search.start_min_ns, &search.start_max_ns))
        return;
    search.limit = (size_t)limit;
    if (question_of(q, &c)) {
        int err = search_of(&c, &conditions, &search, &query, &detail);
        if (err)
            web_fail_err(q, err, &detail);
        else
            search_reply(q, &search);
    }
    traceql_free(query);
    buf_done(&c.text);
}

/* ---- the server ---- */

void zipkin_health(struct web_request *q)
{
    bool is_ready = !q->web->is_ready || q->web->is_ready(q->web->arg);
    struct buf out = answer();
    buf_printf(&out, "{\"status\":\"%s\",\"zipkin\":{\"status\":\"%s\",\"details\":{}}}",
               is_ready ? "UP" : "DOWN", is_ready ? "UP" : "DOWN");
    web_reply_json(q, is_ready ? 200 : 503, &out);
}

void zipkin_info(struct web_request *q)
{
    struct buf out = answer();
    buf_cstr(&out,
             "{\"pugmark\":{\"version\":\"" PUGMARK_VERSION "\"},\"zipkin\":{\"api\":\"v2\"}}");
    web_reply_json(q, 200, &out);
}

/* What Zipkin's UI wants to know before it starts. */
void zipkin_config(struct web_request *q)
{
    struct buf out = answer();
    buf_printf(
        &out,
        "{\"environment\":\"\",\"queryLimit\":%d,\"defaultLookback\":900000,"
        "\"searchEnabled\":true,\"logsUrl\":null,\"supportUrl\":null,\"archivePostUrl\":null,"
        "\"archiveUrl\":null,\"basePath\":\"/zipkin\",\"instrumented\":\".*\","
        "\"dependency\":{\"enabled\":true,\"lowErrorRate\":0.5,\"highErrorRate\":0.75}}",
        LIMIT_DEFAULT);
    web_reply_json(q, 200, &out);
}
