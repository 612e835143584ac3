/* Every format of propagation, as headers of a request: a line each, the first word the name. The first
 * byte of the input chooses the formats. What was accepted is accepted again when it is sent on in the
 * same formats, and means the same; what is sent can stand in a header. The same for baggage and request
 * ids, and for the JSON and the formats of logs. */
#include "base/json.h"
#include "pugmark/log.h"
#include "sdk/options.h"
#include "sdk/propagate.h"

#include <stdlib.h>
#include <strings.h>

#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

#define HEADERS_MAX 80

struct headers {
    struct {
        char name[160], value[PUG_BAGGAGE_BYTES_MAX + 1];
    } items[HEADERS_MAX];
    size_t n;
};

static struct headers in, out;

static const char *get(void *carrier, const char *name, size_t nth, size_t *ret_len)
{
    struct headers *h = carrier;
    for (size_t i = 0; i < h->n; i++)
        if (strcasecmp(h->items[i].name, name) == 0 && nth-- == 0)
            return h->items[i].value;
    return NULL;
}

static void set(void *carrier, const char *name, const char *value)
{
    struct headers *h = carrier;
    size_t name_len = strlen(name), len = strlen(value);
    MUST(h->n < HEADERS_MAX && name_len < sizeof h->items[0].name &&
         len < sizeof h->items[0].value && len > 0);
    for (size_t i = 0; i < len; i++)
        MUST(value[i] >= ' ' && value[i] <= '~'); /* no line of its own */
    memcpy(h->items[h->n].name, name, name_len + 1);
    memcpy(h->items[h->n++].value, value, len + 1);
}

static bool same(const struct pug_context *a, const struct pug_context *b)
{
    return memcmp(a->trace_id, b->trace_id, 16) == 0 && memcmp(a->span_id, b->span_id, 8) == 0 &&
           (a->flags & PUG_FLAG_SAMPLED) == (b->flags & PUG_FLAG_SAMPLED);
}

static void read_headers(struct str text)
{
    in.n = 0;
    while (text.ptr && in.n < HEADERS_MAX) {
        struct str value, line = str_split(text, '\n', &text);
        struct str name = str_split(line, ':', &value);
        if (!value.ptr || name.len >= sizeof in.items[0].name ||
            value.len >= sizeof in.items[0].value)
            continue;
        memcpy(in.items[in.n].name, name.ptr, name.len);
        in.items[in.n].name[name.len] = '\0';
        memcpy(in.items[in.n].value, value.ptr, value.len);
        in.items[in.n++].value[value.len] = '\0';
    }
}

static void contexts(void)
{
    static const unsigned formats[] = {PROPAGATE_TRACECONTEXT, PROPAGATE_B3, PROPAGATE_B3_MULTI,
                                       PROPAGATE_JAEGER, PROPAGATE_XRAY};
    struct pug_context first, again;
    int valid = pug_extract(get, &in, &first);
    MUST(valid == pug_context_valid(&first));
    if (!valid)
        return;
    MUST(first.tracestate_len <= PUG_TRACESTATE_MAX);
    unsigned chosen = propagators();
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        out.n = 0;
        propagators_use(formats[i]);
        pug_inject(&first, set, &out);
        MUST(out.n >= 1 && pug_extract(get, &out, &again) == 1);
        MUST(same(&first, &again));
    }
    propagators_use(chosen);
}

static void baggage(void)
{
    static struct pug_baggage bag, again;
    static char value[PUG_BAGGAGE_BYTES_MAX * 3 + 1];
    struct pug_baggage_member m = {0};
    int n = pug_baggage_extract(get, &in, &bag);
    for (size_t i = 0; i < in.n; i++)
        pug_baggage_header(&bag, in.items[i].name, in.items[i].value);
    MUST(n <= bag.n && bag.n <= PUG_BAGGAGE_MEMBERS_MAX && bag.len == strlen(bag.text));
    int members = 0;
    while (pug_baggage_next(&bag, &m)) {
        int len = pug_baggage_decode(m.value, m.value_len, value, sizeof value);
        MUST(len >= 0 && (size_t)len < sizeof value && value[len] == '\0');
        MUST(str_is_utf8((struct str){value, (size_t)len}));
        members++;
    }
    MUST(members == bag.n);
    unsigned chosen = propagators();
    propagators_use(PROPAGATE_BAGGAGE);
    {
        PUG_BAGGAGE(&bag);
        out.n = 0;
        pug_inject(NULL, set, &out);
        MUST(out.n == (bag.len > 0));
    }
    MUST(pug_baggage_extract(get, &out, &again) == bag.n);
    MUST(strcmp(again.text, bag.text) == 0);
    m = (struct pug_baggage_member){0};
    if (pug_baggage_next(&bag, &m)) {
        char key[200];
        if (m.key_len < sizeof key) {
            memcpy(key, m.key, m.key_len);
            key[m.key_len] = '\0';
            MUST(pug_baggage_remove(&again, key) == 0 && again.len == strlen(again.text));
            MUST(pug_baggage_get(&again, key, NULL, 0) == PUG_ERR_NOT_FOUND);
            MUST(pug_baggage_set(&again, key, "x y", NULL) == 0 || again.len > 8000);
        }
    }
    propagators_use(chosen);
}

static void request_id(void)
{
    char id[PUG_REQUEST_ID_MAX + 1];
    out.n = 0;
    int theirs = pug_request_id(PUG_CURRENT, get, &in, set, &out, id);
    MUST(strlen(id) > 0 && out.n == 1 && (theirs || strlen(id) == 32));
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

static void logs(struct str text)
{
    size_t room = text.len + 200;
    char *record = malloc(room), *terminated = malloc(text.len + 1), small[16];
    MUST(record && terminated);
    memcpy(record, text.ptr, text.len);
    size_t n = pug_log_json(record, text.len, room);
    MUST(n < room && (is_object(record, n) || n == text.len));
    MUST(pug_log_json(record, n, room) == n);
    memcpy(terminated, text.ptr, text.len);
    terminated[text.len] = '\0';
    size_t whole = pug_log_format(record, room, terminated);
    MUST(whole <= text.len && strlen(record) == whole);
    MUST(pug_log_format(small, sizeof small, terminated) == whole);
    MUST(strncmp(small, record, sizeof small - 1) == 0 && strlen(small) < sizeof small);
    free(terminated);
    free(record);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct str text = {(const char *)data + 1, size - 1};
    propagators_use(data[0] == '*' ? 0x7f : data[0] & 0x7f);
    read_headers(text);
    contexts();
    baggage();
    request_id();
    logs(text);
    return 0;
}
