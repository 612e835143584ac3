#include "query_asks.h"

#include "base/clock.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

const char *ask_class_name(enum ask_class c)
{
    static const char *const names[] = {
        [ASK_TRACE] = "trace by id",
        [ASK_SERVICE] = "search by service",
        [ASK_OPERATION] = "search by operation",
        [ASK_DURATION] = "search by duration",
        [ASK_TIME] = "search by time",
        [ASK_ATTRIBUTE] = "search by attribute",
        [ASK_TWO_ATTRIBUTES] = "search by two attributes of a span",
        [ASK_ABSENT] = "search by a value that is nowhere",
        [ASK_STRUCTURE] = "structure, services and status",
        [ASK_STRUCTURE_RARE] = "structure, few answers",
        [ASK_STRUCTURE_ATTRIBUTES] = "structure, attributes",
        [ASK_RATE] = "rate() by service, everything",
    };
    return names[c];
}

/* ---- drawing the questions ---- */

static const char *text_of(struct asks *asks, struct str s)
{
    return arena_str(&asks->texts, s).ptr;
}

static void attribute_from(struct asks *asks, struct ask_side *side, int i, const struct span *s,
                           unsigned nth)
{
    const struct attr *a = &s->attrs.items[nth % s->attrs.n];
    side->keys[i] = text_of(asks, a->key);
    side->values[i] = text_of(asks, a->value.string);
}

static const char *service_from(struct asks *asks, const struct span *s)
{
    return text_of(asks, s->resource->service_name);
}

/* Question i of each class, from two spans that have nothing to do with each other. */
static void ask_draw(struct asks *asks, unsigned i, const struct span *x, const struct span *y)
{
    uint64_t all_ns = asks->end_ns - asks->start_ns;
    asks->of[ASK_SERVICE][i].of.service = service_from(asks, x);
    asks->of[ASK_SERVICE][i].of.error = i % 2;
    asks->of[ASK_OPERATION][i].of.service = service_from(asks, x);
    asks->of[ASK_OPERATION][i].of.operation = text_of(asks, x->name);
    /* From every fifth trace to one in 50,000. */
    asks->of[ASK_DURATION][i].of.duration_min_ns =
        (uint64_t)(500e6 * (1 - 0.2 * pow(10, -(double)i / 6)));
    asks->of[ASK_TIME][i].from_ns = asks->start_ns + all_ns / (ASKS + 1) * (i + 1);
    asks->of[ASK_TIME][i].to_ns = asks->of[ASK_TIME][i].from_ns + NS_PER_S;
    attribute_from(asks, &asks->of[ASK_ATTRIBUTE][i].of, 0, x, i);
    attribute_from(asks, &asks->of[ASK_TWO_ATTRIBUTES][i].of, 0, x, i);
    attribute_from(asks, &asks->of[ASK_TWO_ATTRIBUTES][i].of, 1, x, i + 3);
    attribute_from(asks, &asks->of[ASK_ABSENT][i].of, 0, x, i);
    asks->of[ASK_ABSENT][i].of.values[0] = arena_printf(&asks->texts, "nowhere %u", i);

    struct ask *a = &asks->of[ASK_STRUCTURE][i];
    a->has_above = true;
    a->above.service = service_from(asks, x);
    a->of.service = service_from(asks, y);
    a->of.error = true;
    a = &asks->of[ASK_STRUCTURE_RARE][i];
    a->has_above = true;
    a->above.service = service_from(asks, x);
    a->above.error = true;
    a->of.service = service_from(asks, y);
    a->of.duration_min_ns = (200 + 10 * (uint64_t)i) * NS_PER_MS;
    a = &asks->of[ASK_STRUCTURE_ATTRIBUTES][i];
    a->has_above = true;
    attribute_from(asks, &a->above, 0, x, i);
    attribute_from(asks, &a->of, 0, y, i);

    asks->of[ASK_RATE][i].step_ns = (i + 2) * NS_PER_S;
}

/* ---- what is right ---- */

static bool same(const char *wanted, struct str s)
{
    return !wanted || (strlen(wanted) == s.len && !memcmp(wanted, s.ptr, s.len));
}

static bool side_matches(const struct ask_side *side, const struct span *s)
{
    if ((side->error && s->status_code != STATUS_ERROR) ||
        span_duration_ns(s) < side->duration_min_ns ||
        !same(side->service, s->resource->service_name) || !same(side->operation, s->name))
        return false;
    for (int i = 0; i < 2 && side->keys[i]; i++) {
        uint32_t k = 0;
        while (k < s->attrs.n && !same(side->keys[i], s->attrs.items[k].key))
            k++;
        if (k == s->attrs.n || !same(side->values[i], s->attrs.items[k].value.string))
            return false;
    }
    return true;
}

static bool has_ancestor(const struct ask_side *side, const struct span_batch *trace,
                         const int *parents, int i)
{
    while ((i = parents[i]) >= 0)
        if (side_matches(side, &trace->spans[i]))
            return true;
    return false;
}

static bool is_better(const struct ask_trace *a, const struct ask_trace *b)
{
    if (a->start_ns != b->start_ns)
        return a->start_ns > b->start_ns;
    return trace_id_cmp(&a->id, &b->id) < 0;
}

static void ask_take(struct ask *a, const struct span_batch *trace, const int *parents,
                     uint64_t start_ns)
{
    struct ask_trace found = {.id = trace->spans[0].trace_id, .start_ns = start_ns};
    for (size_t i = 0; i < trace->n; i++) {
        const struct span *s = &trace->spans[i];
        found.matched += (!a->to_ns || (s->start_ns >= a->from_ns && s->start_ns <= a->to_ns)) &&
                         side_matches(&a->of, s) &&
                         (!a->has_above || has_ancestor(&a->above, trace, parents, (int)i));
    }
    if (!found.matched)
        return;
    size_t at = a->n_best;
    while (at && is_better(&found, &a->best[at - 1]))
        at--;
    if (at == ASK_LIMIT)
        return;
    size_t behind = (a->n_best < ASK_LIMIT ? a->n_best : ASK_LIMIT - 1) - at;
    memmove(&a->best[at + 1], &a->best[at], behind * sizeof a->best[0]);
    a->best[at] = found;
    a->n_best += a->n_best < ASK_LIMIT;
}

static void asks_take(struct asks *asks, const struct span_batch *trace, uint64_t nth,
                      uint64_t traces)
{
    int parents[ASK_SPANS_PER_TRACE];
    uint64_t start_ns = UINT64_MAX;
    for (size_t i = 0; i < trace->n; i++) {
        const struct span *s = &trace->spans[i];
        parents[i] = -1;
        for (size_t k = 0; k < trace->n && !span_id_is_zero(&s->parent_id); k++)
            if (!memcmp(s->parent_id.bytes, trace->spans[k].span_id.bytes, SPAN_ID_SIZE))
                parents[i] = (int)k;
        start_ns = s->start_ns < start_ns ? s->start_ns : start_ns;
        for (int k = 0; k < LOAD_SERVICES; k++) {
            if (!asks->services[k])
                asks->services[k] = service_from(asks, s);
            if (same(asks->services[k], s->resource->service_name)) {
                asks->per_service[k]++;
                break;
            }
        }
    }
    for (int c = ASK_SERVICE; c < ASK_RATE; c++)
        for (int i = 0; i < ASKS; i++)
            ask_take(&asks->of[c][i], trace, parents, start_ns);
    uint64_t every = traces / ASKS ? traces / ASKS : 1;
    if (nth % every == every / 2 && nth / every < ASKS)
        asks->of[ASK_TRACE][nth / every].id = trace->spans[0].trace_id;
}

/* One trace after the other is what any number at once gives. */
static int each_trace(struct asks *asks, uint64_t seed, uint64_t start_ns, uint64_t traces,
                      bool questions)
{
    struct load_gen *gen = load_gen_new(seed, ASK_SPANS_PER_TRACE, start_ns);
    struct arena arena = ARENA_INIT;
    struct span before = {.n_links = 0};
    int err = gen ? 0 : ERR_NOMEM;
    for (uint64_t t = 0; !err && t < traces; t++) {
        struct span_batch trace;
        if (!questions || t % 2 == 0)
            arena_reset(&arena);
        err = load_gen_batch(gen, 1, &arena, &trace);
        if (!err && questions && t % 2)
            ask_draw(asks, (unsigned)(t / 2), &before, &trace.spans[3]);
        else if (!err && questions)
            before = trace.spans[5];
        else if (!err)
            asks_take(asks, &trace, t, traces);
    }
    arena_done(&arena);
    load_gen_free(gen);
    return err;
}

int asks_make(struct asks *asks, uint64_t seed, uint64_t start_ns, uint64_t traces)
{
    *asks = (struct asks){.start_ns = start_ns};
    /* A trace a millisecond, and what the last ones take. */
    asks->end_ns = start_ns + traces * NS_PER_MS + traces * NS_PER_MS / 10 + 10 * NS_PER_S;
    int err = each_trace(asks, seed, start_ns, UINT64_C(2) * ASKS, true);
    return err ? err : each_trace(asks, seed, start_ns, traces, false);
}

void asks_done(struct asks *asks)
{
    arena_done(&asks->texts);
}

/* ---- in our words ---- */

static void put_encoded(struct buf *out, const char *text)
{
    for (; *text; text++) {
        bool plain = (*text >= 'a' && *text <= 'z') || (*text >= '0' && *text <= '9');
        if (plain)
            buf_byte(out, *text);
        else
            buf_printf(out, "%%%02X", (unsigned char)*text);
    }
}

static void put_side(struct buf *q, const struct ask_side *side)
{
    const char *join = "";
    buf_cstr(q, "{ ");
    if (side->service) {
        buf_printf(q, "resource.service.name = \"%s\"", side->service);
        join = " && ";
    }
    if (side->operation) {
        buf_printf(q, "%sname = \"%s\"", join, side->operation);
        join = " && ";
    }
    if (side->error) {
        buf_printf(q, "%sstatus = error", join);
        join = " && ";
    }
    if (side->duration_min_ns) {
        buf_printf(q, "%sduration >= %" PRIu64 "ns", join, side->duration_min_ns);
        join = " && ";
    }
    for (int i = 0; i < 2 && side->keys[i]; i++, join = " && ")
        buf_printf(q, "%sspan.%s = \"%s\"", join, side->keys[i], side->values[i]);
    buf_cstr(q, " }");
}

void ask_path(const struct asks *asks, enum ask_class c, const struct ask *a, struct buf *out)
{
    struct buf q = BUF_INIT;
    uint64_t from = a->to_ns ? a->from_ns : asks->start_ns, to = a->to_ns ? a->to_ns : asks->end_ns;
    buf_clear(out);
    if (c == ASK_TRACE) {
        buf_cstr(out, "/api/pugmark/traces/");
        for (int i = 0; i < TRACE_ID_SIZE; i++)
            buf_printf(out, "%02x", a->id.bytes[i]);
        buf_byte(out, '\0');
        return;
    }
    if (c == ASK_RATE) {
        buf_cstr(&q, "{ } | rate() by (resource.service.name)");
    } else {
        if (a->has_above) {
            put_side(&q, &a->above);
            buf_cstr(&q, " >> ");
        }
        put_side(&q, &a->of);
    }
    buf_byte(&q, '\0');
    buf_printf(out, "/api/pugmark/%s?start=%" PRIu64 "&end=%" PRIu64 "&q=",
               c == ASK_RATE ? "metrics" : "search", from, to);
    put_encoded(out, q.ptr);
    if (c == ASK_RATE)
        buf_printf(out, "&step=%" PRIu64 "s", a->step_ns / NS_PER_S);
    else
        buf_printf(out, "&limit=%d", ASK_LIMIT);
    buf_byte(out, '\0');
    buf_done(&q);
}

/* Behind the next `key` in the text, which moves there; NULL: there is none. */
static const char *next_of(const char **at, const char *key)
{
    const char *found = strstr(*at, key);
    *at = found ? found + strlen(key) : *at;
    return found ? *at : NULL;
}

static bool search_check(const struct ask *a, const char *text, char *problem, size_t size)
{
    size_t n = 0;
    for (const char *id; (id = next_of(&text, "\"traceId\":\"")) != NULL; n++) {
        const char *matched = next_of(&text, "\"matched\":");
        char wanted[2 * TRACE_ID_SIZE + 1] = "";
        for (int i = 0; n < a->n_best && i < TRACE_ID_SIZE; i++)
            snprintf(wanted + 2 * (size_t)i, 3, "%02x", a->best[n].id.bytes[i]);
        if (n >= a->n_best || memcmp(id, wanted, 2 * TRACE_ID_SIZE) || !matched ||
            strtoull(matched, NULL, 10) != a->best[n].matched) {
            snprintf(problem, size, "trace %zu is %.32s with %.4s, not %s with %" PRIu64, n, id,
                     matched ? matched : "?", wanted, n < a->n_best ? a->best[n].matched : 0);
            return false;
        }
    }
    if (n != a->n_best)
        snprintf(problem, size, "%zu traces, not %zu", n, a->n_best);
    return n == a->n_best;
}

static bool rate_check(const struct asks *asks, const struct ask *a, const char *text,
                       char *problem, size_t size)
{
    unsigned n = 0;
    for (const char *name; (name = next_of(&text, "\"stringValue\":\"")) != NULL; n++) {
        const char *samples = next_of(&text, "\"samples\":[");
        double sum = 0;
        int k = 0;
        while (k < LOAD_SERVICES && asks->services[k] &&
               (strncmp(name, asks->services[k], strlen(asks->services[k])) ||
                name[strlen(asks->services[k])] != '"'))
            k++;
        for (char *end; samples && *samples != ']'; samples = *end == ',' ? end + 1 : end) {
            double v = strtod(samples, &end);
            sum += end == samples ? 0 : v * (double)a->step_ns / 1e9;
            end += end == samples ? strcspn(end, ",]") : 0;
        }
        if (k == LOAD_SERVICES || fabs(sum - (double)asks->per_service[k]) > 0.5) {
            snprintf(problem, size, "%.20s has %.1f spans, not %" PRIu64, name, sum,
                     k < LOAD_SERVICES ? asks->per_service[k] : 0);
            return false;
        }
    }
    snprintf(problem, size, "%u series", n);
    return n == LOAD_SERVICES;
}

bool ask_check(const struct asks *asks, enum ask_class c, const struct ask *a, struct str answer,
               char *problem, size_t size)
{
    char *text = malloc(answer.len + 1);
    bool right;
    if (!text)
        return false;
    memcpy(text, answer.ptr, answer.len);
    text[answer.len] = '\0';
    if (c == ASK_TRACE) {
        unsigned n = 0;
        for (const char *at = text; next_of(&at, "\"spanId\":\"");)
            n++;
        snprintf(problem, size, "%u spans", n);
        right = n == ASK_SPANS_PER_TRACE;
    } else if (c == ASK_RATE) {
        right = rate_check(asks, a, text, problem, size);
    } else {
        right = search_check(a, text, problem, size);
    }
    free(text);
    return right;
}

/* ---- in SQL ---- */

static void put_sql_side(struct buf *out, const struct ask_side *side)
{
    buf_cstr(out, "1");
    if (side->service)
        buf_printf(out, " AND ServiceName = '%s'", side->service);
    if (side->operation)
        buf_printf(out, " AND SpanName = '%s'", side->operation);
    if (side->error)
        buf_cstr(out, " AND StatusCode = 2");
    if (side->duration_min_ns)
        buf_printf(out, " AND Duration >= %" PRIu64, side->duration_min_ns);
    for (int i = 0; i < 2 && side->keys[i]; i++)
        buf_printf(out, " AND SpanAttributes.Value[indexOf(SpanAttributes.Key, '%s')] = '%s'",
                   side->keys[i], side->values[i]);
}

void ask_sql(const struct asks *asks, enum ask_class c, const struct ask *a, struct buf *out)
{
    (void)asks;
    buf_clear(out);
    if (c == ASK_TRACE) {
        char id[2 * TRACE_ID_SIZE + 1] = "";
        for (int i = 0; i < TRACE_ID_SIZE; i++)
            snprintf(id + 2 * (size_t)i, 3, "%02x", a->id.bytes[i]);
        buf_printf(out,
                   "SELECT * FROM spans WHERE TraceId = toFixedString(unhex('%s'), 16) AND"
                   " Timestamp >= (SELECT min(Start) FROM trace_times WHERE TraceId ="
                   " toFixedString(unhex('%s'), 16)) AND Timestamp <= (SELECT max(End) FROM"
                   " trace_times WHERE TraceId = toFixedString(unhex('%s'), 16)) FORMAT Null",
                   id, id, id);
    } else if (c == ASK_RATE) {
        buf_printf(out,
                   "SELECT ServiceName, intDiv(Timestamp, %" PRIu64
                   ") AS s, count() FROM spans GROUP BY ServiceName, s FORMAT Null",
                   a->step_ns);
    } else {
        buf_cstr(out, "SELECT TraceId, max(Timestamp) AS t, count() FROM spans WHERE ");
        put_sql_side(out, &a->of);
        if (a->to_ns)
            buf_printf(out, " AND Timestamp >= %" PRIu64 " AND Timestamp <= %" PRIu64, a->from_ns,
                       a->to_ns);
        if (a->has_above) {
            buf_cstr(out, " AND TraceId IN (SELECT TraceId FROM spans WHERE ");
            put_sql_side(out, &a->above);
            buf_cstr(out, ")");
        }
        buf_printf(out, " GROUP BY TraceId ORDER BY t DESC LIMIT %d FORMAT Null", ASK_LIMIT);
    }
    buf_byte(out, '\0');
}
