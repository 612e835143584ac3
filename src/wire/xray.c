/* Keys come in any order, and a subsegment needs its segment's ids: so the reader, which is a value,
 * is copied where `subsegments` begins, and goes back there when the rest of the segment is known. */
#include "wire/xray.h"

#include "base/json.h"
#include "wire/collect.h"

struct decoder {
    struct collect c;
    struct json_reader r;
};

/* What a segment gives to the segments in it. */
struct outer {
    struct trace_id trace_id;
    struct span_id span_id;
    const struct resource *resource; /* NULL: none */
};

struct segment {
    struct span span;
    struct str service_version;
    struct str namespace;
    struct json_reader subsegments; /* where they begin */
    bool has_subsegments, is_subsegment, in_progress, has_end;
};

static bool is(const struct decoder *d, struct str key)
{
    return str_eq(d->r.text, key);
}

static bool object_begins(struct decoder *d)
{
    enum json_type type = json_next(&d->r);
    if (type != JSON_OBJECT && type != JSON_NULL)
        json_fail(&d->r, "an object");
    return type == JSON_OBJECT;
}

static bool key(struct decoder *d)
{
    return json_next(&d->r) == JSON_KEY;
}

static struct str get_str(struct decoder *d)
{
    enum json_type type = json_next(&d->r);
    if (type == JSON_STRING || type == JSON_NUMBER)
        return d->r.text;
    if (type != JSON_NULL)
        json_fail(&d->r, "a string");
    return STR("");
}

static bool get_bool(struct decoder *d)
{
    enum json_type type = json_next(&d->r);
    if (type != JSON_TRUE && type != JSON_FALSE && type != JSON_NULL)
        json_fail(&d->r, "true or false");
    return type == JSON_TRUE;
}

static struct str dotted(struct decoder *d, struct str prefix, struct str name)
{
    char *joined = arena_alloc(d->c.arena, prefix.len + 1 + name.len);
    if (!joined) {
        d->c.err = ERR_NOMEM;
        return STR("");
    }
    memcpy(joined, prefix.ptr, prefix.len);
    joined[prefix.len] = '.';
    if (name.len)
        memcpy(joined + prefix.len + 1, name.ptr, name.len);
    return (struct str){joined, prefix.len + 1 + name.len};
}

/* The value whose key was read last: a scalar as it is, anything else as its JSON text. */
static void put_any(struct decoder *d, struct str name)
{
    const char *begin = d->r.at;
    struct value v = {.type = VALUE_STRING, .string = STR("")};
    switch (json_next(&d->r)) {
    case JSON_STRING:
        v.string = d->r.text;
        break;
    case JSON_NUMBER:
        v.type = VALUE_INT;
        if (!json_to_i64(&d->r, &v.integer)) {
            v.type = VALUE_DOUBLE;
            if (!json_to_double(&d->r, &v.real))
                json_fail(&d->r, "a number");
        }
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        v.type = VALUE_BOOL;
        v.boolean = d->r.type == JSON_TRUE;
        break;
    case JSON_OBJECT:
    case JSON_ARRAY:
        begin = d->r.token;
        json_skip(&d->r);
        v.string = (struct str){begin, (size_t)(d->r.at - begin)};
        break;
    case JSON_NULL:
        return;
    default:
        return;
    }
    if (!d->r.err)
        collect_attr(&d->c, name, &v);
}

/* Seconds since the epoch, as decimals, in nanoseconds: a double would lose the last ones. Java
 * writes 1.478293361271E9. */
static bool seconds_to_ns(struct str text, uint64_t *ret)
{
    uint64_t digits = 0;
    int scale = 9, i = 0, n = (int)(text.len < 64 ? text.len : 64);
    bool point = false;
    for (; i < n; i++) {
        char c = text.ptr[i];
        if (c == '.' && !point) {
            point = true;
        } else if (c >= '0' && c <= '9') {
            if (digits >= UINT64_MAX / 10 - 1) {
                scale += !point; /* what is beyond 64 bits is beyond nanoseconds too */
                continue;
            }
            digits = digits * 10 + (uint64_t)(c - '0');
            scale -= point;
        } else {
            break;
        }
    }
    if (i < n && (text.ptr[i] == 'e' || text.ptr[i] == 'E')) {
        int64_t exponent;
        struct str rest = str_skip(text, (size_t)i + 1);
        if (rest.len && rest.ptr[0] == '+')
            rest = str_skip(rest, 1);
        if (!str_to_i64(rest, &exponent) || exponent < -40 || exponent > 40)
            return false;
        scale += (int)exponent;
        i = n;
    }
    if (i < n || (size_t)n < text.len)
        return false;
    for (; scale < 0; scale++)
        digits /= 10;
    for (; scale > 0 && digits; scale--)
        if (__builtin_mul_overflow(digits, 10, &digits))
            return false;
    *ret = digits;
    return true;
}

static uint64_t get_time(struct decoder *d)
{
    uint64_t ns = 0;
    struct str text = get_str(d);
    if (!d->r.err && text.len && !seconds_to_ns(text, &ns))
        collect_reject(&d->c, "a time that is no number of seconds");
    return ns;
}

static void get_trace_id(struct decoder *d, struct trace_id *ret)
{
    struct str text = get_str(d);
    uint8_t bytes[TRACE_ID_SIZE];
    if (text.len == 35 && text.ptr[0] == '1' && text.ptr[1] == '-' && text.ptr[10] == '-' &&
        hex_get(bytes, (struct str){text.ptr + 2, 8}, 4) &&
        hex_get(bytes + 4, (struct str){text.ptr + 11, 24}, 12))
        memcpy(ret->bytes, bytes, sizeof bytes);
    else
        collect_reject(&d->c, "a trace id is not 1-8 digits-24 digits");
}

static void get_span_id(struct decoder *d, struct span_id *ret)
{
    struct str text = get_str(d);
    if (text.len && !hex_get(ret->bytes, text, SPAN_ID_SIZE))
        collect_reject(&d->c, "a segment id is not 16 hexadecimal digits");
}

/* ---- the parts of a segment ---- */

/* OpenTelemetry's names for those of X-Ray, in the order of the object's nesting. */
struct renamed {
    struct str from, to;
};

static const struct renamed http_request[] = {
    {STR("method"), STR("http.request.method")},
    {STR("url"), STR("url.full")},
    {STR("user_agent"), STR("user_agent.original")},
    {STR("client_ip"), STR("client.address")},
};
static const struct renamed http_response[] = {
    {STR("status"), STR("http.response.status_code")},
    {STR("content_length"), STR("http.response.body.size")},
};
static const struct renamed sql[] = {
    {STR("sanitized_query"), STR("db.query.text")},
    {STR("database_type"), STR("db.system.name")},
    {STR("user"), STR("db.user")},
    {STR("url"), STR("db.connection_string")},
    {STR("connection_string"), STR("db.connection_string")},
};
#define N(table) (sizeof(table) / sizeof *(table))

/* An object whose values become attributes: by the table, else under `prefix`. */
static void put_renamed(struct decoder *d, const struct renamed *table, size_t n, struct str prefix)
{
    if (!object_begins(d))
        return;
    while (key(d) && !d->c.err) {
        struct str name = STR_NONE;
        for (size_t i = 0; i < n && !name.len; i++)
            if (is(d, table[i].from))
                name = table[i].to;
        put_any(d, name.len ? name : dotted(d, prefix, d->r.text));
    }
}

static void put_http(struct decoder *d)
{
    if (!object_begins(d))
        return;
    while (key(d) && !d->c.err) {
        if (is(d, STR("request")))
            put_renamed(d, http_request, N(http_request), STR("aws.xray.http.request"));
        else if (is(d, STR("response")))
            put_renamed(d, http_response, N(http_response), STR("aws.xray.http.response"));
        else
            put_any(d, dotted(d, STR("aws.xray.http"), d->r.text));
    }
}

/* {"ec2": {"instance_id": ..}} is aws.ec2.instance_id. */
static void put_flat(struct decoder *d, struct str prefix, unsigned depth)
{
    while (key(d) && !d->c.err) {
        struct str name = dotted(d, prefix, d->r.text);
        struct json_reader before = d->r;
        if (depth < 4 && json_next(&d->r) == JSON_OBJECT) {
            put_flat(d, name, depth + 1);
        } else {
            d->r = before;
            put_any(d, name);
        }
    }
}

static void put_each(struct decoder *d, struct str prefix)
{
    if (!object_begins(d))
        return;
    while (key(d) && !d->c.err)
        put_any(d, prefix.len ? dotted(d, prefix, d->r.text) : d->r.text);
}

/* [{"path":..,"line":..,"label":..}, ...] as lines of text. */
static struct str get_stack(struct decoder *d)
{
    struct buf out = {.bytes_max = d->c.arena->bytes_max};
    if (json_next(&d->r) != JSON_ARRAY) {
        if (d->r.type != JSON_NULL)
            json_fail(&d->r, "a list");
        return STR("");
    }
    while (json_next(&d->r) == JSON_OBJECT) {
        struct str path = STR(""), label = STR(""), line = STR("");
        while (key(d)) {
            if (is(d, STR("path")))
                path = get_str(d);
            else if (is(d, STR("label")))
                label = get_str(d);
            else if (is(d, STR("line")))
                line = get_str(d);
            else
                json_skip(&d->r);
        }
        buf_cstr(&out, "at ");
        buf_str(&out, label);
        buf_cstr(&out, " (");
        buf_str(&out, path);
        if (line.len)
            buf_byte(&out, ':');
        buf_str(&out, line);
        buf_cstr(&out, ")\n");
    }
    if (!d->r.err && d->r.type != JSON_ARRAY_END)
        json_fail(&d->r, "an object");
    struct str text = arena_str(d->c.arena, buf_as_str(&out));
    if (!buf_ok(&out) || !text.ptr)
        d->c.err = ERR_NOMEM;
    buf_done(&out);
    return text;
}

static void put_exception(struct decoder *d, struct segment *g)
{
    struct str message = STR_NONE, type = STR_NONE, stack = STR_NONE;
    size_t mark = collect_mark(&d->c);
    while (key(d) && !d->c.err) {
        if (is(d, STR("message")))
            message = get_str(d);
        else if (is(d, STR("type")))
            type = get_str(d);
        else if (is(d, STR("stack")))
            stack = get_stack(d);
        else
            put_any(d, dotted(d, STR("aws.xray.exception"), d->r.text));
    }
    if (type.len)
        collect_attr_str(&d->c, STR("exception.type"), type);
    if (message.len)
        collect_attr_str(&d->c, STR("exception.message"), message);
    if (stack.len)
        collect_attr_str(&d->c, STR("exception.stacktrace"), stack);
    if (!g->span.status_message.len)
        g->span.status_message = message.len ? message : STR("");
    struct event e = {.name = STR("exception"), .attrs = collect_take_attrs(&d->c, mark)};
    collect_event(&d->c, &e); /* its time when that of the segment is known */
}

/* An object with exceptions, or the id of one in another segment. */
static void put_cause(struct decoder *d, struct segment *g)
{
    struct json_reader before = d->r;
    if (json_next(&d->r) != JSON_OBJECT) {
        d->r = before;
        put_any(d, STR("aws.xray.cause"));
        return;
    }
    while (key(d) && !d->c.err) {
        if (!is(d, STR("exceptions"))) {
            put_any(d, dotted(d, STR("aws.xray.cause"), d->r.text));
            continue;
        }
        if (json_next(&d->r) != JSON_ARRAY) {
            if (d->r.type != JSON_NULL)
                json_fail(&d->r, "a list");
            continue;
        }
        while (json_next(&d->r) == JSON_OBJECT && !d->c.err)
            put_exception(d, g);
        if (!d->r.err && !d->c.err && d->r.type != JSON_ARRAY_END)
            json_fail(&d->r, "an object");
    }
}

static void put_precursors(struct decoder *d)
{
    if (json_next(&d->r) != JSON_ARRAY) {
        if (d->r.type != JSON_NULL)
            json_fail(&d->r, "a list");
        return;
    }
    while (json_next(&d->r) == JSON_STRING) {
        struct link link = {.trace_state = STR("")};
        if (hex_get(link.span_id.bytes, d->r.text, SPAN_ID_SIZE))
            collect_link(&d->c, &link); /* its trace when that of the segment is known */
        else
            collect_reject(&d->c, "a precursor is not 16 hexadecimal digits");
    }
    if (!d->r.err && d->r.type != JSON_ARRAY_END)
        json_fail(&d->r, "a list of strings");
}

static void put_flag(struct decoder *d, struct segment *g, struct str name, bool is_error)
{
    if (!get_bool(d))
        return;
    collect_attr(&d->c, name, &(struct value){.type = VALUE_BOOL, .boolean = true});
    if (is_error)
        g->span.status_code = STATUS_ERROR;
}

static void get_service(struct decoder *d, struct segment *g)
{
    if (!object_begins(d))
        return;
    while (key(d) && !d->c.err) {
        if (is(d, STR("version")))
            g->service_version = get_str(d);
        else
            put_any(d, dotted(d, STR("aws.xray.service"), d->r.text));
    }
}

static void put_subsegments_later(struct decoder *d, struct segment *g)
{
    g->subsegments = d->r;
    g->has_subsegments = true;
    json_skip(&d->r);
}

static void parts_field(struct decoder *d, struct segment *g)
{
    if (is(d, STR("http")))
        put_http(d);
    else if (is(d, STR("sql")))
        put_renamed(d, sql, N(sql), STR("aws.xray.sql"));
    else if (is(d, STR("annotations")))
        put_each(d, STR_NONE);
    else if (is(d, STR("metadata")))
        put_each(d, STR("aws.xray.metadata"));
    else if (is(d, STR("cause")))
        put_cause(d, g);
    else if (is(d, STR("error")))
        put_flag(d, g, STR("aws.xray.error"), true);
    else if (is(d, STR("fault")))
        put_flag(d, g, STR("aws.xray.fault"), true);
    else if (is(d, STR("throttle")))
        put_flag(d, g, STR("aws.xray.throttle"), false);
    else if (is(d, STR("user")))
        put_any(d, STR("enduser.id"));
    else if (is(d, STR("service")))
        get_service(d, g);
    else if (is(d, STR("precursor_ids")))
        put_precursors(d);
    else if (is(d, STR("subsegments")))
        put_subsegments_later(d, g);
    else
        put_any(d, dotted(d, STR("aws.xray"), d->r.text));
}

static void segment_field(struct decoder *d, struct segment *g)
{
    if (is(d, STR("name"))) {
        g->span.name = get_str(d);
    } else if (is(d, STR("id"))) {
        get_span_id(d, &g->span.span_id);
    } else if (is(d, STR("trace_id"))) {
        get_trace_id(d, &g->span.trace_id);
    } else if (is(d, STR("parent_id"))) {
        get_span_id(d, &g->span.parent_id);
    } else if (is(d, STR("start_time"))) {
        g->span.start_ns = get_time(d);
    } else if (is(d, STR("end_time"))) {
        g->span.end_ns = get_time(d);
        g->has_end = g->span.end_ns != 0;
    } else if (is(d, STR("in_progress"))) {
        g->in_progress = get_bool(d);
    } else if (is(d, STR("type"))) {
        g->is_subsegment = str_eq(get_str(d), STR("subsegment"));
    } else if (is(d, STR("namespace"))) {
        g->namespace = get_str(d);
    } else if (is(d, STR("aws"))) {
        if (object_begins(d))
            put_flat(d, STR("aws"), 0);
    } else {
        parts_field(d, g);
    }
}

/* ---- a segment and those in it ---- */

static const struct resource *resource_of(struct decoder *d, const struct segment *g)
{
    if (!g->service_version.len)
        return collect_service(&d->c, g->span.name);
    struct resource *r = arena_zalloc(d->c.arena, sizeof *r);
    struct attr *attrs = r ? arena_array(d->c.arena, 2, sizeof *attrs) : NULL;
    if (!attrs) {
        d->c.err = ERR_NOMEM;
        return NULL;
    }
    attrs[0] = (struct attr){STR("service.name"), {.type = VALUE_STRING, .string = g->span.name}};
    attrs[1] = (struct attr){STR("service.version"),
                             {.type = VALUE_STRING, .string = g->service_version}};
    r->attrs = (struct attrs){.items = attrs, .n = 2};
    resource_set_service_name(r);
    return r;
}

/* What had to wait for the segment's own times and ids. */
static void settle(struct decoder *d, struct segment *g)
{
    struct event *events = (struct event *)(void *)d->c.events.ptr;
    struct link *links = (struct link *)(void *)d->c.links.ptr;
    if (!g->has_end)
        g->span.end_ns = g->span.start_ns;
    for (size_t i = 0; i < d->c.events.len / sizeof *events; i++)
        events[i].time_ns = g->span.end_ns;
    for (size_t i = 0; i < d->c.links.len / sizeof *links; i++)
        links[i].trace_id = g->span.trace_id;
    if (g->in_progress || !g->has_end)
        collect_attr(&d->c, STR("aws.xray.in_progress"),
                     &(struct value){.type = VALUE_BOOL, .boolean = true});
}

/* The object is open. */
static void segment_decode(struct decoder *d, const struct outer *outer, unsigned depth)
{
    struct segment g = {.span = {.name = STR(""), .status_message = STR("")}};
    if (depth > XRAY_DEPTH_MAX) {
        json_fail_with(&d->r, ERR_TOO_LARGE, "subsegments are nested too deeply");
        return;
    }
    g.is_subsegment = depth > 0;
    if (outer)
        g.span.trace_id = outer->trace_id;
    while (key(d) && !d->c.err)
        segment_field(d, &g);
    if (d->r.err || d->c.err)
        return;
    if (outer) { /* where it stands says more than what it says */
        g.span.trace_id = outer->trace_id;
        g.span.parent_id = outer->span_id;
        g.is_subsegment = true;
    }
    bool is_call = str_eq(g.namespace, STR("remote")) || str_eq(g.namespace, STR("aws"));
    if (g.namespace.len)
        collect_attr_str(&d->c, STR("aws.xray.namespace"), g.namespace);
    g.span.kind = !g.is_subsegment ? SPAN_KIND_SERVER
                  : is_call        ? SPAN_KIND_CLIENT
                                   : SPAN_KIND_INTERNAL;
    g.span.resource = outer ? outer->resource : g.is_subsegment ? NULL : resource_of(d, &g);
    if (!g.span.start_ns)
        collect_reject(&d->c, "a segment without a start");
    settle(d, &g);
    struct outer inner = {g.span.trace_id, g.span.span_id, g.span.resource};
    collect_span(&d->c, &g.span);
    if (!g.has_subsegments || d->c.err)
        return;
    struct json_reader after = d->r;
    d->r = g.subsegments;
    if (json_next(&d->r) == JSON_ARRAY)
        while (json_next(&d->r) == JSON_OBJECT && !d->c.err)
            segment_decode(d, &inner, depth + 1);
    if (!d->r.err && !d->c.err && d->r.type != JSON_ARRAY_END && d->r.type != JSON_NULL)
        json_fail(&d->r, "a list of subsegments");
    if (!d->r.err)
        d->r = after;
}

/* {"format":"json","version":1}; `body` is what follows it. */
static int head_decode(struct str *body, struct arena *arena, struct error_detail *ret_detail)
{
    struct str rest, head = str_split(*body, '\n', &rest);
    struct json_reader r;
    bool json = false;
    int64_t version = 0;
    json_reader_init(&r, head, arena, NULL);
    if (rest.ptr && json_next(&r) == JSON_OBJECT) {
        while (json_next(&r) == JSON_KEY) {
            bool is_format = str_eq(r.text, STR("format"));
            bool is_version = str_eq(r.text, STR("version"));
            if (!is_format && !is_version) {
                json_skip(&r);
                continue;
            }
            json_next(&r);
            if (is_format)
                json = r.type == JSON_STRING && str_eq(r.text, STR("json"));
            else if (!json_to_i64(&r, &version))
                version = 0;
        }
    }
    if (r.err || !json || version != 1)
        return error_set(ret_detail, ERR_INVALID, 0,
                         "the first line is not {\"format\":\"json\",\"version\":1}");
    *body = rest;
    return 0;
}

int xray_decode(struct str body, struct arena *arena, struct span_batch *ret_batch,
                struct error_detail *ret_detail)
{
    struct decoder d;
    size_t whole = body.len;
    int err = head_decode(&body, arena, ret_detail);
    if (err)
        return err;
    collect_init(&d.c, arena);
    json_reader_init(&d.r, body, arena, ret_detail);
    if (json_next(&d.r) == JSON_OBJECT)
        segment_decode(&d, NULL, 0);
    else
        json_fail(&d.r, "a segment document");
    if (!d.c.err && !d.r.err)
        json_next(&d.r); /* the end, or what should not be there */
    err = d.c.err ? d.c.err : d.r.err;
    if (!err)
        return collect_batch(&d.c, ret_batch);
    if (ret_detail && d.r.err)
        ret_detail->position += whole - body.len;
    collect_done(&d.c);
    return err;
}
