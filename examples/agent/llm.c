#include "llm.h"

#include "dialect.h"
#include "http.h"
#include "queues.h"
#include "settings.h"

#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <pugmark/pugmark.h>

#define TRIES 3            /* of one provider */
#define BACKOFF_MS 20      /* the first; doubles */
#define BACKOFF_MS_MAX 400 /* also of what a server asks for */
#define REQUEST_MS 5000    /* of what is not a chat */
#define ILL_MS 2000        /* a provider that failed is passed over that long */

static char base_url[128];
static const char *key = "";

/* When each provider is asked again; 0: it is well. */
static pthread_mutex_t health_lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t ill_until[N_DIALECTS];

/* The first is the one that suits; the others stand in for it. */
static const int order[][N_DIALECTS] = {
    [LLM_TALK] = {OLLAMA, GEMINI, CLAUDE, OPENAI, COMPATIBLE},
    [LLM_CODE] = {CLAUDE, OPENAI, GEMINI, COMPATIBLE, OLLAMA},
    [LLM_PLAN] = {OPENAI, CLAUDE, GEMINI, COMPATIBLE, OLLAMA},
    [LLM_SUMMARY] = {GEMINI, OLLAMA, OPENAI, CLAUDE, COMPATIBLE},
    [LLM_SKILL] = {COMPATIBLE, CLAUDE, OPENAI, GEMINI, OLLAMA},
};
static const char *const task_names[] = {"talk", "code", "plan", "summary", "skill"};

void llm_start(const char *url)
{
    const char *given = secure_getenv("AGENT_KEY");
    snprintf(base_url, sizeof base_url, "%s", url);
    key = given && *given ? given : "stand-in-key";
}

void llm_reply_done(struct llm_reply *r)
{
    free(r->text);
    json_decref(r->tool_calls);
    *r = (struct llm_reply){0};
}

/* ---- one provider ---- */

struct request {
    const struct dialect *dialect;
    const char *path, *body;
    int timeout_ms;
    bool stream;
    struct reading *reading;
    json_t *whole; /* the answer, when it is not streamed */
    struct text line;
};

/* Server-sent events and JSON lines alike: what matters are lines with an object. */
static bool take_piece(void *user, const char *bytes, size_t n)
{
    struct request *q = user;
    for (size_t i = 0; i < n; i++) {
        if (bytes[i] != '\n') {
            text_addn(&q->line, bytes + i, 1);
            continue;
        }
        const char *object = strncmp(text_of(&q->line), "data:", 5) == 0 ? q->line.bytes + 5
                                                                         : text_of(&q->line);
        json_t *event = json_loads(object, 0, NULL); /* NULL: "event: ...", "[DONE]", empty */
        if (json_is_object(event))
            q->dialect->take(q->reading, event);
        json_decref(event);
        q->line.len = 0;
        text_add(&q->line, "");
    }
    return q->line.len < (1u << 20);
}

/* 0, a status that is not 200, or -1 when there was no answer. */
static int http_request(struct request *q, int resend, long *ret_retry_after_ms)
{
    char url[256], path[128], key_line[160];
    const char *headers[3] = {0};
    size_t n = 0;
    int port;
    snprintf(url, sizeof url, "%s%s", base_url, q->path);
    http_url_parts(url, path, sizeof path, &port);
    PUG_SPAN("llm.http_request", PUG_KIND(PUG_KIND_CLIENT), PUG_STR("http.request.method", "POST"),
             PUG_STR("server.address", "127.0.0.1"), PUG_INT("server.port", port),
             PUG_STR("url.path", path));
    if (resend > 0)
        pug_set_int(PUG_CURRENT, "http.request.resend_count", resend);
    if (q->dialect->key_header) {
        snprintf(key_line, sizeof key_line, "%s%s", q->dialect->key_header, key);
        headers[n++] = key_line;
    }
    if (q->dialect->extra_header)
        headers[n++] = q->dialect->extra_header;
    struct http_call call = {.url = url,
                             .headers = headers,
                             .body = q->body,
                             .timeout_ms = q->timeout_ms,
                             .piece = q->stream ? take_piece : NULL,
                             .user = q};
    struct http_answer answer;
    int result = http_call(&call, &answer);
    *ret_retry_after_ms = answer.retry_after_ms;
    if (result != 0) {
        pug_set_str(PUG_CURRENT, "error.type", answer.error);
        pug_error(PUG_CURRENT, answer.error);
    } else {
        char type[16];
        snprintf(type, sizeof type, "%d", answer.status);
        pug_set_int(PUG_CURRENT, "http.response.status_code", answer.status);
        if (answer.status != 200) {
            pug_set_str(PUG_CURRENT, "error.type", type);
            pug_error(PUG_CURRENT, "the provider refused");
        } else if (!q->stream) {
            q->whole = http_json(&answer);
        }
        result = answer.status == 200 ? 0 : answer.status;
    }
    http_done(&answer);
    return result;
}

/* Asks until it works, as long as it makes sense to ask again. */
static int request_with_retry(struct request *q)
{
    long wait;
    int result = http_request(q, 0, &wait);
    for (int resend = 1; resend < TRIES; resend++) {
        bool transient = result == 429 || (result >= 500 && result != 501);
        if (!transient || q->reading->text.len > 0) /* what was shown cannot be taken back */
            break;
        if (wait < 0)
            wait = BACKOFF_MS << (resend - 1);
        if (wait > BACKOFF_MS_MAX)
            wait = BACKOFF_MS_MAX;
        PUG_SPAN("llm.retry", PUG_INT("http.request.resend_count", resend),
                 PUG_INT("retry.backoff_ms", wait), PUG_INT("retry.after_status", result));
        poll(NULL, 0, (int)wait);
        result = http_request(q, resend, &wait);
    }
    return result;
}

static int finish_reading(struct reading *r, const struct dialect *d, struct llm_reply *ret)
{
    json_t *calls = json_array();
    for (size_t i = 0; i < r->n_calls; i++) {
        json_t *arguments = json_loads(text_of(&r->calls[i].arguments), 0, NULL);
        json_array_append_new(calls, json_pack("{s:s, s:s, s:o}", "id", r->calls[i].id, "name",
                                               r->calls[i].name, "arguments",
                                               arguments ? arguments : json_object()));
    }
    pug_set_str(PUG_CURRENT, "gen_ai.response.model", r->model);
    pug_set_str(PUG_CURRENT, "gen_ai.response.finish_reasons", r->finish);
    pug_set_int(PUG_CURRENT, "gen_ai.usage.input_tokens", r->input_tokens);
    pug_set_int(PUG_CURRENT, "gen_ai.usage.output_tokens", r->output_tokens);
    queues_measure(METRIC_TOKENS, r->input_tokens + r->output_tokens);
    *ret = (struct llm_reply){.text = copy(text_of(&r->text)),
                              .tool_calls = calls,
                              .provider = d->name,
                              .input_tokens = r->input_tokens,
                              .output_tokens = r->output_tokens};
    return 0;
}

static int failed(int result)
{
    char type[16];
    snprintf(type, sizeof type, "%d", result);
    pug_set_str(PUG_CURRENT, "error.type", result > 0 ? type : "no_answer");
    pug_error(PUG_CURRENT, "no answer of this provider");
    return -1;
}

static int ask(struct request *q, struct llm_reply *ret)
{
    int result = request_with_retry(q);
    if (result == 0 && !q->stream && !q->whole)
        result = -1; /* not JSON */
    if (result == 0 && !q->stream)
        q->dialect->take(q->reading, q->whole);
    result = result == 0 ? finish_reading(q->reading, q->dialect, ret) : failed(result);
    json_decref(q->whole);
    text_done(&q->line);
    return result;
}

static int chat(const struct dialect *d, const char *body, struct reading *r, struct llm_reply *ret)
{
    PUG_SPAN("llm.chat", PUG_STR("gen_ai.operation.name", "chat"),
             PUG_STR("gen_ai.provider.name", d->provider),
             PUG_STR("gen_ai.request.model", d->model));
    struct request q = {.dialect = d,
                        .path = d->chat_path,
                        .body = body,
                        .reading = r,
                        .timeout_ms = settings.request_ms};
    return ask(&q, ret);
}

static int chat_stream(const struct dialect *d, const char *body, struct reading *r,
                       struct llm_reply *ret)
{
    PUG_SPAN("llm.chat_stream", PUG_STR("gen_ai.operation.name", "chat"),
             PUG_STR("gen_ai.provider.name", d->provider),
             PUG_STR("gen_ai.request.model", d->model), PUG_BOOL("gen_ai.request.stream", true));
    struct request q = {.dialect = d,
                        .path = d->stream_path,
                        .body = body,
                        .stream = true,
                        .reading = r,
                        .timeout_ms = settings.request_ms};
    return ask(&q, ret);
}

/* ---- which provider ---- */

static bool is_ill(int which)
{
    pthread_mutex_lock(&health_lock);
    bool ill = ill_until[which] > now_ms();
    pthread_mutex_unlock(&health_lock);
    return ill;
}

static void note_health(int which, bool well)
{
    pthread_mutex_lock(&health_lock);
    ill_until[which] = well ? 0 : now_ms() + ILL_MS;
    pthread_mutex_unlock(&health_lock);
}

int llm_chat(enum llm_task task, const json_t *messages, const json_t *tools,
             void (*on_text)(void *user, const char *text), void *user, struct llm_reply *ret)
{
    PUG_SPAN("llm.router", PUG_STR("router.task", task_names[task]));
    int tried = 0;
    for (int pass = 0; pass < 2; pass++) { /* the ill ones only when there is nobody else */
        for (size_t i = 0; i < N_DIALECTS; i++) {
            const struct dialect *d = &dialects[order[task][i]];
            if (is_ill(order[task][i]) != (pass == 1))
                continue;
            json_t *request = d->request(d, messages, tools, NULL, on_text != NULL);
            AUTO_FREE char *body = need(json_dumps(request, JSON_COMPACT));
            json_decref(request);
            struct reading r = {.on_text = on_text, .user = user};
            int result = on_text ? chat_stream(d, body, &r, ret) : chat(d, body, &r, ret);
            bool shown = r.text.len > 0;
            reading_done(&r);
            note_health(order[task][i], result == 0);
            tried++;
            if (result == 0) {
                pug_set_str(PUG_CURRENT, "router.provider", d->name);
                pug_set_int(PUG_CURRENT, "router.tried", tried);
                return 0;
            }
            pug_event(PUG_CURRENT, "router.passed_over", PUG_STR("provider", d->name));
            if (on_text && shown)
                goto none; /* half an answer was shown: another one behind it would be worse */
        }
    }
none:
    pug_error(PUG_CURRENT, "no provider answered");
    return -1;
}

/* ---- embeddings and extraction ---- */

int llm_embed(const char *text, float ret[EMBED_DIM])
{
    PUG_SPAN("llm.embed", PUG_STR("gen_ai.operation.name", "embeddings"),
             PUG_STR("gen_ai.provider.name", "ollama"),
             PUG_STR("gen_ai.request.model", "embed-stand-in"),
             PUG_INT("gen_ai.embeddings.dimension.count", EMBED_DIM));
    json_t *request = json_pack("{s:s, s:s}", "model", "embed-stand-in", "input", text);
    AUTO_FREE char *body = need(json_dumps(request, JSON_COMPACT));
    json_decref(request);
    struct reading none = {0};
    struct request q = {.dialect = &dialects[OLLAMA],
                        .path = "/api/embed",
                        .body = body,
                        .reading = &none,
                        .timeout_ms = REQUEST_MS};
    int result = request_with_retry(&q);
    json_t *vector = json_array_get(json_object_get(q.whole, "embeddings"), 0), *x;
    size_t i;
    if (result == 0 && json_array_size(vector) == EMBED_DIM) {
        json_array_foreach(vector, i, x)
        {
            ret[i] = (float)json_number_value(x);
        }
        pug_set_int(PUG_CURRENT, "gen_ai.usage.input_tokens",
                    json_integer_value(json_object_get(q.whole, "prompt_eval_count")));
    } else {
        result = failed(result);
    }
    json_decref(q.whole);
    return result;
}

json_t *llm_extract(const char *text, json_t *schema)
{
    const struct dialect *d = &dialects[OLLAMA];
    PUG_SPAN("llm.extract", PUG_STR("gen_ai.operation.name", "chat"),
             PUG_STR("gen_ai.provider.name", d->provider),
             PUG_STR("gen_ai.request.model", d->model), PUG_STR("gen_ai.output.type", "json"));
    json_t *messages = json_pack("[{s:s, s:s}]", "role", "user", "content", text);
    json_t *request = d->request(d, messages, NULL, schema, false);
    AUTO_FREE char *body = need(json_dumps(request, JSON_COMPACT));
    json_decref(request);
    json_decref(messages);
    json_decref(schema);
    struct reading r = {0};
    struct llm_reply reply;
    struct request q = {
        .dialect = d, .path = d->chat_path, .body = body, .reading = &r, .timeout_ms = REQUEST_MS};
    json_t *found = NULL;
    if (ask(&q, &reply) == 0) {
        found = json_loads(reply.text, 0, NULL);
        llm_reply_done(&reply);
        if (!found)
            pug_error(PUG_CURRENT, "the answer is not what was asked for");
    }
    reading_done(&r);
    return found;
}
