/* Sends bodies that are encoded already over HTTP/1.1, several connections side by side, one
 * request under way on each: a client that costs little beside the server that is measured. */
#ifndef BENCH_SENDER_H
#define BENCH_SENDER_H

#include "base/err.h"

#include <stdint.h>

struct body {
    char *bytes;
    size_t len;
    uint32_t spans;
};

struct sender_options {
    const struct body *bodies;
    size_t n_bodies;
    uint16_t port; /* on 127.0.0.1 */
    unsigned connections;
    int cpu; /* to stay on; -1: anywhere */
};

struct sender_result {
    uint64_t requests, spans_acked, spans_rejected, spans_refused;
    uint64_t busy_answers;         /* 429 and 503: each was sent again after its Retry-After */
    uint64_t started_ns, ended_ns; /* monotonic: first byte out, last answer in */
    uint64_t *latencies_ns;        /* of each request, sorted; free() it */
    char problem[160];             /* why it stopped early, or empty */
};

/* 0 when every body was sent and answered, however. */
MUST_USE int sender_run(const struct sender_options *options, struct sender_result *ret);

/* The port of "http://127.0.0.1:PORT". */
MUST_USE int sender_port(const char *url, size_t url_len, uint16_t *ret_port);

/* GET over a connection of its own; the answer's body is the caller's, to be freed. */
MUST_USE int sender_get(uint16_t port, const char *path, char **ret_body, size_t *ret_len);

#endif
