/* A growing byte buffer. Failure is sticky: after the first append that did not fit or found no
 * memory, later appends do nothing, and `buf_ok` says so once at the end. */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include "base/err.h"
#include "base/str.h"

struct buf {
    char *ptr;
    size_t len, cap;
    size_t bytes_max; /* 0: no limit */
    bool failed;
};

#define BUF_INIT ((struct buf){0})

void buf_done(struct buf *b);  /* frees; the struct may be used again */
void buf_clear(struct buf *b); /* keeps the memory, forgets the failure */
bool buf_grow(struct buf *b, size_t more);
/* Room for `more` bytes after len. */
static inline bool buf_reserve(struct buf *b, size_t more)
{
    return (!b->failed && more <= b->cap - b->len) || buf_grow(b, more);
}
void buf_put_slow(struct buf *b, const void *bytes, size_t n);
void buf_printf(struct buf *b, const char *format, ...) PRINTF_LIKE(2, 3);

static inline bool buf_ok(const struct buf *b)
{
    return !b->failed;
}
static inline void buf_put(struct buf *b, const void *bytes, size_t n)
{
    if (n == 0 || n > b->cap - b->len || b->failed) {
        buf_put_slow(b, bytes, n);
        return;
    }
    memcpy(b->ptr + b->len, bytes, n);
    b->len += n;
}
static inline void buf_str(struct buf *b, struct str s)
{
    buf_put(b, s.ptr, s.len);
}
static inline void buf_cstr(struct buf *b, const char *s)
{
    buf_put(b, s, strlen(s));
}
static inline void buf_byte(struct buf *b, char c)
{
    if (b->len < b->cap && !b->failed)
        b->ptr[b->len++] = c;
    else
        buf_put(b, &c, 1);
}
static inline struct str buf_as_str(const struct buf *b)
{
    return (struct str){b->ptr, b->len};
}

/* The bytes become the caller's, to be freed with free(); the buffer is empty afterwards. */
char *buf_detach(struct buf *b, size_t *ret_len);

#endif
