/* The context crosses a process in the member `_trace` of a JSON object. */
#include "sdk/json_edit.h"
#include "sdk/propagate.h"
#include "sdk/span.h"
#include "sdk/w3c.h"

#include <errno.h>

static const struct str trace_key = {"_trace", 6};

struct trace_found {
    struct pug_context context;
    bool damaged; /* the last `_trace` held no context */
};

static void tracestate_from(struct str text, struct pug_context *context)
{
    struct w3c_tracestate state;
    w3c_tracestate_init(&state);
    w3c_tracestate_add(&state, text);
    w3c_tracestate_put(&state, context);
}

/* The value after the key `_trace`; anything else than the object we write is passed over. */
static bool trace_member(struct json_reader *r, void *user)
{
    struct trace_found *found = user;
    struct str parent = STR_NONE, state_text = STR_NONE;
    found->damaged = true;
    if (json_next(r) != JSON_OBJECT)
        return r->type == JSON_ARRAY ? json_skip(r) != JSON_ERROR : r->type != JSON_ERROR;
    while (json_next(r) == JSON_KEY) {
        struct str *into = str_eq(r->text, STR("traceparent"))  ? &parent
                           : str_eq(r->text, STR("tracestate")) ? &state_text
                                                                : NULL;
        if (!into) {
            if (json_skip(r) == JSON_ERROR)
                return false;
            continue;
        }
        if (json_next(r) == JSON_STRING)
            *into = r->text;
        else if (r->type == JSON_OBJECT || r->type == JSON_ARRAY)
            json_skip(r);
        if (r->type == JSON_ERROR)
            return false;
    }
    if (r->type != JSON_OBJECT_END)
        return false;
    if (parent.ptr && w3c_traceparent_parse(parent, &found->context)) {
        found->damaged = false;
        if (state_text.ptr)
            tracestate_from(state_text, &found->context);
    }
    return true;
}

/* Room for the longest member: every character of the tracestate may need a backslash. */
#define MEMBER_MAX (64 + W3C_TRACEPARENT_LEN + 2 * PUG_TRACESTATE_MAX)

static size_t member_put(const struct pug_context *context, char out[MEMBER_MAX])
{
    char parent[W3C_TRACEPARENT_LEN + 1];
    size_t n = 0;
#define PUT(s) (memcpy(out + n, s, sizeof s - 1), n += sizeof s - 1)
    PUT("\"_trace\":{\"traceparent\":\"");
    w3c_traceparent_put(context, parent);
    memcpy(out + n, parent, W3C_TRACEPARENT_LEN);
    n += W3C_TRACEPARENT_LEN;
    if (context->tracestate_len) {
        PUT("\",\"tracestate\":\"");
        for (size_t i = 0; i < context->tracestate_len; i++) {
            char c = context->tracestate[i];
            if (c == '"' || c == '\\')
                out[n++] = '\\';
            out[n++] = c;
        }
    }
    PUT("\"}");
#undef PUT
    return n;
}

size_t pug_json_inject(const struct pug_context *context, char *record, size_t len, size_t size)
{
    struct pug_context current;
    if (!context) {
        span_current_context(&current);
        context = &current;
    }
    if (!record || !pug_context_valid(context) || context->tracestate_len > PUG_TRACESTATE_MAX)
        return len;
    int errno_before = errno;
    struct arena arena = ARENA_INIT;
    struct json_edit e;
    if (json_edit_scan((struct str){record, len}, &arena, &trace_key, 1, NULL, NULL, &e)) {
        char member[MEMBER_MAX];
        size_t n = member_put(context, member);
        len = json_edit_apply(record, len, size, &e, (struct str){member, n});
    }
    arena_done(&arena);
    errno = errno_before;
    return len;
}

size_t pug_json_extract(char *record, size_t len, struct pug_context *ret_context)
{
    int errno_before = errno;
    struct arena arena = ARENA_INIT;
    struct json_edit e;
    struct trace_found found = {.damaged = false};
    span_context_clear(ret_context);
    span_context_clear(&found.context);
    if (record &&
        json_edit_scan((struct str){record, len}, &arena, &trace_key, 1, trace_member, &found,
                       &e) &&
        e.n_cuts) {
        len = json_edit_apply(record, len, 0, &e, STR_NONE);
        if (pug_context_valid(&found.context))
            *ret_context = found.context;
        if (found.damaged)
            propagate_count_damaged();
    }
    arena_done(&arena);
    errno = errno_before;
    return len;
}
