/* "Where did my span go?": what is stored of a trace, what happened to its spans on their way, and where all spans
 * went, in numbers that add up. docs/api.md. */
#include "web/json_keys.h"
#include "web/web_internal.h"

static void key_u64_or_null(struct json_writer *w, const char *key, uint64_t value)
{
    json_key(w, str_from(key));
    if (value)
        json_u64_str(w, value);
    else
        json_null(w);
}

/* What no entry says, whatever happened. */
static const char *const not_named[] = {
    "spans that cannot be kept and whose trace id could not be read, or beyond 64 of one request",
    "spans of requests and datagrams that were turned away or could not be read",
    "spans that retention, the disk budget or a deletion took, or a redaction changed",
};

static void stored_json(struct json_writer *w, const struct trace_summary *s)
{
    json_key(w, STR("stored"));
    if (!s) {
        json_null(w);
        return;
    }
    json_open(w, '{');
    key_u64(w, "spanCount", s->span_count);
    key_u64(w, "errorCount", s->error_count);
    key_u64(w, "orphanCount", s->orphan_count);
    key_u64_str(w, "startUnixNano", s->start_ns);
    key_u64_str(w, "durationNano", s->end_ns > s->start_ns ? s->end_ns - s->start_ns : 0);
    json_close(w, '}');
}

static void fate_json(struct json_writer *w, const struct web_ledger *l, size_t fate,
                      uint64_t spans, const uint64_t *time_ns)
{
    json_open(w, '{');
    if (time_ns)
        key_u64_str(w, "unixNano", *time_ns);
    key_str(w, "fate", str_from(l->fates[fate].fate));
    key_str(w, "reason", str_from(l->fates[fate].reason));
    key_u64_str(w, "spans", spans);
    json_close(w, '}');
}

static void ledger_json(struct json_writer *w, const struct web_ledger *l)
{
    key_open(w, "fates", '[');
    for (size_t i = 0; i < l->n_fates; i++)
        if (l->fates[i].spans)
            fate_json(w, l, i, l->fates[i].spans, NULL);
    json_close(w, ']');
    key_open(w, "entries", '[');
    for (size_t i = 0; i < l->n_entries; i++)
        fate_json(w, l, l->entries[i].fate, l->entries[i].spans, &l->entries[i].time_ns);
    json_close(w, ']');
    key_bool(w, "more", l->more);
    key_open(w, "horizon", '{');
    key_u64(w, "entriesMax", l->remembered_max);
    key_u64(w, "entries", l->remembered);
    key_u64_or_null(w, "sinceUnixNano", l->since_ns);
    key_u64_str(w, "spansSkipped", l->skipped);
    key_open(w, "notNamed", '[');
    for (size_t i = 0; i < sizeof not_named / sizeof *not_named; i++)
        json_str(w, str_from(not_named[i]));
    json_close(w, ']');
    json_close(w, '}');
}

static void totals_json(struct json_writer *w, struct web *web)
{
    struct web_ingest_stats in = {0};
    struct store_stats s = {0};
    if (web->ingest_stats)
        web->ingest_stats(web->arg, &in);
    store_stats(web->store, &s);
    uint64_t settled = in.spans_stored, turned = 0, datagrams = 0;
    key_open(w, "totals", '{');
    key_u64_str(w, "received", in.spans_received);
    key_u64_str(w, "stored", in.spans_stored);
    key_open(w, "refused", '[');
    for (size_t i = 0; i < in.n_refused; i++) {
        settled += in.refused[i].count;
        json_open(w, '{');
        key_str(w, "reason", str_from(in.refused[i].reason));
        key_u64_str(w, "count", in.refused[i].count);
        json_close(w, '}');
    }
    json_close(w, ']');
    key_open(w, "redacted", '[');
    for (size_t i = 0; i < in.n_redactions; i++) {
        json_open(w, '{');
        key_str(w, "rule", str_from(in.redactions[i].rule));
        key_str(w, "action", str_from(in.redactions[i].action));
        key_u64_str(w, "values", in.redactions[i].values);
        json_close(w, '}');
    }
    json_close(w, ']');
    key_u64_str(w, "onTheirWay", in.spans_received - settled);
    for (size_t i = 0; i < in.n_turned; i++)
        turned += in.turned[i].count;
    for (size_t i = 0; i < in.n_receivers; i++)
        datagrams += in.receivers[i].datagrams_dropped;
    key_u64_str(w, "requestsRefused", turned);
    key_u64_str(w, "datagramsDropped", datagrams);
    json_close(w, '}');
    key_open(w, "store", '{');
    key_u64_str(w, "spans", s.spans);
    key_open(w, "spansDropped", '{');
    key_u64_str(w, "age", s.expired_age_spans);
    key_u64_str(w, "disk", s.expired_disk_spans);
    key_u64_str(w, "deleted", s.deleted_spans);
    json_close(w, '}');
    key_u64_str(w, "spansRedacted", s.redacted_spans);
    json_close(w, '}');
}

void api_ledger(struct web_request *q)
{
    struct trace_id id;
    struct trace_summary summary;
    struct str text = web_param(q, "trace");
    if (!text.len) {
        web_fail_at(q, 400, "trace", 0, "expected the id of a trace");
        return;
    }
    if (!web_param_trace_id(q, text, "trace", &id))
        return;
    struct web_ledger *ledger = arena_alloc(q->arena, sizeof *ledger);
    struct store_view *view = ledger ? store_view_new(q->web->store) : NULL;
    int err = view ? store_trace_summary(view, &id, q->arena, &summary) : ERR_NOMEM;
    if (err && err != ERR_NOT_FOUND) {
        store_view_free(view);
        web_fail_err(q, err, NULL);
        return;
    }
    *ledger = (struct web_ledger){.n_fates = 0};
    if (q->web->ledger)
        q->web->ledger(q->web->arg, &id, ledger);
    struct buf out = web_answer();
    struct json_writer w = json_writer(&out);
    json_open(&w, '{');
    key_hex(&w, "traceId", id.bytes, TRACE_ID_SIZE);
    stored_json(&w, err ? NULL : &summary);
    key_bool(&w, "partial", store_view_is_damaged(view));
    ledger_json(&w, ledger);
    totals_json(&w, q->web);
    json_close(&w, '}');
    store_view_free(view);
    web_reply_json(q, 200, &out);
}
