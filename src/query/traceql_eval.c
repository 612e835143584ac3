#include "query/traceql_eval.h"

#include <assert.h>
#include <math.h>

/* What an expression is evaluated on. */
struct subject {
    const struct span *span;
    const struct traceql_trace *trace;
    const struct event *event; /* the one in question, under a comparison that asks for events */
    const struct link *link;
};

/* A value, and room for an id as text. VALUE_NONE: nil. */
struct result {
    struct value value;
    char hex[2 * TRACE_ID_SIZE];
};

static bool is_number(const struct value *v)
{
    return v->type == VALUE_INT || v->type == VALUE_DOUBLE;
}

static double as_double(const struct value *v)
{
    return v->type == VALUE_INT ? (double)v->integer : v->real;
}

/* The order of two numbers, exact also where a double cannot hold the integer. False: one of them
 * is not a number. */
static bool number_order(const struct value *a, const struct value *b, int *ret)
{
    if (a->type == b->type || as_double(a) != as_double(b)) {
        double x = as_double(a), y = as_double(b);
        *ret = a->type == VALUE_INT && b->type == VALUE_INT
                   ? (a->integer > b->integer) - (a->integer < b->integer)
                   : (x > y) - (x < y);
        return !isnan(x) && !isnan(y);
    }
    /* One integer, one real, equal after rounding: the real is whole, or small enough that the
     * integer was exact. */
    bool swapped = a->type == VALUE_DOUBLE;
    int64_t integer = swapped ? b->integer : a->integer;
    double real = swapped ? a->real : b->real;
    int order = real >= 0x1p63 ? -1 : integer < (int64_t)real ? -1 : integer > (int64_t)real;
    *ret = swapped ? -order : order;
    return true;
}

static bool op_holds(enum traceql_op op, bool less, bool equal)
{
    switch (op) {
    case TRACEQL_EQ:
        return equal;
    case TRACEQL_NE:
        return !equal;
    case TRACEQL_LT:
        return less;
    case TRACEQL_LE:
        return less || equal;
    case TRACEQL_GT:
        return !less && !equal;
    case TRACEQL_GE:
        return !less;
    default:
        return false;
    }
}

static bool scalars_compare(enum traceql_op op, const struct value *a, const struct value *b,
                            struct pattern *regex)
{
    if (op == TRACEQL_REGEX || op == TRACEQL_NOT_REGEX)
        return a->type == VALUE_STRING && pattern_match(regex, a->string) == (op == TRACEQL_REGEX);
    if (is_number(a) && is_number(b)) {
        int order;
        return number_order(a, b, &order) && op_holds(op, order < 0, order == 0);
    }
    if (a->type != b->type)
        return false;
    if (a->type == VALUE_STRING) {
        if (op == TRACEQL_EQ || op == TRACEQL_NE)
            return str_eq(a->string, b->string) == (op == TRACEQL_EQ);
        int order = str_cmp(a->string, b->string);
        return op_holds(op, order < 0, order == 0);
    }
    if (a->type == VALUE_BOOL && (op == TRACEQL_EQ || op == TRACEQL_NE))
        return (a->boolean == b->boolean) == (op == TRACEQL_EQ);
    return false;
}

/* Some element compares so; of "!=" and "!~" also none as "=" and "=~" would. */
bool traceql_compare(enum traceql_op op, const struct value *a, const struct value *b,
                     struct pattern *regex)
{
    bool is_left = a->type == VALUE_ARRAY;
    if (is_left == (b->type == VALUE_ARRAY))
        return scalars_compare(op, a, b, regex);
    const struct value *array = is_left ? a : b;
    bool is_negative = op == TRACEQL_NE || op == TRACEQL_NOT_REGEX, any = false;
    enum traceql_op positive = op == TRACEQL_NE ? TRACEQL_EQ : TRACEQL_REGEX;
    for (size_t i = 0; i < array->array.n; i++) {
        const struct value *x = is_left ? &array->array.items[i] : a;
        const struct value *y = is_left ? b : &array->array.items[i];
        if (is_negative && scalars_compare(positive, x, y, regex))
            return false;
        any |= scalars_compare(op, x, y, regex);
    }
    return any;
}

bool traceql_arithmetic(enum traceql_op op, const struct value *a, const struct value *b,
                        struct value *ret)
{
    struct value zero = {.type = VALUE_INT};
    if (!a)
        a = &zero;
    if (!is_number(a) || !is_number(b))
        return false;
    double x = as_double(a), y = as_double(b), real;
    bool whole = a->type == VALUE_INT && b->type == VALUE_INT;
    int64_t integer = 0;
    switch (op) {
    case TRACEQL_ADD:
        whole = whole && !__builtin_add_overflow(a->integer, b->integer, &integer);
        real = x + y;
        break;
    case TRACEQL_SUB:
        whole = whole && !__builtin_sub_overflow(a->integer, b->integer, &integer);
        real = a == &zero ? -y : x - y;
        break;
    case TRACEQL_MUL:
        whole = whole && !__builtin_mul_overflow(a->integer, b->integer, &integer);
        real = x * y;
        break;
    case TRACEQL_DIV:
    case TRACEQL_MOD:
        if (y == 0)
            return false;
        if (whole && b->integer == -1) /* INT64_MIN / -1 does not fit */
            whole = op == TRACEQL_MOD || a->integer != INT64_MIN;
        if (whole && op == TRACEQL_DIV && b->integer == -1)
            integer = -a->integer;
        else if (whole && op == TRACEQL_DIV && a->integer % b->integer == 0)
            integer = a->integer / b->integer;
        else if (whole && op == TRACEQL_MOD)
            integer = b->integer == -1 ? 0 : a->integer % b->integer;
        else
            whole = false;
        real = op == TRACEQL_DIV ? x / y : fmod(x, y);
        break;
    case TRACEQL_POW:
        real = pow(x, y);
        whole = whole && b->integer >= 0 && fabs(real) < 0x1p53;
        if (whole)
            integer = (int64_t)real;
        break;
    default:
        return false;
    }
    *ret = whole ? (struct value){.type = VALUE_INT, .integer = integer}
                 : (struct value){.type = VALUE_DOUBLE, .real = real};
    return true;
}

static void put_string(struct result *r, struct str s)
{
    r->value = (struct value){.type = VALUE_STRING, .string = s};
}

static void put_integer(struct result *r, uint64_t n)
{
    r->value = (struct value){.type = VALUE_INT, .integer = n > INT64_MAX ? INT64_MAX : (int64_t)n};
}

static void put_id(struct result *r, const uint8_t *bytes, size_t n)
{
    hex_put(r->hex, bytes, n);
    put_string(r, (struct str){r->hex, 2 * n});
}

/* False: it is not there. An attribute without a value is there, and compares with nothing. */
static bool put_attr(struct result *r, const struct attrs *attrs, struct str key)
{
    const struct attr *a = attrs_find(attrs, key);
    if (!a)
        return false;
    r->value = a->value;
    if (a->value.type == VALUE_NONE)
        r->value = (struct value){.type = VALUE_MAP};
    return true;
}

static bool put_resource_attr(struct result *r, const struct resource *resource, struct str key)
{
    struct resource_derived derived;
    const struct attr *a = resource_attr_find(resource, key, &derived);
    if (a != &derived.attr)
        return put_attr(r, &resource->attrs, key);
    static_assert(sizeof derived.text <= sizeof r->hex, "room for the fingerprint");
    memcpy(r->hex, derived.text, sizeof derived.text);
    put_string(r, (struct str){r->hex, sizeof derived.text});
    return true;
}

static const struct traceql_tree *tree_of(const struct subject *on)
{
    return on->trace ? on->trace->tree : NULL;
}

/* The parent of a span; NULL: it has none, or it is not known. */
static const struct span *parent_of(const struct subject *on)
{
    const struct traceql_tree *tree = tree_of(on);
    if (!tree)
        return NULL;
    uint32_t parent = tree->parent[on->span - tree->spans];
    return parent == TRACEQL_NO_PARENT ? NULL : &tree->spans[parent];
}

/* The intrinsics that say where in the trace the span is. */
static void eval_place(enum traceql_field field, const struct subject *on, struct result *ret)
{
    const struct traceql_tree *tree = tree_of(on);
    if (!tree)
        return;
    size_t place = (size_t)(on->span - tree->spans);
    uint32_t parent = tree->parent[place];
    switch (field) {
    case TRACEQL_CHILD_COUNT:
        put_integer(ret, tree->children[place]);
        return;
    case TRACEQL_NESTED_LEFT:
        put_integer(ret, tree->left[place]);
        return;
    case TRACEQL_NESTED_RIGHT:
        put_integer(ret, tree->right[place]);
        return;
    default:
        ret->value = (struct value){
            .type = VALUE_INT,
            .integer = parent != TRACEQL_NO_PARENT             ? (int64_t)tree->left[parent]
                       : span_id_is_zero(&on->span->parent_id) ? -1
                                                               : 0,
        };
    }
}

static void eval_field(const struct traceql_expr *e, const struct subject *on, struct result *ret)
{
    const struct span *span = e->of_parent ? parent_of(on) : on->span;
    if (!span)
        return;
    switch ((enum traceql_field)e->field) {
    case TRACEQL_NAME:
        put_string(ret, span->name);
        break;
    case TRACEQL_SPAN_KIND:
        put_integer(ret, span->kind);
        break;
    case TRACEQL_SPAN_STATUS:
        put_integer(ret, span->status_code);
        break;
    case TRACEQL_STATUS_MESSAGE:
        put_string(ret, span->status_message);
        break;
    case TRACEQL_SPAN_DURATION:
        put_integer(ret, span_duration_ns(span));
        break;
    case TRACEQL_SPAN_ID:
        put_id(ret, span->span_id.bytes, SPAN_ID_SIZE);
        break;
    case TRACEQL_PARENT_ID:
        if (!span_id_is_zero(&span->parent_id))
            put_id(ret, span->parent_id.bytes, SPAN_ID_SIZE);
        break;
    case TRACEQL_IS_ROOT:
        ret->value = (struct value){.type = VALUE_BOOL,
                                    .boolean = span_id_is_zero(&span->parent_id)};
        break;
    case TRACEQL_CHILD_COUNT:
    case TRACEQL_NESTED_LEFT:
    case TRACEQL_NESTED_RIGHT:
    case TRACEQL_NESTED_PARENT:
        eval_place(e->field, on, ret);
        break;
    case TRACEQL_TRACE_ID:
        put_id(ret, span->trace_id.bytes, TRACE_ID_SIZE);
        break;
    case TRACEQL_TRACE_DURATION:
        if (on->trace)
            put_integer(ret, on->trace->duration_ns);
        break;
    case TRACEQL_ROOT_NAME:
        if (on->trace)
            put_string(ret, on->trace->root_name);
        break;
    case TRACEQL_ROOT_SERVICE:
        if (on->trace)
            put_string(ret, on->trace->root_service);
        break;
    case TRACEQL_SCOPE_NAME:
        put_string(ret, span->scope->name);
        break;
    case TRACEQL_SCOPE_VERSION:
        put_string(ret, span->scope->version);
        break;
    case TRACEQL_EVENT_NAME:
        if (on->event)
            put_string(ret, on->event->name);
        break;
    case TRACEQL_EVENT_SINCE_START:
        if (on->event) {
            bool later = on->event->time_ns > span->start_ns;
            put_integer(ret, later ? on->event->time_ns - span->start_ns : 0);
        }
        break;
    case TRACEQL_LINK_TRACE_ID:
        if (on->link)
            put_id(ret, on->link->trace_id.bytes, TRACE_ID_SIZE);
        break;
    case TRACEQL_LINK_SPAN_ID:
        if (on->link)
            put_id(ret, on->link->span_id.bytes, SPAN_ID_SIZE);
        break;
    case TRACEQL_SPAN_ATTR:
        put_attr(ret, &span->attrs, e->key);
        break;
    case TRACEQL_RESOURCE_ATTR:
        put_resource_attr(ret, span->resource, e->key);
        break;
    case TRACEQL_ANY_ATTR:
        if (!put_attr(ret, &span->attrs, e->key))
            put_resource_attr(ret, span->resource, e->key);
        break;
    case TRACEQL_SCOPE_ATTR:
        put_attr(ret, &span->scope->attrs, e->key);
        break;
    case TRACEQL_EVENT_ATTR:
        if (on->event)
            put_attr(ret, &on->event->attrs, e->key);
        break;
    case TRACEQL_LINK_ATTR:
        if (on->link)
            put_attr(ret, &on->link->attrs, e->key);
        break;
    }
}

/* Literals, fields and arithmetic. */
static void eval_value(const struct traceql_expr *e, const struct subject *on, struct result *ret)
{
    ret->value = (struct value){.type = VALUE_NONE};
    if (e->node == TRACEQL_LITERAL) {
        ret->value = e->literal;
        return;
    }
    if (e->node == TRACEQL_FIELD) {
        eval_field(e, on, ret);
        return;
    }
    struct result left, right;
    if (e->left)
        eval_value(e->left, on, &left);
    eval_value(e->right, on, &right);
    struct value value;
    if (traceql_arithmetic(e->op, e->left ? &left.value : NULL, &right.value, &value))
        ret->value = value;
}

static bool eval_bool(const struct traceql_expr *e, const struct subject *on);

static bool compare_once(const struct traceql_expr *e, const struct subject *on)
{
    /* Conditions compare as truth values: `(.a = 1) = (.b = 2)`. */
    struct result left, right;
    bool is_condition[2];
    const struct traceql_expr *sides[2] = {e->left, e->right};
    struct result *results[2] = {&left, &right};
    for (int i = 0; i < 2; i++) {
        is_condition[i] = sides[i]->type == TRACEQL_BOOL && sides[i]->node != TRACEQL_LITERAL &&
                          sides[i]->node != TRACEQL_FIELD;
        if (is_condition[i])
            results[i]->value = (struct value){.type = VALUE_BOOL,
                                               .boolean = eval_bool(sides[i], on)};
        else
            eval_value(sides[i], on, results[i]);
    }
    return traceql_compare(e->op, &left.value, &right.value, e->regex);
}

static bool compare_with_nil(const struct traceql_expr *e, const struct subject *on, bool exists)
{
    if (e->left->node != TRACEQL_FIELD && e->left->type == TRACEQL_BOOL)
        return exists; /* a condition is never nil */
    struct result left;
    eval_value(e->left, on, &left);
    return (left.value.type != VALUE_NONE) == exists;
}

/* Whether the comparison holds for this choice of event and link. */
static bool compare_on(const struct traceql_expr *e, const struct subject *on, bool nil_exists)
{
    if (e->right->type == TRACEQL_NIL)
        return compare_with_nil(e, on, nil_exists);
    return compare_once(e, on);
}

/* For some event and some link, where the comparison asks for them. */
static bool compare_any(const struct traceql_expr *e, const struct subject *on, bool nil_exists)
{
    struct subject each = *on;
    uint32_t n_events = e->of_event ? on->span->n_events : 1;
    uint32_t n_links = e->of_link ? on->span->n_links : 1;
    for (uint32_t i = 0; i < n_events; i++) {
        if (e->of_event)
            each.event = &on->span->events[i];
        for (uint32_t j = 0; j < n_links; j++) {
            if (e->of_link)
                each.link = &on->span->links[j];
            if (compare_on(e, &each, nil_exists))
                return true;
        }
    }
    return false;
}

static bool eval_bool(const struct traceql_expr *e, const struct subject *on)
{
    switch ((enum traceql_expr_type)e->node) {
    case TRACEQL_LITERAL:
        return e->literal.boolean;
    case TRACEQL_FIELD: {
        struct result r;
        eval_value(e, on, &r);
        return r.value.type == VALUE_BOOL && r.value.boolean;
    }
    case TRACEQL_UNARY:
        return !eval_bool(e->right, on);
    case TRACEQL_BINARY:
        if (e->op == TRACEQL_AND)
            return eval_bool(e->left, on) && eval_bool(e->right, on);
        if (e->op == TRACEQL_OR)
            return eval_bool(e->left, on) || eval_bool(e->right, on);
        /* "No event has it", and not "some event lacks it". */
        if (e->right->type == TRACEQL_NIL && e->op == TRACEQL_EQ && (e->of_event || e->of_link))
            return !compare_any(e, on, true);
        return compare_any(e, on, e->op == TRACEQL_NE);
    }
    return false;
}

bool traceql_match(const struct traceql_expr *condition, const struct span *span,
                   const struct traceql_trace *trace)
{
    struct subject on = {.span = span, .trace = trace};
    return !condition || eval_bool(condition, &on);
}

static void value_on(const struct traceql_expr *e, const struct subject *on,
                     struct traceql_hex *hex, struct value *ret)
{
    struct result r;
    if (e->type == TRACEQL_BOOL && e->node != TRACEQL_FIELD && e->node != TRACEQL_LITERAL) {
        *ret = (struct value){.type = VALUE_BOOL, .boolean = eval_bool(e, on)};
        return;
    }
    eval_value(e, on, &r);
    *ret = r.value;
    if (r.value.type == VALUE_STRING && r.value.string.ptr == r.hex) {
        memcpy(hex->text, r.hex, r.value.string.len);
        ret->string.ptr = hex->text;
    }
}

void traceql_value(const struct traceql_expr *e, const struct span *span,
                   const struct traceql_trace *trace, struct traceql_hex *hex, struct value *ret)
{
    struct subject on = {.span = span, .trace = trace};
    *ret = (struct value){.type = VALUE_NONE};
    uint32_t n_events = e->of_event ? span->n_events : 1;
    uint32_t n_links = e->of_link ? span->n_links : 1;
    for (uint32_t i = 0; i < n_events; i++) {
        on.event = e->of_event ? &span->events[i] : NULL;
        for (uint32_t j = 0; j < n_links; j++) {
            on.link = e->of_link ? &span->links[j] : NULL;
            value_on(e, &on, hex, ret);
            if (ret->type != VALUE_NONE)
                return;
        }
    }
}

static bool stages_match_span(const struct traceql_stage *s, const struct span *span);

static bool spanset_match_span(const struct traceql_spanset *s, const struct span *span)
{
    if (s->op == TRACEQL_FILTER)
        return traceql_match(s->condition, span, NULL);
    if (s->op == TRACEQL_SPANSET_PIPELINE)
        return stages_match_span(s->stages, span);
    return spanset_match_span(s->left, span) || spanset_match_span(s->right, span);
}

static bool stages_match_span(const struct traceql_stage *s, const struct span *span)
{
    for (; s; s = s->next)
        if (s->type == TRACEQL_STAGE_SPANSET && !spanset_match_span(s->spanset, span))
            return false;
    return true;
}

bool traceql_match_span(const struct traceql *q, const struct span *span)
{
    return stages_match_span(q->stages, span);
}
