#include "base/test.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/hash.h"
#include "store/local/stream.h"

static uint64_t random_state;

static uint64_t draw(void)
{
    return hash_mix64(random_state += UINT64_C(0x9e3779b97f4a7c15));
}

/* The same numbers, each by itself and all, as they are packed. */
static void view_reads(struct str stream, const uint64_t *v, size_t n)
{
    struct arena arena = ARENA_INIT;
    struct codec_reader r = codec_reader(stream, &arena);
    struct stream_view view;
    uint64_t *room = arena_array(&arena, n + 1, sizeof *room);
    assert_true(stream_view(&r, n, &view));
    assert_int_equal(codec_finish(&r), 0);
    const uint64_t *all = stream_view_all(&view, n, room);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(stream_view_at(&view, i), v[i]);
        assert_int_equal(all[i], v[i]);
    }
    arena_done(&arena);
}

static size_t numbers_round_trip(const uint64_t *v, size_t n)
{
    struct stream_writer w;
    struct buf out = BUF_INIT;
    struct arena arena = ARENA_INIT;
    assert_int_equal(stream_writer_init(&w), 0);
    stream_put_numbers(&w, &out, v, n);
    assert_true(buf_ok(&out));
    struct codec_reader r = codec_reader(buf_as_str(&out), &arena);
    uint64_t *got = stream_numbers(&r, n);
    assert_int_equal(codec_finish(&r), 0);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(got[i], v[i]);
    view_reads(buf_as_str(&out), v, n);
    size_t size = out.len;
    buf_done(&out);
    arena_done(&arena);
    stream_writer_done(&w);
    return size;
}

static void numbers_of_every_width_come_back(void **state)
{
    static uint64_t v[3000];
    random_state = clock_realtime_ns();
    print_message("# seed %llu\n", (unsigned long long)random_state);
    for (unsigned bits = 0; bits <= 64; bits++) {
        for (size_t n = 0; n < sizeof v / sizeof *v; n = n * 3 + 1) {
            uint64_t base = draw() % 3 ? 0 : draw();
            bool sorted = draw() % 2;
            for (size_t i = 0; i < n; i++) {
                v[i] = base + (bits ? draw() >> (64 - bits) : 0);
                if (sorted && i)
                    v[i] = v[i - 1] + (v[i] & 0xffff);
            }
            numbers_round_trip(v, n);
        }
    }
}

/* Reads what stream_put_gaps wrote, as numbers. */
static size_t gaps_round_trip(const uint64_t *v, size_t n)
{
    struct stream_writer w;
    struct buf out = BUF_INIT;
    struct arena arena = ARENA_INIT;
    assert_int_equal(stream_writer_init(&w), 0);
    stream_put_gaps(&w, &out, v, n);
    assert_true(buf_ok(&out));
    struct codec_reader r = codec_reader(buf_as_str(&out), &arena);
    uint64_t *got = stream_numbers(&r, n);
    assert_int_equal(codec_finish(&r), 0);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(got[i], v[i]);
    view_reads(buf_as_str(&out), v, n);
    size_t size = out.len;
    buf_done(&out);
    arena_done(&arena);
    stream_writer_done(&w);
    return size;
}

static void gaps_of_every_mean_come_back(void **state)
{
    static uint64_t v[3000];
    random_state = clock_realtime_ns();
    print_message("# seed %llu\n", (unsigned long long)random_state);
    for (unsigned bits = 0; bits <= 64; bits++) {
        for (size_t n = 0; n < sizeof v / sizeof *v; n = n * 3 + 1) {
            for (size_t i = 0; i < n; i++)
                v[i] = bits ? draw() >> (64 - draw() % (bits + 1)) % 64 : 0;
            gaps_round_trip(v, n);
        }
    }
}

static void gaps_cost_little_more_than_what_they_tell(void **state)
{
    static uint64_t v[8192];
    size_t n = 0, before = 0;
    random_state = 1;
    for (size_t row = 0; row < 8192; row++) /* 0.51 bits a row, if one could: 4.5 a gap */
        if (draw() % 97 < 11) {
            v[n++] = row - before;
            before = row + 1;
        }
    assert_in_range(gaps_round_trip(v, n), n * 9 / 16, n * 10 / 16);
    for (size_t i = 0; i < 8192; i++)
        v[i] = 0;
    assert_in_range(gaps_round_trip(v, 8192), 1, 8);
    v[1000] = 1;
    assert_in_range(gaps_round_trip(v, 8192), 1, 100); /* not a bit for each */
}

static void places_beyond_the_end_are_refused(void **state)
{
    static const uint64_t gaps[] = {3, 0, 5}; /* rows 3, 4 and 10 */
    struct stream_writer w;
    assert_int_equal(stream_writer_init(&w), 0);
    for (uint32_t end = 0; end < 13; end++) {
        struct buf own = BUF_INIT, out = BUF_INIT;
        struct arena arena = ARENA_INIT;
        stream_put_gaps(&w, &own, gaps, 3);
        codec_put_varint(&out, own.len);
        buf_str(&out, buf_as_str(&own));
        struct codec_reader r = codec_reader(buf_as_str(&out), &arena);
        uint32_t *places = stream_places(&r, 3, end);
        assert_int_equal(places != NULL, end > 10);
        assert_int_equal(codec_finish(&r), end > 10 ? 0 : ERR_CORRUPT);
        if (places)
            assert_int_equal(places[0] * 10000 + places[1] * 100 + places[2], 30410);
        buf_done(&own);
        buf_done(&out);
        arena_done(&arena);
    }
    stream_writer_done(&w);
}

static void quotients_cut_or_changed_are_refused_or_read_in_bounds(void **state)
{
    static uint64_t v[500];
    struct stream_writer w;
    struct buf out = BUF_INIT;
    random_state = 7;
    for (size_t i = 0; i < 500; i++)
        v[i] = draw() % 20;
    assert_int_equal(stream_writer_init(&w), 0);
    stream_put_gaps(&w, &out, v, 500);
    for (size_t i = 0; i < out.len; i++) {
        struct arena arena = ARENA_INIT;
        struct codec_reader cut = codec_reader((struct str){out.ptr, i}, &arena);
        assert_null(stream_numbers(&cut, 500));
        out.ptr[i] ^= 1;
        struct codec_reader changed = codec_reader(buf_as_str(&out), &arena);
        (void)!stream_numbers(&changed, 500);
        out.ptr[i] ^= 1;
        arena_done(&arena);
    }
    buf_done(&out);
    stream_writer_done(&w);
}

static void regular_numbers_cost_little(void **state)
{
    static uint64_t v[8192];
    for (size_t i = 0; i < 8192; i++)
        v[i] = i;
    assert_in_range(numbers_round_trip(v, 8192), 1, 8);
    for (size_t i = 0; i < 8192; i++)
        v[i] = UINT64_C(1700000000000000000);
    assert_in_range(numbers_round_trip(v, 8192), 1, 12);
    for (size_t i = 0; i < 8192; i++)
        v[i] = i % 50 ? 200 : 404; /* 0.14 bits each, if one could */
    assert_in_range(numbers_round_trip(v, 8192), 1, 1500);
    for (size_t i = 0; i < 8192; i++)
        v[i] = draw() % 1000; /* 9.97 bits */
    assert_in_range(numbers_round_trip(v, 8192), 10000, 10300);
}

static void lists_come_back(void **state)
{
    struct stream_writer w;
    struct buf out = BUF_INIT;
    struct arena arena = ARENA_INIT;
    struct str items[] = {STR("a"), STR(""), STR("two words"), STR("\0\1\2"), STR("")};
    for (size_t n = 0; n <= 5; n++) {
        buf_clear(&out);
        assert_int_equal(stream_writer_init(&w), 0);
        stream_put_list(&w, &out, items, n);
        struct codec_reader r = codec_reader(buf_as_str(&out), &arena);
        struct str *got = stream_list(&r, n);
        assert_int_equal(codec_finish(&r), 0);
        for (size_t i = 0; i < n; i++)
            assert_str_eq(got[i], items[i]);
        stream_writer_done(&w);
    }
    buf_done(&out);
    arena_done(&arena);
}

static void a_stream_cut_anywhere_is_refused(void **state)
{
    static uint64_t v[300];
    struct stream_writer w;
    struct buf out = BUF_INIT;
    struct arena arena = ARENA_INIT;
    assert_int_equal(stream_writer_init(&w), 0);
    for (int kind = 0; kind < 4; kind++) {
        for (size_t i = 0; i < 300; i++)
            v[i] = kind == 0   ? draw() % 7
                   : kind == 1 ? draw()
                   : kind == 2 ? i * i
                               : (draw() % 100 ? 5 : draw());
        buf_clear(&out);
        stream_put_numbers(&w, &out, v, 300);
        for (size_t cut = 0; cut < out.len; cut++) {
            /* A copy of its own, so that a sanitizer sees a read beyond it. */
            char *copy = malloc(cut + 1);
            memcpy(copy, out.ptr, cut);
            struct codec_reader r = codec_reader((struct str){copy, cut}, &arena);
            stream_numbers(&r, 300);
            assert_int_not_equal(codec_finish(&r), 0);
            free(copy);
            arena_reset(&arena);
        }
    }
    stream_writer_done(&w);
    buf_done(&out);
    arena_done(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_of_every_width_come_back),
        cmocka_unit_test(gaps_of_every_mean_come_back),
        cmocka_unit_test(gaps_cost_little_more_than_what_they_tell),
        cmocka_unit_test(places_beyond_the_end_are_refused),
        cmocka_unit_test(quotients_cut_or_changed_are_refused_or_read_in_bounds),
        cmocka_unit_test(regular_numbers_cost_little),
        cmocka_unit_test(lists_come_back),
        cmocka_unit_test(a_stream_cut_anywhere_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
