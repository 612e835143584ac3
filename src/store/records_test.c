#include "store/records.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/test.h"
#include "store/local/file.h"

#define START UINT64_C(1700000000000000000)

struct fixture {
    char dir[64];
    struct records *r;
    struct records_options options;
    uint64_t now_ns;
};

static uint64_t clock_fn(void *arg)
{
    return ((struct fixture *)arg)->now_ns;
}

static void open_again(struct fixture *f)
{
    struct error_detail detail = {0};
    records_close(f->r);
    f->r = NULL;
    int err = records_open(&f->options, &f->r, &detail);
    if (err)
        fail_msg("%s: %s", err_text(err), detail.message);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    strcpy(f->dir, "/tmp/pugmark-records-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    f->now_ns = START;
    f->options = (struct records_options){
        .dir = f->dir, .durability = STORE_DURABILITY_WRITE, .clock = clock_fn, .clock_arg = f};
    open_again(f);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    records_close(f->r);
    DIR *dir = opendir(f->dir);
    for (struct dirent *e; dir && (e = readdir(dir));)
        unlinkat(dirfd(dir), e->d_name, 0);
    closedir(dir);
    rmdir(f->dir);
    free(f);
    return 0;
}

/* ---- what is put in: record `i` says all of itself in its body ---- */

enum { TRACES = 7, SERVICES = 3 };

struct made {
    struct resource resource;
    struct attr service;
    struct scope scope;
    struct attr attr;
    char text[64];
};

static struct trace_id trace_of(unsigned i)
{
    struct trace_id id = {{0}};
    if (i % (TRACES + 1)) /* some are of none */
        id.bytes[0] = (uint8_t)(i % (TRACES + 1)), id.bytes[15] = 9;
    return id;
}

static uint64_t time_of(unsigned i)
{
    return START - (uint64_t)(i * 7919 % 1000) * NS_PER_S;
}

static void log_make(unsigned i, struct made *m, struct log_record *ret)
{
    static const char *const names[] = {"front", "api", "db"};
    m->service = (struct attr){STR("service.name"),
                               {.type = VALUE_STRING, .string = str_from(names[i % SERVICES])}};
    m->resource = (struct resource){.attrs = {&m->service, 1, 0}, .schema_url = STR("")};
    resource_set_service_name(&m->resource);
    m->scope = (struct scope){.name = STR("lib"), .version = STR("1"), .schema_url = STR("")};
    m->attr = (struct attr){STR("n"), {.type = VALUE_INT, .integer = i}};
    snprintf(m->text, sizeof m->text, "line %u", i);
    *ret = (struct log_record){
        .time_ns = time_of(i),
        .observed_time_ns = i % 2 ? time_of(i) + 5 : 0,
        .trace_id = trace_of(i),
        .span_id = {{0, 0, 0, 0, 0, 0, 1, (uint8_t)i}},
        .flags = 1,
        .severity = (uint8_t)(1 + i % SEVERITY_MAX),
        .severity_text = STR("INFO"),
        .event_name = STR(""),
        .body = {.type = VALUE_STRING, .string = str_from(m->text)},
        .attrs = {&m->attr, 1, 2},
        .resource = &m->resource,
        .scope = &m->scope,
    };
}

static void put_logs(struct fixture *f, unsigned first, unsigned n)
{
    struct made *made = calloc(n, sizeof *made);
    struct log_record *logs = calloc(n, sizeof *logs);
    struct records_refused refused;
    for (unsigned i = 0; i < n; i++)
        log_make(first + i, &made[i], &logs[i]);
    const struct records_batch batch = {.logs = logs, .n_logs = n};
    assert_int_equal(records_append_wait(f->r, &batch, &refused), 0);
    assert_int_equal(refused.too_large + refused.too_many_series, 0);
    free(made);
    free(logs);
}

static void assert_log(const struct log_record *got, unsigned i)
{
    struct made m;
    struct log_record want;
    log_make(i, &m, &want);
    assert_int_equal(got->time_ns, want.time_ns);
    assert_int_equal(got->observed_time_ns, want.observed_time_ns);
    assert_memory_equal(&got->trace_id, &want.trace_id, TRACE_ID_SIZE);
    assert_memory_equal(&got->span_id, &want.span_id, SPAN_ID_SIZE);
    assert_int_equal(got->flags, want.flags);
    assert_int_equal(got->severity, want.severity);
    assert_str_eq(got->severity_text, want.severity_text);
    assert_true(value_eq(&got->body, &want.body));
    assert_int_equal(got->attrs.n, 1);
    assert_int_equal(got->attrs.dropped, 2);
    assert_int_equal(got->attrs.items[0].value.integer, i);
    assert_str_eq(got->resource->service_name, want.resource->service_name);
    assert_str_eq(got->scope->name, want.scope->name);
}

/* All that a query gives, page by page. Returns how many. */
static unsigned check_logs(struct fixture *f, struct records_logs q, unsigned n_put)
{
    bool *seen = calloc(n_put + 1, 1);
    unsigned n_seen = 0, n_wanted = 0;
    uint64_t last_time = 0;
    bool more = true;
    for (bool first = true; more; first = false) {
        struct arena arena = ARENA_INIT;
        struct records_log *logs;
        size_t n;
        assert_int_equal(records_logs(f->r, &q, &arena, &logs, &n, &more, NULL), 0);
        assert_true(n <= q.limit);
        for (size_t i = 0; i < n; i++) {
            unsigned number = (unsigned)logs[i].record.attrs.items[0].value.integer;
            assert_in_range(number, 0, n_put - 1);
            assert_false(seen[number]);
            seen[number] = true;
            n_seen++;
            assert_log(&logs[i].record, number);
            uint64_t time = logs[i].record.time_ns;
            if (!first || i)
                assert_true(q.has_trace ? time >= last_time : time <= last_time);
            last_time = time;
        }
        if (n) {
            q.after_time_ns = logs[n - 1].record.time_ns;
            q.after_ordinal = logs[n - 1].ordinal;
        }
        arena_done(&arena);
    }
    for (unsigned i = 0; i < n_put; i++) {
        struct made m;
        struct log_record r;
        log_make(i, &m, &r);
        bool wanted = (!q.has_trace || !trace_id_cmp(&r.trace_id, &q.trace_id)) &&
                      r.time_ns >= q.time_min_ns &&
                      (!q.time_max_ns || r.time_ns <= q.time_max_ns) &&
                      (!q.service.len || str_eq(q.service, m.resource.service_name)) &&
                      r.severity >= q.severity_min;
        if (wanted != seen[i])
            fail_msg("record %u is %s", i, wanted ? "missing" : "too much");
        n_wanted += wanted;
    }
    free(seen);
    assert_int_equal(n_seen, n_wanted);
    return n_seen;
}

static void check_all(struct fixture *f, unsigned n)
{
    assert_int_equal(check_logs(f, (struct records_logs){.limit = 37}, n), n);
    unsigned of_traces = 0;
    for (unsigned t = 1; t <= TRACES; t++)
        of_traces += check_logs(
            f, (struct records_logs){.has_trace = true, .trace_id = trace_of(t), .limit = 11}, n);
    assert_true(n < 20 || of_traces > 0);
    check_logs(f, (struct records_logs){.limit = 50, .service = STR("api")}, n);
    check_logs(f, (struct records_logs){.limit = 50, .severity_min = 17}, n);
    check_logs(f,
               (struct records_logs){.limit = 50,
                                     .time_min_ns = START - 500 * NS_PER_S,
                                     .time_max_ns = START - 100 * NS_PER_S},
               n);
}

static size_t count_files(const struct fixture *f, const char *start)
{
    size_t n = 0;
    DIR *dir = opendir(f->dir);
    for (struct dirent *e; (e = readdir(dir));)
        n += !strncmp(e->d_name, start, strlen(start));
    closedir(dir);
    return n;
}

/* ---- logs ---- */

static void logs_are_found_by_trace_by_time_and_by_service(void **state)
{
    struct fixture *f = *state;
    put_logs(f, 0, 300);
    check_all(f, 300);
    assert_int_equal(records_keep(f->r), 0); /* now from a file */
    assert_int_equal(count_files(f, "rec-"), 1);
    check_all(f, 300);
    put_logs(f, 300, 100); /* and from both */
    check_all(f, 400);
    open_again(f);
    check_all(f, 400);
}

static void many_blocks_and_many_files_say_the_same(void **state)
{
    struct fixture *f = *state;
    unsigned n = 0;
    for (int file = 0; file < 5; file++) {
        for (int i = 0; i < 5; i++, n += 1000)
            put_logs(f, n, 1000);
        assert_int_equal(records_keep(f->r), 0);
    }
    struct records_logs q = {.limit = 10};
    struct arena arena = ARENA_INIT;
    struct records_log *logs;
    struct records_cost cost;
    size_t got;
    bool more;
    q.has_trace = true;
    q.trace_id = (struct trace_id){{77}};
    assert_int_equal(records_logs(f->r, &q, &arena, &logs, &got, &more, &cost), 0);
    assert_int_equal(got, 0);
    assert_int_equal(cost.files_pruned, 5); /* no file has that trace, and none was read */
    q.trace_id = trace_of(3);
    assert_int_equal(records_logs(f->r, &q, &arena, &logs, &got, &more, &cost), 0);
    assert_int_equal(got, 10);
    assert_true(more);
    assert_true(cost.blocks_read > 0 && cost.rows_read < n / 2); /* not all blocks */
    arena_done(&arena);
    check_logs(f, (struct records_logs){.limit = 5000}, n);
    check_logs(f, (struct records_logs){.has_trace = true, .trace_id = trace_of(5), .limit = 900},
               n);
}

static void what_was_acknowledged_is_there_after_a_kill(void **state)
{
    struct fixture *f = *state;
    put_logs(f, 0, 50);
    assert_int_equal(records_keep(f->r), 0);
    put_logs(f, 50, 70);
    /* The directory as a kill leaves it: a copy while the other is open. */
    char copy[80], command[300];
    snprintf(copy, sizeof copy, "%s-copy", f->dir);
    snprintf(command, sizeof command, "cp -r %s %s", f->dir, copy);
    assert_int_equal(system(command), 0);
    struct fixture other = *f;
    other.options.dir = copy;
    other.options.clock_arg = f;
    other.r = NULL;
    open_again(&other);
    check_all(&other, 120);
    records_close(other.r);
    snprintf(command, sizeof command, "rm -r %s", copy);
    assert_int_equal(system(command), 0);
}

static void small_files_are_merged_and_nothing_changes(void **state)
{
    struct fixture *f = *state;
    for (unsigned i = 0; i < 20; i++) {
        put_logs(f, i * 10, 10);
        assert_int_equal(records_keep(f->r), 0);
    }
    assert_true(count_files(f, "rec-") < 10);
    check_all(f, 200);
    open_again(f);
    check_all(f, 200);
}

static void files_that_were_merged_go_at_the_next_opening(void **state)
{
    struct fixture *f = *state;
    char command[300];
    for (unsigned i = 0; i < 7; i++) {
        put_logs(f, i * 10, 10);
        assert_int_equal(records_keep(f->r), 0);
    }
    /* As a kill between the rename and the last unlink would leave them. */
    snprintf(command, sizeof command, "mkdir %s-k && cp %s/rec-* %s-k/", f->dir, f->dir, f->dir);
    assert_int_equal(system(command), 0);
    put_logs(f, 70, 10);
    assert_int_equal(records_keep(f->r), 0);
    assert_int_equal(count_files(f, "rec-"), 1);
    records_close(f->r);
    f->r = NULL;
    snprintf(command, sizeof command, "cp %s-k/rec-* %s/ && rm -r %s-k", f->dir, f->dir, f->dir);
    assert_int_equal(system(command), 0);
    open_again(f);
    check_all(f, 80);
    assert_int_equal(count_files(f, "rec-"), 1);
}

static void old_records_are_not_shown_and_their_files_go(void **state)
{
    struct fixture *f = *state;
    f->options.retention_ns = 3600 * NS_PER_S;
    open_again(f);
    put_logs(f, 0, 100);
    assert_int_equal(records_keep(f->r), 0);
    f->now_ns += 2 * 3600 * NS_PER_S;
    struct arena arena = ARENA_INIT;
    struct records_logs q = {.limit = 10};
    struct records_log *logs;
    size_t n;
    bool more;
    assert_int_equal(records_logs(f->r, &q, &arena, &logs, &n, &more, NULL), 0);
    assert_int_equal(n, 0);
    struct made m;
    struct log_record fresh;
    log_make(7, &m, &fresh);
    fresh.time_ns = f->now_ns;
    struct records_refused refused;
    const struct records_batch batch = {.logs = &fresh, .n_logs = 1};
    assert_int_equal(records_append_wait(f->r, &batch, &refused), 0);
    assert_int_equal(records_keep(f->r), 0);
    assert_int_equal(records_keep(f->r), 0); /* the newest file never goes */
    struct records_stats stats;
    records_stats(f->r, &stats);
    assert_int_equal(stats.files, 1);
    assert_int_equal(stats.expired_age, 100);
    assert_int_equal(stats.logs, 1);
    arena_done(&arena);
}

static void the_oldest_files_go_when_the_disk_budget_is_used_up(void **state)
{
    struct fixture *f = *state;
    struct records_stats stats;
    for (unsigned i = 0; i < 4; i++) {
        put_logs(f, i * 500, 500);
        assert_int_equal(records_keep(f->r), 0);
    }
    records_stats(f->r, &stats);
    assert_int_equal(stats.files, 4);
    f->options.disk_bytes_max = stats.file_bytes / 2;
    open_again(f);
    assert_int_equal(records_keep(f->r), 0);
    records_stats(f->r, &stats);
    assert_true(stats.file_bytes <= f->options.disk_bytes_max);
    assert_true(stats.files >= 1);
    assert_int_equal(stats.expired_disk + stats.logs, 2000);
}

static void a_record_that_is_too_large_is_left_out_alone(void **state)
{
    struct fixture *f = *state;
    struct made m[3];
    struct log_record logs[3];
    struct records_refused refused;
    char *big = calloc(1, RECORDS_ROW_BYTES_MAX + 1);
    for (unsigned i = 0; i < 3; i++)
        log_make(i, &m[i], &logs[i]);
    logs[1].body.string = (struct str){big, RECORDS_ROW_BYTES_MAX + 1};
    const struct records_batch batch = {.logs = logs, .n_logs = 3};
    assert_int_equal(records_append_wait(f->r, &batch, &refused), 0);
    assert_int_equal(refused.too_large, 1);
    struct records_stats stats;
    records_stats(f->r, &stats);
    assert_int_equal(stats.logs, 2);
    free(big);
}

/* ---- damage ---- */

static void any_flipped_byte_of_a_file_is_found(void **state)
{
    struct fixture *f = *state;
    put_logs(f, 0, 40);
    records_close(f->r);
    f->r = NULL;
    struct store_verified verified;
    struct error_detail detail;
    int dir = open(f->dir, O_RDONLY | O_DIRECTORY), fd = -1;
    assert_int_equal(records_verify(f->dir, NULL, NULL, &verified, &detail), 0);
    assert_int_equal(verified.damaged, 0);
    assert_int_equal(verified.segments, 1);
    DIR *entries = fdopendir(dup(dir));
    for (struct dirent *e; (e = readdir(entries));)
        if (!strncmp(e->d_name, "rec-", 4))
            fd = openat(dir, e->d_name, O_RDWR);
    closedir(entries);
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    for (off_t at = 0; at < st.st_size; at += at < 64 || at > st.st_size - 300 ? 1 : 5) {
        unsigned char byte, flipped;
        assert_int_equal(pread(fd, &byte, 1, at), 1);
        flipped = (unsigned char)(byte ^ (1 << at % 8));
        assert_int_equal(pwrite(fd, &flipped, 1, at), 1);
        assert_int_equal(records_verify(f->dir, NULL, NULL, &verified, &detail), 0);
        if (verified.damaged == 0)
            fail_msg("byte %ld was flipped and nobody saw it", (long)at);
        assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    }
    close(fd);
    close(dir);
    open_again(f);
    check_all(f, 40);
}

static void a_damaged_file_hides_nothing_of_the_others(void **state)
{
    struct fixture *f = *state;
    put_logs(f, 0, 300);
    assert_int_equal(records_keep(f->r), 0);
    records_close(f->r);
    f->r = NULL;
    /* The middle of the first block. */
    int dir = open(f->dir, O_RDONLY | O_DIRECTORY), fd = -1;
    DIR *entries = fdopendir(dir);
    for (struct dirent *e; (e = readdir(entries));)
        if (!strncmp(e->d_name, "rec-", 4))
            fd = openat(dir, e->d_name, O_RDWR);
    assert_int_equal(pwrite(fd, "\xff\x00\xff", 3, 100), 3);
    close(fd);
    closedir(entries);
    open_again(f);
    put_logs(f, 300, 10);
    struct arena arena = ARENA_INIT;
    struct records_logs q = {.limit = 1000};
    struct records_cost cost;
    struct records_log *logs;
    size_t n;
    bool more;
    assert_int_equal(records_logs(f->r, &q, &arena, &logs, &n, &more, &cost), 0);
    assert_int_equal(n, 10);
    assert_int_equal(cost.files_damaged, 1);
    struct records_stats stats;
    records_stats(f->r, &stats);
    assert_int_equal(stats.damaged_files, 1);
    arena_done(&arena);
}

/* ---- positions ---- */

static struct str position(struct fixture *f, struct arena *arena, const char *name)
{
    struct str value;
    assert_int_equal(records_position(f->r, str_from(name), arena, &value), 0);
    return value;
}

static void put_position(struct fixture *f, const char *name, const char *value)
{
    struct records_position p = {str_from(name), str_from(value)};
    struct records_refused refused;
    const struct records_batch batch = {.positions = &p, .n_positions = 1};
    assert_int_equal(records_append_wait(f->r, &batch, &refused), 0);
}

static void positions_outlive_files_and_retention(void **state)
{
    struct fixture *f = *state;
    struct arena arena = ARENA_INIT;
    f->options.retention_ns = 3600 * NS_PER_S;
    open_again(f);
    assert_str_eq(position(f, &arena, "a"), STR(""));
    put_position(f, "a", "1");
    put_position(f, "b", "2");
    assert_str_eq(position(f, &arena, "a"), STR("1"));
    open_again(f); /* written when it was closed */
    put_position(f, "a", "3");
    for (unsigned i = 0; i < 20; i++) {
        put_logs(f, i, 1);
        f->now_ns += 1800 * NS_PER_S;
        assert_int_equal(records_keep(f->r), 0);
    }
    open_again(f);
    assert_str_eq(position(f, &arena, "a"), STR("3"));
    assert_str_eq(position(f, &arena, "b"), STR("2"));
    put_position(f, "b", "");
    open_again(f);
    struct records_position *all;
    size_t n;
    assert_int_equal(records_positions(f->r, &arena, &all, &n), 0);
    assert_int_equal(n, 1);
    assert_str_eq(all[0].name, STR("a"));
    arena_done(&arena);
}

/* ---- metrics ---- */

static void put_points(struct fixture *f, const struct metric *metrics, size_t n,
                       struct records_refused *refused)
{
    static const struct resource resource = {.service_name = {"unknown_service", 15}};
    static const struct scope scope = {.name = {"", 0}};
    const struct metric_batch batch = {metrics, n, &resource, &scope};
    const struct records_batch records = {.metrics = &batch, .n_metrics = 1};
    assert_int_equal(records_append_wait(f->r, &records, refused), 0);
}

static void points_of_each_type_come_back_as_series(void **state)
{
    struct fixture *f = *state;
    struct records_refused refused;
    static const uint64_t counts[] = {1, 0, 300};
    static const double bounds[] = {0.5, 10};
    const struct attr red[] = {{STR("b"), {.type = VALUE_INT, .integer = 1}},
                               {STR("a"), {.type = VALUE_INT, .integer = 2}}};
    const struct attr same[] = {red[1], red[0]}; /* in another order: the same series */
    const struct metric_point sums[] = {
        {.attrs = {red, 2, 0}, .start_ns = START - 9, .time_ns = START, .integer = 5},
        {.attrs = {same, 2, 0}, .start_ns = START - 9, .time_ns = START + 1, .integer = -7},
        {.time_ns = START, .is_real = true, .real = 0.25}};
    const struct metric_point exp = {.time_ns = START,
                                     .histogram = {.count = 301,
                                                   .zero_count = 2,
                                                   .sum = 9.5,
                                                   .min = 1,
                                                   .max = 4,
                                                   .scale = -3,
                                                   .positive = {-12, counts, 3},
                                                   .zero_threshold = 0.125}};
    const struct metric_point hist = {.time_ns = START,
                                      .explicit_histogram = {.count = 301,
                                                             .sum = 4,
                                                             .lacks_min = true,
                                                             .max = 3,
                                                             .bounds = bounds,
                                                             .counts = counts,
                                                             .n_bounds = 2,
                                                             .n_counts = 3}};
    const struct metric metrics[] = {{.name = STR("m.sum"),
                                      .description = STR("d"),
                                      .unit = STR("By"),
                                      .type = METRIC_SUM,
                                      .temporality = METRIC_CUMULATIVE,
                                      .monotonic = true,
                                      .points = sums,
                                      .n_points = 3},
                                     {.name = STR("m.exp"),
                                      .description = STR(""),
                                      .unit = STR("ns"),
                                      .type = METRIC_EXP_HISTOGRAM,
                                      .temporality = METRIC_DELTA,
                                      .points = &exp,
                                      .n_points = 1},
                                     {.name = STR("m.hist"),
                                      .description = STR(""),
                                      .unit = STR(""),
                                      .type = METRIC_HISTOGRAM,
                                      .temporality = METRIC_DELTA,
                                      .points = &hist,
                                      .n_points = 1}};
    put_points(f, metrics, 3, &refused);
    put_points(f, metrics, 1, &refused); /* sent again: no point is twice */
    for (int round = 0; round < 2; round++) {
        struct arena arena = ARENA_INIT;
        struct records_metric *names;
        struct records_series *s;
        size_t n;
        bool more;
        assert_int_equal(records_metrics(f->r, 0, 0, &arena, &names, &n, NULL), 0);
        assert_int_equal(n, 3);
        assert_str_eq(names[0].name, STR("m.exp"));
        assert_str_eq(names[2].name, STR("m.sum"));
        assert_str_eq(names[2].unit, STR("By"));
        assert_true(names[2].monotonic);
        assert_int_equal(names[2].series, 2);
        struct records_series_query q = {.name = STR("m.sum")};
        assert_int_equal(records_series(f->r, &q, &arena, &s, &n, &more, NULL), 0);
        assert_int_equal(n, 2);
        assert_false(more);
        const struct records_series *two = s[0].attrs.n ? &s[0] : &s[1];
        const struct records_series *one = s[0].attrs.n ? &s[1] : &s[0];
        assert_int_equal(two->metric.n_points, 2);
        assert_int_equal(two->metric.points[0].integer, 5);
        assert_int_equal(two->metric.points[0].start_ns, START - 9);
        assert_int_equal(two->metric.points[1].integer, -7);
        assert_str_eq(two->attrs.items[0].key, STR("a"));
        assert_int_equal(one->metric.n_points, 1);
        assert_true(one->metric.points[0].is_real && one->metric.points[0].real == 0.25);
        q.time_min_ns = START + 1;
        assert_int_equal(records_series(f->r, &q, &arena, &s, &n, &more, NULL), 0);
        assert_int_equal(n, 1);
        assert_int_equal(s[0].metric.n_points, 1);
        q = (struct records_series_query){.name = STR("m.exp")};
        assert_int_equal(records_series(f->r, &q, &arena, &s, &n, &more, NULL), 0);
        assert_int_equal(n, 1);
        const struct metric_exp_histogram *h = &s[0].metric.points[0].histogram;
        assert_int_equal(h->count, 301);
        assert_int_equal(h->scale, -3);
        assert_int_equal(h->positive.offset, -12);
        assert_int_equal(h->positive.n, 3);
        assert_int_equal(h->positive.counts[2], 300);
        assert_true(h->zero_threshold == 0.125 && h->sum == 9.5 && h->max == 4);
        q.name = STR("m.hist");
        assert_int_equal(records_series(f->r, &q, &arena, &s, &n, &more, NULL), 0);
        const struct metric_histogram *e = &s[0].metric.points[0].explicit_histogram;
        assert_int_equal(e->n_bounds, 2);
        assert_true(e->bounds[1] == 10 && e->lacks_min && !e->lacks_max && e->max == 3);
        assert_int_equal(e->counts[0], 1);
        q.service = STR("somebody");
        assert_int_equal(records_series(f->r, &q, &arena, &s, &n, &more, NULL), 0);
        assert_int_equal(n, 0);
        arena_done(&arena);
        assert_int_equal(records_keep(f->r), 0);
    }
}

static void there_are_no_more_series_than_the_limit(void **state)
{
    struct fixture *f = *state;
    struct records_refused refused;
    f->options.series_max = 10;
    open_again(f);
    uint64_t too_many = 0;
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 15; i++) {
            struct attr attr = {STR("user"), {.type = VALUE_INT, .integer = i}};
            struct metric_point p = {
                .attrs = {&attr, 1, 0}, .time_ns = START + (uint64_t)round, .integer = i};
            struct metric m = {.name = STR("hits"),
                               .description = STR(""),
                               .unit = STR(""),
                               .type = METRIC_GAUGE,
                               .points = &p,
                               .n_points = 1};
            put_points(f, &m, 1, &refused);
            too_many += refused.too_many_series;
        }
    }
    assert_int_equal(too_many, 10); /* five of each round: a series that is there goes on */
    struct records_stats stats;
    records_stats(f->r, &stats);
    assert_int_equal(stats.points, 20);
    assert_int_equal(stats.series, 10);
}

static void a_second_process_does_not_get_the_directory(void **state)
{
    struct fixture *f = *state;
    struct records *other = NULL;
    struct error_detail detail;
    assert_int_equal(records_open(&f->options, &other, &detail), ERR_BUSY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(logs_are_found_by_trace_by_time_and_by_service),
        T(many_blocks_and_many_files_say_the_same),
        T(what_was_acknowledged_is_there_after_a_kill),
        T(small_files_are_merged_and_nothing_changes),
        T(files_that_were_merged_go_at_the_next_opening),
        T(old_records_are_not_shown_and_their_files_go),
        T(the_oldest_files_go_when_the_disk_budget_is_used_up),
        T(a_record_that_is_too_large_is_left_out_alone),
        T(any_flipped_byte_of_a_file_is_found),
        T(a_damaged_file_hides_nothing_of_the_others),
        T(positions_outlive_files_and_retention),
        T(points_of_each_type_come_back_as_series),
        T(there_are_no_more_series_than_the_limit),
        T(a_second_process_does_not_get_the_directory),
    };
    log_set_level(LOG_LEVEL_OFF);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
