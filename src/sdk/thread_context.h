/* The current span of each thread, for readers outside of the process or in a signal handler: OpenTelemetry's thread context (OTEP
 * 4947). The exported thread-local `otel_thread_ctx_v1` points to a record, or is NULL when there is no span:
 *
 *     0   trace id            16  span id            24  1: valid, 0: being written
 *     25  trace flags         26  u16 bytes of attributes that follow (none here)
 *
 * A reader looks at a thread that stands still (it is interrupted, or stopped), so the writer needs no more than compiler
 * fences. The initial-exec model keeps the access free of calls; the static part of thread-local storage that it needs is
 * a pointer and the record. */
#ifndef SDK_THREAD_CONTEXT_H
#define SDK_THREAD_CONTEXT_H

#include "sdk/lane.h"

struct thread_context {
    uint8_t trace_id[16];
    uint8_t span_id[8];
    uint8_t valid;
    uint8_t flags;
    uint16_t attrs_bytes;
};
_Static_assert(sizeof(struct thread_context) == 28, "the layout is OTEP 4947's");

extern __thread struct thread_context *otel_thread_ctx_v1
    __attribute__((tls_model("initial-exec")));

/* Of this thread, from its lane's slot; the base's is none. */
void thread_context_set(const struct lane *lane, const struct pug__slot *slot);

#endif
