/* Strategies of sampling as they hold now: sampling.c. Thread-safe. */
#ifndef WEB_SAMPLING_H
#define WEB_SAMPLING_H

#include "web/strategies.h"
#include "web/web_internal.h"

struct sampling;

/* `path` NULL: everything is kept. A file that is wrong is an error here; later it is not taken. */
MUST_USE int sampling_new(const char *path, struct sampling **ret, struct error_detail *ret_detail);
void sampling_free(struct sampling *s); /* NULL is allowed */
/* For a service, as JSON or protobuf. */
void sampling_answer(struct sampling *s, struct str service, bool protobuf, struct buf *out);

#endif
