/* How segments pack numbers and bytes: docs/formats/segment.md, "Streams". */
#ifndef STORE_LOCAL_STREAM_H
#define STORE_LOCAL_STREAM_H

#include "base/buf.h"
#include "store/local/codec.h"

/* What writing needs, once for many streams. */
struct stream_writer {
    void *zstd;      /* ZSTD_CCtx */
    struct buf room; /* compressed bytes */
    uint64_t *numbers;
    uint8_t *bytes;
    size_t cap; /* of both */
};

MUST_USE int stream_writer_init(struct stream_writer *w);
void stream_writer_done(struct stream_writer *w);

/* Failure is in `out`. */
void stream_put_bytes(struct stream_writer *w, struct buf *out, const uint8_t *bytes, size_t n);
void stream_put_numbers(struct stream_writer *w, struct buf *out, const uint64_t *v, size_t n);
/* The same of numbers that are mostly small: the gaps between places. */
void stream_put_gaps(struct stream_writer *w, struct buf *out, const uint64_t *v, size_t n);
/* Numbers, preceded by the length of their stream. */
void stream_put_sized(struct stream_writer *w, struct buf *out, const uint64_t *v, size_t n);
void stream_put_list(struct stream_writer *w, struct buf *out, const struct str *items, size_t n);

/* Reading. Results live in the arena of the reader, which also holds the scratch room. */
const uint8_t *stream_bytes(struct codec_reader *r, size_t n);
uint64_t *stream_numbers(struct codec_reader *r, size_t n);
/* The same of numbers that must be below 2^32. */
uint32_t *stream_numbers32(struct codec_reader *r, size_t n);
uint64_t *stream_sized(struct codec_reader *r, size_t n);
/* Ascending places below `end`, of a stream of gaps that is preceded by its length. */
uint32_t *stream_places(struct codec_reader *r, size_t n, uint32_t end);
struct str *stream_list(struct codec_reader *r, size_t n);

#endif
