#include "wire/chrome.h"

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

/* A constant piece of text. */
#define PUT(out, literal) buf_put(out, literal, sizeof literal - 1)

/* Nanoseconds as microseconds with three decimals. */
static void us_put(struct buf *out, uint64_t ns)
{
    char fraction[4] = {'.', (char)('0' + ns % 1000 / 100), (char)('0' + ns % 100 / 10),
                        (char)('0' + ns % 10)};
    json_text_u64(out, ns / 1000);
    buf_put(out, fraction, sizeof fraction);
}

static void hex_text(struct buf *out, const uint8_t *bytes, size_t n)
{
    if (buf_reserve(out, 2 * n)) {
        hex_put(out->ptr + out->len, bytes, n);
        out->len += 2 * n;
    }
}

/* What every event has. Leaves the object open, behind a number. */
static void event_open(const struct chrome_process *p, struct str name, char ph, uint32_t tid,
                       struct buf *out)
{
    PUT(out, ",\n{\"name\":");
    json_text_str(out, name);
    PUT(out, ",\"ph\":\"");
    buf_byte(out, ph);
    PUT(out, "\",\"pid\":");
    json_text_u64(out, p->pid);
    PUT(out, ",\"tid\":");
    json_text_u64(out, tid);
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
    event_open(p, STR("thread_name"), 'M', tid, out);
    PUT(out, ",\"args\":{\"name\":");
    json_text_str(out, name);
    PUT(out, "}}");
}

static void category(struct buf *out, const struct span *s, bool async)
{
    PUT(out, ",\"cat\":\"");
    buf_cstr(out, span_kind_tag(s->kind));
    buf_byte(out, '"');
    if (async) {
        PUT(out, ",\"id\":\"");
        hex_text(out, s->span_id.bytes, SPAN_ID_SIZE);
        buf_byte(out, '"');
    }
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

static void args_put(struct buf *out, const struct span *s)
{
    PUT(out, ",\"args\":{\"trace_id\":\"");
    hex_text(out, s->trace_id.bytes, TRACE_ID_SIZE);
    PUT(out, "\",\"span_id\":\"");
    hex_text(out, s->span_id.bytes, SPAN_ID_SIZE);
    if (!span_id_is_zero(&s->parent_id)) {
        PUT(out, "\",\"parent_id\":\"");
        hex_text(out, s->parent_id.bytes, SPAN_ID_SIZE);
    }
    buf_byte(out, '"');
    struct json_writer w = {.out = out, .comma = true};
    if (s->trace_state.len)
        key_str(&w, STR("trace_state"), s->trace_state);
    if (s->status_code != STATUS_UNSET)
        key_str(&w, STR("status"), s->status_code == STATUS_ERROR ? STR("ERROR") : STR("OK"));
    if (s->status_message.len)
        key_str(&w, STR("status_message"), s->status_message);
    if (s->attrs.n) {
        json_key(&w, STR("attributes"));
        attrs_json(&s->attrs, &w);
    }
    if (s->attrs.dropped) {
        json_key(&w, STR("dropped_attributes"));
        json_u64(&w, s->attrs.dropped);
    }
    if (s->n_links)
        links_put(&w, s);
    buf_byte(out, '}');
}

static void events_put(const struct chrome_process *p, const struct span *s, uint32_t tid,
                       bool async, struct buf *out)
{
    for (uint32_t i = 0; i < s->n_events; i++) {
        const struct event *e = &s->events[i];
        event_open(p, e->name, async ? 'n' : 'i', tid, out);
        category(out, s, async);
        if (!async)
            PUT(out, ",\"s\":\"t\"");
        PUT(out, ",\"ts\":");
        us_put(out, since_base(p, e->time_ns));
        PUT(out, ",\"args\":");
        struct json_writer w = json_writer(out);
        attrs_json(&e->attrs, &w);
        buf_byte(out, '}');
    }
}

void chrome_span(const struct chrome_process *p, const struct span *s, uint32_t tid, bool async,
                 struct buf *out)
{
    uint64_t start = since_base(p, s->start_ns);
    event_open(p, s->name, async ? 'b' : 'X', tid, out);
    category(out, s, async);
    PUT(out, ",\"ts\":");
    us_put(out, start);
    if (!async) {
        PUT(out, ",\"dur\":");
        us_put(out, span_duration_ns(s));
    }
    args_put(out, s);
    buf_byte(out, '}');
    events_put(p, s, tid, async, out);
    if (async) {
        event_open(p, s->name, 'e', tid, out);
        category(out, s, async);
        PUT(out, ",\"ts\":");
        us_put(out, start + span_duration_ns(s));
        buf_byte(out, '}');
    }
}

void chrome_instant(const struct chrome_process *p, struct str name, uint64_t time_ns,
                    const struct attrs *values, struct buf *out)
{
    event_open(p, name, 'i', p->pid, out);
    PUT(out, ",\"s\":\"p\",\"ts\":");
    us_put(out, since_base(p, time_ns));
    PUT(out, ",\"args\":");
    struct json_writer w = json_writer(out);
    attrs_json(values, &w);
    buf_byte(out, '}');
}

void chrome_counter(const struct chrome_process *p, struct str name, uint64_t time_ns,
                    const struct attrs *values, struct buf *out)
{
    event_open(p, name, 'C', p->pid, out);
    PUT(out, ",\"ts\":");
    us_put(out, since_base(p, time_ns));
    PUT(out, ",\"args\":");
    struct json_writer w = json_writer(out);
    json_open(&w, '{');
    for (uint32_t i = 0; i < values->n; i++) {
        const struct attr *a = &values->items[i];
        if (a->value.type != VALUE_INT && a->value.type != VALUE_DOUBLE)
            continue;
        json_key(&w, a->key);
        value_json(&a->value, &w);
    }
    json_close(&w, '}');
    buf_byte(out, '}');
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
