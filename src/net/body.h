/* A body that arrives in pieces: inflated while it comes, bounded on the wire, after inflation and
 * by a budget that all requests share. What a decompression bomb costs is the bound, not its size.
 */
#ifndef NET_BODY_H
#define NET_BODY_H

#include "base/buf.h"
#include "base/err.h"
#include "net/budget.h"

enum coding { CODING_IDENTITY, CODING_GZIP, CODING_DEFLATE, CODING_ZSTD };

/* The name of a content coding (HTTP) or message encoding (gRPC), any case; empty is identity. */
bool coding_parse(struct str name, enum coding *ret);

struct body_limits {
    size_t wire_bytes_max;
    size_t inflated_bytes_max;
    struct budget *budget; /* NULL: none */
};

struct body {
    struct buf bytes; /* inflated */
    size_t wire_bytes;
    struct body_limits limits;
    size_t charged; /* taken from the budget */
    enum coding coding;
    bool ended; /* the compressed stream said that it is complete */
    void *inflater;
};

MUST_USE int body_init(struct body *b, enum coding coding, const struct body_limits *limits);
void body_done(struct body *b); /* zeros are a valid body */
/* The sender announced so many bytes: makes room at once. */
MUST_USE int body_expect(struct body *b, size_t wire_bytes);
/* ERR_TOO_LARGE, ERR_BUSY (the budget), ERR_INVALID (not what the coding says), ERR_NOMEM. */
MUST_USE int body_feed(struct body *b, const void *bytes, size_t n);
/* ERR_TRUNCATED: the compressed stream is not complete. Frees what inflation needed. */
MUST_USE int body_finish(struct body *b);

#endif
