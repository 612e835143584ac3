#include "store/local/records_rows.h"

#include <endian.h>
#include <stdlib.h>

#include "base/hash.h"

enum {
    /* What an item costs beside its bytes, for the bound of memory. */
    SHARED_FIRST = 64,
    ROWS_FIRST = 256,
    ATTRS_SORTED_MAX = 1024, /* a series with more is told apart by their order, too */
    SERIES_SEED = 0x5e71e5,
};

int row_cmp(const struct row *a, const struct row *b)
{
    if (a->kind != b->kind)
        return a->kind < b->kind ? -1 : 1;
    int order = memcmp(a->key, b->key, ROW_KEY_SIZE);
    if (order)
        return order;
    if (a->time_ns != b->time_ns)
        return a->time_ns < b->time_ns ? -1 : 1;
    return a->ordinal < b->ordinal ? -1 : a->ordinal > b->ordinal;
}

/* ---- encoding ---- */

static void put_fixed64(struct buf *b, uint64_t n)
{
    n = htole64(n);
    buf_put(b, &n, sizeof n);
}

static void put_double(struct buf *b, double d)
{
    uint64_t bits;
    memcpy(&bits, &d, sizeof bits);
    put_fixed64(b, bits);
}

struct encoder {
    struct buf shared, rows, scratch;
    uint64_t n_shared, n_rows;
    struct records_refused refused;
};

enum { LOG_HAS_TIME = 1, LOG_HAS_OBSERVED = 2, LOG_HAS_SPAN = 4 };

static void log_encode(const struct log_record *r, struct buf *b)
{
    bool has_span = !span_id_is_zero(&r->span_id);
    buf_byte(b,
             (char)((r->time_ns ? LOG_HAS_TIME : 0) | (r->observed_time_ns ? LOG_HAS_OBSERVED : 0) |
                    (has_span ? LOG_HAS_SPAN : 0)));
    if (r->time_ns && r->observed_time_ns)
        codec_put_zigzag(b, (int64_t)(r->observed_time_ns - r->time_ns));
    if (has_span)
        buf_put(b, r->span_id.bytes, SPAN_ID_SIZE);
    codec_put_varint(b, r->flags);
    buf_byte(b, (char)r->severity);
    codec_put_str(b, r->severity_text);
    codec_put_str(b, r->event_name);
    codec_put_value(b, &r->body);
    codec_put_attrs(b, &r->attrs);
}

enum { POINT_HAS_START = 1, POINT_REAL = 2, POINT_SUM = 4, POINT_MIN = 8, POINT_MAX = 16 };

static void buckets_encode(const struct metric_buckets *buckets, struct buf *b)
{
    codec_put_zigzag(b, buckets->offset);
    codec_put_varint(b, buckets->n);
    for (size_t i = 0; i < buckets->n; i++)
        codec_put_varint(b, buckets->counts[i]);
}

static void point_flags(struct buf *b, const struct metric_point *p, uint8_t flags)
{
    buf_byte(b, (char)(flags | (p->start_ns ? POINT_HAS_START : 0)));
    if (p->start_ns)
        codec_put_zigzag(b, (int64_t)(p->time_ns - p->start_ns));
}

static uint8_t present(bool lacks_sum, bool lacks_min, bool lacks_max)
{
    return (uint8_t)((lacks_sum ? 0 : POINT_SUM) | (lacks_min ? 0 : POINT_MIN) |
                     (lacks_max ? 0 : POINT_MAX));
}

static void point_encode(const struct metric_point *p, uint8_t type, struct buf *b)
{
    if (type == METRIC_EXP_HISTOGRAM) {
        const struct metric_exp_histogram *h = &p->histogram;
        point_flags(b, p,
                    present(h->lacks_sum, h->lacks_min || !h->count, h->lacks_max || !h->count));
        codec_put_varint(b, h->count);
        codec_put_varint(b, h->zero_count);
        put_double(b, h->sum);
        put_double(b, h->count ? h->min : 0);
        put_double(b, h->count ? h->max : 0);
        codec_put_zigzag(b, h->scale);
        put_double(b, h->zero_threshold);
        buckets_encode(&h->positive, b);
        buckets_encode(&h->negative, b);
    } else if (type == METRIC_HISTOGRAM) {
        const struct metric_histogram *h = &p->explicit_histogram;
        point_flags(b, p, present(h->lacks_sum, h->lacks_min, h->lacks_max));
        codec_put_varint(b, h->count);
        put_double(b, h->sum);
        put_double(b, h->min);
        put_double(b, h->max);
        codec_put_varint(b, h->n_bounds);
        for (size_t i = 0; i < h->n_bounds; i++)
            put_double(b, h->bounds[i]);
        codec_put_varint(b, h->n_counts);
        for (size_t i = 0; i < h->n_counts; i++)
            codec_put_varint(b, h->counts[i]);
    } else {
        point_flags(b, p, p->is_real ? POINT_REAL : 0);
        if (p->is_real)
            put_double(b, p->real);
        else
            codec_put_zigzag(b, p->integer);
    }
}

static int attr_order(const void *a, const void *b)
{
    return str_cmp(((const struct attr *)a)->key, ((const struct attr *)b)->key);
}

/* In the order of their keys, so that a series is one whatever the order its sender has them in. */
static void put_sorted_attrs(struct buf *b, const struct attrs *attrs)
{
    struct attr *items = NULL;
    struct attrs sorted = *attrs;
    if (attrs->n > 1 && attrs->n <= ATTRS_SORTED_MAX) {
        items = malloc(attrs->n * sizeof *items);
        if (!items) {
            b->failed = true;
            return;
        }
        memcpy(items, attrs->items, attrs->n * sizeof *items);
        qsort(items, attrs->n, sizeof *items, attr_order);
        sorted.items = items;
    }
    codec_put_attrs(b, &sorted);
    free(items);
}

static void series_encode(const struct metric_batch *batch, const struct metric *m,
                          const struct attrs *attrs, struct buf *b)
{
    buf_byte(b, ROW_POINT);
    codec_put_str(b, m->name);
    codec_put_str(b, m->description);
    codec_put_str(b, m->unit);
    buf_byte(b, (char)m->type);
    buf_byte(b, (char)m->temporality);
    buf_byte(b, (char)m->monotonic);
    put_sorted_attrs(b, attrs);
    codec_put_resource(b, batch->resource);
    codec_put_scope(b, batch->scope);
}

/* What was put into `scratch` becomes a shared thing of the batch. */
static void share(struct encoder *e)
{
    codec_put_str(&e->shared, buf_as_str(&e->scratch));
    e->shared.failed |= e->scratch.failed;
    e->n_shared++;
}

/* What was put into `scratch` becomes a row; false: it is too large. */
static bool put_row(struct encoder *e, uint8_t kind, const void *key, uint64_t time_ns,
                    uint64_t shared)
{
    e->rows.failed |= e->scratch.failed;
    if (e->scratch.len > RECORDS_ROW_BYTES_MAX) {
        e->refused.too_large++;
        return false;
    }
    buf_byte(&e->rows, (char)kind);
    buf_put(&e->rows, key, ROW_KEY_SIZE);
    put_fixed64(&e->rows, time_ns);
    codec_put_varint(&e->rows, shared);
    codec_put_str(&e->rows, buf_as_str(&e->scratch));
    e->n_rows++;
    return true;
}

static void logs_encode(struct encoder *e, const struct records_batch *batch)
{
    for (size_t i = 0; i < batch->n_logs; i++) {
        const struct log_record *r = &batch->logs[i];
        if (!i || r[-1].resource != r->resource || r[-1].scope != r->scope) {
            buf_clear(&e->scratch);
            buf_byte(&e->scratch, ROW_LOG);
            codec_put_resource(&e->scratch, r->resource);
            codec_put_scope(&e->scratch, r->scope);
            share(e);
        }
        buf_clear(&e->scratch);
        log_encode(r, &e->scratch);
        put_row(e, ROW_LOG, r->trace_id.bytes, log_record_time_ns(r), e->n_shared - 1);
    }
}

static void metric_encode(struct encoder *e, const struct metric_batch *batch,
                          const struct metric *m, rows_series_fn *series, void *arg)
{
    for (size_t i = 0; i < m->n_points; i++) {
        const struct metric_point *p = &m->points[i];
        uint8_t key[ROW_KEY_SIZE];
        buf_clear(&e->scratch);
        series_encode(batch, m, &p->attrs, &e->scratch);
        shared_series_key(buf_as_str(&e->scratch), key);
        if (e->scratch.len > RECORDS_ROW_BYTES_MAX) {
            e->refused.too_large++;
            continue;
        }
        if (series && !series(arg, key)) {
            e->refused.too_many_series++;
            continue;
        }
        share(e);
        buf_clear(&e->scratch);
        point_encode(p, m->type, &e->scratch);
        put_row(e, ROW_POINT, key, p->time_ns, e->n_shared - 1);
    }
}

int rows_encode(const struct records_batch *batch, rows_series_fn *series, void *arg,
                struct buf *out, struct records_refused *ret_refused, size_t *ret_n)
{
    struct encoder e = {.n_shared = 0};
    logs_encode(&e, batch);
    for (size_t i = 0; i < batch->n_metrics; i++)
        for (size_t j = 0; j < batch->metrics[i].n; j++)
            metric_encode(&e, &batch->metrics[i], &batch->metrics[i].metrics[j], series, arg);
    codec_put_varint(out, e.n_shared);
    buf_str(out, buf_as_str(&e.shared));
    codec_put_varint(out, e.n_rows);
    buf_str(out, buf_as_str(&e.rows));
    codec_put_varint(out, batch->n_positions);
    for (size_t i = 0; i < batch->n_positions; i++) {
        codec_put_str(out, batch->positions[i].name);
        codec_put_str(out, batch->positions[i].value);
    }
    int err = e.shared.failed || e.rows.failed || !buf_ok(out) ? ERR_NOMEM : 0;
    if (!err) {
        *ret_refused = e.refused;
        *ret_n = e.n_rows + batch->n_positions;
    }
    buf_done(&e.shared);
    buf_done(&e.rows);
    buf_done(&e.scratch);
    return err;
}

/* ---- rows in memory ---- */

void rows_init(struct rows *rows)
{
    *rows = (struct rows){.arena = {.first = 64 << 10}};
}

void rows_done(struct rows *rows)
{
    arena_done(&rows->arena);
    free(rows->items);
    free(rows->shared);
    free(rows->slots);
    *rows = (struct rows){.n = 0};
}

size_t rows_bytes(const struct rows *rows)
{
    return rows->arena.bytes + rows->room * sizeof *rows->items +
           rows->shared_room * sizeof *rows->shared + rows->n_slots * sizeof *rows->slots;
}

static int slots_grow(struct rows *rows)
{
    uint32_t n_slots = rows->n_slots ? 2 * rows->n_slots : 2 * SHARED_FIRST;
    uint32_t *slots = calloc(n_slots, sizeof *slots);
    if (!slots)
        return ERR_NOMEM;
    for (uint32_t i = 0; i < rows->n_shared; i++) {
        uint32_t at = (uint32_t)rows->shared[i].hash & (n_slots - 1);
        while (slots[at])
            at = (at + 1) & (n_slots - 1);
        slots[at] = i + 1;
    }
    free(rows->slots);
    rows->slots = slots;
    rows->n_slots = n_slots;
    return 0;
}

int rows_share(struct rows *rows, struct str bytes, uint32_t *ret_number)
{
    if (2 * (rows->n_shared + 1) > rows->n_slots && slots_grow(rows))
        return ERR_NOMEM;
    uint64_t hash = hash_bytes_seed(bytes.ptr, bytes.len, hash_secret());
    uint32_t at = (uint32_t)hash & (rows->n_slots - 1);
    for (; rows->slots[at]; at = (at + 1) & (rows->n_slots - 1)) {
        const struct rows_shared *s = &rows->shared[rows->slots[at] - 1];
        if (s->hash == hash && str_eq(s->bytes, bytes)) {
            *ret_number = rows->slots[at] - 1;
            return 0;
        }
    }
    if (rows->n_shared == rows->shared_room) {
        uint32_t room = rows->shared_room ? 2 * rows->shared_room : SHARED_FIRST;
        struct rows_shared *shared = realloc(rows->shared, room * sizeof *shared);
        if (!shared)
            return ERR_NOMEM;
        rows->shared = shared;
        rows->shared_room = room;
    }
    struct str copy = arena_str(&rows->arena, bytes);
    if (!copy.ptr)
        return ERR_NOMEM;
    rows->shared[rows->n_shared] = (struct rows_shared){copy, hash};
    *ret_number = rows->n_shared++;
    rows->slots[at] = rows->n_shared;
    return 0;
}

int rows_add(struct rows *rows, const struct row *row)
{
    if (rows->n == rows->room) {
        size_t room = rows->room ? 2 * rows->room : ROWS_FIRST;
        struct row *items = realloc(rows->items, room * sizeof *items);
        if (!items)
            return ERR_NOMEM;
        rows->items = items;
        rows->room = room;
    }
    char *payload = arena_alloc(&rows->arena, row->len);
    if (!payload)
        return ERR_NOMEM;
    if (row->len)
        memcpy(payload, row->payload, row->len);
    struct row *r = &rows->items[rows->n++];
    *r = *row;
    r->payload = payload;
    uint8_t kind = row->kind;
    if (!rows->n_kind[kind]++) {
        rows->time_min_ns[kind] = rows->time_max_ns[kind] = row->time_ns;
    } else if (row->time_ns < rows->time_min_ns[kind]) {
        rows->time_min_ns[kind] = row->time_ns;
    } else if (row->time_ns > rows->time_max_ns[kind]) {
        rows->time_max_ns[kind] = row->time_ns;
    }
    return 0;
}

static void row_read(struct codec_reader *r, uint64_t n_shared, struct row *ret)
{
    const uint8_t *head = codec_bytes(r, 1 + ROW_KEY_SIZE);
    *ret = (struct row){.time_ns = codec_fixed64(r)};
    uint64_t shared = codec_varint(r);
    struct str payload = codec_str(r);
    if (r->err)
        return;
    ret->kind = head[0];
    memcpy(ret->key, head + 1, ROW_KEY_SIZE);
    ret->payload = payload.ptr;
    ret->len = (uint32_t)payload.len;
    if ((head[0] != ROW_LOG && head[0] != ROW_POINT) || shared >= n_shared ||
        payload.len > RECORDS_ROW_BYTES_MAX)
        r->err = ERR_CORRUPT;
    else
        ret->shared = (uint32_t)shared;
}

/* The shared things of a batch, by their number in it: what they are called here. */
static uint32_t *shared_read(struct rows *rows, struct codec_reader *r, uint64_t *ret_n)
{
    uint64_t n = codec_varint(r);
    if (r->err || n > (size_t)(r->end - r->at)) {
        r->err = r->err ? r->err : ERR_CORRUPT;
        return NULL;
    }
    uint32_t *numbers = malloc((n + 1) * sizeof *numbers);
    if (!numbers)
        r->err = ERR_NOMEM;
    for (uint64_t i = 0; i < n && !r->err; i++) {
        struct str bytes = codec_str(r);
        if (!r->err)
            r->err = rows_share(rows, bytes, &numbers[i]);
    }
    *ret_n = n;
    return numbers;
}

int rows_add_batch(struct rows *rows, struct str batch, uint64_t ordinal,
                   rows_position_fn *position, void *arg)
{
    struct codec_reader r = codec_reader(batch, NULL);
    size_t before = rows->n;
    uint64_t n_kind[ROW_KINDS], n_shared = 0;
    memcpy(n_kind, rows->n_kind, sizeof n_kind);
    uint32_t *numbers = shared_read(rows, &r, &n_shared);
    uint64_t n = codec_varint(&r);
    for (uint64_t i = 0; i < n && !r.err; i++) {
        struct row row;
        row_read(&r, n_shared, &row);
        if (r.err)
            break;
        row.shared = numbers[row.shared];
        row.ordinal = ordinal + i;
        r.err = rows_add(rows, &row);
    }
    n = codec_varint(&r);
    for (uint64_t i = 0; i < n && !r.err; i++) {
        struct str name = codec_str(&r), value = codec_str(&r);
        if (!r.err)
            r.err = position(arg, name, value);
    }
    free(numbers);
    int err = codec_finish(&r);
    if (err) { /* bounds of time stay wider than they need be */
        rows->n = before;
        memcpy(rows->n_kind, n_kind, sizeof n_kind);
    }
    return err;
}

/* ---- decoding ---- */

int shared_log_decode(struct str bytes, struct arena *arena, struct shared_log *ret)
{
    struct codec_reader r = codec_reader(str_skip(bytes, 1), arena);
    if (shared_kind(bytes) != ROW_LOG)
        return ERR_CORRUPT;
    codec_resource(&r, &ret->resource);
    codec_scope(&r, &ret->scope);
    return codec_finish(&r);
}

static uint8_t byte(struct codec_reader *r)
{
    const uint8_t *p = codec_bytes(r, 1);
    return p ? *p : 0;
}

int shared_series_decode(struct str bytes, struct arena *arena, struct shared_series *ret)
{
    struct codec_reader r = codec_reader(str_skip(bytes, 1), arena);
    if (shared_kind(bytes) != ROW_POINT)
        return ERR_CORRUPT;
    *ret = (struct shared_series){.metric.name = codec_str(&r)};
    ret->metric.description = codec_str(&r);
    ret->metric.unit = codec_str(&r);
    ret->metric.type = byte(&r);
    ret->metric.temporality = byte(&r);
    ret->metric.monotonic = byte(&r) != 0;
    codec_attrs(&r, &ret->attrs);
    codec_resource(&r, &ret->resource);
    codec_scope(&r, &ret->scope);
    if (!r.err && ret->metric.type >= METRIC_TYPES)
        r.err = ERR_CORRUPT;
    return codec_finish(&r);
}

int shared_series_name(struct str bytes, struct str *ret)
{
    struct codec_reader r = codec_reader(str_skip(bytes, 1), NULL);
    *ret = codec_str(&r);
    return r.err;
}

void shared_series_key(struct str bytes, uint8_t key[ROW_KEY_SIZE])
{
    const uint64_t halves[] = {htole64(hash_bytes(bytes.ptr, bytes.len)),
                               htole64(hash_bytes_seed(bytes.ptr, bytes.len, SERIES_SEED))};
    memcpy(key, halves, sizeof halves);
}

uint8_t row_log_severity(const struct row *row)
{
    struct codec_reader r = codec_reader((struct str){row->payload, row->len}, NULL);
    uint8_t has = byte(&r);
    if ((has & LOG_HAS_TIME) && (has & LOG_HAS_OBSERVED))
        (void)codec_zigzag(&r);
    if (has & LOG_HAS_SPAN)
        (void)codec_bytes(&r, SPAN_ID_SIZE);
    (void)codec_u32(&r);
    uint8_t severity = byte(&r);
    return r.err ? 0 : severity;
}

int row_log_decode(const struct row *row, struct arena *arena, struct log_record *ret)
{
    struct codec_reader r = codec_reader((struct str){row->payload, row->len}, arena);
    uint8_t has = byte(&r);
    *ret = (struct log_record){.time_ns = has & LOG_HAS_TIME ? row->time_ns : 0};
    memcpy(ret->trace_id.bytes, row->key, TRACE_ID_SIZE);
    if (has & LOG_HAS_OBSERVED)
        ret->observed_time_ns = has & LOG_HAS_TIME ? row->time_ns + (uint64_t)codec_zigzag(&r)
                                                   : row->time_ns;
    const uint8_t *span = has & LOG_HAS_SPAN ? codec_bytes(&r, SPAN_ID_SIZE) : NULL;
    if (span)
        memcpy(ret->span_id.bytes, span, SPAN_ID_SIZE);
    ret->flags = codec_u32(&r);
    ret->severity = byte(&r);
    ret->severity_text = codec_str(&r);
    ret->event_name = codec_str(&r);
    codec_value(&r, &ret->body);
    codec_attrs(&r, &ret->attrs);
    return codec_finish(&r);
}

static double get_double(struct codec_reader *r)
{
    uint64_t bits = codec_fixed64(r);
    double d;
    memcpy(&d, &bits, sizeof d);
    return d;
}

/* An array of numbers, each of at least `bytes_min` bytes. */
static void *numbers_new(struct codec_reader *r, size_t bytes_min, size_t *ret_n)
{
    uint64_t n = codec_varint(r);
    if (r->err || n > (size_t)(r->end - r->at) / bytes_min) {
        r->err = r->err ? r->err : ERR_CORRUPT;
        return NULL;
    }
    void *items = arena_array(r->arena, n, sizeof(uint64_t));
    if (!items)
        r->err = ERR_NOMEM;
    *ret_n = items ? n : 0;
    return items;
}

static const uint64_t *counts_read(struct codec_reader *r, size_t *ret_n)
{
    uint64_t *counts = numbers_new(r, 1, ret_n);
    for (size_t i = 0; counts && i < *ret_n; i++)
        counts[i] = codec_varint(r);
    return counts;
}

static void buckets_read(struct codec_reader *r, struct metric_buckets *ret)
{
    int64_t offset = codec_zigzag(r);
    ret->offset = (int32_t)offset;
    ret->counts = counts_read(r, &ret->n);
    if (!r->err && offset != ret->offset)
        r->err = ERR_CORRUPT;
}

static void exp_histogram_read(struct codec_reader *r, uint8_t has, struct metric_exp_histogram *h)
{
    *h = (struct metric_exp_histogram){.count = codec_varint(r)};
    h->zero_count = codec_varint(r);
    h->sum = get_double(r);
    h->min = get_double(r);
    h->max = get_double(r);
    h->scale = (int32_t)codec_zigzag(r);
    h->zero_threshold = get_double(r);
    buckets_read(r, &h->positive);
    buckets_read(r, &h->negative);
    h->lacks_sum = !(has & POINT_SUM);
    h->lacks_min = !(has & POINT_MIN);
    h->lacks_max = !(has & POINT_MAX);
}

static void histogram_read(struct codec_reader *r, uint8_t has, struct metric_histogram *h)
{
    *h = (struct metric_histogram){.count = codec_varint(r)};
    h->sum = get_double(r);
    h->min = get_double(r);
    h->max = get_double(r);
    double *bounds = numbers_new(r, sizeof(double), &h->n_bounds);
    for (size_t i = 0; bounds && i < h->n_bounds; i++)
        bounds[i] = get_double(r);
    h->bounds = bounds;
    h->counts = counts_read(r, &h->n_counts);
    h->lacks_sum = !(has & POINT_SUM);
    h->lacks_min = !(has & POINT_MIN);
    h->lacks_max = !(has & POINT_MAX);
}

int row_point_decode(const struct row *row, uint8_t metric_type, struct arena *arena,
                     struct metric_point *ret)
{
    struct codec_reader r = codec_reader((struct str){row->payload, row->len}, arena);
    uint8_t has = byte(&r);
    *ret = (struct metric_point){.time_ns = row->time_ns};
    if (has & POINT_HAS_START)
        ret->start_ns = row->time_ns - (uint64_t)codec_zigzag(&r);
    if (metric_type == METRIC_EXP_HISTOGRAM) {
        exp_histogram_read(&r, has, &ret->histogram);
    } else if (metric_type == METRIC_HISTOGRAM) {
        histogram_read(&r, has, &ret->explicit_histogram);
    } else if (has & POINT_REAL) {
        ret->is_real = true;
        ret->real = get_double(&r);
    } else {
        ret->integer = codec_zigzag(&r);
    }
    return codec_finish(&r);
}
