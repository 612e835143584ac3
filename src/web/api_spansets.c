/* Which spans of a trace a search found: in the sets that by() makes, with what select() asks for. */
#include "web/web_internal.h"

#include "wire/otlp_json.h"

/* As a query would have the value: an enumeration by its word, a time in nanoseconds. */
static struct value said_value(const struct traceql_expr *field, const struct value *value)
{
    static const char *const statuses[] = {"unset", "ok", "error"};
    bool is_status = field && field->type == TRACEQL_STATUS;
    bool is_kind = field && field->type == TRACEQL_KIND;
    if (value->type != VALUE_INT || (!is_status && !is_kind))
        return *value;
    const char *word = is_kind ? span_kind_tag((unsigned)value->integer)
                       : value->integer == 1 || value->integer == 2 ? statuses[value->integer]
                                                                    : statuses[0];
    return (struct value){.type = VALUE_STRING, .string = str_from(*word ? word : "unspecified")};
}

static void pair_json(struct json_writer *w, struct str key, const struct traceql_expr *field,
                      const struct value *value)
{
    struct value said = said_value(field, value);
    otlp_json_encode_attr(key, &said, w);
}

static void span_json(struct json_writer *w, const struct span *span,
                      const struct traceql_trace *trace, const struct traceql_shown *shown)
{
    json_open(w, '{');
    json_key(w, STR("spanId"));
    json_hex(w, span->span_id.bytes, SPAN_ID_SIZE);
    json_key(w, STR("service"));
    json_str(w, span->resource->service_name);
    json_key(w, STR("name"));
    json_str(w, span->name);
    json_key(w, STR("startUnixNano"));
    json_u64_str(w, span->start_ns);
    json_key(w, STR("durationNano"));
    json_u64_str(w, span_duration_ns(span));
    json_key(w, STR("values"));
    json_open(w, '[');
    for (size_t i = 0; i < shown->n; i++) {
        struct buf key = BUF_INIT;
        struct traceql_hex hex;
        struct value value;
        traceql_print_field(shown->fields[i], &key);
        traceql_value(shown->fields[i], span, trace, &hex, &value);
        pair_json(w, buf_as_str(&key), shown->fields[i], &value);
        buf_done(&key);
    }
    json_close(w, ']');
    json_close(w, '}');
}

static void set_json(struct json_writer *w, const struct search_spans *spans,
                     const struct traceql_spans *set, const struct traceql_shown *shown,
                     uint64_t spans_max)
{
    json_open(w, '{');
    json_key(w, STR("matched"));
    json_u64(w, set->n);
    json_key(w, STR("labels"));
    json_open(w, '[');
    for (size_t i = 0; i < set->n_labels; i++) {
        const struct traceql_label *label = &set->labels[i];
        struct buf key = BUF_INIT;
        if (traceql_print_label(label, &key))
            pair_json(w, buf_as_str(&key), label->by ? label->by : label->scalar->field,
                      &label->value);
        buf_done(&key);
    }
    json_close(w, ']');
    json_key(w, STR("spans"));
    json_open(w, '[');
    for (size_t i = 0, n = 0; i < spans->batch.n && n < spans_max; i++) {
        if (!set->marks[i])
            continue;
        n++;
        span_json(w, &spans->batch.spans[i], &spans->trace, shown);
    }
    json_close(w, ']');
    json_close(w, '}');
}

int api_spansets(struct json_writer *w, struct store_view *view, const struct search *search,
                 const struct trace_summary *summary, uint64_t spans_max, struct arena *scratch)
{
    struct traceql_shown shown = {.n = 0};
    struct search_spans spans;
    int err = search_spans(view, search, summary, scratch, &spans);
    if (err)
        return err;
    if (search->query)
        traceql_shown(search->query, false, &shown);
    json_key(w, STR("spanSets"));
    json_open(w, '[');
    for (size_t i = 0; i < spans.n_sets; i++)
        set_json(w, &spans, &spans.sets[i], &shown, spans_max);
    json_close(w, ']');
    return 0;
}

bool api_asks_for_spans(const struct traceql *query)
{
    struct traceql_shown shown;
    traceql_shown(query, false, &shown);
    bool yes = shown.n > 0;
    for (const struct traceql_stage *s = query->stages; s; s = s->next)
        yes |= s->type == TRACEQL_STAGE_BY;
    return yes;
}
