/* What the decoders of other formats promise: an error has its place in the input, and what was
 * taken is the same spans again when the log gives it back as OTLP, with none left out. */
#ifndef FUZZ_FOREIGN_H
#define FUZZ_FOREIGN_H

#include "wire/otlp.h"

#include <stdlib.h>

#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

typedef int foreign_decode_fn(struct str body, struct arena *arena, struct span_batch *ret_batch,
                              struct error_detail *ret_detail);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static inline void foreign_check(foreign_decode_fn *decode, const uint8_t *data, size_t size)
{
    struct arena arena = {.bytes_max = 64 << 20};
    struct buf bytes = BUF_INIT, again = BUF_INIT;
    struct error_detail detail = {0};
    struct span_batch batch, other;
    int err = decode((struct str){(const char *)data, size}, &arena, &batch, &detail);
    if (err) {
        MUST(err < 0 && detail.position <= size);
        MUST(err == ERR_NOMEM || detail.code == err);
    } else {
        MUST((batch.n_rejected > 0) == (batch.rejected_reason != NULL));
        otlp_encode(&batch, &bytes);
        MUST(buf_ok(&bytes));
        MUST(otlp_decode(buf_as_str(&bytes), &arena, &other, &detail) == 0);
        MUST(other.n == batch.n && other.n_rejected == 0);
        otlp_encode(&other, &again);
        MUST(str_eq(buf_as_str(&bytes), buf_as_str(&again)));
    }
    buf_done(&bytes);
    buf_done(&again);
    arena_done(&arena);
}

#endif
