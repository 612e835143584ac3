#include "sdk/transfer.h"

#include "base/clock.h"
#include "sdk/retry.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ANSWER_BYTES_MAX (64u << 10)
#define HEADER_BYTES_MAX (64u << 10)
#define GRPC_PREFIX 5
/* libcurl copies what it sends, so much in a step, and each step is a round of its own. */
#define UPLOAD_BYTES (256L << 10)

/* ---- the answer ---- */

static size_t on_body(char *bytes, size_t size, size_t n, void *user)
{
    struct transfer *t = user;
    if (t->body.len + size * n > ANSWER_BYTES_MAX) {
        t->cut = true;
        return 0; /* ends the transfer */
    }
    buf_put(&t->body, bytes, size * n);
    return size * n;
}

/* Headers and, over HTTP/2, trailers. */
static size_t on_header(char *bytes, size_t size, size_t n, void *user)
{
    struct transfer *t = user;
    uint64_t number;
    struct str value, name = str_split((struct str){bytes, size * n}, ':', &value);
    value = str_trim(value);
    t->header_bytes += size * n;
    if (t->header_bytes > HEADER_BYTES_MAX) {
        t->cut = true;
        return 0;
    }
    if (str_eq_nocase(name, STR("grpc-status")) && str_to_u64(value, &number) && number < 1000)
        t->grpc_status = (long)number;
    else if (str_eq_nocase(name, STR("grpc-message")))
        snprintf(t->grpc_message, sizeof t->grpc_message, "%.*s",
                 value.len < 100 ? (int)value.len : 100, value.ptr ? value.ptr : "");
    else if (str_eq_nocase(name, STR("grpc-status-details-bin")) &&
             retry_info_parse(value, &t->retry_after_ns))
        t->retry_info = true;
    else if (str_eq_nocase(name, STR("retry-after")) &&
             retry_after_parse(value, clock_realtime_ns(), &number))
        t->retry_after_ns = number;
    return size * n;
}

struct str transfer_answer(const struct transfer *t)
{
    struct str body = buf_as_str(&t->body);
    return t->options->grpc ? str_skip(body, GRPC_PREFIX) : body;
}

/* What will not go away by waiting. */
static bool is_final(CURLcode code)
{
    return code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_CACERT_BADFILE ||
           code == CURLE_SSL_CERTPROBLEM || code == CURLE_SSL_ISSUER_ERROR ||
           code == CURLE_UNSUPPORTED_PROTOCOL || code == CURLE_URL_MALFORMAT;
}

enum verdict transfer_verdict(struct transfer *t, CURLcode code)
{
    long connects = 0;
    t->http_status = 0;
    t->curl->easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &t->http_status);
    bool made_anew = t->refused_new, cut = code == CURLE_WRITE_ERROR && t->cut;
    t->refused_new = false;
    if (code != CURLE_OK && !cut) {
        bool reused = t->reuse;
        t->reuse = false;
        if (made_anew)
            return VERDICT_ANEW;
        /* A connection that had been idle was closed by the peer: nobody has got anything. */
        if (reused && t->header_bytes == 0 && code != CURLE_OPERATION_TIMEDOUT &&
            t->curl->easy_getinfo(t->easy, CURLINFO_NUM_CONNECTS, &connects) == CURLE_OK &&
            connects == 0)
            return VERDICT_ANEW;
        return is_final(code) ? VERDICT_REFUSED : VERDICT_UNREACHED;
    }
    t->reuse = t->h2c && !cut;
    bool ok = t->http_status >= 200 && t->http_status < 300;
    bool again = retry_http(t->http_status);
    if (t->options->grpc && ok) {
        ok = t->grpc_status == 0;
        again = retry_grpc(t->grpc_status, t->retry_info);
    }
    return ok ? VERDICT_SENT : again ? VERDICT_BUSY : VERDICT_REFUSED;
}

/* ---- connections ---- */

static curl_socket_t on_open(void *user, curlsocktype purpose, struct curl_sockaddr *a)
{
    struct transfer *t = user;
    (void)purpose;
    if (t->reuse) {
        t->refused_new = true;
        return CURL_SOCKET_BAD;
    }
    for (int i = 0; i < TRANSFER_SOCKETS_MAX; i++) {
        if (t->sockets[i].fd >= 0)
            continue;
        int fd = socket(a->family, a->socktype | SOCK_CLOEXEC, a->protocol);
        if (fd < 0)
            return CURL_SOCKET_BAD;
        t->sockets[i] = own_fd_take(fd);
        return t->sockets[i].fd >= 0 ? t->sockets[i].fd : CURL_SOCKET_BAD;
    }
    return CURL_SOCKET_BAD;
}

static int on_close(void *user, curl_socket_t fd)
{
    struct transfer *t = user;
    for (int i = 0; i < TRANSFER_SOCKETS_MAX; i++)
        if (t->sockets[i].fd == fd)
            own_fd_close(&t->sockets[i]);
    return 0;
}

bool transfer_sockets_ok(const struct transfer *t)
{
    for (int i = 0; i < TRANSFER_SOCKETS_MAX; i++)
        if (t->sockets[i].fd >= 0 && !own_fd_ok(&t->sockets[i]))
            return false;
    return true;
}

/* ---- the handle ---- */

/* "a=b,c=d" with percent-encoded values, as OTEL_EXPORTER_OTLP_HEADERS has them. */
static bool headers_add(struct transfer *t, struct curl_slist **list, const char *text)
{
    struct str rest = str_from(text);
    while (rest.ptr && rest.len) {
        char line[4096];
        struct str value, name = str_trim(str_split(str_split(rest, ',', &rest), '=', &value));
        value = str_trim(value);
        if (!value.ptr || name.len == 0 || name.len + value.len + 3 > sizeof line)
            continue;
        size_t n = (size_t)snprintf(line, sizeof line, "%.*s: ", STR_ARG(name));
        for (size_t i = 0; i < value.len; i++) {
            uint8_t byte;
            if (value.ptr[i] == '%' && i + 2 < value.len &&
                hex_get(&byte, (struct str){value.ptr + i + 1, 2}, 1) && byte >= ' ') {
                line[n++] = (char)byte;
                i += 2;
            } else {
                line[n++] = value.ptr[i];
            }
        }
        line[n] = '\0';
        struct curl_slist *more = t->curl->slist_append(*list, line);
        explicit_bzero(line, sizeof line); /* it may be a token */
        if (!more)
            return false;
        *list = more;
    }
    return true;
}

static bool headers_make(struct transfer *t, bool gzip, struct curl_slist **ret)
{
    const struct transfer_options *o = t->options;
    char type[100];
    snprintf(type, sizeof type, "Content-Type: %s", o->grpc ? "application/grpc" : o->content_type);
    const char *lines[] = {type, o->grpc ? "TE: trailers" : "Expect:",
                           !gzip     ? NULL
                           : o->grpc ? "grpc-encoding: gzip"
                                     : "Content-Encoding: gzip"};
    for (size_t i = 0; i < sizeof lines / sizeof lines[0] && lines[i]; i++) {
        struct curl_slist *more = t->curl->slist_append(*ret, lines[i]);
        if (!more)
            return false;
        *ret = more;
    }
    return !o->headers || headers_add(t, ret, o->headers);
}

#define SET(option, value) t->curl->easy_setopt(t->easy, option, value)

static void tls_set(struct transfer *t)
{
    const struct transfer_options *o = t->options;
    if (o->certificate)
        SET(CURLOPT_CAINFO, o->certificate);
    if (o->client_certificate)
        SET(CURLOPT_SSLCERT, o->client_certificate);
    if (o->client_key)
        SET(CURLOPT_SSLKEY, o->client_key);
}

int transfer_init(struct transfer *t, const struct curl_api *curl,
                  const struct transfer_options *options)
{
    *t = (struct transfer){.curl = curl, .options = options, .easy = curl->easy_init()};
    t->h2c = options->grpc && strncmp(options->url, "http:", 5) == 0;
    transfer_abandon(t);
    if (!t->easy || !headers_make(t, false, &t->headers) ||
        !headers_make(t, true, &t->headers_gzip)) {
        transfer_done(t);
        return ERR_NOMEM;
    }
    SET(CURLOPT_URL, options->url);
    SET(CURLOPT_PROTOCOLS_STR, "http,https");
    SET(CURLOPT_USERAGENT, "OTel-OTLP-Exporter-C/" PUGMARK_VERSION);
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_QUICK_EXIT, 1L); /* do not wait for a name server when we stop */
    SET(CURLOPT_POST, 1L);
    SET(CURLOPT_UPLOAD_BUFFERSIZE, UPLOAD_BYTES);
    SET(CURLOPT_TIMEOUT_MS, (long)(options->timeout_ns / NS_PER_MS));
    SET(CURLOPT_WRITEFUNCTION, on_body);
    SET(CURLOPT_WRITEDATA, t);
    SET(CURLOPT_HEADERFUNCTION, on_header);
    SET(CURLOPT_HEADERDATA, t);
    SET(CURLOPT_OPENSOCKETFUNCTION, on_open);
    SET(CURLOPT_OPENSOCKETDATA, t);
    SET(CURLOPT_CLOSESOCKETFUNCTION, on_close);
    SET(CURLOPT_CLOSESOCKETDATA, t);
    tls_set(t);
    return 0;
}

void transfer_done(struct transfer *t)
{
    if (t->easy)
        t->curl->easy_cleanup(t->easy);
    if (t->headers)
        t->curl->slist_free_all(t->headers);
    if (t->headers_gzip)
        t->curl->slist_free_all(t->headers_gzip);
    buf_done(&t->body);
    t->easy = NULL;
    t->headers = t->headers_gzip = NULL;
}

void transfer_abandon(struct transfer *t)
{
    for (int i = 0; i < TRANSFER_SOCKETS_MAX; i++)
        t->sockets[i] = OWN_FD_NONE;
    t->reuse = false;
}

void transfer_prepare(struct transfer *t, struct str body, bool gzip)
{
    buf_clear(&t->body);
    t->header_bytes = 0;
    t->cut = false;
    t->http_status = 0;
    t->grpc_status = -1;
    t->grpc_message[0] = '\0';
    t->retry_info = false;
    t->retry_after_ns = 0;
    SET(CURLOPT_HTTPHEADER, gzip ? t->headers_gzip : t->headers);
    SET(CURLOPT_POSTFIELDS, body.ptr);
    SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body.len);
    if (!t->options->grpc)
        return;
    if (!t->h2c)
        SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
    else
        /* HTTP/2 "with prior knowledge" is for a new connection only: on one that is open libcurl
         * 7.88 (Debian 12) begins HTTP/2 a second time, and fails with "Error in the HTTP2 framing
         * layer". Asked for plain HTTP/2 it uses the open connection as it is. Should that be gone,
         * a new one would begin as HTTP/1.1: on_open refuses it, and the verdict is "anew". */
        SET(CURLOPT_HTTP_VERSION,
            (long)(t->reuse ? CURL_HTTP_VERSION_2_0 : CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE));
}
