/* The API's inside: a request under way, and who answers what. */
#ifndef DECOYS_API_H
#define DECOYS_API_H

#include "common.h"
#include "repository.h"

#include <microhttpd.h>
#include <pugmark/request_id.h>

#define API_BODY_BYTES_MAX 4096

struct call {
    struct MHD_Connection *connection;
    char part[64]; /* of the path: what stood for '*' */
    char body[API_BODY_BYTES_MAX + 1];
    size_t body_len;
    bool too_large;
    char user[40], name[64], token[80]; /* who asks: his uuid, his name; "" without a token */
    bool is_admin, must_change;
    char request_id[PUG_REQUEST_ID_MAX + 1]; /* goes back with the answer */
    json_t *answer;
};

extern struct repository *repo; /* opened by main */

/* ---- api.c ---- */

/* NULL when it is missing. */
const char *parameter(const struct call *c, const char *name);
/* Between 0 and `most`; false when it is something else. */
bool number(const struct call *c, const char *name, int64_t preset, int64_t most, int64_t *ret);
/* The body as a JSON object, for json_decref; NULL when it is none. */
json_t *body_object(const struct call *c);
/* Statuses, with an answer that says why. */
int bad(struct call *c, const char *what);
int refused(struct call *c, int status, const char *what);
int answered(int result); /* of a method */
/* The first row becomes the answer, 404 without one. Steals `rows`. */
int answer_row(struct call *c, json_t *rows);
/* Finds out who asks; false when it is nobody. */
bool caller_known(struct call *c);
enum MHD_Result send_answer(struct call *c, int status);
/* The caller's X-Request-ID, or a new one: for the log, on `span`, and back with the answer. */
void request_id_take(struct call *c, struct pug_span *span);

/* ---- endpoints: each returns the status and fills the answer ---- */

typedef int endpoint_fn(struct call *c);
/* api_read.c */
endpoint_fn get_logs, get_logs_histogram, get_bounties, get_attackers, get_attacker_detail,
    get_attacker_commands, get_stats, get_health;
/* api_admin.c */
endpoint_fn login, change_password, get_config, update_deployment_limit,
    update_global_mutation_interval, create_user, delete_user, update_user_role,
    reset_user_password, reinit;
/* Makes the first user, at the first start. */
void make_admin(void);
/* api_fleet.c */
endpoint_fn get_deckies, deploy_deckies, mutate, update_mutate_interval;
int64_t deployment_limit(void);
int64_t global_mutation_interval(void);
/* api_stream.c: takes over the request, its span ends with the stream. */
enum MHD_Result stream_events(struct call *c, const struct pug_context *caller);

#endif
