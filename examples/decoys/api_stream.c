/* Server-sent events: rows as they come.
 *
 * Fourth bridge: a row names the span that put it there, and `sse.emit_logs` links to those: what a
 * user saw leads back to how it came in. */
#include "api.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STREAM_POLL_MS 50
#define STREAM_COMMENT_MS 5000
#define STREAM_ROWS_MAX 200

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

/* Takes over the request: its span ends with the stream. */
enum MHD_Result stream_events(struct call *c, const struct pug_context *caller)
{
    struct stream *s = calloc(1, sizeof *s);
    if (!s)
        return MHD_NO;
    pug_span_start_from(&s->span, caller, "api.stream_events", PUG_KIND(PUG_KIND_SERVER),
                        PUG_STR("http.request.method", "GET"), PUG_STR("url.path", "/stream"));
    request_id_take(c, &s->span);
    bool may;
    {
        PUG_ATTACH(&s->span.context);
        may = caller_known(c) && !c->must_change;
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
    MHD_add_response_header(r, "X-Request-ID", c->request_id);
    MHD_add_response_header(r, "Cache-Control", "no-store");
    enum MHD_Result result = MHD_queue_response(c->connection, MHD_HTTP_OK, r);
    MHD_destroy_response(r);
    return result;
}
