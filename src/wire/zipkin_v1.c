/* Zipkin's first model, in JSON and in thrift: what a span is follows from its annotations.
 *
 *   cs, cr   the client sent and received: a client's span from one to the other
 *   sr, ss   the server received and sent: a server's span
 *   ms, mr   a message was sent, received: a producer's, a consumer's span
 *   none     a local span
 *
 * A record may hold both halves of a call, and becomes two spans then. A server's half without a
 * timestamp of its own was begun by the client, so it is a shared span (zipkin_span.h). Each half
 * has the annotations and binary annotations of its own endpoint; what has no endpoint, or another
 * one, goes to the first half. Addresses: sa is the server's, ca the client's, ma the broker's.
 *
 * Source: openzipkin/zipkin-api, thrift/zipkinCore.thrift and zipkin-api.yaml. */
#include "wire/thrift.h"
#include "wire/zipkin.h"
#include "wire/zipkin_json.h"

struct annotation {
    uint64_t us;
    struct str value;
    struct zipkin_endpoint at;
    bool has_endpoint;
};

struct binary {
    struct str key;
    struct value value;
    struct zipkin_endpoint at;
    bool has_endpoint;
};

struct decoder {
    struct zipkin_decoder z;
    struct buf annotations, binaries; /* of the record that is read */
};

/* What is the same for all halves of a record. */
struct record {
    struct zipkin_span span; /* without kind and endpoints */
    const struct annotation *annotations;
    size_t n_annotations;
    const struct binary *binaries;
    size_t n_binaries;
};

/* ---- from a record to spans ---- */

struct half {
    uint8_t kind;
    const struct annotation *begin, *end;
};

static const struct annotation *find(const struct record *rec, struct str value)
{
    for (size_t i = 0; i < rec->n_annotations; i++)
        if (str_eq(rec->annotations[i].value, value))
            return &rec->annotations[i];
    return NULL;
}

static const struct zipkin_endpoint *local_of(const struct half *half)
{
    const struct annotation *a = half->begin ? half->begin : half->end;
    return a && a->has_endpoint ? &a->at : NULL;
}

/* Does what stands at `e` belong to half `i`? */
static bool belongs(const struct half *halves, size_t n, size_t i, bool has_endpoint,
                    const struct zipkin_endpoint *e)
{
    size_t owner = 0;
    for (size_t k = n; has_endpoint && k-- > 0;) {
        const struct zipkin_endpoint *local = local_of(&halves[k]);
        if (local && str_eq(local->service, e->service))
            owner = k;
    }
    return owner == i;
}

static bool is_true(const struct value *v)
{
    return v->type == VALUE_BOOL && v->boolean;
}

static bool is_address(const struct binary *b, struct str key)
{
    return b->has_endpoint && str_eq(b->key, key) &&
           (is_true(&b->value) || (b->value.type == VALUE_STRING && b->value.string.len == 1 &&
                                   b->value.string.ptr[0] == '\1'));
}

static bool is_core(struct str value)
{
    static const char *const names[] = {"cs", "cr", "ss", "sr", "ms", "mr"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (str_eq(value, str_from(names[i])))
            return true;
    return false;
}

static void put_annotations(struct decoder *d, const struct record *rec, const struct half *halves,
                            size_t n, size_t i, struct zipkin_span *z)
{
    for (size_t k = 0; k < rec->n_annotations; k++) {
        const struct annotation *a = &rec->annotations[k];
        if (!is_core(a->value) && belongs(halves, n, i, a->has_endpoint, &a->at))
            zipkin_annotation(&d->z, z, a->us, a->value);
    }
}

static void put_binaries(struct decoder *d, const struct record *rec, const struct half *halves,
                         size_t n, size_t i, struct zipkin_span *z, struct span *s)
{
    for (size_t k = 0; k < rec->n_binaries; k++) {
        const struct binary *b = &rec->binaries[k];
        bool client = z->kind == SPAN_KIND_CLIENT, server = z->kind == SPAN_KIND_SERVER;
        if (is_address(b, STR("sa")) || is_address(b, STR("ca")) || is_address(b, STR("ma"))) {
            char of = b->key.ptr[0];
            if ((of == 's' && client) || (of == 'c' && server) ||
                (of == 'm' && !client && !server && z->kind))
                z->remote = b->at;
            continue;
        }
        bool is_component = str_eq(b->key, STR("lc"));
        if (is_component && b->has_endpoint && !z->local.service.len)
            z->local = b->at;
        if (!belongs(halves, n, i, b->has_endpoint, &b->at))
            continue;
        if (is_component && b->value.type == VALUE_STRING && !b->value.string.len)
            continue;
        if (b->value.type == VALUE_STRING)
            zipkin_tag(&d->z, s, b->key, b->value.string);
        else
            collect_attr(&d->z.c, b->key, &b->value);
    }
}

/* Who made a span without core annotations. */
static const struct zipkin_endpoint *any_endpoint(const struct record *rec)
{
    for (size_t i = 0; i < rec->n_annotations; i++)
        if (rec->annotations[i].has_endpoint)
            return &rec->annotations[i].at;
    for (size_t i = 0; i < rec->n_binaries; i++) {
        const struct binary *b = &rec->binaries[i];
        if (b->has_endpoint && !is_address(b, STR("sa")) && !is_address(b, STR("ca")) &&
            !is_address(b, STR("ma")))
            return &b->at;
    }
    return NULL;
}

/* The first half has the record's own times, the others what their annotations say. */
static void set_times(const struct record *rec, const struct half *half, size_t i, size_t n,
                      struct zipkin_span *z)
{
    uint64_t begin = half->begin ? half->begin->us : 0, end = half->end ? half->end->us : 0;
    bool own = i == 0 && n == 1;
    z->timestamp_us = own && rec->span.timestamp_us ? rec->span.timestamp_us : begin;
    z->duration_us = own && rec->span.duration_us ? rec->span.duration_us
                     : begin && end > begin       ? end - begin
                                                  : 0;
    if (i == 0 && !z->timestamp_us)
        z->timestamp_us = rec->span.timestamp_us ? rec->span.timestamp_us : end;
    if (i == 0 && !z->duration_us)
        z->duration_us = rec->span.duration_us;
    if (!z->timestamp_us)
        z->timestamp_us = end;
}

static size_t find_halves(const struct record *rec, struct half halves[4])
{
    static const struct {
        uint8_t kind;
        struct str begin, end;
    } rows[] = {
        {SPAN_KIND_CLIENT, {"cs", 2}, {"cr", 2}},
        {SPAN_KIND_SERVER, {"sr", 2}, {"ss", 2}},
        {SPAN_KIND_PRODUCER, {"ms", 2}, STR_NONE},
        {SPAN_KIND_CONSUMER, {"mr", 2}, STR_NONE},
    };
    size_t n = 0;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct half half = {rows[i].kind, find(rec, rows[i].begin),
                            rows[i].end.len ? find(rec, rows[i].end) : NULL};
        if (half.begin || half.end)
            halves[n++] = half;
    }
    if (n)
        return n;
    halves[0] = (struct half){SPAN_KIND_UNSPECIFIED, NULL, NULL};
    for (size_t i = 0; i < rec->n_binaries; i++)
        if (is_address(&rec->binaries[i], STR("sa")))
            halves[0].kind = SPAN_KIND_CLIENT;
    return 1;
}

static void end_record(struct decoder *d, struct record *rec)
{
    struct half halves[4];
    const char *reject = d->z.c.reject;
    rec->annotations = (const struct annotation *)(const void *)d->annotations.ptr;
    rec->n_annotations = d->annotations.len / sizeof(struct annotation);
    rec->binaries = (const struct binary *)(const void *)d->binaries.ptr;
    rec->n_binaries = d->binaries.len / sizeof(struct binary);
    size_t n = find_halves(rec, halves);
    for (size_t i = 0; i < n && !d->z.c.err; i++) {
        struct zipkin_span z = rec->span;
        struct span s = {.name = STR("")};
        const struct zipkin_endpoint *local = local_of(&halves[i]);
        d->z.c.reject = reject; /* of the record, so of each half */
        z.kind = halves[i].kind;
        if (!local && n == 1)
            local = any_endpoint(rec);
        if (local)
            z.local = *local;
        set_times(rec, &halves[i], i, n, &z);
        bool is_client_here = halves[0].kind == SPAN_KIND_CLIENT;
        z.shared = z.kind == SPAN_KIND_SERVER &&
                   (n == 1 ? !rec->span.timestamp_us : is_client_here);
        if (i > 0 && z.kind != SPAN_KIND_SERVER) {
            /* A producer and a consumer in one record: the same as a client and a server. */
            z.parent_id = z.id;
            z.id = zipkin_server_id(&z.trace_id, &z.id);
        }
        put_annotations(d, rec, halves, n, i, &z);
        put_binaries(d, rec, halves, n, i, &z, &s);
        zipkin_end_span(&d->z, &z, &s);
    }
    d->annotations.len = d->binaries.len = 0;
}

static void add(struct decoder *d, struct buf *to, const void *item, size_t size)
{
    buf_put(to, item, size);
    if (!buf_ok(to))
        d->z.c.err = ERR_NOMEM;
}

static void begin(struct decoder *d, struct arena *arena)
{
    zipkin_begin(&d->z, arena);
    d->annotations = (struct buf){.bytes_max = arena->bytes_max};
    d->binaries = (struct buf){.bytes_max = arena->bytes_max};
}

static int finish(struct decoder *d, int err, struct span_batch *ret_batch)
{
    buf_done(&d->annotations);
    buf_done(&d->binaries);
    return zipkin_finish(&d->z, err, ret_batch);
}

/* ---- JSON ---- */

static bool is(const struct json_reader *r, struct str key)
{
    return str_eq(r->text, key);
}

/* An endpoint that is null is none. */
static void endpoint_json(struct json_reader *r, struct zipkin_endpoint *ret, bool *ret_has)
{
    zipkin_json_endpoint(r, ret);
    *ret_has = r->type == JSON_OBJECT_END;
}

static void annotations_json(struct decoder *d, struct json_reader *r)
{
    if (!zipkin_json_array(r))
        return;
    while (zipkin_json_item(r)) {
        struct annotation a = {.value = STR("")};
        while (json_next(r) == JSON_KEY) {
            if (is(r, STR("timestamp")))
                a.us = zipkin_json_us(r);
            else if (is(r, STR("value")))
                a.value = zipkin_json_str(r);
            else if (is(r, STR("endpoint")))
                endpoint_json(r, &a.at, &a.has_endpoint);
            else
                json_skip(r);
        }
        add(d, &d->annotations, &a, sizeof a);
    }
}

static void binary_value_json(struct json_reader *r, struct value *ret)
{
    *ret = (struct value){.type = VALUE_STRING, .string = STR("")};
    switch (json_next(r)) {
    case JSON_STRING:
        ret->string = r->text;
        break;
    case JSON_NUMBER:
        *ret = (struct value){.type = VALUE_INT};
        if (!json_to_i64(r, &ret->integer)) {
            *ret = (struct value){.type = VALUE_DOUBLE};
            if (!json_to_double(r, &ret->real))
                json_fail(r, "a number");
        }
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        *ret = (struct value){.type = VALUE_BOOL, .boolean = r->type == JSON_TRUE};
        break;
    case JSON_NULL:
        break;
    default:
        json_fail(r, "a text, a number, true or false");
    }
}

static void binaries_json(struct decoder *d, struct json_reader *r)
{
    if (!zipkin_json_array(r))
        return;
    while (zipkin_json_item(r)) {
        struct binary b = {.key = STR(""), .value = {.type = VALUE_STRING, .string = STR("")}};
        while (json_next(r) == JSON_KEY) {
            if (is(r, STR("key")))
                b.key = zipkin_json_str(r);
            else if (is(r, STR("value")))
                binary_value_json(r, &b.value);
            else if (is(r, STR("endpoint")))
                endpoint_json(r, &b.at, &b.has_endpoint);
            else
                json_skip(r);
        }
        add(d, &d->binaries, &b, sizeof b);
    }
}

static void record_json(struct decoder *d, struct json_reader *r, struct record *rec)
{
    struct zipkin_span *z = &rec->span;
    while (json_next(r) == JSON_KEY) {
        if (is(r, STR("traceId")))
            zipkin_json_trace_id(&d->z, r, &z->trace_id);
        else if (is(r, STR("id")))
            zipkin_json_span_id(&d->z, r, &z->id);
        else if (is(r, STR("parentId")))
            zipkin_json_span_id(&d->z, r, &z->parent_id);
        else if (is(r, STR("name")))
            z->name = zipkin_json_str(r);
        else if (is(r, STR("timestamp")))
            z->timestamp_us = zipkin_json_us(r);
        else if (is(r, STR("duration")))
            z->duration_us = zipkin_json_us(r);
        else if (is(r, STR("debug")))
            z->debug = zipkin_json_bool(r);
        else if (is(r, STR("annotations")))
            annotations_json(d, r);
        else if (is(r, STR("binaryAnnotations")))
            binaries_json(d, r);
        else
            json_skip(r);
    }
}

int zipkin_v1_json_decode(struct str body, struct arena *arena, struct span_batch *ret_batch,
                          struct error_detail *ret_detail)
{
    struct decoder d;
    struct json_reader r;
    begin(&d, arena);
    json_reader_init(&r, body, arena, ret_detail);
    if (json_next(&r) != JSON_ARRAY)
        json_fail(&r, "a list of spans");
    while (!d.z.c.err && zipkin_json_item(&r)) {
        struct record rec = {.span = {.name = STR("")}};
        record_json(&d, &r, &rec);
        if (!r.err)
            end_record(&d, &rec);
    }
    if (!d.z.c.err && !r.err)
        json_next(&r); /* the end, or what should not be there */
    return finish(&d, r.err, ret_batch);
}

/* ---- thrift ---- */

enum {
    BINARY_BOOL,
    BINARY_BYTES,
    BINARY_I16,
    BINARY_I32,
    BINARY_I64,
    BINARY_DOUBLE,
    BINARY_STRING
};

static void put_be64(uint8_t *out, int64_t n)
{
    for (int i = 7; i >= 0; i--, n = (int64_t)((uint64_t)n >> 8))
        out[i] = (uint8_t)n;
}

static void text_thrift(struct decoder *d, struct thrift *r, const struct thrift_field *f,
                        struct str *ret)
{
    if (thrift_bytes(r, f, ret))
        collect_text(&d->z.c, *ret);
}

static void endpoint_thrift(struct decoder *d, struct thrift *r, const struct thrift_field *of,
                            struct zipkin_endpoint *ret, bool *ret_has)
{
    struct thrift_field f = {0};
    int64_t v4 = 0;
    struct str v6 = STR_NONE;
    if (!thrift_struct(r, of))
        return;
    *ret_has = true;
    while (thrift_next(r, &f)) {
        switch (f.id) {
        case 1:
            thrift_int(r, &f, &v4);
            break;
        case 2:
            if (thrift_int(r, &f, &ret->port))
                ret->port &= 0xffff; /* sent as a signed number */
            break;
        case 3:
            text_thrift(d, r, &f, &ret->service);
            break;
        case 4:
            thrift_bytes(r, &f, &v6);
            break;
        default:
            thrift_skip(r, &f);
        }
    }
    uint8_t bytes[8];
    put_be64(bytes, v4);
    if (v4)
        ret->address = zipkin_address(&d->z.c, (struct str){(const char *)bytes + 4, 4});
    else
        ret->address = zipkin_address(&d->z.c, v6);
}

static void annotation_thrift(struct decoder *d, struct thrift *r)
{
    struct annotation a = {.value = STR("")};
    struct thrift_field f = {0};
    int64_t us = 0;
    while (thrift_next(r, &f)) {
        switch (f.id) {
        case 1:
            thrift_int(r, &f, &us);
            break;
        case 2:
            text_thrift(d, r, &f, &a.value);
            break;
        case 3:
            endpoint_thrift(d, r, &f, &a.at, &a.has_endpoint);
            break;
        default:
            thrift_skip(r, &f);
        }
    }
    a.us = us > 0 ? (uint64_t)us : 0;
    add(d, &d->annotations, &a, sizeof a);
}

/* Numbers are the bytes of a binary value, the most significant first. */
static struct value binary_value(struct decoder *d, int64_t type, struct str bytes)
{
    uint64_t n = 0;
    double real;
    unsigned size = type == BINARY_BOOL                           ? 1
                    : type == BINARY_I16                          ? 2
                    : type == BINARY_I32                          ? 4
                    : type == BINARY_I64 || type == BINARY_DOUBLE ? 8
                                                                  : 0;
    if (type == BINARY_BYTES)
        return (struct value){.type = VALUE_BYTES, .bytes = bytes};
    if (!size || bytes.len != size)
        return (struct value){.type = VALUE_STRING, .string = collect_text(&d->z.c, bytes)};
    for (unsigned i = 0; i < size; i++)
        n = n << 8 | (uint8_t)bytes.ptr[i];
    if (type == BINARY_BOOL)
        return (struct value){.type = VALUE_BOOL, .boolean = n != 0};
    if (type == BINARY_DOUBLE) {
        memcpy(&real, &n, sizeof real);
        return (struct value){.type = VALUE_DOUBLE, .real = real};
    }
    unsigned above = 64 - 8 * size;
    return (struct value){.type = VALUE_INT, .integer = (int64_t)(n << above) >> above};
}

static void binary_thrift(struct decoder *d, struct thrift *r)
{
    struct binary b = {.key = STR("")};
    struct thrift_field f = {0};
    struct str bytes = STR("");
    int64_t type = BINARY_STRING;
    while (thrift_next(r, &f)) {
        switch (f.id) {
        case 1:
            text_thrift(d, r, &f, &b.key);
            break;
        case 2:
            thrift_bytes(r, &f, &bytes);
            break;
        case 3:
            thrift_int(r, &f, &type);
            break;
        case 4:
            endpoint_thrift(d, r, &f, &b.at, &b.has_endpoint);
            break;
        default:
            thrift_skip(r, &f);
        }
    }
    b.value = binary_value(d, type, bytes);
    add(d, &d->binaries, &b, sizeof b);
}

static void id_thrift(struct thrift *r, const struct thrift_field *f, uint8_t *out)
{
    int64_t n;
    if (thrift_int(r, f, &n))
        put_be64(out, n);
}

static void us_thrift(struct thrift *r, const struct thrift_field *f, uint64_t *ret)
{
    int64_t n = 0;
    if (thrift_int(r, f, &n))
        *ret = n > 0 ? (uint64_t)n : 0;
}

static void record_thrift(struct decoder *d, struct thrift *r, struct record *rec)
{
    struct zipkin_span *z = &rec->span;
    struct thrift_field f = {0};
    uint32_t n;
    while (thrift_next(r, &f) && !d->z.c.err) {
        switch (f.id) {
        case 1:
            id_thrift(r, &f, z->trace_id.bytes + SPAN_ID_SIZE);
            break;
        case 3:
            text_thrift(d, r, &f, &z->name);
            break;
        case 4:
            id_thrift(r, &f, z->id.bytes);
            break;
        case 5:
            id_thrift(r, &f, z->parent_id.bytes);
            break;
        case 6:
            if (thrift_list(r, &f, &n))
                while (n-- > 0 && !r->err)
                    annotation_thrift(d, r);
            break;
        case 8:
            if (thrift_list(r, &f, &n))
                while (n-- > 0 && !r->err)
                    binary_thrift(d, r);
            break;
        case 9:
            thrift_bool(r, &f, &z->debug);
            break;
        case 10:
            us_thrift(r, &f, &z->timestamp_us);
            break;
        case 11:
            us_thrift(r, &f, &z->duration_us);
            break;
        case 12:
            id_thrift(r, &f, z->trace_id.bytes);
            break;
        default:
            thrift_skip(r, &f);
        }
    }
}

int zipkin_v1_thrift_decode(struct str body, struct arena *arena, struct span_batch *ret_batch,
                            struct error_detail *ret_detail)
{
    struct decoder d;
    struct thrift r;
    uint32_t n = 0;
    begin(&d, arena);
    thrift_init(&r, body, THRIFT_BINARY);
    if (thrift_bare_list(&r, &n)) {
        while (n-- > 0 && !r.err && !d.z.c.err) {
            struct record rec = {.span = {.name = STR("")}};
            record_thrift(&d, &r, &rec);
            if (!r.err)
                end_record(&d, &rec);
        }
    }
    if (!r.err && !d.z.c.err && r.at != r.end)
        thrift_fail(&r, ERR_INVALID, "more bytes than the list of spans");
    if (r.err)
        error_set(ret_detail, r.err, r.position, "%s", r.message);
    return finish(&d, r.err, ret_batch);
}
