/* Tempo's answers as the messages of its StreamingQuerier.
 *
 * A search shows its newest traces first, before it has looked everywhere. The range is cut into slices that
 * all reach to its end, each longer than the one before. What a slice finds that also began in it is what the whole
 * search begins with: the order is by the start of the trace, and all spans of such a trace lie in the slice. The
 * next slice goes on behind these. Other answers are whole before they are sent, in messages that every client takes.
 * Source: grafana/tempo, pkg/tempopb/tempo.proto. */
#include "web/items.h"
#include "web/tempo.h"

#include "base/clock.h"
#include "wire/otlp.h"
#include "wire/protobuf.h"

#include <math.h>

enum {
    MESSAGE_BYTES = 512 << 10, /* a message is sent when it has as many; clients take 4 MiB */
    STATUS_PARTIAL = 1,
};

/* ---- parts of messages ---- */

static void put_count(struct buf *out, unsigned number, uint64_t n)
{
    if (n)
        pb_put_varint(out, PB_TAG(number, PB_VARINT), n);
}

static void put_double(struct buf *out, unsigned number, double v)
{
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    pb_put_fixed64(out, PB_TAG(number, PB_FIXED64), bits);
}

static void put_attribute(struct buf *out, unsigned number, struct str key,
                          const struct value *value)
{
    struct attr attr = {.key = key, .value = *value};
    const struct attrs one = {.items = &attr, .n = 1};
    otlp_encode_attrs(&one, PB_TAG(number, PB_BYTES), out);
}

static void put_progress(struct buf *out, const struct tempo_progress *p)
{
    struct pb_message m = pb_open(out, PB_TAG(2, PB_BYTES), 1);
    put_count(out, 1, p->traces_read < UINT32_MAX ? p->traces_read : UINT32_MAX);
    put_count(out, 2, p->cost->bytes_read);
    put_count(out, 3, p->cost->parts);
    put_count(out, 4, p->jobs_done);
    put_count(out, 5, p->jobs);
    put_count(out, 7, p->cost->rows_read);
    pb_close(out, m);
}

/* ---- search ---- */

static void put_span(struct web_request *q, struct buf *out, const struct span *span,
                     const struct traceql_trace *trace, const struct tempo_shown *shown)
{
    char hex[2 * SPAN_ID_SIZE];
    hex_put(hex, span->span_id.bytes, SPAN_ID_SIZE);
    struct pb_message m = pb_open(out, PB_TAG(1, PB_BYTES), 2);
    pb_put_bytes(out, PB_TAG(1, PB_BYTES), hex, sizeof hex);
    pb_put_str(out, PB_TAG(2, PB_BYTES), span->name);
    put_count(out, 3, span->start_ns);
    put_count(out, 4, span_duration_ns(span));
    for (size_t i = 0; i < shown->n; i++) {
        struct traceql_hex of_id;
        struct value value;
        if (tempo_shown_value(q, shown, i, span, trace, &of_id, &value))
            put_attribute(out, 5, shown->keys[i], &value);
    }
    pb_close(out, m);
}

static void put_set(struct web_request *q, struct buf *out, unsigned number,
                    const struct search_spans *spans, const struct traceql_spans *set,
                    const struct tempo_searched *s)
{
    struct pb_message m = pb_open(out, PB_TAG(number, PB_BYTES), 2);
    for (size_t i = 0, n = 0; i < spans->batch.n && n < s->spans_max; i++) {
        if (!set->marks[i])
            continue;
        n++;
        put_span(q, out, &spans->batch.spans[i], &spans->trace, &s->shown);
    }
    put_count(out, 2, set->n);
    for (size_t i = 0; i < set->n_labels; i++) {
        struct str key;
        struct value value;
        if (tempo_label(q, &set->labels[i], &key, &value))
            put_attribute(out, 3, key, &value);
    }
    pb_close(out, m);
}

static void put_trace(struct web_request *q, struct buf *out, const struct trace_summary *t,
                      const struct search_spans *spans, const struct tempo_searched *s)
{
    char hex[2 * TRACE_ID_SIZE];
    hex_put(hex, t->id.bytes, TRACE_ID_SIZE);
    struct pb_message m = pb_open(out, PB_TAG(1, PB_BYTES), 2);
    pb_put_bytes(out, PB_TAG(1, PB_BYTES), hex, sizeof hex);
    pb_put_str(out, PB_TAG(2, PB_BYTES), t->has_root ? t->root_service : STR(TEMPO_NO_ROOT));
    pb_put_str(out, PB_TAG(3, PB_BYTES), t->has_root ? t->root_name : STR(""));
    put_count(out, 4, t->start_ns);
    uint64_t ms = t->end_ns > t->start_ns ? (t->end_ns - t->start_ns) / NS_PER_MS : 0;
    put_count(out, 5, ms < UINT32_MAX ? ms : UINT32_MAX);
    if (spans->n_sets)
        put_set(q, out, 6, spans, &spans->sets[0], s); /* what older Grafana reads */
    for (size_t i = 0; i < spans->n_sets; i++)
        put_set(q, out, 7, spans, &spans->sets[i], s);
    for (uint32_t i = 0; i < t->n_services; i++) {
        struct pb_message entry = pb_open(out, PB_TAG(8, PB_BYTES), 1);
        pb_put_str(out, PB_TAG(1, PB_BYTES), t->services[i].name);
        struct pb_message stats = pb_open(out, PB_TAG(2, PB_BYTES), 1);
        put_count(out, 1, t->services[i].span_count);
        put_count(out, 2, t->services[i].error_count);
        pb_close(out, stats);
        pb_close(out, entry);
    }
    pb_close(out, m);
}

struct searching {
    struct web_request *q;
    struct tempo_searched *s;
    struct store_view *view;
    size_t left; /* traces that are still wanted */
    struct scan_cost cost;
    struct tempo_progress progress;
    struct arena scratch; /* of one trace */
    uint64_t deadline_ns;
    bool is_gone; /* nobody reads any more */
};

static void cost_add(struct scan_cost *to, const struct scan_cost *add)
{
    to->parts = add->parts;
    to->rows_read += add->rows_read;
    to->bytes_read += add->bytes_read;
}

/* Those traces that began at `from_ns` or later: the first ones. */
static int send_traces(struct searching *g, const struct search_result *result, uint64_t from_ns)
{
    struct buf out = BUF_INIT;
    int err = 0;
    for (size_t i = 0; i < result->n && !err && !g->is_gone; i++) {
        const struct trace_summary *summary = &result->traces[i].summary;
        struct search_spans spans;
        if (summary->start_ns < from_ns)
            break;
        if (clock_monotonic_ns() > g->deadline_ns)
            err = ERR_TIMEOUT;
        arena_reset(&g->scratch);
        if (!err)
            err = search_spans(g->view, &g->s->search, summary, &g->scratch, &spans);
        if (err)
            break;
        put_trace(g->q, &out, summary, &spans, g->s);
        g->left--;
        if (out.len > MESSAGE_BYTES) {
            put_progress(&out, &g->progress);
            g->is_gone = !tempo_send(g->q, &out);
        }
    }
    /* The rest goes with what the slice has cost. */
    g->progress.jobs_done = g->left ? g->progress.jobs_done + 1 : g->progress.jobs;
    put_progress(&out, &g->progress);
    if (!err && !g->is_gone)
        g->is_gone = !tempo_send(g->q, &out);
    buf_done(&out);
    return err;
}

/* Of each slice, how many times as long the whole range is. */
static const unsigned slices[] = {64, 8, 1};
enum { SLICES = sizeof slices / sizeof *slices };

static int search_slices(struct searching *g, struct error_detail *detail)
{
    struct search *search = &g->s->search;
    uint64_t low_ns = search->start_min_ns, now_ns = clock_realtime_ns();
    uint64_t high_ns = search->start_max_ns ? search->start_max_ns : now_ns;
    struct search_place after = {.start_ns = 0};
    int err = 0;
    for (size_t i = 0; i < SLICES && !err && g->left && !g->is_gone; i++) {
        uint64_t length_ns = high_ns > low_ns ? (high_ns - low_ns) / slices[i] : 0;
        struct search_result result;
        uint64_t monotonic_ns = clock_monotonic_ns();
        search->start_min_ns = i + 1 < SLICES ? high_ns - length_ns : low_ns;
        search->limit = g->left;
        search->timeout_ns = g->deadline_ns > monotonic_ns ? g->deadline_ns - monotonic_ns : 1;
        search->after = i ? &after : NULL;
        err = search_run(g->view, search, g->q->arena, &result, detail);
        if (err)
            break;
        cost_add(&g->cost, &result.cost);
        g->progress.traces_read += result.traces_read;
        err = send_traces(g, &result, i + 1 < SLICES ? search->start_min_ns : 0);
        /* Behind all that began in it. */
        after.start_ns = search->start_min_ns;
        memset(after.id.bytes, 0xff, sizeof after.id.bytes);
    }
    return err;
}

void tempo_search_stream(struct web_request *q, struct tempo_searched *s)
{
    struct error_detail detail = {0};
    struct searching g = {
        .q = q,
        .s = s,
        .view = web_view(q),
        .left = s->search.limit,
        .progress = {.jobs = SLICES},
        .deadline_ns = q->arrived_ns + q->web->query_timeout_ns,
    };
    g.progress.cost = &g.cost;
    int err = g.view ? search_slices(&g, &detail) : ERR_NOMEM;
    arena_done(&g.scratch);
    traceql_free(s->query);
    if (err)
        web_fail_err(q, err, &detail);
    else
        tempo_sent(q);
}

/* ---- series ---- */

static void put_exemplar(struct buf *out, const struct metrics_exemplar *x)
{
    struct tempo_exemplar_labels labels;
    size_t n = tempo_exemplar_labels(x, &labels);
    struct pb_message m = pb_open(out, PB_TAG(4, PB_BYTES), 2);
    for (size_t i = 0; i < n; i++)
        put_attribute(out, 1, labels.items[i].name, &labels.items[i].value);
    put_double(out, 2, x->value);
    put_count(out, 3, x->start_ns / NS_PER_MS);
    pb_close(out, m);
}

static void put_series(struct buf *out, const struct tempo_series *all,
                       const struct metrics_series *s)
{
    struct metrics_label labels[TEMPO_LABELS_MAX];
    size_t n = tempo_series_labels(s, labels);
    struct pb_message m = pb_open(out, PB_TAG(1, PB_BYTES), 2);
    for (size_t i = 0; i < n; i++)
        put_attribute(out, 1, labels[i].name, &labels[i].value);
    if (all->is_instant)
        put_double(out, 2, s->samples[0]);
    for (size_t k = 0; !all->is_instant && k < all->result.n_steps; k++) {
        if (isnan(s->samples[k]))
            continue;
        struct pb_message sample = pb_open(out, PB_TAG(2, PB_BYTES), 1);
        put_double(out, 1, s->samples[k]);
        put_count(out, 2, tempo_stamp_ms(&all->result, k));
        pb_close(out, sample);
    }
    for (size_t i = 0; !all->is_instant && i < s->n_exemplars; i++)
        put_exemplar(out, &s->exemplars[i]);
    pb_close(out, m);
}

/* A client adds the series of the messages of a range together; of an instant each takes the place of the one before,
 * which therefore is one. */
void tempo_series_stream(struct web_request *q, const struct tempo_series *s)
{
    struct buf out = BUF_INIT;
    const struct tempo_progress progress = {&s->result.cost, s->result.traces_read, 1, 1};
    bool goes_on = true;
    for (size_t i = 0, n = tempo_series_n(s); i < n && goes_on; i++) {
        put_series(&out, s, &s->result.series[i]);
        if (s->is_instant || out.len <= MESSAGE_BYTES || i + 1 == n)
            continue;
        put_progress(&out, &progress);
        goes_on = tempo_send(q, &out);
    }
    struct str message = web_is_partial(q) ? STR(WEB_PARTIAL_MESSAGE)
                                           : tempo_series_message(s, q->arena);
    put_progress(&out, &progress);
    if (message.len) {
        put_count(&out, 3, STATUS_PARTIAL);
        pb_put_str(&out, PB_TAG(4, PB_BYTES), message);
    }
    if (goes_on)
        (void)tempo_send(q, &out);
    buf_done(&out);
    tempo_sent(q);
}

/* ---- names and values ---- */

/* Nothing is said of what they cost, as over HTTP; but clients expect that the field is there. */
static void put_no_metrics(struct buf *out)
{
    struct pb_message m = pb_open(out, PB_TAG(2, PB_BYTES), 1);
    put_count(out, 2, 1);
    put_count(out, 3, 1);
    pb_close(out, m);
}

static bool send_when_full(struct web_request *q, struct buf *out)
{
    if (out->len <= MESSAGE_BYTES)
        return true;
    put_no_metrics(out);
    return tempo_send(q, out);
}

static void send_rest(struct web_request *q, struct buf *out, bool goes_on)
{
    put_no_metrics(out);
    if (goes_on)
        (void)tempo_send(q, out);
    buf_done(out);
    tempo_sent(q);
}

void tempo_tags_stream(struct web_request *q, const struct items *of_scope, bool is_v2)
{
    struct buf out = BUF_INIT;
    bool goes_on = true;
    for (size_t i = 0; !is_v2 && i < of_scope->n && goes_on; i++) {
        pb_put_str(&out, PB_TAG(1, PB_BYTES), of_scope->list[i].text);
        goes_on = send_when_full(q, &out);
    }
    for (size_t s = 0; is_v2 && s < TEMPO_SCOPES; s++)
        for (size_t i = 0; i < of_scope[s].n && goes_on;) {
            struct pb_message scope = pb_open(&out, PB_TAG(1, PB_BYTES), 2);
            pb_put_str(&out, PB_TAG(1, PB_BYTES), str_from(tempo_scopes[s]));
            for (; i < of_scope[s].n && out.len <= MESSAGE_BYTES; i++)
                pb_put_str(&out, PB_TAG(2, PB_BYTES), of_scope[s].list[i].text);
            pb_close(&out, scope);
            goes_on = send_when_full(q, &out);
        }
    send_rest(q, &out, goes_on);
}

void tempo_values_stream(struct web_request *q, const struct items *items, bool is_v2)
{
    struct buf out = BUF_INIT;
    bool goes_on = true;
    for (size_t i = 0; i < items->n && goes_on; i++) {
        const struct item *item = &items->list[i];
        if (is_v2) {
            struct pb_message m = pb_open(&out, PB_TAG(1, PB_BYTES), 1);
            pb_put_str(&out, PB_TAG(1, PB_BYTES), str_from(item->kind));
            pb_put_str(&out, PB_TAG(2, PB_BYTES), item->text);
            pb_close(&out, m);
        } else {
            pb_put_str(&out, PB_TAG(1, PB_BYTES), item->text);
        }
        goes_on = send_when_full(q, &out);
    }
    send_rest(q, &out, goes_on);
}
