/* B3 propagation (openzipkin/b3-propagation): one header `b3`, or several `X-B3-*`. */
#ifndef SDK_B3_H
#define SDK_B3_H

#include "sdk/propagate.h"

#define B3_MAX (32 + 1 + 16 + 1 + 1)

/* "{trace id}-{span id}[-{0|1|d}[-{parent id}]]", or the decision alone. The parent's parent is
 * passed over. Trace ids of 16 digits get zeros in front. No decision: it is left to us, which means
 * that the span is recorded. */
enum found b3_parse(struct str text, struct pug_context *ret_context);
/* With a terminator; returns the length. */
size_t b3_put(const struct pug_context *context, char out[B3_MAX + 1]);

/* X-B3-TraceId, X-B3-SpanId, X-B3-Sampled, X-B3-Flags; STR_NONE for one that is absent. */
enum found b3_multi_parse(struct str trace_id, struct str span_id, struct str sampled,
                          struct str flags, struct pug_context *ret_context);

#endif
