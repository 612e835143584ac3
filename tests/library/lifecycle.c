/* What programs do between pug_start and their end, a case each: lifecycle.c CASE, with the environment saying where
 * traces go. Says on stderr what the library told and, as "name value" lines on stdout, what it wants to be checked. */
#include <pugmark/pugmark.h>

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static _Atomic int n_told;
static _Atomic bool ending;

static void tell(void *user, const char *message)
{
    (void)user;
    n_told++;
    fprintf(stderr, "told: %s\n", message);
}

static struct pug_options options(void)
{
    struct pug_options o = {.size = sizeof o, .log = tell};
    o.drain_interval_us = 500;
    o.flush_interval_ms = 5;
    o.stop_timeout_ms = 1000;
    return o;
}

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "line %d: not so: %s\n", __LINE__, #condition);                        \
            _exit(99);                                                                             \
        }                                                                                          \
    } while (0)

static void begin(void)
{
    struct pug_options o = options();
    CHECK(pug_start(&o) == 0);
}

static struct pug_counts counts(void)
{
    struct pug_counts c = {.size = sizeof c};
    pug_counts_read(&c);
    return c;
}

static void say_counts(void)
{
    struct pug_counts c = counts();
    printf("recorded %llu\nexported %llu\nlost_export %llu\ntold %d\n",
           (unsigned long long)c.recorded, (unsigned long long)c.exported,
           (unsigned long long)c.lost_export, (int)n_told);
    fflush(stdout);
}

static void one(const char *which)
{
    PUG_SPAN("one", PUG_STR("which", which));
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int wait_for(pid_t pid)
{
    int status;
    while (waitpid(pid, &status, 0) < 0)
        CHECK(errno == EINTR);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void *busy(void *arg)
{
    while (!ending) {
        PUG_SPAN("busy", PUG_INT("n", 1));
        PUG_SPAN("inner");
        for (volatile int i = 0; i < 30000; i++)
            ;
    }
    return arg;
}

static pthread_t thread(void *(*body)(void *), void *arg)
{
    pthread_t t;
    CHECK(pthread_create(&t, NULL, body, arg) == 0);
    return t;
}

/* ---- beginnings ---- */

/* Runs before main when the environment says so. */
__attribute__((constructor)) static void before_main(void)
{
    if (!getenv("BEFORE_MAIN"))
        return;
    begin();
    one("before main");
}

static void constructed(void)
{
    one("in main");
}

static void start_twice(void)
{
    struct pug_options o = options();
    begin();
    one("first");
    CHECK(pug_start(&o) == PUG_ERR_BUSY);
    one("second");
    CHECK(pug_stop() == 0 && pug_stop() == 0);
    begin();
    one("third");
}

/* ---- children ---- */

static void fork_threads(void)
{
    pthread_t t[3];
    begin();
    for (int i = 0; i < 3; i++)
        t[i] = thread(busy, NULL);
    for (int i = 0; i < 12; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            if (i % 3 == 0) {
                execl("/bin/true", "true", (char *)NULL);
                _exit(98);
            }
            PUG_SPAN("child", PUG_INT("pid", getpid()));
            if (i % 3 == 1)
                exit(0); /* in the middle of the span */
            pthread_t mine = thread(busy, NULL);
            nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
            ending = true;
            pthread_join(mine, NULL);
            CHECK(pug_stop() == 0);
            _exit(0);
        }
        CHECK(wait_for(pid) == 0);
        one("parent");
    }
    ending = true;
    for (int i = 0; i < 3; i++)
        pthread_join(t[i], NULL);
    CHECK(pug_flush(5000) == 0);
    say_counts();
}

static void spawned(void)
{
    char *argv[] = {(char *)"true", NULL};
    pid_t pid;
    begin();
    PUG_SPAN("around");
    pid = vfork();
    if (pid == 0) {
        execve("/bin/true", argv, environ);
        _exit(98);
    }
    CHECK(wait_for(pid) == 0);
    one("after vfork");
    CHECK(posix_spawn(&pid, "/bin/true", NULL, NULL, argv, environ) == 0);
    CHECK(wait_for(pid) == 0);
    one("after posix_spawn");
    CHECK(system("true") == 0);
    one("after system");
}

/* What an exec'd program finds open. */
static void list_fds(void)
{
    DIR *d = opendir("/proc/self/fd");
    for (struct dirent *e; d && (e = readdir(d));)
        if (e->d_name[0] != '.' && atoi(e->d_name) > 2 && atoi(e->d_name) != dirfd(d))
            printf("open %s\n", e->d_name);
}

static void executed(void)
{
    begin();
    {
        PUG_SPAN("before exec");
    }
    PUG_SPAN("open at exec");
    CHECK(pug_flush(3000) == 0);
    unsetenv("PUG_TRACING");
    execl("/proc/self/exe", "lifecycle", "list_fds", (char *)NULL);
    _exit(98);
}

static void daemonized(void)
{
    begin();
    one("before");
    CHECK(pug_flush(3000) == 0);
    CHECK(daemon(0, 0) == 0);
    one("after");
    CHECK(pug_flush(3000) == 0);
    /* Who waits for us cannot use waitpid. */
    int fd = open(getenv("DONE"), O_WRONLY | O_CREAT, 0600);
    CHECK(fd >= 0);
}

/* ---- ends ---- */

static void sigterm(void)
{
    begin();
    PUG_SPAN("open");
    one("before");
    CHECK(pug_flush(3000) == 0);
    raise(SIGTERM);
}

static void until_killed(void)
{
    begin();
    thread(busy, NULL);
    one("before");
    CHECK(pug_flush(3000) == 0);
    printf("ready 1\n");
    fflush(stdout);
    pause();
}

static void ends(const char *how)
{
    begin();
    one("before");
    if (strcmp(how, "_exit") == 0 || strcmp(how, "abort") == 0)
        CHECK(pug_flush(3000) == 0);
    PUG_SPAN("open");
    if (strcmp(how, "exit") == 0)
        exit(3);
    if (strcmp(how, "quick_exit") == 0)
        quick_exit(3);
    if (strcmp(how, "_exit") == 0)
        _exit(3);
    abort();
}

static void *exits(void *arg)
{
    one("before");
    exit(3);
    return arg;
}

static void exit_elsewhere(void)
{
    begin();
    thread(busy, NULL);
    thread(busy, NULL);
    thread(exits, NULL);
    busy(NULL);
}

static void on_alarm(int signal_number)
{
    (void)signal_number;
    exit(4);
}

/* Not allowed by POSIX, and done all the same. */
static void exit_in_handler(void)
{
    begin();
    signal(SIGALRM, on_alarm);
    one("before");
    alarm(1);
    pug_flush(60000);
    busy(NULL);
}

/* ---- threads ---- */

static void *leaves_open(void *arg)
{
    PUG_SPAN("open at pthread_exit");
    {
        PUG_SPAN("inner of it");
        pthread_exit(arg);
    }
}

static void thread_exit(void)
{
    begin();
    pthread_join(thread(leaves_open, NULL), NULL);
    one("after");
}

static _Atomic int is_in;

static void *sleeps(void *arg)
{
    PUG_SPAN("cancelled");
    is_in = 1;
    for (;;)
        pause();
    return arg;
}

static void *flushes(void *arg)
{
    is_in = 1;
    pug_flush(60000);
    pthread_testcancel();
    return arg;
}

static void cancelled(void)
{
    void *result;
    begin();
    pthread_t t = thread(sleeps, NULL);
    while (!is_in)
        sched_yield();
    CHECK(pthread_cancel(t) == 0 && pthread_join(t, &result) == 0 && result == PTHREAD_CANCELED);
    one("after");
}

/* With a collector that is not there, so that the flush takes its time. */
static void cancelled_in_flush(void)
{
    begin();
    one("before");
    pthread_t t = thread(flushes, NULL);
    while (!is_in)
        sched_yield();
    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    double start = seconds();
    CHECK(pthread_cancel(t) == 0);
    CHECK(pug_stop() == PUG_ERR_TIMEOUT);
    CHECK(seconds() - start < 5);
    pthread_join(t, NULL);
    begin(); /* nothing is held that this needs */
}

/* ---- plugins ---- */

static void (*plugin_record)(void);

/* A thread that has recorded, and ends when the plugin has gone. */
static void *in_plugin(void *arg)
{
    plugin_record();
    is_in = 1;
    while (is_in != 2)
        sched_yield();
    return arg;
}

static void plugin(const char *path)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        fprintf(stderr, "%s\n", dlerror());
    CHECK(library);
    int (*start)(void);
    *(void **)&start = dlsym(library, "plugin_start");
    CHECK(start && start() == 0);
    *(void **)&plugin_record = dlsym(library, "plugin_record");
    CHECK(plugin_record);
    pthread_t t = thread(in_plugin, NULL);
    while (is_in != 1)
        sched_yield();
    dlclose(library);
    is_in = 2;
    pthread_join(t, NULL);
}

/* ---- descriptors ---- */

static void *records_and_stays(void *arg)
{
    one("thread");
    is_in = 1;
    while (!ending)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    return arg;
}

/* As daemons do, and then opens its own files under the same numbers. */
static void close_all(void)
{
    enum { FILES = 40 };
    char path[64], text[64], back[64];
    int mine[FILES];
    begin();
    one("before");
    CHECK(pug_flush(5000) == 0);
    for (int fd = 3; fd < 1024; fd++)
        close(fd);
    for (int i = 0; i < FILES; i++) {
        snprintf(path, sizeof path, "%s/own-%d", getenv("OWN"), i);
        /* Some of them where the library's were. */
        int fd = open(path, O_RDWR | O_CREAT, 0600);
        CHECK(fd >= 0);
        if (i < 10)
            fd = dup2(fd, 750 + i);
        mine[i] = fd;
        int n = snprintf(text, sizeof text, "host's own file %d\n", i);
        CHECK(write(fd, text, (size_t)n) == n);
    }
    /* More at the same time than lanes were ready. */
    pthread_t t[40];
    for (int i = 0; i < 40; i++) {
        is_in = 0;
        t[i] = thread(records_and_stays, NULL);
        while (!is_in)
            sched_yield();
        if (i % 8 == 7)
            CHECK(pug_flush(5000) == 0);
    }
    ending = true;
    for (int i = 0; i < 40; i++)
        pthread_join(t[i], NULL);
    one("after");
    CHECK(pug_flush(5000) == 0);
    CHECK(pug_stop() == 0);
    for (int i = 0; i < FILES; i++) {
        struct stat st;
        int n = snprintf(text, sizeof text, "host's own file %d\n", i);
        CHECK(fstat(mine[i], &st) == 0 && st.st_size == n);
        CHECK(pread(mine[i], back, sizeof back, 0) == n && memcmp(text, back, (size_t)n) == 0);
    }
    say_counts();
}

/* ---- files ---- */

static void limited_from_the_start(void)
{
    struct pug_options o = options();
    CHECK(setrlimit(RLIMIT_FSIZE, &(struct rlimit){0, RLIM_INFINITY}) == 0);
    CHECK(pug_start(&o) < 0); /* and SIGXFSZ has its default action */
    one("nobody sees it");
    CHECK(setrlimit(RLIMIT_FSIZE, &(struct rlimit){RLIM_INFINITY, RLIM_INFINITY}) == 0);
    begin();
    CHECK(setrlimit(RLIMIT_FSIZE, &(struct rlimit){4000, RLIM_INFINITY}) == 0);
    for (int i = 0; i < 40; i++) {
        for (int k = 0; k < 5; k++)
            one("written or not");
        pug_flush(3000);
    }
    say_counts();
    _exit(0);
}

static void many(void)
{
    begin();
    for (int round = 0; round < 10; round++) {
        for (int i = 0; i < 200; i++)
            one("written or not");
        pug_flush(3000);
    }
    say_counts();
    _exit(0); /* no last write: the file must be whole as it is */
}

/* Waits for a line between two halves. */
static void interrupted(void)
{
    char line[8];
    begin();
    one("first");
    CHECK(pug_flush(3000) == 0);
    printf("ready 1\n");
    fflush(stdout);
    CHECK(fgets(line, sizeof line, stdin));
    for (int i = 0; i < 5; i++) {
        one("second");
        pug_flush(3000);
    }
    say_counts();
}

static void unprivileged(void)
{
    struct pug_options o = options();
    if (setgid(65534) != 0 || setuid(65534) != 0)
        exit(77);
    printf("result %d\n", pug_start(&o));
    one("nobody sees it");
    say_counts();
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } cases[] = {{"constructed", constructed},
                 {"start_twice", start_twice},
                 {"fork_threads", fork_threads},
                 {"spawned", spawned},
                 {"executed", executed},
                 {"list_fds", list_fds},
                 {"daemonized", daemonized},
                 {"sigterm", sigterm},
                 {"until_killed", until_killed},
                 {"exit_elsewhere", exit_elsewhere},
                 {"exit_in_handler", exit_in_handler},
                 {"thread_exit", thread_exit},
                 {"cancelled", cancelled},
                 {"cancelled_in_flush", cancelled_in_flush},
                 {"close_all", close_all},
                 {"limited_from_the_start", limited_from_the_start},
                 {"many", many},
                 {"interrupted", interrupted},
                 {"unprivileged", unprivileged}};
    if (argc < 2)
        return 2;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (strcmp(argv[1], cases[i].name) == 0) {
            cases[i].run();
            return 0;
        }
    if (argc == 3 && strcmp(argv[1], "ends") == 0)
        ends(argv[2]);
    if (argc == 3 && strcmp(argv[1], "plugin") == 0) {
        plugin(argv[2]);
        return 0;
    }
    return 2;
}
