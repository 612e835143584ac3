/* Spans and metrics as lines of JSON on standard output: docs/formats/lines.md.
 *
 * 1. The program's own descriptor is never made non-blocking, for it is shared with the program and often
 *    with its parent. A pipe or a terminal is opened anew through /proc, which gives a description
 *    of our own; a socket is written with MSG_DONTWAIT; a file does not make anybody wait.
 * 2. A line is written whole or not at all. When one was begun and the reader stops, its rest is
 *    kept and goes first when the reader comes back.
 * 3. When nobody reads, a batch waits WAIT_NS, then its lines are dropped and counted; the next ones
 *    do not wait, until something can be written again.
 * 4. A reader that has gone (EPIPE) is for good. The signal stays with our thread, where it is
 *    blocked. */
#include "base/clock.h"
#include "sdk/exporter.h"
#include "sdk/own_fd.h"
#include "wire/span_json.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define WAIT_NS (200 * NS_PER_MS)

enum way { WAY_FILE, WAY_NONBLOCKING, WAY_SOCKET, WAY_POLLED };

struct lines {
    struct exporter exporter;
    const struct config *config;
    struct exporter_counts *counts;
    struct own_fd out;
    enum way way;
    struct buf text;
    size_t *ends; /* of the lines in `text` */
    size_t n_ends, ends_room;
    struct buf rest; /* of a line that was begun, or the first line of all */
    size_t rest_at;
    bool stuck, gone;
    _Atomic bool told_stuck, told_write;
};

/* ---- writing ---- */

static ssize_t write_some(struct lines *l, const char *bytes, size_t n)
{
    if (!own_fd_ok(&l->out)) {
        errno = EBADF;
        return -1;
    }
    if (l->way == WAY_SOCKET)
        return send(l->out.fd, bytes, n, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (l->way == WAY_POLLED) { /* a pipe that polls writable takes so much without waiting */
        struct pollfd p = {.fd = l->out.fd, .events = POLLOUT};
        if (poll(&p, 1, 0) != 1) {
            errno = EAGAIN;
            return -1;
        }
        n = n < PIPE_BUF ? n : PIPE_BUF;
    }
    return write(l->out.fd, bytes, n);
}

/* Writes until all is written, `deadline_ns` or an error; returns how much was. errno: EAGAIN when
 * it is time. */
static size_t write_until(struct lines *l, const char *bytes, size_t n, uint64_t deadline_ns)
{
    size_t done = 0;
    errno = 0;
    while (done < n) {
        ssize_t some = write_some(l, bytes + done, n - done);
        if (some > 0) {
            done += (size_t)some;
            continue;
        }
        if (some < 0 && errno == EINTR)
            continue;
        if (some == 0 || (errno != EAGAIN && errno != EWOULDBLOCK)) {
            if (some == 0)
                errno = ENOSPC;
            return done;
        }
        uint64_t now = clock_monotonic_ns();
        if (now >= deadline_ns) {
            errno = EAGAIN;
            return done;
        }
        struct pollfd p = {.fd = l->out.fd, .events = POLLOUT};
        (void)poll(&p, 1, (int)((deadline_ns - now) / NS_PER_MS) + 1);
    }
    return done;
}

static bool rest_write(struct lines *l, uint64_t deadline_ns)
{
    size_t n = l->rest.len - l->rest_at;
    if (n == 0)
        return true;
    l->rest_at += write_until(l, l->rest.ptr + l->rest_at, n, deadline_ns);
    if (l->rest_at < l->rest.len)
        return false;
    buf_clear(&l->rest);
    l->rest_at = 0;
    return true;
}

static void line_end(struct lines *l)
{
    if (l->n_ends == l->ends_room) {
        size_t room = l->ends_room ? 2 * l->ends_room : 64;
        size_t *more = reallocarray(l->ends, room, sizeof *more);
        if (!more) {
            l->text.failed = true;
            return;
        }
        l->ends = more;
        l->ends_room = room;
    }
    l->ends[l->n_ends++] = l->text.len;
}

/* Writes the lines in `text`. Returns how many were begun, and so count as written. */
static size_t lines_write(struct lines *l)
{
    uint64_t deadline = l->stuck ? 0 : clock_monotonic_ns() + WAIT_NS;
    if (l->gone || !buf_ok(&l->text))
        return 0;
    size_t done = 0, n = 0;
    if (rest_write(l, deadline))
        done = write_until(l, l->text.ptr, l->text.len, deadline);
    int e = errno;
    while (n < l->n_ends && l->ends[n] <= done)
        n++;
    if (n == l->n_ends) {
        l->stuck = false;
        return n;
    }
    size_t begin = n ? l->ends[n - 1] : 0;
    if (done > begin) { /* the line in the middle of which it stopped */
        buf_put(&l->rest, l->text.ptr + done, l->ends[n] - done);
        n++;
    }
    if (e == EAGAIN || e == EWOULDBLOCK) {
        l->stuck = true;
        exporter_tell(l->config, &l->told_stuck,
                      "nobody reads standard output: lines are dropped and counted");
    } else {
        l->gone = e == EPIPE || e == EBADF || e == ECONNRESET || !buf_ok(&l->rest);
        exporter_tell(l->config, &l->told_write, "standard output cannot be written: %s",
                      strerror(e));
    }
    return n;
}

/* ---- the exporter ---- */

static void stdout_take(struct exporter *e, const struct taken_batch *batch,
                        struct exporter_counts *counts)
{
    struct lines *l = (struct lines *)e;
    size_t n = batch->spans.n;
    buf_clear(&l->text);
    l->n_ends = 0;
    for (size_t i = 0; i < n; i++) {
        span_json_line(&batch->spans.spans[i], batch->taken[i].thread, &l->text);
        line_end(l);
    }
    size_t written = lines_write(l);
    atomic_fetch_add(&counts->exported, written);
    atomic_fetch_add(l->stuck ? &counts->lost_queue_full : &counts->lost_export, n - written);
}

static void stdout_take_metrics(struct exporter *e, const struct metric_batch *batch)
{
    struct lines *l = (struct lines *)e;
    size_t n = 0;
    buf_clear(&l->text);
    l->n_ends = 0;
    for (size_t i = 0; i < batch->n; i++)
        for (size_t j = 0; j < batch->metrics[i].n_points; j++, n++) {
            metric_json_line(&batch->metrics[i], &batch->metrics[i].points[j], batch->resource,
                             &l->text);
            line_end(l);
        }
    size_t written = lines_write(l);
    atomic_fetch_add(&l->counts->metrics_exported, written);
    atomic_fetch_add(&l->counts->metrics_lost, n - written);
}

static bool stdout_flush(struct exporter *e, uint64_t deadline_ns, bool again)
{
    struct lines *l = (struct lines *)e;
    (void)again; /* what waits is the rest of one line */
    return l->gone || rest_write(l, deadline_ns);
}

static void stdout_close(struct exporter *e, uint64_t deadline_ns)
{
    struct lines *l = (struct lines *)e;
    (void)deadline_ns; /* flush has waited */
    own_fd_close(&l->out);
    buf_done(&l->text);
    buf_done(&l->rest);
    free(l->ends);
    free(l);
}

/* A description of our own, or the program's in a way that does not wait. */
static int out_open(struct lines *l, struct error_detail *problem)
{
    struct stat st;
    int fd = -1;
    if (fstat(STDOUT_FILENO, &st) != 0)
        return error_set(problem, ERR_IO, 0, "standard output is closed");
    l->way = S_ISREG(st.st_mode) ? WAY_FILE : S_ISSOCK(st.st_mode) ? WAY_SOCKET : WAY_NONBLOCKING;
    if (l->way == WAY_NONBLOCKING) {
        fd = open("/proc/self/fd/1", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        if (fd < 0)
            l->way = WAY_POLLED; /* no /proc, or the pipe is another user's */
    }
    if (fd < 0)
        fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 0);
    if (fd >= 0)
        l->out = own_fd_take(fd);
    return l->out.fd >= 0 ? 0
                          : error_set(problem, ERR_IO, 0, "standard output: %s", strerror(errno));
}

int export_stdout_open(const struct config *c, struct exporter_counts *counts,
                       struct exporter **ret, struct error_detail *ret_problem)
{
    struct lines *l = calloc(1, sizeof *l);
    if (!l)
        return ERR_NOMEM;
    l->exporter = (struct exporter){.take = stdout_take,
                                    .take_metrics = stdout_take_metrics,
                                    .flush = stdout_flush,
                                    .close = stdout_close};
    l->config = c;
    l->counts = counts;
    l->out = OWN_FD_NONE;
    int err = out_open(l, ret_problem);
    if (err) {
        stdout_close(&l->exporter, 0);
        return err;
    }
    /* Goes first, from our own thread. */
    resource_json_line(&c->resource, &l->rest);
    *ret = &l->exporter;
    return 0;
}
