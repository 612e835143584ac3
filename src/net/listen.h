/* A listening TCP socket or a bound UDP one, and words for why there is none. */
#ifndef NET_LISTEN_H
#define NET_LISTEN_H

#include "base/err.h"

#include <stdint.h>

/* `address` is a numeric IPv4 or IPv6 address, `port` 0 takes a free one. The socket is
 * non-blocking and close-on-exec. */
MUST_USE int listen_tcp(const char *address, uint16_t port, int *ret_fd, uint16_t *ret_port,
                        struct error_detail *ret_detail);
/* The same for datagrams. */
MUST_USE int listen_udp(const char *address, uint16_t port, int *ret_fd, uint16_t *ret_port,
                        struct error_detail *ret_detail);

#endif
