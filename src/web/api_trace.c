/* GET /api/pugmark/traces/{id}: all of a trace.
 *
 * It is written span by span as the store gives them, in start order; resources and scopes are numbered on
 * the way and follow at the end. A trace that fits into one answer gets one. A larger one goes out as a
 * stream, on a thread of its own because the client decides how long that takes; a few of these at once. */
#include "web/json_keys.h"
#include "web/trace_json.h"
#include "web/traces.h"
#include "web/web_internal.h"

#include "base/hash.h"
#include "wire/otlp_json.h"

#include <stdlib.h>

enum {
    WHOLE_SPANS_MAX = 20000, /* in an answer of one piece */
    STREAM_BYTES_MAX = 1 << 20,
    STREAM_PIECE_BYTES = 128 << 10,
    STREAM_STALL_MS = 15000,
    STREAM_STACK_BYTES = 256 << 10,
};

static void key_attrs(struct json_writer *w, const struct attrs *attrs)
{
    json_key(w, STR("attributes"));
    otlp_json_encode_attrs(attrs, w);
}

/* Numbers resources and scopes in the order of their first use. Spans share them by pointer mostly;
 * where a trace came in several requests equal ones are found by what they look like in JSON. */
struct numbering {
    struct arena *arena;
    struct seen {
        const void *thing;
        uint32_t number;
    } seen[64];           /* looked at by address first */
    struct str *texts;    /* by number; malloc'ed */
    uint32_t *text_slots; /* by hash of the text: number + 1 */
    uint32_t n, capacity, mask;
    bool failed;
};

static bool numbering_grow(struct numbering *m)
{
    uint32_t capacity = m->capacity ? 2 * m->capacity : 16, mask = 2 * capacity - 1;
    struct str *texts = realloc(m->texts, capacity * sizeof *texts);
    m->texts = texts ? texts : m->texts;
    uint32_t *slots = calloc(mask + 1, sizeof *slots);
    if (!texts || !slots) {
        free(slots);
        return false;
    }
    for (uint32_t i = 0; i < m->n; i++) {
        uint32_t at = (uint32_t)hash_bytes_seed(texts[i].ptr, texts[i].len, hash_secret()) & mask;
        while (slots[at])
            at = (at + 1) & mask;
        slots[at] = i + 1;
    }
    free(m->text_slots);
    m->text_slots = slots;
    m->capacity = capacity;
    m->mask = mask;
    return true;
}

/* The things at addresses that were seen are gone. */
static void numbering_forget(struct numbering *m)
{
    memset(m->seen, 0, sizeof m->seen);
}

static void numbering_done(struct numbering *m)
{
    free(m->texts);
    free(m->text_slots);
}

typedef void thing_json_fn(struct json_writer *w, const void *thing);

static uint32_t number_of(struct numbering *m, const void *thing, thing_json_fn *json)
{
    struct seen *seen = &m->seen[hash_mix64((uintptr_t)thing) % (sizeof m->seen / sizeof *m->seen)];
    if (seen->thing == thing)
        return seen->number;
    if (m->n == m->capacity && !numbering_grow(m)) {
        m->failed = true;
        return 0;
    }
    struct buf text = BUF_INIT;
    struct json_writer w = json_writer(&text);
    json(&w, thing);
    uint32_t t = (uint32_t)hash_bytes_seed(text.ptr, text.len, hash_secret()) & m->mask;
    while (m->text_slots[t] && !str_eq(m->texts[m->text_slots[t] - 1], buf_as_str(&text)))
        t = (t + 1) & m->mask;
    if (!m->text_slots[t]) {
        m->texts[m->n] = arena_str(m->arena, buf_as_str(&text));
        m->failed |= !buf_ok(&text) || !m->texts[m->n].ptr;
        m->text_slots[t] = ++m->n;
    }
    buf_done(&text);
    *seen = (struct seen){thing, m->text_slots[t] - 1};
    return seen->number;
}

void trace_resource_json(struct json_writer *w, const void *thing)
{
    const struct resource *r = thing;
    struct resource_derived derived;
    json_open(w, '{');
    key_str(w, "service", r->service_name);
    key_str(w, "fingerprint",
            resource_attr_find(r, STR(RESOURCE_FINGERPRINT), &derived)->value.string);
    key_attrs(w, &r->attrs);
    if (r->attrs.dropped)
        key_u64(w, "droppedAttributes", r->attrs.dropped);
    if (r->schema_url.len)
        key_str(w, "schemaUrl", r->schema_url);
    json_close(w, '}');
}

void trace_scope_json(struct json_writer *w, const void *thing)
{
    const struct scope *s = thing;
    json_open(w, '{');
    key_str(w, "name", s->name);
    key_str(w, "version", s->version);
    if (s->attrs.n)
        key_attrs(w, &s->attrs);
    if (s->attrs.dropped)
        key_u64(w, "droppedAttributes", s->attrs.dropped);
    if (s->schema_url.len)
        key_str(w, "schemaUrl", s->schema_url);
    json_close(w, '}');
}

static void event_json(struct json_writer *w, const struct event *e)
{
    json_open(w, '{');
    key_u64_str(w, "timeUnixNano", e->time_ns);
    key_str(w, "name", e->name);
    key_attrs(w, &e->attrs);
    if (e->attrs.dropped)
        key_u64(w, "droppedAttributes", e->attrs.dropped);
    json_close(w, '}');
}

static void link_json(struct json_writer *w, const struct link *l)
{
    json_open(w, '{');
    key_hex(w, "traceId", l->trace_id.bytes, TRACE_ID_SIZE);
    key_hex(w, "spanId", l->span_id.bytes, SPAN_ID_SIZE);
    key_str(w, "traceState", l->trace_state);
    key_u64(w, "flags", l->flags);
    key_attrs(w, &l->attrs);
    if (l->attrs.dropped)
        key_u64(w, "droppedAttributes", l->attrs.dropped);
    json_close(w, '}');
}

void trace_span_members(struct json_writer *w, const struct span *s)
{
    static const char *const codes[] = {"UNSET", "OK", "ERROR"};
    key_hex(w, "spanId", s->span_id.bytes, SPAN_ID_SIZE);
    key_hex(w, "parentSpanId", s->parent_id.bytes,
            span_id_is_zero(&s->parent_id) ? 0 : SPAN_ID_SIZE);
    key_str(w, "name", s->name);
    key_str(w, "kind", str_from(span_kind_name(s->kind)));
    key_u64_str(w, "startUnixNano", s->start_ns);
    key_u64_str(w, "durationNano", span_duration_ns(s));
    key_open(w, "status", '{');
    key_str(w, "code", str_from(codes[s->status_code > STATUS_ERROR ? 0 : s->status_code]));
    key_str(w, "message", s->status_message);
    json_close(w, '}');
    key_str(w, "traceState", s->trace_state);
    key_u64(w, "flags", s->flags);
    key_attrs(w, &s->attrs);
    key_u64(w, "droppedAttributes", s->attrs.dropped);
    key_open(w, "events", '[');
    for (uint32_t i = 0; i < s->n_events; i++)
        event_json(w, &s->events[i]);
    json_close(w, ']');
    key_u64(w, "droppedEvents", s->dropped_events);
    key_open(w, "links", '[');
    for (uint32_t i = 0; i < s->n_links; i++)
        link_json(w, &s->links[i]);
    json_close(w, ']');
    key_u64(w, "droppedLinks", s->dropped_links);
}

static void span_json(struct json_writer *w, const struct span *s, uint32_t resource,
                      uint32_t scope)
{
    json_open(w, '{');
    key_u64(w, "resource", resource);
    key_u64(w, "scope", scope);
    trace_span_members(w, s);
    json_close(w, '}');
}

/* ---- a trace, as it is walked ---- */

struct whole {
    struct buf out;
    struct json_writer w;
    struct numbering resources, scopes;
    struct arena texts;
    struct http_stream *stream; /* NULL: all stays in `out` */
    struct trace_entry *entry;  /* of a stream, of which nobody else says that it is partial */
};

/* Hands what has been written to the client. */
static int whole_flush(struct whole *t)
{
    if (!buf_ok(&t->out))
        return ERR_NOMEM;
    if (!http_stream_put(t->stream, buf_as_str(&t->out), STREAM_STALL_MS))
        return ERR_CLOSED;
    buf_clear(&t->out);
    return 0;
}

static int whole_step(void *arg, const struct span_batch *batch)
{
    struct whole *t = arg;
    int err = 0;
    numbering_forget(&t->resources);
    numbering_forget(&t->scopes);
    for (size_t i = 0; i < batch->n && !err; i++) {
        const struct span *s = &batch->spans[i];
        uint32_t resource = number_of(&t->resources, s->resource, trace_resource_json);
        uint32_t scope = number_of(&t->scopes, s->scope, trace_scope_json);
        span_json(&t->w, s, resource, scope);
        if (t->resources.failed || t->scopes.failed || !buf_ok(&t->out))
            err = ERR_NOMEM;
        else if (t->stream && t->out.len >= STREAM_PIECE_BYTES)
            err = whole_flush(t);
    }
    return err;
}

static void numbered_json(struct json_writer *w, const char *key, const struct numbering *m)
{
    key_open(w, key, '[');
    for (uint32_t i = 0; i < m->n; i++)
        json_raw(w, m->texts[i]);
    json_close(w, ']');
}

static int whole_write(struct whole *t, const struct outline *o, struct store_view *view)
{
    const struct outline_row *root = outline_root(o);
    t->w = json_writer(&t->out);
    t->resources.arena = t->scopes.arena = &t->texts;
    json_open(&t->w, '{');
    key_hex(&t->w, "traceId", o->id.bytes, TRACE_ID_SIZE);
    key_u64_str(&t->w, "startUnixNano", o->start_ns);
    key_u64_str(&t->w, "durationNano", o->duration_ns);
    key_str(&t->w, "rootService", o->services[root->service].name);
    key_str(&t->w, "rootName", o->names[root->name]);
    key_u64(&t->w, "spanCount", o->n);
    key_u64(&t->w, "errorCount", o->n_errors);
    key_u64(&t->w, "orphanCount", o->n_orphans);
    key_open(&t->w, "spans", '[');
    int err = outline_walk(o, view, whole_step, t);
    json_close(&t->w, ']');
    numbered_json(&t->w, "resources", &t->resources);
    numbered_json(&t->w, "scopes", &t->scopes);
    if (t->stream && (t->entry->is_partial || store_view_is_damaged(view))) {
        t->entry->is_partial = true;
        key_bool(&t->w, "partial", true);
        key_str(&t->w, "message", STR(WEB_PARTIAL_MESSAGE));
    }
    json_close(&t->w, '}');
    numbering_done(&t->resources);
    numbering_done(&t->scopes);
    arena_done(&t->texts);
    return err;
}

/* ---- a stream ---- */

struct stream_job {
    struct web *web;
    struct trace_entry *entry;
    struct store_view *view;
    struct http_stream *stream;
};

static void *stream_main(void *arg)
{
    struct stream_job *job = arg;
    struct whole t = {.stream = job->stream, .entry = job->entry};
    int err = whole_write(&t, job->entry->outline, job->view);
    if (!err)
        err = whole_flush(&t);
    if (err)
        http_stream_fail(job->stream);
    http_stream_close(job->stream);
    buf_done(&t.out);
    store_view_free(job->view);
    trace_unref(job->web->traces, job->entry);
    traces_stream_ended(job->web->traces);
    free(job);
    return NULL;
}

/* Takes the entry; answers. */
static void stream_start(struct web_request *q, struct trace_entry *entry)
{
    struct web *web = q->web;
    struct stream_job *job = malloc(sizeof *job);
    bool begun = job && traces_stream_begin(web->traces);
    if (!begun) {
        free(job);
        trace_unref(web->traces, entry);
        http_reply_header(q->http, "Retry-After", "5");
        web_fail(q, 503, "there are too many downloads of large traces");
        return;
    }
    struct store_view *view = web_view_take(q);
    web_answered(q, 200);
    *job = (struct stream_job){.web = web, .entry = entry, .view = view};
    job->stream = http_reply_stream(q->http, "application/json", STREAM_BYTES_MAX);
    pthread_attr_t attr;
    pthread_t thread;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STREAM_STACK_BYTES);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    if (!job->stream || pthread_create(&thread, &attr, stream_main, job)) {
        if (job->stream)
            http_stream_fail(job->stream);
        http_stream_close(job->stream);
        trace_unref(web->traces, entry);
        store_view_free(view);
        traces_stream_ended(web->traces);
        free(job);
    }
    pthread_attr_destroy(&attr);
}

void api_trace(struct web_request *q)
{
    struct trace_entry *entry;
    struct store_view *view;
    if (!trace_get(q, 0, &entry, &view))
        return;
    if (entry->outline->n > WHOLE_SPANS_MAX) {
        stream_start(q, entry);
        return;
    }
    struct whole t = {.out = web_answer()};
    int err = whole_write(&t, entry->outline, view);
    if (store_view_is_damaged(view))
        entry->is_partial = true;
    trace_unref(q->web->traces, entry);
    if (err && buf_ok(&t.out))
        web_fail_err(q, err, NULL);
    else
        web_reply_json(q, 200, &t.out);
    buf_done(&t.out);
}
