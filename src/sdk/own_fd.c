#include "sdk/own_fd.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* Below what select() can take, should a program pass all its descriptors to it. */
#define HIGH_FD 1000

/* What there is, for the child. A slot is FILLED by who moved it from EMPTY to BUSY, and so emptied. */
enum slot_state { EMPTY, BUSY, FILLED };

static struct {
    _Atomic int state;
    struct own_fd fd;
} slots[OWN_FDS_MAX];

static void slot_fill(const struct own_fd *f)
{
    for (int i = 0; i < OWN_FDS_MAX; i++) {
        int expected = EMPTY;
        if (!atomic_compare_exchange_strong(&slots[i].state, &expected, BUSY))
            continue;
        slots[i].fd = *f;
        atomic_store(&slots[i].state, FILLED);
        return;
    }
}

static void slot_empty(const struct own_fd *f)
{
    for (int i = 0; i < OWN_FDS_MAX; i++) {
        int expected = FILLED;
        if (slots[i].fd.fd != f->fd || slots[i].fd.ino != f->ino ||
            !atomic_compare_exchange_strong(&slots[i].state, &expected, BUSY))
            continue;
        atomic_store(&slots[i].state, EMPTY);
        return;
    }
}

void own_fds_forked(void)
{
    for (int i = 0; i < OWN_FDS_MAX; i++) {
        if (atomic_load(&slots[i].state) == FILLED && own_fd_ok(&slots[i].fd))
            close(slots[i].fd.fd);
        atomic_store(&slots[i].state, EMPTY);
    }
}

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
    struct own_fd f = {fd, st.st_dev, st.st_ino};
    slot_fill(&f);
    return f;
}

bool own_fd_ok(const struct own_fd *f)
{
    struct stat st;
    return f->fd >= 0 && fstat(f->fd, &st) == 0 && st.st_dev == f->dev && st.st_ino == f->ino;
}

void own_fd_close(struct own_fd *f)
{
    if (f->fd < 0)
        return;
    if (own_fd_ok(f))
        close(f->fd);
    slot_empty(f);
    *f = OWN_FD_NONE;
}
