/* Receiving: libmicrohttpd's threads call `on_uri`, then `on_access` once with the headers, for
 * each piece of the body, once at its end, and once more after a sleep; then `on_completed`.
 *
 * Invariants
 *  1. A body is bounded while it arrives: on the wire, inflated, in time, and by the budget shared
 *     with others. What breaks a bound lets its memory go at once; the rest of the body is read and
 *     thrown away (a client that still writes would lose the answer to a reset), up to DRAIN_BYTES.
 *  2. A handler is called at most once per request, with the whole body.
 *  3. A connection that waits for its handler is suspended: it costs no thread and no time.
 *  4. libmicrohttpd must not be stopped with a suspended connection; http_server_stop wakes all.
 *  5. Connections are given out by a thread of this file, to the worker that has the fewest: threads
 *     that accept for themselves leave it to chance, and one of them had six of eight senders. */
#include "net/http_internal.h"

#include "base/clock.h"
#include "base/log.h"
#include "net/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    CONNECTIONS_MAX = 1000,
    IDLE_TIMEOUT_S = 120,
    BODY_TIMEOUT_S = 60,
    HEADER_BYTES_MAX =
        64 << 10, /* libmicrohttpd's memory per connection: headers and read buffer */
    THREAD_STACK_BYTES = 512 << 10,
    DRAIN_BYTES = 128 << 20,
    SILENCE_MS_MAX = 20000, /* of a stream's peer */
    ACCEPT_PAUSE_MS = 10,   /* at the limit, until it is looked at again */
    QUERY_PARAMS_MAX = 1000,
};
#define BODY_BYTES_MAX ((size_t)64 << 20)
#define INFLATED_BYTES_MAX ((size_t)256 << 20)
#define UNREAD_BYTES_MAX ((size_t)256 << 20)

struct header *http__header_copy(struct arena *arena, struct str name, struct str value)
{
    struct header *h = arena_alloc(arena, sizeof *h);
    if (!h)
        return NULL;
    *h = (struct header){.name = arena_str(arena, name), .value = arena_str(arena, value)};
    return h->name.ptr && h->value.ptr ? h : NULL;
}

void http__request_unref(struct http_request *r)
{
    if (atomic_fetch_sub_explicit(&r->owners, 1, memory_order_acq_rel) != 1)
        return;
    body_done(&r->body);
    arena_done(&r->arena);
    free(r);
}

static void on_completed(void *arg, struct MHD_Connection *connection, void **request,
                         enum MHD_RequestTerminationCode how);

/* Where a connection says which request it is reading: libmicrohttpd closes without `on_completed` when
 * the parameters of a query take more memory than a connection may. NULL: there was no memory for it. */
static void **reading_of(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info ? info->socket_context : NULL;
}

/* libmicrohttpd would make a list of the parameters in the memory of the connection, and close the connection without
 * a word when that is full. Nobody here reads that list (http_query): it is spared the query. */
static void query_cut(const char *uri)
{
    char *query = strchr((char *)(uintptr_t)uri,
                         '?'); /* its own memory, which it is about to cut */
    if (query)
        query[1] = '\0';
}

static bool query_is_too_long(struct str query)
{
    unsigned n = 1;
    for (size_t i = 0; i < query.len; i++)
        n += query.ptr[i] == '&';
    return n > QUERY_PARAMS_MAX;
}

static void *on_uri(void *arg, const char *uri, struct MHD_Connection *connection)
{
    struct http_server *server = arg;
    void **reading = reading_of(connection);
    if (!reading)
        return NULL;
    struct http_request *r = calloc(1, sizeof *r);
    if (!r)
        return NULL;
    r->server = server;
    r->connection = connection;
    r->owners = 1;
    struct str whole = arena_str(&r->arena, str_from(uri));
    if (!whole.ptr) {
        free(r);
        return NULL;
    }
    r->path = str_split(whole, '?', &r->query);
    r->query_is_too_long = query_is_too_long(r->query);
    query_cut(uri);
    r->received_from_ns = clock_monotonic_ns();
    atomic_fetch_add(&server->open_requests, 1);
    *reading = r;
    return r;
}

/* False when the server has given up waiting for handlers: there must be no new one. */
static bool list(struct http_request *r)
{
    struct http_server *server = r->server;
    pthread_mutex_lock(&server->lock);
    bool may = !server->closing;
    if (may) {
        r->older = server->running;
        if (r->older)
            r->older->newer = r;
        server->running = r;
        r->is_listed = true;
    }
    pthread_mutex_unlock(&server->lock);
    return may;
}

static void unlist(struct http_request *r)
{
    struct http_server *server = r->server;
    pthread_mutex_lock(&server->lock);
    if (r->is_listed) {
        if (r->newer)
            r->newer->older = r->older;
        else
            server->running = r->older;
        if (r->older)
            r->older->newer = r->newer;
        r->is_listed = false;
    }
    pthread_mutex_unlock(&server->lock);
}

static void on_completed(void *arg, struct MHD_Connection *connection, void **request,
                         enum MHD_RequestTerminationCode how)
{
    (void)how;
    struct http_server *server = arg;
    struct http_request *r = *request;
    *request = NULL;
    if (!r)
        return;
    void **reading = reading_of(connection);
    if (reading && *reading == r)
        *reading = NULL;
    /* The connection may have died between waking up and being asked for the answer. */
    unlist(r);
    if (atomic_load_explicit(&r->state, memory_order_acquire) == ANSWERED && r->response)
        MHD_destroy_response(r->response);
    http__request_unref(r);
    pthread_mutex_lock(&server->lock);
    atomic_fetch_sub(&server->open_requests, 1);
    pthread_cond_signal(&server->less);
    pthread_mutex_unlock(&server->lock);
}

static void on_connection(void *arg, struct MHD_Connection *connection, void **of_connection,
                          enum MHD_ConnectionNotificationCode what)
{
    struct http_worker *worker = arg;
    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        *of_connection = calloc(1, sizeof(void *));
        return;
    }
    atomic_fetch_sub_explicit(&worker->connections, 1, memory_order_relaxed);
    void **reading = *of_connection;
    *of_connection = NULL;
    if (reading && *reading) {
        void *left = *reading;
        on_completed(worker->server, connection, &left, MHD_REQUEST_TERMINATED_WITH_ERROR);
    }
    free(reading);
}

static enum MHD_Result on_header(void *arg, enum MHD_ValueKind kind, const char *name,
                                 const char *value)
{
    (void)kind;
    struct http_request *r = arg;
    struct header *h = http__header_copy(&r->arena, str_from(name), str_from(value ? value : ""));
    if (!h)
        return MHD_NO;
    h->next = r->headers;
    r->headers = h;
    return MHD_YES;
}

static void refuse(struct http_request *r, int status, const char *why)
{
    struct http_server *server = r->server;
    r->refused = status;
    r->refused_why = why;
    body_done(&r->body);
    r->body = (struct body){.wire_bytes = r->body.wire_bytes};
    atomic_fetch_add_explicit(status == 413   ? &server->refused_too_large
                              : status == 503 ? &server->refused_busy
                                              : &server->refused_bad,
                              1, memory_order_relaxed);
}

static void refuse_body(struct http_request *r, int err)
{
    switch (err) {
    case ERR_TOO_LARGE:
        refuse(r, 413, "the body is over this server's limit");
        break;
    case ERR_TRUNCATED:
        refuse(r, 400, "the compressed body ends too early");
        break;
    case ERR_INVALID:
        refuse(r, 400, "the body is not what Content-Encoding says");
        break;
    default:
        refuse(r, 503, "too many bytes are in flight; try again later");
    }
}

static enum MHD_Result queue(struct http_request *r, int status, struct MHD_Response *response)
{
    if (!response)
        return MHD_NO;
    if (atomic_load_explicit(&r->server->stopping, memory_order_relaxed))
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
    enum MHD_Result queued = MHD_queue_response(r->connection, (unsigned)status, response);
    MHD_destroy_response(response);
    return queued;
}

/* A peer that vanished without a word acknowledges nothing: the kernel would try for a quarter of an
 * hour, and the stream count as read all the while. */
static void notice_silence(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    unsigned timeout_ms = SILENCE_MS_MAX;
    if (info)
        setsockopt(info->connect_fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof timeout_ms);
}

static enum MHD_Result queue_answer(struct http_request *r)
{
    struct MHD_Response *response = r->response;
    r->response = NULL;
    unlist(r);
    if (r->is_stream)
        notice_silence(r->connection);
    return queue(r, r->status, response);
}

/* Answers what no handler will see. */
static enum MHD_Result queue_refused(struct http_request *r)
{
    struct http_server *server = r->server;
    struct buf body = BUF_INIT;
    const char *type = "text/plain; charset=utf-8";
    struct str why = str_from(r->refused_why);
    if (server->options.error_body) {
        type = server->options.error_body(server->options.arg, r, r->refused, why, &body);
    } else {
        buf_str(&body, why);
        buf_byte(&body, '\n');
    }
    size_t n = 0;
    char *bytes = buf_ok(&body) ? buf_detach(&body, &n) : NULL;
    buf_done(&body);
    struct MHD_Response *response =
        MHD_create_response_from_buffer(n, bytes ? bytes : (char *)(uintptr_t) "",
                                        bytes ? MHD_RESPMEM_MUST_FREE : MHD_RESPMEM_PERSISTENT);
    if (!response) {
        free(bytes);
        return MHD_NO;
    }
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    if (r->refused == 503) {
        char seconds[12];
        snprintf(seconds, sizeof seconds, "%u",
                 server->options.retry_after_s ? server->options.retry_after_s(server->options.arg)
                                               : 1);
        MHD_add_response_header(response, MHD_HTTP_HEADER_RETRY_AFTER, seconds);
    }
    if (r->refused == 414) /* who writes that has lost count */
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
    if (r->refused == 415)
        MHD_add_response_header(response, MHD_HTTP_HEADER_ACCEPT_ENCODING, "gzip, deflate, zstd");
    return queue(r, r->refused, response);
}

static struct str media_type(struct http_request *r)
{
    struct str rest, type = str_trim(str_split(http_header(r, "content-type"), ';', &rest));
    if (!type.len)
        return STR_NONE;
    char *lower = arena_alloc(&r->arena, type.len + 1);
    if (!lower)
        return STR_NONE;
    for (size_t i = 0; i < type.len; i++) {
        char c = type.ptr[i];
        lower[i] = c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
    }
    lower[type.len] = '\0';
    return (struct str){lower, type.len};
}

/* The headers are there. */
static enum MHD_Result start(struct http_request *r, const char *method)
{
    struct http_server *server = r->server;
    r->started = true;
    r->method = arena_str(&r->arena, str_from(method));
    r->head_only = str_eq(r->method, STR("HEAD"));
    MHD_get_connection_values(r->connection, MHD_HEADER_KIND, on_header, r);
    /* First come, first found. */
    struct header *turned = NULL;
    for (struct header *h = r->headers, *next; h; h = next) {
        next = h->next;
        h->next = turned;
        turned = h;
    }
    r->headers = turned;
    r->content_type = media_type(r);

    enum coding coding;
    if (atomic_load_explicit(&server->stopping, memory_order_relaxed)) {
        refuse(r, 503, "the server is stopping");
    } else if (r->query_is_too_long) {
        refuse(r, 414, "more than 1000 parameters in the query");
    } else if (!coding_parse(http_header(r, "content-encoding"), &coding)) {
        refuse(r, 415, "Content-Encoding can be gzip, deflate or zstd");
    } else {
        int err = body_init(&r->body, coding, &server->limits);
        uint64_t announced = 0;
        if (!err && str_to_u64(http_header(r, "content-length"), &announced))
            err = body_expect(&r->body, announced);
        if (err)
            refuse_body(r, err);
        /* A client that asks first, or means to send far too much, is told at once. */
        if (err && (http_header(r, "expect").len || announced > DRAIN_BYTES))
            return queue_refused(r);
    }
    return MHD_YES;
}

static enum MHD_Result piece(struct http_request *r, const char *bytes, size_t *n)
{
    size_t got = *n;
    *n = 0;
    atomic_fetch_add_explicit(&r->server->body_bytes, got, memory_order_relaxed);
    if (r->refused) {
        r->drained_bytes += got;
        return r->drained_bytes > DRAIN_BYTES ? MHD_NO : MHD_YES;
    }
    uint64_t spent_ns = clock_monotonic_ns() - r->received_from_ns;
    if (spent_ns > r->server->options.body_timeout_s * NS_PER_S) {
        refuse(r, 408, "the body took too long");
        return MHD_NO; /* no answer is possible amid a body */
    }
    int err = body_feed(&r->body, bytes, got);
    if (err)
        refuse_body(r, err);
    return MHD_YES;
}

/* The body is whole: the handler's turn. */
static enum MHD_Result run(struct http_request *r)
{
    struct http_server *server = r->server;
    int err = body_finish(&r->body);
    if (err) {
        refuse_body(r, err);
        return queue_refused(r);
    }
    atomic_fetch_add_explicit(&r->owners, 1, memory_order_relaxed); /* the handler's */
    atomic_store_explicit(&r->state, RUNNING, memory_order_relaxed);
    if (!list(r)) {
        atomic_fetch_sub_explicit(&r->owners, 1, memory_order_relaxed);
        refuse(r, 503, "the server is stopping");
        return queue_refused(r);
    }
    atomic_fetch_add_explicit(&server->requests, 1, memory_order_relaxed);
    server->options.handler(server->options.arg, r);

    /* acquire pairs with the release in http__answer: `response` is there to be read */
    if (atomic_load_explicit(&r->state, memory_order_acquire) == ANSWERED)
        return queue_answer(r);
    MHD_suspend_connection(r->connection);
    enum request_state expected = RUNNING;
    if (!atomic_compare_exchange_strong_explicit(&r->state, &expected, WAITING,
                                                 memory_order_acq_rel, memory_order_acquire))
        MHD_resume_connection(r->connection); /* answered in between: called again at once */
    return MHD_YES;
}

static enum MHD_Result on_access(void *arg, struct MHD_Connection *connection, const char *url,
                                 const char *method, const char *version, const char *upload,
                                 size_t *upload_bytes, void **request)
{
    (void)arg;
    (void)connection;
    (void)url;
    (void)version;
    struct http_request *r = *request;
    if (!r)
        return MHD_NO; /* no memory for it */
    if (!r->started)
        return start(r, method);
    if (*upload_bytes)
        return piece(r, upload, upload_bytes);
    if (r->refused)
        return queue_refused(r);
    switch (atomic_load_explicit(&r->state, memory_order_acquire)) {
    case RECEIVING:
        return run(r);
    case ANSWERED:
        return queue_answer(r);
    case ABANDONED:
        r->refused = 503;
        r->refused_why = "the server is stopping";
        return queue_refused(r);
    default:
        return MHD_YES; /* not yet */
    }
}

/* Paths and queries are decoded by whoever reads them. */
static size_t keep_escapes(void *arg, struct MHD_Connection *connection, char *text)
{
    (void)arg;
    (void)connection;
    return strlen(text);
}

__attribute__((format(printf, 2, 0))) static void on_log(void *arg, const char *format,
                                                         va_list args)
{
    (void)arg;
    char line[300];
    vsnprintf(line, sizeof line, format, args);
    line[strcspn(line, "\n")] = '\0';
    log_debug("libmicrohttpd: %s", line);
}

/* ---- connections ---- */

static uint64_t connections_now(const struct http_server *server)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < server->options.threads; i++)
        n += atomic_load_explicit(&server->workers[i].connections, memory_order_relaxed);
    return n;
}

static struct http_worker *least_busy(struct http_server *server)
{
    struct http_worker *least = &server->workers[0];
    for (unsigned i = 1; i < server->options.threads; i++)
        if (atomic_load_explicit(&server->workers[i].connections, memory_order_relaxed) <
            atomic_load_explicit(&least->connections, memory_order_relaxed))
            least = &server->workers[i];
    return least;
}

/* Takes the descriptor in any case. */
static void connection_add(struct http_server *server, int fd, const struct sockaddr *peer,
                           socklen_t size)
{
    struct http_worker *worker = least_busy(server);
    atomic_fetch_add_explicit(&worker->connections, 1, memory_order_relaxed);
    if (MHD_add_connection(worker->daemon, fd, peer, size) != MHD_YES)
        atomic_fetch_sub_explicit(&worker->connections, 1, memory_order_relaxed);
}

bool http_server_take(struct http_server *server, int fd)
{
    struct sockaddr_storage peer = {0};
    socklen_t size = sizeof peer;
    /* With the lock, so that http_server_stop cannot end the threads meanwhile. */
    pthread_mutex_lock(&server->lock);
    bool stopping = atomic_load(&server->stopping);
    bool full = !stopping && connections_now(server) >= server->options.connections_max;
    bool gone = stopping || (!full && getpeername(fd, (struct sockaddr *)&peer, &size) != 0);
    if (full)
        atomic_fetch_add_explicit(&server->connections_full, 1, memory_order_relaxed);
    else if (gone)
        close(fd);
    else
        connection_add(server, fd, (struct sockaddr *)&peer, size);
    pthread_mutex_unlock(&server->lock);
    return !full;
}

/* At the limit of connections or descriptors newcomers wait in the kernel's queue. */
static void *accept_main(void *arg)
{
    struct http_server *server = arg;
    const struct timespec pause = {.tv_nsec = ACCEPT_PAUSE_MS * (long)NS_PER_MS};
    bool was_full = false;
    while (!atomic_load(&server->stopping)) {
        struct sockaddr_storage peer;
        socklen_t size = sizeof peer;
        bool full = connections_now(server) >= server->options.connections_max;
        if (full && !was_full)
            atomic_fetch_add_explicit(&server->connections_full, 1, memory_order_relaxed);
        was_full = full;
        if (full) {
            nanosleep(&pause, NULL);
            continue;
        }
        int fd = accept4(server->listen_fd, (struct sockaddr *)&peer, &size,
                         SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno != EINTR && errno != ECONNABORTED)
                nanosleep(&pause, NULL);
            continue;
        }
        connection_add(server, fd, (struct sockaddr *)&peer, size);
    }
    return NULL;
}

/* ---- life ---- */

static struct MHD_Daemon *daemon_start(struct http_worker *worker)
{
    struct http_server *server = worker->server;
    const struct http_server_options *o = &server->options;
    unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_NO_LISTEN_SOCKET | MHD_USE_ITC |
                     MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG;
    if (strchr(o->address, ':'))
        flags |= MHD_USE_IPv6;
    return MHD_start_daemon(
        flags, 0, NULL, NULL, on_access, server, MHD_OPTION_EXTERNAL_LOGGER, on_log, NULL,
        MHD_OPTION_CONNECTION_LIMIT, o->connections_max, MHD_OPTION_CONNECTION_TIMEOUT,
        o->idle_timeout_s, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HEADER_BYTES_MAX,
        MHD_OPTION_CONNECTION_MEMORY_INCREMENT, (size_t)(16 << 10), MHD_OPTION_THREAD_STACK_SIZE,
        (size_t)THREAD_STACK_BYTES, MHD_OPTION_URI_LOG_CALLBACK, on_uri, server,
        MHD_OPTION_NOTIFY_COMPLETED, on_completed, server, MHD_OPTION_NOTIFY_CONNECTION,
        on_connection, worker, MHD_OPTION_UNESCAPE_CALLBACK, keep_escapes, NULL, MHD_OPTION_END);
}

static bool threads_start(struct http_server *server)
{
    for (unsigned i = 0; i < server->options.threads; i++) {
        struct http_worker *worker = &server->workers[i];
        worker->server = server;
        worker->daemon = daemon_start(worker);
        if (!worker->daemon)
            return false;
    }
    pthread_attr_t attr;
    if (server->options.is_given_connections)
        return true;
    if (fcntl(server->listen_fd, F_SETFL, 0) || pthread_attr_init(&attr)) /* accept4 waits */
        return false;
    pthread_attr_setstacksize(&attr, THREAD_STACK_BYTES);
    server->accepts = !pthread_create(&server->accept_thread, &attr, accept_main, server);
    pthread_attr_destroy(&attr);
    return server->accepts;
}

static void options_complete(struct http_server_options *o)
{
    if (!o->threads)
        o->threads = 1;
    if (o->threads > HTTP_THREADS_MAX)
        o->threads = HTTP_THREADS_MAX;
    if (!o->connections_max)
        o->connections_max = CONNECTIONS_MAX;
    if (!o->idle_timeout_s)
        o->idle_timeout_s = IDLE_TIMEOUT_S;
    if (!o->body_timeout_s)
        o->body_timeout_s = BODY_TIMEOUT_S;
}

int http_server_new(const struct http_server_options *options, struct http_server **ret,
                    struct error_detail *ret_detail)
{
    struct http_server *server = calloc(1, sizeof *server);
    if (!server)
        return error_set(ret_detail, ERR_NOMEM, 0, "out of memory");
    server->options = *options;
    server->listen_fd = -1;
    struct http_server_options *o = &server->options;
    options_complete(o);
    server->limits = (struct body_limits){
        .wire_bytes_max = o->body_bytes_max ? o->body_bytes_max : BODY_BYTES_MAX,
        .inflated_bytes_max = o->inflated_bytes_max ? o->inflated_bytes_max : INFLATED_BYTES_MAX,
        .budget = o->budget ? o->budget : &server->own_budget,
    };
    server->unread.max = o->unread_bytes_max ? o->unread_bytes_max : UNREAD_BYTES_MAX;
    pthread_mutex_init(&server->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&server->less, &monotonic);
    pthread_condattr_destroy(&monotonic);

    int err = o->is_given_connections
                  ? 0
                  : listen_tcp(o->address, o->port, &server->listen_fd, &server->port, ret_detail);
    if (!err && !threads_start(server))
        err = error_set(ret_detail, ERR_IO, 0, "cannot serve HTTP on %s port %u", o->address,
                        o->port);
    if (err) {
        http_server_free(server);
        return err;
    }
    *ret = server;
    return 0;
}

static bool wait_until(struct http_server *server, const struct timespec *until)
{
    return pthread_cond_timedwait(&server->less, &server->lock, until) != ETIMEDOUT;
}

void http_server_stop(struct http_server *server, unsigned deadline_ms)
{
    if (!server || server->is_stopped)
        return;
    server->is_stopped = true;
    pthread_mutex_lock(&server->lock); /* nobody is in the middle of http_server_take */
    atomic_store(&server->stopping, true);
    pthread_mutex_unlock(&server->lock);
    if (server->listen_fd >= 0)
        shutdown(server->listen_fd, SHUT_RDWR); /* wakes accept4, and refuses who comes now */
    if (server->accepts)
        pthread_join(server->accept_thread, NULL);
    if (server->listen_fd >= 0)
        close(server->listen_fd);
    server->listen_fd = -1;
    uint64_t until_ns = clock_monotonic_ns() + deadline_ms * NS_PER_MS;
    struct timespec until = {(time_t)(until_ns / NS_PER_S), (long)(until_ns % NS_PER_S)};

    pthread_mutex_lock(&server->lock);
    for (struct http_stream *s = server->streams; s; s = s->older)
        http__stream_end(s);
    while (atomic_load(&server->open_requests) && wait_until(server, &until))
        ;
    /* Whoever still works on an answer keeps its request; the connection goes. */
    server->closing = true;
    for (struct http_request *r = server->running; r; r = r->older) {
        enum request_state expected = WAITING;
        r->is_listed = false;
        while (!atomic_compare_exchange_strong(&r->state, &expected, ABANDONED) &&
               (expected == RUNNING || expected == WAITING))
            ;
        if (expected == WAITING)
            MHD_resume_connection(r->connection);
    }
    server->running = NULL;
    for (struct http_stream *s = server->streams; s; s = s->older)
        http__stream_end(s);
    pthread_mutex_unlock(&server->lock);
    for (unsigned i = 0; i < server->options.threads; i++) {
        if (server->workers[i].daemon)
            MHD_stop_daemon(server->workers[i].daemon);
        server->workers[i].daemon = NULL;
    }
}

void http_server_free(struct http_server *server)
{
    if (!server)
        return;
    http_server_stop(server, 0);
    pthread_cond_destroy(&server->less);
    pthread_mutex_destroy(&server->lock);
    free(server);
}

uint16_t http_server_port(const struct http_server *server)
{
    return server->port;
}

void http_server_stats(const struct http_server *server, struct http_server_stats *ret)
{
    *ret = (struct http_server_stats){
        .requests = atomic_load_explicit(&server->requests, memory_order_relaxed),
        .connections_now = connections_now(server),
        .connections_full = atomic_load_explicit(&server->connections_full, memory_order_relaxed),
        .body_bytes = atomic_load_explicit(&server->body_bytes, memory_order_relaxed),
        .refused_too_large = atomic_load_explicit(&server->refused_too_large, memory_order_relaxed),
        .refused_bad = atomic_load_explicit(&server->refused_bad, memory_order_relaxed),
        .refused_busy = atomic_load_explicit(&server->refused_busy, memory_order_relaxed),
    };
}
