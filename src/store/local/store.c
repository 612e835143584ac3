/* The local engine: appending, sealing, recovery.
 *
 *   store_append --> queue --> stage thread --> memtable --> log thread --> log (one write, one sync a group)
 *                                                 |  full, old, or asked for     --> rows visible --> done
 *                                                 v
 *                     frozen memtable --> seal thread --> segment file --> catalogue
 *
 * 1. The stage thread puts the spans of a group into the memtable; the log thread writes the bodies, and
 *    publishes the rows when the log has them; when it has not, the rows are taken back (group.c). So a span
 *    is visible if and only if it is durable, and what was refused is in neither place.
 * 2. There is at most one frozen memtable. While it is being sealed the other fills; when that is
 *    full too the stage thread waits, the queue fills, and store_append answers ERR_BUSY: memory is
 *    bounded by two memtables (and the keeper's) and the queue. When sealing fails (the disk is full, say) groups that
 *    do not fit are refused with its error, and sealing is tried again each second.
 * 3. A memtable is frozen together with the log file, so the records of a segment are those up to
 *    one sequence. The catalogue takes the segment and that sequence in one transaction; recovery
 *    replays what lies behind it. segments.c compares the catalogue with the directory at open.
 * 4. Sealing and keeping (keep.c) change the segments, one at a time, under change_lock.
 * 5. The order of locks is watch_lock, then nothing; change_lock, then lock; lock, then nothing. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pugmark/pugmark.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "store/local/engine.h"
#include "store/local/erase.h"
#include "store/local/file.h"
#include "store/local/group.h"
#include "store/local/retention.h"
#include "wire/otlp.h"
#include "wire/otlp_json.h"

enum {
    MEMTABLE_BYTES_DEFAULT = 64 << 20,
    MEMTABLE_AGE_MS_DEFAULT = 15 * 60 * 1000,
    QUEUE_BYTES_DEFAULT = 64 << 20,
};

/* ---- sealing ---- */

/* Makes the segment of a memtable and publishes it. */
static int memtable_seal(struct store *st, struct memtable *mt)
{
    PUG_SPAN("store.seal", PUG_INT("spans", mt->n_rows));
    struct segment_info info = {.first_sequence = st->sealed + 1,
                                .last_sequence = mt->last_sequence,
                                .made_ns = store_now(st)};
    pthread_mutex_lock(&st->change_lock);
    /* What failed is tried again under the same name: the catalogue may have it after all. */
    if (st->seal_again.id) {
        info.id = st->seal_again.id;
        memcpy(info.name, st->seal_again.name, sizeof info.name);
    } else {
        segment_name_next(st, &info);
        st->seal_again = info;
    }
    pthread_mutex_unlock(&st->change_lock);
    int err = segment_write(mt, st->dir, st->log.sync, &info);
    if (err) {
        log_error("a segment could not be written file=%s: %s", info.name, err_text(err));
        return err;
    }
    struct catalogue_change change = {.sealed = mt->last_sequence,
                                      .counters[COUNTER_SEALED_BYTES] = info.bytes};
    pthread_mutex_lock(&st->change_lock);
    err = segments_change(st, &info, NULL, 0, &change);
    if (!err)
        st->seal_again.id = 0;
    pthread_mutex_unlock(&st->change_lock);
    if (!err)
        memtable_unref(mt);
    return err;
}

/* With the lock held, which is let go meanwhile. What cannot be removed is tried again with what comes next. */
static void detached_remove(struct store *st)
{
    struct log_file *files = st->detached, **end = &files;
    uint64_t upto = st->detached_upto;
    st->detached = NULL;
    pthread_mutex_unlock(&st->lock);
    files = log_files_remove(st->dir, files);
    pthread_mutex_lock(&st->lock);
    while (*end)
        end = &(*end)->newer;
    *end = st->detached;
    st->detached = files;
    st->trimmed = upto;
    pthread_cond_broadcast(&st->changed);
}

static void *seal_thread(void *arg)
{
    struct store *st = arg;
    pthread_mutex_lock(&st->lock);
    for (;;) {
        if (st->trimmed < st->detached_upto) {
            detached_remove(st);
            continue;
        }
        if (!st->frozen) {
            if (st->stage_thread_ended)
                break;
            pthread_cond_wait(&st->seal_wake, &st->lock);
            continue;
        }
        struct memtable *mt = st->frozen;
        pthread_mutex_unlock(&st->lock);
        int err = memtable_seal(st, mt);
        pthread_mutex_lock(&st->lock);
        st->seal_err = err;
        st->seal_failures += err != 0;
        pthread_cond_broadcast(&st->changed);
        pthread_cond_signal(&st->wake);
        pthread_cond_signal(&st->log_wake);
        pthread_cond_signal(&st->keep_wake);
        if (err && st->stage_thread_ended)
            break; /* the log keeps it */
        if (err && !st->closing)
            store_wait_ns(st, &st->seal_wake, SEAL_RETRY_MS * NS_PER_MS);
        else if (err)
            pthread_cond_wait(&st->seal_wake, &st->lock);
    }
    pthread_mutex_unlock(&st->lock);
    return NULL;
}

int store_seal(struct store *st)
{
    int err = 0;
    pthread_mutex_lock(&st->lock);
    uint64_t wanted = st->published, failures = st->seal_failures;
    while (st->sealed < wanted && (st->frozen || memtable_rows(st->active))) {
        if (st->seal_failures != failures) {
            err = st->seal_err ? st->seal_err : ERR_IO;
            break;
        }
        st->seal_requested = true;
        pthread_cond_signal(&st->wake);
        pthread_cond_signal(&st->seal_wake);
        pthread_cond_wait(&st->changed, &st->lock);
    }
    while (!err && st->trimmed < wanted && !st->stage_thread_ended) {
        pthread_cond_signal(&st->wake);
        pthread_cond_wait(&st->changed, &st->lock);
    }
    pthread_mutex_unlock(&st->lock);
    return err;
}

/* ---- appending ---- */

int store_append(struct store *st, enum body_format format, struct str body,
                 const struct span_batch *batch, store_durable_fn *done, void *arg)
{
    if (body.len > UINT32_MAX)
        return ERR_TOO_LARGE;
    struct pending *p = malloc(sizeof *p);
    if (!p)
        return ERR_NOMEM;
    *p = (struct pending){.format = format, .body = body, .batch = batch, .done = done, .arg = arg};
    uint64_t bytes = body.len + PENDING_BYTES;
    pthread_mutex_lock(&st->lock);
    int err = st->closing ? ERR_CLOSED : 0;
    /* One body may be larger than the queue. */
    if (!err && st->queue_bytes && st->queue_bytes + bytes > st->queue_bytes_max)
        err = ERR_BUSY;
    if (!err) {
        st->queue_bytes += bytes;
        *st->queue_end = p;
        st->queue_end = &p->next;
        pthread_cond_signal(&st->wake);
    }
    pthread_mutex_unlock(&st->lock);
    if (err)
        free(p);
    return err;
}

struct waiter {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool done;
    int err;
};

static void waiter_done(void *arg, int err)
{
    struct waiter *w = arg;
    pthread_mutex_lock(&w->lock);
    w->done = true;
    w->err = err;
    pthread_cond_signal(&w->cond);
    pthread_mutex_unlock(&w->lock);
}

int store_append_wait(struct store *st, enum body_format format, struct str body,
                      const struct span_batch *batch)
{
    struct waiter w = {.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};
    int err = store_append(st, format, body, batch, waiter_done, &w);
    if (err)
        return err;
    pthread_mutex_lock(&w.lock);
    while (!w.done)
        pthread_cond_wait(&w.cond, &w.lock);
    pthread_mutex_unlock(&w.lock);
    return w.err;
}

void store_watch(struct store *st, store_watch_fn *fn, void *arg)
{
    pthread_mutex_lock(&st->watch_lock);
    st->watch = fn;
    st->watch_arg = arg;
    pthread_mutex_unlock(&st->watch_lock);
}

/* ---- opening ---- */

static int replay(void *arg, uint64_t sequence, const struct log_body *body)
{
    struct store *st = arg;
    struct arena arena = ARENA_INIT;
    struct span_batch batch = {0};
    struct error_detail detail = {0};
    int err = body->format == BODY_OTLP_PROTOBUF ? otlp_decode(body->body, &arena, &batch, &detail)
              : body->format == BODY_OTLP_JSON
                  ? otlp_json_decode(body->body, &arena, &batch, &detail)
                  : ERR_UNSUPPORTED;
    if (!err && batch.n != body->n_spans)
        log_warn("log record sequence=%llu gives %zu spans, it gave %u",
                 (unsigned long long)sequence, batch.n, body->n_spans);
    if (!err)
        err = memtable_add(st->active, &batch);
    else if (err != ERR_NOMEM && err != ERR_UNSUPPORTED) {
        /* It was taken once: the decoder has changed, or memory was damaged when it was written. */
        log_error("log record sequence=%llu cannot be decoded: %s %s", (unsigned long long)sequence,
                  err_text(err), detail.message);
        st->log.damaged++;
        err = 0;
    }
    arena_done(&arena);
    if (err)
        return err;
    memtable_publish(st->active, st->active->n_rows, sequence);
    if (memtable_bytes(st->active) < st->memtable_bytes_max)
        return 0;
    struct memtable *fresh;
    err = memtable_new(&fresh);
    if (err)
        return err;
    err = memtable_seal(st, st->active);
    if (err)
        memtable_unref(fresh);
    else
        st->active = fresh;
    return err;
}

/* Durable when it returns true: what is acknowledged later must not be lost with its directory. */
static bool dir_make_one(char *path, mode_t mode)
{
    if (mkdir(path, mode))
        return errno == EEXIST;
    char *slash = strrchr(path, '/');
    int fd, err;
    if (slash && slash != path) {
        *slash = '\0';
        err = file_open(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, &fd);
        *slash = '/';
    } else {
        err = file_open(AT_FDCWD, slash ? "/" : ".", O_RDONLY | O_DIRECTORY, &fd);
    }
    if (err)
        return errno == EACCES; /* who may write there need not be allowed to read */
    bool ok = !file_sync(fd) || errno == EINVAL; /* not every file system can */
    int reason = errno;
    close(fd);
    errno = reason;
    return ok;
}

/* mkdir -p, for the owner alone. False: errno says why. */
static bool dir_make(const char *path)
{
    char *copy = strdup(path);
    if (!copy)
        return false;
    bool ok = true;
    for (char *at = copy + 1; ok && *copy && *at; at++) {
        if (*at != '/')
            continue;
        *at = '\0';
        ok = dir_make_one(copy, 0755);
        *at = '/';
    }
    ok = ok && dir_make_one(copy, 0700);
    int reason = errno;
    free(copy);
    errno = reason;
    return ok;
}

static int dir_open(struct store *st, struct error_detail *detail)
{
    if (!dir_make(st->path) || file_open(AT_FDCWD, st->path, O_RDONLY | O_DIRECTORY, &st->dir))
        return error_set(detail, err_from_errno(errno), 0, "%s: %s", st->path, strerror(errno));
    int err;
    err = file_open(st->dir, "lock", O_RDWR | O_CREAT, &st->lock_fd);
    if (!err && flock(st->lock_fd, LOCK_EX | LOCK_NB))
        err = errno == EWOULDBLOCK ? ERR_BUSY : err_from_errno(errno);
    if (err)
        return error_set(detail, err, 0, "%s/lock: %s", st->path,
                         err == ERR_BUSY ? err_text(err) : strerror(errno));
    return 0;
}

static int store_recover(struct store *st, bool sync, struct error_detail *detail)
{
    log_init(&st->log, st->dir, sync);
    int err = segments_open(st, sync ? CATALOGUE_SYNC : CATALOGUE_WRITE, detail);
    if (err)
        return err;
    err = log_recover(&st->log, st->sealed, replay, st, detail);
    if (err)
        return err;
    log_trim(&st->log, st->sealed);
    st->trimmed = st->detached_upto = st->sealed;
    st->damaged_at_open = st->log.damaged;
    /* Behind it may be records of which nothing is left: no segment will ever cover those. */
    st->published = memtable_rows(st->active) ? st->active->last_sequence : st->sealed;
    st->log_bytes = log_bytes(&st->log);
    st->memtable_bytes = memtable_bytes(st->active);
    if (memtable_rows(st->active))
        st->active_since_ns = clock_monotonic_ns();
    return 0;
}

static int threads_start(struct store *st)
{
    pthread_attr_t attr;
    if (pthread_attr_init(&attr))
        return ERR_NOMEM;
    pthread_attr_setstacksize(&attr, 512 << 10);
    const struct {
        pthread_t *thread;
        void *(*main)(void *);
    } threads[] = {{&st->keep_thread, keep_thread},
                   {&st->seal_thread, seal_thread},
                   {&st->log_thread, log_thread},
                   {&st->stage_thread, stage_thread}};
    enum { THREADS = sizeof threads / sizeof *threads };
    int started = 0;
    while (started < THREADS &&
           !pthread_create(threads[started].thread, &attr, threads[started].main, st))
        started++;
    pthread_attr_destroy(&attr);
    if (started == THREADS)
        return 0;
    pthread_mutex_lock(&st->lock);
    st->closing = st->stage_thread_ended = true;
    pthread_cond_signal(&st->log_wake);
    pthread_cond_signal(&st->seal_wake);
    pthread_cond_signal(&st->keep_wake);
    pthread_mutex_unlock(&st->lock);
    while (started-- > 0)
        pthread_join(*threads[started].thread, NULL);
    return ERR_NOMEM;
}

/* Everything but the threads; of a store that may be half opened. */
static void store_free(struct store *st)
{
    log_done(&st->log);
    log_files_free(st->detached);
    catalogue_close(st->catalogue);
    memtable_unref(st->active);
    memtable_unref(st->frozen);
    segment_list_unref(st->segments);
    readers_done(&st->readers);
    if (st->lock_fd >= 0)
        close(st->lock_fd);
    if (st->dir >= 0)
        close(st->dir);
    pthread_cond_destroy(&st->wake);
    pthread_cond_destroy(&st->log_wake);
    pthread_cond_destroy(&st->seal_wake);
    pthread_cond_destroy(&st->keep_wake);
    pthread_cond_destroy(&st->changed);
    pthread_mutex_destroy(&st->lock);
    pthread_mutex_destroy(&st->watch_lock);
    pthread_mutex_destroy(&st->change_lock);
    retention_free(st->retention);
    free(st->pins);
    free(st->path);
    free(st);
}

static uint64_t real_clock(void *arg)
{
    return clock_realtime_ns();
}

/* Counts on while the machine sleeps. */
static uint64_t boot_clock(void *arg)
{
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static uint64_t or_default(uint64_t given, uint64_t by_default)
{
    return given ? given : by_default;
}

int store_open(const struct store_options *options, struct store **ret_store,
               struct error_detail *ret_detail)
{
    struct store *st = calloc(1, sizeof *st);
    if (!st)
        return error_set(ret_detail, ERR_NOMEM, 0, "%s", err_text(ERR_NOMEM));
    bool sync = options->durability == STORE_DURABILITY_SYNC;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&st->lock, NULL);
    pthread_mutex_init(&st->watch_lock, NULL);
    pthread_mutex_init(&st->change_lock, NULL);
    pthread_cond_init(&st->wake, &monotonic);
    pthread_cond_init(&st->log_wake, &monotonic);
    pthread_cond_init(&st->seal_wake, &monotonic);
    pthread_cond_init(&st->keep_wake, &monotonic);
    pthread_cond_init(&st->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    readers_init(&st->readers);
    st->dir = st->lock_fd = -1;
    log_init(&st->log, -1, sync);
    st->queue_end = &st->queue;
    st->memtable_bytes_max = or_default(options->memtable_bytes_max, MEMTABLE_BYTES_DEFAULT);
    st->memtable_age_ns_max = or_default(options->memtable_age_ms_max, MEMTABLE_AGE_MS_DEFAULT) *
                              NS_PER_MS;
    st->queue_bytes_max = or_default(options->queue_bytes_max, QUEUE_BYTES_DEFAULT);
    st->clock = options->clock ? options->clock : real_clock;
    st->steady_clock = options->steady_clock ? options->steady_clock : boot_clock;
    st->clock_is_trusted = options->clock_is_trusted;
    st->clock_arg = options->clock_arg;
    st->path = strdup(options->dir);
    st->segments = segment_list_new(0);
    int err = st->path && st->segments ? memtable_new(&st->active) : ERR_NOMEM;
    if (!err)
        err = retention_new(&options->retention, &st->retention);
    if (err)
        error_set(ret_detail, err, 0, "%s", err_text(err));
    if (!err)
        err = dir_open(st, ret_detail);
    if (!err)
        err = store_recover(st, sync, ret_detail);
    if (!err && ((err = retention_counts_read(st, st->retention)) || (err = erasures_open(st))))
        error_set(ret_detail, err, 0, "%s/catalogue.db: %s", st->path, err_text(err));
    if (!err)
        keep_time_init(st);
    if (!err && (err = threads_start(st)))
        error_set(ret_detail, err, 0, "no thread can be started");
    if (err) {
        store_free(st);
        return err;
    }
    *ret_store = st;
    return 0;
}

void store_close(struct store *st)
{
    if (!st)
        return;
    pthread_mutex_lock(&st->lock);
    st->closing = true;
    pthread_cond_signal(&st->wake);
    pthread_cond_signal(&st->seal_wake);
    pthread_cond_signal(&st->keep_wake);
    pthread_mutex_unlock(&st->lock);
    pthread_join(st->keep_thread, NULL);
    pthread_join(st->stage_thread, NULL);
    pthread_join(st->log_thread, NULL);
    pthread_join(st->seal_thread, NULL);
    log_rotate(&st->log);
    log_trim(&st->log, st->sealed);
    st->detached = log_files_remove(st->dir, st->detached);
    store_free(st);
}

void store_stats(struct store *st, struct store_stats *ret_stats)
{
    struct store_stats s = {0};
    uint64_t min = UINT64_MAX, max = 0;
    pthread_mutex_lock(&st->lock);
    const struct memtable *memtables[] = {st->active, st->frozen};
    for (int i = 0; i < 2; i++) {
        uint64_t low, high;
        if (!memtables[i] || !memtable_rows(memtables[i]))
            continue;
        s.memtable_spans += memtable_rows(memtables[i]);
        s.traces_upper_bound += intern_count(&memtables[i]->traces);
        low = atomic_load(&memtables[i]->start_min_ns);
        high = atomic_load(&memtables[i]->start_max_ns);
        min = low < min ? low : min;
        max = high > max ? high : max;
    }
    for (uint32_t i = 0; i < st->segments->n; i++) {
        const struct segment_info *info = &st->segments->items[i]->info;
        s.damaged_segments += atomic_load(&st->segments->items[i]->is_damaged);
        s.segment_bytes += info->bytes;
        s.segment_spans += info->spans;
        s.traces_upper_bound += info->traces;
        min = info->start_min_ns < min ? info->start_min_ns : min;
        max = info->start_max_ns > max ? info->start_max_ns : max;
    }
    s.segments = st->segments->n;
    s.spans = s.memtable_spans + s.segment_spans;
    s.start_min_ns = s.spans ? min : 0;
    s.start_max_ns = max;
    s.log_bytes = st->log_bytes + log_files_bytes(st->detached);
    s.memtable_bytes = st->memtable_bytes + (st->frozen ? memtable_bytes(st->frozen) : 0);
    s.appended_batches = st->appended_batches;
    s.appended_spans = st->appended_spans;
    s.sealed_bytes = st->counters[COUNTER_SEALED_BYTES];
    s.rewritten_bytes = st->counters[COUNTER_REWRITTEN_BYTES];
    s.expired_age_spans = st->counters[COUNTER_EXPIRED_AGE_SPANS];
    s.expired_disk_spans = st->counters[COUNTER_EXPIRED_DISK_SPANS];
    s.deleted_spans = st->counters[COUNTER_DELETED_SPANS];
    s.redacted_spans = st->counters[COUNTER_REDACTED_SPANS];
    s.pins = st->n_pins;
    s.damaged_segments += st->lost_segments;
    s.lost_spans = st->lost_spans;
    s.damaged_log_places = st->damaged_at_open;
    pthread_mutex_unlock(&st->lock);
    *ret_stats = s;
}

static int newest_spans_first(const void *a, const void *b)
{
    const struct store_segment *x = a, *y = b;
    if (x->start_max_ns != y->start_max_ns)
        return x->start_max_ns > y->start_max_ns ? -1 : 1;
    return str_cmp(x->name, y->name);
}

int store_segments(struct store *st, struct arena *arena, struct store_segment **ret_segments,
                   size_t *ret_n)
{
    pthread_mutex_lock(&st->lock);
    size_t n = st->segments->n;
    struct store_segment *list = arena_array(arena, n + 1, sizeof *list);
    bool failed = !list;
    for (size_t i = 0; !failed && i < n; i++) {
        const struct segment_info *info = &st->segments->items[i]->info;
        list[i] = (struct store_segment){
            .name = arena_str(arena, str_from(info->name)),
            .spans = info->spans,
            .bytes = info->bytes,
            .start_min_ns = info->start_min_ns,
            .start_max_ns = info->start_max_ns,
            .sealed_ns = info->made_ns,
            .is_damaged = atomic_load(&st->segments->items[i]->is_damaged),
        };
        failed = !list[i].name.ptr;
    }
    pthread_mutex_unlock(&st->lock);
    if (failed)
        return ERR_NOMEM;
    if (n)
        qsort(list, n, sizeof *list, newest_spans_first);
    *ret_segments = list;
    *ret_n = n;
    return 0;
}
