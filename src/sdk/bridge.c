/* One lock for all of it: taken by the drain once a batch and once an export, and by whoever asks;
 * never on the way of a span. Histograms grow by pages; when there is no memory for one, the span
 * is counted, and its duration left out and counted as such. */
#include "sdk/bridge.h"

#include "base/clock.h"
#include "base/hash.h"
#include "pugmark/metrics.h"
#include "sdk/alloc.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { SLOTS = 4 * PUG_METRICS_MAX, STATUSES = 3 };
#define ADJUSTED_MAX 0x1p32 /* spans that one can stand for */

struct series {
    struct series *next; /* in the order of their making */
    uint64_t hash;
    uint8_t kind, status;
    uint32_t name_len;
    char name[PUG_METRIC_NAME_MAX + 1];
    uint64_t count, unplaced; /* unplaced: not in the histogram */
    uint64_t sum_ns, min_ns, max_ns;
    double adjusted;
    double carry;               /* what rounding has left of the adjusted counts */
    struct histogram durations; /* each span as often as it stands for others */
};

static struct {
    pthread_mutex_t lock;
    struct series *slots[SLOTS]; /* open addressing */
    struct series *first, **last, *other;
    size_t n;
    uint64_t since_ns; /* of the epoch */
    uint64_t seed;
    bool ready;
} bridge = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* ---- life ---- */

static void before_fork(void)
{
    pthread_mutex_lock(&bridge.lock);
}

static void after_fork(void)
{
    pthread_mutex_unlock(&bridge.lock);
}

static void in_child(void)
{
    struct series *s, *next;
    for (s = bridge.first; s; s = next) {
        next = s->next;
        histogram_done(&s->durations);
        free(s);
    }
    memset(bridge.slots, 0, sizeof bridge.slots);
    bridge.first = bridge.other = NULL;
    bridge.last = &bridge.first;
    bridge.n = 0;
    bridge.since_ns = clock_realtime_ns();
    pthread_mutex_init(&bridge.lock, NULL);
}

/* With the lock held. */
static bool ready(void)
{
    if (bridge.ready)
        return true;
    if (pthread_atfork(before_fork, after_fork, in_child) != 0)
        return false;
    bridge.last = &bridge.first;
    bridge.since_ns = clock_realtime_ns();
    bridge.seed = hash_secret();
    return bridge.ready = true;
}

void bridge_begin(uint64_t now_ns)
{
    pthread_mutex_lock(&bridge.lock);
    if (!bridge.ready && ready())
        bridge.since_ns = now_ns;
    pthread_mutex_unlock(&bridge.lock);
}

/* ---- series ---- */

static struct series *series_new(struct str name, uint8_t kind, uint8_t status, uint64_t hash)
{
    struct series *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->hash = hash;
    s->kind = kind;
    s->status = status;
    s->name_len = (uint32_t)name.len;
    memcpy(s->name, name.ptr, name.len);
    *bridge.last = s;
    bridge.last = &s->next;
    return s;
}

/* At a border of characters, if it is UTF-8. */
static struct str name_cut(struct str name)
{
    if (name.len <= PUG_METRIC_NAME_MAX)
        return name;
    name.len = PUG_METRIC_NAME_MAX;
    while (name.len && ((unsigned char)name.ptr[name.len] & 0xc0) == 0x80)
        name.len--;
    return name;
}

static struct series *other(void)
{
    if (!bridge.other)
        bridge.other = series_new(STR("(other)"), SPAN_KIND_UNSPECIFIED, STATUS_UNSET, 0);
    return bridge.other;
}

static struct series *series_of(const struct span *span)
{
    struct str name = name_cut(span->name);
    uint8_t status = span->status_code < STATUSES ? span->status_code : STATUS_UNSET;
    uint64_t hash = hash_bytes_seed(name.ptr, name.len,
                                    bridge.seed + span->kind * (uint64_t)STATUSES + status);
    size_t at = hash % SLOTS;
    for (struct series *s; (s = bridge.slots[at]); at = (at + 1) % SLOTS)
        if (s->hash == hash && s->kind == span->kind && s->status == status &&
            str_eq((struct str){s->name, s->name_len}, name))
            return s;
    if (bridge.n == PUG_METRICS_MAX)
        return other();
    struct series *s = series_new(name, span->kind, status, hash);
    if (s) {
        bridge.slots[at] = s;
        bridge.n++;
    }
    return s;
}

/* ---- how many spans one stands for ---- */

/* OpenTelemetry's consistent probability sampling: the entry `ot` of tracestate has th:T, the
 * rejection threshold as up to 14 hexadecimal digits of a fraction of 2^56; the span was kept with
 * probability (2^56 - T) / 2^56. 1 where nothing is said.
 * The entry may be a stranger's: ADJUSTED_MAX keeps the sums of as many spans as a process ever has from running over. */
static double adjusted_count(struct str state)
{
    struct str entry, part;
    while (state.len) {
        entry = str_trim(str_split(state, ',', &state));
        if (!str_starts(entry, STR("ot=")))
            continue;
        entry = str_skip(entry, 3);
        while (entry.len) {
            part = str_split(entry, ';', &entry);
            if (!str_starts(part, STR("th:")))
                continue;
            part = str_skip(part, 3);
            uint8_t bytes[7];
            char digits[14] = {'0', '0', '0', '0', '0', '0', '0',
                               '0', '0', '0', '0', '0', '0', '0'};
            if (part.len == 0 || part.len > sizeof digits)
                return 1;
            memcpy(digits, part.ptr, part.len);
            if (!hex_get(bytes, (struct str){digits, sizeof digits}, sizeof bytes))
                return 1;
            uint64_t threshold = 0;
            for (size_t i = 0; i < sizeof bytes; i++)
                threshold = threshold << 8 | bytes[i];
            const uint64_t whole = UINT64_C(1) << 56;
            double adjusted = (double)whole / (double)(whole - threshold);
            return adjusted < ADJUSTED_MAX ? adjusted : ADJUSTED_MAX;
        }
    }
    return 1;
}

static void take(const struct span *span)
{
    struct series *s = series_of(span);
    uint64_t ns = span_duration_ns(span);
    if (!s)
        return;
    double adjusted = span->trace_state.len ? adjusted_count(span->trace_state) : 1;
    if (s->count == 0 || ns < s->min_ns)
        s->min_ns = ns;
    if (ns > s->max_ns)
        s->max_ns = ns;
    s->count++;
    s->sum_ns += ns;
    s->adjusted += adjusted;
    s->carry += adjusted;
    uint64_t times = (uint64_t)s->carry;
    s->carry -= (double)times;
    if (histogram_add(&s->durations, ns, times) != 0)
        s->unplaced++;
}

void bridge_take(const struct span_batch *batch)
{
    pthread_mutex_lock(&bridge.lock);
    if (ready())
        for (size_t i = 0; i < batch->n; i++)
            take(&batch->spans[i]);
    pthread_mutex_unlock(&bridge.lock);
}

/* ---- for the exporter ---- */

static const char *status_name(uint8_t status)
{
    return status == STATUS_ERROR ? "STATUS_CODE_ERROR"
           : status == STATUS_OK  ? "STATUS_CODE_OK"
                                  : "STATUS_CODE_UNSET";
}

static struct attrs series_attrs(struct metric_list *l, const struct series *s)
{
    static const char *const kinds[] = {"SPAN_KIND_UNSPECIFIED", "SPAN_KIND_INTERNAL",
                                        "SPAN_KIND_SERVER",      "SPAN_KIND_CLIENT",
                                        "SPAN_KIND_PRODUCER",    "SPAN_KIND_CONSUMER"};
    static const struct attr overflow = {STR("otel.metric.overflow"),
                                         {.type = VALUE_BOOL, .boolean = true}};
    if (s == bridge.other)
        return (struct attrs){&overflow, 1, 0};
    struct attr *a = arena_array(&l->arena, 3, sizeof *a);
    struct str name = arena_str(&l->arena, (struct str){s->name, s->name_len});
    if (!a || !name.ptr)
        return (struct attrs){NULL, 0, 0};
    a[0] = (struct attr){STR("span.name"), {.type = VALUE_STRING, .string = name}};
    a[1] = (struct attr){STR("span.kind"),
                         {.type = VALUE_STRING,
                          .string = str_from(kinds[s->kind <= SPAN_KIND_CONSUMER ? s->kind : 0])}};
    a[2] = (struct attr){STR("status.code"),
                         {.type = VALUE_STRING, .string = str_from(status_name(s->status))}};
    return (struct attrs){a, 3, 0};
}

void bridge_measure(struct metric_list *l)
{
    pthread_mutex_lock(&bridge.lock);
    size_t n = bridge.n + (bridge.other != NULL), i = 0;
    struct metric_point *calls = metric_list_add(
        l,
        (struct metric){.name = STR("traces.span.metrics.calls"),
                        .description = STR("Spans, with those that were not sampled"),
                        .unit = STR("{span}"),
                        .type = METRIC_SUM,
                        .monotonic = true,
                        .temporality = METRIC_CUMULATIVE},
        n);
    struct metric_point *durations =
        metric_list_add(l,
                        (struct metric){.name = STR("traces.span.metrics.duration"),
                                        .description = STR("How long spans took"),
                                        .unit = STR("ns"),
                                        .type = METRIC_EXP_HISTOGRAM,
                                        .temporality = METRIC_CUMULATIVE},
                        n);
    for (const struct series *s = bridge.first; s && calls && durations && i < n;
         s = s->next, i++) {
        calls[i].attrs = durations[i].attrs = series_attrs(l, s);
        calls[i].start_ns = durations[i].start_ns = bridge.since_ns;
        calls[i].integer = s->adjusted < 0x1p63 ? (int64_t)(s->adjusted + 0.5) : INT64_MAX;
        metric_list_histogram(l, &durations[i], &s->durations);
    }
    pthread_mutex_unlock(&bridge.lock);
}

/* ---- for the program ---- */

static void add(struct pug_metric *m, const struct series *s)
{
    if (m->count == 0 || s->min_ns < m->min_ns)
        m->min_ns = s->min_ns;
    if (s->max_ns > m->max_ns)
        m->max_ns = s->max_ns;
    m->count += s->count;
    m->errors += s->status == STATUS_ERROR ? s->count : 0;
    m->adjusted_count += s->adjusted;
    m->sum_ns += s->sum_ns;
}

static uint64_t whole(double ns)
{
    return ns >= 18446744073709551615.0 ? UINT64_MAX : (uint64_t)(ns + 0.5);
}

static void quantiles(struct pug_metric *m, const struct histogram *h)
{
    m->p50_ns = whole(histogram_quantile(h, 0.5));
    m->p90_ns = whole(histogram_quantile(h, 0.9));
    m->p99_ns = whole(histogram_quantile(h, 0.99));
    m->p999_ns = whole(histogram_quantile(h, 0.999));
}

static int read_locked(struct str name, struct pug_metric *m, struct histogram *h)
{
    for (const struct series *s = bridge.first; s; s = s->next) {
        if (!str_eq((struct str){s->name, s->name_len}, name))
            continue;
        add(m, s);
        if (histogram_merge(h, &s->durations) != 0)
            return PUG_ERR_NOMEM;
    }
    return m->count ? 0 : PUG_ERR_NOT_FOUND;
}

int pug_metrics_read(const char *name, struct pug_metric *ret)
{
    int errno_before = errno;
    struct pug_metric m = {.size = sizeof m};
    struct histogram h = {.count = 0};
    size_t size = ret->size;
    ALLOC_OURS;
    if (!name || size < offsetof(struct pug_metric, kind) || size > 65536)
        return PUG_ERR_INVALID;
    struct str cut = name_cut(str_from(name));
    memcpy(m.name, cut.ptr, cut.len);
    pthread_mutex_lock(&bridge.lock);
    int err = read_locked(cut, &m, &h);
    pthread_mutex_unlock(&bridge.lock);
    if (!err) {
        quantiles(&m, &h);
        memset(ret, 0, size);
        memcpy(ret, &m, size < sizeof m ? size : sizeof m);
        ret->size = size;
    }
    histogram_done(&h);
    errno = errno_before;
    return err;
}

void pug_metrics_each(pug_metric_fn *fn, void *user)
{
    for (size_t i = 0;; i++) {
        struct pug_metric m = {.size = sizeof m};
        pthread_mutex_lock(&bridge.lock);
        const struct series *s = bridge.first;
        for (size_t k = 0; s && k < i; k++)
            s = s->next;
        if (s) {
            memcpy(m.name, s->name, s->name_len);
            m.kind = (enum pug_kind)s->kind;
            m.status = (enum pug_status_code)s->status;
            add(&m, s);
            quantiles(&m, &s->durations);
        }
        pthread_mutex_unlock(&bridge.lock);
        if (!s)
            return;
        fn(user, &m);
    }
}
