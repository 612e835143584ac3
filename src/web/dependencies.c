/* Who calls whom, in the words of Jaeger (both APIs) and of Zipkin: counted over every span of the range when
 * asked (store_calls). */
#include "web/web_internal.h"

#include "base/clock.h"

enum { LOOKBACK_DAYS_DEFAULT = 1 };
#define MS_MAX (UINT64_MAX / NS_PER_MS)

struct calls {
    struct store_call *items;
    size_t n;
};

/* False: answered with an error. */
static bool calls_of(struct web_request *q, uint64_t start_ns, uint64_t end_ns, struct calls *ret)
{
    struct store_view *view = web_view(q);
    int err = view ? store_calls(view, start_ns, end_ns, q->web->query_timeout_ns, q->arena,
                                 &ret->items, &ret->n, NULL)
                   : ERR_NOMEM;
    if (err)
        web_fail_err(q, err, NULL);
    return !err;
}

/* `endTs` and `lookback`, in milliseconds. */
static bool param_range(struct web_request *q, uint64_t *ret_start_ns, uint64_t *ret_end_ns)
{
    uint64_t now_ms = clock_realtime_ns() / NS_PER_MS, end_ms, back_ms;
    if (!web_param_u64(q, "endTs", 1, MS_MAX, now_ms, &end_ms) ||
        !web_param_u64(q, "lookback", 1, MS_MAX, LOOKBACK_DAYS_DEFAULT * UINT64_C(24) * 3600 * 1000,
                       &back_ms))
        return false;
    *ret_start_ns = end_ms > back_ms ? (end_ms - back_ms) * NS_PER_MS : 0;
    *ret_end_ns = end_ms * NS_PER_MS;
    return true;
}

static void key_str(struct json_writer *w, const char *key, struct str value)
{
    json_key(w, str_from(key));
    json_str(w, value);
}

static void call_open(struct json_writer *w, const struct store_call *c)
{
    json_open(w, '{');
    key_str(w, "parent", c->caller);
    key_str(w, "child", c->callee);
    json_key(w, STR("callCount"));
}

void legacy_dependencies(struct web_request *q)
{
    struct calls calls;
    struct buf out = {.bytes_max = ANSWER_BYTES_MAX};
    struct str service = web_param(q, "service");
    uint64_t start_ns, end_ns;
    size_t n = 0;
    if (!param_range(q, &start_ns, &end_ns) || !calls_of(q, start_ns, end_ns, &calls))
        return;
    struct json_writer w = legacy_open(&out);
    json_open(&w, '[');
    for (size_t i = 0; i < calls.n; i++) {
        const struct store_call *c = &calls.items[i];
        if (service.len && !str_eq(c->caller, service) && !str_eq(c->callee, service))
            continue;
        call_open(&w, c);
        json_u64(&w, c->count);
        json_close(&w, '}');
        n++;
    }
    json_close(&w, ']');
    legacy_close(q, &w, n);
    web_reply_json(q, 200, &out);
}

void v3_dependencies(struct web_request *q)
{
    struct calls calls;
    struct buf out = {.bytes_max = ANSWER_BYTES_MAX};
    uint64_t start_ns = 0, end_ns = 0;
    if (!v3_param_time(q, "startTime", true, &start_ns) ||
        !v3_param_time(q, "endTime", true, &end_ns))
        return;
    if (end_ns < start_ns) {
        web_fail(q, 400, "malformed parameter endTime: it lies before the start");
        return;
    }
    if (!calls_of(q, start_ns, end_ns, &calls))
        return;
    struct json_writer w = json_writer(&out);
    json_open(&w, '{');
    json_key(&w, STR("dependencies"));
    json_open(&w, '[');
    for (size_t i = 0; i < calls.n; i++) {
        call_open(&w, &calls.items[i]);
        json_u64_str(&w, calls.items[i].count); /* as JSON of protobuf has a uint64 */
        json_close(&w, '}');
    }
    json_close(&w, ']');
    json_close(&w, '}');
    web_reply_json(q, 200, &out);
}

void zipkin_dependencies(struct web_request *q)
{
    struct calls calls;
    struct buf out = {.bytes_max = ANSWER_BYTES_MAX};
    uint64_t start_ns, end_ns;
    if (!web_param(q, "endTs").len) {
        web_fail(q, 400, "endTs is required");
        return;
    }
    if (!param_range(q, &start_ns, &end_ns) || !calls_of(q, start_ns, end_ns, &calls))
        return;
    struct json_writer w = json_writer(&out);
    json_open(&w, '[');
    for (size_t i = 0; i < calls.n; i++) {
        call_open(&w, &calls.items[i]);
        json_u64(&w, calls.items[i].count);
        if (calls.items[i].errors) {
            json_key(&w, STR("errorCount"));
            json_u64(&w, calls.items[i].errors);
        }
        json_close(&w, '}');
    }
    json_close(&w, ']');
    web_reply_json(q, 200, &out);
}
