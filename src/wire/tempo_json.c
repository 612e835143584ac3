#include "wire/tempo_json.h"

#include "wire/otlp_json.h"

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
    if (ns) {
        json_key(w, name);
        json_u64_str(w, ns);
    }
}

static void put_id(struct json_writer *w, struct str name, const uint8_t *bytes, size_t n)
{
    json_key(w, name);
    json_base64(w, bytes, n);
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
            json_open(w, '{');
            put_time(w, STR("timeUnixNano"), s->events[i].time_ns);
            put_str(w, STR("name"), s->events[i].name);
            put_attrs(w, &s->events[i].attrs);
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
            put_id(w, STR("traceId"), l->trace_id.bytes, TRACE_ID_SIZE);
            put_id(w, STR("spanId"), l->span_id.bytes, SPAN_ID_SIZE);
            put_str(w, STR("traceState"), l->trace_state);
            put_attrs(w, &l->attrs);
            put_count(w, STR("flags"), l->flags);
            json_close(w, '}');
        }
        json_close(w, ']');
    }
    put_count(w, STR("droppedLinksCount"), s->dropped_links);
}

static void put_status(struct json_writer *w, const struct span *s)
{
    static const char *const names[] = {
        [STATUS_OK] = "STATUS_CODE_OK",
        [STATUS_ERROR] = "STATUS_CODE_ERROR",
    };
    json_key(w, STR("status"));
    json_open(w, '{');
    put_str(w, STR("message"), s->status_message);
    if (s->status_code == STATUS_OK || s->status_code == STATUS_ERROR)
        put_str(w, STR("code"), str_from(names[s->status_code]));
    json_close(w, '}');
}

static void span_put(const struct span *s, struct json_writer *w)
{
    json_open(w, '{');
    put_id(w, STR("traceId"), s->trace_id.bytes, TRACE_ID_SIZE);
    put_id(w, STR("spanId"), s->span_id.bytes, SPAN_ID_SIZE);
    put_str(w, STR("traceState"), s->trace_state);
    if (!span_id_is_zero(&s->parent_id))
        put_id(w, STR("parentSpanId"), s->parent_id.bytes, SPAN_ID_SIZE);
    put_count(w, STR("flags"), s->flags);
    put_str(w, STR("name"), s->name);
    if (s->kind != SPAN_KIND_UNSPECIFIED) {
        struct buf kind = BUF_INIT;
        buf_printf(&kind, "SPAN_KIND_%s", span_kind_name(s->kind));
        put_str(w, STR("kind"), buf_as_str(&kind));
        buf_done(&kind);
    }
    put_time(w, STR("startTimeUnixNano"), s->start_ns);
    put_time(w, STR("endTimeUnixNano"), s->end_ns);
    put_attrs(w, &s->attrs);
    put_events(w, s);
    put_links(w, s);
    put_status(w, s);
    json_close(w, '}');
}

/* The neighbours from `i` on that share resource and scope; returns past them. */
static size_t scope_put(const struct span_batch *batch, size_t i, struct json_writer *w)
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
    while (i < batch->n && batch->spans[i].resource == resource && batch->spans[i].scope == scope)
        span_put(&batch->spans[i++], w);
    json_close(w, ']');
    put_str(w, STR("schemaUrl"), scope->schema_url);
    json_close(w, '}');
    return i;
}

void tempo_json_encode(const struct span_batch *batch, struct json_writer *w)
{
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
            i = scope_put(batch, i, w);
        json_close(w, ']');
        put_str(w, STR("schemaUrl"), resource->schema_url);
        json_close(w, '}');
    }
    json_close(w, ']');
}
