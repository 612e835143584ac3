/* One thread reads all files, a batch of lines at a time, and waits until a batch is durable.
 *
 * 1. Where a file was read to is a position (records.h), and durable with the logs of the lines before
 *    it. Spans are durable just before that. So after a kill at most one batch of spans is there
 *    without its position; the lines behind a position that a start finds are therefore compared with
 *    what the store has (`check_until`). A span's id follows from its line and place, so it is the
 *    same each time.
 * 2. A file is its device and inode, not its name: a renamed one is read to its end under whatever
 *    name. Its first bytes and those before the offset are known by their hash (`mark`): an inode that
 *    was used again, or a file that was cut and written anew, is told by them.
 * 3. A file that was cut (copytruncate) has a copy beside it with the lines that were not read. It is
 *    found by the marks, and read from where the cut file was read to. A file that the patterns match
 *    anyway and that is such a copy is taken from there, too; as long as both are read, the lines of
 *    both are compared with the store.
 * 4. The offset stands behind a newline, or inside a line that is too long (`is_skipping`).
 * 5. Nothing is dropped because the store is busy or full: reading waits.
 *
 * The kernel's notices (inotify) only make the thread look earlier than it would by itself. */
#include "ingest/follow.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "ingest/redaction.h"
#include "ingest/stored_spans.h"
#include "ingest/trace_line.h"
#include "wire/otlp.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    PATTERNS_MAX = 256,
    FILES_MAX = 1000,
    POLL_MS = 500,
    GLOB_MS = 250, /* not more often, however much is written */
    RETRY_MS = 250,
    ROTATED_IDLE_MS = 60 * 1000, /* how long a renamed file may be quiet before it is closed */
    DELETED_IDLE_MS = 5 * 1000,
    CHUNK_BYTES = 1 << 20, /* and of a line */
    BATCH_LINES_MAX = 2000,
    MARK_HEAD_BYTES = 1024,
    MARK_TAIL_BYTES = 256,
    SERVICES_MAX = 64,            /* told apart in one batch */
    RESUME_CHECK_BYTES = 4 << 20, /* more than one batch */
};

/* How bytes are known again: by their hash. */
struct mark {
    uint64_t head_len, head_hash, tail_len, tail_hash;
};

struct file {
    struct file *next;
    int fd;
    dev_t dev;
    ino_t ino;
    char *path; /* under which it was found first */
    uint64_t offset, line;
    uint64_t id; /* of the content: hash of its first line; 0: not read yet */
    struct mark mark;
    bool is_skipping, is_matched, is_told;
    uint64_t size_seen;
    uint64_t dir_seen_ns; /* when its directory had changed last when siblings were looked for */
    uint64_t check_until;
    uint64_t quiet_since_ns; /* monotonic */
};

struct follow {
    struct store *store;
    struct records *records;
    struct redaction *redaction;
    char **patterns;       /* absolute */
    uint64_t *dir_seen_ns; /* by pattern, where nothing matches: as in struct file */
    uint64_t *since_ns;    /* by pattern: since when it was ever followed */
    size_t n_patterns;
    unsigned poll_ms;
    int inotify_fd, wake_fd;
    pthread_t thread;
    _Atomic bool stopping;
    _Atomic uint64_t n_files, bytes, spans, logs, passed, invalid, repeated, lost;
    /* the thread's */
    struct file *files;
    size_t n;
    char *chunk;
    uint64_t globbed_ns, started_ns; /* monotonic; since the epoch */
    bool is_full_told;
};

static void count(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

static bool is_stopping(const struct follow *f)
{
    return atomic_load_explicit(&f->stopping, memory_order_relaxed);
}

static void wait_ms(struct follow *f, int ms)
{
    struct pollfd wake = {.fd = f->wake_fd, .events = POLLIN};
    poll(&wake, 1, ms);
}

/* ---- marks ---- */

static bool read_at(int fd, void *to, size_t n, uint64_t at)
{
    for (char *p = to; n;) {
        ssize_t got = pread(fd, p, n, (off_t)at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        p += got;
        at += (uint64_t)got;
        n -= (size_t)got;
    }
    return true;
}

/* Of the bytes before `offset`. */
static bool mark_make(int fd, uint64_t offset, struct mark *ret)
{
    char bytes[MARK_HEAD_BYTES] = "";
    struct mark m = {.head_len = offset < MARK_HEAD_BYTES ? offset : MARK_HEAD_BYTES,
                     .tail_len = offset < MARK_TAIL_BYTES ? offset : MARK_TAIL_BYTES};
    if (!read_at(fd, bytes, m.head_len, 0))
        return false;
    m.head_hash = hash_bytes(bytes, m.head_len);
    if (!read_at(fd, bytes, m.tail_len, offset - m.tail_len))
        return false;
    m.tail_hash = hash_bytes(bytes, m.tail_len);
    *ret = m;
    return true;
}

/* The same of what was read and the `n` bytes behind it, from memory where that has them: the file may
 * have been cut meanwhile. */
static bool mark_extend(const struct file *file, const char *bytes, size_t n, struct mark *ret)
{
    bool is_first = file->offset == 0;
    if (!is_first && (file->mark.head_len < MARK_HEAD_BYTES || n < MARK_TAIL_BYTES))
        return mark_make(file->fd, file->offset + n, ret);
    *ret = file->mark;
    if (is_first) {
        ret->head_len = n < MARK_HEAD_BYTES ? n : MARK_HEAD_BYTES;
        ret->head_hash = hash_bytes(bytes, ret->head_len);
    }
    ret->tail_len = n < MARK_TAIL_BYTES ? n : MARK_TAIL_BYTES;
    ret->tail_hash = hash_bytes(bytes + n - ret->tail_len, ret->tail_len);
    return true;
}

/* Whether the bytes before `offset` are still, or also here, the ones that were read. */
static bool mark_fits(int fd, uint64_t offset, const struct mark *m)
{
    char bytes[MARK_HEAD_BYTES] = "";
    if (m->head_len > sizeof bytes || m->tail_len > sizeof bytes || m->tail_len > offset)
        return false;
    return read_at(fd, bytes, m->head_len, 0) && hash_bytes(bytes, m->head_len) == m->head_hash &&
           read_at(fd, bytes, m->tail_len, offset - m->tail_len) &&
           hash_bytes(bytes, m->tail_len) == m->tail_hash;
}

/* ---- positions ---- */

struct position {
    dev_t dev;
    ino_t ino;
    uint64_t offset, line, id;
    struct mark mark;
    bool is_skipping;
    char path[PATH_MAX];
};

enum { POSITION_NAME_SIZE = 64, POSITION_VALUE_SIZE = RECORDS_POSITION_BYTES_MAX - 64 };

static struct str position_name(char out[POSITION_NAME_SIZE], dev_t dev, ino_t ino)
{
    snprintf(out, POSITION_NAME_SIZE, "follow:%" PRIx64 ":%" PRIx64, (uint64_t)dev, (uint64_t)ino);
    return str_from(out);
}

static struct str position_value(char out[POSITION_VALUE_SIZE], const struct file *file,
                                 uint64_t offset, uint64_t line, const struct mark *m)
{
    snprintf(out, POSITION_VALUE_SIZE,
             "1 %" PRIx64 " %" PRIx64 " %" PRIx64 " %" PRIx64 " %" PRIx64 " %" PRIx64 " %" PRIx64
             " %d %s",
             offset, line, file->id, m->head_len, m->head_hash, m->tail_len, m->tail_hash,
             file->is_skipping, file->path);
    return str_from(out);
}

static bool position_parse(const struct records_position *from, struct position *ret)
{
    uint64_t dev, ino;
    int skipping, at = 0;
    struct mark *m = &ret->mark;
    /* Both are NUL-terminated: they live in an arena. */
    if (sscanf(from->name.ptr, "follow:%" SCNx64 ":%" SCNx64, &dev, &ino) != 2 ||
        sscanf(from->value.ptr,
               "1 %" SCNx64 " %" SCNx64 " %" SCNx64 " %" SCNx64 " %" SCNx64 " %" SCNx64 " %" SCNx64
               " %d %n",
               &ret->offset, &ret->line, &ret->id, &m->head_len, &m->head_hash, &m->tail_len,
               &m->tail_hash, &skipping, &at) != 8 ||
        !at || strlen(from->value.ptr + at) >= sizeof ret->path)
        return false;
    ret->dev = (dev_t)dev;
    ret->ino = (ino_t)ino;
    ret->is_skipping = skipping != 0;
    strcpy(ret->path, from->value.ptr + at);
    return true;
}

typedef bool position_fn(void *arg, const struct position *p); /* false: enough */

static void positions_each(struct follow *f, position_fn *fn, void *arg)
{
    struct arena arena = ARENA_INIT;
    struct records_position *all;
    struct position p;
    size_t n;
    if (!records_positions(f->records, &arena, &all, &n))
        for (size_t i = 0; i < n; i++)
            if (position_parse(&all[i], &p) && !fn(arg, &p))
                break;
    arena_done(&arena);
}

/* What must become durable does, sooner or later. False: we stop. */
static bool commit_records(struct follow *f, const struct records_batch *batch)
{
    struct records_refused refused;
    for (;;) {
        int err = records_append_wait(f->records, batch, &refused);
        if (!err)
            return true;
        if (!f->is_full_told)
            log_warn("followed files wait: %s", err_text(err));
        f->is_full_told = true;
        if (err == ERR_CLOSED || is_stopping(f))
            return false;
        wait_ms(f, RETRY_MS);
    }
}

static bool commit_spans(struct follow *f, struct span_batch *batch)
{
    struct buf body = BUF_INIT;
    bool done = false;
    otlp_encode(batch, &body);
    while (!done) {
        int err = buf_ok(&body)
                      ? store_append_wait(f->store, BODY_OTLP_PROTOBUF, buf_as_str(&body), batch)
                      : ERR_NOMEM;
        done = !err;
        if (done)
            break;
        if (!f->is_full_told)
            log_warn("followed files wait: %s", err_text(err));
        f->is_full_told = true;
        if (err == ERR_CLOSED || is_stopping(f))
            break;
        wait_ms(f, RETRY_MS);
        if (!buf_ok(&body)) {
            buf_clear(&body);
            otlp_encode(batch, &body);
        }
    }
    buf_done(&body);
    return done;
}

/* ---- lines ---- */

struct lines {
    struct follow *f;
    struct file *file;
    struct arena arena;
    struct span *spans;
    struct log_record *logs;
    size_t n_spans, n_logs;
    struct {
        struct resource resource;
        struct attr attrs[2];
    } services[SERVICES_MAX];
    size_t n_services;
    struct scope scope;
    uint64_t n_passed, n_invalid, n_repeated, now_ns;
    struct store_view *view; /* for comparing */
    struct stored_spans stored;
};

/* "orders" of "/var/log/orders.json.1" */
static struct str file_service(const char *path)
{
    const char *name = strrchr(path, '/');
    struct str base = str_from(name ? name + 1 : path);
    struct str rest, stem = str_split(base, '.', &rest);
    return stem.len ? stem : base;
}

/* NULL: the batch has as many services as it can tell apart. */
static const struct resource *resource_of(struct lines *l, struct str service)
{
    for (size_t i = 0; i < l->n_services; i++)
        if (str_eq(l->services[i].resource.service_name, service))
            return &l->services[i].resource;
    if (l->n_services == SERVICES_MAX)
        return NULL;
    size_t i = l->n_services++;
    struct attr *attrs = l->services[i].attrs;
    attrs[0] = (struct attr){STR("service.name"), {.type = VALUE_STRING, .string = service}};
    attrs[1] = (struct attr){STR("log.file.path"),
                             {.type = VALUE_STRING, .string = str_from(l->file->path)}};
    l->services[i].resource =
        (struct resource){.attrs = {attrs, 2, 0}, .schema_url = STR(""), .service_name = service};
    return &l->services[i].resource;
}

static bool span_is_stored(struct lines *l, const struct span *s)
{
    if (!l->view)
        l->view = store_view_new(l->f->store);
    return l->view && stored_spans_has(&l->stored, l->view, &s->trace_id, &s->span_id);
}

static bool log_is_stored(struct lines *l, const struct log_record *r)
{
    struct arena arena = ARENA_INIT;
    struct records_logs query = {.has_trace = true,
                                 .trace_id = r->trace_id,
                                 .time_min_ns = r->time_ns,
                                 .time_max_ns = r->time_ns};
    struct records_log *logs;
    size_t n;
    bool more, is = false;
    if (r->time_ns && !records_logs(l->f->records, &query, &arena, &logs, &n, &more, NULL))
        for (size_t i = 0; i < n && !is; i++)
            is = !memcmp(&logs[i].record.span_id, &r->span_id, SPAN_ID_SIZE) &&
                 value_eq(&logs[i].record.body, &r->body);
    arena_done(&arena);
    return is;
}

/* The id of a span that its line does not name: of what the line says and where it stands. */
static struct span_id span_id_of(const struct file *file, struct str text, uint64_t at)
{
    uint64_t n = hash_bytes_seed(text.ptr, text.len, hash_mix64(file->id ^ hash_mix64(at)));
    struct span_id id;
    n = n ? n : 1;
    memcpy(id.bytes, &n, sizeof n);
    return id;
}

static void invalid_tell(struct lines *l, uint64_t line, const char *why)
{
    l->n_invalid++;
    if (!l->file->is_told)
        log_warn("%s:%llu: %s; further lines of this file that cannot be read are only counted",
                 l->file->path, (unsigned long long)line, why);
    l->file->is_told = true;
}

/* Before anything is compared: what is stored went through it, too. */
static int line_redact(struct lines *l, struct line *line)
{
    uint8_t *marks;
    struct span_batch one = {.spans = &line->span, .n = 1};
    if (!redaction_is_on(l->f->redaction))
        return 0;
    return line->fate == LINE_SPAN ? redaction_spans(l->f->redaction, &one, &l->arena, &marks)
                                   : redaction_logs(l->f->redaction, &line->log, 1, &l->arena);
}

/* ERR_NOMEM, or ERR_BUSY: the line belongs into the next batch. */
static int line_take(struct lines *l, struct str text, uint64_t at, uint64_t number)
{
    struct error_detail detail = {0};
    struct line line;
    if (text.len && text.ptr[text.len - 1] == '\r')
        text.len--;
    if (!l->file->id)
        l->file->id = hash_str(text) | 1;
    struct line_context context = {l->now_ns, file_service(l->file->path),
                                   span_id_of(l->file, text, at)};
    bool is_checked = at < l->file->check_until;
    int fate = trace_line_decode(text, &context, &l->arena, &line, &detail);
    if (fate < 0)
        return fate;
    bool is_kept = fate == LINE_SPAN || fate == LINE_LOG;
    const struct resource *resource = is_kept ? resource_of(l, line.service) : NULL;
    if (is_kept && !resource)
        return ERR_BUSY;
    if (fate == LINE_SPAN) {
        line.span.resource = resource;
        line.span.scope = &l->scope;
    } else if (fate == LINE_LOG) {
        line.log.resource = resource;
        line.log.scope = &l->scope;
    }
    if (is_kept && line_redact(l, &line))
        return ERR_NOMEM;
    if (fate == LINE_SPAN) {
        if (is_checked && span_is_stored(l, &line.span))
            l->n_repeated++;
        else
            l->spans[l->n_spans++] = line.span;
    } else if (fate == LINE_LOG) {
        if (is_checked && log_is_stored(l, &line.log))
            l->n_repeated++;
        else
            l->logs[l->n_logs++] = line.log;
    } else if (fate == LINE_INVALID) {
        invalid_tell(l, number, detail.message[0] ? detail.message : "not a line of JSON");
    } else {
        l->n_passed++;
    }
    return 0;
}

/* The lines of the bytes at the file's offset. Returns how many bytes were used; `ret_lines` that
 * ended. */
static size_t chunk_take(struct lines *l, const char *bytes, size_t n, uint64_t *ret_lines)
{
    struct file *file = l->file;
    size_t used = 0;
    uint64_t lines = 0;
    while (used < n && lines < BATCH_LINES_MAX) {
        const char *end = memchr(bytes + used, '\n', n - used);
        size_t len = end ? (size_t)(end - bytes) - used : n - used;
        if (!end && (used || n < CHUNK_BYTES) && !file->is_skipping)
            break; /* the line is not finished, or begins a chunk of its own */
        if (!end) {
            if (!file->is_skipping)
                invalid_tell(l, file->line + lines + 1, "a line of more than 1 MiB");
            file->is_skipping = true;
            used = n;
            break;
        }
        if (file->is_skipping)
            file->is_skipping = false;
        else if (line_take(l, (struct str){bytes + used, len}, file->offset + used,
                           file->line + lines + 1))
            break; /* no memory, or another batch: again later */
        used += len + 1;
        lines++;
    }
    *ret_lines = lines;
    return used;
}

/* Makes the lines of a chunk durable together with where they end. */
static bool chunk_commit(struct follow *f, struct lines *l, size_t used, uint64_t lines)
{
    struct file *file = l->file;
    struct span_batch spans = {.spans = l->spans, .n = l->n_spans};
    char name[POSITION_NAME_SIZE], value[POSITION_VALUE_SIZE];
    struct mark mark;
    uint64_t offset = file->offset + used;
    if (!mark_extend(file, f->chunk, used, &mark)) /* it was cut meanwhile, and is told by that */
        mark = file->mark;
    struct records_position position = {
        position_name(name, file->dev, file->ino),
        position_value(value, file, offset, file->line + lines, &mark)};
    const struct records_batch batch = {
        .logs = l->logs, .n_logs = l->n_logs, .positions = &position, .n_positions = 1};
    if ((spans.n && !commit_spans(f, &spans)) || !commit_records(f, &batch))
        return false;
    f->is_full_told = false;
    file->offset = offset;
    file->line += lines;
    file->mark = mark;
    count(&f->bytes, used);
    count(&f->spans, l->n_spans);
    count(&f->logs, l->n_logs);
    count(&f->passed, l->n_passed);
    count(&f->invalid, l->n_invalid);
    count(&f->repeated, l->n_repeated);
    return true;
}

/* False: nothing more to read now. */
static bool chunk_read(struct follow *f, struct file *file, size_t n)
{
    struct lines *l = calloc(1, sizeof *l);
    bool goes_on = false, was_skipping = file->is_skipping;
    uint64_t lines = 0, was_id = file->id;
    if (!l)
        return false;
    *l = (struct lines){.f = f,
                        .file = file,
                        .scope = {.name = STR(""), .version = STR(""), .schema_url = STR("")},
                        .now_ns = clock_realtime_ns()};
    l->spans = arena_array(&l->arena, BATCH_LINES_MAX, sizeof *l->spans);
    l->logs = arena_array(&l->arena, BATCH_LINES_MAX, sizeof *l->logs);
    size_t used = l->spans && l->logs ? chunk_take(l, f->chunk, n, &lines) : 0;
    if (used)
        goes_on = chunk_commit(f, l, used, lines);
    if (!goes_on) {
        file->is_skipping = was_skipping;
        file->id = was_id;
    }
    stored_spans_done(&l->stored);
    store_view_free(l->view);
    arena_done(&l->arena);
    free(l);
    return goes_on;
}

/* ---- files ---- */

static void file_free(struct file *file)
{
    if (file->fd >= 0)
        close(file->fd);
    free(file->path);
    free(file);
}

static struct file *file_find(const struct follow *f, dev_t dev, ino_t ino)
{
    struct file *file = f->files;
    while (file && (file->dev != dev || file->ino != ino))
        file = file->next;
    return file;
}

static int open_regular(const char *path, struct stat *ret)
{
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    if (fd >= 0 && (fstat(fd, ret) != 0 || !S_ISREG(ret->st_mode))) {
        close(fd);
        return -1;
    }
    return fd;
}

/* Takes the descriptor, also when it fails. */
static struct file *file_add(struct follow *f, int fd, const struct stat *st, const char *path)
{
    struct file *file = f->n < FILES_MAX ? calloc(1, sizeof *file) : NULL;
    char *copy = file ? strdup(path) : NULL;
    if (!copy) {
        if (f->n >= FILES_MAX && !f->is_full_told)
            log_warn("more than %d files match; %s waits", FILES_MAX, path);
        free(file);
        close(fd);
        return NULL;
    }
    *file = (struct file){.next = f->files,
                          .fd = fd,
                          .dev = st->st_dev,
                          .ino = st->st_ino,
                          .path = copy,
                          .quiet_since_ns = clock_monotonic_ns()};
    f->files = file;
    f->n++;
    atomic_store(&f->n_files, f->n);
    return file;
}

static void file_resume(struct file *file, const struct position *p)
{
    file->offset = p->offset;
    file->line = p->line;
    file->id = p->id;
    file->mark = p->mark;
    file->is_skipping = p->is_skipping;
    file->check_until = p->offset + RESUME_CHECK_BYTES;
    free(file->path);
    file->path = strdup(p->path);
}

/* Looks among the positions for one of this inode, and for one whose bytes this file begins with. */
struct search {
    struct follow *f;
    int fd;
    const struct stat *st;
    struct position own, original;
    bool has_own, has_original;
};

static bool search_position(void *arg, const struct position *p)
{
    struct search *s = arg;
    if (p->dev == s->st->st_dev && p->ino == s->st->st_ino) {
        s->has_own = true;
        s->own = *p;
    } else if (p->offset && p->offset <= (uint64_t)s->st->st_size &&
               (!s->has_original || p->offset > s->original.offset) &&
               mark_fits(s->fd, p->offset, &p->mark)) {
        s->has_original = true;
        s->original = *p;
    }
    return true;
}

static void rest_find(struct follow *f, const struct position *p);

/* When a file was made, since the epoch; 0 where the file system does not know. */
static uint64_t made_ns(int fd)
{
    struct statx x;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_BTIME, &x) != 0 || !(x.stx_mask & STATX_BTIME))
        return 0;
    return (uint64_t)x.stx_btime.tv_sec * NS_PER_S + x.stx_btime.tv_nsec;
}

/* The kernel's clock for files ticks a few milliseconds behind. */
enum { FILE_CLOCK_MS = 50 };

static bool was_there_before(const struct follow *f, int fd)
{
    return made_ns(fd) < f->started_ns + FILE_CLOCK_MS * NS_PER_MS;
}

/* A file that was not open: where to begin. */
static struct file *file_open(struct follow *f, const char *path)
{
    struct stat st;
    int fd = open_regular(path, &st);
    if (fd < 0)
        return NULL;
    struct file *file = file_find(f, st.st_dev, st.st_ino);
    if (file) { /* a hard link, or a symbolic one */
        close(fd);
        return file;
    }
    struct search *s = calloc(1, sizeof *s);
    if (!s || !(file = file_add(f, fd, &st, path))) {
        if (!s)
            close(fd);
        free(s);
        return NULL;
    }
    *s = (struct search){.f = f, .fd = fd, .st = &st};
    positions_each(f, search_position, s);
    if (s->has_own && s->own.offset <= (uint64_t)st.st_size &&
        mark_fits(fd, s->own.offset, &s->own.mark)) {
        file_resume(file, &s->own);
    } else {
        if (s->has_original) { /* a copy: the original may be read still, and both are compared */
            struct file *original = file_find(f, s->original.dev, s->original.ino);
            file_resume(file, &s->original);
            file->check_until = UINT64_MAX;
            if (original)
                original->check_until = UINT64_MAX;
        } else if (s->has_own || was_there_before(f, fd))
            file->check_until = RESUME_CHECK_BYTES; /* its first batch may be stored already */
        if (s->has_own)                             /* cut, or used again, while nobody looked */
            rest_find(f, &s->own);
    }
    free(s);
    return file;
}

/* ---- what was not read of a file that is not where it was ---- */

struct rest {
    char path[PATH_MAX];
    bool is_same; /* the inode, renamed; else a copy */
};

static bool rest_is(const struct position *p, const char *path, bool *ret_is_same)
{
    struct stat st;
    int fd = open_regular(path, &st);
    if (fd < 0)
        return false;
    *ret_is_same = st.st_dev == p->dev && st.st_ino == p->ino;
    bool is = p->offset ? (uint64_t)st.st_size >= p->offset && mark_fits(fd, p->offset, &p->mark)
                        : *ret_is_same;
    close(fd);
    return is;
}

/* The file that begins with what was read of `p`, in the directory where it was. */
static bool rest_search(const struct position *p, struct rest *ret)
{
    char dir[PATH_MAX];
    snprintf(dir, sizeof dir, "%s", p->path);
    char *slash = strrchr(dir, '/');
    if (slash)
        slash[slash == dir] = '\0';
    else
        strcpy(dir, ".");
    DIR *entries = opendir(dir);
    bool found = false;
    for (struct dirent *e; entries && !found && (e = readdir(entries));) {
        int n = snprintf(ret->path, sizeof ret->path, "%s/%s", dir, e->d_name);
        if (e->d_name[0] != '.' && n > 0 && (size_t)n < sizeof ret->path)
            found = rest_is(p, ret->path, &ret->is_same);
    }
    if (entries)
        closedir(entries);
    return found;
}

static void position_forget(struct follow *f, dev_t dev, ino_t ino)
{
    char name[POSITION_NAME_SIZE];
    const struct records_position gone = {position_name(name, dev, ino), STR("")};
    const struct records_batch batch = {.positions = &gone, .n_positions = 1};
    (void)commit_records(f, &batch);
}

/* Opens what has the lines behind a position, when there is such a file. */
static void rest_find(struct follow *f, const struct position *p)
{
    struct rest *rest = calloc(1, sizeof *rest);
    if (!rest)
        return;
    if (!rest_search(p, rest)) {
        if (p->offset) {
            log_warn("%s was cut or replaced, and no copy of it is there: lines behind byte %llu "
                     "may be lost",
                     p->path, (unsigned long long)p->offset);
            count(&f->lost, 1);
        }
    } else {
        struct stat st;
        int fd = open_regular(rest->path, &st);
        if (fd >= 0 && file_find(f, st.st_dev, st.st_ino)) {
            close(fd);
        } else if (fd >= 0) {
            struct file *file = file_add(f, fd, &st, p->path);
            struct search *s = calloc(1, sizeof *s);
            if (file && s) {
                *s = (struct search){.f = f, .fd = fd, .st = &st};
                positions_each(f, search_position, s);
                /* It may have been read further already. */
                bool is_further = s->has_own && s->own.offset >= p->offset &&
                                  s->own.offset <= (uint64_t)st.st_size &&
                                  mark_fits(fd, s->own.offset, &s->own.mark);
                file_resume(file, is_further ? &s->own : p);
            }
            free(s);
        }
    }
    free(rest);
}

static struct position file_position(const struct file *file)
{
    struct position p = {.dev = file->dev,
                         .ino = file->ino,
                         .offset = file->offset,
                         .line = file->line,
                         .id = file->id,
                         .mark = file->mark,
                         .is_skipping = file->is_skipping};
    snprintf(p.path, sizeof p.path, "%s", file->path);
    return p;
}

/* The file is shorter than it was read, or says something else: it was cut. What was not read of it is
 * in a copy, whose position becomes durable together with the new beginning of this one. */
static bool file_was_cut(struct follow *f, struct file *file)
{
    struct position before = file_position(file);
    struct file *newest = f->files;
    rest_find(f, &before);
    struct file *copy = f->files != newest ? f->files : NULL;
    file->offset = file->line = file->id = 0;
    file->is_skipping = false;
    file->check_until = 0;
    file->mark = (struct mark){0};
    char names[2][POSITION_NAME_SIZE], values[2][POSITION_VALUE_SIZE];
    struct records_position positions[2] = {{position_name(names[0], file->dev, file->ino),
                                             position_value(values[0], file, 0, 0, &file->mark)}};
    if (copy)
        positions[1] = (struct records_position){
            position_name(names[1], copy->dev, copy->ino),
            position_value(values[1], copy, copy->offset, copy->line, &copy->mark)};
    const struct records_batch batch = {.positions = positions, .n_positions = copy ? 2 : 1};
    return commit_records(f, &batch);
}

/* ---- a round ---- */

/* Reads what there is. False: we stop. */
static bool file_read(struct follow *f, struct file *file)
{
    for (;;) {
        struct stat st;
        if (is_stopping(f))
            return false;
        if (fstat(file->fd, &st) != 0)
            return true;
        uint64_t size = (uint64_t)st.st_size;
        if (size == file->offset)
            return true;
        bool was_cut = size < file->offset;
        ssize_t n = was_cut ? 0 : pread(file->fd, f->chunk, CHUNK_BYTES, (off_t)file->offset);
        /* After the bytes were read: those are what stood behind what was read before. */
        was_cut |= file->offset && !mark_fits(file->fd, file->offset, &file->mark);
        if (was_cut) {
            if (!file_was_cut(f, file))
                return false;
            continue;
        }
        if (n <= 0)
            return true;
        if (size != file->size_seen)
            file->quiet_since_ns = clock_monotonic_ns();
        file->size_seen = size;
        uint64_t before = file->offset;
        if (!chunk_read(f, file, (size_t)n) || file->offset == before)
            return !is_stopping(f);
    }
}

/* ---- files that came and were renamed between two looks ---- */

static bool is_compressed(const char *name)
{
    static const char *const ends[] = {".gz", ".xz", ".zst", ".bz2", ".lz4", ".tmp"};
    size_t n = strlen(name);
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (n > strlen(ends[i]) && !strcmp(name + n - strlen(ends[i]), ends[i]))
            return true;
    return false;
}

struct known {
    const struct stat *st;
    bool is;
};

static bool known_position(void *arg, const struct position *p)
{
    struct known *k = arg;
    k->is = p->dev == k->st->st_dev && p->ino == k->st->st_ino;
    return !k->is;
}

/* Made since we follow the pattern, and never seen. A file system that does not know when a file was
 * made has none. */
static bool is_missed(struct follow *f, const char *path, uint64_t since_ns)
{
    struct stat st;
    int fd = open_regular(path, &st);
    if (fd < 0)
        return false;
    bool is_new = !file_find(f, st.st_dev, st.st_ino) &&
                  made_ns(fd) + FILE_CLOCK_MS * NS_PER_MS >= since_ns;
    close(fd);
    if (!is_new)
        return false;
    struct known k = {&st, false};
    positions_each(f, known_position, &k);
    return !k.is;
}

/* A file is renamed by appending to its name: what matched the pattern for a moment only. */
static void siblings_match(struct follow *f, uint64_t *dir_seen_ns, const char *path,
                           uint64_t since_ns)
{
    char dir[PATH_MAX], sibling[PATH_MAX];
    struct stat st;
    snprintf(dir, sizeof dir, "%s", path);
    char *name = strrchr(dir, '/');
    if (!name)
        return;
    *name++ = '\0';
    size_t len = strlen(name);
    if (stat(*dir ? dir : "/", &st) != 0)
        return;
    uint64_t changed = (uint64_t)st.st_mtim.tv_sec * NS_PER_S + (uint64_t)st.st_mtim.tv_nsec;
    if (changed == *dir_seen_ns)
        return;
    /* Within one tick of its clock it may change again and not show it. */
    bool is_sure = changed + FILE_CLOCK_MS * NS_PER_MS < clock_realtime_ns();
    *dir_seen_ns = is_sure ? changed : 0;
    DIR *entries = opendir(*dir ? dir : "/");
    for (struct dirent *e; entries && (e = readdir(entries));) {
        if (strncmp(e->d_name, name, len) != 0 ||
            (e->d_name[len] != '.' && e->d_name[len] != '-') || is_compressed(e->d_name) ||
            snprintf(sibling, sizeof sibling, "%s/%s", dir, e->d_name) >= (int)sizeof sibling)
            continue;
        if (is_missed(f, sibling, since_ns))
            (void)file_open(f, sibling);
    }
    if (entries)
        closedir(entries);
}

static void patterns_match(struct follow *f)
{
    for (struct file *file = f->files; file; file = file->next)
        file->is_matched = false;
    for (size_t i = 0; i < f->n_patterns; i++) {
        glob_t found;
        if (glob(f->patterns[i], GLOB_NOSORT, NULL, &found) != 0) {
            /* It was there, perhaps, and is renamed already. */
            siblings_match(f, &f->dir_seen_ns[i], f->patterns[i], f->since_ns[i]);
            continue;
        }
        for (size_t j = 0; j < found.gl_pathc && !is_stopping(f); j++) {
            struct stat st;
            const char *path = found.gl_pathv[j];
            if (stat(path, &st) != 0 || !S_ISREG(st.st_mode))
                continue;
            struct file *file = file_find(f, st.st_dev, st.st_ino);
            if (!file)
                file = file_open(f, path);
            if (file) {
                file->is_matched = true;
                siblings_match(f, &file->dir_seen_ns, path, f->since_ns[i]);
            }
        }
        globfree(&found);
    }
    f->globbed_ns = clock_monotonic_ns();
}

/* Closes files that are renamed or gone, and quiet. */
static void files_close(struct follow *f)
{
    uint64_t now = clock_monotonic_ns();
    for (struct file **at = &f->files; *at;) {
        struct file *file = *at;
        struct stat st;
        uint64_t quiet_ms = (now - file->quiet_since_ns) / NS_PER_MS;
        bool is_gone = fstat(file->fd, &st) == 0 && st.st_nlink == 0;
        if (file->is_matched || quiet_ms < (is_gone ? DELETED_IDLE_MS : ROTATED_IDLE_MS)) {
            at = &file->next;
            continue;
        }
        if (is_gone)
            position_forget(f, file->dev, file->ino);
        *at = file->next;
        f->n--;
        file_free(file);
    }
    atomic_store(&f->n_files, f->n);
}

static void round_do(struct follow *f)
{
    if (clock_monotonic_ns() - f->globbed_ns >= GLOB_MS * NS_PER_MS)
        patterns_match(f);
    /* A file that is found on the way comes to the front, and is read in the next round. */
    for (struct file *file = f->files; file; file = file->next)
        if (!file_read(f, file))
            return;
    files_close(f);
}

/* ---- at the start: files that were renamed while nobody looked, and those that are gone ---- */

struct left {
    struct position *items;
    size_t n, room;
};

static bool left_add(void *arg, const struct position *p)
{
    struct left *l = arg;
    if (l->n == l->room) {
        size_t room = l->room ? 2 * l->room : 16;
        struct position *items = realloc(l->items, room * sizeof *items);
        if (!items)
            return false;
        l->items = items;
        l->room = room;
    }
    l->items[l->n++] = *p;
    return true;
}

static void renamed_find(struct follow *f)
{
    struct left left = {0};
    struct rest *rest = calloc(1, sizeof *rest);
    positions_each(f, left_add, &left);
    for (size_t i = 0; rest && i < left.n && !is_stopping(f); i++) {
        const struct position *p = &left.items[i];
        if (file_find(f, p->dev, p->ino))
            continue;
        if (rest_search(p, rest))
            rest_find(f, p);
        else
            position_forget(f, p->dev, p->ino);
    }
    free(left.items);
    free(rest);
}

/* ---- the thread ---- */

static void watch(struct follow *f)
{
    for (size_t i = 0; i < f->n_patterns && f->inotify_fd >= 0; i++) {
        char dir[PATH_MAX];
        snprintf(dir, sizeof dir, "%s", f->patterns[i]);
        char *slash = strrchr(dir, '/');
        if (slash)
            slash[slash == dir] = '\0';
        if (slash && strpbrk(dir, "*?["))
            continue; /* looked at by time alone */
        inotify_add_watch(f->inotify_fd, slash ? dir : ".",
                          IN_MODIFY | IN_CREATE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE);
    }
}

static void wait_for_change(struct follow *f)
{
    struct pollfd fds[] = {{.fd = f->wake_fd, .events = POLLIN},
                           {.fd = f->inotify_fd, .events = POLLIN}};
    if (poll(fds, 2, (int)f->poll_ms) > 0 && (fds[1].revents & POLLIN)) {
        char events[4096];
        while (read(f->inotify_fd, events, sizeof events) > 0)
            ;
    }
}

/* Since when each pattern is followed: now, when it never was. */
static void since_get(struct follow *f)
{
    uint64_t now = f->started_ns;
    for (size_t i = 0; i < f->n_patterns; i++) {
        struct arena arena = ARENA_INIT;
        struct str value = STR("");
        char name[PATH_MAX + 16], text[24];
        snprintf(name, sizeof name, "follow-since:%.*s", PATH_MAX - 1, f->patterns[i]);
        f->since_ns[i] = now;
        if (!records_position(f->records, str_from(name), &arena, &value) &&
            !str_to_u64(value, &f->since_ns[i])) {
            snprintf(text, sizeof text, "%llu", (unsigned long long)now);
            const struct records_position p = {str_from(name), str_from(text)};
            const struct records_batch batch = {.positions = &p, .n_positions = 1};
            (void)commit_records(f, &batch);
        }
        arena_done(&arena);
    }
}

static void *follow_thread(void *arg)
{
    struct follow *f = arg;
    watch(f);
    since_get(f);
    patterns_match(f);
    renamed_find(f);
    while (!is_stopping(f)) {
        round_do(f);
        wait_for_change(f);
    }
    return NULL;
}

static void follow_free(struct follow *f)
{
    while (f->files) {
        struct file *next = f->files->next;
        file_free(f->files);
        f->files = next;
    }
    for (size_t i = 0; f->patterns && i < f->n_patterns; i++)
        free(f->patterns[i]);
    free(f->patterns);
    free(f->since_ns);
    free(f->dir_seen_ns);
    free(f->chunk);
    if (f->inotify_fd >= 0)
        close(f->inotify_fd);
    if (f->wake_fd >= 0)
        close(f->wake_fd);
    free(f);
}

int follow_start(const struct follow_options *o, struct follow **ret,
                 struct error_detail *ret_detail)
{
    if (o->n_patterns > PATTERNS_MAX)
        return error_set(ret_detail, ERR_TOO_LARGE, 0, "more than %d patterns of files",
                         PATTERNS_MAX);
    struct follow *f = calloc(1, sizeof *f);
    if (!f)
        return error_set(ret_detail, ERR_NOMEM, 0, "out of memory");
    f->store = o->store;
    f->records = o->records;
    f->redaction = o->redaction;
    f->started_ns = clock_realtime_ns(); /* what is made from now on is followed */
    f->poll_ms = o->poll_ms ? o->poll_ms : POLL_MS;
    f->inotify_fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC); /* without it time alone */
    f->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    f->chunk = malloc(CHUNK_BYTES);
    f->patterns = calloc(o->n_patterns + 1, sizeof *f->patterns);
    f->since_ns = calloc(o->n_patterns + 1, sizeof *f->since_ns);
    f->dir_seen_ns = calloc(o->n_patterns + 1, sizeof *f->dir_seen_ns);
    char *cwd = getcwd(NULL, 0);
    bool ok = f->wake_fd >= 0 && f->chunk && f->patterns && f->since_ns && f->dir_seen_ns && cwd;
    for (; ok && f->n_patterns < o->n_patterns; f->n_patterns++) {
        const char *pattern = o->patterns[f->n_patterns];
        char **to = &f->patterns[f->n_patterns];
        ok = pattern[0] == '/' ? (*to = strdup(pattern)) != NULL
                               : asprintf(to, "%s/%s", cwd, pattern) > 0;
    }
    free(cwd);
    if (!ok || pthread_create(&f->thread, NULL, follow_thread, f)) {
        follow_free(f);
        return error_set(ret_detail, ERR_NOMEM, 0, "files cannot be followed: out of memory");
    }
    *ret = f;
    return 0;
}

void follow_stop(struct follow *f)
{
    if (!f)
        return;
    uint64_t one = 1;
    atomic_store(&f->stopping, true);
    (void)!write(f->wake_fd, &one, sizeof one);
    pthread_join(f->thread, NULL);
    follow_free(f);
}

void follow_stats(const struct follow *f, struct follow_stats *ret)
{
    *ret = (struct follow_stats){
        .files = atomic_load(&f->n_files),
        .bytes = atomic_load(&f->bytes),
        .spans = atomic_load(&f->spans),
        .logs = atomic_load(&f->logs),
        .passed = atomic_load(&f->passed),
        .invalid = atomic_load(&f->invalid),
        .repeated = atomic_load(&f->repeated),
        .lost = atomic_load(&f->lost),
    };
}
