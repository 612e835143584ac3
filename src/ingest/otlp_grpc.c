/* OTLP over gRPC: opentelemetry.proto.collector.trace.v1.TraceService/Export, and the same of logs and
 * metrics.
 * Source: OpenTelemetry protocol specification 1.x, "OTLP/gRPC"; google/rpc/error_details.proto. */
#include "ingest/intake.h"
#include "ingest/signals.h"
#include "net/grpc_server.h"
#include "wire/otlp.h"

/* google.rpc.Status with a RetryInfo: details (an Any with type_url and value), retry_delay, seconds. */
static void put_retry_info(void *ingest, enum grpc_code code, struct str message, struct buf *out)
{
    static const char head[] = "\x1a\x30"                                         /* details */
                               "\x0a\x28type.googleapis.com/google.rpc.RetryInfo" /* type_url */
                               "\x12\x04\x0a\x02\x08"; /* value: retry_delay: seconds */
    otlp_encode_status((int32_t)code, message, out);
    buf_put(out, head, sizeof head - 1);
    buf_byte(out, (char)intake_retry_after_s(ingest)); /* at most 127: one byte */
}

static void answer_error(struct ingest *in, struct grpc_call *call, enum grpc_code code,
                         struct str message)
{
    bool may_retry = code == GRPC_RESOURCE_EXHAUSTED || code == GRPC_UNAVAILABLE;
    struct buf details = BUF_INIT;
    if (may_retry)
        put_retry_info(in, code, message, &details);
    grpc_reply_error(call, code, message, buf_ok(&details) ? buf_as_str(&details) : STR_NONE);
    buf_done(&details);
}

/* The responses of the three services have the same fields. */
static void answer_call(struct ingest *in, struct grpc_call *call, enum outcome outcome,
                        uint64_t n_rejected, struct str message)
{
    struct buf out = BUF_INIT;
    switch (outcome) {
    case OUTCOME_TAKEN:
        otlp_encode_response(n_rejected, message, &out);
        grpc_reply(call, &out);
        break;
    case OUTCOME_INVALID:
        answer_error(in, call, GRPC_INVALID_ARGUMENT, message);
        break;
    case OUTCOME_TOO_LARGE:
        /* Without a RetryInfo: the same request would be too large again. */
        grpc_reply_error(call, GRPC_RESOURCE_EXHAUSTED, message, STR_NONE);
        break;
    case OUTCOME_BUSY:
        answer_error(in, call, GRPC_RESOURCE_EXHAUSTED, message);
        break;
    case OUTCOME_UNAVAILABLE:
        answer_error(in, call, GRPC_UNAVAILABLE, message);
        break;
    }
}

static void answer(struct intake *e, enum outcome outcome, uint64_t n_rejected, struct str message)
{
    answer_call(e->ingest, e->request, outcome, n_rejected, message);
}

static void answer_signal(struct signal_intake *e, enum outcome outcome, uint64_t n_rejected,
                          struct str message)
{
    answer_call(e->ingest, e->request, outcome, n_rejected, message);
}

static void take_traces(void *arg, struct grpc_call *call)
{
    struct intake *e = arena_zalloc(grpc_arena(call), sizeof *e);
    if (!e) {
        answer_error(arg, call, GRPC_UNAVAILABLE, STR("out of memory"));
        return;
    }
    static const struct intake_format format = {"protobuf", otlp_decode, BODY_OTLP_PROTOBUF};
    e->ingest = arg;
    e->receiver = RECEIVER_OTLP_GRPC;
    e->arena = grpc_arena(call);
    e->answer = answer;
    e->request = call;
    intake_run(e, &format, grpc_message(call));
}

static void take_signal(struct ingest *in, struct grpc_call *call, enum ingest_signal signal)
{
    if (!in->records) {
        grpc_reply_error(call, GRPC_UNIMPLEMENTED, STR(SIGNALS_OFF), STR_NONE);
        return;
    }
    struct signal_intake *e = arena_zalloc(grpc_arena(call), sizeof *e);
    if (!e) {
        answer_error(in, call, GRPC_UNAVAILABLE, STR("out of memory"));
        return;
    }
    e->ingest = in;
    e->receiver = RECEIVER_OTLP_GRPC;
    e->signal = signal;
    e->arena = grpc_arena(call);
    e->answer = answer_signal;
    e->request = call;
    signal_run(e, false, grpc_message(call));
}

static void take_logs(void *arg, struct grpc_call *call)
{
    take_signal(arg, call, SIGNAL_LOGS);
}

static void take_metrics(void *arg, struct grpc_call *call)
{
    take_signal(arg, call, SIGNAL_METRICS);
}

static const struct grpc_method methods[] = {
    {"/opentelemetry.proto.collector.trace.v1.TraceService/Export", take_traces},
    {"/opentelemetry.proto.collector.logs.v1.LogsService/Export", take_logs},
    {"/opentelemetry.proto.collector.metrics.v1.MetricsService/Export", take_metrics},
};

int otlp_grpc_start(struct ingest *ingest, const struct ingest_options *options,
                    struct error_detail *ret_detail)
{
    struct grpc_server_options grpc = {
        .address = options->address,
        .port = options->ports[RECEIVER_OTLP_GRPC],
        .methods = methods,
        .n_methods = sizeof methods / sizeof *methods,
        .arg = ingest,
        .busy_details = put_retry_info,
        .connections_max = ingest->connections_max,
        .message_bytes_max = ingest->body_bytes_max,
        .inflated_bytes_max = ingest->body_bytes_max,
        .budget = &ingest->budget,
    };
    return grpc_server_new(&grpc, &ingest->grpc, ret_detail);
}
