#include "sdk/process_context.h"

#include "base/clock.h"
#include "wire/otlp.h"
#include "wire/protobuf.h"

#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif
#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#define PR_SET_VMA_ANON_NAME 0
#endif

/* Under the lock of start and stop. */
static struct process_context_header *published;
static size_t published_bytes;

/* How the current span of a thread is found: thread_context.h. */
static const struct attr thread_attrs[] = {
    {.key = {"threadlocal.schema_version", 26},
     .value = {.type = VALUE_STRING, .string = {"tlsdesc_v1_dev", 14}}}};

static bool encode(const struct config *config, struct buf *out)
{
    enum { CONTEXT_RESOURCE = PB_TAG(1, PB_BYTES), CONTEXT_ATTRIBUTES = PB_TAG(2, PB_BYTES) };
    struct attrs attrs = {thread_attrs, config->thread_context ? 1 : 0, 0};
    otlp_encode_resource(&config->resource, CONTEXT_RESOURCE, out);
    otlp_encode_attrs(&attrs, CONTEXT_ATTRIBUTES, out);
    return !out->failed && out->len <= PROCESS_CONTEXT_BYTES_MAX;
}

static void *map_new(size_t bytes)
{
    int fd = memfd_create("OTEL_CTX", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
    if (fd < 0) /* before Linux 6.3 */
        fd = memfd_create("OTEL_CTX", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    void *p = MAP_FAILED;
    if (fd >= 0 && ftruncate(fd, (off_t)bytes) == 0)
        p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    if (fd >= 0)
        close(fd);
    if (p == MAP_FAILED)
        p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    if (madvise(p, bytes, MADV_DONTFORK) != 0) {
        munmap(p, bytes);
        return NULL;
    }
    return p;
}

void process_context_publish(const struct config *config)
{
    struct buf payload = {.bytes_max = PROCESS_CONTEXT_BYTES_MAX + 1024};
    process_context_remove();
    if (config->process_context && encode(config, &payload)) {
        size_t bytes = sizeof *published + payload.len;
        struct process_context_header *h = map_new(bytes);
        if (h) {
            /* The time goes last: until then there is nothing to read. */
            memcpy(h + 1, payload.ptr, payload.len);
            memcpy(h->signature, PROCESS_CONTEXT_SIGNATURE, sizeof h->signature);
            h->version = PROCESS_CONTEXT_VERSION;
            h->payload_bytes = (uint32_t)payload.len;
            h->payload = (uintptr_t)(h + 1);
            __atomic_store_n(&h->published_ns, clock_ns(CLOCK_BOOTTIME), __ATOMIC_RELEASE);
            (void)prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, h, bytes, PROCESS_CONTEXT_SIGNATURE);
            published = h;
            published_bytes = bytes;
        }
    }
    buf_done(&payload);
}

void process_context_remove(void)
{
    if (!published)
        return;
    __atomic_store_n(&published->published_ns, 0, __ATOMIC_RELEASE);
    munmap(published, published_bytes);
    published = NULL;
}

void process_context_forked(void)
{
    published = NULL;
}
