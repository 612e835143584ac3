/* A trace as a waterfall of text. */
#ifndef CLI_WATERFALL_H
#define CLI_WATERFALL_H

#include "base/arena.h"
#include "cli/term.h"
#include "model/span.h"

/* Of a trace of which only some spans are given: what the head says, and how many are left out. */
struct waterfall_whole {
    uint64_t start_ns, end_ns, spans, services, errors, orphans;
    uint64_t lines; /* that there would be, as it is folded */
};

struct waterfall_options {
    struct term term;
    size_t rows_max;                     /* spans shown; 0: all */
    bool attributes;                     /* of every span, not only of errors */
    const struct waterfall_whole *whole; /* NULL: the spans given are all */
};

/* The spans of one trace, in any order, at least one. What the arena cannot hold fails with
 * ERR_NOMEM; `out` remembers its own failure. */
MUST_USE int waterfall_put(const struct span_batch *batch, const struct waterfall_options *options,
                           struct arena *arena, struct buf *out);

#endif
