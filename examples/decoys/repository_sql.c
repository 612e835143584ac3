#include "repository_sql.h"

const char repository_schema[] =
    "CREATE TABLE IF NOT EXISTS logs("
    /* AUTOINCREMENT: ids go on after a reinit, so that nobody who remembers one waits for ever */
    " id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp TEXT NOT NULL, decky TEXT NOT NULL,"
    " service TEXT NOT NULL, event_type TEXT NOT NULL, attacker_ip TEXT NOT NULL, message TEXT NOT "
    "NULL,"
    " fields TEXT NOT NULL, source TEXT NOT NULL, source_offset INTEGER NOT NULL,"
    " trace_id TEXT, span_id TEXT, UNIQUE(source, source_offset)) STRICT;"
    "CREATE INDEX IF NOT EXISTS logs_by_attacker ON logs(attacker_ip, id);"
    "CREATE TABLE IF NOT EXISTS bounties("
    " id INTEGER PRIMARY KEY, timestamp TEXT NOT NULL, decky TEXT NOT NULL, service TEXT NOT NULL,"
    " attacker_ip TEXT NOT NULL, type TEXT NOT NULL, payload TEXT NOT NULL,"
    " UNIQUE(attacker_ip, type, payload)) STRICT;"
    "CREATE TABLE IF NOT EXISTS attackers("
    " uuid TEXT PRIMARY KEY, ip TEXT NOT NULL UNIQUE, first_seen TEXT NOT NULL,"
    " last_seen TEXT NOT NULL, event_count INTEGER NOT NULL, service_count INTEGER NOT NULL,"
    " decky_count INTEGER NOT NULL, services TEXT NOT NULL, deckies TEXT NOT NULL) STRICT;"
    "CREATE TABLE IF NOT EXISTS attacker_behavior("
    " ip TEXT PRIMARY KEY, record TEXT NOT NULL, summary TEXT NOT NULL) STRICT;"
    "CREATE TABLE IF NOT EXISTS traversals(ip TEXT PRIMARY KEY, report TEXT NOT NULL) STRICT;"
    "CREATE TABLE IF NOT EXISTS cursors("
    " worker TEXT NOT NULL, source TEXT NOT NULL, position INTEGER NOT NULL,"
    " PRIMARY KEY(worker, source)) STRICT;"
    "CREATE TABLE IF NOT EXISTS users("
    " uuid TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, role TEXT NOT NULL,"
    " password_hash TEXT NOT NULL, must_change INTEGER NOT NULL) STRICT;"
    "CREATE TABLE IF NOT EXISTS sessions(token TEXT PRIMARY KEY, user TEXT NOT NULL) STRICT;"
    "CREATE TABLE IF NOT EXISTS settings(key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;"
    "CREATE TABLE IF NOT EXISTS deckies("
    " name TEXT PRIMARY KEY, service TEXT NOT NULL, banner TEXT, port INTEGER NOT NULL,"
    " mutate_interval_s INTEGER, mutated_at INTEGER NOT NULL) STRICT;"
    "CREATE TABLE IF NOT EXISTS probes("
    " ip TEXT NOT NULL, port INTEGER NOT NULL, kind TEXT NOT NULL, hash TEXT NOT NULL,"
    " text TEXT NOT NULL, probed_at INTEGER NOT NULL, PRIMARY KEY(ip, port, kind)) STRICT;";

#define LOG_COLUMNS                                                                                \
    "id,timestamp,decky,service,event_type,attacker_ip,message,fields,source,source_offset,"       \
    "trace_id,span_id"

/* Whose own interval, or else everybody's, is over; 0 is never. */
#define DUE                                                                                        \
    " WHERE coalesce(mutate_interval_s,(SELECT value FROM settings"                                \
    " WHERE key='global_mutation_interval_s'),0) BETWEEN 1 AND unixepoch()-mutated_at"

/* Whom nobody has probed, and who has been quiet for ?1 seconds. */
#define TARGETS                                                                                    \
    " FROM attackers a WHERE unixepoch(last_seen)<=unixepoch()-?1 AND NOT EXISTS"                  \
    " (SELECT 1 FROM probes p WHERE p.ip=a.ip AND p.kind IN('cycle','refused'))"

const char *const repository_sql[N_STATEMENTS] = {
    [BEGIN] = "BEGIN IMMEDIATE",
    [COMMIT] = "COMMIT",
    [ROLLBACK] = "ROLLBACK",
    [NEWEST_LOG] = "SELECT coalesce(max(id),0) FROM logs",
    [GET_CURSOR] = "SELECT position FROM cursors WHERE worker=?1 AND source=?2",
    [SET_CURSOR] = "INSERT INTO cursors(worker,source,position) VALUES(?1,?2,?3)"
                   " ON CONFLICT DO UPDATE SET position=excluded.position",
    [ADD_LOG] = "INSERT OR IGNORE INTO logs(timestamp,decky,service,event_type,attacker_ip,message,"
                "fields,source,source_offset,trace_id,span_id)"
                " VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11)",
    [ADD_BOUNTY] =
        "INSERT OR IGNORE INTO bounties(timestamp,decky,service,attacker_ip,type,payload)"
        " VALUES(?1,?2,?3,?4,?5,?6)",
    [GET_LOGS_AFTER] = "SELECT " LOG_COLUMNS " FROM logs WHERE id>?1 ORDER BY id LIMIT ?2",
    [GET_LOGS_OF_ATTACKER] =
        "SELECT " LOG_COLUMNS " FROM (SELECT " LOG_COLUMNS
        " FROM logs WHERE attacker_ip=?1 ORDER BY id DESC LIMIT ?2) ORDER BY timestamp, id",
    [UPSERT_ATTACKER] =
        "INSERT INTO attackers(uuid,ip,first_seen,last_seen,event_count,service_count,decky_count,"
        "services,deckies) VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9) ON CONFLICT(ip) DO UPDATE SET "
        "first_seen=min(first_seen,excluded.first_seen),last_seen=excluded.last_seen,"
        "event_count=excluded.event_count,service_count=excluded.service_count,"
        "decky_count=excluded.decky_count,services=excluded.services,deckies=excluded.deckies",
    [UPSERT_BEHAVIOR] = "INSERT INTO attacker_behavior(ip,record,summary) VALUES(?1,?2,?3)"
                        " ON CONFLICT DO UPDATE SET record=excluded.record,"
                        "summary=excluded.summary",
    [UPSERT_TRAVERSAL] = "INSERT INTO traversals(ip,report) VALUES(?1,?2)"
                         " ON CONFLICT DO UPDATE SET report=excluded.report",
    [GET_LOGS] = "SELECT " LOG_COLUMNS " FROM logs WHERE (?1 IS NULL OR attacker_ip=?1) AND "
                 "(?2 IS NULL OR instr(message,?2)>0 OR instr(fields,?2)>0)"
                 " ORDER BY id DESC LIMIT ?3 OFFSET ?4",
    [GET_HISTOGRAM] = "SELECT unixepoch(timestamp)/?1*?1 AS bucket, count(*) AS count FROM logs"
                      " GROUP BY bucket ORDER BY bucket DESC LIMIT 1000",
    [GET_BOUNTIES] = "SELECT id,timestamp,decky,service,attacker_ip,type,payload FROM bounties"
                     " ORDER BY id DESC LIMIT ?1",
    [GET_ATTACKERS] = "SELECT a.uuid,a.ip,a.first_seen,a.last_seen,a.event_count,a.decky_count,"
                      "a.services,b.summary,t.report IS NOT NULL AS correlated FROM attackers a"
                      " LEFT JOIN attacker_behavior b ON b.ip=a.ip"
                      " LEFT JOIN traversals t ON t.ip=a.ip"
                      " WHERE ?1 IS NULL OR a.ip=?1 ORDER BY a.last_seen DESC LIMIT ?2",
    [GET_ATTACKER_DETAIL] = "SELECT a.*,b.record AS behavior,b.summary,t.report AS traversal"
                            " FROM attackers a LEFT JOIN attacker_behavior b ON b.ip=a.ip"
                            " LEFT JOIN traversals t ON t.ip=a.ip WHERE a.uuid=?1",
    [GET_ATTACKER_COMMANDS] = "SELECT l.id,l.timestamp,l.decky,l.service,"
                              "l.fields->>'$.command' AS command FROM logs l"
                              " JOIN attackers a ON a.ip=l.attacker_ip"
                              " WHERE a.uuid=?1 AND l.event_type='command' ORDER BY l.id DESC"
                              " LIMIT 1000",
    [GET_STATS] = "SELECT (SELECT count(*) FROM logs) AS logs,"
                  "(SELECT count(*) FROM attackers) AS attackers,"
                  "(SELECT count(*) FROM bounties) AS bounties,"
                  "(SELECT count(DISTINCT decky) FROM logs) AS deckies,"
                  "(SELECT count(*) FROM traversals) AS traversals",
    [ADD_USER] = "INSERT OR IGNORE INTO users(uuid,name,role,password_hash,must_change)"
                 " VALUES(?1,?2,?3,?4,?5)",
    [GET_USER] = "SELECT uuid,name,role,password_hash,must_change FROM users WHERE name=?1",
    [GET_USERS] = "SELECT uuid,name,role,must_change FROM users ORDER BY name",
    [DELETE_USER] = "DELETE FROM users WHERE uuid=?1",
    [DELETE_SESSIONS] = "DELETE FROM sessions WHERE user=?1",
    [SET_USER_ROLE] = "UPDATE users SET role=?2 WHERE uuid=?1",
    [SET_USER_PASSWORD] = "UPDATE users SET password_hash=?2,must_change=?3 WHERE uuid=?1",
    [ADD_SESSION] = "INSERT INTO sessions(token,user) VALUES(?1,?2)",
    [GET_SESSION] = "SELECT u.uuid,u.name,u.role,u.must_change FROM sessions s"
                    " JOIN users u ON u.uuid=s.user WHERE s.token=?1",
    [GET_SETTING] = "SELECT value FROM settings WHERE key=?1",
    [SET_SETTING] = "INSERT INTO settings(key,value) VALUES(?1,?2)"
                    " ON CONFLICT DO UPDATE SET value=excluded.value",
    [GET_DECKIES] = "SELECT name,service,banner,port,mutate_interval_s,mutated_at FROM deckies"
                    " ORDER BY name",
    [GET_DECKY] = "SELECT name,service,banner,port,mutate_interval_s,mutated_at FROM deckies"
                  " WHERE name=?1",
    [GET_DECKIES_DUE] = "SELECT name FROM deckies" DUE " ORDER BY mutated_at",
    [COUNT_DUE] = "SELECT count(*) FROM deckies" DUE,
    [UPSERT_DECKY] = "INSERT INTO deckies(name,service,banner,port,mutated_at)"
                     " VALUES(?1,?2,?3,?4,unixepoch()) ON CONFLICT DO UPDATE SET"
                     " service=excluded.service,banner=excluded.banner,port=excluded.port,"
                     "mutated_at=excluded.mutated_at",
    [DELETE_DECKY] = "DELETE FROM deckies WHERE name=?1",
    [SET_MUTATE_INTERVAL] = "UPDATE deckies SET mutate_interval_s=nullif(?2,-1) WHERE name=?1",
    [ADD_PROBE] = "INSERT INTO probes(ip,port,kind,hash,text,probed_at)"
                  " VALUES(?1,?2,?3,?4,?5,unixepoch()) ON CONFLICT DO UPDATE SET"
                  " hash=excluded.hash,text=excluded.text,probed_at=excluded.probed_at",
    [GET_PROBE_TARGETS] = "SELECT ip" TARGETS " ORDER BY last_seen LIMIT ?2",
    [COUNT_TARGETS] = "SELECT count(*)" TARGETS,
    [GET_PROBES] = "SELECT p.port,p.kind,p.hash,p.text,p.probed_at FROM probes p"
                   " JOIN attackers a ON a.ip=p.ip WHERE a.uuid=?1 AND p.port>0"
                   " ORDER BY p.port,p.kind",
    [REINIT_LOGS] = "DELETE FROM logs",
    [REINIT_BOUNTIES] = "DELETE FROM bounties",
    [REINIT_ATTACKERS] = "DELETE FROM attackers",
    [REINIT_BEHAVIOR] = "DELETE FROM attacker_behavior",
    [REINIT_TRAVERSALS] = "DELETE FROM traversals",
    [REINIT_PROBES] = "DELETE FROM probes",
};
