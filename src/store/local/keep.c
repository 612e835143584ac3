/* The store over time: retention, the disk budget, pins, merging. One thread does all of it, each minute,
 * after each sealing, and when it is asked.
 *
 * 1. What goes is a whole segment, where it can be. Where pinned traces are in it, or spans that a rule
 *    keeps longer (retention.c), these are written to a new one first, which takes its place.
 * 2. Merging reads neighbours in the order of their log records into a memtable and seals that: the parts of
 *    a trace come together, and what is covered stays one range. A memtable's size bounds it.
 * 3. Neighbours are merged when there are four or more and none of them is more than half of all: each byte
 *    is rewritten at most once for each doubling of the segment it is in.
 * 4. A new file exists from the change of the catalogue on that takes the old ones out of it: there is no
 *    moment at which a span is in two segments or in none. A view keeps the files it reads; they are
 *    unlinked with the last view.
 * 5. A segment that cannot be read is never rewritten. */
#include <pugmark/pugmark.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "store/local/erase.h"
#include "store/local/retention.h"

enum {
    KEEP_MS = 60 * 1000,
    MERGE_MIN = 4,
    MERGE_MAX = 64,
};
#define CLOCK_STEP_NS (3600 * NS_PER_S)
#define CLOCK_AWAY_NS NS_PER_DAY /* that a store may have been closed or quiet */
#define CLOCK_DOUBT_NS NS_PER_DAY

/* ---- what goes ---- */

/* How many of its traces are pinned. */
static int pinned_count(const struct pins *pins, struct segment_file *file, uint64_t *ret)
{
    struct segment *seg;
    *ret = 0;
    if (!pins->n)
        return 0;
    int err = segment_open(file->dir, file->info.name, &seg);
    if (err)
        return err;
    for (size_t i = 0; i < pins->n && !err; i++) {
        bool has = false;
        err = segment_has(seg, &pins->ids[i], &has);
        *ret += has;
    }
    segment_close(seg);
    return err;
}

static bool expire_drops(void *arg, const struct span *s)
{
    return true;
}

int segment_expire(struct store *st, struct segment_file *file, const struct pins *pins,
                   struct catalogue_change *change, enum catalogue_counter reason,
                   uint64_t *ret_bytes)
{
    uint64_t pinned, before = file->info.bytes;
    int err = pinned_count(pins, file, &pinned);
    *ret_bytes = 0;
    if (err == ERR_CORRUPT || err == ERR_NOT_FOUND) {
        atomic_store(&file->is_damaged, true); /* a pinned trace may be in it */
        return 0;
    }
    if (err || pinned == file->info.traces)
        return err;
    struct rewrite r = {.bytes_max = UINT64_MAX,
                        .drops = expire_drops,
                        .pins = pins,
                        .n_dropped = file->info.spans};
    err = memtable_new(&r.mt);
    if (!err && pinned) {
        r.n_dropped = 0;
        err = rewrite_take(&r, file);
    }
    change->counters[reason] += r.n_dropped;
    if (!err)
        err = rewrite_end(st, &r, &file, 1, change);
    memtable_unref(r.mt);
    if (err == ERR_CORRUPT)
        return 0;
    if (!err) {
        log_info("dropped a segment reason=%s file=%s spans=%llu",
                 reason == COUNTER_EXPIRED_AGE_SPANS ? "age" : "disk", file->info.name,
                 (unsigned long long)r.n_dropped);
        *ret_bytes = before;
    }
    return err;
}

void store_disk_other(struct store *st, uint64_t bytes)
{
    atomic_store_explicit(&st->disk_other_bytes, bytes, memory_order_relaxed);
}

static int expire_by_disk(struct store *st, const struct retention *retention,
                          const struct pins *pins)
{
    if (!retention->disk_bytes_max)
        return 0;
    struct segment_list *list = segment_list_now(st);
    pthread_mutex_lock(&st->lock);
    uint64_t log_bytes = st->log_bytes, total = log_bytes;
    pthread_mutex_unlock(&st->lock);
    uint64_t other = atomic_load_explicit(&st->disk_other_bytes, memory_order_relaxed);
    total += other < retention->disk_bytes_max / 2 ? other : retention->disk_bytes_max / 2;
    int err = 0;
    for (uint32_t i = 0; i < list->n; i++)
        total += list->items[i]->info.bytes;
    for (uint32_t i = list->n; i-- > 0 && !err && total > retention->disk_bytes_max;) {
        struct catalogue_change change = {.sealed = 0};
        uint64_t freed;
        err = segment_expire(st, list->items[i], pins, &change, COUNTER_EXPIRED_DISK_SPANS, &freed);
        total -= freed;
    }
    segment_list_unref(list);
    /* What is left is the log: sealed it takes less, and can go. */
    if (!err && total > retention->disk_bytes_max && log_bytes > retention->disk_bytes_max / 2) {
        pthread_mutex_lock(&st->lock);
        st->seal_requested = memtable_rows(st->active) > 0;
        pthread_cond_signal(&st->wake);
        pthread_mutex_unlock(&st->lock);
    }
    return err;
}

/* ---- merging ---- */

struct window {
    uint32_t first, n; /* in the list, whose order is newest first */
};

/* The longest run of neighbours that is worth it, and that the memory will hold as far as can be told
 * beforehand: under load each segment is a whole memtable already, and half of the keeper's work would
 * be to find that out anew. */
static struct window window_find(const struct store *st, const struct segment_list *list, bool all,
                                 double memory_per_span)
{
    struct window best = {0};
    uint32_t least = all ? 2 : MERGE_MIN;
    for (uint32_t i = 0; i < list->n; i++) {
        uint64_t total = 0, largest = 0, spans = 0;
        for (uint32_t n = 1; n <= MERGE_MAX && i + n <= list->n; n++) {
            const struct segment_file *file = list->items[i + n - 1];
            if (file->is_alone || atomic_load(&file->is_damaged))
                break;
            total += file->info.bytes;
            largest = file->info.bytes > largest ? file->info.bytes : largest;
            spans += file->info.spans;
            if (n > 1 && (total > st->memtable_bytes_max ||
                          (double)spans * memory_per_span > (double)st->memtable_bytes_max))
                break;
            if (n >= least && n > best.n && (all || largest * 2 <= total))
                best = (struct window){i, n};
        }
    }
    return best;
}

/* As many of them as fit in a memtable, from the oldest on. */
static int merge(struct store *st, struct segment_file **files, size_t n)
{
    PUG_SPAN("store.merge", PUG_INT("segments", (int64_t)n));
    struct rewrite r = {.bytes_max = st->memtable_bytes_max};
    size_t taken = 0;
    int err = memtable_new(&r.mt);
    while (!err && taken < n && !(err = rewrite_take(&r, files[taken])))
        taken++;
    /* One that is damaged or does not fit ends the run; window_find begins behind it. */
    if ((err == ERR_TOO_LARGE || err == ERR_CORRUPT || err == ERR_NOT_FOUND)) {
        if (taken < 2 && err == ERR_TOO_LARGE)
            files[0]->is_alone = true;
        if (taken && err == ERR_TOO_LARGE) {
            pthread_mutex_lock(&st->lock);
            st->memory_per_span = (double)memtable_bytes(r.mt) / memtable_rows(r.mt);
            pthread_mutex_unlock(&st->lock);
        }
        err = 0;
    }
    if (!err && taken >= 2) {
        struct catalogue_change change = {.sealed = 0};
        err = rewrite_end(st, &r, files, taken, &change);
        if (!err)
            log_debug("merged segments=%zu spans=%u", taken, memtable_rows(r.mt));
    }
    memtable_unref(r.mt);
    return err;
}

static bool is_closing(struct store *st)
{
    pthread_mutex_lock(&st->lock);
    bool closing = st->closing;
    pthread_mutex_unlock(&st->lock);
    return closing;
}

static int merge_all(struct store *st, bool all)
{
    int err = 0;
    while (!err && (all || !is_closing(st))) {
        struct segment_list *list = segment_list_now(st);
        pthread_mutex_lock(&st->lock);
        double memory_per_span = st->memory_per_span;
        pthread_mutex_unlock(&st->lock);
        struct window w = window_find(st, list, all, memory_per_span);
        struct segment_file *files[MERGE_MAX];
        for (uint32_t i = 0; i < w.n; i++)
            files[i] = list->items[w.first + w.n - 1 - i];
        if (w.n)
            err = merge(st, files, w.n);
        segment_list_unref(list);
        if (!w.n)
            break;
    }
    return err;
}

/* ---- the thread ---- */

/* ---- the time ---- */

/* When the newest segment was made, by the clock of then; 0: there is none. */
static uint64_t time_seen(struct store *st)
{
    struct segment_list *list = segment_list_now(st);
    uint64_t seen = 0;
    for (uint32_t i = 0; i < list->n; i++)
        if (list->items[i]->info.made_ns > seen)
            seen = list->items[i]->info.made_ns;
    segment_list_unref(list);
    return seen;
}

void keep_time_init(struct store *st)
{
    uint64_t now = store_now(st), seen = time_seen(st);
    st->believed_ns = now;
    st->believed_at_ns = st->steady_clock(st->clock_arg);
    if (seen && now > seen && now - seen > CLOCK_AWAY_NS) {
        st->believed_ns = seen;
        st->doubted_since_ns = st->believed_at_ns ? st->believed_at_ns : 1;
    }
}

/* A clock that steps forward by years would have everything dropped. The time that retention goes by is the
 * clock's while that agrees with the steady clock, and at first with what the store has seen; a step forward is
 * believed when it has lasted a day, and until then time goes on from before it. */
static uint64_t keep_now(struct store *st)
{
    uint64_t now = store_now(st), steady = st->steady_clock(st->clock_arg);
    if (st->clock_is_trusted)
        return now;
    uint64_t expected = st->believed_ns + (steady - st->believed_at_ns);
    if (now <= expected || now - expected < CLOCK_STEP_NS) {
        st->doubted_since_ns = 0;
        st->doubt_was_told = false;
    } else {
        if (!st->doubted_since_ns)
            st->doubted_since_ns = steady ? steady : 1;
        if (!st->doubt_was_told) {
            st->doubt_was_told = true;
            log_warn("the clock is %llu hours ahead of what the store knows: retention waits a day "
                     "before it believes that",
                     (unsigned long long)((now - expected) / (3600 * NS_PER_S)));
        }
        if (steady - st->doubted_since_ns < CLOCK_DOUBT_NS)
            return expected;
        st->doubted_since_ns = 0;
    }
    st->believed_ns = now;
    st->believed_at_ns = steady;
    return now;
}

/* The rules that are in force stay until the round is over. */
static struct retention *retention_take(struct store *st)
{
    pthread_mutex_lock(&st->lock);
    st->retention_in_use = true;
    struct retention *r = st->retention;
    pthread_mutex_unlock(&st->lock);
    return r;
}

static void retention_give(struct store *st)
{
    pthread_mutex_lock(&st->lock);
    st->retention_in_use = false;
    pthread_cond_broadcast(&st->changed);
    pthread_mutex_unlock(&st->lock);
}

static int keep_round(struct store *st, bool all)
{
    int err = erasures_run(st);
    if (err)
        return err;
    struct retention *retention = retention_take(st);
    struct pins pins;
    do {
        err = pins_copy(st, &pins);
        if (!err)
            err = retention_apply(st, retention, &pins, keep_now(st));
        if (!err)
            err = expire_by_disk(st, retention, &pins);
        free(pins.ids);
    } while (err == ERR_BUSY && !is_closing(st)); /* pins came meanwhile */
    retention_give(st);
    return err ? err : merge_all(st, all);
}

void *keep_thread(void *arg)
{
    struct store *st = arg;
    pthread_mutex_lock(&st->lock);
    while (!st->closing) {
        uint64_t wanted = st->keep_wanted;
        bool all = st->keep_all;
        st->keep_all = false;
        pthread_mutex_unlock(&st->lock);
        int err = keep_round(st, all);
        pthread_mutex_lock(&st->lock);
        st->keep_err = err;
        st->keep_done = wanted;
        pthread_cond_broadcast(&st->changed);
        if (st->keep_wanted == wanted && !st->closing)
            store_wait_ns(st, &st->keep_wake, KEEP_MS * NS_PER_MS);
    }
    st->keep_done = UINT64_MAX; /* nobody waits for what will not be */
    pthread_cond_broadcast(&st->changed);
    pthread_mutex_unlock(&st->lock);
    return NULL;
}

int store_keep(struct store *st, bool all)
{
    pthread_mutex_lock(&st->lock);
    uint64_t wanted = ++st->keep_wanted;
    st->keep_all |= all;
    pthread_cond_signal(&st->keep_wake);
    while (st->keep_done < wanted)
        pthread_cond_wait(&st->changed, &st->lock);
    int err = st->keep_done == UINT64_MAX ? ERR_CLOSED : st->keep_err;
    pthread_mutex_unlock(&st->lock);
    return err;
}

/* ---- pins ---- */

static int id_order(const void *a, const void *b)
{
    return memcmp(a, b, TRACE_ID_SIZE);
}

static size_t pin_place(const struct store *st, const struct trace_id *id)
{
    size_t low = 0, high = st->n_pins;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (id_order(&st->pins[middle], id) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static int pin_add(struct store *st, const struct trace_id *id)
{
    size_t at = pin_place(st, id);
    if (at < st->n_pins && !id_order(&st->pins[at], id))
        return 0;
    if (st->n_pins == STORE_PINS_MAX)
        return ERR_TOO_LARGE;
    if (st->n_pins == st->cap_pins) {
        size_t cap = st->cap_pins ? st->cap_pins * 2 : 16;
        struct trace_id *more = realloc(st->pins, cap * sizeof *more);
        if (!more)
            return ERR_NOMEM;
        st->pins = more;
        st->cap_pins = cap;
    }
    int err = catalogue_pin(st->catalogue, id, store_now(st));
    if (err)
        return err;
    memmove(st->pins + at + 1, st->pins + at, (st->n_pins - at) * sizeof *st->pins);
    st->pins[at] = *id;
    st->n_pins++;
    st->pin_changes++;
    return 0;
}

int store_pin(struct store *st, const struct trace_id *id)
{
    pthread_mutex_lock(&st->change_lock);
    int err = pin_add(st, id);
    pthread_mutex_unlock(&st->change_lock);
    return err;
}

int store_unpin(struct store *st, const struct trace_id *id)
{
    pthread_mutex_lock(&st->change_lock);
    size_t at = pin_place(st, id);
    int err = at < st->n_pins && !id_order(&st->pins[at], id) ? catalogue_unpin(st->catalogue, id)
                                                              : ERR_NOT_FOUND;
    if (!err) {
        st->n_pins--;
        memmove(st->pins + at, st->pins + at + 1, (st->n_pins - at) * sizeof *st->pins);
        st->pin_changes++;
    }
    pthread_mutex_unlock(&st->change_lock);
    return err;
}

int store_pins(struct store *st, struct arena *arena, struct trace_id **ret_ids, size_t *ret_n)
{
    pthread_mutex_lock(&st->change_lock);
    struct trace_id *ids = arena_array(arena, st->n_pins, sizeof *ids);
    if (ids && st->n_pins)
        memcpy(ids, st->pins, st->n_pins * sizeof *ids);
    *ret_n = st->n_pins;
    pthread_mutex_unlock(&st->change_lock);
    if (!ids)
        return ERR_NOMEM;
    *ret_ids = ids;
    return 0;
}
