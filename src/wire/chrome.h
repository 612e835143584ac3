/* Model -> Chrome Trace Event JSON, as Perfetto and chrome://tracing read it.
 * Source: "Trace Event Format" (Google, 2016); what Perfetto's importer accepts of it.
 *
 * A file is a head, events with ",\n" before each, and a tail:
 *
 *     {"displayTimeUnit":"ns","otherData":{..},"traceEvents":[
 *     {"name":"process_name","ph":"M",..}
 *     ],"pugmark":{..}}
 *
 * The tail is small: whoever writes a growing file puts it at the end each time and writes over it
 * with the next events, so that the file is whole whenever nobody writes.
 *
 * Times are microseconds with three decimals, so nanoseconds are kept, counted from `base_ns`:
 * since the epoch they would not fit a double. */
#ifndef WIRE_CHROME_H
#define WIRE_CHROME_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "model/span.h"

struct chrome_process {
    uint32_t pid;
    uint64_t base_ns; /* of the epoch; times in the file count from here */
    struct str name;  /* the service */
    struct str session_id;
};

void chrome_head(const struct chrome_process *p, struct buf *out);
void chrome_thread_name(const struct chrome_process *p, uint32_t tid, struct str name,
                        struct buf *out);
/* One complete event (X) and an instant event for each of its events; as nestable async events (b,
 * e, n) when it may overlap others of its thread without nesting. */
void chrome_span(const struct chrome_process *p, const struct span *s, uint32_t tid, bool async,
                 struct buf *out);

/* Of the whole process: a mark in the timeline (i), and one track for the numbers among `values` (C),
 * which share `name`. */
void chrome_instant(const struct chrome_process *p, struct str name, uint64_t time_ns,
                    const struct attrs *values, struct buf *out);
void chrome_counter(const struct chrome_process *p, struct str name, uint64_t time_ns,
                    const struct attrs *values, struct buf *out);

struct chrome_total {
    const char *name;
    uint64_t value;
};
void chrome_tail(const struct chrome_total *totals, size_t n, struct buf *out);

/* As otlp_decode: the spans of such a file (chrome_read.c). */
MUST_USE int chrome_decode(struct str body, struct arena *arena, struct span_batch *ret_batch,
                           struct error_detail *ret_detail);

#endif
