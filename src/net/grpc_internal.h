/* What the files of the gRPC server share. Invariants: grpc_server.c, grpc_reply.c. */
#ifndef NET_GRPC_INTERNAL_H
#define NET_GRPC_INTERNAL_H

#include "net/grpc_frame.h"
#include "net/grpc_server.h"

#include <nghttp2/nghttp2.h>
#include <pthread.h>

enum {
    OUT_BYTES = 48 << 10, /* of output that waits for a socket */
};

struct connection {
    struct grpc_server *server;
    int fd;
    nghttp2_session *session; /* NULL: it is not known yet what is spoken */
    struct grpc_call *calls;
    struct connection *older, *newer;
    uint64_t active_ns;
    size_t out_n, out_sent;
    bool heard;      /* the client preface was right: we may speak HTTP/2 */
    bool wants_out;  /* EPOLLOUT is armed */
    bool is_closing; /* after what is in `out` */
    bool is_dead;
    uint8_t out[OUT_BYTES];
};

struct grpc_call {
    struct grpc_server *server;
    struct arena arena;
    _Atomic unsigned owners;

    /* loop thread */
    struct connection *conn;
    struct grpc_call *older, *newer; /* in conn->calls */
    int32_t stream_id;
    struct grpc_reader reader;
    const struct grpc_method *method;
    struct str path, content_type, encoding, timeout;
    size_t header_bytes, drained_bytes;
    uint64_t started_ns, deadline_ns; /* 0: none */
    uint64_t answered_ns;
    size_t reply_sent; /* of head and message */
    bool is_post, has_headers, is_complete, has_handler, is_refused, is_answered, wants_reset,
        is_reset;
    enum grpc_code refused_code;
    const char *refused_http, *refused_why; /* the first: an HTTP status instead of a code */

    /* answering thread, then the loop thread */
    struct {
        enum grpc_code code;
        struct buf message;
        uint8_t head[GRPC_FRAME_HEAD_BYTES];
        struct str text, details;
        const char *trailer_name, *trailer_value; /* NULL: none */
    } reply;

    /* A stream of answers: server.lock, but where said. */
    struct {
        struct grpc_part *first, *last; /* not sent, or not whole */
        size_t waiting_bytes;           /* of them, with what was sent of the first */
        grpc_ready_fn *ready;           /* who waits for room */
        void *ready_arg;
        bool is_used, is_ended, is_gone;
        /* who writes; the loop thread after `is_ended` */
        enum grpc_code code;
        struct buf text, details;
        /* loop thread */
        bool is_submitted, is_deferred;
        size_t sent; /* of the first part, with its head */
        uint64_t progress_ns;
    } stream;

    /* server.lock */
    struct grpc_call *next_answered;
    bool is_listed, is_last; /* the second: the handler is through with it */
};

struct grpc_server {
    struct grpc_server_options options;
    struct budget own_budget;
    struct body_limits limits;
    _Atomic unsigned owners; /* grpc_server_free and calls */
    uint16_t port;
    pthread_t thread;
    bool has_thread;
    nghttp2_session_callbacks *callbacks;
    nghttp2_option *http2_options;
    int wake_fd;
    _Atomic bool stopping;
    _Atomic uint64_t stop_by_ns;
    _Atomic uint64_t connections_full;
    _Atomic uint64_t calls, connections_now, message_bytes, refused_too_large, refused_bad,
        refused_busy;

    /* loop thread */
    pthread_t loop_thread; /* whoever got a call from it may read this */
    int epoll_fd, listen_fd;
    bool is_listening, said_goaway;
    struct connection *connections;
    struct connection *dead;
    unsigned n_calls; /* streams that are open */
    uint64_t tick_ns; /* when deadlines are looked at next */
    uint8_t *in;

    pthread_mutex_t lock;
    struct grpc_call *answered;
    bool ended; /* no loop will take answers any more */
    _Atomic unsigned calls_alive;
};

/* ---- answers (grpc_reply.c); the loop thread's, but where said ---- */

void grpc__call_unref(struct grpc_call *call);  /* any thread */
void grpc__server_unref(struct grpc_server *s); /* any thread */
void grpc__wake(struct grpc_server *s);         /* any thread */
void grpc__count_refused(struct grpc_server *s, enum grpc_code code);
/* An answer that no handler gives: an HTTP status, or (NULL) a code. */
void grpc__refuse_http(struct grpc_call *call, const char *status);
void grpc__refuse(struct grpc_call *call, enum grpc_code code, const char *why);
/* Of a call that was refused; once. */
void grpc__answer_refused(struct grpc_call *call);
/* Submits what the handlers gave since; `flush` is called for each connection that has something to send. */
void grpc__take_answers(struct grpc_server *s, void (*flush)(struct connection *conn));
/* The stream of HTTP/2 is closed: who writes to it is told. */
void grpc__call_gone(struct grpc_call *call);
/* Since when the client has not read of what is there; 0: nothing is. */
uint64_t grpc__stalled_since(const struct grpc_call *call);

#endif
