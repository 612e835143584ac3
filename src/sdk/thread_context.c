#include "sdk/thread_context.h"

#include "sdk/span.h"

#include <stdatomic.h>

__thread struct thread_context *otel_thread_ctx_v1 __attribute__((tls_model("initial-exec")));
static __thread struct thread_context record __attribute__((tls_model("initial-exec")));

void thread_context_set(const struct lane *lane, const struct pug__slot *slot)
{
    struct pug_context c;
    if (slot == lane->slots) {
        otel_thread_ctx_v1 = NULL;
        return;
    }
    span_slot_context(lane, slot, &c);
    record.valid = 0;
    atomic_signal_fence(memory_order_seq_cst);
    memcpy(record.trace_id, c.trace_id, sizeof record.trace_id);
    memcpy(record.span_id, c.span_id, sizeof record.span_id);
    record.flags = c.flags;
    atomic_signal_fence(memory_order_seq_cst);
    record.valid = 1;
    atomic_signal_fence(memory_order_seq_cst);
    otel_thread_ctx_v1 = &record;
}
