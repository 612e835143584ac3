/* The parser: recursive descent over spansets, precedence climbing over expressions. What it
 * builds is already checked and simplified:
 *
 *   - types that can never compare are refused, as Tempo does;
 *   - arithmetic on literals is done, so that `duration > 2 * 100ms` compares with a literal;
 *   - an attribute where a truth value belongs becomes `attribute = true`;
 *   - a literal stands on the right of its comparison;
 *   - `parent = nil` and comparisons of nestedSetParent, with which Grafana asks for roots, become
 *     TRACEQL_IS_ROOT.
 *
 * No recursion is deeper than the number of nodes, which has a limit. */
#include "query/traceql.h"

#include "query/pattern.h"
#include "query/traceql_eval.h"
#include "query/traceql_lex.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* `field` of what exists in one form of comparison only; see compare_pseudo. */
enum { PSEUDO_PARENT = 100, PSEUDO_NESTED_SET_PARENT };

#define DEPTH_MAX 200

struct traceql_regexes {
    struct traceql_regexes *next;
    regex_t regex;
};

struct parser {
    struct lexer lexer;
    struct token token; /* the one to look at */
    struct traceql *query;
    struct error_detail *detail;
    int err; /* the first error; everything returns NULL from then on */
    unsigned nodes, depth;
};

/* ---- errors and tokens ---- */

static void *fail(struct parser *p, int code, size_t position, const char *format, ...)
    PRINTF_LIKE(4, 5);

static void *fail(struct parser *p, int code, size_t position, const char *format, ...)
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

static void *fail_expected(struct parser *p, const char *what)
{
    char found[64];
    return fail(p, ERR_INVALID, p->token.position, "expected %s, found %s", what,
                token_describe(&p->token, found));
}

static void advance(struct parser *p)
{
    if (p->err)
        return;
    lexer_next(&p->lexer, &p->token);
    if (p->token.type == TOKEN_ERROR)
        p->err = p->lexer.err;
}

static bool enter(struct parser *p)
{
    if (++p->depth <= DEPTH_MAX)
        return true;
    fail(p, ERR_TOO_LARGE, p->token.position, "nested deeper than %d levels", DEPTH_MAX);
    return false;
}

static void *node_new(struct parser *p, size_t size)
{
    if (p->err)
        return NULL;
    if (++p->nodes > TRACEQL_NODES_MAX)
        return fail(p, ERR_TOO_LARGE, p->token.position, "more than %d operators and values",
                    TRACEQL_NODES_MAX);
    void *node = arena_zalloc(&p->query->arena, size);
    return node ? node : fail(p, ERR_NOMEM, p->token.position, "out of memory");
}

/* ---- types ---- */

static const char *type_text(enum traceql_type type)
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

static bool type_is_number(enum traceql_type type)
{
    return type == TRACEQL_INT || type == TRACEQL_FLOAT || type == TRACEQL_DURATION;
}

static bool op_is_logic(enum traceql_op op)
{
    return op == TRACEQL_AND || op == TRACEQL_OR;
}

static bool op_is_comparison(enum traceql_op op)
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

static bool comparison_is_typed(struct parser *p, enum traceql_op op, uint32_t at,
                                enum traceql_type a, enum traceql_type b)
{
    if (a == TRACEQL_NIL || b == TRACEQL_NIL) {
        if (op == TRACEQL_EQ || op == TRACEQL_NE)
            return true;
        fail(p, ERR_INVALID, at, "nil can be compared with = and != only");
        return false;
    }
    enum traceql_type known = a == TRACEQL_ANY ? b : a, other = a == TRACEQL_ANY ? a : b;
    if (other == TRACEQL_ANY && (known == TRACEQL_STATUS || known == TRACEQL_KIND)) {
        fail(p, ERR_INVALID, at,
             "an attribute is never %s; the intrinsic is written without a dot: { %s = ... }",
             type_text(known), known == TRACEQL_STATUS ? "status" : "kind");
        return false;
    }
    bool same = known == other || other == TRACEQL_ANY || (type_is_number(a) && type_is_number(b));
    if (!same) {
        fail(p, ERR_INVALID, at, "%s cannot be compared with %s", type_text(a), type_text(b));
        return false;
    }
    bool fits = known == TRACEQL_ANY || op == TRACEQL_EQ || op == TRACEQL_NE ||
                (op_is_order(op) && (type_is_number(known) || known == TRACEQL_STRING)) ||
                (!op_is_order(op) && known == TRACEQL_STRING);
    if (!fits)
        fail(p, ERR_INVALID, at, "%s does not go with \"%s\"", type_text(known),
             traceql_op_text(op));
    return fits;
}

/* ---- building expressions ---- */

static struct traceql_expr *literal_new(struct parser *p, uint32_t position, enum traceql_type type,
                                        struct value value)
{
    struct traceql_expr *e = node_new(p, sizeof *e);
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
    struct traceql_expr *e = node_new(p, sizeof *e);
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
    struct traceql_expr *e = node_new(p, sizeof *e);
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

/* A pseudo field outside the one comparison that it is for. */
static bool refuse_pseudo(struct parser *p, const struct traceql_expr *e)
{
    if (!is_pseudo(e))
        return false;
    if (e->field == PSEUDO_PARENT)
        fail(p, ERR_INVALID, e->position, "\"parent\" can be compared with nil only");
    else
        fail(p, ERR_UNSUPPORTED, e->position,
             "\"nestedSetParent\" is supported only to tell roots: nestedSetParent < 0");
    return true;
}

static struct traceql_expr *compare_pseudo(struct parser *p, enum traceql_op op, uint32_t at,
                                           const struct traceql_expr *field,
                                           const struct traceql_expr *other)
{
    bool root, child;
    if (field->field == PSEUDO_PARENT) {
        if (other->type != TRACEQL_NIL || (op != TRACEQL_EQ && op != TRACEQL_NE)) {
            refuse_pseudo(p, field);
            return NULL;
        }
        root = op == TRACEQL_EQ;
        child = !root;
    } else {
        /* A root's is -1, any other's is 1 or more: the comparison must not depend on which. */
        if (other->node != TRACEQL_LITERAL || other->type != TRACEQL_INT) {
            refuse_pseudo(p, field);
            return NULL;
        }
        int64_t k = other->literal.integer;
        bool known;
        switch (op) {
        case TRACEQL_EQ:
            root = k == -1, child = false, known = k < 1;
            break;
        case TRACEQL_NE:
            root = k != -1, child = true, known = k < 1;
            break;
        case TRACEQL_LT:
            root = -1 < k, child = false, known = k <= 1;
            break;
        case TRACEQL_LE:
            root = -1 <= k, child = false, known = k < 1;
            break;
        case TRACEQL_GT:
            root = -1 > k, child = true, known = k < 1;
            break;
        case TRACEQL_GE:
            root = -1 >= k, child = true, known = k <= 1;
            break;
        default:
            return fail(p, ERR_INVALID, at, "a number does not go with \"%s\"",
                        traceql_op_text(op));
        }
        if (!known) {
            refuse_pseudo(p, field);
            return NULL;
        }
    }
    if (root == child)
        return bool_new(p, at, root);
    struct traceql_expr *is_root = root_new(p, field->position);
    return root || !is_root ? is_root : not_new(p, at, is_root);
}

/* A truth value, as `&&`, `||`, `!` and a filter need it. */
static const struct traceql_expr *condition_of(struct parser *p, const struct traceql_expr *e,
                                               const char *where)
{
    if (!e || refuse_pseudo(p, e))
        return NULL;
    if (e->type == TRACEQL_BOOL)
        return e;
    if (e->type != TRACEQL_ANY || e->node != TRACEQL_FIELD)
        return fail(p, ERR_INVALID, e->position, "expected a condition %s, found %s", where,
                    type_text(e->type));
    struct traceql_expr *truth = bool_new(p, e->position, true);
    struct traceql_expr *equal = node_new(p, sizeof *equal);
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
        fail(p, ERR_INVALID, e->right->position,
             "expected a regular expression in quotes after \"%s\"", traceql_op_text(e->op));
        return false;
    }
    struct error_detail detail = {0};
    int err = pattern_to_posix(e->right->literal.string, &p->query->arena, &e->regex_text, &detail);
    if (err) {
        /* One for the quote; escapes before the place shift it, which only the reader minds. */
        fail(p, err, e->right->position + 1 + detail.position, "%s", detail.message);
        return false;
    }
    struct traceql_regexes *r = malloc(sizeof *r);
    if (!r || pattern_compile(e->regex_text, &r->regex)) {
        free(r);
        fail(p, ERR_NOMEM, e->position, "out of memory");
        return false;
    }
    r->next = p->query->regexes;
    p->query->regexes = r;
    e->regex = &r->regex;
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
        return fail(p, ERR_INVALID, e->position, "this is not a finite number");
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

static const struct traceql_expr *binary_new(struct parser *p, enum traceql_op op, uint32_t at,
                                             const struct traceql_expr *left,
                                             const struct traceql_expr *right)
{
    if (!left || !right)
        return NULL;
    if (op_is_comparison(op)) {
        if (is_pseudo(left) && !is_pseudo(right))
            return compare_pseudo(p, op, at, left, right);
        if (is_pseudo(right) && !is_pseudo(left))
            return compare_pseudo(p, op_flip(op), at, right, left);
    }
    if (refuse_pseudo(p, left) || refuse_pseudo(p, right))
        return NULL;
    if (op_is_logic(op)) {
        left = condition_of(p, left, op == TRACEQL_AND ? "before \"&&\"" : "before \"||\"");
        right = condition_of(p, right, op == TRACEQL_AND ? "after \"&&\"" : "after \"||\"");
    }
    struct traceql_expr *e = node_new(p, sizeof *e);
    if (!e)
        return NULL;
    e->node = TRACEQL_BINARY;
    e->op = op;
    e->position = at;
    e->left = left;
    e->right = right;
    if (op_is_logic(op)) {
        e->type = TRACEQL_BOOL;
        return e;
    }
    e->of_event = left->of_event || right->of_event;
    e->of_link = left->of_link || right->of_link;
    if (op_is_comparison(op)) {
        e->type = TRACEQL_BOOL;
        if (!comparison_is_typed(p, op, at, left->type, right->type))
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
        if (!type_is_number(operand->type) && operand->type != TRACEQL_ANY)
            return fail(p, ERR_INVALID, operand->position, "%s does not go with \"%s\"",
                        type_text(operand->type), traceql_op_text(op));
    }
    e->type = left->type == TRACEQL_ANY || right->type == TRACEQL_ANY             ? TRACEQL_ANY
              : left->type == TRACEQL_DURATION || right->type == TRACEQL_DURATION ? TRACEQL_DURATION
              : left->type == TRACEQL_FLOAT || right->type == TRACEQL_FLOAT       ? TRACEQL_FLOAT
                                                                                  : TRACEQL_INT;
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
    {"nestedSetParent", PSEUDO_NESTED_SET_PARENT, TRACEQL_ANY},
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

static const char *const later_intrinsics[] = {"childCount", "span:childCount", "nestedSetLeft",
                                               "nestedSetRight"};

static struct traceql_expr *field_new(struct parser *p, uint8_t field, uint8_t type)
{
    struct traceql_expr *e = node_new(p, sizeof *e);
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
    if (field == TRACEQL_TRACE_DURATION || field == TRACEQL_ROOT_NAME ||
        field == TRACEQL_ROOT_SERVICE)
        p->query->needs_trace = true;
    return e;
}

static const struct traceql_expr *parse_intrinsic(struct parser *p)
{
    for (size_t i = 0; i < sizeof intrinsics / sizeof *intrinsics; i++)
        if (str_eq(p->token.text, str_from(intrinsics[i].word))) {
            const struct traceql_expr *e = field_new(p, intrinsics[i].field, intrinsics[i].type);
            advance(p);
            return e;
        }
    char found[64];
    token_describe(&p->token, found);
    for (size_t i = 0; i < sizeof later_intrinsics / sizeof *later_intrinsics; i++)
        if (str_eq(p->token.text, str_from(later_intrinsics[i])))
            return fail(p, ERR_UNSUPPORTED, p->token.position, "%s is not supported yet", found);
    if (p->token.type == TOKEN_INTRINSIC)
        return fail(p, ERR_INVALID, p->token.position,
                    "there is no intrinsic %s; attributes are written with a dot", found);
    return fail(
        p, ERR_INVALID, p->token.position,
        "%s is not known here; attributes are written with a dot (.%.*s), strings in quotes", found,
        p->token.text.len > 40 ? 40 : (int)p->token.text.len, p->token.text.ptr);
}

/* ---- expressions ---- */

/* How tightly an operator binds; 0: it is none. */
static int precedence(const struct token *t)
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
enum { PRECEDENCE_LOWEST = 1, PRECEDENCE_SIGN = 4 };

static const struct traceql_expr *parse_expr(struct parser *p, int least);

static const struct traceql_expr *parse_sign(struct parser *p)
{
    uint32_t at = p->token.position;
    enum traceql_op op = p->token.op;
    advance(p);
    const struct traceql_expr *right = parse_expr(p, PRECEDENCE_SIGN);
    if (op == TRACEQL_NOT) {
        right = condition_of(p, right, "after \"!\"");
        return right ? not_new(p, at, right) : NULL;
    }
    if (!right || refuse_pseudo(p, right))
        return NULL;
    if (!type_is_number(right->type) && right->type != TRACEQL_ANY)
        return fail(p, ERR_INVALID, right->position, "%s has no sign", type_text(right->type));
    struct traceql_expr *e = node_new(p, sizeof *e);
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
            return fail(p, ERR_INVALID, p->token.position, "this is not a finite number");
        e = literal_new(p, p->token.position, p->token.literal_type, p->token.value);
        advance(p);
        return e;
    case TOKEN_ATTRIBUTE:
        if (p->token.of_parent)
            return fail(p, ERR_UNSUPPORTED, p->token.position,
                        "attributes of the parent (parent.) are not supported yet");
        e = field_new(p, p->token.field, TRACEQL_ANY);
        advance(p);
        return e;
    case TOKEN_WORD:
    case TOKEN_INTRINSIC:
        return parse_intrinsic(p);
    case TOKEN_PAREN_OPEN: {
        if (!enter(p))
            return NULL;
        advance(p);
        e = parse_expr(p, PRECEDENCE_LOWEST);
        p->depth--;
        if (!e)
            return NULL;
        if (p->token.type != TOKEN_PAREN_CLOSE)
            return fail_expected(p, "an operator or \")\"");
        advance(p);
        return e;
    }
    case TOKEN_OP:
        if (p->token.op == TRACEQL_NOT || p->token.op == TRACEQL_SUB) {
            if (!enter(p))
                return NULL;
            e = parse_sign(p);
            p->depth--;
            return e;
        }
        break;
    default:
        break;
    }
    return fail_expected(p, "an attribute (.http.method), an intrinsic (name) or a value");
}

static const struct traceql_expr *parse_expr(struct parser *p, int least)
{
    const struct traceql_expr *left = parse_operand(p);
    int binds;
    while (left && !p->err && (binds = precedence(&p->token)) >= least && binds > 0) {
        enum traceql_op op = p->token.op;
        uint32_t at = p->token.position;
        advance(p);
        if (op == TRACEQL_POW && !enter(p))
            return NULL;
        /* From the left, but powers from the right. */
        const struct traceql_expr *right = parse_expr(p, op == TRACEQL_POW ? binds : binds + 1);
        if (op == TRACEQL_POW)
            p->depth--;
        left = binary_new(p, op, at, left, right);
    }
    return p->err ? NULL : left;
}

/* ---- spansets ---- */

static const struct traceql_spanset *parse_spansets(struct parser *p);

static bool is_word_of(const struct token *t, const char *const words[])
{
    for (; *words; words++)
        if (t->type == TOKEN_WORD && str_eq(t->text, str_from(*words)))
            return true;
    return false;
}

static const struct traceql_spanset *parse_filter(struct parser *p)
{
    struct traceql_spanset *s = node_new(p, sizeof *s);
    if (!s)
        return NULL;
    s->op = TRACEQL_FILTER;
    s->position = p->token.position;
    advance(p);
    if (p->token.type != TOKEN_BRACE_CLOSE) {
        const struct traceql_expr *e = parse_expr(p, PRECEDENCE_LOWEST);
        if (!e)
            return NULL;
        if (p->token.type != TOKEN_BRACE_CLOSE)
            return fail_expected(p, "an operator or \"}\"");
        s->condition = condition_of(p, e, "between \"{\" and \"}\"");
        if (!s->condition)
            return NULL;
    }
    advance(p);
    return s;
}

static const struct traceql_spanset *parse_spanset(struct parser *p)
{
    if (p->err)
        return NULL;
    if (p->token.type == TOKEN_BRACE_OPEN)
        return parse_filter(p);
    if (p->token.type == TOKEN_PAREN_OPEN) {
        if (!enter(p))
            return NULL;
        advance(p);
        const struct traceql_spanset *s = parse_spansets(p);
        p->depth--;
        if (!s)
            return NULL;
        if (p->token.type != TOKEN_PAREN_CLOSE)
            return fail_expected(p, "\"&&\", \"||\" or \")\"");
        advance(p);
        return s;
    }
    static const char *const aggregates[] = {"count", "avg", "min", "max", "sum", "by", NULL};
    if (is_word_of(&p->token, aggregates)) {
        char found[64];
        return fail(p, ERR_UNSUPPORTED, p->token.position,
                    "aggregates and grouping, %s here, are not supported yet",
                    token_describe(&p->token, found));
    }
    return fail_expected(p, "\"{\" (a query is made of filters, such as { name = `GET /` })");
}

static const struct traceql_spanset *parse_spansets(struct parser *p)
{
    const struct traceql_spanset *left = parse_spanset(p);
    while (left && !p->err) {
        const struct token *t = &p->token;
        char found[64];
        token_describe(t, found);
        if (t->type == TOKEN_STRUCTURAL ||
            (t->type == TOKEN_OP &&
             (t->op == TRACEQL_GT || t->op == TRACEQL_LT || t->op == TRACEQL_NOT_REGEX)))
            return fail(p, ERR_UNSUPPORTED, t->position,
                        "structural operators, %s here, are not supported yet", found);
        if (t->type == TOKEN_PIPE)
            return fail(p, ERR_UNSUPPORTED, t->position,
                        "pipelines, \"| ...\", are not supported yet");
        static const char *const hints[] = {"with", NULL};
        if (is_word_of(t, hints))
            return fail(p, ERR_UNSUPPORTED, t->position,
                        "query hints, \"with (...)\", are not supported yet");
        if (t->type != TOKEN_OP || !op_is_logic(t->op))
            break;
        struct traceql_spanset *s = node_new(p, sizeof *s);
        if (!s)
            return NULL;
        s->op = t->op == TRACEQL_AND ? TRACEQL_SPANSET_AND : TRACEQL_SPANSET_OR;
        s->position = t->position;
        advance(p);
        s->left = left;
        s->right = parse_spanset(p);
        left = s->right ? s : NULL;
    }
    return p->err ? NULL : left;
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
    advance(&p);
    q->root = parse_spansets(&p);
    if (!p.err && p.token.type != TOKEN_END)
        fail_expected(&p, "\"&&\", \"||\" or the end");
    if (p.err) {
        traceql_free(q);
        return p.err;
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
        regfree(&r->regex);
        free(r);
    }
    arena_done(&q->arena);
    free(q);
}

/* ---- printing ---- */

static void print_string(struct str s, struct buf *out)
{
    buf_byte(out, '"');
    for (size_t i = 0; i < s.len; i++) {
        uint8_t c = (uint8_t)s.ptr[i];
        if (c == '"' || c == '\\')
            buf_printf(out, "\\%c", c);
        else if (c < 0x20 || c == 0x7f)
            buf_printf(out, "\\x%02x", c);
        else
            buf_byte(out, (char)c);
    }
    buf_byte(out, '"');
}

static void print_integer(int64_t n, const char *unit, struct buf *out)
{
    if (n == INT64_MIN) /* has no literal of its own */
        buf_printf(out, "(-%lld%s - 1%s)", (long long)INT64_MAX, unit, unit);
    else
        buf_printf(out, "%lld%s", (long long)n, unit);
}

static void print_literal(const struct traceql_expr *e, struct buf *out)
{
    const struct value *v = &e->literal;
    switch ((enum traceql_type)e->type) {
    case TRACEQL_STRING:
        print_string(v->string, out);
        break;
    case TRACEQL_BOOL:
        buf_cstr(out, v->boolean ? "true" : "false");
        break;
    case TRACEQL_INT:
        print_integer(v->integer, "", out);
        break;
    case TRACEQL_DURATION:
        print_integer(v->integer, "ns", out);
        break;
    case TRACEQL_FLOAT:
        buf_printf(out, "%.17e", v->real);
        break;
    case TRACEQL_STATUS: {
        static const char *const words[] = {"unset", "ok", "error"};
        buf_cstr(out, words[v->integer]);
        break;
    }
    case TRACEQL_KIND:
        buf_cstr(out, v->integer == SPAN_KIND_UNSPECIFIED ? "unspecified"
                                                          : span_kind_tag((unsigned)v->integer));
        break;
    case TRACEQL_NIL:
    case TRACEQL_ANY:
        buf_cstr(out, "nil");
        break;
    }
}

static void print_key(const char *scope, struct str key, struct buf *out)
{
    buf_printf(out, "%s.\"", scope);
    for (size_t i = 0; i < key.len; i++) {
        if (key.ptr[i] == '"' || key.ptr[i] == '\\')
            buf_byte(out, '\\');
        buf_byte(out, key.ptr[i]);
    }
    buf_byte(out, '"');
}

static void print_expr(const struct traceql_expr *e, struct buf *out)
{
    static const char *const scopes[] = {
        [TRACEQL_SPAN_ATTR] = "span",   [TRACEQL_RESOURCE_ATTR] = "resource",
        [TRACEQL_ANY_ATTR] = "",        [TRACEQL_SCOPE_ATTR] = "instrumentation",
        [TRACEQL_EVENT_ATTR] = "event", [TRACEQL_LINK_ATTR] = "link",
    };
    switch ((enum traceql_expr_type)e->node) {
    case TRACEQL_LITERAL:
        print_literal(e, out);
        return;
    case TRACEQL_FIELD:
        if (e->field == TRACEQL_IS_ROOT) {
            buf_cstr(out, "(parent = nil)");
            return;
        }
        if (e->field >= TRACEQL_SPAN_ATTR) {
            print_key(scopes[e->field], e->key, out);
            return;
        }
        for (size_t i = 0; i < sizeof intrinsics / sizeof *intrinsics; i++)
            if (intrinsics[i].field == e->field) {
                buf_cstr(out, intrinsics[i].word);
                return;
            }
        return;
    case TRACEQL_UNARY:
        buf_printf(out, "(%s", traceql_op_text(e->op));
        print_expr(e->right, out);
        buf_byte(out, ')');
        return;
    case TRACEQL_BINARY:
        buf_byte(out, '(');
        print_expr(e->left, out);
        buf_printf(out, " %s ", traceql_op_text(e->op));
        print_expr(e->right, out);
        buf_byte(out, ')');
        return;
    }
}

static void print_spanset(const struct traceql_spanset *s, struct buf *out)
{
    if (s->op == TRACEQL_FILTER) {
        buf_cstr(out, "{ ");
        if (s->condition)
            print_expr(s->condition, out);
        buf_cstr(out, " }");
        return;
    }
    buf_byte(out, '(');
    print_spanset(s->left, out);
    buf_cstr(out, s->op == TRACEQL_SPANSET_AND ? " && " : " || ");
    print_spanset(s->right, out);
    buf_byte(out, ')');
}

void traceql_print(const struct traceql *q, struct buf *out)
{
    print_spanset(q->root, out);
}
