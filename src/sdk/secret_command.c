/* A program that prints a secret: started without a shell, with nothing to read and nowhere to
 * complain, in a process group of its own, so that at the deadline all of it can be ended.
 *
 * It is our child in a process that has children of its own. Should the host ignore SIGCHLD, or wait
 * for all that end, its status is gone before we can ask; then what it printed decides. */
#include "base/clock.h"
#include "sdk/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static int start(char **argv, int out, pid_t *ret)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attrs;
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    sigdelset(&all, SIGKILL);
    sigdelset(&all, SIGSTOP);
    if (posix_spawn_file_actions_init(&files) != 0)
        return ENOMEM;
    if (posix_spawnattr_init(&attrs) != 0) {
        posix_spawn_file_actions_destroy(&files);
        return ENOMEM;
    }
    int e = posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    if (!e)
        e = posix_spawn_file_actions_adddup2(&files, out, 1);
    if (!e)
        e = posix_spawn_file_actions_addopen(&files, 2, "/dev/null", O_WRONLY, 0);
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 34)
    if (!e) /* what the host has open is none of its business */
        e = posix_spawn_file_actions_addclosefrom_np(&files, 3);
#endif
    posix_spawnattr_setflags(&attrs, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
                                         POSIX_SPAWN_SETPGROUP);
    posix_spawnattr_setsigmask(&attrs, &none);
    posix_spawnattr_setsigdefault(&attrs, &all);
    posix_spawnattr_setpgroup(&attrs, 0);
    if (!e)
        e = posix_spawn(ret, argv[0], &files, &attrs, argv, environ);
    posix_spawnattr_destroy(&attrs);
    posix_spawn_file_actions_destroy(&files);
    return e;
}

static int read_until(int fd, uint64_t deadline_ns, struct buf *ret, struct error_detail *detail)
{
    while (ret->len <= SECRET_BYTES_MAX) {
        uint64_t now = clock_monotonic_ns();
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (now >= deadline_ns)
            return error_set(detail, ERR_TIMEOUT, 0, "the command took too long");
        int ready = poll(&p, 1, (int)((deadline_ns - now) / NS_PER_MS) + 1);
        if (ready < 0 && errno != EINTR)
            return error_set(detail, err_from_errno(errno), 0, "poll: %s", strerror(errno));
        if (ready <= 0)
            continue;
        ssize_t n = read(fd, ret->ptr + ret->len, SECRET_BYTES_MAX + 1 - ret->len);
        if (n < 0 && errno != EINTR && errno != EAGAIN)
            return error_set(detail, err_from_errno(errno), 0, "reading: %s", strerror(errno));
        if (n == 0)
            return 0;
        if (n > 0)
            ret->len += (size_t)n;
    }
    return error_set(detail, ERR_TOO_LARGE, 0, "the command printed more than %d KiB",
                     SECRET_BYTES_MAX >> 10);
}

/* It has closed its output; what is left is to end, which must not take longer either. */
static int wait_for(pid_t pid, uint64_t deadline_ns, struct error_detail *detail)
{
    for (;;) {
        int status = 0;
        pid_t ended = waitpid(pid, &status, WNOHANG);
        if (ended < 0 && errno == EINTR)
            continue;
        if (ended < 0)
            return 0; /* somebody else has its status */
        if (ended == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0)
            return 0;
        if (ended == pid && WIFEXITED(status))
            return error_set(detail, ERR_NOT_FOUND, 0, "the command exits with %d",
                             WEXITSTATUS(status));
        if (ended == pid)
            return error_set(detail, ERR_NOT_FOUND, 0, "the command was ended by signal %d",
                             WTERMSIG(status));
        if (clock_monotonic_ns() >= deadline_ns)
            return error_set(detail, ERR_TIMEOUT, 0, "the command took too long");
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}

static void end_all(pid_t pid)
{
    kill(-pid, SIGKILL);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
}

int secret_from_command(const struct settings *s, const char *name, uint64_t deadline_ns,
                        struct buf *ret, struct error_detail *ret_detail)
{
    const struct setting *v = &s->values[SET_SECRETS_COMMAND];
    char *argv[SETTING_ITEMS_MAX + 2];
    int ends[2];
    pid_t pid;
    if (!v->is_set || v->n_items == 0 || v->items[0][0] != '/')
        return error_set(ret_detail, ERR_INVALID, 0,
                         "the provider \"command\" needs `command` in [telemetry.secrets]: a list "
                         "with the program's absolute path and its arguments");
    for (size_t i = 0; i < v->n_items; i++)
        argv[i] = (char *)(uintptr_t)v->items[i];
    argv[v->n_items] = (char *)(uintptr_t)name;
    argv[v->n_items + 1] = NULL;
    if (!buf_reserve(ret, SECRET_BYTES_MAX + 1))
        return error_set(ret_detail, ERR_NOMEM, 0, "out of memory");
    if (pipe2(ends, O_CLOEXEC) != 0)
        return error_set(ret_detail, err_from_errno(errno), 0, "pipe: %s", strerror(errno));
    int e = start(argv, ends[1], &pid);
    close(ends[1]);
    if (e) {
        close(ends[0]);
        return error_set(ret_detail, err_from_errno(e), 0, "%.100s: %s", argv[0], strerror(e));
    }
    int err = read_until(ends[0], deadline_ns, ret, ret_detail);
    bool is_there = err != 0; /* whatever went wrong */
    close(ends[0]);
    if (!err) {
        err = wait_for(pid, deadline_ns, ret_detail);
        is_there = err == ERR_TIMEOUT;
    }
    if (is_there)
        end_all(pid);
    return err;
}
