/* Takes datagrams, many with one call, on a thread of its own. Knows nothing of tracing.
 *
 * What the kernel threw away because its buffer was full is counted: it says so with the next
 * datagram that comes. */
#ifndef NET_UDP_SERVER_H
#define NET_UDP_SERVER_H

#include "base/err.h"
#include "base/str.h"

struct udp_server;

/* On the server's thread; `bytes` are gone when it returns. */
typedef void udp_handler_fn(void *arg, struct str bytes);

struct udp_server_options {
    const char *address; /* numeric IPv4 or IPv6 */
    uint16_t port;       /* 0: a free one */
    size_t buffer_bytes; /* of the kernel, as far as it allows; 0: the default, 4 MiB */
    udp_handler_fn *handler;
    void *arg;
};

MUST_USE int udp_server_new(const struct udp_server_options *options, struct udp_server **ret,
                            struct error_detail *ret_detail);
/* Hands over what the kernel has, and ends the thread. NULL is allowed. */
void udp_server_stop(struct udp_server *server);
void udp_server_free(struct udp_server *server); /* NULL is allowed */
uint16_t udp_server_port(const struct udp_server *server);

struct udp_server_stats {
    uint64_t datagrams, bytes, dropped;
};
void udp_server_stats(const struct udp_server *server, struct udp_server_stats *ret);

#endif
