/* A line of a followed file: whatever it is, it has a fate, and a span or log of it can be encoded. */
#include "ingest/trace_line.h"
#include "wire/otlp.h"
#include "wire/otlp_logs.h"

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
    struct buf out = BUF_INIT;
    struct error_detail detail = {0};
    const struct line_context context = {
        .now_ns = 1, .service = STR("file"), .span_id = {{1, 1, 1, 1, 1, 1, 1, 1}}};
    struct resource resource = {.schema_url = STR(""), .service_name = STR("file")};
    struct scope scope = {.name = STR(""), .version = STR(""), .schema_url = STR("")};
    struct line line;
    struct span_batch again;
    int fate = trace_line_decode((struct str){(const char *)data, size}, &context, &arena, &line,
                                 &detail);
    MUST(fate < 0 ? fate == ERR_NOMEM : fate == (int)line.fate);
    if (fate == LINE_SPAN) {
        line.span.resource = &resource;
        line.span.scope = &scope;
        MUST(!trace_id_is_zero(&line.span.trace_id) && !span_id_is_zero(&line.span.span_id));
        MUST(line.span.end_ns >= line.span.start_ns);
        const struct span_batch batch = {.spans = &line.span, .n = 1};
        otlp_encode(&batch, &out);
        /* What is appended must be what recovery decodes. */
        MUST(buf_ok(&out) && otlp_decode(buf_as_str(&out), &arena, &again, &detail) == 0);
        MUST(again.n == 1 && again.n_rejected == 0);
    } else if (fate == LINE_LOG) {
        line.log.resource = &resource;
        line.log.scope = &scope;
        const struct log_batch batch = {.records = &line.log, .n = 1};
        otlp_logs_encode(&batch, &out);
        MUST(buf_ok(&out));
    } else if (fate == LINE_INVALID) {
        MUST(detail.message[0]);
    }
    buf_done(&out);
    arena_done(&arena);
    return 0;
}
