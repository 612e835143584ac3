/* A metric's points are counted first, then decoded into an array of that size. A list of numbers may
 * be packed or not, and come in several pieces; it is counted the same way. */
#include "wire/otlp_metrics.h"
#include "wire/otlp_pieces.h"
#include "wire/otlp_transcode.h"

enum {
    /* ExportMetricsServiceRequest, ResourceMetrics, ScopeMetrics */
    REQUEST_RESOURCE_METRICS = PB_TAG(1, PB_BYTES),
    RESOURCE_METRICS_RESOURCE = PB_TAG(1, PB_BYTES),
    RESOURCE_METRICS_SCOPE_METRICS = PB_TAG(2, PB_BYTES),
    RESOURCE_METRICS_SCHEMA_URL = PB_TAG(3, PB_BYTES),
    SCOPE_METRICS_SCOPE = PB_TAG(1, PB_BYTES),
    SCOPE_METRICS_METRICS = PB_TAG(2, PB_BYTES),
    SCOPE_METRICS_SCHEMA_URL = PB_TAG(3, PB_BYTES),
    /* Metric */
    METRIC_NAME = PB_TAG(1, PB_BYTES),
    METRIC_DESCRIPTION = PB_TAG(2, PB_BYTES),
    METRIC_UNIT = PB_TAG(3, PB_BYTES),
    METRIC_DATA_GAUGE = PB_TAG(5, PB_BYTES),
    METRIC_DATA_SUM = PB_TAG(7, PB_BYTES),
    METRIC_DATA_HISTOGRAM = PB_TAG(9, PB_BYTES),
    METRIC_DATA_EXP_HISTOGRAM = PB_TAG(10, PB_BYTES),
    METRIC_DATA_SUMMARY = PB_TAG(11, PB_BYTES),
    /* Gauge, Sum, Histogram, ExponentialHistogram, Summary */
    DATA_POINTS = PB_TAG(1, PB_BYTES),
    DATA_TEMPORALITY = PB_TAG(2, PB_VARINT),
    SUM_IS_MONOTONIC = PB_TAG(3, PB_VARINT),
    /* NumberDataPoint */
    NUMBER_START = PB_TAG(2, PB_FIXED64),
    NUMBER_TIME = PB_TAG(3, PB_FIXED64),
    NUMBER_DOUBLE = PB_TAG(4, PB_FIXED64),
    NUMBER_INT = PB_TAG(6, PB_FIXED64),
    NUMBER_ATTRIBUTES = PB_TAG(7, PB_BYTES),
    NUMBER_FLAGS = PB_TAG(8, PB_VARINT),
    /* HistogramDataPoint */
    EXPLICIT_START = PB_TAG(2, PB_FIXED64),
    EXPLICIT_TIME = PB_TAG(3, PB_FIXED64),
    EXPLICIT_COUNT = PB_TAG(4, PB_FIXED64),
    EXPLICIT_SUM = PB_TAG(5, PB_FIXED64),
    EXPLICIT_COUNTS = PB_TAG(6, PB_BYTES),
    EXPLICIT_BOUNDS = PB_TAG(7, PB_BYTES),
    EXPLICIT_ATTRIBUTES = PB_TAG(9, PB_BYTES),
    EXPLICIT_FLAGS = PB_TAG(10, PB_VARINT),
    EXPLICIT_MIN = PB_TAG(11, PB_FIXED64),
    EXPLICIT_MAX = PB_TAG(12, PB_FIXED64),
    /* ExponentialHistogramDataPoint */
    EXP_ATTRIBUTES = PB_TAG(1, PB_BYTES),
    EXP_START = PB_TAG(2, PB_FIXED64),
    EXP_TIME = PB_TAG(3, PB_FIXED64),
    EXP_COUNT = PB_TAG(4, PB_FIXED64),
    EXP_SUM = PB_TAG(5, PB_FIXED64),
    EXP_SCALE = PB_TAG(6, PB_VARINT),
    EXP_ZERO_COUNT = PB_TAG(7, PB_FIXED64),
    EXP_POSITIVE = PB_TAG(8, PB_BYTES),
    EXP_NEGATIVE = PB_TAG(9, PB_BYTES),
    EXP_FLAGS = PB_TAG(10, PB_VARINT),
    EXP_MIN = PB_TAG(12, PB_FIXED64),
    EXP_MAX = PB_TAG(13, PB_FIXED64),
    EXP_ZERO_THRESHOLD = PB_TAG(14, PB_FIXED64),
    /* Buckets */
    BUCKETS_OFFSET = PB_TAG(1, PB_VARINT),
    BUCKETS_COUNTS = PB_TAG(2, PB_BYTES),

    FLAG_NO_VALUE = 1, /* DataPointFlags.NO_RECORDED_VALUE_MASK */
};

static double as_double(uint64_t bits)
{
    double d;
    memcpy(&d, &bits, sizeof d);
    return d;
}

static int32_t as_sint32(uint64_t n)
{
    return (int32_t)((uint32_t)n >> 1) ^ -(int32_t)(n & 1);
}

/* ---- lists of numbers ---- */

static uint32_t not_packed(uint32_t tag, enum pb_type type)
{
    return (tag & ~7U) | type;
}

/* How many numbers of `type` the field holds in the message. */
static bool numbers_count(struct otlp_pieces *p, struct pb r, uint32_t tag, enum pb_type type,
                          size_t *ret)
{
    struct pb_field f;
    int got;
    *ret = 0;
    while ((got = pb_next(&r, &f)) > 0) {
        if (f.tag == not_packed(tag, type)) {
            ++*ret;
        } else if (f.tag == tag && type == PB_FIXED64) {
            if (f.n % 8)
                return otlp_piece_fail(p, f.ptr, ERR_TRUNCATED);
            *ret += f.n / 8;
        } else if (f.tag == tag) {
            for (size_t i = 0; i < f.n; i++)
                *ret += f.ptr[i] < 0x80; /* the last byte of each */
        }
    }
    return got == 0 || otlp_piece_fail(p, r.at, got);
}

/* The message was walked once. The numbers of a list that is cut off are those before. */
static bool numbers_decode(struct otlp_pieces *p, struct pb r, uint32_t tag, enum pb_type type,
                           uint64_t **ret, size_t *ret_n)
{
    struct pb_field f;
    size_t n, at = 0;
    if (!numbers_count(p, r, tag, type, &n))
        return false;
    uint64_t *numbers = otlp_piece_array(p, n, sizeof *numbers, r.at);
    if (!numbers)
        return false;
    while (pb_next(&r, &f) > 0) {
        if (f.tag == not_packed(tag, type) && at < n) {
            numbers[at++] = f.n;
        } else if (f.tag == tag && type == PB_FIXED64) {
            for (uint64_t i = 0; i < f.n && at < n; i += 8, at++) {
                memcpy(&numbers[at], f.ptr + i, 8);
                numbers[at] = le64toh(numbers[at]);
            }
        } else if (f.tag == tag) {
            struct pb packed = pb_from_field(&f);
            while (packed.at < packed.end && at < n) {
                int err = pb_varint(&packed, &numbers[at]);
                if (err)
                    return otlp_piece_fail(p, packed.at, err);
                at++;
            }
            if (packed.at < packed.end)
                return otlp_piece_fail(p, packed.at, ERR_TRUNCATED);
        }
    }
    *ret = numbers;
    *ret_n = at;
    return true;
}

/* ---- points ---- */

static bool number_decode(struct otlp_pieces *p, struct pb message, struct metric_point *ret)
{
    struct pb r = message;
    struct pb_field f;
    bool has_value = false;
    int got;
    while ((got = pb_next(&r, &f)) > 0) {
        switch (f.tag) {
        case NUMBER_START:
            ret->start_ns = f.n;
            break;
        case NUMBER_TIME:
            ret->time_ns = f.n;
            break;
        case NUMBER_DOUBLE:
            ret->is_real = has_value = true;
            ret->real = as_double(f.n);
            break;
        case NUMBER_INT:
            ret->is_real = false;
            has_value = true;
            ret->integer = (int64_t)f.n;
            break;
        case NUMBER_FLAGS:
            if (f.n & FLAG_NO_VALUE)
                return otlp_piece_reject(p, "a point without a value");
            break;
        }
    }
    if (got < 0)
        return otlp_piece_fail(p, r.at, got);
    if (!has_value)
        return otlp_piece_reject(p, "a point without a value");
    return otlp_piece_attrs(p, message, NUMBER_ATTRIBUTES, &ret->attrs);
}

static bool bounds_fit(struct otlp_pieces *p, const struct metric_histogram *h)
{
    if (h->n_counts ? h->n_counts != h->n_bounds + 1 : h->n_bounds)
        return otlp_piece_reject(p, "a histogram whose buckets do not fit its bounds");
    for (size_t i = 0; i < h->n_bounds; i++)
        if (!(i ? h->bounds[i] > h->bounds[i - 1] : h->bounds[i] == h->bounds[i]))
            return otlp_piece_reject(p, "a histogram whose bounds do not rise");
    return true;
}

static bool histogram_lists(struct otlp_pieces *p, struct pb message, struct metric_histogram *h)
{
    uint64_t *counts, *bits;
    if (!numbers_decode(p, message, EXPLICIT_COUNTS, PB_FIXED64, &counts, &h->n_counts) ||
        !numbers_decode(p, message, EXPLICIT_BOUNDS, PB_FIXED64, &bits, &h->n_bounds))
        return false;
    double *bounds = otlp_piece_array(p, h->n_bounds, sizeof *bounds, message.at);
    if (!bounds)
        return false;
    for (size_t i = 0; i < h->n_bounds; i++)
        bounds[i] = as_double(bits[i]);
    h->counts = counts;
    h->bounds = bounds;
    return bounds_fit(p, h);
}

static bool histogram_decode(struct otlp_pieces *p, struct pb message, struct metric_point *ret)
{
    struct metric_histogram *h = &ret->explicit_histogram;
    struct pb r = message;
    struct pb_field f;
    int got;
    *h = (struct metric_histogram){.lacks_sum = true, .lacks_min = true, .lacks_max = true};
    while ((got = pb_next(&r, &f)) > 0) {
        switch (f.tag) {
        case EXPLICIT_START:
            ret->start_ns = f.n;
            break;
        case EXPLICIT_TIME:
            ret->time_ns = f.n;
            break;
        case EXPLICIT_COUNT:
            h->count = f.n;
            break;
        case EXPLICIT_SUM:
            h->lacks_sum = false;
            h->sum = as_double(f.n);
            break;
        case EXPLICIT_MIN:
            h->lacks_min = false;
            h->min = as_double(f.n);
            break;
        case EXPLICIT_MAX:
            h->lacks_max = false;
            h->max = as_double(f.n);
            break;
        case EXPLICIT_FLAGS:
            if (f.n & FLAG_NO_VALUE)
                return otlp_piece_reject(p, "a point without a value");
            break;
        }
    }
    if (got < 0)
        return otlp_piece_fail(p, r.at, got);
    return histogram_lists(p, message, h) &&
           otlp_piece_attrs(p, message, EXPLICIT_ATTRIBUTES, &ret->attrs);
}

static bool buckets_decode(struct otlp_pieces *p, const struct pb_field *field,
                           struct metric_buckets *ret)
{
    struct pb r = pb_from_field(field);
    struct pb_field f;
    uint64_t *counts;
    if (!numbers_decode(p, r, BUCKETS_COUNTS, PB_VARINT, &counts, &ret->n))
        return false;
    ret->counts = counts;
    while (pb_next(&r, &f) > 0)
        if (f.tag == BUCKETS_OFFSET)
            ret->offset = as_sint32(f.n);
    return true;
}

static bool exp_field_decode(struct otlp_pieces *p, const struct pb_field *f,
                             struct metric_point *ret)
{
    struct metric_exp_histogram *h = &ret->histogram;
    switch (f->tag) {
    case EXP_START:
        ret->start_ns = f->n;
        return true;
    case EXP_TIME:
        ret->time_ns = f->n;
        return true;
    case EXP_COUNT:
        h->count = f->n;
        return true;
    case EXP_SUM:
        h->lacks_sum = false;
        h->sum = as_double(f->n);
        return true;
    case EXP_SCALE:
        h->scale = as_sint32(f->n);
        return true;
    case EXP_ZERO_COUNT:
        h->zero_count = f->n;
        return true;
    case EXP_POSITIVE:
        return buckets_decode(p, f, &h->positive);
    case EXP_NEGATIVE:
        return buckets_decode(p, f, &h->negative);
    case EXP_FLAGS:
        return !(f->n & FLAG_NO_VALUE) || otlp_piece_reject(p, "a point without a value");
    case EXP_MIN:
        h->lacks_min = false;
        h->min = as_double(f->n);
        return true;
    case EXP_MAX:
        h->lacks_max = false;
        h->max = as_double(f->n);
        return true;
    case EXP_ZERO_THRESHOLD:
        h->zero_threshold = as_double(f->n);
        return true;
    default:
        return true;
    }
}

static bool exp_histogram_decode(struct otlp_pieces *p, struct pb message, struct metric_point *ret)
{
    struct pb r = message;
    struct pb_field f;
    int got;
    ret->histogram =
        (struct metric_exp_histogram){.lacks_sum = true, .lacks_min = true, .lacks_max = true};
    while ((got = pb_next(&r, &f)) > 0)
        if (!exp_field_decode(p, &f, ret))
            return false;
    if (got < 0)
        return otlp_piece_fail(p, r.at, got);
    return otlp_piece_attrs(p, message, EXP_ATTRIBUTES, &ret->attrs);
}

/* ---- metrics ---- */

struct metrics {
    struct otlp_pieces p;
    struct metric_batches out;
    struct metric_batch *batches; /* room for all that the body holds */
};

static void points_reject(struct metrics *ms, const char *reason, uint64_t n)
{
    if (n && !ms->out.rejected_reason)
        ms->out.rejected_reason = reason;
    ms->out.n_rejected += n;
}

/* Why something cannot be kept. False: the body cannot be read. */
static bool take_reject(struct metrics *ms, const char **reason)
{
    if (ms->p.err)
        return false;
    *reason = ms->p.reject;
    ms->p.reject = NULL;
    return true;
}

static int type_of(uint32_t tag)
{
    switch (tag) {
    case METRIC_DATA_GAUGE:
        return METRIC_GAUGE;
    case METRIC_DATA_SUM:
        return METRIC_SUM;
    case METRIC_DATA_HISTOGRAM:
        return METRIC_HISTOGRAM;
    case METRIC_DATA_EXP_HISTOGRAM:
        return METRIC_EXP_HISTOGRAM;
    default:
        return -1;
    }
}

static bool point_decode(struct otlp_pieces *p, uint8_t type, struct pb r, struct metric_point *ret)
{
    *ret = (struct metric_point){.time_ns = 0};
    return type == METRIC_EXP_HISTOGRAM ? exp_histogram_decode(p, r, ret)
           : type == METRIC_HISTOGRAM   ? histogram_decode(p, r, ret)
                                        : number_decode(p, r, ret);
}

static bool points_decode(struct metrics *ms, const struct pb_field *data, size_t n,
                          struct metric *m)
{
    struct pb r = pb_from_field(data);
    struct metric_point *points = otlp_piece_array(&ms->p, n, sizeof *points, r.at);
    struct pb_field f;
    if (!points)
        return false;
    m->points = points;
    m->n_points = 0;
    while (pb_next(&r, &f) > 0) {
        if (f.tag == DATA_TEMPORALITY && m->type != METRIC_GAUGE) {
            m->temporality = f.n == METRIC_DELTA || f.n == METRIC_CUMULATIVE ? (uint8_t)f.n : 0;
        } else if (f.tag == SUM_IS_MONOTONIC && m->type == METRIC_SUM) {
            m->monotonic = f.n != 0;
        } else if (f.tag == DATA_POINTS) {
            const char *reason;
            if (point_decode(&ms->p, m->type, pb_from_field(&f), &points[m->n_points])) {
                m->n_points++;
            } else {
                if (!take_reject(ms, &reason))
                    return false;
                points_reject(ms, reason, 1);
            }
        }
    }
    return true;
}

/* False: it is left out, or the body cannot be read. */
static bool metric_decode(struct metrics *ms, struct pb r, struct metric *m)
{
    struct pb_field f, data = {.tag = 0};
    const char *reason = NULL;
    size_t n = 0;
    int got;
    *m = (struct metric){.name = STR(""), .description = STR(""), .unit = STR("")};
    while ((got = pb_next(&r, &f)) > 0) {
        struct str *into = f.tag == METRIC_NAME          ? &m->name
                           : f.tag == METRIC_DESCRIPTION ? &m->description
                           : f.tag == METRIC_UNIT        ? &m->unit
                                                         : NULL;
        if (type_of(f.tag) >= 0 || f.tag == METRIC_DATA_SUMMARY)
            data = f;
        else if (into && !otlp_piece_text(&ms->p, &f, into) && !take_reject(ms, &reason))
            return false;
    }
    if (got < 0)
        return otlp_piece_fail(&ms->p, r.at, got);
    if (!data.tag) /* nothing was measured */
        return false;
    if (!otlp_piece_count(&ms->p, pb_from_field(&data), DATA_POINTS, &n))
        return false;
    if (!reason)
        reason = data.tag == METRIC_DATA_SUMMARY ? "summaries are not kept; send histograms"
                 : !m->name.len                  ? "a metric without a name"
                                                 : NULL;
    if (reason) {
        points_reject(ms, reason, n);
        return false;
    }
    m->type = (uint8_t)type_of(data.tag);
    return points_decode(ms, &data, n, m) && m->n_points;
}

static bool scope_metrics_decode(struct metrics *ms, struct pb message,
                                 const struct resource *resource)
{
    struct pb r = message;
    struct pb_field f;
    const char *reason = NULL;
    uint64_t n_points = 0;
    size_t n = 0;
    int got;
    if (!otlp_piece_count(&ms->p, r, SCOPE_METRICS_METRICS, &n))
        return false;
    struct scope *scope = otlp_piece_array(&ms->p, 1, sizeof *scope, r.at);
    struct metric *metrics = otlp_piece_array(&ms->p, n, sizeof *metrics, r.at);
    if (!scope || !metrics)
        return false;
    *scope = (struct scope){.name = STR(""), .version = STR(""), .schema_url = STR("")};
    n = 0;
    while ((got = pb_next(&r, &f)) > 0) {
        if (f.tag == SCOPE_METRICS_METRICS) {
            if (metric_decode(ms, pb_from_field(&f), &metrics[n]))
                n_points += metrics[n++].n_points;
            else if (ms->p.err)
                return false;
        } else if ((f.tag == SCOPE_METRICS_SCOPE && !otlp_piece_scope(&ms->p, &f, scope)) ||
                   (f.tag == SCOPE_METRICS_SCHEMA_URL &&
                    !otlp_piece_text(&ms->p, &f, &scope->schema_url))) {
            if (!take_reject(ms, &reason))
                return false;
        }
    }
    if (got < 0)
        return otlp_piece_fail(&ms->p, r.at, got);
    if (reason) {
        points_reject(ms, reason, n_points);
    } else if (n) {
        ms->batches[ms->out.n++] = (struct metric_batch){metrics, n, resource, scope};
        ms->out.n_points += n_points;
    }
    return true;
}

static bool resource_metrics_decode(struct metrics *ms, struct pb r)
{
    size_t mark = ms->out.n;
    uint64_t points = ms->out.n_points;
    const char *reason = NULL;
    struct pb_field f;
    int got;
    struct resource *resource = otlp_piece_array(&ms->p, 1, sizeof *resource, r.at);
    if (!resource)
        return false;
    *resource = (struct resource){.schema_url = STR("")};
    while ((got = pb_next(&r, &f)) > 0) {
        if (f.tag == RESOURCE_METRICS_SCOPE_METRICS) {
            if (!scope_metrics_decode(ms, pb_from_field(&f), resource))
                return false;
        } else if ((f.tag == RESOURCE_METRICS_RESOURCE &&
                    !otlp_piece_resource(&ms->p, &f, resource)) ||
                   (f.tag == RESOURCE_METRICS_SCHEMA_URL &&
                    !otlp_piece_text(&ms->p, &f, &resource->schema_url))) {
            if (!take_reject(ms, &reason))
                return false;
        }
    }
    if (got < 0)
        return otlp_piece_fail(&ms->p, r.at, got);
    if (reason) {
        points_reject(ms, reason, ms->out.n_points - points);
        ms->out.n_points = points;
        ms->out.n = mark;
    }
    resource_set_service_name(resource);
    return true;
}

static bool scopes_count(struct otlp_pieces *p, struct pb r, size_t *ret)
{
    struct pb_field f;
    int got;
    while ((got = pb_next(&r, &f)) > 0)
        if (f.tag == REQUEST_RESOURCE_METRICS &&
            !otlp_piece_count(p, pb_from_field(&f), RESOURCE_METRICS_SCOPE_METRICS, ret))
            return false;
    return got == 0 || otlp_piece_fail(p, r.at, got);
}

int otlp_metrics_decode(struct str body, struct arena *arena, struct metric_batches *ret,
                        struct error_detail *ret_detail)
{
    struct pb r = pb_from_str(body);
    struct metrics ms = {.p = {.arena = arena, .start = r.at, .detail = ret_detail}};
    struct pb_field f;
    size_t n = 0;
    if (body.len > UINT32_MAX)
        return error_set(ret_detail, ERR_TOO_LARGE, 0, "a body of more than 4 GiB");
    if (!scopes_count(&ms.p, r, &n))
        return ms.p.err;
    ms.batches = otlp_piece_array(&ms.p, n, sizeof *ms.batches, r.at);
    if (!ms.batches)
        return ms.p.err;
    while (pb_next(&r, &f) > 0) /* it was walked once */
        if (f.tag == REQUEST_RESOURCE_METRICS && !resource_metrics_decode(&ms, pb_from_field(&f)))
            return ms.p.err;
    ms.out.items = ms.batches;
    *ret = ms.out;
    return 0;
}

int otlp_metrics_json_decode(struct str body, struct arena *arena, struct metric_batches *ret,
                             struct error_detail *ret_detail)
{
    struct str protobuf;
    int err = otlp_transcode(OTLP_TRANSCODE_METRICS, body, arena, &protobuf, ret_detail);
    return err ? err : otlp_metrics_decode(protobuf, arena, ret, ret_detail);
}
