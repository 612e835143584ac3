#include "store/local/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

int file_open(int dir, const char *name, int flags, int *ret_fd)
{
    int fd;
    do
        fd = openat(dir, name, flags | O_CLOEXEC, 0600);
    while (fd < 0 && errno == EINTR);
    if (fd < 0)
        return err_from_errno(errno);
    *ret_fd = fd;
    return 0;
}

int file_writev(int fd, struct iovec *parts, int n)
{
    while (n > 0) {
        ssize_t wrote = writev(fd, parts, n < IOV_MAX ? n : IOV_MAX);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote < 0)
            return err_from_errno(errno);
        while (n > 0 && (size_t)wrote >= parts->iov_len) {
            wrote -= (ssize_t)parts->iov_len;
            parts++;
            n--;
        }
        if (n > 0) {
            parts->iov_base = (char *)parts->iov_base + wrote;
            parts->iov_len -= (size_t)wrote;
        }
    }
    return 0;
}

int file_write(int fd, const void *bytes, size_t n)
{
    struct iovec part = {(void *)(uintptr_t)bytes, n};
    return file_writev(fd, &part, 1);
}

int file_read_at(int fd, void *bytes, size_t n, uint64_t at)
{
    char *to = bytes;
    while (n > 0) {
        ssize_t got = pread(fd, to, n, (off_t)at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_from_errno(errno);
        if (got == 0)
            return ERR_TRUNCATED;
        to += got;
        at += (uint64_t)got;
        n -= (size_t)got;
    }
    return 0;
}

int file_size(int fd, uint64_t *ret_size)
{
    struct stat st;
    if (fstat(fd, &st))
        return err_from_errno(errno);
    *ret_size = (uint64_t)st.st_size;
    return 0;
}

int file_sync(int fd)
{
    return fsync(fd) ? err_from_errno(errno) : 0;
}

int file_datasync(int fd)
{
    return fdatasync(fd) ? err_from_errno(errno) : 0;
}

int file_truncate(int fd, uint64_t size)
{
    int failed;
    do
        failed = ftruncate(fd, (off_t)size);
    while (failed && errno == EINTR);
    return failed ? err_from_errno(errno) : 0;
}

int file_rename(int dir, const char *from, const char *to)
{
    return renameat(dir, from, dir, to) ? err_from_errno(errno) : 0;
}

int file_remove(int dir, const char *name)
{
    return unlinkat(dir, name, 0) ? err_from_errno(errno) : 0;
}
