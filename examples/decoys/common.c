#include "common.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/inotify.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <pugmark/log.h>
#include <pugmark/pugmark.h>

#define ANSWER_BYTES_MAX (16u << 20)

static const char *service_name = "decoys";
static const char *run_dir = ".";
static int signals = -1;

/* ---- a program's life ---- */

static void make_directory(const char *path)
{
    if (mkdir(path, 0700) != 0 && errno != EEXIST)
        die("cannot make %s: %s", path, strerror(errno));
}

static void say_of_tracing(void *user, const char *message)
{
    (void)user;
    say("tracing: %s", message);
}

void service_start(const char *name, const char *dir)
{
    service_name = name;
    if (!dir)
        die("--dir DIR is missing: the run directory that the programs share");
    run_dir = dir;
    umask(077); /* what is written here are attacks, and a password */
    make_directory(dir);
    make_directory(run_path("ports").text);
    make_directory(run_path("containers").text);

    /* Blocked before the first thread is made, so that every thread inherits it and the signals
     * wait for whoever polls. Nobody ever reads them: once asked to end, always asked to end. */
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signals < 0)
        die("no signalfd: %s", strerror(errno));
    signal(SIGPIPE, SIG_IGN); /* a peer that went away is an error of write(), not our end */

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

int stop_fd(void)
{
    return signals;
}

bool stopping(void)
{
    return !wait_for(-1, 0);
}

bool wait_for(int fd, int timeout_ms)
{
    struct pollfd p[] = {{.fd = signals, .events = POLLIN}, {.fd = fd, .events = POLLIN}};
    while (poll(p, 2, timeout_ms) < 0 && errno == EINTR)
        ;
    return !(p[0].revents & POLLIN);
}

PRINTF_LIKE(1, 0) static void say_list(const char *format, va_list args)
{
    char line[1024];
    vsnprintf(line, sizeof line, format, args);
    if (strcmp(pug_log_trace_id(), "0") != 0)
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

/* ---- the run directory ---- */

struct path run_path(const char *format, ...)
{
    struct path p;
    int n = snprintf(p.text, sizeof p.text, "%s/", run_dir);
    va_list args;
    va_start(args, format);
    if (n > 0 && (size_t)n < sizeof p.text)
        n += vsnprintf(p.text + n, sizeof p.text - (size_t)n, format, args);
    va_end(args);
    if (n < 0 || (size_t)n >= sizeof p.text)
        die("the path of the run directory is too long");
    return p;
}

int file_replace(const char *path, const char *text, int mode)
{
    char temporary[PATH_MAX];
    if (snprintf(temporary, sizeof temporary, "%s.%ld", path, (long)getpid()) >=
        (int)sizeof temporary) {
        errno = ENAMETOOLONG;
        return -1;
    }
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
    if (fd < 0)
        return -1;
    int result = write_all(fd, text, strlen(text));
    close_quietly(&fd);
    if (result != 0 || rename(temporary, path) != 0) {
        int error = errno;
        unlink(temporary);
        errno = error;
        return -1;
    }
    return 0;
}

char *file_read(const char *path, size_t bytes_max)
{
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    char *text = malloc(bytes_max + 1);
    if (!text)
        return NULL;
    size_t len = 0;
    while (len < bytes_max) {
        ssize_t n = read(fd, text + len, bytes_max - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            free(text);
            return NULL;
        }
        if (n == 0)
            break;
        len += (size_t)n;
    }
    text[len] = '\0';
    return text;
}

int open_log(const char *path)
{
    int fd = open(path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    struct stat st;
    char last = '\n';
    if (fd < 0 || fstat(fd, &st) != 0 ||
        (st.st_size > 0 && pread(fd, &last, 1, st.st_size - 1) != 1) ||
        (last != '\n' && write_all(fd, "\n", 1) != 0))
        die("cannot write %s: %s", path, strerror(errno));
    return fd;
}

void port_publish(const char *name, uint16_t port)
{
    char text[16];
    snprintf(text, sizeof text, "%u\n", port);
    if (file_replace(run_path("ports/%s", name).text, text, 0600) != 0)
        die("cannot write ports/%s: %s", name, strerror(errno));
}

uint16_t port_wait(const char *name, int timeout_ms)
{
    uint64_t deadline = now_ns() + (uint64_t)timeout_ms * 1000000;
    do {
        AUTO_FREE char *text = file_read(run_path("ports/%s", name).text, 15);
        if (text && atoi(text) > 0)
            return (uint16_t)atoi(text);
    } while (now_ns() < deadline && wait_for(-1, 20));
    return 0;
}

/* ---- sockets ---- */

static struct sockaddr_in loopback(const char *ip, uint16_t port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    if (!ip || inet_pton(AF_INET, ip, &a.sin_addr) != 1)
        a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return a;
}

int listen_address(const char *ip, uint16_t *port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int one = 1;
    struct sockaddr_in a = loopback(ip, *port);
    socklen_t len = sizeof a;
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) != 0 ||
        bind(fd, (struct sockaddr *)&a, sizeof a) != 0 || listen(fd, 64) != 0 ||
        getsockname(fd, (struct sockaddr *)&a, &len) != 0) {
        close_quietly(&fd);
        return -1;
    }
    *port = ntohs(a.sin_port);
    return fd;
}

int listen_loopback(uint16_t *port)
{
    int fd = listen_address(NULL, port);
    if (fd < 0)
        die("cannot listen on 127.0.0.1:%u: %s", *port, strerror(errno));
    return fd;
}

int connect_loopback(const char *source_ip, uint16_t port, int timeout_ms)
{
    return connect_address(source_ip, NULL, port, timeout_ms);
}

int connect_address(const char *source_ip, const char *ip, uint16_t port, int timeout_ms)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    struct timeval timeout = {.tv_sec = timeout_ms / 1000, .tv_usec = timeout_ms % 1000 * 1000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
    struct sockaddr_in from = loopback(source_ip, 0), to = loopback(ip, port);
    if ((source_ip && bind(fd, (struct sockaddr *)&from, sizeof from) != 0) ||
        connect(fd, (struct sockaddr *)&to, sizeof to) != 0) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    send_at_once(fd);
    return fd;
}

void send_at_once(int fd)
{
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
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

void close_quietly(int *fd)
{
    int error = errno;
    if (*fd >= 0)
        close(*fd);
    errno = error;
}

void free_quietly(void *pointer_to_pointer)
{
    free(*(void **)pointer_to_pointer);
}

/* ---- HTTP ---- */

int http_open(uint16_t port, const struct http_call *call)
{
    int fd = connect_loopback(call->source_ip, port, call->timeout_ms ? call->timeout_ms : 5000);
    if (fd < 0)
        return -1;
    size_t body_len = call->body ? strlen(call->body) : 0;
    AUTO_FREE char *request = NULL;
    int n = asprintf(&request,
                     "%s %s HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nConnection: close\r\n"
                     "Content-Length: %zu\r\n%s\r\n%s",
                     call->method, call->path, port, body_len, call->headers ? call->headers : "",
                     call->body ? call->body : "");
    if (n < 0 || write_all(fd, request, (size_t)n) != 0) {
        close_quietly(&fd);
        return -1;
    }
    return fd;
}

/* Undoes "Transfer-Encoding: chunked" in place; -1 when the last chunk is missing. */
static int chunks_join(char *body, size_t len, size_t *ret_len)
{
    char *in = body, *end = body + len, *out = body;
    for (;;) {
        char *line_end = memchr(in, '\n', (size_t)(end - in));
        if (!line_end)
            return -1;
        size_t n = strtoul(in, NULL, 16);
        in = line_end + 1;
        if (n == 0)
            break;
        if (n > (size_t)(end - in) || (size_t)(end - in) - n < 2)
            return -1;
        memmove(out, in, n);
        out += n;
        in += n + 2;
    }
    *out = '\0';
    *ret_len = (size_t)(out - body);
    return 0;
}

int http_call(uint16_t port, const struct http_call *call, struct http_answer *ret)
{
    AUTO_CLOSE int fd = http_open(port, call);
    if (fd < 0)
        return -1;
    AUTO_FREE char *text = NULL;
    size_t len = 0, cap = 0;
    for (;;) {
        if (cap - len < 4096) {
            cap = cap ? cap * 2 : 16384;
            char *bigger = cap > ANSWER_BYTES_MAX ? NULL : realloc(text, cap);
            if (!bigger)
                return -1;
            text = bigger;
        }
        ssize_t n = read(fd, text + len, cap - len - 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        if (n == 0)
            break;
        len += (size_t)n;
    }
    text[len] = '\0';

    int status;
    char *body = strstr(text, "\r\n\r\n");
    if (!body || sscanf(text, "HTTP/1.%*d %d", &status) != 1)
        return -1;
    *body = '\0';
    body += 4;
    size_t body_len = len - (size_t)(body - text);
    if (strcasestr(text, "\r\nTransfer-Encoding: chunked") &&
        chunks_join(body, body_len, &body_len) != 0)
        return -1;
    const char *announced = strcasestr(text, "\r\nContent-Length:");
    if (announced && strtoull(announced + strlen("\r\nContent-Length:"), NULL, 10) != body_len)
        return -1;
    char *copy = malloc(body_len + 1);
    if (!copy)
        return -1;
    memcpy(copy, body, body_len + 1);
    *ret = (struct http_answer){.status = status, .body = copy, .body_len = body_len};
    return 0;
}

/* ---- following a file ---- */

int follower_open(struct follower *f, const char *path, uint64_t offset)
{
    *f = (struct follower){.fd = open(path, O_RDONLY | O_CLOEXEC), .offset = offset};
    if (f->fd < 0)
        return -1;
    return lseek(f->fd, (off_t)offset, SEEK_SET) < 0 ? -1 : 0;
}

void follower_close(struct follower *f)
{
    close_quietly(&f->fd);
    free(f->bytes);
    *f = (struct follower){.fd = -1};
}

/* False at the end of what there is now. */
static bool read_more(struct follower *f)
{
    if (f->bytes && f->at > 0) {
        memmove(f->bytes, f->bytes + f->at, f->len - f->at);
        f->len -= f->at;
        f->at = 0;
    }
    if (f->len == f->cap) {
        size_t cap = f->cap ? f->cap * 2 : 65536;
        char *bigger = realloc(f->bytes, cap);
        if (!bigger)
            die("out of memory");
        f->bytes = bigger;
        f->cap = cap;
    }
    ssize_t n;
    while ((n = read(f->fd, f->bytes + f->len, f->cap - f->len)) < 0 && errno == EINTR)
        ;
    if (n <= 0)
        return false;
    f->len += (size_t)n;
    return true;
}

char *follower_line(struct follower *f, uint64_t *ret_offset)
{
    size_t seen = 0; /* bytes after `at` known to hold no newline */
    do {
        char *start, *newline;
        while (f->len > f->at + seen && (start = f->bytes + f->at) &&
               (newline = memchr(start + seen, '\n', f->len - f->at - seen))) {
            size_t len = (size_t)(newline - start);
            bool whole = !f->passing_over && len <= LINE_BYTES_MAX;
            *ret_offset = f->offset;
            f->offset += len + 1;
            f->at += len + 1;
            f->passing_over = false;
            seen = 0;
            if (whole) {
                *newline = '\0';
                return start;
            }
            f->too_long++;
        }
        seen = f->len - f->at;
        if (seen > LINE_BYTES_MAX) { /* no need to keep what will be passed over */
            f->passing_over = true;
            f->offset += seen;
            f->at = f->len;
            seen = 0;
        }
    } while (read_more(f));
    return NULL;
}

int watch_path(const char *path)
{
    int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (fd < 0 || inotify_add_watch(fd, path, IN_CREATE | IN_MODIFY | IN_MOVED_TO) < 0)
        die("cannot watch %s: %s", path, strerror(errno));
    return fd;
}

void watch_drain(int fd)
{
    char events[4096];
    while (read(fd, events, sizeof events) > 0)
        ;
}

/* ---- small things ---- */

uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void timestamp_format(char out[28], uint64_t epoch_ns)
{
    time_t seconds = (time_t)(epoch_ns / 1000000000u);
    struct tm tm;
    gmtime_r(&seconds, &tm);
    size_t n = strftime(out, 28, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(out + n, 28 - n, ".%06uZ", (unsigned)(epoch_ns % 1000000000u / 1000));
}

double timestamp_parse(const char *text)
{
    struct tm tm = {0};
    const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
    if (!rest)
        return -1;
    double fraction = *rest == '.' ? strtod(rest, NULL) : 0;
    return (double)timegm(&tm) + fraction;
}

void random_hex(char *out, size_t n_bytes)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < n_bytes; i++) {
        unsigned char byte;
        if (getrandom(&byte, 1, 0) != 1)
            die("no random numbers: %s", strerror(errno));
        *out++ = digits[byte >> 4];
        *out++ = digits[byte & 15];
    }
    *out = '\0';
}
