#include "sdk/own_fd.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* Below what select() can take, should a program pass all its descriptors to it. */
#define HIGH_FD 1000

struct own_fd own_fd_take(int fd)
{
    struct rlimit limit;
    struct stat st;
    rlim_t end = HIGH_FD;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < end)
        end = limit.rlim_cur;
    int high = fcntl(fd, F_DUPFD_CLOEXEC, (int)(end - end / 4));
    if (high >= 0) {
        close(fd);
        fd = high;
    } else {
        fcntl(fd, F_SETFD, FD_CLOEXEC);
    }
    if (fstat(fd, &st) != 0) {
        close(fd);
        return OWN_FD_NONE;
    }
    return (struct own_fd){fd, st.st_dev, st.st_ino};
}

bool own_fd_ok(const struct own_fd *f)
{
    struct stat st;
    return f->fd >= 0 && fstat(f->fd, &st) == 0 && st.st_dev == f->dev && st.st_ino == f->ino;
}

void own_fd_close(struct own_fd *f)
{
    if (own_fd_ok(f))
        close(f->fd);
    *f = OWN_FD_NONE;
}
