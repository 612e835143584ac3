#include "cli/span_io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int bytes_of_pipe(int fd, struct buf *ret)
{
    char block[1 << 14];
    ssize_t n;
    ret->bytes_max = (size_t)1 << 30;
    while ((n = read(fd, block, sizeof block)) > 0 || (n < 0 && errno == EINTR))
        if (n > 0)
            buf_put(ret, block, (size_t)n);
    return n < 0 ? err_from_errno(errno) : buf_ok(ret) ? 0 : ERR_TOO_LARGE;
}

int span_io_read(const char *verb, const char *path, span_file_fn *fn, void *arg,
                 const char **ret_kind)
{
    struct error_detail detail = {0};
    struct buf piped = BUF_INIT;
    struct stat st;
    const char *kind = NULL;
    void *mapped = MAP_FAILED;
    int fd = strcmp(path, "-") ? open(path, O_RDONLY | O_CLOEXEC) : dup(STDIN_FILENO);
    int err = fd < 0 || fstat(fd, &st) ? err_from_errno(errno) : 0;
    if (!err && S_ISDIR(st.st_mode)) {
        errno = EISDIR;
        err = ERR_INVALID;
    } else if (!err && S_ISREG(st.st_mode) && st.st_size > 0) {
        mapped = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        err = mapped == MAP_FAILED ? err_from_errno(errno) : 0;
    } else if (!err) {
        err = bytes_of_pipe(fd, &piped);
    }
    if (err) {
        fprintf(stderr, "pugmark %s: %s: %s\n", verb, path, strerror(errno));
    } else {
        struct str bytes = mapped != MAP_FAILED ? (struct str){mapped, (size_t)st.st_size}
                                                : buf_as_str(&piped);
        err = span_file_read(bytes, fn, arg, &kind, &detail);
        if (err && detail.code)
            fprintf(stderr, "pugmark %s: %s: at byte %zu%s%s: %s\n", verb, path, detail.position,
                    kind ? ", read as " : "", kind ? kind : "", detail.message);
    }
    if (mapped != MAP_FAILED)
        munmap(mapped, (size_t)st.st_size);
    if (fd >= 0)
        close(fd);
    buf_done(&piped);
    if (ret_kind)
        *ret_kind = kind;
    return err;
}

/* ---- writing ---- */

static int could_not(const struct span_writer *w)
{
    int reason = errno;
    fprintf(stderr, "pugmark %s: %s: %s\n", w->verb, w->path, strerror(reason));
    return err_from_errno(reason);
}

int span_writer_open(struct span_writer *w, const char *verb, const char *path, bool force)
{
    *w = (struct span_writer){.verb = verb, .path = path};
    if (!strcmp(path, "-")) {
        w->file = stdout;
        return 0;
    }
    if (!force && access(path, F_OK) == 0) {
        fprintf(stderr, "pugmark %s: %s is there already; --force replaces it\n", verb, path);
        return ERR_INVALID;
    }
    if (asprintf(&w->part, "%s.%d.part", path, getpid()) < 0)
        w->part = NULL;
    int fd = w->part ? open(w->part, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600) : -1;
    w->file = fd < 0 ? NULL : fdopen(fd, "wb");
    if (!w->file) {
        int err = could_not(w);
        if (fd >= 0)
            close(fd);
        free(w->part);
        return err;
    }
    return 0;
}

void span_writer_put_bytes(struct span_writer *w, struct str bytes)
{
    if (bytes.len && fwrite(bytes.ptr, 1, bytes.len, w->file) != bytes.len)
        w->failed = true;
    w->bytes += bytes.len;
}

void span_writer_put(struct span_writer *w, const struct span_batch *batch)
{
    struct buf out = BUF_INIT;
    span_file_put(batch, &out);
    if (!buf_ok(&out)) {
        errno = ENOMEM;
        w->failed = true;
    } else {
        span_writer_put_bytes(w, buf_as_str(&out));
        w->spans += batch->n;
    }
    buf_done(&out);
}

int span_writer_close(struct span_writer *w, bool keep)
{
    int err = 0;
    bool failed = fflush(w->file) != 0 || w->failed;
    if (failed && keep)
        err = could_not(w);
    if (w->part) {
        if (fclose(w->file) && !err && keep)
            err = could_not(w);
        if (keep && !err && rename(w->part, w->path))
            err = could_not(w);
        if (!keep || err)
            unlink(w->part);
    }
    free(w->part);
    return err;
}
