/* The context crosses a process in headers: those of the formats that are chosen.
 *
 * Out go all of them. In counts the first that names a parent, in this order:
 *
 *     traceparent, b3, X-B3-TraceId, uber-trace-id, X-Amzn-Trace-Id
 *
 * A damaged one is passed over (and counted), as if it were not there: when no other is, the trace
 * begins anew. */
#include "sdk/propagate.h"

#include "base/clock.h"
#include "base/hash.h"
#include "sdk/b3.h"
#include "sdk/handover.h"
#include "sdk/jaeger_context.h"
#include "sdk/options.h"
#include "sdk/span.h"
#include "sdk/w3c.h"
#include "sdk/xray_context.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/random.h>
#include <unistd.h>

static _Atomic unsigned chosen_formats = PROPAGATE_DEFAULT;
static _Atomic uint64_t n_damaged;

unsigned propagators(void)
{
    return atomic_load_explicit(&chosen_formats, memory_order_relaxed);
}

void propagators_use(unsigned chosen)
{
    atomic_store_explicit(&chosen_formats, chosen, memory_order_relaxed);
}

uint64_t propagate_damaged(void)
{
    return atomic_load_explicit(&n_damaged, memory_order_relaxed);
}

void propagate_count_damaged(void)
{
    atomic_fetch_add_explicit(&n_damaged, 1, memory_order_relaxed);
}

/* ---- what formats share ---- */

bool id_is_zero(const uint8_t *id, size_t n)
{
    uint8_t all = 0;
    for (size_t i = 0; i < n; i++)
        all |= id[i];
    return all == 0;
}

bool id_parse_short(struct str hex, uint8_t *ret, size_t n)
{
    char digits[32];
    if (hex.len == 0 || hex.len > 2 * n || 2 * n > sizeof digits)
        return false;
    memset(digits, '0', 2 * n);
    memcpy(digits + 2 * n - hex.len, hex.ptr, hex.len);
    return hex_get(ret, (struct str){digits, 2 * n}, n) && !id_is_zero(ret, n);
}

void random_bytes(uint8_t *out, size_t n)
{
    static _Atomic uint64_t counter;
    int errno_before = errno;
    if (getrandom(out, n, GRND_NONBLOCK) != (ssize_t)n) {
        /* Before the machine has gathered entropy: place, time and count are ours alone. */
        uint64_t word = clock_realtime_ns() ^ (uint64_t)getpid() << 40;
        for (size_t i = 0; i < n; i++) {
            if (i % 8 == 0)
                word = hash_mix64(word + clock_monotonic_ns() +
                                  atomic_fetch_add(&counter, 1) * UINT64_C(0x9e3779b97f4a7c15));
            out[i] = (uint8_t)(word >> i % 8 * 8);
        }
    }
    errno = errno_before;
}

void context_denied(struct pug_context *ret_context)
{
    uint8_t ids[24];
    random_bytes(ids, sizeof ids);
    ids[0] |= 1; /* not zero */
    ids[16] |= 1;
    span_context_clear(ret_context);
    memcpy(ret_context->trace_id, ids, 16);
    memcpy(ret_context->span_id, ids + 16, 8);
    ret_context->flags = 0;
    ret_context->remote = 1;
}

void context_set_debug(struct pug_context *context)
{
    w3c_tracestate_set(context, DEBUG_KEY, DEBUG_VALUE);
}

bool context_is_debug(const struct pug_context *context)
{
    return context->tracestate_len && (context->flags & PUG_FLAG_SAMPLED) &&
           str_eq(w3c_tracestate_get(context, DEBUG_KEY), DEBUG_VALUE);
}

/* ---- out ---- */

static void w3c_inject(const struct pug_context *context, pug_carrier_set *set, void *carrier)
{
    char text[PUG_TRACESTATE_MAX + 1];
    w3c_traceparent_put(context, text);
    set(carrier, "traceparent", text);
    size_t len = context->tracestate_len;
    if (len && len <= PUG_TRACESTATE_MAX) {
        memcpy(text, context->tracestate, len);
        text[len] = '\0';
        set(carrier, "tracestate", text);
    }
}

static void b3_multi_inject(const struct pug_context *context, pug_carrier_set *set, void *carrier)
{
    char id[33];
    pug_trace_id_hex(context, id);
    set(carrier, "X-B3-TraceId", id);
    pug_span_id_hex(context, id);
    set(carrier, "X-B3-SpanId", id);
    if (context_is_debug(context)) /* which implies the decision: not both */
        set(carrier, "X-B3-Flags", "1");
    else
        set(carrier, "X-B3-Sampled", context->flags & PUG_FLAG_SAMPLED ? "1" : "0");
}

/* Those that are seldom chosen. */
static void others_inject(unsigned formats, const struct pug_context *context, pug_carrier_set *set,
                          void *carrier)
{
    char text[XRAY_CONTEXT_MAX + 1];
    _Static_assert(XRAY_CONTEXT_MAX > B3_MAX && XRAY_CONTEXT_MAX > JAEGER_CONTEXT_MAX,
                   "the longest");
    if (formats & PROPAGATE_B3) {
        b3_put(context, text);
        set(carrier, "b3", text);
    }
    if (formats & PROPAGATE_B3_MULTI)
        b3_multi_inject(context, set, carrier);
    if (formats & PROPAGATE_JAEGER) {
        jaeger_context_put(context, text);
        set(carrier, "uber-trace-id", text);
    }
    if (formats & PROPAGATE_XRAY) {
        xray_context_put(context, text);
        set(carrier, "X-Amzn-Trace-Id", text);
    }
}

#define PROPAGATE_OTHERS (PROPAGATE_B3 | PROPAGATE_B3_MULTI | PROPAGATE_JAEGER | PROPAGATE_XRAY)

void pug_inject(const struct pug_context *context, pug_carrier_set *set, void *carrier)
{
    struct pug_context current;
    unsigned formats = propagators();
    if (!context) {
        span_current_context(&current);
        context = &current;
    }
    if (pug_context_valid(context)) {
        if (formats & PROPAGATE_TRACECONTEXT)
            w3c_inject(context, set, carrier);
        if (formats & PROPAGATE_OTHERS)
            others_inject(formats, context, set, carrier);
    }
    ambient_inject(formats, set, carrier);
}

/* ---- in ---- */

bool carrier_get(pug_carrier_get *get, void *carrier, const char *name, size_t nth, struct str *ret)
{
    size_t len = SIZE_MAX;
    const char *value = get(carrier, name, nth, &len);
    if (!value) {
        *ret = STR_NONE;
        return false;
    }
    *ret = (struct str){value, len == SIZE_MAX ? strlen(value) : len};
    return true;
}

/* The only header of that name: of two nobody knows which one is right. FOUND_CONTEXT: there it is. */
static enum found only_header(pug_carrier_get *get, void *carrier, const char *name,
                              struct str *ret)
{
    struct str second;
    if (!carrier_get(get, carrier, name, 0, ret))
        return FOUND_NONE;
    return carrier_get(get, carrier, name, 1, &second) ? FOUND_DAMAGED : FOUND_CONTEXT;
}

static enum found w3c_extract(pug_carrier_get *get, void *carrier, struct pug_context *ret_context)
{
    struct str value;
    enum found found = only_header(get, carrier, "traceparent", &value);
    if (found != FOUND_CONTEXT)
        return found;
    if (!w3c_traceparent_parse(value, ret_context))
        return FOUND_DAMAGED;
    struct w3c_tracestate state;
    w3c_tracestate_init(&state);
    /* 3.3: "failure to parse tracestate MUST NOT affect the parsing of traceparent" */
    for (size_t nth = 0; nth < W3C_MEMBERS_MAX; nth++) {
        if (!carrier_get(get, carrier, "tracestate", nth, &value))
            break;
        w3c_tracestate_add(&state, value);
    }
    w3c_tracestate_put(&state, ret_context);
    return FOUND_CONTEXT;
}

static enum found b3_multi_extract(pug_carrier_get *get, void *carrier,
                                   struct pug_context *ret_context)
{
    static const char *const names[] = {"X-B3-TraceId", "X-B3-SpanId", "X-B3-Sampled",
                                        "X-B3-Flags"};
    struct str values[4];
    for (int i = 0; i < 4; i++)
        if (only_header(get, carrier, names[i], &values[i]) == FOUND_DAMAGED)
            return FOUND_DAMAGED;
    return b3_multi_parse(values[0], values[1], values[2], values[3], ret_context);
}

static enum found single_extract(pug_carrier_get *get, void *carrier, const char *name,
                                 enum found (*parse)(struct str text, struct pug_context *ret),
                                 struct pug_context *ret_context)
{
    struct str value;
    enum found found = only_header(get, carrier, name, &value);
    return found == FOUND_CONTEXT ? parse(value, ret_context) : found;
}

static enum found extract_one(enum propagator format, pug_carrier_get *get, void *carrier,
                              struct pug_context *ret_context)
{
    switch (format) {
    case PROPAGATE_TRACECONTEXT:
        return w3c_extract(get, carrier, ret_context);
    case PROPAGATE_B3:
        return single_extract(get, carrier, "b3", b3_parse, ret_context);
    case PROPAGATE_B3_MULTI:
        return b3_multi_extract(get, carrier, ret_context);
    case PROPAGATE_JAEGER:
        return single_extract(get, carrier, "uber-trace-id", jaeger_context_parse, ret_context);
    case PROPAGATE_XRAY:
        return single_extract(get, carrier, "X-Amzn-Trace-Id", xray_context_parse, ret_context);
    default:
        return FOUND_NONE;
    }
}

int pug_extract(pug_carrier_get *get, void *carrier, struct pug_context *ret_context)
{
    static const enum propagator order[] = {PROPAGATE_TRACECONTEXT, PROPAGATE_B3,
                                            PROPAGATE_B3_MULTI, PROPAGATE_JAEGER, PROPAGATE_XRAY};
    unsigned formats = propagators();
    span_context_clear(ret_context);
    for (size_t i = 0; i < sizeof order / sizeof order[0]; i++) {
        if (!(formats & order[i]))
            continue;
        switch (extract_one(order[i], get, carrier, ret_context)) {
        case FOUND_CONTEXT:
            return 1;
        case FOUND_DAMAGED:
            propagate_count_damaged();
            break;
        case FOUND_NONE:
            break;
        }
    }
    return 0;
}
