/* libpq: client spans for connecting and for each query.
 *
 *     PQexec and its like          a scope around the call
 *     PQsend... and PQgetResult    from sending to the NULL that ends a query's results; in pipeline mode
 *                                  several are under way, answered in order
 *     PQconnectStart, PQconnectPoll   until the poll says that it is done or failed
 *
 * Its header is not needed: what is opaque there is opaque here. The numbers are those of the protocol
 * and of libpq's documentation (PostgreSQL 15, chapter 34). Parameters' values are never looked at. */
#include "probe/run.h"

#include <errno.h>
#include <stdlib.h>

typedef struct pg_conn PGconn;
typedef struct pg_result PGresult;
typedef unsigned Oid;

enum { EXEC_TUPLES_OK = 2, EXEC_BAD_RESPONSE = 5, EXEC_FATAL_ERROR = 7, EXEC_SINGLE_TUPLE = 9 };
enum { EXEC_PIPELINE_ABORTED = 11 };
enum { CONNECTION_OK = 0, POLLING_FAILED = 0, POLLING_OK = 3 };
enum { DIAG_SQLSTATE = 'C', DIAG_MESSAGE_PRIMARY = 'M' };

PGconn *PQconnectdb(const char *info);
PGconn *PQconnectdbParams(const char *const *keys, const char *const *values, int expand);
PGconn *PQsetdbLogin(const char *host, const char *port, const char *options, const char *tty,
                     const char *db, const char *user, const char *password);
PGconn *PQconnectStart(const char *info);
PGconn *PQconnectStartParams(const char *const *keys, const char *const *values, int expand);
int PQconnectPoll(PGconn *conn);
void PQfinish(PGconn *conn);
void PQreset(PGconn *conn);
PGresult *PQexec(PGconn *conn, const char *sql);
PGresult *PQexecParams(PGconn *conn, const char *sql, int n, const Oid *types,
                       const char *const *values, const int *lengths, const int *formats,
                       int format);
PGresult *PQprepare(PGconn *conn, const char *name, const char *sql, int n, const Oid *types);
PGresult *PQexecPrepared(PGconn *conn, const char *name, int n, const char *const *values,
                         const int *lengths, const int *formats, int format);
int PQsendQuery(PGconn *conn, const char *sql);
int PQsendQueryParams(PGconn *conn, const char *sql, int n, const Oid *types,
                      const char *const *values, const int *lengths, const int *formats,
                      int format);
int PQsendPrepare(PGconn *conn, const char *name, const char *sql, int n, const Oid *types);
int PQsendQueryPrepared(PGconn *conn, const char *name, int n, const char *const *values,
                        const int *lengths, const int *formats, int format);
PGresult *PQgetResult(PGconn *conn);
/* not interposed */
char *PQhost(const PGconn *conn);
char *PQport(const PGconn *conn);
char *PQdb(const PGconn *conn);
char *PQerrorMessage(const PGconn *conn);
int PQstatus(const PGconn *conn);
int PQresultStatus(const PGresult *result);
int PQntuples(const PGresult *result);
char *PQresultErrorField(const PGresult *result, int field);

struct connection {
    struct handle handle;
    struct commands commands;
    bool connecting;
    struct pug_span span; /* of connecting */
};

static struct handles connections = HANDLES_INIT;

/* ---- attributes ---- */

static void set_connection(struct pug_span *span, const PGconn *conn, const void *from)
{
    __typeof__(&PQhost) host_of = OTHER(PQhost, from);
    __typeof__(&PQport) port_of = OTHER(PQport, from);
    __typeof__(&PQdb) db_of = OTHER(PQdb, from);
    const char *port = conn && port_of ? port_of(conn) : NULL;
    const char *db = conn && db_of ? db_of(conn) : NULL;
    pug_set_str(span, "db.system.name", "postgresql");
    if (db && db[0])
        pug_set_str(span, "db.namespace", db);
    if (conn && host_of)
        run_set_server(span, host_of(conn), port ? strtol(port, NULL, 10) : 0);
}

static void set_failed(struct pug_span *span, const PGconn *conn, const char *type,
                       const void *from)
{
    __typeof__(&PQerrorMessage) message_of = OTHER(PQerrorMessage, from);
    run_set_error(span, type, false, message_of && conn ? message_of(conn) : NULL);
}

static void set_result(struct pug_span *span, const PGconn *conn, const PGresult *result,
                       const void *from)
{
    __typeof__(&PQresultStatus) status_of = OTHER(PQresultStatus, from);
    __typeof__(&PQresultErrorField) field_of = OTHER(PQresultErrorField, from);
    __typeof__(&PQntuples) tuples_of = OTHER(PQntuples, from);
    int status = result && status_of ? status_of(result) : EXEC_FATAL_ERROR;
    if (status == EXEC_TUPLES_OK && tuples_of) {
        pug_set_int(span, "db.response.returned_rows", tuples_of(result));
    } else if (status == EXEC_PIPELINE_ABORTED) {
        run_set_error(span, "aborted", false, "an earlier command of the pipeline failed");
    } else if (status == EXEC_FATAL_ERROR || status == EXEC_BAD_RESPONSE) {
        const char *state = result && field_of ? field_of(result, DIAG_SQLSTATE) : NULL;
        if (state)
            run_set_error(span, state, true, field_of(result, DIAG_MESSAGE_PRIMARY));
        else
            set_failed(span, conn, "connection", from);
    }
}

static void set_query(struct pug_span *span, const PGconn *conn, const char *sql, const void *from)
{
    set_connection(span, conn, from);
    if (sql)
        run_set_sql(span, sql, strlen(sql));
}

static void set_prepared(struct pug_span *span, const PGconn *conn, const char *name,
                         const void *from)
{
    set_connection(span, conn, from);
    pug_set_name(span, "EXECUTE");
    pug_set_str(span, "db.operation.name", "EXECUTE");
    if (name && name[0])
        pug_set_str(span, "db.query.summary", name);
}

/* ---- connecting ---- */

static void set_connected(struct pug_span *span, const PGconn *conn, const void *from)
{
    __typeof__(&PQstatus) status_of = OTHER(PQstatus, from);
    set_connection(span, conn, from);
    if (!conn || !status_of || status_of(conn) != CONNECTION_OK)
        set_failed(span, conn, "connection", from);
}

PGconn *PQconnectdb(const char *info)
{
    NEXT(PQconnectdb, NULL);
    if (inside || !run_on())
        return real(info);
    PUG_SPAN("connect", PUG_KIND(PUG_KIND_CLIENT));
    PGconn *conn = real(info);
    KEEP_ERRNO(set_connected(PUG_CURRENT, conn, caller));
    return conn;
}

PGconn *PQconnectdbParams(const char *const *keys, const char *const *values, int expand)
{
    NEXT(PQconnectdbParams, NULL);
    if (inside || !run_on())
        return real(keys, values, expand);
    PUG_SPAN("connect", PUG_KIND(PUG_KIND_CLIENT));
    PGconn *conn = real(keys, values, expand);
    KEEP_ERRNO(set_connected(PUG_CURRENT, conn, caller));
    return conn;
}

PGconn *PQsetdbLogin(const char *host, const char *port, const char *options, const char *tty,
                     const char *db, const char *user, const char *password)
{
    NEXT(PQsetdbLogin, NULL);
    if (inside || !run_on())
        return real(host, port, options, tty, db, user, password);
    PUG_SPAN("connect", PUG_KIND(PUG_KIND_CLIENT));
    PGconn *conn = real(host, port, options, tty, db, user, password);
    KEEP_ERRNO(set_connected(PUG_CURRENT, conn, caller));
    return conn;
}

static struct connection *connection_of(const PGconn *conn)
{
    return conn ? handles_get(&connections, conn, sizeof(struct connection)) : NULL;
}

static void connecting(PGconn *conn)
{
    struct connection *c = connection_of(conn);
    if (!c || c->connecting)
        return;
    pug_span_start(&c->span, "connect", PUG_KIND(PUG_KIND_CLIENT));
    c->connecting = true;
}

static void connected(struct connection *c, PGconn *conn, const char *error, const void *from)
{
    if (!c || !c->connecting)
        return;
    c->connecting = false;
    set_connection(&c->span, conn, from);
    if (error)
        set_failed(&c->span, conn, error, from);
    pug_span_end(&c->span);
}

PGconn *PQconnectStart(const char *info)
{
    NEXT(PQconnectStart, NULL);
    PGconn *conn = real(info);
    if (!inside && conn && run_on())
        KEEP_ERRNO(connecting(conn));
    return conn;
}

PGconn *PQconnectStartParams(const char *const *keys, const char *const *values, int expand)
{
    NEXT(PQconnectStartParams, NULL);
    PGconn *conn = real(keys, values, expand);
    if (!inside && conn && run_on())
        KEEP_ERRNO(connecting(conn));
    return conn;
}

int PQconnectPoll(PGconn *conn)
{
    NEXT(PQconnectPoll, POLLING_FAILED);
    int state = real(conn);
    if (!inside && conn && (state == POLLING_OK || state == POLLING_FAILED) && run_on())
        KEEP_ERRNO(connected(handles_find(&connections, conn), conn,
                             state == POLLING_OK ? NULL : "connection", caller));
    return state;
}

void PQreset(PGconn *conn)
{
    NEXT(PQreset, );
    if (inside || !conn || !run_on()) {
        real(conn);
        return;
    }
    PUG_SPAN("connect", PUG_KIND(PUG_KIND_CLIENT));
    KEEP_ERRNO({
        struct connection *c = handles_find(&connections, conn);
        if (c)
            commands_end_all(&c->commands, "the connection was reset");
    });
    real(conn);
    KEEP_ERRNO(set_connected(PUG_CURRENT, conn, caller));
}

void PQfinish(PGconn *conn)
{
    NEXT(PQfinish, );
    if (!inside && conn && run_on())
        KEEP_ERRNO({
            struct connection *c = handles_take(&connections, conn);
            connected(c, conn, "cancelled", caller);
            if (c)
                commands_end_all(&c->commands, "the connection was closed");
            free(c);
        });
    real(conn);
}

/* ---- queries that wait ---- */

/* libpq throws away what is left of earlier ones. */
static void earlier_are_over(const PGconn *conn)
{
    struct connection *c = handles_find(&connections, conn);
    if (c)
        commands_end_all(&c->commands, NULL);
}

static char *commented(const char *sql, const struct pug_context *context)
{
    return run_sql_comment() ? run_sql_with_comment(sql, context) : NULL;
}

PGresult *PQexec(PGconn *conn, const char *sql)
{
    NEXT(PQexec, NULL);
    char *text = NULL;
    if (inside || !conn || !run_on())
        return real(conn, sql);
    PUG_SPAN("postgresql", PUG_KIND(PUG_KIND_CLIENT));
    KEEP_ERRNO({
        earlier_are_over(conn);
        set_query(PUG_CURRENT, conn, sql, caller);
        text = commented(sql, NULL);
    });
    PGresult *result = real(conn, text ? text : sql);
    KEEP_ERRNO({
        free(text);
        set_result(PUG_CURRENT, conn, result, caller);
    });
    return result;
}

PGresult *PQexecParams(PGconn *conn, const char *sql, int n, const Oid *types,
                       const char *const *values, const int *lengths, const int *formats,
                       int format)
{
    NEXT(PQexecParams, NULL);
    char *text = NULL;
    if (inside || !conn || !run_on())
        return real(conn, sql, n, types, values, lengths, formats, format);
    PUG_SPAN("postgresql", PUG_KIND(PUG_KIND_CLIENT));
    KEEP_ERRNO({
        earlier_are_over(conn);
        set_query(PUG_CURRENT, conn, sql, caller);
        text = commented(sql, NULL);
    });
    PGresult *result = real(conn, text ? text : sql, n, types, values, lengths, formats, format);
    KEEP_ERRNO({
        free(text);
        set_result(PUG_CURRENT, conn, result, caller);
    });
    return result;
}

PGresult *PQprepare(PGconn *conn, const char *name, const char *sql, int n, const Oid *types)
{
    NEXT(PQprepare, NULL);
    if (inside || !conn || !run_on())
        return real(conn, name, sql, n, types);
    PUG_SPAN("postgresql", PUG_KIND(PUG_KIND_CLIENT));
    KEEP_ERRNO({
        earlier_are_over(conn);
        set_query(PUG_CURRENT, conn, sql, caller);
        pug_set_name(PUG_CURRENT, "PREPARE");
        pug_set_str(PUG_CURRENT, "db.operation.name", "PREPARE");
    });
    PGresult *result = real(conn, name, sql, n, types);
    KEEP_ERRNO(set_result(PUG_CURRENT, conn, result, caller));
    return result;
}

PGresult *PQexecPrepared(PGconn *conn, const char *name, int n, const char *const *values,
                         const int *lengths, const int *formats, int format)
{
    NEXT(PQexecPrepared, NULL);
    if (inside || !conn || !run_on())
        return real(conn, name, n, values, lengths, formats, format);
    PUG_SPAN("postgresql", PUG_KIND(PUG_KIND_CLIENT));
    KEEP_ERRNO({
        earlier_are_over(conn);
        set_prepared(PUG_CURRENT, conn, name, caller);
    });
    PGresult *result = real(conn, name, n, values, lengths, formats, format);
    KEEP_ERRNO(set_result(PUG_CURRENT, conn, result, caller));
    return result;
}

/* ---- queries that do not ---- */

static struct pug_span *sending(PGconn *conn)
{
    struct connection *c = connection_of(conn);
    struct pug_span *span = c ? commands_add(&c->commands) : NULL;
    if (span)
        pug_span_start(span, "postgresql", PUG_KIND(PUG_KIND_CLIENT));
    return span;
}

static void sent(PGconn *conn, struct pug_span *span, int ok, const void *from)
{
    struct connection *c = span && !ok ? handles_find(&connections, conn) : NULL;
    if (!c)
        return;
    set_failed(span, conn, "not sent", from);
    commands_end_last(&c->commands);
}

int PQsendQuery(PGconn *conn, const char *sql)
{
    NEXT(PQsendQuery, 0);
    struct pug_span *span = NULL;
    char *text = NULL;
    if (inside || !conn || !run_on())
        return real(conn, sql);
    KEEP_ERRNO({
        span = sending(conn);
        if (span) {
            set_query(span, conn, sql, caller);
            text = commented(sql, &span->context);
        }
    });
    int ok = real(conn, text ? text : sql);
    KEEP_ERRNO({
        free(text);
        sent(conn, span, ok, caller);
    });
    return ok;
}

int PQsendQueryParams(PGconn *conn, const char *sql, int n, const Oid *types,
                      const char *const *values, const int *lengths, const int *formats, int format)
{
    NEXT(PQsendQueryParams, 0);
    struct pug_span *span = NULL;
    char *text = NULL;
    if (inside || !conn || !run_on())
        return real(conn, sql, n, types, values, lengths, formats, format);
    KEEP_ERRNO({
        span = sending(conn);
        if (span) {
            set_query(span, conn, sql, caller);
            text = commented(sql, &span->context);
        }
    });
    int ok = real(conn, text ? text : sql, n, types, values, lengths, formats, format);
    KEEP_ERRNO({
        free(text);
        sent(conn, span, ok, caller);
    });
    return ok;
}

int PQsendPrepare(PGconn *conn, const char *name, const char *sql, int n, const Oid *types)
{
    NEXT(PQsendPrepare, 0);
    struct pug_span *span = NULL;
    if (inside || !conn || !run_on())
        return real(conn, name, sql, n, types);
    KEEP_ERRNO({
        span = sending(conn);
        if (span) {
            set_query(span, conn, sql, caller);
            pug_set_name(span, "PREPARE");
            pug_set_str(span, "db.operation.name", "PREPARE");
        }
    });
    int ok = real(conn, name, sql, n, types);
    KEEP_ERRNO(sent(conn, span, ok, caller));
    return ok;
}

int PQsendQueryPrepared(PGconn *conn, const char *name, int n, const char *const *values,
                        const int *lengths, const int *formats, int format)
{
    NEXT(PQsendQueryPrepared, 0);
    struct pug_span *span = NULL;
    if (inside || !conn || !run_on())
        return real(conn, name, n, values, lengths, formats, format);
    KEEP_ERRNO({
        span = sending(conn);
        if (span)
            set_prepared(span, conn, name, caller);
    });
    int ok = real(conn, name, n, values, lengths, formats, format);
    KEEP_ERRNO(sent(conn, span, ok, caller));
    return ok;
}

PGresult *PQgetResult(PGconn *conn)
{
    NEXT(PQgetResult, NULL);
    PGresult *result = real(conn);
    if (inside || !conn || !run_on())
        return result;
    KEEP_ERRNO({
        struct connection *c = handles_find(&connections, conn);
        struct pug_span *span = c ? commands_first(&c->commands) : NULL;
        if (span && result)
            set_result(span, conn, result, caller);
        else if (span)
            commands_end_first(&c->commands);
    });
    return result;
}
