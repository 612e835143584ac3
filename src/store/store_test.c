#include "store/fixture.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "store/local/file.h"
#include "store/local/segment.h"
#include "store/local/segment_format.h"

static void what_was_appended_is_read_back_exactly(void **state)
{
    struct fixture f;
    fixture_init(&f, clock_realtime_ns(), NULL);
    for (int i = 0; i < 20; i++) {
        struct span_batch batch = fixture_batch(&f, 1 + fixture_random(&f, 60));
        fixture_append(&f, &batch);
    }
    fixture_check(&f);
    fixture_check_scans(&f, 150);
    fixture_reopen(&f);
    fixture_check(&f);
    fixture_check_scans(&f, 150);
    for (int i = 0; i < 5; i++) {
        struct span_batch batch = fixture_batch(&f, 1 + fixture_random(&f, 60));
        fixture_append(&f, &batch);
    }
    fixture_check(&f);
    fixture_check_scans(&f, 50);
    fixture_done(&f);
}

static void a_sealed_store_answers_the_same(void **state)
{
    struct fixture f;
    fixture_init(&f, clock_realtime_ns(), NULL);
    for (int part = 0; part < 4; part++) {
        for (int i = 0; i < 10; i++) {
            struct span_batch batch = fixture_batch(&f, 1 + fixture_random(&f, 60));
            fixture_append(&f, &batch);
        }
        if (part == 3)
            break; /* the last stays in the memtable */
        assert_int_equal(store_seal(f.store), 0);
        fixture_check(&f);
        fixture_check_scans(&f, 100);
    }
    fixture_check(&f);
    fixture_check_scans(&f, 100);
    struct store_stats stats;
    store_stats(f.store, &stats);
    assert_int_equal(stats.segments, 3);
    fixture_reopen(&f); /* seals the rest */
    store_stats(f.store, &stats);
    assert_int_equal(stats.segments, 4);
    assert_int_equal(stats.memtable_spans, 0);
    assert_int_equal(stats.log_bytes, 0);
    fixture_check(&f);
    fixture_check_scans(&f, 100);
    fixture_done(&f);
}

/* The table in which a seal looks up parents is sized by powers of two. */
static void traces_of_a_power_of_two_are_sealed(void **state)
{
    struct fixture f;
    fixture_init(&f, 1, NULL);
    for (uint32_t n = 4; n <= 512; n *= 2) {
        struct span *spans = arena_array(&f.arena, n, sizeof *spans);
        assert_non_null(spans);
        struct span_batch batch = fixture_batch(&f, 1);
        for (uint32_t i = 0; i < n; i++) {
            spans[i] = batch.spans[0];
            memset(&spans[i].trace_id, (int)(n / 4), sizeof spans[i].trace_id);
            memcpy(spans[i].span_id.bytes, &(uint64_t){i + 1}, SPAN_ID_SIZE);
            memcpy(spans[i].parent_id.bytes, &(uint64_t){i}, SPAN_ID_SIZE);
        }
        batch.spans = spans;
        batch.n = n;
        fixture_append(&f, &batch);
        assert_int_equal(store_seal(f.store), 0); /* a table of its own */
    }
    fixture_check(&f);
    fixture_done(&f);
}

static int hash_order(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Two numbers whose ids the index of a segment keeps under the same 32 bits. */
static void numbers_with_one_hash(uint64_t *ret_a, uint64_t *ret_b)
{
    enum { TRIED = 1 << 18 }; /* 8 such pairs, by chance */
    uint64_t *tried = malloc(TRIED * sizeof *tried);
    bool found = false;
    for (uint64_t i = 0; i < TRIED; i++) {
        struct trace_id id = {{0}};
        memcpy(id.bytes + 8, &i, sizeof i);
        tried[i] = (uint64_t)segment_trace_hash(id.bytes) << 32 | i;
    }
    qsort(tried, TRIED, sizeof *tried, hash_order);
    for (uint64_t i = 1; !found && i < TRIED; i++) {
        found = tried[i] >> 32 == tried[i - 1] >> 32;
        *ret_a = (uint32_t)tried[i];
        *ret_b = (uint32_t)tried[i - 1];
    }
    free(tried);
    assert_true(found);
}

/* By the number in its id: 1: told as whole, 2: as a part. */
static int number_told(void *arg, struct trace_match *match, const struct match_trace *trace)
{
    uint8_t *told = arg;
    uint64_t number;
    (void)match;
    memcpy(&number, trace->id.bytes + 8, sizeof number);
    told[number] |= trace->is_whole ? 1 : 2;
    return 0;
}

static void only_traces_in_several_segments_are_told_as_parts(void **state)
{
    struct fixture f;
    uint64_t numbers[3];
    static uint8_t told[1 << 18];
    numbers_with_one_hash(&numbers[0], &numbers[1]);
    numbers[2] = 1; /* in both segments */
    fixture_init(&f, 1, NULL);
    for (int part = 0; part < 2; part++) {
        struct span_batch batch = fixture_batch(&f, 3);
        for (size_t i = 0; i < batch.n; i++) {
            memset(&batch.spans[i].trace_id, 0, sizeof batch.spans[i].trace_id);
            memcpy(batch.spans[i].trace_id.bytes + 8, &numbers[i ? part : 2], sizeof *numbers);
        }
        fixture_append(&f, &batch);
        assert_int_equal(store_seal(f.store), 0);
    }
    const struct predicate every = {.op = PREDICATE_TRUE}, *const filters[] = {&every};
    const bool wanted[] = {false, true};
    struct trace_match match = {.filters = filters, .n_filters = 1, .wanted = wanted};
    struct store_view *view = store_view_new(f.store);
    memset(told, 0, sizeof told);
    assert_int_equal(store_match(view, &match, number_told, told, NULL), 0);
    assert_int_equal(told[numbers[0]], 1);
    assert_int_equal(told[numbers[1]], 1);
    assert_int_equal(told[numbers[2]], 2);
    store_view_free(view);
    fixture_check(&f);
    fixture_done(&f);
}

static void an_empty_store_answers(void **state)
{
    struct fixture f;
    fixture_init(&f, 1, NULL);
    fixture_check(&f);
    assert_int_equal(store_seal(f.store), 0);
    struct span_batch none = {0};
    fixture_append(&f, &none);
    fixture_check(&f);
    fixture_reopen(&f);
    fixture_check(&f);
    fixture_done(&f);
}

static void a_second_opener_is_refused(void **state)
{
    struct fixture f;
    fixture_init(&f, 2, NULL);
    struct store *second = NULL;
    struct error_detail detail;
    assert_int_equal(store_open(&f.options, &second, &detail), ERR_BUSY);
    assert_null(second);
    assert_non_null(strstr(detail.message, f.dir));
    fixture_done(&f);
}

static void a_view_does_not_change(void **state)
{
    struct fixture f;
    fixture_init(&f, 3, NULL);
    struct span_batch batch = fixture_batch(&f, 40);
    fixture_append(&f, &batch);
    struct store_view *view = store_view_new(f.store);
    struct arena arena = ARENA_INIT;
    struct span_batch before, after;
    assert_int_equal(store_trace(view, &batch.spans[0].trace_id, &arena, &before), 0);
    fixture_append(&f, &batch);
    assert_int_equal(store_trace(view, &batch.spans[0].trace_id, &arena, &after), 0);
    assert_int_equal(before.n, after.n);
    store_view_free(view);
    view = store_view_new(f.store);
    assert_int_equal(store_trace(view, &batch.spans[0].trace_id, &arena, &after), 0);
    assert_int_equal(2 * before.n, after.n);
    store_view_free(view);
    arena_done(&arena);
    fixture_done(&f);
}

static void count_watched(void *arg, const struct span_batch *batch)
{
    *(size_t *)arg += batch->n;
}

static void the_watcher_sees_each_batch_before_its_answer(void **state)
{
    struct fixture f;
    size_t watched = 0;
    fixture_init(&f, 4, NULL);
    store_watch(f.store, count_watched, &watched);
    struct span_batch batch = fixture_batch(&f, 7);
    fixture_append(&f, &batch);
    assert_int_equal(watched, 7);
    store_watch(f.store, NULL, NULL);
    fixture_append(&f, &batch);
    assert_int_equal(watched, 7);
    fixture_done(&f);
}

static void the_log_is_replayed_after_a_kill(void **state)
{
    struct fixture f;
    char copy[64];
    fixture_init(&f, clock_realtime_ns(), NULL);
    for (int part = 0; part < 3; part++) {
        for (int i = 0; i < 5; i++) {
            struct span_batch batch = fixture_batch(&f, 1 + fixture_random(&f, 30));
            fixture_append(&f, &batch);
        }
        if (part == 0)
            assert_int_equal(store_seal(f.store), 0);
        fixture_copy_files(&f, copy, sizeof copy);
        fixture_check_copy(&f, copy);
    }
    fixture_done(&f);
}

/* As after a kill between the catalogue's transaction and the removal of the log. */
static void a_log_that_was_sealed_but_not_removed_is_not_replayed(void **state)
{
    struct fixture f, logs;
    fixture_init(&f, clock_realtime_ns(), NULL);
    struct span_batch batch = fixture_batch(&f, 20);
    fixture_append(&f, &batch);
    logs = (struct fixture){0};
    fixture_copy_files(&f, logs.dir, sizeof logs.dir);
    store_close(f.store);
    fixture_copy_back(&f, logs.dir, "log-");
    f.store = NULL;
    fixture_reopen(&f);
    fixture_check(&f);
    fixture_append(&f, &batch);
    fixture_reopen(&f);
    fixture_check(&f);
    fixture_done(&logs);
    fixture_done(&f);
}

static void a_small_memtable_is_sealed_again_and_again(void **state)
{
    struct fixture f;
    struct store_options options = {.memtable_bytes_max = 20 << 10,
                                    .durability = STORE_DURABILITY_WRITE};
    fixture_init(&f, clock_realtime_ns(), &options);
    for (int i = 0; i < 40; i++) {
        struct span_batch batch = fixture_batch(&f, 1 + fixture_random(&f, 30));
        fixture_append(&f, &batch);
    }
    assert_int_equal(store_seal(f.store), 0);
    struct store_stats stats;
    store_stats(f.store, &stats);
    assert_in_range(stats.segments, 5, 41);
    assert_int_equal(stats.memtable_spans, 0);
    fixture_check(&f);
    fixture_check_scans(&f, 30);
    fixture_done(&f);
}

static void an_old_memtable_is_sealed(void **state)
{
    struct fixture f;
    struct store_options options = {.memtable_age_ms_max = 20};
    struct store_stats stats = {0};
    fixture_init(&f, 5, &options);
    struct span_batch batch = fixture_batch(&f, 10);
    fixture_append(&f, &batch);
    for (int i = 0; i < 1000 && !stats.segments; i++) {
        usleep(10000);
        store_stats(f.store, &stats);
    }
    assert_int_equal(stats.segments, 1);
    fixture_check(&f);
    fixture_done(&f);
}

/* One trace of more rows than a group holds, and more traces than a block of them holds. */
static void traces_and_segments_larger_than_their_blocks_come_back(void **state)
{
    enum { SPANS = 20000, SINGLES = 3000 };
    struct fixture f;
    fixture_init(&f, 6, &(struct store_options){.durability = STORE_DURABILITY_WRITE});
    struct span_batch large = fixture_batch(&f, 50);
    struct span *spans = arena_array(&f.arena, SPANS + SINGLES, sizeof *spans);
    for (uint32_t i = 0; i < SPANS + SINGLES; i++) {
        spans[i] = large.spans[i % 50];
        spans[i].start_ns = 1000000 + i * 7 % 5000;
        spans[i].trace_id = (struct trace_id){{1}};
        if (i >= SPANS)
            memcpy(spans[i].trace_id.bytes + 4, &i, sizeof i);
        spans[i].span_id = (struct span_id){{0}};
        memcpy(spans[i].span_id.bytes, &i, sizeof i);
        spans[i].parent_id = (struct span_id){{0}};
        uint32_t parent = i / 2;
        if (i && i < SPANS)
            memcpy(spans[i].parent_id.bytes, &parent, sizeof parent);
        spans[i].span_id.bytes[7] = 1;
        spans[i].parent_id.bytes[7] = i && i < SPANS;
    }
    struct span_batch batch = {.spans = spans, .n = SPANS + SINGLES};
    assert_int_equal(
        store_append_wait(f.store, BODY_OTLP_PROTOBUF, fixture_body(&f, &batch), &batch), 0);
    for (int sealed = 0; sealed < 2; sealed++) {
        struct store_view *view = store_view_new(f.store);
        struct arena arena = ARENA_INIT;
        struct span_batch got;
        struct trace_summary summary;
        assert_int_equal(store_trace(view, &spans[0].trace_id, &arena, &got), 0);
        assert_int_equal(got.n, SPANS);
        for (uint32_t i = 0; i < SPANS; i++) {
            uint32_t number;
            memcpy(&number, got.spans[i].span_id.bytes, sizeof number);
            span_assert_equal(&got.spans[i], &spans[number]);
            assert_true(i == 0 || got.spans[i - 1].start_ns <= got.spans[i].start_ns);
        }
        size_t n_pieces = 0;
        for (uint64_t from = 1000000; from < 1005000; from += 700) {
            struct span_batch piece;
            assert_int_equal(
                store_trace_between(view, &spans[0].trace_id, from, from + 699, &arena, &piece), 0);
            for (size_t i = 0; i < piece.n; i++)
                span_assert_equal(&piece.spans[i], &got.spans[n_pieces + i]);
            n_pieces += piece.n;
        }
        assert_int_equal(n_pieces, SPANS);
        assert_int_equal(store_trace_summary(view, &spans[0].trace_id, &arena, &summary), 0);
        assert_int_equal(summary.span_count, SPANS);
        assert_int_equal(summary.orphan_count, 0);
        for (uint32_t i = SPANS; i < SPANS + SINGLES; i += 23) {
            arena_reset(&arena);
            assert_int_equal(store_trace(view, &spans[i].trace_id, &arena, &got), 0);
            assert_int_equal(got.n, 1);
            span_assert_equal(&got.spans[0], &spans[i]);
        }
        arena_done(&arena);
        store_view_free(view);
        assert_int_equal(store_seal(f.store), 0);
    }
    fixture_done(&f);
}

/* ---- damage ---- */

static const char segment_name[] = "seg-0000000000000001.seg";

/* The only segment of a store that was closed, and the directory it is in. */
static struct str segment_bytes(struct fixture *f, int *ret_dir)
{
    int fd;
    uint64_t size;
    *ret_dir = open(f->dir, O_RDONLY | O_DIRECTORY);
    assert_int_equal(file_open(*ret_dir, segment_name, O_RDONLY, &fd), 0);
    assert_int_equal(file_size(fd, &size), 0);
    char *bytes = malloc(size);
    assert_int_equal(file_read_at(fd, bytes, size, 0), 0);
    close(fd);
    return (struct str){bytes, size};
}

static int verify(int dir, const char *bytes, size_t n)
{
    int fd;
    struct segment *seg;
    assert_int_equal(file_open(dir, segment_name, O_WRONLY, &fd), 0);
    assert_int_equal(file_write(fd, bytes, n), 0);
    assert_int_equal(file_truncate(fd, n), 0);
    close(fd);
    int err = segment_open(dir, segment_name, &seg);
    if (err)
        return err;
    err = segment_verify(seg);
    assert_int_equal(err != 0, segment_damage(seg)->code != 0);
    if (err)
        assert_non_null(strstr(segment_damage(seg)->message, segment_name));
    segment_close(seg);
    return err;
}

static void a_flipped_byte_anywhere_in_a_segment_is_detected_and_named(void **state)
{
    struct fixture f;
    int dir;
    fixture_init(&f, 7, NULL);
    for (int i = 0; i < 3; i++) {
        struct span_batch batch = fixture_batch(&f, 12);
        fixture_append(&f, &batch);
    }
    store_close(f.store);
    struct str whole = segment_bytes(&f, &dir);
    char *bytes = (char *)(uintptr_t)whole.ptr;
    log_set_level(LOG_LEVEL_OFF);
    assert_int_equal(verify(dir, bytes, whole.len), 0);
    for (size_t i = 0; i < whole.len; i++) {
        bytes[i] ^= 0x04;
        if (verify(dir, bytes, whole.len) != ERR_CORRUPT)
            fail_msg("byte %zu of %zu was flipped, and nobody saw it", i, whole.len);
        bytes[i] ^= 0x04;
    }
    for (size_t n = 0; n < whole.len; n += 1 + n / 64)
        assert_int_equal(verify(dir, bytes, n), ERR_CORRUPT);
    for (int field = 8; field <= 12; field += 4) { /* version, required features */
        bytes[field]++;
        uint64_t checksum = hash_bytes(bytes, 56);
        memcpy(bytes + 56, &checksum, 8);
        assert_int_equal(verify(dir, bytes, whole.len), ERR_UNSUPPORTED);
        bytes[field]--;
        checksum = hash_bytes(bytes, 56);
        memcpy(bytes + 56, &checksum, 8);
    }
    assert_int_equal(verify(dir, bytes, whole.len), 0);
    /* The catalogue knows the size. */
    assert_int_equal(verify(dir, bytes, whole.len - 1), ERR_CORRUPT);
    struct error_detail detail;
    struct store_stats stats;
    assert_int_equal(store_open(&f.options, &f.store, &detail), 0);
    store_stats(f.store, &stats);
    assert_int_equal(stats.damaged_segments, 1);
    assert_int_equal(stats.lost_spans, 36);
    store_close(f.store);
    assert_int_equal(verify(dir, bytes, whole.len), 0);
    assert_int_equal(store_open(&f.options, &f.store, &detail), 0);
    log_set_level(LOG_LEVEL_INFO);
    fixture_check(&f);
    free(bytes);
    close(dir);
    fixture_done(&f);
}

static void an_unfinished_segment_is_removed(void **state)
{
    struct fixture f;
    char path[100];
    fixture_init(&f, 8, NULL);
    struct span_batch batch = fixture_batch(&f, 12);
    fixture_append(&f, &batch);
    log_set_level(LOG_LEVEL_OFF);
    for (int i = 0; i < 2; i++) {
        char copy[64];
        struct store_options options = f.options;
        struct store *killed;
        fixture_copy_files(&f, copy, sizeof copy);
        snprintf(path, sizeof path, "%s/seg-0000000000000001.%s", copy, i ? "seg" : "tmp");
        int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
        assert_true(fd >= 0);
        close(fd);
        options.dir = copy;
        assert_int_equal(store_open(&options, &killed, NULL), 0);
        assert_int_equal(access(path, F_OK), -1);
        store_close(killed);
        fixture_check_copy(&f, copy);
    }
    log_set_level(LOG_LEVEL_INFO);
    fixture_check(&f);
    fixture_done(&f);
}

/* ---- readers beside the writer ---- */

struct reader {
    struct fixture *f;
    const struct span_batch *batches;
    int n;
    atomic_int acknowledged;
    atomic_bool done;
    atomic_uint views;
};

static int count_row(void *arg, struct scan *scan, const struct scan_row *row)
{
    ++*(size_t *)arg;
    return 0;
}

/* Every view has all batches that were acknowledged before it, each whole, and does not change. */
static void *read_views(void *arg)
{
    struct reader *r = arg;
    struct arena arena = ARENA_INIT;
    while (!atomic_load(&r->done)) {
        int acknowledged = atomic_load(&r->acknowledged);
        struct store_view *view = store_view_new(r->f->store);
        size_t seen[2] = {0}, expected = 0;
        for (int round = 0; round < 2; round++) {
            struct scan scan = {0};
            assert_int_equal(store_scan(view, &scan, count_row, &seen[round], NULL), 0);
        }
        assert_int_equal(seen[0], seen[1]);
        for (int i = 0; i < acknowledged; i++)
            expected += r->batches[i].n;
        assert_true(seen[0] >= expected);
        for (int i = acknowledged; expected < seen[0] && i < r->n; i++)
            expected += r->batches[i].n;
        assert_int_equal(seen[0], expected);
        for (int i = 0; i < acknowledged; i += 7) {
            struct span_batch got;
            struct trace_summary summary;
            const struct trace_id *id = &r->batches[i].spans[0].trace_id;
            assert_int_equal(store_trace(view, id, &arena, &got), 0);
            assert_int_equal(store_trace_summary(view, id, &arena, &summary), 0);
            assert_int_equal(summary.span_count, got.n);
            arena_reset(&arena);
        }
        struct str *names;
        size_t n;
        assert_int_equal(store_services(view, &arena, &names, &n), 0);
        struct store_stats stats;
        store_stats(r->f->store, &stats);
        store_view_free(view);
        atomic_fetch_add(&r->views, 1);
    }
    arena_done(&arena);
    return NULL;
}

static void views_are_whole_while_others_write_and_seal(void **state)
{
    enum { BATCHES = 150 };
    struct fixture f;
    static struct span_batch batches[BATCHES];
    static struct str bodies[BATCHES];
    struct store_options options = {.memtable_bytes_max = 100 << 10,
                                    .durability = STORE_DURABILITY_WRITE};
    fixture_init(&f, clock_realtime_ns(), &options);
    struct reader r = {.f = &f, .batches = batches, .n = BATCHES};
    for (int i = 0; i < BATCHES; i++) {
        batches[i] = fixture_batch(&f, 1 + fixture_random(&f, 20));
        bodies[i] = fixture_body(&f, &batches[i]);
    }
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, read_views, &r), 0);
    for (int i = 0; i < BATCHES; i++) {
        assert_int_equal(store_append_wait(f.store, BODY_OTLP_PROTOBUF, bodies[i], &batches[i]), 0);
        fixture_remember(&f, &batches[i]);
        atomic_store(&r.acknowledged, i + 1);
        /* Some views for each stretch of writing. */
        for (int k = 0; k < 1000 && i % 30 == 29 && atomic_load(&r.views) < (unsigned)i / 10; k++)
            usleep(1000);
    }
    atomic_store(&r.done, true);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    assert_true(atomic_load(&r.views) >= 2);
    fixture_check(&f);
    fixture_done(&f);
}

struct sender {
    struct fixture *f;
    const struct span_batch *batches;
    const struct str *bodies;
    int n, refused;
};

static void *send_batches(void *arg)
{
    struct sender *s = arg;
    for (int i = 0; i < s->n; i++)
        if (store_append_wait(s->f->store, BODY_OTLP_PROTOBUF, s->bodies[i], &s->batches[i]))
            s->refused++;
    return NULL;
}

static void many_senders_share_the_log(void **state)
{
    enum { SENDERS = 4, EACH = 25 };
    struct fixture f;
    static struct span_batch batches[SENDERS * EACH];
    static struct str bodies[SENDERS * EACH];
    struct sender senders[SENDERS];
    pthread_t threads[SENDERS];
    fixture_init(&f, clock_realtime_ns(), NULL);
    for (int i = 0; i < SENDERS * EACH; i++) {
        batches[i] = fixture_batch(&f, 1 + fixture_random(&f, 5));
        bodies[i] = fixture_body(&f, &batches[i]);
    }
    for (int i = 0; i < SENDERS; i++) {
        senders[i] = (struct sender){&f, batches + i * EACH, bodies + i * EACH, EACH, 0};
        assert_int_equal(pthread_create(&threads[i], NULL, send_batches, &senders[i]), 0);
    }
    for (int i = 0; i < SENDERS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(senders[i].refused, 0);
    }
    for (int i = 0; i < SENDERS * EACH; i++)
        fixture_remember(&f, &batches[i]);
    fixture_check(&f);
    fixture_reopen(&f);
    fixture_check(&f);
    fixture_done(&f);
}

struct answers {
    atomic_int good, bad, calls;
};

static void count_answer(void *arg, int err)
{
    struct answers *a = arg;
    atomic_fetch_add(err ? &a->bad : &a->good, 1);
    atomic_fetch_add(&a->calls, 1);
}

static void a_full_queue_says_busy_and_a_closed_store_answers_all(void **state)
{
    struct fixture f;
    struct store_options options = {.queue_bytes_max = 4 << 10};
    struct answers answers = {0};
    int accepted = 0, busy = 0;
    fixture_init(&f, 9, &options);
    struct span_batch batch = fixture_batch(&f, 5);
    struct str body = fixture_body(&f, &batch);
    for (int i = 0; i < 300; i++) {
        int err = store_append(f.store, BODY_OTLP_PROTOBUF, body, &batch, count_answer, &answers);
        accepted += !err;
        busy += err == ERR_BUSY;
        assert_true(!err || err == ERR_BUSY);
        if (!err)
            fixture_remember(&f, &batch);
    }
    assert_true(accepted > 0);
    assert_true(busy > 0);
    fixture_reopen(&f);
    assert_int_equal(atomic_load(&answers.calls), accepted);
    assert_int_equal(atomic_load(&answers.bad), 0);
    struct store_stats stats;
    store_stats(f.store, &stats);
    assert_int_equal(stats.spans, f.n);
    fixture_done(&f);
}

static void segments_are_listed_with_what_they_hold(void **state)
{
    struct fixture f;
    struct arena arena = ARENA_INIT;
    struct store_segment *list;
    struct store_stats stats;
    uint64_t spans = 0, bytes = 0;
    size_t n;
    fixture_init(&f, 31, NULL);
    assert_int_equal(store_segments(f.store, &arena, &list, &n), 0);
    assert_int_equal(n, 0);
    for (int i = 0; i < 3; i++) {
        struct span_batch batch = fixture_batch(&f, 50);
        fixture_append(&f, &batch);
        assert_int_equal(store_seal(f.store), 0);
    }
    /* Small ones may be merged meanwhile: both are of one moment only when nothing is. */
    assert_int_equal(store_keep(f.store, true), 0);
    assert_int_equal(store_segments(f.store, &arena, &list, &n), 0);
    store_stats(f.store, &stats);
    assert_int_equal(n, stats.segments);
    for (size_t i = 0; i < n; i++) {
        spans += list[i].spans;
        bytes += list[i].bytes;
        assert_true(list[i].name.len && list[i].start_min_ns <= list[i].start_max_ns);
        assert_true(list[i].sealed_ns && !list[i].is_damaged);
        if (i)
            assert_true(list[i - 1].start_max_ns >= list[i].start_max_ns);
    }
    assert_int_equal(spans, f.n);
    assert_int_equal(bytes, stats.segment_bytes);
    arena_done(&arena);
    fixture_done(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_appended_is_read_back_exactly),
        cmocka_unit_test(a_sealed_store_answers_the_same),
        cmocka_unit_test(traces_of_a_power_of_two_are_sealed),
        cmocka_unit_test(only_traces_in_several_segments_are_told_as_parts),
        cmocka_unit_test(an_empty_store_answers),
        cmocka_unit_test(a_second_opener_is_refused),
        cmocka_unit_test(a_view_does_not_change),
        cmocka_unit_test(the_watcher_sees_each_batch_before_its_answer),
        cmocka_unit_test(the_log_is_replayed_after_a_kill),
        cmocka_unit_test(a_log_that_was_sealed_but_not_removed_is_not_replayed),
        cmocka_unit_test(segments_are_listed_with_what_they_hold),
        cmocka_unit_test(a_small_memtable_is_sealed_again_and_again),
        cmocka_unit_test(an_old_memtable_is_sealed),
        cmocka_unit_test(traces_and_segments_larger_than_their_blocks_come_back),
        cmocka_unit_test(a_flipped_byte_anywhere_in_a_segment_is_detected_and_named),
        cmocka_unit_test(an_unfinished_segment_is_removed),
        cmocka_unit_test(views_are_whole_while_others_write_and_seal),
        cmocka_unit_test(many_senders_share_the_log),
        cmocka_unit_test(a_full_queue_says_busy_and_a_closed_store_answers_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
