/* libmicrohttpd: a server span for each request, from the first call of the access handler to the
 * request's completion; a child of the sender's span when the request has a context.
 *
 * The daemon gets a handler and a completion callback of ours, which call the program's. Its options are
 * gone through for that: each is followed by one or two words, known by its number. A daemon with an
 * option that we do not know is started as it was asked for, without spans. */
#include "probe/run.h"

#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#if !defined(__LP64__)
#error "options are passed on as words of 64 bits"
#endif

struct server {
    struct handle handle; /* by daemon */
    MHD_AccessHandlerCallback answer;
    void *answer_cls;
    MHD_RequestCompletedCallback completed;
    void *completed_cls;
    bool tls;
};

struct request {
    struct handle handle; /* by connection */
    struct pug_span span;
    unsigned status; /* written before the response is sent, by whoever queues it */
};

static struct handles servers = HANDLES_INIT, requests = HANDLES_INIT;

/* ---- the request ---- */

struct headers {
    struct MHD_Connection *connection;
    const char *name;
    size_t nth;
    const char *value;
};

static enum MHD_Result header_nth(void *cls, enum MHD_ValueKind kind, const char *key,
                                  const char *value)
{
    struct headers *h = cls;
    (void)kind;
    if (!str_eq_nocase(str_from(key), str_from(h->name)) || h->nth-- > 0)
        return MHD_YES;
    h->value = value;
    return MHD_NO;
}

/* What MHD exports is asked through the daemon's own copy of it: the handler's caller. */
static const void *_Atomic from_server;

static const char *header_get(void *carrier, const char *name, size_t nth, size_t *ret_len)
{
    struct headers h = {.connection = carrier, .name = name, .nth = nth};
    __typeof__(&MHD_get_connection_values) values_of = OTHER(MHD_get_connection_values,
                                                             from_server);
    (void)ret_len;
    if (values_of)
        values_of(h.connection, MHD_HEADER_KIND, header_nth, &h);
    return h.value;
}

static void set_client(struct pug_span *span, struct MHD_Connection *connection)
{
    __typeof__(&MHD_get_connection_info) info_of = OTHER(MHD_get_connection_info, from_server);
    const union MHD_ConnectionInfo *info =
        info_of ? info_of(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS) : NULL;
    const struct sockaddr *a = info ? info->client_addr : NULL;
    char text[INET6_ADDRSTRLEN] = "";
    if (a && a->sa_family == AF_INET) {
        struct sockaddr_in v4;
        memcpy(&v4, a, sizeof v4);
        inet_ntop(AF_INET, &v4.sin_addr, text, sizeof text);
    } else if (a && a->sa_family == AF_INET6) {
        struct sockaddr_in6 v6;
        memcpy(&v6, a, sizeof v6);
        inet_ntop(AF_INET6, &v6.sin6_addr, text, sizeof text);
    }
    if (text[0])
        pug_set_str(span, "client.address", text);
}

static void set_host(struct pug_span *span, struct MHD_Connection *connection)
{
    const char *host = header_get(connection, "Host", 0, NULL);
    struct str rest, name;
    char text[256];
    uint64_t port = 0;
    if (!host)
        return;
    if (host[0] == '[') {
        name = str_split(str_from(host + 1), ']', &rest);
        rest = str_skip(rest, 1);
    } else {
        name = str_split(str_from(host), ':', &rest);
    }
    if (!rest.ptr || !str_to_u64(rest, &port) || port > UINT16_MAX)
        port = 0;
    snprintf(text, sizeof text, "%.*s", STR_ARG(name));
    run_set_server(span, text, (long)port);
}

static bool is_known_method(const char *method)
{
    static const char *const known[] = {"GET",   "HEAD",    "POST",    "PUT",  "DELETE",
                                        "PATCH", "OPTIONS", "CONNECT", "TRACE"};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(method, known[i]) == 0)
            return true;
    return false;
}

static void request_begin(struct request *r, const struct server *s,
                          struct MHD_Connection *connection, const char *url, const char *method,
                          const char *version)
{
    struct pug_context sender;
    struct pug_span *span = &r->span;
    bool known = is_known_method(method);
    pug_extract(header_get, connection, &sender);
    pug_span_start_from(span, &sender, "HTTP", PUG_KIND(PUG_KIND_SERVER));
    if (known)
        pug_set_name(span, method);
    pug_set_str(span, "http.request.method", known ? method : "_OTHER");
    if (!known)
        pug_set_str(span, "http.request.method_original", method);
    pug_set_str(span, "url.path", url);
    pug_set_str(span, "url.scheme", s->tls ? "https" : "http");
    if (strncmp(version, "HTTP/", 5) == 0)
        pug_set_str(span, "network.protocol.version", version + 5);
    set_host(span, connection);
    set_client(span, connection);
    const char *agent = header_get(connection, "User-Agent", 0, NULL);
    if (agent)
        pug_set_str(span, "user_agent.original", agent);
}

static const char *why_terminated(enum MHD_RequestTerminationCode code)
{
    switch (code) {
    case MHD_REQUEST_TERMINATED_COMPLETED_OK:
        return NULL;
    case MHD_REQUEST_TERMINATED_TIMEOUT_REACHED:
        return "timeout";
    case MHD_REQUEST_TERMINATED_DAEMON_SHUTDOWN:
        return "shutdown";
    case MHD_REQUEST_TERMINATED_READ_ERROR:
        return "read_error";
    case MHD_REQUEST_TERMINATED_CLIENT_ABORT:
        return "client_abort";
    default:
        return "connection_closed";
    }
}

static void request_end(struct request *r, enum MHD_RequestTerminationCode code)
{
    const char *why = why_terminated(code);
    char type[16];
    if (r->status)
        pug_set_int(&r->span, "http.response.status_code", r->status);
    if (!why && r->status >= 500) {
        snprintf(type, sizeof type, "%u", r->status);
        why = type;
    }
    if (why) {
        pug_set_str(&r->span, "error.type", why);
        pug_error(&r->span, NULL);
    }
    pug_span_end(&r->span);
}

static enum MHD_Result answer(void *cls, struct MHD_Connection *connection, const char *url,
                              const char *method, const char *version, const char *upload,
                              size_t *upload_size, void **request_cls)
{
    struct server *s = cls;
    struct request *r = NULL;
    if (run_on())
        KEEP_ERRNO({
            r = handles_find(&requests, connection);
            if (!r && (r = handles_get(&requests, connection, sizeof *r)) != NULL)
                request_begin(r, s, connection, url, method, version);
        });
    PUG_ATTACH(r ? &r->span.context : NULL);
    return s->answer(s->answer_cls, connection, url, method, version, upload, upload_size,
                     request_cls);
}

static void completed(void *cls, struct MHD_Connection *connection, void **request_cls,
                      enum MHD_RequestTerminationCode code)
{
    struct server *s = cls;
    struct request *r = NULL;
    KEEP_ERRNO(r = handles_take(&requests, connection));
    if (s->completed) {
        PUG_ATTACH(r ? &r->span.context : NULL);
        s->completed(s->completed_cls, connection, request_cls, code);
    }
    if (r)
        KEEP_ERRNO({
            request_end(r, code);
            free(r);
        });
}

enum MHD_Result MHD_queue_response(struct MHD_Connection *connection, unsigned status,
                                   struct MHD_Response *response)
{
    NEXT(MHD_queue_response, MHD_NO);
    enum MHD_Result result = real(connection, status, response);
    if (!inside && connection && result == MHD_YES)
        KEEP_ERRNO({
            struct request *r = handles_find(&requests, connection);
            if (r)
                r->status = status;
        });
    return result;
}

/* ---- the daemon ---- */

#define OPTION_WORDS_MAX 60 /* more and the daemon is started without spans */

struct options {
    uintptr_t words[OPTION_WORDS_MAX + 4];
    size_t n;
};

/* Words after the option; 0: unknown. */
static unsigned words_after(uintptr_t option)
{
    switch ((enum MHD_OPTION)option) {
    case MHD_OPTION_NOTIFY_COMPLETED:
    case MHD_OPTION_URI_LOG_CALLBACK:
    case MHD_OPTION_EXTERNAL_LOGGER:
    case MHD_OPTION_UNESCAPE_CALLBACK:
    case MHD_OPTION_DIGEST_AUTH_RANDOM:
    case MHD_OPTION_NOTIFY_CONNECTION:
    case MHD_OPTION_GNUTLS_PSK_CRED_HANDLER:
        return 2;
    default: /* up to MHD_OPTION_TLS_NO_ALPN of 0.9.75 */
        return option >= 1 && option <= 34 ? 1 : 0;
    }
}

static bool completed_in_array(const struct MHD_OptionItem *items, struct server *s, unsigned depth)
{
    if (!items || depth > 4)
        return false;
    for (; items->option != MHD_OPTION_END; items++) {
        if (!words_after((uintptr_t)items->option))
            return false;
        if (items->option == MHD_OPTION_NOTIFY_COMPLETED) {
            s->completed = (MHD_RequestCompletedCallback)items->value;
            s->completed_cls = items->ptr_value;
        } else if (items->option == MHD_OPTION_ARRAY &&
                   !completed_in_array(items->ptr_value, s, depth + 1)) {
            return false;
        }
    }
    return true;
}

/* Reads the options into words, notes the program's completion callback, and puts ours behind it: the
 * last one counts. False: there is one that we do not know, or too many. */
static bool options_read(struct options *o, struct server *s, va_list args)
{
    for (;;) {
        uintptr_t option = (uintptr_t)va_arg(args, unsigned);
        unsigned n = words_after(option);
        if (option == MHD_OPTION_END)
            break;
        if (!n || o->n + 1 + n > OPTION_WORDS_MAX)
            return false;
        o->words[o->n++] = option;
        for (unsigned i = 0; i < n; i++)
            o->words[o->n++] = va_arg(args, uintptr_t);
        const uintptr_t *values = &o->words[o->n - n];
        if (option == MHD_OPTION_NOTIFY_COMPLETED) {
            s->completed = (MHD_RequestCompletedCallback)values[0];
            s->completed_cls = (void *)values[1];
        } else if (option == MHD_OPTION_ARRAY &&
                   !completed_in_array((const struct MHD_OptionItem *)values[0], s, 0)) {
            return false;
        }
    }
    o->words[o->n++] = MHD_OPTION_NOTIFY_COMPLETED;
    o->words[o->n++] = (uintptr_t)completed;
    o->words[o->n++] = (uintptr_t)s;
    o->words[o->n++] = MHD_OPTION_END;
    return true;
}

#define W8(w, at)                                                                                  \
    (w)[at], (w)[(at) + 1], (w)[(at) + 2], (w)[(at) + 3], (w)[(at) + 4], (w)[(at) + 5],            \
        (w)[(at) + 6], (w)[(at) + 7]

/* NULL: not ours to start. */
static struct MHD_Daemon *start_traced(unsigned flags, uint16_t port,
                                       MHD_AcceptPolicyCallback policy, void *policy_cls,
                                       MHD_AccessHandlerCallback handler, void *handler_cls,
                                       va_list args, const void *from, bool *ret_tried)
{
    __typeof__(&MHD_start_daemon) start = OTHER(MHD_start_daemon, from);
    struct options o = {.n = 0};
    struct server *s = start && handler ? calloc(1, sizeof *s) : NULL;
    va_list copy;
    *ret_tried = false;
    if (!s)
        return NULL;
    s->answer = handler;
    s->answer_cls = handler_cls;
    s->tls = (flags & MHD_USE_TLS) != 0;
    va_copy(copy, args);
    bool sound = options_read(&o, s, copy);
    va_end(copy);
    if (!sound) {
        free(s);
        return NULL;
    }
    from_server = from;
    *ret_tried = true;
    const uintptr_t *w = o.words;
    struct MHD_Daemon *daemon = start(flags, port, policy, policy_cls, answer, s, W8(w, 0),
                                      W8(w, 8), W8(w, 16), W8(w, 24), W8(w, 32), W8(w, 40),
                                      W8(w, 48), W8(w, 56));
    struct server *entry = daemon ? handles_get(&servers, daemon, sizeof *entry) : NULL;
    if (entry)
        entry->answer_cls = s; /* to be freed with it */
    if (!daemon)
        free(s);
    return daemon;
}

struct MHD_Daemon *MHD_start_daemon_va(unsigned flags, uint16_t port,
                                       MHD_AcceptPolicyCallback policy, void *policy_cls,
                                       MHD_AccessHandlerCallback handler, void *handler_cls,
                                       va_list args)
{
    NEXT(MHD_start_daemon_va, NULL);
    bool tried = false;
    struct MHD_Daemon *daemon = NULL;
    if (!inside && run_on())
        daemon = start_traced(flags, port, policy, policy_cls, handler, handler_cls, args, caller,
                              &tried);
    return tried ? daemon : real(flags, port, policy, policy_cls, handler, handler_cls, args);
}

struct MHD_Daemon *MHD_start_daemon(unsigned flags, uint16_t port, MHD_AcceptPolicyCallback policy,
                                    void *policy_cls, MHD_AccessHandlerCallback handler,
                                    void *handler_cls, ...)
{
    NEXT(MHD_start_daemon_va, NULL);
    bool tried = false;
    struct MHD_Daemon *daemon = NULL;
    va_list args;
    va_start(args, handler_cls);
    if (!inside && run_on())
        daemon = start_traced(flags, port, policy, policy_cls, handler, handler_cls, args, caller,
                              &tried);
    if (!tried)
        daemon = real(flags, port, policy, policy_cls, handler, handler_cls, args);
    va_end(args);
    return daemon;
}

void MHD_stop_daemon(struct MHD_Daemon *daemon)
{
    NEXT(MHD_stop_daemon, );
    struct server *entry = NULL;
    if (!inside && daemon)
        KEEP_ERRNO(entry = handles_take(&servers, daemon));
    real(daemon);
    if (entry)
        KEEP_ERRNO({
            free(entry->answer_cls);
            free(entry);
        });
}
