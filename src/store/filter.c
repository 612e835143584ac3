#include "store/filter.h"

#include <stdlib.h>

static void filter_done(struct filter *f)
{
    pattern_free(f->regex);
    for (size_t i = 0; i < f->n_children; i++)
        filter_done(&f->children[i]);
    free(f->children);
}

void filter_free(struct filter *f)
{
    if (!f)
        return;
    filter_done(f);
    free(f);
}

/* What cannot be an expression leaves `never`. */
static int regex_init(struct filter *f)
{
    int err = f->value.type == VALUE_STRING ? pattern_new(f->value.string, &f->regex, NULL)
                                            : ERR_INVALID;
    f->never = err != 0;
    return err == ERR_NOMEM ? err : 0;
}

static int filter_init(struct filter *f, const struct predicate *p, unsigned *leaves)
{
    *f = (struct filter){
        .op = p->op, .field = p->field, .key = p->key, .value = p->value, .untyped = p->untyped};
    switch (p->op) {
    case PREDICATE_TRUE:
        return 0;
    case PREDICATE_AND:
    case PREDICATE_OR:
    case PREDICATE_NOT:
        if (!p->n_children)
            return 0;
        f->children = calloc(p->n_children, sizeof *f->children);
        if (!f->children)
            return ERR_NOMEM;
        for (size_t i = 0; i < p->n_children; i++) {
            f->n_children = i + 1;
            int err = filter_init(&f->children[i], &p->children[i], leaves);
            if (err)
                return err;
        }
        return 0;
    default:
        f->leaf = (*leaves)++;
        return p->op == PREDICATE_REGEX ? regex_init(f) : 0;
    }
}

int filter_new(const struct predicate *p, struct filter **ret_filter, unsigned *ret_leaves)
{
    static const struct predicate every = {.op = PREDICATE_TRUE};
    struct filter *f = malloc(sizeof *f);
    if (!f)
        return ERR_NOMEM;
    unsigned leaves = 0;
    int err = filter_init(f, p ? p : &every, &leaves);
    if (err) {
        filter_free(f);
        return err;
    }
    *ret_filter = f;
    if (ret_leaves)
        *ret_leaves = leaves;
    return 0;
}

/* The order of two numbers, exact also where a double cannot hold the integer. False for a NaN. */
static bool integer_vs_real(int64_t n, double d, int *ret)
{
    if (d != d)
        return false;
    if (d >= 0x1p63)
        *ret = -1;
    else if (d < -0x1p63)
        *ret = 1;
    else {
        int64_t whole = (int64_t)d; /* toward zero */
        double part = d - (double)whole;
        *ret = n != whole ? (n < whole ? -1 : 1) : part > 0 ? -1 : part < 0 ? 1 : 0;
    }
    return true;
}

/* False when the two have no order: different types, or a NaN. */
static bool value_order(const struct value *a, const struct value *b, int *ret)
{
    if (a->type == VALUE_INT && b->type == VALUE_INT) {
        *ret = (a->integer > b->integer) - (a->integer < b->integer);
        return true;
    }
    if (a->type == VALUE_INT && b->type == VALUE_DOUBLE)
        return integer_vs_real(a->integer, b->real, ret);
    if (a->type == VALUE_DOUBLE && b->type == VALUE_INT) {
        if (!integer_vs_real(b->integer, a->real, ret))
            return false;
        *ret = -*ret;
        return true;
    }
    if (a->type != b->type)
        return false;
    switch (a->type) {
    case VALUE_DOUBLE:
        *ret = (a->real > b->real) - (a->real < b->real);
        return a->real == a->real && b->real == b->real;
    case VALUE_STRING:
    case VALUE_BYTES:
        *ret = str_cmp(a->string, b->string);
        return true;
    case VALUE_BOOL:
        *ret = (int)a->boolean - (int)b->boolean;
        return true;
    default:
        return false;
    }
}

/* Whether `text` is how a person writes `v`. */
static bool text_is_value(struct str text, const struct value *v)
{
    switch (v->type) {
    case VALUE_INT: {
        int64_t n;
        return str_to_i64(text, &n) && n == v->integer;
    }
    case VALUE_BOOL:
        return str_eq(text, v->boolean ? STR("true") : STR("false"));
    case VALUE_DOUBLE: {
        char digits[64], *end;
        if (text.len == 0 || text.len >= sizeof digits || memchr(" \t\n\r\v\f", *text.ptr, 6))
            return false;
        memcpy(digits, text.ptr, text.len);
        digits[text.len] = '\0';
        double d = strtod(digits, &end);
        return end == digits + text.len && (d == v->real || (d != d && v->real != v->real));
    }
    default:
        return false;
    }
}

static bool value_equal(const struct filter *f, const struct value *v)
{
    int order;
    if (value_order(v, &f->value, &order))
        return order == 0;
    if (f->untyped && f->value.type == VALUE_STRING && v->type != VALUE_STRING)
        return text_is_value(f->value.string, v);
    return value_eq(v, &f->value);
}

static bool scalar_fulfils(const struct filter *f, const struct value *v)
{
    int order;
    switch (f->op) {
    case PREDICATE_EXISTS:
        return true;
    case PREDICATE_EQ:
        return value_equal(f, v);
    case PREDICATE_NE:
        return !value_equal(f, v);
    case PREDICATE_LT:
        return value_order(v, &f->value, &order) && order < 0;
    case PREDICATE_LE:
        return value_order(v, &f->value, &order) && order <= 0;
    case PREDICATE_GT:
        return value_order(v, &f->value, &order) && order > 0;
    case PREDICATE_GE:
        return value_order(v, &f->value, &order) && order >= 0;
    case PREDICATE_REGEX:
        return !f->never && v->type == VALUE_STRING && pattern_match(f->regex, v->string);
    default:
        return false;
    }
}

/* One of its elements does; different is what has none that is equal. */
static bool array_fulfils(const struct filter *f, const struct value *v)
{
    bool all = f->op == PREDICATE_NE;
    for (size_t i = 0; i < v->array.n; i++)
        if (scalar_fulfils(f, &v->array.items[i]) != all)
            return !all;
    return all;
}

bool filter_value(const struct filter *f, const struct value *v)
{
    if (!v)
        return false;
    bool by_element = v->type == VALUE_ARRAY && f->value.type != VALUE_ARRAY;
    return by_element && f->op != PREDICATE_EXISTS ? array_fulfils(f, v) : scalar_fulfils(f, v);
}

bool filter_string(const struct filter *f, struct str s)
{
    return filter_value(f, &(struct value){.type = VALUE_STRING, .string = s});
}

bool filter_integer(const struct filter *f, int64_t n)
{
    return filter_value(f, &(struct value){.type = VALUE_INT, .integer = n});
}

/* Durations and times beyond 63 bits are the largest integer: they are above all that can be asked.
 */
static int64_t integer_from(uint64_t n)
{
    return n > INT64_MAX ? INT64_MAX : (int64_t)n;
}

static bool filter_attr(const struct filter *f, const struct attrs *attrs)
{
    const struct attr *a = attrs_find(attrs, f->key);
    return a && filter_value(f, &a->value);
}

static bool filter_resource(const struct filter *f, const struct resource *r)
{
    struct resource_derived derived;
    const struct attr *a = resource_attr_find(r, f->key, &derived);
    return a && filter_value(f, &a->value);
}

bool filter_span(const struct filter *f, const struct span *s)
{
    switch (f->op) {
    case PREDICATE_TRUE:
        return true;
    case PREDICATE_AND:
        for (size_t i = 0; i < f->n_children; i++)
            if (!filter_span(&f->children[i], s))
                return false;
        return true;
    case PREDICATE_OR:
        for (size_t i = 0; i < f->n_children; i++)
            if (filter_span(&f->children[i], s))
                return true;
        return false;
    case PREDICATE_NOT:
        return f->n_children == 0 || !filter_span(&f->children[0], s);
    default:
        break;
    }
    switch (f->field) {
    case FIELD_NAME:
        return filter_string(f, s->name);
    case FIELD_SERVICE:
        return filter_string(f, s->resource->service_name);
    case FIELD_KIND:
        return filter_integer(f, s->kind);
    case FIELD_STATUS:
        return filter_integer(f, s->status_code);
    case FIELD_STATUS_MESSAGE:
        return (f->op != PREDICATE_EXISTS || s->status_message.len) &&
               filter_string(f, s->status_message);
    case FIELD_DURATION:
        return filter_integer(f, integer_from(span_duration_ns(s)));
    case FIELD_START:
        return filter_integer(f, integer_from(s->start_ns));
    case FIELD_IS_ROOT:
        return filter_value(
            f, &(struct value){.type = VALUE_BOOL, .boolean = span_id_is_zero(&s->parent_id)});
    case FIELD_SPAN_ATTR:
        return filter_attr(f, &s->attrs);
    case FIELD_RESOURCE_ATTR:
        return filter_resource(f, s->resource);
    case FIELD_ANY_ATTR: {
        const struct attr *a = attrs_find(&s->attrs, f->key);
        return a ? filter_value(f, &a->value) : filter_resource(f, s->resource);
    }
    }
    return false;
}

static bool value_copy(struct value *v, struct arena *arena)
{
    bool is_text = v->type == VALUE_STRING || v->type == VALUE_BYTES;
    if (is_text && v->string.len)
        v->string = arena_str(arena, v->string);
    return !is_text || !v->string.len || v->string.ptr;
}

static bool copy_into(struct predicate *to, const struct predicate *p, struct arena *arena)
{
    struct predicate *children = NULL;
    *to = *p;
    if (p->key.len && !(to->key = arena_str(arena, p->key)).ptr)
        return false;
    if (!value_copy(&to->value, arena))
        return false;
    if (p->n_children && !(children = arena_array(arena, p->n_children, sizeof *children)))
        return false;
    for (size_t i = 0; i < p->n_children; i++)
        if (!copy_into(&children[i], &p->children[i], arena))
            return false;
    to->children = children;
    return true;
}

const struct predicate *predicate_copy(const struct predicate *p, struct arena *arena)
{
    struct predicate *copy = arena_alloc(arena, sizeof *copy);
    return copy && copy_into(copy, p, arena) ? copy : NULL;
}

bool predicate_match(const struct predicate *p, const struct span *span)
{
    struct filter *f;
    if (filter_new(p, &f, NULL))
        return false;
    bool yes = filter_span(f, span);
    filter_free(f);
    return yes;
}
