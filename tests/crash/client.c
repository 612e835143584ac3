#include "client.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../bench/grpc_client.h"
#include "base/clock.h"
#include "base/json.h"
#include "wire/otlp.h"
#include "wire/otlp_json.h"
#include "wire/otlp_logs.h"
#include "wire/otlp_metrics.h"
#include "wire/zipkin.h"

enum {
    READY_MS = 30000,
    STOP_MS = 30000,
    ANSWER_S = 15,
    ARGS_MAX = 32,
};

char scratch[64];

void give_up(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    printf("Bail out! ");
    vprintf(format, args);
    printf(" (files in %s)\n", scratch);
    va_end(args);
    exit(1);
}

const char *form_name(enum form form)
{
    static const char *const names[FORMS] = {"OTLP/HTTP",   "OTLP/gRPC", "OTLP JSON",
                                             "Zipkin JSON", "logs",      "metrics"};
    return names[form];
}

/* ---- bodies ---- */

void number_put(uint8_t *to, uint64_t n)
{
    for (int i = 0; i < 8; i++)
        to[i] = (uint8_t)(n >> (56 - 8 * i));
}

uint64_t number_get(const uint8_t *from)
{
    uint64_t n = 0;
    for (int i = 0; i < 8; i++)
        n = n << 8 | from[i];
    return n;
}

static struct attr service = {STR("service.name"), {.type = VALUE_STRING, .string = STR("crash")}};
static const struct resource resource = {.attrs = {&service, 1, 0}, .service_name = STR("crash")};
static const struct scope scope = {.name = STR("crash_test")};

static void spans_make(enum form form, uint32_t number, uint64_t time_ns, bool doomed,
                       struct buf *out)
{
    struct attr attrs[] = {{STR("body"), {.type = VALUE_INT, .integer = number}},
                           {STR("doomed"), {.type = VALUE_BOOL, .boolean = true}}};
    struct span spans[BODY_SPANS] = {0};
    for (int i = 0; i < BODY_SPANS; i++) {
        number_put(spans[i].trace_id.bytes, BODY_TRACE_HIGH);
        number_put(spans[i].trace_id.bytes + 8, number);
        number_put(spans[i].span_id.bytes, (uint64_t)number * BODY_SPANS + (uint64_t)i + 1);
        if (i)
            spans[i].parent_id = spans[0].span_id;
        spans[i].name = STR("work");
        spans[i].start_ns = time_ns;
        spans[i].end_ns = time_ns + 1000;
        spans[i].attrs = (struct attrs){attrs, doomed ? 2 : 1, 0};
        spans[i].resource = &resource;
        spans[i].scope = &scope;
    }
    const struct span_batch batch = {.spans = spans, .n = BODY_SPANS};
    struct json_writer w = json_writer(out);
    if (form == FORM_OTLP_JSON)
        otlp_json_encode(&batch, &w);
    else if (form == FORM_ZIPKIN_JSON)
        zipkin_json_encode(&batch, &w);
    else
        otlp_encode(&batch, out);
}

void body_make(enum form form, uint32_t number, uint64_t time_ns, bool doomed, struct buf *out)
{
    buf_clear(out);
    if (form == FORM_LOGS) {
        struct log_record record = {.time_ns = time_ns,
                                    .severity = 9,
                                    .body = {.type = VALUE_INT, .integer = number},
                                    .resource = &resource,
                                    .scope = &scope};
        const struct log_batch batch = {.records = &record, .n = 1};
        otlp_logs_encode(&batch, out);
    } else if (form == FORM_METRICS) {
        const struct metric_point point = {.time_ns = time_ns, .integer = number};
        const struct metric metric = {
            .name = STR(BODY_METRIC), .type = METRIC_GAUGE, .points = &point, .n_points = 1};
        const struct metric_batch batch = {
            .metrics = &metric, .n = 1, .resource = &resource, .scope = &scope};
        otlp_metrics_encode(&batch, out);
    } else {
        spans_make(form, number, time_ns, doomed, out);
    }
    if (!buf_ok(out))
        give_up("out of memory");
}

/* ---- the server ---- */

static char *ready_read(const char *path)
{
    static char text[2048];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0)
        return NULL;
    text[n] = '\0';
    return text;
}

static uint16_t port_of(const char *text, const char *name)
{
    char key[64];
    snprintf(key, sizeof key, "\"%s\":\"http://127.0.0.1:", name);
    const char *at = strstr(text, key);
    if (!at)
        give_up("no %s in the ready file: %s", name, text);
    return (uint16_t)atoi(at + strlen(key));
}

__attribute__((noreturn)) static void server_exec(const char *pugmark, const char *data,
                                                  const char *ready, const char *const *args,
                                                  const char *const *environment)
{
    const char *all[ARGS_MAX] = {pugmark,        "serve", "--ports", "auto",
                                 "--ready-file", ready,   "--data",  data};
    size_t n = 8;
    char errors[100];
    snprintf(errors, sizeof errors, "%s/stderr", scratch);
    int fd = open(errors, O_WRONLY | O_CREAT | O_APPEND, 0600);
    dup2(fd, STDERR_FILENO);
    dup2(fd, STDOUT_FILENO);
    for (; args && *args && n < ARGS_MAX - 1; args++)
        all[n++] = *args;
    for (; environment && *environment; environment++)
        putenv((char *)(uintptr_t)*environment);
    execv(pugmark, (char **)(uintptr_t)all);
    _exit(127);
}

bool server_start(const char *pugmark, const char *data, const char *const *args,
                  const char *const *environment, struct server *ret, int *ret_status)
{
    char ready[100], *text;
    snprintf(ready, sizeof ready, "%s/ready", scratch);
    unlink(ready);
    fflush(stdout);
    struct server s = {.pid = fork()};
    if (s.pid < 0)
        give_up("fork: %s", strerror(errno));
    if (s.pid == 0)
        server_exec(pugmark, data, ready, args, environment);
    uint64_t end = clock_monotonic_ns() + READY_MS * NS_PER_MS;
    while (!(text = ready_read(ready))) {
        if (waitpid(s.pid, ret_status, WNOHANG) == s.pid)
            return false;
        if (clock_monotonic_ns() > end) {
            kill(s.pid, SIGABRT);
            give_up("the server is not ready after %d ms; its words are in %s/stderr", READY_MS,
                    scratch);
        }
        usleep(1000);
    }
    s.otlp_http = port_of(text, "otlp_http");
    s.otlp_grpc = port_of(text, "otlp_grpc");
    s.zipkin = port_of(text, "zipkin");
    s.page = port_of(text, "page");
    *ret = s;
    return true;
}

bool server_stop(struct server *s, int *ret_status)
{
    kill(s->pid, SIGTERM);
    uint64_t end = clock_monotonic_ns() + STOP_MS * NS_PER_MS;
    while (waitpid(s->pid, ret_status, WNOHANG) != s->pid) {
        if (clock_monotonic_ns() > end) {
            kill(s->pid, SIGABRT);
            waitpid(s->pid, ret_status, 0);
            return false;
        }
        usleep(1000);
    }
    return true;
}

/* ---- sending ---- */

struct conn {
    enum form form;
    int fd; /* -1: gone */
    struct grpc_client *grpc;
    struct buf head;
};

static int connect_to(uint16_t port)
{
    const struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    const struct timeval patience = {.tv_sec = ANSWER_S};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), yes = 1;
    if (fd < 0)
        return -1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (connect(fd, (const struct sockaddr *)&to, sizeof to)) {
        close(fd);
        return -1;
    }
    return fd;
}

static bool send_all(int fd, const char *bytes, size_t n)
{
    while (n > 0) {
        ssize_t wrote = send(fd, bytes, n, MSG_NOSIGNAL);
        if (wrote <= 0)
            return false;
        bytes += wrote;
        n -= (size_t)wrote;
    }
    return true;
}

/* The status of the answer, read to its end into `text`; 0 when the connection ends before, except that an answer
 * without a length lasts until then. */
static int answer_read(int fd, struct buf *text, size_t *ret_body_at)
{
    size_t total = 0;
    buf_clear(text);
    for (;;) {
        if (!buf_reserve(text, 4097))
            give_up("out of memory");
        ssize_t got = recv(fd, text->ptr + text->len, 4096, 0);
        if (got <= 0 && !(got == 0 && total == SIZE_MAX))
            return 0;
        text->len += (size_t)got;
        text->ptr[text->len] = '\0';
        char *end = strstr(text->ptr, "\r\n\r\n");
        if (end && !total) {
            char *length = strcasestr(text->ptr, "\r\nContent-Length:");
            *ret_body_at = (size_t)(end + 4 - text->ptr);
            total = length && length < end ? *ret_body_at + strtoul(length + 17, NULL, 10)
                                           : SIZE_MAX;
        }
        if (got == 0 || (total && text->len >= total))
            return strncmp(text->ptr, "HTTP/1.1 ", 9) ? 0 : atoi(text->ptr + 9);
    }
}

struct conn *conn_new(const struct server *server, enum form form)
{
    struct conn *c = calloc(1, sizeof *c);
    if (!c)
        give_up("out of memory");
    c->form = form;
    c->fd = connect_to(form == FORM_OTLP_GRPC     ? server->otlp_grpc
                       : form == FORM_ZIPKIN_JSON ? server->zipkin
                                                  : server->otlp_http);
    if (form == FORM_OTLP_GRPC) {
        c->grpc = grpc_client_new(c->fd);
        c->fd = -1;
    }
    return c;
}

void conn_free(struct conn *c)
{
    grpc_client_free(c->grpc);
    if (c->fd >= 0)
        close(c->fd);
    buf_done(&c->head);
    free(c);
}

static int grpc_send(struct conn *c, const struct buf *body)
{
    enum { OK = 0, RESOURCE_EXHAUSTED = 8, UNAVAILABLE = 14 };
    struct grpc_answer answer;
    const uint8_t frame[5] = {0, (uint8_t)(body->len >> 24), (uint8_t)(body->len >> 16),
                              (uint8_t)(body->len >> 8), (uint8_t)body->len};
    buf_clear(&c->head);
    buf_put(&c->head, frame, sizeof frame);
    buf_put(&c->head, body->ptr, body->len);
    if (!buf_ok(&c->head))
        give_up("out of memory");
    if (!c->grpc || grpc_client_call(c->grpc, c->head.ptr, c->head.len, &answer) ||
        answer.status < 0)
        return 0;
    return answer.status == OK                                                   ? 200
           : answer.status == RESOURCE_EXHAUSTED || answer.status == UNAVAILABLE ? 503
                                                                                 : 400;
}

int conn_send(struct conn *c, const struct buf *body)
{
    static const char *const paths[FORMS] = {"/v1/traces",    "",         "/v1/traces",
                                             "/api/v2/spans", "/v1/logs", "/v1/metrics"};
    size_t body_at;
    if (c->form == FORM_OTLP_GRPC)
        return grpc_send(c, body);
    if (c->fd < 0)
        return 0;
    buf_clear(&c->head);
    buf_printf(&c->head,
               "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: "
               "application/%s\r\nContent-Length: %zu\r\n\r\n",
               paths[c->form],
               c->form == FORM_OTLP_JSON || c->form == FORM_ZIPKIN_JSON ? "json" : "x-protobuf",
               body->len);
    buf_put(&c->head, body->ptr, body->len);
    if (!buf_ok(&c->head))
        give_up("out of memory");
    int status = send_all(c->fd, c->head.ptr, c->head.len) ? answer_read(c->fd, &c->head, &body_at)
                                                           : 0;
    return status == 202 ? 200 : status;
}

int http_ask(uint16_t port, const char *method, const char *path, struct buf *ret_body)
{
    struct buf text = BUF_INIT;
    size_t body_at = 0;
    int fd = connect_to(port), status = 0;
    buf_printf(&text, "%s %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", method,
               path);
    if (fd >= 0 && send_all(fd, text.ptr, text.len))
        status = answer_read(fd, &text, &body_at);
    if (ret_body && status) {
        buf_clear(ret_body);
        buf_put(ret_body, text.ptr + body_at, text.len - body_at);
    }
    if (fd >= 0)
        close(fd);
    buf_done(&text);
    return status;
}

/* ---- directories ---- */

static bool file_copy(int from, int to, const char *name)
{
    int in = openat(from, name, O_RDONLY | O_CLOEXEC);
    int out = openat(to, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    char bytes[65536];
    ssize_t n = -1;
    while (in >= 0 && out >= 0 && (n = read(in, bytes, sizeof bytes)) > 0) {
        if (write(out, bytes, (size_t)n) != n) {
            n = -1;
            break;
        }
    }
    if (in >= 0)
        close(in);
    if (out >= 0)
        close(out);
    return n == 0;
}

static DIR *dir_open(const char *path)
{
    DIR *dir = opendir(path);
    if (!dir)
        give_up("%s: %s", path, strerror(errno));
    return dir;
}

static bool is_own(const char *name)
{
    return strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

static void entry_copy(const char *from_path, const char *to_path, DIR *from, DIR *to,
                       const struct dirent *e)
{
    char from_sub[200], to_sub[200];
    if (e->d_type == DT_DIR) {
        snprintf(from_sub, sizeof from_sub, "%s/%.60s", from_path, e->d_name);
        snprintf(to_sub, sizeof to_sub, "%s/%.60s", to_path, e->d_name);
        dir_copy(from_sub, to_sub);
    } else if (!file_copy(dirfd(from), dirfd(to), e->d_name)) {
        give_up("%s/%s cannot be copied", from_path, e->d_name);
    }
}

void dir_copy(const char *from_path, const char *to_path)
{
    if (mkdir(to_path, 0700))
        give_up("%s: %s", to_path, strerror(errno));
    DIR *from = dir_open(from_path), *to = dir_open(to_path);
    for (struct dirent *e; (e = readdir(from));)
        if (is_own(e->d_name))
            entry_copy(from_path, to_path, from, to, e);
    closedir(from);
    closedir(to);
}

void dir_remove(const char *path)
{
    DIR *dir = dir_open(path);
    char sub[200];
    for (struct dirent *e; (e = readdir(dir));) {
        if (!is_own(e->d_name))
            continue;
        snprintf(sub, sizeof sub, "%s/%.60s", path, e->d_name);
        if (e->d_type == DT_DIR)
            dir_remove(sub);
        else
            unlink(sub);
    }
    closedir(dir);
    if (rmdir(path))
        give_up("%s: %s", path, strerror(errno));
}
