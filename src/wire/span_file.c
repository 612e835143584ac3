#include "wire/span_file.h"

#include "base/json.h"
#include "wire/chrome.h"
#include "wire/jaeger.h"
#include "wire/otlp.h"
#include "wire/otlp_json.h"
#include "wire/protobuf.h"
#include "wire/zipkin.h"

typedef int decode_fn(struct str body, struct arena *arena, struct span_batch *ret_batch,
                      struct error_detail *ret_detail);

struct kind {
    const char *name;
    decode_fn *decode;
};

static int part_read(struct str all, struct str part, decode_fn *decode, span_file_fn *fn,
                     void *arg, struct error_detail *detail)
{
    struct arena arena = ARENA_INIT;
    struct span_batch batch = {0};
    *detail = (struct error_detail){0};
    int err = decode(part, &arena, &batch, detail);
    if (err && detail->code)
        detail->position += (size_t)(part.ptr - all.ptr); /* of the whole file */
    else if (err)
        error_set(detail, err, (size_t)(part.ptr - all.ptr), "%s", err_text(err));
    if (!err)
        err = fn(arg, &batch);
    arena_done(&arena);
    return err;
}

/* ---- protobuf ---- */

/* The next part of a length-delimited file; false: there is none of that length. */
static bool part_next(struct str *rest, struct str *ret)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < 10 && i < rest->len; i++) {
        uint8_t byte = (uint8_t)rest->ptr[i];
        n |= (uint64_t)(byte & 0x7f) << (7 * i);
        if (byte & 0x80)
            continue;
        *ret = str_skip(*rest, i + 1);
        if (n > ret->len)
            return false;
        ret->len = n;
        *rest = str_skip(*rest, i + 1 + n);
        return true;
    }
    return false;
}

/* Lengths that come out exactly, before parts that begin as a request does. */
static bool is_delimited(struct str bytes)
{
    enum { RESOURCE_SPANS = 1 << 3 | PB_BYTES };
    struct str part;
    while (bytes.len)
        if (!part_next(&bytes, &part) || (part.len && part.ptr[0] != RESOURCE_SPANS))
            return false;
    return true;
}

static int delimited_read(struct str bytes, span_file_fn *fn, void *arg,
                          struct error_detail *detail)
{
    struct str rest = bytes, part;
    int err = 0;
    while (!err && rest.len && part_next(&rest, &part))
        err = part_read(bytes, part, otlp_decode, fn, arg, detail);
    return err;
}

void span_file_put(const struct span_batch *batch, struct buf *out)
{
    struct buf body = BUF_INIT;
    uint8_t prefix[10];
    size_t n = 0;
    otlp_encode(batch, &body);
    for (size_t rest = body.len;; rest >>= 7) {
        prefix[n++] = (uint8_t)((rest & 0x7f) | (rest > 0x7f ? 0x80 : 0));
        if (rest <= 0x7f)
            break;
    }
    if (!buf_ok(&body))
        out->failed = true;
    buf_put(out, prefix, n);
    buf_put(out, body.ptr, body.len);
    buf_done(&body);
}

/* ---- JSON ---- */

/* What the keys of an object, or of the first object of a list, say it is. */
static struct kind kind_of(struct str document, struct arena *arena)
{
    static const struct {
        const char *key;
        struct kind kind;
    } kinds[] = {{"resourceSpans", {"OTLP JSON", otlp_json_decode}},
                 {"resource_spans", {"OTLP JSON", otlp_json_decode}},
                 {"traceEvents", {"a Chrome trace", chrome_decode}},
                 {"otherData", {"a Chrome trace", chrome_decode}},
                 {"data", {"Jaeger's JSON", jaeger_json_decode}}};
    struct json_reader r;
    json_reader_init(&r, document, arena, NULL);
    bool is_list = json_next(&r) == JSON_ARRAY, is_v1 = false;
    if (is_list && json_next(&r) == JSON_ARRAY_END)
        return (struct kind){"Zipkin's JSON", zipkin_json_decode};
    if (r.type != JSON_OBJECT)
        return (struct kind){NULL, NULL};
    while (json_next(&r) == JSON_KEY) {
        for (size_t i = 0; !is_list && i < sizeof kinds / sizeof *kinds; i++)
            if (str_eq(r.text, str_from(kinds[i].key)))
                return kinds[i].kind;
        is_v1 |= str_eq(r.text, STR("binaryAnnotations"));
        json_skip(&r);
    }
    if (!is_list || r.err)
        return (struct kind){NULL, NULL};
    return is_v1 ? (struct kind){"Zipkin's JSON, version 1", zipkin_v1_json_decode}
                 : (struct kind){"Zipkin's JSON", zipkin_json_decode};
}

/* The first whole document of what is left. */
static int document_next(struct str *rest, struct str *ret, struct error_detail *detail)
{
    struct arena arena = ARENA_INIT;
    struct json_reader r;
    json_reader_init(&r, *rest, &arena, detail);
    enum json_type type = json_next(&r);
    if (type == JSON_OBJECT || type == JSON_ARRAY)
        type = json_skip(&r);
    int err = type == JSON_ERROR ? r.err : 0;
    size_t n = (size_t)(r.at - rest->ptr);
    arena_done(&arena);
    if (err)
        return err;
    *ret = (struct str){rest->ptr, n};
    *rest = str_trim(str_skip(*rest, n));
    return 0;
}

static int documents_read(struct str bytes, span_file_fn *fn, void *arg, const char **ret_kind,
                          struct error_detail *detail)
{
    struct str rest = str_trim(bytes), document;
    int err = 0;
    while (!err && rest.len) {
        struct arena arena = ARENA_INIT;
        size_t at = (size_t)(rest.ptr - bytes.ptr);
        err = document_next(&rest, &document, detail);
        struct kind kind = err ? (struct kind){"JSON", NULL} : kind_of(document, &arena);
        arena_done(&arena);
        *ret_kind = kind.name;
        if (err)
            detail->position += at;
        else if (!kind.decode)
            err = error_set(detail, ERR_INVALID, at,
                            "expected \"resourceSpans\" (OTLP), \"data\" (Jaeger), \"traceEvents\" "
                            "(Chrome) or a list of Zipkin's spans");
        else
            err = part_read(bytes, document, kind.decode, fn, arg, detail);
    }
    return err;
}

/* A delimited file begins with a bracket when its first part has 91 or 123 bytes. */
static bool is_json(struct str bytes)
{
    struct str text = str_trim(bytes), document;
    struct error_detail none;
    if (!text.len || (text.ptr[0] != '{' && text.ptr[0] != '['))
        return false;
    return !is_delimited(bytes) || !document_next(&text, &document, &none);
}

/* ---- any ---- */

int span_file_read(struct str bytes, span_file_fn *fn, void *arg, const char **ret_kind,
                   struct error_detail *ret_detail)
{
    struct error_detail none;
    struct error_detail *detail = ret_detail ? ret_detail : &none;
    *ret_kind = NULL;
    if (!bytes.len)
        return error_set(detail, ERR_INVALID, 0, "the file is empty");
    if (is_json(bytes))
        return documents_read(bytes, fn, arg, ret_kind, detail);
    *ret_kind = "OTLP protobuf";
    return is_delimited(bytes) ? delimited_read(bytes, fn, arg, detail)
                               : part_read(bytes, bytes, otlp_decode, fn, arg, detail);
}
