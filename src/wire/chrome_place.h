/* Chrome trace events for plain spans (plain.h). */
#ifndef WIRE_CHROME_PLACE_H
#define WIRE_CHROME_PLACE_H

#include "wire/chrome.h"
#include "wire/plain.h"

struct chrome_place;

/* For files of a process that says `process` of itself. To be freed with free(). NULL: no memory. */
struct chrome_place *chrome_place_new(const struct chrome_process *process,
                                      const struct plain_place *place);
/* Appends the span, as chrome_span would (a complete event). False, and nothing is appended: its values
 * are not plain ones, or have to be escaped. */
bool chrome_place_encode(const struct chrome_place *place, const struct chrome_process *process,
                         const struct plain_span *span, struct buf *out);

#endif
