/* Logs and metrics on their way to the records: what intake.h is for spans. */
#ifndef INGEST_SIGNALS_H
#define INGEST_SIGNALS_H

#include "ingest/intake.h"

struct signal_intake {
    struct ingest *ingest;
    enum receiver receiver;
    enum ingest_signal signal;
    struct arena *arena; /* the request's */
    /* From any thread, once. It lies in the request's arena: this ends it. */
    void (*answer)(struct signal_intake *e, enum outcome outcome, uint64_t n_rejected,
                   struct str message);
    void *request;
    /* inside */
    uint64_t n_kept, n_rejected;
    const char *rejected_reason;
    size_t charged;
};

/* Decodes `body`, appends, and has the answer sent: before this returns or later. */
void signal_run(struct signal_intake *e, bool is_json, struct str body);

/* What is answered where no records are kept. */
#define SIGNALS_OFF                                                                                \
    "this server keeps traces alone; turn this exporter off (OTEL_LOGS_EXPORTER=none, "            \
    "OTEL_METRICS_EXPORTER=none)"

#endif
