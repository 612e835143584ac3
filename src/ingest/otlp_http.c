/* OTLP over HTTP: POST /v1/traces, /v1/logs and /v1/metrics, protobuf or JSON, answered in the encoding of the request.
 * Source: OpenTelemetry protocol specification 1.x, "OTLP/HTTP". */
#include "ingest/intake.h"
#include "ingest/signals.h"
#include "net/http_server.h"
#include "wire/otlp.h"
#include "wire/otlp_json.h"

#define TYPE_PROTOBUF "application/x-protobuf"
#define TYPE_JSON "application/json"

/* google.rpc.Code of an HTTP status, for the body of an error. */
static int32_t rpc_code(int status)
{
    switch (status) {
    case 404:
    case 405:
        return 12; /* UNIMPLEMENTED */
    case 408:
        return 4; /* DEADLINE_EXCEEDED */
    case 413:
    case 429:
        return 8; /* RESOURCE_EXHAUSTED */
    case 503:
        return 14; /* UNAVAILABLE */
    default:
        return 3; /* INVALID_ARGUMENT */
    }
}

/* Protobuf to those who sent protobuf, JSON to everybody else. */
static bool wants_protobuf(const struct http_request *r)
{
    return str_eq(http_content_type(r), STR(TYPE_PROTOBUF));
}

static const char *put_status(void *arg, const struct http_request *r, int status,
                              struct str message, struct buf *out)
{
    (void)arg;
    if (wants_protobuf(r)) {
        otlp_encode_status(rpc_code(status), message, out);
        return TYPE_PROTOBUF;
    }
    struct json_writer w = json_writer(out);
    otlp_json_encode_status(rpc_code(status), message, &w);
    return TYPE_JSON;
}

static void answer_error(struct http_request *r, int status, struct str message)
{
    struct buf out = BUF_INIT;
    const char *type = put_status(NULL, r, status, message, &out);
    http_reply(r, status, type, &out);
}

/* `rejected` is the key of their number. */
static void answer_request(struct ingest *in, struct http_request *r, enum outcome outcome,
                           struct str rejected, uint64_t n_rejected, struct str message)
{
    static const int statuses[] = {[OUTCOME_TAKEN] = 200,
                                   [OUTCOME_INVALID] = 400,
                                   [OUTCOME_TOO_LARGE] = 413,
                                   [OUTCOME_BUSY] = 429,
                                   [OUTCOME_UNAVAILABLE] = 503};
    if (outcome == OUTCOME_BUSY || outcome == OUTCOME_UNAVAILABLE)
        http_retry_after(r, in);
    if (outcome != OUTCOME_TAKEN) {
        answer_error(r, statuses[outcome], message);
        return;
    }
    struct buf out = BUF_INIT;
    if (wants_protobuf(r)) {
        otlp_encode_response(n_rejected, message, &out);
        http_reply(r, 200, TYPE_PROTOBUF, &out);
    } else {
        struct json_writer w = json_writer(&out);
        otlp_json_encode_response(rejected, n_rejected, message, &w);
        http_reply(r, 200, TYPE_JSON, &out);
    }
}

static void answer(struct intake *e, enum outcome outcome, uint64_t n_rejected, struct str message)
{
    answer_request(e->ingest, e->request, outcome, STR("rejectedSpans"), n_rejected, message);
}

static void answer_signal(struct signal_intake *e, enum outcome outcome, uint64_t n_rejected,
                          struct str message)
{
    answer_request(e->ingest, e->request, outcome,
                   e->signal == SIGNAL_LOGS ? STR("rejectedLogRecords") : STR("rejectedDataPoints"),
                   n_rejected, message);
}

/* False: it is neither encoding, and answered. */
static bool encoding_get(struct http_request *r, bool *ret_is_json)
{
    *ret_is_json = str_eq(http_content_type(r), STR(TYPE_JSON));
    if (*ret_is_json || wants_protobuf(r))
        return true;
    answer_error(r, 415, STR("Content-Type can be application/x-protobuf or application/json"));
    return false;
}

static void take_signal(struct ingest *in, struct http_request *r, enum ingest_signal signal)
{
    bool is_json;
    if (!in->records) {
        answer_error(r, 404, STR(SIGNALS_OFF));
        return;
    }
    if (!encoding_get(r, &is_json))
        return;
    struct signal_intake *e = arena_zalloc(http_arena(r), sizeof *e);
    if (!e) {
        http_retry_after(r, in);
        answer_error(r, 503, STR("out of memory"));
        return;
    }
    e->ingest = in;
    e->receiver = RECEIVER_OTLP_HTTP;
    e->signal = signal;
    e->arena = http_arena(r);
    e->answer = answer_signal;
    e->request = r;
    signal_run(e, is_json, http_body(r));
}

static void take_traces(struct ingest *in, struct http_request *r)
{
    bool is_json;
    if (!encoding_get(r, &is_json))
        return;
    struct intake *e = arena_zalloc(http_arena(r), sizeof *e);
    if (!e) {
        http_retry_after(r, in);
        answer_error(r, 503, STR("out of memory"));
        return;
    }
    static const struct intake_format json = {"json", otlp_json_decode, BODY_OTLP_JSON},
                                      protobuf = {"protobuf", otlp_decode, BODY_OTLP_PROTOBUF};
    e->ingest = in;
    e->receiver = RECEIVER_OTLP_HTTP;
    e->arena = http_arena(r);
    e->answer = answer;
    e->request = r;
    e->is_own = http_header(r, INGEST_OWN_HEADER).ptr != NULL;
    intake_run(e, is_json ? &json : &protobuf, http_body(r));
}

static void handle(void *arg, struct http_request *r)
{
    struct str path = http_path(r);
    bool is_traces = str_eq(path, STR("/v1/traces")), is_logs = str_eq(path, STR("/v1/logs"));
    if (!is_traces && !is_logs && !str_eq(path, STR("/v1/metrics"))) {
        answer_error(r, 404,
                     STR("this port takes OTLP over HTTP at POST /v1/traces, /v1/logs and "
                         "/v1/metrics; the page has another port"));
    } else if (!str_eq(http_method(r), STR("POST"))) {
        http_reply_header(r, "Allow", "POST");
        answer_error(r, 405, STR("telemetry is sent with POST"));
    } else if (is_traces) {
        take_traces(arg, r);
    } else {
        take_signal(arg, r, is_logs ? SIGNAL_LOGS : SIGNAL_METRICS);
    }
}

int otlp_http_start(struct ingest *ingest, const struct ingest_options *options,
                    struct error_detail *ret_detail)
{
    struct http_server_options http = {
        .address = options->address,
        .port = options->ports[RECEIVER_OTLP_HTTP],
        .threads = ingest->http_threads,
        .body_bytes_max = ingest->body_bytes_max,
        .inflated_bytes_max = ingest->body_bytes_max,
        .budget = &ingest->budget,
        .connections_max = ingest->connections_max,
        .retry_after_s = intake_retry_after_s,
        .handler = handle,
        .error_body = put_status,
        .arg = ingest,
    };
    return http_server_new(&http, &ingest->http[RECEIVER_OTLP_HTTP], ret_detail);
}
