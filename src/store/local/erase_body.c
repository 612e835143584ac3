/* docs/formats/erasure.md */
#include "store/local/codec.h"
#include "store/local/erase.h"

enum {
    BODY_VERSION = 1,
    PREDICATE_DEPTH_MAX = 256, /* a query's text may nest 200 deep */
    PREDICATE_BYTES_MIN = 3,
    SPAN_BYTES = TRACE_ID_SIZE + SPAN_ID_SIZE,
};

/* ---- predicates ---- */

static bool put_predicate(struct buf *out, const struct predicate *p, unsigned depth)
{
    if (depth == PREDICATE_DEPTH_MAX)
        return false;
    buf_byte(out, (char)p->op);
    if (p->op <= PREDICATE_NOT) {
        codec_put_varint(out, p->n_children);
        for (size_t i = 0; i < p->n_children; i++)
            if (!put_predicate(out, &p->children[i], depth + 1))
                return false;
        return true;
    }
    buf_byte(out, (char)p->field);
    buf_byte(out, p->untyped);
    codec_put_str(out, p->key);
    codec_put_value(out, &p->value);
    return true;
}

static int get_byte(struct codec_reader *r, unsigned most)
{
    const uint8_t *byte = codec_bytes(r, 1);
    if (byte && *byte > most)
        r->err = ERR_CORRUPT;
    return byte && !r->err ? *byte : 0;
}

static void get_predicate(struct codec_reader *r, struct predicate *ret, unsigned depth)
{
    *ret = (struct predicate){.op = (enum predicate_op)get_byte(r, PREDICATE_EXISTS)};
    if (r->err)
        return;
    if (ret->op > PREDICATE_NOT) {
        ret->field = (enum predicate_field)get_byte(r, FIELD_ANY_ATTR);
        ret->untyped = get_byte(r, 1);
        ret->key = codec_str(r);
        codec_value(r, &ret->value);
        return;
    }
    uint64_t n = codec_varint(r);
    bool fits = n <= (uint64_t)(r->end - r->at) && depth < PREDICATE_DEPTH_MAX &&
                (ret->op != PREDICATE_TRUE || !n) && (ret->op != PREDICATE_NOT || n == 1);
    struct predicate *children = fits ? arena_array(r->arena, n, sizeof *children) : NULL;
    if (!r->err && !children)
        r->err = fits ? ERR_NOMEM : ERR_CORRUPT;
    for (uint64_t i = 0; i < n && !r->err; i++)
        get_predicate(r, &children[i], depth + 1);
    ret->children = children;
    ret->n_children = r->err ? 0 : n;
}

/* ---- lists ---- */

static void put_texts(struct buf *out, const char *const *texts, size_t n)
{
    codec_put_varint(out, n);
    for (size_t i = 0; i < n; i++)
        codec_put_str(out, str_from(texts[i]));
}

static void get_texts(struct codec_reader *r, const char *const **ret, size_t *ret_n)
{
    uint64_t n = codec_varint(r);
    bool fits = n <= STORE_ERASE_TEXTS_MAX;
    const char **texts = fits ? arena_array(r->arena, n, sizeof *texts) : NULL;
    if (!r->err && !texts)
        r->err = fits ? ERR_NOMEM : ERR_CORRUPT;
    for (uint64_t i = 0; i < n && !r->err; i++) {
        struct str text = codec_str(r);
        if (!r->err && !(texts[i] = arena_str(r->arena, text).ptr))
            r->err = ERR_NOMEM;
    }
    *ret = texts;
    *ret_n = r->err ? 0 : n;
}

static void get_spans(struct codec_reader *r, struct store_erase *e)
{
    uint64_t n = codec_varint(r);
    bool fits = n <= STORE_ERASE_SPANS_MAX;
    const uint8_t *bytes = fits ? codec_bytes(r, n * SPAN_BYTES) : NULL;
    struct erase_span *spans = bytes ? arena_array(r->arena, n, sizeof *spans) : NULL;
    if (!r->err && !spans)
        r->err = bytes ? ERR_NOMEM : ERR_CORRUPT;
    for (uint64_t i = 0; i < n && !r->err; i++, bytes += SPAN_BYTES) {
        memcpy(spans[i].trace_id.bytes, bytes, TRACE_ID_SIZE);
        memcpy(spans[i].span_id.bytes, bytes + TRACE_ID_SIZE, SPAN_ID_SIZE);
    }
    e->spans = spans;
    e->n_spans = r->err ? 0 : n;
}

/* ---- all of it ---- */

int erase_encode(const struct store_erase *e, struct buf *out)
{
    static const struct predicate every = {.op = PREDICATE_TRUE};
    if (e->n_spans > STORE_ERASE_SPANS_MAX || e->n_keys > STORE_ERASE_TEXTS_MAX ||
        e->n_patterns > STORE_ERASE_TEXTS_MAX)
        return ERR_TOO_LARGE;
    buf_byte(out, BODY_VERSION);
    buf_byte(out, (char)e->kind);
    codec_put_varint(out, e->start_min_ns);
    codec_put_varint(out, e->start_max_ns);
    if (!put_predicate(out, e->where ? e->where : &every, 0))
        return ERR_TOO_LARGE;
    buf_byte(out, e->spans != NULL);
    if (e->spans)
        codec_put_varint(out, e->n_spans);
    for (size_t i = 0; e->spans && i < e->n_spans; i++) {
        buf_put(out, e->spans[i].trace_id.bytes, TRACE_ID_SIZE);
        buf_put(out, e->spans[i].span_id.bytes, SPAN_ID_SIZE);
    }
    put_texts(out, e->keys, e->n_keys);
    put_texts(out, e->patterns, e->n_patterns);
    return buf_ok(out) ? 0 : ERR_NOMEM;
}

int erase_decode(struct str body, struct arena *arena, struct store_erase *ret)
{
    struct codec_reader r = codec_reader(body, arena);
    struct store_erase e = {.kind = ERASE_DELETE};
    const uint8_t *version = codec_bytes(&r, 1);
    if (version && *version != BODY_VERSION)
        return ERR_UNSUPPORTED;
    e.kind = (enum erase_kind)get_byte(&r, ERASE_REDACT);
    if (!e.kind)
        return ERR_CORRUPT;
    e.start_min_ns = codec_varint(&r);
    e.start_max_ns = codec_varint(&r);
    struct predicate *where = arena_alloc(arena, sizeof *where);
    if (!where)
        return ERR_NOMEM;
    get_predicate(&r, where, 0);
    e.where = where;
    if (get_byte(&r, 1))
        get_spans(&r, &e);
    get_texts(&r, &e.keys, &e.n_keys);
    get_texts(&r, &e.patterns, &e.n_patterns);
    int err = codec_finish(&r);
    if (!err)
        *ret = e;
    return err;
}
