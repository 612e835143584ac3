#include "ingest/ingest.h"

#include "base/clock.h"
#include "base/log.h"
#include "ingest/intake.h"
#include "net/grpc_server.h"
#include "net/http_server.h"
#include "net/udp_server.h"

#include <stdlib.h>
#include <unistd.h>

#define BODY_BYTES_MAX ((size_t)64 << 20)
#define IN_FLIGHT_BYTES_MAX ((size_t)256 << 20)
#define VALUE_BYTES_MAX ((size_t)1 << 20)
#define SPANS_MAX ((size_t)1 << 17)
#define ATTRS_MAX ((size_t)1024)
enum { THREADS_MAX = 4 };

const char *refused_text(enum refused reason)
{
    static const char *const texts[] = {
#define X(name, text) text,
        REFUSED_MAP(X)
#undef X
    };
    return texts[reason];
}

const char *fate_text(enum fate fate)
{
    static const char *const texts[] = {
        [FATE_CUT] = "values longer than the limit were cut",
        [FATE_ATTRS] = "attributes beyond the limit were left out",
        [FATE_REDACTED] = "values were taken out by the rules of redaction",
    };
    return fate < FATE_REFUSED ? texts[fate] : refused_text((enum refused)(fate - FATE_REFUSED));
}

const char *turned_text(enum turned reason)
{
    static const char *const texts[] = {
#define X(name, text) text,
        TURNED_MAP(X)
#undef X
    };
    return texts[reason];
}

static const struct {
    const char *name;
    uint16_t port;
} receivers[] = {
#define X(id, name, port) {name, port},
    RECEIVER_MAP(X)
#undef X
};

const char *receiver_name(enum receiver receiver)
{
    return receivers[receiver].name;
}

uint16_t receiver_default_port(enum receiver receiver)
{
    return receivers[receiver].port;
}

/* Decoding is done on the threads of the servers, so that each core has one. */
static unsigned threads_default(void)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    return cpus < 1 ? 1 : cpus > THREADS_MAX ? THREADS_MAX : (unsigned)cpus;
}

int ingest_start(const struct ingest_options *options, struct ingest **ret,
                 struct error_detail *ret_detail)
{
    typedef int start_fn(struct ingest *, const struct ingest_options *, struct error_detail *);
    static start_fn *const starts[RECEIVER_N] = {
        [RECEIVER_OTLP_GRPC] = otlp_grpc_start,
        [RECEIVER_OTLP_HTTP] = otlp_http_start,
        [RECEIVER_ZIPKIN] = zipkin_http_start,
        [RECEIVER_JAEGER_HTTP] = jaeger_http_start,
        [RECEIVER_JAEGER_COMPACT] = jaeger_compact_start,
        [RECEIVER_JAEGER_BINARY] = jaeger_binary_start,
        [RECEIVER_XRAY] = xray_start,
    };
    struct ingest *in = calloc(1, sizeof *in);
    if (!in)
        return error_set(ret_detail, ERR_NOMEM, 0, "out of memory");
    if (ledger_init(&in->ledger)) {
        free(in);
        return error_set(ret_detail, ERR_NOMEM, 0, "out of memory");
    }
    drain_init(&in->drain);
    in->store = options->store;
    in->records = options->records;
    in->redaction = options->redaction;
    in->budget.max = options->in_flight_bytes_max ? options->in_flight_bytes_max
                                                  : IN_FLIGHT_BYTES_MAX;
    in->body_bytes_max = options->body_bytes_max ? options->body_bytes_max : BODY_BYTES_MAX;
    in->value_bytes_max = options->value_bytes_max ? options->value_bytes_max : VALUE_BYTES_MAX;
    in->spans_max = options->spans_max ? options->spans_max : SPANS_MAX;
    in->attrs_max = options->attrs_max ? options->attrs_max : ATTRS_MAX;
    in->connections_max = options->connections_max;
    in->http_threads = options->http_threads ? options->http_threads : threads_default();
    int err = 0;
    for (int i = 0; i < RECEIVER_N && !err; i++) {
        struct error_detail detail = {0};
        if (options->is_off[i])
            continue;
        err = starts[i](in, options, &detail);
        /* Where Zipkin or Jaeger runs already, OTLP is served all the same. */
        if (err == ERR_BUSY && i >= RECEIVER_OPTIONAL_FIRST) {
            log_warn("%s; going on without %s", detail.message, receivers[i].name);
            err = 0;
        }
        if (err && ret_detail)
            *ret_detail = detail;
    }
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
    for (int i = 0; i < RECEIVER_N; i++) {
        uint64_t now = clock_monotonic_ns();
        unsigned left_ms = now < until ? (unsigned)((until - now) / NS_PER_MS) : 0;
        if (in->http[i])
            http_server_stop(in->http[i], left_ms);
        udp_server_stop(in->udp[i]);
    }
}

void ingest_free(struct ingest *in)
{
    if (!in)
        return;
    grpc_server_free(in->grpc);
    for (int i = 0; i < RECEIVER_N; i++) {
        http_server_free(in->http[i]);
        udp_server_free(in->udp[i]);
    }
    drain_done(&in->drain);
    ledger_done(&in->ledger);
    free(in);
}

uint16_t ingest_port(const struct ingest *in, enum receiver receiver)
{
    if (receiver == RECEIVER_OTLP_GRPC)
        return in->grpc ? grpc_server_port(in->grpc) : 0;
    return in->http[receiver]  ? http_server_port(in->http[receiver])
           : in->udp[receiver] ? udp_server_port(in->udp[receiver])
                               : 0;
}

static uint64_t read_counter(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_acquire);
}

/* What a server refused before it became a request of ours. */
static void add_server(const struct ingest *in, enum receiver receiver, struct ingest_stats *s)
{
    struct receiver_stats *r = &s->receivers[receiver];
    if (in->udp[receiver]) {
        struct udp_server_stats udp = {0};
        udp_server_stats(in->udp[receiver], &udp);
        r->datagrams_dropped = udp.dropped;
        s->body_bytes += udp.bytes;
        return;
    }
    struct http_server_stats server = {0};
    if (receiver == RECEIVER_OTLP_GRPC && in->grpc) {
        struct grpc_server_stats grpc = {0};
        grpc_server_stats(in->grpc, &grpc);
        server.refused_too_large = grpc.refused_too_large;
        server.refused_bad = grpc.refused_bad;
        server.refused_busy = grpc.refused_busy;
        server.body_bytes = grpc.message_bytes;
        server.connections_now = grpc.connections_now;
        server.connections_full = grpc.connections_full;
    } else if (in->http[receiver]) {
        http_server_stats(in->http[receiver], &server);
    }
    uint64_t refused = server.refused_too_large + server.refused_bad + server.refused_busy;
    r->requests += refused;
    r->requests_refused += refused;
    s->body_bytes += server.body_bytes;
    s->requests_turned[TURNED_TOO_LARGE] += server.refused_too_large;
    s->requests_turned[TURNED_BAD] += server.refused_bad;
    s->requests_turned[TURNED_BUSY] += server.refused_busy;
    s->connections_now += server.connections_now;
    s->connections_full += server.connections_full;
}

void ingest_ledger(struct ingest *in, const struct trace_id *id, struct ingest_ledger *ret)
{
    ledger_find(&in->ledger, id, ret);
}

void ingest_stats(const struct ingest *in, struct ingest_stats *ret)
{
    struct ingest_stats s = {.requests = 0};
    /* Fates before arrivals, so that the sums never show more fates than arrivals. */
    for (int i = 0; i < SIGNAL_N; i++) {
        s.signals[i].stored = read_counter(&in->signals[i].stored);
        s.signals[i].refused = read_counter(&in->signals[i].refused);
        s.signals[i].received = read_counter(&in->signals[i].received);
    }
    for (int i = 0; i < RECEIVER_N; i++)
        s.receivers[i].spans_stored = read_counter(&in->counters[i].spans_stored);
    for (size_t i = 0; i < TURNED_N; i++)
        s.requests_turned[i] = read_counter(&in->requests_turned[i]);
    for (size_t i = 0; i < REFUSED_N; i++)
        s.spans_refused[i] = read_counter(&in->spans_refused[i]);
    for (int i = 0; i < RECEIVER_N; i++) {
        struct receiver_stats *r = &s.receivers[i];
        r->spans_received = read_counter(&in->counters[i].spans_received);
        r->requests_refused = read_counter(&in->counters[i].requests_refused);
        r->requests = read_counter(&in->counters[i].requests);
        add_server(in, (enum receiver)i, &s);
        s.requests += r->requests;
        s.requests_refused += r->requests_refused;
        s.spans_received += r->spans_received;
        s.spans_stored += r->spans_stored;
    }
    s.values_cut = read_counter(&in->values_cut);
    s.bytes_in_flight = atomic_load_explicit(&in->budget.used, memory_order_relaxed);
    *ret = s;
}
