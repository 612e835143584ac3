/* Decodes JSON, encodes it as JSON and as protobuf, and decodes both: all three must be the same
 * spans, seen as protobuf. */
#include "wire/otlp_json.h"

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
    struct buf json = BUF_INIT, bytes = BUF_INIT, again = BUF_INIT;
    struct error_detail detail;
    struct span_batch batch, other;
    int err = otlp_json_decode((struct str){(const char *)data, size}, &arena, &batch, &detail);
    if (err) {
        MUST(err < 0 && detail.code == err && detail.position <= size);
    } else {
        struct json_writer w = json_writer(&json);
        MUST((batch.n_rejected > 0) == (batch.rejected_reason != NULL));
        otlp_json_encode(&batch, &w);
        otlp_encode(&batch, &bytes);
        MUST(buf_ok(&json) && buf_ok(&bytes));
        MUST(otlp_json_decode(buf_as_str(&json), &arena, &other, &detail) == 0);
        MUST(other.n == batch.n && other.n_rejected == 0);
        otlp_encode(&other, &again);
        MUST(str_eq(buf_as_str(&bytes), buf_as_str(&again)));
        buf_clear(&again);
        MUST(otlp_decode(buf_as_str(&bytes), &arena, &other, &detail) == 0);
        MUST(other.n == batch.n && other.n_rejected == 0);
        otlp_encode(&other, &again);
        MUST(str_eq(buf_as_str(&bytes), buf_as_str(&again)));
    }
    struct str message;
    uint64_t rejected;
    if (otlp_json_decode_response((struct str){(const char *)data, size}, &arena, &rejected,
                                  &message) == 0)
        MUST(message.len <= size);
    buf_done(&json);
    buf_done(&bytes);
    buf_done(&again);
    arena_done(&arena);
    return 0;
}
