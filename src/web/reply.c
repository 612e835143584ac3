#include "web/web_internal.h"

#include "base/clock.h"
#include "web/page_files.h"

#include <stdarg.h>
#include <stdio.h>

/* ---- what is read ---- */

struct store_view *web_view(struct web_request *q)
{
    if (!q->view)
        q->view = store_view_new(q->web->store);
    return q->view;
}

bool web_is_partial(const struct web_request *q)
{
    return q->is_partial || (q->view && store_view_is_damaged(q->view));
}

struct store_view *web_view_take(struct web_request *q)
{
    struct store_view *view = q->view;
    q->is_partial = web_is_partial(q);
    q->view = NULL;
    return view;
}

/* Every answer of our own that is read from a view is an object with members. */
static void put_partial(struct buf *body)
{
    if (!body->len || body->ptr[body->len - 1] != '}')
        return;
    body->len--;
    buf_cstr(body, ",\"partial\":true,\"message\":\"" WEB_PARTIAL_MESSAGE "\"}");
}

/* ---- answers ---- */

void web_answered(struct web_request *q, int status)
{
    static const struct {
        const char *name, *value;
    } headers[] = {
        {"X-Content-Type-Options", "nosniff"},
        {"Referrer-Policy", "no-referrer"},
        {"Cross-Origin-Resource-Policy", "same-origin"},
        {"Cross-Origin-Opener-Policy", "same-origin"},
        {"X-Frame-Options", "DENY"},
    };
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++)
        http_reply_header(q->http, headers[i].name, headers[i].value);
    store_view_free(web_view_take(q));
    if (status == 200 && q->is_partial)
        http_reply_header(q->http, "X-Pugmark-Partial", "true");
    if (!q->stats)
        return;
    atomic_fetch_add_explicit(&q->stats->requests, 1, memory_order_relaxed);
    if (status >= 500)
        atomic_fetch_add_explicit(&q->stats->failures, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&q->stats->busy_ns, clock_monotonic_ns() - q->arrived_ns,
                              memory_order_relaxed);
}

void web_reply(struct web_request *q, int status, const char *content_type, struct buf *body)
{
    if (status == 200 && q->dialect == DIALECT_OWN && web_is_partial(q) && buf_ok(body))
        put_partial(body);
    if (!buf_ok(body)) {
        bool too_large = body->bytes_max && body->len;
        buf_done(body);
        *body = BUF_INIT;
        status = 500;
        web_error_body(q->dialect, status, NULL, 0, q->trace_id,
                       too_large ? STR("the answer is too large to be sent in one piece")
                                 : STR("out of memory"),
                       body);
    }
    web_answered(q, status);
    http_reply_header(q->http, "Cache-Control", "no-store");
    http_reply_header(q->http, "Content-Security-Policy",
                      "default-src 'none'; frame-ancestors 'none'");
    http_reply(q->http, status, content_type, body);
}

void web_reply_json(struct web_request *q, int status, struct buf *body)
{
    web_reply(q, status, "application/json", body);
}

void web_reply_text(struct web_request *q, int status, const char *text)
{
    struct buf body = BUF_INIT;
    buf_cstr(&body, text);
    web_reply(q, status, "text/plain; charset=utf-8", &body);
}

void web_error_body(enum dialect dialect, int status, const char *parameter, size_t position,
                    struct str trace_id, struct str message, struct buf *out)
{
    struct json_writer w = json_writer(out);
    switch (dialect) {
    case DIALECT_PLAIN:
        buf_str(out, message);
        buf_byte(out, '\n');
        return;
    case DIALECT_OWN:
        json_open(&w, '{');
        json_key(&w, STR("error"));
        json_open(&w, '{');
        json_key(&w, STR("code"));
        json_u64(&w, (uint64_t)status);
        json_key(&w, STR("message"));
        json_str(&w, message);
        if (parameter) {
            json_key(&w, STR("parameter"));
            json_str(&w, str_from(parameter));
            json_key(&w, STR("position"));
            json_u64(&w, position);
        }
        json_close(&w, '}');
        json_close(&w, '}');
        return;
    case DIALECT_V3:
        json_open(&w, '{');
        json_key(&w, STR("error"));
        json_open(&w, '{');
        json_key(&w, STR("httpCode"));
        json_u64(&w, (uint64_t)status);
        json_key(&w, STR("message"));
        json_str(&w, message);
        json_close(&w, '}');
        json_close(&w, '}');
        return;
    case DIALECT_PROMETHEUS:
        json_open(&w, '{');
        json_key(&w, STR("status"));
        json_str(&w, STR("error"));
        json_key(&w, STR("errorType"));
        json_str(&w, status == 503 || status == 504 ? STR("timeout")
                     : status == 422                ? STR("execution")
                     : status == 404                ? STR("not_found")
                     : status >= 500                ? STR("internal")
                                                    : STR("bad_data"));
        json_key(&w, STR("error"));
        json_str(&w, message);
        json_close(&w, '}');
        return;
    case DIALECT_LEGACY:
        json_open(&w, '{');
        json_key(&w, STR("data"));
        json_null(&w);
        for (int i = 0; i < 3; i++) {
            static const char *const zeros[] = {"total", "limit", "offset"};
            json_key(&w, str_from(zeros[i]));
            json_u64(&w, 0);
        }
        json_key(&w, STR("errors"));
        json_open(&w, '[');
        json_open(&w, '{');
        json_key(&w, STR("code"));
        json_u64(&w, (uint64_t)status);
        json_key(&w, STR("msg"));
        json_str(&w, message);
        if (trace_id.len) {
            json_key(&w, STR("traceID"));
            json_str(&w, trace_id);
        }
        json_close(&w, '}');
        json_close(&w, ']');
        json_close(&w, '}');
        return;
    }
}

void web_fail_at(struct web_request *q, int status, const char *parameter, size_t position,
                 const char *message)
{
    struct buf body = BUF_INIT, text = BUF_INIT;
    /* The other dialects have no field for the parameter: the sentence names it. */
    if (parameter && q->dialect != DIALECT_OWN)
        buf_printf(&text, "%s: %s", parameter, message);
    else
        buf_cstr(&text, message);
    if (q->rpc) {
        store_view_free(web_view_take(q));
        struct str said = arena_str(q->arena, buf_as_str(&text));
        buf_done(&text);
        q->rpc->fail(q, status, said.ptr ? said : STR("out of memory"));
        return;
    }
    web_error_body(q->dialect, status, parameter, position, q->trace_id, buf_as_str(&text), &body);
    buf_done(&text);
    web_reply(q, status,
              q->dialect == DIALECT_PLAIN ? "text/plain; charset=utf-8" : "application/json",
              &body);
}

void web_fail(struct web_request *q, int status, const char *format, ...)
{
    char message[512];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    web_fail_at(q, status, NULL, 0, message);
}

void web_fail_err(struct web_request *q, int err, const struct error_detail *detail)
{
    int status = err == ERR_INVALID || err == ERR_UNSUPPORTED ? 400
                 : err == ERR_NOT_FOUND                       ? 404
                 : err == ERR_TIMEOUT                         ? 504
                 : err == ERR_BUSY || err == ERR_CLOSED       ? 503
                                                              : 500;
    web_fail(q, status, "%s", detail && detail->message[0] ? detail->message : err_text(err));
}
