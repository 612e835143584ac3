#include "serve.h"

#include <arpa/inet.h>
#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define BODY_BYTES_MAX (4u << 20)
#define CONNECTIONS_MAX 64
#define TIMEOUT_S 30

static struct MHD_Daemon *daemon_of_ours;
static void (*handler)(struct served *s);

struct request {
    struct text body;
    bool too_large;
};

const char *served_header(const struct served *s, const char *name)
{
    const char *value = MHD_lookup_connection_value(s->connection, MHD_HEADER_KIND, name);
    return value ? value : "";
}

const char *served_query(const struct served *s, const char *name)
{
    const char *value = MHD_lookup_connection_value(s->connection, MHD_GET_ARGUMENT_KIND, name);
    return value ? value : "";
}

void served_json(struct served *s, json_t *object)
{
    AUTO_FREE char *text = need(json_dumps(object, JSON_COMPACT));
    text_add(&s->body, text);
    json_decref(object);
}

void served_error(struct served *s, int status, const char *message)
{
    s->status = status;
    served_json(s, json_pack("{s:{s:i, s:s}}", "error", "code", status, "message", message));
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

/* ---- the answer ---- */

struct pieces {
    struct text body;
    size_t at;
};

static ssize_t next_piece(void *arg, uint64_t position, char *buffer, size_t max)
{
    struct pieces *p = arg;
    (void)position;
    if (p->at >= p->body.len)
        return MHD_CONTENT_READER_END_OF_STREAM;
    const char *from = p->body.bytes + p->at, *end = strstr(from, "\n\n");
    size_t n = end ? (size_t)(end - from) + 2 : p->body.len - p->at;
    if (!end && (end = strchr(from, '\n')))
        n = (size_t)(end - from) + 1;
    if (n > max)
        n = max;
    memcpy(buffer, from, n);
    p->at += n;
    return (ssize_t)n;
}

static void pieces_free(void *arg)
{
    struct pieces *p = arg;
    text_done(&p->body);
    free(p);
}

static enum MHD_Result answer(struct served *s)
{
    struct MHD_Response *r;
    if (s->in_pieces) {
        struct pieces *p = need(calloc(1, sizeof *p));
        p->body = s->body;
        r = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 65536, next_piece, p, pieces_free);
    } else {
        r = MHD_create_response_from_buffer(
            s->body.len, need(s->body.bytes ? s->body.bytes : copy("")), MHD_RESPMEM_MUST_FREE);
    }
    need(r);
    MHD_add_response_header(r, "Content-Type", s->type);
    if (s->retry_after_ms) {
        char value[24];
        snprintf(value, sizeof value, "%ld", s->retry_after_ms);
        MHD_add_response_header(r, "Retry-After-Ms", value);
    }
    enum MHD_Result result = MHD_queue_response(s->connection, (unsigned)s->status, r);
    MHD_destroy_response(r);
    return result;
}

/* Called for the head, for each piece of the body, and once more at its end. */
static enum MHD_Result handle(void *arg, struct MHD_Connection *connection, const char *path,
                              const char *method, const char *version, const char *data,
                              size_t *data_len, void **state)
{
    (void)arg;
    (void)version;
    struct request *q = *state;
    if (!q) {
        *state = q = calloc(1, sizeof *q);
        return q ? MHD_YES : MHD_NO;
    }
    if (*data_len > 0) {
        q->too_large |= *data_len > BODY_BYTES_MAX - q->body.len;
        if (!q->too_large)
            text_addn(&q->body, data, *data_len);
        *data_len = 0;
        return MHD_YES;
    }
    struct served s = {.method = method,
                       .path = path,
                       .connection = connection,
                       .status = 200,
                       .type = "application/json"};
    pug_extract(carried_in_headers, connection, &s.caller);
    s.json = json_loads(text_of(&q->body), 0, NULL);
    if (q->too_large)
        served_error(&s, 413, "too much");
    else
        handler(&s);
    json_decref(s.json);
    return answer(&s);
}

static void completed(void *arg, struct MHD_Connection *connection, void **state,
                      enum MHD_RequestTerminationCode code)
{
    (void)arg;
    (void)connection;
    (void)code;
    struct request *q = *state;
    if (q)
        text_done(&q->body);
    free(q);
    *state = NULL;
}

uint16_t serve_start(void (*handle_with)(struct served *s))
{
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    handler = handle_with;
    daemon_of_ours = MHD_start_daemon(
        MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_THREAD_PER_CONNECTION | MHD_USE_POLL, 0, NULL,
        NULL, handle, NULL, MHD_OPTION_SOCK_ADDR, &here, MHD_OPTION_CONNECTION_LIMIT,
        (unsigned)CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)TIMEOUT_S,
        MHD_OPTION_NOTIFY_COMPLETED, completed, NULL, MHD_OPTION_END);
    const union MHD_DaemonInfo *info =
        daemon_of_ours ? MHD_get_daemon_info(daemon_of_ours, MHD_DAEMON_INFO_BIND_PORT) : NULL;
    if (!info || !info->port)
        die("cannot serve on 127.0.0.1");
    return info->port;
}

void serve_stop(void)
{
    MHD_stop_daemon(daemon_of_ours);
}
