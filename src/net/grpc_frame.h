/* The one message of a unary gRPC call, out of the pieces in which its bytes arrive.
 *
 *   byte 0     0: as it is, 1: compressed with what `grpc-encoding` named
 *   bytes 1-4  length of what follows, big-endian
 *   then the message
 *
 * Source: grpc/grpc, doc/PROTOCOL-HTTP2.md, "Length-Prefixed-Message". */
#ifndef NET_GRPC_FRAME_H
#define NET_GRPC_FRAME_H

#include "net/body.h"

enum { GRPC_FRAME_HEAD_BYTES = 5 };

struct grpc_reader {
    struct body message; /* complete when grpc_reader_finish said 0 */
    struct body_limits limits;
    enum coding coding; /* of messages that say they are compressed */
    uint8_t head[GRPC_FRAME_HEAD_BYTES];
    uint8_t n_head;
    uint32_t left; /* bytes of the message still to come */
};

void grpc_reader_init(struct grpc_reader *r, enum coding coding, const struct body_limits *limits);
void grpc_reader_done(struct grpc_reader *r); /* zeros are a valid reader */
/* ERR_TOO_LARGE, ERR_BUSY (the budget), ERR_NOMEM; ERR_UNSUPPORTED: compressed, but no coding was
 * named; ERR_INVALID: an unknown flag, a second message, or not what the coding says. */
MUST_USE int grpc_reader_feed(struct grpc_reader *r, const void *bytes, size_t n);
/* The stream ended. ERR_TRUNCATED when no whole message was there. */
MUST_USE int grpc_reader_finish(struct grpc_reader *r);

/* Puts a message's head into `out`. */
void grpc_frame_head(uint8_t out[GRPC_FRAME_HEAD_BYTES], uint32_t message_bytes);

#endif
