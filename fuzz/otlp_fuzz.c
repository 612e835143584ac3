/* Decodes, encodes, decodes that and encodes again: both encodings must be the same bytes, and
 * nothing may be left out the second time. */
#include "wire/otlp.h"

#include <stdlib.h>

#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena arena = {.bytes_max = 64 << 20};
    struct buf once = BUF_INIT, twice = BUF_INIT;
    struct error_detail detail;
    struct span_batch batch, again;
    struct str body = {(const char *)data, size}, message;
    uint64_t rejected;
    int err = otlp_decode(body, &arena, &batch, &detail);
    if (err) {
        MUST(err < 0 && detail.code == err && detail.position <= size);
    } else {
        MUST((batch.n_rejected > 0) == (batch.rejected_reason != NULL));
        otlp_encode(&batch, &once);
        MUST(buf_ok(&once));
        MUST(otlp_decode(buf_as_str(&once), &arena, &again, &detail) == 0);
        MUST(again.n == batch.n && again.n_rejected == 0);
        otlp_encode(&again, &twice);
        MUST(str_eq(buf_as_str(&once), buf_as_str(&twice)));
    }
    if (otlp_decode_response(body, &rejected, &message) == 0)
        MUST(message.len <= size && rejected <= INT64_MAX);
    buf_done(&once);
    buf_done(&twice);
    arena_done(&arena);
    return 0;
}
