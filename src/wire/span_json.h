/* Spans and metrics as lines of JSON, for people and log processors: docs/formats/lines.md. */
#ifndef WIRE_SPAN_JSON_H
#define WIRE_SPAN_JSON_H

#include "base/buf.h"
#include "model/metric.h"

/* Each appends one whole line, with its line feed. `thread` 0: not known. */
void span_json_line(const struct span *s, uint32_t thread, struct buf *out);
void metric_json_line(const struct metric *m, const struct metric_point *p,
                      const struct resource *resource, struct buf *out);
/* The process: its resource, once at the beginning. */
void resource_json_line(const struct resource *r, struct buf *out);

#endif
