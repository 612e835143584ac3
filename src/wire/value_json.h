/* Values and attributes as plain JSON, for formats without types of their own: a string is a string, a map
 * an object, bytes are base64, nothing and what is nested deeper than VALUE_DEPTH_MAX is null. */
#ifndef WIRE_VALUE_JSON_H
#define WIRE_VALUE_JSON_H

#include "base/json.h"
#include "model/span.h"

void value_json(const struct value *v, struct json_writer *w);
/* One object. */
void attrs_json(const struct attrs *attrs, struct json_writer *w);

#endif
