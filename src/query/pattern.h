/* The regular expressions that people write (RE2's, as in Grafana) as POSIX extended ones, which
 * the C library runs in time linear in the text. What POSIX cannot say is refused, not
 * misunderstood. */
#ifndef QUERY_PATTERN_H
#define QUERY_PATTERN_H

#include <regex.h>

#include "base/arena.h"

#define PATTERN_BYTES_MAX 4096
/* How many characters an expression may come to when its counts are written out: `(a{9}){9}` is 81.
 * The C library does write them out. */
#define PATTERN_EXPANDED_MAX 4096
/* How many alternatives that may be empty what is repeated may have, counts written out: `(a*|b*){4}` has 8.
 * The C library follows each of them from each, and its time grows with a high power of their number. */
#define PATTERN_EMPTY_WAYS_MAX 16

/* `ret_posix` lives in `arena`, is terminated, and has no anchors of its own: whoever compiles it
 * puts `^(` and `)$` around it. Matching is by bytes. The position in `ret_detail` is that in
 * `pattern`. */
MUST_USE int pattern_to_posix(struct str pattern, struct arena *arena, struct str *ret_posix,
                              struct error_detail *ret_detail);

/* Compiles what pattern_to_posix made, anchored at both ends. `regfree` it. */
MUST_USE int pattern_compile(struct str posix, regex_t *ret);
bool pattern_match(const regex_t *regex, struct str text);

#endif
