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

/* A number stream as it is packed, for whoever needs few of its numbers, or compares them as bytes. */
struct stream_view {
    enum { VIEW_SAME, VIEW_BYTES, VIEW_BITS, VIEW_PLANES, VIEW_WIDE } how;
    uint64_t base;            /* same: all of them; bits, planes: what is added */
    unsigned width, n_values; /* bits: bits of each; planes: how many */
    const uint8_t *bytes;     /* bytes: which of `values` each is; bits */
    size_t size;              /* bits: their bytes */
    uint64_t *values;         /* bytes: 256, zeros behind the last */
    const uint8_t *planes[8];
    uint64_t *wide; /* wide: the numbers */
};
/* False: `r` has the error. Lives as what the reader gives does. */
bool stream_view(struct codec_reader *r, size_t n, struct stream_view *ret);
uint64_t stream_view_at(const struct stream_view *v, size_t i);
/* All of them; `room` has place for n, and is not used when they are there already. */
uint64_t *stream_view_all(const struct stream_view *v, size_t n, uint64_t *room);
/* Numbers that must be below 2^32. */
uint32_t *stream_numbers32(struct codec_reader *r, size_t n);
uint64_t *stream_sized(struct codec_reader *r, size_t n);
/* Ascending places below `end`, of a stream of gaps that is preceded by its length. */
uint32_t *stream_places(struct codec_reader *r, size_t n, uint32_t end);
struct str *stream_list(struct codec_reader *r, size_t n);

#endif
