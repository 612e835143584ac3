/* What crosses a process border comes from outside. The first byte says what the rest is:
 *
 *   'j'  a JSON record: taking `_trace` out leaves JSON without it; putting a context in and taking it
 *        out again gives the same record and the same context
 *   else headers, one a line, the first of them traceparent and the others tracestate: what was
 *        accepted is accepted again when it is sent on, and means the same */
#include "base/json.h"
#include "pugmark/pugmark.h"

#include <stdlib.h>

#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

#define HEADERS_MAX 40

struct headers {
    struct str values[HEADERS_MAX];
    size_t n;
};

static const char *get(void *carrier, const char *name, size_t nth, size_t *ret_len)
{
    const struct headers *h = carrier;
    size_t at = strcmp(name, "traceparent") == 0 ? 0 : nth + 1;
    if (at >= h->n || (at == 0 && nth > 0))
        return NULL;
    *ret_len = h->values[at].len;
    return h->values[at].ptr;
}

struct sent {
    char text[2][PUG_TRACESTATE_MAX + 1];
    struct headers headers;
};

static void set(void *carrier, const char *name, const char *value)
{
    struct sent *s = carrier;
    size_t i = strcmp(name, "tracestate") == 0;
    size_t len = strlen(value);
    MUST(i == s->headers.n && len <= PUG_TRACESTATE_MAX);
    memcpy(s->text[i], value, len + 1);
    s->headers.values[s->headers.n++] = str_from(s->text[i]);
}

static bool same(const struct pug_context *a, const struct pug_context *b)
{
    return memcmp(a->trace_id, b->trace_id, 16) == 0 && memcmp(a->span_id, b->span_id, 8) == 0 &&
           a->flags == b->flags && a->tracestate_len == b->tracestate_len &&
           memcmp(a->tracestate, b->tracestate, a->tracestate_len) == 0;
}

static void headers(struct str text)
{
    struct headers h = {.n = 0};
    struct sent sent = {.headers = {.n = 0}};
    struct pug_context first, again;
    while (text.ptr && h.n < HEADERS_MAX) {
        h.values[h.n] = str_split(text, '\n', &text);
        h.n++;
    }
    int valid = pug_extract(get, &h, &first);
    MUST(valid == pug_context_valid(&first));
    if (!valid)
        return;
    pug_inject(&first, set, &sent);
    MUST(sent.headers.n == 1 + (first.tracestate_len > 0));
    MUST(pug_extract(get, &sent.headers, &again));
    MUST(same(&first, &again));
}

static bool is_object(const char *text, size_t len)
{
    struct arena arena = ARENA_INIT;
    struct json_reader r;
    json_reader_init(&r, (struct str){text, len}, &arena, NULL);
    bool object = json_next(&r) == JSON_OBJECT;
    while (r.type != JSON_ERROR && r.type != JSON_END)
        json_next(&r);
    arena_done(&arena);
    return object && r.type == JSON_END;
}

static void record(struct str text)
{
    struct pug_context c, none, back;
    struct pug_context mine = {.trace_id = {1, 2, 3},
                               .span_id = {4, 5},
                               .flags = 1,
                               .tracestate_len = 5,
                               .tracestate = "a=\"\\b"};
    size_t room = text.len + 400;
    char *buffer = malloc(room), *exact = malloc(text.len ? text.len : 1);
    MUST(buffer && exact);
    memcpy(exact, text.ptr, text.len);
    /* In a buffer without a byte to spare: it only ever shrinks. */
    size_t n = pug_json_extract(exact, text.len, &c);
    MUST(n <= text.len);
    bool object = is_object(text.ptr, text.len);
    MUST(n == text.len ? memcmp(exact, text.ptr, n) == 0 : object && is_object(exact, n));
    MUST(pug_json_extract(exact, n, &none) == n && !pug_context_valid(&none));

    memcpy(buffer, exact, n);
    size_t longer = pug_json_inject(&mine, buffer, n, room);
    MUST(longer < room);
    if (longer == n) {
        MUST(memcmp(buffer, exact, n) == 0);
    } else {
        MUST(is_object(buffer, longer));
        MUST(pug_json_extract(buffer, longer, &back) == n);
        MUST(memcmp(buffer, exact, n) == 0 && same(&mine, &back));
    }
    free(buffer);
    free(exact);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct str text = {(const char *)data + 1, size - 1};
    if (data[0] == 'j')
        record(text);
    else
        headers(text);
    return 0;
}
