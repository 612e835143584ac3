#include "sdk/jaeger_context.h"

#include "sdk/span.h"

enum { SAMPLED = 1, DEBUG = 2 };

/* What stands before the next colon, plain or encoded; the rest as str_split leaves it. */
static struct str field(struct str s, struct str *ret_rest)
{
    for (size_t i = 0; i < s.len; i++) {
        size_t skip = s.ptr[i] == ':'                                                           ? 1
                      : s.len - i >= 3 && str_eq_nocase((struct str){s.ptr + i, 3}, STR("%3a")) ? 3
                                                                                                : 0;
        if (skip) {
            *ret_rest = str_skip(s, i + skip);
            return (struct str){s.ptr, i};
        }
    }
    *ret_rest = STR_NONE;
    return s;
}

enum found jaeger_context_parse(struct str text, struct pug_context *ret_context)
{
    struct str span_id, parent, flags_text, more;
    uint8_t flags = 0, parent_id[8];
    text = str_trim(text);
    struct str trace_id = field(text, &span_id);
    span_id = field(span_id, &parent);
    parent = field(parent, &flags_text);
    flags_text = field(flags_text, &more);
    bool zero = str_eq(flags_text, STR("0")) || str_eq(flags_text, STR("00"));
    if (!flags_text.ptr || more.ptr || !(zero || id_parse_short(flags_text, &flags, 1)))
        return FOUND_DAMAGED;
    /* 0 where there is none */
    for (size_t i = 0; i < parent.len; i++)
        if (parent.ptr[i] != '0' && !id_parse_short(parent, parent_id, 8))
            return FOUND_DAMAGED;
    span_context_clear(ret_context);
    if (!id_parse_short(trace_id, ret_context->trace_id, 16) ||
        !id_parse_short(span_id, ret_context->span_id, 8)) {
        span_context_clear(ret_context);
        return FOUND_DAMAGED;
    }
    ret_context->remote = 1;
    ret_context->flags = flags & (SAMPLED | DEBUG) ? PUG_FLAG_SAMPLED : 0;
    if (flags & DEBUG)
        context_set_debug(ret_context);
    return FOUND_CONTEXT;
}

size_t jaeger_context_put(const struct pug_context *context, char out[JAEGER_CONTEXT_MAX + 1])
{
    hex_put(out, context->trace_id, 16);
    out[32] = ':';
    hex_put(out + 33, context->span_id, 8);
    memcpy(out + 49, ":0:", 3);
    out[52] = context_is_debug(context) ? '3' : context->flags & PUG_FLAG_SAMPLED ? '1' : '0';
    out[53] = '\0';
    return 53;
}
