/* A line of JSON from a followed file to a span or a log record: docs/followed-files.md says which. */
#ifndef INGEST_TRACE_LINE_H
#define INGEST_TRACE_LINE_H

#include "base/arena.h"
#include "model/log_record.h"

enum line_fate {
    LINE_SPAN,    /* it has `_trace` */
    LINE_LOG,     /* it names its trace in `otel_trace_id` */
    LINE_PASSED,  /* an object without either, or an empty line: not about a trace */
    LINE_INVALID, /* no JSON object, or its `_trace` is damaged */
};

/* What a line does not say. */
struct line_context {
    uint64_t now_ns;        /* its time */
    struct str service;     /* of the file */
    struct span_id span_id; /* of a span whose line has none; not zeros */
};

struct line {
    enum line_fate fate;
    union {
        struct span span; /* resource and scope are left to the caller */
        struct log_record log;
    };
    struct str service;
};

/* Everything borrows from the line or lives in `arena`. Returns the fate; with LINE_INVALID
 * `ret_detail` says what is wrong, and where. ERR_NOMEM is the one error (negative). */
MUST_USE int trace_line_decode(struct str text, const struct line_context *context,
                               struct arena *arena, struct line *ret,
                               struct error_detail *ret_detail);

#endif
