/* Records: writing, files, recovery.
 *
 *   records_append: encodes --> queue --> thread: log (one write, one sync a group) --> rows --> done
 *                                                  |  rows many, old, or asked for
 *                                                  v
 *                                            file, then the log is trimmed
 *
 * 1. A batch is encoded once, by who appends it; log, memory and recovery have the same bytes. A
 *    batch is in all of them or in none.
 * 2. One thread writes. While it writes a file the queue fills, and then records_append answers
 *    ERR_BUSY: memory is bounded by the rows and the queue. When a file cannot be written (the disk is
 *    full, say) the rows stay in log and memory, and when they are twice too many groups are refused
 *    with that error; it is tried again each second.
 * 3. The name of a file says which sequences of the log it covers. A file appears by rename, so the
 *    directory is the catalogue: recovery replays what lies behind the highest sequence, and a file
 *    whose range lies inside another's was merged into it and goes.
 * 4. Positions are in each file, all of them: the newest file has those of its end. Retention
 *    therefore never takes the newest file; what in it is too old is not shown.
 * 5. Locks: `lock` alone. Only the thread changes rows, positions and files; it takes the lock to
 *    change them and none to read them. Who reads takes it. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "store/local/file.h"
#include "store/local/records_engine.h"

enum {
    MEMORY_BYTES_DEFAULT = 16 << 20,
    AGE_MS_DEFAULT = 15 * 60 * 1000,
    QUEUE_BYTES_DEFAULT = 32 << 20,
    SERIES_DEFAULT = 100000,
    GROUP_BYTES_MAX = 8 << 20,
    GROUP_BODIES_MAX = 256,
    PENDING_BYTES = 256, /* what a batch in the queue costs beside its bytes */
    KEEP_MS = 60 * 1000,
    RETRY_MS = 1000,
    /* Neighbours of one size are merged when there are so many; what is larger than that, no more. */
    MERGE_FILES = 8,
    MERGE_RAW_BYTES_MAX = 48 << 20,
    RETENTION_PARTS = 8,
};

static uint64_t now_ns(const struct records *r)
{
    return r->clock(r->clock_arg);
}

uint64_t records_cutoff_ns(const struct records *r)
{
    uint64_t now = now_ns(r), retention = atomic_load(&r->retention_ns);
    return retention && now > retention ? now - retention : 0;
}

void records_retention_set(struct records *r, uint64_t retention_ns, uint64_t disk_bytes_max)
{
    atomic_store(&r->retention_ns, retention_ns);
    atomic_store(&r->disk_bytes_max, disk_bytes_max);
}

static void wait_ns(struct records *r, pthread_cond_t *cond, uint64_t ns)
{
    uint64_t until = clock_monotonic_ns() + ns;
    struct timespec t = {(time_t)(until / NS_PER_S), (long)(until % NS_PER_S)};
    pthread_cond_timedwait(cond, &r->lock, &t);
}

/* ---- positions ---- */

static void positions_free(struct rows_position *p)
{
    while (p) {
        struct rows_position *next = p->next;
        free(p);
        p = next;
    }
}

static int position_set(void *arg, struct str name, struct str value)
{
    struct records *r = arg;
    struct rows_position **at = &r->positions;
    while (*at && !str_eq((struct str){(*at)->bytes, (*at)->name_len}, name))
        at = &(*at)->next;
    struct rows_position *old = *at, *fresh = NULL;
    if (value.len) {
        fresh = malloc(sizeof *fresh + name.len + value.len);
        if (!fresh)
            return ERR_NOMEM;
        *fresh = (struct rows_position){old ? old->next : NULL, name.len, value.len};
        memcpy(fresh->bytes, name.ptr, name.len);
        memcpy(fresh->bytes + name.len, value.ptr, value.len);
    }
    if (old || fresh)
        *at = fresh ? fresh : old->next;
    r->n_positions += (fresh != NULL) - (size_t)(old != NULL);
    r->positions_changed = true;
    free(old);
    return 0;
}

/* Those of a file, in place of what there is. */
static int positions_load(struct records *r, const struct records_file *file)
{
    struct codec_reader c = codec_reader(file->positions, NULL);
    positions_free(r->positions);
    r->positions = NULL;
    r->n_positions = 0;
    int err = 0;
    while (c.at < c.end && !c.err && !err) {
        struct str name = codec_str(&c), value = codec_str(&c);
        if (!c.err)
            err = position_set(r, name, value);
    }
    r->positions_changed = false;
    return err ? err : c.err;
}

/* ---- series: how many there may be ---- */

static bool series_room(struct series_set *set)
{
    if (2 * (set->n + 1) <= set->n_slots)
        return true;
    size_t n_slots = set->n_slots ? 2 * set->n_slots : 1024;
    uint64_t *slots = calloc(n_slots, sizeof *slots);
    if (!slots)
        return false;
    for (size_t i = 0; i < set->n_slots; i++) {
        size_t at = hash_mix64(set->slots[i] ^ hash_secret()) & (n_slots - 1);
        while (set->slots[i] && slots[at])
            at = (at + 1) & (n_slots - 1);
        if (set->slots[i])
            slots[at] = set->slots[i];
    }
    free(set->slots);
    set->slots = slots;
    set->n_slots = n_slots;
    return true;
}

static bool series_take(struct series_set *set, const uint8_t key[ROW_KEY_SIZE], size_t most)
{
    uint64_t half;
    memcpy(&half, key, sizeof half);
    half = half ? half : 1;
    if (!series_room(set))
        return false;
    size_t at = hash_mix64(half ^ hash_secret()) & (set->n_slots - 1);
    for (; set->slots[at]; at = (at + 1) & (set->n_slots - 1))
        if (set->slots[at] == half)
            return true;
    if (set->n >= most)
        return false;
    set->slots[at] = half;
    set->n++;
    return true;
}

static bool series_allowed(void *arg, const uint8_t key[ROW_KEY_SIZE])
{
    struct records *r = arg;
    pthread_mutex_lock(&r->lock);
    bool taken = series_take(&r->series, key, r->series_max);
    pthread_mutex_unlock(&r->lock);
    return taken;
}

/* ---- appending ---- */

static bool positions_fit(const struct records_batch *batch)
{
    for (size_t i = 0; i < batch->n_positions; i++)
        if (!batch->positions[i].name.len ||
            batch->positions[i].name.len + batch->positions[i].value.len >
                RECORDS_POSITION_BYTES_MAX)
            return false;
    return true;
}

int records_append(struct records *r, const struct records_batch *batch, records_durable_fn *done,
                   void *arg)
{
    if (!positions_fit(batch))
        return ERR_TOO_LARGE;
    struct records_pending *p = calloc(1, sizeof *p);
    if (!p)
        return ERR_NOMEM;
    p->done = done;
    p->arg = arg;
    p->body.bytes_max = UINT32_MAX;
    int err = rows_encode(batch, series_allowed, r, &p->body, &p->refused, &p->n);
    uint64_t bytes = p->body.len + PENDING_BYTES;
    pthread_mutex_lock(&r->lock);
    if (!err && r->closing)
        err = ERR_CLOSED;
    /* One batch may be larger than the queue. */
    if (!err && r->queue_bytes && r->queue_bytes + bytes > r->queue_bytes_max)
        err = ERR_BUSY;
    if (!err && r->n_positions + batch->n_positions > RECORDS_POSITIONS_MAX)
        err = ERR_TOO_LARGE;
    if (!err) {
        r->queue_bytes += bytes;
        *r->queue_end = p;
        r->queue_end = &p->next;
        pthread_cond_signal(&r->wake);
    }
    pthread_mutex_unlock(&r->lock);
    if (err) {
        buf_done(&p->body);
        free(p);
    }
    return err;
}

struct waiter {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool done;
    int err;
    struct records_refused refused;
};

static void waiter_done(void *arg, int err, const struct records_refused *refused)
{
    struct waiter *w = arg;
    pthread_mutex_lock(&w->lock);
    w->done = true;
    w->err = err;
    w->refused = *refused;
    pthread_cond_signal(&w->cond);
    pthread_mutex_unlock(&w->lock);
}

int records_append_wait(struct records *r, const struct records_batch *batch,
                        struct records_refused *ret_refused)
{
    struct waiter w = {.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};
    int err = records_append(r, batch, waiter_done, &w);
    if (err)
        return err;
    pthread_mutex_lock(&w.lock);
    while (!w.done)
        pthread_cond_wait(&w.cond, &w.lock);
    pthread_mutex_unlock(&w.lock);
    *ret_refused = w.refused;
    return w.err;
}

/* ---- the list of files: with the lock held when the thread runs ---- */

static int files_room(struct records *r)
{
    if (r->n_files < r->files_room)
        return 0;
    size_t room = r->files_room ? 2 * r->files_room : 64;
    struct records_file **files = realloc(r->files, room * sizeof(struct records_file *));
    if (!files)
        return ERR_NOMEM;
    r->files = files;
    r->files_room = room;
    return 0;
}

/* Takes `n` files from place `at` on out of the list; their files go when nobody reads them. */
static void files_drop(struct records *r, size_t at, size_t n)
{
    for (size_t i = at; i < at + n; i++) {
        atomic_store(&r->files[i]->is_gone, true);
        records_file_unref(r->files[i]);
    }
    memmove(r->files + at, r->files + at + n,
            (r->n_files - at - n) * sizeof(struct records_file *));
    r->n_files -= n;
}

/* ---- the thread: a file of what is in memory ---- */

static int file_make(struct records *r, struct rows *rows, const struct records_file_info *info,
                     struct records_file **ret)
{
    char name[RECORDS_NAME_SIZE];
    struct error_detail detail = {0};
    records_file_name(name, info->first_sequence, info->last_sequence);
    int err = records_file_write(r->dir, r->sync, rows, info);
    if (!err)
        err = records_file_open(r->dir, name, false, ret, &detail);
    if (err)
        log_error("a file of records could not be written file=%s: %s %s", name, err_text(err),
                  detail.message);
    return err;
}

static int seal(struct records *r)
{
    uint64_t last = r->log.next_sequence - 1;
    struct records_file *file;
    if (last <= r->sealed || (!r->rows.n && !r->positions_changed))
        return 0;
    log_rotate(&r->log);
    last = r->log.next_sequence - 1; /* rotating may have used up some that were refused */
    const struct records_file_info info = {
        .first_sequence = r->sealed + 1,
        .last_sequence = last,
        .last_ordinal = r->next_ordinal - 1,
        .made_ns = now_ns(r),
        .positions = r->positions,
    };
    pthread_mutex_lock(&r->lock);
    int err = files_room(r);
    pthread_mutex_unlock(&r->lock);
    if (!err)
        err = file_make(r, &r->rows, &info, &file);
    r->seal_err = err;
    r->seal_tried_ns = clock_monotonic_ns();
    if (err)
        return err;
    r->sealed = last;
    log_trim(&r->log, last);
    pthread_mutex_lock(&r->lock);
    r->files[r->n_files++] = file;
    rows_done(&r->rows);
    rows_init(&r->rows);
    r->first_row_ns = 0;
    r->positions_changed = false;
    r->log_bytes = log_bytes(&r->log);
    free(r->series.slots);
    r->series = (struct series_set){.n = 0};
    pthread_mutex_unlock(&r->lock);
    return 0;
}

/* ---- the thread: retention and merging ---- */

static uint64_t newest_ns(const struct records_file *f)
{
    uint64_t newest = 0;
    for (int kind = ROW_LOG; kind <= ROW_POINT; kind++)
        if (f->n_kind[kind] && f->time_max_ns[kind] > newest)
            newest = f->time_max_ns[kind];
    /* A sender's clock that is ahead keeps nothing longer. */
    return newest < f->made_ns ? newest : f->made_ns;
}

static void expire(struct records *r, size_t at, bool is_age)
{
    const struct records_file *f = r->files[at];
    uint64_t n = f->n_kind[ROW_LOG] + f->n_kind[ROW_POINT];
    log_info("dropped a file of records reason=%s file=%s records=%llu", is_age ? "age" : "disk",
             f->name, (unsigned long long)n);
    pthread_mutex_lock(&r->lock);
    *(is_age ? &r->expired_age : &r->expired_disk) += n;
    files_drop(r, at, 1);
    pthread_mutex_unlock(&r->lock);
}

static void expire_all(struct records *r)
{
    uint64_t cutoff = records_cutoff_ns(r), total = r->log_bytes;
    uint64_t most = atomic_load(&r->disk_bytes_max);
    for (size_t i = 0; cutoff && i + 1 < r->n_files;) {
        if (r->files[i]->map && newest_ns(r->files[i]) < cutoff)
            expire(r, i, true);
        else
            i++;
    }
    for (size_t i = 0; i < r->n_files; i++)
        total += r->files[i]->bytes;
    while (most && total > most && r->n_files > 1) {
        total -= r->files[0]->bytes;
        expire(r, 0, false);
    }
}

struct merge {
    struct rows rows;
    uint32_t *numbers; /* of the shared things of the file being read: in `rows` */
};

static int merge_row(void *arg, const struct row *row)
{
    struct merge *m = arg;
    struct row copy = *row;
    copy.shared = m->numbers[row->shared];
    return rows_add(&m->rows, &copy);
}

static int merge_file(struct merge *m, struct records_file *file)
{
    struct arena arena = ARENA_INIT;
    struct records_reader reader = {.file = file};
    int err = records_reader_shared(&reader, &arena);
    m->numbers = err ? NULL : arena_array(&arena, file->n_shared, sizeof *m->numbers);
    if (!err && !m->numbers)
        err = ERR_NOMEM;
    for (uint64_t i = 0; i < file->n_shared && !err; i++)
        err = rows_share(&m->rows, reader.shared[i], &m->numbers[i]);
    for (uint32_t i = 0; i < file->n_blocks && !err; i++)
        err = records_reader_block(&reader, i, merge_row, m);
    records_reader_done(&reader);
    arena_done(&arena);
    return err;
}

/* 0: too large to be merged any more; else how often its content was about. */
static int size_class(const struct records_file *f)
{
    uint64_t raw = f->raw_bytes + f->shared_raw;
    if (!f->map || atomic_load(&f->is_damaged) || raw > MERGE_RAW_BYTES_MAX / MERGE_FILES)
        return 0;
    int class = 1;
    for (uint64_t bytes = 64 << 10; bytes < raw; bytes *= MERGE_FILES)
        class ++;
    return class;
}

/* Neighbours of one class, not so far apart that retention would have to wait for the last of them.
 * False: none. */
static bool merge_find(const struct records *r, size_t *ret_at, size_t *ret_n)
{
    uint64_t longest = atomic_load(&r->retention_ns) / RETENTION_PARTS;
    for (size_t i = 0; i < r->n_files; i++) {
        int class = size_class(r->files[i]);
        uint64_t raw = 0;
        size_t n = 0;
        while (class && i + n < r->n_files && n < MERGE_FILES &&
               size_class(r->files[i + n]) == class) {
            const struct records_file *f = r->files[i + n];
            raw += f->raw_bytes + f->shared_raw;
            if (raw > MERGE_RAW_BYTES_MAX ||
                (longest && f->made_ns - r->files[i]->made_ns > longest))
                break;
            n++;
        }
        if (n == MERGE_FILES) {
            *ret_at = i;
            *ret_n = n;
            return true;
        }
    }
    return false;
}

static bool merge_some(struct records *r)
{
    size_t at, n;
    struct merge m;
    struct records_file *file = NULL;
    if (!merge_find(r, &at, &n))
        return false;
    const struct records_file *first = r->files[at], *last = r->files[at + n - 1];
    struct records_file_info info = {
        .first_sequence = first->first_sequence,
        .last_sequence = last->last_sequence,
        .last_ordinal = last->last_ordinal,
        .made_ns = last->made_ns,
    };
    /* Only the positions of the newest file count, and those are the ones in memory or older. */
    struct records positions = {.n_positions = 0};
    rows_init(&m.rows);
    int err = positions_load(&positions, last);
    info.positions = positions.positions;
    for (size_t i = at; i < at + n && !err; i++)
        err = merge_file(&m, r->files[i]);
    if (!err)
        err = file_make(r, &m.rows, &info, &file);
    positions_free(positions.positions);
    rows_done(&m.rows);
    if (err)
        return false;
    pthread_mutex_lock(&r->lock);
    files_drop(r, at, n - 1); /* one place is left, for the new file */
    struct records_file *old = r->files[at];
    r->files[at] = file;
    atomic_store(&old->is_gone, true);
    records_file_unref(old);
    pthread_mutex_unlock(&r->lock);
    return true;
}

static void keep(struct records *r)
{
    expire_all(r);
    while (merge_some(r))
        ;
    r->kept_ns = clock_monotonic_ns();
}

/* ---- the thread ---- */

static struct records_pending *group_take(struct records *r)
{
    struct records_pending *group = r->queue, **end = &r->queue;
    size_t bytes = 0;
    for (int n = 0; *end && n < GROUP_BODIES_MAX; n++) {
        bytes += (*end)->body.len;
        if (n && bytes > GROUP_BYTES_MAX)
            break;
        end = &(*end)->next;
    }
    if (end == &r->queue)
        return NULL;
    r->queue = *end;
    *end = NULL;
    if (!r->queue)
        r->queue_end = &r->queue;
    return group;
}

/* The log has them: now they are seen. */
static void group_publish(struct records *r, struct records_pending *group)
{
    pthread_mutex_lock(&r->lock);
    for (struct records_pending *p = group; p; p = p->next) {
        size_t before = r->rows.n;
        int err = rows_add_batch(&r->rows, buf_as_str(&p->body), r->next_ordinal, position_set, r);
        /* Durable and not seen until the next start: there is no memory for it. */
        if (err)
            log_error("records are in the log but not in memory: %s", err_text(err));
        r->next_ordinal += err ? p->n : r->rows.n - before;
    }
    if (!r->first_row_ns)
        r->first_row_ns = clock_monotonic_ns();
    r->log_bytes = log_bytes(&r->log);
    pthread_mutex_unlock(&r->lock);
}

static void group_commit(struct records *r, struct records_pending *group)
{
    struct log_body bodies[GROUP_BODIES_MAX];
    uint64_t sequence;
    size_t n = 0;
    for (struct records_pending *p = group; p; p = p->next)
        bodies[n++] = (struct log_body){RECORDS_BODY, buf_as_str(&p->body), (uint32_t)p->n};
    int err = r->seal_err && rows_bytes(&r->rows) >= 2 * r->memory_bytes_max
                  ? r->seal_err
                  : log_append(&r->log, bodies, n, &sequence);
    if (!err)
        group_publish(r, group);
    uint64_t bytes = 0;
    while (group) {
        struct records_pending *next = group->next;
        bytes += group->body.len + PENDING_BYTES;
        group->done(group->arg, err, &group->refused);
        buf_done(&group->body);
        free(group);
        group = next;
    }
    pthread_mutex_lock(&r->lock);
    r->queue_bytes -= bytes;
    pthread_mutex_unlock(&r->lock);
}

static bool seal_is_due(const struct records *r)
{
    uint64_t now = clock_monotonic_ns();
    if (r->seal_err && now - r->seal_tried_ns < RETRY_MS * NS_PER_MS)
        return false;
    return rows_bytes(&r->rows) >= r->memory_bytes_max ||
           (r->first_row_ns && now - r->first_row_ns >= r->age_ns_max);
}

static void *records_thread(void *arg)
{
    struct records *r = arg;
    r->kept_ns = clock_monotonic_ns();
    pthread_mutex_lock(&r->lock);
    for (;;) {
        struct records_pending *group = group_take(r);
        uint64_t asked = r->keep_wanted;
        bool is_asked = asked != r->keep_done, closing = r->closing;
        pthread_mutex_unlock(&r->lock);
        if (group)
            group_commit(r, group);
        bool sealed = (is_asked || seal_is_due(r)) && !seal(r);
        if (is_asked || sealed || clock_monotonic_ns() - r->kept_ns >= KEEP_MS * NS_PER_MS)
            keep(r);
        pthread_mutex_lock(&r->lock);
        if (is_asked) {
            r->keep_done = asked;
            pthread_cond_broadcast(&r->changed);
        }
        if (r->queue || r->keep_wanted != r->keep_done)
            continue;
        if (closing)
            break;
        if (!r->closing)
            wait_ns(r, &r->wake, (r->first_row_ns ? RETRY_MS : KEEP_MS) * NS_PER_MS);
    }
    pthread_mutex_unlock(&r->lock);
    (void)!seal(r); /* else the log keeps it */
    return NULL;
}

int records_keep(struct records *r)
{
    pthread_mutex_lock(&r->lock);
    uint64_t mine = ++r->keep_wanted;
    pthread_cond_signal(&r->wake);
    while (r->keep_done < mine)
        pthread_cond_wait(&r->changed, &r->lock);
    int err = r->seal_err;
    pthread_mutex_unlock(&r->lock);
    return err;
}

/* ---- opening ---- */

/* Opens one; a damaged one keeps its place, and is told. */
static int file_take(struct records *r, const struct records_found *f, struct records_file **ret)
{
    struct error_detail detail = {0};
    int err = records_file_open(r->dir, f->name, false, ret, &detail);
    if (err == ERR_CORRUPT) {
        log_error("a file of records is damaged and left out file=%s offset=%zu: %s", f->name,
                  detail.position, detail.message);
        err = records_file_lost(r->dir, f->name, ret);
    }
    return err;
}

static int files_open(struct records *r, struct error_detail *detail)
{
    struct records_survey s = {0};
    int err = records_survey(r->dir, true, &s);
    for (size_t i = 0; i < s.n && !err; i++) {
        const struct records_found *f = &s.items[i];
        struct records_file *last = r->n_files ? r->files[r->n_files - 1] : NULL;
        /* A whole one that covers it stands in the list: it was merged into that. */
        if (last && last->map && f->last <= last->last_sequence) {
            (void)!file_remove(r->dir, f->name);
            continue;
        }
        err = files_room(r);
        if (!err)
            err = file_take(r, f, &r->files[r->n_files]);
        if (err) {
            error_set(detail, err, 0, "%s/%s: %s", r->path, f->name, err_text(err));
        } else {
            struct records_file *file = r->files[r->n_files++];
            r->sealed = f->last > r->sealed ? f->last : r->sealed;
            if (file->last_ordinal >= r->next_ordinal)
                r->next_ordinal = file->last_ordinal + 1;
            if (file->map)
                err = positions_load(r, file);
        }
    }
    free(s.items);
    return err;
}

static int replay(void *arg, uint64_t sequence, const struct log_body *body)
{
    struct records *r = arg;
    size_t before = r->rows.n;
    int err = body->format == RECORDS_BODY
                  ? rows_add_batch(&r->rows, body->body, r->next_ordinal, position_set, r)
                  : ERR_UNSUPPORTED;
    if (err == ERR_CORRUPT) {
        log_error("log record sequence=%llu cannot be decoded", (unsigned long long)sequence);
        r->log.damaged++;
        err = 0;
    }
    r->next_ordinal += r->rows.n - before;
    return err;
}

static int recover(struct records *r, struct error_detail *detail)
{
    r->next_ordinal = 1;
    int err = files_open(r, detail);
    if (err)
        return err;
    log_init(&r->log, r->dir, r->sync);
    err = log_recover(&r->log, r->sealed, replay, r, detail);
    if (err)
        return err;
    for (size_t i = 0; i < r->rows.n; i++)
        if (r->rows.items[i].kind == ROW_POINT)
            (void)series_take(&r->series, r->rows.items[i].key, SIZE_MAX);
    log_trim(&r->log, r->sealed);
    r->first_row_ns = r->rows.n || r->positions_changed ? clock_monotonic_ns() : 0;
    r->log_bytes = log_bytes(&r->log);
    r->damaged_log_places = r->log.damaged;
    return 0;
}

static int dir_open(struct records *r, struct error_detail *detail)
{
    int err = mkdir(r->path, 0700) && errno != EEXIST ? err_from_errno(errno) : 0;
    if (!err)
        err = file_open(AT_FDCWD, r->path, O_RDONLY | O_DIRECTORY, &r->dir);
    if (!err)
        err = file_open(r->dir, "lock", O_RDWR | O_CREAT, &r->lock_fd);
    if (!err && flock(r->lock_fd, LOCK_EX | LOCK_NB))
        err = errno == EWOULDBLOCK ? ERR_BUSY : err_from_errno(errno);
    /* What is acknowledged later must not be lost with its directory. */
    int parent;
    if (!err && r->sync && !file_open(r->dir, "..", O_RDONLY | O_DIRECTORY, &parent)) {
        (void)!file_sync(parent);
        close(parent);
    }
    return err ? error_set(detail, err, 0, "%s: %s", r->path, err_text(err)) : 0;
}

static uint64_t real_clock(void *arg)
{
    (void)arg;
    return clock_realtime_ns();
}

static uint64_t or_default(uint64_t given, uint64_t by_default)
{
    return given ? given : by_default;
}

/* Of one that may be half opened; its thread is not there. */
static void records_free(struct records *r)
{
    log_done(&r->log);
    rows_done(&r->rows);
    positions_free(r->positions);
    for (size_t i = 0; i < r->n_files; i++)
        records_file_unref(r->files[i]);
    free(r->files);
    free(r->series.slots);
    if (r->lock_fd >= 0)
        close(r->lock_fd);
    if (r->dir >= 0)
        close(r->dir);
    pthread_cond_destroy(&r->wake);
    pthread_cond_destroy(&r->changed);
    pthread_mutex_destroy(&r->lock);
    free(r->path);
    free(r);
}

int records_open(const struct records_options *o, struct records **ret,
                 struct error_detail *ret_detail)
{
    struct records *r = calloc(1, sizeof *r);
    if (!r)
        return error_set(ret_detail, ERR_NOMEM, 0, "%s", err_text(ERR_NOMEM));
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->wake, &monotonic);
    pthread_cond_init(&r->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    r->dir = r->lock_fd = -1;
    r->sync = o->durability == STORE_DURABILITY_SYNC;
    log_init(&r->log, -1, r->sync);
    r->queue_end = &r->queue;
    r->memory_bytes_max = or_default(o->memory_bytes_max, MEMORY_BYTES_DEFAULT);
    r->age_ns_max = or_default(o->age_ms_max, AGE_MS_DEFAULT) * NS_PER_MS;
    r->queue_bytes_max = or_default(o->queue_bytes_max, QUEUE_BYTES_DEFAULT);
    r->series_max = or_default(o->series_max, SERIES_DEFAULT);
    records_retention_set(r, o->retention_ns, o->disk_bytes_max);
    r->clock = o->clock ? o->clock : real_clock;
    r->clock_arg = o->clock_arg;
    rows_init(&r->rows);
    r->path = strdup(o->dir);
    int err = r->path ? 0 : error_set(ret_detail, ERR_NOMEM, 0, "%s", err_text(ERR_NOMEM));
    if (!err)
        err = dir_open(r, ret_detail);
    if (!err)
        err = recover(r, ret_detail);
    if (!err && pthread_create(&r->thread, NULL, records_thread, r))
        err = error_set(ret_detail, ERR_NOMEM, 0, "no thread can be started");
    if (err) {
        records_free(r);
        return err;
    }
    *ret = r;
    return 0;
}

void records_close(struct records *r)
{
    if (!r)
        return;
    pthread_mutex_lock(&r->lock);
    r->closing = true;
    pthread_cond_signal(&r->wake);
    pthread_mutex_unlock(&r->lock);
    pthread_join(r->thread, NULL);
    records_free(r);
}

void records_stats(struct records *r, struct records_stats *ret)
{
    struct records_stats s = {0};
    uint64_t min = UINT64_MAX, max = 0;
    pthread_mutex_lock(&r->lock);
    for (size_t i = 0; i <= r->n_files; i++) {
        bool is_file = i < r->n_files;
        const struct records_file *f = is_file ? r->files[i] : NULL;
        const uint64_t *n = is_file ? f->n_kind : r->rows.n_kind;
        s.logs += n[ROW_LOG];
        s.points += n[ROW_POINT];
        s.file_bytes += is_file ? f->bytes : 0;
        s.damaged_files += is_file && atomic_load(&f->is_damaged);
        for (int kind = ROW_LOG; kind <= ROW_POINT; kind++) {
            uint64_t low = is_file ? f->time_min_ns[kind] : r->rows.time_min_ns[kind];
            uint64_t high = is_file ? f->time_max_ns[kind] : r->rows.time_max_ns[kind];
            min = n[kind] && low < min ? low : min;
            max = n[kind] && high > max ? high : max;
        }
    }
    s.files = r->n_files;
    s.log_bytes = r->log_bytes;
    s.memory_bytes = rows_bytes(&r->rows) + r->queue_bytes;
    s.series = r->series.n;
    s.time_min_ns = min == UINT64_MAX ? 0 : min;
    s.time_max_ns = max;
    s.expired_age = r->expired_age;
    s.expired_disk = r->expired_disk;
    s.damaged_log_places = r->damaged_log_places;
    pthread_mutex_unlock(&r->lock);
    *ret = s;
}
