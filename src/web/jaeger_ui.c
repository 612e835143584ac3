/* What Jaeger's UI asks beside traces: to keep one (archive), to draw one that a person uploads (transform), the paths
 * through a service (deep dependencies), and how good the traces of a service are (quality metrics).
 *
 * Paths: of each trace, from its root to each leaf, the spans of kind server, where one of them is the service (and operation)
 * asked for; the same path of several traces is one, with some of them as examples.
 *
 * Source: jaeger, cmd/jaeger/internal/extension/jaegerquery (http_handler.go, ddg, qualitymetrics/data_types.go: the shapes);
 * jaeger-ui, model/ddg and components/QualityMetrics (what is read of them). */
#include "web/web_internal.h"

#include "base/clock.h"
#include "base/hash.h"
#include "query/search.h"
#include "wire/otlp_json.h"

#include <ctype.h>
#include <stdlib.h>

enum {
    TRACES_MAX = 1000,    /* looked at for paths, and for quality */
    PATHS_MAX = 2000,     /* in an answer */
    PATH_SPANS_MAX = 256, /* a longer path is left out */
    EXAMPLES_MAX = 5,
    HOURS_MAX = 24 * 366,
};

static void key_str(struct json_writer *w, const char *key, struct str value)
{
    json_key(w, str_from(key));
    json_str(w, value);
}

static void key_u64(struct json_writer *w, const char *key, uint64_t value)
{
    json_key(w, str_from(key));
    json_u64(w, value);
}

static void key_open(struct json_writer *w, const char *key, char bracket)
{
    json_key(w, str_from(key));
    json_open(w, bracket);
}

/* ---- archive: a pinned trace outlives retention ---- */

void legacy_archive(struct web_request *q)
{
    struct trace_id id;
    struct trace_summary summary;
    if (!web_param_trace_id(q, q->params[0], "traceID", &id))
        return;
    struct store_view *view = web_view(q);
    int err = view ? store_trace_summary(view, &id, q->arena, &summary) : ERR_NOMEM;
    if (!err)
        err = store_pin(q->web->store, &id);
    if (err == ERR_NOT_FOUND) {
        web_fail(q, 404, "trace not found");
    } else if (err == ERR_TOO_LARGE) {
        web_fail(q, 507, "%d traces are kept already", STORE_PINS_MAX);
    } else if (err) {
        web_fail_err(q, err, NULL);
    } else {
        struct buf out = BUF_INIT;
        struct json_writer w = legacy_open(&out);
        json_open(&w, '[');
        json_close(&w, ']');
        legacy_close(q, &w, 0);
        web_reply_json(q, 200, &out);
    }
}

/* ---- transform: OTLP JSON as Jaeger's ---- */

static int by_trace(const void *a, const void *b)
{
    const struct span *x = a, *y = b;
    int order = trace_id_cmp(&x->trace_id, &y->trace_id);
    if (order)
        return order;
    return x->start_ns < y->start_ns ? -1 : x->start_ns > y->start_ns;
}

void legacy_transform(struct web_request *q)
{
    struct span_batch batch;
    struct error_detail detail = {0};
    int err = otlp_json_decode(http_body(q->http), q->arena, &batch, &detail);
    if (err == ERR_NOMEM) {
        web_fail_err(q, err, NULL);
        return;
    }
    if (err) {
        web_fail(q, 400, "not OTLP in JSON, at byte %zu: %s", detail.position,
                 detail.message[0] ? detail.message : err_text(err));
        return;
    }
    if (batch.n)
        qsort(batch.spans, batch.n, sizeof *batch.spans, by_trace);
    struct buf out = {.bytes_max = ANSWER_BYTES_MAX};
    struct json_writer w = legacy_open(&out);
    size_t found = 0;
    bool good = true;
    json_open(&w, '[');
    for (size_t i = 0, n; good && i < batch.n; i += n) {
        for (n = 1; i + n < batch.n &&
                    !trace_id_cmp(&batch.spans[i].trace_id, &batch.spans[i + n].trace_id);)
            n++;
        const struct span_batch trace = {.spans = batch.spans + i, .n = n};
        good = legacy_trace_json(&w, &trace, q->arena);
        found++;
    }
    json_close(&w, ']');
    legacy_close(q, &w, found);
    if (good)
        web_reply_json(q, 200, &out);
    else
        web_fail_err(q, ERR_NOMEM, NULL);
    buf_done(&out);
}

/* ---- traces of a service ---- */

typedef int trace_fn(void *arg, const struct span_batch *trace,
                     const struct trace_summary *summary);

/* Calls for the newest TRACES_MAX traces with such a span, as far as the time of a query allows. */
static int each_trace(struct web_request *q, struct str service, struct str operation,
                      uint64_t start_ns, uint64_t end_ns, trace_fn *fn, void *arg,
                      struct error_detail *detail)
{
    struct search search = {.start_min_ns = start_ns,
                            .start_max_ns = end_ns,
                            .limit = TRACES_MAX,
                            .timeout_ns = q->web->query_timeout_ns};
    struct conditions conditions = {.arena = q->arena};
    struct search_result result;
    struct arena scratch = ARENA_INIT;
    conditions_string(&conditions, FIELD_SERVICE, service);
    if (operation.len)
        conditions_string(&conditions, FIELD_NAME, operation);
    search.where = conditions_all(&conditions);
    if (conditions.failed)
        return ERR_NOMEM;
    struct store_view *view = web_view(q);
    int err = view ? search_run(view, &search, q->arena, &result, detail) : ERR_NOMEM;
    for (size_t i = 0; !err && i < result.n; i++) {
        struct span_batch trace;
        if (clock_monotonic_ns() > q->arrived_ns + q->web->query_timeout_ns)
            break;
        arena_reset(&scratch);
        err = store_trace(view, &result.traces[i].summary.id, &scratch, &trace);
        if (!err)
            err = fn(arg, &trace, &result.traces[i].summary);
        else if (err == ERR_CORRUPT || err == ERR_NOT_FOUND)
            err = 0;
    }
    arena_done(&scratch);
    return err;
}

static int by_span_id(const void *a, const void *b)
{
    const struct span *const *x = a, *const *y = b;
    return memcmp((*x)->span_id.bytes, (*y)->span_id.bytes, SPAN_ID_SIZE);
}

/* The spans of a trace by id; `above` of each in the trace's own order: its parent, or NULL. */
struct family {
    const struct span **sorted, **above;
    bool *has_child;
};

static int family_of(const struct span_batch *trace, struct family *ret)
{
    size_t n = trace->n ? trace->n : 1;
    ret->sorted = malloc(n * sizeof *ret->sorted);
    ret->above = calloc(n, sizeof *ret->above);
    ret->has_child = calloc(n, sizeof *ret->has_child);
    if (!ret->sorted || !ret->above || !ret->has_child)
        return ERR_NOMEM;
    for (size_t i = 0; i < trace->n; i++)
        ret->sorted[i] = &trace->spans[i];
    qsort(ret->sorted, trace->n, sizeof *ret->sorted, by_span_id);
    for (size_t i = 0; i < trace->n; i++) {
        const struct span key = {.span_id = trace->spans[i].parent_id}, *wanted = &key;
        const struct span **found;
        if (span_id_is_zero(&key.span_id))
            continue;
        found = bsearch(&wanted, ret->sorted, trace->n, sizeof *ret->sorted, by_span_id);
        if (found && *found != &trace->spans[i]) {
            ret->above[i] = *found;
            ret->has_child[*found - trace->spans] = true;
        }
    }
    return 0;
}

static void family_done(struct family *f)
{
    free(f->sorted);
    free(f->above);
    free(f->has_child);
}

/* ---- deep dependencies ---- */

struct path {
    struct str key; /* services and operations, each with a zero byte behind it */
    struct trace_id examples[EXAMPLES_MAX];
    size_t n_examples;
};

struct paths {
    struct arena *arena;
    struct str service, operation;
    struct path *items;
    size_t n;
    uint32_t slots[4 * PATHS_MAX]; /* by hash of the key: index + 1 */
};

static int path_add(struct paths *p, struct str key, const struct trace_id *id)
{
    size_t n_slots = sizeof p->slots / sizeof *p->slots;
    size_t i = hash_bytes_seed(key.ptr, key.len, hash_secret()) % n_slots;
    while (p->slots[i] && !str_eq(p->items[p->slots[i] - 1].key, key))
        i = (i + 1) % n_slots;
    if (!p->slots[i]) {
        if (p->n == PATHS_MAX)
            return 0;
        struct path *path = &p->items[p->n];
        *path = (struct path){.key = arena_str(p->arena, key)};
        if (!path->key.ptr)
            return ERR_NOMEM;
        p->slots[i] = (uint32_t)++p->n;
    }
    struct path *path = &p->items[p->slots[i] - 1];
    if (path->n_examples < EXAMPLES_MAX &&
        (!path->n_examples || trace_id_cmp(&path->examples[path->n_examples - 1], id)))
        path->examples[path->n_examples++] = *id;
    return 0;
}

/* From the root down to the leaf. False: too long, or none of the spans is the one asked for. */
static bool path_key(const struct paths *p, const struct span_batch *trace, const struct family *f,
                     size_t leaf, struct buf *key)
{
    const struct span *chain[PATH_SPANS_MAX];
    size_t n = 0, steps = 0;
    bool has = false;
    for (const struct span *s = &trace->spans[leaf]; s; s = f->above[s - trace->spans]) {
        if (++steps > trace->n) /* parents in a circle */
            return false;
        if (s->kind != SPAN_KIND_SERVER)
            continue;
        if (n == PATH_SPANS_MAX)
            return false;
        chain[n++] = s;
        has |= str_eq(s->resource->service_name, p->service) &&
               (!p->operation.len || str_eq(s->name, p->operation));
    }
    buf_clear(key);
    while (n) {
        const struct span *s = chain[--n];
        buf_str(key, s->resource->service_name);
        buf_byte(key, '\0');
        buf_str(key, s->name);
        buf_byte(key, '\0');
    }
    return has;
}

static int paths_of_trace(void *arg, const struct span_batch *trace,
                          const struct trace_summary *summary)
{
    struct paths *p = arg;
    struct family f;
    struct buf key = BUF_INIT;
    int err = family_of(trace, &f);
    for (size_t i = 0; !err && i < trace->n; i++) {
        if (f.has_child[i] || !path_key(p, trace, &f, i, &key))
            continue;
        err = buf_ok(&key) ? path_add(p, buf_as_str(&key), &summary->id) : ERR_NOMEM;
    }
    buf_done(&key);
    family_done(&f);
    return err;
}

static void path_json(struct json_writer *w, const struct path *path)
{
    json_open(w, '{');
    key_open(w, "path", '[');
    for (struct str left = path->key; left.len;) {
        struct str service = str_split(left, '\0', &left), operation = str_split(left, '\0', &left);
        json_open(w, '{');
        key_str(w, "service", service);
        key_str(w, "operation", operation);
        json_close(w, '}');
    }
    json_close(w, ']');
    key_open(w, "attributes", '[');
    for (size_t i = 0; i < path->n_examples; i++) {
        json_open(w, '{');
        key_str(w, "key", STR("exemplar_trace_id"));
        json_key(w, STR("value"));
        json_hex(w, path->examples[i].bytes, TRACE_ID_SIZE);
        json_close(w, '}');
    }
    json_close(w, ']');
    json_close(w, '}');
}

void legacy_deep_dependencies(struct web_request *q)
{
    const uint64_t us_max = UINT64_MAX / NS_PER_US;
    uint64_t start_us, end_us;
    struct error_detail detail = {0};
    struct str service = web_param(q, "service");
    if (!service.len) {
        web_fail(q, 400, "parameter 'service' is required");
        return;
    }
    if (!web_param_u64(q, "start", 0, us_max, 0, &start_us) ||
        !web_param_u64(q, "end", 0, us_max, 0, &end_us))
        return;
    struct paths *p = arena_zalloc(q->arena, sizeof *p);
    int err = p ? 0 : ERR_NOMEM;
    if (!err) {
        p->arena = q->arena;
        p->service = service;
        p->operation = web_param(q, "operation");
        p->items = arena_array(q->arena, PATHS_MAX, sizeof *p->items);
        err = p->items ? 0 : ERR_NOMEM;
    }
    if (!err)
        err = each_trace(q, service, p->operation, start_us * NS_PER_US, end_us * NS_PER_US,
                         paths_of_trace, p, &detail);
    if (err) {
        web_fail_err(q, err, &detail);
        return;
    }
    struct buf out = {.bytes_max = ANSWER_BYTES_MAX};
    struct json_writer w = json_writer(&out);
    json_open(&w, '{');
    key_open(&w, "dependencies", '[');
    for (size_t i = 0; i < p->n; i++)
        path_json(&w, &p->items[i]);
    json_close(&w, ']');
    json_close(&w, '}');
    web_reply_json(q, 200, &out);
}

/* ---- quality ---- */

struct example {
    struct trace_id trace_id;
    struct span_id span_id;
    bool has_span;
};

struct tally {
    uint64_t passed, failed;
    struct example passes[EXAMPLES_MAX], failures[EXAMPLES_MAX];
};

enum check { CHECK_WHOLE, CHECK_UNIQUE, CHECK_INSIDE, CHECK_NAMES, CHECK_PEERS, CHECKS };

static const struct {
    const char *name, *category, *description;
    double weight;
} checks[CHECKS] = {
    [CHECK_WHOLE] = {"WholeTraces", "completeness",
                     "The trace has a root, and every span's parent arrived.", 1},
    [CHECK_UNIQUE] = {"UniqueSpanIds", "completeness",
                      "No other span of the trace has the id of the service's span.", 0.5},
    [CHECK_PEERS] =
        {"AnsweredCalls", "completeness",
         "A client span of the service has a child, or says whom it calls (peer.service, "
         "server.address, db.system and the like).",
         0.5},
    [CHECK_INSIDE] = {"SpansInsideParents", "clarity",
                      "A span that its parent waits for lies inside it: the clocks agree.", 1},
    [CHECK_NAMES] =
        {"NamesWithoutIds", "clarity",
         "The name of the span has no number or id in it, so that operations can be counted.", 0.5},
};

struct quality {
    struct str service;
    struct tally tallies[CHECKS];
};

static void tally(struct quality *k, enum check check, bool passed, const struct trace_id *trace_id,
                  const struct span *span)
{
    struct tally *t = &k->tallies[check];
    uint64_t n = passed ? t->passed++ : t->failed++;
    if (n < EXAMPLES_MAX)
        (passed ? t->passes : t->failures)[n] = (struct example){
            .trace_id = *trace_id,
            .span_id = span ? span->span_id : (struct span_id){{0}},
            .has_span = span != NULL,
        };
}

/* Three digits in a row, or sixteen hexadecimal ones with a digit among them. */
static bool has_id(struct str name)
{
    size_t digits = 0, hex = 0, hex_digits = 0;
    for (size_t i = 0; i < name.len; i++) {
        unsigned char c = (unsigned char)name.ptr[i];
        digits = isdigit(c) ? digits + 1 : 0;
        hex = isxdigit(c) || c == '-' ? hex + 1 : 0;
        hex_digits = hex ? hex_digits + !!isdigit(c) : 0;
        if (digits >= 3 || (hex >= 16 && hex_digits))
            return true;
    }
    return false;
}

static bool names_peer(const struct span *s)
{
    static const struct str keys[] = {
        {"peer.service", 12},   {"server.address", 14}, {"network.peer.address", 20},
        {"net.peer.name", 13},  {"db.system", 9},       {"messaging.system", 16},
        {"db.system.name", 14}, {"url.full", 8},        {"http.url", 8},
    };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (attrs_find(&s->attrs, keys[i]))
            return true;
    return false;
}

static int quality_of_trace(void *arg, const struct span_batch *trace,
                            const struct trace_summary *summary)
{
    struct quality *k = arg;
    struct family f;
    int err = family_of(trace, &f);
    if (!err)
        tally(k, CHECK_WHOLE, summary->has_root && !summary->orphan_count, &summary->id, NULL);
    for (size_t i = 0; !err && i < trace->n; i++) {
        const struct span *s = f.sorted[i], *parent = f.above[s - trace->spans];
        if (!str_eq(s->resource->service_name, k->service))
            continue;
        bool twice = (i && !by_span_id(&f.sorted[i - 1], &f.sorted[i])) ||
                     (i + 1 < trace->n && !by_span_id(&f.sorted[i], &f.sorted[i + 1]));
        tally(k, CHECK_UNIQUE, !twice, &summary->id, s);
        tally(k, CHECK_NAMES, !has_id(s->name), &summary->id, s);
        if (s->kind == SPAN_KIND_CLIENT)
            tally(k, CHECK_PEERS, f.has_child[s - trace->spans] || names_peer(s), &summary->id, s);
        if (parent && parent->kind != SPAN_KIND_PRODUCER && s->kind != SPAN_KIND_CONSUMER)
            tally(k, CHECK_INSIDE, s->start_ns >= parent->start_ns && s->end_ns <= parent->end_ns,
                  &summary->id, s);
    }
    family_done(&f);
    return err;
}

static void examples_json(struct json_writer *w, const char *key, const struct example *examples,
                          uint64_t n)
{
    key_open(w, key, '[');
    for (uint64_t i = 0; i < n && i < EXAMPLES_MAX; i++) {
        json_open(w, '{');
        json_key(w, STR("traceID"));
        json_hex(w, examples[i].trace_id.bytes, TRACE_ID_SIZE);
        if (examples[i].has_span) {
            key_open(w, "spanIDs", '[');
            json_hex(w, examples[i].span_id.bytes, SPAN_ID_SIZE);
            json_close(w, ']');
        }
        json_close(w, '}');
    }
    json_close(w, ']');
}

/* Of a category: the part that passed of each of its metrics, by weight; without any span, nothing. */
static uint64_t score_of(const struct quality *k, const char *category)
{
    double sum = 0, weights = 0;
    for (int i = 0; i < CHECKS; i++) {
        const struct tally *t = &k->tallies[i];
        uint64_t all = t->passed + t->failed;
        if (strcmp(checks[i].category, category) || !all)
            continue;
        sum += checks[i].weight * (double)t->passed / (double)all;
        weights += checks[i].weight;
    }
    return weights > 0 ? (uint64_t)(100 * sum / weights) : 0;
}

static void quality_json(struct json_writer *w, const struct quality *k)
{
    static const char *const scores[][2] = {{"completeness", "Completeness"},
                                            {"clarity", "Clarity"}};
    json_open(w, '{');
    key_str(w, "traceQualityDocumentationLink",
            STR("https://opentelemetry.io/docs/concepts/signals/traces/"));
    key_str(w, "bannerText", STR(""));
    key_open(w, "scores", '[');
    for (int i = 0; i < 2; i++) {
        json_open(w, '{');
        key_str(w, "key", str_from(scores[i][0]));
        key_str(w, "label", str_from(scores[i][1]));
        key_u64(w, "max", 100);
        key_u64(w, "value", score_of(k, scores[i][0]));
        json_close(w, '}');
    }
    json_close(w, ']');
    key_open(w, "metrics", '[');
    for (int i = 0; i < CHECKS; i++) {
        const struct tally *t = &k->tallies[i];
        json_open(w, '{');
        key_str(w, "name", str_from(checks[i].name));
        key_str(w, "category", str_from(checks[i].category));
        key_str(w, "description", str_from(checks[i].description));
        key_str(w, "metricDocumentationLink", STR(""));
        json_key(w, STR("metricWeight"));
        json_double(w, checks[i].weight);
        key_u64(w, "passCount", t->passed);
        examples_json(w, "passExamples", t->passes, t->passed);
        key_u64(w, "failureCount", t->failed);
        examples_json(w, "failureExamples", t->failures, t->failed);
        key_open(w, "details", '[');
        json_close(w, ']');
        json_close(w, '}');
    }
    json_close(w, ']');
    key_open(w, "clients", '[');
    json_close(w, ']');
    json_close(w, '}');
}

void legacy_quality_metrics(struct web_request *q)
{
    uint64_t hours, now_ns = clock_realtime_ns();
    struct error_detail detail = {0};
    struct str service = web_param(q, "service");
    if (!service.len) {
        web_fail(q, 400, "parameter 'service' is required");
        return;
    }
    if (!web_param_u64(q, "hours", 1, HOURS_MAX, 1, &hours))
        return;
    uint64_t back_ns = hours * 3600 * NS_PER_S;
    struct quality *k = arena_zalloc(q->arena, sizeof *k);
    int err = k ? 0 : ERR_NOMEM;
    if (!err) {
        k->service = service;
        err = each_trace(q, service, STR_NONE, now_ns > back_ns ? now_ns - back_ns : 0, 0,
                         quality_of_trace, k, &detail);
    }
    if (err) {
        web_fail_err(q, err, &detail);
        return;
    }
    struct buf out = {.bytes_max = ANSWER_BYTES_MAX};
    struct json_writer w = json_writer(&out);
    quality_json(&w, k);
    web_reply_json(q, 200, &out);
}
