/* Records into spans: the drain's half of a lane.
 *
 * A span is complete when its end record is read. What was said about it before then (attributes,
 * events, links) waits: spans of scopes nest, so each lane has a stack of `struct waiting`, ordered by
 * seq; handles are found by span id.
 *
 * Nearly all scopes say nothing but the values of their site's keys, and end before the round does.
 * These values stay where they are, in the ring; when the end is read, an exporter that knows plain
 * spans (`struct plain_taker`) encodes from there, and no `struct span` is made. Everything else -
 * further attributes, names, events, values that outlive the ring's room, texts that are not UTF-8,
 * secrets - goes the general way: what waits is copied into a `struct pending`, and a span made of it.
 * Both ways give the same bytes, in the same order.
 *
 * A handle may be spoken about on several lanes, which are read one after the other. So its end is
 * held back until all lanes have been read once more (assembler_round): whatever happened before
 * the end is in by then.
 *
 * Bounds: ATTRS_MAX, EVENTS_MAX and LINKS_MAX a span (what is over is counted in the span, as OTLP
 * has it), PENDING_BYTES_MAX bytes a span, HANDLES_MAX open handles. */
#ifndef SDK_ASSEMBLE_H
#define SDK_ASSEMBLE_H

#include "sdk/exporter.h"
#include "sdk/lane.h"
#include "wire/plain.h"

#define BATCH_SPANS 512

enum {
    ATTRS_MAX = 128,
    EVENTS_MAX = 128,
    LINKS_MAX = 128,
    PENDING_BYTES_MAX = 256 << 10,
    HANDLES_MAX = 1 << 16,
};

struct pending {
    struct pending *next; /* free, or used up by the batch */
    struct arena arena;
    uint64_t key; /* seq */
    struct attr *attrs;
    struct event *events;
    struct link *links;
    uint32_t n_attrs, n_events, n_links;
    uint32_t dropped_attrs, dropped_events, dropped_links;
    struct str name, status_message;
    uint8_t status_code;
};

/* What was said about an open scope. */
struct waiting {
    uint64_t seq;
    struct pending *said; /* NULL: no more than the values of its site's keys, below */
    const char *values;   /* in the ring */
    uint32_t n_values, site;
};

struct reader_context {
    uint64_t seq;
    bool root; /* of that span itself, else what was attached */
    struct trace_id trace_id;
    struct span_id span_id;
    uint32_t flags;         /* OTLP's: with the bits that say whether it is remote */
    struct str trace_state; /* malloc'ed */
};

struct lane_reader {
    struct lane *lane;
    uint64_t head; /* as far as this round goes */
    uint32_t thread;
    bool owned, populated;
    uint64_t trace_seq; /* cache: the id of this trace */
    struct trace_id trace_id;
    uint64_t parent_seq; /* and that of the last parent */
    struct span_id parent_id;
    uint64_t ignore_to; /* spans up to this seq were written when the last session stopped */
    struct reader_context contexts[LANE_CONTEXT_SLOTS];
    uint32_t n_contexts;
    struct waiting waiting[PUG_DEPTH_MAX + 1];
    uint32_t n_waiting;
};

/* A site, and what its plain spans share as the exporter prepared it (NULL: they are not taken). */
struct reader_site {
    struct site_view view;
    void *place; /* malloc'ed */
};

/* Who takes plain spans. */
struct plain_taker {
    void *(*prepare)(void *user, const struct plain_place *place);
    /* False: this one has to come as a span. */
    bool (*take)(void *user, const struct reader_site *site, const struct plain_span *span);
};

struct handle {
    uint64_t id; /* 0: free */
    struct pending *pending;
    uint64_t start, end;
    uint64_t parent, trace[2];
    uint32_t flags, site, thread;
    bool started, ended, remote;
    uint32_t born_round;
    struct str trace_state; /* in pending's arena */
    uint32_t ended_round;
};

struct assembler {
    const struct config *config;
    struct memory *memory;
    struct ticks *ticks;
    struct id_keys keys;
    void (*deliver)(void *user, const struct taken_batch *batch);
    struct plain_taker plain; /* both NULL: nobody does */
    void *user;

    struct lane_reader *readers[LANES_MAX];
    struct reader_site *sites[SITES_MAX];
    struct pending *free_pending;
    uint32_t n_free_pending;

    struct handle *handles; /* open addressing, linear; NULL until the first one */
    size_t n_handles, handles_cap;
    size_t n_ended, n_unstarted;
    uint32_t round;

    struct span spans[BATCH_SPANS];
    struct taken taken[BATCH_SPANS];
    size_t n;
    struct pending *used; /* by the batch */
    struct arena strings; /* of the batch */

    uint64_t recorded, lost_memory, lost_details;
    _Atomic bool told_negative;
};

/* `deliver` gets each batch; the spans and what they borrow are good until it returns. */
MUST_USE int assembler_new(struct memory *memory, const struct config *config, struct ticks *ticks,
                           void (*deliver)(void *user, const struct taken_batch *batch), void *user,
                           struct assembler **ret);
void assembler_free(struct assembler *a);
/* From now on plain spans go to `taker`; NULL: to nobody. What the last one has prepared is freed. */
void assembler_plain(struct assembler *a, const struct plain_taker *taker);

/* The reader of lane `index`; NULL when there is no memory for one. */
struct lane_reader *assembler_reader(struct assembler *a, uint32_t index);
/* Reads the lane's records up to r->head and moves its tail. */
void assembler_lane(struct assembler *a, struct lane_reader *r);
/* All lanes have been read: handles that ended in the round before this one are complete. */
void assembler_round(struct assembler *a);
/* The lane's thread is gone: forgets what is left of it. */
void assembler_forget(struct assembler *a, struct lane_reader *r);
/* What is still open, on this lane or as a handle, is written with the end `now`. */
void assembler_unfinished_lane(struct assembler *a, struct lane_reader *r, uint64_t now);
void assembler_unfinished_handles(struct assembler *a, uint64_t now);
/* A span of the library's own. `attrs` must live until the batch is delivered. */
void assembler_own_span(struct assembler *a, struct str name, uint64_t start_ns, uint64_t end_ns,
                        uint64_t number, struct attrs attrs);
void assembler_flush(struct assembler *a);

#endif
