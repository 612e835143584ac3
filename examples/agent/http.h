/* The client's side of HTTP, by libcurl. The trace goes along in the headers. */
#ifndef AGENT_HTTP_H
#define AGENT_HTTP_H

#include "common.h"

#include <jansson.h>

struct http_call {
    const char *method;         /* NULL: POST when there is a body, else GET */
    const char *url;            /* only http://127.0.0.1:PORT/...: this example stays at home */
    const char *const *headers; /* "Name: value", ending with NULL; NULL: none */
    const char *body;           /* JSON; NULL: none */
    int timeout_ms;             /* 0: five seconds */
    /* Given each piece of a 200's body as it comes (which is then not gathered); false ends it. */
    bool (*piece)(void *user, const char *bytes, size_t n);
    void *user;
};
struct http_answer {
    int status;        /* 0: there was none */
    const char *error; /* what went wrong then, one of libcurl's constants */
    struct text body;
    long retry_after_ms; /* -1: the server did not say */
};
/* 0 when there was an answer, whatever its status. `ret` is the caller's: http_done(). */
int http_call(const struct http_call *call, struct http_answer *ret);
void http_done(struct http_answer *a);
/* Closes the calling thread's connections; of threads that end it happens by itself. */
void http_stop(void);
/* The answer's body when its status is 200 and it is JSON: a new reference; else NULL. */
json_t *http_json(const struct http_answer *a);
/* Of the URL, for attributes: the path without its query, and the port. */
void http_url_parts(const char *url, char *path, size_t size, int *ret_port);

#endif
