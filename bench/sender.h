/* Sends bodies that are encoded already, several connections side by side, one request under way on
 * each: HTTP/1.1, or gRPC over HTTP/2 (grpc_client.h). A client that costs little beside the server
 * that is measured. */
#ifndef BENCH_SENDER_H
#define BENCH_SENDER_H

#include "bodies.h"

#include <stdint.h>

struct sender_options {
    const struct body_set *set;
    uint16_t port; /* on 127.0.0.1 */
    unsigned connections;
    double seconds; /* round after round for so long; 0: each body once */
    int cpu;        /* to stay on; -1: anywhere */
};

struct sender_result {
    uint64_t requests, spans_acked, spans_rejected, spans_refused;
    uint64_t busy_answers;         /* "later": each was sent again after its Retry-After */
    uint64_t started_ns, ended_ns; /* monotonic: first byte out, last answer in */
    double cpu_s;                  /* the sender's own */
    uint64_t *latencies_ns;        /* of n_latencies requests, sorted; free() it */
    size_t n_latencies;
    char problem[160]; /* why it stopped early, or empty */
};

/* 0 when every body was sent and answered, however. */
MUST_USE int sender_run(const struct sender_options *options, struct sender_result *ret);

/* The port of "http://127.0.0.1:PORT". */
MUST_USE int sender_port(const char *url, size_t url_len, uint16_t *ret_port);

/* GET over a connection of its own; the answer's body is the caller's, to be freed. */
MUST_USE int sender_get(uint16_t port, const char *path, char **ret_body, size_t *ret_len);

/* Connected to 127.0.0.1, with a minute's patience; -1. */
int sender_dial(uint16_t port);

#endif
