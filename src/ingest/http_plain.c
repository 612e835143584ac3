#include "ingest/intake.h"
#include "net/http_server.h"

#include <stdio.h>

void http_plain_error(struct http_request *r, int status, struct str message)
{
    http_reply_text(r, status, "text/plain; charset=utf-8", message);
}

void http_retry_after(struct http_request *r, struct ingest *ingest)
{
    char seconds[12];
    snprintf(seconds, sizeof seconds, "%u", intake_retry_after_s(ingest));
    http_reply_header(r, "Retry-After", seconds);
}

/* Neither protocol can say that a part was taken: it is an error only when nothing was. */
static void answer(struct intake *e, enum outcome outcome, uint64_t n_rejected, struct str message)
{
    static const int statuses[] = {[OUTCOME_TAKEN] = 202,
                                   [OUTCOME_INVALID] = 400,
                                   [OUTCOME_TOO_LARGE] = 413,
                                   [OUTCOME_BUSY] = 503,
                                   [OUTCOME_UNAVAILABLE] = 503};
    struct http_request *r = e->request;
    if (statuses[outcome] == 503)
        http_retry_after(r, e->ingest);
    if (outcome != OUTCOME_TAKEN)
        http_plain_error(r, statuses[outcome], message);
    else if (n_rejected && !e->batch.n)
        http_plain_error(r, 400, message);
    else
        http_reply_text(r, 202, "text/plain; charset=utf-8", STR(""));
}

void http_plain_take(struct ingest *ingest, enum receiver receiver, struct http_request *r,
                     const struct intake_format *format)
{
    struct intake *e = arena_zalloc(http_arena(r), sizeof *e);
    if (!e) {
        http_retry_after(r, ingest);
        http_plain_error(r, 503, STR("out of memory"));
        return;
    }
    e->ingest = ingest;
    e->receiver = receiver;
    e->arena = http_arena(r);
    e->answer = answer;
    e->request = r;
    intake_run(e, format, http_body(r));
}

int http_plain_start(struct ingest *ingest, const struct ingest_options *options,
                     enum receiver receiver,
                     void (*handler)(void *arg, struct http_request *request),
                     struct error_detail *ret_detail)
{
    struct http_server_options http = {
        .address = options->address,
        .port = options->ports[receiver],
        .threads = ingest->http_threads,
        .body_bytes_max = ingest->body_bytes_max,
        .inflated_bytes_max = ingest->body_bytes_max,
        .budget = &ingest->budget,
        .connections_max = ingest->connections_max,
        .retry_after_s = intake_retry_after_s,
        .handler = handler,
        .arg = ingest,
    };
    return http_server_new(&http, &ingest->http[receiver], ret_detail);
}
