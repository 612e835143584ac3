/* pugmark demo: the sample system (examples/decoys) against a server of its own.
 *
 * Everything it starts is its child, in a process group of its own and dying with it: nothing is
 * left behind, however it ends, and Ctrl-C reaches the children in the order that lets them hand
 * over their spans: load first, then along the pipeline, the server last. What they write lies in
 * one temporary directory. Ports are taken as they are free. */
#include "cli/args.h"
#include "cli/cli.h"
#include "cli/client.h"
#include "cli/demo_check.h"

#include "base/arena.h"
#include "base/clock.h"
#include "base/json.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    READY_MS = 15000,    /* for the server to listen */
    SCENARIO_MS = 60000, /* for the first intrusion to be played */
    WHOLE_MS = 10000,    /* and for all of its spans to arrive */
    STOP_MS = 5000,      /* for a child to end by itself */
};

/* In the order in which they are started, which is that of the pipeline; they end in the same, so
 * that each hands on what it has, but for the driver, which ends first. */
static const struct program {
    const char *name; /* of its log */
    const char *argv[8];
    bool packets; /* looks at them, and is left out for who may not */
} programs[] = {
    {"web-01", {"decoy", "--kind", "http", "--name", "web-01"}},
    {"ssh-01", {"decoy", "--kind", "ssh", "--name", "ssh-01"}},
    {"telnet-01", {"decoy", "--kind", "telnet", "--name", "telnet-01"}},
    {"tls-01", {"decoy", "--kind", "https", "--name", "tls-01", "--tls-max", "1.2"}},
    {"engine", {"engine"}},
    {"mutator", {"mutator"}},
    {"sniffer", {"sniffer", "--interface", "lo", "--decky", "tls-01"}, .packets = true},
    {"collector", {"collector"}},
    {"ingester", {"ingester"}},
    {"profiler", {"profiler"}},
    {"correlation", {"correlation"}},
    {"api", {"api"}},
    {"driver", {"driver", "--tls", "tls-01"}},
};
enum { N_PROGRAMS = sizeof programs / sizeof *programs, DRIVERS_MAX = 64 };

struct child {
    const char *name;
    pid_t pid; /* 0: not running */
};

struct demo {
    char self[PATH_MAX];   /* this binary */
    char decoys[PATH_MAX]; /* where the programs are */
    char dir[PATH_MAX];    /* everything temporary */
    const char *data;      /* the server's; NULL: in dir */
    bool keep_running;
    bool no_packets; /* the kernel does not let us look at them */
    struct arena arena;
    struct str page, otlp_http;
    struct child server, children[N_PROGRAMS];
    uint64_t n_drivers; /* that make load without a pause, beside the usual one */
    struct child drivers[DRIVERS_MAX];
    FILE *driver;   /* what it prints */
    int signals;    /* readable when somebody wants us to end */
    sigset_t usual; /* signal mask, for the children */
};

PRINTF_LIKE(1, 2) static void say(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("pugmark demo: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
}

static bool asked_to_end(const struct demo *d, int wait_ms)
{
    struct pollfd p = {.fd = d->signals, .events = POLLIN};
    return poll(&p, 1, wait_ms) > 0;
}

/* A path in the temporary directory, in the arena; the arena has no limit, so NULL is no memory. */
static char *in_dir(struct demo *d, const char *name)
{
    return arena_printf(&d->arena, "%s/%s", d->dir, name);
}

/* ---- children ---- */

/* In the child, between fork and exec: only what is safe there. */
_Noreturn static void become(const struct demo *d, pid_t parent, int log, int out,
                             const char *const *argv)
{
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) /* it died before the line above */
        _exit(CLI_COULD_NOT);
    setpgid(0, 0);
    sigprocmask(SIG_SETMASK, &d->usual, NULL);
    int null = open("/dev/null", O_RDONLY);
    if (dup2(null, 0) >= 0 && dup2(out, 1) >= 0 && dup2(log, 2) >= 0)
        execv(argv[0], (char *const *)argv);
    dprintf(2, "cannot run %s: %s\n", argv[0], strerror(errno));
    _exit(CLI_COULD_NOT);
}

/* `out` -1: its output goes to its log too. */
static int child_start(struct demo *d, struct child *child, const char *name, int out,
                       const char *const *argv)
{
    char *path = arena_printf(&d->arena, "%s/log/%s", d->dir, name);
    int log = path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
    if (log < 0) {
        say("cannot write %s: %s", path ? path : name, strerror(errno));
        return ERR_IO;
    }
    pid_t parent = getpid(), pid = fork();
    if (pid == 0)
        become(d, parent, log, out < 0 ? log : out, argv);
    close(log);
    if (pid < 0) {
        say("cannot start %s: %s", name, strerror(errno));
        return ERR_IO;
    }
    *child = (struct child){.name = name, .pid = pid};
    return 0;
}

/* Shows the end of what a child had to say. */
static void child_tell(struct demo *d, const char *name)
{
    char *path = arena_printf(&d->arena, "%s/log/%s", d->dir, name), text[2048];
    FILE *log = path ? fopen(path, "r") : NULL;
    if (!log)
        return;
    fseek(log, 0, SEEK_END);
    long end = ftell(log);
    fseek(log, end > (long)sizeof text ? end - (long)sizeof text : 0, SEEK_SET);
    size_t n = fread(text, 1, sizeof text, log);
    fwrite(text, 1, n, stderr);
    fclose(log);
}

/* True when it ended; says so, for none of them should. */
static bool child_is_gone(struct demo *d, struct child *child)
{
    int status;
    if (child->pid && waitpid(child->pid, &status, WNOHANG) != child->pid)
        return false;
    if (child->pid && WIFSIGNALED(status))
        say("%s was ended by signal %d; it had to say:", child->name, WTERMSIG(status));
    else if (child->pid)
        say("%s ended with status %d; it had to say:", child->name, WEXITSTATUS(status));
    if (child->pid)
        child_tell(d, child->name);
    child->pid = 0;
    return true;
}

static bool anybody_gone(struct demo *d)
{
    bool gone = child_is_gone(d, &d->server);
    for (size_t i = 0; i < N_PROGRAMS; i++)
        gone |= d->children[i].name && child_is_gone(d, &d->children[i]);
    for (size_t i = 0; i < d->n_drivers; i++)
        gone |= d->drivers[i].name && child_is_gone(d, &d->drivers[i]);
    return gone;
}

static void child_stop(struct child *child)
{
    if (!child->pid)
        return;
    kill(child->pid, SIGTERM);
    uint64_t deadline = clock_monotonic_ns() + STOP_MS * NS_PER_MS;
    while (waitpid(child->pid, NULL, WNOHANG) == 0) {
        if (clock_monotonic_ns() > deadline) {
            say("%s does not end; killed", child->name);
            kill(child->pid, SIGKILL);
            waitpid(child->pid, NULL, 0);
            break;
        }
        poll(NULL, 0, 5);
    }
    child->pid = 0;
}

static void stop_all(struct demo *d)
{
    for (size_t i = 0; i < d->n_drivers; i++)
        child_stop(&d->drivers[i]);
    child_stop(&d->children[N_PROGRAMS - 1]); /* the driver */
    for (size_t i = 0; i < N_PROGRAMS; i++)
        child_stop(&d->children[i]);
    child_stop(&d->server);
}

/* ---- the temporary directory ---- */

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *walk)
{
    (void)st;
    (void)type;
    (void)walk;
    return remove(path);
}

static int make_dir(struct demo *d)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(d->dir, sizeof d->dir, "%s/pugmark-demo-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (!mkdtemp(d->dir)) {
        say("cannot make %s: %s", d->dir, strerror(errno));
        *d->dir = '\0';
        return ERR_IO;
    }
    char *log = in_dir(d, "log");
    if (!log || mkdir(log, 0700) != 0)
        return ERR_IO;
    return 0;
}

static void remove_dir(struct demo *d)
{
    if (*d->dir && nftw(d->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS) != 0)
        say("something is left in %s: %s", d->dir, strerror(errno));
}

/* ---- where the programs are ---- */

static int find_programs(struct demo *d)
{
    ssize_t n = readlink("/proc/self/exe", d->self, sizeof d->self - 1);
    if (n < 0) {
        say("cannot tell where this program is: %s", strerror(errno));
        return ERR_IO;
    }
    d->self[n] = '\0';
    int dir_len = (int)(strrchr(d->self, '/') - d->self);
    static const char *const places[] = {"examples/decoys",
                                         "../" PUGMARK_LIBEXEC "/pugmark/decoys"};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        char program[PATH_MAX];
        int len = snprintf(d->decoys, sizeof d->decoys, "%.*s/%s", dir_len, d->self, places[i]);
        if (len < (int)sizeof d->decoys &&
            snprintf(program, sizeof program, "%s/collector", d->decoys) < (int)sizeof program &&
            access(program, X_OK) == 0)
            return 0;
    }
    say("the sample system is not installed beside %s; `./dev build` makes it", d->self);
    return ERR_NOT_FOUND;
}

/* The demo is the same for everybody: what the caller's environment says of tracing and of proxies
 * is not meant for it. */
static void clean_environment(void)
{
    for (char **e = environ; *e;) {
        char name[256];
        size_t n = strcspn(*e, "=");
        if ((strncmp(*e, "PUG_", 4) != 0 && strncmp(*e, "OTEL_", 5) != 0) || n >= sizeof name) {
            e++;
            continue;
        }
        memcpy(name, *e, n);
        name[n] = '\0';
        unsetenv(name); /* the next one is at `e` now */
    }
    setenv("no_proxy", "127.0.0.1", 1);
}

/* ---- the server ---- */

static int read_endpoints(struct demo *d, struct str json)
{
    struct json_reader r;
    struct error_detail detail;
    json_reader_init(&r, json, &d->arena, &detail);
    int depth = 0;
    struct str key = STR_NONE;
    for (enum json_type type; (type = json_next(&r)) != JSON_END && type != JSON_ERROR;) {
        depth += (type == JSON_OBJECT) - (type == JSON_OBJECT_END);
        if (type == JSON_KEY)
            key = r.text;
        else if (type == JSON_STRING && depth == 2 && str_eq(key, STR("page")))
            d->page = arena_str(&d->arena, r.text);
        else if (type == JSON_STRING && depth == 2 && str_eq(key, STR("otlp_http")))
            d->otlp_http = arena_str(&d->arena, r.text);
    }
    return r.err ? r.err : d->page.ptr && d->otlp_http.ptr ? 0 : ERR_INVALID;
}

static int start_server(struct demo *d)
{
    char *ready = in_dir(d, "ready.json"), *data = in_dir(d, "data");
    if (!ready || !data)
        return ERR_NOMEM;
    const char *argv[] = {d->self,
                          "serve",
                          "--ports",
                          "auto",
                          "--ready-file",
                          ready,
                          "--data",
                          d->data ? d->data : data,
                          NULL};
    int err = child_start(d, &d->server, "server", -1, argv);
    uint64_t deadline = clock_monotonic_ns() + READY_MS * NS_PER_MS;
    while (!err && access(ready, R_OK) != 0) {
        if (child_is_gone(d, &d->server))
            err = ERR_CLOSED;
        else if (asked_to_end(d, 5))
            err = ERR_CLOSED;
        else if (clock_monotonic_ns() > deadline) {
            say("the server is not ready after %d s", READY_MS / 1000);
            err = ERR_TIMEOUT;
        }
    }
    if (err)
        return err;
    char text[4096];
    FILE *f = fopen(ready, "r");
    size_t n = f ? fread(text, 1, sizeof text, f) : 0;
    if (f)
        fclose(f);
    err = read_endpoints(d, (struct str){text, n});
    if (err)
        say("%s does not name the server's addresses", ready);
    return err;
}

/* ---- the sample system ---- */

/* Root, or CAP_NET_RAW: the kernel is asked, for it knows. */
static bool may_see_packets(void)
{
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

static int start_programs(struct demo *d)
{
    char *run = in_dir(d, "run");
    int out[2];
    if (!run || pipe2(out, O_CLOEXEC) != 0)
        return ERR_IO;
    /* All that tracing takes: the programs know nothing of this server. */
    setenv("PUG_TRACING", "true", 1);
    setenv("PUG_BACKEND", "otlp", 1);
    setenv("PUG_OTLP_ENDPOINT", d->otlp_http.ptr, 1);
    int err = 0;
    d->no_packets = !may_see_packets();
    for (size_t i = 0; i < N_PROGRAMS && !err; i++) {
        const struct program *p = &programs[i];
        if (p->packets && d->no_packets)
            continue;
        const char *argv[16];
        size_t n = 0;
        argv[n++] = arena_printf(&d->arena, "%s/%s", d->decoys, p->argv[0]);
        argv[n++] = "--dir";
        argv[n++] = run;
        for (size_t j = 1; p->argv[j]; j++)
            argv[n++] = p->argv[j];
        if (i == N_PROGRAMS - 1 && !d->keep_running)
            argv[n++] = "--once";
        argv[n] = NULL;
        err = argv[0] ? child_start(d, &d->children[i], p->name, i == N_PROGRAMS - 1 ? out[1] : -1,
                                    argv)
                      : ERR_NOMEM;
    }
    close(out[1]);
    d->driver = fdopen(out[0], "r");
    if (!d->driver)
        close(out[0]);
    return err ? err : d->driver ? 0 : ERR_IO;
}

/* When the system runs: more of the same load than anybody could look at. */
static int start_drivers(struct demo *d)
{
    char *run = in_dir(d, "run"), *driver = arena_printf(&d->arena, "%s/driver", d->decoys);
    int err = run && driver ? 0 : ERR_NOMEM;
    for (size_t i = 0; i < d->n_drivers && !err; i++) {
        const char *argv[] = {driver, "--dir", run, "--tls", "tls-01", "--pause-ms", "0", NULL};
        char *name = arena_printf(&d->arena, "driver-%zu", i + 2);
        err = name ? child_start(d, &d->drivers[i], name, -1, argv) : ERR_NOMEM;
    }
    return err;
}

/* Waits for the driver to have played the first intrusion: "intrusion TRACE_ID ATTACKER_IP". */
static int first_intrusion(struct demo *d, char ret_trace_id[33])
{
    struct pollfd p[] = {{.fd = fileno(d->driver), .events = POLLIN},
                         {.fd = d->signals, .events = POLLIN}};
    char line[256];
    uint64_t deadline = clock_monotonic_ns() + SCENARIO_MS * NS_PER_MS;
    while (clock_monotonic_ns() < deadline) {
        if (poll(p, 2, 200) > 0 && p[1].revents)
            return ERR_CLOSED;
        if (p[0].revents) {
            if (fgets(line, sizeof line, d->driver) &&
                sscanf(line, "intrusion %32[0-9a-f]", ret_trace_id) == 1 &&
                strlen(ret_trace_id) == 32)
                return 0;
            say("the load driver could not play its intrusion; it had to say:");
            child_tell(d, "driver");
            return ERR_CLOSED;
        }
        for (size_t i = 0; i < N_PROGRAMS - 1; i++)
            if (d->children[i].name && child_is_gone(d, &d->children[i]))
                return ERR_CLOSED;
    }
    say("nothing came of the attack within %d s", SCENARIO_MS / 1000);
    return ERR_TIMEOUT;
}

/* ---- the trace ---- */

/* Waits until the trace is whole. Says what is missing when it does not become so. */
static int whole_trace(struct demo *d, const char *trace_id)
{
    char *path = arena_printf(&d->arena, "/api/pugmark/traces/%s", trace_id);
    struct buf body = BUF_INIT, missing = BUF_INIT;
    struct error_detail detail = {0};
    uint64_t deadline = clock_monotonic_ns() + WHOLE_MS * NS_PER_MS;
    long status = 0;
    int err = path ? 0 : ERR_NOMEM;
    while (!err) {
        buf_done(&body); /* each answer comes in a new one */
        buf_clear(&missing);
        err = client_get("demo", d->page.ptr, path, &status, &body);
        if (!err && status == 404) /* nothing of it has arrived */
            buf_cstr(&missing, "every span\n");
        else if (!err && status != 200) {
            client_say_error("demo", status, buf_as_str(&body), NULL);
            err = ERR_IO;
        } else if (!err) {
            err = demo_check(buf_as_str(&body), &missing, &detail);
            if (err)
                say("the server's answer to GET %s: %s", path, detail.message);
        }
        if (err || missing.len == 0 || clock_monotonic_ns() > deadline)
            break;
        if (asked_to_end(d, 50) || anybody_gone(d))
            err = ERR_CLOSED;
    }
    if (!err && missing.len > 0) {
        say("trace %s is not whole. What is missing:\n%.*s", trace_id,
            STR_ARG(buf_as_str(&missing)));
        err = ERR_NOT_FOUND;
    }
    buf_done(&body);
    buf_done(&missing);
    return err;
}

static int show(struct demo *d, const char *trace_id)
{
    printf(
        "The page:   %s\nThis trace: %s/trace/%s\n\n"
        "An attacker probes two decoys, a user looks him up: one trace through every program.\n\n",
        d->page.ptr, d->page.ptr, trace_id);
    if (d->no_packets)
        printf("The sniffer is left out: looking at packets takes root or CAP_NET_RAW.\n\n");
    fflush(stdout);
    char verb[] = "trace", option[] = "--server", id[33];
    snprintf(id, sizeof id, "%s", trace_id);
    char *argv[] = {verb, id, option, (char *)d->page.ptr, NULL};
    optind = 0;
    int status = cli_trace(4, argv);
    fflush(stdout);
    return status == CLI_DONE ? 0 : ERR_IO;
}

/* ---- the verb ---- */

static int play(struct demo *d)
{
    char trace_id[33];
    clean_environment();
    int err = find_programs(d);
    if (!err)
        err = make_dir(d);
    if (!err)
        err = start_server(d);
    if (!err)
        err = start_programs(d);
    if (!err)
        err = first_intrusion(d, trace_id);
    /* The driver that plays only once may end now. */
    if (!err && !d->keep_running)
        d->children[N_PROGRAMS - 1].name = NULL;
    if (!err)
        err = whole_trace(d, trace_id);
    if (!err)
        err = show(d, trace_id);
    if (!err && d->keep_running)
        err = start_drivers(d);
    if (err || !d->keep_running)
        return err;
    printf("\nThe load goes on. Ctrl-C ends it; what the programs say is in %s/log\n", d->dir);
    fflush(stdout);
    char line[256];
    struct pollfd p[] = {{.fd = d->signals, .events = POLLIN},
                         {.fd = fileno(d->driver), .events = POLLIN}};
    while (!(p[0].revents & POLLIN)) {
        if (anybody_gone(d))
            return ERR_CLOSED;
        poll(p, 2, 500);
        if (p[1].revents && !fgets(line, sizeof line, d->driver)) /* or the pipe would fill */
            p[1].fd = -1;
    }
    return 0;
}

static const char help[] =
    "usage: pugmark demo [--once] [--data DIR] [--drivers N]\n"
    "\n"
    "Starts a server and the sample system (decoy services and an engine that runs more of them, "
    "a\n"
    "sniffer, a collector, an ingester, workers, an API, and a load driver that plays attackers "
    "and\n"
    "users), and shows one trace that crosses the pipeline. Goes on until Ctrl-C.\n"
    "\n"
    "  --once       show the trace when it is whole, then end: 0, or 1 and what is missing\n"
    "  --data DIR   keep the traces here; without it they go when the demo ends\n"
    "  --drivers N  so many more load drivers, none of which ever pauses\n";

int cli_demo(int argc, char **argv)
{
    struct demo d = {.arena = ARENA_INIT, .keep_running = true, .signals = -1};
    bool once = false;
    int status;
    const struct args_option options[] = {
        {.name = "once", .flag = &once},
        {.name = "data", .text = &d.data},
        {.name = "drivers", .count = &d.n_drivers, .max = DRIVERS_MAX}};
    int n = args_parse("demo", help, options, sizeof options / sizeof *options, argc, argv,
                       &status);
    if (n < 0)
        return status;
    if (n > 0)
        return args_wrong("demo", "what is \"%s\"", argv[1]);
    d.keep_running = !once;
    sigset_t ours;
    sigemptyset(&ours);
    sigaddset(&ours, SIGINT);
    sigaddset(&ours, SIGTERM);
    sigaddset(&ours, SIGHUP);
    sigprocmask(SIG_BLOCK, &ours, &d.usual);
    d.signals = signalfd(-1, &ours, SFD_CLOEXEC | SFD_NONBLOCK);

    int err = d.signals < 0 ? err_from_errno(errno) : play(&d);
    stop_all(&d);
    if (d.driver)
        fclose(d.driver);
    remove_dir(&d);
    arena_done(&d.arena);
    if (d.signals >= 0)
        close(d.signals);
    return err ? CLI_COULD_NOT : CLI_DONE;
}
