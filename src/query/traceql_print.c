/* Queries as text: fully parenthesised, and understood the same when read again. */
#include "query/traceql_parse.h"

/* Escapes can make bytes that are no text, and a query must be text. */
static void print_string(struct str s, struct buf *out)
{
    bool is_text = str_is_utf8(s);
    buf_byte(out, '"');
    for (size_t i = 0; i < s.len; i++) {
        uint8_t c = (uint8_t)s.ptr[i];
        if (c == '"' || c == '\\')
            buf_printf(out, "\\%c", c);
        else if (c < 0x20 || c == 0x7f || (c >= 0x80 && !is_text))
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
            if (e->of_parent)
                buf_cstr(out, e->field == TRACEQL_ANY_ATTR ? "parent" : "parent.");
            print_key(scopes[e->field], e->key, out);
            return;
        }
        buf_cstr(out, traceql_field_word(e->field));
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

static void print_stages(const struct traceql_stage *s, struct buf *out);

static const char *spanset_op_text(uint8_t op)
{
    static const char *const texts[] = {
        [TRACEQL_SPANSET_AND] = "&&",
        [TRACEQL_SPANSET_OR] = "||",
        [TRACEQL_CHILD] = ">",
        [TRACEQL_PARENT] = "<",
        [TRACEQL_DESCENDANT] = ">>",
        [TRACEQL_ANCESTOR] = "<<",
        [TRACEQL_SIBLING] = "~",
        [TRACEQL_NOT_CHILD] = "!>",
        [TRACEQL_NOT_PARENT] = "!<",
        [TRACEQL_NOT_DESCENDANT] = "!>>",
        [TRACEQL_NOT_ANCESTOR] = "!<<",
        [TRACEQL_NOT_SIBLING] = "!~",
        [TRACEQL_UNION_CHILD] = "&>",
        [TRACEQL_UNION_PARENT] = "&<",
        [TRACEQL_UNION_DESCENDANT] = "&>>",
        [TRACEQL_UNION_ANCESTOR] = "&<<",
        [TRACEQL_UNION_SIBLING] = "&~",
    };
    return texts[op];
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
    if (s->op == TRACEQL_SPANSET_PIPELINE) {
        print_stages(s->stages, out);
    } else {
        print_spanset(s->left, out);
        buf_printf(out, " %s ", spanset_op_text(s->op));
        print_spanset(s->right, out);
    }
    buf_byte(out, ')');
}

static void print_scalar(const struct traceql_scalar *s, struct buf *out)
{
    static const char *const words[] = {
        [TRACEQL_SCALAR_MIN] = "min",
        [TRACEQL_SCALAR_MAX] = "max",
        [TRACEQL_SCALAR_AVG] = "avg",
        [TRACEQL_SCALAR_SUM] = "sum",
    };
    switch ((enum traceql_scalar_type)s->node) {
    case TRACEQL_SCALAR_LITERAL: {
        struct traceql_expr e = {.node = TRACEQL_LITERAL, .type = s->type, .literal = s->literal};
        print_literal(&e, out);
        return;
    }
    case TRACEQL_SCALAR_COUNT:
        buf_cstr(out, "count()");
        return;
    case TRACEQL_SCALAR_PIPELINE:
        buf_byte(out, '(');
        print_stages(s->stages, out);
        buf_cstr(out, " | ");
        print_scalar(s->right, out);
        buf_byte(out, ')');
        return;
    case TRACEQL_SCALAR_UNARY:
        buf_cstr(out, "(-");
        print_scalar(s->right, out);
        buf_byte(out, ')');
        return;
    case TRACEQL_SCALAR_BINARY:
        buf_byte(out, '(');
        print_scalar(s->left, out);
        buf_printf(out, " %s ", traceql_op_text(s->op));
        print_scalar(s->right, out);
        buf_byte(out, ')');
        return;
    default:
        buf_printf(out, "%s(", words[s->node]);
        print_expr(s->field, out);
        buf_byte(out, ')');
    }
}

static void print_fields(const struct traceql_expr *const *fields, size_t n, struct buf *out)
{
    for (size_t i = 0; i < n; i++) {
        if (i)
            buf_cstr(out, ", ");
        print_expr(fields[i], out);
    }
}

static void print_stages(const struct traceql_stage *s, struct buf *out)
{
    for (const struct traceql_stage *first = s; s; s = s->next) {
        if (s != first)
            buf_cstr(out, " | ");
        switch ((enum traceql_stage_type)s->type) {
        case TRACEQL_STAGE_SPANSET:
            print_spanset(s->spanset, out);
            break;
        case TRACEQL_STAGE_SCALAR:
            print_scalar(s->left, out);
            buf_printf(out, " %s ", traceql_op_text(s->op));
            print_scalar(s->right, out);
            break;
        case TRACEQL_STAGE_COALESCE:
            buf_cstr(out, "coalesce()");
            break;
        case TRACEQL_STAGE_BY:
        case TRACEQL_STAGE_SELECT:
            buf_cstr(out, s->type == TRACEQL_STAGE_BY ? "by(" : "select(");
            print_fields(s->fields, s->n_fields, out);
            buf_byte(out, ')');
            break;
        }
    }
}

static void print_number(double n, struct buf *out)
{
    buf_printf(out, "%.17e", n);
}

static void print_metric(const struct traceql_metric *m, struct buf *out);

static void print_function(const struct traceql_metric *m, struct buf *out)
{
    static const char *const words[] = {
        [TRACEQL_RATE] = "rate",
        [TRACEQL_COUNT_OVER_TIME] = "count_over_time",
        [TRACEQL_MIN_OVER_TIME] = "min_over_time",
        [TRACEQL_MAX_OVER_TIME] = "max_over_time",
        [TRACEQL_AVG_OVER_TIME] = "avg_over_time",
        [TRACEQL_SUM_OVER_TIME] = "sum_over_time",
        [TRACEQL_QUANTILE_OVER_TIME] = "quantile_over_time",
        [TRACEQL_HISTOGRAM_OVER_TIME] = "histogram_over_time",
        [TRACEQL_COMPARE] = "compare",
    };
    print_stages(m->stages, out);
    buf_printf(out, " | %s(", words[m->node]);
    if (m->field)
        print_expr(m->field, out);
    for (size_t i = 0; i < m->n_quantiles; i++) {
        buf_cstr(out, ", ");
        print_number(m->quantiles[i], out);
    }
    if (m->selection) {
        print_spanset(m->selection, out);
        buf_printf(out, ", %lld", (long long)m->top_n);
        if (m->start_ns)
            buf_printf(out, ", %lld, %lld", (long long)m->start_ns, (long long)m->end_ns);
    }
    buf_byte(out, ')');
    if (m->n_by) {
        buf_cstr(out, " by (");
        print_fields(m->by, m->n_by, out);
        buf_byte(out, ')');
    }
}

static void print_metric(const struct traceql_metric *m, struct buf *out)
{
    if (m->node == TRACEQL_METRIC_LITERAL) {
        print_number(m->literal, out);
        return;
    }
    buf_byte(out, '(');
    if (m->node == TRACEQL_METRIC_BINARY) {
        print_metric(m->left, out);
        buf_printf(out, " %s ", traceql_op_text(m->op));
        print_metric(m->right, out);
    } else {
        print_function(m, out);
    }
    for (const struct traceql_series_stage *s = m->then; s; s = s->next) {
        if (s->type == TRACEQL_SERIES_FILTER) {
            buf_printf(out, " %s ", traceql_op_text(s->op));
            print_number(s->value, out);
        } else {
            buf_printf(out, " | %s(%lld)", s->type == TRACEQL_TOPK ? "topk" : "bottomk",
                       (long long)s->n);
        }
    }
    buf_byte(out, ')');
}

void traceql_print(const struct traceql *q, struct buf *out)
{
    if (q->metric)
        print_metric(q->metric, out);
    else
        print_stages(q->stages, out);
    if (!q->hints)
        return;
    buf_cstr(out, " with (");
    for (const struct traceql_hint *h = q->hints; h; h = h->next) {
        struct traceql_expr e = {.node = TRACEQL_LITERAL, .type = h->type, .literal = h->value};
        buf_printf(out, "%s%.*s=", h == q->hints ? "" : ", ", STR_ARG(h->name));
        print_literal(&e, out);
    }
    buf_byte(out, ')');
}

/* Whether the name of an attribute needs no quotes. */
static bool is_plain(struct str key)
{
    for (size_t i = 0; i < key.len; i++)
        if ((uint8_t)key.ptr[i] <= ' ' || strchr("{}()=~!<>&|^,\"\\", key.ptr[i]))
            return false;
    return key.len > 0;
}

void traceql_print_field(const struct traceql_expr *e, struct buf *out)
{
    size_t before = out->len;
    print_expr(e, out);
    if (e->node != TRACEQL_FIELD || e->field < TRACEQL_SPAN_ATTR || !is_plain(e->key) ||
        !buf_ok(out))
        return;
    /* The quotes are around the key, at the end. */
    size_t quote = out->len - e->key.len - 2;
    if (quote < before)
        return;
    memmove(out->ptr + quote, e->key.ptr, e->key.len);
    out->len -= 2;
}

/* ---- what an answer shows ---- */

static void show_expr(const struct traceql_expr *e, struct traceql_shown *shown)
{
    if (!e)
        return;
    if (e->node != TRACEQL_FIELD) {
        show_expr(e->left, shown);
        show_expr(e->right, shown);
        return;
    }
    for (size_t i = 0; i < shown->n; i++)
        if (shown->fields[i]->field == e->field && shown->fields[i]->of_parent == e->of_parent &&
            str_eq(shown->fields[i]->key, e->key))
            return;
    if (shown->n < TRACEQL_SHOWN_MAX)
        shown->fields[shown->n++] = e;
}

static void show_stages(const struct traceql_stage *stages, bool filters,
                        struct traceql_shown *shown);

static void show_spanset(const struct traceql_spanset *s, bool filters, struct traceql_shown *shown)
{
    if (!s)
        return;
    if (filters)
        show_expr(s->condition, shown);
    show_spanset(s->left, filters, shown);
    show_spanset(s->right, filters, shown);
    show_stages(s->stages, filters, shown);
}

static void show_stages(const struct traceql_stage *stages, bool filters,
                        struct traceql_shown *shown)
{
    for (; stages; stages = stages->next) {
        show_spanset(stages->spanset, filters, shown);
        for (size_t i = 0; stages->type == TRACEQL_STAGE_SELECT && i < stages->n_fields; i++)
            show_expr(stages->fields[i], shown);
    }
}

void traceql_shown(const struct traceql *q, bool filters, struct traceql_shown *ret)
{
    ret->n = 0;
    show_stages(q->stages, filters, ret);
}

bool traceql_print_label(const struct traceql_label *label, struct buf *out)
{
    static const char *const words[] = {
        [TRACEQL_SCALAR_COUNT] = "count", [TRACEQL_SCALAR_MIN] = "min",
        [TRACEQL_SCALAR_MAX] = "max",     [TRACEQL_SCALAR_AVG] = "avg",
        [TRACEQL_SCALAR_SUM] = "sum",
    };
    const struct traceql_expr *field = label->by;
    const char *word = "by";
    if (!label->by) {
        if (label->scalar->node < TRACEQL_SCALAR_COUNT || label->scalar->node > TRACEQL_SCALAR_SUM)
            return false;
        word = words[label->scalar->node];
        field = label->scalar->field;
    }
    buf_printf(out, "%s(", word);
    if (field)
        traceql_print_field(field, out);
    buf_byte(out, ')');
    return true;
}
