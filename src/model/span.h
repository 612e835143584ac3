/* The few structs that everything passes around: OpenTelemetry's data model and words.
 *
 * A decoded span borrows: its strings point into the buffer it was decoded from, its arrays into
 * the arena the decoder was given. It lives as long as both. Whoever keeps it longer copies it.
 *
 * Source: opentelemetry-proto 1.x, trace/v1/trace.proto, common/v1/common.proto, resource/v1. */
#ifndef MODEL_SPAN_H
#define MODEL_SPAN_H

#include "base/str.h"

/* The numbers are those of the oneof in OTLP's AnyValue. */
enum value_type {
    VALUE_NONE = 0,
    VALUE_STRING = 1,
    VALUE_BOOL = 2,
    VALUE_INT = 3,
    VALUE_DOUBLE = 4,
    VALUE_ARRAY = 5,
    VALUE_MAP = 6,
    VALUE_BYTES = 7,
};

struct attr;

struct value {
    uint8_t type; /* enum value_type */
    union {
        struct str string;
        struct str bytes;
        bool boolean;
        int64_t integer;
        double real;
        struct {
            const struct value *items;
            size_t n;
        } array;
        struct {
            const struct attr *items;
            size_t n;
        } map;
    };
};

struct attr {
    struct str key;
    struct value value;
};

struct attrs {
    const struct attr *items;
    uint32_t n;
    uint32_t dropped; /* as reported by the sender */
};

/* How deep arrays and maps may nest; a decoder refuses what is deeper. */
#define VALUE_DEPTH_MAX 32

#define TRACE_ID_SIZE 16
#define SPAN_ID_SIZE 8

struct trace_id {
    uint8_t bytes[TRACE_ID_SIZE];
};

struct span_id {
    uint8_t bytes[SPAN_ID_SIZE];
};

struct resource {
    struct attrs attrs;
    struct str schema_url;
    struct str service_name; /* of attribute service.name, or "unknown_service" */
};

struct scope {
    struct str name, version;
    struct attrs attrs;
    struct str schema_url;
};

struct event {
    uint64_t time_ns;
    struct str name;
    struct attrs attrs;
};

struct link {
    struct trace_id trace_id;
    struct span_id span_id;
    uint32_t flags;
    struct str trace_state;
    struct attrs attrs;
};

enum span_kind {
    SPAN_KIND_UNSPECIFIED,
    SPAN_KIND_INTERNAL,
    SPAN_KIND_SERVER,
    SPAN_KIND_CLIENT,
    SPAN_KIND_PRODUCER,
    SPAN_KIND_CONSUMER,
};

enum status_code { STATUS_UNSET, STATUS_OK, STATUS_ERROR };

struct span {
    struct trace_id trace_id;
    struct span_id span_id;
    struct span_id parent_id;  /* zeros: a root */
    uint64_t start_ns, end_ns; /* since the epoch */
    struct str name;
    struct str trace_state;
    struct str status_message;
    uint32_t flags;      /* low byte: W3C trace flags; bits 8 and 9: whether the parent is remote */
    uint8_t kind;        /* enum span_kind; what is out of range is SPAN_KIND_UNSPECIFIED */
    uint8_t status_code; /* enum status_code */
    struct attrs attrs;
    const struct event *events;
    uint32_t n_events, dropped_events;
    const struct link *links;
    uint32_t n_links, dropped_links;
    const struct resource *resource; /* never NULL */
    const struct scope *scope;       /* never NULL */
};

/* Spans that came together. Neighbours that share resource or scope share the pointer. */
struct span_batch {
    struct span *spans;
    size_t n;
    /* What a decoder left out because it cannot be kept (an id of zeros, say), for the protocol's
     * partial success. */
    size_t n_rejected;
    const char *rejected_reason; /* of the first; NULL when there is none */
    /* The traces of those of them whose ids could be read; at most SPAN_REJECTED_MAX. */
    const struct trace_id *rejected;
    uint32_t n_rejected_known;
};
#define SPAN_REJECTED_MAX 64

static inline bool trace_id_is_zero(const struct trace_id *id)
{
    uint64_t w[2];
    memcpy(w, id->bytes, sizeof w);
    return (w[0] | w[1]) == 0;
}
static inline bool span_id_is_zero(const struct span_id *id)
{
    uint64_t w;
    memcpy(&w, id->bytes, sizeof w);
    return w == 0;
}
static inline int trace_id_cmp(const struct trace_id *a, const struct trace_id *b)
{
    return memcmp(a->bytes, b->bytes, TRACE_ID_SIZE);
}
/* 0 when the end lies before the start. */
static inline uint64_t span_duration_ns(const struct span *s)
{
    return s->end_ns > s->start_ns ? s->end_ns - s->start_ns : 0;
}

/* 1 to 32 hexadecimal digits in either case, padded with zeros on the left (some clients strip
 * them), dashes passed over. */
bool trace_id_parse(struct str hex, struct trace_id *ret);
bool span_id_parse(struct str hex, struct span_id *ret); /* 1 to 16 digits */

/* "SERVER" and the like, as in OTLP's enum without its prefix; "UNSPECIFIED" for what is unknown.
 */
const char *span_kind_name(unsigned kind);
/* Jaeger's words: "server", ..., "" for unspecified. */
const char *span_kind_tag(unsigned kind);
bool span_kind_parse(struct str name, uint8_t *ret); /* either form, any case */

const struct attr *attrs_find(const struct attrs *attrs, struct str key);
bool value_eq(const struct value *a, const struct value *b);
/* What makes a resource the same wherever and whenever it was sent: its attributes with their types, in any order.
 * docs/formats/fingerprint.md has it to the byte. Never changes. */
uint64_t resource_fingerprint(const struct resource *r);
#define FINGERPRINT_DIGITS 16

/* An attribute of a resource: as it was sent, or RESOURCE_FINGERPRINT, which stands for the fingerprint in queries and
 * lives in `derived`. NULL: there is none. */
#define RESOURCE_FINGERPRINT "pugmark.fingerprint"
struct resource_derived {
    struct attr attr;
    char text[FINGERPRINT_DIGITS];
};
const struct attr *resource_attr_find(const struct resource *r, struct str key,
                                      struct resource_derived *derived);
/* Sets service_name from the attributes. */
void resource_set_service_name(struct resource *r);

#endif
