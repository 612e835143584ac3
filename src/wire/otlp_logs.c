#include "wire/otlp_logs.h"

#include "wire/otlp.h"
#include "wire/otlp_pieces.h"
#include "wire/otlp_transcode.h"

enum {
    /* ExportLogsServiceRequest */
    REQUEST_RESOURCE_LOGS = PB_TAG(1, PB_BYTES),
    /* ResourceLogs */
    RESOURCE_LOGS_RESOURCE = PB_TAG(1, PB_BYTES),
    RESOURCE_LOGS_SCOPE_LOGS = PB_TAG(2, PB_BYTES),
    RESOURCE_LOGS_SCHEMA_URL = PB_TAG(3, PB_BYTES),
    /* ScopeLogs */
    SCOPE_LOGS_SCOPE = PB_TAG(1, PB_BYTES),
    SCOPE_LOGS_RECORDS = PB_TAG(2, PB_BYTES),
    SCOPE_LOGS_SCHEMA_URL = PB_TAG(3, PB_BYTES),
    /* LogRecord */
    RECORD_TIME = PB_TAG(1, PB_FIXED64),
    RECORD_SEVERITY_NUMBER = PB_TAG(2, PB_VARINT),
    RECORD_SEVERITY_TEXT = PB_TAG(3, PB_BYTES),
    RECORD_BODY = PB_TAG(5, PB_BYTES),
    RECORD_ATTRIBUTES = PB_TAG(6, PB_BYTES),
    RECORD_DROPPED = PB_TAG(7, PB_VARINT),
    RECORD_FLAGS = PB_TAG(8, PB_FIXED32),
    RECORD_TRACE_ID = PB_TAG(9, PB_BYTES),
    RECORD_SPAN_ID = PB_TAG(10, PB_BYTES),
    RECORD_OBSERVED_TIME = PB_TAG(11, PB_FIXED64),
    RECORD_EVENT_NAME = PB_TAG(12, PB_BYTES),
};

/* ---- decoding ---- */

struct records {
    struct otlp_pieces p;
    struct log_record *items; /* room for all that the body holds */
    struct log_batch batch;
};

/* All records of the body, so that their array is made once. */
static bool records_count(struct otlp_pieces *p, struct pb body, size_t *ret)
{
    struct pb_field f, g;
    int got;
    while ((got = pb_next(&body, &f)) > 0) {
        if (f.tag != REQUEST_RESOURCE_LOGS)
            continue;
        struct pb resource = pb_from_field(&f);
        int inner;
        while ((inner = pb_next(&resource, &g)) > 0)
            if (g.tag == RESOURCE_LOGS_SCOPE_LOGS &&
                !otlp_piece_count(p, pb_from_field(&g), SCOPE_LOGS_RECORDS, ret))
                return false;
        if (inner < 0)
            return otlp_piece_fail(p, resource.at, inner);
    }
    return got == 0 || otlp_piece_fail(p, body.at, got);
}

static bool record_decode(struct otlp_pieces *p, struct pb message, struct log_record *ret)
{
    struct pb r = message;
    struct pb_field f;
    int got;
    while ((got = pb_next(&r, &f)) > 0) {
        bool ok = true;
        switch (f.tag) {
        case RECORD_TIME:
            ret->time_ns = f.n;
            break;
        case RECORD_OBSERVED_TIME:
            ret->observed_time_ns = f.n;
            break;
        case RECORD_SEVERITY_NUMBER:
            ret->severity = f.n <= SEVERITY_MAX ? (uint8_t)f.n : 0;
            break;
        case RECORD_SEVERITY_TEXT:
            ok = otlp_piece_text(p, &f, &ret->severity_text);
            break;
        case RECORD_EVENT_NAME:
            ok = otlp_piece_text(p, &f, &ret->event_name);
            break;
        case RECORD_BODY:
            ok = otlp_piece_value(p, &f, &ret->body);
            break;
        case RECORD_DROPPED:
            ret->attrs.dropped = (uint32_t)f.n;
            break;
        case RECORD_FLAGS:
            ret->flags = (uint32_t)f.n;
            break;
        case RECORD_TRACE_ID:
            ret->trace_id = (struct trace_id){{0}};
            if (f.n == TRACE_ID_SIZE)
                memcpy(ret->trace_id.bytes, f.ptr, TRACE_ID_SIZE);
            break;
        case RECORD_SPAN_ID:
            ret->span_id = (struct span_id){{0}};
            if (f.n == SPAN_ID_SIZE)
                memcpy(ret->span_id.bytes, f.ptr, SPAN_ID_SIZE);
            break;
        }
        if (!ok)
            return false;
    }
    if (got < 0)
        return otlp_piece_fail(p, r.at, got);
    return otlp_piece_attrs(p, message, RECORD_ATTRIBUTES, &ret->attrs);
}

static void records_reject(struct records *rs, const char *reason, size_t n)
{
    if (n && !rs->batch.rejected_reason)
        rs->batch.rejected_reason = reason;
    rs->batch.n_rejected += n;
}

/* Why something shared cannot be kept; reading goes on, to count what goes with it. False: the body
 * cannot be read. */
static bool take_reject(struct records *rs, const char **reason)
{
    if (rs->p.err)
        return false;
    *reason = rs->p.reject;
    rs->p.reject = NULL;
    return true;
}

static bool one_record_decode(struct records *rs, const struct pb_field *f,
                              const struct resource *resource, const struct scope *scope)
{
    struct log_record *r = &rs->items[rs->batch.n];
    const char *reason;
    *r = (struct log_record){
        .severity_text = STR(""), .event_name = STR(""), .resource = resource, .scope = scope};
    if (record_decode(&rs->p, pb_from_field(f), r)) {
        rs->batch.n++;
        return true;
    }
    if (!take_reject(rs, &reason))
        return false;
    records_reject(rs, reason, 1);
    return true;
}

static void reject_since(struct records *rs, size_t mark, const char *reason)
{
    if (!reason)
        return;
    records_reject(rs, reason, rs->batch.n - mark);
    rs->batch.n = mark;
}

static bool scope_logs_decode(struct records *rs, struct pb r, const struct resource *resource)
{
    size_t mark = rs->batch.n;
    const char *reason = NULL;
    struct pb_field f;
    int got;
    struct scope *scope = otlp_piece_array(&rs->p, 1, sizeof *scope, r.at);
    if (!scope)
        return false;
    *scope = (struct scope){.name = STR(""), .version = STR(""), .schema_url = STR("")};
    while ((got = pb_next(&r, &f)) > 0) {
        if (f.tag == SCOPE_LOGS_RECORDS) {
            if (!one_record_decode(rs, &f, resource, scope))
                return false;
        } else if ((f.tag == SCOPE_LOGS_SCOPE && !otlp_piece_scope(&rs->p, &f, scope)) ||
                   (f.tag == SCOPE_LOGS_SCHEMA_URL &&
                    !otlp_piece_text(&rs->p, &f, &scope->schema_url))) {
            if (!take_reject(rs, &reason))
                return false;
        }
    }
    if (got < 0)
        return otlp_piece_fail(&rs->p, r.at, got);
    reject_since(rs, mark, reason);
    return true;
}

static bool resource_logs_decode(struct records *rs, struct pb r)
{
    size_t mark = rs->batch.n;
    const char *reason = NULL;
    struct pb_field f;
    int got;
    struct resource *resource = otlp_piece_array(&rs->p, 1, sizeof *resource, r.at);
    if (!resource)
        return false;
    *resource = (struct resource){.schema_url = STR("")};
    while ((got = pb_next(&r, &f)) > 0) {
        if (f.tag == RESOURCE_LOGS_SCOPE_LOGS) {
            if (!scope_logs_decode(rs, pb_from_field(&f), resource))
                return false;
        } else if ((f.tag == RESOURCE_LOGS_RESOURCE &&
                    !otlp_piece_resource(&rs->p, &f, resource)) ||
                   (f.tag == RESOURCE_LOGS_SCHEMA_URL &&
                    !otlp_piece_text(&rs->p, &f, &resource->schema_url))) {
            if (!take_reject(rs, &reason))
                return false;
        }
    }
    if (got < 0)
        return otlp_piece_fail(&rs->p, r.at, got);
    reject_since(rs, mark, reason);
    resource_set_service_name(resource);
    return true;
}

int otlp_logs_decode(struct str body, struct arena *arena, struct log_batch *ret_batch,
                     struct error_detail *ret_detail)
{
    struct pb r = pb_from_str(body);
    struct records rs = {.p = {.arena = arena, .start = r.at, .detail = ret_detail}};
    struct pb_field f;
    size_t n = 0;
    if (body.len > UINT32_MAX)
        return error_set(ret_detail, ERR_TOO_LARGE, 0, "a body of more than 4 GiB");
    if (!records_count(&rs.p, r, &n))
        return rs.p.err;
    rs.items = otlp_piece_array(&rs.p, n, sizeof *rs.items, r.at);
    if (!rs.items)
        return rs.p.err;
    while (pb_next(&r, &f) > 0) /* it was walked once */
        if (f.tag == REQUEST_RESOURCE_LOGS && !resource_logs_decode(&rs, pb_from_field(&f)))
            return rs.p.err;
    rs.batch.records = rs.items;
    *ret_batch = rs.batch;
    return 0;
}

int otlp_logs_json_decode(struct str body, struct arena *arena, struct log_batch *ret_batch,
                          struct error_detail *ret_detail)
{
    struct str protobuf;
    int err = otlp_transcode(OTLP_TRANSCODE_LOGS, body, arena, &protobuf, ret_detail);
    return err ? err : otlp_logs_decode(protobuf, arena, ret_batch, ret_detail);
}

/* ---- encoding ---- */

enum { LEN_LARGE = 3, LEN_RECORD = 2 };

static void put_str_unless_empty(struct buf *b, uint32_t tag, struct str s)
{
    if (s.len)
        pb_put_str(b, tag, s);
}

static void record_encode(const struct log_record *r, struct buf *b)
{
    struct pb_message record = pb_open(b, SCOPE_LOGS_RECORDS, LEN_RECORD);
    if (r->time_ns)
        pb_put_fixed64(b, RECORD_TIME, r->time_ns);
    if (r->severity)
        pb_put_varint(b, RECORD_SEVERITY_NUMBER, r->severity);
    put_str_unless_empty(b, RECORD_SEVERITY_TEXT, r->severity_text);
    if (r->body.type != VALUE_NONE)
        otlp_encode_value(&r->body, RECORD_BODY, b);
    otlp_encode_attrs(&r->attrs, RECORD_ATTRIBUTES, b);
    if (r->attrs.dropped)
        pb_put_varint(b, RECORD_DROPPED, r->attrs.dropped);
    if (r->flags)
        pb_put_fixed32(b, RECORD_FLAGS, r->flags);
    if (!trace_id_is_zero(&r->trace_id))
        pb_put_bytes(b, RECORD_TRACE_ID, r->trace_id.bytes, TRACE_ID_SIZE);
    if (!span_id_is_zero(&r->span_id))
        pb_put_bytes(b, RECORD_SPAN_ID, r->span_id.bytes, SPAN_ID_SIZE);
    if (r->observed_time_ns)
        pb_put_fixed64(b, RECORD_OBSERVED_TIME, r->observed_time_ns);
    put_str_unless_empty(b, RECORD_EVENT_NAME, r->event_name);
    pb_close(b, record);
}

void otlp_logs_encode(const struct log_batch *batch, struct buf *out)
{
    const struct log_record *records = batch->records;
    for (size_t i = 0; i < batch->n;) {
        const struct resource *resource = records[i].resource;
        struct pb_message outer = pb_open(out, REQUEST_RESOURCE_LOGS, LEN_LARGE);
        otlp_encode_resource(resource, RESOURCE_LOGS_RESOURCE, out);
        while (i < batch->n && records[i].resource == resource) {
            const struct scope *scope = records[i].scope;
            struct pb_message inner = pb_open(out, RESOURCE_LOGS_SCOPE_LOGS, LEN_LARGE);
            otlp_encode_scope(scope, SCOPE_LOGS_SCOPE, out);
            for (; i < batch->n && records[i].resource == resource && records[i].scope == scope;
                 i++)
                record_encode(&records[i], out);
            put_str_unless_empty(out, SCOPE_LOGS_SCHEMA_URL, scope->schema_url);
            pb_close(out, inner);
        }
        put_str_unless_empty(out, RESOURCE_LOGS_SCHEMA_URL, resource->schema_url);
        pb_close(out, outer);
    }
}
