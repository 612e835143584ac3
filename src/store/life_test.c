/* The store over time: retention, disk budget, pins, merging; what is damaged, missing or old. */
#include "store/fixture.h"

#include <dirent.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "store/local/catalogue.h"

static _Atomic uint64_t now_ns; /* the keeper reads it */

static uint64_t test_clock(void *arg)
{
    return now_ns;
}

static _Atomic uint64_t steady_ns; /* 0: goes with the other */

static uint64_t test_steady(void *arg)
{
    return steady_ns ? steady_ns : now_ns;
}

static const struct store_options timed = {
    .durability = STORE_DURABILITY_WRITE, .clock = test_clock, .steady_clock = test_steady};

/* `n` spans of one new trace that start at `start`, sealed. */
static struct trace_id seal_trace(struct fixture *f, uint64_t start, size_t n)
{
    struct span_batch batch = fixture_batch(f, n);
    struct trace_id id;
    uint64_t a = fixture_random(f, 0), b = fixture_random(f, 0);
    memcpy(id.bytes, &a, 8);
    memcpy(id.bytes + 8, &b, 8);
    for (size_t i = 0; i < batch.n; i++) {
        struct span *s = &batch.spans[i];
        s->trace_id = id;
        s->end_ns = start + 1000;
        s->start_ns = start + i;
        for (uint32_t k = 0; k < s->n_events; k++)
            ((struct event *)(uintptr_t)s->events)[k].time_ns = start;
    }
    struct str body = fixture_body(f, &batch);
    assert_int_equal(store_append_wait(f->store, BODY_OTLP_PROTOBUF, body, &batch), 0);
    assert_int_equal(store_seal(f->store), 0);
    return id;
}

static size_t spans_of(struct fixture *f, const struct trace_id *id)
{
    struct arena arena = ARENA_INIT;
    struct span_batch batch = {0};
    struct store_view *view = store_view_new(f->store);
    int err = store_trace(view, id, &arena, &batch);
    assert_true(err == 0 || err == ERR_NOT_FOUND);
    size_t n = batch.n;
    store_view_free(view);
    arena_done(&arena);
    return n;
}

static struct store_stats stats_of(struct fixture *f)
{
    struct store_stats stats;
    store_stats(f->store, &stats);
    return stats;
}

static size_t files_named(const char *path, const char *end)
{
    size_t n = 0;
    DIR *dir = opendir(path);
    for (struct dirent *e; (e = readdir(dir));)
        n += strlen(e->d_name) > strlen(end) &&
             !strcmp(e->d_name + strlen(e->d_name) - strlen(end), end);
    closedir(dir);
    return n;
}

#define DAY (86400 * NS_PER_S)

static void retention_drops_whole_segments_by_age(void **state)
{
    struct fixture f;
    struct store_options options = timed;
    options.retention.keep_ns = 7 * DAY;
    now_ns = 100 * DAY;
    fixture_init(&f, 1, &options);
    struct trace_id old = seal_trace(&f, 95 * DAY, 3), newer = seal_trace(&f, 99 * DAY, 4);
    assert_int_equal(store_keep(f.store, false), 0);
    assert_int_equal(spans_of(&f, &old), 3);
    now_ns = 103 * DAY;
    assert_int_equal(store_keep(f.store, false), 0);
    assert_int_equal(spans_of(&f, &old), 0);
    assert_int_equal(spans_of(&f, &newer), 4);
    assert_int_equal(stats_of(&f).expired_age_spans, 3);
    assert_int_equal(files_named(f.dir, ".seg"), 1);
    fixture_reopen(&f);
    assert_int_equal(spans_of(&f, &old), 0);
    assert_int_equal(spans_of(&f, &newer), 4);
    assert_int_equal(stats_of(&f).expired_age_spans, 3); /* the ledger outlives the process */
    now_ns = 200 * DAY;
    assert_int_equal(store_keep(f.store, false), 0);
    assert_int_equal(stats_of(&f).segments, 0);
    fixture_reopen(&f); /* nothing is left of it, and what comes is kept */
    struct trace_id fresh = seal_trace(&f, 200 * DAY, 2);
    fixture_reopen(&f);
    assert_int_equal(spans_of(&f, &fresh), 2);
    fixture_done(&f);
}

static void a_sender_whose_clock_is_ahead_keeps_nothing_forever(void **state)
{
    struct fixture f;
    struct store_options options = timed;
    options.retention.keep_ns = 7 * DAY;
    now_ns = 100 * DAY;
    fixture_init(&f, 2, &options);
    struct trace_id id = seal_trace(&f, 10000 * DAY, 3);
    now_ns = 106 * DAY;
    assert_int_equal(store_keep(f.store, false), 0);
    assert_int_equal(spans_of(&f, &id), 3);
    now_ns = 108 * DAY;
    assert_int_equal(store_keep(f.store, false), 0);
    assert_int_equal(spans_of(&f, &id), 0);
    fixture_done(&f);
}

static void the_disk_budget_drops_the_oldest(void **state)
{
    struct fixture f;
    struct store_options options = timed;
    now_ns = 100 * DAY;
    fixture_init(&f, 3, &options);
    struct trace_id ids[3];
    for (int i = 0; i < 3; i++)
        ids[i] = seal_trace(&f, (uint64_t)(50 + i) * DAY, 50);
    store_close(f.store);
    struct error_detail detail;
    struct store_stats stats;
    assert_int_equal(store_open(&f.options, &f.store, &detail), 0);
    stats = stats_of(&f);
    f.options.retention.disk_bytes_max = stats.segment_bytes + stats.log_bytes - 1;
    fixture_reopen(&f);
    assert_int_equal(store_keep(f.store, false), 0);
    stats = stats_of(&f);
    assert_true(stats.segment_bytes + stats.log_bytes <= f.options.retention.disk_bytes_max);
    assert_int_equal(spans_of(&f, &ids[0]), 0);
    assert_int_equal(spans_of(&f, &ids[1]), 50);
    assert_int_equal(spans_of(&f, &ids[2]), 50);
    assert_int_equal(stats.expired_disk_spans, 50);
    fixture_done(&f);
}

/* Spans that a round drops of three segments that take `total`, by the budget, with so much beside. */
static uint64_t dropped_with(uint64_t budget_quarters, uint64_t other_quarters)
{
    struct fixture f;
    struct store_options options = timed;
    now_ns = 100 * DAY;
    fixture_init(&f, 3, &options);
    for (int i = 0; i < 3; i++)
        (void)seal_trace(&f, (uint64_t)(50 + i) * DAY, 50);
    store_close(f.store); /* so that the log is as it stays */
    struct error_detail detail;
    assert_int_equal(store_open(&f.options, &f.store, &detail), 0);
    struct store_stats stats = stats_of(&f);
    uint64_t total = stats.segment_bytes + stats.log_bytes;
    struct store_retention retention = {.disk_bytes_max = budget_quarters * total / 4};
    store_disk_other(f.store, other_quarters * total / 4);
    assert_int_equal(store_retention_set(f.store, &retention), 0);
    assert_int_equal(store_keep(f.store, false), 0);
    uint64_t dropped = stats_of(&f).expired_disk_spans;
    fixture_done(&f);
    return dropped;
}

static void what_lies_beside_counts_in_the_budget_up_to_half_of_it(void **state)
{
    assert_int_equal(dropped_with(6, 0), 0);
    assert_int_equal(dropped_with(6, 1), 0);
    assert_int_equal(dropped_with(6, 3), 50);
    assert_int_equal(dropped_with(16, 1000), 0);
}

static void pinned_traces_outlive_retention(void **state)
{
    struct fixture f;
    struct store_options options = timed;
    options.retention.keep_ns = 7 * DAY;
    now_ns = 100 * DAY;
    fixture_init(&f, 4, &options);
    struct trace_id pinned = seal_trace(&f, 99 * DAY, 7), other = seal_trace(&f, 99 * DAY, 5);
    assert_int_equal(store_keep(f.store, true), 0); /* one segment with both */
    assert_int_equal(stats_of(&f).segments, 1);
    assert_int_equal(store_pin(f.store, &pinned), 0);
    assert_int_equal(store_pin(f.store, &pinned), 0); /* is pinned once */
    assert_int_equal(stats_of(&f).pins, 1);
    fixture_reopen(&f);
    now_ns = 120 * DAY;
    for (int again = 0; again < 2; again++) {
        assert_int_equal(store_keep(f.store, false), 0);
        assert_int_equal(spans_of(&f, &pinned), 7);
        assert_int_equal(spans_of(&f, &other), 0);
        assert_int_equal(stats_of(&f).expired_age_spans, 5);
        fixture_reopen(&f);
    }
    assert_int_equal(store_unpin(f.store, &pinned), 0);
    assert_int_equal(store_unpin(f.store, &pinned), ERR_NOT_FOUND);
    assert_int_equal(store_keep(f.store, false), 0);
    now_ns = 122 * DAY; /* a clock that is ahead of all that is stored is believed after a day */
    assert_int_equal(store_keep(f.store, false), 0);
    assert_int_equal(spans_of(&f, &pinned), 0);
    assert_int_equal(stats_of(&f).expired_age_spans, 12);
    fixture_done(&f);
}

static void a_clock_that_steps_forward_by_years_drops_nothing_for_a_day(void **state)
{
    struct fixture f;
    struct store_options options = timed;
    options.retention.keep_ns = 7 * DAY;
    now_ns = 100 * DAY;
    steady_ns = 5 * DAY;
    fixture_init(&f, 9, &options);
    struct trace_id id = seal_trace(&f, 99 * DAY, 3);
    assert_int_equal(store_keep(f.store, false), 0);
    log_set_level(LOG_LEVEL_OFF);
    for (int again = 0; again < 2; again++) { /* while it is open, and at the next opening */
        now_ns = 4000 * DAY;
        assert_int_equal(store_keep(f.store, false), 0);
        assert_int_equal(spans_of(&f, &id), 3);
        steady_ns += DAY / 2;
        assert_int_equal(store_keep(f.store, false), 0);
        assert_int_equal(spans_of(&f, &id), 3);
        if (!again)
            fixture_reopen(&f);
    }
    now_ns = 101 * DAY; /* somebody sets it right */
    assert_int_equal(store_keep(f.store, false), 0);
    assert_int_equal(spans_of(&f, &id), 3);
    now_ns = 4000 * DAY; /* or it is so */
    assert_int_equal(store_keep(f.store, false), 0);
    assert_int_equal(spans_of(&f, &id), 3);
    steady_ns += 2 * DAY;
    assert_int_equal(store_keep(f.store, false), 0);
    log_set_level(LOG_LEVEL_INFO);
    assert_int_equal(spans_of(&f, &id), 0);
    steady_ns = 0;
    fixture_done(&f);
}

/* ---- rules ---- */

static const struct predicate is_error = {.op = PREDICATE_EQ,
                                          .field = FIELD_STATUS,
                                          .value = {.type = VALUE_INT, .integer = STATUS_ERROR}};
static const struct predicate is_server = {
    .op = PREDICATE_EQ,
    .field = FIELD_KIND,
    .value = {.type = VALUE_INT, .integer = SPAN_KIND_SERVER}};

/* `n` spans of a new trace, one a step, sealed: of each three the first is an error and a server, the second a
 * server, the third neither. */
static struct trace_id seal_ruled(struct fixture *f, uint64_t start, uint64_t step, size_t n)
{
    struct span_batch batch = fixture_batch(f, n);
    struct trace_id id = {{1}};
    uint64_t a = fixture_random(f, 0);
    memcpy(id.bytes + 8, &a, 8);
    for (size_t i = 0; i < batch.n; i++) {
        struct span *s = &batch.spans[i];
        s->trace_id = id;
        s->start_ns = start + i * step;
        s->end_ns = s->start_ns + 1000;
        s->status_code = i % 3 == 0 ? STATUS_ERROR : STATUS_OK;
        s->kind = i % 3 < 2 ? SPAN_KIND_SERVER : SPAN_KIND_CLIENT;
        s->n_events = 0;
    }
    struct str body = fixture_body(f, &batch);
    assert_int_equal(store_append_wait(f->store, BODY_OTLP_PROTOBUF, body, &batch), 0);
    assert_int_equal(store_seal(f->store), 0);
    return id;
}

static void keep_at(struct fixture *f, uint64_t now)
{
    now_ns = now;
    assert_int_equal(store_keep(f->store, false), 0);
}

static uint64_t taken_by(struct fixture *f, const char *rule)
{
    struct arena arena = ARENA_INIT;
    struct store_rule_state *rules;
    size_t n;
    uint64_t disk, next, spans = UINT64_MAX;
    assert_int_equal(store_retention_state(f->store, &arena, &rules, &n, &disk, &next), 0);
    for (size_t i = 0; i < n; i++)
        if (str_eq(rules[i].text, str_from(rule)))
            spans = rules[i].spans;
    arena_done(&arena);
    return spans;
}

static const struct store_rule rules[] = {
    {.text = {"errors", 6}, .match = &is_error, .keep_ns = 30 * DAY},
    {.text = {"servers", 7}, .match = &is_server, .keep_ns = 14 * DAY},
};

static void the_first_rule_that_a_span_fulfils_says_how_long_it_stays(void **state)
{
    struct fixture f;
    struct store_options options = timed;
    options.retention = (struct store_retention){.rules = rules, .n_rules = 2, .keep_ns = 7 * DAY};
    now_ns = 100 * DAY;
    fixture_init(&f, 5, &options);
    struct trace_id id = seal_ruled(&f, 100 * DAY, 1, 9);
    keep_at(&f, 106 * DAY);
    assert_int_equal(spans_of(&f, &id), 9);
    keep_at(&f, 108 * DAY);
    assert_int_equal(spans_of(&f, &id), 6);
    assert_int_equal(taken_by(&f, ""), 3);
    fixture_reopen(&f);
    assert_int_equal(taken_by(&f, ""), 3); /* the counters outlive the process */
    keep_at(&f, 109 * DAY);
    assert_int_equal(spans_of(&f, &id), 6);
    keep_at(&f, 115 * DAY);
    assert_int_equal(spans_of(&f, &id), 3);
    assert_int_equal(taken_by(&f, "servers"), 3); /* and not the errors among them */
    keep_at(&f, 131 * DAY);
    assert_int_equal(spans_of(&f, &id), 0);
    assert_int_equal(taken_by(&f, "errors"), 3);
    assert_int_equal(taken_by(&f, "servers"), 3);
    struct store_stats stats = stats_of(&f);
    assert_int_equal(stats.expired_age_spans, 9);
    assert_int_equal(stats.segments, 0);
    assert_int_equal(files_named(f.dir, ".seg"), 0);
    /* All at once is counted by rule too. */
    seal_ruled(&f, 131 * DAY, 1, 9);
    keep_at(&f, 300 * DAY);
    assert_int_equal(taken_by(&f, "errors"), 6);
    assert_int_equal(taken_by(&f, "servers"), 6);
    assert_int_equal(taken_by(&f, ""), 6);
    fixture_done(&f);
}

static void spans_of_a_rule_that_keeps_them_for_ever_stay(void **state)
{
    struct fixture f;
    struct store_options options = timed;
    const struct store_rule forever = {.text = {"errors", 6}, .match = &is_error};
    options.retention =
        (struct store_retention){.rules = &forever, .n_rules = 1, .keep_ns = 7 * DAY};
    now_ns = 100 * DAY;
    fixture_init(&f, 6, &options);
    struct trace_id id = seal_ruled(&f, 100 * DAY, 1, 9), pinned = seal_ruled(&f, 100 * DAY, 1, 6);
    assert_int_equal(store_pin(f.store, &pinned), 0);
    assert_int_equal(store_keep(f.store, true), 0); /* both in one segment */
    keep_at(&f, 5000 * DAY);
    assert_int_equal(spans_of(&f, &id), 3);
    assert_int_equal(spans_of(&f, &pinned), 6); /* rules or not */
    assert_int_equal(taken_by(&f, ""), 6);
    fixture_done(&f);
}

static void a_segment_of_a_long_time_loses_the_old_part_of_it(void **state)
{
    struct fixture f;
    struct store_options options = timed;
    options.retention = (struct store_retention){.rules = rules, .n_rules = 2, .keep_ns = 8 * DAY};
    now_ns = 140 * DAY;
    fixture_init(&f, 7, &options);
    struct trace_id id = seal_ruled(&f, 110 * DAY, DAY, 30); /* until the 139th */
    keep_at(&f, 140 * DAY);
    /* Errors since the 110th day, servers since the 126th, others since the 132nd. */
    assert_int_equal(spans_of(&f, &id), 10 + 5 + 3);
    uint64_t rewritten = stats_of(&f).rewritten_bytes;
    keep_at(&f, 141 * DAY); /* a day more is not worth it */
    assert_int_equal(stats_of(&f).rewritten_bytes, rewritten);
    keep_at(&f, 143 * DAY);
    assert_int_equal(spans_of(&f, &id), 9 + 4 + 2);
    fixture_done(&f);
}

static void other_rules_come_into_force_while_the_store_is_open(void **state)
{
    struct fixture f;
    struct store_options options = timed;
    now_ns = 100 * DAY;
    fixture_init(&f, 8, &options);
    struct trace_id id = seal_ruled(&f, 100 * DAY, 1, 9);
    keep_at(&f, 300 * DAY);
    assert_int_equal(spans_of(&f, &id), 9);
    struct store_retention retention = {.rules = &rules[0], .n_rules = 1, .keep_ns = 300 * DAY};
    assert_int_equal(store_retention_set(f.store, &retention), 0);
    assert_int_equal(store_keep(f.store, false), 0);
    assert_int_equal(spans_of(&f, &id), 6);
    retention.n_rules = 0;
    assert_int_equal(store_retention_set(f.store, &retention), 0);
    assert_int_equal(taken_by(&f, "errors"), UINT64_MAX);
    retention.n_rules = 1;
    assert_int_equal(store_retention_set(f.store, &retention), 0);
    assert_int_equal(taken_by(&f, "errors"), 3); /* is remembered */
    retention.n_rules = STORE_RULES_MAX + 1;
    assert_int_equal(store_retention_set(f.store, &retention), ERR_TOO_LARGE);
    assert_int_equal(taken_by(&f, "errors"), 3);
    fixture_done(&f);
}

static void merged_segments_answer_the_same(void **state)
{
    for (uint64_t seed = 10; seed < 16; seed++) {
        struct fixture f;
        struct store_options options = {.durability = STORE_DURABILITY_WRITE};
        fixture_init(&f, seed, &options);
        struct store_view *before = NULL;
        size_t n_before = 0;
        for (int i = 0; i < 7; i++) { /* parts of the same traces, again and again */
            struct span_batch batch = fixture_batch(&f, 1 + fixture_random(&f, 300));
            fixture_append(&f, &batch);
            assert_int_equal(store_seal(f.store), 0);
            if (i == 1) { /* two are not merged unasked */
                before = store_view_new(f.store);
                n_before = f.n;
            }
        }
        assert_int_equal(store_keep(f.store, true), 0);
        struct store_stats stats = stats_of(&f);
        assert_int_equal(stats.segments, 1);
        assert_true(stats.rewritten_bytes > 0);
        /* A view that was made before keeps the files that it reads. */
        struct arena arena = ARENA_INIT;
        struct span_batch got;
        for (size_t i = 0; i < n_before; i += 17)
            assert_int_equal(store_trace(before, &f.spans[i].trace_id, &arena, &got), 0);
        assert_false(store_view_is_damaged(before));
        assert_true(files_named(f.dir, ".seg") > 1);
        store_view_free(before);
        assert_int_equal(files_named(f.dir, ".seg"), 1);
        arena_done(&arena);
        fixture_check(&f); /* sorts what it compares with */
        fixture_check_scans(&f, 10);
        fixture_reopen(&f);
        fixture_check(&f);
        fixture_done(&f);
    }
}

static void a_large_trace_is_merged_whole(void **state)
{
    struct fixture f;
    struct store_options options = {.durability = STORE_DURABILITY_WRITE};
    now_ns = 100 * DAY;
    fixture_init(&f, 20, &options);
    struct trace_id id = seal_trace(&f, 50 * DAY, 9000); /* more than a group */
    size_t other = 0;
    for (int i = 0; i < 3; i++) {
        struct span_batch batch = fixture_batch(&f, 5000);
        for (size_t k = 0; k < batch.n; k++)
            if (k % 3 == 0)
                batch.spans[k].trace_id = id;
        other += (batch.n + 2) / 3;
        struct str body = fixture_body(&f, &batch);
        assert_int_equal(store_append_wait(f.store, BODY_OTLP_PROTOBUF, body, &batch), 0);
        assert_int_equal(store_seal(f.store), 0);
    }
    assert_int_equal(spans_of(&f, &id), 9000 + other);
    assert_int_equal(store_keep(f.store, true), 0);
    assert_int_equal(stats_of(&f).segments, 1);
    assert_int_equal(spans_of(&f, &id), 9000 + other);
    fixture_done(&f);
}

/* A memtable's size bounds what is merged, and each byte is rewritten a few times at most. */
static void merging_is_bounded(void **state)
{
    struct fixture f;
    struct store_options options = {.durability = STORE_DURABILITY_WRITE,
                                    .memtable_bytes_max = 1 << 20};
    fixture_init(&f, 21, &options);
    for (int i = 0; i < 120; i++) {
        struct span_batch batch = fixture_batch(&f, 40);
        fixture_append(&f, &batch);
        assert_int_equal(store_seal(f.store), 0);
        assert_int_equal(store_keep(f.store, false), 0);
    }
    struct store_stats stats = stats_of(&f);
    print_message("# %llu segments, %llu sealed, %llu rewritten\n",
                  (unsigned long long)stats.segments, (unsigned long long)stats.sealed_bytes,
                  (unsigned long long)stats.rewritten_bytes);
    assert_true(stats.segments < 30);
    assert_true(stats.rewritten_bytes < 6 * stats.sealed_bytes);
    fixture_check(&f);
    fixture_done(&f);
}

/* ---- damage ---- */

static void byte_flip(const char *dir, const char *name, off_t at)
{
    char path[200], byte;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 0x40;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

static off_t size_of(const char *dir, const char *name)
{
    char path[200];
    struct stat s;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_int_equal(stat(path, &s), 0);
    return s.st_size;
}

struct told {
    size_t n;
    char file[64];
};

static void tell(void *arg, const struct store_finding *finding)
{
    struct told *told = arg;
    if (finding->is_note)
        return;
    told->n++;
    snprintf(told->file, sizeof told->file, "%s", finding->file);
}

static uint64_t verify(const char *dir, struct told *told)
{
    struct store_verified v;
    struct error_detail detail = {0};
    *told = (struct told){0};
    int err = store_verify(dir, tell, told, &v, &detail);
    if (err)
        fail_msg("store_verify: %s: %s", err_name(err), detail.message);
    assert_int_equal(v.damaged, told->n);
    return v.segment_spans + v.log_spans;
}

/* A store with two segments and a log, that nobody has open. */
static void damaged_init(struct fixture *f)
{
    struct store_options options = {.durability = STORE_DURABILITY_WRITE};
    fixture_init(f, 30, &options);
    for (int i = 0; i < 3; i++) {
        struct span_batch batch = fixture_batch(f, 60);
        fixture_append(f, &batch);
        if (i < 2)
            assert_int_equal(store_seal(f->store), 0);
    }
    char copy[64];
    fixture_copy_files(f, copy, sizeof copy);
    store_close(f->store);
    f->store = NULL;
    DIR *dir = opendir(f->dir);
    for (struct dirent *e; (e = readdir(dir));)
        if (e->d_name[0] != '.')
            unlinkat(dirfd(dir), e->d_name, 0);
    closedir(dir);
    static const char *const parts[] = {"seg-", "log-", "catalogue", "lock"};
    for (int i = 0; i < 4; i++)
        fixture_copy_back(f, copy, parts[i]);
    struct fixture gone = {0};
    snprintf(gone.dir, sizeof gone.dir, "%s", copy);
    fixture_done(&gone);
}

static void any_flipped_byte_of_a_segment_or_the_log_is_named(void **state)
{
    struct fixture f;
    struct told told;
    damaged_init(&f);
    assert_int_equal(verify(f.dir, &told), 180);
    assert_int_equal(told.n, 0);
    static const char *const names[] = {"seg-0000000000000001.seg", "seg-0000000000000002.seg",
                                        NULL};
    char log_name[64] = "";
    DIR *dir = opendir(f.dir);
    for (struct dirent *e; (e = readdir(dir));)
        if (!strncmp(e->d_name, "log-", 4))
            snprintf(log_name, sizeof log_name, "%.63s", e->d_name);
    closedir(dir);
    assert_true(log_name[0]);
    log_set_level(LOG_LEVEL_OFF);
    for (int i = 0; i < 3; i++) {
        const char *name = names[i] ? names[i] : log_name;
        off_t size = size_of(f.dir, name), step = i == 1 ? 61 : 127; /* store_test has every byte */
        for (off_t at = 0; at < size; at += step) {
            byte_flip(f.dir, name, at);
            uint64_t spans = verify(f.dir, &told);
            /* Zeros behind a record, up to a multiple of 8, say nothing. */
            if (!told.n && i == 2 && at + 8 > size) {
                byte_flip(f.dir, name, at);
                continue;
            }
            if (!told.n || strcmp(told.file, name))
                fail_msg("%s at %lld: %zu findings, the last in \"%s\"", name, (long long)at,
                         told.n, told.file);
            assert_true(spans < 180);
            byte_flip(f.dir, name, at);
        }
    }
    log_set_level(LOG_LEVEL_INFO);
    assert_int_equal(verify(f.dir, &told), 180);
    fixture_done(&f);
}

static int dump_segment(void *arg, const struct segment_info *info, bool is_damaged)
{
    buf_put(arg, info, sizeof *info);
    return is_damaged ? ERR_CORRUPT : 0;
}

static int dump_removed(void *arg, const char *name)
{
    buf_cstr(arg, name);
    return 0;
}

static int dump_pin(void *arg, const struct trace_id *id, uint64_t made_ns, bool is_damaged)
{
    buf_put(arg, id, sizeof *id);
    buf_put(arg, &made_ns, sizeof made_ns);
    return is_damaged ? ERR_CORRUPT : 0;
}

/* Everything that is read of a catalogue. */
static int dump_catalogue(const char *dir, struct buf *out)
{
    struct catalogue *c;
    struct catalogue_position position = {0};
    uint64_t counters[COUNTERS];
    int err = catalogue_open(dir, CATALOGUE_READ, &c, NULL);
    if (err)
        return err;
    err = catalogue_segments(c, dump_segment, out);
    if (!err)
        err = catalogue_position(c, &position);
    buf_put(out, &position.sealed, sizeof position.sealed);
    if (!err)
        err = catalogue_removed(c, dump_removed, out);
    if (!err)
        err = catalogue_pins(c, dump_pin, out);
    if (!err)
        err = catalogue_counters(c, counters);
    buf_put(out, counters, sizeof counters);
    catalogue_close(c);
    return err ? err : position.is_damaged ? ERR_CORRUPT : 0;
}

static void any_flipped_byte_of_the_catalogue_is_named_or_says_nothing(void **state)
{
    struct fixture f;
    struct told told;
    struct buf whole = BUF_INIT, now = BUF_INIT;
    size_t named = 0, silent = 0;
    damaged_init(&f);
    f.options.durability = STORE_DURABILITY_WRITE;
    assert_int_equal(store_open(&f.options, &f.store, NULL), 0);
    assert_int_equal(store_pin(f.store, &f.spans[0].trace_id), 0);
    store_close(f.store);
    f.store = NULL;
    assert_int_equal(dump_catalogue(f.dir, &whole), 0);
    off_t size = size_of(f.dir, "catalogue.db");
    log_set_level(LOG_LEVEL_OFF);
    for (off_t at = 0; at < size; at += at < 4096 ? 61 : 127) {
        byte_flip(f.dir, "catalogue.db", at);
        struct store_verified v;
        struct error_detail detail = {0};
        told = (struct told){0};
        int err = store_verify(f.dir, tell, &told, &v, &detail);
        buf_clear(&now);
        if (err || told.n) {
            named++;
        } else if (dump_catalogue(f.dir, &now) || now.len != whole.len ||
                   memcmp(now.ptr, whole.ptr, now.len)) {
            fail_msg("catalogue.db at %lld: read as something else, and nothing was told",
                     (long long)at);
        } else {
            silent++;
        }
        byte_flip(f.dir, "catalogue.db", at);
    }
    log_set_level(LOG_LEVEL_INFO);
    print_message("# %zu named, %zu carry nothing\n", named, silent);
    assert_true(named > 3);
    buf_done(&whole);
    buf_done(&now);
    fixture_done(&f);
}

/* What is left is served, and what is not is told. */
static void the_rest_of_a_damaged_store_is_served(void **state)
{
    struct fixture f;
    damaged_init(&f);
    struct span *spans = f.spans;
    log_set_level(LOG_LEVEL_OFF);
    off_t size = size_of(f.dir, "seg-0000000000000001.seg");
    for (int where = 0; where < 4; where++) {
        const off_t at[] = {70, size / 2, size - 40, size - 1};
        byte_flip(f.dir, "seg-0000000000000001.seg", at[where]);
        assert_int_equal(store_open(&f.options, &f.store, NULL), 0);
        struct store_view *view = store_view_new(f.store);
        struct arena arena = ARENA_INIT;
        size_t served = 0, damaged = 0;
        for (size_t i = 0; i < f.n; i++) {
            struct span_batch got;
            int err = store_trace(view, &spans[i].trace_id, &arena, &got);
            assert_true(err == 0 || err == ERR_CORRUPT);
            for (size_t k = 0; !err && k < got.n; k++)
                served += !memcmp(&got.spans[k].span_id, &spans[i].span_id, sizeof spans->span_id);
            damaged += err != 0;
        }
        assert_true(served >= 120);
        assert_true(!damaged == (served >= 180));
        struct str *names;
        size_t n;
        assert_int_equal(store_services(view, &arena, &names, &n), 0);
        assert_true(n > 0);
        if (served < 180) {
            assert_true(store_view_is_damaged(view));
            assert_int_equal(stats_of(&f).damaged_segments, 1);
        }
        store_view_free(view);
        arena_done(&arena);
        store_close(f.store);
        f.store = NULL;
        byte_flip(f.dir, "seg-0000000000000001.seg", at[where]);
    }
    log_set_level(LOG_LEVEL_INFO);
    assert_int_equal(store_open(&f.options, &f.store, NULL), 0);
    fixture_check(&f);
    fixture_done(&f);
}

static void a_missing_or_short_segment_is_told_and_the_rest_served(void **state)
{
    static const char name[] = "seg-0000000000000001.seg";
    struct fixture f;
    damaged_init(&f);
    int dir = open(f.dir, O_RDONLY | O_DIRECTORY);
    assert_true(dir >= 0);
    assert_int_equal(renameat(dir, name, dir, "away"), 0);
    log_set_level(LOG_LEVEL_OFF);
    for (int round = 0; round < 2; round++) {
        struct told told;
        verify(f.dir, &told);
        assert_int_equal(told.n, 1);
        assert_string_equal(told.file, name);
        assert_int_equal(store_open(&f.options, &f.store, NULL), 0);
        struct store_stats stats = stats_of(&f);
        assert_int_equal(stats.damaged_segments, 1);
        assert_int_equal(stats.lost_spans, 60);
        assert_int_equal(stats.spans, 120);
        store_close(f.store);
        f.store = NULL;
        if (!round) { /* a part of it */
            assert_int_equal(linkat(dir, "away", dir, "whole", 0), 0);
            assert_int_equal(unlinkat(dir, "away", 0), 0);
            char command[200];
            snprintf(command, sizeof command, "head -c 500 %s/whole > %s/%s", f.dir, f.dir, name);
            assert_int_equal(system(command), 0);
        }
    }
    log_set_level(LOG_LEVEL_INFO);
    assert_int_equal(renameat(dir, "whole", dir, name), 0);
    assert_int_equal(store_open(&f.options, &f.store, NULL), 0);
    fixture_check(&f);
    close(dir);
    fixture_done(&f);
}

static void sql(const struct fixture *f, const char *text)
{
    char path[100];
    sqlite3 *db;
    snprintf(path, sizeof path, "%s/catalogue.db", f->dir);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    char *wrong = NULL;
    if (sqlite3_exec(db, text, NULL, NULL, &wrong))
        fail_msg("%s: %s", text, wrong);
    sqlite3_close(db);
}

static void a_damaged_row_is_made_again_from_its_file(void **state)
{
    struct fixture f;
    struct told told;
    damaged_init(&f);
    sql(&f, "UPDATE segments SET spans=spans+1, start_min=0 WHERE id=1; UPDATE position SET "
            "sealed=sealed+64;");
    verify(f.dir, &told);
    assert_true(told.n >= 2);
    assert_string_equal(told.file, "catalogue.db");
    log_set_level(LOG_LEVEL_OFF);
    assert_int_equal(store_open(&f.options, &f.store, NULL), 0);
    log_set_level(LOG_LEVEL_INFO);
    fixture_check(&f);
    store_close(f.store);
    f.store = NULL;
    verify(f.dir, &told); /* and is written so */
    assert_int_equal(told.n, 0);
    assert_int_equal(store_open(&f.options, &f.store, NULL), 0);
    fixture_check(&f);
    fixture_done(&f);
}

static void a_catalogue_of_version_1_is_taken_over(void **state)
{
    struct fixture f;
    damaged_init(&f);
    sql(&f,
        "CREATE TABLE p(sealed INTEGER NOT NULL); INSERT INTO p SELECT sealed FROM position;"
        "CREATE TABLE s(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, bytes INTEGER NOT NULL,"
        " spans INTEGER NOT NULL, traces INTEGER NOT NULL, start_min INTEGER NOT NULL,"
        " start_max INTEGER NOT NULL, sealed INTEGER NOT NULL);"
        "INSERT INTO s SELECT id,name,bytes,spans,traces,start_min,start_max,sealed FROM segments;"
        "DROP TABLE position; DROP TABLE segments; DROP TABLE removed; DROP TABLE pins;"
        "DROP TABLE counters; DROP TABLE rules; DROP TABLE erasures; ALTER TABLE p RENAME TO "
        "position; ALTER TABLE s RENAME TO segments;"
        "PRAGMA user_version=1;");
    struct told told;
    verify(f.dir, &told); /* reads it as it is */
    assert_int_equal(told.n, 0);
    assert_int_equal(store_open(&f.options, &f.store, NULL), 0);
    fixture_check(&f);
    struct span_batch batch = fixture_batch(&f, 10);
    fixture_append(&f, &batch);
    assert_int_equal(store_seal(f.store), 0);
    assert_int_equal(store_keep(f.store, true), 0);
    fixture_reopen(&f);
    fixture_check(&f);
    store_close(f.store);
    f.store = NULL;
    verify(f.dir, &told);
    assert_int_equal(told.n, 0);
    /* And one that a later version wrote is left alone. */
    sql(&f, "PRAGMA user_version=4;");
    struct error_detail detail = {0};
    struct store_verified v;
    assert_int_equal(store_open(&f.options, &f.store, &detail), ERR_UNSUPPORTED);
    assert_non_null(strstr(detail.message, "version 4"));
    assert_int_equal(store_verify(f.dir, tell, &told, &v, &detail), ERR_UNSUPPORTED);
    f.store = NULL;
    sql(&f, "PRAGMA user_version=3;");
    assert_int_equal(store_open(&f.options, &f.store, &detail), 0);
    fixture_done(&f);
}

static void a_store_that_is_open_or_is_none_is_not_inspected(void **state)
{
    struct fixture f;
    struct told told;
    struct store_verified v;
    struct store_description d;
    struct error_detail detail;
    struct arena arena = ARENA_INIT;
    fixture_init(&f, 40, NULL);
    assert_int_equal(store_verify(f.dir, tell, &told, &v, &detail), ERR_BUSY);
    assert_int_equal(store_describe(f.dir, &arena, &d, &detail), ERR_BUSY);
    assert_int_equal(store_verify("/proc", tell, &told, &v, &detail), ERR_NOT_FOUND);
    assert_int_equal(store_verify("/nowhere/at/all", tell, &told, &v, &detail), ERR_NOT_FOUND);
    arena_done(&arena);
    fixture_done(&f);
}

static void a_description_accounts_for_every_byte(void **state)
{
    struct fixture f;
    struct store_description d;
    struct error_detail detail;
    struct arena arena = ARENA_INIT;
    fixture_init(&f, 41, NULL);
    for (int i = 0; i < 3; i++) {
        struct span_batch batch = fixture_batch(&f, 200);
        fixture_append(&f, &batch);
        assert_int_equal(store_seal(f.store), 0);
    }
    uint64_t bytes = stats_of(&f).segment_bytes, sum = 0, spans = 0;
    store_close(f.store);
    f.store = NULL;
    assert_int_equal(store_describe(f.dir, &arena, &d, &detail), 0);
    for (size_t i = 0; i < d.n_columns; i++)
        sum += d.columns[i].bytes;
    for (size_t i = 0; i < d.n_services; i++)
        spans += d.services[i].span_count;
    assert_int_equal(d.spans, 600);
    assert_int_equal(spans, 600);
    assert_int_equal(d.segment_bytes, bytes);
    assert_int_equal(sum, bytes);
    assert_int_equal(d.sealed_bytes, bytes);
    arena_done(&arena);
    assert_int_equal(store_open(&f.options, &f.store, &detail), 0);
    fixture_done(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(retention_drops_whole_segments_by_age),
        cmocka_unit_test(a_sender_whose_clock_is_ahead_keeps_nothing_forever),
        cmocka_unit_test(the_disk_budget_drops_the_oldest),
        cmocka_unit_test(what_lies_beside_counts_in_the_budget_up_to_half_of_it),
        cmocka_unit_test(pinned_traces_outlive_retention),
        cmocka_unit_test(a_clock_that_steps_forward_by_years_drops_nothing_for_a_day),
        cmocka_unit_test(the_first_rule_that_a_span_fulfils_says_how_long_it_stays),
        cmocka_unit_test(spans_of_a_rule_that_keeps_them_for_ever_stay),
        cmocka_unit_test(a_segment_of_a_long_time_loses_the_old_part_of_it),
        cmocka_unit_test(other_rules_come_into_force_while_the_store_is_open),
        cmocka_unit_test(merged_segments_answer_the_same),
        cmocka_unit_test(a_large_trace_is_merged_whole),
        cmocka_unit_test(merging_is_bounded),
        cmocka_unit_test(any_flipped_byte_of_a_segment_or_the_log_is_named),
        cmocka_unit_test(any_flipped_byte_of_the_catalogue_is_named_or_says_nothing),
        cmocka_unit_test(the_rest_of_a_damaged_store_is_served),
        cmocka_unit_test(a_missing_or_short_segment_is_told_and_the_rest_served),
        cmocka_unit_test(a_damaged_row_is_made_again_from_its_file),
        cmocka_unit_test(a_catalogue_of_version_1_is_taken_over),
        cmocka_unit_test(a_store_that_is_open_or_is_none_is_not_inspected),
        cmocka_unit_test(a_description_accounts_for_every_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
