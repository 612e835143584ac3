#include "served.h"

#include "base/clock.h"
#include "base/json.h"
#include "sender.h"

#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { START_MS_MAX = 10000, END_MS_MAX = 120000 };

void bench_die(const char *what)
{
    fprintf(stderr, "bench: %s%s%s\n", what, errno ? ": " : "", errno ? strerror(errno) : "");
    exit(1);
}

void bench_stay_on(int cpu)
{
    cpu_set_t set;
    if (cpu < 0)
        return;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    sched_setaffinity(0, sizeof set, &set);
}

double cpu_seconds(const struct rusage *usage)
{
    return (double)(usage->ru_utime.tv_sec + usage->ru_stime.tv_sec) +
           (double)(usage->ru_utime.tv_usec + usage->ru_stime.tv_usec) / 1e6;
}

void process_end(pid_t pid, struct rusage *ret_usage)
{
    uint64_t until = clock_monotonic_ns() + END_MS_MAX * NS_PER_MS;
    int status = 0;
    for (;;) {
        pid_t got = wait4(pid, &status, WNOHANG, ret_usage);
        if (got == pid)
            break;
        if (clock_monotonic_ns() > until) {
            kill(pid, SIGKILL);
            until = UINT64_MAX;
        }
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    }
    errno = 0;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        bench_die("the process that was measured did not end cleanly");
}

struct str json_find(struct str json, const char *key, struct arena *arena)
{
    struct json_reader r;
    json_reader_init(&r, json, arena, NULL);
    for (enum json_type type; (type = json_next(&r)) != JSON_ERROR && type != JSON_END;)
        if (type == JSON_KEY && str_eq(r.text, str_from(key))) {
            type = json_next(&r);
            if (type == JSON_STRING || type == JSON_NUMBER)
                return r.text;
        }
    return STR_NONE;
}

static struct str file_read(const char *path, struct arena *arena)
{
    char text[8192];
    FILE *in = fopen(path, "r");
    size_t n = in ? fread(text, 1, sizeof text, in) : 0;
    if (in)
        fclose(in);
    return arena_str(arena, (struct str){text, n});
}

void served_start(const char *server, const char *dir, int cpu, struct arena *arena,
                  struct served *ret)
{
    char data[512], ready[512];
    snprintf(data, sizeof data, "%s/data", dir);
    snprintf(ready, sizeof ready, "%s/ready", dir);
    unlink(ready);
    fflush(NULL);
    uint64_t before = clock_monotonic_ns(), until = before + START_MS_MAX * NS_PER_MS;
    pid_t pid = fork();
    if (pid < 0)
        bench_die("cannot fork");
    if (pid == 0) {
        bench_stay_on(cpu);
        execl(server, server, "serve", "--data", data, "--ports", "auto", "--ready-file", ready,
              (char *)NULL);
        bench_die(server);
    }
    while (access(ready, R_OK) != 0) {
        errno = 0;
        if (waitpid(pid, NULL, WNOHANG) == pid)
            bench_die("the server ended before it was ready");
        if (clock_monotonic_ns() > until) {
            kill(pid, SIGKILL);
            bench_die("the server was not ready in time");
        }
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    *ret = (struct served){.pid = pid,
                           .endpoints = file_read(ready, arena),
                           .start_ms = (double)(clock_monotonic_ns() - before) / 1e6};
    ret->page = served_port(ret, "page");
}

uint16_t served_port(const struct served *served, const char *name)
{
    struct arena arena = ARENA_INIT;
    struct str url = json_find(served->endpoints, name, &arena);
    uint16_t port = 0;
    uint64_t n;
    /* Those that speak no HTTP are named by host and port alone. */
    if (url.ptr && sender_port(url.ptr, url.len, &port)) {
        struct str text = url;
        for (size_t i = url.len; i > 0; i--)
            if (url.ptr[i - 1] == ':') {
                text = str_skip(url, i);
                break;
            }
        port = str_to_u64(text, &n) && n <= UINT16_MAX ? (uint16_t)n : 0;
    }
    arena_done(&arena);
    return port;
}

/* Fields 14 and 15 of a stat file; the name, field 2, may hold anything but ends at the last ')'. */
static double stat_cpu_s(const char *path)
{
    char text[1024];
    FILE *in = fopen(path, "r");
    size_t n = in ? fread(text, 1, sizeof text - 1, in) : 0;
    if (in)
        fclose(in);
    text[n] = '\0';
    const char *at = strrchr(text, ')');
    unsigned long user = 0, system = 0;
    if (!at ||
        sscanf(at + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) != 2)
        return 0;
    return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

double served_cpu_s(const struct served *served, double *ret_busiest_s)
{
    char path[300];
    snprintf(path, sizeof path, "/proc/%d/task", (int)served->pid);
    DIR *dir = ret_busiest_s ? opendir(path) : NULL;
    double busiest = 0;
    for (struct dirent *e; dir && (e = readdir(dir));) {
        if (e->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "/proc/%d/task/%.32s/stat", (int)served->pid, e->d_name);
        double s = stat_cpu_s(path);
        busiest = s > busiest ? s : busiest;
    }
    if (dir)
        closedir(dir);
    if (ret_busiest_s)
        *ret_busiest_s = busiest;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)served->pid);
    return stat_cpu_s(path);
}

void served_settle(const struct served *served)
{
    enum { SECONDS_MAX = 120 };
    double before = served_cpu_s(served, NULL);
    for (int i = 0; i < SECONDS_MAX; i++) {
        sleep(1);
        double now = served_cpu_s(served, NULL);
        if (now - before < 0.03)
            return;
        before = now;
    }
}

double served_memory_peak_mib(const struct served *served)
{
    char path[64], line[256];
    double kib = 0;
    snprintf(path, sizeof path, "/proc/%d/status", (int)served->pid);
    FILE *in = fopen(path, "r");
    while (in && fgets(line, sizeof line, in))
        if (sscanf(line, "VmHWM: %lf", &kib) == 1)
            break;
    if (in)
        fclose(in);
    return kib / 1024;
}

uint64_t served_metric(const struct served *served, const char *name)
{
    uint64_t n = UINT64_MAX;
    char *body;
    size_t len;
    if (!served->page || sender_get(served->page, "/metrics", &body, &len))
        return n;
    for (struct str value, line, rest = {body, len}; rest.ptr;) {
        line = str_trim(str_split(rest, '\n', &rest));
        if (str_eq(str_split(line, ' ', &value), str_from(name)) && !str_to_u64(value, &n))
            n = UINT64_MAX;
    }
    free(body);
    return n;
}

static uint64_t bytes_seen;
static int tree_add(const char *path, const struct stat *s, int type, struct FTW *at)
{
    (void)path, (void)at;
    if (type == FTW_F)
        bytes_seen += (uint64_t)s->st_size;
    return 0;
}
static int tree_drop(const char *path, const struct stat *s, int type, struct FTW *at)
{
    (void)s, (void)type, (void)at;
    return remove(path);
}

uint64_t tree_bytes(const char *dir)
{
    bytes_seen = 0;
    nftw(dir, tree_add, 8, FTW_PHYS);
    return bytes_seen;
}

void tree_remove(const char *dir)
{
    nftw(dir, tree_drop, 8, FTW_DEPTH | FTW_PHYS);
}
