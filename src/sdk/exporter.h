/* Where the drain hands spans and metrics. One implementation a file: export_local,
 * export_otlp, export_zipkin, export_stdout. */
#ifndef SDK_EXPORTER_H
#define SDK_EXPORTER_H

#include <stdatomic.h>

#include "model/metric.h"
#include "sdk/options.h"
#include "wire/plain.h"

/* Beside each span of a batch: what is not in the model. */
struct taken {
    uint32_t thread; /* kernel's id, or the lane's number where that is not known */
    bool handle;     /* may overlap others of its thread */
};

struct taken_batch {
    struct span_batch spans;
    const struct taken *taken; /* one for each span */
};

/* Written by the exporter, read by everybody. */
struct exporter_counts {
    _Atomic uint64_t exported, lost_queue_full, lost_export;
    _Atomic uint64_t metrics_exported, metrics_lost; /* data points */
};

struct exporter {
    /* Takes the spans over (the batch is reused when it returns); what it cannot take it counts.
     * Must not block on a network. */
    void (*take)(struct exporter *e, const struct taken_batch *batch,
                 struct exporter_counts *counts);
    /* Plain spans, encoded from where they are (see assemble.h). `prepare`: what those of one place
     * share, malloc'ed; NULL: they have to come as spans. Both NULL: all have to. */
    void *(*prepare)(struct exporter *e, const struct plain_place *place);
    bool (*take_plain)(struct exporter *e, void *place, const struct plain_span *span);
    /* What was taken since goes out, and is counted. `totals`: for exporters that write them into the
     * data. NULL: `take` does all of that. */
    void (*settle)(struct exporter *e, struct exporter_counts *counts,
                   const struct pug_counts *totals);
    size_t open_bytes; /* of what was taken and not settled; from open_bytes_max on it should be, */
    size_t open_bytes_max;
    uint64_t open_ns_max; /* or so long after the first of it; 0: the flush interval */
    /* The same for metrics. NULL: this backend has no place for them. */
    void (*take_metrics)(struct exporter *e, const struct metric_batch *batch);
    /* Something that happened to the process and belongs to no span (its numbers, now and then).
     * NULL: this backend has no place for such; where there is one, what is in it does not come as
     * metrics too. */
    void (*take_event)(struct exporter *e, uint64_t time_ns, struct str name,
                       const struct attrs *attrs);
    /* Waits until all that was taken before has been sent or given up, at most until `deadline_ns`
     * (CLOCK_MONOTONIC). `again`: the wait that was begun last goes on; what was taken since does not
     * belong to it. False: time is up. */
    bool (*flush)(struct exporter *e, uint64_t deadline_ns, bool again);
    /* Gives up what is left by the deadline, and frees. */
    void (*close)(struct exporter *e, uint64_t deadline_ns);
    /* It gathers spans itself: small batches, while they are in the caches, cost it less than large ones. */
    bool gathers;
};

/* Tells the user about a kind of trouble, once for each `told`. */
PRINTF_LIKE(3, 4)
void exporter_tell(const struct config *c, _Atomic bool *told, const char *format, ...);

MUST_USE int export_local_open(const struct config *c, struct exporter **ret,
                               struct error_detail *ret_problem);
MUST_USE int export_discard_open(struct exporter **ret);
MUST_USE int export_otlp_open(const struct config *c, struct exporter_counts *counts,
                              struct exporter **ret, struct error_detail *ret_problem);
MUST_USE int export_zipkin_open(const struct config *c, struct exporter_counts *counts,
                                struct exporter **ret, struct error_detail *ret_problem);
MUST_USE int export_stdout_open(const struct config *c, struct exporter_counts *counts,
                                struct exporter **ret, struct error_detail *ret_problem);

#endif
