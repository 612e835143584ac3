#include "store/local/catalogue.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    APPLICATION_ID = 0x50554743, /* "PUGC" */
    VERSION = 1,
};

/* Times and sequences are unsigned 64 bit; SQLite keeps the same bits as a signed number. */
static const char schema[] =
    "CREATE TABLE position(sealed INTEGER NOT NULL);"
    "INSERT INTO position VALUES(0);"
    "CREATE TABLE segments("
    " id INTEGER PRIMARY KEY,"    /* the order of sealing */
    " name TEXT NOT NULL UNIQUE," /* of the file */
    " bytes INTEGER NOT NULL,"
    " spans INTEGER NOT NULL,"
    " traces INTEGER NOT NULL,"
    " start_min INTEGER NOT NULL," /* of the spans' starts, nanoseconds since the epoch */
    " start_max INTEGER NOT NULL,"
    " sealed INTEGER NOT NULL);"; /* log sequence up to which it covers */

struct catalogue {
    sqlite3 *db;
    sqlite3_stmt *insert, *advance;
};

static int err_from_sqlite(int code)
{
    switch (code & 0xff) {
    case SQLITE_OK:
    case SQLITE_DONE:
    case SQLITE_ROW:
        return 0;
    case SQLITE_NOMEM:
        return ERR_NOMEM;
    case SQLITE_FULL:
        return ERR_FULL;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return ERR_CORRUPT;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return ERR_BUSY;
    default:
        return ERR_IO;
    }
}

static int run(struct catalogue *c, const char *sql)
{
    return err_from_sqlite(sqlite3_exec(c->db, sql, NULL, NULL, NULL));
}

static int pragma_number(struct catalogue *c, const char *sql, int *ret)
{
    sqlite3_stmt *stmt = NULL;
    int code = sqlite3_prepare_v2(c->db, sql, -1, &stmt, NULL);
    if (code == SQLITE_OK) {
        code = sqlite3_step(stmt);
        if (code == SQLITE_ROW)
            *ret = sqlite3_column_int(stmt, 0);
    }
    sqlite3_finalize(stmt);
    return err_from_sqlite(code);
}

static int schema_init(struct catalogue *c, struct error_detail *detail)
{
    char sql[sizeof schema + 200];
    int version = 0, application = 0;
    int err = pragma_number(c, "PRAGMA user_version", &version);
    if (!err)
        err = pragma_number(c, "PRAGMA application_id", &application);
    if (err)
        return err;
    if (version > VERSION)
        return error_set(detail, ERR_UNSUPPORTED, 0,
                         "catalogue.db has version %d; this program knows %d", version, VERSION);
    if (version == VERSION && application == APPLICATION_ID)
        return 0;
    if (version || application)
        return error_set(detail, ERR_CORRUPT, 0, "catalogue.db is not a catalogue of Pugmark");
    snprintf(sql, sizeof sql,
             "BEGIN IMMEDIATE; %s PRAGMA application_id=%d; PRAGMA user_version=%d; COMMIT;",
             schema, APPLICATION_ID, VERSION);
    err = run(c, sql);
    if (err)
        (void)run(c, "ROLLBACK");
    return err;
}

int catalogue_open(const char *dir, bool sync, struct catalogue **ret,
                   struct error_detail *ret_detail)
{
    struct catalogue *c = calloc(1, sizeof *c);
    char *path = NULL;
    int err = 0;
    if (!c || asprintf(&path, "%s/catalogue.db", dir) < 0) {
        free(c);
        return ERR_NOMEM;
    }
    if (ret_detail)
        *ret_detail = (struct error_detail){0};
    /* SQLite would let everybody read a file that it makes. */
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd >= 0)
        close(fd);
    int code = sqlite3_open_v2(
        path, &c->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL);
    free(path);
    err = err_from_sqlite(code);
    if (!err)
        err = run(c, "PRAGMA journal_mode=TRUNCATE; PRAGMA cache_size=-256;");
    if (!err)
        err = run(c, sync ? "PRAGMA synchronous=FULL" : "PRAGMA synchronous=OFF");
    if (!err)
        err = schema_init(c, ret_detail);
    if (!err)
        err = err_from_sqlite(sqlite3_prepare_v2(
            c->db, "INSERT INTO segments VALUES(?,?,?,?,?,?,?,?)", -1, &c->insert, NULL));
    if (!err)
        err = err_from_sqlite(
            sqlite3_prepare_v2(c->db, "UPDATE position SET sealed=?", -1, &c->advance, NULL));
    if (err) {
        if (ret_detail && !ret_detail->code)
            error_set(ret_detail, err, 0, "catalogue.db: %s", catalogue_error(c));
        catalogue_close(c);
        return err;
    }
    *ret = c;
    return 0;
}

void catalogue_close(struct catalogue *c)
{
    if (!c)
        return;
    sqlite3_finalize(c->insert);
    sqlite3_finalize(c->advance);
    sqlite3_close(c->db);
    free(c);
}

const char *catalogue_error(const struct catalogue *c)
{
    return c->db ? sqlite3_errmsg(c->db) : "out of memory";
}

int catalogue_load(struct catalogue *c, uint64_t *ret_sealed, catalogue_segment_fn *fn, void *arg)
{
    sqlite3_stmt *stmt = NULL;
    uint64_t sealed = 0;
    int err =
        err_from_sqlite(sqlite3_prepare_v2(c->db, "SELECT sealed FROM position", -1, &stmt, NULL));
    if (!err) {
        int code = sqlite3_step(stmt);
        err = code == SQLITE_DONE ? ERR_CORRUPT : err_from_sqlite(code);
        sealed = (uint64_t)sqlite3_column_int64(stmt, 0);
    }
    sqlite3_finalize(stmt);
    if (err)
        return err;
    stmt = NULL;
    err = err_from_sqlite(sqlite3_prepare_v2(
        c->db, "SELECT id,name,bytes,spans,traces,start_min,start_max FROM segments ORDER BY id",
        -1, &stmt, NULL));
    int code = SQLITE_DONE;
    while (!err && (code = sqlite3_step(stmt)) == SQLITE_ROW) {
        struct segment_info info = {
            .id = (uint64_t)sqlite3_column_int64(stmt, 0),
            .bytes = (uint64_t)sqlite3_column_int64(stmt, 2),
            .spans = (uint64_t)sqlite3_column_int64(stmt, 3),
            .traces = (uint64_t)sqlite3_column_int64(stmt, 4),
            .start_min_ns = (uint64_t)sqlite3_column_int64(stmt, 5),
            .start_max_ns = (uint64_t)sqlite3_column_int64(stmt, 6),
        };
        const char *name = (const char *)sqlite3_column_text(stmt, 1);
        if (!name || strlen(name) >= sizeof info.name || strchr(name, '/'))
            err = name ? ERR_CORRUPT : ERR_NOMEM;
        else {
            snprintf(info.name, sizeof info.name, "%s", name);
            err = fn(arg, &info);
        }
    }
    sqlite3_finalize(stmt);
    if (!err)
        err = err_from_sqlite(code);
    if (!err)
        *ret_sealed = sealed;
    return err;
}

static int step_once(sqlite3_stmt *stmt)
{
    int code = sqlite3_step(stmt);
    sqlite3_reset(stmt);
    return err_from_sqlite(code);
}

int catalogue_publish(struct catalogue *c, const struct segment_info *info, uint64_t sealed)
{
    const uint64_t numbers[] = {info->bytes,        info->spans,        info->traces,
                                info->start_min_ns, info->start_max_ns, sealed};
    int err = run(c, "BEGIN IMMEDIATE");
    if (err)
        return err;
    sqlite3_bind_int64(c->insert, 1, (sqlite3_int64)info->id);
    int code = sqlite3_bind_text(c->insert, 2, info->name, -1, SQLITE_TRANSIENT);
    for (int i = 0; i < 6; i++)
        sqlite3_bind_int64(c->insert, 3 + i, (sqlite3_int64)numbers[i]);
    err = err_from_sqlite(code);
    if (!err)
        err = step_once(c->insert);
    sqlite3_bind_int64(c->advance, 1, (sqlite3_int64)sealed);
    if (!err)
        err = step_once(c->advance);
    if (!err)
        err = run(c, "COMMIT");
    if (err)
        (void)run(c, "ROLLBACK");
    return err;
}
