/* The answer to a query with select() or by(): a line a span, with what it selects; without select() a
 * line a group. */
#ifndef CLI_QUERY_SPANS_H
#define CLI_QUERY_SPANS_H

#include "cli/grid.h"

/* `sets`: the array spanSets of a trace, as JSON. The first call makes the columns, for all traces have
 * the same. `as_numbers`: times and durations as CSV has them. False: it is no answer of ours. */
bool query_spans_add(struct grid *g, struct str trace_id, struct str sets, bool as_numbers,
                     struct arena *arena);

#endif
