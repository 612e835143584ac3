/* What the files of the library know of spans beyond the public header. */
#ifndef SDK_SPAN_H
#define SDK_SPAN_H

#include "sdk/lane.h"

/* As pug_context_current, into the caller's struct. */
void span_current_context(struct pug_context *ret_context);
/* False: span_current_context would say that there is none. True: ask it. */
bool span_has_context(void);
/* Of an open slot of the calling thread's lane; none for its base. */
void span_slot_context(const struct lane *lane, const struct pug__slot *slot,
                       struct pug_context *ret);
/* None: everything but the bytes of the tracestate is zero. */
void span_context_clear(struct pug_context *context);

#endif
