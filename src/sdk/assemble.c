#include "sdk/assemble.h"

#include <stdlib.h>
#include <string.h>

/* OTLP: bit 8 says that bit 9 is known, bit 9 that the parent is remote. */
#define FLAG_HAS_REMOTE 0x100u
#define FLAG_REMOTE 0x200u

#define PENDING_FREE_MAX (2 * BATCH_SPANS)
/* What most spans say about themselves fits. Chunks of a page each would share the same few sets of
 * the cache. */
#define PENDING_CHUNK_BYTES 480

static void put_be64(uint8_t out[8], uint64_t v)
{
    v = __builtin_bswap64(v);
    memcpy(out, &v, 8);
}

/* ---- pending ---- */

static struct pending *pending_new(struct assembler *a, uint64_t key)
{
    struct pending *p = a->free_pending;
    if (p) {
        a->free_pending = p->next;
        a->n_free_pending--;
        struct arena arena = p->arena;
        *p = (struct pending){.arena = arena, .key = key};
    } else {
        p = calloc(1, sizeof *p);
        if (!p)
            return NULL;
        p->key = key;
        p->arena.bytes_max = PENDING_BYTES_MAX;
        p->arena.first = PENDING_CHUNK_BYTES;
    }
    return p;
}

static void pending_free(struct assembler *a, struct pending *p)
{
    if (!p)
        return;
    if (a->n_free_pending >= PENDING_FREE_MAX) {
        arena_done(&p->arena);
        free(p);
        return;
    }
    arena_reset(&p->arena);
    p->next = a->free_pending;
    a->free_pending = p;
    a->n_free_pending++;
}

/* Room for one more in an array that doubles within the arena; NULL when there is none. */
static void *grow(struct pending *p, void *items, uint32_t n, uint32_t max, size_t size)
{
    if (n == max)
        return NULL;
    if (n == 0 || (n >= 4 && (n & (n - 1)) == 0)) {
        void *more = arena_array(&p->arena, n ? 2 * n : 4, size);
        if (more && n)
            memcpy(more, items, n * size);
        return more;
    }
    return items;
}

static void pending_attr(struct pending *p, struct str key, struct value value)
{
    for (uint32_t i = 0; i < p->n_attrs; i++) {
        if (str_eq(p->attrs[i].key, key)) { /* the last word counts */
            p->attrs[i].value = value;
            return;
        }
    }
    struct attr *attrs = grow(p, p->attrs, p->n_attrs, ATTRS_MAX, sizeof *attrs);
    if (!attrs) {
        p->dropped_attrs++;
        return;
    }
    p->attrs = attrs;
    p->attrs[p->n_attrs++] = (struct attr){key, value};
}

/* ---- reading words ---- */

struct cursor {
    const char *at, *end;
    bool short_;
};

static uint64_t get_u64(struct cursor *c)
{
    uint64_t v = 0;
    if (c->end - c->at < 8) {
        c->short_ = true;
        return 0;
    }
    memcpy(&v, c->at, 8);
    c->at += 8;
    return v;
}

static struct str get_text(struct cursor *c)
{
    uint64_t len = get_u64(c), room = (len + 7) & ~UINT64_C(7);
    if (c->short_ || len > PUG_STR_MAX || room > (uint64_t)(c->end - c->at)) {
        c->short_ = true;
        return STR_NONE;
    }
    struct str s = {c->at, len};
    c->at += room;
    return s;
}

/* A text that was cut at PUG_STR_MAX may end inside a character; that piece goes. */
static struct str whole_characters(struct str s)
{
    if (s.len < PUG_STR_MAX || str_is_utf8(s))
        return s;
    for (size_t back = 1; back < 4 && back <= s.len; back++)
        if (((unsigned char)s.ptr[s.len - back] & 0xc0) != 0x80)
            return (struct str){s.ptr, s.len - back};
    return s;
}

/* Copied, and made UTF-8: other bytes become '?', for one bad attribute must not cost the span. */
static struct str keep_text(struct arena *arena, struct str s)
{
    s = arena_str(arena, whole_characters(s));
    if (s.ptr && !str_is_utf8(s)) {
        for (size_t i = 0; i < s.len; i++)
            if ((unsigned char)s.ptr[i] >= 0x80)
                ((char *)(uintptr_t)s.ptr)[i] = '?';
    }
    return s;
}

static bool get_value(struct cursor *c, uint8_t type, struct arena *arena, struct value *ret)
{
    uint64_t word;
    struct value v = {.type = VALUE_NONE};
    switch (type) {
    case PUG__TYPE_STR:
        v.type = VALUE_STRING;
        v.string = keep_text(arena, get_text(c));
        if (!v.string.ptr)
            return false;
        break;
    case PUG__TYPE_BOOL:
        v.type = VALUE_BOOL;
        v.boolean = get_u64(c) != 0;
        break;
    case PUG__TYPE_INT:
        v.type = VALUE_INT;
        v.integer = (int64_t)get_u64(c);
        break;
    case PUG__TYPE_DOUBLE:
        v.type = VALUE_DOUBLE;
        word = get_u64(c);
        memcpy(&v.real, &word, 8);
        break;
    default:
        return false;
    }
    *ret = v;
    return !c->short_;
}

/* ---- sites ---- */

static uint8_t value_type(uint8_t type)
{
    switch (type) {
    case PUG__TYPE_STR:
        return VALUE_STRING;
    case PUG__TYPE_BOOL:
        return VALUE_BOOL;
    case PUG__TYPE_INT:
        return VALUE_INT;
    case PUG__TYPE_DOUBLE:
        return VALUE_DOUBLE;
    default:
        return VALUE_NONE;
    }
}

/* False: its spans are not all plain. The last word on a key counts, which needs a look at all. */
static bool place_of(const struct site_view *v, struct plain_place *ret)
{
    _Static_assert(PUG_ATTRS_MAX <= PLAIN_KEYS_MAX && PUG_STR_MAX <= PLAIN_TEXT_MAX, "they fit");
    *ret = (struct plain_place){
        .name = v->name, .kind = v->kind ? v->kind : SPAN_KIND_INTERNAL, .n_keys = v->n_keys};
    for (uint32_t i = 0; i < v->n_keys; i++) {
        ret->keys[i].name = v->keys[i].name;
        ret->keys[i].type = value_type(v->keys[i].type);
        if (ret->keys[i].type == VALUE_NONE)
            return false;
        for (uint32_t k = 0; k < i; k++)
            if (str_eq(v->keys[k].name, v->keys[i].name))
                return false;
    }
    return true;
}

static void site_prepare(struct assembler *a, struct reader_site *s)
{
    struct plain_place place;
    s->place = a->plain.prepare && place_of(&s->view, &place) ? a->plain.prepare(a->user, &place)
                                                              : NULL;
}

static const struct reader_site *site_read(struct assembler *a, uint32_t id)
{
    static const struct reader_site unknown = {.view = {.name = {"(unknown)", 9}}};
    struct reader_site *s = id < SITES_MAX ? malloc(sizeof *s) : NULL;
    if (!s || memory_site(a->memory->head, id, &s->view) != 0) {
        free(s);
        return &unknown;
    }
    site_prepare(a, s);
    return a->sites[id] = s;
}

static inline const struct reader_site *site_find(struct assembler *a, uint32_t id)
{
    const struct reader_site *s = id < SITES_MAX ? a->sites[id] : NULL;
    return s ? s : site_read(a, id);
}

static const struct site_view *site_of(struct assembler *a, uint32_t id)
{
    return &site_find(a, id)->view;
}

void assembler_plain(struct assembler *a, const struct plain_taker *taker)
{
    a->plain = taker ? *taker : (struct plain_taker){NULL, NULL};
    for (uint32_t i = 0; i < SITES_MAX; i++) {
        if (!a->sites[i])
            continue;
        free(a->sites[i]->place);
        site_prepare(a, a->sites[i]);
    }
}

/* ---- the batch ---- */

void assembler_flush(struct assembler *a)
{
    if (a->n) {
        struct taken_batch b = {.spans = {.spans = a->spans, .n = a->n}, .taken = a->taken};
        a->deliver(a->user, &b);
    }
    a->n = 0;
    while (a->used) {
        struct pending *p = a->used;
        a->used = p->next;
        pending_free(a, p);
    }
    arena_reset(&a->strings);
}

static struct span *batch_span(struct assembler *a, uint32_t thread, bool handle)
{
    if (a->n == BATCH_SPANS)
        assembler_flush(a);
    struct span *s = &a->spans[a->n];
    a->taken[a->n] = (struct taken){.thread = thread, .handle = handle};
    a->n++;
    a->recorded++;
    *s = (struct span){
        .kind = SPAN_KIND_INTERNAL, .resource = &a->config->resource, .scope = &a->config->scope};
    return s;
}

/* The span takes over what is pending. */
static void span_fill(struct assembler *a, struct span *s, uint32_t site, struct pending *p)
{
    const struct site_view *v = site_of(a, site);
    s->name = v->name;
    if (v->kind)
        s->kind = v->kind;
    if (!p)
        return;
    if (p->name.ptr)
        s->name = p->name;
    s->status_code = p->status_code;
    s->status_message = p->status_message;
    s->attrs = (struct attrs){p->attrs, p->n_attrs, p->dropped_attrs};
    s->events = p->events;
    s->n_events = p->n_events;
    s->dropped_events = p->dropped_events;
    s->links = p->links;
    s->n_links = p->n_links;
    s->dropped_links = p->dropped_links;
    p->next = a->used;
    a->used = p;
}

static void span_times(struct assembler *a, struct span *s, uint64_t start, uint64_t end)
{
    s->start_ns = ticks_to_ns(a->ticks, start);
    s->end_ns = ticks_to_ns(a->ticks, end);
    if (s->end_ns < s->start_ns) { /* the counter of one CPU was behind another's */
        exporter_tell(a->config, &a->told_negative,
                      "a span ended %llu ns before it began: the machine's clocks disagree; its "
                      "duration is 0 (told once)",
                      (unsigned long long)(s->start_ns - s->end_ns));
        s->end_ns = s->start_ns;
    }
}

/* ---- scopes ---- */

static const struct reader_context *context_of(const struct lane_reader *r, uint64_t seq)
{
    for (uint32_t i = r->n_contexts; i-- > 0;)
        if (r->contexts[i].seq == seq)
            return &r->contexts[i];
    return NULL;
}

static void take_values(struct assembler *a, struct pending *p, uint32_t site, struct cursor *c)
{
    const struct site_view *v = site_of(a, site);
    for (int i = 0; i < v->n_keys; i++) {
        struct value value;
        if (get_value(c, v->keys[i].type, &p->arena, &value))
            pending_attr(p, v->keys[i].name, value);
        else
            p->dropped_attrs++;
    }
}

static struct waiting *waiting_top(struct lane_reader *r, uint64_t seq)
{
    return r->n_waiting && r->waiting[r->n_waiting - 1].seq == seq ? &r->waiting[r->n_waiting - 1]
                                                                   : NULL;
}

/* The values of its keys become attributes like others. NULL: no memory, and nothing has changed. */
static struct pending *waiting_say(struct assembler *a, struct waiting *w)
{
    if (w->said || !(w->said = pending_new(a, w->seq)))
        return w->said;
    struct cursor c = {w->values, w->values + w->n_values, false};
    take_values(a, w->said, w->site, &c);
    return w->said;
}

/* Before the ring's room is given back. */
static void waiting_settle(struct assembler *a, struct lane_reader *r)
{
    for (uint32_t i = r->n_waiting; i-- > 0;) {
        struct waiting *w = &r->waiting[i];
        if (w->said || w->n_values == 0)
            continue;
        if (!waiting_say(a, w)) {
            a->lost_details += site_of(a, w->site)->n_keys;
            w->n_values = 0;
        }
    }
}

static struct pending *pending_for_seq(struct assembler *a, struct lane_reader *r, uint64_t seq)
{
    struct waiting *top = waiting_top(r, seq);
    if (top)
        return waiting_say(a, top);
    if (seq <= r->ignore_to || r->n_waiting == PUG_DEPTH_MAX + 1)
        return NULL;
    /* What is said about a span is about the innermost one: later seqs are gone. */
    struct pending *p = pending_new(a, seq);
    if (p)
        r->waiting[r->n_waiting++] = (struct waiting){.seq = seq, .said = p};
    return p;
}

/* The first word about a scope is mostly the values of its site's keys. True: they wait. */
static bool values_wait(struct assembler *a, struct lane_reader *r, const char *record,
                        size_t bytes, uint32_t site)
{
    uint64_t seq;
    memcpy(&seq, record + 8, sizeof seq);
    if (seq <= r->ignore_to || r->n_waiting == PUG_DEPTH_MAX + 1 || waiting_top(r, seq) ||
        !site_find(a, site)->place)
        return false;
    r->waiting[r->n_waiting++] = (struct waiting){seq, NULL, record + 16, (uint32_t)(bytes - 16),
                                                  site};
    return true;
}

static void waiting_pop(struct assembler *a, struct lane_reader *r, uint64_t seq)
{
    while (r->n_waiting && r->waiting[r->n_waiting - 1].seq > seq)
        pending_free(a, r->waiting[--r->n_waiting].said);
}

static struct pending *pending_take(struct assembler *a, struct lane_reader *r, uint64_t seq)
{
    waiting_pop(a, r, seq);
    struct waiting *top = waiting_top(r, seq);
    if (!top)
        return NULL;
    r->n_waiting--;
    if (!waiting_say(a, top))
        a->lost_details += site_of(a, top->site)->n_keys;
    return top->said;
}

static void trace_of(struct assembler *a, struct lane_reader *r, uint64_t trace_seq,
                     struct trace_id *ret)
{
    if (r->trace_seq != trace_seq) {
        uint64_t id[2];
        id_trace(&a->keys, id_number(r->lane->index, trace_seq), id);
        put_be64(r->trace_id.bytes, id[0]);
        put_be64(r->trace_id.bytes + 8, id[1]);
        r->trace_seq = trace_seq;
    }
    *ret = r->trace_id;
}

static void span_id_of(struct assembler *a, const struct lane_reader *r, uint64_t seq,
                       struct span_id *ret)
{
    put_be64(ret->bytes, id_span(&a->keys, id_number(r->lane->index, seq)));
}

/* Who a scope's span is. The trace state is the context's. */
static inline __attribute__((always_inline)) void identify(struct assembler *a,
                                                           struct lane_reader *r, uint64_t seq,
                                                           uint64_t parent, uint64_t trace,
                                                           struct plain_span *ret)
{
    const struct reader_context *c = r->n_contexts ? context_of(r, trace) : NULL;
    ret->parent_id = (struct span_id){{0}};
    if (c) {
        ret->trace_id = c->trace_id;
        ret->flags = (c->flags & 0xff) | FLAG_HAS_REMOTE;
        ret->trace_state = c->trace_state;
    } else {
        trace_of(a, r, trace, &ret->trace_id);
        ret->flags = PUG_FLAG_SAMPLED | PUG_FLAG_RANDOM | FLAG_HAS_REMOTE;
        ret->trace_state = STR_NONE;
    }
    if (c && (c->root ? seq == c->seq : parent == c->seq)) {
        ret->parent_id = c->span_id;
        ret->flags |= c->flags & FLAG_REMOTE;
    } else if (trace != seq) {
        if (r->parent_seq != parent) {
            span_id_of(a, r, parent, &r->parent_id);
            r->parent_seq = parent;
        }
        ret->parent_id = r->parent_id;
    }
    span_id_of(a, r, seq, &ret->span_id);
}

/* A scope's span, from the five numbers of its end record. */
static struct span *scope_span(struct assembler *a, struct lane_reader *r, uint64_t seq,
                               uint64_t parent, uint64_t trace, uint32_t site)
{
    struct pending *p = pending_take(a, r, seq);
    if (seq <= r->ignore_to) {
        pending_free(a, p);
        return NULL;
    }
    if (a->config->backend == PUG_BACKEND_DISCARD) {
        pending_free(a, p);
        a->recorded++;
        return NULL;
    }
    struct plain_span id;
    struct span *s = batch_span(a, r->thread, false);
    span_fill(a, s, site, p);
    identify(a, r, seq, parent, trace, &id);
    s->trace_id = id.trace_id;
    s->span_id = id.span_id;
    s->parent_id = id.parent_id;
    s->flags = id.flags;
    if (id.trace_state.len) {
        s->trace_state = arena_str(&a->strings, id.trace_state);
        if (!s->trace_state.ptr)
            s->trace_state = STR_NONE;
    }
    return s;
}

/* True: it was one, and is taken. */
static bool take_plain(struct assembler *a, struct lane_reader *r, const struct pug__end_record *e)
{
    uint32_t site = e->kind_site >> 8;
    const struct reader_site *s = site_find(a, site);
    if (!s->place || e->seq <= r->ignore_to)
        return false;
    waiting_pop(a, r, e->seq);
    struct waiting *w = waiting_top(r, e->seq);
    if (w && (w->said || w->site != site || w->n_values == 0))
        return false;
    struct plain_span span;
    identify(a, r, e->seq, e->seq - e->parent, e->seq - e->trace, &span);
    span.start_ns = ticks_to_ns(a->ticks, e->start);
    span.end_ns = ticks_to_ns(a->ticks, e->start + e->duration);
    span.thread = r->thread;
    span.values = w ? w->values : NULL;
    span.n_values = w ? w->n_values : 0;
    if (span.end_ns < span.start_ns)
        return false;
    if (a->n)
        assembler_flush(a); /* in the order of their ends */
    if (!a->plain.take(a->user, s, &span))
        return false;
    r->n_waiting -= w != NULL;
    a->recorded++;
    return true;
}

static void take_end(struct assembler *a, struct lane_reader *r, const char *record)
{
    struct pug__end_record e;
    memcpy(&e, record, sizeof e);
    if (take_plain(a, r, &e))
        return;
    struct span *s = scope_span(a, r, e.seq, e.seq - e.parent, e.seq - e.trace, e.kind_site >> 8);
    if (s)
        span_times(a, s, e.start, e.start + e.duration);
}

static void take_end_long(struct assembler *a, struct lane_reader *r, struct cursor *c,
                          uint32_t site)
{
    uint64_t start = get_u64(c), end = get_u64(c), seq = get_u64(c), parent = get_u64(c),
             trace = get_u64(c);
    if (c->short_)
        return;
    struct span *s = scope_span(a, r, seq, parent, trace, site);
    if (s)
        span_times(a, s, start, end);
}

static void contexts_cut(struct lane_reader *r, uint32_t n)
{
    while (r->n_contexts > n)
        free((char *)(uintptr_t)r->contexts[--r->n_contexts].trace_state.ptr);
}

/* No memory costs the trace state, never the trace. */
static void take_context(struct assembler *a, struct lane_reader *r, struct cursor *c,
                         uint32_t flags, bool root)
{
    uint64_t seq = get_u64(c), trace[2] = {get_u64(c), get_u64(c)}, span = get_u64(c);
    struct str state = get_text(c);
    char *kept = NULL;
    if (c->short_ || state.len > PUG_TRACESTATE_MAX)
        return;
    if (r->n_contexts == LANE_CONTEXT_SLOTS) { /* ends were lost with the thread that had them */
        free((char *)(uintptr_t)r->contexts[0].trace_state.ptr);
        memmove(r->contexts, r->contexts + 1, (LANE_CONTEXT_SLOTS - 1) * sizeof *r->contexts);
        r->n_contexts--;
    }
    struct reader_context *x = &r->contexts[r->n_contexts++];
    x->seq = seq;
    x->root = root;
    memcpy(x->trace_id.bytes, trace, 16);
    memcpy(x->span_id.bytes, &span, 8);
    x->flags = (flags & 0xff) | FLAG_HAS_REMOTE | (flags >> 8 & 1 ? FLAG_REMOTE : 0);
    if (state.len && (kept = malloc(state.len)))
        memcpy(kept, state.ptr, state.len);
    else if (state.len)
        a->lost_details++;
    x->trace_state = (struct str){kept, kept ? state.len : 0};
}

static void take_context_end(struct lane_reader *r, uint64_t seq)
{
    uint32_t n = r->n_contexts;
    while (n && r->contexts[n - 1].seq >= seq)
        n--;
    contexts_cut(r, n);
}

/* ---- handles ---- */

static size_t handle_slot(const struct assembler *a, uint64_t id)
{
    return (size_t)hash_mix64(id) & (a->handles_cap - 1);
}

static struct handle *handle_find(struct assembler *a, uint64_t id)
{
    if (!a->handles || !id)
        return NULL;
    for (size_t i = handle_slot(a, id);; i = (i + 1) & (a->handles_cap - 1)) {
        if (a->handles[i].id == id)
            return &a->handles[i];
        if (!a->handles[i].id)
            return NULL;
    }
}

static bool handles_grow(struct assembler *a)
{
    size_t cap = a->handles_cap ? 2 * a->handles_cap : 64;
    struct handle *old = a->handles, *new_handles = calloc(cap, sizeof *new_handles);
    size_t old_cap = a->handles_cap;
    if (!new_handles)
        return false;
    a->handles = new_handles;
    a->handles_cap = cap;
    for (size_t i = 0; i < old_cap; i++) {
        if (!old[i].id)
            continue;
        size_t at = handle_slot(a, old[i].id);
        while (a->handles[at].id)
            at = (at + 1) & (cap - 1);
        a->handles[at] = old[i];
    }
    free(old);
    return true;
}

static struct handle *handle_get(struct assembler *a, uint64_t id)
{
    struct handle *h = handle_find(a, id);
    if (h || !id)
        return h;
    if (a->n_handles == HANDLES_MAX)
        return NULL;
    if (2 * (a->n_handles + 1) > a->handles_cap && !handles_grow(a))
        return NULL;
    struct pending *p = pending_new(a, id);
    if (!p)
        return NULL;
    size_t at = handle_slot(a, id);
    while (a->handles[at].id)
        at = (at + 1) & (a->handles_cap - 1);
    a->handles[at] = (struct handle){.id = id, .pending = p, .born_round = a->round};
    a->n_handles++;
    a->n_unstarted++;
    return &a->handles[at];
}

static void handle_remove(struct assembler *a, struct handle *h)
{
    size_t mask = a->handles_cap - 1, hole = (size_t)(h - a->handles);
    /* Those behind it that would not be found past the hole move into it. */
    for (size_t i = (hole + 1) & mask; a->handles[i].id; i = (i + 1) & mask) {
        size_t home = handle_slot(a, a->handles[i].id);
        if (((i - home) & mask) >= ((i - hole) & mask)) {
            a->handles[hole] = a->handles[i];
            hole = i;
        }
    }
    a->handles[hole] = (struct handle){.id = 0};
    a->n_handles--;
}

static void handle_complete(struct assembler *a, struct handle *h)
{
    if (a->config->backend == PUG_BACKEND_DISCARD) {
        pending_free(a, h->pending); /* NOLINT(clang-analyzer-unix.Malloc): as below */
        a->recorded++;
        return;
    }
    struct span *s = batch_span(a, h->thread, true);
    struct str state = h->trace_state;
    span_fill(a, s, h->site, h->pending);
    s->trace_state = state;
    memcpy(s->trace_id.bytes, h->trace, 16);
    memcpy(s->parent_id.bytes, &h->parent, 8);
    memcpy(s->span_id.bytes, &h->id, 8);
    s->flags = (h->flags & 0xff) | FLAG_HAS_REMOTE | (h->remote ? FLAG_REMOTE : 0);
    span_times(a, s, h->start, h->end);
}

static void handle_started(struct assembler *a, struct handle *h)
{
    a->n_unstarted -= !h->started;
    h->started = true;
}

static void take_start(struct assembler *a, struct lane_reader *r, struct cursor *c, uint32_t site)
{
    uint64_t id = get_u64(c), start = get_u64(c), parent = get_u64(c), flags = get_u64(c);
    uint64_t trace[2] = {get_u64(c), get_u64(c)};
    struct str state = get_text(c);
    struct handle *h = c->short_ ? NULL : handle_get(a, id);
    if (!h) { /* the span itself may still come: its end says who it is */
        a->lost_details++;
        return;
    }
    handle_started(a, h);
    h->start = start;
    h->parent = parent;
    memcpy(h->trace, trace, sizeof trace);
    h->flags = flags & 0xff;
    h->remote = flags >> 8 & 1;
    h->site = site;
    h->thread = r->thread;
    if (state.len) {
        state = arena_str(&h->pending->arena, state);
        h->trace_state = state.ptr ? state : STR_NONE;
    }
    take_values(a, h->pending, site, c);
}

static void take_stop(struct assembler *a, struct lane_reader *r, struct cursor *c, uint32_t site)
{
    uint64_t id = get_u64(c), start = get_u64(c), end = get_u64(c), parent = get_u64(c),
             flags = get_u64(c);
    uint64_t trace[2] = {get_u64(c), get_u64(c)};
    struct handle *h = c->short_ ? NULL : handle_get(a, id);
    if (!h) {
        a->lost_memory++;
        return;
    }
    if (h->ended)
        return;
    if (!h->started) {
        h->parent = parent;
        h->flags = flags & 0xff;
        memcpy(h->trace, trace, sizeof trace);
        h->site = site;
        h->thread = r->thread;
    }
    handle_started(a, h);
    h->start = start;
    h->end = end;
    h->ended = true;
    h->ended_round = a->round;
    a->n_ended++;
}

void assembler_round(struct assembler *a)
{
    /* Removal moves later entries into the hole, so the same place is looked at again. */
    for (size_t i = 0; (a->n_ended || a->n_unstarted) && i < a->handles_cap;) {
        struct handle *h = &a->handles[i];
        if (h->id && h->ended && h->ended_round != a->round) {
            handle_complete(a, h);
            handle_remove(a, h);
            a->n_ended--;
        } else if (h->id && !h->started && a->round - h->born_round > 1) {
            /* Something was said about a span that is no handle of ours. */
            a->lost_details++;
            pending_free(a, h->pending);
            handle_remove(a, h);
            a->n_unstarted--;
        } else {
            i++;
        }
    }
    a->round++;
}

/* ---- what is said about a span ---- */

static struct pending *pending_for(struct assembler *a, struct lane_reader *r, uint8_t kind,
                                   uint64_t target)
{
    if (kind & RECORD_OF_HANDLE) {
        struct handle *h = handle_get(a, target);
        return h ? h->pending : NULL;
    }
    return pending_for_seq(a, r, target);
}

/* The values of a site's keys as attributes of their own; false: no memory. */
static bool site_values(const struct site_view *v, struct pending *p, struct cursor *c,
                        struct attrs *ret)
{
    struct attr *attrs = arena_array(&p->arena, v->n_keys, sizeof *attrs);
    uint32_t n = 0;
    if (!attrs)
        return false;
    for (int i = 0; i < v->n_keys; i++) {
        attrs[n].key = v->keys[i].name;
        if (get_value(c, v->keys[i].type, &p->arena, &attrs[n].value))
            n++;
        else
            ret->dropped++;
    }
    ret->items = attrs;
    ret->n = n;
    return true;
}

static void take_event(struct assembler *a, struct pending *p, struct cursor *c, uint32_t site)
{
    uint64_t when = get_u64(c);
    const struct site_view *v = site_of(a, site);
    struct event *events = grow(p, p->events, p->n_events, EVENTS_MAX, sizeof *events);
    struct event e = {.time_ns = ticks_to_ns(a->ticks, when), .name = v->name};
    if (!events || c->short_ || !site_values(v, p, c, &e.attrs)) {
        p->dropped_events++;
        return;
    }
    p->events = events;
    p->events[p->n_events++] = e;
}

static void take_link(struct assembler *a, struct pending *p, struct cursor *c, uint32_t flags)
{
    struct link l = {.flags = (flags & 0xff) | FLAG_HAS_REMOTE |
                              (flags >> 8 & 1 ? FLAG_REMOTE : 0)};
    uint64_t words[3] = {get_u64(c), get_u64(c), get_u64(c)};
    memcpy(l.trace_id.bytes, words, 16);
    memcpy(l.span_id.bytes, words + 2, 8);
    struct str state = get_text(c);
    l.trace_state = state.len ? arena_str(&p->arena, state) : STR_NONE;
    uint32_t site = (uint32_t)get_u64(c);
    struct link *links = grow(p, p->links, p->n_links, LINKS_MAX, sizeof *links);
    if (!links || c->short_ || (site && !site_values(site_of(a, site), p, c, &l.attrs))) {
        p->dropped_links++;
        return;
    }
    p->links = links;
    p->links[p->n_links++] = l;
}

static void take_set(struct pending *p, struct cursor *c, uint32_t type)
{
    struct value value;
    struct str key;
    if (!get_value(c, (uint8_t)type, &p->arena, &value) ||
        !(key = keep_text(&p->arena, get_text(c))).ptr) {
        p->dropped_attrs++;
        return;
    }
    pending_attr(p, key, value);
}

static void take_about(struct assembler *a, struct lane_reader *r, uint8_t kind, uint32_t high,
                       struct cursor *c)
{
    uint64_t target = get_u64(c);
    if (a->config->backend == PUG_BACKEND_DISCARD)
        return;
    struct pending *p = pending_for(a, r, kind, target);
    if (!p) {
        a->lost_details++;
        return;
    }
    switch (kind & RECORD_KIND_MASK) {
    case RECORD_ATTRS:
        take_values(a, p, high, c);
        break;
    case RECORD_EVENT:
        take_event(a, p, c, high);
        break;
    case RECORD_LINK:
        take_link(a, p, c, high);
        break;
    case RECORD_SET:
        take_set(p, c, high);
        break;
    case RECORD_NAME:
        p->name = keep_text(&p->arena, get_text(c));
        break;
    case RECORD_STATUS:
        p->status_code = high <= STATUS_ERROR ? (uint8_t)high : STATUS_UNSET;
        p->status_message = keep_text(&p->arena, get_text(c));
        break;
    default:
        break;
    }
}

/* ---- a lane ---- */

static void take_record(struct assembler *a, struct lane_reader *r, const char *record,
                        size_t bytes, uint64_t first)
{
    struct cursor c = {record + 8, record + bytes, false};
    uint8_t kind = (uint8_t)first;
    uint32_t high = (uint32_t)(first >> 32);
    switch (kind & RECORD_KIND_MASK) {
    case RECORD_END_LONG:
        take_end_long(a, r, &c, high);
        break;
    case RECORD_CONTEXT:
    case RECORD_ROOT:
        take_context(a, r, &c, high, (kind & RECORD_KIND_MASK) == RECORD_ROOT);
        break;
    case RECORD_CONTEXT_END:
        take_context_end(r, get_u64(&c));
        break;
    case RECORD_START:
        take_start(a, r, &c, high);
        break;
    case RECORD_STOP:
        take_stop(a, r, &c, high);
        break;
    default:
        take_about(a, r, kind, high, &c);
        break;
    }
}

void assembler_lane(struct assembler *a, struct lane_reader *r)
{
    struct lane *lane = r->lane;
    uint64_t tail = atomic_load_explicit(&lane->tail, memory_order_relaxed), start = tail;
    while (tail != r->head) {
        const char *record = lane->fast.ring + (tail & lane->fast.mask);
        uint64_t first, left = r->head - tail;
        size_t bytes;
        memcpy(&first, record, 8);
        if ((uint8_t)first == RECORD_END) {
            bytes = RECORD_END_BYTES;
            take_end(a, r, record);
        } else {
            bytes = (size_t)(first >> 8 & 0xffffff) * 8;
            if (bytes < 16 || bytes > left) {
                /* The program has written into our memory. Nothing here can be trusted. */
                a->lost_details++;
                tail = r->head;
                break;
            }
            if ((uint8_t)first != RECORD_ATTRS ||
                !values_wait(a, r, record, bytes, (uint32_t)(first >> 32)))
                take_record(a, r, record, bytes, first);
        }
        tail += bytes;
        /* Give room back in steps: the owner's look at the tail costs it a cache miss. */
        if (tail - start >= lane->ring_bytes / 8) {
            waiting_settle(a, r);
            atomic_store_explicit(&lane->tail, tail, memory_order_release);
            start = tail;
        }
    }
    waiting_settle(a, r);
    atomic_store_explicit(&lane->tail, tail, memory_order_release);
}

void assembler_forget(struct assembler *a, struct lane_reader *r)
{
    while (r->n_waiting)
        pending_free(a, r->waiting[--r->n_waiting].said);
    contexts_cut(r, 0);
}

/* ---- what did not end ---- */

static const struct attr unfinished_attr = {.key = {"pugmark.unfinished", 18},
                                            .value = {.type = VALUE_BOOL, .boolean = true}};

static void mark_unfinished(struct pending *p)
{
    if (p)
        pending_attr(p, unfinished_attr.key, unfinished_attr.value);
}

/* A slot while its owner may be using it: taken only if its seq is the same before and after. The
 * owner writes the seq first. */
static bool slot_read(const struct pug__slot *slot, struct pug__slot *ret)
{
    ret->seq = __atomic_load_n(&slot->seq, __ATOMIC_ACQUIRE);
    ret->start = __atomic_load_n(&slot->start, __ATOMIC_ACQUIRE);
    ret->trace = __atomic_load_n(&slot->trace, __ATOMIC_ACQUIRE);
    ret->site = __atomic_load_n(&slot->site, __ATOMIC_ACQUIRE);
    ret->state = __atomic_load_n(&slot->state, __ATOMIC_ACQUIRE);
    return ret->seq && ret->seq == __atomic_load_n(&slot->seq, __ATOMIC_ACQUIRE);
}

void assembler_unfinished_lane(struct assembler *a, struct lane_reader *r, uint64_t now)
{
    struct lane *lane = r->lane;
    const struct pug__slot *top = __atomic_load_n(&lane->fast.top, __ATOMIC_ACQUIRE);
    struct pug__slot slots[2] = {{.seq = 0}};
    uint64_t highest = r->ignore_to;
    if (top > lane->slots + PUG_DEPTH_MAX)
        return;
    /* Innermost first, as ends come. Pending things are on a stack, so take them by seq. */
    for (const struct pug__slot *s = top; s > lane->slots; s--) {
        if (!slot_read(s, &slots[0]) || !slot_read(s - 1, &slots[1]))
            slots[1].seq = 0;
        if (slots[0].seq <= r->ignore_to || slots[0].seq == 0 ||
            !lane_slot_is_recorded(&slots[0]) || slots[0].start > now)
            continue;
        if (slots[0].seq > highest)
            highest = slots[0].seq;
        mark_unfinished(
            a->config->backend == PUG_BACKEND_DISCARD ? NULL : pending_for_seq(a, r, slots[0].seq));
        struct span *span = scope_span(a, r, slots[0].seq, slots[1].seq, slots[0].trace,
                                       slots[0].site);
        if (span)
            span_times(a, span, slots[0].start, now);
    }
    r->ignore_to = highest;
}

/* NOLINTBEGIN(clang-analyzer-unix.Malloc): handle_remove puts another handle where the freed one
 * was, which the analyzer does not see. */
void assembler_unfinished_handles(struct assembler *a, uint64_t now)
{
    for (size_t i = 0; a->n_handles && i < a->handles_cap;) {
        struct handle *h = &a->handles[i];
        if (!h->id) {
            i++;
            continue;
        }
        if (!h->ended) {
            h->end = now;
            mark_unfinished(h->pending);
        }
        if (h->started)
            handle_complete(a, h);
        else
            pending_free(a, h->pending);
        handle_remove(a, h);
    }
    a->n_ended = a->n_unstarted = 0;
}
/* NOLINTEND(clang-analyzer-unix.Malloc) */

void assembler_own_span(struct assembler *a, struct str name, uint64_t start_ns, uint64_t end_ns,
                        uint64_t number, struct attrs attrs)
{
    uint64_t trace[2];
    struct span *s = batch_span(a, 0, true);
    a->recorded--; /* not one of the program's */
    id_trace(&a->keys, number, trace);
    put_be64(s->trace_id.bytes, trace[0]);
    put_be64(s->trace_id.bytes + 8, trace[1]);
    put_be64(s->span_id.bytes, id_span(&a->keys, number));
    s->name = name;
    s->start_ns = start_ns;
    s->end_ns = end_ns;
    s->flags = PUG_FLAG_SAMPLED | PUG_FLAG_RANDOM | FLAG_HAS_REMOTE;
    s->attrs = attrs;
}

/* ---- life ---- */

int assembler_new(struct memory *memory, const struct config *config, struct ticks *ticks,
                  void (*deliver)(void *user, const struct taken_batch *batch), void *user,
                  struct assembler **ret)
{
    struct assembler *a = calloc(1, sizeof *a);
    if (!a)
        return ERR_NOMEM;
    a->memory = memory;
    a->config = config;
    a->ticks = ticks;
    a->keys = memory->head->keys;
    a->deliver = deliver;
    a->user = user;
    *ret = a;
    return 0;
}

struct lane_reader *assembler_reader(struct assembler *a, uint32_t index)
{
    if (!a->readers[index]) {
        struct lane_reader *r = calloc(1, sizeof *r);
        if (!r)
            return NULL;
        r->lane = atomic_load_explicit(&a->memory->lanes[index], memory_order_acquire);
        r->thread = index + 1;
        a->readers[index] = r;
    }
    return a->readers[index];
}

void assembler_free(struct assembler *a)
{
    if (!a)
        return;
    for (uint32_t i = 0; i < LANES_MAX; i++) {
        struct lane_reader *r = a->readers[i];
        if (!r)
            continue;
        assembler_forget(a, r);
        free(r);
    }
    for (size_t i = 0; i < a->handles_cap; i++)
        pending_free(a, a->handles[i].pending);
    free(a->handles);
    while (a->used) {
        struct pending *p = a->used;
        a->used = p->next;
        pending_free(a, p);
    }
    while (a->free_pending) {
        struct pending *p = a->free_pending;
        a->free_pending = p->next;
        arena_done(&p->arena);
        free(p);
    }
    for (uint32_t i = 0; i < SITES_MAX; i++) {
        if (a->sites[i])
            free(a->sites[i]->place);
        free(a->sites[i]);
    }
    arena_done(&a->strings);
    free(a);
}
