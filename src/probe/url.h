/* What a span may say of a URL. */
#ifndef PROBE_URL_H
#define PROBE_URL_H

#include "base/str.h"

struct url {
    struct str scheme, host; /* without brackets; borrowed */
    uint16_t port;           /* the scheme's own when none is written; 0: unknown */
};

/* False: it has no scheme or no host. */
bool url_parse(struct str text, struct url *ret);

/* The URL with REDACTED for user, password and the values of query parameters that are signatures or
 * keys by the semantic conventions of OpenTelemetry (url.full). Returns the length; cut at `size`. */
size_t url_without_secrets(struct str text, char *out, size_t size);

#endif
