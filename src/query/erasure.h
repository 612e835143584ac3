/* Which spans a deletion or a redaction is about, told in TraceQL: counted first, then erased. */
#ifndef QUERY_ERASURE_H
#define QUERY_ERASURE_H

#include "query/search.h"

/* Where a query needs whole traces (structure, aggregates, the root's name), it is answered at the moment of
 * asking, and may concern so many. */
#define ERASURE_TRACES_MAX SEARCH_LIMIT_MAX

struct erasure {
    struct store_erase erase; /* without kind, keys and patterns */
    uint64_t spans, traces;   /* that the view has of it */
    bool is_damaged;          /* something could not be read, and is not in these */
};

/* `text` empty: every span that started in the range. Lives in `arena`. ERR_INVALID with words and a
 * position, ERR_TOO_LARGE, ERR_NOMEM, and what the store says. */
MUST_USE int erasure_find(struct store_view *view, struct str text, uint64_t start_min_ns,
                          uint64_t start_max_ns, struct arena *arena, struct erasure *ret,
                          struct error_detail *ret_detail);

#endif
