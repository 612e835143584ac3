/* How each provider wants to be asked, and how it answers: five shapes of the same conversation.
 *
 * A conversation is a JSON array of {"role": "system"|"user"|"assistant"|"tool", "content": text};
 * an assistant's message may have "tool_calls": [{"id", "name", "arguments": {}}], a tool's has
 * "tool_call_id" and "name". Tools are [{"name", "description", "parameters": JSON schema}]. */
#ifndef AGENT_DIALECT_H
#define AGENT_DIALECT_H

#include "common.h"

#include <jansson.h>

#define CALLS_MAX 8 /* tool calls in one answer */

/* An answer while it is read, whole or piece by piece. */
struct reading {
    struct text text;
    struct {
        char id[64], name[64];
        struct text arguments; /* JSON */
    } calls[CALLS_MAX];
    size_t n_calls;
    int64_t input_tokens, output_tokens;
    char model[64], finish[32];
    void (*on_text)(void *user, const char *text); /* NULL: nobody watches */
    void *user;
};
void reading_done(struct reading *r);

struct dialect {
    const char *name;     /* "claude" */
    const char *provider; /* gen_ai.provider.name */
    const char *model;
    const char *chat_path, *stream_path; /* with the model where it belongs there */
    const char *key_header;              /* with what stands before the key; NULL: it wants none */
    const char *extra_header;            /* NULL: none */
    /* The request for a chat; `tools`, `schema` (what the answer must be like) may be NULL. */
    json_t *(*request)(const struct dialect *d, const json_t *messages, const json_t *tools,
                       const json_t *schema, bool stream);
    /* One JSON object that came: the whole answer, or an event of the stream. */
    void (*take)(struct reading *r, const json_t *object);
};

enum { CLAUDE, OPENAI, OLLAMA, GEMINI, COMPATIBLE, N_DIALECTS };
extern const struct dialect dialects[N_DIALECTS];

#endif
