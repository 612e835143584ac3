/* Kills the real server under load, again and again, and counts.
 *
 * Each round starts `pugmark serve` on the same data directory, sends bodies from several connections, each by another
 * receiver, and kills the server with SIGKILL at a random moment. A body is a trace of some spans, a line of a log or a
 * point of a metric (client.h); some are sent twice. For each the program knows how often it was sent and how often that
 * was acknowledged. Then, on a copy of the directory, every span must be there at least once for each acknowledgement and
 * at most once for each sending (what was under way when the server died may have become durable), and a body is there
 * as a whole or not at all. The memtable is small, so that kills also fall into sealing and merging.
 *
 * Some bodies are doomed. Of those the new ones are deleted while the others come in: what was acknowledged before a
 * deletion that was answered is gone for good, what came beside it may be. The old ones are under a rule of retention and
 * may go at any time.
 *
 * Usage: crash_test PUGMARK [ROUNDS [SEED]]. Output is TAP. */
#include "tally.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"

enum {
    SENDERS = 3,
    KILL_AFTER_MS_MAX = 150,
    READY_MS = 20000,
    CHECK_EVERY = 10,
    ERASE_EVERY = 4, /* rounds */
};

static char config[100];
static unsigned erasures;

struct sender {
    const struct server *server;
    enum form form;
};

/* Sends until the server is gone. */
static void *sender(void *arg)
{
    const struct sender *s = arg;
    struct buf body = BUF_INIT;
    struct conn *conn = conn_new(s->server, s->form);
    int status = 200;
    uint32_t number;
    while (status && body_take(s->form, &number)) {
        int copies = number % 5 ? 1 : 2;
        while (status && copies > 0) {
            status = body_send(conn, number, &body);
            if (status == 200)
                copies--;
            else if (status == 429 || status == 503)
                usleep(2000);
            else if (status)
                give_up("%s: status %d", form_name(s->form), status);
        }
    }
    conn_free(conn);
    buf_done(&body);
    return NULL;
}

static void *eraser(void *arg)
{
    int status = tally_erase(arg);
    if (status != 0 && status != 200 && status != 503)
        give_up("a deletion was answered with %d", status);
    erasures += status == 200;
    return NULL;
}

/* Memtables of several sizes: what a small one sealed a large one can merge. */
static struct server round_server(const char *pugmark, const char *data, int number)
{
    static const char *const memtable_bytes[] = {"400000", "2000000", "8000000"};
    int status;
    struct server s;
    const char *const args[] = {"--config",
                                config,
                                "--durability",
                                number % 2 ? "write" : "sync",
                                "--memtable-bytes",
                                memtable_bytes[number % 3],
                                NULL};
    if (!server_start(pugmark, data, args, NULL, &s, &status))
        give_up("the server ended with status %d; its words are in %s/stderr", status, scratch);
    return s;
}

static void round_run(const char *pugmark, const char *data, int number, uint64_t random)
{
    struct server s = round_server(pugmark, data, number);
    struct sender senders[SENDERS];
    pthread_t threads[SENDERS], erasing;
    bool erases = number % ERASE_EVERY == 0;
    uint64_t before = tally_acknowledged();
    for (int i = 0; i < SENDERS; i++) {
        senders[i] = (struct sender){&s, (enum form)(((random >> 40) + (unsigned)i) % FORMS)};
        if (pthread_create(&threads[i], NULL, sender, &senders[i]))
            give_up("pthread_create");
    }
    usleep((useconds_t)(random % (KILL_AFTER_MS_MAX * 500)));
    if (erases && pthread_create(&erasing, NULL, eraser, &s))
        give_up("pthread_create");
    bool awaited = erases && number % (2 * ERASE_EVERY) == 0;
    if (awaited)
        pthread_join(erasing, NULL);
    usleep((useconds_t)(random / KILL_AFTER_MS_MAX % (KILL_AFTER_MS_MAX * 500)));
    /* A kill before the first answer would test little. */
    uint64_t end = clock_monotonic_ns() + READY_MS * NS_PER_MS;
    while (tally_acknowledged() == before) {
        if (clock_monotonic_ns() > end)
            give_up("nothing was acknowledged in round %d", number);
        usleep(500);
    }
    kill(s.pid, SIGKILL);
    waitpid(s.pid, NULL, 0);
    for (int i = 0; i < SENDERS; i++)
        pthread_join(threads[i], NULL);
    if (erases && !awaited)
        pthread_join(erasing, NULL);
}

static bool check(const char *data, int round, uint64_t random)
{
    char copy[100];
    snprintf(copy, sizeof copy, "%s/copy", scratch);
    dir_copy(data, copy);
    struct tally t = tally_check(copy, random);
    dir_remove(copy);
    printf("%sok %d - after %d kills: %llu acknowledgements of %u bodies, %llu segments, %u "
           "deletions took %llu, "
           "retention %llu; lost %llu, too often %llu, torn %llu, strange %llu, wrong %llu, back "
           "after deletion %llu\n",
           tally_is_right(&t) ? "" : "not ", round / CHECK_EVERY, round,
           (unsigned long long)tally_acknowledged(), tally_bodies(), (unsigned long long)t.segments,
           erasures, (unsigned long long)t.erased, (unsigned long long)t.expired,
           (unsigned long long)t.lost, (unsigned long long)t.extra, (unsigned long long)t.torn,
           (unsigned long long)t.strangers, (unsigned long long)t.wrong,
           (unsigned long long)t.undead);
    fflush(stdout);
    return tally_is_right(&t);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: %s PUGMARK [ROUNDS [SEED]]\n", argv[0]);
        return 2;
    }
    int rounds = argc > 2 ? atoi(argv[2]) : 100;
    uint64_t seed = argc > 3 ? strtoull(argv[3], NULL, 10) : clock_realtime_ns();
    char data[80];
    log_set_level(LOG_LEVEL_OFF);
    snprintf(scratch, sizeof scratch, "%s/pugmark-crash-XXXXXX", P_tmpdir);
    if (rounds < CHECK_EVERY || !mkdtemp(scratch)) {
        fprintf(stderr, "%s: at least %d rounds, and a writable %s\n", argv[0], CHECK_EVERY,
                P_tmpdir);
        return 2;
    }
    snprintf(data, sizeof data, "%s/data", scratch);
    tally_init();
    tally_config(config, sizeof config);
    rounds -= rounds % CHECK_EVERY;
    printf("1..%d\n# seed %llu\n", rounds / CHECK_EVERY, (unsigned long long)seed);
    bool ok = true;
    for (int i = 1; i <= rounds; i++) {
        uint64_t random = hash_mix64(seed + (uint64_t)i);
        round_run(argv[1], data, i, random);
        if (i % CHECK_EVERY == 0)
            ok &= check(data, i, random);
    }
    if (!ok) {
        printf("# files are left in %s\n", scratch);
        return 1;
    }
    dir_remove(data);
    dir_remove(scratch);
    return 0;
}
