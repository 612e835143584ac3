/* OTLP over HTTP (protobuf or JSON) or over gRPC: encodes what the drain hands over and gives it to
 * the sender. Spans and metrics have a target each; metrics that nobody wants cost spans nothing.
 *
 * Bodies can be joined in one request: those of protobuf by writing one after the other, those of
 * JSON as the elements of the one array they have.
 *
 * Source: opentelemetry.io/docs/specs/otlp, 1.x. */
#include "sdk/exporter.h"
#include "sdk/sender.h"
#include "wire/otlp.h"
#include "wire/otlp_json.h"
#include "wire/otlp_metrics.h"
#include "wire/otlp_place.h"

#include <stdio.h>
#include <stdlib.h>

#define METRICS_QUEUE_BYTES_MAX (1u << 20)
#define OPEN_BYTES_MAX (512u << 10)
#define ANSWER_MEMORY_MAX (256u << 10)

enum { TARGET_SPANS, TARGET_METRICS };

struct otlp {
    struct exporter exporter;
    struct sender *sender;
    enum otlp_protocol protocol;
    const struct config *config;

    /* the body that is being written, of protobuf */
    struct buf body;
    struct otlp_request request;
    size_t n_open; /* spans in it */
    bool is_open;
};

/* ---- JSON: what is between head and tail ---- */

#define SPANS_HEAD "{\"resourceSpans\":["
#define METRICS_HEAD "{\"resourceMetrics\":["
#define JSON_TAIL "]}"

/* The document is in `out` from `from` on: only its elements stay. */
static void elements_keep(struct buf *out, size_t from, struct str head)
{
    size_t around = head.len + sizeof JSON_TAIL - 1;
    if (!buf_ok(out) || out->len - from < around)
        return;
    memmove(out->ptr + from, out->ptr + from + head.len, out->len - from - around);
    out->len -= around;
}

static void spans_json(const struct span_batch *batch, struct buf *out)
{
    struct json_writer w = json_writer(out);
    size_t from = out->len;
    otlp_json_encode(batch, &w);
    elements_keep(out, from, STR(SPANS_HEAD));
}

static void metrics_json(const struct metric_batch *batch, struct buf *out)
{
    struct json_writer w = json_writer(out);
    size_t from = out->len;
    otlp_metrics_json_encode(batch, &w);
    elements_keep(out, from, STR(METRICS_HEAD));
}

/* ---- answers ---- */

static uint64_t rejected_protobuf(struct str answer, char *text, size_t size)
{
    struct str message = STR_NONE;
    uint64_t n = 0;
    if (otlp_decode_response(answer, &n, &message) != 0)
        return 0;
    snprintf(text, size, "%.*s", message.len < size ? (int)message.len : (int)size - 1,
             message.ptr ? message.ptr : "");
    return n;
}

static uint64_t rejected_json(struct str answer, char *text, size_t size)
{
    struct arena arena = {.bytes_max = ANSWER_MEMORY_MAX};
    struct str message = STR_NONE;
    uint64_t n = 0;
    if (otlp_json_decode_response(answer, &arena, &n, &message) != 0)
        n = 0;
    snprintf(text, size, "%.*s", message.len < size ? (int)message.len : (int)size - 1,
             message.ptr ? message.ptr : "");
    arena_done(&arena);
    return n;
}

/* ---- the exporter ---- */

static void json_take(struct exporter *e, const struct taken_batch *batch,
                      struct exporter_counts *counts)
{
    struct otlp *o = (struct otlp *)e;
    (void)counts; /* the targets know them */
    sender_put_spans(o->sender, TARGET_SPANS, &batch->spans, spans_json);
}

__attribute__((noinline)) static void body_begin(struct otlp *o)
{
    o->is_open = true;
    o->body = sender_body(o->sender);
    o->request = otlp_encode_open(&o->config->resource, &o->config->scope, &o->body);
}

/* A span will be written: where? */
static inline struct buf *body_open(struct otlp *o)
{
    if (!o->is_open)
        body_begin(o);
    return &o->body;
}

static void body_grew(struct otlp *o, size_t n_spans)
{
    o->n_open += n_spans;
    o->exporter.open_bytes = o->body.len;
}

static void otlp_take(struct exporter *e, const struct taken_batch *batch,
                      struct exporter_counts *counts)
{
    struct otlp *o = (struct otlp *)e;
    (void)counts;
    for (size_t i = 0; i < batch->spans.n; i++)
        otlp_encode_span(&batch->spans.spans[i], body_open(o));
    body_grew(o, batch->spans.n);
}

static void *otlp_prepare(struct exporter *e, const struct plain_place *place)
{
    (void)e;
    return otlp_place_new(place);
}

static bool otlp_take_plain(struct exporter *e, void *place, const struct plain_span *span)
{
    struct otlp *o = (struct otlp *)e;
    if (!otlp_place_encode(place, span, body_open(o)))
        return false;
    body_grew(o, 1);
    return true;
}

static void otlp_settle(struct exporter *e, struct exporter_counts *counts,
                        const struct pug_counts *totals)
{
    struct otlp *o = (struct otlp *)e;
    (void)counts;
    (void)totals;
    if (!o->n_open)
        return;
    otlp_encode_close(o->request, &o->config->resource, &o->config->scope, &o->body);
    sender_put(o->sender, TARGET_SPANS, &o->body, o->n_open);
    o->n_open = o->exporter.open_bytes = 0;
    o->is_open = false;
}

static void otlp_take_metrics(struct exporter *e, const struct metric_batch *batch)
{
    struct otlp *o = (struct otlp *)e;
    struct buf body = BUF_INIT;
    size_t n_points = 0;
    for (size_t i = 0; i < batch->n; i++)
        n_points += batch->metrics[i].n_points;
    if (o->protocol == OTLP_HTTP_JSON)
        metrics_json(batch, &body);
    else
        otlp_metrics_encode(batch, &body);
    sender_put(o->sender, TARGET_METRICS, &body, n_points);
}

static bool otlp_flush(struct exporter *e, uint64_t deadline_ns, bool again)
{
    return sender_flush(((struct otlp *)e)->sender, deadline_ns, again);
}

static void otlp_close(struct exporter *e, uint64_t deadline_ns)
{
    (void)deadline_ns; /* flush has waited */
    sender_close(((struct otlp *)e)->sender);
    buf_done(&((struct otlp *)e)->body);
    free(e);
}

static struct sender_target target_of(const struct config *c, const char *url)
{
    struct sender_target t = {
        .to = {.url = url,
               .content_type = "application/x-protobuf",
               .headers = c->otlp_headers,
               .certificate = c->otlp_certificate,
               .client_certificate = c->otlp_client_certificate,
               .client_key = c->otlp_client_key,
               .timeout_ns = c->otlp_timeout_ns,
               .grpc = c->otlp_protocol == OTLP_GRPC},
        .gzip = c->otlp_gzip,
        .rejected = rejected_protobuf,
    };
    if (c->otlp_protocol == OTLP_GRPC) {
        t.head = STR("\0\0\0\0\0"); /* filled in by the sender */
    } else if (c->otlp_protocol == OTLP_HTTP_JSON) {
        t.to.content_type = "application/json";
        t.mark = STR(",");
        t.tail = STR(JSON_TAIL);
        t.rejected = rejected_json;
    }
    return t;
}

int export_otlp_open(const struct config *c, struct exporter_counts *counts, struct exporter **ret,
                     struct error_detail *ret_problem)
{
    struct sender_target spans = target_of(c, c->otlp_url),
                         metrics = target_of(c, c->otlp_metrics_url);
    struct otlp *o = calloc(1, sizeof *o);
    if (!o)
        return ERR_NOMEM;
    o->exporter = (struct exporter){
        .take = json_take, .flush = otlp_flush, .close = otlp_close, .gathers = true};
    if (c->otlp_protocol != OTLP_HTTP_JSON) {
        o->exporter.take = otlp_take;
        o->exporter.prepare = otlp_prepare;
        o->exporter.take_plain = otlp_take_plain;
        o->exporter.settle = otlp_settle;
    }
    /* A body is mostly a request, which is then sent from where it was written; a small queue is filled
     * in small pieces. */
    o->exporter.open_bytes_max = c->queue_bytes_max / 8 < OPEN_BYTES_MAX ? c->queue_bytes_max / 8
                                                                         : OPEN_BYTES_MAX;
    o->exporter.open_ns_max = SENDER_LINGER_INTERVALS * c->flush_interval_ns;
    o->config = c;
    if (c->otlp_metrics_url)
        o->exporter.take_metrics = otlp_take_metrics;
    o->protocol = c->otlp_protocol;
    spans.things = "spans";
    spans.at_once = c->otlp_protocol != OTLP_HTTP_JSON;
    spans.queue_bytes_max = c->queue_bytes_max;
    spans.sent = &counts->exported;
    spans.lost_full = &counts->lost_queue_full;
    spans.lost = &counts->lost_export;
    metrics.things = "metrics";
    metrics.queue_bytes_max = METRICS_QUEUE_BYTES_MAX;
    metrics.sent = &counts->metrics_exported;
    metrics.lost_full = metrics.lost = &counts->metrics_lost;
    if (c->otlp_protocol == OTLP_HTTP_JSON) {
        spans.head = STR(SPANS_HEAD);
        metrics.head = STR(METRICS_HEAD);
    }
    int err = sender_new(c, (struct sender_target[]){spans, metrics}, c->otlp_metrics_url ? 2 : 1,
                         &o->sender, ret_problem);
    if (err)
        free(o);
    else
        *ret = &o->exporter;
    return err;
}
