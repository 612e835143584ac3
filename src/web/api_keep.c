/* Our own API about what is kept, and what is not: docs/api.md. */
#include "web/web_internal.h"

#include "model/redact.h"
#include "query/erasure.h"
#include "wire/span_file.h"

/* More than that is asked for in parts. */
#define EXPORT_BYTES_MAX ((size_t)32 << 20)

static void key_u64_str(struct json_writer *w, const char *key, uint64_t value)
{
    json_key(w, str_from(key));
    json_u64_str(w, value);
}

/* 0 stands for "never" or "no limit". */
static void key_u64_or_null(struct json_writer *w, const char *key, uint64_t value)
{
    json_key(w, str_from(key));
    if (value)
        json_u64_str(w, value);
    else
        json_null(w);
}

static void rule_json(struct json_writer *w, const struct store_rule_state *rule)
{
    json_open(w, '{');
    json_key(w, STR("match"));
    if (rule->text.len)
        json_str(w, rule->text);
    else
        json_null(w);
    key_u64_or_null(w, "keepNano", rule->keep_ns);
    key_u64_str(w, "spansDropped", rule->spans);
    json_close(w, '}');
}

void api_retention(struct web_request *q)
{
    struct store_rule_state *rules;
    struct store_stats s;
    uint64_t disk_bytes_max, next_ns;
    size_t n;
    int err = store_retention_state(q->web->store, q->arena, &rules, &n, &disk_bytes_max, &next_ns);
    if (err) {
        web_fail_err(q, err, NULL);
        return;
    }
    store_stats(q->web->store, &s);
    struct buf out = {.bytes_max = ANSWER_BYTES_MAX};
    struct json_writer w = json_writer(&out);
    json_open(&w, '{');
    json_key(&w, STR("rules"));
    json_open(&w, '[');
    for (size_t i = 0; i < n; i++)
        rule_json(&w, &rules[i]);
    json_close(&w, ']');
    key_u64_or_null(&w, "nextUnixNano", next_ns);
    key_u64_or_null(&w, "diskBytesMax", disk_bytes_max);
    key_u64_str(&w, "diskBytes", s.segment_bytes + s.log_bytes);
    key_u64_or_null(&w, "oldestUnixNano", s.start_min_ns);
    json_key(&w, STR("spansDropped"));
    json_open(&w, '{');
    key_u64_str(&w, "age", s.expired_age_spans);
    key_u64_str(&w, "disk", s.expired_disk_spans);
    key_u64_str(&w, "deleted", s.deleted_spans);
    json_close(&w, '}');
    key_u64_str(&w, "spansRedacted", s.redacted_spans);
    key_u64_str(&w, "pinnedTraces", s.pins);
    json_close(&w, '}');
    web_reply_json(q, 200, &out);
}

void api_segments(struct web_request *q)
{
    struct store_segment *segments;
    size_t n;
    int err = store_segments(q->web->store, q->arena, &segments, &n);
    if (err) {
        web_fail_err(q, err, NULL);
        return;
    }
    struct buf out = {.bytes_max = ANSWER_BYTES_MAX};
    struct json_writer w = json_writer(&out);
    json_open(&w, '{');
    json_key(&w, STR("segments"));
    json_open(&w, '[');
    for (size_t i = 0; i < n; i++) {
        json_open(&w, '{');
        json_key(&w, STR("name"));
        json_str(&w, segments[i].name);
        key_u64_str(&w, "spans", segments[i].spans);
        key_u64_str(&w, "bytes", segments[i].bytes);
        key_u64_str(&w, "startMin", segments[i].start_min_ns);
        key_u64_str(&w, "startMax", segments[i].start_max_ns);
        key_u64_or_null(&w, "sealedUnixNano", segments[i].sealed_ns);
        json_key(&w, STR("damaged"));
        json_bool(&w, segments[i].is_damaged);
        json_close(&w, '}');
    }
    json_close(&w, ']');
    json_close(&w, '}');
    web_reply_json(q, 200, &out);
}

void api_pins(struct web_request *q)
{
    struct trace_id *ids;
    size_t n;
    int err = store_pins(q->web->store, q->arena, &ids, &n);
    if (err) {
        web_fail_err(q, err, NULL);
        return;
    }
    struct buf out = {.bytes_max = ANSWER_BYTES_MAX};
    struct json_writer w = json_writer(&out);
    json_open(&w, '{');
    json_key(&w, STR("pins"));
    json_open(&w, '[');
    for (size_t i = 0; i < n; i++)
        json_hex(&w, ids[i].bytes, TRACE_ID_SIZE);
    json_close(&w, ']');
    json_close(&w, '}');
    web_reply_json(q, 200, &out);
}

/* ---- erasing ---- */

/* Whoever can reach the server may ask it, but no page elsewhere may make a browser do this: a browser says
 * where a request that changes something comes from. There is no authentication yet, so that other machines
 * may not at all. */
static bool may_erase(struct web_request *q)
{
    struct str origin = http_header(q->http, "origin"), host = http_header(q->http, "host");
    if (!q->web->loopback_only) {
        web_fail(q, 403,
                 "spans are erased over HTTP only while the server listens on loopback; "
                 "`pugmark store` does it while the server is stopped");
        return false;
    }
    static const struct str http = {"http://", 7};
    if (origin.len && (!str_starts(origin, http) || !str_eq(str_skip(origin, http.len), host))) {
        web_fail(q, 403, "a page of another origin may not ask for this");
        return false;
    }
    return true;
}

/* All values of a parameter, as C strings. */
static bool texts_of(struct web_request *q, const char *name, const char *const **ret,
                     size_t *ret_n)
{
    const char **texts = arena_array(q->arena, STORE_ERASE_TEXTS_MAX, sizeof *texts);
    struct str text;
    size_t n = 0;
    for (unsigned i = 0; texts && http_query_nth(q->http, name, i, &text); i++) {
        if (n == STORE_ERASE_TEXTS_MAX || !text.len || memchr(text.ptr, 0, text.len)) {
            web_fail_at(q, 400, name, 0,
                        n == STORE_ERASE_TEXTS_MAX ? "too many of them" : "is empty");
            return false;
        }
        texts[n] = arena_str(q->arena, text).ptr;
        if (!texts[n++]) {
            texts = NULL;
            break;
        }
    }
    if (!texts) {
        web_fail_err(q, ERR_NOMEM, NULL);
        return false;
    }
    *ret = texts;
    *ret_n = n;
    return true;
}

static void erasure_answer(struct web_request *q, const struct erasure *e,
                           const struct store_erased *done)
{
    struct buf out = {.bytes_max = ANSWER_BYTES_MAX};
    struct json_writer w = json_writer(&out);
    bool partial = e->is_damaged || (done && done->unread_segments);
    json_open(&w, '{');
    json_key(&w, STR("dryRun"));
    json_bool(&w, !done);
    key_u64_str(&w, "spans", done ? done->spans : e->spans);
    key_u64_str(&w, "traces", e->traces);
    if (done)
        key_u64_str(&w, "segmentsRewritten", done->segments);
    json_key(&w, STR("partial"));
    json_bool(&w, partial);
    if (partial)
        json_key(&w, STR("message"));
    if (partial)
        json_str(&w, STR("a damaged segment could not be read: what is in it is as it was"));
    json_close(&w, '}');
    web_reply_json(q, 200, &out);
}

/* What names spans that will be gone must not be a variable of a script that was never set: elsewhere an
 * empty parameter, or an end of 0, is as good as none. */
static bool range_of(struct web_request *q, uint64_t *ret_start_ns, uint64_t *ret_end_ns)
{
    static const char *const names[] = {"q", "start", "end"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct str text;
        if (http_query_nth(q->http, names[i], 0, &text) && !text.len) {
            web_fail_at(q, 400, names[i], 0, "is empty");
            return false;
        }
    }
    return web_param_u64(q, "start", 0, UINT64_MAX, 0, ret_start_ns) &&
           web_param_u64(q, "end", 1, UINT64_MAX, 0, ret_end_ns);
}

/* A dry run says what is wrong with it, too. */
static bool redaction_of(struct web_request *q, struct store_erase *e)
{
    struct error_detail detail = {0};
    struct redact *redact;
    if (!texts_of(q, "key", &e->keys, &e->n_keys) ||
        !texts_of(q, "pattern", &e->patterns, &e->n_patterns))
        return false;
    if (!e->n_keys && !e->n_patterns) {
        web_fail_at(q, 400, "key", 0, "expected a key or a pattern that says what is taken out");
        return false;
    }
    int err = redact_new(e->keys, e->n_keys, e->patterns, e->n_patterns, q->arena, &redact,
                         &detail);
    if (err == ERR_NOMEM)
        web_fail_err(q, err, NULL);
    else if (err)
        web_fail(q, 400, "%s", detail.message[0] ? detail.message : err_text(err));
    return !err;
}

static void erase(struct web_request *q, enum erase_kind kind)
{
    uint64_t start_ns, end_ns;
    struct error_detail detail = {0};
    struct erasure e;
    struct store_erased done;
    struct str confirm = web_param(q, "confirm");
    bool confirmed = str_eq(confirm, STR("true"));
    if (!may_erase(q) || !range_of(q, &start_ns, &end_ns))
        return;
    if (confirm.len && !confirmed && !str_eq(confirm, STR("false"))) {
        web_fail_at(q, 400, "confirm", 0, "expected true or false");
        return;
    }
    struct str text = web_param(q, "q");
    if (!text.len && kind == ERASE_DELETE) {
        web_fail_at(q, 400, "q", 0, "expected a query that says which spans; { } are all");
        return;
    }
    struct store_view *view = store_view_new(q->web->store);
    int err = view ? erasure_find(view, text, start_ns, end_ns, q->arena, &e, &detail) : ERR_NOMEM;
    store_view_free(view);
    if (err == ERR_INVALID || err == ERR_UNSUPPORTED || err == ERR_TOO_LARGE) {
        web_fail_at(q, 400, "q", detail.position, detail.message);
        return;
    }
    e.erase.kind = kind;
    if (!err && kind == ERASE_REDACT && !redaction_of(q, &e.erase))
        return;
    if (!err && confirmed)
        err = store_erase(q->web->store, &e.erase, &done, &detail);
    if (err)
        web_fail_err(q, err, &detail);
    else
        erasure_answer(q, &e, confirmed ? &done : NULL);
}

void api_delete(struct web_request *q)
{
    erase(q, ERASE_DELETE);
}

void api_redact(struct web_request *q)
{
    erase(q, ERASE_REDACT);
}

/* ---- export ---- */

static int export_put(void *arg, struct span_batch *batch)
{
    struct buf *out = arg;
    span_file_put(batch, out);
    return buf_ok(out) ? 0 : ERR_TOO_LARGE;
}

void api_export(struct web_request *q)
{
    uint64_t start_ns, end_ns;
    struct error_detail detail = {0};
    struct erasure which;
    struct buf out = {.bytes_max = EXPORT_BYTES_MAX};
    if (!web_param_u64(q, "start", 0, UINT64_MAX, 0, &start_ns) ||
        !web_param_u64(q, "end", 0, UINT64_MAX, 0, &end_ns))
        return;
    struct store_view *view = store_view_new(q->web->store);
    int err = view ? erasure_find(view, web_param(q, "q"), start_ns, end_ns, q->arena, &which,
                                  &detail)
                   : ERR_NOMEM;
    bool too_many = err == ERR_TOO_LARGE && !detail.position;
    if (!err) {
        err = store_spans(view, &which.erase, export_put, &out);
        too_many = err == ERR_TOO_LARGE;
    }
    bool partial = !err && (which.is_damaged || store_view_is_damaged(view));
    store_view_free(view);
    if (!err) {
        if (partial)
            http_reply_header(q->http, "Warning",
                              "199 pugmark \"a damaged segment could not be read\"");
        web_reply(q, partial ? 206 : 200, "application/x-protobuf", &out);
        return;
    }
    buf_done(&out);
    if (too_many)
        web_fail(q, 413, "the spans do not fit in one answer: ask for a shorter range of time");
    else if (err == ERR_INVALID || err == ERR_UNSUPPORTED || err == ERR_TOO_LARGE)
        web_fail_at(q, 400, "q", detail.position, detail.message);
    else
        web_fail_err(q, err, &detail);
}
