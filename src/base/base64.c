#include "base/base64.h"

void base64_put(char *out, const uint8_t *bytes, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t i = 0;
    for (; n - i >= 3; i += 3) {
        uint32_t w = (uint32_t)bytes[i] << 16 | (uint32_t)bytes[i + 1] << 8 | bytes[i + 2];
        *out++ = digits[w >> 18];
        *out++ = digits[w >> 12 & 63];
        *out++ = digits[w >> 6 & 63];
        *out++ = digits[w & 63];
    }
    if (n - i == 1) {
        *out++ = digits[bytes[i] >> 2];
        *out++ = digits[(bytes[i] & 3) << 4];
        *out++ = '=';
        *out++ = '=';
    } else if (n - i == 2) {
        *out++ = digits[bytes[i] >> 2];
        *out++ = digits[(bytes[i] & 3) << 4 | bytes[i + 1] >> 4];
        *out++ = digits[(bytes[i + 1] & 15) << 2];
        *out++ = '=';
    }
}

static int digit(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    if (c == '+' || c == '-')
        return 62;
    return c == '/' || c == '_' ? 63 : -1;
}

bool base64_get(uint8_t *out, struct str text, size_t *ret_n)
{
    /* Padding completes a group of four or is not there at all. */
    if (text.len % 4 == 0) {
        for (int i = 0; i < 2 && text.len && text.ptr[text.len - 1] == '='; i++)
            text.len--;
    }
    if (text.len % 4 == 1)
        return false;
    size_t n = 0;
    uint32_t w = 0;
    unsigned bits = 0;
    for (size_t i = 0; i < text.len; i++) {
        int d = digit(text.ptr[i]);
        if (d < 0)
            return false;
        w = w << 6 | (uint32_t)d;
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            out[n++] = (uint8_t)(w >> bits);
            w &= (UINT32_C(1) << bits) - 1;
        }
    }
    if (w != 0) /* left-over bits that an encoder leaves zero */
        return false;
    *ret_n = n;
    return true;
}
