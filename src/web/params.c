#include "web/web_internal.h"

#include <stdio.h>
#include <stdlib.h>

struct str web_param(struct web_request *q, const char *name)
{
    if (q->rpc)
        return q->rpc->param(q, name);
    struct str value = http_query(q->http, name, true);
    return value.len ? value : STR_NONE;
}

bool web_param_u64(struct web_request *q, const char *name, uint64_t least, uint64_t most,
                   uint64_t fallback, uint64_t *ret)
{
    struct str text = web_param(q, name);
    uint64_t n = fallback;
    if (text.ptr && (!str_to_u64(text, &n) || n < least || n > most)) {
        char message[96];
        if (most == UINT64_MAX)
            snprintf(message, sizeof message, "expected a whole number%s", least ? " above 0" : "");
        else
            snprintf(message, sizeof message, "expected a whole number from %llu to %llu",
                     (unsigned long long)least, (unsigned long long)most);
        web_fail_at(q, 400, name, 0, message);
        return false;
    }
    *ret = n;
    return true;
}

bool web_param_duration(struct web_request *q, const char *name, uint64_t *ret_ns, bool *ret_given)
{
    struct str text = web_param(q, name);
    *ret_given = text.ptr != NULL;
    if (text.ptr && (!str_to_duration_ns(text, ret_ns) || *ret_ns > INT64_MAX)) {
        web_fail_at(q, 400, name, 0, "expected a duration such as 1.5s, 200ms, 1h30m");
        return false;
    }
    return true;
}

bool web_param_trace_id(struct web_request *q, struct str text, const char *name,
                        struct trace_id *ret)
{
    q->trace_id = STR_NONE;
    if (!trace_id_parse(text, ret)) {
        web_fail_at(q, 400, name, 0, "expected a trace id of 1 to 32 hexadecimal digits");
        return false;
    }
    char *hex = arena_alloc(q->arena, 2 * TRACE_ID_SIZE);
    if (hex) {
        hex_put(hex, ret->bytes, TRACE_ID_SIZE);
        q->trace_id = (struct str){hex, 2 * TRACE_ID_SIZE};
    }
    return true;
}

void web_put_quoted(struct buf *out, struct str s)
{
    buf_byte(out, '"');
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] == '"' || s.ptr[i] == '\\')
            buf_byte(out, '\\');
        buf_byte(out, s.ptr[i]);
    }
    buf_byte(out, '"');
}

/* ---- conditions ---- */

static struct predicate *condition_add(struct conditions *c)
{
    if (c->n == c->capacity) {
        size_t capacity = c->capacity ? 2 * c->capacity : 8;
        struct predicate *items = arena_array(c->arena, capacity, sizeof *items);
        if (!items) {
            c->failed = true;
            return NULL;
        }
        if (c->n)
            memcpy(items, c->items, c->n * sizeof *items);
        c->items = items;
        c->capacity = capacity;
    }
    struct predicate *p = &c->items[c->n++];
    *p = (struct predicate){.op = PREDICATE_EQ};
    return p;
}

void conditions_string(struct conditions *c, enum predicate_field field, struct str value)
{
    struct predicate *p = condition_add(c);
    if (!p)
        return;
    p->field = field;
    p->value = (struct value){.type = VALUE_STRING, .string = value};
}

void conditions_integer(struct conditions *c, enum predicate_field field, enum predicate_op op,
                        int64_t value)
{
    struct predicate *p = condition_add(c);
    if (!p)
        return;
    p->op = op;
    p->field = field;
    p->value = (struct value){.type = VALUE_INT, .integer = value};
}

/* What Jaeger shows as a tag but is no attribute here. */
static bool synthetic_tag(struct str key, struct str value, struct predicate *ret)
{
    *ret = (struct predicate){.op = PREDICATE_EQ, .value = {.type = VALUE_INT}};
    uint8_t kind;
    if (str_eq(key, STR("error"))) {
        if (!str_eq(value, STR("true")) && !str_eq(value, STR("false")))
            return false;
        ret->op = str_eq(value, STR("true")) ? PREDICATE_EQ : PREDICATE_NE;
        ret->field = FIELD_STATUS;
        ret->value.integer = STATUS_ERROR;
        return true;
    }
    if (str_eq(key, STR("span.kind")) && span_kind_parse(value, &kind)) {
        ret->field = FIELD_KIND;
        ret->value.integer = kind;
        return true;
    }
    if (str_eq(key, STR("otel.status_code"))) {
        bool ok = str_eq_nocase(value, STR("OK"));
        if (!ok && !str_eq_nocase(value, STR("ERROR")))
            return false;
        ret->field = FIELD_STATUS;
        ret->value.integer = ok ? STATUS_OK : STATUS_ERROR;
        return true;
    }
    if (str_eq(key, STR("otel.status_description"))) {
        ret->field = FIELD_STATUS_MESSAGE;
        ret->value = (struct value){.type = VALUE_STRING, .string = value};
        return true;
    }
    return false;
}

void conditions_tag(struct conditions *c, struct str key, struct str value)
{
    struct predicate attribute = {
        .op = PREDICATE_EQ,
        .field = FIELD_ANY_ATTR,
        .key = key,
        .value = {.type = VALUE_STRING, .string = value},
        .untyped = true,
    };
    struct predicate synthetic;
    struct predicate *p = condition_add(c);
    if (!p)
        return;
    if (!synthetic_tag(key, value, &synthetic)) {
        *p = attribute;
        return;
    }
    struct predicate *either = arena_array(c->arena, 2, sizeof *either);
    if (!either) {
        c->failed = true;
        return;
    }
    either[0] = attribute;
    either[1] = synthetic;
    *p = (struct predicate){.op = PREDICATE_OR, .children = either, .n_children = 2};
}

const struct predicate *conditions_all(struct conditions *c)
{
    if (!c->n)
        return NULL;
    c->all = (struct predicate){
        .op = PREDICATE_AND,
        .children = c->items,
        .n_children = c->n,
    };
    return &c->all;
}
