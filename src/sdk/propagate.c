/* The context crosses a process: through headers, and through the member `_trace` of a JSON object.
 *
 * The JSON functions work in place on text that somebody else wrote. They read all of it first and
 * change it only when it is one valid JSON value, an object. Then it is pieced together anew: the
 * pieces between the `_trace` members that were there, and the new one before the closing brace. */
#include "base/json.h"
#include "sdk/span.h"
#include "sdk/w3c.h"

#include <errno.h>

static const char header_traceparent[] = "traceparent", header_tracestate[] = "tracestate";

void pug_inject(const struct pug_context *context, pug_carrier_set *set, void *carrier)
{
    struct pug_context current;
    char text[PUG_TRACESTATE_MAX + 1];
    if (!context) {
        span_current_context(&current);
        context = &current;
    }
    if (!pug_context_valid(context))
        return;
    w3c_traceparent_put(context, text);
    set(carrier, header_traceparent, text);
    size_t len = context->tracestate_len;
    if (len && len <= PUG_TRACESTATE_MAX) {
        memcpy(text, context->tracestate, len);
        text[len] = '\0';
        set(carrier, header_tracestate, text);
    }
}

static bool carrier_get(pug_carrier_get *get, void *carrier, const char *name, size_t nth,
                        struct str *ret)
{
    size_t len = SIZE_MAX;
    const char *value = get(carrier, name, nth, &len);
    if (!value)
        return false;
    *ret = (struct str){value, len == SIZE_MAX ? strlen(value) : len};
    return true;
}

int pug_extract(pug_carrier_get *get, void *carrier, struct pug_context *ret_context)
{
    struct str value, second;
    span_context_clear(ret_context);
    if (!carrier_get(get, carrier, header_traceparent, 0, &value) ||
        !w3c_traceparent_parse(value, ret_context))
        return 0;
    /* Two of them: nobody knows which one is right. */
    if (carrier_get(get, carrier, header_traceparent, 1, &second)) {
        span_context_clear(ret_context);
        return 0;
    }
    struct w3c_tracestate state = {.n = 0};
    for (size_t nth = 0; nth < W3C_MEMBERS_MAX; nth++) {
        if (!carrier_get(get, carrier, header_tracestate, nth, &value))
            break;
        w3c_tracestate_add(&state, value);
    }
    w3c_tracestate_put(&state, ret_context);
    return 1;
}

/* ---- `_trace` ---- */

#define TRACE_MEMBERS_MAX 8 /* in one object; a record with more is left alone */

struct cut {
    size_t from, to;
};

struct record_scan {
    struct cut cuts[TRACE_MEMBERS_MAX]; /* `_trace` members without the commas around them */
    size_t n_cuts;
    bool bare;  /* no other members */
    size_t end; /* of the closing brace */
    struct pug_context context;
};

/* The value after the key `_trace`; anything else than the object we write is passed over. */
static bool trace_member(struct json_reader *r, struct pug_context *ret_context)
{
    struct str parent = STR_NONE, state_text = STR_NONE;
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
    if (parent.ptr && w3c_traceparent_parse(parent, ret_context) && state_text.ptr) {
        struct w3c_tracestate state = {.n = 0};
        w3c_tracestate_add(&state, state_text);
        w3c_tracestate_put(&state, ret_context);
    }
    return true;
}

static bool scan(struct str record, struct arena *arena, struct record_scan *ret)
{
    struct json_reader r;
    *ret = (struct record_scan){.bare = true};
    json_reader_init(&r, record, arena, NULL);
    if (json_next(&r) != JSON_OBJECT)
        return false;
    for (;;) {
        if (json_next(&r) != JSON_KEY)
            break;
        size_t from = (size_t)(r.token - record.ptr);
        if (!str_eq(r.text, STR("_trace"))) {
            ret->bare = false;
            if (json_skip(&r) == JSON_ERROR)
                return false;
            continue;
        }
        if (ret->n_cuts == TRACE_MEMBERS_MAX || !trace_member(&r, &ret->context))
            return false;
        ret->cuts[ret->n_cuts++] = (struct cut){from, (size_t)(r.at - record.ptr)};
    }
    if (r.type != JSON_OBJECT_END)
        return false;
    ret->end = (size_t)(r.at - record.ptr) - 1;
    return json_next(&r) == JSON_END;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* Makes each cut take one comma with it: the one after it, or, for the last member, the one before
 * it. Cuts that touch then are one. */
static void cuts_take_commas(const char *record, struct record_scan *s)
{
    size_t n = 0;
    for (size_t i = 0; i < s->n_cuts; i++) {
        struct cut c = s->cuts[i];
        size_t after = c.to;
        while (is_space(record[after]))
            after++;
        bool last = record[after] != ',';
        if (!last) {
            for (after++; is_space(record[after]);)
                after++;
            c.to = after;
        }
        if (n && s->cuts[n - 1].to == c.from)
            c.from = s->cuts[--n].from;
        if (last) {
            size_t before = c.from;
            while (is_space(record[before - 1]))
                before--;
            if (record[before - 1] == ',')
                c.from = before - 1;
        }
        s->cuts[n++] = c;
    }
    s->n_cuts = n;
}

/* Closes the gaps; returns the new length and moves `s->end` along. */
static size_t cuts_apply(char *record, size_t len, struct record_scan *s)
{
    size_t out = 0, in = 0, end = s->end;
    for (size_t i = 0; i < s->n_cuts; i++) {
        struct cut c = s->cuts[i];
        memmove(record + out, record + in, c.from - in);
        out += c.from - in;
        in = c.to;
        end -= c.to - c.from;
    }
    memmove(record + out, record + in, len - in);
    s->end = end;
    return out + (len - in);
}

static size_t cuts_bytes(const struct record_scan *s)
{
    size_t n = 0;
    for (size_t i = 0; i < s->n_cuts; i++)
        n += s->cuts[i].to - s->cuts[i].from;
    return n;
}

/* Room for the longest member: every character of the tracestate may need a backslash. */
#define MEMBER_MAX (64 + W3C_TRACEPARENT_LEN + 2 * PUG_TRACESTATE_MAX)

static size_t member_put(const struct pug_context *context, bool first, char out[MEMBER_MAX])
{
    char parent[W3C_TRACEPARENT_LEN + 1];
    size_t n = 0;
#define PUT(s) (memcpy(out + n, s, sizeof s - 1), n += sizeof s - 1)
    if (!first)
        out[n++] = ',';
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
    struct record_scan s;
    size_t result = len;
    if (scan((struct str){record, len}, &arena, &s)) {
        char member[MEMBER_MAX];
        size_t n_member = member_put(context, s.bare, member);
        cuts_take_commas(record, &s);
        result = len - cuts_bytes(&s) + n_member;
        if (result < size) {
            len = cuts_apply(record, len, &s);
            memmove(record + s.end + n_member, record + s.end, len - s.end);
            memcpy(record + s.end, member, n_member);
            record[result] = '\0';
        }
    }
    arena_done(&arena);
    errno = errno_before;
    return result;
}

size_t pug_json_extract(char *record, size_t len, struct pug_context *ret_context)
{
    int errno_before = errno;
    struct arena arena = ARENA_INIT;
    struct record_scan s;
    span_context_clear(ret_context);
    if (record && scan((struct str){record, len}, &arena, &s) && s.n_cuts) {
        cuts_take_commas(record, &s);
        len = cuts_apply(record, len, &s);
        record[len] = '\0';
        if (pug_context_valid(&s.context))
            *ret_context = s.context;
    }
    arena_done(&arena);
    errno = errno_before;
    return len;
}
