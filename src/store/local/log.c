/* docs/formats/log.md has the layout, and what recovery does.
 *
 * 1. `good` of the newest file was accepted: it is durable. From there to `written` lie whole records that
 *    were written and may not be durable. Anything else behind that (`must_cut`) was refused, and is cut,
 *    back to what was accepted, before anything else is written.
 * 2. A file's header is durable before its first record is written, and the directory entry before
 *    the first record is acknowledged.
 * 3. A file is removed only when `last_sequence` is covered by segments that the catalogue has. */
#include "store/local/log.h"

#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "store/local/file.h"

enum {
    VERSION = 2,
    VERSION_OLD = 1, /* is read, never written: a record has no checksum of its head */
    RECORD_SIZE_OLD = 32,
};
static const char magic[8] = "PUGLOG\r\n";
static const char record_magic[4] = "PREC";

struct header {
    char magic[8];
    uint32_t version, required, optional, zero;
    uint64_t first_sequence, salt, time_ns, zero2, checksum;
};
_Static_assert(sizeof(struct header) == LOG_HEADER_SIZE, "docs/formats/log.md");

struct record {
    char magic[4];
    uint32_t length;
    uint64_t checksum;
    uint64_t sequence;
    uint16_t format, compression;
    uint32_t n_spans;
    uint64_t head_checksum;
};
_Static_assert(sizeof(struct record) == LOG_RECORD_SIZE, "docs/formats/log.md");

static uint64_t head_checksum(const struct record *r, uint64_t salt)
{
    return hash_bytes_seed(r, offsetof(struct record, head_checksum), salt);
}

static uint64_t body_checksum_old(const struct record *r, const char *body, uint64_t salt)
{
    enum { CHECKED_AT = offsetof(struct record, sequence) };
    uint64_t head = hash_bytes_seed((const char *)r + CHECKED_AT, RECORD_SIZE_OLD - CHECKED_AT,
                                    salt);
    return hash_bytes_seed(body, le32toh(r->length), head);
}

static size_t padding(size_t length)
{
    return -length & 7;
}

/* ---- reading ---- */

/* What the header of a file says of its records. */
struct layout {
    uint64_t salt;
    size_t head_size; /* of a record */
};

static int header_read(struct str file, struct layout *ret)
{
    struct header h;
    if (file.len < sizeof h)
        return ERR_CORRUPT;
    memcpy(&h, file.ptr, sizeof h);
    if (memcmp(h.magic, magic, sizeof magic) ||
        le64toh(h.checksum) != hash_bytes(&h, sizeof h - sizeof h.checksum))
        return ERR_CORRUPT;
    uint32_t version = le32toh(h.version);
    if (version < VERSION_OLD || version > VERSION || h.required)
        return ERR_UNSUPPORTED;
    *ret = (struct layout){h.salt, version == VERSION_OLD ? RECORD_SIZE_OLD : LOG_RECORD_SIZE};
    return 0;
}

#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
enum { CHECKSUMS_COUNT = false }; /* a fuzzer cannot guess them */
#else
enum { CHECKSUMS_COUNT = true };
#endif

/* The head of a record at `at`, which may be a wrong one where there is no checksum of it. The body
 * is hashed behind a right one only: strangers cannot make one, so that each byte is hashed once. */
static bool head_at(struct str file, size_t at, const struct layout *layout, struct record *ret)
{
    if (file.len - at < layout->head_size)
        return false;
    *ret = (struct record){0};
    memcpy(ret, file.ptr + at, layout->head_size);
    if (memcmp(ret->magic, record_magic, sizeof record_magic))
        return false;
    if (CHECKSUMS_COUNT && layout->head_size == LOG_RECORD_SIZE &&
        le64toh(ret->head_checksum) != head_checksum(ret, layout->salt))
        return false;
    return true;
}

/* The size of the whole record at `at`, with its padding; 0: there is none. */
static size_t record_at(struct str file, size_t at, const struct layout *layout, struct record *ret)
{
    if (!head_at(file, at, layout, ret))
        return 0;
    size_t length = le32toh(ret->length);
    if (length > file.len - at - layout->head_size)
        return 0;
    const char *body = file.ptr + at + layout->head_size;
    uint64_t checksum = layout->head_size == LOG_RECORD_SIZE
                            ? hash_bytes_seed(body, length, layout->salt)
                            : body_checksum_old(ret, body, layout->salt);
    if (CHECKSUMS_COUNT && le64toh(ret->checksum) != checksum)
        return 0;
    size_t size = layout->head_size + length + padding(length);
    return size > file.len - at ? file.len - at : size;
}

/* What stands behind the last whole record: the beginning of one, or zeros that a file system left
 * where a write did not come to, is what a write that was cut short leaves. Anything else is not. */
static bool tail_is_short(struct str file, size_t at, const struct layout *layout)
{
    struct record r;
    struct str tail = {file.ptr + at, file.len - at};
    if (tail.len < layout->head_size)
        return true;
    if (head_at(file, at, layout, &r))
        return le32toh(r.length) > tail.len - layout->head_size;
    for (size_t i = 0; i < tail.len; i++)
        if (tail.ptr[i])
            return false;
    return true;
}

int log_read(struct str file, log_replay_fn *fn, log_damage_fn *damage, void *arg,
             uint64_t *ret_good)
{
    struct layout layout;
    int err = header_read(file, &layout);
    if (err)
        return err;
    size_t at = LOG_HEADER_SIZE;
    while (at < file.len) {
        struct record r;
        size_t size = record_at(file, at, &layout, &r), bad = at;
        while (!size && at + 8 < file.len)
            size = record_at(file, at += 8, &layout, &r);
        if (!size) {
            at = bad;
            if (damage && !tail_is_short(file, at, &layout))
                damage(arg, at, file.len - at);
            break;
        }
        if (at != bad && damage)
            damage(arg, bad, at - bad);
        struct log_body body = {
            .format = le16toh(r.format),
            .body = {file.ptr + at + layout.head_size, le32toh(r.length)},
            .n_spans = le32toh(r.n_spans),
        };
        if (r.compression)
            return ERR_UNSUPPORTED;
        err = fn(arg, le64toh(r.sequence), &body);
        if (err)
            return err;
        at += size;
    }
    *ret_good = at;
    return 0;
}

/* ---- recovery ---- */

static struct log_file *file_new(uint64_t first_sequence)
{
    struct log_file *f = calloc(1, sizeof *f);
    if (f) {
        f->first_sequence = first_sequence;
        snprintf(f->name, sizeof f->name, "log-%016llx.log", (unsigned long long)first_sequence);
    }
    return f;
}

static void file_insert(struct log *log, struct log_file *f)
{
    struct log_file **at = &log->oldest;
    while (*at && (*at)->first_sequence < f->first_sequence)
        at = &(*at)->newer;
    f->newer = *at;
    *at = f;
    if (!f->newer)
        log->newest = f;
}

static int files_list(struct log *log)
{
    int fd, err = file_open(log->dir, ".", O_RDONLY | O_DIRECTORY, &fd);
    if (err)
        return err;
    DIR *dir = fdopendir(fd);
    if (!dir) {
        close(fd);
        return ERR_NOMEM;
    }
    struct dirent *entry;
    while (!err && (errno = 0, entry = readdir(dir))) {
        unsigned long long first;
        int end = 0;
        if (sscanf(entry->d_name, "log-%16llx.log%n", &first, &end) != 1 || !end ||
            entry->d_name[end])
            continue;
        struct log_file *f = file_new(first);
        if (!f)
            err = ERR_NOMEM;
        else if (strcmp(f->name, entry->d_name))
            free(f); /* not one of ours: another spelling of the number */
        else
            file_insert(log, f);
    }
    if (!err && errno)
        err = err_from_errno(errno);
    closedir(dir);
    return err;
}

struct recovery {
    struct log *log;
    struct log_file *file;
    uint64_t sealed, last_sequence;
    log_replay_fn *fn;
    void *arg;
};

static int recover_record(void *arg, uint64_t sequence, const struct log_body *body)
{
    struct recovery *r = arg;
    if (sequence > r->file->last_sequence)
        r->file->last_sequence = sequence;
    if (sequence <= r->last_sequence || sequence <= r->sealed)
        return 0;
    r->last_sequence = sequence;
    return r->fn(r->arg, sequence, body);
}

static void recover_damage(void *arg, uint64_t at, uint64_t bytes)
{
    struct recovery *r = arg;
    r->log->damaged++;
    log_error("damage in the log file=%s offset=%llu bytes=%llu: what is left of it is kept",
              r->file->name, (unsigned long long)at, (unsigned long long)bytes);
}

/* With the whole file mapped. A file that shrinks while it is read would be a second writer, which
 * the lock on the directory excludes. */
static int file_recover(struct recovery *r, int fd, uint64_t size, uint64_t *ret_good)
{
    void *bytes = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (bytes == MAP_FAILED)
        return err_from_errno(errno);
    madvise(bytes, size, MADV_SEQUENTIAL);
    int err = log_read((struct str){bytes, size}, recover_record, recover_damage, r, ret_good);
    munmap(bytes, size);
    return err;
}

static int recover_one(struct recovery *r, bool *ret_remove)
{
    int fd;
    uint64_t size, good = 0;
    int err = file_open(r->log->dir, r->file->name, O_RDWR, &fd);
    if (err)
        return err;
    err = file_size(fd, &size);
    /* Nothing was written behind a header that is not whole: its sync comes first. */
    bool empty = !err && size <= LOG_HEADER_SIZE;
    if (!err && !empty)
        err = file_recover(r, fd, size, &good);
    if (!err && !empty && good < size) {
        log_warn("torn tail of the log cut file=%s offset=%llu bytes=%llu", r->file->name,
                 (unsigned long long)good, (unsigned long long)(size - good));
        err = file_truncate(fd, good);
        if (!err)
            err = file_sync(fd);
    }
    close(fd);
    r->file->bytes = good;
    *ret_remove = empty;
    return err;
}

int log_recover(struct log *log, uint64_t sealed, log_replay_fn *fn, void *arg,
                struct error_detail *ret_detail)
{
    int err = files_list(log);
    if (err)
        return error_set(ret_detail, err, 0, "the log files cannot be listed: %s", err_text(err));
    struct recovery r = {.log = log, .sealed = sealed, .fn = fn, .arg = arg};
    for (struct log_file **at = &log->oldest; *at;) {
        bool remove = false;
        r.file = *at;
        err = recover_one(&r, &remove);
        if (err)
            return error_set(ret_detail, err, 0, "%s: %s", r.file->name, err_text(err));
        if (remove && !file_remove(log->dir, r.file->name)) {
            *at = r.file->newer;
            free(r.file);
        } else {
            at = &r.file->newer;
        }
    }
    log->newest = log->oldest;
    while (log->newest && log->newest->newer)
        log->newest = log->newest->newer;
    uint64_t last = r.last_sequence > sealed ? r.last_sequence : sealed;
    /* A file whose records are all damaged keeps its name. */
    if (log->newest && log->newest->first_sequence > last)
        last = log->newest->first_sequence;
    log->next_sequence = last + 1;
    return 0;
}

/* ---- writing ---- */

void log_init(struct log *log, int dir, bool sync)
{
    *log = (struct log){.dir = dir, .sync = sync, .next_sequence = 1, .fd = -1};
}

void log_files_free(struct log_file *files)
{
    while (files) {
        struct log_file *f = files;
        files = f->newer;
        free(f);
    }
}

void log_done(struct log *log)
{
    log_rotate(log);
    log_files_free(log->oldest);
    log->oldest = log->newest = NULL;
}

void log_rotate(struct log *log)
{
    if (log->fd < 0)
        return;
    /* What was refused must not come back. This is the last try. */
    if (log->must_cut && (file_truncate(log->fd, log->good.bytes) || file_datasync(log->fd))) {
        log_error("what was refused could not be cut from the log file=%s", log->newest->name);
        /* Recovery passes over a sequence that it has read: the next records need others. The
         * file's last_sequence stays, so that it is removed with what was acknowledged. */
        log->next_sequence = log->stray_end;
    }
    close(log->fd);
    log->fd = -1;
    log->must_cut = false;
}

static void file_forget(struct log *log, struct log_file *f)
{
    struct log_file **at = &log->oldest;
    log->newest = NULL;
    while (*at) {
        if (*at == f) {
            *at = f->newer;
            continue;
        }
        log->newest = *at;
        at = &(*at)->newer;
    }
    free(f);
}

static int file_begin(struct log *log)
{
    /* A file that got no record gives its name to the next. */
    if (log->newest && log->newest->first_sequence == log->next_sequence)
        file_forget(log, log->newest);
    struct log_file *f = file_new(log->next_sequence);
    if (!f)
        return ERR_NOMEM;
    struct header h = {.version = htole32(VERSION),
                       .first_sequence = htole64(log->next_sequence),
                       .time_ns = htole64(clock_realtime_ns())};
    memcpy(h.magic, magic, sizeof magic);
    if (getrandom(&h.salt, sizeof h.salt, 0) != sizeof h.salt)
        h.salt = hash_mix64(clock_realtime_ns() ^ (uintptr_t)f);
    h.checksum = htole64(hash_bytes(&h, sizeof h - sizeof h.checksum));
    int fd, err = file_open(log->dir, f->name, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, &fd);
    if (err) {
        free(f);
        return err;
    }
    err = file_write(fd, &h, sizeof h);
    if (!err && log->sync)
        err = file_datasync(fd);
    if (!err && log->sync)
        err = file_sync(log->dir);
    if (err) {
        close(fd);
        (void)!file_remove(log->dir, f->name);
        free(f);
        return err;
    }
    f->bytes = sizeof h;
    log->fd = fd;
    log->salt = h.salt;
    log->good = log->written = (struct log_mark){sizeof h, log->next_sequence - 1};
    log->must_cut = false;
    file_insert(log, f);
    return 0;
}

/* Whatever comes of it, what is behind `written_bytes` has to be cut unless this returns 0. */
static int records_write(struct log *log, const struct log_body *bodies, size_t n,
                         uint64_t *ret_bytes)
{
    static const char zeros[8];
    struct record *records = malloc(n * sizeof *records);
    struct iovec *parts = malloc(n * 3 * sizeof *parts);
    int err = records && parts ? 0 : ERR_NOMEM;
    uint64_t bytes = 0;
    for (size_t i = 0; i < n && !err; i++) {
        struct record *r = &records[i];
        struct str body = bodies[i].body;
        *r = (struct record){
            .length = htole32((uint32_t)body.len),
            .sequence = htole64(log->next_sequence + i),
            .format = htole16((uint16_t)bodies[i].format),
            .n_spans = htole32(bodies[i].n_spans),
        };
        memcpy(r->magic, record_magic, sizeof record_magic);
        r->checksum = htole64(hash_bytes_seed(body.ptr, body.len, log->salt));
        r->head_checksum = htole64(head_checksum(r, log->salt));
        parts[3 * i] = (struct iovec){r, sizeof *r};
        parts[3 * i + 1] = (struct iovec){(void *)(uintptr_t)body.ptr, body.len};
        parts[3 * i + 2] = (struct iovec){(void *)(uintptr_t)zeros, padding(body.len)};
        bytes += sizeof *r + body.len + padding(body.len);
    }
    if (!err) {
        log->must_cut = true;
        log->stray_end = log->next_sequence + n;
        err = file_writev(log->fd, parts, (int)(n * 3));
    }
    free(records);
    free(parts);
    *ret_bytes = bytes;
    return err;
}

/* Back to what was accepted. */
static int file_cut(struct log *log)
{
    int err = file_truncate(log->fd, log->good.bytes);
    if (!err && log->sync)
        err = file_datasync(log->fd);
    if (!err)
        log->must_cut = false;
    return err;
}

int log_write(struct log *log, const struct log_body *bodies, size_t n)
{
    uint64_t bytes;
    int err = 0;
    if (log->fd < 0)
        err = file_begin(log);
    else if (log->must_cut)
        err = file_cut(log);
    if (!err)
        err = records_write(log, bodies, n, &bytes);
    if (err)
        return err;
    log->must_cut = false;
    log->written.bytes += bytes;
    log->next_sequence += n;
    log->written.last_sequence = log->next_sequence - 1;
    return 0;
}

int log_sync(const struct log *log)
{
    return log->sync ? file_datasync(log->fd) : 0;
}

void log_accept(struct log *log, struct log_mark mark)
{
    log->good = mark;
    log->newest->bytes = mark.bytes;
    log->newest->last_sequence = mark.last_sequence;
}

void log_refuse(struct log *log)
{
    if (log->written.bytes != log->good.bytes) {
        log->must_cut = true;
        log->stray_end = log->stray_end > log->next_sequence ? log->stray_end : log->next_sequence;
        log->written = log->good;
        log->next_sequence = log->good.last_sequence + 1;
    }
    if (log->must_cut)
        (void)!file_cut(log); /* else the next write tries again */
}

int log_append(struct log *log, const struct log_body *bodies, size_t n,
               uint64_t *ret_last_sequence)
{
    int err = log_write(log, bodies, n);
    if (!err)
        err = log_sync(log);
    if (err) {
        log_refuse(log);
        return err;
    }
    log_accept(log, log->written);
    *ret_last_sequence = log->good.last_sequence;
    return 0;
}

struct log_file *log_detach(struct log *log, uint64_t sealed)
{
    struct log_file *first = log->oldest, **end = &first;
    /* One that got no record stays: the next has its name, and would be removed in its place. */
    while (*end && (*end)->last_sequence <= sealed && !(log->fd >= 0 && *end == log->newest) &&
           (*end)->first_sequence != log->next_sequence)
        end = &(*end)->newer;
    log->oldest = *end;
    if (!log->oldest)
        log->newest = NULL;
    *end = NULL;
    return first;
}

struct log_file *log_files_remove(int dir, struct log_file *files)
{
    while (files) {
        struct log_file *f = files;
        int err = file_remove(dir, f->name);
        if (err && err != ERR_NOT_FOUND)
            break; /* recovery passes over what is sealed */
        files = f->newer;
        free(f);
    }
    return files;
}

void log_trim(struct log *log, uint64_t sealed)
{
    struct log_file *left = log_files_remove(log->dir, log_detach(log, sealed));
    while (left) { /* the next trim tries again */
        struct log_file *f = left;
        left = f->newer;
        file_insert(log, f);
    }
}

uint64_t log_files_bytes(const struct log_file *files)
{
    uint64_t bytes = 0;
    for (const struct log_file *f = files; f; f = f->newer)
        bytes += f->bytes;
    return bytes;
}

uint64_t log_bytes(const struct log *log)
{
    return log_files_bytes(log->oldest);
}
