/* Asking a server that runs, for the verbs that show what it has. */
#ifndef CLI_CLIENT_H
#define CLI_CLIENT_H

#include "base/buf.h"
#include "base/err.h"

#define CLIENT_SERVER_DEFAULT "http://127.0.0.1:16686"

/* GETs `server` + `path`. Returns 0 when there was an answer, of whatever status; else an error of
 * base/err.h, of which the user has been told on stderr, and what to do about it. */
MUST_USE int client_get(const char *verb, const char *server, const char *path, long *ret_status,
                        struct buf *ret_body);

/* Tells the user what an answer that is not 200 said. With `query` and a position in the answer, it
 * shows the place. */
void client_say_error(const char *verb, long status, struct str body, const char *query);

/* Appends `text` with what is not a letter or digit as %XX. */
void client_escape(struct buf *out, struct str text);

#endif
