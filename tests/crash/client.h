/* A server that is going to be treated badly, and one that sends to it: `pugmark serve` as a child, and connections
 * that send numbered bodies by each of the receivers that answer.
 *
 * A body of spans is one trace of BODY_SPANS spans; one of logs or metrics is one record. All hold the body's number,
 * so that what the store has can be counted. Used by the tests that kill the server and by those that let its
 * system calls fail. What cannot be for a test (no memory, no child) ends the program. */
#ifndef TESTS_CLIENT_H
#define TESTS_CLIENT_H

#include "base/buf.h"
#include "base/err.h"

#include <stdint.h>
#include <sys/types.h>

enum form {
    FORM_OTLP_HTTP,
    FORM_OTLP_GRPC,
    FORM_OTLP_JSON,
    FORM_ZIPKIN_JSON,
    FORM_LOGS,
    FORM_METRICS,
    FORMS
};

#define BODY_SPANS 4
#define BODY_TRACE_HIGH                                                                            \
    UINT64_C(0xc0ffee) /* the first half of every trace id; the second is the number */
#define BODY_METRIC "crash.bodies"

const char *form_name(enum form form);
static inline bool form_is_spans(enum form form)
{
    return form < FORM_LOGS;
}

/* Big endian, as ids are. */
void number_put(uint8_t *to, uint64_t n);
uint64_t number_get(const uint8_t *from);

/* Spans have an attribute `body` with the number, and `doomed` = true when so told; a log and a point have
 * `time_ns`, which should be of this number only: a series keeps one point for each time. */
void body_make(enum form form, uint32_t number, uint64_t time_ns, bool doomed, struct buf *out);

__attribute__((noreturn)) void give_up(const char *format, ...) PRINTF_LIKE(1, 2);
/* Told with every word of give_up. */
extern char scratch[64];

struct server {
    pid_t pid;
    uint16_t otlp_http, otlp_grpc, zipkin, page;
};

/* Starts it with the environment and arguments as given (both end with NULL; `args` follow the usual ones), and waits
 * until it is ready. False: it ended before, with `*ret_status`. */
bool server_start(const char *pugmark, const char *data, const char *const *args,
                  const char *const *environment, struct server *ret, int *ret_status);
/* SIGTERM, and its end is awaited. False: it had to be killed. */
bool server_stop(struct server *server, int *ret_status);

struct conn;

/* Never NULL; a connection that was not made answers 0. */
struct conn *conn_new(const struct server *server, enum form form);
void conn_free(struct conn *conn);
/* 200: acknowledged; 429 or 503: refused, and may be sent again; 0: the connection is gone, or nothing was answered for
 * long; another: refused for good. */
int conn_send(struct conn *conn, const struct buf *body);

/* One request on a connection of its own, without a body. The status, and what was answered in `ret_body`
 * when that is not NULL; 0: none. */
int http_ask(uint16_t port, const char *method, const char *path, struct buf *ret_body);

void dir_copy(const char *from, const char *to);
void dir_remove(const char *path);

#endif
