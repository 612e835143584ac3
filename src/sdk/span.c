/* The calls behind the macros, and those that take a span. They write records into the lane of the
 * thread that calls; nothing here allocates, locks or makes a system call. */
#include "sdk/span.h"

#include "sdk/ot_state.h"
#include "sdk/passing.h"
#include "sdk/sdk.h"
#include "sdk/watch.h"

#include <errno.h>
#include <string.h>

int pug__on_1;
__thread struct pug__lane *pug__lane_1 __attribute__((tls_model("initial-exec")));

/* A signal handler must not claim a second lane for the thread it interrupts. */
static __thread bool claiming __attribute__((tls_model("initial-exec")));

enum handle_state {
    HANDLE_OPEN = 1,
    HANDLE_UNSAMPLED = 2,
    HANDLE_EPOCH_SHIFT = 16,
};

/* ---- lanes ---- */

struct pug__lane *pug__lane_claim(void)
{
    if (claiming)
        return NULL;
    claiming = true;
    int errno_before = errno;
    if (atomic_load_explicit(&sdk.state, memory_order_acquire) == SDK_FORKED)
        sdk_revive();
    struct lane *lane = NULL;
    struct memory *m = atomic_load_explicit(&sdk.memory, memory_order_acquire);
    if (m && atomic_load_explicit(&sdk.state, memory_order_acquire) == SDK_ON) {
        lane = lane_claim(m, sdk.key);
        if (!lane)
            atomic_fetch_add_explicit(&m->lost_no_lane, 1, memory_order_relaxed);
    }
    if (lane) {
        if (pug_context_valid(&sdk.inherited) && pthread_equal(sdk.inherited_by, pthread_self()))
            lane_attach(lane, &sdk.inherited, false);
        pug__lane_1 = &lane->fast;
    }
    errno = errno_before;
    claiming = false;
    return pug__lane_1;
}

static struct lane *current_lane(void)
{
    struct pug__lane *fast = pug__lane_1;
    return fast ? lane_of(fast) : NULL;
}

static struct lane *some_lane(void)
{
    struct pug__lane *fast = pug__lane_get();
    return fast ? lane_of(fast) : NULL;
}

static void put_be64(uint8_t out[8], uint64_t v)
{
    v = __builtin_bswap64(v);
    memcpy(out, &v, 8);
}

static uint64_t number_of(const struct lane *lane, uint64_t seq)
{
    return id_number(lane->index, seq);
}

/* ---- a trace begins: is it kept? ---- */

/* The context that a root which is kept gets: that of `sender`, if there is one, with this
 * decision; else a new one. False: it is not kept. */
static bool decide(struct lane *lane, uint64_t seq, const struct pug_context *sender,
                   const struct pug__site *site, const union pug__value *values,
                   struct pug_context *ret)
{
    struct sampling_answer answer;
    struct ot_state state = {.has_rv = false};
    if (sender) {
        memcpy(ret, sender, offsetof(struct pug_context, tracestate) + sender->tracestate_len);
        if (!sender->remote || sampler_keeps_senders(&sdk.sampler))
            return sender->flags & PUG_FLAG_SAMPLED;
        ot_state_read((struct str){ret->tracestate, ret->tracestate_len}, &state);
    } else {
        uint64_t trace[2];
        id_trace(&atomic_load_explicit(&sdk.memory, memory_order_relaxed)->head->keys,
                 number_of(lane, seq), trace);
        span_context_clear(ret);
        put_be64(ret->trace_id, trace[0]);
        put_be64(ret->trace_id + 8, trace[1]);
        ret->flags = PUG_FLAG_RANDOM;
    }
    sampler_ask(&sdk.sampler, lane, ot_randomness(ret, &state), site, values, &answer);
    ret->flags = (uint8_t)((ret->flags & ~PUG_FLAG_SAMPLED) | (answer.keep ? PUG_FLAG_SAMPLED : 0));
    /* A threshold that is not known, or not met, is not passed on. */
    if (answer.keep || ret->tracestate_len)
        ot_state_set_th(ret, answer.keep && answer.has_threshold ? &answer.threshold : NULL);
    return answer.keep;
}

static const struct pug_context *context_below(const struct lane *lane,
                                               const struct pug__slot *slot)
{
    uint16_t number = lane_context_of(slot);
    return number ? &lane->contexts[number - 1] : NULL;
}

/* ---- begin ---- */

/* The next slot, with the state that it inherits; the lane is closed. */
static struct pug__slot *slot_open(struct lane *lane, struct pug__site *site)
{
    struct pug__lane *fast = &lane->fast;
    struct pug__slot *parent = fast->top, *slot = parent + 1;
    if (parent >= fast->last) {
        lane_count(&lane->lost_depth);
        return NULL;
    }
    if (!lane_enter(lane))
        return NULL;
    uint32_t id = lane_site_id(atomic_load_explicit(&sdk.memory, memory_order_acquire)->head, site);
    fast->seq++;
    pug__slot_put(slot, fast->seq, parent->trace, id,
                  PUG__STATE_OF(parent) & ~(uint32_t)PUG__STATE_OWN);
    return slot;
}

static void slot_state_put(struct pug__slot *slot, uint32_t slot_state)
{
    __atomic_store_n(&slot->state, slot_state, __ATOMIC_RELEASE);
}

static void slot_needs_room(struct lane *lane, struct pug__slot *slot)
{
    if (slot->state & (PUG__STATE_UNSAMPLED | PUG__STATE_ORPHAN) || lane_has_room(lane))
        return;
    lane_count(&lane->lost_ring_full);
    slot_state_put(slot, slot->state | PUG__STATE_LOST);
}

struct pug__slot *pug__open_slow(struct pug__lane *fast, struct pug__site *site)
{
    struct lane *lane = lane_of(fast);
    struct pug__slot *slot = slot_open(lane, site);
    if (slot)
        slot_needs_room(lane, slot);
    return slot; /* closed still; pug__begin opens */
}

/* The slot becomes the first of its trace here, in a context of its own. */
static void slot_is_root(struct lane *lane, struct pug__slot *slot,
                         const struct pug_context *context, uint32_t more)
{
    uint32_t root = lane_root(lane, slot, context);
    uint32_t inherited = slot->state & PUG__STATE_WATCH;
    __atomic_store_n(&slot->trace, slot->seq, __ATOMIC_RELEASE);
    /* Without one nobody will know what trace its children belong to. */
    slot_state_put(slot, root ? inherited | root | more : slot->state | PUG__STATE_ORPHAN);
}

static void root_draw(struct lane *lane, uint64_t from_seq, uint64_t threshold)
{
    uint64_t gap = sampler_gap(&sdk.sampler, threshold, &lane->random);
    lane->fast.drop_below = gap == UINT64_MAX ? gap : from_seq + gap;
    lane->root_threshold = threshold;
}

/* Of a root below the base, where each is kept with the same probability. What was drawn for the next ones stands in the
 * lane for pug__drop. `ret`: as of decide(). */
static bool root_is_kept(struct lane *lane, uint64_t seq, uint64_t threshold,
                         struct pug_context *ret)
{
    struct pug__lane *fast = &lane->fast;
    uint32_t base = PUG__STATE_OF(lane->slots) & ~(uint32_t)PUG__STATE_WATCH;
    uint64_t trace[2];
    if (fast->drop_state != base || seq > fast->drop_below) {
        root_draw(lane, seq, threshold);
        fast->drop_state = base;
    }
    if (seq < fast->drop_below)
        return false;
    id_trace_decided(&atomic_load_explicit(&sdk.memory, memory_order_relaxed)->head->keys,
                     number_of(lane, seq), lane->root_threshold, true, trace);
    span_context_clear(ret);
    put_be64(ret->trace_id, trace[0]);
    put_be64(ret->trace_id + 8, trace[1]);
    ret->flags = PUG_FLAG_RANDOM | PUG_FLAG_SAMPLED;
    ot_state_set_th(ret, &lane->root_threshold);
    root_draw(lane, seq + 1, threshold);
    return true;
}

static void slot_ask(struct lane *lane, struct pug__slot *slot, const struct pug__site *site,
                     const union pug__value *values)
{
    struct pug_context context;
    uint64_t threshold;
    const struct pug_context *sender = context_below(lane, slot);
    bool kept;
    /* Pairs with memory_base_state: what the sampler says from here on is at least as new as the state of the base. */
    atomic_thread_fence(memory_order_acquire);
    if (!sender && sampler_threshold(&sdk.sampler, &threshold)) {
        kept = root_is_kept(lane, slot->seq, threshold, &context);
    } else {
        if (!sender) {
            lane->fast.drop_state = 0;
            lane->root_threshold = OT_RANGE;
        }
        kept = decide(lane, slot->seq, sender, site, values, &context);
    }
    if (kept)
        slot_is_root(lane, slot, &context, 0);
    else
        slot_state_put(slot, slot->state | PUG__STATE_UNSAMPLED);
}

static void record_values(struct record_writer *w, const struct pug__site *site,
                          const union pug__value *values)
{
    for (int i = 0; i < site->n_keys; i++) {
        const union pug__value *v = &values[i];
        if (site->keys[i].type == PUG__TYPE_STR)
            record_text(w, v->s.ptr,
                        !v->s.ptr              ? 0
                        : v->s.len == SIZE_MAX ? strnlen(v->s.ptr, PUG_STR_MAX)
                                               : v->s.len);
        else
            record_u64(w, (uint64_t)v->i); /* a double has the same bytes */
    }
}

static struct pug__slot *slot_begin(struct lane *lane, struct pug__slot *slot,
                                    const struct pug__site *site, const union pug__value *values)
{
    if (values && site->n_keys && lane_slot_is_recorded(slot)) {
        struct record_writer w = record_begin(lane, RECORD_ATTRS, slot->site);
        record_u64(&w, slot->seq);
        record_values(&w, site, values);
        record_commit(&w);
    }
    if (slot->state & PUG__STATE_WATCH)
        watch_begin(lane, slot, site);
    if (lane_slot_is_recorded(slot))
        return pug__begin(&lane->fast, slot);
    /* Nobody will ask when it began, and the clock is most of what a begin costs. */
    __atomic_store_n(&lane->fast.top, slot, __ATOMIC_RELEASE);
    lane_leave(lane);
    return slot;
}

/* Below a parent that is recorded, or would be, and asks for nothing but allocations to be counted. */
static struct pug__slot *begin_counted(struct lane *lane, struct pug__site *site)
{
    struct pug__slot *slot = pug__open(&lane->fast, site);
    if (!slot)
        return NULL;
    watch_begin_counted(lane, slot);
    return pug__begin(&lane->fast, slot);
}

static __attribute__((noinline)) struct pug__slot *
begin_aside(struct lane *lane, struct pug__site *site, const union pug__value *values)
{
    struct pug__slot *slot = lane ? slot_open(lane, site) : NULL;
    if (!slot)
        return NULL;
    if (slot[-1].state & PUG__STATE_ASK)
        slot_ask(lane, slot, site, values);
    else if (slot[-1].state & PUG__STATE_ALONE)
        slot_state_put(slot, slot->state | PUG__STATE_UNSAMPLED);
    else
        slot_needs_room(lane, slot);
    return slot_begin(lane, slot, site, values);
}

struct pug__slot *pug__begin_slow(struct pug__lane *fast, struct pug__site *site,
                                  const union pug__value *values)
{
    struct lane *lane = lane_of(fast);
    if (fast && !(values && site->n_keys) &&
        (PUG__STATE_OF(fast->top) & PUG__STATE_ASIDE) == PUG__STATE_WATCH &&
        watch_is_counting(lane))
        return begin_counted(lane, site);
    return begin_aside(lane, site, values);
}

/* ---- spans that are sampled by themselves ---- */

int pug__one_in(struct pug__lane *fast, uint64_t n)
{
    struct lane *lane = lane_of(fast);
    lane->random += UINT64_C(0x9e3779b97f4a7c15); /* SplitMix64 */
    return n <= 1 || (uint64_t)((unsigned __int128)hash_mix64(lane->random) * n >> 64) == 0;
}

static struct pug__site one_in_site = {
    .n_keys = 1,
    .name = "one_in",
    .file = "",
    .function = "",
    .keys = (const struct pug__key[]){{"pugmark.one_in", PUG__TYPE_INT}, {0, 0}}};

static void record_one_in(struct lane *lane, const struct pug__slot *slot, uint64_t n)
{
    struct record_writer w = record_begin(
        lane, RECORD_ATTRS, lane_site_id(atomic_load(&sdk.memory)->head, &one_in_site));
    record_u64(&w, slot->seq);
    record_u64(&w, n);
    record_commit(&w);
}

struct pug__slot *pug__begin_alone(struct pug__lane *fast, struct pug__site *site,
                                   const union pug__value *values, uint64_t one_in)
{
    struct lane *lane = lane_of(fast);
    struct pug_context context;
    struct pug__slot *slot = fast ? slot_open(lane, site) : NULL;
    if (!slot)
        return NULL;
    const struct pug__slot *parent = slot - 1;
    if (PUG__STATE_OF(parent) & PUG__STATE_ASK)
        slot_ask(lane, slot, site, values);
    else if (!(PUG__STATE_OF(parent) & (PUG__STATE_UNSAMPLED | PUG__STATE_ALONE)))
        slot_needs_room(lane, slot);
    else
        slot_state_put(slot, slot->state | PUG__STATE_UNSAMPLED);
    if (slot->state & PUG__STATE_UNSAMPLED) {
        span_slot_context(lane, parent, &context);
        if (!pug_context_valid(&context)) { /* it is the root of a trace that is not kept */
            span_slot_context(lane, slot, &context);
            memset(context.span_id, 0, sizeof context.span_id);
        }
        slot_is_root(lane, slot, &context, PUG__STATE_ALONE);
    }
    if (lane_slot_is_recorded(slot))
        record_one_in(lane, slot, one_in);
    return slot_begin(lane, slot, site, values);
}

struct pug__slot *pug__begin_skip(struct pug__lane *fast)
{
    if (!fast)
        return NULL;
    struct pug__slot *parent = fast->top, *slot = parent + 1;
    if (PUG__STATE_OF(parent) & (PUG__STATE_UNSAMPLED | PUG__STATE_ASIDE | PUG__STATE_CONTEXT) ||
        !parent->seq || parent >= fast->last || !lane_enter(lane_of(fast)))
        return NULL;
    pug__slot_put(slot, parent->seq, parent->trace, parent->site,
                  (PUG__STATE_OF(parent) & ~(uint32_t)PUG__STATE_OWN) | PUG__STATE_SKIP);
    __atomic_store_n(&slot->start, parent->start, __ATOMIC_RELEASE);
    __atomic_store_n(&fast->top, slot, __ATOMIC_RELEASE);
    lane_leave(lane_of(fast));
    return slot;
}

/* ---- end ---- */

static bool is_open(const struct lane *lane, const struct pug__slot *slot)
{
    return slot > lane->slots && slot <= lane->fast.top;
}

void pug__end_slow(struct pug__slot *slot, uint64_t now)
{
    struct lane *lane = current_lane();
    /* All there is to do for one that is not recorded and has nothing below it. */
    if (lane && slot == lane->fast.top && lane->fast.limit && slot > lane->slots &&
        (slot->state & PUG__STATE_MASK) == PUG__STATE_UNSAMPLED) {
        __atomic_store_n(&lane->fast.top, slot - 1, __ATOMIC_RELEASE);
        return;
    }
    if (!now && lane)
        now = ticks_now(lane->fast.clock);
    if (lane && slot == lane->fast.top && lane->fast.limit &&
        (slot->state & PUG__STATE_MASK) == PUG__STATE_WATCH && watch_end_counted(lane, slot) &&
        pug__end_put(&lane->fast, slot, now))
        return;
    /* Of another thread, or of the parent process, or ended already. */
    if (!lane || !is_open(lane, slot))
        return;
    /* Whoever was inside has jumped out of it: a scope ends only outside. */
    lane->fast.limit = 0;
    atomic_signal_fence(memory_order_seq_cst);
    lane_end_down_to(lane, slot, now);
    lane_leave(lane);
}

void pug__copy(char *to, const char *from, size_t n)
{
    memcpy(to, from, n);
}

/* ---- contexts ---- */

void span_slot_context(const struct lane *lane, const struct pug__slot *slot,
                       struct pug_context *ret)
{
    const struct memory_head *head = atomic_load_explicit(&sdk.memory, memory_order_relaxed)->head;
    const struct pug_context *from = context_below(lane, slot);
    span_context_clear(ret);
    if (slot == lane->slots)
        return;
    if (from) {
        memcpy(ret, from, offsetof(struct pug_context, tracestate) + from->tracestate_len);
        if (slot->state & PUG__STATE_CONTEXT)
            return;
    } else {
        uint64_t trace[2], number = number_of(lane, slot->trace);
        if (slot->state & PUG__STATE_UNSAMPLED)
            id_trace_decided(&head->keys, number, lane->root_threshold, false, trace);
        else
            id_trace(&head->keys, number, trace);
        put_be64(ret->trace_id, trace[0]);
        put_be64(ret->trace_id + 8, trace[1]);
        ret->flags = PUG_FLAG_SAMPLED | PUG_FLAG_RANDOM;
    }
    if (slot->state & PUG__STATE_UNSAMPLED && ret->flags & PUG_FLAG_SAMPLED) {
        ret->flags &= (uint8_t)~PUG_FLAG_SAMPLED;
        if (ret->tracestate_len) /* its threshold is not ours */
            ot_state_set_th(ret, NULL);
    }
    ret->remote = 0;
    put_be64(ret->span_id, id_span(&head->keys, number_of(lane, slot->seq)));
}

bool span_has_context(void)
{
    const struct lane *lane = current_lane();
    if (!PUG__ON)
        return passing_current() != NULL;
    return lane ? lane->fast.top != lane->slots : atomic_load(&sdk.state) == SDK_FORKED;
}

void span_current_context(struct pug_context *ret_context)
{
    struct lane *lane = current_lane();
    if (PUG__ON && lane)
        span_slot_context(lane, lane->fast.top, ret_context);
    else if (PUG__ON && atomic_load(&sdk.state) == SDK_FORKED &&
             pthread_equal(sdk.inherited_by, pthread_self()))
        *ret_context = sdk.inherited;
    else if (!PUG__ON && passing_current())
        *ret_context = *passing_current();
    else
        span_context_clear(ret_context);
}

struct pug_context pug_context_current(void)
{
    struct pug_context c;
    span_current_context(&c);
    return c;
}

struct pug__slot *pug__attach(const struct pug_context *context)
{
    if (!PUG__ON)
        return passing_attach(context);
    struct lane *lane = pug_context_valid(context) ? some_lane() : NULL;
    bool ask = context && context->remote && !sampler_keeps_senders(&sdk.sampler);
    return lane ? lane_attach(lane, context, ask) : NULL;
}

void pug__detach(struct pug__slot *slot)
{
    struct lane *lane = current_lane();
    if (slot && !passing_detach(slot) && lane)
        pug__end_slow(slot, 0);
}

pug_attachment pug_context_attach(const struct pug_context *context)
{
    return pug__attach(context);
}

void pug_context_detach(pug_attachment attachment)
{
    pug__detach(attachment);
}

/* ---- records about a span ---- */

struct target {
    struct lane *lane;
    uint64_t id;
    uint8_t kind; /* 0 or RECORD_OF_HANDLE */
};

static uint64_t id_word(const uint8_t id[8])
{
    uint64_t w;
    memcpy(&w, id, 8);
    return w;
}

static uint32_t handle_open_state(void)
{
    return HANDLE_OPEN | atomic_load_explicit(&sdk.epoch, memory_order_relaxed)
                             << HANDLE_EPOCH_SHIFT;
}

/* The open span that is meant, and the lane to write to, entered. False: there is none, or it
 * leaves no record, or there is no room. */
static bool target_enter(struct pug_span *span, struct target *ret)
{
    struct target t = {.kind = 0};
    if (!PUG__ON)
        return false;
    if (span) {
        if (span->pug__state != handle_open_state())
            return false;
        t = (struct target){some_lane(), id_word(span->context.span_id), RECORD_OF_HANDLE};
    } else {
        t.lane = current_lane();
        const struct pug__slot *top = t.lane ? t.lane->fast.top : NULL;
        if (!t.lane || top == t.lane->slots)
            return false;
        uint16_t number = lane_context_of(top);
        const struct pug_context *c = number ? &t.lane->contexts[number - 1] : NULL;
        if (PUG__STATE_OF(top) &
            (PUG__STATE_LOST | PUG__STATE_UNSAMPLED | PUG__STATE_ORPHAN | PUG__STATE_SKIP))
            return false;
        if (!(PUG__STATE_OF(top) & PUG__STATE_CONTEXT)) {
            t.id = top->seq;
        } else if (c && !c->remote &&
                   c->flags & PUG_FLAG_SAMPLED) { /* the handle that was attached */
            t.id = id_word(c->span_id);
            t.kind = RECORD_OF_HANDLE;
        } else {
            return false;
        }
    }
    if (!t.lane || !lane_enter(t.lane))
        return false;
    if (!lane_has_room(t.lane)) {
        lane_count(&t.lane->lost_details);
        lane_leave(t.lane);
        return false;
    }
    *ret = t;
    return true;
}

static struct record_writer target_record(const struct target *t, enum record_kind kind,
                                          uint32_t high)
{
    struct record_writer w = record_begin(t->lane, (uint8_t)(kind | t->kind), high);
    record_u64(&w, t->id);
    return w;
}

static void target_done(const struct target *t, struct record_writer *w)
{
    record_commit(w);
    lane_leave(t->lane);
}

#define KEY_MAX 255

static size_t key_len(const char *key)
{
    return key ? strnlen(key, KEY_MAX) : 0;
}

static void set_word(struct pug_span *span, const char *key, uint32_t type, uint64_t word)
{
    struct target t;
    size_t n = key_len(key);
    if (!n || !target_enter(span, &t))
        return;
    struct record_writer w = target_record(&t, RECORD_SET, type);
    record_u64(&w, word);
    record_text(&w, key, n);
    target_done(&t, &w);
}

void pug_set_int(struct pug_span *span, const char *key, int64_t value)
{
    set_word(span, key, PUG__TYPE_INT, (uint64_t)value);
}

void pug_set_bool(struct pug_span *span, const char *key, int value)
{
    set_word(span, key, PUG__TYPE_BOOL, value != 0);
}

void pug_set_double(struct pug_span *span, const char *key, double value)
{
    uint64_t word;
    memcpy(&word, &value, 8);
    set_word(span, key, PUG__TYPE_DOUBLE, word);
}

void pug_set_strn(struct pug_span *span, const char *key, const char *value, size_t len)
{
    struct target t;
    size_t n = key_len(key);
    if (!n || !target_enter(span, &t))
        return;
    struct record_writer w = target_record(&t, RECORD_SET, PUG__TYPE_STR);
    record_text(&w, value, value ? len : 0);
    record_text(&w, key, n);
    target_done(&t, &w);
}

void pug_set_str(struct pug_span *span, const char *key, const char *value)
{
    pug_set_strn(span, key, value, pug__len(value));
}

void pug_set_name(struct pug_span *span, const char *name)
{
    struct target t;
    if (!name || !target_enter(span, &t))
        return;
    struct record_writer w = target_record(&t, RECORD_NAME, 0);
    record_text(&w, name, strlen(name));
    target_done(&t, &w);
}

void pug_status(struct pug_span *span, enum pug_status_code code, const char *message)
{
    struct target t;
    if (!target_enter(span, &t))
        return;
    struct record_writer w = target_record(&t, RECORD_STATUS, (uint32_t)code);
    record_text(&w, message, pug__len(message));
    target_done(&t, &w);
}

void pug_error(struct pug_span *span, const char *message)
{
    pug_status(span, PUG_STATUS_ERROR, message);
}

void pug__event(struct pug_span *span, struct pug__site *site, const union pug__value *values)
{
    struct target t;
    if (!target_enter(span, &t))
        return;
    struct record_writer w = target_record(&t, RECORD_EVENT,
                                           lane_site_id(atomic_load(&sdk.memory)->head, site));
    record_u64(&w, ticks_now(t.lane->fast.clock));
    record_values(&w, site, values);
    target_done(&t, &w);
}

/* `site` may be NULL: no attributes. */
static void link_record(struct pug_span *span, const struct pug_context *to, struct pug__site *site,
                        const union pug__value *values)
{
    struct target t;
    if (!pug_context_valid(to) || to->tracestate_len > PUG_TRACESTATE_MAX ||
        !target_enter(span, &t))
        return;
    struct record_writer w = target_record(&t, RECORD_LINK,
                                           to->flags | (uint32_t)(to->remote != 0) << 8);
    record_bytes(&w, to->trace_id, 16);
    record_bytes(&w, to->span_id, 8);
    record_text(&w, to->tracestate, to->tracestate_len);
    record_u64(&w, site ? lane_site_id(atomic_load(&sdk.memory)->head, site) : 0);
    if (site)
        record_values(&w, site, values);
    target_done(&t, &w);
}

void pug_link(struct pug_span *span, const struct pug_context *to)
{
    link_record(span, to, NULL, NULL);
}

void pug__link(struct pug_span *span, const struct pug_context *to, struct pug__site *site,
               const union pug__value *values)
{
    link_record(span, to, site, values);
}

/* ---- handles ---- */

void pug__span_none(struct pug_span *span)
{
    span_context_clear(&span->context);
    memset(span->parent_id, 0, sizeof span->parent_id);
    span->pug__state = 0;
}

void pug__span_pass(struct pug_span *span, const struct pug_context *from)
{
    struct pug_context *c = &span->context;
    if (from == c) /* of this very handle's last use */
        from = NULL;
    pug__span_none(span);
    if (pug_context_valid(from) && from->tracestate_len <= PUG_TRACESTATE_MAX)
        memcpy(c, from, offsetof(struct pug_context, tracestate) + from->tracestate_len);
    else
        span_current_context(c);
}

static void decide_handle(struct lane *lane, uint64_t seq, struct pug_context *c,
                          const struct pug__site *site, const union pug__value *values)
{
    struct pug_context decided;
    decide(lane, seq, c, site, values, &decided);
    memcpy(c, &decided, offsetof(struct pug_context, tracestate) + decided.tracestate_len);
}

void pug__span_start(struct pug_span *span, const struct pug_context *from, struct pug__site *site,
                     const union pug__value *values)
{
    struct lane *lane = some_lane();
    pug__span_none(span);
    if (!lane || !lane_enter(lane))
        return;
    const struct memory_head *head = atomic_load(&sdk.memory)->head;
    struct pug_context *c = &span->context;
    /* `from` may be the context of this very handle's last use: it was cleared above. */
    if (from != c && pug_context_valid(from) && from->tracestate_len <= PUG_TRACESTATE_MAX)
        memcpy(c, from, offsetof(struct pug_context, tracestate) + from->tracestate_len);
    else
        span_slot_context(lane, lane->fast.top, c);
    uint8_t remote = c->remote;
    uint64_t seq = ++lane->fast.seq, number = number_of(lane, seq);
    if (pug_context_valid(c)) {
        memcpy(span->parent_id, c->span_id, 8);
        if (remote && sampler_keeps_senders(&sdk.sampler))
            ot_state_repair(c);
        else if (remote)
            decide_handle(lane, seq, c, site, values);
    } else if (PUG__STATE_OF(&lane->slots[0]) & PUG__STATE_ASK) {
        decide(lane, seq, NULL, site, values, c);
    } else {
        uint64_t trace[2];
        id_trace(&head->keys, number, trace);
        put_be64(c->trace_id, trace[0]);
        put_be64(c->trace_id + 8, trace[1]);
        c->flags = PUG_FLAG_SAMPLED | PUG_FLAG_RANDOM;
    }
    c->remote = 0;
    put_be64(c->span_id, id_span(&head->keys, number));
    span->pug__site = lane_site_id(atomic_load(&sdk.memory)->head, site);
    span->pug__start = ticks_now(lane->fast.clock);
    if (!(c->flags & PUG_FLAG_SAMPLED)) {
        span->pug__state = HANDLE_UNSAMPLED;
    } else if (!lane_has_room(lane)) {
        lane_count(&lane->lost_ring_full);
    } else {
        struct record_writer w = record_begin(lane, RECORD_START, span->pug__site);
        record_u64(&w, id_word(c->span_id));
        record_u64(&w, span->pug__start);
        record_u64(&w, id_word(span->parent_id));
        record_u64(&w, c->flags | (uint64_t)remote << 8);
        record_bytes(&w, c->trace_id, 16);
        record_text(&w, c->tracestate, c->tracestate_len);
        record_values(&w, site, values);
        record_commit(&w);
        span->pug__state = handle_open_state();
    }
    lane_leave(lane);
}

/* So much of the slack may be used by the ends of handles, which no place was kept for. */
#define STOP_SLACK_BYTES 4096

void pug_span_end(struct pug_span *span)
{
    if (!span || !PUG__ON || span->pug__state != handle_open_state())
        return;
    struct lane *lane = some_lane();
    if (!lane || !lane_enter(lane))
        return;
    uint64_t now = ticks_now(lane->fast.clock);
    span->pug__state = 0;
    if (lane_has_room(lane) || lane->fast.head <= lane->fast.room + STOP_SLACK_BYTES) {
        struct record_writer w = record_begin(lane, RECORD_STOP, span->pug__site);
        record_u64(&w, id_word(span->context.span_id));
        record_u64(&w, span->pug__start);
        record_u64(&w, now);
        record_u64(&w, id_word(span->parent_id));
        record_u64(&w, span->context.flags);
        record_bytes(&w, span->context.trace_id, 16);
        record_commit(&w);
    } else {
        lane_count(&lane->lost_ring_full);
    }
    lane_leave(lane);
}
