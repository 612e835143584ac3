#include "sdk/span.h"

#include "base/err.h"
#include <string.h>

int pug__on_1;
__thread struct pug__lane *pug__lane_1 __attribute__((tls_model("initial-exec")));

int pug_start(const struct pug_options *options)
{
    return options && options->tracing == PUG_TRACING_ON ? PUG_ERR_UNSUPPORTED : 0;
}
int pug_stop(void)
{
    return 0;
}
int pug_flush(unsigned timeout_ms)
{
    return 0;
}
int pug_on(void)
{
    return 0;
}
void pug_counts(struct pug_counts *ret_counts)
{
    *ret_counts = (struct pug_counts){.size = sizeof *ret_counts};
}
struct pug__lane *pug__lane_claim(void)
{
    return NULL;
}
struct pug__slot *pug__open_slow(struct pug__lane *lane, struct pug__site *site)
{
    return NULL;
}
void pug__end_slow(struct pug__slot *slot, uint64_t now)
{
}
uint64_t pug__clock_slow(void)
{
    return 0;
}
void pug__copy(char *to, const char *from, size_t n)
{
    memcpy(to, from, n);
}
void pug__span_none(struct pug_span *span)
{
    span_context_clear(&span->context);
    span->pug__state = 0;
}
void pug__event(struct pug_span *span, struct pug__site *site, const union pug__value *values)
{
}
void pug__span_start(struct pug_span *span, const struct pug_context *from, struct pug__site *site,
                     const union pug__value *values)
{
    pug__span_none(span);
}
struct pug__slot *pug__attach(const struct pug_context *context)
{
    return NULL;
}
void pug__detach(struct pug__slot *slot)
{
}
pug_attachment pug_context_attach(const struct pug_context *context)
{
    return NULL;
}
void pug_context_detach(pug_attachment attachment)
{
}
void pug_span_end(struct pug_span *span)
{
}
void pug_set_int(struct pug_span *span, const char *key, int64_t value)
{
}
void pug_set_bool(struct pug_span *span, const char *key, int value)
{
}
void pug_set_double(struct pug_span *span, const char *key, double value)
{
}
void pug_set_str(struct pug_span *span, const char *key, const char *value)
{
}
void pug_set_strn(struct pug_span *span, const char *key, const char *value, size_t len)
{
}
void pug_set_name(struct pug_span *span, const char *name)
{
}
void pug_status(struct pug_span *span, enum pug_status_code code, const char *message)
{
}
void pug_error(struct pug_span *span, const char *message)
{
}
void pug_link(struct pug_span *span, const struct pug_context *to)
{
}
void span_current_context(struct pug_context *ret_context)
{
    span_context_clear(ret_context);
}
struct pug_context pug_context_current(void)
{
    struct pug_context c;
    span_current_context(&c);
    return c;
}
