/* Deletion and redaction.
 *
 * 1. What is asked is noted in the catalogue before anything is touched, so that a crash in the middle ends it
 *    and does not undo it: whoever opens the store next goes on. What the note says is in erase_body.c.
 * 2. Before the note is made the memtable is sealed and the log trimmed: then all that is meant lies in
 *    segments, up to one record of the log (`last_sequence`), and in no log file. What comes later is not
 *    meant. So nothing that was erased can come back from the log.
 * 3. The keeper writes each segment anew that has something of it, in the place of the old one, one change of
 *    the catalogue each; then it removes the note. Nothing else is merged while there are notes, so that what
 *    came later stays apart.
 * 4. The answer is given when the note is gone: no view made from then on sees what was erased. The old files
 *    are unlinked with the last view that has them.
 * 5. A segment of which something cannot be read stays as it is, and is told: nobody knows what is in it.
 * 6. Pins keep nothing from this. */
#include "store/local/erase.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "model/redact.h"
#include "store/local/rewrite.h"

/* One erasure at work. */
struct erasing {
    struct erase_choice which;
    struct redact *redact;
    struct arena arena; /* of `redact` */
    struct store_erased done;
};

/* ---- which spans ---- */

static int span_order(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct erase_span));
}

int erase_choice_init(struct erase_choice *c, const struct store_erase *e)
{
    *c = (struct erase_choice){.e = e};
    int err = filter_new(e->where, &c->filter, &c->leaves);
    if (err || !e->spans)
        return err;
    c->spans = malloc((e->n_spans + 1) * sizeof *c->spans);
    if (!c->spans)
        return ERR_NOMEM;
    if (e->n_spans) {
        memcpy(c->spans, e->spans, e->n_spans * sizeof *c->spans);
        qsort(c->spans, e->n_spans, sizeof *c->spans, span_order);
    }
    return 0;
}

void erase_choice_done(struct erase_choice *c)
{
    filter_free(c->filter);
    free(c->spans);
}

bool erase_choice_has(const struct erase_choice *c, const struct span *s)
{
    const struct store_erase *e = c->e;
    if (!c->spans)
        return s->start_ns >= e->start_min_ns &&
               (!e->start_max_ns || s->start_ns <= e->start_max_ns) && filter_span(c->filter, s);
    struct erase_span key = {.trace_id = s->trace_id};
    if (bsearch(&key, c->spans, e->n_spans, sizeof key, span_order)) /* all of the trace */
        return true;
    key.span_id = s->span_id;
    return bsearch(&key, c->spans, e->n_spans, sizeof key, span_order);
}

static bool erase_drops(void *arg, const struct span *s)
{
    const struct erasing *x = arg;
    return erase_choice_has(&x->which, s);
}

/* ---- redaction ---- */

/* Arrays and maps are changed in place, and may be shared: first they become the span's own. */
static bool value_own(struct value *v, struct arena *arena);

static bool attrs_own(const struct attr **items, size_t n, struct arena *arena)
{
    struct attr *own = arena_array(arena, n, sizeof *own);
    if (!own)
        return false;
    for (size_t i = 0; i < n; i++) {
        own[i] = (*items)[i];
        if (!value_own(&own[i].value, arena))
            return false;
    }
    *items = own;
    return true;
}

static bool value_own(struct value *v, struct arena *arena)
{
    if (v->type == VALUE_MAP)
        return attrs_own(&v->map.items, v->map.n, arena);
    if (v->type != VALUE_ARRAY)
        return true;
    struct value *own = arena_array(arena, v->array.n, sizeof *own);
    for (size_t i = 0; own && i < v->array.n; i++) {
        own[i] = v->array.items[i];
        if (!value_own(&own[i], arena))
            return false;
    }
    v->array.items = own;
    return own != NULL;
}

static bool span_own(struct span *s, struct arena *arena)
{
    struct event *events = arena_array(arena, s->n_events, sizeof *events);
    struct link *links = arena_array(arena, s->n_links, sizeof *links);
    bool ok = events && links && attrs_own(&s->attrs.items, s->attrs.n, arena);
    for (uint32_t i = 0; ok && i < s->n_events; i++) {
        events[i] = s->events[i];
        ok = attrs_own(&events[i].attrs.items, events[i].attrs.n, arena);
    }
    for (uint32_t i = 0; ok && i < s->n_links; i++) {
        links[i] = s->links[i];
        ok = attrs_own(&links[i].attrs.items, links[i].attrs.n, arena);
    }
    s->events = events;
    s->links = links;
    return ok;
}

/* The resource without what is to go; the same one when it has nothing of it. NULL: no memory. */
static const struct resource *resource_redact(struct erasing *x, const struct resource *from,
                                              struct arena *arena)
{
    struct resource *own = arena_alloc(arena, sizeof *own);
    uint64_t hits = redact_hits(x->redact);
    if (!own)
        return NULL;
    *own = *from;
    if (!attrs_own(&own->attrs.items, own->attrs.n, arena))
        return NULL;
    redact_attrs(x->redact, &own->attrs, arena);
    if (redact_hits(x->redact) == hits)
        return from;
    resource_set_service_name(own);
    return own;
}

static int erase_changes(void *arg, struct span_batch *batch, struct arena *arena, uint64_t *ret_n)
{
    struct erasing *x = arg;
    const struct resource *from = NULL, *to = NULL; /* neighbours share theirs */
    for (size_t i = 0; i < batch->n; i++) {
        struct span *s = &batch->spans[i];
        if (!erase_choice_has(&x->which, s))
            continue;
        uint64_t hits = redact_hits(x->redact);
        if (!span_own(s, arena))
            return ERR_NOMEM;
        redact_spans(x->redact, s, 1, arena);
        if (s->resource != from) {
            from = s->resource;
            to = resource_redact(x, from, arena);
            if (!to)
                return ERR_NOMEM;
        }
        *ret_n += redact_hits(x->redact) != hits || to != from;
        s->resource = to;
    }
    return 0;
}

/* ---- segments ---- */

static int row_see(void *arg, struct scan *scan, const struct scan_row *row)
{
    *(bool *)arg = true;
    return 1;
}

static int segment_has_listed(const struct erasing *x, struct segment *seg, bool *ret)
{
    int err = 0;
    *ret = false;
    for (size_t i = 0; i < x->which.e->n_spans && !err && !*ret; i++)
        if (!i || trace_id_cmp(&x->which.spans[i].trace_id, &x->which.spans[i - 1].trace_id))
            err = segment_has(seg, &x->which.spans[i].trace_id, ret);
    return err;
}

/* Whether something of it may be in the segment; told by index and columns. */
static int segment_concerns(const struct erasing *x, struct segment_file *file, bool *ret)
{
    const struct store_erase *e = x->which.e;
    struct scan scan = {.start_min_ns = e->start_min_ns, .start_max_ns = e->start_max_ns};
    struct scan_cost cost = {0};
    struct segment *seg;
    bool damaged = false;
    *ret = false;
    if (!x->which.spans && (file->info.start_max_ns < e->start_min_ns ||
                            (e->start_max_ns && file->info.start_min_ns > e->start_max_ns)))
        return 0;
    int err = segment_open(file->dir, file->info.name, &seg);
    if (err)
        return err;
    if (x->which.spans)
        err = segment_has_listed(x, seg, ret);
    else
        err = segment_scan(seg, x->which.filter, x->which.leaves, &scan, row_see, ret, &cost,
                           &damaged);
    segment_close(seg);
    return err == 1 ? 0 : err ? err : damaged ? ERR_CORRUPT : 0;
}

static int erase_segment(struct store *st, struct erasing *x, struct segment_file *file)
{
    struct rewrite w = {.bytes_max = UINT64_MAX, .arg = x};
    struct catalogue_change change = {.sealed = 0};
    bool redacts = x->which.e->kind == ERASE_REDACT, concerns;
    int err = segment_concerns(x, file, &concerns);
    if (err || !concerns)
        return err;
    w.drops = redacts ? NULL : erase_drops;
    w.changes = redacts ? erase_changes : NULL;
    err = memtable_new(&w.mt);
    if (err)
        return err;
    err = rewrite_take(&w, file);
    if (!err && w.n_dropped + w.n_changed) {
        change.counters[COUNTER_DELETED_SPANS] = w.n_dropped;
        change.counters[COUNTER_REDACTED_SPANS] = w.n_changed;
        err = rewrite_end(st, &w, &file, 1, &change);
        x->done.segments += !err;
        x->done.spans += err ? 0 : w.n_dropped + w.n_changed;
    }
    memtable_unref(w.mt);
    return err;
}

/* All segments up to the record; those that cannot be read are passed over, and counted. */
static int erase_all(struct store *st, struct erasing *x, uint64_t last_sequence)
{
    struct segment_list *list = segment_list_now(st);
    int err = 0;
    for (uint32_t i = 0; i < list->n && !err; i++) {
        struct segment_file *file = list->items[i];
        if (file->info.first_sequence > last_sequence)
            continue;
        err = erase_segment(st, x, file);
        if (err == ERR_CORRUPT || err == ERR_NOT_FOUND || err == ERR_UNSUPPORTED) {
            atomic_store(&file->is_damaged, true);
            log_error("a segment is damaged and was not looked through for what is to be erased "
                      "file=%s",
                      file->info.name);
            x->done.unread_segments++;
            err = 0;
        }
    }
    segment_list_unref(list);
    return err;
}

/* ---- one erasure ---- */

static int erasing_init(struct erasing *x, const struct store_erase *e, struct error_detail *detail)
{
    *x = (struct erasing){.arena = ARENA_INIT};
    int err = erase_choice_init(&x->which, e);
    if (!err && e->kind == ERASE_REDACT)
        err = redact_new(e->keys, e->n_keys, e->patterns, e->n_patterns, &x->arena, &x->redact,
                         detail);
    return err;
}

static void erasing_done(struct erasing *x)
{
    erase_choice_done(&x->which);
    arena_done(&x->arena);
}

/* ---- what the catalogue has ---- */

struct noted {
    struct arena arena;
    struct catalogue_erasure erasure; /* id 0: none */
    unsigned damaged;
    uint64_t n;
};

static int note_first(void *arg, const struct catalogue_erasure *e, bool is_damaged)
{
    struct noted *noted = arg;
    noted->damaged += is_damaged;
    noted->n += !is_damaged;
    if (is_damaged || noted->erasure.id)
        return 0;
    noted->erasure = *e;
    noted->erasure.body = arena_str(&noted->arena, e->body);
    return noted->erasure.body.ptr ? 0 : ERR_NOMEM;
}

int erasures_open(struct store *st)
{
    struct noted noted = {.arena = ARENA_INIT};
    int err = catalogue_erasures(st->catalogue, note_first, &noted);
    arena_done(&noted.arena);
    if (noted.damaged)
        log_error("%u erasures in catalogue.db are damaged: what they were about is not known",
                  noted.damaged);
    st->n_erasures = noted.n;
    st->next_erasure = clock_realtime_ns();
    return err;
}

static int erasure_run(struct store *st, const struct noted *noted, struct store_erased *ret)
{
    struct arena arena = ARENA_INIT;
    struct store_erase e;
    struct erasing x;
    struct error_detail detail = {0};
    int err = erase_decode(noted->erasure.body, &arena, &e);
    if (!err) {
        err = erasing_init(&x, &e, &detail);
        if (!err)
            err = erase_all(st, &x, noted->erasure.last_sequence);
        *ret = x.done;
        erasing_done(&x);
    }
    arena_done(&arena);
    return err;
}

int erasures_run(struct store *st)
{
    int err = 0;
    for (;;) {
        struct noted noted = {.arena = ARENA_INIT};
        struct store_erased done = {0};
        pthread_mutex_lock(&st->change_lock);
        uint64_t left = st->n_erasures;
        err = left ? catalogue_erasures(st->catalogue, note_first, &noted) : 0;
        pthread_mutex_unlock(&st->change_lock);
        if (!err && noted.erasure.id) {
            err = erasure_run(st, &noted, &done);
            pthread_mutex_lock(&st->change_lock);
            if (!err)
                err = catalogue_erasure_remove(st->catalogue, noted.erasure.id);
            st->n_erasures -= !err;
            pthread_mutex_unlock(&st->change_lock);
        }
        if (err)
            log_error("an erasure is not done yet, and tried again: %s", err_text(err));
        else if (noted.erasure.id)
            log_info("erased spans=%llu segments=%llu unread_segments=%llu",
                     (unsigned long long)done.spans, (unsigned long long)done.segments,
                     (unsigned long long)done.unread_segments);
        pthread_mutex_lock(&st->lock);
        if (st->erasure_awaited && (err || noted.erasure.id == st->erasure_awaited)) {
            st->erased = done;
            st->erase_err = err;
            st->erasure_awaited = 0;
            pthread_cond_broadcast(&st->changed);
        }
        pthread_mutex_unlock(&st->lock);
        arena_done(&noted.arena);
        if (err || !noted.erasure.id)
            return err;
    }
}

/* ---- asked for ---- */

/* Everything published is in segments, and in no log file, when this returns 0. */
static int log_empty(struct store *st, uint64_t *ret_sealed)
{
    pthread_mutex_lock(&st->lock);
    uint64_t wanted = st->published;
    pthread_mutex_unlock(&st->lock);
    int err = store_seal(st);
    pthread_mutex_lock(&st->lock);
    *ret_sealed = st->sealed;
    if (!err && st->trimmed < wanted)
        err = ERR_CLOSED;
    pthread_mutex_unlock(&st->lock);
    return err;
}

/* Notes it and wakes the keeper. */
static int erasure_note(struct store *st, struct catalogue_erasure *note)
{
    pthread_mutex_lock(&st->change_lock);
    note->id = ++st->next_erasure;
    note->made_ns = store_now(st);
    int err = catalogue_erasure_add(st->catalogue, note);
    st->n_erasures += !err;
    if (!err) {
        pthread_mutex_lock(&st->lock);
        st->erasure_awaited = note->id;
        st->keep_wanted++;
        pthread_cond_signal(&st->keep_wake);
        pthread_mutex_unlock(&st->lock);
    }
    pthread_mutex_unlock(&st->change_lock);
    return err;
}

static int erasure_wait(struct store *st, struct store_erased *ret)
{
    pthread_mutex_lock(&st->lock);
    while (st->erasure_awaited && st->keep_done != UINT64_MAX)
        pthread_cond_wait(&st->changed, &st->lock);
    int err = st->erasure_awaited ? ERR_CLOSED : st->erase_err;
    st->erasure_awaited = 0;
    *ret = st->erased;
    pthread_mutex_unlock(&st->lock);
    return err;
}

static int erase_begin(struct store *st, const struct store_erase *e, struct buf *body,
                       struct error_detail *detail)
{
    struct erasing trial;
    int err = erasing_init(&trial, e,
                           detail); /* what is wrong with it is said before it is noted */
    bool nothing = e->kind == ERASE_REDACT && !trial.redact;
    erasing_done(&trial);
    if (!err && nothing)
        err = error_set(detail, ERR_INVALID, 0, "redaction needs keys or patterns");
    if (!err)
        err = erase_encode(e, body);
    if (err)
        return err;
    pthread_mutex_lock(&st->lock);
    err = st->closing ? ERR_CLOSED : st->is_erasing ? ERR_BUSY : 0;
    st->is_erasing |= !err;
    pthread_mutex_unlock(&st->lock);
    return err;
}

int store_erase(struct store *st, const struct store_erase *e, struct store_erased *ret_erased,
                struct error_detail *ret_detail)
{
    struct error_detail detail = {0};
    struct buf body = BUF_INIT;
    struct catalogue_erasure note = {0};
    int err = erase_begin(st, e, &body, &detail);
    if (!err) {
        err = log_empty(st, &note.last_sequence);
        note.body = buf_as_str(&body);
        if (!err)
            err = erasure_note(st, &note);
        if (err) {
            error_set(&detail, err, 0, "nothing was erased: %s", err_text(err));
        } else if ((err = erasure_wait(st, ret_erased))) {
            error_set(&detail, err, 0,
                      "the erasure was begun, will go on by itself, and is not done: %s",
                      err_text(err));
        }
        pthread_mutex_lock(&st->lock);
        st->is_erasing = false;
        pthread_mutex_unlock(&st->lock);
    }
    buf_done(&body);
    if (err && ret_detail) {
        if (!detail.code)
            error_set(&detail, err, 0, "%s",
                      err == ERR_BUSY ? "another erasure is under way" : err_text(err));
        *ret_detail = detail;
    }
    return err;
}
