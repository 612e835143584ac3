/* What the files of PromQL share. Inside src/query only. */
#ifndef QUERY_PROMQL_INTERNAL_H
#define QUERY_PROMQL_INTERNAL_H

#include "query/promql.h"

/* ---- tokens (promql_lex.c) ---- */

enum promql_token {
    TOKEN_END,
    TOKEN_ERROR, /* the detail is filled */
    TOKEN_IDENTIFIER,
    TOKEN_NUMBER,
    TOKEN_DURATION,
    TOKEN_STRING,
    TOKEN_SIGN, /* `sign` says which: one of ( ) { } [ ] , : @ + - * / % ^ = */
    TOKEN_EQL,  /* == */
    TOKEN_NEQ,
    TOKEN_LTE,
    TOKEN_LSS,
    TOKEN_GTE,
    TOKEN_GTR,
    TOKEN_RE,  /* =~ */
    TOKEN_NRE, /* !~ */
};

struct promql_lexer {
    struct str input;
    size_t at;
    struct arena *arena; /* of strings with escapes */
    struct error_detail *detail;
    /* The token. */
    enum promql_token token;
    char sign;
    size_t position, end;
    struct str text; /* of an identifier, a string (unescaped) or a number as written */
    double number;
    int64_t duration_ms;
};

void promql_lex(struct promql_lexer *lx);

/* ---- functions (promql_functions.c) ---- */

#define PROMQL_ARGS_MAX 5

/* A window of samples, oldest first. */
struct promql_window {
    const int64_t *times;
    const double *values;
    size_t n;
    /* Of counters with edges only: n is 2, and so many samples lie in the window. */
    size_t n_samples;
    int64_t start_ms, end_ms; /* the start does not belong to it */
    int64_t now_ms;           /* of the step; the end but for an offset */
    const double *args;       /* of the scalar arguments, at this step */
};

typedef double promql_map_fn(double v, const double *args);
typedef double promql_window_fn(const struct promql_window *w); /* absent: no sample */

enum promql_kind {
    FUNCTION_MAP,    /* of each sample */
    FUNCTION_WINDOW, /* of each window */
    FUNCTION_DATE,   /* of each sample as a time; without argument of now */
    FUNCTION_TIME,
    FUNCTION_PI,
    FUNCTION_VECTOR,
    FUNCTION_SCALAR,
    FUNCTION_ABSENT,
    FUNCTION_ABSENT_OVER_TIME,
    FUNCTION_SORT,
    FUNCTION_SORT_DESC,
    FUNCTION_TIMESTAMP,
    FUNCTION_HISTOGRAM_QUANTILE,
    FUNCTION_LABEL_REPLACE,
    FUNCTION_LABEL_JOIN,
};

struct promql_function {
    const char *name;
    enum promql_kind kind;
    enum promql_type type;
    uint8_t args[PROMQL_ARGS_MAX]; /* enum promql_type */
    uint8_t n_args, n_optional;    /* of them, how many may be left out at the end */
    bool variadic;                 /* the last argument may be repeated */
    bool keeps_name;
    bool takes_edges; /* of counters it needs only the first and the last sample of a window */
    promql_map_fn *map;
    promql_window_fn *window;
};

const struct promql_function *promql_function_find(struct str name);

double promql_quantile(double q, double *values, size_t n); /* sorts */

/* ---- evaluation (promql_eval.c) ---- */

struct promql_set {
    struct promql_series *items; /* values: one a step */
    size_t n;
    bool in_order; /* that was asked for */
};

struct promql_run {
    const struct promql_question *question;
    const struct promql_source *source;
    struct arena *arena;
    struct error_detail *detail;
    size_t samples_left;
};

/* The steps at which something is evaluated. */
struct promql_steps {
    const int64_t *times;
    size_t n;
};

struct promql_value {
    enum promql_type type;
    double *scalar; /* one a step */
    struct str text;
    struct promql_set set;
};

MUST_USE int promql_eval(struct promql_run *run, const struct promql_expr *e,
                         const struct promql_steps *steps, struct promql_value *ret);
MUST_USE int promql_clock(struct promql_run *run);
/* What a function makes of a label; freed by it. ERR_TOO_LARGE when it is above PROMQL_LABEL_MAX. */
MUST_USE int promql_labels_set_made(struct promql_run *run, struct promql_labels *labels,
                                    struct str name, struct buf *value);
/* Room for `n` samples; NULL: too many, or no memory, and the detail says which. */
double *promql_samples(struct promql_run *run, size_t n);
MUST_USE int promql_nomem(struct promql_run *run);
/* A set of up to `n` series. */
MUST_USE int promql_set_make(struct promql_run *run, size_t n, struct promql_set *ret);
/* Series with the same labels become one; two samples at one step are an error. */
MUST_USE int promql_set_unite(struct promql_run *run, const struct promql_steps *steps,
                              struct promql_set *set);

/* Only (`keep`) those, or all but those; without the name unless it is kept. */
MUST_USE int promql_labels_pick(struct promql_run *run, const struct promql_labels *from,
                                const struct str *names, size_t n, bool keep,
                                struct promql_labels *ret);
/* With the label set to this, or gone when it is empty. */
MUST_USE int promql_labels_set(struct promql_run *run, const struct promql_labels *from,
                               struct str name, struct str value, struct promql_labels *ret);
MUST_USE int promql_labels_unnamed(struct promql_run *run, const struct promql_labels *from,
                                   struct promql_labels *ret);

/* Groups of equal labels. */
struct promql_groups {
    struct promql_labels *labels; /* of each group */
    size_t n;
    uint32_t *of;    /* by place: its group */
    uint32_t *slots; /* group + 1 */
    size_t mask;
};
MUST_USE int promql_groups_init(struct promql_run *run, size_t most, struct promql_groups *ret);
/* The group of these labels; `create` makes it, else n when there is none. */
size_t promql_group_of(struct promql_groups *g, const struct promql_labels *labels, bool create);

/* ---- operators (promql_binary.c), aggregations (promql_aggregate.c), calls (promql_call.c) ---- */

MUST_USE int promql_binary(struct promql_run *run, const struct promql_expr *e,
                           const struct promql_steps *steps, struct promql_value *ret);
MUST_USE int promql_aggregate(struct promql_run *run, const struct promql_expr *e,
                              const struct promql_steps *steps, struct promql_value *ret);
MUST_USE int promql_call(struct promql_run *run, const struct promql_expr *e,
                         const struct promql_steps *steps, struct promql_value *ret);
MUST_USE int promql_label_replace(struct promql_run *run, const struct promql_expr *e,
                                  const struct promql_steps *steps, struct promql_set *ret);
/* The newest sample of each series at each step, or (`times`) when it is of. */
MUST_USE int promql_selector(struct promql_run *run, const struct promql_expr *e,
                             const struct promql_steps *steps, bool times, struct promql_set *ret);
/* A function of windows, of a selector with a range or of a subquery. */
MUST_USE int promql_windows(struct promql_run *run, const struct promql_expr *matrix,
                            const struct promql_function *function, double *const *args,
                            size_t n_args, const struct promql_steps *steps,
                            struct promql_set *ret);
/* All samples of a selector with a range, or of a subquery, at one step. */
MUST_USE int promql_matrix(struct promql_run *run, const struct promql_expr *matrix,
                           const struct promql_steps *steps, struct promql_answer *ret);

#endif
