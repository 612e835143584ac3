/* Where a search goes on, as text that callers hand back as it was. */
#ifndef WEB_CURSOR_H
#define WEB_CURSOR_H

#include "query/search.h"

/* Also keeps the time range of the first page: the last hour would be another one by then. */
struct cursor {
    uint64_t start_min_ns, start_max_ns;
    struct search_place place;
};

#define CURSOR_TEXT_LEN 96

/* `question`: a hash of what the search asks besides its time. */
void cursor_put(char text[CURSOR_TEXT_LEN], const struct cursor *cursor, uint64_t question);
/* False: it is none, or one of another question. */
bool cursor_get(struct cursor *ret, struct str text, uint64_t question);

#endif
