/* What the sample system reads off the wire. The first byte says what the rest is:
 *
 *   'p'  packets, each behind two bytes of length: raw IP, into the connections
 *   's'  the payload of an SSH packet: what is taken as lists has a fingerprint
 *   'j'  an answer to one of JARM's hellos
 *   else the bytes of a connection, behind a byte that says how small the pieces are: whole or in
 *        pieces, the same messages come out of it, and whatever parses has its fingerprints */
#include "../examples/decoys/fingerprint.h"
#include "../examples/decoys/jarm.h"
#include "../examples/decoys/packet.h"
#include "../examples/decoys/ssh.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

static uint64_t sum; /* of the messages that came out */

static void message(struct flow *f, bool from_client, uint8_t type, const uint8_t *body, size_t len)
{
    static struct client_hello client;
    static struct server_hello server;
    static struct certificate certificate;
    static struct fingerprint one, other;
    (void)f;
    sum = sum * 31 + type + from_client;
    for (size_t i = 0; i < len; i++)
        sum = sum * 1099511628211u + body[i];
    if (type == TLS_CLIENT_HELLO && parse_client_hello(body, len, &client)) {
        ja3(&client, &one);
        ja4(&client, &other);
        MUST(strlen(one.hash) == 32 && strlen(other.hash) == 36);
        session_resumption_info(&client, NULL);
    } else if (type == TLS_SERVER_HELLO && parse_server_hello(body, len, &server)) {
        ja3s(&server, &one);
        ja4s(&server, &other);
        MUST(strlen(one.hash) == 32 && strlen(other.hash) == 25);
        session_resumption_info(&client, &server);
        if (server.retry)
            flow_expect_second_hello(f);
    } else if (type == TLS_CERTIFICATE && parse_certificate(body, len, &certificate)) {
        MUST(strlen(certificate.sha256) == 64);
    }
}

static void syn(struct flow *f, const struct packet *p)
{
    static struct syn_shape shape;
    (void)f;
    syn_shape(p, &shape);
    MUST(p0f_guess_os(&shape));
}

static void end(struct flow *f)
{
    (void)f;
}

static const struct flow_watcher watcher = {message, syn, end};

static void packets(const uint8_t *data, size_t size)
{
    static const int links[] = {0, 1, 12, 113, 276};
    struct flows *flows = flows_new(&watcher);
    struct packet p;
    for (uint64_t n = 0; flows && size >= 2; n++) {
        size_t len = (size_t)data[0] << 8 | data[1];
        data += 2;
        size -= 2;
        len = len < size ? len : size;
        for (size_t i = 0; i < sizeof links / sizeof *links; i++)
            if (packet_decode(links[i], data, len, &p))
                flows_take(flows, &p, n);
        data += len;
        size -= len;
    }
    flows_free(flows);
}

/* What comes out of the bytes, sent in segments of `piece` bytes. */
static uint64_t stream(const uint8_t *data, size_t size, size_t piece)
{
    struct flows *flows = flows_new(&watcher);
    struct packet p = {
        .version = 4, .flags = TCP_SYN, .from = {.port = 40000}, .to = {.port = 443}};
    sum = 0;
    MUST(flows);
    flows_take(flows, &p, 0);
    p.flags = TCP_ACK;
    p.seq = 1;
    for (size_t at = 0; at < size; at += piece) {
        p.payload = data + at;
        p.payload_len = size - at < piece ? size - at : piece;
        flows_take(flows, &p, 1);
        p.seq += (uint32_t)p.payload_len;
    }
    flows_free(flows);
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct ssh_algorithms algorithms;
    static char text[4 * SSH_NAMES_MAX + 4];
    char hash[65], answer[JARM_RAW_MAX];
    if (size < 2)
        return 0;
    switch (data[0]) {
    case 'p':
        packets(data + 1, size - 1);
        break;
    case 's':
        if (ssh_kexinit_parse(data + 1, size - 1, &algorithms)) {
            hassh(&algorithms, true, text, hash);
            MUST(strlen(hash) == 32);
        }
        break;
    case 'j':
        jarm_answer(data + 1, size - 1, answer);
        MUST(strlen(answer) >= 3);
        break;
    default:
        MUST(stream(data + 2, size - 2, size) == stream(data + 2, size - 2, data[1] % 64 + 1u));
    }
    return 0;
}
