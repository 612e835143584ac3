#include "cli/client.h"

#include "base/clock.h"
#include "base/json.h"
#include "cli/term.h"

#include <curl/curl.h>
#include <stdio.h>
#include <unistd.h>

enum { CONNECT_TIMEOUT_S = 5, TIMEOUT_S = 120, PATIENCE_MS = 700, REFUSAL_BYTES_MAX = 64 << 10 };
#define BODY_BYTES_MAX ((size_t)1 << 30)

static size_t take(char *bytes, size_t size, size_t n, void *arg)
{
    struct buf *body = arg;
    buf_put(body, bytes, size * n);
    return buf_ok(body) ? size * n : 0;
}

/* A proxy for the outside world is none for a server on this machine. */
static bool is_loopback(const char *server)
{
    static const char *const hosts[] = {"://127.", "://localhost", "://[::1]"};
    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++)
        if (strstr(server, hosts[i]))
            return true;
    return false;
}

static int say_unreachable(const char *verb, const char *server, CURLcode code, const char *detail)
{
    switch (code) {
    case CURLE_COULDNT_CONNECT:
        fprintf(stderr, "pugmark %s: nothing answers at %s\n", verb, server);
        if (!strcmp(server, CLIENT_SERVER_DEFAULT))
            fputs("Start a server with `pugmark serve`, or name another with --server URL.\n",
                  stderr);
        else
            fputs("Is that the address of the page? `pugmark serve` prints it.\n", stderr);
        return ERR_CLOSED;
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
        fprintf(stderr,
                "pugmark %s: \"%s\" is no server's address; one looks like " CLIENT_SERVER_DEFAULT
                "\n",
                verb, server);
        return ERR_INVALID;
    case CURLE_COULDNT_RESOLVE_HOST:
        fprintf(stderr, "pugmark %s: no host of that name: %s\n", verb, server);
        return ERR_NOT_FOUND;
    case CURLE_OPERATION_TIMEDOUT:
        fprintf(stderr, "pugmark %s: %s did not answer in time\n", verb, server);
        return ERR_TIMEOUT;
    case CURLE_WRITE_ERROR:
        fprintf(stderr, "pugmark %s: the answer does not fit into memory\n", verb);
        return ERR_NOMEM;
    default:
        fprintf(stderr, "pugmark %s: %s: %s\n", verb, server,
                *detail ? detail : curl_easy_strerror(code));
        return ERR_IO;
    }
}

/* The options that all requests have; NULL: no memory, which has been said. */
static CURL *request_new(const char *verb, const char *server, const char *path, char *detail)
{
    size_t n = strlen(server);
    while (n && server[n - 1] == '/')
        n--;
    struct buf url = BUF_INIT;
    buf_put(&url, server, n);
    buf_put(&url, path, strlen(path) + 1);
    CURL *curl = buf_ok(&url) ? curl_easy_init() : NULL;
    if (!curl || curl_easy_setopt(curl, CURLOPT_URL, url.ptr)) {
        curl_easy_cleanup(curl);
        buf_done(&url);
        fprintf(stderr, "pugmark %s: out of memory\n", verb);
        return NULL;
    }
    buf_done(&url);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_TIMEOUT_S);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_ACCEPT_ENCODING, "");
    curl_easy_setopt(curl, CURLOPT_USERAGENT, "pugmark/" PUGMARK_VERSION);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, detail);
    if (is_loopback(server))
        curl_easy_setopt(curl, CURLOPT_NOPROXY, "*");
    return curl;
}

/* ---- somebody waits ---- */

/* On a terminal, when the answer lets itself be waited for: how long already, and what has come. */
struct wait {
    uint64_t started_ns, said_ns;
    bool said;
};

static int wait_say(void *arg, curl_off_t total, curl_off_t now, curl_off_t sent_total,
                    curl_off_t sent)
{
    struct wait *w = arg;
    uint64_t at_ns = clock_monotonic_ns();
    (void)total, (void)sent_total, (void)sent;
    if (at_ns - w->started_ns < PATIENCE_MS * NS_PER_MS || at_ns - w->said_ns < 200 * NS_PER_MS)
        return 0;
    w->said_ns = at_ns;
    w->said = true;
    double seconds = (double)(at_ns - w->started_ns) / (double)NS_PER_S;
    if (now)
        fprintf(stderr, "\rreceiving... %.1f MB  \x1b[K", (double)now / 1e6);
    else
        fprintf(stderr, "\rthe server looks... %.1f s\x1b[K", seconds);
    fflush(stderr);
    return 0;
}

/* `content_type` NULL: a GET. */
/* Once, also when the answer comes in many pieces. */
static void say_partial(const char *verb)
{
    static bool said;
    if (!said)
        fprintf(stderr,
                "pugmark %s: a damaged part of the store could not be read, so something may be "
                "missing; `pugmark store verify` names the damage\n",
                verb);
    said = true;
}

static int ask(const char *verb, const char *server, const char *path, const char *content_type,
               struct str sent, long *ret_status, struct buf *ret_body)
{
    char detail[CURL_ERROR_SIZE] = "";
    struct buf body = {.bytes_max = BODY_BYTES_MAX};
    struct wait wait = {.started_ns = clock_monotonic_ns()};
    CURL *curl = request_new(verb, server, path, detail);
    if (!curl)
        return ERR_NOMEM;
    struct curl_slist *headers = NULL;
    if (content_type) {
        char header[100];
        snprintf(header, sizeof header, "Content-Type: %s", content_type);
        headers = curl_slist_append(NULL, header);
        curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
        curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)sent.len);
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, sent.ptr);
    }
    curl_easy_setopt(curl, CURLOPT_TIMEOUT, (long)TIMEOUT_S);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &body);
    if (!content_type && isatty(STDERR_FILENO)) {
        curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
        curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, wait_say);
        curl_easy_setopt(curl, CURLOPT_XFERINFODATA, &wait);
    }
    CURLcode code = curl_easy_perform(curl);
    long status = 0;
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    struct curl_header *partial;
    bool is_partial = !code && status == 200 &&
                      !curl_easy_header(curl, "X-Pugmark-Partial", 0, CURLH_HEADER, -1, &partial);
    curl_easy_cleanup(curl);
    curl_slist_free_all(headers);
    if (wait.said)
        fputs("\r\x1b[K", stderr);
    if (is_partial)
        say_partial(verb);
    if (code) {
        buf_done(&body);
        return say_unreachable(verb, server, code, detail);
    }
    *ret_status = status;
    *ret_body = body;
    return 0;
}

int client_get(const char *verb, const char *server, const char *path, long *ret_status,
               struct buf *ret_body)
{
    return ask(verb, server, path, NULL, STR_NONE, ret_status, ret_body);
}

int client_post(const char *verb, const char *server, const char *path, const char *content_type,
                struct str body, long *ret_status, struct buf *ret_body)
{
    return ask(verb, server, path, content_type, body, ret_status, ret_body);
}

/* ---- a stream ---- */

struct streaming {
    const struct client_stream *stream;
    CURL *curl;
    struct buf *refusal; /* the body of an answer that is not 200 */
    bool enough;
};

static size_t stream_bytes(char *bytes, size_t size, size_t n, void *arg)
{
    struct streaming *s = arg;
    long status = 0;
    curl_easy_getinfo(s->curl, CURLINFO_RESPONSE_CODE, &status);
    if (status != 200) {
        buf_put(s->refusal, bytes, size * n);
        return buf_ok(s->refusal) ? size * n : 0;
    }
    s->enough = !s->stream->take(s->stream->arg, (struct str){bytes, size * n});
    return s->enough ? 0 : size * n;
}

static int stream_asks(void *arg, curl_off_t total, curl_off_t now, curl_off_t sent_total,
                       curl_off_t sent)
{
    struct streaming *s = arg;
    (void)total, (void)now, (void)sent_total, (void)sent;
    s->enough |= !s->stream->wants(s->stream->arg);
    return s->enough;
}

int client_stream(const char *verb, const char *server, const char *path,
                  const struct client_stream *stream, bool quiet, long *ret_status,
                  struct buf *ret_body)
{
    char detail[CURL_ERROR_SIZE] = "";
    struct buf refusal = {.bytes_max = REFUSAL_BYTES_MAX};
    CURL *curl = request_new(verb, server, path, detail);
    if (!curl)
        return ERR_NOMEM;
    struct streaming s = {.stream = stream, .curl = curl, .refusal = &refusal};
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, (long)CLIENT_SILENCE_S);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, stream_bytes);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &s);
    curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, stream_asks);
    curl_easy_setopt(curl, CURLOPT_XFERINFODATA, &s);
    CURLcode code = curl_easy_perform(curl);
    long status = 0;
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_cleanup(curl);
    *ret_status = status;
    *ret_body = refusal;
    if (!code || s.enough)
        return 0;
    return quiet || status == 200 ? ERR_CLOSED : say_unreachable(verb, server, code, detail);
}

/* {"error":{"message":..,"position":..}}, of ours and of Jaeger's version 3. */
static bool error_read(struct str body, struct arena *arena, struct str *ret_message,
                       uint64_t *ret_position, bool *ret_has_position)
{
    struct json_reader r;
    json_reader_init(&r, body, arena, NULL);
    if (json_next(&r) != JSON_OBJECT || json_next(&r) != JSON_KEY ||
        !str_eq(r.text, STR("error")) || json_next(&r) != JSON_OBJECT)
        return false;
    while (json_next(&r) == JSON_KEY) {
        bool is_message = str_eq(r.text, STR("message"));
        bool is_position = str_eq(r.text, STR("position"));
        if (!is_message && !is_position) {
            json_skip(&r);
            continue;
        }
        json_next(&r);
        if (is_message && r.type == JSON_STRING)
            *ret_message = r.text;
        if (is_position)
            *ret_has_position = json_to_u64(&r, ret_position);
    }
    return r.type == JSON_OBJECT_END && ret_message->ptr;
}

static void point_at(const char *query, uint64_t position)
{
    /* The line of a query that has several. */
    struct str text = str_from(query);
    if (position > text.len)
        return;
    size_t start = (size_t)position, end = (size_t)position;
    while (start && text.ptr[start - 1] != '\n')
        start--;
    while (end < text.len && text.ptr[end] != '\n')
        end++;
    struct buf line = BUF_INIT;
    buf_cstr(&line, "  ");
    term_text(&line, (struct str){text.ptr + start, end - start}, SIZE_MAX);
    buf_cstr(&line, "\n  ");
    size_t before = term_width((struct str){text.ptr + start, (size_t)position - start});
    for (size_t i = 0; i < before; i++)
        buf_byte(&line, ' ');
    buf_cstr(&line, "^\n");
    fwrite(line.ptr, 1, line.len, stderr);
    buf_done(&line);
}

void client_say_error(const char *verb, long status, struct str body, const char *query)
{
    struct arena arena = ARENA_INIT;
    struct str message = STR_NONE;
    uint64_t position = 0;
    bool has_position = false;
    if (error_read(body, &arena, &message, &position, &has_position)) {
        struct buf text = BUF_INIT;
        term_text(&text, message, SIZE_MAX);
        fprintf(stderr, "pugmark %s: %.*s\n", verb, STR_ARG(buf_as_str(&text)));
        buf_done(&text);
        if (has_position && query)
            point_at(query, position);
    } else {
        fprintf(stderr, "pugmark %s: the server answered with HTTP status %ld%s\n", verb, status,
                status == 404 ? "; is it a pugmark server, and this its page address?" : "");
    }
    arena_done(&arena);
}

void client_escape(struct buf *out, struct str text)
{
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = (uint8_t)text.ptr[i];
        if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
            buf_byte(out, (char)c);
        else
            buf_printf(out, "%%%02X", c);
    }
}
