/* The newest traces in which spans fulfil a query. */
#ifndef QUERY_SEARCH_H
#define QUERY_SEARCH_H

#include "query/traceql.h"

#define SEARCH_LIMIT_MAX 10000

/* A place in the order of the answers: newest start first, then by id. */
struct search_place {
    uint64_t start_ns;
    struct trace_id id;
};

struct search {
    const struct traceql *query;         /* NULL: every span */
    const struct predicate *where;       /* and, of the same span; NULL: every span */
    uint64_t start_min_ns, start_max_ns; /* of the span's start, both included; max 0: no bound */
    size_t limit;                        /* traces, 1 to SEARCH_LIMIT_MAX */
    uint64_t timeout_ns;                 /* 0: none */
    /* Only traces behind this place, such as the last one of an earlier answer: the next page, of which
     * traces that came meanwhile move nothing. NULL: from the newest on. */
    const struct search_place *after;
    /* For tests: looks at whole traces also where columns would do. The result is the same. */
    bool by_traces;
};

struct search_trace {
    struct trace_summary summary;
    uint64_t matched; /* how many of its spans in the time range the query finds */
};

/* How the traces were found. */
enum search_way {
    SEARCH_BY_ID,    /* the query names its trace */
    SEARCH_BY_SPANS, /* every span that the scan found is an answer */
    SEARCH_BY_COLUMNS, /* filters and structure were decided on columns, but for traces in several parts */
    SEARCH_BY_TRACES, /* the traces of the spans that the scan found were looked at whole */
};

struct search_plan {
    enum search_way way;
    const struct predicate *const
        *columns;            /* what was asked of them: one, but by columns one a filter */
    size_t n_columns;        /* 0: every span counts */
    uint64_t traces_settled; /* of which the start of the whole trace was asked for */
};

struct search_result {
    struct search_trace *traces; /* newest start first, then by id */
    size_t n;
    bool more; /* there are others beyond the limit */
    struct search_plan plan;
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
