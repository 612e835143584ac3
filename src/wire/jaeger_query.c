#include "wire/jaeger_query.h"

#include "wire/protobuf.h"

#define NS_PER_S UINT64_C(1000000000)

struct reading {
    struct arena *arena;
    struct jaeger_query *q;
    size_t cap_tags;
    struct error_detail *detail;
};

static int read_text(struct reading *r, const struct pb_field *f, struct str *ret)
{
    *ret = pb_as_str(f);
    if (!str_is_utf8(*ret))
        return error_set(r->detail, ERR_INVALID, 0, "text that is not UTF-8");
    return 0;
}

/* A Timestamp or a Duration: both are seconds = 1, nanos = 2. */
static int read_time(struct reading *r, const struct pb_field *f, uint64_t *ret_ns)
{
    struct pb p = pb_from_field(f);
    struct pb_field part;
    uint64_t seconds = 0, nanos = 0;
    int got;
    while ((got = pb_next(&p, &part)) > 0) {
        if (part.tag == PB_TAG(1, PB_VARINT))
            seconds = part.n;
        else if (part.tag == PB_TAG(2, PB_VARINT))
            nanos = part.n;
    }
    if (got)
        return got;
    if (seconds > UINT64_MAX / NS_PER_S - 1 || nanos >= NS_PER_S)
        return error_set(r->detail, ERR_INVALID, 0, "a time before 1970, or a duration below 0");
    *ret_ns = seconds * NS_PER_S + nanos;
    return 0;
}

static int read_tag(struct reading *r, const struct pb_field *f)
{
    struct jaeger_query *q = r->q;
    if (q->n_tags == r->cap_tags) {
        size_t cap = r->cap_tags ? 2 * r->cap_tags : 8;
        struct jaeger_tag *tags = arena_array(r->arena, cap, sizeof *tags);
        if (!tags)
            return error_set(r->detail, ERR_NOMEM, 0, "out of memory");
        if (q->n_tags)
            memcpy(tags, q->tags, q->n_tags * sizeof *tags);
        q->tags = tags;
        r->cap_tags = cap;
    }
    struct jaeger_tag tag = {STR(""), STR("")};
    struct pb p = pb_from_field(f);
    struct pb_field part;
    int got;
    while ((got = pb_next(&p, &part)) > 0) {
        int err = part.tag == PB_TAG(1, PB_BYTES)   ? read_text(r, &part, &tag.key)
                  : part.tag == PB_TAG(2, PB_BYTES) ? read_text(r, &part, &tag.value)
                                                    : 0;
        if (err)
            return err;
    }
    q->tags[q->n_tags++] = tag;
    return got;
}

static int read_find(struct reading *r, const struct pb_field *f)
{
    struct jaeger_query *q = r->q;
    switch (f->tag) {
    case PB_TAG(1, PB_BYTES):
        return read_text(r, f, &q->service);
    case PB_TAG(2, PB_BYTES):
        return read_text(r, f, &q->operation);
    case PB_TAG(3, PB_BYTES):
        return read_tag(r, f);
    case PB_TAG(4, PB_BYTES):
        return read_time(r, f, &q->start_ns);
    case PB_TAG(5, PB_BYTES):
        return read_time(r, f, &q->end_ns);
    case PB_TAG(6, PB_BYTES):
        return read_time(r, f, &q->duration_min_ns);
    case PB_TAG(7, PB_BYTES):
        return read_time(r, f, &q->duration_max_ns);
    case PB_TAG(8, PB_VARINT):
        q->depth = (int32_t)f->n;
        return 0;
    case PB_TAG(10, PB_BYTES):
        q->has_filter = true;
        return 0;
    default:
        return 0;
    }
}

static int read_field(struct reading *r, enum jaeger_request request, const struct pb_field *f)
{
    struct jaeger_query *q = r->q;
    switch (request) {
    case JAEGER_GET_TRACE:
        return f->tag == PB_TAG(1, PB_BYTES)   ? read_text(r, f, &q->trace_id)
               : f->tag == PB_TAG(2, PB_BYTES) ? read_time(r, f, &q->start_ns)
               : f->tag == PB_TAG(3, PB_BYTES) ? read_time(r, f, &q->end_ns)
                                               : 0;
    case JAEGER_GET_OPERATIONS:
        return f->tag == PB_TAG(1, PB_BYTES)   ? read_text(r, f, &q->service)
               : f->tag == PB_TAG(2, PB_BYTES) ? read_text(r, f, &q->span_kind)
                                               : 0;
    case JAEGER_GET_DEPENDENCIES:
        return f->tag == PB_TAG(1, PB_BYTES)   ? read_time(r, f, &q->start_ns)
               : f->tag == PB_TAG(2, PB_BYTES) ? read_time(r, f, &q->end_ns)
                                               : 0;
    case JAEGER_GET_SAMPLING:
        return f->tag == PB_TAG(1, PB_BYTES) ? read_text(r, f, &q->service) : 0;
    case JAEGER_FIND:
        break;
    }
    if (f->tag != PB_TAG(1, PB_BYTES))
        return 0;
    struct pb p = pb_from_field(f);
    struct pb_field part;
    int got;
    while ((got = pb_next(&p, &part)) > 0) {
        int err = read_find(r, &part);
        if (err)
            return err;
    }
    return got;
}

int jaeger_query_decode(enum jaeger_request request, struct str bytes, struct arena *arena,
                        struct jaeger_query *ret, struct error_detail *ret_detail)
{
    struct jaeger_query q = {.n_tags = 0};
    struct reading r = {.arena = arena, .q = &q, .detail = ret_detail};
    struct pb p = pb_from_str(bytes);
    struct pb_field f;
    int err = 0, got = 0;
    if (ret_detail)
        *ret_detail = (struct error_detail){0};
    while (!err && (got = pb_next(&p, &f)) > 0)
        err = read_field(&r, request, &f);
    if (!err)
        err = got;
    if (err) {
        if (ret_detail && !ret_detail->message[0])
            return error_set(ret_detail, err, 0, "not the message of this method");
        return err;
    }
    *ret = q;
    return 0;
}
