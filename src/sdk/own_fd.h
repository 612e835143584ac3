/* A descriptor in somebody else's process. The host may close it (daemons close all there are) and
 * open something of its own under the same number; writing there would damage the host's data.
 *
 * So each descriptor that is kept is moved to a high number, which a host's own open() does not
 * reach soon, and what it stands for is looked at before it is used. Between look and use there
 * remain some instructions; with the high number they do not matter in practice. */
#ifndef SDK_OWN_FD_H
#define SDK_OWN_FD_H

#include <stdbool.h>
#include <sys/types.h>

struct own_fd {
    int fd; /* -1: none */
    dev_t dev;
    ino_t ino;
};

#define OWN_FD_NONE ((struct own_fd){.fd = -1})

/* Takes `fd` (not negative) over, close-on-exec. */
struct own_fd own_fd_take(int fd);
/* Is it still what was taken? */
bool own_fd_ok(const struct own_fd *f);
/* Closes it if it is ours; then it is none. */
void own_fd_close(struct own_fd *f);
/* In the child after fork: closes what was the parent's, up to OWN_FDS_MAX of them. Its structs are
 * then not ok. */
void own_fds_forked(void);

#define OWN_FDS_MAX 64

#endif
