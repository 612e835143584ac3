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

/* The same for a POST of `body`. */
MUST_USE int client_post(const char *verb, const char *server, const char *path,
                         const char *content_type, struct str body, long *ret_status,
                         struct buf *ret_body);

/* An answer without an end, as it comes. `take` and `wants` say whether to go on. */
struct client_stream {
    bool (*take)(void *arg, struct str bytes);
    bool (*wants)(void *arg); /* asked about once a second */
    void *arg;
};
/* GETs it until the server ends it, the connection is silent for CLIENT_SILENCE_S, or enough has come. Bytes of an
 * answer that is not 200 go to `ret_body`. Errors as of client_get, but with `quiet` the user is not told. */
#define CLIENT_SILENCE_S 10
MUST_USE int client_stream(const char *verb, const char *server, const char *path,
                           const struct client_stream *stream, bool quiet, long *ret_status,
                           struct buf *ret_body);

/* Tells the user what an answer that is not 200 said. With `query` and a position in the answer, it
 * shows the place. */
void client_say_error(const char *verb, long status, struct str body, const char *query);

/* Appends `text` with what is not a letter or digit as %XX. */
void client_escape(struct buf *out, struct str text);

#endif
