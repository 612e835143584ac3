/* From the macros to assembled spans, with the drain's steps made by hand: lanes of a memory of the
 * test's own, an assembler, and a list of what it delivers. */
#include "base/test.h"
#include "pugmark/request_id.h"
#include "sdk/sdk.h"
#include "sdk/span.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SEEN_MAX 4096

struct seen {
    struct span span; /* strings in `arena` */
    struct taken taken;
};

static struct fixture {
    struct config config;
    struct ticks ticks;
    struct assembler *assembler;
    struct arena arena;
    struct seen *seen;
    size_t n;
} f;

static struct attrs copy_attrs(struct attrs from)
{
    struct attr *items = arena_array(&f.arena, from.n, sizeof *items);
    for (uint32_t i = 0; i < from.n; i++) {
        items[i] = from.items[i];
        items[i].key = arena_str(&f.arena, items[i].key);
        if (items[i].value.type == VALUE_STRING)
            items[i].value.string = arena_str(&f.arena, items[i].value.string);
    }
    return (struct attrs){items, from.n, from.dropped};
}

static void collect(void *user, const struct taken_batch *batch)
{
    for (size_t i = 0; i < batch->spans.n && f.n < SEEN_MAX; i++) {
        struct seen *s = &f.seen[f.n++];
        s->span = batch->spans.spans[i];
        s->taken = batch->taken[i];
        s->span.name = arena_str(&f.arena, s->span.name);
        s->span.trace_state = arena_str(&f.arena, s->span.trace_state);
        s->span.status_message = arena_str(&f.arena, s->span.status_message);
        s->span.attrs = copy_attrs(s->span.attrs);
        struct event *events = arena_array(&f.arena, s->span.n_events, sizeof *events);
        for (uint32_t k = 0; k < s->span.n_events; k++) {
            events[k] = s->span.events[k];
            events[k].name = arena_str(&f.arena, events[k].name);
            events[k].attrs = copy_attrs(events[k].attrs);
        }
        s->span.events = events;
        struct link *links = arena_array(&f.arena, s->span.n_links, sizeof *links);
        for (uint32_t k = 0; k < s->span.n_links; k++) {
            links[k] = s->span.links[k];
            links[k].attrs = copy_attrs(links[k].attrs);
        }
        s->span.links = links;
    }
}

static void left(void *lane)
{
    pug__lane_1 = NULL;
    lane_leave_thread(lane);
}

static int setup(void **state)
{
    static bool have_key;
    struct memory *m;
    memset(&f, 0, sizeof f);
    f.seen = calloc(SEEN_MAX, sizeof *f.seen);
    f.config.backend = PUG_BACKEND_LOCAL;
    assert_int_equal(memory_new(LANE_RING_BYTES_MIN, ticks_source(), sdk.parents, &m), 0);
    assert_int_equal(memory_prepare(m, 4), 0);
    assert_true(ticks_init(&f.ticks, m->clock));
    assert_int_equal(assembler_new(m, &f.config, &f.ticks, collect, NULL, &f.assembler), 0);
    nanosleep(&(struct timespec){.tv_nsec = 1500000}, NULL);
    if (!have_key)
        assert_int_equal(pthread_key_create(&sdk.key, left), 0);
    have_key = true;
    atomic_store(&sdk.memory, m);
    atomic_fetch_add(&sdk.epoch, 1);
    atomic_store(&sdk.state, SDK_ON);
    pug__on_1 = PUG__ON_SPANS | PUG__ON_ARGS;
    return 0;
}

static int teardown(void **state)
{
    pug__on_1 = 0;
    atomic_store(&sdk.state, SDK_OFF);
    pug__lane_1 = NULL;
    pthread_setspecific(sdk.key, NULL);
    assembler_free(f.assembler);
    ticks_done(&f.ticks);
    arena_done(&f.arena);
    free(f.seen);
    /* The numbers of the sites stay in this program's statics: the next memory takes them over. */
    if (sdk.parents)
        memory_free(sdk.parents);
    sdk.parents = atomic_load(&sdk.memory);
    atomic_store(&sdk.memory, NULL);
    return 0;
}

/* One round of the drain. */
static void drain(void)
{
    struct memory *m = atomic_load(&sdk.memory);
    uint32_t n = atomic_load(&m->n_lanes);
    for (uint32_t i = 0; i < n; i++) {
        struct lane_reader *r = assembler_reader(f.assembler, i);
        r->head = __atomic_load_n(&r->lane->fast.head, __ATOMIC_ACQUIRE);
    }
    ticks_update(&f.ticks, &m->head->clock);
    for (uint32_t i = 0; i < n; i++)
        assembler_lane(f.assembler, f.assembler->readers[i]);
    assembler_round(f.assembler);
    assembler_flush(f.assembler);
}

static const struct span *find(const char *name)
{
    for (size_t i = 0; i < f.n; i++)
        if (str_eq(f.seen[i].span.name, str_from(name)))
            return &f.seen[i].span;
    fail_msg("no span \"%s\" among %zu", name, f.n);
    return NULL;
}

static struct lane *my_lane(void)
{
    return lane_of(pug__lane_get());
}

static const struct value *attr(const struct span *s, const char *key)
{
    const struct attr *a = attrs_find(&s->attrs, str_from(key));
    if (!a)
        fail_msg("no attribute %s", key);
    return &a->value;
}

/* ---- scopes ---- */

static void a_scope_is_a_span_with_its_attributes(void **state)
{
    {
        PUG_SPAN("all", PUG_INT("int", -5), PUG_BOOL("yes", 1), PUG_DOUBLE("real", 0.5),
                 PUG_STR("text", "sixteen letters."), PUG_STRN("part", "abcdef", 3),
                 PUG_STR("null", NULL), PUG_KIND(PUG_KIND_SERVER));
    }
    drain();
    const struct span *s = find("all");
    assert_int_equal(s->attrs.n, 6);
    assert_int_equal(attr(s, "int")->integer, -5);
    assert_true(attr(s, "yes")->boolean);
    assert_true(attr(s, "real")->real == 0.5);
    assert_str_eq(attr(s, "text")->string, STR("sixteen letters."));
    assert_str_eq(attr(s, "part")->string, STR("abc"));
    assert_str_eq(attr(s, "null")->string, STR(""));
    assert_int_equal(s->kind, SPAN_KIND_SERVER);
    assert_true(span_id_is_zero(&s->parent_id));
    assert_false(span_id_is_zero(&s->span_id));
    assert_false(trace_id_is_zero(&s->trace_id));
    assert_true(s->start_ns <= s->end_ns);
    assert_int_equal(s->flags & 0xff, PUG_FLAG_SAMPLED | PUG_FLAG_RANDOM);
}

static int n_told;
static char told_last[300];

static void tell(void *user, const char *message)
{
    n_told++;
    snprintf(told_last, sizeof told_last, "%s", message);
}

static void a_span_that_ends_before_it_begins_lasts_0_and_is_told_once(void **state)
{
    struct pug_span handle;
    n_told = 0;
    f.config.log = tell;
    for (int i = 0; i < 3; i++) {
        PUG_SPAN("skewed", PUG_INT("n", i));
        my_lane()->fast.top->start += UINT64_C(1) << 30; /* as if read on another CPU */
    }
    pug_span_start(&handle, "skewed handle");
    pug_span_end(&handle);
    {
        PUG_SPAN("upright");
    }
    drain();
    drain();
    const struct span *s = find("skewed");
    assert_int_equal(f.n, 5);
    assert_true(s->start_ns > 0);
    assert_int_equal(s->end_ns, s->start_ns);
    assert_int_equal(attr(s, "n")->integer, 0);
    assert_true(find("upright")->end_ns >= find("upright")->start_ns);
    assert_int_equal(n_told, 1);
    assert_non_null(strstr(told_last, "before it began"));
}

static void strings_of_every_length_arrive(void **state)
{
    char text[80], key[8];
    for (size_t n = 0; n < sizeof text; n++)
        text[n] = (char)('a' + n % 26);
    for (size_t n = 0; n <= 70; n++) {
        PUG_SPAN("length", PUG_STRN("text", text, n), PUG_INT("after", n));
    }
    drain();
    assert_int_equal(f.n, 71);
    for (size_t n = 0; n <= 70; n++) {
        assert_str_eq(attr(&f.seen[n].span, "text")->string, ((struct str){text, n}));
        assert_int_equal(attr(&f.seen[n].span, "after")->integer, n);
    }
    (void)key;
}

static void a_long_string_is_cut_between_characters(void **state)
{
    char *text = malloc(5000);
    memset(text, 'x', 5000);
    /* The two bytes of a letter on both sides of the cut. */
    memcpy(text + PUG_STR_MAX - 1, "\xc3\xa9", 2);
    {
        PUG_SPAN("long", PUG_STRN("text", text, 5000), PUG_STRN("bad", "a\xff", 2));
        pug_set_strn(PUG_CURRENT, "set", text, 5000);
    }
    drain();
    const struct span *s = find("long");
    assert_int_equal(attr(s, "text")->string.len, PUG_STR_MAX - 1);
    assert_int_equal(attr(s, "set")->string.len, PUG_STR_MAX - 1);
    assert_str_eq(attr(s, "bad")->string, STR("a?"));
    free(text);
}

static void inner(int depth)
{
    PUG_FN(PUG_INT("depth", depth));
    if (depth)
        inner(depth - 1);
}

static void spans_nest(void **state)
{
    {
        PUG_SPAN("root");
        inner(3);
        PUG_SPAN("second");
    }
    drain();
    assert_int_equal(f.n, 6);
    const struct span *root = find("root"), *second = find("second");
    /* Children end first: depth 0, 1, 2, 3. */
    for (int i = 0; i < 4; i++) {
        const struct span *s = &f.seen[i].span, *parent = i < 3 ? &f.seen[i + 1].span : root;
        assert_str_eq(s->name, STR("inner"));
        assert_int_equal(attr(s, "depth")->integer, i);
        assert_memory_equal(s->parent_id.bytes, parent->span_id.bytes, 8);
        assert_memory_equal(s->trace_id.bytes, root->trace_id.bytes, 16);
        assert_true(parent->start_ns <= s->start_ns && s->end_ns <= parent->end_ns);
    }
    assert_memory_equal(second->parent_id.bytes, root->span_id.bytes, 8);
}

static void ids_are_different(void **state)
{
    for (int i = 0; i < 1000; i++) {
        PUG_SPAN("one");
    }
    drain();
    assert_int_equal(f.n, 1000);
    for (size_t i = 0; i < f.n; i++)
        for (size_t k = i + 1; k < f.n; k++) {
            assert_memory_not_equal(f.seen[i].span.span_id.bytes, f.seen[k].span.span_id.bytes, 8);
            assert_memory_not_equal(f.seen[i].span.trace_id.bytes, f.seen[k].span.trace_id.bytes,
                                    16);
        }
}

static void what_is_said_later_is_there(void **state)
{
    struct pug_context to;
    {
        PUG_SPAN("told", PUG_INT("n", 1));
        pug_set_int(PUG_CURRENT, "n", 2);
        pug_set_bool(PUG_CURRENT, "b", 0);
        pug_set_double(PUG_CURRENT, "d", -1.5);
        pug_set_str(PUG_CURRENT, "s", "text");
        {
            PUG_SPAN("child");
            to = pug_context_current();
            pug_set_int(PUG_CURRENT, "n", 3);
        }
        pug_event(PUG_CURRENT, "happened", PUG_INT("i", 9), PUG_STR("what", "this"));
        pug_link(PUG_CURRENT, &to);
        pug_error(PUG_CURRENT, "broken");
        pug_set_name(PUG_CURRENT, "renamed");
    }
    drain();
    const struct span *s = find("renamed"), *child = find("child");
    assert_int_equal(s->attrs.n, 4);
    assert_int_equal(attr(s, "n")->integer, 2);
    assert_int_equal(attr(child, "n")->integer, 3);
    assert_int_equal(s->status_code, STATUS_ERROR);
    assert_str_eq(s->status_message, STR("broken"));
    assert_int_equal(s->n_events, 1);
    assert_str_eq(s->events[0].name, STR("happened"));
    assert_int_equal(s->events[0].attrs.n, 2);
    assert_true(s->start_ns <= s->events[0].time_ns && s->events[0].time_ns <= s->end_ns);
    assert_int_equal(s->n_links, 1);
    assert_memory_equal(s->links[0].span_id.bytes, child->span_id.bytes, 8);
    assert_memory_equal(s->links[0].trace_id.bytes, child->trace_id.bytes, 16);
}

/* A handle is delivered in the round after its end. */
static void drain_rounds(void)
{
    drain();
    drain();
}

static void a_batch_has_a_link_to_each_record_it_took_in(void **state)
{
    enum { RECORDS = 5 };
    struct pug_context of[RECORDS];
    char records[RECORDS][300];
    size_t len[RECORDS];
    /* Each record is of a trace of its own, and says so in `_trace`. */
    for (int i = 0; i < RECORDS; i++) {
        PUG_SPAN("record.made");
        of[i] = pug_context_current();
        snprintf(records[i], sizeof records[i], "{\"n\":%d}", i);
        len[i] = pug_json_inject(NULL, records[i], strlen(records[i]), sizeof records[i]);
    }
    struct pug_span batch;
    pug_span_start(&batch, "batch", PUG_KIND(PUG_KIND_CONSUMER));
    for (int i = 0; i < RECORDS; i++) {
        struct pug_context from;
        pug_json_extract(records[i], len[i], &from);
        if (i == 0)
            pug_link(&batch, &from);
        else
            pug_link_with(&batch, &from, PUG_INT("position", i), PUG_STR("topic", "orders"));
    }
    pug_span_end(&batch);
    drain_rounds();
    const struct span *s = find("batch");
    assert_int_equal(s->n_links, RECORDS);
    for (uint32_t i = 0; i < RECORDS; i++) {
        assert_memory_equal(s->links[i].trace_id.bytes, of[i].trace_id, 16);
        assert_memory_equal(s->links[i].span_id.bytes, of[i].span_id, 8);
        assert_int_equal(s->links[i].attrs.n, i ? 2 : 0);
        if (i) {
            assert_int_equal(s->links[i].attrs.items[0].value.integer, i);
            assert_str_eq(s->links[i].attrs.items[0].key, STR("position"));
            assert_str_eq(s->links[i].attrs.items[1].value.string, STR("orders"));
        }
    }
    assert_memory_not_equal(s->links[0].trace_id.bytes, s->links[1].trace_id.bytes, 16);
}

/* What a reader of log lines does: the parent is what the line names, else there is none. */
static void ingest(const char *line, const char *name)
{
    char copy[300];
    struct pug_context from;
    snprintf(copy, sizeof copy, "%s", line);
    pug_json_extract(copy, strlen(copy), &from);
    struct pug_span span;
    pug_span_start_from(&span, &from, "ingester.process_record");
    pug_set_name(&span, name);
    pug_span_end(&span);
}

static void a_record_without_or_with_a_damaged_trace_begins_a_trace_and_is_counted(void **state)
{
    struct pug_counts before = {.size = sizeof before}, after = {.size = sizeof after};
    static const struct span_id none;
    pug_counts_read(&before);
    ingest("{\"a\":1,\"_trace\":{\"traceparent\":"
           "\"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\"}}",
           "whole");
    ingest("{\"a\":1}", "without");
    ingest("{\"a\":1,\"_trace\":{\"traceparent\":\"00-0af7651916cd43dd\"}}", "cut");
    ingest("{\"a\":1,\"_trace\":{}}", "empty");
    ingest("{\"a\":1,\"_trace\":\"gone\"}", "odd");
    drain_rounds();
    uint8_t parent[8];
    assert_true(hex_get(parent, STR("b7ad6b7169203331"), 8));
    assert_memory_equal(find("whole")->parent_id.bytes, parent, 8);
    static const char *const roots[] = {"without", "cut", "empty", "odd"};
    for (int i = 0; i < 4; i++) {
        const struct span *s = find(roots[i]);
        assert_memory_equal(s->parent_id.bytes, none.bytes, 8);
        assert_memory_not_equal(s->trace_id.bytes, find("whole")->trace_id.bytes, 16);
    }
    pug_counts_read(&after);
    assert_int_equal(after.damaged_contexts - before.damaged_contexts, 3);
}

static void a_span_has_a_kind_and_as_many_attributes_as_a_macro_takes(void **state)
{
    {
        PUG_SPAN("many", PUG_INT("a", 1), PUG_INT("b", 2), PUG_INT("c", 3), PUG_INT("d", 4),
                 PUG_INT("e", 5), PUG_INT("f", 6), PUG_INT("g", 7), PUG_INT("h", 8),
                 PUG_INT("i", 9), PUG_INT("j", 10), PUG_INT("k", 11), PUG_INT("l", 12));
    }
    drain();
    const struct span *s = find("many");
    assert_int_equal(s->attrs.n, PUG_ATTRS_MAX);
    assert_int_equal(s->attrs.items[PUG_ATTRS_MAX - 1].value.integer, 12);
    assert_int_equal(s->kind, PUG_KIND_INTERNAL);
}

static void columns_of_a_database_become_links(void **state)
{
    static const struct {
        const char *trace_id, *span_id;
    } rows[] = {{"0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"},
                {"", ""},
                {"0AF7651916CD43DD8448EB211C80319D", "B7AD6B7169203332"},
                {NULL, NULL},
                {"not hexadecimal", "b7ad6b7169203331"}};
    {
        PUG_SPAN("sse.emit_logs");
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
            struct pug_context of;
            if (pug_context_from_hex(&of, rows[i].trace_id, rows[i].span_id) == 0)
                pug_link(PUG_CURRENT, &of);
        }
    }
    drain();
    const struct span *s = find("sse.emit_logs");
    assert_int_equal(s->n_links, 2);
    assert_int_equal(s->links[0].trace_id.bytes[15], 0x9c);
    assert_int_equal(s->links[1].trace_id.bytes[15], 0x9d);
    assert_int_equal(s->links[1].span_id.bytes[7], 0x32);
}

static void a_request_id_stands_on_its_span(void **state)
{
    char id[PUG_REQUEST_ID_MAX + 1];
    struct pug_span handle;
    {
        PUG_SPAN("http.request");
        pug_request_id(PUG_CURRENT, NULL, NULL, NULL, NULL, id);
    }
    drain();
    assert_str_eq(attr(find("http.request"), "request.id")->string, str_from(id));
    pug_span_start(&handle, "http.handled");
    pug_request_id(&handle, NULL, NULL, NULL, NULL, id);
    pug_span_end(&handle);
    drain_rounds();
    assert_str_eq(attr(find("http.handled"), "request.id")->string, str_from(id));
}

static void nothing_is_said_where_nothing_is_open(void **state)
{
    pug_set_int(PUG_CURRENT, "n", 2);
    pug_event(PUG_CURRENT, "happened");
    (void)my_lane();
    pug_set_int(PUG_CURRENT, "n", 2);
    pug_event(PUG_CURRENT, "happened");
    drain();
    assert_int_equal(f.n, 0);
    assert_int_equal(f.assembler->lost_details, 0);
}

static void a_span_has_a_limited_number_of_attributes_events_and_links(void **state)
{
    struct pug_context to = {.trace_id = {1}, .span_id = {1}, .flags = 1};
    {
        PUG_SPAN("many");
        for (int i = 0; i < 200; i++) {
            char key[16];
            snprintf(key, sizeof key, "k%d", i);
            pug_set_int(PUG_CURRENT, key, i);
            pug_event(PUG_CURRENT, "e");
            pug_link(PUG_CURRENT, &to);
        }
    }
    drain();
    const struct span *s = find("many");
    assert_int_equal(s->attrs.n, ATTRS_MAX);
    assert_int_equal(s->attrs.dropped, 200 - ATTRS_MAX);
    assert_int_equal(s->n_events, EVENTS_MAX);
    assert_int_equal(s->dropped_events, 200 - EVENTS_MAX);
    assert_int_equal(s->n_links, LINKS_MAX);
    assert_int_equal(s->dropped_links, 200 - LINKS_MAX);
}

static void a_long_span_uses_the_long_record(void **state)
{
    struct lane *lane = my_lane();
    {
        PUG_SPAN("long ago", PUG_INT("n", 1));
        /* As if it had begun 2^40 ticks earlier. */
        lane->fast.top->start -= UINT64_C(1) << 40;
        PUG_SPAN("short");
    }
    drain();
    assert_true(span_duration_ns(find("long ago")) > 50 * 1000000000ull);
    assert_int_equal(attr(find("long ago"), "n")->integer, 1);
    assert_memory_equal(find("short")->parent_id.bytes, find("long ago")->span_id.bytes, 8);
}

static void values_that_record_spans_themselves_do_no_harm(void **state)
{
#define NOISY(n)                                                                                   \
    (__extension__({                                                                               \
        inner(0);                                                                                  \
        n;                                                                                         \
    }))
    {
        PUG_SPAN("outer", PUG_INT("a", NOISY(1)), PUG_INT("b", NOISY(2)));
    }
    drain();
    assert_int_equal(f.n, 3);
    assert_int_equal(attr(find("outer"), "a")->integer, 1);
    assert_int_equal(attr(find("outer"), "b")->integer, 2);
}

/* Promise 3: inner manual time <= span <= outer manual time, for every sample, by the same clock. */
static void a_span_lies_between_manual_stamps(void **state)
{
    enum { N = 1500 };
    static uint64_t stamps[N][4];
    uint32_t source = f.ticks.source;
    uint64_t seed = 7;
    for (int i = 0; i < N; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        stamps[i][0] = ticks_now(source);
        {
            PUG_SPAN("measured", PUG_INT("i", i));
            stamps[i][1] = ticks_now(source);
            for (uint64_t k = seed >> 52; k; k--)
                __asm__ volatile("");
            stamps[i][2] = ticks_now(source);
        }
        stamps[i][3] = ticks_now(source);
        if (i % 500 == 499)
            drain(); /* the map may change in between */
    }
    assert_int_equal(f.n, N);
    for (int i = 0; i < N; i++) {
        const struct span *s = &f.seen[i].span;
        uint64_t ns[4];
        for (int k = 0; k < 4; k++)
            ns[k] = ticks_to_ns(&f.ticks, stamps[i][k]);
        assert_true(ns[0] <= s->start_ns && s->start_ns <= ns[1]);
        assert_true(ns[2] <= s->end_ns && s->end_ns <= ns[3]);
        assert_true(ns[2] - ns[1] <= span_duration_ns(s) && span_duration_ns(s) <= ns[3] - ns[0]);
    }
}

/* ---- no room ---- */

static void a_full_ring_drops_pairs_and_counts_them(void **state)
{
    struct lane *lane = my_lane();
    int begun = 0;
    {
        PUG_SPAN("around");
        begun++;
        while (atomic_load(&lane->lost_ring_full) < 100) {
            PUG_SPAN("filler");
            begun++;
        }
        PUG_SPAN("lost parent", PUG_INT("n", 1));
        begun++;
        pug_set_int(PUG_CURRENT, "n", 2);
        drain(); /* there is room again */
        PUG_SPAN("child of the lost");
        begun++;
    }
    drain();
    assert_int_equal(f.assembler->recorded + atomic_load(&lane->lost_ring_full), begun);
    assert_int_equal(atomic_load(&lane->lost_ring_full), 101);
    find("around");
    assert_memory_equal(find("child of the lost")->trace_id.bytes, find("around")->trace_id.bytes,
                        16);
}

static void recurse(int depth)
{
    PUG_SPAN("deep");
    if (depth > 1)
        recurse(depth - 1);
}

static void too_deep_scopes_are_counted_and_the_rest_is_whole(void **state)
{
    recurse(PUG_DEPTH_MAX + 10);
    assert_int_equal(atomic_load(&my_lane()->lost_depth), 10);
    {
        PUG_SPAN("after");
    }
    drain();
    assert_int_equal(f.assembler->recorded, PUG_DEPTH_MAX + 1);
    assert_true(span_id_is_zero(&find("after")->parent_id));
}

static void a_full_ring_holds_the_ends_of_all_open_scopes(void **state)
{
    struct lane *lane = my_lane();
    struct pug__slot *first;
    {
        PUG_SPAN("bottom");
        first = lane->fast.top;
        /* Fill the ring exactly to its limit, with the stack as deep as it goes. */
        while (lane->fast.top < lane->fast.last - 1) {
            static struct pug__site site = {.name = "open", .file = "", .function = ""};
            struct pug__slot *s = pug__open(&lane->fast, &site);
            assert_non_null(s);
            pug__begin(&lane->fast, s);
        }
        while (!atomic_load(&lane->lost_ring_full)) {
            PUG_SPAN("filler");
        }
        pug__detach(first + 1); /* ends them all */
        assert_ptr_equal(lane->fast.top, first);
    }
    assert_true(lane->fast.head - atomic_load(&lane->tail) <= lane->ring_bytes);
    drain();
    assert_int_equal(f.assembler->lost_details, 0);
    find("bottom");
}

/* ---- what breaks the nesting ---- */

static jmp_buf back;

static void jumps_out(void)
{
    PUG_SPAN("left behind");
    longjmp(back, 1);
}

static __attribute__((noinline)) void lands(void)
{
    if (setjmp(back) == 0)
        jumps_out();
}

static void a_jump_over_scopes_ends_them_with_the_next_one(void **state)
{
    {
        PUG_SPAN("survivor");
        lands();
    }
    assert_ptr_equal(my_lane()->fast.top, my_lane()->slots);
    {
        PUG_SPAN("next");
    }
    drain();
    assert_int_equal(f.n, 3);
    assert_memory_equal(find("left behind")->parent_id.bytes, find("survivor")->span_id.bytes, 8);
    assert_true(span_id_is_zero(&find("next")->parent_id));
}

static volatile sig_atomic_t handled;

static void handler(int signal_)
{
    PUG_SPAN("handler", PUG_INT("signal", signal_));
    handled++;
}

static void *storm(void *arg)
{
    for (int i = 0; i < 3000; i++)
        pthread_kill(*(pthread_t *)arg, SIGUSR1);
    return NULL;
}

static void spans_in_a_signal_handler_leave_the_lane_whole(void **state)
{
    struct sigaction action = {.sa_handler = handler}, before;
    pthread_t self = pthread_self(), other;
    struct lane *lane = my_lane();
    uint64_t spans = 0;
    sigaction(SIGUSR1, &action, &before);
    handled = 0;
    pthread_create(&other, NULL, storm, &self);
    while (pthread_tryjoin_np(other, NULL) != 0) {
        for (int i = 0; i < 200; i++) {
            PUG_SPAN("interrupted", PUG_STR("text", "a value"), PUG_INT("i", i));
            spans++;
        }
        f.n = 0;
        drain();
        for (size_t i = 0; i < f.n; i++) {
            const struct span *s = &f.seen[i].span;
            if (str_eq(s->name, STR("interrupted")))
                assert_str_eq(attr(s, "text")->string, STR("a value"));
            else
                assert_int_equal(attr(s, "signal")->integer, SIGUSR1);
        }
    }
    sigaction(SIGUSR1, &before, NULL);
    drain();
    assert_int_equal(f.assembler->recorded + atomic_load(&lane->lost_interrupt) +
                         atomic_load(&lane->lost_ring_full),
                     spans + (uint64_t)handled);
    assert_ptr_equal(lane->fast.top, lane->slots);
    assert_true(handled > 0);
}

/* ---- contexts ---- */

static struct pug_context remote_context(uint8_t flags)
{
    struct pug_context c = {.trace_id = {0xaa, 1},
                            .span_id = {0xbb, 2},
                            .flags = flags,
                            .remote = 1,
                            .tracestate_len = 3,
                            .tracestate = "a=1"};
    return c;
}

static void spans_continue_a_remote_trace(void **state)
{
    struct pug_context c = remote_context(PUG_FLAG_SAMPLED), seen;
    {
        PUG_SPAN_FROM(&c, "server", PUG_INT("n", 1));
        PUG_SPAN("below");
        seen = pug_context_current();
    }
    {
        PUG_SPAN("elsewhere");
    }
    drain();
    const struct span *server = find("server"), *below = find("below");
    assert_memory_equal(server->trace_id.bytes, c.trace_id, 16);
    assert_memory_equal(server->parent_id.bytes, c.span_id, 8);
    assert_int_equal(server->flags, 0x300 | PUG_FLAG_SAMPLED);
    assert_str_eq(server->trace_state, STR("a=1"));
    assert_memory_equal(below->trace_id.bytes, c.trace_id, 16);
    assert_memory_equal(below->parent_id.bytes, server->span_id.bytes, 8);
    assert_int_equal(below->flags, 0x100 | PUG_FLAG_SAMPLED);
    assert_memory_equal(seen.trace_id, c.trace_id, 16);
    assert_memory_equal(seen.span_id, below->span_id.bytes, 8);
    assert_int_equal(seen.tracestate_len, 3);
    assert_int_equal(seen.remote, 0);
    assert_true(span_id_is_zero(&find("elsewhere")->parent_id));
    assert_int_equal(my_lane()->n_contexts, 0);
}

static void no_context_is_the_current_one(void **state)
{
    struct pug_context none = {.flags = 1};
    {
        PUG_SPAN("parent");
        PUG_SPAN_FROM(&none, "child");
        PUG_SPAN_FROM(NULL, "grandchild");
    }
    drain();
    assert_memory_equal(find("child")->parent_id.bytes, find("parent")->span_id.bytes, 8);
    assert_memory_equal(find("grandchild")->parent_id.bytes, find("child")->span_id.bytes, 8);
}

static void what_the_sender_did_not_sample_is_not_recorded_and_passed_on(void **state)
{
    struct pug_context c = remote_context(0), seen;
    struct pug_span handle;
    {
        PUG_SPAN_FROM(&c, "unsampled", PUG_INT("n", 1));
        pug_set_int(PUG_CURRENT, "m", 1);
        pug_event(PUG_CURRENT, "e");
        pug_span_start(&handle, "handle");
        seen = pug_context_current();
    }
    pug_span_end(&handle);
    drain();
    drain();
    assert_int_equal(f.n, 0);
    assert_memory_equal(seen.trace_id, c.trace_id, 16);
    assert_int_equal(seen.flags, 0);
    assert_memory_not_equal(seen.span_id, c.span_id, 8);
    assert_int_equal(handle.context.flags, 0);
    assert_int_equal(f.assembler->recorded, 0);
}

static void contexts_nest_and_detach_in_order(void **state)
{
    struct pug_context a = remote_context(1), b = remote_context(1);
    b.trace_id[0] = 0xcc;
    pug_attachment outer = pug_context_attach(&a);
    {
        PUG_SPAN("a1");
    }
    pug_attachment nested = pug_context_attach(&b);
    {
        PUG_SPAN("b1");
    }
    pug_context_detach(nested);
    {
        PUG_SPAN("a2");
    }
    pug_context_detach(outer);
    assert_false(pug_context_valid(&(struct pug_context){.flags = 0}));
    struct pug_context now = pug_context_current();
    assert_false(pug_context_valid(&now));
    drain();
    assert_memory_equal(find("a1")->trace_id.bytes, a.trace_id, 16);
    assert_memory_equal(find("b1")->trace_id.bytes, b.trace_id, 16);
    assert_memory_equal(find("a2")->trace_id.bytes, a.trace_id, 16);
}

static void more_contexts_than_there_is_room_for_do_no_harm(void **state)
{
    struct pug_context c = remote_context(1);
    pug_attachment at[LANE_CONTEXTS_MAX + 3];
    for (int i = 0; i < LANE_CONTEXTS_MAX + 3; i++)
        at[i] = pug_context_attach(&c);
    assert_null(at[LANE_CONTEXTS_MAX]);
    {
        PUG_SPAN("in");
    }
    for (int i = LANE_CONTEXTS_MAX + 3; i-- > 0;)
        pug_context_detach(at[i]);
    assert_ptr_equal(my_lane()->fast.top, my_lane()->slots);
    drain();
    assert_memory_equal(find("in")->trace_id.bytes, c.trace_id, 16);
}

/* ---- handles ---- */

static void *end_it(void *span)
{
    pug_set_int(span, "ended by", 2);
    pug_span_end(span);
    pug_set_int(span, "too late", 1);
    pug_span_end(span);
    return NULL;
}

static void a_handle_ends_on_another_thread(void **state)
{
    struct pug_span span;
    pthread_t other;
    {
        PUG_SPAN("starter");
        pug_span_start(&span, "handle", PUG_STR("where", "here"), PUG_KIND(PUG_KIND_CLIENT));
        pug_event(&span, "sent", PUG_INT("bytes", 5));
        pug_error(&span, "late");
    }
    pthread_create(&other, NULL, end_it, &span);
    pthread_join(other, NULL);
    drain();
    drain();
    const struct span *s = find("handle"), *starter = find("starter");
    assert_memory_equal(s->parent_id.bytes, starter->span_id.bytes, 8);
    assert_memory_equal(s->trace_id.bytes, starter->trace_id.bytes, 16);
    assert_memory_equal(s->span_id.bytes, span.context.span_id, 8);
    assert_int_equal(s->attrs.n, 2);
    assert_str_eq(attr(s, "where")->string, STR("here"));
    assert_int_equal(attr(s, "ended by")->integer, 2);
    assert_int_equal(s->n_events, 1);
    assert_int_equal(s->status_code, STATUS_ERROR);
    assert_int_equal(s->kind, SPAN_KIND_CLIENT);
    assert_int_equal(f.n, 2);
    assert_int_equal(f.assembler->n_handles, 0);
}

static void a_handle_can_be_made_current(void **state)
{
    struct pug_span span;
    pug_span_start(&span, "request");
    {
        PUG_ATTACH(&span.context);
        pug_set_int(PUG_CURRENT, "through current", 1);
        PUG_SPAN("work");
    }
    pug_span_end(&span);
    drain();
    drain();
    const struct span *request = find("request"), *work_ = find("work");
    assert_memory_equal(work_->parent_id.bytes, request->span_id.bytes, 8);
    assert_memory_equal(work_->trace_id.bytes, request->trace_id.bytes, 16);
    assert_int_equal(attr(request, "through current")->integer, 1);
    assert_int_equal(work_->flags & 0x200, 0);
}

static void a_handle_started_from_a_context_is_its_child(void **state)
{
    struct pug_context c = remote_context(1);
    struct pug_span span;
    pug_span_start_from(&span, &c, "handle");
    assert_memory_equal(span.context.trace_id, c.trace_id, 16);
    assert_int_equal(span.context.tracestate_len, 3);
    pug_span_end(&span);
    drain();
    drain();
    const struct span *s = find("handle");
    assert_memory_equal(s->parent_id.bytes, c.span_id, 8);
    assert_str_eq(s->trace_state, STR("a=1"));
    assert_int_equal(s->flags, 0x300 | PUG_FLAG_SAMPLED);
}

static void many_handles_at_once_find_their_words(void **state)
{
    enum { N = 300 };
    struct pug_span *spans = calloc(N, sizeof *spans);
    for (int i = 0; i < N; i++)
        pug_span_start(&spans[i], "many", PUG_INT("i", i));
    drain();
    for (int i = N; i-- > 0;)
        pug_set_int(&spans[i], "twice", 2 * i);
    drain();
    for (int i = 0; i < N; i += 2)
        pug_span_end(&spans[i]);
    drain();
    for (int i = 1; i < N; i += 2)
        pug_span_end(&spans[i]);
    drain();
    drain();
    assert_int_equal(f.n, N);
    for (int i = 0; i < N; i++)
        assert_int_equal(attr(&f.seen[i].span, "twice")->integer,
                         2 * attr(&f.seen[i].span, "i")->integer);
    assert_int_equal(f.assembler->n_handles, 0);
    free(spans);
}

static void words_about_a_span_that_is_no_handle_are_forgotten(void **state)
{
    struct pug_context c = remote_context(1);
    c.remote = 0;
    {
        PUG_ATTACH(&c);
        pug_set_int(PUG_CURRENT, "whose", 1);
    }
    for (int i = 0; i < 4; i++)
        drain();
    assert_int_equal(f.n, 0);
    assert_int_equal(f.assembler->n_handles, 0);
    assert_int_equal(f.assembler->lost_details, 1);
}

/* ---- what did not end ---- */

static void open_spans_are_written_as_unfinished_once(void **state)
{
    struct pug_span span;
    {
        PUG_SPAN("open outer", PUG_INT("n", 1));
        PUG_SPAN("open inner");
        pug_span_start(&span, "open handle");
        drain();
        drain();
        assert_int_equal(f.n, 0);
        uint64_t now = ticks_now(f.ticks.source);
        assembler_unfinished_lane(f.assembler, f.assembler->readers[my_lane()->index], now);
        assembler_unfinished_handles(f.assembler, now);
        assembler_flush(f.assembler);
        assert_int_equal(f.n, 3);
        assert_true(attr(find("open outer"), "pugmark.unfinished")->boolean);
        assert_int_equal(attr(find("open outer"), "n")->integer, 1);
        assert_memory_equal(find("open inner")->parent_id.bytes, find("open outer")->span_id.bytes,
                            8);
        assert_true(attr(find("open handle"), "pugmark.unfinished")->boolean);
    }
    {
        PUG_SPAN("after");
    }
    drain();
    assert_int_equal(f.n, 4);
}

static void a_lane_goes_from_thread_to_thread(void **state)
{
    struct pug_span span;
    struct memory *m = atomic_load(&sdk.memory);
    uint32_t n = atomic_load(&m->n_lanes);
    pthread_t other;
    pug_span_start(&span, "handle");
    pthread_create(&other, NULL, end_it, &span);
    pthread_join(other, NULL);
    uint32_t gone = 0;
    for (uint32_t i = 0; i < n; i++)
        gone += atomic_load(&atomic_load(&m->lanes[i])->state) == LANE_LEFT;
    assert_int_equal(gone, 1);
}

static void threads_without_a_lane_count_what_they_lose(void **state)
{
    struct memory *m = atomic_load(&sdk.memory);
    uint32_t n = atomic_load(&m->n_lanes);
    for (uint32_t i = 0; i < n; i++)
        atomic_store(&atomic_load(&m->lanes[i])->state, LANE_LEFT);
    {
        PUG_SPAN("nowhere");
        pug_set_int(PUG_CURRENT, "n", 1);
    }
    assert_int_equal(atomic_load(&m->lost_no_lane), 1);
    assert_null(pug__lane_1);
}

/* A reader that knows only the file: it finds the open spans of a process that was killed. */
static void open_spans_can_be_read_after_kill_9(void **state)
{
    int ready[2], fd = atomic_load(&sdk.memory)->fd.fd;
    char byte;
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) {
        PUG_SPAN("killed outer");
        PUG_SPAN("killed inner");
        if (write(ready[1], "x", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    /* The test's memory has no fork handler: the child wrote into this very file. */
    static struct memory_head head;
    static struct lane lane;
    bool found = false;
    assert_int_equal(pread(fd, &head, sizeof head, 0), sizeof head);
    assert_true(head.magic == MEMORY_MAGIC);
    for (uint32_t i = 0; i < head.n_lanes && !found; i++) {
        off_t at = (off_t)(head.lanes_at + (uint64_t)i * head.lane_stride);
        struct site_view site;
        assert_int_equal(pread(fd, &lane, sizeof lane, at), sizeof lane);
        uint64_t depth = ((uintptr_t)lane.fast.top - lane.self - offsetof(struct lane, slots)) /
                         sizeof(struct pug__slot);
        if (depth != 2)
            continue;
        assert_int_equal(memory_site(&head, lane.slots[1].site, &site), 0);
        assert_str_eq(site.name, STR("killed outer"));
        assert_int_equal(memory_site(&head, lane.slots[2].site, &site), 0);
        assert_str_eq(site.name, STR("killed inner"));
        assert_true(lane.slots[1].start <= lane.slots[2].start);
        found = true;
    }
    assert_true(found);
    close(ready[0]);
    close(ready[1]);
}

/* ---- the table of sites ---- */

static void a_full_table_of_sites_has_one_name_for_the_rest(void **state)
{
    struct memory_head *head = atomic_load(&sdk.memory)->head;
    struct site_view view;
    uint32_t id = 0;
    static struct pug__site site;
    for (uint32_t i = 0; i < SITES_MAX + 10; i++) {
        site = (struct pug__site){.name = "n", .file = "f", .function = "g"};
        id = lane_intern(head, &site);
    }
    assert_int_equal(id, 1);
    assert_int_equal(memory_site(head, id, &view), 0);
    assert_str_eq(view.name, STR("(too many sites)"));
    assert_int_equal(memory_site(head, SITES_MAX, &view), ERR_NOT_FOUND);
    assert_int_equal(memory_site(head, 0, &view), ERR_NOT_FOUND);
}

static void a_ring_that_was_written_over_is_passed_over(void **state)
{
    struct lane *lane = my_lane();
    {
        PUG_SPAN("first");
    }
    memset(lane->fast.ring, 0xff, 16);
    drain();
    {
        PUG_SPAN("second");
    }
    drain();
    assert_int_equal(f.n, 1);
    find("second");
    assert_true(f.assembler->lost_details > 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_scope_is_a_span_with_its_attributes),
        TEST(a_span_that_ends_before_it_begins_lasts_0_and_is_told_once),
        TEST(strings_of_every_length_arrive),
        TEST(a_long_string_is_cut_between_characters),
        TEST(spans_nest),
        TEST(ids_are_different),
        TEST(what_is_said_later_is_there),
        TEST(a_batch_has_a_link_to_each_record_it_took_in),
        TEST(a_record_without_or_with_a_damaged_trace_begins_a_trace_and_is_counted),
        TEST(a_span_has_a_kind_and_as_many_attributes_as_a_macro_takes),
        TEST(columns_of_a_database_become_links),
        TEST(a_request_id_stands_on_its_span),
        TEST(nothing_is_said_where_nothing_is_open),
        TEST(a_span_has_a_limited_number_of_attributes_events_and_links),
        TEST(a_long_span_uses_the_long_record),
        TEST(values_that_record_spans_themselves_do_no_harm),
        TEST(a_span_lies_between_manual_stamps),
        TEST(a_full_ring_drops_pairs_and_counts_them),
        TEST(too_deep_scopes_are_counted_and_the_rest_is_whole),
        TEST(a_full_ring_holds_the_ends_of_all_open_scopes),
        TEST(a_jump_over_scopes_ends_them_with_the_next_one),
        TEST(spans_in_a_signal_handler_leave_the_lane_whole),
        TEST(spans_continue_a_remote_trace),
        TEST(no_context_is_the_current_one),
        TEST(what_the_sender_did_not_sample_is_not_recorded_and_passed_on),
        TEST(contexts_nest_and_detach_in_order),
        TEST(more_contexts_than_there_is_room_for_do_no_harm),
        TEST(a_handle_ends_on_another_thread),
        TEST(a_handle_can_be_made_current),
        TEST(a_handle_started_from_a_context_is_its_child),
        TEST(many_handles_at_once_find_their_words),
        TEST(words_about_a_span_that_is_no_handle_are_forgotten),
        TEST(open_spans_are_written_as_unfinished_once),
        TEST(a_lane_goes_from_thread_to_thread),
        TEST(threads_without_a_lane_count_what_they_lose),
        TEST(open_spans_can_be_read_after_kill_9),
        TEST(a_ring_that_was_written_over_is_passed_over),
        /* Last: the tests share one table. */
        TEST(a_full_table_of_sites_has_one_name_for_the_rest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
