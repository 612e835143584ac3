/* Whether spans are stored, for many spans of few traces: the ids of a trace are read once. */
#ifndef INGEST_STORED_SPANS_H
#define INGEST_STORED_SPANS_H

#include "store/store.h"

#define STORED_SPANS_MAX (1 << 22) /* that are remembered, 24 bytes each; then they are forgotten */

struct stored_spans {
    struct stored_slot
        *slots;     /* a set by trace and span id; the span of zeros: the trace was read */
    size_t n, room; /* room: a power of 2 */
};

/* What cannot be read counts as not there. */
bool stored_spans_has(struct stored_spans *s, struct store_view *view,
                      const struct trace_id *trace_id, const struct span_id *span_id);
void stored_spans_done(struct stored_spans *s);

#endif
