/* Protobuf, and JSON when the first byte is a brace: decodes, encodes, decodes that and encodes again;
 * both encodings must be the same bytes, and nothing may be left out the second time. */
#include "wire/otlp_metrics.h"

#include <stdlib.h>

#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

static void encode(const struct metric_batches *b, struct buf *out)
{
    for (size_t i = 0; i < b->n; i++)
        otlp_metrics_encode(&b->items[i], out);
    MUST(buf_ok(out));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena arena = {.bytes_max = 64 << 20};
    struct buf once = BUF_INIT, twice = BUF_INIT;
    struct error_detail detail;
    struct metric_batches batch, again;
    struct str body = {(const char *)data, size};
    bool is_json = size && data[0] == '{';
    int err = is_json ? otlp_metrics_json_decode(body, &arena, &batch, &detail)
                      : otlp_metrics_decode(body, &arena, &batch, &detail);
    if (err) {
        MUST(err < 0 && detail.code == err);
    } else {
        MUST((batch.n_rejected > 0) == (batch.rejected_reason != NULL));
        encode(&batch, &once);
        MUST(otlp_metrics_decode(buf_as_str(&once), &arena, &again, &detail) == 0);
        MUST(again.n_points == batch.n_points && again.n_rejected == 0);
        encode(&again, &twice);
        MUST(str_eq(buf_as_str(&once), buf_as_str(&twice)));
    }
    buf_done(&once);
    buf_done(&twice);
    arena_done(&arena);
    return 0;
}
