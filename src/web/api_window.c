/* GET /api/pugmark/traces/{id}/...: parts of a trace, for who shows it.
 *
 * The lines that are shown depend on what is folded (`fold`, `flip`) and on what is too short to be seen
 * (`merge`); all of these endpoints take the same three, and `asOf`, so that a line has the same number in each
 * of their answers. */
#include "web/json_keys.h"
#include "web/trace_json.h"
#include "web/traces.h"
#include "web/web_internal.h"

#include "base/clock.h"

#include <stdlib.h>

enum {
    LINES_DEFAULT = 100,
    LINES_MAX = 1000, /* in one window */
    FLIPPED_MAX = 1000,
    WIDTH_MAX = 4000,
    LANES_MAX = 200,         /* of the overview */
    ANCESTORS_MAX = 1000,    /* told of one span */
    EVENT_MARKS_MAX = 100,   /* of one span, in a window */
    EVENTS_WHOLE_MAX = 5000, /* spans that are read at once, rather than one by one */
    EVENTS_MS_MAX = 300,
    FIND_BYTES_MAX = 1 << 30,
};

/* ---- what every request says ---- */

struct shown {
    struct traces *traces;
    struct trace_entry *entry;
    struct store_view *view; /* the request's: gone when that is answered */
    const struct outline *o;
    struct outline_fold fold;
    struct trace_lines *lines;
};

static void shown_done(struct shown *s)
{
    trace_lines_unref(s->traces, s->lines);
    trace_unref(s->traces, s->entry);
}

static int row_order(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* "id.id.id": the rows of those that are there, in order, each once. */
static bool flipped_rows(struct web_request *q, struct shown *s, struct str text)
{
    uint32_t *rows = arena_array(q->arena, FLIPPED_MAX, sizeof *rows);
    size_t n = 0, kept = 0;
    if (!rows) {
        web_fail_err(q, ERR_NOMEM, NULL);
        return false;
    }
    while (text.ptr && text.len) {
        struct str rest, item = str_split(text, '.', &rest);
        struct span_id id;
        if (!span_id_parse(item, &id)) {
            web_fail_at(q, 400, "flip", (size_t)(item.ptr - text.ptr),
                        "expected ids of spans with a dot between them");
            return false;
        }
        uint32_t row = outline_find(s->o, &id);
        if (row != OUTLINE_NONE && n < FLIPPED_MAX)
            rows[n++] = row;
        text = rest;
    }
    if (n)
        qsort(rows, n, sizeof *rows, row_order);
    for (size_t i = 0; i < n; i++)
        if (!kept || rows[kept - 1] != rows[i])
            rows[kept++] = rows[i];
    s->fold.flipped = rows;
    s->fold.n_flipped = kept;
    return true;
}

/* False: answered with an error. */
static bool shown_init(struct web_request *q, struct shown *s)
{
    uint64_t as_of, depth, merge;
    *s = (struct shown){.traces = q->web->traces};
    if (!web_param_u64(q, "asOf", 0, UINT64_MAX, 0, &as_of) ||
        !web_param_u64(q, "fold", 0, OUTLINE_NONE, OUTLINE_NONE, &depth) ||
        !web_param_u64(q, "merge", 0, UINT64_MAX, 0, &merge) ||
        !trace_get(q, as_of, &s->entry, &s->view))
        return false;
    s->o = s->entry->outline;
    s->fold.depth = (uint32_t)depth;
    s->fold.merge_ns = merge;
    struct str flip = web_param(q, "flip");
    if (!flipped_rows(q, s, flip)) {
        shown_done(s);
        return false;
    }
    char *key = arena_printf(q->arena, "%llu %llu %.*s", (unsigned long long)depth,
                             (unsigned long long)merge, STR_ARG(flip));
    s->lines = key ? trace_lines_get(s->traces, s->entry, str_from(key), &s->fold) : NULL;
    if (!s->lines) {
        shown_done(s);
        web_fail_err(q, ERR_NOMEM, NULL);
        return false;
    }
    return true;
}

static struct json_writer answer_open(const struct shown *s, struct buf *out)
{
    struct json_writer w = json_writer(out);
    json_open(&w, '{');
    key_u64_str(&w, "asOf", s->entry->as_of);
    return w;
}

static void answer_close(struct web_request *q, struct shown *s, struct json_writer *w,
                         struct buf *out)
{
    json_close(w, '}');
    if (store_view_is_damaged(s->view))
        s->entry->is_partial = true;
    shown_done(s);
    web_reply_json(q, 200, out);
}

/* ---- facts ---- */

/* Of the services whose clocks the calls of the trace prove wrong, or contradict. */
static void clocks_json(struct json_writer *w, const struct outline_clock *clocks, uint32_t n)
{
    key_open(w, "clocks", '[');
    for (uint32_t i = 0; i < n; i++) {
        const struct outline_clock *c = &clocks[i];
        if (!c->ahead_ns && !c->is_contradicted)
            continue;
        json_open(w, '{');
        key_u64(w, "service", i);
        json_key(w, STR("aheadNano"));
        json_i64_str(w, c->ahead_ns);
        if (c->ahead_ns) {
            key_u64(w, "relativeTo", c->relative_to);
            key_u64(w, "calls", c->calls);
        }
        if (c->ahead_ns && c->has_bounds) {
            json_key(w, STR("lowNano"));
            json_i64_str(w, c->low_ns);
            json_key(w, STR("highNano"));
            json_i64_str(w, c->high_ns);
        }
        if (c->is_contradicted)
            key_bool(w, "contradicted", true);
        json_close(w, '}');
    }
    json_close(w, ']');
}

void trace_outline(struct web_request *q)
{
    struct shown s;
    struct outline_clock *clocks;
    if (!shown_init(q, &s))
        return;
    if (outline_clocks(s.o, &clocks)) {
        shown_done(&s);
        web_fail_err(q, ERR_NOMEM, NULL);
        return;
    }
    const struct outline *o = s.o;
    const struct outline_row *root = outline_root(o);
    struct buf out = web_answer();
    struct json_writer w = answer_open(&s, &out);
    key_hex(&w, "traceId", o->id.bytes, TRACE_ID_SIZE);
    key_str(&w, "rootService", o->services[root->service].name);
    key_str(&w, "rootName", o->names[root->name]);
    key_u64_str(&w, "startUnixNano", o->start_ns);
    key_u64_str(&w, "durationNano", o->duration_ns);
    key_u64(&w, "spanCount", o->n);
    key_u64(&w, "lines", s.lines->lines.n);
    key_u64(&w, "depth", o->depth);
    key_u64(&w, "roots", o->n_roots);
    key_u64(&w, "errorCount", o->n_errors);
    key_u64(&w, "orphanCount", o->n_orphans);
    key_u64(&w, "missingParents", o->n_missing_parents);
    key_open(&w, "services", '[');
    for (uint32_t i = 0; i < o->n_services; i++) {
        json_open(&w, '{');
        key_str(&w, "name", o->services[i].name);
        key_u64(&w, "spanCount", o->services[i].span_count);
        key_u64(&w, "errorCount", o->services[i].error_count);
        json_close(&w, '}');
    }
    json_close(&w, ']');
    clocks_json(&w, clocks, o->n_services);
    free(clocks);
    answer_close(q, &s, &w, &out);
}

/* ---- operations ---- */

#define OPERATIONS_DEFAULT 200
#define OPERATIONS_MAX 10000

void trace_operations(struct web_request *q)
{
    struct shown s;
    struct outline_operation *list;
    uint64_t limit;
    uint32_t n;
    if (!web_param_u64(q, "limit", 1, OPERATIONS_MAX, OPERATIONS_DEFAULT, &limit) ||
        !shown_init(q, &s))
        return;
    if (outline_operations(s.o, &list, &n)) {
        shown_done(&s);
        web_fail_err(q, ERR_NOMEM, NULL);
        return;
    }
    uint64_t self_ns = 0;
    struct buf out = web_answer();
    struct json_writer w = answer_open(&s, &out);
    key_u64(&w, "total", n);
    for (uint32_t i = 0; i < n; i++)
        self_ns += list[i].self_ns;
    key_u64_str(&w, "selfNano", self_ns);
    key_open(&w, "operations", '[');
    for (uint32_t i = 0; i < n && i < limit; i++) {
        const struct outline_operation *op = &list[i];
        json_open(&w, '{');
        key_u64(&w, "service", op->service);
        key_str(&w, "name", s.o->names[op->name]);
        key_u64(&w, "spanCount", op->spans);
        key_u64(&w, "errorCount", op->errors);
        key_u64_str(&w, "selfNano", op->self_ns);
        key_u64_str(&w, "durationNano", op->duration_ns);
        key_u64_str(&w, "longestNano", op->longest_ns);
        key_hex(&w, "longestSpanId", s.o->rows[op->longest].id.bytes, SPAN_ID_SIZE);
        json_close(&w, '}');
    }
    json_close(&w, ']');
    free(list);
    answer_close(q, &s, &w, &out);
}

/* ---- rows ---- */

static void flag(struct json_writer *w, const char *key, bool value)
{
    if (value)
        key_bool(w, key, true);
}

static void merged_json(struct json_writer *w, const struct shown *s, uint32_t line, uint32_t row)
{
    const struct outline *o = s->o;
    uint32_t end = outline_line_end(o, &s->lines->lines, line), several = 0;
    uint64_t last = 0, longest = 0;
    for (uint32_t i = row; i < end; i += 1 + o->rows[i].size) {
        const struct outline_row *r = &o->rows[i];
        last = r->start_ns + r->duration_ns > last ? r->start_ns + r->duration_ns : last;
        longest = r->duration_ns > longest ? r->duration_ns : longest;
        several++;
    }
    key_u64(w, "merged", several);
    key_u64(w, "spans", end - row);
    key_u64_str(w, "endOffsetNano", last);
    key_u64_str(w, "longestNano", longest);
}

static void line_json(struct json_writer *w, const struct shown *s, uint32_t line,
                      const struct trace_found *found)
{
    const struct outline *o = s->o;
    uint32_t row = outline_line_row(&s->lines->lines, line);
    const struct outline_row *r = &o->rows[row];
    bool merged = outline_line_is_merged(&s->lines->lines, line);
    bool folded = !merged && outline_is_folded(r, row, &s->fold);
    json_open(w, '{');
    key_u64(w, "row", row);
    key_hex(w, "spanId", r->id.bytes, SPAN_ID_SIZE);
    key_u64(w, "depth", r->depth);
    key_u64(w, "service", r->service);
    key_str(w, "name", o->names[r->name]);
    key_str(w, "kind", str_from(span_kind_name(r->kind)));
    key_u64_str(w, "startOffsetNano", r->start_ns);
    key_u64_str(w, "durationNano", r->duration_ns);
    if (merged)
        merged_json(w, s, line, row);
    else if (r->children) {
        key_u64(w, "children", r->children);
        key_u64(w, "below", r->size);
    }
    if (r->parent != OUTLINE_NONE) {
        key_hex(w, "parentSpanId", o->rows[r->parent].id.bytes, SPAN_ID_SIZE);
        key_u64(w, "parentLine", outline_line_of(&s->lines->lines, r->parent));
    }
    flag(w, "sameService", r->parent != OUTLINE_NONE && o->rows[r->parent].service == r->service);
    flag(w, "folded", folded);
    flag(w, "error", r->bits & OUTLINE_ERROR);
    flag(w, "errorBelow", r->bits & OUTLINE_ERROR_BELOW);
    flag(w, "orphan", r->bits & OUTLINE_ORPHAN);
    flag(w, "circular", r->bits & OUTLINE_CIRCULAR);
    flag(w, "critical", r->bits & OUTLINE_CRITICAL);
    if (found) {
        bool match = false;
        uint32_t end = merged || folded ? outline_line_end(o, &s->lines->lines, line) : row + 1;
        for (uint32_t i = row; i < end && !match; i++)
            match = outline_found_has(&found->found, i);
        flag(w, "match", match);
    }
    json_close(w, '}');
}

/* What a search is remembered by. */
static struct str found_key(struct web_request *q)
{
    struct str text = web_param(q, "q"), what = web_param(q, "what");
    char *key = arena_printf(q->arena, "%.*s %.*s", STR_ARG(what), STR_ARG(text));
    return key ? str_from(key) : STR_NONE;
}

void trace_window(struct web_request *q)
{
    struct shown s;
    uint64_t first, n;
    if (!web_param_u64(q, "first", 0, OUTLINE_NONE, 0, &first) ||
        !web_param_u64(q, "lines", 1, LINES_MAX, LINES_DEFAULT, &n) || !shown_init(q, &s))
        return;
    struct trace_found *found = NULL;
    if (web_param(q, "q").ptr || web_param(q, "what").ptr)
        found = trace_found_get(s.traces, s.entry, found_key(q));
    uint32_t total = s.lines->lines.n;
    struct buf out = web_answer();
    struct json_writer w = answer_open(&s, &out);
    key_u64(&w, "lines", total);
    key_u64(&w, "first", first);
    key_open(&w, "rows", '[');
    for (uint64_t line = first; line < total && line < first + n; line++)
        line_json(&w, &s, (uint32_t)line, found);
    json_close(&w, ']');
    trace_found_unref(s.traces, found);
    answer_close(q, &s, &w, &out);
}

/* ---- the overview ---- */

/* What the starts of each service move by; NULL without memory. */
static int64_t *adjustment(const struct outline *o)
{
    struct outline_clock *clocks;
    if (outline_clocks(o, &clocks))
        return NULL;
    int64_t *shifts = malloc((o->n_services ? o->n_services : 1) * sizeof *shifts);
    for (uint32_t i = 0; shifts && i < o->n_services; i++)
        shifts[i] = -clocks[i].ahead_ns;
    free(clocks);
    return shifts;
}

void trace_overview(struct web_request *q)
{
    struct shown s;
    uint64_t width, lanes;
    if (!web_param_u64(q, "width", 1, WIDTH_MAX, 1000, &width) ||
        !web_param_u64(q, "lanes", 1, LANES_MAX, 48, &lanes))
        return;
    struct str clock = web_param(q, "clock");
    bool adjusted = str_eq(clock, STR("adjusted"));
    if (clock.ptr && !adjusted && !str_eq(clock, STR("raw"))) {
        web_fail_at(q, 400, "clock", 0, "expected raw or adjusted");
        return;
    }
    if (!shown_init(q, &s))
        return;
    int64_t *shifts = adjusted ? adjustment(s.o) : NULL;
    struct outline_shift shift = {shifts};
    uint32_t n = s.lines->lines.n;
    uint32_t n_lanes = n < lanes ? n : (uint32_t)lanes, n_cells = (uint32_t)width;
    uint32_t *cells = malloc((size_t)n_lanes * n_cells * sizeof *cells);
    int err = cells && (shifts || !adjusted)
                  ? outline_overview(s.o, &s.lines->lines, &shift, n_cells, n_lanes, cells)
                  : ERR_NOMEM;
    free(shifts);
    if (err) {
        free(cells);
        shown_done(&s);
        web_fail_err(q, err, NULL);
        return;
    }
    struct buf out = web_answer();
    struct json_writer w = answer_open(&s, &out);
    key_u64(&w, "width", n_cells);
    key_u64(&w, "lanes", n_lanes);
    /* lane, first cell, how many, service, whether it failed: five numbers for each stretch of cells. */
    key_open(&w, "runs", '[');
    for (uint32_t lane = 0; lane < n_lanes; lane++)
        for (uint32_t x = 0, end; x < n_cells; x = end) {
            uint32_t cell = cells[lane * n_cells + x];
            for (end = x + 1; end < n_cells && cells[lane * n_cells + end] == cell;)
                end++;
            if (!cell)
                continue;
            json_u64(&w, lane);
            json_u64(&w, x);
            json_u64(&w, end - x);
            json_u64(&w, (cell & ~OUTLINE_CELL_ERROR) - 1);
            json_u64(&w, (cell & OUTLINE_CELL_ERROR) != 0);
        }
    json_close(&w, ']');
    free(cells);
    answer_close(q, &s, &w, &out);
}

/* ---- one span ---- */

/* Where a row is among the lines, and which folded spans hide it: these must be unfolded to see it. */
static void place_json(struct json_writer *w, const struct shown *s, uint32_t row)
{
    const struct outline *o = s->o;
    const struct outline_row *r = &o->rows[row];
    uint32_t hidden[ANCESTORS_MAX], n = 0;
    for (uint32_t p = r->parent; p != OUTLINE_NONE && n < ANCESTORS_MAX; p = o->rows[p].parent)
        if (outline_is_folded(&o->rows[p], p, &s->fold))
            hidden[n++] = p;
    uint32_t line = outline_line_of(&s->lines->lines, row);
    key_u64(w, "row", row);
    key_u64(w, "line", line);
    flag(w, "isMerged", outline_line_is_merged(&s->lines->lines, line));
    key_hex(w, "spanId", r->id.bytes, SPAN_ID_SIZE);
    key_open(w, "hiddenBy", '[');
    while (n-- > 0)
        json_hex(w, o->rows[hidden[n]].id.bytes, SPAN_ID_SIZE);
    json_close(w, ']');
}

void trace_span(struct web_request *q)
{
    struct shown s;
    struct span_id id;
    if (!span_id_parse(q->params[1], &id)) {
        web_fail_at(q, 400, "span", 0, "expected a span id of 1 to 16 hexadecimal digits");
        return;
    }
    if (!shown_init(q, &s))
        return;
    const struct outline *o = s.o;
    const struct span *span;
    uint32_t row = outline_find(o, &id);
    int err = row == OUTLINE_NONE ? ERR_NOT_FOUND : outline_span(o, s.view, row, q->arena, &span);
    if (err) {
        shown_done(&s);
        if (err == ERR_NOT_FOUND)
            web_fail(q, 404, "there is no span %.*s in this trace", STR_ARG(q->params[1]));
        else
            web_fail_err(q, err, NULL);
        return;
    }
    const struct outline_row *r = &o->rows[row];
    struct buf out = web_answer();
    struct json_writer w = answer_open(&s, &out);
    place_json(&w, &s, row);
    key_u64(&w, "depth", r->depth);
    key_u64(&w, "children", r->children);
    key_u64(&w, "below", r->size);
    key_u64_str(&w, "startOffsetNano", r->start_ns);
    key_u64_str(&w, "selfNano", outline_self_ns(o, row));
    flag(&w, "critical", r->bits & OUTLINE_CRITICAL);
    flag(&w, "orphan", r->bits & OUTLINE_ORPHAN);
    flag(&w, "circular", r->bits & OUTLINE_CIRCULAR);
    if (r->parent != OUTLINE_NONE) {
        const struct outline_row *p = &o->rows[r->parent];
        key_open(&w, "parent", '{');
        key_hex(&w, "spanId", p->id.bytes, SPAN_ID_SIZE);
        key_str(&w, "name", o->names[p->name]);
        key_u64(&w, "service", p->service);
        key_u64_str(&w, "startOffsetNano", p->start_ns);
        key_u64_str(&w, "durationNano", p->duration_ns);
        json_close(&w, '}');
    }
    key_open(&w, "span", '{');
    trace_span_members(&w, span);
    json_close(&w, '}');
    json_key(&w, STR("resource"));
    trace_resource_json(&w, span->resource);
    json_key(&w, STR("scope"));
    trace_scope_json(&w, span->scope);
    answer_close(q, &s, &w, &out);
}

/* ---- events of the spans in sight ---- */

static void marks_json(struct json_writer *w, const struct shown *s, uint32_t row,
                       const struct span *span)
{
    json_open(w, '{');
    key_u64(w, "row", row);
    key_open(w, "events", '[');
    for (uint32_t i = 0; i < span->n_events && i < EVENT_MARKS_MAX; i++) {
        const struct event *e = &span->events[i];
        json_open(w, '{');
        json_key(w, STR("offsetNano"));
        json_i64_str(w, (int64_t)(e->time_ns - s->o->start_ns));
        key_str(w, "name", e->name);
        json_close(w, '}');
    }
    json_close(w, ']');
    json_close(w, '}');
}

/* Marks on bars, which nobody waits for: after EVENTS_MS_MAX the rest is left out. */
static int events_of_lines(struct shown *s, uint32_t first, uint32_t end, struct json_writer *w)
{
    struct arena arena = ARENA_INIT;
    uint64_t deadline_ns = clock_monotonic_ns() + EVENTS_MS_MAX * NS_PER_MS;
    struct span_batch batch = {0};
    bool whole = s->o->n <= EVENTS_WHOLE_MAX;
    int err = whole ? store_trace(s->view, &s->o->id, &arena, &batch) : 0;
    for (size_t i = 0; i < batch.n && !err; i++) {
        uint32_t row = outline_find(s->o, &batch.spans[i].span_id);
        uint32_t line = row == OUTLINE_NONE ? end : outline_line_of(&s->lines->lines, row);
        if (batch.spans[i].n_events && line >= first && line < end &&
            outline_line_row(&s->lines->lines, line) == row)
            marks_json(w, s, row, &batch.spans[i]);
    }
    for (uint32_t line = first; !whole && !err && line < end; line++) {
        uint32_t row = outline_line_row(&s->lines->lines, line);
        const struct span *span;
        if (clock_monotonic_ns() > deadline_ns)
            break;
        arena_reset(&arena);
        err = outline_span(s->o, s->view, row, &arena, &span);
        if (!err && span->n_events)
            marks_json(w, s, row, span);
    }
    arena_done(&arena);
    return err == ERR_NOT_FOUND ? 0 : err;
}

void trace_events(struct web_request *q)
{
    struct shown s;
    uint64_t first, n;
    if (!web_param_u64(q, "first", 0, OUTLINE_NONE, 0, &first) ||
        !web_param_u64(q, "lines", 1, LINES_MAX, LINES_DEFAULT, &n) || !shown_init(q, &s))
        return;
    uint64_t end = first + n < s.lines->lines.n ? first + n : s.lines->lines.n;
    struct buf out = web_answer();
    struct json_writer w = answer_open(&s, &out);
    key_open(&w, "rows", '[');
    int err = first < end ? events_of_lines(&s, (uint32_t)first, (uint32_t)end, &w) : 0;
    json_close(&w, ']');
    if (err) {
        buf_done(&out);
        shown_done(&s);
        web_fail_err(q, err, NULL);
        return;
    }
    answer_close(q, &s, &w, &out);
}

/* ---- finding ---- */

/* False: answered with an error. */
static bool find_run(struct web_request *q, struct shown *s, struct outline_found *ret)
{
    struct str text = web_param(q, "q"), what = web_param(q, "what");
    uint64_t deadline_ns = clock_monotonic_ns() + q->web->query_timeout_ns;
    struct error_detail detail = {0};
    int err;
    if (str_eq(what, STR("error"))) {
        err = outline_find_bits(s->o, OUTLINE_ERROR, ret);
    } else if (str_eq(what, STR("orphan"))) {
        err = outline_find_bits(s->o, OUTLINE_ORPHAN, ret);
    } else if (str_starts(str_trim(text), STR("{"))) {
        struct traceql *query;
        if (!traceql_parse(text, &query, &detail) && query->metric) {
            traceql_free(query);
            error_set(&detail, ERR_INVALID, 0, "a metric finds no spans");
        } else if (!detail.message[0]) {
            err = outline_find_query(s->o, s->view, query, deadline_ns, FIND_BYTES_MAX, ret);
            traceql_free(query);
            if (err == ERR_TOO_LARGE)
                error_set(&detail, err, 0, "this trace is too large for structure and aggregates");
            else
                goto done;
        }
        web_fail_at(q, 400, "q", detail.position, detail.message);
        return false;
    } else {
        err = outline_find_text(s->o, s->view, text, deadline_ns, ret);
    }
done:
    if (err)
        web_fail_err(q, err, NULL);
    return !err;
}

void trace_find(struct web_request *q)
{
    struct shown s;
    uint64_t from;
    if (!web_param_u64(q, "row", 0, OUTLINE_NONE, OUTLINE_NONE, &from))
        return;
    struct str what = web_param(q, "what"), step = web_param(q, "step");
    bool back = str_eq(step, STR("previous"));
    if (step.ptr && !back && !str_eq(step, STR("next"))) {
        web_fail_at(q, 400, "step", 0, "expected next or previous");
        return;
    }
    if (what.ptr && !str_eq(what, STR("error")) && !str_eq(what, STR("orphan"))) {
        web_fail_at(q, 400, "what", 0, "expected error or orphan");
        return;
    }
    if (!shown_init(q, &s))
        return;
    struct str key = found_key(q);
    struct trace_found *found = trace_found_get(s.traces, s.entry, key);
    if (!found) {
        struct outline_found fresh;
        if (!find_run(q, &s, &fresh)) {
            shown_done(&s);
            return;
        }
        found = trace_found_put(s.traces, s.entry, key, &fresh);
        if (!found) {
            shown_done(&s);
            web_fail_err(q, ERR_NOMEM, NULL);
            return;
        }
    }
    struct buf out = web_answer();
    struct json_writer w = answer_open(&s, &out);
    key_u64(&w, "total", found->found.n);
    uint32_t row = OUTLINE_NONE;
    if (step.ptr)
        row = outline_found_next(s.o, &found->found, from < s.o->n ? (uint32_t)from : OUTLINE_NONE,
                                 back);
    if (row != OUTLINE_NONE) {
        key_u64(&w, "index", outline_found_rank(&found->found, row));
        place_json(&w, &s, row);
    }
    trace_found_unref(s.traces, found);
    answer_close(q, &s, &w, &out);
}
