/* Lanes and the memory file they live in.
 *
 * One memfd (0600, no name in any file system) a process:
 *
 *     0           struct memory_head: who, which clock, which keys; the table of sites
 *     LANES_AT    lane 0: struct lane, its ring; lane 1; ...
 *
 * so that another process that holds the descriptor can read everything, also after this one died.
 * Each ring is mapped twice in a row.
 *
 * A lane is FREE (prepared, nobody's), OWNED (by one thread) or LEFT (its thread is gone and the
 * drain has not yet read all of it):
 *
 *     FREE  -> OWNED   a thread at its first span, by compare-and-swap (lane_claim)
 *     OWNED -> LEFT    that thread at its end (a destructor of thread-specific data)
 *     LEFT  -> FREE    the drain, when the ring is empty
 *
 * Lanes are prepared ahead by pug_start and the drain, so that claiming one is no system call. They
 * are never unmapped (but in the child after fork): a thread may be inside at any time. */
#ifndef SDK_LANE_H
#define SDK_LANE_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/err.h"
#include "base/str.h"
#include "sdk/id.h"
#include "sdk/own_fd.h"
#include "sdk/record.h"
#include "sdk/ticks.h"

#define LANES_MAX 1024
#define LANE_CONTEXTS_MAX 32 /* attached at the same time on one thread */
/* With those that roots have for themselves, of which each attached one can have one below it. */
#define LANE_CONTEXT_SLOTS (2 * LANE_CONTEXTS_MAX + 8)
#define LANE_RING_BYTES_MIN (128u << 10)
#define LANE_RING_BYTES_MAX (256u << 20)
#define LANES_SPARE 16      /* kept ready for new threads, */
#define LANES_SPARE_MAX 128 /* where they come and go quickly */
#define SITES_MAX (1u << 16)
#define SITE_BYTES (4u << 20)

enum lane_state { LANE_NONE, LANE_FREE, LANE_OWNED, LANE_LEFT };

/* Of one thread; they only grow. The bytes with ALLOC_BLOCK_EXTRA for each block (alloc.h). See watch.h. */
struct watch_counters {
    uint64_t alloc_count, alloc_bytes, dealloc_count, dealloc_bytes;
};

/* As they were when the scope with that seq began; on one line. */
struct watch_mark {
    _Alignas(64) uint64_t seq;
    struct watch_counters then;
};

struct lane {
    struct pug__lane fast; /* the owner's lines, see pugmark/inline.h */
    /* on the second one, of a lane that is watched: its thread's counters; NULL: not looked for yet */
    const struct watch_counters *allocated;
    uint64_t allocated_head; /* how the records about them begin */

    /* the drain's line */
    _Alignas(64) _Atomic uint64_t tail; /* pairs with the acquire in lane_room */

    /* the owner's, seldom */
    _Alignas(64) _Atomic uint64_t lost_ring_full;
    _Atomic uint64_t lost_depth, lost_interrupt, lost_details;
    _Atomic uint32_t state;
    uint32_t index;
    uint32_t n_contexts; /* in `contexts` */
    uint32_t n_attached; /* of them */
    uint32_t ring_bytes;
    _Atomic uint32_t reading; /* the sampler's rules */
    uint64_t random;          /* of PUG_SPAN_ONE_IN, and of how many roots are not kept */
    uint64_t root_threshold;  /* that the root below the base was decided with; else OT_RANGE */
    uint64_t thread;          /* pthread_self() of the owner */
    uint64_t self; /* address of this struct in its own process: `top` - self is an offset */
    struct pug_context contexts[LANE_CONTEXT_SLOTS];
    struct pug__slot slots[1 + PUG_DEPTH_MAX];

    struct watch_mark marks[1 + PUG_DEPTH_MAX]; /* the owner's, when it is watched: of the slots */
};

/* Touched ahead; the rest belongs to lanes that are watched. */
#define LANE_TOUCHED_BYTES ((offsetof(struct lane, marks) + 4095) & ~(size_t)4095)
#define LANE_HEAD_BYTES ((sizeof(struct lane) + 4095) & ~(size_t)4095)

#define MEMORY_MAGIC UINT64_C(0x316b72616d677570) /* "pugmark1" */

struct memory_head {
    uint64_t magic;
    uint32_t version;
    uint32_t pid;
    uint64_t started_epoch_ns;
    struct id_keys keys;
    uint32_t ring_bytes;
    uint32_t lane_stride; /* bytes from one lane to the next in the file */
    uint64_t lanes_at;
    _Atomic uint32_t n_lanes;
    struct ticks_published clock;

    /* The table of sites: sites[id] is the offset of its entry in site_bytes, 0 while it is being
     * written. Entry 1 stands for all sites that found no room. */
    _Atomic uint32_t n_sites;
    _Atomic uint32_t site_bytes_used;
    _Atomic uint32_t sites[SITES_MAX];
    char site_bytes[SITE_BYTES];
};

#define LANES_AT ((sizeof(struct memory_head) + 4095) & ~(size_t)4095)

struct memory {
    struct own_fd fd;
    size_t ring_bytes;
    struct memory_head *head;
    uint32_t clock; /* of pug__lane.clock */
    _Atomic(struct lane *) lanes[LANES_MAX];
    _Atomic uint32_t n_lanes; /* only the preparer (start, then the drain) adds */
    _Atomic uint64_t lost_no_lane;
    _Atomic uint32_t base_state; /* PUG__STATE_ of slots[0] of every lane: ASK, WATCH */
};

/* `old`: take over the sites of this one, whose numbers are cached all over the program (after
 * fork); may be NULL. */
MUST_USE int memory_new(size_t ring_bytes, uint32_t clock, const struct memory *old,
                        struct memory **ret);
/* Unmaps everything; only in the child after fork, where nobody else can be inside. */
void memory_free(struct memory *m);
/* Prepares lanes until `spare` are FREE. Partial success is success; an error means that none is.
 */
MUST_USE int memory_prepare(struct memory *m, unsigned spare);

/* Replaces the bits `mask` of the base slots, of the lanes there are and of those to come. */
void memory_base_state(struct memory *m, uint32_t mask, uint32_t bits);
/* There is another sampler, which is to be asked or not: what lanes knew of the one before is void. */
void memory_ask(struct memory *m, bool ask);

/* Makes the ring of an owned lane resident; the drain does so when it sees it first. */
void lane_populate(struct lane *lane);

/* What site `id` says, out of the table. Borrows from the memory. */
struct site_view {
    struct str name, file, function;
    uint32_t line;
    uint8_t kind, n_keys;
    struct {
        struct str name;
        uint8_t type;
    } keys[PUG_ATTRS_MAX];
};
MUST_USE int memory_site(const struct memory_head *head, uint32_t id, struct site_view *ret);

/* A lane for this thread. NULL when none is ready; nothing but one compare-and-swap and
 * pthread_setspecific. */
struct lane *lane_claim(struct memory *m, pthread_key_t key);
/* Ends what is open and hands the lane to the drain. */
void lane_leave_thread(struct lane *lane);

/* ---- the owner writes ---- */

/* Between enter and leave no signal handler writes here. False: we are that handler. */
bool lane_enter(struct lane *lane);
void lane_leave(struct lane *lane);
/* After enter: is there room for one more record and all ends? Looks at the drain's tail. */
bool lane_has_room(struct lane *lane);

struct record_writer {
    struct lane *lane;
    char *at;
};
struct record_writer record_begin(struct lane *lane, uint8_t kind, uint32_t high);
void record_u64(struct record_writer *w, uint64_t word);
void record_bytes(struct record_writer *w, const void *bytes, size_t n); /* n: a multiple of 8 */
void record_text(struct record_writer *w, const char *text, size_t len);
void record_commit(struct record_writer *w);

/* Pops every slot down to and including `slot`, which must be open, and records their ends. */
void lane_end_down_to(struct lane *lane, struct pug__slot *slot, uint64_t now);
/* The slot of an attached context, or NULL. `ask`: not its flags but the sampler decides about what
 * begins in it. */
struct pug__slot *lane_attach(struct lane *lane, const struct pug_context *context, bool ask);
/* After enter: a context of its own for the span that is being opened in `slot`; where it has none
 * to descend from, its span id is zeros. Returns the bits for its state, 0 when there is no room. */
uint32_t lane_root(struct lane *lane, const struct pug__slot *slot,
                   const struct pug_context *context);
uint32_t lane_intern(struct memory_head *head, struct pug__site *site);
static inline uint32_t lane_site_id(struct memory_head *head, struct pug__site *site)
{
    uint32_t id = __atomic_load_n(&site->id, __ATOMIC_ACQUIRE);
    return id ? id : lane_intern(head, site);
}
/* Will the end of this span be in the ring? */
static inline bool lane_slot_is_recorded(const struct pug__slot *slot)
{
    return !(slot->state & (PUG__STATE_LOST | PUG__STATE_UNSAMPLED | PUG__STATE_CONTEXT |
                            PUG__STATE_ORPHAN | PUG__STATE_SKIP));
}

static inline struct lane *lane_of(struct pug__lane *fast)
{
    return (struct lane *)(void *)fast;
}
static inline void lane_count(_Atomic uint64_t *counter)
{
    /* one writer: no locked instruction needed */
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + 1,
                          memory_order_relaxed);
}
static inline uint16_t lane_context_of(const struct pug__slot *slot)
{
    /* of the lowest slot, others write the low half */
    return (uint16_t)(PUG__STATE_OF(slot) >> 16);
}

#endif
