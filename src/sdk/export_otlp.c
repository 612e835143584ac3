/* OTLP over HTTP (protobuf or JSON) or over gRPC: encodes what the drain hands over and gives it to
 * the sender. Spans and metrics have a target each.
 *
 * Bodies can be joined in one request: those of protobuf by writing one after the other, those of
 * JSON as the elements of the one array they have.
 *
 * Source: opentelemetry.io/docs/specs/otlp, 1.x. */
#include "sdk/exporter.h"
#include "sdk/sender.h"
#include "wire/otlp.h"
#include "wire/otlp_json.h"

#include <stdlib.h>

enum { TARGET_SPANS };

struct otlp {
    struct exporter exporter;
    struct sender *sender;
    enum otlp_protocol protocol;
};

/* ---- JSON: what is between head and tail ---- */

#define SPANS_HEAD "{\"resourceSpans\":["
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

/* ---- answers ---- */

static uint64_t rejected_protobuf(struct str answer, struct str *ret_message)
{
    uint64_t n = 0;
    return otlp_decode_response(answer, &n, ret_message) == 0 ? n : 0;
}

/* ---- the exporter ---- */

static void otlp_take(struct exporter *e, const struct taken_batch *batch,
                      struct exporter_counts *counts, const struct pug_counts *totals)
{
    struct otlp *o = (struct otlp *)e;
    (void)counts; /* the targets know them */
    (void)totals;
    sender_put_spans(o->sender, TARGET_SPANS, &batch->spans,
                     o->protocol == OTLP_HTTP_JSON ? spans_json : otlp_encode);
}

static bool otlp_flush(struct exporter *e, uint64_t deadline_ns)
{
    return sender_flush(((struct otlp *)e)->sender, deadline_ns);
}

static void otlp_close(struct exporter *e, uint64_t deadline_ns)
{
    (void)deadline_ns; /* flush has waited */
    sender_close(((struct otlp *)e)->sender);
    free(e);
}

static struct sender_target target_of(const struct config *c, struct exporter_counts *counts)
{
    struct sender_target t = {
        .to = {.url = c->otlp_url,
               .content_type = "application/x-protobuf",
               .headers = c->otlp_headers,
               .certificate = c->otlp_certificate,
               .client_certificate = c->otlp_client_certificate,
               .client_key = c->otlp_client_key,
               .timeout_ns = c->otlp_timeout_ns,
               .grpc = c->otlp_protocol == OTLP_GRPC},
        .things = "spans",
        .gzip = c->otlp_gzip,
        .queue_bytes_max = c->queue_bytes_max,
        .rejected = rejected_protobuf,
        .sent = &counts->exported,
        .lost_full = &counts->lost_queue_full,
        .lost = &counts->lost_export,
    };
    if (c->otlp_protocol == OTLP_GRPC) {
        t.head = STR("\0\0\0\0\0"); /* filled in by the sender */
    } else if (c->otlp_protocol == OTLP_HTTP_JSON) {
        t.to.content_type = "application/json";
        t.head = STR(SPANS_HEAD);
        t.mark = STR(",");
        t.tail = STR(JSON_TAIL);
    }
    return t;
}

int export_otlp_open(const struct config *c, struct exporter_counts *counts, struct exporter **ret,
                     struct error_detail *ret_problem)
{
    struct sender_target targets[SENDER_TARGETS_MAX] = {target_of(c, counts)};
    struct otlp *o = calloc(1, sizeof *o);
    if (!o)
        return ERR_NOMEM;
    o->exporter = (struct exporter){.take = otlp_take, .flush = otlp_flush, .close = otlp_close};
    o->protocol = c->otlp_protocol;
    int err = sender_new(c, targets, 1, &o->sender, ret_problem);
    if (err)
        free(o);
    else
        *ret = &o->exporter;
    return err;
}
