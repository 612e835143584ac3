/* The JSON that Jaeger's query API answers and its UI downloads: {"data":[{"spans":[..],"processes":{..}}]}.
 * A trace's processes stand behind its spans: where these begin is remembered until those were read.
 * Source: jaegertracing/jaeger, model/json/model.go. */
#include "base/base64.h"
#include "base/json.h"
#include "wire/jaeger.h"
#include "wire/jaeger_tag.h"

enum { PROCESSES_MAX = 4096 };

struct process {
    struct str id;
    const struct resource *resource;
};

struct decoder {
    struct collect c;
    struct arena *arena;
    struct buf processes; /* of the trace at hand */
};

static bool is(const struct json_reader *r, const char *key)
{
    return str_eq(r->text, str_from(key));
}

static struct str text(struct json_reader *r)
{
    enum json_type type = json_next(r);
    if (type == JSON_STRING)
        return r->text;
    if (type != JSON_NULL)
        json_fail(r, "a string");
    return STR("");
}

static int64_t integer(struct json_reader *r, const char *what)
{
    int64_t n = 0;
    if (json_next(r) != JSON_NULL && !json_to_i64(r, &n))
        json_fail(r, what);
    return n;
}

/* Opens a list; false when it is null or no list. */
static bool list(struct json_reader *r)
{
    enum json_type type = json_next(r);
    if (type != JSON_ARRAY && type != JSON_NULL)
        json_fail(r, "a list");
    return type == JSON_ARRAY;
}

static bool item(struct json_reader *r)
{
    enum json_type type = json_next(r);
    if (type != JSON_OBJECT && type != JSON_ARRAY_END)
        json_fail(r, "an object");
    return type == JSON_OBJECT;
}

/* ---- tags ---- */

/* A value as it stands in JSON; `type` may say that a text is bytes. */
static void value_of(struct decoder *d, struct json_reader *r, struct value *ret)
{
    *ret = (struct value){.type = VALUE_STRING, .string = STR("")};
    switch (json_next(r)) {
    case JSON_STRING:
        ret->string = collect_text(&d->c, r->text);
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        *ret = (struct value){.type = VALUE_BOOL, .boolean = r->type == JSON_TRUE};
        break;
    case JSON_NUMBER:
        if (!memchr(r->text.ptr, '.', r->text.len) && json_to_i64(r, &ret->integer))
            ret->type = VALUE_INT;
        else if (json_to_double(r, &ret->real))
            ret->type = VALUE_DOUBLE;
        break;
    case JSON_NULL:
        break;
    default:
        json_fail(r, "a string, a number, true or false");
    }
}

static void value_retype(struct decoder *d, struct str type, struct value *v)
{
    size_t n;
    if (v->type == VALUE_INT && str_eq(type, STR("float64"))) {
        *v = (struct value){.type = VALUE_DOUBLE, .real = (double)v->integer};
    } else if (v->type == VALUE_STRING && str_eq(type, STR("int64"))) {
        int64_t integer_value;
        if (str_to_i64(v->string, &integer_value))
            *v = (struct value){.type = VALUE_INT, .integer = integer_value};
    } else if (v->type == VALUE_STRING && str_eq(type, STR("binary"))) {
        uint8_t *bytes = arena_alloc(d->arena, BASE64_BYTES_MAX(v->string.len) + 1);
        if (!bytes)
            d->c.err = ERR_NOMEM;
        else if (base64_get(bytes, v->string, &n))
            *v = (struct value){.type = VALUE_BYTES, .bytes = {(const char *)bytes, n}};
    }
}

static void tags(struct decoder *d, struct json_reader *r, struct jaeger_told *t)
{
    if (!list(r))
        return;
    while (!d->c.err && item(r)) {
        struct attr a = {.key = STR(""), .value = {.type = VALUE_STRING, .string = STR("")}};
        struct str type = STR("");
        while (json_next(r) == JSON_KEY) {
            if (is(r, "key"))
                a.key = collect_text(&d->c, text(r));
            else if (is(r, "type"))
                type = text(r);
            else if (is(r, "value"))
                value_of(d, r, &a.value);
            else
                json_skip(r);
        }
        value_retype(d, type, &a.value);
        if (!t || !jaeger_tag_take(&d->c, t, &a))
            collect_attr(&d->c, a.key, &a.value);
    }
}

/* ---- spans ---- */

static void trace_id_of(struct decoder *d, struct json_reader *r, struct trace_id *ret)
{
    if (!trace_id_parse(text(r), ret))
        collect_reject(&d->c, "a trace id is not 1 to 32 hexadecimal digits");
}

static void span_id_of(struct decoder *d, struct json_reader *r, struct span_id *ret)
{
    struct str hex = text(r);
    if (hex.len && !span_id_parse(hex, ret))
        collect_reject(&d->c, "a span id is not 1 to 16 hexadecimal digits");
}

static uint64_t time_of(struct decoder *d, int64_t us)
{
    if (us >= 0)
        return collect_us(&d->c, (uint64_t)us);
    collect_reject(&d->c, "a time before 1970");
    return 0;
}

static void logs(struct decoder *d, struct json_reader *r)
{
    if (!list(r))
        return;
    while (!d->c.err && item(r)) {
        struct event event = {.name = STR("")};
        size_t mark = collect_mark(&d->c);
        while (json_next(r) == JSON_KEY) {
            if (is(r, "timestamp"))
                event.time_ns = time_of(d, integer(r, "microseconds"));
            else if (is(r, "fields"))
                tags(d, r, NULL);
            else
                json_skip(r);
        }
        struct attrs fields = collect_take_attrs(&d->c, mark);
        for (uint32_t i = 0; i < fields.n; i++) {
            const struct attr *a = &fields.items[i];
            if (!event.name.len && str_eq(a->key, STR("event")) && a->value.type == VALUE_STRING) {
                event.name = a->value.string;
                struct attr *items = (struct attr *)(uintptr_t)fields.items; /* our own */
                memmove(&items[i], &items[i + 1], (fields.n - i - 1) * sizeof *items);
                fields.n--;
                break;
            }
        }
        event.attrs = fields;
        collect_event(&d->c, &event);
    }
}

static void reference(struct decoder *d, struct json_reader *r, struct span *s)
{
    struct link link = {.trace_state = STR("")};
    bool is_child = true;
    while (json_next(r) == JSON_KEY) {
        if (is(r, "refType"))
            is_child = str_eq(text(r), STR("CHILD_OF"));
        else if (is(r, "traceID"))
            trace_id_of(d, r, &link.trace_id);
        else if (is(r, "spanID"))
            span_id_of(d, r, &link.span_id);
        else
            json_skip(r);
    }
    if (is_child && !trace_id_cmp(&link.trace_id, &s->trace_id) && span_id_is_zero(&s->parent_id)) {
        s->parent_id = link.span_id;
        return;
    }
    size_t mark = collect_mark(&d->c);
    collect_attr_str(&d->c, STR("opentracing.ref_type"),
                     is_child ? STR("child_of") : STR("follows_from"));
    link.attrs = collect_take_attrs(&d->c, mark);
    collect_link(&d->c, &link);
}

static const struct resource *resource_of(const struct decoder *d, struct str id)
{
    const struct process *p = (const void *)d->processes.ptr;
    for (size_t i = 0; i < d->processes.len / sizeof *p; i++)
        if (str_eq(p[i].id, id))
            return p[i].resource;
    return NULL;
}

static void span(struct decoder *d, struct json_reader *r)
{
    struct jaeger_told t = {.span = {.name = STR("")}};
    struct str process = STR("");
    int64_t start_us = 0, duration_us = 0;
    struct json_reader references = {0};
    while (!d->c.err && json_next(r) == JSON_KEY) {
        if (is(r, "traceID"))
            trace_id_of(d, r, &t.span.trace_id);
        else if (is(r, "spanID"))
            span_id_of(d, r, &t.span.span_id);
        else if (is(r, "parentSpanID"))
            span_id_of(d, r, &t.span.parent_id);
        else if (is(r, "operationName"))
            t.span.name = collect_text(&d->c, text(r));
        else if (is(r, "startTime"))
            start_us = integer(r, "microseconds");
        else if (is(r, "duration"))
            duration_us = integer(r, "microseconds");
        else if (is(r, "flags"))
            t.span.flags = (uint32_t)integer(r, "a number") & 0xff;
        else if (is(r, "processID"))
            process = text(r);
        else if (is(r, "tags"))
            tags(d, r, &t);
        else if (is(r, "logs"))
            logs(d, r);
        else if (is(r, "references")) {
            references = *r; /* read again when the trace id is known */
            json_skip(r);
        } else
            json_skip(r);
    }
    if (references.at && !r->err && list(&references))
        while (!d->c.err && item(&references))
            reference(d, &references, &t.span);
    if (r->err || d->c.err)
        return;
    t.span.start_ns = time_of(d, start_us);
    t.span.end_ns = t.span.start_ns;
    if (start_us >= 0 && duration_us > 0 && duration_us <= INT64_MAX - start_us)
        t.span.end_ns = time_of(d, start_us + duration_us);
    t.span.resource = resource_of(d, process);
    t.span.scope = t.scope;
    collect_span(&d->c, &t.span);
}

/* ---- traces ---- */

static void processes(struct decoder *d, struct json_reader *r)
{
    if (json_next(r) != JSON_OBJECT) {
        json_fail(r, "an object of processes");
        return;
    }
    while (!d->c.err && json_next(r) == JSON_KEY) {
        struct process p = {.id = r->text};
        struct resource *resource = arena_zalloc(d->arena, sizeof *resource);
        struct str service = STR_NONE;
        size_t mark = collect_mark(&d->c);
        if (!resource || d->processes.len >= PROCESSES_MAX * sizeof p) {
            d->c.err = ERR_NOMEM;
            return;
        }
        if (json_next(r) != JSON_OBJECT) {
            json_fail(r, "a process");
            return;
        }
        while (json_next(r) == JSON_KEY) {
            if (is(r, "serviceName"))
                service = collect_text(&d->c, text(r));
            else if (is(r, "tags"))
                tags(d, r, NULL);
            else
                json_skip(r);
        }
        if (service.len)
            collect_attr_str(&d->c, STR("service.name"), service);
        resource->attrs = collect_take_attrs(&d->c, mark);
        resource_set_service_name(resource);
        p.resource = resource;
        buf_put(&d->processes, &p, sizeof p);
    }
    collect_drop(&d->c);
}

static void trace(struct decoder *d, struct json_reader *r)
{
    struct json_reader spans = {0};
    d->processes.len = 0;
    while (!d->c.err && json_next(r) == JSON_KEY) {
        if (is(r, "processes"))
            processes(d, r);
        else if (is(r, "spans")) {
            spans = *r;
            json_skip(r);
        } else
            json_skip(r);
    }
    if (spans.at && !r->err && list(&spans))
        while (!d->c.err && item(&spans))
            span(d, &spans);
    if (spans.err)
        *r = spans; /* the error, with its place */
}

int jaeger_json_decode(struct str body, struct arena *arena, struct span_batch *ret_batch,
                       struct error_detail *ret_detail)
{
    struct decoder d = {.arena = arena};
    struct json_reader r;
    collect_init(&d.c, arena);
    json_reader_init(&r, body, arena, ret_detail);
    if (json_next(&r) != JSON_OBJECT)
        json_fail(&r, "an object with \"data\"");
    while (!r.err && !d.c.err && json_next(&r) == JSON_KEY) {
        if (!is(&r, "data"))
            json_skip(&r);
        else if (list(&r))
            while (!d.c.err && item(&r))
                trace(&d, &r);
    }
    int err = r.err ? r.err : buf_ok(&d.processes) ? 0 : ERR_NOMEM;
    if (!err)
        err = collect_batch(&d.c, ret_batch);
    else
        collect_done(&d.c);
    buf_done(&d.processes);
    return err;
}
