/* Error codes: one table gives code, name and text.
 *
 * Functions return 0 or one of these (negative). Parsers, configuration and queries also fill an
 * `error_detail` when the caller passes one: what was wrong, and where in the input. */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include <stddef.h>

#define ERR_MAP(X)                                                                                 \
    X(ERR_NOMEM, -1, "out of memory")                                                              \
    X(ERR_INVALID, -2, "invalid value")                                                            \
    X(ERR_TRUNCATED, -3, "the input ends too early")                                               \
    X(ERR_TOO_LARGE, -4, "over a configured limit")                                                \
    X(ERR_IO, -5, "input or output failed")                                                        \
    X(ERR_FULL, -6, "no space left")                                                               \
    X(ERR_CORRUPT, -7, "checksum or structure is damaged")                                         \
    X(ERR_BUSY, -8, "held by somebody else")                                                       \
    X(ERR_NOT_FOUND, -9, "not found")                                                              \
    X(ERR_UNSUPPORTED, -10, "not supported")                                                       \
    X(ERR_CLOSED, -11, "closed")                                                                   \
    X(ERR_TIMEOUT, -12, "took too long")                                                           \
    X(ERR_EXISTS, -13, "exists already")                                                           \
    X(ERR_EMPTY, -14, "nothing is there")

enum err {
    ERR_OK = 0,
#define X(name, code, text) name = code,
    ERR_MAP(X)
#undef X
};

#define MUST_USE __attribute__((warn_unused_result))
#define PRINTF_LIKE(at, first) __attribute__((format(printf, at, first)))

const char *err_text(int err);
const char *err_name(int err);

/* The code of an errno value: ENOSPC and EDQUOT are ERR_FULL, ENOENT is ERR_NOT_FOUND, ... */
int err_from_errno(int errno_value);

struct error_detail {
    int code;
    size_t position; /* byte offset in the input, where that has a meaning */
    char message[200];
};

/* Fills `detail` (which may be NULL) and returns `code`, so that a parser can say
 * `return error_set(detail, ERR_INVALID, pos, "expected a number")`. */
int error_set(struct error_detail *detail, int code, size_t position, const char *format, ...)
    PRINTF_LIKE(4, 5);

/* The static analyzer reads one file at a time: tell it what comes back. */
#ifdef __clang_analyzer__
#define error_set(detail, code, ...) ((void)(detail), (code))
#endif

#endif
