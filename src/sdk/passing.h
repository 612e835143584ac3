/* Traces that pass through a program whose tracing is off: what is attached there is current, as it came, for whatever goes
 * out meanwhile. Nothing is recorded, and spans stay what they cost when tracing is off.
 *
 * There are no lanes then. The contexts lie in a table of the library's that all threads share (PASSING_MAX of them; what finds
 * no room is not passed on), taken and given back without a lock, and a thread knows the innermost of its own. A scope that
 * never ends (its thread was cancelled inside) keeps its place. */
#ifndef SDK_PASSING_H
#define SDK_PASSING_H

#include <stdbool.h>

#include "pugmark/pugmark.h"

#define PASSING_MAX 1024

/* Copies the context. NULL: it is none, or there is no room. What is returned is no slot but says which it is. */
struct pug__slot *passing_attach(const struct pug_context *context);
/* False: it is none of ours. Ends what was attached inside it too. */
bool passing_detach(const struct pug__slot *slot);
/* The innermost of this thread, or NULL. */
const struct pug_context *passing_current(void);

#endif
