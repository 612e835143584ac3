#include "base/test.h"

#include "base/clock.h"
#include "base/hash.h"
#include "store/local/ids.h"
#include "store/local/segment.h"

#include <fcntl.h>
#include <unistd.h>

enum { N = 5000 };

static uint64_t random_state;

static uint64_t draw(void)
{
    random_state++;
    return hash_bytes(&random_state, sizeof random_state); /* not by the permutation itself */
}

static int seed(void **state)
{
    random_state = clock_realtime_ns();
    print_message("# seed %llu\n", (unsigned long long)random_state);
    return 0;
}

static void put_id(uint8_t *to, uint64_t id)
{
    for (int i = 7; i >= 0; i--, id >>= 8)
        to[i] = (uint8_t)id;
}

/* As libpugmark makes them: a key for each process, a counter for each thread. */
static void derive(uint8_t *ids, size_t n, unsigned processes, unsigned threads)
{
    uint64_t keys[16], counters[16][8] = {{0}};
    for (unsigned p = 0; p < processes; p++)
        keys[p] = draw();
    for (size_t i = 0; i < n; i++) {
        unsigned p = (unsigned)(draw() % processes), t = (unsigned)(draw() % threads);
        put_id(ids + 8 * i, hash_mix64(keys[p] + ((uint64_t)t << 48) + counters[p][t]++));
    }
}

static size_t column_round_trip(const uint8_t *ids, size_t n, bool traces)
{
    struct stream_writer w;
    struct buf out = BUF_INIT;
    struct arena arena = ARENA_INIT;
    assert_int_equal(stream_writer_init(&w), 0);
    (traces ? ids_put_traces : ids_put)(&w, &out, ids, n);
    assert_true(buf_ok(&out));
    struct codec_reader r = codec_reader(buf_as_str(&out), &arena);
    const uint8_t *got = (traces ? ids_get_traces : ids_get)(&r, n);
    assert_int_equal(codec_finish(&r), 0);
    assert_memory_equal(got, ids, (traces ? 16 : 8) * n);
    size_t size = out.len;
    buf_done(&out);
    arena_done(&arena);
    stream_writer_done(&w);
    return size;
}

static void ids_from_counters_cost_little_and_come_back(void **state)
{
    static uint8_t ids[8 * N];
    derive(ids, N, 1, 1);
    assert_in_range(column_round_trip(ids, N, false), 1, 40);
    derive(ids, N, 10, 4);
    assert_in_range(column_round_trip(ids, N, false), 1, 2 * N);
}

static void ids_that_were_drawn_cost_what_they_are(void **state)
{
    static uint8_t ids[8 * N];
    for (size_t i = 0; i < N; i++)
        put_id(ids + 8 * i, draw());
    for (size_t n = 0; n <= N; n = n * 2 + 1)
        assert_int_equal(column_round_trip(ids, n, false), 8 * n);
}

static void a_mixture_comes_back_and_only_what_was_drawn_is_dear(void **state)
{
    static uint8_t ids[8 * N];
    derive(ids, N, 3, 2);
    for (size_t i = 0; i < N; i += 4)
        put_id(ids + 8 * i, draw());
    assert_in_range(column_round_trip(ids, N, false), 8 * N / 4, 8 * N / 4 + 2 * N);
}

static void the_same_id_many_times_and_the_ends_of_the_range_come_back(void **state)
{
    uint8_t ids[8 * 64];
    for (size_t i = 0; i < 64; i++)
        put_id(ids + 8 * i, hash_mix64(i % 3 ? UINT64_MAX - i % 5 : i % 7));
    column_round_trip(ids, 64, false);
    memset(ids, 0xff, sizeof ids);
    assert_in_range(column_round_trip(ids, 64, false), 1, 40);
}

static void ids_of_traces_come_back_from_counters_and_from_dice(void **state)
{
    static uint8_t ids[16 * 1024];
    uint64_t high = draw(), low = draw();
    for (size_t i = 0; i < 1024; i++) {
        put_id(ids + 16 * i, hash_mix64(high + i * 7));
        put_id(ids + 16 * i + 8, hash_mix64(low + i * 7));
    }
    assert_in_range(column_round_trip(ids, 1024, true), 1, 256);
    for (size_t i = 0; i < 2 * 1024; i++)
        put_id(ids + 8 * i, draw());
    assert_in_range(column_round_trip(ids, 1024, true), 16 * 1024, 16 * 1024 + 8);
}

static void damage_fails_or_reads_but_never_runs_over(void **state)
{
    static uint8_t ids[8 * 300];
    struct stream_writer w;
    struct buf out = BUF_INIT;
    assert_int_equal(stream_writer_init(&w), 0);
    derive(ids, 300, 3, 2);
    ids_put(&w, &out, ids, 300);
    assert_in_range(out.len, 1, 8 * 300 - 1);
    for (size_t cut = 0; cut < out.len; cut++) {
        struct arena arena = ARENA_INIT;
        char *copy = malloc(cut + 1); /* so that reading beyond it is seen */
        memcpy(copy, out.ptr, cut);
        struct codec_reader r = codec_reader((struct str){copy, cut}, &arena);
        assert_null(ids_get(&r, 300));
        assert_int_equal(r.err, ERR_CORRUPT);
        free(copy);
        arena_done(&arena);
    }
    for (size_t bit = 0; bit < 8 * out.len; bit++) {
        struct arena arena = ARENA_INIT;
        out.ptr[bit / 8] ^= (char)(1 << bit % 8);
        struct codec_reader r = codec_reader(buf_as_str(&out), &arena);
        const uint8_t *got = ids_get(&r, 300);
        assert_true((got != NULL) == (r.err == 0));
        out.ptr[bit / 8] ^= (char)(1 << bit % 8);
        arena_done(&arena);
    }
    buf_done(&out);
    stream_writer_done(&w);
}

static int see(void *arg, const struct span_batch *batch)
{
    uint64_t *seen = arg;
    for (size_t i = 0; i < batch->n; i++) {
        const struct span *s = &batch->spans[i];
        uint8_t number = s->span_id.bytes[7], trace[TRACE_ID_SIZE] = {0};
        trace[15] = (uint8_t)((number - 1) / 5 + 1); /* five spans to a trace */
        assert_memory_equal(s->trace_id.bytes, trace, sizeof trace);
        *seen |= UINT64_C(1) << number;
    }
    return 0;
}

static void a_segment_that_keeps_all_ids_as_they_are_is_read(void **state)
{
    struct segment *seg;
    uint64_t seen = 0;
    int dir = open(GOLDEN_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(dir >= 0);
    assert_int_equal(segment_open(dir, "ids-as-they-are.seg", &seg), 0);
    assert_int_equal(segment_spans(seg, see, &seen), 0);
    assert_int_equal(seen, ((UINT64_C(1) << 40) - 1) << 1);
    for (uint8_t i = 0; i <= 9; i++) {
        bool has;
        struct trace_id id = {.bytes = {[15] = i}};
        assert_int_equal(segment_has(seg, &id, &has), 0);
        assert_int_equal(has, i >= 1 && i <= 8);
    }
    segment_close(seg);
    close(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_from_counters_cost_little_and_come_back),
        cmocka_unit_test(ids_that_were_drawn_cost_what_they_are),
        cmocka_unit_test(a_mixture_comes_back_and_only_what_was_drawn_is_dear),
        cmocka_unit_test(the_same_id_many_times_and_the_ends_of_the_range_come_back),
        cmocka_unit_test(ids_of_traces_come_back_from_counters_and_from_dice),
        cmocka_unit_test(a_segment_that_keeps_all_ids_as_they_are_is_read),
        cmocka_unit_test(damage_fails_or_reads_but_never_runs_over),
    };
    return cmocka_run_group_tests(tests, seed, NULL);
}
