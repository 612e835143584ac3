/* Our own Chrome trace files back into spans. What they leave out (the rest of the resource, the scope) is not
 * there afterwards; events that carry no ids of a span (counters, marks, names) are passed over, as is what
 * other programs wrote. */
#include "base/clock.h"
#include "base/json.h"
#include "wire/chrome.h"
#include "wire/collect.h"

enum { PROCESSES_MAX = 64 };

struct process {
    int64_t pid;
    struct str name;
};

/* One element of traceEvents. */
struct chrome_event {
    struct str name, category, phase, id, scope;
    int64_t pid, tid;
    uint64_t start_ns, duration_ns; /* since the base */
    struct json_reader args;        /* before its value; `at` NULL: there are none */
};

struct decoder {
    struct collect c;
    struct arena *arena;
    uint64_t base_ns;
    struct process processes[PROCESSES_MAX];
    size_t n_processes;
    struct str service;
    /* The span at hand: its events follow it. */
    bool is_open, is_async;
    struct span span;
    int64_t tid;
    struct str id;
};

static bool is(const struct json_reader *r, const char *key)
{
    return str_eq(r->text, str_from(key));
}

static struct str text(struct json_reader *r)
{
    if (json_next(r) == JSON_STRING)
        return r->text;
    if (r->type == JSON_OBJECT || r->type == JSON_ARRAY)
        json_skip(r);
    return STR("");
}

static int64_t integer(struct json_reader *r)
{
    int64_t n = 0;
    if (json_next(r) != JSON_NULL && !json_to_i64(r, &n))
        json_fail(r, "a whole number");
    return n;
}

/* Microseconds with up to three decimals, exactly. */
static uint64_t us_as_ns(struct json_reader *r)
{
    uint64_t whole = 0, part = 0;
    if (json_next(r) != JSON_NUMBER) {
        json_fail(r, "microseconds");
        return 0;
    }
    struct str fraction, digits = str_split(r->text, '.', &fraction);
    double real;
    if (!str_to_u64(digits, &whole) || whole > UINT64_MAX / 1000 - 1 ||
        memchr(r->text.ptr, 'e', r->text.len) || memchr(r->text.ptr, 'E', r->text.len))
        return json_to_double(r, &real) && real > 0 && real < 1.8e16 ? (uint64_t)(real * 1000) : 0;
    for (size_t i = 0; i < 3; i++)
        part = part * 10 + (i < fraction.len ? (uint64_t)(fraction.ptr[i] - '0') : 0);
    return whole * 1000 + part;
}

/* ---- values ---- */

static void value_of(struct decoder *d, struct json_reader *r, struct value *ret, unsigned depth);

/* An object as attributes: those that `mark` does not have yet. */
static void object_attrs(struct decoder *d, struct json_reader *r, unsigned depth)
{
    while (!d->c.err && json_next(r) == JSON_KEY) {
        struct attr a = {.key = collect_text(&d->c, r->text)};
        value_of(d, r, &a.value, depth);
        collect_attr(&d->c, a.key, &a.value);
    }
}

static void array_of(struct decoder *d, struct json_reader *r, struct value *ret, unsigned depth)
{
    struct buf items = BUF_INIT;
    struct json_reader ahead = *r;
    /* The reader is asked for what comes next before it is known whether the list ends. */
    while (!d->c.err && json_next(&ahead) != JSON_ARRAY_END && !ahead.err) {
        struct value v;
        value_of(d, r, &v, depth);
        buf_put(&items, &v, sizeof v);
        if (r->err)
            break;
        ahead = *r;
    }
    *r = ahead;
    size_t n = items.len / sizeof(struct value);
    struct value *own = arena_array(d->arena, n, sizeof *own);
    if (!own || !buf_ok(&items))
        d->c.err = ERR_NOMEM;
    else if (n)
        memcpy(own, items.ptr, items.len);
    *ret = (struct value){.type = VALUE_ARRAY, .array = {own, own ? n : 0}};
    buf_done(&items);
}

static void value_of(struct decoder *d, struct json_reader *r, struct value *ret, unsigned depth)
{
    *ret = (struct value){.type = VALUE_NONE};
    switch (json_next(r)) {
    case JSON_STRING:
        *ret = (struct value){.type = VALUE_STRING, .string = collect_text(&d->c, r->text)};
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        *ret = (struct value){.type = VALUE_BOOL, .boolean = r->type == JSON_TRUE};
        break;
    case JSON_NUMBER:
        if (!memchr(r->text.ptr, '.', r->text.len) && json_to_i64(r, &ret->integer))
            ret->type = VALUE_INT;
        else if (json_to_double(r, &ret->real))
            ret->type = VALUE_DOUBLE;
        break;
    case JSON_ARRAY:
    case JSON_OBJECT:
        if (depth == VALUE_DEPTH_MAX) {
            collect_reject(&d->c, "a value is nested too deep");
            json_skip(r);
        } else if (r->type == JSON_ARRAY) {
            array_of(d, r, ret, depth + 1);
        } else {
            size_t mark = collect_mark(&d->c);
            object_attrs(d, r, depth + 1);
            struct attrs attrs = collect_take_attrs(&d->c, mark);
            *ret = (struct value){.type = VALUE_MAP, .map = {attrs.items, attrs.n}};
        }
        break;
    default:
        break;
    }
}

/* ---- events ---- */

static void span_end(struct decoder *d)
{
    if (d->is_open)
        collect_span(&d->c, &d->span);
    d->is_open = false;
}

static void links_of(struct decoder *d, struct json_reader *r)
{
    if (json_next(r) != JSON_ARRAY) {
        json_fail(r, "a list of links");
        return;
    }
    while (!d->c.err && json_next(r) == JSON_OBJECT) {
        struct link link = {.trace_state = STR("")};
        while (json_next(r) == JSON_KEY) {
            if (is(r, "trace_id")) {
                if (!trace_id_parse(text(r), &link.trace_id))
                    collect_reject(&d->c, "a link's trace id is none");
            } else if (is(r, "span_id")) {
                if (!span_id_parse(text(r), &link.span_id))
                    collect_reject(&d->c, "a link's span id is none");
            } else {
                json_skip(r);
            }
        }
        collect_link(&d->c, &link);
    }
}

/* False: it says no ids, and is no span. */
static bool args_of_span(struct decoder *d, struct json_reader *r, struct span *s)
{
    bool has_trace = false, has_span = false;
    if (json_next(r) != JSON_OBJECT)
        return false;
    while (!d->c.err && json_next(r) == JSON_KEY) {
        if (is(r, "trace_id"))
            has_trace = trace_id_parse(text(r), &s->trace_id);
        else if (is(r, "span_id"))
            has_span = span_id_parse(text(r), &s->span_id);
        else if (is(r, "parent_id")) {
            if (!span_id_parse(text(r), &s->parent_id))
                collect_reject(&d->c, "a parent id is none");
        } else if (is(r, "trace_state"))
            s->trace_state = collect_text(&d->c, text(r));
        else if (is(r, "status"))
            s->status_code = str_eq(text(r), STR("ERROR")) ? STATUS_ERROR : STATUS_OK;
        else if (is(r, "status_message"))
            s->status_message = collect_text(&d->c, text(r));
        else if (is(r, "dropped_attributes"))
            s->attrs.dropped = (uint32_t)integer(r);
        else if (is(r, "links"))
            links_of(d, r);
        else if (!is(r, "attributes"))
            json_skip(r);
        else if (json_next(r) == JSON_OBJECT)
            object_attrs(d, r, 0);
        else
            json_fail(r, "an object of attributes");
    }
    return has_trace && has_span;
}

static struct str service_of(const struct decoder *d, int64_t pid)
{
    for (size_t i = 0; i < d->n_processes; i++)
        if (d->processes[i].pid == pid)
            return d->processes[i].name;
    return d->service;
}

static void span_begin(struct decoder *d, struct chrome_event *e)
{
    span_end(d);
    struct span *s = &d->span;
    *s = (struct span){
        .name = collect_text(&d->c, e->name), .trace_state = STR(""), .status_message = STR("")};
    if (!e->args.at || !args_of_span(d, &e->args, s)) {
        collect_drop(&d->c);
        return;
    }
    if (!span_kind_parse(e->category, &s->kind))
        s->kind = SPAN_KIND_UNSPECIFIED;
    s->start_ns = d->base_ns + e->start_ns;
    s->end_ns = s->start_ns + e->duration_ns;
    s->resource = collect_service(&d->c, service_of(d, e->pid));
    d->is_open = true;
    d->is_async = str_eq(e->phase, STR("b"));
    d->tid = e->tid;
    d->id = e->id;
}

static void span_event(struct decoder *d, struct chrome_event *e)
{
    struct event event = {.time_ns = d->base_ns + e->start_ns,
                          .name = collect_text(&d->c, e->name)};
    size_t mark = collect_mark(&d->c);
    if (e->args.at && json_next(&e->args) == JSON_OBJECT)
        object_attrs(d, &e->args, 0);
    event.attrs = collect_take_attrs(&d->c, mark);
    collect_event(&d->c, &event);
}

static void process_name(struct decoder *d, struct chrome_event *e)
{
    struct json_reader *r = &e->args;
    if (!r->at || d->n_processes == PROCESSES_MAX || json_next(r) != JSON_OBJECT)
        return;
    while (json_next(r) == JSON_KEY) {
        bool is_name = is(r, "name");
        struct str name = text(r);
        if (is_name)
            d->processes[d->n_processes++] = (struct process){e->pid, collect_text(&d->c, name)};
    }
}

static void event_take(struct decoder *d, struct chrome_event *e)
{
    struct str ph = e->phase;
    bool of_span = d->is_open && (d->is_async ? str_eq(e->id, d->id) : e->tid == d->tid);
    if (str_eq(ph, STR("X")) || str_eq(ph, STR("b")))
        span_begin(d, e);
    else if (of_span && ((str_eq(ph, STR("i")) && str_eq(e->scope, STR("t")) && !d->is_async) ||
                         (str_eq(ph, STR("n")) && d->is_async)))
        span_event(d, e);
    else if (of_span && str_eq(ph, STR("e")) && d->is_async)
        d->span.end_ns = d->base_ns + e->start_ns;
    else if (str_eq(ph, STR("M")) && str_eq(e->name, STR("process_name")))
        process_name(d, e);
}

static void event_read(struct decoder *d, struct json_reader *r)
{
    struct chrome_event e = {.name = STR(""), .phase = STR("")};
    while (json_next(r) == JSON_KEY) {
        if (is(r, "name"))
            e.name = text(r);
        else if (is(r, "ph"))
            e.phase = text(r);
        else if (is(r, "cat"))
            e.category = text(r);
        else if (is(r, "id"))
            e.id = text(r);
        else if (is(r, "s"))
            e.scope = text(r);
        else if (is(r, "pid"))
            e.pid = integer(r);
        else if (is(r, "tid"))
            e.tid = integer(r);
        else if (is(r, "ts"))
            e.start_ns = us_as_ns(r);
        else if (is(r, "dur"))
            e.duration_ns = us_as_ns(r);
        else if (is(r, "args")) {
            e.args = *r;
            json_skip(r);
        } else
            json_skip(r);
    }
    if (!r->err)
        event_take(d, &e);
    if (e.args.err)
        *r = e.args;
}

static void other_data(struct decoder *d, struct json_reader *r)
{
    if (json_next(r) != JSON_OBJECT) {
        json_fail(r, "an object");
        return;
    }
    while (json_next(r) == JSON_KEY) {
        if (is(r, "base_unix_nano")) {
            json_next(r);
            if (!json_to_u64(r, &d->base_ns))
                json_fail(r, "nanoseconds");
        } else if (is(r, "service.name")) {
            d->service = collect_text(&d->c, text(r));
        } else {
            json_skip(r);
        }
    }
}

int chrome_decode(struct str body, struct arena *arena, struct span_batch *ret_batch,
                  struct error_detail *ret_detail)
{
    struct decoder *d = arena_zalloc(arena, sizeof *d);
    struct json_reader r;
    if (!d)
        return ERR_NOMEM;
    d->arena = arena;
    collect_init(&d->c, arena);
    json_reader_init(&r, body, arena, ret_detail);
    if (json_next(&r) != JSON_OBJECT)
        json_fail(&r, "an object with \"traceEvents\"");
    while (!r.err && !d->c.err && json_next(&r) == JSON_KEY) {
        if (is(&r, "otherData")) {
            other_data(d, &r);
        } else if (!is(&r, "traceEvents")) {
            json_skip(&r);
        } else if (json_next(&r) != JSON_ARRAY) {
            json_fail(&r, "a list of events");
        } else {
            while (!d->c.err && json_next(&r) == JSON_OBJECT)
                event_read(d, &r);
        }
    }
    span_end(d);
    int err = r.err;
    if (!err)
        err = collect_batch(&d->c, ret_batch);
    else
        collect_done(&d->c);
    return err;
}
