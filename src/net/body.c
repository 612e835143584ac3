#include "net/body.h"

#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

/* RFC 9659: a zstd window for HTTP is at most 8 MiB. */
enum { ZSTD_WINDOW_LOG_MAX = 23 };
enum { STEP_BYTES = 32 << 10 };

bool coding_parse(struct str name, enum coding *ret)
{
    static const struct {
        struct str name;
        enum coding coding;
    } names[] = {
        {{"", 0}, CODING_IDENTITY},       {{"identity", 8}, CODING_IDENTITY},
        {{"gzip", 4}, CODING_GZIP},       {{"x-gzip", 6}, CODING_GZIP},
        {{"deflate", 7}, CODING_DEFLATE}, {{"zstd", 4}, CODING_ZSTD},
    };
    name = str_trim(name);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (str_eq_nocase(name, names[i].name)) {
            *ret = names[i].coding;
            return true;
        }
    return false;
}

int body_init(struct body *b, enum coding coding, const struct body_limits *limits)
{
    *b = (struct body){.coding = coding, .limits = *limits};
    b->bytes.bytes_max = coding == CODING_IDENTITY ? limits->wire_bytes_max
                                                   : limits->inflated_bytes_max;
    if (coding == CODING_GZIP || coding == CODING_DEFLATE) {
        z_stream *z = calloc(1, sizeof *z);
        if (!z)
            return ERR_NOMEM;
        if (inflateInit2(z, coding == CODING_GZIP ? 15 + 16 : 15) != Z_OK) {
            free(z);
            return ERR_NOMEM;
        }
        b->inflater = z;
    } else if (coding == CODING_ZSTD) {
        ZSTD_DCtx *d = ZSTD_createDCtx();
        if (!d)
            return ERR_NOMEM;
        ZSTD_DCtx_setParameter(d, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG_MAX);
        b->inflater = d;
    }
    return 0;
}

static void inflater_free(struct body *b)
{
    if (!b->inflater)
        return;
    if (b->coding == CODING_ZSTD) {
        ZSTD_freeDCtx(b->inflater);
    } else {
        inflateEnd(b->inflater);
        free(b->inflater);
    }
    b->inflater = NULL;
}

void body_done(struct body *b)
{
    if (!b)
        return;
    inflater_free(b);
    buf_done(&b->bytes);
    if (b->limits.budget)
        budget_give(b->limits.budget, b->charged);
    b->charged = 0;
}

/* Room for `more` bytes, paid for. The buffer doubles, so what is charged is its capacity. */
static int make_room(struct body *b, size_t more)
{
    struct buf *out = &b->bytes;
    if (more <= out->cap - out->len)
        return 0;
    size_t want;
    if (__builtin_add_overflow(out->len, more, &want) || (out->bytes_max && want > out->bytes_max))
        return ERR_TOO_LARGE;
    size_t cap = out->cap < 4096 ? 4096 : out->cap;
    while (cap < want)
        cap = cap > SIZE_MAX / 2 ? want : cap * 2;
    if (out->bytes_max && cap > out->bytes_max)
        cap = out->bytes_max;
    size_t charge = cap > b->charged ? cap - b->charged : 0;
    if (b->limits.budget && charge) {
        if (!budget_take(b->limits.budget, charge))
            return ERR_BUSY;
        b->charged += charge;
    }
    return buf_reserve(out, cap - out->len) ? 0 : ERR_NOMEM;
}

int body_expect(struct body *b, size_t wire_bytes)
{
    if (b->limits.wire_bytes_max && wire_bytes > b->limits.wire_bytes_max)
        return ERR_TOO_LARGE;
    /* One that announces much and sends nothing must not empty the budget for the others. */
    size_t at_once = 256 << 10;
    if (b->coding == CODING_IDENTITY)
        return make_room(b, wire_bytes < at_once ? wire_bytes : at_once);
    return 0;
}

/* Output goes in steps straight into the buffer, never past its bound. The last byte before the
 * bound is asked for with one byte of room to spare elsewhere, so that a body of exactly the bound
 * passes and one byte more does not. */
static int step_room(struct body *b, char spare[1], char **ret_at, size_t *ret_n)
{
    struct buf *out = &b->bytes;
    if (out->cap == out->len) {
        size_t step = STEP_BYTES;
        if (out->bytes_max && out->bytes_max - out->len < step)
            step = out->bytes_max - out->len;
        if (step == 0) {
            *ret_at = spare;
            *ret_n = 1;
            return 0;
        }
        int err = make_room(b, step);
        if (err)
            return err;
    }
    *ret_at = out->ptr + out->len;
    *ret_n = out->cap - out->len;
    return 0;
}

static int step_took(struct body *b, const char *at, const char *spare, size_t n)
{
    if (at == spare)
        return n ? ERR_TOO_LARGE : 0;
    b->bytes.len += n;
    return 0;
}

static int feed_zlib(struct body *b, const void *bytes, size_t n)
{
    z_stream *z = b->inflater;
    char spare[1];
    z->next_in = (Bytef *)(uintptr_t)bytes;
    z->avail_in = (uInt)n;
    for (;;) {
        if (b->ended) {
            if (z->avail_in == 0)
                return 0;
            /* RFC 1952: a gzip file may have several members. */
            if (b->coding != CODING_GZIP || inflateReset(z) != Z_OK)
                return ERR_INVALID;
            b->ended = false;
        }
        char *at;
        size_t room;
        int err = step_room(b, spare, &at, &room);
        if (err)
            return err;
        uInt asked = room > UINT32_MAX / 2 ? UINT32_MAX / 2 : (uInt)room;
        z->next_out = (Bytef *)at;
        z->avail_out = asked;
        int code = inflate(z, Z_NO_FLUSH);
        if ((err = step_took(b, at, spare, asked - z->avail_out)))
            return err;
        if (code == Z_STREAM_END)
            b->ended = true;
        else if (code == Z_BUF_ERROR)
            return 0; /* wants more input */
        else if (code != Z_OK)
            return code == Z_MEM_ERROR ? ERR_NOMEM : ERR_INVALID;
        else if (z->avail_in == 0 && z->avail_out)
            return 0;
    }
}

static int feed_zstd(struct body *b, const void *bytes, size_t n)
{
    ZSTD_inBuffer in = {bytes, n, 0};
    char spare[1];
    for (;;) {
        char *at;
        size_t room;
        int err = step_room(b, spare, &at, &room);
        if (err)
            return err;
        ZSTD_outBuffer out = {at, room, 0};
        size_t left = ZSTD_decompressStream(b->inflater, &out, &in);
        if ((err = step_took(b, at, spare, out.pos)))
            return err;
        if (ZSTD_isError(left))
            return ERR_INVALID;
        b->ended = left == 0;
        if (in.pos == in.size && out.pos < out.size)
            return 0;
        if (in.pos == in.size && b->ended)
            return 0;
    }
}

int body_feed(struct body *b, const void *bytes, size_t n)
{
    if (n == 0)
        return 0;
    b->wire_bytes += n;
    if (b->limits.wire_bytes_max && b->wire_bytes > b->limits.wire_bytes_max)
        return ERR_TOO_LARGE;
    if (b->coding == CODING_IDENTITY) {
        int err = make_room(b, n);
        if (err)
            return err;
        buf_put(&b->bytes, bytes, n);
        return buf_ok(&b->bytes) ? 0 : ERR_NOMEM;
    }
    while (n) { /* zlib counts in 32 bits */
        size_t part = n < (1U << 30) ? n : 1U << 30;
        int err = b->coding == CODING_ZSTD ? feed_zstd(b, bytes, part) : feed_zlib(b, bytes, part);
        if (err)
            return err;
        bytes = (const char *)bytes + part;
        n -= part;
    }
    return 0;
}

int body_finish(struct body *b)
{
    if (b->coding == CODING_IDENTITY)
        return 0;
    inflater_free(b);
    return b->ended ? 0 : ERR_TRUNCATED;
}
