/* Values over a limit are cut, at a character's start, and the span says which: an attribute
 * "pugmark.cut" with the keys. The alternative, refusing, would lose a span for one long text. */
#ifndef INGEST_CUT_H
#define INGEST_CUT_H

#include "base/arena.h"
#include "model/span.h"

#define CUT_KEY "pugmark.cut"

/* Names, texts and bytes of all spans, their events, links, resources and scopes; what changes is
 * copied into `arena`. ERR_NOMEM. */
MUST_USE int cut_batch(struct span_batch *batch, size_t bytes_max, struct arena *arena,
                       size_t *ret_n_cut);

#endif
