/* A log file: whatever the bytes, reading ends, stays inside them, and goes on only forward. */
#include <stdlib.h>

#include "store/local/log.h"

#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct seen {
    struct str file;
    const char *behind; /* the end of the body before */
};

static int see(void *arg, uint64_t sequence, const struct log_body *body)
{
    struct seen *seen = arg;
    (void)sequence;
    MUST(body->body.ptr >= seen->behind);
    MUST(body->body.len <= (size_t)(seen->file.ptr + seen->file.len - body->body.ptr));
    seen->behind = body->body.ptr + body->body.len;
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str file = {(const char *)data, size};
    struct seen seen = {file, file.ptr};
    uint64_t good = 0;
    if (!log_read(file, see, NULL, &seen, &good))
        MUST(good >= LOG_HEADER_SIZE && good <= size);
    return 0;
}
