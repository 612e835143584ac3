#include "wire/otlp_metrics.h"

#include "wire/otlp.h"
#include "wire/otlp_json.h"
#include "wire/protobuf.h"

/* Field numbers and types, message by message. */
enum {
    /* ExportMetricsServiceRequest */
    REQUEST_RESOURCE_METRICS = PB_TAG(1, PB_BYTES),
    /* ResourceMetrics */
    RESOURCE_METRICS_RESOURCE = PB_TAG(1, PB_BYTES),
    RESOURCE_METRICS_SCOPE_METRICS = PB_TAG(2, PB_BYTES),
    RESOURCE_METRICS_SCHEMA_URL = PB_TAG(3, PB_BYTES),
    /* ScopeMetrics */
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
    /* Gauge, Sum, ExponentialHistogram */
    DATA_POINTS = PB_TAG(1, PB_BYTES),
    DATA_TEMPORALITY = PB_TAG(2, PB_VARINT),
    SUM_IS_MONOTONIC = PB_TAG(3, PB_VARINT),
    /* NumberDataPoint */
    NUMBER_START = PB_TAG(2, PB_FIXED64),
    NUMBER_TIME = PB_TAG(3, PB_FIXED64),
    NUMBER_DOUBLE = PB_TAG(4, PB_FIXED64),
    NUMBER_INT = PB_TAG(6, PB_FIXED64),
    NUMBER_ATTRIBUTES = PB_TAG(7, PB_BYTES),
    /* ExponentialHistogramDataPoint */
    HISTOGRAM_ATTRIBUTES = PB_TAG(1, PB_BYTES),
    HISTOGRAM_START = PB_TAG(2, PB_FIXED64),
    HISTOGRAM_TIME = PB_TAG(3, PB_FIXED64),
    HISTOGRAM_COUNT = PB_TAG(4, PB_FIXED64),
    HISTOGRAM_SUM = PB_TAG(5, PB_FIXED64),
    HISTOGRAM_SCALE = PB_TAG(6, PB_VARINT),
    HISTOGRAM_ZERO_COUNT = PB_TAG(7, PB_FIXED64),
    HISTOGRAM_POSITIVE = PB_TAG(8, PB_BYTES),
    HISTOGRAM_NEGATIVE = PB_TAG(9, PB_BYTES),
    HISTOGRAM_MIN = PB_TAG(12, PB_FIXED64),
    HISTOGRAM_MAX = PB_TAG(13, PB_FIXED64),
    HISTOGRAM_ZERO_THRESHOLD = PB_TAG(14, PB_FIXED64),
    /* HistogramDataPoint */
    EXPLICIT_START = PB_TAG(2, PB_FIXED64),
    EXPLICIT_TIME = PB_TAG(3, PB_FIXED64),
    EXPLICIT_COUNT = PB_TAG(4, PB_FIXED64),
    EXPLICIT_SUM = PB_TAG(5, PB_FIXED64),
    EXPLICIT_COUNTS = PB_TAG(6, PB_BYTES),
    EXPLICIT_BOUNDS = PB_TAG(7, PB_BYTES),
    EXPLICIT_ATTRIBUTES = PB_TAG(9, PB_BYTES),
    EXPLICIT_MIN = PB_TAG(11, PB_FIXED64),
    EXPLICIT_MAX = PB_TAG(12, PB_FIXED64),
    /* Buckets */
    BUCKETS_OFFSET = PB_TAG(1, PB_VARINT),
    BUCKETS_COUNTS = PB_TAG(2, PB_BYTES),
};

/* How many bytes the length of each message is expected to take. */
enum { LEN_BATCH = 3, LEN_METRIC = 2, LEN_SMALL = 1 };

/* ---- protobuf ---- */

static void put_str_unless_empty(struct buf *b, uint32_t tag, struct str s)
{
    if (s.len)
        pb_put_str(b, tag, s);
}

static void put_fixed64_unless_zero(struct buf *b, uint32_t tag, uint64_t n)
{
    if (n)
        pb_put_fixed64(b, tag, n);
}

static void put_double(struct buf *b, uint32_t tag, double d)
{
    uint64_t bits;
    memcpy(&bits, &d, sizeof bits);
    pb_put_fixed64(b, tag, bits);
}

/* sint32: small numbers of either sign are short. */
static void put_sint32(struct buf *b, uint32_t tag, int32_t n)
{
    if (n)
        pb_put_varint(b, tag, (uint32_t)n << 1 ^ (uint32_t)(n >> 31));
}

static void number_encode(const struct metric_point *p, struct buf *b)
{
    struct pb_message point = pb_open(b, DATA_POINTS, LEN_SMALL);
    put_fixed64_unless_zero(b, NUMBER_START, p->start_ns);
    put_fixed64_unless_zero(b, NUMBER_TIME, p->time_ns);
    if (p->is_real)
        put_double(b, NUMBER_DOUBLE, p->real);
    else
        pb_put_fixed64(b, NUMBER_INT, (uint64_t)p->integer);
    otlp_encode_attrs(&p->attrs, NUMBER_ATTRIBUTES, b);
    pb_close(b, point);
}

static void buckets_encode(const struct metric_buckets *buckets, uint32_t tag, struct buf *b)
{
    struct pb_message message = pb_open(b, tag, LEN_METRIC);
    put_sint32(b, BUCKETS_OFFSET, buckets->offset);
    struct pb_message counts = pb_open(b, BUCKETS_COUNTS, LEN_METRIC);
    for (size_t i = 0; i < buckets->n; i++) {
        char bytes[10];
        buf_put(b, bytes, (size_t)(pb_varint_write(bytes, buckets->counts[i]) - bytes));
    }
    pb_close(b, counts);
    pb_close(b, message);
}

static void histogram_encode(const struct metric_point *p, struct buf *b)
{
    const struct metric_exp_histogram *h = &p->histogram;
    struct pb_message point = pb_open(b, DATA_POINTS, LEN_METRIC);
    otlp_encode_attrs(&p->attrs, HISTOGRAM_ATTRIBUTES, b);
    put_fixed64_unless_zero(b, HISTOGRAM_START, p->start_ns);
    put_fixed64_unless_zero(b, HISTOGRAM_TIME, p->time_ns);
    put_fixed64_unless_zero(b, HISTOGRAM_COUNT, h->count);
    if (!h->lacks_sum)
        put_double(b, HISTOGRAM_SUM, h->sum);
    put_sint32(b, HISTOGRAM_SCALE, h->scale);
    put_fixed64_unless_zero(b, HISTOGRAM_ZERO_COUNT, h->zero_count);
    if (h->positive.n)
        buckets_encode(&h->positive, HISTOGRAM_POSITIVE, b);
    if (h->negative.n)
        buckets_encode(&h->negative, HISTOGRAM_NEGATIVE, b);
    if (h->count && !h->lacks_min)
        put_double(b, HISTOGRAM_MIN, h->min);
    if (h->count && !h->lacks_max)
        put_double(b, HISTOGRAM_MAX, h->max);
    if (h->zero_threshold != 0)
        put_double(b, HISTOGRAM_ZERO_THRESHOLD, h->zero_threshold);
    pb_close(b, point);
}

static void explicit_encode(const struct metric_point *p, struct buf *b)
{
    const struct metric_histogram *h = &p->explicit_histogram;
    struct pb_message point = pb_open(b, DATA_POINTS, LEN_METRIC);
    put_fixed64_unless_zero(b, EXPLICIT_START, p->start_ns);
    put_fixed64_unless_zero(b, EXPLICIT_TIME, p->time_ns);
    put_fixed64_unless_zero(b, EXPLICIT_COUNT, h->count);
    if (!h->lacks_sum)
        put_double(b, EXPLICIT_SUM, h->sum);
    struct pb_message list = pb_open(b, EXPLICIT_COUNTS, LEN_SMALL);
    for (size_t i = 0; i < h->n_counts; i++) {
        uint64_t n = htole64(h->counts[i]);
        buf_put(b, &n, sizeof n);
    }
    pb_close(b, list);
    list = pb_open(b, EXPLICIT_BOUNDS, LEN_SMALL);
    for (size_t i = 0; i < h->n_bounds; i++) {
        uint64_t bits;
        memcpy(&bits, &h->bounds[i], sizeof bits);
        bits = htole64(bits);
        buf_put(b, &bits, sizeof bits);
    }
    pb_close(b, list);
    otlp_encode_attrs(&p->attrs, EXPLICIT_ATTRIBUTES, b);
    if (!h->lacks_min)
        put_double(b, EXPLICIT_MIN, h->min);
    if (!h->lacks_max)
        put_double(b, EXPLICIT_MAX, h->max);
    pb_close(b, point);
}

static void metric_encode(const struct metric *m, struct buf *b)
{
    static const uint32_t tags[] = {[METRIC_GAUGE] = METRIC_DATA_GAUGE,
                                    [METRIC_SUM] = METRIC_DATA_SUM,
                                    [METRIC_EXP_HISTOGRAM] = METRIC_DATA_EXP_HISTOGRAM,
                                    [METRIC_HISTOGRAM] = METRIC_DATA_HISTOGRAM};
    struct pb_message metric = pb_open(b, SCOPE_METRICS_METRICS, LEN_METRIC);
    put_str_unless_empty(b, METRIC_NAME, m->name);
    put_str_unless_empty(b, METRIC_DESCRIPTION, m->description);
    put_str_unless_empty(b, METRIC_UNIT, m->unit);
    struct pb_message data = pb_open(b, tags[m->type], LEN_METRIC);
    for (size_t i = 0; i < m->n_points; i++) {
        if (m->type == METRIC_EXP_HISTOGRAM)
            histogram_encode(&m->points[i], b);
        else if (m->type == METRIC_HISTOGRAM)
            explicit_encode(&m->points[i], b);
        else
            number_encode(&m->points[i], b);
    }
    if (m->type != METRIC_GAUGE)
        pb_put_varint(b, DATA_TEMPORALITY, m->temporality);
    if (m->type == METRIC_SUM && m->monotonic)
        pb_put_varint(b, SUM_IS_MONOTONIC, 1);
    pb_close(b, data);
    pb_close(b, metric);
}

void otlp_metrics_encode(const struct metric_batch *batch, struct buf *out)
{
    if (batch->n == 0)
        return;
    struct pb_message resource = pb_open(out, REQUEST_RESOURCE_METRICS, LEN_BATCH);
    otlp_encode_resource(batch->resource, RESOURCE_METRICS_RESOURCE, out);
    struct pb_message scope = pb_open(out, RESOURCE_METRICS_SCOPE_METRICS, LEN_BATCH);
    otlp_encode_scope(batch->scope, SCOPE_METRICS_SCOPE, out);
    for (size_t i = 0; i < batch->n; i++)
        metric_encode(&batch->metrics[i], out);
    put_str_unless_empty(out, SCOPE_METRICS_SCHEMA_URL, batch->scope->schema_url);
    pb_close(out, scope);
    put_str_unless_empty(out, RESOURCE_METRICS_SCHEMA_URL, batch->resource->schema_url);
    pb_close(out, resource);
}

/* ---- JSON ---- */

static void key_str(struct json_writer *w, struct str key, struct str s)
{
    if (s.len) {
        json_key(w, key);
        json_str(w, s);
    }
}

static void key_u64_str(struct json_writer *w, struct str key, uint64_t n)
{
    json_key(w, key);
    json_u64_str(w, n);
}

static void key_double(struct json_writer *w, struct str key, double d)
{
    json_key(w, key);
    json_double(w, d);
}

static void key_i64(struct json_writer *w, struct str key, int64_t n)
{
    json_key(w, key);
    json_i64(w, n);
}

static void point_json(const struct metric_point *p, struct json_writer *w)
{
    if (p->attrs.n) {
        json_key(w, STR("attributes"));
        otlp_json_encode_attrs(&p->attrs, w);
    }
    if (p->start_ns)
        key_u64_str(w, STR("startTimeUnixNano"), p->start_ns);
    key_u64_str(w, STR("timeUnixNano"), p->time_ns);
}

static void number_json(const struct metric_point *p, struct json_writer *w)
{
    json_open(w, '{');
    point_json(p, w);
    if (p->is_real) {
        key_double(w, STR("asDouble"), p->real);
    } else {
        json_key(w, STR("asInt"));
        json_i64_str(w, p->integer);
    }
    json_close(w, '}');
}

static void buckets_json(struct str key, const struct metric_buckets *buckets,
                         struct json_writer *w)
{
    if (!buckets->n)
        return;
    json_key(w, key);
    json_open(w, '{');
    key_i64(w, STR("offset"), buckets->offset);
    json_key(w, STR("bucketCounts"));
    json_open(w, '[');
    for (size_t i = 0; i < buckets->n; i++)
        json_u64_str(w, buckets->counts[i]);
    json_close(w, ']');
    json_close(w, '}');
}

static void histogram_json(const struct metric_point *p, struct json_writer *w)
{
    const struct metric_exp_histogram *h = &p->histogram;
    json_open(w, '{');
    point_json(p, w);
    key_u64_str(w, STR("count"), h->count);
    if (!h->lacks_sum)
        key_double(w, STR("sum"), h->sum);
    key_i64(w, STR("scale"), h->scale);
    key_u64_str(w, STR("zeroCount"), h->zero_count);
    buckets_json(STR("positive"), &h->positive, w);
    buckets_json(STR("negative"), &h->negative, w);
    if (h->count && !h->lacks_min)
        key_double(w, STR("min"), h->min);
    if (h->count && !h->lacks_max)
        key_double(w, STR("max"), h->max);
    if (h->zero_threshold != 0)
        key_double(w, STR("zeroThreshold"), h->zero_threshold);
    json_close(w, '}');
}

static void explicit_json(const struct metric_point *p, struct json_writer *w)
{
    const struct metric_histogram *h = &p->explicit_histogram;
    json_open(w, '{');
    point_json(p, w);
    key_u64_str(w, STR("count"), h->count);
    if (!h->lacks_sum)
        key_double(w, STR("sum"), h->sum);
    json_key(w, STR("bucketCounts"));
    json_open(w, '[');
    for (size_t i = 0; i < h->n_counts; i++)
        json_u64_str(w, h->counts[i]);
    json_close(w, ']');
    json_key(w, STR("explicitBounds"));
    json_open(w, '[');
    for (size_t i = 0; i < h->n_bounds; i++)
        json_double(w, h->bounds[i]);
    json_close(w, ']');
    if (!h->lacks_min)
        key_double(w, STR("min"), h->min);
    if (!h->lacks_max)
        key_double(w, STR("max"), h->max);
    json_close(w, '}');
}

void otlp_metrics_json_encode_point(const struct metric_point *p, uint8_t type,
                                    struct json_writer *w)
{
    if (type == METRIC_EXP_HISTOGRAM)
        histogram_json(p, w);
    else if (type == METRIC_HISTOGRAM)
        explicit_json(p, w);
    else
        number_json(p, w);
}

static void metric_json(const struct metric *m, struct json_writer *w)
{
    static const struct str keys[] = {[METRIC_GAUGE] = {"gauge", 5},
                                      [METRIC_SUM] = {"sum", 3},
                                      [METRIC_EXP_HISTOGRAM] = {"exponentialHistogram", 20},
                                      [METRIC_HISTOGRAM] = {"histogram", 9}};
    json_open(w, '{');
    key_str(w, STR("name"), m->name);
    key_str(w, STR("description"), m->description);
    key_str(w, STR("unit"), m->unit);
    json_key(w, keys[m->type]);
    json_open(w, '{');
    json_key(w, STR("dataPoints"));
    json_open(w, '[');
    for (size_t i = 0; i < m->n_points; i++)
        otlp_metrics_json_encode_point(&m->points[i], m->type, w);
    json_close(w, ']');
    if (m->type != METRIC_GAUGE)
        key_i64(w, STR("aggregationTemporality"), m->temporality);
    if (m->type == METRIC_SUM && m->monotonic) {
        json_key(w, STR("isMonotonic"));
        json_bool(w, true);
    }
    json_close(w, '}');
    json_close(w, '}');
}

void otlp_metrics_json_encode(const struct metric_batch *batch, struct json_writer *w)
{
    json_open(w, '{');
    json_key(w, STR("resourceMetrics"));
    json_open(w, '[');
    if (batch->n) {
        json_open(w, '{');
        json_key(w, STR("resource"));
        json_open(w, '{');
        json_key(w, STR("attributes"));
        otlp_json_encode_attrs(&batch->resource->attrs, w);
        json_close(w, '}');
        json_key(w, STR("scopeMetrics"));
        json_open(w, '[');
        json_open(w, '{');
        json_key(w, STR("scope"));
        json_open(w, '{');
        key_str(w, STR("name"), batch->scope->name);
        key_str(w, STR("version"), batch->scope->version);
        json_close(w, '}');
        json_key(w, STR("metrics"));
        json_open(w, '[');
        for (size_t i = 0; i < batch->n; i++)
            metric_json(&batch->metrics[i], w);
        json_close(w, ']');
        key_str(w, STR("schemaUrl"), batch->scope->schema_url);
        json_close(w, '}');
        json_close(w, ']');
        key_str(w, STR("schemaUrl"), batch->resource->schema_url);
        json_close(w, '}');
    }
    json_close(w, ']');
    json_close(w, '}');
}
