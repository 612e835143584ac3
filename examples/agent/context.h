/* What a model is told: the conversation, and in front of it what may be of use for the question. */
#ifndef AGENT_CONTEXT_H
#define AGENT_CONTEXT_H

#include "common.h"

#include <jansson.h>

struct context {
    json_t *messages;  /* as in dialect.h; the caller's */
    const char *skill; /* the one that is followed; NULL: none */
    bool code;         /* it is about code */
    size_t tokens;
};

/* `history` is the session's: [{"id", "role", "content"}], the question last. When it is too long its
 * oldest messages become a summary and are taken out of it. */
void context_assemble(const char *session, json_t *history, const char *query, struct context *ret);
/* Shortens the oldest tool results of a turn when they are too long together. */
void context_microcompact(json_t *messages);

#endif
