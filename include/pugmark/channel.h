/* Pugmark: a bounded queue between threads that tells how it is doing.
 *
 *     struct pug_channel_options o = {.size = sizeof o, .name = "status",
 *                                     .element_bytes = sizeof(struct status), .capacity = 64};
 *     struct pug_channel *status;
 *     if (pug_channel_new(&o, &status) == 0) ...
 *     pug_channel_send(status, &update, PUG_FOREVER);                  // on one thread
 *     while (pug_channel_recv(status, &update, PUG_FOREVER, &from) == 0) {  // on another one
 *         PUG_SPAN_FROM(&from, "status.show");                         // in the sender's trace
 *         ...
 *     }
 *
 * Any number of senders and receivers; elements of one size go in and out by copy, first in, first
 * out. While tracing is on, with names after the channel's:
 *
 *     spans    channel.status_send (producer) around each send, with the wait for room, and
 *              channel.status_recv (consumer) for each message that was taken. In a thread with a
 *              span open, the receive is its child, began with the call, and has a link to the send;
 *              in one without, it is a child of the send, and began when the message was there. A
 *              channel makes at most `spans_per_second` of each; a send that made no span makes none
 *              at the receiver either.
 *     context  each message carries where it was sent from: the span of the send, or without one
 *              the span that was current there.
 *     metrics  channel.sent, .received, .dropped (sums), .queue_depth (gauge), .queue_depth_peak (the
 *              most that every 16th send saw), .backpressure_latency_us (histogram of how long sends
 *              waited for room; 0 for those that did not), with the attribute channel=NAME. Channels of one name are
 *              added up. The sums are exact, whatever becomes of the spans.
 *
 * With -DPUG_DISABLE it is the queue of <pugmark/queue.h>, and nothing else; then no library is
 * needed. A message is sent and received whether tracing is on or not.
 *
 * All functions but new and free are thread-safe; none is signal-safe; none changes errno. */
#ifndef PUGMARK_CHANNEL_H
#define PUGMARK_CHANNEL_H

#include <pugmark/queue.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PUG_CHANNEL_NAME_MAX 63        /* bytes; longer ones are cut */
#define PUG_CHANNEL_NAMES_MAX 256      /* different ones in a process; more share "(other)" */
#define PUG_CHANNEL_SPANS_DEFAULT 1000 /* a second */
#define PUG_CHANNEL_NO_SPANS ((unsigned)-1)
#define PUG_CHANNEL_ALL_SPANS ((unsigned)-2)

/* Strings are copied. */
struct pug_channel_options {
    size_t size;          /* sizeof(struct pug_channel_options) */
    const char *name;     /* "status"; NULL: "channel" */
    size_t element_bytes; /* of one message, 1 or more */
    size_t capacity;      /* messages, 1 to PUG_QUEUE_CAPACITY_MAX */
    /* Names of the spans; NULL: channel.NAME_send, channel.NAME_recv. */
    const char *send_span, *recv_span;
    /* At most so many of each, after a burst of as many; 0: PUG_CHANNEL_SPANS_DEFAULT. A span
     * around the send and the receive of each message costs some 110 ns a message; all else some
     * 15 ns more than the bare queue. Of channels with the same name the first one decides. */
    unsigned spans_per_second;
};

/* sent = received + what is inside; offered = sent + dropped + refused because it was closed. */
struct pug_channel_counts {
    size_t size; /* sizeof(struct pug_channel_counts), set by the caller */
    uint64_t sent, received;
    uint64_t dropped; /* not sent because it was full: at once, or for the whole timeout */
};

#ifndef PUG_DISABLE
struct pug_channel;

/* Free it with pug_channel_free(). PUG_ERR_INVALID, PUG_ERR_NOMEM. */
int pug_channel_new(const struct pug_channel_options *options, struct pug_channel **ret);
/* Nobody may be inside. NULL is fine. What was not received is gone; its counts stay in the
 * metrics. */
void pug_channel_free(struct pug_channel *channel);

/* Copies the element in; waits while the channel is full, at most `timeout_ms`. PUG_ERR_TIMEOUT
 * (dropped, and counted), PUG_ERR_CLOSED. */
int pug_channel_send(struct pug_channel *channel, const void *element, unsigned timeout_ms);
/* The same without waiting: PUG_ERR_FULL (dropped, and counted), PUG_ERR_CLOSED. */
int pug_channel_try_send(struct pug_channel *channel, const void *element);

/* Copies the oldest element out; waits while there is none, at most `timeout_ms`. `ret_from` (may be
 * NULL) becomes the message's context, or none. PUG_ERR_TIMEOUT; PUG_ERR_CLOSED: it is closed, and
 * all that was sent has been received. */
int pug_channel_recv(struct pug_channel *channel, void *ret_element, unsigned timeout_ms,
                     struct pug_context *ret_from);
/* The same without waiting: PUG_ERR_EMPTY, PUG_ERR_CLOSED. */
int pug_channel_try_recv(struct pug_channel *channel, void *ret_element,
                         struct pug_context *ret_from);

/* Nothing more can be sent; what was sent can be received. Wakes everybody who waits. May be called
 * more than once. */
void pug_channel_close(struct pug_channel *channel);

/* Sums since the channel was made, exact when nobody is inside; `ret_counts->size` is set by the caller. */
void pug_channel_counts_read(const struct pug_channel *channel,
                             struct pug_channel_counts *ret_counts);

#else /* the queue alone; `dropped` is not counted then */

struct pug_channel {
    struct pug_queue queue;
};

PUG__INLINE struct pug_queue *pug__channel_queue(const struct pug_channel *channel)
{
    return (struct pug_queue *)(uintptr_t)channel;
}
PUG__INLINE int pug_channel_new(const struct pug_channel_options *options, struct pug_channel **ret)
{
    struct pug_queue *queue;
    int code = pug_queue_new(options->element_bytes, options->capacity, &queue);
    if (code == 0)
        *ret = (struct pug_channel *)(void *)queue;
    return code;
}
PUG__INLINE void pug_channel_free(struct pug_channel *channel)
{
    pug_queue_free(pug__channel_queue(channel));
}
PUG__INLINE int pug_channel_send(struct pug_channel *channel, const void *element,
                                 unsigned timeout_ms)
{
    return pug_queue_send(pug__channel_queue(channel), element, timeout_ms);
}
PUG__INLINE int pug_channel_try_send(struct pug_channel *channel, const void *element)
{
    return pug_queue_try_send(pug__channel_queue(channel), element);
}
PUG__INLINE int pug_channel_recv(struct pug_channel *channel, void *ret_element,
                                 unsigned timeout_ms, struct pug_context *ret_from)
{
    if (ret_from)
        pug__none(ret_from);
    return pug_queue_recv(pug__channel_queue(channel), ret_element, timeout_ms);
}
PUG__INLINE int pug_channel_try_recv(struct pug_channel *channel, void *ret_element,
                                     struct pug_context *ret_from)
{
    if (ret_from)
        pug__none(ret_from);
    return pug_queue_try_recv(pug__channel_queue(channel), ret_element);
}
PUG__INLINE void pug_channel_close(struct pug_channel *channel)
{
    pug_queue_close(pug__channel_queue(channel));
}
PUG__INLINE void pug_channel_counts_read(const struct pug_channel *channel,
                                         struct pug_channel_counts *ret_counts)
{
    ret_counts->sent = pug_queue_sent(pug__channel_queue(channel));
    ret_counts->received = pug_queue_received(pug__channel_queue(channel));
    ret_counts->dropped = 0;
}
#endif

#ifdef __cplusplus
}
#endif
#endif
