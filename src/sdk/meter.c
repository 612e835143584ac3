#include "sdk/meter.h"

#include "base/clock.h"
#include "sdk/bridge.h"
#include "sdk/channel.h"
#include "sdk/drain.h"
#include "sdk/system_metrics.h"

#include <stdlib.h>
#include <string.h>

#define LIST_BYTES_MAX (16u << 20) /* of one batch */

struct meter {
    const struct config *config;
    struct drain *drain; /* whose we are */
    struct system_metrics system;
    uint64_t started_ns; /* of the epoch */
    uint64_t refilled_ns, system_ns, sent_ns;
    struct metric_list list;
};

/* ---- a batch ---- */

struct metric_point *metric_list_add(struct metric_list *l, struct metric what, size_t n)
{
    if (n == 0 || l->n == METRICS_MAX)
        return NULL;
    struct metric_point *points = arena_array(&l->arena, n, sizeof *points);
    if (!points)
        return NULL;
    memset(points, 0, n * sizeof *points);
    for (size_t i = 0; i < n; i++)
        points[i].time_ns = l->time_ns;
    what.points = points;
    what.n_points = n;
    l->metrics[l->n++] = what;
    return points;
}

struct attrs metric_list_attr(struct metric_list *l, struct str key, struct str value)
{
    struct attr *a = arena_array(&l->arena, 1, sizeof *a);
    struct str copy = arena_str(&l->arena, value);
    if (!a || !copy.ptr)
        return (struct attrs){NULL, 0, 0};
    *a = (struct attr){key, {.type = VALUE_STRING, .string = copy}};
    return (struct attrs){a, 1, 0};
}

void metric_list_histogram(struct metric_list *l, struct metric_point *p, const struct histogram *h)
{
    uint64_t *counts = arena_array(&l->arena, METRIC_BUCKETS_MAX, sizeof *counts);
    if (!counts)
        return; /* it says that nothing was counted, and says so until there is memory */
    struct histogram_row row = histogram_buckets(h, counts, METRIC_BUCKETS_MAX);
    p->histogram = (struct metric_exp_histogram){.count = h->count,
                                                 .zero_count = h->zero_count,
                                                 .sum = (double)h->sum,
                                                 .min = (double)h->min,
                                                 .max = (double)h->max,
                                                 .scale = row.scale,
                                                 .positive = {row.offset, counts, row.n}};
}

static void list_clear(struct metric_list *l, uint64_t now_ns)
{
    arena_reset(&l->arena);
    l->n = 0;
    l->time_ns = now_ns;
}

/* ---- the process ---- */

static void gauge(struct metric_list *l, bool has, const char *name, const char *unit, bool is_sum,
                  double real, uint64_t integer)
{
    struct metric_point *p;
    struct metric what = {.name = str_from(name),
                          .unit = str_from(unit),
                          .type = is_sum ? METRIC_SUM : METRIC_GAUGE,
                          .temporality = METRIC_CUMULATIVE};
    if (!has || !(p = metric_list_add(l, what, 1)))
        return;
    p->is_real = !is_sum;
    if (is_sum)
        p->integer = (int64_t)integer;
    else
        p->real = real;
}

/* As OpenTelemetry's conventions for processes have it. */
static void system_metrics_add(struct metric_list *l, const struct system_sample *s)
{
    gauge(l, s->has_rss, "process.memory.usage", "By", true, 0, s->rss_bytes);
    gauge(l, s->has_cpu, "process.cpu.utilization", "1", false, s->cpu_percent / 100, 0);
    gauge(l, s->has_threads, "process.thread.count", "{thread}", true, 0, s->thread_count);
    gauge(l, s->has_fds, "process.unix.file_descriptor.count", "{file_descriptor}", true, 0,
          s->fd_count);
}

static void system_event(struct exporter *e, const struct system_sample *s, uint64_t now_ns)
{
    struct attr attrs[4];
    uint32_t n = 0;
    if (s->has_rss)
        attrs[n++] = (struct attr){STR("rss_bytes"),
                                   {.type = VALUE_INT, .integer = (int64_t)s->rss_bytes}};
    if (s->has_cpu)
        attrs[n++] = (struct attr){STR("cpu_percent"),
                                   {.type = VALUE_DOUBLE, .real = s->cpu_percent}};
    if (s->has_threads)
        attrs[n++] = (struct attr){STR("thread_count"),
                                   {.type = VALUE_INT, .integer = (int64_t)s->thread_count}};
    if (s->has_fds)
        attrs[n++] = (struct attr){STR("fd_count"),
                                   {.type = VALUE_INT, .integer = (int64_t)s->fd_count}};
    if (n)
        e->take_event(e, now_ns, STR("system_metrics"), &(struct attrs){attrs, n, 0});
}

/* ---- the library itself ---- */

static void counts_add(struct metric_list *l, struct drain *drain, uint64_t started_ns)
{
    struct pug_counts now, *c = &now;
    drain_counts(drain, c);
    const struct {
        const char *cause;
        uint64_t n;
    } lost[] = {{"ring_full", c->lost_ring_full},   {"depth", c->lost_depth},
                {"no_lane", c->lost_no_lane},       {"interrupt", c->lost_interrupt},
                {"queue_full", c->lost_queue_full}, {"export", c->lost_export},
                {"memory", c->lost_memory}};
    struct metric what = {.name = STR("pugmark.spans.recorded"),
                          .unit = STR("{span}"),
                          .description = STR("Spans that were taken out of the rings"),
                          .type = METRIC_SUM,
                          .temporality = METRIC_CUMULATIVE,
                          .monotonic = true};
    struct metric_point *p = metric_list_add(l, what, 1);
    if (p) {
        p->start_ns = started_ns;
        p->integer = (int64_t)c->recorded;
    }
    what.name = STR("pugmark.spans.lost");
    what.description = STR("Spans that did not arrive, by cause");
    p = metric_list_add(l, what, sizeof lost / sizeof lost[0]);
    for (size_t i = 0; p && i < sizeof lost / sizeof lost[0]; i++) {
        p[i].start_ns = started_ns;
        p[i].attrs = metric_list_attr(l, STR("cause"), str_from(lost[i].cause));
        p[i].integer = (int64_t)lost[i].n;
    }
}

/* ---- when ---- */

static bool due(uint64_t *last_ns, uint64_t interval_ns, uint64_t now_ns)
{
    if (interval_ns == 0)
        return false;
    if (*last_ns && now_ns >= *last_ns && now_ns - *last_ns < interval_ns)
        return false;
    *last_ns = now_ns;
    return true;
}

void meter_round(struct meter *m, struct exporter *e, uint64_t now_ns, bool all)
{
    const struct config *c = m->config;
    struct metric_list *l = &m->list;
    /* A trace file has the durations in its spans; what channels do stands beside them there. */
    bool in_file = e->take_event != NULL;
    uint64_t interval_ns = c->metrics_interval_ns ? c->metrics_interval_ns
                           : in_file              ? c->system_metrics_interval_ns
                                                  : 0;
    channels_refill(now_ns > m->refilled_ns ? now_ns - m->refilled_ns : 0);
    m->refilled_ns = now_ns;
    bool system = due(&m->system_ns, c->system_metrics_interval_ns, now_ns);
    bool others = e->take_metrics && interval_ns && (due(&m->sent_ns, interval_ns, now_ns) || all);
    if (!system && !others)
        return;
    list_clear(l, now_ns);
    if (system && (in_file || (e->take_metrics && c->metrics_interval_ns))) {
        struct system_sample s;
        system_metrics_sample(&m->system, &s);
        if (in_file)
            system_event(e, &s, now_ns);
        else
            system_metrics_add(l, &s);
    }
    if (others) {
        channels_measure(l);
        if (!in_file) {
            bridge_measure(l);
            counts_add(l, m->drain, m->started_ns);
        }
    }
    if (l->n)
        e->take_metrics(
            e, &(struct metric_batch){
                   .metrics = l->metrics, .n = l->n, .resource = &c->resource, .scope = &c->scope});
}

void meter_start(struct meter *m, uint64_t now_ns)
{
    if (!m->started_ns)
        m->started_ns = now_ns;
    m->refilled_ns = now_ns;
    m->system_ns = 0;
    m->sent_ns = now_ns; /* nothing was measured yet */
    if (m->config->metrics_interval_ns)
        bridge_begin(now_ns);
}

int meter_new(const struct config *config, struct drain *drain, struct meter **ret)
{
    struct meter *m = calloc(1, sizeof *m);
    if (!m)
        return ERR_NOMEM;
    m->config = config;
    m->drain = drain;
    m->list.arena.bytes_max = LIST_BYTES_MAX;
    *ret = m;
    return 0;
}

void meter_free(struct meter *m)
{
    if (!m)
        return;
    arena_done(&m->list.arena);
    free(m);
}
