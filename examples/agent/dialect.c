/* Only what an agent needs of each API. Facts: Anthropic Messages API (2023-06-01), OpenAI Chat
 * Completions, Ollama's api.md, Gemini API v1beta generateContent. */
#include "dialect.h"

#include <stdio.h>
#include <string.h>

static const char *string_at(const json_t *object, const char *key)
{
    const char *s = json_string_value(json_object_get(object, key));
    return s ? s : "";
}

void reading_done(struct reading *r)
{
    text_done(&r->text);
    for (size_t i = 0; i < CALLS_MAX; i++)
        text_done(&r->calls[i].arguments);
}

static void read_text(struct reading *r, const char *text)
{
    if (!text || !*text)
        return;
    text_add(&r->text, text);
    if (r->on_text)
        r->on_text(r->user, text);
}

static void read_call(struct reading *r, const char *id, const char *name, const json_t *arguments)
{
    if (r->n_calls >= CALLS_MAX)
        return;
    size_t i = r->n_calls++;
    if (id && *id)
        snprintf(r->calls[i].id, sizeof r->calls[i].id, "%s", id);
    else /* some providers number nothing */
        snprintf(r->calls[i].id, sizeof r->calls[i].id, "call_%zu", i);
    snprintf(r->calls[i].name, sizeof r->calls[i].name, "%s", name);
    if (arguments) {
        AUTO_FREE char *text = need(json_dumps(arguments, JSON_COMPACT));
        text_add(&r->calls[i].arguments, text);
    }
}

static void read_count(int64_t *count, const json_t *usage, const char *key)
{
    const json_t *n = json_object_get(usage, key);
    if (json_is_integer(n))
        *count = json_integer_value(n);
}

static void read_word(char *to, size_t size, const json_t *object, const char *key)
{
    if (json_is_string(json_object_get(object, key)))
        snprintf(to, size, "%s", string_at(object, key));
}

/* The system's messages go elsewhere in two of the five. */
static json_t *system_text(const json_t *messages)
{
    struct text all = {0};
    size_t i;
    json_t *m;
    json_array_foreach(messages, i, m)
    {
        if (strcmp(string_at(m, "role"), "system") == 0)
            text_addf(&all, "%s%s", all.len ? "\n\n" : "", string_at(m, "content"));
    }
    json_t *text = json_string(text_of(&all));
    text_done(&all);
    return text;
}

/* ---- Claude ---- */

static json_t *claude_message(const json_t *m)
{
    const char *role = string_at(m, "role");
    json_t *blocks = json_array(), *call;
    size_t i;
    if (strcmp(role, "tool") == 0) {
        json_array_append_new(blocks, json_pack("{s:s, s:O, s:O}", "type", "tool_result",
                                                "tool_use_id", json_object_get(m, "tool_call_id"),
                                                "content", json_object_get(m, "content")));
        role = "user";
    } else if (*string_at(m, "content")) {
        json_array_append_new(
            blocks, json_pack("{s:s, s:O}", "type", "text", "text", json_object_get(m, "content")));
    }
    json_array_foreach(json_object_get(m, "tool_calls"), i, call)
    {
        json_array_append_new(blocks, json_pack("{s:s, s:O, s:O, s:O}", "type", "tool_use", "id",
                                                json_object_get(call, "id"), "name",
                                                json_object_get(call, "name"), "input",
                                                json_object_get(call, "arguments")));
    }
    return json_pack("{s:s, s:o}", "role", role, "content", blocks);
}

static json_t *claude_request(const struct dialect *d, const json_t *messages, const json_t *tools,
                              const json_t *schema, bool stream)
{
    (void)schema; /* it has no such thing: the router asks others */
    json_t *list = json_array(), *all = json_array(), *m, *tool;
    size_t i;
    json_array_foreach(messages, i, m)
    {
        if (strcmp(string_at(m, "role"), "system") == 0)
            continue;
        json_t *message = claude_message(m),
               *last = json_array_get(list, json_array_size(list) - 1);
        if (last && strcmp(string_at(last, "role"), string_at(message, "role")) == 0) {
            json_array_extend(json_object_get(last, "content"),
                              json_object_get(message, "content"));
            json_decref(message); /* turns must alternate */
        } else {
            json_array_append_new(list, message);
        }
    }
    json_array_foreach(tools, i, tool)
    {
        json_array_append_new(all,
                              json_pack("{s:O, s:O, s:O}", "name", json_object_get(tool, "name"),
                                        "description", json_object_get(tool, "description"),
                                        "input_schema", json_object_get(tool, "parameters")));
    }
    return json_pack("{s:s, s:i, s:b, s:o, s:o, s:o}", "model", d->model, "max_tokens", 1024,
                     "stream", stream, "system", system_text(messages), "messages", list, "tools",
                     all);
}

static void claude_block(struct reading *r, const json_t *block, bool whole)
{
    if (strcmp(string_at(block, "type"), "tool_use") == 0)
        read_call(r, string_at(block, "id"), string_at(block, "name"),
                  whole ? json_object_get(block, "input") : NULL);
    else
        read_text(r, string_at(block, "text"));
}

static void claude_take(struct reading *r, const json_t *o)
{
    const char *type = string_at(o, "type");
    const json_t *message = strcmp(type, "message_start") == 0 ? json_object_get(o, "message") : o;
    const json_t *delta = json_object_get(o, "delta");
    json_t *block;
    size_t i;
    read_word(r->model, sizeof r->model, message, "model");
    read_word(r->finish, sizeof r->finish, delta ? delta : o, "stop_reason");
    read_count(&r->input_tokens, json_object_get(message, "usage"), "input_tokens");
    read_count(&r->output_tokens, json_object_get(message, "usage"), "output_tokens");
    json_array_foreach(json_object_get(message, "content"), i, block)
    {
        claude_block(r, block, true);
    }
    if (strcmp(type, "content_block_start") == 0)
        claude_block(r, json_object_get(o, "content_block"), false);
    if (strcmp(type, "content_block_delta") == 0) {
        if (strcmp(string_at(delta, "type"), "input_json_delta") == 0 && r->n_calls > 0)
            text_add(&r->calls[r->n_calls - 1].arguments, string_at(delta, "partial_json"));
        else
            read_text(r, string_at(delta, "text"));
    }
}

/* ---- OpenAI, and those who do as it does ---- */

static json_t *openai_request(const struct dialect *d, const json_t *messages, const json_t *tools,
                              const json_t *schema, bool stream)
{
    json_t *list = json_array(), *m, *tool, *call;
    size_t i, j;
    json_array_foreach(messages, i, m)
    {
        json_t *message = json_pack("{s:O, s:O}", "role", json_object_get(m, "role"), "content",
                                    json_object_get(m, "content"));
        json_t *calls = json_object_get(m, "tool_calls"), *id = json_object_get(m, "tool_call_id");
        if (calls)
            json_object_set_new(message, "tool_calls", json_array());
        json_array_foreach(calls, j, call)
        {
            AUTO_FREE char *arguments =
                need(json_dumps(json_object_get(call, "arguments"), JSON_COMPACT));
            json_array_append_new(json_object_get(message, "tool_calls"),
                                  json_pack("{s:O, s:s, s:{s:O, s:s}}", "id",
                                            json_object_get(call, "id"), "type", "function",
                                            "function", "name", json_object_get(call, "name"),
                                            "arguments", arguments));
        }
        if (id)
            json_object_set(message, "tool_call_id", id);
        json_array_append_new(list, message);
    }
    json_t *request = json_pack("{s:s, s:b, s:o}", "model", d->model, "stream", stream, "messages",
                                list);
    if (stream)
        json_object_set_new(request, "stream_options", json_pack("{s:b}", "include_usage", 1));
    if (json_array_size(tools) > 0)
        json_object_set_new(request, "tools", json_array());
    json_array_foreach(tools, i, tool)
    {
        json_array_append_new(json_object_get(request, "tools"),
                              json_pack("{s:s, s:O}", "type", "function", "function", tool));
    }
    if (schema)
        json_object_set_new(request, "response_format",
                            json_pack("{s:s, s:{s:O, s:O}}", "type", "json_schema", "json_schema",
                                      "name", json_object_get(schema, "title"), "schema", schema));
    return request;
}

static void openai_take(struct reading *r, const json_t *o)
{
    const json_t *choice = json_array_get(json_object_get(o, "choices"), 0);
    const json_t *message = json_object_get(choice, "message"), *call;
    bool whole = message != NULL;
    size_t i;
    if (!whole)
        message = json_object_get(choice, "delta");
    read_word(r->model, sizeof r->model, o, "model");
    read_word(r->finish, sizeof r->finish, choice, "finish_reason");
    read_count(&r->input_tokens, json_object_get(o, "usage"), "prompt_tokens");
    read_count(&r->output_tokens, json_object_get(o, "usage"), "completion_tokens");
    read_text(r, string_at(message, "content"));
    json_array_foreach(json_object_get(message, "tool_calls"), i, call)
    {
        const json_t *f = json_object_get(call, "function"), *at = json_object_get(call, "index");
        size_t index = whole || !at ? r->n_calls : (size_t)json_integer_value(at);
        if (index == r->n_calls)
            read_call(r, string_at(call, "id"), string_at(f, "name"), NULL);
        if (index < r->n_calls)
            text_add(&r->calls[index].arguments, string_at(f, "arguments"));
    }
}

/* ---- Ollama ---- */

static json_t *ollama_request(const struct dialect *d, const json_t *messages, const json_t *tools,
                              const json_t *schema, bool stream)
{
    json_t *list = json_array(), *m, *tool, *call;
    size_t i, j;
    json_array_foreach(messages, i, m)
    {
        json_t *message = json_pack("{s:O, s:O}", "role", json_object_get(m, "role"), "content",
                                    json_object_get(m, "content"));
        json_t *calls = json_object_get(m, "tool_calls"), *name = json_object_get(m, "name");
        if (calls)
            json_object_set_new(message, "tool_calls", json_array());
        json_array_foreach(calls, j, call)
        {
            json_array_append_new(json_object_get(message, "tool_calls"),
                                  json_pack("{s:{s:O, s:O}}", "function", "name",
                                            json_object_get(call, "name"), "arguments",
                                            json_object_get(call, "arguments")));
        }
        if (name)
            json_object_set(message, "tool_name", name);
        json_array_append_new(list, message);
    }
    json_t *request = json_pack("{s:s, s:b, s:o}", "model", d->model, "stream", stream, "messages",
                                list);
    if (json_array_size(tools) > 0)
        json_object_set_new(request, "tools", json_array());
    json_array_foreach(tools, i, tool)
    {
        json_array_append_new(json_object_get(request, "tools"),
                              json_pack("{s:s, s:O}", "type", "function", "function", tool));
    }
    if (schema)
        json_object_set(request, "format", (json_t *)(uintptr_t)schema);
    return request;
}

static void ollama_take(struct reading *r, const json_t *o)
{
    const json_t *message = json_object_get(o, "message"), *call;
    size_t i;
    read_word(r->model, sizeof r->model, o, "model");
    read_word(r->finish, sizeof r->finish, o, "done_reason");
    read_count(&r->input_tokens, o, "prompt_eval_count");
    read_count(&r->output_tokens, o, "eval_count");
    read_text(r, string_at(message, "content"));
    json_array_foreach(json_object_get(message, "tool_calls"), i, call)
    {
        const json_t *f = json_object_get(call, "function");
        read_call(r, NULL, string_at(f, "name"), json_object_get(f, "arguments"));
    }
}

/* ---- Gemini ---- */

static json_t *gemini_content(const json_t *m)
{
    json_t *parts = json_array(), *call;
    const char *role = string_at(m, "role");
    size_t i;
    if (strcmp(role, "tool") == 0)
        json_array_append_new(parts, json_pack("{s:{s:O, s:{s:O}}}", "functionResponse", "name",
                                               json_object_get(m, "name"), "response", "result",
                                               json_object_get(m, "content")));
    else if (*string_at(m, "content"))
        json_array_append_new(parts, json_pack("{s:O}", "text", json_object_get(m, "content")));
    json_array_foreach(json_object_get(m, "tool_calls"), i, call)
    {
        json_array_append_new(parts, json_pack("{s:{s:O, s:O}}", "functionCall", "name",
                                               json_object_get(call, "name"), "args",
                                               json_object_get(call, "arguments")));
    }
    return json_pack("{s:s, s:o}", "role", strcmp(role, "assistant") == 0 ? "model" : "user",
                     "parts", parts);
}

static json_t *gemini_request(const struct dialect *d, const json_t *messages, const json_t *tools,
                              const json_t *schema, bool stream)
{
    (void)d, (void)stream; /* both stand in the path */
    json_t *contents = json_array(), *m;
    size_t i;
    json_array_foreach(messages, i, m)
    {
        if (strcmp(string_at(m, "role"), "system") != 0)
            json_array_append_new(contents, gemini_content(m));
    }
    json_t *request = json_pack("{s:o, s:{s:[{s:o}]}}", "contents", contents, "systemInstruction",
                                "parts", "text", system_text(messages));
    if (json_array_size(tools) > 0)
        json_object_set_new(request, "tools", json_pack("[{s:O}]", "functionDeclarations", tools));
    if (schema)
        json_object_set_new(request, "generationConfig",
                            json_pack("{s:s, s:O}", "responseMimeType", "application/json",
                                      "responseSchema", schema));
    return request;
}

static void gemini_take(struct reading *r, const json_t *o)
{
    const json_t *candidate = json_array_get(json_object_get(o, "candidates"), 0), *part;
    const json_t *usage = json_object_get(o, "usageMetadata");
    size_t i;
    read_word(r->model, sizeof r->model, o, "modelVersion");
    read_word(r->finish, sizeof r->finish, candidate, "finishReason");
    read_count(&r->input_tokens, usage, "promptTokenCount");
    read_count(&r->output_tokens, usage, "candidatesTokenCount");
    json_array_foreach(json_object_get(json_object_get(candidate, "content"), "parts"), i, part)
    {
        const json_t *call = json_object_get(part, "functionCall");
        if (call)
            read_call(r, NULL, string_at(call, "name"), json_object_get(call, "args"));
        else
            read_text(r, string_at(part, "text"));
    }
}

const struct dialect dialects[N_DIALECTS] = {
    [CLAUDE] = {"claude", "anthropic", "claude-stand-in", "/v1/messages", "/v1/messages",
                "x-api-key: ", "anthropic-version: 2023-06-01", claude_request, claude_take},
    [OPENAI] = {"openai", "openai", "gpt-stand-in", "/v1/chat/completions", "/v1/chat/completions",
                "Authorization: Bearer ", NULL, openai_request, openai_take},
    [OLLAMA] = {"ollama", "ollama", "llama-stand-in", "/api/chat", "/api/chat", NULL, NULL,
                ollama_request, ollama_take},
    [GEMINI] = {"gemini", "gcp.gemini", "gemini-stand-in",
                "/v1beta/models/gemini-stand-in:generateContent",
                "/v1beta/models/gemini-stand-in:streamGenerateContent?alt=sse",
                "x-goog-api-key: ", NULL, gemini_request, gemini_take},
    [COMPATIBLE] = {"compatible", "compatible", "mixtral-stand-in",
                    "/compatible/v1/chat/completions", "/compatible/v1/chat/completions",
                    "Authorization: Bearer ", NULL, openai_request, openai_take},
};
