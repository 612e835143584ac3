/* The parser of what stands around expressions: filters, the operators between them, pipelines,
 * aggregates and metrics.
 *
 * Three kinds of things stand between the same operators and in the same parentheses: spansets,
 * numbers calculated from a spanset, and metrics. `(` does not tell which one follows, and
 * `({ } | count()) > 2` is a comparison while `({ } | { }) > { }` is a structure. So there is one
 * precedence climber over `struct thing`, which looks at what its operands turned out to be. A
 * pipeline, which is what a query and what parentheses hold, is a thing too. */
#include "query/traceql_eval.h"
#include "query/traceql_parse.h"

#include <math.h>
#include <stdlib.h>

#define QUANTILE_MOST 1.0
#define SERIES_MAX 1000000 /* topk and the n of compare */

enum thing_type {
    THING_NONE, /* an error, or a pipeline that ended in by(), coalesce() or select() */
    THING_SPANSET,
    THING_SCALAR,
    THING_CHECK, /* a comparison of scalars */
    THING_METRIC,
};

struct thing {
    uint8_t type; /* enum thing_type */
    uint32_t position;
    const struct traceql_spanset *spanset;
    const struct traceql_scalar *scalar;
    struct traceql_stage *check;
    struct traceql_metric *metric;
};

static const struct thing nothing;

static struct thing parse_things(struct parser *p, int least);
static struct thing parse_group(struct parser *p);

static bool is_word(const struct token *t, const char *word)
{
    return t->type == TOKEN_WORD && str_eq(t->text, str_from(word));
}

static bool take(struct parser *p, enum token_type type, const char *what)
{
    if (p->err)
        return false;
    if (p->token.type != type) {
        parser_expected(p, what);
        return false;
    }
    parser_advance(p);
    return !p->err;
}

/* ---- filters ---- */

static const struct traceql_spanset *parse_filter(struct parser *p)
{
    struct traceql_spanset *s = parser_node(p, sizeof *s);
    if (!s)
        return NULL;
    s->op = TRACEQL_FILTER;
    s->position = p->token.position;
    parser_advance(p);
    if (p->token.type != TOKEN_BRACE_CLOSE) {
        const struct traceql_expr *e = parser_expr(p, PRECEDENCE_LOWEST);
        if (!e)
            return NULL;
        if (p->token.type != TOKEN_BRACE_CLOSE)
            return parser_expected(p, "an operator or \"}\"");
        s->condition = parser_condition(p, e, "between \"{\" and \"}\"");
        if (!s->condition)
            return NULL;
    }
    parser_advance(p);
    return s;
}

/* ---- scalars ---- */

static struct traceql_scalar *scalar_new(struct parser *p, uint32_t position,
                                         enum traceql_scalar_type node, enum traceql_type type)
{
    struct traceql_scalar *s = parser_node(p, sizeof *s);
    if (s) {
        s->node = node;
        s->type = type;
        s->position = position;
    }
    return s;
}

static struct thing thing_scalar(uint32_t position, const struct traceql_scalar *scalar)
{
    return scalar ? (struct thing){.type = THING_SCALAR, .position = position, .scalar = scalar}
                  : nothing;
}

static bool refers_to_span(const struct traceql_expr *e)
{
    if (e->node == TRACEQL_LITERAL)
        return false;
    return e->node == TRACEQL_FIELD || (e->left && refers_to_span(e->left)) ||
           refers_to_span(e->right);
}

/* The expression in the parentheses of an aggregate or of by(). */
static const struct traceql_expr *parse_argument(struct parser *p)
{
    if (!take(p, TOKEN_PAREN_OPEN, "\"(\""))
        return NULL;
    uint32_t at = p->token.position;
    const struct traceql_expr *e = parser_expr(p, PRECEDENCE_LOWEST);
    if (!e)
        return NULL;
    if (!refers_to_span(e))
        return parser_fail(p, ERR_INVALID, at,
                           "expected an attribute or an intrinsic; this is the same of every span");
    /* `parent` alone is nothing but a comparison with nil. */
    if (e->type == TRACEQL_ANY && e->node == TRACEQL_FIELD && e->field > TRACEQL_LINK_ATTR)
        return parser_condition(p, e, "here");
    return take(p, TOKEN_PAREN_CLOSE, "an operator or \")\"") ? e : NULL;
}

static const struct {
    const char *word;
    uint8_t node;
} aggregates[] = {
    {"count", TRACEQL_SCALAR_COUNT}, {"min", TRACEQL_SCALAR_MIN}, {"max", TRACEQL_SCALAR_MAX},
    {"avg", TRACEQL_SCALAR_AVG},     {"sum", TRACEQL_SCALAR_SUM},
};

static const struct traceql_scalar *parse_aggregate(struct parser *p, uint8_t node)
{
    uint32_t at = p->token.position;
    parser_advance(p);
    if (node == TRACEQL_SCALAR_COUNT) {
        if (!take(p, TOKEN_PAREN_OPEN, "\"()\"") ||
            !take(p, TOKEN_PAREN_CLOSE, "\")\": count() counts spans"))
            return NULL;
        return scalar_new(p, at, node, TRACEQL_INT);
    }
    uint32_t field_at = p->token.end;
    const struct traceql_expr *field = parse_argument(p);
    if (!field)
        return NULL;
    if (field->type != TRACEQL_ANY && !traceql_type_is_number(field->type))
        return parser_fail(p, ERR_INVALID, field_at, "expected a number, found %s",
                           traceql_type_text(field->type));
    uint8_t type = field->type == TRACEQL_INT && node == TRACEQL_SCALAR_AVG ? TRACEQL_FLOAT
                                                                            : field->type;
    struct traceql_scalar *s = scalar_new(p, at, node, type);
    if (s)
        s->field = field;
    return s;
}

static struct traceql_scalar *scalar_literal(struct parser *p, uint32_t position, uint8_t type,
                                             struct value value)
{
    struct traceql_scalar *s = scalar_new(p, position, TRACEQL_SCALAR_LITERAL, type);
    if (s)
        s->literal = value;
    return s;
}

/* An operation, done at once on literals. `left` NULL: the sign. */
static const struct traceql_scalar *scalar_join(struct parser *p, uint8_t op, uint32_t at,
                                                const struct traceql_scalar *left,
                                                const struct traceql_scalar *right)
{
    uint8_t type = left ? parser_result_type(left->type, right->type) : right->type;
    if (right->node == TRACEQL_SCALAR_LITERAL && (!left || left->node == TRACEQL_SCALAR_LITERAL)) {
        struct value v;
        if (traceql_arithmetic(op, left ? &left->literal : NULL, &right->literal, &v)) {
            if (v.type == VALUE_DOUBLE && !isfinite(v.real))
                return parser_fail(p, ERR_INVALID, at, "this is not a finite number");
            return scalar_literal(p, left ? left->position : at,
                                  v.type == VALUE_DOUBLE     ? TRACEQL_FLOAT
                                  : type == TRACEQL_DURATION ? TRACEQL_DURATION
                                                             : TRACEQL_INT,
                                  v);
        }
    }
    struct traceql_scalar *s =
        scalar_new(p, at, left ? TRACEQL_SCALAR_BINARY : TRACEQL_SCALAR_UNARY, type);
    if (s) {
        s->op = op;
        s->left = left;
        s->right = right;
    }
    return s;
}

/* ---- joining things ---- */

static const char *thing_text(const struct thing *t)
{
    switch (t->type) {
    case THING_SPANSET:
        return "a set of spans";
    case THING_SCALAR:
        return "a number";
    case THING_CHECK:
        return "a comparison";
    case THING_METRIC:
        return "a metric";
    default:
        return "nothing";
    }
}

static struct thing join_spansets(struct parser *p, uint8_t op, uint32_t at,
                                  const struct thing *left, const struct thing *right)
{
    struct traceql_spanset *s = parser_node(p, sizeof *s);
    if (!s)
        return nothing;
    s->op = op;
    s->position = at;
    s->left = left->spanset;
    s->right = right->spanset;
    return (struct thing){.type = THING_SPANSET, .position = left->position, .spanset = s};
}

static struct thing compare_scalars(struct parser *p, uint8_t op, uint32_t at,
                                    const struct thing *left, const struct thing *right)
{
    const struct traceql_scalar *l = left->scalar, *r = right->scalar;
    if (op == TRACEQL_REGEX || op == TRACEQL_NOT_REGEX) {
        parser_fail(p, ERR_INVALID, at, "a number does not go with \"%s\"", traceql_op_text(op));
        return nothing;
    }
    if (l->node == TRACEQL_SCALAR_LITERAL && r->node == TRACEQL_SCALAR_LITERAL) {
        parser_fail(p, ERR_INVALID, left->position,
                    "expected an aggregate, such as count(), on one side of \"%s\"",
                    traceql_op_text(op));
        return nothing;
    }
    struct traceql_stage *stage = parser_node(p, sizeof *stage);
    if (!stage)
        return nothing;
    stage->type = TRACEQL_STAGE_SCALAR;
    stage->op = op;
    stage->position = at;
    stage->left = l;
    stage->right = r;
    return (struct thing){.type = THING_CHECK, .position = left->position, .check = stage};
}

static double number_of(const struct traceql_scalar *s)
{
    double n = s->literal.type == VALUE_INT ? (double)s->literal.integer : s->literal.real;
    return s->type == TRACEQL_DURATION ? n / 1e9 : n; /* as metrics have durations */
}

static struct traceql_metric *metric_of(struct parser *p, const struct thing *t)
{
    if (t->type == THING_METRIC)
        return t->metric;
    if (t->type != THING_SCALAR || t->scalar->node != TRACEQL_SCALAR_LITERAL)
        return parser_fail(p, ERR_INVALID, t->position, "expected a metric or a number, found %s",
                           t->type == THING_SCALAR ? "an aggregate" : thing_text(t));
    struct traceql_metric *m = parser_node(p, sizeof *m);
    if (m) {
        m->node = TRACEQL_METRIC_LITERAL;
        m->position = t->position;
        m->literal = number_of(t->scalar);
    }
    return m;
}

static struct thing join_metrics(struct parser *p, uint8_t op, uint32_t at,
                                 const struct thing *left, const struct thing *right)
{
    if (op != TRACEQL_ADD && op != TRACEQL_SUB && op != TRACEQL_MUL && op != TRACEQL_DIV) {
        parser_fail(p, ERR_INVALID, at, "metrics can be joined by + - * and / only");
        return nothing;
    }
    struct traceql_metric *l = metric_of(p, left), *r = l ? metric_of(p, right) : NULL;
    struct traceql_metric *m = r ? parser_node(p, sizeof *m) : NULL;
    if (!m)
        return nothing;
    m->node = TRACEQL_METRIC_BINARY;
    m->op = op;
    m->position = at;
    m->left = l;
    m->right = r;
    return (struct thing){.type = THING_METRIC, .position = left->position, .metric = m};
}

/* The structural operator of a token; -1: it is none. */
static int structural_op(const struct token *t)
{
    if (t->type == TOKEN_STRUCTURAL)
        return t->op;
    if (t->type != TOKEN_OP)
        return -1;
    return t->op == TRACEQL_GT          ? TRACEQL_CHILD
           : t->op == TRACEQL_LT        ? TRACEQL_PARENT
           : t->op == TRACEQL_NOT_REGEX ? TRACEQL_NOT_SIBLING
                                        : -1;
}

static struct thing thing_join(struct parser *p, const struct token *t, const struct thing *left,
                               const struct thing *right)
{
    if (left->type == THING_NONE || right->type == THING_NONE)
        return nothing;
    bool logic = t->type == TOKEN_OP && traceql_op_is_logic(t->op);
    bool sets = left->type == THING_SPANSET && right->type == THING_SPANSET;
    bool scalars = left->type == THING_SCALAR && right->type == THING_SCALAR;
    int structural = structural_op(t);
    bool comparison = t->type == TOKEN_OP && traceql_op_is_comparison(t->op);
    if (sets && logic)
        return join_spansets(p, t->op == TRACEQL_AND ? TRACEQL_SPANSET_AND : TRACEQL_SPANSET_OR,
                             t->position, left, right);
    if (sets && structural >= 0)
        return join_spansets(p, (uint8_t)structural, t->position, left, right);
    if (scalars && comparison)
        return compare_scalars(p, t->op, t->position, left, right);
    if (scalars && t->type == TOKEN_OP && !logic) {
        const struct traceql_scalar *s = scalar_join(p, t->op, t->position, left->scalar,
                                                     right->scalar);
        return thing_scalar(left->position, s);
    }
    if (t->type == TOKEN_OP && !logic && !comparison &&
        (left->type == THING_METRIC || right->type == THING_METRIC))
        return join_metrics(p, t->op, t->position, left, right);
    char found[64];
    const struct thing *odd = logic || t->type == TOKEN_STRUCTURAL
                                  ? (left->type != THING_SPANSET ? left : right)
                                  : right;
    if (logic || t->type == TOKEN_STRUCTURAL)
        parser_fail(p, ERR_INVALID, odd->position, "expected a filter { ... } %s %s, found %s",
                    odd == left ? "before" : "after", token_describe(t, found), thing_text(odd));
    else
        parser_fail(p, ERR_INVALID, t->position, "%s does not go with %s and %s",
                    token_describe(t, found), thing_text(left), thing_text(right));
    return nothing;
}

static struct thing parse_thing(struct parser *p)
{
    uint32_t at = p->token.position;
    if (p->err)
        return nothing;
    switch ((enum token_type)p->token.type) {
    case TOKEN_BRACE_OPEN: {
        const struct traceql_spanset *s = parse_filter(p);
        return s ? (struct thing){.type = THING_SPANSET, .position = at, .spanset = s} : nothing;
    }
    case TOKEN_PAREN_OPEN: {
        if (!parser_enter(p))
            return nothing;
        struct thing t = parse_group(p);
        p->depth--;
        return t;
    }
    case TOKEN_LITERAL: {
        struct token t = p->token;
        if (!traceql_type_is_number(t.literal_type))
            break;
        if (t.literal_type == TRACEQL_FLOAT && !isfinite(t.value.real)) {
            parser_fail(p, ERR_INVALID, at, "this is not a finite number");
            return nothing;
        }
        parser_advance(p);
        return thing_scalar(at, scalar_literal(p, at, t.literal_type, t.value));
    }
    case TOKEN_OP:
        if (p->token.op == TRACEQL_SUB) {
            if (!parser_enter(p))
                return nothing;
            parser_advance(p);
            struct thing t = parse_things(p, PRECEDENCE_SIGN);
            p->depth--;
            if (t.type == THING_NONE)
                return nothing;
            if (t.type != THING_SCALAR) {
                parser_fail(p, ERR_INVALID, t.position, "%s has no sign", thing_text(&t));
                return nothing;
            }
            return thing_scalar(at, scalar_join(p, TRACEQL_SUB, at, NULL, t.scalar));
        }
        break;
    case TOKEN_WORD:
        for (size_t i = 0; i < sizeof aggregates / sizeof *aggregates; i++)
            if (is_word(&p->token, aggregates[i].word))
                return thing_scalar(at, parse_aggregate(p, aggregates[i].node));
        break;
    default:
        break;
    }
    parser_expected(p, "\"{\" (a query is made of filters, such as { name = `GET /` })");
    return nothing;
}

static struct thing parse_things(struct parser *p, int least)
{
    struct thing left = parse_thing(p);
    while (left.type != THING_NONE && !p->err) {
        struct token t = p->token;
        int binds = t.type == TOKEN_STRUCTURAL ? 2 : parser_precedence(&t);
        /* What follows a metric by itself filters its samples: see parse_series. */
        if (binds < least || binds <= 0 || (left.type == THING_METRIC && binds <= 2))
            break;
        parser_advance(p);
        bool power = t.type == TOKEN_OP && t.op == TRACEQL_POW;
        if (power && !parser_enter(p))
            return nothing;
        struct thing right = parse_things(p, power ? binds : binds + 1);
        if (power)
            p->depth--;
        left = thing_join(p, &t, &left, &right);
    }
    return p->err ? nothing : left;
}

/* ---- stages ---- */

static struct traceql_stage *stage_new(struct parser *p, enum traceql_stage_type type)
{
    struct traceql_stage *s = parser_node(p, sizeof *s);
    if (s) {
        s->type = type;
        s->position = p->token.position;
    }
    return s;
}

/* `(a, b, ...)`, each an attribute or an intrinsic. */
static bool parse_fields(struct parser *p, const struct traceql_expr **fields, size_t most,
                         size_t *ret_n)
{
    size_t n = 0;
    if (!take(p, TOKEN_PAREN_OPEN, "\"(\""))
        return false;
    do {
        if (n == most) {
            parser_fail(p, ERR_TOO_LARGE, p->token.position, "more than %zu fields", most);
            return false;
        }
        if (n)
            parser_advance(p);
        fields[n] = p->err ? NULL : parser_field(p);
        if (!fields[n++])
            return false;
    } while (p->token.type == TOKEN_COMMA);
    *ret_n = n;
    return take(p, TOKEN_PAREN_CLOSE, "\",\" or \")\"");
}

enum { SELECT_MAX = 64 };

/* by(), coalesce() or select(). NULL with no error: the token begins none of them. */
static struct traceql_stage *parse_stage(struct parser *p)
{
    if (is_word(&p->token, "by")) {
        struct traceql_stage *s = stage_new(p, TRACEQL_STAGE_BY);
        parser_advance(p);
        const struct traceql_expr *e = s ? parse_argument(p) : NULL;
        if (!e)
            return NULL;
        s->fields = arena_array(&p->query->arena, 1, sizeof *s->fields);
        if (!s->fields)
            return parser_fail(p, ERR_NOMEM, s->position, "out of memory");
        s->fields[0] = e;
        s->n_fields = 1;
        return s;
    }
    if (is_word(&p->token, "coalesce")) {
        struct traceql_stage *s = stage_new(p, TRACEQL_STAGE_COALESCE);
        parser_advance(p);
        return s && take(p, TOKEN_PAREN_OPEN, "\"()\"") &&
                       take(p, TOKEN_PAREN_CLOSE, "\")\": coalesce() takes nothing")
                   ? s
                   : NULL;
    }
    if (is_word(&p->token, "select")) {
        struct traceql_stage *s = stage_new(p, TRACEQL_STAGE_SELECT);
        parser_advance(p);
        if (!s)
            return NULL;
        s->fields = arena_array(&p->query->arena, SELECT_MAX, sizeof *s->fields);
        if (!s->fields)
            return parser_fail(p, ERR_NOMEM, s->position, "out of memory");
        return parse_fields(p, s->fields, SELECT_MAX, &s->n_fields) ? s : NULL;
    }
    return NULL;
}

/* ---- metrics ---- */

static const struct {
    const char *word;
    uint8_t node;
} metrics[] = {
    {"rate", TRACEQL_RATE},
    {"count_over_time", TRACEQL_COUNT_OVER_TIME},
    {"min_over_time", TRACEQL_MIN_OVER_TIME},
    {"max_over_time", TRACEQL_MAX_OVER_TIME},
    {"avg_over_time", TRACEQL_AVG_OVER_TIME},
    {"sum_over_time", TRACEQL_SUM_OVER_TIME},
    {"quantile_over_time", TRACEQL_QUANTILE_OVER_TIME},
    {"histogram_over_time", TRACEQL_HISTOGRAM_OVER_TIME},
    {"compare", TRACEQL_COMPARE},
};

static int metric_of_word(const struct token *t)
{
    for (size_t i = 0; i < sizeof metrics / sizeof *metrics; i++)
        if (is_word(t, metrics[i].word))
            return metrics[i].node;
    return -1;
}

static bool parse_whole(struct parser *p, int64_t least, int64_t most, const char *what,
                        int64_t *ret)
{
    if (p->err)
        return false;
    if (p->token.type != TOKEN_LITERAL || p->token.literal_type != TRACEQL_INT ||
        p->token.value.integer < least || p->token.value.integer > most) {
        parser_expected(p, what);
        return false;
    }
    *ret = p->token.value.integer;
    parser_advance(p);
    return !p->err;
}

static bool parse_quantiles(struct parser *p, struct traceql_metric *m)
{
    while (!p->err && p->token.type == TOKEN_COMMA) {
        parser_advance(p);
        const struct token *t = &p->token;
        bool number = t->type == TOKEN_LITERAL &&
                      (t->literal_type == TRACEQL_INT || t->literal_type == TRACEQL_FLOAT);
        double q = !number                          ? -1
                   : t->literal_type == TRACEQL_INT ? (double)t->value.integer
                                                    : t->value.real;
        if (p->err)
            return false;
        if (!(q >= 0 && q <= QUANTILE_MOST)) {
            parser_expected(p, "a quantile from 0 to 1, such as 0.99");
            return false;
        }
        if (m->n_quantiles == TRACEQL_QUANTILES_MAX) {
            parser_fail(p, ERR_TOO_LARGE, t->position, "more than %d quantiles",
                        TRACEQL_QUANTILES_MAX);
            return false;
        }
        m->quantiles[m->n_quantiles++] = q;
        parser_advance(p);
    }
    if (!p->err && !m->n_quantiles)
        parser_expected(p, "\",\" and a quantile from 0 to 1, such as 0.99");
    return !p->err;
}

static bool parse_compare(struct parser *p, struct traceql_metric *m)
{
    m->top_n = 10;
    if (p->token.type != TOKEN_BRACE_OPEN) {
        parser_expected(p, "\"{\": the spans to compare with the others");
        return false;
    }
    m->selection = parse_filter(p);
    if (!m->selection || p->token.type != TOKEN_COMMA)
        return !p->err;
    parser_advance(p);
    if (!parse_whole(p, 1, SERIES_MAX, "how many values to show, 1 or more", &m->top_n))
        return false;
    if (p->token.type != TOKEN_COMMA)
        return true;
    parser_advance(p);
    return parse_whole(p, 1, INT64_MAX, "the start of the selection, in nanoseconds",
                       &m->start_ns) &&
           take(p, TOKEN_COMMA, "\",\" and the end of the selection") &&
           parse_whole(p, m->start_ns, INT64_MAX, "its end, in nanoseconds, after its start",
                       &m->end_ns);
}

static struct traceql_metric *parse_metric(struct parser *p, uint8_t node,
                                           const struct traceql_stage *stages)
{
    struct traceql_metric *m = parser_node(p, sizeof *m);
    if (!m)
        return NULL;
    m->node = node;
    m->stages = stages;
    m->position = p->token.position;
    parser_advance(p);
    if (!take(p, TOKEN_PAREN_OPEN, "\"(\""))
        return NULL;
    if (node == TRACEQL_COMPARE) {
        if (!parse_compare(p, m))
            return NULL;
    } else if (node != TRACEQL_RATE && node != TRACEQL_COUNT_OVER_TIME) {
        uint32_t at = p->token.position;
        m->field = parser_field(p);
        if (!m->field)
            return NULL;
        if (m->field->type != TRACEQL_ANY && !traceql_type_is_number(m->field->type))
            return parser_fail(p, ERR_INVALID, at, "expected a number, found %s",
                               traceql_type_text(m->field->type));
        if (node == TRACEQL_QUANTILE_OVER_TIME && !parse_quantiles(p, m))
            return NULL;
    }
    if (!take(p, TOKEN_PAREN_CLOSE, "\")\""))
        return NULL;
    if (node != TRACEQL_COMPARE && is_word(&p->token, "by")) {
        parser_advance(p);
        if (!parse_fields(p, m->by, TRACEQL_BY_MAX, &m->n_by))
            return NULL;
    }
    return p->err ? NULL : m;
}

static struct traceql_series_stage *series_new(struct parser *p, struct traceql_metric *m,
                                               uint8_t type)
{
    struct traceql_series_stage *s = parser_node(p, sizeof *s);
    if (!s)
        return NULL;
    s->type = type;
    const struct traceql_series_stage **at = &m->then;
    while (*at) /* parsing still owns them */
        at = (const struct traceql_series_stage **)(uintptr_t) & (*at)->next;
    *at = s;
    return s;
}

/* `| topk(5)`, `| bottomk(5)`, `> 3`, any number of them. */
static bool parse_series(struct parser *p, struct traceql_metric *m)
{
    while (!p->err) {
        if (p->token.type == TOKEN_PIPE) {
            parser_advance(p);
            bool top = is_word(&p->token, "topk");
            if (p->err || (!top && !is_word(&p->token, "bottomk"))) {
                parser_expected(p, "topk(n) or bottomk(n) after a metric");
                return false;
            }
            struct traceql_series_stage *s = series_new(p, m, top ? TRACEQL_TOPK : TRACEQL_BOTTOMK);
            parser_advance(p);
            if (!s || !take(p, TOKEN_PAREN_OPEN, "\"(\"") ||
                !parse_whole(p, 1, SERIES_MAX, "how many series, 1 or more", &s->n) ||
                !take(p, TOKEN_PAREN_CLOSE, "\")\""))
                return false;
            continue;
        }
        uint8_t op = p->token.op;
        if (p->token.type != TOKEN_OP || !traceql_op_is_comparison(op) || op == TRACEQL_REGEX ||
            op == TRACEQL_NOT_REGEX)
            break;
        parser_advance(p);
        struct thing t = parse_things(p, 3);
        if (t.type == THING_NONE)
            return false;
        if (t.type != THING_SCALAR || t.scalar->node != TRACEQL_SCALAR_LITERAL) {
            parser_fail(p, ERR_INVALID, t.position, "expected a number to compare the metric with");
            return false;
        }
        struct traceql_series_stage *s = series_new(p, m, TRACEQL_SERIES_FILTER);
        if (!s)
            return false;
        s->op = op;
        s->value = number_of(t.scalar);
    }
    return !p->err;
}

/* ---- pipelines ---- */

struct pipeline {
    struct traceql_stage *first, *last;
    size_t n;
};

static bool pipeline_add(struct pipeline *l, struct traceql_stage *s)
{
    if (!s)
        return false;
    if (l->last)
        l->last->next = s;
    else
        l->first = s;
    l->last = s;
    l->n++;
    return true;
}

/* A thing as a stage, where the pipeline goes on after it or ends. */
static bool pipeline_take(struct parser *p, struct pipeline *l, const struct thing *t)
{
    struct traceql_stage *s;
    switch (t->type) {
    case THING_SPANSET:
        s = parser_node(p, sizeof *s);
        if (!s)
            return false;
        s->type = TRACEQL_STAGE_SPANSET;
        s->position = t->position;
        s->spanset = t->spanset;
        return pipeline_add(l, s);
    case THING_CHECK:
        return pipeline_add(l, t->check);
    case THING_SCALAR:
        parser_fail(p, ERR_INVALID, t->position,
                    "expected a comparison, such as count() > 2; this is only a number");
        return false;
    default:
        return !p->err;
    }
}

/* Up to the end, or the closing parenthesis. What is left over as the last thing (`ret_last`) is a
 * scalar, a metric, or nothing. */
static bool parse_pipeline(struct parser *p, struct pipeline *l, struct thing *ret_last)
{
    struct traceql_stage *stage = parse_stage(p);
    struct thing t = nothing;
    if (p->err || (stage && !pipeline_add(l, stage)))
        return false;
    if (!stage) {
        if (metric_of_word(&p->token) >= 0) {
            char found[64];
            parser_fail(p, ERR_INVALID, p->token.position, "expected a filter before it: { } | %s",
                        token_describe(&p->token, found));
            return false;
        }
        t = parse_things(p, PRECEDENCE_LOWEST);
        if (t.type == THING_NONE)
            return false;
    }
    for (;;) {
        if (t.type == THING_METRIC) {
            *ret_last = t;
            return parse_series(p, t.metric);
        }
        if (p->err || p->token.type != TOKEN_PIPE)
            break;
        if (!pipeline_take(p, l, &t))
            return false;
        t = nothing;
        parser_advance(p);
        int metric = p->err ? -1 : metric_of_word(&p->token);
        if (metric >= 0) {
            t = (struct thing){.type = THING_METRIC, .position = p->token.position};
            t.metric = parse_metric(p, (uint8_t)metric, l->first);
            if (!t.metric)
                return false;
            continue;
        }
        stage = p->err ? NULL : parse_stage(p);
        if (p->err || (stage && !pipeline_add(l, stage)))
            return false;
        if (stage)
            continue;
        if (p->token.type == TOKEN_WORD && !is_word(&p->token, "count")) {
            bool known = false;
            for (size_t i = 0; i < sizeof aggregates / sizeof *aggregates; i++)
                known |= is_word(&p->token, aggregates[i].word);
            if (!known) {
                parser_expected(p,
                                "a stage: a filter, count() > 2, by(), coalesce(), select() or a "
                                "metric such as rate()");
                return false;
            }
        }
        t = parse_things(p, PRECEDENCE_LOWEST);
        if (t.type == THING_NONE)
            return false;
    }
    if (t.type == THING_SCALAR) {
        *ret_last = t;
        return !p->err;
    }
    *ret_last = nothing;
    return !p->err && pipeline_take(p, l, &t);
}

/* What parentheses hold. */
static struct thing parse_group(struct parser *p)
{
    uint32_t at = p->token.position;
    struct pipeline l = {0};
    struct thing last;
    parser_advance(p);
    if (!parse_pipeline(p, &l, &last))
        return nothing;
    if (!take(p, TOKEN_PAREN_CLOSE, "an operator, \"|\" or \")\""))
        return nothing;
    last.position = at;
    if (last.type == THING_METRIC || (last.type == THING_SCALAR && !l.first))
        return last;
    if (last.type == THING_SCALAR) {
        struct traceql_scalar *s = scalar_new(p, at, TRACEQL_SCALAR_PIPELINE, last.scalar->type);
        if (!s)
            return nothing;
        s->right = last.scalar;
        s->stages = l.first;
        return thing_scalar(at, s);
    }
    if (l.n == 1 && l.first->type == TRACEQL_STAGE_SPANSET)
        return (struct thing){.type = THING_SPANSET, .position = at, .spanset = l.first->spanset};
    struct traceql_spanset *s = parser_node(p, sizeof *s);
    if (!s)
        return nothing;
    s->op = TRACEQL_SPANSET_PIPELINE;
    s->position = at;
    s->stages = l.first;
    return (struct thing){.type = THING_SPANSET, .position = at, .spanset = s};
}

/* ---- hints ---- */

enum {
    HINT_BOOL = 1 << TRACEQL_BOOL,
    HINT_INT = 1 << TRACEQL_INT,
    HINT_NUMBER = 1 << TRACEQL_INT | 1 << TRACEQL_FLOAT,
    HINT_ANY = HINT_BOOL | HINT_NUMBER | 1 << TRACEQL_DURATION | 1 << TRACEQL_STRING,
};

/* Those of Tempo. Results are exact, so that a sample is never needed, and the newest come first in any case; how
 * Tempo is to do its work is of no use here, and passed over, as it does itself unless it is told otherwise. */
static const struct {
    const char *name;
    unsigned types;
} hints[] = {
    {"exemplars", HINT_BOOL | HINT_INT},
    {"most_recent", HINT_BOOL},
    {"sample", HINT_BOOL | HINT_NUMBER},
    {"trace_sample", HINT_NUMBER},
    {"span_sample", HINT_NUMBER},
    {"extrapolate", HINT_BOOL},
    {"job_size", HINT_ANY},
    {"time_overlap_cutoff", HINT_ANY},
    {"concurrent_blocks", HINT_ANY},
    {"debug", HINT_ANY},
    {"info", HINT_ANY},
    {"debug_return_in", HINT_ANY},
    {"debug_std_dev", HINT_ANY},
    {"debug_data_factor", HINT_ANY},
    {"skip_ast_transformations", HINT_ANY},
    {"spanonly_fetch", HINT_ANY},
};

/* What is neither followed nor without effect is refused, so that nobody takes an answer for what it is not. */
static void check_hint(struct parser *p, const struct traceql_hint *h, size_t name_at,
                       size_t value_at)
{
    size_t i = 0;
    while (i < sizeof hints / sizeof *hints && !str_eq(h->name, str_from(hints[i].name)))
        i++;
    if (i == sizeof hints / sizeof *hints)
        parser_fail(p, ERR_INVALID, name_at,
                    "there is no hint \"%.*s\"; exemplars, most_recent and sample are some",
                    (int)(h->name.len < 64 ? h->name.len : 64), h->name.ptr);
    else if (!(hints[i].types & 1U << h->type))
        parser_fail(p, ERR_INVALID, value_at, "the hint %s takes %s", hints[i].name,
                    hints[i].types == HINT_BOOL     ? "true or false"
                    : hints[i].types == HINT_NUMBER ? "a number"
                    : hints[i].types == HINT_ANY    ? "a number, a text, true or false"
                                                    : "a number, true or false");
    else if (str_eq(h->name, STR("extrapolate")) && h->value.boolean)
        parser_fail(p, ERR_UNSUPPORTED, name_at,
                    "spans are counted as they are here, never extrapolate=true");
}

static bool parse_hints(struct parser *p)
{
    const struct traceql_hint **at = &p->query->hints;
    while (!p->err && is_word(&p->token, "with")) {
        parser_advance(p);
        bool first = true;
        if (!take(p, TOKEN_PAREN_OPEN, "\"(\""))
            return false;
        do {
            if (!first)
                parser_advance(p);
            first = false;
            struct traceql_hint *h = parser_node(p, sizeof *h);
            if (!h)
                return false;
            h->name = p->token.text;
            size_t name_at = p->token.position;
            if (!take(p, TOKEN_WORD, "the name of a hint, such as most_recent"))
                return false;
            if (p->token.type != TOKEN_OP || p->token.op != TRACEQL_EQ) {
                parser_expected(p, "\"=\"");
                return false;
            }
            parser_advance(p);
            h->type = p->token.literal_type;
            h->value = p->token.value;
            size_t value_at = p->token.position;
            if (!take(p, TOKEN_LITERAL, "a value"))
                return false;
            if (h->type == TRACEQL_NIL || (h->type == TRACEQL_FLOAT && !isfinite(h->value.real))) {
                parser_fail(p, ERR_INVALID, p->token.position, "expected a value before it");
                return false;
            }
            check_hint(p, h, name_at, value_at);
            if (p->err)
                return false;
            while (*at)
                at = (const struct traceql_hint **)(uintptr_t) & (*at)->next;
            *at = h;
        } while (!p->err && p->token.type == TOKEN_COMMA);
        if (!take(p, TOKEN_PAREN_CLOSE, "\",\" or \")\""))
            return false;
    }
    return !p->err;
}

const struct traceql_hint *traceql_hint(const struct traceql *q, const char *name)
{
    const struct traceql_hint *h = q->hints;
    while (h && !str_eq(h->name, str_from(name)))
        h = h->next;
    return h;
}

/* ---- what needs the whole trace ---- */

static bool stages_need_trace(const struct traceql_stage *s);

static bool expr_needs_trace(const struct traceql_expr *e)
{
    if (!e || e->node == TRACEQL_LITERAL)
        return false;
    if (e->node != TRACEQL_FIELD)
        return expr_needs_trace(e->left) || expr_needs_trace(e->right);
    return e->of_parent || e->field == TRACEQL_TRACE_DURATION || e->field == TRACEQL_ROOT_NAME ||
           e->field == TRACEQL_ROOT_SERVICE ||
           (e->field >= TRACEQL_CHILD_COUNT && e->field <= TRACEQL_NESTED_PARENT);
}

static bool spanset_needs_trace(const struct traceql_spanset *s)
{
    if (s->op == TRACEQL_FILTER)
        return expr_needs_trace(s->condition);
    if (s->op == TRACEQL_SPANSET_PIPELINE)
        return stages_need_trace(s->stages);
    return s->op >= TRACEQL_CHILD || spanset_needs_trace(s->left) || spanset_needs_trace(s->right);
}

static bool stages_need_trace(const struct traceql_stage *s)
{
    for (; s; s = s->next) {
        bool needs = s->type == TRACEQL_STAGE_SCALAR ||
                     (s->type == TRACEQL_STAGE_SPANSET && spanset_needs_trace(s->spanset));
        for (size_t i = 0; i < s->n_fields; i++)
            needs |= expr_needs_trace(s->fields[i]);
        if (needs)
            return true;
    }
    return false;
}

static bool metric_needs_trace(const struct traceql_metric *m)
{
    if (m->node == TRACEQL_METRIC_LITERAL)
        return false;
    if (m->node == TRACEQL_METRIC_BINARY)
        return metric_needs_trace(m->left) || metric_needs_trace(m->right);
    bool needs = stages_need_trace(m->stages) || expr_needs_trace(m->field) ||
                 (m->selection && spanset_needs_trace(m->selection));
    for (size_t i = 0; i < m->n_by; i++)
        needs |= expr_needs_trace(m->by[i]);
    return needs;
}

/* ---- the whole ---- */

static bool parse_query(struct parser *p)
{
    struct pipeline l = {0};
    struct thing last;
    parser_advance(p);
    if (p->err || !parse_pipeline(p, &l, &last) || !parse_hints(p))
        return false;
    if (p->token.type != TOKEN_END) {
        parser_expected(p, "an operator, \"|\", with (...) or the end");
        return false;
    }
    if (last.type == THING_SCALAR)
        return pipeline_take(p, &l, &last);
    p->query->metric = last.metric;
    p->query->stages = last.metric ? NULL : l.first;
    p->query->needs_trace = last.metric ? metric_needs_trace(last.metric)
                                        : stages_need_trace(l.first);
    return true;
}

int traceql_parse(struct str text, struct traceql **ret, struct error_detail *ret_detail)
{
    struct error_detail detail = {0};
    struct error_detail *say = ret_detail ? ret_detail : &detail;
    if (text.len > TRACEQL_BYTES_MAX)
        return error_set(say, ERR_TOO_LARGE, TRACEQL_BYTES_MAX, "a query of more than %d bytes",
                         TRACEQL_BYTES_MAX);
    if (!str_is_utf8(text))
        return error_set(say, ERR_INVALID, 0, "the query is not UTF-8");
    struct traceql *q = calloc(1, sizeof *q);
    if (!q)
        return error_set(say, ERR_NOMEM, 0, "out of memory");
    q->text = arena_str(&q->arena, text);
    if (!q->text.ptr) {
        traceql_free(q);
        return error_set(say, ERR_NOMEM, 0, "out of memory");
    }
    struct parser p = {
        .lexer = {.text = q->text, .arena = &q->arena, .detail = say},
        .query = q,
        .detail = say,
    };
    if (!parse_query(&p)) {
        traceql_free(q);
        return p.err ? p.err : error_set(say, ERR_INVALID, 0, "this is not a query");
    }
    *ret = q;
    return 0;
}

void traceql_free(struct traceql *q)
{
    if (!q)
        return;
    for (struct traceql_regexes *r = q->regexes, *next; r; r = next) {
        next = r->next;
        pattern_free(r->regex);
        free(r);
    }
    arena_done(&q->arena);
    free(q);
}
