/* Fails the n-th call of one kind, for every n that a scenario reaches. Afterwards the store is
 * opened without faults: all that was acknowledged is there, once, and nothing that was refused.
 * The calls are replaced at link time (meson.build: --wrap), in this program only. */
#include "store/fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <sqlite3.h>

#include "base/log.h"
#include "store/local/log.h"

enum kind {
    OPEN,
    WRITE,
    READ,
    SYNC,
    TRUNCATE,
    RENAME,
    REMOVE,
    MEMORY,
    THREAD,
    CATALOGUE,
    COMMIT, /* done, and denied */
    CUT,
    KINDS
};

static const char *const kind_names[KINDS] = {"open",     "write",     "read",   "sync",
                                              "truncate", "rename",    "remove", "memory",
                                              "thread",   "catalogue", "commit", "cut"};
static enum kind failing;
static atomic_bool armed, for_good;
static atomic_int left; /* calls until the failure; 0 or less: reached */

static bool fails(enum kind kind)
{
    if (!atomic_load(&armed))
        return false;
    if (kind != failing && !(failing == CUT && (kind == SYNC || kind == TRUNCATE)))
        return false;
    int n = atomic_fetch_sub(&left, 1);
    return n == 1 || (n < 1 && atomic_load(&for_good));
}

#define WRAP(kind, error, bad, type, name, params, args)                                           \
    type __real_##name params;                                                                     \
    type __wrap_##name params;                                                                     \
    type __wrap_##name params                                                                      \
    {                                                                                              \
        if (fails(kind)) {                                                                         \
            errno = error;                                                                         \
            return bad;                                                                            \
        }                                                                                          \
        return __real_##name args;                                                                 \
    }

WRAP(READ, EIO, -1, ssize_t, pread64, (int fd, void *p, size_t n, off_t at), (fd, p, n, at))
WRAP(SYNC, EIO, -1, int, fsync, (int fd), (fd))
WRAP(TRUNCATE, EIO, -1, int, ftruncate64, (int fd, off_t n), (fd, n))
WRAP(RENAME, EIO, -1, int, renameat, (int a, const char *b, int c, const char *d), (a, b, c, d))
WRAP(REMOVE, EIO, -1, int, unlinkat, (int a, const char *b, int c), (a, b, c))
WRAP(MEMORY, ENOMEM, NULL, void *, malloc, (size_t n), (n))
WRAP(MEMORY, ENOMEM, NULL, void *, calloc, (size_t n, size_t m), (n, m))
WRAP(MEMORY, ENOMEM, NULL, void *, realloc, (void *p, size_t n), (p, n))
WRAP(CATALOGUE, EIO, SQLITE_IOERR, int, sqlite3_step, (sqlite3_stmt * s), (s))
/* What fails last when a transaction ends is the sync of its journal, which nothing needs any more. */
int __real_sqlite3_exec(sqlite3 *db, const char *sql, int (*fn)(void *, int, char **, char **),
                        void *arg, char **e);
int __wrap_sqlite3_exec(sqlite3 *db, const char *sql, int (*fn)(void *, int, char **, char **),
                        void *arg, char **e);
int __wrap_sqlite3_exec(sqlite3 *db, const char *sql, int (*fn)(void *, int, char **, char **),
                        void *arg, char **e)
{
    if (fails(CATALOGUE))
        return SQLITE_FULL;
    bool denied = strcmp(sql, "COMMIT") == 0 && fails(COMMIT);
    int code = __real_sqlite3_exec(db, sql, fn, arg, e);
    return denied && code == SQLITE_OK ? SQLITE_IOERR : code;
}

WRAP(THREAD, EAGAIN, EAGAIN, int, pthread_create,
     (pthread_t * t, const pthread_attr_t *a, void *(*fn)(void *), void *arg), (t, a, fn, arg))

/* A disk that takes its time, once: a sync ends when the test lets it, well or not. */
static atomic_bool hold, held, let_go, goes_wrong;

static void pause_1ms(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);
int __wrap_fdatasync(int fd)
{
    bool bad = fails(SYNC);
    if (atomic_exchange(&hold, false)) {
        atomic_store(&held, true);
        for (int ms = 0; ms < 20000 && !atomic_exchange(&let_go, false); ms++)
            pause_1ms();
        bad |= atomic_load(&goes_wrong);
    }
    if (!bad)
        return __real_fdatasync(fd);
    errno = EIO;
    return -1;
}

/* A disk that gets full takes a part first. */
ssize_t __real_writev(int fd, const struct iovec *v, int n);
ssize_t __wrap_writev(int fd, const struct iovec *v, int n);
ssize_t __wrap_writev(int fd, const struct iovec *v, int n)
{
    if (fails(WRITE)) {
        (void)!__real_writev(fd, v, n > 1 ? n - 1 : n);
        errno = ENOSPC;
        return -1;
    }
    return __real_writev(fd, v, n);
}

int __real_openat64(int dir, const char *name, int flags, ...);
int __wrap_openat64(int dir, const char *name, int flags, ...);
int __wrap_openat64(int dir, const char *name, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    unsigned mode = va_arg(args, unsigned);
    va_end(args);
    if (fails(OPEN)) {
        errno = EMFILE;
        return -1;
    }
    return __real_openat64(dir, name, flags, mode);
}

/* Everything a store does, with the fault somewhere in it. Answers are not expected to be good,
 * only to be true. */
static void scenario(struct fixture *f, const struct span_batch *batches, const struct str *bodies,
                     int n, char *ret_copy, size_t size)
{
    struct error_detail detail;
    struct arena arena = ARENA_INIT;
    for (int round = 0; round < 2; round++) {
        if (store_open(&f->options, &f->store, &detail)) {
            f->store = NULL;
            continue;
        }
        for (int i = round; i < n; i += 2) {
            int err = store_append_wait(f->store, BODY_OTLP_PROTOBUF, bodies[i], &batches[i]);
            atomic_store(&armed, false);
            if (!err)
                fixture_remember(f, &batches[i]);
            atomic_store(&armed, true);
            struct store_view *view = i % 3 ? NULL : store_view_new(f->store);
            struct span_batch got;
            struct trace_summary summary;
            if (view && !store_trace(view, &batches[i].spans[0].trace_id, &arena, &got))
                (void)!store_trace_summary(view, &batches[i].spans[0].trace_id, &arena, &summary);
            store_view_free(view);
            if (i == n / 2)
                (void)!store_seal(f->store);
        }
        if (round) { /* merges what both rounds sealed */
            (void)!store_seal(f->store);
            (void)!store_keep(f->store, true);
        }
        atomic_store(&armed, false);
        if (round)
            fixture_copy_files(f, ret_copy, size); /* as if it were killed now */
        atomic_store(&armed, true);
        store_close(f->store);
        f->store = NULL;
    }
    arena_done(&arena);
}

static bool run(enum kind kind, int nth, bool all_after)
{
    enum { BATCHES = 6 };
    struct fixture f;
    struct span_batch batches[BATCHES];
    struct str bodies[BATCHES];
    struct store_options options = {.durability = kind == SYNC ? STORE_DURABILITY_SYNC
                                                               : STORE_DURABILITY_WRITE};
    fixture_init(&f, (uint64_t)nth, &options);
    for (int i = 0; i < BATCHES; i++) {
        batches[i] = fixture_batch(&f, 3);
        bodies[i] = fixture_body(&f, &batches[i]);
    }
    store_close(f.store);
    f.store = NULL;
    failing = kind;
    atomic_store(&left, nth);
    atomic_store(&for_good, all_after);
    atomic_store(&armed, true);
    char copy[64] = "";
    scenario(&f, batches, bodies, BATCHES, copy, sizeof copy);
    atomic_store(&armed, false);
    bool reached = atomic_load(&left) <= 0;
    if (copy[0])
        fixture_check_copy(&f, copy);
    struct error_detail detail;
    int err = store_open(&f.options, &f.store, &detail);
    if (err)
        fail_msg("after %s fault %d: %s: %s", kind_names[kind], nth, err_name(err), detail.message);
    fixture_check(&f);
    fixture_check_scans(&f, 3);
    fixture_done(&f);
    return reached;
}

static void run_all(enum kind kind, bool all_after)
{
    int n = 1;
    log_set_level(LOG_LEVEL_OFF);
    while (run(kind, n, all_after))
        n++;
    log_set_level(LOG_LEVEL_INFO);
    print_message("# %s: %d calls failed\n", kind_names[kind], n - 1);
    assert_true(n > 1); /* else it tested nothing */
}

/* ---- erasing ---- */

static int row_pass(void *arg, struct scan *scan, const struct scan_row *row)
{
    return 0;
}

static const struct predicate from_servers = {
    .op = PREDICATE_EQ,
    .field = FIELD_KIND,
    .value = {.type = VALUE_INT, .integer = SPAN_KIND_SERVER}};

static uint64_t servers_count(struct fixture *f)
{
    struct store_view *view = store_view_new(f->store);
    struct scan scan = {.where = &from_servers};
    struct scan_cost cost = {0};
    assert_int_equal(store_scan(view, &scan, row_pass, NULL, &cost), 0);
    store_view_free(view);
    return cost.rows_matched;
}

/* With the fault somewhere in it: what was answered is gone for good, and what was not is gone as a whole or
 * there as a whole, once the store was opened again. */
static bool run_erase(enum kind kind, int nth, bool all_after)
{
    static const struct store_erase servers = {.kind = ERASE_DELETE, .where = &from_servers};
    struct fixture f;
    struct store_options options = {.durability = kind == SYNC ? STORE_DURABILITY_SYNC
                                                               : STORE_DURABILITY_WRITE};
    struct store_erased done;
    uint64_t wanted = 0;
    size_t n = 0;
    fixture_init(&f, (uint64_t)nth, &options);
    for (int i = 0; i < 3; i++) {
        struct span_batch batch = fixture_batch(&f, 8);
        for (size_t k = 0; k < batch.n; k++)
            batch.spans[k].kind = batch.spans[k].span_id.bytes[0] % 2 ? SPAN_KIND_SERVER
                                                                      : SPAN_KIND_CLIENT;
        fixture_append(&f, &batch);
        if (i < 2)
            assert_int_equal(store_seal(f.store), 0);
    }
    for (size_t i = 0; i < f.n; i++)
        wanted += f.spans[i].kind == SPAN_KIND_SERVER;
    failing = kind;
    atomic_store(&left, nth);
    atomic_store(&for_good, all_after);
    atomic_store(&armed, true);
    bool was_answered = !store_erase(f.store, &servers, &done, NULL);
    atomic_store(&armed, false);
    bool reached = atomic_load(&left) <= 0;
    if (was_answered) {
        assert_int_equal(servers_count(&f), 0);
        assert_int_equal(done.spans, wanted);
    }
    fixture_reopen(&f);
    assert_int_equal(store_keep(f.store, false), 0);
    uint64_t left_over = servers_count(&f);
    if (left_over && (was_answered || left_over != wanted))
        fail_msg("after %s fault %d, %s: %llu are there", kind_names[kind], nth,
                 was_answered ? "answered" : "refused", (unsigned long long)left_over);
    for (size_t i = 0; i < f.n; i++)
        if (f.spans[i].kind != SPAN_KIND_SERVER || left_over)
            f.spans[n++] = f.spans[i];
    f.n = n;
    assert_true(wanted > 0);
    fixture_check(&f);
    fixture_done(&f);
    return reached;
}

static void an_erasure_is_done_or_not_begun(void **state)
{
    static const enum kind kinds[] = {OPEN, READ, SYNC, RENAME, CATALOGUE, MEMORY};
    log_set_level(LOG_LEVEL_OFF);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        int n = 1, step = kinds[i] == MEMORY ? 7 : 1;
        while (run_erase(kinds[i], n, false))
            n += step;
        int once = n;
        for (n = 1; kinds[i] != MEMORY && run_erase(kinds[i], n, true);)
            n++;
        print_message("# %s: %d calls failed, %d for good\n", kind_names[kinds[i]], once - 1,
                      n - 1);
        assert_true(once > 1);
    }
    log_set_level(LOG_LEVEL_INFO);
}

static void arm_for_good(enum kind kind)
{
    failing = kind;
    atomic_store(&left, 1);
    atomic_store(&for_good, true);
    atomic_store(&armed, true);
}

static int see_body(void *arg, uint64_t sequence, const struct log_body *body)
{
    char *seen = arg;
    if (body->body.len == 1)
        strncat(seen, body->body.ptr, 1);
    return 0;
}

static void what_follows_a_cut_that_failed_comes_back(void **state)
{
    struct fixture f;
    struct store_options options = {0};
    fixture_init(&f, 1, &options);
    store_close(f.store);
    f.store = NULL;
    int dir = open(f.options.dir, O_RDONLY | O_DIRECTORY);
    assert_true(dir >= 0);
    struct log_body a = {BODY_OTLP_PROTOBUF, STR("A"), 1}, b = a, c = a;
    b.body = STR("B");
    c.body = STR("C");
    struct log log;
    uint64_t last;
    log_init(&log, dir, true);
    assert_int_equal(log_append(&log, &a, 1, &last), 0);
    log_set_level(LOG_LEVEL_OFF);
    arm_for_good(CUT);
    assert_int_not_equal(log_append(&log, &b, 1, &last), 0);
    log_rotate(&log);
    atomic_store(&armed, false);
    assert_int_equal(log_append(&log, &c, 1, &last), 0);
    log_done(&log);
    char seen[8] = "";
    struct error_detail detail;
    log_init(&log, dir, true);
    assert_int_equal(log_recover(&log, 0, see_body, seen, &detail), 0);
    log_set_level(LOG_LEVEL_INFO);
    assert_non_null(strchr(seen, 'A'));
    assert_non_null(strchr(seen, 'C'));
    log_trim(&log, last);
    log_done(&log);
    close(dir);
    fixture_done(&f);
}

/* Files are removed by a thread of their own, when it comes to it: none of them may be in use again. */
static void a_file_that_got_no_record_is_not_removed_under_the_next(void **state)
{
    struct fixture f;
    fixture_init(&f, 1, NULL);
    store_close(f.store);
    f.store = NULL;
    int dir = open(f.options.dir, O_RDONLY | O_DIRECTORY);
    assert_true(dir >= 0);
    struct log_body a = {BODY_OTLP_PROTOBUF, STR("A"), 1}, b = a;
    b.body = STR("B");
    struct log log;
    uint64_t last, sealed;
    char seen[8] = "";
    struct error_detail detail;
    log_init(&log, dir, true);
    assert_int_equal(log_append(&log, &a, 1, &sealed), 0);
    log_done(&log);
    log_init(&log, dir, true);
    assert_int_equal(log_recover(&log, 0, see_body, seen, &detail), 0);
    arm_for_good(WRITE);
    atomic_store(&left, 2); /* the header is written */
    assert_int_not_equal(log_append(&log, &b, 1, &last), 0);
    atomic_store(&armed, false);
    log_rotate(&log);
    struct log_file *files = log_detach(&log, sealed);
    assert_non_null(files);
    assert_int_equal(log_append(&log, &b, 1, &last), 0);
    assert_null(log_files_remove(dir, files));
    log_done(&log);
    log_init(&log, dir, true);
    seen[0] = '\0';
    assert_int_equal(log_recover(&log, sealed, see_body, seen, &detail), 0);
    assert_string_equal(seen, "B");
    log_trim(&log, last);
    log_done(&log);
    close(dir);
    fixture_done(&f);
}

static void refused_requests_take_no_memory(void **state)
{
    struct fixture f;
    struct store_options options = {.durability = STORE_DURABILITY_WRITE,
                                    .memtable_bytes_max = 1 << 20};
    fixture_init(&f, 2, &options);
    struct span_batch batch = fixture_batch(&f, 100);
    struct str body = fixture_body(&f, &batch);
    struct store_stats stats;
    uint64_t most = 0;
    log_set_level(LOG_LEVEL_OFF);
    arm_for_good(WRITE);
    for (int i = 0; i < 500; i++) {
        assert_int_not_equal(store_append_wait(f.store, BODY_OTLP_PROTOBUF, body, &batch), 0);
        store_stats(f.store, &stats);
        most = stats.memtable_bytes > most ? stats.memtable_bytes : most;
    }
    atomic_store(&armed, false);
    log_set_level(LOG_LEVEL_INFO);
    print_message("# at most %llu bytes\n", (unsigned long long)most);
    assert_true(most > 1 << 19); /* else it tested nothing */
    assert_true(most < 2 << 20);
    fixture_append(&f, &batch);
    fixture_reopen(&f);
    fixture_check(&f);
    fixture_done(&f);
}

#define UNTIL(condition)                                                                           \
    for (int ms = 0; !(condition); ms++, pause_1ms())                                              \
    assert_true(ms < 20000)

static atomic_int n_answers;

struct answer {
    atomic_int place; /* among all; 0: none yet */
    int err;
};

static void take_answer(void *arg, int err)
{
    struct answer *a = arg;
    a->err = err;
    atomic_store(&a->place, atomic_fetch_add(&n_answers, 1) + 1);
}

/* A batch is appended while the sync of the one before it takes its time. */
struct overlap {
    struct fixture f;
    struct span_batch first, second;
    struct answer first_answer, second_answer;
};

static void overlap_begin(struct overlap *o)
{
    fixture_init(&o->f, 6, NULL);
    struct span_batch before = fixture_batch(&o->f, 20);
    fixture_append(&o->f, &before);
    o->first = fixture_batch(&o->f, 20);
    o->second = fixture_batch(&o->f, 20);
    o->first_answer = o->second_answer = (struct answer){0};
    atomic_store(&n_answers, 0);
    atomic_store(&held, false);
    atomic_store(&let_go, false);
    atomic_store(&goes_wrong, false);
    atomic_store(&hold, true);
    struct str body = fixture_body(&o->f, &o->first);
    assert_int_equal(store_append(o->f.store, BODY_OTLP_PROTOBUF, body, &o->first, take_answer,
                                  &o->first_answer),
                     0);
    UNTIL(atomic_load(&held));
}

static void overlap_second(struct overlap *o)
{
    struct str body = fixture_body(&o->f, &o->second);
    assert_int_equal(store_append(o->f.store, BODY_OTLP_PROTOBUF, body, &o->second, take_answer,
                                  &o->second_answer),
                     0);
}

static void overlap_end(struct overlap *o, bool badly)
{
    assert_int_equal(atomic_load(&n_answers), 0);
    fixture_check(&o->f); /* nothing of either is visible */
    atomic_store(&goes_wrong, badly);
    atomic_store(&let_go, true);
    UNTIL(atomic_load(&n_answers) == 2);
    assert_int_equal(atomic_load(&o->first_answer.place), 1);
    if (!o->first_answer.err)
        fixture_remember(&o->f, &o->first);
    if (!o->second_answer.err)
        fixture_remember(&o->f, &o->second);
    char copy[64];
    fixture_check(&o->f);
    fixture_copy_files(&o->f, copy, sizeof copy); /* as if it were killed now */
    fixture_check_copy(&o->f, copy);
    struct span_batch after = fixture_batch(&o->f, 20);
    fixture_append(&o->f, &after);
    fixture_reopen(&o->f);
    fixture_check(&o->f);
    fixture_done(&o->f);
}

static uint64_t log_file_bytes(const struct fixture *f)
{
    struct stat st;
    char path[128];
    snprintf(path, sizeof path, "%s/log-0000000000000001.log", f->dir);
    assert_int_equal(stat(path, &st), 0);
    return (uint64_t)st.st_size;
}

static void what_is_written_while_a_sync_fails_is_written_again(void **state)
{
    struct overlap o;
    for (int badly = 0; badly < 2; badly++) {
        overlap_begin(&o);
        uint64_t before = log_file_bytes(&o.f);
        overlap_second(&o);
        UNTIL(log_file_bytes(&o.f) > before); /* it does not wait for the sync */
        overlap_end(&o, badly);
        assert_int_equal(o.first_answer.err != 0, badly);
        assert_int_equal(o.second_answer.err, 0);
    }
}

static void a_write_that_fails_during_a_sync_refuses_its_own_batch(void **state)
{
    struct overlap o;
    for (int badly = 0; badly < 2; badly++) {
        overlap_begin(&o);
        failing = WRITE;
        atomic_store(&for_good, false);
        atomic_store(&left, 1);
        atomic_store(&armed, true);
        overlap_second(&o);
        UNTIL(atomic_load(&left) <= 0);
        atomic_store(&armed, false);
        overlap_end(&o, badly);
        assert_int_equal(o.first_answer.err != 0, badly);
        assert_int_not_equal(o.second_answer.err, 0);
    }
}

/* A disk slower than what comes in: a group is full before the one ahead of it is synced. */
static void a_group_is_staged_while_a_full_one_syncs(void **state)
{
    enum { FULL = 256, MORE = 20 };
    static struct answer answers[FULL + MORE];
    struct overlap o;
    overlap_begin(&o);
    struct str body = fixture_body(&o.f, &o.second);
    uint64_t record = (LOG_RECORD_SIZE + body.len + 7) & ~UINT64_C(7);
    uint64_t first_end = log_file_bytes(&o.f);
    for (int i = 0; i < FULL + MORE; i++)
        assert_int_equal(
            store_append(o.f.store, BODY_OTLP_PROTOBUF, body, &o.second, take_answer, &answers[i]),
            0);
    UNTIL(log_file_bytes(&o.f) == first_end + FULL * record);
    atomic_store(&held, false);
    atomic_store(&hold, true);
    atomic_store(&let_go, true);
    UNTIL(atomic_load(&held));
    UNTIL(log_file_bytes(&o.f) == first_end + (FULL + MORE) * record);
    assert_int_equal(atomic_load(&n_answers), 1);
    atomic_store(&let_go, true);
    UNTIL(atomic_load(&n_answers) == 1 + FULL + MORE);
    for (int i = 0; i < FULL + MORE; i++)
        assert_int_equal(atomic_load(&answers[i].place), i + 2);
    fixture_done(&o.f);
}

/* Of the newest file of the log nothing is left: there is nothing to wait for. */
static void sealing_ends_after_damage_of_all_that_came_last(void **state)
{
    static char bytes[1 << 20];
    struct fixture f;
    char path[128];
    fixture_init(&f, 4, NULL);
    struct span_batch batch = fixture_batch(&f, 10);
    fixture_append(&f, &batch);
    snprintf(path, sizeof path, "%s/log-0000000000000001.log", f.dir);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    size_t n = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    assert_true(n > LOG_HEADER_SIZE + LOG_RECORD_SIZE && n < sizeof bytes);
    store_close(f.store);
    f.store = NULL;
    bytes[LOG_HEADER_SIZE + LOG_RECORD_SIZE] ^= 1;
    snprintf(path, sizeof path, "%s/log-0000000000000002.log", f.dir);
    file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, n, file), n);
    assert_int_equal(fclose(file), 0);
    log_set_level(LOG_LEVEL_OFF);
    assert_int_equal(store_open(&f.options, &f.store, NULL), 0);
    log_set_level(LOG_LEVEL_INFO);
    alarm(60); /* it waits for good, or not at all */
    assert_int_equal(store_seal(f.store), 0);
    struct store_erase all = {.kind = ERASE_DELETE};
    struct store_erased done;
    assert_int_equal(store_erase(f.store, &all, &done, NULL), 0);
    assert_int_equal(done.spans, f.n);
    alarm(0);
    fixture_done(&f);
}

/* A batch without spans has no record, and takes nothing back of what the store knows. */
static void sealing_waits_for_what_came_before_an_empty_batch(void **state)
{
    struct fixture f;
    fixture_init(&f, 3, NULL);
    struct span_batch batch = fixture_batch(&f, 10), empty = {0};
    fixture_append(&f, &batch);
    assert_int_equal(store_append_wait(f.store, BODY_OTLP_PROTOBUF, STR(""), &empty), 0);
    assert_int_equal(store_seal(f.store), 0);
    struct store_stats stats;
    store_stats(f.store, &stats);
    assert_int_equal(stats.memtable_spans, 0);
    assert_int_equal(stats.segments, 1);
    fixture_done(&f);
}

static void assert_refused(struct fixture *f, const char *name)
{
    struct error_detail detail = {0};
    for (int again = 0; again < 2; again++) {
        assert_int_equal(store_open(&f->options, &f->store, &detail), ERR_CORRUPT);
        f->store = NULL;
        assert_non_null(strstr(detail.message, name));
        assert_non_null(strstr(detail.message, "catalogue.db"));
    }
}

static void close_store(struct fixture *f)
{
    store_close(f->store);
    f->store = NULL;
}

/* The copy is opened, compared, and goes. */
static void check_and_forget(struct fixture *f)
{
    log_set_level(LOG_LEVEL_OFF);
    assert_int_equal(store_open(&f->options, &f->store, NULL), 0);
    log_set_level(LOG_LEVEL_INFO);
    fixture_check(f);
}

static void a_lost_or_older_catalogue_costs_no_segment(void **state)
{
    for (int known = 0; known <= 3; known++) { /* segments in the old catalogue; 0: an empty one */
        struct fixture f;
        char old[64];
        fixture_init(&f, 4, NULL);
        for (int i = 0; i < 3; i++) {
            if (i == known) {
                close_store(&f);
                fixture_copy_files(&f, old, sizeof old);
                assert_int_equal(store_open(&f.options, &f.store, NULL), 0);
            }
            struct span_batch batch = fixture_batch(&f, 5);
            fixture_append(&f, &batch);
            assert_int_equal(store_seal(f.store), 0);
        }
        close_store(&f);
        int dir = open(f.dir, O_RDONLY | O_DIRECTORY);
        assert_true(dir >= 0);
        assert_int_equal(unlinkat(dir, "catalogue.db", 0), 0);
        if (known < 3) /* else it is lost altogether */
            fixture_copy_back(&f, old, "catalogue.db");
        check_and_forget(&f);
        struct store_stats stats;
        store_stats(f.store, &stats);
        assert_int_equal(stats.segments, 3);
        fixture_reopen(&f);
        fixture_check(&f);
        struct span_batch batch = fixture_batch(&f, 5); /* and it goes on */
        fixture_append(&f, &batch);
        fixture_reopen(&f);
        fixture_check(&f);
        fixture_done(&f);
        if (known < 3) {
            f = (struct fixture){0};
            snprintf(f.dir, sizeof f.dir, "%s", old);
            fixture_done(&f);
        }
        close(dir);
    }
}

/* An older catalogue, and one of the segments that it lacks is missing: what follows it is not taken for
 * what comes next. */
static void a_segment_behind_a_gap_is_refused(void **state)
{
    struct fixture f;
    char old[64];
    fixture_init(&f, 5, NULL);
    for (int i = 0; i < 3; i++) {
        struct span_batch batch = fixture_batch(&f, 5);
        fixture_append(&f, &batch);
        assert_int_equal(store_seal(f.store), 0);
        close_store(&f);
        if (i == 0)
            fixture_copy_files(&f, old, sizeof old);
        assert_int_equal(store_open(&f.options, &f.store, NULL), 0);
    }
    close_store(&f);
    int dir = open(f.dir, O_RDONLY | O_DIRECTORY);
    assert_true(dir >= 0);
    assert_int_equal(renameat(dir, "seg-0000000000000002.seg", dir, "away"), 0);
    assert_int_equal(unlinkat(dir, "catalogue.db", 0), 0);
    fixture_copy_back(&f, old, "catalogue.db");
    log_set_level(LOG_LEVEL_OFF);
    assert_refused(&f, "seg-0000000000000003.seg");
    log_set_level(LOG_LEVEL_INFO);
    assert_int_equal(renameat(dir, "away", dir, "seg-0000000000000002.seg"), 0);
    check_and_forget(&f);
    close(dir);
    fixture_done(&f);
    f = (struct fixture){0};
    snprintf(f.dir, sizeof f.dir, "%s", old);
    fixture_done(&f);
}

#define FAULT_TEST(sentence, kind, all_after)                                                      \
    static void sentence(void **state)                                                             \
    {                                                                                              \
        run_all(kind, all_after);                                                                  \
    }

FAULT_TEST(any_open_may_fail, OPEN, false)
FAULT_TEST(any_write_may_fail, WRITE, false)
FAULT_TEST(the_disk_may_be_full_from_any_write_on, WRITE, true)
FAULT_TEST(any_read_may_fail, READ, false)
FAULT_TEST(any_sync_may_fail, SYNC, false)
FAULT_TEST(any_rename_may_fail, RENAME, false)
FAULT_TEST(any_removal_may_fail, REMOVE, false)
FAULT_TEST(any_allocation_may_fail, MEMORY, false)
FAULT_TEST(a_thread_may_not_start, THREAD, false)
FAULT_TEST(any_step_of_the_catalogue_may_fail, CATALOGUE, false)
FAULT_TEST(any_change_of_the_catalogue_may_be_done_and_denied, COMMIT, false)
FAULT_TEST(every_change_of_the_catalogue_may_be_done_and_denied, COMMIT, true)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_erasure_is_done_or_not_begun),
        cmocka_unit_test(what_follows_a_cut_that_failed_comes_back),
        cmocka_unit_test(a_file_that_got_no_record_is_not_removed_under_the_next),
        cmocka_unit_test(refused_requests_take_no_memory),
        cmocka_unit_test(what_is_written_while_a_sync_fails_is_written_again),
        cmocka_unit_test(a_write_that_fails_during_a_sync_refuses_its_own_batch),
        cmocka_unit_test(a_group_is_staged_while_a_full_one_syncs),
        cmocka_unit_test(sealing_ends_after_damage_of_all_that_came_last),
        cmocka_unit_test(sealing_waits_for_what_came_before_an_empty_batch),
        cmocka_unit_test(a_lost_or_older_catalogue_costs_no_segment),
        cmocka_unit_test(a_segment_behind_a_gap_is_refused),
        cmocka_unit_test(any_open_may_fail),
        cmocka_unit_test(any_write_may_fail),
        cmocka_unit_test(the_disk_may_be_full_from_any_write_on),
        cmocka_unit_test(any_read_may_fail),
        cmocka_unit_test(any_sync_may_fail),
        cmocka_unit_test(any_rename_may_fail),
        cmocka_unit_test(any_removal_may_fail),
        cmocka_unit_test(any_allocation_may_fail),
        cmocka_unit_test(a_thread_may_not_start),
        cmocka_unit_test(any_step_of_the_catalogue_may_fail),
        cmocka_unit_test(any_change_of_the_catalogue_may_be_done_and_denied),
        cmocka_unit_test(every_change_of_the_catalogue_may_be_done_and_denied),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
