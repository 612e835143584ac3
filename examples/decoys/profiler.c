/* The profiler: keeps a profile of each attacker up to date with the rows that came since.
 *
 *   profiler --dir DIR
 *
 * One round (`profiler.incremental_update`) takes up all new rows, of many attackers and traces,
 * and so belongs to none of them. The work for one attacker (`profiler.process_ip`) belongs to the
 * traces of the rows that asked for it: rows_context in repository.h says to which. */
#include "behavior.h"
#include "common.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include <pugmark/pugmark.h>

#define WORKER "profiler"
#define ROWS_A_ROUND 500
#define ROWS_OF_ATTACKER 1000
#define SETTLE_MS 100 /* rows come in bursts: one round for a burst */

static struct repository *repo;

static void add_once(json_t *array, const char *text)
{
    size_t i;
    json_t *known;
    json_array_foreach(array, i, known)
    {
        if (strcmp(json_string_value(known), text) == 0)
            return;
    }
    json_array_append_new(array, json_string(text));
}

/* `fresh`: the rows that are new, all of this attacker. */
static int process_ip(const struct log_row *const *fresh, size_t n_fresh)
{
    const char *ip = fresh[0]->attacker_ip;
    struct pug_context round = pug_context_current(), parent = rows_context(fresh, n_fresh);
    PUG_SPAN_FROM(&parent, "profiler.process_ip", PUG_KIND(PUG_KIND_CONSUMER),
                  PUG_STR("attacker.ip", ip), PUG_INT("rows.new", (int64_t)n_fresh));
    rows_link(fresh, n_fresh, &parent, &round);

    struct log_rows rows;
    if (repo->get_logs_of_attacker(repo, ip, ROWS_OF_ATTACKER, &rows) != 0)
        return -1;
    json_t *services = json_array(), *deckies = json_array();
    for (size_t i = 0; i < rows.n; i++) {
        if (!row_is_visit(&rows.items[i]))
            continue;
        add_once(services, rows.items[i].service);
        add_once(deckies, rows.items[i].decky);
    }
    json_t *record = build_behavior_record(&rows), *summary = behavior_summary(record, &rows);
    AUTO_FREE char *services_text = json_dumps(services, JSON_COMPACT);
    AUTO_FREE char *deckies_text = json_dumps(deckies, JSON_COMPACT);
    AUTO_FREE char *record_text = json_dumps(record, JSON_COMPACT);
    AUTO_FREE char *summary_text = json_dumps(summary, JSON_COMPACT);
    struct attacker attacker = {
        .ip = ip,
        .first_seen = rows.items[0].timestamp,
        .last_seen = rows.items[rows.n - 1].timestamp,
        .event_count = (int64_t)rows.n,
        .service_count = (int64_t)json_array_size(services),
        .decky_count = (int64_t)json_array_size(deckies),
        .services = services_text,
        .deckies = deckies_text,
    };
    int result = repo->upsert_attacker(repo, &attacker);
    if (result == 0)
        result = repo->upsert_attacker_behavior(repo, ip, record_text, summary_text);
    json_decref(services);
    json_decref(deckies);
    json_decref(record);
    json_decref(summary);
    log_rows_free(&rows);
    return result;
}

static int update_profiles(const struct log_rows *rows)
{
    PUG_SPAN("profiler.update_profiles", PUG_INT("rows", (int64_t)rows->n));
    return rows_by_attacker(rows, process_ip);
}

/* True when there may be more. The cursor moves last: a round that was cut off is done again, and
 * comes to the same. */
static bool incremental_update(int64_t *position)
{
    PUG_SPAN("profiler.incremental_update");
    struct log_rows rows;
    if (repo->get_logs_after(repo, *position, ROWS_A_ROUND, &rows) != 0)
        return false;
    bool good = rows.n > 0 && update_profiles(&rows) == 0 &&
                repo->set_cursor(repo, WORKER, "logs", rows.items[rows.n - 1].id) == 0;
    if (good)
        *position = rows.items[rows.n - 1].id;
    bool more = good && rows.n == ROWS_A_ROUND;
    log_rows_free(&rows);
    return more;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"dir", 1, NULL, 'd'}, {0}};
    const char *dir = NULL;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c != 'd')
            return 2;
        dir = optarg;
    }
    service_start(WORKER, dir);
    repo = repository_open(run_path("decoys.db").text);
    int64_t position = 0;
    if (repo->get_cursor(repo, WORKER, "logs", &position) != 0)
        die("cannot tell where it was");
    do {
        if (repository_newest_log(repo) > position && wait_for(-1, SETTLE_MS))
            while (incremental_update(&position) && !stopping())
                ;
    } while (wait_for(-1, 50));
    repository_close(repo);
    service_stop();
    return 0;
}
