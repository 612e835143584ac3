#include "cli/client.h"

#include "base/json.h"
#include "cli/term.h"

#include <curl/curl.h>
#include <stdio.h>

enum { CONNECT_TIMEOUT_S = 5, TIMEOUT_S = 120 };
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

int client_get(const char *verb, const char *server, const char *path, long *ret_status,
               struct buf *ret_body)
{
    char detail[CURL_ERROR_SIZE] = "";
    size_t n = strlen(server);
    while (n && server[n - 1] == '/')
        n--;
    struct buf url = BUF_INIT;
    buf_put(&url, server, n);
    buf_put(&url, path, strlen(path) + 1);
    struct buf body = {.bytes_max = BODY_BYTES_MAX};
    CURL *curl = curl_easy_init();
    if (!curl || !buf_ok(&url)) {
        curl_easy_cleanup(curl);
        buf_done(&url);
        fprintf(stderr, "pugmark %s: out of memory\n", verb);
        return ERR_NOMEM;
    }
    curl_easy_setopt(curl, CURLOPT_URL, url.ptr);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_TIMEOUT_S);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT, (long)TIMEOUT_S);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_ACCEPT_ENCODING, "");
    curl_easy_setopt(curl, CURLOPT_USERAGENT, "pugmark/" PUGMARK_VERSION);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, detail);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &body);
    if (is_loopback(server))
        curl_easy_setopt(curl, CURLOPT_NOPROXY, "*");
    CURLcode code = curl_easy_perform(curl);
    long status = 0;
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_cleanup(curl);
    buf_done(&url);
    if (code) {
        buf_done(&body);
        return say_unreachable(verb, server, code, detail);
    }
    *ret_status = status;
    *ret_body = body;
    return 0;
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
