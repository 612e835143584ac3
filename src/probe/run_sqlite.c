/* SQLite: a client span for each execution of a statement, from its first step to its end or reset.
 *
 * A statement that is stepped again after its end begins another execution. The span is current while
 * SQLite runs, so that what user functions and callbacks do becomes its child. */
#include "probe/run.h"

#include <errno.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>

struct statement {
    struct handle handle;
    bool open;
    struct pug_span span;
};

static struct handles statements = HANDLES_INIT;

static void set_database(struct pug_span *span, sqlite3 *db, const void *from)
{
    __typeof__(&sqlite3_db_filename) filename_of = OTHER(sqlite3_db_filename, from);
    const char *file = filename_of && db ? filename_of(db, "main") : NULL;
    pug_set_str(span, "db.system.name", "sqlite");
    pug_set_str(span, "db.namespace", file && file[0] ? file : ":memory:");
}

/* error.type: SQLite's extended result code, which has a number and a documented name. */
static void set_failed(struct pug_span *span, sqlite3 *db, int code, const void *from)
{
    __typeof__(&sqlite3_errmsg) message_of = OTHER(sqlite3_errmsg, from);
    __typeof__(&sqlite3_extended_errcode) extended_of = OTHER(sqlite3_extended_errcode, from);
    int extended = extended_of && db ? extended_of(db) : code;
    char type[16];
    snprintf(type, sizeof type, "%d", (extended & 0xff) == (code & 0xff) ? extended : code);
    run_set_error(span, type, true, message_of && db ? message_of(db) : NULL);
}

static sqlite3 *database_of(sqlite3_stmt *stmt, const void *from)
{
    __typeof__(&sqlite3_db_handle) handle_of = OTHER(sqlite3_db_handle, from);
    return handle_of ? handle_of(stmt) : NULL;
}

static void begin(struct statement *s, sqlite3_stmt *stmt, const void *from)
{
    __typeof__(&sqlite3_sql) sql_of = OTHER(sqlite3_sql, from);
    const char *sql = sql_of ? sql_of(stmt) : NULL;
    pug_span_start(&s->span, "sqlite", PUG_KIND(PUG_KIND_CLIENT));
    set_database(&s->span, database_of(stmt, from), from);
    if (sql)
        run_set_sql(&s->span, sql, strlen(sql));
    s->open = true;
}

static void end(struct statement *s)
{
    if (s->open)
        pug_span_end(&s->span);
    s->open = false;
}

int sqlite3_step(sqlite3_stmt *stmt)
{
    NEXT(sqlite3_step, SQLITE_ERROR);
    struct statement *s = NULL;
    if (inside || !stmt || !run_on())
        return real(stmt);
    KEEP_ERRNO({
        s = handles_get(&statements, stmt, sizeof *s);
        if (s && !s->open)
            begin(s, stmt, caller);
    });
    if (!s)
        return real(stmt);
    int result;
    {
        PUG_ATTACH(&s->span.context);
        result = real(stmt);
    }
    if (result != SQLITE_ROW)
        KEEP_ERRNO({
            if (result != SQLITE_DONE)
                set_failed(&s->span, database_of(stmt, caller), result, caller);
            end(s);
        });
    return result;
}

int sqlite3_reset(sqlite3_stmt *stmt)
{
    NEXT(sqlite3_reset, SQLITE_ERROR);
    if (!inside && stmt && run_on())
        KEEP_ERRNO({
            struct statement *s = handles_find(&statements, stmt);
            if (s)
                end(s);
        });
    return real(stmt);
}

int sqlite3_finalize(sqlite3_stmt *stmt)
{
    NEXT(sqlite3_finalize, SQLITE_ERROR);
    if (!inside && stmt && run_on())
        KEEP_ERRNO({
            struct statement *s = handles_take(&statements, stmt);
            if (s)
                end(s);
            free(s);
        });
    return real(stmt);
}

int sqlite3_exec(sqlite3 *db, const char *sql, int (*callback)(void *, int, char **, char **),
                 void *arg, char **error)
{
    NEXT(sqlite3_exec, SQLITE_ERROR);
    if (inside || !db || !sql || !run_on())
        return real(db, sql, callback, arg, error);
    PUG_SPAN("sqlite", PUG_KIND(PUG_KIND_CLIENT));
    KEEP_ERRNO({
        set_database(PUG_CURRENT, db, caller);
        run_set_sql(PUG_CURRENT, sql, strlen(sql));
    });
    int result = real(db, sql, callback, arg, error);
    if (result != SQLITE_OK)
        KEEP_ERRNO(set_failed(PUG_CURRENT, db, result, caller));
    return result;
}

/* A statement that does not compile is never stepped: it becomes a span of no length with its error. */
static void not_prepared(sqlite3 *db, const char *sql, int bytes, int result, const void *from)
{
    PUG_SPAN("sqlite", PUG_KIND(PUG_KIND_CLIENT));
    set_database(PUG_CURRENT, db, from);
    run_set_sql(PUG_CURRENT, sql, bytes < 0 ? strlen(sql) : strnlen(sql, (size_t)bytes));
    set_failed(PUG_CURRENT, db, result, from);
}

int sqlite3_prepare_v2(sqlite3 *db, const char *sql, int bytes, sqlite3_stmt **stmt,
                       const char **tail)
{
    NEXT(sqlite3_prepare_v2, SQLITE_ERROR);
    int result = real(db, sql, bytes, stmt, tail);
    if (result != SQLITE_OK && !inside && db && sql && run_on())
        KEEP_ERRNO(not_prepared(db, sql, bytes, result, caller));
    return result;
}

int sqlite3_prepare_v3(sqlite3 *db, const char *sql, int bytes, unsigned flags, sqlite3_stmt **stmt,
                       const char **tail)
{
    NEXT(sqlite3_prepare_v3, SQLITE_ERROR);
    int result = real(db, sql, bytes, flags, stmt, tail);
    if (result != SQLITE_OK && !inside && db && sql && run_on())
        KEEP_ERRNO(not_prepared(db, sql, bytes, result, caller));
    return result;
}
