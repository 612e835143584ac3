/* Values over a limit are cut, at a character's start, and the span says which: an attribute
 * "pugmark.cut" with the keys. The alternative, refusing, would lose a span for one long text. */
#ifndef INGEST_CUT_H
#define INGEST_CUT_H

#include "base/arena.h"
#include "model/span.h"

#define CUT_KEY "pugmark.cut"

/* What happened to a span, or to the resource or scope that it shares with others. */
enum { CUT_VALUES = 1, CUT_LISTS = 2 };

struct cut_counts {
    size_t values, lists;
    uint8_t *marks; /* a byte for each span, in the arena; NULL: nothing was cut */
};

/* Whether anything in it has more attributes than that. */
bool cut_has_many(const struct span_batch *batch, size_t attrs_max);

/* Names, texts and bytes of all spans, their events, links, resources and scopes; what changes is
 * copied into `arena`. Of attributes beyond `attrs_max` the rest is left out, and counted as dropped
 * where it was (OTLP's dropped_attributes_count). ERR_NOMEM. */
MUST_USE int cut_batch(struct span_batch *batch, size_t bytes_max, size_t attrs_max,
                       struct arena *arena, struct cut_counts *ret);

#endif
