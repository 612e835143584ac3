#include "sdk/b3.h"

#include "sdk/span.h"

/* A trace id of exactly 16 or 32 digits, a span id of 16. */
static bool ids_parse(struct str trace_id, struct str span_id, struct pug_context *ret)
{
    return (trace_id.len == 16 || trace_id.len == 32) && span_id.len == 16 &&
           id_parse_short(trace_id, ret->trace_id, 16) && id_parse_short(span_id, ret->span_id, 8);
}

/* 'd', '0', '1', or 0 for what is none of them. "true" and "false" are of before the format was
 * written down. */
static char decision_of(struct str s)
{
    if (s.len == 1 && (s.ptr[0] == '0' || s.ptr[0] == '1' || s.ptr[0] == 'd'))
        return s.ptr[0];
    return str_eq_nocase(s, STR("true")) ? '1' : str_eq_nocase(s, STR("false")) ? '0' : '\0';
}

/* A decision without ids: only "no" can be acted upon before there is a trace. */
static enum found decision_alone(char decision, struct pug_context *ret_context)
{
    if (decision == '0') {
        context_denied(ret_context);
        return FOUND_CONTEXT;
    }
    return decision ? FOUND_NONE : FOUND_DAMAGED;
}

static enum found context_done(struct pug_context *c, char decision)
{
    c->flags = decision == '0' ? 0 : PUG_FLAG_SAMPLED;
    c->remote = 1;
    if (decision == 'd')
        context_set_debug(c);
    return FOUND_CONTEXT;
}

enum found b3_parse(struct str text, struct pug_context *ret_context)
{
    struct str span_id, decision, parent, more;
    uint8_t parent_id[8];
    text = str_trim(text);
    struct str trace_id = str_split(text, '-', &span_id);
    if (!span_id.ptr)
        return decision_alone(decision_of(text), ret_context);
    span_id = str_split(span_id, '-', &decision);
    char state = '1';
    if (decision.ptr) {
        decision = str_split(decision, '-', &parent);
        state = decision.len == 1 ? decision_of(decision) : '\0';
        if (parent.ptr) {
            parent = str_split(parent, '-', &more);
            if (more.ptr || !hex_get(parent_id, parent, 8))
                return FOUND_DAMAGED;
        }
    }
    span_context_clear(ret_context);
    if (!state || !ids_parse(trace_id, span_id, ret_context)) {
        span_context_clear(ret_context);
        return FOUND_DAMAGED;
    }
    return context_done(ret_context, state);
}

enum found b3_multi_parse(struct str trace_id, struct str span_id, struct str sampled,
                          struct str flags, struct pug_context *ret_context)
{
    char decision = sampled.ptr ? decision_of(str_trim(sampled)) : '\0';
    if (sampled.ptr && (!decision || decision == 'd'))
        return FOUND_DAMAGED;
    /* Flags: 1 is debug, which implies "yes"; all else says nothing. */
    if (flags.ptr && str_eq(str_trim(flags), STR("1")))
        decision = 'd';
    if (!trace_id.ptr && !span_id.ptr)
        return decision ? decision_alone(decision, ret_context) : FOUND_NONE;
    span_context_clear(ret_context);
    if (!ids_parse(str_trim(trace_id), str_trim(span_id), ret_context)) {
        span_context_clear(ret_context);
        return FOUND_DAMAGED;
    }
    return context_done(ret_context, decision ? decision : '1');
}

size_t b3_put(const struct pug_context *context, char out[B3_MAX + 1])
{
    hex_put(out, context->trace_id, 16);
    out[32] = '-';
    hex_put(out + 33, context->span_id, 8);
    out[49] = '-';
    out[50] = context_is_debug(context) ? 'd' : context->flags & PUG_FLAG_SAMPLED ? '1' : '0';
    out[51] = '\0';
    return 51;
}
