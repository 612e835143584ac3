/* A turn, in its order:
 *
 *   agent.turn
 *     agent.security_prescreen    what must not come in, and what must not be kept
 *     agent.restore_history       the first one of a session
 *     agent.persist_message
 *     agent.prepare_context       context.c
 *     agent.tool_loop             asks the model, does what it wants, tells it the results, asks again
 *       llm.router
 *       agent.process_response
 *       agent.tool_exec | agent.tool_batch | agent.mcp_dispatch | agent.plan_execute
 *       context.microcompact
 *     channel.NAME                the answer
 *     agent.persist_message
 *     memory.remember
 *     agent.learning
 *
 * The message was received before the turn began, in a span of its own: the turn has a link to it. */
#include "agent.h"

#include "context.h"
#include "learning.h"
#include "llm.h"
#include "mcp.h"
#include "memory.h"
#include "queues.h"
#include "settings.h"
#include "tools.h"

#include <ctype.h>
#include <pthread.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <pugmark/capture.h>

#define SAID_BYTES_MAX 8192
#define RESTORE_MAX 40
#define BATCH_MAX 8
#define STEPS_MAX 12

struct turn {
    enum channel channel;
    const char *said; /* after the prescreen */
    struct context context;
    struct text tools; /* names of those that were called */
    bool failed;
};

static char session[64];
static json_t *history; /* [{"id", "role", "content"}]; NULL: not restored yet */

static const char *string_at(const json_t *object, const char *key)
{
    const char *s = json_string_value(json_object_get(object, key));
    return s ? s : "";
}

void agent_session(const char *name)
{
    snprintf(session, sizeof session, "%s", name);
    json_decref(history);
    history = NULL;
}

const char *agent_session_name(void)
{
    return session;
}

void agent_stop(void)
{
    json_decref(history);
    history = NULL;
}

/* ---- what comes in ---- */

/* Secrets are replaced in place by as many stars. How many. */
static int mask_secrets(char *said)
{
    static const char *const patterns[] = {"sk-[A-Za-z0-9_-]{16,}", "AKIA[0-9A-Z]{16}",
                                           "eyJ[A-Za-z0-9_-]{10,}\\.[A-Za-z0-9_.-]{10,}"};
    int n = 0;
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
        regex_t re;
        regmatch_t m;
        if (regcomp(&re, patterns[i], REG_EXTENDED) != 0)
            die("a pattern of ours is wrong");
        for (; regexec(&re, said, 1, &m, 0) == 0; n++)
            memset(said + m.rm_so, '*', (size_t)(m.rm_eo - m.rm_so));
        regfree(&re);
    }
    return n;
}

/* NULL when it may come in, else why not. Secrets are masked. */
static const char *security_prescreen(char *said)
{
    static const char *const injections[] = {"ignore all previous instructions",
                                             "ignore previous instructions", "your system prompt",
                                             "<|im_start|>", "[INST]"};
    PUG_SPAN("agent.security_prescreen", PUG_INT("channel.message.size", (int64_t)strlen(said)));
    const char *why = NULL;
    if (strlen(said) > SAID_BYTES_MAX)
        why = "it is too long";
    for (const char *at = said; !why && *at; at++)
        if (iscntrl((unsigned char)*at) && *at != '\t')
            why = "there are control characters in it";
    for (size_t i = 0; !why && i < sizeof injections / sizeof *injections; i++)
        if (strcasestr(said, injections[i]))
            why = "it wants to change my instructions";
    int masked = why ? 0 : mask_secrets(said);
    pug_set_str(PUG_CURRENT, "security.verdict", why ? "refused" : masked ? "masked" : "passed");
    if (why)
        pug_set_str(PUG_CURRENT, "security.reason", why);
    pug_set_int(PUG_CURRENT, "security.masked", masked);
    return why;
}

/* ---- what was said ---- */

static void restore_history(void)
{
    PUG_SPAN("agent.restore_history");
    AUTO_TEXT struct text summary = {0};
    int64_t until;
    memory_summary(session, &summary, &until); /* what it covers is not restored */
    history = memory_messages(session, until, RESTORE_MAX);
    pug_set_int(PUG_CURRENT, "history.messages", (int64_t)json_array_size(history));
}

static void persist_message(enum channel channel, const char *role, const char *content)
{
    PUG_SPAN("agent.persist_message", PUG_STR("message.role", role));
    memory_message_add(session, channel_name(channel), role, content);
    json_t *newest = memory_messages(session, 0, 1); /* with the id it has now */
    if (json_array_size(newest) == 1)
        json_array_append(history, json_array_get(newest, 0));
    json_decref(newest);
}

static void prepare_context(struct turn *t)
{
    PUG_SPAN("agent.prepare_context");
    context_assemble(session, history, t->said, &t->context);
    pug_set_int(PUG_CURRENT, "context.tokens", (int64_t)t->context.tokens);
    pug_set_int(PUG_CURRENT, "context.messages", (int64_t)json_array_size(t->context.messages));
}

/* ---- tools ---- */

struct call {
    const char *id, *tool;
    const json_t *arguments;
    char *result; /* for free() */
    bool failed;
    /* of a batch */
    pthread_t thread;
    struct pug_capture batch;
};

static void tool_exec(struct call *c)
{
    PUG_SPAN("agent.tool_exec", PUG_STR("gen_ai.tool.name", c->tool));
    c->result = tools_execute(c->id, c->tool, c->arguments, &c->failed);
}

static void mcp_dispatch(struct call *c)
{
    PUG_SPAN("agent.mcp_dispatch", PUG_STR("gen_ai.tool.name", c->tool));
    c->result = mcp_call_tool(c->id, c->tool, c->arguments, &c->failed);
    tools_audit(c->tool, c->arguments, c->failed, false);
}

static void dispatch(struct turn *t, struct call *c);

/* Step by step; the first one that fails ends it. */
static void plan_execute(struct turn *t, struct call *c)
{
    json_t *steps = json_object_get(c->arguments, "steps"), *step;
    PUG_SPAN("agent.plan_execute", PUG_INT("plan.steps", (int64_t)json_array_size(steps)));
    AUTO_TEXT struct text all = {0};
    size_t i;
    c->failed = json_array_size(steps) == 0 || json_array_size(steps) > STEPS_MAX;
    if (c->failed)
        text_add(&all, "this is no plan");
    json_array_foreach(steps, i, step)
    {
        struct call one = {.id = c->id,
                           .tool = string_at(step, "tool"),
                           .arguments = json_object_get(step, "arguments")};
        if (c->failed)
            break;
        if (strcmp(one.tool, "plan") == 0) { /* no plans in plans */
            c->failed = true;
            text_add(&all, "this is no step");
            break;
        }
        dispatch(t, &one);
        text_addf(&all, "%s%zu. %s", i ? "\n" : "", i + 1, one.result);
        c->failed = one.failed;
        free(one.result);
    }
    pug_set_bool(PUG_CURRENT, "plan.completed", !c->failed);
    c->result = copy(text_of(&all));
}

static void dispatch(struct turn *t, struct call *c)
{
    queues_status(c->tool);
    queues_measure(METRIC_TOOL_CALLS, 1);
    if (strcmp(c->tool, "plan") == 0)
        plan_execute(t, c);
    else if (mcp_have(c->tool))
        mcp_dispatch(c);
    else
        tool_exec(c);
}

static void *exec_in_thread(void *arg)
{
    struct call *c = arg;
    PUG_RESUME(&c->batch);
    tool_exec(c);
    return NULL;
}

/* Ours at the same time, each in its thread; then the others, whose servers take one after another. */
static void tool_batch(struct turn *t, struct call *calls, size_t n)
{
    PUG_SPAN("agent.tool_batch", PUG_INT("batch.calls", (int64_t)n));
    bool started[BATCH_MAX] = {false};
    for (size_t i = 0; i < n; i++) {
        if (!tools_have(calls[i].tool))
            continue;
        queues_status(calls[i].tool);
        queues_measure(METRIC_TOOL_CALLS, 1);
        calls[i].batch = pug_capture_current();
        started[i] = pthread_create(&calls[i].thread, NULL, exec_in_thread, &calls[i]) == 0;
        if (!started[i])
            tool_exec(&calls[i]);
    }
    for (size_t i = 0; i < n; i++)
        if (started[i])
            pthread_join(calls[i].thread, NULL);
        else if (!calls[i].result)
            dispatch(t, &calls[i]);
}

static void run_calls(struct turn *t, const json_t *wanted)
{
    struct call calls[BATCH_MAX] = {{0}};
    size_t n = 0, i;
    json_t *one;
    json_array_foreach(wanted, i, one)
    {
        if (n < BATCH_MAX) {
            calls[n++] = (struct call){.id = string_at(one, "id"),
                                       .tool = string_at(one, "name"),
                                       .arguments = json_object_get(one, "arguments")};
            text_addf(&t->tools, "%s%s", t->tools.len ? " " : "", string_at(one, "name"));
        }
    }
    if (n == 1)
        dispatch(t, &calls[0]);
    else
        tool_batch(t, calls, n);
    for (i = 0; i < n; i++) {
        t->failed |= calls[i].failed;
        json_array_append_new(t->context.messages,
                              json_pack("{s:s, s:s, s:s, s:s}", "role", "tool", "tool_call_id",
                                        calls[i].id, "name", calls[i].tool, "content",
                                        calls[i].result));
        free(calls[i].result);
    }
}

/* ---- the model ---- */

static void show_piece(void *user, const char *text)
{
    (void)user;
    channel_piece(text);
}

static json_t *all_tools(void)
{
    json_t *tools = tools_list();
    mcp_tools_add(tools);
    json_array_append_new(tools, json_pack("{s:s, s:s, s:{s:s, s:{s:{s:s}}}}", "name", "plan",
                                           "description", "Several tools, one after the other",
                                           "parameters", "type", "object", "properties", "steps",
                                           "type", "array"));
    return tools;
}

/* What the model said becomes part of the conversation; what it wants done, when that makes sense, is
 * returned (a new reference). */
static json_t *process_response(struct turn *t, struct llm_reply *reply)
{
    PUG_SPAN("agent.process_response", PUG_STR("gen_ai.provider.name", reply->provider));
    json_t *calls = json_array(), *one;
    size_t i;
    json_array_foreach(reply->tool_calls, i, one)
    {
        if (*string_at(one, "name") && json_is_object(json_object_get(one, "arguments")) &&
            json_array_size(calls) < BATCH_MAX)
            json_array_append(calls, one);
    }
    json_t *message = json_pack("{s:s, s:s}", "role", "assistant", "content", trim(reply->text));
    if (json_array_size(calls) > 0)
        json_object_set(message, "tool_calls", calls);
    json_array_append_new(t->context.messages, message);
    pug_set_int(PUG_CURRENT, "response.tool_calls", (int64_t)json_array_size(calls));
    pug_set_int(PUG_CURRENT, "response.size", (int64_t)strlen(reply->text));
    return calls;
}

static enum llm_task task_of(const struct turn *t)
{
    return strncasecmp(t->said, "plan:", 5) == 0 ? LLM_PLAN : t->context.code ? LLM_CODE : LLM_TALK;
}

/* The answer, for free(). */
static char *tool_loop(struct turn *t)
{
    PUG_SPAN("agent.tool_loop");
    json_t *tools = all_tools();
    char *answer = NULL;
    int round = 0;
    for (; !answer; round++) {
        struct llm_reply reply;
        queues_status("thinking");
        if (queues_cancelled(CANCEL_AGENT)) {
            answer = copy("(interrupted)");
        } else if (round >= settings.tool_rounds) {
            answer = copy("I give up: this takes too many steps.");
        } else if (llm_chat(task_of(t), t->context.messages, tools,
                            t->channel == CLI ? show_piece : NULL, NULL, &reply) != 0) {
            pug_error(PUG_CURRENT, "no model answered");
            answer = copy("I cannot think just now.");
            t->failed = true;
        } else {
            json_t *calls = process_response(t, &reply);
            if (json_array_size(calls) == 0) {
                answer = copy(trim(reply.text));
            } else {
                run_calls(t, calls);
                context_microcompact(t->context.messages);
            }
            json_decref(calls);
            llm_reply_done(&reply);
        }
    }
    json_decref(tools);
    pug_set_int(PUG_CURRENT, "tool_loop.rounds", round);
    return answer;
}

/* ---- the turn ---- */

static void answer_turn(struct turn *t)
{
    if (!history)
        restore_history();
    persist_message(t->channel, "user", t->said);
    prepare_context(t);
    AUTO_FREE char *answer = tool_loop(t);
    channel_send(t->channel, answer);
    persist_message(t->channel, "assistant", answer);
    if (t->tools.len == 0) /* what was to be done is no news */
        memory_remember(session, t->said);
    learning_after_turn(text_of(&t->tools), t->context.skill, t->failed);
}

void agent_turn(enum channel channel, const char *said, const struct pug_context *received)
{
    AUTO_FREE char *screened = copy(said);
    struct turn t = {.channel = channel, .said = screened};
    PUG_SPAN("agent.turn", PUG_STR("gen_ai.operation.name", "invoke_agent"),
             PUG_STR("gen_ai.agent.name", "example"), PUG_STR("gen_ai.conversation.id", session),
             PUG_STR("channel.name", channel_name(channel)));
    if (pug_context_valid(received))
        pug_link(PUG_CURRENT, received);
    queues_measure(METRIC_TURNS, 1);
    queues_status("reading");
    const char *why = security_prescreen(screened);
    if (why) {
        AUTO_TEXT struct text refusal = {0};
        text_addf(&refusal, "I will not read this: %s.", why);
        channel_send(channel, refusal.bytes);
    } else {
        answer_turn(&t);
    }
    json_decref(t.context.messages);
    text_done(&t.tools);
}
