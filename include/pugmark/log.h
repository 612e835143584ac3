/* Logs that name the trace they belong to: `otel_trace_id` and `otel_span_id` of the current span, "0"
 * where there is none, when tracing is off, and with PUG_DISABLE.
 *
 *     printf("disk full " PUG_LOG_FMT "\n", PUG_LOG_ARGS);
 *                            // disk full otel_trace_id=0af7... otel_span_id=b7ad...
 *     len = pug_log_json(line, len, sizeof line);       // {"msg":"..","otel_trace_id":"0af7..",..}
 *     pug_log_format(out, sizeof out, "%(otel_trace_id)s disk full");
 *
 *     #define PUG_LOG_SYSLOG                            // every syslog() in this file
 *     #include <pugmark/log.h>
 *
 * With PUG_DISABLE pug_syslog is syslog and pug_log_json leaves the record as it is.
 *
 * Nothing here changes errno. Thread-safe; not safe in signal handlers but where it says so. Except for pug_log_json nothing here allocates. */
#ifndef PUGMARK_LOG_H
#define PUGMARK_LOG_H

#include <pugmark/request_id.h>

#include <stdarg.h>
#ifdef PUG_DISABLE
#include <syslog.h>
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* For formats of printf's kind: two %s and their arguments. */
#define PUG_LOG_FMT "otel_trace_id=%s otel_span_id=%s"
#define PUG_LOG_ARGS pug_log_trace_id(), pug_log_span_id()

#ifndef PUG_DISABLE
/* 32 and 16 lower-case digits, or "0". The text is the thread's own and stays until its next call of
 * the same function. Safe in signal handlers, but for that. */
const char *pug_log_trace_id(void);
const char *pug_log_span_id(void);

/* As syslog(3) and vsyslog(3); where there is a current span, " otel_trace_id=.. otel_span_id=.."
 * stands behind the message (before a line feed at its end). %m is the errno of the caller. A format
 * of more than PUG_LOG_FORMAT_MAX bytes goes out without the ids. */
__attribute__((format(printf, 2, 3))) void pug_syslog(int priority, const char *format, ...);
__attribute__((format(printf, 2, 0))) void pug_vsyslog(int priority, const char *format,
                                                       va_list args);

/* Puts the members "otel_trace_id" and "otel_span_id" into the JSON object in record[0..len), in
 * place, instead of those that are there. Returns the length it has then; when that is not less than
 * `size` nothing was changed (the buffer is too small: there must be room for a terminator). What is
 * no valid JSON object stays as it is. Allocates only for records with escapes in their keys. */
size_t pug_log_json(char *record, size_t len, size_t size);

/* For formats of your own: `text` into out[0..size) with
 *     %(otel_trace_id)  %(otel_span_id)       the ids or 0
 *     %(otel_trace_sampled)                   true or false
 *     %(request_id)                           of PUG_REQUEST_ID, or 0
 * replaced; an `s` right behind the parenthesis goes too, as in Python's formats. All else, also other
 * %(names) and %%, stays: what comes out may be a format itself. Cut and terminated; returns the whole
 * length, as snprintf. */
size_t pug_log_format(char *out, size_t size, const char *text);
#endif

#define PUG_LOG_FORMAT_MAX 2048

#ifdef PUG_DISABLE
#define pug_syslog(...) syslog(__VA_ARGS__)
#define pug_vsyslog(...) vsyslog(__VA_ARGS__)

PUG__INLINE const char *pug_log_trace_id(void)
{
    return "0";
}
PUG__INLINE const char *pug_log_span_id(void)
{
    return "0";
}
PUG__INLINE size_t pug_log_json(char *record, size_t len, size_t size)
{
    (void)record, (void)size;
    return len;
}
#define pug_log_json(...) (0 ? (pug_log_json)(__VA_ARGS__) : pug__same(PUG__BEFORE(__VA_ARGS__)))
static inline __attribute__((unused)) size_t pug_log_format(char *out, size_t size,
                                                            const char *text)
{
    static const struct {
        const char *name;
        size_t len;
        const char *value;
    } known[] = {{"%(otel_trace_id)", 16, "0"},
                 {"%(otel_span_id)", 15, "0"},
                 {"%(otel_trace_sampled)", 21, "false"},
                 {"%(request_id)", 13, "0"}};
    size_t n = 0, i;
    while (*text) {
        size_t len = text[0] == '%' && text[1] == '%' ? 2 : 1, skip = len;
        const char *from = text;
        for (i = 0; i < sizeof known / sizeof known[0]; i++)
            if (__builtin_strncmp(text, known[i].name, known[i].len) == 0) {
                from = known[i].value;
                len = __builtin_strlen(from);
                skip = known[i].len + (text[known[i].len] == 's');
                break;
            }
        for (i = 0; i < len; i++, n++)
            if (n + 1 < size)
                out[n] = from[i];
        text += skip;
    }
    if (size)
        out[n < size ? n : size - 1] = '\0';
    return n;
}
#endif

#ifdef __cplusplus
}
#endif
#endif

/* Each time the header is included: a file may want it although a header of it did not. */
#if defined(PUG_LOG_SYSLOG) && !defined(PUG__LOG_SYSLOG)
#define PUG__LOG_SYSLOG
#include <syslog.h>
#ifndef PUG_DISABLE
#define syslog(...) pug_syslog(__VA_ARGS__)
#define vsyslog(...) pug_vsyslog(__VA_ARGS__)
#endif
#endif
