/* An HTTP/1.1 server over libmicrohttpd: it bounds what comes in, inflates bodies, and lets a
 * handler answer now or later, from any thread. Knows nothing of tracing.
 *
 * A handler is called once per request, when the whole body is there. Requests that break a limit
 * never reach it; they are answered here (413, 415, 400, 408) through `error_body`, so that the
 * answer speaks the protocol of the port. (What is not HTTP at all, or has too large a header, gets
 * libmicrohttpd's own plain 400 or 431. A client that closes its sending half before it was
 * answered may get no answer at all.) */
#ifndef NET_HTTP_SERVER_H
#define NET_HTTP_SERVER_H

#include "base/arena.h"
#include "base/buf.h"
#include "net/budget.h"

struct http_server;
struct http_request;

typedef void http_handler_fn(void *arg, struct http_request *request);
/* Writes the body of an error that the server itself answers and returns its content type. */
typedef const char *http_error_body_fn(void *arg, const struct http_request *request, int status,
                                       struct str message, struct buf *out);

struct http_server_options {
    /* Nothing is listened on: connections come from http_server_take. `address` says which family they are of. */
    bool is_given_connections;
    const char *address;       /* "127.0.0.1", "::1", "0.0.0.0" */
    uint16_t port;             /* 0: a free one */
    unsigned threads;          /* 0: one; each has an equal part of the connections */
    unsigned connections_max;  /* newcomers wait while there are so many; 0: the default */
    unsigned idle_timeout_s;   /* 0: the default */
    unsigned body_timeout_s;   /* for a whole body to arrive; 0: the default */
    size_t body_bytes_max;     /* on the wire; 0: the default, 64 MiB */
    size_t inflated_bytes_max; /* after Content-Encoding; 0: the default, 256 MiB */
    struct budget *budget;     /* of bodies in memory, may be shared; NULL: no limit of that kind */
    size_t unread_bytes_max;   /* of answers that clients have not read; 0: the default, 256 MiB */
    http_handler_fn *handler;
    http_error_body_fn *error_body; /* NULL: text/plain */
    /* The Retry-After of what this server refuses itself, called with `arg`; NULL: one second. */
    unsigned (*retry_after_s)(void *arg);
    void *arg;
};

/* Listens and serves. `ret_detail` says which address could not be taken, and why. */
MUST_USE int http_server_new(const struct http_server_options *options, struct http_server **ret,
                             struct error_detail *ret_detail);
/* No new requests from here on; requests under way are waited for up to `deadline_ms`, streams are
 * ended. */
void http_server_stop(struct http_server *server, unsigned deadline_ms);
void http_server_free(struct http_server *server); /* NULL is allowed */
uint16_t http_server_port(const struct http_server *server);
/* A connection that somebody else accepted, non-blocking, of which nothing was read; from any thread. False: there is no
 * room now, and it is still the caller's. Else it is the server's, also when that is stopping and closes it. */
bool http_server_take(struct http_server *server, int fd);

struct http_server_stats {
    uint64_t connections_full; /* how often the limit of connections was reached */
    uint64_t requests, connections_now, body_bytes, refused_too_large, refused_bad, refused_busy;
};
void http_server_stats(const struct http_server *server, struct http_server_stats *ret);

/* ---- a request; slices live until it is answered ---- */

struct str http_method(const struct http_request *r); /* "GET" */
struct str
http_path(const struct http_request *r); /* as sent, without the query: "/api/traces/1" */
struct str http_query_string(const struct http_request *r);
/* First value of a query parameter, %-decoded; '+' is a space only when `plus_is_space` was asked
 * for. ptr NULL when absent. */
struct str http_query(const struct http_request *r, const char *name, bool plus_is_space);
/* Every value in order, %-decoded, '+' is a space (what browsers and Go send for repeated
 * parameters): returns false past the last. */
bool http_query_nth(const struct http_request *r, const char *name, unsigned nth, struct str *ret);
struct str http_header(const struct http_request *r, const char *name); /* case does not matter */
struct str http_body(const struct http_request *r);                     /* inflated */
size_t http_body_wire_bytes(const struct http_request *r);
struct arena *http_arena(struct http_request *r); /* freed with the request */
/* "application/json; charset=utf-8" is "application/json" here, lower case. */
struct str http_content_type(const struct http_request *r);

/* ---- the answer: one of these, exactly once per request, from any thread ---- */

/* Before the answer; copies both. */
void http_reply_header(struct http_request *r, const char *name, const char *value);
/* Takes the bytes of `body` (detached; the struct is left empty). Deflates when the client accepts
 * gzip and it pays. Where clients have left too much unread, 503 is answered instead. */
void http_reply(struct http_request *r, int status, const char *content_type, struct buf *body);
void http_reply_text(struct http_request *r, int status, const char *content_type, struct str body);
/* Borrows: for what is built into the binary. `gzip` says that the bytes are gzip already; a client
 * that does not accept it gets them inflated. */
void http_reply_static(struct http_request *r, int status, const char *content_type,
                       struct str body, bool gzip);

/* ---- a stream: an answer without an end, for server-sent events ---- */

struct http_stream;
/* Answers 200 and keeps the connection; the request is used up. At most `bytes_max` wait for a slow
 * client. */
struct http_stream *http_reply_stream(struct http_request *r, const char *content_type,
                                      size_t bytes_max);
/* Never blocks: false when it did not fit (nothing of it was taken) or the client is gone. */
bool http_stream_write(struct http_stream *s, struct str bytes);
/* The same, but waits for room: false when the client is gone, or has read nothing for `stall_ms`. */
bool http_stream_put(struct http_stream *s, struct str bytes, unsigned stall_ms);
bool http_stream_is_gone(struct http_stream *s);
/* The answer cannot be finished: the connection breaks where http_stream_close would end it well. */
void http_stream_fail(struct http_stream *s);
void http_stream_close(struct http_stream *s); /* and frees; from any thread */

#endif
