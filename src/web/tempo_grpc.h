/* Tempo's StreamingQuerier, which shares the address of its HTTP API. */
#ifndef WEB_TEMPO_GRPC_H
#define WEB_TEMPO_GRPC_H

#include "net/grpc_server.h"
#include "web/web_internal.h"

/* Listens on the address, and gives the connections that speak HTTP/1.1 to `http`. ERR_BUSY: the port is taken. */
MUST_USE int tempo_grpc_new(struct web *web, const char *address, uint16_t port,
                            struct http_server *http, struct grpc_server **ret,
                            struct error_detail *ret_detail);

#endif
