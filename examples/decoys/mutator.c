/* The mutator: gives decoys another face from time to time, so that nobody recognises them.
 *
 *   mutator --dir DIR
 *
 * Each decoy of the fleet has an interval, or the one that is everybody's (the API sets both).
 * `mutator.watch_loop` is one look at which are due; nothing due is not worth a span. */
#include "common.h"
#include "fleet.h"

#include <getopt.h>
#include <stdio.h>

#define LOOK_MS 250
#define PAUSE_MS 5000 /* after one that failed: the engine may be on its way */

static struct repository *repo;

/* How many could not be changed. */
static int mutate_all(void)
{
    PUG_SPAN("mutator.mutate_all");
    json_t *due, *row, *now;
    if (repo->get_deckies_due(repo, &due) != 0)
        return 1;
    size_t i;
    int failed = 0;
    pug_set_int(PUG_CURRENT, "deckies", (int64_t)json_array_size(due));
    json_array_foreach(due, i, row)
    {
        const char *name = json_string_value(json_object_get(row, "name"));
        if (stopping())
            break;
        if (mutate_decky(repo, name, &now) == 0)
            json_decref(now);
        else
            failed++;
    }
    json_decref(due);
    return failed;
}

static int watch_loop(void)
{
    PUG_SPAN("mutator.watch_loop");
    int failed = mutate_all();
    if (failed)
        pug_error(PUG_CURRENT, "not every decoy could be changed");
    return failed;
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
    service_start("mutator", dir);
    repo = repository_open(run_path("decoys.db").text);
    int pause_ms;
    do
        pause_ms = repository_has_due(repo) && watch_loop() > 0 ? PAUSE_MS : LOOK_MS;
    while (wait_for(-1, pause_ms));
    repository_close(repo);
    service_stop();
    return 0;
}
