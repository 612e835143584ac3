/* Finds what a regular expression says, in time linear in the text, and in memory that is known when
 * the expression is compiled. The leftmost match, and of those the longest, as in POSIX.
 *
 * The language is that of regex.h. Bytes are compared; a match is widened to whole UTF-8 characters.
 * Not supported, and refused: lazy repetition, non-ASCII inside [ ]. An expression that matches the
 * empty text is refused, for it matches everywhere.
 *
 * Source: the simulation of all states at once is Thompson's (CACM 1968). */
#ifndef BASE_MATCHER_H
#define BASE_MATCHER_H

#include "base/arena.h"

enum {
    MATCHER_TEXT_MAX = 1024,  /* bytes of an expression */
    MATCHER_STEPS_MAX = 1024, /* of the compiled one: counts are written out */
};

struct matcher;

/* Lives in `arena`. The position in `ret_detail` is that in the expression. */
MUST_USE int matcher_new(struct str expression, struct arena *arena, struct matcher **ret,
                         struct error_detail *ret_detail);

/* The first match at `from` or later: [*ret_start, *ret_end), never empty. `budget` bounds the work
 * of several calls on one text: each costs about a unit a byte and a live state. When it runs out
 * the answer is MATCHER_TIRED: there may be a match. Not for two threads at once (it has scratch
 * memory in the matcher). */
enum matcher_answer { MATCHER_NO, MATCHER_YES, MATCHER_TIRED };
enum matcher_answer matcher_find(struct matcher *m, struct str text, size_t from, size_t *ret_start,
                                 size_t *ret_end, uint64_t *budget);
/* What the budget for a text is: enough for one pass with every state alive, eight times. */
uint64_t matcher_budget(const struct matcher *m, size_t len);

#endif
