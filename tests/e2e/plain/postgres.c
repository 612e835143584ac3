/* libpq in its ways: `postgres CONNINFO`. */
#include <libpq-fe.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void show(const char *what, PGresult *r)
{
    printf("%s: %s %d %s\n", what, PQresStatus(PQresultStatus(r)), PQntuples(r),
           PQresultStatus(r) == PGRES_TUPLES_OK && PQntuples(r) ? PQgetvalue(r, 0, 0) : "");
    PQclear(r);
}

static PGconn *connect_slowly(const char *info)
{
    PGconn *conn = PQconnectStart(info);
    PostgresPollingStatusType state = PGRES_POLLING_WRITING;
    while (conn && state != PGRES_POLLING_OK && state != PGRES_POLLING_FAILED) {
        struct pollfd p = {.fd = PQsocket(conn),
                           .events = state == PGRES_POLLING_READING ? POLLIN : POLLOUT};
        poll(&p, 1, 5000);
        state = PQconnectPoll(conn);
    }
    return conn;
}

int main(int argc, char **argv)
{
    const char *values[] = {"41"};
    PGresult *r;
    if (argc < 2)
        return 2;
    PGconn *bad = PQconnectdb("host=/nonexistent");
    printf("bad: %d\n", PQstatus(bad));
    PQfinish(bad);
    PGconn *conn = PQconnectdb(argv[1]);
    if (PQstatus(conn) != CONNECTION_OK) {
        fprintf(stderr, "%s", PQerrorMessage(conn));
        return 1;
    }
    show("exec", PQexec(conn, "CREATE TEMP TABLE t(a int, b text)"));
    show("insert", PQexec(conn, "INSERT INTO t VALUES(1, 'it''s secret')"));
    show("params", PQexecParams(conn, "SELECT $1::int + 1", 1, NULL, values, NULL, NULL, 0));
    show("prepare", PQprepare(conn, "plus", "SELECT $1::int + 2", 1, NULL));
    show("prepared", PQexecPrepared(conn, "plus", 1, values, NULL, NULL, 0));
    show("wrong", PQexec(conn, "SELECT 'secret'::int"));
    show("comment",
         PQexec(conn, "SELECT query LIKE '%trace' || 'parent=%' FROM pg_stat_activity WHERE "
                      "pid = pg_backend_pid()"));
    if (!PQsendQuery(conn, "SELECT 1; SELECT 2"))
        return 1;
    while ((r = PQgetResult(conn)) != NULL)
        show("sent", r);
    PQenterPipelineMode(conn);
    PQsendQueryParams(conn, "SELECT $1::int", 1, NULL, values, NULL, NULL, 0);
    PQsendQueryPrepared(conn, "plus", 1, values, NULL, NULL, 0);
    PQsendPrepare(conn, "minus", "SELECT $1::int - 1", 1, NULL);
    PQpipelineSync(conn);
    for (int nulls = 0; nulls < 3;) {
        r = PQgetResult(conn);
        if (r)
            show("pipeline", r);
        else
            nulls++;
    }
    show("sync", PQgetResult(conn));
    PQexitPipelineMode(conn);
    PQfinish(conn);
    conn = connect_slowly(argv[1]);
    printf("slowly: %d\n", PQstatus(conn));
    PQfinish(conn);
    return 0;
}
