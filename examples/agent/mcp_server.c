/* A small server of the Model Context Protocol (JSON-RPC 2.0; revision 2025-06-18).
 *
 *   mcp_server            notes, over stdin and stdout: a message a line
 *   mcp_server --http     unit conversion, over HTTP: prints "port N"; POST /mcp
 *
 * The trace comes in as `_meta.traceparent` of the parameters, over HTTP also in the headers. The
 * notes live as long as the process. `notes_clear` exists only while there are notes (the list of
 * tools changes, and the server says so), and asks the person first: an elicitation, which is a
 * request from the server to its client in the middle of a call. */
#include "common.h"
#include "serve.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOTES_MAX 1000
#define ANSWER_MS 60000 /* how long a person may think */
#define IDLE_MS 3600000

enum { PARSE_ERROR = -32700, METHOD_NOT_FOUND = -32601, INVALID_PARAMS = -32602 };

static bool over_http;
static json_t *notes;
static struct text pending; /* of stdin */

static const char *string_at(const json_t *object, const char *key)
{
    const char *s = json_string_value(json_object_get(object, key));
    return s ? s : "";
}

static void send_message(json_t *message)
{
    AUTO_FREE char *text = need(json_dumps(message, JSON_COMPACT));
    json_decref(message);
    printf("%s\n", text);
    fflush(stdout);
}

static json_t *result_of(const json_t *request, json_t *result)
{
    return json_pack("{s:s, s:O?, s:o}", "jsonrpc", "2.0", "id", json_object_get(request, "id"),
                     "result", result);
}

static json_t *error_of(const json_t *request, int code, const char *message)
{
    json_t *id = json_object_get(request, "id");
    return json_pack("{s:s, s:o, s:{s:i, s:s}}", "jsonrpc", "2.0", "id",
                     id ? json_incref(id) : json_null(), "error", "code", code, "message", message);
}

static json_t *text_result(const char *text, bool is_error)
{
    return json_pack("{s:[{s:s, s:s}], s:b}", "content", "type", "text", "text", text, "isError",
                     is_error);
}

static json_t *tool(const char *name, const char *description, const char *argument)
{
    json_t *schema = json_pack("{s:s, s:{}}", "type", "object", "properties");
    if (argument) {
        json_object_set_new(json_object_get(schema, "properties"), argument,
                            json_pack("{s:s}", "type", "string"));
        json_object_set_new(schema, "required", json_pack("[s]", argument));
    }
    return json_pack("{s:s, s:s, s:o}", "name", name, "description", description, "inputSchema",
                     schema);
}

/* ---- notes ---- */

/* Asks the person through the client; true when he accepts. */
static bool elicit(const char *question)
{
    static int asked;
    char id[24];
    snprintf(id, sizeof id, "elicit-%d", ++asked);
    PUG_SPAN("mcp_server.elicit");
    send_message(json_pack("{s:s, s:s, s:s, s:{s:s, s:{s:s, s:{}}}}", "jsonrpc", "2.0", "id", id,
                           "method", "elicitation/create", "params", "message", question,
                           "requestedSchema", "type", "object", "properties"));
    struct text line = {0};
    bool accepted = false;
    if (line_read(0, &pending, &line, ANSWER_MS)) {
        json_t *answer = json_loads(line.bytes, 0, NULL);
        accepted = strcmp(string_at(answer, "id"), id) == 0 &&
                   strcmp(string_at(json_object_get(answer, "result"), "action"), "accept") == 0;
        json_decref(answer);
    }
    text_done(&line);
    pug_set_bool(PUG_CURRENT, "accepted", accepted);
    return accepted;
}

static void tools_changed(void)
{
    send_message(
        json_pack("{s:s, s:s}", "jsonrpc", "2.0", "method", "notifications/tools/list_changed"));
}

static json_t *notes_call(const char *name, const json_t *arguments)
{
    if (strcmp(name, "notes_add") == 0) {
        const char *text = string_at(arguments, "text");
        if (!*text || json_array_size(notes) >= NOTES_MAX)
            return text_result("there is no room, or no text", true);
        json_array_append_new(notes, json_string(text));
        if (json_array_size(notes) == 1)
            tools_changed();
        return text_result("Noted down.", false);
    }
    if (strcmp(name, "notes_list") == 0) {
        struct text all = {0};
        size_t i;
        json_t *note;
        json_array_foreach(notes, i, note)
        {
            text_addf(&all, "%s%zu. %s", i ? "\n" : "", i + 1, json_string_value(note));
        }
        json_t *result = text_result(all.len ? all.bytes : "There are no notes.", false);
        text_done(&all);
        return result;
    }
    if (strcmp(name, "notes_clear") == 0 && json_array_size(notes) > 0) {
        if (!elicit("Throw all notes away?"))
            return text_result("The notes are kept.", false);
        json_array_clear(notes);
        tools_changed();
        return text_result("The notes are gone.", false);
    }
    return NULL;
}

static json_t *notes_tools(void)
{
    json_t *list = json_pack("[o, o]", tool("notes_add", "Writes a note down", "text"),
                             tool("notes_list", "Shows all notes", NULL));
    if (json_array_size(notes) > 0)
        json_array_append_new(list, tool("notes_clear", "Throws all notes away", NULL));
    return list;
}

/* ---- conversion ---- */

static json_t *convert_call(const char *name, const json_t *arguments)
{
    static const struct {
        const char *from, *to;
        double factor;
    } units[] = {{"miles", "km", 1.609344}, {"pounds", "kg", 0.45359237}, {"inches", "cm", 2.54}};
    double amount;
    char unit[16], text[64];
    if (strcmp(name, "convert") != 0)
        return NULL;
    if (sscanf(string_at(arguments, "quantity"), "%lf %15s", &amount, unit) == 2)
        for (size_t i = 0; i < sizeof units / sizeof *units; i++)
            if (strcmp(units[i].from, unit) == 0) {
                snprintf(text, sizeof text, "%g %s are %.2f %s", amount, unit,
                         amount * units[i].factor, units[i].to);
                return text_result(text, false);
            }
    return text_result("a number, and miles, pounds or inches", true);
}

/* ---- the protocol ---- */

static json_t *initialize(const json_t *request)
{
    PUG_SPAN("mcp_server.initialize");
    return result_of(request,
                     json_pack("{s:s, s:{s:{s:b}}, s:{s:s, s:s}}", "protocolVersion", "2025-06-18",
                               "capabilities", "tools", "listChanged", !over_http, "serverInfo",
                               "name", over_http ? "convert" : "notes", "version", "1"));
}

static json_t *list_tools(const json_t *request)
{
    PUG_SPAN("mcp_server.list_tools");
    json_t *list = over_http ? json_pack("[o]", tool("convert", "Converts units", "quantity"))
                             : notes_tools();
    return result_of(request, json_pack("{s:o}", "tools", list));
}

static json_t *call_tool(const json_t *request, const json_t *params)
{
    const char *name = string_at(params, "name");
    const json_t *arguments = json_object_get(params, "arguments");
    PUG_SPAN("mcp_server.call_tool", PUG_STR("gen_ai.tool.name", name));
    json_t *result = over_http ? convert_call(name, arguments) : notes_call(name, arguments);
    if (!result)
        return error_of(request, INVALID_PARAMS, "no such tool");
    if (json_is_true(json_object_get(result, "isError")))
        pug_set_str(PUG_CURRENT, "error.type", "tool_error");
    return result_of(request, result);
}

/* A carrier: extract asks for its fields here. */
static const char *carried_in_meta(void *meta, const char *name, size_t nth, size_t *ret_len)
{
    (void)ret_len; /* terminated */
    return nth == 0 ? json_string_value(json_object_get(meta, name)) : NULL;
}

/* The answer, or NULL when there is none to give (a notification). */
static json_t *answer_to(const json_t *request, const struct pug_context *caller)
{
    const char *method = string_at(request, "method");
    json_t *params = json_object_get(request, "params");
    struct pug_context context;
    if (pug_extract(carried_in_meta, json_object_get(params, "_meta"), &context) != 1 && caller)
        context = *caller;
    PUG_SPAN_FROM(&context, "mcp_server.request", PUG_KIND(PUG_KIND_SERVER),
                  PUG_STR("mcp.method.name", method),
                  PUG_STR("network.transport", over_http ? "tcp" : "pipe"));
    if (!json_object_get(request, "id"))
        return NULL;
    if (strcmp(method, "initialize") == 0)
        return initialize(request);
    if (strcmp(method, "tools/list") == 0)
        return list_tools(request);
    if (strcmp(method, "tools/call") == 0)
        return call_tool(request, params);
    if (strcmp(method, "ping") == 0)
        return result_of(request, json_object());
    pug_error(PUG_CURRENT, "no such method");
    return error_of(request, METHOD_NOT_FOUND, "no such method");
}

static void handle_http(struct served *s)
{
    if (strcmp(s->path, "/mcp") != 0 || strcmp(s->method, "POST") != 0) {
        served_error(s, 404, "POST /mcp");
        return;
    }
    json_t *answer = s->json ? answer_to(s->json, &s->caller)
                             : error_of(NULL, PARSE_ERROR, "this is not JSON");
    if (answer)
        served_json(s, answer);
    else
        s->status = 202;
}

static void serve_stdio(void)
{
    struct text line = {0};
    notes = json_array();
    while (line_read(0, &pending, &line, IDLE_MS)) {
        json_t *request = json_loads(line.bytes, 0, NULL);
        json_t *answer = request ? answer_to(request, NULL)
                                 : error_of(NULL, PARSE_ERROR, "this is not JSON");
        if (answer)
            send_message(answer);
        json_decref(request);
    }
    json_decref(notes);
    text_done(&line);
    text_done(&pending);
}

int main(int argc, char **argv)
{
    over_http = argc > 1 && strcmp(argv[1], "--http") == 0;
    if (over_http)
        service_wait_begin();
    service_start(over_http ? "mcp-convert" : "mcp-notes");
    if (over_http) {
        service_wait(serve_start(handle_http));
        serve_stop();
    } else {
        serve_stdio();
    }
    service_stop();
    return 0;
}
