/* The fleet: decoys that come and go while the system runs.
 *
 * The engine (engine.c) runs them as its processes. Whoever wants something of it sends one JSON
 * object over its socket, engine.sock in the run directory, and gets one back; the trace goes along
 * under `_trace`, as in every record of this system:
 *
 *   {"op":"deploy","deckies":[{"name":"web-02","service":"http","banner":"nginx","port":0}]}
 *   {"op":"teardown","names":["web-02"]}        {"op":"list"}
 *   -> {"deckies":[{"name":..,"service":..,"banner":..,"port":40001,"state":"running"}]}
 *
 * A deckie that runs and is described otherwise is started again; port 0 takes a free one. */
#ifndef DECOYS_FLEET_H
#define DECOYS_FLEET_H

#include "repository.h"

#define FLEET_MAX 32            /* decoys of the engine */
#define FLEET_MESSAGE_MAX 65536 /* bytes of a request or an answer */

/* A name and a service that the engine would take. */
bool fleet_name_valid(const char *name);
bool fleet_service_valid(const char *service);

/* Asks the engine: 0 and its answer (of the caller), or -1 after saying why. Steals `request`. */
int engine_ask(json_t *request, json_t **ret_answer);

/* Deploys and remembers in the database: 0 and an array of what came of each. Steals `deckies`. */
int fleet_deploy(struct repository *repo, json_t *deckies, json_t **ret_deckies);
/* Takes them away, here and there; the names of those that were there. Steals `names`. */
int fleet_teardown(struct repository *repo, json_t *names, json_t **ret_names);

/* Gives a decoy another face: what it calls itself, and its port. 0 and the decky as it is now, 1
 * when there is none of that name, -1. */
int mutate_decky(struct repository *repo, const char *name, json_t **ret_decky);

#endif
