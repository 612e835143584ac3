#include "tally.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "store/records.h"
#include "store/store.h"

enum fate { KEPT, MAY_BE_GONE, GONE };

static atomic_uint next_body;
static atomic_uchar sent[BODIES_MAX], acknowledged[BODIES_MAX];
static uint8_t form_of[BODIES_MAX],
    fates[BODIES_MAX]; /* by whoever took the number; by the eraser */
static uint8_t found[BODIES_MAX * BODY_SPANS];
static uint64_t began_ns;

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

void tally_init(void)
{
    began_ns = clock_realtime_ns() / 1000 * 1000; /* Zipkin knows no less */
}

void tally_config(char *path, size_t size)
{
    static const char text[] =
        "[[server.retention_rules]]\nmatch = \"{ .doomed != nil }\"\nkeep = \"1h\"\n";
    snprintf(path, size, "%s/pugmark.toml", scratch);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, text, sizeof text - 1) != (ssize_t)(sizeof text - 1))
        give_up("%s: %s", path, strerror(errno));
    close(fd);
}

bool body_take(enum form form, uint32_t *ret_number)
{
    uint32_t number = atomic_fetch_add(&next_body, 1);
    if (number >= BODIES_MAX)
        return false;
    form_of[number] = (uint8_t)form;
    fates[number] = is_old(number) ? MAY_BE_GONE : KEPT;
    *ret_number = number;
    return true;
}

int body_send(struct conn *conn, uint32_t number, struct buf *body)
{
    body_make((enum form)form_of[number], number, time_of(number), is_doomed(number), body);
    atomic_fetch_add(&sent[number], 1);
    int status = conn_send(conn, body);
    if (status == 200)
        atomic_fetch_add(&acknowledged[number], 1);
    else if (status)
        atomic_fetch_sub(&sent[number], 1);
    return status;
}

int tally_erase(const struct server *server)
{
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
    struct buf answer = BUF_INIT;
    int status = http_ask(server->page, "DELETE", path, &answer);
    /* What could not be read was not looked through, and the answer says so. */
    bool whole = status == 200 && memmem(answer.ptr, answer.len, "\"partial\":false", 15);
    buf_done(&answer);
    end = atomic_load(&next_body);
    for (uint32_t i = 0; i < end && i < BODIES_MAX; i++)
        if (is_doomed(i) && fates[i] == KEPT)
            fates[i] = MAY_BE_GONE;
    for (uint32_t i = 0; whole && i < n; i++)
        fates[before[i]] = GONE;
    return status;
}

uint64_t tally_acknowledged(void)
{
    uint64_t n = 0;
    uint32_t end = atomic_load(&next_body);
    for (uint32_t i = 0; i < end && i < BODIES_MAX; i++)
        n += atomic_load(&acknowledged[i]);
    return n;
}

uint32_t tally_bodies(void)
{
    uint32_t n = atomic_load(&next_body);
    return n < BODIES_MAX ? n : BODIES_MAX;
}

/* ---- counting ---- */

static int count(void *arg, struct scan *scan, const struct scan_row *row)
{
    struct tally *counts = arg;
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
static void count_record(enum form form, int64_t number, uint64_t time_ns, struct tally *counts)
{
    if (number < 0 || number >= BODIES_MAX || form_of[number] != form ||
        time_ns != time_of((uint32_t)number))
        counts->strangers++;
    else if (found[number * BODY_SPANS] < UINT8_MAX)
        found[number * BODY_SPANS]++;
}

static void count_logs(struct records *records, struct tally *counts)
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

static void count_points(struct records *records, struct tally *counts)
{
    const struct records_series_query query = {.name = STR(BODY_METRIC)};
    struct arena arena = ARENA_INIT;
    struct records_series *series;
    size_t n;
    bool more;
    if (records_series(records, &query, &arena, &series, &n, &more, NULL) || more)
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

static void compare(struct tally *counts)
{
    uint32_t end = atomic_load(&next_body);
    end = end < BODIES_MAX ? end : BODIES_MAX;
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
        counts->expired += is_old(i) && own[0] < least;
        counts->erased += !is_old(i) && fates[i] != KEPT && own[0] < least;
    }
}

static uint64_t check_spans(const char *copy, uint64_t random, struct tally *counts)
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

static void check_records(const char *copy, struct tally *counts)
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

struct tally tally_check(const char *dir, uint64_t random)
{
    struct tally tally = {0};
    memset(found, 0, (size_t)tally_bodies() * BODY_SPANS);
    tally.segments = check_spans(dir, random, &tally);
    check_records(dir, &tally);
    compare(&tally);
    return tally;
}

bool tally_is_right(const struct tally *t)
{
    return !(t->strangers | t->lost | t->extra | t->torn | t->wrong | t->undead);
}

/* ---- the same beginning ---- */

static uint8_t *saved;
static uint32_t n_saved;

void tally_save(void)
{
    n_saved = tally_bodies();
    saved = realloc(saved, (size_t)n_saved * 4 + 1);
    if (!saved)
        give_up("out of memory");
    for (uint32_t i = 0; i < n_saved; i++) {
        saved[4 * i] = atomic_load(&sent[i]);
        saved[4 * i + 1] = atomic_load(&acknowledged[i]);
        saved[4 * i + 2] = form_of[i];
        saved[4 * i + 3] = fates[i];
    }
}

void tally_restore(void)
{
    for (uint32_t i = 0, end = tally_bodies(); i < end; i++) {
        bool was = i < n_saved;
        atomic_store(&sent[i], was ? saved[4 * i] : 0);
        atomic_store(&acknowledged[i], was ? saved[4 * i + 1] : 0);
        form_of[i] = was ? saved[4 * i + 2] : 0;
        fates[i] = was ? saved[4 * i + 3] : 0;
    }
    atomic_store(&next_body, n_saved);
}
