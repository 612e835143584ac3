/* Decoding goes over the bytes of a body once, but for a span's lists: one pass over a span reads
 * its scalars and counts attributes, events and links; a second one, from the first of each, fills
 * arrays of exactly that size. The arrays of a span are contiguous and in the order of the sender.
 * The array of spans grows to what the spans so far promise for the rest of the body.
 *
 * Protobuf lets fields come in any order and scalars come twice (the last one counts); a message
 * that comes twice is to be merged. Here resource, scope and status are merged, an AnyValue is
 * replaced: no encoder splits one.
 *
 * Two kinds of trouble: `err`, when the bytes are no protobuf, ends everything; `reject`, when the
 * bytes say something that cannot be kept, ends one span (or those of one resource or scope).
 *
 * Memory is bounded by the arena's limit. The worst factor is 20: an empty attribute is two bytes
 * and becomes a struct attr of 40. Spans too short to have both ids are rejected without taking
 * room. */
#include "wire/otlp.h"

#include "wire/otlp_pieces.h"
#include "wire/protobuf.h"
#include "wire/rejected.h"

enum {
    /* ExportTraceServiceRequest */
    REQUEST_RESOURCE_SPANS = PB_TAG(1, PB_BYTES),
    /* ResourceSpans */
    RESOURCE_SPANS_RESOURCE = PB_TAG(1, PB_BYTES),
    RESOURCE_SPANS_SCOPE_SPANS = PB_TAG(2, PB_BYTES),
    RESOURCE_SPANS_SCHEMA_URL = PB_TAG(3, PB_BYTES),
    /* Resource; 3 is entity_refs, which point at attributes and are not kept */
    RESOURCE_ATTRIBUTES = PB_TAG(1, PB_BYTES),
    RESOURCE_DROPPED = PB_TAG(2, PB_VARINT),
    /* ScopeSpans */
    SCOPE_SPANS_SCOPE = PB_TAG(1, PB_BYTES),
    SCOPE_SPANS_SPANS = PB_TAG(2, PB_BYTES),
    SCOPE_SPANS_SCHEMA_URL = PB_TAG(3, PB_BYTES),
    /* InstrumentationScope */
    SCOPE_NAME = PB_TAG(1, PB_BYTES),
    SCOPE_VERSION = PB_TAG(2, PB_BYTES),
    SCOPE_ATTRIBUTES = PB_TAG(3, PB_BYTES),
    SCOPE_DROPPED = PB_TAG(4, PB_VARINT),
    /* Span */
    SPAN_TRACE_ID = PB_TAG(1, PB_BYTES),
    SPAN_SPAN_ID = PB_TAG(2, PB_BYTES),
    SPAN_TRACE_STATE = PB_TAG(3, PB_BYTES),
    SPAN_PARENT_ID = PB_TAG(4, PB_BYTES),
    SPAN_NAME = PB_TAG(5, PB_BYTES),
    SPAN_KIND = PB_TAG(6, PB_VARINT),
    SPAN_START = PB_TAG(7, PB_FIXED64),
    SPAN_END = PB_TAG(8, PB_FIXED64),
    SPAN_ATTRIBUTES = PB_TAG(9, PB_BYTES),
    SPAN_DROPPED_ATTRIBUTES = PB_TAG(10, PB_VARINT),
    SPAN_EVENTS = PB_TAG(11, PB_BYTES),
    SPAN_DROPPED_EVENTS = PB_TAG(12, PB_VARINT),
    SPAN_LINKS = PB_TAG(13, PB_BYTES),
    SPAN_DROPPED_LINKS = PB_TAG(14, PB_VARINT),
    SPAN_STATUS = PB_TAG(15, PB_BYTES),
    SPAN_FLAGS = PB_TAG(16, PB_FIXED32),
    /* Span.Event */
    EVENT_TIME = PB_TAG(1, PB_FIXED64),
    EVENT_NAME = PB_TAG(2, PB_BYTES),
    EVENT_ATTRIBUTES = PB_TAG(3, PB_BYTES),
    EVENT_DROPPED = PB_TAG(4, PB_VARINT),
    /* Span.Link */
    LINK_TRACE_ID = PB_TAG(1, PB_BYTES),
    LINK_SPAN_ID = PB_TAG(2, PB_BYTES),
    LINK_TRACE_STATE = PB_TAG(3, PB_BYTES),
    LINK_ATTRIBUTES = PB_TAG(4, PB_BYTES),
    LINK_DROPPED = PB_TAG(5, PB_VARINT),
    LINK_FLAGS = PB_TAG(6, PB_FIXED32),
    /* Status */
    STATUS_MESSAGE = PB_TAG(2, PB_BYTES),
    STATUS_CODE = PB_TAG(3, PB_VARINT),
    /* KeyValue */
    KEY_VALUE_KEY = PB_TAG(1, PB_BYTES),
    KEY_VALUE_VALUE = PB_TAG(2, PB_BYTES),
    /* AnyValue */
    ANY_STRING = PB_TAG(1, PB_BYTES),
    ANY_BOOL = PB_TAG(2, PB_VARINT),
    ANY_INT = PB_TAG(3, PB_VARINT),
    ANY_DOUBLE = PB_TAG(4, PB_FIXED64),
    ANY_ARRAY = PB_TAG(5, PB_BYTES),
    ANY_MAP = PB_TAG(6, PB_BYTES),
    ANY_BYTES = PB_TAG(7, PB_BYTES),
    /* ArrayValue and KeyValueList */
    LIST_VALUES = PB_TAG(1, PB_BYTES),
    /* ExportTraceServiceResponse */
    RESPONSE_PARTIAL_SUCCESS = PB_TAG(1, PB_BYTES),
    /* ExportTracePartialSuccess */
    PARTIAL_REJECTED_SPANS = PB_TAG(1, PB_VARINT),
    PARTIAL_ERROR_MESSAGE = PB_TAG(2, PB_BYTES),
    /* google.rpc.Status */
    RPC_STATUS_CODE = PB_TAG(1, PB_VARINT),
    RPC_STATUS_MESSAGE = PB_TAG(2, PB_BYTES),

    /* Tag and length of both ids, and the ids. */
    SPAN_BYTES_MIN = 2 + TRACE_ID_SIZE + 2 + SPAN_ID_SIZE,
};

/* ---- decoding ---- */

struct decoder {
    struct arena *arena;
    const uint8_t *start, *end;
    struct error_detail *detail;
    int err;            /* the body cannot be read */
    const char *reject; /* this span cannot be kept; set to NULL before the next one */
};

static bool fail(struct decoder *d, const uint8_t *at, int err)
{
    static const char *const texts[] = {[-ERR_TRUNCATED] = "a field ends beyond its message",
                                        [-ERR_INVALID] = "not a protobuf message",
                                        [-ERR_TOO_LARGE] = "values are nested too deeply",
                                        [-ERR_NOMEM] = "out of memory"};
    if (!d->err)
        d->err = error_set(d->detail, err, (size_t)(at - d->start), "%s", texts[-err]);
    return false;
}

static bool reject(struct decoder *d, const char *reason)
{
    if (!d->reject)
        d->reject = reason;
    return false;
}

static void *alloc(struct decoder *d, size_t n, size_t size, const uint8_t *at)
{
    void *p = arena_array(d->arena, n, size);
    if (!p)
        fail(d, at, ERR_NOMEM);
    return p;
}

/* Nearly every string is ASCII and short, so this is in line and the rest is a call. */
static inline bool is_utf8(const uint8_t *p, size_t n)
{
    uint64_t seen = 0, w;
    if (n >= 8) {
        size_t i = 0;
        for (; i + 8 <= n; i += 8) {
            memcpy(&w, p + i, 8);
            seen |= w;
        }
        memcpy(&w, p + n - 8, 8);
        seen |= w;
    } else if (n >= 4) {
        uint32_t first, last;
        memcpy(&first, p, 4);
        memcpy(&last, p + n - 4, 4);
        seen = first | last;
    } else if (n > 0) {
        seen = p[0] | p[n / 2] | p[n - 1];
    }
    return !(seen & UINT64_C(0x8080808080808080)) || str_is_utf8((struct str){(const char *)p, n});
}

static inline bool text(struct decoder *d, const struct pb_field *f, struct str *ret)
{
    if (__builtin_expect(!is_utf8(f->ptr, f->n), 0))
        return reject(d, "a text is not UTF-8");
    *ret = pb_as_str(f);
    return true;
}

/* How often a field comes in a message; false when it is no message. */
static bool count_fields(struct decoder *d, struct pb r, uint32_t tag, size_t *n)
{
    struct pb_field f;
    int got;
    while ((got = pb_next(&r, &f)) > 0)
        *n += f.tag == tag;
    return got == 0 || fail(d, r.at, got);
}

static bool value_decode(struct decoder *d, struct pb r, unsigned depth, struct value *ret);

/* What nearly all attributes are: a key and a string, each shorter than 128 bytes, in this order
 * and nothing else. False: it is something else, or not all UTF-8; the general way will tell. */
static inline bool attr_decode_short(struct pb r, struct attr *ret)
{
    const uint8_t *p = r.at;
    size_t n = (size_t)(r.end - p);
    if (n < 6 || p[0] != KEY_VALUE_KEY || p[1] > n - 6)
        return false;
    size_t key = p[1];
    const uint8_t *v = p + 2 + key;
    size_t left = n - 2 - key; /* 4 at least */
    if (v[0] != KEY_VALUE_VALUE || v[1] != left - 2 || v[2] != ANY_STRING || v[3] != left - 4 ||
        n >= 128)
        return false;
    if (!is_utf8(p + 2, key) || !is_utf8(v + 4, left - 4))
        return false;
    ret->key = (struct str){(const char *)p + 2, key};
    ret->value.type = VALUE_STRING;
    ret->value.string = (struct str){(const char *)v + 4, left - 4};
    return true;
}

static inline bool attr_decode(struct decoder *d, struct pb r, unsigned depth, struct attr *ret)
{
    if (__builtin_expect(attr_decode_short(r, ret), 1))
        return true;
    struct pb_field f;
    int got;
    *ret = (struct attr){.key = STR("")};
    while ((got = pb_next(&r, &f)) > 0) {
        if (f.tag == KEY_VALUE_KEY) {
            if (!text(d, &f, &ret->key))
                return false;
        } else if (f.tag == KEY_VALUE_VALUE) {
            if (!value_decode(d, pb_from_field(&f), depth, &ret->value))
                return false;
        }
    }
    return got == 0 || fail(d, r.at, got);
}

static bool array_decode(struct decoder *d, struct pb r, unsigned depth, struct value *ret)
{
    struct pb_field f;
    size_t n = 0;
    if (depth > VALUE_DEPTH_MAX)
        return fail(d, r.at, ERR_TOO_LARGE);
    if (!count_fields(d, r, LIST_VALUES, &n))
        return false;
    struct value *items = n ? alloc(d, n, sizeof *items, r.at) : NULL;
    if (n && !items)
        return false;
    *ret = (struct value){.type = VALUE_ARRAY, .array = {items, n}};
    for (size_t i = 0; i < n && pb_next(&r, &f) > 0;)
        if (f.tag == LIST_VALUES && !value_decode(d, pb_from_field(&f), depth, &items[i++]))
            return false;
    return true;
}

static bool map_decode(struct decoder *d, struct pb r, unsigned depth, struct value *ret)
{
    struct pb_field f;
    size_t n = 0;
    if (depth > VALUE_DEPTH_MAX)
        return fail(d, r.at, ERR_TOO_LARGE);
    if (!count_fields(d, r, LIST_VALUES, &n))
        return false;
    struct attr *items = n ? alloc(d, n, sizeof *items, r.at) : NULL;
    if (n && !items)
        return false;
    *ret = (struct value){.type = VALUE_MAP, .map = {items, n}};
    for (size_t i = 0; i < n && pb_next(&r, &f) > 0;)
        if (f.tag == LIST_VALUES && !attr_decode(d, pb_from_field(&f), depth, &items[i++]))
            return false;
    return true;
}

static bool value_decode(struct decoder *d, struct pb r, unsigned depth, struct value *ret)
{
    struct pb_field f;
    int got;
    ret->type = VALUE_NONE;
    while ((got = pb_next(&r, &f)) > 0) {
        switch (f.tag) {
        case ANY_STRING:
            ret->type = VALUE_STRING;
            if (!text(d, &f, &ret->string))
                return false;
            break;
        case ANY_BOOL:
            ret->type = VALUE_BOOL;
            ret->boolean = f.n != 0;
            break;
        case ANY_INT:
            ret->type = VALUE_INT;
            ret->integer = (int64_t)f.n;
            break;
        case ANY_DOUBLE:
            ret->type = VALUE_DOUBLE;
            memcpy(&ret->real, &f.n, sizeof ret->real);
            break;
        case ANY_BYTES:
            ret->type = VALUE_BYTES;
            ret->bytes = pb_as_str(&f);
            break;
        case ANY_ARRAY:
            if (!array_decode(d, pb_from_field(&f), depth + 1, ret))
                return false;
            break;
        case ANY_MAP:
            if (!map_decode(d, pb_from_field(&f), depth + 1, ret))
                return false;
            break;
        }
    }
    return got == 0 || fail(d, r.at, got);
}

/* The fields `tag` of a message, whose number is known and whose bytes were walked once already. */
static bool attrs_fill(struct decoder *d, struct pb r, uint32_t tag, struct attr *items, size_t n)
{
    struct pb_field f;
    for (size_t i = 0; i < n && pb_next(&r, &f) > 0;)
        if (f.tag == tag && !attr_decode(d, pb_from_field(&f), 0, &items[i++]))
            return false;
    return true;
}

/* What is repeated inside a message: how often, and where it begins. */
struct repeated {
    const uint8_t *from;
    size_t n;
};

static inline void repeated_add(struct repeated *seen, const uint8_t *field_start)
{
    if (seen->n++ == 0)
        seen->from = field_start;
}

static bool attrs_decode(struct decoder *d, const struct repeated *seen, const uint8_t *end,
                         uint32_t tag, struct attrs *ret)
{
    if (seen->n == 0)
        return true;
    struct attr *items = alloc(d, seen->n, sizeof *items, seen->from);
    if (!items)
        return false;
    ret->items = items;
    ret->n = (uint32_t)seen->n;
    return attrs_fill(d, (struct pb){seen->from, end}, tag, items, seen->n);
}

static bool event_decode(struct decoder *d, struct pb r, struct event *ret)
{
    struct pb_field f;
    struct repeated attrs = {0};
    int got;
    *ret = (struct event){.name = STR("")};
    for (const uint8_t *at = r.at; (got = pb_next(&r, &f)) > 0; at = r.at) {
        switch (f.tag) {
        case EVENT_TIME:
            ret->time_ns = f.n;
            break;
        case EVENT_NAME:
            if (!text(d, &f, &ret->name))
                return false;
            break;
        case EVENT_ATTRIBUTES:
            repeated_add(&attrs, at);
            break;
        case EVENT_DROPPED:
            ret->attrs.dropped = (uint32_t)f.n;
            break;
        }
    }
    if (got < 0)
        return fail(d, r.at, got);
    return attrs_decode(d, &attrs, r.end, EVENT_ATTRIBUTES, &ret->attrs);
}

static bool link_decode(struct decoder *d, struct pb r, struct link *ret)
{
    struct pb_field f;
    struct repeated attrs = {0};
    int got;
    *ret = (struct link){.trace_state = STR("")};
    for (const uint8_t *at = r.at; (got = pb_next(&r, &f)) > 0; at = r.at) {
        switch (f.tag) {
        case LINK_TRACE_ID:
            if (f.n != TRACE_ID_SIZE && f.n != 0)
                return reject(d, "a link's trace id is not 16 bytes long");
            if (f.n)
                memcpy(ret->trace_id.bytes, f.ptr, TRACE_ID_SIZE);
            break;
        case LINK_SPAN_ID:
            if (f.n != SPAN_ID_SIZE && f.n != 0)
                return reject(d, "a link's span id is not 8 bytes long");
            if (f.n)
                memcpy(ret->span_id.bytes, f.ptr, SPAN_ID_SIZE);
            break;
        case LINK_TRACE_STATE:
            if (!text(d, &f, &ret->trace_state))
                return false;
            break;
        case LINK_ATTRIBUTES:
            repeated_add(&attrs, at);
            break;
        case LINK_DROPPED:
            ret->attrs.dropped = (uint32_t)f.n;
            break;
        case LINK_FLAGS:
            ret->flags = (uint32_t)f.n;
            break;
        }
    }
    if (got < 0)
        return fail(d, r.at, got);
    return attrs_decode(d, &attrs, r.end, LINK_ATTRIBUTES, &ret->attrs);
}

static bool events_decode(struct decoder *d, const struct repeated *seen, const uint8_t *end,
                          struct span *ret)
{
    struct event *items = alloc(d, seen->n, sizeof *items, seen->from);
    struct pb r = {seen->from, end};
    struct pb_field f;
    if (!items)
        return false;
    for (size_t i = 0; i < seen->n && pb_next(&r, &f) > 0;)
        if (f.tag == SPAN_EVENTS && !event_decode(d, pb_from_field(&f), &items[i++]))
            return false;
    ret->events = items;
    ret->n_events = (uint32_t)seen->n;
    return true;
}

static bool links_decode(struct decoder *d, const struct repeated *seen, const uint8_t *end,
                         struct span *ret)
{
    struct link *items = alloc(d, seen->n, sizeof *items, seen->from);
    struct pb r = {seen->from, end};
    struct pb_field f;
    if (!items)
        return false;
    for (size_t i = 0; i < seen->n && pb_next(&r, &f) > 0;)
        if (f.tag == SPAN_LINKS && !link_decode(d, pb_from_field(&f), &items[i++]))
            return false;
    ret->links = items;
    ret->n_links = (uint32_t)seen->n;
    return true;
}

static bool status_decode(struct decoder *d, struct pb r, struct span *ret)
{
    struct pb_field f;
    int got;
    while ((got = pb_next(&r, &f)) > 0) {
        if (f.tag == STATUS_MESSAGE) {
            if (!text(d, &f, &ret->status_message))
                return false;
        } else if (f.tag == STATUS_CODE) {
            ret->status_code = f.n <= STATUS_ERROR ? (uint8_t)f.n : STATUS_UNSET;
        }
    }
    return got == 0 || fail(d, r.at, got);
}

static bool span_ids_check(struct decoder *d, const struct span *s, bool lengths_ok)
{
    if (!lengths_ok)
        return reject(d, "an id has a wrong length");
    if (trace_id_is_zero(&s->trace_id))
        return reject(d, "a trace id of zeros");
    if (span_id_is_zero(&s->span_id))
        return reject(d, "a span id of zeros");
    return true;
}

static bool span_decode(struct decoder *d, struct pb r, const struct resource *resource,
                        const struct scope *scope, struct span *ret)
{
    struct repeated attrs = {0}, events = {0}, links = {0};
    bool lengths_ok = true;
    struct pb_field f;
    int got;
    *ret = (struct span){.name = STR(""),
                         .trace_state = STR(""),
                         .status_message = STR(""),
                         .resource = resource,
                         .scope = scope};
    for (const uint8_t *at = r.at; (got = pb_next(&r, &f)) > 0; at = r.at) {
        switch (f.tag) {
        case SPAN_TRACE_ID:
            if (f.n == TRACE_ID_SIZE)
                memcpy(ret->trace_id.bytes, f.ptr, TRACE_ID_SIZE);
            else
                lengths_ok = false;
            break;
        case SPAN_SPAN_ID:
            if (f.n == SPAN_ID_SIZE)
                memcpy(ret->span_id.bytes, f.ptr, SPAN_ID_SIZE);
            else
                lengths_ok = false;
            break;
        case SPAN_PARENT_ID:
            if (f.n == SPAN_ID_SIZE)
                memcpy(ret->parent_id.bytes, f.ptr, SPAN_ID_SIZE);
            else if (f.n != 0)
                lengths_ok = false;
            break;
        case SPAN_TRACE_STATE:
            if (!text(d, &f, &ret->trace_state))
                return false;
            break;
        case SPAN_NAME:
            if (!text(d, &f, &ret->name))
                return false;
            break;
        case SPAN_KIND:
            ret->kind = f.n <= SPAN_KIND_CONSUMER ? (uint8_t)f.n : SPAN_KIND_UNSPECIFIED;
            break;
        case SPAN_START:
            ret->start_ns = f.n;
            break;
        case SPAN_END:
            ret->end_ns = f.n;
            break;
        case SPAN_ATTRIBUTES:
            repeated_add(&attrs, at);
            break;
        case SPAN_DROPPED_ATTRIBUTES:
            ret->attrs.dropped = (uint32_t)f.n;
            break;
        case SPAN_EVENTS:
            repeated_add(&events, at);
            break;
        case SPAN_DROPPED_EVENTS:
            ret->dropped_events = (uint32_t)f.n;
            break;
        case SPAN_LINKS:
            repeated_add(&links, at);
            break;
        case SPAN_DROPPED_LINKS:
            ret->dropped_links = (uint32_t)f.n;
            break;
        case SPAN_STATUS:
            if (!status_decode(d, pb_from_field(&f), ret))
                return false;
            break;
        case SPAN_FLAGS:
            ret->flags = (uint32_t)f.n;
            break;
        }
    }
    if (got < 0)
        return fail(d, r.at, got);
    return span_ids_check(d, ret, lengths_ok) &&
           attrs_decode(d, &attrs, r.end, SPAN_ATTRIBUTES, &ret->attrs) &&
           (!events.n || events_decode(d, &events, r.end, ret)) &&
           (!links.n || links_decode(d, &links, r.end, ret));
}

/* The attributes of a resource or scope, behind those of an earlier part of it. */
static bool attrs_append(struct decoder *d, struct pb r, uint32_t tag, struct attrs *ret)
{
    size_t more = 0;
    if (!count_fields(d, r, tag, &more))
        return false;
    if (!more)
        return true;
    struct attr *items = alloc(d, ret->n + more, sizeof *items, r.at);
    if (!items)
        return false;
    if (ret->n)
        memcpy(items, ret->items, ret->n * sizeof *items);
    if (!attrs_fill(d, r, tag, items + ret->n, more))
        return false;
    ret->items = items;
    ret->n += (uint32_t)more;
    return true;
}

static bool resource_decode(struct decoder *d, struct pb r, struct resource *ret)
{
    struct pb_field f;
    if (!attrs_append(d, r, RESOURCE_ATTRIBUTES, &ret->attrs))
        return false;
    while (pb_next(&r, &f) > 0)
        if (f.tag == RESOURCE_DROPPED)
            ret->attrs.dropped = (uint32_t)f.n;
    return true;
}

static bool scope_decode(struct decoder *d, struct pb r, struct scope *ret)
{
    struct pb_field f;
    if (!attrs_append(d, r, SCOPE_ATTRIBUTES, &ret->attrs))
        return false;
    while (pb_next(&r, &f) > 0) {
        if ((f.tag == SCOPE_NAME && !text(d, &f, &ret->name)) ||
            (f.tag == SCOPE_VERSION && !text(d, &f, &ret->version)))
            return false;
        if (f.tag == SCOPE_DROPPED)
            ret->attrs.dropped = (uint32_t)f.n;
    }
    return true;
}

/* The batch while it grows. */
struct spans {
    struct span_batch batch;
    struct rejected rejected;
    size_t room;
};

enum { SPANS_ROOM_FIRST = 16, SPANS_GROWTH_MAX = 4 };

/* Where the next span goes; `at` is where the decoder stands, by which it foresees the rest. */
static struct span *spans_next(struct decoder *d, struct spans *spans, const uint8_t *at)
{
    size_t n = spans->batch.n;
    if (__builtin_expect(n < spans->room, 1))
        return &spans->batch.spans[n];
    size_t room = SPANS_ROOM_FIRST;
    if (n) {
        double per_byte = (double)n / (double)(at - d->start);
        double rest = per_byte * (double)(d->end - at);
        room = n + (size_t)(rest * 1.0625) + SPANS_ROOM_FIRST;
        /* The spans so far may be much smaller than the rest. */
        if (room > n * SPANS_GROWTH_MAX)
            room = n * SPANS_GROWTH_MAX;
    }
    struct span *moved = alloc(d, room, sizeof *moved, at);
    if (!moved)
        return NULL;
    if (n)
        memcpy(moved, spans->batch.spans, n * sizeof *moved);
    spans->batch.spans = moved;
    spans->room = room;
    return &moved[n];
}

static void spans_reject(struct spans *spans, const char *reason, size_t n)
{
    if (n && !spans->batch.rejected_reason)
        spans->batch.rejected_reason = reason;
    spans->batch.n_rejected += n;
}

/* Those since `mark` cannot be kept, because of what they share. */
static void spans_reject_since(struct decoder *d, struct spans *spans, size_t mark,
                               const char *reason)
{
    for (size_t i = mark; i < spans->batch.n; i++)
        rejected_add(&spans->rejected, &spans->batch.spans[i].trace_id, d->arena);
    spans_reject(spans, reason, spans->batch.n - mark);
    spans->batch.n = mark;
}

/* The reason why something shared cannot be kept; reading goes on, to count what goes with it. */
static bool take_reject(struct decoder *d, const char **reason)
{
    if (d->err)
        return false;
    *reason = d->reject;
    d->reject = NULL;
    return true;
}

static bool one_span_decode(struct decoder *d, const struct pb_field *f,
                            const struct resource *resource, const struct scope *scope,
                            struct spans *spans)
{
    if (f->n < SPAN_BYTES_MIN) {
        spans_reject(spans, "a span without ids", 1);
        return true;
    }
    struct span *next = spans_next(d, spans, f->ptr);
    if (!next)
        return false;
    if (__builtin_expect(span_decode(d, pb_from_field(f), resource, scope, next), 1)) {
        spans->batch.n++;
        return true;
    }
    const char *reason;
    if (!take_reject(d, &reason))
        return false;
    spans_reject(spans, reason, 1);
    rejected_add(&spans->rejected, &next->trace_id, d->arena);
    return true;
}

static bool scope_spans_decode(struct decoder *d, struct pb r, const struct resource *resource,
                               struct spans *spans)
{
    size_t mark = spans->batch.n;
    const char *reason = NULL;
    struct pb_field f;
    int got;
    struct scope *scope = alloc(d, 1, sizeof *scope, r.at);
    if (!scope)
        return false;
    *scope = (struct scope){.name = STR(""), .version = STR(""), .schema_url = STR("")};
    while ((got = pb_next(&r, &f)) > 0) {
        if (f.tag == SCOPE_SPANS_SPANS) {
            if (!one_span_decode(d, &f, resource, scope, spans))
                return false;
        } else if ((f.tag == SCOPE_SPANS_SCOPE && !scope_decode(d, pb_from_field(&f), scope)) ||
                   (f.tag == SCOPE_SPANS_SCHEMA_URL && !text(d, &f, &scope->schema_url))) {
            if (!take_reject(d, &reason))
                return false;
        }
    }
    if (got < 0)
        return fail(d, r.at, got);
    if (reason)
        spans_reject_since(d, spans, mark, reason);
    return true;
}

static bool resource_spans_decode(struct decoder *d, struct pb r, struct spans *spans)
{
    size_t mark = spans->batch.n;
    const char *reason = NULL;
    struct pb_field f;
    int got;
    struct resource *resource = alloc(d, 1, sizeof *resource, r.at);
    if (!resource)
        return false;
    *resource = (struct resource){.schema_url = STR("")};
    while ((got = pb_next(&r, &f)) > 0) {
        if (f.tag == RESOURCE_SPANS_SCOPE_SPANS) {
            if (!scope_spans_decode(d, pb_from_field(&f), resource, spans))
                return false;
        } else if ((f.tag == RESOURCE_SPANS_RESOURCE &&
                    !resource_decode(d, pb_from_field(&f), resource)) ||
                   (f.tag == RESOURCE_SPANS_SCHEMA_URL && !text(d, &f, &resource->schema_url))) {
            if (!take_reject(d, &reason))
                return false;
        }
    }
    if (got < 0)
        return fail(d, r.at, got);
    if (reason)
        spans_reject_since(d, spans, mark, reason);
    resource_set_service_name(resource);
    return true;
}

int otlp_decode(struct str body, struct arena *arena, struct span_batch *ret_batch,
                struct error_detail *ret_detail)
{
    struct pb r = pb_from_str(body);
    struct decoder d = {.arena = arena, .start = r.at, .end = r.end, .detail = ret_detail};
    struct spans spans = {0};
    struct pb_field f;
    int got;
    if (body.len > UINT32_MAX) /* counts in the model are of 32 bits */
        return error_set(ret_detail, ERR_TOO_LARGE, 0, "a body of more than 4 GiB");
    while ((got = pb_next(&r, &f)) > 0)
        if (f.tag == REQUEST_RESOURCE_SPANS &&
            !resource_spans_decode(&d, pb_from_field(&f), &spans))
            return d.err;
    if (got < 0) {
        fail(&d, r.at, got);
        return d.err;
    }
    *ret_batch = spans.batch;
    ret_batch->rejected = spans.rejected.ids;
    ret_batch->n_rejected_known = spans.rejected.n;
    return 0;
}

/* ---- pieces, for logs and metrics ---- */

static struct decoder pieces_begin(const struct otlp_pieces *p)
{
    return (struct decoder){
        .arena = p->arena, .start = p->start, .detail = p->detail, .err = p->err};
}

static bool pieces_end(struct otlp_pieces *p, const struct decoder *d, bool ok)
{
    p->err = d->err;
    if (d->reject && !p->reject)
        p->reject = d->reject;
    return ok;
}

bool otlp_piece_fail(struct otlp_pieces *p, const uint8_t *at, int err)
{
    struct decoder d = pieces_begin(p);
    return pieces_end(p, &d, fail(&d, at, err));
}

bool otlp_piece_reject(struct otlp_pieces *p, const char *reason)
{
    if (!p->reject)
        p->reject = reason;
    return false;
}

void *otlp_piece_array(struct otlp_pieces *p, size_t n, size_t size, const uint8_t *at)
{
    struct decoder d = pieces_begin(p);
    void *items = alloc(&d, n, size, at);
    pieces_end(p, &d, items);
    return items;
}

bool otlp_piece_text(struct otlp_pieces *p, const struct pb_field *f, struct str *ret)
{
    struct decoder d = pieces_begin(p);
    return pieces_end(p, &d, text(&d, f, ret));
}

bool otlp_piece_value(struct otlp_pieces *p, const struct pb_field *f, struct value *ret)
{
    struct decoder d = pieces_begin(p);
    return pieces_end(p, &d, value_decode(&d, pb_from_field(f), 0, ret));
}

bool otlp_piece_attrs(struct otlp_pieces *p, struct pb message, uint32_t tag, struct attrs *ret)
{
    struct decoder d = pieces_begin(p);
    return pieces_end(p, &d, attrs_append(&d, message, tag, ret));
}

bool otlp_piece_resource(struct otlp_pieces *p, const struct pb_field *f, struct resource *ret)
{
    struct decoder d = pieces_begin(p);
    return pieces_end(p, &d, resource_decode(&d, pb_from_field(f), ret));
}

bool otlp_piece_scope(struct otlp_pieces *p, const struct pb_field *f, struct scope *ret)
{
    struct decoder d = pieces_begin(p);
    return pieces_end(p, &d, scope_decode(&d, pb_from_field(f), ret));
}

bool otlp_piece_count(struct otlp_pieces *p, struct pb message, uint32_t tag, size_t *n)
{
    struct decoder d = pieces_begin(p);
    return pieces_end(p, &d, count_fields(&d, message, tag, n));
}

int otlp_decode_response(struct str body, uint64_t *ret_rejected, struct str *ret_message)
{
    struct pb r = pb_from_str(body);
    struct pb_field f, g;
    uint64_t rejected = 0;
    struct str message = STR("");
    int got;
    while ((got = pb_next(&r, &f)) > 0) {
        if (f.tag != RESPONSE_PARTIAL_SUCCESS)
            continue;
        struct pb partial = pb_from_field(&f);
        int inner;
        while ((inner = pb_next(&partial, &g)) > 0) {
            if (g.tag == PARTIAL_REJECTED_SPANS)
                rejected = (int64_t)g.n > 0 ? g.n : 0;
            else if (g.tag == PARTIAL_ERROR_MESSAGE)
                message = pb_as_str(&g);
        }
        if (inner < 0)
            return inner;
    }
    if (got < 0)
        return got;
    *ret_rejected = rejected;
    *ret_message = message;
    return 0;
}

/* ---- encoding ---- */

/* How many bytes the length of each message is expected to take; a wrong guess costs a move. */
enum { LEN_RESOURCE_SPANS = 3, LEN_SPAN = 2, LEN_SMALL = 1 };

static void put_varint_unless_zero(struct buf *b, uint32_t tag, uint64_t n)
{
    if (n)
        pb_put_varint(b, tag, n);
}

static void put_str_unless_empty(struct buf *b, uint32_t tag, struct str s)
{
    if (s.len)
        pb_put_str(b, tag, s);
}

static void attr_encode(const struct attr *attr, uint32_t tag, unsigned depth, struct buf *b);

/* A member of a oneof is written also when it is zero or empty. */
static void value_encode(const struct value *v, uint32_t tag, unsigned depth, struct buf *b)
{
    struct pb_message value = pb_open(b, tag, LEN_SMALL);
    switch (v->type) {
    case VALUE_STRING:
        pb_put_str(b, ANY_STRING, v->string);
        break;
    case VALUE_BOOL:
        pb_put_varint(b, ANY_BOOL, v->boolean);
        break;
    case VALUE_INT:
        pb_put_varint(b, ANY_INT, (uint64_t)v->integer);
        break;
    case VALUE_DOUBLE: {
        uint64_t bits;
        memcpy(&bits, &v->real, sizeof bits);
        pb_put_fixed64(b, ANY_DOUBLE, bits);
        break;
    }
    case VALUE_BYTES:
        pb_put_str(b, ANY_BYTES, v->bytes);
        break;
    case VALUE_ARRAY:
    case VALUE_MAP:
        /* Nothing that a decoder gave is deeper; a value of other making loses its depths. */
        if (depth < VALUE_DEPTH_MAX) {
            bool array = v->type == VALUE_ARRAY;
            struct pb_message list = pb_open(b, array ? ANY_ARRAY : ANY_MAP, LEN_SMALL);
            for (size_t i = 0; i < (array ? v->array.n : v->map.n); i++) {
                if (array)
                    value_encode(&v->array.items[i], LIST_VALUES, depth + 1, b);
                else
                    attr_encode(&v->map.items[i], LIST_VALUES, depth + 1, b);
            }
            pb_close(b, list);
        }
        break;
    }
    pb_close(b, value);
}

static void attr_encode(const struct attr *attr, uint32_t tag, unsigned depth, struct buf *b)
{
    struct pb_message key_value = pb_open(b, tag, LEN_SMALL);
    put_str_unless_empty(b, KEY_VALUE_KEY, attr->key);
    if (attr->value.type != VALUE_NONE)
        value_encode(&attr->value, KEY_VALUE_VALUE, depth, b);
    pb_close(b, key_value);
}

void otlp_encode_value(const struct value *v, uint32_t tag, struct buf *out)
{
    value_encode(v, tag, 0, out);
}

void otlp_encode_attrs(const struct attrs *attrs, uint32_t tag, struct buf *out)
{
    for (uint32_t i = 0; i < attrs->n; i++)
        attr_encode(&attrs->items[i], tag, 0, out);
}

static void attrs_encode(const struct attrs *attrs, uint32_t tag, uint32_t dropped_tag,
                         struct buf *b)
{
    otlp_encode_attrs(attrs, tag, b);
    put_varint_unless_zero(b, dropped_tag, attrs->dropped);
}

static void event_encode(const struct event *e, struct buf *b)
{
    struct pb_message event = pb_open(b, SPAN_EVENTS, LEN_SMALL);
    if (e->time_ns)
        pb_put_fixed64(b, EVENT_TIME, e->time_ns);
    put_str_unless_empty(b, EVENT_NAME, e->name);
    attrs_encode(&e->attrs, EVENT_ATTRIBUTES, EVENT_DROPPED, b);
    pb_close(b, event);
}

static void link_encode(const struct link *l, struct buf *b)
{
    struct pb_message link = pb_open(b, SPAN_LINKS, LEN_SMALL);
    if (!trace_id_is_zero(&l->trace_id))
        pb_put_bytes(b, LINK_TRACE_ID, l->trace_id.bytes, TRACE_ID_SIZE);
    if (!span_id_is_zero(&l->span_id))
        pb_put_bytes(b, LINK_SPAN_ID, l->span_id.bytes, SPAN_ID_SIZE);
    put_str_unless_empty(b, LINK_TRACE_STATE, l->trace_state);
    attrs_encode(&l->attrs, LINK_ATTRIBUTES, LINK_DROPPED, b);
    if (l->flags)
        pb_put_fixed32(b, LINK_FLAGS, l->flags);
    pb_close(b, link);
}

void otlp_encode_span(const struct span *s, struct buf *b)
{
    struct pb_message span = pb_open(b, SCOPE_SPANS_SPANS, LEN_SPAN);
    pb_put_bytes(b, SPAN_TRACE_ID, s->trace_id.bytes, TRACE_ID_SIZE);
    pb_put_bytes(b, SPAN_SPAN_ID, s->span_id.bytes, SPAN_ID_SIZE);
    put_str_unless_empty(b, SPAN_TRACE_STATE, s->trace_state);
    if (!span_id_is_zero(&s->parent_id))
        pb_put_bytes(b, SPAN_PARENT_ID, s->parent_id.bytes, SPAN_ID_SIZE);
    put_str_unless_empty(b, SPAN_NAME, s->name);
    put_varint_unless_zero(b, SPAN_KIND, s->kind);
    if (s->start_ns)
        pb_put_fixed64(b, SPAN_START, s->start_ns);
    if (s->end_ns)
        pb_put_fixed64(b, SPAN_END, s->end_ns);
    attrs_encode(&s->attrs, SPAN_ATTRIBUTES, SPAN_DROPPED_ATTRIBUTES, b);
    for (uint32_t i = 0; i < s->n_events; i++)
        event_encode(&s->events[i], b);
    put_varint_unless_zero(b, SPAN_DROPPED_EVENTS, s->dropped_events);
    for (uint32_t i = 0; i < s->n_links; i++)
        link_encode(&s->links[i], b);
    put_varint_unless_zero(b, SPAN_DROPPED_LINKS, s->dropped_links);
    if (s->status_code || s->status_message.len) {
        struct pb_message status = pb_open(b, SPAN_STATUS, LEN_SMALL);
        put_str_unless_empty(b, STATUS_MESSAGE, s->status_message);
        put_varint_unless_zero(b, STATUS_CODE, s->status_code);
        pb_close(b, status);
    }
    if (s->flags)
        pb_put_fixed32(b, SPAN_FLAGS, s->flags);
    pb_close(b, span);
}

void otlp_encode_resource(const struct resource *r, uint32_t tag, struct buf *b)
{
    struct pb_message resource = pb_open(b, tag, LEN_SPAN);
    attrs_encode(&r->attrs, RESOURCE_ATTRIBUTES, RESOURCE_DROPPED, b);
    pb_close(b, resource);
}

void otlp_encode_scope(const struct scope *s, uint32_t tag, struct buf *b)
{
    struct pb_message scope = pb_open(b, tag, LEN_SMALL);
    put_str_unless_empty(b, SCOPE_NAME, s->name);
    put_str_unless_empty(b, SCOPE_VERSION, s->version);
    attrs_encode(&s->attrs, SCOPE_ATTRIBUTES, SCOPE_DROPPED, b);
    pb_close(b, scope);
}

void otlp_encode(const struct span_batch *batch, struct buf *out)
{
    for (size_t i = 0; i < batch->n;) {
        const struct resource *resource = batch->spans[i].resource;
        struct pb_message resource_spans = pb_open(out, REQUEST_RESOURCE_SPANS, LEN_RESOURCE_SPANS);
        otlp_encode_resource(resource, RESOURCE_SPANS_RESOURCE, out);
        while (i < batch->n && batch->spans[i].resource == resource) {
            const struct scope *scope = batch->spans[i].scope;
            struct pb_message scope_spans = pb_open(out, RESOURCE_SPANS_SCOPE_SPANS,
                                                    LEN_RESOURCE_SPANS);
            otlp_encode_scope(scope, SCOPE_SPANS_SCOPE, out);
            for (; i < batch->n && batch->spans[i].resource == resource &&
                   batch->spans[i].scope == scope;
                 i++)
                otlp_encode_span(&batch->spans[i], out);
            put_str_unless_empty(out, SCOPE_SPANS_SCHEMA_URL, scope->schema_url);
            pb_close(out, scope_spans);
        }
        put_str_unless_empty(out, RESOURCE_SPANS_SCHEMA_URL, resource->schema_url);
        pb_close(out, resource_spans);
    }
}

struct otlp_request otlp_encode_open(const struct resource *resource, const struct scope *scope,
                                     struct buf *out)
{
    struct otlp_request r;
    r.resource_spans = pb_open(out, REQUEST_RESOURCE_SPANS, LEN_RESOURCE_SPANS).body;
    otlp_encode_resource(resource, RESOURCE_SPANS_RESOURCE, out);
    r.scope_spans = pb_open(out, RESOURCE_SPANS_SCOPE_SPANS, LEN_RESOURCE_SPANS).body;
    otlp_encode_scope(scope, SCOPE_SPANS_SCOPE, out);
    return r;
}

void otlp_encode_close(struct otlp_request r, const struct resource *resource,
                       const struct scope *scope, struct buf *out)
{
    put_str_unless_empty(out, SCOPE_SPANS_SCHEMA_URL, scope->schema_url);
    pb_close(out, (struct pb_message){r.scope_spans, LEN_RESOURCE_SPANS});
    put_str_unless_empty(out, RESOURCE_SPANS_SCHEMA_URL, resource->schema_url);
    pb_close(out, (struct pb_message){r.resource_spans, LEN_RESOURCE_SPANS});
}

void otlp_encode_response(uint64_t n_rejected, struct str message, struct buf *out)
{
    if (!n_rejected && !message.len)
        return;
    struct pb_message partial = pb_open(out, RESPONSE_PARTIAL_SUCCESS, LEN_SMALL);
    put_varint_unless_zero(out, PARTIAL_REJECTED_SPANS, n_rejected);
    put_str_unless_empty(out, PARTIAL_ERROR_MESSAGE, message);
    pb_close(out, partial);
}

void otlp_encode_status(int32_t code, struct str message, struct buf *out)
{
    put_varint_unless_zero(out, RPC_STATUS_CODE, (uint64_t)(int64_t)code);
    put_str_unless_empty(out, RPC_STATUS_MESSAGE, message);
}
