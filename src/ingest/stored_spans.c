#include "ingest/stored_spans.h"

#include "base/hash.h"

#include <stdlib.h>

struct stored_slot {
    struct trace_id trace_id; /* zeros: free */
    struct span_id span_id;
};

static const struct span_id the_trace = {.bytes = {0}};

static struct stored_slot *slot_of(const struct stored_spans *s, const struct stored_slot *key)
{
    size_t i = hash_bytes(key, sizeof *key) & (s->room - 1);
    while (!trace_id_is_zero(&s->slots[i].trace_id) && memcmp(&s->slots[i], key, sizeof *key) != 0)
        i = (i + 1) & (s->room - 1);
    return &s->slots[i];
}

static void put(struct stored_spans *s, const struct stored_slot *key)
{
    struct stored_slot *slot = slot_of(s, key);
    s->n += trace_id_is_zero(&slot->trace_id);
    *slot = *key;
}

/* Half of the room stays free. */
static bool make_room(struct stored_spans *s, size_t more)
{
    struct stored_spans next = {.room = s->room ? s->room : 1024};
    if (s->room && 2 * (s->n + more) <= s->room)
        return true;
    while (2 * (s->n + more) > next.room)
        next.room *= 2;
    next.slots = calloc(next.room, sizeof *next.slots);
    if (!next.slots)
        return false;
    for (size_t i = 0; i < s->room; i++)
        if (!trace_id_is_zero(&s->slots[i].trace_id))
            put(&next, &s->slots[i]);
    stored_spans_done(s);
    *s = next;
    return true;
}

static bool trace_read(struct stored_spans *s, struct store_view *view,
                       const struct trace_id *trace_id)
{
    struct store_outline *spans = NULL;
    size_t n = 0;
    int err = store_trace_outline(view, trace_id, &spans, &n);
    if (err && err != ERR_NOT_FOUND)
        return false;
    if (s->n + n > STORED_SPANS_MAX)
        stored_spans_done(s);
    bool done = make_room(s, n + 1);
    for (size_t i = 0; i < n && done; i++)
        put(s, &(struct stored_slot){*trace_id, spans[i].span_id});
    if (done)
        put(s, &(struct stored_slot){*trace_id, the_trace});
    free(spans);
    return done;
}

static bool has(const struct stored_spans *s, const struct trace_id *trace_id,
                const struct span_id *span_id)
{
    struct stored_slot key = {*trace_id, *span_id};
    return s->room && !trace_id_is_zero(&slot_of(s, &key)->trace_id);
}

bool stored_spans_has(struct stored_spans *s, struct store_view *view,
                      const struct trace_id *trace_id, const struct span_id *span_id)
{
    if (!has(s, trace_id, &the_trace) && !trace_read(s, view, trace_id))
        return false;
    return has(s, trace_id, span_id);
}

void stored_spans_done(struct stored_spans *s)
{
    free(s->slots);
    *s = (struct stored_spans){0};
}
