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
#include "client.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "store/records.h"
#include "store/store.h"

enum {
    SENDERS = 3,
    BODIES_MAX = 6000000,
    KILL_AFTER_MS_MAX = 150,
    READY_MS = 20000,
    CHECK_EVERY = 10,
    ERASE_EVERY = 4, /* rounds */
};

enum fate { KEPT, MAY_BE_GONE, GONE };

static atomic_uint next_body;
static atomic_uchar sent[BODIES_MAX], acknowledged[BODIES_MAX];
static uint8_t form_of[BODIES_MAX],
    fates[BODIES_MAX]; /* by whoever took the number; by the eraser */
static uint8_t found[BODIES_MAX * BODY_SPANS];
static uint64_t began_ns;
static uint64_t erasures, erased, expired;

/* So many that retention finds it worth while to write the rest of a segment anew. */
static bool is_old(uint32_t number)
{
    return form_is_spans(form_of[number]) && number % 4 == 1 && number % 5;
}

static bool is_doomed(uint32_t number)
{
    return is_old(number) || (form_is_spans(form_of[number]) && number % 8 == 3 && number % 5);
}

static uint64_t time_of(uint32_t number)
{
    return began_ns + number - (is_old(number) ? 7200 * NS_PER_S : 0);
}

/* ---- sending ---- */

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
    while (status) {
        uint32_t number = atomic_fetch_add(&next_body, 1);
        if (number >= BODIES_MAX)
            break;
        form_of[number] = (uint8_t)s->form;
        fates[number] = is_old(number) ? MAY_BE_GONE : KEPT;
        body_make(s->form, number, time_of(number), is_doomed(number), &body);
        int copies = number % 5 ? 1 : 2;
        while (copies > 0) {
            atomic_fetch_add(&sent[number], 1);
            status = conn_send(conn, &body);
            if (status == 200) {
                atomic_fetch_add(&acknowledged[number], 1);
                copies--;
            } else if (status == 429 || status == 503) {
                /* Refused, so it must not be there. */
                atomic_fetch_sub(&sent[number], 1);
                usleep(2000);
            } else if (status == 0) {
                break;
            } else {
                give_up("%s: status %d", form_name(s->form), status);
            }
        }
    }
    conn_free(conn);
    buf_done(&body);
    return NULL;
}

/* Deletes what is doomed, once. */
static void *eraser(void *arg)
{
    const struct server *server = arg;
    static uint32_t before[BODIES_MAX];
    uint32_t n = 0, end = atomic_load(&next_body);
    for (uint32_t i = 0; i < end && i < BODIES_MAX; i++) /* nothing of these is under way */
        if (atomic_load(&acknowledged[i]) &&
            atomic_load(&acknowledged[i]) == atomic_load(&sent[i]) && is_doomed(i) && !is_old(i))
            before[n++] = i;
    char path[160];
    /* The old ones are left to retention. */
    snprintf(path, sizeof path,
             "/api/pugmark/spans?q=%%7B%%20.doomed%%20!%%3D%%20nil%%20%%7D&start=%llu&confirm=true",
             (unsigned long long)began_ns);
    int status = http_ask(server->page, "DELETE", path, NULL);
    if (status != 0 && status != 200 && status != 503)
        give_up("a deletion was answered with %d", status);
    end = atomic_load(&next_body);
    for (uint32_t i = 0; i < end && i < BODIES_MAX; i++)
        if (is_doomed(i) && fates[i] == KEPT)
            fates[i] = MAY_BE_GONE;
    for (uint32_t i = 0; status == 200 && i < n; i++)
        fates[before[i]] = GONE;
    erasures += status == 200;
    return NULL;
}

static uint64_t acknowledgements(void)
{
    uint64_t n = 0;
    uint32_t end = atomic_load(&next_body);
    for (uint32_t i = 0; i < end && i < BODIES_MAX; i++)
        n += atomic_load(&acknowledged[i]);
    return n;
}

/* Memtables of several sizes: what a small one sealed a large one can merge. */
static struct server round_server(const char *pugmark, const char *data, int number)
{
    static const char *const memtable_bytes[] = {"400000", "2000000", "8000000"};
    char config[100];
    int status;
    struct server s;
    snprintf(config, sizeof config, "%s/pugmark.toml", scratch);
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
    uint64_t before = acknowledgements();
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
    while (acknowledgements() == before) {
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

/* ---- counting ---- */

struct counts {
    uint64_t strangers, lost, extra, torn, wrong, undead;
};

static int count(void *arg, struct scan *scan, const struct scan_row *row)
{
    struct counts *counts = arg;
    (void)scan;
    uint64_t number = number_get(row->trace_id.bytes + 8);
    uint64_t at = number_get(row->span_id.bytes) - 1;
    if (number >= BODIES_MAX || at / BODY_SPANS != number || found[at] == UINT8_MAX ||
        !form_is_spans(form_of[number]))
        counts->strangers++;
    else
        found[at]++;
    return 0;
}

/* A log or a point of body `number`. */
static void count_record(enum form form, int64_t number, uint64_t time_ns, struct counts *counts)
{
    if (number < 0 || number >= BODIES_MAX || form_of[number] != form ||
        time_ns != time_of((uint32_t)number))
        counts->strangers++;
    else if (found[number * BODY_SPANS] < UINT8_MAX)
        found[number * BODY_SPANS]++;
}

static void count_logs(struct records *records, struct counts *counts)
{
    struct records_logs query = {0};
    bool more = true;
    while (more) {
        struct arena arena = ARENA_INIT;
        struct records_log *logs;
        size_t n;
        if (records_logs(records, &query, &arena, &logs, &n, &more, NULL))
            give_up("the logs cannot be read");
        for (size_t i = 0; i < n; i++)
            count_record(FORM_LOGS, logs[i].record.body.integer, logs[i].record.time_ns, counts);
        if (n) {
            query.after_time_ns = logs[n - 1].record.time_ns;
            query.after_ordinal = logs[n - 1].ordinal;
        }
        arena_done(&arena);
    }
}

static void count_points(struct records *records, struct counts *counts)
{
    const struct records_series_query query = {.name = STR(BODY_METRIC)};
    struct arena arena = ARENA_INIT;
    struct records_series *series;
    size_t n;
    bool more;
    if (records_series(records, &query, &arena, &series, &n, &more) || more)
        give_up("the metrics cannot be read");
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < series[i].metric.n_points; k++)
            count_record(FORM_METRICS, series[i].metric.points[k].integer,
                         series[i].metric.points[k].time_ns, counts);
    arena_done(&arena);
}

/* Whole spans of some traces, through the trace table and the columns. */
static void sample(struct store_view *view, uint64_t random, uint64_t *wrong)
{
    struct arena arena = ARENA_INIT;
    uint32_t end = atomic_load(&next_body);
    for (int k = 0; k < 200; k++, random = hash_mix64(random + 1)) {
        uint32_t number = (uint32_t)(random % end);
        if (!form_is_spans(form_of[number]))
            continue;
        struct trace_id id;
        struct span_batch batch;
        char text[16];
        snprintf(text, sizeof text, "%u", number);
        number_put(id.bytes, BODY_TRACE_HIGH);
        number_put(id.bytes + 8, number);
        int err = store_trace(view, &id, &arena, &batch);
        size_t n = err ? 0 : batch.n;
        *wrong += n != (size_t)found[(size_t)number * BODY_SPANS] * BODY_SPANS;
        *wrong += err && err != ERR_NOT_FOUND;
        for (size_t i = 0; i < n; i++) {
            const struct attr *attr = batch.spans[i].attrs.items;
            *wrong += batch.spans[i].attrs.n != 1u + is_doomed(number) ||
                      !(attr->value.type == VALUE_INT
                            ? attr->value.integer == number /* Zipkin has texts only */
                            : str_eq(attr->value.string, str_from(text)));
        }
        arena_reset(&arena);
    }
    arena_done(&arena);
}

static void compare(struct counts *counts)
{
    uint32_t end = atomic_load(&next_body);
    end = end < BODIES_MAX ? end : BODIES_MAX;
    erased = expired = 0;
    for (uint32_t i = 0; i < end; i++) {
        const uint8_t *own = found + (size_t)i * BODY_SPANS;
        unsigned most = atomic_load(&sent[i]), least = atomic_load(&acknowledged[i]);
        if (form_of[i] == FORM_METRICS) { /* two points of the same time are one */
            least = least > 0;
            most = most > 0;
        }
        counts->lost += fates[i] == KEPT && own[0] < least;
        counts->undead += fates[i] == GONE && own[0];
        counts->extra += own[0] > most;
        for (int k = 1; k < BODY_SPANS && form_is_spans(form_of[i]); k++)
            counts->torn += own[k] != own[0];
        expired += is_old(i) && own[0] < least;
        erased += !is_old(i) && fates[i] != KEPT && own[0] < least;
    }
}

static uint64_t check_spans(const char *copy, uint64_t random, struct counts *counts)
{
    struct store *store;
    struct error_detail detail;
    struct scan scan = {0};
    const struct store_options options = {.dir = copy, .durability = STORE_DURABILITY_WRITE};
    if (store_open(&options, &store, &detail))
        give_up("the store does not open: %s", detail.message);
    struct store_view *view = store_view_new(store);
    if (!view || store_scan(view, &scan, count, counts, NULL))
        give_up("the store cannot be read");
    sample(view, random, &counts->wrong);
    struct store_stats stats;
    store_stats(store, &stats);
    store_view_free(view);
    store_close(store);
    return stats.segments;
}

static void check_records(const char *copy, struct counts *counts)
{
    char dir[120];
    struct records *records;
    struct error_detail detail;
    snprintf(dir, sizeof dir, "%s/%s", copy, RECORDS_DIR);
    const struct records_options options = {.dir = dir, .durability = STORE_DURABILITY_WRITE};
    if (records_open(&options, &records, &detail))
        give_up("the records do not open: %s", detail.message);
    count_logs(records, counts);
    count_points(records, counts);
    records_close(records);
}

static bool check(const char *data, int round, uint64_t random)
{
    char copy[100];
    struct counts n = {0};
    snprintf(copy, sizeof copy, "%s/copy", scratch);
    dir_copy(data, copy);
    memset(found, 0, sizeof found);
    uint64_t segments = check_spans(copy, random, &n);
    check_records(copy, &n);
    compare(&n);
    dir_remove(copy);
    bool ok = !(n.strangers | n.lost | n.extra | n.torn | n.wrong | n.undead);
    printf("%sok %d - after %d kills: %llu acknowledgements of %u bodies, %llu segments, %llu "
           "deletions took %llu, "
           "retention %llu; lost %llu, too often %llu, torn %llu, strange %llu, wrong %llu, back "
           "after deletion %llu\n",
           ok ? "" : "not ", round / CHECK_EVERY, round, (unsigned long long)acknowledgements(),
           atomic_load(&next_body), (unsigned long long)segments, (unsigned long long)erasures,
           (unsigned long long)erased, (unsigned long long)expired, (unsigned long long)n.lost,
           (unsigned long long)n.extra, (unsigned long long)n.torn, (unsigned long long)n.strangers,
           (unsigned long long)n.wrong, (unsigned long long)n.undead);
    fflush(stdout);
    return ok;
}

static void config_write(void)
{
    static const char text[] =
        "[[server.retention_rules]]\nmatch = \"{ .doomed != nil }\"\nkeep = \"1h\"\n";
    char path[100];
    snprintf(path, sizeof path, "%s/pugmark.toml", scratch);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, text, sizeof text - 1) != (ssize_t)(sizeof text - 1))
        give_up("%s: %s", path, strerror(errno));
    close(fd);
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
    began_ns = clock_realtime_ns() / 1000 * 1000; /* Zipkin knows no less */
    config_write();
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
