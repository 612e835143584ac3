/* A Chrome trace file that is whole after every write: what is new is written over the tail, with a
 * new tail after it. (A kill -9 in the middle of a write, which the kernel then cuts at a page, leaves
 * a file that ends early; each event is a line, and readers of this format take the whole ones.) When the disk is full the old tail is put back, for which there is room; what
 * did not fit is lost, counted, and the count is in the next tail.
 *
 * When somebody removes the file, or the program closes our descriptor, a new file is begun. */
#include "base/clock.h"
#include "sdk/exporter.h"
#include "sdk/own_fd.h"
#include "wire/chrome_place.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define THREADS_NAMED_MAX 1024
#define PATH_BYTES 4200
/* Text that is still in the caches when it is written. */
#define OPEN_BYTES_MAX (192u << 10)

struct local {
    struct exporter exporter;
    const struct config *config;
    struct own_fd fd;
    off_t end;          /* of the events; the tail begins here */
    struct buf text;    /* spans that wait for local_settle */
    size_t n_open;      /* so many */
    struct buf scratch; /* what is written at once */
    struct chrome_process process;
    char session_id[17];
    uint32_t named[THREADS_NAMED_MAX];
    size_t n_named;
    uint32_t last_named; /* the spans of a thread come in a row */
    _Atomic bool told_write;
    struct pug_counts totals; /* of the tail that was written last */
};

static bool write_at(int fd, const char *bytes, size_t n, off_t at)
{
    while (n) {
        ssize_t done = pwrite(fd, bytes, n, at);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0) {
            if (done == 0)
                errno = ENOSPC;
            return false;
        }
        bytes += done;
        n -= (size_t)done;
        at += done;
    }
    return true;
}

static void tail_put(struct local *l, const struct pug_counts *c, struct buf *out)
{
    const struct chrome_total totals[] = {
        {"exported", c->exported},
        {"lost_ring_full", c->lost_ring_full},
        {"lost_depth", c->lost_depth},
        {"lost_no_lane", c->lost_no_lane},
        {"lost_interrupt", c->lost_interrupt},
        {"lost_export", c->lost_export},
        {"lost_memory", c->lost_memory},
        {"lost_details", c->lost_details},
    };
    (void)l;
    chrome_tail(totals, sizeof totals / sizeof totals[0], out);
}

/* A thread's name, when it is seen first and has one. */
static void name_thread(struct local *l, uint32_t tid)
{
    char path[64], name[32];
    if (tid == l->last_named)
        return;
    l->last_named = tid;
    for (size_t i = 0; i < l->n_named; i++)
        if (l->named[i] == tid)
            return;
    if (l->n_named == THREADS_NAMED_MAX)
        return;
    l->named[l->n_named++] = tid;
    snprintf(path, sizeof path, "/proc/self/task/%u/comm", tid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t n = read(fd, name, sizeof name);
    close(fd);
    if (n > 0 && name[n - 1] == '\n')
        n--;
    if (n > 0)
        chrome_thread_name(&l->process, tid, (struct str){name, (size_t)n}, &l->text);
}

/* As mkdir -p. */
static int make_dirs(const char *path)
{
    char part[4096];
    size_t n = strlen(path);
    if (n >= sizeof part)
        return ENAMETOOLONG;
    for (size_t i = 1; i <= n; i++) {
        if (path[i] != '/' && path[i] != '\0')
            continue;
        memcpy(part, path, i);
        part[i] = '\0';
        if (mkdir(part, 0777) != 0 && errno != EEXIST)
            return errno;
    }
    return 0;
}

static int file_new(struct local *l, char path[PATH_BYTES], struct error_detail *problem)
{
    char when[CLOCK_RFC3339_SIZE], stamp[24];
    uint8_t random[8] = {0};
    const char *dir = l->config->trace_dir;
    int e = make_dirs(dir);
    if (e)
        return error_set(problem, err_from_errno(e), 0, "cannot make the directory %.120s: %s", dir,
                         strerror(e));
    if (getrandom(random, sizeof random, GRND_NONBLOCK) != (ssize_t)sizeof random) {
        uint64_t other = clock_monotonic_ns() ^ (uint64_t)getpid() << 40;
        memcpy(random, &other, sizeof random);
    }
    hex_put(l->session_id, random, sizeof random);
    clock_rfc3339(when, clock_realtime_ns());
    /* 20260102T030405Z */
    snprintf(stamp, sizeof stamp, "%.4s%.2s%.2sT%.2s%.2s%.2sZ", when, when + 5, when + 8, when + 11,
             when + 14, when + 17);
    snprintf(path, PATH_BYTES, "%s/%s_%s.json", dir, l->session_id, stamp);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd >= 0)
        l->fd = own_fd_take(fd);
    if (l->fd.fd < 0)
        return error_set(problem, err_from_errno(errno), 0, "cannot create %.150s: %s", path,
                         strerror(errno));
    return 0;
}

/* A new file with a head and a tail. */
static int file_begin(struct local *l, struct error_detail *problem)
{
    char path[PATH_BYTES];
    int err = file_new(l, path, problem);
    if (err)
        return err;
    l->process.session_id = str_from(l->session_id);
    l->n_named = l->last_named = 0;
    buf_clear(&l->scratch);
    chrome_head(&l->process, &l->scratch);
    l->end = (off_t)l->scratch.len;
    tail_put(l, &l->totals, &l->scratch);
    if (buf_ok(&l->scratch) && write_at(l->fd.fd, l->scratch.ptr, l->scratch.len, 0))
        return 0;
    err = buf_ok(&l->scratch) ? errno : ENOMEM;
    own_fd_close(&l->fd);
    (void)unlink(path); /* it says nothing */
    return error_set(problem, err_from_errno(err), 0, "cannot write to the trace file: %s",
                     strerror(err));
}

/* The file if somebody can open it, or a new one. */
static bool file_ready(struct local *l)
{
    struct stat st;
    struct error_detail problem;
    if (own_fd_ok(&l->fd) && fstat(l->fd.fd, &st) == 0 && st.st_nlink > 0)
        return true;
    own_fd_close(&l->fd);
    if (file_begin(l, &problem) == 0)
        return true;
    exporter_tell(l->config, &l->told_write,
                  "the trace file has gone, and no other can be begun: %s", problem.message);
    return false;
}

static void local_take(struct exporter *e, const struct taken_batch *batch,
                       struct exporter_counts *counts)
{
    struct local *l = (struct local *)e;
    (void)counts; /* they are, when they are written */
    for (size_t i = 0; i < batch->spans.n; i++) {
        const struct taken *t = &batch->taken[i];
        if (t->thread)
            name_thread(l, t->thread);
        chrome_span(&l->process, &batch->spans.spans[i], t->thread, t->handle, &l->text);
    }
    l->n_open += batch->spans.n;
    e->open_bytes = l->text.len;
}

static void *local_prepare(struct exporter *e, const struct plain_place *place)
{
    return chrome_place_new(&((struct local *)e)->process, place);
}

static bool local_take_plain(struct exporter *e, void *place, const struct plain_span *span)
{
    struct local *l = (struct local *)e;
    if (span->thread)
        name_thread(l, span->thread);
    if (!chrome_place_encode(place, &l->process, span, &l->text))
        return false;
    l->n_open++;
    e->open_bytes = l->text.len;
    return true;
}

/* The tail goes back to where it was, with `after` in it. */
static int tail_restore(struct local *l, const struct pug_counts *after)
{
    l->totals = *after;
    buf_clear(&l->scratch);
    tail_put(l, after, &l->scratch);
    if (buf_ok(&l->scratch) && write_at(l->fd.fd, l->scratch.ptr, l->scratch.len, l->end) &&
        ftruncate(l->fd.fd, l->end + (off_t)l->scratch.len) == 0)
        return 0;
    return errno;
}

static void local_settle(struct exporter *e, struct exporter_counts *counts,
                         const struct pug_counts *totals)
{
    struct local *l = (struct local *)e;
    struct pug_counts after = *totals;
    size_t events = l->text.len, n = l->n_open;
    l->n_open = e->open_bytes = 0;
    if (!n)
        return;
    if (!file_ready(l)) {
        buf_clear(&l->text);
        atomic_fetch_add(&counts->lost_export, n);
        return;
    }
    after.exported += n;
    tail_put(l, &after, &l->text);
    if (buf_ok(&l->text) && write_at(l->fd.fd, l->text.ptr, l->text.len, l->end)) {
        l->totals = after;
        l->end += (off_t)events;
        buf_clear(&l->text);
        atomic_fetch_add(&counts->exported, n);
        return;
    }
    int e_write = buf_ok(&l->text) ? errno : ENOMEM;
    buf_clear(&l->text);
    atomic_fetch_add(&counts->lost_export, n);
    after.exported -= n;
    after.lost_export += n;
    int e_tail = tail_restore(l, &after);
    exporter_tell(l->config, &l->told_write,
                  "%zu spans were not written to the trace file: %s (this is told once; the file "
                  "and pug_counts_read() have the sum)",
                  n, strerror(e_tail ? e_tail : e_write));
}

/* ---- numbers ---- */

/* What is in l->scratch is written over the tail, with the tail after it. Numbers that find no room
 * are left out: the next ones come. */
static void text_write(struct local *l)
{
    size_t events = l->scratch.len;
    tail_put(l, &l->totals, &l->scratch);
    if (buf_ok(&l->scratch) && write_at(l->fd.fd, l->scratch.ptr, l->scratch.len, l->end)) {
        l->end += (off_t)events;
        return;
    }
    int e_write = buf_ok(&l->scratch) ? errno : ENOMEM, e_tail = tail_restore(l, &l->totals);
    exporter_tell(l->config, &l->told_write, "metrics were not written to the trace file: %s",
                  strerror(e_tail ? e_tail : e_write));
}

static void local_take_event(struct exporter *e, uint64_t time_ns, struct str name,
                             const struct attrs *attrs)
{
    struct local *l = (struct local *)e;
    if (!file_ready(l))
        return;
    buf_clear(&l->scratch);
    chrome_instant(&l->process, name, time_ns, attrs, &l->scratch);
    for (uint32_t i = 0; i < attrs->n; i++) /* each on a scale of its own */
        chrome_counter(&l->process, attrs->items[i].key, time_ns,
                       &(struct attrs){&attrs->items[i], 1, 0}, &l->scratch);
    text_write(l);
}

static struct value value_of(const struct metric_point *p)
{
    if (p->is_real)
        return (struct value){.type = VALUE_DOUBLE, .real = p->real};
    return (struct value){.type = VALUE_INT, .integer = p->integer};
}

/* "channel.sent status": a track for each metric and each value of its attributes. */
static void counter_put(struct local *l, const struct metric *m, const struct metric_point *p)
{
    char name[256];
    struct attr values[3];
    uint32_t n = 0;
    int len = snprintf(name, sizeof name, "%.*s", STR_ARG(m->name));
    for (uint32_t i = 0; i < p->attrs.n && len >= 0 && (size_t)len < sizeof name; i++)
        if (p->attrs.items[i].value.type == VALUE_STRING)
            len += snprintf(name + len, sizeof name - (size_t)len, " %.*s",
                            STR_ARG(p->attrs.items[i].value.string));
    if (m->type != METRIC_EXP_HISTOGRAM) {
        values[n++] = (struct attr){STR("value"), value_of(p)};
    } else {
        const struct metric_exp_histogram *h = &p->histogram;
        values[n++] = (struct attr){
            STR("count"), {.type = VALUE_INT, .integer = (int64_t)(h->count - h->zero_count)}};
        values[n++] = (struct attr){STR("sum"), {.type = VALUE_DOUBLE, .real = h->sum}};
        values[n++] = (struct attr){STR("max"), {.type = VALUE_DOUBLE, .real = h->max}};
    }
    chrome_counter(&l->process, str_from(name), p->time_ns, &(struct attrs){values, n, 0},
                   &l->scratch);
}

static void local_take_metrics(struct exporter *e, const struct metric_batch *batch)
{
    struct local *l = (struct local *)e;
    if (!file_ready(l))
        return;
    buf_clear(&l->scratch);
    for (size_t i = 0; i < batch->n; i++)
        for (size_t k = 0; k < batch->metrics[i].n_points; k++)
            counter_put(l, &batch->metrics[i], &batch->metrics[i].points[k]);
    text_write(l);
}

static bool local_flush(struct exporter *e, uint64_t deadline_ns, bool again)
{
    (void)e;
    (void)deadline_ns;
    (void)again;
    return true; /* what was taken was written */
}

static void local_close(struct exporter *e, uint64_t deadline_ns)
{
    struct local *l = (struct local *)e;
    (void)deadline_ns;
    own_fd_close(&l->fd);
    buf_done(&l->text);
    buf_done(&l->scratch);
    free(l);
}

int export_local_open(const struct config *c, struct exporter **ret,
                      struct error_detail *ret_problem)
{
    struct local *l = calloc(1, sizeof *l);
    if (!l)
        return ERR_NOMEM;
    l->exporter = (struct exporter){.take = local_take,
                                    .prepare = local_prepare,
                                    .take_plain = local_take_plain,
                                    .settle = local_settle,
                                    .gathers = true,
                                    .open_bytes_max = OPEN_BYTES_MAX,
                                    .take_metrics = local_take_metrics,
                                    .take_event = local_take_event,
                                    .flush = local_flush,
                                    .close = local_close};
    l->config = c;
    l->fd = OWN_FD_NONE;
    l->totals.size = sizeof l->totals;
    /* Counted from the machine's start: small enough for a double, and the same for all processes
     * of the machine. */
    l->process = (struct chrome_process){.pid = (uint32_t)getpid(),
                                         .base_ns = clock_realtime_ns() - clock_monotonic_ns(),
                                         .name = str_from(c->service_name)};
    int err = file_begin(l, ret_problem);
    if (err)
        local_close(&l->exporter, 0);
    else
        *ret = &l->exporter;
    return err;
}

/* ---- discard ---- */

static void discard_take(struct exporter *e, const struct taken_batch *batch,
                         struct exporter_counts *counts)
{
    (void)e;
    (void)batch;
    (void)counts;
}

static void discard_close(struct exporter *e, uint64_t deadline_ns)
{
    (void)e;
    (void)deadline_ns;
}

int export_discard_open(struct exporter **ret)
{
    static struct exporter discard = {
        .take = discard_take, .flush = local_flush, .close = discard_close};
    *ret = &discard;
    return 0;
}
