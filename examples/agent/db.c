#include "db.h"

#include "llm.h"

#include <math.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <string.h>

#include <pugmark/pugmark.h>

#define BUSY_MS 5000 /* another agent has the same file */

static const char schema[] =
    "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
    "CREATE TABLE IF NOT EXISTS messages("
    " id INTEGER PRIMARY KEY, session TEXT NOT NULL, role TEXT NOT NULL, content TEXT NOT NULL,"
    " channel TEXT NOT NULL, at INTEGER NOT NULL) STRICT;"
    "CREATE TABLE IF NOT EXISTS memories("
    " id INTEGER PRIMARY KEY, session TEXT NOT NULL, content TEXT NOT NULL UNIQUE,"
    " weight REAL NOT NULL, uses INTEGER NOT NULL, at INTEGER NOT NULL) STRICT;"
    "CREATE TABLE IF NOT EXISTS vectors("
    " collection TEXT NOT NULL, key TEXT NOT NULL, vector BLOB NOT NULL,"
    " PRIMARY KEY(collection, key)) STRICT;"
    "CREATE TABLE IF NOT EXISTS summaries("
    " id INTEGER PRIMARY KEY, session TEXT NOT NULL, content TEXT NOT NULL,"
    " until INTEGER NOT NULL) STRICT;"
    "CREATE TABLE IF NOT EXISTS relations("
    " source TEXT NOT NULL, kind TEXT NOT NULL, target TEXT NOT NULL, weight REAL NOT NULL,"
    " PRIMARY KEY(source, kind, target)) STRICT;"
    "CREATE TABLE IF NOT EXISTS persona(fact TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;"
    "CREATE TABLE IF NOT EXISTS digests(session TEXT PRIMARY KEY, content TEXT NOT NULL) STRICT;"
    "CREATE TABLE IF NOT EXISTS symbols("
    " path TEXT NOT NULL, line INTEGER NOT NULL, name TEXT NOT NULL, text TEXT NOT NULL) STRICT;"
    "CREATE INDEX IF NOT EXISTS symbols_by_name ON symbols(name);"
    "CREATE TABLE IF NOT EXISTS skills("
    " name TEXT PRIMARY KEY, good INTEGER NOT NULL, bad INTEGER NOT NULL) STRICT;"
    "CREATE TABLE IF NOT EXISTS habits("
    " tools TEXT PRIMARY KEY, seen INTEGER NOT NULL, example TEXT NOT NULL) STRICT;";

static sqlite3 *db;
static pthread_mutex_t turn; /* recursive: a transaction holds it over its statements */

static void cosine(sqlite3_context *result, int n_args, sqlite3_value **args)
{
    (void)n_args;
    int n = sqlite3_value_bytes(args[0]) / (int)sizeof(float);
    const float *a = sqlite3_value_blob(args[0]), *b = sqlite3_value_blob(args[1]);
    double dot = 0, aa = 0, bb = 0;
    if (!a || !b || n * (int)sizeof(float) != sqlite3_value_bytes(args[1]))
        return;
    for (int i = 0; i < n; i++) {
        dot += (double)a[i] * (double)b[i];
        aa += (double)a[i] * (double)a[i];
        bb += (double)b[i] * (double)b[i];
    }
    sqlite3_result_double(result, aa > 0 && bb > 0 ? dot / sqrt(aa * bb) : 0);
}

void db_open(const char *path)
{
    pthread_mutexattr_t recursive;
    pthread_mutexattr_init(&recursive);
    pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&turn, &recursive);
    if (sqlite3_open(path, &db) != SQLITE_OK || sqlite3_busy_timeout(db, BUSY_MS) != SQLITE_OK ||
        sqlite3_exec(db, schema, NULL, NULL, NULL) ||
        sqlite3_create_function(db, "cosine", 2, SQLITE_UTF8 | SQLITE_DETERMINISTIC, NULL, cosine,
                                NULL, NULL) != SQLITE_OK)
        die("cannot use %s: %s", path, sqlite3_errmsg(db));
}

void db_close(void)
{
    sqlite3_close(db);
    db = NULL;
    pthread_mutex_destroy(&turn);
}

static json_t *row_of(sqlite3_stmt *s)
{
    json_t *row = json_object();
    for (int i = 0; i < sqlite3_column_count(s); i++) {
        const char *name = sqlite3_column_name(s, i);
        int type = sqlite3_column_type(s, i);
        if (type == SQLITE_INTEGER)
            json_object_set_new(row, name, json_integer(sqlite3_column_int64(s, i)));
        else if (type == SQLITE_FLOAT)
            json_object_set_new(row, name, json_real(sqlite3_column_double(s, i)));
        else if (type == SQLITE_TEXT)
            json_object_set_new(row, name, json_string((const char *)sqlite3_column_text(s, i)));
    }
    return row;
}

static void bind(sqlite3_stmt *s, const char *types, va_list args)
{
    for (int i = 1; *types; types++, i++) {
        if (*types == 's')
            sqlite3_bind_text(s, i, va_arg(args, const char *), -1, SQLITE_TRANSIENT);
        else if (*types == 'i')
            sqlite3_bind_int64(s, i, va_arg(args, int64_t));
        else if (*types == 'd')
            sqlite3_bind_double(s, i, va_arg(args, double));
        else
            sqlite3_bind_blob(s, i, va_arg(args, const float *), EMBED_DIM * sizeof(float),
                              SQLITE_TRANSIENT);
    }
}

/* How many rows changed, -1 when it failed. `rows` NULL: nobody wants them. */
static int execute(const struct statement *what, json_t *rows, const char *types, va_list args)
{
    PUG_SPAN("memory.sqlite", PUG_KIND(PUG_KIND_CLIENT), PUG_STR("db.system.name", "sqlite"),
             PUG_STR("db.operation.name", what->operation),
             PUG_STR("db.collection.name", what->table));
    pthread_mutex_lock(&turn);
    sqlite3_stmt *s = NULL;
    int result = -1, rc = sqlite3_prepare_v2(db, what->sql, -1, &s, NULL);
    if (rc == SQLITE_OK) {
        bind(s, types, args);
        while ((rc = sqlite3_step(s)) == SQLITE_ROW)
            if (rows)
                json_array_append_new(rows, row_of(s));
    }
    if (rc == SQLITE_DONE) {
        result = sqlite3_changes(db);
        if (rows)
            pug_set_int(PUG_CURRENT, "db.response.returned_rows", (int64_t)json_array_size(rows));
    } else {
        pug_error(PUG_CURRENT, sqlite3_errmsg(db));
        say("the database refused to %s %s: %s", what->operation, what->table, sqlite3_errmsg(db));
    }
    sqlite3_finalize(s);
    pthread_mutex_unlock(&turn);
    return result;
}

json_t *db_rows(const struct statement *s, const char *types, ...)
{
    json_t *rows = json_array();
    va_list args;
    va_start(args, types);
    execute(s, rows, types, args);
    va_end(args);
    return rows;
}

int db_run(const struct statement *s, const char *types, ...)
{
    va_list args;
    va_start(args, types);
    int result = execute(s, NULL, types, args);
    va_end(args);
    return result;
}

void db_begin(void)
{
    pthread_mutex_lock(&turn);
    sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL);
}

void db_commit(void)
{
    sqlite3_exec(db, "COMMIT", NULL, NULL, NULL);
    pthread_mutex_unlock(&turn);
}
