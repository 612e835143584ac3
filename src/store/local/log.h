/* The write-ahead log: docs/formats/log.md. Owned by one thread at a time, but for log_sync. */
#ifndef STORE_LOCAL_LOG_H
#define STORE_LOCAL_LOG_H

#include "base/arena.h"
#include "base/err.h"
#include "store/store.h"

struct log_body {
    enum body_format format;
    struct str body;
    uint32_t n_spans;
};

/* The files that hold records not yet in segments, oldest first. */
struct log_file {
    struct log_file *newer;
    uint64_t first_sequence, last_sequence; /* last: 0 when it holds none */
    uint64_t bytes;
    char name[32];
};

/* A place in the newest file. */
struct log_mark {
    uint64_t bytes;
    uint64_t last_sequence; /* before it */
};

struct log {
    int dir; /* lent */
    bool sync;
    struct log_file *oldest, *newest;
    uint64_t next_sequence;
    /* The file being written, which is the newest; -1: none is open. */
    int fd;
    uint64_t salt;
    struct log_mark good, written; /* accepted; whole records */
    bool must_cut;                 /* more than was written may be in the file: */
    uint64_t stray_end;            /* records before this sequence */
    uint64_t damaged;              /* places found by recovery */
};

void log_init(struct log *log, int dir, bool sync);
void log_done(struct log *log); /* closes; removes nothing */

/* A record that recovery found. Its body lives until the function returns. */
typedef int log_replay_fn(void *arg, uint64_t sequence, const struct log_body *body);

/* Reads the records after `sealed` from all files of the directory, and removes or cuts what the
 * format says. A non-zero return of `fn` ends it. */
MUST_USE int log_recover(struct log *log, uint64_t sealed, log_replay_fn *fn, void *arg,
                         struct error_detail *ret_detail);

/* Appends a group; durable when it returns 0, else nothing of it is in the log. */
MUST_USE int log_append(struct log *log, const struct log_body *bodies, size_t n,
                        uint64_t *ret_last_sequence);
/* The same in steps, so that records can be written while those before them are synced. */

/* Writes them, to be synced; `written` is behind them. When it fails nothing may be written before
 * everything written was accepted or refused. */
MUST_USE int log_write(struct log *log, const struct log_body *bodies, size_t n);
/* Makes durable what was written before it was called. May be called by another thread, while the log is
 * written to and neither refused nor rotated. When it fails nothing that was not accepted may be. */
MUST_USE int log_sync(const struct log *log);
/* What lies before `mark`, which `written` was before a sync that succeeded. */
void log_accept(struct log *log, struct log_mark mark);
/* Cuts what was not accepted, and what a write that failed has left. */
void log_refuse(struct log *log);

/* The next append begins a new file. Everything written was accepted or refused. */
void log_rotate(struct log *log);
/* Removes the files that hold nothing beyond `sealed`, except the one being written, and one without a record
 * whose name the next will have. */
void log_trim(struct log *log, uint64_t sealed);
uint64_t log_bytes(const struct log *log);

/* The same in two steps, the second of which may be anybody's, at the same time as appends: removing a large
 * file takes the file system some time. The list is the caller's; so are those that log_files_remove gives
 * back, which could not be removed. */
MUST_USE struct log_file *log_detach(struct log *log, uint64_t sealed);
MUST_USE struct log_file *log_files_remove(int dir, struct log_file *files);
void log_files_free(struct log_file *files);
uint64_t log_files_bytes(const struct log_file *files);

enum { LOG_HEADER_SIZE = 64, LOG_RECORD_SIZE = 40 };

/* Reads one file's bytes: what recovery does once the file is in memory, and what is fuzzed.
 * `ret_good` is where what follows the last whole record begins (the length when there is nothing).
 * A place that is damaged is told by `damage`, which may be NULL; a torn tail is none. ERR_CORRUPT or ERR_UNSUPPORTED for the header; else what
 * `fn` says. */
typedef void log_damage_fn(void *arg, uint64_t at, uint64_t bytes);
MUST_USE int log_read(struct str file, log_replay_fn *fn, log_damage_fn *damage, void *arg,
                      uint64_t *ret_good);

#endif
