/* OTLP JSON <-> model: ids in hexadecimal, 64-bit numbers as strings (read: or numbers), enums as
 * numbers (read: or names), unknown keys passed over, lowerCamelCase (read: or snake_case).
 * Source: OpenTelemetry protocol specification, "JSON Protobuf Encoding". */
#ifndef WIRE_OTLP_JSON_H
#define WIRE_OTLP_JSON_H

#include "base/json.h"
#include "model/span.h"

/* As otlp_decode; `ret_detail->position` is the byte offset. */
MUST_USE int otlp_json_decode(struct str body, struct arena *arena, struct span_batch *ret_batch,
                              struct error_detail *ret_detail);

/* One value: {"resourceSpans":[...]}. */
void otlp_json_encode(const struct span_batch *batch, struct json_writer *w);
/* One value: an AnyValue object ({"stringValue":"x"}). */
void otlp_json_encode_value(const struct value *value, struct json_writer *w);
/* One value: {"key":..,"value":{..}}; the value of VALUE_NONE is {}. */
void otlp_json_encode_attr(struct str key, const struct value *value, struct json_writer *w);
/* One value: a list of them. */
void otlp_json_encode_attrs(const struct attrs *attrs, struct json_writer *w);

/* What a sender wants to know of an answer, also of one about metrics. The message borrows from
 * `body` or lives in `arena`. */
MUST_USE int otlp_json_decode_response(struct str body, struct arena *arena, uint64_t *ret_rejected,
                                       struct str *ret_message);
/* `rejected` is the key of their number: "rejectedSpans". */
void otlp_json_encode_response(struct str rejected, uint64_t n_rejected, struct str message,
                               struct json_writer *w);
void otlp_json_encode_status(int32_t code, struct str message, struct json_writer *w);

#endif
