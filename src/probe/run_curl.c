/* libcurl: a client span for each transfer, and the context in its request's headers.
 *
 * The headers that the program gave with CURLOPT_HTTPHEADER stay its own: ours are a few nodes in front,
 * whose last one points to its first. They are in place only from the start of a transfer to its end,
 * and never stand beside one of the same name that the program wrote itself.
 *
 *     easy     the span is a scope around curl_easy_perform
 *     multi    a handle, from curl_multi_add_handle to the message that the transfer is done (or to its
 *              removal)
 */
#include "probe/run.h"
#include "probe/url.h"

#define CURL_DISABLE_TYPECHECK
#include <curl/curl.h>
#undef curl_easy_setopt
#undef curl_easy_getinfo

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#if !defined(__LP64__)
#error "curl_easy_setopt is passed on as one word of 64 bits"
#endif

#define HEADERS_MAX 16

struct transfer {
    struct handle handle;
    struct curl_slist *theirs; /* what the program gave */
    struct curl_slist ours[HEADERS_MAX];
    unsigned n_ours;
    bool open; /* in a multi handle */
    struct pug_span span;
};

static struct handles transfers = HANDLES_INIT;

/* ---- headers ---- */

static bool is_header(const char *line, const char *name)
{
    size_t n = strlen(name);
    return str_eq_nocase((struct str){line, strnlen(line, n)}, str_from(name)) &&
           (line[n] == ':' || line[n] == ';');
}

static void add_header(void *carrier, const char *name, const char *value)
{
    struct transfer *t = carrier;
    char *line;
    if (t->n_ours == HEADERS_MAX)
        return;
    for (const struct curl_slist *l = t->theirs; l; l = l->next)
        if (l->data && is_header(l->data, name))
            return;
    if (asprintf(&line, "%s: %s", name, value) < 0)
        return;
    t->ours[t->n_ours++] = (struct curl_slist){.data = line};
}

static void headers_put(struct transfer *t, CURL *curl, const struct pug_context *context,
                        const void *from)
{
    __typeof__(&curl_easy_setopt) setopt = OTHER(curl_easy_setopt, from);
    t->n_ours = 0;
    /* A program that sends a trace of its own goes on doing so. */
    for (const struct curl_slist *l = t->theirs; l; l = l->next)
        if (l->data && is_header(l->data, "traceparent"))
            return;
    pug_inject(context, add_header, t);
    for (unsigned i = 0; i < t->n_ours; i++)
        t->ours[i].next = i + 1 < t->n_ours ? &t->ours[i + 1] : t->theirs;
    if (t->n_ours && setopt)
        setopt(curl, CURLOPT_HTTPHEADER, t->ours);
}

static void headers_take_back(struct transfer *t, CURL *curl, const void *from)
{
    __typeof__(&curl_easy_setopt) setopt = OTHER(curl_easy_setopt, from);
    if (t->n_ours && setopt)
        setopt(curl, CURLOPT_HTTPHEADER, t->theirs);
    for (unsigned i = 0; i < t->n_ours; i++)
        free(t->ours[i].data);
    t->n_ours = 0;
}

/* ---- attributes ---- */

static const char *error_name(CURLcode code)
{
    static const struct {
        CURLcode code;
        const char *name;
    } names[] = {
        {CURLE_UNSUPPORTED_PROTOCOL, "CURLE_UNSUPPORTED_PROTOCOL"},
        {CURLE_URL_MALFORMAT, "CURLE_URL_MALFORMAT"},
        {CURLE_COULDNT_RESOLVE_PROXY, "CURLE_COULDNT_RESOLVE_PROXY"},
        {CURLE_COULDNT_RESOLVE_HOST, "CURLE_COULDNT_RESOLVE_HOST"},
        {CURLE_COULDNT_CONNECT, "CURLE_COULDNT_CONNECT"},
        {CURLE_PARTIAL_FILE, "CURLE_PARTIAL_FILE"},
        {CURLE_WRITE_ERROR, "CURLE_WRITE_ERROR"},
        {CURLE_READ_ERROR, "CURLE_READ_ERROR"},
        {CURLE_OUT_OF_MEMORY, "CURLE_OUT_OF_MEMORY"},
        {CURLE_OPERATION_TIMEDOUT, "CURLE_OPERATION_TIMEDOUT"},
        {CURLE_SSL_CONNECT_ERROR, "CURLE_SSL_CONNECT_ERROR"},
        {CURLE_ABORTED_BY_CALLBACK, "CURLE_ABORTED_BY_CALLBACK"},
        {CURLE_TOO_MANY_REDIRECTS, "CURLE_TOO_MANY_REDIRECTS"},
        {CURLE_GOT_NOTHING, "CURLE_GOT_NOTHING"},
        {CURLE_SEND_ERROR, "CURLE_SEND_ERROR"},
        {CURLE_RECV_ERROR, "CURLE_RECV_ERROR"},
        {CURLE_PEER_FAILED_VERIFICATION, "CURLE_PEER_FAILED_VERIFICATION"},
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (names[i].code == code)
            return names[i].name;
    return NULL;
}

typedef CURLcode getinfo_fn(CURL *, CURLINFO, ...);

static const char *text_of(getinfo_fn *getinfo, CURL *curl, CURLINFO info)
{
    char *text = NULL;
    return getinfo(curl, info, &text) == CURLE_OK && text ? text : "";
}

static long number_of(getinfo_fn *getinfo, CURL *curl, CURLINFO info)
{
    long n = 0;
    return getinfo(curl, info, &n) == CURLE_OK ? n : 0;
}

static const char *version_text(long version)
{
    return version == CURL_HTTP_VERSION_1_0   ? "1.0"
           : version == CURL_HTTP_VERSION_1_1 ? "1.1"
           : version == CURL_HTTP_VERSION_2_0 ? "2"
           : version == CURL_HTTP_VERSION_3   ? "3"
                                              : NULL;
}

/* The methods of RFC 9110 and PATCH; others are "_OTHER", as they may be anything. */
static bool is_known_method(const char *method)
{
    static const char *const known[] = {"GET",   "HEAD",    "POST",    "PUT",  "DELETE",
                                        "PATCH", "OPTIONS", "CONNECT", "TRACE"};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(method, known[i]) == 0)
            return true;
    return false;
}

static void set_http(struct pug_span *span, CURL *curl, getinfo_fn *getinfo)
{
    const char *method = text_of(getinfo, curl, CURLINFO_EFFECTIVE_METHOD);
    const char *version = version_text(number_of(getinfo, curl, CURLINFO_HTTP_VERSION));
    long status = number_of(getinfo, curl, CURLINFO_RESPONSE_CODE),
         redirects = number_of(getinfo, curl, CURLINFO_REDIRECT_COUNT);
    if (is_known_method(method)) {
        pug_set_name(span, method);
        pug_set_str(span, "http.request.method", method);
    } else if (method[0]) {
        pug_set_str(span, "http.request.method", "_OTHER");
        pug_set_str(span, "http.request.method_original", method);
    }
    if (version)
        pug_set_str(span, "network.protocol.version", version);
    if (redirects > 0)
        pug_set_int(span, "http.request.resend_count", redirects);
    if (status <= 0)
        return;
    pug_set_int(span, "http.response.status_code", status);
    if (status >= 400) {
        char type[24];
        snprintf(type, sizeof type, "%ld", status);
        pug_set_str(span, "error.type", type);
        pug_error(span, NULL);
    }
}

static void describe(struct pug_span *span, CURL *curl, CURLcode result, const void *from)
{
    getinfo_fn *getinfo = OTHER(curl_easy_getinfo, from);
    __typeof__(&curl_easy_strerror) strerror_of = OTHER(curl_easy_strerror, from);
    char full[PUG_STR_MAX], host[256];
    struct url url;
    if (!getinfo)
        return;
    struct str text = str_from(text_of(getinfo, curl, CURLINFO_EFFECTIVE_URL));
    bool has_url = url_parse(text, &url);
    if (has_url) {
        snprintf(host, sizeof host, "%.*s", STR_ARG(url.host));
        run_set_server(span, host, url.port);
    }
    pug_set_strn(span, "url.full", full, url_without_secrets(text, full, sizeof full));
    const char *peer = text_of(getinfo, curl, CURLINFO_PRIMARY_IP);
    if (peer[0]) {
        pug_set_str(span, "network.peer.address", peer);
        pug_set_int(span, "network.peer.port", number_of(getinfo, curl, CURLINFO_PRIMARY_PORT));
    }
    if (!has_url || str_eq_nocase(url.scheme, STR("http")) ||
        str_eq_nocase(url.scheme, STR("https"))) {
        set_http(span, curl, getinfo);
    } else {
        char name[16];
        size_t n = 0;
        for (; n < url.scheme.len && n < sizeof name - 1; n++)
            name[n] = (char)(url.scheme.ptr[n] >= 'a' && url.scheme.ptr[n] <= 'z'
                                 ? url.scheme.ptr[n] - 'a' + 'A'
                                 : url.scheme.ptr[n]);
        name[n] = '\0';
        pug_set_name(span, name);
    }
    if (result != CURLE_OK) {
        char type[32];
        const char *known = error_name(result);
        snprintf(type, sizeof type, "CURLE_%d", (int)result);
        pug_set_str(span, "error.type", known ? known : type);
        pug_error(span, strerror_of ? strerror_of(result) : NULL);
    }
}

/* ---- easy ---- */

CURLcode curl_easy_perform(CURL *curl)
{
    NEXT(curl_easy_perform, CURLE_FAILED_INIT);
    struct transfer *t = NULL;
    if (inside || !curl || !run_on())
        return real(curl);
    PUG_SPAN("HTTP", PUG_KIND(PUG_KIND_CLIENT));
    KEEP_ERRNO({
        t = handles_get(&transfers, curl, sizeof *t);
        if (t && !t->open)
            headers_put(t, curl, NULL, caller);
    });
    CURLcode result = real(curl);
    KEEP_ERRNO({
        if (t && !t->open)
            headers_take_back(t, curl, caller);
        describe(PUG_CURRENT, curl, result, caller);
    });
    return result;
}

CURLcode curl_easy_setopt(CURL *curl, CURLoption option, ...)
{
    va_list args;
    va_start(args, option);
    void *value = va_arg(args, void *); /* long, pointer or curl_off_t: one word */
    va_end(args);
    NEXT(curl_easy_setopt, CURLE_FAILED_INIT);
    CURLcode result = real(curl, option, value);
    if (option == CURLOPT_HTTPHEADER && result == CURLE_OK && !inside && curl && run_on())
        KEEP_ERRNO({
            struct transfer *t = handles_get(&transfers, curl, sizeof *t);
            if (t)
                t->theirs = value;
        });
    return result;
}

void curl_easy_reset(CURL *curl)
{
    NEXT(curl_easy_reset, );
    real(curl);
    if (!inside && curl && run_on())
        KEEP_ERRNO({
            struct transfer *t = handles_find(&transfers, curl);
            if (t)
                t->theirs = NULL;
        });
}

CURL *curl_easy_duphandle(CURL *curl)
{
    NEXT(curl_easy_duphandle, NULL);
    CURL *copy = real(curl);
    if (!inside && copy && run_on())
        KEEP_ERRNO({
            struct transfer *t = handles_find(&transfers, curl);
            struct curl_slist *theirs = t ? t->theirs : NULL;
            struct transfer *c = theirs ? handles_get(&transfers, copy, sizeof *c) : NULL;
            __typeof__(&curl_easy_setopt) setopt = OTHER(curl_easy_setopt, caller);
            if (c)
                c->theirs = theirs;
            if (t && t->n_ours && setopt)
                setopt(copy, CURLOPT_HTTPHEADER, theirs);
        });
    return copy;
}

/* ---- multi ---- */

static void finish(struct transfer *t, CURL *curl, CURLcode result, const char *problem,
                   const void *from)
{
    if (!t || !t->open)
        return;
    t->open = false;
    headers_take_back(t, curl, from);
    describe(&t->span, curl, result, from);
    if (problem) {
        pug_set_str(&t->span, "error.type", "cancelled");
        pug_error(&t->span, problem);
    }
    pug_span_end(&t->span);
}

void curl_easy_cleanup(CURL *curl)
{
    NEXT(curl_easy_cleanup, );
    struct transfer *t = NULL;
    if (!inside && curl && run_on())
        KEEP_ERRNO({
            t = handles_take(&transfers, curl);
            finish(t, curl, CURLE_OK, "the handle was cleaned up before the transfer was done",
                   caller);
        });
    real(curl);
    KEEP_ERRNO(free(t));
}

CURLMcode curl_multi_add_handle(CURLM *multi, CURL *curl)
{
    NEXT(curl_multi_add_handle, CURLM_INTERNAL_ERROR);
    struct transfer *t = NULL;
    if (inside || !curl || !run_on())
        return real(multi, curl);
    KEEP_ERRNO({
        t = handles_get(&transfers, curl, sizeof *t);
        if (t && t->open) /* added twice: curl will say so */
            t = NULL;
        if (t) {
            pug_span_start(&t->span, "HTTP", PUG_KIND(PUG_KIND_CLIENT));
            t->open = true;
            headers_put(t, curl, &t->span.context, caller);
        }
    });
    CURLMcode result = real(multi, curl);
    if (result != CURLM_OK)
        KEEP_ERRNO(finish(t, curl, CURLE_OK, "curl_multi_add_handle failed", caller));
    return result;
}

CURLMcode curl_multi_remove_handle(CURLM *multi, CURL *curl)
{
    NEXT(curl_multi_remove_handle, CURLM_INTERNAL_ERROR);
    if (!inside && curl && run_on())
        KEEP_ERRNO(finish(handles_find(&transfers, curl), curl, CURLE_OK,
                          "removed before the transfer was done", caller));
    return real(multi, curl);
}

CURLMsg *curl_multi_info_read(CURLM *multi, int *left)
{
    NEXT(curl_multi_info_read, NULL);
    CURLMsg *message = real(multi, left);
    if (message && !inside && message->msg == CURLMSG_DONE && run_on())
        KEEP_ERRNO(finish(handles_find(&transfers, message->easy_handle), message->easy_handle,
                          message->data.result, NULL, caller));
    return message;
}
