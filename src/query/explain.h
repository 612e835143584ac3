/* What a search did to find its traces, in words. */
#ifndef QUERY_EXPLAIN_H
#define QUERY_EXPLAIN_H

#include "query/traceql.h"

/* The condition of a scan, as near to TraceQL as it can be said: `(name = "a" && .k exists)`. */
void explain_predicate(const struct predicate *p, struct buf *out);

/* Why a search cannot tell from single spans whether a trace is an answer. */
enum explain_reason {
    EXPLAIN_STRUCTURE = 1 << 0,  /* >, >>, ~ and their kin */
    EXPLAIN_SPANSETS = 1 << 1,   /* filters joined by && */
    EXPLAIN_AGGREGATES = 1 << 2, /* count() and its kin, by() */
    EXPLAIN_TRACE = 1 << 3,      /* its root, its duration, its id */
    EXPLAIN_PLACE = 1 << 4,      /* parent, children, nested-set numbers */
    EXPLAIN_PARTS = 1 << 5,      /* events, links, the instrumentation scope */
    EXPLAIN_VALUES = 1 << 6,     /* arithmetic */
};
/* All that a query asks for; only of weight where its plan is not exact. */
unsigned explain_reasons(const struct traceql_stage *stages);
/* The reason of one bit in words; of none of them, what is left: comparisons that columns do not make. */
const char *explain_reason_text(enum explain_reason reason);
#define EXPLAIN_REASONS_MAX 7

#endif
