/* The API: what users see of the attackers.
 *
 *   api --dir DIR [--port N]
 *
 *   POST /auth/login              {"username":"admin","password":..}, answers {"token":..}
 *   GET  /logs                    ?limit= &offset= &search= &ip=
 *   GET  /logs/histogram          ?interval= (seconds)
 *   GET  /bounty                  ?limit=
 *   GET  /attackers               ?ip= &limit=
 *   GET  /attackers/{uuid}
 *   GET  /attackers/{uuid}/commands
 *   GET  /stats
 *   GET  /health                  needs no token, as the login
 *   GET  /stream                  server-sent events: rows as they come
 *
 * Every request is a span named after its endpoint, child of the caller's span. Fourth bridge: a
 * row names the span that put it there, and `sse.emit_logs` links to those: what a user saw leads
 * back to how it came in.
 *
 * libmicrohttpd gives each connection a thread, so that scopes work and a stream may wait. */
#include "common.h"
#include "repository.h"

#include <crypt.h>
#include <errno.h>
#include <getopt.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define BODY_BYTES_MAX 4096
#define CONNECTIONS_MAX 64
#define CONNECTION_TIMEOUT_S 30
#define STREAM_POLL_MS 50
#define STREAM_COMMENT_MS 5000
#define STREAM_ROWS_MAX 200

static struct repository *repo;
static char no_such_user_hash[CRYPT_OUTPUT_SIZE];

/* A request under way. */
struct call {
    struct MHD_Connection *connection;
    const char *part; /* of the path: what stood for '*' */
    char body[BODY_BYTES_MAX + 1];
    size_t body_len;
    bool too_large;
    json_t *answer;
};

/* ---- parameters ---- */

static const char *parameter(const struct call *c, const char *name)
{
    return MHD_lookup_connection_value(c->connection, MHD_GET_ARGUMENT_KIND, name);
}

/* Between 0 and `most`; false when it is something else. */
static bool number(const struct call *c, const char *name, int64_t preset, int64_t most,
                   int64_t *ret)
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

static int bad(struct call *c, const char *what)
{
    c->answer = json_pack("{s:s}", "error", what);
    return MHD_HTTP_BAD_REQUEST;
}

static int answered(int result)
{
    return result == 0 ? MHD_HTTP_OK : MHD_HTTP_INTERNAL_SERVER_ERROR;
}

/* ---- endpoints: each returns the status and fills the answer ---- */

static int login(struct call *c)
{
    json_t *body = json_loadb(c->body, c->body_len, 0, NULL);
    const char *user = json_string_value(json_object_get(body, "username"));
    const char *password = json_string_value(json_object_get(body, "password"));
    AUTO_FREE char *hash = NULL;
    int status = MHD_HTTP_BAD_REQUEST;
    if (!user || !password) {
        bad(c, "username and password are missing");
    } else if (repo->get_user(repo, user, &hash) != 0) {
        status = MHD_HTTP_INTERNAL_SERVER_ERROR;
    } else {
        /* The same work for users that do not exist, so that time does not tell. */
        struct crypt_data scratch = {0};
        const char *expected = hash ? hash : no_such_user_hash;
        const char *got = crypt_r(password, expected, &scratch);
        char token[65];
        random_hex(token, 32);
        status = MHD_HTTP_UNAUTHORIZED;
        if (hash && got && strcmp(got, hash) == 0)
            status = answered(repo->add_session(repo, token, user));
        if (status == MHD_HTTP_OK)
            c->answer = json_pack("{s:s}", "token", token);
    }
    json_decref(body);
    return status;
}

static int get_logs(struct call *c)
{
    struct log_filter f = {.search = parameter(c, "search"), .attacker_ip = parameter(c, "ip")};
    if (!number(c, "limit", 50, 1000, &f.limit) || !number(c, "offset", 0, INT64_MAX, &f.offset))
        return bad(c, "limit is a number up to 1000, offset a number");
    return answered(repo->get_logs(repo, &f, &c->answer));
}

static int get_logs_histogram(struct call *c)
{
    int64_t interval_s;
    if (!number(c, "interval", 60, 86400, &interval_s) || interval_s == 0)
        return bad(c, "interval is a number of seconds, 1 to 86400");
    return answered(repo->get_logs_histogram(repo, interval_s, &c->answer));
}

static int get_bounties(struct call *c)
{
    int64_t limit;
    if (!number(c, "limit", 50, 1000, &limit))
        return bad(c, "limit is a number up to 1000");
    return answered(repo->get_bounties(repo, limit, &c->answer));
}

static int get_attackers(struct call *c)
{
    int64_t limit;
    if (!number(c, "limit", 50, 1000, &limit))
        return bad(c, "limit is a number up to 1000");
    return answered(repo->get_attackers(repo, parameter(c, "ip"), limit, &c->answer));
}

static int get_attacker_detail(struct call *c)
{
    json_t *rows;
    if (repo->get_attacker_detail(repo, c->part, &rows) != 0)
        return MHD_HTTP_INTERNAL_SERVER_ERROR;
    c->answer = json_incref(json_array_get(rows, 0));
    json_decref(rows);
    return c->answer ? MHD_HTTP_OK : MHD_HTTP_NOT_FOUND;
}

static int get_attacker_commands(struct call *c)
{
    return answered(repo->get_attacker_commands(repo, c->part, &c->answer));
}

static int get_stats(struct call *c)
{
    json_t *rows;
    if (repo->get_stats(repo, &rows) != 0)
        return MHD_HTTP_INTERNAL_SERVER_ERROR;
    c->answer = json_incref(json_array_get(rows, 0));
    json_decref(rows);
    return MHD_HTTP_OK;
}

static int get_health(struct call *c)
{
    c->answer = json_pack("{s:s, s:I}", "status", "ok", "newest_log",
                          (json_int_t)repository_newest_log(repo));
    return MHD_HTTP_OK;
}

/* ---- the stream ---- */

struct stream {
    struct pug_span span; /* the whole answer: it ends when the user goes */
    int fd;               /* the connection's, to notice that */
    int64_t seen;         /* the last row that was sent */
    char *text;           /* what waits to be sent */
    size_t at, len;
    uint64_t comment_at_ns;
    int64_t n_events;
};

/* One event with the rows that are new. */
static void emit_logs(struct stream *s)
{
    PUG_ATTACH(&s->span.context);
    PUG_SPAN("sse.emit_logs");
    struct log_rows rows;
    if (repo->get_logs_after(repo, s->seen, STREAM_ROWS_MAX, &rows) != 0) {
        pug_error(PUG_CURRENT, "the rows could not be read");
        return;
    }
    const struct log_row **all = calloc(rows.n + 1, sizeof(const struct log_row *));
    json_t *data = json_array();
    for (size_t i = 0; all && i < rows.n; i++) {
        const struct log_row *row = all[i] = &rows.items[i];
        json_array_append_new(data, json_pack("{s:I, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "id",
                                              (json_int_t)row->id, "timestamp", row->timestamp,
                                              "decky", row->decky, "service", row->service,
                                              "event_type", row->event_type, "attacker_ip",
                                              row->attacker_ip, "message", row->message, "trace_id",
                                              row->trace_id, "span_id", row->span_id));
        s->seen = row->id;
    }
    if (all && rows.n > 0) {
        rows_link(all, rows.n, NULL, NULL);
        pug_set_int(PUG_CURRENT, "rows", (int64_t)rows.n);
        AUTO_FREE char *text = json_dumps(data, JSON_COMPACT);
        int n = asprintf(&s->text, "id: %lld\nevent: logs\ndata: %s\n\n", (long long)s->seen, text);
        s->at = 0;
        s->len = n > 0 ? (size_t)n : 0;
        s->n_events++;
    }
    json_decref(data);
    free(all);
    log_rows_free(&rows);
}

/* libmicrohttpd asks for the next bytes; this thread belongs to the connection and may wait. */
static ssize_t stream_read(void *arg, uint64_t position, char *out, size_t max)
{
    struct stream *s = arg;
    (void)position;
    while (s->at == s->len) {
        free(s->text);
        s->text = NULL;
        s->at = s->len = 0;
        struct pollfd p[] = {{.fd = stop_fd(), .events = POLLIN},
                             {.fd = s->fd, .events = POLLRDHUP}};
        if (now_ns() >= s->comment_at_ns) { /* at once, and then to keep the connection awake */
            s->text = strdup(": decoys\n\n");
            s->len = s->text ? strlen(s->text) : 0;
            s->comment_at_ns = now_ns() + STREAM_COMMENT_MS * UINT64_C(1000000);
        } else if (repository_newest_log(repo) > s->seen) {
            emit_logs(s);
        } else if (poll(p, 2, STREAM_POLL_MS) > 0) {
            return MHD_CONTENT_READER_END_OF_STREAM; /* the user went, or we have to */
        }
    }
    size_t n = s->len - s->at < max ? s->len - s->at : max;
    memcpy(out, s->text + s->at, n);
    s->at += n;
    return (ssize_t)n;
}

static void stream_end(void *arg)
{
    struct stream *s = arg;
    pug_set_int(&s->span, "events", s->n_events);
    pug_span_end(&s->span);
    free(s->text);
    free(s);
}

/* ---- routing ---- */

static const struct endpoint {
    const char *method, *path, *span;
    int (*answer)(struct call *c); /* NULL: the stream */
    bool open;                     /* needs no token */
} endpoints[] = {
    {"POST", "/auth/login", "api.login", login, true},
    {"GET", "/logs", "api.get_logs", get_logs, false},
    {"GET", "/logs/histogram", "api.get_logs_histogram", get_logs_histogram, false},
    {"GET", "/bounty", "api.get_bounties", get_bounties, false},
    {"GET", "/attackers", "api.get_attackers", get_attackers, false},
    {"GET", "/attackers/*", "api.get_attacker_detail", get_attacker_detail, false},
    {"GET", "/attackers/*/commands", "api.get_attacker_commands", get_attacker_commands, false},
    {"GET", "/stats", "api.get_stats", get_stats, false},
    {"GET", "/health", "api.get_health", get_health, true},
    {"GET", "/stream", "api.stream_events", NULL, false},
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

static bool allowed(const struct call *c)
{
    const char *header = MHD_lookup_connection_value(c->connection, MHD_HEADER_KIND,
                                                     "Authorization");
    AUTO_FREE char *user = NULL;
    return header && strncasecmp(header, "Bearer ", 7) == 0 &&
           repo->get_session(repo, header + 7, &user) == 0 && user;
}

static enum MHD_Result send_answer(struct call *c, int status)
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
    enum MHD_Result result = MHD_queue_response(c->connection, (unsigned)status, r);
    MHD_destroy_response(r);
    return result;
}

/* Takes over the request: its span ends with the stream. */
static enum MHD_Result stream_events(struct call *c, const struct pug_context *caller)
{
    struct stream *s = calloc(1, sizeof *s);
    if (!s)
        return MHD_NO;
    pug_span_start_from(&s->span, caller, "api.stream_events", PUG_KIND(PUG_KIND_SERVER),
                        PUG_STR("http.request.method", "GET"), PUG_STR("url.path", "/stream"));
    bool may;
    {
        PUG_ATTACH(&s->span.context);
        may = allowed(c);
    }
    pug_set_int(&s->span, "http.response.status_code", may ? MHD_HTTP_OK : MHD_HTTP_UNAUTHORIZED);
    if (!may) {
        stream_end(s);
        return send_answer(c, MHD_HTTP_UNAUTHORIZED);
    }
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(c->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    s->fd = info ? info->connect_fd : -1;
    const char *last = MHD_lookup_connection_value(c->connection, MHD_HEADER_KIND, "Last-Event-ID");
    s->seen = last ? atoll(last) : repository_newest_log(repo);
    struct MHD_Response *r = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 16384, stream_read,
                                                               s, stream_end);
    if (!r) {
        stream_end(s);
        return MHD_NO;
    }
    MHD_add_response_header(r, "Content-Type", "text/event-stream");
    MHD_add_response_header(r, "Cache-Control", "no-store");
    enum MHD_Result result = MHD_queue_response(c->connection, MHD_HTTP_OK, r);
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

static enum MHD_Result serve(struct call *c, const char *method, const char *path)
{
    char part[64];
    const struct endpoint *e = endpoints, *end = endpoints + sizeof endpoints / sizeof *endpoints;
    while (e < end &&
           !(strcmp(e->method, method) == 0 && path_matches(e->path, path, part, sizeof part)))
        e++;
    c->part = part;
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
    int status = e->open || allowed(c) ? e->answer(c) : MHD_HTTP_UNAUTHORIZED;
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
        c->too_large |= *data_len > BODY_BYTES_MAX - c->body_len;
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

static void hash_password(const char *password, char out[CRYPT_OUTPUT_SIZE])
{
    struct crypt_data scratch = {0};
    char salt[CRYPT_GENSALT_OUTPUT_SIZE];
    const char *hash = crypt_gensalt_rn(NULL, 0, NULL, 0, salt, sizeof salt)
                           ? crypt_r(password, salt, &scratch)
                           : NULL;
    if (!hash || *hash == '*')
        die("cannot hash a password: %s", strerror(errno));
    snprintf(out, CRYPT_OUTPUT_SIZE, "%s", hash);
}

/* The first start makes the user and tells its password to whoever may read the run directory. */
static void make_admin(void)
{
    AUTO_FREE char *known = NULL;
    char password[33], hash[CRYPT_OUTPUT_SIZE];
    random_hex(password, 16);
    hash_password(password, hash);
    memcpy(no_such_user_hash, hash, sizeof hash);
    if (repo->get_user(repo, "admin", &known) != 0)
        die("cannot read the users");
    if (known)
        return;
    if (file_replace(run_path("admin-password").text, password, 0600) != 0 ||
        repo->add_user(repo, "admin", hash) != 0)
        die("cannot make the user admin");
}

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
