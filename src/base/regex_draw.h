/* Expressions drawn at random, which POSIX understands as well: for tests. */
#ifndef BASE_REGEX_DRAW_H
#define BASE_REGEX_DRAW_H

#include <stddef.h>
#include <stdio.h>

static inline unsigned draw(unsigned *seed, unsigned n)
{
    *seed = *seed * 1103515245 + 12345;
    return (*seed >> 16) % n;
}

static inline void draw_expression(unsigned *seed, char *out, size_t *n, int depth)
{
    static const char *const atoms[] = {"a", "b", "[ab]", "[^a]", "."};
    static const char *const repeats[] = {"*", "+", "?", "{2}", "{1,2}", "{2,}"};
    unsigned parts = 1 + draw(seed, 3);
    for (unsigned i = 0; i < parts; i++) {
        if (depth && draw(seed, 3) == 0) {
            out[(*n)++] = '(';
            draw_expression(seed, out, n, depth - 1);
            out[(*n)++] = ')';
        } else {
            *n += (size_t)sprintf(out + *n, "%s", atoms[draw(seed, 5)]);
        }
        if (draw(seed, 3) == 0)
            *n += (size_t)sprintf(out + *n, "%s", repeats[draw(seed, 6)]);
        if (i + 1 < parts && draw(seed, 4) == 0)
            out[(*n)++] = '|';
    }
    out[*n] = 0;
}

#endif
