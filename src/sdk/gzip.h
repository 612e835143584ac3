/* zlib, loaded when a configuration asks for gzip: libpugmark links only to libc. */
#ifndef SDK_GZIP_H
#define SDK_GZIP_H

#include "base/buf.h"

struct gzip;

/* ERR_UNSUPPORTED: there is no zlib on this machine; ERR_NOMEM. Never NULL on success. */
MUST_USE int gzip_new(struct gzip **ret, struct error_detail *ret_problem);
void gzip_free(struct gzip *g); /* may be NULL */
/* Appends `bytes` to `out` as one gzip member. False: no memory; then `out` is as it was. */
bool gzip_put(struct gzip *g, struct str bytes, struct buf *out);

#endif
