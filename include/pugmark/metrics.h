/* Pugmark: what became of the spans, as numbers. With tracing on and PUG_METRICS=true (`metrics` in
 * pugmark.toml) the library counts each span it records, and its duration, by name, kind and
 * status; it sends them as metrics (docs/measurements.md), and the program may ask here.
 *
 * Counts are exact: every span that was recorded is counted once, when its record is read out of the
 * ring, some milliseconds after its end; pug_flush() waits for that. Spans that were lost are not in
 * (pug_counts_read() has them), nor are those that were not sampled; for these each sampled span
 * stands for `adjusted_count` divided by `count` others, where its sampler said so. Quantiles are
 * taken from those numbers, and within 1.1 % of the exact ones.
 *
 * The counts go on over pug_stop and pug_start, and begin anew in the child after fork. All
 * functions are thread-safe, none is signal-safe. */
#ifndef PUGMARK_METRICS_H
#define PUGMARK_METRICS_H

#include <pugmark/pugmark.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PUG_METRICS_MAX                                                                            \
    1024 /* names, kinds and statuses that are told apart; others are "(other)" */
#define PUG_METRIC_NAME_MAX 127 /* bytes of a span's name; longer ones are cut */

struct pug_metric {
    size_t size; /* sizeof(struct pug_metric), set by the caller of pug_metrics_read */
    char name[PUG_METRIC_NAME_MAX + 1];
    enum pug_kind kind;          /* of pug_metrics_each; PUG_KIND_UNSPECIFIED of pug_metrics_read */
    enum pug_status_code status; /* of pug_metrics_each; PUG_STATUS_UNSET of pug_metrics_read */
    uint64_t count;              /* recorded spans */
    uint64_t errors;             /* of them with PUG_STATUS_ERROR */
    double adjusted_count;       /* with those that were not sampled, estimated */
    uint64_t sum_ns, min_ns, max_ns; /* of the durations of the recorded ones */
    uint64_t p50_ns, p90_ns, p99_ns, p999_ns;
};

/* Gets each metric in turn, on the thread that asks; `metric` is good until it returns. */
typedef void pug_metric_fn(void *user, const struct pug_metric *metric);

#ifndef PUG_DISABLE
/* All spans of this name, whatever their kind and status. PUG_ERR_NOT_FOUND: none was counted;
 * PUG_ERR_INVALID: ret->size is not set; PUG_ERR_NOMEM. */
int pug_metrics_read(const char *name, struct pug_metric *ret);
/* Each name, kind and status by itself, in the order in which they were seen first; `fn` may call
 * anything. */
void pug_metrics_each(pug_metric_fn *fn, void *user);
#else
PUG__INLINE int pug_metrics_read(const char *name, struct pug_metric *ret)
{
    (void)name, (void)ret;
    return PUG_ERR_NOT_FOUND;
}
PUG__INLINE void pug_metrics_each(pug_metric_fn *fn, void *user)
{
    (void)fn, (void)user;
}
#define pug_metrics_read(...)                                                                      \
    (0 ? (pug_metrics_read)(__VA_ARGS__) : pug__zero() + PUG_ERR_NOT_FOUND)
#define pug_metrics_each(...) PUG__NEVER(pug_metrics_each, __VA_ARGS__)
#endif

#ifdef __cplusplus
}
#endif
#endif
