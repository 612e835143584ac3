#include "fingerprint.h"

#include <ctype.h>
#include <openssl/evp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <pugmark/pugmark.h>

void digest_hex(const char *algorithm, const void *bytes, size_t len, char out[DIGEST_HEX_SIZE])
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    out[0] = '\0';
    if (EVP_Digest(bytes, len, digest, &n, EVP_get_digestbyname(algorithm), NULL) != 1)
        return;
    for (unsigned i = 0; i < n && i < 32; i++)
        snprintf(out + 2 * i, 3, "%02x", digest[i]);
}

/* ---- text that grows to a limit ---- */

struct text {
    char *bytes;
    size_t len, size;
};

__attribute__((format(printf, 2, 3))) static void add(struct text *t, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(t->bytes + t->len, t->size - t->len, format, args);
    va_end(args);
    t->len += n < 0 ? 0 : (size_t)n < t->size - t->len ? (size_t)n : t->size - t->len - 1;
}

static struct text text_of(struct fingerprint *f)
{
    f->text[0] = '\0';
    return (struct text){f->text, 0, sizeof f->text};
}

/* ---- JA3: decimal, '-' within a list, ',' between them ---- */

static void add_decimals(struct text *t, const struct tls_list *list)
{
    bool some = false;
    for (size_t i = 0; i < list->n; i++) {
        if (tls_is_grease(list->items[i]))
            continue;
        add(t, some ? "-%u" : "%u", list->items[i]);
        some = true;
    }
}

static void hash_whole(struct fingerprint *f)
{
    digest_hex("md5", f->text, strlen(f->text), f->hash);
}

void ja3(const struct client_hello *h, struct fingerprint *ret)
{
    PUG_SPAN("sniffer.ja3");
    struct text t = text_of(ret);
    add(&t, "%u,", h->version);
    add_decimals(&t, &h->ciphers);
    add(&t, ",");
    add_decimals(&t, &h->extensions);
    add(&t, ",");
    add_decimals(&t, &h->groups);
    add(&t, ",");
    add_decimals(&t, &h->point_formats);
    hash_whole(ret);
    pug_set_str(PUG_CURRENT, "ja3", ret->hash);
}

void ja3s(const struct server_hello *h, struct fingerprint *ret)
{
    PUG_SPAN("sniffer.ja3s");
    struct text t = text_of(ret);
    add(&t, "%u,%u,", h->version, h->cipher);
    add_decimals(&t, &h->extensions);
    hash_whole(ret);
    pug_set_str(PUG_CURRENT, "ja3s", ret->hash);
}

/* ---- JA4: four hexadecimal digits each, ',' between them ---- */

static const char *version_name(uint16_t version)
{
    switch (version) {
    case 0x0304:
        return "13";
    case 0x0303:
        return "12";
    case 0x0302:
        return "11";
    case 0x0301:
        return "10";
    case 0x0300:
        return "s3";
    case 0x0002:
        return "s2";
    default:
        return "00";
    }
}

/* First and last character of the protocol's name, of its hexadecimal form when one of them is no
 * letter or digit. */
static void alpn_ends(const char *alpn, size_t len, char out[3])
{
    static const char hex[] = "0123456789abcdef";
    memcpy(out, "00", 3);
    if (len == 0)
        return;
    unsigned char first = (unsigned char)alpn[0], last = (unsigned char)alpn[len - 1];
    bool plain = first < 128 && last < 128 && isalnum(first) && isalnum(last);
    out[0] = plain ? (char)first : hex[first >> 4];
    out[1] = plain ? (char)last : hex[last & 15];
}

static struct tls_list without_grease(const struct tls_list *list)
{
    struct tls_list out = {.n = 0};
    for (size_t i = 0; i < list->n; i++)
        if (!tls_is_grease(list->items[i]))
            out.items[out.n++] = list->items[i];
    return out;
}

static int compare_u16(const void *a, const void *b)
{
    return *(const uint16_t *)a - *(const uint16_t *)b;
}

static void add_hex(struct text *t, const struct tls_list *list)
{
    for (size_t i = 0; i < list->n; i++)
        add(t, i ? ",%04x" : "%04x", list->items[i]);
}

/* Twelve digits of SHA-256; zeros for nothing. */
static void add_short_hash(struct text *t, const char *from, size_t len)
{
    char hash[DIGEST_HEX_SIZE] = "000000000000";
    if (len > 0)
        digest_hex("sha256", from, len, hash);
    add(t, "_%.12s", hash);
}

void ja4(const struct client_hello *h, struct fingerprint *ret)
{
    PUG_SPAN("sniffer.ja4");
    struct tls_list ciphers = without_grease(&h->ciphers);
    struct tls_list extensions = without_grease(&h->extensions);
    struct tls_list signatures = without_grease(&h->signatures);
    uint16_t version = 0;
    for (size_t i = 0; i < h->versions.n; i++)
        if (!tls_is_grease(h->versions.items[i]) && h->versions.items[i] > version)
            version = h->versions.items[i];
    bool named = false;
    struct tls_list sorted = {.n = 0}; /* extensions but for the two that part a tells of */
    for (size_t i = 0; i < extensions.n; i++) {
        uint16_t type = extensions.items[i];
        named |= type == TLS_EXT_SERVER_NAME;
        if (type != TLS_EXT_SERVER_NAME && type != TLS_EXT_ALPN)
            sorted.items[sorted.n++] = type;
    }
    qsort(ciphers.items, ciphers.n, sizeof ciphers.items[0], compare_u16);
    qsort(sorted.items, sorted.n, sizeof sorted.items[0], compare_u16);
    char ends[3];
    alpn_ends(h->alpn, h->alpn_len, ends);

    struct text raw = text_of(ret), hash = {ret->hash, 0, sizeof ret->hash};
    add(&raw, "t%s%c%02zu%02zu%s", version_name(version ? version : h->version), named ? 'd' : 'i',
        ciphers.n < 99 ? ciphers.n : 99, extensions.n < 99 ? extensions.n : 99, ends);
    add(&hash, "%s", ret->text);
    add(&raw, "_");
    size_t part = raw.len;
    add_hex(&raw, &ciphers);
    add_short_hash(&hash, ret->text + part, raw.len - part);
    add(&raw, "_");
    part = raw.len;
    add_hex(&raw, &sorted);
    if (signatures.n > 0) {
        add(&raw, "_");
        add_hex(&raw, &signatures);
    }
    add_short_hash(&hash, ret->text + part, extensions.n > 0 ? raw.len - part : 0);
    pug_set_str(PUG_CURRENT, "ja4", ret->hash);
}

void ja4s(const struct server_hello *h, struct fingerprint *ret)
{
    PUG_SPAN("sniffer.ja4s");
    char ends[3];
    alpn_ends(h->alpn, h->alpn_len, ends);
    struct text raw = text_of(ret), hash = {ret->hash, 0, sizeof ret->hash};
    add(&raw, "t%s%02zu%s_%04x",
        version_name(h->selected_version ? h->selected_version : h->version),
        h->extensions.n < 99 ? h->extensions.n : 99, ends, h->cipher);
    add(&hash, "%s", ret->text);
    add(&raw, "_");
    size_t part = raw.len;
    add_hex(&raw, &h->extensions);
    add_short_hash(&hash, ret->text + part, raw.len - part);
    pug_set_str(PUG_CURRENT, "ja4s", ret->hash);
}

/* ---- sessions ---- */

struct resumption session_resumption_info(const struct client_hello *client,
                                          const struct server_hello *server)
{
    PUG_SPAN("sniffer.session_resumption_info");
    bool tls_1_3 = false;
    for (size_t i = 0; i < client->versions.n; i++)
        tls_1_3 |= client->versions.items[i] == 0x0304;
    /* A client of TLS 1.3 sends a session id to please old middleboxes: that one offers nothing. */
    struct resumption r = {.offered = client->psk_count > 0                    ? "psk"
                                      : client->ticket_len > 0                 ? "ticket"
                                      : client->session_id_len > 0 && !tls_1_3 ? "session_id"
                                                                               : "none",
                           .early_data = client->early_data};
    if (server && server->selected_version == 0x0304)
        r.resumed = server->psk;
    else if (server) /* RFC 5246 and 5077: the server echoes the client's session id */
        r.resumed = (client->ticket_len > 0 || strcmp(r.offered, "session_id") == 0) &&
                    client->session_id_len > 0 &&
                    client->session_id_len == server->session_id_len &&
                    memcmp(client->session_id, server->session_id, client->session_id_len) == 0;
    pug_set_str(PUG_CURRENT, "tls.resumption.offered", r.offered);
    pug_set_bool(PUG_CURRENT, "tls.resumed", r.resumed);
    return r;
}
