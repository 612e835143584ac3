#include "wire/jaeger.h"

#include "wire/collect.h"
#include "wire/jaeger_tag.h"
#include "wire/thrift.h"

enum tag_type { TAG_STRING, TAG_DOUBLE, TAG_BOOL, TAG_LONG, TAG_BINARY };
enum { REF_CHILD_OF, REF_FOLLOWS_FROM };
enum { FLAG_SAMPLED = 1, FLAG_DEBUG = 2 };

struct decoder {
    struct collect c;
    struct thrift r;
    struct resource *resource;
};

static void put_be64(uint8_t *out, int64_t n)
{
    uint64_t bits = (uint64_t)n;
    for (int i = 7; i >= 0; i--, bits >>= 8)
        out[i] = (uint8_t)bits;
}

static void id(struct decoder *d, const struct thrift_field *f, uint8_t *out)
{
    int64_t n;
    if (thrift_int(&d->r, f, &n))
        put_be64(out, n);
}

static void text(struct decoder *d, const struct thrift_field *f, struct str *ret)
{
    if (thrift_bytes(&d->r, f, ret))
        collect_text(&d->c, *ret);
}

static uint64_t time_ns(struct decoder *d, int64_t us)
{
    if (us >= 0)
        return collect_us(&d->c, (uint64_t)us);
    collect_reject(&d->c, "a time before 1970");
    return 0;
}

/* ---- tags ---- */

static void tag_decode(struct decoder *d, struct attr *ret)
{
    struct thrift_field f = {0};
    int64_t type = TAG_STRING, integer = 0;
    double real = 0;
    bool boolean = false;
    struct str string = STR(""), bytes = STR("");
    *ret = (struct attr){.key = STR("")};
    while (thrift_next(&d->r, &f)) {
        switch (f.id) {
        case 1:
            text(d, &f, &ret->key);
            break;
        case 2:
            thrift_int(&d->r, &f, &type);
            break;
        case 3:
            text(d, &f, &string);
            break;
        case 4:
            thrift_double(&d->r, &f, &real);
            break;
        case 5:
            thrift_bool(&d->r, &f, &boolean);
            break;
        case 6:
            thrift_int(&d->r, &f, &integer);
            break;
        case 7:
            thrift_bytes(&d->r, &f, &bytes);
            break;
        default:
            thrift_skip(&d->r, &f);
        }
    }
    switch (type) {
    case TAG_DOUBLE:
        ret->value = (struct value){.type = VALUE_DOUBLE, .real = real};
        break;
    case TAG_BOOL:
        ret->value = (struct value){.type = VALUE_BOOL, .boolean = boolean};
        break;
    case TAG_LONG:
        ret->value = (struct value){.type = VALUE_INT, .integer = integer};
        break;
    case TAG_BINARY:
        ret->value = (struct value){.type = VALUE_BYTES, .bytes = bytes};
        break;
    default:
        ret->value = (struct value){.type = VALUE_STRING, .string = string};
    }
}

static bool is_text(const struct attr *a, struct str key)
{
    return a->value.type == VALUE_STRING && str_eq(a->key, key);
}

bool jaeger_tag_take(struct collect *c, struct jaeger_told *t, const struct attr *a)
{
    const struct value *v = &a->value;
    if (str_eq(a->key, STR("error"))) {
        if (!(v->type == VALUE_BOOL && v->boolean) &&
            !(v->type == VALUE_STRING && str_eq(v->string, STR("true"))))
            return false;
        t->span.status_code = STATUS_ERROR;
        return true;
    }
    if (is_text(a, STR("span.kind")))
        return span_kind_parse(v->string, &t->span.kind);
    if (is_text(a, STR("otel.status_description"))) {
        t->span.status_message = v->string;
        return true;
    }
    if (is_text(a, STR("otel.status_code"))) {
        bool error = str_eq(v->string, STR("ERROR"));
        if (error || (str_eq(v->string, STR("OK")) && t->span.status_code == STATUS_UNSET))
            t->span.status_code = error ? STATUS_ERROR : STATUS_OK;
        return true;
    }
    if (is_text(a, STR("w3c.tracestate"))) {
        t->span.trace_state = v->string;
        return true;
    }
    bool name = is_text(a, STR("otel.scope.name")) || is_text(a, STR("otel.library.name"));
    bool version = is_text(a, STR("otel.scope.version")) || is_text(a, STR("otel.library.version"));
    if (!name && !version)
        return false;
    if (!t->scope)
        t->scope = arena_zalloc(c->arena, sizeof *t->scope);
    if (t->scope)
        *(name ? &t->scope->name : &t->scope->version) = v->string;
    else
        c->err = ERR_NOMEM;
    return true;
}

static void tags_decode(struct decoder *d, const struct thrift_field *f, struct jaeger_told *t)
{
    uint32_t n;
    if (!thrift_list(&d->r, f, &n))
        return;
    while (n-- > 0 && !d->r.err && !d->c.err) {
        struct attr a;
        tag_decode(d, &a);
        if (!t || !jaeger_tag_take(&d->c, t, &a))
            collect_attr(&d->c, a.key, &a.value);
    }
}

/* ---- spans ---- */

static void log_decode(struct decoder *d)
{
    struct event e = {.name = STR("")};
    struct thrift_field f = {0};
    size_t mark = collect_mark(&d->c);
    int64_t us = 0;
    uint32_t n;
    bool has_name = false;
    while (thrift_next(&d->r, &f)) {
        if (f.id == 1) {
            thrift_int(&d->r, &f, &us);
        } else if (f.id == 2 && thrift_list(&d->r, &f, &n)) {
            while (n-- > 0 && !d->r.err && !d->c.err) {
                struct attr a;
                tag_decode(d, &a);
                if (!has_name && is_text(&a, STR("event"))) {
                    e.name = a.value.string;
                    has_name = true;
                } else {
                    collect_attr(&d->c, a.key, &a.value);
                }
            }
        } else if (f.id != 2) {
            thrift_skip(&d->r, &f);
        }
    }
    e.time_ns = time_ns(d, us);
    e.attrs = collect_take_attrs(&d->c, mark);
    collect_event(&d->c, &e);
}

struct reference {
    int64_t type;
    struct trace_id trace_id;
    struct span_id span_id;
};

static void reference_decode(struct decoder *d, struct reference *ret)
{
    struct thrift_field f = {0};
    *ret = (struct reference){.type = REF_CHILD_OF};
    while (thrift_next(&d->r, &f)) {
        switch (f.id) {
        case 1:
            thrift_int(&d->r, &f, &ret->type);
            break;
        case 2:
            id(d, &f, ret->trace_id.bytes + SPAN_ID_SIZE);
            break;
        case 3:
            id(d, &f, ret->trace_id.bytes);
            break;
        case 4:
            id(d, &f, ret->span_id.bytes);
            break;
        default:
            thrift_skip(&d->r, &f);
        }
    }
}

/* A span's own ids and parent come before its references (fields are written in order). */
static void reference_take(struct decoder *d, struct jaeger_told *t, const struct reference *ref)
{
    struct span *s = &t->span;
    if (ref->type == REF_CHILD_OF && trace_id_cmp(&ref->trace_id, &s->trace_id) == 0) {
        if (span_id_is_zero(&s->parent_id))
            s->parent_id = ref->span_id;
        if (memcmp(ref->span_id.bytes, s->parent_id.bytes, SPAN_ID_SIZE) == 0)
            return;
    }
    size_t mark = collect_mark(&d->c);
    collect_attr_str(&d->c, STR("opentracing.ref_type"),
                     ref->type == REF_CHILD_OF ? STR("child_of") : STR("follows_from"));
    struct link link = {.trace_id = ref->trace_id,
                        .span_id = ref->span_id,
                        .trace_state = STR(""),
                        .attrs = collect_take_attrs(&d->c, mark)};
    collect_link(&d->c, &link);
}

static void span_field(struct decoder *d, const struct thrift_field *f, struct jaeger_told *t,
                       int64_t *start_us, int64_t *duration_us, int64_t *flags)
{
    struct span *s = &t->span;
    uint32_t n;
    switch (f->id) {
    case 1:
        id(d, f, s->trace_id.bytes + SPAN_ID_SIZE);
        break;
    case 2:
        id(d, f, s->trace_id.bytes);
        break;
    case 3:
        id(d, f, s->span_id.bytes);
        break;
    case 4:
        id(d, f, s->parent_id.bytes);
        break;
    case 5:
        text(d, f, &s->name);
        break;
    case 6:
        if (thrift_list(&d->r, f, &n)) {
            while (n-- > 0 && !d->r.err && !d->c.err) {
                struct reference ref;
                reference_decode(d, &ref);
                reference_take(d, t, &ref);
            }
        }
        break;
    case 7:
        thrift_int(&d->r, f, flags);
        break;
    case 8:
        thrift_int(&d->r, f, start_us);
        break;
    case 9:
        thrift_int(&d->r, f, duration_us);
        break;
    case 10:
        tags_decode(d, f, t);
        break;
    case 11:
        if (thrift_list(&d->r, f, &n))
            while (n-- > 0 && !d->r.err && !d->c.err)
                log_decode(d);
        break;
    default:
        thrift_skip(&d->r, f);
    }
}

static void span_decode(struct decoder *d)
{
    struct jaeger_told t = {.span = {.name = STR("")}};
    struct thrift_field f = {0};
    int64_t start_us = 0, duration_us = 0, flags = 0;
    while (thrift_next(&d->r, &f) && !d->c.err)
        span_field(d, &f, &t, &start_us, &duration_us, &flags);
    if (d->r.err || d->c.err)
        return;
    t.span.start_ns = time_ns(d, start_us);
    t.span.end_ns = t.span.start_ns;
    if (start_us >= 0 && duration_us > 0 && duration_us <= INT64_MAX - start_us)
        t.span.end_ns = time_ns(d, start_us + duration_us);
    t.span.flags = flags & FLAG_SAMPLED;
    if (flags & FLAG_DEBUG && !collect_find(&d->c, STR("jaeger.debug")))
        collect_attr(&d->c, STR("jaeger.debug"),
                     &(struct value){.type = VALUE_BOOL, .boolean = true});
    t.span.resource = d->resource;
    t.span.scope = t.scope;
    collect_span(&d->c, &t.span);
}

static void process_decode(struct decoder *d)
{
    struct thrift_field f = {0};
    struct str service = STR("");
    while (thrift_next(&d->r, &f) && !d->c.err) {
        if (f.id == 1)
            text(d, &f, &service);
        else if (f.id == 2)
            tags_decode(d, &f, NULL);
        else
            thrift_skip(&d->r, &f);
    }
    if (service.len && !collect_find(&d->c, STR("service.name")))
        collect_attr_str(&d->c, STR("service.name"), service);
    d->resource->attrs = collect_take_attrs(&d->c, 0);
    resource_set_service_name(d->resource);
}

static int finish(struct decoder *d, int err, struct span_batch *ret_batch)
{
    if (err) {
        collect_done(&d->c);
        return err;
    }
    return collect_batch(&d->c, ret_batch);
}

/* Trouble with the process is trouble with every span of the batch, also with those before it. */
static void batch_decode(struct decoder *d)
{
    struct thrift_field f = {0};
    const char *process_reject = NULL;
    size_t first = collect_spans(&d->c);
    uint32_t n;
    d->resource = arena_zalloc(d->c.arena, sizeof *d->resource);
    if (!d->resource) {
        d->c.err = ERR_NOMEM;
        return;
    }
    resource_set_service_name(d->resource);
    while (thrift_next(&d->r, &f) && !d->c.err) {
        if (f.id == 1 && thrift_struct(&d->r, &f)) {
            d->c.reject = NULL;
            process_decode(d);
            process_reject = d->c.reject;
            d->c.reject = NULL;
            if (process_reject)
                collect_reject_spans(&d->c, first, process_reject);
        } else if (f.id == 2 && thrift_list(&d->r, &f, &n)) {
            while (n-- > 0 && !d->r.err && !d->c.err) {
                d->c.reject = process_reject;
                span_decode(d);
            }
        } else if (f.id != 1 && f.id != 2) {
            thrift_skip(&d->r, &f);
        }
    }
}

static int decode(struct str body, enum thrift_protocol protocol, bool is_call, struct arena *arena,
                  struct span_batch *ret_batch, struct error_detail *ret_detail)
{
    struct decoder d = {0};
    struct thrift_call call;
    collect_init(&d.c, arena);
    thrift_init(&d.r, body, protocol);
    if (!is_call) {
        batch_decode(&d);
    } else if (thrift_call(&d.r, &call)) {
        struct thrift_field f = {0};
        if (!str_eq(call.name, STR("emitBatch")))
            thrift_fail(&d.r, ERR_INVALID, "not a call of emitBatch");
        while (thrift_next(&d.r, &f) && !d.c.err) {
            if (f.id == 1 && thrift_struct(&d.r, &f))
                batch_decode(&d);
            else if (f.id != 1)
                thrift_skip(&d.r, &f);
        }
    }
    if (d.r.err && !d.c.err)
        error_set(ret_detail, d.r.err, d.r.position, "%s", d.r.message);
    return finish(&d, d.c.err ? d.c.err : d.r.err, ret_batch);
}

int jaeger_thrift_decode(struct str body, struct arena *arena, struct span_batch *ret_batch,
                         struct error_detail *ret_detail)
{
    return decode(body, THRIFT_BINARY, false, arena, ret_batch, ret_detail);
}

int jaeger_compact_decode(struct str body, struct arena *arena, struct span_batch *ret_batch,
                          struct error_detail *ret_detail)
{
    return decode(body, THRIFT_COMPACT, true, arena, ret_batch, ret_detail);
}

int jaeger_binary_decode(struct str body, struct arena *arena, struct span_batch *ret_batch,
                         struct error_detail *ret_detail)
{
    return decode(body, THRIFT_BINARY, true, arena, ret_batch, ret_detail);
}
