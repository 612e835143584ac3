/* Regular expressions as programs: what `matcher.h` (finds them in a text) and `pattern.h` (compares
 * a whole text) run. Inside src/base only. The language is RE2's:
 *
 *     abc  .  [a-z_]  [^x]  \d \w \s \D \W \S and [:alpha:] in [ ]
 *     ( )  (?: )  (?P<name> )  |  *  +  ?  {2}  {2,}  {2,5}
 *     ^ \A  $ \z   start and end of the text        \b \B   border of a word, and no border
 *     (?i) (?s) (?is-i: )   without regard to case (ASCII); . takes newlines
 *     \n \r \t \f \v \a \x41 \x{1F43E} \101, \Q...\E, a backslash before what is no letter or digit
 *
 * Refused, with the position: back references, look-around, \p, (?m), \C.
 *
 * Source: github.com/google/re2, doc/syntax.txt; the program is Thompson's (CACM 1968). */
#ifndef BASE_REGEX_H
#define BASE_REGEX_H

#include "base/arena.h"

enum {
    REGEX_STEPS_MAX = 16384, /* counts are written out; also the most that a caller may allow */
    REGEX_GROUPS_MAX = 64,   /* in each other */
    REGEX_COUNT_MAX = 1000,
};

enum regex_op {
    REGEX_SET,    /* takes a byte that is in set `a` */
    REGEX_SPLIT,  /* goes on at `a` and at `b` */
    REGEX_JUMP,   /* goes on at `a` */
    REGEX_START,  /* the assertions: go on if they hold here */
    REGEX_END,    /* */
    REGEX_BORDER, /* */
    REGEX_INSIDE, /* no border */
    REGEX_MATCH,
};

/* Jumps are relative, so that a piece can be moved and copied as it stands. */
struct regex_step {
    uint8_t op;
    int32_t a, b;
};

struct regex_set {
    uint64_t bits[4];
};

struct regex {
    struct regex_step *steps;
    struct regex_set *sets;
    size_t n, n_sets;
};

/* A search compares bytes, whatever they are, and takes the longest match, so that "lazy"
 * repetitions are refused. To compare the whole of a text, which must be UTF-8 then, it is
 * characters that `.` and [ ] mean, and how greedy a repetition is makes no difference. */
enum regex_kind { REGEX_SEARCH, REGEX_WHOLE };

/* Lives in `arena`. ERR_INVALID, ERR_TOO_LARGE, ERR_NOMEM; the position is that in `text`. */
MUST_USE int regex_compile(struct str text, enum regex_kind kind, size_t steps_max,
                           struct arena *arena, struct regex *ret, struct error_detail *ret_detail);

static inline bool regex_set_has(const struct regex_set *s, unsigned char b)
{
    return s->bits[b >> 6] >> (b & 63) & 1;
}
static inline bool regex_is_word(unsigned char c)
{
    return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || c == '_';
}
/* Whether an assertion holds between two bytes; -1: there is none, the text begins or ends. */
static inline bool regex_holds(enum regex_op op, int before, int after)
{
    bool border = (before >= 0 && regex_is_word((unsigned char)before)) !=
                  (after >= 0 && regex_is_word((unsigned char)after));
    return op == REGEX_START ? before < 0
           : op == REGEX_END ? after < 0
                             : border == (op == REGEX_BORDER);
}

#endif
