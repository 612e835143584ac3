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
        cmocka_unit_test(regular_numbers_cost_little),
        cmocka_unit_test(lists_come_back),
        cmocka_unit_test(a_stream_cut_anywhere_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
