/* The write-ahead log: docs/formats/log.md. Owned by one thread at a time. */
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

struct log {
    int dir; /* lent */
    bool sync;
    struct log_file *oldest, *newest;
    uint64_t next_sequence;
    /* The file being written, which is the newest; -1: none is open. */
    int fd;
    uint64_t salt;
    uint64_t good_bytes; /* what was acknowledged */
    bool must_cut;       /* more than that may be in the file: */
    uint64_t stray;      /* so many records, from next_sequence on */
    uint64_t damaged;    /* places found by recovery */
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
/* The next append begins a new file. */
void log_rotate(struct log *log);
/* Removes the files that hold nothing beyond `sealed`, except the one being written. */
void log_trim(struct log *log, uint64_t sealed);
uint64_t log_bytes(const struct log *log);

enum { LOG_HEADER_SIZE = 64, LOG_RECORD_SIZE = 40 };

/* Reads one file's bytes: what recovery does once the file is in memory, and what is fuzzed.
 * `ret_good` is where what follows the last whole record begins (the length when there is nothing).
 * A place that is damaged is told by `damage`, which may be NULL; a torn tail is none. ERR_CORRUPT or ERR_UNSUPPORTED for the header; else what
 * `fn` says. */
typedef void log_damage_fn(void *arg, uint64_t at, uint64_t bytes);
MUST_USE int log_read(struct str file, log_replay_fn *fn, log_damage_fn *damage, void *arg,
                      uint64_t *ret_good);

#endif
