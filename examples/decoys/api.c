/* The API: what users see of the attackers.
 *
 *   api --dir DIR [--port N]
 *
 *   POST   /auth/login               {"username":"admin","password":..}, answers {"token":..}
 *   POST   /auth/change-password     {"old_password":..,"new_password":..}
 *   GET    /logs                     ?limit= &offset= &search= &ip=
 *   GET    /logs/histogram           ?interval= (seconds)
 *   GET    /bounty                   ?limit=
 *   GET    /attackers                ?ip= &limit=
 *   GET    /attackers/{uuid}
 *   GET    /attackers/{uuid}/commands
 *   GET    /stats
 *   GET    /fleet/deckies
 *   POST   /fleet/deploy             {"deckies":[{"name":..,"service":..}]}
 *   POST   /fleet/mutate/{name}
 *   POST   /fleet/mutate-interval/{name}   {"interval_s":60}, null: everybody's, 0: never
 *   GET    /config
 *   PUT    /config/deployment-limit          {"deployment_limit":10}
 *   PUT    /config/global-mutation-interval  {"interval_s":3600}
 *   POST   /config/users             {"username":..,"password":..,"role":"viewer"}
 *   DELETE /config/users/{uuid}
 *   PUT    /config/users/{uuid}/role       {"role":"admin"}
 *   PUT    /config/users/{uuid}/password   {"new_password":..}
 *   POST   /config/reinit
 *   GET    /health                   needs no token, as the login
 *   GET    /stream                   server-sent events (api_stream.c)
 *
 * What changes something is for admins. Who got his password from an admin changes it first.
 *
 * Every request is a span named after its endpoint, child of the caller's span, and has an
 * X-Request-ID, the caller's or a new one, which comes back with the answer. libmicrohttpd gives
 * each connection a thread, so that scopes work, a stream may wait, and a password may take its time
 * to be hashed. */
#include "api.h"

#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define CONNECTIONS_MAX 64
#define CONNECTION_TIMEOUT_S 30

struct repository *repo;

/* ---- parameters ---- */

const char *parameter(const struct call *c, const char *name)
{
    return MHD_lookup_connection_value(c->connection, MHD_GET_ARGUMENT_KIND, name);
}

/* Between 0 and `most`; false when it is something else. */
bool number(const struct call *c, const char *name, int64_t preset, int64_t most, int64_t *ret)
{
    const char *text = parameter(c, name);
    char *end;
    errno = 0;
    long long n = text ? strtoll(text, &end, 10) : preset;
    if (text && (errno || end == text || *end || n < 0 || n > most))
        return false;
    *ret = n;
    return true;
}

json_t *body_object(const struct call *c)
{
    json_t *body = json_loadb(c->body, c->body_len, JSON_REJECT_DUPLICATES, NULL);
    if (!json_is_object(body)) {
        json_decref(body);
        return NULL;
    }
    return body;
}

int refused(struct call *c, int status, const char *what)
{
    json_decref(c->answer);
    c->answer = json_pack("{s:s}", "error", what);
    return status;
}

int bad(struct call *c, const char *what)
{
    return refused(c, MHD_HTTP_BAD_REQUEST, what);
}

int answered(int result)
{
    return result == 0 ? MHD_HTTP_OK : MHD_HTTP_INTERNAL_SERVER_ERROR;
}

int answer_row(struct call *c, json_t *rows)
{
    c->answer = json_incref(json_array_get(rows, 0));
    json_decref(rows);
    return c->answer ? MHD_HTTP_OK : MHD_HTTP_NOT_FOUND;
}

/* ---- routing ---- */

enum access { OPEN, USER, ADMIN };

static const struct endpoint {
    const char *method, *path, *span;
    endpoint_fn *answer; /* NULL: the stream */
    enum access access;
} endpoints[] = {
    {"POST", "/auth/login", "api.login", login, OPEN},
    {"POST", "/auth/change-password", "api.change_password", change_password, USER},
    {"GET", "/logs", "api.get_logs", get_logs, USER},
    {"GET", "/logs/histogram", "api.get_logs_histogram", get_logs_histogram, USER},
    {"GET", "/bounty", "api.get_bounties", get_bounties, USER},
    {"GET", "/attackers", "api.get_attackers", get_attackers, USER},
    {"GET", "/attackers/*", "api.get_attacker_detail", get_attacker_detail, USER},
    {"GET", "/attackers/*/commands", "api.get_attacker_commands", get_attacker_commands, USER},
    {"GET", "/stats", "api.get_stats", get_stats, USER},
    {"GET", "/fleet/deckies", "api.get_deckies", get_deckies, USER},
    {"POST", "/fleet/deploy", "api.deploy_deckies", deploy_deckies, ADMIN},
    {"POST", "/fleet/mutate/*", "api.mutate_decky", mutate, ADMIN},
    {"POST", "/fleet/mutate-interval/*", "api.update_mutate_interval", update_mutate_interval,
     ADMIN},
    {"GET", "/config", "api.get_config", get_config, USER},
    {"PUT", "/config/deployment-limit", "api.update_deployment_limit", update_deployment_limit,
     ADMIN},
    {"PUT", "/config/global-mutation-interval", "api.update_global_mutation_interval",
     update_global_mutation_interval, ADMIN},
    {"POST", "/config/users", "api.create_user", create_user, ADMIN},
    {"DELETE", "/config/users/*", "api.delete_user", delete_user, ADMIN},
    {"PUT", "/config/users/*/role", "api.update_user_role", update_user_role, ADMIN},
    {"PUT", "/config/users/*/password", "api.reset_user_password", reset_user_password, ADMIN},
    {"POST", "/config/reinit", "api.reinit", reinit, ADMIN},
    {"GET", "/health", "api.get_health", get_health, OPEN},
    {"GET", "/stream", "api.stream_events", NULL, USER},
};

/* '*' stands for one part of the path, which is copied. */
static bool path_matches(const char *pattern, const char *path, char *ret_part, size_t size)
{
    while (*pattern && *path) {
        if (*pattern == '*') {
            size_t n = strcspn(path, "/");
            if (n == 0 || n >= size)
                return false;
            memcpy(ret_part, path, n);
            ret_part[n] = '\0';
            path += n;
            pattern++;
        } else if (*pattern++ != *path++) {
            return false;
        }
    }
    return !*pattern && !*path;
}

bool caller_known(struct call *c)
{
    const char *header = MHD_lookup_connection_value(c->connection, MHD_HEADER_KIND,
                                                     "Authorization");
    json_t *rows;
    if (!header || strncasecmp(header, "Bearer ", 7) != 0 ||
        repo->get_session(repo, header + 7, &rows) != 0)
        return false;
    json_t *user = json_array_get(rows, 0);
    if (user) {
        snprintf(c->user, sizeof c->user, "%s", json_string_value(json_object_get(user, "uuid")));
        snprintf(c->name, sizeof c->name, "%s", json_string_value(json_object_get(user, "name")));
        c->is_admin = strcmp(json_string_value(json_object_get(user, "role")), "admin") == 0;
        c->must_change = json_integer_value(json_object_get(user, "must_change"));
    }
    json_decref(rows);
    return user != NULL;
}

/* 200 when he may, else why not. */
static int access_status(struct call *c, const struct endpoint *e)
{
    if (e->access == OPEN)
        return MHD_HTTP_OK;
    if (!caller_known(c))
        return MHD_HTTP_UNAUTHORIZED;
    if (c->must_change && e->answer != change_password)
        return refused(c, MHD_HTTP_FORBIDDEN, "change your password first");
    if (e->access == ADMIN && !c->is_admin)
        return refused(c, MHD_HTTP_FORBIDDEN, "this is for admins");
    return MHD_HTTP_OK;
}

enum MHD_Result send_answer(struct call *c, int status)
{
    if (!c->answer)
        c->answer = json_pack("{s:i}", "status", status);
    char *text = json_dumps(c->answer, JSON_COMPACT);
    struct MHD_Response *r = MHD_create_response_from_buffer(text ? strlen(text) : 0, text,
                                                             MHD_RESPMEM_MUST_FREE);
    if (!r) {
        free(text);
        return MHD_NO;
    }
    MHD_add_response_header(r, "Content-Type", "application/json");
    if (*c->request_id)
        MHD_add_response_header(r, "X-Request-ID", c->request_id);
    enum MHD_Result result = MHD_queue_response(c->connection, (unsigned)status, r);
    MHD_destroy_response(r);
    return result;
}

/* A carrier: extract asks for its fields here. */
struct header_search {
    const char *name;
    size_t nth;
    const char *value;
};

static enum MHD_Result header_look(void *arg, enum MHD_ValueKind kind, const char *name,
                                   const char *value)
{
    struct header_search *search = arg;
    (void)kind;
    if (strcasecmp(name, search->name) != 0 || search->nth-- > 0)
        return MHD_YES;
    search->value = value;
    return MHD_NO;
}

static const char *carried_in_headers(void *connection, const char *name, size_t nth,
                                      size_t *ret_len)
{
    struct header_search search = {.name = name, .nth = nth};
    (void)ret_len; /* terminated */
    MHD_get_connection_values(connection, MHD_HEADER_KIND, header_look, &search);
    return search.value;
}

void request_id_take(struct call *c, struct pug_span *span)
{
    pug_request_id(span, carried_in_headers, c->connection, NULL, NULL, c->request_id);
}

static enum MHD_Result serve(struct call *c, const char *method, const char *path)
{
    const struct endpoint *e = endpoints, *end = endpoints + sizeof endpoints / sizeof *endpoints;
    while (e < end && !(strcmp(e->method, method) == 0 &&
                        path_matches(e->path, path, c->part, sizeof c->part)))
        e++;
    if (e == end)
        return send_answer(c, MHD_HTTP_NOT_FOUND);
    if (c->too_large)
        return send_answer(c, MHD_HTTP_CONTENT_TOO_LARGE);

    struct pug_context caller;
    pug_extract(carried_in_headers, c->connection, &caller);
    if (!e->answer)
        return stream_events(c, &caller);
    PUG_SPAN_FROM(&caller, "api.request", PUG_KIND(PUG_KIND_SERVER),
                  PUG_STR("http.request.method", method), PUG_STR("http.route", e->path),
                  PUG_STR("url.path", path));
    pug_set_name(PUG_CURRENT, e->span);
    request_id_take(c, PUG_CURRENT);
    PUG_REQUEST_ID(c->request_id);
    int status = access_status(c, e);
    if (status == MHD_HTTP_OK)
        status = e->answer(c);
    pug_set_int(PUG_CURRENT, "http.response.status_code", status);
    if (status >= 500)
        pug_error(PUG_CURRENT, "the request could not be answered");
    return send_answer(c, status);
}

/* Called for the head, for each piece of the body, and once more at its end. */
static enum MHD_Result handle(void *arg, struct MHD_Connection *connection, const char *path,
                              const char *method, const char *version, const char *data,
                              size_t *data_len, void **state)
{
    (void)arg;
    (void)version;
    struct call *c = *state;
    if (!c) {
        *state = c = calloc(1, sizeof *c);
        if (c)
            c->connection = connection;
        return c ? MHD_YES : MHD_NO;
    }
    if (*data_len > 0) {
        c->too_large |= *data_len > API_BODY_BYTES_MAX - c->body_len;
        if (!c->too_large) {
            memcpy(c->body + c->body_len, data, *data_len);
            c->body_len += *data_len;
        }
        *data_len = 0;
        return MHD_YES;
    }
    return serve(c, method, path);
}

static void completed(void *arg, struct MHD_Connection *connection, void **state,
                      enum MHD_RequestTerminationCode code)
{
    (void)arg;
    (void)connection;
    (void)code;
    struct call *c = *state;
    if (c)
        json_decref(c->answer);
    free(c);
    *state = NULL;
}

/* ---- start ---- */

int main(int argc, char **argv)
{
    static const struct option options[] = {{"dir", 1, NULL, 'd'}, {"port", 1, NULL, 'p'}, {0}};
    const char *dir = NULL;
    uint16_t port = 0;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (c) {
        case 'd':
            dir = optarg;
            break;
        case 'p':
            port = (uint16_t)atoi(optarg);
            break;
        default:
            return 2;
        }
    }
    service_start("api", dir);
    repo = repository_open(run_path("decoys.db").text);
    make_admin();

    int listener = listen_loopback(&port);
    struct MHD_Daemon *daemon = MHD_start_daemon(
        MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_THREAD_PER_CONNECTION | MHD_USE_POLL, 0, NULL,
        NULL, handle, NULL, MHD_OPTION_LISTEN_SOCKET, listener, MHD_OPTION_CONNECTION_LIMIT,
        (unsigned)CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)CONNECTION_TIMEOUT_S,
        MHD_OPTION_NOTIFY_COMPLETED, completed, NULL, MHD_OPTION_END);
    if (!daemon)
        die("cannot serve on 127.0.0.1:%u", port);
    port_publish("api", port);
    while (wait_for(-1, -1))
        ;
    MHD_stop_daemon(daemon); /* closes the listener */
    repository_close(repo);
    service_stop();
    return 0;
}
