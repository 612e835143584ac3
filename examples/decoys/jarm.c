#include "jarm.h"

#include "fingerprint.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include <pugmark/pugmark.h>

#define LIST_MAX 80

/* ---- the ten hellos ---- */

enum order { FORWARD, REVERSE, TOP_HALF, BOTTOM_HALF, MIDDLE_OUT };
enum support { NO_SUPPORT, SUPPORT_1_2, SUPPORT_1_3 }; /* what supported_versions says */

static const struct probe {
    uint16_t version; /* 0x0304 is said as TLS 1.3 is */
    bool without_1_3; /* ciphers */
    enum order ciphers;
    bool grease, rare_protocols;
    enum support support;
    enum order extensions; /* of protocols and versions */
} probes[JARM_PROBES] = {
    {0x0303, false, FORWARD, false, false, SUPPORT_1_2, REVERSE},
    {0x0303, false, REVERSE, false, false, SUPPORT_1_2, FORWARD},
    {0x0303, false, TOP_HALF, false, false, NO_SUPPORT, FORWARD},
    {0x0303, false, BOTTOM_HALF, false, true, NO_SUPPORT, FORWARD},
    {0x0303, false, MIDDLE_OUT, true, true, NO_SUPPORT, REVERSE},
    {0x0302, false, FORWARD, false, false, NO_SUPPORT, FORWARD},
    {0x0304, false, FORWARD, false, false, SUPPORT_1_3, REVERSE},
    {0x0304, false, REVERSE, false, false, SUPPORT_1_3, FORWARD},
    {0x0304, true, FORWARD, false, false, SUPPORT_1_3, FORWARD},
    {0x0304, false, MIDDLE_OUT, true, false, SUPPORT_1_3, REVERSE},
};

/* From weak to strong, as JARM orders them. */
static const uint16_t ciphers[] = {
    0x0016, 0x0033, 0x0067, 0xc09e, 0xc0a2, 0x009e, 0x0039, 0x006b, 0xc09f, 0xc0a3, 0x009f, 0x0045,
    0x00be, 0x0088, 0x00c4, 0x009a, 0xc008, 0xc009, 0xc023, 0xc0ac, 0xc0ae, 0xc02b, 0xc00a, 0xc024,
    0xc0ad, 0xc0af, 0xc02c, 0xc072, 0xc073, 0xcca9, 0x1302, 0x1301, 0xcc14, 0xc007, 0xc012, 0xc013,
    0xc027, 0xc02f, 0xc014, 0xc028, 0xc030, 0xc060, 0xc061, 0xc076, 0xc077, 0xcca8, 0x1305, 0x1304,
    0x1303, 0xcc13, 0xc011, 0x000a, 0x002f, 0x003c, 0xc09c, 0xc0a0, 0x009c, 0x0035, 0x003d, 0xc09d,
    0xc0a1, 0x009d, 0x0041, 0x00ba, 0x0084, 0x00c0, 0x0007, 0x0004, 0x0005};

/* The original has "spdy/3" and "h2" as one entry when it reverses the list: so do we. */
static const char *const protocols[] = {"\x08http/0.9", "\x08http/1.0", "\x08http/1.1",
                                        "\x06spdy/1",   "\x06spdy/2",   "\x06spdy/3\x02h2",
                                        "\x03h2c",      "\x02hq"};
static const char *const rare_protocols[] = {
    "\x08http/0.9", "\x08http/1.0", "\x06spdy/1", "\x06spdy/2", "\x06spdy/3", "\x03h2c", "\x02hq"};

/* Which of `n` things comes at which place; returns how many there are then. */
static size_t ordered(size_t n, enum order order, size_t out[LIST_MAX])
{
    size_t m = 0, middle = n / 2;
    switch (order) {
    case FORWARD:
        for (size_t i = 0; i < n; i++)
            out[m++] = i;
        break;
    case REVERSE:
        for (size_t i = n; i-- > 0;)
            out[m++] = i;
        break;
    case BOTTOM_HALF:
        for (size_t i = (n + 1) / 2; i < n; i++)
            out[m++] = i;
        break;
    case TOP_HALF: /* backward; with the one in the middle first */
        for (size_t i = (n + 1) / 2; i-- > 0;)
            out[m++] = i;
        break;
    case MIDDLE_OUT:
        if (n % 2)
            out[m++] = middle;
        for (size_t i = 1; i <= middle; i++) {
            out[m++] = n % 2 ? middle + i : middle - 1 + i;
            out[m++] = middle - i;
        }
        break;
    }
    return m;
}

/* ---- writing ---- */

struct hello {
    uint8_t *bytes;
    size_t len;
};

static void byte(struct hello *h, unsigned value)
{
    if (h->len < JARM_HELLO_MAX)
        h->bytes[h->len++] = (uint8_t)value;
}

static void pair(struct hello *h, unsigned value)
{
    byte(h, value >> 8);
    byte(h, value & 255);
}

static void copy(struct hello *h, const void *from, size_t n)
{
    for (size_t i = 0; i < n; i++)
        byte(h, ((const uint8_t *)from)[i]);
}

static void random_bytes(struct hello *h, size_t n)
{
    uint8_t some[32] = {0};
    if (getrandom(some, n, 0) == (ssize_t)n) /* no secret: zeros would do as well */
        copy(h, some, n);
    else
        copy(h, (uint8_t[32]){0}, n);
}

static void grease(struct hello *h)
{
    uint8_t which = 0;
    if (getrandom(&which, 1, 0) != 1)
        which = 3;
    pair(h, (which & 15u) * 0x1010 + 0x0a0a);
}

/* Leaves room for a length of two bytes, and fills it in. */
static size_t length_begin(struct hello *h)
{
    pair(h, 0);
    return h->len;
}

static void length_end(struct hello *h, size_t begin)
{
    size_t n = h->len - begin;
    h->bytes[begin - 2] = (uint8_t)(n >> 8);
    h->bytes[begin - 1] = (uint8_t)n;
}

static void put_ciphers(struct hello *h, const struct probe *p)
{
    uint16_t list[LIST_MAX];
    size_t n = 0, places[LIST_MAX], begin = length_begin(h);
    for (size_t i = 0; i < sizeof ciphers / sizeof *ciphers; i++)
        if (!p->without_1_3 || ciphers[i] >> 8 != 0x13)
            list[n++] = ciphers[i];
    if (p->grease)
        grease(h);
    n = ordered(n, p->ciphers, places);
    for (size_t i = 0; i < n; i++)
        pair(h, list[places[i]]);
    length_end(h, begin);
}

static void put_protocols(struct hello *h, const struct probe *p)
{
    const char *const *list = p->rare_protocols ? rare_protocols : protocols;
    size_t places[LIST_MAX];
    size_t n = ordered(p->rare_protocols ? sizeof rare_protocols / sizeof *rare_protocols
                                         : sizeof protocols / sizeof *protocols,
                       p->extensions, places);
    pair(h, TLS_EXT_ALPN);
    size_t outer = length_begin(h), inner = length_begin(h);
    for (size_t i = 0; i < n; i++)
        copy(h, list[places[i]], strlen(list[places[i]]));
    length_end(h, inner);
    length_end(h, outer);
}

static void put_key_share(struct hello *h, const struct probe *p)
{
    pair(h, 51);
    size_t outer = length_begin(h), inner = length_begin(h);
    if (p->grease) {
        grease(h);
        copy(h, "\x00\x01\x00", 3);
    }
    copy(h, "\x00\x1d\x00\x20", 4); /* x25519 */
    random_bytes(h, 32);
    length_end(h, inner);
    length_end(h, outer);
}

static void put_versions(struct hello *h, const struct probe *p)
{
    size_t places[LIST_MAX], n = p->support == SUPPORT_1_2 ? 3 : 4;
    ordered(n, p->extensions, places);
    pair(h, TLS_EXT_VERSIONS);
    size_t outer = length_begin(h);
    byte(h, (unsigned)(n + p->grease) * 2);
    if (p->grease)
        grease(h);
    for (size_t i = 0; i < n; i++)
        pair(h, 0x0301 + (unsigned)places[i]);
    length_end(h, outer);
}

static void put_extensions(struct hello *h, const struct probe *p, const char *host)
{
    size_t name = strnlen(host, 253), begin = length_begin(h);
    if (p->grease) {
        grease(h);
        pair(h, 0);
    }
    pair(h, TLS_EXT_SERVER_NAME);
    pair(h, (unsigned)name + 5);
    pair(h, (unsigned)name + 3);
    byte(h, 0);
    pair(h, (unsigned)name);
    copy(h, host, name);
    copy(h, "\x00\x17\x00\x00", 4);     /* extended master secret */
    copy(h, "\x00\x01\x00\x01\x01", 5); /* fragments of 512 bytes */
    copy(h, "\xff\x01\x00\x01\x00", 5); /* renegotiation */
    copy(h, "\x00\x0a\x00\x0a\x00\x08\x00\x1d\x00\x17\x00\x18\x00\x19", 14); /* groups */
    copy(h, "\x00\x0b\x00\x02\x01\x00", 6);                                  /* points */
    copy(h, "\x00\x23\x00\x00", 4);                                          /* a ticket, please */
    put_protocols(h, p);
    copy(h,
         "\x00\x0d\x00\x14\x00\x12\x04\x03\x08\x04\x04\x01\x05\x03\x08\x05\x05\x01\x08\x06\x06\x01"
         "\x02\x01",
         24); /* signatures */
    put_key_share(h, p);
    copy(h, "\x00\x2d\x00\x02\x01\x01", 6); /* pre-shared keys with Diffie-Hellman */
    if (p->version == 0x0304 || p->support == SUPPORT_1_2)
        put_versions(h, p);
    length_end(h, begin);
}

size_t jarm_hello(unsigned probe, const char *host, uint8_t out[JARM_HELLO_MAX])
{
    const struct probe *p = &probes[probe % JARM_PROBES];
    struct hello h = {out, 0};
    byte(&h, TLS_HANDSHAKE);
    pair(&h, p->version == 0x0304 ? 0x0301 : p->version);
    size_t record = length_begin(&h);
    byte(&h, TLS_CLIENT_HELLO);
    byte(&h, 0);
    size_t message = length_begin(&h);
    pair(&h, p->version == 0x0304 ? 0x0303 : p->version);
    random_bytes(&h, 32);
    byte(&h, 32);
    random_bytes(&h, 32); /* session id */
    put_ciphers(&h, p);
    copy(&h, "\x01\x00", 2); /* no compression */
    put_extensions(&h, p, host);
    length_end(&h, message);
    length_end(&h, record);
    return h.len;
}

/* ---- the answers ---- */

static unsigned pair_at(const uint8_t *bytes, size_t at)
{
    return (unsigned)bytes[at] << 8 | bytes[at + 1];
}

/* The extensions behind byte `at`, as far as they go: "protocol|type-type". False when there are
 * none that JARM would count. */
static void extensions_text(const uint8_t *b, size_t len, size_t at, char *out, size_t size)
{
    size_t session = at - 49; /* JARM's name for the length of the session id */
    (void)snprintf(out, size, "|");
    /* What follows the hello in the same record is not of its extensions; two servers that are
     * known for it are told by their bytes. */
    if (at > len || b[session + 47] == 11 ||
        (session + 53 <= len && (memcmp(b + session + 50, "\x0e\xac\x0b", 3) == 0)) ||
        (len >= 85 && memcmp(b + 82, "\x0f\xf0\x0b", 3) == 0))
        return;
    size_t end = at + pair_at(b, at - 2);
    char types[JARM_RAW_MAX / 2] = "", protocol[128] = "";
    size_t n = 0;
    while (at + 1 < end) {
        if (at + 4 > len)
            return;
        unsigned type = pair_at(b, at), size_of = pair_at(b, at + 2);
        size_t there = at + 4 + size_of <= len ? size_of : len - at - 4;
        if (n + 6 < sizeof types)
            n += (size_t)snprintf(types + n, sizeof types - n, "%s%04x", n ? "-" : "", type);
        if (type == TLS_EXT_ALPN && there > 3 && !*protocol)
            snprintf(protocol, sizeof protocol, "%.*s", (int)(there - 3), (const char *)b + at + 7);
        at += 4 + size_of;
    }
    (void)snprintf(out, size, "%s|%s", protocol, types);
}

void jarm_answer(const uint8_t *b, size_t len, char out[JARM_RAW_MAX])
{
    snprintf(out, JARM_RAW_MAX, "|||");
    if (len < 46 || b[0] != TLS_HANDSHAKE || b[5] != TLS_SERVER_HELLO)
        return;
    size_t session = b[43];
    if (session + 49 > len) /* a hello without extensions and nothing behind it */
        return;
    char extensions[JARM_RAW_MAX - 16];
    extensions_text(b, len, session + 49, extensions, sizeof extensions);
    snprintf(out, JARM_RAW_MAX, "%04x|%04x|%s", pair_at(b, session + 44), pair_at(b, 9),
             extensions);
}

static int compare_u16(const void *a, const void *b)
{
    return *(const uint16_t *)a - *(const uint16_t *)b;
}

/* Its place, from 1, in the list that JARM keeps: in order of number, TLS 1.3 last. One more than
 * the list is long for a cipher that was never offered. */
static unsigned cipher_place(unsigned cipher)
{
    enum { N = sizeof ciphers / sizeof *ciphers };
    uint16_t list[N];
    memcpy(list, ciphers, sizeof ciphers);
    for (size_t i = 0; i < N; i++) /* so that 13xx sorts behind all */
        list[i] = list[i] >> 8 == 0x13 ? list[i] | 0xf000 : list[i];
    qsort(list, N, sizeof *list, compare_u16);
    unsigned place = 1;
    for (size_t i = 0; i < N && list[i] != (cipher >> 8 == 0x13 ? cipher | 0xf000 : cipher); i++)
        place++;
    return place;
}

void jarm_hash(char answers[JARM_PROBES][JARM_RAW_MAX], char out[JARM_HASH_SIZE])
{
    PUG_SPAN("prober.jarm_hash");
    char fuzzy[3 * JARM_PROBES + 1] = "", said[JARM_PROBES * JARM_RAW_MAX] = "";
    size_t said_len = 0;
    bool silent = true;
    for (size_t i = 0; i < JARM_PROBES; i++) {
        unsigned cipher, version;
        int at = 0;
        if (sscanf(answers[i], "%4x|%4x|%n", &cipher, &version, &at) != 2 || at == 0) {
            memcpy(fuzzy + 3 * i, "000", 4);
            continue;
        }
        silent = false;
        snprintf(fuzzy + 3 * i, 4, "%02x%c", cipher_place(cipher), "abcdef"[(version & 15) % 6]);
        for (const char *p = answers[i] + at; *p; p++)
            if (*p != '|')
                said[said_len++] = *p;
    }
    char hash[DIGEST_HEX_SIZE] = "";
    memset(hash, '0', 32);
    if (!silent)
        digest_hex("sha256", said, said_len, hash);
    snprintf(out, JARM_HASH_SIZE, "%s%.32s", fuzzy, hash);
    pug_set_str(PUG_CURRENT, "jarm", out);
}
