/* Jaeger's gRPC query service: jaeger_grpc.c. */
#ifndef WEB_JAEGER_GRPC_H
#define WEB_JAEGER_GRPC_H

#include "web/web_internal.h"

struct grpc_server;

/* Calls are answered when web->started. The server is stopped before web's pool ends, and freed after it. */
MUST_USE int jaeger_grpc_new(struct web *web, const char *address, uint16_t port,
                             struct grpc_server **ret, struct error_detail *ret_detail);

#endif
