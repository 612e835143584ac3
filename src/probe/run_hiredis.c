/* hiredis: a client span for each command.
 *
 *     redisCommand and its like       a scope around the call
 *     redisAppend..., redisGetReply   from appending to the reply, in order
 *     redisAsync...                   from sending to the callback; not for subscriptions and MONITOR, whose
 *                                     callbacks come for ever
 *
 * Its header is not needed. Replies and contexts begin differently in 0.x and 1.x, so of those of a
 * library whose name tells no version nothing but the type of a reply is read. Arguments are keys and
 * values of the program: they are `?` unless the text is wanted in full, and those of AUTH always. */
#include "probe/run.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>

typedef struct redisContext redisContext;
typedef struct redisAsyncContext redisAsyncContext;
typedef void redisCallbackFn(redisAsyncContext *, void *, void *);

enum { REDIS_OK = 0, REDIS_ERR = -1, REDIS_REPLY_ERROR = 6 };

void *redisvCommand(redisContext *c, const char *format, va_list args);
void *redisCommand(redisContext *c, const char *format, ...);
void *redisCommandArgv(redisContext *c, int argc, const char **argv, const size_t *lengths);
int redisvAppendCommand(redisContext *c, const char *format, va_list args);
int redisAppendCommand(redisContext *c, const char *format, ...);
int redisAppendCommandArgv(redisContext *c, int argc, const char **argv, const size_t *lengths);
int redisAppendFormattedCommand(redisContext *c, const char *command, size_t len);
int redisGetReply(redisContext *c, void **reply);
void redisFree(redisContext *c);
int redisvAsyncCommand(redisAsyncContext *c, redisCallbackFn *fn, void *data, const char *format,
                       va_list args);
int redisAsyncCommand(redisAsyncContext *c, redisCallbackFn *fn, void *data, const char *format,
                      ...);
int redisAsyncCommandArgv(redisAsyncContext *c, redisCallbackFn *fn, void *data, int argc,
                          const char **argv, const size_t *lengths);
int redisAsyncFormattedCommand(redisAsyncContext *c, redisCallbackFn *fn, void *data,
                               const char *command, size_t len);
/* not interposed */
int redisvFormatCommand(char **command, const char *format, va_list args);

struct connection {
    struct handle handle;
    struct commands commands;
};

static struct handles connections = HANDLES_INIT;

/* ---- what the library's structs begin with ---- */

struct reply_0 {
    int type;
    long long integer;
    size_t len;
    char *str;
};
struct reply_1 {
    int type;
    long long integer;
    double dval;
    size_t len;
    char *str;
};
struct context_0 {
    int err;
    char errstr[128];
    int fd;
};
struct context_1 {
    const void *funcs;
    int err;
    char errstr[128];
    int fd;
};

/* 0 or 1 by the library's file name (libhiredis.so.0.14, libhiredis.so.1.0.0); -1: unknown. */
static int layout_of(const void *function)
{
    static _Atomic int known = -2;
    int layout = atomic_load_explicit(&known, memory_order_relaxed);
    if (layout != -2)
        return layout;
    Dl_info info;
    const char *mark = dladdr(function, &info) && info.dli_fname
                           ? strstr(info.dli_fname, "libhiredis.so.")
                           : NULL;
    int digit = mark ? mark[strlen("libhiredis.so.")] - '0' : -1;
    layout = digit == 0 || digit == 1 ? digit : -1;
    atomic_store_explicit(&known, layout, memory_order_relaxed);
    return layout;
}

static const char *context_error(const void *c, int layout)
{
    return layout == 0 && ((const struct context_0 *)c)->err ? ((const struct context_0 *)c)->errstr
           : layout == 1 && ((const struct context_1 *)c)->err
               ? ((const struct context_1 *)c)->errstr
               : NULL;
}

static void set_peer(struct pug_span *span, const void *c, int layout)
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
        struct sockaddr_un un;
        struct sockaddr_storage space;
    } peer;
    socklen_t len = sizeof peer;
    char text[INET6_ADDRSTRLEN];
    int fd = layout == 0   ? ((const struct context_0 *)c)->fd
             : layout == 1 ? ((const struct context_1 *)c)->fd
                           : -1;
    memset(&peer, 0, sizeof peer);
    if (fd < 0 || getpeername(fd, &peer.any, &len) != 0)
        return;
    if (peer.any.sa_family == AF_INET && inet_ntop(AF_INET, &peer.v4.sin_addr, text, sizeof text))
        run_set_server(span, text, ntohs(peer.v4.sin_port));
    else if (peer.any.sa_family == AF_INET6 &&
             inet_ntop(AF_INET6, &peer.v6.sin6_addr, text, sizeof text))
        run_set_server(span, text, ntohs(peer.v6.sin6_port));
    else if (peer.any.sa_family == AF_UNIX && len > offsetof(struct sockaddr_un, sun_path))
        run_set_server(span, peer.un.sun_path, 0);
}

static void set_reply(struct pug_span *span, const void *reply, int layout)
{
    int type;
    char prefix[64] = "error";
    if (!reply)
        return;
    memcpy(&type, reply, sizeof type);
    if (type != REDIS_REPLY_ERROR)
        return;
    const char *text = layout == 0   ? ((const struct reply_0 *)reply)->str
                       : layout == 1 ? ((const struct reply_1 *)reply)->str
                                     : NULL;
    if (text)
        snprintf(prefix, sizeof prefix, "%.*s", (int)strcspn(text, " \r\n"), text);
    run_set_error(span, prefix, true, text);
}

static void set_no_reply(struct pug_span *span, const void *c, int layout)
{
    run_set_error(span, "connection", false, context_error(c, layout));
}

/* ---- the command ---- */

struct text {
    char bytes[PUG_STR_MAX];
    size_t n;
    unsigned words;
};

static void add_word(struct text *t, const char *word, size_t len)
{
    bool is_name = t->words++ == 0;
    if (t->n + len + 1 > sizeof t->bytes)
        return;
    if (!is_name)
        t->bytes[t->n++] = ' ';
    for (size_t i = 0; i < len; i++) {
        unsigned char b = (unsigned char)word[i];
        t->bytes[t->n++] = (char)(is_name ? toupper(b) : b);
    }
}

static bool keeps_secrets(struct str name)
{
    return str_eq_nocase(name, STR("AUTH")) || str_eq_nocase(name, STR("HELLO")) ||
           str_eq_nocase(name, STR("ACL")) || str_eq_nocase(name, STR("CONFIG")) ||
           str_eq_nocase(name, STR("MIGRATE"));
}

static struct str name_of(const struct text *t)
{
    struct str name = {t->bytes, 0};
    while (name.len < t->n && t->bytes[name.len] != ' ')
        name.len++;
    return name;
}

static void set_command(struct pug_span *span, const struct text *t, const void *c, int layout)
{
    char name[64];
    snprintf(name, sizeof name, "%.*s", STR_ARG(name_of(t)));
    pug_set_str(span, "db.system.name", "redis");
    if (name[0]) {
        pug_set_name(span, name);
        pug_set_str(span, "db.operation.name", name);
    }
    if (run_query_text() != SQL_TEXT_OFF && t->n)
        pug_set_strn(span, "db.query.text", t->bytes, t->n);
    set_peer(span, c, layout);
}

static void words_of_argv(struct text *t, int argc, const char **argv, const size_t *lengths)
{
    for (int i = 0; i < argc; i++) {
        size_t len = lengths ? lengths[i] : strlen(argv[i]);
        bool shown = t->words == 0 ||
                     (run_query_text() == SQL_TEXT_FULL && !keeps_secrets(name_of(t)));
        add_word(t, shown ? argv[i] : "?", shown ? len : 1);
    }
}

/* "*2\r\n$3\r\nGET\r\n$1\r\na\r\n", as it is sent. What is not of this form gives no words. */
static void words_of_resp(struct text *t, const char *command, size_t len)
{
    struct str rest, line = str_split((struct str){command, len}, '\n', &rest);
    if (!str_starts(line, STR("*")))
        return;
    while (rest.ptr && rest.len) {
        uint64_t n;
        line = str_split(rest, '\n', &rest);
        if (!str_starts(line, STR("$")) || !str_to_u64(str_trim(str_skip(line, 1)), &n) ||
            n > rest.len)
            return;
        const char *word = rest.ptr;
        size_t length = (size_t)n;
        words_of_argv(t, 1, &word, &length);
        rest = str_skip(rest, length + 2);
    }
}

/* The words of a format, of which the first may be an argument itself. */
static void words_of_format(struct text *t, const char *format, va_list args, const void *from)
{
    va_list copy;
    if (run_query_text() == SQL_TEXT_FULL) {
        __typeof__(&redisvFormatCommand) format_command = OTHER(redisvFormatCommand, from);
        char *command = NULL;
        va_copy(copy, args);
        int len = format_command ? format_command(&command, format, copy) : -1;
        va_end(copy);
        if (len > 0)
            words_of_resp(t, command, (size_t)len);
        if (len >= 0)
            free(command);
        return;
    }
    for (const char *p = format; *p;) {
        size_t space = strspn(p, " "), len = strcspn(p + space, " ");
        p += space;
        if (len && t->words == 0 && len == 2 && p[0] == '%' && (p[1] == 's' || p[1] == 'b')) {
            va_copy(copy, args);
            const char *word = va_arg(copy, const char *);
            size_t n = p[1] == 'b' ? va_arg(copy, size_t) : word ? strlen(word) : 0;
            va_end(copy);
            add_word(t, word ? word : "", n);
        } else if (len && t->words == 0 && memchr(p, '%', len)) {
            add_word(t, "", 0);
        } else if (len) {
            add_word(t, t->words ? "?" : p, t->words ? 1 : len);
        }
        p += len;
    }
}

/* ---- that wait ---- */

static void replied(struct pug_span *span, redisContext *c, const void *reply, int layout)
{
    if (reply)
        set_reply(span, reply, layout);
    else
        set_no_reply(span, c, layout);
}

/* In blocking mode hiredis reads the replies of what was appended before. */
void *redisvCommand(redisContext *c, const char *format, va_list args)
{
    NEXT(redisvCommand, NULL);
    if (inside || !c || !format || !run_on())
        return real(c, format, args);
    PUG_SPAN("redis", PUG_KIND(PUG_KIND_CLIENT));
    int layout = layout_of((const void *)(uintptr_t)real);
    KEEP_ERRNO({
        struct text t = {.n = 0};
        words_of_format(&t, format, args, caller);
        set_command(PUG_CURRENT, &t, c, layout);
    });
    void *reply = real(c, format, args);
    KEEP_ERRNO(replied(PUG_CURRENT, c, reply, layout));
    return reply;
}

void *redisCommand(redisContext *c, const char *format, ...)
{
    NEXT(redisvCommand, NULL);
    void *reply;
    va_list args;
    va_start(args, format);
    if (inside || !c || !format || !run_on()) {
        reply = real(c, format, args);
        va_end(args);
        return reply;
    }
    PUG_SPAN("redis", PUG_KIND(PUG_KIND_CLIENT));
    int layout = layout_of((const void *)(uintptr_t)real);
    KEEP_ERRNO({
        struct text t = {.n = 0};
        words_of_format(&t, format, args, caller);
        set_command(PUG_CURRENT, &t, c, layout);
    });
    reply = real(c, format, args);
    va_end(args);
    KEEP_ERRNO(replied(PUG_CURRENT, c, reply, layout));
    return reply;
}

void *redisCommandArgv(redisContext *c, int argc, const char **argv, const size_t *lengths)
{
    NEXT(redisCommandArgv, NULL);
    if (inside || !c || !argv || !run_on())
        return real(c, argc, argv, lengths);
    PUG_SPAN("redis", PUG_KIND(PUG_KIND_CLIENT));
    int layout = layout_of((const void *)(uintptr_t)real);
    KEEP_ERRNO({
        struct text t = {.n = 0};
        words_of_argv(&t, argc, argv, lengths);
        set_command(PUG_CURRENT, &t, c, layout);
    });
    void *reply = real(c, argc, argv, lengths);
    KEEP_ERRNO(replied(PUG_CURRENT, c, reply, layout));
    return reply;
}

/* ---- appended, and read later ---- */

static void appended(redisContext *c, const struct text *t, int layout)
{
    struct connection *k = handles_get(&connections, c, sizeof *k);
    struct pug_span *span = k ? commands_add(&k->commands) : NULL;
    if (!span)
        return;
    pug_span_start(span, "redis", PUG_KIND(PUG_KIND_CLIENT));
    set_command(span, t, c, layout);
}

static int append_format(redisContext *c, const char *format, va_list args, const void *caller,
                         int (*real)(redisContext *, const char *, va_list))
{
    struct text t = {.n = 0};
    KEEP_ERRNO(words_of_format(&t, format, args, caller));
    int result = real(c, format, args);
    if (result == REDIS_OK)
        KEEP_ERRNO(appended(c, &t, layout_of((const void *)(uintptr_t)real)));
    return result;
}

int redisvAppendCommand(redisContext *c, const char *format, va_list args)
{
    NEXT(redisvAppendCommand, REDIS_ERR);
    return inside || !c || !format || !run_on() ? real(c, format, args)
                                                : append_format(c, format, args, caller, real);
}

int redisAppendCommand(redisContext *c, const char *format, ...)
{
    NEXT(redisvAppendCommand, REDIS_ERR);
    va_list args;
    va_start(args, format);
    int result = inside || !c || !format || !run_on()
                     ? real(c, format, args)
                     : append_format(c, format, args, caller, real);
    va_end(args);
    return result;
}

int redisAppendCommandArgv(redisContext *c, int argc, const char **argv, const size_t *lengths)
{
    NEXT(redisAppendCommandArgv, REDIS_ERR);
    int result = real(c, argc, argv, lengths);
    if (!inside && c && argv && result == REDIS_OK && run_on())
        KEEP_ERRNO({
            struct text t = {.n = 0};
            words_of_argv(&t, argc, argv, lengths);
            appended(c, &t, layout_of((const void *)(uintptr_t)real));
        });
    return result;
}

int redisAppendFormattedCommand(redisContext *c, const char *command, size_t len)
{
    NEXT(redisAppendFormattedCommand, REDIS_ERR);
    int result = real(c, command, len);
    if (!inside && c && command && result == REDIS_OK && run_on())
        KEEP_ERRNO({
            struct text t = {.n = 0};
            words_of_resp(&t, command, len);
            appended(c, &t, layout_of((const void *)(uintptr_t)real));
        });
    return result;
}

int redisGetReply(redisContext *c, void **reply)
{
    NEXT(redisGetReply, REDIS_ERR);
    int result = real(c, reply);
    if (inside || !c || !run_on())
        return result;
    KEEP_ERRNO({
        struct connection *k = handles_find(&connections, c);
        struct pug_span *span = k ? commands_first(&k->commands) : NULL;
        int layout = layout_of((const void *)(uintptr_t)real);
        if (span && result == REDIS_OK) {
            set_reply(span, reply ? *reply : NULL, layout);
            commands_end_first(&k->commands);
        } else if (span) {
            set_no_reply(span, c, layout);
            commands_end_first(&k->commands);
            commands_end_all(&k->commands, "an earlier command of the connection failed");
        }
    });
    return result;
}

void redisFree(redisContext *c)
{
    NEXT(redisFree, );
    if (!inside && c && run_on())
        KEEP_ERRNO({
            struct connection *k = handles_take(&connections, c);
            if (k)
                commands_end_all(&k->commands, "the connection was closed");
            free(k);
        });
    real(c);
}

/* ---- answered in a callback ---- */

struct async {
    redisCallbackFn *fn;
    void *data;
    int layout;
    struct pug_span span;
};

static void answered(redisAsyncContext *c, void *reply, void *data)
{
    struct async a = *(struct async *)data;
    KEEP_ERRNO({
        free(data);
        if (reply)
            set_reply(&a.span, reply, a.layout);
        else
            set_no_reply(&a.span, c, a.layout);
        pug_span_end(&a.span);
    });
    if (a.fn)
        a.fn(c, reply, a.data);
}

/* Commands whose callback comes more than once, or which end another one's. */
static bool goes_on(const struct text *t)
{
    static const char *const names[] = {"SUBSCRIBE",   "PSUBSCRIBE",   "SSUBSCRIBE",  "MONITOR",
                                        "UNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE"};
    struct str name = name_of(t);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (str_eq(name, str_from(names[i])))
            return true;
    return name.len == 0; /* whatever it is */
}

static struct async *async_begin(redisAsyncContext *c, redisCallbackFn *fn, void *data,
                                 const struct text *t, int layout)
{
    struct async *a = goes_on(t) ? NULL : calloc(1, sizeof *a);
    if (!a)
        return NULL;
    *a = (struct async){.fn = fn, .data = data, .layout = layout};
    pug_span_start(&a->span, "redis", PUG_KIND(PUG_KIND_CLIENT));
    set_command(&a->span, t, c, layout);
    return a;
}

static void async_sent(struct async *a, redisAsyncContext *c, int result)
{
    if (!a || result == REDIS_OK)
        return;
    set_no_reply(&a->span, c, a->layout);
    pug_span_end(&a->span);
    free(a);
}

static int async_format(redisAsyncContext *c, redisCallbackFn *fn, void *data, const char *format,
                        va_list args, const void *caller,
                        int (*real)(redisAsyncContext *, redisCallbackFn *, void *, const char *,
                                    va_list))
{
    struct async *a = NULL;
    KEEP_ERRNO({
        struct text t = {.n = 0};
        words_of_format(&t, format, args, caller);
        a = async_begin(c, fn, data, &t, layout_of((const void *)(uintptr_t)real));
    });
    int result = real(c, a ? answered : fn, a ? a : data, format, args);
    KEEP_ERRNO(async_sent(a, c, result));
    return result;
}

int redisvAsyncCommand(redisAsyncContext *c, redisCallbackFn *fn, void *data, const char *format,
                       va_list args)
{
    NEXT(redisvAsyncCommand, REDIS_ERR);
    return inside || !c || !format || !run_on()
               ? real(c, fn, data, format, args)
               : async_format(c, fn, data, format, args, caller, real);
}

int redisAsyncCommand(redisAsyncContext *c, redisCallbackFn *fn, void *data, const char *format,
                      ...)
{
    NEXT(redisvAsyncCommand, REDIS_ERR);
    va_list args;
    va_start(args, format);
    int result = inside || !c || !format || !run_on()
                     ? real(c, fn, data, format, args)
                     : async_format(c, fn, data, format, args, caller, real);
    va_end(args);
    return result;
}

int redisAsyncCommandArgv(redisAsyncContext *c, redisCallbackFn *fn, void *data, int argc,
                          const char **argv, const size_t *lengths)
{
    NEXT(redisAsyncCommandArgv, REDIS_ERR);
    struct async *a = NULL;
    if (inside || !c || !argv || !run_on())
        return real(c, fn, data, argc, argv, lengths);
    KEEP_ERRNO({
        struct text t = {.n = 0};
        words_of_argv(&t, argc, argv, lengths);
        a = async_begin(c, fn, data, &t, layout_of((const void *)(uintptr_t)real));
    });
    int result = real(c, a ? answered : fn, a ? a : data, argc, argv, lengths);
    KEEP_ERRNO(async_sent(a, c, result));
    return result;
}

int redisAsyncFormattedCommand(redisAsyncContext *c, redisCallbackFn *fn, void *data,
                               const char *command, size_t len)
{
    NEXT(redisAsyncFormattedCommand, REDIS_ERR);
    struct async *a = NULL;
    if (inside || !c || !command || !run_on())
        return real(c, fn, data, command, len);
    KEEP_ERRNO({
        struct text t = {.n = 0};
        words_of_resp(&t, command, len);
        a = async_begin(c, fn, data, &t, layout_of((const void *)(uintptr_t)real));
    });
    int result = real(c, a ? answered : fn, a ? a : data, command, len);
    KEEP_ERRNO(async_sent(a, c, result));
    return result;
}
