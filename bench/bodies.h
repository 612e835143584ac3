/* Requests that are encoded before anything is measured: the data set of `pugmark load`, in the form
 * that a protocol sends it.
 *
 * A minute of load is more than memory holds, so the same bodies go round: in each round every id is
 * another one and every time lies later (body_turn), which costs the sender some nanoseconds a span.
 * What repeats are the attributes, whose draws an encoder would have to look for some 60 seconds
 * back. */
#ifndef BENCH_BODIES_H
#define BENCH_BODIES_H

#include "base/err.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

enum body_form {
    BODY_OTLP_HTTP, /* protobuf */
    BODY_OTLP_GRPC, /* the same behind gRPC's five bytes */
    BODY_OTLP_AS_JSON,
    BODY_ZIPKIN_AS_JSON,
    BODY_FORMS
};

const char *body_form_name(enum body_form form); /* for people */

/* A number in a body that every round changes. */
struct patch {
    uint64_t value; /* of round 0 */
    uint32_t at;
    uint8_t how; /* enum patch_how, in bodies.c */
};

struct body {
    char *bytes;
    size_t len;
    uint32_t spans, n_patches;
    struct patch *patches;
    atomic_flag taken; /* by the connection that sends it */
};

struct body_set {
    enum body_form form;
    struct body *bodies;
    size_t n;
    uint64_t spans, bytes;
    uint64_t round_ns;    /* how long the traces of one round take by their own times */
    double entropy_bytes; /* of a span */
};

/* 10 services, traces of 10 spans, 11 attributes a span; `batch` traces a request. Dies when there is
 * no memory. */
void body_set_make(enum body_form form, uint64_t traces, unsigned batch, uint64_t seed,
                   struct body_set *ret);
void body_set_done(struct body_set *set);

/* Makes it that of round `round`; it must be taken. */
void body_turn(const struct body_set *set, struct body *body, uint64_t round);

#endif
