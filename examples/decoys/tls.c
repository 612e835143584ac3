#include "tls.h"

#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <string.h>

#include <pugmark/pugmark.h>

/* ---- bytes that run out ---- */

/* Reading past the end sets `bad` and gives zeros: checked once, at the end. */
struct bytes {
    const uint8_t *at;
    size_t left;
    bool bad;
};

static const uint8_t *take(struct bytes *b, size_t n)
{
    if (b->bad || n > b->left) {
        b->bad = true;
        return NULL;
    }
    const uint8_t *at = b->at;
    b->at += n;
    b->left -= n;
    return at;
}

static unsigned number(struct bytes *b, size_t width)
{
    const uint8_t *p = take(b, width);
    unsigned n = 0;
    for (size_t i = 0; p && i < width; i++)
        n = n << 8 | p[i];
    return n;
}

/* What stands behind its own length, which is `width` bytes wide. */
static struct bytes vector(struct bytes *b, size_t width)
{
    size_t n = number(b, width);
    const uint8_t *p = take(b, n);
    return (struct bytes){.at = p, .left = p ? n : 0, .bad = !p};
}

static void list_read(struct bytes *b, size_t width, struct tls_list *list)
{
    while (!b->bad && b->left > 0) {
        unsigned n = number(b, width);
        if (list->n == TLS_LIST_MAX)
            b->bad = true;
        else
            list->items[list->n++] = (uint16_t)n;
    }
}

bool tls_is_grease(uint16_t value)
{
    return (value & 0x0f0f) == 0x0a0a && value >> 8 == (value & 0xff);
}

static bool session_id_read(struct bytes *b, uint8_t id[32], size_t *ret_len)
{
    struct bytes v = vector(b, 1);
    if (v.bad || v.left > 32)
        return false;
    memcpy(id, v.left ? v.at : id, v.left);
    *ret_len = v.left;
    return true;
}

/* The first protocol of the list; its bytes may be anything. */
static bool alpn_read(struct bytes *e, char out[256], size_t *ret_len)
{
    struct bytes names = vector(e, 2), first = vector(&names, 1);
    if (first.bad || first.left == 0)
        return false;
    memcpy(out, first.at, first.left);
    *ret_len = first.left;
    return true;
}

/* ---- ClientHello ---- */

static bool server_name_read(struct bytes *e, char out[256])
{
    struct bytes names = vector(e, 2);
    if (names.bad)
        return false;
    while (names.left > 0) {
        unsigned type = number(&names, 1);
        struct bytes name = vector(&names, 2);
        if (name.bad)
            return false;
        if (type == 0 && name.left < 256 && !memchr(name.at, '\0', name.left)) {
            memcpy(out, name.at, name.left);
            out[name.left] = '\0';
            return true;
        }
    }
    return true;
}

static bool client_extension(struct client_hello *h, unsigned type, struct bytes e)
{
    struct bytes v;
    switch (type) {
    case TLS_EXT_SERVER_NAME:
        return e.left == 0 || server_name_read(&e, h->server_name);
    case TLS_EXT_GROUPS:
        v = vector(&e, 2);
        list_read(&v, 2, &h->groups);
        return !v.bad;
    case TLS_EXT_POINT_FORMATS:
        v = vector(&e, 1);
        list_read(&v, 1, &h->point_formats);
        return !v.bad;
    case TLS_EXT_SIGNATURES:
        v = vector(&e, 2);
        list_read(&v, 2, &h->signatures);
        return !v.bad;
    case TLS_EXT_VERSIONS:
        v = vector(&e, 1);
        list_read(&v, 2, &h->versions);
        return !v.bad;
    case TLS_EXT_ALPN:
        return alpn_read(&e, h->alpn, &h->alpn_len);
    case TLS_EXT_TICKET:
        h->ticket_len = e.left;
        return true;
    case TLS_EXT_PSK:
        h->psk_count = 1;
        return true;
    case TLS_EXT_EARLY_DATA:
        h->early_data = true;
        return true;
    default:
        return true;
    }
}

bool parse_client_hello(const uint8_t *body, size_t len, struct client_hello *ret)
{
    PUG_SPAN("sniffer.parse_client_hello", PUG_INT("bytes", (int64_t)len));
    struct client_hello h = {0};
    struct bytes b = {.at = body, .left = len};
    h.version = (uint16_t)number(&b, 2);
    take(&b, 32); /* random */
    bool good = session_id_read(&b, h.session_id, &h.session_id_len);
    struct bytes ciphers = vector(&b, 2);
    list_read(&ciphers, 2, &h.ciphers);
    vector(&b, 1); /* compression */
    good = good && !b.bad && !ciphers.bad;
    if (good && b.left > 0) { /* before TLS 1.2 there may be no extensions at all */
        struct bytes extensions = vector(&b, 2);
        while (good && extensions.left > 0) {
            unsigned type = number(&extensions, 2);
            struct bytes e = vector(&extensions, 2);
            good = !e.bad && h.extensions.n < TLS_LIST_MAX && client_extension(&h, type, e);
            if (good)
                h.extensions.items[h.extensions.n++] = (uint16_t)type;
        }
        good = good && !extensions.bad;
    }
    if (!good) {
        pug_error(PUG_CURRENT, "damaged ClientHello");
        return false;
    }
    *ret = h;
    return true;
}

/* ---- ServerHello ---- */

/* RFC 8446, 4.1.3: the random that says "try again". */
static const uint8_t retry_random[32] = {
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91,
    0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c};

static bool server_extension(struct server_hello *h, unsigned type, struct bytes e)
{
    switch (type) {
    case TLS_EXT_VERSIONS:
        h->selected_version = (uint16_t)number(&e, 2);
        return !e.bad;
    case TLS_EXT_ALPN:
        return alpn_read(&e, h->alpn, &h->alpn_len);
    case TLS_EXT_PSK:
        h->psk = true;
        return true;
    default:
        return true;
    }
}

bool parse_server_hello(const uint8_t *body, size_t len, struct server_hello *ret)
{
    PUG_SPAN("sniffer.parse_server_hello", PUG_INT("bytes", (int64_t)len));
    struct server_hello h = {0};
    struct bytes b = {.at = body, .left = len};
    h.version = (uint16_t)number(&b, 2);
    const uint8_t *random = take(&b, 32);
    h.retry = random && memcmp(random, retry_random, 32) == 0;
    bool good = session_id_read(&b, h.session_id, &h.session_id_len);
    h.cipher = (uint16_t)number(&b, 2);
    take(&b, 1); /* compression */
    good = good && !b.bad;
    if (good && b.left > 0) {
        struct bytes extensions = vector(&b, 2);
        while (good && extensions.left > 0) {
            unsigned type = number(&extensions, 2);
            struct bytes e = vector(&extensions, 2);
            good = !e.bad && h.extensions.n < TLS_LIST_MAX && server_extension(&h, type, e);
            if (good)
                h.extensions.items[h.extensions.n++] = (uint16_t)type;
        }
        good = good && !extensions.bad;
    }
    if (!good) {
        pug_error(PUG_CURRENT, "damaged ServerHello");
        return false;
    }
    *ret = h;
    return true;
}

/* ---- Certificate (RFC 5246, 7.4.2) ---- */

static void name_print(X509_NAME *name, char *out, size_t size)
{
    BIO *text = BIO_new(BIO_s_mem());
    int n = text && X509_NAME_print_ex(text, name, 0, XN_FLAG_RFC2253) >= 0
                ? BIO_read(text, out, (int)size - 1)
                : 0;
    out[n > 0 ? n : 0] = '\0';
    BIO_free(text);
}

static void time_print(const ASN1_TIME *time, char out[32])
{
    struct tm tm;
    if (ASN1_TIME_to_tm(time, &tm) != 1 || strftime(out, 32, "%Y%m%d%H%M%SZ", &tm) == 0)
        out[0] = '\0';
}

static void certificate_read(X509 *x, struct certificate *c)
{
    name_print(X509_get_subject_name(x), c->subject, sizeof c->subject);
    name_print(X509_get_issuer_name(x), c->issuer, sizeof c->issuer);
    c->self_signed = X509_NAME_cmp(X509_get_subject_name(x), X509_get_issuer_name(x)) == 0;
    time_print(X509_get0_notBefore(x), c->not_before);
    time_print(X509_get0_notAfter(x), c->not_after);
    const ASN1_INTEGER *serial = X509_get0_serialNumber(x);
    for (int i = 0; i < ASN1_STRING_length(serial) && i < 31; i++)
        snprintf(c->serial + 2 * i, 3, "%02x", ASN1_STRING_get0_data(serial)[i]);
    EVP_PKEY *key = X509_get0_pubkey(x);
    if (key)
        snprintf(c->key, sizeof c->key, "%s %d", OBJ_nid2sn(EVP_PKEY_base_id(key)),
                 EVP_PKEY_bits(key));
}

bool parse_certificate(const uint8_t *body, size_t len, struct certificate *ret)
{
    PUG_SPAN("sniffer.parse_certificate", PUG_INT("bytes", (int64_t)len));
    struct certificate c = {0};
    struct bytes b = {.at = body, .left = len}, list = vector(&b, 3);
    struct bytes first = vector(&list, 3);
    const uint8_t *der = first.at;
    X509 *x = !first.bad && first.left > 0 ? d2i_X509(NULL, &der, (long)first.left) : NULL;
    for (c.chain = 1; !list.bad && list.left > 0; c.chain++)
        vector(&list, 3);
    uint8_t digest[EVP_MAX_MD_SIZE];
    bool good = x && !list.bad &&
                EVP_Digest(first.at, first.left, digest, NULL, EVP_sha256(), NULL) == 1;
    if (good) {
        for (size_t i = 0; i < 32; i++)
            snprintf(c.sha256 + 2 * i, 3, "%02x", digest[i]);
        certificate_read(x, &c);
        *ret = c;
    } else {
        pug_error(PUG_CURRENT, "damaged Certificate");
    }
    X509_free(x);
    return good;
}
