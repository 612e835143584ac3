/* Who sends spans, in our own API: docs/api.md. */
#include "web/json_keys.h"
#include "web/web_internal.h"

#include "wire/otlp_json.h"

#include <stdio.h>

enum { RESOURCES_DEFAULT = 100, RESOURCES_MAX = 1000 };

static void resource_json(struct json_writer *w, const struct store_resource *r)
{
    struct resource_derived derived;
    char query[64];
    struct str fingerprint =
        resource_attr_find(r->resource, STR(RESOURCE_FINGERPRINT), &derived)->value.string;
    snprintf(query, sizeof query, "{ resource." RESOURCE_FINGERPRINT " = \"%.*s\" }",
             STR_ARG(fingerprint));
    json_open(w, '{');
    key_str(w, "fingerprint", fingerprint);
    key_str(w, "service", r->resource->service_name);
    json_key(w, STR("attributes"));
    otlp_json_encode_attrs(&r->resource->attrs, w);
    key_u64_str(w, "spanCount", r->span_count);
    key_u64_str(w, "firstUnixNano", r->start_first_ns);
    key_u64_str(w, "lastUnixNano", r->start_last_ns);
    key_str(w, "query", str_from(query));
    json_close(w, '}');
}

void api_resources(struct web_request *q)
{
    struct store_resources which = {.service = web_param(q, "service"),
                                    .timeout_ns = q->web->query_timeout_ns};
    struct store_resource *resources;
    uint64_t limit;
    size_t n;
    bool is_cut;
    if (!web_param_u64(q, "start", 0, UINT64_MAX, 0, &which.start_min_ns) ||
        !web_param_u64(q, "end", 0, UINT64_MAX, 0, &which.start_max_ns) ||
        !web_param_u64(q, "limit", 1, RESOURCES_MAX, RESOURCES_DEFAULT, &limit))
        return;
    if (which.start_max_ns && which.start_max_ns < which.start_min_ns) {
        web_fail_at(q, 400, "end", 0, "the end lies before the start");
        return;
    }
    struct store_view *view = web_view(q);
    int err = view ? store_resources(view, &which, q->arena, &resources, &n, &is_cut) : ERR_NOMEM;
    if (err) {
        web_fail_err(q, err, NULL);
        return;
    }
    struct buf out = web_answer();
    struct json_writer w = json_writer(&out);
    json_open(&w, '{');
    key_open(&w, "resources", '[');
    for (size_t i = 0; i < n && i < limit; i++)
        resource_json(&w, &resources[i]);
    json_close(&w, ']');
    key_u64(&w, "total", n);
    key_bool(&w, "more", n > limit || is_cut);
    json_close(&w, '}');
    web_reply_json(q, 200, &out);
}
