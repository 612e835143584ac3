#include "packet.h"

#include <arpa/inet.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <pugmark/pugmark.h>

/* libpcap's numbers (pcap-linktype(7)); without its header, so that this file stands alone. */
enum { LINK_NULL = 0, LINK_ETHERNET = 1, LINK_RAW = 12, LINK_RAW_FILE = 101, LINK_SLL = 113 };
enum { LINK_LOOP = 108, LINK_SLL2 = 276 };
enum { ETHER_IP = 0x0800, ETHER_IPV6 = 0x86dd, ETHER_VLAN = 0x8100, ETHER_QINQ = 0x88a8 };
#define HEADERS_MAX 8 /* VLAN tags, or extension headers of IPv6 */

static unsigned u16(const uint8_t *p)
{
    return (unsigned)p[0] << 8 | p[1];
}

static uint32_t u32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* ---- link ---- */

/* Where IP begins; 0 with a packet that has none. */
static size_t link_header(int type, const uint8_t *b, size_t len)
{
    size_t at = 0;
    unsigned protocol;
    switch (type) {
    case LINK_RAW:
    case LINK_RAW_FILE:
        return 0;
    case LINK_NULL:
    case LINK_LOOP:
        return 4;
    case LINK_SLL:
        return 16;
    case LINK_SLL2:
        return 20;
    case LINK_ETHERNET:
        at = 12;
        for (int i = 0; i < HEADERS_MAX && len >= at + 2; i++) {
            protocol = u16(b + at);
            if (protocol == ETHER_IP || protocol == ETHER_IPV6)
                return at + 2;
            if (protocol != ETHER_VLAN && protocol != ETHER_QINQ)
                break;
            at += 4;
        }
        return len;
    default:
        return len;
    }
}

/* ---- IP ---- */

/* Both give where TCP begins, 0 when it does not; `*len` shrinks to what IP says. */
static size_t ipv4_header(const uint8_t *b, size_t *len, struct packet *p)
{
    size_t header = (size_t)(b[0] & 15) * 4, total = *len >= 20 ? u16(b + 2) : 0;
    /* A total of 0 is what segmentation by the card leaves in a capture. */
    if (header < 20 || *len < header || (total != 0 && total < header) || b[9] != 6)
        return 0;
    if (u16(b + 6) & 0x3fff) /* more fragments, or one of them */
        return 0;
    if (total != 0 && total < *len)
        *len = total;
    p->version = 4;
    p->tos = b[1];
    p->ip_id = (uint16_t)u16(b + 4);
    p->dont_fragment = b[6] & 0x40;
    p->must_be_zero = b[6] & 0x80;
    p->ttl = b[8];
    p->ip_options_len = (uint8_t)(header - 20);
    memcpy(p->from.ip, b + 12, 4);
    memcpy(p->to.ip, b + 16, 4);
    return header;
}

static size_t ipv6_header(const uint8_t *b, size_t *len, struct packet *p)
{
    if (*len < 40)
        return 0;
    size_t total = 40 + u16(b + 4), at = 40;
    if (total > 40 && total < *len)
        *len = total;
    p->version = 6;
    p->tos = (uint8_t)(b[0] << 4 | b[1] >> 4);
    p->flow_label = u32(b) & 0xfffff;
    p->ttl = b[7];
    memcpy(p->from.ip, b + 8, 16);
    memcpy(p->to.ip, b + 24, 16);
    unsigned next = b[6];
    for (int i = 0; i < HEADERS_MAX && next != 6; i++) {
        /* hop-by-hop, routing, destination options; all else is no TCP or a fragment */
        if ((next != 0 && next != 43 && next != 60) || *len < at + 8)
            return 0;
        next = b[at];
        at += 8 + (size_t)b[at + 1] * 8;
    }
    p->ip_options_len = (uint8_t)(at - 40);
    return next == 6 ? at : 0;
}

bool packet_decode(int link_type, const uint8_t *b, size_t len, struct packet *ret)
{
    struct packet p = {0};
    size_t at = link_header(link_type, b, len);
    if (at >= len)
        return false;
    b += at;
    len -= at;
    at = b[0] >> 4 == 4 && len >= 20 ? ipv4_header(b, &len, &p)
         : b[0] >> 4 == 6            ? ipv6_header(b, &len, &p)
                                     : 0;
    if (at == 0 || len < at + 20)
        return false;
    b += at;
    len -= at;
    size_t header = (size_t)(b[12] >> 4) * 4;
    if (header < 20 || header > len)
        return false;
    p.from.port = (uint16_t)u16(b);
    p.to.port = (uint16_t)u16(b + 2);
    p.seq = u32(b + 4);
    p.ack = u32(b + 8);
    p.flags = b[13];
    p.window = (uint16_t)u16(b + 14);
    p.urgent = (uint16_t)u16(b + 18);
    p.options = b + 20;
    p.options_len = header - 20;
    p.payload = b + header;
    p.payload_len = len - header;
    *ret = p;
    return true;
}

void endpoint_text(int version, const struct endpoint *e, char out[46])
{
    if (!inet_ntop(version == 4 ? AF_INET : AF_INET6, e->ip, out, 46))
        out[0] = '\0';
}

/* ---- the shape of a SYN ---- */

struct text {
    char *bytes;
    size_t len, size;
};

/* Items with commas between them; what has no room is left out. */
static void item(struct text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void item(struct text *t, const char *format, ...)
{
    char word[24];
    va_list args;
    va_start(args, format);
    vsnprintf(word, sizeof word, format, args);
    va_end(args);
    size_t n = strlen(word), comma = t->len > 0;
    if (t->len + comma + n >= t->size)
        return;
    if (comma)
        t->bytes[t->len++] = ',';
    memcpy(t->bytes + t->len, word, n + 1);
    t->len += n;
}

struct options {
    uint32_t ts_mine, ts_peer;
    bool has_ts, after_end, big_scale, damaged;
};

static struct options options_read(const struct packet *p, struct syn_shape *s, struct text *layout)
{
    struct options o = {0};
    for (size_t at = 0; at < p->options_len;) {
        const uint8_t *b = p->options + at;
        size_t left = p->options_len - at;
        if (b[0] == 0) {
            item(layout, "eol+%zu", left - 1);
            for (size_t i = 1; i < left; i++)
                o.after_end |= b[i] != 0;
            break;
        }
        if (b[0] == 1) {
            item(layout, "nop");
            at++;
            continue;
        }
        if (left < 2 || b[1] < 2 || b[1] > left) {
            o.damaged = true;
            break;
        }
        if (b[0] == 2 && b[1] == 4) {
            item(layout, "mss");
            s->mss = (int)u16(b + 2);
        } else if (b[0] == 3 && b[1] == 3) {
            item(layout, "ws");
            s->scale = b[2];
            o.big_scale = b[2] > 14;
        } else if (b[0] == 4 && b[1] == 2) {
            item(layout, "sok");
        } else if (b[0] == 5) {
            item(layout, "sack");
        } else if (b[0] == 8 && b[1] == 10) {
            item(layout, "ts");
            o.has_ts = true;
            o.ts_mine = u32(b + 2);
            o.ts_peer = u32(b + 6);
        } else {
            item(layout, "?%u", b[0]);
        }
        at += b[1];
    }
    return o;
}

static void quirks_read(const struct packet *p, const struct options *o, struct text *quirks)
{
    bool answer = p->flags & TCP_ACK;
    if (p->version == 4 && p->dont_fragment)
        item(quirks, "df");
    if (p->version == 4 && p->dont_fragment && p->ip_id != 0)
        item(quirks, "id+");
    if (p->version == 4 && !p->dont_fragment && p->ip_id == 0)
        item(quirks, "id-");
    if (p->tos & 3)
        item(quirks, "ecn");
    if (p->must_be_zero)
        item(quirks, "0+");
    if (p->version == 6 && p->flow_label)
        item(quirks, "flow");
    if (p->seq == 0)
        item(quirks, "seq-");
    if (!answer && p->ack != 0)
        item(quirks, "ack+");
    if (answer && p->ack == 0)
        item(quirks, "ack-");
    if (!(p->flags & TCP_URG) && p->urgent)
        item(quirks, "uptr+");
    if (p->flags & TCP_URG)
        item(quirks, "urgf+");
    if (p->flags & TCP_PSH)
        item(quirks, "pushf+");
    if (o->has_ts && o->ts_mine == 0)
        item(quirks, "ts1-");
    if (o->has_ts && !answer && o->ts_peer != 0)
        item(quirks, "ts2+");
    if (o->after_end)
        item(quirks, "opt+");
    if (o->big_scale)
        item(quirks, "exws");
    if (o->damaged)
        item(quirks, "bad");
}

void syn_shape(const struct packet *p, struct syn_shape *ret)
{
    struct syn_shape s = {
        .mss = -1, .scale = -1, .window = p->window, .dont_fragment = p->dont_fragment};
    char quirk_text[96] = "", mss[16] = "*", window[32];
    struct text layout = {s.layout, 0, sizeof s.layout};
    struct text quirks = {quirk_text, 0, sizeof quirk_text};
    struct options o = options_read(p, &s, &layout);
    quirks_read(p, &o, &quirks);
    s.ttl_guess = p->ttl <= 32 ? 32 : p->ttl <= 64 ? 64 : p->ttl <= 128 ? 128 : 255;
    if (s.mss >= 0)
        snprintf(mss, sizeof mss, "%d", s.mss);
    if (s.mss > 0 && p->window > 0 && p->window % s.mss == 0)
        snprintf(window, sizeof window, "mss*%d", p->window / s.mss);
    else
        snprintf(window, sizeof window, "%u", p->window);
    snprintf(s.signature, sizeof s.signature, "%d:%d:%u:%s:%s,%d:%s:%s:%s", p->version, s.ttl_guess,
             p->ip_options_len, mss, window, s.scale < 0 ? 0 : s.scale, s.layout, quirk_text,
             p->payload_len ? "+" : "0");
    *ret = s;
}

/* Facts about systems as p0f's and nmap's databases have them; the first that fits is taken. A
 * window is exact, or so many segments; 0 is any. */
static const struct system_shape {
    const char *name, *layout;
    int ttl, window, segments;
} systems[] = {
    {"nmap SYN scan", "mss", 64, 1024, 0},
    {"nmap SYN scan", "mss", 64, 2048, 0},
    {"nmap SYN scan", "mss", 64, 3072, 0},
    {"nmap SYN scan", "mss", 64, 4096, 0},
    {"masscan or zmap", "", 255, 0, 0},
    {"Linux 3.11 to 4.18", "mss,sok,ts,nop,ws", 64, 0, 20},
    {"Linux 3.1 to 3.10", "mss,sok,ts,nop,ws", 64, 0, 10},
    {"Linux 2.6", "mss,sok,ts,nop,ws", 64, 0, 4},
    {"Linux 4.19 or newer", "mss,sok,ts,nop,ws", 64, 0, 44},
    {"Linux, loopback", "mss,sok,ts,nop,ws", 64, 0, 1},
    {"Linux", "mss,sok,ts,nop,ws", 64, 0, 0},
    {"Windows 10 or 11", "mss,nop,ws,nop,nop,sok", 128, 64240, 0},
    {"Windows 7 or 8", "mss,nop,ws,nop,nop,sok", 128, 8192, 0},
    {"Windows", "mss,nop,ws,nop,nop,sok", 128, 0, 0},
    {"Windows XP", "mss,nop,nop,sok", 128, 0, 0},
    {"macOS or iOS", "mss,nop,ws,nop,nop,ts,sok,eol+1", 64, 65535, 0},
    {"FreeBSD", "mss,nop,ws,sok,ts", 64, 65535, 0},
    {"OpenBSD", "mss,nop,nop,sok,nop,ws,nop,nop,ts", 64, 16384, 0},
};

const char *p0f_guess_os(const struct syn_shape *s)
{
    PUG_SPAN("sniffer.p0f_guess_os");
    const char *name = "unknown";
    for (size_t i = 0; i < sizeof systems / sizeof *systems; i++) {
        const struct system_shape *known = &systems[i];
        if (strcmp(known->layout, s->layout) == 0 && known->ttl == s->ttl_guess &&
            (known->window == 0 || known->window == s->window) &&
            (known->segments == 0 || (s->mss > 0 && s->window == known->segments * s->mss))) {
            name = known->name;
            break;
        }
    }
    pug_set_str(PUG_CURRENT, "os", name);
    return name;
}
