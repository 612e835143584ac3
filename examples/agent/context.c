#include "context.h"

#include "code_index.h"
#include "memory.h"
#include "settings.h"
#include "skills.h"

#include <stdlib.h>
#include <string.h>

#include <pugmark/pugmark.h>

#define SYSTEM_TOKENS_MAX 1500
#define CODE_MAX 5
#define DIGESTS_MAX 3
#define FACTS_MAX 8
#define SHORT_BYTES 160 /* what is left of a result: its beginning, and as much of its end */

static const char *string_at(const json_t *object, const char *key)
{
    const char *s = json_string_value(json_object_get(object, key));
    return s ? s : "";
}

/* A line of what the model knows, unless there is no room for it, or it stands there already. */
static void know(struct text *system, const char *prefix, const char *fact)
{
    AUTO_TEXT struct text line = {0};
    text_addf(&line, "- %s%s", prefix, fact);
    for (char *at = line.bytes; *at; at++)
        if (*at == '\n')
            *at = ' ';
    if (tokens_of(text_of(system)) + tokens_of(line.bytes) < SYSTEM_TOKENS_MAX &&
        !strstr(text_of(system), line.bytes))
        text_addf(system, "%s\n", line.bytes);
}

static int64_t know_all(struct text *system, const char *prefix, json_t *facts)
{
    size_t i;
    json_t *fact;
    int64_t n = (int64_t)json_array_size(facts);
    json_array_foreach(facts, i, fact)
    {
        know(system, prefix,
             json_is_string(fact) ? json_string_value(fact) : string_at(fact, "content"));
    }
    json_decref(facts);
    return n;
}

static void fetch_recall(struct text *system, const char *query)
{
    PUG_SPAN("context.fetch_recall");
    pug_set_int(PUG_CURRENT, "context.facts",
                know_all(system, "", memory_recall(query, settings.recall)));
}

static void fetch_summaries(struct text *system, const char *session)
{
    PUG_SPAN("context.fetch_summaries");
    AUTO_TEXT struct text summary = {0};
    int64_t until;
    bool found = memory_summary(session, &summary, &until);
    if (found)
        know(system, "Earlier: ", summary.bytes);
    pug_set_bool(PUG_CURRENT, "context.summary", found);
}

static bool fetch_code(struct text *system, const char *query)
{
    PUG_SPAN("context.fetch_code");
    int64_t n = know_all(system, "Code: ", code_index_search(query, CODE_MAX));
    pug_set_int(PUG_CURRENT, "context.facts", n);
    return n > 0 || strcasestr(query, "the code");
}

static void fetch_cross_session(struct text *system, const char *session)
{
    PUG_SPAN("context.fetch_cross_session");
    pug_set_int(PUG_CURRENT, "context.facts",
                know_all(system, "Another time: ", memory_digests(session, DIGESTS_MAX)));
}

static void fetch_graph_facts(struct text *system, const char *query)
{
    PUG_SPAN("context.fetch_graph_facts");
    int64_t n = know_all(system, "", memory_graph_facts(query, FACTS_MAX));
    json_t *persona = memory_persona(), *value;
    const char *fact;
    json_object_foreach(persona, fact, value)
    {
        AUTO_TEXT struct text prefix = {0};
        text_addf(&prefix, "The person's %s: ", fact);
        know(system, prefix.bytes, json_string_value(value));
    }
    json_decref(persona);
    pug_set_int(PUG_CURRENT, "context.facts", n);
}

/* How many of the oldest messages should become a summary. */
static size_t check_summarization(const json_t *history)
{
    PUG_SPAN("context.check_summarization");
    return memory_compaction_probe(history, (size_t)settings.context_tokens);
}

static void compact(const char *session, json_t *history, size_t n)
{
    PUG_SPAN("context.compaction", PUG_INT("context.messages", (int64_t)n));
    json_t *oldest = json_array(), *m;
    size_t i;
    json_array_foreach(history, i, m)
    {
        if (i < n)
            json_array_append(oldest, m);
    }
    if (memory_summarize(session, oldest) == 0)
        for (i = 0; i < n; i++)
            json_array_remove(history, 0);
    else
        pug_error(PUG_CURRENT, "no summary: the messages stay");
    json_decref(oldest);
}

void context_assemble(const char *session, json_t *history, const char *query, struct context *ret)
{
    PUG_SPAN("context.assembly");
    AUTO_TEXT struct text system = {0};
    const char *skill_text = NULL;
    size_t n = check_summarization(history), i;
    *ret = (struct context){.messages = json_array()};
    if (n > 0)
        compact(session, history, n);
    text_add(&system, "You are an agent. Use the tools; be brief.\nWhat you know:\n");
    fetch_recall(&system, query);
    fetch_graph_facts(&system, query);
    fetch_summaries(&system, session);
    ret->code = fetch_code(&system, query);
    fetch_cross_session(&system, session);
    if (skills_match(query, &ret->skill, &skill_text))
        text_addf(&system, "\nHow this is done here:\n%s\n", skill_text);

    json_array_append_new(ret->messages,
                          json_pack("{s:s, s:s}", "role", "system", "content", text_of(&system)));
    json_t *m;
    ret->tokens = tokens_of(text_of(&system));
    json_array_foreach(history, i, m)
    {
        ret->tokens += tokens_of(string_at(m, "content"));
        json_array_append_new(ret->messages,
                              json_pack("{s:O, s:O}", "role", json_object_get(m, "role"), "content",
                                        json_object_get(m, "content")));
    }
    pug_set_int(PUG_CURRENT, "context.tokens", (int64_t)ret->tokens);
}

void context_microcompact(json_t *messages)
{
    size_t i, tokens = 0;
    json_t *m;
    int64_t saved = 0;
    json_array_foreach(messages, i, m)
    {
        if (strcmp(string_at(m, "role"), "tool") == 0)
            tokens += tokens_of(string_at(m, "content"));
    }
    if (tokens <= (size_t)settings.result_tokens)
        return;
    PUG_SPAN("context.microcompact", PUG_INT("context.tokens", (int64_t)tokens));
    json_array_foreach(messages, i, m)
    {
        const char *content = string_at(m, "content");
        size_t len = strlen(content);
        if (strcmp(string_at(m, "role"), "tool") != 0 || len <= 2 * SHORT_BYTES + 64 ||
            tokens <= (size_t)settings.result_tokens)
            continue;
        AUTO_TEXT struct text less = {0};
        text_addn(&less, content, SHORT_BYTES);
        text_addf(&less, "\n... %zu bytes left out ...\n", len - 2 * SHORT_BYTES);
        text_add(&less, content + len - SHORT_BYTES);
        text_clean(&less);
        tokens -= tokens_of(content) - tokens_of(less.bytes);
        saved += (int64_t)(tokens_of(content) - tokens_of(less.bytes));
        json_object_set_new(m, "content", json_string(less.bytes));
    }
    pug_set_int(PUG_CURRENT, "context.tokens_saved", saved);
}
