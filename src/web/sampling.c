/* What Jaeger's clients poll to know how much to keep, on an address of its own and over gRPC: strategies from a file, which is
 * read again when it has changed. One that cannot be read or is wrong is told once, and what held before holds on. */
#include "web/sampling.h"

#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LOOK_EVERY_MS = 500 };

/* A file that was written differs in one of these. */
struct signature {
    dev_t device;
    ino_t inode;
    off_t size;
    struct timespec changed;
};

struct sampling {
    char *path;           /* NULL: no file */
    pthread_mutex_t lock; /* of all below */
    struct strategies *strategies;
    struct signature seen;
    bool is_missing; /* has been told */
    uint64_t looked_ns;
};

/* ERR_TOO_LARGE as soon as it is. */
static int read_whole(int fd, struct buf *out)
{
    enum { PIECE = 64 << 10 };
    for (;;) {
        if (!buf_reserve(out, PIECE))
            return ERR_NOMEM;
        ssize_t n = read(fd, out->ptr + out->len, PIECE);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? ERR_IO : 0;
        out->len += (size_t)n;
        if (out->len > STRATEGIES_BYTES_MAX)
            return ERR_TOO_LARGE;
    }
}

static struct signature signature_of(const struct stat *st)
{
    return (struct signature){st->st_dev, st->st_ino, st->st_size, st->st_mtim};
}

static bool signature_eq(const struct signature *a, const struct signature *b)
{
    return a->device == b->device && a->inode == b->inode && a->size == b->size &&
           a->changed.tv_sec == b->changed.tv_sec && a->changed.tv_nsec == b->changed.tv_nsec;
}

/* `ret_detail` has the whole sentence. */
static int load(const char *path, struct strategies **ret, struct signature *ret_signature,
                struct error_detail *ret_detail)
{
    struct error_detail detail = {0};
    struct buf text = BUF_INIT;
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        int err = error_set(ret_detail, ERR_IO, 0, "%s: %s", path,
                            fd < 0 ? strerror(errno) : "not a file");
        if (fd >= 0)
            close(fd);
        return err;
    }
    *ret_signature = signature_of(&st);
    int err = read_whole(fd, &text);
    close(fd);
    if (err)
        error_set(ret_detail, err, 0, "%s: %s", path,
                  err == ERR_TOO_LARGE ? "larger than 4 MiB" : err_text(err));
    else if ((err = strategies_parse(buf_as_str(&text), ret, &detail)))
        error_set(ret_detail, err, detail.position, "%s: byte %zu: %s", path, detail.position,
                  detail.message[0] ? detail.message : err_text(err));
    buf_done(&text);
    return err;
}

int sampling_new(const char *path, struct sampling **ret, struct error_detail *ret_detail)
{
    struct sampling *s = calloc(1, sizeof *s);
    if (!s)
        return error_set(ret_detail, ERR_NOMEM, 0, "out of memory");
    pthread_mutex_init(&s->lock, NULL);
    s->looked_ns = clock_monotonic_ns();
    int err;
    if (path) {
        s->path = strdup(path);
        err = s->path ? load(path, &s->strategies, &s->seen, ret_detail)
                      : error_set(ret_detail, ERR_NOMEM, 0, "out of memory");
    } else if ((err = strategies_default(&s->strategies))) {
        error_set(ret_detail, err, 0, "out of memory");
    }
    if (err)
        sampling_free(s);
    else
        *ret = s;
    return err;
}

void sampling_free(struct sampling *s)
{
    if (!s)
        return;
    pthread_mutex_destroy(&s->lock);
    strategies_free(s->strategies);
    free(s->path);
    free(s);
}

/* With the lock. */
static void look(struct sampling *s)
{
    struct strategies *fresh;
    struct signature seen;
    struct error_detail detail;
    struct stat st;
    uint64_t now_ns = clock_monotonic_ns();
    if (!s->path || now_ns - s->looked_ns < LOOK_EVERY_MS * NS_PER_MS)
        return;
    s->looked_ns = now_ns;
    if (stat(s->path, &st) != 0) {
        if (!s->is_missing)
            log_error("sampling strategies: %s: %s; the old ones stay", s->path, strerror(errno));
        s->is_missing = true;
        return;
    }
    s->is_missing = false;
    seen = signature_of(&st);
    if (signature_eq(&seen, &s->seen))
        return;
    s->seen = seen;
    if (load(s->path, &fresh, &s->seen, &detail)) {
        log_error("sampling strategies: %s; the old ones stay", detail.message);
        return;
    }
    strategies_free(s->strategies);
    s->strategies = fresh;
    log_info("sampling strategies: read again from %s", s->path);
}

void sampling_answer(struct sampling *s, struct str service, bool protobuf, struct buf *out)
{
    pthread_mutex_lock(&s->lock);
    look(s);
    const struct strategy *strategy = strategies_of(s->strategies, service);
    struct json_writer w = json_writer(out);
    if (protobuf)
        strategy_protobuf(strategy, out);
    else
        strategy_json(strategy, &w);
    pthread_mutex_unlock(&s->lock);
}

/* ---- requests ---- */

void sampling_strategy(struct web_request *q)
{
    struct str service, another;
    struct buf out = BUF_INIT;
    if (!http_query_nth(q->http, "service", 0, &service) || !service.len ||
        http_query_nth(q->http, "service", 1, &another)) {
        web_fail(q, 400, "'service' parameter must be provided once");
        return;
    }
    sampling_answer(q->web->sampling, service, false, &out);
    web_reply_json(q, 200, &out);
}

/* How long baggage may be: nothing is restricted. */
void sampling_baggage(struct web_request *q)
{
    struct buf out = BUF_INIT;
    if (!web_param(q, "service").len) {
        web_fail(q, 400, "'service' parameter must be provided once");
        return;
    }
    buf_cstr(&out, "[]");
    web_reply_json(q, 200, &out);
}
