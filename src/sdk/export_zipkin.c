/* Zipkin's v2 API: lists of spans in JSON, by the sender. It answers with a status alone, and has no
 * place for metrics. */
#include "base/clock.h"
#include "sdk/exporter.h"
#include "sdk/sender.h"
#include "wire/zipkin.h"

#include <stdlib.h>

#define TIMEOUT_NS (10 * NS_PER_S) /* of one request; OTEL_EXPORTER_ZIPKIN_TIMEOUT's default */

struct zipkin {
    struct exporter exporter;
    struct sender *sender;
};

/* The list without its brackets, so that lists can be joined. */
static void encode(const struct span_batch *batch, struct buf *out)
{
    struct json_writer w = json_writer(out);
    size_t from = out->len;
    zipkin_json_encode(batch, &w);
    if (!buf_ok(out) || out->len - from < 2)
        return;
    memmove(out->ptr + from, out->ptr + from + 1, out->len - from - 2);
    out->len -= 2;
}

static void zipkin_take(struct exporter *e, const struct taken_batch *batch,
                        struct exporter_counts *counts)
{
    (void)counts; /* the target knows them */
    sender_put_spans(((struct zipkin *)e)->sender, 0, &batch->spans, encode);
}

static bool zipkin_flush(struct exporter *e, uint64_t deadline_ns, bool again)
{
    return sender_flush(((struct zipkin *)e)->sender, deadline_ns, again);
}

static void zipkin_close(struct exporter *e, uint64_t deadline_ns)
{
    (void)deadline_ns; /* flush has waited */
    sender_close(((struct zipkin *)e)->sender);
    free(e);
}

int export_zipkin_open(const struct config *c, struct exporter_counts *counts,
                       struct exporter **ret, struct error_detail *ret_problem)
{
    struct zipkin *z = calloc(1, sizeof *z);
    struct sender_target target = {
        .to = {.url = c->zipkin_url, .content_type = "application/json", .timeout_ns = TIMEOUT_NS},
        .things = "spans",
        .head = STR("["),
        .mark = STR(","),
        .tail = STR("]"),
        .queue_bytes_max = c->queue_bytes_max,
        .sent = &counts->exported,
        .lost_full = &counts->lost_queue_full,
        .lost = &counts->lost_export,
    };
    if (!z)
        return ERR_NOMEM;
    z->exporter = (struct exporter){
        .take = zipkin_take, .flush = zipkin_flush, .close = zipkin_close, .gathers = true};
    int err = sender_new(c, &target, 1, &z->sender, ret_problem);
    if (err)
        free(z);
    else
        *ret = &z->exporter;
    return err;
}
