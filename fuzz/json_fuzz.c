/* Reads a document, writes it again from the tokens, and reads that: both must have the same
 * tokens. Numbers and bytes are read in every form they have. */
#include "base/base64.h"
#include "base/json.h"

#include <math.h>
#include <stdlib.h>

#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

static void write_number(struct json_writer *w, const struct json_reader *r)
{
    double d;
    int64_t i;
    uint64_t u;
    if (json_to_double(r, &d))
        MUST(isfinite(d));
    if (json_to_i64(r, &i) && json_to_u64(r, &u))
        MUST((uint64_t)i == u);
    json_raw(w, r->text);
}

static void write_string(struct json_writer *w, const struct json_reader *r, struct arena *arena)
{
    double d;
    uint64_t u;
    size_t n = 0;
    (void)json_to_double(r, &d);
    (void)json_to_u64(r, &u);
    uint8_t *bytes = arena_alloc(arena, BASE64_BYTES_MAX(r->text.len));
    MUST(bytes);
    if (base64_get(bytes, r->text, &n))
        MUST(n <= BASE64_BYTES_MAX(r->text.len));
    json_str(w, r->text);
}

/* Returns whether the whole input is one document, with it written to `out`. */
static bool rewrite(struct str input, struct arena *arena, struct buf *out)
{
    struct error_detail detail;
    struct json_reader r;
    struct json_writer w = json_writer(out);
    json_reader_init(&r, input, arena, &detail);
    for (;;) {
        switch (json_next(&r)) {
        case JSON_ERROR:
            MUST(r.err < 0 && detail.code == r.err && detail.position <= input.len);
            return false;
        case JSON_END:
            return true;
        case JSON_OBJECT:
            json_open(&w, '{');
            break;
        case JSON_OBJECT_END:
            json_close(&w, '}');
            break;
        case JSON_ARRAY:
            json_open(&w, '[');
            break;
        case JSON_ARRAY_END:
            json_close(&w, ']');
            break;
        case JSON_KEY:
            MUST(str_is_utf8(r.text));
            json_key(&w, r.text);
            break;
        case JSON_STRING:
            MUST(r.text.len == 0 || str_is_utf8(r.text));
            write_string(&w, &r, arena);
            break;
        case JSON_NUMBER:
            write_number(&w, &r);
            break;
        case JSON_TRUE:
        case JSON_FALSE:
            json_bool(&w, r.type == JSON_TRUE);
            break;
        case JSON_NULL:
            json_null(&w);
            break;
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena arena = ARENA_INIT;
    struct buf once = BUF_INIT, twice = BUF_INIT;
    if (rewrite((struct str){(const char *)data, size}, &arena, &once)) {
        MUST(buf_ok(&once));
        MUST(rewrite(buf_as_str(&once), &arena, &twice));
        MUST(str_eq(buf_as_str(&once), buf_as_str(&twice)));
        struct json_reader r;
        json_reader_init(&r, buf_as_str(&once), &arena, NULL);
        json_next(&r);
        MUST(json_skip(&r) != JSON_ERROR && json_next(&r) == JSON_END);
    }
    buf_done(&once);
    buf_done(&twice);
    arena_done(&arena);
    return 0;
}
