/* Base64 (RFC 4648): written padded in the standard alphabet, read in the standard or the URL-safe
 * one, padded or not. */
#ifndef BASE_BASE64_H
#define BASE_BASE64_H

#include "base/str.h"

#define BASE64_SIZE(n) (((n) + 2) / 3 * 4)
/* At most this many bytes come out of `n` characters. */
#define BASE64_BYTES_MAX(n) ((n) / 4 * 3 + 2)

/* Writes BASE64_SIZE(n) characters, no terminator. */
void base64_put(char *out, const uint8_t *bytes, size_t n);
/* `out` has room for BASE64_BYTES_MAX(text.len). False for anything that no encoder writes. */
bool base64_get(uint8_t *out, struct str text, size_t *ret_n);

#endif
