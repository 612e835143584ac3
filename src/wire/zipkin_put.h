/* The pieces of a span in Zipkin's JSON, for the exporter (zipkin.c) and for who gives whole traces back
 * (zipkin_trace.c). Each writes one key of the span's object and its value; `scratch` is for texts. */
#ifndef WIRE_ZIPKIN_PUT_H
#define WIRE_ZIPKIN_PUT_H

#include "base/json.h"
#include "model/span.h"

#define NS_PER_US 1000

void zipkin__tags_put(struct json_writer *w, const struct span *s, struct buf *scratch);
void zipkin__remote_put(struct json_writer *w,
                        const struct span *s); /* nothing when it is not known */
void zipkin__annotations_put(struct json_writer *w, const struct span *s, struct buf *scratch);

#endif
