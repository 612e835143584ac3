#include "common.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <pugmark/log.h>

#define LINE_BYTES_MAX (1u << 20)
#define CHILD_END_MS 3000
#define TREE_DEPTH_MAX 8
#define TREE_FILES_MAX 2000
#define TREE_FILE_BYTES_MAX (1u << 20)

static const char *service_name = "agent";

/* ---- a program's life ---- */

static void say_of_tracing(void *user, const char *message)
{
    (void)user;
    say("tracing: %s", message);
}

void service_start(const char *name)
{
    service_name = name;
    umask(077); /* what people say to an agent is theirs */
    signal(SIGPIPE, SIG_IGN);
    /* Off unless PUG_TRACING=true. A program that cannot trace still does its work. */
    struct pug_options options = {
        .size = sizeof options, .service_name = name, .log = say_of_tracing};
    int err = pug_start(&options);
    if (err)
        say("tracing: %s", pug_error_text(err));
}

void service_stop(void)
{
    int err = pug_stop();
    if (err)
        say("tracing: not all spans were handed over: %s", pug_error_text(err));
}

PRINTF_LIKE(1, 0) static void say_list(const char *format, va_list args)
{
    char line[1024];
    vsnprintf(line, sizeof line, format, args);
    struct pug_context here = pug_context_current();
    if (pug_context_valid(&here))
        fprintf(stderr, "%s: %s " PUG_LOG_FMT "\n", service_name, line, PUG_LOG_ARGS);
    else
        fprintf(stderr, "%s: %s\n", service_name, line);
}

void say(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say_list(format, args);
    va_end(args);
}

void die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say_list(format, args);
    va_end(args);
    exit(1);
}

static int end_signals = -1;

void service_wait_begin(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    end_signals = signalfd(-1, &set, SFD_CLOEXEC);
    if (end_signals < 0)
        die("no signalfd: %s", strerror(errno));
}

void service_wait(uint16_t port)
{
    printf("port %u\n", port);
    fflush(stdout);
    struct pollfd p[] = {{.fd = end_signals, .events = POLLIN}, {.fd = 0, .events = POLLIN}};
    for (;;) {
        char dropped[256];
        if (poll(p, 2, -1) < 0 && errno != EINTR)
            return;
        if (p[0].revents || (p[1].revents && read(0, dropped, sizeof dropped) <= 0))
            return;
    }
}

/* ---- text ---- */

void *need(void *memory)
{
    if (!memory)
        die("out of memory");
    return memory;
}

void text_addn(struct text *t, const char *more, size_t n)
{
    if (t->cap - t->len <= n) {
        t->cap = (t->len + n + 1) * 2;
        t->bytes = need(realloc(t->bytes, t->cap));
    }
    memcpy(t->bytes + t->len, more, n);
    t->len += n;
    t->bytes[t->len] = '\0';
}

void text_add(struct text *t, const char *more)
{
    text_addn(t, more, strlen(more));
}

void text_addf(struct text *t, const char *format, ...)
{
    AUTO_FREE char *more = NULL;
    va_list args;
    va_start(args, format);
    int n = vasprintf(&more, format, args);
    va_end(args);
    if (n < 0)
        die("out of memory");
    text_addn(t, more, (size_t)n);
}

/* The length of the character at `s`, 0 when it is none (RFC 3629). */
static size_t utf8_length(const unsigned char *s)
{
    size_t n = *s < 0x80 ? 1 : *s >= 0xc2 && *s < 0xe0 ? 2 : *s >= 0xe0 && *s < 0xf0 ? 3 : 0;
    if (*s >= 0xf0 && *s < 0xf5)
        n = 4;
    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    if ((n == 3 && ((*s == 0xe0 && s[1] < 0xa0) || (*s == 0xed && s[1] >= 0xa0))) ||
        (n == 4 && ((*s == 0xf0 && s[1] < 0x90) || (*s == 0xf4 && s[1] >= 0x90))))
        return 0;
    return n;
}

void text_clean(struct text *t)
{
    if (!t->bytes)
        return;
    t->len = strlen(t->bytes);
    for (size_t i = 0, n; i < t->len; i += n) {
        n = utf8_length((const unsigned char *)t->bytes + i);
        if (n == 0) {
            t->bytes[i] = '?';
            n = 1;
        }
    }
}

void text_done(struct text *t)
{
    free(t->bytes);
    *t = (struct text){0};
}

const char *text_of(const struct text *t)
{
    return t->bytes ? t->bytes : "";
}

void free_quietly(void *pointer_to_pointer)
{
    free(*(void **)pointer_to_pointer);
}

char *copyn(const char *s, size_t n)
{
    return need(strndup(s, n));
}

char *copy(const char *s)
{
    return need(strdup(s ? s : ""));
}

char *trim(char *s)
{
    while (isspace((unsigned char)*s))
        s++;
    size_t n = strlen(s);
    while (n > 0 && isspace((unsigned char)s[n - 1]))
        s[--n] = '\0';
    return s;
}

uint64_t hash_text(const char *s, size_t n)
{
    uint64_t h = 0xcbf29ce484222325;
    for (size_t i = 0; i < n; i++)
        h = (h ^ (unsigned char)s[i]) * 0x100000001b3;
    return h;
}

bool next_word(const char **at, char *word, size_t size)
{
    const char *s = *at;
    while (*s && !isalnum((unsigned char)*s) && *s != '_')
        s++;
    size_t n = 0;
    for (; isalnum((unsigned char)*s) || *s == '_'; s++)
        if (n + 1 < size)
            word[n++] = (char)tolower((unsigned char)*s);
    word[n] = '\0';
    *at = s;
    return n > 0;
}

size_t tokens_of(const char *s)
{
    return (strlen(s) + 3) / 4;
}

/* ---- files and processes ---- */

struct path path_join(const char *dir, const char *name)
{
    struct path p;
    int n = snprintf(p.text, sizeof p.text, "%s/%s", dir, name);
    if (n < 0 || (size_t)n >= sizeof p.text)
        die("a path is too long: %s", name);
    return p;
}

char *file_read(const char *path, size_t bytes_max)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    struct text t = {0};
    char part[16384];
    ssize_t n = 0;
    text_add(&t, "");
    while (t.len < bytes_max &&
           (n = read(fd, part, bytes_max - t.len < sizeof part ? bytes_max - t.len : sizeof part)) >
               0)
        text_addn(&t, part, (size_t)n);
    int error = errno;
    close(fd);
    errno = error;
    if (n < 0) {
        text_done(&t);
        return NULL;
    }
    return t.bytes;
}

struct walk {
    const char *root;
    bool (*each)(void *user, const char *path, const char *content);
    void *user;
    int files;
};

static bool walk_below(struct walk *w, const char *below, int depth)
{
    struct dirent **entries;
    struct path dir = path_join(w->root, below);
    int n = scandir(dir.text, &entries, NULL, alphasort);
    bool more = true;
    for (int i = 0; i < n; i++) {
        const char *name = entries[i]->d_name;
        char path[PATH_MAX];
        struct stat st;
        int len = snprintf(path, sizeof path, "%s%s%s", below, *below ? "/" : "", name);
        if (more && *name != '.' && len < (int)sizeof path &&
            lstat(path_join(w->root, path).text, &st) == 0) {
            if (S_ISDIR(st.st_mode) && depth < TREE_DEPTH_MAX) {
                more = walk_below(w, path, depth + 1);
            } else if (S_ISREG(st.st_mode) && w->files < TREE_FILES_MAX) {
                AUTO_FREE char *content = file_read(path_join(w->root, path).text,
                                                    TREE_FILE_BYTES_MAX);
                w->files++;
                more = !content || w->each(w->user, path, content);
            }
        }
        free(entries[i]);
    }
    if (n >= 0)
        free(entries);
    return more;
}

int tree_walk(const char *root, bool (*each)(void *user, const char *path, const char *content),
              void *user)
{
    struct walk w = {.root = root, .each = each, .user = user};
    walk_below(&w, "", 0);
    return w.files;
}

int file_replace(const char *path, const char *content)
{
    char temporary[PATH_MAX];
    if (snprintf(temporary, sizeof temporary, "%s.%ld~", path, (long)getpid()) >=
        (int)sizeof temporary) {
        errno = ENAMETOOLONG;
        return -1;
    }
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return -1;
    int result = write_all(fd, content, strlen(content)), error = errno;
    close(fd);
    if (result == 0 && rename(temporary, path) == 0)
        return 0;
    if (result == 0)
        error = errno;
    unlink(temporary);
    errno = error;
    return -1;
}

int write_all(int fd, const void *bytes, size_t n)
{
    const char *at = bytes;
    while (n > 0) {
        ssize_t written = write(fd, at, n);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return -1;
        at += written;
        n -= (size_t)written;
    }
    return 0;
}

static void close_pair(const int pair[2])
{
    int error = errno;
    close(pair[0]);
    close(pair[1]);
    errno = error;
}

int child_start(struct child *c, const char *const argv[])
{
    int in[2], out[2];
    if (pipe2(in, O_CLOEXEC) != 0)
        return -1;
    if (pipe2(out, O_CLOEXEC) != 0) {
        close_pair(in);
        return -1;
    }
    pid_t parent = getpid(), pid = fork();
    if (pid < 0) {
        close_pair(in);
        close_pair(out);
        return -1;
    }
    if (pid == 0) {
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        signal(SIGPIPE, SIG_DFL);
        /* Its own group: the terminal's Ctrl-C is for us, and we end it when we are done with it. */
        setpgid(0, 0);
        if (prctl(PR_SET_PDEATHSIG, SIGTERM) != 0 || getppid() != parent || dup2(in[0], 0) < 0 ||
            dup2(out[1], 1) < 0)
            _exit(126);
        execv(argv[0], (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    *c = (struct child){.pid = pid, .to = in[1], .from = out[0]};
    return 0;
}

int child_stop(struct child *c)
{
    int status = 0;
    if (c->pid <= 0)
        return 0;
    if (c->to >= 0)
        close(c->to);
    c->to = -1;
    uint64_t begin = now_ms();
    for (int asked = 0; waitpid(c->pid, &status, WNOHANG) == 0;) {
        if (now_ms() - begin > CHILD_END_MS * (uint64_t)(asked + 1)) {
            kill(c->pid, asked ? SIGKILL : SIGTERM);
            asked++;
        }
        poll(NULL, 0, 2);
    }
    if (c->from >= 0)
        close(c->from);
    *c = (struct child){.to = -1, .from = -1};
    return status;
}

bool line_read(int fd, struct text *pending, struct text *ret_line, int timeout_ms)
{
    uint64_t deadline = now_ms() + (uint64_t)timeout_ms;
    for (;;) {
        char *end = pending->len ? memchr(pending->bytes, '\n', pending->len) : NULL;
        if (end) {
            size_t n = (size_t)(end - pending->bytes);
            ret_line->len = 0;
            text_addn(ret_line, pending->bytes, n);
            memmove(pending->bytes, end + 1, pending->len - n); /* with its terminator */
            pending->len -= n + 1;
            return true;
        }
        uint64_t now = now_ms();
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (now >= deadline || pending->len > LINE_BYTES_MAX ||
            poll(&p, 1, (int)(deadline - now)) <= 0)
            return false;
        char part[16384];
        ssize_t n = read(fd, part, sizeof part);
        if (n <= 0)
            return false;
        text_addn(pending, part, (size_t)n);
    }
}

struct path program_path(const char *name)
{
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n < 0)
        die("where am I? %s", strerror(errno));
    self[n] = '\0';
    *strrchr(self, '/') = '\0';
    return path_join(self, name);
}

uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

int64_t epoch_s(void)
{
    return (int64_t)time(NULL);
}
