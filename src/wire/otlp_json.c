/* Decoding walks the document once. Keys come in any order, so a resource or scope has its place in
 * the arena before its object is read, and arrays, whose size is not known, grow on one stack: the
 * items of an array lie on top of it until its end moves them into the arena.
 *
 * Whoever reads a value consumes all of it, and errors stay in the reader: after the first, every
 * further read ends at once, so that only loops have to look. As in otlp.c, `reject` is trouble
 * with one span, an error of the reader is trouble with the body.
 *
 * A key that comes twice counts as often as JSON.parse lets it: the last one. null is "not there",
 * as in proto3's JSON. */
#include "wire/otlp_json.h"
#include "wire/rejected.h"

#include "base/base64.h"

#include <math.h>

struct decoder {
    struct json_reader r;
    struct arena *arena;
    struct buf stack; /* items of arrays that are not finished */
    struct buf spans; /* struct span */
    size_t n_rejected;
    struct rejected rejected;
    const char *rejected_reason, *reject;
};

/* ---- steps ---- */

/* A value that must be an object; false also for null. */
static bool object_begins(struct decoder *d)
{
    enum json_type type = json_next(&d->r);
    if (type != JSON_OBJECT && type != JSON_NULL)
        json_fail(&d->r, "an object");
    return type == JSON_OBJECT;
}

static bool array_begins(struct decoder *d)
{
    enum json_type type = json_next(&d->r);
    if (type != JSON_ARRAY && type != JSON_NULL)
        json_fail(&d->r, "an array");
    return type == JSON_ARRAY;
}

/* The next key of the object; false at its end. */
static bool key(struct decoder *d)
{
    return json_next(&d->r) == JSON_KEY;
}

/* The next item of the array, which must be an object and is open then; false at its end. */
static bool item_begins(struct decoder *d)
{
    enum json_type type = json_next(&d->r);
    if (type != JSON_OBJECT && type != JSON_ARRAY_END)
        json_fail(&d->r, "an object");
    return type == JSON_OBJECT;
}

/* Whether the key read last is this one, given in lowerCamelCase, in either spelling. */
static bool is(const struct decoder *d, const char *camel)
{
    const char *at = d->r.text.ptr, *end = at + d->r.text.len;
    for (; *camel; camel++, at++) {
        if (at == end)
            return false;
        if (*at == *camel)
            continue;
        if (*at != '_' || *camel < 'A' || *camel > 'Z' || ++at == end ||
            *at != *camel + ('a' - 'A'))
            return false;
    }
    return at == end;
}

static void skip(struct decoder *d)
{
    json_skip(&d->r);
}

static void no_memory(struct decoder *d)
{
    json_fail_with(&d->r, ERR_NOMEM, "out of memory");
}

static void reject(struct decoder *d, const char *reason)
{
    if (!d->reject)
        d->reject = reason;
}

static void *alloc(struct decoder *d, size_t size)
{
    void *p = arena_zalloc(d->arena, size);
    if (!p)
        no_memory(d);
    return p;
}

static void push(struct decoder *d, const void *item, size_t size)
{
    buf_put(&d->stack, item, size);
    if (!buf_ok(&d->stack))
        no_memory(d);
}

/* What was pushed since `mark`, moved into the arena. */
static const void *pop(struct decoder *d, size_t mark, size_t size, size_t *ret_n)
{
    size_t bytes = d->stack.len > mark ? d->stack.len - mark : 0;
    void *items = bytes && !d->r.err ? arena_alloc(d->arena, bytes) : NULL;
    if (bytes && !items)
        no_memory(d);
    if (items)
        memcpy(items, d->stack.ptr + mark, bytes);
    d->stack.len = mark;
    *ret_n = items ? bytes / size : 0;
    return items;
}

/* ---- scalars ---- */

static void get_str(struct decoder *d, struct str *ret)
{
    enum json_type type = json_next(&d->r);
    if (type == JSON_STRING)
        *ret = d->r.text;
    else if (type == JSON_NULL)
        *ret = STR("");
    else
        json_fail(&d->r, "a string");
}

static void get_u64(struct decoder *d, uint64_t *ret)
{
    if (json_next(&d->r) == JSON_NULL)
        *ret = 0;
    else if (!json_to_u64(&d->r, ret))
        json_fail(&d->r, "a whole number, not negative");
}

static void get_u32(struct decoder *d, uint32_t *ret)
{
    uint64_t n = 0;
    get_u64(d, &n);
    if (n > UINT32_MAX)
        json_fail(&d->r, "a number of 32 bits");
    else
        *ret = (uint32_t)n;
}

/* Exactly so many bytes in hexadecimal, or nothing. */
static void get_id(struct decoder *d, uint8_t *bytes, size_t n)
{
    struct str hex = STR("");
    get_str(d, &hex);
    memset(bytes, 0, n);
    if (hex.len && !hex_get(bytes, hex, n))
        reject(d, n == TRACE_ID_SIZE ? "a trace id is not 32 hexadecimal digits"
                                     : "a span id is not 16 hexadecimal digits");
}

/* A number, or a name that `parse` knows; what is out of range is 0. */
static void get_enum(struct decoder *d, bool (*parse)(struct str, uint8_t *), uint8_t most,
                     uint8_t *ret)
{
    int64_t n = 0;
    uint8_t named = 0;
    enum json_type type = json_next(&d->r);
    if (type == JSON_STRING && parse(d->r.text, &named))
        n = named;
    else if (type == JSON_NUMBER && !json_to_i64(&d->r, &n))
        json_fail(&d->r, "a whole number");
    else if (type == JSON_STRING)
        (void)json_to_i64(&d->r, &n);
    else if (type != JSON_NUMBER && type != JSON_NULL)
        json_fail(&d->r, "a number or a name");
    *ret = n >= 0 && n <= most ? (uint8_t)n : 0;
}

static bool status_parse(struct str name, uint8_t *ret)
{
    static const struct str names[] = {STR("UNSET"), STR("OK"), STR("ERROR")};
    if (str_starts(name, STR("STATUS_CODE_")))
        name = str_skip(name, sizeof "STATUS_CODE_" - 1);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (str_eq(name, names[i])) {
            *ret = (uint8_t)i;
            return true;
        }
    }
    return false;
}

/* ---- values and attributes ---- */

static void value_decode(struct decoder *d, unsigned depth, struct value *ret);

static void attr_decode(struct decoder *d, unsigned depth, struct attr *ret)
{
    *ret = (struct attr){.key = STR("")};
    while (key(d)) {
        if (is(d, "key"))
            get_str(d, &ret->key);
        else if (is(d, "value"))
            value_decode(d, depth, &ret->value);
        else
            skip(d);
    }
}

static const struct attr *attr_list_decode(struct decoder *d, unsigned depth, size_t *ret_n)
{
    size_t mark = d->stack.len;
    struct attr attr;
    if (array_begins(d)) {
        while (item_begins(d)) {
            attr_decode(d, depth, &attr);
            push(d, &attr, sizeof attr);
        }
    }
    return pop(d, mark, sizeof attr, ret_n);
}

static void attrs_decode(struct decoder *d, struct attrs *ret)
{
    size_t n = 0;
    ret->items = attr_list_decode(d, 0, &n);
    ret->n = (uint32_t)n;
}

static const struct value *value_list_decode(struct decoder *d, unsigned depth, size_t *ret_n)
{
    size_t mark = d->stack.len;
    if (array_begins(d)) {
        /* The only list whose items may be null: an AnyValue of nothing. */
        for (;;) {
            struct value value = {.type = VALUE_NONE};
            enum json_type type = json_next(&d->r);
            if (type == JSON_ARRAY_END || type == JSON_ERROR)
                break;
            if (type == JSON_OBJECT)
                value_decode(d, depth, &value);
            else if (type != JSON_NULL)
                json_fail(&d->r, "an object");
            push(d, &value, sizeof value);
        }
    }
    return pop(d, mark, sizeof(struct value), ret_n);
}

/* {"values": [...]}: of an array or a map. */
static void list_decode(struct decoder *d, unsigned depth, struct value *ret)
{
    if (depth > VALUE_DEPTH_MAX) {
        json_fail_with(&d->r, ERR_TOO_LARGE, "values are nested too deeply");
        return;
    }
    if (!object_begins(d))
        return;
    while (key(d)) {
        if (!is(d, "values"))
            skip(d);
        else if (ret->type == VALUE_ARRAY)
            ret->array.items = value_list_decode(d, depth, &ret->array.n);
        else
            ret->map.items = attr_list_decode(d, depth, &ret->map.n);
    }
}

static void bytes_decode(struct decoder *d, struct value *ret)
{
    struct str text = STR("");
    get_str(d, &text);
    uint8_t *bytes = alloc(d, BASE64_BYTES_MAX(text.len));
    size_t n;
    if (!bytes)
        return;
    if (base64_get(bytes, text, &n))
        ret->bytes = (struct str){(const char *)bytes, n};
    else
        json_fail(&d->r, "base64");
}

/* The object is open already when it is an item of an array; as the value of a key it is not. */
static void value_decode(struct decoder *d, unsigned depth, struct value *ret)
{
    *ret = (struct value){.type = VALUE_NONE};
    if (d->r.type == JSON_KEY && !object_begins(d))
        return;
    while (key(d)) {
        if (is(d, "stringValue")) {
            *ret = (struct value){.type = VALUE_STRING};
            get_str(d, &ret->string);
        } else if (is(d, "intValue")) {
            *ret = (struct value){.type = VALUE_INT};
            if (json_next(&d->r) != JSON_NULL && !json_to_i64(&d->r, &ret->integer)) {
                /* OpenTelemetry's JavaScript writes every whole number so, 1e300 too. */
                struct value real = {.type = VALUE_DOUBLE};
                if (d->r.type != JSON_NUMBER || !json_to_double(&d->r, &real.real) ||
                    fabs(real.real) < 9223372036854775808.0)
                    json_fail(&d->r, "a whole number of 64 bits");
                *ret = real;
            }
        } else if (is(d, "boolValue")) {
            enum json_type type = json_next(&d->r);
            *ret = (struct value){.type = VALUE_BOOL, .boolean = type == JSON_TRUE};
            if (type != JSON_TRUE && type != JSON_FALSE && type != JSON_NULL)
                json_fail(&d->r, "true or false");
        } else if (is(d, "doubleValue")) {
            *ret = (struct value){.type = VALUE_DOUBLE};
            if (json_next(&d->r) != JSON_NULL && !json_to_double(&d->r, &ret->real))
                json_fail(&d->r, "a number");
        } else if (is(d, "arrayValue")) {
            *ret = (struct value){.type = VALUE_ARRAY};
            list_decode(d, depth + 1, ret);
        } else if (is(d, "kvlistValue")) {
            *ret = (struct value){.type = VALUE_MAP};
            list_decode(d, depth + 1, ret);
        } else if (is(d, "bytesValue")) {
            *ret = (struct value){.type = VALUE_BYTES, .bytes = STR("")};
            bytes_decode(d, ret);
        } else {
            skip(d);
        }
    }
}

/* ---- spans ---- */

static void events_decode(struct decoder *d, struct span *ret)
{
    size_t mark = d->stack.len, n;
    if (array_begins(d)) {
        while (item_begins(d)) {
            struct event e = {.name = STR("")};
            while (key(d)) {
                if (is(d, "timeUnixNano"))
                    get_u64(d, &e.time_ns);
                else if (is(d, "name"))
                    get_str(d, &e.name);
                else if (is(d, "attributes"))
                    attrs_decode(d, &e.attrs);
                else if (is(d, "droppedAttributesCount"))
                    get_u32(d, &e.attrs.dropped);
                else
                    skip(d);
            }
            push(d, &e, sizeof e);
        }
    }
    ret->events = pop(d, mark, sizeof(struct event), &n);
    ret->n_events = (uint32_t)n;
}

static void links_decode(struct decoder *d, struct span *ret)
{
    size_t mark = d->stack.len, n;
    if (array_begins(d)) {
        while (item_begins(d)) {
            struct link l = {.trace_state = STR("")};
            while (key(d)) {
                if (is(d, "traceId"))
                    get_id(d, l.trace_id.bytes, TRACE_ID_SIZE);
                else if (is(d, "spanId"))
                    get_id(d, l.span_id.bytes, SPAN_ID_SIZE);
                else if (is(d, "traceState"))
                    get_str(d, &l.trace_state);
                else if (is(d, "attributes"))
                    attrs_decode(d, &l.attrs);
                else if (is(d, "droppedAttributesCount"))
                    get_u32(d, &l.attrs.dropped);
                else if (is(d, "flags"))
                    get_u32(d, &l.flags);
                else
                    skip(d);
            }
            push(d, &l, sizeof l);
        }
    }
    ret->links = pop(d, mark, sizeof(struct link), &n);
    ret->n_links = (uint32_t)n;
}

static void status_decode(struct decoder *d, struct span *ret)
{
    ret->status_message = STR("");
    ret->status_code = STATUS_UNSET;
    if (!object_begins(d))
        return;
    while (key(d)) {
        if (is(d, "code"))
            get_enum(d, status_parse, STATUS_ERROR, &ret->status_code);
        else if (is(d, "message"))
            get_str(d, &ret->status_message);
        else
            skip(d);
    }
}

/* The field that the key read last names. */
static void span_field_decode(struct decoder *d, struct span *s)
{
    if (is(d, "traceId"))
        get_id(d, s->trace_id.bytes, TRACE_ID_SIZE);
    else if (is(d, "spanId"))
        get_id(d, s->span_id.bytes, SPAN_ID_SIZE);
    else if (is(d, "parentSpanId"))
        get_id(d, s->parent_id.bytes, SPAN_ID_SIZE);
    else if (is(d, "name"))
        get_str(d, &s->name);
    else if (is(d, "kind"))
        get_enum(d, span_kind_parse, SPAN_KIND_CONSUMER, &s->kind);
    else if (is(d, "startTimeUnixNano"))
        get_u64(d, &s->start_ns);
    else if (is(d, "endTimeUnixNano"))
        get_u64(d, &s->end_ns);
    else if (is(d, "attributes"))
        attrs_decode(d, &s->attrs);
    else if (is(d, "events"))
        events_decode(d, s);
    else if (is(d, "links"))
        links_decode(d, s);
    else if (is(d, "status"))
        status_decode(d, s);
    else if (is(d, "traceState"))
        get_str(d, &s->trace_state);
    else if (is(d, "flags"))
        get_u32(d, &s->flags);
    else if (is(d, "droppedAttributesCount"))
        get_u32(d, &s->attrs.dropped);
    else if (is(d, "droppedEventsCount"))
        get_u32(d, &s->dropped_events);
    else if (is(d, "droppedLinksCount"))
        get_u32(d, &s->dropped_links);
    else
        skip(d);
}

static void span_decode(struct decoder *d, const struct resource *resource,
                        const struct scope *scope)
{
    struct span s = {.name = STR(""),
                     .trace_state = STR(""),
                     .status_message = STR(""),
                     .resource = resource,
                     .scope = scope};
    while (key(d))
        span_field_decode(d, &s);
    if (d->r.err)
        return;
    if (trace_id_is_zero(&s.trace_id))
        reject(d, "a trace id of zeros");
    else if (span_id_is_zero(&s.span_id))
        reject(d, "a span id of zeros");
    if (d->reject) {
        if (!d->rejected_reason)
            d->rejected_reason = d->reject;
        d->n_rejected++;
        rejected_add(&d->rejected, &s.trace_id, d->arena);
        d->reject = NULL;
        return;
    }
    buf_put(&d->spans, &s, sizeof s);
    if (!buf_ok(&d->spans))
        no_memory(d);
}

/* Where a list of spans begins, to begin again when its key comes a second time. */
struct mark {
    size_t spans_len, n_rejected;
    uint32_t n_named;
    const char *rejected_reason;
};

static struct mark mark_set(const struct decoder *d)
{
    return (struct mark){d->spans.len, d->n_rejected, d->rejected.n, d->rejected_reason};
}

static void mark_go_back(struct decoder *d, const struct mark *mark)
{
    d->spans.len = mark->spans_len;
    d->n_rejected = mark->n_rejected;
    d->rejected.n = mark->n_named;
    d->rejected_reason = mark->rejected_reason;
}

static void scope_decode(struct decoder *d, struct scope *ret)
{
    *ret = (struct scope){
        .name = STR(""), .version = STR(""), .schema_url = ret->schema_url, .attrs = {0}};
    if (!object_begins(d))
        return;
    while (key(d)) {
        if (is(d, "name"))
            get_str(d, &ret->name);
        else if (is(d, "version"))
            get_str(d, &ret->version);
        else if (is(d, "attributes"))
            attrs_decode(d, &ret->attrs);
        else if (is(d, "droppedAttributesCount"))
            get_u32(d, &ret->attrs.dropped);
        else
            skip(d);
    }
}

static void scope_spans_decode(struct decoder *d, const struct resource *resource)
{
    struct mark mark = mark_set(d);
    struct scope *scope = alloc(d, sizeof *scope);
    if (!scope)
        return;
    *scope = (struct scope){.name = STR(""), .version = STR(""), .schema_url = STR("")};
    while (key(d)) {
        if (is(d, "scope")) {
            scope_decode(d, scope);
        } else if (is(d, "spans")) {
            mark_go_back(d, &mark);
            if (array_begins(d))
                while (item_begins(d))
                    span_decode(d, resource, scope);
        } else if (is(d, "schemaUrl")) {
            get_str(d, &scope->schema_url);
        } else {
            skip(d);
        }
    }
}

static void resource_decode(struct decoder *d, struct resource *ret)
{
    ret->attrs = (struct attrs){0};
    if (!object_begins(d))
        return;
    while (key(d)) {
        if (is(d, "attributes"))
            attrs_decode(d, &ret->attrs);
        else if (is(d, "droppedAttributesCount"))
            get_u32(d, &ret->attrs.dropped);
        else
            skip(d);
    }
}

static void resource_spans_decode(struct decoder *d)
{
    struct mark mark = mark_set(d);
    struct resource *resource = alloc(d, sizeof *resource);
    if (!resource)
        return;
    resource->schema_url = STR("");
    while (key(d)) {
        if (is(d, "resource")) {
            resource_decode(d, resource);
        } else if (is(d, "scopeSpans")) {
            mark_go_back(d, &mark);
            if (array_begins(d))
                while (item_begins(d))
                    scope_spans_decode(d, resource);
        } else if (is(d, "schemaUrl")) {
            get_str(d, &resource->schema_url);
        } else {
            skip(d);
        }
    }
    resource_set_service_name(resource);
}

int otlp_json_decode(struct str body, struct arena *arena, struct span_batch *ret_batch,
                     struct error_detail *ret_detail)
{
    struct decoder d = {.arena = arena,
                        .stack = {.bytes_max = arena->bytes_max},
                        .spans = {.bytes_max = arena->bytes_max}};
    struct mark mark = mark_set(&d);
    json_reader_init(&d.r, body, arena, ret_detail);
    if (json_next(&d.r) != JSON_OBJECT)
        json_fail(&d.r, "an object");
    while (key(&d)) {
        if (is(&d, "resourceSpans")) {
            mark_go_back(&d, &mark);
            if (array_begins(&d))
                while (item_begins(&d))
                    resource_spans_decode(&d);
        } else {
            skip(&d);
        }
    }
    json_next(&d.r); /* the end, or what should not be there */
    struct span *spans = d.r.err ? NULL : arena_alloc(arena, d.spans.len);
    if (!spans)
        no_memory(&d);
    if (spans && d.spans.len)
        memcpy(spans, d.spans.ptr, d.spans.len);
    if (!d.r.err)
        *ret_batch = (struct span_batch){.spans = spans,
                                         .n = d.spans.len / sizeof *spans,
                                         .n_rejected = d.n_rejected,
                                         .rejected_reason = d.rejected_reason,
                                         .rejected = d.rejected.ids,
                                         .n_rejected_known = d.rejected.n};
    buf_done(&d.stack);
    buf_done(&d.spans);
    return d.r.err;
}

/* ---- a sender reads its answer ---- */

int otlp_json_decode_response(struct str body, struct arena *arena, uint64_t *ret_rejected,
                              struct str *ret_message)
{
    struct decoder d = {.arena = arena};
    uint64_t rejected = 0;
    struct str message = STR("");
    json_reader_init(&d.r, body, arena, NULL);
    if (object_begins(&d)) {
        while (key(&d)) {
            if (!is(&d, "partialSuccess")) {
                skip(&d);
            } else if (object_begins(&d)) {
                while (key(&d)) {
                    if (is(&d, "rejectedSpans") || is(&d, "rejectedDataPoints") ||
                        is(&d, "rejectedLogRecords"))
                        get_u64(&d, &rejected);
                    else if (is(&d, "errorMessage"))
                        get_str(&d, &message);
                    else
                        skip(&d);
                }
            }
        }
    }
    if (d.r.err)
        return d.r.err;
    if (json_next(&d.r) != JSON_END)
        return d.r.err ? d.r.err : ERR_INVALID;
    *ret_rejected = rejected;
    *ret_message = message;
    return 0;
}

/* ---- encoding ---- */

static void put_str(struct json_writer *w, struct str name, struct str s)
{
    if (s.len) {
        json_key(w, name);
        json_str(w, s);
    }
}

static void put_count(struct json_writer *w, struct str name, uint64_t n)
{
    if (n) {
        json_key(w, name);
        json_u64(w, n);
    }
}

static void put_time(struct json_writer *w, struct str name, uint64_t ns)
{
    json_key(w, name);
    json_u64_str(w, ns);
}

static void value_encode(const struct value *v, unsigned depth, struct json_writer *w);
static void attr_list_encode(const struct attr *items, size_t n, unsigned depth,
                             struct json_writer *w);

static void list_encode(const struct value *v, unsigned depth, struct json_writer *w)
{
    json_open(w, '{');
    json_key(w, STR("values"));
    /* Nothing that a decoder gave is deeper; a value of other making loses its depths. */
    if (depth >= VALUE_DEPTH_MAX) {
        json_open(w, '[');
        json_close(w, ']');
    } else if (v->type == VALUE_MAP) {
        attr_list_encode(v->map.items, v->map.n, depth + 1, w);
    } else {
        json_open(w, '[');
        for (size_t i = 0; i < v->array.n; i++)
            value_encode(&v->array.items[i], depth + 1, w);
        json_close(w, ']');
    }
    json_close(w, '}');
}

static void value_encode(const struct value *v, unsigned depth, struct json_writer *w)
{
    json_open(w, '{');
    switch (v->type) {
    case VALUE_STRING:
        json_key(w, STR("stringValue"));
        json_str(w, v->string);
        break;
    case VALUE_BOOL:
        json_key(w, STR("boolValue"));
        json_bool(w, v->boolean);
        break;
    case VALUE_INT:
        json_key(w, STR("intValue"));
        json_i64_str(w, v->integer);
        break;
    case VALUE_DOUBLE:
        json_key(w, STR("doubleValue"));
        json_double(w, v->real);
        break;
    case VALUE_BYTES:
        json_key(w, STR("bytesValue"));
        json_base64(w, (const uint8_t *)v->bytes.ptr, v->bytes.len);
        break;
    case VALUE_ARRAY:
        json_key(w, STR("arrayValue"));
        list_encode(v, depth, w);
        break;
    case VALUE_MAP:
        json_key(w, STR("kvlistValue"));
        list_encode(v, depth, w);
        break;
    }
    json_close(w, '}');
}

void otlp_json_encode_value(const struct value *value, struct json_writer *w)
{
    value_encode(value, 0, w);
}

static void attr_encode(struct str key, const struct value *value, unsigned depth,
                        struct json_writer *w)
{
    json_open(w, '{');
    json_key(w, STR("key"));
    json_str(w, key);
    json_key(w, STR("value"));
    value_encode(value, depth, w);
    json_close(w, '}');
}

void otlp_json_encode_attr(struct str key, const struct value *value, struct json_writer *w)
{
    attr_encode(key, value, 0, w);
}

static void attr_list_encode(const struct attr *items, size_t n, unsigned depth,
                             struct json_writer *w)
{
    json_open(w, '[');
    for (size_t i = 0; i < n; i++)
        attr_encode(items[i].key, &items[i].value, depth, w);
    json_close(w, ']');
}

void otlp_json_encode_attrs(const struct attrs *attrs, struct json_writer *w)
{
    attr_list_encode(attrs->items, attrs->n, 0, w);
}

static void put_attrs(struct json_writer *w, const struct attrs *attrs)
{
    if (attrs->n) {
        json_key(w, STR("attributes"));
        otlp_json_encode_attrs(attrs, w);
    }
    put_count(w, STR("droppedAttributesCount"), attrs->dropped);
}

static void put_events(struct json_writer *w, const struct span *s)
{
    if (s->n_events) {
        json_key(w, STR("events"));
        json_open(w, '[');
        for (uint32_t i = 0; i < s->n_events; i++) {
            const struct event *e = &s->events[i];
            json_open(w, '{');
            put_time(w, STR("timeUnixNano"), e->time_ns);
            put_str(w, STR("name"), e->name);
            put_attrs(w, &e->attrs);
            json_close(w, '}');
        }
        json_close(w, ']');
    }
    put_count(w, STR("droppedEventsCount"), s->dropped_events);
}

static void put_links(struct json_writer *w, const struct span *s)
{
    if (s->n_links) {
        json_key(w, STR("links"));
        json_open(w, '[');
        for (uint32_t i = 0; i < s->n_links; i++) {
            const struct link *l = &s->links[i];
            json_open(w, '{');
            json_key(w, STR("traceId"));
            json_hex(w, l->trace_id.bytes, TRACE_ID_SIZE);
            json_key(w, STR("spanId"));
            json_hex(w, l->span_id.bytes, SPAN_ID_SIZE);
            put_str(w, STR("traceState"), l->trace_state);
            put_attrs(w, &l->attrs);
            put_count(w, STR("flags"), l->flags);
            json_close(w, '}');
        }
        json_close(w, ']');
    }
    put_count(w, STR("droppedLinksCount"), s->dropped_links);
}

static void span_encode(const struct span *s, struct json_writer *w)
{
    json_open(w, '{');
    json_key(w, STR("traceId"));
    json_hex(w, s->trace_id.bytes, TRACE_ID_SIZE);
    json_key(w, STR("spanId"));
    json_hex(w, s->span_id.bytes, SPAN_ID_SIZE);
    put_str(w, STR("traceState"), s->trace_state);
    if (!span_id_is_zero(&s->parent_id)) {
        json_key(w, STR("parentSpanId"));
        json_hex(w, s->parent_id.bytes, SPAN_ID_SIZE);
    }
    put_count(w, STR("flags"), s->flags);
    put_str(w, STR("name"), s->name);
    put_count(w, STR("kind"), s->kind);
    put_time(w, STR("startTimeUnixNano"), s->start_ns);
    put_time(w, STR("endTimeUnixNano"), s->end_ns);
    put_attrs(w, &s->attrs);
    put_events(w, s);
    put_links(w, s);
    if (s->status_code || s->status_message.len) {
        json_key(w, STR("status"));
        json_open(w, '{');
        put_str(w, STR("message"), s->status_message);
        put_count(w, STR("code"), s->status_code);
        json_close(w, '}');
    }
    json_close(w, '}');
}

/* The neighbours from `i` on that share resource and scope; returns past them. */
static size_t scope_spans_encode(const struct span_batch *batch, size_t i, struct json_writer *w)
{
    const struct resource *resource = batch->spans[i].resource;
    const struct scope *scope = batch->spans[i].scope;
    json_open(w, '{');
    json_key(w, STR("scope"));
    json_open(w, '{');
    put_str(w, STR("name"), scope->name);
    put_str(w, STR("version"), scope->version);
    put_attrs(w, &scope->attrs);
    json_close(w, '}');
    json_key(w, STR("spans"));
    json_open(w, '[');
    for (; i < batch->n && batch->spans[i].resource == resource && batch->spans[i].scope == scope;
         i++)
        span_encode(&batch->spans[i], w);
    json_close(w, ']');
    put_str(w, STR("schemaUrl"), scope->schema_url);
    json_close(w, '}');
    return i;
}

void otlp_json_encode(const struct span_batch *batch, struct json_writer *w)
{
    json_open(w, '{');
    json_key(w, STR("resourceSpans"));
    json_open(w, '[');
    for (size_t i = 0; i < batch->n;) {
        const struct resource *resource = batch->spans[i].resource;
        json_open(w, '{');
        json_key(w, STR("resource"));
        json_open(w, '{');
        put_attrs(w, &resource->attrs);
        json_close(w, '}');
        json_key(w, STR("scopeSpans"));
        json_open(w, '[');
        while (i < batch->n && batch->spans[i].resource == resource)
            i = scope_spans_encode(batch, i, w);
        json_close(w, ']');
        put_str(w, STR("schemaUrl"), resource->schema_url);
        json_close(w, '}');
    }
    json_close(w, ']');
    json_close(w, '}');
}

void otlp_json_encode_response(struct str rejected, uint64_t n_rejected, struct str message,
                               struct json_writer *w)
{
    json_open(w, '{');
    if (n_rejected || message.len) {
        json_key(w, STR("partialSuccess"));
        json_open(w, '{');
        if (n_rejected) {
            json_key(w, rejected);
            json_u64_str(w, n_rejected);
        }
        put_str(w, STR("errorMessage"), message);
        json_close(w, '}');
    }
    json_close(w, '}');
}

void otlp_json_encode_status(int32_t code, struct str message, struct json_writer *w)
{
    json_open(w, '{');
    json_key(w, STR("code"));
    json_i64(w, code);
    put_str(w, STR("message"), message);
    json_close(w, '}');
}
