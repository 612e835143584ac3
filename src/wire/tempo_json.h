/* A trace as Tempo's HTTP API has it in JSON: OTLP's messages in the JSON mapping of protobuf, where bytes
 * (ids too) are base64, enums are names, and what is empty is left out.
 * Source: Tempo, pkg/tempopb (trace/v1/trace.proto); protobuf.dev/programming-guides/json. */
#ifndef WIRE_TEMPO_JSON_H
#define WIRE_TEMPO_JSON_H

#include "base/json.h"
#include "model/span.h"

/* One value: the list of ResourceSpans. */
void tempo_json_encode(const struct span_batch *batch, struct json_writer *w);

#endif
