/* One pass over the object: what is known goes to its place, by the first of the names it may have
 * (a list, in the order in which they count), all else becomes an attribute. Then the times are put
 * together. */
#include "ingest/trace_line.h"

#include "base/clock.h"
#include "base/json.h"

#include <math.h>

enum { ATTRS_FIRST = 16, ATTRS_MAX = 1024, NAME_BYTES_MAX = 256 };

/* What a key can be. The order inside a kind is that of the table. */
enum what {
    START,
    END,
    POINT,
    DURATION_NS,
    DURATION_US,
    DURATION_MS,
    DURATION, /* seconds, or a text with a unit */
    NAME,
    MESSAGE,
    SERVICE,
    KIND,
    STATUS,
    STATUS_MESSAGE,
    ERROR,
    LEVEL,
    SPAN_ID,
    PARENT_ID,
    OTEL_TRACE_ID,
    OTEL_SPAN_ID,
    TRACE,
    WHATS,
    OTHER = WHATS,
};

static const struct {
    const char *key;
    enum what what;
} keys[] = {
    {"_trace", TRACE},
    {"start_unix_nano", START},
    {"startTimeUnixNano", START},
    {"start_time", START},
    {"startTime", START},
    {"start", START},
    {"end_unix_nano", END},
    {"endTimeUnixNano", END},
    {"end_time", END},
    {"endTime", END},
    {"end", END},
    {"time_unix_nano", POINT},
    {"timeUnixNano", POINT},
    {"timestamp", POINT},
    {"@timestamp", POINT},
    {"time", POINT},
    {"ts", POINT},
    {"duration_ns", DURATION_NS},
    {"duration_us", DURATION_US},
    {"duration_ms", DURATION_MS},
    {"elapsed_ms", DURATION_MS},
    {"latency_ms", DURATION_MS},
    {"duration", DURATION},
    {"elapsed", DURATION},
    {"name", NAME},
    {"span_name", NAME},
    {"operation", NAME},
    {"event", NAME},
    {"message", MESSAGE},
    {"msg", MESSAGE},
    {"service.name", SERVICE},
    {"service", SERVICE},
    {"service_name", SERVICE},
    {"kind", KIND},
    {"span.kind", KIND},
    {"status", STATUS},
    {"status_message", STATUS_MESSAGE},
    {"error", ERROR},
    {"level", LEVEL},
    {"severity", LEVEL},
    {"span_id", SPAN_ID},
    {"spanId", SPAN_ID},
    {"parent_id", PARENT_ID},
    {"parent_span_id", PARENT_ID},
    {"parentSpanId", PARENT_ID},
    {"otel_trace_id", OTEL_TRACE_ID},
    {"otel_span_id", OTEL_SPAN_ID},
};
enum { KEYS = sizeof keys / sizeof *keys };

struct list {
    struct attr *items;
    uint32_t n, room;
};

struct decoder {
    struct json_reader r;
    struct arena *arena;
    struct list attrs;
    /* By kind: the best value so far, whose key it has and where among the attributes it stands. */
    struct found {
        unsigned rank; /* of the key in the table + 1; 0: none */
        uint32_t attr;
    } found[WHATS];
    bool has_trace, is_damaged;
    struct trace_id trace_id;
    struct span_id span_id;
    uint8_t flags;
    struct str trace_state;
};

/* ---- values ---- */

static void no_memory(struct decoder *d)
{
    json_fail_with(&d->r, ERR_NOMEM, "out of memory");
}

static struct attr *list_next(struct decoder *d, struct list *l)
{
    if (l->n == l->room) {
        uint32_t room = l->room ? 2 * l->room : ATTRS_FIRST;
        struct attr *items = arena_array(d->arena, room, sizeof *items);
        if (!items) {
            no_memory(d);
            return NULL;
        }
        if (l->n)
            memcpy(items, l->items, l->n * sizeof *items);
        l->items = items;
        l->room = room;
    }
    struct attr *a = &l->items[l->n++];
    *a = (struct attr){.key = STR("")};
    return a;
}

static void value_get(struct decoder *d, unsigned depth, struct value *ret);

static void map_get(struct decoder *d, unsigned depth, struct value *ret)
{
    struct list l = {0};
    while (json_next(&d->r) == JSON_KEY) {
        struct str key = d->r.text;
        struct attr *a = list_next(d, &l);
        if (!a)
            return;
        a->key = key;
        value_get(d, depth + 1, &l.items[l.n - 1].value);
    }
    *ret = (struct value){.type = VALUE_MAP, .map = {l.items, l.n}};
}

static void array_get(struct decoder *d, unsigned depth, struct value *ret)
{
    struct list l = {0}; /* its keys are not used */
    while (json_next(&d->r) != JSON_ARRAY_END && !d->r.err) {
        struct attr *a = list_next(d, &l);
        if (!a)
            return;
        struct value item = {.type = VALUE_NONE};
        value_get(d, depth + 1, &item);
        l.items[l.n - 1].value = item;
    }
    struct value *items = arena_array(d->arena, l.n, sizeof *items);
    if (!items) {
        no_memory(d);
        return;
    }
    for (uint32_t i = 0; i < l.n; i++)
        items[i] = l.items[i].value;
    *ret = (struct value){.type = VALUE_ARRAY, .array = {items, l.n}};
}

/* After a key reads the next token; in an array it was read. What is nested too deeply is nothing. */
static void value_get(struct decoder *d, unsigned depth, struct value *ret)
{
    enum json_type type = d->r.type == JSON_KEY ? json_next(&d->r) : d->r.type;
    *ret = (struct value){.type = VALUE_NONE};
    switch (type) {
    case JSON_STRING:
        *ret = (struct value){.type = VALUE_STRING, .string = d->r.text};
        break;
    case JSON_NUMBER:
        *ret = (struct value){.type = VALUE_INT};
        if (!str_to_i64(d->r.text, &ret->integer)) {
            double real = 0;
            ret->type = json_to_double(&d->r, &real) ? VALUE_DOUBLE : VALUE_STRING;
            if (ret->type == VALUE_DOUBLE)
                ret->real = real;
            else
                ret->string = d->r.text;
        }
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        *ret = (struct value){.type = VALUE_BOOL, .boolean = type == JSON_TRUE};
        break;
    case JSON_OBJECT:
    case JSON_ARRAY:
        if (depth >= VALUE_DEPTH_MAX)
            json_skip(&d->r);
        else if (type == JSON_OBJECT)
            map_get(d, depth, ret);
        else
            array_get(d, depth, ret);
        break;
    default:
        break;
    }
}

/* ---- what is known ---- */

/* W3C Trace Context, 3.2: "00-", 32 digits, "-", 16 digits, "-", 2 digits; a later version may have more
 * behind that. */
static bool traceparent_parse(struct decoder *d, struct str text)
{
    enum { LENGTH = 55, TRACE_AT = 3, SPAN_AT = 36, FLAGS_AT = 53 };
    uint8_t version;
    const char *p = text.ptr;
    return text.len >= LENGTH && hex_get_lower(&version, p, 1) && version != 0xff &&
           (text.len == LENGTH || (version && p[LENGTH] == '-')) && p[2] == '-' &&
           p[SPAN_AT - 1] == '-' && p[FLAGS_AT - 1] == '-' &&
           hex_get_lower(d->trace_id.bytes, p + TRACE_AT, TRACE_ID_SIZE) &&
           hex_get_lower(d->span_id.bytes, p + SPAN_AT, SPAN_ID_SIZE) &&
           hex_get_lower(&d->flags, p + FLAGS_AT, 1) && !trace_id_is_zero(&d->trace_id) &&
           !span_id_is_zero(&d->span_id);
}

static void trace_get(struct decoder *d)
{
    struct str parent = STR_NONE;
    struct value v;
    value_get(d, 0, &v);
    d->has_trace = true;
    d->trace_state = STR("");
    for (size_t i = 0; v.type == VALUE_MAP && i < v.map.n; i++) {
        const struct attr *a = &v.map.items[i];
        if (a->value.type != VALUE_STRING)
            continue;
        if (str_eq(a->key, STR("traceparent")))
            parent = a->value.string;
        else if (str_eq(a->key, STR("tracestate")))
            d->trace_state = a->value.string;
    }
    d->is_damaged = !parent.ptr || !traceparent_parse(d, parent);
}

static unsigned key_rank(struct str key, enum what *ret)
{
    for (unsigned i = 0; i < KEYS; i++) {
        if (str_eq(key, str_from(keys[i].key))) {
            *ret = keys[i].what;
            return i + 1;
        }
    }
    *ret = OTHER;
    return 0;
}

static void member_get(struct decoder *d)
{
    enum what what;
    struct str key = d->r.text;
    unsigned rank = key_rank(key, &what);
    if (what == TRACE) {
        trace_get(d);
        return;
    }
    struct value v;
    value_get(d, 0, &v);
    if (d->r.err || v.type == VALUE_NONE || d->attrs.n >= ATTRS_MAX)
        return;
    struct attr *a = list_next(d, &d->attrs);
    if (!a)
        return;
    *a = (struct attr){key, v};
    if (rank && (!d->found[what].rank || rank <= d->found[what].rank))
        d->found[what] = (struct found){rank, d->attrs.n - 1};
}

static const struct value *found(const struct decoder *d, enum what what)
{
    return d->found[what].rank ? &d->attrs.items[d->found[what].attr].value : NULL;
}

/* It was used: no attribute. */
static void take(struct decoder *d, enum what what)
{
    if (d->found[what].rank)
        d->attrs.items[d->found[what].attr].value.type = VALUE_NONE;
}

static bool take_text(struct decoder *d, enum what what, struct str *ret)
{
    const struct value *v = found(d, what);
    if (!v || v->type != VALUE_STRING || !v->string.len)
        return false;
    *ret = v->string;
    take(d, what);
    return true;
}

static bool number_of(const struct value *v, double *ret)
{
    if (v->type == VALUE_INT)
        *ret = (double)v->integer;
    else if (v->type == VALUE_DOUBLE)
        *ret = v->real;
    else
        return v->type == VALUE_STRING && str_to_double(v->string, ret);
    return true;
}

/* ---- times ---- */

/* Seconds, milliseconds, microseconds or nanoseconds since the epoch: by how large it is, which tells
 * them apart from 1973 to the year 5138. */
static bool epoch_ns(const struct value *v, uint64_t *ret)
{
    static const struct {
        double below;
        uint64_t factor;
    } units[] = {{1e11, NS_PER_S}, {1e14, NS_PER_MS}, {1e17, NS_PER_US}, {1.8e19, 1}};
    uint64_t whole = 0;
    double real;
    if (v->type == VALUE_INT && v->integer > 0)
        whole = (uint64_t)v->integer;
    else if (v->type == VALUE_STRING && !str_to_u64(v->string, &whole))
        whole = 0;
    if (!whole && !number_of(v, &real))
        return false;
    if (whole)
        real = (double)whole;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (!(real > 0 && real < units[i].below))
            continue;
        if (whole) {
            *ret = whole * units[i].factor;
        } else { /* to the microsecond, which is what a double of seconds holds */
            double floor_ = floor(real);
            *ret = (uint64_t)floor_ * units[i].factor +
                   (uint64_t)llround((real - floor_) * 1e6) * units[i].factor / 1000000;
        }
        return true;
    }
    return false;
}

static bool take_time(struct decoder *d, enum what what, uint64_t *ret)
{
    const struct value *v = found(d, what);
    if (!v ||
        !((v->type == VALUE_STRING && clock_parse_rfc3339(v->string, ret)) || epoch_ns(v, ret)))
        return false;
    take(d, what);
    return true;
}

static bool take_duration(struct decoder *d, uint64_t *ret)
{
    static const double units[] = {
        [DURATION_NS] = 1, [DURATION_US] = 1e3, [DURATION_MS] = 1e6, [DURATION] = 1e9};
    for (enum what what = DURATION_NS; what <= DURATION; what++) {
        const struct value *v = found(d, what);
        double n;
        if (!v)
            continue;
        if (v->type == VALUE_INT && v->integer >= 0 &&
            v->integer < INT64_MAX / (int64_t)units[what]) {
            *ret = (uint64_t)v->integer * (uint64_t)units[what];
        } else if (number_of(v, &n) && n >= 0 && n * units[what] < (double)INT64_MAX) {
            *ret = (uint64_t)llround(n * units[what]);
        } else if (what != DURATION || v->type != VALUE_STRING ||
                   !str_to_duration_ns(v->string, ret)) {
            continue;
        }
        take(d, what);
        return true;
    }
    return false;
}

static void times_get(struct decoder *d, uint64_t now_ns, uint64_t *ret_start, uint64_t *ret_end)
{
    uint64_t start = 0, end = 0, point = 0, duration = 0;
    bool has_start = take_time(d, START, &start), has_end = take_time(d, END, &end);
    bool has_duration = (!has_start || !has_end) && take_duration(d, &duration);
    if (!has_start && !has_end) {
        /* A line is written when what it tells of is over. */
        end = take_time(d, POINT, &point) ? point : now_ns;
        has_end = true;
    }
    if (!has_start)
        start = end > duration ? end - duration : 0;
    else if (!has_end)
        end = has_duration && duration < UINT64_MAX - start ? start + duration : start;
    *ret_start = start;
    *ret_end = end < start ? start : end;
}

/* ---- spans and logs ---- */

static void attrs_finish(struct decoder *d, struct attrs *ret)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < d->attrs.n; i++)
        if (d->attrs.items[i].value.type != VALUE_NONE)
            d->attrs.items[n++] = d->attrs.items[i];
    *ret = (struct attrs){d->attrs.items, n, 0};
}

static bool id_get(struct decoder *d, enum what what, uint8_t *bytes, size_t n)
{
    const struct value *v = found(d, what);
    if (!v || v->type != VALUE_STRING || v->string.len != 2 * n || !hex_get(bytes, v->string, n))
        return false;
    take(d, what);
    return true;
}

static void status_get(struct decoder *d, struct span *s)
{
    static const struct str words[] = {STR("UNSET"), STR("OK"), STR("ERROR")};
    const struct value *status = found(d, STATUS), *error = found(d, ERROR);
    for (size_t i = 0; status && status->type == VALUE_STRING && i < 3; i++) {
        if (str_eq_nocase(status->string, words[i])) {
            s->status_code = (uint8_t)i;
            take(d, STATUS);
            break;
        }
    }
    take_text(d, STATUS_MESSAGE, &s->status_message);
    if (!error || s->status_code)
        return;
    if (error->type == VALUE_BOOL ? error->boolean
                                  : error->type != VALUE_STRING || error->string.len) {
        s->status_code = STATUS_ERROR;
        if (error->type == VALUE_STRING && !s->status_message.len)
            s->status_message = error->string;
    }
}

static struct str name_get(struct decoder *d)
{
    const struct value *v = found(d, NAME);
    struct str name;
    if (v && v->type == VALUE_STRING && v->string.len <= NAME_BYTES_MAX &&
        take_text(d, NAME, &name))
        return name;
    return STR("log line");
}

static void span_make(struct decoder *d, const struct line_context *context, struct line *ret)
{
    struct span s = {.trace_state = d->trace_state, .status_message = STR("")};
    const struct value *kind = found(d, KIND);
    struct span_id current;
    s.trace_id = d->trace_id;
    current = d->span_id;
    s.flags = d->flags;
    /* A line with an id of its own is that span; any other was written inside the current one. */
    if (id_get(d, SPAN_ID, s.span_id.bytes, SPAN_ID_SIZE) && !span_id_is_zero(&s.span_id)) {
        if (!id_get(d, PARENT_ID, s.parent_id.bytes, SPAN_ID_SIZE) &&
            memcmp(&current, &s.span_id, sizeof current) != 0)
            s.parent_id = current;
    } else {
        s.span_id = context->span_id;
        s.parent_id = current;
    }
    times_get(d, context->now_ns, &s.start_ns, &s.end_ns);
    s.name = name_get(d);
    s.kind = SPAN_KIND_INTERNAL;
    if (kind && kind->type == VALUE_STRING && span_kind_parse(kind->string, &s.kind))
        take(d, KIND);
    status_get(d, &s);
    attrs_finish(d, &s.attrs);
    ret->span = s;
}

static uint8_t severity_of(struct str level)
{
    static const struct {
        struct str word;
        uint8_t severity;
    } words[] = {{STR("trace"), 1},   {STR("debug"), 5},     {STR("info"), 9},
                 {STR("notice"), 10}, {STR("warn"), 13},     {STR("warning"), 13},
                 {STR("error"), 17},  {STR("err"), 17},      {STR("critical"), 21},
                 {STR("fatal"), 21},  {STR("emergency"), 24}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (str_eq_nocase(level, words[i].word))
            return words[i].severity;
    return 0;
}

static void log_make(struct decoder *d, const struct line_context *context, struct line *ret)
{
    struct log_record r = {.severity_text = STR(""), .event_name = STR("")};
    struct str message;
    (void)id_get(d, OTEL_TRACE_ID, r.trace_id.bytes, TRACE_ID_SIZE);
    (void)id_get(d, OTEL_SPAN_ID, r.span_id.bytes, SPAN_ID_SIZE);
    take(d, OTEL_SPAN_ID); /* "0" is written outside of spans */
    if (!take_time(d, POINT, &r.time_ns))
        r.observed_time_ns = context->now_ns;
    if (take_text(d, LEVEL, &r.severity_text))
        r.severity = severity_of(r.severity_text);
    if (take_text(d, MESSAGE, &message))
        r.body = (struct value){.type = VALUE_STRING, .string = message};
    attrs_finish(d, &r.attrs);
    ret->log = r;
}

static bool names_trace(const struct decoder *d)
{
    const struct value *v = found(d, OTEL_TRACE_ID);
    struct trace_id id;
    return v && v->type == VALUE_STRING && v->string.len == 2 * TRACE_ID_SIZE &&
           hex_get(id.bytes, v->string, TRACE_ID_SIZE) && !trace_id_is_zero(&id);
}

int trace_line_decode(struct str text, const struct line_context *context, struct arena *arena,
                      struct line *ret, struct error_detail *ret_detail)
{
    struct decoder d = {.arena = arena};
    *ret = (struct line){.fate = LINE_PASSED, .service = context->service};
    if (!str_trim(text).len)
        return LINE_PASSED;
    json_reader_init(&d.r, text, arena, ret_detail);
    if (json_next(&d.r) != JSON_OBJECT) {
        json_fail(&d.r, "a JSON object");
    } else {
        while (json_next(&d.r) == JSON_KEY)
            member_get(&d);
        json_next(&d.r); /* the end, or what should not be there */
    }
    if (d.r.err == ERR_NOMEM)
        return ERR_NOMEM;
    if (d.r.err)
        return ret->fate = LINE_INVALID;
    if (d.has_trace && d.is_damaged) {
        error_set(ret_detail, ERR_INVALID, 0, "`_trace` holds no traceparent");
        return ret->fate = LINE_INVALID;
    }
    if (!d.has_trace && !names_trace(&d))
        return LINE_PASSED;
    struct str service;
    if (take_text(&d, SERVICE, &service))
        ret->service = service;
    ret->fate = d.has_trace ? LINE_SPAN : LINE_LOG;
    if (d.has_trace)
        span_make(&d, context, ret);
    else
        log_make(&d, context, ret);
    return ret->fate;
}
