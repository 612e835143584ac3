/* OTLP logs <-> model.
 * Source: opentelemetry-proto 1.x, collector/logs/v1/logs_service.proto and logs/v1/logs.proto. */
#ifndef WIRE_OTLP_LOGS_H
#define WIRE_OTLP_LOGS_H

#include "base/arena.h"
#include "base/buf.h"
#include "model/log_record.h"

/* ExportLogsServiceRequest to records that borrow from `body` and live in `arena`. An id of a wrong
 * length counts as none, as the specification has it. Records that cannot be kept (text that is not
 * UTF-8) are left out and counted; errors as otlp_decode's. */
MUST_USE int otlp_logs_decode(struct str body, struct arena *arena, struct log_batch *ret_batch,
                              struct error_detail *ret_detail);
/* The same of OTLP JSON. */
MUST_USE int otlp_logs_json_decode(struct str body, struct arena *arena,
                                   struct log_batch *ret_batch, struct error_detail *ret_detail);

/* Appends an ExportLogsServiceRequest. Failure is in `out`. */
void otlp_logs_encode(const struct log_batch *batch, struct buf *out);

#endif
