/* Who this process is, for readers outside of it (profilers): OpenTelemetry's process context (OTEP 4719). The resource is
 * published in a mapping that a reader finds by its name in /proc/PID/maps, "/memfd:OTEL_CTX (deleted)", or where anonymous memory
 * can be named, "[anon_shmem:OTEL_CTX]" and the like:
 *
 *     0   "OTEL_CTX"
 *     8   u32 version, 2
 *     12  u32 length of the payload
 *     16  u64 CLOCK_BOOTTIME when it was published; 0 while it is being written
 *     24  address of the payload
 *     32  the payload: opentelemetry.proto.processcontext.v1development.ProcessContext
 *
 * A child after fork does not have the mapping; it publishes its own when it records. */
#ifndef SDK_PROCESS_CONTEXT_H
#define SDK_PROCESS_CONTEXT_H

#include "sdk/options.h"

#define PROCESS_CONTEXT_SIGNATURE "OTEL_CTX"
#define PROCESS_CONTEXT_VERSION 2
#define PROCESS_CONTEXT_BYTES_MAX (64u << 10) /* what readers take */

struct process_context_header {
    char signature[8];
    uint32_t version;
    uint32_t payload_bytes;
    uint64_t published_ns;
    uint64_t payload;
};

/* Replaces what is published. Not being able to is no reason to fail: nothing is published then. */
void process_context_publish(const struct config *config);
void process_context_remove(void);
/* In the child: the parent's is not mapped here. */
void process_context_forked(void);

#endif
