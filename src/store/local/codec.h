/* Values, attribute lists, events, links, resources and scopes as bytes: how they stand in the
 * memtable and in segments. The layout is in docs/formats/segment.md, "Values". */
#ifndef STORE_LOCAL_CODEC_H
#define STORE_LOCAL_CODEC_H

#include "base/arena.h"
#include "base/buf.h"
#include "model/span.h"

void codec_put_varint(struct buf *b, uint64_t n);
void codec_put_zigzag(struct buf *b, int64_t n);
void codec_put_str(struct buf *b, struct str s);
void codec_put_value(struct buf *b, const struct value *v);
void codec_put_attrs(struct buf *b, const struct attrs *attrs);
void codec_put_resource(struct buf *b, const struct resource *r);
void codec_put_scope(struct buf *b, const struct scope *s);
/* Times are kept relative to the start of the span. */
void codec_put_events(struct buf *b, const struct event *events, uint32_t n, uint64_t start_ns);
void codec_put_links(struct buf *b, const struct link *links, uint32_t n);

/* Reads from the front of a slice; after the first failure everything reads as zero. */
struct codec_reader {
    const uint8_t *at, *end;
    struct arena *arena; /* arrays; strings borrow from the input */
    int err;             /* ERR_CORRUPT or ERR_NOMEM */
};

static inline struct codec_reader codec_reader(struct str bytes, struct arena *arena)
{
    static const uint8_t nothing[1];
    const uint8_t *p = bytes.ptr ? (const uint8_t *)bytes.ptr : nothing;
    return (struct codec_reader){.at = p, .end = p + bytes.len, .arena = arena};
}

uint64_t codec_varint_slow(struct codec_reader *r);
static inline uint64_t codec_varint(struct codec_reader *r)
{
    if (r->at < r->end && *r->at < 0x80)
        return *r->at++;
    return codec_varint_slow(r);
}
int64_t codec_zigzag(struct codec_reader *r);
uint32_t codec_u32(struct codec_reader *r);                   /* a varint that must fit */
const uint8_t *codec_bytes(struct codec_reader *r, size_t n); /* NULL on failure */
struct str codec_str(struct codec_reader *r);
uint64_t codec_fixed64(struct codec_reader *r);
void codec_value(struct codec_reader *r, struct value *ret);
void codec_attrs(struct codec_reader *r, struct attrs *ret);
void codec_resource(struct codec_reader *r, struct resource *ret);
void codec_scope(struct codec_reader *r, struct scope *ret);
void codec_events(struct codec_reader *r, uint64_t start_ns, const struct event **ret,
                  uint32_t *ret_n);
void codec_links(struct codec_reader *r, const struct link **ret, uint32_t *ret_n);
/* ERR_CORRUPT when bytes are left. */
int codec_finish(struct codec_reader *r);

#endif
