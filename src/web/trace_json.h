/* Spans in the JSON of our own API. */
#ifndef WEB_TRACE_JSON_H
#define WEB_TRACE_JSON_H

#include "base/json.h"
#include "model/span.h"

/* The members of a span's object, without braces, resource and scope. */
void trace_span_members(struct json_writer *w, const struct span *s);
/* Whole objects, of a `struct resource` and a `struct scope`. */
void trace_resource_json(struct json_writer *w, const void *resource);
void trace_scope_json(struct json_writer *w, const void *scope);

#endif
