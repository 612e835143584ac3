/* Posts bodies to collectors: one thread, one queue and one transfer for each target, one retry
 * policy. What is in a body is the exporters' business (export_otlp, export_zipkin).
 *
 * A target is IDLE (nothing to send), SENDING, or PAUSING (before it sends the same request again).
 * Targets do not wait for each other. Bodies of one target that wait together are joined in one
 * request; they wait for each other for a moment, unless there are many or somebody flushes.
 *
 * A request that a collector cannot take now is sent again after pauses that grow, for at most
 * GIVE_UP_TIMEOUTS request timeouts, or after those that the collector names (retry.h has their bound),
 * ATTEMPTS_MAX times in all; then, or when it is refused, it is lost. A target's
 * queue is bounded in bytes; what does not fit is lost. Every loss is counted, and each kind of
 * trouble told once. */
#ifndef SDK_SENDER_H
#define SDK_SENDER_H

#include "sdk/exporter.h"
#include "sdk/transfer.h"

#define SENDER_TARGETS_MAX 2
/* Bodies wait so many flush intervals for others to go with them. */
#define SENDER_LINGER_INTERVALS 3

struct sender_target {
    struct transfer_options to;
    const char *things;          /* what is sent, for messages: "spans" */
    struct str head, mark, tail; /* of a request: before, between and after its bodies */
    bool gzip;
    bool at_once; /* its bodies have waited for others already */
    size_t queue_bytes_max;
    /* How many things a collector that took the request says it left out, and why (`ret_text` has
     * `size` bytes). NULL: it takes all or nothing. */
    uint64_t (*rejected)(struct str answer, char *ret_text, size_t size);
    _Atomic uint64_t *sent, *lost_full, *lost;
};

struct sender;

/* The targets are copied, what they point to must live on. ERR_UNSUPPORTED: no libcurl. */
MUST_USE int sender_new(const struct config *c, const struct sender_target *targets, unsigned n,
                        struct sender **ret, struct error_detail *ret_problem);
/* An empty buffer for a body, with the memory of one that was sent if there is any. From the drain's thread. */
struct buf sender_body(struct sender *s);
/* Queues `body`, with `n_things` in it, whose bytes become the sender's (they are emptied in any
 * case). A body that failed is lost. From the drain's thread. */
void sender_put(struct sender *s, unsigned target, struct buf *body, size_t n_things);
/* The same for spans; a batch whose encoding is too long for one request becomes several bodies. */
void sender_put_spans(struct sender *s, unsigned target, const struct span_batch *batch,
                      void (*encode)(const struct span_batch *batch, struct buf *out));
/* Waits until everything put before is sent or lost; see `flush` in exporter.h. From the drain's
 * thread. False: it is `deadline_ns` (CLOCK_MONOTONIC). */
bool sender_flush(struct sender *s, uint64_t deadline_ns, bool again);
/* Breaks off what runs, counts the rest as lost, frees. */
void sender_close(struct sender *s);

#endif
