/* The traces of spans that a decoder leaves out, as far as their ids could be read: of the first
 * SPAN_REJECTED_MAX of a request. */
#ifndef WIRE_REJECTED_H
#define WIRE_REJECTED_H

#include "base/arena.h"
#include "model/span.h"

struct rejected {
    struct trace_id *ids; /* SPAN_REJECTED_MAX, made when the first is added */
    uint32_t n;
};

/* Without memory, or room, it is only counted, which is the caller's business. */
static inline void rejected_add(struct rejected *r, const struct trace_id *id, struct arena *arena)
{
    if (trace_id_is_zero(id) || r->n == SPAN_REJECTED_MAX)
        return;
    if (!r->ids)
        r->ids = arena_array(arena, SPAN_REJECTED_MAX, sizeof *r->ids);
    if (r->ids)
        r->ids[r->n++] = *id;
}

#endif
