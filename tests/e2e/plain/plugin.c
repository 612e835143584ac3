/* A plugin that brings SQLite along: three statements, and what they should give. */
#include <sqlite3.h>

int work(void);

int work(void)
{
    sqlite3 *db;
    sqlite3_stmt *stmt;
    int n = -1;
    if (sqlite3_open(":memory:", &db) != SQLITE_OK)
        return -1;
    if (sqlite3_exec(db, "CREATE TABLE t(a)", 0, 0, 0) == SQLITE_OK &&
        sqlite3_exec(db, "INSERT INTO t VALUES(1),(2)", 0, 0, 0) == SQLITE_OK &&
        sqlite3_prepare_v2(db, "SELECT sum(a) FROM t", -1, &stmt, 0) == SQLITE_OK) {
        if (sqlite3_step(stmt) == SQLITE_ROW)
            n = sqlite3_column_int(stmt, 0);
        sqlite3_finalize(stmt);
    }
    sqlite3_close(db);
    return n;
}
