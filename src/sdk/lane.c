#include "sdk/lane.h"

#include "base/clock.h"
#include "sdk/ot_state.h"
#include "sdk/watch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

/* So much of a new lane is touched when it is prepared; the drain does the rest once it is owned.
 */
#define RING_TOUCHED_BYTES (64u << 10)

/* ---- the memory file ---- */

static int file_new(void)
{
    int fd = memfd_create("pugmark", MFD_CLOEXEC | MFD_NOEXEC_SEAL);
    if (fd < 0 && errno == EINVAL) /* before Linux 6.3 */
        fd = memfd_create("pugmark", MFD_CLOEXEC);
    if (fd >= 0)
        (void)fchmod(fd, 0600); /* memfds are born 0777 */
    return fd;
}

static void keys_init(struct id_keys *keys)
{
    if (getrandom(keys, sizeof *keys, 0) == (ssize_t)sizeof *keys)
        return;
    /* No entropy to be had: time and place are still ours alone. */
    keys->span = hash_mix64(clock_realtime_ns() ^ (uint64_t)getpid() << 48);
    keys->trace_high = hash_mix64(keys->span + (uintptr_t)keys);
    keys->trace_low = hash_mix64(keys->trace_high + clock_monotonic_ns());
}

static size_t lane_stride(const struct memory *m)
{
    return LANE_HEAD_BYTES + m->ring_bytes;
}

static size_t lane_map_bytes(const struct memory *m)
{
    return LANE_HEAD_BYTES + 2 * m->ring_bytes;
}

static void sites_take_over(struct memory_head *head, const struct memory_head *old)
{
    uint32_t n = atomic_load(&old->n_sites), used = atomic_load(&old->site_bytes_used);
    if (n >= SITES_MAX)
        n = SITES_MAX - 1;
    if (used > SITE_BYTES)
        used = SITE_BYTES;
    memcpy(head->site_bytes, old->site_bytes, used);
    for (uint32_t i = 0; i <= n; i++)
        atomic_store_explicit(&head->sites[i], atomic_load(&old->sites[i]), memory_order_relaxed);
    atomic_store(&head->n_sites, atomic_load(&old->n_sites));
    atomic_store(&head->site_bytes_used, atomic_load(&old->site_bytes_used));
}

int memory_new(size_t ring_bytes, uint32_t clock, const struct memory *old, struct memory **ret)
{
    struct memory *m = calloc(1, sizeof *m);
    if (!m)
        return ERR_NOMEM;
    m->ring_bytes = ring_bytes;
    m->clock = clock;
    m->fd = OWN_FD_NONE;
    int fd = file_new();
    if (fd < 0)
        goto failed;
    m->fd = own_fd_take(fd);
    if (m->fd.fd < 0 || ftruncate(m->fd.fd, LANES_AT) < 0)
        goto failed;
    void *p = mmap(NULL, LANES_AT, PROT_READ | PROT_WRITE, MAP_SHARED, m->fd.fd, 0);
    if (p == MAP_FAILED)
        goto failed;
    m->head = p;
    m->head->version = 1;
    m->head->pid = (uint32_t)getpid();
    m->head->started_epoch_ns = clock_realtime_ns();
    m->head->ring_bytes = (uint32_t)ring_bytes;
    m->head->lane_stride = (uint32_t)lane_stride(m);
    m->head->lanes_at = LANES_AT;
    keys_init(&m->head->keys);
    if (old) {
        sites_take_over(m->head, old->head);
    } else {
        static struct pug__site no_room = {.name = "(too many sites)", .file = "", .function = ""};
        struct pug__site site = no_room;
        atomic_store(&m->head->site_bytes_used, 8); /* offset 0 means "not yet" */
        lane_intern(m->head, &site);
    }
    m->head->magic = MEMORY_MAGIC;
    *ret = m;
    return 0;
failed:;
    int err = err_from_errno(errno);
    own_fd_close(&m->fd);
    free(m);
    return err;
}

void memory_free(struct memory *m)
{
    if (!m)
        return;
    for (uint32_t i = 0; i < atomic_load(&m->n_lanes); i++)
        munmap(atomic_load(&m->lanes[i]), lane_map_bytes(m));
    munmap(m->head, LANES_AT);
    own_fd_close(&m->fd);
    free(m);
}

static struct lane *lane_map(struct memory *m, off_t at)
{
    size_t bytes = lane_map_bytes(m), once = lane_stride(m);
    char *p = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    if (mmap(p, once, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, m->fd.fd, at) == MAP_FAILED ||
        mmap(p + once, m->ring_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, m->fd.fd,
             at + (off_t)LANE_HEAD_BYTES) == MAP_FAILED) {
        munmap(p, bytes);
        return NULL;
    }
    return (struct lane *)(void *)p;
}

/* The host has closed the file: lanes to come lie in another one. Readers from outside see those that
 * were there; recording goes on. */
static bool file_anew(struct memory *m)
{
    int fd = file_new();
    own_fd_close(&m->fd);
    if (fd >= 0)
        m->fd = own_fd_take(fd);
    return m->fd.fd >= 0;
}

static int lane_prepare(struct memory *m, uint32_t index)
{
    off_t at = (off_t)LANES_AT + (off_t)index * (off_t)lane_stride(m);
    if (!own_fd_ok(&m->fd) && !file_anew(m))
        return err_from_errno(errno);
    if (ftruncate(m->fd.fd, at + (off_t)lane_stride(m)) < 0)
        return err_from_errno(errno);
    struct lane *lane = lane_map(m, at);
    if (!lane)
        return ERR_NOMEM;
    /* Touch what the first spans need; if the machine has no such call, they fault. */
    madvise(lane, LANE_TOUCHED_BYTES, MADV_POPULATE_WRITE);
    madvise((char *)lane + LANE_HEAD_BYTES, RING_TOUCHED_BYTES, MADV_POPULATE_WRITE);
    lane->index = index;
    lane->ring_bytes = (uint32_t)m->ring_bytes;
    lane->self = (uintptr_t)lane;
    lane->fast.ring = (char *)lane + LANE_HEAD_BYTES;
    lane->fast.mask = (uint32_t)(m->ring_bytes - 1);
    lane->fast.clock = m->clock;
    lane->fast.top = lane->slots;
    lane->fast.last = lane->slots + PUG_DEPTH_MAX;
    lane->fast.room = m->ring_bytes - PUG__SLACK;
    lane->fast.limit = lane->fast.room;
    lane->slots[0].state = atomic_load(&m->base_state);
    lane->random = hash_mix64(m->head->keys.span + index);
    lane->root_threshold = OT_RANGE;
    atomic_store(&lane->state, LANE_FREE);
    atomic_store(&m->lanes[index], lane);
    return 0;
}

int memory_prepare(struct memory *m, unsigned spare)
{
    uint32_t n = atomic_load(&m->n_lanes), free_lanes = 0;
    int err = 0;
    for (uint32_t i = 0; i < n; i++)
        free_lanes += atomic_load_explicit(&atomic_load(&m->lanes[i])->state,
                                           memory_order_relaxed) == LANE_FREE;
    while (free_lanes < spare && n < LANES_MAX) {
        err = lane_prepare(m, n);
        if (err)
            break;
        n++;
        free_lanes++;
        atomic_store(&m->n_lanes, n);
        atomic_store(&m->head->n_lanes, n);
    }
    return free_lanes ? 0 : err ? err : ERR_FULL;
}

void memory_base_state(struct memory *m, uint32_t mask, uint32_t bits)
{
    /* One preparer at a time (start, then the drain): nobody adds a lane in between. */
    uint32_t state = (atomic_load(&m->base_state) & ~mask) | bits;
    uint32_t n = atomic_load(&m->n_lanes);
    atomic_store(&m->base_state, state);
    for (uint32_t i = 0; i < n; i++)
        /* pairs with the fence in slot_ask */
        __atomic_store_n(&atomic_load(&m->lanes[i])->slots[0].state, state, __ATOMIC_RELEASE);
}

void memory_ask(struct memory *m, bool ask)
{
    /* A number comes again after 127 samplers, if a thread began no root meanwhile. */
    uint32_t next = (atomic_load(&m->base_state) + PUG__STATE_ROUND_ONE) & PUG__STATE_ROUND;
    memory_base_state(m, PUG__STATE_ROUND | PUG__STATE_ASK, next | (ask ? PUG__STATE_ASK : 0));
}

void lane_populate(struct lane *lane)
{
    madvise(lane->fast.ring, lane->ring_bytes + RING_TOUCHED_BYTES, MADV_POPULATE_WRITE);
}

/* ---- the table of sites ----
 *
 * Entry: line (4), kind, n_keys, 2 unused; then length (2) and bytes of name, file, function; then
 * for each key type (1), length (1) and bytes. */

#define SITE_NAME_MAX 512
#define SITE_KEY_MAX 255

static char *put_text16(char *at, const char *text, size_t len)
{
    uint16_t n = (uint16_t)len;
    memcpy(at, &n, 2);
    memcpy(at + 2, text, len);
    return at + 2 + len;
}

static size_t text_len(const char *text, size_t max)
{
    return text ? strnlen(text, max) : 0;
}

uint32_t lane_intern(struct memory_head *head, struct pug__site *site)
{
    size_t name = text_len(site->name, SITE_NAME_MAX), file = text_len(site->file, SITE_NAME_MAX),
           function = text_len(site->function, SITE_NAME_MAX);
    size_t bytes = 8 + 6 + name + file + function;
    uint8_t n_keys = site->n_keys < PUG_ATTRS_MAX ? site->n_keys : PUG_ATTRS_MAX;
    for (int i = 0; i < n_keys; i++)
        bytes += 2 + text_len(site->keys[i].name, SITE_KEY_MAX);
    bytes = (bytes + 7) & ~(size_t)7;
    /* Ids and room are taken first and filled then, so that nobody waits for anybody. A site that
     * two threads reach at once may be entered twice, which does no harm. */
    uint32_t id = 1;
    uint32_t offset = atomic_load(&head->site_bytes_used);
    do {
        if (offset + bytes > SITE_BYTES)
            goto full;
    } while (
        !atomic_compare_exchange_weak(&head->site_bytes_used, &offset, offset + (uint32_t)bytes));
    uint32_t n = atomic_load(&head->n_sites);
    do {
        if (n >= SITES_MAX - 1)
            goto full;
    } while (!atomic_compare_exchange_weak(&head->n_sites, &n, n + 1));
    id = n + 1;
    char *at = head->site_bytes + offset;
    memcpy(at, &site->line, 4);
    at[4] = (char)site->kind;
    at[5] = (char)n_keys;
    at = put_text16(at + 8, site->name, name);
    at = put_text16(at, site->file, file);
    at = put_text16(at, site->function, function);
    for (int i = 0; i < n_keys; i++) {
        size_t len = text_len(site->keys[i].name, SITE_KEY_MAX);
        at[0] = (char)site->keys[i].type;
        at[1] = (char)len;
        memcpy(at + 2, site->keys[i].name, len);
        at += 2 + len;
    }
    atomic_store_explicit(&head->sites[id], offset, memory_order_release);
full:
    __atomic_store_n(&site->id, id, __ATOMIC_RELEASE);
    return id;
}

static bool get_text(const char **at, const char *end, size_t len_bytes, struct str *ret)
{
    uint16_t n = 0;
    if ((size_t)(end - *at) < len_bytes)
        return false;
    memcpy(&n, *at, len_bytes); /* little-endian, as every machine we run on */
    *at += len_bytes;
    if ((size_t)(end - *at) < n)
        return false;
    *ret = (struct str){*at, n};
    *at += n;
    return true;
}

int memory_site(const struct memory_head *head, uint32_t id, struct site_view *ret)
{
    struct site_view v = {.kind = 0};
    uint32_t offset = id && id < SITES_MAX
                          ? atomic_load_explicit(&head->sites[id], memory_order_acquire)
                          : 0;
    if (!offset || offset > SITE_BYTES - 8)
        return ERR_NOT_FOUND;
    const char *at = head->site_bytes + offset, *end = head->site_bytes + SITE_BYTES;
    memcpy(&v.line, at, 4);
    v.kind = (uint8_t)at[4];
    v.n_keys = (uint8_t)at[5];
    at += 8;
    if (v.n_keys > PUG_ATTRS_MAX || !get_text(&at, end, 2, &v.name) ||
        !get_text(&at, end, 2, &v.file) || !get_text(&at, end, 2, &v.function))
        return ERR_CORRUPT;
    for (int i = 0; i < v.n_keys; i++) {
        if (at == end)
            return ERR_CORRUPT;
        v.keys[i].type = (uint8_t)*at++;
        if (!get_text(&at, end, 1, &v.keys[i].name))
            return ERR_CORRUPT;
    }
    *ret = v;
    return 0;
}

/* ---- a thread and its lane ---- */

struct lane *lane_claim(struct memory *m, pthread_key_t key)
{
    uint32_t n = atomic_load_explicit(&m->n_lanes, memory_order_acquire);
    for (uint32_t i = 0; i < n; i++) {
        struct lane *lane = atomic_load_explicit(&m->lanes[i], memory_order_acquire);
        uint32_t expected = LANE_FREE;
        if (atomic_load_explicit(&lane->state, memory_order_relaxed) != LANE_FREE ||
            !atomic_compare_exchange_strong(&lane->state, &expected, LANE_OWNED))
            continue;
        lane->thread = (uint64_t)(uintptr_t)pthread_self();
        lane->allocated = NULL;
        if (pthread_setspecific(key, lane) != 0) {
            atomic_store(&lane->state, LANE_FREE);
            return NULL;
        }
        return lane;
    }
    return NULL;
}

void lane_leave_thread(struct lane *lane)
{
    lane->fast.limit = lane->fast.room; /* whatever was interrupted is over */
    if (lane->fast.top > lane->slots && lane_enter(lane)) {
        lane_end_down_to(lane, lane->slots + 1, ticks_now(lane->fast.clock));
        lane_leave(lane);
    }
    atomic_store_explicit(&lane->state, LANE_LEFT, memory_order_release);
}

bool lane_enter(struct lane *lane)
{
    if (lane->fast.limit == 0) {
        lane_count(&lane->lost_interrupt);
        return false;
    }
    lane->fast.limit = 0;
    atomic_signal_fence(memory_order_seq_cst);
    return true;
}

void lane_leave(struct lane *lane)
{
    atomic_signal_fence(memory_order_seq_cst);
    lane->fast.limit = lane->fast.room;
}

bool lane_has_room(struct lane *lane)
{
    if (lane->fast.head <= lane->fast.room)
        return true;
    lane->fast.room = atomic_load_explicit(&lane->tail, memory_order_acquire) + lane->ring_bytes -
                      PUG__SLACK;
    return lane->fast.head <= lane->fast.room;
}

/* ---- records ---- */

struct record_writer record_begin(struct lane *lane, uint8_t kind, uint32_t high)
{
    struct record_writer w = {lane, lane->fast.ring + (lane->fast.head & lane->fast.mask)};
    record_u64(&w, kind | (uint64_t)high << 32);
    return w;
}

void record_u64(struct record_writer *w, uint64_t word)
{
    memcpy(w->at, &word, 8);
    w->at += 8;
}

void record_bytes(struct record_writer *w, const void *bytes, size_t n)
{
    memcpy(w->at, bytes, n);
    w->at += n;
}

void record_text(struct record_writer *w, const char *text, size_t len)
{
    if (len > PUG_STR_MAX)
        len = PUG_STR_MAX;
    record_u64(w, len);
    if (len)
        memcpy(w->at, text, len);
    w->at += (len + 7) & ~(size_t)7;
}

void record_commit(struct record_writer *w)
{
    struct pug__lane *fast = &w->lane->fast;
    char *start = fast->ring + (fast->head & fast->mask);
    uint64_t first, bytes = (uint64_t)(w->at - start);
    memcpy(&first, start, 8);
    first |= bytes / 8 << 8;
    memcpy(start, &first, 8);
    __atomic_store_n(&fast->head, fast->head + bytes, __ATOMIC_RELEASE);
}

static void record_end(struct lane *lane, const struct pug__slot *slot, uint64_t now)
{
    struct record_writer w = record_begin(lane, RECORD_END_LONG, slot->site);
    record_u64(&w, slot->start);
    record_u64(&w, now);
    record_u64(&w, slot->seq);
    record_u64(&w, slot[-1].seq);
    record_u64(&w, slot->trace);
    record_commit(&w);
}

void lane_end_down_to(struct lane *lane, struct pug__slot *slot, uint64_t now)
{
    bool watched = slot->state & PUG__STATE_WATCH;
    for (struct pug__slot *s = lane->fast.top; s >= slot; s--) {
        if (s->state & PUG__STATE_WATCH)
            watch_end(lane, s);
        if (s->state & PUG__STATE_CONTEXT) {
            if (!(s->state & (PUG__STATE_ASK | PUG__STATE_ORPHAN))) {
                struct record_writer w = record_begin(lane, RECORD_CONTEXT_END, 0);
                record_u64(&w, s->seq);
                record_commit(&w);
            }
            lane->n_contexts--;
            lane->n_attached--;
        } else if (s->state & PUG__STATE_ORPHAN) {
            lane_count(&lane->lost_ring_full);
        } else if (lane_slot_is_recorded(s)) {
            record_end(lane, s, now);
        }
        if (s->state & PUG__STATE_ROOT) {
            struct record_writer w = record_begin(lane, RECORD_CONTEXT_END, 0);
            record_u64(&w, s->seq);
            record_commit(&w);
            lane->n_contexts--;
        }
        __atomic_store_n(&lane->fast.top, s - 1, __ATOMIC_RELEASE);
    }
    if (watched)
        watch_moved(lane);
}

static void record_context(struct lane *lane, enum record_kind kind, uint64_t seq,
                           const struct pug_context *context)
{
    struct record_writer w = record_begin(lane, kind,
                                          context->flags | (uint32_t)(context->remote != 0) << 8);
    record_u64(&w, seq);
    record_bytes(&w, context->trace_id, 16);
    record_bytes(&w, context->span_id, 8);
    record_text(&w, context->tracestate, context->tracestate_len);
    record_commit(&w);
}

struct pug__slot *lane_attach(struct lane *lane, const struct pug_context *context, bool ask)
{
    struct pug__slot *parent = lane->fast.top, *slot = parent + 1;
    if (!pug_context_valid(context) || context->tracestate_len > PUG_TRACESTATE_MAX)
        return NULL;
    if (!lane_enter(lane))
        return NULL;
    if (parent >= lane->fast.last || lane->n_attached == LANE_CONTEXTS_MAX ||
        lane->n_contexts == LANE_CONTEXT_SLOTS) {
        lane_count(&lane->lost_details);
        lane_leave(lane);
        return NULL;
    }
    uint32_t number = ++lane->n_contexts;
    lane->n_attached++;
    struct pug_context *mine = &lane->contexts[number - 1];
    memcpy(mine, context, offsetof(struct pug_context, tracestate) + context->tracestate_len);
    if (mine->remote)
        ot_state_repair(mine);
    uint64_t seq = ++lane->fast.seq;
    uint32_t slot_state = PUG__STATE_CONTEXT | (PUG__STATE_OF(parent) & PUG__STATE_WATCH) |
                          number << 16;
    if (ask || !(context->flags & PUG_FLAG_SAMPLED))
        /* Not UNSAMPLED itself: what begins in it has an id of its own, to be passed on. */
        slot_state |= PUG__STATE_ASK;
    else if (!lane_has_room(lane))
        /* Nobody will know what trace its children belong to: they count as lost when they end. */
        slot_state |= PUG__STATE_ORPHAN;
    else
        record_context(lane, RECORD_CONTEXT, seq, mine);
    pug__slot_put(slot, seq, seq, 0, slot_state);
    __atomic_store_n(&slot->start, ticks_now(lane->fast.clock), __ATOMIC_RELEASE);
    __atomic_store_n(&lane->fast.top, slot, __ATOMIC_RELEASE);
    if (slot_state & PUG__STATE_WATCH)
        watch_moved(lane);
    lane_leave(lane);
    return slot;
}

uint32_t lane_root(struct lane *lane, const struct pug__slot *slot,
                   const struct pug_context *context)
{
    if (lane->n_contexts == LANE_CONTEXT_SLOTS || !lane_has_room(lane))
        return 0;
    uint32_t number = ++lane->n_contexts;
    struct pug_context *mine = &lane->contexts[number - 1];
    if (mine != context)
        memcpy(mine, context, offsetof(struct pug_context, tracestate) + context->tracestate_len);
    record_context(lane, RECORD_ROOT, slot->seq, mine);
    return PUG__STATE_ROOT | number << 16;
}
