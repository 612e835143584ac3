/* OpenTelemetry's entry in tracestate: `ot=th:c;rv:6e6d1a75832a2f` (OpenTelemetry specification, "TraceState handling"
 * and "TraceState: probability sampling").
 *
 *     rv   14 hexadecimal digits: the randomness R of the trace; without it R is the low 56 bits of the trace id
 *     th   1 to 14 digits, zeros at the end left out: the threshold T. Kept is what has R >= T, so a
 *          span with th stands for 2^56 / (2^56 - T) of its kind
 *
 * Nothing here allocates; the recording threads use it. */
#ifndef SDK_OT_STATE_H
#define SDK_OT_STATE_H

#include "base/str.h"
#include "pugmark/pugmark.h"

#define OT_RANGE (UINT64_C(1) << 56) /* of R; as a threshold: never */
#define OT_VALUE_MAX 256             /* characters after "ot=" */
/* Hexadecimal digits of a threshold, beside leading f's: what the specification recommends. */
#define OT_PRECISION 4

struct ot_state {
    bool has_th, has_rv;
    uint64_t th, rv;
};

/* What the sender says; a sub-key that is malformed is not there. */
void ot_state_read(struct str tracestate, struct ot_state *ret);
/* R of a trace. */
uint64_t ot_randomness(const struct pug_context *context, const struct ot_state *state);
/* Replaces th, or takes it out (threshold NULL). The entry moves to the front; other sub-keys and entries stay, but for
 * those at the end that find no room. */
void ot_state_set_th(struct pug_context *context, const uint64_t *threshold);
/* Takes out a th that contradicts the sampled flag, as the specification asks of who passes it on. */
void ot_state_repair(struct pug_context *context);

/* T for a probability from 0 to 1 (below 2^-56: never), with `precision` digits from 1 to 13. */
uint64_t ot_threshold(double probability, int precision);
/* "th" of a threshold; returns the length. */
size_t ot_th_put(char out[14], uint64_t threshold);

#endif
