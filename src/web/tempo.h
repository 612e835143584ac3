/* What the files of Tempo's API share. */
#ifndef WEB_TEMPO_H
#define WEB_TEMPO_H

#include "query/search.h"
#include "web/web_internal.h"

/* `start` and `end`, in seconds; the whole of the last second counts. Where `start` is absent it is
 * `fallback_ns`. False: answered with an error. */
bool tempo_range(struct web_request *q, uint64_t fallback_ns, struct search *search);

/* A value of a field as Tempo says it: kinds and statuses are words, durations text. `scratch` (of the
 * request) is for what has to be written. False: nothing that can be said. `ret_type` may be NULL. */
bool tempo_value(struct web_request *q, const struct traceql_expr *field, const struct value *value,
                 struct value *ret, const char **ret_type);

#endif
