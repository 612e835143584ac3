#include "wire/span_json.h"

#include "base/clock.h"
#include "wire/value_json.h"

static void key_str(struct json_writer *w, struct str key, struct str s)
{
    json_key(w, key);
    json_str(w, s);
}

static void key_hex(struct json_writer *w, struct str key, const uint8_t *bytes, size_t n)
{
    json_key(w, key);
    json_hex(w, bytes, n);
}

static void key_u64(struct json_writer *w, struct str key, uint64_t n)
{
    json_key(w, key);
    json_u64(w, n);
}

static void key_attrs(struct json_writer *w, const struct attrs *attrs)
{
    if (attrs->n) {
        json_key(w, STR("attributes"));
        attrs_json(attrs, w);
    }
    if (attrs->dropped)
        key_u64(w, STR("dropped_attributes"), attrs->dropped);
}

/* For people, and for programs that count in nanoseconds. */
static void key_time(struct json_writer *w, struct str key, uint64_t ns)
{
    char text[CLOCK_RFC3339_SIZE];
    clock_rfc3339(text, ns);
    key_str(w, key, str_from(text));
}

static struct json_writer line_open(struct str type, struct buf *out)
{
    struct json_writer w = json_writer(out);
    json_open(&w, '{');
    key_str(&w, STR("type"), type);
    return w;
}

static void line_close(struct json_writer *w)
{
    json_close(w, '}');
    buf_byte(w->out, '\n');
}

static void events_put(struct json_writer *w, const struct span *s)
{
    json_key(w, STR("events"));
    json_open(w, '[');
    for (uint32_t i = 0; i < s->n_events; i++) {
        json_open(w, '{');
        key_time(w, STR("time"), s->events[i].time_ns);
        key_str(w, STR("name"), s->events[i].name);
        key_attrs(w, &s->events[i].attrs);
        json_close(w, '}');
    }
    json_close(w, ']');
}

static void links_put(struct json_writer *w, const struct span *s)
{
    json_key(w, STR("links"));
    json_open(w, '[');
    for (uint32_t i = 0; i < s->n_links; i++) {
        const struct link *l = &s->links[i];
        json_open(w, '{');
        key_hex(w, STR("trace_id"), l->trace_id.bytes, TRACE_ID_SIZE);
        key_hex(w, STR("span_id"), l->span_id.bytes, SPAN_ID_SIZE);
        if (l->trace_state.len)
            key_str(w, STR("trace_state"), l->trace_state);
        key_attrs(w, &l->attrs);
        json_close(w, '}');
    }
    json_close(w, ']');
}

void span_json_line(const struct span *s, uint32_t thread, struct buf *out)
{
    static const char *const status[] = {"UNSET", "OK", "ERROR"};
    struct json_writer w = line_open(STR("span"), out);
    key_time(&w, STR("time"), s->start_ns);
    key_str(&w, STR("service"), s->resource->service_name);
    key_str(&w, STR("name"), s->name);
    key_str(&w, STR("kind"), str_from(span_kind_name(s->kind)));
    key_hex(&w, STR("trace_id"), s->trace_id.bytes, TRACE_ID_SIZE);
    key_hex(&w, STR("span_id"), s->span_id.bytes, SPAN_ID_SIZE);
    if (!span_id_is_zero(&s->parent_id))
        key_hex(&w, STR("parent_id"), s->parent_id.bytes, SPAN_ID_SIZE);
    if (s->trace_state.len)
        key_str(&w, STR("trace_state"), s->trace_state);
    json_key(&w, STR("start_unix_nano"));
    json_u64_str(&w, s->start_ns);
    key_u64(&w, STR("duration_ns"), span_duration_ns(s));
    if (thread)
        key_u64(&w, STR("thread"), thread);
    key_str(&w, STR("status"),
            str_from(status[s->status_code <= STATUS_ERROR ? s->status_code : 0]));
    if (s->status_message.len)
        key_str(&w, STR("status_message"), s->status_message);
    key_attrs(&w, &s->attrs);
    if (s->n_events)
        events_put(&w, s);
    if (s->dropped_events)
        key_u64(&w, STR("dropped_events"), s->dropped_events);
    if (s->n_links)
        links_put(&w, s);
    if (s->dropped_links)
        key_u64(&w, STR("dropped_links"), s->dropped_links);
    line_close(&w);
}

static void histogram_put(struct json_writer *w, const struct metric_exp_histogram *h)
{
    key_u64(w, STR("count"), h->count);
    json_key(w, STR("sum"));
    json_double(w, h->sum);
    if (h->count) {
        json_key(w, STR("min"));
        json_double(w, h->min);
        json_key(w, STR("max"));
        json_double(w, h->max);
    }
    key_u64(w, STR("zero_count"), h->zero_count);
    json_key(w, STR("scale"));
    json_i64(w, h->scale);
    json_key(w, STR("offset"));
    json_i64(w, h->positive.offset);
    json_key(w, STR("buckets"));
    json_open(w, '[');
    for (size_t i = 0; i < h->positive.n; i++)
        json_u64(w, h->positive.counts[i]);
    json_close(w, ']');
}

void metric_json_line(const struct metric *m, const struct metric_point *p,
                      const struct resource *resource, struct buf *out)
{
    static const struct str kinds[] = {[METRIC_GAUGE] = {"gauge", 5},
                                       [METRIC_SUM] = {"sum", 3},
                                       [METRIC_EXP_HISTOGRAM] = {"exponential_histogram", 21}};
    struct json_writer w = line_open(STR("metric"), out);
    key_time(&w, STR("time"), p->time_ns);
    key_str(&w, STR("service"), resource->service_name);
    key_str(&w, STR("name"), m->name);
    key_str(&w, STR("kind"), kinds[m->type]);
    if (m->unit.len)
        key_str(&w, STR("unit"), m->unit);
    if (m->type != METRIC_GAUGE)
        key_str(&w, STR("temporality"),
                m->temporality == METRIC_DELTA ? STR("delta") : STR("cumulative"));
    if (m->type == METRIC_SUM) {
        json_key(&w, STR("monotonic"));
        json_bool(&w, m->monotonic);
    }
    if (p->start_ns)
        key_time(&w, STR("since"), p->start_ns);
    if (m->type == METRIC_EXP_HISTOGRAM) {
        histogram_put(&w, &p->histogram);
    } else {
        json_key(&w, STR("value"));
        if (p->is_real)
            json_double(&w, p->real);
        else
            json_i64(&w, p->integer);
    }
    key_attrs(&w, &p->attrs);
    line_close(&w);
}

void resource_json_line(const struct resource *r, struct buf *out)
{
    struct json_writer w = line_open(STR("process"), out);
    key_str(&w, STR("service"), r->service_name);
    key_attrs(&w, &r->attrs);
    line_close(&w);
}
