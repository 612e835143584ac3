/* OTLP JSON of logs and metrics to the protobuf that says the same, so that each has one decoder.
 * Spans, of which there are many more, have a decoder of their own (otlp_json.c).
 *
 * Read as there: ids in hexadecimal, 64-bit numbers as strings or numbers, enums as numbers or names,
 * keys in lowerCamelCase or snake_case, unknown keys passed over, null for what is absent. A key that
 * comes twice counts as in protobuf: lists are joined, of scalars the last one holds.
 * Source: OpenTelemetry protocol specification, "JSON Protobuf Encoding". */
#ifndef WIRE_OTLP_TRANSCODE_H
#define WIRE_OTLP_TRANSCODE_H

#include "base/arena.h"

enum otlp_transcode {
    OTLP_TRANSCODE_LOGS,    /* ExportLogsServiceRequest */
    OTLP_TRANSCODE_METRICS, /* ExportMetricsServiceRequest */
};

/* The protobuf lives in `arena`. ERR_INVALID, ERR_TRUNCATED, ERR_TOO_LARGE (depth), ERR_NOMEM, with
 * the position in the JSON. */
MUST_USE int otlp_transcode(enum otlp_transcode what, struct str json, struct arena *arena,
                            struct str *ret_protobuf, struct error_detail *ret_detail);

#endif
