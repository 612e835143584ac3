/* The correlation worker: finds attackers who walk from decoy to decoy.
 *
 *   correlation --dir DIR [--siem IP:PORT]
 *
 * `correlation.ingest_file` takes up what is new from one source file; it holds rows of many traces
 * and links to them. `correlation.traversals` looks at one attacker and belongs to the traces of
 * the rows that asked for it (rows_context in repository.h). A traversal becomes a report in the
 * database and lines for a SIEM in correlation.log; with --siem they are also sent there, as syslog
 * over TCP (RFC 6587, a line each). */
#include "common.h"
#include "events.h"
#include "repository.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <pugmark/pugmark.h>

#define WORKER "correlation"
#define ROWS_A_ROUND 500
#define ROWS_OF_ATTACKER 1000
#define SETTLE_MS 100
#define HOPS_MAX 100

static struct repository *repo;
static int siem_log;
static const char *siem; /* NULL: none */

/* One stay at one decoy. */
struct hop {
    const struct log_row *first, *last;
    int events;
};

static size_t hops_of(const struct log_rows *rows, struct hop hops[HOPS_MAX])
{
    size_t n = 0;
    for (size_t i = 0; i < rows->n; i++) {
        const struct log_row *row = &rows->items[i];
        if (!row_is_visit(row))
            continue;
        if (n > 0 && strcmp(hops[n - 1].first->decky, row->decky) == 0) {
            hops[n - 1].last = row;
            hops[n - 1].events++;
        } else if (n < HOPS_MAX) {
            hops[n++] = (struct hop){row, row, 1};
        }
    }
    return n;
}

static char *report_json(const char *ip, const struct hop *hops, size_t n)
{
    PUG_SPAN("correlation.report_json");
    json_t *path = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(
            path, json_pack("{s:s, s:s, s:s, s:s, s:i}", "decky", hops[i].first->decky, "service",
                            hops[i].first->service, "arrived", hops[i].first->timestamp, "left",
                            hops[i].last->timestamp, "events", hops[i].events));
    json_t *report = json_pack(
        "{s:s, s:I, s:f, s:o}", "attacker_ip", ip, "hops", (json_int_t)n, "duration_s",
        timestamp_parse(hops[n - 1].last->timestamp) - timestamp_parse(hops[0].first->timestamp),
        "path", path);
    char *text = json_dumps(report, JSON_COMPACT);
    json_decref(report);
    return text;
}

static int traversal_syslog_lines(const char *ip, const struct hop *hops, size_t n)
{
    PUG_SPAN("correlation.traversal_syslog_lines", PUG_INT("lines", (int64_t)n - 1));
    char *text = NULL, when[28];
    size_t len;
    FILE *out = open_memstream(&text, &len);
    if (!out)
        return -1;
    timestamp_format(when, now_ns());
    for (size_t i = 1; i < n; i++)
        fprintf(out,
                "<132>1 %s decoys correlation - traversal [decoy@32473 attacker_ip=\"%s\" "
                "hop=\"%zu\" from=\"%s\" to=\"%s\"] attacker moved on\n",
                when, ip, i, hops[i - 1].first->decky, hops[i].first->decky);
    fclose(out);
    int result = write_all(siem_log, text, len);
    if (result != 0)
        pug_error(PUG_CURRENT, strerror(errno));
    /* The file has them: a SIEM that is away for a while does not stop us. */
    else if (siem && log_target_send(siem, text, len) != 0)
        pug_event(PUG_CURRENT, "the SIEM did not take them", PUG_STR("reason", strerror(errno)));
    free(text);
    return result;
}

/* `fresh`: the rows that are new, all of this attacker. */
static int traversals(const struct log_row *const *fresh, size_t n_fresh)
{
    const char *ip = fresh[0]->attacker_ip;
    struct pug_context round = pug_context_current(), parent = rows_context(fresh, n_fresh);
    PUG_SPAN_FROM(&parent, "correlation.traversals", PUG_KIND(PUG_KIND_CONSUMER),
                  PUG_STR("attacker.ip", ip));
    rows_link(fresh, n_fresh, &parent, &round);
    struct log_rows rows;
    if (repo->get_logs_of_attacker(repo, ip, ROWS_OF_ATTACKER, &rows) != 0)
        return -1;
    struct hop hops[HOPS_MAX];
    size_t n = hops_of(&rows, hops);
    pug_set_int(PUG_CURRENT, "hops", (int64_t)n);
    int result = 0;
    if (n >= 2) {
        AUTO_FREE char *report = report_json(ip, hops, n);
        result = repo->upsert_traversal(repo, ip, report);
        if (result == 0)
            result = traversal_syslog_lines(ip, hops, n);
    }
    log_rows_free(&rows);
    return result;
}

static size_t count_distinct(const struct log_rows *rows, size_t offset_of_text)
{
    size_t n = 0;
    for (size_t i = 0; i < rows->n; i++) {
        const char *text = *(char **)((char *)&rows->items[i] + offset_of_text);
        size_t j = 0;
        while (j < i && strcmp(text, *(char **)((char *)&rows->items[j] + offset_of_text)) != 0)
            j++;
        n += j == i;
    }
    return n;
}

static void summarize(const struct log_rows *rows)
{
    PUG_SPAN("correlation.ingest_file.summary", PUG_INT("events", (int64_t)rows->n));
    pug_set_int(PUG_CURRENT, "attackers",
                (int64_t)count_distinct(rows, offsetof(struct log_row, attacker_ip)));
    pug_set_int(PUG_CURRENT, "deckies",
                (int64_t)count_distinct(rows, offsetof(struct log_row, decky)));
}

/* One round: what came from the collector's file since `*position`. True when there may be more.
 * The cursor moves last: a round that was cut off is done again, and comes to the same. */
static bool ingest_file(int64_t *position)
{
    PUG_SPAN("correlation.ingest_file");
    struct log_rows rows;
    if (repo->get_logs_after(repo, *position, ROWS_A_ROUND, &rows) != 0)
        return false;
    const struct log_row **all = calloc(rows.n + 1, sizeof(const struct log_row *));
    for (size_t i = 0; all && i < rows.n; i++)
        all[i] = &rows.items[i];
    if (all)
        rows_link(all, rows.n, NULL, NULL);
    free(all);
    summarize(&rows);
    bool good = rows.n > 0 && rows_by_attacker(&rows, traversals) == 0 &&
                repo->set_cursor(repo, WORKER, "logs", rows.items[rows.n - 1].id) == 0;
    if (good)
        *position = rows.items[rows.n - 1].id;
    bool more = good && rows.n == ROWS_A_ROUND;
    log_rows_free(&rows);
    return more;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"dir", 1, NULL, 'd'}, {"siem", 1, NULL, 's'}, {0}};
    const char *dir = NULL;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c != 'd' && c != 's')
            return 2;
        *(c == 'd' ? &dir : &siem) = optarg;
    }
    service_start(WORKER, dir);
    siem_log = log_file_open(run_path("correlation.log").text);
    if (siem && log_target_probe(siem) != 0)
        say("nobody takes lines at %s: %s", siem, strerror(errno));
    repo = repository_open(run_path("decoys.db").text);
    int64_t position = 0;
    if (repo->get_cursor(repo, WORKER, "logs", &position) != 0)
        die("cannot tell where it was");
    do {
        if (repository_newest_log(repo) > position && wait_for(-1, SETTLE_MS))
            while (ingest_file(&position) && !stopping())
                ;
    } while (wait_for(-1, 50));
    repository_close(repo);
    close(siem_log);
    service_stop();
    return 0;
}
