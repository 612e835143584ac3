#include "mcp.h"

#include "http.h"
#include "queues.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <pugmark/pugmark.h>

#define SERVERS_MAX 8
#define ANSWER_MS 10000
#define ASKED_MS 120000 /* when the server asks the person in between */
#define REFRESH_MS 300000
#define VERSION "2025-06-18"

static struct server {
    char name[32], url[128]; /* url: "" for a program */
    struct child child;
    struct text pending; /* of its stdout */
    int64_t last_id;
    json_t *tools; /* as tools/list gave them */
    bool stale;    /* it said that they changed */
    uint64_t listed_ms;
} servers[SERVERS_MAX];
static size_t n_servers;

static const char *string_at(const json_t *object, const char *key)
{
    const char *s = json_string_value(json_object_get(object, key));
    return s ? s : "";
}

static const char *transport(const struct server *s)
{
    return *s->url ? "tcp" : "pipe";
}

/* ---- messages ---- */

static int send_message(struct server *s, json_t *message)
{
    AUTO_FREE char *text = need(json_dumps(message, JSON_COMPACT));
    AUTO_TEXT struct text line = {0};
    json_decref(message);
    text_addf(&line, "%s\n", text);
    return write_all(s->child.to, line.bytes, line.len);
}

/* What a server may want from us in the middle of a call. */
static void answer_server(struct server *s, const json_t *request)
{
    const char *method = string_at(request, "method");
    json_t *id = json_object_get(request, "id"), *answer;
    if (!id) {
        s->stale |= strcmp(method, "notifications/tools/list_changed") == 0;
        return;
    }
    if (strcmp(method, "elicitation/create") == 0) {
        bool yes = queues_elicit(string_at(json_object_get(request, "params"), "message"));
        answer = json_pack("{s:s, s:O, s:{s:s}}", "jsonrpc", "2.0", "id", id, "result", "action",
                           yes ? "accept" : "decline");
    } else if (strcmp(method, "ping") == 0) {
        answer = json_pack("{s:s, s:O, s:{}}", "jsonrpc", "2.0", "id", id, "result");
    } else {
        answer = json_pack("{s:s, s:O, s:{s:i, s:s}}", "jsonrpc", "2.0", "id", id, "error", "code",
                           -32601, "message", "no such method");
    }
    send_message(s, answer);
}

static json_t *ask_program(struct server *s, json_t *request)
{
    AUTO_TEXT struct text line = {0};
    uint64_t begin = now_ms();
    bool asked = false;
    if (send_message(s, request) != 0)
        return NULL;
    while (line_read(s->child.from, &s->pending, &line, asked ? ASKED_MS : ANSWER_MS)) {
        json_t *message = json_loads(line.bytes, 0, NULL);
        if (json_object_get(message, "method")) {
            asked = true;
            answer_server(s, message);
        } else if (json_integer_value(json_object_get(message, "id")) == s->last_id) {
            return message;
        } /* else the answer to a request that we gave up */
        json_decref(message);
        if (now_ms() - begin > ASKED_MS)
            break;
    }
    return NULL;
}

static json_t *ask_url(struct server *s, json_t *request)
{
    static const char *const headers[] = {"Accept: application/json, text/event-stream",
                                          "MCP-Protocol-Version: " VERSION, NULL};
    AUTO_FREE char *body = need(json_dumps(request, JSON_COMPACT));
    json_decref(request);
    struct http_call call = {
        .url = s->url, .headers = headers, .body = body, .timeout_ms = ANSWER_MS};
    struct http_answer answer;
    http_call(&call, &answer);
    json_t *message = http_json(&answer);
    http_done(&answer);
    return message;
}

/* A carrier: inject puts its fields here. */
static void carry_in_meta(void *meta, const char *name, const char *value)
{
    json_object_set_new(meta, name, json_string(value));
}

/* The result, a new reference; NULL when there is none, and the span says why. Takes `params`. */
static json_t *request(struct server *s, const char *method, json_t *params)
{
    json_t *meta = json_object();
    pug_inject(NULL, carry_in_meta, meta);
    if (json_object_size(meta) > 0)
        json_object_set(params, "_meta", meta);
    json_decref(meta);
    json_t *message = json_pack("{s:s, s:I, s:s, s:o}", "jsonrpc", "2.0", "id",
                                (json_int_t)++s->last_id, "method", method, "params", params);
    pug_set_str(PUG_CURRENT, "mcp.method.name", method);
    pug_set_str(PUG_CURRENT, "network.transport", transport(s));
    pug_set_int(PUG_CURRENT, "jsonrpc.request.id", s->last_id);
    json_t *answer = *s->url ? ask_url(s, message) : ask_program(s, message);
    json_t *result = json_incref(json_object_get(answer, "result"));
    if (!result) {
        const json_t *error = json_object_get(answer, "error");
        pug_set_str(PUG_CURRENT, "error.type", error ? "rpc_error" : "no_answer");
        pug_error(PUG_CURRENT, error ? string_at(error, "message") : "the server did not answer");
        say("%s: %s: %s", s->name, method, error ? string_at(error, "message") : "no answer");
    }
    json_decref(answer);
    return result;
}

static void notify(struct server *s, const char *method)
{
    json_t *message = json_pack("{s:s, s:s}", "jsonrpc", "2.0", "method", method);
    if (*s->url)
        json_decref(ask_url(s, message)); /* there is nothing to answer */
    else
        send_message(s, message);
}

/* ---- connecting ---- */

static int list_tools(struct server *s)
{
    PUG_SPAN("mcp.list_tools", PUG_KIND(PUG_KIND_CLIENT), PUG_STR("mcp.server", s->name));
    s->stale = false;
    s->listed_ms = now_ms();
    json_t *result = request(s, "tools/list", json_object());
    json_t *tools = json_object_get(result, "tools");
    if (json_is_array(tools)) {
        json_decref(s->tools);
        s->tools = json_incref(tools);
        pug_set_int(PUG_CURRENT, "mcp.tools", (int64_t)json_array_size(tools));
    }
    json_decref(result);
    return json_is_array(s->tools) ? 0 : -1;
}

static int initialize(struct server *s)
{
    json_t *result = request(s, "initialize",
                             json_pack("{s:s, s:{s:{}}, s:{s:s, s:s}}", "protocolVersion", VERSION,
                                       "capabilities", "elicitation", "clientInfo", "name",
                                       "pugmark-example-agent", "version", "1"));
    bool good = strcmp(string_at(result, "protocolVersion"), VERSION) == 0;
    if (result && !good)
        pug_error(PUG_CURRENT, "the server speaks another revision");
    json_decref(result);
    if (good)
        notify(s, "notifications/initialized");
    return good ? 0 : -1;
}

static void server_done(struct server *s)
{
    if (!*s->url)
        child_stop(&s->child);
    text_done(&s->pending);
    json_decref(s->tools);
    *s = (struct server){0};
}

/* Keeps the server when it answers. */
static int keep(struct server *s)
{
    if (initialize(s) != 0 || list_tools(s) != 0) {
        say("%s cannot be used", s->name);
        server_done(s);
        return -1;
    }
    n_servers++;
    return 0;
}

static struct server *server_new(const char *name)
{
    if (n_servers == SERVERS_MAX)
        die("too many servers");
    struct server *s = &servers[n_servers];
    *s = (struct server){.child = {.to = -1, .from = -1}};
    snprintf(s->name, sizeof s->name, "%s", name);
    return s;
}

int mcp_connect(const char *name, const char *program)
{
    struct server *s = server_new(name);
    PUG_SPAN("mcp.connect", PUG_KIND(PUG_KIND_CLIENT), PUG_STR("mcp.server", name));
    const char *const argv[] = {program, NULL};
    if (child_start(&s->child, argv) != 0) {
        pug_error(PUG_CURRENT, strerror(errno));
        say("%s: %s", program, strerror(errno));
        return -1;
    }
    return keep(s);
}

int mcp_connect_url(const char *name, const char *url)
{
    struct server *s = server_new(name);
    char path[64];
    int port;
    http_url_parts(url, path, sizeof path, &port);
    PUG_SPAN("mcp.connect_url", PUG_KIND(PUG_KIND_CLIENT), PUG_STR("mcp.server", name),
             PUG_STR("server.address", "127.0.0.1"), PUG_INT("server.port", port),
             PUG_STR("url.path", path));
    snprintf(s->url, sizeof s->url, "%s", url);
    return keep(s);
}

void mcp_shutdown(void)
{
    if (n_servers == 0)
        return;
    PUG_SPAN("mcp.shutdown", PUG_INT("mcp.servers", (int64_t)n_servers));
    while (n_servers > 0)
        server_done(&servers[--n_servers]);
}

/* ---- tools ---- */

static struct server *server_with(const char *tool)
{
    size_t i;
    json_t *one;
    for (struct server *s = servers; s < servers + n_servers; s++)
        json_array_foreach(s->tools, i, one)
        {
            if (strcmp(string_at(one, "name"), tool) == 0)
                return s;
        }
    return NULL;
}

bool mcp_have(const char *tool)
{
    return server_with(tool) != NULL;
}

void mcp_tools_add(json_t *tools)
{
    size_t i;
    json_t *one;
    for (struct server *s = servers; s < servers + n_servers; s++)
        json_array_foreach(s->tools, i, one)
        {
            json_array_append_new(tools,
                                  json_pack("{s:O, s:O, s:O}", "name", json_object_get(one, "name"),
                                            "description", json_object_get(one, "description"),
                                            "parameters", json_object_get(one, "inputSchema")));
        }
}

char *mcp_call_tool(const char *call_id, const char *tool, const json_t *arguments,
                    bool *ret_failed)
{
    struct server *s = server_with(tool);
    *ret_failed = true;
    if (!s)
        return copy("there is no such tool");
    PUG_SPAN("mcp.call_tool", PUG_KIND(PUG_KIND_CLIENT),
             PUG_STR("gen_ai.operation.name", "execute_tool"), PUG_STR("gen_ai.tool.name", tool),
             PUG_STR("gen_ai.tool.call.id", call_id), PUG_STR("mcp.server", s->name));
    json_t *result = request(s, "tools/call",
                             json_pack("{s:s, s:O}", "name", tool, "arguments", arguments));
    if (!result)
        return copy("the server did not do it");
    AUTO_TEXT struct text all = {0};
    size_t i;
    json_t *part;
    json_array_foreach(json_object_get(result, "content"), i, part)
    {
        text_addf(&all, "%s%s", i ? "\n" : "", string_at(part, "text"));
    }
    *ret_failed = json_is_true(json_object_get(result, "isError"));
    json_decref(result);
    if (*ret_failed) {
        pug_set_str(PUG_CURRENT, "error.type", "tool_error");
        pug_error(PUG_CURRENT, "the tool failed");
    }
    return copy(text_of(&all));
}

void mcp_refresh(void)
{
    bool any = false;
    for (size_t i = 0; i < n_servers; i++) {
        servers[i].stale |= now_ms() - servers[i].listed_ms > REFRESH_MS;
        any |= servers[i].stale;
    }
    if (!any)
        return;
    PUG_SPAN("mcp.tool_refresh");
    for (size_t i = 0; i < n_servers; i++)
        if (servers[i].stale)
            list_tools(&servers[i]);
}
