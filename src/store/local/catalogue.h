/* The catalogue: which segments there are, and which log records they cover. A SQLite database, so
 * that a segment is published and the log advanced in one transaction. Used by one thread at a
 * time. */
#ifndef STORE_LOCAL_CATALOGUE_H
#define STORE_LOCAL_CATALOGUE_H

#include "base/err.h"
#include "store/local/segment.h"

struct catalogue;

/* ERR_UNSUPPORTED: written by a newer version; ERR_CORRUPT; ERR_IO. */
MUST_USE int catalogue_open(const char *dir, bool sync, struct catalogue **ret,
                            struct error_detail *ret_detail);
void catalogue_close(struct catalogue *c); /* NULL is allowed */

/* Oldest first. A non-zero return of `fn` ends it. */
typedef int catalogue_segment_fn(void *arg, const struct segment_info *info);
MUST_USE int catalogue_load(struct catalogue *c, uint64_t *ret_sealed, catalogue_segment_fn *fn,
                            void *arg);
/* Adds the segment and sets what is sealed: both or neither. */
MUST_USE int catalogue_publish(struct catalogue *c, const struct segment_info *info,
                               uint64_t sealed);
/* The last SQLite error, for a person. */
const char *catalogue_error(const struct catalogue *c);

#endif
