/* One connection that makes unary gRPC calls whose messages are framed already, one at a time. */
#ifndef BENCH_GRPC_CLIENT_H
#define BENCH_GRPC_CLIENT_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct grpc_client;

/* Takes the connected descriptor, also when it fails. NULL: that is -1, or there is no memory. */
struct grpc_client *grpc_client_new(int fd);
void grpc_client_free(struct grpc_client *client); /* NULL is allowed */

struct grpc_answer {
    int status;          /* grpc-status */
    const char *message; /* the answer's, without its frame; until the next call */
    size_t n;
};

/* `bytes` is the frame of gRPC and its message. ERR_IO: the connection is of no use any more. */
MUST_USE int grpc_client_call(struct grpc_client *client, const char *bytes, size_t n,
                              struct grpc_answer *ret);

#endif
