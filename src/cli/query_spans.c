#include "cli/query_spans.h"

#include "base/clock.h"
#include "base/json.h"

struct pairs {
    struct str keys[GRID_COLUMNS_MAX], values[GRID_COLUMNS_MAX];
    bool is_list[GRID_COLUMNS_MAX]; /* the value is the JSON of an arrayValue */
    size_t n;
};

struct span_row {
    struct str service, name;
    uint64_t start_ns, duration_ns;
    struct pairs values;
};

static bool pair_read(struct json_reader *r, struct pairs *ret)
{
    struct str key = STR(""), value = STR("");
    bool is_list = false;
    while (json_next(r) == JSON_KEY) {
        if (str_eq(r->text, STR("key"))) {
            if (json_next(r) != JSON_STRING)
                return false;
            key = r->text;
            continue;
        }
        /* {"intValue":"5"}; {}: there is none */
        if (json_next(r) != JSON_OBJECT)
            return false;
        while (json_next(r) == JSON_KEY) {
            is_list = str_eq(r->text, STR("arrayValue"));
            value = json_skip_text(r); /* of a list or a map as it is */
            if (r->type == JSON_STRING || r->type == JSON_NUMBER)
                value = r->text;
        }
    }
    if (ret->n == GRID_COLUMNS_MAX)
        return false;
    ret->keys[ret->n] = key;
    ret->is_list[ret->n] = is_list;
    ret->values[ret->n++] = value;
    return r->type == JSON_OBJECT_END;
}

static bool pairs_read(struct json_reader *r, struct pairs *ret)
{
    ret->n = 0;
    if (json_next(r) != JSON_ARRAY)
        return false;
    while (json_next(r) == JSON_OBJECT)
        if (!pair_read(r, ret))
            return false;
    return r->type == JSON_ARRAY_END;
}

static bool span_read(struct json_reader *r, struct span_row *ret)
{
    *ret = (struct span_row){.service = STR(""), .name = STR("")};
    while (json_next(r) == JSON_KEY) {
        struct str key = r->text;
        if (str_eq(key, STR("values"))) {
            if (!pairs_read(r, &ret->values))
                return false;
            continue;
        }
        json_skip_text(r);
        if (str_eq(key, STR("service")))
            ret->service = r->text;
        else if (str_eq(key, STR("name")))
            ret->name = r->text;
        else if ((str_eq(key, STR("startUnixNano")) && !json_to_u64(r, &ret->start_ns)) ||
                 (str_eq(key, STR("durationNano")) && !json_to_u64(r, &ret->duration_ns)))
            return false;
    }
    return r->type == JSON_OBJECT_END;
}

/* ---- the table ---- */

static void columns_make(struct grid *g, const struct pairs *labels, const struct span_row *span,
                         bool as_numbers)
{
    if (span) {
        grid_column(g, as_numbers ? STR("start") : STR("START"), GRID_WHOLE);
        grid_column(g, as_numbers ? STR("duration_ns") : STR("DURATION"), GRID_NUMBER);
        grid_column(g, as_numbers ? STR("service") : STR("SERVICE"), GRID_SERVICE);
        grid_column(g, as_numbers ? STR("name") : STR("NAME"), GRID_PLAIN);
    } else {
        grid_column(g, as_numbers ? STR("matched") : STR("MATCHED"), GRID_NUMBER);
    }
    for (size_t i = 0; i < labels->n; i++)
        grid_column(g, labels->keys[i], GRID_PLAIN);
    for (size_t i = 0; span && i < span->values.n; i++)
        grid_column(g, span->values.keys[i], GRID_PLAIN);
    grid_column(g, as_numbers ? STR("trace_id") : STR("TRACE"), GRID_WHOLE);
}

/* {"values":[{"stringValue":"a"},{"intValue":"1"}]} as [a, 1], the way pugmark trace has it; lists and
 * maps inside stay as they are. False: it is no list of values. */
static bool list_text(struct str json, struct arena *arena, struct buf *out)
{
    struct json_reader r;
    json_reader_init(&r, json, arena, NULL);
    if (json_next(&r) != JSON_OBJECT || json_next(&r) != JSON_KEY || json_next(&r) != JSON_ARRAY)
        return false;
    buf_byte(out, '[');
    for (bool first = true; json_next(&r) == JSON_OBJECT; first = false) {
        if (!first)
            buf_cstr(out, ", ");
        while (json_next(&r) == JSON_KEY) {
            struct str value = json_skip_text(&r);
            buf_str(out, r.type == JSON_STRING || r.type == JSON_NUMBER ? r.text : value);
        }
    }
    buf_byte(out, ']');
    return r.type == JSON_ARRAY_END && buf_ok(out);
}

/* Fields that are durations, which answers have in nanoseconds; also aggregates of them. */
static bool is_duration(struct str key)
{
    static const char *const names[] = {"duration", "span:duration", "traceDuration",
                                        "trace:duration"};
    static const char *const aggregates[] = {"avg(", "min(", "max(", "sum("};
    for (size_t i = 0; i < sizeof aggregates / sizeof *aggregates; i++)
        if (key.len > 5 && !memcmp(key.ptr, aggregates[i], 4) && key.ptr[key.len - 1] == ')') {
            key = (struct str){key.ptr + 4, key.len - 5};
            break;
        }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (str_eq(key, str_from(names[i])))
            return true;
    return false;
}

/* Averages may have a fraction of a nanosecond. */
static bool whole_ns(struct str number, uint64_t *ret)
{
    size_t whole = 0;
    while (whole < number.len && number.ptr[whole] != '.')
        whole++;
    for (size_t i = whole + 1; i < number.len; i++)
        if (number.ptr[i] < '0' || number.ptr[i] > '9')
            return false;
    return str_to_u64((struct str){number.ptr, whole}, ret);
}

static void pairs_put(struct grid *g, const struct pairs *p, bool as_numbers)
{
    for (size_t i = 0; i < p->n; i++) {
        struct str value = p->values[i];
        char duration[TERM_DURATION_SIZE];
        struct buf list = BUF_INIT;
        uint64_t ns;
        if (!as_numbers && p->is_list[i] && list_text(value, &g->arena, &list))
            value = buf_as_str(&list);
        else if (!as_numbers && is_duration(p->keys[i]) && whole_ns(value, &ns))
            value = str_from(term_duration(duration, ns));
        grid_cell(g, value);
        buf_done(&list);
    }
}

static void row_put(struct grid *g, struct str trace_id, uint64_t matched,
                    const struct pairs *labels, const struct span_row *span, bool as_numbers)
{
    char text[TERM_TIME_SIZE + CLOCK_RFC3339_SIZE + TERM_DURATION_SIZE];
    if (!g->n_columns)
        columns_make(g, labels, span, as_numbers);
    if (!span) {
        snprintf(text, sizeof text, "%llu", (unsigned long long)matched);
        grid_cell(g, str_from(text));
    } else {
        if (as_numbers)
            clock_rfc3339(text, span->start_ns);
        else
            term_time(text, span->start_ns, false);
        grid_cell(g, str_from(text));
        if (as_numbers)
            snprintf(text, sizeof text, "%llu", (unsigned long long)span->duration_ns);
        else
            term_duration(text, span->duration_ns);
        grid_cell(g, str_from(text));
        grid_cell(g, span->service);
        grid_cell(g, span->name);
    }
    pairs_put(g, labels, as_numbers);
    if (span)
        pairs_put(g, &span->values, as_numbers);
    grid_cell(g, trace_id);
    /* Sets of one answer have the same labels, and spans the same values. */
    g->failed |= g->n_cells % g->n_columns != 0;
}

static bool spans_put(struct grid *g, struct str trace_id, const struct pairs *labels,
                      struct str spans, uint64_t matched, bool as_numbers, struct arena *arena)
{
    struct json_reader r;
    struct span_row span;
    json_reader_init(&r, spans, arena, NULL);
    if (json_next(&r) != JSON_ARRAY)
        return false;
    for (bool first = true; json_next(&r) == JSON_OBJECT; first = false) {
        if (!span_read(&r, &span))
            return false;
        if (first && !span.values.n) { /* nothing is selected */
            row_put(g, trace_id, matched, labels, NULL, as_numbers);
            return true;
        }
        row_put(g, trace_id, matched, labels, &span, as_numbers);
    }
    return r.type == JSON_ARRAY_END;
}

bool query_spans_add(struct grid *g, struct str trace_id, struct str sets, bool as_numbers,
                     struct arena *arena)
{
    struct json_reader r;
    json_reader_init(&r, sets, arena, NULL);
    if (json_next(&r) != JSON_ARRAY)
        return false;
    while (json_next(&r) == JSON_OBJECT) {
        struct pairs labels = {.n = 0};
        struct str spans = STR("[]");
        uint64_t matched = 0;
        while (json_next(&r) == JSON_KEY) {
            struct str key = r.text;
            if (str_eq(key, STR("labels"))) {
                if (!pairs_read(&r, &labels))
                    return false;
                continue;
            }
            struct str value = json_skip_text(&r);
            if (str_eq(key, STR("spans")))
                spans = value;
            else if (str_eq(key, STR("matched")) && !json_to_u64(&r, &matched))
                return false;
        }
        if (r.type != JSON_OBJECT_END ||
            !spans_put(g, trace_id, &labels, spans, matched, as_numbers, arena))
            return false;
    }
    return r.type == JSON_ARRAY_END;
}
