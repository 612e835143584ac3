/* Lines of logs: OpenTelemetry's log data model. As with spans, everything here borrows.
 *
 * Source: opentelemetry-proto 1.x, logs/v1/logs.proto. */
#ifndef MODEL_LOG_RECORD_H
#define MODEL_LOG_RECORD_H

#include "model/span.h"

struct log_record {
    uint64_t time_ns;          /* when it happened, since the epoch; 0: not known */
    uint64_t observed_time_ns; /* when a collector saw it; 0: not known */
    struct trace_id trace_id;  /* zeros: of no trace */
    struct span_id span_id;    /* zeros: of no span */
    uint32_t flags;            /* low byte: W3C trace flags */
    uint8_t severity;          /* 1 to 24, as OTLP's SeverityNumber; 0: not given */
    struct str severity_text, event_name;
    struct value body;
    struct attrs attrs;
    const struct resource *resource; /* never NULL */
    const struct scope *scope;       /* never NULL */
};

/* Neighbours that share resource or scope share the pointer. */
struct log_batch {
    const struct log_record *records;
    size_t n;
    size_t n_rejected; /* what a decoder left out because it cannot be kept */
    const char *rejected_reason;
};

#define SEVERITY_MAX 24

/* By what it is found: its time, else when it was observed. */
static inline uint64_t log_record_time_ns(const struct log_record *r)
{
    return r->time_ns ? r->time_ns : r->observed_time_ns;
}

#endif
