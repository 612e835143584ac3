/* A gRPC server over nghttp2, for calls of one message that are answered with one or with many: cleartext HTTP/2 with prior knowledge, as exporters
 * speak it on loopback and inside a cluster. Knows nothing of tracing.
 *
 * One thread runs an epoll loop over all connections and calls the handlers with a whole, inflated
 * message; answers come now or later, from any thread. What breaks a limit or the protocol is
 * answered here and never reaches a handler:
 *
 *   not POST 405, not application/grpc 415, headers too large 431 (HTTP statuses)
 *   UNIMPLEMENTED       a method that is not in the table; an unknown grpc-encoding
 *   RESOURCE_EXHAUSTED  a message over the limit
 *   UNAVAILABLE         the budget or the number of calls is used up; the server stops
 *   DEADLINE_EXCEEDED   grpc-timeout ran out, or the message took too long to arrive
 *   INTERNAL            not exactly one message, or not what its encoding says
 *
 * Source: grpc/grpc, doc/PROTOCOL-HTTP2.md; RFC 9113. */
#ifndef NET_GRPC_SERVER_H
#define NET_GRPC_SERVER_H

#include "base/arena.h"
#include "base/buf.h"
#include "net/budget.h"

enum grpc_code {
    GRPC_OK = 0,
    GRPC_CANCELLED = 1,
    GRPC_UNKNOWN = 2,
    GRPC_INVALID_ARGUMENT = 3,
    GRPC_DEADLINE_EXCEEDED = 4,
    GRPC_NOT_FOUND = 5,
    GRPC_PERMISSION_DENIED = 7,
    GRPC_RESOURCE_EXHAUSTED = 8,
    GRPC_UNIMPLEMENTED = 12,
    GRPC_INTERNAL = 13,
    GRPC_UNAVAILABLE = 14,
    GRPC_UNAUTHENTICATED = 16,
};

struct grpc_server;
struct grpc_call;

/* Called on the server's thread: must not block. */
typedef void grpc_handler_fn(void *arg, struct grpc_call *call);

struct grpc_method {
    const char *path; /* "/package.Service/Method" */
    grpc_handler_fn *handler;
};

struct grpc_server_options {
    const char *address;
    uint16_t port;                     /* 0: a free one */
    const struct grpc_method *methods; /* must outlive the server */
    size_t n_methods;
    void *arg;
    /* Writes a google.rpc.Status for what this server itself refuses for now (UNAVAILABLE); NULL: none. */
    void (*busy_details)(void *arg, enum grpc_code code, struct str message, struct buf *out);
    /* Who else is spoken to on this port: gets each connection that does not begin as HTTP/2 does, of which nothing was
     * read. False: there is no room now; it is offered again for a while. On the server's thread; NULL: such a
     * connection is told that it is wrong here. */
    bool (*other)(void *arg, int fd);
    void *other_arg;
    unsigned connections_max;   /* 0: the default */
    unsigned streams_max;       /* at once on one connection; 0: the default */
    unsigned calls_max;         /* on all connections; 0: the default */
    unsigned idle_timeout_s;    /* of a connection without a call; 0: the default */
    unsigned message_timeout_s; /* for a whole message to arrive; 0: the default */
    size_t message_bytes_max;   /* on the wire; 0: the default, 64 MiB */
    size_t inflated_bytes_max;  /* 0: the default, 256 MiB */
    struct budget *budget;      /* of messages in memory; must outlive unanswered calls; NULL: no
                                   limit of that kind */
};

MUST_USE int grpc_server_new(const struct grpc_server_options *options, struct grpc_server **ret,
                             struct error_detail *ret_detail);
/* Sends GOAWAY, waits up to `deadline_ms` for calls under way, and ends the thread. */
void grpc_server_stop(struct grpc_server *server, unsigned deadline_ms);
void grpc_server_free(struct grpc_server *server); /* NULL is allowed */
uint16_t grpc_server_port(const struct grpc_server *server);

struct grpc_server_stats {
    uint64_t connections_full; /* how often the limit of connections was reached */
    uint64_t calls, connections_now, message_bytes, refused_too_large, refused_bad, refused_busy;
};
void grpc_server_stats(const struct grpc_server *server, struct grpc_server_stats *ret);

/* ---- a call; slices live until it is answered ---- */

struct str grpc_message(const struct grpc_call *call); /* inflated */
size_t grpc_message_wire_bytes(const struct grpc_call *call);
struct arena *grpc_arena(struct grpc_call *call); /* freed with the call */

/* Beside the status of the answer, which is made after this: one more trailer. Both live for ever. */
void grpc_trailer(struct grpc_call *call, const char *name, const char *value);

/* ---- the answer: one of these (or a stream, below), exactly once per call, from any thread ---- */

/* OK. Takes the bytes of `message` (detached). */
void grpc_reply(struct grpc_call *call, struct buf *message);
/* `details` is a serialised google.rpc.Status with the same code (grpc-status-details-bin), or
 * empty. Copies both. */
void grpc_reply_error(struct grpc_call *call, enum grpc_code code, struct str message,
                      struct str details);

/* ---- or many messages: grpc_stream_write as often as wanted, then grpc_stream_end, exactly once; by one
 * thread at a time. No thread waits for a slow client: who hears ERR_BUSY leaves, and goes on when called.
 *
 *     static void go_on(void *arg, struct grpc_call *call)      -- must not block: hands over to a thread
 *     ...
 *     while (next(state, &message))
 *         if ((err = grpc_stream_write(call, &message)) == ERR_BUSY) {
 *             grpc_stream_wait(call, go_on, state);
 *             return;
 *         } else if (err)
 *             break;
 *     grpc_stream_end(call, GRPC_OK, STR_NONE, STR_NONE);
 *
 * A client that stops reading loses its call after twice `message_timeout_s`; one whose deadline has
 * passed at once. */

/* What waits for a client, at most, beside one message. */
#define GRPC_STREAM_BYTES_MAX ((size_t)1 << 20)

/* There is room again, or the client is gone (grpc_stream_write says which). Must not block. */
typedef void grpc_ready_fn(void *arg, struct grpc_call *call);

/* Takes the bytes of `message` (detached). 0; ERR_BUSY: it was taken, but no more may be written before
 * grpc_stream_wait has called; ERR_CLOSED: nobody reads any more; ERR_NOMEM, also when `message` has failed. After
 * an error the stream still has to be ended. */
MUST_USE int grpc_stream_write(struct grpc_call *call, struct buf *message);
/* `fn` is called once, on the server's thread or before this returns. */
void grpc_stream_wait(struct grpc_call *call, grpc_ready_fn *fn, void *arg);
/* As grpc_reply_error; with GRPC_OK all was well. */
void grpc_stream_end(struct grpc_call *call, enum grpc_code code, struct str message,
                     struct str details);

#endif
