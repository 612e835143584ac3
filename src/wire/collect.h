/* Spans put together from formats that know no resources: each span names its service, and what
 * belongs to it comes in any order. A decoder fills in `struct span`, hands over what the span has
 * many of, and ends it with collect_span; the spans then stand as if OTLP had brought them.
 *
 * Trouble with one span (`collect_reject`) leaves that span out and counts it; `err` ends all. */
#ifndef WIRE_COLLECT_H
#define WIRE_COLLECT_H

#include "base/arena.h"
#include "base/buf.h"
#include "model/span.h"
#include "wire/rejected.h"

struct collect {
    struct arena *arena;
    struct buf attrs, events, links; /* of the span that is being made */
    struct buf spans;
    struct buf resources; /* those seen last, by pointer */
    size_t n_rejected;
    struct rejected rejected;
    const char *rejected_reason; /* of the first */
    const char *reject;          /* of the span that is being made */
    int err;                     /* ERR_NOMEM: nothing can be added any more */
};

void collect_init(struct collect *c, struct arena *arena);
void collect_done(struct collect *c);

/* What is appended must be text that OTLP can carry. */
void collect_reject(struct collect *c, const char *reason);
struct str collect_text(struct collect *c, struct str s); /* as it is; rejects what is not UTF-8 */

/* Microseconds as nanoseconds; rejects what is beyond the year 2554. */
uint64_t collect_us(struct collect *c, uint64_t us);

void collect_attr(struct collect *c, struct str key, const struct value *value);
void collect_attr_str(struct collect *c, struct str key, struct str text);
void collect_attr_int(struct collect *c, struct str key, int64_t n);
/* The attribute of the span that is being made, for the moment; NULL. */
const struct attr *collect_find(const struct collect *c, struct str key);
/* What was handed over as attributes so far becomes those of an event, a link or a resource. */
struct attrs collect_take_attrs(struct collect *c, size_t from);
size_t collect_mark(const struct collect *c); /* `from` of collect_take_attrs */
void collect_event(struct collect *c, const struct event *event);
void collect_link(struct collect *c, const struct link *link);

/* A resource that has only a name; the same one for the same name, as far as that is cheap. */
const struct resource *collect_service(struct collect *c, struct str service);

/* Ends the span: gives it what was handed over, or counts it as rejected. Ids must be set; a
 * missing resource or scope is an empty one. */
void collect_span(struct collect *c, struct span *s);
size_t collect_spans(const struct collect *c); /* how many there are so far */
/* Takes the spans from `first` on out again, and counts them as rejected. */
void collect_reject_spans(struct collect *c, size_t first, const char *reason);
/* Begins again without counting anything. */
void collect_drop(struct collect *c);

/* All spans, in the order they ended; `c` is done then. */
MUST_USE int collect_batch(struct collect *c, struct span_batch *ret_batch);

#endif
