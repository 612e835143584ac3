#include "ingest/cut.h"

#include "base/err.h"

/* Keys that a mark names; more than these are only counted. */
enum { MARKED_MAX = 16 };

struct cutter {
    struct arena *arena;
    size_t bytes_max, attrs_max;
    struct cut_counts counts;
    struct value marked[MARKED_MAX]; /* of the span or resource at hand */
    size_t n_marked;
    int err;
};

static void mark(struct cutter *c, struct str key)
{
    for (size_t i = 0; i < c->n_marked; i++)
        if (str_eq(c->marked[i].string, key))
            return;
    if (c->n_marked < MARKED_MAX)
        c->marked[c->n_marked++] = (struct value){.type = VALUE_STRING, .string = key};
}

/* Not in the middle of a character. */
static struct str shorten(struct str s, size_t n)
{
    while (n && ((unsigned char)s.ptr[n] & 0xc0) == 0x80)
        n--;
    return (struct str){s.ptr, n};
}

static void cut_text(struct cutter *c, struct str *s, struct str key)
{
    if (s->len <= c->bytes_max)
        return;
    *s = shorten(*s, c->bytes_max);
    c->counts.values++;
    mark(c, key);
}

static bool is_long(const struct value *v, size_t bytes_max)
{
    switch (v->type) {
    case VALUE_STRING:
    case VALUE_BYTES:
        return v->string.len > bytes_max;
    case VALUE_ARRAY:
        for (size_t i = 0; i < v->array.n; i++)
            if (is_long(&v->array.items[i], bytes_max))
                return true;
        return false;
    case VALUE_MAP:
        for (size_t i = 0; i < v->map.n; i++)
            if (v->map.items[i].key.len > bytes_max || is_long(&v->map.items[i].value, bytes_max))
                return true;
        return false;
    default:
        return false;
    }
}

static void *copy(struct cutter *c, const void *items, size_t n, size_t size)
{
    void *to = arena_array(c->arena, n, size);
    if (!to) {
        c->err = ERR_NOMEM;
        return NULL;
    }
    return memcpy(to, items, n * size);
}

/* Depth is bounded by the decoder (VALUE_DEPTH_MAX). */
static void cut_value(struct cutter *c, struct value *v, struct str key)
{
    if (!is_long(v, c->bytes_max))
        return;
    if (v->type == VALUE_STRING) {
        cut_text(c, &v->string, key);
    } else if (v->type == VALUE_BYTES) {
        v->bytes.len = c->bytes_max;
        c->counts.values++;
        mark(c, key);
    } else if (v->type == VALUE_ARRAY) {
        struct value *items = copy(c, v->array.items, v->array.n, sizeof *items);
        for (size_t i = 0; items && i < v->array.n; i++)
            cut_value(c, &items[i], key);
        v->array.items = items ? items : v->array.items;
    } else {
        struct attr *items = copy(c, v->map.items, v->map.n, sizeof *items);
        for (size_t i = 0; items && i < v->map.n; i++) {
            cut_text(c, &items[i].key, key);
            cut_value(c, &items[i].value, key);
        }
        v->map.items = items ? items : v->map.items;
    }
}

static void cut_attrs(struct cutter *c, struct attrs *attrs)
{
    if (attrs->n > c->attrs_max) {
        attrs->dropped += attrs->n - (uint32_t)c->attrs_max;
        attrs->n = (uint32_t)c->attrs_max;
        c->counts.lists++;
        mark(c, STR("(attributes)"));
    }
    for (uint32_t i = 0; i < attrs->n; i++) {
        const struct attr *a = &attrs->items[i];
        if (a->key.len <= c->bytes_max && !is_long(&a->value, c->bytes_max))
            continue;
        struct attr *items = copy(c, attrs->items, attrs->n, sizeof *items);
        if (!items)
            return;
        for (; i < attrs->n; i++) {
            cut_text(c, &items[i].key, STR("(key)"));
            cut_value(c, &items[i].value, items[i].key);
        }
        attrs->items = items;
        return;
    }
}

/* The marks made since the last call become an attribute. */
static void put_marks(struct cutter *c, struct attrs *attrs)
{
    if (!c->n_marked)
        return;
    struct attr *items = arena_array(c->arena, (size_t)attrs->n + 1, sizeof *items);
    struct value *keys = copy(c, c->marked, c->n_marked, sizeof *keys);
    if (!items || !keys) {
        c->err = ERR_NOMEM;
        return;
    }
    if (attrs->n)
        memcpy(items, attrs->items, attrs->n * sizeof *items);
    items[attrs->n] = (struct attr){
        .key = STR(CUT_KEY),
        .value = {.type = VALUE_ARRAY, .array = {.items = keys, .n = c->n_marked}},
    };
    attrs->items = items;
    attrs->n++;
    c->n_marked = 0;
}

static void cut_events(struct cutter *c, struct span *span)
{
    struct event *events = copy(c, span->events, span->n_events, sizeof *events);
    for (uint32_t i = 0; events && i < span->n_events; i++) {
        cut_text(c, &events[i].name, STR("(event name)"));
        cut_attrs(c, &events[i].attrs);
    }
    span->events = events ? events : span->events;
}

static void cut_links(struct cutter *c, struct span *span)
{
    struct link *links = copy(c, span->links, span->n_links, sizeof *links);
    for (uint32_t i = 0; links && i < span->n_links; i++) {
        cut_text(c, &links[i].trace_state, STR("(link trace state)"));
        cut_attrs(c, &links[i].attrs);
    }
    span->links = links ? links : span->links;
}

static const struct resource *cut_resource(struct cutter *c, const struct resource *from)
{
    struct resource *r = copy(c, from, 1, sizeof *r);
    if (!r)
        return from;
    cut_text(c, &r->schema_url, STR("(schema url)"));
    cut_attrs(c, &r->attrs);
    put_marks(c, &r->attrs);
    resource_set_service_name(r);
    return r;
}

static const struct scope *cut_scope(struct cutter *c, const struct scope *from)
{
    struct scope *s = copy(c, from, 1, sizeof *s);
    if (!s)
        return from;
    cut_text(c, &s->name, STR("(name)"));
    cut_text(c, &s->version, STR("(version)"));
    cut_text(c, &s->schema_url, STR("(schema url)"));
    cut_attrs(c, &s->attrs);
    put_marks(c, &s->attrs);
    return s;
}

/* What was cut since `before`. */
static uint8_t cut_since(const struct cutter *c, const struct cut_counts *before)
{
    return (uint8_t)((c->counts.values > before->values ? CUT_VALUES : 0) |
                     (c->counts.lists > before->lists ? CUT_LISTS : 0));
}

static void mark_span(struct cutter *c, size_t n_spans, size_t i, uint8_t bits)
{
    if (!bits)
        return;
    if (!c->counts.marks) {
        c->counts.marks = arena_array(c->arena, n_spans, 1);
        if (!c->counts.marks) {
            c->err = ERR_NOMEM;
            return;
        }
        memset(c->counts.marks, 0, n_spans);
    }
    c->counts.marks[i] = bits;
}

bool cut_has_many(const struct span_batch *batch, size_t attrs_max)
{
    const struct resource *resource = NULL;
    const struct scope *scope = NULL;
    for (size_t i = 0; i < batch->n; i++) {
        const struct span *span = &batch->spans[i];
        bool many = span->attrs.n > attrs_max;
        if (span->resource != resource)
            many |= (resource = span->resource)->attrs.n > attrs_max;
        if (span->scope != scope)
            many |= (scope = span->scope)->attrs.n > attrs_max;
        for (uint32_t k = 0; k < span->n_events; k++)
            many |= span->events[k].attrs.n > attrs_max;
        for (uint32_t k = 0; k < span->n_links; k++)
            many |= span->links[k].attrs.n > attrs_max;
        if (many)
            return true;
    }
    return false;
}

int cut_batch(struct span_batch *batch, size_t bytes_max, size_t attrs_max, struct arena *arena,
              struct cut_counts *ret)
{
    struct cutter c = {.arena = arena, .bytes_max = bytes_max, .attrs_max = attrs_max};
    const struct resource *resource = NULL, *resource_cut = NULL;
    const struct scope *scope = NULL, *scope_cut = NULL;
    uint8_t resource_bits = 0, scope_bits = 0;
    for (size_t i = 0; i < batch->n && !c.err; i++) {
        struct span *span = &batch->spans[i];
        struct cut_counts before = c.counts;
        cut_text(&c, &span->name, STR("(name)"));
        cut_text(&c, &span->status_message, STR("(status message)"));
        cut_text(&c, &span->trace_state, STR("(trace state)"));
        cut_attrs(&c, &span->attrs);
        if (span->n_events)
            cut_events(&c, span);
        if (span->n_links)
            cut_links(&c, span);
        put_marks(&c, &span->attrs);
        uint8_t bits = cut_since(&c, &before);
        /* Neighbours share theirs, before and after. */
        if (span->resource != resource) {
            resource = span->resource;
            before = c.counts;
            resource_cut = cut_resource(&c, resource);
            resource_bits = cut_since(&c, &before);
        }
        if (span->scope != scope) {
            scope = span->scope;
            before = c.counts;
            scope_cut = cut_scope(&c, scope);
            scope_bits = cut_since(&c, &before);
        }
        span->resource = resource_cut;
        span->scope = scope_cut;
        mark_span(&c, batch->n, i, bits | resource_bits | scope_bits);
    }
    if (c.err)
        return c.err;
    *ret = c.counts;
    return 0;
}
