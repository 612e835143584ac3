/* Zipkin over HTTP: POST /api/v2/spans (JSON, protobuf) and /api/v1/spans (JSON, thrift). Answers as
 * Zipkin's: 202 without a body, errors as text. Everything else on this port is for the query API
 * (ingest_zipkin_other).
 * Source: openzipkin/zipkin-api, zipkin2-api.yaml; openzipkin/zipkin, zipkin-server. */
#include "ingest/intake.h"
#include "net/http_server.h"
#include "wire/zipkin.h"

static const struct intake_format v2_json = {"zipkin json", zipkin_json_decode, 0},
                                  v2_protobuf = {"zipkin protobuf", zipkin_protobuf_decode, 0},
                                  v1_json = {"zipkin v1 json", zipkin_v1_json_decode, 0},
                                  v1_thrift = {"zipkin v1 thrift", zipkin_v1_thrift_decode, 0};

/* Many clients name no type, and curl names a wrong one: what is not binary is JSON. */
static void take(struct ingest *in, struct http_request *r, bool is_v1)
{
    struct str type = http_content_type(r);
    const struct intake_format *format = is_v1 ? &v1_json : &v2_json;
    if (!str_eq(http_method(r), STR("POST"))) {
        http_reply_header(r, "Allow", "POST");
        http_plain_error(r, 405, STR("spans are sent with POST"));
        return;
    }
    if (!http_body(r).len) {
        http_plain_error(r, 400, STR("Empty POST body"));
        return;
    }
    if (str_eq(type, STR("application/x-protobuf")) || str_eq(type, STR("application/protobuf"))) {
        format = &v2_protobuf;
        if (is_v1) {
            http_plain_error(r, 415, STR("version 1 is JSON or thrift"));
            return;
        }
    } else if (str_eq(type, STR("application/x-thrift"))) {
        format = &v1_thrift;
        if (!is_v1) {
            http_plain_error(r, 415, STR("version 2 is JSON or protobuf"));
            return;
        }
    }
    http_plain_take(in, RECEIVER_ZIPKIN, r, format);
}

static void handle(void *arg, struct http_request *r)
{
    struct ingest *in = arg;
    struct str path = http_path(r);
    /* Zipkin's server answers below /zipkin as well. */
    if (str_starts(path, STR("/zipkin/api/v")))
        path = str_skip(path, sizeof "/zipkin" - 1);
    bool is_v1 = str_eq(path, STR("/api/v1/spans"));
    bool is_spans = is_v1 || str_eq(path, STR("/api/v2/spans"));
    /* acquire pairs with the release in ingest_zipkin_other */
    http_handler_fn *other = atomic_load_explicit(&in->zipkin_other, memory_order_acquire);
    if (is_spans && (!other || str_eq(http_method(r), STR("POST"))))
        take(in, r, is_v1);
    else if (other)
        other(in->zipkin_other_arg, r);
    else
        http_plain_error(r, 404,
                         STR("this port takes Zipkin's spans at POST /api/v2/spans and "
                             "/api/v1/spans; the page has another port"));
}

void ingest_zipkin_other(struct ingest *in, void (*handler)(void *, struct http_request *),
                         void *arg)
{
    in->zipkin_other_arg = arg;
    atomic_store_explicit(&in->zipkin_other, handler, memory_order_release);
}

int zipkin_http_start(struct ingest *ingest, const struct ingest_options *options,
                      struct error_detail *ret_detail)
{
    return http_plain_start(ingest, options, RECEIVER_ZIPKIN, handle, ret_detail);
}
