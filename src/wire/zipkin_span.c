#include "wire/zipkin_span.h"

#include "base/hash.h"

#include <arpa/inet.h>
#include <stdlib.h>

struct shared_span {
    struct trace_id trace_id;
    struct span_id id; /* the one that both halves came with */
    struct str service;
};

void zipkin_begin(struct zipkin_decoder *d, struct arena *arena)
{
    collect_init(&d->c, arena);
    d->shared = (struct buf){.bytes_max = arena->bytes_max};
    d->origin = (struct buf){.bytes_max = arena->bytes_max};
}

struct span_id zipkin_server_id(const struct trace_id *trace, const struct span_id *shared)
{
    uint64_t half, id;
    struct span_id ret;
    memcpy(&half, trace->bytes + SPAN_ID_SIZE, sizeof half);
    memcpy(&id, shared->bytes, sizeof id);
    /* Any constant that keeps the result from being the mix of other uses. */
    id = hash_mix64(le64toh(id) ^ hash_mix64(le64toh(half) ^ UINT64_C(0x736861726564)));
    if (!id)
        id = 1;
    id = htole64(id);
    memcpy(ret.bytes, &id, sizeof id);
    return ret;
}

struct str zipkin_address(struct collect *c, struct str bytes)
{
    char text[INET6_ADDRSTRLEN];
    int family = bytes.len == 4 ? AF_INET : bytes.len == 16 ? AF_INET6 : 0;
    if (!family || !inet_ntop(family, bytes.ptr, text, sizeof text))
        return STR_NONE;
    struct str copy = arena_str(c->arena, str_from(text));
    if (!copy.ptr)
        c->err = ERR_NOMEM;
    return copy;
}

/* ---- tags and annotations ---- */

static bool is_number(struct str value, uint32_t *ret)
{
    uint64_t n;
    if (!str_to_u64(value, &n) || n > UINT32_MAX)
        return false;
    *ret = (uint32_t)n;
    return true;
}

/* The scope of a span is made when its first tag comes. */
static struct scope *scope_of(struct zipkin_decoder *d, struct span *s)
{
    struct scope *scope = (struct scope *)(uintptr_t)s->scope;
    if (!scope) {
        scope = arena_zalloc(d->c.arena, sizeof *scope);
        if (!scope)
            d->c.err = ERR_NOMEM;
        s->scope = scope;
    }
    return scope;
}

/* Tags that say what the model has a place for: the reverse of OpenTelemetry's exporters. */
static bool is_known_tag(struct zipkin_decoder *d, struct span *s, struct str key, struct str value)
{
    if (str_eq(key, STR("error"))) {
        if (str_eq(value, STR("false")))
            return false;
        s->status_code = STATUS_ERROR;
        if (!str_eq(value, STR("true")))
            s->status_message = value;
        return true;
    }
    if (!str_starts(key, STR("otel.")))
        return false;
    if (str_eq(key, STR("otel.status_code"))) {
        bool error = str_eq(value, STR("ERROR"));
        if (!error && !str_eq(value, STR("OK")))
            return false;
        if (error || s->status_code == STATUS_UNSET)
            s->status_code = error ? STATUS_ERROR : STATUS_OK;
        return true;
    }
    if (str_eq(key, STR("otel.dropped_attributes_count")))
        return is_number(value, &s->attrs.dropped);
    if (str_eq(key, STR("otel.dropped_events_count")))
        return is_number(value, &s->dropped_events);
    if (str_eq(key, STR("otel.dropped_links_count")))
        return is_number(value, &s->dropped_links);
    bool name = str_eq(key, STR("otel.scope.name")) || str_eq(key, STR("otel.library.name"));
    bool version = str_eq(key, STR("otel.scope.version")) ||
                   str_eq(key, STR("otel.library.version"));
    struct scope *scope = name || version ? scope_of(d, s) : NULL;
    if (scope)
        *(name ? &scope->name : &scope->version) = value;
    return name || version;
}

void zipkin_tag(struct zipkin_decoder *d, struct span *s, struct str key, struct str value)
{
    if (!is_known_tag(d, s, key, value))
        collect_attr_str(&d->c, key, value);
}

void zipkin_annotation(struct zipkin_decoder *d, struct zipkin_span *z, uint64_t us,
                       struct str value)
{
    struct event e = {.time_ns = collect_us(&d->c, us), .name = value};
    if (us && (!z->first_annotation_us || us < z->first_annotation_us))
        z->first_annotation_us = us;
    collect_event(&d->c, &e);
}

/* ---- spans ---- */

static void attr_default(struct collect *c, struct str key, struct str text)
{
    if (text.len && !collect_find(c, key))
        collect_attr_str(c, key, text);
}

static void port_default(struct collect *c, struct str key, int64_t port)
{
    if (port > 0 && port <= UINT16_MAX && !collect_find(c, key))
        collect_attr_int(c, key, port);
}

void zipkin_end_span(struct zipkin_decoder *d, const struct zipkin_span *z, struct span *s)
{
    struct collect *c = &d->c;
    uint64_t start_us = z->timestamp_us ? z->timestamp_us : z->first_annotation_us;
    s->trace_id = z->trace_id;
    s->span_id = z->id;
    s->parent_id = z->parent_id;
    s->name = z->name;
    s->kind = z->kind ? z->kind : SPAN_KIND_INTERNAL;
    if (!start_us)
        collect_reject(c, "a span without a time");
    s->start_ns = collect_us(c, start_us);
    s->end_ns = z->duration_us > UINT64_MAX - start_us ? s->start_ns
                                                       : collect_us(c, start_us + z->duration_us);
    attr_default(c, STR("peer.service"), z->remote.service);
    attr_default(c, STR("network.peer.address"), z->remote.address);
    port_default(c, STR("network.peer.port"), z->remote.port);
    attr_default(c, STR("network.local.address"), z->local.address);
    port_default(c, STR("network.local.port"), z->local.port);
    if (z->debug && !collect_find(c, STR("zipkin.debug")))
        collect_attr(c, STR("zipkin.debug"), &(struct value){.type = VALUE_BOOL, .boolean = true});
    s->resource = collect_service(c, z->local.service);
    bool shared = z->shared && z->kind == SPAN_KIND_SERVER && !span_id_is_zero(&z->id);
    if (shared) {
        s->parent_id = z->id;
        s->span_id = zipkin_server_id(&z->trace_id, &z->id);
    }
    size_t before = c->spans.len;
    collect_span(c, s);
    if (c->spans.len == before)
        return;
    buf_byte(&d->origin, shared);
    if (shared) {
        struct shared_span half = {z->trace_id, z->id, s->resource->service_name};
        buf_put(&d->shared, &half, sizeof half);
    }
    if (!buf_ok(&d->origin) || !buf_ok(&d->shared))
        c->err = ERR_NOMEM;
}

static int shared_cmp(const void *a, const void *b)
{
    const struct shared_span *x = a, *y = b;
    int order = trace_id_cmp(&x->trace_id, &y->trace_id);
    if (!order)
        order = memcmp(x->id.bytes, y->id.bytes, SPAN_ID_SIZE);
    return order ? order : str_cmp(x->service, y->service);
}

/* Children of a shared span that come from the server's process. */
static void children_move(struct zipkin_decoder *d, struct span_batch *batch)
{
    size_t n = d->shared.len / sizeof(struct shared_span);
    if (!n)
        return;
    qsort(d->shared.ptr, n, sizeof(struct shared_span), shared_cmp);
    for (size_t i = 0; i < batch->n; i++) {
        struct span *s = &batch->spans[i];
        struct shared_span key = {s->trace_id, s->parent_id, s->resource->service_name};
        if (!d->origin.ptr[i] && bsearch(&key, d->shared.ptr, n, sizeof key, shared_cmp))
            s->parent_id = zipkin_server_id(&s->trace_id, &s->parent_id);
    }
}

int zipkin_finish(struct zipkin_decoder *d, int err, struct span_batch *ret_batch)
{
    struct span_batch batch = {0};
    if (err)
        collect_done(&d->c);
    else
        err = collect_batch(&d->c, &batch);
    if (!err) {
        children_move(d, &batch);
        *ret_batch = batch;
    }
    buf_done(&d->shared);
    buf_done(&d->origin);
    return err;
}
