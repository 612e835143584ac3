#include "wire/chrome.h"

#include <stdio.h>

#include "base/json.h"
#include "wire/value_json.h"

static void key_str(struct json_writer *w, struct str key, struct str value)
{
    json_key(w, key);
    json_str(w, value);
}

static void key_hex(struct json_writer *w, struct str key, const uint8_t *bytes, size_t n)
{
    json_key(w, key);
    json_hex(w, bytes, n);
}

/* Nanoseconds as microseconds with three decimals. */
static void key_us(struct json_writer *w, struct str key, uint64_t ns)
{
    char text[32];
    int n = snprintf(text, sizeof text, "%llu.%03u", (unsigned long long)(ns / 1000),
                     (unsigned)(ns % 1000));
    json_key(w, key);
    json_raw(w, (struct str){text, (size_t)n});
}

/* What every event has. Leaves the object open. */
static struct json_writer event_open(const struct chrome_process *p, struct str name,
                                     const char *ph, uint32_t tid, struct buf *out)
{
    buf_cstr(out, ",\n");
    struct json_writer w = json_writer(out);
    json_open(&w, '{');
    key_str(&w, STR("name"), name);
    key_str(&w, STR("ph"), str_from(ph));
    json_key(&w, STR("pid"));
    json_u64(&w, p->pid);
    json_key(&w, STR("tid"));
    json_u64(&w, tid);
    return w;
}

static uint64_t since_base(const struct chrome_process *p, uint64_t ns)
{
    return ns > p->base_ns ? ns - p->base_ns : 0;
}

void chrome_head(const struct chrome_process *p, struct buf *out)
{
    struct json_writer w = json_writer(out);
    json_open(&w, '{');
    key_str(&w, STR("displayTimeUnit"), STR("ns"));
    json_key(&w, STR("otherData"));
    json_open(&w, '{');
    key_str(&w, STR("session_id"), p->session_id);
    key_str(&w, STR("service.name"), p->name);
    json_key(&w, STR("base_unix_nano"));
    json_u64_str(&w, p->base_ns);
    json_close(&w, '}');
    json_key(&w, STR("traceEvents"));
    json_open(&w, '[');
    buf_byte(out, '\n');
    json_open(&w, '{');
    key_str(&w, STR("name"), STR("process_name"));
    key_str(&w, STR("ph"), STR("M"));
    json_key(&w, STR("pid"));
    json_u64(&w, p->pid);
    json_key(&w, STR("args"));
    json_open(&w, '{');
    key_str(&w, STR("name"), p->name);
    json_close(&w, '}');
    json_close(&w, '}');
}

void chrome_thread_name(const struct chrome_process *p, uint32_t tid, struct str name,
                        struct buf *out)
{
    struct json_writer w = event_open(p, STR("thread_name"), "M", tid, out);
    json_key(&w, STR("args"));
    json_open(&w, '{');
    key_str(&w, STR("name"), name);
    json_close(&w, '}');
    json_close(&w, '}');
}

static void category(struct json_writer *w, const struct span *s, bool async)
{
    key_str(w, STR("cat"), str_from(span_kind_tag(s->kind)));
    if (async)
        key_hex(w, STR("id"), s->span_id.bytes, SPAN_ID_SIZE);
}

static void links_put(struct json_writer *w, const struct span *s)
{
    json_key(w, STR("links"));
    json_open(w, '[');
    for (uint32_t i = 0; i < s->n_links; i++) {
        json_open(w, '{');
        key_hex(w, STR("trace_id"), s->links[i].trace_id.bytes, TRACE_ID_SIZE);
        key_hex(w, STR("span_id"), s->links[i].span_id.bytes, SPAN_ID_SIZE);
        json_close(w, '}');
    }
    json_close(w, ']');
}

static void args_put(struct json_writer *w, const struct span *s)
{
    json_key(w, STR("args"));
    json_open(w, '{');
    key_hex(w, STR("trace_id"), s->trace_id.bytes, TRACE_ID_SIZE);
    key_hex(w, STR("span_id"), s->span_id.bytes, SPAN_ID_SIZE);
    if (!span_id_is_zero(&s->parent_id))
        key_hex(w, STR("parent_id"), s->parent_id.bytes, SPAN_ID_SIZE);
    if (s->trace_state.len)
        key_str(w, STR("trace_state"), s->trace_state);
    if (s->status_code != STATUS_UNSET)
        key_str(w, STR("status"), s->status_code == STATUS_ERROR ? STR("ERROR") : STR("OK"));
    if (s->status_message.len)
        key_str(w, STR("status_message"), s->status_message);
    if (s->attrs.n) {
        json_key(w, STR("attributes"));
        attrs_json(&s->attrs, w);
    }
    if (s->attrs.dropped) {
        json_key(w, STR("dropped_attributes"));
        json_u64(w, s->attrs.dropped);
    }
    if (s->n_links)
        links_put(w, s);
    json_close(w, '}');
}

static void events_put(const struct chrome_process *p, const struct span *s, uint32_t tid,
                       bool async, struct buf *out)
{
    for (uint32_t i = 0; i < s->n_events; i++) {
        const struct event *e = &s->events[i];
        struct json_writer w = event_open(p, e->name, async ? "n" : "i", tid, out);
        category(&w, s, async);
        if (!async)
            key_str(&w, STR("s"), STR("t"));
        key_us(&w, STR("ts"), since_base(p, e->time_ns));
        json_key(&w, STR("args"));
        attrs_json(&e->attrs, &w);
        json_close(&w, '}');
    }
}

void chrome_span(const struct chrome_process *p, const struct span *s, uint32_t tid, bool async,
                 struct buf *out)
{
    uint64_t start = since_base(p, s->start_ns);
    struct json_writer w = event_open(p, s->name, async ? "b" : "X", tid, out);
    category(&w, s, async);
    key_us(&w, STR("ts"), start);
    if (!async)
        key_us(&w, STR("dur"), span_duration_ns(s));
    args_put(&w, s);
    json_close(&w, '}');
    events_put(p, s, tid, async, out);
    if (async) {
        w = event_open(p, s->name, "e", tid, out);
        category(&w, s, async);
        key_us(&w, STR("ts"), start + span_duration_ns(s));
        json_close(&w, '}');
    }
}

void chrome_tail(const struct chrome_total *totals, size_t n, struct buf *out)
{
    buf_cstr(out, "\n],");
    struct json_writer w = json_writer(out);
    json_key(&w, STR("pugmark"));
    json_open(&w, '{');
    for (size_t i = 0; i < n; i++) {
        json_key(&w, str_from(totals[i].name));
        json_u64(&w, totals[i].value);
    }
    json_close(&w, '}');
    buf_cstr(out, "}\n");
}
