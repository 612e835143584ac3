/* What Grafana completes while a query is written: names of attributes, and values of one.
 *
 * Names of the attributes of spans and resources come from the store, which knows them without reading
 * spans. Everything else (values, names inside events, links and scopes, names under a query) is gathered
 * from the newest traces of the range, at most TRACES_MAX of them, and for no longer than a search may
 * take: more spans would hardly complete better. */
#include "web/items.h"
#include "web/tempo.h"

#include "base/clock.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    TRACES_MAX = 1000,
    TRACES_FOR_NAMES = 100, /* when spans are read only for the names in events, links and scopes */
    ITEMS_DEFAULT = 1000,   /* names of a scope, or values, in an answer: the first */
    ITEMS_MAX = 10000,      /* looked at */
};

/* ---- gathering from spans ---- */

typedef void gather_fn(void *arg, const struct span *span, const struct traceql_trace *trace);

/* Calls for each span that the search finds. That there was no time for all of it is no error. */
static int gather(struct web_request *q, struct store_view *view, const struct search *search,
                  gather_fn *fn, void *arg, struct error_detail *detail)
{
    struct search_result result;
    struct arena scratch = {0};
    int err = search_run(view, search, q->arena, &result, detail);
    for (size_t i = 0; !err && i < result.n; i++) {
        struct search_spans spans;
        arena_reset(&scratch);
        if (clock_monotonic_ns() > q->arrived_ns + q->web->query_timeout_ns)
            break;
        err = search_spans(view, search, &result.traces[i].summary, &scratch, &spans);
        for (size_t k = 0; !err && k < spans.batch.n; k++) {
            bool found = false;
            for (size_t s = 0; s < spans.n_sets && !found; s++)
                found = spans.sets[s].marks[k];
            if (found)
                fn(arg, &spans.batch.spans[k], &spans.trace);
        }
    }
    arena_done(&scratch);
    return err;
}

/* Grafana sends what has been written so far: what is no query for traces yet filters nothing. NULL when
 * there is none, or it is empty. */
static struct traceql *filter_of(struct web_request *q)
{
    struct traceql *query = NULL;
    struct str text = web_param(q, "q");
    struct error_detail detail;
    if (!text.ptr || traceql_parse(text, &query, &detail))
        return NULL;
    const struct traceql_stage *s = query->stages;
    bool is_empty = s && s->type == TRACEQL_STAGE_SPANSET && !s->next &&
                    s->spanset->op == TRACEQL_FILTER && !s->spanset->condition;
    if (query->metric || is_empty) {
        traceql_free(query);
        return NULL;
    }
    return query;
}

static bool params_read(struct web_request *q, struct search *search, uint64_t *ret_limit)
{
    *search = (struct search){.timeout_ns = q->web->query_timeout_ns, .limit = TRACES_MAX};
    if (!tempo_range(q, 0, search) ||
        !web_param_u64(q, "limit", 0, UINT64_MAX, ITEMS_DEFAULT, ret_limit))
        return false;
    if (!*ret_limit || *ret_limit > ITEMS_MAX)
        *ret_limit = ITEMS_MAX;
    return true;
}

/* ---- names ---- */

/* As the language has them. */
static const char *const intrinsics[] = {
    "duration",
    "event:name",
    "event:timeSinceStart",
    "instrumentation:name",
    "instrumentation:version",
    "kind",
    "link:spanID",
    "link:traceID",
    "name",
    "nestedSetLeft",
    "nestedSetParent",
    "nestedSetRight",
    "rootName",
    "rootServiceName",
    "span:childCount",
    "span:duration",
    "span:id",
    "span:kind",
    "span:name",
    "span:parentID",
    "span:status",
    "span:statusMessage",
    "status",
    "statusMessage",
    "trace:duration",
    "trace:id",
    "trace:rootName",
    "trace:rootService",
    "traceDuration",
};

enum { RESOURCE, SPAN, EVENT, LINK, INSTRUMENTATION, INTRINSIC, SCOPES };
static_assert((int)SCOPES == (int)TEMPO_SCOPES, "each has its name");
const char *const tempo_scopes[TEMPO_SCOPES] = {"resource",        "span",     "event", "link",
                                                "instrumentation", "intrinsic"};

struct names {
    struct items of[SCOPES];
    bool wanted[SCOPES];
};

static void names_add(struct names *names, int scope, const struct attrs *attrs)
{
    for (uint32_t i = 0; names->wanted[scope] && i < attrs->n; i++)
        items_add(&names->of[scope], tempo_scopes[scope], attrs->items[i].key);
}

static void names_of_parts(struct names *names, const struct span *span)
{
    for (uint32_t i = 0; i < span->n_events; i++)
        names_add(names, EVENT, &span->events[i].attrs);
    for (uint32_t i = 0; i < span->n_links; i++)
        names_add(names, LINK, &span->links[i].attrs);
    names_add(names, INSTRUMENTATION, &span->scope->attrs);
}

static void take_names_of_parts(void *arg, const struct span *span,
                                const struct traceql_trace *trace)
{
    (void)trace;
    names_of_parts(arg, span);
}

static void take_names(void *arg, const struct span *span, const struct traceql_trace *trace)
{
    (void)trace;
    names_add(arg, RESOURCE, &span->resource->attrs);
    names_add(arg, SPAN, &span->attrs);
    names_of_parts(arg, span);
}

static int names_gather(struct web_request *q, struct search *search, struct names *names,
                        struct error_detail *detail)
{
    struct traceql *query = filter_of(q);
    struct store_view *view = web_view(q);
    struct store_key *keys;
    size_t n = 0;
    search->query = query;
    int err = view ? 0 : ERR_NOMEM;
    if (!err && !query && (names->wanted[RESOURCE] || names->wanted[SPAN]))
        err = store_keys(view, search->start_min_ns, search->start_max_ns, 2 * ITEMS_MAX, q->arena,
                         &keys, &n);
    for (size_t i = 0; !err && i < n; i++) {
        int scope = keys[i].field == FIELD_RESOURCE_ATTR ? RESOURCE : SPAN;
        if (names->wanted[scope])
            items_add(&names->of[scope], tempo_scopes[scope], keys[i].name);
    }
    bool of_parts = names->wanted[EVENT] || names->wanted[LINK] || names->wanted[INSTRUMENTATION];
    if (!query)
        search->limit = TRACES_FOR_NAMES;
    if (!err && (query ? of_parts || names->wanted[RESOURCE] || names->wanted[SPAN] : of_parts))
        err = gather(q, view, search, query ? take_names : take_names_of_parts, names, detail);
    for (size_t i = 0; names->wanted[INTRINSIC] && i < sizeof intrinsics / sizeof *intrinsics; i++)
        items_add(&names->of[INTRINSIC], tempo_scopes[INTRINSIC], str_from(intrinsics[i]));
    for (int s = 0; s < SCOPES && !err; s++)
        err = names->of[s].failed ? ERR_NOMEM : 0;
    traceql_free(query);
    return err;
}

/* Tempo's first form is one list, in which the intrinsics stand only when they are asked for. */
static void names_sort(struct names *names, bool is_v2, uint64_t limit, struct items *flat)
{
    for (int s = 0; s < SCOPES; s++) {
        items_sort(&names->of[s], limit);
        for (size_t i = 0; !is_v2 && i < names->of[s].n; i++)
            items_add(flat, "", names->of[s].list[i].text);
    }
    items_sort(flat, limit);
}

static void texts_json(struct json_writer *w, const struct items *items)
{
    json_open(w, '[');
    for (size_t i = 0; i < items->n; i++)
        json_str(w, items->list[i].text);
    json_close(w, ']');
}

static void names_json(const struct names *names, bool is_v2, const struct items *flat,
                       struct buf *out)
{
    struct json_writer w = json_writer(out);
    json_open(&w, '{');
    json_key(&w, is_v2 ? STR("scopes") : STR("tagNames"));
    if (!is_v2) {
        texts_json(&w, flat);
        json_close(&w, '}');
        return;
    }
    json_open(&w, '[');
    for (int s = 0; s < SCOPES; s++) {
        if (!names->of[s].n)
            continue;
        json_open(&w, '{');
        json_key(&w, STR("name"));
        json_str(&w, str_from(tempo_scopes[s]));
        json_key(&w, STR("tags"));
        texts_json(&w, &names->of[s]);
        json_close(&w, '}');
    }
    json_close(&w, ']');
    json_close(&w, '}');
}

static void tags_reply(struct web_request *q, bool is_v2)
{
    struct search search;
    struct error_detail detail = {0};
    struct names *names = arena_zalloc(q->arena, sizeof *names);
    struct items flat;
    struct str scope = web_param(q, "scope");
    bool all = !scope.ptr || str_eq(scope, STR("none")) || str_eq(scope, STR("all")), known = all;
    uint64_t limit;
    if (!names) {
        web_fail_err(q, ERR_NOMEM, NULL);
        return;
    }
    if (!params_read(q, &search, &limit))
        return;
    for (int s = 0; s < SCOPES; s++) {
        items_init(&names->of[s], q->arena, ITEMS_MAX);
        bool named = str_eq(scope, str_from(tempo_scopes[s]));
        names->wanted[s] = named || (all && (is_v2 || s != INTRINSIC));
        known |= named;
    }
    items_init(&flat, q->arena, SCOPES * ITEMS_MAX);
    struct buf out = {.bytes_max = ANSWER_BYTES_MAX};
    int err = 0;
    if (!known)
        web_fail_at(q, 400, "scope", 0,
                    "expected none, resource, span, event, link, instrumentation or intrinsic");
    else if ((err = names_gather(q, &search, names, &detail)))
        web_fail_err(q, err, &detail);
    else {
        names_sort(names, is_v2, limit, &flat);
        if (q->rpc) {
            tempo_tags_stream(q, is_v2 ? names->of : &flat, is_v2);
            return;
        }
        names_json(names, is_v2, &flat, &out);
        web_reply_json(q, 200, &out);
    }
}

void tempo_tags(struct web_request *q)
{
    tags_reply(q, false);
}

void tempo_tags_v2(struct web_request *q)
{
    tags_reply(q, true);
}

/* ---- values ---- */

/* Whether `text` is one field and nothing else; then `*ret_query` owns it. */
static const struct traceql_expr *field_parse(const char *prefix, struct str name, bool is_quoted,
                                              struct traceql **ret_query)
{
    struct buf text = BUF_INIT;
    struct error_detail detail;
    buf_printf(&text, "{ } | select(%s", prefix);
    if (is_quoted)
        buf_byte(&text, '"');
    for (size_t i = 0; i < name.len; i++) {
        if (is_quoted && (name.ptr[i] == '"' || name.ptr[i] == '\\'))
            buf_byte(&text, '\\');
        buf_byte(&text, name.ptr[i]);
    }
    buf_cstr(&text, is_quoted ? "\")" : ")");
    struct traceql *query = NULL;
    int err = buf_ok(&text) ? traceql_parse(buf_as_str(&text), &query, &detail) : ERR_NOMEM;
    buf_done(&text);
    if (err)
        return NULL;
    const struct traceql_stage *select = query->stages ? query->stages->next : NULL;
    if (!select || select->type != TRACEQL_STAGE_SELECT || select->next || select->n_fields != 1 ||
        select->fields[0]->node != TRACEQL_FIELD) {
        traceql_free(query);
        return NULL;
    }
    *ret_query = query;
    return select->fields[0];
}

/* `resource.x`, `.x` or an intrinsic, as the language has it; names that would need quotes may come without.
 * In Tempo's first form also a bare name. */
static const struct traceql_expr *field_of(struct str tag, struct traceql **ret_query)
{
    static const char *const prefixes[] = {"resource.",        "span.", "event.", "link.",
                                           "instrumentation.", "."};
    const struct traceql_expr *field = field_parse("", tag, false, ret_query);
    for (size_t i = 0; !field && i < sizeof prefixes / sizeof *prefixes; i++) {
        struct str prefix = str_from(prefixes[i]);
        if (str_starts(tag, prefix) && tag.len > prefix.len)
            return field_parse(prefixes[i], str_skip(tag, prefix.len), true, ret_query);
    }
    return field ? field : field_parse(".", tag, true, ret_query);
}

struct values {
    struct web_request *q;
    const struct traceql_expr *field;
    struct items items;
};

static void value_take(struct values *v, const struct value *value)
{
    struct value said;
    const char *type;
    char number[32];
    if (value->type == VALUE_ARRAY) {
        for (size_t i = 0; i < value->array.n; i++)
            if (value->array.items[i].type != VALUE_ARRAY)
                value_take(v, &value->array.items[i]);
        return;
    }
    if (!tempo_value(v->q, v->field, value, &said, &type))
        return;
    if (said.type == VALUE_STRING) {
        items_add(&v->items, type, said.string);
    } else if (said.type == VALUE_BOOL) {
        items_add(&v->items, type, said.boolean ? STR("true") : STR("false"));
    } else if (said.type == VALUE_INT) {
        snprintf(number, sizeof number, "%lld", (long long)said.integer);
        items_add(&v->items, type, str_from(number));
    } else if (said.type == VALUE_DOUBLE) {
        struct buf text = BUF_INIT;
        struct json_writer w = json_writer(&text);
        json_double(&w, said.real);
        items_add(&v->items, type, buf_as_str(&text));
        buf_done(&text);
    }
}

static void attrs_take(struct values *v, const struct attrs *attrs)
{
    const struct attr *a = attrs_find(attrs, v->field->key);
    if (a)
        value_take(v, &a->value);
}

static void take_values(void *arg, const struct span *span, const struct traceql_trace *trace)
{
    struct values *v = arg;
    struct traceql_hex hex;
    struct value value;
    switch (v->field->field) { /* a span may have several */
    case TRACEQL_EVENT_NAME:
        for (uint32_t i = 0; i < span->n_events; i++)
            items_add(&v->items, "string", span->events[i].name);
        return;
    case TRACEQL_EVENT_ATTR:
        for (uint32_t i = 0; i < span->n_events; i++)
            attrs_take(v, &span->events[i].attrs);
        return;
    case TRACEQL_LINK_ATTR:
        for (uint32_t i = 0; i < span->n_links; i++)
            attrs_take(v, &span->links[i].attrs);
        return;
    default:
        traceql_value(v->field, span, trace, &hex, &value);
        value_take(v, &value);
    }
}

/* What has a fixed set of values, or one that nobody could choose from. */
static bool values_fixed(struct values *v)
{
    static const char *const statuses[] = {"error", "ok", "unset"};
    static const char *const kinds[] = {"client",   "consumer", "internal",
                                        "producer", "server",   "unspecified"};
    switch (v->field->field) {
    case TRACEQL_SPAN_STATUS:
        for (size_t i = 0; i < sizeof statuses / sizeof *statuses; i++)
            items_add(&v->items, "keyword", str_from(statuses[i]));
        return true;
    case TRACEQL_SPAN_KIND:
        for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
            items_add(&v->items, "keyword", str_from(kinds[i]));
        return true;
    case TRACEQL_SPAN_DURATION:
    case TRACEQL_TRACE_DURATION:
    case TRACEQL_EVENT_SINCE_START:
    case TRACEQL_SPAN_ID:
    case TRACEQL_PARENT_ID:
    case TRACEQL_TRACE_ID:
    case TRACEQL_LINK_TRACE_ID:
    case TRACEQL_LINK_SPAN_ID:
    case TRACEQL_IS_ROOT:
    case TRACEQL_CHILD_COUNT:
    case TRACEQL_NESTED_LEFT:
    case TRACEQL_NESTED_RIGHT:
    case TRACEQL_NESTED_PARENT:
        return true;
    default:
        return false;
    }
}

/* Names of services and spans are known without reading any, when nothing else is asked. */
static int values_known(struct store_view *view, struct values *v, bool *ret_done)
{
    bool of_service = (v->field->field == TRACEQL_RESOURCE_ATTR) &&
                      str_eq(v->field->key, STR("service.name"));
    struct store_operation *operations;
    size_t n;
    *ret_done = false;
    if (v->field->of_parent || (!of_service && v->field->field != TRACEQL_NAME))
        return 0;
    int err = store_operations(view, STR_NONE, v->q->arena, &operations, &n);
    for (size_t i = 0; !err && i < n; i++)
        items_add(&v->items, "string", of_service ? operations[i].service : operations[i].name);
    *ret_done = !err;
    return err;
}

/* Only spans that have it are worth reading. */
static const struct predicate *has_field(struct values *v, struct predicate *p)
{
    const struct traceql_expr *f = v->field;
    if (f->of_parent || (f->field != TRACEQL_SPAN_ATTR && f->field != TRACEQL_RESOURCE_ATTR &&
                         f->field != TRACEQL_ANY_ATTR))
        return NULL;
    *p = (struct predicate){
        .op = PREDICATE_EXISTS,
        .field = f->field == TRACEQL_SPAN_ATTR       ? FIELD_SPAN_ATTR
                 : f->field == TRACEQL_RESOURCE_ATTR ? FIELD_RESOURCE_ATTR
                                                     : FIELD_ANY_ATTR,
        .key = f->key,
    };
    return p;
}

static int values_gather(struct web_request *q, struct search *search, struct values *v,
                         struct error_detail *detail)
{
    struct predicate has;
    if (values_fixed(v))
        return 0;
    struct traceql *query = filter_of(q);
    struct store_view *view = web_view(q);
    bool done = false;
    int err = view ? 0 : ERR_NOMEM;
    if (!err && !query && !web_param(q, "start").ptr && !web_param(q, "end").ptr)
        err = values_known(view, v, &done);
    search->query = query;
    search->where = has_field(v, &has);
    if (!err && !done)
        err = gather(q, view, search, take_values, v, detail);
    if (!err && v->items.failed)
        err = ERR_NOMEM;
    traceql_free(query);
    return err;
}

static void values_json(struct items *items, bool is_v2, struct buf *out)
{
    struct json_writer w = json_writer(out);
    json_open(&w, '{');
    json_key(&w, STR("tagValues"));
    json_open(&w, '[');
    for (size_t i = 0; i < items->n; i++) {
        if (!is_v2) {
            json_str(&w, items->list[i].text);
            continue;
        }
        json_open(&w, '{');
        json_key(&w, STR("type"));
        json_str(&w, str_from(items->list[i].kind));
        json_key(&w, STR("value"));
        json_str(&w, items->list[i].text);
        json_close(&w, '}');
    }
    json_close(&w, ']');
    json_close(&w, '}');
}

/* What is not encoded once more stays as it is. */
static struct str decode_again(struct web_request *q, struct str tag)
{
    char *out = arena_alloc(q->arena, tag.len + 1);
    size_t n = 0;
    for (size_t i = 0; out && i < tag.len; i++) {
        uint8_t byte = (uint8_t)tag.ptr[i];
        if (byte == '%') {
            if (tag.len - i < 3 || !hex_get(&byte, (struct str){tag.ptr + i + 1, 2}, 1))
                return tag;
            i += 2;
        }
        out[n++] = (char)byte;
    }
    return out ? (struct str){out, n} : tag;
}

static void values_reply(struct web_request *q, bool is_v2)
{
    struct search search;
    struct error_detail detail = {0};
    struct traceql *owner = NULL;
    uint64_t limit;
    if (!params_read(q, &search, &limit))
        return;
    struct values v = {.q = q};
    /* Grafana encodes the tag twice in a path, and not at all elsewhere. */
    v.field = field_of(q->rpc ? q->params[0] : decode_again(q, q->params[0]), &owner);
    if (!v.field || !q->params[0].len) {
        traceql_free(owner);
        web_fail(q, 400, "the tag is neither an intrinsic nor an attribute such as resource.x, .x");
        return;
    }
    items_init(&v.items, q->arena, ITEMS_MAX);
    int err = values_gather(q, &search, &v, &detail);
    struct buf out = {.bytes_max = ANSWER_BYTES_MAX};
    if (err) {
        web_fail_err(q, err, &detail);
    } else {
        items_sort(&v.items, limit);
        if (q->rpc) {
            tempo_values_stream(q, &v.items, is_v2);
        } else {
            values_json(&v.items, is_v2, &out);
            web_reply_json(q, 200, &out);
        }
    }
    traceql_free(owner);
}

void tempo_values(struct web_request *q)
{
    values_reply(q, false);
}

void tempo_values_v2(struct web_request *q)
{
    values_reply(q, true);
}
