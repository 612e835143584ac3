/* pugmark run: starts a command with libpugmark-run.so preloaded and tracing on, and says afterwards where
 * the spans are.
 *
 * The command is our child, so that there is somebody to say it; its terminal signals reach it as ours
 * reach us, those that were sent to us alone are passed on, and we end as it ended. What its processes
 * have to tell comes through a file of lines (src/probe/run.c). */
#include "cli/args.h"
#include "cli/cli.h"
#include "cli/client.h"
#include "cli/program.h"

#include "base/json.h"
#include "sdk/options.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { REPORT_BYTES_MAX = 4 << 20, PROCESSES_MAX = 4096, FILES_SHOWN = 10, MESSAGES_SHOWN = 10 };

struct options {
    const char *output, *otlp, *server, *service, *query_text;
    bool sql_comment, quiet;
    char **command;
};

PRINTF_LIKE(1, 2) static void say(const char *format, ...)
{
    va_list args;
    fputs("pugmark run: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
}

static const char help[] =
    "usage: pugmark run [OPTIONS] [--] COMMAND [ARGUMENT...]\n"
    "\n"
    "Runs a program with spans for what it does with libcurl, libpq, SQLite, hiredis and\n"
    "libmicrohttpd, and says where they are. No source is needed.\n"
    "\n"
    "  -o, --output DIR     Chrome traces go there; default .local/traces\n"
    "  --otlp URL           send to this OTLP receiver instead\n"
    "  --server URL         send to the `pugmark serve` whose page this is\n"
    "  --service NAME       service.name; default: each program's own name\n"
    "  --query-text WHICH   of SQL and Redis: sanitized (default; values are ?), full, off\n"
    "  --sql-comment        give PostgreSQL the trace in a comment of each query\n"
    "  -q, --quiet          say nothing at the end\n"
    "\n"
    "The exit status is the command's.\n";

/* -1: go on; else the exit status. */
static int parse(int argc, char **argv, struct options *o)
{
    static const char *const query_texts[] = {"sanitized", "full", "off", NULL};
    int status;
    *o = (struct options){.quiet = false};
    const struct args_option options[] = {
        {.name = "output", .letter = 'o', .text = &o->output},
        {.name = "otlp", .text = &o->otlp},
        {.name = "server", .text = &o->server},
        {.name = "service", .text = &o->service},
        {.name = "query-text", .choice = &o->query_text, .choices = query_texts},
        {.name = "sql-comment", .flag = &o->sql_comment},
        {.name = "quiet", .letter = 'q', .flag = &o->quiet},
    };
    int n = args_parse_command("run", help, options, sizeof options / sizeof *options, argc, argv,
                               &status);
    if (n < 0)
        return status;
    if (n == 0)
        return args_wrong("run", "which command?");
    if ((o->output != NULL) + (o->otlp != NULL) + (o->server != NULL) > 1)
        return args_wrong("run", "--output, --otlp and --server exclude one another");
    o->command = argv + 1;
    return -1;
}

/* ---- what the child finds in its environment ---- */

static int preload_find(char ret_path[PATH_MAX])
{
    static const char *const places[] = {"libpugmark-run.so",
                                         "../" PUGMARK_LIBEXEC "/pugmark/libpugmark-run.so"};
    char self[PATH_MAX], path[2 * PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n > 0) {
        self[n] = '\0';
        *strrchr(self, '/') = '\0';
        for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
            snprintf(path, sizeof path, "%s/%s", self, places[i]);
            if (realpath(path, ret_path))
                return 0;
        }
    }
    say("libpugmark-run.so is neither beside this program nor in its libexec; `./dev build` makes "
        "it, "
        "`./dev install` installs it");
    return ERR_NOT_FOUND;
}

/* Ours first: it finds the others behind it. */
static int preload_set(void)
{
    char path[PATH_MAX];
    const char *before = getenv("LD_PRELOAD");
    char *all;
    int err = preload_find(path);
    if (err)
        return err;
    if (strpbrk(path, " :")) {
        say("%s has a space or a colon in its name, which LD_PRELOAD cannot take", path);
        return ERR_UNSUPPORTED;
    }
    if (before && strstr(before, path))
        return 0;
    if (asprintf(&all, "%s%s%s", path, before && before[0] ? ":" : "",
                 before && before[0] ? before : "") < 0)
        return ERR_NOMEM;
    err = setenv("LD_PRELOAD", all, 1) ? ERR_NOMEM : 0;
    free(all);
    return err;
}

/* The address for OTLP over HTTP of the server whose page is at `page`. */
static int endpoint_of_server(const char *page, char *ret, size_t size)
{
    struct buf body = BUF_INIT;
    struct arena arena = ARENA_INIT;
    struct json_reader r;
    struct str key = STR_NONE;
    long status = 0;
    int err = client_get("run", page, "/api/pugmark/status", &status, &body);
    if (!err && status != 200) {
        client_say_error("run", status, buf_as_str(&body), NULL);
        err = ERR_IO;
    }
    ret[0] = '\0';
    if (!err) {
        json_reader_init(&r, buf_as_str(&body), &arena, NULL);
        for (enum json_type t; (t = json_next(&r)) != JSON_END && t != JSON_ERROR;) {
            if (t == JSON_KEY)
                key = r.text;
            else if (t == JSON_STRING && str_eq(key, STR("otlp_http")))
                snprintf(ret, size, "%.*s", STR_ARG(r.text));
        }
        if (!ret[0]) {
            say("%s does not say where it takes spans; is it a `pugmark serve`?", page);
            err = ERR_INVALID;
        }
    }
    arena_done(&arena);
    buf_done(&body);
    return err;
}

static int set(const char *name, const char *value)
{
    if (value && setenv(name, value, 1) != 0) {
        perror("pugmark run");
        return ERR_NOMEM;
    }
    return 0;
}

static int environment_set(const struct options *o)
{
    char endpoint[512];
    const char *otlp = o->otlp;
    if (o->server) {
        int err = endpoint_of_server(o->server, endpoint, sizeof endpoint);
        if (err)
            return err;
        otlp = endpoint;
    }
    if (set("PUG_TRACING", "true") || set("PUG_OTLP_ENDPOINT", otlp) ||
        set("PUG_BACKEND", otlp        ? "otlp"
                           : o->output ? "local"
                                       : NULL) ||
        set("PUG_TRACE_DIR", o->output) || set("OTEL_SERVICE_NAME", o->service) ||
        set("PUG_QUERY_TEXT", o->query_text) ||
        set("PUG_SQL_COMMENT", o->sql_comment ? "true" : NULL))
        return ERR_NOMEM;
    unsetenv("OTEL_SDK_DISABLED");
    return preload_set();
}

/* The child may change its directory: what is relative is meant from here. */
static int trace_dir_fix(const char *dir)
{
    char path[2 * PATH_MAX], here[PATH_MAX];
    if (dir[0] == '/')
        return set("PUG_TRACE_DIR", dir);
    if (!getcwd(here, sizeof here)) {
        perror("pugmark run: the working directory");
        return ERR_IO;
    }
    snprintf(path, sizeof path, "%s/%s", here, dir);
    return set("PUG_TRACE_DIR", path);
}

/* ---- the child ---- */

static volatile sig_atomic_t child;

static void pass_on(int number, siginfo_t *info, void *context)
{
    int errno_before = errno;
    (void)context;
    /* What the terminal sends, the child has got as well. */
    if (info->si_code != SI_KERNEL && child > 0)
        kill((pid_t)child, number);
    errno = errno_before;
}

static const int passed_on[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGALRM};

static void signals_catch(struct sigaction before[])
{
    struct sigaction action = {.sa_sigaction = pass_on, .sa_flags = SA_SIGINFO | SA_RESTART};
    sigfillset(&action.sa_mask);
    for (size_t i = 0; i < sizeof passed_on / sizeof passed_on[0]; i++) {
        sigaction(passed_on[i], NULL, &before[i]);
        if (before[i].sa_handler != SIG_IGN) /* nohup */
            sigaction(passed_on[i], &action, NULL);
    }
}

/* 0 and its wait status; else it could not be started. */
static int child_run(const char *path, char **command, int *ret_status)
{
    struct sigaction before[sizeof passed_on / sizeof passed_on[0]];
    sigset_t all, mask;
    int failed[2], why = 0;
    if (pipe2(failed, O_CLOEXEC) != 0) {
        perror("pugmark run: pipe");
        return ERR_IO;
    }
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &mask);
    signals_catch(before);
    pid_t pid = fork();
    if (pid == 0) {
        for (size_t i = 0; i < sizeof passed_on / sizeof passed_on[0]; i++)
            sigaction(passed_on[i], &before[i], NULL);
        sigprocmask(SIG_SETMASK, &mask, NULL);
        execvp(path, command);
        why = errno;
        if (write(failed[1], &why, sizeof why) != sizeof why)
            _exit(127);
        _exit(126);
    }
    child = pid;
    int err_fork = errno;
    sigprocmask(SIG_SETMASK, &mask, NULL);
    close(failed[1]);
    if (pid < 0) {
        close(failed[0]);
        say("%s was not started: %s", command[0], strerror(err_fork));
        return ERR_IO;
    }
    ssize_t n;
    do
        n = read(failed[0], &why, sizeof why);
    while (n < 0 && errno == EINTR);
    close(failed[0]);
    while (waitpid(pid, ret_status, 0) < 0)
        if (errno != EINTR)
            return ERR_IO;
    child = 0;
    if (n == sizeof why) {
        say("%s was not started: %s", command[0], strerror(why));
        return ERR_IO;
    }
    return 0;
}

/* As the child ended. */
static int end_like(int status)
{
    if (!WIFSIGNALED(status))
        return WEXITSTATUS(status);
    struct rlimit none = {0, 0};
    sigset_t mask;
    setrlimit(RLIMIT_CORE, &none); /* the child has written one */
    signal(WTERMSIG(status), SIG_DFL);
    sigemptyset(&mask);
    sigaddset(&mask, WTERMSIG(status));
    sigprocmask(SIG_UNBLOCK, &mask, NULL);
    kill(getpid(), WTERMSIG(status));
    return 128 + WTERMSIG(status);
}

/* ---- the report ---- */

struct summary {
    int pids[PROCESSES_MAX];
    size_t n_pids;
    uint64_t spans, lost;
    unsigned messages;
    unsigned unfinished; /* processes that started and told no end */
};

static void note_process(struct summary *s, int pid)
{
    for (size_t i = 0; i < s->n_pids; i++)
        if (s->pids[i] == pid)
            return;
    if (s->n_pids < PROCESSES_MAX)
        s->pids[s->n_pids++] = pid;
}

static void read_line(struct summary *s, char *line)
{
    int pid, at = 0;
    unsigned long long recorded, exported, lost;
    if (sscanf(line, "start %d", &pid) == 1) {
        note_process(s, pid);
        s->unfinished++;
    } else if (sscanf(line, "end %d %llu %llu %llu", &pid, &recorded, &exported, &lost) == 4) {
        note_process(s, pid);
        s->spans += exported;
        s->lost += lost;
        s->unfinished -= s->unfinished > 0;
    } else if (sscanf(line, "log %d %n", &pid, &at) == 1 && at > 0) {
        if (s->messages++ < MESSAGES_SHOWN)
            say("%s", line + at);
    }
}

static void report_read(const char *path, struct summary *s)
{
    FILE *f = fopen(path, "re");
    char line[1024];
    size_t bytes = 0;
    if (!f)
        return;
    while (bytes < REPORT_BYTES_MAX && fgets(line, sizeof line, f)) {
        bytes += strlen(line);
        line[strcspn(line, "\n")] = '\0';
        read_line(s, line);
    }
    fclose(f);
}

/* Is it the trace of one of these processes? The first line about it names its pid. */
static bool file_is_of(const char *path, const struct summary *s)
{
    char head[2048];
    int pid;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, head, sizeof head - 1);
    close(fd);
    head[n > 0 ? n : 0] = '\0';
    const char *at = strstr(head, "\"pid\":");
    if (!at || sscanf(at, "\"pid\":%d", &pid) != 1)
        return false;
    for (size_t i = 0; i < s->n_pids; i++)
        if (s->pids[i] == pid)
            return true;
    return false;
}

static void say_files(const char *dir, const struct summary *s, time_t since)
{
    char path[2 * PATH_MAX];
    struct stat st;
    unsigned n = 0;
    DIR *d = opendir(dir);
    if (!d)
        return;
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        if (e->d_name[0] == '.' || lstat(path, &st) != 0 || !S_ISREG(st.st_mode) ||
            st.st_mtime < since || !file_is_of(path, s))
            continue;
        if (n++ < FILES_SHOWN)
            fprintf(stderr, "  %s\n", path);
    }
    closedir(d);
    if (n > FILES_SHOWN)
        fprintf(stderr, "  and %u more\n", n - FILES_SHOWN);
}

static void say_end(const struct config *c, const char *trace_dir, const char *command,
                    const char *report, time_t since)
{
    static struct summary s;
    report_read(report, &s);
    if (s.n_pids == 0) {
        say("no spans: neither %s nor what it started called libcurl, libpq, SQLite, hiredis or "
            "libmicrohttpd as a shared library",
            command);
        return;
    }
    char told[160];
    snprintf(told, sizeof told, "%llu span%s of %zu process%s", (unsigned long long)s.spans,
             s.spans == 1 ? "" : "s", s.n_pids, s.n_pids == 1 ? "" : "es");
    if (c->backend == PUG_BACKEND_OTLP)
        say("%s, sent to %s", told, c->otlp_url);
    else if (c->backend == PUG_BACKEND_ZIPKIN)
        say("%s, sent to %s", told, c->zipkin_url);
    else if (c->backend == PUG_BACKEND_LOCAL)
        say("%s; open in ui.perfetto.dev:", told);
    else
        say("%s", told);
    if (c->backend == PUG_BACKEND_LOCAL)
        say_files(trace_dir, &s, since);
    if (s.lost)
        say("%llu spans were lost", (unsigned long long)s.lost);
    if (s.unfinished)
        say("%u process%s did not end in order or still run%s; their spans are not counted",
            s.unfinished, s.unfinished == 1 ? "" : "es", s.unfinished == 1 ? "s" : "");
}

/* ---- all of it ---- */

static int report_make(char path[PATH_MAX])
{
    const char *dir = getenv("TMPDIR");
    snprintf(path, PATH_MAX, "%s/pugmark-run-XXXXXX", dir && dir[0] == '/' ? dir : "/tmp");
    int fd = mkstemp(path);
    if (fd < 0) {
        say("%s cannot be made: %s", path, strerror(errno));
        return ERR_IO;
    }
    close(fd);
    return set("PUG_RUN_REPORT", path);
}

static int run(const struct options *o, const char *path)
{
    struct error_detail problem = {.code = 0};
    struct config config;
    char report[PATH_MAX] = "";
    const char *trace_dir = NULL;
    time_t since = time(NULL);
    int status = 0;
    if (environment_set(o))
        return CLI_COULD_NOT;
    if (config_init(&config, NULL, &problem)) { /* as the child will find it */
        say("%s", problem.message);
        return CLI_COULD_NOT;
    }
    int err = config.backend == PUG_BACKEND_LOCAL ? trace_dir_fix(config.trace_dir) : 0;
    trace_dir = getenv("PUG_TRACE_DIR");
    if (!err && !o->quiet)
        err = report_make(report);
    if (!err)
        err = child_run(path, o->command, &status);
    if (!err && !o->quiet)
        say_end(&config, trace_dir ? trace_dir : "", o->command[0], report, since);
    if (report[0])
        unlink(report);
    config_done(&config);
    return err ? CLI_COULD_NOT : end_like(status);
}

int cli_run(int argc, char **argv)
{
    struct options o;
    struct error_detail problem = {.code = 0};
    char path[PATH_MAX];
    int status = parse(argc, argv, &o);
    if (status >= 0)
        return status;
    if (program_find(o.command[0], path, &problem) || program_check(path, &problem)) {
        say("%s", problem.message);
        return CLI_COULD_NOT;
    }
    return run(&o, path);
}
