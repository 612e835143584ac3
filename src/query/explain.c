#include "query/explain.h"

/* ---- predicates ---- */

static void put_field(const struct predicate *p, struct buf *out)
{
    static const char *const names[] = {
        [FIELD_NAME] = "name",         [FIELD_SERVICE] = "resource.service.name",
        [FIELD_KIND] = "kind",         [FIELD_STATUS] = "status",
        [FIELD_DURATION] = "duration", [FIELD_STATUS_MESSAGE] = "statusMessage",
        [FIELD_START] = "start",       [FIELD_IS_ROOT] = "isRoot",
    };
    struct traceql_expr field = {.node = TRACEQL_FIELD, .key = p->key};
    switch (p->field) {
    case FIELD_SPAN_ATTR:
        field.field = TRACEQL_SPAN_ATTR;
        break;
    case FIELD_RESOURCE_ATTR:
        field.field = TRACEQL_RESOURCE_ATTR;
        break;
    case FIELD_ANY_ATTR:
        field.field = TRACEQL_ANY_ATTR;
        break;
    default:
        buf_cstr(out, names[p->field]);
        return;
    }
    traceql_print_field(&field, out);
}

static void put_string(struct str s, struct buf *out)
{
    buf_byte(out, '"');
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] == '"' || s.ptr[i] == '\\')
            buf_byte(out, '\\');
        buf_byte(out, s.ptr[i]);
    }
    buf_byte(out, '"');
}

static void put_integer(const struct predicate *p, struct buf *out)
{
    static const char *const statuses[] = {"unset", "ok", "error"};
    int64_t n = p->value.integer;
    if (p->field == FIELD_STATUS && n >= 0 && n <= 2)
        buf_cstr(out, statuses[n]);
    else if (p->field == FIELD_KIND && n > 0 && *span_kind_tag((unsigned)n))
        buf_cstr(out, span_kind_tag((unsigned)n));
    else
        buf_printf(out, "%lld%s", (long long)n, p->field == FIELD_DURATION ? "ns" : "");
}

static void put_value(const struct predicate *p, struct buf *out)
{
    switch (p->value.type) {
    case VALUE_STRING:
        put_string(p->value.string, out);
        break;
    case VALUE_BOOL:
        buf_cstr(out, p->value.boolean ? "true" : "false");
        break;
    case VALUE_INT:
        put_integer(p, out);
        break;
    case VALUE_DOUBLE:
        buf_printf(out, "%.17g", p->value.real);
        break;
    default:
        buf_cstr(out, "nil");
    }
}

/* As deep as the predicate, which is no deeper than its query (TRACEQL_NODES_MAX). */
void explain_predicate(const struct predicate *p, struct buf *out)
{
    static const char *const operators[] = {
        [PREDICATE_EQ] = "=",     [PREDICATE_NE] = "!=", [PREDICATE_LT] = "<",
        [PREDICATE_LE] = "<=",    [PREDICATE_GT] = ">",  [PREDICATE_GE] = ">=",
        [PREDICATE_REGEX] = "=~",
    };
    switch (p->op) {
    case PREDICATE_TRUE:
        buf_cstr(out, "true");
        break;
    case PREDICATE_AND:
    case PREDICATE_OR:
        if (!p->n_children) {
            buf_cstr(out, p->op == PREDICATE_AND ? "true" : "false");
            break;
        }
        for (size_t i = 0; i < p->n_children; i++) {
            buf_cstr(out, i == 0 ? "(" : p->op == PREDICATE_AND ? " && " : " || ");
            explain_predicate(&p->children[i], out);
        }
        buf_byte(out, ')');
        break;
    case PREDICATE_NOT:
        buf_byte(out, '!');
        explain_predicate(p->children, out);
        break;
    case PREDICATE_EXISTS:
        put_field(p, out);
        buf_cstr(out, " exists");
        break;
    default:
        put_field(p, out);
        buf_printf(out, " %s ", operators[p->op]);
        put_value(p, out);
    }
}

/* ---- reasons ---- */

static unsigned field_reason(const struct traceql_expr *e)
{
    unsigned reasons = e->of_parent ? EXPLAIN_PLACE : 0;
    switch (e->field) {
    case TRACEQL_CHILD_COUNT:
    case TRACEQL_NESTED_LEFT:
    case TRACEQL_NESTED_RIGHT:
    case TRACEQL_NESTED_PARENT:
    case TRACEQL_PARENT_ID:
        return reasons | EXPLAIN_PLACE;
    case TRACEQL_TRACE_ID:
    case TRACEQL_TRACE_DURATION:
    case TRACEQL_ROOT_NAME:
    case TRACEQL_ROOT_SERVICE:
        return reasons | EXPLAIN_TRACE;
    case TRACEQL_SCOPE_NAME:
    case TRACEQL_SCOPE_VERSION:
    case TRACEQL_SCOPE_ATTR:
    case TRACEQL_EVENT_NAME:
    case TRACEQL_EVENT_SINCE_START:
    case TRACEQL_EVENT_ATTR:
    case TRACEQL_LINK_TRACE_ID:
    case TRACEQL_LINK_SPAN_ID:
    case TRACEQL_LINK_ATTR:
        return reasons | EXPLAIN_PARTS;
    default:
        return reasons;
    }
}

static unsigned expr_reasons(const struct traceql_expr *e)
{
    if (!e)
        return 0;
    if (e->node == TRACEQL_FIELD)
        return field_reason(e);
    unsigned own = e->op >= TRACEQL_ADD && e->node == TRACEQL_BINARY ? EXPLAIN_VALUES : 0;
    return own | expr_reasons(e->left) | expr_reasons(e->right);
}

static unsigned spanset_reasons(const struct traceql_spanset *s)
{
    if (!s)
        return 0;
    unsigned own = 0;
    if (s->op == TRACEQL_FILTER)
        own = expr_reasons(s->condition);
    else if (s->op == TRACEQL_SPANSET_AND)
        own = EXPLAIN_SPANSETS;
    else if (s->op >= TRACEQL_CHILD && s->op < TRACEQL_SPANSET_PIPELINE)
        own = EXPLAIN_STRUCTURE;
    else if (s->stages)
        own = explain_reasons(s->stages);
    return own | spanset_reasons(s->left) | spanset_reasons(s->right);
}

unsigned explain_reasons(const struct traceql_stage *stages)
{
    unsigned reasons = 0;
    for (; stages; stages = stages->next) {
        reasons |= spanset_reasons(stages->spanset);
        if (stages->type == TRACEQL_STAGE_SCALAR || stages->type == TRACEQL_STAGE_BY)
            reasons |= EXPLAIN_AGGREGATES;
    }
    return reasons;
}

const char *explain_reason_text(enum explain_reason reason)
{
    switch (reason) {
    case EXPLAIN_STRUCTURE:
        return "structure";
    case EXPLAIN_SPANSETS:
        return "filters joined by &&";
    case EXPLAIN_AGGREGATES:
        return "aggregates or groups";
    case EXPLAIN_TRACE:
        return "the trace's root, duration or id";
    case EXPLAIN_PLACE:
        return "places in the tree";
    case EXPLAIN_PARTS:
        return "events, links or instrumentation scopes";
    case EXPLAIN_VALUES:
        return "arithmetic";
    }
    return "comparisons that columns do not make";
}
