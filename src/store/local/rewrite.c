#include "store/local/rewrite.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "store/local/file.h"

/* ---- pins ---- */

int pins_copy(struct store *st, struct pins *ret)
{
    pthread_mutex_lock(&st->change_lock);
    *ret = (struct pins){malloc((st->n_pins + 1) * sizeof *ret->ids), st->n_pins, st->pin_changes};
    if (ret->ids && st->n_pins)
        memcpy(ret->ids, st->pins, st->n_pins * sizeof *ret->ids);
    pthread_mutex_unlock(&st->change_lock);
    return ret->ids ? 0 : ERR_NOMEM;
}

static int id_order(const void *a, const void *b)
{
    return memcmp(a, b, TRACE_ID_SIZE);
}

bool pins_have(const struct pins *pins, const struct trace_id *id)
{
    return pins && pins->n && bsearch(id, pins->ids, pins->n, sizeof *pins->ids, id_order);
}

/* ---- what is there ---- */

struct segment_list *segment_list_now(struct store *st)
{
    pthread_mutex_lock(&st->lock);
    struct segment_list *list = segment_list_ref(st->segments);
    pthread_mutex_unlock(&st->lock);
    return list;
}

uint64_t segment_newest_ns(const struct segment_info *info)
{
    bool ahead = info->made_ns && info->made_ns < info->start_max_ns;
    return ahead ? info->made_ns : info->start_max_ns;
}

/* ---- taking ---- */

static int rewrite_add(void *arg, const struct span_batch *batch)
{
    struct rewrite *r = arg;
    struct arena arena = ARENA_INIT;
    size_t n = 0;
    for (size_t i = 0; i < batch->n; i++) {
        struct span *s = &batch->spans[i];
        if (r->drops && !pins_have(r->pins, &s->trace_id) && r->drops(r->arg, s))
            continue;
        batch->spans[n++] = *s;
    }
    r->n_dropped += batch->n - n;
    struct span_batch rest = {.spans = batch->spans, .n = n};
    int err = n && r->changes ? r->changes(r->arg, &rest, &arena, &r->n_changed) : 0;
    if (!err && n)
        err = memtable_add(r->mt, &rest);
    arena_done(&arena);
    return err ? err : memtable_bytes(r->mt) > r->bytes_max ? ERR_TOO_LARGE : 0;
}

int rewrite_take(struct rewrite *r, struct segment_file *file)
{
    struct segment *seg;
    uint32_t rows = r->mt->n_rows;
    uint64_t dropped = r->n_dropped, changed = r->n_changed;
    int err = segment_open(file->dir, file->info.name, &seg);
    if (!err) {
        err = segment_spans(seg, rewrite_add, r);
        segment_close(seg);
    }
    if (err) {
        memtable_roll_back(r->mt, rows);
        r->n_dropped = dropped;
        r->n_changed = changed;
        if (err == ERR_CORRUPT || err == ERR_NOT_FOUND)
            atomic_store(&file->is_damaged, true);
    } else {
        memtable_publish(r->mt, r->mt->n_rows, file->info.last_sequence);
    }
    return err;
}

/* ---- ending ---- */

static int publish(struct store *st, const struct rewrite *r, const struct segment_info *info,
                   struct segment_file **files, size_t n, struct catalogue_change *change)
{
    pthread_mutex_lock(&st->change_lock);
    int err = r->pins && r->pins->changes != st->pin_changes
                  ? ERR_BUSY
                  : segments_change(st, info, files, n, change);
    pthread_mutex_unlock(&st->change_lock);
    return err;
}

int rewrite_end(struct store *st, struct rewrite *r, struct segment_file **files, size_t n,
                struct catalogue_change *change)
{
    struct segment_info info = {.first_sequence = files[0]->info.first_sequence,
                                .last_sequence = files[n - 1]->info.last_sequence};
    bool any = memtable_rows(r->mt) > 0;
    int err = 0;
    for (size_t i = 0; i < n; i++)
        if (files[i]->info.made_ns > info.made_ns)
            info.made_ns = files[i]->info.made_ns;
    if (any) {
        pthread_mutex_lock(&st->change_lock);
        segment_name_next(st, &info);
        pthread_mutex_unlock(&st->change_lock);
        err = segment_write(r->mt, st->dir, st->log.sync, &info);
        change->counters[COUNTER_REWRITTEN_BYTES] += info.bytes;
    }
    if (!err) {
        err = publish(st, r, any ? &info : NULL, files, n, change);
        if (err && any && !catalogue_is_lost(st->catalogue)) /* no catalogue has it */
            (void)!file_remove(st->dir, info.name);
    }
    if (err && err != ERR_BUSY)
        log_error("a segment could not be rewritten file=%s: %s", files[0]->info.name,
                  err_text(err));
    return err;
}
