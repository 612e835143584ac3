/* Packets: what a capture gives, down to TCP, and TCP put together again.
 *
 * Formats: the link types of libpcap that are named in packet.c, RFC 791 (IPv4), RFC 8200 (IPv6),
 * RFC 9293 (TCP). Nothing is trusted; checksums are not looked at, because a capture on the machine
 * itself is taken before the network card fills them in. */
#ifndef DECOYS_PACKET_H
#define DECOYS_PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TCP_FIN = 1, TCP_SYN = 2, TCP_RST = 4, TCP_PSH = 8, TCP_ACK = 16, TCP_URG = 32 };
enum { TCP_ECE = 64, TCP_CWR = 128 };

struct endpoint {
    uint8_t ip[16]; /* IPv4 in its first four */
    uint16_t port;
};

/* Points into the capture's bytes. */
struct packet {
    int version; /* 4 or 6 */
    struct endpoint from, to;
    uint8_t ttl, tos;
    uint16_t ip_id;
    uint32_t flow_label; /* IPv6 */
    uint8_t ip_options_len;
    bool dont_fragment, must_be_zero;
    uint32_t seq, ack;
    uint16_t window, urgent;
    uint8_t flags;
    const uint8_t *options;
    size_t options_len;
    const uint8_t *payload;
    size_t payload_len;
};

/* False when it is no TCP, a fragment, or damaged. `link_type` is libpcap's DLT_. */
bool packet_decode(int link_type, const uint8_t *bytes, size_t len, struct packet *ret);
/* "192.0.2.1" or "2001:db8::1". */
void endpoint_text(int version, const struct endpoint *e, char out[46]);

/* ---- the shape of a SYN ---- */

struct syn_shape {
    /* As p0f 3 writes it: ver:ittl:olen:mss:wsize,scale:olayout:quirks:pclass */
    char signature[256];
    char layout[64]; /* "mss,sok,ts,nop,ws" */
    int ttl_guess;   /* what it started with */
    int mss, scale;  /* -1: not said */
    uint16_t window;
    bool dont_fragment;
};
/* Also of a SYN with ACK. */
void syn_shape(const struct packet *p, struct syn_shape *ret);
/* "Linux 3.11 or newer"; "unknown" when it is like nothing known. */
const char *p0f_guess_os(const struct syn_shape *s);

/* ---- connections ---- */

/* Both directions of a TCP connection, put in order; whoever watches gets TLS handshake messages.
 *
 * States: a connection is made by a SYN or by the first bytes that begin like TLS; each direction
 * collects until it is `done` (no TLS, encrypted from here on, or over a limit), and then only
 * counts as there. Limits: FLOWS_MAX connections (the longest silent one gives way), and for each
 * direction HANDSHAKE_BYTES_MAX of handshake, and as much in at most PENDING_MAX segments that came
 * too early. */
#define FLOWS_MAX 512
#define HANDSHAKE_BYTES_MAX 32768
#define PENDING_MAX 16

struct flow;
/* `user` of a flow is the watcher's own; freed with `flow_end`. */
struct flow_watcher {
    /* A message's type and body; `from_client`: by whoever began the connection. */
    void (*message)(struct flow *f, bool from_client, uint8_t type, const uint8_t *body,
                    size_t len);
    void (*syn)(struct flow *f, const struct packet *p);
    void (*flow_end)(struct flow *f);
};
struct flow {
    int version;
    struct endpoint client, server;
    uint64_t seen_ns; /* time of the packet that is being looked at */
    void *user;
    struct direction *directions[2]; /* from the client, from the server */
    bool had_syn, expect_second_hello;
    struct flow *next; /* of the same bucket */
};
struct flows;
struct flows *flows_new(const struct flow_watcher *watcher); /* NULL: no memory */
void flows_free(struct flows *flows);
void flows_take(struct flows *flows, const struct packet *p, uint64_t time_ns);
/* The server asked for another hello: what comes next is not encrypted yet. */
void flow_expect_second_hello(struct flow *f);

#endif
