/* The repository on SQLite.
 *
 * Five processes write to one file. WAL lets the readers go on meanwhile; each write is one short
 * transaction that starts with BEGIN IMMEDIATE, so that it waits for its turn at the beginning and
 * never finds in the middle that somebody else was faster. Statements are prepared once. */
#include "repository.h"

#include "common.h"
#include "repository_sql.h"

#include <pthread.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

#define BUSY_TIMEOUT_MS 10000
#define ROWS_MAX 1000

struct sqlite_repository {
    struct repository methods; /* first: what callers hold */
    sqlite3 *db;
    pthread_mutex_t turn;
    sqlite3_stmt *statements[N_STATEMENTS];
};

/* ---- statements ---- */

static int complain(struct sqlite_repository *r, enum statement which)
{
    pug_error(PUG_CURRENT, sqlite3_errmsg(r->db)); /* the method's span, when it has one */
    say("the database refused \"%.40s...\": %s", repository_sql[which], sqlite3_errmsg(r->db));
    return -1;
}

/* Ready to be bound and stepped; NULL when it cannot be prepared. */
static sqlite3_stmt *statement(struct sqlite_repository *r, enum statement which)
{
    if (!r->statements[which] &&
        sqlite3_prepare_v3(r->db, repository_sql[which], -1, SQLITE_PREPARE_PERSISTENT,
                           &r->statements[which], NULL) != SQLITE_OK)
        complain(r, which);
    return r->statements[which];
}

/* One letter a parameter: 's' a string (NULL is NULL), 'i' an int64_t. */
static sqlite3_stmt *bound(struct sqlite_repository *r, enum statement which, const char *types,
                           va_list args)
{
    sqlite3_stmt *s = statement(r, which);
    for (int i = 1; s && *types; types++, i++) {
        if (*types == 's')
            sqlite3_bind_text(s, i, va_arg(args, const char *), -1, SQLITE_TRANSIENT);
        else
            sqlite3_bind_int64(s, i, va_arg(args, int64_t));
    }
    return s;
}

static void finish(sqlite3_stmt *s)
{
    sqlite3_reset(s);
    sqlite3_clear_bindings(s);
}

/* A statement without results. */
static int run(struct sqlite_repository *r, enum statement which, const char *types, ...)
{
    va_list args;
    va_start(args, types);
    sqlite3_stmt *s = bound(r, which, types, args);
    va_end(args);
    if (!s)
        return -1;
    int rc = sqlite3_step(s);
    int result = rc == SQLITE_DONE || rc == SQLITE_ROW ? 0 : complain(r, which);
    finish(s);
    return result;
}

/* The first row: the caller reads the columns and calls finish(). `*ret_found` says whether there
 * is one. */
static int first(struct sqlite_repository *r, bool *ret_found, sqlite3_stmt **ret_statement,
                 enum statement which, const char *types, ...)
{
    va_list args;
    va_start(args, types);
    sqlite3_stmt *s = bound(r, which, types, args);
    va_end(args);
    if (!s)
        return -1;
    int rc = sqlite3_step(s);
    if (rc != SQLITE_ROW && rc != SQLITE_DONE) {
        complain(r, which);
        finish(s);
        return -1;
    }
    *ret_found = rc == SQLITE_ROW;
    *ret_statement = s;
    return 0;
}

static int begin(struct sqlite_repository *r)
{
    return run(r, BEGIN, "");
}

/* Commits when all went well so far, else undoes; returns what the transaction came to. */
static int end(struct sqlite_repository *r, int so_far)
{
    if (so_far == 0 && run(r, COMMIT, "") == 0)
        return 0;
    if (!sqlite3_get_autocommit(r->db))
        run(r, ROLLBACK, "");
    return -1;
}

/* ---- rows ---- */

static char *column_copy(sqlite3_stmt *s, int i)
{
    const char *text = (const char *)sqlite3_column_text(s, i);
    char *copy = strdup(text ? text : "");
    if (!copy)
        die("out of memory");
    return copy;
}

static void column_id(sqlite3_stmt *s, int i, char *out, size_t size)
{
    const char *text = (const char *)sqlite3_column_text(s, i);
    if (text && strlen(text) == size - 1)
        memcpy(out, text, size);
}

void log_rows_free(struct log_rows *rows)
{
    for (size_t i = 0; i < rows->n; i++) {
        struct log_row *row = &rows->items[i];
        free(row->timestamp);
        free(row->decky);
        free(row->service);
        free(row->event_type);
        free(row->attacker_ip);
        free(row->message);
        free(row->fields);
        free(row->source);
    }
    free(rows->items);
    *rows = (struct log_rows){0};
}

static int log_rows(struct sqlite_repository *r, struct log_rows *ret_rows, enum statement which,
                    const char *types, ...)
{
    va_list args;
    va_start(args, types);
    sqlite3_stmt *s = bound(r, which, types, args);
    va_end(args);
    if (!s)
        return -1;
    struct log_rows rows = {0};
    size_t cap = 0;
    int rc;
    while ((rc = sqlite3_step(s)) == SQLITE_ROW) {
        if (rows.n == cap) {
            cap = cap ? cap * 2 : 16;
            rows.items = reallocarray(rows.items, cap, sizeof *rows.items);
            if (!rows.items)
                die("out of memory");
        }
        struct log_row *row = &rows.items[rows.n++];
        *row = (struct log_row){
            .id = sqlite3_column_int64(s, 0),
            .timestamp = column_copy(s, 1),
            .decky = column_copy(s, 2),
            .service = column_copy(s, 3),
            .event_type = column_copy(s, 4),
            .attacker_ip = column_copy(s, 5),
            .message = column_copy(s, 6),
            .fields = column_copy(s, 7),
            .source = column_copy(s, 8),
            .source_offset = sqlite3_column_int64(s, 9),
        };
        column_id(s, 10, row->trace_id, sizeof row->trace_id);
        column_id(s, 11, row->span_id, sizeof row->span_id);
    }
    finish(s);
    if (rc != SQLITE_DONE) {
        complain(r, which);
        log_rows_free(&rows);
        return -1;
    }
    *ret_rows = rows;
    return 0;
}

/* Columns that hold JSON become that, not a string of it. */
static json_t *column_json(sqlite3_stmt *s, int i)
{
    switch (sqlite3_column_type(s, i)) {
    case SQLITE_INTEGER:
        return json_integer(sqlite3_column_int64(s, i));
    case SQLITE_FLOAT:
        return json_real(sqlite3_column_double(s, i));
    case SQLITE_TEXT: {
        const char *text = (const char *)sqlite3_column_text(s, i);
        json_t *inner = *text == '{' || *text == '[' ? json_loads(text, 0, NULL) : NULL;
        return inner ? inner : json_string(text);
    }
    default:
        return json_null();
    }
}

/* All rows as an array of objects, the columns' names as keys. */
static int json_rows(struct sqlite_repository *r, json_t **ret_rows, enum statement which,
                     const char *types, ...)
{
    va_list args;
    va_start(args, types);
    sqlite3_stmt *s = bound(r, which, types, args);
    va_end(args);
    if (!s)
        return -1;
    json_t *rows = json_array();
    int rc;
    while ((rc = sqlite3_step(s)) == SQLITE_ROW && json_array_size(rows) < ROWS_MAX) {
        json_t *row = json_object();
        for (int i = 0; i < sqlite3_column_count(s); i++)
            json_object_set_new(row, sqlite3_column_name(s, i), column_json(s, i));
        json_array_append_new(rows, row);
    }
    finish(s);
    if (rc != SQLITE_DONE && rc != SQLITE_ROW) {
        complain(r, which);
        json_decref(rows);
        return -1;
    }
    *ret_rows = rows;
    return 0;
}

/* ---- the methods: each takes its turn ---- */

static struct sqlite_repository *take_turn(struct repository *repo)
{
    struct sqlite_repository *r = (struct sqlite_repository *)repo;
    pthread_mutex_lock(&r->turn);
    return r;
}

static void end_turn(struct sqlite_repository **r)
{
    pthread_mutex_unlock(&(*r)->turn);
}
#define TURN(repo) __attribute__((cleanup(end_turn))) struct sqlite_repository *r = take_turn(repo)

static int get_cursor(struct repository *repo, const char *worker, const char *source,
                      int64_t *ret_position)
{
    TURN(repo);
    bool found;
    sqlite3_stmt *s;
    if (first(r, &found, &s, GET_CURSOR, "ss", worker, source) != 0)
        return -1;
    *ret_position = found ? sqlite3_column_int64(s, 0) : 0;
    finish(s);
    return 0;
}

static int set_cursor(struct repository *repo, const char *worker, const char *source,
                      int64_t position)
{
    TURN(repo);
    return run(r, SET_CURSOR, "ssi", worker, source, position);
}

static int add_log(struct repository *repo, const struct log_row *row, const char *worker,
                   int64_t next_position)
{
    TURN(repo);
    if (begin(r) != 0)
        return -1;
    int result = run(r, ADD_LOG, "ssssssssiss", row->timestamp, row->decky, row->service,
                     row->event_type, row->attacker_ip, row->message, row->fields, row->source,
                     row->source_offset, *row->trace_id ? row->trace_id : NULL,
                     *row->span_id ? row->span_id : NULL);
    if (result == 0)
        result = run(r, SET_CURSOR, "ssi", worker, row->source, next_position);
    return end(r, result);
}

static int add_bounty(struct repository *repo, const struct bounty *b)
{
    TURN(repo);
    return run(r, ADD_BOUNTY, "ssssss", b->timestamp, b->decky, b->service, b->attacker_ip, b->type,
               b->payload);
}

static int get_logs_after(struct repository *repo, int64_t after, int limit,
                          struct log_rows *ret_rows)
{
    TURN(repo);
    return log_rows(r, ret_rows, GET_LOGS_AFTER, "ii", after, (int64_t)limit);
}

static int get_logs_of_attacker(struct repository *repo, const char *ip, int limit,
                                struct log_rows *ret_rows)
{
    TURN(repo);
    return log_rows(r, ret_rows, GET_LOGS_OF_ATTACKER, "si", ip, (int64_t)limit);
}

static int upsert_attacker(struct repository *repo, const struct attacker *a)
{
    TURN(repo);
    char uuid[33]; /* of the first insertion; later ones keep it */
    random_hex(uuid, 16);
    return run(r, UPSERT_ATTACKER, "ssssiiiss", uuid, a->ip, a->first_seen, a->last_seen,
               a->event_count, a->service_count, a->decky_count, a->services, a->deckies);
}

static int upsert_attacker_behavior(struct repository *repo, const char *ip, const char *record,
                                    const char *summary)
{
    TURN(repo);
    return run(r, UPSERT_BEHAVIOR, "sss", ip, record, summary);
}

static int upsert_traversal(struct repository *repo, const char *ip, const char *report)
{
    TURN(repo);
    return run(r, UPSERT_TRAVERSAL, "ss", ip, report);
}

static int get_logs(struct repository *repo, const struct log_filter *f, json_t **ret_rows)
{
    TURN(repo);
    return json_rows(r, ret_rows, GET_LOGS, "ssii", f->attacker_ip, f->search, f->limit, f->offset);
}

static int get_logs_histogram(struct repository *repo, int64_t interval_s, json_t **ret_rows)
{
    TURN(repo);
    return json_rows(r, ret_rows, GET_HISTOGRAM, "i", interval_s);
}

static int get_bounties(struct repository *repo, int64_t limit, json_t **ret_rows)
{
    TURN(repo);
    return json_rows(r, ret_rows, GET_BOUNTIES, "i", limit);
}

static int get_attackers(struct repository *repo, const char *ip, int64_t limit, json_t **ret_rows)
{
    TURN(repo);
    return json_rows(r, ret_rows, GET_ATTACKERS, "si", ip, limit);
}

static int get_attacker_detail(struct repository *repo, const char *uuid, json_t **ret_rows)
{
    TURN(repo);
    return json_rows(r, ret_rows, GET_ATTACKER_DETAIL, "s", uuid);
}

static int get_attacker_commands(struct repository *repo, const char *uuid, json_t **ret_rows)
{
    TURN(repo);
    return json_rows(r, ret_rows, GET_ATTACKER_COMMANDS, "s", uuid);
}

static int get_stats(struct repository *repo, json_t **ret_rows)
{
    TURN(repo);
    return json_rows(r, ret_rows, GET_STATS, "");
}

/* How many rows the last statement changed. */
static int changed(struct sqlite_repository *r, int result, int64_t *ret_n)
{
    if (result == 0)
        *ret_n = sqlite3_changes64(r->db);
    return result;
}

static int get_probes(struct repository *repo, const char *uuid, json_t **ret_rows)
{
    TURN(repo);
    return json_rows(r, ret_rows, GET_PROBES, "s", uuid);
}

static int add_user(struct repository *repo, const struct user *u, int64_t *ret_n)
{
    TURN(repo);
    return changed(r,
                   run(r, ADD_USER, "ssssi", u->uuid, u->name, u->role, u->password_hash,
                       (int64_t)u->must_change),
                   ret_n);
}

static int get_user(struct repository *repo, const char *name, json_t **ret_rows)
{
    TURN(repo);
    return json_rows(r, ret_rows, GET_USER, "s", name);
}

static int get_users(struct repository *repo, json_t **ret_rows)
{
    TURN(repo);
    return json_rows(r, ret_rows, GET_USERS, "");
}

static int delete_user(struct repository *repo, const char *uuid, int64_t *ret_n)
{
    TURN(repo);
    if (begin(r) != 0)
        return -1;
    int result = run(r, DELETE_SESSIONS, "s", uuid);
    if (result == 0)
        result = changed(r, run(r, DELETE_USER, "s", uuid), ret_n);
    return end(r, result);
}

static int set_user_role(struct repository *repo, const char *uuid, const char *role,
                         int64_t *ret_n)
{
    TURN(repo);
    return changed(r, run(r, SET_USER_ROLE, "ss", uuid, role), ret_n);
}

static int set_user_password(struct repository *repo, const char *uuid, const char *password_hash,
                             bool must_change, int64_t *ret_n)
{
    TURN(repo);
    if (begin(r) != 0)
        return -1;
    int result = run(r, DELETE_SESSIONS, "s", uuid);
    if (result == 0)
        result = changed(
            r, run(r, SET_USER_PASSWORD, "ssi", uuid, password_hash, (int64_t)must_change), ret_n);
    return end(r, result);
}

static int add_session(struct repository *repo, const char *token, const char *user_uuid)
{
    TURN(repo);
    return run(r, ADD_SESSION, "ss", token, user_uuid);
}

static int get_session(struct repository *repo, const char *token, json_t **ret_rows)
{
    TURN(repo);
    return json_rows(r, ret_rows, GET_SESSION, "s", token);
}

static int get_setting(struct repository *repo, const char *key, int64_t preset, int64_t *ret)
{
    TURN(repo);
    bool found;
    sqlite3_stmt *s;
    if (first(r, &found, &s, GET_SETTING, "s", key) != 0)
        return -1;
    *ret = found ? sqlite3_column_int64(s, 0) : preset;
    finish(s);
    return 0;
}

static int set_setting(struct repository *repo, const char *key, int64_t value)
{
    TURN(repo);
    return run(r, SET_SETTING, "si", key, value);
}

static int get_deckies(struct repository *repo, json_t **ret_rows)
{
    TURN(repo);
    return json_rows(r, ret_rows, GET_DECKIES, "");
}

static int get_decky(struct repository *repo, const char *name, json_t **ret_rows)
{
    TURN(repo);
    return json_rows(r, ret_rows, GET_DECKY, "s", name);
}

static int get_deckies_due(struct repository *repo, json_t **ret_rows)
{
    TURN(repo);
    return json_rows(r, ret_rows, GET_DECKIES_DUE, "");
}

static int upsert_decky(struct repository *repo, const char *name, const char *service,
                        const char *banner, int64_t port)
{
    TURN(repo);
    return run(r, UPSERT_DECKY, "sssi", name, service, banner, port);
}

static int delete_decky(struct repository *repo, const char *name)
{
    TURN(repo);
    return run(r, DELETE_DECKY, "s", name);
}

static int set_mutate_interval(struct repository *repo, const char *name, int64_t interval_s,
                               int64_t *ret_n)
{
    TURN(repo);
    return changed(r, run(r, SET_MUTATE_INTERVAL, "si", name, interval_s), ret_n);
}

static int add_probe(struct repository *repo, const char *ip, int64_t port, const char *kind,
                     const char *hash, const char *text)
{
    TURN(repo);
    return run(r, ADD_PROBE, "sisss", ip, port, kind, hash, text);
}

static int get_probe_targets(struct repository *repo, int64_t quiet_s, int64_t limit,
                             json_t **ret_rows)
{
    TURN(repo);
    return json_rows(r, ret_rows, GET_PROBE_TARGETS, "ii", quiet_s, limit);
}

static int reinit(struct repository *repo)
{
    TURN(repo);
    int result = begin(r);
    if (result != 0)
        return -1;
    for (enum statement which = REINIT_LOGS; result == 0 && which <= REINIT_PROBES; which++)
        result = run(r, which, "");
    return end(r, result);
}

/* A number that is asked for often; 0 when it cannot be had. */
static int64_t number_of(struct sqlite_repository *r, enum statement which, const char *types,
                         int64_t argument)
{
    bool found;
    sqlite3_stmt *s;
    if (first(r, &found, &s, which, types, argument) != 0)
        return 0;
    int64_t n = found ? sqlite3_column_int64(s, 0) : 0;
    finish(s);
    return n;
}

int64_t repository_newest_log(struct repository *repo)
{
    TURN(repo);
    return number_of(r, NEWEST_LOG, "", 0);
}

bool repository_has_targets(struct repository *repo, int64_t quiet_s)
{
    TURN(repo);
    return number_of(r, COUNT_TARGETS, "i", quiet_s) > 0;
}

bool repository_has_due(struct repository *repo)
{
    TURN(repo);
    return number_of(r, COUNT_DUE, "", 0) > 0;
}

/* ---- opening ---- */

/* SQLite does not wait for its turn when the journal's mode changes: so we do. */
static int use_wal(sqlite3 *db)
{
    int rc;
    do {
        rc = sqlite3_exec(db, "PRAGMA journal_mode=WAL", NULL, NULL, NULL);
    } while (rc == SQLITE_BUSY && wait_for(-1, 10));
    return rc;
}

struct repository *repository_open(const char *path)
{
    struct sqlite_repository *r = calloc(1, sizeof *r);
    if (!r)
        die("out of memory");
    pthread_mutex_init(&r->turn, NULL);
    if (sqlite3_open_v2(path, &r->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL) !=
            SQLITE_OK ||
        sqlite3_busy_timeout(r->db, BUSY_TIMEOUT_MS) != SQLITE_OK || use_wal(r->db) != SQLITE_OK ||
        sqlite3_exec(r->db, "PRAGMA synchronous=NORMAL", NULL, NULL, NULL) != SQLITE_OK ||
        begin(r) != 0 || sqlite3_exec(r->db, repository_schema, NULL, NULL, NULL) != SQLITE_OK ||
        end(r, 0) != 0)
        die("cannot open the database %s: %s", path, r->db ? sqlite3_errmsg(r->db) : "no memory");
#define X(table, result, method, parameters, arguments) r->methods.method = method;
    REPOSITORY_METHODS(X, )
#undef X
    repository_trace(&r->methods);
    return &r->methods;
}

void repository_close(struct repository *repo)
{
    struct sqlite_repository *r = (struct sqlite_repository *)repo;
    for (int i = 0; i < N_STATEMENTS; i++)
        sqlite3_finalize(r->statements[i]);
    sqlite3_close(r->db);
    pthread_mutex_destroy(&r->turn);
    free(r);
}
