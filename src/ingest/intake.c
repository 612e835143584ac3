/* Order of things, and what each costs when it fails:
 *   decode     the request, with the decoder's words and position
 *   limits     the request (too many spans); single values are cut
 *   redact     the request, when there is no memory for it: nothing passes by the rules
 *   charge     the request, to be sent again: what was decoded is larger than the budget has left
 *   append     the request, to be sent again
 *   durable    the answer
 * A span is counted as received when it was decoded, and in one more counter when its fate is
 * known. */
#include "ingest/intake.h"

#include "base/clock.h"
#include "wire/otlp.h"

#include <stdio.h>

/* What a decoder may make of a body. An attribute of ten bytes becomes a struct of forty-eight; a
 * body that asks for more than this is made to ask for it. And no request alone takes more than its
 * part of the budget, or it would be told to come back later for ever. */
enum { DECODED_FACTOR_MAX = 24, DECODED_BYTES_MIN = 1 << 20, BUDGET_PART = 2 };

static size_t decoded_bytes_max(const struct ingest *in, size_t body_bytes)
{
    size_t by_body = DECODED_BYTES_MIN + body_bytes * DECODED_FACTOR_MAX;
    size_t by_budget = in->budget.max / BUDGET_PART;
    return by_body < by_budget ? by_body : by_budget;
}

/* release pairs with the acquire in ingest_stats: who sees a fate sees the arrival before it */
static void count(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_fetch_add_explicit(counter, n, memory_order_release);
}

static void trace_end(struct intake *e, enum outcome outcome, struct str message)
{
    pug_span_end(&e->append_span);
    pug_set_int(&e->span, "spans", (int64_t)e->batch.n);
    pug_set_int(&e->span, "spans.rejected", (int64_t)e->batch.n_rejected);
    if (outcome != OUTCOME_TAKEN) {
        char text[200];
        snprintf(text, sizeof text, "%.*s", STR_ARG(message));
        pug_error(&e->span, text);
    }
    pug_span_end(&e->span);
}

static void end(struct intake *e, enum outcome outcome, uint64_t n_rejected, struct str message)
{
    struct ingest *in = e->ingest;
    if (pug_on() && !e->is_own)
        trace_end(e, outcome, message);
    if (outcome == OUTCOME_TAKEN)
        drain_count(&in->drain, e->body_bytes + e->charged, clock_monotonic_ns());
    else
        intake_count_turned(in, e->receiver, intake_turned(outcome));
    buf_done(&e->rewritten);
    budget_give(&in->budget, e->charged);
    e->answer(e, outcome, n_rejected, message);
}

unsigned intake_retry_after_s(void *ingest)
{
    struct ingest *in = ingest;
    return drain_wait_s(&in->drain, atomic_load_explicit(&in->budget.used, memory_order_relaxed),
                        clock_monotonic_ns());
}

static void refuse_all(struct intake *e, enum refused reason, enum outcome outcome,
                       const char *message)
{
    count(&e->ingest->spans_refused[reason], e->batch.n);
    ledger_put(&e->ingest->ledger, &e->batch, (enum fate)(FATE_REFUSED + (int)reason));
    end(e, outcome, 0, str_from(message));
}

static void answer_taken(struct intake *e)
{
    char text[300] = "";
    const struct span_batch *b = &e->batch;
    int n = 0;
    if (b->n_rejected)
        n = snprintf(text, sizeof text, "%zu of %zu spans cannot be kept; the first: %s",
                     b->n_rejected, b->n_rejected + b->n,
                     b->rejected_reason ? b->rejected_reason : "not valid");
    size_t values = e->cut.values, lists = e->cut.lists;
    if (values)
        n += snprintf(text + n, sizeof text - (size_t)n, "%s%zu %s longer than %zu bytes and cut",
                      n ? "; " : "", values, values == 1 ? "value was" : "values were",
                      e->ingest->value_bytes_max);
    if (lists && n < (int)sizeof text)
        snprintf(text + n, sizeof text - (size_t)n,
                 "%s%zu %s more than %zu attributes, the rest was left out", n ? "; " : "", lists,
                 lists == 1 ? "list had" : "lists had", e->ingest->attrs_max);
    end(e, OUTCOME_TAKEN, b->n_rejected, str_from(text));
}

static void remember_changes(const struct intake *e)
{
    struct ledger *ledger = &e->ingest->ledger;
    if (e->cut.values)
        ledger_put_marked(ledger, &e->batch, e->cut.marks, CUT_VALUES, FATE_CUT);
    if (e->cut.lists)
        ledger_put_marked(ledger, &e->batch, e->cut.marks, CUT_LISTS, FATE_ATTRS);
    if (e->redacted)
        ledger_put_marked(ledger, &e->batch, e->redacted, 1, FATE_REDACTED);
}

/* On the store's thread. */
static void on_durable(void *arg, int err)
{
    struct intake *e = arg;
    if (!err) {
        count(&e->ingest->counters[e->receiver].spans_stored, e->batch.n);
        if (e->cut.marks || e->redacted)
            remember_changes(e);
        answer_taken(e);
    } else {
        refuse_all(e, REFUSED_STORE, OUTCOME_UNAVAILABLE,
                   err == ERR_FULL ? "no space is left on the server's disk"
                                   : "the server could not write the spans");
    }
}

/* What is charged for what was decoded; false when there is not so much left. */
static bool charge(struct intake *e, size_t bytes)
{
    if (!budget_take(&e->ingest->budget, bytes))
        return false;
    e->charged += bytes;
    return true;
}

/* Log and memtable must agree about a span, so a batch that was changed is encoded again; and so is
 * what came in a format that the log does not know. Where there are rules of redaction (`is_redacted`) all is: a
 * span that was left out, or a field that the decoder passed over, may hold what they are about. */
static int rewrite(struct intake *e, bool is_foreign, bool is_redacted, size_t body_bytes)
{
    int err = 0;
    const struct ingest *in = e->ingest;
    /* Else no value can be longer. */
    if (body_bytes > in->value_bytes_max || e->redacted || cut_has_many(&e->batch, in->attrs_max))
        err = cut_batch(&e->batch, in->value_bytes_max, in->attrs_max, e->arena, &e->cut);
    if (err || (!e->cut.values && !e->cut.lists && !is_foreign && !is_redacted))
        return err;
    count(&e->ingest->values_cut, e->cut.values + e->cut.lists);
    if (!charge(e, body_bytes))
        return ERR_BUSY;
    otlp_encode(&e->batch, &e->rewritten);
    if (!buf_ok(&e->rewritten))
        return ERR_NOMEM;
    /* Fixed-width numbers may be longer than they were. */
    return e->rewritten.len <= body_bytes || charge(e, e->rewritten.len - body_bytes) ? 0
                                                                                      : ERR_BUSY;
}

static void answer_undecodable(struct intake *e, int err, size_t body_bytes,
                               const struct error_detail *detail)
{
    char text[sizeof detail->message + 40];
    if (err == ERR_NOMEM) { /* of the arena's limit, as good as always */
        end(e, OUTCOME_TOO_LARGE, 0,
            STR("the body asks for too much memory when decoded; send smaller batches"));
    } else {
        snprintf(text, sizeof text, "byte %zu of %zu: %s", detail->position, body_bytes,
                 detail->message[0] ? detail->message : err_text(err));
        end(e, OUTCOME_INVALID, 0, str_from(text));
    }
}

static int decode_body(struct intake *e, decode_fn *decode, struct str body,
                       struct error_detail *ret_detail)
{
    if (e->is_own)
        return decode(body, e->arena, &e->batch, ret_detail);
    PUG_SPAN_FROM(&e->span.context, "ingest.decode");
    return decode(body, e->arena, &e->batch, ret_detail);
}

void intake_run(struct intake *e, const struct intake_format *format, struct str body)
{
    struct ingest *in = e->ingest;
    struct error_detail detail = {0};
    enum body_format log_format = format->log;
    e->body_bytes = body.len;
    count(&in->counters[e->receiver].requests, 1);
    if (!e->is_own)
        pug_span_start(&e->span, "ingest.request", PUG_KIND(PUG_KIND_SERVER),
                       PUG_STR("format", format->name), PUG_INT("body.bytes", (int64_t)body.len));
    e->arena->bytes_max = decoded_bytes_max(in, body.len);
    int err = decode_body(e, format->decode, body, &detail);
    if (err) {
        e->batch = (struct span_batch){0};
        answer_undecodable(e, err, body.len, &detail);
        return;
    }
    count(&in->counters[e->receiver].spans_received, e->batch.n + e->batch.n_rejected);
    count(&in->spans_refused[REFUSED_INVALID], e->batch.n_rejected);
    if (e->batch.n_rejected_known)
        ledger_put_ids(&in->ledger, e->batch.rejected, e->batch.n_rejected_known,
                       (enum fate)(FATE_REFUSED + (int)REFUSED_INVALID));
    if (e->batch.n == 0) {
        answer_taken(e);
        return;
    }
    if (e->batch.n > in->spans_max) {
        refuse_all(e, REFUSED_TOO_MANY, OUTCOME_TOO_LARGE,
                   "more spans in one request than this server's limit; send smaller batches");
        return;
    }
    /* Before a value may be cut: the rest of a number is no number any more. */
    bool is_redacted = redaction_is_on(in->redaction);
    if (is_redacted)
        err = redaction_spans(in->redaction, &e->batch, e->arena, &e->redacted);
    if (err || !charge(e, e->arena->bytes)) {
        refuse_all(e, REFUSED_MEMORY, OUTCOME_BUSY,
                   "too many bytes are in flight; try again later");
        return;
    }
    err = rewrite(e, !log_format, is_redacted, body.len);
    if (err) {
        refuse_all(e, REFUSED_MEMORY, OUTCOME_BUSY,
                   "too many bytes are in flight; try again later");
        return;
    }
    if (e->rewritten.len) {
        log_format = BODY_OTLP_PROTOBUF;
        body = buf_as_str(&e->rewritten);
    }
    if (!e->is_own)
        pug_span_start_from(&e->append_span, &e->span.context, "ingest.append");
    /* From here on `e` may be gone: on_durable ends it. */
    err = store_append(in->store, log_format, body, &e->batch, on_durable, e);
    if (err == ERR_BUSY || err == ERR_NOMEM)
        refuse_all(e, REFUSED_BUSY, OUTCOME_BUSY, "the server is busy; try again later");
    else if (err)
        refuse_all(e, REFUSED_STORE, OUTCOME_UNAVAILABLE,
                   err == ERR_CLOSED ? "the server is stopping"
                   : err == ERR_FULL ? "no space is left on the server's disk"
                                     : "the server could not write the spans");
}
