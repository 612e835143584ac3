/* A store that nobody has open: checked to the last byte, or described, without a change. A shared lock on
 * the directory keeps servers out meanwhile, and several of these may run at once. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "store/local/catalogue.h"
#include "store/local/file.h"
#include "store/local/log.h"
#include "store/local/segment.h"
#include "wire/otlp.h"
#include "wire/otlp_json.h"

struct row {
    struct segment_info info;
    bool is_damaged;
};

struct inspect {
    const char *path;
    int dir, lock_fd;
    struct catalogue *catalogue;
    struct row *rows;
    size_t n_rows, cap_rows;
    struct catalogue_position position;

    store_finding_fn *fn;
    void *arg;
    struct store_verified result;
};

static void inspect_close(struct inspect *in)
{
    catalogue_close(in->catalogue);
    free(in->rows);
    if (in->lock_fd >= 0)
        close(in->lock_fd);
    if (in->dir >= 0)
        close(in->dir);
}

static int row_keep(void *arg, const struct segment_info *info, bool is_damaged)
{
    struct inspect *in = arg;
    if (in->n_rows == in->cap_rows) {
        size_t cap = in->cap_rows ? in->cap_rows * 2 : 64;
        struct row *more = realloc(in->rows, cap * sizeof *more);
        if (!more)
            return ERR_NOMEM;
        in->rows = more;
        in->cap_rows = cap;
    }
    in->rows[in->n_rows++] = (struct row){*info, is_damaged};
    return 0;
}

static int inspect_lock(struct inspect *in, struct error_detail *detail)
{
    if (file_open(AT_FDCWD, in->path, O_RDONLY | O_DIRECTORY, &in->dir))
        return error_set(detail, err_from_errno(errno), 0, "%s: %s", in->path, strerror(errno));
    struct stat s;
    if (fstatat(in->dir, "catalogue.db", &s, 0) && fstatat(in->dir, "lock", &s, 0))
        return error_set(detail, ERR_NOT_FOUND, 0, "%s: there is no store in it", in->path);
    int err = file_open(in->dir, "lock", O_RDONLY, &in->lock_fd);
    if (err == ERR_NOT_FOUND)
        return 0; /* a copy: nobody can hold it */
    if (!err && flock(in->lock_fd, LOCK_SH | LOCK_NB))
        err = errno == EWOULDBLOCK ? ERR_BUSY : err_from_errno(errno);
    return err ? error_set(detail, err, 0, "%s: %s", in->path,
                           err == ERR_BUSY ? err_text(err) : strerror(errno))
               : 0;
}

static int inspect_open(struct inspect *in, const char *path, struct error_detail *detail)
{
    *in = (struct inspect){.path = path, .dir = -1, .lock_fd = -1};
    int err = inspect_lock(in, detail);
    return err ? err : catalogue_open(path, CATALOGUE_READ, &in->catalogue, detail);
}

static int catalogue_load(struct inspect *in, struct error_detail *detail)
{
    int err = catalogue_segments(in->catalogue, row_keep, in);
    if (!err)
        err = catalogue_position(in->catalogue, &in->position);
    return err ? error_set(detail, err, 0, "catalogue.db: %s", catalogue_error(in->catalogue)) : 0;
}

/* ---- checking ---- */

PRINTF_LIKE(5, 6)
static void tell(struct inspect *in, bool is_note, const char *file, uint64_t offset,
                 const char *format, ...)
{
    char text[256];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    in->result.damaged += !is_note;
    in->fn(in->arg, &(struct store_finding){file, offset, is_note, text});
}

static int pin_check(void *arg, const struct trace_id *id, uint64_t made_ns, bool is_damaged)
{
    if (is_damaged)
        tell(arg, false, "catalogue.db", 0, "a pin is damaged");
    return 0;
}

static int rule_check(void *arg, const char *text, uint64_t spans, bool is_damaged)
{
    if (is_damaged)
        tell(arg, false, "catalogue.db", 0, "the counter of a rule is damaged");
    return 0;
}

static int erasure_check(void *arg, const struct catalogue_erasure *e, bool is_damaged)
{
    tell(arg, !is_damaged, "catalogue.db", 0,
         is_damaged ? "an erasure is damaged: what it is about is not known"
                    : "an erasure was begun and is not done; the next opening goes on with it");
    return 0;
}

/* 0 also when it is damaged: what can be read of it is used. */
static int catalogue_verify(struct inspect *in, struct error_detail *detail)
{
    struct error_detail found = {0};
    struct stat s;
    uint64_t counters[COUNTERS];
    if (!fstatat(in->dir, "catalogue.db", &s, 0))
        in->result.bytes += (uint64_t)s.st_size;
    int err = catalogue_check(in->catalogue, &found);
    if (err)
        tell(in, false, "catalogue.db", 0, "%s", found.message);
    if (catalogue_load(in, &found))
        tell(in, false, "catalogue.db", 0, "the segments cannot be read: %s", found.message);
    if (in->position.is_damaged)
        tell(in, false, "catalogue.db", 0, "the position in the log is damaged");
    for (size_t i = 0; i < in->n_rows; i++)
        if (in->rows[i].is_damaged)
            tell(in, false, "catalogue.db", 0, "the row of \"%s\" is damaged",
                 in->rows[i].info.name);
    if (catalogue_pins(in->catalogue, pin_check, in))
        tell(in, false, "catalogue.db", 0, "the pins cannot be read");
    if (catalogue_rules(in->catalogue, rule_check, in))
        tell(in, false, "catalogue.db", 0, "the counters of rules cannot be read");
    if (catalogue_erasures(in->catalogue, erasure_check, in))
        tell(in, false, "catalogue.db", 0, "the erasures cannot be read");
    if (catalogue_counters(in->catalogue, counters))
        tell(in, false, "catalogue.db", 0, "the counters are damaged");
    return 0;
}

static bool infos_differ(const struct segment_info *row, const struct segment_info *own)
{
    return row->spans != own->spans || row->traces != own->traces ||
           row->start_min_ns != own->start_min_ns || row->start_max_ns != own->start_max_ns ||
           (own->last_sequence && row->last_sequence != own->last_sequence) ||
           (own->last_sequence && row->first_sequence &&
            row->first_sequence != own->first_sequence);
}

static void segment_check(struct inspect *in, const struct row *row)
{
    const struct segment_info *info = &row->info;
    struct segment_info own;
    struct segment *seg;
    struct stat s;
    if (fstatat(in->dir, info->name, &s, 0)) {
        tell(in, false, info->name, 0, "%s", errno == ENOENT ? "is missing" : strerror(errno));
        return;
    }
    in->result.bytes += (uint64_t)s.st_size;
    if (!row->is_damaged && (uint64_t)s.st_size != info->bytes) {
        tell(in, false, info->name, (uint64_t)s.st_size, "has %llu bytes, was sealed with %llu",
             (unsigned long long)s.st_size, (unsigned long long)info->bytes);
        return;
    }
    int err = segment_info_read(in->dir, info->name, &own);
    if (err) {
        tell(in, false, info->name, 0, "the header, the footer or the trailer: %s", err_text(err));
        return;
    }
    if (!row->is_damaged && infos_differ(info, &own))
        tell(in, false, info->name, 0, "is not the file that the catalogue describes");
    err = segment_open(in->dir, info->name, &seg);
    if (!err) {
        err = segment_verify(seg);
        if (err) {
            const struct error_detail *damage = segment_damage(seg);
            tell(in, false, info->name, damage->position, "%s",
                 damage->code ? damage->message : err_text(err));
        }
        segment_close(seg);
    }
    in->result.segments += !err;
    in->result.segment_spans += err ? 0 : info->spans;
}

struct log_check {
    struct inspect *in;
    const char *name;
    uint64_t damage_end;
};

static int record_check(void *arg, uint64_t sequence, const struct log_body *body)
{
    struct log_check *c = arg;
    struct arena arena = ARENA_INIT;
    struct span_batch batch = {0};
    int err = body->format == BODY_OTLP_PROTOBUF ? otlp_decode(body->body, &arena, &batch, NULL)
              : body->format == BODY_OTLP_JSON ? otlp_json_decode(body->body, &arena, &batch, NULL)
                                               : ERR_UNSUPPORTED;
    if (err)
        tell(c->in, false, c->name, 0, "record %llu cannot be decoded: %s",
             (unsigned long long)sequence, err_text(err));
    c->in->result.log_records++;
    c->in->result.log_spans += batch.n;
    arena_done(&arena);
    return 0;
}

static void damage_tell(void *arg, uint64_t at, uint64_t bytes)
{
    struct log_check *c = arg;
    c->damage_end = at + bytes;
    tell(c->in, false, c->name, at, "%llu bytes are no record", (unsigned long long)bytes);
}

static void log_check(struct inspect *in, const char *name)
{
    int fd;
    uint64_t size, good = 0;
    if (file_open(in->dir, name, O_RDONLY, &fd)) {
        tell(in, false, name, 0, "%s", strerror(errno));
        return;
    }
    int err = file_size(fd, &size);
    if (!err && size <= LOG_HEADER_SIZE) {
        tell(in, true, name, 0, "holds no record");
    } else if (!err) {
        void *bytes = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
        struct log_check c = {in, name, 0};
        err = bytes == MAP_FAILED
                  ? err_from_errno(errno)
                  : log_read((struct str){bytes, size}, record_check, damage_tell, &c, &good);
        if (bytes != MAP_FAILED)
            munmap(bytes, size);
        if (!err && good < size && c.damage_end != size)
            tell(in, true, name, good, "%llu bytes of a write that was cut short",
                 (unsigned long long)(size - good));
        in->result.bytes += size;
    }
    if (err)
        tell(in, false, name, 0, "%s",
             err == ERR_CORRUPT ? "the header is damaged, and its records cannot be read"
                                : err_text(err));
    close(fd);
}

static bool row_has(const struct inspect *in, const char *name)
{
    for (size_t i = 0; i < in->n_rows; i++)
        if (!strcmp(in->rows[i].info.name, name))
            return true;
    return false;
}

static int removed_find(void *arg, const char *name)
{
    return strcmp(name, arg) ? 0 : ERR_EXISTS;
}

static int directory_check(struct inspect *in)
{
    int fd, err = file_open(in->dir, ".", O_RDONLY | O_DIRECTORY, &fd);
    if (err)
        return err;
    DIR *dir = fdopendir(fd);
    if (!dir) {
        close(fd);
        return ERR_NOMEM;
    }
    struct dirent *entry;
    while ((entry = readdir(dir))) {
        char *name = entry->d_name;
        size_t n = strlen(name);
        if (!strncmp(name, "log-", 4))
            log_check(in, name);
        else if (!strncmp(name, "seg-", 4) && n > 4 && !strcmp(name + n - 4, ".tmp"))
            tell(in, true, name, 0, "was not finished");
        else if (!strncmp(name, "seg-", 4) && !row_has(in, name))
            tell(in, true, name, 0, "%s",
                 catalogue_removed(in->catalogue, removed_find, name)
                     ? "is not needed any more, and goes at the next opening"
                     : "is not in the catalogue");
    }
    closedir(dir);
    return 0;
}

int store_verify(const char *dir, store_finding_fn *fn, void *arg,
                 struct store_verified *ret_verified, struct error_detail *ret_detail)
{
    struct inspect in;
    int err = inspect_open(&in, dir, ret_detail);
    in.fn = fn;
    in.arg = arg;
    if (err == ERR_CORRUPT) {
        tell(&in, false, "catalogue.db", 0, "%s", ret_detail ? ret_detail->message : err_text(err));
        err = 0;
    }
    if (!err && in.catalogue) {
        err = catalogue_verify(&in, ret_detail);
        for (size_t i = 0; i < in.n_rows && !err; i++)
            segment_check(&in, &in.rows[i]);
        if (!err && (err = directory_check(&in)))
            error_set(ret_detail, err, 0, "%s: %s", dir, err_text(err));
    }
    inspect_close(&in);
    if (!err)
        *ret_verified = in.result;
    return err;
}

/* ---- describing ---- */

struct describe {
    struct store_description d;
    struct arena *arena;
    size_t cap_columns;
};

static const char *type_name(int type)
{
    static const char *const names[] = {
        [VALUE_NONE] = "none", [VALUE_STRING] = "string", [VALUE_BOOL] = "bool",
        [VALUE_INT] = "int",   [VALUE_DOUBLE] = "double", [VALUE_ARRAY] = "array",
        [VALUE_MAP] = "map",   [VALUE_BYTES] = "bytes",
    };
    return type == -1 ? "span" : type == -2 ? "index" : names[type];
}

static int part_add(void *arg, const struct segment_part *part)
{
    struct describe *d = arg;
    struct str type = str_from(type_name(part->type));
    for (size_t i = 0; i < d->d.n_columns; i++) {
        struct store_column *c = &d->d.columns[i];
        if (str_eq(c->name, part->name) && str_eq(c->type, type)) {
            c->values += part->values;
            c->bytes += part->bytes;
            return 0;
        }
    }
    if (d->d.n_columns == d->cap_columns) {
        size_t cap = d->cap_columns ? d->cap_columns * 2 : 64;
        struct store_column *more = arena_array(d->arena, cap, sizeof *more);
        if (!more)
            return ERR_NOMEM;
        if (d->d.n_columns)
            memcpy(more, d->d.columns, d->d.n_columns * sizeof *more);
        d->d.columns = more;
        d->cap_columns = cap;
    }
    struct str name = arena_str(d->arena, part->name);
    if (!name.ptr)
        return ERR_NOMEM;
    d->d.columns[d->d.n_columns++] = (struct store_column){name, type, part->values, part->bytes};
    return 0;
}

static int segment_describe(struct inspect *in, const struct row *row, struct describe *d,
                            struct operation_set *set)
{
    struct segment *seg;
    const struct segment_info *info = &row->info;
    int err = segment_open(in->dir, info->name, &seg);
    if (!err) {
        err = segment_parts(seg, part_add, d);
        if (!err)
            err = segment_operations(seg, set);
        segment_close(seg);
    }
    if (err == ERR_CORRUPT || err == ERR_NOT_FOUND) {
        d->d.unread_segments++;
        return 0;
    }
    if (err)
        return err;
    d->d.segments++;
    d->d.spans += info->spans;
    d->d.traces_upper_bound += info->traces;
    d->d.segment_bytes += info->bytes;
    if (d->d.segments == 1 || info->start_min_ns < d->d.start_min_ns)
        d->d.start_min_ns = info->start_min_ns;
    if (info->start_max_ns > d->d.start_max_ns)
        d->d.start_max_ns = info->start_max_ns;
    return 0;
}

static int column_order(const void *a, const void *b)
{
    const struct store_column *x = a, *y = b;
    if (x->bytes != y->bytes)
        return x->bytes > y->bytes ? -1 : 1;
    int order = str_cmp(x->name, y->name);
    return order ? order : str_cmp(x->type, y->type);
}

static int service_order(const void *a, const void *b)
{
    const struct store_operation *x = a, *y = b;
    return str_cmp(x->service, y->service);
}

static int services_sum(const struct operation_set *set, struct describe *d)
{
    struct store_operation *services = arena_array(d->arena, set->n, sizeof *services);
    size_t n = 0;
    if (!services)
        return ERR_NOMEM;
    if (set->n)
        memcpy(services, set->items, set->n * sizeof *services);
    if (set->n)
        qsort(services, set->n, sizeof *services, service_order);
    for (size_t i = 0; i < set->n; i++) {
        if (n && str_eq(services[n - 1].service, services[i].service))
            services[n - 1].span_count += services[i].span_count;
        else
            services[n++] = (struct store_operation){.service = services[i].service,
                                                     .span_count = services[i].span_count};
    }
    d->d.services = services;
    d->d.n_services = n;
    return 0;
}

static int pin_count(void *arg, const struct trace_id *id, uint64_t made_ns, bool is_damaged)
{
    ++*(uint64_t *)arg;
    return 0;
}

static uint64_t logs_size(struct inspect *in)
{
    int fd;
    uint64_t bytes = 0;
    DIR *dir = NULL;
    if (!file_open(in->dir, ".", O_RDONLY | O_DIRECTORY, &fd) && !(dir = fdopendir(fd)))
        close(fd);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        struct stat s;
        if (!strncmp(entry->d_name, "log-", 4) && !fstatat(in->dir, entry->d_name, &s, 0))
            bytes += (uint64_t)s.st_size;
    }
    if (dir)
        closedir(dir);
    return bytes;
}

int store_describe(const char *dir, struct arena *arena, struct store_description *ret_description,
                   struct error_detail *ret_detail)
{
    struct inspect in;
    struct describe d = {.arena = arena};
    struct operation_set set = {.arena = arena};
    uint64_t counters[COUNTERS] = {0};
    int err = inspect_open(&in, dir, ret_detail);
    if (!err)
        err = catalogue_load(&in, ret_detail);
    bool said = err != 0;
    for (size_t i = 0; i < in.n_rows && !err; i++)
        err = segment_describe(&in, &in.rows[i], &d, &set);
    if (!err)
        err = catalogue_pins(in.catalogue, pin_count, &d.d.pins);
    if (!err && (err = catalogue_counters(in.catalogue, counters)) == ERR_CORRUPT)
        err = 0;
    if (!err)
        err = services_sum(&set, &d);
    if (err && !said)
        error_set(ret_detail, err, 0, "%s: %s", dir, err_text(err));
    if (!err) {
        d.d.sealed_bytes = counters[COUNTER_SEALED_BYTES];
        d.d.rewritten_bytes = counters[COUNTER_REWRITTEN_BYTES];
        d.d.expired_age_spans = counters[COUNTER_EXPIRED_AGE_SPANS];
        d.d.expired_disk_spans = counters[COUNTER_EXPIRED_DISK_SPANS];
        d.d.deleted_spans = counters[COUNTER_DELETED_SPANS];
        d.d.log_bytes = logs_size(&in);
        if (d.d.n_columns)
            qsort(d.d.columns, d.d.n_columns, sizeof *d.d.columns, column_order);
        *ret_description = d.d;
    }
    operation_set_done(&set);
    inspect_close(&in);
    return err;
}
