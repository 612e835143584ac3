/* One request at a time to one address, by libcurl's multi interface: bytes out, an answer in, and a
 * verdict on it. Used by the sender's thread alone. */
#ifndef SDK_TRANSFER_H
#define SDK_TRANSFER_H

#include "base/buf.h"
#include "sdk/curl.h"
#include "sdk/own_fd.h"

#define TRANSFER_SOCKETS_MAX 8

struct transfer_options {
    const char *url;          /* complete; not copied */
    const char *content_type; /* of HTTP; gRPC has its own */
    const char *headers;      /* "name=value,...", percent-encoded; may be NULL */
    /* PEM files for https; NULL: the system's, none. */
    const char *certificate, *client_certificate, *client_key;
    uint64_t timeout_ns; /* of one request */
    bool grpc;
};

enum verdict {
    VERDICT_SENT,
    VERDICT_REFUSED,   /* for good */
    VERDICT_BUSY,      /* it said so: again after a pause */
    VERDICT_UNREACHED, /* no answer: again after a pause */
    VERDICT_ANEW,      /* nothing was sent: again at once, over a new connection */
};

struct transfer {
    const struct curl_api *curl;
    const struct transfer_options *options;
    CURL *easy;
    struct curl_slist *headers, *headers_gzip;
    bool h2c;   /* gRPC without TLS */
    bool reuse; /* of h2c: an open connection is to be used, none made */
    bool refused_new;
    struct own_fd sockets[TRANSFER_SOCKETS_MAX];

    /* the answer */
    struct buf body;
    size_t header_bytes;
    bool cut; /* it was too long */
    long http_status;
    long grpc_status; /* -1: none seen */
    char grpc_message[104];
    bool retry_info;
    uint64_t retry_after_ns; /* 0: not said */
};

/* `options` outlives it. ERR_NOMEM, ERR_INVALID. On failure there is nothing to free. */
MUST_USE int transfer_init(struct transfer *t, const struct curl_api *curl,
                           const struct transfer_options *options);
void transfer_done(struct transfer *t);
/* The descriptors of its connections are not ours any more: forgets them, without touching them. */
void transfer_abandon(struct transfer *t);
bool transfer_sockets_ok(const struct transfer *t);

/* Sets the handle up for `body`, which stays where it is until the end. */
void transfer_prepare(struct transfer *t, struct str body, bool gzip);
enum verdict transfer_verdict(struct transfer *t, CURLcode code);
/* What stood in the answer's body (gRPC: in its message). */
struct str transfer_answer(const struct transfer *t);

#endif
