/* The parser of expressions, by precedence climbing; traceql_pipeline.c is that of what stands
 * around them. What it builds is already checked and simplified:
 *
 *   - types that can never compare are refused, as Tempo does;
 *   - arithmetic on literals is done, so that `duration > 2 * 100ms` compares with a literal;
 *   - an attribute where a truth value belongs becomes `attribute = true`;
 *   - a literal stands on the right of its comparison;
 *   - `parent = nil` and those comparisons of nestedSetParent with which Grafana asks for roots
 *     become TRACEQL_IS_ROOT.
 *
 * No recursion is deeper than the number of nodes, which has a limit. */
#include "query/traceql.h"

#include "query/traceql_eval.h"
#include "query/traceql_parse.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* `field` of what exists in one form of comparison only; see compare_pseudo. */
enum { PSEUDO_PARENT = 100 };

#define DEPTH_MAX 200

/* ---- errors and tokens ---- */

void *parser_fail(struct parser *p, int code, size_t position, const char *format, ...)
{
    if (p->err)
        return NULL;
    char message[sizeof p->detail->message];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    p->err = error_set(p->detail, code, position, "%s", message);
    return NULL;
}

void *parser_expected(struct parser *p, const char *what)
{
    char found[64];
    return parser_fail(p, ERR_INVALID, p->token.position, "expected %s, found %s", what,
                       token_describe(&p->token, found));
}

void parser_advance(struct parser *p)
{
    if (p->err)
        return;
    lexer_next(&p->lexer, &p->token);
    if (p->token.type == TOKEN_ERROR)
        p->err = p->lexer.err;
}

bool parser_enter(struct parser *p)
{
    if (++p->depth <= DEPTH_MAX)
        return true;
    parser_fail(p, ERR_TOO_LARGE, p->token.position, "nested deeper than %d levels", DEPTH_MAX);
    return false;
}

void *parser_node(struct parser *p, size_t size)
{
    if (p->err)
        return NULL;
    if (++p->nodes > TRACEQL_NODES_MAX)
        return parser_fail(p, ERR_TOO_LARGE, p->token.position, "more than %d operators and values",
                           TRACEQL_NODES_MAX);
    void *node = arena_zalloc(&p->query->arena, size);
    return node ? node : parser_fail(p, ERR_NOMEM, p->token.position, "out of memory");
}

/* ---- types ---- */

const char *traceql_type_text(enum traceql_type type)
{
    static const char *const texts[] = {
        [TRACEQL_ANY] = "an attribute",   [TRACEQL_NIL] = "nil",
        [TRACEQL_BOOL] = "a truth value", [TRACEQL_INT] = "a number",
        [TRACEQL_FLOAT] = "a number",     [TRACEQL_DURATION] = "a duration",
        [TRACEQL_STRING] = "a string",    [TRACEQL_STATUS] = "a status",
        [TRACEQL_KIND] = "a kind",
    };
    return texts[type];
}

bool traceql_type_is_number(enum traceql_type type)
{
    return type == TRACEQL_INT || type == TRACEQL_FLOAT || type == TRACEQL_DURATION;
}

bool traceql_op_is_logic(enum traceql_op op)
{
    return op == TRACEQL_AND || op == TRACEQL_OR;
}

bool traceql_op_is_comparison(enum traceql_op op)
{
    return op >= TRACEQL_EQ && op <= TRACEQL_NOT_REGEX;
}

static bool op_is_order(enum traceql_op op)
{
    return op >= TRACEQL_LT && op <= TRACEQL_GE;
}

static enum traceql_op op_flip(enum traceql_op op)
{
    switch (op) {
    case TRACEQL_LT:
        return TRACEQL_GT;
    case TRACEQL_LE:
        return TRACEQL_GE;
    case TRACEQL_GT:
        return TRACEQL_LT;
    case TRACEQL_GE:
        return TRACEQL_LE;
    default:
        return op;
    }
}

bool parser_comparable(struct parser *p, enum traceql_op op, uint32_t at, enum traceql_type a,
                       enum traceql_type b)
{
    if (a == TRACEQL_NIL || b == TRACEQL_NIL) {
        if (op == TRACEQL_EQ || op == TRACEQL_NE)
            return true;
        parser_fail(p, ERR_INVALID, at, "nil can be compared with = and != only");
        return false;
    }
    enum traceql_type known = a == TRACEQL_ANY ? b : a, other = a == TRACEQL_ANY ? a : b;
    if (other == TRACEQL_ANY && (known == TRACEQL_STATUS || known == TRACEQL_KIND)) {
        parser_fail(
            p, ERR_INVALID, at,
            "an attribute is never %s; the intrinsic is written without a dot: { %s = ... }",
            traceql_type_text(known), known == TRACEQL_STATUS ? "status" : "kind");
        return false;
    }
    bool same = known == other || other == TRACEQL_ANY ||
                (traceql_type_is_number(a) && traceql_type_is_number(b));
    if (!same) {
        parser_fail(p, ERR_INVALID, at, "%s cannot be compared with %s", traceql_type_text(a),
                    traceql_type_text(b));
        return false;
    }
    bool fits = known == TRACEQL_ANY || op == TRACEQL_EQ || op == TRACEQL_NE ||
                (op_is_order(op) && (traceql_type_is_number(known) || known == TRACEQL_STRING)) ||
                (!op_is_order(op) && known == TRACEQL_STRING);
    if (!fits)
        parser_fail(p, ERR_INVALID, at, "%s does not go with \"%s\"", traceql_type_text(known),
                    traceql_op_text(op));
    return fits;
}

/* ---- building expressions ---- */

static struct traceql_expr *literal_new(struct parser *p, uint32_t position, enum traceql_type type,
                                        struct value value)
{
    struct traceql_expr *e = parser_node(p, sizeof *e);
    if (!e)
        return NULL;
    e->node = TRACEQL_LITERAL;
    e->type = type;
    e->position = position;
    e->literal = value;
    return e;
}

static struct traceql_expr *bool_new(struct parser *p, uint32_t position, bool value)
{
    return literal_new(p, position, TRACEQL_BOOL,
                       (struct value){.type = VALUE_BOOL, .boolean = value});
}

static struct traceql_expr *root_new(struct parser *p, uint32_t position)
{
    struct traceql_expr *e = parser_node(p, sizeof *e);
    if (!e)
        return NULL;
    e->node = TRACEQL_FIELD;
    e->field = TRACEQL_IS_ROOT;
    e->type = TRACEQL_BOOL;
    e->position = position;
    return e;
}

static struct traceql_expr *not_new(struct parser *p, uint32_t position,
                                    const struct traceql_expr *right)
{
    struct traceql_expr *e = parser_node(p, sizeof *e);
    if (!e)
        return NULL;
    e->node = TRACEQL_UNARY;
    e->op = TRACEQL_NOT;
    e->type = TRACEQL_BOOL;
    e->position = position;
    e->right = right;
    return e;
}

static bool is_pseudo(const struct traceql_expr *e)
{
    return e->node == TRACEQL_FIELD && e->field >= PSEUDO_PARENT;
}

static bool is_nested_parent(const struct traceql_expr *e)
{
    return e->node == TRACEQL_FIELD && e->field == TRACEQL_NESTED_PARENT;
}

/* A pseudo field outside the one comparison that it is for. */
static bool refuse_pseudo(struct parser *p, const struct traceql_expr *e)
{
    if (!is_pseudo(e))
        return false;
    parser_fail(p, ERR_INVALID, e->position, "\"parent\" can be compared with nil only");
    return true;
}

/* A condition that holds for roots, for others, for all, or for none. */
static struct traceql_expr *of_roots(struct parser *p, uint32_t at, uint32_t field_at, bool root,
                                     bool child)
{
    if (root == child)
        return bool_new(p, at, root);
    struct traceql_expr *is_root = root_new(p, field_at);
    return root || !is_root ? is_root : not_new(p, at, is_root);
}

static struct traceql_expr *compare_parent(struct parser *p, enum traceql_op op, uint32_t at,
                                           const struct traceql_expr *field,
                                           const struct traceql_expr *other)
{
    if (other->type != TRACEQL_NIL || (op != TRACEQL_EQ && op != TRACEQL_NE)) {
        refuse_pseudo(p, field);
        return NULL;
    }
    return of_roots(p, at, field->position, op == TRACEQL_EQ, op == TRACEQL_NE);
}

/* nestedSetParent is -1 of a root, 0 of an orphan, 1 or more of others: whether the comparison tells
 * nothing but roots, which needs no look at the whole trace. */
static bool tells_roots(enum traceql_op op, const struct traceql_expr *right, bool *root,
                        bool *child)
{
    if (right->node != TRACEQL_LITERAL || right->type != TRACEQL_INT)
        return false;
    int64_t k = right->literal.integer;
    switch (op) {
    case TRACEQL_EQ:
        *root = k == -1, *child = false;
        return k < 0;
    case TRACEQL_NE:
        *root = k != -1, *child = true;
        return k < 0;
    case TRACEQL_LT:
        *root = -1 < k, *child = false;
        return k <= 0;
    case TRACEQL_LE:
        *root = -1 <= k, *child = false;
        return k < 0;
    case TRACEQL_GT:
        *root = -1 > k, *child = true;
        return k < 0;
    case TRACEQL_GE:
        *root = -1 >= k, *child = true;
        return k <= 0;
    default:
        return false;
    }
}

/* A truth value, as `&&`, `||`, `!` and a filter need it. */
const struct traceql_expr *parser_condition(struct parser *p, const struct traceql_expr *e,
                                            const char *where)
{
    if (!e || refuse_pseudo(p, e))
        return NULL;
    if (e->type == TRACEQL_BOOL)
        return e;
    if (e->type != TRACEQL_ANY || e->node != TRACEQL_FIELD)
        return parser_fail(p, ERR_INVALID, e->position, "expected a condition %s, found %s", where,
                           traceql_type_text(e->type));
    struct traceql_expr *truth = bool_new(p, e->position, true);
    struct traceql_expr *equal = parser_node(p, sizeof *equal);
    if (!equal)
        return NULL;
    equal->node = TRACEQL_BINARY;
    equal->op = TRACEQL_EQ;
    equal->type = TRACEQL_BOOL;
    equal->position = e->position;
    equal->of_event = e->of_event;
    equal->of_link = e->of_link;
    equal->left = e;
    equal->right = truth;
    return equal;
}

static bool regex_attach(struct parser *p, struct traceql_expr *e)
{
    if (e->right->node != TRACEQL_LITERAL || e->right->type != TRACEQL_STRING) {
        parser_fail(p, ERR_INVALID, e->right->position,
                    "expected a regular expression in quotes after \"%s\"", traceql_op_text(e->op));
        return false;
    }
    struct error_detail detail = {0};
    struct traceql_regexes *r = malloc(sizeof *r);
    if (!r) {
        parser_fail(p, ERR_NOMEM, e->position, "out of memory");
        return false;
    }
    int err = pattern_new(e->right->literal.string, &r->regex, &detail);
    if (err) {
        free(r);
        /* One for the quote; escapes before the place shift it, which only the reader minds. */
        parser_fail(p, err, e->right->position + 1 + detail.position, "%s", detail.message);
        return false;
    }
    r->next = p->query->regexes;
    p->query->regexes = r;
    e->regex = r->regex;
    return true;
}

/* Does arithmetic on literals at once. */
static struct traceql_expr *fold(struct parser *p, struct traceql_expr *e)
{
    if (!e || e->right->node != TRACEQL_LITERAL || (e->left && e->left->node != TRACEQL_LITERAL))
        return e;
    struct value result;
    if (!traceql_arithmetic(e->op, e->left ? &e->left->literal : NULL, &e->right->literal, &result))
        return e;
    if (result.type == VALUE_DOUBLE && !isfinite(result.real))
        return parser_fail(p, ERR_INVALID, e->position, "this is not a finite number");
    /* What stays whole keeps its unit. */
    enum traceql_type type = result.type == VALUE_DOUBLE   ? TRACEQL_FLOAT
                             : e->type == TRACEQL_DURATION ? TRACEQL_DURATION
                                                           : TRACEQL_INT;
    e->node = TRACEQL_LITERAL;
    e->type = type;
    e->position = e->left ? e->left->position : e->position;
    e->literal = result;
    e->left = e->right = NULL;
    return e;
}

enum traceql_type parser_result_type(enum traceql_type left, enum traceql_type right)
{
    if (left == TRACEQL_ANY || right == TRACEQL_ANY)
        return TRACEQL_ANY;
    if (left == TRACEQL_DURATION || right == TRACEQL_DURATION)
        return TRACEQL_DURATION;
    return left == TRACEQL_FLOAT || right == TRACEQL_FLOAT ? TRACEQL_FLOAT : TRACEQL_INT;
}

static const struct traceql_expr *binary_new(struct parser *p, enum traceql_op op, uint32_t at,
                                             const struct traceql_expr *left,
                                             const struct traceql_expr *right)
{
    if (!left || !right)
        return NULL;
    if (traceql_op_is_comparison(op)) {
        bool root, child;
        if (is_pseudo(left) && !is_pseudo(right))
            return compare_parent(p, op, at, left, right);
        if (is_pseudo(right) && !is_pseudo(left))
            return compare_parent(p, op, at, right, left);
        if (is_nested_parent(left) && tells_roots(op, right, &root, &child))
            return of_roots(p, at, left->position, root, child);
        if (is_nested_parent(right) && tells_roots(op_flip(op), left, &root, &child))
            return of_roots(p, at, right->position, root, child);
    }
    if (refuse_pseudo(p, left) || refuse_pseudo(p, right))
        return NULL;
    if (traceql_op_is_logic(op)) {
        left = parser_condition(p, left, op == TRACEQL_AND ? "before \"&&\"" : "before \"||\"");
        right = parser_condition(p, right, op == TRACEQL_AND ? "after \"&&\"" : "after \"||\"");
    }
    struct traceql_expr *e = parser_node(p, sizeof *e);
    if (!e)
        return NULL;
    e->node = TRACEQL_BINARY;
    e->op = op;
    e->position = at;
    e->left = left;
    e->right = right;
    if (traceql_op_is_logic(op)) {
        e->type = TRACEQL_BOOL;
        return e;
    }
    e->of_event = left->of_event || right->of_event;
    e->of_link = left->of_link || right->of_link;
    if (traceql_op_is_comparison(op)) {
        e->type = TRACEQL_BOOL;
        if (!parser_comparable(p, op, at, left->type, right->type))
            return NULL;
        if (op == TRACEQL_REGEX || op == TRACEQL_NOT_REGEX)
            return regex_attach(p, e) ? e : NULL;
        if (left->node == TRACEQL_LITERAL && right->node == TRACEQL_LITERAL) {
            /* Only nil meets itself here without a type error; both are known. */
            bool result = traceql_compare(op, &left->literal, &right->literal, NULL);
            if (left->type == TRACEQL_NIL || right->type == TRACEQL_NIL)
                result = (left->type == right->type) == (op == TRACEQL_EQ);
            return bool_new(p, at, result);
        }
        if (left->node == TRACEQL_LITERAL) {
            e->op = op_flip(op);
            e->left = right;
            e->right = left;
        }
        return e;
    }
    for (int side = 0; side < 2; side++) {
        const struct traceql_expr *operand = side ? right : left;
        if (!traceql_type_is_number(operand->type) && operand->type != TRACEQL_ANY)
            return parser_fail(p, ERR_INVALID, operand->position, "%s does not go with \"%s\"",
                               traceql_type_text(operand->type), traceql_op_text(op));
    }
    e->type = parser_result_type(left->type, right->type);
    return fold(p, e);
}

/* ---- intrinsics ---- */

static const struct {
    const char *word;
    uint8_t field, type;
} intrinsics[] = {
    {"name", TRACEQL_NAME, TRACEQL_STRING},
    {"kind", TRACEQL_SPAN_KIND, TRACEQL_KIND},
    {"status", TRACEQL_SPAN_STATUS, TRACEQL_STATUS},
    {"statusMessage", TRACEQL_STATUS_MESSAGE, TRACEQL_STRING},
    {"duration", TRACEQL_SPAN_DURATION, TRACEQL_DURATION},
    {"traceDuration", TRACEQL_TRACE_DURATION, TRACEQL_DURATION},
    {"rootName", TRACEQL_ROOT_NAME, TRACEQL_STRING},
    {"rootServiceName", TRACEQL_ROOT_SERVICE, TRACEQL_STRING},
    {"parent", PSEUDO_PARENT, TRACEQL_ANY},
    {"nestedSetLeft", TRACEQL_NESTED_LEFT, TRACEQL_INT},
    {"nestedSetRight", TRACEQL_NESTED_RIGHT, TRACEQL_INT},
    {"nestedSetParent", TRACEQL_NESTED_PARENT, TRACEQL_INT},
    {"span:childCount", TRACEQL_CHILD_COUNT, TRACEQL_INT},
    {"childCount", TRACEQL_CHILD_COUNT, TRACEQL_INT},
    {"span:name", TRACEQL_NAME, TRACEQL_STRING},
    {"span:kind", TRACEQL_SPAN_KIND, TRACEQL_KIND},
    {"span:status", TRACEQL_SPAN_STATUS, TRACEQL_STATUS},
    {"span:statusMessage", TRACEQL_STATUS_MESSAGE, TRACEQL_STRING},
    {"span:duration", TRACEQL_SPAN_DURATION, TRACEQL_DURATION},
    {"span:id", TRACEQL_SPAN_ID, TRACEQL_STRING},
    {"span:parentID", TRACEQL_PARENT_ID, TRACEQL_STRING},
    {"trace:id", TRACEQL_TRACE_ID, TRACEQL_STRING},
    {"trace:duration", TRACEQL_TRACE_DURATION, TRACEQL_DURATION},
    {"trace:rootName", TRACEQL_ROOT_NAME, TRACEQL_STRING},
    {"trace:rootService", TRACEQL_ROOT_SERVICE, TRACEQL_STRING},
    {"event:name", TRACEQL_EVENT_NAME, TRACEQL_STRING},
    {"event:timeSinceStart", TRACEQL_EVENT_SINCE_START, TRACEQL_DURATION},
    {"link:traceID", TRACEQL_LINK_TRACE_ID, TRACEQL_STRING},
    {"link:spanID", TRACEQL_LINK_SPAN_ID, TRACEQL_STRING},
    {"instrumentation:name", TRACEQL_SCOPE_NAME, TRACEQL_STRING},
    {"instrumentation:version", TRACEQL_SCOPE_VERSION, TRACEQL_STRING},
};

const char *traceql_field_word(enum traceql_field field)
{
    for (size_t i = 0; i < sizeof intrinsics / sizeof *intrinsics; i++)
        if (intrinsics[i].field == field)
            return intrinsics[i].word;
    return "";
}

static struct traceql_expr *field_new(struct parser *p, uint8_t field, uint8_t type)
{
    struct traceql_expr *e = parser_node(p, sizeof *e);
    if (!e)
        return NULL;
    e->node = TRACEQL_FIELD;
    e->field = field;
    e->type = type;
    e->position = p->token.position;
    e->key = p->token.key;
    e->of_event = field == TRACEQL_EVENT_NAME || field == TRACEQL_EVENT_SINCE_START ||
                  field == TRACEQL_EVENT_ATTR;
    e->of_link = field == TRACEQL_LINK_TRACE_ID || field == TRACEQL_LINK_SPAN_ID ||
                 field == TRACEQL_LINK_ATTR;
    e->of_parent = p->token.of_parent;
    return e;
}

static const struct traceql_expr *parse_intrinsic(struct parser *p)
{
    for (size_t i = 0; i < sizeof intrinsics / sizeof *intrinsics; i++)
        if (str_eq(p->token.text, str_from(intrinsics[i].word))) {
            const struct traceql_expr *e = field_new(p, intrinsics[i].field, intrinsics[i].type);
            parser_advance(p);
            return e;
        }
    char found[64];
    token_describe(&p->token, found);
    if (p->token.type == TOKEN_INTRINSIC)
        return parser_fail(p, ERR_INVALID, p->token.position,
                           "there is no intrinsic %s; attributes are written with a dot", found);
    return parser_fail(
        p, ERR_INVALID, p->token.position,
        "%s is not known here; attributes are written with a dot (.%.*s), strings in quotes", found,
        p->token.text.len > 40 ? 40 : (int)p->token.text.len, p->token.text.ptr);
}

/* ---- expressions ---- */

/* How tightly an operator binds; 0: it is none. */
int parser_precedence(const struct token *t)
{
    if (t->type != TOKEN_OP)
        return 0;
    switch (t->op) {
    case TRACEQL_AND:
    case TRACEQL_OR:
        return 1;
    case TRACEQL_ADD:
    case TRACEQL_SUB:
        return 3;
    case TRACEQL_NOT:
        return 0;
    case TRACEQL_MUL:
    case TRACEQL_DIV:
    case TRACEQL_MOD:
        return 5;
    case TRACEQL_POW:
        return 6;
    default:
        return 2;
    }
}
static const struct traceql_expr *parse_sign(struct parser *p)
{
    uint32_t at = p->token.position;
    enum traceql_op op = p->token.op;
    parser_advance(p);
    const struct traceql_expr *right = parser_expr(p, PRECEDENCE_SIGN);
    if (op == TRACEQL_NOT) {
        right = parser_condition(p, right, "after \"!\"");
        return right ? not_new(p, at, right) : NULL;
    }
    if (!right || refuse_pseudo(p, right))
        return NULL;
    if (!traceql_type_is_number(right->type) && right->type != TRACEQL_ANY)
        return parser_fail(p, ERR_INVALID, right->position, "%s has no sign",
                           traceql_type_text(right->type));
    struct traceql_expr *e = parser_node(p, sizeof *e);
    if (!e)
        return NULL;
    e->node = TRACEQL_UNARY;
    e->op = op;
    e->type = right->type;
    e->position = at;
    e->of_event = right->of_event;
    e->of_link = right->of_link;
    e->right = right;
    return fold(p, e);
}

static const struct traceql_expr *parse_operand(struct parser *p)
{
    const struct traceql_expr *e = NULL;
    switch (p->err ? TOKEN_ERROR : (enum token_type)p->token.type) {
    case TOKEN_LITERAL:
        if (p->token.literal_type == TRACEQL_FLOAT && !isfinite(p->token.value.real))
            return parser_fail(p, ERR_INVALID, p->token.position, "this is not a finite number");
        e = literal_new(p, p->token.position, p->token.literal_type, p->token.value);
        parser_advance(p);
        return e;
    case TOKEN_ATTRIBUTE:
        e = field_new(p, p->token.field, TRACEQL_ANY);
        parser_advance(p);
        return e;
    case TOKEN_WORD:
    case TOKEN_INTRINSIC:
        return parse_intrinsic(p);
    case TOKEN_PAREN_OPEN: {
        if (!parser_enter(p))
            return NULL;
        parser_advance(p);
        e = parser_expr(p, PRECEDENCE_LOWEST);
        p->depth--;
        if (!e)
            return NULL;
        if (p->token.type != TOKEN_PAREN_CLOSE)
            return parser_expected(p, "an operator or \")\"");
        parser_advance(p);
        return e;
    }
    case TOKEN_OP:
        if (p->token.op == TRACEQL_NOT || p->token.op == TRACEQL_SUB) {
            if (!parser_enter(p))
                return NULL;
            e = parse_sign(p);
            p->depth--;
            return e;
        }
        break;
    default:
        break;
    }
    return parser_expected(p, "an attribute (.http.method), an intrinsic (name) or a value");
}

const struct traceql_expr *parser_expr(struct parser *p, int least)
{
    const struct traceql_expr *left = parse_operand(p);
    int binds;
    while (left && !p->err && (binds = parser_precedence(&p->token)) >= least && binds > 0) {
        enum traceql_op op = p->token.op;
        uint32_t at = p->token.position;
        parser_advance(p);
        if (op == TRACEQL_POW && !parser_enter(p))
            return NULL;
        /* From the left, but powers from the right. */
        const struct traceql_expr *right = parser_expr(p, op == TRACEQL_POW ? binds : binds + 1);
        if (op == TRACEQL_POW)
            p->depth--;
        left = binary_new(p, op, at, left, right);
    }
    return p->err ? NULL : left;
}

const struct traceql_expr *parser_field(struct parser *p)
{
    const struct traceql_expr *e = NULL;
    if (p->token.type == TOKEN_ATTRIBUTE) {
        e = field_new(p, p->token.field, TRACEQL_ANY);
        parser_advance(p);
    } else if (p->token.type == TOKEN_WORD || p->token.type == TOKEN_INTRINSIC) {
        e = parse_intrinsic(p);
        if (e && refuse_pseudo(p, e))
            return NULL;
    } else {
        return parser_expected(p, "an attribute (.http.method) or an intrinsic (name)");
    }
    return p->err ? NULL : e;
}
