/* What the drain measures beside spans, and when it hands it to the exporter.
 *
 *     system metrics   every system_metrics_interval_ns: an event where the exporter has a place
 *                      for events, metrics elsewhere
 *     channels, spans  every metrics_interval_ns, with each flush and at the end
 *
 * All in the drain's thread. What is measured elsewhere (channel.c in the program's threads,
 * bridge.c as spans pass by) is read here. */
#ifndef SDK_METER_H
#define SDK_METER_H

#include "base/histogram.h"
#include "sdk/exporter.h"

/* ---- a batch in the making ---- */

#define METRICS_MAX 32          /* in one batch */
#define METRIC_BUCKETS_MAX 160u /* of a histogram that is sent; as OpenTelemetry's SDKs have it */

struct metric_list {
    struct arena arena; /* owns points, attributes, buckets */
    struct metric metrics[METRICS_MAX];
    size_t n;
    uint64_t time_ns; /* of all points; since the epoch */
};

/* Adds `what` with room for `n` points, all zeros but for their time; NULL when there is no memory
 * or n is 0. Points may be given back from the end: list->metrics[list->n - 1].n_points. */
struct metric_point *metric_list_add(struct metric_list *l, struct metric what, size_t n);
/* One attribute in the arena; `value` is copied. None when there is no memory. */
struct attrs metric_list_attr(struct metric_list *l, struct str key, struct str value);
/* Fills the point with at most METRIC_BUCKETS_MAX buckets. */
void metric_list_histogram(struct metric_list *l, struct metric_point *p,
                           const struct histogram *h);

/* ---- the drain's ---- */

struct drain;
struct meter;

MUST_USE int meter_new(const struct config *config, struct drain *drain, struct meter **ret);
void meter_free(struct meter *m);
/* A session begins: the first sample is due at once. */
void meter_start(struct meter *m, uint64_t now_ns);
/* A round of the drain. `now_ns` since the epoch; `all`: whatever was measured goes out now. */
void meter_round(struct meter *m, struct exporter *e, uint64_t now_ns, bool all);

#endif
