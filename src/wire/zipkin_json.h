/* What the two versions of Zipkin's JSON share. Each reads one value, the next one, and errors stay
 * in the reader; null is "not there". */
#ifndef WIRE_ZIPKIN_JSON_H
#define WIRE_ZIPKIN_JSON_H

#include "base/json.h"
#include "wire/zipkin_span.h"

struct str zipkin_json_str(struct json_reader *r);
uint64_t zipkin_json_us(struct json_reader *r);
bool zipkin_json_bool(struct json_reader *r);
void zipkin_json_trace_id(struct zipkin_decoder *d, struct json_reader *r, struct trace_id *ret);
void zipkin_json_span_id(struct zipkin_decoder *d, struct json_reader *r, struct span_id *ret);
void zipkin_json_endpoint(struct json_reader *r, struct zipkin_endpoint *ret);
bool zipkin_json_object(struct json_reader *r); /* it is open then */
bool zipkin_json_array(struct json_reader *r);
bool zipkin_json_item(struct json_reader *r); /* the next object of a list; false at its end */

#endif
