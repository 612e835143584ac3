#include "sdk/handover.h"

#include "sdk/options.h"
#include "sdk/propagate.h"
#include "sdk/span.h"

#include <stdatomic.h>

#define RING_WORDS (PUG_CAPTURE_BYTES / 8)
#define INLINE_MAX sizeof(((struct pug_capture *)0)->pug__u.tracestate)

_Static_assert(sizeof(struct pug_capture) == 64, "it is to be small");
_Static_assert((RING_WORDS & (RING_WORDS - 1)) == 0, "places are masked");

static __thread struct pug__ambient ambient __attribute__((tls_model("initial-exec")));

static _Atomic uint64_t ring[RING_WORDS];
static _Atomic uint64_t ring_head = 1; /* a place of 0 is none */
static _Atomic uint64_t n_lost;

/* ---- the store of captures ---- */

static size_t words_of(size_t bytes)
{
    return (bytes + 7) / 8;
}

static uint64_t ring_put(uint64_t at, struct str s)
{
    for (size_t i = 0; i < s.len; i += 8) {
        uint64_t word = 0;
        memcpy(&word, s.ptr + i, s.len - i < 8 ? s.len - i : 8);
        atomic_store_explicit(&ring[at++ & (RING_WORDS - 1)], word, memory_order_relaxed);
    }
    return at;
}

static uint64_t ring_write(const struct str parts[3])
{
    size_t words = 1 + words_of(parts[0].len) + words_of(parts[1].len) + words_of(parts[2].len);
    uint64_t at = atomic_fetch_add_explicit(&ring_head, words, memory_order_relaxed);
    /* Pairs with the fence in ring_read: who sees one of the words below sees the new head. */
    atomic_thread_fence(memory_order_release);
    uint64_t next = at + 1;
    for (int i = 0; i < 3; i++)
        next = ring_put(next, parts[i]);
    atomic_store_explicit(&ring[at & (RING_WORDS - 1)], at, memory_order_release);
    return at;
}

/* `skip` words after the first one, then `len` bytes. False: they have been overwritten. */
static bool ring_read(uint64_t at, size_t skip, size_t len, char *out)
{
    if (atomic_load_explicit(&ring[at & (RING_WORDS - 1)], memory_order_acquire) != at)
        return false;
    for (size_t i = 0; i < len; i += 8) {
        uint64_t word = atomic_load_explicit(&ring[(at + 1 + skip + i / 8) & (RING_WORDS - 1)],
                                             memory_order_relaxed);
        memcpy(out + i, &word, len - i < 8 ? len - i : 8);
    }
    atomic_thread_fence(memory_order_acquire);
    return atomic_load_explicit(&ring_head, memory_order_relaxed) - at <= RING_WORDS;
}

static void count_lost(void)
{
    atomic_fetch_add_explicit(&n_lost, 1, memory_order_relaxed);
}

uint64_t captures_lost(void)
{
    return atomic_load_explicit(&n_lost, memory_order_relaxed);
}

/* ---- what is current beside the trace ---- */

struct pug__ambient pug__baggage_begin(const struct pug_baggage *baggage)
{
    struct pug__ambient before = ambient;
    ambient.baggage = baggage;
    ambient.kept_baggage_len = 0;
    return before;
}

struct pug__ambient pug__request_id_begin(const char *id)
{
    struct pug__ambient before = ambient;
    ambient.request_id = id;
    ambient.kept_request_id_len = 0;
    return before;
}

void pug__ambient_restore(struct pug__ambient *before)
{
    ambient = *before;
}

struct str ambient_baggage(char buffer[PUG_BAGGAGE_BYTES_MAX + 1])
{
    const struct pug_baggage *b = ambient.baggage;
    if (b)
        return b->len && b->len <= PUG_BAGGAGE_BYTES_MAX ? (struct str){b->text, b->len} : STR_NONE;
    size_t len = ambient.kept_baggage_len;
    if (!len || len > PUG_BAGGAGE_BYTES_MAX)
        return STR_NONE;
    if (!ring_read(ambient.kept_at, ambient.kept_baggage_skip, len, buffer)) {
        ambient.kept_baggage_len = 0;
        count_lost();
        return STR_NONE;
    }
    buffer[len] = '\0';
    return (struct str){buffer, len};
}

struct str ambient_request_id(char buffer[PUG_REQUEST_ID_MAX + 1])
{
    if (ambient.request_id) {
        struct str id = {ambient.request_id, strnlen(ambient.request_id, PUG_REQUEST_ID_MAX + 1)};
        return request_id_is_valid(id) ? id : STR_NONE;
    }
    size_t len = ambient.kept_request_id_len;
    if (!len || len > PUG_REQUEST_ID_MAX)
        return STR_NONE;
    if (!ring_read(ambient.kept_at, ambient.kept_request_id_skip, len, buffer)) {
        ambient.kept_request_id_len = 0;
        count_lost();
        return STR_NONE;
    }
    buffer[len] = '\0';
    return (struct str){buffer, len};
}

/* Apart, so that an inject without baggage does not pay for 8 KiB of stack. */
static __attribute__((noinline)) void baggage_inject(unsigned formats, pug_carrier_set *set,
                                                     void *carrier)
{
    char buffer[PUG_BAGGAGE_BYTES_MAX + 1];
    struct str text = ambient_baggage(buffer);
    if (!text.len)
        return;
    if (formats & PROPAGATE_BAGGAGE)
        set(carrier, "baggage", text.ptr);
    if (formats & PROPAGATE_JAEGER)
        baggage_inject_jaeger(text, set, carrier);
}

void ambient_inject(unsigned formats, pug_carrier_set *set, void *carrier)
{
    if (ambient.baggage || ambient.kept_baggage_len)
        baggage_inject(formats, set, carrier);
    if ((formats & PROPAGATE_REQUEST_ID) && (ambient.request_id || ambient.kept_request_id_len)) {
        char buffer[PUG_REQUEST_ID_MAX + 1];
        struct str id = ambient_request_id(buffer);
        if (id.len)
            set(carrier, "X-Request-ID", id.ptr);
    }
}

/* ---- captures ---- */

static __attribute__((noinline)) void capture_ambient(struct pug_capture *c, struct str state)
{
    char baggage[PUG_BAGGAGE_BYTES_MAX + 1], id[PUG_REQUEST_ID_MAX + 1];
    struct str parts[3] = {state, ambient_baggage(baggage), ambient_request_id(id)};
    c->pug__baggage_len = (uint16_t)parts[1].len;
    c->pug__request_id_len = (uint16_t)parts[2].len;
    if (parts[1].len || parts[2].len || state.len > INLINE_MAX)
        c->pug__u.pug__kept_at = ring_write(parts);
}

static bool is_inline(const struct pug_capture *c)
{
    return !c->pug__baggage_len && !c->pug__request_id_len && c->tracestate_len <= INLINE_MAX;
}

struct pug_capture pug_capture_current(void)
{
    struct pug_context context;
    struct pug_capture c;
    memset(&c, 0, sizeof c);
    span_current_context(&context);
    memcpy(c.trace_id, context.trace_id, sizeof c.trace_id);
    memcpy(c.span_id, context.span_id, sizeof c.span_id);
    c.flags = context.flags;
    c.remote = context.remote;
    c.tracestate_len = context.tracestate_len;
    if (ambient.baggage || ambient.request_id || ambient.kept_baggage_len ||
        ambient.kept_request_id_len || c.tracestate_len > INLINE_MAX)
        capture_ambient(&c, (struct str){context.tracestate, context.tracestate_len});
    if (is_inline(&c))
        memcpy(c.pug__u.tracestate, context.tracestate, c.tracestate_len);
    return c;
}

int pug_capture_context(const struct pug_capture *capture, struct pug_context *ret_context)
{
    struct pug_context *c = ret_context;
    span_context_clear(c);
    if (!capture)
        return 0;
    memcpy(c->trace_id, capture->trace_id, sizeof c->trace_id);
    memcpy(c->span_id, capture->span_id, sizeof c->span_id);
    c->flags = capture->flags;
    c->remote = capture->remote;
    if (!pug_context_valid(c) || capture->tracestate_len > PUG_TRACESTATE_MAX) {
        span_context_clear(c);
        return 0;
    }
    if (is_inline(capture))
        memcpy(c->tracestate, capture->pug__u.tracestate, capture->tracestate_len);
    else if (!ring_read(capture->pug__u.pug__kept_at, 0, capture->tracestate_len, c->tracestate)) {
        count_lost();
        return 1;
    }
    c->tracestate_len = capture->tracestate_len;
    return 1;
}

struct pug__resumed pug__resume(const struct pug_capture *capture)
{
    struct pug__resumed r = {.slot = NULL, .before = ambient};
    struct pug_context context;
    if (!capture)
        return r;
    if (pug_capture_context(capture, &context))
        r.slot = pug__attach(&context);
    bool kept = !is_inline(capture);
    ambient = (struct pug__ambient){
        .kept_at = kept ? capture->pug__u.pug__kept_at : 0,
        .kept_baggage_len = kept ? capture->pug__baggage_len : 0,
        .kept_request_id_len = kept ? capture->pug__request_id_len : 0,
        .kept_baggage_skip = (uint16_t)words_of(capture->tracestate_len),
        .kept_request_id_skip =
            (uint16_t)(words_of(capture->tracestate_len) + words_of(capture->pug__baggage_len)),
    };
    return r;
}

void pug__resumed_end(struct pug__resumed *resumed)
{
    ambient = resumed->before;
    if (resumed->slot)
        pug__detach(resumed->slot);
}
