/* Whole traces as Zipkin's clients know them: the reverse of what zipkin_span.c does to spans that come in.
 *
 * A server's half of a shared span is found by its id, which zipkin_server_id makes of the client's: no other span has it
 * but by a chance of one in 2^64. Spans below it go back to the shared id. */
#include "wire/zipkin.h"

#include "wire/zipkin_put.h"
#include "wire/zipkin_span.h"

#include <arpa/inet.h>
#include <stdlib.h>

struct half {
    struct span_id own, shared, parent; /* the last: of the client's half */
};

struct halves {
    struct half *items;
    size_t n;
};

static int by_own(const void *a, const void *b)
{
    const struct half *x = a, *y = b;
    return memcmp(x->own.bytes, y->own.bytes, SPAN_ID_SIZE);
}

static int by_span_id(const void *a, const void *b)
{
    const struct span *const *x = a, *const *y = b;
    return memcmp((*x)->span_id.bytes, (*y)->span_id.bytes, SPAN_ID_SIZE);
}

static bool is_half(const struct span *s)
{
    if (s->kind != SPAN_KIND_SERVER || span_id_is_zero(&s->parent_id))
        return false;
    struct span_id id = zipkin_server_id(&s->trace_id, &s->parent_id);
    return !memcmp(id.bytes, s->span_id.bytes, SPAN_ID_SIZE);
}

static int halves_find(const struct span_batch *trace, struct arena *scratch, struct halves *ret)
{
    size_t n = 0;
    for (size_t i = 0; i < trace->n; i++)
        n += is_half(&trace->spans[i]);
    *ret = (struct halves){.items = NULL};
    if (!n)
        return 0;
    const struct span **sorted = arena_array(scratch, trace->n, sizeof *sorted);
    ret->items = arena_array(scratch, n, sizeof *ret->items);
    if (!sorted || !ret->items)
        return ERR_NOMEM;
    for (size_t i = 0; i < trace->n; i++)
        sorted[i] = &trace->spans[i];
    qsort(sorted, trace->n, sizeof *sorted, by_span_id);
    for (size_t i = 0; i < trace->n; i++) {
        const struct span *s = &trace->spans[i];
        if (!is_half(s))
            continue;
        const struct span key = {.span_id = s->parent_id}, *wanted = &key;
        const struct span **client = bsearch(&wanted, sorted, trace->n, sizeof *sorted, by_span_id);
        ret->items[ret->n++] = (struct half){
            .own = s->span_id,
            .shared = s->parent_id,
            .parent = client ? (*client)->parent_id : (struct span_id){{0}},
        };
    }
    qsort(ret->items, ret->n, sizeof *ret->items, by_own);
    return 0;
}

static const struct half *half_of(const struct halves *halves, const struct span_id *own)
{
    const struct half key = {.own = *own};
    return halves->n ? bsearch(&key, halves->items, halves->n, sizeof key, by_own) : NULL;
}

/* ---- endpoints ---- */

/* The attributes that zipkin_end_span makes of endpoints. */
enum { PEER_SERVICE, PEER_ADDRESS, PEER_PORT, LOCAL_ADDRESS, LOCAL_PORT, DEBUG, TAKEN_N };

static int taken_index(struct str key)
{
    static const struct str keys[TAKEN_N] = {
        [PEER_SERVICE] = {"peer.service", 12},     [PEER_ADDRESS] = {"network.peer.address", 20},
        [PEER_PORT] = {"network.peer.port", 17},   [LOCAL_ADDRESS] = {"network.local.address", 21},
        [LOCAL_PORT] = {"network.local.port", 18}, [DEBUG] = {"zipkin.debug", 12},
    };
    for (int i = 0; i < TAKEN_N; i++)
        if (str_eq(key, keys[i]))
            return i;
    return -1;
}

static void endpoint_put(struct json_writer *w, const char *key, struct str service,
                         const struct value *address, const struct value *port)
{
    char text[INET6_ADDRSTRLEN];
    unsigned char bytes[16];
    json_key(w, str_from(key));
    json_open(w, '{');
    if (service.len) {
        json_key(w, STR("serviceName"));
        json_str(w, service);
    }
    if (address && address->type == VALUE_STRING && address->string.len < sizeof text) {
        memcpy(text, address->string.ptr, address->string.len);
        text[address->string.len] = '\0';
        bool is_v4 = inet_pton(AF_INET, text, bytes) == 1;
        if (is_v4 || inet_pton(AF_INET6, text, bytes) == 1) {
            json_key(w, is_v4 ? STR("ipv4") : STR("ipv6"));
            json_str(w, address->string);
        }
    }
    if (port && port->type == VALUE_INT && port->integer > 0 && port->integer <= UINT16_MAX) {
        json_key(w, STR("port"));
        json_i64(w, port->integer);
    }
    json_close(w, '}');
}

static void endpoints_put(struct json_writer *w, const struct span *s,
                          const struct value *const taken[TAKEN_N])
{
    endpoint_put(w, "localEndpoint", s->resource->service_name, taken[LOCAL_ADDRESS],
                 taken[LOCAL_PORT]);
    const struct value *service = taken[PEER_SERVICE];
    bool has_service = service && service->type == VALUE_STRING;
    if (has_service || taken[PEER_ADDRESS])
        endpoint_put(w, "remoteEndpoint", has_service ? service->string : STR_NONE,
                     taken[PEER_ADDRESS], taken[PEER_PORT]);
    else if (s->kind == SPAN_KIND_CLIENT || s->kind == SPAN_KIND_PRODUCER)
        zipkin__remote_put(w, s);
}

/* ---- spans ---- */

static void trace_id_put(struct json_writer *w, const struct trace_id *id)
{
    static const uint8_t zeros[SPAN_ID_SIZE];
    size_t skip = memcmp(id->bytes, zeros, sizeof zeros) ? 0 : sizeof zeros;
    json_key(w, STR("traceId"));
    json_hex(w, id->bytes + skip, TRACE_ID_SIZE - skip);
}

static int span_put(struct json_writer *w, const struct halves *halves, struct span s,
                    struct arena *scratch, struct buf *text)
{
    static const char *const kinds[] = {[SPAN_KIND_SERVER] = "SERVER",
                                        [SPAN_KIND_CLIENT] = "CLIENT",
                                        [SPAN_KIND_PRODUCER] = "PRODUCER",
                                        [SPAN_KIND_CONSUMER] = "CONSUMER"};
    const struct value *taken[TAKEN_N] = {NULL};
    struct attr *rest = arena_array(scratch, s.attrs.n, sizeof *rest);
    if (!rest)
        return ERR_NOMEM;
    uint32_t n = 0;
    for (uint32_t i = 0; i < s.attrs.n; i++) {
        int at = taken_index(s.attrs.items[i].key);
        if (at >= 0)
            taken[at] = &s.attrs.items[i].value;
        else
            rest[n++] = s.attrs.items[i];
    }
    s.attrs.items = rest;
    s.attrs.n = n;
    const struct half *self = half_of(halves, &s.span_id), *above = half_of(halves, &s.parent_id);
    struct span_id parent = self ? self->parent : above ? above->shared : s.parent_id;
    uint64_t duration = span_duration_ns(&s) / NS_PER_US;
    json_open(w, '{');
    trace_id_put(w, &s.trace_id);
    if (!span_id_is_zero(&parent)) {
        json_key(w, STR("parentId"));
        json_hex(w, parent.bytes, SPAN_ID_SIZE);
    }
    json_key(w, STR("id"));
    json_hex(w, (self ? &self->shared : &s.span_id)->bytes, SPAN_ID_SIZE);
    if (s.kind <= SPAN_KIND_CONSUMER && kinds[s.kind]) {
        json_key(w, STR("kind"));
        json_str(w, str_from(kinds[s.kind]));
    }
    json_key(w, STR("name"));
    json_str(w, s.name);
    json_key(w, STR("timestamp"));
    json_u64(w, s.start_ns / NS_PER_US);
    json_key(w, STR("duration")); /* 0 would say that it is not known */
    json_u64(w, duration ? duration : 1);
    endpoints_put(w, &s, taken);
    if (s.n_events)
        zipkin__annotations_put(w, &s, text);
    zipkin__tags_put(w, &s, text);
    if (taken[DEBUG]) {
        json_key(w, STR("debug"));
        json_bool(w, true);
    }
    if (self) {
        json_key(w, STR("shared"));
        json_bool(w, true);
    }
    json_close(w, '}');
    return 0;
}

int zipkin_json_encode_trace(const struct span_batch *trace, struct arena *scratch,
                             struct json_writer *w)
{
    struct halves halves;
    struct buf text = BUF_INIT;
    int err = halves_find(trace, scratch, &halves);
    json_open(w, '[');
    for (size_t i = 0; !err && i < trace->n && buf_ok(w->out); i++)
        err = span_put(w, &halves, trace->spans[i], scratch, &text);
    json_close(w, ']');
    if (!err && !buf_ok(&text))
        err = ERR_NOMEM;
    buf_done(&text);
    return err;
}
