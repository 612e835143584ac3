/* Models: which provider for what, and again when one fails.
 *
 *   llm.router            picks providers in the order that suits the task, passing over ill ones
 *     llm.chat            one provider: a whole answer ...
 *     llm.chat_stream     ... or one that comes in pieces
 *     llm.embed, llm.extract
 *       llm.http_request  one request
 *       llm.retry         waits as the server says or longer each time, and asks again
 *
 * Conversations and tools look as in dialect.h. */
#ifndef AGENT_LLM_H
#define AGENT_LLM_H

#include "common.h"

#include <jansson.h>

#define EMBED_DIM 64

enum llm_task { LLM_TALK, LLM_CODE, LLM_PLAN, LLM_SUMMARY, LLM_SKILL };

struct llm_reply {
    char *text;
    json_t *tool_calls; /* [{"id", "name", "arguments"}]; empty when there are none */
    const char *provider;
    int64_t input_tokens, output_tokens;
};
void llm_reply_done(struct llm_reply *r);

/* `url` of the server that all providers' APIs are on. Keys are taken from AGENT_KEY. */
void llm_start(const char *url);
/* `on_text` not NULL: streamed, and called with each piece. 0, or -1 when no provider answered.
 * `ret` is the caller's: llm_reply_done(). */
int llm_chat(enum llm_task task, const json_t *messages, const json_t *tools,
             void (*on_text)(void *user, const char *text), void *user, struct llm_reply *ret);
/* Of length 1. 0 or -1. */
int llm_embed(const char *text, float ret[EMBED_DIM]);
/* What the text says, in the form of `schema` (a JSON schema with a title): a new reference, NULL
 * when there was no such answer. Takes the schema over. */
json_t *llm_extract(const char *text, json_t *schema);

#endif
