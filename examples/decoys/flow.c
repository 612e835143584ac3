/* TCP put together again, as far as TLS handshakes need it (packet.h). */
#include "packet.h"
#include "tls.h"

#include <stdlib.h>
#include <string.h>

#define BUCKETS 2048
#define RECORD_BYTES_MAX (16384 + 2048) /* RFC 5246, 6.2.3 */

/* A segment that came before what belongs in front of it. */
struct pending {
    uint32_t seq;
    size_t len;
    uint8_t *bytes;
};

struct direction {
    uint32_t next; /* sequence number of the byte that is due */
    bool done;
    uint8_t header[5]; /* of the record under way */
    size_t header_len, record_left;
    uint8_t *handshake; /* messages that are not whole yet */
    size_t handshake_len;
    struct pending pending[PENDING_MAX];
    size_t n_pending, pending_bytes;
};

struct flows {
    const struct flow_watcher *watcher;
    struct flow *buckets[BUCKETS];
    size_t n;
};

struct flows *flows_new(const struct flow_watcher *watcher)
{
    struct flows *flows = calloc(1, sizeof *flows);
    if (flows)
        flows->watcher = watcher;
    return flows;
}

/* ---- one direction ---- */

static void pending_drop(struct direction *d)
{
    for (size_t i = 0; i < d->n_pending; i++)
        free(d->pending[i].bytes);
    d->n_pending = d->pending_bytes = 0;
}

/* Nothing more will be collected: what was is given back. */
static void finish(struct direction *d)
{
    pending_drop(d);
    free(d->handshake);
    d->handshake = NULL;
    d->handshake_len = 0;
    d->done = true;
}

static void direction_free(struct direction *d)
{
    if (d)
        finish(d);
    free(d);
}

/* Hands out the messages that are whole. */
static void messages(struct flows *flows, struct flow *f, struct direction *d)
{
    size_t at = 0;
    while (!d->done && d->handshake_len - at >= 4) {
        const uint8_t *m = d->handshake + at;
        size_t len = (size_t)m[1] << 16 | (size_t)m[2] << 8 | m[3];
        if (len > HANDSHAKE_BYTES_MAX - 4) {
            finish(d);
            return;
        }
        if (d->handshake_len - at - 4 < len)
            break;
        flows->watcher->message(f, d == f->directions[0], m[0], m + 4, len);
        at += 4 + len;
    }
    memmove(d->handshake, d->handshake + at, d->handshake_len - at);
    d->handshake_len -= at;
}

/* The bytes that are due. */
static void stream(struct flows *flows, struct flow *f, struct direction *d, const uint8_t *bytes,
                   size_t len)
{
    while (!d->done && len > 0) {
        if (d->header_len < 5) {
            d->header[d->header_len++] = *bytes++;
            len--;
            if (d->header_len < 5)
                continue;
            d->record_left = (size_t)d->header[3] << 8 | d->header[4];
            /* After a change of cipher everything is secret, but for the hello that is asked for
             * once more. What is neither handshake nor that is no TLS, an alert, or secret. */
            bool again = d->header[0] == TLS_CHANGE_CIPHER_SPEC && f->expect_second_hello;
            if ((d->header[0] != TLS_HANDSHAKE && !again) || d->header[1] != 3 ||
                d->record_left == 0 || d->record_left > RECORD_BYTES_MAX) {
                finish(d);
                return;
            }
        }
        size_t n = len < d->record_left ? len : d->record_left;
        if (d->header[0] == TLS_HANDSHAKE) {
            if (d->handshake_len + n > HANDSHAKE_BYTES_MAX) {
                finish(d);
                return;
            }
            if (!d->handshake && !(d->handshake = malloc(HANDSHAKE_BYTES_MAX))) {
                finish(d);
                return;
            }
            memcpy(d->handshake + d->handshake_len, bytes, n);
            d->handshake_len += n;
            messages(flows, f, d);
        }
        bytes += n;
        len -= n;
        d->record_left -= n;
        if (d->record_left == 0)
            d->header_len = 0;
    }
}

static void remember(struct direction *d, uint32_t seq, const uint8_t *bytes, size_t len)
{
    if (d->n_pending == PENDING_MAX || d->pending_bytes + len > HANDSHAKE_BYTES_MAX) {
        finish(d); /* too much is missing: it will not be read any more */
        return;
    }
    uint8_t *copy = malloc(len);
    if (!copy) {
        finish(d);
        return;
    }
    memcpy(copy, bytes, len);
    d->pending[d->n_pending++] = (struct pending){seq, len, copy};
    d->pending_bytes += len;
}

/* What of the segment is due goes on; true when something was. */
static bool advance(struct flows *flows, struct flow *f, struct direction *d, uint32_t seq,
                    const uint8_t *bytes, size_t len)
{
    int32_t ahead = (int32_t)(seq - d->next);
    if (ahead > 0 || (size_t) - (int64_t)ahead >= len)
        return false; /* too early, or known already */
    size_t known = (size_t) - (int64_t)ahead;
    d->next += (uint32_t)(len - known);
    stream(flows, f, d, bytes + known, len - known);
    return true;
}

static void segment(struct flows *flows, struct flow *f, struct direction *d, uint32_t seq,
                    const uint8_t *bytes, size_t len)
{
    if (d->done || len == 0)
        return;
    if ((int32_t)(seq - d->next) > 0) {
        remember(d, seq, bytes, len);
        return;
    }
    bool more = advance(flows, f, d, seq, bytes, len);
    while (more && !d->done) {
        more = false;
        for (size_t i = 0; i < d->n_pending && !d->done; i++) {
            struct pending p = d->pending[i];
            if ((int32_t)(p.seq - d->next) > 0)
                continue;
            d->pending[i] = d->pending[--d->n_pending];
            d->pending_bytes -= p.len;
            more |= advance(flows, f, d, p.seq, p.bytes, p.len);
            free(p.bytes);
            break;
        }
    }
}

/* ---- connections ---- */

static bool same(const struct endpoint *a, const struct endpoint *b)
{
    return a->port == b->port && memcmp(a->ip, b->ip, sizeof a->ip) == 0;
}

/* The same for both directions. */
static size_t bucket_of(const struct packet *p)
{
    uint32_t sum = 0;
    for (size_t i = 0; i < 16; i++)
        sum += (uint32_t)(p->from.ip[i] + p->to.ip[i]) * (2654435761u + (uint32_t)i * 2246822519u);
    sum += (uint32_t)(p->from.port + p->to.port) * 3266489917u;
    return (sum ^ sum >> 15) % BUCKETS;
}

static struct flow *find(struct flows *flows, const struct packet *p, bool *ret_from_client)
{
    for (struct flow *f = flows->buckets[bucket_of(p)]; f; f = f->next) {
        if (f->version != p->version)
            continue;
        if (same(&f->client, &p->from) && same(&f->server, &p->to)) {
            *ret_from_client = true;
            return f;
        }
        if (same(&f->client, &p->to) && same(&f->server, &p->from)) {
            *ret_from_client = false;
            return f;
        }
    }
    return NULL;
}

static void flow_remove(struct flows *flows, struct flow **at)
{
    struct flow *f = *at;
    *at = f->next;
    flows->watcher->flow_end(f);
    direction_free(f->directions[0]);
    direction_free(f->directions[1]);
    free(f);
    flows->n--;
}

static void forget(struct flows *flows, const struct flow *f, size_t bucket)
{
    for (struct flow **at = &flows->buckets[bucket]; *at; at = &(*at)->next)
        if (*at == f) {
            flow_remove(flows, at);
            return;
        }
}

static void forget_oldest(struct flows *flows)
{
    struct flow **oldest = NULL;
    for (size_t i = 0; i < BUCKETS; i++)
        for (struct flow **at = &flows->buckets[i]; *at; at = &(*at)->next)
            if (!oldest || (*at)->seen_ns < (*oldest)->seen_ns)
                oldest = at;
    if (oldest)
        flow_remove(flows, oldest);
}

void flows_free(struct flows *flows)
{
    for (size_t i = 0; flows && i < BUCKETS; i++)
        while (flows->buckets[i])
            flow_remove(flows, &flows->buckets[i]);
    free(flows);
}

static struct flow *flow_new(struct flows *flows, const struct packet *p, bool from_client)
{
    if (flows->n == FLOWS_MAX)
        forget_oldest(flows);
    struct flow *f = calloc(1, sizeof *f);
    if (!f)
        return NULL;
    f->version = p->version;
    f->client = from_client ? p->from : p->to;
    f->server = from_client ? p->to : p->from;
    size_t bucket = bucket_of(p);
    f->next = flows->buckets[bucket];
    flows->buckets[bucket] = f;
    flows->n++;
    return f;
}

static bool like_tls(const struct packet *p)
{
    return p->payload_len >= 6 && p->payload[0] == TLS_HANDSHAKE && p->payload[1] == 3;
}

/* The direction of a packet; made by a SYN, or by bytes that begin like TLS. */
static struct direction *direction_of(struct flow *f, bool from_client, const struct packet *p)
{
    struct direction **at = &f->directions[from_client ? 0 : 1];
    if (!*at && ((p->flags & TCP_SYN) || like_tls(p)) && (*at = calloc(1, sizeof **at)))
        (*at)->next = p->seq + !!(p->flags & TCP_SYN);
    return *at;
}

void flows_take(struct flows *flows, const struct packet *p, uint64_t time_ns)
{
    bool from_client = true;
    struct flow *f = find(flows, p, &from_client);
    bool first_syn = (p->flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
    if (f && first_syn && f->directions[0] && f->directions[0]->next != p->seq + 1) {
        forget(flows, f, bucket_of(p)); /* the ports are used again */
        f = NULL;
    }
    if (!f) {
        if (p->flags & TCP_RST || (!(p->flags & TCP_SYN) && !like_tls(p)))
            return;
        /* The first thing known of it may be the server's. */
        from_client = first_syn || (!(p->flags & TCP_SYN) && p->payload[5] != TLS_SERVER_HELLO);
        f = flow_new(flows, p, from_client);
        if (!f)
            return;
    }
    f->seen_ns = time_ns;
    if (first_syn && !f->had_syn) {
        f->had_syn = true;
        flows->watcher->syn(f, p);
    }
    struct direction *d = direction_of(f, from_client, p);
    if (d)
        segment(flows, f, d, p->seq + !!(p->flags & TCP_SYN), p->payload, p->payload_len);
    bool over = f->directions[0] && f->directions[0]->done && f->directions[1] &&
                f->directions[1]->done && p->flags & TCP_FIN;
    if (p->flags & TCP_RST || over)
        forget(flows, f, bucket_of(p));
}

void flow_expect_second_hello(struct flow *f)
{
    f->expect_second_hello = true;
}
