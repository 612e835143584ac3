/* Any file of spans: whatever the bytes, reading ends, and what was read is written and read again as the same. */
#include <stdlib.h>

#include "wire/otlp.h"
#include "wire/span_file.h"

#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int count(void *arg, const struct span_batch *batch)
{
    *(size_t *)arg += batch->n;
    return 0;
}

static int see(void *arg, const struct span_batch *batch)
{
    struct buf out = BUF_INIT;
    const char *kind;
    size_t n = 0;
    (void)arg;
    span_file_put(batch, &out);
    MUST(buf_ok(&out));
    if (batch->n) {
        MUST(!span_file_read(buf_as_str(&out), count, &n, &kind, NULL));
        MUST(n == batch->n);
    }
    buf_done(&out);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error_detail detail = {0};
    const char *kind;
    int err = span_file_read((struct str){(const char *)data, size}, see, NULL, &kind, &detail);
    MUST(!err || detail.message[0]);
    MUST(detail.position <= size);
    return 0;
}
