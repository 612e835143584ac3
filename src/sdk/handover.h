/* What is current on a thread beside its trace: baggage and request id; and how all of it is handed
 * over to another thread.
 *
 * The store of captures is one ring of words for the process. A capture takes a stretch of it by adding
 * to `head` and writes there; its place is the value `head` had, which never comes again:
 *
 *     word 0     the place (release: written last, so that who finds it finds the rest)
 *     then       tracestate, baggage, request id, each padded to words
 *
 * A reader copies and then looks at `head`: as long as it has not gone once around since, nobody can
 * have begun to write there. */
#ifndef SDK_HANDOVER_H
#define SDK_HANDOVER_H

#include "base/str.h"
#include "pugmark/capture.h"
#include "pugmark/request_id.h"

/* The baggage that is current, as header text: of the program, or copied into `buffer`. STR_NONE when
 * there is none. */
struct str ambient_baggage(char buffer[PUG_BAGGAGE_BYTES_MAX + 1]);
/* The same for the request id. Both are terminated. */
struct str ambient_request_id(char buffer[PUG_REQUEST_ID_MAX + 1]);

/* The headers of what is current; `formats`: enum propagator. */
void ambient_inject(unsigned formats, pug_carrier_set *set, void *carrier);

/* How many captures were resumed without what they had brought. */
uint64_t captures_lost(void);

/* The id out of the carrier, or STR_NONE; it is within the limits. */
struct str request_id_accept(pug_carrier_get *get, void *carrier);
bool request_id_is_valid(struct str id);

/* What of `text` is a baggage; within the limits. baggage.c */
void baggage_add_header(struct pug_baggage *baggage, struct str text);
/* uberctx-KEY: value for each member. */
void baggage_inject_jaeger(struct str text, pug_carrier_set *set, void *carrier);

#endif
