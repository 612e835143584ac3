#include "channels.h"

#include "http.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define LINE_MS 60000
#define BOT_TOKEN "7:stand-in" /* a real one would come from a secret store, never from a file */

static const char *const names[N_CHANNELS] = {"cli", "telegram", "discord", "slack"};
static const char *url_base;
static int input = -1, wake = -1;
static bool echoing, at_end;
static struct text pending;          /* of the input */
static bool in_pieces;               /* the answer has begun to be shown */
static struct pug_context receiving; /* the span in which the last message was received */

const char *channel_name(enum channel which)
{
    return names[which];
}

void channels_start(int fd, bool echo, int wake_fd, const char *url)
{
    input = fd;
    wake = wake_fd;
    echoing = echo;
    url_base = url;
}

void channels_stop(void)
{
    text_done(&pending);
}

static const char *string_at(const json_t *object, const char *key)
{
    const char *s = json_string_value(json_object_get(object, key));
    return s ? s : "";
}

/* ---- the terminal ---- */

/* True when there is something to read; false when we were woken. */
static bool input_waits(void)
{
    if (pending.len && memchr(pending.bytes, '\n', pending.len))
        return true;
    struct pollfd p[] = {{.fd = input, .events = POLLIN}, {.fd = wake, .events = POLLIN}};
    while (poll(p, 2, -1) < 0 && errno == EINTR)
        ;
    return !p[1].revents;
}

static char *next_line(void)
{
    struct text line = {0};
    if (!at_end && !line_read(input, &pending, &line, LINE_MS)) {
        at_end = true; /* what stands behind the last newline is a line too */
        text_add(&line, text_of(&pending));
        pending.len = 0;
        if (line.len == 0)
            text_done(&line);
    }
    if (line.bytes)
        text_clean(&line);
    return line.bytes;
}

static char *cli_receive(void)
{
    if (!echoing && !at_end) {
        printf("> ");
        fflush(stdout);
    }
    if (at_end || !input_waits())
        return NULL;
    PUG_SPAN("channel.cli", PUG_STR("channel.operation", "receive"));
    char *line = next_line();
    receiving = pug_context_current();
    if (line && echoing)
        printf("> %s\n", line);
    pug_set_int(PUG_CURRENT, "channel.message.size", line ? (int64_t)strlen(line) : 0);
    return line;
}

char *channel_ask(const char *question)
{
    printf("%s ", question);
    fflush(stdout);
    char *line = input_waits() ? next_line() : NULL;
    if (echoing)
        printf("%s\n", line ? line : "");
    return line;
}

void channel_piece(const char *text)
{
    printf("%s%s", in_pieces ? "" : "agent: ", text);
    fflush(stdout);
    in_pieces = true;
}

static void cli_send(const char *text)
{
    PUG_SPAN("channel.cli", PUG_STR("channel.operation", "send"),
             PUG_INT("channel.message.size", (int64_t)strlen(text)));
    if (in_pieces)
        printf("\n");
    else
        printf("agent: %s\n", text);
    fflush(stdout);
    in_pieces = false;
}

/* ---- services ---- */

/* `body` NULL: GET. The parsed answer of a 200, a new reference. Says in the span how it went. */
static json_t *service(const char *path, const char *authorization, json_t *body)
{
    char url[512];
    const char *const headers[] = {authorization, NULL};
    AUTO_FREE char *text = body ? need(json_dumps(body, JSON_COMPACT)) : NULL;
    json_decref(body);
    snprintf(url, sizeof url, "%s%s", url_base ? url_base : "", path);
    struct http_call call = {.url = url, .headers = authorization ? headers : NULL, .body = text};
    struct http_answer answer;
    http_call(&call, &answer);
    pug_set_str(PUG_CURRENT, "http.request.method", text ? "POST" : "GET");
    pug_set_int(PUG_CURRENT, "http.response.status_code", answer.status);
    json_t *object = http_json(&answer);
    if (!object) {
        pug_error(PUG_CURRENT, answer.error ? answer.error : "the service refused");
        say("a service refused: %s, status %d", answer.error ? answer.error : "-", answer.status);
    }
    http_done(&answer);
    return object;
}

/* A text of the service's, and which it was the last time. */
static char *received(const char *text, int64_t *last, int64_t id)
{
    *last = id;
    receiving = pug_context_current();
    pug_set_int(PUG_CURRENT, "channel.message.size", (int64_t)strlen(text));
    return copy(text);
}

static char *telegram_receive(void)
{
    static int64_t last;
    char path[128];
    PUG_SPAN("channel.telegram", PUG_KIND(PUG_KIND_CLIENT), PUG_STR("channel.operation", "receive"),
             PUG_STR("url.template", "/bot{token}/getUpdates"));
    snprintf(path, sizeof path, "/bot" BOT_TOKEN "/getUpdates?offset=%lld", (long long)last + 1);
    json_t *answer = service(path, NULL, NULL);
    json_t *update = json_array_get(json_object_get(answer, "result"), 0);
    char *text = update ? received(string_at(json_object_get(update, "message"), "text"), &last,
                                   json_integer_value(json_object_get(update, "update_id")))
                        : NULL;
    json_decref(answer);
    return text;
}

static void telegram_send(const char *text)
{
    PUG_SPAN("channel.telegram", PUG_KIND(PUG_KIND_CLIENT), PUG_STR("channel.operation", "send"),
             PUG_STR("url.template", "/bot{token}/sendMessage"));
    json_decref(service("/bot" BOT_TOKEN "/sendMessage", NULL,
                        json_pack("{s:i, s:s}", "chat_id", 7, "text", text)));
}

static char *discord_receive(void)
{
    static int64_t last;
    char path[128];
    PUG_SPAN("channel.discord", PUG_KIND(PUG_KIND_CLIENT), PUG_STR("channel.operation", "receive"),
             PUG_STR("url.template", "/api/v10/channels/{id}/messages"));
    snprintf(path, sizeof path, "/api/v10/channels/42/messages?after=%lld", (long long)last);
    json_t *answer = service(path, "Authorization: Bot " BOT_TOKEN, NULL);
    json_t *message = json_array_get(answer, 0);
    char *text = message ? received(string_at(message, "content"), &last,
                                    atoll(string_at(message, "id")))
                         : NULL;
    json_decref(answer);
    return text;
}

static void discord_send(const char *text)
{
    PUG_SPAN("channel.discord", PUG_KIND(PUG_KIND_CLIENT), PUG_STR("channel.operation", "send"),
             PUG_STR("url.template", "/api/v10/channels/{id}/messages"));
    json_decref(service("/api/v10/channels/42/messages", "Authorization: Bot " BOT_TOKEN,
                        json_pack("{s:s}", "content", text)));
}

/* Slack answers 200 also when it refuses. */
static json_t *slack(const char *path, json_t *body)
{
    json_t *answer = service(path, "Authorization: Bearer " BOT_TOKEN, body);
    if (answer && !json_is_true(json_object_get(answer, "ok")))
        pug_error(PUG_CURRENT, string_at(answer, "error"));
    return answer;
}

static char *slack_receive(void)
{
    static int64_t last;
    char path[128];
    PUG_SPAN("channel.slack", PUG_KIND(PUG_KIND_CLIENT), PUG_STR("channel.operation", "receive"),
             PUG_STR("url.template", "/api/conversations.history"));
    snprintf(path, sizeof path, "/api/conversations.history?channel=C1&oldest=%lld.000000",
             (long long)last);
    json_t *answer = slack(path, NULL);
    json_t *message = json_array_get(json_object_get(answer, "messages"), 0);
    char *text = message
                     ? received(string_at(message, "text"), &last, atoll(string_at(message, "ts")))
                     : NULL;
    json_decref(answer);
    return text;
}

static void slack_send(const char *text)
{
    PUG_SPAN("channel.slack", PUG_KIND(PUG_KIND_CLIENT), PUG_STR("channel.operation", "send"),
             PUG_STR("url.template", "/api/chat.postMessage"));
    json_decref(
        slack("/api/chat.postMessage", json_pack("{s:s, s:s}", "channel", "C1", "text", text)));
}

/* ---- all ---- */

char *channel_receive(enum channel which, struct pug_context *ret_received)
{
    char *text = NULL;
    receiving = (struct pug_context){0};
    switch (which) {
    case CLI:
        text = cli_receive();
        break;
    case TELEGRAM:
        text = telegram_receive();
        break;
    case DISCORD:
        text = discord_receive();
        break;
    case SLACK:
        text = slack_receive();
        break;
    case N_CHANNELS:
        break;
    }
    *ret_received = receiving;
    if (text && which != CLI)
        printf("[%s] visitor: %s\n", names[which], text);
    return text;
}

void channel_send(enum channel which, const char *text)
{
    switch (which) {
    case CLI:
        cli_send(text);
        return;
    case TELEGRAM:
        telegram_send(text);
        break;
    case DISCORD:
        discord_send(text);
        break;
    case SLACK:
        slack_send(text);
        break;
    case N_CHANNELS:
        return;
    }
    printf("[%s] agent: %s\n", names[which], text);
    fflush(stdout);
}
