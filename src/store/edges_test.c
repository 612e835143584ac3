/* store_edges against a plain look through the spans that were appended. */
#include "store/fixture.h"

#include <stdlib.h>

#include "base/clock.h"

enum { TRACES = 12 };

/* Spans of a few traces, with ids of their own; the parent of most is a span of the trace, of this batch or an
 * earlier one. */
static void append_spans(struct fixture *f, size_t n)
{
    struct span_batch batch = fixture_batch(f, n);
    for (size_t i = 0; i < n; i++) {
        struct span *s = &batch.spans[i];
        uint64_t id = f->n + i + 1, parent = 0;
        s->trace_id = (struct trace_id){{0xaa, (uint8_t)fixture_random(f, TRACES)}};
        s->kind = (uint8_t)fixture_random(f, 6);
        for (int tries = 0; tries < 20 && !parent && f->n + i; tries++) {
            uint64_t k = fixture_random(f, f->n + i);
            const struct span *p = k < f->n ? &f->spans[k] : &batch.spans[k - f->n];
            parent = trace_id_cmp(&p->trace_id, &s->trace_id) ? 0 : k + 1;
        }
        if (!fixture_random(f, 10))
            parent = UINT64_MAX; /* never came */
        memcpy(s->span_id.bytes, &id, SPAN_ID_SIZE);
        memcpy(s->parent_id.bytes, &parent, SPAN_ID_SIZE);
    }
    fixture_append(f, &batch);
}

struct seen {
    const struct fixture *f;
    uint8_t *of; /* by span: how often it answered */
    size_t n;
};

static void assert_side(const struct store_edge_side *side, const struct span *s)
{
    assert_str_eq(side->service, s->resource->service_name);
    assert_int_equal(side->duration_ns, span_duration_ns(s));
    assert_int_equal(side->kind, s->kind);
    assert_int_equal(side->status_code, s->status_code);
}

static int take_edge(void *arg, const struct store_edge *edge)
{
    struct seen *seen = arg;
    const struct fixture *f = seen->f;
    uint64_t client, server = UINT64_MAX;
    memcpy(&client, edge->client_id.bytes, sizeof client);
    assert_in_range(client, 1, f->n);
    /* Which of its children this is: times are drawn, but two may be the same. */
    for (size_t i = 0; i < f->n && server == UINT64_MAX; i++) {
        const struct span *s = &f->spans[i];
        if (!seen->of[i] && !memcmp(s->parent_id.bytes, &client, SPAN_ID_SIZE) &&
            s->start_ns == edge->start_ns && s->kind == edge->server.kind &&
            span_duration_ns(s) == edge->server.duration_ns &&
            s->status_code == edge->server.status_code &&
            str_eq(s->resource->service_name, edge->server.service))
            server = i;
    }
    assert_true(server != UINT64_MAX);
    assert_side(&edge->client, &f->spans[client - 1]);
    assert_side(&edge->server, &f->spans[server]);
    assert_memory_equal(edge->trace_id.bytes, f->spans[server].trace_id.bytes, TRACE_ID_SIZE);
    seen->of[server]++;
    seen->n++;
    return 0;
}

static bool is_edge(const struct fixture *f, const struct span *s, uint64_t start_min,
                    uint64_t start_max)
{
    uint64_t parent;
    memcpy(&parent, s->parent_id.bytes, sizeof parent);
    if (!parent || parent > f->n || s->start_ns < start_min || s->start_ns > start_max)
        return false;
    uint8_t asks = f->spans[parent - 1].kind;
    return (s->kind == SPAN_KIND_SERVER || s->kind == SPAN_KIND_CONSUMER) &&
           (asks == SPAN_KIND_CLIENT || asks == SPAN_KIND_PRODUCER);
}

static void check(struct fixture *f, uint64_t start_min, uint64_t start_max)
{
    struct seen seen = {.f = f, .of = calloc(f->n + 1, 1)};
    struct store_view *view = store_view_new(f->store);
    bool is_cut = true;
    size_t n = 0;
    assert_int_equal(store_edges(view, start_min, start_max, 0, take_edge, &seen, &is_cut), 0);
    assert_false(is_cut);
    for (size_t i = 0; i < f->n; i++)
        n += is_edge(f, &f->spans[i], start_min, start_max ? start_max : UINT64_MAX);
    assert_int_equal(seen.n, n);
    for (size_t i = 0; i < f->n; i++)
        assert_int_equal(seen.of[i],
                         is_edge(f, &f->spans[i], start_min, start_max ? start_max : UINT64_MAX));
    store_view_free(view);
    free(seen.of);
}

static void check_ranges(struct fixture *f)
{
    check(f, 0, 0);
    for (int i = 0; i < 5; i++) {
        uint64_t a = f->spans[fixture_random(f, f->n)].start_ns;
        uint64_t b = f->spans[fixture_random(f, f->n)].start_ns;
        check(f, a < b ? a : b, a < b ? b : a);
    }
}

static void edges_are_told_in_memory_and_when_sealed_and_across(void **state)
{
    struct fixture f;
    fixture_init(&f, clock_realtime_ns(), NULL);
    for (int part = 0; part < 4; part++) {
        for (int i = 0; i < 5; i++)
            append_spans(&f, 1 + fixture_random(&f, 80));
        check_ranges(&f);
        if (part < 3)
            assert_int_equal(store_seal(f.store), 0);
        check_ranges(&f);
    }
    assert_int_equal(store_keep(f.store, true), 0); /* one segment of all */
    check_ranges(&f);
    fixture_reopen(&f);
    check_ranges(&f);
    fixture_done(&f);
}

static int stop(void *arg, const struct store_edge *edge)
{
    ++*(int *)arg;
    return -1000;
}

static void who_wants_no_more_is_told_no_more(void **state)
{
    struct fixture f;
    fixture_init(&f, 7, NULL);
    append_spans(&f, 2000);
    for (int sealed = 0; sealed < 2; sealed++) {
        struct store_view *view = store_view_new(f.store);
        int told = 0;
        assert_int_equal(store_edges(view, 0, 0, 0, stop, &told, NULL), -1000);
        assert_int_equal(told, 1);
        assert_int_equal(store_edges(view, 0, 0, 1, stop, &told, NULL), ERR_TIMEOUT);
        store_view_free(view);
        assert_int_equal(store_seal(f.store), 0);
    }
    fixture_done(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(edges_are_told_in_memory_and_when_sealed_and_across),
        cmocka_unit_test(who_wants_no_more_is_told_no_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
