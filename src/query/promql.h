/* PromQL, the language of Prometheus: text to a syntax tree, and what the tree means of series that somebody else
 * keeps (`struct promql_source`; here those that are counted from spans, span_series.h).
 *
 * The language is that of Prometheus 3: ranges and the five minutes that a selector looks back leave their left end
 * out. Not understood, and refused with their place: native histograms and what is about them only, `info`,
 * smoothing, and what is experimental there.
 *
 * Source: prometheus, docs/querying (basics, operators, functions); its promql/parser for the grammar, and
 * promql/functions.go for how a rate is extrapolated. */
#ifndef QUERY_PROMQL_H
#define QUERY_PROMQL_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/pattern.h"

#define PROMQL_BYTES_MAX ((size_t)16 << 10)
#define PROMQL_DEPTH_MAX 100   /* of the tree */
#define PROMQL_LIST_MAX 64     /* matchers of a selector, labels or arguments of a list */
#define PROMQL_STEPS_MAX 11000 /* as Prometheus has it */
#define PROMQL_SAMPLES_MAX ((size_t)16 << 20) /* that all parts of a query come to */
#define PROMQL_MEMORY_MAX ((size_t)512 << 20) /* of one query, with its answer */
#define PROMQL_LABEL_MAX ((size_t)64 << 10)   /* of a value that a function makes */
#define PROMQL_SERIES_MAX 100000              /* of one selector */
#define PROMQL_LOOKBACK_MS (5 * 60 * 1000)

/* ---- the tree ---- */

enum promql_type { PROMQL_SCALAR = 1, PROMQL_STRING, PROMQL_VECTOR, PROMQL_MATRIX };
const char *promql_type_name(enum promql_type type); /* "instant vector" */

enum promql_node {
    PROMQL_NUMBER,
    PROMQL_TEXT,
    PROMQL_SELECTOR, /* with a range: a matrix */
    PROMQL_SUBQUERY, /* of `left` */
    PROMQL_CALL,
    PROMQL_AGGREGATE, /* of `left`; `right` is its parameter */
    PROMQL_BINARY,
    PROMQL_NEGATE, /* of `left` */
    PROMQL_PAREN,  /* of `left` */
};

enum promql_match_op { PROMQL_MATCH_EQ, PROMQL_MATCH_NE, PROMQL_MATCH_RE, PROMQL_MATCH_NRE };

struct promql_matcher {
    enum promql_match_op op;
    struct str name, value;
    struct str expression; /* of =~ and !~: as predicates have it, where . takes newlines too */
    struct pattern *pattern;
};

enum promql_op {
    PROMQL_OR,
    PROMQL_AND,
    PROMQL_UNLESS,
    PROMQL_EQ,
    PROMQL_NE,
    PROMQL_LE,
    PROMQL_LT,
    PROMQL_GE,
    PROMQL_GT,
    PROMQL_ADD,
    PROMQL_SUB,
    PROMQL_MUL,
    PROMQL_DIV,
    PROMQL_MOD,
    PROMQL_ATAN2,
    PROMQL_POW,
};

enum promql_aggregation {
    PROMQL_SUM,
    PROMQL_AVG,
    PROMQL_MIN,
    PROMQL_MAX,
    PROMQL_COUNT,
    PROMQL_GROUP,
    PROMQL_STDDEV,
    PROMQL_STDVAR,
    PROMQL_TOPK,
    PROMQL_BOTTOMK,
    PROMQL_QUANTILE,
    PROMQL_COUNT_VALUES,
};

enum promql_at { PROMQL_AT_NONE, PROMQL_AT_TIME, PROMQL_AT_START, PROMQL_AT_END };
enum promql_group { PROMQL_GROUP_NONE, PROMQL_GROUP_LEFT, PROMQL_GROUP_RIGHT };

struct promql_function;

struct promql_expr {
    uint8_t node; /* enum promql_node */
    uint8_t type; /* enum promql_type */
    uint8_t depth;
    size_t position;
    double number;
    struct str text;
    /* Of a selector, and of a subquery. */
    struct str
        name; /* of the metric, where it is written before the braces; it is in the matchers too */
    struct promql_matcher *matchers;
    size_t n_matchers;
    int64_t range_ms; /* 0: an instant */
    int64_t step_ms;  /* of a subquery; 0: the default */
    int64_t offset_ms;
    uint8_t at; /* enum promql_at */
    int64_t at_ms;
    /* Of a call. */
    const struct promql_function *function;
    struct promql_expr **args;
    size_t n_args;
    /* Of an aggregation: `labels` are those of by and without; of an operator: of on and ignoring. */
    uint8_t op; /* enum promql_aggregation, enum promql_op */
    bool without, by;
    bool on, ignoring, returns_bool;
    uint8_t group; /* enum promql_group */
    struct str *labels, *include;
    size_t n_labels, n_include;
    struct promql_expr *left, *right;
};

struct promql {
    struct arena arena;
    struct promql_expr *root;
    struct promql_pattern *patterns; /* to be freed */
};

/* ERR_INVALID and ERR_TOO_LARGE with the place and what was expected; ERR_NOMEM. */
MUST_USE int promql_parse(struct str text, struct promql **ret, struct error_detail *ret_detail);
/* Only a selector, as match[] has it. */
MUST_USE int promql_parse_selector(struct str text, struct promql **ret,
                                   struct error_detail *ret_detail);
void promql_free(struct promql *q); /* NULL is allowed */
/* A form that is parsed to the same tree. */
void promql_print(const struct promql_expr *e, struct buf *out);
bool promql_matches(const struct promql_matcher *m, struct str value);
/* Each selector of the tree, in order. */
typedef int promql_visit_fn(void *arg, const struct promql_expr *selector);
MUST_USE int promql_selectors(const struct promql_expr *e, promql_visit_fn *fn, void *arg);

/* A duration as PromQL and Prometheus's API have it: "1h30m", "5m", "1w". */
bool promql_duration_ms(struct str text, int64_t *ret);

/* As Prometheus's API writes a sample: "1.5", "+Inf", "1e+21". Returns how long it is; it is terminated. */
#define PROMQL_NUMBER_SIZE 48
size_t promql_number_text(double v, char out[PROMQL_NUMBER_SIZE]);

/* ---- labels ---- */

struct promql_label {
    struct str name, value; /* the value is not empty */
};

struct promql_labels {
    const struct promql_label *items; /* by name */
    size_t n;
};

bool promql_label_is_valid(struct str name);
/* Empty when there is none. */
struct str promql_label_get(const struct promql_labels *labels, struct str name);
int promql_labels_order(const struct promql_labels *a, const struct promql_labels *b);

/* ---- where series come from ---- */

/* "There is no sample here": a NaN that no computation makes. */
#define PROMQL_ABSENT_BITS UINT64_C(0x7ff0dead00000001)
static inline double promql_absent(void)
{
    uint64_t bits = PROMQL_ABSENT_BITS;
    double d;
    memcpy(&d, &bits, sizeof d);
    return d;
}
static inline bool promql_is_absent(double d)
{
    uint64_t bits;
    memcpy(&bits, &d, sizeof bits);
    return bits == PROMQL_ABSENT_BITS;
}

struct promql_series {
    struct promql_labels labels;
    const double *values; /* one an instant that was asked for */
    /* Of a source of counters: its first sample, which is 0. It may lie between the instants. */
    int64_t birth_ms;
};

struct promql_select {
    const struct promql_matcher *matchers;
    size_t n_matchers;
    const int64_t *instants; /* ascending, multiples of the interval */
    size_t n_instants;
};

/* Samples lie on multiples of `interval_ms`. */
struct promql_source {
    int64_t interval_ms;
    int64_t last_ms; /* the last one that has samples */
    /* All are counters that never go down and have each sample from their birth on: then only those instants
     * are asked for that the answer depends on. */
    bool counters;
    /* Those that have a sample at one of the instants, or before; by labels, each label set once. Values and labels
     * live in `arena`. ERR_TOO_LARGE, ERR_TIMEOUT, ERR_NOMEM, and what the store says. */
    int (*select)(void *arg, const struct promql_select *select, struct arena *arena,
                  struct promql_series **ret, size_t *ret_n, struct error_detail *detail);
    void *arg;
};

/* ---- answers ---- */

struct promql_question {
    const struct promql_expr *expr;
    int64_t start_ms, end_ms, step_ms; /* of an instant: both the same, and 1 */
    bool is_instant;
    uint64_t deadline_ns; /* monotonic; 0: none */
};

struct promql_answer {
    enum promql_type type;
    const int64_t *times;
    size_t n_times;
    const double *scalar; /* one a time */
    struct str text;
    struct promql_series *series; /* by labels, unless sort() or its like was asked for */
    size_t n;
};

/* Everything in the answer lives in `arena`. ERR_INVALID: it cannot be evaluated, with words; ERR_TOO_LARGE,
 * ERR_TIMEOUT, ERR_NOMEM, and what the source says. */
MUST_USE int promql_run(const struct promql_question *question, const struct promql_source *source,
                        struct arena *arena, struct promql_answer *ret,
                        struct error_detail *ret_detail);

#endif
