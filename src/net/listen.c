#include "net/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int bind_to(const char *address, uint16_t port, int type, int *ret_fd, uint16_t *ret_port,
                   struct error_detail *ret_detail)
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } at = {0};
    socklen_t length;
    if (inet_pton(AF_INET, address, &at.v4.sin_addr) == 1) {
        at.v4.sin_family = AF_INET;
        at.v4.sin_port = htons(port);
        length = sizeof at.v4;
    } else if (inet_pton(AF_INET6, address, &at.v6.sin6_addr) == 1) {
        at.v6.sin6_family = AF_INET6;
        at.v6.sin6_port = htons(port);
        length = sizeof at.v6;
    } else {
        return error_set(ret_detail, ERR_INVALID, 0,
                         "\"%.100s\" is not a numeric IPv4 or IPv6 address", address);
    }
    int fd = socket(at.any.sa_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int on = 1;
    bool stream = type == SOCK_STREAM; /* two that bind for datagrams would share the port */
    if (fd < 0 || (stream && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0) ||
        bind(fd, &at.any, length) != 0 || (stream && listen(fd, SOMAXCONN) != 0) ||
        getsockname(fd, &at.any, &length) != 0) {
        int why = errno;
        if (fd >= 0)
            close(fd);
        return error_set(ret_detail, why == EADDRINUSE ? ERR_BUSY : ERR_IO, 0,
                         "cannot listen on %s port %u: %s", address, port, strerror(why));
    }
    *ret_fd = fd;
    *ret_port = ntohs(at.any.sa_family == AF_INET ? at.v4.sin_port : at.v6.sin6_port);
    return 0;
}

int listen_tcp(const char *address, uint16_t port, int *ret_fd, uint16_t *ret_port,
               struct error_detail *ret_detail)
{
    return bind_to(address, port, SOCK_STREAM, ret_fd, ret_port, ret_detail);
}

int listen_udp(const char *address, uint16_t port, int *ret_fd, uint16_t *ret_port,
               struct error_detail *ret_detail)
{
    return bind_to(address, port, SOCK_DGRAM, ret_fd, ret_port, ret_detail);
}
