/* What tells the spans that a query finds from all others: of each attribute, how often each value is in the
 * one and in the other. */
#ifndef QUERY_BREAKDOWN_H
#define QUERY_BREAKDOWN_H

#include "query/traceql.h"

#define BREAKDOWN_SPANS_MAX 200000 /* that are looked at, of the found ones and of all */
#define BREAKDOWN_TRACES_MAX 1000  /* of a query that needs whole traces: the newest */
#define BREAKDOWN_KEYS_MAX 512     /* attributes */
/* Different values of an attribute, and of all of them; further ones count as having the attribute only. */
#define BREAKDOWN_VALUES_MAX 1000
#define BREAKDOWN_CELLS_MAX (64 * 1024)
#define BREAKDOWN_TEXT_MAX 256 /* bytes of a value; longer ones are not told apart */

struct breakdown {
    const struct traceql *query;         /* for traces; NULL: every span */
    const struct predicate *where;       /* and, of the same span; NULL: every span */
    uint64_t start_min_ns, start_max_ns; /* of the span's start, both included */
    size_t values_max;                   /* of an attribute in the answer */
    uint64_t timeout_ns;                 /* 0: none */
};

/* Counts of spans: among those that were found, and among all of the time. */
struct breakdown_counts {
    uint64_t found, all;
};

struct breakdown_value {
    struct value value; /* a string, a truth value or a number */
    struct breakdown_counts n;
    double difference; /* of the shares, -1 to 1: above 0 where more of the found ones have it */
};

struct breakdown_field {
    enum predicate_field
        field;      /* FIELD_NAME, FIELD_KIND, FIELD_STATUS, or an attribute of span or resource */
    struct str key; /* of attributes */
    bool is_asked;  /* the query says something of it, so that a difference is no news */
    struct breakdown_counts n;            /* spans that have it */
    uint64_t different;                   /* values that were told apart */
    bool has_more;                        /* there are values that were not */
    const struct breakdown_value *values; /* those that differ most first */
    size_t n_values;
    double difference; /* the greatest among the values, without sign */
};

struct breakdown_result {
    struct breakdown_field *fields; /* those not asked for first, then those that differ most */
    size_t n;
    struct breakdown_counts spans; /* that there are */
    struct breakdown_counts
        counted; /* that were looked at: fewer of a large store, spread over the time */
    uint64_t start_min_ns, start_max_ns;
    bool by_traces; /* found by looking at whole traces; `spans.found` is then of those looked at */
    bool is_cut;    /* there are more attributes, or more traces, than are looked at */
    struct scan_cost cost;
    uint64_t elapsed_ns;
};

/* Everything in the result lives in `arena`. The same view gives the same result. ERR_INVALID (a query for
 * series, no time), ERR_TIMEOUT, ERR_NOMEM, and what the store says. */
MUST_USE int breakdown_run(struct store_view *view, const struct breakdown *breakdown,
                           struct arena *arena, struct breakdown_result *ret,
                           struct error_detail *ret_detail);

#endif
