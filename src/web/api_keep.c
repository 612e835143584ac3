/* Our own API about what is kept, and what is not: docs/api.md. */
#include "web/web_internal.h"

static void key_u64_str(struct json_writer *w, const char *key, uint64_t value)
{
    json_key(w, str_from(key));
    json_u64_str(w, value);
}

/* 0 stands for "never" or "no limit". */
static void key_u64_or_null(struct json_writer *w, const char *key, uint64_t value)
{
    json_key(w, str_from(key));
    if (value)
        json_u64_str(w, value);
    else
        json_null(w);
}

static void rule_json(struct json_writer *w, const struct store_rule_state *rule)
{
    json_open(w, '{');
    json_key(w, STR("match"));
    if (rule->text.len)
        json_str(w, rule->text);
    else
        json_null(w);
    key_u64_or_null(w, "keepNano", rule->keep_ns);
    key_u64_str(w, "spansDropped", rule->spans);
    json_close(w, '}');
}

void api_retention(struct web_request *q)
{
    struct store_rule_state *rules;
    struct store_stats s;
    uint64_t disk_bytes_max, next_ns;
    size_t n;
    int err = store_retention_state(q->web->store, q->arena, &rules, &n, &disk_bytes_max, &next_ns);
    if (err) {
        web_fail_err(q, err, NULL);
        return;
    }
    store_stats(q->web->store, &s);
    struct buf out = {.bytes_max = ANSWER_BYTES_MAX};
    struct json_writer w = json_writer(&out);
    json_open(&w, '{');
    json_key(&w, STR("rules"));
    json_open(&w, '[');
    for (size_t i = 0; i < n; i++)
        rule_json(&w, &rules[i]);
    json_close(&w, ']');
    key_u64_or_null(&w, "nextUnixNano", next_ns);
    key_u64_or_null(&w, "diskBytesMax", disk_bytes_max);
    key_u64_str(&w, "diskBytes", s.segment_bytes + s.log_bytes);
    key_u64_or_null(&w, "oldestUnixNano", s.start_min_ns);
    json_key(&w, STR("spansDropped"));
    json_open(&w, '{');
    key_u64_str(&w, "age", s.expired_age_spans);
    key_u64_str(&w, "disk", s.expired_disk_spans);
    key_u64_str(&w, "deleted", s.deleted_spans);
    json_close(&w, '}');
    key_u64_str(&w, "spansRedacted", s.redacted_spans);
    key_u64_str(&w, "pinnedTraces", s.pins);
    json_close(&w, '}');
    web_reply_json(q, 200, &out);
}
