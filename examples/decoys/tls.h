/* The part of TLS that goes over the wire in the clear: hellos, and up to TLS 1.2 the certificate.
 *
 * Formats: RFC 8446 (TLS 1.3), RFC 5246 (1.2), RFC 6066 (server name), RFC 7301 (ALPN), RFC 5077
 * (tickets). What comes in is hostile: every length is checked against what is there, every list has
 * a limit, and a message that breaks a rule is refused as a whole. */
#ifndef DECOYS_TLS_H
#define DECOYS_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TLS_LIST_MAX 256 /* entries of one list; a hello with more is refused */

enum { TLS_ALERT = 21, TLS_CHANGE_CIPHER_SPEC = 20, TLS_HANDSHAKE = 22 }; /* records */
enum { TLS_CLIENT_HELLO = 1, TLS_SERVER_HELLO = 2, TLS_CERTIFICATE = 11 };

/* Extensions that are looked into. */
enum {
    TLS_EXT_SERVER_NAME = 0,
    TLS_EXT_GROUPS = 10,
    TLS_EXT_POINT_FORMATS = 11,
    TLS_EXT_SIGNATURES = 13,
    TLS_EXT_ALPN = 16,
    TLS_EXT_TICKET = 35,
    TLS_EXT_PSK = 41,
    TLS_EXT_EARLY_DATA = 42,
    TLS_EXT_VERSIONS = 43,
};

struct tls_list {
    uint16_t items[TLS_LIST_MAX];
    size_t n;
};

struct client_hello {
    uint16_t version; /* the legacy field */
    uint8_t session_id[32];
    size_t session_id_len;
    struct tls_list ciphers, extensions, groups, point_formats, signatures, versions;
    char server_name[256]; /* "" without the extension, or when it is no name */
    char alpn[256];        /* the first one offered, raw */
    size_t alpn_len;       /* 0: none */
    size_t ticket_len;     /* of the session ticket that is offered */
    size_t psk_count;      /* identities in the pre-shared key extension (1: any number) */
    bool early_data;
};

struct server_hello {
    uint16_t version;          /* the legacy field */
    uint16_t selected_version; /* of supported_versions; 0 without it */
    uint16_t cipher;
    uint8_t session_id[32];
    size_t session_id_len;
    struct tls_list extensions;
    char alpn[256]; /* the one chosen, raw */
    size_t alpn_len;
    bool psk;   /* a pre-shared key was accepted */
    bool retry; /* a HelloRetryRequest */
};

struct certificate {
    char subject[256], issuer[256], serial[64];
    char not_before[32], not_after[32]; /* "20261120120000Z" */
    char sha256[65];                    /* of its bytes */
    char key[32];                       /* "id-ecPublicKey 256" */
    bool self_signed;                   /* issuer and subject are the same */
    int chain;                          /* certificates in the message */
};

/* Values that clients strew in to keep servers tolerant (RFC 8701): no fingerprint counts them. */
bool tls_is_grease(uint16_t value);

/* Bodies of handshake messages, behind their four bytes of type and length. False when damaged. */
bool parse_client_hello(const uint8_t *body, size_t len, struct client_hello *ret);
bool parse_server_hello(const uint8_t *body, size_t len, struct server_hello *ret);
/* The first certificate of the message. */
bool parse_certificate(const uint8_t *body, size_t len, struct certificate *ret);

#endif
