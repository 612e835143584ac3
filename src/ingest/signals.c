/* The order of things is intake.c's: decode, limits, charge, append, durable, answer. A log record or
 * point is counted as received when it was decoded, and in one more counter when its fate is known. */
#include "ingest/signals.h"

#include "base/clock.h"
#include "store/records.h"
#include "wire/otlp_logs.h"
#include "wire/otlp_metrics.h"

#include <stdio.h>

enum { DECODED_FACTOR_MAX = 40, DECODED_BYTES_MIN = 1 << 20, BUDGET_PART = 2 };

static const char *const words[] = {[SIGNAL_LOGS] = "log records", [SIGNAL_METRICS] = "points"};

/* release pairs with the acquire in ingest_stats: who sees a fate sees the arrival before it */
static void count(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_fetch_add_explicit(counter, n, memory_order_release);
}

static struct signal_counters *counters(struct signal_intake *e)
{
    return &e->ingest->signals[e->signal];
}

static void end(struct signal_intake *e, enum outcome outcome, struct str message)
{
    if (outcome != OUTCOME_TAKEN)
        intake_count_turned(e->ingest, e->receiver, intake_turned(outcome));
    budget_give(&e->ingest->budget, e->charged);
    e->answer(e, outcome, outcome == OUTCOME_TAKEN ? e->n_rejected : 0, message);
}

static void refuse_all(struct signal_intake *e, enum outcome outcome, const char *message)
{
    count(&counters(e)->refused, e->n_kept);
    end(e, outcome, str_from(message));
}

static void answer_taken(struct signal_intake *e)
{
    char text[300] = "";
    if (e->n_rejected)
        snprintf(text, sizeof text, "%llu of %llu %s cannot be kept; the first: %s",
                 (unsigned long long)e->n_rejected, (unsigned long long)(e->n_rejected + e->n_kept),
                 words[e->signal], e->rejected_reason ? e->rejected_reason : "not valid");
    end(e, OUTCOME_TAKEN, str_from(text));
}

static void refused_add(struct signal_intake *e, uint64_t n, const char *reason)
{
    if (n && !e->rejected_reason)
        e->rejected_reason = reason;
    e->n_kept -= n;
    e->n_rejected += n;
    count(&counters(e)->refused, n);
}

/* On the records' thread. */
static void on_durable(void *arg, int err, const struct records_refused *refused)
{
    struct signal_intake *e = arg;
    if (err) {
        refuse_all(e, OUTCOME_UNAVAILABLE,
                   err == ERR_FULL ? "no space is left on the server's disk"
                                   : "the server could not write the records");
        return;
    }
    refused_add(e, refused->too_large, "larger than 4 MiB");
    refused_add(e, refused->too_many_series,
                "there are too many series already; use fewer attributes");
    count(&counters(e)->stored, e->n_kept);
    answer_taken(e);
}

/* A log without any time is found by when it came. */
static void times_set(const struct log_batch *batch)
{
    uint64_t now = clock_realtime_ns();
    for (size_t i = 0; i < batch->n; i++) {
        struct log_record *r = (struct log_record *)(uintptr_t)&batch->records[i]; /* our arena's */
        if (!log_record_time_ns(r))
            r->observed_time_ns = now;
    }
}

/* What came, decoded. */
static int decode(struct signal_intake *e, bool is_json, struct str body, struct records_batch *ret,
                  struct error_detail *detail)
{
    int err;
    if (e->signal == SIGNAL_LOGS) {
        struct log_batch logs = {0};
        err = is_json ? otlp_logs_json_decode(body, e->arena, &logs, detail)
                      : otlp_logs_decode(body, e->arena, &logs, detail);
        times_set(&logs);
        *ret = (struct records_batch){.logs = logs.records, .n_logs = logs.n};
        e->n_kept = logs.n;
        e->n_rejected = logs.n_rejected;
        e->rejected_reason = logs.rejected_reason;
    } else {
        struct metric_batches metrics = {0};
        err = is_json ? otlp_metrics_json_decode(body, e->arena, &metrics, detail)
                      : otlp_metrics_decode(body, e->arena, &metrics, detail);
        *ret = (struct records_batch){.metrics = metrics.items, .n_metrics = metrics.n};
        e->n_kept = metrics.n_points;
        e->n_rejected = metrics.n_rejected;
        e->rejected_reason = metrics.rejected_reason;
    }
    return err;
}

static void answer_undecodable(struct signal_intake *e, int err, size_t body_bytes,
                               const struct error_detail *detail)
{
    char text[sizeof detail->message + 40];
    if (err == ERR_NOMEM) { /* of the arena's limit, as good as always */
        end(e, OUTCOME_TOO_LARGE,
            STR("the body asks for too much memory when decoded; send smaller batches"));
        return;
    }
    snprintf(text, sizeof text, "byte %zu of %zu: %s", detail->position, body_bytes,
             detail->message[0] ? detail->message : err_text(err));
    end(e, OUTCOME_INVALID, str_from(text));
}

/* The batch's arrays are the decoder's, in our arena: const only for those who read them. */
static int redact(struct signal_intake *e, const struct records_batch *batch)
{
    struct redaction *r = e->ingest->redaction;
    if (e->signal == SIGNAL_LOGS)
        return redaction_logs(r, (struct log_record *)(uintptr_t)batch->logs, batch->n_logs,
                              e->arena);
    return redaction_metrics(r, (struct metric_batch *)(uintptr_t)batch->metrics, batch->n_metrics,
                             e->arena);
}

static void append(struct signal_intake *e, const struct records_batch *batch)
{
    /* From here on `e` may be gone: on_durable ends it. */
    int err = records_append(e->ingest->records, batch, on_durable, e);
    if (err == ERR_BUSY || err == ERR_NOMEM)
        refuse_all(e, OUTCOME_BUSY, "the server is busy; try again later");
    else if (err)
        refuse_all(e, OUTCOME_UNAVAILABLE,
                   err == ERR_CLOSED ? "the server is stopping"
                                     : "the server could not write the records");
}

void signal_run(struct signal_intake *e, bool is_json, struct str body)
{
    struct ingest *in = e->ingest;
    struct error_detail detail = {0};
    struct records_batch batch;
    size_t by_body = DECODED_BYTES_MIN + body.len * DECODED_FACTOR_MAX;
    size_t by_budget = in->budget.max / BUDGET_PART;
    count(&in->counters[e->receiver].requests, 1);
    e->arena->bytes_max = by_body < by_budget ? by_body : by_budget;
    int err = decode(e, is_json, body, &batch, &detail);
    if (err) {
        e->n_kept = e->n_rejected = 0;
        answer_undecodable(e, err, body.len, &detail);
        return;
    }
    count(&counters(e)->received, e->n_kept + e->n_rejected);
    count(&counters(e)->refused, e->n_rejected);
    if (e->n_kept && e->n_kept <= in->spans_max && redaction_is_on(in->redaction))
        err = redact(e, &batch);
    if (!e->n_kept) {
        answer_taken(e);
    } else if (e->n_kept > in->spans_max) {
        refuse_all(e, OUTCOME_TOO_LARGE,
                   "more in one request than this server's limit; send "
                   "smaller batches");
    } else if (err || !budget_take(&in->budget, e->arena->bytes)) {
        refuse_all(e, OUTCOME_BUSY, "too many bytes are in flight; try again later");
    } else {
        e->charged = e->arena->bytes;
        append(e, &batch);
    }
}
