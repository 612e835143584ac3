/* Logs that name their trace: pugmark/log.h. Costs two ids of the current span and what the log costs
 * anyway; without a current span a look at two variables. */
#include "pugmark/log.h"

#include "sdk/handover.h"
#include "sdk/json_edit.h"
#include "sdk/span.h"

#include <errno.h>
#include <syslog.h>

#define TRACE_KEY "otel_trace_id"
#define SPAN_KEY "otel_span_id"

static __thread char trace_text[33] __attribute__((tls_model("initial-exec")));
static __thread char span_text[17] __attribute__((tls_model("initial-exec")));

/* The ids as text, "0" where there are none. */
struct ids {
    char trace[33], span[17];
    bool any, sampled;
};

static void ids_init(struct ids *ids)
{
    struct pug_context c;
    span_current_context(&c);
    ids->any = pug_context_valid(&c);
    ids->sampled = ids->any && (c.flags & PUG_FLAG_SAMPLED);
    if (ids->any) {
        pug_trace_id_hex(&c, ids->trace);
        pug_span_id_hex(&c, ids->span);
    } else {
        memcpy(ids->trace, "0", 2);
        memcpy(ids->span, "0", 2);
    }
}

const char *pug_log_trace_id(void)
{
    struct pug_context c;
    span_current_context(&c);
    pug_trace_id_hex(&c, trace_text);
    return trace_text[0] ? trace_text : "0";
}

const char *pug_log_span_id(void)
{
    struct pug_context c;
    span_current_context(&c);
    pug_span_id_hex(&c, span_text);
    return span_text[0] ? span_text : "0";
}

/* ---- syslog ---- */

void pug_vsyslog(int priority, const char *format, va_list args)
{
    int errno_before = errno; /* what %m shows */
    size_t len = strnlen(format, PUG_LOG_FORMAT_MAX + 1);
    char with_ids[PUG_LOG_FORMAT_MAX + sizeof " " TRACE_KEY "= " SPAN_KEY "=\n" + 32 + 16];
    struct ids ids;
    ids_init(&ids);
    if (ids.any && len <= PUG_LOG_FORMAT_MAX) {
        bool line_feed = len && format[len - 1] == '\n';
        size_t n = len - line_feed;
        memcpy(with_ids, format, n);
        /* Digits only: nothing that a format would take for its own. */
        char *at = stpcpy(with_ids + n, " " TRACE_KEY "=");
        at = stpcpy(at, ids.trace);
        at = stpcpy(at, " " SPAN_KEY "=");
        at = stpcpy(at, ids.span);
        if (line_feed)
            stpcpy(at, "\n");
        format = with_ids;
    }
    errno = errno_before;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    vsyslog(priority, format, args);
#pragma GCC diagnostic pop
    errno = errno_before;
}

void pug_syslog(int priority, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    pug_vsyslog(priority, format, args);
    va_end(args);
}

/* ---- JSON ---- */

size_t pug_log_json(char *record, size_t len, size_t size)
{
    static const struct str keys[] = {{TRACE_KEY, sizeof TRACE_KEY - 1},
                                      {SPAN_KEY, sizeof SPAN_KEY - 1}};
    int errno_before = errno;
    struct arena arena = ARENA_INIT;
    struct json_edit e;
    if (record && json_edit_scan((struct str){record, len}, &arena, keys, 2, NULL, NULL, &e)) {
        char members[sizeof "\"" TRACE_KEY "\":\"\",\"" SPAN_KEY "\":\"\"" + 32 + 16];
        struct ids ids;
        ids_init(&ids);
        char *at = stpcpy(members, "\"" TRACE_KEY "\":\"");
        at = stpcpy(at, ids.trace);
        at = stpcpy(at, "\",\"" SPAN_KEY "\":\"");
        at = stpcpy(at, ids.span);
        at = stpcpy(at, "\"");
        len = json_edit_apply(record, len, size, &e, (struct str){members, (size_t)(at - members)});
    }
    arena_done(&arena);
    errno = errno_before;
    return len;
}

/* ---- formats of the program's own ---- */

struct output {
    char *out;
    size_t size, len;
};

static void put(struct output *o, struct str s)
{
    for (size_t i = 0; i < s.len; i++, o->len++)
        if (o->len + 1 < o->size)
            o->out[o->len] = s.ptr[i];
}

/* What %(name) stands for; STR_NONE: not ours. */
static struct str value_of(struct str name, const struct ids *ids, struct str request_id)
{
    if (str_eq(name, STR(TRACE_KEY)))
        return str_from(ids->trace);
    if (str_eq(name, STR(SPAN_KEY)))
        return str_from(ids->span);
    if (str_eq(name, STR("otel_trace_sampled")))
        return ids->sampled ? STR("true") : STR("false");
    if (str_eq(name, STR("request_id")))
        return request_id.len ? request_id : STR("0");
    return STR_NONE;
}

size_t pug_log_format(char *out, size_t size, const char *text)
{
    char buffer[PUG_REQUEST_ID_MAX + 1];
    struct output o = {out, size, 0};
    struct str rest = str_from(text), request_id = ambient_request_id(buffer);
    struct ids ids;
    ids_init(&ids);
    while (rest.len) {
        const char *close;
        struct str value = STR_NONE;
        if (rest.len > 2 && rest.ptr[0] == '%' && rest.ptr[1] == '(' &&
            (close = memchr(rest.ptr, ')', rest.len)) != NULL) {
            struct str name = {rest.ptr + 2, (size_t)(close - rest.ptr) - 2};
            value = value_of(name, &ids, request_id);
            if (value.ptr) {
                rest = str_skip(rest, name.len + 3);
                if (rest.len && rest.ptr[0] == 's')
                    rest = str_skip(rest, 1);
            }
        }
        if (!value.ptr) {
            /* "%%(" is a percent sign and a parenthesis. */
            size_t n = rest.len > 1 && rest.ptr[0] == '%' && rest.ptr[1] == '%' ? 2 : 1;
            value = (struct str){rest.ptr, n};
            rest = str_skip(rest, n);
        }
        put(&o, value);
    }
    if (size)
        out[o.len < size ? o.len : size - 1] = '\0';
    return o.len;
}
