/* A trace as a waterfall of text. */
#ifndef CLI_WATERFALL_H
#define CLI_WATERFALL_H

#include "base/arena.h"
#include "cli/term.h"
#include "model/span.h"

struct waterfall_options {
    struct term term;
    size_t rows_max; /* spans shown; 0: all */
    bool attributes; /* of every span, not only of errors */
};

/* The spans of one trace, in any order, at least one. What the arena cannot hold fails with
 * ERR_NOMEM; `out` remembers its own failure. */
MUST_USE int waterfall_put(const struct span_batch *batch, const struct waterfall_options *options,
                           struct arena *arena, struct buf *out);

#endif
