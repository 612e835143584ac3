/* AWS X-Ray's tracing header, `X-Amzn-Trace-Id` (X-Ray Developer Guide, "Tracing header"). */
#ifndef SDK_XRAY_CONTEXT_H
#define SDK_XRAY_CONTEXT_H

#include "sdk/propagate.h"

/* The three fields and what a member of the tracestate can hold. */
#define XRAY_CONTEXT_MAX (5 + 35 + 1 + 7 + 16 + 1 + 9 + 1 + 256)

/* "Root=1-{8 digits}-{24 digits};Parent={16 digits};Sampled={0|1|?}" in any order. Further fields
 * (Self, Lineage, the program's own) are kept and sent on, as long as they find room in a member of
 * the tracestate. "?" and no decision leave it to us: recorded. A header without Parent (a load
 * balancer's) names no span to continue: FOUND_NONE. */
enum found xray_context_parse(struct str text, struct pug_context *ret_context);
/* With a terminator; returns the length. */
size_t xray_context_put(const struct pug_context *context, char out[XRAY_CONTEXT_MAX + 1]);

#endif
