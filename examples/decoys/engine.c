/* The engine: runs the fleet. What a container runtime would do for a honeynet, done with processes.
 *
 *   engine --dir DIR [--file FLEET.json]
 *   engine --dir DIR list | deploy FLEET.json | teardown NAME...     asks the one that runs
 *
 * It takes requests over engine.sock (fleet.h), one after the other. What it is to run is described
 * in fleet.json in the run directory, which it keeps: killed and started again it deploys that. --file
 * is a description to begin with.
 *
 * States of a decoy: described, then running (its port is published), or failed after TRIES starts.
 * One that ends by itself is started again, unless it had only just been. All are the engine's
 * children and die with it. */
#include "common.h"
#include "fleet.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define TRIES 3
#define FIRST_PAUSE_MS 100 /* doubled after each try */
#define START_MS 5000      /* for a decoy to publish its port */
#define STOP_MS 3000
#define STABLE_NS UINT64_C(5000000000) /* one that lived as long is started again when it ends */
#define REQUEST_TIMEOUT_S 2

struct decky {
    char name[48], service[16], banner[128];
    uint16_t wanted_port, port;
    pid_t pid; /* 0: does not run */
    uint64_t started_ns;
};

static struct decky fleet[FLEET_MAX];
static size_t n_fleet;
static char decoy_program[PATH_MAX];

static struct decky *find(const char *name)
{
    for (size_t i = 0; i < n_fleet; i++)
        if (strcmp(fleet[i].name, name) == 0)
            return &fleet[i];
    return NULL;
}

/* ---- processes ---- */

/* In the child, between fork and exec: only what is safe there. */
_Noreturn static void become_decoy(const struct decky *d, const char *dir, pid_t parent)
{
    char port[8];
    snprintf(port, sizeof port, "%u", d->wanted_port);
    const char *argv[] = {decoy_program, "--dir",  dir,  "--kind",   d->service, "--name",
                          d->name,       "--port", port, "--banner", d->banner,  NULL};
    if (!*d->banner)
        argv[9] = NULL;
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) /* it died before the line above */
        _exit(1);
    execv(decoy_program, (char *const *)argv);
    _exit(127);
}

/* True while the process runs; notes its end. */
static bool runs(struct decky *d)
{
    if (d->pid && waitpid(d->pid, NULL, WNOHANG) == d->pid)
        d->pid = 0;
    return d->pid != 0;
}

static void stop(struct decky *d)
{
    if (runs(d)) {
        kill(d->pid, SIGTERM);
        for (uint64_t end = now_ns() + STOP_MS * UINT64_C(1000000); runs(d);) {
            if (now_ns() > end) {
                kill(d->pid, SIGKILL);
                waitpid(d->pid, NULL, 0);
                d->pid = 0;
            }
            poll(NULL, 0, 5);
        }
    }
    d->port = 0;
    unlink(run_path("ports/%s", d->name).text);
}

static uint16_t published(const char *name)
{
    AUTO_FREE char *text = file_read(run_path("ports/%s", name).text, 15);
    return text ? (uint16_t)atoi(text) : 0;
}

/* One try: true when it listens. */
static bool start(struct decky *d)
{
    struct path dir = run_path(".");
    pid_t parent = getpid();
    unlink(run_path("ports/%s", d->name).text);
    d->pid = fork();
    if (d->pid == 0)
        become_decoy(d, dir.text, parent);
    if (d->pid < 0) {
        d->pid = 0;
        return false;
    }
    d->started_ns = now_ns();
    while (runs(d) && !(d->port = published(d->name)) && !stopping() &&
           now_ns() < d->started_ns + START_MS * UINT64_C(1000000))
        poll(NULL, 0, 5);
    if (d->port && runs(d))
        return true;
    stop(d);
    return false;
}

/* A start may fail for reasons that pass: a port that is still in use, no memory just now. */
static bool compose_with_retry(struct decky *d)
{
    PUG_SPAN("engine.compose_with_retry", PUG_STR("decky", d->name),
             PUG_STR("service", d->service));
    int pause_ms = FIRST_PAUSE_MS;
    for (int tries = 1;; tries++, pause_ms *= 2) {
        pug_set_int(PUG_CURRENT, "tries", tries);
        if (start(d))
            break;
        if (tries == TRIES || !wait_for(-1, pause_ms)) {
            say("the decoy %s does not start", d->name);
            pug_error(PUG_CURRENT, "the decoy does not start");
            return false;
        }
        pug_event(PUG_CURRENT, "did not start, tried again", PUG_INT("try", tries));
    }
    pug_set_int(PUG_CURRENT, "port", d->port);
    return true;
}

/* ---- descriptions ---- */

static const char *text_of(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

/* NULL when it is one that can be run, else what is wrong with it. */
static const char *description_problem(const json_t *d)
{
    const json_t *port = json_object_get(d, "port"), *banner = json_object_get(d, "banner");
    if (!fleet_name_valid(text_of(d, "name")))
        return "a name has 1 to 40 of a-z, 0-9 and '-'";
    if (!fleet_service_valid(text_of(d, "service")))
        return "a service is http, https, ssh or telnet";
    if (port && (!json_is_integer(port) || json_integer_value(port) < 0 ||
                 json_integer_value(port) > 65535))
        return "a port is a number up to 65535";
    if (banner && !json_is_null(banner) &&
        (!json_is_string(banner) || json_string_length(banner) > 120 ||
         strpbrk(json_string_value(banner), "\r\n")))
        return "a banner is a line of at most 120 bytes";
    return NULL;
}

static json_t *described(const struct decky *d)
{
    return json_pack("{s:s, s:s, s:s, s:i, s:s}", "name", d->name, "service", d->service, "banner",
                     d->banner, "port", d->port ? d->port : d->wanted_port, "state",
                     d->pid ? "running" : "failed");
}

static void fleet_keep(void)
{
    json_t *all = json_array();
    for (size_t i = 0; i < n_fleet; i++)
        json_array_append_new(all, described(&fleet[i]));
    json_t *file = json_pack("{s:o}", "deckies", all);
    AUTO_FREE char *text = json_dumps(file, JSON_INDENT(2));
    json_decref(file);
    if (!text || file_replace(run_path("fleet.json").text, text, 0600) != 0)
        say("cannot write fleet.json: %s", strerror(errno));
}

/* ---- requests ---- */

static json_t *deploy_one(const json_t *description)
{
    const char *problem = description_problem(description);
    struct decky *d = problem ? NULL : find(text_of(description, "name"));
    if (!problem && !d && n_fleet == FLEET_MAX)
        problem = "the fleet is full";
    if (problem)
        return json_pack("{s:s*, s:s, s:s}", "name", text_of(description, "name"), "state",
                         "refused", "error", problem);
    const char *banner = text_of(description, "banner");
    uint16_t port = (uint16_t)json_integer_value(json_object_get(description, "port"));
    if (d && runs(d) && strcmp(d->service, text_of(description, "service")) == 0 &&
        strcmp(d->banner, banner ? banner : "") == 0 && (port == 0 || port == d->port))
        return described(d);
    if (d)
        stop(d);
    else
        d = &fleet[n_fleet++];
    *d = (struct decky){.wanted_port = port};
    snprintf(d->name, sizeof d->name, "%s", text_of(description, "name"));
    snprintf(d->service, sizeof d->service, "%s", text_of(description, "service"));
    snprintf(d->banner, sizeof d->banner, "%s", banner ? banner : "");
    compose_with_retry(d);
    return described(d);
}

static json_t *deploy(const json_t *request)
{
    const json_t *list = json_object_get(request, "deckies");
    PUG_SPAN("engine.deploy", PUG_KIND(PUG_KIND_SERVER),
             PUG_INT("deckies", (int64_t)json_array_size(list)));
    if (!json_is_array(list)) {
        pug_error(PUG_CURRENT, "not a list");
        return json_pack("{s:s}", "error", "deckies is a list of descriptions");
    }
    json_t *done = json_array(), *description;
    size_t i;
    json_array_foreach(list, i, description)
    {
        if (i < FLEET_MAX)
            json_array_append_new(done, deploy_one(description));
    }
    fleet_keep();
    return json_pack("{s:o}", "deckies", done);
}

static json_t *teardown(const json_t *request)
{
    const json_t *names = json_object_get(request, "names");
    PUG_SPAN("engine.teardown", PUG_KIND(PUG_KIND_SERVER));
    json_t *gone = json_array(), *name;
    size_t i;
    json_array_foreach(names, i, name)
    {
        struct decky *d = json_is_string(name) ? find(json_string_value(name)) : NULL;
        if (!d)
            continue;
        stop(d);
        json_array_append_new(gone, json_string(d->name));
        *d = fleet[--n_fleet];
    }
    pug_set_int(PUG_CURRENT, "deckies", (int64_t)json_array_size(gone));
    fleet_keep();
    return json_pack("{s:o}", "names", gone);
}

static json_t *list(void)
{
    json_t *all = json_array();
    for (size_t i = 0; i < n_fleet; i++) {
        runs(&fleet[i]);
        json_array_append_new(all, described(&fleet[i]));
    }
    return json_pack("{s:o}", "deckies", all);
}

/* `line` is changed: the context is taken out of it. */
static json_t *answer(char *line, size_t len)
{
    struct pug_context caller;
    len = pug_json_extract(line, len, &caller);
    json_t *request = json_loadb(line, len, 0, NULL), *result;
    const char *op = text_of(request, "op");
    PUG_ATTACH(&caller);
    if (op && strcmp(op, "deploy") == 0)
        result = deploy(request);
    else if (op && strcmp(op, "teardown") == 0)
        result = teardown(request);
    else if (op && strcmp(op, "list") == 0)
        result = list();
    else
        result = json_pack("{s:s}", "error", "op is deploy, teardown or list");
    json_decref(request);
    return result;
}

static void serve(int listener)
{
    AUTO_CLOSE int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    AUTO_FREE char *line = malloc(FLEET_MESSAGE_MAX);
    if (fd < 0 || !line)
        return;
    struct timeval timeout = {.tv_sec = REQUEST_TIMEOUT_S};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
    size_t len = 0;
    ssize_t n;
    char *end = NULL;
    while (!end && len < FLEET_MESSAGE_MAX &&
           (n = read(fd, line + len, FLEET_MESSAGE_MAX - len)) > 0) {
        end = memchr(line + len, '\n', (size_t)n);
        len += (size_t)n;
    }
    if (!end)
        return;
    json_t *result = answer(line, (size_t)(end - line));
    AUTO_FREE char *text = json_dumps(result, JSON_COMPACT);
    json_decref(result);
    if (text)
        write_all(fd, text, strlen(text));
}

/* ---- the rest ---- */

/* Decoys that ended by themselves; one that does not last is left. */
static void look_after(void)
{
    for (size_t i = 0; i < n_fleet; i++) {
        struct decky *d = &fleet[i];
        if (!d->pid || runs(d))
            continue;
        say("the decoy %s ended by itself", d->name);
        if (now_ns() - d->started_ns < STABLE_NS)
            continue;
        json_t *description = described(d);
        json_t *request = json_pack("{s:[o]}", "deckies", description);
        json_decref(deploy(request));
        json_decref(request);
    }
}

/* A file that describes a fleet; false when there is none. */
static bool deploy_file(const char *path)
{
    AUTO_FREE char *text = file_read(path, FLEET_MESSAGE_MAX);
    json_error_t problem;
    if (!text)
        return false;
    json_t *description = json_loads(text, 0, &problem);
    if (!description)
        die("%s:%d: %s", path, problem.line, problem.text);
    json_t *result = deploy(description), *one;
    size_t i;
    json_array_foreach(json_object_get(result, "deckies"), i, one)
    {
        if (text_of(one, "error"))
            say("%s: %s", path, text_of(one, "error"));
    }
    if (text_of(result, "error"))
        die("%s: %s", path, text_of(result, "error"));
    json_decref(result);
    json_decref(description);
    return true;
}

static int listen_socket(void)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    struct path path = run_path("engine.sock");
    if (strlen(path.text) >= sizeof at.sun_path)
        die("the path %s is too long for a socket", path.text);
    memcpy(at.sun_path, path.text, strlen(path.text) + 1);
    unlink(path.text);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof at) != 0 || listen(fd, 16) != 0)
        die("cannot listen on %s: %s", path.text, strerror(errno));
    return fd;
}

/* The decoys' program lies beside this one. */
static void find_decoy_program(void)
{
    ssize_t n = readlink("/proc/self/exe", decoy_program, sizeof decoy_program - 8);
    if (n < 0)
        die("cannot tell where this program is: %s", strerror(errno));
    decoy_program[n] = '\0';
    memcpy(strrchr(decoy_program, '/') + 1, "decoy", sizeof "decoy");
    if (access(decoy_program, X_OK) != 0)
        die("%s cannot be run: %s", decoy_program, strerror(errno));
}

/* ---- asking the one that runs ---- */

/* Prints what came of it: 0, or 1. */
static int print(int result, json_t *answer)
{
    if (result == 0)
        json_dumpf(answer, stdout, JSON_INDENT(2));
    if (result == 0)
        putchar('\n');
    json_decref(answer);
    return result ? 1 : 0;
}

static int command(int argc, char **argv)
{
    PUG_SPAN("fleet.command", PUG_STR("command", argv[0]));
    json_t *result = NULL;
    if (strcmp(argv[0], "list") == 0 && argc == 1) {
        json_t *answer;
        int err = engine_ask(json_pack("{s:s}", "op", "list"), &answer);
        if (err == 0) {
            result = json_incref(json_object_get(answer, "deckies"));
            json_decref(answer);
        }
        return print(err, result);
    }
    bool is_deploy = strcmp(argv[0], "deploy") == 0 && argc == 2;
    if (!is_deploy && (strcmp(argv[0], "teardown") != 0 || argc < 2))
        return 2;
    struct repository *repo = repository_open(run_path("decoys.db").text);
    int err = -1;
    if (is_deploy) {
        json_error_t problem;
        json_t *file = json_load_file(argv[1], 0, &problem);
        json_t *deckies = json_incref(json_object_get(file, "deckies"));
        if (!file)
            say("%s:%d: %s", argv[1], problem.line, problem.text);
        else if (!deckies)
            say("%s has no \"deckies\"", argv[1]);
        else
            err = fleet_deploy(repo, deckies, &result);
        json_decref(file);
    } else {
        json_t *names = json_array();
        for (int i = 1; i < argc; i++)
            json_array_append_new(names, json_string(argv[i]));
        err = fleet_teardown(repo, names, &result);
    }
    repository_close(repo);
    return print(err, result);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"dir", 1, NULL, 'd'}, {"file", 1, NULL, 'f'}, {0}};
    const char *dir = NULL, *file = NULL;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c != 'd' && c != 'f')
            return 2;
        *(c == 'd' ? &dir : &file) = optarg;
    }
    service_start("engine", dir);
    if (optind < argc) {
        int status = command(argc - optind, argv + optind);
        if (status == 2)
            fprintf(stderr, "usage: engine --dir DIR list | deploy FILE | teardown NAME...\n");
        service_stop();
        return status;
    }
    find_decoy_program();
    int listener = listen_socket();
    if (!deploy_file(run_path("fleet.json").text) && file && !deploy_file(file))
        die("cannot read %s: %s", file, strerror(errno));
    while (!stopping()) {
        struct pollfd p[] = {{.fd = stop_fd(), .events = POLLIN},
                             {.fd = listener, .events = POLLIN}};
        if (poll(p, 2, 500) > 0 && p[1].revents)
            serve(listener);
        look_after();
    }
    unlink(run_path("engine.sock").text);
    close(listener);
    for (size_t i = 0; i < n_fleet; i++)
        stop(&fleet[i]);
    service_stop();
    return 0;
}
