/* A file of spans, of any kind that is known: OTLP as protobuf (one request, or length-delimited ones, as
 * `pugmark export` and `pugmark load --out` write) or JSON (one document or several, a line each or not),
 * Zipkin's JSON of both versions, Jaeger's JSON, our own Chrome trace. What it is, its content says. */
#ifndef WIRE_SPAN_FILE_H
#define WIRE_SPAN_FILE_H

#include "base/arena.h"
#include "base/buf.h"
#include "model/span.h"

/* `batch` lives until it returns; what is rejected of it is counted in there. A non-zero return ends it. */
typedef int span_file_fn(void *arg, const struct span_batch *batch);
/* `ret_kind` says in words what it was taken for ("OTLP protobuf"), also when it fails; NULL: nothing that is
 * known. Of a format without parts all is one batch. ERR_INVALID, ERR_NOMEM, and what `fn` returns. */
MUST_USE int span_file_read(struct str bytes, span_file_fn *fn, void *arg, const char **ret_kind,
                            struct error_detail *ret_detail);

/* A batch as the next part of a length-delimited file. */
void span_file_put(const struct span_batch *batch, struct buf *out);

#endif
