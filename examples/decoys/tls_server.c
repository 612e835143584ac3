#include "tls_server.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdbool.h>
#include <string.h>

#define VALID_S (90L * 24 * 3600)

const char *tls_error(void)
{
    unsigned long e = ERR_get_error();
    const char *text = e ? ERR_reason_error_string(e) : NULL;
    ERR_clear_error();
    return text ? text : "no reason given";
}

static X509 *self_signed(EVP_PKEY *key, const char *name)
{
    X509 *x = X509_new();
    uint64_t serial = 0;
    X509_NAME *subject = x ? X509_get_subject_name(x) : NULL;
    if (subject && RAND_bytes((unsigned char *)&serial, sizeof serial) == 1 &&
        X509_set_version(x, X509_VERSION_3) == 1 &&
        ASN1_INTEGER_set_uint64(X509_get_serialNumber(x), serial >> 1 | 1) == 1 &&
        X509_gmtime_adj(X509_getm_notBefore(x), -3600) &&
        X509_gmtime_adj(X509_getm_notAfter(x), VALID_S) &&
        X509_NAME_add_entry_by_txt(subject, "O", MBSTRING_ASC, (const unsigned char *)"Router", -1,
                                   -1, 0) == 1 &&
        X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1,
                                   0) == 1 &&
        X509_set_issuer_name(x, subject) == 1 && X509_set_pubkey(x, key) == 1 &&
        X509_sign(x, key, EVP_sha256()) > 0)
        return x;
    X509_free(x);
    return NULL;
}

/* The protocol the decoy speaks, when the client offers it. */
static int choose_http_1_1(SSL *ssl, const unsigned char **out, unsigned char *out_len,
                           const unsigned char *in, unsigned in_len, void *arg)
{
    static const unsigned char ours[] = "\x08http/1.1";
    (void)ssl;
    (void)arg;
    return SSL_select_next_proto((unsigned char **)out, out_len, ours, sizeof ours - 1, in,
                                 in_len) == OPENSSL_NPN_NEGOTIATED
               ? SSL_TLSEXT_ERR_OK
               : SSL_TLSEXT_ERR_NOACK;
}

SSL_CTX *tls_server_new(const char *name, const char *version_max)
{
    SSL_CTX *server = SSL_CTX_new(TLS_server_method());
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *certificate = key ? self_signed(key, name) : NULL;
    bool good = server && certificate && SSL_CTX_use_certificate(server, certificate) == 1 &&
                SSL_CTX_use_PrivateKey(server, key) == 1;
    if (good && version_max && strcmp(version_max, "1.2") == 0)
        good = SSL_CTX_set_max_proto_version(server, TLS1_2_VERSION) == 1;
    X509_free(certificate);
    EVP_PKEY_free(key);
    if (!good) {
        SSL_CTX_free(server);
        return NULL;
    }
    SSL_CTX_set_session_id_context(server, (const unsigned char *)"decoy", 5);
    SSL_CTX_set_alpn_select_cb(server, choose_http_1_1, NULL);
    return server;
}

SSL *tls_accept(SSL_CTX *server, int fd)
{
    SSL *ssl = SSL_new(server);
    if (ssl && SSL_set_fd(ssl, fd) == 1 && SSL_accept(ssl) == 1)
        return ssl;
    SSL_free(ssl);
    return NULL;
}

SSL_CTX *tls_client_new(void)
{
    static const unsigned char protocols[] = "\x08http/1.1";
    SSL_CTX *client = SSL_CTX_new(TLS_client_method());
    if (client) {
        SSL_CTX_set_verify(client, SSL_VERIFY_NONE, NULL);
        SSL_CTX_set_alpn_protos(client, protocols, sizeof protocols - 1);
    }
    return client;
}

SSL *tls_connect(SSL_CTX *client, int fd, const char *server_name, SSL_SESSION *session)
{
    SSL *ssl = SSL_new(client);
    if (ssl && SSL_set_fd(ssl, fd) == 1 && SSL_set_tlsext_host_name(ssl, server_name) == 1 &&
        (!session || SSL_set_session(ssl, session) == 1) && SSL_connect(ssl) == 1)
        return ssl;
    SSL_free(ssl);
    return NULL;
}

void tls_close(SSL *ssl)
{
    if (ssl)
        SSL_shutdown(ssl);
    SSL_free(ssl);
}
