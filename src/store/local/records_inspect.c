/* What a directory of records holds: at open, and when it is verified. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

#include "store/local/file.h"
#include "store/local/records_engine.h"

static int found_order(const void *a, const void *b)
{
    const struct records_found *x = a, *y = b;
    if (x->first != y->first)
        return x->first < y->first ? -1 : 1;
    return x->last > y->last ? -1 : x->last < y->last; /* the larger first */
}

static int survey_add(struct records_survey *s, const char *name)
{
    struct records_found f;
    if (!records_file_name_parse(name, &f.first, &f.last))
        return 0;
    snprintf(f.name, sizeof f.name, "%s", name);
    if (s->n == s->room) {
        size_t room = s->room ? 2 * s->room : 64;
        struct records_found *items = realloc(s->items, room * sizeof *items);
        if (!items)
            return ERR_NOMEM;
        s->items = items;
        s->room = room;
    }
    s->items[s->n++] = f;
    return 0;
}

/* The files of records in order; what was not finished goes with `tidy`. */
int records_survey(int dir, bool tidy, struct records_survey *ret)
{
    int fd, err = file_open(dir, ".", O_RDONLY | O_DIRECTORY, &fd);
    if (err)
        return err;
    DIR *entries = fdopendir(fd);
    if (!entries) {
        close(fd);
        return ERR_NOMEM;
    }
    struct dirent *entry;
    while (!err && (errno = 0, entry = readdir(entries))) {
        size_t n = strlen(entry->d_name);
        if (strncmp(entry->d_name, "rec-", 4) != 0)
            continue;
        if (n > 4 && !strcmp(entry->d_name + n - 4, ".tmp")) {
            if (tidy)
                (void)!file_remove(dir, entry->d_name);
        } else {
            err = survey_add(ret, entry->d_name);
        }
    }
    if (!err && errno)
        err = err_from_errno(errno);
    closedir(entries);
    if (ret->n)
        qsort(ret->items, ret->n, sizeof *ret->items, found_order);
    return err;
}

/* ---- a directory that nobody has open ---- */

struct inspection {
    store_finding_fn *fn;
    void *arg;
    struct store_verified v;
    const char *file;
};

static void tell(struct inspection *in, bool is_note, const char *file, uint64_t offset,
                 const char *text)
{
    const struct store_finding finding = {
        .file = file, .offset = offset, .is_note = is_note, .text = text};
    in->v.damaged += !is_note;
    if (in->fn)
        in->fn(in->arg, &finding);
}

static int no_position(void *arg, struct str name, struct str value)
{
    (void)arg;
    (void)name;
    (void)value;
    return 0;
}

static int log_check_record(void *arg, uint64_t sequence, const struct log_body *body)
{
    struct inspection *in = arg;
    struct rows rows;
    rows_init(&rows);
    int err = body->format == RECORDS_BODY ? rows_add_batch(&rows, body->body, 1, no_position, NULL)
                                           : ERR_UNSUPPORTED;
    in->v.log_records++;
    in->v.log_spans += rows.n;
    rows_done(&rows);
    if (err == ERR_NOMEM)
        return err;
    if (err)
        tell(in, false, in->file, 0, "a record of the log cannot be decoded");
    return 0;
}

static void log_check_damage(void *arg, uint64_t at, uint64_t bytes)
{
    struct inspection *in = arg;
    (void)bytes;
    tell(in, false, in->file, at, "damage in the log");
}

static int log_check(struct inspection *in, int dir, const char *name)
{
    struct buf bytes = BUF_INIT;
    uint64_t size = 0, good = 0;
    int fd, err = file_open(dir, name, O_RDONLY, &fd);
    if (err)
        return err;
    err = file_size(fd, &size);
    if (!err && !buf_reserve(&bytes, size + 1))
        err = ERR_NOMEM;
    if (!err)
        err = file_read_at(fd, bytes.ptr, size, 0);
    close(fd);
    in->file = name;
    in->v.bytes += size;
    if (!err && size > LOG_HEADER_SIZE)
        err = log_read((struct str){bytes.ptr, size}, log_check_record, log_check_damage, in,
                       &good);
    if (err == ERR_CORRUPT) {
        tell(in, false, name, 0, "the header of the log is damaged");
        err = 0;
    } else if (!err && good && good < size) {
        tell(in, true, name, good, "a torn tail: it was never acknowledged");
    }
    buf_done(&bytes);
    return err;
}

static int logs_check(struct inspection *in, int dir)
{
    int fd, err = file_open(dir, ".", O_RDONLY | O_DIRECTORY, &fd);
    DIR *entries = err ? NULL : fdopendir(fd);
    if (!err && !entries) {
        close(fd);
        return ERR_NOMEM;
    }
    for (struct dirent *e; !err && (e = readdir(entries));) {
        size_t n = strlen(e->d_name);
        if (!strncmp(e->d_name, "log-", 4))
            err = log_check(in, dir, e->d_name);
        else if (!strncmp(e->d_name, "rec-", 4) && n > 4 && !strcmp(e->d_name + n - 4, ".tmp"))
            tell(in, true, e->d_name, 0, "was not finished");
    }
    if (entries)
        closedir(entries);
    return err;
}

static int files_check(struct inspection *in, int dir)
{
    struct records_survey s = {0};
    int err = records_survey(dir, false, &s);
    for (size_t i = 0; i < s.n && !err; i++) {
        struct error_detail detail = {0};
        struct records_file *file;
        err = records_file_open(dir, s.items[i].name, true, &file, &detail);
        in->v.segments++;
        if (err == ERR_CORRUPT) {
            tell(in, false, s.items[i].name, detail.position, detail.message);
            err = 0;
            continue;
        }
        if (err)
            break;
        in->v.segment_spans += file->n_kind[ROW_LOG] + file->n_kind[ROW_POINT];
        in->v.bytes += file->bytes;
        if (i && s.items[i].last <= s.items[i - 1].last)
            tell(in, true, s.items[i].name, 0,
                 "is not needed any more, and goes at the next opening");
        records_file_unref(file);
    }
    free(s.items);
    return err;
}

int records_verify(const char *path, store_finding_fn *fn, void *arg,
                   struct store_verified *ret_verified, struct error_detail *ret_detail)
{
    struct inspection in = {.fn = fn, .arg = arg};
    int dir, lock = -1, err = file_open(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, &dir);
    if (err)
        return error_set(ret_detail, err, 0, "%s: %s", path, err_text(err));
    err = file_open(dir, "lock", O_RDONLY, &lock);
    if (!err && flock(lock, LOCK_EX | LOCK_NB))
        err = errno == EWOULDBLOCK ? ERR_BUSY : err_from_errno(errno);
    if (!err)
        err = logs_check(&in, dir);
    if (!err)
        err = files_check(&in, dir);
    if (err)
        error_set(ret_detail, err, 0, "%s: %s", path, err_text(err));
    else
        *ret_verified = in.v;
    if (lock >= 0)
        close(lock);
    close(dir);
    return err;
}
