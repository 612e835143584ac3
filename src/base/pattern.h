/* Whether a whole text is as a regular expression says, in time linear in the text whatever the two
 * are. The language is that of regex.h, over characters; a byte that is not UTF-8 is compared as
 * U+FFFD, as Go's regexp does. */
#ifndef BASE_PATTERN_H
#define BASE_PATTERN_H

#include "base/err.h"
#include "base/str.h"

enum {
    PATTERN_TEXT_MAX = 4096, /* bytes of an expression */
    PATTERN_CACHE_BYTES = 256 *
                          1024, /* for states met on the way; when they are full, it begins anew */
};

struct pattern;

/* ERR_INVALID, ERR_TOO_LARGE (PATTERN_TEXT_MAX, REGEX_STEPS_MAX), ERR_NOMEM. The position is that in
 * `expression`, which is not kept. */
MUST_USE int pattern_new(struct str expression, struct pattern **ret,
                         struct error_detail *ret_detail);
void pattern_free(struct pattern *p); /* NULL is allowed */

/* Any number of threads at once. */
bool pattern_match(struct pattern *p, struct str text);

#endif
