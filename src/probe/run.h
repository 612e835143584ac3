/* What the interposed libraries share: is tracing on, what is known of a handle, and what `pugmark run`
 * asked for. */
#ifndef PROBE_RUN_H
#define PROBE_RUN_H

#include "base/str.h"
#include "probe/next.h"
#include "probe/sql.h"

#include <pugmark/pugmark.h>

#include <pthread.h>

#define RUN_HANDLES_MAX 65536 /* of each library; others are passed on without spans */
#define RUN_QUEUE_MAX 1024    /* commands under way on one connection */

/* Starts tracing at the first call of a library that we know, and says whether it is on. */
bool run_on(void);

/* PUG_QUERY_TEXT: sanitized (default), full, off. */
enum sql_text run_query_text(void);
/* PUG_SQL_COMMENT: the context goes along with SQL, as sqlcommenter writes it. */
bool run_sql_comment(void);

/* ---- what is known of a handle ----
 *
 * A table from a library's handle to a state that begins with a `struct handle`. The table's lock is
 * held only inside these functions; a state belongs to whoever may use the handle. Fork takes all locks
 * first. */

struct handle {
    const void *key;
    struct handle *next;
};

#define HANDLE_BUCKETS 4096

struct handles {
    pthread_mutex_t lock;
    size_t n;
    struct handle *buckets[HANDLE_BUCKETS];
    struct handles *next; /* of those that fork must lock */
    bool known;
};

#define HANDLES_INIT                                                                               \
    {                                                                                              \
        .lock = PTHREAD_MUTEX_INITIALIZER                                                          \
    }

void *handles_find(struct handles *t, const void *key);
/* The state of `bytes` bytes, made and zeroed when there is none. NULL: no memory, or too many. */
void *handles_get(struct handles *t, const void *key, size_t bytes);
/* Takes it out; the caller frees it. */
void *handles_take(struct handles *t, const void *key);

/* ---- commands under way on a connection, answered in order ---- */

struct command {
    struct command *next;
    struct pug_span span;
};

struct commands {
    struct command *first, *last;
    unsigned n;
};

/* The span of a new one, not begun; NULL: no memory, or too many. */
struct pug_span *commands_add(struct commands *c);
/* Of the one whose answer is next; NULL: none. */
struct pug_span *commands_first(const struct commands *c);
/* Ends the first or the last one. */
void commands_end_first(struct commands *c);
void commands_end_last(struct commands *c);
/* Ends all, with that error if it is not NULL. */
void commands_end_all(struct commands *c, const char *error);

/* ---- attributes that several libraries have ---- */

/* server.address and server.port; `port` 0 is left out. */
void run_set_server(struct pug_span *span, const char *host, long port);
/* Name, db.operation.name, db.collection.name, db.query.summary and db.query.text of a statement. */
void run_set_sql(struct pug_span *span, const char *sql, size_t len);
/* error.type, db.response.status_code if `is_status`, and the status with its message, from which
 * values are taken out unless the query's text is wanted in full. */
void run_set_error(struct pug_span *span, const char *type, bool is_status, const char *message);

/* A statement with the current context in a comment; NULL when there is none or it has a comment
 * already. The caller frees it. */
char *run_sql_with_comment(const char *sql, const struct pug_context *context);

/* Keeps errno over what we do before or after a call. */
#define KEEP_ERRNO(...)                                                                            \
    do {                                                                                           \
        int errno_kept_ = errno;                                                                   \
        __VA_ARGS__;                                                                               \
        errno = errno_kept_;                                                                       \
    } while (0)

#endif
