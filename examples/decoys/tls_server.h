/* TLS for a decoy: a certificate of its own making, and a connection that reads and writes like a
 * socket. */
#ifndef DECOYS_TLS_SERVER_H
#define DECOYS_TLS_SERVER_H

#include <openssl/ssl.h>

/* Serves as `name` with a fresh self-signed certificate. `version_max`: "1.2" or "1.3", NULL for the
 * library's best. NULL when it cannot; why is on OpenSSL's error queue (tls_error). */
SSL_CTX *tls_server_new(const char *name, const char *version_max);
/* Takes up a connection; NULL when the other side does not speak TLS, or hangs up. */
SSL *tls_accept(SSL_CTX *server, int fd);
/* The client's side, without looking at the certificate. `session` may be NULL. */
SSL_CTX *tls_client_new(void);
SSL *tls_connect(SSL_CTX *client, int fd, const char *server_name, SSL_SESSION *session);
void tls_close(SSL *ssl); /* NULL is allowed; the socket stays */
const char *tls_error(void);

#endif
