/* The receivers of UDP: Jaeger's agent (compact and binary thrift) and the X-Ray daemon. Nobody is
 * answered; what is refused is counted. */
#include "ingest/intake.h"
#include "net/udp_server.h"
#include "wire/jaeger.h"
#include "wire/xray.h"

#include <stdlib.h>

/* One datagram on its way: made here, freed by its answer. */
struct datagram {
    struct intake intake;
    struct arena arena;
    size_t charged;
};

static void answer(struct intake *e, enum outcome outcome, uint64_t n_rejected, struct str message)
{
    (void)outcome, (void)n_rejected, (void)message;
    struct datagram *d = e->request;
    struct ingest *in = e->ingest;
    size_t charged = d->charged;
    arena_done(&d->arena);
    free(d);
    budget_give(&in->budget, charged);
}

static const struct intake_format formats[RECEIVER_N] = {
    [RECEIVER_JAEGER_COMPACT] = {"jaeger compact", jaeger_compact_decode, 0},
    [RECEIVER_JAEGER_BINARY] = {"jaeger binary", jaeger_binary_decode, 0},
    [RECEIVER_XRAY] = {"x-ray", xray_decode, 0},
};

/* Without room for it a datagram counts as a refused request; nobody knows how many spans it had. */
static void refuse(struct ingest *in, enum receiver receiver)
{
    intake_count_turned(in, receiver, TURNED_BUSY);
    atomic_fetch_add_explicit(&in->counters[receiver].requests, 1, memory_order_release);
}

static void take(struct ingest *in, enum receiver receiver, struct str bytes)
{
    if (!budget_take(&in->budget, bytes.len)) {
        refuse(in, receiver);
        return;
    }
    struct datagram *d = calloc(1, sizeof *d);
    struct str copy = d ? arena_str(&d->arena, bytes) : STR_NONE;
    if (!copy.ptr) {
        if (d)
            arena_done(&d->arena);
        free(d);
        budget_give(&in->budget, bytes.len);
        refuse(in, receiver);
        return;
    }
    d->charged = bytes.len;
    d->intake = (struct intake){
        .ingest = in, .receiver = receiver, .arena = &d->arena, .answer = answer, .request = d};
    intake_run(&d->intake, &formats[receiver], copy);
}

static void take_compact(void *arg, struct str bytes)
{
    take(arg, RECEIVER_JAEGER_COMPACT, bytes);
}

static void take_binary(void *arg, struct str bytes)
{
    take(arg, RECEIVER_JAEGER_BINARY, bytes);
}

static void take_xray(void *arg, struct str bytes)
{
    take(arg, RECEIVER_XRAY, bytes);
}

static int start(struct ingest *ingest, const struct ingest_options *options,
                 enum receiver receiver, udp_handler_fn *handler, struct error_detail *ret_detail)
{
    struct udp_server_options udp = {.address = options->address,
                                     .port = options->ports[receiver],
                                     .handler = handler,
                                     .arg = ingest};
    return udp_server_new(&udp, &ingest->udp[receiver], ret_detail);
}

int jaeger_compact_start(struct ingest *ingest, const struct ingest_options *options,
                         struct error_detail *ret_detail)
{
    return start(ingest, options, RECEIVER_JAEGER_COMPACT, take_compact, ret_detail);
}

int jaeger_binary_start(struct ingest *ingest, const struct ingest_options *options,
                        struct error_detail *ret_detail)
{
    return start(ingest, options, RECEIVER_JAEGER_BINARY, take_binary, ret_detail);
}

int xray_start(struct ingest *ingest, const struct ingest_options *options,
               struct error_detail *ret_detail)
{
    return start(ingest, options, RECEIVER_XRAY, take_xray, ret_detail);
}
