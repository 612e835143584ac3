#include "syn.h"

#include "common.h"
#include "fingerprint.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include <pugmark/pugmark.h>

enum { LINK_RAW = 12 }; /* libpcap's DLT_RAW: what a raw socket gives */
enum { SYN_BYTES = 40 };

static uint32_t sum_of(const uint8_t *p, size_t n)
{
    uint32_t sum = 0;
    for (size_t i = 0; i + 1 < n; i += 2)
        sum += (uint32_t)p[i] << 8 | p[i + 1];
    return sum;
}

/* RFC 9293, 3.1: over addresses, protocol, length, and the segment. */
static uint16_t checksum(const struct in_addr *from, const struct in_addr *to, const uint8_t *tcp,
                         size_t n)
{
    uint32_t sum = sum_of((const uint8_t *)from, 4) + sum_of((const uint8_t *)to, 4) + IPPROTO_TCP +
                   (uint32_t)n + sum_of(tcp, n);
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

/* A SYN with the options that a Linux sends: whoever leaves some out of the answer shows it. */
static void syn_build(uint8_t tcp[SYN_BYTES], uint16_t from, uint16_t to, uint32_t seq)
{
    static const uint8_t options[20] = {2, 4, 5, 180, 4, 2, 8, 10, 0, 0,
                                        0, 1, 0, 0,   0, 0, 1, 3,  3, 7};
    memset(tcp, 0, SYN_BYTES);
    tcp[0] = (uint8_t)(from >> 8);
    tcp[1] = (uint8_t)from;
    tcp[2] = (uint8_t)(to >> 8);
    tcp[3] = (uint8_t)to;
    for (int i = 0; i < 4; i++)
        tcp[4 + i] = (uint8_t)(seq >> (24 - 8 * i));
    tcp[12] = SYN_BYTES / 4 << 4;
    tcp[13] = TCP_SYN;
    tcp[14] = 0xfa; /* a window of 64240 */
    tcp[15] = 0xf0;
    memcpy(tcp + 20, options, sizeof options);
}

/* Our address on the way there, and a port that nobody else gets while `*ret_fd` is open. */
static int source_take(const struct sockaddr_in *to, struct sockaddr_in *ret, int *ret_fd)
{
    socklen_t len = sizeof *ret;
    AUTO_CLOSE int way = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (way < 0 || connect(way, (const struct sockaddr *)to, sizeof *to) != 0 ||
        getsockname(way, (struct sockaddr *)ret, &len) != 0)
        return -1;
    ret->sin_port = 0;
    len = sizeof *ret;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)ret, sizeof *ret) != 0 ||
        getsockname(fd, (struct sockaddr *)ret, &len) != 0) {
        close_quietly(&fd);
        return -1;
    }
    *ret_fd = fd;
    return 0;
}

/* Waits for the answer to our SYN among all that comes in. The kernel, which knows nothing of it,
 * sends the RST that ends it. */
static int answer_wait(int raw, const struct sockaddr_in *to, uint16_t port, uint32_t seq,
                       int timeout_ms, struct packet *ret)
{
    static _Thread_local uint8_t bytes[2048]; /* what `ret` points into */
    uint64_t deadline = now_ns() + (uint64_t)timeout_ms * 1000000;
    for (uint64_t now; (now = now_ns()) < deadline;) {
        struct pollfd p = {.fd = raw, .events = POLLIN};
        if (poll(&p, 1, (int)((deadline - now) / 1000000) + 1) <= 0)
            continue;
        ssize_t n = recv(raw, bytes, sizeof bytes, MSG_DONTWAIT);
        if (n > 0 && packet_decode(LINK_RAW, bytes, (size_t)n, ret) && ret->to.port == port &&
            ret->from.port == ntohs(to->sin_port) && ret->flags & TCP_ACK && ret->ack == seq + 1 &&
            memcmp(ret->from.ip, &to->sin_addr, 4) == 0)
            return 0;
    }
    errno = ETIMEDOUT;
    return -1;
}

static int tcpfp_send_syn(int raw, const struct sockaddr_in *to, int timeout_ms, struct packet *ret)
{
    PUG_SPAN("prober.tcpfp_send_syn", PUG_KIND(PUG_KIND_CLIENT));
    struct sockaddr_in from = {0};
    AUTO_CLOSE int reserved = -1;
    uint8_t tcp[SYN_BYTES];
    uint32_t seq;
    if (source_take(to, &from, &reserved) != 0 || getrandom(&seq, sizeof seq, 0) != sizeof seq) {
        pug_error(PUG_CURRENT, strerror(errno));
        return -1;
    }
    syn_build(tcp, ntohs(from.sin_port), ntohs(to->sin_port), seq);
    uint16_t sum = checksum(&from.sin_addr, &to->sin_addr, tcp, sizeof tcp);
    tcp[16] = (uint8_t)(sum >> 8);
    tcp[17] = (uint8_t)sum;
    if (sendto(raw, tcp, sizeof tcp, 0, (const struct sockaddr *)to, sizeof *to) != sizeof tcp ||
        answer_wait(raw, to, ntohs(from.sin_port), seq, timeout_ms, ret) != 0) {
        pug_error(PUG_CURRENT, strerror(errno));
        return -1;
    }
    return 0;
}

static int from_packet(int raw, const struct sockaddr_in *to, int timeout_ms,
                       struct tcp_fingerprint *f)
{
    struct packet answer;
    struct syn_shape shape;
    if (tcpfp_send_syn(raw, to, timeout_ms, &answer) != 0)
        return -1;
    syn_shape(&answer, &shape);
    f->raw = true;
    f->open = (answer.flags & (TCP_SYN | TCP_RST)) == TCP_SYN;
    snprintf(f->text, sizeof f->text, "raw %s", f->open ? shape.signature : "closed");
    return 0;
}

static int from_kernel(const char *ip, uint16_t port, int timeout_ms, struct tcp_fingerprint *f)
{
    AUTO_CLOSE int fd = connect_address(NULL, ip, port, timeout_ms);
    struct tcp_info tcp;
    socklen_t len = sizeof tcp;
    if (fd < 0 && errno == ECONNREFUSED) {
        snprintf(f->text, sizeof f->text, "info closed");
        return 0;
    }
    if (fd < 0 || getsockopt(fd, IPPROTO_TCP, TCP_INFO, &tcp, &len) != 0)
        return -1;
    f->open = true;
    snprintf(f->text, sizeof f->text, "info mss=%u,wscale=%u%s%s%s", tcp.tcpi_snd_mss,
             tcp.tcpi_snd_wscale, tcp.tcpi_options & TCPI_OPT_SACK ? ",sok" : "",
             tcp.tcpi_options & TCPI_OPT_TIMESTAMPS ? ",ts" : "",
             tcp.tcpi_options & TCPI_OPT_ECN ? ",ecn" : "");
    return 0;
}

int tcp_fingerprint(const char *ip, uint16_t port, int timeout_ms, struct tcp_fingerprint *ret)
{
    PUG_SPAN("prober.tcp_fingerprint", PUG_STR("server.address", ip), PUG_INT("server.port", port));
    struct tcp_fingerprint f = {.open = false};
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    if (inet_pton(AF_INET, ip, &to.sin_addr) != 1) {
        errno = EINVAL;
        return -1;
    }
    AUTO_CLOSE int raw = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_TCP);
    int result = raw >= 0 ? from_packet(raw, &to, timeout_ms, &f)
                          : from_kernel(ip, port, timeout_ms, &f);
    if (result != 0) {
        pug_error(PUG_CURRENT, strerror(errno));
        return -1;
    }
    char hash[DIGEST_HEX_SIZE];
    digest_hex("sha256", f.text, strlen(f.text), hash);
    snprintf(f.hash, sizeof f.hash, "%.32s", hash);
    pug_set_str(PUG_CURRENT, "tcp.fingerprint", f.text);
    *ret = f;
    return 0;
}
