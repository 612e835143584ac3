/* Tempo's HTTP API, for Grafana's Tempo data source: whether it is there, and single traces. Errors are plain text,
 * which Grafana shows as it is.
 * Source: Tempo's documentation, api_docs; its pkg/api and pkg/tempopb. */
#include "web/tempo.h"

#include "base/clock.h"
#include "wire/otlp.h"
#include "wire/protobuf.h"
#include "wire/tempo_json.h"

static struct buf answer(void)
{
    return (struct buf){.bytes_max = ANSWER_BYTES_MAX};
}

bool tempo_range(struct web_request *q, uint64_t fallback_ns, struct search *search)
{
    uint64_t start_s, end_s;
    if (!web_param_u64(q, "start", 0, UINT32_MAX, 0, &start_s) ||
        !web_param_u64(q, "end", 0, UINT32_MAX, 0, &end_s))
        return false;
    if (end_s && end_s < start_s) {
        web_fail_at(q, 400, "end", 0, "the end lies before the start");
        return false;
    }
    search->start_min_ns = web_param(q, "start").ptr ? start_s * NS_PER_S : fallback_ns;
    search->start_max_ns = end_s ? end_s * NS_PER_S + NS_PER_S - 1 : 0;
    return true;
}

/* ---- whether it is there ---- */

void tempo_echo(struct web_request *q)
{
    web_reply_text(q, 200, "echo");
}

void tempo_ready(struct web_request *q)
{
    if (!q->web->is_ready || q->web->is_ready(q->web->arg))
        web_reply_text(q, 200, "ready\n");
    else
        web_fail(q, 503, "not ready");
}

void tempo_buildinfo(struct web_request *q)
{
    static const char *const unknown[] = {"revision", "branch", "buildDate", "buildUser",
                                          "goVersion"};
    struct buf out = answer();
    struct json_writer w = json_writer(&out);
    json_open(&w, '{');
    json_key(&w, STR("version"));
    json_str(&w, str_from(PUGMARK_VERSION));
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        json_key(&w, str_from(unknown[i]));
        json_str(&w, STR(""));
    }
    json_close(&w, '}');
    web_reply_json(q, 200, &out);
}

/* ---- a trace ---- */

/* Grafana asks for one type; of a list the one that is named first counts. */
static bool wants_protobuf(struct web_request *q)
{
    struct str accept = http_header(q->http, "accept"), left = accept;
    while (left.ptr && left.len) {
        struct str rest, one = str_split(left, ',', &left);
        one = str_trim(str_split(one, ';', &rest));
        if (str_eq_nocase(one, STR("application/protobuf")) ||
            str_eq_nocase(one, STR("application/x-protobuf")))
            return true;
        if (str_eq_nocase(one, STR("application/json")))
            return false;
    }
    return false;
}

enum {
    /* of TraceByIDResponse */
    BY_ID_TRACE = PB_TAG(1, PB_BYTES),
    BY_ID_STATUS = PB_TAG(3, PB_VARINT),
    BY_ID_MESSAGE = PB_TAG(4, PB_BYTES),
    STATUS_PARTIAL = 1,
};

/* Trace has the bytes of an export request: field 1 is the list of ResourceSpans. */
static void protobuf_reply(struct web_request *q, const struct span_batch *batch, bool is_v2)
{
    struct buf out = answer();
    if (is_v2) {
        struct pb_message trace = pb_open(&out, BY_ID_TRACE, 4);
        otlp_encode(batch, &out);
        pb_close(&out, trace);
        if (web_is_partial(q)) {
            pb_put_varint(&out, BY_ID_STATUS, STATUS_PARTIAL);
            pb_put_str(&out, BY_ID_MESSAGE, STR(WEB_PARTIAL_MESSAGE));
        }
    } else {
        otlp_encode(batch, &out);
    }
    web_reply(q, 200, "application/protobuf", &out);
}

static void json_reply(struct web_request *q, const struct span_batch *batch, bool is_v2)
{
    struct buf out = answer();
    struct json_writer w = json_writer(&out);
    json_open(&w, '{');
    if (is_v2) {
        json_key(&w, STR("trace"));
        json_open(&w, '{');
    }
    json_key(&w, is_v2 ? STR("resourceSpans") : STR("batches"));
    tempo_json_encode(batch, &w);
    if (is_v2) {
        json_close(&w, '}');
        json_key(&w, STR("status"));
        json_str(&w, web_is_partial(q) ? STR("PARTIAL") : STR("COMPLETE"));
        if (web_is_partial(q)) {
            json_key(&w, STR("message"));
            json_str(&w, STR(WEB_PARTIAL_MESSAGE));
        }
    }
    json_close(&w, '}');
    web_reply_json(q, 200, &out);
}

static void trace_reply(struct web_request *q, bool is_v2)
{
    struct trace_id id;
    struct search unused;
    struct span_batch batch;
    /* A range is a hint for stores that need one. */
    if (!web_param_trace_id(q, q->params[0], "trace id", &id) || !tempo_range(q, 0, &unused))
        return;
    struct store_view *view = web_view(q);
    int err = view ? store_trace(view, &id, q->arena, &batch) : ERR_NOMEM;
    if (err == ERR_NOT_FOUND)
        web_fail(q, 404, "trace not found");
    else if (err)
        web_fail_err(q, err, NULL);
    else if (wants_protobuf(q))
        protobuf_reply(q, &batch, is_v2);
    else
        json_reply(q, &batch, is_v2);
}

void tempo_trace(struct web_request *q)
{
    trace_reply(q, false);
}

void tempo_trace_v2(struct web_request *q)
{
    trace_reply(q, true);
}
