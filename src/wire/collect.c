#include "wire/collect.h"

#define NS_PER_US 1000

enum { RESOURCES_SEEN_MAX = 32 };

static const struct resource no_resource = {.service_name = {"unknown_service", 15}};
static const struct scope no_scope;

void collect_init(struct collect *c, struct arena *arena)
{
    *c = (struct collect){.arena = arena};
    struct buf *bufs[] = {&c->attrs, &c->events, &c->links, &c->spans};
    for (size_t i = 0; i < sizeof bufs / sizeof *bufs; i++)
        bufs[i]->bytes_max = arena->bytes_max;
}

void collect_done(struct collect *c)
{
    buf_done(&c->attrs);
    buf_done(&c->events);
    buf_done(&c->links);
    buf_done(&c->spans);
    buf_done(&c->resources);
}

void collect_reject(struct collect *c, const char *reason)
{
    if (!c->reject)
        c->reject = reason;
}

struct str collect_text(struct collect *c, struct str s)
{
    if (!str_is_utf8(s))
        collect_reject(c, "a text is not UTF-8");
    return s;
}

uint64_t collect_us(struct collect *c, uint64_t us)
{
    if (us <= UINT64_MAX / NS_PER_US)
        return us * NS_PER_US;
    collect_reject(c, "a time is beyond what nanoseconds can say");
    return 0;
}

static void add(struct collect *c, struct buf *to, const void *item, size_t size)
{
    buf_put(to, item, size);
    if (!buf_ok(to))
        c->err = ERR_NOMEM;
}

void collect_attr(struct collect *c, struct str key, const struct value *value)
{
    struct attr attr = {key, *value};
    add(c, &c->attrs, &attr, sizeof attr);
}

void collect_attr_str(struct collect *c, struct str key, struct str text)
{
    collect_attr(c, key, &(struct value){.type = VALUE_STRING, .string = text});
}

void collect_attr_int(struct collect *c, struct str key, int64_t n)
{
    collect_attr(c, key, &(struct value){.type = VALUE_INT, .integer = n});
}

const struct attr *collect_find(const struct collect *c, struct str key)
{
    struct attrs attrs = {.items = (const struct attr *)(const void *)c->attrs.ptr,
                          .n = (uint32_t)(c->attrs.len / sizeof(struct attr))};
    return attrs_find(&attrs, key);
}

/* What stands in `from` beyond `mark`, moved into the arena. */
static const void *settle(struct collect *c, struct buf *from, size_t mark, size_t size,
                          uint32_t *ret_n)
{
    size_t bytes = from->len - mark;
    void *items = bytes && !c->err ? arena_alloc(c->arena, bytes) : NULL;
    if (bytes && !items)
        c->err = ERR_NOMEM;
    if (items)
        memcpy(items, from->ptr + mark, bytes);
    from->len = mark;
    *ret_n = items ? (uint32_t)(bytes / size) : 0;
    return items;
}

size_t collect_mark(const struct collect *c)
{
    return c->attrs.len;
}

struct attrs collect_take_attrs(struct collect *c, size_t from)
{
    struct attrs attrs = {0};
    attrs.items = settle(c, &c->attrs, from, sizeof(struct attr), &attrs.n);
    return attrs;
}

void collect_event(struct collect *c, const struct event *event)
{
    add(c, &c->events, event, sizeof *event);
}

void collect_link(struct collect *c, const struct link *link)
{
    add(c, &c->links, link, sizeof *link);
}

const struct resource *collect_service(struct collect *c, struct str service)
{
    if (!service.len)
        return &no_resource;
    size_t n = c->resources.len / sizeof(struct resource *);
    const struct resource *const *seen = (const void *)c->resources.ptr; /* whole ones only */
    for (size_t i = n; i-- > 0;)
        if (str_eq(seen[i]->service_name, service))
            return seen[i];
    struct resource *r = arena_zalloc(c->arena, sizeof *r);
    struct attr *name = r ? arena_zalloc(c->arena, sizeof *name) : NULL;
    if (!name) {
        c->err = ERR_NOMEM;
        return &no_resource;
    }
    *name = (struct attr){STR("service.name"), {.type = VALUE_STRING, .string = service}};
    r->attrs = (struct attrs){.items = name, .n = 1};
    r->service_name = service;
    if (n < RESOURCES_SEEN_MAX)
        add(c, &c->resources, &r, sizeof(const void *));
    return r;
}

void collect_drop(struct collect *c)
{
    c->attrs.len = c->events.len = c->links.len = 0;
    c->reject = NULL;
}

void collect_span(struct collect *c, struct span *s)
{
    if (trace_id_is_zero(&s->trace_id))
        collect_reject(c, "a trace id of zeros");
    else if (span_id_is_zero(&s->span_id))
        collect_reject(c, "a span id of zeros");
    if (c->reject) {
        if (!c->rejected_reason)
            c->rejected_reason = c->reject;
        c->n_rejected++;
        rejected_add(&c->rejected, &s->trace_id, c->arena);
        collect_drop(c);
        return;
    }
    if (!s->resource)
        s->resource = &no_resource;
    if (!s->scope)
        s->scope = &no_scope;
    uint32_t dropped = s->attrs.dropped;
    s->attrs = collect_take_attrs(c, 0);
    s->attrs.dropped = dropped;
    s->events = settle(c, &c->events, 0, sizeof *s->events, &s->n_events);
    s->links = settle(c, &c->links, 0, sizeof *s->links, &s->n_links);
    add(c, &c->spans, s, sizeof *s);
}

size_t collect_spans(const struct collect *c)
{
    return c->spans.len / sizeof(struct span);
}

void collect_reject_spans(struct collect *c, size_t first, const char *reason)
{
    size_t n = collect_spans(c) - first;
    if (n && !c->rejected_reason)
        c->rejected_reason = reason;
    c->n_rejected += n;
    for (size_t i = first; i < first + n; i++) {
        struct span s;
        memcpy(&s, c->spans.ptr + i * sizeof s, sizeof s);
        rejected_add(&c->rejected, &s.trace_id, c->arena);
    }
    c->spans.len = first * sizeof(struct span);
}

int collect_batch(struct collect *c, struct span_batch *ret_batch)
{
    uint32_t n = 0;
    const struct span *spans = settle(c, &c->spans, 0, sizeof *spans, &n);
    int err = c->err;
    if (!err)
        *ret_batch = (struct span_batch){.spans = (struct span *)(uintptr_t)spans,
                                         .n = n,
                                         .n_rejected = c->n_rejected,
                                         .rejected_reason = c->rejected_reason,
                                         .rejected = c->rejected.ids,
                                         .n_rejected_known = c->rejected.n};
    collect_done(c);
    return err;
}
