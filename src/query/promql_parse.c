/* The grammar of PromQL, by recursive descent; operators by precedence. Types are checked where a node is made, so
 * that what comes out can be evaluated. Messages say what is expected at the place. */
#include "query/promql_internal.h"

#include "base/pattern.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

struct promql_pattern {
    struct promql_pattern *next;
    struct pattern *pattern;
};

struct parser {
    struct promql_lexer lx;
    struct promql *q;
    struct arena *arena;
    struct error_detail *detail;
    int err;
    unsigned depth;
};

const char *promql_type_name(enum promql_type type)
{
    static const char *const names[] = {"", "scalar", "string", "instant vector", "range vector"};
    return names[type];
}

/* ---- small things ---- */

static int fail_at(struct parser *p, size_t position, int err, const char *message)
{
    if (!p->err)
        p->err = error_set(p->detail, err, position, "%s", message);
    return p->err;
}

static void next(struct parser *p)
{
    if (p->err)
        return;
    promql_lex(&p->lx);
    if (p->lx.token == TOKEN_ERROR)
        p->err = p->detail->code;
}

static int expected(struct parser *p, const char *what)
{
    char found[48], message[160];
    if (p->err)
        return p->err;
    if (p->lx.token == TOKEN_END)
        snprintf(found, sizeof found, "end of the query");
    else
        snprintf(found, sizeof found, "\"%.*s\"",
                 (int)(p->lx.end - p->lx.position > 24 ? 24 : p->lx.end - p->lx.position),
                 p->lx.input.ptr + p->lx.position);
    snprintf(message, sizeof message, "unexpected %s, expected %s", found, what);
    return fail_at(p, p->lx.position, ERR_INVALID, message);
}

static bool is_sign(const struct parser *p, char sign)
{
    return !p->err && p->lx.token == TOKEN_SIGN && p->lx.sign == sign;
}

static bool take_sign(struct parser *p, char sign)
{
    if (!is_sign(p, sign))
        return false;
    next(p);
    return true;
}

static bool is_word(const struct parser *p, const char *word)
{
    return !p->err && p->lx.token == TOKEN_IDENTIFIER && str_eq_nocase(p->lx.text, str_from(word));
}

static void *room(struct parser *p, size_t n)
{
    void *at = arena_zalloc(p->arena, n);
    if (!at)
        fail_at(p, p->lx.position, ERR_NOMEM, "out of memory");
    return at;
}

static struct promql_expr *make(struct parser *p, enum promql_node node, enum promql_type type,
                                size_t position)
{
    struct promql_expr *e = room(p, sizeof *e);
    if (e) {
        e->node = (uint8_t)node;
        e->type = (uint8_t)type;
        e->position = position;
    }
    return e;
}

/* After its children are there. NULL: something failed. */
static struct promql_expr *deepen(struct parser *p, struct promql_expr *e)
{
    unsigned deepest = 0;
    if (p->err || !e)
        return NULL;
    for (size_t i = 0; i < e->n_args; i++)
        deepest = e->args[i]->depth > deepest ? e->args[i]->depth : deepest;
    if (e->left && e->left->depth > deepest)
        deepest = e->left->depth;
    if (e->right && e->right->depth > deepest)
        deepest = e->right->depth;
    if (deepest == PROMQL_DEPTH_MAX) {
        p->err = error_set(p->detail, ERR_TOO_LARGE, e->position, "the query is nested too deeply");
        return NULL;
    }
    e->depth = (uint8_t)(deepest + 1);
    return e;
}

static struct promql_expr *parse_expr(struct parser *p, int least);

static const char *const aggregations[] = {
    [PROMQL_SUM] = "sum",           [PROMQL_AVG] = "avg",
    [PROMQL_MIN] = "min",           [PROMQL_MAX] = "max",
    [PROMQL_COUNT] = "count",       [PROMQL_GROUP] = "group",
    [PROMQL_STDDEV] = "stddev",     [PROMQL_STDVAR] = "stdvar",
    [PROMQL_TOPK] = "topk",         [PROMQL_BOTTOMK] = "bottomk",
    [PROMQL_QUANTILE] = "quantile", [PROMQL_COUNT_VALUES] = "count_values",
};
enum { AGGREGATIONS = sizeof aggregations / sizeof *aggregations };

static int aggregation_of(struct str word)
{
    for (int i = 0; i < AGGREGATIONS; i++)
        if (str_eq_nocase(word, str_from(aggregations[i])))
            return i;
    return -1;
}

/* ---- lists of labels ---- */

static bool is_label(struct str s)
{
    return s.len && !memchr(s.ptr, ':', s.len);
}

/* ( a, "b", c ): what it takes of labels is appended. */
static void label_list(struct parser *p, struct str **ret, size_t *ret_n)
{
    struct str items[PROMQL_LIST_MAX];
    size_t n = 0;
    if (!take_sign(p, '(')) {
        expected(p, "\"(\"");
        return;
    }
    while (!p->err && !is_sign(p, ')')) {
        bool quoted = p->lx.token == TOKEN_STRING;
        if (!quoted && (p->lx.token != TOKEN_IDENTIFIER || !is_label(p->lx.text))) {
            expected(p, "the name of a label, or \")\"");
            return;
        }
        if (n == PROMQL_LIST_MAX) {
            fail_at(p, p->lx.position, ERR_TOO_LARGE, "too many labels in a list");
            return;
        }
        items[n++] = p->lx.text;
        next(p);
        if (!take_sign(p, ',') && !is_sign(p, ')')) {
            expected(p, "\",\" or \")\"");
            return;
        }
    }
    take_sign(p, ')');
    *ret = room(p, (n + 1) * sizeof **ret);
    if (*ret && n)
        memcpy(*ret, items, n * sizeof *items);
    *ret_n = n;
}

/* ---- selectors ---- */

bool promql_matches(const struct promql_matcher *m, struct str value)
{
    switch (m->op) {
    case PROMQL_MATCH_EQ:
        return str_eq(m->value, value);
    case PROMQL_MATCH_NE:
        return !str_eq(m->value, value);
    case PROMQL_MATCH_RE:
        return pattern_match(m->pattern, value);
    default:
        return !pattern_match(m->pattern, value);
    }
}

/* As it is, for what is wrong with it; then as one in which . takes newlines, as in Prometheus 3. */
static int pattern_make(struct parser *p, struct promql_matcher *m, struct error_detail *detail)
{
    struct pattern *bare = NULL;
    int err = pattern_new(m->value, &bare, detail);
    pattern_free(bare);
    char *text = err ? NULL : arena_printf(p->arena, "(?s:%.*s)", STR_ARG(m->value));
    if (err || !text)
        return err ? err : ERR_NOMEM;
    m->expression = str_from(text);
    return pattern_new(m->expression, &m->pattern, detail);
}

static void compile(struct parser *p, struct promql_matcher *m, size_t position)
{
    struct error_detail detail = {0};
    char message[sizeof detail.message + 32];
    struct promql_pattern *kept = room(p, sizeof *kept);
    int err = !kept                                      ? ERR_NOMEM
              : memchr(m->value.ptr, '\0', m->value.len) ? ERR_INVALID
                                                         : pattern_make(p, m, &detail);
    if (err) {
        snprintf(message, sizeof message, "the regular expression: %s",
                 detail.message[0] ? detail.message : err_text(err));
        fail_at(p, position, err == ERR_NOMEM ? err : ERR_INVALID, message);
        return;
    }
    *kept = (struct promql_pattern){p->q->patterns, m->pattern};
    p->q->patterns = kept;
}

static void matcher_add(struct parser *p, struct promql_matcher *items, size_t *n,
                        struct promql_matcher m, size_t position)
{
    if (*n == PROMQL_LIST_MAX) {
        fail_at(p, position, ERR_TOO_LARGE, "too many conditions in a selector");
        return;
    }
    if (m.op == PROMQL_MATCH_RE || m.op == PROMQL_MATCH_NRE)
        compile(p, &m, position);
    items[(*n)++] = m;
}

static void name_matcher(struct parser *p, struct promql_expr *e, struct promql_matcher *items,
                         size_t *n, struct str name, size_t position)
{
    if (e->name.ptr) {
        fail_at(p, position, ERR_INVALID, "the name of the metric is set twice");
        return;
    }
    e->name = name;
    matcher_add(
        p, items, n,
        (struct promql_matcher){.op = PROMQL_MATCH_EQ, .name = STR("__name__"), .value = name},
        position);
}

static bool match_op(struct parser *p, enum promql_match_op *ret)
{
    if (is_sign(p, '='))
        *ret = PROMQL_MATCH_EQ;
    else if (p->lx.token == TOKEN_NEQ)
        *ret = PROMQL_MATCH_NE;
    else if (p->lx.token == TOKEN_RE)
        *ret = PROMQL_MATCH_RE;
    else if (p->lx.token == TOKEN_NRE)
        *ret = PROMQL_MATCH_NRE;
    else
        return false;
    return true;
}

/* One of what stands between braces. */
static void matcher_parse(struct parser *p, struct promql_expr *e, struct promql_matcher *items,
                          size_t *n)
{
    size_t position = p->lx.position;
    bool quoted = p->lx.token == TOKEN_STRING;
    struct promql_matcher m = {.name = p->lx.text};
    if (!quoted && (p->lx.token != TOKEN_IDENTIFIER || !is_label(m.name))) {
        expected(p, "the name of a label, or \"}\"");
        return;
    }
    next(p);
    if (quoted && (is_sign(p, ',') || is_sign(p, '}'))) {
        name_matcher(p, e, items, n, m.name, position);
        return;
    }
    if (p->err || !match_op(p, &m.op)) {
        expected(p, "=, !=, =~ or !~");
        return;
    }
    next(p);
    if (p->err || p->lx.token != TOKEN_STRING) {
        expected(p, "a string");
        return;
    }
    m.value = p->lx.text.len ? p->lx.text : STR("");
    if (e->name.ptr && m.op == PROMQL_MATCH_EQ && str_eq(m.name, STR("__name__"))) {
        fail_at(p, position, ERR_INVALID, "the name of the metric is set twice");
        return;
    }
    matcher_add(p, items, n, m, p->lx.position);
    next(p);
}

static bool any_needs_text(const struct promql_matcher *items, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!promql_matches(&items[i], STR("")))
            return true;
    return false;
}

/* From the name, which has been read, or from the brace on. */
static struct promql_expr *selector(struct parser *p, struct str name, size_t position)
{
    struct promql_expr *e = make(p, PROMQL_SELECTOR, PROMQL_VECTOR, position);
    struct promql_matcher items[PROMQL_LIST_MAX];
    size_t n = 0;
    if (!e)
        return NULL;
    if (name.len)
        name_matcher(p, e, items, &n, name, position);
    if (take_sign(p, '{')) {
        while (!p->err && !is_sign(p, '}')) {
            matcher_parse(p, e, items, &n);
            if (!p->err && !take_sign(p, ',') && !is_sign(p, '}'))
                expected(p, "\",\" or \"}\"");
        }
        take_sign(p, '}');
    }
    if (p->err)
        return NULL;
    if (!any_needs_text(items, n)) {
        fail_at(p, position, ERR_INVALID,
                "expected at least one condition that an empty label does not fulfil");
        return NULL;
    }
    e->matchers = room(p, n * sizeof *items);
    if (!e->matchers)
        return NULL;
    memcpy(e->matchers, items, n * sizeof *items);
    e->n_matchers = n;
    return e;
}

/* ---- ranges, offset, @ ---- */

/* A duration, or a number of seconds. */
static bool duration(struct parser *p, int64_t *ret)
{
    double ms = p->lx.number * 1000;
    if (p->err)
        return false;
    if (p->lx.token == TOKEN_DURATION) {
        *ret = p->lx.duration_ms;
    } else if (p->lx.token == TOKEN_NUMBER && ms >= 0 && ms < 0x1p58) {
        *ret = (int64_t)ms;
    } else {
        expected(p, "a duration such as 5m");
        return false;
    }
    next(p);
    return !p->err;
}

static struct promql_expr *range(struct parser *p, struct promql_expr *e)
{
    size_t position = p->lx.position;
    int64_t ms, step_ms = 0;
    next(p);
    if (!duration(p, &ms))
        return NULL;
    bool subquery = take_sign(p, ':');
    if (subquery && !is_sign(p, ']')) {
        size_t at = p->lx.position;
        if (!duration(p, &step_ms))
            return NULL;
        if (!step_ms)
            fail_at(p, at, ERR_INVALID, "the step must be above 0");
    }
    if (!take_sign(p, ']'))
        expected(p, subquery ? "\"]\"" : "\"]\" or \":\"");
    if (!p->err && !ms)
        fail_at(p, position + 1, ERR_INVALID, "the range must be above 0");
    if (p->err)
        return NULL;
    if (!subquery) {
        if (e->node != PROMQL_SELECTOR || e->type == PROMQL_MATRIX || e->offset_ms ||
            e->at != PROMQL_AT_NONE) {
            fail_at(p, position, ERR_INVALID,
                    e->node != PROMQL_SELECTOR || e->type == PROMQL_MATRIX
                        ? "a range is for selectors; of an expression, [5m:1m] is"
                        : "the range stands before offset and @");
            return NULL;
        }
        e->range_ms = ms;
        e->type = PROMQL_MATRIX;
        return e;
    }
    if (e->type != PROMQL_VECTOR) {
        fail_at(p, e->position, ERR_INVALID, "a subquery is of an instant vector only");
        return NULL;
    }
    struct promql_expr *s = make(p, PROMQL_SUBQUERY, PROMQL_MATRIX, e->position);
    if (s) {
        s->left = e;
        s->range_ms = ms;
        s->step_ms = step_ms;
    }
    return deepen(p, s);
}

static bool can_shift(struct parser *p, const struct promql_expr *e, size_t position)
{
    if (e->node == PROMQL_SELECTOR || e->node == PROMQL_SUBQUERY)
        return true;
    fail_at(p, position, ERR_INVALID, "offset and @ stand behind a selector or a subquery only");
    return false;
}

static void offset(struct parser *p, struct promql_expr *e)
{
    size_t position = p->lx.position;
    int64_t ms;
    next(p);
    bool negative = take_sign(p, '-');
    if (!negative)
        take_sign(p, '+');
    if (!duration(p, &ms) || !can_shift(p, e, position))
        return;
    if (e->offset_ms) {
        fail_at(p, position, ERR_INVALID, "offset is set twice");
        return;
    }
    e->offset_ms = negative ? -ms : ms;
}

static void at_time(struct parser *p, struct promql_expr *e)
{
    size_t position = p->lx.position;
    next(p);
    if (p->err || !can_shift(p, e, position))
        return;
    if (e->at != PROMQL_AT_NONE) {
        fail_at(p, position, ERR_INVALID, "@ is set twice");
        return;
    }
    if (is_word(p, "start") || is_word(p, "end")) {
        e->at = is_word(p, "start") ? PROMQL_AT_START : PROMQL_AT_END;
        next(p);
        if (!take_sign(p, '('))
            expected(p, "\"(\"");
        else if (!take_sign(p, ')'))
            expected(p, "\")\"");
        return;
    }
    bool negative = take_sign(p, '-');
    if (!negative)
        take_sign(p, '+');
    double ms = p->lx.number * 1000;
    if (p->err || p->lx.token != TOKEN_NUMBER) {
        expected(p, "a time in seconds, start() or end()");
        return;
    }
    if (ms >= 0x1p58) {
        fail_at(p, p->lx.position, ERR_INVALID, "the time is out of range");
        return;
    }
    e->at = PROMQL_AT_TIME;
    e->at_ms = (int64_t)round(negative ? -ms : ms);
    next(p);
}

static struct promql_expr *postfix(struct parser *p, struct promql_expr *e)
{
    while (e && !p->err) {
        if (is_sign(p, '['))
            e = range(p, e);
        else if (is_word(p, "offset"))
            offset(p, e);
        else if (is_sign(p, '@'))
            at_time(p, e);
        else
            break;
    }
    return p->err ? NULL : e;
}

/* ---- calls and aggregations ---- */

/* From the bracket on. */
static size_t arguments(struct parser *p, struct promql_expr *items[PROMQL_LIST_MAX])
{
    size_t n = 0;
    next(p);
    while (!p->err && !is_sign(p, ')')) {
        if (n == PROMQL_LIST_MAX) {
            fail_at(p, p->lx.position, ERR_TOO_LARGE, "too many arguments");
            break;
        }
        items[n++] = parse_expr(p, 0);
        if (!p->err && !take_sign(p, ',')) {
            if (!is_sign(p, ')'))
                expected(p, "\",\" or \")\"");
        } else if (is_sign(p, ')')) {
            expected(p, "an argument");
        }
    }
    take_sign(p, ')');
    return n;
}

static int wants_type(struct parser *p, const struct promql_expr *e, enum promql_type type,
                      const char *of)
{
    char message[160];
    if (p->err || e->type == type)
        return p->err;
    snprintf(message, sizeof message, "expected a value of type %s %.60s, got %s",
             promql_type_name(type), of, promql_type_name(e->type));
    return fail_at(p, e->position, ERR_INVALID, message);
}

static struct promql_expr *call(struct parser *p, struct str name, size_t position)
{
    struct promql_expr *items[PROMQL_LIST_MAX];
    char message[160];
    const struct promql_function *f = promql_function_find(name);
    if (!f) {
        snprintf(message, sizeof message, "there is no function \"%.*s\" here",
                 (int)(name.len > 60 ? 60 : name.len), name.ptr);
        fail_at(p, position, ERR_INVALID, message);
        return NULL;
    }
    size_t n = arguments(p, items);
    if (p->err)
        return NULL;
    size_t least = f->n_args - f->n_optional;
    if (n < least || (n > f->n_args && !f->variadic)) {
        snprintf(message, sizeof message, "%s() expects %s%zu argument%s, got %zu", f->name,
                 f->variadic || f->n_optional ? (n < least ? "at least " : "at most ") : "",
                 n < least ? least : (size_t)f->n_args,
                 (n < least ? least : (size_t)f->n_args) == 1 ? "" : "s", n);
        fail_at(p, position, ERR_INVALID, message);
        return NULL;
    }
    snprintf(message, sizeof message, "in a call of %s()", f->name);
    for (size_t i = 0; i < n; i++)
        wants_type(p, items[i], f->args[i < f->n_args ? i : f->n_args - 1u], message);
    struct promql_expr *e = make(p, PROMQL_CALL, f->type, position);
    if (p->err || !(e->args = room(p, (n + 1) * sizeof *items)))
        return NULL;
    e->function = f;
    if (n)
        memcpy(e->args, items, n * sizeof *items);
    e->n_args = n;
    return deepen(p, e);
}

static void grouping(struct parser *p, struct promql_expr *e)
{
    if (!is_word(p, "by") && !is_word(p, "without"))
        return;
    if (e->by || e->without) {
        fail_at(p, p->lx.position, ERR_INVALID, "by or without stands twice");
        return;
    }
    e->by = is_word(p, "by");
    e->without = !e->by;
    next(p);
    label_list(p, &e->labels, &e->n_labels);
}

static struct promql_expr *aggregation(struct parser *p, int op, size_t position)
{
    struct promql_expr *items[PROMQL_LIST_MAX];
    char message[96];
    struct promql_expr *e = make(p, PROMQL_AGGREGATE, PROMQL_VECTOR, position);
    if (!e)
        return NULL;
    e->op = (uint8_t)op;
    grouping(p, e);
    if (!is_sign(p, '(')) {
        expected(p, "\"(\"");
        return NULL;
    }
    size_t n = arguments(p, items), wanted = op >= PROMQL_TOPK ? 2 : 1;
    grouping(p, e);
    if (p->err)
        return NULL;
    if (n != wanted) {
        snprintf(message, sizeof message, "%s() expects %zu argument%s, got %zu", aggregations[op],
                 wanted, wanted == 1 ? "" : "s", n);
        fail_at(p, position, ERR_INVALID, message);
        return NULL;
    }
    snprintf(message, sizeof message, "in %s()", aggregations[op]);
    e->left = items[n - 1];
    if (wanted == 2) {
        e->right = items[0];
        wants_type(p, e->right, op == PROMQL_COUNT_VALUES ? PROMQL_STRING : PROMQL_SCALAR, message);
    }
    wants_type(p, e->left, PROMQL_VECTOR, message);
    return deepen(p, e);
}

/* ---- primaries ---- */

static struct promql_expr *number(struct parser *p, double v, size_t position)
{
    struct promql_expr *e = make(p, PROMQL_NUMBER, PROMQL_SCALAR, position);
    if (e)
        e->number = v;
    next(p);
    return e;
}

static struct promql_expr *word(struct parser *p)
{
    struct str name = p->lx.text;
    size_t position = p->lx.position;
    static const char *const reserved[] = {"bool", "on", "ignoring", "group_left", "group_right"};
    if (str_eq_nocase(name, STR("inf")) || str_eq_nocase(name, STR("nan")))
        return number(p, (name.ptr[0] | 0x20) == 'i' ? INFINITY : NAN, position);
    for (size_t i = 0; i < sizeof reserved / sizeof *reserved; i++)
        if (is_word(p, reserved[i])) {
            expected(p, "an expression");
            return NULL;
        }
    int op = aggregation_of(name);
    next(p);
    if (p->err)
        return NULL;
    if (op >= 0 && (is_sign(p, '(') || is_word(p, "by") || is_word(p, "without")))
        return aggregation(p, op, position);
    if (is_sign(p, '('))
        return call(p, name, position);
    return selector(p, name, position);
}

static struct promql_expr *primary(struct parser *p)
{
    size_t position = p->lx.position;
    struct promql_expr *e = NULL;
    if (p->err)
        return NULL;
    if (p->lx.token == TOKEN_NUMBER)
        return number(p, p->lx.number, position);
    if (p->lx.token == TOKEN_DURATION)
        return number(p, (double)p->lx.duration_ms / 1000, position);
    if (p->lx.token == TOKEN_STRING) {
        e = make(p, PROMQL_TEXT, PROMQL_STRING, position);
        if (e)
            e->text = p->lx.text.len ? p->lx.text : STR("");
        next(p);
        return e;
    }
    if (p->lx.token == TOKEN_IDENTIFIER)
        return word(p);
    if (is_sign(p, '{'))
        return selector(p, STR_NONE, position);
    if (take_sign(p, '(')) {
        struct promql_expr *inner = parse_expr(p, 0);
        if (!p->err && !take_sign(p, ')'))
            expected(p, "an operator or \")\"");
        e = p->err ? NULL : make(p, PROMQL_PAREN, inner->type, position);
        if (e)
            e->left = inner;
        return deepen(p, e);
    }
    expected(p, "an expression");
    return NULL;
}

/* ---- operators ---- */

enum { PRECEDENCE_POW = 6 };

static const struct operator_row {
    const char *text;
    uint8_t precedence;
} operators[] = {
    [PROMQL_OR] = {"or", 1}, [PROMQL_AND] = {"and", 2}, [PROMQL_UNLESS] = {"unless", 2},
    [PROMQL_EQ] = {"==", 3}, [PROMQL_NE] = {"!=", 3},   [PROMQL_LE] = {"<=", 3},
    [PROMQL_LT] = {"<", 3},  [PROMQL_GE] = {">=", 3},   [PROMQL_GT] = {">", 3},
    [PROMQL_ADD] = {"+", 4}, [PROMQL_SUB] = {"-", 4},   [PROMQL_MUL] = {"*", 5},
    [PROMQL_DIV] = {"/", 5}, [PROMQL_MOD] = {"%", 5},   [PROMQL_ATAN2] = {"atan2", 5},
    [PROMQL_POW] = {"^", 6},
};
enum { OPERATORS = sizeof operators / sizeof *operators };

/* The operator that stands here; -1: none. */
static int operator_here(const struct parser *p)
{
    if (p->err || p->lx.token == TOKEN_END || p->lx.token == TOKEN_STRING)
        return -1;
    struct str text = {p->lx.input.ptr + p->lx.position, p->lx.end - p->lx.position};
    for (int i = 0; i < OPERATORS; i++)
        if (str_eq_nocase(text, str_from(operators[i].text)))
            return i;
    return -1;
}

static void matching(struct parser *p, struct promql_expr *e)
{
    if (is_word(p, "bool")) {
        if (e->op < PROMQL_EQ || e->op > PROMQL_GT)
            fail_at(p, p->lx.position, ERR_INVALID, "bool is for comparisons only");
        e->returns_bool = true;
        next(p);
    }
    if (!is_word(p, "on") && !is_word(p, "ignoring"))
        return;
    e->on = is_word(p, "on");
    e->ignoring = !e->on;
    next(p);
    label_list(p, &e->labels, &e->n_labels);
    if (!is_word(p, "group_left") && !is_word(p, "group_right"))
        return;
    if (e->op <= PROMQL_UNLESS)
        fail_at(p, p->lx.position, ERR_INVALID, "no grouping is allowed for and, or, unless");
    e->group = is_word(p, "group_left") ? PROMQL_GROUP_LEFT : PROMQL_GROUP_RIGHT;
    size_t position = p->lx.position;
    next(p);
    if (is_sign(p, '('))
        label_list(p, &e->include, &e->n_include);
    for (size_t i = 0; !p->err && e->on && i < e->n_include; i++)
        for (size_t k = 0; k < e->n_labels; k++)
            if (str_eq(e->include[i], e->labels[k]))
                fail_at(p, position, ERR_INVALID, "a label stands in both on() and the group");
}

static int operands_check(struct parser *p, const struct promql_expr *e)
{
    const struct promql_expr *sides[] = {e->left, e->right};
    bool both_vectors = e->left->type == PROMQL_VECTOR && e->right->type == PROMQL_VECTOR;
    for (int i = 0; i < 2; i++)
        if (sides[i]->type != PROMQL_VECTOR && sides[i]->type != PROMQL_SCALAR)
            return fail_at(p, sides[i]->position, ERR_INVALID,
                           "operators are for scalars and instant vectors only");
    if (e->op <= PROMQL_UNLESS && !both_vectors)
        return fail_at(p, e->position, ERR_INVALID, "and, or, unless are for instant vectors only");
    if ((e->on || e->ignoring) && !both_vectors)
        return fail_at(p, e->position, ERR_INVALID,
                       "on and ignoring are for two instant vectors only");
    if (e->op >= PROMQL_EQ && e->op <= PROMQL_GT && !e->returns_bool &&
        e->left->type == PROMQL_SCALAR && e->right->type == PROMQL_SCALAR)
        return fail_at(p, e->position, ERR_INVALID,
                       "a comparison of two scalars is written with bool");
    return 0;
}

static struct promql_expr *unary(struct parser *p)
{
    size_t position = p->lx.position;
    bool negative = is_sign(p, '-');
    if (!negative && !is_sign(p, '+'))
        return postfix(p, primary(p));
    next(p);
    struct promql_expr *inner = parse_expr(p, PRECEDENCE_POW);
    if (p->err)
        return NULL;
    if (inner->type != PROMQL_SCALAR && inner->type != PROMQL_VECTOR) {
        fail_at(p, position, ERR_INVALID, "a sign is for scalars and instant vectors only");
        return NULL;
    }
    struct promql_expr *e = negative ? make(p, PROMQL_NEGATE, inner->type, position) : inner;
    if (e && negative)
        e->left = inner;
    return negative ? deepen(p, e) : e;
}

/* Operators that bind at least as strongly as `least`. */
static struct promql_expr *parse_expr(struct parser *p, int least)
{
    if (p->depth == PROMQL_DEPTH_MAX) {
        fail_at(p, p->lx.position, ERR_TOO_LARGE, "the query is nested too deeply");
        return NULL;
    }
    p->depth++;
    struct promql_expr *left = unary(p);
    for (int op; left && !p->err && (op = operator_here(p)) >= 0;) {
        int precedence = operators[op].precedence;
        if (precedence < least)
            break;
        struct promql_expr *e = make(p, PROMQL_BINARY, PROMQL_SCALAR, p->lx.position);
        next(p);
        if (p->err)
            break;
        e->op = (uint8_t)op;
        matching(p, e);
        e->left = left;
        e->right = parse_expr(p, op == PROMQL_POW ? precedence : precedence + 1);
        if (p->err || operands_check(p, e))
            break;
        if (e->left->type == PROMQL_VECTOR || e->right->type == PROMQL_VECTOR)
            e->type = PROMQL_VECTOR;
        left = deepen(p, e);
    }
    p->depth--;
    return p->err ? NULL : left;
}

/* ---- the whole ---- */

int promql_parse(struct str text, struct promql **ret, struct error_detail *ret_detail)
{
    struct error_detail unasked;
    struct error_detail *detail = ret_detail ? ret_detail : &unasked;
    if (text.len > PROMQL_BYTES_MAX)
        return error_set(detail, ERR_TOO_LARGE, 0, "the query is longer than %zu bytes",
                         PROMQL_BYTES_MAX);
    if (!str_is_utf8(text))
        return error_set(detail, ERR_INVALID, 0, "the query is not UTF-8");
    struct promql *q = calloc(1, sizeof *q);
    if (!q)
        return error_set(detail, ERR_NOMEM, 0, "out of memory");
    /* The tree borrows from its own copy. */
    struct str copy = arena_str(&q->arena, text);
    struct parser p = {
        .lx = {.input = copy, .arena = &q->arena, .detail = detail},
        .q = q,
        .arena = &q->arena,
        .detail = detail,
    };
    if (!copy.ptr)
        fail_at(&p, 0, ERR_NOMEM, "out of memory");
    next(&p);
    if (!p.err && p.lx.token == TOKEN_END)
        fail_at(&p, 0, ERR_INVALID, "there is no expression");
    q->root = p.err ? NULL : parse_expr(&p, 0);
    if (!p.err && p.lx.token != TOKEN_END)
        expected(&p, "an operator or the end");
    if (p.err) {
        promql_free(q);
        return p.err;
    }
    *ret = q;
    return 0;
}

int promql_parse_selector(struct str text, struct promql **ret, struct error_detail *ret_detail)
{
    struct promql *q;
    int err = promql_parse(text, &q, ret_detail);
    if (err)
        return err;
    const struct promql_expr *e = q->root;
    if (e->node != PROMQL_SELECTOR || e->range_ms || e->offset_ms || e->at != PROMQL_AT_NONE) {
        promql_free(q);
        return error_set(ret_detail, ERR_INVALID, 0,
                         "expected a selector such as name{label=\"value\"}");
    }
    *ret = q;
    return 0;
}

void promql_free(struct promql *q)
{
    if (!q)
        return;
    for (struct promql_pattern *kept = q->patterns; kept; kept = kept->next)
        pattern_free(kept->pattern);
    arena_done(&q->arena);
    free(q);
}

int promql_selectors(const struct promql_expr *e, promql_visit_fn *fn, void *arg)
{
    int err = e->node == PROMQL_SELECTOR ? fn(arg, e) : 0;
    for (size_t i = 0; !err && i < e->n_args; i++)
        err = promql_selectors(e->args[i], fn, arg);
    if (!err && e->left)
        err = promql_selectors(e->left, fn, arg);
    if (!err && e->right)
        err = promql_selectors(e->right, fn, arg);
    return err;
}

/* ---- back to text ---- */

static void put_string(struct buf *out, struct str s)
{
    buf_byte(out, '"');
    for (size_t i = 0; i < s.len; i++) {
        uint8_t c = (uint8_t)s.ptr[i];
        if (c == '"' || c == '\\')
            buf_printf(out, "\\%c", c);
        else if (c < 0x20 || c >= 0x7f)
            buf_printf(out, "\\x%02x", c);
        else
            buf_byte(out, (char)c);
    }
    buf_byte(out, '"');
}

static void put_name(struct buf *out, struct str s)
{
    bool plain = s.len && !(s.ptr[0] >= '0' && s.ptr[0] <= '9');
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        plain &= (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                 c == '_';
    }
    if (plain)
        buf_str(out, s);
    else
        put_string(out, s);
}

static void put_names(struct buf *out, const char *word, const struct str *names, size_t n)
{
    buf_printf(out, " %s (", word);
    for (size_t i = 0; i < n; i++) {
        buf_cstr(out, i ? ", " : "");
        put_name(out, names[i]);
    }
    buf_byte(out, ')');
}

static void put_duration(struct buf *out, int64_t ms)
{
    if (ms < 0)
        buf_byte(out, '-');
    uint64_t n = ms < 0 ? -(uint64_t)ms : (uint64_t)ms;
    if (n % 1000 == 0)
        buf_printf(out, "%llus", (unsigned long long)n / 1000);
    else
        buf_printf(out, "%llums", (unsigned long long)n);
}

static void put_selector(const struct promql_expr *e, struct buf *out)
{
    static const char *const ops[] = {"=", "!=", "=~", "!~"};
    buf_byte(out, '{');
    for (size_t i = 0; i < e->n_matchers; i++) {
        const struct promql_matcher *m = &e->matchers[i];
        buf_cstr(out, i ? ", " : "");
        put_name(out, m->name);
        buf_cstr(out, ops[m->op]);
        put_string(out, m->value);
    }
    buf_byte(out, '}');
}

static void put_shift(const struct promql_expr *e, struct buf *out)
{
    if (e->range_ms) {
        buf_byte(out, '[');
        put_duration(out, e->range_ms);
        if (e->node == PROMQL_SUBQUERY)
            buf_byte(out, ':');
        if (e->step_ms)
            put_duration(out, e->step_ms);
        buf_byte(out, ']');
    }
    if (e->at == PROMQL_AT_TIME)
        buf_printf(out, " @ %s%lld.%03lld", e->at_ms < 0 ? "-" : "",
                   llabs((long long)e->at_ms) / 1000, llabs((long long)e->at_ms) % 1000);
    else if (e->at != PROMQL_AT_NONE)
        buf_cstr(out, e->at == PROMQL_AT_START ? " @ start()" : " @ end()");
    if (e->offset_ms) {
        buf_cstr(out, " offset ");
        put_duration(out, e->offset_ms);
    }
}

static void put_number(double v, struct buf *out)
{
    char text[40];
    if (isnan(v) || isinf(v)) {
        buf_cstr(out, isnan(v) ? "NaN" : "Inf");
        return;
    }
    snprintf(text, sizeof text, "%.17g", v);
    buf_cstr(out, text);
}

static void put_binary(const struct promql_expr *e, struct buf *out)
{
    buf_byte(out, '(');
    promql_print(e->left, out);
    buf_printf(out, " %s", operators[e->op].text);
    if (e->returns_bool)
        buf_cstr(out, " bool");
    if (e->on || e->ignoring)
        put_names(out, e->on ? "on" : "ignoring", e->labels, e->n_labels);
    if (e->group)
        put_names(out, e->group == PROMQL_GROUP_LEFT ? "group_left" : "group_right", e->include,
                  e->n_include);
    buf_byte(out, ' ');
    promql_print(e->right, out);
    buf_byte(out, ')');
}

void promql_print(const struct promql_expr *e, struct buf *out)
{
    switch ((enum promql_node)e->node) {
    case PROMQL_NUMBER:
        put_number(e->number, out);
        break;
    case PROMQL_TEXT:
        put_string(out, e->text);
        break;
    case PROMQL_SELECTOR:
        put_selector(e, out);
        put_shift(e, out);
        break;
    case PROMQL_SUBQUERY:
        promql_print(e->left, out);
        put_shift(e, out);
        break;
    case PROMQL_CALL:
        buf_printf(out, "%s(", e->function->name);
        for (size_t i = 0; i < e->n_args; i++) {
            buf_cstr(out, i ? ", " : "");
            promql_print(e->args[i], out);
        }
        buf_byte(out, ')');
        break;
    case PROMQL_AGGREGATE:
        buf_cstr(out, aggregations[e->op]);
        if (e->by || e->without)
            put_names(out, e->by ? "by" : "without", e->labels, e->n_labels);
        buf_byte(out, '(');
        if (e->right) {
            promql_print(e->right, out);
            buf_cstr(out, ", ");
        }
        promql_print(e->left, out);
        buf_byte(out, ')');
        break;
    case PROMQL_BINARY:
        put_binary(e, out);
        break;
    case PROMQL_NEGATE:
        buf_cstr(out, "(-");
        promql_print(e->left, out);
        buf_byte(out, ')');
        break;
    case PROMQL_PAREN:
        /* Operators bring their own. */
        if (e->left->node == PROMQL_BINARY || e->left->node == PROMQL_NEGATE) {
            promql_print(e->left, out);
            break;
        }
        buf_byte(out, '(');
        promql_print(e->left, out);
        buf_byte(out, ')');
        break;
    }
}
