#include "http.h"

#include <ctype.h>
#include <curl/curl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <pugmark/pugmark.h>

#define HOME "http://127.0.0.1:"
#define BODY_BYTES_MAX (8u << 20)
#define RETRY_AFTER_S_MAX 60

struct transfer {
    const struct http_call *call;
    struct http_answer *answer;
    CURL *curl;
};

/* Each thread keeps its connections open from one call to the next. */
static pthread_once_t handles_once = PTHREAD_ONCE_INIT;
static pthread_key_t handles;

static void handle_done(void *handle)
{
    curl_easy_cleanup(handle);
}

static void handles_start(void)
{
    if (pthread_key_create(&handles, handle_done) != 0)
        die("no place for a thread's connections");
}

static CURL *handle_of_thread(void)
{
    pthread_once(&handles_once, handles_start);
    CURL *handle = pthread_getspecific(handles);
    if (handle)
        curl_easy_reset(handle);
    else if (pthread_setspecific(handles, handle = need(curl_easy_init())) != 0)
        die("out of memory");
    return handle;
}

void http_stop(void)
{
    pthread_once(&handles_once, handles_start);
    curl_easy_cleanup(pthread_getspecific(handles));
    pthread_setspecific(handles, NULL);
}

/* A carrier: inject puts its fields here. */
static void carry_in_headers(void *list, const char *name, const char *value)
{
    struct curl_slist **headers = list;
    char line[PUG_TRACESTATE_MAX + 64];
    snprintf(line, sizeof line, "%s: %s", name, value);
    *headers = need(curl_slist_append(*headers, line));
}

static size_t take_body(char *bytes, size_t one, size_t n, void *user)
{
    struct transfer *t = user;
    long status = 0;
    n *= one;
    curl_easy_getinfo(t->curl, CURLINFO_RESPONSE_CODE, &status);
    if (t->call->piece && status == 200)
        return t->call->piece(t->call->user, bytes, n) ? n : 0;
    if (t->answer->body.len + n > BODY_BYTES_MAX)
        return 0;
    text_addn(&t->answer->body, bytes, n);
    return n;
}

static size_t take_header(char *bytes, size_t one, size_t n, void *user)
{
    struct http_answer *a = ((struct transfer *)user)->answer;
    static const char ms[] = "retry-after-ms:", s[] = "retry-after:";
    char value[16] = "";
    n *= one;
    bool in_ms = n > sizeof ms && strncasecmp(bytes, ms, sizeof ms - 1) == 0;
    if (!in_ms && !(n > sizeof s && strncasecmp(bytes, s, sizeof s - 1) == 0))
        return n;
    size_t at = in_ms ? sizeof ms - 1 : sizeof s - 1;
    for (size_t i = 0; at < n && i + 1 < sizeof value; at++)
        if (isdigit((unsigned char)bytes[at]))
            value[i++] = bytes[at];
    long wait = atol(value);
    if (!in_ms)
        wait = (wait > RETRY_AFTER_S_MAX ? RETRY_AFTER_S_MAX : wait) * 1000;
    if (in_ms || a->retry_after_ms < 0) /* the finer one wins */
        a->retry_after_ms = wait;
    return n;
}

int http_call(const struct http_call *call, struct http_answer *ret)
{
    *ret = (struct http_answer){.retry_after_ms = -1};
    if (strncmp(call->url, HOME, strlen(HOME)) != 0) {
        ret->error = "not a URL of this machine";
        return -1;
    }
    struct transfer t = {.call = call, .answer = ret, .curl = handle_of_thread()};
    struct curl_slist *headers = NULL;
    pug_inject(NULL, carry_in_headers, &headers);
    if (call->body)
        headers = need(curl_slist_append(headers, "Content-Type: application/json"));
    headers = need(curl_slist_append(headers, "Expect:"));
    for (const char *const *h = call->headers; h && *h; h++)
        headers = need(curl_slist_append(headers, *h));

    curl_easy_setopt(t.curl, CURLOPT_URL, call->url);
    curl_easy_setopt(t.curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(t.curl, CURLOPT_PROXY, "");
    curl_easy_setopt(t.curl, CURLOPT_PROTOCOLS_STR, "http");
    curl_easy_setopt(t.curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(t.curl, CURLOPT_TIMEOUT_MS, call->timeout_ms ? (long)call->timeout_ms : 5000L);
    curl_easy_setopt(t.curl, CURLOPT_WRITEFUNCTION, take_body);
    curl_easy_setopt(t.curl, CURLOPT_WRITEDATA, &t);
    curl_easy_setopt(t.curl, CURLOPT_HEADERFUNCTION, take_header);
    curl_easy_setopt(t.curl, CURLOPT_HEADERDATA, &t);
    if (call->body) {
        curl_easy_setopt(t.curl, CURLOPT_POSTFIELDS, call->body);
        curl_easy_setopt(t.curl, CURLOPT_POSTFIELDSIZE, (long)strlen(call->body));
    }
    if (call->method)
        curl_easy_setopt(t.curl, CURLOPT_CUSTOMREQUEST, call->method);
    CURLcode code = curl_easy_perform(t.curl);
    long status = 0;
    curl_easy_getinfo(t.curl, CURLINFO_RESPONSE_CODE, &status);
    ret->status = code == CURLE_OK ? (int)status : 0;
    ret->error = code == CURLE_OK ? NULL : curl_easy_strerror(code);
    curl_slist_free_all(headers);
    return code == CURLE_OK ? 0 : -1;
}

void http_done(struct http_answer *a)
{
    text_done(&a->body);
}

json_t *http_json(const struct http_answer *a)
{
    return a->status == 200 ? json_loads(text_of(&a->body), 0, NULL) : NULL;
}

void http_url_parts(const char *url, char *path, size_t size, int *ret_port)
{
    size_t home = strlen(HOME);
    const char *rest = strncmp(url, HOME, home) == 0 ? url + home : "";
    *ret_port = atoi(rest);
    const char *slash = rest + strcspn(rest, "/");
    snprintf(path, size, "%.*s", (int)strcspn(slash, "?"), *slash ? slash : "/");
}
