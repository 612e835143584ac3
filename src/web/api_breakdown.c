/* GET /api/pugmark/breakdown: which attributes tell the spans that a search finds from the others. */
#include "web/json_keys.h"
#include "web/web_internal.h"

#include "base/clock.h"
#include "query/breakdown.h"

enum { VALUES_DEFAULT = 5, VALUES_MAX = 100, FIELDS_DEFAULT = 50 };

static void value_json(struct json_writer *w, const struct value *v)
{
    key_open(w, "value", '{');
    switch (v->type) {
    case VALUE_STRING:
        key_str(w, "stringValue", v->string);
        break;
    case VALUE_BOOL:
        key_bool(w, "boolValue", v->boolean);
        break;
    case VALUE_INT:
        json_key(w, STR("intValue"));
        json_i64_str(w, v->integer);
        break;
    default:
        json_key(w, STR("doubleValue"));
        json_double(w, v->real);
        break;
    }
    json_close(w, '}');
}

static void counts_json(struct json_writer *w, const struct breakdown_counts *n)
{
    key_u64_str(w, "found", n->found);
    key_u64_str(w, "all", n->all);
}

static void field_json(struct json_writer *w, const struct breakdown_field *f)
{
    json_open(w, '{');
    key_str(w, "scope",
            f->field == FIELD_SPAN_ATTR       ? STR("span")
            : f->field == FIELD_RESOURCE_ATTR ? STR("resource")
                                              : STR("intrinsic"));
    key_str(w, "key",
            f->field == FIELD_NAME     ? STR("name")
            : f->field == FIELD_KIND   ? STR("kind")
            : f->field == FIELD_STATUS ? STR("status")
                                       : f->key);
    key_bool(w, "asked", f->is_asked);
    counts_json(w, &f->n);
    json_key(w, STR("difference"));
    json_double(w, f->difference);
    key_u64_str(w, "different", f->different);
    key_bool(w, "more", f->has_more);
    key_open(w, "values", '[');
    for (size_t i = 0; i < f->n_values; i++) {
        const struct breakdown_value *v = &f->values[i];
        json_open(w, '{');
        value_json(w, &v->value);
        counts_json(w, &v->n);
        json_key(w, STR("difference"));
        json_double(w, v->difference);
        json_close(w, '}');
    }
    json_close(w, ']');
    json_close(w, '}');
}

static void breakdown_answer(struct web_request *q, const struct breakdown_result *r, size_t limit)
{
    struct buf out = web_answer();
    struct json_writer w = json_writer(&out);
    size_t n = r->n < limit ? r->n : limit;
    json_open(&w, '{');
    key_open(&w, "spans", '{');
    counts_json(&w, &r->spans);
    json_close(&w, '}');
    key_open(&w, "counted", '{');
    counts_json(&w, &r->counted);
    json_close(&w, '}');
    key_bool(&w, "wholeTraces", r->by_traces);
    key_open(&w, "fields", '[');
    for (size_t i = 0; i < n; i++)
        field_json(&w, &r->fields[i]);
    json_close(&w, ']');
    key_bool(&w, "more", r->is_cut || n < r->n);
    api_scanned(&w, r->start_min_ns, r->start_max_ns, &r->cost, 0, r->elapsed_ns);
    json_close(&w, '}');
    web_reply_json(q, 200, &out);
}

/* The time asked for, no longer than what there is: parts of it stand for all of it. */
static bool range_of(struct web_request *q, struct breakdown *b)
{
    uint64_t now_ns = clock_realtime_ns();
    uint64_t hour_ago_ns = now_ns > 3600 * NS_PER_S ? now_ns - 3600 * NS_PER_S : 0;
    struct store_stats s;
    if (!web_param_u64(q, "start", 0, UINT64_MAX, hour_ago_ns, &b->start_min_ns) ||
        !web_param_u64(q, "end", 0, UINT64_MAX, 0, &b->start_max_ns))
        return false;
    if (b->start_max_ns && b->start_max_ns < b->start_min_ns) {
        web_fail_at(q, 400, "end", 0, "the end lies before the start");
        return false;
    }
    store_stats(q->web->store, &s);
    if (b->start_min_ns < s.start_min_ns)
        b->start_min_ns = s.start_min_ns;
    if (!b->start_max_ns || b->start_max_ns > s.start_max_ns)
        b->start_max_ns = s.start_max_ns;
    if (b->start_max_ns < b->start_min_ns)
        b->start_max_ns = b->start_min_ns; /* nothing is there */
    return true;
}

void api_breakdown(struct web_request *q)
{
    struct breakdown breakdown = {.timeout_ns = q->web->query_timeout_ns};
    struct conditions conditions = {.arena = q->arena};
    struct breakdown_result result;
    struct traceql *query = NULL;
    struct error_detail detail;
    uint64_t values, limit;
    if (!range_of(q, &breakdown) || !api_conditions(q, &conditions) ||
        !web_param_u64(q, "values", 1, VALUES_MAX, VALUES_DEFAULT, &values) ||
        !web_param_u64(q, "fields", 1, BREAKDOWN_KEYS_MAX, FIELDS_DEFAULT, &limit))
        return;
    struct str text = web_param(q, "q");
    if (text.ptr && traceql_parse(text, &query, &detail)) {
        web_fail_at(q, 400, "q", detail.position, detail.message);
        return;
    }
    if (query && query->metric) {
        traceql_free(query);
        web_fail_at(q, 400, "q", text.len,
                    "this query gives series; expected one that finds spans");
        return;
    }
    breakdown.query = query;
    breakdown.where = conditions_all(&conditions);
    breakdown.values_max = (size_t)values;
    struct store_view *view = web_view(q);
    int err = view ? breakdown_run(view, &breakdown, q->arena, &result, &detail)
                   : error_set(&detail, ERR_NOMEM, 0, "out of memory");
    if (err)
        web_fail_err(q, err, &detail);
    else
        breakdown_answer(q, &result, (size_t)limit);
    traceql_free(query);
}
