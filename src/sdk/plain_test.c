/* Spans that are encoded from their records are the same bytes as those that are assembled first: random
 * programs are recorded, and their records are read twice. PUGMARK_TEST_SEED repeats one. */
#include "sdk/lanes_fixture.h"

#include "wire/chrome_place.h"
#include "wire/otlp_place.h"

#define LONG_TEXT 3000
#define PROGRAMS 200
#define ROUNDS_MAX 64

static uint64_t random_state;

static uint64_t random_next(void)
{
    random_state += UINT64_C(0x9e3779b97f4a7c15);
    return hash_mix64(random_state);
}

static unsigned draw(unsigned below)
{
    return (unsigned)(random_next() % below);
}

/* ---- the two ways ---- */

enum format { OTLP, CHROME };

static struct way {
    enum format format;
    struct buf out;
    size_t n_plain, n_general;
} way;

static const struct chrome_process process = {.pid = 4711, .base_ns = 1000};

static void take_batch(void *user, const struct taken_batch *batch)
{
    (void)user;
    for (size_t i = 0; i < batch->spans.n; i++) {
        if (way.format == OTLP)
            otlp_encode_span(&batch->spans.spans[i], &way.out);
        else
            chrome_span(&process, &batch->spans.spans[i], batch->taken[i].thread,
                        batch->taken[i].handle, &way.out);
    }
    way.n_general += batch->spans.n;
}

static void *prepare(void *user, const struct plain_place *place)
{
    (void)user;
    return way.format == OTLP ? (void *)otlp_place_new(place)
                              : (void *)chrome_place_new(&process, place);
}

static bool take_plain(void *user, const struct reader_site *site, const struct plain_span *span)
{
    (void)user;
    bool ok = way.format == OTLP ? otlp_place_encode(site->place, span, &way.out)
                                 : chrome_place_encode(site->place, &process, span, &way.out);
    way.n_plain += ok;
    return ok;
}

/* ---- a random program ---- */

static struct {
    uint64_t heads[ROUNDS_MAX]; /* of the ring, where a round of the drain ends */
    size_t n_rounds;
    struct pug_span handles[4];
    bool open[4];
} program;

static void round_ends(void)
{
    struct lane *lane = atomic_load(&lanes.memory->lanes[0]);
    if (program.n_rounds < ROUNDS_MAX)
        program.heads[program.n_rounds++] = __atomic_load_n(&lane->fast.head, __ATOMIC_ACQUIRE);
}

static const char *text_draw(size_t *ret_len)
{
    static char text[LONG_TEXT];
    static const char bytes[] =
        "abcdefghijklmnopqrstuvwxyz/0123 \"\\\n\x7f\x01\xc3\xa9\xff\xe2\x82\xac";
    static const size_t lens[] = {
        0, 1, 7, 8, 9, 15, 16, 17, 100, 130, PUG_STR_MAX - 1, PUG_STR_MAX, LONG_TEXT};
    size_t n = draw(3)   ? draw(20)
               : draw(2) ? 100 + draw(30)
                         : lens[draw(sizeof lens / sizeof lens[0])];
    unsigned alphabet = draw(4) ? 32 : (unsigned)sizeof bytes - 1;
    for (size_t i = 0; i < n; i++)
        text[i] = bytes[draw(alphabet)];
    if (draw(8) == 0) /* whole characters that are no ASCII */
        for (size_t i = 0; i + 2 <= n; i += 2)
            memcpy(text + i, "\xc3\xa9", 2);
    *ret_len = n;
    return text;
}

static int64_t number_draw(void)
{
    return draw(3) ? (int64_t)draw(300) : (int64_t)(random_next() >> draw(64)) * (draw(2) ? 1 : -1);
}

static double real_draw(void)
{
    static const double odd[] = {0.0, -0.0, 0.1, 1e300, -1.5, 3.0};
    uint64_t bits = random_next();
    double d;
    memcpy(&d, &bits, sizeof d);
    return draw(2) ? odd[draw(6)] : d;
}

static struct pug_context context_draw(void)
{
    struct pug_context c = {.flags = (uint8_t)(PUG_FLAG_SAMPLED | (draw(2) ? PUG_FLAG_RANDOM : 0)),
                            .remote = (uint8_t)draw(2)};
    static const char *const states[] = {"", "a=1", "vendor=x,ot=th:8;rv:abcdef01234567", "q=\\"};
    const char *state = states[draw(4)];
    uint64_t ids[3] = {random_next(), random_next(), random_next() | 1};
    memcpy(c.trace_id, ids, 16);
    memcpy(c.span_id, ids + 2, 8);
    c.tracestate_len = (uint16_t)strlen(state);
    memcpy(c.tracestate, state, c.tracestate_len);
    return c;
}

static void say_something(struct pug_span *about)
{
    size_t n;
    const char *text = text_draw(&n);
    struct pug_context other = context_draw();
    switch (draw(7)) {
    case 0:
        pug_set_int(about, "late", number_draw());
        break;
    case 1:
        pug_set_strn(about, "number", text, n);
        break;
    case 2:
        pug_event(about, "happened", PUG_INT("n", number_draw()), PUG_STRN("text", text, n));
        break;
    case 3:
        pug_link(about, &other);
        break;
    case 4:
        pug_status(about, PUG_STATUS_ERROR, "it did not go well");
        break;
    case 5:
        pug_set_name(about, "another name");
        break;
    default:
        pug_set_bool(about, "late", 1);
        break;
    }
}

static void handle_step(void)
{
    unsigned i = draw(4);
    size_t n;
    const char *text = text_draw(&n);
    if (!program.open[i])
        pug_span_start(&program.handles[i], "handle", PUG_STRN("text", text, n));
    else if (draw(2))
        say_something(&program.handles[i]);
    else
        pug_span_end(&program.handles[i]);
    if (!program.open[i] || !program.handles[i].pug__state)
        program.open[i] = !program.open[i];
}

static void step(unsigned depth);

static void inside(unsigned depth)
{
    if (draw(6) == 0)
        say_something(PUG_CURRENT);
    if (draw(12) == 0)
        handle_step();
    for (unsigned n = depth < 8 ? draw(3) : 0; n; n--)
        step(depth + 1);
    if (draw(10) == 0)
        round_ends();
    if (draw(10) == 0)
        say_something(PUG_CURRENT);
}

static void step(unsigned depth)
{
    size_t n;
    const char *text = text_draw(&n);
    struct pug_context c = context_draw();
    switch (draw(9)) {
    case 0: {
        PUG_SPAN("bare");
        inside(depth);
        break;
    }
    case 1: {
        PUG_SPAN("number", PUG_INT("number", number_draw()));
        inside(depth);
        break;
    }
    case 2: {
        PUG_SPAN("text \"quoted\"", PUG_STRN("text", text, n), PUG_KIND(PUG_KIND_CLIENT));
        inside(depth);
        break;
    }
    case 3: {
        PUG_SPAN("all", PUG_BOOL("yes", draw(2)), PUG_DOUBLE("real", real_draw()),
                 PUG_STRN("text", text, n), PUG_INT("number", number_draw()));
        inside(depth);
        break;
    }
    case 4: {
        PUG_SPAN("the last word counts", PUG_INT("same", 1), PUG_INT("other", 2),
                 PUG_STRN("same", text, n));
        inside(depth);
        break;
    }
    case 5: {
        PUG_SPAN(
            "a name of more than a hundred and twenty-eight bytes, which makes the length of all "
            "that "
            "is around it one byte longer than it is for others",
            PUG_STR(
                "a key that is long enough to make the attribute around it longer than a hundred "
                "and twenty-eight bytes as well, with its value",
                "v"),
            PUG_INT("", 5));
        inside(depth);
        break;
    }
    case 6: {
        PUG_SPAN_FROM(&c, "from", PUG_STRN("text", text, n), PUG_KIND(PUG_KIND_SERVER));
        inside(depth);
        break;
    }
    case 7: {
        PUG_ATTACH(&c);
        inside(depth);
        break;
    }
    default: {
        PUG_SPAN("twelve", PUG_INT("a", 1), PUG_INT("b", -1), PUG_INT("c", number_draw()),
                 PUG_STR("d", ""), PUG_STR("e", "e"), PUG_BOOL("f", 1), PUG_BOOL("g", 0),
                 PUG_DOUBLE("h", 0.5), PUG_INT("i", INT64_MIN), PUG_INT("j", INT64_MAX),
                 PUG_STR("k", "sixteen bytes it"), PUG_STR("l", NULL));
        inside(depth);
        break;
    }
    }
}

/* ---- reading it ---- */

static struct buf read_all(enum format format, bool plain)
{
    struct assembler *a;
    struct lane *lane = atomic_load(&lanes.memory->lanes[0]);
    const struct plain_taker taker = {prepare, take_plain};
    way = (struct way){.format = format};
    assert_int_equal(assembler_new(lanes.memory, &lanes.config, &lanes.ticks, take_batch, NULL, &a),
                     0);
    if (plain)
        assembler_plain(a, &taker);
    atomic_store(&lane->tail, 0);
    struct lane_reader *r = assembler_reader(a, 0);
    for (size_t i = 0; i < program.n_rounds; i++) {
        r->head = program.heads[i];
        assembler_lane(a, r);
        assembler_round(a);
        if (i % 3 == 0)
            assembler_flush(a);
    }
    assembler_unfinished_lane(a, r, ticks_now(lanes.ticks.source));
    assembler_flush(a);
    assembler_free(a);
    assert_true(buf_ok(&way.out));
    return way.out;
}

/* Shows where they part. */
static void assert_same(struct buf *plain, struct buf *general, uint64_t seed)
{
    size_t n = plain->len < general->len ? plain->len : general->len, i = 0;
    while (i < n && plain->ptr[i] == general->ptr[i])
        i++;
    if (i < n || plain->len != general->len) {
        size_t from = i < 60 ? 0 : i - 60;
        fail_msg("seed %llu: at byte %zu of %zu and %zu:\n%.*s\n%.*s", (unsigned long long)seed, i,
                 plain->len, general->len, (int)(plain->len - from < 160 ? plain->len - from : 160),
                 plain->ptr + from, (int)(general->len - from < 160 ? general->len - from : 160),
                 general->ptr + from);
    }
    buf_done(plain);
    buf_done(general);
}

static void record_program(uint64_t seed)
{
    random_state = seed;
    memset(&program, 0, sizeof program);
    lanes_start(NULL, 0);
    struct lane *lane = NULL;
    do { /* a quarter of the ring, and none of it twice */
        step(0);
        lane = atomic_load(&lanes.memory->lanes[0]);
    } while (program.n_rounds < ROUNDS_MAX / 2 && lane->fast.head < lane->ring_bytes / 4);
    nanosleep(&(struct timespec){.tv_nsec = 100}, NULL);
    round_ends();
    ticks_update(&lanes.ticks, &lanes.memory->head->clock);
}

static void spans_from_their_records_are_the_same_bytes_as_spans_that_are_assembled(void **state)
{
    const char *text = getenv("PUGMARK_TEST_SEED");
    uint64_t seed = text ? strtoull(text, NULL, 10) : 1, n_plain = 0, n_general = 0;
    for (int k = 0; k < (text ? 1 : PROGRAMS); k++, seed++) {
        record_program(seed);
        for (enum format f = OTLP; f <= CHROME; f++) {
            struct buf plain = read_all(f, true);
            n_plain += way.n_plain;
            n_general += way.n_general;
            size_t n = way.n_plain + way.n_general;
            struct buf general = read_all(f, false);
            assert_int_equal(way.n_plain, 0);
            assert_int_equal(way.n_general, n);
            assert_same(&plain, &general, seed);
        }
        lanes_stop();
        lanes_forget();
    }
    /* Both ways were gone. */
    assert_true(n_plain > n_general / 8);
    assert_true(n_general > n_plain / 8);
}

/* ---- without memory ---- */

/* Put between the library and the allocator in this program. */
static bool no_memory;
void *__real_malloc(size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_malloc(size_t n)
{
    return no_memory ? NULL : __real_malloc(n);
}
void *__real_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size)
{
    return no_memory ? NULL : __real_calloc(n, size);
}

static struct span told[4];
static size_t n_told;

static void tell_spans(void *user, const struct taken_batch *batch)
{
    (void)user;
    for (size_t i = 0; i < batch->spans.n && n_told < 4; i++)
        told[n_told++] = batch->spans.spans[i];
}

static void no_memory_costs_details_and_never_the_trace(void **state)
{
    struct assembler *a;
    struct pug_context c = {.trace_id = "a trace of many", .span_id = "parent_", .flags = 1};
    memcpy(c.tracestate, "a=1", c.tracestate_len = 3);
    lanes_start(NULL, 0);
    {
        PUG_SPAN_FROM(&c, "from", PUG_INT("number", 1));
        PUG_SPAN("inner");
        pug_event(PUG_CURRENT, "happened");
    }
    ticks_update(&lanes.ticks, &lanes.memory->head->clock);
    assert_int_equal(assembler_new(lanes.memory, &lanes.config, &lanes.ticks, tell_spans, NULL, &a),
                     0);
    struct lane_reader *r = assembler_reader(a, 0);
    r->head = r->lane->fast.head;
    n_told = 0;
    no_memory = true;
    assembler_lane(a, r);
    assembler_flush(a);
    no_memory = false;
    assert_int_equal(n_told, 2);
    for (size_t i = 0; i < n_told; i++)
        assert_memory_equal(told[i].trace_id.bytes, c.trace_id, 16);
    assert_memory_equal(told[1].parent_id.bytes, c.span_id, 8);
    assert_int_equal(a->recorded, 2);
    assert_int_equal(a->lost_memory, 0);
    assert_true(a->lost_details >= 3); /* the state, the attribute, the event */
    assembler_free(a);
    lanes_stop();
    lanes_forget();
}

/* ---- edges ---- */

static const struct plain_place place = {
    .name = STR("n"), .kind = SPAN_KIND_INTERNAL, .n_keys = 1, .keys = {{STR("k"), VALUE_STRING}}};

static void values_that_are_cut_short_are_not_plain(void **state)
{
    struct otlp_place *o = otlp_place_new(&place);
    struct chrome_place *c = chrome_place_new(&process, &place);
    for (size_t n = 0; n <= 24; n++) {
        /* On the heap, so that a look behind the end is seen. */
        char *values = malloc(24);
        uint64_t len = 9;
        memcpy(values, &len, 8);
        memcpy(values + 8, "nine char\0\0\0\0\0\0\0", 16);
        char *exact = malloc(n ? n : 1);
        memcpy(exact, values, n);
        struct plain_span s = {.start_ns = 1, .end_ns = 2, .values = exact, .n_values = n};
        struct buf b = BUF_INIT;
        assert_int_equal(otlp_place_encode(o, &s, &b), n == 24);
        assert_int_equal(b.len != 0, n == 24);
        buf_clear(&b);
        assert_int_equal(chrome_place_encode(c, &process, &s, &b), n == 24);
        assert_int_equal(b.len != 0, n == 24);
        buf_done(&b);
        free(values);
        free(exact);
    }
    free(o);
    free(c);
}

static void a_length_beyond_the_record_is_not_plain(void **state)
{
    struct otlp_place *o = otlp_place_new(&place);
    static const uint64_t lens[] = {17, PUG_STR_MAX, UINT64_MAX, UINT64_MAX - 7, UINT64_C(1) << 63};
    for (size_t i = 0; i < sizeof lens / sizeof lens[0]; i++) {
        char values[24] = {0};
        struct buf b = BUF_INIT;
        memcpy(values, &lens[i], 8);
        struct plain_span s = {.values = values, .n_values = sizeof values};
        assert_false(otlp_place_encode(o, &s, &b));
        assert_int_equal(b.len, 0);
        buf_done(&b);
    }
    free(o);
}

static void without_memory_the_failure_is_in_the_buffer(void **state)
{
    struct otlp_place *o = otlp_place_new(&place);
    struct plain_span s = {.start_ns = 1, .end_ns = 2};
    struct buf b = {.bytes_max = 8};
    assert_true(otlp_place_encode(o, &s, &b));
    assert_false(buf_ok(&b));
    buf_done(&b);
    free(o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(spans_from_their_records_are_the_same_bytes_as_spans_that_are_assembled),
        cmocka_unit_test(no_memory_costs_details_and_never_the_trace),
        cmocka_unit_test(values_that_are_cut_short_are_not_plain),
        cmocka_unit_test(a_length_beyond_the_record_is_not_plain),
        cmocka_unit_test(without_memory_the_failure_is_in_the_buffer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
