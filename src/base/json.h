/* JSON in both directions: a writer onto a `buf`, and a pull reader that allocates only for strings
 * with escapes. RFC 8259; strings must be valid UTF-8. An escape of half a surrogate pair, which
 * JavaScript writes for half a character, is read as U+FFFD. */
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include "base/arena.h"
#include "base/buf.h"

/* ---- writer: commas and colons are its business, nesting is the caller's ---- */

struct json_writer {
    struct buf *out;
    bool comma; /* a value stands before the next one on this level */
};

static inline struct json_writer json_writer(struct buf *out)
{
    return (struct json_writer){.out = out};
}

void json_open(struct json_writer *w, char bracket);  /* '{' or '[' */
void json_close(struct json_writer *w, char bracket); /* '}' or ']' */
void json_key(struct json_writer *w, struct str key);
void json_str(struct json_writer *w, struct str s); /* invalid UTF-8 becomes U+FFFD */
void json_u64(struct json_writer *w, uint64_t n);
void json_i64(struct json_writer *w, int64_t n);
void json_u64_str(struct json_writer *w, uint64_t n); /* "123": what JavaScript cannot hold */
void json_i64_str(struct json_writer *w, int64_t n);
void json_double(struct json_writer *w,
                 double d); /* shortest that reads back; not finite: "NaN", "Infinity", "-Infinity"
                               as strings, as proto3 JSON has it */
void json_bool(struct json_writer *w, bool b);
void json_null(struct json_writer *w);
void json_hex(struct json_writer *w, const uint8_t *bytes, size_t n);
void json_base64(struct json_writer *w, const uint8_t *bytes, size_t n);
void json_raw(struct json_writer *w, struct str json); /* one complete value */

/* A string, a number alone, for who writes the commas and keys as constants. */
void json_text_str(struct buf *out, struct str s);
void json_text_u64(struct buf *out, uint64_t n);
/* Where there is room for 20 digits; returns past them. */
char *json_write_u64(char *out, uint64_t n);

/* ---- pull reader ---- */

/* One level of an OTLP map costs four of JSON: VALUE_DEPTH_MAX of them have to fit. */
#define JSON_DEPTH_MAX 256

enum json_type {
    JSON_ERROR = 0,
    JSON_END,    /* of the input, after one complete value */
    JSON_OBJECT, /* '{' */
    JSON_OBJECT_END,
    JSON_ARRAY, /* '[' */
    JSON_ARRAY_END,
    JSON_KEY,    /* `text` is the key */
    JSON_STRING, /* `text` is the string, unescaped */
    JSON_NUMBER, /* `text` is the literal */
    JSON_TRUE,
    JSON_FALSE,
    JSON_NULL,
};

struct json_reader {
    const char *start, *at, *end;
    const char *token;           /* where the token read last begins */
    struct arena *arena;         /* for strings with escapes; others borrow from the input */
    struct error_detail *detail; /* may be NULL */
    enum json_type type;         /* of the token read last */
    struct str text;
    int err; /* after JSON_ERROR: ERR_INVALID, ERR_TRUNCATED, ERR_TOO_LARGE (depth), ERR_NOMEM */
    /* inside */
    int depth;
    uint8_t state;
    uint64_t is_object[JSON_DEPTH_MAX / 64]; /* one bit a level */
};

void json_reader_init(struct json_reader *r, struct str input, struct arena *arena,
                      struct error_detail *ret_detail);
/* The next token. After JSON_ERROR or JSON_END it returns the same again. */
enum json_type json_next(struct json_reader *r);
/* After JSON_OBJECT, JSON_ARRAY or JSON_KEY was read: passes over the whole value and returns its
 * last token, or JSON_ERROR. */
enum json_type json_skip(struct json_reader *r);
/* As json_skip, and gives the JSON of the value, which is part of the input; STR_NONE after an error. */
struct str json_skip_text(struct json_reader *r);
/* Makes the reader fail at the current token with what the caller expected; returns JSON_ERROR. */
enum json_type json_fail(struct json_reader *r, const char *expected);
/* The same with a code and words of the caller's. */
enum json_type json_fail_with(struct json_reader *r, int err, const char *message);

/* Of the token read last; `ret` is written on success only. Whole numbers may be spelled 1.0 and
 * 1e3, as proto3 JSON allows. */
bool json_to_i64(const struct json_reader *r, int64_t *ret); /* number or string of digits */
bool json_to_u64(const struct json_reader *r, uint64_t *ret);
bool json_to_double(const struct json_reader *r, double *ret); /* also "NaN" and the infinities */

#endif
