/* The database of the sample system behind a table of functions.
 *
 * Callers hold a `struct repository *` and call `repo->add_log(repo, ...)`. They cannot tell
 * whether that is the function that talks to SQLite (repository.c) or one that puts a span
 * `db.add_log` around it (repository_trace.c): the table and its tracing are made from the one list
 * below, and a method added to it is traced from then on.
 *
 * Every method returns 0, or -1 after saying on stderr what went wrong. Results through `ret_...`
 * are written only on success and belong to the caller. Any thread may call; calls take turns. */
#ifndef DECOYS_REPOSITORY_H
#define DECOYS_REPOSITORY_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include <pugmark/pugmark.h>

/* One event of a decoy. The two last are the span that put the row there, empty without tracing and
 * when the trace is not sampled: columns that let whoever reads the row continue its trace. */
struct log_row {
    int64_t id;
    char *timestamp, *decky, *service, *event_type, *attacker_ip, *message;
    char *fields;          /* a JSON object */
    char *source;          /* the file it was read from ... */
    int64_t source_offset; /* ... and where in it: what makes the row unique */
    char trace_id[33], span_id[17];
};
struct log_rows {
    struct log_row *items;
    size_t n;
};
void log_rows_free(struct log_rows *rows);

/* Something an attacker left behind: credentials, the address of a payload. */
struct bounty {
    const char *timestamp, *decky, *service, *attacker_ip;
    const char *type;
    const char *payload; /* a JSON object */
};

struct attacker {
    const char *ip, *first_seen, *last_seen;
    int64_t event_count, service_count, decky_count;
    const char *services, *deckies; /* JSON arrays */
};

struct log_filter {
    const char *search, *attacker_ip; /* NULL: any */
    int64_t limit, offset;
};

struct user {
    const char *uuid, *name, *password_hash;
    const char *role; /* "admin" or "viewer" */
    bool must_change; /* his password, before anything else */
};

/* X(T, result, method, parameters, the same as arguments) */
#define REPOSITORY_METHODS(X, T)                                                                   \
    /* Where a worker stopped in a source; 0 when it never was there. */                           \
    X(T, int, get_cursor,                                                                          \
      (struct repository * repo, const char *worker, const char *source, int64_t *ret_position),   \
      (repo, worker, source, ret_position))                                                        \
    X(T, int, set_cursor,                                                                          \
      (struct repository * repo, const char *worker, const char *source, int64_t position),        \
      (repo, worker, source, position))                                                            \
    /* The row and the ingester's cursor behind it, both or neither. */                            \
    X(T, int, add_log,                                                                             \
      (struct repository * repo, const struct log_row *row, const char *worker,                    \
       int64_t next_position),                                                                     \
      (repo, row, worker, next_position))                                                          \
    X(T, int, add_bounty, (struct repository * repo, const struct bounty *bounty), (repo, bounty)) \
    /* Rows with a higher id than `after`, in order of id. */                                      \
    X(T, int, get_logs_after,                                                                      \
      (struct repository * repo, int64_t after, int limit, struct log_rows *ret_rows),             \
      (repo, after, limit, ret_rows))                                                              \
    /* The newest `limit` of one attacker, in order of time. */                                    \
    X(T, int, get_logs_of_attacker,                                                                \
      (struct repository * repo, const char *ip, int limit, struct log_rows *ret_rows),            \
      (repo, ip, limit, ret_rows))                                                                 \
    X(T, int, upsert_attacker, (struct repository * repo, const struct attacker *attacker),        \
      (repo, attacker))                                                                            \
    X(T, int, upsert_attacker_behavior,                                                            \
      (struct repository * repo, const char *ip, const char *record, const char *summary),         \
      (repo, ip, record, summary))                                                                 \
    X(T, int, upsert_traversal, (struct repository * repo, const char *ip, const char *report),    \
      (repo, ip, report))                                                                          \
    X(T, int, get_logs,                                                                            \
      (struct repository * repo, const struct log_filter *filter, json_t **ret_rows),              \
      (repo, filter, ret_rows))                                                                    \
    X(T, int, get_logs_histogram,                                                                  \
      (struct repository * repo, int64_t interval_s, json_t * *ret_rows),                          \
      (repo, interval_s, ret_rows))                                                                \
    X(T, int, get_bounties, (struct repository * repo, int64_t limit, json_t * *ret_rows),         \
      (repo, limit, ret_rows))                                                                     \
    X(T, int, get_attackers,                                                                       \
      (struct repository * repo, const char *ip, int64_t limit, json_t **ret_rows),                \
      (repo, ip, limit, ret_rows))                                                                 \
    /* An array of one, or of none. */                                                             \
    X(T, int, get_attacker_detail,                                                                 \
      (struct repository * repo, const char *uuid, json_t **ret_rows), (repo, uuid, ret_rows))     \
    X(T, int, get_attacker_commands,                                                               \
      (struct repository * repo, const char *uuid, json_t **ret_rows), (repo, uuid, ret_rows))     \
    X(T, int, get_stats, (struct repository * repo, json_t * *ret_rows), (repo, ret_rows))         \
    X(T, int, get_probes, (struct repository * repo, const char *uuid, json_t **ret_rows),         \
      (repo, uuid, ret_rows))                                                                      \
    /* ---- users: `*ret_n` is how many it concerned; an array of one, or of none ---- */          \
    X(T, int, add_user, (struct repository * repo, const struct user *user, int64_t *ret_n),       \
      (repo, user, ret_n))                                                                         \
    X(T, int, get_user, (struct repository * repo, const char *name, json_t **ret_rows),           \
      (repo, name, ret_rows))                                                                      \
    X(T, int, get_users, (struct repository * repo, json_t * *ret_rows), (repo, ret_rows))         \
    X(T, int, delete_user, (struct repository * repo, const char *uuid, int64_t *ret_n),           \
      (repo, uuid, ret_n))                                                                         \
    X(T, int, set_user_role,                                                                       \
      (struct repository * repo, const char *uuid, const char *role, int64_t *ret_n),              \
      (repo, uuid, role, ret_n))                                                                   \
    /* Ends his sessions. */                                                                       \
    X(T, int, set_user_password,                                                                   \
      (struct repository * repo, const char *uuid, const char *password_hash, bool must_change,    \
       int64_t *ret_n),                                                                            \
      (repo, uuid, password_hash, must_change, ret_n))                                             \
    X(T, int, add_session, (struct repository * repo, const char *token, const char *user_uuid),   \
      (repo, token, user_uuid))                                                                    \
    X(T, int, get_session, (struct repository * repo, const char *token, json_t **ret_rows),       \
      (repo, token, ret_rows))                                                                     \
    /* ---- settings ---- */                                                                       \
    X(T, int, get_setting,                                                                         \
      (struct repository * repo, const char *key, int64_t preset, int64_t *ret),                   \
      (repo, key, preset, ret))                                                                    \
    X(T, int, set_setting, (struct repository * repo, const char *key, int64_t value),             \
      (repo, key, value))                                                                          \
    /* ---- the fleet ---- */                                                                      \
    X(T, int, get_deckies, (struct repository * repo, json_t * *ret_rows), (repo, ret_rows))       \
    X(T, int, get_decky, (struct repository * repo, const char *name, json_t **ret_rows),          \
      (repo, name, ret_rows))                                                                      \
    /* Whose face is old enough to be changed. */                                                  \
    X(T, int, get_deckies_due, (struct repository * repo, json_t * *ret_rows), (repo, ret_rows))   \
    X(T, int, upsert_decky,                                                                        \
      (struct repository * repo, const char *name, const char *service, const char *banner,        \
       int64_t port),                                                                              \
      (repo, name, service, banner, port))                                                         \
    X(T, int, delete_decky, (struct repository * repo, const char *name), (repo, name))            \
    /* -1: the same as everybody's. */                                                             \
    X(T, int, set_mutate_interval,                                                                 \
      (struct repository * repo, const char *name, int64_t interval_s, int64_t *ret_n),            \
      (repo, name, interval_s, ret_n))                                                             \
    /* ---- probes ---- */                                                                         \
    X(T, int, add_probe,                                                                           \
      (struct repository * repo, const char *ip, int64_t port, const char *kind, const char *hash, \
       const char *text),                                                                          \
      (repo, ip, port, kind, hash, text))                                                          \
    X(T, int, get_probe_targets,                                                                   \
      (struct repository * repo, int64_t quiet_s, int64_t limit, json_t * *ret_rows),              \
      (repo, quiet_s, limit, ret_rows))                                                            \
    /* Forgets every event and what was made of it; users, settings and the fleet stay. */         \
    X(T, int, reinit, (struct repository * repo), (repo))

struct repository {
#define X(table, result, method, parameters, arguments) result(*method) parameters;
    REPOSITORY_METHODS(X, )
#undef X
};

/* Opens the database, and makes its tables where they are missing. Dies when it cannot. */
struct repository *repository_open(const char *path);
void repository_close(struct repository *repo);

/* The highest id among the rows, 0 when there is none: the workers' doorbell, asked many times a
 * second and therefore not one of the methods. */
int64_t repository_newest_log(struct repository *repo);
/* The same for the prober (an attacker to be probed) and the mutator (a decoy that is due). */
bool repository_has_targets(struct repository *repo, int64_t quiet_s);
bool repository_has_due(struct repository *repo);

/* What a sniffer or a prober saw is no visit to a decoy. */
bool row_is_visit(const struct log_row *row);

/* Puts a span `db.<method>` around each function of the table (repository_open does). */
void repository_trace(struct repository *repo);

/* ---- work on rows that came from elsewhere ----
 *
 * A row names the span that put it there, so that work on it can continue that trace. Work on
 * several rows is fan-in, and a span has one parent. When the rows are of one trace, the work is
 * part of that trace: child of the newest row's span, linked to the others'. When they are of
 * several, it is part of none: it stays with the round that took them up, and links to all. */

/* The parent for the work on these rows: none when they are of several traces or not traced. */
struct pug_context rows_context(const struct log_row *const *rows, size_t n);
/* Links the current span to the spans of the rows except `parent`, and to `round` (NULL: to none)
 * when that is not where it is anyway. */
void rows_link(const struct log_row *const *rows, size_t n, const struct pug_context *parent,
               const struct pug_context *round);

/* Calls `work` once for each attacker with his rows; stops at the first that fails and returns
 * that. */
int rows_by_attacker(const struct log_rows *rows,
                     int (*work)(const struct log_row *const *rows, size_t n));

#endif
