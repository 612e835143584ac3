/* The server's side of HTTP, by libmicrohttpd, for the stand-ins: JSON in, JSON out, also in pieces. */
#ifndef AGENT_SERVE_H
#define AGENT_SERVE_H

#include "common.h"

#include <jansson.h>
#include <pugmark/pugmark.h>

struct served {
    const char *method, *path;
    json_t *json;              /* the body; NULL when there is none or it is not JSON */
    struct pug_context caller; /* what came in the headers */
    void *connection;
    /* the answer */
    int status;       /* 200 */
    const char *type; /* application/json */
    struct text body;
    bool in_pieces;      /* chunked: one piece for each empty line, or line when there are none */
    long retry_after_ms; /* 0: not said */
};
/* "" when there is none. */
const char *served_header(const struct served *s, const char *name);
const char *served_query(const struct served *s, const char *name);
/* Takes the object over. */
void served_json(struct served *s, json_t *object);
void served_error(struct served *s, int status, const char *message);

/* On a free port of 127.0.0.1; each connection has its thread, in which `handle` is called. Dies
 * when it cannot. */
uint16_t serve_start(void (*handle)(struct served *s));
/* Answers what is under way. */
void serve_stop(void);

#endif
