/* TraceQL: text to a syntax tree, and what the tree means of a span.
 *
 * The language is Grafana Tempo's (pkg/traceql there), because its users know it. Kept from it,
 * though they surprise: `&&` and `||` have the same precedence and group from the left; `!` binds
 * tighter than a comparison; an attribute name runs on over `-`, `+`, `*` and `/`; comparing values
 * of different types is false, not an error; `!=` needs the attribute to be there.
 *
 * A query is a pipeline: a list of stages, each of which takes spansets of one trace (a spanset is
 * some of its spans) and gives spansets. The first is given all spans. Stages are expressions of
 * filters `{ ... }`, joined by logic and by structure; comparisons of aggregates; by(), coalesce()
 * and select(). A pipeline that ends in a metrics function gives series instead of traces. */
#ifndef QUERY_TRACEQL_H
#define QUERY_TRACEQL_H

#include "base/buf.h"
#include "base/pattern.h"
#include "store/store.h"

#define TRACEQL_BYTES_MAX (32 * 1024)
#define TRACEQL_NODES_MAX 1024 /* also bounds how deep anything that walks the tree may go */

/* The static type of an expression. Attributes have one only at run time. */
enum traceql_type {
    TRACEQL_ANY,
    TRACEQL_NIL,
    TRACEQL_BOOL,
    TRACEQL_INT,
    TRACEQL_FLOAT,
    TRACEQL_DURATION,
    TRACEQL_STRING,
    TRACEQL_STATUS,
    TRACEQL_KIND,
};

enum traceql_op {
    TRACEQL_AND,
    TRACEQL_OR,
    TRACEQL_NOT,
    TRACEQL_EQ,
    TRACEQL_NE,
    TRACEQL_LT,
    TRACEQL_LE,
    TRACEQL_GT,
    TRACEQL_GE,
    TRACEQL_REGEX,
    TRACEQL_NOT_REGEX,
    TRACEQL_ADD,
    TRACEQL_SUB, /* also the sign */
    TRACEQL_MUL,
    TRACEQL_DIV,
    TRACEQL_MOD,
    TRACEQL_POW,
};

enum traceql_field {
    TRACEQL_NAME,
    TRACEQL_SPAN_KIND,
    TRACEQL_SPAN_STATUS,
    TRACEQL_STATUS_MESSAGE,
    TRACEQL_SPAN_DURATION,
    TRACEQL_SPAN_ID,
    TRACEQL_PARENT_ID,
    TRACEQL_IS_ROOT, /* not written as such: `parent = nil`, `nestedSetParent < 0` */
    TRACEQL_CHILD_COUNT,
    TRACEQL_NESTED_LEFT,
    TRACEQL_NESTED_RIGHT,
    TRACEQL_NESTED_PARENT,
    TRACEQL_TRACE_ID,
    TRACEQL_TRACE_DURATION,
    TRACEQL_ROOT_NAME,
    TRACEQL_ROOT_SERVICE,
    TRACEQL_SCOPE_NAME,
    TRACEQL_SCOPE_VERSION,
    TRACEQL_EVENT_NAME,
    TRACEQL_EVENT_SINCE_START,
    TRACEQL_LINK_TRACE_ID,
    TRACEQL_LINK_SPAN_ID,
    TRACEQL_SPAN_ATTR,
    TRACEQL_RESOURCE_ATTR,
    TRACEQL_ANY_ATTR, /* the span's, else the resource's */
    TRACEQL_SCOPE_ATTR,
    TRACEQL_EVENT_ATTR,
    TRACEQL_LINK_ATTR,
};

enum traceql_expr_type {
    TRACEQL_LITERAL,
    TRACEQL_FIELD,
    TRACEQL_UNARY, /* `right` */
    TRACEQL_BINARY,
};

struct traceql_expr {
    uint8_t node; /* enum traceql_expr_type */
    uint8_t op;   /* enum traceql_op */
    uint8_t field;
    uint8_t type; /* enum traceql_type */
    /* Whether something below belongs to an event, or to a link: the comparison above then holds
     * when it holds for one of them. */
    bool of_event, of_link;
    bool of_parent;    /* a field: of the parent of the span */
    uint32_t position; /* byte offset in the query: of the operator, for those that have one */
    struct str key;    /* of attributes */
    struct value literal;
    const struct traceql_expr *left, *right;
    struct pattern *regex; /* of TRACEQL_REGEX and TRACEQL_NOT_REGEX: `right` as compiled */
};

enum traceql_spanset_op {
    TRACEQL_FILTER,
    TRACEQL_SPANSET_AND, /* both match: the spans of both */
    TRACEQL_SPANSET_OR,  /* the spans of either */
    /* Structure: the spans on the right that have the relation to some span on the left. The order
     * of the three blocks is relied upon. */
    TRACEQL_CHILD,      /* > */
    TRACEQL_PARENT,     /* < */
    TRACEQL_DESCENDANT, /* >> */
    TRACEQL_ANCESTOR,   /* << */
    TRACEQL_SIBLING,    /* ~ */
    TRACEQL_NOT_CHILD,  /* those that have it to none */
    TRACEQL_NOT_PARENT,
    TRACEQL_NOT_DESCENDANT,
    TRACEQL_NOT_ANCESTOR,
    TRACEQL_NOT_SIBLING,
    TRACEQL_UNION_CHILD, /* and the spans on the left that take part */
    TRACEQL_UNION_PARENT,
    TRACEQL_UNION_DESCENDANT,
    TRACEQL_UNION_ANCESTOR,
    TRACEQL_UNION_SIBLING,
    TRACEQL_SPANSET_PIPELINE, /* `stages`, in parentheses; its spansets together */
};

struct traceql_stage;

struct traceql_spanset {
    uint8_t op; /* enum traceql_spanset_op */
    uint32_t position;
    const struct traceql_expr *condition; /* of a filter; NULL: every span */
    const struct traceql_spanset *left, *right;
    const struct traceql_stage *stages;
};

enum traceql_scalar_type {
    TRACEQL_SCALAR_LITERAL,
    TRACEQL_SCALAR_COUNT,
    TRACEQL_SCALAR_MIN,
    TRACEQL_SCALAR_MAX,
    TRACEQL_SCALAR_AVG,
    TRACEQL_SCALAR_SUM,
    TRACEQL_SCALAR_PIPELINE, /* `right` of the spans that `stages` give */
    TRACEQL_SCALAR_UNARY,    /* the sign of `right` */
    TRACEQL_SCALAR_BINARY,
};

/* What is calculated from a spanset. */
struct traceql_scalar {
    uint8_t node; /* enum traceql_scalar_type */
    uint8_t op;   /* enum traceql_op */
    uint8_t type; /* enum traceql_type */
    uint32_t position;
    const struct traceql_expr *field; /* of an aggregate */
    struct value literal;
    const struct traceql_scalar *left, *right;
    const struct traceql_stage *stages;
};

enum traceql_stage_type {
    TRACEQL_STAGE_SPANSET,
    TRACEQL_STAGE_SCALAR, /* lets those spansets pass for which `left op right` holds */
    TRACEQL_STAGE_BY,     /* a spanset becomes one for each value of `fields[0]` */
    TRACEQL_STAGE_COALESCE,
    TRACEQL_STAGE_SELECT, /* lets all pass; the answer shows `fields` */
};

struct traceql_stage {
    uint8_t type; /* enum traceql_stage_type */
    uint8_t op;
    uint32_t position;
    const struct traceql_spanset *spanset;
    const struct traceql_scalar *left, *right;
    const struct traceql_expr **fields;
    size_t n_fields;
    const struct traceql_stage *next;
};

enum traceql_metric_type {
    TRACEQL_METRIC_LITERAL,
    TRACEQL_METRIC_BINARY, /* of the samples of series with the same labels */
    TRACEQL_RATE,
    TRACEQL_COUNT_OVER_TIME,
    TRACEQL_MIN_OVER_TIME,
    TRACEQL_MAX_OVER_TIME,
    TRACEQL_AVG_OVER_TIME,
    TRACEQL_SUM_OVER_TIME,
    TRACEQL_QUANTILE_OVER_TIME,
    TRACEQL_HISTOGRAM_OVER_TIME,
    TRACEQL_COMPARE,
};

enum traceql_series_type {
    TRACEQL_TOPK,          /* the `n` with the greatest samples, at each time */
    TRACEQL_BOTTOMK,       /* with the least */
    TRACEQL_SERIES_FILTER, /* samples for which `op value` holds */
};

/* What happens to the series of a metric, in this order. */
struct traceql_series_stage {
    uint8_t type; /* enum traceql_series_type */
    uint8_t op;
    int64_t n;
    double value;
    const struct traceql_series_stage *next;
};

#define TRACEQL_BY_MAX 8 /* fields that series are grouped by */
#define TRACEQL_QUANTILES_MAX 16

struct traceql_metric {
    uint8_t node; /* enum traceql_metric_type */
    uint8_t op;
    uint32_t position;
    double literal;
    const struct traceql_metric *left, *right;
    const struct traceql_stage *stages; /* whose spans are measured */
    const struct traceql_expr *field;
    const struct traceql_expr *by[TRACEQL_BY_MAX];
    size_t n_by;
    double quantiles[TRACEQL_QUANTILES_MAX];
    size_t n_quantiles;
    const struct traceql_spanset *selection; /* of compare: a filter */
    int64_t top_n, start_ns, end_ns;         /* start_ns 0: at any time */
    const struct traceql_series_stage *then;
};

struct traceql_hint {
    struct str name;
    uint8_t type; /* enum traceql_type */
    struct value value;
    const struct traceql_hint *next;
};

struct traceql {
    struct arena arena; /* owns everything below, also a copy of the text */
    struct str text;
    const struct traceql_stage *stages;  /* of a query for traces */
    const struct traceql_metric *metric; /* of one for series: exactly one of the two is there */
    const struct traceql_hint *hints;
    /* Something asks for what only the whole trace can tell: its root, its duration, structure,
     * aggregates. */
    bool needs_trace;
    struct traceql_regexes *regexes;
};

/* ERR_INVALID (it is not TraceQL), ERR_UNSUPPORTED (a regular expression that is not run here),
 * ERR_TOO_LARGE, ERR_NOMEM; `ret_detail` says what was expected and where. */
MUST_USE int traceql_parse(struct str text, struct traceql **ret, struct error_detail *ret_detail);
void traceql_free(struct traceql *q); /* NULL is allowed */

/* The query in its fully parenthesised form, which parses to the same tree. */
void traceql_print(const struct traceql *q, struct buf *out);
/* One field as a query would have it: `resource.service.name`. For labels. */
void traceql_print_field(const struct traceql_expr *e, struct buf *out);
/* The fields of select(), each once; with `filters` also those that filters look at. What is more than
 * TRACEQL_SHOWN_MAX is left out. */
#define TRACEQL_SHOWN_MAX 64
struct traceql_shown {
    const struct traceql_expr *fields[TRACEQL_SHOWN_MAX];
    size_t n;
};
void traceql_shown(const struct traceql *q, bool filters, struct traceql_shown *ret);
/* The hint of that name, or NULL. */
const struct traceql_hint *traceql_hint(const struct traceql *q, const char *name);

/* ---- meaning ---- */

/* How the spans of a trace hang together. The parent of a span is the first with the id that it
 * names; a span that names one that is not there, or that would be its own ancestor, is an orphan:
 * its descendants are known, its ancestors are not. */
struct traceql_tree {
    const struct span *spans;
    uint32_t n;
    uint32_t *parent;       /* place; TRACEQL_NO_PARENT */
    uint32_t *order;        /* places, each after its parent, and a subtree without gaps */
    uint32_t *left, *right; /* nested-set numbers, from 1 */
    uint32_t *children;     /* how many */
};
#define TRACEQL_NO_PARENT UINT32_MAX

/* `spans` is lent; the rest lives in `arena`. ERR_NOMEM. */
MUST_USE int traceql_tree_init(struct traceql_tree *tree, const struct span *spans, size_t n,
                               struct arena *arena);

/* What the intrinsics of the trace are. */
struct traceql_trace {
    struct str root_name, root_service;
    uint64_t duration_ns;
    const struct traceql_tree *tree; /* NULL: not known */
};

/* Whether a span fulfils the condition of one filter. `trace` may be NULL when the query has no
 * `needs_trace`. With a tree the span must be one of its spans. */
bool traceql_match(const struct traceql_expr *condition, const struct span *span,
                   const struct traceql_trace *trace);

/* Text of an id. */
struct traceql_hex {
    char text[2 * TRACE_ID_SIZE];
};
/* What a field or an arithmetic expression is of a span; VALUE_NONE: nothing. Of an event or a link:
 * of the first that has it. Strings may lie in `hex`. */
void traceql_value(const struct traceql_expr *e, const struct span *span,
                   const struct traceql_trace *trace, struct traceql_hex *hex, struct value *ret);

/* Some of the spans of a trace, and what by() and aggregates said of them. */
struct traceql_label {
    const struct traceql_expr *by; /* one of the two */
    const struct traceql_scalar *scalar;
    struct value value;
};
struct traceql_spans {
    uint8_t *marks; /* by place */
    size_t n;       /* marked; never 0 */
    struct traceql_label *labels;
    size_t n_labels;
};

/* "by(.x)", "count()": as the query has it. False: what is calculated of several has no name. */
bool traceql_print_label(const struct traceql_label *label, struct buf *out);

/* Runs the stages on one trace. `input` (NULL: all) says which of its spans may match at all; the
 * others are still there for structure. The spansets live in `arena`. ERR_NOMEM, ERR_TOO_LARGE (by()
 * would make too many groups of a huge trace). */
MUST_USE int traceql_run(const struct traceql_stage *stages, const struct traceql_trace *trace,
                         const uint8_t *input, struct arena *arena, struct traceql_spans **ret_sets,
                         size_t *ret_n);

/* Whether some filter of each stage holds for this span alone: for the live tail, and of a query for
 * traces only. */
bool traceql_match_span(const struct traceql *q, const struct span *span);

/* A predicate for a scan in which every span that can be part of an answer is found: at least what
 * the filters match. With `*ret_exact` exactly those, and every one of them is an answer by itself,
 * so that nobody has to look at whole traces. NULL: no memory. */
const struct predicate *traceql_predicate(const struct traceql_stage *stages, struct arena *arena,
                                          bool *ret_exact);

/* A query on whole traces whose filters a store can all answer: nobody has to read a span. */
#define TRACEQL_COLUMNS_MAX 8
struct traceql_columns {
    const struct traceql_stage *stages;
    size_t n;
    const struct traceql_spanset *filters[TRACEQL_COLUMNS_MAX]; /* in the tree */
    const struct predicate *predicates[TRACEQL_COLUMNS_MAX];    /* what they mean, exactly */
    /* By the set of filters that some span fulfils: whether the trace can have an answer. */
    bool wanted[1 << TRACEQL_COLUMNS_MAX];
};
/* `where` (NULL: nothing) is another condition of each span. False when the query is none of these, or there is no
 * memory. Borrows the query. */
bool traceql_columns(const struct traceql_stage *stages, const struct predicate *where,
                     struct arena *arena, struct traceql_columns *ret);
/* How many spans the query finds in a trace of n spans: `marks` has a bit for each filter that a span fulfils,
 * `parents` the place of its parent or TRACEQL_NO_PARENT. ERR_NOMEM. */
MUST_USE int traceql_columns_run(const struct traceql_columns *columns, uint32_t n,
                                 const uint8_t *marks, const uint32_t *parents, struct arena *arena,
                                 uint64_t *ret);

/* Whether no span of such a trace can match, whatever it is: spares reading them. */
bool traceql_excludes(const struct traceql_stage *stages, const struct traceql_trace *trace,
                      struct arena *arena);

/* Whether the query can hold in one trace only, because it says which: { trace:id = "..." && ... }.
 */
bool traceql_names_trace(const struct traceql *q, struct trace_id *ret);

#endif
