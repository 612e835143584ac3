/* The stand-in for what an agent talks to in the world: Telegram's, Discord's and Slack's HTTP APIs,
 * as far as a bot that reads and writes messages needs them, and a site with a page.
 *
 *   services                                    prints "port N" and serves until its stdin ends
 *
 *   GET  /botTOKEN/getUpdates?offset=N          POST /botTOKEN/sendMessage
 *   GET  /api/v10/channels/ID/messages?after=N  POST /api/v10/channels/ID/messages
 *   GET  /api/conversations.history?oldest=TS   POST /api/chat.postMessage
 *   GET  /site/releases                         a page
 *   POST /control/say {"service", "text"}       a person writes
 *
 * Facts: Telegram Bot API (getUpdates, sendMessage), Discord API v10 (channel messages), Slack Web
 * API (conversations.history, chat.postMessage). */
#include "common.h"
#include "serve.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MESSAGES_MAX 256 /* of each service; then the oldest are forgotten */

enum service { TELEGRAM, DISCORD, SLACK, N_SERVICES };
static const char *const names[N_SERVICES] = {"telegram", "discord", "slack"};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct message {
    int64_t id;
    bool from_bot;
    char *text;
} messages[N_SERVICES][MESSAGES_MAX];
static size_t counts[N_SERVICES];
static int64_t last_id = 1000;

static const char *string_at(const json_t *object, const char *key)
{
    const char *s = json_string_value(json_object_get(object, key));
    return s ? s : "";
}

static int64_t put_message(enum service which, bool from_bot, const char *text)
{
    pthread_mutex_lock(&lock);
    struct message *all = messages[which];
    if (counts[which] == MESSAGES_MAX) {
        free(all[0].text);
        memmove(all, all + 1, (MESSAGES_MAX - 1) * sizeof *all);
        counts[which]--;
    }
    int64_t id = ++last_id;
    all[counts[which]++] = (struct message){.id = id, .from_bot = from_bot, .text = copy(text)};
    pthread_mutex_unlock(&lock);
    return id;
}

/* What people wrote behind `after`, each as `show` makes it. */
static json_t *get_messages(enum service which, int64_t after,
                            json_t *(*show)(const struct message *))
{
    json_t *list = json_array();
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < counts[which]; i++)
        if (!messages[which][i].from_bot && messages[which][i].id > after)
            json_array_append_new(list, show(&messages[which][i]));
    pthread_mutex_unlock(&lock);
    return list;
}

/* ---- Telegram ---- */

static json_t *telegram_update(const struct message *m)
{
    return json_pack("{s:I, s:{s:I, s:{s:i, s:s}, s:{s:i, s:s}, s:s}}", "update_id",
                     (json_int_t)m->id, "message", "message_id", (json_int_t)m->id, "chat", "id", 7,
                     "type", "private", "from", "id", 7, "first_name", "Visitor", "text", m->text);
}

static void telegram(struct served *s)
{
    const char *method = strrchr(s->path, '/') + 1;
    /* The token is in the path: the template goes into the trace. */
    PUG_SPAN_FROM(&s->caller, "services.telegram", PUG_KIND(PUG_KIND_SERVER),
                  PUG_STR("http.request.method", s->method), PUG_STR("telegram.method", method));
    if (strcmp(method, "getUpdates") == 0)
        served_json(s, json_pack("{s:b, s:o}", "ok", 1, "result",
                                 get_messages(TELEGRAM, atoll(served_query(s, "offset")) - 1,
                                              telegram_update)));
    else if (strcmp(method, "sendMessage") == 0 && *string_at(s->json, "text"))
        served_json(s,
                    json_pack("{s:b, s:{s:I}}", "ok", 1, "result", "message_id",
                              (json_int_t)put_message(TELEGRAM, true, string_at(s->json, "text"))));
    else
        served_error(s, 400, "Bad Request");
    pug_set_int(PUG_CURRENT, "http.response.status_code", s->status);
}

/* ---- Discord ---- */

static json_t *discord_message(const struct message *m)
{
    char id[24];
    snprintf(id, sizeof id, "%lld", (long long)m->id); /* snowflakes are strings */
    return json_pack("{s:s, s:s, s:s, s:{s:s, s:s}}", "id", id, "channel_id", "42", "content",
                     m->text, "author", "id", "7", "username", "visitor");
}

static void discord(struct served *s)
{
    PUG_SPAN_FROM(&s->caller, "services.discord", PUG_KIND(PUG_KIND_SERVER),
                  PUG_STR("http.request.method", s->method), PUG_STR("url.path", s->path));
    if (strncmp(served_header(s, "Authorization"), "Bot ", 4) != 0) {
        served_error(s, 401, "Unauthorized");
    } else if (strcmp(s->method, "GET") == 0) {
        served_json(s, get_messages(DISCORD, atoll(served_query(s, "after")), discord_message));
    } else if (*string_at(s->json, "content")) {
        char id[24];
        snprintf(id, sizeof id, "%lld",
                 (long long)put_message(DISCORD, true, string_at(s->json, "content")));
        served_json(s, json_pack("{s:s}", "id", id));
    } else {
        served_error(s, 400, "Cannot send an empty message");
    }
    pug_set_int(PUG_CURRENT, "http.response.status_code", s->status);
}

/* ---- Slack ---- */

static json_t *slack_message(const struct message *m)
{
    char ts[32];
    snprintf(ts, sizeof ts, "%lld.000000", (long long)m->id);
    return json_pack("{s:s, s:s, s:s, s:s}", "type", "message", "user", "U7", "text", m->text, "ts",
                     ts);
}

static void slack(struct served *s)
{
    PUG_SPAN_FROM(&s->caller, "services.slack", PUG_KIND(PUG_KIND_SERVER),
                  PUG_STR("http.request.method", s->method), PUG_STR("url.path", s->path));
    /* Slack says 200 and "ok": false. */
    if (strncmp(served_header(s, "Authorization"), "Bearer ", 7) != 0) {
        served_json(s, json_pack("{s:b, s:s}", "ok", 0, "error", "not_authed"));
    } else if (strcmp(s->path, "/api/conversations.history") == 0) {
        served_json(
            s, json_pack("{s:b, s:o}", "ok", 1, "messages",
                         get_messages(SLACK, atoll(served_query(s, "oldest")), slack_message)));
    } else if (*string_at(s->json, "text")) {
        char ts[32];
        snprintf(ts, sizeof ts, "%lld.000000",
                 (long long)put_message(SLACK, true, string_at(s->json, "text")));
        served_json(s, json_pack("{s:b, s:s}", "ok", 1, "ts", ts));
    } else {
        served_json(s, json_pack("{s:b, s:s}", "ok", 0, "error", "no_text"));
    }
    pug_set_int(PUG_CURRENT, "http.response.status_code", s->status);
}

/* ---- a site, and people ---- */

static void page(struct served *s)
{
    PUG_SPAN_FROM(&s->caller, "services.page", PUG_KIND(PUG_KIND_SERVER),
                  PUG_STR("http.request.method", s->method), PUG_STR("url.path", s->path));
    if (strcmp(s->path, "/site/releases") == 0) {
        s->type = "text/html";
        text_add(&s->body, "<!doctype html><html><head><title>Releases</title>"
                           "<style>body { color: #222 }</style></head><body><h1>Kettle 2.1</h1>"
                           "<script>var ignored = '<p>not this</p>';</script>"
                           "<p>Boils faster &amp; whistles <b>softly</b>.</p></body></html>");
    } else {
        served_error(s, 404, "no such page");
    }
    pug_set_int(PUG_CURRENT, "http.response.status_code", s->status);
}

static void person_writes(struct served *s)
{
    for (size_t i = 0; i < N_SERVICES; i++)
        if (strcmp(names[i], string_at(s->json, "service")) == 0) {
            put_message((enum service)i, false, string_at(s->json, "text"));
            served_json(s, json_pack("{s:b}", "ok", 1));
            return;
        }
    served_error(s, 404, "no such service");
}

static void handle(struct served *s)
{
    if (strncmp(s->path, "/bot", 4) == 0 && strchr(s->path + 1, '/'))
        telegram(s);
    else if (strncmp(s->path, "/api/v10/channels/", 18) == 0)
        discord(s);
    else if (strcmp(s->path, "/api/conversations.history") == 0 ||
             strcmp(s->path, "/api/chat.postMessage") == 0)
        slack(s);
    else if (strcmp(s->path, "/control/say") == 0)
        person_writes(s);
    else
        page(s);
}

int main(void)
{
    service_wait_begin();
    service_start("services");
    service_wait(serve_start(handle));
    serve_stop();
    service_stop();
    for (size_t i = 0; i < N_SERVICES; i++)
        for (size_t j = 0; j < counts[i]; j++)
            free(messages[i][j].text);
    return 0;
}
