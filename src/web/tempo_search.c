/* Tempo's search: traces, with some of the spans that matched, by TraceQL or by tags.
 *
 * A span in the answer has as attributes what the query looks at: the fields of its filters, and those of
 * select(). The columns of Grafana's table are made of them. */
#include "web/tempo.h"

#include "base/clock.h"
#include "wire/otlp_json.h"
#include "wire/value_json.h"

#include <stdio.h>

enum {
    LIMIT_DEFAULT = 20,
    LIMIT_MAX = 1000,
    SPANS_DEFAULT = 3, /* in a spanset */
    SPANS_MAX = 100,
};

/* ---- values ---- */

/* As Go prints durations, but in one unit. */
static struct str duration_text(struct web_request *q, int64_t ns)
{
    static const struct {
        int64_t ns;
        const char *unit;
    } units[] = {{NS_PER_S, "s"}, {NS_PER_MS, "ms"}, {NS_PER_US, "us"}, {1, "ns"}};
    size_t i = 0;
    while (units[i].ns > 1 && ns < units[i].ns)
        i++;
    return str_from(
        arena_printf(q->arena, "%.10g%s", (double)ns / (double)units[i].ns, units[i].unit));
}

bool tempo_value(struct web_request *q, const struct traceql_expr *field, const struct value *value,
                 struct value *ret, const char **ret_type)
{
    static const char *const statuses[] = {"unset", "ok", "error"};
    const char *type = "string";
    *ret = *value;
    if (value->type == VALUE_INT && field->type == TRACEQL_STATUS) {
        type = "keyword";
        ret->type = VALUE_STRING;
        ret->string =
            str_from(statuses[value->integer >= 0 && value->integer <= 2 ? value->integer : 0]);
    } else if (value->type == VALUE_INT && field->type == TRACEQL_KIND) {
        const char *word = span_kind_tag((unsigned)value->integer);
        type = "keyword";
        ret->type = VALUE_STRING;
        ret->string = str_from(*word ? word : "unspecified");
    } else if (value->type == VALUE_INT && field->type == TRACEQL_DURATION) {
        type = "duration";
        ret->string = duration_text(q, value->integer);
        ret->type = ret->string.ptr ? VALUE_STRING : VALUE_NONE;
    } else if (value->type == VALUE_INT) {
        type = "int";
    } else if (value->type == VALUE_DOUBLE) {
        type = "float";
    } else if (value->type == VALUE_BOOL) {
        type = "bool";
    }
    if (ret_type)
        *ret_type = type;
    return ret->type != VALUE_NONE;
}

/* ---- which attributes are shown ---- */

static struct str field_key(struct web_request *q, const struct traceql_expr *field)
{
    if (field->key.len)
        return field->key;
    struct buf text = BUF_INIT;
    traceql_print_field(field, &text);
    struct str key = arena_str(q->arena, buf_as_str(&text));
    buf_done(&text);
    return key;
}

/* What the answer says anyway. */
static bool is_said(const struct traceql_expr *field)
{
    switch (field->field) {
    case TRACEQL_NAME:
    case TRACEQL_SPAN_DURATION:
    case TRACEQL_SPAN_ID:
    case TRACEQL_IS_ROOT:
    case TRACEQL_TRACE_ID:
    case TRACEQL_TRACE_DURATION:
    case TRACEQL_ROOT_NAME:
    case TRACEQL_ROOT_SERVICE:
        return !field->of_parent;
    default:
        return false;
    }
}

static void shown_init(struct web_request *q, const struct traceql *query, struct tempo_shown *ret)
{
    struct traceql_shown all;
    traceql_shown(query, true, &all);
    for (size_t i = 0; i < all.n; i++) {
        struct str key = field_key(q, all.fields[i]);
        if (is_said(all.fields[i]) || !key.ptr)
            continue;
        ret->keys[ret->n] = key;
        ret->fields[ret->n++] = all.fields[i];
    }
}

/* ---- the answer ---- */

bool tempo_shown_value(struct web_request *q, const struct tempo_shown *shown, size_t i,
                       const struct span *span, const struct traceql_trace *trace,
                       struct traceql_hex *hex, struct value *ret)
{
    struct value value;
    traceql_value(shown->fields[i], span, trace, hex, &value);
    return tempo_value(q, shown->fields[i], &value, ret, NULL);
}

bool tempo_label(struct web_request *q, const struct traceql_label *label, struct str *ret_key,
                 struct value *ret)
{
    const struct traceql_expr *field = label->by ? label->by : label->scalar->field;
    struct buf key = BUF_INIT;
    bool is_named = traceql_print_label(label, &key);
    *ret_key = is_named ? arena_str(q->arena, buf_as_str(&key)) : STR_NONE;
    buf_done(&key);
    *ret = label->value;
    if (!ret_key->ptr)
        return false;
    return field ? tempo_value(q, field, &label->value, ret, NULL) : ret->type != VALUE_NONE;
}

static void span_json(struct web_request *q, struct json_writer *w, const struct span *span,
                      const struct traceql_trace *trace, const struct tempo_shown *shown)
{
    json_open(w, '{');
    json_key(w, STR("spanID"));
    json_hex(w, span->span_id.bytes, SPAN_ID_SIZE);
    json_key(w, STR("name"));
    json_str(w, span->name);
    json_key(w, STR("startTimeUnixNano"));
    json_u64_str(w, span->start_ns);
    json_key(w, STR("durationNanos"));
    json_u64_str(w, span_duration_ns(span));
    json_key(w, STR("attributes"));
    json_open(w, '[');
    for (size_t i = 0; i < shown->n; i++) {
        struct traceql_hex hex;
        struct value value;
        if (tempo_shown_value(q, shown, i, span, trace, &hex, &value))
            otlp_json_encode_attr(shown->keys[i], &value, w);
    }
    json_close(w, ']');
    json_close(w, '}');
}

static void spanset_json(struct web_request *q, struct json_writer *w,
                         const struct search_spans *spans, const struct traceql_spans *set,
                         const struct tempo_shown *shown, uint64_t spans_max)
{
    json_open(w, '{');
    json_key(w, STR("spans"));
    json_open(w, '[');
    for (size_t i = 0, n = 0; i < spans->batch.n && n < spans_max; i++) {
        if (!set->marks[i])
            continue;
        n++;
        span_json(q, w, &spans->batch.spans[i], &spans->trace, shown);
    }
    json_close(w, ']');
    json_key(w, STR("matched"));
    json_u64(w, set->n);
    if (set->n_labels) {
        json_key(w, STR("attributes"));
        json_open(w, '[');
        for (size_t i = 0; i < set->n_labels; i++) {
            struct str key;
            struct value value;
            if (tempo_label(q, &set->labels[i], &key, &value))
                otlp_json_encode_attr(key, &value, w);
        }
        json_close(w, ']');
    }
    json_close(w, '}');
}

static void services_json(struct json_writer *w, const struct trace_summary *s)
{
    json_key(w, STR("serviceStats"));
    json_open(w, '{');
    for (uint32_t i = 0; i < s->n_services; i++) {
        json_key(w, s->services[i].name);
        json_open(w, '{');
        json_key(w, STR("spanCount"));
        json_u64(w, s->services[i].span_count);
        if (s->services[i].error_count) {
            json_key(w, STR("errorCount"));
            json_u64(w, s->services[i].error_count);
        }
        json_close(w, '}');
    }
    json_close(w, '}');
}

static void trace_json(struct web_request *q, struct json_writer *w, const struct trace_summary *s,
                       const struct search_spans *spans, const struct tempo_shown *shown,
                       uint64_t spans_max)
{
    json_open(w, '{');
    json_key(w, STR("traceID"));
    json_hex(w, s->id.bytes, TRACE_ID_SIZE);
    json_key(w, STR("rootServiceName"));
    json_str(w, s->has_root ? s->root_service : STR(TEMPO_NO_ROOT));
    json_key(w, STR("rootTraceName"));
    json_str(w, s->has_root ? s->root_name : STR(""));
    json_key(w, STR("startTimeUnixNano"));
    json_u64_str(w, s->start_ns);
    json_key(w, STR("durationMs"));
    json_u64(w, s->end_ns > s->start_ns ? (s->end_ns - s->start_ns) / NS_PER_MS : 0);
    if (spans->n_sets) {
        json_key(w, STR("spanSet")); /* what older Grafana reads */
        spanset_json(q, w, spans, &spans->sets[0], shown, spans_max);
    }
    json_key(w, STR("spanSets"));
    json_open(w, '[');
    for (size_t i = 0; i < spans->n_sets; i++)
        spanset_json(q, w, spans, &spans->sets[i], shown, spans_max);
    json_close(w, ']');
    services_json(w, s);
    json_close(w, '}');
}

void tempo_cost_json(struct json_writer *w, const struct scan_cost *cost, uint64_t traces_read)
{
    json_key(w, STR("metrics"));
    json_open(w, '{');
    json_key(w, STR("inspectedTraces"));
    json_u64(w, traces_read);
    json_key(w, STR("inspectedBytes"));
    json_u64_str(w, cost->bytes_read);
    json_key(w, STR("inspectedSpans"));
    json_u64_str(w, cost->rows_read);
    json_key(w, STR("totalBlocks"));
    json_u64(w, cost->parts);
    json_key(w, STR("completedJobs"));
    json_u64(w, 1);
    json_key(w, STR("totalJobs"));
    json_u64(w, 1);
    json_close(w, '}');
}

static int search_answer(struct web_request *q, struct store_view *view,
                         const struct tempo_searched *s, const struct search_result *result,
                         struct buf *out)
{
    struct json_writer w = json_writer(out);
    struct arena scratch = {0}; /* of one trace */
    int err = 0;
    json_open(&w, '{');
    json_key(&w, STR("traces"));
    json_open(&w, '[');
    for (size_t i = 0; i < result->n && !err && buf_ok(out); i++) {
        struct search_spans spans;
        const struct trace_summary *summary = &result->traces[i].summary;
        arena_reset(&scratch);
        if (clock_monotonic_ns() > q->arrived_ns + q->web->query_timeout_ns)
            err = ERR_TIMEOUT;
        else
            err = search_spans(view, &s->search, summary, &scratch, &spans);
        if (!err)
            trace_json(q, &w, summary, &spans, &s->shown, s->spans_max);
    }
    json_close(&w, ']');
    tempo_cost_json(&w, &result->cost, result->traces_read);
    json_close(&w, '}');
    arena_done(&scratch);
    return err;
}

/* ---- the question ---- */

/* One of `key=value key="a \"quoted\" value"`; 0 at the end, -1 when it is none. */
static int logfmt_next(struct web_request *q, struct str *text, struct str *ret_key,
                       struct str *ret_value)
{
    *text = str_trim(*text);
    if (!text->len)
        return 0;
    size_t n = 0;
    while (n < text->len && text->ptr[n] != '=' && text->ptr[n] != ' ')
        n++;
    if (!n || n == text->len || text->ptr[n] != '=')
        return -1;
    *ret_key = (struct str){text->ptr, n};
    *text = str_skip(*text, n + 1);
    bool is_quoted = text->len && text->ptr[0] == '"';
    char *value = arena_alloc(q->arena, text->len + 1);
    size_t len = 0, i = is_quoted;
    for (; value && i < text->len && text->ptr[i] != (is_quoted ? '"' : ' '); i++) {
        if (is_quoted && text->ptr[i] == '\\' && i + 1 < text->len)
            i++;
        value[len++] = text->ptr[i];
    }
    if (!value || (is_quoted && i == text->len))
        return -1;
    *text = str_skip(*text, i + is_quoted);
    *ret_value = (struct str){value, len};
    return 1;
}

static void and_quoted(struct buf *query, const char *field, struct str value)
{
    buf_printf(query, "%s%s = \"", query->len ? " && " : "", field);
    for (size_t i = 0; i < value.len; i++) {
        if (value.ptr[i] == '"' || value.ptr[i] == '\\')
            buf_byte(query, '\\');
        buf_byte(query, value.ptr[i]);
    }
    buf_byte(query, '"');
}

/* Tags of a span, and those that are not: Tempo's words for the root. */
static bool tags_read(struct web_request *q, struct conditions *c, struct buf *query)
{
    struct str text = web_param(q, "tags"), key, value;
    int got;
    while ((got = logfmt_next(q, &text, &key, &value)) == 1) {
        if (str_eq(key, STR("root.service.name")))
            and_quoted(query, "rootServiceName", value);
        else if (str_eq(key, STR("root.name")))
            and_quoted(query, "rootName", value);
        else if (str_eq(key, STR("name")))
            conditions_string(c, FIELD_NAME, value);
        else if (str_eq(key, STR("status.code")))
            conditions_tag(c, STR("otel.status_code"), value);
        else
            conditions_tag(c, key, value);
    }
    if (got == 0)
        return true;
    web_fail_at(q, 400, "tags", 0, "expected key=value key=\"a value\"");
    return false;
}

static bool durations_read(struct web_request *q, struct buf *query)
{
    static const char *const names[] = {"minDuration", "maxDuration"};
    for (int i = 0; i < 2; i++) {
        uint64_t ns;
        bool given;
        if (!web_param_duration(q, names[i], &ns, &given))
            return false;
        if (given && ns)
            buf_printf(query, "%straceDuration %s %lluns", query->len ? " && " : "",
                       i ? "<=" : ">=", (unsigned long long)ns);
    }
    return true;
}

int tempo_query_parse(struct str text, struct traceql **ret, struct error_detail *ret_detail)
{
    struct error_detail detail = {0};
    int err = traceql_parse(text, ret, &detail);
    return err ? error_set(ret_detail, err == ERR_NOMEM ? err : ERR_INVALID, detail.position,
                           "invalid TraceQL query: %s, at byte %zu", detail.message,
                           detail.position)
               : 0;
}

static bool query_parse(struct web_request *q, struct str text, struct search *search,
                        struct traceql **ret)
{
    struct error_detail detail = {0};
    int err = text.len ? tempo_query_parse(text, ret, &detail) : 0;
    if (err) {
        web_fail_err(q, err, &detail);
        return false;
    }
    search->query = *ret;
    return true;
}

static bool conditions_read(struct web_request *q, struct tempo_searched *s)
{
    struct buf query = BUF_INIT;
    buf_cstr(&query, "");
    bool good = tags_read(q, &s->conditions, &query) && durations_read(q, &query);
    if (good) {
        s->search.where = conditions_all(&s->conditions);
        const char *whole = query.len
                                ? arena_printf(q->arena, "{ %.*s }", STR_ARG(buf_as_str(&query)))
                                : "";
        good = buf_ok(&query) && whole && !s->conditions.failed;
        if (!good)
            web_fail_err(q, ERR_NOMEM, NULL);
        good = good && query_parse(q, str_from(whole), &s->search, &s->query);
    }
    buf_done(&query);
    return good;
}

bool tempo_search_params(struct web_request *q, struct tempo_searched *s)
{
    uint64_t now_ns = clock_realtime_ns(), limit;
    *s = (struct tempo_searched){.search = {.timeout_ns = q->web->query_timeout_ns},
                                 .conditions = {.arena = q->arena}};
    if (!tempo_range(q, now_ns > 3600 * NS_PER_S ? now_ns - 3600 * NS_PER_S : 0, &s->search) ||
        !web_param_u64(q, "limit", 1, LIMIT_MAX, LIMIT_DEFAULT, &limit) ||
        !web_param_u64(q, "spss", 0, SPANS_MAX, SPANS_DEFAULT, &s->spans_max))
        return false;
    if (!s->spans_max)
        s->spans_max = SPANS_MAX;
    s->search.limit = (size_t)limit;
    struct str text = web_param(q, "q");
    if (!text.ptr) /* what is made of tags and durations shows nothing of itself */
        return conditions_read(q, s);
    if (web_param(q, "tags").ptr || web_param(q, "minDuration").ptr ||
        web_param(q, "maxDuration").ptr) {
        web_fail(q, 400,
                 "invalid request: there is a TraceQL query, so its filters take the "
                 "place of tags, minDuration and maxDuration");
        return false;
    }
    if (!query_parse(q, text, &s->search, &s->query))
        return false;
    if (s->query)
        shown_init(q, s->query, &s->shown);
    return true;
}

void tempo_search(struct web_request *q)
{
    struct tempo_searched s;
    struct search_result result;
    struct error_detail detail = {0};
    if (!tempo_search_params(q, &s))
        return;
    if (q->rpc) {
        tempo_search_stream(q, &s);
        return;
    }
    struct store_view *view = web_view(q);
    struct buf out = web_answer();
    int err = view ? search_run(view, &s.search, q->arena, &result, &detail) : ERR_NOMEM;
    if (!err)
        err = search_answer(q, view, &s, &result, &out);
    traceql_free(s.query);
    if (err) {
        buf_done(&out);
        web_fail_err(q, err, &detail);
    } else {
        web_reply_json(q, 200, &out);
    }
}
