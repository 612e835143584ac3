/* Jaeger's own propagation (Client Libraries, "Propagation Format"): the header `uber-trace-id`. Its
 * baggage, `uberctx-KEY`, is baggage.c's. */
#ifndef SDK_JAEGER_CONTEXT_H
#define SDK_JAEGER_CONTEXT_H

#include "sdk/propagate.h"

#define JAEGER_CONTEXT_MAX (32 + 1 + 16 + 1 + 1 + 1 + 2)

/* "{trace id}:{span id}:{parent id}:{flags}", in hexadecimal without leading zeros or with them; the
 * colons may be percent-encoded. The parent id is deprecated and passed over. Flags: 1 sampled, 2
 * debug. */
enum found jaeger_context_parse(struct str text, struct pug_context *ret_context);
/* With a terminator; returns the length. */
size_t jaeger_context_put(const struct pug_context *context, char out[JAEGER_CONTEXT_MAX + 1]);

#endif
