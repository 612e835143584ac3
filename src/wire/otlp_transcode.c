/* A table for each message says which key is which field. One function walks document and table
 * together; the depth of its recursion is that of the document, which the reader bounds
 * (JSON_DEPTH_MAX). */
#include "wire/otlp_transcode.h"

#include "base/base64.h"
#include "base/json.h"
#include "model/span.h"
#include "wire/protobuf.h"

#include <math.h>

enum type {
    TYPE_MESSAGE,
    TYPE_STRING,
    TYPE_HEX,    /* bytes, in hexadecimal */
    TYPE_BASE64, /* bytes */
    TYPE_BOOL,
    TYPE_UINT,   /* uint32, uint64 */
    TYPE_INT,    /* int64 of AnyValue, which may come as a double */
    TYPE_SINT32, /* zigzag */
    TYPE_FIXED32,
    TYPE_FIXED64,
    TYPE_SFIXED64,
    TYPE_DOUBLE,
    TYPE_SEVERITY, /* enums */
    TYPE_TEMPORALITY,
};

struct message;

struct field {
    const char *key; /* in lowerCamelCase; NULL ends the table */
    uint8_t number, type;
    bool repeated; /* of numbers: packed */
    const struct message *message;
};

struct message {
    struct field fields[16];
};

/* ---- the messages ---- */

static const struct message any_value, array_value, key_value_list;

static const struct message key_value = {
    {{"key", 1, TYPE_STRING, false, NULL}, {"value", 2, TYPE_MESSAGE, false, &any_value}}};
static const struct message array_value = {{{"values", 1, TYPE_MESSAGE, true, &any_value}}};
static const struct message key_value_list = {{{"values", 1, TYPE_MESSAGE, true, &key_value}}};
static const struct message any_value = {{
    {"stringValue", 1, TYPE_STRING, false, NULL},
    {"boolValue", 2, TYPE_BOOL, false, NULL},
    {"intValue", 3, TYPE_INT, false, NULL},
    {"doubleValue", 4, TYPE_DOUBLE, false, NULL},
    {"arrayValue", 5, TYPE_MESSAGE, false, &array_value},
    {"kvlistValue", 6, TYPE_MESSAGE, false, &key_value_list},
    {"bytesValue", 7, TYPE_BASE64, false, NULL},
}};
static const struct message resource = {{
    {"attributes", 1, TYPE_MESSAGE, true, &key_value},
    {"droppedAttributesCount", 2, TYPE_UINT, false, NULL},
}};
static const struct message scope = {{
    {"name", 1, TYPE_STRING, false, NULL},
    {"version", 2, TYPE_STRING, false, NULL},
    {"attributes", 3, TYPE_MESSAGE, true, &key_value},
    {"droppedAttributesCount", 4, TYPE_UINT, false, NULL},
}};

static const struct message log_record = {{
    {"timeUnixNano", 1, TYPE_FIXED64, false, NULL},
    {"severityNumber", 2, TYPE_SEVERITY, false, NULL},
    {"severityText", 3, TYPE_STRING, false, NULL},
    {"body", 5, TYPE_MESSAGE, false, &any_value},
    {"attributes", 6, TYPE_MESSAGE, true, &key_value},
    {"droppedAttributesCount", 7, TYPE_UINT, false, NULL},
    {"flags", 8, TYPE_FIXED32, false, NULL},
    {"traceId", 9, TYPE_HEX, false, NULL},
    {"spanId", 10, TYPE_HEX, false, NULL},
    {"observedTimeUnixNano", 11, TYPE_FIXED64, false, NULL},
    {"eventName", 12, TYPE_STRING, false, NULL},
}};
static const struct message scope_logs = {{
    {"scope", 1, TYPE_MESSAGE, false, &scope},
    {"logRecords", 2, TYPE_MESSAGE, true, &log_record},
    {"schemaUrl", 3, TYPE_STRING, false, NULL},
}};
static const struct message resource_logs = {{
    {"resource", 1, TYPE_MESSAGE, false, &resource},
    {"scopeLogs", 2, TYPE_MESSAGE, true, &scope_logs},
    {"schemaUrl", 3, TYPE_STRING, false, NULL},
}};
static const struct message logs_request = {
    {{"resourceLogs", 1, TYPE_MESSAGE, true, &resource_logs}}};

static const struct message number_point = {{
    {"startTimeUnixNano", 2, TYPE_FIXED64, false, NULL},
    {"timeUnixNano", 3, TYPE_FIXED64, false, NULL},
    {"asDouble", 4, TYPE_DOUBLE, false, NULL},
    {"asInt", 6, TYPE_SFIXED64, false, NULL},
    {"attributes", 7, TYPE_MESSAGE, true, &key_value},
    {"flags", 8, TYPE_UINT, false, NULL},
}};
static const struct message histogram_point = {{
    {"startTimeUnixNano", 2, TYPE_FIXED64, false, NULL},
    {"timeUnixNano", 3, TYPE_FIXED64, false, NULL},
    {"count", 4, TYPE_FIXED64, false, NULL},
    {"sum", 5, TYPE_DOUBLE, false, NULL},
    {"bucketCounts", 6, TYPE_FIXED64, true, NULL},
    {"explicitBounds", 7, TYPE_DOUBLE, true, NULL},
    {"attributes", 9, TYPE_MESSAGE, true, &key_value},
    {"flags", 10, TYPE_UINT, false, NULL},
    {"min", 11, TYPE_DOUBLE, false, NULL},
    {"max", 12, TYPE_DOUBLE, false, NULL},
}};
static const struct message buckets = {{
    {"offset", 1, TYPE_SINT32, false, NULL},
    {"bucketCounts", 2, TYPE_UINT, true, NULL},
}};
static const struct message exp_histogram_point = {{
    {"attributes", 1, TYPE_MESSAGE, true, &key_value},
    {"startTimeUnixNano", 2, TYPE_FIXED64, false, NULL},
    {"timeUnixNano", 3, TYPE_FIXED64, false, NULL},
    {"count", 4, TYPE_FIXED64, false, NULL},
    {"sum", 5, TYPE_DOUBLE, false, NULL},
    {"scale", 6, TYPE_SINT32, false, NULL},
    {"zeroCount", 7, TYPE_FIXED64, false, NULL},
    {"positive", 8, TYPE_MESSAGE, false, &buckets},
    {"negative", 9, TYPE_MESSAGE, false, &buckets},
    {"flags", 10, TYPE_UINT, false, NULL},
    {"min", 12, TYPE_DOUBLE, false, NULL},
    {"max", 13, TYPE_DOUBLE, false, NULL},
    {"zeroThreshold", 14, TYPE_DOUBLE, false, NULL},
}};
static const struct message summary_point = {{{NULL, 0, 0, false, NULL}}};
static const struct message gauge = {{{"dataPoints", 1, TYPE_MESSAGE, true, &number_point}}};
static const struct message sum = {{
    {"dataPoints", 1, TYPE_MESSAGE, true, &number_point},
    {"aggregationTemporality", 2, TYPE_TEMPORALITY, false, NULL},
    {"isMonotonic", 3, TYPE_BOOL, false, NULL},
}};
static const struct message histogram = {{
    {"dataPoints", 1, TYPE_MESSAGE, true, &histogram_point},
    {"aggregationTemporality", 2, TYPE_TEMPORALITY, false, NULL},
}};
static const struct message exp_histogram = {{
    {"dataPoints", 1, TYPE_MESSAGE, true, &exp_histogram_point},
    {"aggregationTemporality", 2, TYPE_TEMPORALITY, false, NULL},
}};
static const struct message summary = {{{"dataPoints", 1, TYPE_MESSAGE, true, &summary_point}}};
static const struct message metric = {{
    {"name", 1, TYPE_STRING, false, NULL},
    {"description", 2, TYPE_STRING, false, NULL},
    {"unit", 3, TYPE_STRING, false, NULL},
    {"gauge", 5, TYPE_MESSAGE, false, &gauge},
    {"sum", 7, TYPE_MESSAGE, false, &sum},
    {"histogram", 9, TYPE_MESSAGE, false, &histogram},
    {"exponentialHistogram", 10, TYPE_MESSAGE, false, &exp_histogram},
    {"summary", 11, TYPE_MESSAGE, false, &summary},
}};
static const struct message scope_metrics = {{
    {"scope", 1, TYPE_MESSAGE, false, &scope},
    {"metrics", 2, TYPE_MESSAGE, true, &metric},
    {"schemaUrl", 3, TYPE_STRING, false, NULL},
}};
static const struct message resource_metrics = {{
    {"resource", 1, TYPE_MESSAGE, false, &resource},
    {"scopeMetrics", 2, TYPE_MESSAGE, true, &scope_metrics},
    {"schemaUrl", 3, TYPE_STRING, false, NULL},
}};
static const struct message metrics_request = {
    {{"resourceMetrics", 1, TYPE_MESSAGE, true, &resource_metrics}}};

/* ---- walking ---- */

enum { LEN_MESSAGE = 2 };

struct transcoder {
    struct json_reader r;
    struct buf out;
};

static bool no_memory(struct transcoder *t)
{
    json_fail_with(&t->r, ERR_NOMEM, "out of memory");
    return false;
}

/* Whether the key, in either spelling, is this one in lowerCamelCase. */
static bool key_is(struct str key, const char *camel)
{
    const char *at = key.ptr, *end = at + key.len;
    for (; *camel; camel++, at++) {
        if (at == end)
            return false;
        if (*at == *camel)
            continue;
        if (*at != '_' || *camel < 'A' || *camel > 'Z' || ++at == end ||
            *at != *camel + ('a' - 'A'))
            return false;
    }
    return at == end;
}

static const struct field *field_find(const struct message *m, struct str key)
{
    for (size_t i = 0; i < sizeof m->fields / sizeof *m->fields && m->fields[i].key; i++)
        if (key_is(key, m->fields[i].key))
            return &m->fields[i];
    return NULL;
}

static uint64_t double_bits(double d)
{
    uint64_t bits;
    memcpy(&bits, &d, sizeof bits);
    return bits;
}

/* A name of an enum: its prefix may be left out. 0 for what is not known. */
static uint64_t enum_number(uint8_t type, struct str name)
{
    if (type == TYPE_TEMPORALITY) {
        if (str_starts(name, STR("AGGREGATION_TEMPORALITY_")))
            name = str_skip(name, sizeof "AGGREGATION_TEMPORALITY_" - 1);
        return str_eq(name, STR("DELTA")) ? 1 : str_eq(name, STR("CUMULATIVE")) ? 2 : 0;
    }
    static const struct str levels[] = {STR("TRACE"), STR("DEBUG"), STR("INFO"),
                                        STR("WARN"),  STR("ERROR"), STR("FATAL")};
    if (str_starts(name, STR("SEVERITY_NUMBER_")))
        name = str_skip(name, sizeof "SEVERITY_NUMBER_" - 1);
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
        if (!str_starts(name, levels[i]))
            continue;
        struct str rest = str_skip(name, levels[i].len);
        if (!rest.len)
            return 4 * i + 1;
        return rest.len == 1 && rest.ptr[0] >= '2' && rest.ptr[0] <= '4'
                   ? 4 * i + (uint64_t)(rest.ptr[0] - '0')
                   : 0;
    }
    return 0;
}

static bool expected(struct transcoder *t, const char *what)
{
    json_fail(&t->r, what);
    return false;
}

/* A number that was read, as the wire has it. */
static bool number_get(struct transcoder *t, const struct field *f, uint64_t *ret)
{
    int64_t whole = 0;
    double real = 0;
    switch (f->type) {
    case TYPE_DOUBLE:
        if (!json_to_double(&t->r, &real))
            return expected(t, "a number");
        *ret = double_bits(real);
        return true;
    case TYPE_SFIXED64:
        if (!json_to_i64(&t->r, &whole))
            return expected(t, "a whole number of 64 bits");
        *ret = (uint64_t)whole;
        return true;
    case TYPE_SINT32:
        if (!json_to_i64(&t->r, &whole) || whole < INT32_MIN || whole > INT32_MAX)
            return expected(t, "a whole number of 32 bits");
        *ret = (uint32_t)((uint32_t)whole << 1 ^ (uint32_t)((int32_t)whole >> 31));
        return true;
    case TYPE_SEVERITY:
    case TYPE_TEMPORALITY:
        if (t->r.type == JSON_STRING && !json_to_i64(&t->r, &whole)) {
            *ret = enum_number(f->type, t->r.text);
            return true;
        }
        if (t->r.type == JSON_NUMBER && !json_to_i64(&t->r, &whole))
            return expected(t, "a whole number");
        if (t->r.type != JSON_NUMBER && t->r.type != JSON_STRING)
            return expected(t, "a number or a name");
        *ret = whole > 0 ? (uint64_t)whole : 0;
        return true;
    default:
        if (!json_to_u64(&t->r, ret))
            return expected(t, "a whole number, not negative");
        return (f->type != TYPE_FIXED32 || *ret <= UINT32_MAX) ||
               expected(t, "a number of 32 bits");
    }
}

/* OpenTelemetry's JavaScript writes every whole number as intValue, 1e300 too. */
static bool any_int(struct transcoder *t)
{
    int64_t whole;
    double real;
    if (json_to_i64(&t->r, &whole)) {
        pb_put_varint(&t->out, PB_TAG(3, PB_VARINT), (uint64_t)whole);
        return true;
    }
    if (t->r.type != JSON_NUMBER || !json_to_double(&t->r, &real) ||
        fabs(real) < 9223372036854775808.0)
        return expected(t, "a whole number of 64 bits");
    pb_put_fixed64(&t->out, PB_TAG(4, PB_FIXED64), double_bits(real));
    return true;
}

static bool bytes_put(struct transcoder *t, const struct field *f)
{
    struct str text = t->r.text;
    if (t->r.type != JSON_STRING)
        return expected(t, "a string");
    if (f->type == TYPE_STRING) {
        pb_put_str(&t->out, PB_TAG(f->number, PB_BYTES), text);
        return true;
    }
    size_t n = text.len / 2;
    uint8_t *bytes = arena_alloc(t->r.arena, BASE64_BYTES_MAX(text.len));
    if (!bytes)
        return no_memory(t);
    if (f->type == TYPE_BASE64 && !base64_get(bytes, text, &n))
        return expected(t, "base64");
    /* An id that is none belongs to no trace; the record is kept. */
    if (f->type == TYPE_HEX && (text.len % 2 || !hex_get(bytes, text, n)))
        return true;
    pb_put_bytes(&t->out, PB_TAG(f->number, PB_BYTES), bytes, n);
    return true;
}

static bool scalar_put(struct transcoder *t, const struct field *f)
{
    uint64_t n = 0;
    switch (f->type) {
    case TYPE_STRING:
    case TYPE_HEX:
    case TYPE_BASE64:
        return bytes_put(t, f);
    case TYPE_BOOL:
        if (t->r.type != JSON_TRUE && t->r.type != JSON_FALSE)
            return expected(t, "true or false");
        pb_put_varint(&t->out, PB_TAG(f->number, PB_VARINT), t->r.type == JSON_TRUE);
        return true;
    case TYPE_INT:
        return any_int(t);
    default:
        break;
    }
    if (!number_get(t, f, &n))
        return false;
    if (f->type == TYPE_FIXED64 || f->type == TYPE_SFIXED64 || f->type == TYPE_DOUBLE)
        pb_put_fixed64(&t->out, PB_TAG(f->number, PB_FIXED64), n);
    else if (f->type == TYPE_FIXED32)
        pb_put_fixed32(&t->out, PB_TAG(f->number, PB_FIXED32), (uint32_t)n);
    else
        pb_put_varint(&t->out, PB_TAG(f->number, PB_VARINT), n);
    return true;
}

/* The array is open. */
static bool packed_put(struct transcoder *t, const struct field *f)
{
    struct pb_message packed = pb_open(&t->out, PB_TAG(f->number, PB_BYTES), LEN_MESSAGE);
    while (json_next(&t->r) != JSON_ARRAY_END) {
        uint64_t n;
        if (t->r.err || !number_get(t, f, &n))
            return false;
        if (f->type == TYPE_FIXED64 || f->type == TYPE_DOUBLE) {
            n = htole64(n);
            buf_put(&t->out, &n, sizeof n);
        } else {
            char bytes[PB_VARINT_BYTES_MAX];
            buf_put(&t->out, bytes, (size_t)(pb_varint_write(bytes, n) - bytes));
        }
    }
    pb_close(&t->out, packed);
    return true;
}

static bool object_put(struct transcoder *t, const struct message *m);

/* The object is open; null is a message of nothing. */
static bool message_put(struct transcoder *t, const struct field *f)
{
    if (t->r.type != JSON_OBJECT && t->r.type != JSON_NULL)
        return expected(t, "an object");
    struct pb_message message = pb_open(&t->out, PB_TAG(f->number, PB_BYTES), LEN_MESSAGE);
    if (t->r.type == JSON_OBJECT && !object_put(t, f->message))
        return false;
    pb_close(&t->out, message);
    return true;
}

static bool list_put(struct transcoder *t, const struct field *f)
{
    if (t->r.type != JSON_ARRAY)
        return expected(t, "an array");
    if (f->type != TYPE_MESSAGE)
        return packed_put(t, f);
    while (json_next(&t->r) != JSON_ARRAY_END)
        if (t->r.err || !message_put(t, f))
            return false;
    return true;
}

/* The fields of an object that is open, to its end. */
static bool object_put(struct transcoder *t, const struct message *m)
{
    while (json_next(&t->r) == JSON_KEY) {
        const struct field *f = field_find(m, t->r.text);
        if (!f) {
            if (json_skip(&t->r) == JSON_ERROR)
                return false;
            continue;
        }
        if (json_next(&t->r) == JSON_NULL)
            continue;
        if (t->r.err || !(f->repeated               ? list_put(t, f)
                          : f->type == TYPE_MESSAGE ? message_put(t, f)
                                                    : scalar_put(t, f)))
            return false;
    }
    return t->r.type == JSON_OBJECT_END;
}

int otlp_transcode(enum otlp_transcode what, struct str json, struct arena *arena,
                   struct str *ret_protobuf, struct error_detail *ret_detail)
{
    static const struct message *const roots[] = {
        [OTLP_TRANSCODE_LOGS] = &logs_request, [OTLP_TRANSCODE_METRICS] = &metrics_request};
    struct transcoder t = {.out = {.bytes_max = arena->bytes_max}};
    struct str copy = STR_NONE;
    json_reader_init(&t.r, json, arena, ret_detail);
    if (json_next(&t.r) != JSON_OBJECT)
        json_fail(&t.r, "an object");
    else if (object_put(&t, roots[what]))
        json_next(&t.r); /* the end, or what should not be there */
    if (!t.r.err && (!buf_ok(&t.out) || !(copy = arena_str(arena, buf_as_str(&t.out))).ptr))
        no_memory(&t);
    buf_done(&t.out);
    if (!t.r.err)
        *ret_protobuf = copy;
    return t.r.err;
}
