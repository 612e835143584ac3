/* The newest traces in which spans fulfil a query. */
#ifndef QUERY_SEARCH_H
#define QUERY_SEARCH_H

#include "query/traceql.h"

#define SEARCH_LIMIT_MAX 10000

struct search {
    const struct traceql *query;         /* NULL: every span */
    const struct predicate *where;       /* and, of the same span; NULL: every span */
    uint64_t start_min_ns, start_max_ns; /* of the span's start, both included; max 0: no bound */
    size_t limit;                        /* traces, 1 to SEARCH_LIMIT_MAX */
    uint64_t timeout_ns;                 /* 0: none */
    /* For tests: looks at whole traces also where columns would do. The result is the same. */
    bool by_traces;
};

struct search_trace {
    struct trace_summary summary;
    uint64_t matched; /* how many of its spans in the time range the query finds */
};

struct search_result {
    struct search_trace *traces; /* newest start first, then by id */
    size_t n;
    bool more; /* there are others beyond the limit */
    struct scan_cost cost;
    uint64_t traces_read; /* that had to be looked at whole */
    uint64_t elapsed_ns;
};

/* Everything in the result lives in `arena`. The same view and search give the same result.
 * ERR_INVALID (the limit, or a query for series), ERR_TIMEOUT, ERR_NOMEM, and what the store says. */
MUST_USE int search_run(struct store_view *view, const struct search *search, struct arena *arena,
                        struct search_result *ret_result, struct error_detail *ret_detail);

/* The spans of a trace, and which of them the query finds. */
struct search_spans {
    struct span_batch batch;
    struct traceql_tree tree;
    struct traceql_trace trace; /* points at `tree` */
    struct traceql_spans *sets;
    size_t n_sets;
};

/* Of a trace that search_run found, through the same view; without a query one set of what `where` and
 * the time range leave. All in `arena`. ERR_NOT_FOUND, ERR_NOMEM, and what the store says. */
MUST_USE int search_spans(struct store_view *view, const struct search *search,
                          const struct trace_summary *summary, struct arena *arena,
                          struct search_spans *ret);

#endif
