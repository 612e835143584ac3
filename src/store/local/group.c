/* Bodies on their way to the log, in groups: one sync for all that waited.
 *
 *   queue --> stage thread: rows into the memtable, write --> staged --> log thread: sync, publish, answer
 *
 * 1. While the log thread waits for the disk, the stage thread goes on with what comes next: memtable,
 *    checksum, write. What it does at once is a batch (BATCH_BYTES), what one sync is for is a group. There are
 *    two groups at most, of GROUP_BYTES_MAX and GROUP_BODIES_MAX each; what waits in the queue is bounded by
 *    itself.
 * 2. The log thread takes what is staged as soon as that is worth a sync (GROUP_BYTES_MIN, GROUP_BODIES_MIN),
 *    or the stage thread can do no more. Until then the group grows: a slow disk makes large groups, not
 *    many syncs.
 * 3. Groups are published and answered in the order in which they were staged, each after its own sync. The
 *    log thread publishes up to the last row of its group; those behind belong to the next.
 * 4. When a sync fails, its group alone is refused. But rows and records have their places: those behind are
 *    taken back with it, and go to the head of the queue (`refused`). When a write fails, its batch alone is
 *    refused, once all that was written before it is answered. In both cases the log is cut before anybody is
 *    told, and by the stage thread, which alone writes.
 * 5. The memtable is changed for another while nothing is staged and the log thread is free: one that is
 *    frozen holds published rows only, and ends with a record of the log.
 *
 * The log is the stage thread's. While `log_is_busy` the log thread syncs it, and accepts with the lock held. */
#include "store/local/group.h"

#include <stdlib.h>

enum {
    BATCH_BYTES = 128 << 10, /* or one larger body */
    BATCH_BODIES_MAX = 64,
    GROUP_BYTES_MIN = 1 << 20,
    GROUP_BYTES_MAX = 8 << 20, /* or one larger body */
    GROUP_BODIES_MIN = 32,
    GROUP_BODIES_MAX = 256,
};

/* ---- a group ---- */

static void group_add(struct group *g, struct pending *p)
{
    if (!g->first)
        g->end = &g->first;
    p->next = NULL;
    *g->end = p;
    g->end = &p->next;
    g->bytes += p->body.len;
    g->n++;
}

static void group_join(struct group *g, const struct group *behind)
{
    *(g->n ? g->end : &g->first) = behind->first;
    g->end = behind->end;
    g->bytes += behind->bytes;
    g->n += behind->n;
}

static struct pending *queue_take(struct store *st)
{
    struct pending *p = st->queue;
    st->queue = p->next;
    if (!st->queue)
        st->queue_end = &st->queue;
    return p;
}

static void group_answer(struct store *st, struct pending *group)
{
    uint64_t bytes = 0;
    while (group) {
        struct pending *next = group->next;
        bytes += group->body.len + PENDING_BYTES;
        group->done(group->arg, group->err);
        free(group);
        group = next;
    }
    pthread_mutex_lock(&st->lock);
    st->queue_bytes -= bytes;
    pthread_mutex_unlock(&st->lock);
}

/* Of those that have something in the log. */
static void group_fail(struct pending *group, int err)
{
    for (struct pending *p = group; p; p = p->next)
        if (p->staged)
            p->err = err;
}

/* ---- the log thread ---- */

static void group_watch(struct store *st, const struct pending *group)
{
    pthread_mutex_lock(&st->watch_lock);
    for (const struct pending *p = group; p && st->watch; p = p->next)
        if (!p->err)
            st->watch(st->watch_arg, p->batch);
    pthread_mutex_unlock(&st->watch_lock);
}

/* With the lock held, which is let go while it syncs. */
static void group_commit(struct store *st)
{
    struct group g = st->staged;
    uint64_t spans = 0, batches = 0;
    bool has_rows = false;
    st->staged = (struct group){0};
    st->log_is_busy = true;
    if (st->queue) /* what did not fit */
        pthread_cond_signal(&st->wake);
    pthread_mutex_unlock(&st->lock);
    for (const struct pending *p = g.first; p; p = p->next) {
        has_rows |= p->staged;
        batches += !p->err;
        spans += p->err ? 0 : p->batch->n;
    }
    int err = has_rows ? log_sync(&st->log) : 0;
    if (err)
        group_fail(g.first, err);
    if (has_rows && !err)
        memtable_publish(st->active, g.rows_end, g.log_end.last_sequence);
    pthread_mutex_lock(&st->lock);
    st->log_is_busy = false;
    pthread_cond_signal(&st->wake);
    if (err) {
        st->refused = g.first;
        return;
    }
    if (has_rows) {
        log_accept(&st->log, g.log_end);
        st->log_bytes = log_bytes(&st->log);
        st->published = g.log_end.last_sequence;
        if (!st->active_since_ns)
            st->active_since_ns = clock_monotonic_ns();
    }
    st->appended_batches += batches;
    st->appended_spans += spans;
    pthread_mutex_unlock(&st->lock);
    group_watch(st, g.first);
    group_answer(st, g.first);
    pthread_mutex_lock(&st->lock);
}

/* Whether there is a group to sync. */
static bool staged_is_ready(const struct store *st)
{
    const struct group *g = &st->staged;
    return g->n && !st->refused &&
           (st->stage_thread_waits || g->bytes >= GROUP_BYTES_MIN || g->n >= GROUP_BODIES_MIN);
}

void *log_thread(void *arg)
{
    struct store *st = arg;
    pthread_mutex_lock(&st->lock);
    for (;;) {
        if (staged_is_ready(st))
            group_commit(st);
        else if (st->stage_thread_ended)
            break;
        else
            pthread_cond_wait(&st->log_wake, &st->lock);
    }
    st->log_thread_ended = true;
    pthread_cond_broadcast(&st->changed);
    pthread_mutex_unlock(&st->lock);
    return NULL;
}

/* ---- changing the memtable: with the lock held, nothing staged, and the log thread free ---- */

static void active_put(struct store *st, struct memtable *fresh)
{
    st->active = fresh;
    st->active_since_ns = 0;
    st->memtable_bytes = 0;
}

/* Takes the place of the active memtable, when the frozen one is done. Lets the lock go while it waits.
 * False: sealing fails, or there is no memory. */
static bool active_freeze(struct store *st)
{
    st->seal_requested = false;
    while (st->frozen && !st->seal_err)
        pthread_cond_wait(&st->changed, &st->lock);
    struct memtable *fresh;
    if (!st->frozen && memtable_new(&fresh)) {
        st->seal_err = ERR_NOMEM;
        st->seal_failures++;
        pthread_cond_broadcast(&st->changed);
        return false;
    }
    if (st->frozen)
        return false;
    if (memtable_bytes(st->active) >= st->memtable_bytes_max && memtable_rows(st->active))
        st->memory_per_span = (double)memtable_bytes(st->active) / memtable_rows(st->active);
    st->frozen = st->active;
    active_put(st, fresh);
    log_rotate(&st->log);
    pthread_cond_signal(&st->seal_wake);
    return true;
}

/* What refused groups leave in a memtable stays in it, and without rows it is never frozen: while the
 * log cannot be written it would grow with each request that is tried again. Views that have it keep it.
 * False: there is no memory. */
static bool active_renew(struct store *st)
{
    struct memtable *fresh;
    if (memtable_new(&fresh))
        return false;
    memtable_unref(st->active);
    active_put(st, fresh);
    return true;
}

/* Refuses what waits, with the reason why there is no room for it. */
static void refuse_waiting(struct store *st, int err)
{
    struct group g = {0};
    while (st->queue && g.n < GROUP_BODIES_MAX)
        group_add(&g, queue_take(st));
    if (!g.n) {
        store_wait_ns(st, &st->wake, SEAL_RETRY_MS * NS_PER_MS);
        return;
    }
    pthread_mutex_unlock(&st->lock);
    for (struct pending *p = g.first; p; p = p->next)
        p->err = err;
    group_answer(st, g.first);
    pthread_mutex_lock(&st->lock);
}

static bool active_is_full(const struct store *st)
{
    return memtable_bytes(st->active) >= st->memtable_bytes_max;
}

static void active_change(struct store *st)
{
    bool full = active_is_full(st), rows = st->active_since_ns != 0;
    st->seal_requested = false;
    if (rows ? !active_freeze(st) && full : full && !active_renew(st))
        refuse_waiting(st, rows ? st->seal_err : ERR_NOMEM);
}

/* ---- the stage thread ---- */

/* How long until the active memtable is too old; 0: now. */
static uint64_t age_left_ns(const struct store *st)
{
    if (!st->active_since_ns)
        return UINT64_MAX;
    uint64_t age = clock_monotonic_ns() - st->active_since_ns;
    return age < st->memtable_age_ns_max ? st->memtable_age_ns_max - age : 0;
}

static bool active_is_due(const struct store *st)
{
    return st->seal_requested || active_is_full(st) || (age_left_ns(st) == 0 && !st->seal_err);
}

/* With the lock held. */
static struct group batch_take(struct store *st)
{
    struct group b = {0};
    while (st->queue && b.n < BATCH_BODIES_MAX && (!b.n || b.bytes < BATCH_BYTES) &&
           st->staged.n + b.n < GROUP_BODIES_MAX &&
           (!(st->staged.n + b.n) ||
            st->staged.bytes + b.bytes + st->queue->body.len <= GROUP_BYTES_MAX))
        group_add(&b, queue_take(st));
    return b;
}

/* Memtable, and log. Of what is refused nothing is in either, but for what has to be cut from the log. */
static int batch_write(struct store *st, const struct group *b)
{
    struct log_body bodies[BATCH_BODIES_MAX];
    uint32_t rows = st->active->n_rows;
    size_t n = 0;
    for (struct pending *p = b->first; p; p = p->next) {
        p->err = memtable_add(st->active, p->batch);
        p->staged = !p->err && p->batch->n; /* of nothing there is nothing to keep */
        if (p->staged)
            bodies[n++] = (struct log_body){p->format, p->body, (uint32_t)p->batch->n};
    }
    int err = n ? log_write(&st->log, bodies, n) : 0;
    if (err) {
        memtable_roll_back(st->active, rows);
        group_fail(b->first, err);
    }
    return err;
}

/* With the lock held, which is let go meanwhile. */
static void stage(struct store *st, struct group b)
{
    pthread_mutex_unlock(&st->lock);
    int err = batch_write(st, &b);
    pthread_mutex_lock(&st->lock);
    st->memtable_bytes = memtable_bytes(st->active);
    if (err) {
        st->unwritten = b.first;
        return;
    }
    group_join(&st->staged, &b);
    st->staged.rows_end = st->active->n_rows;
    st->staged.log_end = st->log.written;
    if (!st->log_is_busy && staged_is_ready(st))
        pthread_cond_signal(&st->log_wake);
}

/* A sync failed: back to what was published. */
static void refuse_group(struct store *st)
{
    struct pending *group = st->refused;
    pthread_mutex_unlock(&st->lock);
    memtable_roll_back(st->active, memtable_rows(st->active));
    log_refuse(&st->log);
    pthread_mutex_lock(&st->lock);
    if (st->staged.n) {
        *st->staged.end = st->queue;
        if (!st->queue)
            st->queue_end = st->staged.end;
        st->queue = st->staged.first;
        st->staged = (struct group){0};
    }
    st->memtable_bytes = memtable_bytes(st->active);
    st->refused = NULL;
    pthread_mutex_unlock(&st->lock);
    group_answer(st, group);
    pthread_mutex_lock(&st->lock);
}

/* A write failed, and all that was written before it is answered. */
static void refuse_batch(struct store *st)
{
    struct pending *batch = st->unwritten;
    st->unwritten = NULL;
    pthread_mutex_unlock(&st->lock);
    log_refuse(&st->log);
    group_answer(st, batch);
    pthread_mutex_lock(&st->lock);
}

/* The files of which all is in segments are the seal thread's to remove. */
static void detach(struct store *st)
{
    struct log_file **end = &st->detached;
    while (*end)
        end = &(*end)->newer;
    *end = log_detach(&st->log, st->sealed);
    st->detached_upto = st->sealed;
    st->log_bytes = log_bytes(&st->log);
    pthread_cond_signal(&st->seal_wake);
}

static void stage_wait(struct store *st)
{
    uint64_t left = age_left_ns(st);
    st->stage_thread_waits = true;
    if (st->staged.n)
        pthread_cond_signal(&st->log_wake);
    if (left == UINT64_MAX)
        pthread_cond_wait(&st->wake, &st->lock);
    else
        store_wait_ns(st, &st->wake, left ? left : SEAL_RETRY_MS * NS_PER_MS);
    st->stage_thread_waits = false;
}

void *stage_thread(void *arg)
{
    struct store *st = arg;
    pthread_mutex_lock(&st->lock);
    for (;;) {
        bool is_due = active_is_due(st), log_is_free = !st->staged.n && !st->log_is_busy;
        struct group batch = {0};
        if (st->detached_upto < st->sealed)
            detach(st);
        else if (st->refused)
            refuse_group(st);
        else if (st->unwritten && log_is_free)
            refuse_batch(st);
        else if (!st->unwritten && !is_due && (batch = batch_take(st)).n)
            stage(st, batch);
        else if (!log_is_free)
            stage_wait(st);
        else if (st->closing && !st->queue)
            break;
        else if (is_due)
            active_change(st);
        else
            stage_wait(st);
    }
    if (st->active_since_ns)
        (void)active_freeze(st); /* else the log keeps it */
    st->stage_thread_ended = true;
    pthread_cond_signal(&st->log_wake);
    pthread_cond_signal(&st->seal_wake);
    pthread_cond_broadcast(&st->changed);
    pthread_mutex_unlock(&st->lock);
    return NULL;
}
