/* Commands that a model thought of: only what reads, only in the workspace, not for long.
 *
 * A command is a pipeline of words. Each program must be on the list, no word may leave the workspace,
 * and what a shell would make of the rest is not wanted: no redirection, no substitution, no list.
 * (This keeps an example honest. It is no sandbox: who runs real models wants namespaces.) */
#include "tools.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <pugmark/pugmark.h>

#define TIME_LIMIT_MS 2000
#define OUTPUT_BYTES_MAX 16384

static const char *refusal(const char *command)
{
    static const char *const programs[] = {"cat",  "cut",  "grep", "head", "ls",
                                           "sort", "tail", "tr",   "uniq", "wc"};
    bool first = true;
    if (strpbrk(command, ";&<>`$(){}\\\n\"'*?[]~!#"))
        return "only words and pipes are allowed";
    for (const char *at = command; *at;) {
        at += strspn(at, " \t");
        size_t n = strcspn(at, " \t|");
        if (n == 0) {
            if (*at == '|' && first)
                return "a program is missing";
            first = *at == '|';
            at += *at == '|';
            continue;
        }
        bool known = false;
        for (size_t i = 0; i < sizeof programs / sizeof *programs; i++)
            known |= strlen(programs[i]) == n && strncmp(programs[i], at, n) == 0;
        if (first && !known)
            return "this program is not allowed";
        if (*at == '/' || memmem(at, n, "..", 2) || memmem(at, n, "=/", 2))
            return "only the workspace is allowed";
        first = false;
        at += n;
    }
    return first ? "a program is missing" : NULL;
}

__attribute__((noreturn)) static void become(const char *workspace, const char *command, int out)
{
    char path[] = "PATH=/usr/bin:/bin", locale[] = "LC_ALL=C";
    char *const environment[] = {path, locale, NULL};
    struct rlimit cpu = {2, 2}, size = {0, 0}, core = {0, 0}, files = {64, 64};
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int in = open("/dev/null", O_RDONLY);
    if (chdir(workspace) != 0 || setrlimit(RLIMIT_CPU, &cpu) || setrlimit(RLIMIT_FSIZE, &size) ||
        setrlimit(RLIMIT_CORE, &core) || setrlimit(RLIMIT_NOFILE, &files) || dup2(in, 0) < 0 ||
        dup2(out, 1) < 0 || dup2(out, 2) < 0)
        _exit(126);
    execle("/bin/sh", "sh", "-c", command, (char *)NULL, environment);
    _exit(127);
}

/* Reads until the end, the limit or the time is over; false when it had to be ended. */
static bool gather(int fd, struct text *output)
{
    uint64_t deadline = now_ms() + TIME_LIMIT_MS;
    char part[4096];
    for (;;) {
        uint64_t now = now_ms();
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (now >= deadline || poll(&p, 1, (int)(deadline - now)) == 0)
            return false;
        ssize_t n = read(fd, part, sizeof part);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return true;
        if (output->len + (size_t)n > OUTPUT_BYTES_MAX)
            return false;
        text_addn(output, part, (size_t)n);
    }
}

int shell_run(const char *workspace, const char *command, struct text *ret_output)
{
    PUG_SPAN("tool.shell");
    const char *why = refusal(command);
    int out[2], status = 0;
    pid_t pid = -1;
    if (!why && pipe2(out, O_CLOEXEC) != 0)
        why = strerror(errno);
    if (!why && (pid = fork()) < 0) {
        why = strerror(errno);
        close(out[0]);
        close(out[1]);
    }
    if (why) {
        text_addf(ret_output, "refused: %s", why);
        pug_set_str(PUG_CURRENT, "error.type", "refused");
        pug_error(PUG_CURRENT, why);
        return -1;
    }
    if (pid == 0)
        become(workspace, command, out[1]);
    setpgid(pid, pid);
    close(out[1]);
    pug_set_int(PUG_CURRENT, "process.pid", pid);
    bool ended = gather(out[0], ret_output);
    close(out[0]);
    if (!ended)
        kill(-pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    pug_set_int(PUG_CURRENT, "process.exit.code", code);
    if (!ended) {
        text_add(ret_output, "\nended: too long");
        pug_set_str(PUG_CURRENT, "error.type", "limit");
        pug_error(PUG_CURRENT, "the command had to be ended");
        return -1;
    }
    if (code != 0)
        text_addf(ret_output, "\n(status %d)", code);
    return code;
}
