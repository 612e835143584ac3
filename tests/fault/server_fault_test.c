/* Lets the calls that the real server makes fail, one at a time, and looks what became of it.
 *
 * A story is told again and again on a copy of the same directory, which holds segments that are due for merging and for a
 * rule of retention, files of records, and a log that nobody sealed: `pugmark serve` starts, recovers, merges, drops;
 * bodies come by each receiver; a deletion; questions; SIGTERM, and it seals. In each telling another call fails
 * (inject.c): the n-th open, read, write, sync, rename, truncation, removal, mapping, thread or allocation fails, a
 * write is short or torn, the disk is full for a while, a call is interrupted.
 *
 * Then: the server did not crash; when it did not start it said so; after the fault it took bodies again; it ended when
 * told to; and the store opens and holds what was acknowledged, nothing that was refused, and nothing that was deleted.
 *
 * Usage: server_fault_test PUGMARK INJECT [KIND [NTH]]. Every call has its turn with PUGMARK_TEST_LONG set; else some of each kind,
 * evenly spread. Output is TAP, a test for each kind. */
#include "../crash/tally.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

enum {
    SEGMENTS = 5,       /* that the story begins with */
    BODIES_BEFORE = 12, /* of each form, in each of them */
    BODIES = 3,         /* of each form, in the story */
    TRIES_MS = 15000,   /* until a body is taken again after the fault */
    TURNS = 6,          /* of each kind, everyday */
    KINDS_MAX = 32,
};

static const char *pugmark, *inject;
static char config[100], data[100], beginning[100], preload[256];

static const char *const serve_args[] = {
    "--config", config, "--durability", "sync", "--memtable-bytes", "2000000", NULL};

struct kind {
    char name[32];
    unsigned long calls;
};

struct told {
    const char *wrong; /* NULL: nothing */
    int status;
    bool started, reached;
    struct tally tally;
};

static void file_remove(const char *name, char *ret_path, size_t size)
{
    snprintf(ret_path, size, "%s/%s", scratch, name);
    unlink(ret_path);
}

static bool is_there(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

/* ---- the story ---- */

static void send_some(const struct server *server, int bodies)
{
    struct buf body = BUF_INIT;
    for (enum form form = 0; form < FORMS; form++) {
        struct conn *conn = conn_new(server, form);
        uint32_t number;
        for (int i = 0; i < bodies && body_take(form, &number); i++) {
            if (body_send(conn, number, &body) == 0) {
                conn_free(conn);
                conn = conn_new(server, form);
            }
        }
        conn_free(conn);
    }
    buf_done(&body);
}

/* One body of each form, until it is taken; false: one never was. */
static bool takes_again(const struct server *server)
{
    struct buf body = BUF_INIT;
    bool taken = true;
    uint64_t end = clock_monotonic_ns() + TRIES_MS * NS_PER_MS;
    for (enum form form = 0; form < FORMS && taken; form++) {
        uint32_t number;
        taken = false;
        while (!taken && clock_monotonic_ns() < end && body_take(form, &number)) {
            struct conn *conn = conn_new(server, form);
            taken = body_send(conn, number, &body) == 200;
            conn_free(conn);
            if (!taken)
                usleep(20 * 1000);
        }
    }
    buf_done(&body);
    return taken;
}

/* Any answer will do. */
static void ask(const struct server *server)
{
    static const char *const paths[] = {"/api/services",
                                        "/api/traces?service=crash&limit=20",
                                        "/api/traces/0000000000c0ffee0000000000000007",
                                        "/api/pugmark/export?q=%7B%20.body%20%3D%203%20%7D",
                                        "/api/pugmark/retention",
                                        "/metrics"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        (void)http_ask(server->page, "GET", paths[i], NULL);
}

static void beginning_make(void)
{
    struct server server;
    int status;
    for (int i = 0; i <= SEGMENTS; i++) {
        if (!server_start(pugmark, data, serve_args + 2, NULL, &server, &status))
            give_up("the server does not start: status %d", status);
        send_some(&server, BODIES_BEFORE);
        if (i < SEGMENTS && (!server_stop(&server, &status) || status))
            give_up("the server does not stop: status %d", status);
    }
    kill(server.pid, SIGKILL); /* what came last is in the log only */
    waitpid(server.pid, NULL, 0);
    snprintf(beginning, sizeof beginning, "%s/beginning", scratch);
    dir_copy(data, beginning);
    dir_remove(data);
    tally_save();
}

static struct told tell(const char *kind, unsigned long nth, const char *counts_path)
{
    struct told told = {0};
    struct server server;
    char kind_set[64], nth_set[64], reached[100], reached_set[120], counts_set[160];
    file_remove("reached", reached, sizeof reached);
    snprintf(kind_set, sizeof kind_set, "FAULT_KIND=%s", kind);
    snprintf(nth_set, sizeof nth_set, "FAULT_NTH=%lu", nth);
    snprintf(reached_set, sizeof reached_set, "FAULT_REACHED=%s", reached);
    snprintf(counts_set, sizeof counts_set, "FAULT_COUNTS=%s", counts_path ? counts_path : "");
    const char *const environment[] = {
        preload, kind_set, nth_set, reached_set, counts_path ? counts_set : NULL, NULL};
    dir_copy(beginning, data);
    tally_restore();
    told.started = server_start(pugmark, data, serve_args, environment, &server, &told.status);
    if (told.started) {
        send_some(&server, BODIES);
        (void)tally_erase(&server);
        ask(&server);
        if (!takes_again(&server))
            told.wrong = "it took nothing any more";
        if (!server_stop(&server, &told.status))
            told.wrong = "it did not end";
    }
    told.reached = is_there(reached);
    if (WIFSIGNALED(told.status))
        told.wrong = "it crashed";
    else if (!told.started && WEXITSTATUS(told.status) != 1)
        told.wrong = "it did not start and said nothing";
    if (!told.wrong) {
        told.tally = tally_check(data, nth);
        if (!tally_is_right(&told.tally))
            told.wrong = "the store is not what was answered";
    }
    dir_remove(data);
    return told;
}

/* ---- which ---- */

static size_t kinds_count(struct kind kinds[KINDS_MAX])
{
    char path[100];
    size_t n = 0;
    file_remove("counts", path, sizeof path);
    struct told told = tell("none", 0, path);
    if (told.wrong || told.status)
        give_up("without a fault: %s, status %d", told.wrong ? told.wrong : "nothing wrong",
                told.status);
    if (!told.tally.expired || !told.tally.erased)
        give_up("retention took %llu and the deletion %llu: the story is not told",
                (unsigned long long)told.tally.expired, (unsigned long long)told.tally.erased);
    FILE *in = fopen(path, "r");
    while (in && n < KINDS_MAX && fscanf(in, "%31s %lu", kinds[n].name, &kinds[n].calls) == 2)
        n++;
    if (!in || n == 0)
        give_up("no calls were counted: is %s for this program?", inject);
    fclose(in);
    return n;
}

static bool kind_run(const struct kind *kind, size_t test, unsigned long from, unsigned long to,
                     unsigned long turns)
{
    unsigned long told = 0, reached = 0, refused = 0, wrong = 0, span = to - from + 1;
    turns = turns < span ? turns : span;
    for (unsigned long i = 0; i < turns; i++) {
        unsigned long nth = from + (turns > 1 ? i * (span - 1) / (turns - 1) : 0);
        struct told t = tell(kind->name, nth, NULL);
        told++;
        reached += t.reached;
        refused += !t.started;
        if (!t.wrong)
            continue;
        wrong++;
        printf("# %s %lu: %s (status %#x%s); lost %llu, too often %llu, torn %llu, strange %llu, "
               "wrong %llu, back "
               "after deletion %llu\n",
               kind->name, nth, t.wrong, (unsigned)t.status, t.started ? "" : ", did not start",
               (unsigned long long)t.tally.lost, (unsigned long long)t.tally.extra,
               (unsigned long long)t.tally.torn, (unsigned long long)t.tally.strangers,
               (unsigned long long)t.tally.wrong, (unsigned long long)t.tally.undead);
    }
    printf("%sok %zu - %s: %lu of some %lu calls failed, each in a story of its own; %lu were "
           "reached, %lu kept the server "
           "from starting\n",
           wrong ? "not " : "", test, kind->name, told, kind->calls, reached, refused);
    fflush(stdout);
    return !wrong;
}

int main(int argc, char **argv)
{
    struct kind kinds[KINDS_MAX] = {0};
    if (argc < 3) {
        fprintf(stderr, "usage: %s PUGMARK INJECT [KIND [NTH]]\n", argv[0]);
        return 2;
    }
    pugmark = argv[1];
    inject = argv[2];
    log_set_level(LOG_LEVEL_OFF);
    setvbuf(stdout, NULL, _IOLBF, 0);
    snprintf(scratch, sizeof scratch, "%s/pugmark-fault-XXXXXX", P_tmpdir);
    if (!mkdtemp(scratch))
        give_up("%s: %s", scratch, strerror(errno));
    snprintf(data, sizeof data, "%s/data", scratch);
    snprintf(preload, sizeof preload, "LD_PRELOAD=%s", inject);
    tally_init();
    tally_config(config, sizeof config);
    beginning_make();
    size_t n = kinds_count(kinds), test = 0;
    const char *only = argc > 3 ? argv[3] : NULL;
    unsigned long nth = argc > 4 ? strtoul(argv[4], NULL, 10) : 0;
    bool all = getenv("PUGMARK_TEST_LONG") != NULL, ok = true;
    for (size_t i = 0; i < n; i++)
        if (kinds[i].calls && (!only || strcmp(only, kinds[i].name) == 0))
            ok &= kind_run(&kinds[i], ++test, nth ? nth : 1, nth ? nth : kinds[i].calls,
                           all || (only && !nth) ? kinds[i].calls : TURNS);
    printf("1..%zu\n", test);
    if (!ok) {
        printf("# the server's words are in %s\n", scratch);
        return 1;
    }
    dir_remove(scratch);
    return 0;
}
