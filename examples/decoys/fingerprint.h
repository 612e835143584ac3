/* What a TLS client and server look like, by the public recipes:
 *
 *   JA3, JA3S   Salesforce, github.com/salesforce/ja3: MD5 of decimal lists
 *   JA4         FoxIO, github.com/FoxIO-LLC/ja4, technical_details/JA4.md: readable, then SHA-256
 *   JA4S        the same, JA4S.md. JA4 is free to use (BSD); JA4S belongs to JA4+, whose FoxIO
 *               License 1.1 wants an agreement of those who sell it */
#ifndef DECOYS_FINGERPRINT_H
#define DECOYS_FINGERPRINT_H

#include "tls.h"

#define DIGEST_HEX_SIZE 65

/* Lower case. The algorithm is OpenSSL's name: "md5", "sha256". */
void digest_hex(const char *algorithm, const void *bytes, size_t len, char out[DIGEST_HEX_SIZE]);

struct fingerprint {
    char text[8192]; /* what is hashed; for JA4 its raw form (JA4_r) */
    char hash[80];   /* the fingerprint */
};
void ja3(const struct client_hello *h, struct fingerprint *ret);
void ja3s(const struct server_hello *h, struct fingerprint *ret);
void ja4(const struct client_hello *h, struct fingerprint *ret);
void ja4s(const struct server_hello *h, struct fingerprint *ret);

/* How a session may be, or was, taken up again. `server` NULL: not known yet. */
struct resumption {
    const char *offered; /* "psk", "ticket", "session_id", "none" */
    bool early_data;
    bool resumed; /* as far as the server's hello shows it */
};
struct resumption session_resumption_info(const struct client_hello *client,
                                          const struct server_hello *server);

#endif
