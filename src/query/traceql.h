/* TraceQL: text to a syntax tree, and what the tree means of a span.
 *
 * The language is Grafana Tempo's (pkg/traceql there), because its users know it. Kept from it,
 * though they surprise: `&&` and `||` have the same precedence and group from the left; `!` binds
 * tighter than a comparison; an attribute name runs on over `-`, `+`, `*` and `/`; comparing values
 * of different types is false, not an error; `!=` needs the attribute to be there.
 *
 * Understood: spanset filters `{ ... }`, combined by `&&`, `||` and parentheses; inside them the
 * logic, comparison and arithmetic operators, the intrinsics of spans, traces, events, links and
 * instrumentation scopes, and attributes of every scope but `parent.`. Anything else of the
 * language (structure, pipelines, aggregates, metrics) is refused by its name, with its place.
 *
 * The tree has room for it: a query is a tree of spansets, whose leaves are filters, whose
 * condition is a tree of expressions; structural operators are further values of
 * `traceql_spanset.op`, a pipeline is a list that starts with a spanset. */
#ifndef QUERY_TRACEQL_H
#define QUERY_TRACEQL_H

#include <regex.h>

#include "base/buf.h"
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
    uint32_t position; /* byte offset in the query: of the operator, for those that have one */
    struct str key;    /* of attributes */
    struct value literal;
    const struct traceql_expr *left, *right;
    const regex_t *regex;  /* of TRACEQL_REGEX and TRACEQL_NOT_REGEX: `right` as compiled */
    struct str regex_text; /* and as POSIX has it */
};

enum traceql_spanset_op {
    TRACEQL_FILTER,
    TRACEQL_SPANSET_AND, /* both match: the spans of both */
    TRACEQL_SPANSET_OR,  /* the spans of either */
};

struct traceql_spanset {
    uint8_t op; /* enum traceql_spanset_op */
    uint32_t position;
    const struct traceql_expr *condition; /* of a filter; NULL: every span */
    const struct traceql_spanset *left, *right;
};

struct traceql {
    struct arena arena; /* owns everything below, also a copy of the text */
    struct str text;
    const struct traceql_spanset *root;
    bool needs_trace; /* something asks for what only the whole trace can tell */
    struct traceql_regexes *regexes;
};

/* ERR_INVALID (it is not TraceQL), ERR_UNSUPPORTED (it is, but not of this version), ERR_TOO_LARGE,
 * ERR_NOMEM; `ret_detail` says what was expected and where. */
MUST_USE int traceql_parse(struct str text, struct traceql **ret, struct error_detail *ret_detail);
void traceql_free(struct traceql *q); /* NULL is allowed */

/* The query in its fully parenthesised form, which parses to the same tree. */
void traceql_print(const struct traceql *q, struct buf *out);

/* ---- meaning ---- */

/* What the intrinsics of the trace are. */
struct traceql_trace {
    struct str root_name, root_service;
    uint64_t duration_ns;
};

/* Whether a span fulfils the condition of one filter. `trace` may be NULL when the query has no
 * `needs_trace`. */
bool traceql_match(const struct traceql_expr *condition, const struct span *span,
                   const struct traceql_trace *trace);

/* Whether some filter of the query holds for this span alone: for the live tail. */
bool traceql_match_span(const struct traceql *q, const struct span *span);

/* A predicate for a scan in which every span that can be part of an answer is found: at least what
 * the filters match. With `*ret_exact` exactly those, and every one of them is an answer by itself,
 * so that nobody has to look at whole traces. NULL: no memory. */
const struct predicate *traceql_predicate(const struct traceql *q, struct arena *arena,
                                          bool *ret_exact);

/* Whether no span of such a trace can match, whatever it is: spares reading them. */
bool traceql_excludes(const struct traceql *q, const struct traceql_trace *trace,
                      struct arena *arena);

/* Whether the query can hold in one trace only, because it says which: { trace:id = "..." && ... }.
 */
bool traceql_names_trace(const struct traceql *q, struct trace_id *ret);

#endif
