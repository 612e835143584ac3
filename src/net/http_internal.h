/* What http_server.c (receiving), http_reply.c (answering) and http_request.c (reading) share.
 *
 * A request has two owners: the connection, from its first line until libmicrohttpd says that it is
 * over, and the handler, from its call until it answers. The last one frees it.
 *
 *   RECEIVING -> RUNNING -> ANSWERED                the handler answered before it returned
 *                RUNNING -> WAITING -> ANSWERED     later, from any thread; the connection sleeps
 *     RUNNING or WAITING -> ABANDONED                the server stops and waits no longer
 *
 * Only the connection's thread moves RECEIVING -> RUNNING -> WAITING, only the answering thread
 * moves to ANSWERED, only http_server_stop moves to ABANDONED; each by compare-and-swap, and
 * whoever moves away from WAITING resumes the connection. All that a handler reads was copied into
 * the request's arena, so an abandoned request may be read and answered long after its connection
 * is gone. The server has to outlive it: it is freed when everybody has answered.
 *
 * Locks: server.lock before stream.lock; libmicrohttpd's own locks come after both. */
#ifndef NET_HTTP_INTERNAL_H
#define NET_HTTP_INTERNAL_H

#include "net/body.h"
#include "net/http_server.h"

#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>

enum request_state { RECEIVING, RUNNING, WAITING, ANSWERED, ABANDONED };

struct header {
    struct header *next;
    struct str name, value; /* both also NUL-terminated */
};

struct http_request {
    struct http_server *server;
    struct MHD_Connection *connection;
    struct arena arena;
    _Atomic unsigned owners;
    _Atomic enum request_state state;

    /* the connection's thread, until RUNNING; then read only */
    struct str method, path, query, content_type;
    struct header *headers;
    struct body body;
    uint64_t received_from_ns;
    bool started; /* the headers are there */
    bool query_is_too_long;
    bool head_only; /* HEAD */
    int refused;    /* status of what this server refuses itself; 0: nothing */
    const char *refused_why;
    size_t drained_bytes; /* of a refused body */

    /* the answering thread, until ANSWERED; then the connection's */
    struct header *reply_headers;
    struct MHD_Response *response;
    int status;
    bool is_stream;

    /* server.lock */
    struct http_request *older, *newer; /* in server.running */
    bool is_listed;
};

struct http_stream {
    struct http_server *server;
    struct MHD_Connection *connection;
    pthread_mutex_t lock;
    struct buf waiting;  /* not yet given to libmicrohttpd */
    size_t taken;        /* bytes of it that were */
    pthread_cond_t room; /* something of it was, or nobody reads any more */
    unsigned owners;     /* the writer and the response */
    bool asleep;         /* the connection is suspended and has to be resumed */
    bool closed;         /* by the writer, or by the server's end */
    bool failed;         /* and it is no good end */
    bool gone;           /* the response is destroyed: nobody reads */
    /* server.lock */
    struct http_stream *older, *newer;
};

#define HTTP_THREADS_MAX 16

/* A thread of libmicrohttpd with the connections that it was given. */
struct http_worker {
    struct http_server *server;
    struct MHD_Daemon *daemon;
    _Atomic uint64_t connections;
};

struct http_server {
    struct http_server_options options;
    struct budget own_budget;
    struct budget unread; /* answers that clients have not read */
    struct body_limits limits;
    struct http_worker workers[HTTP_THREADS_MAX];
    pthread_t accept_thread;
    bool accepts;    /* there is such a thread */
    bool is_stopped; /* http_server_stop has begun */
    int listen_fd;
    uint16_t port;
    _Atomic bool stopping;
    _Atomic uint64_t open_requests; /* between their first line and their last byte out */
    _Atomic uint64_t connections_full;
    _Atomic uint64_t requests, body_bytes, refused_too_large, refused_bad, refused_busy;

    pthread_mutex_t lock;
    pthread_cond_t less;          /* a request was completed */
    bool closing;                 /* nothing may be handed to the handler any more */
    struct http_request *running; /* handed to the handler and not answered */
    struct http_stream *streams;
};

void http__request_unref(struct http_request *r);
/* The handler's part ends here. Takes `response`. */
void http__answer(struct http_request *r, int status, struct MHD_Response *response);
/* The stream reads as closed from here on and its connection wakes up. */
void http__stream_end(struct http_stream *s);
struct header *http__header_copy(struct arena *arena, struct str name, struct str value);

#endif
