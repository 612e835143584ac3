#include "cli/demo_check.h"

#include "base/arena.h"
#include "base/json.h"

#define SPANS_MAX 100000

struct seen_link {
    struct str trace_id, span_id;
    struct seen_link *next;
};

struct seen {
    struct str id, parent, name;
    uint64_t resource;
    struct seen_link *links;
};

struct trace {
    struct arena arena;
    struct str id;
    struct str *services; /* by number of resource */
    size_t n_services;
    struct seen *spans;
    size_t n, cap;
};

/* ---- what one intrusion makes ---- */

/* A span of this name, in this process, whose parent has that name; "" is the root. */
static const struct expected {
    const char *service, *name, *parent;
} expected[] = {
    {"driver", "driver.scenario", ""},
    {"driver", "driver.attack_http", "driver.scenario"},
    {"decoy", "decoy.http_request", "driver.attack_http"},
    {"driver", "driver.attack_ssh", "driver.scenario"},
    {"decoy", "decoy.ssh_session", "driver.attack_ssh"},
    {"collector", "collector.event", "decoy.http_request"},
    {"collector", "collector.event", "decoy.ssh_session"},
    {"ingester", "ingester.process_record", "collector.event"},
    {"ingester", "ingester.extract_bounty", "ingester.process_record"},
    {"ingester", "db.add_bounty", "ingester.extract_bounty"},
    {"ingester", "db.add_log", "ingester.process_record"},
    {"profiler", "profiler.process_ip", "ingester.process_record"},
    {"profiler", "profiler.build_behavior_record", "profiler.process_ip"},
    {"profiler", "profiler.timing_stats", "profiler.build_behavior_record"},
    {"profiler", "profiler.classify_behavior", "profiler.build_behavior_record"},
    {"profiler", "profiler.detect_tools_from_headers", "profiler.build_behavior_record"},
    {"profiler", "profiler.phase_sequence", "profiler.build_behavior_record"},
    {"profiler", "profiler.sniffer_rollup", "profiler.build_behavior_record"},
    {"profiler", "profiler.behavior_summary", "profiler.process_ip"},
    {"profiler", "db.upsert_attacker", "profiler.process_ip"},
    {"correlation", "correlation.traversals", "ingester.process_record"},
    {"correlation", "correlation.report_json", "correlation.traversals"},
    {"correlation", "correlation.traversal_syslog_lines", "correlation.traversals"},
    {"correlation", "db.upsert_traversal", "correlation.traversals"},
    {"api", "api.login", "driver.api_request"},
    {"api", "api.stream_events", "driver.watch_stream"},
    {"api", "sse.emit_logs", "api.stream_events"},
    {"api", "api.get_attackers", "driver.api_request"},
    {"api", "api.get_attacker_detail", "driver.api_request"},
    {"api", "db.get_attacker_detail", "api.get_attacker_detail"},
};

/* The way back: what was shown to the user names where it came from. */
static const char link_from[] = "sse.emit_logs", link_to[] = "ingester.process_record";

/* ---- reading the answer ---- */

/* The value of a key that is a string. */
static int read_string(struct json_reader *r, struct trace *t, struct str *ret)
{
    if (json_next(r) != JSON_STRING) {
        json_fail(r, "a string");
        return r->err;
    }
    *ret = arena_str(&t->arena, r->text);
    return ret->ptr ? 0 : ERR_NOMEM;
}

/* Walks over an object: the body runs for each key, which is r->text. */
#define FOR_EACH_KEY(r)                                                                            \
    for (enum json_type type_ = json_next(r); type_ == JSON_KEY; type_ = json_next(r))

/* What an array's reader returns: 0 when it ended where it should. */
static int array_end(struct json_reader *r)
{
    if (r->type != JSON_ARRAY_END && r->type != JSON_ERROR)
        json_fail(r, "an object or the end of the array");
    return r->err;
}

static int read_links(struct json_reader *r, struct trace *t, struct seen *span)
{
    if (json_next(r) != JSON_ARRAY) {
        json_fail(r, "an array of links");
        return r->err;
    }
    while (json_next(r) == JSON_OBJECT) {
        struct seen_link *link = arena_zalloc(&t->arena, sizeof *link);
        if (!link)
            return ERR_NOMEM;
        FOR_EACH_KEY(r)
        {
            int err = 0;
            if (str_eq(r->text, STR("traceId")))
                err = read_string(r, t, &link->trace_id);
            else if (str_eq(r->text, STR("spanId")))
                err = read_string(r, t, &link->span_id);
            else
                json_skip(r);
            if (err)
                return err;
        }
        link->next = span->links;
        span->links = link;
    }
    return array_end(r);
}

static int read_span(struct json_reader *r, struct trace *t)
{
    if (t->n == t->cap) {
        size_t cap = t->cap ? t->cap * 2 : 128;
        struct seen *bigger = arena_array(&t->arena, cap, sizeof *bigger);
        if (!bigger || cap > SPANS_MAX)
            return bigger ? ERR_TOO_LARGE : ERR_NOMEM;
        if (t->n)
            memcpy(bigger, t->spans, t->n * sizeof *bigger);
        t->spans = bigger;
        t->cap = cap;
    }
    struct seen *span = &t->spans[t->n++];
    *span = (struct seen){.resource = UINT64_MAX};
    FOR_EACH_KEY(r)
    {
        int err = 0;
        if (str_eq(r->text, STR("spanId")))
            err = read_string(r, t, &span->id);
        else if (str_eq(r->text, STR("parentSpanId")))
            err = read_string(r, t, &span->parent);
        else if (str_eq(r->text, STR("name")))
            err = read_string(r, t, &span->name);
        else if (str_eq(r->text, STR("links")))
            err = read_links(r, t, span);
        else if (str_eq(r->text, STR("resource"))) {
            json_next(r);
            if (!json_to_u64(r, &span->resource))
                json_fail(r, "the number of a resource");
        } else
            json_skip(r);
        if (err)
            return err;
    }
    return r->err;
}

static int read_resource(struct json_reader *r, struct trace *t)
{
    struct str *bigger = arena_array(&t->arena, t->n_services + 1, sizeof *bigger);
    if (!bigger)
        return ERR_NOMEM;
    if (t->n_services)
        memcpy(bigger, t->services, t->n_services * sizeof *bigger);
    t->services = bigger;
    struct str *service = &t->services[t->n_services++];
    *service = STR_NONE;
    FOR_EACH_KEY(r)
    {
        if (!str_eq(r->text, STR("service"))) {
            json_skip(r);
            continue;
        }
        int err = read_string(r, t, service);
        if (err)
            return err;
    }
    return r->err;
}

static int read_array(struct json_reader *r, struct trace *t,
                      int (*read_item)(struct json_reader *, struct trace *))
{
    if (json_next(r) != JSON_ARRAY) {
        json_fail(r, "an array");
        return r->err;
    }
    while (json_next(r) == JSON_OBJECT) {
        int err = read_item(r, t);
        if (err)
            return err;
    }
    return array_end(r);
}

static int read_trace(struct str json, struct trace *t, struct error_detail *ret_detail)
{
    struct json_reader r;
    json_reader_init(&r, json, &t->arena, ret_detail);
    if (json_next(&r) != JSON_OBJECT) {
        json_fail(&r, "a trace");
        return r.err;
    }
    FOR_EACH_KEY(&r)
    {
        int err = 0;
        if (str_eq(r.text, STR("traceId")))
            err = read_string(&r, t, &t->id);
        else if (str_eq(r.text, STR("resources")))
            err = read_array(&r, t, read_resource);
        else if (str_eq(r.text, STR("spans")))
            err = read_array(&r, t, read_span);
        else
            json_skip(&r);
        if (err)
            return err;
    }
    if (json_next(&r) != JSON_END)
        json_fail(&r, "the end");
    return r.err;
}

/* ---- the check ---- */

static const struct seen *find(const struct trace *t, struct str id)
{
    for (size_t i = 0; i < t->n; i++)
        if (str_eq(t->spans[i].id, id))
            return &t->spans[i];
    return NULL;
}

static struct str service_of(const struct trace *t, const struct seen *span)
{
    return span->resource < t->n_services ? t->services[span->resource] : STR("?");
}

static bool is_there(const struct trace *t, const struct expected *e)
{
    for (size_t i = 0; i < t->n; i++) {
        const struct seen *span = &t->spans[i];
        if (!str_eq(span->name, str_from(e->name)) ||
            !str_eq(service_of(t, span), str_from(e->service)))
            continue;
        const struct seen *parent = span->parent.len ? find(t, span->parent) : NULL;
        if (*e->parent ? parent && str_eq(parent->name, str_from(e->parent)) : !span->parent.len)
            return true;
    }
    return false;
}

static bool link_is_there(const struct trace *t)
{
    for (size_t i = 0; i < t->n; i++) {
        if (!str_eq(t->spans[i].name, str_from(link_from)))
            continue;
        for (const struct seen_link *l = t->spans[i].links; l; l = l->next) {
            const struct seen *to = str_eq(l->trace_id, t->id) ? find(t, l->span_id) : NULL;
            if (to && str_eq(to->name, str_from(link_to)))
                return true;
        }
    }
    return false;
}

int demo_check(struct str trace_json, struct buf *missing, struct error_detail *ret_detail)
{
    struct trace t = {.arena = ARENA_INIT};
    int err = read_trace(trace_json, &t, ret_detail);
    for (size_t i = 0; !err && i < sizeof expected / sizeof *expected; i++) {
        const struct expected *e = &expected[i];
        if (!is_there(&t, e))
            buf_printf(missing, "no span %s of %s %s%s\n", e->name, e->service,
                       *e->parent ? "under " : "without a parent", e->parent);
    }
    for (size_t i = 0; !err && i < t.n; i++) {
        const struct seen *span = &t.spans[i];
        if (span->parent.len ? !find(&t, span->parent)
                             : !str_eq(span->name, str_from(expected[0].name)))
            buf_printf(missing, "the parent of span %.*s (%.*s)\n", STR_ARG(span->name),
                       STR_ARG(service_of(&t, span)));
        if (find(&t, span->id) != span)
            buf_printf(missing, "the difference between two spans with the id %.*s (%.*s)\n",
                       STR_ARG(span->id), STR_ARG(span->name));
    }
    if (!err && !link_is_there(&t))
        buf_printf(missing, "no link from %s to %s\n", link_from, link_to);
    if (!err && !buf_ok(missing))
        err = ERR_NOMEM;
    arena_done(&t.arena);
    return err;
}
