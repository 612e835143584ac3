#include "net/udp_server.h"

#include "net/listen.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    BATCH = 16,
    DATAGRAM_BYTES_MAX = 65535, /* no datagram is longer */
    BUFFER_BYTES = 4 << 20,
};
/* What stop takes at most, should somebody go on sending. */
enum { LAST_BATCHES_MAX = 4096 };

struct slot {
    char bytes[DATAGRAM_BYTES_MAX + 1];
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(uint32_t))];
    } control;
};

struct udp_server {
    udp_handler_fn *handler;
    void *arg;
    int fd, wake;
    uint16_t port;
    pthread_t thread;
    bool has_thread;
    struct slot *slots; /* BATCH */
    /* written by the thread, read by anybody */
    _Atomic uint64_t datagrams, bytes, dropped;
    /* of the thread */
    uint32_t kernel_dropped; /* the kernel's own count, which wraps */
};

static void add(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

static void count_dropped(struct udp_server *s, struct msghdr *m)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_RXQ_OVFL) {
            uint32_t now;
            memcpy(&now, CMSG_DATA(c), sizeof now);
            add(&s->dropped, now - s->kernel_dropped);
            s->kernel_dropped = now;
        }
    }
}

/* What there is, up to a batch; false when there is nothing. */
static bool take_batch(struct udp_server *s)
{
    struct mmsghdr messages[BATCH];
    struct iovec parts[BATCH];
    memset(messages, 0, sizeof messages);
    for (int i = 0; i < BATCH; i++) {
        parts[i] = (struct iovec){s->slots[i].bytes, sizeof s->slots[i].bytes};
        messages[i].msg_hdr = (struct msghdr){.msg_iov = &parts[i],
                                              .msg_iovlen = 1,
                                              .msg_control = s->slots[i].control.bytes,
                                              .msg_controllen = sizeof s->slots[i].control.bytes};
    }
    int n = recvmmsg(s->fd, messages, BATCH, MSG_DONTWAIT, NULL);
    for (int i = 0; i < n; i++) {
        size_t len = messages[i].msg_len;
        count_dropped(s, &messages[i].msg_hdr);
        add(&s->datagrams, 1);
        add(&s->bytes, len);
        s->handler(s->arg, (struct str){s->slots[i].bytes, len});
    }
    return n > 0 || (n < 0 && errno == EINTR);
}

static void *run(void *arg)
{
    struct udp_server *s = arg;
    struct pollfd fds[] = {{.fd = s->fd, .events = POLLIN}, {.fd = s->wake, .events = POLLIN}};
    while (!fds[1].revents) {
        if (poll(fds, 2, -1) < 0 && errno != EINTR)
            break;
        for (int i = 0; i < LAST_BATCHES_MAX && take_batch(s); i++) {
        }
    }
    return NULL;
}

int udp_server_new(const struct udp_server_options *o, struct udp_server **ret,
                   struct error_detail *ret_detail)
{
    struct udp_server *s = calloc(1, sizeof *s);
    if (!s)
        return error_set(ret_detail, ERR_NOMEM, 0, "out of memory");
    s->handler = o->handler;
    s->arg = o->arg;
    s->fd = s->wake = -1;
    int err = listen_udp(o->address, o->port, &s->fd, &s->port, ret_detail);
    if (err)
        goto failed;
    int bytes = o->buffer_bytes ? (int)o->buffer_bytes : BUFFER_BYTES, on = 1;
    /* Neither is a reason not to serve: then more is lost, or less is known. */
    (void)setsockopt(s->fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    (void)setsockopt(s->fd, SOL_SOCKET, SO_RXQ_OVFL, &on, sizeof on);
    s->slots = calloc(BATCH, sizeof *s->slots);
    s->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (!s->slots || s->wake < 0) {
        err = error_set(ret_detail, ERR_NOMEM, 0, "out of memory");
        goto failed;
    }
    if (pthread_create(&s->thread, NULL, run, s) != 0) {
        err = error_set(ret_detail, ERR_NOMEM, 0, "no thread for datagrams");
        goto failed;
    }
    s->has_thread = true;
    *ret = s;
    return 0;
failed:
    udp_server_free(s);
    return err;
}

void udp_server_stop(struct udp_server *s)
{
    if (!s || !s->has_thread)
        return;
    uint64_t one = 1;
    while (write(s->wake, &one, sizeof one) < 0 && errno == EINTR) {
    }
    pthread_join(s->thread, NULL);
    s->has_thread = false;
}

void udp_server_free(struct udp_server *s)
{
    if (!s)
        return;
    udp_server_stop(s);
    if (s->fd >= 0)
        close(s->fd);
    if (s->wake >= 0)
        close(s->wake);
    free(s->slots);
    free(s);
}

uint16_t udp_server_port(const struct udp_server *s)
{
    return s->port;
}

void udp_server_stats(const struct udp_server *s, struct udp_server_stats *ret)
{
    *ret = (struct udp_server_stats){
        .datagrams = atomic_load_explicit(&s->datagrams, memory_order_relaxed),
        .bytes = atomic_load_explicit(&s->bytes, memory_order_relaxed),
        .dropped = atomic_load_explicit(&s->dropped, memory_order_relaxed),
    };
}
