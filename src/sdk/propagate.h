/* What the formats of propagation share: how headers are read, and what a reader found.
 *
 * A format is a file: w3c.c, b3.c, jaeger_context.c, xray_context.c, baggage.c. Each turns texts into
 * a struct pug_context and back and knows nothing of carriers; propagate.c goes through those that
 * are chosen. What a format says beyond ids and flags lives on in the context's tracestate, so that
 * it reaches the next process through any of them:
 *
 *     b3=d             "debug", of B3 and Jaeger
 *     xray=Key:value;  the further fields of X-Amzn-Trace-Id */
#ifndef SDK_PROPAGATE_H
#define SDK_PROPAGATE_H

#include "base/str.h"
#include "pugmark/pugmark.h"

enum found {
    FOUND_NONE,    /* no such header, or one that names no parent */
    FOUND_CONTEXT, /* `ret_context` is filled */
    FOUND_DAMAGED, /* a header that breaks its format */
};

#define DEBUG_KEY STR("b3")
#define DEBUG_VALUE STR("d")

/* False: there is no such header. */
bool carrier_get(pug_carrier_get *get, void *carrier, const char *name, size_t nth,
                 struct str *ret);

/* Which formats are in force, enum propagator or-ed; from the start of the process the default. */
unsigned propagators(void);
void propagators_use(unsigned chosen);

/* How many headers and `_trace` members were there and damaged. */
uint64_t propagate_damaged(void);
void propagate_count_damaged(void);

/* 1 to 2*n digits in either case, zeros put in front; not all zeros. */
bool id_parse_short(struct str hex, uint8_t *ret, size_t n);
bool id_is_zero(const uint8_t *id, size_t n);
/* A sender that says "do not record" and gives no ids: ids of our own, so that everything below,
 * here and further on, knows. */
void context_denied(struct pug_context *ret_context);
void context_set_debug(struct pug_context *context);
bool context_is_debug(const struct pug_context *context);
/* Unpredictable, not secret; never fails. */
void random_bytes(uint8_t *out, size_t n);

#endif
