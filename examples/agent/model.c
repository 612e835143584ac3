/* The stand-in for five providers' models: it has their APIs, and rules where they have weights.
 *
 *   model                                       prints "port N" and serves until its stdin ends
 *
 *   POST /v1/messages                           Claude
 *   POST /v1/chat/completions                   OpenAI
 *   POST /compatible/v1/chat/completions        what does as OpenAI does
 *   POST /api/chat, /api/embed                  Ollama
 *   POST /v1beta/models/M:generateContent       Gemini; :streamGenerateContent?alt=sse
 *   POST /control {"provider", "status" | "slow_ms", "times"}    the next requests fail, or are slow
 *
 * The same question has the same answer, always. What it understands stands in `rules`: words in
 * the user's message that call for a tool. When tools have answered, it tells what they said; when
 * no tool is called for, it looks for the line of the system's message that has most words in
 * common with the question. Asked for JSON of a schema, it takes entities, relations and facts
 * about a person out of simple sentences. Embeddings are hashed words and trigrams. */
#include "common.h"
#include "serve.h"

#include <ctype.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DIMENSIONS 64
#define CALLS_MAX 8
#define RETRY_AFTER_MS 15
#define SLOW_MS_MAX 10000

/* ---- a question, whatever API it came by ---- */

struct question {
    const char *model, *schema; /* schema: its title, NULL: text is wanted */
    const char *user;           /* the last thing the user said */
    bool tools, stream;
    struct text system, results; /* what tools said since then: a line for each */
    size_t n_results;
};

struct reply {
    struct text text;
    struct {
        const char *tool;
        json_t *arguments;
    } calls[CALLS_MAX];
    size_t n_calls;
};

static const char *string_at(const json_t *object, const char *key)
{
    const char *s = json_string_value(json_object_get(object, key));
    return s ? s : "";
}

static void heard_user(struct question *q, const char *text)
{
    q->user = text;
    q->results.len = q->n_results = 0;
    text_add(&q->results, "");
}

static void heard_tool(struct question *q, const char *text)
{
    text_addf(&q->results, "%s%s", q->n_results++ ? "\n" : "", text);
}

static void read_messages(struct question *q, const json_t *messages)
{
    size_t i;
    json_t *m;
    json_array_foreach(messages, i, m)
    {
        const char *role = string_at(m, "role"), *content = string_at(m, "content");
        if (strcmp(role, "system") == 0)
            text_addf(&q->system, "%s\n", content);
        else if (strcmp(role, "user") == 0)
            heard_user(q, content);
        else if (strcmp(role, "tool") == 0)
            heard_tool(q, content);
    }
}

static void read_openai(struct question *q, const json_t *o)
{
    const json_t *format = json_object_get(o, "response_format");
    read_messages(q, json_object_get(o, "messages"));
    q->tools = json_array_size(json_object_get(o, "tools")) > 0;
    if (format)
        q->schema = string_at(json_object_get(format, "json_schema"), "name");
}

static void read_ollama(struct question *q, const json_t *o)
{
    read_openai(q, o);
    if (json_object_get(o, "format"))
        q->schema = string_at(json_object_get(o, "format"), "title");
}

static void read_claude(struct question *q, const json_t *o)
{
    size_t i, j;
    json_t *m, *block;
    text_add(&q->system, string_at(o, "system"));
    json_array_foreach(json_object_get(o, "messages"), i, m)
    {
        json_array_foreach(json_object_get(m, "content"), j, block)
        {
            if (strcmp(string_at(block, "type"), "tool_result") == 0)
                heard_tool(q, string_at(block, "content"));
            else if (strcmp(string_at(m, "role"), "user") == 0)
                heard_user(q, string_at(block, "text"));
        }
    }
    q->tools = json_array_size(json_object_get(o, "tools")) > 0;
}

static void read_gemini(struct question *q, const json_t *o)
{
    size_t i, j;
    json_t *m, *part;
    const json_t *system =
        json_array_get(json_object_get(json_object_get(o, "systemInstruction"), "parts"), 0);
    text_add(&q->system, string_at(system, "text"));
    json_array_foreach(json_object_get(o, "contents"), i, m)
    {
        json_array_foreach(json_object_get(m, "parts"), j, part)
        {
            const json_t *response = json_object_get(part, "functionResponse");
            if (response)
                heard_tool(q, string_at(json_object_get(response, "response"), "result"));
            else if (strcmp(string_at(m, "role"), "user") == 0 && json_object_get(part, "text"))
                heard_user(q, string_at(part, "text"));
        }
    }
    q->tools = json_array_size(json_object_get(o, "tools")) > 0;
}

/* ---- what it says ---- */

/* `words` in the message call for `tool`; what follows them, up to a ';' or " and then ", becomes
 * its argument. */
static const struct rule {
    const char *words, *tool, *argument, *fixed, *fixed_value;
} rules[] = {
    {"list the files", "shell", NULL, "command", "ls"},
    {"count the lines of", "shell", "command", NULL, "wc -l "},
    {"run", "shell", "command", NULL, ""},
    {"read", "file", "path", "operation", "read"},
    {"save", "file", "content", "operation", "write"},
    {"search the code for", "search_code", "pattern", NULL, ""},
    {"look at the page", "web_scrape", "path", NULL, ""},
    {"note down", "notes_add", "text", NULL, ""},
    {"show my notes", "notes_list", NULL, NULL, NULL},
    {"clear my notes", "notes_clear", NULL, NULL, NULL},
    {"convert", "convert", "quantity", NULL, ""},
};

static bool starts_word(const char *message, const char *at)
{
    return at == message || !isalnum((unsigned char)at[-1]);
}

static json_t *rule_arguments(const struct rule *r, const char *rest)
{
    json_t *arguments = json_object();
    rest += strspn(rest, " ");
    const char *end = strstr(rest, " and then ");
    size_t n = strcspn(rest, ";\n");
    if (end && (size_t)(end - rest) < n)
        n = (size_t)(end - rest);
    if (r->argument && strcmp(r->argument, "path") == 0)
        n = strcspn(rest, " ;\n"); /* one word */
    while (n > 0 && (rest[n - 1] == ' ' || rest[n - 1] == '.' || rest[n - 1] == '?'))
        n--;
    if (r->fixed)
        json_object_set_new(arguments, r->fixed, json_string(r->fixed_value));
    if (r->argument) {
        struct text value = {0};
        text_add(&value, !r->fixed && r->fixed_value ? r->fixed_value : "");
        text_addn(&value, rest, n);
        json_object_set_new(arguments, r->argument, json_string(text_of(&value)));
        text_done(&value);
    }
    /* "save TEXT to PATH" */
    if (strcmp(r->words, "save") == 0) {
        char *content = copy(string_at(arguments, "content")), *to = NULL;
        for (char *at = content; (at = strstr(at, " to ")); at++)
            to = at;
        if (to) {
            *to = '\0';
            json_object_set_new(arguments, "content", json_string(content));
            json_object_set_new(arguments, "path", json_string(trim(to + 4)));
        }
        free(content);
    }
    return arguments;
}

/* "plan: a; b; c": a call of `plan` with these steps, each with the tool it needs. */
static void plan(struct reply *r, const char *steps)
{
    json_t *list = json_array();
    for (const char *at = steps; *at;) {
        size_t n = strcspn(at, ";");
        AUTO_FREE char *step = copyn(at, n);
        for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
            const char *found = strcasestr(step, rules[i].words);
            if (found && starts_word(step, found)) {
                json_array_append_new(
                    list, json_pack("{s:s, s:o}", "tool", rules[i].tool, "arguments",
                                    rule_arguments(&rules[i], found + strlen(rules[i].words))));
                break;
            }
        }
        at += n + (at[n] == ';');
    }
    r->calls[r->n_calls].tool = "plan";
    r->calls[r->n_calls++].arguments = json_pack("{s:o}", "steps", list);
}

static void call_tools(struct reply *r, const char *user)
{
    const char *steps = strcasestr(user, "plan:");
    if (steps) {
        plan(r, steps + strlen("plan:"));
        return;
    }
    for (size_t i = 0; i < sizeof rules / sizeof *rules && r->n_calls < CALLS_MAX; i++) {
        const char *found = strcasestr(user, rules[i].words);
        if (!found || !starts_word(user, found))
            continue;
        r->calls[r->n_calls].tool = rules[i].tool;
        r->calls[r->n_calls++].arguments = rule_arguments(&rules[i],
                                                          found + strlen(rules[i].words));
    }
}

static size_t common_words(const char *a, const char *b)
{
    char word[64], other[64];
    size_t n = 0;
    while (next_word(&a, word, sizeof word))
        for (const char *at = b; strlen(word) > 3 && next_word(&at, other, sizeof other);)
            if (strncmp(word, other, 5) == 0) { /* "depend" and "depends" */
                n++;
                break;
            }
    return n;
}

/* From what the system's message knows: its lines that begin with "- ". */
static void answer_from_memory(struct reply *r, const struct question *q)
{
    const char *best = NULL;
    double best_score = 0;
    for (const char *line = text_of(&q->system); line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, "- ", 2) != 0)
            continue;
        AUTO_FREE char *one = copyn(line + 2, strcspn(line + 2, "\n"));
        double score = (double)common_words(one, q->user) / (double)(40 + strlen(one));
        if (score > best_score) { /* what says it in fewer words is better */
            best = line + 2;
            best_score = score;
        }
    }
    if (best && strchr(q->user, '?'))
        text_addf(&r->text, "I remember: %.*s", (int)strcspn(best, "\n"), best);
    else if (strchr(q->user, '?'))
        text_add(&r->text, "I do not know that.");
    else
        text_add(&r->text, "Noted.");
}

/* The first sentence of what each one said. */
static void summarize(struct reply *r, const char *text)
{
    for (const char *line = text; line && *line;) {
        size_t n = strcspn(line, "\n"), from = 0;
        if (strncmp(line, "user: ", 6) == 0)
            from = 6;
        else if (strncmp(line, "summary: ", 9) == 0)
            from = 9;
        size_t sentence = from == 6 ? strcspn(line + from, ".?!\n") : n - from;
        if (from && sentence > 0)
            text_addf(&r->text, "%s%.*s%s", r->text.len ? " " : "",
                      (int)(sentence > 400 ? 400 : sentence), line + from, from == 6 ? "." : "");
        line += n + (line[n] == '\n');
    }
}

static void write_skill(struct reply *r, const char *text)
{
    const char *name = strstr(text, "named "), *what = strstr(text, "that ");
    name = name ? name + 6 : "skill";
    what = what ? what + 5 : "does what was asked";
    text_addf(&r->text,
              "---\nname: %.*s\ndescription: %.*s\n---\nUse the tools in this order: %.*s\n",
              (int)strcspn(name, " \n"), name, (int)strcspn(what, "\n"), what,
              (int)strcspn(what, "\n"), what);
}

static void take_relation(json_t *entities, json_t *relations, const char *sentence, size_t n)
{
    static const char *const verbs[] = {" uses ", " is written in ", " depends on ",
                                        " belongs to "};
    AUTO_FREE char *s = copyn(sentence, n);
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) {
        char *verb = strstr(s, verbs[i]);
        if (!verb)
            continue;
        char *object = trim(verb + strlen(verbs[i]));
        *verb = '\0';
        char *subject = strrchr(trim(s), ' ') ? strrchr(trim(s), ' ') + 1 : trim(s);
        json_array_append_new(entities, json_string(subject));
        json_array_append_new(entities, json_string(object));
        AUTO_FREE char *kind = copy(verbs[i]);
        json_array_append_new(relations, json_pack("{s:s, s:s, s:s}", "source", subject, "kind",
                                                   trim(kind), "target", object));
    }
}

static json_t *extract_graph(const char *text)
{
    json_t *entities = json_array(), *relations = json_array();
    for (const char *at = text; *at;) {
        size_t n = strcspn(at, ".;!?\n");
        take_relation(entities, relations, at, n);
        at += n + (at[n] != '\0');
    }
    return json_pack("{s:o, s:o}", "entities", entities, "relations", relations);
}

static json_t *extract_persona(const char *text)
{
    static const struct {
        const char *words, *fact;
    } known[] = {
        {"my name is ", "name"}, {"I prefer ", "preference"}, {"I work as ", "occupation"}};
    json_t *facts = json_object();
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const char *at = strcasestr(text, known[i].words);
        if (at)
            json_object_set_new(facts, known[i].fact,
                                json_stringn(at + strlen(known[i].words),
                                             strcspn(at + strlen(known[i].words), ".;!?\n")));
    }
    return json_pack("{s:o}", "facts", facts);
}

static void think(struct reply *r, const struct question *q)
{
    const char *user = q->user ? q->user : "";
    if (q->schema) {
        json_t *found = strcmp(q->schema, "persona") == 0 ? extract_persona(user)
                                                          : extract_graph(user);
        AUTO_FREE char *text = need(json_dumps(found, JSON_COMPACT));
        text_add(&r->text, text);
        json_decref(found);
    } else if (strncmp(text_of(&q->system), "Summarize", 9) == 0) {
        summarize(r, user);
    } else if (strncmp(text_of(&q->system), "Write a skill", 13) == 0) {
        write_skill(r, user);
    } else if (q->n_results > 0) {
        text_add(&r->text, text_of(&q->results));
    } else {
        if (q->tools)
            call_tools(r, user);
        if (r->n_calls == 0)
            answer_from_memory(r, q);
    }
}

/* ---- how each API says it ---- */

/* The next piece of a text, about a word; empty at its end. */
static json_t *next_piece(const char **at)
{
    size_t n = strcspn(*at, " ");
    n += (*at)[n] == ' ';
    json_t *piece = json_stringn(*at, n);
    *at += n;
    return piece;
}

static void event(struct served *s, const char *name, json_t *data)
{
    AUTO_FREE char *text = need(json_dumps(data, JSON_COMPACT));
    json_decref(data);
    if (name)
        text_addf(&s->body, "event: %s\n", name);
    text_addf(&s->body, "data: %s\n\n", text);
}

static json_t *arguments_text(const json_t *arguments)
{
    AUTO_FREE char *text = need(json_dumps(arguments, JSON_COMPACT));
    return json_string(text);
}

static void say_claude(struct served *s, const struct question *q, struct reply *r, int in, int out)
{
    const char *stop = r->n_calls ? "tool_use" : "end_turn", *at = text_of(&r->text);
    json_t *blocks = json_array();
    for (size_t i = 0; i < r->n_calls; i++) {
        char id[24];
        snprintf(id, sizeof id, "toolu_%zu", i);
        json_array_append_new(blocks,
                              json_pack("{s:s, s:s, s:s, s:O}", "type", "tool_use", "id", id,
                                        "name", r->calls[i].tool, "input", r->calls[i].arguments));
    }
    if (*at)
        json_array_insert_new(blocks, 0, json_pack("{s:s, s:s}", "type", "text", "text", at));
    json_t *message = json_pack("{s:s, s:s, s:s, s:s, s:s, s:o, s:{s:i, s:i}}", "id", "msg_1",
                                "type", "message", "role", "assistant", "model", q->model,
                                "stop_reason", stop, "content", blocks, "usage", "input_tokens", in,
                                "output_tokens", out);
    if (!q->stream) {
        served_json(s, message);
        return;
    }
    size_t i;
    json_t *block;
    json_t *all = json_incref(blocks);
    json_object_set_new(message, "content", json_array());
    json_object_set_new(message, "stop_reason", json_null());
    event(s, "message_start", json_pack("{s:s, s:o}", "type", "message_start", "message", message));
    json_array_foreach(all, i, block)
    {
        json_t *empty = json_copy(block);
        bool text = json_object_get(block, "text") != NULL;
        if (text)
            json_object_set_new(empty, "text", json_string(""));
        else
            json_object_set_new(empty, "input", json_object());
        event(s, "content_block_start",
              json_pack("{s:s, s:i, s:o}", "type", "content_block_start", "index", (int)i,
                        "content_block", empty));
        while (text && *at)
            event(s, "content_block_delta",
                  json_pack("{s:s, s:i, s:{s:s, s:o}}", "type", "content_block_delta", "index",
                            (int)i, "delta", "type", "text_delta", "text", next_piece(&at)));
        if (!text)
            event(s, "content_block_delta",
                  json_pack("{s:s, s:i, s:{s:s, s:o}}", "type", "content_block_delta", "index",
                            (int)i, "delta", "type", "input_json_delta", "partial_json",
                            arguments_text(json_object_get(block, "input"))));
        event(s, "content_block_stop",
              json_pack("{s:s, s:i}", "type", "content_block_stop", "index", (int)i));
    }
    json_decref(all);
    event(s, "message_delta",
          json_pack("{s:s, s:{s:s}, s:{s:i}}", "type", "message_delta", "delta", "stop_reason",
                    stop, "usage", "output_tokens", out));
    event(s, "message_stop", json_pack("{s:s}", "type", "message_stop"));
}

static void say_openai(struct served *s, const struct question *q, struct reply *r, int in, int out)
{
    const char *finish = r->n_calls ? "tool_calls" : "stop", *at = text_of(&r->text);
    json_t *calls = json_array(),
           *usage = json_pack("{s:i, s:i, s:i}", "prompt_tokens", in, "completion_tokens", out,
                              "total_tokens", in + out);
    for (size_t i = 0; i < r->n_calls; i++) {
        char id[24];
        snprintf(id, sizeof id, "call_%zu", i);
        json_array_append_new(calls,
                              json_pack("{s:i, s:s, s:s, s:{s:s, s:o}}", "index", (int)i, "id", id,
                                        "type", "function", "function", "name", r->calls[i].tool,
                                        "arguments", arguments_text(r->calls[i].arguments)));
    }
    if (!q->stream) {
        json_t *message = json_pack("{s:s, s:s}", "role", "assistant", "content", at);
        if (r->n_calls)
            json_object_set(message, "tool_calls", calls);
        served_json(s, json_pack("{s:s, s:s, s:s, s:[{s:i, s:o, s:s}], s:o}", "id", "chatcmpl-1",
                                 "object", "chat.completion", "model", q->model, "choices", "index",
                                 0, "message", message, "finish_reason", finish, "usage", usage));
        json_decref(calls);
        return;
    }
    json_t *first = json_pack("{s:s}", "role", "assistant");
    if (r->n_calls)
        json_object_set(first, "tool_calls", calls);
    json_decref(calls);
    event(s, NULL,
          json_pack("{s:s, s:s, s:[{s:i, s:o}]}", "object", "chat.completion.chunk", "model",
                    q->model, "choices", "index", 0, "delta", first));
    while (*at)
        event(s, NULL,
              json_pack("{s:s, s:s, s:[{s:i, s:{s:o}}]}", "object", "chat.completion.chunk",
                        "model", q->model, "choices", "index", 0, "delta", "content",
                        next_piece(&at)));
    event(s, NULL,
          json_pack("{s:s, s:s, s:[{s:i, s:{}, s:s}]}", "object", "chat.completion.chunk", "model",
                    q->model, "choices", "index", 0, "delta", "finish_reason", finish));
    event(s, NULL,
          json_pack("{s:s, s:s, s:[], s:o}", "object", "chat.completion.chunk", "model", q->model,
                    "choices", "usage", usage));
    text_add(&s->body, "data: [DONE]\n\n");
}

static void say_ollama(struct served *s, const struct question *q, struct reply *r, int in, int out)
{
    const char *at = text_of(&r->text);
    json_t *calls = json_array();
    for (size_t i = 0; i < r->n_calls; i++)
        json_array_append_new(calls,
                              json_pack("{s:{s:s, s:O}}", "function", "name", r->calls[i].tool,
                                        "arguments", r->calls[i].arguments));
    while (q->stream && *at) {
        json_t *line = json_pack("{s:s, s:{s:s, s:o}, s:b}", "model", q->model, "message", "role",
                                 "assistant", "content", next_piece(&at), "done", 0);
        served_json(s, line);
        text_add(&s->body, "\n");
    }
    json_t *message = json_pack("{s:s, s:s}", "role", "assistant", "content", at);
    if (r->n_calls)
        json_object_set(message, "tool_calls", calls);
    json_decref(calls);
    served_json(s, json_pack("{s:s, s:o, s:b, s:s, s:i, s:i}", "model", q->model, "message",
                             message, "done", 1, "done_reason", "stop", "prompt_eval_count", in,
                             "eval_count", out));
    text_add(&s->body, "\n");
}

static void say_gemini(struct served *s, const struct question *q, struct reply *r, int in, int out)
{
    const char *at = text_of(&r->text);
    json_t *parts = json_array();
    for (size_t i = 0; i < r->n_calls; i++)
        json_array_append_new(parts, json_pack("{s:{s:s, s:O}}", "functionCall", "name",
                                               r->calls[i].tool, "args", r->calls[i].arguments));
    while (q->stream && *at)
        event(s, NULL,
              json_pack("{s:[{s:{s:s, s:[{s:o}]}}], s:s}", "candidates", "content", "role", "model",
                        "parts", "text", next_piece(&at), "modelVersion", q->model));
    if (*at)
        json_array_insert_new(parts, 0, json_pack("{s:s}", "text", at));
    json_t *last = json_pack("{s:[{s:{s:s, s:o}, s:s}], s:{s:i, s:i}, s:s}", "candidates",
                             "content", "role", "model", "parts", parts, "finishReason", "STOP",
                             "usageMetadata", "promptTokenCount", in, "candidatesTokenCount", out,
                             "modelVersion", q->model);
    if (q->stream)
        event(s, NULL, last);
    else
        served_json(s, last);
}

/* ---- embeddings ---- */

static void put_feature(double *vector, const char *bytes, size_t n, double weight)
{
    uint64_t h = hash_text(bytes, n);
    h ^= h >> 29;
    vector[h % DIMENSIONS] += h >> 63 ? weight : -weight;
}

static void embed(struct served *s)
{
    PUG_SPAN_FROM(&s->caller, "model.embed", PUG_KIND(PUG_KIND_SERVER),
                  PUG_STR("http.request.method", s->method), PUG_STR("url.path", s->path));
    const char *input = string_at(s->json, "input"), *at = input;
    double vector[DIMENSIONS] = {0}, length = 0;
    char word[64];
    while (next_word(&at, word, sizeof word)) {
        size_t n = strlen(word);
        put_feature(vector, word, n, n > 3 ? 2 : 0.3);
        for (size_t i = 0; i + 3 <= n; i++)
            put_feature(vector, word + i, 3, 0.5);
    }
    for (size_t i = 0; i < DIMENSIONS; i++)
        length += vector[i] * vector[i];
    length = length > 0 ? sqrt(length) : 1;
    json_t *numbers = json_array();
    for (size_t i = 0; i < DIMENSIONS; i++)
        json_array_append_new(numbers, json_real(vector[i] / length));
    served_json(s,
                json_pack("{s:s, s:[o], s:I}", "model", string_at(s->json, "model"), "embeddings",
                          numbers, "prompt_eval_count", (json_int_t)tokens_of(input)));
    pug_set_int(PUG_CURRENT, "http.response.status_code", s->status);
}

/* ---- serving ---- */

static const struct api {
    const char *provider, *path; /* a path that ends with '*' is a beginning */
    const char *key_header;      /* must not be empty; NULL: wants none */
    void (*read)(struct question *q, const json_t *o);
    void (*say)(struct served *s, const struct question *q, struct reply *r, int in, int out);
    const char *stream_type;
} apis[] = {
    {"claude", "/v1/messages", "x-api-key", read_claude, say_claude, "text/event-stream"},
    {"openai", "/v1/chat/completions", "Authorization", read_openai, say_openai,
     "text/event-stream"},
    {"compatible", "/compatible/v1/chat/completions", "Authorization", read_openai, say_openai,
     "text/event-stream"},
    {"ollama", "/api/chat", NULL, read_ollama, say_ollama, "application/x-ndjson"},
    {"gemini", "/v1beta/models/*", "x-goog-api-key", read_gemini, say_gemini, "text/event-stream"},
};
enum { N_APIS = sizeof apis / sizeof *apis };

/* What each provider was told to do next. */
static pthread_mutex_t control_lock = PTHREAD_MUTEX_INITIALIZER;
static struct trouble {
    int status, slow_ms, times;
} troubles[N_APIS];

static struct trouble trouble_take(size_t which)
{
    pthread_mutex_lock(&control_lock);
    struct trouble t = troubles[which];
    if (t.times > 0)
        troubles[which].times--;
    else
        t = (struct trouble){0};
    pthread_mutex_unlock(&control_lock);
    return t;
}

static void control(struct served *s)
{
    const char *provider = string_at(s->json, "provider");
    for (size_t i = 0; i < N_APIS; i++) {
        if (strcmp(apis[i].provider, provider) != 0)
            continue;
        int64_t slow = json_integer_value(json_object_get(s->json, "slow_ms"));
        pthread_mutex_lock(&control_lock);
        troubles[i] =
            (struct trouble){.status = (int)json_integer_value(json_object_get(s->json, "status")),
                             .slow_ms = (int)(slow < 0             ? 0
                                              : slow > SLOW_MS_MAX ? SLOW_MS_MAX
                                                                   : slow),
                             .times = (int)json_integer_value(json_object_get(s->json, "times"))};
        pthread_mutex_unlock(&control_lock);
        served_json(s, json_pack("{s:b}", "ok", 1));
        return;
    }
    served_error(s, 404, "no such provider");
}

static void chat(struct served *s, size_t which)
{
    const struct api *api = &apis[which];
    PUG_SPAN_FROM(&s->caller, "model.chat", PUG_KIND(PUG_KIND_SERVER),
                  PUG_STR("http.request.method", s->method), PUG_STR("url.path", s->path),
                  PUG_STR("gen_ai.provider.name", api->provider));
    struct trouble trouble = trouble_take(which);
    if (trouble.slow_ms)
        poll(NULL, 0, trouble.slow_ms);
    if (trouble.status) {
        s->retry_after_ms = trouble.status == 429 ? RETRY_AFTER_MS : 0;
        served_error(s, trouble.status, "told to fail");
    } else if (api->key_header && !*served_header(s, api->key_header)) {
        served_error(s, 401, "no key");
    } else if (!s->json) {
        served_error(s, 400, "not JSON");
    } else {
        struct question q = {.model = string_at(s->json, "model"),
                             .stream = json_is_true(json_object_get(s->json, "stream")) ||
                                       strstr(s->path, ":streamGenerateContent")};
        struct reply r = {0};
        if (!*q.model)
            q.model = "gemini-stand-in";
        api->read(&q, s->json);
        think(&r, &q);
        AUTO_FREE char *asked = need(json_dumps(s->json, JSON_COMPACT));
        s->in_pieces = q.stream;
        if (q.stream)
            s->type = api->stream_type;
        api->say(s, &q, &r, (int)tokens_of(asked),
                 (int)tokens_of(text_of(&r.text)) + 8 * (int)r.n_calls);
        for (size_t i = 0; i < r.n_calls; i++)
            json_decref(r.calls[i].arguments);
        text_done(&r.text);
        text_done(&q.system);
        text_done(&q.results);
    }
    pug_set_int(PUG_CURRENT, "http.response.status_code", s->status);
    if (s->status >= 500)
        pug_error(PUG_CURRENT, "told to fail");
}

static void handle(struct served *s)
{
    if (strcmp(s->method, "POST") != 0) {
        served_error(s, 405, "POST");
        return;
    }
    if (strcmp(s->path, "/control") == 0) {
        control(s);
        return;
    }
    if (strcmp(s->path, "/api/embed") == 0) {
        embed(s);
        return;
    }
    for (size_t i = 0; i < N_APIS; i++) {
        size_t n = strcspn(apis[i].path, "*");
        if (apis[i].path[n] ? strncmp(s->path, apis[i].path, n) == 0
                            : strcmp(s->path, apis[i].path) == 0) {
            chat(s, i);
            return;
        }
    }
    served_error(s, 404, "no such API");
}

int main(void)
{
    service_wait_begin();
    service_start("model");
    service_wait(serve_start(handle));
    serve_stop();
    service_stop();
    return 0;
}
