/* Jaeger's collector over HTTP: POST /api/traces with a Batch in thrift's binary protocol.
 * Source: jaegertracing/jaeger-idl, thrift/jaeger.thrift; Jaeger's documentation, "APIs". */
#include "ingest/intake.h"
#include "net/http_server.h"
#include "wire/jaeger.h"

static void handle(void *arg, struct http_request *r)
{
    static const struct intake_format format = {"jaeger thrift", jaeger_thrift_decode, 0};
    struct str type = http_content_type(r);
    if (!str_eq(http_path(r), STR("/api/traces"))) {
        http_plain_error(r, 404,
                         STR("this port takes Jaeger's batches in thrift at POST /api/traces; the "
                             "page has another port"));
    } else if (!str_eq(http_method(r), STR("POST"))) {
        http_reply_header(r, "Allow", "POST");
        http_plain_error(r, 405, STR("batches are sent with POST"));
    } else if (!str_eq(type, STR("application/x-thrift")) &&
               !str_eq(type, STR("application/vnd.apache.thrift.binary"))) {
        http_plain_error(r, 415,
                         STR("Content-Type can be application/x-thrift or "
                             "application/vnd.apache.thrift.binary"));
    } else {
        http_plain_take(arg, RECEIVER_JAEGER_HTTP, r, &format);
    }
}

int jaeger_http_start(struct ingest *ingest, const struct ingest_options *options,
                      struct error_detail *ret_detail)
{
    return http_plain_start(ingest, options, RECEIVER_JAEGER_HTTP, handle, ret_detail);
}
