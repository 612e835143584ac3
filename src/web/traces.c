#include "web/traces.h"

#include <stdlib.h>

struct traces {
    pthread_mutex_t lock;
    pthread_cond_t idle; /* no streams are left */
    struct trace_entry *entries;
    unsigned n, n_streams;
    size_t bytes;
    uint64_t clock; /* goes on with each use */
    uint64_t as_of; /* given last */
};

int traces_new(struct traces **ret)
{
    struct traces *t = calloc(1, sizeof *t);
    if (!t)
        return ERR_NOMEM;
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->idle, NULL);
    *ret = t;
    return 0;
}

static void lines_free(struct trace_lines *l)
{
    if (!l)
        return;
    outline_lines_done(&l->lines);
    free((char *)l->key.ptr);
    free(l);
}

static void found_free(struct trace_found *f)
{
    if (!f)
        return;
    outline_found_done(&f->found);
    free((char *)f->key.ptr);
    free(f);
}

static void entry_free(struct trace_entry *e)
{
    for (int i = 0; i < TRACE_LINES_MAX; i++)
        lines_free(e->lines[i]);
    for (int i = 0; i < TRACE_FOUND_MAX; i++)
        found_free(e->found[i]);
    outline_free(e->outline);
    free(e);
}

void traces_free(struct traces *t)
{
    if (!t)
        return;
    pthread_mutex_lock(&t->lock);
    while (t->n_streams)
        pthread_cond_wait(&t->idle, &t->lock);
    pthread_mutex_unlock(&t->lock);
    for (struct trace_entry *e = t->entries, *next; e; e = next) {
        next = e->next;
        entry_free(e);
    }
    pthread_cond_destroy(&t->idle);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

bool traces_stream_begin(struct traces *t)
{
    pthread_mutex_lock(&t->lock);
    bool fits = t->n_streams < TRACE_STREAMS_MAX;
    t->n_streams += fits;
    pthread_mutex_unlock(&t->lock);
    return fits;
}

void traces_stream_ended(struct traces *t)
{
    pthread_mutex_lock(&t->lock);
    if (!--t->n_streams)
        pthread_cond_signal(&t->idle);
    pthread_mutex_unlock(&t->lock);
}

/* ---- entries ---- */

/* The least recently used go until the rest fits; those in use stay. */
static void evict_locked(struct traces *t)
{
    while (t->bytes > TRACES_BYTES_MAX || t->n > TRACES_MAX) {
        struct trace_entry **oldest = NULL;
        for (struct trace_entry **at = &t->entries; *at; at = &(*at)->next)
            if (!(*at)->refs && (!oldest || (*at)->used < (*oldest)->used))
                oldest = at;
        if (!oldest || t->n == 1) /* one alone may be larger than all are allowed to be */
            return;
        struct trace_entry *e = *oldest;
        *oldest = e->next;
        t->bytes -= e->bytes;
        t->n--;
        entry_free(e);
    }
}

static struct trace_entry *find_locked(struct traces *t, const struct trace_id *id, uint64_t as_of,
                                       uint64_t changes)
{
    for (struct trace_entry *e = t->entries; e; e = e->next)
        if (!trace_id_cmp(&e->outline->id, id) &&
            (as_of ? e->as_of == as_of : e->changes == changes)) {
            e->refs++;
            e->used = ++t->clock;
            return e;
        }
    return NULL;
}

/* Goes on whenever a trace may have changed. */
static uint64_t store_changes(struct web *web)
{
    struct store_stats s = {0};
    store_stats(web->store, &s);
    return s.appended_spans + s.expired_age_spans + s.expired_disk_spans + s.deleted_spans +
           s.damaged_segments;
}

static int entry_new(struct traces *t, struct store_view *view, const struct trace_id *id,
                     uint64_t changes, struct trace_entry **ret)
{
    struct trace_entry *e = calloc(1, sizeof *e);
    if (!e)
        return ERR_NOMEM;
    int err = outline_new(view, id, &e->outline);
    if (!err)
        err = outline_critical(e->outline);
    if (err) {
        entry_free(e);
        return err;
    }
    pthread_mutex_lock(&t->lock);
    e->changes = changes;
    e->as_of = ++t->as_of;
    e->refs = 1;
    e->used = ++t->clock;
    e->bytes = e->outline->bytes;
    e->next = t->entries;
    t->entries = e;
    t->bytes += e->bytes;
    t->n++;
    evict_locked(t);
    pthread_mutex_unlock(&t->lock);
    *ret = e;
    return 0;
}

bool trace_get(struct web_request *q, uint64_t as_of, struct trace_entry **ret,
               struct store_view **ret_view)
{
    struct traces *t = q->web->traces;
    struct trace_id id;
    if (!web_param_trace_id(q, q->params[0], "id", &id))
        return false;
    uint64_t changes = store_changes(q->web); /* before the view: it may see more, never less */
    struct store_view *view = web_view(q);
    pthread_mutex_lock(&t->lock);
    struct trace_entry *e = find_locked(t, &id, as_of, changes);
    pthread_mutex_unlock(&t->lock);
    int err = view ? 0 : ERR_NOMEM;
    if (!err && !e)
        err = entry_new(t, view, &id, changes, &e);
    if (!err) {
        if (store_view_is_damaged(view))
            e->is_partial = true;
        q->is_partial |= e->is_partial;
        *ret = e;
        *ret_view = view;
        return true;
    }
    if (e)
        trace_unref(t, e);
    if (err == ERR_NOT_FOUND)
        web_fail(q, 404, "there is no trace %.*s", STR_ARG(q->trace_id));
    else
        web_fail_err(q, err, NULL);
    return false;
}

void trace_unref(struct traces *t, struct trace_entry *entry)
{
    pthread_mutex_lock(&t->lock);
    entry->refs--;
    evict_locked(t);
    pthread_mutex_unlock(&t->lock);
}

/* ---- lines ---- */

static struct str key_copy(struct str key)
{
    char *ptr = malloc(key.len + 1);
    if (ptr && key.len)
        memcpy(ptr, key.ptr, key.len);
    return (struct str){ptr, key.len};
}

/* Takes the place of the least recently used that nobody holds. Of an item that finds no place its one holder
 * is the owner: refs says so. */
struct trace_lines *trace_lines_get(struct traces *t, struct trace_entry *entry, struct str key,
                                    const struct outline_fold *fold)
{
    struct trace_lines *l = NULL;
    pthread_mutex_lock(&t->lock);
    for (int i = 0; i < TRACE_LINES_MAX && !l; i++)
        if (entry->lines[i] && str_eq(entry->lines[i]->key, key))
            l = entry->lines[i];
    if (l) {
        l->refs++;
        l->used = ++t->clock;
    }
    pthread_mutex_unlock(&t->lock);
    if (l)
        return l;
    l = calloc(1, sizeof *l);
    if (!l)
        return NULL;
    l->key = key_copy(key);
    if (!l->key.ptr || outline_lines_init(entry->outline, fold, &l->lines)) {
        lines_free(l);
        return NULL;
    }
    l->refs = 2; /* the entry's and the caller's */
    pthread_mutex_lock(&t->lock);
    l->used = ++t->clock;
    struct trace_lines **oldest = &entry->lines[0];
    for (int i = 1; i < TRACE_LINES_MAX && *oldest; i++)
        if (!entry->lines[i] || entry->lines[i]->used < (*oldest)->used)
            oldest = &entry->lines[i];
    struct trace_lines *before = *oldest;
    *oldest = l;
    size_t bytes = l->lines.rows ? l->lines.n * sizeof *l->lines.rows : 0;
    size_t less = before && before->lines.rows ? before->lines.n * sizeof *before->lines.rows : 0;
    entry->bytes += bytes - less;
    t->bytes += bytes - less;
    bool last = before && --before->refs == 0;
    pthread_mutex_unlock(&t->lock);
    if (last)
        lines_free(before);
    return l;
}

void trace_lines_unref(struct traces *t, struct trace_lines *lines)
{
    if (!lines)
        return;
    pthread_mutex_lock(&t->lock);
    bool last = --lines->refs == 0;
    pthread_mutex_unlock(&t->lock);
    if (last)
        lines_free(lines);
}

/* ---- what was found ---- */

struct trace_found *trace_found_get(struct traces *t, struct trace_entry *entry, struct str key)
{
    struct trace_found *f = NULL;
    pthread_mutex_lock(&t->lock);
    for (int i = 0; i < TRACE_FOUND_MAX && !f; i++)
        if (entry->found[i] && str_eq(entry->found[i]->key, key))
            f = entry->found[i];
    if (f) {
        f->refs++;
        f->used = ++t->clock;
    }
    pthread_mutex_unlock(&t->lock);
    return f;
}

struct trace_found *trace_found_put(struct traces *t, struct trace_entry *entry, struct str key,
                                    struct outline_found *found)
{
    struct trace_found *f = calloc(1, sizeof *f);
    struct str copy = key_copy(key);
    if (!f || !copy.ptr) {
        free(f);
        free((char *)copy.ptr);
        outline_found_done(found);
        return NULL;
    }
    *f = (struct trace_found){.key = copy, .found = *found, .refs = 2};
    *found = (struct outline_found){0};
    pthread_mutex_lock(&t->lock);
    f->used = ++t->clock;
    struct trace_found **oldest = &entry->found[0];
    for (int i = 1; i < TRACE_FOUND_MAX && *oldest; i++)
        if (!entry->found[i] || entry->found[i]->used < (*oldest)->used)
            oldest = &entry->found[i];
    struct trace_found *before = *oldest;
    *oldest = f;
    bool last = before && --before->refs == 0;
    pthread_mutex_unlock(&t->lock);
    if (last)
        found_free(before);
    return f;
}

void trace_found_unref(struct traces *t, struct trace_found *found)
{
    if (!found)
        return;
    pthread_mutex_lock(&t->lock);
    bool last = --found->refs == 0;
    pthread_mutex_unlock(&t->lock);
    if (last)
        found_free(found);
}
