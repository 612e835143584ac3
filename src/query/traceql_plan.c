/* From a query to a predicate that a scan can evaluate on columns.
 *
 * A predicate cannot say everything that TraceQL can. Where it cannot, the bound of that part is
 * taken that lets more through: "true" under an even number of negations, "false" under an odd one.
 * As and, or and not are monotone in that sense, what comes out never hides a span that the query
 * means. `exact` is false then, and whoever searches looks at the whole trace again.
 *
 * Two conditions are always known of a comparison that holds: every attribute of the span or the
 * resource in it exists. That alone often prunes most of a store. */
#include "query/traceql.h"

#include <math.h>

struct planner {
    struct arena *arena;
    const struct traceql_trace *trace; /* when it is known which; else NULL */
    bool exact;
    bool failed;
};

static const struct predicate predicate_true = {.op = PREDICATE_TRUE};
static const struct predicate predicate_false = {.op = PREDICATE_OR};

static const struct predicate *constant(bool value)
{
    return value ? &predicate_true : &predicate_false;
}

/* What a part that cannot be said becomes: `most`: more spans are harmless here, else fewer. */
static const struct predicate *unknown(struct planner *p, bool most)
{
    p->exact = false;
    return constant(most);
}

static struct predicate *predicate_new(struct planner *p, enum predicate_op op)
{
    struct predicate *made = arena_zalloc(p->arena, sizeof *made);
    if (made)
        made->op = op;
    else
        p->failed = true;
    return made;
}

static const struct predicate *join(struct planner *p, enum predicate_op op,
                                    const struct predicate *a, const struct predicate *b)
{
    if (!a || !b)
        return NULL;
    /* Identity and zero. */
    const struct predicate *identity = constant(op == PREDICATE_AND);
    const struct predicate *zero = constant(op == PREDICATE_OR);
    if (a == identity || b == zero)
        return b;
    if (b == identity || a == zero)
        return a;
    /* A chain becomes one node, so that nobody has to descend as deep as it is long. */
    size_t n_a = a->op == op && a->n_children ? a->n_children : 1;
    size_t n_b = b->op == op && b->n_children ? b->n_children : 1;
    struct predicate *made = predicate_new(p, op);
    struct predicate *children = arena_array(p->arena, n_a + n_b, sizeof *children);
    if (!made || !children) {
        p->failed = true;
        return NULL;
    }
    memcpy(children, n_a > 1 ? a->children : a, n_a * sizeof *children);
    memcpy(children + n_a, n_b > 1 ? b->children : b, n_b * sizeof *children);
    made->children = children;
    made->n_children = n_a + n_b;
    return made;
}

static const struct predicate *negate(struct planner *p, const struct predicate *a)
{
    if (!a)
        return NULL;
    if (a == &predicate_true || a == &predicate_false)
        return constant(a == &predicate_false);
    if (a->op == PREDICATE_NOT)
        return a->children;
    struct predicate *made = predicate_new(p, PREDICATE_NOT);
    if (!made)
        return NULL;
    made->children = a;
    made->n_children = 1;
    return made;
}

/* The store's field; false when it has none. */
static bool field_of(const struct traceql_expr *e, enum predicate_field *ret)
{
    if (e->of_parent)
        return false;
    switch ((enum traceql_field)e->field) {
    case TRACEQL_NAME:
        *ret = FIELD_NAME;
        return true;
    case TRACEQL_SPAN_KIND:
        *ret = FIELD_KIND;
        return true;
    case TRACEQL_SPAN_STATUS:
        *ret = FIELD_STATUS;
        return true;
    case TRACEQL_STATUS_MESSAGE:
        *ret = FIELD_STATUS_MESSAGE;
        return true;
    case TRACEQL_SPAN_DURATION:
        *ret = FIELD_DURATION;
        return true;
    case TRACEQL_IS_ROOT:
        *ret = FIELD_IS_ROOT;
        return true;
    case TRACEQL_SPAN_ATTR:
        *ret = FIELD_SPAN_ATTR;
        return true;
    case TRACEQL_RESOURCE_ATTR:
        *ret = FIELD_RESOURCE_ATTR;
        return true;
    case TRACEQL_ANY_ATTR:
        *ret = FIELD_ANY_ATTR;
        return true;
    default:
        return false;
    }
}

static bool is_stored_attr(const struct traceql_expr *e)
{
    return e->node == TRACEQL_FIELD && !e->of_parent &&
           (e->field == TRACEQL_SPAN_ATTR || e->field == TRACEQL_RESOURCE_ATTR ||
            e->field == TRACEQL_ANY_ATTR);
}

static const struct predicate *leaf(struct planner *p, enum predicate_op op,
                                    const struct traceql_expr *field, struct value value)
{
    struct predicate *made = predicate_new(p, op);
    if (!made)
        return NULL;
    if (!field_of(field, &made->field))
        return NULL;
    made->key = field->key;
    made->value = value;
    return made;
}

/* That every attribute in `e` exists: true of each comparison that holds. */
static const struct predicate *attributes_exist(struct planner *p, const struct traceql_expr *e)
{
    if (!e || e->type == TRACEQL_BOOL)
        return &predicate_true;
    if (is_stored_attr(e))
        return leaf(p, PREDICATE_EXISTS, e, (struct value){0});
    if (e->node == TRACEQL_LITERAL || e->node == TRACEQL_FIELD)
        return &predicate_true;
    return join(p, PREDICATE_AND, attributes_exist(p, e->left), attributes_exist(p, e->right));
}

/* An integer column against a number with a fraction: the same question with a whole number. */
static const struct predicate *compare_duration(struct planner *p, enum predicate_op op,
                                                const struct traceql_expr *field, double d)
{
    bool whole = floor(d) == d;
    if (!whole && (op == PREDICATE_EQ || op == PREDICATE_NE))
        return constant(op == PREDICATE_NE);
    if (d >= 0x1p63 || d < -0x1p63) {
        bool above = d > 0; /* every duration is below it */
        return constant(above ? op == PREDICATE_LT || op == PREDICATE_LE || op == PREDICATE_NE
                              : op == PREDICATE_GT || op == PREDICATE_GE || op == PREDICATE_NE);
    }
    bool up = op == PREDICATE_LT || op == PREDICATE_GE; /* x < 1.5 is x < 2, x >= 1.5 is x >= 2 */
    double bound = up ? ceil(d) : floor(d);
    if (bound >= 0x1p63)
        return constant(op == PREDICATE_LT);
    return leaf(p, op, field, (struct value){.type = VALUE_INT, .integer = (int64_t)bound});
}

static bool is_of_trace(const struct traceql_expr *e)
{
    return e->node == TRACEQL_FIELD &&
           (e->field == TRACEQL_TRACE_DURATION || e->field == TRACEQL_ROOT_NAME ||
            e->field == TRACEQL_ROOT_SERVICE);
}

static const struct span any_span;

static const struct predicate *plan_comparison(struct planner *p, const struct traceql_expr *e,
                                               bool most)
{
    static const uint8_t ops[] = {
        [TRACEQL_EQ] = PREDICATE_EQ, [TRACEQL_NE] = PREDICATE_NE, [TRACEQL_LT] = PREDICATE_LT,
        [TRACEQL_LE] = PREDICATE_LE, [TRACEQL_GT] = PREDICATE_GT, [TRACEQL_GE] = PREDICATE_GE,
    };
    const struct traceql_expr *field = e->left;
    enum predicate_field target;
    bool plain = field->node == TRACEQL_FIELD && field_of(field, &target) &&
                 e->right->node == TRACEQL_LITERAL;
    if (plain && e->right->type == TRACEQL_NIL) {
        if (!is_stored_attr(field))
            return constant(e->op == TRACEQL_NE);
        const struct predicate *exists = leaf(p, PREDICATE_EXISTS, field, (struct value){0});
        return e->op == TRACEQL_NE ? exists : negate(p, exists);
    }
    if (!plain && p->trace && is_of_trace(field) && e->right->node == TRACEQL_LITERAL)
        /* It does not depend on the span. */
        return constant(traceql_match(e, &any_span, p->trace));
    if (!plain) {
        p->exact = false;
        if (!most)
            return &predicate_false;
        if (e->right->type == TRACEQL_NIL)
            return &predicate_true;
        return join(p, PREDICATE_AND, attributes_exist(p, e->left), attributes_exist(p, e->right));
    }
    const struct value least = {.type = VALUE_STRING, .string = STR("")}; /* of all strings */
    if (e->op == TRACEQL_REGEX || e->op == TRACEQL_NOT_REGEX) {
        const struct predicate *matches = leaf(p, PREDICATE_REGEX, field, e->right->literal);
        if (e->op == TRACEQL_REGEX)
            return matches;
        if (!is_stored_attr(field))
            return negate(p, matches);
        /* It has to be a string, and there. */
        return join(p, PREDICATE_AND, leaf(p, PREDICATE_GE, field, least), negate(p, matches));
    }
    if (target == FIELD_DURATION && e->right->literal.type == VALUE_DOUBLE)
        return compare_duration(p, ops[e->op], field, e->right->literal.real);
    if (e->op == TRACEQL_NE && is_stored_attr(field)) {
        /* The store's "different" includes other types, TraceQL's does not. */
        const struct value *right = &e->right->literal;
        const struct predicate *of_type;
        if (right->type == VALUE_STRING)
            of_type = leaf(p, PREDICATE_GE, field, least);
        else if (right->type == VALUE_BOOL)
            of_type = leaf(p, PREDICATE_EQ, field,
                           (struct value){.type = VALUE_BOOL, .boolean = !right->boolean});
        else
            of_type = join(p, PREDICATE_OR, leaf(p, PREDICATE_LT, field, *right),
                           leaf(p, PREDICATE_GT, field, *right));
        /* What is different may stand beside what is equal, in an array. */
        return join(p, PREDICATE_AND, of_type, negate(p, leaf(p, PREDICATE_EQ, field, *right)));
    }
    const struct predicate *made = leaf(p, ops[e->op], field, e->right->literal);
    /* Every span has a service, and a store keeps it at hand. */
    if (made && e->op == TRACEQL_EQ && target == FIELD_RESOURCE_ATTR &&
        str_eq(field->key, STR("service.name")) && e->right->type == TRACEQL_STRING &&
        e->right->literal.string.len && !str_eq(e->right->literal.string, STR("unknown_service"))) {
        struct predicate *service = (struct predicate *)made;
        service->field = FIELD_SERVICE;
        service->key = STR_NONE;
    }
    return made;
}

static const struct predicate *plan(struct planner *p, const struct traceql_expr *e, bool most)
{
    switch ((enum traceql_expr_type)e->node) {
    case TRACEQL_LITERAL:
        return constant(e->literal.boolean);
    case TRACEQL_FIELD:
        if (e->field == TRACEQL_IS_ROOT)
            return leaf(p, PREDICATE_EQ, e, (struct value){.type = VALUE_BOOL, .boolean = true});
        return unknown(p, most);
    case TRACEQL_UNARY:
        return negate(p, plan(p, e->right, !most));
    case TRACEQL_BINARY:
        if (e->op == TRACEQL_AND || e->op == TRACEQL_OR)
            return join(p, e->op == TRACEQL_AND ? PREDICATE_AND : PREDICATE_OR,
                        plan(p, e->left, most), plan(p, e->right, most));
        return plan_comparison(p, e, most);
    }
    return NULL;
}

/* ---- spansets ---- */

static const struct predicate *plan_stages(struct planner *p, const struct traceql_stage *s);

static const struct predicate *plan_spanset(struct planner *p, const struct traceql_spanset *s)
{
    if (s->op == TRACEQL_FILTER)
        return s->condition ? plan(p, s->condition, true) : &predicate_true;
    if (s->op == TRACEQL_SPANSET_PIPELINE)
        return plan_stages(p, s->stages);
    /* What matches one side counts only where the other does: only "either" is exact. */
    if (s->op != TRACEQL_SPANSET_OR)
        p->exact = false;
    /* The answer has spans of the right side only. */
    if (s->op >= TRACEQL_CHILD && s->op < TRACEQL_UNION_CHILD)
        return plan_spanset(p, s->right);
    return join(p, PREDICATE_OR, plan_spanset(p, s->left), plan_spanset(p, s->right));
}

/* Stages only ever take spans away. */
static const struct predicate *plan_stages(struct planner *p, const struct traceql_stage *s)
{
    const struct predicate *made = &predicate_true;
    for (const struct traceql_stage *first = s; s; s = s->next) {
        if (s->type == TRACEQL_STAGE_SCALAR)
            p->exact = false;
        if (s->type != TRACEQL_STAGE_SPANSET)
            continue;
        /* After a filter, a filter sees fewer spans, which changes nothing of what it means. */
        if (s != first && s->spanset->op != TRACEQL_FILTER)
            p->exact = false;
        made = join(p, PREDICATE_AND, made, plan_spanset(p, s->spanset));
    }
    return made;
}

const struct predicate *traceql_predicate(const struct traceql_stage *stages, struct arena *arena,
                                          bool *ret_exact)
{
    struct planner p = {.arena = arena, .exact = true};
    const struct predicate *made = plan_stages(&p, stages);
    if (!made || p.failed)
        return NULL;
    *ret_exact = p.exact;
    return made;
}

static bool stages_exclude(struct planner *p, const struct traceql_stage *s);

/* `{A} && {B}` needs both, and so does structure; a negated one needs the right side. */
static bool spanset_excludes(struct planner *p, const struct traceql_spanset *s)
{
    if (s->op == TRACEQL_FILTER)
        return s->condition && plan(p, s->condition, true) == &predicate_false;
    if (s->op == TRACEQL_SPANSET_PIPELINE)
        return stages_exclude(p, s->stages);
    bool right = spanset_excludes(p, s->right);
    if (s->op >= TRACEQL_NOT_CHILD && s->op < TRACEQL_UNION_CHILD)
        return right;
    bool left = spanset_excludes(p, s->left);
    return s->op == TRACEQL_SPANSET_OR ? left && right : left || right;
}

static bool stages_exclude(struct planner *p, const struct traceql_stage *s)
{
    for (; s; s = s->next)
        if (s->type == TRACEQL_STAGE_SPANSET && spanset_excludes(p, s->spanset))
            return true;
    return false;
}

bool traceql_excludes(const struct traceql_stage *stages, const struct traceql_trace *trace,
                      struct arena *arena)
{
    struct planner p = {.arena = arena, .trace = trace};
    return stages_exclude(&p, stages) && !p.failed;
}

static bool names_trace(const struct traceql_expr *e, struct trace_id *ret)
{
    if (!e || e->node != TRACEQL_BINARY)
        return false;
    if (e->op == TRACEQL_AND)
        return names_trace(e->left, ret) || names_trace(e->right, ret);
    return e->op == TRACEQL_EQ && e->left->node == TRACEQL_FIELD &&
           e->left->field == TRACEQL_TRACE_ID && e->right->type == TRACEQL_STRING &&
           e->right->node == TRACEQL_LITERAL && trace_id_parse(e->right->literal.string, ret);
}

bool traceql_names_trace(const struct traceql *q, struct trace_id *ret)
{
    const struct traceql_stage *s = q->stages;
    return s && s->type == TRACEQL_STAGE_SPANSET && s->spanset->op == TRACEQL_FILTER &&
           names_trace(s->spanset->condition, ret);
}

/* ---- several filters at once ---- */

static bool collect_stages(struct planner *p, const struct traceql_stage *s,
                           const struct predicate *where, struct traceql_columns *c);

static bool collect(struct planner *p, const struct traceql_spanset *s,
                    const struct predicate *where, struct traceql_columns *c)
{
    if (s->op == TRACEQL_SPANSET_PIPELINE)
        return collect_stages(p, s->stages, where, c);
    if (s->op != TRACEQL_FILTER)
        return collect(p, s->left, where, c) && collect(p, s->right, where, c);
    if (c->n == TRACEQL_COLUMNS_MAX)
        return false;
    const struct predicate *made = s->condition ? plan(p, s->condition, true) : &predicate_true;
    made = where ? join(p, PREDICATE_AND, where, made) : made;
    c->filters[c->n] = s;
    c->predicates[c->n++] = made;
    return made && p->exact && !p->failed;
}

/* Numbers of spans may be asked for, their values not; and nothing of a stage that takes what it is given. */
static bool is_count(const struct traceql_scalar *s)
{
    switch ((enum traceql_scalar_type)s->node) {
    case TRACEQL_SCALAR_LITERAL:
    case TRACEQL_SCALAR_COUNT:
        return true;
    case TRACEQL_SCALAR_UNARY:
    case TRACEQL_SCALAR_BINARY:
        return (!s->left || is_count(s->left)) && is_count(s->right);
    default:
        return false;
    }
}

static bool collect_stages(struct planner *p, const struct traceql_stage *s,
                           const struct predicate *where, struct traceql_columns *c)
{
    if (!s || s->type != TRACEQL_STAGE_SPANSET)
        return false;
    for (; s; s = s->next) {
        bool ok = s->type == TRACEQL_STAGE_SELECT || s->type == TRACEQL_STAGE_COALESCE;
        if (s->type == TRACEQL_STAGE_SPANSET)
            ok = collect(p, s->spanset, where, c);
        else if (s->type == TRACEQL_STAGE_SCALAR)
            ok = is_count(s->left) && is_count(s->right);
        if (!ok)
            return false;
    }
    return true;
}

static bool stages_want(const struct traceql_columns *c, const struct traceql_stage *s,
                        unsigned set);

/* What spans there must be for an answer; what there must not be cannot be said by a set. */
static bool spanset_wants(const struct traceql_columns *c, const struct traceql_spanset *s,
                          unsigned set)
{
    if (s->op == TRACEQL_SPANSET_PIPELINE)
        return stages_want(c, s->stages, set);
    if (s->op == TRACEQL_FILTER) {
        size_t k = 0;
        while (c->filters[k] != s)
            k++;
        return set >> k & 1;
    }
    bool left = spanset_wants(c, s->left, set), right = spanset_wants(c, s->right, set);
    if (s->op >= TRACEQL_NOT_CHILD && s->op < TRACEQL_UNION_CHILD)
        return right;
    return s->op == TRACEQL_SPANSET_OR ? left || right : left && right;
}

static bool stages_want(const struct traceql_columns *c, const struct traceql_stage *s,
                        unsigned set)
{
    for (; s; s = s->next)
        if (s->type == TRACEQL_STAGE_SPANSET && !spanset_wants(c, s->spanset, set))
            return false;
    return true;
}

bool traceql_columns(const struct traceql_stage *stages, const struct predicate *where,
                     struct arena *arena, struct traceql_columns *ret)
{
    struct planner p = {.arena = arena, .exact = true};
    *ret = (struct traceql_columns){.stages = stages};
    if (!collect_stages(&p, stages, where, ret))
        return false;
    for (unsigned set = 0; set < 1u << ret->n; set++)
        ret->wanted[set] = stages_want(ret, stages, set);
    return true;
}
