/* Secrets come from a provider, never from the configuration file:
 *
 *     environment   the variable of that name
 *     file          the file of that name in a directory (systemd's credentials, Kubernetes' mounts)
 *     command       what a program prints, run without a shell, with the name as last argument
 *     vault         HashiCorp Vault, key/value engine version 2, over HTTP
 *
 * They are got once, at start, in the thread that calls pug_start(), with a deadline. They never get
 * into an attribute, a message or a core file longer than needed: what held them on the way is
 * zeroed. Messages name the secret and the place, not what was found there. */
#ifndef SDK_SECRET_H
#define SDK_SECRET_H

#include "base/buf.h"
#include "sdk/settings.h"

enum {
    SECRET_BYTES_MAX = 64 << 10,
    SECRET_HEADERS_MAX = 32,
    SECRET_ANSWER_MAX = 256 << 10, /* of Vault: all keys of the path are in it */
};

/* The text of the secret `name`. `ret` is an empty buf; on success the caller passes it to
 * secret_free(). ERR_NOT_FOUND: there is none; ERR_TIMEOUT; others with words. */
MUST_USE int secret_get(const struct settings *s, const char *name, struct buf *ret,
                        struct error_detail *ret_detail);
void secret_free(struct buf *secret); /* zeroes it */

/* {"name": "value", ...} as "name=value,..." with percent-encoded values, into `out`. ERR_INVALID
 * with words that do not show a value. */
MUST_USE int secret_to_headers(struct str json, struct buf *out, struct error_detail *ret_detail);

/* The providers, each in a file of its own. */
MUST_USE int secret_from_command(const struct settings *s, const char *name, uint64_t deadline_ns,
                                 struct buf *ret, struct error_detail *ret_detail);
MUST_USE int secret_from_vault(const struct settings *s, const char *name, uint64_t deadline_ns,
                               struct buf *ret, struct error_detail *ret_detail);
/* A regular file of at most SECRET_BYTES_MAX; line ends at its end are cut off. */
MUST_USE int secret_read_file(const char *path, struct buf *ret, struct error_detail *ret_detail);

#endif
