/* Which segments there are: the lists that views share, and what the directory holds at open.
 *
 * At open each file named seg-* is one of these:
 *   in the catalogue          served; when it is missing or has another size it is told, and the rest is
 *                             served
 *   seg-*.tmp                 was being written: removed
 *   taken out of it           a change of the catalogue was not followed by the removal: removed
 *   unknown, all its records sealed   was made of segments that the catalogue has, and not published:
 *                             removed
 *   unknown, the log has its records  was sealed and not published: removed, the log is replayed
 *   unknown, follows what is sealed   the catalogue is an older one, or was lost: checked and taken in
 *   anything else             the store does not open, and nothing is touched
 * A stranger is removed for its records only when no segment of the catalogue is missing: else the
 * catalogue may be the older one, and the stranger what was made of the missing. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "store/local/engine.h"
#include "store/local/file.h"

/* ---- lists ---- */

struct segment_file *segment_file_new(int dir, struct readers *readers,
                                      const struct segment_info *info)
{
    struct segment_file *file = calloc(1, sizeof *file);
    if (file) {
        atomic_init(&file->refs, 1);
        file->dir = dir;
        file->info = *info;
        file->readers.all = readers;
    }
    return file;
}

struct segment_file *segment_file_ref(struct segment_file *file)
{
    atomic_fetch_add_explicit(&file->refs, 1, memory_order_relaxed);
    return file;
}

void segment_file_unref(struct segment_file *file)
{
    if (!file || atomic_fetch_sub_explicit(&file->refs, 1, memory_order_acq_rel) != 1)
        return;
    readers_drop(&file->readers);
    /* What cannot be removed now is at the next open: the catalogue has noted it. */
    if (atomic_load(&file->is_gone))
        (void)!file_remove(file->dir, file->info.name);
    free(file);
}

struct segment_list *segment_list_new(uint32_t n)
{
    struct segment_list *list = calloc(1, sizeof *list + n * sizeof list->items[0]);
    if (list) {
        atomic_init(&list->refs, 1);
        list->n = n;
    }
    return list;
}

struct segment_list *segment_list_ref(struct segment_list *list)
{
    atomic_fetch_add_explicit(&list->refs, 1, memory_order_relaxed);
    return list;
}

void segment_list_unref(struct segment_list *list)
{
    if (!list || atomic_fetch_sub_explicit(&list->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (uint32_t i = 0; i < list->n; i++)
        segment_file_unref(list->items[i]);
    shared_free(atomic_load(&list->shared));
    free(list);
}

static bool is_among(const struct segment_file *file, struct segment_file *const *files, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (files[i] == file)
            return true;
    return false;
}

struct segment_list *segment_list_change(const struct segment_list *old, struct segment_file *add,
                                         struct segment_file *const *remove, size_t n_remove)
{
    struct segment_list *list = segment_list_new(old->n + 1);
    if (!list)
        return NULL;
    uint32_t n = 0;
    for (uint32_t i = 0; i < old->n; i++) {
        struct segment_file *file = old->items[i];
        if (add && add->info.last_sequence >= file->info.last_sequence) {
            list->items[n++] = segment_file_ref(add);
            add = NULL;
        }
        if (!is_among(file, remove, n_remove))
            list->items[n++] = segment_file_ref(file);
    }
    if (add)
        list->items[n++] = segment_file_ref(add);
    list->n = n;
    return list;
}

/* ---- changes ---- */

void segment_name_next(struct store *st, struct segment_info *info)
{
    info->id = st->next_id++;
    snprintf(info->name, sizeof info->name, "seg-%016llx.seg", (unsigned long long)info->id);
}

static int catalogue_apply(struct store *st, const struct segment_info *add,
                           struct segment_file *const *remove, size_t n_remove,
                           struct catalogue_change *change)
{
    const struct segment_info **infos = malloc((n_remove + 1) * sizeof *infos);
    if (!infos)
        return ERR_NOMEM;
    for (size_t i = 0; i < n_remove; i++)
        infos[i] = &remove[i]->info;
    change->add = add;
    change->remove = infos;
    change->n_remove = n_remove;
    int err = catalogue_change(st->catalogue, change);
    change->remove = NULL;
    free(infos);
    if (err)
        log_error("catalogue.db could not be changed: %s: %s", err_text(err),
                  catalogue_error(st->catalogue));
    return err;
}

int segments_change(struct store *st, const struct segment_info *add,
                    struct segment_file *const *remove, size_t n_remove,
                    struct catalogue_change *change)
{
    struct segment_file *file = add ? segment_file_new(st->dir, &st->readers, add) : NULL;
    struct segment_list *list = add && !file
                                    ? NULL
                                    : segment_list_change(st->segments, file, remove, n_remove);
    int err = list ? catalogue_apply(st, add, remove, n_remove, change) : ERR_NOMEM;
    segment_file_unref(file);
    if (err) {
        segment_list_unref(list);
        return err;
    }
    pthread_mutex_lock(&st->lock);
    struct segment_list *old = st->segments;
    st->segments = list;
    if (change->sealed)
        st->sealed = change->sealed;
    if (st->frozen && st->frozen->last_sequence == change->sealed)
        st->frozen = NULL; /* whoever sealed it has the reference */
    for (int i = 0; i < COUNTERS; i++)
        st->counters[i] += change->counters[i];
    pthread_mutex_unlock(&st->lock);
    for (size_t i = 0; i < n_remove; i++)
        atomic_store(&remove[i]->is_gone, true);
    segment_list_unref(old);
    return 0;
}

/* ---- what is in the directory ---- */

struct found {
    struct segment_info info; /* of a stranger */
    char name[64];
    bool is_known, is_removed;
};

struct survey {
    struct found *files; /* by name */
    size_t n, cap;
    uint64_t
        log_first; /* the first record that a log file with records may hold; 0: there is none */
};

static bool ends_with(const char *name, const char *end)
{
    size_t n = strlen(name), m = strlen(end);
    return n >= m && !strcmp(name + n - m, end);
}

static int survey_add(struct survey *s, const char *name)
{
    if (s->n == s->cap) {
        size_t cap = s->cap ? s->cap * 2 : 64;
        struct found *more = realloc(s->files, cap * sizeof *more);
        if (!more)
            return ERR_NOMEM;
        s->files = more;
        s->cap = cap;
    }
    struct found *f = &s->files[s->n++];
    *f = (struct found){0};
    snprintf(f->name, sizeof f->name, "%s", name);
    return 0;
}

static void survey_log(const struct store *st, struct survey *s, const char *name)
{
    unsigned long long first;
    struct stat file;
    if (sscanf(name, "log-%16llx.log", &first) != 1 || fstatat(st->dir, name, &file, 0) ||
        file.st_size <= LOG_HEADER_SIZE)
        return;
    if (!s->log_first || first < s->log_first)
        s->log_first = first;
}

static int found_order(const void *a, const void *b)
{
    const struct found *x = a, *y = b;
    return strcmp(x->name, y->name);
}

static int survey_make(const struct store *st, struct survey *s)
{
    int fd, err = file_open(st->dir, ".", O_RDONLY | O_DIRECTORY, &fd);
    if (err)
        return err;
    DIR *dir = fdopendir(fd);
    if (!dir) {
        close(fd);
        return ERR_NOMEM;
    }
    struct dirent *entry;
    while (!err && (errno = 0, entry = readdir(dir))) {
        const char *name = entry->d_name;
        if (!strncmp(name, "log-", 4))
            survey_log(st, s, name);
        else if (!strncmp(name, "seg-", 4) && strlen(name) < sizeof s->files->name &&
                 (ends_with(name, ".seg") || ends_with(name, ".tmp")))
            err = survey_add(s, name);
    }
    if (!err && errno)
        err = err_from_errno(errno);
    closedir(dir);
    if (s->n)
        qsort(s->files, s->n, sizeof *s->files, found_order);
    return err;
}

static struct found *survey_find(const struct survey *s, const char *name)
{
    struct found key;
    snprintf(key.name, sizeof key.name, "%s", name);
    return s->n ? bsearch(&key, s->files, s->n, sizeof *s->files, found_order) : NULL;
}

/* ---- reading the catalogue ---- */

struct opening {
    struct store *st;
    struct survey survey;
    struct segment_info *rows; /* in the order of their records */
    size_t n_rows, cap_rows;
    bool must_rewrite; /* rows that were damaged */
    bool some_left;    /* a file that is noted as removed is still there */
    struct error_detail *detail;
};

static int row_keep(struct opening *o, const struct segment_info *info)
{
    if (o->n_rows == o->cap_rows) {
        size_t cap = o->cap_rows ? o->cap_rows * 2 : 64;
        struct segment_info *more = realloc(o->rows, cap * sizeof *more);
        if (!more)
            return ERR_NOMEM;
        o->rows = more;
        o->cap_rows = cap;
    }
    o->rows[o->n_rows++] = *info;
    return 0;
}

/* A damaged row is made again from the file that it names. */
static int row_mend(struct opening *o, struct segment_info *info)
{
    struct segment_info own;
    unsigned long long id;
    if (sscanf(info->name, "seg-%16llx.seg", &id) != 1 ||
        segment_info_read(o->st->dir, info->name, &own))
        return error_set(o->detail, ERR_CORRUPT, 0,
                         "%s/catalogue.db: the row of \"%s\" is damaged, and so is the file",
                         o->st->path, info->name);
    own.id = id;
    if (!own.last_sequence) {
        own.first_sequence = info->first_sequence;
        own.last_sequence = info->last_sequence;
    }
    log_error("a row of catalogue.db is damaged, and made again from file=%s", info->name);
    *info = own;
    o->must_rewrite = true;
    return 0;
}

static int row_see(void *arg, const struct segment_info *info, bool is_damaged)
{
    struct opening *o = arg;
    struct segment_info own = *info;
    int err = is_damaged ? row_mend(o, &own) : 0;
    return err ? err : row_keep(o, &own);
}

static void id_seen(struct store *st, const char *name)
{
    unsigned long long id;
    if (sscanf(name, "seg-%16llx", &id) == 1 && id >= st->next_id)
        st->next_id = id + 1;
}

static int removed_see(void *arg, const char *name)
{
    struct opening *o = arg;
    struct found *f = survey_find(&o->survey, name);
    id_seen(o->st, name);
    if (f)
        f->is_removed = true;
    return 0;
}

static int pin_see(void *arg, const struct trace_id *id, uint64_t made_ns, bool is_damaged)
{
    struct store *st = arg;
    if (is_damaged) {
        log_error("a pin in catalogue.db is damaged");
        return 0;
    }
    if (st->n_pins == st->cap_pins) {
        size_t cap = st->cap_pins ? st->cap_pins * 2 : 16;
        struct trace_id *more = realloc(st->pins, cap * sizeof *more);
        if (!more)
            return ERR_NOMEM;
        st->pins = more;
        st->cap_pins = cap;
    }
    st->pins[st->n_pins++] = *id;
    return 0;
}

static int row_order(const void *a, const void *b)
{
    const struct segment_info *x = a, *y = b;
    if (x->last_sequence != y->last_sequence)
        return x->last_sequence < y->last_sequence ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

static int catalogue_read(struct opening *o)
{
    struct store *st = o->st;
    struct catalogue_position position;
    int err = catalogue_segments(st->catalogue, row_see, o);
    if (!err)
        err = catalogue_position(st->catalogue, &position);
    if (!err)
        err = catalogue_removed(st->catalogue, removed_see, o);
    if (!err)
        err = catalogue_pins(st->catalogue, pin_see, st);
    if (!err && (err = catalogue_counters(st->catalogue, st->counters)) == ERR_CORRUPT) {
        log_error("the counters in catalogue.db are damaged, and begun anew");
        err = 0;
    }
    if (err && (!o->detail || !o->detail->code))
        error_set(o->detail, err, 0, "%s/catalogue.db: %s: %s", st->path, err_text(err),
                  catalogue_error(st->catalogue));
    if (err)
        return err;
    if (o->n_rows)
        qsort(o->rows, o->n_rows, sizeof *o->rows, row_order);
    st->sealed = position.sealed;
    if (position.is_damaged) {
        log_error("the position in catalogue.db is damaged, and taken from the segments");
        st->sealed = o->n_rows ? o->rows[o->n_rows - 1].last_sequence : 0;
        o->must_rewrite = true;
    }
    return 0;
}

/* ---- comparing ---- */

/* Makes the list of what the catalogue and the directory have both. */
static int list_make(struct opening *o)
{
    struct store *st = o->st;
    struct segment_list *list = segment_list_new((uint32_t)o->n_rows);
    if (!list)
        return ERR_NOMEM;
    list->n = 0;
    int err = 0;
    for (size_t i = o->n_rows; i-- > 0 && !err;) { /* newest first */
        const struct segment_info *info = &o->rows[i];
        struct found *f = survey_find(&o->survey, info->name);
        struct stat file;
        id_seen(st, info->name);
        if (f)
            f->is_known = true;
        bool there = !fstatat(st->dir, info->name, &file, 0);
        if (there && (uint64_t)file.st_size == info->bytes) {
            list->items[list->n] = segment_file_new(st->dir, &st->readers, info);
            err = list->items[list->n] ? 0 : ERR_NOMEM;
            list->n += !err;
            continue;
        }
        if (!there && errno != ENOENT)
            err = err_from_errno(errno);
        st->lost_segments++;
        st->lost_spans += info->spans;
        if (there)
            log_error("a segment has %llu bytes, was sealed with %llu and cannot be served file=%s "
                      "spans=%llu",
                      (unsigned long long)file.st_size, (unsigned long long)info->bytes, info->name,
                      (unsigned long long)info->spans);
        else
            log_error("a segment is missing file=%s spans=%llu", info->name,
                      (unsigned long long)info->spans);
    }
    if (err) {
        segment_list_unref(list);
        return err;
    }
    segment_list_unref(st->segments);
    st->segments = list;
    return 0;
}

static int refuse(const struct opening *o, const char *name, const char *why)
{
    return error_set(o->detail, ERR_CORRUPT, 0, "%s/%s: is not in catalogue.db%s", o->st->path,
                     name, why);
}

static int stranger_check(const struct opening *o, const char *name)
{
    struct segment *seg;
    int err = segment_open(o->st->dir, name, &seg);
    if (err)
        return err;
    err = segment_verify(seg);
    segment_close(seg);
    return err;
}

static int stranger_adopt(struct opening *o, struct found *f)
{
    int err = stranger_check(o, f->name);
    if (err == ERR_CORRUPT)
        return refuse(o, f->name, ", and damaged");
    unsigned long long id;
    if (!err && sscanf(f->name, "seg-%16llx.seg", &id) != 1)
        return refuse(o, f->name, "");
    if (!err) {
        f->info.id = id;
        struct catalogue_change change = {.sealed = f->info.last_sequence};
        err = segments_change(o->st, &f->info, NULL, 0, &change);
    }
    if (err)
        return error_set(o->detail, err, 0, "%s/%s: %s", o->st->path, f->name, err_text(err));
    log_warn("a segment that catalogue.db does not have was taken in file=%s spans=%llu", f->name,
             (unsigned long long)f->info.spans);
    return 0;
}

static void stranger_remove(const struct opening *o, const struct found *f, const char *why)
{
    if (!file_remove(o->st->dir, f->name))
        log_info("removed %s file=%s", why, f->name);
}

/* Of a segment whose header does not say what it covers: an older version made it, or it is damaged. */
static int stranger_unnumbered(const struct opening *o, const struct found *f)
{
    char next[sizeof f->name];
    uint64_t newest = 0;
    for (size_t i = 0; i < o->n_rows; i++)
        newest = o->rows[i].id > newest ? o->rows[i].id : newest;
    snprintf(next, sizeof next, "seg-%016llx.seg", (unsigned long long)newest + 1);
    uint64_t log_first = o->survey.log_first;
    if (strcmp(f->name, next) || !log_first || log_first > o->st->sealed + 1)
        return refuse(o, f->name, "");
    stranger_remove(o, f, "an unfinished segment");
    return 0;
}

static int stranger_order(const void *a, const void *b)
{
    const struct found *x = a, *y = b;
    return row_order(&x->info, &y->info);
}

static int stranger_settle(struct opening *o, struct found *f, bool is_fresh)
{
    struct store *st = o->st;
    uint64_t first = f->info.first_sequence, last = f->info.last_sequence;
    uint64_t log_first = o->survey.log_first;
    if (!last)
        return stranger_unnumbered(o, f);
    if (last <= st->sealed && st->lost_segments)
        return refuse(o, f->name, ", and others that it has are missing");
    if (last <= st->sealed && !is_fresh) {
        stranger_remove(o, f, "a segment that was not published");
        return 0;
    }
    if (log_first && log_first <= st->sealed + 1) {
        stranger_remove(o, f, "an unfinished segment");
        return 0;
    }
    /* Without a catalogue nobody knows what retention has taken from between them. */
    if (first == st->sealed + 1 || (is_fresh && first > st->sealed))
        return stranger_adopt(o, f);
    return refuse(o, f->name,
                  first <= st->sealed ? ", and overlaps what it has"
                                      : ", and what came before it is missing");
}

/* Everything that is not in the catalogue. */
static int strangers_settle(struct opening *o)
{
    size_t n = 0;
    int err = 0;
    bool is_fresh = !o->n_rows && !o->st->sealed;
    for (size_t i = 0; i < o->survey.n; i++) {
        struct found *f = &o->survey.files[i];
        id_seen(o->st, f->name);
        if (f->is_known)
            continue;
        if (f->is_removed) {
            o->some_left |= file_remove(o->st->dir, f->name) != 0;
            continue;
        }
        if (ends_with(f->name, ".tmp")) {
            stranger_remove(o, f, "an unfinished segment");
            continue;
        }
        err = segment_info_read(o->st->dir, f->name, &f->info);
        if (err == ERR_NOMEM)
            return error_set(o->detail, err, 0, "%s", err_text(err));
        if (err) /* the log may have what it should hold */
            f->info = (struct segment_info){0};
        o->survey.files[n++] = *f;
    }
    if (n)
        qsort(o->survey.files, n, sizeof *o->survey.files, stranger_order);
    err = 0;
    for (size_t i = 0; i < n && !err; i++)
        err = stranger_settle(o, &o->survey.files[i], is_fresh);
    return err;
}

static int rows_rewrite(struct opening *o)
{
    struct store *st = o->st;
    int err = 0;
    for (uint32_t i = 0; i < st->segments->n && !err; i++) {
        struct catalogue_change change = {.add = &st->segments->items[i]->info,
                                          .sealed = st->sealed};
        err = catalogue_change(st->catalogue, &change);
    }
    return err;
}

int segments_open(struct store *st, enum catalogue_mode mode, struct error_detail *detail)
{
    struct opening o = {.st = st, .detail = detail};
    st->next_id = 1;
    int err = survey_make(st, &o.survey);
    if (err)
        error_set(detail, err, 0, "%s: %s", st->path, err_text(err));
    if (!err)
        err = catalogue_open(st->path, mode, &st->catalogue, detail);
    if (!err)
        err = catalogue_read(&o);
    if (!err && (err = list_make(&o)))
        error_set(detail, err, 0, "%s: %s", st->path, err_text(err));
    if (!err)
        err = strangers_settle(&o);
    if (!err && o.must_rewrite)
        err = rows_rewrite(&o);
    if (!err && !o.some_left && catalogue_forget_removed(st->catalogue))
        log_warn("catalogue.db: %s", catalogue_error(st->catalogue));
    free(o.survey.files);
    free(o.rows);
    return err;
}
