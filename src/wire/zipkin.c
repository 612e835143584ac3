#include "wire/zipkin.h"

#include "wire/value_json.h"
#include "wire/zipkin_put.h"

#include <arpa/inet.h>

/* ---- encoding: tags ----
 *
 * Tags are one flat object of strings, in which a name may stand once. Names of our own come first,
 * then the span's attributes, then those of the resource; who comes first has the name. */

static bool is_false(const struct value *v)
{
    return (v->type == VALUE_BOOL && !v->boolean) ||
           (v->type == VALUE_STRING && str_eq(v->string, STR("false")));
}

/* Is `key` taken by what tags_put writes itself? */
static bool is_own(const struct span *s, struct str key)
{
    if (str_eq(key, STR("error")))
        return s->status_code == STATUS_ERROR;
    if (str_eq(key, STR("otel.status_code")))
        return s->status_code != STATUS_UNSET;
    if (str_eq(key, STR("otel.scope.name")) || str_eq(key, STR("otel.library.name")))
        return s->scope->name.len > 0;
    if (str_eq(key, STR("otel.scope.version")) || str_eq(key, STR("otel.library.version")))
        return s->scope->version.len > 0;
    return (str_eq(key, STR("otel.dropped_attributes_count")) && s->attrs.dropped) ||
           (str_eq(key, STR("otel.dropped_events_count")) && s->dropped_events) ||
           (str_eq(key, STR("otel.dropped_links_count")) && s->dropped_links);
}

static void tag_put(struct json_writer *w, struct str key, struct str text)
{
    json_key(w, key);
    json_str(w, text);
}

static void tag_count(struct json_writer *w, struct str key, uint64_t n)
{
    if (n) {
        json_key(w, key);
        json_u64_str(w, n);
    }
}

/* Tags are strings; what is not one is its JSON text. */
static void tag_value(struct json_writer *w, struct str key, const struct value *v,
                      struct buf *scratch)
{
    if (v->type == VALUE_STRING) {
        tag_put(w, key, v->string);
        return;
    }
    struct json_writer text = json_writer(scratch);
    buf_clear(scratch);
    value_json(v, &text);
    struct str s = buf_as_str(scratch);
    if (v->type != VALUE_ARRAY && v->type != VALUE_MAP && s.len >= 2 && s.ptr[0] == '"')
        s = (struct str){s.ptr + 1, s.len - 2}; /* "NaN", base64 */
    tag_put(w, key, s);
}

void zipkin__tags_put(struct json_writer *w, const struct span *s, struct buf *scratch)
{
    json_key(w, STR("tags"));
    json_open(w, '{');
    if (s->status_code != STATUS_UNSET)
        tag_put(w, STR("otel.status_code"),
                s->status_code == STATUS_ERROR ? STR("ERROR") : STR("OK"));
    if (s->status_code == STATUS_ERROR)
        tag_put(w, STR("error"), s->status_message);
    if (s->scope->name.len) {
        tag_put(w, STR("otel.scope.name"), s->scope->name);
        tag_put(w, STR("otel.library.name"), s->scope->name);
    }
    if (s->scope->version.len) {
        tag_put(w, STR("otel.scope.version"), s->scope->version);
        tag_put(w, STR("otel.library.version"), s->scope->version);
    }
    tag_count(w, STR("otel.dropped_attributes_count"), s->attrs.dropped);
    tag_count(w, STR("otel.dropped_events_count"), s->dropped_events);
    tag_count(w, STR("otel.dropped_links_count"), s->dropped_links);
    for (uint32_t i = 0; i < s->attrs.n; i++) {
        const struct attr *a = &s->attrs.items[i];
        bool no_error = str_eq(a->key, STR("error")) && is_false(&a->value);
        if (!no_error && !is_own(s, a->key) && attrs_find(&s->attrs, a->key) == a)
            tag_value(w, a->key, &a->value, scratch);
    }
    for (uint32_t i = 0; i < s->resource->attrs.n; i++) {
        const struct attr *a = &s->resource->attrs.items[i];
        if (!str_eq(a->key, STR("service.name")) && !is_own(s, a->key) &&
            !attrs_find(&s->attrs, a->key) && attrs_find(&s->resource->attrs, a->key) == a)
            tag_value(w, a->key, &a->value, scratch);
    }
    json_close(w, '}');
}

/* ---- encoding: the other side ---- */

static struct str find_text(const struct span *s, struct str key)
{
    const struct attr *a = attrs_find(&s->attrs, key);
    return a && a->value.type == VALUE_STRING ? a->value.string : STR_NONE;
}

/* "ipv4", "ipv6", or NULL for a name. */
static const char *address_kind(struct str text)
{
    char copy[INET6_ADDRSTRLEN];
    unsigned char bytes[16];
    if (text.len >= sizeof copy)
        return NULL;
    memcpy(copy, text.ptr, text.len);
    copy[text.len] = '\0';
    return inet_pton(AF_INET, copy, bytes) == 1    ? "ipv4"
           : inet_pton(AF_INET6, copy, bytes) == 1 ? "ipv6"
                                                   : NULL;
}

/* In the order the specification ranks them. */
void zipkin__remote_put(struct json_writer *w, const struct span *s)
{
    static const struct {
        struct str name, port;
    } ranks[] = {
        {{"peer.service", 12}, STR_NONE},
        {{"server.address", 14}, STR_NONE},
        {{"net.peer.name", 13}, STR_NONE},
        {{"network.peer.address", 20}, {"network.peer.port", 17}},
        {{"server.socket.domain", 20}, STR_NONE},
        {{"server.socket.address", 21}, {"server.socket.port", 18}},
        {{"net.sock.peer.name", 18}, STR_NONE},
        {{"net.sock.peer.addr", 18}, {"net.sock.peer.port", 18}},
        {{"peer.hostname", 13}, STR_NONE},
        {{"peer.address", 12}, STR_NONE},
        {{"db.name", 7}, STR_NONE},
    };
    struct str name = STR_NONE;
    size_t i = 0;
    for (; i < sizeof ranks / sizeof ranks[0] && !name.len; i++)
        name = find_text(s, ranks[i].name);
    if (!name.len)
        return;
    struct str port_key = ranks[i - 1].port;
    const char *address = port_key.len ? address_kind(name) : NULL;
    const struct attr *port = port_key.len ? attrs_find(&s->attrs, port_key) : NULL;
    json_key(w, STR("remoteEndpoint"));
    json_open(w, '{');
    tag_put(w, address ? str_from(address) : STR("serviceName"), name);
    if (port && port->value.type == VALUE_INT && port->value.integer > 0 &&
        port->value.integer <= UINT16_MAX) {
        json_key(w, STR("port"));
        json_i64(w, port->value.integer);
    }
    json_close(w, '}');
}

/* ---- encoding: spans ---- */

void zipkin__annotations_put(struct json_writer *w, const struct span *s, struct buf *scratch)
{
    json_key(w, STR("annotations"));
    json_open(w, '[');
    for (uint32_t i = 0; i < s->n_events; i++) {
        const struct event *e = &s->events[i];
        json_open(w, '{');
        json_key(w, STR("timestamp"));
        json_u64(w, e->time_ns / NS_PER_US);
        if (e->attrs.n) { /* "name": {attributes}, as text */
            struct json_writer text = json_writer(scratch);
            buf_clear(scratch);
            json_str(&text, e->name);
            buf_cstr(scratch, ": ");
            text = json_writer(scratch);
            attrs_json(&e->attrs, &text);
            tag_put(w, STR("value"), buf_as_str(scratch));
        } else {
            tag_put(w, STR("value"), e->name);
        }
        json_close(w, '}');
    }
    json_close(w, ']');
}

static void span_put(struct json_writer *w, const struct span *s, struct buf *scratch)
{
    static const char *const kinds[] = {[SPAN_KIND_SERVER] = "SERVER",
                                        [SPAN_KIND_CLIENT] = "CLIENT",
                                        [SPAN_KIND_PRODUCER] = "PRODUCER",
                                        [SPAN_KIND_CONSUMER] = "CONSUMER"};
    uint64_t duration = span_duration_ns(s) / NS_PER_US;
    json_open(w, '{');
    json_key(w, STR("traceId"));
    json_hex(w, s->trace_id.bytes, TRACE_ID_SIZE);
    if (!span_id_is_zero(&s->parent_id)) {
        json_key(w, STR("parentId"));
        json_hex(w, s->parent_id.bytes, SPAN_ID_SIZE);
    }
    json_key(w, STR("id"));
    json_hex(w, s->span_id.bytes, SPAN_ID_SIZE);
    if (s->kind <= SPAN_KIND_CONSUMER && kinds[s->kind])
        tag_put(w, STR("kind"), str_from(kinds[s->kind]));
    tag_put(w, STR("name"), s->name);
    json_key(w, STR("timestamp"));
    json_u64(w, s->start_ns / NS_PER_US);
    json_key(w, STR("duration")); /* 0 would say that it is not known */
    json_u64(w, duration ? duration : 1);
    json_key(w, STR("localEndpoint"));
    json_open(w, '{');
    tag_put(w, STR("serviceName"), s->resource->service_name);
    json_close(w, '}');
    if (s->kind == SPAN_KIND_CLIENT || s->kind == SPAN_KIND_PRODUCER)
        zipkin__remote_put(w, s);
    if (s->n_events)
        zipkin__annotations_put(w, s, scratch);
    zipkin__tags_put(w, s, scratch);
    json_close(w, '}');
}

void zipkin_json_encode(const struct span_batch *batch, struct json_writer *w)
{
    struct buf scratch = BUF_INIT;
    json_open(w, '[');
    for (size_t i = 0; i < batch->n; i++)
        span_put(w, &batch->spans[i], &scratch);
    json_close(w, ']');
    if (!buf_ok(&scratch))
        w->out->failed = true;
    buf_done(&scratch);
}
