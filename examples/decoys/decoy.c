/* A decoy: a service that is nothing but its face, and writes down who looks at it.
 *
 *   decoy --dir DIR --kind http|https|ssh|telnet --name NAME [--address IP] [--port N]
 *         [--banner TEXT] [--tls-max 1.2|1.3]
 *
 * Each connection gets a thread and a span; each thing the visitor does becomes one line in
 * containers/NAME.log, in the form of RFC 5424:
 *
 *   <134>1 2026-11-20T13:00:00.000000Z web-01 http - request
 *       [decoy@32473 src_ip="127.0.7.1" method="GET" ...][trace@32473 traceparent="00-..."] text
 *
 * The trace comes in with the visitor where the protocol has room for it (HTTP: the headers; SSH:
 * the comment that RFC 4253 allows in the version string; telnet: the environment of RFC 1572) and
 * goes on in the line's second element. A span begins when it is known whose child it is: after the
 * headers, the version string, the negotiation.
 *
 * --banner is what it calls itself: the Server header, the version string (one of ssh.c's, whose
 * lists of algorithms it then has), the line over the login.
 *
 * What the visitor sends is hostile: it is bounded, and it cannot end a line or an element
 * (events.h). */
#include "common.h"
#include "events.h"
#include "fingerprint.h"
#include "ssh.h"
#include "tls_server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include <pugmark/pugmark.h>

#define CONNECTIONS_MAX 64
#define VISITOR_TIMEOUT_S 10
#define HEAD_BYTES_MAX 16384
#define BODY_BYTES_MAX 4096
#define BANNER_BYTES_MAX 120

struct visitor {
    int fd;
    SSL *tls; /* NULL: none */
    char ip[INET_ADDRSTRLEN];
    uint16_t port;
};

static const char *decky, *kind;
static const char *banner; /* what it calls itself; NULL: the usual */
static SSL_CTX *tls;       /* of an https decoy */
static atomic_int connections;

/* ---- what is written down ---- */

/* What an event is about; a list ends with {0}, a NULL value is left out. */
struct param {
    const char *name, *value;
};
#define PARAMS(...) ((const struct param[]){__VA_ARGS__, {0}})

static void log_event(const struct visitor *v, const char *event_type, const char *message,
                      const struct param *params)
{
    struct event e;
    event_begin(&e, event_type, 0);
    event_param(&e, "src_ip", v->ip);
    event_number(&e, "src_port", v->port);

    /* What the kernel knows of the visitor's TCP: fingerprints for the profiler. */
    struct tcp_info tcp;
    socklen_t tcp_size = sizeof tcp;
    if (getsockopt(v->fd, IPPROTO_TCP, TCP_INFO, &tcp, &tcp_size) == 0) {
        event_number(&e, "tcp_mss", tcp.tcpi_snd_mss);
        event_number(&e, "tcp_wscale", tcp.tcpi_snd_wscale);
        event_number(&e, "tcp_rtt_us", tcp.tcpi_rtt);
    }
    for (; params->name; params++)
        event_param(&e, params->name, params->value);
    event_write(&e, message);
}

/* ---- the visitor's bytes, inside TLS where that is spoken ---- */

static ssize_t visitor_read(const struct visitor *v, void *out, size_t n)
{
    return v->tls ? SSL_read(v->tls, out, (int)n) : read(v->fd, out, n);
}

static void visitor_write(const struct visitor *v, const void *bytes, size_t n)
{
    if (v->tls)
        SSL_write(v->tls, bytes, (int)n);
    else
        write_all(v->fd, bytes, n);
}

/* ---- HTTP ---- */

/* The nth of its name, from 0; ends with its line. */
static const char *http_header(const char *head, const char *name, size_t nth)
{
    size_t n = strlen(name);
    for (const char *line = strchr(head, '\n'); line; line = strchr(line, '\n')) {
        line++;
        if (strncasecmp(line, name, n) == 0 && line[n] == ':' && nth-- == 0)
            return line + n + 1 + strspn(line + n + 1, " \t");
    }
    return NULL;
}

/* A copy of a header's value, NULL when it is missing. */
static char *http_header_copy(const char *head, const char *name)
{
    const char *value = http_header(head, name, 0);
    return value ? strndup(value, strcspn(value, "\r\n")) : NULL;
}

/* A carrier: extract asks for its fields here. */
static const char *carried_in_headers(void *head, const char *name, size_t nth, size_t *ret_len)
{
    const char *value = http_header(head, name, nth);
    if (value)
        *ret_len = strcspn(value, "\r\n");
    return value;
}

static void http_answer(const struct visitor *v, int status, const char *reason, const char *extra,
                        const char *page)
{
    char text[2048];
    int n = snprintf(text, sizeof text,
                     "HTTP/1.1 %d %s\r\nServer: %s\r\nContent-Type: text/html\r\n"
                     "Content-Length: %zu\r\nConnection: close\r\n%s\r\n%s",
                     status, reason, banner ? banner : "Apache/2.4.57 (Debian)", strlen(page),
                     extra, page);
    visitor_write(v, text, (size_t)n);
}

static void http_serve(const struct visitor *v)
{
    char head[HEAD_BYTES_MAX + 1], *body = NULL;
    size_t len = 0;
    do {
        ssize_t n = visitor_read(v, head + len, HEAD_BYTES_MAX - len);
        if (n <= 0)
            return; /* a port scan, or too slow */
        len += (size_t)n;
        head[len] = '\0';
    } while (!(body = strstr(head, "\r\n\r\n")) && len < HEAD_BYTES_MAX);
    if (!body) {
        http_answer(v, 431, "Request Header Fields Too Large", "", "");
        return;
    }
    *body = '\0';
    body += 4;
    size_t body_len = len - (size_t)(body - head);
    const char *announced = http_header(head, "Content-Length", 0);
    size_t body_max = announced ? strtoul(announced, NULL, 10) : 0;
    if (body_max > BODY_BYTES_MAX)
        body_max = BODY_BYTES_MAX;
    if (body_max > (size_t)(head + HEAD_BYTES_MAX - body))
        body_max = (size_t)(head + HEAD_BYTES_MAX - body);
    while (body_len < body_max) {
        ssize_t n = visitor_read(v, body + body_len, body_max - body_len);
        if (n <= 0)
            break;
        body_len += (size_t)n;
    }
    body[body_len] = '\0';

    char method[16] = "", path[512] = "";
    sscanf(head, "%15s %511s", method, path);
    struct pug_context caller;
    pug_extract(carried_in_headers, head, &caller);
    PUG_SPAN_FROM(&caller, "decoy.http_request", PUG_KIND(PUG_KIND_SERVER), PUG_STR("decky", decky),
                  PUG_STR("client.address", v->ip), PUG_STR("http.request.method", method),
                  PUG_STR("url.path", path));

    AUTO_FREE char *agent = http_header_copy(head, "User-Agent");
    AUTO_FREE char *host = http_header_copy(head, "Host");
    AUTO_FREE char *authorization = http_header_copy(head, "Authorization");
    log_event(v, "request", "HTTP request",
              PARAMS({"method", method}, {"path", path}, {"host", host}, {"user_agent", agent},
                     {"authorization", authorization}, {"body", *body ? body : NULL}));
    int status;
    if (strcmp(method, "GET") != 0 && strcmp(method, "POST") != 0 && strcmp(method, "HEAD") != 0)
        http_answer(v, status = 405, "Method Not Allowed", "", "");
    else if (strcmp(path, "/") == 0 || strcmp(path, "/login") == 0)
        http_answer(v, status = 200, "OK", "",
                    "<html><title>Router</title><form method=post action=/login>"
                    "<input name=username><input name=password type=password></form></html>");
    else if (strncmp(path, "/admin", 6) == 0)
        http_answer(v, status = 401, "Unauthorized", "WWW-Authenticate: Basic realm=\"admin\"\r\n",
                    "<h1>401</h1>");
    else
        http_answer(v, status = 404, "Not Found", "", "<h1>Not Found</h1>");
    pug_set_int(PUG_CURRENT, "http.response.status_code", status);
}

/* ---- SSH: only as far as the lists of algorithms ---- */

/* The value of NAME=VALUE among the words of a text; the name in either case, as environment
 * variables are upper case. */
static const char *carried_in_words(void *text, const char *name, size_t nth, size_t *ret_len)
{
    size_t n = strlen(name);
    for (const char *word = text; *word; word += strcspn(word, " "), word += strspn(word, " ")) {
        if (strncasecmp(word, name, n) == 0 && word[n] == '=' && nth-- == 0) {
            *ret_len = strcspn(word + n + 1, " ");
            return word + n + 1;
        }
    }
    return NULL;
}

/* The face of the server whose version string it is, else of the first. */
static const struct ssh_profile *ssh_profile(void)
{
    for (size_t i = 0; banner && i < ssh_n_server_profiles; i++)
        if (strcmp(ssh_server_profiles[i].version, banner) == 0)
            return &ssh_server_profiles[i];
    return &ssh_server_profiles[0];
}

static void ssh_serve(const struct visitor *v)
{
    const struct ssh_profile *profile = ssh_profile();
    uint8_t packet[SSH_PACKET_MAX];
    char version[SSH_VERSION_MAX + 1];
    /* RFC 4253, 4.2 and 7.1: the lists may follow at once. */
    size_t n = ssh_kexinit_build(profile, packet, sizeof packet);
    if (dprintf(v->fd, "%s\r\n", profile->version) < 0 || n == 0 ||
        write_all(v->fd, packet, n) != 0)
        return;
    bool whole = ssh_read_version(v->fd, version);

    struct pug_context caller;
    pug_extract(carried_in_words, version, &caller);
    PUG_SPAN_FROM(&caller, "decoy.ssh_session", PUG_KIND(PUG_KIND_SERVER), PUG_STR("decky", decky),
                  PUG_STR("client.address", v->ip));
    version[strcspn(version, " ")] = '\0'; /* without the comment */
    bool proper = strncmp(version, "SSH-2.0-", 8) == 0 || strncmp(version, "SSH-1.99-", 9) == 0;
    struct ssh_algorithms algorithms;
    char lists[4 * SSH_NAMES_MAX + 4], hash[65] = "";
    long len = whole && proper ? ssh_read_packet(v->fd, packet) : -1;
    if (len > 0 && ssh_kexinit_parse(packet, (size_t)len, &algorithms))
        hassh(&algorithms, false, lists, hash);
    log_event(v, proper ? "client_banner" : "not_ssh", "SSH version exchange",
              PARAMS({"client_version", version}, {"hassh", *hash ? hash : NULL}));
    if (!proper)
        write_all(v->fd, "Invalid SSH identification string.\r\n", 36);
    else if (*hash && (n = ssh_disconnect_build(3, "key exchange failed", packet, sizeof packet)))
        write_all(v->fd, packet, n);
}

/* ---- telnet ---- */

enum { IAC = 255, DO = 253, WONT = 252, WILL = 251, SB = 250, SE = 240, NEW_ENVIRON = 39 };
enum { ENV_IS = 0, ENV_SEND = 1, ENV_VAR = 0, ENV_VALUE = 1, ENV_USERVAR = 3 };

struct telnet {
    int fd;
    enum { TEXT, COMMAND, OPTION, SUBOPTION, SUBOPTION_COMMAND } state;
    unsigned char verb;
    unsigned char sub[1024]; /* a suboption under way */
    size_t sub_len;
    bool env_settled;      /* the environment came, or will not come */
    char environment[512]; /* "name=value name=value" */
    unsigned char in[512];
    size_t at, len;
};

/* RFC 1572: IS (VAR|USERVAR name VALUE value)* */
static void telnet_environment(struct telnet *t)
{
    const unsigned char *p = t->sub + 2, *end = t->sub + t->sub_len;
    size_t n = 0;
    for (; p < end && n < sizeof t->environment - 1; p++) {
        if (*p == ENV_VAR || *p == ENV_USERVAR)
            t->environment[n++] = ' ';
        else if (*p == ENV_VALUE)
            t->environment[n++] = '=';
        else
            t->environment[n++] = (char)*p;
    }
    t->environment[n] = '\0';
    t->env_settled = true;
}

/* One byte from the wire: true when it is text. */
static bool telnet_take(struct telnet *t, unsigned char c)
{
    switch (t->state) {
    case TEXT:
        if (c == IAC)
            t->state = COMMAND;
        return c != IAC;
    case COMMAND:
        t->state = c == SB ? SUBOPTION : c >= WILL && c < IAC ? OPTION : TEXT;
        t->verb = c;
        t->sub_len = 0;
        return c == IAC; /* doubled: the byte itself */
    case OPTION:
        t->state = TEXT;
        if (c == NEW_ENVIRON && t->verb == WILL)
            write_all(t->fd, (unsigned char[]){IAC, SB, NEW_ENVIRON, ENV_SEND, IAC, SE}, 6);
        else if (c == NEW_ENVIRON && t->verb == WONT)
            t->env_settled = true;
        return false;
    case SUBOPTION:
        if (c == IAC)
            t->state = SUBOPTION_COMMAND;
        else if (t->sub_len < sizeof t->sub)
            t->sub[t->sub_len++] = c;
        return false;
    case SUBOPTION_COMMAND:
        t->state = c == SE ? TEXT : SUBOPTION;
        if (c == SE && t->sub_len >= 2 && t->sub[0] == NEW_ENVIRON && t->sub[1] == ENV_IS)
            telnet_environment(t);
        return false;
    }
    return false;
}

static bool telnet_fill(struct telnet *t)
{
    ssize_t n = read(t->fd, t->in, sizeof t->in);
    t->at = 0;
    t->len = n > 0 ? (size_t)n : 0;
    return n > 0;
}

/* Waits for the visitor's answer to "DO NEW-ENVIRON". Whoever types by hand gives none. */
static void telnet_negotiate(struct telnet *t)
{
    write_all(t->fd, (unsigned char[]){IAC, DO, NEW_ENVIRON}, 3);
    struct pollfd p = {.fd = t->fd, .events = POLLIN};
    while (!t->env_settled && poll(&p, 1, 200) > 0 && telnet_fill(t)) {
        while (t->at < t->len && !t->env_settled)
            if (telnet_take(t, t->in[t->at++])) {
                t->at--; /* text already: it belongs to the first line */
                return;
            }
    }
}

/* Asks, and reads the answer without its line end. False when the visitor is gone. */
static bool telnet_ask(struct telnet *t, const char *prompt, char *line, size_t size)
{
    size_t n = 0;
    if (write_all(t->fd, prompt, strlen(prompt)) != 0)
        return false;
    for (;;) {
        if (t->at == t->len && !telnet_fill(t))
            return false;
        unsigned char c = t->in[t->at++];
        if (!telnet_take(t, c) || c == '\r' || c == '\0')
            continue;
        if (c == '\n')
            break;
        if (n < size - 1)
            line[n++] = (char)c;
    }
    line[n] = '\0';
    return true;
}

static void telnet_serve(const struct visitor *v)
{
    struct telnet t = {.fd = v->fd};
    telnet_negotiate(&t);

    struct pug_context caller;
    pug_extract(carried_in_words, t.environment, &caller);
    PUG_SPAN_FROM(&caller, "decoy.telnet_session", PUG_KIND(PUG_KIND_SERVER),
                  PUG_STR("decky", decky), PUG_STR("client.address", v->ip));
    char user[128] = "", password[128] = "", command[512] = "", login[BANNER_BYTES_MAX + 16];
    snprintf(login, sizeof login, "%s%slogin: ", banner ? banner : "", banner ? "\r\n" : "");
    if (!telnet_ask(&t, login, user, sizeof user) ||
        !telnet_ask(&t, "Password: ", password, sizeof password))
        return;
    log_event(v, "login_attempt", "telnet login",
              PARAMS({"username", user}, {"password", password}));
    int n_commands = 0;
    while (telnet_ask(&t, "$ ", command, sizeof command) && strcmp(command, "exit") != 0) {
        char answer[640];
        log_event(v, "command", "telnet command", PARAMS({"username", user}, {"command", command}));
        n_commands++;
        if (strcmp(command, "id") == 0)
            snprintf(answer, sizeof answer, "uid=0(root) gid=0(root)\r\n");
        else
            snprintf(answer, sizeof answer, "sh: %s: not found\r\n", command);
        if (write_all(v->fd, answer, strlen(answer)) != 0)
            break;
    }
    pug_set_int(PUG_CURRENT, "commands", n_commands);
}

/* ---- connections ---- */

static void (*serve)(const struct visitor *);

static void *visit(void *arg)
{
    struct visitor *v = arg;
    if (!tls || (v->tls = tls_accept(tls, v->fd)))
        serve(v);
    tls_close(v->tls);
    close(v->fd);
    free(v);
    atomic_fetch_sub(&connections, 1); /* pairs with the load in main */
    return NULL;
}

static void welcome(int listener)
{
    struct sockaddr_in from = {0};
    socklen_t len = sizeof from;
    int fd = accept4(listener, (struct sockaddr *)&from, &len, SOCK_CLOEXEC);
    if (fd < 0)
        return;
    struct timeval timeout = {.tv_sec = VISITOR_TIMEOUT_S};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
    send_at_once(fd);
    struct visitor *v = calloc(1, sizeof *v);
    pthread_t thread;
    pthread_attr_t detached;
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    if (v && atomic_load(&connections) < CONNECTIONS_MAX) {
        v->fd = fd;
        v->port = ntohs(from.sin_port);
        inet_ntop(AF_INET, &from.sin_addr, v->ip, sizeof v->ip);
        atomic_fetch_add(&connections, 1);
        if (pthread_create(&thread, &detached, visit, v) == 0)
            return;
        atomic_fetch_sub(&connections, 1);
    }
    free(v);
    close(fd); /* too many at once, or no memory: like a full machine */
}

static int usage(void)
{
    fprintf(stderr,
            "usage: decoy --dir DIR --kind http|https|ssh|telnet --name NAME [--address IP]\n"
            "             [--port N] [--banner TEXT] [--tls-max 1.2|1.3]\n");
    return 2;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"dir", 1, NULL, 'd'},     {"kind", 1, NULL, 'k'},
                                            {"name", 1, NULL, 'n'},    {"port", 1, NULL, 'p'},
                                            {"address", 1, NULL, 'a'}, {"banner", 1, NULL, 'b'},
                                            {"tls-max", 1, NULL, 't'}, {0}};
    const char *dir = NULL, *address = NULL, *port_text = "0", *tls_max = NULL;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        const char **to = c == 'd'   ? &dir
                          : c == 'k' ? &kind
                          : c == 'n' ? &decky
                          : c == 'p' ? &port_text
                          : c == 'a' ? &address
                          : c == 'b' ? &banner
                          : c == 't' ? &tls_max
                                     : NULL;
        if (!to)
            return usage();
        *to = optarg;
    }
    serve = !kind                         ? NULL
            : strcmp(kind, "http") == 0   ? http_serve
            : strcmp(kind, "https") == 0  ? http_serve
            : strcmp(kind, "ssh") == 0    ? ssh_serve
            : strcmp(kind, "telnet") == 0 ? telnet_serve
                                          : NULL;
    if (!dir || !serve || !decky || strlen(decky) > 64 || strcspn(decky, " /\"") != strlen(decky) ||
        (banner && (strlen(banner) > BANNER_BYTES_MAX || strpbrk(banner, "\r\n"))))
        return usage();
    service_start("decoy", dir);
    if (strcmp(kind, "https") == 0 && !(tls = tls_server_new(decky, tls_max)))
        die("cannot speak TLS: %s", tls_error());
    uint16_t port = (uint16_t)atoi(port_text);
    int listener = listen_address(address, &port);
    if (listener < 0)
        die("cannot listen on %s:%u: %s", address ? address : "127.0.0.1", port, strerror(errno));
    events_open(decky, kind);
    port_publish(decky, port);

    struct pollfd p[] = {{.fd = stop_fd(), .events = POLLIN}, {.fd = listener, .events = POLLIN}};
    while (!stopping())
        if (poll(p, 2, -1) > 0 && p[1].revents)
            welcome(listener);
    close(listener);
    for (int i = 0; i < 100 && atomic_load(&connections) > 0; i++)
        usleep(10000); /* visits under way may end; idle ones are cut off */
    service_stop();
    return 0;
}
