/* Pugmark beside the tracers that Debian has packages of, on the same loop, in the same process and
 * in turns (peers/loop.c): one span of ours against two tracepoints of LTTng-UST, and against one
 * function entry and exit of uftrace. Each peer runs as its manual says, with its own daemon and its
 * files, and all consumers are on the first core, the loop on the last.
 *
 * What a peer lost is asked of its own tools, and printed; a peer that is not installed has no rows
 * (packages lttng-tools, liblttng-ust-dev, uftrace).
 *
 *     peers SOURCE_DIR LIBPUGMARK_A */
#include "report.h"

#include <ftw.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BURST = 5000, ROUNDS = 200, COMMAND_BYTES = 2048 };

struct result {
    double floor_ns, pugmark_ns, peer_ns, spans, lost;
};

static char work_dir[] = "/tmp/pugmark-peers-XXXXXX";
static const char *source_dir, *library;

/* Runs a shell command with its output in work_dir/log; false when it fails. */
__attribute__((format(printf, 1, 2))) static bool run(const char *format, ...)
{
    char command[COMMAND_BYTES], all[COMMAND_BYTES + 128];
    va_list args;
    va_start(args, format);
    vsnprintf(command, sizeof command, format, args);
    va_end(args);
    snprintf(all, sizeof all, "cd %s && { %s; } >>log 2>&1", work_dir, command);
    return system(all) == 0;
}

static bool have(const char *program)
{
    return run("command -v %s", program);
}

/* The number behind `key` in the output of a command; -1 when there is none. */
static double ask(const char *command, const char *key)
{
    char line[512], all[COMMAND_BYTES];
    double value = -1;
    snprintf(all, sizeof all, "cd %s && { %s; } 2>&1", work_dir, command);
    FILE *in = popen(all, "r");
    while (in && fgets(line, sizeof line, in)) {
        const char *at = strstr(line, key);
        if (at && value < 0)
            value = strtod(at + strlen(key), NULL);
    }
    if (in)
        pclose(in);
    return value;
}

static bool result_read(struct result *r)
{
    const struct {
        const char *key;
        double *value;
    } wanted[] = {{"floor ", &r->floor_ns},
                  {"pugmark ", &r->pugmark_ns},
                  {"peer ", &r->peer_ns},
                  {"spans ", &r->spans},
                  {"lost ", &r->lost}};
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        *wanted[i].value = ask("cat result", wanted[i].key);
        if (*wanted[i].value < 0)
            return false;
    }
    return true;
}

static int last_core(void)
{
    return (int)sysconf(_SC_NPROCESSORS_ONLN) - 1;
}

static void rows(struct report *report, const char *peer, const struct result *r, double peer_lost)
{
    static char text[8][96];
    static int n;
    snprintf(text[n], sizeof text[n], "%s", peer);
    report_row(report, text[n++], r->peer_ns, "ns");
    report_ratio(report, "floor", r->floor_ns);
    report_ratio(report, "pugmark", r->pugmark_ns);
    snprintf(text[n], sizeof text[n], "Pugmark, a span, beside it");
    report_row(report, text[n++], r->pugmark_ns, "ns");
    report_ratio(report, "floor", r->floor_ns);
    snprintf(text[n], sizeof text[n], "floor, beside it");
    report_row(report, text[n++], r->floor_ns, "ns");
    snprintf(text[n], sizeof text[n], "lost by it, of %.0f", r->spans);
    report_row(report, text[n++], peer_lost, "records");
}

/* ---- LTTng-UST ---- */

static pid_t daemon_start(void)
{
    pid_t pid = fork();
    if (pid == 0) {
        char log[128];
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        snprintf(log, sizeof log, "%s/log", work_dir);
        if (!freopen(log, "a", stdout) || dup2(STDOUT_FILENO, STDERR_FILENO) < 0)
            _exit(127);
        execlp("lttng-sessiond", "lttng-sessiond", "--no-kernel", (char *)NULL);
        _exit(127);
    }
    for (int i = 0; pid > 0 && i < 100 && !run("lttng --no-sessiond list"); i++)
        usleep(100000);
    return pid;
}

static int lttng(struct report *report)
{
    struct result r;
    double lost = -1;
    if (!have("lttng") || !have("lttng-sessiond") ||
        !run("cc -O2 -DPEER_LTTNG -I%s/include -I%s/bench/peers %s/bench/peers/loop.c %s "
             "-llttng-ust -ldl -lpthread -o "
             "lttng_loop",
             source_dir, source_dir, source_dir, library)) {
        fprintf(stderr, "bench peers: LTTng-UST is not installed\n");
        return 0;
    }
    if (run("lttng --no-sessiond list")) {
        fprintf(stderr, "bench peers: an LTTng session daemon runs already; it is left alone, and "
                        "LTTng not measured\n");
        return 0;
    }
    pid_t pid = daemon_start();
    bool ok = run("lttng create pugmark --output=%s/lttng && "
                  "lttng enable-channel -u --subbuf-size=4M --num-subbuf=4 c && "
                  "lttng enable-event -u -c c 'pugmark_peer:*' && lttng start",
                  work_dir) &&
              run("./lttng_loop %d %d %d >result", last_core(), BURST, ROUNDS) &&
              run("lttng stop") && result_read(&r);
    if (ok)
        lost = ask("lttng list pugmark", "Discarded events: ");
    run("lttng destroy pugmark");
    kill(pid, SIGTERM);
    waitpid(pid, NULL, 0);
    if (!ok || lost < 0 || r.lost != 0) {
        fprintf(stderr, "bench peers: LTTng could not be measured: see %s/log\n", work_dir);
        return 1;
    }
    double bytes = ask("du -sb lttng | sed 's/^/bytes /'", "bytes ");
    if (bytes < r.spans) { /* it recorded nothing, and that is cheap */
        fprintf(stderr, "bench peers: LTTng wrote %.0f bytes for %.0f pairs\n", bytes, r.spans);
        return 1;
    }
    rows(report, "LTTng-UST, two tracepoints without fields", &r, lost);
    report_row(report, "bytes it wrote for a pair", bytes / r.spans, "bytes");
    return 0;
}

/* ---- uftrace ---- */

static int uftrace(struct report *report)
{
    struct result r;
    if (!have("uftrace")) {
        fprintf(stderr, "bench peers: uftrace is not installed\n");
        return 0;
    }
    bool ok = run("cc -O2 -pg -DPEER_UFTRACE -I%s/include %s/bench/peers/loop.c %s -lpthread -o "
                  "uftrace_loop",
                  source_dir, source_dir, library) &&
              run("uftrace record --no-libcall -d uftrace ./uftrace_loop %d %d %d >result",
                  last_core(), BURST, ROUNDS) &&
              result_read(&r);
    double calls = ok ? ask("uftrace report -d uftrace -f call | grep traced | sed 's/^/calls /'",
                            "calls ")
                      : -1;
    if (calls < 0 || r.lost != 0) {
        fprintf(stderr, "bench peers: uftrace could not be measured: see %s/log\n", work_dir);
        return 1;
    }
    rows(report, "uftrace, entry and exit of a function", &r, r.spans - calls);
    return 0;
}

static int remove_one(const char *path, const struct stat *s, int what, struct FTW *ftw)
{
    (void)s, (void)what, (void)ftw;
    return remove(path);
}

int main(int argc, char **argv)
{
    cpu_set_t set;
    if (argc != 3 || !mkdtemp(work_dir)) {
        fprintf(stderr, "usage: peers SOURCE_DIR LIBPUGMARK_A\n");
        return 2;
    }
    source_dir = argv[1];
    library = argv[2];
    CPU_ZERO(&set);
    CPU_SET(0, &set);
    sched_setaffinity(0, sizeof set, &set);
    struct report *report = report_new("peers");
    report_machine(report, "cores", "loop on %d, all consumers on 0", last_core());
    int failed = lttng(report);
    failed |= uftrace(report);
    int status = report_finish(report);
    if (!failed)
        nftw(work_dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    return failed ? 1 : status;
}
