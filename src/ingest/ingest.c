#include "ingest/ingest.h"

#include "base/clock.h"
#include "ingest/intake.h"
#include "net/grpc_server.h"
#include "net/http_server.h"

#include <stdlib.h>

#define BODY_BYTES_MAX ((size_t)64 << 20)
#define IN_FLIGHT_BYTES_MAX ((size_t)256 << 20)
#define VALUE_BYTES_MAX ((size_t)1 << 20)
#define SPANS_MAX ((size_t)1 << 17)

const char *refused_text(enum refused reason)
{
    static const char *const texts[] = {
#define X(name, text) text,
        REFUSED_MAP(X)
#undef X
    };
    return texts[reason];
}

int ingest_start(const struct ingest_options *options, struct ingest **ret,
                 struct error_detail *ret_detail)
{
    struct ingest *in = calloc(1, sizeof *in);
    if (!in)
        return error_set(ret_detail, ERR_NOMEM, 0, "out of memory");
    in->store = options->store;
    in->budget.max = options->in_flight_bytes_max ? options->in_flight_bytes_max
                                                  : IN_FLIGHT_BYTES_MAX;
    in->body_bytes_max = options->body_bytes_max ? options->body_bytes_max : BODY_BYTES_MAX;
    in->value_bytes_max = options->value_bytes_max ? options->value_bytes_max : VALUE_BYTES_MAX;
    in->spans_max = options->spans_max ? options->spans_max : SPANS_MAX;
    int err = otlp_http_start(in, options, ret_detail);
    if (!err)
        err = otlp_grpc_start(in, options, ret_detail);
    if (err) {
        ingest_free(in);
        return err;
    }
    *ret = in;
    return 0;
}

void ingest_stop(struct ingest *in, unsigned deadline_ms)
{
    if (!in)
        return;
    uint64_t until = clock_monotonic_ns() + deadline_ms * NS_PER_MS;
    grpc_server_stop(in->grpc, deadline_ms);
    uint64_t now = clock_monotonic_ns();
    http_server_stop(in->http, now < until ? (unsigned)((until - now) / NS_PER_MS) : 0);
}

void ingest_free(struct ingest *in)
{
    if (!in)
        return;
    grpc_server_free(in->grpc);
    http_server_free(in->http);
    free(in);
}

uint16_t ingest_otlp_grpc_port(const struct ingest *in)
{
    return grpc_server_port(in->grpc);
}

uint16_t ingest_otlp_http_port(const struct ingest *in)
{
    return http_server_port(in->http);
}

static uint64_t read_counter(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_acquire);
}

void ingest_stats(const struct ingest *in, struct ingest_stats *ret)
{
    struct http_server_stats http = {0};
    struct grpc_server_stats grpc = {0};
    http_server_stats(in->http, &http);
    grpc_server_stats(in->grpc, &grpc);
    /* Fates before arrivals, so that the sums never show more fates than arrivals. */
    struct ingest_stats s = {.spans_stored = read_counter(&in->spans_stored)};
    for (size_t i = 0; i < REFUSED_N; i++)
        s.spans_refused[i] = read_counter(&in->spans_refused[i]);
    s.spans_received = read_counter(&in->spans_received);
    s.requests_refused = read_counter(&in->requests_refused) + http.refused_too_large +
                         http.refused_bad + http.refused_busy + grpc.refused_too_large +
                         grpc.refused_bad + grpc.refused_busy;
    s.requests = read_counter(&in->requests) + http.refused_too_large + http.refused_bad +
                 http.refused_busy + grpc.refused_too_large + grpc.refused_bad + grpc.refused_busy;
    s.values_cut = read_counter(&in->values_cut);
    s.body_bytes = http.body_bytes + grpc.message_bytes;
    s.bytes_in_flight = atomic_load_explicit(&in->budget.used, memory_order_relaxed);
    s.connections_now = http.connections_now + grpc.connections_now;
    *ret = s;
}
