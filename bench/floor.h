/* What no server that keeps the promise "answered is durable" can do without: a loop, on one core,
 * that receives the same requests, checksums, writes and fdatasyncs them in groups, and answers. It
 * reads HTTP/1.1 by itself and gRPC with the library that the server reads it with. */
#ifndef BENCH_FLOOR_H
#define BENCH_FLOOR_H

#include "bodies.h"

#include <stdbool.h>
#include <sys/types.h>

enum { FLOOR_CONNECTIONS_MAX = 64 };

/* A process on core 0 that ends when all connections it ever had are gone. `path` is the file. */
pid_t floor_start(bool is_grpc, const char *path, uint16_t *ret_port);

#endif
