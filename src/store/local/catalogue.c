/* docs/formats/catalogue.md has the tables. Each row has a checksum of its own, because SQLite has none:
 * a flipped bit in a number would be believed. */
#include "store/local/catalogue.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/hash.h"

enum {
    APPLICATION_ID = 0x50554743, /* "PUGC" */
    VERSION = 3,
    VERSION_OLD = 1,   /* no checksums, no pins, no counters */
    VERSION_RULES = 3, /* from here on: rules and erasures */
    SETTLE_TRIES = 3,  /* to learn what became of a change */
};

/* Times, sequences and checksums are unsigned 64 bit; SQLite keeps the same bits as a signed number. */
static const char tables_old[] =
    "CREATE TABLE position(sealed INTEGER NOT NULL);"
    "INSERT INTO position VALUES(0);"
    "CREATE TABLE segments("
    " id INTEGER PRIMARY KEY,"    /* the order of making */
    " name TEXT NOT NULL UNIQUE," /* of the file */
    " bytes INTEGER NOT NULL,"
    " spans INTEGER NOT NULL,"
    " traces INTEGER NOT NULL,"
    " start_min INTEGER NOT NULL," /* of the spans' starts, nanoseconds since the epoch */
    " start_max INTEGER NOT NULL,"
    " sealed INTEGER NOT NULL);"; /* the last log record in it */

/* What version 2 added. */
static const char tables_new[] =
    "ALTER TABLE position ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE segments ADD COLUMN first INTEGER NOT NULL DEFAULT 0;" /* log record */
    "ALTER TABLE segments ADD COLUMN made INTEGER NOT NULL DEFAULT 0;"  /* time of sealing */
    "ALTER TABLE segments ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;"
    "CREATE TABLE removed(name TEXT PRIMARY KEY);"
    "CREATE TABLE pins(trace_id BLOB PRIMARY KEY, made INTEGER NOT NULL, checksum INTEGER NOT "
    "NULL);"
    "CREATE TABLE counters(number INTEGER PRIMARY KEY, value INTEGER NOT NULL,"
    " checksum INTEGER NOT NULL);";

/* And version 3. */
static const char tables_rules[] =
    "CREATE TABLE rules(text TEXT PRIMARY KEY, spans INTEGER NOT NULL, checksum INTEGER NOT NULL);"
    "CREATE TABLE erasures(id INTEGER PRIMARY KEY, made INTEGER NOT NULL, last INTEGER NOT NULL,"
    " body BLOB NOT NULL, checksum INTEGER NOT NULL);";

struct catalogue {
    sqlite3 *db;
    int version; /* of what is read */
    atomic_bool
        is_lost; /* nobody knows whether the last change is in it; until it is opened again */
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

static int prepare(struct catalogue *c, const char *sql, sqlite3_stmt **ret)
{
    *ret = NULL;
    return err_from_sqlite(sqlite3_prepare_v2(c->db, sql, -1, ret, NULL));
}

static uint64_t column_u64(sqlite3_stmt *stmt, int i)
{
    return (uint64_t)sqlite3_column_int64(stmt, i);
}

/* ---- checksums of rows ---- */

static uint64_t numbers_checksum(const uint64_t *numbers, size_t n, struct str text)
{
    uint64_t little[16];
    for (size_t i = 0; i < n; i++)
        little[i] = htole64(numbers[i]);
    return hash_bytes_seed(text.ptr ? text.ptr : "", text.len,
                           hash_bytes(little, n * sizeof *little));
}

static uint64_t segment_checksum_of(const struct segment_info *i)
{
    const uint64_t numbers[] = {
        i->id,           i->bytes,         i->spans,          i->traces, i->start_min_ns,
        i->start_max_ns, i->last_sequence, i->first_sequence, i->made_ns};
    return numbers_checksum(numbers, sizeof numbers / sizeof *numbers, str_from(i->name));
}

/* ---- one statement ---- */

struct parameter {
    const void *bytes; /* NULL: the number */
    size_t n;
    bool is_text;
    uint64_t number;
};
#define NUMBER(value) ((struct parameter){.number = (value)})
#define TEXT(value) ((struct parameter){.bytes = (value), .n = strlen(value), .is_text = true})
#define BLOB(value, size) ((struct parameter){.bytes = (value), .n = (size)})

static int execute(struct catalogue *c, const char *sql, const struct parameter *parameters, int n)
{
    sqlite3_stmt *stmt;
    int err = prepare(c, sql, &stmt);
    for (int i = 0; i < n && !err; i++) {
        const struct parameter *p = &parameters[i];
        err = err_from_sqlite(
            !p->bytes    ? sqlite3_bind_int64(stmt, i + 1, (sqlite3_int64)p->number)
            : p->is_text ? sqlite3_bind_text(stmt, i + 1, p->bytes, (int)p->n, SQLITE_TRANSIENT)
                         : sqlite3_bind_blob(stmt, i + 1, p->bytes, (int)p->n, SQLITE_TRANSIENT));
    }
    if (!err)
        err = err_from_sqlite(sqlite3_step(stmt));
    sqlite3_finalize(stmt);
    return err;
}

/* Calls `fn` for each row. */
typedef int row_fn(void *arg, sqlite3_stmt *row);
static int rows_each(struct catalogue *c, const char *sql, row_fn *fn, void *arg)
{
    sqlite3_stmt *stmt;
    int code = SQLITE_DONE, err = prepare(c, sql, &stmt);
    while (!err && (code = sqlite3_step(stmt)) == SQLITE_ROW)
        err = fn(arg, stmt);
    sqlite3_finalize(stmt);
    return err ? err : err_from_sqlite(code);
}

/* ---- opening ---- */

static int take_number(void *arg, sqlite3_stmt *row)
{
    *(int *)arg = sqlite3_column_int(row, 0);
    return 0;
}

static int position_put(struct catalogue *c, uint64_t sealed)
{
    const struct parameter parameters[] = {NUMBER(sealed),
                                           NUMBER(numbers_checksum(&sealed, 1, STR_NONE))};
    return execute(c, "UPDATE position SET sealed=?, checksum=?", parameters, 2);
}

static int segment_put(struct catalogue *c, const struct segment_info *i)
{
    const struct parameter parameters[] = {NUMBER(i->id),
                                           TEXT(i->name),
                                           NUMBER(i->bytes),
                                           NUMBER(i->spans),
                                           NUMBER(i->traces),
                                           NUMBER(i->start_min_ns),
                                           NUMBER(i->start_max_ns),
                                           NUMBER(i->last_sequence),
                                           NUMBER(i->first_sequence),
                                           NUMBER(i->made_ns),
                                           NUMBER(segment_checksum_of(i))};
    return execute(c,
                   "INSERT OR REPLACE INTO segments(id,name,bytes,spans,traces,start_min,start_max,"
                   "sealed,first,made,checksum) VALUES(?,?,?,?,?,?,?,?,?,?,?)",
                   parameters, 11);
}

struct upgrade {
    struct segment_info *infos;
    size_t n, cap;
    uint64_t sealed; /* of the segment before */
};

static int upgrade_see(void *arg, const struct segment_info *info, bool is_damaged)
{
    struct upgrade *u = arg;
    if (u->n == u->cap) {
        size_t cap = u->cap ? u->cap * 2 : 64;
        struct segment_info *more = realloc(u->infos, cap * sizeof *more);
        if (!more)
            return ERR_NOMEM;
        u->infos = more;
        u->cap = cap;
    }
    u->infos[u->n] = *info;
    u->infos[u->n++].first_sequence = u->sealed + 1;
    u->sealed = info->last_sequence;
    return 0;
}

/* Rows of version 1 have no checksums: they are believed this once. */
static int upgrade_old(struct catalogue *c)
{
    struct upgrade u = {0};
    struct catalogue_position position;
    int err = catalogue_segments(c, upgrade_see, &u);
    if (!err)
        err = catalogue_position(c, &position);
    if (!err)
        err = run(c, tables_new);
    c->version = VERSION;
    for (size_t i = 0; i < u.n && !err; i++)
        err = segment_put(c, &u.infos[i]);
    if (!err)
        err = position_put(c, position.sealed);
    free(u.infos);
    return err;
}

/* In a transaction, from `version`. */
static int upgrade(struct catalogue *c, int version)
{
    c->version = version;
    int err = version == VERSION_OLD ? upgrade_old(c) : 0;
    if (!err)
        err = run(c, tables_rules);
    c->version = VERSION;
    return err;
}

static int version_set(struct catalogue *c)
{
    char sql[100];
    snprintf(sql, sizeof sql, "PRAGMA application_id=%d; PRAGMA user_version=%d;", APPLICATION_ID,
             VERSION);
    return run(c, sql);
}

static int schema_init(struct catalogue *c, enum catalogue_mode mode, struct error_detail *detail)
{
    int version = 0, application = 0;
    int err = rows_each(c, "PRAGMA user_version", take_number, &version);
    if (!err)
        err = rows_each(c, "PRAGMA application_id", take_number, &application);
    if (err)
        return err;
    if (version > VERSION)
        return error_set(detail, ERR_UNSUPPORTED, 0,
                         "catalogue.db has version %d; this program knows %d", version, VERSION);
    c->version = version;
    bool is_ours = version >= VERSION_OLD && application == APPLICATION_ID;
    if (is_ours && (version == VERSION || mode == CATALOGUE_READ))
        return 0;
    if (!is_ours && (version || application))
        return error_set(detail, ERR_CORRUPT, 0, "catalogue.db is not a catalogue of Pugmark");
    if (mode == CATALOGUE_READ)
        return error_set(detail, ERR_CORRUPT, 0, "catalogue.db is empty");
    err = run(c, "BEGIN IMMEDIATE");
    if (!err && !is_ours)
        err = run(c, tables_old);
    if (!err)
        err = upgrade(c, is_ours ? version : VERSION_OLD);
    if (!err)
        err = version_set(c);
    if (!err)
        err = run(c, "COMMIT");
    if (err)
        (void)run(c, "ROLLBACK");
    return err;
}

static int file_prepare(const char *path, enum catalogue_mode mode)
{
    if (mode == CATALOGUE_READ)
        return access(path, R_OK) ? err_from_errno(errno) : 0;
    /* SQLite would let everybody read a file that it makes. */
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd >= 0)
        close(fd);
    return 0; /* SQLite says what is wrong */
}

int catalogue_open(const char *dir, enum catalogue_mode mode, struct catalogue **ret,
                   struct error_detail *ret_detail)
{
    struct catalogue *c = calloc(1, sizeof *c);
    char *path = NULL;
    if (!c || asprintf(&path, "%s/catalogue.db", dir) < 0) {
        free(c);
        return error_set(ret_detail, ERR_NOMEM, 0, "%s", err_text(ERR_NOMEM));
    }
    if (ret_detail)
        *ret_detail = (struct error_detail){0};
    int flags = mode == CATALOGUE_READ ? SQLITE_OPEN_READONLY
                                       : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
    int err = file_prepare(path, mode);
    if (!err)
        err = err_from_sqlite(sqlite3_open_v2(path, &c->db, flags | SQLITE_OPEN_NOMUTEX, NULL));
    free(path);
    if (!err && mode != CATALOGUE_READ)
        err = run(c, "PRAGMA journal_mode=TRUNCATE; PRAGMA cache_size=-256; "
                     "PRAGMA secure_delete=ON"); /* what an erasure named is gone with it */
    if (!err && mode != CATALOGUE_READ)
        err = run(c, mode == CATALOGUE_SYNC ? "PRAGMA synchronous=FULL" : "PRAGMA synchronous=OFF");
    if (!err)
        err = schema_init(c, mode, ret_detail);
    if (err) {
        if (ret_detail && !ret_detail->code)
            error_set(ret_detail, err, 0, "catalogue.db: %s",
                      c->db ? catalogue_error(c) : err_text(err));
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
    sqlite3_close(c->db);
    free(c);
}

const char *catalogue_error(const struct catalogue *c)
{
    return c->db ? sqlite3_errmsg(c->db) : "out of memory";
}

/* ---- reading ---- */

struct position_read {
    struct catalogue *c;
    struct catalogue_position *ret;
    int n;
};

static int position_see(void *arg, sqlite3_stmt *row)
{
    struct position_read *r = arg;
    uint64_t sealed = column_u64(row, 0);
    *r->ret = (struct catalogue_position){sealed, r->c->version != VERSION_OLD &&
                                                      column_u64(row, 1) !=
                                                          numbers_checksum(&sealed, 1, STR_NONE)};
    r->n++;
    return 0;
}

int catalogue_position(struct catalogue *c, struct catalogue_position *ret)
{
    struct position_read r = {c, ret, 0};
    int err = rows_each(c,
                        c->version == VERSION_OLD ? "SELECT sealed FROM position"
                                                  : "SELECT sealed,checksum FROM position",
                        position_see, &r);
    return err ? err : r.n == 1 ? 0 : ERR_CORRUPT;
}

struct segments_read {
    struct catalogue *c;
    catalogue_segment_fn *fn;
    void *arg;
};

static int segment_see(void *arg, sqlite3_stmt *row)
{
    struct segments_read *r = arg;
    bool old = r->c->version == VERSION_OLD;
    struct segment_info info = {
        .id = column_u64(row, 0),
        .bytes = column_u64(row, 2),
        .spans = column_u64(row, 3),
        .traces = column_u64(row, 4),
        .start_min_ns = column_u64(row, 5),
        .start_max_ns = column_u64(row, 6),
        .last_sequence = column_u64(row, 7),
        .first_sequence = old ? 0 : column_u64(row, 8),
        .made_ns = old ? 0 : column_u64(row, 9),
    };
    const char *name = (const char *)sqlite3_column_text(row, 1);
    if (!name)
        return ERR_NOMEM;
    bool named = strlen(name) < sizeof info.name && !strchr(name, '/');
    snprintf(info.name, sizeof info.name, "%s", named ? name : "");
    bool damaged = !named || (!old && column_u64(row, 10) != segment_checksum_of(&info));
    return r->fn(r->arg, &info, damaged);
}

int catalogue_segments(struct catalogue *c, catalogue_segment_fn *fn, void *arg)
{
    struct segments_read r = {c, fn, arg};
    return rows_each(
        c,
        c->version == VERSION_OLD
            ? "SELECT id,name,bytes,spans,traces,start_min,start_max,sealed"
              " FROM segments ORDER BY id"
            : "SELECT id,name,bytes,spans,traces,start_min,start_max,sealed,first,made,"
              "checksum FROM segments ORDER BY sealed,id",
        segment_see, &r);
}

struct removed_read {
    catalogue_removed_fn *fn;
    void *arg;
};

static int removed_see(void *arg, sqlite3_stmt *row)
{
    struct removed_read *r = arg;
    const char *name = (const char *)sqlite3_column_text(row, 0);
    return name ? r->fn(r->arg, name) : ERR_NOMEM;
}

int catalogue_removed(struct catalogue *c, catalogue_removed_fn *fn, void *arg)
{
    struct removed_read r = {fn, arg};
    if (c->version == VERSION_OLD)
        return 0;
    return rows_each(c, "SELECT name FROM removed", removed_see, &r);
}

int catalogue_forget_removed(struct catalogue *c)
{
    return run(c, "DELETE FROM removed");
}

static uint64_t counter_checksum(uint64_t number, uint64_t value)
{
    const uint64_t numbers[] = {number, value};
    return numbers_checksum(numbers, 2, STR_NONE);
}

static int counter_see(void *arg, sqlite3_stmt *row)
{
    uint64_t *counters = arg, number = column_u64(row, 0), value = column_u64(row, 1);
    if (column_u64(row, 2) != counter_checksum(number, value))
        return ERR_CORRUPT;
    if (number < COUNTERS)
        counters[number] = value;
    return 0;
}

int catalogue_counters(struct catalogue *c, uint64_t ret[COUNTERS])
{
    memset(ret, 0, COUNTERS * sizeof *ret);
    if (c->version == VERSION_OLD)
        return 0;
    return rows_each(c, "SELECT number,value,checksum FROM counters", counter_see, ret);
}

/* ---- rules ---- */

static uint64_t rule_checksum(const char *text, uint64_t spans)
{
    return numbers_checksum(&spans, 1, str_from(text));
}

struct rules_read {
    catalogue_rule_fn *fn;
    void *arg;
};

static int rule_see(void *arg, sqlite3_stmt *row)
{
    struct rules_read *r = arg;
    const char *text = (const char *)sqlite3_column_text(row, 0);
    uint64_t spans = column_u64(row, 1);
    if (!text)
        return ERR_NOMEM;
    return r->fn(r->arg, text, spans, column_u64(row, 2) != rule_checksum(text, spans));
}

int catalogue_rules(struct catalogue *c, catalogue_rule_fn *fn, void *arg)
{
    struct rules_read r = {fn, arg};
    if (c->version < VERSION_RULES)
        return 0;
    return rows_each(c, "SELECT text,spans,checksum FROM rules ORDER BY text", rule_see, &r);
}

static int rule_put(struct catalogue *c, const char *text, uint64_t spans)
{
    const struct parameter parameters[] = {TEXT(text), NUMBER(spans),
                                           NUMBER(rule_checksum(text, spans))};
    return execute(c, "INSERT OR REPLACE INTO rules VALUES(?,?,?)", parameters, 3);
}

/* ---- changing ---- */

static int counters_put(struct catalogue *c, const uint64_t add[COUNTERS])
{
    uint64_t now[COUNTERS];
    int err = 0;
    bool read = false;
    for (uint64_t i = 0; i < COUNTERS && !err; i++) {
        if (!add[i])
            continue;
        if (!read) {
            /* A damaged sum is begun anew: it must not keep spans from being sealed. */
            err = catalogue_counters(c, now);
            if (err == ERR_CORRUPT) {
                memset(now, 0, sizeof now);
                err = run(c, "DELETE FROM counters");
            }
            read = true;
        }
        now[i] += err ? 0 : add[i];
        const struct parameter parameters[] = {NUMBER(i), NUMBER(now[i]),
                                               NUMBER(counter_checksum(i, now[i]))};
        if (!err)
            err = execute(c, "INSERT OR REPLACE INTO counters VALUES(?,?,?)", parameters, 3);
    }
    return err;
}

static int change_apply(struct catalogue *c, const struct catalogue_change *change)
{
    int err = change->add ? segment_put(c, change->add) : 0;
    for (size_t i = 0; i < change->n_remove && !err; i++) {
        const struct parameter name = TEXT(change->remove[i]->name);
        err = execute(c, "DELETE FROM segments WHERE name=?", &name, 1);
        if (!err)
            err = execute(c, "INSERT OR REPLACE INTO removed VALUES(?)", &name, 1);
    }
    if (!err && change->sealed)
        err = position_put(c, change->sealed);
    for (size_t i = 0; i < change->n_rules && !err; i++)
        err = rule_put(c, change->rules[i].text, change->rules[i].spans);
    return err ? err : counters_put(c, change->counters);
}

struct sought {
    const char *name;
    bool is_there;
};

static int name_see(void *arg, sqlite3_stmt *row)
{
    struct sought *sought = arg;
    const char *name = (const char *)sqlite3_column_text(row, 0);
    if (!name)
        return ERR_NOMEM;
    sought->is_there |= strcmp(name, sought->name) == 0;
    return 0;
}

/* Whether it is in the file, by the segment that it adds, or by one that it takes out. */
static int is_applied(struct catalogue *c, const struct catalogue_change *change, bool *ret)
{
    struct sought sought = {change->add ? change->add->name : change->remove[0]->name, false};
    int err = rows_each(c, "SELECT name FROM segments", name_see, &sought);
    if (!err)
        *ret = sought.is_there == (change->add != NULL);
    return err;
}

/* Ends a transaction. An error of COMMIT does not say that nothing happened: what fails last is the sync of a
 * journal that is cut off already, and then the change is in the file, and only a power cut can take it out. Who took
 * it for refused would remove a file that the catalogue has. So it is looked for, and made to stay. */
static int commit(struct catalogue *c, const struct catalogue_change *change)
{
    int err = run(c, "COMMIT");
    if (!err)
        return 0;
    (void)run(c, "ROLLBACK"); /* when there is still something under way */
    if (!change->add && !change->n_remove)
        return err;
    for (int i = 0; i < SETTLE_TRIES; i++) {
        bool applied;
        if (is_applied(c, change, &applied))
            continue;
        if (!applied)
            return err;
        if (!run(c, "BEGIN IMMEDIATE") && !version_set(c) && !run(c, "COMMIT"))
            return 0; /* its own journal was written, synced and cut off behind it */
        (void)run(c, "ROLLBACK");
    }
    atomic_store(&c->is_lost, true);
    return err;
}

int catalogue_change(struct catalogue *c, const struct catalogue_change *change)
{
    if (atomic_load(&c->is_lost))
        return ERR_IO;
    int err = run(c, "BEGIN IMMEDIATE");
    if (err)
        return err;
    err = change_apply(c, change);
    if (!err)
        return commit(c, change);
    (void)run(c, "ROLLBACK");
    return err;
}

bool catalogue_is_lost(const struct catalogue *c)
{
    return atomic_load(&c->is_lost);
}

/* ---- pins ---- */

static uint64_t pin_checksum(const void *id, uint64_t made_ns)
{
    return numbers_checksum(&made_ns, 1, (struct str){id, TRACE_ID_SIZE});
}

int catalogue_pin(struct catalogue *c, const struct trace_id *id, uint64_t now_ns)
{
    const struct parameter parameters[] = {BLOB(id->bytes, TRACE_ID_SIZE), NUMBER(now_ns),
                                           NUMBER(pin_checksum(id->bytes, now_ns))};
    return execute(c, "INSERT OR REPLACE INTO pins VALUES(?,?,?)", parameters, 3);
}

int catalogue_unpin(struct catalogue *c, const struct trace_id *id)
{
    const struct parameter parameter = BLOB(id->bytes, TRACE_ID_SIZE);
    int err = execute(c, "DELETE FROM pins WHERE trace_id=?", &parameter, 1);
    return err ? err : sqlite3_changes(c->db) ? 0 : ERR_NOT_FOUND;
}

struct pins_read {
    catalogue_pin_fn *fn;
    void *arg;
};

static int pin_see(void *arg, sqlite3_stmt *row)
{
    struct pins_read *r = arg;
    struct trace_id id = {{0}};
    const void *bytes = sqlite3_column_blob(row, 0);
    bool whole = bytes && sqlite3_column_bytes(row, 0) == TRACE_ID_SIZE;
    if (whole)
        memcpy(id.bytes, bytes, TRACE_ID_SIZE);
    uint64_t made = column_u64(row, 1);
    return r->fn(r->arg, &id, made, !whole || column_u64(row, 2) != pin_checksum(id.bytes, made));
}

int catalogue_pins(struct catalogue *c, catalogue_pin_fn *fn, void *arg)
{
    struct pins_read r = {fn, arg};
    if (c->version == VERSION_OLD)
        return 0;
    return rows_each(c, "SELECT trace_id,made,checksum FROM pins ORDER BY trace_id", pin_see, &r);
}

/* ---- erasures ---- */

static uint64_t erasure_checksum(const struct catalogue_erasure *e)
{
    const uint64_t numbers[] = {e->id, e->made_ns, e->last_sequence};
    return numbers_checksum(numbers, 3, e->body);
}

int catalogue_erasure_add(struct catalogue *c, const struct catalogue_erasure *e)
{
    const struct parameter parameters[] = {NUMBER(e->id), NUMBER(e->made_ns),
                                           NUMBER(e->last_sequence), BLOB(e->body.ptr, e->body.len),
                                           NUMBER(erasure_checksum(e))};
    return execute(c, "INSERT INTO erasures VALUES(?,?,?,?,?)", parameters, 5);
}

int catalogue_erasure_remove(struct catalogue *c, uint64_t id)
{
    const struct parameter parameter = NUMBER(id);
    return execute(c, "DELETE FROM erasures WHERE id=?", &parameter, 1);
}

struct erasures_read {
    catalogue_erasure_fn *fn;
    void *arg;
};

static int erasure_see(void *arg, sqlite3_stmt *row)
{
    struct erasures_read *r = arg;
    const struct catalogue_erasure e = {
        .id = column_u64(row, 0),
        .made_ns = column_u64(row, 1),
        .last_sequence = column_u64(row, 2),
        .body = {sqlite3_column_blob(row, 3), (size_t)sqlite3_column_bytes(row, 3)},
    };
    return r->fn(r->arg, &e, column_u64(row, 4) != erasure_checksum(&e));
}

int catalogue_erasures(struct catalogue *c, catalogue_erasure_fn *fn, void *arg)
{
    struct erasures_read r = {fn, arg};
    if (c->version < VERSION_RULES)
        return 0;
    return rows_each(c, "SELECT id,made,last,body,checksum FROM erasures ORDER BY id", erasure_see,
                     &r);
}

/* ---- checking ---- */

static int check_see(void *arg, sqlite3_stmt *row)
{
    const char *said = (const char *)sqlite3_column_text(row, 0);
    if (!said)
        return ERR_NOMEM;
    return strcmp(said, "ok") ? error_set(arg, ERR_CORRUPT, 0, "catalogue.db: %s", said) : 0;
}

int catalogue_check(struct catalogue *c, struct error_detail *ret_detail)
{
    int err = rows_each(c, "PRAGMA integrity_check(1)", check_see, ret_detail);
    if (err && ret_detail && !ret_detail->code)
        error_set(ret_detail, err, 0, "catalogue.db: %s", catalogue_error(c));
    return err;
}
