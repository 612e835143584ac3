/* Contexts as values: ids to digits and back. */
#include "model/span.h"
#include "sdk/span.h"

#include "base/err.h"

void span_context_clear(struct pug_context *context)
{
    memset(context, 0, offsetof(struct pug_context, tracestate));
}

int pug_context_valid(const struct pug_context *context)
{
    static const uint8_t zeros[16];
    return context && memcmp(context->trace_id, zeros, sizeof context->trace_id) != 0 &&
           memcmp(context->span_id, zeros, sizeof context->span_id) != 0;
}

int pug_context_from_hex(struct pug_context *ret, const char *trace_id, const char *span_id)
{
    struct pug_context c;
    span_context_clear(&c);
    if (!trace_id || !span_id || !hex_get(c.trace_id, str_from(trace_id), 16) ||
        !hex_get(c.span_id, str_from(span_id), 8) || !pug_context_valid(&c))
        return PUG_ERR_INVALID;
    c.flags = PUG_FLAG_SAMPLED; /* it was kept, or nobody would have its id */
    c.remote = 1;
    *ret = c;
    return 0;
}

void pug_trace_id_hex(const struct pug_context *context, char out[33])
{
    out[0] = '\0';
    if (!pug_context_valid(context))
        return;
    hex_put(out, context->trace_id, 16);
    out[32] = '\0';
}

void pug_span_id_hex(const struct pug_context *context, char out[17])
{
    out[0] = '\0';
    if (!pug_context_valid(context))
        return;
    hex_put(out, context->span_id, 8);
    out[16] = '\0';
}

const char *pug_error_text(int code)
{
    return code == PUG_ERR_BUSY ? "started already" : err_text(code);
}
