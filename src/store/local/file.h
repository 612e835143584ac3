/* Files, with the retries that POSIX asks for. Errors are codes of base/err.h. */
#ifndef STORE_LOCAL_FILE_H
#define STORE_LOCAL_FILE_H

#include <sys/types.h>
#include <sys/uio.h>

#include "base/err.h"
#include "base/str.h"

/* openat() with O_CLOEXEC and mode 0600. */
MUST_USE int file_open(int dir, const char *name, int flags, int *ret_fd);
/* Changes the vector as it goes. */
MUST_USE int file_writev(int fd, struct iovec *parts, int n);
MUST_USE int file_write(int fd, const void *bytes, size_t n);
/* Exactly n bytes; ERR_TRUNCATED when the file ends before. */
MUST_USE int file_read_at(int fd, void *bytes, size_t n, uint64_t at);
MUST_USE int file_size(int fd, uint64_t *ret_size);
MUST_USE int file_sync(int fd);     /* fsync */
MUST_USE int file_datasync(int fd); /* fdatasync */
MUST_USE int file_truncate(int fd, uint64_t size);
MUST_USE int file_rename(int dir, const char *from, const char *to);
MUST_USE int file_remove(int dir, const char *name);

#endif
