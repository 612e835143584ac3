#include "net/grpc_frame.h"

void grpc_reader_init(struct grpc_reader *r, enum coding coding, const struct body_limits *limits)
{
    *r = (struct grpc_reader){.limits = *limits, .coding = coding};
}

void grpc_reader_done(struct grpc_reader *r)
{
    if (r)
        body_done(&r->message);
}

static int begin_message(struct grpc_reader *r)
{
    uint8_t flag = r->head[0];
    r->left = (uint32_t)r->head[1] << 24 | (uint32_t)r->head[2] << 16 | (uint32_t)r->head[3] << 8 |
              r->head[4];
    if (flag > 1)
        return ERR_INVALID;
    if (flag == 1 && r->coding == CODING_IDENTITY)
        return ERR_UNSUPPORTED;
    /* An empty message is empty however it is compressed. */
    enum coding coding = flag && r->left ? r->coding : CODING_IDENTITY;
    int err = body_init(&r->message, coding, &r->limits);
    return err ? err : body_expect(&r->message, r->left);
}

int grpc_reader_feed(struct grpc_reader *r, const void *bytes, size_t n)
{
    const uint8_t *at = bytes;
    while (n) {
        if (r->n_head < GRPC_FRAME_HEAD_BYTES) {
            r->head[r->n_head++] = *at++;
            n--;
            if (r->n_head == GRPC_FRAME_HEAD_BYTES) {
                int err = begin_message(r);
                if (err)
                    return err;
            }
            continue;
        }
        if (r->left == 0)
            return ERR_INVALID;
        size_t part = n < r->left ? n : r->left;
        int err = body_feed(&r->message, at, part);
        if (err)
            return err;
        at += part;
        n -= part;
        r->left -= (uint32_t)part;
    }
    return 0;
}

int grpc_reader_finish(struct grpc_reader *r)
{
    if (r->n_head < GRPC_FRAME_HEAD_BYTES || r->left)
        return ERR_TRUNCATED;
    return body_finish(&r->message);
}

void grpc_frame_head(uint8_t out[GRPC_FRAME_HEAD_BYTES], uint32_t message_bytes)
{
    out[0] = 0;
    out[1] = (uint8_t)(message_bytes >> 24);
    out[2] = (uint8_t)(message_bytes >> 16);
    out[3] = (uint8_t)(message_bytes >> 8);
    out[4] = (uint8_t)message_bytes;
}
